/* map: which shards a database has, and which of them a bucket (rows.h) lies in.
 *
 * Linear hashing, a shard at a time: shard i of level n has the buckets whose n lowest bits are i. Dividing it (split.h) makes it one of level
 * n + 1, and shard i + 2^n another. Shards are never joined: a level only rises, and with it the epoch in the shard's row E, which every
 * write compares and every read reads. So a server with an old map finds out by its first operation on a shard that was divided.
 *
 * A class (i, n) is all buckets whose n lowest bits are i: one shard when a scan begins, perhaps several later (pages.h).
 *
 * A map does not change once it is made.
 */
#pragma once

#include "store/rados/rows.h"

#define CHT_MAP_LEVEL_MAX 8u
#define CHT_MAP_MAX (1u << CHT_MAP_LEVEL_MAX) /* shards */
#define CHT_MAP_NONE 0xffu

struct cht_map {
    unsigned base;              /* the level with which the database was made */
    unsigned shards, top;       /* how many there are; one more than the highest of them */
    uint8_t level[CHT_MAP_MAX]; /* CHT_MAP_NONE: there is no such shard */
    struct cht_map *next;       /* the database's: the one before it */
};

/* A database as it is made: 2^level shards. */
void cht_map_init(struct cht_map *m, unsigned level);
/* From the levels as they are kept; false: they are no map of this base. */
bool cht_map_read(struct cht_map *m, unsigned base, const uint8_t *levels, size_t n);
/* The one place that says where a bucket lies. */
unsigned cht_map_locate(const struct cht_map *m, uint32_t bucket);
static inline bool cht_map_has(const struct cht_map *m, unsigned shard)
{
    return shard < CHT_MAP_MAX && m->level[shard] != CHT_MAP_NONE;
}
/* The next shard from `shard` on; CHT_MAP_MAX: none. */
unsigned cht_map_next(const struct cht_map *m, unsigned shard);
/* The epoch that E of the shard has. */
static inline uint32_t cht_map_epoch(const struct cht_map *m, unsigned shard)
{
    return 1u + m->level[shard] - m->base;
}
static inline bool cht_map_in_class(unsigned shard, unsigned of, unsigned level)
{
    return (shard & ((1u << level) - 1)) == of;
}
