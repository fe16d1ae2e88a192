/* pair_values: many names read with their values at once.
 *
 * A read is a chain of places, each known only when the one before has been read (hint.c). Here many names take a step each in turn: down
 * the trie, to the leaf, its entry, the key's entry, the value. Each step asks for the place of the next one, so that the memory works at all of
 * them at once, and the trie is walked once, where a hint and a read walk it twice.
 *
 * Only what is the usual case is answered here, under the locks of the shards, and as a read by itself would answer it: pages that are not
 * lost, names and keys that no undecided group has changed (durable.h), databases of which nothing ends, values that are short and in
 * the name's shard. Everything else is left to a read by itself, afterwards, with no lock held; so is a name whose shard's lock is not free at once:
 * none is waited for, so that holding several cannot lock up.
 */
#include "store/db.h"
#include "store/db_store.h"
#include "store/pagefile_int.h"
#include "store/trie_int.h"
#include "base/prefetch.h"

#include <string.h>

#define LINE 64u
#define AT_ONCE 64u
#define LEAF_LINES 13u /* of a page that may be a leaf: header, heads and offsets, as they mostly are */
#define NODE_LINES 2u
#define VALUE_LINES 4u
#define SHORT (64u << 10) /* the longest value that is copied while several locks are held */

enum state { LEFT, DESCENDS, AT_LEAF, AT_ENTRY, HAS_KEY, HAS_VALUE, NOT_FOUND, ANSWERED };

struct chain {
    struct cht_shard *sh;
    struct cht_pair_read *r;
    uint32_t ref;   /* of the node or leaf */
    unsigned depth; /* where it begins */
    unsigned at;    /* of a leaf: the entry */
    enum state state;
    struct cht_tleaf leaf;
    struct cht_value_ref value;
};

struct batch {
    struct cht_db *db;
    struct cht_buf *out;
    struct chain c[AT_ONCE];
    size_t n;
    uint64_t asked[CHT_SHARDS_MAX / 64], locked[CHT_SHARDS_MAX / 64]; /* a bit a shard */
};

static bool append(struct cht_buf *out, const uint8_t *p, uint32_t n, struct cht_err *err)
{
    size_t need = out->len + n;
    if (need > out->cap && cht_buf_reserve(out, need < 2 * out->cap ? 2 * out->cap : need, err) != CHT_OK)
        return false;
    memcpy(out->data + out->len, p, n);
    out->len = need;
    return true;
}

static void fetch(const uint8_t *p, unsigned lines)
{
    for (unsigned i = 0; i < lines; i++)
        cht_prefetch(p + (size_t)i * LINE);
}

/* ---- the steps ------------------------------------------------------------------------------------------------- */

static enum state begin(struct batch *b, struct chain *c)
{
    unsigned at = cht_shard_of_name(c->r->name, b->db->nshards);
    c->sh = &b->db->shards[at];
    if (!cht_bit(b->asked, at)) {
        cht_bit_set(b->asked, at);
        bool mine = cht_rwlock_try_read(&c->sh->lock);
        if (mine && c->sh->marks.limit != CHT_FENCED)
            cht_bit_set(b->locked, at);
        else if (mine)
            cht_rwlock_read_end(&c->sh->lock);
    }
    c->depth = 0;
    if (!cht_bit(b->locked, at) ||
        cht_trie_root(cht_shard_pairs(c->sh), CHT_TRIE_PAIRS, &c->ref, NULL) != CHT_OK)
        return LEFT;
    return DESCENDS;
}

static void fetch_entry(const struct chain *c)
{
    cht_values_soon(&c->sh->values, &c->r->key, sizeof c->r->key, 1, 0);
    cht_values_prefetch_entry(&c->sh->values, c->r->key);
}

/* The name ends where a node branches. */
static enum state at_own(struct chain *c, const struct cht_tnode *t)
{
    c->r->key = cht_tnode_own(t);
    if (cht_tnode_check(cht_shard_pairs(c->sh), t, c->r->name.p, NULL) != CHT_OK)
        return LEFT;
    if (c->r->key == 0)
        return NOT_FOUND;
    fetch_entry(c);
    return HAS_KEY;
}

static enum state step_node(struct chain *c)
{
    struct cht_pagefile *pf = cht_shard_pairs(c->sh);
    const struct cht_str *name = &c->r->name;
    struct cht_tnode t;
    if (c->depth > 0) {
        const uint8_t *p = c->ref < 64 ? NULL : cht_arena_read(pf, c->ref, NULL);
        if (p == NULL)
            return LEFT;
        if (p[CHT_LEAF_TYPE] == CHT_TRIE_LEAF)
            return AT_LEAF;
    }
    if (cht_tnode_open(pf, c->ref, c->depth, &t, NULL) != CHT_OK)
        return LEFT;
    unsigned room = (unsigned)name->n - c->depth;
    if (t.path_len > room || memcmp(t.path, name->p + c->depth, t.path_len) != 0)
        return NOT_FOUND;
    if (t.end == name->n)
        return at_own(c, &t);
    c->ref = cht_tnode_child(&t, name->p[t.end]);
    c->depth = t.end + 1;
    if (c->ref == 0)
        return NOT_FOUND;
    cht_pf_soon(pf, (uint64_t)c->ref * 64, 1);
    if (c->ref >> 6 < cht_pf_fast(pf)->pages)
        fetch(cht_trie_ptr(pf, c->ref), (c->ref & 63) == 0 ? LEAF_LINES : NODE_LINES);
    return DESCENDS;
}

/* The first entry that may be it. */
static enum state step_leaf(struct chain *c)
{
    struct cht_tleaf *l = &c->leaf;
    const struct cht_str *name = &c->r->name;
    if (cht_tleaf_open(cht_shard_pairs(c->sh), c->ref, c->depth - 1, l, NULL) != CHT_OK)
        return LEFT;
    unsigned byte = name->p[l->depth];
    if (byte < l->lo || byte > l->hi || cht_crc32c(0, name->p, l->depth) != l->crc)
        return LEFT;
    c->at = cht_tleaf_head_pos(l, cht_tsuffix_head(name->p + l->depth, name->n - l->depth));
    if (c->at == l->n)
        return NOT_FOUND;
    cht_prefetch(l->p + cht_get16(l->p + CHT_LEAF_HEADS + (size_t)4 * l->n + (size_t)2 * c->at) % CHT_PAGE);
    return AT_ENTRY;
}

static enum state step_entry(struct chain *c)
{
    struct cht_tentry e;
    const struct cht_tleaf *l = &c->leaf;
    const struct cht_str *name = &c->r->name;
    bool found;
    if (cht_tleaf_find_at(l, name->p + l->depth, name->n - l->depth, &c->at, &found, NULL) != CHT_OK)
        return LEFT;
    if (!found)
        return NOT_FOUND;
    if (cht_tleaf_entry(l, c->at, &e, NULL) != CHT_OK || e.key == 0)
        return LEFT;
    c->r->key = e.key;
    fetch_entry(c);
    return HAS_KEY;
}

static enum state step_key(struct chain *c, unsigned shards)
{
    struct cht_values *v = &c->sh->values;
    if (c->r->key > CHT_KEY_MAX || cht_key_shard(c->r->key, shards) != v->shard ||
        cht_values_find(v, c->r->key, &c->value, NULL) != CHT_OK || c->value.len > SHORT)
        return LEFT; /* also: there is no value */
    const uint8_t *p = v->values->fast.base + c->value.off;
    cht_pf_soon(v->values, c->value.off, c->value.len);
    fetch(p, c->value.len > VALUE_LINES * LINE ? VALUE_LINES : (c->value.len + LINE - 1) / LINE);
    cht_prefetch(p + (c->value.len < VALUE_LINES * LINE ? c->value.len : VALUE_LINES * LINE) - 1);
    return HAS_VALUE;
}

static enum state step_value(struct chain *c, struct cht_buf *out)
{
    const uint8_t *p;
    uint32_t n = c->value.len;
    if (cht_values_view(&c->sh->values, c->r->key, &c->value, &p, NULL) != CHT_OK || !append(out, p, n, NULL))
        return LEFT;
    c->r->at = out->len - n;
    c->r->size = n;
    return ANSWERED;
}

/* May what was read be shown? After the last look at the pages. */
static bool open(const struct batch *b, const struct chain *c)
{
    const struct cht_shard *sh = c->sh;
    if (cht_pf_losses(cht_shard_pairs(sh)) != 0 || cht_pf_losses(sh->values.keys) != 0 ||
        cht_pf_losses(sh->values.values) != 0)
        return false;
    if (!cht_marked(&b->db->durable, &sh->marks))
        return true;
    uint64_t decided = atomic_load_explicit(&b->db->durable.decided, memory_order_relaxed);
    return cht_marks_meet(&sh->marks, decided, cht_mark_of_name(c->r->name)) == 0 &&
           (c->state != ANSWERED || cht_marks_meet(&sh->marks, decided, cht_mark_of_key(c->r->key)) == 0);
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

/* The next step of a chain in one of these states. */
static enum state step(struct batch *b, struct chain *c)
{
    switch (c->state) {
    case DESCENDS:
        return step_node(c);
    case AT_LEAF:
        return step_leaf(c);
    case AT_ENTRY:
        return step_entry(c);
    case HAS_KEY:
        return step_key(c, b->db->nshards);
    case HAS_VALUE:
        return step_value(c, b->out);
    case LEFT:
    case NOT_FOUND:
    case ANSWERED:
        break;
    }
    return c->state;
}

static void walk(struct batch *b)
{
    uint8_t going[AT_ONCE];
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++)
        going[n++] = (uint8_t)i;
    while (n > 0) {
        size_t left = 0;
        for (size_t i = 0; i < n; i++) {
            struct chain *c = &b->c[going[i]];
            c->state = step(b, c);
            going[left] = going[i];
            left += c->state != LEFT && c->state != NOT_FOUND && c->state != ANSWERED;
        }
        n = left;
    }
}

/* What can be answered, for n reads, at most AT_ONCE; the others' rc stays CHT_PENDING. */
static void read_usual(struct batch *b, struct cht_pair_read *r, size_t n)
{
    memset(b->asked, 0, sizeof b->asked);
    memset(b->locked, 0, sizeof b->locked);
    b->n = n;
    for (size_t i = 0; i < n; i++) {
        b->c[i].r = &r[i];
        b->c[i].state = begin(b, &b->c[i]);
    }
    walk(b);
    bool lasting = cht_ends_none(b->db);
    for (size_t i = 0; i < n; i++) {
        enum state s = b->c[i].state;
        if (lasting && (s == NOT_FOUND || s == ANSWERED) && open(b, &b->c[i]))
            r[i].rc = s == ANSWERED ? CHT_OK : CHT_PAIR_NOT_FOUND;
    }
    for (unsigned i = 0; i < b->db->nshards; i++) {
        if (cht_bit(b->locked, i))
            cht_rwlock_read_end(&b->db->shards[i].lock);
    }
}

/* By itself. */
static enum cht_rc read_alone(struct batch *b, struct cht_pair_read *r, struct cht_buf *one,
                              struct cht_wait *w, struct cht_err *err)
{
    struct cht_pair_value pv = {.out = one};
    r->rc = b->db->base.ops->pair_value(&b->db->base, r->name, &pv, w, err);
    r->key = pv.key;
    r->ends = pv.ends;
    if (r->rc == CHT_OK && pv.size > 0 && !append(b->out, one->data, pv.size, err))
        r->rc = CHT_NO_MEMORY;
    if (r->rc == CHT_OK) {
        r->size = pv.size;
        r->at = b->out->len - pv.size;
    }
    return r->rc == CHT_PAIR_NOT_FOUND ? CHT_OK : r->rc;
}

/* ---------------------------------------------------------------------------------------------------------------- */

enum cht_rc cht_db_pair_values(struct cht_store *s, struct cht_pair_read *r, size_t n, struct cht_buf *out,
                               struct cht_wait *w, struct cht_err *err)
{
    struct batch b;
    struct cht_buf one = {NULL, 0, 0};
    enum cht_rc rc = CHT_OK;
    b.db = cht_db(s);
    b.out = out;
    for (size_t i = 0; i < n; i += AT_ONCE)
        read_usual(&b, r + i, n - i < AT_ONCE ? n - i : AT_ONCE);
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        if (r[i].rc == CHT_PENDING)
            rc = read_alone(&b, &r[i], &one, w, err);
    }
    cht_buf_free(&one);
    return rc;
}
