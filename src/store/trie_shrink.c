/* trie_shrink: tidying up after a removal. One step at a time, each all or nothing, until none applies; a step that fails
 * (no memory) is left out: the trie is as valid without it.
 *
 *   S1 an empty leaf goes, its range leads nowhere          S2 a leaf a quarter full joins a neighbour, to half a page
 *   S3 a node without pairs goes                            S4 a node with one small leaf becomes a leaf of its parent,
 *   S5 a node with one inner child and no key joins it         its own key an entry; without a leaf it joins a neighbour
 */
#include "store/trie_int.h"

#include <string.h>

#define QUARTER (CHT_LEAF_FULL / 4)
#define HALF (CHT_LEAF_FULL / 2)
#define ROUNDS_MAX (4 * CHT_TRIE_NAME_MAX)

struct shrink {
    struct cht_pagefile *pf;
    const uint8_t *name;
    struct cht_err err; /* not told to anyone: the removal has succeeded */
    bool changed;
    struct cht_tpos pos;
    struct cht_timage im;
    struct cht_tbuild made;
};

/* A leaf of a node, given by its image and a byte of its range; false if it is none or not in order. */
static bool leaf_at(struct shrink *s, const struct cht_timage *im, unsigned byte, unsigned depth,
                    uint32_t crc, struct cht_tleaf *l)
{
    uint32_t ref = im->child[byte];
    unsigned lo = byte, hi = byte;
    const uint8_t *p = ref < 64 ? NULL : cht_arena_read(s->pf, ref, &s->err);
    if (p == NULL || p[CHT_LEAF_TYPE] != CHT_TRIE_LEAF ||
        cht_tleaf_open(s->pf, ref, depth, l, &s->err) != CHT_OK)
        return false;
    while (lo > 0 && im->child[lo - 1] == ref)
        lo--;
    while (hi < 255 && im->child[hi + 1] == ref)
        hi++;
    return l->lo == lo && l->hi == hi && l->crc == crc;
}

/* The leaf next to another one of the same node, past ranges that lead nowhere. */
static bool neighbour(struct shrink *s, const struct cht_timage *im, const struct cht_tleaf *of, bool left,
                      struct cht_tleaf *l)
{
    int b = left ? (int)of->lo - 1 : (int)of->hi + 1;
    while (b >= 0 && b <= 255 && im->child[b] == 0)
        b += left ? -1 : 1;
    return b >= 0 && b <= 255 && leaf_at(s, im, (unsigned)b, of->depth, of->crc, l);
}

/* Makes the leaf of a's entries before b's. */
static bool join(struct shrink *s, const struct cht_tleaf *a, const struct cht_tleaf *b)
{
    cht_tbuild_init(&s->made, a->n + b->n, a->depth, a->lo, b->hi, a->crc);
    return cht_tbuild_copy(&s->made, a, 0, a->n, 0, &s->err) == CHT_OK &&
           cht_tbuild_copy(&s->made, b, 0, b->n, 0, &s->err) == CHT_OK &&
           cht_tbuild_done(&s->made, s->pf, a->ref, &s->err) == CHT_OK;
}

/* S1 */
static void drop_leaf(struct shrink *s, const struct cht_tleaf *l)
{
    struct cht_ttxn t = {.pf = s->pf, .err = &s->err};
    unsigned level = s->pos.levels - 1;
    uint32_t ref, leaf = l->ref;
    cht_timage_set(&s->im, l->lo, l->hi, 0);
    if (!cht_ttxn_node(&t, &s->pos, level, &s->im, &ref) || !cht_ttxn_write(&t, leaf))
        return;
    cht_ttxn_free(&t, CHT_TRIE_LEAF_CLASS, leaf);
    cht_ttxn_put_node(&t, &s->pos, level, s->name, &s->im, ref);
    s->changed = true;
}

/* S2: s->made takes the place of both, in the page of `keep`. */
static void merge_leaves(struct shrink *s, uint32_t keep, uint32_t drop)
{
    struct cht_ttxn t = {.pf = s->pf, .err = &s->err};
    unsigned level = s->pos.levels - 1;
    uint32_t ref;
    cht_timage_set(&s->im, s->made.page[CHT_LEAF_LO], s->made.page[CHT_LEAF_HI], keep);
    if (!cht_ttxn_node(&t, &s->pos, level, &s->im, &ref) || !cht_ttxn_write(&t, keep) ||
        !cht_ttxn_write(&t, drop))
        return;
    memcpy(cht_trie_ptr(s->pf, keep), s->made.page, CHT_PAGE);
    cht_ttxn_free(&t, CHT_TRIE_LEAF_CLASS, drop);
    cht_ttxn_put_node(&t, &s->pos, level, s->name, &s->im, ref);
    s->changed = true;
}

static void shrink_leaf(struct shrink *s)
{
    struct cht_tleaf l, o;
    const struct cht_tnode *t = &s->pos.node;
    if (cht_trie_leaf(s->pf, s->name, &s->pos, &l, &s->err) != CHT_OK || cht_tleaf_used(&l) > QUARTER)
        return;
    cht_timage_load(&s->im, t);
    if (!leaf_at(s, &s->im, l.lo, t->end, l.crc, &l))
        return;
    if (l.n == 0) {
        drop_leaf(s, &l);
        return;
    }
    for (unsigned left = 0; left < 2; left++) {
        if (!neighbour(s, &s->im, &l, left, &o) || cht_tleaf_used(&l) + cht_tleaf_used(&o) > HALF)
            continue;
        if (left ? join(s, &o, &l) : join(s, &l, &o))
            merge_leaves(s, left ? o.ref : l.ref, left ? l.ref : o.ref);
        return;
    }
}

/* The parent's image with `child` on lo..hi, and the node gone. */
static void replace_node(struct shrink *s, unsigned lo, unsigned hi, uint32_t child)
{
    struct cht_ttxn t = {.pf = s->pf, .err = &s->err};
    unsigned level = s->pos.levels - 2, class = cht_trie_class(s->pf, s->pos.node.ref);
    uint32_t ref, node = s->pos.node.ref;
    cht_timage_set(&s->im, lo, hi, child);
    if (!cht_ttxn_node(&t, &s->pos, level, &s->im, &ref) || !cht_ttxn_write(&t, node) ||
        (child != 0 && !cht_ttxn_write(&t, child)))
        return;
    if (child != 0)
        memcpy(cht_trie_ptr(s->pf, child), s->made.page, CHT_PAGE);
    cht_ttxn_free(&t, class, node);
    cht_ttxn_put_node(&t, &s->pos, level, s->name, &s->im, ref);
    s->changed = true;
}

/* S4: the entries of the node, as they read in its parent, into s->made. False if they are too many or too long. */
static bool pull_entries(struct shrink *s, const struct cht_timage *nd, const struct cht_tleaf *l,
                         const struct cht_tnode *parent, uint32_t crc)
{
    unsigned lead = 1 + nd->path_len, n = nd->own != 0, total = n ? cht_tentry_cost(lead) : 0;
    uint8_t suffix[1 + CHT_TRIE_PATH_MAX + CHT_TRIE_SUFFIX_MAX];
    struct cht_tentry e;
    suffix[0] = s->name[parent->end];
    memcpy(suffix + 1, nd->path, nd->path_len);
    for (unsigned i = 0; l != NULL && i < l->n; i++, n++) {
        if (cht_tleaf_entry(l, i, &e, &s->err) != CHT_OK || lead + e.len > CHT_TRIE_SUFFIX_MAX)
            return false;
        total += cht_tentry_cost(lead + e.len);
    }
    if (total > HALF || n != nd->count)
        return false;
    cht_tbuild_init(&s->made, n, parent->end, suffix[0], suffix[0], crc);
    if (nd->own != 0)
        cht_tbuild_add(&s->made, suffix, lead, nd->own);
    for (unsigned i = 0; l != NULL && i < l->n; i++) {
        if (cht_tleaf_entry(l, i, &e, &s->err) != CHT_OK)
            return false;
        cht_tbuild_add(&s->made, suffix, lead + cht_tentry_suffix(&e, suffix + lead), e.key);
    }
    return cht_tbuild_done(&s->made, s->pf, nd->child[0], &s->err) == CHT_OK;
}

/* S4 */
static void pull_up(struct shrink *s, const struct cht_timage *nd, const struct cht_tleaf *l)
{
    struct cht_tnode parent;
    struct cht_tleaf o;
    const struct cht_tnode *t = &s->pos.node;
    uint32_t up = s->pos.ref[s->pos.levels - 2];
    unsigned depth = cht_get16(cht_trie_ptr(s->pf, up) + CHT_NODE_DEPTH);
    if (cht_tnode_open(s->pf, up, depth, &parent, &s->err) != CHT_OK)
        return;
    uint32_t crc = cht_crc32c(0, s->name, parent.end);
    unsigned byte = s->name[parent.end];
    if (!pull_entries(s, nd, l, &parent, crc))
        return;
    cht_timage_load(&s->im, &parent);
    if (s->im.child[byte] != t->ref)
        return;
    if (l != NULL) {
        replace_node(s, byte, byte, l->ref);
        return;
    }
    for (unsigned left = 0; left < 2; left++) { /* one pair is no reason for a page of its own */
        struct cht_tbuild one = s->made;
        struct cht_tleaf v = {.pf = s->pf,
                              .p = one.page,
                              .n = 1,
                              .heap = one.heap,
                              .depth = parent.end,
                              .lo = byte,
                              .hi = byte,
                              .crc = crc};
        if (!neighbour(s, &s->im, &v, left, &o) || cht_tleaf_used(&o) + cht_tleaf_used(&v) > HALF)
            continue;
        if (left ? join(s, &o, &v) : join(s, &v, &o))
            replace_node(s, s->made.page[CHT_LEAF_LO], s->made.page[CHT_LEAF_HI], o.ref);
        return;
    }
}

/* S5 */
static void join_path(struct shrink *s, const struct cht_timage *nd, unsigned byte)
{
    struct cht_ttxn t = {.pf = s->pf, .err = &s->err};
    struct cht_tnode c;
    unsigned level = s->pos.levels - 1, head = nd->path_len + 1;
    uint32_t node = s->pos.node.ref;
    if (cht_tnode_open(s->pf, nd->child[byte], s->pos.node.end + 1, &c, &s->err) != CHT_OK ||
        head + c.path_len > CHT_TRIE_PATH_MAX || cht_tnode_count(&c) != nd->count)
        return;
    uint32_t child = c.ref, ref = c.ref;
    cht_timage_load(&s->im, &c);
    memmove(s->im.path + head, s->im.path, c.path_len);
    memcpy(s->im.path, nd->path, nd->path_len);
    s->im.path[nd->path_len] = (uint8_t)byte;
    s->im.path_len += head;
    s->im.depth = nd->depth;
    s->im.crc = nd->crc;
    unsigned was = cht_trie_class(s->pf, child), now = cht_timage_fit(&s->im),
             gone = cht_trie_class(s->pf, node);
    if ((now != was && !cht_ttxn_alloc(&t, now, &ref)) || !cht_ttxn_write(&t, child) ||
        !cht_ttxn_write(&t, node) || !cht_ttxn_write(&t, 0) || !cht_ttxn_write(&t, s->pos.ref[level - 1]))
        return;
    cht_timage_store(&s->im, cht_trie_ptr(s->pf, ref));
    cht_ttxn_relink(&t, &s->pos, level, s->name, ref);
    cht_ttxn_free(&t, gone, node);
    if (ref != child)
        cht_ttxn_free(&t, was, child);
    s->changed = true;
}

static void shrink_node(struct shrink *s)
{
    const struct cht_tnode *t = &s->pos.node;
    struct cht_timage nd;
    struct cht_tleaf l;
    if (s->pos.levels < 2 || (t->n > 3 && cht_tnode_count(t) > CHT_LEAF_FULL / CHT_LEAF_SLOT))
        return;
    cht_timage_load(&nd, t);
    unsigned children = 0, byte = 0;
    for (unsigned b = 0; b < 256; b++) {
        if (nd.child[b] != 0 && (b == 0 || nd.child[b] != nd.child[b - 1])) {
            children++;
            byte = b;
        }
    }
    if (children > 1)
        return;
    if (children == 0 && nd.own == 0) { /* S3 */
        struct cht_tnode parent;
        uint32_t up = s->pos.ref[s->pos.levels - 2];
        if (nd.count != 0 || cht_tnode_open(s->pf, up, cht_get16(cht_trie_ptr(s->pf, up) + CHT_NODE_DEPTH),
                                            &parent, &s->err) != CHT_OK)
            return;
        cht_timage_load(&s->im, &parent);
        unsigned at = s->name[parent.end];
        if (s->im.child[at] == t->ref)
            replace_node(s, at, at, 0);
        return;
    }
    uint32_t crc = cht_crc32c(nd.crc, nd.path, nd.path_len);
    if (children == 0)
        pull_up(s, &nd, NULL);
    else if (leaf_at(s, &nd, byte, t->end, crc, &l))
        cht_tleaf_used(&l) <= QUARTER ? pull_up(s, &nd, &l) : (void)0;
    else if (nd.own == 0)
        join_path(s, &nd, byte);
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_trie_shrink(struct cht_pagefile *pf, enum cht_trie_map map, const uint8_t *name, size_t len)
{
    struct shrink s;
    s.pf = pf;
    s.name = name;
    s.pos.map = map;
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        s.changed = false;
        if (cht_trie_descend(pf, name, len, &s.pos, &s.err) != CHT_OK)
            return;
        if (s.pos.end == CHT_TEND_LEAF)
            shrink_leaf(&s);
        if (!s.changed)
            shrink_node(&s);
        if (!s.changed)
            return;
    }
}
