/* test_cuts: power cuts at every write and every sync of a workload with checkpoints, rolling log segments and large
 * values; after each, recovery must give every acknowledged commit whole and the one under way whole or not at all.
 * Shows invariants I1, I2, I4, I5, I6 of src/store/README.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/model.h"
#include "support/simdisk.h"

#define COMMITS_MAX 1000

static uint64_t number(const char *name, uint64_t fallback)
{
    const char *s = getenv(name);
    return s != NULL ? strtoull(s, NULL, 10) : fallback;
}

static void must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err->msg);
}

static const char *const dirs[] = {"/a", "/b"};

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 2,
                                   .default_shards = 2,
                                   .log_segment_bytes = 1u << 16,
                                   .scan_workers = 1,
                                   .manual_checkpoint = true,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .io = simdisk_io(d)};
}

struct done {
    struct model_batch *batch; /* owned */
    struct cht_commit commit;
    size_t begun, acked; /* events */
};

struct history {
    struct model m; /* the universe of names, and the state as the cuts go on */
    struct done commit[COMMITS_MAX];
    unsigned n;
    size_t created; /* events when the database was there */
};

/* Runs the workload; everything that happened is in the disk's record and in h. */
static void record_history(struct simdisk *d, struct history *h, unsigned commits, uint64_t seed)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    struct cht_rng r;
    struct model m;
    cht_rng_seed(&r, seed);
    model_init(&h->m, 80, seed);
    model_copy(&m, &h->m);
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_create(env, "default", 0, &err), &err);
    h->created = simdisk_events(d);
    must(cht_env_get(env, "default", &s, &err), &err);
    for (h->n = 0; h->n < commits; h->n++) {
        struct done *w = &h->commit[h->n];
        w->batch = malloc(sizeof *w->batch);
        model_random_batch(&m, &r, h->n % 16 == 5 ? 400000 : 2000, w->batch);
        w->commit =
            (struct cht_commit){.ops = w->batch->ops, .count = w->batch->count, .flags = w->batch->flags};
        w->begun = simdisk_events(d);
        (void)cht_store_commit(s, &w->commit);
        w->acked = simdisk_events(d);
        model_apply(&m, w->batch, &w->commit);
        if (h->n % 37 == 36)
            must(cht_store_checkpoint(s, &err), &err);
    }
    must(cht_env_close(env, &err), &err);
    model_copy_free(&m);
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

/* A cut right after a clean stop may give files the tails back that were cut off: that is told as well, and is not counted. */
static void wrong_sum(void *ctx, const char *where, const char *what)
{
    uint64_t *n = ctx;
    if (strstr(what, "checksum") == NULL)
        return;
    finding(NULL, where, what);
    ++*n;
}

/* Recovers a cut disk and compares; `acked` commits must be there, the next one may. */
static void verify(struct simdisk *d, struct history *h, unsigned acked, bool thorough, const char *what)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    char why[300] = "", why2[300] = "";
    uint64_t before = 0, wrong = 0;
    must(cht_check(&cfg, NULL, wrong_sum, &wrong, &before, &err), &err); /* a cut is no damage */
    if (wrong != 0)
        fail_msg("%s: check found %llu wrong checksums before the recovery", what, (unsigned long long)wrong);
    enum cht_rc rc = cht_env_open(&cfg, &env, &err);
    if (rc == CHT_OK)
        rc = cht_env_get(env, "default", &s, &err);
    if (rc != CHT_OK)
        fail_msg("%s: recovery refused: %s", what, err.msg);
    if (model_compare(&h->m, s, why, sizeof why) != 0) {
        if (acked == h->n)
            fail_msg("%s: %s", what, why);
        struct model next;
        model_copy(&next, &h->m);
        next.keys_cap = h->m.keys_cap;
        model_apply(&next, h->commit[acked].batch, &h->commit[acked].commit);
        if (model_compare(&next, s, why2, sizeof why2) != 0)
            fail_msg("%s: neither with %u commits (%s) nor with one more (%s)", what, acked, why, why2);
        model_copy_free(&next);
    }
    if (thorough) { /* it goes on, stops cleanly, and is whole */
        uint8_t v[100] = {1};
        struct cht_op op = {
            .kind = CHT_OP_PAIR_PUT, .name = {(const uint8_t *)"again", 5}, .value = {v, sizeof v}};
        struct cht_commit c = {.ops = &op, .count = 1};
        must(cht_store_commit(s, &c), &c.err);
        must(cht_env_close(env, &err), &err);
        uint64_t findings = 0;
        must(cht_check(&cfg, NULL, finding, NULL, &findings, &err), &err);
        if (findings != 0)
            fail_msg("%s: check found %llu faults", what, (unsigned long long)findings);
    } else {
        cht_env_abandon(env);
    }
}

static void test_every_cut(void **state)
{
    (void)state;
    static const char *const mode_names[] = {"keep", "drop", "subset", "torn"};
    uint64_t seed = number("CHT_TEST_SEED", 7);
    unsigned commits = (unsigned)number("CHT_TEST_COMMITS", 300),
             stride = (unsigned)number("CHT_TEST_STRIDE", 1);
    struct history *h = calloc(1, sizeof *h);
    struct simdisk *d = simdisk_new();
    struct cht_rng r;
    cht_rng_seed(&r, seed + 1);
    record_history(d, h, commits < COMMITS_MAX ? commits : COMMITS_MAX, seed);
    print_message("seed %llu: %u commits, %zu events\n", (unsigned long long)seed, h->n, simdisk_events(d));
    struct simcut *c = simcut_new(d);
    unsigned acked = 0;
    uint64_t cuts = 0;
    do {
        while (acked < h->n && h->commit[acked].acked <= simcut_at(c)) {
            model_apply(&h->m, h->commit[acked].batch, &h->commit[acked].commit);
            acked++;
        }
        if (simcut_at(c) < h->created || simcut_at(c) % stride != 0)
            continue;
        for (int mode = SIM_KEEP; mode <= SIM_TORN; mode++) {
            char what[80];
            (void)snprintf(what, sizeof what, "cut at event %zu (%s, seed %llu)", simcut_at(c),
                           mode_names[mode], (unsigned long long)seed);
            struct simdisk *cut = simcut_disk(c, (enum sim_mode)mode, &r);
            verify(cut, h, acked, cuts++ % 13 == 0, what);
            simdisk_free(cut);
        }
    } while (simcut_step(c));
    print_message("%llu recoveries\n", (unsigned long long)cuts);
    assert_true(cuts > commits / stride);
    simcut_free(c);
    simdisk_free(d);
    for (unsigned i = 0; i < h->n; i++) {
        model_batch_free(h->commit[i].batch);
        free(h->commit[i].batch);
    }
    model_free(&h->m);
    free(h);
}

/* The disk itself: without it losing bytes the test above would show nothing. */
static void test_disk_forgets(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    struct cht_io *io = simdisk_io(d);
    struct cht_err err = {0};
    struct cht_file *f;
    struct cht_rng r;
    uint8_t b[2048];
    size_t got;
    cht_rng_seed(&r, 1);
    must(io->ops->mkdir(io, "/x", &err), &err);
    must(cht_io_open(io, "/x/f", CHT_OPEN_CREATE, &f, &err), &err);
    must(io->ops->sync_dir(io, "/x", &err), &err);
    memset(b, 1, sizeof b);
    must(cht_file_write(f, b, sizeof b, 0, &err), &err);
    must(cht_file_sync(f, &err), &err);
    memset(b, 2, sizeof b);
    must(cht_file_write(f, b, sizeof b, 0, &err), &err);
    cht_file_close(f);
    struct simcut *c = simcut_new(d);
    while (simcut_step(c))
        ;
    unsigned old_bytes = 0, new_bytes = 0;
    for (int i = 0; i < 20; i++) {
        struct simdisk *cut = simcut_disk(c, i == 0 ? SIM_DROP : i == 1 ? SIM_KEEP : SIM_SUBSET, &r);
        must(cht_io_open(simdisk_io(cut), "/x/f", 0, &f, &err), &err);
        must(cht_file_read_some(f, b, sizeof b, 0, &got, &err), &err);
        assert_int_equal(got, sizeof b);
        for (size_t k = 0; k < sizeof b; k++) {
            assert_true(b[k] == b[k / 512 * 512] && (b[k] == 1 || b[k] == 2));
            assert_true(i != 0 || b[k] == 1);
            assert_true(i != 1 || b[k] == 2);
            old_bytes += b[k] == 1;
            new_bytes += b[k] == 2;
        }
        cht_file_close(f);
        simdisk_free(cut);
    }
    assert_true(old_bytes > sizeof b * 3 && new_bytes > sizeof b * 3);
    simcut_free(c);
    simdisk_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_disk_forgets), cmocka_unit_test(test_every_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
