/* map: see map.h. */
#include "store/rados/map.h"

#include <string.h>

static void count(struct cht_map *m)
{
    m->shards = m->top = 0;
    for (unsigned i = 0; i < CHT_MAP_MAX; i++) {
        if (m->level[i] == CHT_MAP_NONE)
            continue;
        m->shards++;
        m->top = i + 1;
    }
}

void cht_map_init(struct cht_map *m, unsigned level)
{
    *m = (struct cht_map){.base = level};
    memset(m->level, CHT_MAP_NONE, sizeof m->level);
    memset(m->level, (int)level, (size_t)1 << level);
    count(m);
}

unsigned cht_map_locate(const struct cht_map *m, uint32_t bucket)
{
    unsigned level = m->base, shard = bucket & ((1u << level) - 1);
    while (m->level[shard] != level && level < CHT_MAP_LEVEL_MAX) {
        level++;
        shard = bucket & ((1u << level) - 1);
    }
    return shard;
}

unsigned cht_map_next(const struct cht_map *m, unsigned shard)
{
    while (shard < m->top && m->level[shard] == CHT_MAP_NONE)
        shard++;
    return shard < m->top ? shard : CHT_MAP_MAX;
}

bool cht_map_read(struct cht_map *m, unsigned base, const uint8_t *levels, size_t n)
{
    if (n != CHT_MAP_MAX || base > CHT_MAP_LEVEL_MAX)
        return false;
    *m = (struct cht_map){.base = base};
    memcpy(m->level, levels, n);
    count(m);
    for (unsigned b = 0; b < CHT_MAP_MAX;
         b++) { /* each bucket in one shard that is there, and no shard without buckets */
        unsigned at = cht_map_locate(m, b);
        if (m->level[at] < base || m->level[at] > CHT_MAP_LEVEL_MAX || !cht_map_in_class(b, at, m->level[at]))
            return false;
    }
    for (unsigned i = 0; i < m->top; i++) {
        if (cht_map_has(m, i) && (m->level[i] > CHT_MAP_LEVEL_MAX || cht_map_locate(m, i) != i))
            return false;
    }
    return true;
}
