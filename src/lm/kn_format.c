/* kn_format: see kn_format.h. */
#include "lm/kn_format.h"

#include <string.h>

#include "base/literal.h"
#include "lm/fm_format.h"

#pragma STDC FP_CONTRACT OFF

#define HEAD_NAME "kn:0:__root__"
#define HEAD_FIXED 56u
#define HEAD_ORDER 48u
#define WIDE_HEAD 24u
#define VARINT_MAX 5u
#define PREFIX 5u /* "kn:3:" */

static void put32(uint8_t *p, uint32_t v) { cht_put32(p, __builtin_bswap32(v)); }
static void put64(uint8_t *p, uint64_t v) { cht_put64(p, __builtin_bswap64(v)); }

static uint8_t *put_varint(uint8_t *p, uint32_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

/* A varint that ends before `end`, is no longer than it must be and fits; false: it is none. */
static bool take_varint(const uint8_t **p, const uint8_t *end, uint32_t *out)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < VARINT_MAX && *p < end; i++) {
        uint8_t c = *(*p)++;
        v |= (uint64_t)(c & 0x7Fu) << 7 * i;
        if (c < 0x80) {
            *out = (uint32_t)v;
            return v <= UINT32_MAX && (c != 0 || i == 0);
        }
    }
    return false;
}

static void add_follower(struct lm_kn_record *r, uint32_t a)
{
    r->b[a < 3 ? a : 3]++;
    r->total += a;
}

static bool read_narrow(const uint8_t *p, const uint8_t *end, struct lm_kn_record *out)
{
    uint64_t token = 0;
    for (uint32_t i = 0; i < out->n; i++) {
        uint32_t step, a;
        if (!take_varint(&p, end, &step) || !take_varint(&p, end, &a) || a == UINT32_MAX)
            return false;
        token += i > 0 ? (uint64_t)step + 1 : step;
        if (token > UINT32_MAX)
            return false;
        add_follower(out, a + 1);
    }
    return p == end;
}

/* ---- the head ---------------------------------------------------------------------------------------------------- */

struct cht_str lm_kn_head_name(void)
{
    return (struct cht_str){(const uint8_t *)HEAD_NAME, sizeof HEAD_NAME - 1};
}

size_t lm_kn_head_write(const struct lm_kn_head *h, uint8_t out[LM_KN_HEAD_MAX])
{
    out[0] = 1;
    out[1] = (uint8_t)h->order;
    out[2] = (uint8_t)(h->flags >> 8);
    out[3] = (uint8_t)h->flags;
    put32(out + 4, h->bos);
    put32(out + 8, h->eos);
    put64(out + 12, h->id);
    put64(out + 20, h->generation);
    put64(out + 28, h->documents);
    put64(out + 36, h->tokens);
    put64(out + 44, h->root_total);
    put32(out + 52, 0);
    uint8_t *p = out + HEAD_FIXED;
    for (unsigned m = 1; m <= h->order; m++, p += HEAD_ORDER) {
        put64(p, h->m[m].contexts);
        put64(p + 8, h->m[m].types);
        for (unsigned j = 0; j < 4; j++)
            put64(p + 16 + 8 * j, h->m[m].n[j]);
    }
    return (size_t)(p - out);
}

bool lm_kn_head_sound(const struct lm_kn_head *h)
{
    for (unsigned m = 1; m <= h->order; m++) {
        const struct lm_kn_order *o = &h->m[m];
        uint64_t left = o->types;
        if (o->types > INT64_MAX /* it went below 0 */ || o->contexts > o->types ||
            (o->contexts == 0) != (o->types == 0))
            return false;
        for (unsigned j = 0; j < 4; left -= o->n[j++]) {
            if (o->n[j] > left)
                return false;
        }
    }
    return h->root_total >= h->m[1].types && (h->root_total == 0) == (h->m[1].types == 0) &&
           h->m[1].types <= (uint64_t)UINT32_MAX + 1;
}

bool lm_kn_head_read(const uint8_t *p, size_t n, struct lm_kn_head *out)
{
    *out = (struct lm_kn_head){0};
    if (n < HEAD_FIXED || p[0] != 1 || p[1] < 1 || p[1] > LM_ORDER_MAX ||
        n != HEAD_FIXED + (size_t)p[1] * HEAD_ORDER || cht_be32(p + 52) != 0)
        return false;
    out->order = p[1];
    out->flags = (unsigned)p[2] << 8 | p[3];
    out->bos = cht_be32(p + 4);
    out->eos = cht_be32(p + 8);
    out->id = cht_be64(p + 12);
    out->generation = cht_be64(p + 20);
    out->documents = cht_be64(p + 28);
    out->tokens = cht_be64(p + 36);
    out->root_total = cht_be64(p + 44);
    p += HEAD_FIXED;
    for (unsigned m = 1; m <= out->order; m++, p += HEAD_ORDER) {
        struct lm_kn_order *o = &out->m[m];
        o->contexts = cht_be64(p);
        o->types = cht_be64(p + 8);
        for (unsigned j = 0; j < 4; j++)
            o->n[j] = cht_be64(p + 16 + 8 * j);
    }
    return (out->flags & ~(unsigned)(LM_KN_EOS | LM_KN_KEEP)) == 0 && lm_kn_head_sound(out);
}

enum cht_rc lm_kn_head_get(struct cht_store *s, struct lm_kn_head *out, struct cht_buf *buf,
                           struct cht_wait *w, struct cht_err *err)
{
    struct cht_pair_value pv = {.out = buf};
    return lm_kn_head_find(s, out, &pv, w, err);
}

enum cht_rc lm_kn_head_find(struct cht_store *s, struct lm_kn_head *out, struct cht_pair_value *pv,
                            struct cht_wait *w, struct cht_err *err)
{
    struct cht_str name = lm_kn_head_name();
    enum cht_rc rc = cht_store_pair_value_soon(s, name, pv, w, err);
    if (rc == CHT_OK && pv->size == 0)
        rc = CHT_PAIR_NOT_FOUND;
    if (rc != CHT_OK)
        return rc;
    struct lm_fm_head fixed;
    if (lm_fm_head_read(pv->out->data, pv->size, &fixed))
        return CHT_FAIL(err, CHT_FIXED_MODEL, "%s",
                        (fixed.flags & LM_FM_MAKING) != 0 ? "a model is being read into the database"
                                                          : cht_rc_text(CHT_FIXED_MODEL));
    return lm_kn_head_read(pv->out->data, pv->size, out)
               ? CHT_OK
               : lm_malformed(name, pv->size, "head of a live model", err);
}

struct lm_kn_discounts lm_kn_discounts(const struct lm_kn_order *m)
{
    struct lm_kn_discounts out = {.d = {0, 0.5, 1.0, 1.5}, .fallback = true};
    const uint64_t n[] = {0, m->n[0], m->n[1], m->n[2], m->n[3]};
    double d[4] = {0};
    if (n[1] == 0 || n[2] == 0 || n[3] == 0)
        return out;
    float y = (float)n[1] / (float)((double)n[1] + 2.0 * (double)n[2]);
    for (unsigned j = 1; j <= 3; j++) {
        float t = (float)(j + 1) * y;
        t = t * (float)n[j + 1];
        t = t / (float)n[j];
        float x = (float)j - t;
        if (!(x >= 0.0F && x <= (float)j))
            return out;
        d[j] = (double)x;
    }
    memcpy(out.d, d, sizeof d);
    out.fallback = false;
    return out;
}

/* ---- records ------------------------------------------------------------------------------------------------------ */

size_t lm_kn_prefix(unsigned order, uint8_t out[LM_KN_NAME_MAX])
{
    (void)CHT_PUT(out, LM_KN_ALL);
    out[3] = (uint8_t)('0' + order);
    out[4] = ':';
    return PREFIX;
}

size_t lm_kn_name(unsigned order, const uint32_t *end, uint8_t out[LM_KN_NAME_MAX])
{
    size_t n = lm_kn_prefix(order, out);
    for (unsigned i = 1; i < order; i++, n += 4)
        put32(out + n, end[-(ptrdiff_t)i]);
    return n;
}

size_t lm_kn_page_name(uint32_t token, uint8_t out[LM_KN_NAME_MAX])
{
    size_t n = lm_kn_prefix(1, out);
    put32(out + n, token >> LM_KN_PAGE_SHIFT);
    return n + 4;
}

bool lm_kn_record_read(unsigned order, const uint8_t *p, size_t n, struct lm_kn_record *out)
{
    *out = (struct lm_kn_record){.p = p + 2, .end = p + n};
    if (n < 2)
        return false;
    if (p[0] == 1) {
        out->n = p[1];
        return out->n >= 1 && out->n < LM_KN_WIDE && read_narrow(out->p, out->end, out);
    }
    if (p[0] != 2 || n < WIDE_HEAD || p[1] != 0 || p[2] != 0 || p[3] != order)
        return false;
    out->wide = true;
    out->p = p + WIDE_HEAD;
    out->n = cht_be32(p + 4);
    out->total = cht_be64(p + 8);
    out->b[1] = cht_be32(p + 16);
    out->b[2] = cht_be32(p + 20);
    uint64_t few = (uint64_t)out->b[1] + out->b[2];
    out->b[3] = (uint32_t)(out->n - few);
    return out->n >= LM_KN_WIDE && n == WIDE_HEAD + (uint64_t)out->n * 8 && few <= out->n &&
           out->total >= out->b[1] + 2 * (uint64_t)out->b[2] + 3 * (uint64_t)out->b[3];
}

/* All tokens are from `least` to `most`. */
static bool sound(const struct lm_kn_record *r, uint64_t least, uint64_t most)
{
    struct lm_kn_record sum = {0};
    struct lm_kn_walk w;
    lm_kn_walk_begin(&w, r);
    while (lm_kn_walk_next(&w)) {
        if (w.token < least || w.token > most || w.a == 0)
            return false;
        least = (uint64_t)w.token + 1;
        add_follower(&sum, w.a);
    }
    return sum.total == r->total && memcmp(sum.b, r->b, sizeof sum.b) == 0;
}

bool lm_kn_record_sound(const struct lm_kn_record *r) { return sound(r, 0, UINT32_MAX); }

bool lm_kn_page_read(struct cht_str name, const uint8_t *p, size_t n, struct lm_kn_record *out)
{
    if (name.n != PREFIX + 4 || !lm_kn_record_read(1, p, n, out))
        return false;
    uint64_t first = (uint64_t)cht_be32(name.p + PREFIX) << LM_KN_PAGE_SHIFT;
    return sound(out, first, first + (1u << LM_KN_PAGE_SHIFT) - 1);
}

uint32_t lm_kn_row_find(const struct lm_kn_row *r, uint32_t token)
{
    if (!r->wide) {
        struct lm_kn_walk w;
        lm_kn_walk_row(&w, r);
        while (lm_kn_walk_next(&w)) {
            if (w.token >= token)
                return w.token == token ? w.a : 0;
        }
        return 0;
    }
    uint32_t lo = 0, n = r->n;
    while (n > 1) {
        uint32_t half = n / 2;
        lo = cht_be32(r->p + (size_t)(lo + half) * 8) <= token ? lo + half : lo;
        n -= half;
    }
    const uint8_t *f = r->p + (size_t)lo * 8;
    return cht_be32(f) == token ? cht_be32(f + 4) : 0;
}

size_t lm_kn_record_write(unsigned order, const struct lm_follower *f, uint32_t n, uint8_t *out)
{
    uint8_t *p = out;
    if (n < LM_KN_WIDE) {
        *p++ = 1;
        *p++ = (uint8_t)n;
        for (uint32_t i = 0; i < n; i++) {
            p = put_varint(p, i > 0 ? f[i].token - f[i - 1].token - 1 : f[i].token);
            p = put_varint(p, f[i].count - 1);
        }
        return (size_t)(p - out);
    }
    struct lm_kn_record sum = {0};
    p[0] = 2;
    p[1] = 0;
    p[2] = 0;
    p[3] = (uint8_t)order;
    put32(p + 4, n);
    p += WIDE_HEAD;
    for (uint32_t i = 0; i < n; i++, p += 8) {
        put32(p, f[i].token);
        put32(p + 4, f[i].count);
        add_follower(&sum, f[i].count);
    }
    put64(out + 8, sum.total);
    put32(out + 16, sum.b[1]);
    put32(out + 20, sum.b[2]);
    return (size_t)(p - out);
}
