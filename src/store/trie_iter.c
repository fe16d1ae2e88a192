/* trie_iter: ordered iteration in both directions (contract in trie.h).
 *
 * The iterator stands in a run of leaf entries (leaf, i, left) and knows the way there (level[]: nodes with the next
 * byte to visit). Within a leaf only the suffix of the name is rebuilt. A node's own key comes before its children,
 * after them in reverse. Every node and leaf is compared with the way that led to it when it is entered.
 */
#include "store/trie_int.h"

#include "base/alloc.h"
#include "base/invariant.h"
#include "base/prefetch.h"

#include <string.h>

#define LEAVES_ASKED 64u
#define WIDE 16u /* rests up to that many bytes are copied with fixed size, without a call */

struct cht_trie_iter {
    struct cht_pagefile *pf;
    const uint8_t *leaf;       /* borrowed until the lock is released */
    unsigned n, heap, i, left; /* its entries, heap, the next one, how many to go */
    unsigned base;             /* its depth: bytes of `name` that stay */
    const uint8_t *ahead;      /* of the page after it, what is not fetched yet */
    unsigned ahead_left;       /* ... cache lines of it */
    unsigned asked;            /* leaves after it for which the disk was asked, where pages are read alone */
    size_t want;               /* entries that are going to be taken after this leaf; a guess */
    unsigned own_len;          /* a node's own pair is next */
    uint64_t own;              /* ... 0: none */
    uint64_t budget;
    bool reverse;
    enum cht_trie_map map;
    unsigned levels;
    struct cht_tlevel level[CHT_TRIE_NAME_MAX + 2];
    uint8_t name[CHT_TRIE_NAME_MAX + WIDE + 4];
};

static void push(struct cht_trie_iter *it, const struct cht_tnode *t, int next)
{
    it->level[it->levels++] = (struct cht_tlevel){t->ref, (uint16_t)t->depth, (int16_t)next};
    memcpy(it->name + t->depth, t->path, t->path_len);
}

static void own_next(struct cht_trie_iter *it, const struct cht_tnode *t)
{
    it->own = cht_tnode_own(t);
    it->own_len = t->end;
}

/* Enters a node from its near side. */
static void enter(struct cht_trie_iter *it, const struct cht_tnode *t)
{
    it->asked = 0;
    push(it, t, it->reverse ? 255 : 0);
    if (!it->reverse)
        own_next(it, t);
}

/* As many leaves after `next` as the entries that are wanted will need: the disk reads them side by side. */
static void ask_leaves(struct cht_trie_iter *it, const struct cht_tnode *t, int next)
{
    size_t n = it->n > 0 ? it->want / it->n : 0;
    if (it->asked > 0) {
        it->asked--;
        return;
    }
    for (n = n < LEAVES_ASKED ? n : LEAVES_ASKED; n > 0 && next >= 0 && next <= 255; n--) {
        struct cht_trange r = cht_tnode_range(t, (unsigned)next);
        if (r.child != 0 && (r.child & 63) == 0)
            cht_pf_soon(it->pf, (uint64_t)r.child * 64, 1);
        next = it->reverse ? (int)r.lo - 1 : (int)r.hi + 1;
        it->asked++;
    }
}

/* What comes after the run on which t was left at `next`, which is most likely a leaf, will be fetched while the entries
 * of this one are taken: they lie in its page in the order of their arrival, which no hardware foresees. */
static void look_ahead(struct cht_trie_iter *it, const struct cht_tnode *t, int next)
{
    uint32_t ref = next < 0 || next > 255 ? 0 : cht_tnode_child(t, (unsigned)next);
    it->ahead_left = 0;
    if (__builtin_expect(cht_pf_fast(it->pf)->alone, 0))
        ask_leaves(it, t, next);
    if (ref == 0 || (ref & 63) != 0 || ref >> 6 >= cht_pf_fast(it->pf)->pages)
        return; /* not a leaf */
    it->ahead = cht_trie_ptr(it->pf, ref);
    it->ahead_left = CHT_PAGE / 64;
}

/* Stands before entries [from, to) of a leaf. */
static void enter_leaf(struct cht_trie_iter *it, const struct cht_tleaf *l, unsigned from, unsigned to)
{
    it->leaf = l->p;
    it->n = l->n;
    it->heap = l->heap;
    it->base = l->depth;
    it->left = to > from ? to - from : 0;
    it->i = it->reverse ? to - 1 : from;
}

/* The child of a node: leaf or node, opened and compared with the way that leads to it. */
static enum cht_rc open_child(struct cht_trie_iter *it, const struct cht_tnode *t, struct cht_trange r,
                              bool *is_leaf, struct cht_tleaf *l, struct cht_tnode *child,
                              struct cht_err *err)
{
    enum cht_rc rc = cht_tnode_kind(it->pf, t, r.child, is_leaf, err);
    if (rc != CHT_OK)
        return rc;
    if (*is_leaf) {
        rc = cht_tleaf_open(it->pf, r.child, t->end, l, err);
        if (rc == CHT_OK && (l->lo != r.lo || l->hi != r.hi || l->crc != cht_crc32c(0, it->name, t->end)))
            rc = CHT_TRIE_BAD(it->pf, (uint64_t)r.child * 64,
                              "a leaf does not belong to the range that leads to it", err);
        return rc;
    }
    if (r.lo != r.hi || t->end >= CHT_TRIE_NAME_MAX)
        return CHT_TRIE_BAD(it->pf, (uint64_t)t->ref * 64, "a node hangs on a range of several bytes", err);
    it->name[t->end] = (uint8_t)r.lo;
    rc = cht_tnode_open(it->pf, r.child, t->end + 1, child, err);
    return rc == CHT_OK ? cht_tnode_check(it->pf, child, it->name, err) : rc;
}

/* Enters the child on a range from its near side. */
static enum cht_rc enter_child(struct cht_trie_iter *it, const struct cht_tnode *t, struct cht_trange r,
                               struct cht_err *err)
{
    struct cht_tnode child;
    struct cht_tleaf leaf;
    bool is_leaf;
    enum cht_rc rc = open_child(it, t, r, &is_leaf, &leaf, &child, err);
    if (rc != CHT_OK)
        return rc;
    if (is_leaf)
        enter_leaf(it, &leaf, 0, leaf.n);
    else
        enter(it, &child);
    return CHT_OK;
}

/* To the next run of entries or the next node with an own key. CHT_PAIR_NOT_FOUND at the end. */
static enum cht_rc advance(struct cht_trie_iter *it, struct cht_err *err)
{
    while (it->left == 0 && it->own == 0) {
        if (it->levels == 0)
            return CHT_PAIR_NOT_FOUND;
        struct cht_tlevel *l = &it->level[it->levels - 1];
        struct cht_tnode t;
        enum cht_rc rc = cht_tnode_open(it->pf, l->ref, l->depth, &t, err);
        if (rc == CHT_OK && it->budget-- == 0)
            rc = CHT_TRIE_BAD(it->pf, (uint64_t)l->ref * 64, "the trie has more nodes than the file can hold",
                              err);
        if (rc != CHT_OK) {
            it->levels = 0;
            return rc;
        }
        if (l->next < 0 || l->next > 255) { /* done with it */
            it->levels--;
            if (it->reverse)
                own_next(it, &t);
            continue;
        }
        struct cht_trange r = cht_tnode_range(&t, (unsigned)l->next);
        l->next = (int16_t)(it->reverse ? (int)r.lo - 1 : (int)r.hi + 1);
        if (r.child != 0 && (rc = enter_child(it, &t, r, err)) != CHT_OK)
            return rc;
        if (it->left > 0) {
            it->want = it->want > it->left ? it->want - it->left : 0;
            look_ahead(it, &t, l->next);
        }
    }
    return CHT_OK;
}

static enum cht_rc bad_entry(struct cht_trie_iter *it, struct cht_err *err)
{
    uint64_t off = (uint64_t)(it->leaf - cht_pf_fast(it->pf)->base);
    it->left = 0; /* a next call goes on after this leaf */
    return CHT_TRIE_BAD(it->pf, off, "an entry of a leaf is out of place", err);
}

/* Writes the next entry's suffix to out (which has room for the rest of a name, or base + 20 bytes if that is more) and steps
 * on. Its length; 0 for a damaged entry. */
static inline unsigned take_entry(struct cht_trie_iter *it, uint8_t *out, uint64_t *key)
{
    const uint8_t *p = it->leaf, *heads = p + CHT_LEAF_HEADS;
    unsigned i = it->i, off = cht_get16(heads + (size_t)4 * it->n + (size_t)2 * i);
    if (off < it->heap || off > CHT_PAGE - CHT_LEAF_ENTRY_MIN)
        return 0;
    const uint8_t *e = p + off + 1;
    unsigned len = p[off];
    if (len > 127) {
        len = (len & 127) | (unsigned)*e++ << 7;
        if (len > CHT_TRIE_SUFFIX_MAX)
            return 0;
    }
    unsigned rest = len > 4 ? len - 4 : 0, end = (unsigned)(e - p) + 6 + rest;
    if (len == 0 || end > CHT_PAGE || it->base + len > CHT_TRIE_NAME_MAX)
        return 0;
    if (rest <= WIDE && end - rest + WIDE <= CHT_PAGE && it->base + 4 + WIDE <= CHT_TRIE_NAME_MAX) {
        cht_put32(out, cht_be32(heads + (size_t)4 * i));
        memcpy(out + 4, e + 6, WIDE);
    } else {
        uint8_t head[4];
        cht_put32(head, cht_be32(heads + (size_t)4 * i));
        memcpy(out, head, len < 4 ? len : 4);
        if (rest > 0)
            memcpy(out + 4, e + 6, rest);
    }
    *key = cht_get48(e);
    it->left--;
    it->i = it->reverse ? i - 1 : i + 1;
    return len;
}

/* ---- seek ---------------------------------------------------------------------------------------------------- */

/* The order of cursor and prefix: -1 the cursor lies before all names under the prefix, 1 after, 0 it begins with it. */
static int cursor_side(const uint8_t *prefix, size_t prefix_len, const uint8_t *after, size_t after_len)
{
    size_t both = prefix_len < after_len ? prefix_len : after_len;
    int c = both > 0 ? memcmp(after, prefix, both) : 0;
    if (c != 0)
        return c < 0 ? -1 : 1;
    return after_len < prefix_len ? -1 : 0;
}

/* The node's path against the cursor. True if the search ends here: the levels are as they must be. */
static bool ends_at(struct cht_trie_iter *it, const struct cht_tnode *t, const uint8_t *after, unsigned len)
{
    unsigned room = len - t->depth;
    unsigned m = cht_trie_common(t->path, after + t->depth, t->path_len < room ? t->path_len : room);
    if (m < t->path_len) {
        bool greater = m == room || t->path[m] > after[t->depth + m];
        if (greater != it->reverse) /* the whole subtree is on the far side */
            enter(it, t);
        return true;
    }
    if (t->end == len && !it->reverse) /* the cursor is the node's own name */
        push(it, t, 0);
    return t->end == len;
}

/* From a node down along the cursor: the levels are left so that advance goes on after it. */
static enum cht_rc seek_cursor(struct cht_trie_iter *it, struct cht_tnode *t, const uint8_t *after,
                               unsigned len, struct cht_err *err)
{
    while (!ends_at(it, t, after, len)) { /* t->depth grows and is at most len */
        struct cht_trange r = cht_tnode_range(t, after[t->end]);
        struct cht_tleaf l;
        struct cht_tnode child;
        bool is_leaf, found;
        unsigned at;
        push(it, t, it->reverse ? (int)r.lo - 1 : (int)r.hi + 1);
        if (r.child == 0)
            return CHT_OK;
        enum cht_rc rc = open_child(it, t, r, &is_leaf, &l, &child, err);
        if (rc == CHT_OK && is_leaf)
            rc = cht_tleaf_find(&l, after + l.depth, len - l.depth, &at, &found, err);
        if (rc != CHT_OK)
            return rc;
        if (is_leaf) {
            enter_leaf(it, &l, it->reverse ? 0 : at + found, it->reverse ? at : l.n);
            look_ahead(it, t, it->level[it->levels - 1].next);
            return CHT_OK;
        }
        *t = child;
    }
    return CHT_OK;
}

struct bytes {
    const uint8_t *p;
    size_t n;
};

/* The prefix ends within a leaf: a run of its entries, cut at the cursor. */
static enum cht_rc seek_leaf(struct cht_trie_iter *it, const struct cht_tpos *pos, struct bytes prefix,
                             struct bytes after, struct cht_err *err)
{
    struct cht_tleaf l;
    unsigned from = 0, to = 0, at;
    bool found;
    enum cht_rc rc = cht_trie_leaf(it->pf, prefix.p, pos, &l, err);
    if (rc == CHT_OK)
        rc = cht_tleaf_prefix(&l, prefix.p + l.depth, prefix.n - l.depth, &from, &to, err);
    if (rc == CHT_OK && after.n > 0) {
        rc = cht_tleaf_find(&l, after.p + l.depth, after.n - l.depth, &at, &found, err);
        if (rc == CHT_OK && it->reverse)
            to = at < to ? at : to;
        else if (rc == CHT_OK)
            from = at + found > from ? at + found : from;
    }
    if (rc == CHT_OK)
        enter_leaf(it, &l, from, to);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_trie_iter_new(struct cht_trie_iter **out, struct cht_err *err)
{
    *out = cht_malloc(sizeof **out);
    if (*out == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an iterator");
    (*out)->left = (*out)->levels = 0;
    (*out)->want = 0;
    (*out)->own = 0;
    (*out)->map = CHT_TRIE_PAIRS;
    return CHT_OK;
}

void cht_trie_iter_free(struct cht_trie_iter *it) { cht_free(it); }

void cht_trie_iter_use(struct cht_trie_iter *it, enum cht_trie_map map) { it->map = map; }

enum cht_rc cht_trie_iter_seek(struct cht_trie_iter *it, struct cht_pagefile *pf, const uint8_t *prefix,
                               size_t prefix_len, const uint8_t *after, size_t after_len, bool reverse,
                               struct cht_err *err)
{
    CHT_INVARIANT(prefix_len <= CHT_TRIE_NAME_MAX && after_len <= CHT_TRIE_NAME_MAX);
    it->pf = pf;
    it->left = it->levels = 0;
    it->own = 0;
    it->want = 0;
    it->ahead_left = it->asked = 0;
    it->reverse = reverse;
    it->budget = cht_twalk_budget(pf);
    if (after_len > 0) {
        int side = cursor_side(prefix, prefix_len, after, after_len);
        if (side == (reverse ? -1 : 1))
            return CHT_OK; /* nothing lies there: the first next says so */
        if (side != 0)
            after_len = 0;
    }
    struct cht_tpos pos;
    pos.map = it->map;
    enum cht_rc rc = cht_trie_descend(pf, prefix, prefix_len, &pos, err);
    if (rc != CHT_OK || pos.end == CHT_TEND_NONE ||
        (pos.end == CHT_TEND_PATH && pos.node.depth + pos.at < prefix_len))
        return rc;
    unsigned known = pos.end == CHT_TEND_LEAF ? pos.node.end : pos.node.depth;
    if (known > 0)
        memcpy(it->name, prefix, known);
    if (pos.end == CHT_TEND_LEAF)
        return seek_leaf(it, &pos, (struct bytes){prefix, prefix_len}, (struct bytes){after, after_len}, err);
    rc = cht_tnode_check(pf, &pos.node, prefix, err);
    if (rc == CHT_OK && after_len > 0)
        return seek_cursor(it, &pos.node, after, (unsigned)after_len, err);
    if (rc == CHT_OK)
        enter(it, &pos.node);
    return rc;
}

enum cht_rc cht_trie_iter_next(struct cht_trie_iter *it, const uint8_t **name, size_t *len, uint64_t *key,
                               struct cht_err *err)
{
    if (it->left == 0 && it->own == 0) {
        enum cht_rc rc = advance(it, err);
        if (rc != CHT_OK)
            return rc;
    }
    *name = it->name;
    if (it->own != 0) {
        *len = it->own_len;
        *key = it->own;
        it->own = 0;
        return CHT_OK;
    }
    unsigned n = take_entry(it, it->name + it->base, key);
    if (n == 0)
        return bad_entry(it, err);
    *len = it->base + n;
    return CHT_OK;
}

/* Where pages are read alone: up to n entries are going to be taken. */
static void expect(struct cht_trie_iter *it, size_t n)
{
    struct cht_tnode t;
    it->want = n;
    if (!cht_pf_fast(it->pf)->alone || it->left == 0 || it->levels == 0)
        return;
    const struct cht_tlevel *l = &it->level[it->levels - 1];
    if (cht_tnode_open(it->pf, l->ref, l->depth, &t, NULL) == CHT_OK)
        ask_leaves(it, &t, l->next);
}

enum cht_rc cht_trie_iter_batch(struct cht_trie_iter *it, struct cht_trie_item *items, size_t max,
                                uint8_t *names, size_t names_cap, size_t *count, size_t *names_used,
                                struct cht_err *err)
{
    size_t used = 0, n = 0;
    enum cht_rc rc = CHT_OK;
    expect(it, max);
    while (n < max && names_cap - used >= CHT_TRIE_NAME_MAX) {
        if (it->left == 0 && it->own == 0 && (rc = advance(it, err)) != CHT_OK)
            break;
        unsigned len, known = it->own != 0 ? it->own_len : it->base;
        uint64_t key = it->own;
        if (known <= WIDE)
            memcpy(names + used, it->name, WIDE); /* of fixed size */
        else
            memcpy(names + used, it->name, known);
        if (it->ahead_left > 0) {
            it->ahead_left--;
            cht_prefetch(it->ahead);
            it->ahead += 64;
        }
        if (it->own != 0) {
            it->own = 0;
            len = known;
        } else {
            unsigned s = take_entry(it, names + used + known, &key);
            if (s == 0) {
                rc = bad_entry(it, err);
                break;
            }
            len = known + s;
        }
        items[n++] = (struct cht_trie_item){(uint32_t)used, len, key};
        used += len;
    }
    *count = n;
    *names_used = used;
    return rc;
}

/* The key of the entry `at` places from the start of the leaf's offsets; 0 for a damaged one. As take_entry, without its bytes. */
static inline uint64_t key_of(const struct cht_trie_iter *it, unsigned at)
{
    const uint8_t *p = it->leaf;
    unsigned off = cht_get16(p + CHT_LEAF_HEADS + (size_t)4 * it->n + (size_t)2 * at);
    if (off < it->heap || off > CHT_PAGE - CHT_LEAF_ENTRY_MIN)
        return 0;
    unsigned len = p[off], size = 1;
    if (len > 127) {
        len = (len & 127) | (unsigned)p[off + 1] << 7;
        size = 2;
    }
    unsigned rest = len > 4 ? len - 4 : 0;
    if (len == 0 || len > CHT_TRIE_SUFFIX_MAX || off + size + 6 + rest > CHT_PAGE ||
        it->base + len > CHT_TRIE_NAME_MAX)
        return 0;
    return cht_get48(p + off + size);
}

enum cht_rc cht_trie_iter_keys(struct cht_trie_iter *it, struct cht_trie_item *items, size_t max,
                               size_t *count, uint8_t *last, size_t *last_len, struct cht_err *err)
{
    size_t n = 0, len = 0;
    enum cht_rc rc = CHT_OK;
    CHT_INVARIANT(!it->reverse);
    expect(it, max);
    while (n < max) {
        if (it->left == 0 && it->own == 0 && (rc = advance(it, err)) != CHT_OK)
            break;
        if (it->own != 0) {
            items[n++] = (struct cht_trie_item){0, 0, it->own};
            len = it->own_len;
            it->own = 0;
            continue;
        }
        unsigned run = it->left < max - n ? it->left : (unsigned)(max - n);
        for (unsigned i = 0; i + 1 < run; i++) {
            uint64_t key = key_of(it, it->i);
            if (key == 0) {
                *count = n;
                return bad_entry(it, err);
            }
            items[n++] = (struct cht_trie_item){0, 0, key};
            it->i++;
            it->left--;
        }
        uint64_t key; /* the last one of the run with its name */
        unsigned suffix = take_entry(it, it->name + it->base, &key);
        if (suffix == 0) {
            rc = bad_entry(it, err);
            break;
        }
        items[n++] = (struct cht_trie_item){0, 0, key};
        len = it->base + suffix;
    }
    *count = n;
    if (len > 0) {
        memcpy(last, it->name, len);
        *last_len = len;
    }
    return rc;
}
