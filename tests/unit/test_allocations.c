/* test_allocations: questions to a live model and to one that was read in allocate nothing a token, and copy no payload a token: a record is read once,
 * however many tokens and questions need it. Allocations are counted by making the one after the allowed ones fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "http/calls/asker.h"
#include "lm/fm_import.h"
#include "lm/kn_arpa.h"
#include "lm/kn_ask.h"
#include "lm/kn_setup.h"
#include "lm/ngrams.h"
#include "support/simdisk.h"

#define ORDER 5u
#define TOKENS 6000u /* of a text */
#define FEW 40u      /* allocations of a text that is asked for the first time: tables and blocks that grow */
#define QUESTION_FEW 24u /* of a question with its answer: buffers that grow */

static struct simdisk *disk;
static struct cht_env *env;
static struct cht_store *s;
static struct lm_engine *engine;
static struct cht_err err;
static struct cht_rng rng;
static uint32_t text[TOKENS];

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

static uint32_t below(uint32_t n) { return (uint32_t)cht_rng_below(&rng, n); }

/* A few words are frequent, and most follow some of them. */
static uint32_t next_word(uint32_t last)
{
    return 4 + (below(3) == 0 ? below(300) : (last * 7 + below(4)) % 60);
}

static void count_text(void)
{
    struct lm_ngrams *g;
    struct lm_ngrams_result out;
    must(lm_ngrams_begin(LM_NGRAMS_OWN, &g, &err));
    for (unsigned d = 0; d < 400; d++) {
        uint32_t t[30] = {2};
        for (unsigned i = 1; i < 29; i++)
            t[i] = next_word(t[i - 1]);
        t[29] = 3;
        must(lm_ngrams_add_document(g, t, 30, &err));
    }
    must(lm_ngrams_commit(engine, s, g, &out, &err));
    lm_ngrams_free(g);
}

static int setup(void **state)
{
    (void)state;
    static const char *const dirs[] = {"/data"};
    const struct lm_kn_parameters live = {.order = ORDER, .flags = LM_KN_EOS, .bos = 2, .eos = 3};
    memset(&err, 0, sizeof err);
    cht_rng_seed(&rng, 20261128);
    disk = simdisk_new();
    simdisk_forget(disk);
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .default_shards = 1,
                                 .durability = CHT_DURABLE_OS,
                                 .log_segment_bytes = 1 << 20,
                                 .manual_checkpoint = true,
                                 .io = simdisk_io(disk)};
    must(cht_env_open(&cfg, &env, &err));
    must(cht_env_create(env, "default", 0, &err));
    must(cht_env_get(env, "default", &s, &err));
    must(lm_engine_new(&engine, &err));
    must(lm_kn_setup(engine, s, &live, &err));
    count_text();
    for (unsigned i = 0; i < TOKENS; i++)
        text[i] = i % 50 == 0 ? 2 : below(40) == 0 ? 100000 : next_word(i > 0 ? text[i - 1] : 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lm_engine_free(engine);
    cht_env_abandon(env);
    simdisk_free(disk);
    return 0;
}

/* ---- the model itself ------------------------------------------------------------------------------------------------ */

static double score(struct lm_kn_reader *r)
{
    const struct lm_kn_text_query q = {.tokens = text, .n = TOKENS, .bos = true};
    struct lm_kn_score out;
    must(lm_kn_begin(r, &err));
    must(lm_kn_score(r, &q, NULL, NULL, &out, &err));
    assert_false(lm_kn_again(r));
    assert_true(out.tokens > TOKENS / 2 && out.oov > 10);
    return out.log10;
}

static void predict(struct lm_kn_reader *r)
{
    for (unsigned i = 0; i < 300; i++) {
        const struct lm_kn_text_query q = {.tokens = text + i, .n = 8};
        struct lm_kn_prediction p;
        bool later;
        must(lm_kn_begin(r, &err));
        must(lm_kn_predict(r, &q, 20, &p, &later, &err));
        assert_false(lm_kn_again(r));
        assert_true(!later && p.n == 20);
    }
}

/* What was allowed was enough. */
static void none_failed(void)
{
    uint64_t failed = cht_alloc_failures();
    cht_alloc_fail_at(0, false);
    assert_int_equal(failed, 0);
}

static void check_model(void)
{
    struct lm_kn_reader *r;
    must(lm_kn_reader_open(engine, s, NULL, &r, &err));
    cht_alloc_fail_at(FEW + 1, true);
    double cold = score(r);
    none_failed();
    size_t bytes = r->bytes, levels = r->levels;
    assert_true(levels > 500 && bytes > 0);
    for (size_t i = 0; i < levels && r->fixed.order == 0;
         i++) /* no look-up of a longer context was in vain */
        assert_true(r->level[i].there || r->level[i].order == 1);
    for (unsigned round = 0; round < 3; round++) {
        cht_alloc_fail_at(1, true); /* not one */
        assert_true(score(r) == cold);
        none_failed();
        assert_int_equal(r->bytes, bytes); /* nothing was read and kept once more */
        assert_int_equal(r->levels, levels);
    }
    predict(r);
    if (r->fixed.order == 0) { /* of a fixed model pages are swept */
        predict(r);            /* what is asked a second time is kept, with its answer */
        bytes = r->bytes;
        levels = r->levels;
        cht_alloc_fail_at(1, true);
        predict(r);
        none_failed();
        assert_int_equal(r->bytes, bytes);
        assert_int_equal(r->levels, levels);
    }
    lm_kn_reader_close(r);
}

static bool collect(void *ctx, const char *p, size_t n)
{
    struct cht_buf *b = ctx;
    must(cht_buf_reserve(b, b->len + n, &err));
    memcpy(b->data + b->len, p, n);
    b->len += n;
    return true;
}

/* The live model becomes a fixed one. */
static void read_in(void)
{
    const struct lm_fm_parameters p = {.bos = 2, .eos = 3, .unk = LM_FM_NO_ID};
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = {(const uint8_t *)"", 0}};
    struct cht_commit c = {.ops = &op, .count = 1};
    struct cht_buf b = {0};
    struct lm_fm_import *i;
    must(lm_kn_arpa_write(engine, s, false, NULL, collect, &b, &err));
    must(cht_store_commit(s, &c));
    must(lm_fm_import_begin(engine, s, &p, &i, &err));
    must(lm_fm_import_feed(i, s, (const char *)b.data, b.len, &err));
    must(lm_fm_import_end(i, s, &err));
    lm_fm_import_free(i);
    cht_buf_free(&b);
}

static void test_model(void **state)
{
    (void)state;
    check_model();
    read_in();
    check_model();
}

/* ---- questions as they are sent ------------------------------------------------------------------------------------------ */

static size_t question(char *out, size_t room, unsigned from, unsigned n)
{
    int at = snprintf(out, room, "{\"tokens\":[");
    for (unsigned i = 0; i < n; i++)
        at += snprintf(out + at, room - (size_t)at, i > 0 ? ",%u" : "%u", text[from + i]);
    return (size_t)(at + snprintf(out + at, room - (size_t)at, "]}"));
}

/* Many questions of one request: that of a thousand tokens allocates no more than that of ten, once they were asked. */
static void test_questions(void **state)
{
    (void)state;
    static char line[20000];
    static const unsigned lengths[] = {10, 1000};
    for (unsigned kind = 0; kind < 2; kind++) {
        struct http_lookups lookups = {0};
        struct http_asker a = {.lm = engine, .store = s, .predict = kind == 1, .lookups = &lookups};
        uint64_t lines;
        for (unsigned warm = 0; warm < 2; warm++) {
            for (unsigned i = 0; i < 2; i++) {
                size_t n = question(line, sizeof line, 50 * i, lengths[i]);
                a.text.n = 0;
                cht_alloc_fail_at(warm == 1 ? QUESTION_FEW + 1 : 0, true);
                must(http_asker_ask(&a, line, n, &lines, &err));
                if (warm == 1)
                    none_failed();
                assert_int_equal(lines, 1);
                assert_true(a.text.n > 100);
            }
        }
        http_asker_fini(&a);
    }
}

/* Several questions together, whichever allocation fails: answered, or left to be asked one by one. */
static void test_together(void **state)
{
    (void)state;
    static char lines[4][400];
    struct cht_str line[4];
    char *want = NULL;
    size_t want_n = 0;
    bool injected = true, refused = false;
    for (unsigned i = 0; i < 4; i++)
        line[i] =
            (struct cht_str){(const uint8_t *)lines[i], question(lines[i], sizeof lines[i], 60 * i, 40)};
    for (uint64_t n = 0; injected; n++) {
        struct http_lookups lookups = {0};
        struct http_asker a = {.lm = engine, .store = s, .lookups = &lookups};
        cht_alloc_fail_at(n, false);
        bool done = http_asker_score(&a, line, 4);
        injected = n == 0 || cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        done = done && !a.text.failed;
        refused = refused || !done;
        if (n == 0) {
            assert_true(done && a.sum.tokens > 100);
            want = malloc(a.text.n);
            want_n = a.text.n;
            memcpy(want, a.text.p, want_n);
        }
        assert_true(!done || (a.text.n == want_n && memcmp(a.text.p, want, want_n) == 0));
        assert_true(done || a.text.failed || a.text.n == 0);
        http_asker_fini(&a);
        lm_kn_readers_forget(engine, s);
    }
    assert_true(refused);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_model, setup, teardown),
        cmocka_unit_test_setup_teardown(test_questions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_together, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
