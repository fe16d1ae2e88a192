/* trie_leaf: one page with a sorted run of suffixes: lookup, change in place, building. Layout in trie_format.h.
 *
 * Lookup touches the header, a few lines of the dense heads and one entry. Two suffixes with the same head (4 bytes,
 * zero-padded) are ordered by the bytes from the 5th on, then by length: if one is shorter than 4 bytes it is a
 * prefix of the other, so this is the order of their bytes.
 */
#include "store/trie_int.h"

#include <string.h>

static uint32_t head_at(const uint8_t *p, unsigned i)
{
    return cht_get32(p + CHT_LEAF_HEADS + (size_t)4 * i);
}

/* Decodes entry i; false if it does not lie in the page. */
static bool entry_at(const uint8_t *p, unsigned n, unsigned heap, unsigned i, struct cht_tentry *e)
{
    unsigned off = cht_get16(p + CHT_LEAF_HEADS + (size_t)4 * n + (size_t)2 * i);
    if (off < heap || off > CHT_PAGE - CHT_LEAF_ENTRY_MIN)
        return false;
    unsigned len = p[off], h = 1;
    if (len > 127) {
        len = (len & 127) | (unsigned)p[off + 1] << 7;
        h = 2;
    }
    e->len = len;
    e->rest_len = len > 4 ? len - 4 : 0;
    e->size = h + 6 + e->rest_len;
    if (len < 1 || len > CHT_TRIE_SUFFIX_MAX || off + e->size > CHT_PAGE)
        return false;
    e->key = cht_get48(p + off + h);
    e->head = head_at(p, i);
    e->rest = p + off + h + 6;
    return true;
}

static int compare_rest(const struct cht_tentry *e, const uint8_t *s, size_t n)
{
    size_t rest = n > 4 ? n - 4 : 0;
    size_t both = rest < e->rest_len ? rest : e->rest_len;
    int c = both > 0 ? memcmp(e->rest, s + 4, both) : 0;
    if (c != 0)
        return c;
    return e->len < n ? -1 : e->len > n;
}

static bool starts_with(const struct cht_tentry *e, const uint8_t *s, size_t n)
{
    if (e->len < n)
        return false;
    if (n < 4)
        return n == 0 || ((e->head ^ cht_tsuffix_head(s, n)) >> (32 - 8 * n)) == 0;
    return e->head == cht_be32(s) && memcmp(e->rest, s + 4, n - 4) == 0;
}

static enum cht_rc bad_entry(const struct cht_tleaf *l, struct cht_err *err)
{
    return CHT_TRIE_BAD(l->pf, (uint64_t)l->ref * 64, "an entry of a leaf is out of place", err);
}

/* Writes an entry's bytes at p. */
static void put_entry(uint8_t *p, const uint8_t *s, size_t n, uint64_t key)
{
    if (n > 127) {
        *p++ = (uint8_t)(n & 127) | 128;
        *p++ = (uint8_t)(n >> 7);
    } else {
        *p++ = (uint8_t)n;
    }
    cht_put48(p, key);
    if (n > 4)
        memcpy(p + 6, s + 4, n - 4);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_tleaf_open(struct cht_pagefile *pf, uint32_t ref, unsigned depth, struct cht_tleaf *l,
                           struct cht_err *err)
{
    if (ref < 64 || (ref & 63) != 0)
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "a leaf must be a page", err);
    const uint8_t *p = cht_arena_read(pf, ref, err);
    if (p == NULL)
        return CHT_CORRUPT;
    l->pf = pf;
    l->p = p;
    l->ref = ref;
    l->n = cht_get16(p + CHT_LEAF_N);
    l->heap = cht_get16(p + CHT_LEAF_HEAP);
    l->garbage = cht_get16(p + CHT_LEAF_GARBAGE);
    l->depth = cht_get16(p + CHT_LEAF_DEPTH);
    l->lo = p[CHT_LEAF_LO];
    l->hi = p[CHT_LEAF_HI];
    l->crc = cht_get32(p + CHT_LEAF_CRC);
    if (p[CHT_LEAF_TYPE] != CHT_TRIE_LEAF || l->depth != depth || depth >= CHT_TRIE_NAME_MAX || l->lo > l->hi)
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "not the leaf that belongs here", err);
    if (l->heap > CHT_PAGE || CHT_LEAF_HEADS + CHT_LEAF_SLOT * l->n > l->heap ||
        l->garbage > CHT_PAGE - l->heap)
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "wrong sizes in a leaf", err);
    return CHT_OK;
}

enum cht_rc cht_tleaf_entry(const struct cht_tleaf *l, unsigned i, struct cht_tentry *e, struct cht_err *err)
{
    return entry_at(l->p, l->n, l->heap, i, e) ? CHT_OK : bad_entry(l, err);
}

/* Two rounds of counting without branches, one over every 16th head and one within 16: the loads of a round do not wait for
 * each other as those of a binary search would. */
unsigned cht_tleaf_head_pos(const struct cht_tleaf *l, uint32_t head)
{
    const uint8_t *base = l->p + CHT_LEAF_HEADS;
    unsigned at = 0;
    for (unsigned i = 15; i < l->n; i += 16)
        at += cht_get32(base + (size_t)4 * i) < head ? 16 : 0;
    unsigned end = at + 16 < l->n ? at + 16 : l->n, pos = at;
    for (unsigned i = at; i < end; i++)
        pos += cht_get32(base + (size_t)4 * i) < head;
    return pos;
}

enum cht_rc cht_tleaf_find_at(const struct cht_tleaf *l, const uint8_t *s, size_t n, unsigned *at,
                              bool *found, struct cht_err *err)
{
    uint32_t head = cht_tsuffix_head(s, n);
    unsigned lo = *at, hi = lo;
    if (lo < l->n && head_at(l->p, lo) == head) {
        hi = lo + 1;
        if (hi < l->n && head_at(l->p, hi) == head)
            hi = head == UINT32_MAX ? l->n : cht_tleaf_head_pos(l, head + 1);
    }
    *found = false;
    while (lo < hi) { /* among equal heads */
        unsigned mid = lo + (hi - lo) / 2;
        struct cht_tentry e;
        if (!entry_at(l->p, l->n, l->heap, mid, &e))
            return bad_entry(l, err);
        int c = compare_rest(&e, s, n);
        if (c == 0) {
            *found = true;
            lo = mid;
            break;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *at = lo;
    return CHT_OK;
}

enum cht_rc cht_tleaf_find(const struct cht_tleaf *l, const uint8_t *s, size_t n, unsigned *at, bool *found,
                           struct cht_err *err)
{
    *at = cht_tleaf_head_pos(l, cht_tsuffix_head(s, n));
    return cht_tleaf_find_at(l, s, n, at, found, err);
}

enum cht_rc cht_tleaf_prefix(const struct cht_tleaf *l, const uint8_t *s, size_t n, unsigned *from,
                             unsigned *to, struct cht_err *err)
{
    bool found;
    *from = 0;
    enum cht_rc rc = n > 0 ? cht_tleaf_find(l, s, n, from, &found, err) : CHT_OK;
    unsigned lo = *from, hi = l->n;
    while (rc == CHT_OK && lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        struct cht_tentry e;
        if (!entry_at(l->p, l->n, l->heap, mid, &e))
            return bad_entry(l, err);
        if (starts_with(&e, s, n))
            lo = mid + 1;
        else
            hi = mid;
    }
    *to = lo;
    return rc;
}

unsigned cht_tentry_suffix(const struct cht_tentry *e, uint8_t *out)
{
    uint8_t head[4];
    cht_put32(head, __builtin_bswap32(e->head));
    memcpy(out, head, e->len < 4 ? e->len : 4);
    if (e->rest_len > 0)
        memcpy(out + 4, e->rest, e->rest_len);
    return e->len;
}

void cht_tleaf_insert(uint8_t *p, unsigned at, const uint8_t *s, size_t n, uint64_t key)
{
    unsigned count = cht_get16(p + CHT_LEAF_N);
    unsigned heap = cht_get16(p + CHT_LEAF_HEAP) - (cht_tentry_cost(n) - CHT_LEAF_SLOT);
    uint8_t *heads = p + CHT_LEAF_HEADS, *offs = heads + (size_t)4 * count;
    memmove(offs + 4 + 2 * (at + 1), offs + 2 * at,
            2 * (count - at)); /* from the end, so nothing is overwritten */
    memmove(offs + 4, offs, 2 * at);
    memmove(heads + 4 * (at + 1), heads + 4 * at, 4 * (count - at));
    cht_put32(heads + 4 * at, cht_tsuffix_head(s, n));
    cht_put16(offs + 4 + 2 * at, (uint16_t)heap);
    put_entry(p + heap, s, n, key);
    cht_put16(p + CHT_LEAF_N, (uint16_t)(count + 1));
    cht_put16(p + CHT_LEAF_HEAP, (uint16_t)heap);
}

void cht_tleaf_remove(uint8_t *p, unsigned at, unsigned entry_size)
{
    unsigned count = cht_get16(p + CHT_LEAF_N), heap = cht_get16(p + CHT_LEAF_HEAP),
             garbage = cht_get16(p + CHT_LEAF_GARBAGE);
    uint8_t *heads = p + CHT_LEAF_HEADS, *offs = heads + (size_t)4 * count;
    unsigned off = cht_get16(offs + 2 * at);
    if (count == 1) {
        heap = CHT_PAGE;
        garbage = 0;
    } else if (off == heap) {
        heap += entry_size;
    } else {
        garbage += entry_size;
    }
    if (garbage > CHT_PAGE - heap) /* only in a damaged page */
        garbage = CHT_PAGE - heap;
    memmove(heads + 4 * at, heads + 4 * (at + 1), 4 * (count - at - 1));
    memmove(offs - 4, offs, 2 * at);
    memmove(offs - 4 + 2 * at, offs + 2 * (at + 1), 2 * (count - at - 1));
    cht_put16(p + CHT_LEAF_N, (uint16_t)(count - 1));
    cht_put16(p + CHT_LEAF_HEAP, (uint16_t)heap);
    cht_put16(p + CHT_LEAF_GARBAGE, (uint16_t)garbage);
}

void cht_tbuild_init(struct cht_tbuild *b, unsigned n, unsigned depth, unsigned lo, unsigned hi, uint32_t crc)
{
    memset(b->page, 0, sizeof b->page);
    b->n = n;
    b->i = 0;
    b->heap = CHT_PAGE;
    b->full = CHT_LEAF_HEADS + CHT_LEAF_SLOT * n > CHT_PAGE;
    b->page[CHT_LEAF_TYPE] = CHT_TRIE_LEAF;
    cht_put16(b->page + CHT_LEAF_N, (uint16_t)n);
    cht_put16(b->page + CHT_LEAF_HEAP, CHT_PAGE);
    cht_put16(b->page + CHT_LEAF_DEPTH, (uint16_t)depth);
    b->page[CHT_LEAF_LO] = (uint8_t)lo;
    b->page[CHT_LEAF_HI] = (uint8_t)hi;
    cht_put32(b->page + CHT_LEAF_CRC, crc);
}

void cht_tbuild_add(struct cht_tbuild *b, const uint8_t *s, size_t n, uint64_t key)
{
    unsigned size = cht_tentry_cost(n) - CHT_LEAF_SLOT;
    if (b->full || b->i >= b->n || b->heap < CHT_LEAF_HEADS + CHT_LEAF_SLOT * b->n + size) {
        b->full = true;
        return;
    }
    b->heap -= size;
    cht_put32(b->page + CHT_LEAF_HEADS + (size_t)4 * b->i, cht_tsuffix_head(s, n));
    cht_put16(b->page + CHT_LEAF_HEADS + (size_t)4 * b->n + (size_t)2 * b->i, (uint16_t)b->heap);
    put_entry(b->page + b->heap, s, n, key);
    cht_put16(b->page + CHT_LEAF_HEAP, (uint16_t)b->heap);
    b->i++;
}

enum cht_rc cht_tbuild_copy(struct cht_tbuild *b, const struct cht_tleaf *l, unsigned from, unsigned to,
                            unsigned skip, struct cht_err *err)
{
    for (unsigned i = from; i < to; i++) {
        struct cht_tentry e;
        uint8_t s[CHT_TRIE_SUFFIX_MAX];
        if (!entry_at(l->p, l->n, l->heap, i, &e) || e.len <= skip)
            return bad_entry(l, err);
        (void)cht_tentry_suffix(&e, s); /* its length is e.len */
        cht_tbuild_add(b, s + skip, e.len - skip, e.key);
    }
    return CHT_OK;
}

enum cht_rc cht_tbuild_done(const struct cht_tbuild *b, const struct cht_pagefile *pf, uint32_t ref,
                            struct cht_err *err)
{
    if (b->full || b->i != b->n)
        return CHT_TRIE_BAD(pf, (uint64_t)ref * 64, "the entries of a leaf overlap", err);
    return CHT_OK;
}
