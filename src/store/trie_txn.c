/* trie_txn: changes in two phases (trie_int.h). First blocks are taken and pages obtained for writing; a failure gives
 * the blocks back and leaves the trie as it was. Then the change is made with calls that cannot fail.
 */
#include "store/trie_int.h"

#include "base/invariant.h"

#include <string.h>

void cht_ttxn_abort(struct cht_ttxn *t)
{
    struct cht_err ignored; /* pages of blocks just allocated can be written: this cannot fail */
    for (; t->n > 0; t->n--)
        (void)cht_arena_free(t->pf, t->class[t->n - 1], t -> ref[t->n - 1], &ignored);
}

bool cht_ttxn_alloc(struct cht_ttxn *t, unsigned class, uint32_t *ref)
{
    CHT_INVARIANT(t->n < CHT_TRIE_TXN_MAX);
    if (cht_arena_alloc(t->pf, class, ref, t->err) != CHT_OK) {
        cht_ttxn_abort(t);
        return false;
    }
    t->ref[t->n] = *ref;
    t->class[t->n++] = (uint8_t) class;
    return true;
}

bool cht_ttxn_write(struct cht_ttxn *t, uint32_t ref)
{
    if (cht_page_write(t->pf, ref >> 6, t->err) != NULL)
        return true;
    cht_ttxn_abort(t);
    return false;
}

bool cht_ttxn_path(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned levels)
{
    for (unsigned i = 0; i < levels; i++) {
        if (!cht_ttxn_write(t, pos->ref[i]))
            return false;
    }
    return true;
}

unsigned cht_trie_class(struct cht_pagefile *pf, uint32_t ref)
{
    const uint8_t *p = cht_trie_ptr(pf, ref);
    return cht_trie_node_class(p[CHT_NODE_TYPE], p[CHT_NODE_PATH_LEN]);
}

/* The page that holds the ref of the node at a level. */
static bool write_parent(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned level)
{
    return cht_ttxn_write(t, level > 0 ? pos->ref[level - 1] : 0);
}

bool cht_ttxn_node(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned level, struct cht_timage *im,
                   uint32_t *ref)
{
    unsigned was = cht_trie_class(t->pf, pos->ref[level]), now = cht_timage_fit(im);
    *ref = pos->ref[level];
    if (now != was && !cht_ttxn_alloc(t, now, ref))
        return false;
    return cht_ttxn_write(t, pos->ref[level]) && cht_ttxn_write(t, 0) && write_parent(t, pos, level);
}

void cht_ttxn_relink(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned level, const uint8_t *name,
                     uint32_t ref)
{
    if (level == 0) {
        cht_put32(cht_pf_fast(t->pf)->base + pos->map, ref);
        return;
    }
    uint8_t *p = cht_trie_ptr(t->pf, pos->ref[level - 1]);
    cht_tnode_relink(p, name[cht_get16(p + CHT_NODE_DEPTH) + p[CHT_NODE_PATH_LEN]], ref);
}

void cht_ttxn_free(struct cht_ttxn *t, unsigned class, uint32_t ref)
{
    struct cht_err
        ignored; /* page 0 and the block's page were obtained in the first phase: this cannot fail */
    (void)cht_arena_free(t->pf, class, ref, &ignored);
}

void cht_ttxn_put_node(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned level, const uint8_t *name,
                       const struct cht_timage *im, uint32_t ref)
{
    uint32_t old = pos->ref[level];
    unsigned was = cht_trie_class(t->pf, old);
    cht_timage_store(im, cht_trie_ptr(t->pf, ref));
    if (ref != old) {
        cht_ttxn_relink(t, pos, level, name, ref);
        cht_ttxn_free(t, was, old);
    }
}

void cht_ttxn_count(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned levels, uint64_t plus)
{
    for (unsigned i = 0; i < levels; i++) {
        uint8_t *p = cht_trie_ptr(t->pf, pos->ref[i]) + CHT_NODE_COUNT;
        cht_put64(p, cht_get64(p) + plus);
    }
}

bool cht_ttxn_chain(struct cht_ttxn *t, struct cht_tchain *c, unsigned from, unsigned to)
{
    c->n = 0;
    for (;;) {
        unsigned path = to - from > CHT_TRIE_PATH_MAX ? CHT_TRIE_PATH_MAX : to - from;
        c->depth[c->n] = from;
        if (!cht_ttxn_alloc(t, cht_trie_node_class(CHT_TRIE_N4, path), &c->ref[c->n]))
            return false;
        c->n++;
        if (from + path == to)
            return true;
        from += path + 1;
    }
}

void cht_ttxn_put_chain(struct cht_ttxn *t, const struct cht_tchain *c, const uint8_t *name, unsigned to,
                        uint64_t own, uint64_t count, uint32_t leaf)
{
    uint32_t crc = cht_crc32c(0, name, c->depth[0]);
    for (unsigned i = 0; i < c->n; i++) {
        bool last = i + 1 == c->n;
        unsigned end = last ? to : c->depth[i + 1] - 1;
        struct cht_timage im;
        cht_timage_init(&im, c->depth[i], crc, name + c->depth[i], end - c->depth[i]);
        im.count = count;
        if (last) {
            im.own = own;
            cht_timage_set(&im, 0, 255, leaf);
        } else {
            im.child[name[end]] = c->ref[i + 1];
            crc = cht_crc32c(crc, name + c->depth[i], end + 1 - c->depth[i]);
        }
        cht_timage_store(&im, cht_trie_ptr(t->pf, c->ref[i]));
    }
}
