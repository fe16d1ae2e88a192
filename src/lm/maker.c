/* maker: see maker.h. */
#include "lm/maker.h"

#include <string.h>

#include "base/alloc.h"
#include "base/literal.h"
#include "lm/avo.h"
#include "lm/names.h"
#include "os/io.h"
#include "reduce/payload.h"

#define CHUNK ((size_t)1 << 20) /* the first: most requests are small */
#define CHUNK_NEXT ((size_t)16 << 20)

struct lm_maker_chunk {
    struct lm_maker_chunk *next;
    size_t used, size;
    uint8_t bytes[];
};

static uint8_t *arena(struct lm_maker *m, size_t n)
{
    struct lm_maker_chunk *c = m->chunks;
    if (c == NULL || c->size - c->used < n) {
        size_t usual = c == NULL ? CHUNK : CHUNK_NEXT, size = n > usual ? n : usual;
        c = cht_malloc(sizeof *c + size);
        if (c == NULL)
            return NULL;
        *c = (struct lm_maker_chunk){.next = m->chunks, .size = size};
        cht_os_huge_pages(c, sizeof *c + size);
        m->chunks = c;
    }
    c->used += n;
    return c->bytes + c->used - n;
}

void lm_maker_free(struct lm_maker *m)
{
    while (m->chunks != NULL) {
        struct lm_maker_chunk *c = m->chunks;
        m->chunks = c->next;
        cht_free(c);
    }
    lm_counts_free(&m->counts);
    cht_buf_free(&m->value);
}

/* What the database has under the name is added to the counts of this request in m->counts. */
static enum cht_rc add_stored(struct lm_maker *m, struct cht_str name, struct cht_err *err)
{
    uint64_t key;
    uint32_t size;
    m->counts.n = 0;
    if (!m->making->any_counts)
        return CHT_OK;
    enum cht_rc rc = cht_store_pair_value(m->making->store, name, &key, &m->value, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0))
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    m->value.len = size;
    return lm_counts_read(&m->counts, m->value.data, size, name, err);
}

/* What lies under the name and is none of ours: m->value. It stays, and is counted. */
static enum cht_rc put_again(struct lm_maker *m, struct cht_str name, struct cht_op *op, struct cht_err *err)
{
    uint8_t *p = arena(m, name.n + m->value.len);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a payload of %zu bytes", m->value.len);
    memcpy(p, name.p, name.n);
    memcpy(p + name.n, m->value.data, m->value.len);
    *op = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = {p, name.n}, .value = {p + name.n, m->value.len}};
    m->malformed++;
    return CHT_OK;
}

enum cht_rc lm_make_counts(struct lm_maker *m, const uint8_t hash[LM_HASH_SIZE], const struct lm_follower *f,
                           uint32_t n, struct cht_op *op, struct cht_err *err)
{
    unsigned order = m->making->order;
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {text, lm_prefix(LM_CNT, order, text)};
    memcpy(text + name.n, hash, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    enum cht_rc rc = add_stored(m, name, err);
    if (rc == CHT_MALFORMED_PAYLOAD)
        return put_again(m, name, op, err);
    if (rc == CHT_OK)
        rc = lm_book_stored(m->making->request, m->counts.n, err);
    if (rc == CHT_OK && m->counts.n > 0) {
        rc = lm_counts_add(&m->counts, f, n, err);
        f = m->counts.f;
        n = m->counts.n;
    }
    if (rc != CHT_OK)
        return rc;
    uint8_t *p = arena(m, name.n + lm_counts_size(n));
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the counts of %u followers", n);
    memcpy(p, text, name.n);
    name.p = p;
    uint8_t *v = p + name.n;
    *op =
        (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = name, .value = {v, lm_counts_write(v, order, f, n)}};
    return CHT_OK;
}

enum cht_rc lm_make_context(struct lm_maker *m, const uint32_t *tokens, size_t n,
                            const uint8_t hash[LM_HASH_SIZE], struct cht_op *op, bool *made,
                            struct cht_err *err)
{
    uint8_t *p = arena(m, LM_LENGTH(LM_CTX) + LM_HASH_SIZE + 3 + n * 4);
    *made = false;
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a context");
    struct cht_str name = {p, LM_LENGTH(LM_CTX) + LM_HASH_SIZE};
    memcpy(CHT_PUT(p, LM_CTX), hash, LM_HASH_SIZE);
    if (m->making->any_contexts) {
        uint64_t key;
        uint32_t size;
        enum cht_rc rc = cht_store_pair_value(m->making->store, name, &key, NULL, &size, err);
        if (rc == CHT_OK && size > 0)
            return CHT_OK;
        if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
            return rc;
    }
    m->created++;
    *made = true;
    uint8_t *v = p + name.n;
    v[0] = 1;
    v[1] = v[2] = (uint8_t)n;
    for (size_t i = 0; i < n; i++)
        reduce_payload_put32(v + 3 + 4 * i, tokens[i]);
    *op = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = name, .value = {v, 3 + 4 * n}};
    return CHT_OK;
}

enum cht_rc lm_make_vector(struct lm_maker *m, const uint32_t *tokens, size_t n, const struct cht_op *context,
                           struct cht_op *op, struct cht_err *err)
{
    uint8_t *p = arena(m, LM_LENGTH(LM_CTXV) + LM_AVO_CONTEXT_BYTES);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a vector");
    size_t len = LM_LENGTH(LM_CTXV) + lm_avo_context(tokens, n, (uint8_t *)CHT_PUT(p, LM_CTXV));
    m->chunks->used -= LM_LENGTH(LM_CTXV) + LM_AVO_CONTEXT_BYTES - len;
    *op = (struct cht_op){
        .kind = CHT_OP_PAIR_LINK, .name = {p, len}, .value = context->name, .back = (uint32_t)(op - context)};
    return CHT_OK;
}
