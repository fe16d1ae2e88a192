/* trie_node: inner nodes: checked views, range lookup, and images (a node taken apart, changed, put together again).
 * Layout in trie_format.h.
 */
#include "store/trie_int.h"

#include <string.h>

/* How many of the first `cap` bytes are <= byte. Unused ones are 255, so the caller cuts the result to n. */
static unsigned count_below(const uint8_t *first, unsigned type, unsigned byte)
{
    uint8_t c = 0, b = (uint8_t)byte;
    if (type == CHT_TRIE_N4) {
        for (unsigned i = 0; i < 4; i++)
            c = (uint8_t)(c + (first[i] <= b));
    } else if (type == CHT_TRIE_N16) {
        for (unsigned i = 0; i < 16; i++)
            c = (uint8_t)(c + (first[i] <= b));
    } else {
        for (unsigned i = 0; i < 48; i++)
            c = (uint8_t)(c + (first[i] <= b));
    }
    return c;
}

static unsigned range_index(const struct cht_tnode *t, unsigned byte)
{
    unsigned c = count_below(t->p + CHT_NODE_BODY, t->type, byte);
    if (c > t->n)
        c = t->n;
    return c > 0 ? c - 1 : 0;
}

static uint32_t child_at(const struct cht_tnode *t, unsigned i)
{
    return cht_get32(t->p + cht_trie_child_at(t->type) + (size_t)4 * i);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_tnode_open(struct cht_pagefile *pf, uint32_t ref, unsigned depth, struct cht_tnode *t,
                           struct cht_err *err)
{
    if (ref < 64)
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "a ref leads into the header", err);
    const uint8_t *p = cht_arena_read(pf, ref, err);
    if (p == NULL)
        return CHT_CORRUPT;
    unsigned type = p[CHT_NODE_TYPE];
    if (type < CHT_TRIE_N4 || type > CHT_TRIE_N256)
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "not a trie node", err);
    t->p = p;
    t->ref = ref;
    t->type = type;
    t->n = cht_get16(p + CHT_NODE_N);
    t->depth = cht_get16(p + CHT_NODE_DEPTH);
    t->path_len = p[CHT_NODE_PATH_LEN];
    t->path = p + cht_trie_path_at(type);
    t->end = t->depth + t->path_len;
    if (ref & ((1u << cht_trie_node_class(type, t->path_len)) - 1))
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "a node is not aligned to its size", err);
    if (t->depth != depth || t->end > CHT_TRIE_NAME_MAX)
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "a node is at the wrong depth", err);
    if (depth == 0 && (t->path_len != 0 || cht_get64(p + CHT_NODE_OWN) != 0)) /* T2 */
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "the root has a path or a key", err);
    if (t->n < 1 || t->n > cht_trie_cap(type) || (type != CHT_TRIE_N256 && p[CHT_NODE_BODY] != 0))
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "wrong ranges in a node", err);
    return CHT_OK;
}

enum cht_rc cht_tnode_kind(struct cht_pagefile *pf, const struct cht_tnode *t, uint32_t child, bool *leaf,
                           struct cht_err *err)
{
    *leaf = false;
    if (child < 64)
        return CHT_TRIE_BAD(pf, (uint64_t)t->ref * 64, "a child lies in the header", err);
    const uint8_t *p = cht_arena_read(pf, child, err);
    if (p == NULL)
        return CHT_CORRUPT;
    *leaf = p[CHT_LEAF_TYPE] == CHT_TRIE_LEAF;
    return CHT_OK;
}

uint32_t cht_tnode_child(const struct cht_tnode *t, unsigned byte)
{
    return child_at(t, t->type == CHT_TRIE_N256 ? byte : range_index(t, byte));
}

struct cht_trange cht_tnode_range(const struct cht_tnode *t, unsigned byte)
{
    struct cht_trange r = {byte, byte, 0};
    if (t->type != CHT_TRIE_N256) {
        unsigned i = range_index(t, byte);
        r.child = child_at(t, i);
        /* A damaged, unsorted node must not lead backwards: the run contains `byte`. */
        unsigned lo = t->p[CHT_NODE_BODY + i], hi = i + 1 < t->n ? t->p[CHT_NODE_BODY + i + 1] - 1u : 255u;
        r.lo = lo < byte ? lo : byte;
        r.hi = hi > byte && hi <= 255 ? hi : byte;
        return r;
    }
    r.child = child_at(t, byte);
    if (r.child == 0)
        return r;
    while (r.lo > 0 && child_at(t, r.lo - 1) == r.child)
        r.lo--;
    while (r.hi < 255 && child_at(t, r.hi + 1) == r.child)
        r.hi++;
    return r;
}

void cht_tnode_relink(uint8_t *p, unsigned byte, uint32_t ref)
{
    struct cht_tnode t = {.p = p, .type = p[CHT_NODE_TYPE], .n = cht_get16(p + CHT_NODE_N)};
    unsigned i = t.type == CHT_TRIE_N256 ? byte : range_index(&t, byte);
    cht_put32(p + cht_trie_child_at(t.type) + (size_t)4 * i, ref);
}

void cht_timage_init(struct cht_timage *im, unsigned depth, uint32_t crc, const uint8_t *path,
                     unsigned path_len)
{
    im->type = CHT_TRIE_N4;
    im->depth = depth;
    im->path_len = path_len;
    im->own = im->count = 0;
    im->crc = crc;
    memset(im->child, 0, sizeof im->child);
    if (path_len > 0)
        memcpy(im->path, path, path_len);
}

void cht_timage_load(struct cht_timage *im, const struct cht_tnode *t)
{
    im->type = t->type;
    im->depth = t->depth;
    im->path_len = t->path_len;
    im->own = cht_tnode_own(t);
    im->count = cht_tnode_count(t);
    im->crc = cht_get32(t->p + CHT_NODE_CRC);
    memcpy(im->path, t->path, t->path_len);
    if (t->type == CHT_TRIE_N256) {
        memcpy(im->child, t->p + CHT_NODE_BODY, sizeof im->child);
        return;
    }
    for (unsigned b = 0, i = 0; b < 256; b++) {
        while (i + 1 < t->n && t->p[CHT_NODE_BODY + i + 1] <= b)
            i++;
        im->child[b] = child_at(t, i);
    }
}

void cht_timage_set(struct cht_timage *im, unsigned lo, unsigned hi, uint32_t child)
{
    for (unsigned b = lo; b <= hi; b++)
        im->child[b] = child;
}

static unsigned image_runs(const struct cht_timage *im)
{
    unsigned n = 1;
    for (unsigned b = 1; b < 256; b++)
        n += im->child[b] != im->child[b - 1];
    return n;
}

unsigned cht_timage_fit(struct cht_timage *im)
{
    unsigned n = image_runs(im);
    unsigned type = n <= 4 ? CHT_TRIE_N4 : n <= 16 ? CHT_TRIE_N16 : n <= 48 ? CHT_TRIE_N48 : CHT_TRIE_N256;
    if (type + 1 == im->type && n > cht_trie_cap(type) * 3 / 4) /* do not go back and forth */
        type = im->type;
    im->type = type;
    return cht_trie_node_class(type, im->path_len);
}

void cht_timage_store(const struct cht_timage *im, uint8_t *p)
{
    memset(p, 0, (size_t)64 << cht_trie_node_class(im->type, im->path_len));
    p[CHT_NODE_TYPE] = (uint8_t)im->type;
    cht_put16(p + CHT_NODE_N, (uint16_t)image_runs(im));
    cht_put16(p + CHT_NODE_DEPTH, (uint16_t)im->depth);
    p[CHT_NODE_PATH_LEN] = (uint8_t)im->path_len;
    cht_put64(p + CHT_NODE_OWN, im->own);
    cht_put64(p + CHT_NODE_COUNT, im->count);
    cht_put32(p + CHT_NODE_CRC, im->crc);
    memcpy(p + cht_trie_path_at(im->type), im->path, im->path_len);
    uint8_t *child = p + cht_trie_child_at(im->type);
    if (im->type == CHT_TRIE_N256) {
        memcpy(child, im->child, sizeof im->child);
        return;
    }
    memset(p + CHT_NODE_BODY, 255, cht_trie_cap(im->type));
    for (unsigned b = 0, i = 0; b < 256; b++) {
        if (b > 0 && im->child[b] == im->child[b - 1])
            continue;
        p[CHT_NODE_BODY + i] = (uint8_t)b;
        cht_put32(child + (size_t)4 * i++, im->child[b]);
    }
}
