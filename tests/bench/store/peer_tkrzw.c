/* Tkrzw: a TreeDBM, in order of the keys, default options. It has no log: a group of pairs is set and the file is then synchronized hard, under a
 * mutex, since what is half set must not be synchronized. A crash in between leaves the file to be repaired, so its commits are less than ours. */
#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tkrzw_langc.h>

struct db {
    TkrzwDBM *dbm;
    pthread_mutex_t lock;
};

static void check(bool ok, const char *what)
{
    if (!ok)
        die("tkrzw: %s: %s", what, tkrzw_get_last_status_message());
}

static void *db_open(const struct conf *c, const char *dir)
{
    (void)c;
    char path[600];
    struct db *d = calloc(1, sizeof *d);
    if (d == NULL)
        die("no memory");
    (void)snprintf(path, sizeof path, "%s/bench.tkt", dir);
    d->dbm = tkrzw_dbm_open(path, true, "dbm=TreeDBM");
    check(d->dbm != NULL, "open");
    if (pthread_mutex_init(&d->lock, NULL) != 0)
        die("pthread_mutex_init");
    return d;
}

static void db_close(void *db)
{
    struct db *d = db;
    check(tkrzw_dbm_close(d->dbm), "close");
    (void)pthread_mutex_destroy(&d->lock);
    free(d);
}

static void db_put(void *db, const struct pair *pairs, size_t n)
{
    struct db *d = db;
    TkrzwKeyValuePair records[BATCH];
    if (n > BATCH)
        die("tkrzw: %zu pairs a commit", n);
    for (size_t i = 0; i < n; i++)
        records[i] = (TkrzwKeyValuePair){(const char *)pairs[i].name, NAME_SIZE, (const char *)pairs[i].value,
                                         VALUE_SIZE};
    if (pthread_mutex_lock(&d->lock) != 0)
        die("pthread_mutex_lock");
    check(tkrzw_dbm_set_multi(d->dbm, records, (int32_t)n, true), "set_multi");
    check(tkrzw_dbm_synchronize(d->dbm, true, NULL, NULL, ""), "synchronize");
    if (pthread_mutex_unlock(&d->lock) != 0)
        die("pthread_mutex_unlock");
}

static void *reader_begin(void *db) { return db; }

static bool reader_get(void *reader, const uint8_t name[NAME_SIZE], uint8_t value[VALUE_SIZE])
{
    struct db *d = reader;
    int32_t n = 0;
    char *p = tkrzw_dbm_get(d->dbm, (const char *)name, NAME_SIZE, &n);
    if (p == NULL)
        return false;
    if (n != (int32_t)VALUE_SIZE)
        die("tkrzw: a value of %d bytes", n);
    memcpy(value, p, VALUE_SIZE);
    free(p);
    return true;
}

static void reader_end(void *reader) { (void)reader; }

static void db_scan(void *db, bool values, unsigned workers, struct scan_sum *out)
{
    (void)workers;
    struct db *d = db;
    TkrzwDBMIter *it = tkrzw_dbm_make_iterator(d->dbm);
    char *k, *v;
    int32_t kn, vn;
    check(tkrzw_dbm_iter_first(it), "iter_first");
    while (tkrzw_dbm_iter_get(it, &k, &kn, values ? &v : NULL, values ? &vn : NULL)) {
        out->entries++;
        scan_touch(out, (const uint8_t *)k, (size_t)kn);
        free(k);
        if (values) {
            scan_touch(out, (const uint8_t *)v, (size_t)vn);
            free(v);
        }
        check(tkrzw_dbm_iter_next(it), "iter_next");
    }
    tkrzw_dbm_iter_free(it);
}

const struct peer peer_tkrzw = {"tkrzw",      1,          db_open,    db_close, db_put,
                                reader_begin, reader_get, reader_end, db_scan,  NULL};
