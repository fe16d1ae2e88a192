/* test_order: values in the order of their names (store/order.h). What a checkpoint is about to write lies in order, holds what it held, and is
 * not one byte more; whatever happens between two steps, wherever it is stopped, whichever allocation fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "store/db.h"
#include "store/order.h"
#include "store/pagefile_int.h"
#include "store/trie.h"
#include "support/model.h"
#include "support/simdisk.h"

#define NAMES 6000u
#define BATCH 500u

static const char *const dirs[] = {"/data"};
static struct cht_err err;

struct fixture {
    struct simdisk *disk;
    struct cht_env_config cfg;
    struct cht_env *env;
    struct cht_store *s;
};

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

static uint64_t number(const char *name, uint64_t fallback)
{
    const char *s = getenv(name);
    return s != NULL ? strtoull(s, NULL, 10) : fallback;
}

static void start(struct fixture *f)
{
    must(cht_env_open(&f->cfg, &f->env, &err));
    enum cht_rc rc = cht_env_get(f->env, "default", &f->s, &err);
    if (rc == CHT_DATABASE_NOT_FOUND) {
        must(cht_env_create(f->env, "default", 0, &err));
        rc = cht_env_get(f->env, "default", &f->s, &err);
    }
    must(rc);
}

static void begin(struct fixture *f, unsigned shards, enum cht_value_order order, bool manual)
{
    memset(&err, 0, sizeof err);
    f->disk = simdisk_new();
    simdisk_forget(f->disk);
    f->cfg = (struct cht_env_config){.dirs = dirs,
                                     .dir_count = 1,
                                     .default_shards = shards,
                                     .durability = CHT_DURABLE_OS,
                                     .scan_workers = 2,
                                     .log_segment_bytes = 1u << 20,
                                     .manual_checkpoint = manual,
                                     .value_order = order,
                                     .io = simdisk_io(f->disk)};
    start(f);
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

static void check(struct fixture *f) /* while it is closed */
{
    uint64_t findings;
    must(cht_check(&f->cfg, NULL, finding, NULL, &findings, &err));
    assert_int_equal(findings, 0);
}

static void end(struct fixture *f)
{
    must(cht_env_close(f->env, &err));
    check(f);
    simdisk_free(f->disk);
}

/* ---- pairs ----------------------------------------------------------------------------------------------------------- */

/* Names of ascending i are in no order. */
static size_t name_of(uint32_t i, char *out)
{
    uint32_t h = i * 2654435761u;
    h = (h ^ h >> 15) * 2246822519u;
    return (size_t)sprintf(out, "n:%08x", (unsigned)(h ^ h >> 13));
}

static const uint32_t lengths[] = {1, 8, 64, 64, 64, 300, 1000, CHT_ORDER_LENGTH, CHT_ORDER_LENGTH + 1, 5000};

static uint32_t length_for(uint32_t i) { return lengths[i % (sizeof lengths / sizeof *lengths)]; }

static void put_some(struct fixture *f, uint32_t from, uint32_t n, unsigned version)
{
    struct cht_op ops[BATCH];
    char names[BATCH][16];
    uint8_t *bytes = malloc(BATCH * 5000u);
    assert_non_null(bytes);
    for (uint32_t i = from; i < from + n; i += BATCH) {
        memset(ops, 0, sizeof ops);
        uint32_t count = from + n - i < BATCH ? from + n - i : BATCH;
        for (uint32_t k = 0; k < count; k++) {
            model_fill(bytes + k * 5000u, length_for(i + k), i + k + version);
            ops[k] = (struct cht_op){.kind = CHT_OP_PAIR_PUT,
                                     .name = {(const uint8_t *)names[k], name_of(i + k, names[k])},
                                     .value = {bytes + k * 5000u, length_for(i + k)}};
        }
        struct cht_commit c = {.ops = ops, .count = count};
        must(cht_store_commit(f->s, &c));
        assert_int_equal(c.failed, 0);
    }
    free(bytes);
}

/* Other names of values: half of them lie in other shards than these. */
static void link_some(struct fixture *f, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        char name[16], other[32];
        struct cht_op op = {.kind = CHT_OP_PAIR_LINK,
                            .name = {(const uint8_t *)other, (size_t)sprintf(other, "l:%u", (unsigned)i)},
                            .value = {(const uint8_t *)name, name_of(i * 7 % NAMES, name)}};
        struct cht_commit c = {.ops = &op, .count = 1};
        must(cht_store_commit(f->s, &c));
    }
}

static void compare_pairs(struct fixture *f, uint32_t n, unsigned version)
{
    uint8_t want[5000];
    struct cht_buf got = {0};
    for (uint32_t i = 0; i < n; i++) {
        char name[16];
        uint64_t key;
        struct cht_str str = {(const uint8_t *)name, name_of(i, name)};
        must(cht_store_pair_value(f->s, str, &key, &got, NULL, &err));
        model_fill(want, length_for(i), i + version);
        assert_int_equal(got.len, length_for(i));
        assert_memory_equal(got.data, want, got.len);
    }
    cht_buf_free(&got);
}

/* Of each shard: how many values do not come after the one of their length whose name comes before. */
static uint64_t out_of_order(struct fixture *f)
{
    uint64_t bad = 0;
    struct cht_db *db = cht_db(f->s);
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        static uint64_t last[CHT_ORDER_LENGTH + 1];
        const uint8_t *name;
        size_t len;
        uint64_t key;
        struct cht_trie_iter *it;
        memset(last, 0, sizeof last);
        must(cht_trie_iter_new(&it, &err));
        must(cht_trie_iter_seek(it, cht_shard_pairs(sh), (const uint8_t *)"n:", 2, NULL, 0, false, &err));
        while (cht_trie_iter_next(it, &name, &len, &key, &err) == CHT_OK) {
            struct cht_value_ref ref;
            must(cht_values_find(&sh->values, key, &ref, &err));
            if (ref.len > CHT_ORDER_LENGTH)
                continue;
            bad += ref.off < last[ref.len];
            last[ref.len] = ref.off;
        }
        cht_trie_iter_free(it);
    }
    return bad;
}

static uint64_t ordered(struct fixture *f, uint64_t *written)
{
    struct cht_store_stats st;
    must(cht_store_stats(f->s, &st, &err));
    if (written != NULL)
        *written = st.bytes_written;
    return st.values_ordered;
}

/* ---- what a checkpoint does -------------------------------------------------------------------------------------------- */

/* As a fresh database is loaded: everything is in order, and as many bytes are written as without. */
static void test_in_order(void **state)
{
    (void)state;
    uint64_t written[2];
    for (int on = 0; on < 2; on++) {
        struct fixture f;
        begin(&f, 3, on ? CHT_ORDER_ALWAYS : CHT_ORDER_NEVER, true);
        put_some(&f, 0, NAMES, 0);
        uint64_t before = out_of_order(&f);
        assert_true(before > NAMES / 4);
        must(cht_store_checkpoint(f.s, &err));
        uint64_t moved = ordered(&f, &written[on]);
        assert_true(on ? moved > NAMES / 2 : moved == 0);
        assert_int_equal(out_of_order(&f), on ? 0 : before);
        compare_pairs(&f, NAMES, 0);
        must(cht_env_close(f.env, &err));
        check(&f);
        start(&f);
        compare_pairs(&f, NAMES, 0);
        assert_int_equal(out_of_order(&f), on ? 0 : before);
        must(cht_store_checkpoint(f.s, &err)); /* nothing is new */
        assert_int_equal(ordered(&f, NULL), 0);
        end(&f);
    }
    assert_int_equal(written[0], written[1]);
}

/* What a checkpoint has written stays where it is; what came after it is in order for itself. */
static void test_only_what_is_new(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, 1, CHT_ORDER_ALWAYS, true);
    put_some(&f, 0, NAMES / 2, 0);
    must(cht_store_checkpoint(f.s, &err));
    uint64_t first = ordered(&f, NULL), home = cht_db(f.s)->shards[0].pf[CHT_PF_VALUES]->home_pages;
    put_some(&f, NAMES / 2, NAMES / 2, 0);
    struct cht_value_ref *old = calloc(NAMES, sizeof *old);
    assert_non_null(old);
    for (uint64_t key = 1; key < NAMES / 2; key++)
        must(cht_values_find(&cht_db(f.s)->shards[0].values, key, &old[key], &err));
    must(cht_store_checkpoint(f.s, &err));
    assert_true(ordered(&f, NULL) > first);
    for (uint64_t key = 1; key < NAMES / 2; key++) {
        struct cht_value_ref now;
        must(cht_values_find(&cht_db(f.s)->shards[0].values, key, &now, &err));
        assert_true(now.off == old[key].off || old[key].off >= home * CHT_PAGE);
    }
    free(old);
    compare_pairs(&f, NAMES, 0);
    put_some(&f, 0, 20, 1); /* too few to go through all names for */
    uint64_t second = ordered(&f, NULL);
    must(cht_store_checkpoint(f.s, &err));
    assert_int_equal(ordered(&f, NULL), second);
    end(&f);
}

/* Names that come in order leave nothing to do, nor does a crash do harm after it was done. */
static void test_left_alone(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, 2, CHT_ORDER_ALWAYS, true);
    for (uint32_t i = 0; i < 3000; i++) {
        char name[16], value[40] = "";
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                            .name = {(const uint8_t *)name, (size_t)sprintf(name, "s%06u", (unsigned)i)},
                            .value = {(const uint8_t *)value, sizeof value}};
        struct cht_commit c = {.ops = &op, .count = 1};
        must(cht_store_commit(f.s, &c));
    }
    must(cht_store_checkpoint(f.s, &err));
    assert_int_equal(ordered(&f, NULL), 0);
    put_some(&f, 0, NAMES, 0);
    link_some(&f, 300);
    must(cht_store_checkpoint(f.s, &err));
    assert_true(ordered(&f, NULL) > 0);
    put_some(&f, 0, NAMES, 3);
    cht_env_abandon(f.env);
    check(&f);
    start(&f);
    compare_pairs(&f, NAMES, 3);
    end(&f);
}

/* By themselves: those of a database that rests, and of no other. */
static void test_rest(void **state)
{
    (void)state;
    static const enum cht_value_order orders[] = {CHT_ORDER_RESTING, CHT_ORDER_NEVER};
    for (int k = 0; k < 2; k++) {
        struct fixture f;
        struct cht_store_stats st = {0};
        begin(&f, 2, orders[k], false);
        put_some(&f, 0, NAMES, 0);
        must(cht_store_checkpoint(f.s, &err)); /* somebody waits for this one */
        assert_int_equal(ordered(&f, NULL), 0);
        put_some(&f, NAMES, NAMES, 0);
        for (unsigned i = 0; i < 6000 && st.checkpoints < 2; i++) {
            cht_env_quiet(f.env);
            cht_sleep_ns(10000000);
            must(cht_store_stats(f.s, &st, &err));
        }
        assert_true(st.checkpoints >= 2);
        assert_int_equal(st.values_ordered > 0, orders[k] == CHT_ORDER_RESTING);
        compare_pairs(&f, 2 * NAMES, 0);
        end(&f);
    }
}

/* ---- between the steps ------------------------------------------------------------------------------------------------- */

struct between {
    struct fixture *f;
    struct model *m;
    struct cht_rng rng;
    uint64_t calls, stop_at; /* 0: never */
    unsigned part;           /* of the calls, one in so many changes something; 0: none */
};

static bool step(void *ctx)
{
    struct between *b = ctx;
    b->calls++;
    if (b->part > 0 && cht_rng_below(&b->rng, b->part) == 0) {
        struct model_batch batch;
        model_random_batch(b->m, &b->rng, 1500, &batch);
        struct cht_commit c = {.ops = batch.ops, .count = batch.count, .flags = batch.flags};
        (void)cht_store_commit(b->f->s, &c);
        model_apply(b->m, &batch, &c);
        model_batch_free(&batch);
    }
    return b->calls == b->stop_at;
}

static void same(struct fixture *f, const struct model *m)
{
    char why[300] = "";
    if (model_compare(m, f->s, why, sizeof why) != 0)
        fail_msg("seed %llu: %s", (unsigned long long)number("CHT_TEST_SEED", 1), why);
}

/* Commits of every kind between the steps, and any number of them around; a crash or a close now and then. */
static void test_between(void **state)
{
    (void)state;
    struct fixture f;
    struct model m;
    begin(&f, 1, CHT_ORDER_NEVER, true);
    model_init(&m, 5000, number("CHT_TEST_SEED", 1));
    struct between b = {.f = &f, .m = &m, .part = 1};
    cht_rng_seed(&b.rng, number("CHT_TEST_SEED", 1));
    uint64_t moved = 0, rounds = number("CHT_TEST_OPS", 1200000) / 20000;
    for (uint64_t round = 0; round < rounds; round++) {
        b.part = 1;
        for (unsigned i = 0; i < 150; i++)
            (void)step(&b);
        b.part = 1 + (unsigned)cht_rng_below(&b.rng, 6);
        moved += cht_order_values(&cht_db(f.s)->shards[0], step, &b);
        same(&f, &m);
        uint64_t dice = cht_rng_below(&b.rng, 8);
        if (dice == 0)
            must(cht_store_checkpoint(f.s, &err));
        if (dice != 1 && dice != 2)
            continue;
        if (dice == 1)
            cht_env_abandon(f.env);
        else
            must(cht_env_close(f.env, &err));
        check(&f);
        start(&f);
        same(&f, &m);
    }
    assert_true(moved > 1000);
    end(&f);
    model_free(&m);
}

static bool count_steps(void *ctx)
{
    struct between *b = ctx;
    return ++b->calls == b->stop_at;
}

/* Stopped before every step. */
static void test_stopped(void **state)
{
    (void)state;
    struct fixture f;
    struct between b = {.f = &f};
    begin(&f, 1, CHT_ORDER_NEVER, true);
    bool stopped = true;
    put_some(&f, 0, NAMES, 0);
    uint64_t before = out_of_order(&f);
    for (b.stop_at = 1; stopped; b.stop_at++) {
        b.calls = 0;
        uint64_t n = cht_order_values(&cht_db(f.s)->shards[0], count_steps, &b);
        if (b.stop_at <= NAMES / 1024)
            assert_int_equal(n, 0);
        stopped = b.calls >= b.stop_at;
        compare_pairs(&f, NAMES, 0);
        assert_true(b.stop_at < 200);
    }
    assert_true(out_of_order(&f) < before / 2); /* in the end it is in order well enough */
    end(&f);
}

static bool never(void *ctx)
{
    (void)ctx;
    return false;
}

/* Each allocation fails, alone and with all after it: then it is not done, that is all. */
static void test_no_memory(void **state)
{
    (void)state;
    for (int forever = 0; forever < 2; forever++) {
        struct fixture f;
        begin(&f, 1, CHT_ORDER_NEVER, true);
        put_some(&f, 0, NAMES, 0);
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            uint64_t before = cht_alloc_failures();
            cht_alloc_fail_at(n, forever);
            uint64_t moved = cht_order_values(&cht_db(f.s)->shards[0], never, NULL);
            failed = cht_alloc_failures() != before;
            cht_alloc_fail_at(0, false);
            assert_true(failed || n > 5);
            assert_int_equal(moved > 0, !failed);
            compare_pairs(&f, NAMES, 0);
        }
        assert_int_equal(out_of_order(&f), 0);
        end(&f);
    }
}

/* A value that does not fit its checksum stays where it is, and all others are whole. */
static void test_damage(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, 1, CHT_ORDER_NEVER, true);
    put_some(&f, 0, NAMES, 0);
    struct cht_shard *sh = &cht_db(f.s)->shards[0];
    struct cht_value_ref bad, now;
    char name[16];
    uint64_t key, other;
    struct cht_buf got = {0};
    struct cht_str str = {(const uint8_t *)name, name_of(1002, name)}; /* of 64 bytes */
    must(cht_store_pair_value(f.s, str, &key, &got, NULL, &err));
    must(cht_values_find(&sh->values, key, &bad, &err));
    sh->pf[CHT_PF_VALUES]->fast.base[bad.off + 7] ^= 1;
    assert_true(cht_order_values(sh, never, NULL) > 0);
    must(cht_values_find(&sh->values, key, &now, &err));
    assert_int_equal(now.off, bad.off);
    assert_int_equal(cht_store_pair_value(f.s, str, &other, &got, NULL, &err), CHT_CORRUPT);
    put_some(&f, 1002, 1, 0);
    compare_pairs(&f, NAMES, 0);
    cht_buf_free(&got);
    end(&f);
}

/* ---- beside others ----------------------------------------------------------------------------------------------------- */

static struct fixture beside;
static _Atomic bool over;
static _Atomic uint64_t wrong, seen;

/* Every value is whole and some version of its name's. */
static void *read_on(void *arg)
{
    (void)arg;
    struct cht_buf got = {0};
    struct cht_err e;
    for (uint32_t i = 0; !atomic_load(&over); i = (i + 1) % NAMES) {
        char name[16];
        uint8_t want[5000];
        uint64_t key;
        bool good = false;
        struct cht_str str = {(const uint8_t *)name, name_of(i, name)};
        if (cht_store_pair_value(beside.s, str, &key, &got, NULL, &e) != CHT_OK) {
            atomic_fetch_add(&wrong, 1);
            continue;
        }
        for (unsigned version = 0; version < 3 && !good; version++) {
            model_fill(want, length_for(i), i + version);
            good = got.len == length_for(i) && memcmp(got.data, want, got.len) == 0;
        }
        atomic_fetch_add(&wrong, !good);
        atomic_fetch_add(&seen, 1);
    }
    cht_buf_free(&got);
    return NULL;
}

static void *scan_on(void *arg)
{
    (void)arg;
    while (!atomic_load(&over)) {
        struct cht_scan_config cfg = {
            .kind = CHT_SCAN_PAIRS, .values = true, .prefix = {(const uint8_t *)"n:", 2}};
        struct cht_scan *scan;
        static struct cht_entry entries[256];
        struct cht_err e;
        size_t n = 1, all = 0;
        if (cht_scan_open(beside.s, &cfg, &scan, &e) != CHT_OK)
            break;
        while (n > 0 && cht_scan_next(scan, entries, 256, &n, &e) == CHT_OK) {
            for (size_t i = 0; i < n; i++)
                atomic_fetch_add(&wrong, (entries[i].flags & ~(unsigned)CHT_ENTRY_LARGE) != 0);
            all += n;
        }
        cht_scan_close(scan);
        atomic_fetch_add(&wrong, all < NAMES);
    }
    return NULL;
}

/* Readers and a writer, while checkpoints put values in order one after the other. */
static void test_beside(void **state)
{
    (void)state;
    pthread_t reader, scanner;
    begin(&beside, 2, CHT_ORDER_ALWAYS, true);
    put_some(&beside, 0, NAMES, 0);
    assert_int_equal(pthread_create(&reader, NULL, read_on, NULL), 0);
    assert_int_equal(pthread_create(&scanner, NULL, scan_on, NULL), 0);
    struct cht_db *db = cht_db(beside.s);
    for (unsigned round = 0; round < 6; round++) {
        struct between b = {0};
        put_some(&beside, NAMES * (round + 1), NAMES, 0); /* what is new, in between what is not */
        for (unsigned i = 0; i < db->nshards; i++)
            (void)cht_order_values(&db->shards[i], count_steps, &b);
        put_some(&beside, 0, NAMES / 4, round % 3);
        must(cht_store_checkpoint(beside.s, &err));
    }
    for (unsigned i = 0; i < 6000 && atomic_load(&seen) < 1000; i++)
        cht_sleep_ns(10000000);
    atomic_store(&over, true);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(pthread_join(scanner, NULL), 0);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_true(atomic_load(&seen) >= 1000);
    compare_pairs(&beside, NAMES / 4, 2);
    end(&beside);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),   cmocka_unit_test(test_only_what_is_new),
        cmocka_unit_test(test_left_alone), cmocka_unit_test(test_rest),
        cmocka_unit_test(test_between),    cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_damage),
        cmocka_unit_test(test_beside)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
