/* trie_int: what the files of the trie share: checked views of nodes and leaves, the descent, and changes in two
 * phases: everything that can fail (blocks, pages for writing), then the change itself.
 *
 * A view points into the map: it is stale after an allocation and after the lock is released.
 */
#pragma once

#include "base/bytes.h"
#include "base/crc32c.h"
#include "store/trie.h"
#include "store/trie_format.h"

/* Raises damage at an offset of the file. */
#define CHT_TRIE_BAD(pf, off, what, err)                                                                  \
    ((void)CHT_DAMAGED((err), "%s: offset %llu: %s", cht_pf_path(pf), (unsigned long long)(off), (what)), \
     CHT_CORRUPT)

static inline uint8_t *cht_trie_ptr(struct cht_pagefile *pf, uint32_t ref) /* of a block that was checked */
{
    return cht_pf_fast(pf)->base + (size_t)ref * 64;
}
static inline unsigned cht_trie_common(const uint8_t *a, const uint8_t *b, unsigned n)
{
    unsigned i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* ---- inner nodes (trie_node.c) ------------------------------------------------------------------------------- */

struct cht_tnode {
    const uint8_t *p;
    const uint8_t *path;
    uint32_t ref;
    unsigned type, n, depth, path_len, end;
};
struct cht_trange {
    unsigned lo, hi;
    uint32_t child;
};

/* Checks all that memory safety and progress need: place, type, sizes, depth. */
enum cht_rc cht_tnode_open(struct cht_pagefile *pf, uint32_t ref, unsigned depth, struct cht_tnode *t,
                           struct cht_err *err);
/* Whether a child of t (not 0) is a leaf. */
enum cht_rc cht_tnode_kind(struct cht_pagefile *pf, const struct cht_tnode *t, uint32_t child, bool *leaf,
                           struct cht_err *err);
uint32_t cht_tnode_child(const struct cht_tnode *t, unsigned byte);
/* The run of bytes around `byte` that shares its child (for type 4 a run of nothing is one byte). */
struct cht_trange cht_tnode_range(const struct cht_tnode *t, unsigned byte);
void cht_tnode_relink(uint8_t *p, unsigned byte, uint32_t ref); /* an inner child has moved */
static inline uint64_t cht_tnode_own(const struct cht_tnode *t)
{
    return cht_get64(t->p + CHT_NODE_OWN) & CHT_TRIE_KEY_MAX;
}
static inline uint64_t cht_tnode_count(const struct cht_tnode *t) { return cht_get64(t->p + CHT_NODE_COUNT); }

/* A node taken apart for changing: one child a byte. */
struct cht_timage {
    unsigned type, depth, path_len;
    uint64_t own, count;
    uint32_t crc;
    uint32_t child[256];
    uint8_t path[CHT_TRIE_PATH_MAX];
};
void cht_timage_init(struct cht_timage *im, unsigned depth, uint32_t crc, const uint8_t *path,
                     unsigned path_len);
void cht_timage_load(struct cht_timage *im, const struct cht_tnode *t);
void cht_timage_set(struct cht_timage *im, unsigned lo, unsigned hi, uint32_t child);
unsigned cht_timage_fit(struct cht_timage *im); /* picks the type for its ranges; returns the block class */
void cht_timage_store(const struct cht_timage *im, uint8_t *p); /* a block of that class */

/* ---- leaves (trie_leaf.c) ------------------------------------------------------------------------------------ */

struct cht_tleaf {
    const struct cht_pagefile *pf; /* for messages */
    const uint8_t *p;
    uint32_t ref, crc;
    unsigned n, heap, garbage, depth, lo, hi;
};
struct cht_tentry {
    const uint8_t *rest; /* suffix bytes from the 5th on */
    uint64_t key;
    uint32_t head;
    unsigned len, rest_len, size; /* of the suffix, of rest, of the whole entry in the heap */
};

enum cht_rc cht_tleaf_open(struct cht_pagefile *pf, uint32_t ref, unsigned depth, struct cht_tleaf *l,
                           struct cht_err *err);
enum cht_rc cht_tleaf_entry(const struct cht_tleaf *l, unsigned i, struct cht_tentry *e, struct cht_err *err);
/* The first entry that is not below the suffix. */
enum cht_rc cht_tleaf_find(const struct cht_tleaf *l, const uint8_t *s, size_t n, unsigned *at, bool *found,
                           struct cht_err *err);
/* The same, if *at is cht_tleaf_head_pos of the suffix already. */
enum cht_rc cht_tleaf_find_at(const struct cht_tleaf *l, const uint8_t *s, size_t n, unsigned *at,
                              bool *found, struct cht_err *err);
/* Entries [*from, *to) begin with s; s may be empty. */
enum cht_rc cht_tleaf_prefix(const struct cht_tleaf *l, const uint8_t *s, size_t n, unsigned *from,
                             unsigned *to, struct cht_err *err);
unsigned cht_tleaf_head_pos(const struct cht_tleaf *l, uint32_t head); /* first entry with a head >= head */
static inline unsigned cht_tleaf_used(const struct cht_tleaf *l)
{
    return CHT_LEAF_SLOT * l->n + CHT_PAGE - l->heap - l->garbage;
}
static inline unsigned cht_tentry_cost(size_t suffix) /* bytes of a leaf that an entry takes */
{
    return CHT_LEAF_SLOT + CHT_LEAF_ENTRY_MIN + (suffix > 127 ? 1u : 0u) +
           (suffix > 4 ? (unsigned)suffix - 4 : 0u);
}
static inline uint32_t cht_tsuffix_head(const uint8_t *s, size_t n)
{
    if (n >= 4)
        return cht_be32(s);
    return (n > 0 ? (uint32_t)s[0] << 24 : 0) | (n > 1 ? (uint32_t)s[1] << 16 : 0) |
           (n > 2 ? (uint32_t)s[2] << 8 : 0);
}
/* The bytes of an entry's suffix, at most CHT_TRIE_SUFFIX_MAX. */
unsigned cht_tentry_suffix(const struct cht_tentry *e, uint8_t *out);

/* Changes of a page for writing. insert: the gap must hold it; remove cannot fail. */
void cht_tleaf_insert(uint8_t *p, unsigned at, const uint8_t *s, size_t n, uint64_t key);
void cht_tleaf_remove(uint8_t *p, unsigned at, unsigned entry_size);

/* A leaf being made in a buffer of one page, entry by entry in order; n must be the final number. */
struct cht_tbuild {
    uint8_t page[CHT_PAGE];
    unsigned n, i, heap;
    bool full;
};
void cht_tbuild_init(struct cht_tbuild *b, unsigned n, unsigned depth, unsigned lo, unsigned hi,
                     uint32_t crc);
void cht_tbuild_add(struct cht_tbuild *b, const uint8_t *s, size_t n, uint64_t key);
/* Entries [from, to) of l, without the first `skip` bytes of their suffixes, after `lead`. */
enum cht_rc cht_tbuild_copy(struct cht_tbuild *b, const struct cht_tleaf *l, unsigned from, unsigned to,
                            unsigned skip, struct cht_err *err);
/* After the last: damage if the entries did not fit (the source lied about their number or size). */
enum cht_rc cht_tbuild_done(const struct cht_tbuild *b, const struct cht_pagefile *pf, uint32_t ref,
                            struct cht_err *err);

/* ---- descent (trie.c) ---------------------------------------------------------------------------------------- */

enum cht_tend {
    CHT_TEND_OWN,  /* the name ends where `node` branches */
    CHT_TEND_PATH, /* the name leaves node's path (or ends in it) after `at` bytes of it */
    CHT_TEND_NONE, /* no child for the next byte */
    CHT_TEND_LEAF  /* `child` is a leaf */
};
struct cht_tpos {
    enum cht_tend end;
    unsigned at;
    unsigned levels; /* ref[levels - 1] is node */
    uint32_t child;
    struct cht_tnode node; /* the last one */
    enum cht_trie_map map; /* set before the descent */
    uint32_t ref[CHT_TRIE_NAME_MAX + 1];
};
enum cht_rc cht_trie_descend(struct cht_pagefile *pf, const uint8_t *name, size_t len, struct cht_tpos *pos,
                             struct cht_err *err);
/* The leaf at the end of a descent, compared with the name that led there. */
enum cht_rc cht_trie_leaf(struct cht_pagefile *pf, const uint8_t *name, const struct cht_tpos *pos,
                          struct cht_tleaf *l, struct cht_err *err);
/* A node that answers for a name must be on its way. */
enum cht_rc cht_tnode_check(struct cht_pagefile *pf, const struct cht_tnode *t, const uint8_t *name,
                            struct cht_err *err);
enum cht_rc cht_trie_root(struct cht_pagefile *pf, enum cht_trie_map map, uint32_t *ref, struct cht_err *err);

/* ---- changes (trie_txn.c) ------------------------------------------------------------------------------------ */

/* First phase: blocks and pages. A call that fails has given back all blocks of the transaction; its code is in err. */
#define CHT_TRIE_TXN_MAX 24u
struct cht_ttxn {
    struct cht_pagefile *pf;
    struct cht_err *err; /* not NULL */
    unsigned n;
    uint32_t ref[CHT_TRIE_TXN_MAX];
    uint8_t class[CHT_TRIE_TXN_MAX];
};
bool cht_ttxn_alloc(struct cht_ttxn *t, unsigned class, uint32_t *ref);
bool cht_ttxn_write(struct cht_ttxn *t, uint32_t ref);
bool cht_ttxn_path(struct cht_ttxn *t, const struct cht_tpos *pos,
                   unsigned levels); /* pages of the first levels */
void cht_ttxn_abort(struct cht_ttxn *t);
/* The node at a level of pos is to become im: *ref is where. pos->node must not be used after. */
bool cht_ttxn_node(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned level, struct cht_timage *im,
                   uint32_t *ref);

/* Second phase: cannot fail after the first. */
void cht_ttxn_put_node(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned level, const uint8_t *name,
                       const struct cht_timage *im, uint32_t ref);
void cht_ttxn_relink(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned level, const uint8_t *name,
                     uint32_t ref);
void cht_ttxn_count(struct cht_ttxn *t, const struct cht_tpos *pos, unsigned levels,
                    uint64_t plus); /* modulo 2^64 */
void cht_ttxn_free(struct cht_ttxn *t, unsigned class, uint32_t ref);
unsigned cht_trie_class(struct cht_pagefile *pf, uint32_t ref); /* of a checked inner node */

/* A chain of nodes from depth `from` whose last one branches at `to`; the bytes are the name's. */
struct cht_tchain {
    unsigned n;
    uint32_t ref[CHT_TRIE_NAME_MAX / 256 + 2];
    unsigned depth[CHT_TRIE_NAME_MAX / 256 + 2];
};
bool cht_ttxn_chain(struct cht_ttxn *t, struct cht_tchain *c, unsigned from, unsigned to);
void cht_ttxn_put_chain(struct cht_ttxn *t, const struct cht_tchain *c, const uint8_t *name, unsigned to,
                        uint64_t own, uint64_t count, uint32_t leaf);

/* ---- steps (trie_split.c, trie_shrink.c) --------------------------------------------------------------------- */

/* Where a new suffix goes. */
struct cht_tnew {
    const uint8_t *name;
    size_t len;
    unsigned at;
};

enum cht_rc cht_trie_split_leaf(struct cht_pagefile *pf, const struct cht_tpos *pos,
                                const struct cht_tleaf *l, const struct cht_tnew *nw, struct cht_err *err);
enum cht_rc cht_trie_carve(struct cht_pagefile *pf, const struct cht_tpos *pos, const struct cht_tleaf *l,
                           const struct cht_tnew *nw, struct cht_err *err);
/* Tidies up around a name that was removed; what fails is left as it is. */
void cht_trie_shrink(struct cht_pagefile *pf, enum cht_trie_map map, const uint8_t *name, size_t len);

/* ---- walk (trie_walk.c) -------------------------------------------------------------------------------------- */

/* All blocks of a subtree in order: a node, its children, the node again when it is left. */
enum cht_twalk_event { CHT_TWALK_NODE, CHT_TWALK_LEAF, CHT_TWALK_LEAVE, CHT_TWALK_END };
struct cht_tlevel {
    uint32_t ref;
    uint16_t depth;
    int16_t next;
};
struct cht_twalk {
    struct cht_pagefile *pf;
    uint64_t budget; /* of ranges and nodes: more than the file can hold means a cycle or sharing */
    enum cht_twalk_event event;
    struct cht_tnode node; /* NODE, LEAVE; for LEAF its parent */
    struct cht_tleaf leaf;
    uint32_t at; /* the block that could not be opened, after a failure */
    unsigned levels;
    struct cht_tlevel level[CHT_TRIE_NAME_MAX + 2];
    uint8_t name[CHT_TRIE_NAME_MAX + 2]; /* bytes on the way down to node.end */
};
void cht_twalk_init(struct cht_twalk *w, struct cht_pagefile *pf, const uint8_t *name, uint32_t ref,
                    unsigned depth);
/* After a failure the next call goes on after the damaged child. */
enum cht_rc cht_twalk_next(struct cht_twalk *w, struct cht_err *err);
void cht_twalk_skip(struct cht_twalk *w); /* after NODE: leaves its children out */
static inline uint64_t cht_twalk_budget(const struct cht_pagefile *pf) { return cht_pf_pages(pf) * 2048; }
