/* test_kn_kept: what was read of a live model and outlives a question (kn_reader.c): it is used again, and never believed once anybody has
 * written to the model. */
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
#include "base/clock.h"
#include "lm/engine_int.h"
#include "lm/kn_arpa.h"
#include "lm/kn_ask.h"
#include "lm/kn_setup.h"
#include "lm/ngrams.h"
#include "os/thread.h"

#define BOS 2u
#define COMMITS 60u
#define ASKERS 2u

static char base[] = "/tmp/cht-kept-XXXXXX";
static struct cht_env *env;
static struct cht_store *s;
static struct lm_engine *engine;
static struct cht_err err;

static const uint32_t text[] = {5, 6, 7, 5, 8, 6, 5, 6, 9};
#define TEXT (sizeof text / sizeof *text)
static const uint32_t first[] = {BOS, 5, 6, 7, 8, 5, 6, 5, 7}, second[] = {BOS, 6, 5, 8, 9};

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

static void make_model(void)
{
    const struct lm_kn_parameters p = {.order = 3, .bos = BOS};
    must(cht_env_create(env, "default", 0, &err));
    must(cht_env_get(env, "default", &s, &err));
    must(lm_kn_setup(engine, s, &p, &err));
}

static void count(const uint32_t *t, size_t n, bool take)
{
    struct lm_ngrams *g;
    struct lm_ngrams_result out;
    struct cht_err e;
    assert_int_equal(lm_ngrams_begin(LM_NGRAMS_OWN, &g, &e), CHT_OK);
    assert_int_equal(take ? lm_ngrams_take_document(g, t, n, &e) : lm_ngrams_add_document(g, t, n, &e),
                     CHT_OK);
    assert_int_equal(lm_ngrams_commit(engine, s, g, &out, &e), CHT_OK);
    lm_ngrams_free(g);
}

static void add_first(void) { count(first, sizeof first / sizeof *first, false); }
static void add_second(void) { count(second, sizeof second / sizeof *second, false); }
static void take_second(void) { count(second, sizeof second / sizeof *second, true); }

static int setup(void **state)
{
    (void)state;
    char cmd[128];
    const char *dirs[] = {base};
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s/*", base);
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .default_shards = 2, .durability = CHT_DURABLE_OS};
    memset(&err, 0, sizeof err);
    if (system(cmd) != 0 || cht_env_open(&cfg, &env, &err) != CHT_OK ||
        lm_engine_new(&engine, &err) != CHT_OK)
        return 1;
    make_model();
    add_first();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    int bad = cht_env_close(env, &err) != CHT_OK; /* what is kept outlives the store */
    lm_engine_free(engine);
    return bad;
}

static enum cht_rc try_score(struct lm_kn_reader *r, double *log10, struct cht_err *e)
{
    const struct lm_kn_text_query q = {.tokens = text, .n = TEXT, .bos = true};
    struct lm_kn_score score = {0};
    enum cht_rc rc;
    do {
        rc = lm_kn_begin(r, e);
        if (rc == CHT_OK)
            rc = lm_kn_score(r, &q, NULL, NULL, &score, e);
    } while (lm_kn_again(r));
    *log10 = score.log10;
    return rc;
}

/* By a reader of its own. *knew: contexts that it knew before; NULL: not wanted. */
static double ask_of(struct lm_engine *e, size_t *knew)
{
    struct lm_kn_reader *r;
    double out;
    must(lm_kn_reader_open(e, s, NULL, &r, &err));
    if (knew != NULL)
        *knew = r->known ? r->levels : 0;
    must(try_score(r, &out, &err));
    assert_false(r->mixed);
    lm_kn_reader_close(r);
    return out;
}

static double ask(size_t *knew) { return ask_of(engine, knew); }

/* By somebody who knows nothing. */
static double ask_anew(void)
{
    struct lm_engine *e;
    must(lm_engine_new(&e, &err));
    lm_engine_keep(e, 0);
    size_t knew;
    double out = ask_of(e, &knew);
    assert_true(out == ask_of(e, &knew) && knew == 0 && lm_engine_kept(e) == 0);
    lm_engine_free(e);
    return out;
}

static struct cht_str name_of(uint8_t *out, unsigned order, const uint32_t *end)
{
    return (struct cht_str){out, lm_kn_name(order, end, out)};
}

static void run(struct cht_op *op)
{
    struct cht_commit c = {.ops = op, .count = 1};
    must(cht_store_commit(s, &c));
    must(op->rc);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void test_used_again(void **state)
{
    (void)state;
    size_t knew;
    double cold = ask(&knew);
    assert_int_equal(knew, 0);
    assert_true(lm_engine_kept(engine) > cht_watch_memory(engine->live->watch));
    cht_alloc_fail_at(1, true); /* nothing is read, so nothing is allocated */
    double warm = ask(&knew);
    uint64_t failed = cht_alloc_failures();
    cht_alloc_fail_at(0, false);
    assert_int_equal(failed, 0);
    assert_true(knew > 3 && warm == cold && ask_anew() == cold);
}

/* The best k again and again, more and fewer of them: what is kept is what a search finds. */
static void test_best_again(void **state)
{
    (void)state;
    static const uint32_t ks[] = {2, 2, 2, 1, 4, 4, 3, 100, 5, 100, 1};
    struct lm_engine *fresh;
    must(lm_engine_new(&fresh, &err));
    lm_engine_keep(fresh, 0);
    for (size_t n = 1; n <= TEXT; n++) {
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
            const struct lm_kn_text_query q = {.tokens = text, .n = n, .max_order = i % 4};
            struct lm_kn_prediction got, want;
            struct lm_kn_reader *r, *w;
            bool later;
            must(lm_kn_reader_open(engine, s, NULL, &r, &err));
            must(lm_kn_reader_open(fresh, s, NULL, &w, &err));
            must(lm_kn_begin(r, &err));
            must(lm_kn_begin(w, &err));
            must(lm_kn_predict(r, &q, ks[i], &got, &later, &err));
            must(lm_kn_predict(w, &q, ks[i], &want, &later, &err));
            assert_true(got.n == want.n && got.order == want.order && got.unknown == want.unknown);
            for (size_t j = 0; j < got.n; j++) {
                assert_true(got.c[j].token == want.c[j].token && got.c[j].order == want.c[j].order);
                assert_true(got.c[j].p == want.c[j].p);
                assert_true(got.c[j].log10 == LM_KN_NO_LOG10 || got.c[j].log10 == log10(want.c[j].p));
            }
            assert_false(lm_kn_again(r) || lm_kn_again(w));
            lm_kn_reader_close(r);
            lm_kn_reader_close(w);
        }
    }
    lm_engine_free(fresh);
}

/* Each kind of write by somebody who knows nothing of models. */
static void test_others_write(void **state)
{
    (void)state;
    uint8_t text5[LM_KN_NAME_MAX], bytes[] = {1, 2, 1, 4, 0, 1}; /* after 5: tokens 1 and 2 */
    struct cht_str name = name_of(text5, 2, text + 1);
    struct cht_str value = {bytes, sizeof bytes};
    struct cht_buf was = {0};
    uint64_t key;
    uint32_t size;
    must(cht_store_pair_value(s, name, &key, &was, &size, &err));
    struct cht_op ops[] = {
        {.kind = CHT_OP_PAIR_PUT, .name = name, .value = value},
        {.kind = CHT_OP_PAIR_PUT, .name = name, .value = {was.data, size}},
        {.kind = CHT_OP_PUT, .key = key, .value = value},
        {.kind = CHT_OP_PUT, .key = key, .value = {was.data, size}},
        {.kind = CHT_OP_PAIR_DEL, .name = name},
        {.kind = CHT_OP_PAIR_SET, .name = name, .key = key},
        {.kind = CHT_OP_PREFIX_DEL, .name = {name.p, 5}},
    };
    double before = ask(NULL);
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) {
        size_t knew;
        assert_true(ask(&knew) == before && knew > 3);
        run(&ops[i]);
        double now = ask(&knew);
        assert_true(now != before && now == ask_anew());
        before = now;
    }
    cht_buf_free(&was);
}

static void test_counted(void **state)
{
    (void)state;
    size_t knew;
    double before = ask(NULL);
    for (unsigned i = 0; i < 20; i++) {
        if (i % 2 == 0)
            add_second();
        else
            take_second();
        double now = ask(NULL);
        assert_true(now != before && now == ask_anew());
        assert_true(ask(&knew) == now && knew > 3);
        before = now;
    }
}

/* Somebody writes between two questions of one reader, and within one. */
static void test_within(void **state)
{
    (void)state;
    const struct lm_kn_text_query q = {.tokens = text, .n = TEXT, .bos = true};
    struct lm_kn_reader *r;
    struct lm_kn_score score;
    uint8_t text5[LM_KN_NAME_MAX];
    struct cht_op del = {.kind = CHT_OP_PAIR_DEL, .name = name_of(text5, 2, text + 1)};
    double before = ask(NULL), now;
    must(lm_kn_reader_open(engine, s, NULL, &r, &err));
    must(lm_kn_begin(r, &err));
    must(lm_kn_score(r, &q, NULL, NULL, &score, &err));
    assert_true(score.log10 == before);
    run(&del);
    assert_true(lm_kn_again(r));
    must(lm_kn_begin(r, &err));
    must(lm_kn_score(r, &q, NULL, NULL, &score, &err));
    now = score.log10;
    assert_false(lm_kn_again(r));
    assert_true(now != before && now == ask_anew());
    add_second();
    must(try_score(r, &now, &err));
    lm_kn_reader_close(r);
    assert_true(now == ask(NULL) && now == ask_anew());
}

/* A pair that ends is not kept: nobody writes when it does. */
static void test_ending(void **state)
{
    (void)state;
    uint8_t text5[LM_KN_NAME_MAX], bytes[] = {1, 2, 1, 4, 0, 1};
    size_t knew;
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                        .name = name_of(text5, 2, text + 1),
                        .value = {bytes, sizeof bytes},
                        .ttl_ms = 3600000};
    run(&op);
    double now = ask(NULL);
    assert_true(ask(&knew) == now && knew == 0 && lm_engine_kept(engine) == 0);
}

/* Several at a time, in few bytes; what a database has kept can be had back. */
static void test_bytes(void **state)
{
    (void)state;
    struct lm_kn_reader *r[8];
    double out, want = ask_anew();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 8; i++)
            must(lm_kn_reader_open(engine, s, NULL, &r[i], &err));
        for (unsigned i = 0; i < 8; i++) {
            must(try_score(r[i], &out, &err));
            assert_true(out == want);
        }
        for (unsigned i = 0; i < 8; i++)
            lm_kn_reader_close(r[i]);
        size_t kept = lm_engine_kept(engine);
        assert_true(kept > 0);
        if (round == 0)
            lm_engine_keep(engine, kept / 2);
        else
            assert_true(kept <= engine->kept_max);
    }
    lm_kn_readers_forget(engine, NULL);
    assert_true(lm_engine_kept(engine) > 0);
    lm_kn_readers_forget(engine, s);
    assert_int_equal(lm_engine_kept(engine), 0);
    assert_true(ask(NULL) == want);
}

/* Databases that go and come, some of them at the same place in memory. */
static void test_dropped(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct lm_kn_reader *r;
        double out, before = ask(NULL);
        must(cht_env_drop(env, "default", &err));
        make_model();
        must(lm_kn_reader_open(engine, s, NULL, &r, &err));
        assert_int_equal(try_score(r, &out, &err), CHT_NOTHING_COUNTED);
        lm_kn_reader_close(r);
        add_second();
        double now = ask(NULL);
        assert_true(now != before && now == ask_anew());
        take_second();
        add_first();
    }
}

struct export { size_t kept, bytes; };

/* Somebody asks while the text is written. */
static bool ask_meanwhile(void *ctx, const char *p, size_t n)
{
    struct export *e = ctx;
    size_t knew;
    (void)p;
    e->bytes += n;
    assert_int_equal(lm_engine_kept(engine), e->kept);
    (void)ask(&knew);
    assert_true(knew > 3);
    return true;
}

/* A model is exported for as long as its client takes: it uses nothing that is kept, and pushes nothing out. */
static void test_export(void **state)
{
    (void)state;
    struct export e = {0};
    (void)ask(NULL);
    e.kept = lm_engine_kept(engine);
    must(lm_kn_arpa_write(engine, s, false, NULL, ask_meanwhile, &e, &err));
    assert_true(e.bytes > 100);
    assert_int_equal(lm_engine_kept(engine), e.kept);
}

static void test_no_memory(void **state)
{
    (void)state;
    double want = ask_anew();
    unsigned failed = 0;
    bool injected = true;
    for (uint64_t n = 1; injected; n++) {
        struct lm_kn_reader *r = NULL;
        double out = 0;
        lm_engine_free(engine);
        must(lm_engine_new(&engine, &err));
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = lm_kn_reader_open(engine, s, NULL, &r, &err);
        if (rc == CHT_OK)
            rc = try_score(r, &out, &err);
        lm_kn_reader_close(r);
        injected = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        assert_true(rc == CHT_NO_MEMORY || (rc == CHT_OK && out == want));
        failed += rc != CHT_OK;
        assert_true(ask(NULL) == want);
    }
    assert_true(failed > 3);
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

struct asking {
    struct cht_thread thread;
    double want[2];
    _Atomic bool *over;
    unsigned answers, others, failures;
};

static void *ask_on(void *arg)
{
    struct asking *a = arg;
    struct cht_err e;
    while (!atomic_load(a->over)) {
        struct lm_kn_reader *r;
        double out;
        if (lm_kn_reader_open(engine, s, NULL, &r, &e) != CHT_OK || try_score(r, &out, &e) != CHT_OK)
            a->failures++;
        else if (!r->mixed)
            a->others += out != a->want[0] && out != a->want[1];
        a->answers++;
        lm_kn_reader_close(r);
    }
    return NULL;
}

/* Questions beside a writer are answered by the model of before or of after, and once it has written by that of after. */
static void test_beside_a_writer(void **state)
{
    (void)state;
    struct asking a[ASKERS];
    _Atomic bool over = false;
    double want[2] = {ask_anew()};
    add_second();
    want[1] = ask_anew();
    for (unsigned i = 0; i < ASKERS; i++) {
        a[i] = (struct asking){.want = {want[0], want[1]}, .over = &over};
        must(cht_thread_start(&a[i].thread, "ask", ask_on, &a[i], &err));
    }
    for (unsigned i = 0; i < COMMITS; i++) {
        if (i % 2 == 0)
            take_second();
        else
            add_second();
        assert_true(ask(NULL) == want[i % 2]);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < ASKERS; i++) {
        cht_thread_join(&a[i].thread);
        assert_int_equal(a[i].failures, 0);
        assert_int_equal(a[i].others, 0);
    }
}

int main(void)
{
    if (mkdtemp(base) == NULL)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_used_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_best_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_others_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_within, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ending, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_export, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_beside_a_writer, setup, teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 ? 1 : failed;
}
