/* dbs: the databases a server has open, by name, each with a count of the requests that use it, so that one can be
 * closed or dropped while others are served. One that is not open costs nothing here: dbs_open opens it when it is used, and what
 * is not used is closed again (keeper.h), as is the one that was used least lately if more are open than the system has room for.
 * "default" stays open.
 *
 * Threads: any. dbs_get is a short look-up; the functions marked "blocks" do file work and belong on a job thread. What is done
 * about one name goes one after the other; no name waits for another.
 */
#pragma once

#include "cheetah/store.h"

#include <stdatomic.h>

#define DBS_MAPS_A_SHARD 5u /* page files, each mapped once */

struct dbs;

struct database {
    char name[CHT_DATABASE_NAME_MAX + 1];
    struct cht_store *store; /* set before it is listed, then read-only, as are the next two */
    struct dbs *table;
    unsigned maps;          /* mappings that it has */
    _Atomic uint64_t users; /* requests that hold it */
    _Atomic uint64_t used;  /* dbs_seconds when it was last got or put; 0: only visited */
    _Atomic bool dropping;  /* whoever holds it ends what it does and puts it */
    struct database *next;  /* guarded by the table's lock, as is the next */
    struct database *chain;
};

struct dbs_stats {
    uint64_t open, opened, closed; /* now; opened and closed (not: dropped) since the start */
};

enum cht_rc dbs_new(struct cht_env *env, struct dbs **out, struct cht_err *err);
/* fn is called after a database was closed, with the address its store had, which may be in use again. Before others use the
 * table. */
void dbs_on_close(struct dbs *t, void (*fn)(void *ctx, const struct cht_store *store), void *ctx);
/* The most mappings that all open databases have together: before one more is opened, others are closed, if there are any that are not
 * used. 0: no limit. */
void dbs_limit(struct dbs *t, uint64_t maps);
/* Nobody may hold a database any more; the env stays open. NULL is legal. */
void dbs_free(struct dbs *t);

/* The open database of this name, held until dbs_put; NULL if it is not open (which says nothing of whether it is
 * there: dbs_open). */
struct database *dbs_get(struct dbs *t, const char *name);
void dbs_put(struct database *d);  /* NULL is legal */
void dbs_hold(struct database *d); /* once more, by someone who holds it */

/* Blocks. Opens it, and with `create` makes it first if it is missing (*created). Held like by dbs_get.
 * CHT_DATABASE_NOT_FOUND, CHT_INVALID_DATABASE_NAME, CHT_DATABASE_BUSY, and what opening says. */
enum cht_rc dbs_open(struct dbs *t, const char *name, bool create, unsigned shards, struct database **out,
                     bool *created, struct cht_err *err);
/* Blocks until all who hold it have put it, at most wait_ns; then deletes it. "default" is made anew, empty.
 * CHT_DATABASE_NOT_FOUND, CHT_DATABASE_BUSY. */
enum cht_rc dbs_drop(struct dbs *t, const char *name, uint64_t wait_ns, struct cht_err *err);
/* As dbs_open without create, by something that looks at every database and does not count as use. Blocks. */
enum cht_rc dbs_visit(struct dbs *t, const char *name, struct database **out, struct cht_err *err);
/* Closes it if nobody holds it and it was last used at or before `used`. Blocks for a checkpoint. True if it is closed now; false
 * with CHT_OK: it is in use, not open, or "default". A failure with false: it stays open. */
bool dbs_close_unused(struct dbs *t, const char *name, uint64_t used, enum cht_rc *rc, struct cht_err *err);
/* The names of at most max databases that nobody holds and that were last used at or before `used`. */
size_t dbs_unused(struct dbs *t, uint64_t used, char (*names)[CHT_DATABASE_NAME_MAX + 1], size_t max);
/* Seconds; they go on with every call of dbs_tick, which belongs to the keeper. Begin with 1. */
uint64_t dbs_seconds(const struct dbs *t);
void dbs_tick(struct dbs *t);
void dbs_read_stats(const struct dbs *t, struct dbs_stats *out);
/* Whether opening it would find nothing to recover. Blocks. */
enum cht_rc dbs_is_clean(struct dbs *t, const char *name, bool *clean, struct cht_err *err);
/* Calls fn for every database on disk, in byte order. Blocks. */
enum cht_rc dbs_list(struct dbs *t, void (*fn)(void *ctx, const char *name), void *ctx, struct cht_err *err);
/* Blocks. Removes what could not be removed when it was dropped, if there is anything: cht_env_finish. */
void dbs_finish(struct dbs *t, void (*fn)(void *ctx, const char *name, enum cht_rc rc, const char *what),
                void *ctx);
/* Calls fn for every open database, each held meanwhile. */
void dbs_each(struct dbs *t, void (*fn)(void *ctx, struct database *d), void *ctx);
