/* trie_iter: walking the trie in order, both ways, within one locked section.
 *
 * The stack holds the inner nodes above the current place, each with the next byte to look at: forward from 0 up, with -1 for
 * the node's own pair before its children; backward from 255 down, the own pair last (-1), then -2. Entries of the
 * current leaf come straight from the page.
 */
#include "store/trie_format.h"

#include "base/alloc.h"

#include <string.h>

struct frame {
    uint32_t ref;
    int32_t at;
};

struct cht_trie_iter {
    struct cht_pagefile *pf;
    bool reverse;
    bool ended;
    size_t prefix_len;
    uint32_t leaf; /* 0: between leaves */
    unsigned leaf_depth, leaf_n;
    int leaf_at; /* entry to give next */
    unsigned n;  /* frames */
    struct frame frames[CHT_DEPTH_MAX + 2];
    uint8_t prefix[CHT_NAME_MAX];
    uint8_t name[CHT_NAME_MAX + CHT_PATH_BYTES + 8];
};

enum cht_rc cht_trie_iter_new(struct cht_trie_iter **out, struct cht_err *err)
{
    *out = cht_malloc(sizeof **out);
    if (*out == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an iterator");
    (*out)->ended = true;
    return CHT_OK;
}

void cht_trie_iter_free(struct cht_trie_iter *it) { cht_free(it); }

static enum cht_rc push_node(struct cht_trie_iter *it, uint32_t ref, const uint8_t *p, int at, struct cht_err *err)
{
    if (it->n > CHT_DEPTH_MAX)
        return CHT_DAMAGED(err, "%s: the trie is deeper than a name can be", cht_pf_path(it->pf));
    memcpy(it->name + cht_node_depth(p), p + cht_node_path(p[0]), p[1]);
    it->frames[it->n++] = (struct frame){ref, at};
    return CHT_OK;
}

static enum cht_rc enter_leaf(struct cht_trie_iter *it, uint32_t ref, const uint8_t *p, struct cht_err *err)
{
    it->leaf = ref;
    it->leaf_depth = cht_get16(p + 8);
    it->leaf_n = cht_leaf_n(p);
    it->leaf_at = it->reverse ? (int)it->leaf_n - 1 : 0;
    if (cht_get32(p + 12) != cht_crc32c(0, it->name, it->leaf_depth))
        return CHT_DAMAGED(err, "%s: offset %llu: the leaf does not belong to the name that led to it", cht_pf_path(it->pf),
                           (unsigned long long)ref * 64);
    return CHT_OK;
}

/* The node at ref below byte `byte` of a node whose path ends at `depth`. */
static enum cht_rc enter(struct cht_trie_iter *it, uint32_t ref, unsigned depth, unsigned byte, struct cht_err *err)
{
    const uint8_t *p = cht_arena_read(it->pf, ref, err);
    if (p == NULL)
        return CHT_CORRUPT;
    if (p[0] == CHT_LEAF) {
        p = cht_node_at(it->pf, ref, depth, err);
        return p == NULL ? CHT_CORRUPT : enter_leaf(it, ref, p, err);
    }
    p = cht_node_at(it->pf, ref, depth + 1, err);
    if (p == NULL)
        return CHT_CORRUPT;
    it->name[depth] = (uint8_t)byte;
    return push_node(it, ref, p, it->reverse ? 255 : -1, err);
}

/* Goes on to the next leaf or own pair. *own is its key (its name of *len bytes is in it->name), or it->leaf is set.
 * PAIR_NOT_FOUND at the end. */
static enum cht_rc advance(struct cht_trie_iter *it, uint64_t *own, size_t *len, struct cht_err *err)
{
    *own = 0;
    while (it->n > 0) {
        struct frame *f = &it->frames[it->n - 1];
        const uint8_t *p = cht_arena_read(it->pf, f->ref, err);
        if (p == NULL)
            return CHT_CORRUPT;
        unsigned end = cht_node_depth(p) + p[1];
        if (f->at == -1) {
            f->at = it->reverse ? -2 : 0;
            if (cht_node_own(p) == 0)
                continue;
            *own = cht_node_own(p);
            *len = end;
            return CHT_OK;
        }
        if (f->at > 255 || f->at == -2) {
            it->n--;
            continue;
        }
        struct cht_range r;
        cht_node_range(p, (unsigned)f->at, &r);
        f->at = it->reverse ? (int)r.lo - 1 : (int)r.hi + 1;
        if (r.child == 0)
            continue;
        enum cht_rc rc = enter(it, r.child, end, r.lo, err);
        if (rc != CHT_OK || it->leaf != 0)
            return rc;
    }
    return CHT_PAIR_NOT_FOUND;
}

/* Places a forward iterator on the first name >= t (or > t). */
static enum cht_rc seek_forward(struct cht_trie_iter *it, uint32_t ref, const uint8_t *t, size_t n, bool exclusive, struct cht_err *err)
{
    unsigned depth = 0, below = 0;
    while (ref != 0) {
        const uint8_t *p = cht_arena_read(it->pf, ref, err);
        p = p == NULL ? NULL : cht_node_at(it->pf, ref, p[0] == CHT_LEAF ? depth : depth + below, err);
        if (p == NULL)
            return CHT_CORRUPT;
        if (p[0] == CHT_LEAF) {
            unsigned pos = 0;
            bool equal = false;
            enum cht_rc rc = enter_leaf(it, ref, p, err);
            if (rc == CHT_OK && n > depth)
                rc = cht_leaf_search(it->pf, ref, p, t + depth, n - depth, &pos, &equal, err);
            it->leaf_at = (int)(pos + (equal && exclusive));
            return rc;
        }
        depth += below;
        const uint8_t *path = p + cht_node_path(p[0]);
        unsigned m = 0;
        while (m < p[1] && depth + m < n && path[m] == t[depth + m])
            m++;
        if (m < p[1] && depth + m < n && path[m] < t[depth + m])
            return CHT_OK; /* all below is smaller: the frames above go on behind it */
        bool whole = m < p[1] || depth + m == n; /* all below, but perhaps the own pair, is larger */
        depth += p[1];
        int at = -1;
        if (whole && m == p[1] && exclusive)
            at = 0;
        struct cht_range r = {0, 0, 0, 0};
        if (!whole) {
            cht_node_range(p, t[depth], &r);
            at = (int)r.hi + 1;
        }
        enum cht_rc rc = push_node(it, ref, p, at, err);
        if (rc != CHT_OK || whole)
            return rc;
        it->name[depth] = t[depth];
        ref = r.child;
        below = 1;
    }
    return CHT_OK;
}

/* Places a backward iterator on the last name < t. */
static enum cht_rc seek_backward(struct cht_trie_iter *it, uint32_t ref, const uint8_t *t, size_t n, struct cht_err *err)
{
    unsigned depth = 0, below = 0;
    while (ref != 0) {
        const uint8_t *p = cht_arena_read(it->pf, ref, err);
        p = p == NULL ? NULL : cht_node_at(it->pf, ref, p[0] == CHT_LEAF ? depth : depth + below, err);
        if (p == NULL)
            return CHT_CORRUPT;
        if (p[0] == CHT_LEAF) {
            unsigned pos = 0;
            bool equal;
            enum cht_rc rc = enter_leaf(it, ref, p, err);
            if (rc == CHT_OK && n > depth)
                rc = cht_leaf_search(it->pf, ref, p, t + depth, n - depth, &pos, &equal, err);
            it->leaf_at = (int)pos - 1;
            return rc;
        }
        depth += below;
        const uint8_t *path = p + cht_node_path(p[0]);
        unsigned m = 0;
        while (m < p[1] && depth + m < n && path[m] == t[depth + m])
            m++;
        if (depth + m == n || (m < p[1] && path[m] > t[depth + m]))
            return CHT_OK; /* all below is t or larger */
        bool whole = m < p[1]; /* all below is smaller */
        depth += p[1];
        struct cht_range r = {0, 0, 0, 0};
        int at = 255;
        if (!whole) {
            cht_node_range(p, t[depth], &r);
            at = (int)r.lo - 1;
        }
        enum cht_rc rc = push_node(it, ref, p, at, err);
        if (rc != CHT_OK || whole)
            return rc;
        it->name[depth] = t[depth];
        ref = r.child;
        below = 1;
    }
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_trie_iter_seek(struct cht_trie_iter *it, struct cht_pagefile *pf, const uint8_t *prefix, size_t prefix_len,
                               const uint8_t *after, size_t after_len, bool reverse, struct cht_err *err)
{
    it->pf = pf;
    it->reverse = reverse;
    it->ended = false;
    it->prefix_len = prefix_len;
    if (prefix_len > 0)
        memcpy(it->prefix, prefix, prefix_len);
    it->leaf = 0;
    it->n = 0;
    const uint8_t *h = cht_page_read(pf, 0, err);
    if (h == NULL)
        return CHT_CORRUPT;
    uint32_t root = cht_get32(h + CHT_TRIE_ROOT);
    size_t min = prefix_len < after_len ? prefix_len : after_len;
    int c = min > 0 ? memcmp(after, prefix, min) : 0;
    if (c == 0)
        c = (after_len > prefix_len) - (after_len < prefix_len);
    if (!reverse) {
        bool use_after = after_len > 0 && c >= 0;
        return use_after ? seek_forward(it, root, after, after_len, true, err) : seek_forward(it, root, prefix, prefix_len, false, err);
    }
    uint8_t next[CHT_NAME_MAX]; /* the least string behind all that begin with the prefix */
    size_t n = prefix_len;
    if (n > 0)
        memcpy(next, prefix, n);
    while (n > 0 && next[n - 1] == 0xFF)
        n--;
    if (n > 0)
        next[n - 1]++;
    min = n < after_len ? n : after_len;
    c = min > 0 ? memcmp(after, next, min) : 0;
    bool use_after = after_len > 0 && (n == 0 || c < 0 || (c == 0 && after_len < n));
    if (use_after)
        return seek_backward(it, root, after, after_len, err);
    if (n > 0)
        return seek_backward(it, root, next, n, err);
    if (root == 0)
        return CHT_OK;
    const uint8_t *p = cht_arena_read(pf, root, err);
    p = p == NULL ? NULL : cht_node_at(pf, root, 0, err);
    if (p == NULL)
        return CHT_CORRUPT;
    return p[0] == CHT_LEAF ? enter_leaf(it, root, p, err) : push_node(it, root, p, 255, err);
}

/* Does the name begin with the prefix? If not, the iteration is over: the names that do lie side by side. */
static bool inside(struct cht_trie_iter *it, size_t len)
{
    return len >= it->prefix_len && memcmp(it->name, it->prefix, it->prefix_len) == 0;
}

enum cht_rc cht_trie_iter_next(struct cht_trie_iter *it, const uint8_t **name, size_t *len, uint64_t *key, struct cht_err *err)
{
    while (!it->ended) {
        if (it->leaf != 0 && it->leaf_at >= 0 && it->leaf_at < (int)it->leaf_n) {
            struct cht_rest r;
            const uint8_t *p = cht_arena_read(it->pf, it->leaf, err);
            if (p == NULL)
                return CHT_CORRUPT;
            enum cht_rc rc = cht_leaf_entry(it->pf, it->leaf, p, (unsigned)it->leaf_at, &r, err);
            if (rc != CHT_OK)
                return rc;
            if (it->leaf_depth + r.len > CHT_NAME_MAX)
                return CHT_DAMAGED(err, "%s: offset %llu: a name of more than 4096 bytes", cht_pf_path(it->pf),
                                   (unsigned long long)it->leaf * 64);
            it->leaf_at += it->reverse ? -1 : 1;
            cht_put32(it->name + it->leaf_depth, __builtin_bswap32(r.head));
            if (r.len > 4)
                memcpy(it->name + it->leaf_depth + 4, r.more, r.len - 4);
            *len = it->leaf_depth + r.len;
            *key = r.key;
        } else {
            it->leaf = 0;
            enum cht_rc rc = advance(it, key, len, err);
            if (rc == CHT_PAIR_NOT_FOUND)
                break;
            if (rc != CHT_OK)
                return rc;
            if (it->leaf != 0)
                continue;
        }
        if (!inside(it, *len))
            break;
        *name = it->name;
        return CHT_OK;
    }
    it->ended = true;
    return CHT_PAIR_NOT_FOUND;
}

enum cht_rc cht_trie_iter_batch(struct cht_trie_iter *it, struct cht_trie_item *items, size_t max, uint8_t *names, size_t names_cap,
                                size_t *count, size_t *names_used, struct cht_err *err)
{
    size_t n = 0, used = 0;
    enum cht_rc rc = CHT_OK;
    while (n < max && names_cap - used >= CHT_NAME_MAX) {
        const uint8_t *name;
        size_t len;
        uint64_t key;
        rc = cht_trie_iter_next(it, &name, &len, &key, err);
        if (rc != CHT_OK)
            break;
        memcpy(names + used, name, len);
        items[n++] = (struct cht_trie_item){(uint32_t)used, (uint32_t)len, key};
        used += len;
    }
    *count = n;
    *names_used = used;
    return rc;
}
