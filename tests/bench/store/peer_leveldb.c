/* LevelDB: default options, no compression (the values do not compress), no Bloom filter (default), its log synced. */
#include "bench.h"

#include <leveldb/c.h>
#include <stdlib.h>
#include <string.h>

struct db {
    leveldb_options_t *options;
    leveldb_writeoptions_t *wo;
    leveldb_readoptions_t *ro;
    leveldb_t *db;
};

static void check(const char *err, const char *what)
{
    if (err != NULL)
        die("leveldb: %s: %s", what, err);
}

static void *db_open(const struct conf *c, const char *dir)
{
    (void)c;
    char *err = NULL;
    struct db *d = calloc(1, sizeof *d);
    if (d == NULL)
        die("no memory");
    d->options = leveldb_options_create();
    d->wo = leveldb_writeoptions_create();
    d->ro = leveldb_readoptions_create();
    leveldb_options_set_create_if_missing(d->options, 1);
    leveldb_options_set_compression(d->options, leveldb_no_compression);
    leveldb_writeoptions_set_sync(d->wo, 1);
    d->db = leveldb_open(d->options, dir, &err);
    check(err, "open");
    return d;
}

static void db_close(void *db)
{
    struct db *d = db;
    leveldb_close(d->db);
    leveldb_readoptions_destroy(d->ro);
    leveldb_writeoptions_destroy(d->wo);
    leveldb_options_destroy(d->options);
    free(d);
}

static void db_put(void *db, const struct pair *pairs, size_t n)
{
    struct db *d = db;
    char *err = NULL;
    leveldb_writebatch_t *b = leveldb_writebatch_create();
    for (size_t i = 0; i < n; i++)
        leveldb_writebatch_put(b, (const char *)pairs[i].name, NAME_SIZE, (const char *)pairs[i].value,
                               VALUE_SIZE);
    leveldb_write(d->db, d->wo, b, &err);
    check(err, "write");
    leveldb_writebatch_destroy(b);
}

static void *reader_begin(void *db) { return db; }

static bool reader_get(void *reader, const uint8_t name[NAME_SIZE], uint8_t value[VALUE_SIZE])
{
    struct db *d = reader;
    char *err = NULL;
    size_t n = 0;
    char *p = leveldb_get(d->db, d->ro, (const char *)name, NAME_SIZE, &n, &err);
    check(err, "get");
    if (p == NULL)
        return false;
    if (n != VALUE_SIZE)
        die("leveldb: a value of %zu bytes", n);
    memcpy(value, p, VALUE_SIZE);
    leveldb_free(p);
    return true;
}

static void reader_end(void *reader) { (void)reader; }

static void db_scan(void *db, bool values, unsigned workers, struct scan_sum *out)
{
    (void)workers;
    struct db *d = db;
    char *err = NULL;
    leveldb_iterator_t *it = leveldb_create_iterator(d->db, d->ro);
    for (leveldb_iter_seek_to_first(it); leveldb_iter_valid(it); leveldb_iter_next(it)) {
        size_t n;
        const char *p = leveldb_iter_key(it, &n);
        out->entries++;
        scan_touch(out, (const uint8_t *)p, n);
        if (values) {
            p = leveldb_iter_value(it, &n);
            scan_touch(out, (const uint8_t *)p, n);
        }
    }
    leveldb_iter_get_error(it, &err);
    check(err, "iterator");
    leveldb_iter_destroy(it);
}

const struct peer peer_leveldb = {"leveldb",    1,          db_open,    db_close, db_put,
                                  reader_begin, reader_get, reader_end, db_scan,  NULL};
