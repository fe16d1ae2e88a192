/* dbs: the databases a server has open, by name, each with a count of the requests that use it, so that one can be
 * closed or dropped while others are served. One that is not open costs nothing here: svc_dbs_open opens it when it is used, and what
 * is not used is closed again (keeper.h), as is the one that was used least lately if more are open than the system has room for.
 * "default" stays open.
 *
 * Threads: any. svc_dbs_get is a short look-up; the functions marked "blocks" do file work and belong on a job thread. What is done
 * about one name goes one after the other; no name waits for another.
 */
#pragma once

#include "cheetah/store.h"

#include <stdatomic.h>

#define SVC_DBS_MAPS_A_SHARD 5u /* page files, each mapped once */

struct svc_dbs;

struct svc_database {
    char name[CHT_DATABASE_NAME_MAX + 1];
    struct cht_store *store; /* set before it is listed, then read-only, as are the next two */
    struct svc_dbs *table;
    unsigned maps; /* mappings that it has */
    _Atomic uint64_t
        fresh; /* made when it was opened: the number of that; 0: not, or somebody else has asked for it since */
    _Atomic uint64_t users; /* requests that hold it */
    _Atomic uint64_t used;  /* svc_dbs_seconds when it was last got or put; 0: only visited */
    _Atomic bool dropping;  /* whoever holds it ends what it does and puts it */
    _Atomic bool gone;      /* svc_dbs_gone; then dropping too */
    _Atomic int hidden;     /* what the line protocol knows of hidden pairs (tcp/hidden.h); 0: nothing yet */
    struct svc_database *next; /* guarded by the table's lock, as is the next */
    struct svc_database *chain;
};

struct svc_dbs_stats {
    uint64_t open, opened, closed; /* now; opened and closed (not: dropped) since the start */
};

enum cht_rc svc_dbs_new(struct cht_env *env, struct svc_dbs **out, struct cht_err *err);
/* fn is called after a database was closed or dropped, with the address its store had, which may be in use again. Before others use the
 * table. */
void svc_dbs_on_close(struct svc_dbs *t, void (*fn)(void *ctx, const struct cht_store *store), void *ctx);
/* The most mappings that all open databases have together: before one more is opened, others are closed, if there are any that are not
 * used. 0: no limit. */
void svc_dbs_limit(struct svc_dbs *t, uint64_t maps);
/* Nobody may hold a database any more; the env stays open. NULL is legal. */
void svc_dbs_free(struct svc_dbs *t);

/* The open database of this name, held until svc_dbs_put; NULL if it is not open (which says nothing of whether it is
 * there: svc_dbs_open). */
struct svc_database *svc_dbs_get(struct svc_dbs *t, const char *name);
void svc_dbs_put(struct svc_database *d);  /* NULL is legal */
void svc_dbs_hold(struct svc_database *d); /* once more, by someone who holds it */
/* By someone who holds it: its store says that another process has dropped the database (CHT_DATABASE_DROPPED). Whoever holds it ends
 * what he does; the next svc_dbs_open opens what is there under its name by then. */
void svc_dbs_gone(struct svc_database *d);

/* Blocks. Opens it, and with `create` makes it first if it is missing (*created); so "default" without
 * it, if svc_dbs_drop could not make it anew (a full disk). Held like by dbs_get.
 * CHT_DATABASE_NOT_FOUND, CHT_INVALID_DATABASE_NAME, CHT_DATABASE_BUSY, and what opening says. */
enum cht_rc svc_dbs_open(struct svc_dbs *t, const char *name, bool create, unsigned shards,
                         struct svc_database **out, bool *created, struct cht_err *err);
/* Blocks. By whoever made it with svc_dbs_open, had its `fresh` then, and holds it no more, for something that has failed: it is deleted if it is
 * that one, empty, held by nobody, and nobody has asked for it since by svc_dbs_get or svc_dbs_open. One on other machines stays: others may
 * write to it. */
void svc_dbs_undo(struct svc_dbs *t, const char *name, uint64_t fresh);
/* Blocks until all who hold it have put it, at most wait_ns; then deletes it. "default" is made anew, empty, also
 * if a drop before could not do that.
 * CHT_DATABASE_NOT_FOUND, CHT_DATABASE_BUSY. */
enum cht_rc svc_dbs_drop(struct svc_dbs *t, const char *name, uint64_t wait_ns, struct cht_err *err);
/* As svc_dbs_open without create, by something that looks at every database and does not count as use. Blocks. */
enum cht_rc svc_dbs_visit(struct svc_dbs *t, const char *name, struct svc_database **out,
                          struct cht_err *err);
/* Closes it if nobody holds it and it was last used at or before `used`. Blocks for a checkpoint. True if it is closed now; false
 * with CHT_OK: it is in use, not open, or "default". A failure with false: it stays open. */
bool svc_dbs_close_unused(struct svc_dbs *t, const char *name, uint64_t used, enum cht_rc *rc,
                          struct cht_err *err);
/* The names of at most max databases that nobody holds and that were last used at or before `used`. */
size_t svc_dbs_unused(struct svc_dbs *t, uint64_t used, char (*names)[CHT_DATABASE_NAME_MAX + 1], size_t max);
/* Seconds; they go on with every call of svc_dbs_tick, which belongs to the keeper. Begin with 1. */
uint64_t svc_dbs_seconds(const struct svc_dbs *t);
void svc_dbs_tick(struct svc_dbs *t);
void svc_dbs_read_stats(const struct svc_dbs *t, struct svc_dbs_stats *out);
/* Whether opening it would find nothing to recover. Blocks. */
enum cht_rc svc_dbs_is_clean(struct svc_dbs *t, const char *name, bool *clean, struct cht_err *err);
/* Calls fn for every database on disk, in byte order. Blocks. */
enum cht_rc svc_dbs_list(struct svc_dbs *t, void (*fn)(void *ctx, const char *name), void *ctx,
                         struct cht_err *err);
/* Blocks. Removes what could not be removed when it was dropped, if there is anything: cht_env_finish. */
void svc_dbs_finish(struct svc_dbs *t,
                    void (*fn)(void *ctx, const char *name, enum cht_rc rc, const char *what), void *ctx);
/* Calls fn for every open database, each held meanwhile. */
void svc_dbs_each(struct svc_dbs *t, void (*fn)(void *ctx, struct svc_database *d), void *ctx);
