/* cheetah: values found through the pair. Default configuration, one directory, 8 shards, durability sync. */
#include "bench.h"

#include "cheetah/scan.h"

#include <stdlib.h>
#include <string.h>

#define DATABASE "bench"
#define ENTRIES 1024u

struct db {
    struct cht_env *env;
    struct cht_store *store;
};

static void check(enum cht_rc rc, const struct cht_err *err, const char *what)
{
    if (rc != CHT_OK)
        die("cheetah: %s: %s: %s", what, cht_rc_slug(rc), err->msg);
}

static void *db_open(const struct conf *c, const char *dir)
{
    struct cht_err err = {0};
    struct db *d = calloc(1, sizeof *d);
    if (d == NULL)
        die("no memory");
    struct cht_env_config cfg = {.dirs = &dir,
                                 .dir_count = 1,
                                 .dirty_bytes = c->dirty_bytes,
                                 .value_order = c->order ? CHT_ORDER_ALWAYS : CHT_ORDER_RESTING};
    check(cht_env_open(&cfg, &d->env, &err), &err, "env_open");
    enum cht_rc rc = cht_env_get(d->env, DATABASE, &d->store, &err);
    if (rc == CHT_DATABASE_NOT_FOUND) {
        check(cht_env_create(d->env, DATABASE, 0, &err), &err, "create");
        rc = cht_env_get(d->env, DATABASE, &d->store, &err);
    }
    check(rc, &err, "get");
    return d;
}

static void db_close(void *db)
{
    struct db *d = db;
    struct cht_err err = {0};
    check(cht_env_close(d->env, &err), &err, "close");
    free(d);
}

static void db_put(void *db, const struct pair *pairs, size_t n)
{
    struct db *d = db;
    struct cht_op one;
    struct cht_op *ops = n == 1 ? &one : malloc(n * sizeof *ops);
    if (ops == NULL)
        die("no memory");
    memset(ops, 0, n * sizeof *ops);
    for (size_t i = 0; i < n; i++) {
        ops[i].kind = CHT_OP_PAIR_PUT;
        ops[i].name = (struct cht_str){pairs[i].name, NAME_SIZE};
        ops[i].value = (struct cht_str){pairs[i].value, VALUE_SIZE};
    }
    struct cht_commit commit = {.ops = ops, .count = n, .flags = n > 1 ? CHT_COMMIT_ATOMIC : 0};
    check(cht_store_commit(d->store, &commit), &commit.err, "commit");
    if (commit.failed != 0)
        die("cheetah: commit: %zu operations failed", commit.failed);
    if (ops != &one)
        free(ops);
}

struct reader {
    struct cht_store *store;
    struct cht_buf buf;
};

static void *reader_begin(void *db)
{
    struct reader *r = calloc(1, sizeof *r);
    if (r == NULL)
        die("no memory");
    r->store = ((struct db *)db)->store;
    return r;
}

static bool reader_get(void *reader, const uint8_t name[NAME_SIZE], uint8_t value[VALUE_SIZE])
{
    struct reader *r = reader;
    struct cht_err err;
    uint64_t key;
    enum cht_rc rc =
        cht_store_pair_value(r->store, (struct cht_str){name, NAME_SIZE}, &key, &r->buf, NULL, &err);
    if (rc == CHT_PAIR_NOT_FOUND)
        return false;
    check(rc, &err, "pair_value");
    if (r->buf.len != VALUE_SIZE)
        die("cheetah: a value of %zu bytes", r->buf.len);
    memcpy(value, r->buf.data, VALUE_SIZE);
    return true;
}

static void reader_end(void *reader)
{
    cht_buf_free(&((struct reader *)reader)->buf);
    free(reader);
}

static void db_scan(void *db, bool values, unsigned workers, struct scan_sum *out)
{
    struct db *d = db;
    struct cht_err err = {0};
    struct cht_scan *scan;
    static struct cht_entry entries[ENTRIES];
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = values, .workers = workers};
    check(cht_scan_open(d->store, &cfg, &scan, &err), &err, "scan_open");
    for (;;) {
        size_t n;
        check(cht_scan_next(scan, entries, ENTRIES, &n, &err), &err, "scan_next");
        if (n == 0)
            break;
        out->entries += n;
        for (size_t i = 0; i < n; i++) {
            scan_touch(out, entries[i].name, entries[i].name_len);
            if (!values)
                continue;
            if (entries[i].flags != 0 || entries[i].value_len != VALUE_SIZE)
                die("cheetah: scan: an entry with flags %u and %u bytes", entries[i].flags,
                    entries[i].value_len);
            scan_touch(out, entries[i].value, entries[i].value_len);
        }
    }
    cht_scan_close(scan);
}

static void db_stats(void *db, struct peer_stats *out)
{
    struct cht_store_stats st;
    struct cht_err err = {0};
    check(cht_store_stats(((struct db *)db)->store, &st, &err), &err, "stats");
    *out = (struct peer_stats){st.log_live, st.bytes_inserted, st.bytes_written};
}

struct cht_store *peer_cheetah_store(void *db) { return ((struct db *)db)->store; }

const struct peer peer_cheetah = {"cheetah",    2,          db_open,    db_close, db_put,
                                  reader_begin, reader_get, reader_end, db_scan,  db_stats};
