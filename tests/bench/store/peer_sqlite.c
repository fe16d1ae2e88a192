/* SQLite: WAL, synchronous=FULL, a table WITHOUT ROWID. One connection writes (threads take turns on a mutex, which
 * costs less than its busy handler); every reader has its own. */
#include "bench.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct db {
    char path[600];
    sqlite3 *conn;
    sqlite3_stmt *put;
    pthread_mutex_t lock;
};

static void check(sqlite3 *conn, int rc, const char *what)
{
    if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW)
        die("sqlite: %s: %s", what, conn == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(conn));
}

static void run(sqlite3 *conn, const char *sql)
{
    check(conn, sqlite3_exec(conn, sql, NULL, NULL, NULL), sql);
}

static sqlite3 *connect_to(const char *path)
{
    sqlite3 *conn;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    check(NULL, sqlite3_open_v2(path, &conn, flags, NULL), "open");
    run(conn, "PRAGMA journal_mode=WAL");
    run(conn, "PRAGMA synchronous=FULL");
    return conn;
}

static sqlite3_stmt *prepare(sqlite3 *conn, const char *sql)
{
    sqlite3_stmt *st;
    check(conn, sqlite3_prepare_v2(conn, sql, -1, &st, NULL), sql);
    return st;
}

static void *db_open(const struct conf *c, const char *dir)
{
    (void)c;
    struct db *d = calloc(1, sizeof *d);
    if (d == NULL)
        die("no memory");
    (void)snprintf(d->path, sizeof d->path, "%s/bench.sqlite", dir);
    d->conn = connect_to(d->path);
    run(d->conn, "CREATE TABLE IF NOT EXISTS t(name BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID");
    d->put =
        prepare(d->conn, "INSERT INTO t VALUES(?1,?2) ON CONFLICT(name) DO UPDATE SET value=excluded.value");
    if (pthread_mutex_init(&d->lock, NULL) != 0)
        die("pthread_mutex_init");
    return d;
}

static void db_close(void *db)
{
    struct db *d = db;
    check(d->conn, sqlite3_finalize(d->put), "finalize");
    check(d->conn, sqlite3_close(d->conn), "close");
    (void)pthread_mutex_destroy(&d->lock);
    free(d);
}

static void db_put(void *db, const struct pair *pairs, size_t n)
{
    struct db *d = db;
    if (pthread_mutex_lock(&d->lock) != 0)
        die("pthread_mutex_lock");
    run(d->conn, "BEGIN IMMEDIATE");
    for (size_t i = 0; i < n; i++) {
        check(d->conn, sqlite3_bind_blob(d->put, 1, pairs[i].name, NAME_SIZE, SQLITE_STATIC), "bind");
        check(d->conn, sqlite3_bind_blob(d->put, 2, pairs[i].value, VALUE_SIZE, SQLITE_STATIC), "bind");
        check(d->conn, sqlite3_step(d->put), "step");
        check(d->conn, sqlite3_reset(d->put), "reset");
    }
    run(d->conn, "COMMIT");
    if (pthread_mutex_unlock(&d->lock) != 0)
        die("pthread_mutex_unlock");
}

struct reader {
    sqlite3 *conn;
    sqlite3_stmt *get;
};

static void *reader_begin(void *db)
{
    struct reader *r = calloc(1, sizeof *r);
    if (r == NULL)
        die("no memory");
    r->conn = connect_to(((struct db *)db)->path);
    r->get = prepare(r->conn, "SELECT value FROM t WHERE name=?1");
    return r;
}

static bool reader_get(void *reader, const uint8_t name[NAME_SIZE], uint8_t value[VALUE_SIZE])
{
    struct reader *r = reader;
    check(r->conn, sqlite3_bind_blob(r->get, 1, name, NAME_SIZE, SQLITE_STATIC), "bind");
    int rc = sqlite3_step(r->get);
    check(r->conn, rc, "step");
    if (rc == SQLITE_ROW) {
        if (sqlite3_column_bytes(r->get, 0) != (int)VALUE_SIZE)
            die("sqlite: a value of another size");
        memcpy(value, sqlite3_column_blob(r->get, 0), VALUE_SIZE);
    }
    check(r->conn, sqlite3_reset(r->get), "reset");
    return rc == SQLITE_ROW;
}

static void reader_end(void *reader)
{
    struct reader *r = reader;
    check(r->conn, sqlite3_finalize(r->get), "finalize");
    check(r->conn, sqlite3_close(r->conn), "close");
    free(r);
}

static void db_scan(void *db, bool values, unsigned workers, struct scan_sum *out)
{
    (void)workers;
    struct db *d = db;
    int rc;
    sqlite3_stmt *st = prepare(d->conn, values ? "SELECT name, value FROM t ORDER BY name"
                                               : "SELECT name FROM t ORDER BY name");
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        out->entries++;
        scan_touch(out, sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0));
        if (values)
            scan_touch(out, sqlite3_column_blob(st, 1), (size_t)sqlite3_column_bytes(st, 1));
    }
    check(d->conn, rc, "step");
    check(d->conn, sqlite3_finalize(st), "finalize");
}

const struct peer peer_sqlite = {"sqlite",     1,          db_open,    db_close, db_put,
                                 reader_begin, reader_get, reader_end, db_scan,  NULL};
