/* links_names: names and payloads of links (links.h). */
#include "reduce/links.h"

#include "base/alloc.h"
#include "cheetah/scan.h"
#include "reduce/matrix.h"
#include "reduce/payload.h"
#include "reduce/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const metrics[] = {
    [REDUCE_COSINE] = "cosine", [REDUCE_JACCARD] = "jaccard", [REDUCE_PMI] = "pmi"};

static float weight_at(const uint8_t *p)
{
    uint32_t bits = reduce_payload_get32(p);
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The name as text if it is that, else in hexadecimal; cut. */
static const char *shown(const struct cht_entry *e, char text[128])
{
    size_t n = 0;
    bool plain = true;
    for (size_t i = 0; i < e->name_len; i++)
        plain = plain && e->name[i] >= ' ' && e->name[i] < 127;
    for (size_t i = 0; i < e->name_len && n < 120; i++)
        n += (size_t)snprintf(text + n, 128 - n, plain ? "%c" : "%02x", e->name[i]);
    text[n] = 0;
    return text;
}

static enum cht_rc check_entry(struct cht_store *s, const struct cht_entry *e, struct cht_buf *large,
                               bool (*is_ours)(struct cht_str value), struct cht_err *err)
{
    char text[128];
    struct cht_str value = {e->value, e->value_len};
    bool some = (e->flags & CHT_ENTRY_DANGLING) == 0;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_FAIL(err, CHT_CORRUPT, "the value of %s does not match its checksum", shown(e, text));
    if (some && (e->flags & CHT_ENTRY_LARGE) != 0) {
        uint32_t size;
        enum cht_rc rc = cht_store_get(s, e->key, large, &size, err);
        if (rc != CHT_OK && rc != CHT_KEY_NOT_FOUND)
            return rc;
        some = rc == CHT_OK;
        value = (struct cht_str){large->data, large->len};
    }
    if (some && is_ours(value))
        return CHT_OK;
    return CHT_FAIL(err, CHT_NAMES_TAKEN, "the pair %s is in the way: it was not made by this call",
                    shown(e, text));
}

/* ------------------------------------------------------------------------------------------------------------ */

int reduce_links_metric(const char *p, size_t n)
{
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        if (strlen(metrics[i]) == n && memcmp(metrics[i], p, n) == 0)
            return (int)i;
    }
    return -1;
}

const char *reduce_links_metric_name(enum reduce_metric m) { return metrics[m]; }

bool reduce_links_own(struct cht_str name)
{
    static const char *const ours[] = {REDUCE_LINKS,
                                       REDUCE_LINKING,
                                       REDUCE_LINKRUN,
                                       REDUCE_MATRIX,
                                       REDUCE_MATRIX_TRANSPOSED,
                                       REDUCE_MATRIX_NEW,
                                       REDUCE_MATRIX_NEW_TRANSPOSED,
                                       REDUCE_MATRIX_RUN};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        size_t n = strlen(ours[i]);
        if (name.n >= n && memcmp(name.p, ours[i], n) == 0)
            return true;
    }
    return false;
}

bool reduce_links_next(const uint8_t *p, size_t n, size_t *at, uint32_t *left, struct reduce_link *out,
                       bool *malformed)
{
    *malformed = true;
    if (*at == 0) {
        if (n < 3 || p[0] != 1)
            return false;
        *left = reduce_payload_get16(p + 1);
        *at = 3;
    }
    *malformed = false;
    if (*left == 0)
        return false;
    *malformed = true;
    if (n - *at < 2 || n - *at - 2 < (size_t)reduce_payload_get16(p + *at) + 4)
        return false;
    out->name = (struct cht_str){p + *at + 2, reduce_payload_get16(p + *at)};
    out->weight = weight_at(p + *at + 2 + out->name.n);
    *at += 2 + out->name.n + 4;
    (*left)--;
    *malformed = false;
    return true;
}

bool reduce_links_payload(struct cht_str value)
{
    size_t at = 0;
    uint32_t left = 0;
    struct reduce_link link;
    bool malformed = false;
    while (reduce_links_next(value.p, value.n, &at, &left, &link, &malformed))
        continue;
    return !malformed && at == value.n;
}

enum cht_rc reduce_links_check(struct cht_store *s, struct cht_str prefix,
                               bool (*is_ours)(struct cht_str value), const _Atomic bool *cancel,
                               struct cht_err *err)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = prefix, .values = true};
    struct cht_scan *scan = NULL;
    struct cht_buf large = {0};
    struct cht_entry e[64];
    size_t n = 1;
    enum cht_rc rc = cht_scan_open(s, &cfg, &scan, err);
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(scan, e, sizeof e / sizeof *e, &n, err);
        for (size_t i = 0; i < n && rc == CHT_OK; i++)
            rc = check_entry(s, &e[i], &large, is_ours, err);
        if (rc == CHT_OK && cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed))
            rc = CHT_FAIL(err, CHT_CANCELLED, "the run was cancelled");
    }
    cht_scan_close(scan);
    cht_buf_free(&large);
    return rc;
}

size_t reduce_links_put_weight(char *out, float v)
{
    int n = 0;
    for (int digits = 6; /* 9 do for any float */ digits <= 9; digits++) {
        n = snprintf(out, REDUCE_DOUBLE_TEXT, "%.*g", digits, (double)v);
        if (strtof(out, NULL) == v)
            break;
    }
    return (size_t)n;
}
