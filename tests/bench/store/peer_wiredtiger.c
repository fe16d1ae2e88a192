/* WiredTiger: one table of raw items, no compression (default), its log synced at each commit (transaction_sync). A session belongs to a thread: writers
 * take one from a list and give it back, every reader has its own. */
#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wiredtiger.h>

struct writer {
    WT_SESSION *session;
    WT_CURSOR *cursor;
};

struct db {
    WT_CONNECTION *conn;
    struct writer idle[SINGLE_THREADS + 1];
    size_t n; /* idle ones */
    pthread_mutex_t lock;
};

static void check(int rc, const char *what)
{
    if (rc != 0)
        die("wiredtiger: %s: %s", what, wiredtiger_strerror(rc));
}

static struct writer open_session(const struct db *d, const char *options)
{
    struct writer w;
    check(d->conn->open_session(d->conn, NULL, NULL, &w.session), "open_session");
    check(w.session->open_cursor(w.session, "table:bench", NULL, options, &w.cursor), "open_cursor");
    return w;
}

static void *db_open(const struct conf *c, const char *dir)
{
    (void)c;
    struct db *d = calloc(1, sizeof *d);
    if (d == NULL)
        die("no memory");
    check(wiredtiger_open(
              dir, NULL,
              "create,session_max=200,log=(enabled=true),transaction_sync=(enabled=true,method=fsync)",
              &d->conn),
          "open");
    WT_SESSION *s;
    check(d->conn->open_session(d->conn, NULL, NULL, &s), "open_session");
    check(s->create(s, "table:bench", "key_format=u,value_format=u"), "create");
    check(s->close(s, NULL), "close of a session");
    if (pthread_mutex_init(&d->lock, NULL) != 0)
        die("pthread_mutex_init");
    return d;
}

static void db_close(void *db)
{
    struct db *d = db;
    check(d->conn->close(d->conn, NULL), "close"); /* with its sessions */
    (void)pthread_mutex_destroy(&d->lock);
    free(d);
}

static struct writer take(struct db *d)
{
    struct writer w = {NULL, NULL};
    if (pthread_mutex_lock(&d->lock) != 0)
        die("pthread_mutex_lock");
    if (d->n > 0)
        w = d->idle[--d->n];
    if (pthread_mutex_unlock(&d->lock) != 0)
        die("pthread_mutex_unlock");
    return w.session != NULL ? w : open_session(d, "overwrite=true");
}

static void give(struct db *d, struct writer w)
{
    if (pthread_mutex_lock(&d->lock) != 0)
        die("pthread_mutex_lock");
    if (d->n > SINGLE_THREADS)
        die("wiredtiger: too many writers");
    d->idle[d->n++] = w;
    if (pthread_mutex_unlock(&d->lock) != 0)
        die("pthread_mutex_unlock");
}

/* False: another transaction was first, and all is to be done again. */
static bool put_once(struct writer w, const struct pair *pairs, size_t n)
{
    check(w.session->begin_transaction(w.session, NULL), "begin_transaction");
    for (size_t i = 0; i < n; i++) {
        WT_ITEM k = {.data = pairs[i].name, .size = NAME_SIZE},
                v = {.data = pairs[i].value, .size = VALUE_SIZE};
        w.cursor->set_key(w.cursor, &k);
        w.cursor->set_value(w.cursor, &v);
        int rc = w.cursor->insert(w.cursor);
        if (rc == WT_ROLLBACK) {
            check(w.session->rollback_transaction(w.session, NULL), "rollback_transaction");
            return false;
        }
        check(rc, "insert");
    }
    check(w.session->commit_transaction(w.session, NULL), "commit_transaction");
    return true;
}

static void db_put(void *db, const struct pair *pairs, size_t n)
{
    struct writer w = take(db);
    while (!put_once(w, pairs, n)) {
    }
    give(db, w);
}

static void *reader_begin(void *db)
{
    struct writer *r = malloc(sizeof *r);
    if (r == NULL)
        die("no memory");
    *r = open_session(db, NULL);
    return r;
}

static bool reader_get(void *reader, const uint8_t name[NAME_SIZE], uint8_t value[VALUE_SIZE])
{
    struct writer *r = reader;
    WT_ITEM k = {.data = name, .size = NAME_SIZE}, v;
    r->cursor->set_key(r->cursor, &k);
    int rc = r->cursor->search(r->cursor);
    if (rc == WT_NOTFOUND)
        return false;
    check(rc, "search");
    check(r->cursor->get_value(r->cursor, &v), "get_value");
    if (v.size != VALUE_SIZE)
        die("wiredtiger: a value of %zu bytes", v.size);
    memcpy(value, v.data, VALUE_SIZE);
    check(r->cursor->reset(r->cursor), "reset");
    return true;
}

static void reader_end(void *reader)
{
    struct writer *r = reader;
    check(r->session->close(r->session, NULL), "close of a session");
    free(r);
}

static void db_scan(void *db, bool values, unsigned workers, struct scan_sum *out)
{
    (void)workers;
    struct writer w = open_session(db, NULL);
    WT_ITEM k, v;
    int rc;
    while ((rc = w.cursor->next(w.cursor)) == 0) {
        check(w.cursor->get_key(w.cursor, &k), "get_key");
        out->entries++;
        scan_touch(out, k.data, k.size);
        if (values) {
            check(w.cursor->get_value(w.cursor, &v), "get_value");
            scan_touch(out, v.data, v.size);
        }
    }
    if (rc != WT_NOTFOUND)
        check(rc, "next");
    check(w.session->close(w.session, NULL), "close of a session");
}

const struct peer peer_wiredtiger = {"wiredtiger", 1,          db_open,    db_close, db_put,
                                     reader_begin, reader_get, reader_end, db_scan,  NULL};
