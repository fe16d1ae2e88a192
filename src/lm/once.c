/* once: see once.h. */
#include "lm/once.h"

#include <string.h>

#include "base/bytes.h"
#include "base/literal.h"
#include "cheetah/scan.h"
#include "lm/names.h"
#include "lm/writer.h"

#define VERSION 1
#define SIZE 57u
#define VERSION_MALFORMED 2 /* older programs refuse it */
#define SIZE_MALFORMED 65u
#define SWEEP_EVERY 1024u /* entries */
#define ENTRIES 256u

static size_t put_name(uint8_t *p, const char *id)
{
    size_t n = strlen(id);
    memcpy(p, LM_ONCE_PREFIX, LM_LENGTH(LM_ONCE_PREFIX));
    memcpy(p + LM_LENGTH(LM_ONCE_PREFIX), id, n);
    return LM_LENGTH(LM_ONCE_PREFIX) + n;
}

static void put_be64(uint8_t *p, uint64_t v) { cht_put64(p, __builtin_bswap64(v)); }

/* Is it an entry, of either version? */
static bool known(const uint8_t *p, size_t n)
{
    return (n == SIZE && p[0] == VERSION) || (n == SIZE_MALFORMED && p[0] == VERSION_MALFORMED);
}

/* Deletes the entries of a page that are old. */
static enum cht_rc drop_old(struct lm_writer *w, const struct cht_entry *e, size_t n, uint64_t now_s)
{
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        bool ours = e[i].value != NULL && known(e[i].value, e[i].value_len);
        if (ours && cht_be64(e[i].value + 1) + LM_ONCE_KEEP_SECONDS < now_s)
            rc = lm_writer_del(w, (struct cht_str){e[i].name, e[i].name_len}, NULL);
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool lm_once_id_valid(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '_' && c != '-')
            return false;
    }
    return n > 0 && n <= LM_ONCE_ID_MAX;
}

enum cht_rc lm_once_find(struct cht_store *s, const char *id, bool *found, struct lm_ngrams_result *out,
                         struct cht_err *err)
{
    struct lm_once o;
    struct cht_buf value = {0};
    struct cht_str name = {o.name, put_name(o.name, id)};
    uint64_t key;
    uint32_t size;
    *found = false;
    enum cht_rc rc = cht_store_pair_value(s, name, &key, &value, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND)
        return CHT_OK;
    if (rc == CHT_OK && (size == 0 || !known(value.data, size)))
        rc = CHT_FAIL(err, CHT_MALFORMED_PAYLOAD, "the entry of once=%s has another layout", id);
    if (rc == CHT_OK) {
        const uint8_t *p = value.data + 9;
        *out = (struct lm_ngrams_result){.documents = cht_be64(p),
                                         .tokens = cht_be64(p + 8),
                                         .ngrams = cht_be64(p + 16),
                                         .contexts_created = cht_be64(p + 24),
                                         .removed = cht_be64(p + 32),
                                         .generation = cht_be64(p + 40),
                                         .repeated = true};
        out->live = out->generation > 0;
        out->malformed = size == SIZE_MALFORMED ? cht_be64(p + 48) : 0;
        *found = true;
    }
    cht_buf_free(&value);
    return rc;
}

void lm_once_op(struct lm_once *o, const char *id, const struct lm_ngrams_result *answer, uint64_t now_s,
                struct cht_op *op)
{
    uint8_t *p = o->value;
    o->name_len = put_name(o->name, id);
    p[0] = answer->malformed > 0 ? VERSION_MALFORMED : VERSION;
    put_be64(p + 1, now_s);
    put_be64(p + 9, answer->documents);
    put_be64(p + 17, answer->tokens);
    put_be64(p + 25, answer->ngrams);
    put_be64(p + 33, answer->contexts_created);
    put_be64(p + 41, answer->removed);
    put_be64(p + 49, answer->generation);
    put_be64(p + SIZE, answer->malformed);
    *op = (struct cht_op){.kind = CHT_OP_PAIR_PUT,
                          .name = {o->name, o->name_len},
                          .value = {p, answer->malformed > 0 ? SIZE_MALFORMED : SIZE}};
}

void lm_once_sweep(struct cht_store *s, uint64_t now_s)
{
    struct cht_str prefix = {(const uint8_t *)LM_ONCE_PREFIX, LM_LENGTH(LM_ONCE_PREFIX)};
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = prefix, .values = true};
    struct cht_scan *scan = NULL;
    uint64_t entries = 0;
    if (cht_store_count(s, prefix, &entries, NULL) != CHT_OK || entries == 0 || entries % SWEEP_EVERY != 0)
        return;
    if (cht_scan_open(s, &cfg, &scan, NULL) != CHT_OK)
        return;
    struct lm_writer w = {.store = s};
    struct cht_entry e[ENTRIES];
    enum cht_rc rc = CHT_OK;
    size_t n = 1;
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(scan, e, ENTRIES, &n, NULL);
        if (rc == CHT_OK)
            rc = drop_old(&w, e, n, now_s);
    }
    cht_scan_close(scan);
    (void)lm_writer_flush(&w, NULL); /* what fails is found the next time */
    lm_writer_free(&w);
}
