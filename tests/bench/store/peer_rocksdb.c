/* RocksDB: default options, no compression (the values do not compress), no Bloom filter (default), WAL synced. */
#include "bench.h"

#include <rocksdb/c.h>
#include <stdlib.h>
#include <string.h>

struct db {
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *wo;
    rocksdb_readoptions_t *ro;
    rocksdb_t *db;
    bool flush;
};

static void check(const char *err, const char *what)
{
    if (err != NULL)
        die("rocksdb: %s: %s", what, err);
}

static void *db_open(const struct conf *c, const char *dir)
{
    char *err = NULL;
    struct db *d = calloc(1, sizeof *d);
    if (d == NULL)
        die("no memory");
    d->flush = c->rocksdb_flush;
    d->options = rocksdb_options_create();
    d->wo = rocksdb_writeoptions_create();
    d->ro = rocksdb_readoptions_create();
    rocksdb_options_set_create_if_missing(d->options, 1);
    rocksdb_options_set_compression(d->options, rocksdb_no_compression);
    rocksdb_writeoptions_set_sync(d->wo, 1);
    d->db = rocksdb_open(d->options, dir, &err);
    check(err, "open");
    return d;
}

static void db_close(void *db)
{
    struct db *d = db;
    if (d->flush) {
        char *err = NULL;
        rocksdb_flushoptions_t *fo = rocksdb_flushoptions_create();
        rocksdb_flushoptions_set_wait(fo, 1);
        rocksdb_flush(d->db, fo, &err);
        check(err, "flush");
        rocksdb_flushoptions_destroy(fo);
    }
    rocksdb_close(d->db);
    rocksdb_readoptions_destroy(d->ro);
    rocksdb_writeoptions_destroy(d->wo);
    rocksdb_options_destroy(d->options);
    free(d);
}

static void db_put(void *db, const struct pair *pairs, size_t n)
{
    struct db *d = db;
    char *err = NULL;
    rocksdb_writebatch_t *b = rocksdb_writebatch_create();
    for (size_t i = 0; i < n; i++)
        rocksdb_writebatch_put(b, (const char *)pairs[i].name, NAME_SIZE, (const char *)pairs[i].value,
                               VALUE_SIZE);
    rocksdb_write(d->db, d->wo, b, &err);
    check(err, "write");
    rocksdb_writebatch_destroy(b);
}

static void *reader_begin(void *db) { return db; }

static bool reader_get(void *reader, const uint8_t name[NAME_SIZE], uint8_t value[VALUE_SIZE])
{
    struct db *d = reader;
    char *err = NULL;
    size_t n = 0;
    rocksdb_pinnableslice_t *s = rocksdb_get_pinned(d->db, d->ro, (const char *)name, NAME_SIZE, &err);
    check(err, "get");
    if (s == NULL)
        return false;
    const char *p = rocksdb_pinnableslice_value(s, &n);
    if (n != VALUE_SIZE)
        die("rocksdb: a value of %zu bytes", n);
    memcpy(value, p, VALUE_SIZE);
    rocksdb_pinnableslice_destroy(s);
    return true;
}

static void reader_end(void *reader) { (void)reader; }

static void db_scan(void *db, bool values, unsigned workers, struct scan_sum *out)
{
    (void)workers;
    struct db *d = db;
    char *err = NULL;
    rocksdb_iterator_t *it = rocksdb_create_iterator(d->db, d->ro);
    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t n;
        const char *p = rocksdb_iter_key(it, &n);
        out->entries++;
        scan_touch(out, (const uint8_t *)p, n);
        if (values) {
            p = rocksdb_iter_value(it, &n);
            scan_touch(out, (const uint8_t *)p, n);
        }
    }
    rocksdb_iter_get_error(it, &err);
    check(err, "iterator");
    rocksdb_iter_destroy(it);
}

const struct peer peer_rocksdb = {"rocksdb",    1,          db_open,    db_close, db_put,
                                  reader_begin, reader_get, reader_end, db_scan,  NULL};
