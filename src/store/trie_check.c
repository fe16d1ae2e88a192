/* trie_check: all invariants of trie_format.h, and the shape. What is found is reported and the walk goes on after it.
 */
#include "store/trie_int.h"

#include "base/alloc.h"

#include <string.h>

struct check {
    struct cht_pagefile *pf;
    void (*bad)(void *ctx, uint64_t off, const char *what);
    void (*pair)(void *ctx, const uint8_t *name, size_t len, uint64_t key);
    void *ctx;
    uint64_t units;
    uint8_t *owned; /* a bit a unit */
    struct cht_twalk walk;
    uint64_t below[CHT_TRIE_NAME_MAX + 2]; /* pairs seen at each level */
    uint8_t name[CHT_TRIE_NAME_MAX + CHT_TRIE_SUFFIX_MAX];
};

static void report(struct check *c, uint32_t ref, const char *what)
{
    c->bad(c->ctx, (uint64_t)ref * 64, what);
}

/* T8. False if one of the units has an owner already. */
static bool take_units(struct check *c, uint32_t ref, unsigned class)
{
    uint64_t n = UINT64_C(1) << class;
    bool ok = ref >= 64 && ref + n <= c->units;
    for (uint64_t u = ref; ok && u < ref + n; u++)
        ok = !(c->owned[u >> 3] >> (u & 7) & 1);
    for (uint64_t u = ref; ok && u < ref + n; u++)
        c->owned[u >> 3] |= (uint8_t)(1u << (u & 7));
    if (!ok)
        report(c, ref, "a block has two owners");
    return ok;
}

/* T3; the walk has checked T4. */
static void check_ranges(struct check *c, const struct cht_tnode *t)
{
    struct cht_timage im;
    cht_timage_load(&im, t);
    unsigned runs = 1;
    for (unsigned b = 1; b < 256; b++)
        runs += im.child[b] != im.child[b - 1];
    if (runs != t->n)
        report(c, t->ref, "the ranges of a node are out of order or not joined");
    for (unsigned i = t->n; t->type != CHT_TRIE_N256 && i < cht_trie_cap(t->type); i++) {
        if (t->p[CHT_NODE_BODY + i] != 255 ||
            cht_get32(t->p + cht_trie_child_at(t->type) + (size_t)4 * i) != 0)
            report(c, t->ref, "unused ranges of a node are not empty");
    }
    for (unsigned i = 1; t->type != CHT_TRIE_N256 && i < t->n; i++) {
        if (t->p[CHT_NODE_BODY + i] <= t->p[CHT_NODE_BODY + i - 1])
            report(c, t->ref, "the ranges of a node do not ascend");
    }
}

/* T1, T3 of a node just entered; T2 was checked when it was opened. */
static void check_node(struct check *c, unsigned level)
{
    const struct cht_tnode *t = &c->walk.node;
    uint64_t own = cht_get64(t->p + CHT_NODE_OWN);
    if (!take_units(c, t->ref, cht_trie_node_class(t->type, t->path_len))) {
        cht_twalk_skip(&c->walk);
        return;
    }
    if (t->p[CHT_NODE_FLAGS] != 0 || t->p[CHT_NODE_ZERO] != 0 || own > CHT_TRIE_KEY_MAX)
        report(c, t->ref, "a node has bits set that mean nothing");
    if (cht_get32(t->p + CHT_NODE_CRC) != cht_crc32c(0, c->walk.name, t->depth))
        report(c, t->ref, "a node does not belong to the way that leads to it");
    check_ranges(c, t);
    if (own != 0) {
        c->below[level]++;
        if (c->pair != NULL)
            c->pair(c->ctx, c->walk.name, t->end, own);
    }
}

/* T5 when a node is left. */
static void leave_node(struct check *c, unsigned level)
{
    if (cht_tnode_count(&c->walk.node) != c->below[level])
        report(c, c->walk.node.ref, "a node's count is wrong");
    if (level > 0)
        /* cppcheck-suppress arrayIndexOutOfBoundsCond ; level is the depth of a node, bounded on the way down */
        c->below[level - 1] += c->below[level];
}

/* T6, T7. */
static void check_leaf(struct check *c, unsigned level)
{
    const struct cht_tleaf *l = &c->walk.leaf;
    struct cht_err ignored;
    uint8_t used[CHT_PAGE] = {0};
    unsigned bytes = 0, prev_len = 0, twice = 0;
    uint8_t prev[CHT_TRIE_SUFFIX_MAX], *s = c->name + l->depth;
    if (!take_units(c, l->ref, CHT_TRIE_LEAF_CLASS))
        return;
    if (l->p[CHT_LEAF_FLAGS] != 0)
        report(c, l->ref, "a leaf has flags that mean nothing");
    memcpy(c->name, c->walk.name, l->depth);
    for (unsigned i = 0; i < l->n; i++) {
        struct cht_tentry e;
        if (cht_tleaf_entry(l, i, &e, &ignored) != CHT_OK || l->depth + e.len > CHT_TRIE_NAME_MAX) {
            report(c, l->ref, "an entry of a leaf is out of place");
            return;
        }
        (void)cht_tentry_suffix(&e, s); /* e.len bytes */
        if (e.key == 0 || s[0] < l->lo || s[0] > l->hi || cht_tsuffix_head(s, e.len) != e.head)
            report(c, l->ref, "an entry has no key, a wrong head or lies outside its leaf's range");
        unsigned both = prev_len < e.len ? prev_len : e.len;
        int order = both > 0 ? memcmp(prev, s, both) : 0;
        if (i > 0 && (order > 0 || (order == 0 && prev_len >= e.len)))
            report(c, l->ref, "the entries of a leaf are out of order");
        memcpy(prev, s, prev_len = e.len);
        unsigned off = (unsigned)(e.rest - l->p) + e.rest_len - e.size;
        for (unsigned k = off; k < off + e.size; k++) {
            twice += used[k];
            bytes += !used[k];
            used[k] = 1;
        }
        if (c->pair != NULL)
            c->pair(c->ctx, c->name, l->depth + e.len, e.key);
    }
    if (bytes + l->garbage != CHT_PAGE - l->heap || twice > 0)
        report(c, l->ref, "the entries of a leaf overlap or do not fill its heap");
    c->below[level] += l->n;
}

static void check_free(struct check *c, const uint8_t *head, unsigned class)
{
    uint32_t ref = cht_get32(head + 8 * class), count = cht_get32(head + 8 * class + 4);
    struct cht_err ignored;
    uint32_t i = 0;
    for (; i < count && ref != 0; i++) {
        if (ref < 64 || ref + (UINT64_C(1) << class) > c->units || (ref & ((1u << class) - 1)) != 0) {
            report(c, ref, "a free list leads outside the file");
            return;
        }
        const uint8_t *b = cht_arena_read(c->pf, ref, &ignored);
        if (b == NULL || cht_get32(b + 4) != (CHT_ARENA_FREE ^ class)) {
            report(c, ref, "a block on a free list is not free");
            return;
        }
        if (!take_units(c, ref, class)) /* a circle ends here too */
            return;
        ref = cht_get32(b);
    }
    if (ref != 0 || i != count)
        report(c, ref, "a free list does not have as many blocks as it says");
}

/* T8: a page of zeros at unit u that belongs to nobody. */
static bool is_given_back(struct check *c, uint64_t u)
{
    static const uint8_t zeros[CHT_PAGE];
    struct cht_err ignored;
    const uint8_t *h = cht_page_read(c->pf, 0, &ignored);
    if (u % 64 != 0 || h == NULL || cht_get32(h + 8) < CHT_FORMAT_HOLES ||
        memcmp(c->owned + u / 8, zeros, 64 / 8) != 0)
        return false;
    const uint8_t *p = cht_page_read(c->pf, u / 64, &ignored);
    return p != NULL && memcmp(p, zeros, CHT_PAGE) == 0;
}

static void check_units(struct check *c)
{
    struct cht_err ignored;
    const uint8_t *h = cht_page_read(c->pf, 0, &ignored);
    for (unsigned k = 0; h != NULL && k < CHT_ARENA_CLASSES; k++)
        check_free(c, h + CHT_ARENA_HEADS, k);
    for (uint64_t u = 64; u < c->units; u++) {
        if (c->owned[u >> 3] >> (u & 7) & 1)
            continue;
        if (is_given_back(c, u)) {
            u += 63;
            continue;
        }
        report(c, (uint32_t)u, "space that nothing owns");
        while (u + 1 < c->units && !(c->owned[(u + 1) >> 3] >> ((u + 1) & 7) & 1))
            u++; /* one finding a gap */
    }
}

static void walk_all(struct check *c, uint32_t root)
{
    struct cht_err err = {0};
    cht_twalk_init(&c->walk, c->pf, NULL, root, 0);
    c->below[0] = 0;
    for (;;) {
        enum cht_rc rc = cht_twalk_next(&c->walk, &err);
        unsigned level = c->walk.levels - 1; /* of the node the event is about, but for LEAVE */
        if (rc != CHT_OK) {
            report(c, c->walk.at, err.msg);
        } else if (c->walk.event == CHT_TWALK_END) {
            return;
        } else if (c->walk.event == CHT_TWALK_LEAF) {
            check_leaf(c, level);
        } else if (c->walk.event == CHT_TWALK_NODE) {
            c->below[level] = 0;
            check_node(c, level);
        } else {
            leave_node(c, level + 1);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_trie_check(struct cht_pagefile *pf, void (*bad)(void *ctx, uint64_t off, const char *what),
                           void (*pair)(void *ctx, const uint8_t *name, size_t len, uint64_t key), void *ctx,
                           struct cht_err *err)
{
    static const enum cht_trie_map maps[] = {CHT_TRIE_PAIRS, CHT_TRIE_EXPIRY, CHT_TRIE_DUE};
    uint32_t root[3];
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < 3 && rc == CHT_OK; i++)
        rc = cht_trie_root(pf, maps[i], &root[i], err);
    if (rc != CHT_OK)
        return rc;
    struct check *c = cht_malloc(sizeof *c);
    uint64_t units = cht_pf_pages(pf) * 64;
    uint8_t *owned = cht_calloc(units / 8 + 1, 1);
    if (c == NULL || owned == NULL) {
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory to check a trie");
    } else {
        c->pf = pf;
        c->bad = bad;
        c->ctx = ctx;
        c->units = units;
        c->owned = owned;
        for (unsigned i = 0; i < 3; i++) {
            c->pair = i == 0 ? pair : NULL;
            if (i == 0 || root[i] != 0)
                walk_all(c, root[i]);
        }
        check_units(c);
    }
    cht_free(owned);
    cht_free(c);
    return rc;
}

enum cht_rc cht_trie_shape(struct cht_pagefile *pf, struct cht_trie_shape *out, struct cht_err *err)
{
    uint32_t root;
    memset(out, 0, sizeof *out);
    enum cht_rc rc = cht_trie_root(pf, CHT_TRIE_PAIRS, &root, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_twalk *w = cht_malloc(sizeof *w);
    if (w == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to measure a trie");
    cht_twalk_init(w, pf, NULL, root, 0);
    while ((rc = cht_twalk_next(w, err)) == CHT_OK && w->event != CHT_TWALK_END) {
        if (w->event == CHT_TWALK_LEAF) {
            out->leaves++;
            out->leaf_bytes_used += CHT_LEAF_HEADS + cht_tleaf_used(&w->leaf);
        } else if (w->event == CHT_TWALK_NODE) {
            uint64_t *count[] = {&out->inner4, &out->inner16, &out->inner48, &out->inner256};
            (*count[w->node.type - CHT_TRIE_N4])++;
            out->depth_max = w->levels > out->depth_max ? w->levels : out->depth_max;
        }
    }
    cht_free(w);
    return rc;
}
