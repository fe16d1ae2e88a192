/* trie_format: the bytes of the pair trie, version 1, little-endian. Nothing else.
 *
 * Page 0 (header of the file): 120 root u32 (ref of the root node)  124, 128 roots of the two maps of expiry.h, 0: none
 * A ref is an offset in units of 64 bytes; 0 is none. Blocks come from the arena (arena.h).
 *
 * Inner node: a block of the smallest class that holds it; branches over the byte after its path
 *    0      1       2     4       6           7      8          16         24      28
 *    +------+-------+-----+-------+-----------+------+----------+----------+-------+---------+----------+------+
 *    | type | flags |  n  | depth | path_len  | zero | own u64  | count u64| crc   | first[] | child[]  | path |
 *    | u8   | u8 0  | u16 | u16   | u8        | u8 0 |          |          | u32   | u8[cap] | u32[cap] |      |
 *    +------+-------+-----+-------+-----------+------+----------+----------+-------+---------+----------+------+
 *    type   1, 2, 3: cap 4, 16, 48 ranges; 4: no first[], child[256]
 *    n      ranges in use (type 4: runs of equal children);  first[] and child[] after n: 255 and 0
 *    depth  bytes of a name before this node's path;  end = depth + path_len is where it branches
 *    own    key of the name that ends at `end`, 0: none;  count: pairs of the subtree, own included
 *    crc    CRC-32C of the first `depth` bytes, which all names below share
 *    first  range i covers bytes first[i] .. first[i+1]-1, the last one up to 255;  child 0: no names there
 *
 * Leaf: a whole page with a sorted run of suffixes (what follows the parent's `end`, branching byte included)
 *    0      1       2     4      6         8       10   11   12     16          16+4n       heap
 *    +------+-------+-----+------+---------+-------+----+----+------+-----------+-----------+- - -+------------+
 *    | type | flags |  n  | heap | garbage | depth | lo | hi | crc  | heads[n]  | offs[n]   | gap | entries    |
 *    | 8    | u8 0  | u16 | u16  | u16     | u16   | u8 | u8 | u32  | u32       | u16       |     |    to 4096 |
 *    +------+-------+-----+------+---------+-------+----+----+------+-----------+-----------+- - -+------------+
 *    heads  first 4 suffix bytes, as a big-endian number, zero-padded;  offs: where the entry lies in the page
 *    entry  { suffix length varint (1..2 bytes, 7 bits each, low first), key u48, suffix bytes from the 5th on }
 *    garbage  bytes of the heap that belong to no entry;  depth = the parent's end;  lo..hi: the range it is child of
 *
 * Invariants (trie_check.c tests each):
 *   T1 depth of the root is 0, of any other node its parent's end + 1; end <= 4096; crc matches the names below.
 *   T2 The root's path is empty and it has no own key. It is never freed.
 *   T3 first[0] = 0, first[] ascends strictly; no two neighbouring ranges have the same child.
 *   T4 An inner child hangs on a range of one byte; a leaf has exactly the range that lo..hi says.
 *   T5 count = own (0 or 1) + the counts of the children.
 *   T6 Suffixes of a leaf ascend strictly, have 1..1000 bytes and begin with lo..hi; no name is longer than 4096.
 *   T7 Entries of a leaf do not overlap; they and the garbage fill heap..4096.
 *   T8 Each 64-byte unit after page 0 is owned once: by a node, a leaf, or a free block of its class; or (version 2) it lies in a
 *      page of zeros that nothing owns.
 * Allowed, though no successful call leaves them: a leaf without entries, a node with one child and no own key.
 */
#pragma once

#include "store/trie.h"

#define CHT_TRIE_NAME_MAX 4096u
#define CHT_TRIE_KEY_MAX ((UINT64_C(1) << 48) - 1)
#define CHT_TRIE_SUFFIX_MAX 1000u
#define CHT_TRIE_PATH_MAX 255u
#define CHT_TRIE_LEAF_CLASS 6u

enum cht_trie_type {
    CHT_TRIE_N4 = 1,
    CHT_TRIE_N16 = 2,
    CHT_TRIE_N48 = 3,
    CHT_TRIE_N256 = 4,
    CHT_TRIE_LEAF = 8
};

enum cht_trie_node_at {
    CHT_NODE_TYPE = 0,
    CHT_NODE_FLAGS = 1,
    CHT_NODE_N = 2,
    CHT_NODE_DEPTH = 4,
    CHT_NODE_PATH_LEN = 6,
    CHT_NODE_ZERO = 7,
    CHT_NODE_OWN = 8,
    CHT_NODE_COUNT = 16,
    CHT_NODE_CRC = 24,
    CHT_NODE_BODY = 28
};
enum cht_trie_leaf_at {
    CHT_LEAF_TYPE = 0,
    CHT_LEAF_FLAGS = 1,
    CHT_LEAF_N = 2,
    CHT_LEAF_HEAP = 4,
    CHT_LEAF_GARBAGE = 6,
    CHT_LEAF_DEPTH = 8,
    CHT_LEAF_LO = 10,
    CHT_LEAF_HI = 11,
    CHT_LEAF_CRC = 12,
    CHT_LEAF_HEADS = 16
};
#define CHT_LEAF_SLOT 6u      /* head and offset of an entry */
#define CHT_LEAF_ENTRY_MIN 7u /* length and key */
#define CHT_LEAF_FULL (CHT_PAGE - CHT_LEAF_HEADS)

static inline unsigned cht_trie_cap(unsigned type)
{
    return type == CHT_TRIE_N256 ? 256 : type == CHT_TRIE_N48 ? 48 : type == CHT_TRIE_N16 ? 16 : 4;
}
static inline unsigned cht_trie_child_at(unsigned type)
{
    return CHT_NODE_BODY + (type == CHT_TRIE_N256 ? 0 : cht_trie_cap(type));
}
static inline unsigned cht_trie_path_at(unsigned type)
{
    return cht_trie_child_at(type) + 4 * cht_trie_cap(type);
}
static inline unsigned cht_trie_node_class(unsigned type, unsigned path_len)
{
    return cht_arena_class(cht_trie_path_at(type) + path_len);
}

_Static_assert(CHT_TRIE_PAIRS == CHT_ARENA_USER && CHT_TRIE_MAPS_END <= CHT_PF_USER_END,
               "the root refs lie in the header's sector");
_Static_assert(CHT_NODE_BODY + 4 + 16 == 48, "a node of 4 and a path of 16 bytes fit 64 bytes");
_Static_assert(CHT_NODE_BODY + 16 * 5 == 108, "a node of 16 and a path of 20 bytes fit 128 bytes");
_Static_assert(CHT_NODE_BODY + 48 * 5 + CHT_TRIE_PATH_MAX <= 1024 &&
                   CHT_NODE_BODY + 1024 + CHT_TRIE_PATH_MAX <= 2048,
               "nodes fit blocks");
_Static_assert(CHT_LEAF_SLOT + 2 + 6 + CHT_TRIE_SUFFIX_MAX - 4 <= CHT_LEAF_FULL / 4,
               "a leaf holds at least 4 entries");
