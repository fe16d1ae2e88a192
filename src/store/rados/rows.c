/* rows: see rows.h. */
#include "store/rados/rows.h"

#include "base/bytes.h"
#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

#define KEY_DIGITS 7

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

size_t cht_row_of_key(uint8_t *out, uint64_t key)
{
    out[0] = 'K';
    for (int i = KEY_DIGITS; i >= 1; i--, key >>= 7)
        out[i] = (uint8_t)(0x80 | (key & 0x7f));
    return CHT_ROW_KEY_SIZE;
}

uint64_t cht_row_key(const uint8_t *row, size_t n)
{
    uint64_t key = 0;
    if (n != CHT_ROW_KEY_SIZE || row[0] != 'K')
        return 0;
    for (int i = 1; i <= KEY_DIGITS; i++) {
        if (row[i] < 0x80)
            return 0;
        key = key << 7 | (row[i] & 0x7f);
    }
    return key <= CHT_KEY_MAX ? key : 0;
}

void cht_row_write(uint8_t *out, const struct cht_row *r)
{
    out[0] = r->flags;
    cht_put64(out + 1, r->key);
    cht_put32(out + 9, r->len);
    cht_put32(out + 13, r->crc);
    if (r->body.n > 0)
        memcpy(out + CHT_ROW_HEAD, r->body.p, r->body.n);
}

bool cht_row_read(const uint8_t *p, size_t n, struct cht_row *out)
{
    if (n < CHT_ROW_HEAD)
        return false;
    *out = (struct cht_row){.flags = p[0],
                            .key = cht_get64(p + 1),
                            .len = cht_get32(p + 9),
                            .crc = cht_get32(p + 13),
                            .body = {p + CHT_ROW_HEAD, n - CHT_ROW_HEAD}};
    if (out->key == 0 || out->key > CHT_KEY_MAX)
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

void cht_row_epoch_write(uint8_t *out, const struct cht_epoch *e)
{
    cht_put32(out, e->epoch);
    cht_put64(out + 4, e->lock);
}

bool cht_row_epoch_read(const uint8_t *p, size_t n, struct cht_epoch *out)
{
    if (n != CHT_ROW_EPOCH_SIZE)
        return false;
    *out = (struct cht_epoch){cht_get32(p), cht_get64(p + 4)};
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
