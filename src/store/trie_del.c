/* trie_del: removing a pair, and all pairs under a prefix. */
#include "store/trie_int.h"

#include "base/alloc.h"
#include "base/invariant.h"

#include <string.h>

static enum cht_rc del_own(struct cht_pagefile *pf, const uint8_t *name, const struct cht_tpos *pos,
                           uint64_t *old, struct cht_err *err)
{
    struct cht_ttxn t = {.pf = pf, .err = err};
    uint64_t own = cht_tnode_own(&pos->node);
    enum cht_rc rc = cht_tnode_check(pf, &pos->node, name, err);
    if (rc != CHT_OK || own == 0)
        return rc != CHT_OK ? rc : CHT_PAIR_NOT_FOUND;
    if (!cht_ttxn_path(&t, pos, pos->levels))
        return err->code;
    cht_put64(cht_trie_ptr(pf, pos->node.ref) + CHT_NODE_OWN, 0);
    cht_ttxn_count(&t, pos, pos->levels, (uint64_t)-1);
    *old = own;
    return CHT_OK;
}

static enum cht_rc del_entry(struct cht_pagefile *pf, const uint8_t *name, size_t len,
                             const struct cht_tpos *pos, uint64_t *old, bool *small, struct cht_err *err)
{
    struct cht_ttxn t = {.pf = pf, .err = err};
    struct cht_tleaf l;
    struct cht_tentry e;
    unsigned at;
    bool found = false;
    enum cht_rc rc = cht_trie_leaf(pf, name, pos, &l, err);
    if (rc == CHT_OK)
        rc = cht_tleaf_find(&l, name + l.depth, len - l.depth, &at, &found, err);
    if (rc != CHT_OK || !found)
        return rc != CHT_OK ? rc : CHT_PAIR_NOT_FOUND;
    rc = cht_tleaf_entry(&l, at, &e, err);
    if (rc != CHT_OK)
        return rc;
    if (!cht_ttxn_path(&t, pos, pos->levels) || !cht_ttxn_write(&t, l.ref))
        return err->code;
    *old = e.key;
    *small = cht_tleaf_used(&l) <= CHT_LEAF_FULL / 4 + e.size + CHT_LEAF_SLOT;
    cht_tleaf_remove(cht_trie_ptr(pf, l.ref), at, e.size);
    cht_ttxn_count(&t, pos, pos->levels, (uint64_t)-1);
    return CHT_OK;
}

/* ---- prefixes ------------------------------------------------------------------------------------------------ */

static enum cht_rc cut_leaf(struct cht_pagefile *pf, const uint8_t *prefix, size_t len,
                            const struct cht_tpos *pos, uint64_t *count, struct cht_err *err)
{
    struct cht_ttxn t = {.pf = pf, .err = err};
    struct cht_tleaf l;
    struct cht_tbuild b;
    unsigned from, to;
    enum cht_rc rc = cht_trie_leaf(pf, prefix, pos, &l, err);
    if (rc == CHT_OK)
        rc = cht_tleaf_prefix(&l, prefix + l.depth, len - l.depth, &from, &to, err);
    if (rc != CHT_OK || from == to)
        return rc;
    cht_tbuild_init(&b, l.n - (to - from), l.depth, l.lo, l.hi, l.crc);
    rc = cht_tbuild_copy(&b, &l, 0, from, 0, err);
    if (rc == CHT_OK)
        rc = cht_tbuild_copy(&b, &l, to, l.n, 0, err);
    if (rc == CHT_OK)
        rc = cht_tbuild_done(&b, pf, l.ref, err);
    if (rc != CHT_OK)
        return rc;
    if (!cht_ttxn_path(&t, pos, pos->levels) || !cht_ttxn_write(&t, l.ref))
        return err->code;
    memcpy(cht_trie_ptr(pf, l.ref), b.page, CHT_PAGE);
    *count = to - from;
    cht_ttxn_count(&t, pos, pos->levels, (uint64_t)0 - *count);
    return CHT_OK;
}

/* Obtains every page of the subtree for writing, counting its pairs; what can fail fails here. */
static enum cht_rc obtain_subtree(struct cht_twalk *w, uint64_t *pairs, struct cht_err *err)
{
    enum cht_rc rc;
    *pairs = 0;
    while ((rc = cht_twalk_next(w, err)) == CHT_OK && w->event != CHT_TWALK_END) {
        uint32_t ref = w->event == CHT_TWALK_LEAF ? w->leaf.ref : w->node.ref;
        if (w->event == CHT_TWALK_LEAVE)
            continue;
        if (cht_page_write(w->pf, ref >> 6, err) == NULL)
            return err->code;
        *pairs += w->event == CHT_TWALK_LEAF ? w->leaf.n : cht_tnode_own(&w->node) != 0;
    }
    return rc;
}

/* Frees the subtree from below; `keep` (the root) stays. Fails only if damage made two nodes share a child. */
static enum cht_rc free_subtree(struct cht_twalk *w, uint32_t keep, struct cht_err *err)
{
    enum cht_rc rc;
    while ((rc = cht_twalk_next(w, err)) == CHT_OK && w->event != CHT_TWALK_END) {
        if (w->event == CHT_TWALK_LEAF)
            rc = cht_arena_free(w->pf, CHT_TRIE_LEAF_CLASS, w->leaf.ref, err);
        else if (w->event == CHT_TWALK_LEAVE && w->node.ref != keep)
            rc = cht_arena_free(w->pf, cht_trie_node_class(w->node.type, w->node.path_len), w->node.ref, err);
        if (rc != CHT_OK)
            break;
    }
    return rc;
}

/* 1 all pages of the subtree and the way there for writing  2 blocks freed  3 the parent leads nowhere there (of the
 * root: it is made anew), counts */
static enum cht_rc cut_node(struct cht_pagefile *pf, const uint8_t *prefix, const struct cht_tpos *pos,
                            struct cht_twalk *w, uint64_t *count, struct cht_err *err)
{
    struct cht_ttxn t = {.pf = pf, .err = err};
    struct cht_timage im;
    struct cht_tnode parent;
    uint32_t node = pos->node.ref, ref;
    unsigned depth = pos->node.depth, level = pos->levels > 1 ? pos->levels - 2 : 0;
    uint64_t pairs;
    enum cht_rc rc = cht_tnode_check(pf, &pos->node, prefix, err);
    if (rc != CHT_OK)
        return rc;
    uint64_t said = cht_tnode_count(&pos->node);
    cht_twalk_init(w, pf, prefix, node, depth);
    rc = obtain_subtree(w, &pairs, err);
    if (rc == CHT_OK && pairs != said)
        rc = CHT_TRIE_BAD(pf, (uint64_t)node * 64, "a node's count is wrong", err);
    if (rc == CHT_OK && pos->levels > 1)
        rc = cht_tnode_open(pf, pos->ref[level],
                            cht_get16(cht_trie_ptr(pf, pos->ref[level]) + CHT_NODE_DEPTH), &parent, err);
    if (rc != CHT_OK)
        return rc;
    if (pos->levels > 1) {
        cht_timage_load(&im, &parent);
        im.count -= pairs;
        im.child[prefix[depth - 1]] = 0;
    } else {
        cht_timage_init(&im, 0, 0, NULL, 0);
    }
    if (!cht_ttxn_node(&t, pos, level, &im, &ref) || !cht_ttxn_path(&t, pos, level))
        return err->code;
    cht_twalk_init(w, pf, prefix, node, depth);
    rc = free_subtree(w, pos->levels > 1 ? 0 : node, err);
    cht_ttxn_count(&t, pos, level, (uint64_t)0 - pairs);
    cht_ttxn_put_node(&t, pos, level, prefix, &im, ref);
    *count = pairs;
    return rc;
}

static enum cht_rc del_one(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str name, uint64_t *old,
                           bool *small, struct cht_err *err)
{
    struct cht_tpos pos;
    pos.map = map;
    enum cht_rc rc = cht_trie_descend(pf, name.p, name.n, &pos, err);
    if (rc != CHT_OK)
        return rc;
    if (pos.end == CHT_TEND_OWN)
        return del_own(pf, name.p, &pos, old, err);
    return pos.end == CHT_TEND_LEAF ? del_entry(pf, name.p, name.n, &pos, old, small, err)
                                    : CHT_PAIR_NOT_FOUND;
}

static enum cht_rc cut(struct cht_pagefile *pf, enum cht_trie_map map, const uint8_t *prefix, size_t len,
                       uint64_t *count, struct cht_err *err)
{
    struct cht_tpos pos;
    *count = 0;
    pos.map = map;
    enum cht_rc rc = cht_trie_descend(pf, prefix, len, &pos, err);
    if (rc != CHT_OK || pos.end == CHT_TEND_NONE ||
        (pos.end == CHT_TEND_PATH && pos.node.depth + pos.at < len))
        return rc;
    if (pos.end == CHT_TEND_LEAF) {
        rc = cut_leaf(pf, prefix, len, &pos, count, err);
    } else {
        struct cht_twalk *w = cht_malloc(sizeof *w);
        if (w == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to walk a subtree");
        rc = cut_node(pf, prefix, &pos, w, count, err);
        cht_free(w);
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_trie_del_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str name,
                            uint64_t *old, struct cht_err *err)
{
    CHT_INVARIANT(name.n >= 1 && name.n <= CHT_TRIE_NAME_MAX);
    struct cht_err local;
    bool small = true;
    err = err != NULL ? err : &local;
    uint64_t losses;
    enum cht_rc rc;
    do { /* "not there" counts if no page was lost on the way; a change has obtained all that it relies on */
        losses = cht_pf_losses(pf);
        rc = del_one(pf, map, name, old, &small, err);
    } while (rc == CHT_PAIR_NOT_FOUND && cht_pf_losses(pf) != losses);
    if (rc == CHT_OK && small) {
        cht_trie_shrink(pf, map, name.p, name.n);
        cht_arena_collect(pf);
    }
    return rc;
}

enum cht_rc cht_trie_del_prefix_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str prefix,
                                   uint64_t *count, struct cht_err *err)
{
    CHT_INVARIANT(prefix.n <= CHT_TRIE_NAME_MAX);
    struct cht_err local;
    err = err != NULL ? err : &local;
    uint64_t losses;
    enum cht_rc rc;
    do { /* as above */
        losses = cht_pf_losses(pf);
        rc = cut(pf, map, prefix.p, prefix.n, count, err);
    } while (rc == CHT_OK && *count == 0 && cht_pf_losses(pf) != losses);
    if (rc == CHT_OK && *count > 0) {
        cht_trie_shrink(pf, map, prefix.p, prefix.n);
        cht_arena_collect(pf);
    }
    return rc;
}

enum cht_rc cht_trie_del(struct cht_pagefile *pf, const uint8_t *name, size_t len, uint64_t *old,
                         struct cht_err *err)
{
    return cht_trie_del_in(pf, CHT_TRIE_PAIRS, (struct cht_str){name, len}, old, err);
}

enum cht_rc cht_trie_del_prefix(struct cht_pagefile *pf, const uint8_t *prefix, size_t len, uint64_t *count,
                                struct cht_err *err)
{
    return cht_trie_del_prefix_in(pf, CHT_TRIE_PAIRS, (struct cht_str){prefix, len}, count, err);
}
