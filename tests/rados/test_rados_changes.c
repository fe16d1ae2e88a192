/* test_rados_changes: what followers are told over RADOS (cheetah/changes.h, src/store/rados/cut.h): who applies it has what the database has, whichever
 * servers wrote, in an order that no reader could tell from the commits'. Two servers, two connections of one process; servers that end are
 * processes of their own. Needs CHT_RADOS_CONF (run.sh).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/changes.h"
#include "cheetah/scan.h"
#include "os/thread.h"
#include "store/rados/cut.h"
#include "store/rados/ends.h"
#include "store/rados/follow.h"
#include "store/rados/pages.h"
#include "store/rados/split.h"

#include "rados/support/two.h" /* last: its names are short */

#define NAMES 60u
#define TEXT 16u

/* The thread that is about to take the step hold_at waits there, until it is let go. */
static const char *_Atomic hold_at;
static _Atomic bool held, let_go;
static _Atomic unsigned backs, asked; /* locks that were given back; cuts that were asked for */

static struct cht_rdb *_Atomic closes; /* after the first page that is trimmed */
static void step(const char *what)
{
    two_stop(what);
    struct cht_rdb *db = atomic_load(&closes);
    if (db != NULL && strcmp(what, "trim-shard") == 0)
        atomic_store(&db->closing, true);
    atomic_fetch_add(&backs, strcmp(what, "unlock") == 0);
    atomic_fetch_add(&asked, strcmp(what, "cut-ask") == 0);
    const char *at = atomic_load(&hold_at);
    if (at == NULL || strcmp(what, at) != 0 || !atomic_compare_exchange_strong(&hold_at, &at, NULL))
        return;
    atomic_store(&held, true);
    while (!atomic_load(&let_go))
        cht_sleep_ns(UINT64_C(1000000));
}

static void hold_one(const char *at)
{
    atomic_store(&held, false);
    atomic_store(&let_go, false);
    atomic_store(&backs, 0);
    atomic_store(&asked, 0);
    atomic_store(&hold_at, at);
}

static void wait_until_held(void)
{
    while (!atomic_load(&held))
        cht_sleep_ns(UINT64_C(1000000));
}

static void wait_for(const _Atomic unsigned *n, unsigned wanted)
{
    uint64_t end = cht_now_ns() + UINT64_C(60000000000);
    while (atomic_load(n) < wanted && cht_now_ns() < end)
        cht_sleep_ns(UINT64_C(1000000));
    if (atomic_load(n) < wanted)
        atomic_store(&let_go, true); /* a test that fails does not hang */
    assert_true(atomic_load(n) >= wanted);
}

static void open_both(uint64_t bytes)
{
    struct cht_rados_config cfg = two_config();
    cfg.settle_ms = 300;
    cfg.changes_bytes = bytes;
    at_step = step;
    two_open(cfg, 3);
    two_join();
}

static int setup(void **state)
{
    (void)state;
    two_new_name('c');
    open_both(0);
    return 0;
}

static uint64_t findings;
static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_error("%s: %s\n", where, what);
    findings++;
}

static int teardown(void **state)
{
    (void)state;
    struct cht_rados_config cfg = two_config();
    struct cht_rados_check check = {.database = name, .finding = finding};
    findings = 0;
    must(cht_rados_check(&cfg, &check, &err));
    two_close();
    return findings > 0;
}

static uint64_t put(struct cht_store *s, const char *pair, const char *value)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(pair), .value = str(value)};
    must(run(s, &op, 1, 0));
    return op.key;
}

/* ---- a mirror ------------------------------------------------------------------------------------------------------- */

struct mirror {
    char prefix[TEXT];
    uint64_t after;
    unsigned enough; /* changes of one call; 0: all */
    struct pair {
        char name[TEXT];
        uint64_t key;
    } pairs[4 * NAMES];
    unsigned n, told, got;
};

static void forget_pair(struct mirror *m, struct cht_str pair, bool below)
{
    for (unsigned i = 0; i < m->n;) {
        size_t n = strlen(m->pairs[i].name);
        bool same = n >= pair.n && memcmp(m->pairs[i].name, pair.p, pair.n) == 0 && (below || n == pair.n);
        if (same)
            m->pairs[i] = m->pairs[--m->n];
        else
            i++;
    }
}

static bool apply(void *ctx, const struct cht_change *c)
{
    struct mirror *m = ctx;
    assert_true(c->number >= m->after);
    m->after = c->number;
    m->told++;
    if (c->kind <= CHT_CHANGE_PREFIX_DEL) {
        assert_true(c->name.n >= strlen(m->prefix) && memcmp(c->name.p, m->prefix, strlen(m->prefix)) == 0);
        forget_pair(m, c->name, c->kind == CHT_CHANGE_PREFIX_DEL);
    } else {
        assert_int_equal(strlen(m->prefix), 0);
    }
    if (c->kind == CHT_CHANGE_PAIR_SET) {
        struct pair *p = &m->pairs[m->n++];
        assert_true(m->n <= 4 * NAMES && c->name.n < TEXT);
        *p = (struct pair){.key = c->key};
        memcpy(p->name, c->name.p, c->name.n);
    }
    return ++m->got != m->enough;
}

static void catch_up(struct mirror *m, struct cht_store *s)
{
    struct cht_changes *c;
    must(cht_changes_open(s, str(m->prefix), m->after, &c, &err));
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK) {
        m->got = 0;
        rc = cht_changes_next(c, apply, m, &err);
        assert_true(cht_changes_position(c) >= m->after);
    }
    assert_int_equal(rc, CHT_PENDING);
    m->after = cht_changes_position(c);
    cht_changes_close(c);
}

static uint64_t newest_of(struct cht_store *s)
{
    struct cht_changes *c;
    must(cht_changes_open(s, str(""), CHT_CHANGES_NOW, &c, &err));
    uint64_t now = cht_changes_position(c);
    cht_changes_close(c);
    return now;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pair *)a)->name, ((const struct pair *)b)->name);
}

/* The pairs that there are, as a mirror that was made now. */
static void read_all(struct mirror *m, struct cht_store *s)
{
    struct cht_scan *scan;
    struct cht_entry e[64];
    size_t got = 1;
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = str(m->prefix)};
    must(cht_scan_open(s, &cfg, &scan, &err));
    m->n = 0;
    while (got > 0) {
        must(cht_scan_next(scan, e, 64, &got, &err));
        for (size_t i = 0; i < got; i++) {
            struct pair *p = &m->pairs[m->n++];
            *p = (struct pair){.key = e[i].key};
            memcpy(p->name, e[i].name, e[i].name_len);
        }
    }
    cht_scan_close(scan);
}

static void begin(struct mirror *m, struct cht_store *s, const char *prefix)
{
    *m = (struct mirror){.after = newest_of(s)};
    (void)snprintf(m->prefix, sizeof m->prefix, "%s", prefix);
    read_all(m, s);
}

static void compare(struct mirror *m, struct cht_store *s)
{
    static struct mirror now;
    memcpy(now.prefix, m->prefix, sizeof now.prefix);
    read_all(&now, s);
    qsort(m->pairs, m->n, sizeof *m->pairs, by_name);
    if (m->n != now.n)
        print_error("%u pairs, and the mirror has %u\n", now.n, m->n);
    for (unsigned i = 0; i < m->n && i < now.n; i++) {
        if (strcmp(m->pairs[i].name, now.pairs[i].name) != 0 || m->pairs[i].key != now.pairs[i].key)
            fail_msg("%s -> %llu, and the mirror has %s -> %llu", now.pairs[i].name,
                     (unsigned long long)now.pairs[i].key, m->pairs[i].name,
                     (unsigned long long)m->pairs[i].key);
    }
    assert_int_equal(m->n, now.n);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

static void take_length(void *ctx, struct cht_str row, struct cht_str value)
{
    (void)row;
    *(size_t *)ctx = value.n;
}

static size_t size_of_epoch(void)
{
    const char *row = "E";
    size_t len = 1, n = 0;
    assert_int_equal(
        cht_link_rows(cht_rdb(one)->io, "s.1", &(struct cht_rows_wanted){&row, &len, 1}, take_length, &n), 0);
    return n;
}

static size_t rows_of(struct cht_store *s, const char *kind)
{
    size_t n = 0;
    const struct cht_map *m = cht_rdb_map(cht_rdb(s));
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX; i = cht_map_next(m, i + 1)) {
        struct cht_page page;
        must(cht_page_raw(cht_rdb(s), &(struct cht_raw_wanted){i, "", kind, CHT_PAGE_ROWS_MAX}, &page, &err));
        n += page.n;
        cht_page_free(&page);
    }
    return n;
}

/* As long as nobody asks there is nothing more than before; CH7. */
static void test_nobody_asks(void **state)
{
    (void)state;
    put(one, "a", "1");
    put(two, "b", "1");
    struct cht_changes_range r;
    must(cht_changes_range(one, &r, &err));
    assert_int_equal(r.newest, 0);
    assert_int_equal(size_of_epoch(), 12);
    assert_int_equal(rows_of(one, "L"), 0);
    assert_int_equal(atomic_load(&cht_rdb(one)->format), CHT_RDB_FORMAT);
    uint64_t now = newest_of(one);
    assert_int_equal(size_of_epoch(), 20);
    assert_int_equal(atomic_load(&cht_rdb(one)->format), CHT_RDB_FORMAT_CHANGES);
    assert_int_equal(newest_of(one), now); /* nothing has changed */
    assert_int_equal(newest_of(two), now);
    must(cht_changes_range(two, &r, &err));
    assert_int_equal(r.newest, now);
    assert_int_equal(r.oldest, now);
    struct cht_changes *c;
    assert_int_equal(cht_changes_open(one, str(""), CHT_CHANGES_BEGIN, &c, &err), CHT_GONE);
    assert_int_equal(cht_changes_open(one, str(""), now - 1, &c, &err), CHT_GONE);
    assert_int_equal(cht_changes_open(one, str(""), now + 1, &c, &err), CHT_GONE);
    put(two, "b", "2");
    assert_int_equal(rows_of(one, "L"), 1);
    assert_int_equal(newest_of(one), now + 1);
}

struct lines {
    char text[600];
};

static bool add_line(void *ctx, const struct cht_change *c)
{
    struct lines *l = ctx;
    static const char *const kinds[] = {"set", "del", "prefix", "value", "gone"};
    size_t n = strlen(l->text);
    (void)snprintf(l->text + n, sizeof l->text - n, "%s:%.*s:%llu ", kinds[c->kind], (int)c->name.n,
                   c->name.n > 0 ? (const char *)c->name.p : "", (unsigned long long)c->key);
    return true;
}

static uint64_t since;
/* What was told since the last time, in this order of names. */
static void told(struct cht_store *s, const char *prefix, const char *wanted)
{
    struct cht_changes *c;
    struct lines l = {""};
    enum cht_rc rc = CHT_OK;
    must(cht_changes_open(s, str(prefix), since, &c, &err));
    while (rc == CHT_OK)
        rc = cht_changes_next(c, add_line, &l, &err);
    assert_int_equal(rc, CHT_PENDING);
    cht_changes_close(c);
    assert_string_equal(l.text, wanted);
}

static void test_kinds(void **state)
{
    (void)state;
    char text[200];
    since = newest_of(two);
    struct cht_op op = {.kind = CHT_OP_INSERT, .value = str("v")};
    must(run(one, &op, 1, 0));
    uint64_t key = op.key;
    (void)snprintf(text, sizeof text, "value::%llu ", (unsigned long long)key);
    told(two, "", text);
    told(two, "a", "");
    since = newest_of(two);
    op = (struct cht_op){.kind = CHT_OP_EDIT, .key = key, .value = str("w")};
    must(run(two, &op, 1, 0));
    told(one, "", text);
    since = newest_of(two);
    op = (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str("a:map"), .key = key};
    must(run(two, &op, 1, 0));
    (void)snprintf(text, sizeof text, "set:a:map:%llu ", (unsigned long long)key);
    told(one, "a:", text);
    told(one, "", text);
    since = newest_of(two);
    put(one, "a:map", "x"); /* its value lies under the key */
    told(two, "", text);
    since = newest_of(two);
    must(run(two, &op, 1, 0)); /* mapped again, to the same */
    told(one, "", text);
    since = newest_of(two);
    uint64_t mine = put(one, "a:put", "x");
    put(two, "a:put", "y");
    (void)snprintf(text, sizeof text, "set:a:put:%llu ", (unsigned long long)mine);
    told(one, "", text); /* once */
    since = newest_of(two);
    op = (struct cht_op){.kind = CHT_OP_EDIT, .key = mine, .value = str("by key")}; /* in the name's row */
    must(run(two, &op, 1, 0));
    told(one, "a:", "");
    (void)snprintf(text, sizeof text, "value::%llu ", (unsigned long long)mine);
    told(one, "", text);
    since = newest_of(two);
    op = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = str("a:put"), .with_values = true};
    must(run(two, &op, 1, 0));
    told(one, "a", "del:a:put:0 ");
    (void)snprintf(text, sizeof text, "del:a:put:0 gone::%llu ", (unsigned long long)mine);
    told(one, "", text);
    since = newest_of(two);
    op = (struct cht_op){.kind = CHT_OP_PREFIX_DEL, .name = str("a:")};
    must(run(two, &op, 1, 0));
    told(one, "a:", "del:a:map:0 ");
    since = newest_of(two);
    op = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = str("a:map")};
    assert_int_equal(run(two, &op, 1, 0), CHT_PAIR_NOT_FOUND);
    op = (struct cht_op){.kind = CHT_OP_PAIR_READ, .name = str("a:map")};
    assert_int_equal(run(two, &op, 1, 0), CHT_PAIR_NOT_FOUND);
    told(one, "", "");
    assert_int_equal(newest_of(one), since); /* nothing has changed: no generation */
    op = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str("a:short"), .value = str("x"), .ttl_ms = 1};
    must(run(two, &op, 1, 0));
    since = newest_of(two);
    cht_sleep_ns(UINT64_C(5000000));
    uint64_t removed;
    must(cht_ends_purge(cht_rdb(one), &removed, &err));
    told(one, "a", "del:a:short:0 ");
}

static char op_names[32][TEXT];

/* Of all kinds, of both servers. */
static void change_something(struct cht_rng *r)
{
    struct cht_op ops[32];
    struct cht_store *s = cht_rng_below(r, 2) == 0 ? one : two;
    static const char *const prefixes[] = {"a", "ab:1", "b:2", "ab:"};
    unsigned n = cht_rng_below(r, 4) == 0 ? 1 + (unsigned)cht_rng_below(r, 31) : 1;
    for (unsigned i = 0; i < n; i++) {
        unsigned kind = (unsigned)cht_rng_below(r, 10), which = (unsigned)cht_rng_below(r, 3);
        (void)snprintf(op_names[i], TEXT, "%s:%u",
                       which == 0   ? "a"
                       : which == 1 ? "ab"
                                    : "b",
                       (unsigned)cht_rng_below(r, NAMES / 2));
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(op_names[i]), .value = str("v")};
        if (kind == 5 || kind == 6) {
            ops[i].kind = CHT_OP_PAIR_SET;
            ops[i].key = 1 + cht_rng_below(r, 50);
        } else if (kind >= 7) {
            ops[i].kind = CHT_OP_PAIR_DEL;
            ops[i].with_values = kind == 8;
        }
        if (kind == 9 && cht_rng_below(r, 5) == 0) {
            ops[i].kind = CHT_OP_PREFIX_DEL;
            ops[i].name = str(prefixes[cht_rng_below(r, 4)]);
        }
    }
    struct cht_commit c = {.ops = ops, .count = n};
    static const unsigned flags[] = {0, CHT_COMMIT_ATOMIC, CHT_COMMIT_UNORDERED};
    c.flags = flags[cht_rng_below(r, 3)];
    enum cht_rc rc = cht_store_commit(s, &c);
    if (rc != CHT_OK && rc != CHT_BATCH_FAILED)
        fail_msg("%s: %s", cht_rc_slug(rc), c.err.msg);
}

/* CH1 to CH5, by one thread: mirrors of several prefixes, of either server, wherever they stopped, while shards are divided. */
static void test_mirrors(void **state)
{
    (void)state;
    static struct mirror m[4];
    struct cht_rng r;
    uint64_t steps = getenv("CHT_TEST_LONG") != NULL ? 5000 : 300;
    cht_rng_seed(&r, 11);
    for (unsigned i = 0; i < 40; i++)
        change_something(&r);
    begin(&m[0], one, "");
    begin(&m[1], two, "a");
    begin(&m[2], one, "ab:");
    begin(&m[3], two, "");
    m[3].enough = 3;
    for (uint64_t i = 0; i < steps; i++) {
        change_something(&r);
        if (i % 9 == 0)
            catch_up(&m[cht_rng_below(&r, 4)], cht_rng_below(&r, 2) == 0 ? one : two);
        if (i % 100 == 50 && i < 1000)
            must(cht_split(cht_rdb(two), (unsigned)(i / 100) % 4, &err));
        if (i % 70 == 0) {
            for (unsigned k = 0; k < 4; k++) {
                catch_up(&m[k], k % 2 == 0 ? one : two);
                compare(&m[k], k % 2 == 0 ? two : one);
            }
        }
    }
    for (unsigned k = 0; k < 4; k++) {
        catch_up(&m[k], one);
        compare(&m[k], two);
    }
    print_message("%u changes told, %u shards\n", m[0].told, cht_rdb_map(cht_rdb(two))->shards);
}

/* ---- the order ------------------------------------------------------------------------------------------------------ */

static _Atomic bool over;
static _Atomic unsigned written;
static const char *_Atomic broken; /* what a writer could not do */

static void *cannot(const char *what)
{
    atomic_store(&broken, what);
    return NULL;
}

/* Each pair of names is put one after the other, by one server and the other; and two together. */
static void *write_pairs(void *arg)
{
    unsigned base = arg != NULL ? 1000 : 0;
    for (unsigned i = 0; !atomic_load(&over); i++) {
        char text[4][TEXT];
        static const char *const kinds[] = {"first", "second", "left", "right"};
        for (unsigned k = 0; k < 4; k++)
            (void)snprintf(text[k], TEXT, "%s:%u", kinds[k], base + i % 500);
        struct cht_op op[2] = {{.kind = CHT_OP_PAIR_SET, .name = str(text[0]), .key = i + 1}};
        if (run(one, op, 1, 0) != CHT_OK)
            return cannot("first");
        op[0].name = str(text[1]);
        if (run(two, op, 1, 0) != CHT_OK)
            return cannot("second");
        op[0] = (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str(text[2]), .key = i + 1};
        op[1] = (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str(text[3]), .key = i + 1};
        if (run(arg != NULL ? one : two, op, 2, CHT_COMMIT_ATOMIC) != CHT_OK)
            return cannot("both");
        atomic_fetch_add(&written, 1);
    }
    return NULL;
}

struct order {
    uint64_t last[4][2000];
    uint64_t groups, told;
};

static bool take_order(void *ctx, const struct cht_change *c)
{
    struct order *o = ctx;
    static const char *const kinds[] = {"first:", "second:", "left:", "right:"};
    char text[TEXT] = "";
    assert_int_equal(c->kind, CHT_CHANGE_PAIR_SET);
    memcpy(text, c->name.p, c->name.n);
    for (unsigned k = 0; k < 4; k++) {
        if (strncmp(text, kinds[k], strlen(kinds[k])) == 0)
            o->last[k][atoi(text + strlen(kinds[k]))] = c->key;
    }
    o->told++;
    if (c->more)
        return true;
    o->groups++;
    for (unsigned i = 0; i < 2000; i++) {
        if (o->last[1][i] > o->last[0][i])
            fail_msg("second:%u is %llu, and first %llu", i, (unsigned long long)o->last[1][i],
                     (unsigned long long)o->last[0][i]);
        if (o->last[2][i] != o->last[3][i])
            fail_msg("left:%u is %llu, and right %llu", i, (unsigned long long)o->last[2][i],
                     (unsigned long long)o->last[3][i]);
    }
    return true;
}

/* CH1, CH2: a write that was answered before another began is told no later; what was committed together is told together. */
static void test_order(void **state)
{
    (void)state;
    static struct order o;
    struct cht_thread t[2];
    struct cht_changes *c;
    atomic_store(&over, false);
    atomic_store(&written, 0);
    memset(&o, 0, sizeof o);
    must(cht_changes_open(one, str(""), CHT_CHANGES_NOW, &c, &err));
    must(cht_thread_start(&t[0], "pairs", write_pairs, NULL, &err));
    must(cht_thread_start(&t[1], "pairs", write_pairs, &over, &err));
    unsigned wanted = getenv("CHT_TEST_LONG") != NULL ? 3000 : 100;
    for (bool last = false; !last;) {
        last = atomic_load(&written) >= wanted && o.groups > 5;
        if (atomic_load(&broken) != NULL)
            fail_msg("a writer could not write %s", atomic_load(&broken));
        must(cht_cut(cht_rdb(two), &err));
        enum cht_rc rc = CHT_OK;
        while (rc == CHT_OK)
            rc = cht_changes_next(c, take_order, &o, &err);
        if (rc != CHT_PENDING)
            must(rc);
    }
    atomic_store(&over, true);
    cht_thread_join(&t[0]);
    cht_thread_join(&t[1]);
    cht_changes_close(c);
    print_message("%llu changes in %llu groups\n", (unsigned long long)o.told, (unsigned long long)o.groups);
}

/* ---- servers that end ----------------------------------------------------------------------------------------------- */

static bool open_pool(struct cht_env **env, struct cht_store **s)
{
    struct cht_rados_config cfg = two_config();
    enum cht_rc rc = CHT_OK;
    cfg.settle_ms = 300;
    at_step = two_stop;
    two_open_env(env, cfg, true);
    if (cht_env_get(*env, name, s, &err) == CHT_DATABASE_NOT_FOUND) {
        rc = cht_env_create(*env, name, 4, &err);
        if (rc == CHT_OK)
            rc = cht_env_get(*env, name, s, &err);
    }
    if (rc != CHT_OK)
        print_error("%s\n", err.msg);
    return rc == CHT_OK;
}

static int in_process(void (*fn)(struct cht_store *s), const char *at)
{
    pid_t p = fork();
    if (p == 0) {
        struct cht_env *env;
        struct cht_store *s;
        bool good = open_pool(&env, &s);
        (void)snprintf(stop_at, sizeof stop_at, "%s", at);
        if (good)
            fn(s);
        _exit(good && cht_env_close(env, &err) == CHT_OK ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(p, &status, 0), p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void make_pairs(struct cht_store *s)
{
    for (unsigned i = 0; i < 12; i++) {
        char text[TEXT];
        (void)snprintf(text, sizeof text, "x:%u", i);
        put(s, text, "1");
    }
}

static void ask(struct cht_store *s) { (void)newest_of(s); }

static void make_and_ask(struct cht_store *s)
{
    make_pairs(s);
    ask(s);
}

static void divide(struct cht_store *s)
{
    put(s, "w:1", "1");
    must(cht_split(cht_rdb(s), 1, &err));
}

static void make_and_trim(struct cht_store *s)
{
    cht_rdb(s)->env->cfg.changes_bytes = CHT_CHANGES_NONE;
    make_pairs(s);
    must(cht_cut_trim(cht_rdb(s), &err));
}

/* Nobody has asked for long, as this server sees it. */
static void no_longer(struct cht_store *s)
{
    must(cht_cut_look(cht_rdb(s), NULL, &err));
    for (unsigned i = 0; i < 2; i++) /* the first time it only looks */
        must(cht_cut_idle(cht_rdb(s), 0, &err));
}

static void make_and_end(struct cht_store *s)
{
    make_pairs(s);
    no_longer(s);
    make_pairs(s);
    must(cht_cut_trim(cht_rdb(s), &err));
    ask(s);
}

static void put_together(struct cht_store *s)
{
    struct cht_op ops[12];
    for (unsigned i = 0; i < 12; i++) {
        (void)snprintf(op_names[i], TEXT, "%c:%u", i % 3 == 0 ? 'x' : 'z', i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str(op_names[i]), .key = 1000 + i};
    }
    must(run(s, ops, 12, CHT_COMMIT_ATOMIC));
}

static void close_both(void)
{
    must(cht_env_close(envs[0], &err));
    must(cht_env_close(envs[1], &err));
}

/* What a mirror has from before is what there is, after writes by others and by the division or transaction that was cut off; nothing stays. */
static void all_is_told(struct mirror *m)
{
    put(one, "y:1", "1");
    catch_up(m, two);
    make_pairs(one);
    put(two, "x:3", "1");
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .name = str("x:1")};
    must(run(two, &op, 1, 0));
    catch_up(m, one);
    compare(m, two);
    cht_rdb(one)->env->cfg.changes_bytes = CHT_CHANGES_NONE;
    must(cht_cut_trim(cht_rdb(one), &err));
    assert_int_equal(rows_of(one, "L"), 0);
    assert_int_equal(rows_of(one, "M"), 0);
}

/* Whatever step a server ends before, of a cut, the first too, of a transaction, of trimming, of a division: writes go on, and what others are told is
 * all. */
static void test_cut_off(void **state)
{
    (void)state;
    static const struct {
        const char *step;
        void (*fn)(struct cht_store *s);
        bool first;  /* nobody has asked before */
        bool always; /* not in the long form only */
    } cuts[] = {{"cut-begin", ask, true, false},
                {"cut-create", ask, true, false},
                {"cut-lock", ask, true, true},
                {"cut-commit", ask, true, false},
                {"apply", ask, true, false},
                {"remove", ask, true, false},
                {"cut-create", make_and_ask, false, false},
                {"cut-lock", make_and_ask, false, false},
                {"cut-commit", make_and_ask, false, true},
                {"apply", make_and_ask, false, true},
                {"remove", make_and_ask, false, false},
                {"trim", make_and_trim, false, false},
                {"trim-shard", make_and_trim, false, true},
                {"idle-end", make_and_end, false, false},
                {"idle-ended", make_and_end, false, true},
                {"trim-shard", make_and_end, false, false},
                {"cut-lock", make_and_end, false, false},
                {"create", put_together, false, false},
                {"lock", put_together, false, false},
                {"lock-last", put_together, false, false},
                {"commit", put_together, false, false},
                {"apply", put_together, false, true},
                {"remove", put_together, false, false},
                {"split-lock", divide, false, false},
                {"split-copy", divide, false, false},
                {"split-decide", divide, false, false},
                {"split-map", divide, false, false},
                {"split-share", divide, false, true},
                {"split-open", divide, false, false},
                {"split-end", divide, false, false},
                {"split-clean", divide, false, false}};
    static struct mirror m;
    for (unsigned i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        if (getenv("CHT_TEST_LONG") == NULL && !cuts[i].always)
            continue;
        bool trims = cuts[i].fn == make_and_trim ||
                     cuts[i].fn == make_and_end; /* who was not there in time is told so */
        two_new_name('c');
        assert_int_equal(in_process(make_pairs, ""), 0);
        if (!cuts[i].first) {
            open_both(0);
            begin(&m, one, "");
            close_both();
        }
        assert_int_equal(in_process(cuts[i].fn, cuts[i].step), 9);
        open_both(0);
        if (cuts[i].first || trims)
            begin(&m, two, "");
        all_is_told(&m);
        if (teardown(NULL) != 0)
            fail_msg("after %s (%u)", cuts[i].step, i);
    }
}

/* ---- what is kept --------------------------------------------------------------------------------------------------- */

/* CH4: the oldest go, and who is too late is told so, in the middle too. */
static void test_trimmed(void **state)
{
    (void)state;
    struct cht_changes *slow, *c;
    static struct mirror m;
    cht_rdb(one)->env->cfg.changes_bytes = 4000;
    begin(&m, one, "");
    uint64_t first = m.after;
    must(cht_changes_open(two, str(""), first, &slow, &err));
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned k = 0; k < 20; k++) {
            char text[TEXT];
            (void)snprintf(text, sizeof text, "a:%u", k);
            put(i % 2 == 0 ? one : two, text, "1");
        }
        must(cht_cut_trim(cht_rdb(one), &err));
        catch_up(&m, two);
        if (i == 0) { /* it is in the middle of a group */
            m.enough = 5;
            static struct mirror part;
            part = (struct mirror){.after = first, .enough = 5};
            must(cht_changes_next(slow, apply, &part, &err));
        }
    }
    compare(&m, one);
    struct cht_changes_range r;
    must(cht_changes_range(one, &r, &err));
    assert_true(r.oldest > first && r.oldest < r.newest);
    assert_true(r.kept <= 4000 && r.kept > 0);
    assert_true(rows_of(one, "L") < 200);
    static struct mirror ignored;
    ignored = (struct mirror){.enough = 0};
    assert_int_equal(cht_changes_next(slow, apply, &ignored, &err), CHT_GONE);
    assert_non_null(strstr(err.msg, "are told, not after"));
    cht_changes_close(slow);
    assert_int_equal(cht_changes_open(two, str(""), first, &c, &err), CHT_GONE);
    must(cht_changes_open(two, str(""), CHT_CHANGES_OLDEST, &c, &err));
    assert_int_equal(cht_changes_position(c), r.oldest);
    ignored = (struct mirror){.enough = 0};
    assert_int_equal(cht_changes_next(c, apply, &ignored, &err), CHT_PENDING);
    cht_changes_close(c);
    must(cht_changes_range(two, &r, &err));
    assert_int_equal(r.followers, 0);
}

static _Atomic unsigned called;
static void on_news(struct cht_wait *w)
{
    (void)w;
    atomic_fetch_add(&called, 1);
}

/* Who waits hears of what any server writes, and of nothing after it has gone. */
static void test_waiting(void **state)
{
    (void)state;
    struct cht_changes *c[3];
    struct cht_wait w[3];
    struct mirror *m = calloc(1, sizeof *m);
    atomic_store(&called, 0);
    for (unsigned i = 0; i < 3; i++) {
        must(cht_changes_open(i == 1 ? two : one, str(i == 2 ? "b" : "a"), CHT_CHANGES_NOW, &c[i], &err));
        w[i] = (struct cht_wait){.done = on_news};
        assert_int_equal(cht_changes_next(c[i], apply, m, &err), CHT_PENDING);
        assert_int_equal(cht_changes_await(c[i], &w[i]), CHT_PENDING);
    }
    cht_changes_forget(c[2]);
    put(two, "a:1", "x");
    while (atomic_load(&called) < 2)
        cht_sleep_ns(UINT64_C(1000000));
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(m->prefix, sizeof m->prefix, "a");
        m->after = m->told = 0;
        assert_int_equal(cht_changes_next(c[i], apply, m, &err), CHT_PENDING);
        assert_int_equal(m->told, 1);
    }
    assert_int_equal(cht_changes_next(c[0], apply, m, &err), CHT_PENDING);
    put(one, "a:1", "y");
    (void)newest_of(two);
    must(cht_cut_look(cht_rdb(one), NULL, &err));
    assert_int_equal(cht_changes_await(c[0], &w[0]), CHT_OK); /* there is more already */
    assert_int_equal(atomic_load(&called), 2);
    for (unsigned i = 0; i < 3; i++) {
        cht_changes_forget(c[i]);
        cht_changes_close(c[i]);
    }
    free(m);
}

/* ---- in each other's way --------------------------------------------------------------------------------------------- */

struct doing { /* by another thread */
    struct cht_thread t;
    struct cht_store *s;
    enum cht_rc rc;
    struct cht_err why;
};

static void *cut_here(void *arg)
{
    struct doing *d = arg;
    d->rc = cht_cut(cht_rdb(d->s), &d->why);
    return NULL;
}

static void *split_here(void *arg)
{
    struct doing *d = arg;
    d->rc = cht_split(cht_rdb(d->s), 2, &d->why);
    return NULL;
}

static void begin_doing(struct doing *d, struct cht_store *s, void *(*fn)(void *))
{
    *d = (struct doing){.s = s};
    must(cht_thread_start(&d->t, "does", fn, d, &err));
}

static enum cht_rc end_doing(struct doing *d)
{
    cht_thread_join(&d->t);
    if (d->rc != CHT_OK)
        print_message("%s: %s\n", cht_rc_slug(d->rc), d->why.msg);
    return d->rc;
}

/* A name that lies in this shard. */
static const char *name_in(unsigned shard)
{
    static char text[TEXT];
    const struct cht_map *m = cht_rdb_map(cht_rdb(one));
    unsigned i = 0;
    do
        (void)snprintf(text, sizeof text, "in:%u", i++);
    while (cht_map_locate(m, cht_row_bucket(str(text))) != shard);
    return text;
}

/* While a shard is divided, which may take long, who closes a generation keeps no other shard locked. */
static void test_cut_while_divided(void **state)
{
    (void)state;
    struct doing divides, cuts;
    uint64_t now = newest_of(one);
    for (unsigned i = 0; i < 2; i++)
        cht_rdb(i == 0 ? one : two)->env->cfg.settle_ms = 600000; /* nobody gives up */
    make_pairs(one);
    hold_one("split-copying");
    begin_doing(&divides, two, split_here);
    wait_until_held();
    begin_doing(&cuts, one, cut_here);
    wait_for(&backs, 2); /* all at once, and then in order */
    put(two, name_in(0), "2");
    put(one, name_in(1), "2");
    atomic_store(&let_go, true);
    assert_int_equal(end_doing(&divides), CHT_OK);
    assert_int_equal(end_doing(&cuts), CHT_OK);
    assert_true(newest_of(two) > now);
    assert_int_equal(cht_rdb_map(cht_rdb(two))->shards, 5);
}

/* A write that is refused because this server has heard of the next generation before its shard had it goes again as it is: it is no reason to look
 * before each of the next writes. */
static void test_heard_early(void **state)
{
    (void)state;
    struct doing cuts;
    put(one, "a", "1");
    (void)newest_of(one);
    put(one, "b", "1");
    hold_one("apply");
    begin_doing(&cuts, one, cut_here);
    wait_until_held();
    const char *name_of_it = name_in(3);
    put(one, name_of_it, "1");
    atomic_store(&let_go, true);
    assert_int_equal(end_doing(&cuts), CHT_OK);
    assert_int_equal(cht_rdb(one)->lanes[3].careful, 0);
    since = newest_of(two) - 1;
    char text[64];
    struct cht_op op = {.kind = CHT_OP_PAIR_READ, .name = str(name_of_it)};
    must(run(two, &op, 1, 0));
    (void)snprintf(text, sizeof text, "set:%s:%llu ", name_of_it, (unsigned long long)op.key);
    told(two, "in:", text);
}

#define ASKING 8u

/* Of those who ask while a cut is under way one makes the next one for all, also if it fails: while the cluster is silent they would wait one after the other
 * else, each as long as the time-out. */
static void test_shared(void **state)
{
    (void)state;
    struct doing d[ASKING + 1];
    (void)newest_of(one);
    put(one, "a", "1");
    uint64_t before = atomic_load(&cht_rdb(one)->told.cuts);
    hold_one("cut-create");
    begin_doing(&d[ASKING], one, cut_here);
    wait_until_held();
    for (unsigned i = 0; i < ASKING; i++)
        begin_doing(&d[i], one, cut_here);
    wait_for(&asked, ASKING + 1);
    cht_alloc_fail_at(1, true);
    atomic_store(&let_go, true);
    unsigned failed = 0;
    for (unsigned i = 0; i <= ASKING; i++)
        failed += end_doing(&d[i]) != CHT_OK;
    cht_alloc_fail_at(0, false);
    assert_int_equal(failed, ASKING + 1);
    assert_int_equal(atomic_load(&cht_rdb(one)->told.cuts), before + 2);
    must(cht_cut(cht_rdb(one), &err));
}

/* Who waits is looked for again soon, however long it took to close a generation. */
static void test_rests(void **state)
{
    (void)state;
    struct cht_changes *c;
    struct cht_wait w = {.done = on_news};
    struct mirror *m = calloc(1, sizeof *m);
    struct cht_follow *f = &cht_rdb(one)->env->follow;
    atomic_store(&called, 0);
    must(cht_changes_open(one, str("a"), CHT_CHANGES_NOW, &c, &err));
    hold_one("cut-create");
    assert_int_equal(cht_changes_await(c, &w), CHT_PENDING);
    (void)snprintf(m->prefix, sizeof m->prefix, "a");
    put(two, "a:1", "x");
    wait_until_held();
    cht_sleep_ns(UINT64_C(200000000));
    atomic_store(&let_go, true);
    wait_for(&called, 1);
    cht_mutex_lock(&f->mu);
    uint64_t due = cht_rdb(one)->told.due;
    cht_mutex_unlock(&f->mu);
    assert_true(due <= cht_now_ns() + UINT64_C(5000000000));
    assert_int_equal(cht_changes_next(c, apply, m, &err), CHT_PENDING);
    assert_int_equal(m->told, 1);
    cht_changes_close(c);
    free(m);
}

static enum cht_rc hear(struct cht_changes *c, struct cht_wait *w, struct mirror *m)
{
    unsigned before = atomic_load(&called);
    enum cht_rc rc = cht_changes_await(c, w);
    if (rc == CHT_PENDING)
        wait_for(&called, before + 1);
    return cht_changes_next(c, apply, m, &err);
}

/* CH6: the numbers of a database that is made anew are higher, also if the clock of whoever dropped it was ahead; who follows the old one hears of its
 * end, and who comes with a number of it is told that it is too late. */
static void test_made_anew(void **state)
{
    (void)state;
    struct cht_changes *c;
    struct cht_wait w = {.done = on_news};
    struct mirror *m = calloc(1, sizeof *m);
    uint8_t first[8], format[4];
    bool closed;
    uint64_t ahead = cht_wall_ns() / 1000 + UINT64_C(3600000000);
    struct cht_call call = cht_call_write();
    cht_put64(first, ahead);
    cht_put32(format, CHT_RDB_FORMAT_CHANGES);
    cht_call_set(&call, CHT_ROW_TEXT("changes"), (struct cht_str){first, sizeof first});
    cht_call_set(&call, CHT_ROW_TEXT("format"), (struct cht_str){format, sizeof format});
    assert_int_equal(cht_call_run(&call, cht_rdb(one)->io, "h"), 0);
    must(cht_changes_open(two, str(""), CHT_CHANGES_NOW, &c, &err));
    assert_true(cht_changes_position(c) >= ahead);
    put(one, "a", "1");
    for (enum cht_rc rc = CHT_OK; m->told == 0;) {
        rc = hear(c, &w, m);
        assert_int_equal(rc, CHT_PENDING);
    }
    uint64_t last = newest_of(one);
    must(cht_env_drop(envs[0], name, &err));
    must(cht_env_create(envs[0], name, 4, &err));
    must(cht_env_get(envs[0], name, &one, &err));
    enum cht_rc rc = CHT_PENDING;
    while (rc == CHT_PENDING)
        rc = hear(c, &w, m);
    assert_int_equal(rc, CHT_DATABASE_DROPPED);
    cht_changes_close(c);
    must(cht_env_release(envs[1], name, &closed, &err));
    must(cht_env_get(envs[1], name, &two, &err));
    assert_int_equal(cht_changes_open(two, str(""), last, &c, &err), CHT_GONE);
    put(one, "b", "1");
    assert_true(newest_of(one) > last + 1);
    assert_int_equal(cht_changes_open(two, str(""), last, &c, &err), CHT_GONE);
    free(m);
}

static unsigned objects_of(const struct cht_rdb *db)
{
    rados_list_ctx_t list;
    const char *what;
    unsigned n = 0;
    assert_int_equal(rados_nobjects_list_open(db->io, &list), 0);
    while (rados_nobjects_list_next(list, &what, NULL, NULL) == 0)
        n++;
    rados_nobjects_list_close(list);
    return n;
}

/* A generation is being closed when the database is dropped: nothing of that stays, since nobody would look for it. */
static void test_dropped_meanwhile(void **state)
{
    (void)state;
    struct doing cuts;
    bool closed;
    (void)newest_of(two);
    put(one, "a", "1");
    hold_one("cut-create");
    begin_doing(&cuts, two, cut_here);
    wait_until_held();
    must(cht_env_drop(envs[0], name, &err));
    atomic_store(&let_go, true);
    assert_int_equal(end_doing(&cuts), CHT_DATABASE_DROPPED);
    assert_int_equal(objects_of(cht_rdb(two)), 0);
    must(cht_env_release(envs[1], name, &closed, &err));
    must(cht_env_create(envs[0], name, 4, &err));
}

/* ---- trimming, page by page ------------------------------------------------------------------------------------------ */

#define OLD 2500u /* generations, more than a page has */

/* What is too much goes, however many generations it is, and no more than that. */
static void test_many_generations(void **state)
{
    (void)state;
    uint64_t now = newest_of(one), oldest = 0;
    static uint8_t names[OLD][CHT_ROW_GENERATION], l_names[OLD][CHT_ROW_CHANGED_NAME];
    const char *keys[2 * OLD], *values[2 * OLD];
    size_t lens[2 * OLD], value_lens[2 * OLD];
    uint8_t p[] = {'P', 'a'}, there[CHT_ROW_CHANGED_SIZE];
    char bytes[12];
    size_t size = CHT_ROW_GENERATION + sizeof p + sizeof there;
    (void)snprintf(bytes, sizeof bytes, "%zu", size);
    cht_row_changed_write(there, true, 1);
    for (unsigned i = 0; i < OLD; i++) {
        cht_row_of_generation(names[i], 'M', now - OLD + i);
        keys[2 * i] = (const char *)names[i];
        lens[2 * i] = sizeof names[i];
        values[2 * i] = bytes;
        value_lens[2 * i] = strlen(bytes);
        lens[2 * i + 1] = cht_row_of_change(l_names[i], now - OLD + i, (struct cht_str){p, sizeof p});
        keys[2 * i + 1] = (const char *)l_names[i];
        values[2 * i + 1] = (const char *)there;
        value_lens[2 * i + 1] = sizeof there;
    }
    for (unsigned shard = 0; shard < 4; shard++) {
        char object[CHT_LINK_OBJECT_MAX];
        struct cht_call call = cht_call_write();
        rados_write_op_omap_set2(call.w, keys, values, lens, value_lens, 2 * OLD);
        must(cht_call_add(&call, CHT_ROW_TEXT("Nl"), (int64_t)(size * OLD), &err));
        cht_rdb_shard_name(object, shard);
        assert_int_equal(cht_call_run(&call, cht_rdb(one)->io, object), 0);
    }
    uint8_t from[8];
    struct cht_call header = cht_call_write();
    cht_put64(from, now - OLD - 1);
    cht_call_set(&header, CHT_ROW_TEXT("changes"), (struct cht_str){from, sizeof from});
    assert_int_equal(cht_call_run(&header, cht_rdb(one)->io, "h"), 0);
    uint64_t most = size * 300;
    cht_rdb(one)->env->cfg.changes_bytes = most;
    atomic_store(&closes, cht_rdb(one)); /* who drops it, or ends, waits for a page */
    assert_int_equal(cht_cut_trim(cht_rdb(one), &err), CHT_CANCELLED);
    assert_true(rows_of(one, "M") > 300);
    atomic_store(&closes, NULL);
    atomic_store(&cht_rdb(one)->closing, false);
    must(cht_cut_trim(cht_rdb(one), &err));
    struct cht_changes_range r;
    must(cht_changes_range(one, &r, &err));
    assert_int_equal(r.kept, most);
    assert_int_equal(rows_of(one, "M"), 300);
    assert_int_equal(rows_of(one, "L"), 300);
    must(cht_cut_oldest(cht_rdb(one), &oldest, &err));
    assert_int_equal(oldest, now - 300 / 4 - 1);
}

static bool count_one(void *ctx, const struct cht_change *c)
{
    (void)c;
    ++*(unsigned *)ctx;
    return true;
}

static unsigned tell_all(struct cht_changes *c)
{
    unsigned n = 0;
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK)
        rc = cht_changes_next(c, count_one, &n, &err);
    assert_int_equal(rc, CHT_PENDING);
    return n;
}

/* What a follower reads at once has a bound in bytes, too: of long names it asks for few. */
static void test_long_names(void **state)
{
    (void)state;
    struct cht_changes *c;
    char *text = calloc(1, CHT_NAME_MAX + 1);
    for (unsigned shards = 1; shards <= CHT_MAP_MAX; shards *= 2) {
        for (unsigned size = 0; size < 2 * CHT_ROW_CHANGED_NAME; size += 50) {
            unsigned rows = cht_rtell_rows(size, shards), longest = size > 0 ? size : CHT_ROW_CHANGED_NAME;
            longest = longest < CHT_ROW_CHANGED_NAME ? longest : CHT_ROW_CHANGED_NAME;
            assert_true(rows > 0 && (rows == 1 || rows * shards * longest <= CHT_RTELL_BYTES));
        }
        assert_true(cht_rtell_rows(60, shards) == (1024 / shards > 16 ? 1024 / shards : 16));
    }
    must(cht_changes_open(two, str(""), CHT_CHANGES_NOW, &c, &err));
    const struct cht_rfollower *f = cht_rfollower(c);
    memset(text, 'n', CHT_NAME_MAX);
    for (unsigned i = 0; i < 90; i++) {
        (void)snprintf(text + CHT_NAME_MAX - 6, 7, "%06u", i);
        put(one, text, "1");
    }
    must(cht_cut(cht_rdb(two), &err));
    assert_int_equal(tell_all(c), 90);
    assert_true(f->row_bytes > CHT_NAME_MAX);
    for (unsigned i = 0; i < 90; i++) {
        (void)snprintf(text, TEXT, "%06u", i);
        put(one, text, "1");
    }
    for (unsigned i = 0; i < 4; i++) {
        put(one, "a", "1");
        must(cht_cut(cht_rdb(two), &err));
        assert_int_equal(tell_all(c), i == 0 ? 91 : 1);
    }
    assert_true(f->row_bytes < 100);
    cht_changes_close(c);
    free(text);
}

static uint64_t bytes_of(const char *kind)
{
    uint64_t sum = 0;
    struct cht_page page;
    for (unsigned i = 0; i < 4; i++) {
        must(cht_page_raw(cht_rdb(one), &(struct cht_raw_wanted){i, "", kind, CHT_PAGE_ROWS_MAX}, &page,
                          &err));
        for (size_t k = 0; k < page.n; k++)
            sum += page.rows[k].name.n + page.rows[k].value.n;
        cht_page_free(&page);
    }
    return sum;
}

/* What is kept has its sums in it, one a generation and shard. */
static void test_sums_count(void **state)
{
    (void)state;
    struct cht_changes_range r;
    put(one, "a", "1");
    (void)newest_of(one);
    put_together(one);
    for (unsigned i = 0; i < 5; i++) {
        make_pairs(i % 2 == 0 ? one : two);
        (void)newest_of(one);
    }
    must(cht_cut_look(cht_rdb(one), NULL, &err));
    must(cht_changes_range(one, &r, &err));
    assert_true(r.kept >= bytes_of("L") + bytes_of("M"));
    uint64_t before = r.kept;
    put(one, "x:1", "2");
    put(one, "x:1", "3"); /* its sum is counted once */
    must(cht_cut_look(cht_rdb(one), NULL, &err));
    must(cht_changes_range(one, &r, &err));
    assert_int_equal(r.kept - before, 2 * (CHT_ROW_GENERATION + 4 + CHT_ROW_CHANGED_SIZE) + CHT_ROW_SUM_SIZE);
}

/* ---- nobody asks any more -------------------------------------------------------------------------------------------- */

static unsigned nothing_kept(struct cht_store *s)
{
    struct cht_changes_range r;
    must(cht_changes_range(s, &r, &err));
    return r.newest == 0 && r.oldest == 0 && r.kept == 0 && rows_of(s, "L") == 0 && rows_of(s, "M") == 0;
}

/* CH9: keeping ends, on each server when it hears of it; who comes back is told that it is too late, and from then on all is kept again, also what a server
 * writes that knows nothing of either. */
static void test_nobody_asks_any_more(void **state)
{
    (void)state;
    struct cht_changes *c;
    static struct mirror m;
    begin(&m, one, "");
    uint64_t before = m.after;
    make_pairs(one);
    no_longer(one);
    put(one, "a", "1");
    must(cht_cut_trim(cht_rdb(one), &err));
    assert_true(nothing_kept(one));
    assert_int_equal(size_of_epoch(), 20);
    put(two, "b", "1"); /* it does not know it yet: in vain */
    assert_int_equal(rows_of(one, "L"), 1);
    must(cht_cut_trim(cht_rdb(one), &err));
    assert_true(nothing_kept(one));
    for (unsigned i = 0; i < 3; i++) /* nothing goes on by itself */
        no_longer(two);
    put(two, "b", "2");
    put_together(two);
    assert_true(nothing_kept(two));

    uint64_t known = cht_rdb_generation(cht_rdb(two));
    assert_int_equal(cht_changes_open(two, str(""), before, &c, &err), CHT_GONE);
    assert_non_null(strstr(err.msg, "are told, not after"));
    begin(&m, two, "");
    assert_int_equal(m.after, known); /* the one that nobody is told of */
    put(one, "c", "1");
    put(two, "b", "3");
    catch_up(&m, one);
    compare(&m, two);
    assert_int_equal(m.told, 2);
    catch_up(&m, two);

    no_longer(two); /* one knows neither that, nor that somebody asks again */
    put(one, "d", "1");
    assert_int_equal(cht_changes_open(one, str(""), m.after, &c, &err), CHT_GONE);
    uint64_t told_before = m.after;
    begin(&m, one, "");
    assert_true(m.after > told_before);
    put(two, "e", "1");
    put(one, "f", "1");
    catch_up(&m, two);
    compare(&m, one);
    assert_int_equal(m.told, 2);
}

static bool keeps(struct cht_store *s) { return cht_rdb_keeps(cht_rdb(s), cht_rdb_generation(cht_rdb(s))); }

/* Who has asked meanwhile, or follows, is seen by all. */
static void test_somebody_asks(void **state)
{
    (void)state;
    struct cht_changes *c;
    struct cht_wait w = {.done = on_news};
    static struct mirror m;
    begin(&m, one, "");
    put(one, "a", "1");
    must(cht_cut_look(cht_rdb(two), NULL, &err));
    must(cht_cut_idle(cht_rdb(two), CHT_CUT_IDLE_NS, &err));
    must(cht_cut_idle(cht_rdb(two), CHT_CUT_IDLE_NS, &err)); /* not long ago */
    assert_true(keeps(two));
    atomic_store(&cht_rdb(one)->told.marked, 0);
    catch_up(&m, one); /* somebody asks the other one */
    must(cht_cut_idle(cht_rdb(two), 0, &err));
    assert_true(keeps(two));
    must(cht_changes_open(one, str(""), CHT_CHANGES_NOW, &c, &err));
    for (unsigned i = 0; i < 3; i++) { /* as long as somebody follows */
        must(cht_cut_idle(cht_rdb(one), 0, &err));
        must(cht_cut_idle(cht_rdb(two), 0, &err));
        assert_true(keeps(one) && keeps(two));
    }
    catch_up(&m, two);
    compare(&m, one);

    no_longer(two); /* one was silent: who follows it is woken, and told */
    assert_false(keeps(two));
    put(two, "b", "1");
    assert_int_equal(rows_of(two, "L"), 1); /* of before */
    must(cht_cut_idle(cht_rdb(one), 0, &err));
    atomic_store(&called, 0);
    enum cht_rc rc = cht_changes_await(c, &w);
    if (rc == CHT_PENDING)
        wait_for(&called, 1);
    assert_int_equal(cht_changes_next(c, apply, &m, &err), CHT_GONE);
    cht_changes_close(c);
}

/* CH9, random: whenever keeping ends, whoever asks, whoever knows of it: a mirror has all, or is told that it is too late. */
static void test_ends_meanwhile(void **state)
{
    (void)state;
    static struct mirror m;
    struct cht_rng r;
    struct cht_changes *c;
    unsigned late = 0, compared = 0;
    uint64_t steps = getenv("CHT_TEST_LONG") != NULL ? 5000 : 200;
    cht_rng_seed(&r, 12);
    begin(&m, one, "");
    for (uint64_t i = 0; i < steps; i++) {
        struct cht_store *s = cht_rng_below(&r, 2) == 0 ? one : two;
        change_something(&r);
        if (cht_rng_below(&r, 8) == 0)
            must(cht_cut_look(cht_rdb(s), NULL, &err));
        if (cht_rng_below(&r, 6) == 0)
            must(cht_cut_idle(cht_rdb(s), 0, &err));
        if (cht_rng_below(&r, 10) == 0)
            must(cht_cut_trim(cht_rdb(s), &err));
        if (cht_rng_below(&r, 5) != 0)
            continue;
        enum cht_rc rc = cht_changes_open(s, str(""), m.after, &c, &err);
        if (rc == CHT_OK) {
            cht_changes_close(c);
            catch_up(&m, s);
            compare(&m, s == one ? two : one);
            compared++;
        } else {
            uint64_t before = m.after;
            assert_int_equal(rc, CHT_GONE);
            begin(&m, s, "");
            assert_true(m.after > before);
            late++;
        }
    }
    print_message("%u times all, %u times too late\n", compared, late);
    assert_true(late > 0 && compared > 0);
}

static void *write_few(void *arg)
{
    struct cht_rng r;
    cht_rng_seed(&r, arg != NULL ? 13 : 14);
    while (!atomic_load(&over)) {
        char text[TEXT];
        (void)snprintf(text, sizeof text, "t:%u", (unsigned)cht_rng_below(&r, NAMES));
        struct cht_op op = {.kind = CHT_OP_PAIR_SET, .name = str(text), .key = 1 + cht_rng_below(&r, 50)};
        if (cht_rng_below(&r, 4) == 0)
            op.kind = CHT_OP_PAIR_DEL;
        enum cht_rc rc = run(arg != NULL ? one : two, &op, 1, 0);
        if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
            return cannot("few");
    }
    return NULL;
}

/* The same, while two servers write all the time: what one writes without a row, since it is told to nobody, another does not begin to tell. */
static void test_ends_under_load(void **state)
{
    (void)state;
    static struct mirror m;
    struct cht_thread t[2];
    struct cht_changes *c;
    atomic_store(&over, false);
    atomic_store(&broken, NULL);
    begin(&m, one, "t:");
    must(cht_thread_start(&t[0], "few", write_few, NULL, &err));
    must(cht_thread_start(&t[1], "few", write_few, &over, &err));
    unsigned rounds = getenv("CHT_TEST_LONG") != NULL ? 300 : 20;
    for (unsigned i = 0; i < rounds; i++) {
        struct cht_store *s = i % 2 == 0 ? one : two;
        if (i % 3 == 0)
            no_longer(i % 4 < 2 ? one : two);
        must(cht_cut_trim(cht_rdb(i % 5 < 2 ? one : two), &err));
        enum cht_rc rc = cht_changes_open(s, str("t:"), m.after, &c, &err);
        if (rc == CHT_OK)
            cht_changes_close(c);
        else if (rc == CHT_GONE)
            begin(&m, s, "t:");
        else
            must(rc);
        catch_up(&m, s == one ? two : one);
    }
    atomic_store(&over, true);
    cht_thread_join(&t[0]);
    cht_thread_join(&t[1]);
    assert_null(atomic_load(&broken));
    catch_up(&m, one);
    compare(&m, two);
}

/* M1. */
static void test_allocations(void **state)
{
    (void)state;
    static struct mirror m;
    begin(&m, one, "a:");
    make_pairs(one);
    put(one, "a:1", "1");
    put(one, "a:2", "1");
    for (unsigned n = 1;; n++) {
        struct cht_changes *c = NULL;
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = cht_changes_open(one, str("a:"), m.after, &c, &err);
        while (rc == CHT_OK)
            rc = cht_changes_next(c, apply, &m, &err);
        bool failed = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        cht_changes_close(c);
        if (!failed) {
            assert_int_equal(rc, CHT_PENDING);
            break;
        }
        if (rc != CHT_NO_MEMORY && rc != CHT_PENDING && rc != CHT_TIMEOUT)
            fail_msg("allocation %u: %s", n, cht_rc_slug(rc));
    }
    catch_up(&m, one);
    compare(&m, two);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nobody_asks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mirrors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trimmed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_while_divided, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heard_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropped_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_generations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sums_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_asks_any_more, setup, teardown),
        cmocka_unit_test_setup_teardown(test_somebody_asks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends_under_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allocations, setup, teardown),
        cmocka_unit_test(test_cut_off),
    };
    if (!two_ready())
        return 77;
    cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
