/* dbs: the databases a server has open, by name, each with a count of the requests that use it, so that one can be
 * dropped while others are served.
 *
 * Threads: any. dbs_get is a short look-up; the functions marked "blocks" do file work and belong on a job thread.
 */
#pragma once

#include "cheetah/store.h"

#include <stdatomic.h>

struct dbs;

struct database {
    char name[CHT_DATABASE_NAME_MAX + 1];
    struct cht_store *store; /* set before it is listed, then read-only */
    _Atomic uint64_t users;  /* requests that hold it */
    _Atomic bool dropping;   /* whoever holds it ends what he does and lets go */
    struct database *next;   /* guarded by the table's lock */
};

enum cht_rc dbs_new(struct cht_env *env, struct dbs **out, struct cht_err *err);
/* Nobody may hold a database any more; the env stays open. NULL is legal. */
void dbs_free(struct dbs *t);

/* The open database of this name, held until dbs_put; NULL where it is not open (which says nothing of whether it is
 * there: dbs_open). */
struct database *dbs_get(struct dbs *t, const char *name);
void dbs_put(struct database *d);  /* NULL is legal */
void dbs_hold(struct database *d); /* once more, by someone who holds it */

/* Blocks. Opens it, and with `create` makes it first if it is missing (*created). Held like by dbs_get.
 * CHT_DATABASE_NOT_FOUND, CHT_INVALID_DATABASE_NAME, CHT_DATABASE_BUSY, and what opening says. */
enum cht_rc dbs_open(struct dbs *t, const char *name, bool create, unsigned shards, struct database **out,
                     bool *created, struct cht_err *err);
/* Blocks until all who hold it have let go, at most wait_ns; then deletes it. "default" is made anew, empty.
 * CHT_DATABASE_NOT_FOUND, CHT_DATABASE_BUSY. */
enum cht_rc dbs_drop(struct dbs *t, const char *name, uint64_t wait_ns, struct cht_err *err);
/* Calls fn for every database on disk, in byte order. Blocks. */
enum cht_rc dbs_list(struct dbs *t, void (*fn)(void *ctx, const char *name), void *ctx, struct cht_err *err);
/* Calls fn for every open database, each held meanwhile. */
void dbs_each(struct dbs *t, void (*fn)(void *ctx, struct database *d), void *ctx);
