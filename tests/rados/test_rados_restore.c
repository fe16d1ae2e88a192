/* test_rados_restore: databases in a pool made of backups (store/rados/restore.h): all as it was; nothing of what fails, is cut off or given up.
 * Needs CHT_RADOS_CONF (run.sh).
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
#include "cheetah/backup.h"
#include "os/io.h"
#include "store/backup_format.h"
#include "store/rados/catalogue.h"
#include "store/rados/restore.h"
#include "support/model.h"

#include "rados/support/two.h" /* last: its names are short */

static char copy[40];
static struct cht_store *made; /* the copy, of the second server; `one` is the source */

static void new_names(void)
{
    two_new_name('r');
    (void)snprintf(copy, sizeof copy, "%s-copy", name);
}

static void open_env(struct cht_env **env, bool steps) { two_open_env(env, two_config(), steps); }

static void open_all(uint64_t split_pairs)
{
    struct cht_rados_config cfg = two_config();
    cfg.split_pairs = split_pairs;
    new_names();
    two_open(cfg, 2);
}

static int setup(void **state)
{
    (void)state;
    open_all(0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    at_step = NULL;
    (void)cht_env_drop(envs[1], copy, NULL);
    two_close();
    return 0;
}

static void put(struct cht_store *s, const char *pair, struct cht_str value, uint64_t ttl_ms)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(pair), .value = value, .ttl_ms = ttl_ms};
    must(run(s, &op, 1, 0));
}

static void take_backup(struct cht_store *s, struct cht_buf *out)
{
    static uint8_t buf[CHT_BACKUP_BUFFER_MIN];
    struct cht_backup *b;
    size_t n = 1;
    out->len = 0;
    must(cht_backup_open(s, &b, &err));
    while (n > 0) {
        must(cht_backup_read(b, buf, sizeof buf, &n, &err));
        if (out->len + n > out->cap)
            must(cht_buf_reserve(out, (out->len + n) * 2, &err));
        memcpy(out->data + out->len, buf, n);
        out->len += n;
    }
    cht_backup_close(b);
}

static enum cht_rc feed(struct cht_restore *r, const struct cht_buf *stream, size_t from, size_t to,
                        size_t piece)
{
    enum cht_rc rc = CHT_OK;
    for (size_t at = from; at < to && rc == CHT_OK; at += piece)
        rc = cht_restore_feed(r, stream->data + at, to - at < piece ? to - at : piece, &err);
    return rc;
}

/* By the second server, all of it. */
static enum cht_rc restore(const struct cht_buf *stream, size_t piece)
{
    struct cht_restore *r;
    enum cht_rc rc = cht_restore_new(envs[1], copy, &r, &err);
    if (rc != CHT_OK)
        return rc;
    rc = feed(r, stream, 0, stream->len, piece);
    if (rc == CHT_OK)
        rc = cht_restore_finish(r, &err);
    cht_restore_free(r);
    return rc;
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_error("%s: %s\n", where, what);
}

/* Opened by the other server; its rows are as they should be. */
static void look_at_copy(void)
{
    const struct cht_rados_config cfg = two_config();
    struct cht_rados_check check = {.database = copy, .finding = finding};
    must(cht_env_get(envs[1], copy, &made, &err));
    must(cht_rados_check(&cfg, &check, &err));
    assert_int_equal(check.findings, 0);
}

static void drop_copy(void) { must(cht_env_drop(envs[1], copy, &err)); }

/* What there is in the pool, in the space of any database but the source, whose snapshots keep what was removed for a while. */
#define OBJECTS 4000u
static char known[OBJECTS][100];
static unsigned nknown;

static unsigned look_at_objects(bool remember)
{
    struct cht_renv *env = (struct cht_renv *)(void *)envs[0];
    rados_ioctx_t io;
    rados_list_ctx_t list;
    const char *object, *space;
    unsigned more = 0;
    assert_int_equal(rados_ioctx_create(env->link.cluster, "cheetah", &io), 0);
    rados_ioctx_set_namespace(io, LIBRADOS_ALL_NSPACES);
    assert_int_equal(rados_nobjects_list_open(io, &list), 0);
    while (rados_nobjects_list_next2(list, &object, NULL, &space, NULL, NULL, NULL) == 0) {
        char text[100];
        bool old = space[0] == 0 || (one != NULL && strcmp(space, cht_rdb(one)->uuid) == 0);
        (void)snprintf(text, sizeof text, "%s/%s", space, object);
        for (unsigned i = 0; i < nknown && !old; i++)
            old = strcmp(known[i], text) == 0;
        more += !old;
        if (!old && remember) {
            assert_true(nknown < OBJECTS);
            memcpy(known[nknown++], text, sizeof text);
        }
    }
    rados_nobjects_list_close(list);
    rados_ioctx_destroy(io);
    return more;
}
static void remember_objects(void) { (void)look_at_objects(true); }
static unsigned new_objects(void) { return look_at_objects(false); }

static void is_not_there(void)
{
    struct cht_store *s;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(cht_env_get(envs[i], copy, &s, &err), CHT_DATABASE_NOT_FOUND);
}

static struct cht_listed entry_of(const char *database)
{
    struct cht_listed e;
    must(cht_catalogue_find((struct cht_renv *)(void *)envs[0], database, &e, &err));
    return e;
}

/* As if the server that restores it had said nothing for so long. */
static void make_old(uint64_t seconds)
{
    struct cht_renv *env = (struct cht_renv *)(void *)envs[0];
    struct cht_listed e = entry_of(copy);
    char row[CHT_DATABASE_NAME_MAX + 2];
    uint8_t value[1 + CHT_RDB_UUID + 8];
    struct cht_call call = cht_call_write();
    (void)snprintf(row, sizeof row, "d%s", copy);
    value[0] = (uint8_t)e.state;
    memcpy(value + 1, e.uuid, CHT_RDB_UUID);
    cht_put64(value + 1 + CHT_RDB_UUID, e.since - seconds * UINT64_C(1000000000));
    cht_call_set(&call, str(row), (struct cht_str){value, sizeof value});
    assert_int_equal(cht_call_run(&call, env->link.root, CHT_CATALOGUE), 0);
}

static void ignore(void *ctx, const char *database, enum cht_rc rc, const char *what)
{
    (void)database;
    (void)what;
    *(unsigned *)ctx += rc == CHT_OK;
}

/* ---- all as it was ------------------------------------------------------------------------------------------------------ */

static void fill(struct model *m, unsigned commits, uint32_t most, uint64_t seed)
{
    struct cht_rng r;
    cht_rng_seed(&r, seed);
    model_init(m, 120, seed);
    m->sparse = true;
    for (unsigned i = 0; i < commits; i++) {
        struct model_batch *batch = malloc(sizeof *batch);
        model_random_batch(m, &r, i % 20 == 0 ? 30 * most : most, batch);
        for (unsigned k = 0; k < batch->count; k++) /* see cheetah/rados.h */
            if (batch->ops[k].kind == CHT_OP_PREFIX_DEL)
                batch->flags = 0;
        struct cht_commit c = {.ops = batch->ops, .count = batch->count, .flags = batch->flags};
        (void)cht_store_commit(one, &c);
        model_apply(m, batch, &c);
        model_batch_free(batch);
        free(batch);
    }
}

static void is_model(const struct model *m)
{
    char why[256];
    uint64_t then, now;
    look_at_copy();
    if (model_compare(m, made, why, sizeof why) != 0)
        fail_msg("%s", why);
    must(cht_leases_next(cht_rdb(one), &then, &err));
    must(cht_leases_next(cht_rdb(made), &now, &err));
    assert_true(now >= then); /* none is given out again */
    struct cht_op insert = {.kind = CHT_OP_INSERT, .value = str("new")};
    must(run(made, &insert, 1, 0));
    assert_true(insert.key >= then);
}

/* Every kind of row, long values, zeros, in pieces of any length. */
static void test_is_what_was_there(void **state)
{
    (void)state;
    struct model m;
    struct cht_buf stream = {0};
    uint8_t *zeros = calloc(1, 700000);
    fill(&m, 30, 60000, 5);
    put(one, "zeros", (struct cht_str){zeros, 700000}, 0); /* which are in no frame */
    struct cht_op del = {.kind = CHT_OP_PAIR_DEL, .name = str("zeros"), .with_values = true};
    static const size_t pieces[] = {1 << 20, 4099};
    for (unsigned i = 0; i < 2; i++) {
        take_backup(one, &stream);
        must(restore(&stream, pieces[i]));
        if (i == 0) {
            struct cht_buf b = {0};
            uint64_t key;
            uint32_t size;
            look_at_copy();
            must(cht_store_pair_value(made, str("zeros"), &key, &b, &size, &err));
            assert_true(size == 700000 && memcmp(b.data, zeros, size) == 0);
            cht_buf_free(&b);
            must(run(one, &del, 1, 0));
        } else {
            is_model(&m);
        }
        drop_copy();
    }
    model_free(&m);
    free(zeros);
    cht_buf_free(&stream);
}

static void take_row(void *ctx, struct cht_str row, struct cht_str value)
{
    struct cht_buf *b = ctx;
    (void)row;
    must(cht_buf_reserve(b, value.n, &err));
    memcpy(b->data, value.p, value.n);
    b->len = value.n;
}

static void row_of(struct cht_store *s, const char *pair, struct cht_buf *out)
{
    struct cht_rdb *db = cht_rdb(s);
    uint8_t row[CHT_ROW_NAME_MAX];
    size_t n = cht_row_of_name(row, 'P', str(pair));
    const char *p = (const char *)row;
    char object[CHT_LINK_OBJECT_MAX];
    cht_rdb_shard_name(object, cht_map_locate(cht_rdb_map(db), cht_row_bucket(str(pair))));
    out->len = 0;
    assert_int_equal(cht_link_rows(db->io, object, &(struct cht_rows_wanted){&p, &n, 1}, take_row, out), 0);
}

/* Values are in the rows of their names again, so that reads by name and scans take one trip. A pair that ends does so when it would have; what has
 * ended meanwhile is not there. */
static void test_rows_and_ends(void **state)
{
    (void)state;
    struct cht_buf stream = {0}, was = {0}, is = {0};
    char pair[16];
    uint64_t pairs;
    for (unsigned i = 0; i < 30; i++) {
        (void)snprintf(pair, sizeof pair, "e:%u", i);
        put(one, pair, str("v"), i % 3 == 0 ? UINT64_C(1000000000) + i : i % 3 == 1 ? 1 : 0);
    }
    struct cht_op link = {.kind = CHT_OP_PAIR_LINK, .name = str("other"), .value = str("e:2")};
    must(run(one, &link, 1, 0));
    take_backup(one, &stream);
    must(restore(&stream, 1000));
    look_at_copy();
    for (unsigned i = 0; i < 30; i++) {
        (void)snprintf(pair, sizeof pair, "e:%u", i);
        if (i % 3 == 1)
            continue;
        row_of(one, pair, &was);
        row_of(made, pair, &is);
        assert_int_equal(was.len, is.len);
        assert_memory_equal(was.data, is.data, was.len);
    }
    must(cht_store_count(made, str("e:"), &pairs, &err));
    assert_int_equal(pairs, 20);
    struct cht_op edit = {.kind = CHT_OP_PAIR_PUT, .name = str("other"), .value = str("w")};
    must(run(made, &edit, 1, 0));
    struct cht_buf b = {0};
    uint64_t key;
    must(cht_store_pair_value(made, str("e:2"), &key, &b, NULL, &err));
    assert_true(b.len == 1 && b.data[0] == 'w'); /* two names of one value */
    cht_buf_free(&b);
    cht_buf_free(&stream);
    cht_buf_free(&was);
    cht_buf_free(&is);
}

/* Shards are divided while they fill. */
static void test_divided(void **state)
{
    (void)state;
    struct cht_buf stream = {0};
    char pair[16];
    uint64_t pairs;
    struct cht_op *ops = calloc(6000, sizeof *ops);
    char(*names)[16] = calloc(6000, sizeof *names);
    teardown(state);
    open_all(400);
    for (unsigned i = 0; i < 6000; i++) {
        (void)snprintf(names[i], sizeof names[i], "n:%06u", i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str(names[i])};
    }
    struct cht_commit c = {.ops = ops, .count = 6000, .flags = CHT_COMMIT_UNORDERED};
    must(cht_store_commit(one, &c));
    take_backup(one, &stream);
    unsigned tries = 0;
    do { /* each look divides one time in two */
        assert_true(tries++ < 20);
        if (tries > 1)
            drop_copy();
        must(restore(&stream, 1 << 20));
        look_at_copy();
    } while (cht_rdb_map(cht_rdb(made))->shards == 8);
    must(cht_store_count(made, str("n:"), &pairs, &err));
    assert_int_equal(pairs, 6000);
    for (unsigned i = 0; i < 6000; i += 97) {
        struct cht_buf b = {0};
        uint64_t key;
        (void)snprintf(pair, sizeof pair, "n:%06u", i);
        must(cht_store_pair_value(made, str(pair), &key, &b, NULL, &err));
        assert_true(b.len == 8 && memcmp(b.data, pair, 8) == 0);
        cht_buf_free(&b);
    }
    free(ops);
    free(names);
    cht_buf_free(&stream);
}

/* ---- of files ------------------------------------------------------------------------------------------------------------ */

#define LONG 200000u
static char dir[64];
static struct cht_env *open_files(void)
{
    static const char *dirs[1];
    struct cht_env *env;
    dirs[0] = dir;
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .durability = CHT_DURABLE_OS, .log_segment_bytes = 1 << 20};
    (void)snprintf(dir, sizeof dir, "%s/cht-rados-restore-XXXXXX",
                   getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(dir));
    must(cht_env_open(&cfg, &env, &err));
    must(cht_env_create(env, name, 2, &err));
    return env;
}

static void close_files(struct cht_env *files)
{
    must(cht_env_drop(files, name, &err));
    must(cht_env_close(files, &err));
    must(cht_io_remove_tree(cht_io_posix(), dir, &err));
}

/* One whose log has all that ever happened: names that were mapped again, prefixes that were deleted, ends that were put off. */
static void test_of_files(void **state)
{
    (void)state;
    struct model m;
    struct cht_buf stream = {0};
    struct cht_env *files = open_files();
    struct cht_store *pool = one;
    must(cht_env_get(files, name, &one, &err));
    fill(&m, 12, 30, 17);
    put(one,
        "\xfe"
        "end",
        str("1"), 60000);
    put(one,
        "\xfe"
        "end",
        str("2"), UINT64_C(1000000000));
    take_backup(one, &stream);
    must(restore(&stream, 64 << 10));
    look_at_copy();
    struct cht_op ends[2] = {{.kind = CHT_OP_PAIR_READ,
                              .name = str("\xfe"
                                          "end")},
                             {.kind = CHT_OP_PAIR_READ,
                              .name = str("\xfe"
                                          "end")}};
    must(run(one, &ends[0], 1, 0));
    must(run(made, &ends[1], 1, 0));
    assert_true(ends[0].ends != 0 && ends[0].ends == ends[1].ends);
    struct cht_op del[2] = {{.kind = CHT_OP_PAIR_DEL,
                             .name = str("\xfe"
                                         "end"),
                             .with_values = true}};
    del[1] = del[0];
    must(run(one, &del[0], 1, 0));
    must(run(made, &del[1], 1, 0));
    char why[256];
    if (model_compare(&m, made, why, sizeof why) != 0)
        fail_msg("%s", why);
    drop_copy();
    model_free(&m);
    one = pool;
    close_files(files);
    cht_buf_free(&stream);
}

/* Its log begins somewhere in the middle, so the rest is in page files; all kinds of values, a name without one, names of one value, ends. *highest:
 * the last key that was given out, and has no value any more. */
static void fill_files(struct model *m, uint64_t *highest)
{
    uint8_t *bytes = calloc(1, LONG);
    char pair[8];
    fill(m, 12, 3000, 19);
    for (unsigned i = 0; i < 24; i++) { /* segments that nobody needs go */
        put(one, "long", (struct cht_str){bytes, LONG}, 0);
        if (i % 8 == 7)
            must(cht_store_checkpoint(one, &err));
    }
    struct cht_op insert = {.kind = CHT_OP_INSERT, .value = str("x")};
    must(run(one, &insert, 1, 0));
    *highest = insert.key;
    struct cht_op some[] = {{.kind = CHT_OP_PAIR_SET, .name = str("\xfe:none"), .key = *highest},
                            {.kind = CHT_OP_DELETE, .key = *highest},
                            {.kind = CHT_OP_PAIR_DEL, .name = str("long"), .with_values = true}};
    must(run(one, some, 3, 0));
    for (unsigned i = 0; i < 6; i++) {
        (void)snprintf(pair, sizeof pair, "\xfe:%u", i);
        put(one, pair, str("v"), i < 2 ? UINT64_C(1000000000) + i : i < 4 ? 1 : 0);
    }
    struct cht_op link = {.kind = CHT_OP_PAIR_LINK, .name = str("\xfe:other"), .value = str("\xfe:5")};
    must(run(one, &link, 1, 0));
    must(cht_store_checkpoint(one, &err));
    model_fill(bytes, LONG, 3);
    put(one, "\xfe:6", (struct cht_str){bytes, LONG}, 0); /* in the log only */
    free(bytes);
}

static void make_stream(struct cht_env *files, struct cht_buf *stream, struct model *m, uint64_t *highest)
{
    struct cht_store *pool = one;
    must(cht_env_get(files, name, &one, &err));
    fill_files(m, highest);
    take_backup(one, stream);
    one = pool;
}

static struct cht_op read_pair(struct cht_store *s, const char *pair)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_READ, .name = str(pair)};
    must(run(s, &op, 1, 0));
    return op;
}

/* What fill_files made beside the model, which does not know it; it is removed. */
static void look_at_others(struct cht_store *s, uint64_t highest)
{
    struct cht_buf b = {0};
    uint64_t key, pairs;
    uint8_t *bytes = malloc(LONG);
    must(cht_store_count(s, str("\xfe:"), &pairs, &err));
    assert_int_equal(pairs, 7); /* two have ended */
    uint64_t ends = read_pair(s, "\xfe:0").ends;
    assert_true(ends != 0 && read_pair(s, "\xfe:1").ends >= ends && read_pair(s, "\xfe:4").ends == 0);
    assert_true(read_pair(s, "\xfe:other").key == read_pair(s, "\xfe:5").key);
    must(cht_store_pair(s, str("\xfe:none"), &key, &err));
    assert_true(key == highest);
    assert_int_equal(cht_store_get(s, highest, &b, NULL, &err), CHT_KEY_NOT_FOUND);
    must(cht_store_pair_value(s, str("\xfe:6"), &key, &b, NULL, &err));
    model_fill(bytes, LONG, 3);
    assert_int_equal(b.len, LONG);
    assert_memory_equal(b.data, bytes, LONG);
    struct cht_op del = {.kind = CHT_OP_PREFIX_DEL, .name = str("\xfe:"), .with_values = true};
    must(run(s, &del, 1, 0));
    free(bytes);
    cht_buf_free(&b);
}

/* What is in page files comes over as well: the same keys, of which none is given out again. */
static void test_of_page_files(void **state)
{
    (void)state;
    struct model m;
    struct cht_buf stream = {0};
    uint64_t highest;
    char why[256];
    struct cht_env *files = open_files();
    make_stream(files, &stream, &m, &highest);
    close_files(files);
    must(restore(&stream, 64 << 10));
    look_at_copy();
    look_at_others(made, highest);
    if (model_compare(&m, made, why, sizeof why) != 0)
        fail_msg("%s", why);
    struct cht_op insert = {.kind = CHT_OP_INSERT, .value = str("new")};
    must(run(made, &insert, 1, 0));
    assert_true(insert.key > highest);
    assert_true(((struct cht_renv *)(void *)envs[1])->spool.taken == 0);
    model_free(&m);
    cht_buf_free(&stream);
}

static bool is_over(void *ctx)
{
    unsigned *left = ctx;
    return *left == 0 || --*left == 0;
}

/* By the second server, with other bounds; nothing of it is there. */
static enum cht_rc restore_bounded(struct cht_rados_config cfg, const struct cht_buf *stream)
{
    must(cht_env_close(envs[1], &err));
    two_open_env(&envs[1], cfg, true);
    enum cht_rc rc = restore(stream, 64 << 10);
    is_not_there();
    assert_int_equal(new_objects(), 0);
    return rc;
}

/* No folder, no room, a value that is too long, nobody who waits any more: each with its code. */
static void test_spool_refuses(void **state)
{
    (void)state;
    struct model m;
    struct cht_buf stream = {0};
    struct cht_restore *r;
    uint64_t highest;
    struct cht_rados_config cfg = two_config();
    struct cht_env *files = open_files();
    make_stream(files, &stream, &m, &highest);
    close_files(files);
    model_free(&m);
    remember_objects();
    for (unsigned left = 1; left < 5; left++) {
        unsigned n = left;
        must(cht_restore_new(envs[1], copy, &r, &err));
        cht_restore_ask(r, is_over, &n);
        must(feed(r, &stream, 0, stream.len, 1 << 20));
        assert_int_equal(cht_restore_finish(r, &err), CHT_CANCELLED);
        cht_restore_free(r);
        is_not_there();
        assert_int_equal(new_objects(), 0);
    }
    cfg.spool_dir = "/nothing/is/there";
    assert_int_equal(restore_bounded(cfg, &stream), CHT_NOT_SUPPORTED);
    cfg.spool_dir = NULL;
    cfg.max_value_size = 1000;
    assert_int_equal(restore_bounded(cfg, &stream), CHT_VALUE_TOO_LARGE);
    cfg.max_value_size = 0;
    cfg.spool_bytes = 64 << 10;
    assert_int_equal(restore_bounded(cfg, &stream), CHT_DISK_FULL);
    cfg.spool_bytes = stream.len + (UINT64_C(64) << 20);
    must(cht_env_close(envs[1], &err));
    two_open_env(&envs[1], cfg, true);
    must(restore(&stream, 64 << 10));
    cht_buf_free(&stream);
}

/* ---- failures ------------------------------------------------------------------------------------------------------------ */

/* Who has the name; until it is done nobody can do anything with it. */
static void test_name(void **state)
{
    (void)state;
    struct cht_buf stream = {0};
    struct cht_restore *r, *second;
    struct cht_store *s;
    put(one, "a", str("1"), 0);
    take_backup(one, &stream);
    assert_int_equal(cht_restore_new(envs[1], name, &r, &err), CHT_DATABASE_EXISTS);
    must(cht_restore_new(envs[1], NULL, &r, &err)); /* by its head */
    assert_int_equal(feed(r, &stream, 0, stream.len, 999), CHT_DATABASE_EXISTS);
    assert_string_equal(cht_restore_name(r), name);
    cht_restore_free(r);
    must(cht_env_get(envs[1], name, &s, &err));
    must(cht_restore_new(envs[1], copy, &r, &err));
    must(feed(r, &stream, 0, stream.len, 512));
    is_not_there();
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(cht_env_create(envs[i], copy, 4, &err), CHT_DATABASE_BUSY);
        assert_int_equal(cht_env_drop(envs[i], copy, &err), CHT_DATABASE_BUSY);
        must(cht_restore_new(envs[i], copy, &second, &err));
        assert_int_equal(feed(second, &stream, 0, stream.len, 999), CHT_DATABASE_BUSY);
        cht_restore_free(second);
    }
    must(cht_restore_finish(r, &err));
    cht_restore_free(r);
    look_at_copy();
    assert_int_equal(restore(&stream, 999), CHT_DATABASE_EXISTS);
    cht_buf_free(&stream);
}

/* A byte that is another, bytes that are missing: nothing stays. */
static void test_damaged(void **state)
{
    (void)state;
    struct cht_buf stream = {0};
    struct cht_rng rng;
    uint8_t value[3000];
    cht_rng_seed(&rng, 3);
    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (uint8_t)cht_rng_below(&rng, 256);
    put(one, "a", (struct cht_str){value, sizeof value}, 0);
    put(one, "b", str("1"), 0);
    take_backup(one, &stream);
    remember_objects();
    for (unsigned i = 0; i < (getenv("CHT_TEST_LONG") != NULL ? 60 : 6); i++) {
        size_t at = i < 3 ? 520 + 700 * i : cht_rng_below(&rng, stream.len);
        stream.data[at] ^= 0x10;
        enum cht_rc rc = restore(&stream, 5000);
        stream.data[at] ^= 0x10;
        if (rc != CHT_CORRUPT && rc != CHT_VERSION && rc != CHT_CANCELLED)
            fail_msg("byte %zu: %s", at, cht_rc_slug(rc));
        size_t len = stream.len;
        stream.len = cht_rng_below(&rng, len);
        rc = restore(&stream, 5000);
        if (rc != CHT_CORRUPT)
            fail_msg("%zu bytes: %s", stream.len, cht_rc_slug(rc));
        stream.len = len;
        is_not_there();
    }
    assert_int_equal(new_objects(), 0);
    must(restore(&stream, 5000));
    look_at_copy();
    cht_buf_free(&stream);
}

/* Every frame with the checksum of what it has now. */
static void seal(struct cht_buf *b, size_t len)
{
    struct cht_backup_chain chain = {0};
    cht_backup_seed(&chain, b->data);
    for (size_t p = CHT_BACKUP_HEAD; p < len;) {
        const uint8_t *f = b->data + p;
        uint32_t n = cht_get32(f + 8);
        struct cht_frame frame = {.kind = (enum cht_frame_kind)f[4],
                                  .file = f[5],
                                  .shard = cht_get16(f + 6),
                                  .at = cht_get64(f + 16),
                                  .size = f[4] != CHT_FRAME_DATA ? cht_get64(f + CHT_BACKUP_FRAME) : 0,
                                  .data = f + CHT_BACKUP_FRAME,
                                  .len = n};
        (void)cht_backup_put_frame(&chain, b->data + p, &frame);
        p += CHT_BACKUP_FRAME + n;
    }
    b->len = len;
}

/* The frames are whole, and what they say is no log that goes to its end: records that are damaged, missing, or longer than their segment. */
static void test_wrong_log(void **state)
{
    (void)state;
    struct cht_buf stream = {0}, other = {0};
    put(one, "a", str("a value of some length"), 0);
    take_backup(one, &stream);
    unsigned failures = 0;
    remember_objects();
    must(cht_buf_reserve(&other, stream.len, &err));
    size_t log = CHT_BACKUP_HEAD + 2 * CHT_BACKUP_FRAME + 8; /* the first bytes of the segment */
    for (size_t at = 0; at < 640; at += getenv("CHT_TEST_LONG") != NULL ? 1 : at < 512 ? 128 : 11) {
        memcpy(other.data, stream.data, stream.len);
        other.data[log + at + (at < 512 ? 0 : CHT_BACKUP_FRAME)] ^=
            0x21; /* the header is a frame of its own */
        seal(&other, stream.len);
        enum cht_rc rc = restore(&other, 5000);
        failures += rc != CHT_OK;
        if (rc != CHT_OK && rc != CHT_CORRUPT && rc != CHT_NOT_SUPPORTED && rc != CHT_VALUE_TOO_LARGE)
            fail_msg("byte %zu of the log: %s: %s", at, cht_rc_slug(rc), err.msg);
        if (rc == CHT_OK)
            drop_copy();
        is_not_there();
    }
    assert_true(failures > 5);
    assert_int_equal(new_objects(), 0);
    cht_buf_free(&stream);
    cht_buf_free(&other);
}

/* The frames are whole, and a page or a record of files is not: what does not match is found, and nothing stays. */
static void test_damaged_files(void **state)
{
    (void)state;
    struct model m;
    struct cht_buf stream = {0};
    struct cht_rng rng;
    uint64_t highest;
    unsigned failures = 0, n = getenv("CHT_TEST_LONG") != NULL ? 100 : 6;
    struct cht_env *files = open_files();
    make_stream(files, &stream, &m, &highest);
    close_files(files);
    model_free(&m);
    remember_objects();
    cht_rng_seed(&rng, 5);
    for (unsigned i = 0; i < n; i++) {
        size_t p = CHT_BACKUP_HEAD, at = cht_rng_below(&rng, stream.len), len = 0;
        while (p < at || stream.data[p + 4] != CHT_FRAME_DATA) { /* of the next frame, or the first of all */
            p += CHT_BACKUP_FRAME + cht_get32(stream.data + p + 8);
            if (p >= stream.len)
                p = CHT_BACKUP_HEAD, at = 0;
        }
        len = cht_get32(stream.data + p + 8);
        uint8_t *byte = stream.data + p + CHT_BACKUP_FRAME + cht_rng_below(&rng, len), was = *byte;
        *byte ^= 0x21;
        seal(&stream, stream.len);
        enum cht_rc rc = restore(&stream, 1 << 20);
        *byte = was;
        failures += rc != CHT_OK;
        if (rc == CHT_OK) /* zeros after a record, or what a record of the log has anew */
            drop_copy();
        else if (rc != CHT_CORRUPT && rc != CHT_VERSION)
            fail_msg("frame at %zu: %s: %s", p, cht_rc_slug(rc), err.msg);
        is_not_there();
        assert_int_equal(new_objects(), 0);
    }
    assert_true(failures > n / 3);
    seal(&stream, stream.len);
    must(restore(&stream, 1 << 20));
    cht_buf_free(&stream);
}

/* Another server takes it for left and removes it: whoever is at it is told, and nothing of it stays. One that says that it goes on is not. */
static void test_given_up(void **state)
{
    (void)state;
    struct cht_buf stream = {0};
    struct cht_restore *r;
    unsigned removed = 0;
    uint8_t *value = malloc(3 << 20);
    model_fill(value, 3 << 20, 7);
    put(one, "a", (struct cht_str){value, 3 << 20}, 0);
    take_backup(one, &stream);
    remember_objects();
    must(cht_restore_new(envs[1], copy, &r, &err));
    must(feed(r, &stream, 0, stream.len / 2, 1 << 20));
    assert_true(entry_of(copy).state == 'r');
    cht_restores_go_on((struct cht_renv *)(void *)envs[1]);
    make_old(400);
    must(cht_env_finish(envs[0], ignore, &removed, &err));
    assert_int_equal(removed, 1);
    is_not_there();
    must(feed(r, &stream, stream.len / 2, stream.len, 1 << 20)); /* it is held for the next commit */
    assert_int_equal(cht_restore_finish(r, &err), CHT_DATABASE_BUSY);
    cht_restore_free(r);
    assert_int_equal(new_objects(), 0);
    must(cht_restore_new(envs[1], copy, &r, &err));
    must(feed(r, &stream, 0, stream.len, 1 << 20));
    make_old(400);
    must(cht_env_create(envs[0], copy, 4, &err)); /* whoever wants the name */
    assert_int_equal(cht_restore_finish(r, &err), CHT_DATABASE_BUSY);
    cht_restore_free(r);
    drop_copy();
    assert_int_equal(new_objects(), 0);
    free(value);
    cht_buf_free(&stream);
}

/* A server ends on the way: there is no database, and any server removes what it left, once it has said nothing for five minutes. */
static int restore_in_process(const struct cht_buf *stream, const char *at)
{
    pid_t p = fork();
    if (p == 0) {
        (void)snprintf(stop_at, sizeof stop_at, "%s", at);
        at_step = two_stop;
        open_env(&envs[1], true);
        _exit(restore(stream, 4096) == CHT_OK ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(p, &status, 0), p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void kill_at(const struct cht_buf *stream, const char *at, bool finish)
{
    unsigned removed = 0;
    assert_int_equal(restore_in_process(stream, at), 9);
    open_env(&envs[0], false);
    open_env(&envs[1], false);
    is_not_there();
    must(cht_env_finish(envs[0], ignore, &removed, &err));
    assert_int_equal(removed, 0); /* it might live */
    assert_int_equal(restore(stream, 4096), CHT_DATABASE_BUSY);
    assert_true(new_objects() > 0);
    make_old(400);
    if (finish) {
        must(cht_env_finish(envs[0], ignore, &removed, &err));
        assert_int_equal(removed, 1);
        assert_int_equal(new_objects(), 0);
    }
    must(restore(stream, 4096));
    look_at_copy();
    drop_copy();
    assert_int_equal(new_objects(), 0);
    must(cht_env_close(envs[0], &err));
    must(cht_env_close(envs[1], &err));
}

static void test_killed(void **state)
{
    (void)state;
    struct cht_buf stream = {0}, of_files = {0};
    struct model m;
    uint64_t highest;
    new_names();
    struct cht_env *files = open_files();
    make_stream(files, &of_files, &m, &highest);
    close_files(files); /* its threads have ended */
    model_free(&m);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t p = fork(); /* nobody is connected who forks */
    if (p == 0) {
        open_env(&envs[0], false);
        must(cht_env_create(envs[0], name, 4, &err));
        must(cht_env_get(envs[0], name, &one, &err));
        put(one, "a", str("1"), 0);
        take_backup(one, &stream);
        bool good = write(pipes[1], &stream.len, sizeof stream.len) == sizeof stream.len;
        for (size_t at = 0; at < stream.len && good; at += 4096) {
            size_t n = stream.len - at < 4096 ? stream.len - at : 4096;
            good = write(pipes[1], stream.data + at, n) == (ssize_t)n;
        }
        _exit(good ? 0 : 1);
    }
    size_t len = 0;
    assert_int_equal(read(pipes[0], &len, sizeof len), sizeof len);
    must(cht_buf_reserve(&stream, len, &err));
    while (stream.len < len) {
        ssize_t n = read(pipes[0], stream.data + stream.len, len - stream.len);
        assert_true(n > 0);
        stream.len += (size_t)n;
    }
    int status = 1;
    assert_int_equal(waitpid(p, &status, 0), p);
    assert_int_equal(status, 0);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    one = NULL;
    open_env(&envs[0], false);
    remember_objects();
    must(cht_env_close(envs[0], &err));
    kill_at(&stream, "restore begun", true);
    kill_at(&stream, "restored", false);
    kill_at(&of_files, "restore begun", false);
    kill_at(&of_files, "restore poured", true);
    if (getenv("CHT_TEST_LONG") != NULL)
        kill_at(&of_files, "restored", true);
    cht_buf_free(&of_files);
    cht_buf_free(&stream);
}

/* While it goes on its server says so, whether bytes come or not. */
static void test_goes_on(void **state)
{
    (void)state;
    struct cht_buf stream = {0};
    struct cht_restore *r;
    if (getenv("CHT_TEST_LONG") == NULL)
        skip(); /* it takes ten seconds */
    put(one, "a", str("1"), 0);
    take_backup(one, &stream);
    must(cht_restore_new(envs[1], copy, &r, &err));
    must(feed(r, &stream, 0, stream.len / 2, 1 << 20));
    uint64_t since = entry_of(copy).since;
    struct cht_restore *second;
    must(cht_restore_new(envs[1], "nobody", &second, &err)); /* not begun: there is nothing to say */
    cht_env_quiet(envs[1]);                                  /* too soon */
    assert_true(entry_of(copy).since == since);
    for (unsigned i = 0; i < 120 && entry_of(copy).since == since; i++) {
        cht_sleep_ns(UINT64_C(200000000));
        cht_env_quiet(envs[1]);
    }
    assert_true(entry_of(copy).since > since);
    cht_restore_free(second);
    must(feed(r, &stream, stream.len / 2, stream.len, 1 << 20));
    must(cht_restore_finish(r, &err));
    cht_restore_free(r);
    cht_buf_free(&stream);
}

/* A word that was written, and whose answer did not come, is no other server's. */
static void test_unheard(void **state)
{
    (void)state;
    struct cht_renv *second = (struct cht_renv *)(void *)envs[1];
    struct cht_buf stream = {0};
    struct cht_restore *r;
    put(one, "a", str("1"), 0);
    put(one, "b", str("2"), UINT64_C(1000000000));
    take_backup(one, &stream);
    remember_objects();
    for (unsigned whole = 0; whole < 2; whole++) {
        must(cht_restore_new(envs[1], copy, &r, &err));
        must(feed(r, &stream, 0, stream.len / 2, 1 << 20));
        struct cht_listed written = entry_of(copy), old = written;
        assert_true(written.state == 'r');
        must(cht_catalogue_go_on(second, &written, &err)); /* r does not know of it */
        must(cht_catalogue_go_on(second, &old, &err));
        assert_true(entry_of(copy).since == old.since && old.since > written.since);
        old = written;
        assert_int_equal(cht_catalogue_remove(second, &old, &err),
                         CHT_DATABASE_BUSY); /* as any server would */
        if (whole) {
            must(feed(r, &stream, stream.len / 2, stream.len, 1 << 20));
            must(cht_restore_finish(r, &err));
        }
        cht_restore_free(r);
        if (whole) {
            look_at_copy();
            drop_copy();
        }
        assert_true(entry_of(copy).state == 0);
        assert_int_equal(new_objects(), 0);
    }
    cht_buf_free(&stream);
}

/* An allocation that fails anywhere: no database, nothing of it left, and the next one is right. */
static void fail_everywhere(const struct cht_buf *stream)
{
    bool reached = true, all = getenv("CHT_TEST_LONG") != NULL;
    unsigned failures = 0;
    for (uint64_t n = 1; reached; n = all ? n + 1 + n / 50 : 2 * n + 1) {
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = restore(stream, 1 << 20);
        reached = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        failures += rc != CHT_OK;
        if (rc != CHT_OK)
            assert_int_equal(rc, CHT_NO_MEMORY);
        assert_true(reached || rc == CHT_OK);
        if (rc == CHT_OK)
            drop_copy();
        is_not_there();
        if (new_objects() > 0) { /* of what could not be removed for want of memory */
            unsigned removed = 0;
            make_old(400);
            must(cht_env_finish(envs[0], ignore, &removed, &err));
        }
        assert_int_equal(new_objects(), 0);
    }
    assert_true(failures > 0);
}

static void test_allocations(void **state)
{
    (void)state;
    struct cht_buf stream = {0};
    struct model m;
    uint64_t highest;
    put(one, "a", str("1"), 0);
    put(one, "b", str("2"), UINT64_C(1000000000));
    take_backup(one, &stream);
    struct cht_env *files = open_files();
    remember_objects();
    fail_everywhere(&stream);
    make_stream(files, &stream, &m, &highest);
    close_files(files);
    model_free(&m);
    fail_everywhere(&stream);
    cht_buf_free(&stream);
}

/* ---- beside it --------------------------------------------------------------------------------------------------------- */

static _Atomic bool at_gate, gate_opens;
static void wait_at_gate(const char *what)
{
    if (strcmp(what, "dropping") != 0)
        return;
    atomic_store(&at_gate, true);
    while (!atomic_load(&gate_opens))
        cht_sleep_ns(UINT64_C(1000000));
}

/* A server that removes what another left, however long it takes, removes pairs that have ended meanwhile. */
static void test_removing_holds_up_nothing(void **state)
{
    (void)state;
    struct cht_renv *first = (struct cht_renv *)(void *)envs[0], *second = (struct cht_renv *)(void *)envs[1];
    struct cht_listed e;
    must(cht_catalogue_begin(first, copy, 4, 'c', &e, &err));
    make_old(400);
    atomic_store(&at_gate, false);
    atomic_store(&gate_opens, false);
    at_step = wait_at_gate;
    two_join();
    put(one, "ends", str("1"), 1);
    second->care.finished = cht_now_ns() - UINT64_C(601000000000); /* it is time to look */
    for (unsigned i = 0; i < 6000 && !atomic_load(&at_gate); i++) {
        cht_env_quiet(envs[1]);
        cht_sleep_ns(UINT64_C(10000000));
    }
    assert_true(atomic_load(&at_gate));
    uint64_t ended = 0;
    for (unsigned i = 0; i < 6000 && (ended = atomic_load(&cht_rdb(two)->ended)) == 0; i++) {
        cht_env_quiet(envs[1]);
        cht_sleep_ns(UINT64_C(10000000));
    }
    assert_int_equal(ended, 1);
    assert_true(entry_of(copy).state == 'd'); /* still at it */
    atomic_store(&gate_opens, true);
    for (unsigned i = 0; i < 6000 && entry_of(copy).state != 0; i++)
        cht_sleep_ns(UINT64_C(10000000));
    assert_true(entry_of(copy).state == 0);
}

int main(void)
{
    if (!two_ready())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed), /* it forks, so before anything is connected */
        cmocka_unit_test_setup_teardown(test_is_what_was_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rows_and_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_divided, setup, teardown),
        cmocka_unit_test_setup_teardown(test_of_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_of_page_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_spool_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_log, setup, teardown),
        cmocka_unit_test_setup_teardown(test_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unheard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allocations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_removing_holds_up_nothing, setup, teardown),
    };
    cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
