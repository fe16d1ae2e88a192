/* trie_shrink: giving back what deletes leave empty or small; deleting whole prefixes.
 *
 * After a delete, at most three steps, each complete in itself and none needed for correctness:
 *   D1 an empty leaf, or a node without pairs, is freed and its range becomes null; so upwards
 *   D2 a leaf takes in a neighbouring leaf of the same node where both together fill half a page
 *   D3 an inner node with few pairs and at most one leaf below becomes a leaf of its parent
 */
#include "store/trie_format.h"

#include "base/alloc.h"
#include "base/invariant.h"

#include <string.h>

#define MERGE_BYTES (CHT_PAGE / 2)
#define PULL_BYTES (CHT_PAGE / 4)

struct shrink {
    struct cht_pagefile *pf;
    const uint8_t *name;
    size_t len;
    struct cht_way way;
    struct cht_stand st;
    struct cht_node_image image;
    struct cht_leaf_items a, b;
};

static uint8_t *sure(struct cht_pagefile *pf, uint32_t ref)
{
    struct cht_err e;
    uint8_t *p = cht_arena_write(pf, ref, &e);
    CHT_INVARIANT(p != NULL); /* obtained before */
    return p;
}

static enum cht_rc ready(struct cht_pagefile *pf, uint32_t ref, struct cht_err *err)
{
    struct cht_err e = {0};
    if (cht_arena_write(pf, ref, &e) != NULL)
        return CHT_OK;
    if (err != NULL)
        *err = e;
    return e.code;
}

static enum cht_rc ready_way(struct shrink *s, struct cht_err *err)
{
    enum cht_rc rc = ready(s->pf, 0, err);
    for (unsigned i = 0; i < s->way.n && rc == CHT_OK; i++)
        rc = ready(s->pf, s->way.ref[i], err);
    return rc;
}

static struct cht_link link_of(const struct shrink *s, unsigned i)
{
    if (i == 0)
        return (struct cht_link){0, 0};
    const uint8_t *p = sure(s->pf, s->way.ref[i - 1]);
    return (struct cht_link){s->way.ref[i - 1], s->name[cht_node_depth(p) + p[1]]};
}

/* Puts `ref` over bytes lo..hi of the last node of the way. */
static enum cht_rc set_last(struct shrink *s, unsigned lo, unsigned hi, uint32_t ref, struct cht_err *err)
{
    uint32_t node = s->way.ref[s->way.n - 1], out;
    cht_node_take(sure(s->pf, node), &s->image);
    for (unsigned b = lo; b <= hi; b++)
        s->image.child[b] = ref;
    enum cht_rc rc = cht_node_replace(s->pf, link_of(s, s->way.n - 1), node, &s->image, &out, err);
    if (rc == CHT_OK)
        s->way.ref[s->way.n - 1] = out;
    return rc;
}

/* D1: takes the block at ref, of class k, out of where it hangs; the way ends at its parent. */
static enum cht_rc drop_child(struct shrink *s, uint32_t ref, unsigned k, struct cht_err *err)
{
    enum cht_rc rc = ready(s->pf, ref, err);
    if (rc == CHT_OK && s->way.n == 0) {
        rc = cht_link_ready(s->pf, (struct cht_link){0, 0}, err);
        if (rc == CHT_OK)
            cht_link_set(s->pf, (struct cht_link){0, 0}, 0);
    } else if (rc == CHT_OK) {
        const uint8_t *p = sure(s->pf, s->way.ref[s->way.n - 1]);
        struct cht_range r;
        cht_node_range(p, s->name[cht_node_depth(p) + p[1]], &r);
        rc = set_last(s, r.lo, r.hi, 0, err);
    }
    return rc == CHT_OK ? cht_arena_free(s->pf, k, ref, err) : rc;
}

/* D1 upwards: nodes of the way that hold no pair any more. */
static enum cht_rc drop_empty_nodes(struct shrink *s, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && s->way.n > 0) {
        uint32_t ref = s->way.ref[s->way.n - 1];
        const uint8_t *p = sure(s->pf, ref);
        if (cht_node_count(p) != 0)
            break;
        for (unsigned b = 0; b < 256; b++) { /* an empty path node may hang below one that is empty too */
            if (cht_node_child(p, b) != 0)
                return CHT_OK;
        }
        s->way.n--;
        rc = drop_child(s, ref, cht_node_class(p[0], p[1]), err);
    }
    return rc;
}

/* D2: leaf `ref` (range r) and its neighbour `other` (range o), o right of r. */
static enum cht_rc merge_pair(struct shrink *s, uint32_t ref, const struct cht_range *r, uint32_t other, const struct cht_range *o,
                              struct cht_err *err)
{
    enum cht_rc rc = ready(s->pf, ref, err);
    if (rc == CHT_OK)
        rc = ready(s->pf, other, err);
    if (rc == CHT_OK)
        rc = cht_leaf_take(s->pf, ref, sure(s->pf, ref), &s->a, err);
    if (rc == CHT_OK)
        rc = cht_leaf_take(s->pf, other, sure(s->pf, other), &s->b, err);
    if (rc != CHT_OK || s->a.n + s->b.n >= CHT_LEAF_MAX || s->a.used + s->b.used + 4u > sizeof s->a.bytes)
        return rc;
    const uint8_t *p = sure(s->pf, ref);
    unsigned depth = cht_get16(p + 8);
    uint32_t crc = cht_get32(p + 12);
    rc = set_last(s, r->lo, o->hi, ref, err);
    if (rc != CHT_OK)
        return rc;
    memcpy(s->a.bytes + s->a.used, s->b.bytes, s->b.used);
    for (unsigned i = 0; i < s->b.n; i++) {
        s->a.v[s->a.n + i] = s->b.v[i];
        s->a.v[s->a.n + i].off = (uint16_t)(s->b.v[i].off + s->a.used);
    }
    s->a.n += s->b.n;
    cht_leaf_build(sure(s->pf, ref), &s->a, 0, s->a.n, 0, s->name, 0, depth, r->lo, o->hi, crc);
    return cht_arena_free(s->pf, 6, other, err);
}

static bool is_leaf(struct cht_pagefile *pf, uint32_t ref, size_t *used)
{
    const uint8_t *p = ref == 0 ? NULL : cht_arena_read(pf, ref, NULL);
    if (p == NULL || p[0] != CHT_LEAF)
        return false;
    *used = cht_leaf_used(p);
    return true;
}

static enum cht_rc merge_neighbours(struct shrink *s, uint32_t leaf, struct cht_err *err)
{
    if (s->way.n == 0)
        return CHT_OK;
    const uint8_t *p = sure(s->pf, s->way.ref[s->way.n - 1]);
    struct cht_range r, o;
    size_t used, more;
    cht_node_range(p, s->name[cht_node_depth(p) + p[1]], &r);
    if (r.child != leaf || !is_leaf(s->pf, leaf, &used) || used > PULL_BYTES)
        return CHT_OK;
    if (r.hi < 255) {
        cht_node_range(p, r.hi + 1, &o);
        if (is_leaf(s->pf, o.child, &more) && used + more - CHT_LEAF_HEAD <= MERGE_BYTES)
            return merge_pair(s, leaf, &r, o.child, &o, err);
    }
    if (r.lo > 0) {
        cht_node_range(p, r.lo - 1, &o);
        if (is_leaf(s->pf, o.child, &more) && used + more - CHT_LEAF_HEAD <= MERGE_BYTES)
            return merge_pair(s, o.child, &o, leaf, &r, err);
    }
    return CHT_OK;
}

/* D3: the last node of the way, if it is small enough, becomes a leaf. */
static enum cht_rc pull_up(struct shrink *s, struct cht_err *err)
{
    if (s->way.n < 2)
        return CHT_OK;
    uint32_t ref = s->way.ref[s->way.n - 1], leaf = 0;
    const uint8_t *p = sure(s->pf, ref);
    cht_node_take(p, &s->image);
    for (unsigned b = 0; b < 256; b++) {
        if (s->image.child[b] != 0 && leaf != 0 && s->image.child[b] != leaf)
            return CHT_OK;
        leaf = s->image.child[b] != 0 ? s->image.child[b] : leaf;
    }
    size_t used = 0;
    unsigned k = cht_node_class(p[0], p[1]), front_len = s->image.path_len + 1;
    if (leaf != 0 && (!is_leaf(s->pf, leaf, &used) || used > PULL_BYTES))
        return CHT_OK;
    s->a.n = s->a.used = 0;
    enum cht_rc rc = leaf != 0 ? ready(s->pf, leaf, err) : cht_arena_reserve(s->pf, 6, 1, err);
    if (rc == CHT_OK && leaf != 0)
        rc = cht_leaf_take(s->pf, leaf, sure(s->pf, leaf), &s->a, err);
    if (rc != CHT_OK || cht_leaf_size(&s->a, 0, s->a.n, -(int)front_len) > MERGE_BYTES)
        return rc;
    for (unsigned i = 0; i < s->a.n; i++) {
        if (s->a.v[i].len + front_len > CHT_REST_MAX)
            return CHT_OK;
    }
    const uint8_t *up = sure(s->pf, s->way.ref[s->way.n - 2]);
    unsigned depth = cht_node_depth(up) + up[1], byte = s->name[depth];
    uint8_t front[CHT_PATH_BYTES + 1];
    front[0] = (uint8_t)byte;
    memcpy(front + 1, s->image.path, s->image.path_len);
    if (s->image.own != 0) { /* the shortest of them, so the first */
        memmove(&s->a.v[1], &s->a.v[0], s->a.n * sizeof s->a.v[0]);
        s->a.v[0].off = 0;
        s->a.v[0].len = 0;
        s->a.v[0].key = s->image.own;
        s->a.n++;
    }
    s->way.n--;
    rc = ready(s->pf, ref, err);
    if (rc == CHT_OK && leaf == 0)
        rc = cht_arena_alloc(s->pf, 6, &leaf, err);
    if (rc == CHT_OK)
        rc = set_last(s, byte, byte, leaf, err);
    if (rc != CHT_OK)
        return rc;
    cht_leaf_build(sure(s->pf, leaf), &s->a, 0, s->a.n, 0, front, front_len, depth, byte, byte, cht_crc32c(0, s->name, depth));
    return cht_arena_free(s->pf, k, ref, err);
}

static enum cht_rc shrink_way(struct shrink *s, struct cht_err *err)
{
    enum cht_rc rc = ready_way(s, err);
    if (rc == CHT_OK && s->st.stop == CHT_AT_LEAF) {
        size_t used = 0;
        const uint8_t *p = cht_arena_read(s->pf, s->st.ref, err);
        if (p == NULL)
            return CHT_CORRUPT;
        used = cht_leaf_used(p);
        if (cht_leaf_n(p) == 0)
            rc = drop_child(s, s->st.ref, 6, err);
        else if (used <= PULL_BYTES)
            rc = merge_neighbours(s, s->st.ref, err);
    }
    if (rc == CHT_OK)
        rc = drop_empty_nodes(s, err);
    if (rc == CHT_OK && s->way.n > 0 && cht_node_count(sure(s->pf, s->way.ref[s->way.n - 1])) < CHT_LEAF_MAX / 2)
        rc = pull_up(s, err);
    return rc;
}

void cht_trie_shrink(struct cht_pagefile *pf, const uint8_t *name, size_t len)
{
    struct shrink *s = cht_malloc(sizeof *s);
    struct cht_err ignored = {0}; /* what could not be done now is only space */
    if (s == NULL)
        return;
    s->pf = pf;
    s->name = name;
    s->len = len;
    if (cht_trie_walk(pf, name, len, &s->way, &s->st, &ignored) == CHT_OK)
        (void)shrink_way(s, &ignored);
    cht_free(s);
}

/* ---- prefixes -------------------------------------------------------------------------------------------------- */

/* Entries [*a, *b) of a leaf begin with s. */
static enum cht_rc leaf_prefix(struct cht_pagefile *pf, uint32_t ref, const uint8_t *p, const uint8_t *s, size_t n, unsigned *a,
                               unsigned *b, struct cht_err *err)
{
    bool equal;
    uint8_t next[CHT_NAME_MAX];
    *a = 0;
    *b = cht_leaf_n(p);
    if (n == 0)
        return CHT_OK;
    enum cht_rc rc = cht_leaf_search(pf, ref, p, s, n, a, &equal, err);
    memcpy(next, s, n);
    while (n > 0 && next[n - 1] == 0xFF) /* the least string behind all that begin with s */
        n--;
    if (rc != CHT_OK || n == 0)
        return rc;
    next[n - 1]++;
    return cht_leaf_search(pf, ref, p, next, n, b, &equal, err);
}

enum cht_rc cht_trie_count(struct cht_pagefile *pf, const uint8_t *prefix, size_t len, uint64_t *count, struct cht_err *err)
{
    struct cht_way way;
    struct cht_stand st;
    *count = 0;
    if (len == 0) {
        const uint8_t *h = cht_page_read(pf, 0, err);
        *count = h == NULL ? 0 : cht_get64(h + CHT_TRIE_PAIRS);
        return h == NULL ? CHT_CORRUPT : CHT_OK;
    }
    enum cht_rc rc = cht_trie_walk(pf, prefix, len, &way, &st, err);
    if (rc != CHT_OK)
        return rc;
    if (st.stop == CHT_AT_LEAF) {
        unsigned a, b;
        rc = leaf_prefix(pf, st.ref, cht_arena_read(pf, st.ref, err), prefix + st.depth, len - st.depth, &a, &b, err);
        *count = rc == CHT_OK ? b - a : 0;
    } else if (st.stop == CHT_AT_OWN || (st.stop == CHT_IN_PATH && st.depth == len)) {
        *count = cht_node_count(cht_arena_read(pf, st.ref, err));
    }
    return rc;
}

struct work {
    uint32_t *v; /* owned */
    size_t n, cap;
};

static enum cht_rc push(struct work *w, uint32_t ref, struct cht_err *err)
{
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 256;
        uint32_t *v = cht_realloc(w->v, cap * sizeof *v);
        if (v == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to delete a prefix");
        w->v = v;
        w->cap = cap;
    }
    w->v[w->n++] = ref;
    return CHT_OK;
}

/* Frees a subtree, node by node. */
static enum cht_rc free_subtree(struct cht_pagefile *pf, uint32_t ref, struct cht_err *err)
{
    struct work w = {0};
    struct cht_node_image *im = cht_malloc(sizeof *im);
    enum cht_rc rc = im == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory to delete a prefix") : push(&w, ref, err);
    uint64_t limit = cht_pf_pages(pf) * 64; /* more nodes there cannot be: a circle in a damaged file ends here */
    while (rc == CHT_OK && w.n > 0) {
        uint32_t at = w.v[--w.n];
        const uint8_t *p = cht_arena_read(pf, at, err);
        unsigned depth = p == NULL ? 0 : p[0] == CHT_LEAF ? cht_get16(p + 8) : cht_node_depth(p);
        p = p == NULL ? NULL : cht_node_at(pf, at, depth, err);
        if (p == NULL || limit-- == 0) {
            rc = p == NULL ? CHT_CORRUPT : CHT_DAMAGED(err, "%s: nodes of the trie form a circle", cht_pf_path(pf));
            break;
        }
        unsigned k = p[0] == CHT_LEAF ? 6 : cht_node_class(p[0], p[1]);
        if (p[0] != CHT_LEAF) {
            cht_node_take(p, im);
            for (unsigned b = 0; b < 256 && rc == CHT_OK; b++) {
                if (im->child[b] != 0 && (b == 0 || im->child[b] != im->child[b - 1]))
                    rc = push(&w, im->child[b], err);
            }
        }
        if (rc == CHT_OK)
            rc = cht_arena_free(pf, k, at, err);
    }
    cht_free(im);
    cht_free(w.v);
    return rc;
}

static void subtract(struct shrink *s, uint64_t n)
{
    for (unsigned i = 0; i < s->way.n; i++) {
        uint8_t *p = sure(s->pf, s->way.ref[i]);
        cht_put64(p + 8, cht_node_count(p) - n);
    }
    uint8_t *h = sure(s->pf, 0);
    cht_put64(h + CHT_TRIE_PAIRS, cht_get64(h + CHT_TRIE_PAIRS) - n);
}

/* The prefix is a whole node: cut it off, free it. */
static enum cht_rc cut_node(struct shrink *s, uint64_t *count, struct cht_err *err)
{
    uint32_t ref = s->st.ref;
    *count = cht_node_count(sure(s->pf, ref));
    s->way.n--;
    enum cht_rc rc = CHT_OK;
    if (s->way.n == 0) {
        cht_link_set(s->pf, (struct cht_link){0, 0}, 0);
    } else {
        const uint8_t *p = sure(s->pf, s->way.ref[s->way.n - 1]);
        unsigned byte = s->name[cht_node_depth(p) + p[1]];
        rc = set_last(s, byte, byte, 0, err);
    }
    if (rc != CHT_OK)
        return rc;
    subtract(s, *count);
    return free_subtree(s->pf, ref, err);
}

static enum cht_rc cut_leaf(struct shrink *s, uint64_t *count, struct cht_err *err)
{
    unsigned a, b;
    const uint8_t *p = cht_arena_read(s->pf, s->st.ref, err);
    enum cht_rc rc = leaf_prefix(s->pf, s->st.ref, p, s->name + s->st.depth, s->len - s->st.depth, &a, &b, err);
    for (unsigned i = a; i < b && rc == CHT_OK; i++) {
        struct cht_rest r;
        rc = cht_leaf_entry(s->pf, s->st.ref, p, i, &r, err);
    }
    if (rc == CHT_OK)
        rc = ready(s->pf, s->st.ref, err);
    if (rc != CHT_OK || a >= b)
        return rc;
    cht_leaf_remove(sure(s->pf, s->st.ref), a, b - a);
    *count = b - a;
    subtract(s, *count);
    return CHT_OK;
}

enum cht_rc cht_trie_del_prefix(struct cht_pagefile *pf, const uint8_t *prefix, size_t len, uint64_t *count, struct cht_err *err)
{
    struct shrink *s = cht_malloc(sizeof *s);
    if (s == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to delete a prefix");
    *s = (struct shrink){.pf = pf, .name = prefix, .len = len};
    *count = 0;
    enum cht_rc rc = CHT_OK;
    const uint8_t *h = cht_page_read(pf, 0, err);
    uint32_t root = h == NULL ? 0 : cht_get32(h + CHT_TRIE_ROOT);
    if (h == NULL)
        rc = CHT_CORRUPT;
    if (rc == CHT_OK && len == 0 && root != 0) {
        rc = ready(pf, 0, err);
        if (rc == CHT_OK) {
            *count = cht_get64(sure(pf, 0) + CHT_TRIE_PAIRS);
            cht_link_set(pf, (struct cht_link){0, 0}, 0);
            subtract(s, *count);
            rc = free_subtree(pf, root, err);
        }
    } else if (rc == CHT_OK && len > 0) {
        rc = cht_trie_walk(pf, prefix, len, &s->way, &s->st, err);
        if (rc == CHT_OK)
            rc = ready_way(s, err);
        if (rc == CHT_OK && s->st.stop == CHT_AT_LEAF)
            rc = cut_leaf(s, count, err);
        else if (rc == CHT_OK && (s->st.stop == CHT_AT_OWN || (s->st.stop == CHT_IN_PATH && s->st.depth == len)))
            rc = cut_node(s, count, err);
    }
    cht_free(s);
    if (rc == CHT_OK && len > 0)
        cht_trie_shrink(pf, prefix, len);
    return rc;
}
