/* avo: Absolute Vector Order, one canonical byte string for a nested tree of unsigned 32-bit integers.
 *
 *   tree   0x01 (version), the root node
 *   node   0xA1, value u32                                                         an integer
 *          0xA0, children u8, for each child its length u16 and its bytes          a list
 *
 * All integers are big-endian. The encodings of the children are sorted as byte strings (a prefix comes first), so the
 * order of siblings in the input never matters. A context of tokens t1..tn is the tree [[t1],[t2],...,[tn]].
 *
 * Threads: pure functions.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cheetah/store.h"

#define LM_AVO_CHILDREN_MAX 255u
#define LM_AVO_CHILD_BYTES_MAX 65535u
#define LM_AVO_DEPTH_MAX \
    1024u /* levels of lists: the encoder recurses, and children are bounded by their parents */
#define LM_AVO_TOKEN_BYTES 11u /* of the child [t] of a context, with its length */
#define LM_AVO_CONTEXT_MAX 16u /* tokens that lm_avo_context takes */
#define LM_AVO_CONTEXT_BYTES (3u + LM_AVO_CONTEXT_MAX * LM_AVO_TOKEN_BYTES)

/* A node of the caller's tree; only read. */
struct lm_node {
    bool list;
    uint32_t value;           /* of an integer */
    struct lm_node *children; /* of a list: n nodes, borrowed; NULL if n is 0 */
    size_t n;
};

/* Appends the encoding of the tree to out (owned by the caller). With max_depth >= 0 a list at that depth or deeper (the
 * root is depth 0) is written as an empty list; negative: no limit. CHT_INVALID_TREE
 * (more than 255 children, a child of more than 65 535 bytes, more than LM_AVO_DEPTH_MAX levels) or
 * CHT_NO_MEMORY; out is as long as before then. */
enum cht_rc lm_avo_encode(const struct lm_node *root, long max_depth, struct cht_buf *out,
                          struct cht_err *err);

/* The encoding of the context of n <= LM_AVO_CONTEXT_MAX tokens; returns its bytes. */
size_t lm_avo_context(const uint32_t *tokens, size_t n, uint8_t out[LM_AVO_CONTEXT_BYTES]);
