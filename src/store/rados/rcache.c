/* rcache: see rcache.h. */
#include "store/rados/rcache.h"

#include "base/alloc.h"

#include <string.h>

struct cht_rcache_row {
    uint32_t hash;
    size_t name_len, value_len;
    uint8_t bytes[]; /* name, value */
};

static bool is_it(const struct cht_rcache_row *r, uint32_t hash, struct cht_str name)
{
    return r != NULL && r->hash == hash && r->name_len == name.n && memcmp(r->bytes, name.p, name.n) == 0;
}

void cht_rcache_fini(struct cht_rcache *c)
{
    for (size_t i = 0; c->slots != NULL && i < c->n; i++)
        cht_free(c->slots[i]);
    cht_free(c->slots);
    c->slots = NULL;
}

struct cht_str cht_rcache_get(const struct cht_rcache *c, uint32_t hash, struct cht_str name)
{
    const struct cht_rcache_row *r = c->slots != NULL ? c->slots[hash % c->n] : NULL;
    if (!is_it(r, hash, name))
        return (struct cht_str){NULL, 0};
    return (struct cht_str){r->bytes + r->name_len, r->value_len};
}

void cht_rcache_put(struct cht_rcache *c, unsigned shards, uint32_t hash, struct cht_str name,
                    struct cht_str value)
{
    bool keep = value.p != NULL && name.n + value.n <= CHT_RCACHE_ROW_MAX;
    uint32_t n = CHT_RCACHE_SLOTS / (shards > 16 ? shards / 16 : 1);
    if (c->slots != NULL && c->n > n)
        cht_rcache_fini(c); /* the database was divided */
    if (c->slots == NULL && keep) {
        c->slots = cht_calloc(n, sizeof(struct cht_rcache_row *));
        c->n = n;
    }
    if (c->slots == NULL)
        return;
    struct cht_rcache_row **at = &c->slots[hash % c->n];
    if (!keep && !is_it(*at, hash, name))
        return;
    cht_free(*at);
    *at = keep ? cht_malloc(sizeof **at + name.n + value.n) : NULL;
    if (*at == NULL)
        return;
    **at = (struct cht_rcache_row){hash, name.n, value.n};
    memcpy((*at)->bytes, name.p, name.n);
    memcpy((*at)->bytes + name.n, value.p, value.n);
}
