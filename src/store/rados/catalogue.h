/* catalogue: which databases a pool has, and in which state each is.
 *
 * The object `cheetah` in the namespace "": row `format` -> u32, `changes` (numbers.h), and a row a database:
 *
 *   d<name> -> state (c: being made, r: being restored, l: live, d: being dropped) | uuid, 32 hexadecimal digits | u64 ns since 1970 when it began,
 *              of r: when its server said last that it goes on
 *
 * Every change compares the row as it was. Made: (none) -> c, objects, -> l. Restored: (none) -> r, objects and all that is in them, -> l. Dropped:
 * l -> d, objects, row. What stands in c for a minute, in r for five without a word of its server, or in d at all is unfinished work: whoever
 * finds it makes it d, and removes the objects and the row; whoever was still at it finds its compare refused. (Programs that do not know r
 * take it for a database that is being made, and leave it.)
 */
#pragma once

#include "store/rados/rdb.h"

#define CHT_CATALOGUE "cheetah"
#define CHT_RESTORING_NS UINT64_C(300000000000)
#define CHT_RESTORING_WORD_NS UINT64_C(10000000000) /* between two words of a server that restores */

struct cht_listed {
    char name[CHT_DATABASE_NAME_MAX + 1];
    char state; /* 0: there is none */
    char uuid[CHT_RDB_UUID + 1];
    uint64_t since;
};
struct cht_catalogue {
    struct cht_listed *v; /* owned: cht_free */
    size_t n, cap;
    enum cht_rc rc; /* its own */
};

/* Made if it is not there, but not by one that only looks: the pool may be named by mistake. */
enum cht_rc cht_catalogue_open(struct cht_renv *env, struct cht_err *err);
enum cht_rc cht_catalogue_list(struct cht_renv *env, struct cht_catalogue *l, struct cht_err *err);
enum cht_rc cht_catalogue_find(struct cht_renv *env, const char *name, struct cht_listed *e,
                               struct cht_err *err);
/* Is it unfinished work? */
bool cht_listed_is_left(const struct cht_listed *e);
/* A new one, in state c or r, with its objects. CHT_DATABASE_EXISTS, CHT_DATABASE_BUSY, CHT_DATABASE_CASE, CHT_TOO_MANY_DATABASES; after a
 * failure there is none, or it is unfinished work. */
enum cht_rc cht_catalogue_begin(struct cht_renv *env, const char *name, unsigned shards, char state,
                                struct cht_listed *e, struct cht_err *err);
/* It is live from now on. CHT_DATABASE_BUSY: another server has given it up, and it is gone. CHT_TIMEOUT: it may be live. */
enum cht_rc cht_catalogue_end(struct cht_renv *env, struct cht_listed *e, struct cht_err *err);
/* One that is being restored goes on. CHT_DATABASE_BUSY: another server has given it up. */
enum cht_rc cht_catalogue_go_on(struct cht_renv *env, struct cht_listed *e, struct cht_err *err);
/* In any state: d, objects, row. */
enum cht_rc cht_catalogue_remove(struct cht_renv *env, struct cht_listed *e, struct cht_err *err);
