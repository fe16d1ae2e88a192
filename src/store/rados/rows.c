/* rows: see rows.h. */
#include "store/rados/rows.h"

#include "base/bytes.h"
#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

#define KEY_DIGITS 7
#define END_DIGITS 8
#define EPOCH_SHORT 12u

size_t cht_row_escape(uint8_t *out, const uint8_t *p, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 2) {
            out[k++] = 1;
            out[k++] = (uint8_t)(p[i] + 1);
        } else {
            out[k++] = p[i];
        }
    }
    return k;
}

size_t cht_row_unescape(uint8_t *out, const uint8_t *p, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == 0 || (p[i] == 1 && (i + 1 == n || p[i + 1] < 1 || p[i + 1] > 2)))
            return SIZE_MAX;
        out[k++] = p[i] == 1 ? (uint8_t)(p[++i] - 1) : p[i];
    }
    return k;
}

/* FNV-1a, 64 bits, folded. */
uint32_t cht_row_bucket(struct cht_str name)
{
    uint64_t h = UINT64_C(1469598103934665603);
    for (size_t i = 0; i < name.n; i++)
        h = (h ^ name.p[i]) * UINT64_C(1099511628211);
    h ^= h >> 32;
    return (uint32_t)((h ^ h >> 16) % CHT_ROW_BUCKETS);
}

bool cht_row_bucket_of(struct cht_str row, uint32_t *bucket)
{
    uint8_t name[CHT_ROW_NAME_MAX];
    if (row.n > 0 && row.p[0] == 'T') {
        struct cht_str escaped;
        if (cht_row_end(row, &escaped) == 0)
            return false;
        size_t len = cht_row_unescape(name, escaped.p, escaped.n);
        *bucket = len != SIZE_MAX ? cht_row_bucket((struct cht_str){name, len}) : 0;
        return len != SIZE_MAX && len > 0 && len <= CHT_NAME_MAX;
    }
    if (row.n == 0 || row.n > CHT_ROW_NAME_MAX)
        return false;
    if (row.p[0] == 'K') {
        uint64_t key = cht_row_key(row.p, row.n);
        *bucket = cht_row_bucket_of_key(key);
        return key != 0;
    }
    size_t n = row.p[0] == 'P' ? cht_row_unescape(name, row.p + 1, row.n - 1) : SIZE_MAX;
    if (n == SIZE_MAX || n == 0 || n > CHT_NAME_MAX)
        return false;
    *bucket = cht_row_bucket((struct cht_str){name, n});
    return true;
}

size_t cht_row_of_name(uint8_t *out, char kind, struct cht_str name)
{
    out[0] = (uint8_t)kind;
    return 1 + cht_row_escape(out + 1, name.p, name.n);
}

/* Digits of 7 bits, each with the high bit set, the highest first. */
static void put_digits(uint8_t *out, uint64_t v, int digits)
{
    for (int i = digits - 1; i >= 0; i--, v >>= 7)
        out[i] = (uint8_t)(0x80 | (v & 0x7f));
}

static bool take_digits(const uint8_t *p, int digits, uint64_t *v)
{
    *v = 0;
    for (int i = 0; i < digits; i++) {
        if (p[i] < 0x80)
            return false;
        *v = *v << 7 | (p[i] & 0x7f);
    }
    return true;
}

size_t cht_row_of_key(uint8_t *out, uint64_t key)
{
    out[0] = 'K';
    put_digits(out + 1, key, KEY_DIGITS);
    return CHT_ROW_KEY_SIZE;
}

uint64_t cht_row_key(const uint8_t *row, size_t n)
{
    uint64_t key;
    if (n != CHT_ROW_KEY_SIZE || row[0] != 'K' || !take_digits(row + 1, KEY_DIGITS, &key))
        return 0;
    return key <= CHT_KEY_MAX ? key : 0;
}

size_t cht_row_of_end(uint8_t *out, uint64_t ends, struct cht_str name_row)
{
    out[0] = 'T';
    put_digits(out + 1, ends, END_DIGITS);
    memcpy(out + 1 + END_DIGITS, name_row.p + 1, name_row.n - 1);
    return END_DIGITS + name_row.n;
}

uint64_t cht_row_end(struct cht_str row, struct cht_str *name)
{
    uint64_t ends;
    if (row.n < 2 + END_DIGITS || row.n > END_DIGITS + CHT_ROW_NAME_MAX || row.p[0] != 'T' ||
        !take_digits(row.p + 1, END_DIGITS, &ends))
        return 0;
    *name = (struct cht_str){row.p + 1 + END_DIGITS, row.n - 1 - END_DIGITS};
    return ends;
}

void cht_row_write(uint8_t *out, const struct cht_row *r)
{
    uint8_t *body = out + CHT_ROW_HEAD;
    out[0] = r->ends != 0 ? (uint8_t)(r->flags | CHT_ROW_ENDS) : r->flags;
    cht_put64(out + 1, r->key);
    cht_put32(out + 9, r->len);
    cht_put32(out + 13, r->crc);
    if (r->ends != 0) {
        cht_put64(body, r->ends);
        body += 8;
    }
    if (r->body.n > 0)
        memcpy(body, r->body.p, r->body.n);
}

bool cht_row_read(const uint8_t *p, size_t n, struct cht_row *out)
{
    size_t head = CHT_ROW_HEAD;
    if (n < head)
        return false;
    bool ends = (p[0] & CHT_ROW_ENDS) != 0;
    head += ends ? 8 : 0;
    if (n < head)
        return false;
    *out = (struct cht_row){.flags = p[0] & (uint8_t)~CHT_ROW_ENDS,
                            .key = cht_get64(p + 1),
                            .len = cht_get32(p + 9),
                            .crc = cht_get32(p + 13),
                            .body = {p + head, n - head},
                            .ends = ends ? cht_get64(p + CHT_ROW_HEAD) : 0};
    if (out->key == 0 || out->key > CHT_KEY_MAX || (ends && (out->ends == 0 || out->flags == CHT_ROW_NAME)))
        return false;
    switch (out->flags) {
    case 0:
        return out->body.n == 0 && out->len == 0;
    case CHT_ROW_VALUE:
        return out->body.n == out->len && out->len > 0;
    case CHT_ROW_PARTS:
        return out->body.n == 8 && out->len > 0;
    case CHT_ROW_NAME:
        return out->body.n > 0 && out->body.n <= CHT_NAME_MAX && out->len == 0;
    default:
        return false;
    }
}

uint32_t cht_row_crc(uint64_t key, struct cht_str value) { return cht_crc32c_keyed(key, value.p, value.n); }

void cht_row_of_generation(uint8_t *out, char kind, uint64_t generation)
{
    out[0] = (uint8_t)kind;
    put_digits(out + 1, generation, END_DIGITS);
}

uint64_t cht_row_generation(struct cht_str row)
{
    uint64_t generation;
    bool good = row.n >= CHT_ROW_GENERATION && take_digits(row.p + 1, END_DIGITS, &generation);
    return good ? generation : 0;
}

size_t cht_row_of_change(uint8_t *out, uint64_t generation, struct cht_str row)
{
    cht_row_of_generation(out, 'L', generation);
    memcpy(out + CHT_ROW_GENERATION, row.p, row.n);
    if (row.p[0] == 'K')
        out[CHT_ROW_GENERATION] = CHT_ROW_CHANGED_VALUE;
    return CHT_ROW_GENERATION + row.n;
}

void cht_row_changed_write(uint8_t *out, bool there, uint64_t key)
{
    out[0] = there;
    cht_put64(out + 1, key);
}

bool cht_row_changed_read(struct cht_str row, struct cht_str value, struct cht_changed *out)
{
    uint32_t bucket;
    if (row.n <= CHT_ROW_GENERATION || row.p[0] != 'L' || value.n != CHT_ROW_CHANGED_SIZE || value.p[0] > 1)
        return false;
    *out = (struct cht_changed){.generation = cht_row_generation(row),
                                .row = {row.p + CHT_ROW_GENERATION, row.n - CHT_ROW_GENERATION},
                                .there = value.p[0] == 1,
                                .key = cht_get64(value.p + 1)};
    if (out->row.p[0] == CHT_ROW_CHANGED_VALUE)
        return out->generation != 0 && out->row.n == CHT_ROW_KEY_SIZE && out->key != 0 &&
               out->key <= CHT_KEY_MAX;
    return out->generation != 0 && out->row.p[0] == 'P' && cht_row_bucket_of(out->row, &bucket);
}

size_t cht_row_epoch_write(uint8_t *out, const struct cht_epoch *e)
{
    cht_put32(out, e->epoch);
    cht_put64(out + 4, e->lock);
    if (e->generation == 0)
        return EPOCH_SHORT;
    cht_put64(out + EPOCH_SHORT, e->generation);
    return CHT_ROW_EPOCH_SIZE;
}

bool cht_row_epoch_read(const uint8_t *p, size_t n, struct cht_epoch *out)
{
    if (n != EPOCH_SHORT && n != CHT_ROW_EPOCH_SIZE)
        return false;
    *out =
        (struct cht_epoch){cht_get32(p), cht_get64(p + 4), n > EPOCH_SHORT ? cht_get64(p + EPOCH_SHORT) : 0};
    return true;
}

int64_t cht_row_number(struct cht_str value)
{
    char text[32] = "";
    if (value.p == NULL || value.n >= sizeof text)
        return 0;
    memcpy(text, value.p, value.n);
    return (int64_t)strtod(text, NULL);
}

unsigned cht_row_counted(struct cht_str name, size_t lengths[3])
{
    unsigned n = 1;
    lengths[0] = 0;
    for (size_t i = 0; i < name.n && n < 3; i++) {
        if (name.p[i] == ':')
            lengths[n++] = i + 1;
    }
    return n;
}

bool cht_row_is_counted(struct cht_str prefix)
{
    size_t lengths[3];
    unsigned n = cht_row_counted(prefix, lengths);
    return lengths[n - 1] == prefix.n;
}
