/* avo: see avo.h. A list is encoded after what is there already, child by child; then its children are sorted through an
 * array of their places and copied in order through a second buffer. */
#include "lm/avo.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/invariant.h"
#include "reduce/payload.h"

#define AVO_VERSION 0x01u
#define AVO_LIST 0xA0u
#define AVO_INTEGER 0xA1u

struct encoder {
    struct cht_buf *out;
    struct cht_buf sorted; /* owned: the children of one list, in order */
    long max_depth;
    struct cht_err *err;
};

/* Where a child lies: its length (u16) and its bytes. */
struct place {
    const uint8_t *base;
    uint32_t at, len;
};

static int by_bytes(const void *x, const void *y)
{
    const struct place *a = x, *b = y;
    size_t n = a->len < b->len ? a->len : b->len;
    int c = memcmp(a->base + a->at + 2, b->base + b->at + 2, n);
    return c != 0 ? c : (a->len > b->len) - (a->len < b->len);
}

static enum cht_rc room(struct cht_buf *b, size_t n, struct cht_err *err)
{
    size_t need = b->len + n;
    if (need <= b->cap)
        return CHT_OK;
    return cht_buf_reserve(b, need < 128 ? 256 : need * 2, err);
}

/* Puts the children that lie at `from` in order. */
static enum cht_rc sort_children(struct encoder *e, size_t from, struct place *places, size_t n)
{
    struct cht_buf *out = e->out;
    size_t bytes = out->len - from;
    enum cht_rc rc = cht_buf_reserve(&e->sorted, bytes, e->err);
    if (rc != CHT_OK)
        return rc;
    for (size_t i = 0; i < n; i++)
        places[i].base = out->data + from;
    qsort(places, n, sizeof *places, by_bytes);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(e->sorted.data + at, places[i].base + places[i].at, 2 + (size_t)places[i].len);
        at += 2 + (size_t)places[i].len;
    }
    memcpy(out->data + from, e->sorted.data, bytes);
    return CHT_OK;
}

static enum cht_rc encode(struct encoder *e, const struct lm_node *node, long depth);

/* NOLINTNEXTLINE(misc-no-recursion): at most LM_AVO_DEPTH_MAX deep */
static enum cht_rc encode_list(struct encoder *e, const struct lm_node *node, long depth)
{
    struct cht_buf *out = e->out;
    size_t n = e->max_depth >= 0 && depth >= e->max_depth ? 0 : node->n;
    if (node->n > LM_AVO_CHILDREN_MAX && n > 0)
        return CHT_FAIL(e->err, CHT_INVALID_TREE, "a list of %zu children; at most %u", node->n,
                        LM_AVO_CHILDREN_MAX);
    if (depth >= (long)LM_AVO_DEPTH_MAX)
        return CHT_FAIL(e->err, CHT_INVALID_TREE, "lists within lists; at most %u levels", LM_AVO_DEPTH_MAX);
    enum cht_rc rc = room(out, 2, e->err);
    if (rc != CHT_OK)
        return rc;
    out->data[out->len++] = AVO_LIST;
    out->data[out->len++] = (uint8_t)n;
    if (n == 0)
        return CHT_OK;
    struct place *places = cht_malloc(n * sizeof *places);
    if (places == NULL)
        return CHT_FAIL(e->err, CHT_NO_MEMORY, "no memory for a list of %zu children", n);
    size_t from = out->len;
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        size_t at = out->len;
        rc = room(out, 2, e->err);
        if (rc == CHT_OK) {
            out->len += 2;
            rc = encode(e, &node->children[i], depth + 1);
        }
        size_t len = out->len - at - 2;
        if (rc == CHT_OK && len > LM_AVO_CHILD_BYTES_MAX)
            rc = CHT_FAIL(e->err, CHT_INVALID_TREE, "a child of %zu bytes; at most %u", len,
                          LM_AVO_CHILD_BYTES_MAX);
        if (rc == CHT_OK) {
            reduce_payload_put16(out->data + at, (uint16_t)len);
            places[i] = (struct place){NULL, (uint32_t)(at - from), (uint32_t)len};
        }
    }
    if (rc == CHT_OK)
        rc = sort_children(e, from, places, n);
    cht_free(places);
    return rc;
}

/* NOLINTNEXTLINE(misc-no-recursion): at most LM_AVO_DEPTH_MAX deep */
static enum cht_rc encode(struct encoder *e, const struct lm_node *node, long depth)
{
    if (node->list)
        return encode_list(e, node, depth);
    enum cht_rc rc = room(e->out, 5, e->err);
    if (rc == CHT_OK) {
        e->out->data[e->out->len++] = AVO_INTEGER;
        reduce_payload_put32(e->out->data + e->out->len, node->value);
        e->out->len += 4;
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_avo_encode(const struct lm_node *root, long max_depth, struct cht_buf *out,
                          struct cht_err *err)
{
    struct encoder e = {.out = out, .max_depth = max_depth, .err = err};
    size_t before = out->len;
    enum cht_rc rc = room(out, 1, err);
    if (rc == CHT_OK) {
        out->data[out->len++] = AVO_VERSION;
        rc = encode(&e, root, 0);
    }
    if (rc != CHT_OK)
        out->len = before;
    cht_buf_free(&e.sorted);
    return rc;
}

size_t lm_avo_context(const uint32_t *tokens, size_t n, uint8_t out[LM_AVO_CONTEXT_BYTES])
{
    static const uint8_t child[7] = {0, 9, AVO_LIST, 1, 0, 5, AVO_INTEGER};
    uint32_t sorted[LM_AVO_CONTEXT_MAX];
    CHT_INVARIANT(n <= LM_AVO_CONTEXT_MAX);
    for (size_t i = 0; i < n; i++) { /* big-endian: the encodings sort as the numbers do */
        size_t at = i;
        for (; at > 0 && sorted[at - 1] > tokens[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = tokens[i];
    }
    out[0] = AVO_VERSION;
    out[1] = AVO_LIST;
    out[2] = (uint8_t)n;
    uint8_t *p = out + 3;
    for (size_t i = 0; i < n; i++) {
        memcpy(p, child, sizeof child);
        reduce_payload_put32(p + sizeof child, sorted[i]);
        p += LM_AVO_TOKEN_BYTES;
    }
    return (size_t)(p - out);
}
