/* trie: looking up, counting, and the descent that all changes begin with. trie_format.h has the layout. */
#include "store/trie_int.h"

#include "base/invariant.h"

#define PAIRS_A_PAGE \
    (CHT_PAGE / (CHT_LEAF_SLOT + CHT_LEAF_ENTRY_MIN)) /* and no more in nodes: 64 bytes have one */

enum cht_rc cht_trie_root(struct cht_pagefile *pf, enum cht_trie_map map, uint32_t *ref, struct cht_err *err)
{
    const uint8_t *h = cht_page_read(pf, 0, err);
    if (h == NULL)
        return CHT_CORRUPT;
    *ref = cht_get32(h + map);
    return CHT_OK;
}

enum cht_rc cht_trie_descend(struct cht_pagefile *pf, const uint8_t *name, size_t len, struct cht_tpos *pos,
                             struct cht_err *err)
{
    uint32_t ref;
    unsigned depth = 0;
    enum cht_rc rc = cht_trie_root(pf, pos->map, &ref, err);
    pos->levels = 0;
    if (name == NULL) /* the empty prefix */
        name = (const uint8_t *)"";
    for (; rc == CHT_OK; depth++) { /* depth grows with each level and ends at len */
        struct cht_tnode *t = &pos->node;
        rc = cht_tnode_open(pf, ref, depth, t, err);
        if (rc != CHT_OK)
            return rc;
        pos->ref[pos->levels++] = ref;
        unsigned room = (unsigned)len - depth;
        unsigned m = cht_trie_common(t->path, name + depth, t->path_len < room ? t->path_len : room);
        if (m < t->path_len) {
            pos->end = CHT_TEND_PATH;
            pos->at = m;
            return CHT_OK;
        }
        depth = t->end;
        if (depth == len) {
            pos->end = CHT_TEND_OWN;
            return CHT_OK;
        }
        pos->child = ref = cht_tnode_child(t, name[depth]);
        if (ref == 0) {
            pos->end = CHT_TEND_NONE;
            return CHT_OK;
        }
        bool leaf;
        rc = cht_tnode_kind(pf, t, ref, &leaf, err);
        if (rc == CHT_OK && leaf) {
            pos->end = CHT_TEND_LEAF;
            return CHT_OK;
        }
    }
    return rc;
}

enum cht_rc cht_trie_leaf(struct cht_pagefile *pf, const uint8_t *name, const struct cht_tpos *pos,
                          struct cht_tleaf *l, struct cht_err *err)
{
    enum cht_rc rc = cht_tleaf_open(pf, pos->child, pos->node.end, l, err);
    if (rc != CHT_OK)
        return rc;
    unsigned byte = name[pos->node.end];
    if (byte < l->lo || byte > l->hi || cht_crc32c(0, name, l->depth) != l->crc)
        return CHT_TRIE_BAD(pf, (uint64_t)l->ref * 64, "a leaf does not belong to the name that led to it",
                            err);
    return CHT_OK;
}

enum cht_rc cht_tnode_check(struct cht_pagefile *pf, const struct cht_tnode *t, const uint8_t *name,
                            struct cht_err *err)
{
    if (cht_crc32c(0, name, t->depth) != cht_get32(t->p + CHT_NODE_CRC))
        return CHT_TRIE_BAD(pf, (uint64_t)t->ref * 64, "a node does not belong to the name that led to it",
                            err);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_trie_make(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_err *err)
{
    struct cht_err local = {0};
    struct cht_timage im;
    uint32_t ref;
    cht_timage_init(&im, 0, 0, NULL, 0);
    enum cht_rc rc = cht_arena_alloc(pf, cht_timage_fit(&im), &ref, err);
    if (rc != CHT_OK)
        return rc;
    uint8_t *h = cht_page_write(pf, 0, &local);
    if (h == NULL) {
        if (err != NULL)
            *err = local;
        return local.code;
    }
    cht_timage_store(&im, cht_trie_ptr(pf, ref)); /* the allocation has obtained its page */
    cht_put32(h + map, ref);
    return CHT_OK;
}

enum cht_rc cht_trie_format(struct cht_pagefile *pf, struct cht_err *err)
{
    return cht_trie_make(pf, CHT_TRIE_PAIRS, err);
}

bool cht_trie_has(struct cht_pagefile *pf, enum cht_trie_map map)
{
    uint32_t ref;
    return cht_trie_root(pf, map, &ref, NULL) == CHT_OK && ref != 0;
}

uint64_t cht_trie_pairs(struct cht_pagefile *pf)
{
    uint64_t n = 0;
    return cht_trie_count(pf, (const uint8_t *)"", 0, &n, NULL) == CHT_OK ? n : 0;
}

static enum cht_rc get(struct cht_pagefile *pf, enum cht_trie_map map, const uint8_t *name, size_t len,
                       uint64_t *key, struct cht_err *err)
{
    struct cht_tpos pos;
    struct cht_tleaf l;
    struct cht_tentry e;
    unsigned at;
    bool found = false;
    pos.map = map;
    enum cht_rc rc = cht_trie_descend(pf, name, len, &pos, err);
    if (rc != CHT_OK)
        return rc;
    if (pos.end == CHT_TEND_OWN) {
        *key = cht_tnode_own(&pos.node);
        rc = cht_tnode_check(pf, &pos.node, name, err);
        return rc != CHT_OK ? rc : *key != 0 ? CHT_OK : CHT_PAIR_NOT_FOUND;
    }
    if (pos.end != CHT_TEND_LEAF)
        return CHT_PAIR_NOT_FOUND;
    rc = cht_trie_leaf(pf, name, &pos, &l, err);
    if (rc == CHT_OK)
        rc = cht_tleaf_find(&l, name + l.depth, len - l.depth, &at, &found, err);
    if (rc != CHT_OK || !found)
        return rc != CHT_OK ? rc : CHT_PAIR_NOT_FOUND;
    rc = cht_tleaf_entry(&l, at, &e, err);
    *key = e.key;
    if (rc == CHT_OK && e.key == 0)
        return CHT_TRIE_BAD(pf, (uint64_t)l.ref * 64, "an entry has no key", err);
    return rc;
}

enum cht_rc cht_trie_get_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str name,
                            uint64_t *key, struct cht_err *err)
{
    CHT_INVARIANT(name.n >= 1 && name.n <= CHT_TRIE_NAME_MAX);
    for (;;) { /* again if a page was lost meanwhile, which may be one that was read: each time another one */
        uint64_t losses = cht_pf_losses(pf);
        enum cht_rc rc = get(pf, map, name.p, name.n, key, err);
        if (cht_pf_losses(pf) == losses)
            return rc;
    }
}

static enum cht_rc count_below(struct cht_pagefile *pf, enum cht_trie_map map, const uint8_t *prefix,
                               size_t len, uint64_t *count, struct cht_err *err)
{
    struct cht_tpos pos;
    struct cht_tleaf l;
    unsigned from, to;
    *count = 0;
    pos.map = map;
    enum cht_rc rc = cht_trie_descend(pf, prefix, len, &pos, err);
    if (rc != CHT_OK || pos.end == CHT_TEND_NONE)
        return rc;
    if (pos.end == CHT_TEND_LEAF) {
        rc = cht_trie_leaf(pf, prefix, &pos, &l, err);
        if (rc == CHT_OK)
            rc = cht_tleaf_prefix(&l, prefix + l.depth, len - l.depth, &from, &to, err);
        if (rc == CHT_OK)
            *count = to - from;
        return rc;
    }
    if (pos.end == CHT_TEND_PATH && pos.node.depth + pos.at < len)
        return CHT_OK;
    *count = cht_tnode_count(&pos.node);
    if (*count > cht_pf_pages(pf) * PAIRS_A_PAGE)
        return CHT_TRIE_BAD(pf, (uint64_t)pos.node.ref * 64,
                            "a node counts more pairs than the file can hold", err);
    return cht_tnode_check(pf, &pos.node, prefix, err);
}

enum cht_rc cht_trie_count_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str prefix,
                              uint64_t *count, struct cht_err *err)
{
    CHT_INVARIANT(prefix.n <= CHT_TRIE_NAME_MAX);
    for (;;) { /* as above */
        uint64_t losses = cht_pf_losses(pf);
        enum cht_rc rc = count_below(pf, map, prefix.p, prefix.n, count, err);
        if (cht_pf_losses(pf) == losses)
            return rc;
    }
}

enum cht_rc cht_trie_get(struct cht_pagefile *pf, const uint8_t *name, size_t len, uint64_t *key,
                         struct cht_err *err)
{
    return cht_trie_get_in(pf, CHT_TRIE_PAIRS, (struct cht_str){name, len}, key, err);
}

enum cht_rc cht_trie_count(struct cht_pagefile *pf, const uint8_t *prefix, size_t len, uint64_t *count,
                           struct cht_err *err)
{
    return cht_trie_count_in(pf, CHT_TRIE_PAIRS, (struct cht_str){prefix, len}, count, err);
}
