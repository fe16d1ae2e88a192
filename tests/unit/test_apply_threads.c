/* test_apply_threads: large unordered commits, which several threads apply, against the same operations run one by one in the
 * order that CHT_COMMIT_UNORDERED promises; failing operations, allocations and disks; readers and checkpoints meanwhile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/scan.h"
#include "os/thread.h"
#include "store/shard.h"
#include "store/store_int.h"
#include "support/simdisk.h"

#define OPS 1500u
#define NAMES 4000u
#define SHARDS 5u

static struct cht_err err;

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

struct db {
    const char *dir;
    struct cht_env_config cfg;
    struct cht_env *env;
    struct cht_store *s;
};

static void open_db(struct db *d, struct cht_io *io, unsigned threads)
{
    d->cfg = (struct cht_env_config){.dirs = &d->dir,
                                     .dir_count = 1,
                                     .default_shards = SHARDS,
                                     .durability = CHT_DURABLE_SYNC,
                                     .commit_threads = threads,
                                     .log_segment_bytes = 1u << 20,
                                     .scan_workers = 1,
                                     .manual_checkpoint = true,
                                     .io = io};
    must(cht_env_open(&d->cfg, &d->env, &err));
    enum cht_rc rc = cht_env_create(d->env, "default", 0, &err);
    if (rc != CHT_DATABASE_EXISTS)
        must(rc);
    must(cht_env_get(d->env, "default", &d->s, &err));
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

static void check_db(const struct db *d)
{
    uint64_t findings;
    must(cht_check(&d->cfg, NULL, finding, NULL, &findings, &err));
    assert_int_equal(findings, 0);
}

/* Closes as a crash would, looks at the files, opens again: what the log says must be what memory said. */
static void crash_and_reopen(struct db *d)
{
    cht_env_abandon(d->env);
    check_db(d);
    open_db(d, d->cfg.io, d->cfg.commit_threads);
}

/* ---- commits ------------------------------------------------------------------------------------------------- */

struct batch {
    struct cht_op *ops;
    uint8_t *bytes; /* names and values */
    size_t n, used, cap;
};

static struct cht_str text(struct batch *b, const void *p, size_t n)
{
    assert_true(b->used + n <= b->cap);
    uint8_t *q = b->bytes + b->used;
    memcpy(q, p, n);
    b->used += n;
    return (struct cht_str){q, n};
}

static struct cht_str name_of(struct batch *b, char kind, uint64_t i)
{
    char s[24];
    return text(b, s, (size_t)snprintf(s, sizeof s, "%c%05u", kind, (unsigned)i));
}

static struct cht_str value_of(struct batch *b, struct cht_rng *r, size_t n)
{
    assert_true(b->used + n <= b->cap);
    uint8_t *q = b->bytes + b->used;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t x = cht_rng_below(r, UINT64_MAX);
        memcpy(q + i, &x, n - i < 8 ? n - i : 8);
    }
    b->used += n;
    return (struct cht_str){q, n};
}

static void batch_init(struct batch *b, size_t n)
{
    b->ops = calloc(n, sizeof *b->ops);
    b->cap = n * 2200 + (2u << 20);
    b->bytes = malloc(b->cap);
    b->n = b->used = 0;
    assert_true(b->ops != NULL && b->bytes != NULL);
}

static void batch_free(struct batch *b)
{
    free(b->ops);
    free(b->bytes);
}

static size_t length(struct cht_rng *r)
{
    uint64_t dice = cht_rng_below(r, 1000);
    return dice == 0   ? CHT_LARGE_VALUE + cht_rng_below(r, 5000)
           : dice < 20 ? (16u << 10) + cht_rng_below(r, 20000) /* borrowed by the log */
                       : 1 + cht_rng_below(r, 60);
}

/* Upserts, links to them, and of everything else a little. */
static void random_ops(struct batch *b, struct cht_rng *r, size_t n)
{
    size_t put[OPS], puts = 0;
    for (; b->n < n; b->n++) {
        struct cht_op *op = &b->ops[b->n];
        uint64_t dice = cht_rng_below(r, 100);
        struct cht_str name = name_of(b, 'n', cht_rng_below(r, NAMES));
        if (dice < 65 || puts == 0) {
            *op = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = name, .value = value_of(b, r, length(r))};
            put[puts++] = b->n;
        } else if (dice < 85) {
            size_t at = put[cht_rng_below(r, puts)];
            *op = (struct cht_op){.kind = CHT_OP_PAIR_LINK,
                                  .name = name_of(b, dice < 82 ? 'l' : 'n', cht_rng_below(r, 500)),
                                  .value = b->ops[at].name,
                                  .back = (uint32_t)(b->n - at)};
        } else if (dice < 90) {
            *op = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = name, .with_values = dice < 88};
        } else if (dice < 95) {
            *op = (struct cht_op){
                .kind = CHT_OP_PAIR_LINK, .name = name_of(b, 'm', cht_rng_below(r, 500)), .value = name};
        } else { /* a name that shares another's key */
            *op = (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = name, .key = 1 + cht_rng_below(r, 600)};
        }
    }
}

enum stage { PUT, LINK, OTHER };

/* When the operation's turn comes, by what the database holds before the commit. */
static enum stage stage_of(struct cht_store *s, const struct batch *b, size_t i)
{
    const struct cht_op *op = &b->ops[i];
    if (op->kind == CHT_OP_PAIR_LINK && op->back > 0)
        return stage_of(s, b, i - op->back) == PUT ? LINK : OTHER;
    uint64_t key;
    if (op->kind != CHT_OP_PAIR_PUT || op->value.n >= CHT_LARGE_VALUE)
        return OTHER;
    enum cht_rc rc = cht_store_pair(s, op->name, &key, &err);
    assert_true(rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND);
    return rc == CHT_OK && key % SHARDS != cht_shard_of_name(op->name, SHARDS) ? OTHER : PUT;
}

/* The same operations in the order of their stages, for a commit that keeps it; place[i]: where operation i went. */
static void reorder(struct cht_store *s, const struct batch *b, struct cht_op *to, size_t *place)
{
    size_t n = 0;
    for (int stage = PUT; stage <= OTHER; stage++) {
        for (size_t i = 0; i < b->n; i++) {
            if ((int)stage_of(s, b, i) != stage)
                continue;
            place[i] = n;
            to[n] = b->ops[i];
            if (to[n].back > 0)
                to[n].back = (uint32_t)(n - place[i - b->ops[i].back]);
            n++;
        }
    }
    assert_int_equal(n, b->n);
}

static struct cht_scan *scan_of(struct cht_store *s, enum cht_scan_kind kind)
{
    struct cht_scan_config cfg = {.kind = kind, .values = true};
    struct cht_scan *sc;
    must(cht_scan_open(s, &cfg, &sc, &err));
    return sc;
}

static bool same_entry(const struct cht_entry *a, const struct cht_entry *b)
{
    return a->key == b->key && a->name_len == b->name_len && a->size == b->size && a->flags == b->flags &&
           a->value_len == b->value_len && (a->name_len == 0 || memcmp(a->name, b->name, a->name_len) == 0) &&
           (a->value_len == 0 || memcmp(a->value, b->value, a->value_len) == 0);
}

/* Every pair and every value, with their keys. */
static uint64_t same(struct cht_store *a, struct cht_store *b)
{
    uint64_t entries = 0;
    for (int kind = CHT_SCAN_PAIRS; kind <= CHT_SCAN_VALUES; kind++) {
        struct cht_scan *x = scan_of(a, (enum cht_scan_kind)kind), *y = scan_of(b, (enum cht_scan_kind)kind);
        struct cht_entry e, f;
        size_t n, m;
        do {
            must(cht_scan_next(x, &e, 1, &n, &err));
            must(cht_scan_next(y, &f, 1, &m, &err));
            assert_int_equal(n, m);
            if (n == 1 && !same_entry(&e, &f))
                fail_msg("entry %llu differs: %.*s key %llu, %.*s key %llu", (unsigned long long)entries,
                         (int)e.name_len, (const char *)e.name, (unsigned long long)e.key, (int)f.name_len,
                         (const char *)f.name, (unsigned long long)f.key);
            entries += n;
        } while (n == 1);
        cht_scan_close(x);
        cht_scan_close(y);
    }
    return entries;
}

/* ---- tests --------------------------------------------------------------------------------------------------- */

static void test_same_as_one_by_one(void **state)
{
    (void)state;
    struct simdisk *da = simdisk_new(), *db = simdisk_new();
    struct db a = {.dir = "/a"}, b = {.dir = "/b"};
    struct cht_rng r;
    uint64_t seed = number("CHT_TEST_SEED", 21);
    print_message("seed %llu\n", (unsigned long long)seed);
    cht_rng_seed(&r, seed);
    open_db(&a, simdisk_io(da), 3);
    open_db(&b, simdisk_io(db), 1);
    for (unsigned round = 0; round < 24; round++) {
        struct batch batch;
        struct cht_op *serial = calloc(OPS, sizeof *serial);
        size_t *place = calloc(OPS, sizeof *place);
        unsigned flags = round % 2 == 0 ? CHT_COMMIT_ATOMIC : 0;
        assert_true(serial != NULL && place != NULL);
        batch_init(&batch, OPS);
        random_ops(&batch, &r, OPS);
        if (flags != 0) { /* nothing in it may fail: what could is left out */
            for (size_t i = 0; i < batch.n; i++) {
                if (batch.ops[i].kind != CHT_OP_PAIR_PUT && batch.ops[i].back == 0)
                    batch.ops[i].kind = CHT_OP_PAIR_SET, batch.ops[i].key = 1 + i % 700;
            }
        }
        reorder(b.s, &batch, serial, place);
        struct cht_commit split = {.ops = batch.ops, .count = OPS, .flags = flags | CHT_COMMIT_UNORDERED};
        struct cht_commit plain = {.ops = serial, .count = OPS, .flags = flags};
        must(cht_store_commit(a.s, &split));
        must(cht_store_commit(b.s, &plain));
        assert_int_equal(split.failed, plain.failed);
        for (size_t i = 0; i < OPS; i++) {
            const struct cht_op *x = &batch.ops[i], *y = &serial[place[i]];
            if (x->rc != y->rc || x->key != y->key || x->created != y->created || x->size != y->size)
                fail_msg("round %u, operation %zu, kind %d: rc %d, key %llu; one by one %d, %llu", round, i,
                         (int)x->kind, (int)x->rc, (unsigned long long)x->key, (int)y->rc,
                         (unsigned long long)y->key);
        }
        assert_true(same(a.s, b.s) > 500);
        if (round % 3 == 2) {
            crash_and_reopen(&a);
            (void)same(a.s, b.s);
        }
        if (round % 5 == 4)
            must(cht_store_checkpoint(a.s, &err));
        batch_free(&batch);
        free(serial);
        free(place);
    }
    must(cht_env_close(a.env, &err));
    must(cht_env_close(b.env, &err));
    check_db(&a);
    simdisk_free(da);
    simdisk_free(db);
}

/* The operations of a batch as many that are made when they are looked at: names and values in `room`, as a caller may have them. */
static bool make_of_batch(const void *ctx, size_t i, uint8_t *room, struct cht_op *op)
{
    const struct cht_op *from = &((const struct batch *)ctx)->ops[i];
    if (from->kind == CHT_OP_PAIR_READ) /* stands for none */
        return false;
    *op = (struct cht_op){.kind = from->kind, .name = from->name, .value = from->value, .back = from->back};
    if (op->kind == CHT_OP_PAIR_PUT) {
        op->name.p = memcpy(room, from->name.p, from->name.n);
        op->value.p = memcpy(room + from->name.n, from->value.p, from->value.n);
    }
    return true;
}

static void many_of(struct cht_many *m, const struct batch *b)
{
    *m = (struct cht_many){.n = b->n, .make = make_of_batch, .ctx = b};
    m->key = calloc(b->n, sizeof *m->key);
    assert_non_null(m->key);
    for (size_t i = 0; i < b->n; i++) {
        size_t n = b->ops[i].name.n + b->ops[i].value.n;
        m->bytes += n;
        m->room = n > m->room ? n : m->room;
    }
}

/* Many that are made against the same in an array: with names that lead to keys of other shards, names that are met twice, pairs that have
 * ended, commits without threads; what the log says after a crash. */
static void test_many_as_in_an_array(void **state)
{
    (void)state;
    struct simdisk *da = simdisk_new(), *db = simdisk_new();
    struct db a = {.dir = "/a"}, b = {.dir = "/b"};
    struct cht_rng r;
    uint64_t seed = number("CHT_TEST_SEED", 22);
    print_message("seed %llu\n", (unsigned long long)seed);
    cht_rng_seed(&r, seed);
    open_db(&a, simdisk_io(da), 3);
    open_db(&b, simdisk_io(db), 3);
    for (unsigned round = 0; round < 24; round++) {
        struct batch batch;
        struct cht_many many;
        size_t n = round % 4 == 3 ? 20 : OPS;
        batch_init(&batch, OPS);
        random_ops(&batch, &r, n);
        for (size_t i = 0; i < n && round > 0; i++) { /* the first round's leave keys of all kinds */
            struct cht_op *op = &batch.ops[i];
            if (op->kind != CHT_OP_PAIR_PUT && op->back == 0)
                *op = (struct cht_op){.kind = CHT_OP_PAIR_READ, .name = batch.ops[0].name};
            if (op->kind == CHT_OP_PAIR_PUT && op->value.n > CHT_MANY_VALUE_MAX)
                op->value.n = CHT_MANY_VALUE_MAX;
            if (op->kind == CHT_OP_PAIR_PUT && round == 5)
                op->ttl_ms = 1;
        }
        struct cht_op own = {
            .kind = CHT_OP_PAIR_PUT, .name = name_of(&batch, 'o', round), .value = name_of(&batch, 'v', 0)};
        struct cht_commit c = {.ops = batch.ops, .count = n, .flags = CHT_COMMIT_UNORDERED};
        bool plain = round == 0 || round == 5;
        c.flags |= plain ? 0 : CHT_COMMIT_ATOMIC;
        many_of(&many, &batch);
        struct cht_commit other = {.ops = &own, .count = 1, .many = &many, .flags = c.flags};
        must(cht_store_commit(a.s, plain ? &c : &other));
        other.count = 0;
        if (round % 2 == 1 && !plain) /* as a store that knows only arrays does it */
            must(cht_many_commit(b.s, &other));
        else
            must(cht_store_commit(b.s, &c));
        if (!plain)
            must(cht_store_commit(b.s, &(struct cht_commit){.ops = &own, .count = 1}));
        if (round == 5)
            cht_sleep_ns(20000000);
        if (round != 5)
            assert_true(same(a.s, b.s) > 500);
        if (round % 3 == 2) {
            crash_and_reopen(&a);
            (void)same(a.s, b.s);
        }
        if (round % 5 == 4)
            must(cht_store_checkpoint(a.s, &err));
        if (round == 12) { /* goes on without threads */
            must(cht_env_close(a.env, &err));
            open_db(&a, simdisk_io(da), 1);
        }
        batch_free(&batch);
        free(many.key);
    }
    must(cht_env_close(a.env, &err));
    must(cht_env_close(b.env, &err));
    check_db(&a);
    simdisk_free(da);
    simdisk_free(db);
}

static void plain_ops(struct batch *b, size_t pairs, unsigned round);
static uint64_t pairs_of(struct cht_store *s);

/* What many cannot be, and one of them that fails: nothing of the commit is done. */
static void test_many_refused(void **state)
{
    (void)state;
    struct simdisk *disk = simdisk_new();
    struct db d = {.dir = "/a"};
    open_db(&d, simdisk_io(disk), 3);
    for (unsigned round = 0; round < 6; round++) {
        struct batch b;
        struct cht_many many;
        batch_init(&b, OPS);
        plain_ops(&b, OPS / 2, 0);
        many_of(&many, &b);
        struct cht_op *bad = &b.ops[800];
        enum cht_rc want[] = {CHT_INVALID_PAIR,     CHT_EMPTY_VALUE,      CHT_INVALID_ARGUMENT,
                              CHT_INVALID_ARGUMENT, CHT_INVALID_ARGUMENT, CHT_INVALID_ARGUMENT};
        uint8_t longer[CHT_MANY_VALUE_MAX + 1] = {0};
        bad->name.n = round == 0 ? 0 : bad->name.n;
        bad->value.n = round == 1 ? 0 : bad->value.n;
        bad->kind = round == 2 ? CHT_OP_PAIR_DEL : bad->kind;
        b.ops[801].back = round == 3 ? 0 : 1;
        if (round == 4) {
            bad->value = (struct cht_str){longer, sizeof longer};
            many.room += sizeof longer;
            many.bytes += sizeof longer;
        }
        struct cht_commit c = {.many = &many, .flags = round == 5 ? 0 : CHT_COMMIT_ATOMIC};
        uint64_t before = pairs_of(d.s);
        assert_true(cht_store_commit(d.s, &c) != CHT_OK);
        assert_int_equal(c.err.code, want[round]);
        assert_int_equal(pairs_of(d.s), before);
        batch_free(&b);
        free(many.key);
        crash_and_reopen(&d);
        assert_int_equal(pairs_of(d.s), before);
    }
    must(cht_env_close(d.env, &err));
    simdisk_free(disk);
}

/* Operations of the commit's own, so many that threads run them, after many: no shard is let go in between, and if one of them fails, nothing
 * of either is done. */
static void test_many_and_own(void **state)
{
    (void)state;
    enum { OWN = 700 };
    struct simdisk *disk = simdisk_new();
    struct db d = {.dir = "/a"};
    open_db(&d, simdisk_io(disk), 3);
    for (unsigned round = 0; round < 2; round++) {
        struct batch b, own;
        struct cht_many many;
        batch_init(&b, OPS);
        batch_init(&own, OWN);
        plain_ops(&b, OPS / 2, 0);
        many_of(&many, &b);
        for (unsigned i = 0; i < OWN; i++)
            own.ops[i] = (struct cht_op){
                .kind = CHT_OP_PAIR_PUT, .name = name_of(&own, 'o', i), .value = name_of(&own, 'v', i)};
        if (round == 0)
            own.ops[OWN - 1].value.n = 0;
        struct cht_commit c = {
            .ops = own.ops, .count = OWN, .many = &many, .flags = CHT_COMMIT_ATOMIC | CHT_COMMIT_UNORDERED};
        uint64_t before = pairs_of(d.s);
        enum cht_rc rc = cht_store_commit(d.s, &c);
        assert_int_equal(rc, round == 0 ? CHT_BATCH_FAILED : CHT_OK);
        if (round == 0)
            assert_int_equal(pairs_of(d.s), before);
        else
            assert_true(pairs_of(d.s) >= before + OWN + OPS / 4);
        uint64_t after = pairs_of(d.s);
        batch_free(&b);
        batch_free(&own);
        free(many.key);
        crash_and_reopen(&d);
        assert_int_equal(pairs_of(d.s), after);
    }
    must(cht_env_close(d.env, &err));
    check_db(&d);
    simdisk_free(disk);
}

/* Puts of so many names, each with a link; the values say which round it was. */
static void plain_ops(struct batch *b, size_t pairs, unsigned round)
{
    for (size_t i = 0; i < pairs; i++) {
        char v[32];
        size_t n = (size_t)snprintf(v, sizeof v, "%u of round %u", (unsigned)i, round);
        b->ops[b->n++] =
            (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = name_of(b, 'n', i), .value = text(b, v, n)};
        b->ops[b->n] = (struct cht_op){
            .kind = CHT_OP_PAIR_LINK, .name = name_of(b, 'l', i), .value = b->ops[b->n - 1].name, .back = 1};
        b->n++;
    }
}

static uint64_t pairs_of(struct cht_store *s)
{
    uint64_t n;
    must(cht_store_count(s, (struct cht_str){NULL, 0}, &n, &err));
    return n;
}

/* All of round's values, or none of them: says which. */
static bool holds_round(struct cht_store *s, size_t pairs, unsigned round)
{
    struct cht_buf v = {0};
    size_t have = 0;
    for (size_t i = 0; i < pairs; i++) {
        char name[24], want[32];
        uint64_t key;
        uint32_t size;
        int n = snprintf(name, sizeof name, "%c%05u", i % 2 == 0 ? 'n' : 'l', (unsigned)i);
        int w = snprintf(want, sizeof want, "%u of round %u", (unsigned)i, round);
        enum cht_rc rc =
            cht_store_pair_value(s, (struct cht_str){(uint8_t *)name, (size_t)n}, &key, &v, &size, &err);
        assert_true(rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND);
        have += rc == CHT_OK && v.len == (size_t)w && memcmp(v.data, want, v.len) == 0;
    }
    cht_buf_free(&v);
    assert_true(have == 0 || have == pairs);
    return have == pairs;
}

static void test_one_fails(void **state)
{
    (void)state;
    struct simdisk *disk = simdisk_new();
    struct db d = {.dir = "/a"};
    open_db(&d, simdisk_io(disk), 3);
    for (unsigned round = 0; round < 6; round++) {
        struct batch b;
        bool atomic = round % 2 == 0;
        size_t bad[] = {801, 200, 1333};
        batch_init(&b, OPS);
        plain_ops(&b, OPS / 2, round);
        b.ops[bad[0]].name.n = 0; /* a link */
        if (round >= 2) {
            b.ops[bad[1]].value.n = 0; /* a put; its link fails, too */
            b.ops[bad[2]].name.n = CHT_NAME_MAX + 1;
        }
        size_t failing = round >= 2 ? 4 : 1;
        struct cht_commit c = {
            .ops = b.ops, .count = b.n, .flags = CHT_COMMIT_UNORDERED | (atomic ? CHT_COMMIT_ATOMIC : 0)};
        uint64_t before = pairs_of(d.s);
        enum cht_rc rc = cht_store_commit(d.s, &c);
        if (atomic) {
            assert_int_equal(rc, CHT_BATCH_FAILED);
            assert_true(c.failed < b.n && b.ops[c.failed].rc != CHT_OK && b.ops[c.failed].rc == c.err.code);
            assert_int_equal(pairs_of(d.s), before);
        } else {
            must(rc);
            assert_int_equal(c.failed, failing);
            assert_int_equal(b.ops[bad[0]].rc, CHT_INVALID_PAIR);
            assert_int_equal(b.ops[bad[1]].rc, round >= 2 ? CHT_EMPTY_VALUE : CHT_OK);
            assert_int_equal(b.ops[bad[1] + 1].rc, round >= 2 ? CHT_PAIR_NOT_FOUND : CHT_OK);
            assert_int_equal(c.err.code, round >= 2 ? CHT_EMPTY_VALUE : CHT_INVALID_PAIR);
            assert_true(pairs_of(d.s) >= b.n - failing);
        }
        batch_free(&b);
        crash_and_reopen(&d);
    }
    must(cht_env_close(d.env, &err));
    check_db(&d);
    simdisk_free(disk);
}

/* A group that the log had no room for is being taken back; the disk may have failed that, too, and then it is tried again. */
static void wait_until_taken_back(struct cht_store *s)
{
    struct cht_store_stats st;
    uint64_t pairs;
    enum cht_rc rc = CHT_READ_ONLY;
    for (unsigned i = 0; i < 2400 && rc != CHT_OK; i++) {
        rc = cht_store_stats(s, &st, &err);
        if (rc == CHT_OK && !st.read_only)
            rc = cht_store_count(s, (struct cht_str){NULL, 0}, &pairs, &err);
        else
            rc = CHT_READ_ONLY;
        if (rc != CHT_OK)
            cht_sleep_ns(50000000);
    }
    assert_int_equal(rc, CHT_OK);
}

/* An atomic commit with a fault somewhere; then the same database without. */
static bool one_fault(uint64_t at, bool memory, enum sim_fault kind, bool forever, bool made)
{
    struct simdisk *disk = simdisk_new();
    struct db d = {.dir = "/a"};
    const size_t pairs = 400;
    struct batch b[2];
    open_db(&d, simdisk_io(disk), 3);
    for (unsigned round = 0; round < 2; round++) {
        batch_init(&b[round], OPS);
        plain_ops(&b[round], pairs, round);
    }
    struct cht_commit first = {.ops = b[0].ops, .count = b[0].n}; /* the threads are made in the second */
    struct cht_commit c = {
        .ops = b[1].ops, .count = b[1].n, .flags = CHT_COMMIT_UNORDERED | CHT_COMMIT_ATOMIC};
    struct cht_many many;
    many_of(&many, &b[1]);
    if (made)
        c = (struct cht_commit){.many = &many, .flags = CHT_COMMIT_ATOMIC};
    must(cht_store_commit(d.s, &first));
    must(cht_store_checkpoint(d.s, &err));
    uint64_t injected = simdisk_injected(disk);
    if (memory)
        cht_alloc_fail_at(at, forever);
    else
        simdisk_fail_at(disk, at, kind, forever);
    enum cht_rc rc = cht_store_commit(d.s, &c);
    injected = memory ? cht_alloc_failures() : simdisk_injected(disk) - injected;
    cht_alloc_fail_at(0, false);
    simdisk_fail_at(disk, 0, SIM_NONE, false);
    assert_true(rc == CHT_OK || injected > 0);
    assert_true(rc == CHT_OK || rc == CHT_BATCH_FAILED || rc == CHT_NO_MEMORY || rc == CHT_DISK_FULL ||
                rc == CHT_READ_ONLY || rc == CHT_OUTCOME_UNKNOWN || rc == CHT_IO);
    bool stopped = rc == CHT_READ_ONLY || rc == CHT_OUTCOME_UNKNOWN || rc == CHT_IO;
    if (rc == CHT_DISK_FULL)
        wait_until_taken_back(d.s);
    if (!stopped) { /* it goes on as if nothing had been asked */
        assert_int_equal(holds_round(d.s, pairs, 1), rc == CHT_OK);
        assert_true(rc == CHT_OK || holds_round(d.s, pairs, 0));
        c.rc = CHT_OK;
        memset(many.key, 0, many.n * sizeof *many.key);
        must(cht_store_commit(d.s, &c));
        assert_true(holds_round(d.s, pairs, 1));
    }
    crash_and_reopen(&d);
    if (!stopped)
        assert_true(holds_round(d.s, pairs, 1));
    else
        assert_true(holds_round(d.s, pairs, 1) || holds_round(d.s, pairs, 0));
    must(cht_env_close(d.env, &err));
    check_db(&d);
    batch_free(&b[0]);
    batch_free(&b[1]);
    free(many.key);
    simdisk_free(disk);
    return injected > 0;
}

static void memory_fails(bool made)
{
    uint64_t stride = number("CHT_TEST_STRIDE", 1), n = 0;
    for (uint64_t at = 1; one_fault(at, true, SIM_NONE, n % 2 == 0, made); at += at < 40 ? 1 : 11 * stride)
        n++;
    print_message("%llu allocations failed\n", (unsigned long long)n);
    assert_true(n > (made ? 4 : 30)); /* many leave next to nothing in memory */
}

static void test_memory_fails(void **state)
{
    (void)state;
    memory_fails(false);
}

static void test_memory_fails_of_many(void **state)
{
    (void)state;
    memory_fails(true);
}

static void disk_fails(bool made)
{
    uint64_t n = 0;
    for (enum sim_fault kind = SIM_FULL; kind <= SIM_SHORT; kind++) {
        for (uint64_t at = 1; one_fault(at, false, kind, n % 2 == 0, made); at++)
            n++;
    }
    print_message("%llu calls failed\n", (unsigned long long)n);
    assert_true(n > 3);
}

static void test_disk_fails(void **state)
{
    (void)state;
    disk_fails(false);
}

static void test_disk_fails_with_many(void **state)
{
    (void)state;
    disk_fails(true);
}

/* After a very large commit its memory is let go of; the next ones, large or not, begin anew. */
static void test_very_large(void **state)
{
    (void)state;
    struct simdisk *disk = simdisk_new();
    struct db d = {.dir = "/a"};
    const size_t pairs[] = {200000, 600, 200000, 600};
    open_db(&d, simdisk_io(disk), 3);
    for (unsigned round = 0; round < 4; round++) {
        struct batch b = {.ops = calloc(2 * pairs[round], sizeof *b.ops), .cap = pairs[round] * 100};
        b.bytes = calloc(b.cap, 1);
        assert_true(b.ops != NULL && b.bytes != NULL);
        plain_ops(&b, pairs[round], round);
        for (size_t i = 0; i < b.n; i += 2) /* of some length: plain_ops' text first */
            b.ops[i].value.n += 40;
        struct cht_commit c = {.ops = b.ops, .count = b.n, .flags = CHT_COMMIT_UNORDERED | CHT_COMMIT_ATOMIC};
        for (size_t i = 0; i < b.n; i++)
            assert_true(b.ops[i].value.p + b.ops[i].value.n <= b.bytes + b.cap);
        must(cht_store_commit(d.s, &c));
        assert_int_equal(pairs_of(d.s), 2 * pairs[0]);
        for (size_t i = 0; i < b.n; i += 97) {
            struct cht_buf v = {0};
            uint64_t key;
            uint32_t size;
            const struct cht_op *put = i % 2 == 0 ? &b.ops[i] : &b.ops[i - 1];
            must(cht_store_pair_value(d.s, b.ops[i].name, &key, &v, &size, &err));
            assert_int_equal(size, put->value.n);
            assert_memory_equal(v.data, put->value.p, size);
            cht_buf_free(&v);
        }
        batch_free(&b);
    }
    crash_and_reopen(&d);
    assert_int_equal(pairs_of(d.s), 2 * pairs[0]);
    must(cht_env_close(d.env, &err));
    simdisk_free(disk);
}

struct reader {
    struct cht_thread thread;
    struct cht_store *s;
    _Atomic bool *stop;
    _Atomic uint64_t seen;
};

static void *read_all_the_time(void *arg)
{
    struct reader *rd = arg;
    struct cht_err e;
    struct cht_buf v = {0};
    for (uint64_t i = 0; !atomic_load(rd->stop); i++) {
        char name[24];
        uint64_t key;
        uint32_t size;
        int n = snprintf(name, sizeof name, "n%05u", (unsigned)(i * 7 % (OPS / 2)));
        enum cht_rc rc =
            cht_store_pair_value(rd->s, (struct cht_str){(uint8_t *)name, (size_t)n}, &key, &v, &size, &e);
        if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
            return (void *)1;
        if (i % 500 != 0 && rd->seen > 0) /* the first ones may find nothing yet */
            continue;
        struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true};
        struct cht_scan *sc;
        struct cht_entry entry[64];
        size_t count;
        if (cht_scan_open(rd->s, &cfg, &sc, &e) != CHT_OK)
            return (void *)1;
        do {
            if (cht_scan_next(sc, entry, 64, &count, &e) != CHT_OK)
                return (void *)1;
            rd->seen += count;
        } while (count > 0);
        cht_scan_close(sc);
    }
    cht_buf_free(&v);
    rd->s = NULL; /* came to its end */
    return NULL;
}

/* Readers, a low limit of dirty pages (so checkpoints), atomic and other commits; nothing waits for ever. */
static void test_beside_readers(void **state)
{
    (void)state;
    struct simdisk *disk = simdisk_new();
    struct db d = {.dir = "/a"};
    _Atomic bool stop = false;
    struct reader rd[2];
    open_db(&d, simdisk_io(disk), 3);
    must(cht_env_close(d.env, &err));
    d.cfg.manual_checkpoint = false;
    d.cfg.dirty_bytes = 256u << 10;
    must(cht_env_open(&d.cfg, &d.env, &err));
    must(cht_env_get(d.env, "default", &d.s, &err));
    for (unsigned i = 0; i < 2; i++) {
        rd[i] = (struct reader){.s = d.s, .stop = &stop};
        must(cht_thread_start(&rd[i].thread, "reader", read_all_the_time, &rd[i], &err));
    }
    for (unsigned round = 0; round < 60; round++) {
        struct batch b;
        batch_init(&b, OPS);
        plain_ops(&b, OPS / 2, round);
        if (round % 7 == 6)
            b.ops[1000].value.n = 0;
        struct cht_commit c = {.ops = b.ops,
                               .count = b.n,
                               .flags = CHT_COMMIT_UNORDERED | (round % 2 == 0 ? CHT_COMMIT_ATOMIC : 0)};
        enum cht_rc rc = cht_store_commit(d.s, &c);
        assert_int_equal(rc, round % 14 == 6 ? CHT_BATCH_FAILED : CHT_OK);
        batch_free(&b);
    }
    assert_true(holds_round(d.s, OPS / 2, 59));
    for (unsigned i = 0; i < 2; i++) { /* each has had its turn */
        while (rd[i].seen == 0)
            cht_sleep_ns(1000000);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        cht_thread_join(&rd[i].thread);
        assert_null(rd[i].s);
    }
    must(cht_env_close(d.env, &err));
    check_db(&d);
    simdisk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_one_by_one),   cmocka_unit_test(test_one_fails),
        cmocka_unit_test(test_memory_fails),         cmocka_unit_test(test_disk_fails),
        cmocka_unit_test(test_very_large),           cmocka_unit_test(test_beside_readers),
        cmocka_unit_test(test_many_as_in_an_array),  cmocka_unit_test(test_many_refused),
        cmocka_unit_test(test_many_and_own),         cmocka_unit_test(test_memory_fails_of_many),
        cmocka_unit_test(test_disk_fails_with_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
