/* avo: trees of integers. Whatever the order of siblings the bytes are the same; they decode to a tree whose encoding they are, with
 * children in order; and the short cut for contexts agrees. Input: a depth limit, then the tree: a byte below 128 begins a list of so many
 * children modulo 9, any other an integer of the 4 bytes after it. */
#include "fuzz/fuzz.h"

#include "lm/avo.h"

enum { NODES = 2000, DEPTH = 40 };
static struct lm_node nodes[NODES];
static size_t used;

/* NOLINTNEXTLINE(misc-no-recursion): at most DEPTH deep */
static void read_node(struct fuzz_in *in, struct lm_node *node, unsigned depth)
{
    uint8_t b = fuzz_u8(in);
    *node = (struct lm_node){.list = b < 128 && depth < DEPTH};
    if (!node->list) {
        node->value = fuzz_u32(in);
        return;
    }
    size_t n = b == 127 ? 256 : b % 9;
    n = n < NODES - used ? n : 0;
    node->children = n > 0 ? &nodes[used] : NULL;
    node->n = n;
    used += n;
    for (size_t i = 0; i < n; i++)
        read_node(in, &node->children[i], depth + 1);
}

static void turn_around(struct lm_node *from, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        struct lm_node *v = from[k].children;
        for (size_t i = 0; i < from[k].n / 2; i++) {
            struct lm_node t = v[i];
            v[i] = v[from[k].n - 1 - i];
            v[from[k].n - 1 - i] = t;
        }
    }
}

/* One node at p, n bytes; returns its length. Children are in order, and of the length that is said. */
/* NOLINTNEXTLINE(misc-no-recursion): at most DEPTH deep */
static size_t well_formed(const uint8_t *p, size_t n)
{
    FUZZ_CHECK(n >= 2 && (p[0] == 0xA0 || p[0] == 0xA1));
    if (p[0] == 0xA1) {
        FUZZ_CHECK(n >= 5);
        return 5;
    }
    size_t at = 2, before = 0, before_len = 0;
    for (unsigned i = 0; i < p[1]; i++) {
        FUZZ_CHECK(n - at >= 2);
        size_t len = (size_t)p[at] << 8 | p[at + 1];
        FUZZ_CHECK(len <= n - at - 2 && well_formed(p + at + 2, len) == len);
        if (i > 0) {
            int c = memcmp(p + before, p + at + 2, before_len < len ? before_len : len);
            FUZZ_CHECK(c < 0 || (c == 0 && before_len <= len));
        }
        before = at + 2;
        before_len = len;
        at += 2 + len;
    }
    return at;
}

static void contexts(struct fuzz_in in)
{
    uint32_t tokens[LM_AVO_CONTEXT_MAX];
    struct lm_node token[LM_AVO_CONTEXT_MAX], list[LM_AVO_CONTEXT_MAX];
    struct lm_node root = {.list = true, .children = list, .n = fuzz_u8(&in) % (LM_AVO_CONTEXT_MAX + 1)};
    uint8_t out[LM_AVO_CONTEXT_BYTES];
    struct cht_buf b = {0};
    for (size_t i = 0; i < root.n; i++) {
        tokens[i] = fuzz_u32(&in);
        token[i] = (struct lm_node){.value = tokens[i]};
        list[i] = (struct lm_node){.list = true, .children = &token[i], .n = 1};
    }
    size_t n = lm_avo_context(tokens, root.n, out);
    FUZZ_CHECK(lm_avo_encode(&root, -1, &b, NULL) == CHT_OK && b.len == n && memcmp(b.data, out, n) == 0);
    cht_buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct fuzz_in in = {data, n};
    struct lm_node root;
    struct cht_buf a = {0}, b = {0};
    contexts(in);
    long limit = (long)(fuzz_u8(&in) % 8) - 1;
    used = 0;
    read_node(&in, &root, 0);
    enum cht_rc rc = lm_avo_encode(&root, limit, &a, NULL);
    if (rc == CHT_OK)
        FUZZ_CHECK(a.len > 0 && a.data[0] == 1 && well_formed(a.data + 1, a.len - 1) == a.len - 1);
    else
        FUZZ_CHECK(rc == CHT_INVALID_TREE && a.len == 0);
    turn_around(&root, 1);
    turn_around(nodes, used);
    FUZZ_CHECK(lm_avo_encode(&root, limit, &b, NULL) == rc);
    FUZZ_CHECK(rc != CHT_OK || (a.len == b.len && memcmp(a.data, b.data, a.len) == 0));
    cht_buf_free(&a);
    cht_buf_free(&b);
    return 0;
}
