/* LMDB: one database, MDB_NOSYNC, MDB_WRITEMAP and MDB_APPEND off. A reader keeps its transaction for READS_A_TXN
 * reads: beginning one for every read would be slower, and nobody has to. */
#include "bench.h"

#include <lmdb.h>
#include <stdlib.h>
#include <string.h>

#define READS_A_TXN 1000u

struct db {
    MDB_env *env;
    MDB_dbi dbi;
};

static void check(int rc, const char *what)
{
    if (rc != 0)
        die("lmdb: %s: %s", what, mdb_strerror(rc));
}

static void *db_open(const struct conf *c, const char *dir)
{
    struct db *d = calloc(1, sizeof *d);
    if (d == NULL)
        die("no memory");
    uint64_t pairs = c->pairs > c->limited_pairs ? c->pairs : c->limited_pairs;
    check(mdb_env_create(&d->env), "env_create");
    check(mdb_env_set_mapsize(d->env, (size_t)((UINT64_C(1) << 30) + pairs * 1024)), "set_mapsize");
    check(mdb_env_open(d->env, dir, 0, 0644), "env_open");
    MDB_txn *txn;
    check(mdb_txn_begin(d->env, NULL, 0, &txn), "txn_begin");
    check(mdb_dbi_open(txn, NULL, 0, &d->dbi), "dbi_open");
    check(mdb_txn_commit(txn), "txn_commit");
    return d;
}

static void db_close(void *db)
{
    struct db *d = db;
    mdb_env_close(d->env);
    free(d);
}

static void db_put(void *db, const struct pair *pairs, size_t n)
{
    struct db *d = db;
    MDB_txn *txn;
    check(mdb_txn_begin(d->env, NULL, 0, &txn), "txn_begin");
    for (size_t i = 0; i < n; i++) {
        MDB_val k = {NAME_SIZE, (void *)(uintptr_t)pairs[i].name};
        MDB_val v = {VALUE_SIZE, (void *)(uintptr_t)pairs[i].value};
        check(mdb_put(txn, d->dbi, &k, &v, 0), "put");
    }
    check(mdb_txn_commit(txn), "txn_commit");
}

struct reader {
    MDB_txn *txn;
    MDB_dbi dbi;
    unsigned left;
};

static void *reader_begin(void *db)
{
    struct db *d = db;
    struct reader *r = calloc(1, sizeof *r);
    if (r == NULL)
        die("no memory");
    r->dbi = d->dbi;
    r->left = READS_A_TXN;
    check(mdb_txn_begin(d->env, NULL, MDB_RDONLY, &r->txn), "txn_begin");
    return r;
}

static bool reader_get(void *reader, const uint8_t name[NAME_SIZE], uint8_t value[VALUE_SIZE])
{
    struct reader *r = reader;
    if (r->left-- == 0) {
        mdb_txn_reset(r->txn);
        check(mdb_txn_renew(r->txn), "txn_renew");
        r->left = READS_A_TXN;
    }
    MDB_val k = {NAME_SIZE, (void *)(uintptr_t)name};
    MDB_val v;
    int rc = mdb_get(r->txn, r->dbi, &k, &v);
    if (rc == MDB_NOTFOUND)
        return false;
    check(rc, "get");
    if (v.mv_size != VALUE_SIZE)
        die("lmdb: a value of %zu bytes", v.mv_size);
    memcpy(value, v.mv_data, VALUE_SIZE);
    return true;
}

static void reader_end(void *reader)
{
    mdb_txn_abort(((struct reader *)reader)->txn);
    free(reader);
}

static void db_scan(void *db, bool values, unsigned workers, struct scan_sum *out)
{
    (void)workers;
    struct db *d = db;
    MDB_txn *txn;
    MDB_cursor *cur;
    MDB_val k;
    MDB_val v;
    check(mdb_txn_begin(d->env, NULL, MDB_RDONLY, &txn), "txn_begin");
    check(mdb_cursor_open(txn, d->dbi, &cur), "cursor_open");
    int rc = mdb_cursor_get(cur, &k, values ? &v : NULL, MDB_FIRST);
    for (; rc == 0; rc = mdb_cursor_get(cur, &k, values ? &v : NULL, MDB_NEXT)) {
        out->entries++;
        scan_touch(out, k.mv_data, k.mv_size);
        if (values)
            scan_touch(out, v.mv_data, v.mv_size);
    }
    if (rc != MDB_NOTFOUND)
        check(rc, "cursor_get");
    mdb_cursor_close(cur);
    mdb_txn_abort(txn);
}

const struct peer peer_lmdb = {"lmdb",       1,          db_open,    db_close, db_put,
                               reader_begin, reader_get, reader_end, db_scan,  NULL};
