/* trie_split: what a leaf does that cannot take a suffix: it splits its range in two, or the names that share its byte
 * move below a new node. Both leave the same pairs behind; the caller descends again.
 */
#include "store/trie_int.h"

#include <string.h>

/* The byte at which the right part begins. The new suffix counts as if it were there. Balanced by bytes; but if it
 * is appended after all others the left part stays as full as it is, so that ascending names fill their pages. */
static enum cht_rc choose_byte(const struct cht_tleaf *l, const struct cht_tnew *nw, unsigned *byte,
                               struct cht_err *err)
{
    const uint8_t *s = nw->name + l->depth;
    unsigned fresh = cht_tentry_cost(nw->len - l->depth), total = cht_tleaf_used(l) + fresh;
    unsigned sum = 0, prev = 256, best = UINT32_MAX;
    *byte = 256;
    for (unsigned j = 0; j <= l->n; j++) {
        unsigned b = s[0], cost = fresh;
        if (j != nw->at) {
            struct cht_tentry e;
            enum cht_rc rc = cht_tleaf_entry(l, j < nw->at ? j : j - 1, &e, err);
            if (rc != CHT_OK)
                return rc;
            b = e.head >> 24;
            cost = e.size + CHT_LEAF_SLOT;
        }
        if (j > 0 && b != prev) {
            unsigned off = 2 * sum > total ? 2 * sum - total : total - 2 * sum;
            if (nw->at == l->n || off < best) {
                best = off;
                *byte = b;
            }
        }
        prev = b;
        sum += cost;
    }
    if (*byte <= l->lo || *byte > l->hi)
        return CHT_TRIE_BAD(l->pf, (uint64_t)l->ref * 64, "a suffix is outside its leaf's range", err);
    return CHT_OK;
}

/* A leaf of entries [from, to) for lo..hi, made in b. */
static enum cht_rc build_part(struct cht_tbuild *b, const struct cht_tleaf *l, unsigned from, unsigned to,
                              unsigned lo, unsigned hi, struct cht_err *err)
{
    if (from > to)
        return CHT_TRIE_BAD(l->pf, (uint64_t)l->ref * 64, "the entries of a leaf are out of order", err);
    cht_tbuild_init(b, to - from, l->depth, lo, hi, l->crc);
    enum cht_rc rc = cht_tbuild_copy(b, l, from, to, 0, err);
    return rc == CHT_OK ? cht_tbuild_done(b, l->pf, l->ref, err) : rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_trie_split_leaf(struct cht_pagefile *pf, const struct cht_tpos *pos,
                                const struct cht_tleaf *l, const struct cht_tnew *nw, struct cht_err *err)
{
    struct cht_ttxn t = {.pf = pf, .err = err};
    struct cht_tbuild left, right;
    struct cht_timage im;
    unsigned byte, level = pos->levels - 1, n = l->n, lo = l->lo, hi = l->hi;
    uint32_t leaf = l->ref, fresh = 0, ref;
    enum cht_rc rc = choose_byte(l, nw, &byte, err);
    if (rc != CHT_OK)
        return rc;
    unsigned cut = cht_tleaf_head_pos(l, (uint32_t)byte << 24);
    rc = build_part(&left, l, 0, cut, lo, byte - 1, err);
    if (rc == CHT_OK)
        rc = build_part(&right, l, cut, n, byte, hi, err);
    if (rc != CHT_OK)
        return rc;
    cht_timage_load(&im, &pos->node);
    /* A part without entries becomes a range of nothing. */
    if (cut > 0 && cut < n && !cht_ttxn_alloc(&t, CHT_TRIE_LEAF_CLASS, &fresh))
        return err->code;
    if (cut == 0)
        cht_timage_set(&im, lo, byte - 1, 0);
    else
        cht_timage_set(&im, byte, hi, fresh);
    if (!cht_ttxn_node(&t, pos, level, &im, &ref) || !cht_ttxn_write(&t, leaf))
        return err->code;
    memcpy(cht_trie_ptr(pf, leaf), cut == 0 ? right.page : left.page, CHT_PAGE);
    if (fresh != 0)
        memcpy(cht_trie_ptr(pf, fresh), right.page, CHT_PAGE);
    cht_ttxn_put_node(&t, pos, level, nw->name, &im, ref);
    return CHT_OK;
}

/* ---- carving one byte out of a leaf -------------------------------------------------------------------------- */

enum { LEFT, MID, RIGHT, PARTS };

struct carve {
    struct cht_tbuild part[PARTS];
    bool used[PARTS];
    unsigned from[PARTS + 1]; /* entries of the leaf */
    unsigned byte, end;       /* the new node branches at `end` */
    uint64_t own;
};

/* How far the entries of the byte and the new name agree; the length of the shared prefix of the names. */
static enum cht_rc shared_end(const struct cht_tleaf *l, const struct cht_tnew *nw, struct carve *c,
                              struct cht_err *err)
{
    unsigned m = (unsigned)nw->len - l->depth;
    for (unsigned k = 0; k < 2; k++) { /* sorted: the first and the last share what all share */
        struct cht_tentry e;
        uint8_t s[CHT_TRIE_SUFFIX_MAX];
        enum cht_rc rc = cht_tleaf_entry(l, k == 0 ? c->from[MID] : c->from[RIGHT] - 1, &e, err);
        if (rc != CHT_OK)
            return rc;
        unsigned len = cht_tentry_suffix(&e, s);
        m = cht_trie_common(s, nw->name + l->depth, len < m ? len : m);
        if (m < 1)
            return CHT_TRIE_BAD(l->pf, (uint64_t)l->ref * 64, "a suffix is outside its leaf's range", err);
    }
    c->end = l->depth + m;
    return CHT_OK;
}

/* The leaf below the new node: all entries of the byte but the one that ends at the node. */
static enum cht_rc build_mid(const struct cht_tleaf *l, const struct cht_tnew *nw, struct carve *c,
                             struct cht_err *err)
{
    enum cht_rc rc = shared_end(l, nw, c, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_tentry e;
    rc = cht_tleaf_entry(l, c->from[MID], &e, err);
    if (rc != CHT_OK)
        return rc;
    c->own = e.len == c->end - l->depth ? e.key : 0;
    unsigned from = c->from[MID] + (c->own != 0), to = c->from[RIGHT];
    c->used[MID] = from < to;
    cht_tbuild_init(&c->part[MID], to - from, c->end, 0, 255, cht_crc32c(0, nw->name, c->end));
    rc = cht_tbuild_copy(&c->part[MID], l, from, to, c->end - l->depth, err);
    return rc == CHT_OK ? cht_tbuild_done(&c->part[MID], l->pf, l->ref, err) : rc;
}

static enum cht_rc carve_parts(const struct cht_tleaf *l, const struct cht_tnew *nw, struct carve *c,
                               struct cht_err *err)
{
    unsigned b = c->byte;
    c->from[LEFT] = 0;
    c->from[MID] = cht_tleaf_head_pos(l, (uint32_t)b << 24);
    c->from[RIGHT] = b == 255 ? l->n : cht_tleaf_head_pos(l, (uint32_t)(b + 1) << 24);
    c->from[PARTS] = l->n;
    if (c->from[MID] > c->from[RIGHT])
        return CHT_TRIE_BAD(l->pf, (uint64_t)l->ref * 64, "the entries of a leaf are out of order", err);
    c->own = 0;
    c->used[LEFT] = c->from[MID] > 0;
    c->used[MID] = false;
    c->used[RIGHT] = c->from[RIGHT] < l->n;
    enum cht_rc rc = CHT_OK;
    if (c->used[LEFT])
        rc = build_part(&c->part[LEFT], l, 0, c->from[MID], l->lo, b - 1, err);
    if (rc == CHT_OK && c->used[RIGHT])
        rc = build_part(&c->part[RIGHT], l, c->from[RIGHT], l->n, b + 1, l->hi, err);
    if (rc == CHT_OK && c->from[MID] < c->from[RIGHT])
        rc = build_mid(l, nw, c, err);
    return rc;
}

/* 1 parts in buffers  2 blocks: pages for the parts (the leaf's own serves the first), the chain, the node
 * 3 pages for writing  4 the change */
enum cht_rc cht_trie_carve(struct cht_pagefile *pf, const struct cht_tpos *pos, const struct cht_tleaf *l,
                           const struct cht_tnew *nw, struct cht_err *err)
{
    struct cht_ttxn t = {.pf = pf, .err = err};
    struct cht_tchain chain = {0};
    struct cht_timage im;
    struct carve c;
    uint32_t page[PARTS] = {0}, leaf = l->ref, ref;
    unsigned level = pos->levels - 1, lo = l->lo, hi = l->hi;
    bool kept = false;
    c.byte = nw->name[l->depth];
    enum cht_rc rc = carve_parts(l, nw, &c, err);
    if (rc != CHT_OK)
        return rc;
    uint64_t mid = c.from[RIGHT] - c.from[MID];
    cht_timage_load(&im, &pos->node);
    for (unsigned i = 0; i < PARTS; i++) {
        if (!c.used[i])
            continue;
        if (!kept)
            page[i] = leaf;
        else if (!cht_ttxn_alloc(&t, CHT_TRIE_LEAF_CLASS, &page[i]))
            return err->code;
        kept = true;
    }
    if (mid > 0 && !cht_ttxn_chain(&t, &chain, pos->node.end + 1, c.end))
        return err->code;
    if (c.byte > lo)
        cht_timage_set(&im, lo, c.byte - 1, page[LEFT]);
    cht_timage_set(&im, c.byte, c.byte, chain.ref[0]);
    if (c.byte < hi)
        cht_timage_set(&im, c.byte + 1, hi, page[RIGHT]);
    if (!cht_ttxn_node(&t, pos, level, &im, &ref) || !cht_ttxn_write(&t, leaf))
        return err->code;
    for (unsigned i = 0; i < PARTS; i++) {
        if (c.used[i])
            memcpy(cht_trie_ptr(pf, page[i]), c.part[i].page, CHT_PAGE);
    }
    if (!kept)
        cht_ttxn_free(&t, CHT_TRIE_LEAF_CLASS, leaf);
    if (mid > 0)
        cht_ttxn_put_chain(&t, &chain, nw->name, c.end, c.own, mid, page[MID]);
    cht_ttxn_put_node(&t, pos, level, nw->name, &im, ref);
    return CHT_OK;
}
