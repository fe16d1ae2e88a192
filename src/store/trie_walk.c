/* trie_walk: every block of a subtree in order, without recursion. Used where a subtree is freed, checked or measured;
 * scans have the faster trie_iter.c.
 */
#include "store/trie_int.h"

#include <string.h>

static enum cht_rc open_level(struct cht_twalk *w, struct cht_err *err)
{
    const struct cht_tlevel *l = &w->level[w->levels - 1];
    w->at = l->ref;
    return cht_tnode_open(w->pf, l->ref, l->depth, &w->node, err);
}

static void push(struct cht_twalk *w, uint32_t ref, unsigned depth)
{
    w->level[w->levels++] = (struct cht_tlevel){ref, (uint16_t)depth, -1};
}

/* The leaf for the range r of w->node, fully compared with where it hangs. */
static enum cht_rc enter_leaf(struct cht_twalk *w, struct cht_trange r, struct cht_err *err)
{
    enum cht_rc rc = cht_tleaf_open(w->pf, r.child, w->node.end, &w->leaf, err);
    if (rc != CHT_OK)
        return rc;
    if (w->leaf.lo != r.lo || w->leaf.hi != r.hi || w->leaf.crc != cht_crc32c(0, w->name, w->node.end))
        return CHT_TRIE_BAD(w->pf, (uint64_t)r.child * 64,
                            "a leaf does not belong to the range that leads to it", err);
    w->event = CHT_TWALK_LEAF;
    return CHT_OK;
}

static void enter_node(struct cht_twalk *w)
{
    const struct cht_tnode *t = &w->node;
    w->level[w->levels - 1].next = 0;
    memcpy(w->name + t->depth, t->path, t->path_len);
    w->event = CHT_TWALK_NODE;
}

static enum cht_rc enter_child(struct cht_twalk *w, struct cht_trange r, struct cht_err *err)
{
    unsigned end = w->node.end;
    bool leaf;
    w->at = r.child;
    enum cht_rc rc = cht_tnode_kind(w->pf, &w->node, r.child, &leaf, err);
    if (rc != CHT_OK || leaf)
        return rc != CHT_OK ? rc : enter_leaf(w, r, err);
    if (r.lo != r.hi || end >= CHT_TRIE_NAME_MAX)
        return CHT_TRIE_BAD(w->pf, (uint64_t)w->node.ref * 64, "a node hangs on a range of several bytes",
                            err);
    w->name[end] = (uint8_t)r.lo;
    push(w, r.child, end + 1);
    rc = open_level(w, err);
    if (rc != CHT_OK) {
        w->levels--;
        return rc;
    }
    enter_node(w);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_twalk_init(struct cht_twalk *w, struct cht_pagefile *pf, const uint8_t *name, uint32_t ref,
                    unsigned depth)
{
    w->pf = pf;
    w->budget = cht_twalk_budget(pf);
    w->levels = 0;
    w->at = 0;
    if (depth > 0)
        memcpy(w->name, name, depth);
    push(w, ref, depth);
}

enum cht_rc cht_twalk_next(struct cht_twalk *w, struct cht_err *err)
{
    while (w->levels > 0) {
        struct cht_tlevel *l = &w->level[w->levels - 1];
        enum cht_rc rc = open_level(w, err);
        if (rc == CHT_OK && w->budget-- == 0)
            rc = CHT_TRIE_BAD(w->pf, (uint64_t)l->ref * 64, "the trie has more nodes than the file can hold",
                              err);
        if (rc != CHT_OK) {
            w->levels = w->budget == UINT64_MAX ? 0 : w->levels - 1;
            return rc;
        }
        if (l->next < 0) { /* the top */
            enter_node(w);
            return CHT_OK;
        }
        if (l->next > 255) {
            w->levels--;
            w->event = CHT_TWALK_LEAVE;
            return CHT_OK;
        }
        struct cht_trange r = cht_tnode_range(&w->node, (unsigned)l->next);
        l->next = (int16_t)(r.hi + 1);
        if (r.child == 0)
            continue;
        return enter_child(w, r, err);
    }
    w->event = CHT_TWALK_END;
    return CHT_OK;
}

void cht_twalk_skip(struct cht_twalk *w) { w->level[w->levels - 1].next = 256; }
