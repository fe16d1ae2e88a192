/* maker: see maker.h. */
#include "lm/maker.h"

#include <string.h>

#include "base/alloc.h"
#include "base/literal.h"
#include "lm/avo.h"
#include "lm/kn_format.h"
#include "lm/names.h"
#include "os/io.h"
#include "reduce/payload.h"

#define CHUNK ((size_t)1 << 20) /* the first: most requests are small */
#define CHUNK_NEXT ((size_t)16 << 20)

#define ENTRY_N_MAX ((1u << 29) - 1)

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
    cht_free(m->ops);
}

void lm_context_write(uint8_t *out, const uint32_t *tokens, size_t n)
{
    out[0] = 1;
    out[1] = out[2] = (uint8_t)n;
    for (size_t i = 0; i < n; i++)
        reduce_payload_put32(out + 3 + 4 * i, tokens[i]);
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

/* What lies under the name and cannot be read: an operation that changes nothing. It is counted. */
static enum cht_rc leave_alone(struct lm_maker *m, struct cht_str name, struct cht_op *op,
                               struct cht_err *err)
{
    uint8_t *p = arena(m, name.n);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a name");
    memcpy(p, name.p, name.n);
    *op = (struct cht_op){.kind = CHT_OP_PAIR_READ, .name = {p, name.n}};
    m->malformed++;
    return CHT_OK;
}

/* The name of a context's counts, in text. */
static struct cht_str counts_name(unsigned order, const uint8_t hash[LM_HASH_SIZE],
                                  uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE])
{
    size_t n = lm_prefix(LM_CNT, order, text);
    memcpy(text + n, hash, LM_HASH_SIZE);
    return (struct cht_str){text, n + LM_HASH_SIZE};
}

/* Followers become those with what the database has of them. */
static enum cht_rc add_up(struct lm_maker *m, struct cht_str name, const struct lm_follower **f, uint32_t *n,
                          struct cht_err *err)
{
    enum cht_rc rc = add_stored(m, name, err);
    if (rc == CHT_OK)
        rc = lm_book_stored(m->making->request, m->counts.n, err);
    if (rc == CHT_OK && m->counts.n > 0) {
        rc = lm_counts_add(&m->counts, *f, *n, err);
        *f = m->counts.f;
        *n = m->counts.n;
    }
    return rc;
}

/* Is there no entry under `ctx:`, or none with a value? */
static enum cht_rc is_new(struct lm_maker *m, struct cht_str name, bool *out, struct cht_err *err)
{
    uint64_t key;
    uint32_t size = 0;
    *out = true;
    if (!m->making->any_contexts)
        return CHT_OK;
    enum cht_rc rc = cht_store_pair_value(m->making->store, name, &key, NULL, &size, err);
    *out = rc == CHT_PAIR_NOT_FOUND || size == 0;
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

/* Counts that are too long for an entry. */
static enum cht_rc put_long(struct lm_maker *m, struct cht_str name, struct cht_str counts,
                            struct cht_err *err)
{
    uint8_t *p = arena(m, name.n);
    if (m->nops == m->ops_cap && p != NULL) {
        size_t cap = m->ops_cap * 2 + 16;
        struct cht_op *ops = cht_realloc(m->ops, cap * sizeof *ops);
        p = ops == NULL ? NULL : p;
        m->ops = ops == NULL ? m->ops : ops;
        m->ops_cap = ops == NULL ? m->ops_cap : cap;
    }
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for counts of %zu bytes", counts.n);
    memcpy(p, name.p, name.n);
    m->ops[m->nops++] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = {p, name.n}, .value = counts};
    return CHT_OK;
}

/* Is that what the text has after the context? */
static bool is_alone(const struct lm_making *k, const struct lm_entry *e, const struct lm_follower *f,
                     uint32_t n)
{
    size_t after = e->first + (size_t)k->order - 1;
    return n == 1 && after < k->ntokens && k->tokens[after] == f->token && f->count <= ENTRY_N_MAX;
}

/* Counts that lie beside the entry: `size` bytes at most, made of the followers, or what is in m->value. */
static enum cht_rc keep_counts(struct lm_maker *m, struct lm_entry *e, struct cht_str name, size_t size,
                               const struct lm_follower *f, uint32_t n, struct cht_err *err)
{
    uint8_t *p = arena(m, LM_HASH_SIZE + size);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for counts of %zu bytes", size);
    uint8_t *counts = p + LM_HASH_SIZE;
    size_t bytes = size;
    if (f == NULL)
        memcpy(counts, m->value.data, size);
    else
        bytes = lm_counts_write(counts, m->making->order, f, n);
    m->chunks->used -= size - bytes;
    m->bytes += name.n + bytes;
    if (bytes > CHT_MANY_VALUE_MAX)
        return put_long(m, name, (struct cht_str){counts, bytes}, err);
    memcpy(p, e->hash, LM_HASH_SIZE);
    e->more = p;
    e->form = LM_ENTRY_MORE;
    e->n = (uint32_t)bytes & ENTRY_N_MAX;
    return CHT_OK;
}

/* The counts that are to be written, if any are. */
static enum cht_rc entry_counts(struct lm_maker *m, struct lm_entry *e, const struct lm_follower *f,
                                uint32_t n, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = counts_name(m->making->order, e->hash, text);
    enum cht_rc rc = add_up(m, name, &f, &n, err);
    if (rc == CHT_MALFORMED_PAYLOAD || rc == CHT_CORRUPT) /* it stays as it is */
        m->malformed++;
    if (rc == CHT_MALFORMED_PAYLOAD)
        return keep_counts(m, e, name, m->value.len, NULL, 0, err);
    if (rc != CHT_OK)
        return rc == CHT_CORRUPT ? CHT_OK : rc;
    if (!is_alone(m->making, e, f, n))
        return keep_counts(m, e, name, lm_counts_size(n), f, n, err);
    m->bytes += name.n + lm_counts_size(1);
    e->form = LM_ENTRY_ALONE;
    e->n = f->count & ENTRY_N_MAX;
    return CHT_OK;
}

enum cht_rc lm_make_entry(struct lm_maker *m, struct lm_entry *e, const struct lm_follower *f, uint32_t n,
                          struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    size_t tokens = m->making->order - 1;
    bool created = false;
    e->form = LM_ENTRY_BARE;
    e->n = 0;
    if ((m->making->keep & LM_KN_KEEP_CTX) != 0) {
        uint8_t text[LM_LENGTH(LM_CTX) + LM_HASH_SIZE];
        memcpy(CHT_PUT(text, LM_CTX), e->hash, LM_HASH_SIZE);
        rc = is_new(m, (struct cht_str){text, sizeof text}, &created, err);
    }
    if (rc == CHT_OK && (m->making->keep & LM_KN_KEEP_CNT) != 0)
        rc = entry_counts(m, e, f, n, err);
    if (rc != CHT_OK)
        return rc;
    e->created = created;
    m->created += created;
    if (created)
        m->bytes += LM_LENGTH(LM_CTX) + LM_HASH_SIZE + LM_CONTEXT_BYTES(tokens) + LM_LENGTH(LM_CTXV) + 3 +
                    LM_AVO_TOKEN_BYTES * tokens;
    return CHT_OK;
}

enum cht_rc lm_make_counts(struct lm_maker *m, const uint8_t hash[LM_HASH_SIZE], const struct lm_follower *f,
                           uint32_t n, struct cht_op *op, struct cht_err *err)
{
    unsigned order = m->making->order;
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = counts_name(order, hash, text);
    enum cht_rc rc = add_up(m, name, &f, &n, err);
    if (rc == CHT_MALFORMED_PAYLOAD)
        return put_again(m, name, op, err);
    if (rc == CHT_CORRUPT)
        return leave_alone(m, name, op, err);
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
    uint8_t *p = arena(m, LM_LENGTH(LM_CTX) + LM_HASH_SIZE + LM_CONTEXT_BYTES(n));
    *made = false;
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a context");
    struct cht_str name = {p, LM_LENGTH(LM_CTX) + LM_HASH_SIZE};
    memcpy(CHT_PUT(p, LM_CTX), hash, LM_HASH_SIZE);
    enum cht_rc rc = is_new(m, name, made, err);
    if (rc != CHT_OK || !*made)
        return rc;
    m->created++;
    lm_context_write(p + name.n, tokens, n);
    *op = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = name, .value = {p + name.n, LM_CONTEXT_BYTES(n)}};
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
