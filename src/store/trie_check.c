/* trie_check: every invariant of trie_format.h, and the shape for statistics. A walk with a stack of its own; what is
 * found damaged is reported and not entered.
 */
#include "store/trie_format.h"

#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

struct level {
    uint32_t ref;
    int at;          /* next byte, -1: the own pair */
    uint64_t below;  /* pairs seen below */
};

struct audit {
    struct cht_pagefile *pf;
    void (*bad)(void *ctx, uint64_t off, const char *what);
    void (*pair)(void *ctx, const uint8_t *name, size_t len, uint64_t key);
    void *ctx;
    struct cht_trie_shape *shape;
    uint64_t *units; /* owned: a bit for each 64 bytes of the file */
    uint64_t nunits;
    unsigned n;
    struct level levels[CHT_DEPTH_MAX + 2];
    uint8_t name[CHT_NAME_MAX + CHT_PATH_BYTES + 8], last[CHT_NAME_MAX];
    size_t last_len;
    bool any;
};

static void report(struct audit *a, uint32_t ref, const char *what)
{
    if (a->bad != NULL)
        a->bad(a->ctx, (uint64_t)ref * 64, what);
}

/* T6: these units belong to one owner. */
static bool own_units(struct audit *a, uint32_t ref, unsigned k)
{
    bool fresh = true;
    for (uint32_t u = ref; u < ref + (1u << k) && u < a->nunits; u++) {
        fresh = fresh && (a->units[u >> 6] >> (u & 63) & 1) == 0;
        a->units[u >> 6] |= UINT64_C(1) << (u & 63);
    }
    if (!fresh)
        report(a, ref, "these bytes belong to two nodes");
    return fresh;
}

static void see(struct audit *a, uint32_t ref, size_t len, uint64_t key)
{
    size_t min = len < a->last_len ? len : a->last_len;
    int c = a->any ? memcmp(a->last, a->name, min) : -1;
    if (len > CHT_NAME_MAX || len == 0) {
        report(a, ref, "a name of impossible length");
        return;
    }
    if (a->any && (c > 0 || (c == 0 && a->last_len >= len)))
        report(a, ref, "names are not in order");
    memcpy(a->last, a->name, len);
    a->last_len = len;
    a->any = true;
    if (a->pair != NULL)
        a->pair(a->ctx, a->name, len, key);
}

/* T3, T5; returns the number of pairs. */
static uint64_t audit_leaf(struct audit *a, uint32_t ref, const uint8_t *p, unsigned lo, unsigned hi)
{
    unsigned depth = cht_get16(p + 8), n = cht_leaf_n(p);
    struct cht_err e = {0};
    if (cht_get32(p + 12) != cht_crc32c(0, a->name, depth))
        report(a, ref, "the leaf does not belong to the name that leads to it");
    if (p[10] != lo || p[11] != hi)
        report(a, ref, "the leaf's range is not its parent's");
    size_t heap = 0;
    for (unsigned i = 0; i < n; i++) {
        struct cht_rest r;
        if (cht_leaf_entry(a->pf, ref, p, i, &r, &e) != CHT_OK || depth + r.len > CHT_NAME_MAX) {
            report(a, ref, "an entry does not lie in its leaf");
            return n;
        }
        unsigned first = r.head >> 24;
        if (first < lo || first > hi)
            report(a, ref, "an entry lies outside of its leaf's range");
        heap += (r.len < 128 ? 7u : 8u) + (r.len > 4 ? r.len - 4 : 0);
        cht_put32(a->name + depth, __builtin_bswap32(r.head));
        if (r.len > 4)
            memcpy(a->name + depth + 4, r.more, r.len - 4);
        see(a, ref, depth + r.len, r.key);
    }
    if (cht_leaf_used(p) != CHT_LEAF_HEAD + 6u * n + heap)
        report(a, ref, "the leaf's free space is wrong");
    if (a->shape != NULL) {
        a->shape->leaves++;
        a->shape->leaf_bytes_used += cht_leaf_used(p);
    }
    return n;
}

/* T1, T2 of a node that is about to be entered. */
static void audit_inner(struct audit *a, uint32_t ref, const uint8_t *p)
{
    unsigned n = cht_get16(p + 2);
    const uint8_t *first = p + CHT_NODE_HEAD;
    for (unsigned i = 1; p[0] != CHT_NODE256 && i < n; i++) {
        if (first[i] <= first[i - 1])
            report(a, ref, "ranges are not in order");
        if (cht_get32(p + cht_node_children(p[0]) + 4 * i) == cht_get32(p + cht_node_children(p[0]) + 4 * (i - 1)))
            report(a, ref, "two ranges share a child");
    }
    memcpy(a->name + cht_node_depth(p), p + cht_node_path(p[0]), p[1]);
    if (a->shape != NULL) {
        uint64_t *c[] = {&a->shape->inner4, &a->shape->inner16, &a->shape->inner48, &a->shape->inner256};
        (*c[p[0] - 1])++;
        a->shape->depth_max = a->n + 1 > a->shape->depth_max ? a->n + 1 : a->shape->depth_max;
    }
}

/* Enters the node below range r (path of the parent ends at `depth`); *pairs of a leaf are counted at once. */
static void enter(struct audit *a, uint32_t ref, unsigned depth, bool root, unsigned lo, unsigned hi, uint64_t *pairs)
{
    struct cht_err e = {0};
    const uint8_t *p = cht_arena_read(a->pf, ref, &e);
    if (p != NULL)
        p = cht_node_at(a->pf, ref, p[0] == CHT_LEAF || root ? depth : depth + 1, &e);
    if (p == NULL) {
        report(a, ref, e.msg);
        return;
    }
    if (!own_units(a, ref, p[0] == CHT_LEAF ? 6 : cht_node_class(p[0], p[1])))
        return;
    if (p[0] == CHT_LEAF) {
        *pairs += audit_leaf(a, ref, p, lo, hi);
        return;
    }
    if (!root && lo != hi)
        report(a, ref, "an inner node below more than one byte");
    if (a->n > CHT_DEPTH_MAX) {
        report(a, ref, "the trie is deeper than a name can be");
        return;
    }
    if (!root)
        a->name[depth] = (uint8_t)lo;
    audit_inner(a, ref, p);
    a->levels[a->n++] = (struct level){ref, -1, 0};
}

/* One step of the walk: the node on top of the stack. */
static void step(struct audit *a)
{
    struct level *l = &a->levels[a->n - 1];
    struct cht_err e = {0};
    const uint8_t *p = cht_arena_read(a->pf, l->ref, &e);
    unsigned end = p == NULL ? 0 : cht_node_depth(p) + p[1];
    if (p != NULL && l->at == -1) {
        l->at = 0;
        if (cht_node_own(p) != 0) {
            see(a, l->ref, end, cht_node_own(p));
            l->below++;
        }
        return;
    }
    if (p != NULL && l->at <= 255) {
        struct cht_range r;
        cht_node_range(p, (unsigned)l->at, &r);
        l->at = (int)r.hi + 1;
        if (r.child != 0)
            enter(a, r.child, end, false, r.lo, r.hi, &l->below);
        return;
    }
    if (p != NULL && cht_node_count(p) != l->below)
        report(a, l->ref, "the count is not that of the pairs below");
    a->n--;
    if (a->n > 0)
        a->levels[a->n - 1].below += l->below;
}

static void audit_free_lists(struct audit *a)
{
    struct cht_err e = {0};
    for (unsigned k = 0; k < CHT_ARENA_CLASSES; k++) {
        const uint8_t *h = cht_page_read(a->pf, 0, &e);
        uint32_t ref = h == NULL ? 0 : cht_get32(h + CHT_ARENA_HEADS + 8 * k), left = h == NULL ? 0 : cht_get32(h + CHT_ARENA_HEADS + 8 * k + 4);
        for (; ref != 0 && left > 0; left--) {
            const uint8_t *b = ref >= a->nunits || ref < 64 || (ref & ((1u << k) - 1)) != 0 ? NULL : cht_arena_read(a->pf, ref, &e);
            if (b == NULL || cht_get32(b + 4) != (0x45455246u ^ k)) {
                report(a, ref, "a free list leads to a block that is not free");
                break;
            }
            if (!own_units(a, ref, k))
                break;
            ref = cht_get32(b);
        }
        if (ref != 0 || left != 0)
            report(a, 0, "a free list is longer or shorter than its count");
    }
}

static enum cht_rc run(struct cht_pagefile *pf, struct audit *a, struct cht_err *err)
{
    uint64_t total = 0;
    const uint8_t *h = cht_page_read(pf, 0, err);
    if (h == NULL)
        return CHT_CORRUPT;
    uint32_t root = cht_get32(h + CHT_TRIE_ROOT);
    uint64_t pairs = cht_get64(h + CHT_TRIE_PAIRS);
    a->pf = pf;
    a->nunits = cht_pf_pages(pf) * 64;
    a->units = cht_calloc((size_t)(a->nunits / 64), 8);
    if (a->units == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the check of the trie");
    a->units[0] = UINT64_MAX; /* the header */
    if (root != 0)
        enter(a, root, 0, true, 0, 255, &total);
    while (a->n > 0) {
        bool last = a->n == 1;
        uint64_t below = a->levels[0].below;
        step(a);
        total = last && a->n == 0 ? below : total;
    }
    if (total != pairs)
        report(a, 0, "the number of pairs is wrong");
    audit_free_lists(a);
    for (uint64_t w = 1; w < a->nunits / 64; w++) {
        if (a->units[w] != UINT64_MAX)
            report(a, (uint32_t)(w * 64), "bytes that belong to no node and no free list");
    }
    cht_free(a->units);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_trie_check(struct cht_pagefile *pf, void (*bad)(void *ctx, uint64_t off, const char *what),
                           void (*pair)(void *ctx, const uint8_t *name, size_t len, uint64_t key), void *ctx, struct cht_err *err)
{
    struct audit *a = cht_calloc(1, sizeof *a);
    if (a == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the check of the trie");
    a->bad = bad;
    a->pair = pair;
    a->ctx = ctx;
    enum cht_rc rc = run(pf, a, err);
    cht_free(a);
    return rc;
}

enum cht_rc cht_trie_shape(struct cht_pagefile *pf, struct cht_trie_shape *out, struct cht_err *err)
{
    struct audit *a = cht_calloc(1, sizeof *a);
    if (a == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the shape of the trie");
    memset(out, 0, sizeof *out);
    a->shape = out;
    enum cht_rc rc = run(pf, a, err);
    cht_free(a);
    return rc;
}
