/* logops: encoding, decoding and redo of the operations of a log record (format in logops.h). */
#include "store/logops.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/invariant.h"
#include "store/expiry.h"

#include <string.h>

#define KEEP_BYTES (16u << 20) /* of a buffer that is used again */
#define TAKE_BYTES (1u << 20)  /* a joined buffer of that length is taken as it is */

static void free_taken(struct cht_logbuf *l)
{
    while (l->ntaken > 0)
        cht_buf_free(&l->taken[--l->ntaken]);
}

static bool has_key(unsigned kind) { return kind <= CHT_LOG_PAIR_SET || kind == CHT_LOG_PAIR_ENDS; }

void cht_logbuf_fini(struct cht_logbuf *l)
{
    free_taken(l);
    cht_free(l->taken);
    cht_buf_free(&l->buf);
    cht_free(l->parts);
    memset(l, 0, sizeof *l);
}

void cht_logbuf_clear(struct cht_logbuf *l)
{
    l->buf.len = 0;
    l->nparts = 0;
    l->bytes = 0;
    free_taken(l);
}

void cht_logbuf_trim(struct cht_logbuf *l)
{
    free_taken(l);
    if (l->buf.cap > KEEP_BYTES || l->cap * sizeof *l->parts > KEEP_BYTES)
        cht_logbuf_fini(l);
}

static enum cht_rc grow_parts(struct cht_logbuf *l, size_t cap, struct cht_err *err)
{
    struct cht_wal_part *parts = cht_realloc(l->parts, cap * sizeof *parts);
    if (parts == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a log record");
    l->parts = parts;
    l->cap = cap;
    return CHT_OK;
}

enum cht_rc cht_logbuf_reserve(struct cht_logbuf *l, size_t ops, size_t data, struct cht_err *err)
{
    size_t need = l->buf.len + ops * CHT_LOGOP_HEAD_MAX + data;
    if (need > l->buf.cap) {
        enum cht_rc rc = cht_buf_reserve(&l->buf, need * 2, err);
        if (rc != CHT_OK)
            return rc;
    }
    return l->nparts + 2 * ops > l->cap ? grow_parts(l, (l->nparts + 2 * ops) * 2, err) : CHT_OK;
}

enum cht_rc cht_logbuf_room(struct cht_logbuf *l, size_t bytes, size_t parts, size_t joins,
                            struct cht_err *err)
{
    if (l->ntaken + joins > l->taken_cap) {
        struct cht_buf *taken = cht_realloc(l->taken, (l->ntaken + joins) * sizeof *taken);
        if (taken == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a log record");
        l->taken = taken;
        l->taken_cap = l->ntaken + joins;
    }
    enum cht_rc rc = cht_buf_reserve(&l->buf, l->buf.len + bytes, err);
    return rc == CHT_OK && l->nparts + parts > l->cap ? grow_parts(l, l->nparts + parts, err) : rc;
}

/* Appends n bytes that are in buf already. */
static void account(struct cht_logbuf *l, size_t n)
{
    l->bytes += n;
    if (l->nparts > 0 && l->parts[l->nparts - 1].p == NULL)
        l->parts[l->nparts - 1].n += n;
    else
        l->parts[l->nparts++] = (struct cht_wal_part){NULL, n};
}

void cht_logbuf_add(struct cht_logbuf *l, enum cht_logop_kind kind, uint64_t key, struct cht_str data)
{
    uint8_t *p = l->buf.data + l->buf.len, *start = p;
    CHT_INVARIANT(l->buf.cap - l->buf.len >= CHT_LOGOP_HEAD_MAX);
    *p++ = (uint8_t)kind;
    if (has_key(kind)) {
        cht_put48(p, key);
        p += 6;
    }
    if (kind == CHT_LOG_VALUE_PUT) {
        cht_put32(p, (uint32_t)data.n);
        p += 4;
    } else if (kind != CHT_LOG_VALUE_DEL) {
        cht_put16(p, (uint16_t)data.n);
        p += 2;
    }
    bool borrow = kind == CHT_LOG_VALUE_PUT && data.n >= CHT_LOG_BORROW;
    if (!borrow && data.n > 0) {
        CHT_INVARIANT(l->buf.cap - l->buf.len - (size_t)(p - start) >= data.n);
        memcpy(p, data.p, data.n);
        p += data.n;
    }
    account(l, (size_t)(p - start));
    l->buf.len += (size_t)(p - start);
    if (borrow) {
        l->parts[l->nparts++] = (struct cht_wal_part){data.p, data.n};
        l->bytes += data.n;
    }
}

/* n bytes of a buffer that is joined. */
static void append(struct cht_logbuf *l, const uint8_t *p, size_t n)
{
    memcpy(l->buf.data + l->buf.len, p, n);
    l->buf.len += n;
    account(l, n);
}

void cht_logbuf_join(struct cht_logbuf *l, struct cht_logbuf *other)
{
    bool take = other->buf.len >= TAKE_BYTES;
    CHT_INVARIANT(l->cap - l->nparts >= other->nparts);
    CHT_INVARIANT(take ? l->ntaken < l->taken_cap : l->buf.cap - l->buf.len >= other->buf.len);
    const uint8_t *p = other->buf.data;
    for (size_t i = 0; i < other->nparts; i++) {
        struct cht_wal_part part = other->parts[i];
        bool own = part.p == NULL;
        if (own && !take) {
            append(l, p, part.n);
        } else {
            part.p = own ? p : part.p;
            l->parts[l->nparts++] = part;
            l->bytes += part.n;
        }
        p += own ? part.n : 0;
    }
    if (take) {
        l->taken[l->ntaken++] = other->buf;
        other->buf = (struct cht_buf){0};
    }
    cht_logbuf_clear(other);
}

enum cht_rc cht_logbuf_break(struct cht_logbuf *l, struct cht_err *err)
{
    static const uint8_t nothing;
    enum cht_rc rc = cht_logbuf_reserve(l, 1, 0, err);
    if (rc == CHT_OK)
        l->parts[l->nparts++] = (struct cht_wal_part){&nothing, 0};
    return rc;
}

struct cht_logmark cht_logbuf_mark(const struct cht_logbuf *l)
{
    return (struct cht_logmark){l->buf.len, l->nparts, l->nparts > 0 ? l->parts[l->nparts - 1].n : 0,
                                l->bytes};
}

void cht_logbuf_rewind(struct cht_logbuf *l, struct cht_logmark m)
{
    l->buf.len = m.len;
    l->nparts = m.nparts;
    if (m.nparts > 0)
        l->parts[m.nparts - 1].n = m.last;
    l->bytes = m.bytes;
}

const struct cht_wal_part *cht_logbuf_parts(struct cht_logbuf *l, size_t *count)
{
    const uint8_t *p = l->buf.data;
    for (size_t i = 0; i < l->nparts; i++) {
        if (l->parts[i].p == NULL) {
            l->parts[i].p = p;
            p += l->parts[i].n;
        }
    }
    *count = l->nparts;
    return l->parts;
}

/* What no operation can be; NULL: nothing. */
static const char *nonsense(const struct cht_logop *op)
{
    if (has_key(op->kind) && op->kind != CHT_LOG_PAIR_ENDS && (op->key == 0 || op->key > CHT_KEY_MAX))
        return "an impossible key";
    if (op->kind == CHT_LOG_VALUE_PUT)
        return op->data.n == 0 || op->data.n > CHT_VALUE_MAX ? "an impossible value" : NULL;
    if (op->kind == CHT_LOG_VALUE_DEL)
        return NULL;
    if (op->data.n > CHT_NAME_MAX ||
        (op->data.n == 0 && op->kind != CHT_LOG_PREFIX_DEL && op->kind != CHT_LOG_PAIR_ENDS))
        return "an impossible name";
    return NULL;
}

enum cht_rc cht_logop_decode(const uint8_t *p, size_t n, size_t *pos, struct cht_logop *op,
                             struct cht_err *err)
{
    size_t at = *pos, left = n - at;
    unsigned kind = left > 0 ? p[at] : 0;
    size_t head = kind == CHT_LOG_VALUE_PUT   ? 11
                  : kind == CHT_LOG_VALUE_DEL ? 7
                  : kind == CHT_LOG_PAIR_SET  ? 9
                  : kind == CHT_LOG_PAIR_ENDS ? 9
                                              : 3;
    if (kind < CHT_LOG_VALUE_PUT || kind > CHT_LOG_PAIR_ENDS || left < head)
        return CHT_DAMAGED(err, "log record: byte %zu is not an operation", at);
    *op = (struct cht_logop){.kind = (enum cht_logop_kind)kind};
    if (has_key(kind))
        op->key = cht_get48(p + at + 1);
    size_t len = kind == CHT_LOG_VALUE_PUT   ? cht_get32(p + at + 7)
                 : kind == CHT_LOG_VALUE_DEL ? 0
                                             : cht_get16(p + at + head - 2);
    if (len > left - head)
        return CHT_DAMAGED(err, "log record: the operation at byte %zu is cut off", at);
    op->data = (struct cht_str){p + at + head, len};
    const char *wrong = nonsense(op);
    if (wrong != NULL)
        return CHT_DAMAGED(err, "log record: the operation at byte %zu has %s", at, wrong);
    *pos = at + head + len;
    return CHT_OK;
}

bool cht_logop_concerns(const struct cht_logop *op, const struct cht_shard *sh)
{
    switch (op->kind) {
    case CHT_LOG_VALUE_PUT:
    case CHT_LOG_VALUE_DEL:
        return cht_shard_of_key(op->key, sh->count) == sh->index;
    case CHT_LOG_PAIR_SET:
    case CHT_LOG_PAIR_DEL:
    case CHT_LOG_PAIR_ENDS:
        return cht_shard_of_name(op->data, sh->count) == sh->index;
    case CHT_LOG_PREFIX_DEL:
        return true;
    }
    return false;
}

static enum cht_rc redo_put(const struct cht_logop *op, struct cht_shard *sh, struct cht_err *err)
{
    if (op->data.n < CHT_LARGE_VALUE)
        return cht_values_put(&sh->values, op->key, op->data.p, (uint32_t)op->data.n, err);
    struct cht_large l;
    enum cht_rc rc = cht_values_large_reserve(&sh->values, (uint32_t)op->data.n, &l, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_values_large_write(&sh->values, &l, op->data.p, err);
    if (rc == CHT_OK)
        rc = cht_values_large_put(&sh->values, op->key, &l, cht_value_crc(op->key, op->data.p, op->data.n),
                                  err);
    if (rc != CHT_OK)
        cht_values_large_abandon(&sh->values, &l);
    return rc;
}

enum cht_rc cht_logop_redo(const struct cht_logop *op, struct cht_shard *sh, struct cht_err *err)
{
    uint64_t old;
    enum cht_rc rc = CHT_OK;
    switch (op->kind) {
    case CHT_LOG_VALUE_PUT:
        return redo_put(op, sh, err);
    case CHT_LOG_VALUE_DEL:
        rc = cht_values_del(&sh->values, op->key, err);
        return rc == CHT_KEY_NOT_FOUND ? CHT_OK : rc;
    case CHT_LOG_PAIR_SET:
        return cht_trie_set(cht_shard_pairs(sh), op->data.p, op->data.n, op->key, &old, err);
    case CHT_LOG_PAIR_DEL:
        rc = cht_trie_del(cht_shard_pairs(sh), op->data.p, op->data.n, &old, err);
        return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    case CHT_LOG_PREFIX_DEL:
        rc = cht_expiry_forget(cht_shard_pairs(sh), op->data, err);
        if (rc != CHT_OK)
            return rc;
        return cht_trie_del_prefix(cht_shard_pairs(sh), op->data.p, op->data.n, &old, err);
    case CHT_LOG_PAIR_ENDS:
        if (!cht_expiry_any(cht_shard_pairs(sh)))
            return CHT_DAMAGED(err, "%s: a pair is to end, and the file's header says that none does",
                               cht_pf_path(cht_shard_pairs(sh)));
        if (op->data.n == 0)
            return cht_expiry_set_clock(cht_shard_pairs(sh), op->key, err);
        return cht_expiry_set(cht_shard_pairs(sh), op->data, op->key, err);
    }
    return rc;
}
