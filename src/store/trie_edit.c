/* trie_edit: setting a pair. A loop of steps: descend; if the pair fits, put it in and be done; else one
 * restructuring step, which reserves what it needs first and leaves a valid trie with the same pairs; again.
 *
 * Cases, by where the descent ends (TEND_...):
 *   OWN   the name ends at a node: its own key
 *   PATH  the name leaves a compressed path: the node is split there                                    (step)
 *   NONE  no child: a long suffix becomes a chain of nodes at once; else a leaf is put there or the neighbour's range
 *         extended                                                                                      (step)
 *   LEAF  found: replaced; fits: inserted; fits after compaction: so; long suffix: its byte is carved out (step);
 *         two or more first bytes: the range is split (step); else the byte is carved out               (step)
 * Every step shortens a path, a range or what is left of the name, or makes room, so the loop ends; STEPS_MAX is for
 * damaged files.
 */
#include "store/trie_int.h"

#include "base/invariant.h"

#include <string.h>

#define STEPS_MAX (8 * CHT_TRIE_NAME_MAX)

struct edit {
    struct cht_pagefile *pf;
    const uint8_t *name;
    size_t len;
    uint64_t key, old;
    struct cht_err *err;
    bool keep; /* a key that is there */
    bool done;
    struct cht_tpos pos;
};

static enum cht_rc set_own(struct edit *ed)
{
    struct cht_ttxn t = {.pf = ed->pf, .err = ed->err};
    const struct cht_tnode *nd = &ed->pos.node;
    enum cht_rc rc = cht_tnode_check(ed->pf, nd, ed->name, ed->err);
    if (rc != CHT_OK)
        return rc;
    ed->old = cht_tnode_own(nd);
    if (ed->old != 0 && ed->keep) {
        ed->done = true;
        return CHT_OK;
    }
    if (!cht_ttxn_write(&t, nd->ref) || (ed->old == 0 && !cht_ttxn_path(&t, &ed->pos, ed->pos.levels)))
        return ed->err->code;
    cht_put64(cht_trie_ptr(ed->pf, nd->ref) + CHT_NODE_OWN, ed->key);
    if (ed->old == 0)
        cht_ttxn_count(&t, &ed->pos, ed->pos.levels, 1);
    ed->done = true;
    return CHT_OK;
}

/* The node gets a parent with the first `at` bytes of its path; one byte leads to it, the rest stays its path. */
static enum cht_rc split_path(struct edit *ed)
{
    struct cht_ttxn t = {.pf = ed->pf, .err = ed->err};
    struct cht_timage low, high;
    unsigned at = ed->pos.at, level = ed->pos.levels - 1;
    uint32_t old = ed->pos.node.ref, above, below;
    cht_timage_load(&low, &ed->pos.node);
    cht_timage_init(&high, low.depth, low.crc, low.path, at);
    high.count = low.count;
    unsigned byte = low.path[at];
    low.crc = cht_crc32c(low.crc, low.path, at + 1);
    low.depth += at + 1;
    low.path_len -= at + 1;
    memmove(low.path, low.path + at + 1, low.path_len);
    unsigned was = cht_trie_class(ed->pf, old), now = cht_timage_fit(&low);
    below = old;
    if ((now != was && !cht_ttxn_alloc(&t, now, &below)) ||
        !cht_ttxn_alloc(&t, cht_trie_node_class(CHT_TRIE_N4, at), &above))
        return ed->err->code;
    if (!cht_ttxn_write(&t, old) || !cht_ttxn_write(&t, 0) ||
        (level > 0 && !cht_ttxn_write(&t, ed->pos.ref[level - 1])))
        return ed->err->code;
    high.child[byte] = below;
    cht_timage_store(&low, cht_trie_ptr(ed->pf, below));
    cht_timage_store(&high, cht_trie_ptr(ed->pf, above));
    cht_ttxn_relink(&t, &ed->pos, level, ed->name, above);
    if (below != old)
        cht_ttxn_free(&t, was, old);
    return CHT_OK;
}

/* A suffix that no leaf takes, if there is no child: nodes down to the end of the name. */
static enum cht_rc add_chain(struct edit *ed)
{
    struct cht_ttxn t = {.pf = ed->pf, .err = ed->err};
    struct cht_tchain chain;
    struct cht_timage im;
    unsigned level = ed->pos.levels - 1, end = ed->pos.node.end;
    uint32_t ref;
    cht_timage_load(&im, &ed->pos.node);
    if (!cht_ttxn_chain(&t, &chain, end + 1, (unsigned)ed->len))
        return ed->err->code;
    im.child[ed->name[end]] = chain.ref[0];
    im.count++;
    if (!cht_ttxn_node(&t, &ed->pos, level, &im, &ref) || !cht_ttxn_path(&t, &ed->pos, level))
        return ed->err->code;
    cht_ttxn_put_chain(&t, &chain, ed->name, (unsigned)ed->len, ed->key, 1, 0);
    cht_ttxn_count(&t, &ed->pos, level, 1);
    cht_ttxn_put_node(&t, &ed->pos, level, ed->name, &im, ref);
    ed->old = 0;
    ed->done = true;
    return CHT_OK;
}

/* Is this child a leaf of the node on lo..hi with room for the new suffix? */
static bool has_room(struct edit *ed, uint32_t ref, unsigned lo, unsigned hi)
{
    struct cht_err ignored; /* a damaged neighbour is none: what it holds is not looked at */
    const uint8_t *p = ref < 64 ? NULL : cht_arena_read(ed->pf, ref, &ignored);
    struct cht_tleaf l;
    if (p == NULL || p[CHT_LEAF_TYPE] != CHT_TRIE_LEAF ||
        cht_tleaf_open(ed->pf, ref, ed->pos.node.end, &l, &ignored) != CHT_OK)
        return false;
    return l.lo == lo && l.hi == hi && l.crc == cht_crc32c(0, ed->name, l.depth) &&
           cht_tleaf_used(&l) + cht_tentry_cost(ed->len - l.depth) <= CHT_LEAF_FULL;
}

/* The bytes around name's next byte that have no child: to a neighbouring leaf, or to a new one. */
static enum cht_rc open_range(struct edit *ed)
{
    struct cht_ttxn t = {.pf = ed->pf, .err = ed->err};
    struct cht_timage im;
    unsigned level = ed->pos.levels - 1, end = ed->pos.node.end, lo = ed->name[end], hi = lo;
    cht_timage_load(&im, &ed->pos.node);
    while (lo > 0 && im.child[lo - 1] == 0)
        lo--;
    while (hi < 255 && im.child[hi + 1] == 0)
        hi++;
    unsigned from = lo, to = hi;
    while (from > 0 && im.child[from - 1] == im.child[lo - 1])
        from--;
    while (to < 255 && im.child[to + 1] == im.child[hi + 1])
        to++;
    uint32_t leaf = 0, ref;
    bool fresh = false;
    if (lo > 0 && has_room(ed, im.child[lo - 1], from, lo - 1)) {
        leaf = im.child[lo - 1];
        lo = from;
    } else if (hi < 255 && has_room(ed, im.child[hi + 1], hi + 1, to)) {
        leaf = im.child[hi + 1];
        hi = to;
    } else {
        fresh = true;
        if (!cht_ttxn_alloc(&t, CHT_TRIE_LEAF_CLASS, &leaf))
            return ed->err->code;
    }
    cht_timage_set(&im, lo, hi, leaf);
    if (!cht_ttxn_node(&t, &ed->pos, level, &im, &ref) || !cht_ttxn_write(&t, leaf))
        return ed->err->code;
    uint8_t *p = cht_trie_ptr(ed->pf, leaf);
    if (fresh) {
        struct cht_tbuild b;
        cht_tbuild_init(&b, 0, end, lo, hi, cht_crc32c(0, ed->name, end));
        memcpy(p, b.page, CHT_PAGE);
    }
    p[CHT_LEAF_LO] = (uint8_t)lo;
    p[CHT_LEAF_HI] = (uint8_t)hi;
    cht_ttxn_put_node(&t, &ed->pos, level, ed->name, &im, ref);
    return CHT_OK;
}

/* Puts the entries of a leaf together again; the page must be obtained. */
static enum cht_rc compact(struct edit *ed, const struct cht_tleaf *l)
{
    struct cht_tbuild b;
    cht_tbuild_init(&b, l->n, l->depth, l->lo, l->hi, l->crc);
    enum cht_rc rc = cht_tbuild_copy(&b, l, 0, l->n, 0, ed->err);
    if (rc == CHT_OK)
        rc = cht_tbuild_done(&b, ed->pf, l->ref, ed->err);
    if (rc == CHT_OK && b.heap < l->heap + l->garbage)
        rc = CHT_TRIE_BAD(ed->pf, (uint64_t)l->ref * 64, "a leaf holds less garbage than it says", ed->err);
    if (rc == CHT_OK)
        memcpy(cht_trie_ptr(ed->pf, l->ref), b.page, CHT_PAGE);
    return rc;
}

static enum cht_rc insert(struct edit *ed, const struct cht_tleaf *l, unsigned at)
{
    struct cht_ttxn t = {.pf = ed->pf, .err = ed->err};
    size_t n = ed->len - l->depth;
    unsigned gap = l->heap - CHT_LEAF_HEADS - CHT_LEAF_SLOT * l->n;
    if (!cht_ttxn_path(&t, &ed->pos, ed->pos.levels) || !cht_ttxn_write(&t, l->ref))
        return ed->err->code;
    enum cht_rc rc = gap < cht_tentry_cost(n) ? compact(ed, l) : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    cht_tleaf_insert(cht_trie_ptr(ed->pf, l->ref), at, ed->name + l->depth, n, ed->key);
    cht_ttxn_count(&t, &ed->pos, ed->pos.levels, 1);
    ed->old = 0;
    ed->done = true;
    return CHT_OK;
}

static enum cht_rc replace(struct edit *ed, const struct cht_tleaf *l, unsigned at)
{
    struct cht_tentry e;
    enum cht_rc rc = cht_tleaf_entry(l, at, &e, ed->err);
    if (rc != CHT_OK)
        return rc;
    ed->old = e.key;
    if (ed->keep) {
        ed->done = true;
        return e.key != 0 ? CHT_OK
                          : CHT_TRIE_BAD(ed->pf, (uint64_t)l->ref * 64, "an entry has no key", ed->err);
    }
    uint8_t *p = cht_page_write(ed->pf, l->ref >> 6, ed->err);
    if (p == NULL)
        return ed->err->code;
    cht_put48(p + (e.rest - l->p) - 6, ed->key);
    ed->done = true;
    return CHT_OK;
}

static enum cht_rc into_leaf(struct edit *ed)
{
    struct cht_tleaf l;
    struct cht_tnew nw = {ed->name, ed->len, 0};
    bool found;
    enum cht_rc rc = cht_trie_leaf(ed->pf, ed->name, &ed->pos, &l, ed->err);
    if (rc != CHT_OK)
        return rc;
    size_t n = ed->len - l.depth;
    const uint8_t *s = ed->name + l.depth;
    if (n > CHT_TRIE_SUFFIX_MAX)
        return cht_trie_carve(ed->pf, &ed->pos, &l, &nw, ed->err);
    rc = cht_tleaf_find(&l, s, n, &nw.at, &found, ed->err);
    if (rc != CHT_OK)
        return rc;
    if (found)
        return replace(ed, &l, nw.at);
    if (cht_tleaf_used(&l) + cht_tentry_cost(n) <= CHT_LEAF_FULL)
        return insert(ed, &l, nw.at);
    if (l.n == 0)
        return CHT_TRIE_BAD(ed->pf, (uint64_t)l.ref * 64, "a leaf without entries is full", ed->err);
    if (l.p[CHT_LEAF_HEADS + 3] == s[0] && l.p[CHT_LEAF_HEADS + (size_t)4 * (l.n - 1) + 3] == s[0])
        return cht_trie_carve(ed->pf, &ed->pos, &l, &nw, ed->err);
    return cht_trie_split_leaf(ed->pf, &ed->pos, &l, &nw, ed->err);
}

static enum cht_rc edit(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str name, uint64_t key,
                        bool keep, uint64_t *old, struct cht_err *err)
{
    size_t len = name.n;
    CHT_INVARIANT(len >= 1 && len <= CHT_TRIE_NAME_MAX && key >= 1 && key <= CHT_TRIE_KEY_MAX);
    struct cht_err local;
    struct edit ed;
    ed.pf = pf; /* field by field: pos is large and filled by the descent */
    ed.name = name.p;
    ed.len = len;
    ed.key = key;
    ed.err = err != NULL ? err : &local;
    ed.keep = keep;
    ed.done = false;
    ed.pos.map = map;
    for (unsigned step = 0; step < STEPS_MAX; step++) {
        enum cht_rc rc = cht_trie_descend(pf, name.p, len, &ed.pos, ed.err);
        if (rc != CHT_OK)
            return rc;
        switch (ed.pos.end) {
        case CHT_TEND_OWN:
            rc = set_own(&ed);
            break;
        case CHT_TEND_PATH:
            rc = split_path(&ed);
            break;
        case CHT_TEND_NONE:
            rc = len - ed.pos.node.end > CHT_TRIE_SUFFIX_MAX ? add_chain(&ed) : open_range(&ed);
            break;
        case CHT_TEND_LEAF:
            rc = into_leaf(&ed);
            break;
        }
        if (rc != CHT_OK)
            return rc;
        if (ed.done) {
            *old = ed.old;
            return CHT_OK;
        }
    }
    return CHT_TRIE_BAD(pf, 0, "a pair finds no place", ed.err);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_trie_set(struct cht_pagefile *pf, const uint8_t *name, size_t len, uint64_t key,
                         uint64_t *old, struct cht_err *err)
{
    return edit(pf, CHT_TRIE_PAIRS, (struct cht_str){name, len}, key, false, old, err);
}

enum cht_rc cht_trie_add(struct cht_pagefile *pf, const uint8_t *name, size_t len, uint64_t key,
                         uint64_t *old, struct cht_err *err)
{
    return edit(pf, CHT_TRIE_PAIRS, (struct cht_str){name, len}, key, true, old, err);
}

enum cht_rc cht_trie_set_in(struct cht_pagefile *pf, enum cht_trie_map map, struct cht_str name, uint64_t key,
                            uint64_t *old, struct cht_err *err)
{
    return edit(pf, map, name, key, false, old, err);
}
