/* test_changes: what a follower is told (cheetah/changes.h), applied one after the other, is what the database holds: after random commits,
 * checkpoints, restarts, crashes and power cuts, wherever the follower stopped before. And where it ends: what the log does not hold
 * any more, another life of the database, a segment that is missing or damaged, a full disk, an upsert that nobody follows.
 */
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "cheetah/backup.h"
#include "cheetah/changes.h"
#include "os/thread.h"
#include "store/wal.h"
#include "support/model.h"
#include "support/simdisk.h"

#define NAMES 60
#define KEYS_MAX 4096
#define HISTORY 48

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

static void must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("%s: %s", cht_rc_slug(rc), err->msg);
}

static struct cht_store *open_store(const struct cht_env_config *cfg, struct cht_env **env)
{
    struct cht_err err = {0};
    struct cht_store *s = NULL;
    must(cht_env_open(cfg, env, &err), &err);
    enum cht_rc rc = cht_env_get(*env, "default", &s, &err);
    if (rc == CHT_DATABASE_NOT_FOUND) {
        must(cht_env_create(*env, "default", 0, &err), &err);
        rc = cht_env_get(*env, "default", &s, &err);
    }
    must(rc, &err);
    return s;
}

static struct cht_str text(const char *s) { return (struct cht_str){(const uint8_t *)s, strlen(s)}; }

static enum cht_rc put(struct cht_store *s, const char *name, const void *v, size_t n)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = text(name), .value = {v, n}};
    struct cht_commit c = {.ops = &op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc != CHT_OK ? rc : op.rc;
}

static struct cht_changes_range range_of(struct cht_store *s)
{
    struct cht_changes_range r;
    struct cht_err err = {0};
    must(cht_changes_range(s, &r, &err), &err);
    return r;
}

/* ---- a mirror ---------------------------------------------------------------------------------------------------- */

/* Of the pairs under a prefix, and, if that is empty, of the values: what a follower has been told, and nothing else. */
struct mirror {
    const struct model *m; /* the names */
    struct cht_str prefix;
    uint64_t after;
    uint64_t key[NAMES];
    uint32_t value[KEYS_MAX]; /* a checksum; 0: none */
    bool dirty[KEYS_MAX];
    uint64_t lines;
    unsigned stop; /* every so many lines that is enough; 0: never */
};

static struct cht_str name_of(const struct model *m, unsigned i)
{
    return (struct cht_str){m->name[i], m->name_len[i]};
}

static bool under(struct cht_str name, struct cht_str prefix)
{
    return name.n >= prefix.n && (prefix.n == 0 || memcmp(name.p, prefix.p, prefix.n) == 0);
}

static uint32_t value_of(struct cht_store *s, uint64_t key)
{
    struct cht_buf b = {0};
    struct cht_err err = {0};
    enum cht_rc rc = cht_store_get(s, key, &b, NULL, &err);
    uint32_t sum = rc == CHT_OK ? cht_crc32c(1, b.data, b.len) | 1 : 0;
    if (rc != CHT_OK && rc != CHT_KEY_NOT_FOUND)
        must(rc, &err);
    cht_buf_free(&b);
    return sum;
}

static bool see(void *ctx, const struct cht_change *c)
{
    struct mirror *mi = ctx;
    assert_true(c->number >= mi->after);
    mi->after = c->number;
    for (unsigned i = 0; i < mi->m->names && c->kind <= CHT_CHANGE_PREFIX_DEL; i++) {
        struct cht_str name = name_of(mi->m, i);
        if (c->kind == CHT_CHANGE_PREFIX_DEL ? !under(name, c->name)
                                             : !(name.n == c->name.n && under(name, c->name)))
            continue;
        assert_true(c->kind == CHT_CHANGE_PREFIX_DEL || under(name, mi->prefix));
        mi->key[i] = c->kind == CHT_CHANGE_PAIR_SET ? c->key : 0;
    }
    if (c->kind >= CHT_CHANGE_VALUE_SET)
        assert_true(mi->prefix.n == 0);
    if (c->kind == CHT_CHANGE_PAIR_SET || c->kind >= CHT_CHANGE_VALUE_SET) {
        assert_in_range(c->key, 1, KEYS_MAX - 1);
        mi->dirty[c->key] = true;
    }
    mi->lines++;
    return mi->stop == 0 || mi->lines % mi->stop != 0;
}

/* Everything that there is to be told. */
static enum cht_rc catch_up(struct mirror *mi, struct cht_store *s)
{
    struct cht_changes *c = NULL;
    struct cht_err err = {0};
    enum cht_rc rc = cht_changes_open(s, mi->prefix, mi->after, &c, &err);
    while (rc == CHT_OK)
        rc = cht_changes_next(c, see, mi, &err);
    if (rc == CHT_PENDING) {
        mi->after = cht_changes_position(c);
        rc = CHT_OK;
    }
    cht_changes_close(c);
    for (unsigned k = 1; k < KEYS_MAX && rc == CHT_OK; k++) {
        if (mi->dirty[k])
            mi->value[k] = value_of(s, k);
        mi->dirty[k] = false;
    }
    return rc;
}

static void compare(const struct mirror *mi, struct cht_store *s, const char *what)
{
    struct cht_err err = {0};
    struct cht_store_stats st;
    must(cht_store_stats(s, &st, &err), &err);
    for (unsigned i = 0; i < mi->m->names; i++) {
        uint64_t key = 0;
        if (!under(name_of(mi->m, i), mi->prefix))
            continue;
        enum cht_rc rc = cht_store_pair(s, name_of(mi->m, i), &key, &err);
        if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
            must(rc, &err);
        if ((rc == CHT_OK ? key : 0) != mi->key[i])
            fail_msg("%s: name %u leads to %llu, the follower was told %llu", what, i,
                     (unsigned long long)key, (unsigned long long)mi->key[i]);
    }
    for (unsigned k = 1; k < KEYS_MAX && mi->prefix.n == 0; k++)
        if (value_of(s, k) != mi->value[k])
            fail_msg("%s: the follower was not told of the value under %u", what, k);
}

static void mirror_init(struct mirror *mi, const struct model *m, struct cht_str prefix, struct cht_store *s)
{
    memset(mi, 0, sizeof *mi);
    mi->m = m;
    mi->prefix = prefix;
    mi->after = CHT_CHANGES_NOW;
    assert_int_equal(catch_up(mi, s), CHT_OK); /* of an empty database */
}

static void random_commit(struct model *m, struct cht_rng *r, struct cht_store *s, uint32_t max)
{
    struct model_batch b;
    model_random_batch(m, r, max, &b);
    struct cht_commit c = {.ops = b.ops, .count = b.count, .flags = b.flags};
    (void)cht_store_commit(s, &c);
    model_apply(m, &b, &c);
    model_batch_free(&b);
}

/* The disk after a power cut now. */
static struct simdisk *cut_now(struct simdisk *d, struct cht_rng *r)
{
    struct simcut *c = simcut_new(d);
    while (simcut_step(c))
        ;
    struct simdisk *after = simcut_disk(c, (enum sim_mode)cht_rng_below(r, 4), r);
    simcut_free(c);
    simdisk_free(d);
    return after;
}

static void test_model(void **state)
{
    (void)state;
    const char *more = getenv("CHT_TEST_LONG");
    unsigned rounds = more != NULL && *more == '1' ? 2000 : 90;
    for (unsigned seed = 1; seed <= 2; seed++) {
        struct simdisk *d = simdisk_new();
        struct cht_env_config cfg = config(d);
        struct cht_env *env;
        struct cht_err err = {0};
        struct cht_rng r;
        struct model m;
        static struct mirror mirror[4];
        bool cut = seed == 2; /* what is not synced is not there after one */
        cht_rng_seed(&r, seed);
        model_init(&m, NAMES, seed);
        cfg.durability = seed == 1 ? CHT_DURABLE_SYNC : CHT_DURABLE_OS;
        struct cht_store *s = open_store(&cfg, &env);
        for (unsigned i = 0; i < 4; i++) {
            struct cht_str name = name_of(&m, (unsigned)cht_rng_below(&r, NAMES));
            mirror_init(&mirror[i], &m, (struct cht_str){name.p, i == 0 ? 0 : i < name.n ? i : name.n}, s);
            mirror[i].stop = i == 2 ? 1 : 0;
        }
        for (unsigned n = 0; n < rounds && m.max_key + 600 < KEYS_MAX; n++) {
            random_commit(&m, &r, s, n % 16 == 5 ? 200000 : 2000);
            unsigned what = (unsigned)cht_rng_below(&r, 20), who = (unsigned)cht_rng_below(&r, 8);
            if (who < 4) {
                enum cht_rc rc = catch_up(&mirror[who], s);
                if (rc != CHT_OK)
                    fail_msg("round %u, follower %u: %s", n, who, cht_rc_slug(rc));
                compare(&mirror[who], s, "under way");
            }
            if (what < 4)
                must(cht_store_checkpoint(s, &err), &err);
            if (what == 5) {
                must(cht_env_close(env, &err), &err);
                s = open_store(&cfg, &env);
            } else if (what == 6 || what == 7) {
                cht_env_abandon(env);
                if (what == 6 && !cut) /* a disk that a cut has made knows no cut */
                    d = cut_now(d, &r);
                cut |= what == 6;
                cfg.io = simdisk_io(d);
                s = open_store(&cfg, &env);
            }
        }
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(catch_up(&mirror[i], s), CHT_OK);
            compare(&mirror[i], s, "at the end");
            assert_true(mirror[i].prefix.n > 0 || mirror[i].lines > rounds);
        }
        must(cht_env_close(env, &err), &err);
        model_free(&m);
        simdisk_free(d);
    }
}

/* A power cut at any point: a follower that has stopped at any point before goes on. */
static void test_cuts(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_err err = {0};
    struct cht_rng r;
    struct model m;
    static struct mirror seen[HISTORY + 1];
    size_t acked[HISTORY + 1];
    cht_rng_seed(&r, 7);
    model_init(&m, NAMES, 7);
    struct cht_store *s = open_store(&cfg, &env);
    mirror_init(&seen[0], &m, (struct cht_str){NULL, 0}, s);
    acked[0] = simdisk_events(d);
    for (unsigned n = 1; n <= HISTORY; n++) {
        random_commit(&m, &r, s, 2000);
        if (n % 9 == 8)
            must(cht_store_checkpoint(s, &err), &err);
        seen[n] = seen[n - 1];
        assert_int_equal(catch_up(&seen[n], s), CHT_OK);
        acked[n] = simdisk_events(d);
        if (n == HISTORY / 2) {
            must(cht_env_close(env, &err), &err);
            s = open_store(&cfg, &env);
        }
    }
    must(cht_env_close(env, &err), &err);
    struct simcut *c = simcut_new(d);
    const char *more = getenv("CHT_TEST_LONG");
    size_t step = more != NULL && *more == '1' ? 1 : simdisk_events(d) / 60 + 1, next = acked[0];
    unsigned cuts = 0, last = 0;
    while (simcut_step(c)) {
        if (simcut_at(c) < next)
            continue;
        next += 1 + cht_rng_below(&r, 2 * step);
        while (last < HISTORY && acked[last + 1] <= simcut_at(c))
            last++;
        static struct mirror mi;
        mi = seen[cht_rng_below(&r, last + 1)];
        struct simdisk *after = simcut_disk(c, (enum sim_mode)cht_rng_below(&r, 4), &r);
        simdisk_forget(after);
        struct cht_env_config ac = config(after);
        struct cht_store *as = open_store(&ac, &env);
        assert_int_equal(catch_up(&mi, as), CHT_OK);
        compare(&mi, as, "after a cut");
        assert_int_equal(put(as, "again", "x", 1), CHT_OK);
        uint64_t lines = mi.lines;
        assert_int_equal(catch_up(&mi, as), CHT_OK);
        assert_int_equal(mi.lines, lines + 1);
        cht_env_abandon(env);
        simdisk_free(after);
        cuts++;
    }
    simcut_free(c);
    assert_true(cuts > 20);
    model_free(&m);
    simdisk_free(d);
}

/* ---- what is told ------------------------------------------------------------------------------------------------ */

struct list {
    char s[4000];
    unsigned n;
    uint64_t base;
};

static bool write_down(void *ctx, const struct cht_change *c)
{
    static const char *const kinds[] = {"set", "del", "under", "value", "gone"};
    struct list *l = ctx;
    size_t at = strlen(l->s);
    (void)snprintf(l->s + at, sizeof l->s - at, "%s%llu:%s:%.*s:%llu", at > 0 ? " " : "",
                   (unsigned long long)(c->number - l->base), kinds[c->kind], (int)c->name.n,
                   (const char *)c->name.p, (unsigned long long)c->key);
    l->n++;
    return true;
}

static void told(struct cht_store *s, const char *prefix, uint64_t after, const char *want)
{
    struct cht_changes *c = NULL;
    struct cht_err err = {0};
    struct list l = {.base = after};
    must(cht_changes_open(s, text(prefix), after, &c, &err), &err);
    enum cht_rc rc;
    while ((rc = cht_changes_next(c, write_down, &l, &err)) == CHT_OK)
        ;
    assert_int_equal(rc, CHT_PENDING);
    cht_changes_close(c);
    assert_string_equal(l.s, want);
}

static void test_lines(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_err err = {0};
    struct cht_store *s = open_store(&cfg, &env);
    assert_int_equal(put(s, "a:0", "before", 6), CHT_OK);
    assert_int_equal(range_of(s).newest, 0);
    struct cht_changes *c = NULL;
    must(cht_changes_open(s, text(""), CHT_CHANGES_NOW, &c, &err), &err);
    uint64_t start = cht_changes_position(c);
    assert_int_equal(range_of(s).newest, start);
    assert_int_equal(range_of(s).oldest, start);
    assert_int_equal(range_of(s).followers, 1);
    cht_changes_close(c);
    assert_int_equal(put(s, "a:1", "new", 3), CHT_OK);
    assert_int_equal(put(s, "a:1", "newer", 5), CHT_OK);
    struct cht_op ops[] = {
        {.kind = CHT_OP_PAIR_PUT, .name = text("a:2"), .value = {(const uint8_t *)"x", 1}},
        {.kind = CHT_OP_PAIR_SET, .name = text("b:1"), .key = 4},
        {.kind = CHT_OP_PAIR_DEL, .name = text("a:1"), .with_values = true},
        {.kind = CHT_OP_PAIR_DEL, .name = text("nothing")},
        {.kind = CHT_OP_INSERT, .value = {(const uint8_t *)"y", 1}},
    };
    struct cht_commit batch = {.ops = ops, .count = 5};
    (void)cht_store_commit(s, &batch);
    struct cht_op gone = {.kind = CHT_OP_PREFIX_DEL, .name = text("a:")};
    batch = (struct cht_commit){.ops = &gone, .count = 1};
    must(cht_store_commit(s, &batch), &batch.err);
    char want[400];
    (void)snprintf(
        want, sizeof want,
        "1:set:a:1:%llu 2:set:a:1:%llu 2:set:a:2:%llu 2:set:b:1:4 2:del:a:1:0 2:gone::%llu 3:value::%llu "
        "4:under:a::0",
        (unsigned long long)ops[2].key, (unsigned long long)ops[2].key, (unsigned long long)ops[0].key,
        (unsigned long long)ops[2].key, (unsigned long long)ops[4].key);
    told(s, "", start, want);
    (void)snprintf(want, sizeof want, "1:set:a:1:%llu 1:set:a:2:%llu 2:del:a:1:0 3:under:a::0",
                   (unsigned long long)ops[2].key, (unsigned long long)ops[0].key);
    told(s, "a:", start + 1, want);
    told(s, "b:", start + 2, "1:set:b:1:4");
    told(s, "a:2:longer", start, "4:under:a::0");
    told(s, "", start + 4, "");
    must(cht_env_close(env, &err), &err);
    s = open_store(&cfg, &env); /* the same after a restart */
    told(s, "b:", start + 2, "1:set:b:1:4");
    assert_int_equal(range_of(s).newest, start + 4);
    must(cht_env_close(env, &err), &err);
    simdisk_free(d);
}

static bool count_line(void *ctx, const struct cht_change *c)
{
    uint64_t *n = ctx;
    (void)c;
    return ++*n % 100 != 0;
}

/* One commit of 20000 pairs, told a hundred at a time; whoever stops inside gets all of it again. */
static void test_large_commit(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct simdisk *d = simdisk_new();
    simdisk_forget(d);
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_err err = {0};
    struct cht_store *s = open_store(&cfg, &env);
    struct cht_changes *c = NULL;
    must(cht_changes_open(s, text("n"), CHT_CHANGES_NOW, &c, &err), &err);
    uint64_t start = cht_changes_position(c), n = 0;
    struct cht_op *ops = calloc(N, sizeof *ops);
    char(*names)[16] = calloc(N, sizeof *names);
    static uint8_t big[70000];
    for (unsigned i = 0; i < N; i++) {
        (void)snprintf(names[i], sizeof names[i], "n%05u", i);
        ops[i] = (struct cht_op){
            .kind = CHT_OP_PAIR_PUT, .name = text(names[i]), .value = {big, i % 1000 == 7 ? sizeof big : 20}};
    }
    struct cht_commit batch = {.ops = ops, .count = N, .flags = CHT_COMMIT_ATOMIC};
    must(cht_store_commit(s, &batch), &batch.err);
    unsigned calls = 0;
    enum cht_rc rc;
    while ((rc = cht_changes_next(c, count_line, &n, &err)) == CHT_OK && calls < 1000) {
        if (++calls == 50)
            assert_int_equal(cht_changes_position(c), start);
    }
    assert_int_equal(rc, CHT_PENDING);
    assert_int_equal(n, N);
    assert_true(calls >= N / 100);
    assert_int_equal(cht_changes_position(c), start + 1);
    cht_changes_close(c);
    free(ops);
    free(names);
    must(cht_env_close(env, &err), &err);
    simdisk_free(d);
}

/* ---- how far back ------------------------------------------------------------------------------------------------ */

static enum cht_rc open_at(struct cht_store *s, uint64_t after)
{
    struct cht_changes *c = NULL;
    struct cht_err err = {0};
    enum cht_rc rc = cht_changes_open(s, text(""), after, &c, &err);
    cht_changes_close(c);
    return rc;
}

static uint64_t begin(struct cht_store *s)
{
    assert_int_equal(open_at(s, CHT_CHANGES_NOW), CHT_OK);
    return range_of(s).newest;
}

static void fill_log(struct cht_store *s, unsigned n)
{
    static uint8_t v[4000];
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(put(s, "filler", v, sizeof v), CHT_OK);
}

static void test_gone(void **state)
{
    (void)state;
    static const uint64_t keeps[] = {CHT_CHANGES_NONE, 3u << 16, UINT64_C(1) << 30};
    for (unsigned k = 0; k < 3; k++) {
        struct simdisk *d = simdisk_new();
        simdisk_forget(d);
        struct cht_env_config cfg = config(d);
        struct cht_env *env;
        struct cht_err err = {0};
        cfg.changes_bytes = keeps[k];
        struct cht_store *s = open_store(&cfg, &env);
        uint64_t start = begin(s);
        struct cht_changes *slow = NULL;
        must(cht_changes_open(s, text("f"), start, &slow, &err), &err);
        fill_log(s, 200);
        assert_int_equal(open_at(s, start), CHT_OK); /* no shard has got it yet */
        must(cht_store_checkpoint(s, &err), &err);
        must(cht_store_checkpoint(s, &err), &err);
        fill_log(s, 40);
        must(cht_store_checkpoint(s, &err), &err);
        struct cht_changes_range r = range_of(s);
        assert_int_equal(r.newest, start + 240);
        assert_int_equal(open_at(s, r.oldest), CHT_OK);
        assert_int_equal(open_at(s, r.oldest - 1), CHT_GONE);
        assert_int_equal(open_at(s, r.newest), CHT_OK);
        assert_int_equal(open_at(s, r.newest + 1), CHT_GONE);
        assert_int_equal(open_at(s, CHT_CHANGES_BEGIN), k == 2 ? CHT_OK : CHT_GONE);
        assert_int_equal(open_at(s, CHT_CHANGES_OLDEST), CHT_OK);
        uint64_t n = 0;
        enum cht_rc rc = cht_changes_next(slow, count_line, &n, &err);
        if (k == 2) {
            assert_int_equal(r.oldest, start);
            assert_int_equal(rc, CHT_OK);
        } else {
            assert_true(r.oldest > start);
            assert_int_equal(rc, CHT_GONE); /* too slow */
            assert_true(r.kept <= (k == 0 ? 0 : keeps[k]));
            assert_true(k == 0 || r.kept > 0);
        }
        cht_changes_close(slow);
        for (unsigned i = 0; i < 3;
             i++) { /* a clean restart keeps what was kept, and not more files each time */
            must(cht_env_close(env, &err), &err);
            uint64_t findings = 0;
            must(cht_check(&cfg, NULL, NULL, NULL, &findings, &err), &err);
            assert_int_equal(findings, 0);
            s = open_store(&cfg, &env);
            struct cht_changes_range again = range_of(s);
            assert_int_equal(again.newest, r.newest);
            assert_true(again.oldest >= r.oldest);
            assert_true(k < 2 || again.oldest == start);
            assert_true(again.kept <= (k == 0 ? 0 : keeps[k]));
        }
        fill_log(s, 1);
        assert_int_equal(open_at(s, r.newest), CHT_OK);
        assert_int_equal(range_of(s).newest, r.newest + 1);
        must(cht_env_close(env, &err), &err);
        simdisk_free(d);
    }
}

/* Numbers of an old life are none of the new one's. */
static void test_lives(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    simdisk_forget(d);
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_err err = {0};
    struct cht_store *s = open_store(&cfg, &env);
    uint64_t start = begin(s);
    fill_log(s, 20);
    struct cht_backup *b = NULL;
    must(cht_backup_open(s, &b, &err), &err);
    struct cht_restore *res = NULL;
    must(cht_restore_new(env, "copy", &res, &err), &err);
    uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
    for (size_t n = 1; n > 0;) {
        must(cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &n, &err), &err);
        if (n > 0)
            must(cht_restore_feed(res, buf, n, &err), &err);
    }
    free(buf);
    must(cht_restore_finish(res, &err), &err);
    cht_restore_free(res);
    cht_backup_close(b);
    uint64_t newest = range_of(s).newest;
    struct cht_store *copy = NULL;
    must(cht_env_get(env, "copy", &copy, &err), &err);
    assert_int_equal(range_of(copy).newest, 0);
    for (uint64_t n = start; n <= newest; n++)
        assert_int_equal(open_at(copy, n), CHT_GONE);
    assert_true(range_of(copy).oldest > newest);
    must(cht_env_drop(env, "default", &err), &err);
    must(cht_env_create(env, "default", 0, &err), &err);
    must(cht_env_get(env, "default", &s, &err), &err);
    for (uint64_t n = start; n <= newest; n++)
        assert_int_equal(open_at(s, n), CHT_GONE);
    assert_true(range_of(s).oldest > newest);
    must(cht_env_close(env, &err), &err);
    simdisk_free(d);
}

struct headers {
    char name[64][32];
    unsigned n;
};

static void note_header(void *ctx, const char *name, enum cht_io_kind kind)
{
    struct headers *h = ctx;
    if (kind != CHT_IO_FOLDER && h->n < 64)
        (void)snprintf(h->name[h->n++], sizeof h->name[0], "%.31s", name);
}

/* What a program that knows nothing of changes leaves in a header. */
static void clear_header(struct cht_io *io, const char *name)
{
    char path[400];
    uint8_t head[CHT_WAL_HEAD];
    struct cht_file *file = NULL;
    struct cht_err err = {0};
    (void)snprintf(path, sizeof path, "/a/default/log/%.200s", name);
    must(cht_io_open(io, path, 0, &file, &err), &err);
    must(cht_file_read(file, head, sizeof head, 0, &err), &err);
    cht_wal_forget_changes(head);
    must(cht_file_write(file, head, sizeof head, 0, &err), &err);
    cht_file_close(file);
}

/* A program that knows nothing of changes has written to the database: nothing before that is told. */
static void test_older_program(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    simdisk_forget(d);
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_err err = {0};
    struct cht_store *s = open_store(&cfg, &env);
    uint64_t start = begin(s);
    fill_log(s, 40);
    must(cht_env_close(env, &err), &err);
    struct cht_io *io = simdisk_io(d);
    struct headers h = {.n = 0};
    must(io->ops->list(io, "/a/default/log", note_header, &h, &err), &err);
    assert_true(h.n > 1);
    for (unsigned i = 0; i < h.n; i++)
        clear_header(io, h.name[i]);
    s = open_store(&cfg, &env);
    assert_int_equal(range_of(s).newest, 0);
    assert_int_equal(open_at(s, start + 40), CHT_GONE);
    assert_true(range_of(s).oldest > start + 40);
    assert_int_equal(open_at(s, start), CHT_GONE);
    uint64_t again = range_of(s).newest;
    fill_log(s, 1);
    told(s, "", again, "1:set:filler:1");
    must(cht_env_close(env, &err), &err);
    uint64_t findings = 0;
    must(cht_check(&cfg, NULL, NULL, NULL, &findings, &err), &err);
    assert_int_equal(findings, 0);
    simdisk_free(d);
}

struct first_log {
    char name[300];
};

static void first_name(void *ctx, const char *name, enum cht_io_kind kind)
{
    struct first_log *f = ctx;
    if (kind != CHT_IO_FOLDER && (f->name[0] == 0 || strcmp(name, f->name) < 0))
        (void)snprintf(f->name, sizeof f->name, "%.200s", name);
}

/* The oldest segment is missing, or damaged: what comes after it is told. */
static void test_damage(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        struct simdisk *d = simdisk_new();
        simdisk_forget(d);
        struct cht_env_config cfg = config(d);
        struct cht_env *env;
        struct cht_err err = {0};
        struct cht_store *s = open_store(&cfg, &env);
        uint64_t start = begin(s);
        fill_log(s, 100);
        must(cht_store_checkpoint(s, &err), &err);
        must(cht_store_checkpoint(s, &err), &err);
        struct first_log f = {""};
        struct cht_io *io = simdisk_io(d);
        must(io->ops->list(io, "/a/default/log", first_name, &f, &err), &err);
        char path[400];
        (void)snprintf(path, sizeof path, "/a/default/log/%s", f.name);
        struct cht_file *file = NULL;
        must(cht_io_open(io, path, 0, &file, &err), &err);
        if (k == 1) { /* bytes in the middle of the oldest segment that names what changes */
            static uint8_t junk[4096];
            must(cht_file_write(file, junk, sizeof junk, 30000, &err), &err);
        }
        cht_file_close(file);
        uint64_t n = 0;
        if (k == 0)
            must(io->ops->unlink(io, path, &err), &err);
        if (k == 2) { /* an I/O error passes, and nothing is skipped */
            struct cht_changes *c = NULL;
            must(cht_changes_open(s, text(""), start, &c, &err), &err);
            struct sim_plan plan = {
                .sys = 5, .first = 1, .times = 1, .calls = 1u << SIM_PREAD, .path = "/log/"};
            simdisk_plan(d, &plan);
            assert_int_equal(cht_changes_next(c, count_line, &n, &err), CHT_IO);
            simdisk_plan(d, NULL);
            enum cht_rc rc;
            while ((rc = cht_changes_next(c, count_line, &n, &err)) == CHT_OK)
                ;
            assert_int_equal(rc, CHT_PENDING);
            assert_int_equal(n, 100);
            cht_changes_close(c);
        } else {
            struct cht_changes *c = NULL;
            must(cht_changes_open(s, text(""), start, &c, &err), &err);
            enum cht_rc rc;
            while ((rc = cht_changes_next(c, count_line, &n, &err)) == CHT_OK)
                ;
            assert_int_equal(rc, CHT_GONE);
            cht_changes_close(c);
            assert_int_equal(open_at(s, start), CHT_GONE);
            struct cht_changes_range r = range_of(s);
            assert_true(r.oldest > start && r.oldest < r.newest);
            must(cht_changes_open(s, text(""), r.oldest, &c, &err), &err);
            n = 0;
            while ((rc = cht_changes_next(c, count_line, &n, &err)) == CHT_OK)
                ;
            assert_int_equal(rc, CHT_PENDING);
            assert_int_equal(n, r.newest - r.oldest);
            cht_changes_close(c);
        }
        must(cht_env_close(env, &err), &err);
        simdisk_free(d);
    }
}

/* What is kept never stands in the way of a write. */
static void test_full(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    simdisk_forget(d);
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_err err = {0};
    struct cht_store *s = open_store(&cfg, &env);
    uint64_t start = begin(s);
    fill_log(s, 300);
    must(cht_store_checkpoint(s, &err), &err);
    must(cht_store_checkpoint(s, &err), &err);
    assert_int_equal(range_of(s).oldest, start);
    assert_true(range_of(s).kept > 10u << 16);
    simdisk_capacity(d, simdisk_used(d) + (1u << 16));
    static uint8_t v[4000];
    for (unsigned i = 0; i < 400; i++) {
        enum cht_rc rc = put(s, "filler", v, sizeof v);
        if (rc == CHT_DISK_FULL) { /* of a checkpoint that nothing asked for */
            must(cht_store_checkpoint(s, &err), &err);
            rc = put(s, "filler", v, sizeof v);
        }
        if (rc != CHT_OK)
            fail_msg("write %u: %s", i, cht_rc_slug(rc));
        if (i % 20 == 19)
            must(cht_store_checkpoint(s, &err), &err);
    }
    assert_true(range_of(s).oldest > start);
    assert_int_equal(range_of(s).newest, start + 700);
    simdisk_capacity(d, 0);
    must(cht_env_close(env, &err), &err);
    simdisk_free(d);
}

/* ... nor of a write to another database: no write is refused as long as anything is kept, whether the log has no room for it or the pages. */
static void test_full_of_others(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3; round++) { /* the log; pages, by single commits; by atomic ones */
        struct simdisk *d = simdisk_new();
        simdisk_forget(d);
        struct cht_env_config cfg = config(d);
        struct cht_env *env;
        struct cht_err err = {0};
        struct cht_store *s = open_store(&cfg, &env), *other;
        (void)begin(s);
        fill_log(s, 300);
        must(cht_store_checkpoint(s, &err), &err);
        must(cht_store_checkpoint(s, &err), &err);
        must(cht_env_create(env, "other", 0, &err), &err);
        must(cht_env_get(env, "other", &other, &err), &err);
        static uint8_t v[4000];
        must(put(other, "first", v, sizeof v), &err);
        must(cht_store_checkpoint(other, &err), &err);
        uint64_t kept = range_of(s).kept;
        assert_true(kept > 10u << 16);
        simdisk_capacity(d, simdisk_used(d) + (1u << 17));
        unsigned i = 0;
        for (; range_of(s).kept > 0 && i < 2000; i++) {
            char name[2][24];
            for (unsigned k = 0; k < 2; k++)
                (void)snprintf(name[k], sizeof name[k], round == 0 ? "filler" : "name:%u:%u", i, k);
            struct cht_op ops[2] = {{.kind = CHT_OP_PAIR_PUT, .name = text(name[0]), .value = {v, sizeof v}},
                                    {.kind = CHT_OP_PAIR_PUT, .name = text(name[1]), .value = {v, sizeof v}}};
            struct cht_commit c = {.ops = ops, .count = 2, .flags = round == 2 ? CHT_COMMIT_ATOMIC : 0};
            if (cht_store_commit(other, &c) != CHT_OK || ops[0].rc != CHT_OK || ops[1].rc != CHT_OK)
                fail_msg("round %u, write %u: %s, %s, %s; %s", round, i, cht_rc_slug(c.rc),
                         cht_rc_slug(ops[0].rc), cht_rc_slug(ops[1].rc), c.err.msg);
        }
        assert_int_equal(range_of(s).kept, 0);
        assert_true(i > 0);
        simdisk_capacity(d, 0);
        must(cht_env_close(env, &err), &err);
        simdisk_free(d);
    }
}

/* Pages find no room once, when much is kept: that goes, and the operation, or the atomic commit, is run again. */
static void test_full_pages(void **state)
{
    (void)state;
    for (unsigned atomic = 0; atomic < 2; atomic++) {
        struct simdisk *d = simdisk_new();
        simdisk_forget(d);
        struct cht_env_config cfg = config(d);
        struct cht_env *env;
        struct cht_err err = {0};
        struct cht_store *s = open_store(&cfg, &env);
        (void)begin(s);
        fill_log(s, 300);
        must(cht_store_checkpoint(s, &err), &err);
        must(cht_store_checkpoint(s, &err), &err);
        assert_true(range_of(s).kept > 10u << 16);
        static uint8_t v[60000];
        struct sim_plan plan = {
            .sys = 28, .first = 1, .times = UINT64_MAX, .calls = 1u << SIM_ALLOCATE, .path = "/values"};
        unsigned i = 0;
        for (simdisk_plan(d, &plan); range_of(s).kept > 0 && i < 100; i++) {
            char name[2][24];
            (void)snprintf(name[0], sizeof name[0], "a:%u", i);
            (void)snprintf(name[1], sizeof name[1], "b:%u", i);
            struct cht_op ops[2] = {{.kind = CHT_OP_PAIR_PUT, .name = text(name[0]), .value = {v, sizeof v}},
                                    {.kind = CHT_OP_PAIR_PUT, .name = text(name[1]), .value = {v, sizeof v}}};
            struct cht_commit c = {.ops = ops, .count = 2, .flags = atomic ? CHT_COMMIT_ATOMIC : 0};
            plan.times = range_of(s).kept > 0 ? 1 : 0;
            simdisk_plan(d, &plan);
            if (cht_store_commit(s, &c) != CHT_OK || ops[0].rc != CHT_OK || ops[1].rc != CHT_OK)
                fail_msg("write %u: %s, %s, %s; %s", i, cht_rc_slug(c.rc), cht_rc_slug(ops[0].rc),
                         cht_rc_slug(ops[1].rc), c.err.msg);
        }
        simdisk_plan(d, NULL);
        assert_int_equal(range_of(s).kept, 0);
        for (unsigned k = 0; k < i; k++) {
            char name[24];
            (void)snprintf(name, sizeof name, "b:%u", k);
            struct cht_pair_value pv = {0};
            must(cht_store_pair_value_soon(s, text(name), &pv, NULL, &err), &err);
            assert_int_equal(pv.size, sizeof v);
        }
        must(cht_env_close(env, &err), &err);
        simdisk_free(d);
    }
}

/* The first one writes to the log: where that fails nothing has changed. */
static void test_first(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    simdisk_forget(d);
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_err err = {0};
    struct cht_store *s = open_store(&cfg, &env);
    fill_log(s, 3);
    struct sim_plan plan = {
        .sys = 24, .first = 1, .times = UINT64_MAX, .calls = 1u << SIM_OPEN, .path = "/log/"}; /* EMFILE */
    simdisk_plan(d, &plan);
    assert_int_equal(open_at(s, CHT_CHANGES_NOW), CHT_NO_DESCRIPTORS);
    simdisk_plan(d, NULL);
    assert_int_equal(range_of(s).newest, 0);
    fill_log(s, 3);
    cht_alloc_fail_at(1, false);
    assert_int_equal(open_at(s, CHT_CHANGES_NOW), CHT_NO_MEMORY);
    cht_alloc_fail_at(0, false);
    uint64_t start = begin(s);
    fill_log(s, 1);
    told(s, "", start, "1:set:filler:1");
    must(cht_env_close(env, &err), &err);
    simdisk_free(d);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

struct waiting {
    struct cht_wait w;
    _Atomic unsigned calls;
};

static void on_done(struct cht_wait *w)
{
    struct waiting *x = w->ctx;
    atomic_fetch_add(&x->calls, 1);
}

static void *write_some(void *arg)
{
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(put(arg, "w", "v", 1), CHT_OK);
    return NULL;
}

static void test_waiting(void **state)
{
    (void)state;
    static const enum cht_durability modes[] = {CHT_DURABLE_SYNC, CHT_DURABLE_INTERVAL, CHT_DURABLE_OS};
    for (unsigned k = 0; k < 3; k++) {
        struct simdisk *d = simdisk_new();
        simdisk_forget(d);
        struct cht_env_config cfg = config(d);
        struct cht_env *env;
        struct cht_err err = {0};
        cfg.durability = modes[k];
        cfg.interval_ms = 2;
        struct cht_store *s = open_store(&cfg, &env);
        struct cht_changes *c = NULL, *other = NULL;
        struct waiting w = {.w.done = on_done}, w2 = {.w.done = on_done};
        w.w.ctx = &w;
        w2.w.ctx = &w2;
        must(cht_changes_open(s, text(""), CHT_CHANGES_NOW, &c, &err), &err);
        must(cht_changes_open(s, text("q"), CHT_CHANGES_NOW, &other, &err), &err);
        assert_int_equal(cht_changes_await(c, &w.w), CHT_PENDING);
        assert_int_equal(cht_changes_await(other, &w2.w), CHT_PENDING);
        cht_changes_forget(other);
        struct cht_thread t;
        uint64_t n = 0;
        must(cht_thread_start(&t, "writer", write_some, s, &err), &err);
        for (unsigned asked = 1; n < 300;) {
            while (atomic_load(&w.calls) < asked)
                cht_sleep_ns(100000);
            assert_int_equal(atomic_load(&w.calls), asked);
            enum cht_rc rc;
            do {
                while ((rc = cht_changes_next(c, count_line, &n, &err)) == CHT_OK)
                    ;
                assert_int_equal(rc, CHT_PENDING);
                rc = n < 300 ? cht_changes_await(c, &w.w) : CHT_PENDING;
            } while (rc == CHT_OK);
            asked++;
        }
        cht_thread_join(&t);
        assert_int_equal(n, 300);
        assert_int_equal(atomic_load(&w2.calls), 0);
        cht_changes_close(c);
        cht_changes_close(other);
        assert_int_equal(range_of(s).followers, 0);
        must(cht_env_close(env, &err), &err);
        simdisk_free(d);
    }
}

/* Nobody asks: not a byte of it is on the disk. */
static void test_unused(void **state)
{
    (void)state;
    struct simdisk *d = simdisk_new();
    simdisk_forget(d);
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_err err = {0};
    struct cht_store *s = open_store(&cfg, &env);
    struct cht_store_stats before, after;
    fill_log(s, 5);
    must(cht_store_stats(s, &before, &err), &err);
    assert_int_equal(put(s, "filler", "12345678", 8), CHT_OK);
    must(cht_store_stats(s, &after, &err), &err);
    assert_int_equal(after.log_live - before.log_live, 32 + 24); /* the record's head; 11 + 8 bytes, padded */
    (void)begin(s);
    must(cht_store_stats(s, &before, &err), &err);
    assert_int_equal(put(s, "filler", "12345678", 8), CHT_OK);
    must(cht_store_stats(s, &after, &err), &err);
    assert_int_equal(after.log_live - before.log_live, 32 + 40); /* and 9 + 6 */
    must(cht_env_close(env, &err), &err);
    simdisk_free(d);
}

/* Of a database that keeps them from the start all is told that ever happened, also after it was opened again; one that was written to before
 * somebody asked has no beginning. */
static void test_from_the_beginning(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 4; k++) { /* 1: closed in between, 2: before the first write, 3: not asked for */
        struct simdisk *d = simdisk_new();
        simdisk_forget(d);
        struct cht_env_config cfg = config(d);
        struct cht_env *env;
        struct cht_err err = {0};
        cfg.changes = k != 3;
        struct cht_store *s = open_store(&cfg, &env);
        if (k == 2) {
            must(cht_env_close(env, &err), &err);
            s = open_store(&cfg, &env);
        }
        if (k != 3)
            assert_int_equal(open_at(s, CHT_CHANGES_BEGIN), CHT_OK);
        struct cht_changes_range empty = range_of(s);
        assert_int_equal(empty.oldest, empty.newest);
        assert_int_equal(empty.whole, k != 3);
        fill_log(s, 5);
        if (k == 1) {
            must(cht_env_close(env, &err), &err);
            s = open_store(&cfg, &env);
        }
        assert_int_equal(open_at(s, CHT_CHANGES_BEGIN), k == 3 ? CHT_GONE : CHT_OK);
        struct cht_changes *c;
        uint64_t n = 0;
        must(cht_changes_open(s, text("f"), CHT_CHANGES_OLDEST, &c, &err), &err);
        enum cht_rc rc = CHT_OK;
        while (rc == CHT_OK)
            rc = cht_changes_next(c, count_line, &n, &err);
        assert_int_equal(rc, CHT_PENDING);
        assert_int_equal(n, k == 3 ? 0 : 5);
        assert_int_equal(cht_changes_position(c), range_of(s).newest);
        cht_changes_close(c);
        must(cht_env_close(env, &err), &err);
        simdisk_free(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_model),
        cmocka_unit_test(test_cuts),          cmocka_unit_test(test_gone),
        cmocka_unit_test(test_lives),         cmocka_unit_test(test_damage),
        cmocka_unit_test(test_full),          cmocka_unit_test(test_full_of_others),
        cmocka_unit_test(test_full_pages),    cmocka_unit_test(test_first),
        cmocka_unit_test(test_large_commit),  cmocka_unit_test(test_unused),
        cmocka_unit_test(test_waiting),       cmocka_unit_test(test_from_the_beginning),
        cmocka_unit_test(test_older_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
