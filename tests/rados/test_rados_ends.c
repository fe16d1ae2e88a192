/* test_rados_ends: pairs that end, on RADOS: the same random commits as on files, of which all is to be seen alike; two servers; a server that ends
 * before each step; shards that are divided; programs that do not know of ends. Needs CHT_RADOS_CONF (run.sh).
 *
 * No test waits for an end: a pair ends in a year, or has ended before it was written.
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

#include "base/bytes.h"
#include "base/rng.h"
#include "cheetah/rados.h"
#include "cheetah/scan.h"
#include "store/rados/ends.h"
#include "store/rados/pages.h"
#include "store/rados/split.h"

#define YEAR_MS (UINT64_C(366) * 86400 * 1000)
#define PAST_MS UINT64_C(1000)
#define NAMES 10u
#define KEYS 64u

static const char *conf;
static char name[32];
static unsigned end_at, steps; /* of this process: the number of the step before which it ends; 0: none */

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static struct cht_rdb *closes; /* from the first page of ended pairs on */
static void count_step(void *ctx, const char *step)
{
    (void)ctx;
    if (closes != NULL && strcmp(step, "purge-page") == 0)
        atomic_store(&closes->closing, true);
    if (end_at != 0 && ++steps == end_at)
        _exit(9);
}

static bool open_pool(struct cht_env **env, struct cht_store **s, struct cht_err *err)
{
    struct cht_rados_config cfg = {
        .pool = "cheetah", .conf = conf, .settle_ms = 300, .default_shards = 2, .step = count_step};
    enum cht_rc rc = cht_rados_open(&cfg, env, err);
    if (rc == CHT_OK && cht_env_get(*env, name, s, err) == CHT_DATABASE_NOT_FOUND) {
        rc = cht_env_create(*env, name, 2, err);
        if (rc == CHT_OK)
            rc = cht_env_get(*env, name, s, err);
    }
    if (rc != CHT_OK)
        print_error("%s\n", err->msg);
    return rc == CHT_OK;
}

/* librados does not survive a fork: what uses it is a process of its own. */
static pid_t start(bool (*fn)(struct cht_store *s), unsigned at)
{
    pid_t p = fork();
    if (p != 0)
        return p;
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    bool good = open_pool(&env, &s, &err);
    end_at = at; /* from here on */
    good = good && fn(s);
    end_at = 0;
    if (good)
        good = cht_env_close(env, &err) == CHT_OK;
    _exit(good ? 0 : 1);
}

static int end_of(pid_t p)
{
    int status = 0;
    assert_int_equal(waitpid(p, &status, 0), p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void in_process(bool (*fn)(struct cht_store *s)) { assert_int_equal(end_of(start(fn, 0)), 0); }

static int setup(void **state)
{
    static unsigned n;
    (void)state;
    (void)snprintf(name, sizeof name, "e%u-%u", (unsigned)getpid(), n++);
    return 0;
}

static bool said(bool good, const char *what)
{
    if (!good)
        print_error("%s\n", what);
    return good;
}
#define CHECK(x) said((x), #x)

static enum cht_rc run(struct cht_store *s, struct cht_op *op)
{
    struct cht_commit c = {.ops = op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    return rc == CHT_OK ? op->rc : rc;
}

static uint64_t count(struct cht_store *s, const char *prefix)
{
    struct cht_err err = {0};
    uint64_t n = 0;
    if (cht_store_count(s, str(prefix), &n, &err) != CHT_OK)
        print_error("%s\n", err.msg);
    return n;
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_error("%s: %s\n", where, what);
}

static bool is_sound(void)
{
    struct cht_rados_config cfg = {.pool = "cheetah", .conf = conf};
    struct cht_rados_check check = {.database = name, .finding = finding};
    struct cht_err err = {0};
    return CHECK(cht_rados_check(&cfg, &check, &err) == CHT_OK && check.findings == 0);
}

/* ---- as on files ----------------------------------------------------------------------------------------------------- */

struct both {
    struct cht_store *on[2]; /* files, RADOS */
    uint64_t key[2][KEYS];   /* the same values by another key */
    unsigned keys;
};

static char names[NAMES][16];

static void note_keys(struct both *b, const struct cht_op *x, const struct cht_op *y)
{
    unsigned i = 0;
    while (i < b->keys && b->key[0][i] != x->key)
        i++;
    if (i == b->keys && b->keys < KEYS) {
        b->key[0][i] = x->key;
        b->key[1][i] = y->key;
        b->keys++;
    }
}

static void make_op(struct both *b, struct cht_rng *r, struct cht_op *ops, uint8_t *value)
{
    static const enum cht_op_kind kinds[] = {
        CHT_OP_PAIR_PUT,  CHT_OP_PAIR_PUT, CHT_OP_PAIR_PUT, CHT_OP_PAIR_SET, CHT_OP_PAIR_SET,
        CHT_OP_PAIR_SET,  CHT_OP_PAIR_DEL, CHT_OP_DELETE,   CHT_OP_EDIT,     CHT_OP_PUT,
        CHT_OP_PAIR_LINK, CHT_OP_READ,     CHT_OP_PAIR_READ};
    enum cht_op_kind kind = kinds[cht_rng_below(r, sizeof kinds / sizeof *kinds)];
    unsigned n = (unsigned)cht_rng_below(r, NAMES), other = (unsigned)cht_rng_below(r, NAMES);
    unsigned k = b->keys > 0 ? (unsigned)cht_rng_below(r, b->keys) : 0, how = (unsigned)cht_rng_below(r, 4);
    bool by_key = kind == CHT_OP_PAIR_SET || kind == CHT_OP_DELETE || kind == CHT_OP_EDIT ||
                  kind == CHT_OP_PUT || kind == CHT_OP_READ;
    if (b->keys == 0 && by_key)
        kind = CHT_OP_PAIR_PUT;
    size_t len = cht_rng_below(r, 20) == 0 ? 70000 : 1 + cht_rng_below(r, 30);
    bool with_values = cht_rng_below(r, 2) == 0, keep = cht_rng_below(r, 3) == 0;
    value[0]++;
    for (unsigned i = 0; i < 2; i++) {
        ops[i] = (struct cht_op){
            .kind = kind, .name = str(names[n]), .value = {value, len}, .with_values = with_values};
        if (kind == CHT_OP_PAIR_LINK)
            ops[i].value = str(names[other]);
        if (kind == CHT_OP_PAIR_PUT) {
            ops[i].ttl_ms = how < 2 ? YEAR_MS : 0;
            ops[i].keep_end = keep;
        } else if (by_key) {
            ops[i].key = b->key[i][k];
        }
        if (kind == CHT_OP_PAIR_SET)
            ops[i].until_ms = how == 0 ? PAST_MS : how == 1 ? 2000 * YEAR_MS : 0;
    }
}

static bool same_name(struct both *b, unsigned n)
{
    enum cht_rc rc[2];
    struct cht_pair_value pv[2] = {{0}, {0}};
    struct cht_buf buf[2] = {{0}, {0}};
    for (unsigned i = 0; i < 2; i++) {
        pv[i].out = &buf[i];
        rc[i] = cht_store_pair_value_soon(b->on[i], str(names[n]), &pv[i], NULL, NULL);
    }
    bool same = rc[0] == rc[1] && pv[0].size == pv[1].size &&
                (rc[0] != CHT_OK || (pv[0].ends != 0) == (pv[1].ends != 0)) && buf[0].len == buf[1].len &&
                (buf[0].len == 0 || memcmp(buf[0].data, buf[1].data, buf[0].len) == 0);
    if (!same)
        print_error("%s: files %s, %u bytes, ends %llu; RADOS %s, %u bytes, ends %llu\n", names[n],
                    cht_rc_slug(rc[0]), pv[0].size, (unsigned long long)pv[0].ends, cht_rc_slug(rc[1]),
                    pv[1].size, (unsigned long long)pv[1].ends);
    cht_buf_free(&buf[0]);
    cht_buf_free(&buf[1]);
    return same;
}

static bool same_key(struct both *b, unsigned k)
{
    enum cht_rc rc[2];
    uint32_t size[2] = {0, 0};
    for (unsigned i = 0; i < 2; i++)
        rc[i] = cht_store_get(b->on[i], b->key[i][k], NULL, &size[i], NULL);
    bool same = rc[0] == rc[1] && (rc[0] != CHT_OK || size[0] == size[1]);
    if (!same)
        print_error("key %llu, %llu: files %s, %u bytes; RADOS %s, %u bytes\n",
                    (unsigned long long)b->key[0][k], (unsigned long long)b->key[1][k], cht_rc_slug(rc[0]),
                    size[0], cht_rc_slug(rc[1]), size[1]);
    return same;
}

/* Counts remove what has ended: without, on RADOS it is there still, for nobody to see. */
static bool same_all(struct both *b, bool counts)
{
    struct cht_store_stats st[2];
    struct cht_err err = {0};
    uint64_t n_files = count(b->on[0], "n:");
    bool same = !counts || CHECK(n_files == count(b->on[1], "n:"));
    for (unsigned n = 0; n < NAMES; n++)
        same = same_name(b, n) && same;
    for (unsigned k = 0; k < b->keys; k++)
        same = same_key(b, k) && same;
    if (!counts)
        return same;
    for (unsigned i = 0; i < 2; i++)
        same = CHECK(cht_store_stats(b->on[i], &st[i], &err) == CHT_OK) && same;
    return CHECK(st[0].pairs == st[1].pairs && st[0].values == st[1].values &&
                 st[0].value_bytes == st[1].value_bytes && st[0].ending == st[1].ending) &&
           same;
}

static bool compare_with_files(struct cht_store *s)
{
    const char *seed_text = getenv("CHT_TEST_SEED");
    uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 10) : 6;
    unsigned ops = getenv("CHT_TEST_LONG") != NULL ? 6000 : 250;
    char path[64] = "/dev/shm/cht-ends-XXXXXX", gone[96], *dir = mkdtemp(path);
    struct cht_env_config cfg = {
        .dirs = (const char *const *)&dir, .dir_count = 1, .durability = CHT_DURABLE_OS};
    struct both b = {.on = {NULL, s}};
    static uint8_t value[70000];
    struct cht_env *files;
    struct cht_err err = {0};
    struct cht_rng r;
    bool good = CHECK(cht_env_open(&cfg, &files, &err) == CHT_OK) &&
                CHECK(cht_env_create(files, "x", 1, &err) == CHT_OK) &&
                CHECK(cht_env_get(files, "x", &b.on[0], &err) == CHT_OK);
    cht_rng_seed(&r, seed);
    for (unsigned i = 0; i < NAMES; i++)
        (void)snprintf(names[i], sizeof names[i], "n:%u", i);
    for (unsigned done = 0; good && done < ops; done++) {
        struct cht_op op[2];
        make_op(&b, &r, op, value);
        enum cht_rc rc[2] = {run(b.on[0], &op[0]), run(b.on[1], &op[1])};
        good = rc[0] == rc[1] && op[0].created == op[1].created &&
               (op[0].kind == CHT_OP_PAIR_SET || (op[0].ends != 0) == (op[1].ends != 0));
        if (good && op[0].kind == CHT_OP_PAIR_PUT)
            note_keys(&b, &op[0], &op[1]);
        good = same_all(&b, done % 10 == 9) && good;
        if (!good)
            print_error("seed %llu, operation %u: kind %d of %.*s, key %llu, ttl %llu, until %llu, keeps %d, "
                        "values %d: %s, %s\n",
                        (unsigned long long)seed, done, (int)op[0].kind, (int)op[0].name.n,
                        (const char *)op[0].name.p, (unsigned long long)op[0].key,
                        (unsigned long long)op[0].ttl_ms, (unsigned long long)op[0].until_ms, op[0].keep_end,
                        op[0].with_values, cht_rc_slug(rc[0]), cht_rc_slug(rc[1]));
    }
    (void)cht_env_close(files, &err);
    (void)snprintf(gone, sizeof gone, "rm -r %s", path);
    good = CHECK(system(gone) == 0) && good;
    return good && is_sound();
}

static void test_as_on_files(void **state)
{
    (void)state;
    in_process(compare_with_files);
}

/* ---- removing them ---------------------------------------------------------------------------------------------------- */

#define SOME 60u

/* SOME names of which a third has ended, a third ends in a year, a third lasts. */
static bool put_some(struct cht_store *s)
{
    static char text[SOME][16];
    struct cht_op ops[2 * SOME];
    size_t n = 0;
    for (unsigned i = 0; i < SOME; i++) {
        (void)snprintf(text[i], sizeof text[i], "n:%u", i);
        ops[n++] = (struct cht_op){.kind = CHT_OP_PAIR_PUT,
                                   .name = str(text[i]),
                                   .value = str("value"),
                                   .ttl_ms = i % 3 == 1 ? YEAR_MS : 0};
    }
    struct cht_commit c = {.ops = ops, .count = n, .flags = CHT_COMMIT_ATOMIC};
    if (!CHECK(cht_store_commit(s, &c) == CHT_OK))
        return false;
    for (unsigned i = 0; i < SOME; i += 3) {
        ops[n] = (struct cht_op){
            .kind = CHT_OP_PAIR_SET, .name = str(text[i]), .key = ops[i].key, .until_ms = PAST_MS};
        n++;
    }
    c = (struct cht_commit){.ops = ops + SOME, .count = n - SOME, .flags = CHT_COMMIT_ATOMIC};
    return CHECK(cht_store_commit(s, &c) == CHT_OK);
}

static bool remove_ended(struct cht_store *s) { return CHECK(count(s, "n:") == SOME / 3 * 2); }

static bool all_is_removed(struct cht_store *s)
{
    struct cht_store_stats st;
    struct cht_err err = {0};
    return remove_ended(s) &&
           CHECK(cht_store_stats(s, &st, &err) == CHT_OK && st.ending == SOME / 3 &&
                 st.values == SOME / 3 * 2) &&
           is_sound();
}

static void test_removing_is_cut_off(void **state)
{
    (void)state;
    unsigned each = getenv("CHT_TEST_LONG") != NULL ? 1 : 4;
    int ended = 9;
    for (unsigned at = 1; ended == 9; at += each) {
        in_process(put_some);
        ended = end_of(start(remove_ended, at));
        in_process(all_is_removed); /* another server */
    }
    assert_int_equal(ended, 0);
    assert_int_equal(end_of(start(put_some, 3)), 9); /* and in what writes them */
    in_process(put_some);
    in_process(all_is_removed);
}

/* Who drops the database, or ends, waits for a page. */
static bool remove_while_closed(struct cht_store *s)
{
    struct cht_err err = {0};
    uint64_t removed = 0;
    closes = cht_rdb(s);
    bool good = CHECK(cht_ends_purge(closes, &removed, &err) == CHT_CANCELLED) && CHECK(removed < SOME / 3);
    atomic_store(&closes->closing, false);
    closes = NULL;
    return good;
}

static void test_removing_gives_way(void **state)
{
    (void)state;
    in_process(put_some);
    in_process(remove_while_closed);
    in_process(all_is_removed);
}

static unsigned rows_of(struct cht_rdb *db, const char *kind)
{
    struct cht_err err = {0};
    const struct cht_map *m = cht_rdb_map(db);
    unsigned n = 0;
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX; i = cht_map_next(m, i + 1)) {
        struct cht_page page;
        if (cht_page_raw(db, &(struct cht_raw_wanted){i, "", kind, 1000}, &page, &err) != CHT_OK)
            print_error("%s\n", err.msg);
        n += (unsigned)page.n;
        cht_page_free(&page);
    }
    return n;
}

/* Rows of ends go with their names when a shard is divided, and are removed where they were. The format stays. */
static bool divide(struct cht_store *s)
{
    struct cht_rdb *db = cht_rdb(s);
    struct cht_err err = {0};
    bool good = put_some(s) && CHECK(rows_of(db, "T") == SOME / 3 * 2);
    good = good && CHECK(cht_split(db, 0, &err) == CHT_OK) && CHECK(cht_split(db, 1, &err) == CHT_OK);
    good =
        good && CHECK(cht_rdb_reload(db, &err) == CHT_OK && atomic_load(&db->format) == CHT_RDB_FORMAT_ENDS);
    good = good && is_sound() && CHECK(rows_of(db, "T") == SOME / 3 * 2) && all_is_removed(s);
    return good && CHECK(rows_of(db, "T") == SOME / 3) && all_is_removed(s);
}

static void test_divided(void **state)
{
    (void)state;
    in_process(divide);
}

static unsigned long_values(struct cht_rdb *db)
{
    rados_list_ctx_t list;
    const char *object;
    unsigned n = 0;
    if (rados_nobjects_list_open(db->io, &list) != 0)
        return 999;
    while (rados_nobjects_list_next(list, &object, NULL, NULL) == 0)
        n += object[0] == 'v';
    rados_nobjects_list_close(list);
    return n;
}

/* Two servers, the second of which makes the first pairs that end; a scan, reads and a prefix that is deleted; long values. */
static bool by_two(struct cht_store *s)
{
    struct cht_env *env;
    struct cht_store *other;
    struct cht_err err = {0};
    static uint8_t bytes[200000];
    uint64_t key = 0;
    bool good = CHECK(count(s, "") == 0) && open_pool(&env, &other, &err) && put_some(other);
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str("n:long"), .value = {bytes, sizeof bytes}};
    good = good && CHECK(run(other, &op) == CHT_OK && long_values(cht_rdb(s)) == 1);
    struct cht_op end = {.kind = CHT_OP_PAIR_SET, .name = str("n:long"), .key = op.key, .until_ms = PAST_MS};
    good = good && CHECK(run(other, &end) == CHT_OK);
    good = good && CHECK(cht_store_pair(s, str("n:0"), &key, &err) == CHT_PAIR_NOT_FOUND);
    good = good && CHECK(cht_store_get(s, op.key, NULL, NULL, &err) == CHT_KEY_NOT_FOUND);
    struct cht_op all = {
        .kind = CHT_OP_PREFIX_DEL, .name = str("n:5"), .with_values = true}; /* 5, 50 to 59 */
    good = good && CHECK(run(s, &all) == CHT_OK && all.pairs == 8 && all.values == 8);
    good = good && CHECK(count(s, "n:") == SOME / 3 * 2 - 8 && count(other, "n:4") == 8);
    good = good && CHECK(long_values(cht_rdb(s)) == 0) && is_sound();
    return CHECK(cht_env_close(env, &err) == CHT_OK) && good;
}

static void test_by_two(void **state)
{
    (void)state;
    in_process(by_two);
}

/* What has ended and is there still takes nothing with it that came after, and does not come back. */
static bool after_the_end(struct cht_store *s)
{
    struct cht_err err = {0};
    uint32_t size = 0;
    struct cht_op put = {.kind = CHT_OP_PAIR_PUT, .name = str("n:home"), .value = str("value")};
    bool good = CHECK(run(s, &put) == CHT_OK);
    struct cht_op end = {
        .kind = CHT_OP_PAIR_SET, .name = str("n:other"), .key = put.key, .until_ms = PAST_MS};
    struct cht_op later = {.kind = CHT_OP_PUT, .key = put.key, .value = str("later")};
    struct cht_op edit = {.kind = CHT_OP_EDIT, .key = put.key, .value = str("edited")};
    good = good && CHECK(run(s, &end) == CHT_OK);
    good = good && CHECK(cht_store_get(s, put.key, NULL, NULL, &err) == CHT_KEY_NOT_FOUND);
    good = good && CHECK(run(s, &later) == CHT_OK && later.created && run(s, &edit) == CHT_OK);
    good = good && CHECK(count(s, "n:") == 1); /* n:other is removed */
    good = good && CHECK(cht_store_get(s, put.key, NULL, &size, &err) == CHT_OK && size == 6);

    struct cht_op old = {.kind = CHT_OP_PAIR_PUT, .name = str("n:old"), .value = str("value")};
    good = good && CHECK(run(s, &old) == CHT_OK);
    end = (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str("n:old"), .key = old.key, .until_ms = PAST_MS};
    struct cht_op new = {
        .kind = CHT_OP_PAIR_SET, .name = str("n:new"), .key = old.key, .until_ms = 2000 * YEAR_MS};
    good = good && CHECK(run(s, &end) == CHT_OK && run(s, &new) == CHT_OK);
    return good && CHECK(cht_store_get(s, old.key, NULL, NULL, &err) == CHT_KEY_NOT_FOUND) && is_sound();
}

static void test_after_the_end(void **state)
{
    (void)state;
    in_process(after_the_end);
}

/* Rows of ends that are damaged hold nobody up, and no answer is kept that may have what has ended. */
static bool set_row(struct cht_rdb *db, unsigned shard, struct cht_str row)
{
    char object[CHT_LINK_OBJECT_MAX];
    struct cht_call call = cht_call_write();
    cht_rdb_shard_name(object, shard);
    cht_call_set(&call, row, str("x"));
    return CHECK(cht_call_run(&call, db->io, object) == 0);
}

static bool damaged_ends(struct cht_store *s)
{
    const struct cht_str nobody = str("Pn:nobody"); /* a row */
    struct cht_rdb *db = cht_rdb(s);
    struct cht_err err = {0};
    struct cht_watch *w;
    uint8_t row[CHT_ROW_NAME_MAX + CHT_ROW_KEY_SIZE];
    struct cht_store_stats st;
    bool good = put_some(s) && set_row(db, 0, (struct cht_str){row, cht_row_of_end(row, PAST_MS, nobody)}) &&
                set_row(db, 0, str("T!")) && remove_ended(s);
    unsigned shard = cht_map_locate(cht_rdb_map(db), cht_row_bucket(str("n:nobody")));
    good = good && set_row(db, shard, nobody); /* nor can this row be read */
    good = good && CHECK(cht_store_stats(s, &st, &err) == CHT_OK && st.ending == SOME / 3);
    if (!good || !CHECK(cht_watch_new(s, str("n:"), &w, &err) == CHT_OK))
        return false;
    (void)cht_store_settle(s, true);
    uint64_t version = cht_watch_begin(w, 0);
    cht_watch_end(w);
    good = CHECK(!cht_store_settle(s, true) && cht_watch_version(w) != version);
    cht_watch_free(w);
    return good;
}

static void test_damaged_ends(void **state)
{
    (void)state;
    in_process(damaged_ends);
}

/* A database has another format from its first pair that ends on. One that is newer still is not opened. */
static bool other_formats(struct cht_store *s)
{
    struct cht_rdb *db = cht_rdb(s);
    struct cht_err err = {0};
    uint8_t bytes[4];
    bool good = CHECK(atomic_load(&db->format) == CHT_RDB_FORMAT) && put_some(s) &&
                CHECK(atomic_load(&db->format) == CHT_RDB_FORMAT_ENDS);
    struct cht_call call = cht_call_write();
    cht_put32(bytes, CHT_RDB_FORMAT_CHANGES + 1);
    cht_call_set(&call, CHT_ROW_TEXT("format"), (struct cht_str){bytes, sizeof bytes});
    good = CHECK(cht_call_run(&call, db->io, "h") == 0) && good;
    good = CHECK(cht_rdb_reload(db, &err) == CHT_VERSION) && good;
    call = cht_call_write();
    cht_put32(bytes, CHT_RDB_FORMAT_ENDS);
    cht_call_set(&call, CHT_ROW_TEXT("format"), (struct cht_str){bytes, sizeof bytes});
    return CHECK(cht_call_run(&call, db->io, "h") == 0) && good;
}

static void test_formats(void **state)
{
    (void)state;
    in_process(other_formats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_as_on_files, setup),
                                       cmocka_unit_test_setup(test_removing_is_cut_off, setup),
                                       cmocka_unit_test_setup(test_removing_gives_way, setup),
                                       cmocka_unit_test_setup(test_divided, setup),
                                       cmocka_unit_test_setup(test_by_two, setup),
                                       cmocka_unit_test_setup(test_formats, setup),
                                       cmocka_unit_test_setup(test_after_the_end, setup),
                                       cmocka_unit_test_setup(test_damaged_ends, setup)};
    conf = getenv("CHT_RADOS_CONF");
    if (conf == NULL) {
        print_message("no cluster (CHT_RADOS_CONF): skipped\n");
        return 0;
    }
    cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    return cmocka_run_group_tests_name("ends", tests, NULL, NULL);
}
