/* test_kn_derive: the best k after a context from those after a shorter one (kn_derive.h), and many texts scored together, against a search of
 * all tokens and each text by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <math.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "lm/engine_int.h"
#include "lm/kn_ask.h"
#include "lm/kn_setup.h"
#include "lm/ngrams.h"

#define BOS 2u
#define ORDER 4u
#define WORDS 1500u /* more than are kept of a context: all of them are searched for */
#define DOCUMENTS 1500u
#define QUESTIONS 150u
#define TEXTS 31u
#define LENGTH 12u

static char base[] = "/tmp/cht-derive-XXXXXX";
static struct cht_env *env;
static struct cht_store *s;
static struct lm_engine *engine;
static struct cht_err err;
static struct cht_rng rng;

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

/* Some tokens are frequent, many are not. */
static uint32_t any_token(void)
{
    uint32_t most = 1u << cht_rng_next(&rng) % 11;
    return 5 + (uint32_t)(cht_rng_next(&rng) % (most < WORDS ? most : WORDS));
}

static void document(uint32_t *t)
{
    t[0] = BOS;
    for (unsigned i = 1; i < LENGTH; i++)
        t[i] = any_token();
}

static void count_documents(void)
{
    struct lm_ngrams *g;
    struct lm_ngrams_result out;
    uint32_t t[LENGTH];
    must(lm_ngrams_begin(LM_NGRAMS_OWN, &g, &err));
    for (unsigned i = 0; i < DOCUMENTS; i++) {
        document(t);
        must(lm_ngrams_add_document(g, t, LENGTH, &err));
    }
    for (uint32_t w = 0; w < WORDS; w++) { /* each of them at least once */
        t[1] = 5 + w;
        must(lm_ngrams_add_document(g, t, 2, &err));
    }
    must(lm_ngrams_commit(engine, s, g, &out, &err));
    lm_ngrams_free(g);
}

static int setup(void **state)
{
    const char *dirs[] = {base};
    const struct lm_kn_parameters p = {.order = ORDER, .bos = BOS};
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .default_shards = 2, .durability = CHT_DURABLE_OS};
    (void)state;
    if (mkdtemp(base) == NULL || cht_env_open(&cfg, &env, &err) != CHT_OK ||
        lm_engine_new(&engine, &err) != CHT_OK)
        return 1;
    const char *seed = getenv("CHT_TEST_SEED");
    cht_rng_seed(&rng, seed != NULL ? strtoull(seed, NULL, 0) : 1);
    must(cht_env_create(env, "default", 0, &err));
    must(cht_env_get(env, "default", &s, &err));
    must(lm_kn_setup(engine, s, &p, &err));
    count_documents();
    return 0;
}

static int teardown(void **state)
{
    char cmd[128];
    (void)state;
    int bad = cht_env_close(env, &err) != CHT_OK;
    lm_engine_free(engine);
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 || bad;
}

/* ---- the best ---------------------------------------------------------------------------------------------------- */

/* The best k after a context, again and again, against all. */
static void compare(struct lm_kn_reader *r, const struct lm_kn_text_query *q)
{
    static const uint32_t ks[] = {20, 3, 20, 50, 1, 20, 64};
    struct lm_kn_prediction out;
    bool later;
    must(lm_kn_begin(r, &err));
    must(lm_kn_predict(r, q, UINT32_MAX, &out, &later, &err));
    assert_int_equal(out.n, r->head.m[1].types);
    assert_true(out.n > 1024);
    struct lm_kn_candidate *all = malloc(out.n * sizeof *all);
    const struct lm_kn_prediction want = out;
    memcpy(all, out.c, out.n * sizeof *all);
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        must(lm_kn_predict(r, q, ks[i], &out, &later, &err));
        assert_true(out.n == ks[i] && out.order == want.order && out.unknown == want.unknown);
        for (uint32_t j = 0; j < out.n; j++) {
            if (out.c[j].token != all[j].token || out.c[j].p != all[j].p || out.c[j].order != all[j].order)
                fail_msg("number %u of %u: token %u, p %.17g, wanted %u, %.17g", j, ks[i], out.c[j].token,
                         out.c[j].p, all[j].token, all[j].p);
            double l = out.c[j].p > 0 ? log10(out.c[j].p) : LM_KN_LOG10_ZERO;
            assert_true(out.c[j].log10 == LM_KN_NO_LOG10 || out.c[j].log10 == l);
        }
    }
    assert_false(lm_kn_again(r));
    free(all);
}

static void test_best(void **state)
{
    struct lm_kn_reader *r;
    unsigned derived = 0, kept = 0;
    (void)state;
    must(lm_kn_reader_open(engine, s, NULL, &r, &err));
    for (unsigned i = 0; i < QUESTIONS; i++) {
        uint32_t t[LENGTH];
        document(t);
        const struct lm_kn_text_query q = {.tokens = t, .n = 1 + i % LENGTH, .max_order = i % (ORDER + 1)};
        compare(r, &q);
    }
    for (size_t i = 0; i < r->levels; i++) {
        const struct lm_kn_level *l = &r->level[i];
        bool has = l->order > 1 && l->there && l->held->more != NULL && l->held->more->best != NULL;
        kept += has;
        derived += has && l->order == 2 && l->n <= 32;
    }
    assert_true(r->root_more.best != NULL && kept > 20 && derived > 5);
    lm_kn_reader_close(r);
}

/* As the best, where some orders have discounts that make many tokens equal, which come in the order of their numbers: 0 leaves nothing to the
 * others, as few counts can have it; with all of the counts the followers are worth no more than the others. */
static void test_equals(void **state)
{
    struct lm_kn_reader *r;
    (void)state;
    for (unsigned round = 2; round < 2u << (ORDER - 1); round++) {
        must(lm_kn_reader_open_apart(engine, s, &r, &err));
        must(lm_kn_begin(r, &err));
        for (unsigned m = 2; m <= ORDER; m++) {
            for (unsigned j = 1; j <= 3 && (round >> (m - 1) & 1) != 0; j++)
                r->discounts[m].d[j] = (round & 1) != 0 ? j : 0;
        }
        for (unsigned i = 0; i < QUESTIONS / 5; i++) {
            uint32_t t[LENGTH];
            document(t);
            const struct lm_kn_text_query q = {.tokens = t, .n = 1 + i % LENGTH};
            compare(r, &q);
        }
        lm_kn_reader_close(r);
    }
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

struct heard {
    size_t n;
    struct lm_kn_scored of[LENGTH];
};

static void hear(void *ctx, const struct lm_kn_scored *t)
{
    struct heard *h = ctx;
    h->of[h->n++] = *t;
}

static void hear_of(void *ctx, size_t text, const struct lm_kn_scored *t)
{
    struct heard *h = ctx;
    assert_true(text < TEXTS);
    hear(&h[text], t);
}

static void same(const struct heard *a, const struct heard *b)
{
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++)
        assert_true(a->of[i].log10 == b->of[i].log10 && a->of[i].matched == b->of[i].matched);
}

/* Texts of all lengths, with bos and without, of all orders. */
static void test_together(void **state)
{
    static uint32_t t[TEXTS][LENGTH];
    static struct heard alone[TEXTS], together[TEXTS];
    struct lm_kn_text_query q[TEXTS];
    struct lm_kn_score one, all[TEXTS];
    struct lm_kn_reader *r;
    (void)state;
    must(lm_kn_reader_open(engine, s, NULL, &r, &err));
    for (unsigned round = 0; round < 5; round++) {
        memset(alone, 0, sizeof alone);
        memset(together, 0, sizeof together);
        for (unsigned i = 0; i < TEXTS; i++) {
            uint64_t dice = cht_rng_next(&rng);
            document(t[i]);
            if (dice % 3 == 0)
                t[i][dice / 3 % LENGTH] = BOS;
            q[i] = (struct lm_kn_text_query){.tokens = t[i] + (dice & 1),
                                             .n = (dice >> 8) % LENGTH,
                                             .bos = (dice >> 16) % 4 != 0,
                                             .max_order = (unsigned)(dice >> 24) % (ORDER + 2)};
        }
        must(lm_kn_begin(r, &err));
        for (size_t n = 0; n <= TEXTS; n += 1 + n) {
            memset(together, 0, sizeof together);
            must(lm_kn_score_all(r, q, n, hear_of, together, all, &err));
            for (size_t i = 0; i < n; i++) {
                alone[i].n = 0;
                must(lm_kn_score(r, &q[i], hear, &alone[i], &one, &err));
                same(&alone[i], &together[i]);
                assert_true(one.tokens == alone[i].n && all[i].tokens == one.tokens && all[i].oov == one.oov);
                assert_true(all[i].log10 == one.log10 && all[i].log10_oov == one.log10_oov);
            }
        }
        assert_false(lm_kn_again(r));
    }
    lm_kn_reader_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best),
        cmocka_unit_test(test_equals),
        cmocka_unit_test(test_together),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
