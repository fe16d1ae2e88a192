/* fm_format: see fm_format.h. */
#include "lm/fm_format.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/literal.h"
#include "reduce/text.h"

#pragma STDC FP_CONTRACT OFF

#define HEAD_FIXED 28u
#define PREFIX 5u
#define RANK_BITS 12u /* of a float that a rank leaves out */
#define DIGITS_MIN 6
#define DIGITS_MAX 10

static void put32(uint8_t *p, uint32_t v) { cht_put32(p, __builtin_bswap32(v)); }
static void put64(uint8_t *p, uint64_t v) { cht_put64(p, __builtin_bswap64(v)); }

static uint32_t bits_of(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

/* ------------------------------------------------------------------------------------------------------------ */

size_t lm_fm_head_write(const struct lm_fm_head *h, uint8_t out[LM_FM_HEAD_MAX])
{
    out[0] = 2;
    out[1] = (uint8_t)h->order;
    out[2] = 0;
    out[3] = (uint8_t)h->flags;
    put32(out + 4, h->bos);
    put32(out + 8, h->eos);
    put32(out + 12, h->unk);
    put32(out + 16, 0);
    put64(out + 20, h->id);
    for (unsigned m = 1; m <= h->order; m++)
        put64(out + HEAD_FIXED + 8 * (size_t)(m - 1), h->n[m]);
    return HEAD_FIXED + 8 * (size_t)h->order;
}

bool lm_fm_head_read(const uint8_t *p, size_t n, struct lm_fm_head *out)
{
    *out = (struct lm_fm_head){0};
    if (n < HEAD_FIXED || p[0] != 2 || p[1] > LM_ORDER_MAX || n != HEAD_FIXED + 8 * (size_t)p[1] ||
        p[2] != 0 || cht_be32(p + 16) != 0)
        return false;
    out->order = p[1];
    out->flags = p[3];
    out->bos = cht_be32(p + 4);
    out->eos = cht_be32(p + 8);
    out->unk = cht_be32(p + 12);
    out->id = cht_be64(p + 20);
    for (unsigned m = 1; m <= out->order; m++)
        out->n[m] = cht_be64(p + HEAD_FIXED + 8 * (size_t)(m - 1));
    unsigned known = LM_FM_EOS | LM_FM_MAKING | LM_FM_UNK | LM_FM_BOS;
    return (out->flags & ~known) == 0 && (out->order > 0 || (out->flags & LM_FM_MAKING) != 0) &&
           out->n[1] <= (uint64_t)UINT32_MAX + 1; /* a token each */
}

size_t lm_fm_section(unsigned order, uint8_t out[LM_FM_NAME_MAX])
{
    (void)CHT_PUT(out, LM_FM_ALL);
    out[3] = (uint8_t)('0' + order);
    out[4] = ':';
    return PREFIX;
}

size_t lm_fm_prefix(unsigned order, const uint32_t *context, uint8_t out[LM_FM_NAME_MAX])
{
    size_t n = lm_fm_section(order, out);
    for (unsigned i = 0; i + 1 < order; i++, n += 4)
        put32(out + n, context[i]);
    return n;
}

size_t lm_fm_name(unsigned order, const uint32_t *context, uint32_t token, uint8_t out[LM_FM_NAME_MAX])
{
    size_t n = lm_fm_prefix(order, context, out);
    put32(out + n, token >> lm_fm_shift(order));
    return n + 4;
}

/* Of a p that is not above 0 the bits grow as it falls. */
uint32_t lm_fm_rank(float p) { return p < 0 ? bits_of(p) >> RANK_BITS : 0; }

float lm_fm_rank_most(uint32_t rank) { return rank > 0 ? float_of(rank << RANK_BITS) : 0.0F; }

size_t lm_fm_rank_name(uint32_t rank, uint32_t token, uint8_t out[LM_FM_NAME_MAX])
{
    size_t n = lm_fm_section(0, out);
    put32(out + n, rank);
    put32(out + n + 4, token >> LM_FM_WIDE_SHIFT);
    return n + 8;
}

bool lm_fm_page_read(unsigned order, unsigned highest, const uint8_t *p, size_t n, struct lm_fm_page *out)
{
    bool last = order == highest;
    unsigned size = order == 0 ? 8 : last ? 12 : 16;
    *out = (struct lm_fm_page){.p = p + 2, .order = order, .size = size, .last = last};
    if (n < 2 + (size_t)size || p[0] != 1 || p[1] != order || (n - 2) % size != 0 || n > UINT32_MAX)
        return false;
    out->n = (uint32_t)((n - 2) / size);
    return true;
}

struct lm_fm_entry lm_fm_entry(const struct lm_fm_page *page, uint32_t i)
{
    const uint8_t *e = page->p + (size_t)i * page->size;
    struct lm_fm_entry out = {.token = cht_be32(e), .p = float_of(cht_be32(e + 4))};
    if (page->order == 0)
        return out;
    if (!page->last)
        out.backoff = float_of(cht_be32(e + 8));
    out.line = cht_be32(e + page->size - 4);
    return out;
}

bool lm_fm_find(const struct lm_fm_page *page, uint32_t token, struct lm_fm_entry *out)
{
    uint32_t lo = 0, n = page->n;
    while (n > 1) {
        uint32_t half = n / 2;
        lo = cht_be32(page->p + (size_t)(lo + half) * page->size) <= token ? lo + half : lo;
        n -= half;
    }
    if (page->n == 0 || cht_be32(page->p + (size_t)lo * page->size) != token)
        return false;
    *out = lm_fm_entry(page, lo);
    return true;
}

uint8_t *lm_fm_page_begin(unsigned order, uint8_t *out)
{
    out[0] = 1;
    out[1] = (uint8_t)order;
    return out + 2;
}

uint8_t *lm_fm_put(unsigned order, unsigned highest, const struct lm_fm_entry *e, uint8_t *end)
{
    put32(end, e->token);
    put32(end + 4, bits_of(e->p));
    end += 8;
    if (order > 0 && order < highest) {
        put32(end, bits_of(e->backoff));
        end += 4;
    }
    if (order > 0) {
        put32(end, e->line);
        end += 4;
    }
    return end;
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

/* n / 10^decimals, without zeros at its end. */
static size_t put_decimal(char *out, uint64_t n, unsigned decimals)
{
    char text[REDUCE_U64_TEXT];
    for (; decimals > 0 && n % 10 == 0; decimals--)
        n /= 10;
    size_t digits = reduce_put_u64(text, n), at = 0;
    if (digits <= decimals) {
        at = (size_t)(CHT_PUT(out, "0.") - out);
        for (size_t i = digits; i < decimals; i++)
            out[at++] = '0';
        memcpy(out + at, text, digits);
        return at + digits;
    }
    memcpy(out, text, digits - decimals);
    at = digits - decimals;
    if (decimals > 0) {
        out[at++] = '.';
        memcpy(out + at, text + digits - decimals, decimals);
        at += decimals;
    }
    return at;
}

size_t lm_fm_put_float(char *out, float v)
{
    static const double power[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13};
    double a = fabs((double)v);
    size_t at = 0;
    if (a == 0) {
        *out = '0';
        return 1;
    }
    if (!(a >= 1e-4 && a < 1e6)) /* also what is no number, which a page that others wrote may have */
        return (size_t)snprintf(out, LM_FM_FLOAT_TEXT, "%.9g", (double)v);
    if (v < 0)
        out[at++] = '-';
    int whole = (int)floor(
        log10(a)); /* one too small or too large beside a power of ten, which costs or saves a digit */
    for (int digits = DIGITS_MIN; digits <= DIGITS_MAX; digits++) {
        int decimals = digits - 1 - whole;
        if (decimals < 0)
            continue;
        uint64_t n = (uint64_t)llround(a * power[decimals]);
        if (digits == DIGITS_MAX || (float)((double)n / power[decimals]) == (float)a)
            return at + put_decimal(out + at, n, (unsigned)decimals);
    }
    return at;
}
