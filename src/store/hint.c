/* hint: fetches into the cache what point reads are about to touch.
 *
 * A read is a chain of places, each known only when the one before has been read, and each in a page of its own: nodes and
 * leaf of the trie, the key's entry, the value. Here many chains take a step each in turn, and a step asks for the place of
 * the next one, so that the memory works at all of them at once while a read alone would wait for each.
 *
 * Nothing of it matters but time: a shard whose lock is not free at once is left out (and none is waited for, so that
 * holding several cannot lock up), pages that were not compared with their sums are left to the read, and what looks
 * damaged ends the chain.
 */
#include "store/db.h"
#include "store/db_store.h"
#include "store/pagefile_int.h"
#include "store/trie_int.h"
#include "store/values_format.h"
#include "base/prefetch.h"

#define LINE 64u
#define LEAF_LINES 13u /* of a page that seems to be a leaf: header, heads and offsets, as they mostly are */
#define NODE_LINES 2u
#define VALUE_LINES 4u
#define STEPS_MAX 24u /* deeper tries get a part of it */

enum step { STEP_NODE, STEP_NAME, STEP_KEY, STEP_ENTRY, STEP_DONE, STEP_END };

struct chain {
    struct cht_shard *sh;
    struct cht_str name;
    uint64_t key;
    const uint8_t *page; /* STEP_NAME: the leaf, and where in it the entry is */
    unsigned off;
    const uint8_t *entry; /* STEP_ENTRY: the key's */
    uint32_t ref;         /* STEP_NODE: the node or leaf */
    unsigned depth;       /* where the node begins, after the leaf's parent's end */
    enum step step;
};

static void fetch(const uint8_t *p, unsigned lines)
{
    for (unsigned i = 0; i < lines; i++)
        cht_prefetch(p + (size_t)i * LINE);
}

/* The bytes at an offset; NULL if the page has not been compared with its sum. */
static const uint8_t *known(const struct cht_pagefile *pf, uint64_t off)
{
    const struct cht_pf_fast *f = cht_pf_fast(pf);
    uint64_t page = off / CHT_PAGE;
    if (page >= f->pages ||
        (atomic_load_explicit(&f->verified[page >> 6], memory_order_relaxed) >> (page & 63) & 1) == 0)
        return NULL;
    return f->base + off;
}

static enum step begin_key(struct chain *c, unsigned shards)
{
    if (c->key == 0 || c->key > CHT_KEY_MAX || cht_key_shard(c->key, shards) != c->sh->values.shard)
        return STEP_END; /* also: the value is in another shard */
    uint64_t off = CHT_PAGE + cht_key_local(c->key, shards) * CHT_ENTRY;
    cht_pf_soon(c->sh->values.keys, off, CHT_ENTRY);
    const uint8_t *e = known(c->sh->values.keys, off);
    if (e == NULL)
        return STEP_END;
    fetch(e, 1);
    c->entry = e;
    return STEP_ENTRY;
}

static enum step step_entry(struct chain *c)
{
    const struct cht_pagefile *pf = c->sh->values.values;
    uint64_t off = cht_get48(c->entry), len = cht_get32(c->entry + 8),
             end = cht_pf_fast(pf)->pages * CHT_PAGE;
    if (len == 0 || off >= end || len > end - off)
        return STEP_END;
    const uint8_t *p = cht_pf_fast(pf)->base + off;
    cht_pf_soon(pf, off, len < CHT_SCAN_INLINE_MAX ? len : CHT_SCAN_INLINE_MAX);
    fetch(p, len > (uint64_t)VALUE_LINES * LINE ? VALUE_LINES : (unsigned)((len + LINE - 1) / LINE));
    cht_prefetch(p + (len < (uint64_t)VALUE_LINES * LINE ? len : (uint64_t)VALUE_LINES * LINE) - 1);
    return STEP_DONE;
}

static enum step step_leaf(struct chain *c, struct cht_pagefile *pf)
{
    struct cht_tleaf l;
    if (cht_tleaf_open(pf, c->ref, c->depth - 1, &l, NULL) != CHT_OK)
        return STEP_END;
    unsigned from = l.depth, n = (unsigned)c->name.n - from;
    unsigned at = cht_tleaf_head_pos(&l, cht_tsuffix_head(c->name.p + from, n));
    if (at >= l.n)
        return STEP_END;
    c->page = l.p;
    c->off = cht_get16(l.p + CHT_LEAF_HEADS + (size_t)4 * l.n + (size_t)2 * at);
    fetch(c->page + c->off % CHT_PAGE, 1);
    return STEP_NAME;
}

/* The first entry that may be it: another one with the same four bytes is rare. */
static enum step step_name(struct chain *c, unsigned shards)
{
    if (c->off >= CHT_PAGE)
        return STEP_END;
    unsigned at = c->off + (c->page[c->off] > 127 ? 2 : 1);
    if (at + 6 > CHT_PAGE)
        return STEP_END;
    c->key = cht_get48(c->page + at);
    return begin_key(c, shards);
}

static enum step step_node(struct chain *c, unsigned shards)
{
    struct cht_pagefile *pf = cht_shard_pairs(c->sh);
    struct cht_tnode t;
    const uint8_t *p = c->ref < 64 ? NULL : known(pf, (uint64_t)c->ref * 64);
    if (p == NULL)
        return STEP_END;
    if (p[CHT_LEAF_TYPE] == CHT_TRIE_LEAF && c->depth > 0 && (c->ref & 63) == 0)
        return step_leaf(c, pf);
    if (cht_tnode_open(pf, c->ref, c->depth, &t, NULL) != CHT_OK || t.end > c->name.n)
        return STEP_END;
    if (t.end == c->name.n) {
        c->key = cht_tnode_own(&t);
        return begin_key(c, shards);
    }
    c->ref = cht_tnode_child(&t, c->name.p[t.end]);
    c->depth = t.end + 1;
    cht_pf_soon(pf, (uint64_t)c->ref * 64, 1);
    p = c->ref < 64 ? NULL : known(pf, (uint64_t)c->ref * 64);
    if (p == NULL)
        return STEP_END;
    fetch(p, (c->ref & 63) == 0 ? LEAF_LINES : NODE_LINES);
    return STEP_NODE;
}

static enum step take_step(struct chain *c, unsigned shards)
{
    switch (c->step) {
    case STEP_NODE:
        return step_node(c, shards);
    case STEP_NAME:
        return step_name(c, shards);
    case STEP_KEY:
        return begin_key(c, shards);
    case STEP_ENTRY:
        return step_entry(c);
    case STEP_DONE:
    case STEP_END:
        break;
    }
    return STEP_END;
}

/* Sets a chain up if its shard can be had; locked has a bit a shard. */
static bool begin(struct cht_db *db, struct chain *c, const struct cht_hint *h, uint64_t *asked,
                  uint64_t *locked)
{
    bool pair = h->name.n > 0;
    if (h->name.n > CHT_NAME_MAX)
        return false;
    unsigned at = pair ? cht_shard_of_name(h->name, db->nshards) : cht_shard_of_key(h->key, db->nshards);
    *c = (struct chain){.sh = &db->shards[at], .name = h->name, .key = h->key, .step = STEP_KEY};
    if (!cht_bit(asked, at)) {
        cht_bit_set(asked, at);
        bool mine = cht_rwlock_try_read(&c->sh->lock);
        if (mine && c->sh->marks.limit != CHT_FENCED)
            cht_bit_set(locked, at);
        else if (mine)
            cht_rwlock_read_end(&c->sh->lock);
    }
    if (!cht_bit(locked, at))
        return false;
    if (!pair)
        return true;
    struct cht_pagefile *pf = cht_shard_pairs(c->sh);
    c->step = STEP_NODE;
    return known(pf, 0) != NULL && cht_trie_root(pf, CHT_TRIE_PAIRS, &c->ref, NULL) == CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

size_t cht_db_prefetch(struct cht_store *s, const struct cht_hint *h, size_t n)
{
    struct cht_db *db = cht_db(s);
    struct chain c[CHT_HINTS_MAX];
    uint64_t asked[CHT_SHARDS_MAX / 64] = {0}, locked[CHT_SHARDS_MAX / 64] = {0};
    size_t going = 0, done = 0;
    for (size_t i = 0; i < n && going < CHT_HINTS_MAX; i++)
        going += begin(db, &c[going], &h[i], asked, locked);
    for (unsigned k = 0; k < STEPS_MAX && going > 0; k++) {
        size_t left = 0;
        for (size_t i = 0; i < going; i++) {
            enum step next = take_step(&c[i], db->nshards);
            done += next == STEP_DONE;
            if (next >= STEP_DONE)
                continue;
            if (left != i)
                c[left] = c[i];
            c[left++].step = next;
        }
        going = left;
    }
    for (unsigned i = 0; i < db->nshards; i++) {
        if (cht_bit(locked, i))
            cht_rwlock_read_end(&db->shards[i].lock);
    }
    return done;
}
