/* test_kn: the live Kneser-Ney model against a plain one that counts token by token as README.md of src/lm defines it, with random
 * histories of documents that come and go; and its questions against brute force. */
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

#include "base/alloc.h"
#include "base/rng.h"
#include "cheetah/scan.h"
#include "lm/kn_arpa.h"
#include "lm/kn_ask.h"
#include "lm/kn_count.h"
#include "lm/kn_setup.h"
#include "lm/ngrams.h"

#define BOS 2u
#define ORDER_MAX 8u

static char base[] = "/tmp/cht-kn-XXXXXX";
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

static int setup(void **state)
{
    (void)state;
    char cmd[128];
    const char *dirs[] = {base}, *seed = getenv("CHT_TEST_SEED");
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .default_shards = 2, .durability = CHT_DURABLE_OS};
    memset(&err, 0, sizeof err);
    cht_rng_seed(&rng, seed != NULL ? strtoull(seed, NULL, 0) : 20261128);
    return system(cmd) != 0 || cht_env_open(&cfg, &env, &err) != CHT_OK ||
           cht_env_create(env, "default", 0, &err) != CHT_OK ||
           cht_env_get(env, "default", &s, &err) != CHT_OK || lm_engine_new(&engine, &err) != CHT_OK;
}

static int teardown(void **state)
{
    (void)state;
    lm_engine_free(engine);
    return cht_env_close(env, &err) != CHT_OK;
}

static void fresh(unsigned order, unsigned flags)
{
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = {(const uint8_t *)"", 0}};
    struct cht_commit c = {.ops = &op, .count = 1};
    must(cht_store_commit(s, &c));
    const struct lm_kn_parameters p = {.order = order, .flags = flags, .bos = BOS};
    must(lm_kn_setup(engine, s, &p, &err));
}

static uint32_t below(uint32_t n) { return (uint32_t)cht_rng_below(&rng, n); }

/* ---- the plain model ---------------------------------------------------------------------------------------------- */

/* An n-gram and its adjusted count; unsorted, looked for one by one. */
struct gram {
    uint32_t t[ORDER_MAX], n, a;
};
struct plain {
    struct gram *g;
    size_t n, cap;
    unsigned order;
};

static struct gram *find(struct plain *p, const uint32_t *t, uint32_t n)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->g[i].n == n && memcmp(p->g[i].t, t, n * sizeof *t) == 0)
            return &p->g[i];
    }
    return NULL;
}

/* Section "Counting one token" of the README, to the letter. */
static void bump(struct plain *p, const uint32_t *t, uint32_t n, int by)
{
    struct gram *g = find(p, t, n);
    if (g == NULL) {
        assert_true(by > 0);
        if (p->n == p->cap) {
            p->cap = p->cap * 2 + 64;
            p->g = realloc(p->g, p->cap * sizeof *p->g);
        }
        g = &p->g[p->n++];
        *g = (struct gram){.n = n};
        memcpy(g->t, t, n * sizeof *t);
    }
    uint32_t before = g->a;
    g->a = (uint32_t)((int64_t)before + by);
    bool came = before == 0, went = g->a == 0;
    if (went)
        *g = p->g[--p->n];
    if ((came || went) && n > 1)
        bump(p, t + 1, n - 1, by);
}

struct doc {
    uint32_t t[24];
    uint32_t n;
};

static void plain_count(struct plain *p, const struct doc *d, int by)
{
    uint32_t text[32], n = 0;
    if (d->n < 2)
        return;
    text[n++] = BOS;
    for (uint32_t i = 0; i < d->n; i++) {
        if (d->t[i] == BOS) {
            n = 0;
            text[n++] = BOS;
            continue;
        }
        text[n++] = d->t[i];
        uint32_t len = n < p->order ? n : p->order;
        bump(p, text + n - len, len, by);
    }
}

struct sums {
    uint64_t types, n[4];
};

static struct sums sums_of(const struct plain *p, unsigned order)
{
    struct sums out = {0};
    for (size_t i = 0; i < p->n; i++) {
        if (p->g[i].n != order)
            continue;
        out.types++;
        if (p->g[i].a <= 4)
            out.n[p->g[i].a - 1]++;
    }
    return out;
}

static void discounts_of(const struct plain *p, unsigned order, double d[4])
{
    struct sums m = sums_of(p, order);
    const uint64_t *n = m.n;
    const double fallback[] = {0, 0.5, 1, 1.5};
    memcpy(d, fallback, sizeof fallback);
    if (n[0] == 0 || n[1] == 0 || n[2] == 0)
        return;
    float y = (float)n[0] / (float)((double)n[0] + 2.0 * (double)n[1]), x[4];
    for (unsigned j = 1; j <= 3; j++) {
        float t = (float)(j + 1) * y * (float)n[j] / (float)n[j - 1];
        x[j] = (float)j - t;
        if (x[j] < 0 || x[j] > (float)j)
            return;
    }
    for (unsigned j = 1; j <= 3; j++)
        d[j] = (double)x[j];
}

/* p(w | the n tokens before `end`), by definition. *matched: the longest n-gram. */
static double plain_p(struct plain *p, uint32_t w, const uint32_t *end, unsigned n, unsigned *matched)
{
    double out = 1.0 / (double)(sums_of(p, 1).types + 1);
    *matched = 0;
    for (unsigned m = 1; m <= n + 1; m++) {
        uint32_t b[4] = {0}, aw = 0;
        uint64_t total = 0;
        double d[4];
        for (size_t i = 0; i < p->n; i++) {
            const struct gram *g = &p->g[i];
            if (g->n != m || memcmp(g->t, end - (m - 1), (m - 1) * sizeof *end) != 0)
                continue;
            b[g->a < 3 ? g->a : 3]++;
            total += g->a;
            aw = g->t[m - 1] == w ? g->a : aw;
        }
        if (total == 0)
            break;
        discounts_of(p, m, d);
        double gamma = (d[1] * b[1] + d[2] * b[2] + d[3] * b[3]) / (double)total;
        out = (aw > 0 ? ((double)aw - d[aw < 3 ? aw : 3]) / (double)total : 0) + gamma * out;
        *matched = aw > 0 ? m : *matched;
    }
    return out;
}

/* ---- the engine's model ------------------------------------------------------------------------------------------- */

static struct lm_ngrams *batch(unsigned order)
{
    struct lm_ngrams *g;
    must(lm_ngrams_begin(order > 0 ? order : LM_NGRAMS_OWN, &g, &err));
    return g;
}

static void put(struct lm_ngrams *g, const struct doc *d, bool take)
{
    must(take ? lm_ngrams_take_document(g, d->t, d->n, &err) : lm_ngrams_add_document(g, d->t, d->n, &err));
}

static enum cht_rc try_commit(struct lm_ngrams *g, struct lm_ngrams_result *out)
{
    enum cht_rc rc = lm_ngrams_commit(engine, s, g, out, &err);
    lm_ngrams_free(g);
    return rc;
}

static void commit(struct lm_ngrams *g)
{
    struct lm_ngrams_result out;
    must(try_commit(g, &out));
}

/* A sum over the names and bytes under a prefix, whatever the keys; of the head the generation and the id are left out. */
static uint64_t state_of(const char *prefix)
{
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = {(const uint8_t *)prefix, strlen(prefix)}, .values = true};
    struct cht_scan *sc;
    struct cht_entry e[64];
    uint64_t h = 14695981039346656037u;
    size_t n = 1;
    must(cht_scan_open(s, &cfg, &sc, &err));
    while (n > 0) {
        must(cht_scan_next(sc, e, 64, &n, &err));
        for (size_t i = 0; i < n; i++) {
            bool head = e[i].name_len > 5 && memcmp(e[i].name, "kn:0:", 5) == 0;
            for (uint32_t j = 0; j < e[i].name_len; j++)
                h = (h ^ e[i].name[j]) * 1099511628211u;
            for (uint32_t j = 0; j < e[i].value_len; j++)
                h = (h ^ (head && j >= 12 && j < 28 ? 0 : e[i].value[j])) * 1099511628211u;
        }
    }
    cht_scan_close(sc);
    return h;
}

static struct lm_kn_head head(void)
{
    struct lm_kn_head h;
    struct cht_buf b = {0};
    must(lm_kn_head_get(s, &h, &b, NULL, &err));
    cht_buf_free(&b);
    return h;
}

/* Every record, page and sum of the engine's model is the plain one's, and there is no other. */
static void compare_states(struct plain *p)
{
    struct lm_kn_head h = head();
    uint64_t records = 0, total = 0, contexts = 0;
    for (unsigned m = 1; m <= p->order; m++) {
        struct sums want = sums_of(p, m);
        assert_int_equal(h.m[m].types, want.types);
        for (unsigned j = 0; j < 4; j++)
            assert_int_equal(h.m[m].n[j], want.n[j]);
        contexts += h.m[m].contexts;
    }
    struct cht_buf b = {0};
    for (size_t i = 0; i < p->n; i++) {
        const struct gram *g = &p->g[i];
        uint8_t name[LM_KN_NAME_MAX];
        struct lm_kn_record r;
        uint64_t key;
        uint32_t size;
        size_t n = g->n == 1 ? lm_kn_page_name(g->t[0], name) : lm_kn_name(g->n, g->t + g->n - 1, name);
        must(cht_store_pair_value(s, (struct cht_str){name, n}, &key, &b, &size, &err));
        assert_true(lm_kn_record_read(g->n, b.data, size, &r));
        assert_true(lm_kn_record_sound(&r));
        const struct lm_kn_row row = {.p = r.p, .n = r.n, .wide = r.wide};
        assert_int_equal(lm_kn_row_find(&row, g->t[g->n - 1]), g->a);
        records++;
        total += g->n == 1 ? g->a : 0;
    }
    assert_int_equal(h.root_total, total);
    uint64_t pairs;
    must(cht_store_count(s, (struct cht_str){(const uint8_t *)"kn:", 3}, &pairs, &err));
    assert_int_equal(pairs, contexts + 1);
    cht_buf_free(&b);
}

static struct doc random_doc(uint32_t vocabulary, uint32_t longest)
{
    struct doc d = {.n = below(longest) + 1};
    for (uint32_t i = 0; i < d.n; i++) {
        uint32_t r = below(vocabulary);
        r = below(r + 1); /* some are frequent */
        d.t[i] = r == 7 ? 0xFFFFFFFFu : r == 8 ? 0xF0000000u + below(2) : r;
    }
    return d;
}

static void ask_all(struct plain *p, uint32_t vocabulary);

/* ---- tests -------------------------------------------------------------------------------------------------------- */

#define DOCS 30u

static void history(unsigned order, uint32_t vocabulary)
{
    struct plain p = {.order = order};
    struct doc live[4 * DOCS];
    unsigned n = 0;
    fresh(order, 0);
    for (unsigned step = 0; step < 6; step++) {
        struct lm_ngrams *g = batch(order);
        for (unsigned i = below(DOCS / 2); i > 0 && n < 3 * DOCS; i--) {
            struct doc d = random_doc(vocabulary, 12);
            put(g, &d, false);
            plain_count(&p, &d, 1);
            live[n++] = d;
        }
        for (unsigned i = below(DOCS / 2); i > 0 && n > 0 && step > 0; i--) {
            unsigned at = below(n);
            put(g, &live[at], true);
            plain_count(&p, &live[at], -1);
            live[at] = live[--n];
        }
        commit(g);
        compare_states(&p);
        if (step % 2 == 1)
            ask_all(&p, vocabulary);
    }
    uint64_t grown = state_of("kn:");
    /* The documents that are left, counted anew in another order, leave the same bytes. */
    fresh(order, 0);
    while (n > 0) {
        struct lm_ngrams *g = batch(0);
        for (unsigned i = below(5) + 1; i > 0 && n > 0; i--) {
            unsigned at = below(n);
            put(g, &live[at], false);
            live[at] = live[--n];
        }
        commit(g);
    }
    assert_true(state_of("kn:") == grown);
    free(p.g);
}

static void test_histories(void **state)
{
    static const unsigned orders[] = {1, 2, 3, 5, 8};
    (void)state;
    unsigned rounds = getenv("CHT_TEST_LONG") != NULL ? 200 : 4;
    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned o = 0; o < sizeof orders / sizeof *orders; o++)
            history(orders[o], below(3) == 0 ? 3 : below(2) == 0 ? 12 : 300);
    }
}

/* Questions against their definition: every token after some contexts, the unknown one too. */
static void ask_one(struct plain *p, struct lm_kn_reader *r, const uint32_t *context, unsigned n,
                    unsigned max_order)
{
    struct lm_kn_text_query q = {.tokens = context, .n = n, .max_order = max_order};
    struct lm_kn_prediction out;
    unsigned top = max_order == 0 || max_order > p->order ? p->order : max_order, reach = 0, matched;
    bool later;
    must(lm_kn_begin(r, &err));
    must(lm_kn_predict(r, &q, 1000000, &out, &later, &err));
    assert_false(later);
    while (reach < n && reach + 1 < top && (reach == 0 || context[n - reach] != BOS))
        reach++;
    double sum = out.unknown;
    assert_true(fabs(plain_p(p, BOS, context + n, reach, &matched) - out.unknown) < 1e-12);
    assert_int_equal(out.n, sums_of(p, 1).types);
    for (size_t i = 0; i < out.n; i++) {
        const struct lm_kn_candidate *c = &out.c[i];
        double want = plain_p(p, c->token, context + n, reach, &matched);
        if (fabs(want - c->p) > 1e-12 || matched != c->order)
            fail_msg("token %u: p %.17g order %u, wanted %.17g %u", c->token, c->p, c->order, want, matched);
        sum += c->p;
        assert_true(i == 0 || c->p < c[-1].p || (c->p == c[-1].p && c->token > c[-1].token));
    }
    assert_true(fabs(sum - 1) < 1e-9);
    /* The best few are the first of all. */
    struct lm_kn_candidate *all = malloc((out.n + 1) * sizeof *all);
    size_t types = out.n;
    memcpy(all, out.c, types * sizeof *all);
    for (uint32_t k = 1; k <= types; k = k * 2 + 1) {
        must(lm_kn_predict(r, &q, k, &out, &later, &err));
        assert_int_equal(out.n, k);
        for (uint32_t i = 0; i < k; i++)
            assert_true(out.c[i].token == all[i].token && out.c[i].p == all[i].p);
    }
    free(all);
    assert_false(lm_kn_again(r));
}

static void ask_all(struct plain *p, uint32_t vocabulary)
{
    struct lm_kn_reader *r;
    uint32_t text[16];
    unsigned matched;
    if (p->n == 0)
        return;
    must(lm_kn_reader_open(engine, s, NULL, &r, &err));
    for (unsigned i = 0; i < 4; i++) {
        struct doc d = random_doc(vocabulary + 2, 9);
        if (i == 1)
            d.t[0] = BOS;
        ask_one(p, r, d.t, i == 0 ? 0 : d.n, i == 3 ? below(p->order) + 1 : 0);
        /* A text: each token after those before it, from bos on. */
        struct lm_kn_text_query q = {.tokens = d.t, .n = d.n, .bos = i % 2 == 0};
        struct lm_kn_score score;
        double log10_sum = 0;
        uint32_t n = 0, tokens = 0, oov = 0;
        if (q.bos)
            text[n++] = BOS;
        for (uint32_t j = 0; j < d.n; j++) {
            if (d.t[j] == BOS) {
                n = 0;
                text[n++] = BOS;
                continue;
            }
            unsigned reach = n < p->order - 1 ? n : p->order - 1;
            double pj = plain_p(p, d.t[j], text + n, reach, &matched);
            log10_sum += pj > 0 ? log10(pj) : -99;
            tokens++;
            oov += matched == 0;
            text[n++] = d.t[j];
        }
        must(lm_kn_begin(r, &err));
        must(lm_kn_score(r, &q, NULL, NULL, &score, &err));
        assert_int_equal(score.tokens, tokens);
        assert_int_equal(score.oov, oov);
        assert_true(fabs(score.log10 - log10_sum) < 1e-9);
    }
    lm_kn_reader_close(r);
}

static void test_taking_too_much(void **state)
{
    (void)state;
    const struct doc a = {{5, 6, 7}, 3}, b = {{5, 6, 8}, 3};
    struct lm_ngrams_result out;
    fresh(3, 0);
    struct lm_ngrams *g = batch(0);
    put(g, &a, false);
    commit(g);
    uint64_t before = state_of("");
    g = batch(0);
    put(g, &b, true);
    assert_int_equal(try_commit(g, &out), CHT_NOT_COUNTED);
    g = batch(0);
    put(g, &a, true);
    put(g, &a, true);
    assert_int_equal(try_commit(g, &out), CHT_NOT_COUNTED);
    assert_true(state_of("") == before);
    g = batch(2);
    put(g, &a, false);
    assert_int_equal(try_commit(g, &out), CHT_ORDER_MISMATCH);
    assert_true(state_of("") == before);
    g = batch(3); /* what is added in the same request may be taken away */
    put(g, &b, true);
    put(g, &b, false);
    put(g, &a, true);
    must(try_commit(g, &out));
    assert_int_equal(out.documents, 1);
    assert_int_equal(out.removed, 2);
    assert_true(out.live && out.generation == 3);
    uint64_t pairs;
    must(cht_store_count(s, (struct cht_str){(const uint8_t *)"", 0}, &pairs, &err));
    assert_int_equal(pairs, 1); /* the head */
}

/* The older namespaces, where they are kept, are as if what is gone had never been. */
static void test_kept_namespaces(void **state)
{
    (void)state;
    struct doc d[20];
    for (unsigned i = 0; i < 20; i++) {
        d[i] = random_doc(9, 8);
        for (uint32_t j = 0; j < d[i].n; j++) /* no two contexts that are permutations */
            d[i].t[j] = d[i].t[j] % 1000 * 16 + j;
    }
    fresh(3, LM_KN_KEEP);
    struct lm_ngrams *g = batch(0);
    for (unsigned i = 0; i < 10; i++)
        put(g, &d[i], false);
    commit(g);
    uint64_t want[] = {state_of("cnt:"), state_of("ctx:"), state_of("ctxv:"), state_of("kn:1:")};
    g = batch(0);
    for (unsigned i = 10; i < 20; i++)
        put(g, &d[i], false);
    put(g, &d[0], true);
    commit(g);
    g = batch(0);
    for (unsigned i = 10; i < 20; i++)
        put(g, &d[i], true);
    put(g, &d[0], false);
    commit(g);
    assert_true(state_of("cnt:") == want[0]);
    assert_true(state_of("ctx:") == want[1]);
    assert_true(state_of("ctxv:") == want[2]);
    assert_true(state_of("kn:1:") == want[3]);
    g = batch(0);
    for (unsigned i = 0; i < 10; i++)
        put(g, &d[i], true);
    commit(g);
    uint64_t pairs, values;
    struct cht_store_stats st;
    must(cht_store_count(s, (struct cht_str){(const uint8_t *)"", 0}, &pairs, &err));
    must(cht_store_stats(s, &st, &err));
    values = st.values;
    assert_int_equal(pairs, 1);
    assert_int_equal(values, 1);
}

static void test_parameters(void **state)
{
    (void)state;
    struct lm_kn_parameters p = {.order = 3, .flags = LM_KN_EOS, .bos = 2, .eos = 3};
    const struct doc a = {{5, 6, 7}, 3};
    fresh(5, 0);
    must(lm_kn_setup(engine, s, &p, &err)); /* nothing is counted yet */
    assert_int_equal(head().order, 3);
    struct lm_ngrams *g = batch(0);
    put(g, &a, false);
    commit(g);
    must(lm_kn_setup(engine, s, &p, &err));
    p.order = 4;
    assert_int_equal(lm_kn_setup(engine, s, &p, &err), CHT_MODEL_FIXED);
    p.order = 9;
    assert_int_equal(lm_kn_setup(engine, s, &p, &err), CHT_INVALID_ARGUMENT);
    p = (struct lm_kn_parameters){.order = 3, .flags = LM_KN_KEEP_CTXV, .bos = 2};
    assert_int_equal(lm_kn_setup(engine, s, &p, &err), CHT_INVALID_ARGUMENT);
    p = (struct lm_kn_parameters){.order = 3, .flags = LM_KN_EOS, .bos = 2, .eos = 2};
    assert_int_equal(lm_kn_setup(engine, s, &p, &err), CHT_INVALID_ARGUMENT);
}

/* k: 0: the score. */
static enum cht_rc ask_best(const uint32_t *t, size_t n, uint32_t k)
{
    struct lm_kn_reader *r;
    enum cht_rc rc = lm_kn_reader_open(engine, s, NULL, &r, &err);
    if (rc != CHT_OK)
        return rc;
    struct lm_kn_text_query q = {.tokens = t, .n = n, .bos = true};
    struct lm_kn_score score;
    struct lm_kn_prediction out;
    bool later;
    rc = lm_kn_begin(r, &err);
    if (rc == CHT_OK)
        rc = k > 0 ? lm_kn_predict(r, &q, k, &out, &later, &err)
                   : lm_kn_score(r, &q, NULL, NULL, &score, &err);
    lm_kn_reader_close(r);
    return rc;
}

static enum cht_rc ask(const uint32_t *t, size_t n, bool predict) { return ask_best(t, n, predict ? 20 : 0); }

static void overwrite(const uint8_t *name, size_t n, const void *value, size_t size)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = {name, n}, .value = {value, size}};
    struct cht_commit c = {.ops = &op, .count = 1};
    must(cht_store_commit(s, &c));
}

static bool swallow(void *ctx, const char *p, size_t n)
{
    (void)ctx, (void)p, (void)n;
    return true;
}

static void test_damage(void **state)
{
    (void)state;
    const struct doc a = {{5, 6, 7}, 3};
    uint8_t name[LM_KN_NAME_MAX];
    const uint32_t context[] = {5};
    struct lm_ngrams_result out;
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {{"\x01", 1},
               {"\x01\x00", 2},
               {"\x01\x01\x06", 3},
               {"\x01\x01\x06\x00\x00", 5},
               {"\x03\x01\x06\x00", 4},
               {"\x01\x01\x86\x00\x00", 5},
               {"\x01\x02\x06\x00\xFF\xFF\xFF\xFF\x0F\x00", 10},
               {"\x01\x01\x06\xFF\xFF\xFF\xFF\x0F", 8},
               {"\x02\x00\x00\x02\x00\x00\x00\x01", 8},
               {"{}", 2}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fresh(3, 0);
        assert_int_equal(ask(a.t, a.n, false), CHT_NOTHING_COUNTED);
        struct lm_ngrams *g = batch(0);
        put(g, &a, false);
        commit(g);
        assert_int_equal(ask(a.t, a.n, false), CHT_OK);
        assert_int_equal(ask(a.t, 1, true), CHT_OK);
        overwrite(name, lm_kn_name(2, context + 1, name), bad[i].bytes, bad[i].n);
        assert_int_equal(ask(a.t, a.n, false), CHT_MALFORMED_PAYLOAD);
        assert_int_equal(ask(a.t, 1, true), CHT_MALFORMED_PAYLOAD);
        assert_int_equal(ask(a.t + 2, 1, true), CHT_OK); /* what does not need it is answered */
        uint64_t before = state_of("");
        g = batch(0);
        const struct doc other = {{5, 9, 5, 6}, 4};
        put(g, &other, false);
        assert_int_equal(try_commit(g, &out), CHT_MALFORMED_PAYLOAD);
        assert_true(state_of("") == before);
        overwrite(name, lm_kn_page_name(5, name), bad[i].bytes, bad[i].n);
        assert_int_equal(ask(a.t, a.n, false), CHT_MALFORMED_PAYLOAD);
        struct cht_str h = lm_kn_head_name();
        overwrite(h.p, h.n, bad[i].bytes, bad[i].n);
        assert_int_equal(ask(a.t, a.n, false), CHT_MALFORMED_PAYLOAD);
        g = batch(0);
        put(g, &a, false);
        assert_int_equal(try_commit(g, &out), CHT_MALFORMED_PAYLOAD);
    }
}

/* Each allocation fails once: an error, and nothing has changed; at last all is well. */
static void test_no_memory(void **state)
{
    (void)state;
    struct doc d[12];
    for (unsigned i = 0; i < 12; i++)
        d[i] = random_doc(200, 20);
    for (unsigned keep = 0; keep < 2; keep++) {
        fresh(3, keep ? LM_KN_KEEP : 0);
        struct lm_ngrams *g = batch(0);
        for (unsigned i = 0; i < 8; i++)
            put(g, &d[i], false);
        commit(g);
        uint64_t before = state_of("");
        unsigned failed = 0;
        for (uint64_t n = 1;; n++) {
            struct lm_ngrams_result out;
            g = batch(0);
            for (unsigned i = 4; i < 12; i++)
                put(g, &d[i], i < 8);
            cht_alloc_fail_at(n, false);
            enum cht_rc rc = try_commit(g, &out);
            bool injected = cht_alloc_failures() > 0;
            cht_alloc_fail_at(0, false);
            if (!injected) {
                must(rc);
                break;
            }
            if (rc == CHT_OK) /* the store, or a hint, can do without */
                break;
            assert_int_equal(rc, CHT_NO_MEMORY);
            assert_true(state_of("") == before);
            failed++;
        }
        assert_true(failed > 5);
    }
    unsigned failed = 0;
    for (uint64_t n = 1;; n++) {
        lm_engine_free(engine);
        must(lm_engine_new(&engine, &err));
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = ask(d[0].t, d[0].n, n % 2 == 0);
        enum cht_rc second = ask(d[0].t, d[0].n, n % 2 != 0);
        bool injected = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        if (!injected)
            break;
        assert_true(rc == CHT_OK || rc == CHT_NO_MEMORY);
        assert_true(second == CHT_OK || second == CHT_NO_MEMORY);
        failed += rc == CHT_NO_MEMORY || second == CHT_NO_MEMORY;
    }
    assert_true(failed > 3);
}

/* A wide vocabulary: the lists of the root are cut short, and brought up to date by small commits. */
static void test_many_tokens(void **state)
{
    (void)state;
    struct plain p = {.order = 2};
    fresh(2, 0);
    struct lm_kn_reader *r;
    for (unsigned round = 0; round < 40; round++) {
        struct lm_ngrams *g = batch(0);
        for (unsigned i = 0; i < (round == 0 ? 40u : 1u); i++) {
            struct doc d = random_doc(3000, 20);
            put(g, &d, false);
            plain_count(&p, &d, 1);
        }
        commit(g);
        must(lm_kn_reader_open(engine, s, NULL, &r, &err));
        struct doc d = random_doc(20, 3);
        ask_one(&p, r, d.t, d.n, 0);
        lm_kn_reader_close(r);
    }
    free(p.g);
}

struct heard {
    struct plain *p;
    const uint32_t *text;
    uint32_t at, bos; /* the token that is told of next, and the bos before it */
    unsigned top;
};

static void hear(void *ctx, const struct lm_kn_scored *t)
{
    struct heard *h = ctx;
    unsigned matched;
    for (; h->text[h->at] == BOS; h->at++)
        h->bos = h->at;
    uint32_t reach = h->at - h->bos < h->top - 1 ? h->at - h->bos : h->top - 1;
    double p = plain_p(h->p, h->text[h->at], h->text + h->at, reach, &matched);
    assert_int_equal(t->matched, matched);
    assert_true(fabs(t->log10 - (p > 0 ? log10(p) : -99)) < 1e-9);
    h->at++;
}

/* Texts of several windows, with bos at their borders too; contexts of 12, 63 and 200 followers, asked so often that they get an index. */
static void test_long_texts(void **state)
{
    (void)state;
    const uint32_t followers[] = {11, 12, 63, 64, 200};
    struct plain p = {.order = 4};
    struct lm_kn_reader *r;
    uint32_t text[160];
    fresh(4, 0);
    struct lm_ngrams *g = batch(0);
    for (uint32_t c = 0; c < 5; c++) {
        for (uint32_t i = 0; i < followers[c]; i++) {
            struct doc d = {.n = 4, .t = {BOS, 10 + c, 20 + i * 7, 10 + below(5)}};
            put(g, &d, false);
            plain_count(&p, &d, 1);
        }
    }
    commit(g);
    must(lm_kn_reader_open(engine, s, NULL, &r, &err));
    for (unsigned round = 0; round < 12; round++) {
        struct lm_kn_score score;
        struct lm_kn_text_query q = {
            .tokens = text, .n = 120 + below(40), .bos = true, .max_order = below(5)};
        struct heard h = {.p = &p, .text = text, .top = q.max_order > 0 ? q.max_order : 4};
        for (uint32_t i = 0; i < q.n; i++)
            text[i] = i == 0 || i % 33 == round % 4 ? BOS : i % 2 == 1 ? 10 + below(5) : 20 + below(210) * 7;
        must(lm_kn_begin(r, &err));
        must(lm_kn_score(r, &q, hear, &h, &score, &err));
        assert_int_equal(h.at, text[q.n - 1] == BOS ? q.n - 1 : q.n);
    }
    lm_kn_reader_close(r);
    free(p.g);
}

/* A wide record or page whose bytes at `at` are others: is refused by whatever reads it. */
static void test_damage_wide(void **state)
{
    (void)state;
    enum { N = LM_KN_WIDE };
    static const struct {
        size_t at;
        uint8_t byte;
        bool followers; /* a question need not find it: it does not look at all of them, nor add them up */
    } bad[] = {{1, 1, false},  {2, 1, false},   {3, 7, false},    {7, N - 1, false}, {7, N + 1, false},
               {4, 1, false},  {15, 10, false}, {16, 255, false}, {20, 255, false},  {8, 1, true},
               {27, 99, true}, {31, 0, true},   {31, 9, true},    {24, 255, true}};
    struct lm_follower f[N];
    const struct doc d = {{5, 1, 5, 2}, 4}, other = {{5, 200, 5, 201}, 4};
    uint8_t name[LM_KN_NAME_MAX], bytes[24 + 8 * N];
    const uint32_t context[] = {5};
    struct lm_ngrams_result out;
    for (uint32_t i = 0; i < N; i++)
        f[i] = (struct lm_follower){i + 1, 1};
    for (size_t i = 0; i < 2 * sizeof bad / sizeof *bad; i++) {
        bool page = i % 2 == 1;
        unsigned order = page ? 1 : 2;
        size_t n = page ? lm_kn_page_name(1, name) : lm_kn_name(2, context + 1, name);
        fresh(2, 0);
        struct lm_ngrams *g = batch(0);
        put(g, &d, false);
        commit(g);
        assert_int_equal(lm_kn_record_write(order, f, N, bytes), sizeof bytes);
        overwrite(name, n, bytes, sizeof bytes);
        assert_int_equal(ask(d.t, d.n, false), CHT_OK);
        bytes[bad[i / 2].at] = bad[i / 2].byte;
        overwrite(name, n, bytes, sizeof bytes);
        if (!bad[i / 2].followers)
            assert_int_equal(ask(d.t, d.n, false), CHT_MALFORMED_PAYLOAD);
        if (page || !bad[i / 2].followers)
            assert_int_equal(ask(d.t, 1, true), CHT_MALFORMED_PAYLOAD);
        assert_int_equal(lm_kn_arpa_write(engine, s, false, NULL, swallow, NULL, &err),
                         CHT_MALFORMED_PAYLOAD);
        uint64_t before = state_of("");
        g = batch(0);
        put(g, &other, false);
        assert_int_equal(try_commit(g, &out), CHT_MALFORMED_PAYLOAD);
        assert_true(state_of("") == before);
    }
    /* Tokens that another page has. */
    for (uint32_t i = 0; i < N; i++)
        f[i].token += 256;
    fresh(2, 0);
    struct lm_ngrams *g = batch(0);
    put(g, &d, false);
    commit(g);
    overwrite(name, lm_kn_page_name(1, name), bytes, lm_kn_record_write(1, f, N, bytes));
    assert_int_equal(ask(d.t, d.n, false), CHT_MALFORMED_PAYLOAD);
    assert_int_equal(ask(d.t, 0, true), CHT_MALFORMED_PAYLOAD);
    g = batch(0);
    put(g, &other, false);
    assert_int_equal(try_commit(g, &out), CHT_MALFORMED_PAYLOAD);
}

static void overwrite_head(const struct lm_kn_head *h, size_t at, uint8_t byte)
{
    uint8_t bytes[LM_KN_HEAD_MAX];
    struct cht_str name = lm_kn_head_name();
    size_t n = lm_kn_head_write(h, bytes);
    bytes[at] = byte;
    overwrite(name.p, name.n, bytes, n);
}

/* A head whose sums cannot be is refused; one that does not belong to the records, by the commit that finds out. */
static void test_damage_head(void **state)
{
    (void)state;
    const struct doc d = {{5, 6, 7}, 3};
    struct lm_ngrams_result out;
    fresh(2, 0);
    struct lm_ngrams *g = batch(0);
    put(g, &d, false);
    commit(g);
    const struct lm_kn_head good = head();
    struct lm_kn_head bad[9];
    for (size_t i = 0; i < 9; i++)
        bad[i] = good;
    bad[0].m[1].n[0] = UINT64_MAX; /* and n2: the sum is small again */
    bad[0].m[1].n[1] = 2;
    bad[1].m[2].n[3] = UINT64_MAX;
    bad[2].m[2].contexts = 0;
    bad[3].m[2].contexts = good.m[2].types + 1;
    bad[4].m[1].types = 0;
    bad[5].root_total = good.m[1].types - 1;
    bad[6].m[1].types = bad[6].root_total = UINT64_MAX;
    bad[7].flags = 16;
    bad[8].m[2].types = good.m[2].n[0] - 1;
    for (size_t i = 0; i < 9; i++) {
        overwrite_head(&bad[i], 0, 1);
        uint64_t before = state_of("");
        assert_int_equal(ask(d.t, d.n, false), CHT_MALFORMED_PAYLOAD);
        g = batch(0);
        put(g, &d, false);
        assert_int_equal(try_commit(g, &out), CHT_MALFORMED_PAYLOAD);
        assert_true(state_of("") == before);
    }
    bad[0] = good;
    bad[0].m[2].types = bad[0].m[2].n[0] = bad[0].m[2].contexts = 1;
    overwrite_head(&bad[0], 0, 1);
    uint64_t before = state_of("");
    g = batch(0);
    put(g, &d, true);
    assert_int_equal(try_commit(g, &out), CHT_MALFORMED_PAYLOAD);
    assert_true(state_of("") == before);
    overwrite_head(&good, 55, 1);
    assert_int_equal(ask(d.t, d.n, false), CHT_MALFORMED_PAYLOAD);
    overwrite_head(&good, 0, 1);
    assert_int_equal(ask(d.t, d.n, false), CHT_OK);
}

/* The lists of the root are made by a question while a commit is applied: they are of another moment than the head that it read, and
 * are not kept. */
static void test_lists_of_two_moments(void **state)
{
    (void)state;
    const struct doc first = {{5, 6, 7}, 3}, second = {{8, 9}, 2};
    struct lm_kn_text_query q = {.tokens = first.t, .n = 0};
    struct plain p = {.order = 2};
    struct lm_kn_prediction out;
    struct lm_kn_reader *r;
    struct lm_kn_live *l;
    struct lm_kn_count c;
    bool later;
    fresh(2, 0);
    struct lm_ngrams *g = batch(0);
    put(g, &first, false);
    commit(g);
    must(lm_kn_reader_open(engine, s, NULL, &r, &err));
    must(lm_kn_begin(r, &err));
    must(lm_kn_count_begin(&c, s, &err));
    must(lm_kn_text_add(&c.text, BOS, second.t, second.n, false, &err));
    c.documents = 1;
    must(lm_kn_count_make(&c, &err));
    must(lm_kn_count_publish(engine, &c, &l, &err));
    struct lm_load load = {0};
    lm_kn_count_load(&c, &load);
    must(lm_load_commit(&load, s, c.ops, c.n, CHT_COMMIT_ATOMIC, &err));
    must(lm_kn_predict(r, &q, 20, &out, &later, &err));
    lm_kn_count_done(engine, &c, l, CHT_OK);
    lm_kn_count_free(&c);
    assert_true(lm_kn_again(r));
    plain_count(&p, &first, 1);
    plain_count(&p, &second, 1);
    ask_one(&p, r, first.t, 0, 0);
    lm_kn_reader_close(r);
    free(p.g);
}

static enum cht_rc add_up(void *ctx, uint64_t bytes, struct cht_err *e)
{
    (void)e;
    *(uint64_t *)ctx += bytes;
    return CHT_OK;
}

/* What a commit of that document books. */
static uint64_t booked(const struct doc *d, bool take)
{
    uint64_t bytes = 0;
    struct lm_ngrams *g = batch(0);
    lm_ngrams_bound(g, add_up, &bytes);
    put(g, d, take);
    commit(g);
    return bytes;
}

/* A wide record is not looked through when it is read; who asks for all of its followers finds what is wrong with them. */
static void test_damage_of_followers(void **state)
{
    (void)state;
    enum { N = LM_KN_WIDE, MANY = 200 };
    static const struct {
        uint32_t at, token, count, rest; /* which one is wrong, what it says, and the counts of all others */
    } bad[] = {{7, 17, 0, 10}, {7, 17, 0, 1}, {7, 16, 10, 10}, {7, 16, 1, 1}, {7, 16, 2, 10}};
    uint8_t name[LM_KN_NAME_MAX], bytes[24 + 8 * N];
    const uint32_t context[] = {5};
    struct lm_follower f[N];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fresh(2, 0);
        struct lm_ngrams *g = batch(0);
        for (uint32_t j = 0; j < MANY; j++) {
            const struct doc d = {{5, 10 + j}, 2};
            put(g, &d, false);
        }
        commit(g);
        assert_int_equal(ask_best(context, 1, 1000), CHT_OK);
        for (uint32_t j = 0; j < N; j++)
            f[j] = (struct lm_follower){10 + j, bad[i].rest};
        f[bad[i].at] = (struct lm_follower){bad[i].token, bad[i].count};
        overwrite(name, lm_kn_name(2, context + 1, name), bytes, lm_kn_record_write(2, f, N, bytes));
        assert_int_equal(ask_best(context, 1, 1000), CHT_MALFORMED_PAYLOAD);
    }
}

/* A context with many followers is read and written whole: that is booked, whether a document comes or goes, and whatever is kept. */
static void test_wide_records_are_booked(void **state)
{
    (void)state;
    enum { FOLLOWERS = 3000 };
    const struct doc narrow = {{7, 6}, 2}, wide = {{5, 6}, 2};
    for (unsigned keep = 0; keep < 2; keep++) {
        fresh(2, keep > 0 ? LM_KN_KEEP_CNT : 0);
        struct lm_ngrams *g = batch(0);
        put(g, &narrow, false);
        for (uint32_t i = 0; i < FOLLOWERS; i++) {
            const struct doc d = {{5, 10 + i}, 2};
            put(g, &d, false);
        }
        commit(g);
        for (unsigned take = 0; take < 2; take++) {
            uint64_t least = booked(&narrow, take > 0), more = booked(&wide, take > 0);
            assert_true(more >= least + (uint64_t)FOLLOWERS * 24 * (1 + keep));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_histories, setup, teardown),
        cmocka_unit_test_setup_teardown(test_taking_too_much, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kept_namespaces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parameters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_wide, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_of_followers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_head, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lists_of_two_moments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wide_records_are_booked, setup, teardown),
    };
    if (mkdtemp(base) == NULL)
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 || rc != 0;
}
