/* test_live_cuts: power cuts at the writes and syncs of counting into a live model that keeps all namespaces: documents come and go, with
 * checkpoints between, and last a commit that several threads apply. After each cut the database is as after the last
 * acknowledged request, or as after the one under way, in every namespace; and the next request leaves what it left without a cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cheetah/scan.h"
#include "lm/kn_setup.h"
#include "lm/ngrams.h"
#include "support/simdisk.h"

#define REQUESTS 10u
#define LONG_REQUEST \
    24000u /* tokens of the last one: its log record is that of several threads, over 1 MiB each */
#define ORDER 3u

static const char *const dirs[] = {"/a"};
static struct cht_err err;

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 2,
                                   .log_segment_bytes = 1u << 16,
                                   .scan_workers = 1,
                                   .manual_checkpoint = true,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .io = simdisk_io(d)};
}

/* Request i: documents made from i, and from the third on those of the one before the last taken away. */
static void documents_of(struct lm_ngrams *g, unsigned i, bool take)
{
    struct cht_rng r;
    uint32_t document[40];
    cht_rng_seed(&r, 100 + i);
    bool last = i + 1 == REQUESTS;
    for (unsigned n = last ? LONG_REQUEST / 40 : 6; n > 0; n--) {
        for (unsigned j = 0; j < 40; j++)
            document[j] = j == 0 ? 2 : 3 + (uint32_t)cht_rng_below(&r, last ? 1u << 30 : 20);
        must(take ? lm_ngrams_take_document(g, document, 40, &err)
                  : lm_ngrams_add_document(g, document, 40, &err));
    }
}

static void count(struct lm_engine *e, struct cht_store *s, unsigned i)
{
    struct lm_ngrams *g;
    struct lm_ngrams_result r;
    must(lm_ngrams_begin(LM_NGRAMS_OWN, &g, &err));
    documents_of(g, i, false);
    if (i >= 2 && i + 1 < REQUESTS)
        documents_of(g, i - 2, true);
    must(lm_ngrams_commit(e, s, g, &r, &err));
    lm_ngrams_free(g);
}

/* Over all names and values, in their order. */
static uint64_t state_of(struct cht_store *s)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true};
    struct cht_scan *sc;
    struct cht_entry e[64];
    uint64_t h = 14695981039346656037u;
    size_t n = 1;
    must(cht_scan_open(s, &cfg, &sc, &err));
    while (n > 0) {
        must(cht_scan_next(sc, e, 64, &n, &err));
        for (size_t i = 0; i < n; i++) {
            for (uint32_t j = 0; j < e[i].name_len; j++)
                h = (h ^ e[i].name[j]) * 1099511628211u;
            for (uint32_t j = 0; j < e[i].value_len; j++)
                h = (h ^ e[i].value[j]) * 1099511628211u;
        }
    }
    cht_scan_close(sc);
    return h;
}

struct history {
    uint64_t state[REQUESTS + 1]; /* after that many requests */
    size_t acked[REQUESTS + 1];   /* events */
};

static void record(struct simdisk *d, struct history *h)
{
    const struct lm_kn_parameters p = {.order = ORDER, .flags = LM_KN_KEEP, .bos = 2};
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    struct lm_engine *e;
    must(cht_env_open(&cfg, &env, &err));
    must(cht_env_create(env, "default", 0, &err));
    must(cht_env_get(env, "default", &s, &err));
    must(lm_engine_new(&e, &err));
    must(lm_kn_setup(e, s, &p, &err));
    for (unsigned i = 0; i <= REQUESTS; i++) {
        if (i > 0)
            count(e, s, i - 1);
        h->acked[i] = simdisk_events(d);
        h->state[i] = state_of(s);
        if (i % 4 == 3)
            must(cht_store_checkpoint(s, &err));
    }
    lm_engine_free(e);
    cht_env_abandon(env);
}

static void verify(struct simdisk *d, const struct history *h, unsigned acked, const char *what)
{
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    struct lm_engine *e;
    enum cht_rc rc = cht_env_open(&cfg, &env, &err);
    if (rc == CHT_OK)
        rc = cht_env_get(env, "default", &s, &err);
    if (rc != CHT_OK)
        fail_msg("%s: recovery refused: %s", what, err.msg);
    uint64_t state = state_of(s);
    bool next = acked < REQUESTS && state == h->state[acked + 1];
    if (!next && state != h->state[acked])
        fail_msg("%s: neither the state after %u requests nor that after one more", what, acked);
    if (!next && acked + 1 < REQUESTS) { /* it goes on */
        must(lm_engine_new(&e, &err));
        count(e, s, acked);
        assert_true(state_of(s) == h->state[acked + 1]);
        lm_engine_free(e);
    }
    cht_env_abandon(env);
}

static void test_every_cut(void **state)
{
    static const char *const mode_names[] = {"keep", "drop", "subset", "torn"};
    (void)state;
    const char *seed = getenv("CHT_TEST_SEED");
    bool all = getenv("CHT_TEST_LONG") != NULL;
    struct history h;
    struct simdisk *d = simdisk_new();
    struct cht_rng r;
    unsigned acked = 0, cuts = 0, under_way = 0;
    cht_rng_seed(&r, seed != NULL ? strtoull(seed, NULL, 0) : 11);
    record(d, &h);
    for (unsigned i = 1; i <= REQUESTS; i++)
        assert_true(h.state[i] != h.state[i - 1]);
    struct simcut *c = simcut_new(d);
    do {
        size_t at = simcut_at(c);
        while (acked < REQUESTS && h.acked[acked + 1] <= at)
            acked++;
        if (at < h.acked[0] ||
            (!all && at % 3 != 0)) /* the long form has all events, and all modes at each */
            continue;
        for (int mode = SIM_KEEP; mode <= SIM_TORN; mode++) {
            char what[80];
            if (!all && mode != (int)(at / 3 % 4))
                continue;
            (void)snprintf(what, sizeof what, "cut at event %zu (%s)", at, mode_names[mode]);
            struct simdisk *cut = simcut_disk(c, (enum sim_mode)mode, &r);
            verify(cut, &h, acked, what);
            simdisk_free(cut);
            cuts++;
            under_way += at != h.acked[acked];
        }
    } while (simcut_step(c));
    print_message("%u recoveries, %u of them within a request or checkpoint\n", cuts, under_way);
    assert_true(under_way > 2 * REQUESTS);
    simcut_free(c);
    simdisk_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
