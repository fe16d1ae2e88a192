/* smooth_stale: removes what an earlier run left for contexts that have no counts any more. The number of pairs under a
 * prefix is known without a scan: if it is not above what this run wrote, nothing can be stale. */
#include "lm/names.h"
#include "lm/smooth_int.h"
#include "lm/view.h"

#include <string.h>

#include "base/alloc.h"
#include "cheetah/scan.h"
#include "reduce/payload.h"

#define BATCH 256u

/* A scan over a prefix, an entry at a time. */
struct cursor {
    struct cht_scan *scan;     /* owned */
    struct cht_entry *entries; /* owned: BATCH */
    size_t n, at, skip;        /* skip: bytes of the prefix */
    bool end;
};

static enum cht_rc cursor_open(struct cursor *c, struct cht_store *s, struct cht_str prefix, bool values,
                               struct cht_err *err)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = prefix, .values = values};
    *c = (struct cursor){.skip = prefix.n};
    c->entries = cht_malloc(BATCH * sizeof *c->entries);
    if (c->entries == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
    return cht_scan_open(s, &cfg, &c->scan, err);
}

static void cursor_close(struct cursor *c)
{
    cht_scan_close(c->scan);
    cht_free(c->entries);
}

/* The next entry is entries[at]; end if there is none. */
static enum cht_rc cursor_next(struct cursor *c, struct cht_err *err)
{
    if (++c->at < c->n)
        return CHT_OK;
    c->at = 0;
    enum cht_rc rc = cht_scan_next(c->scan, c->entries, BATCH, &c->n, err);
    c->end = rc == CHT_OK && c->n == 0;
    return rc;
}

static struct cht_str suffix(const struct cursor *c)
{
    const struct cht_entry *e = &c->entries[c->at];
    return (struct cht_str){e->name + c->skip, e->name_len - c->skip};
}

static int compare(struct cht_str a, struct cht_str b)
{
    int d = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return d != 0 ? d : (a.n > b.n) - (a.n < b.n);
}

/* What is done with a name that is stale. */
typedef enum cht_rc stale_fn(struct lm_smooth *s, struct lm_keeper *k, struct cht_str name,
                             struct cht_err *err);

/* Both in byte order: what `old` has and `counts` has not (or with a total of 0) is stale. */
static enum cht_rc merge(struct lm_smooth *s, struct cursor *old, struct cursor *counts, struct lm_keeper *k,
                         stale_fn *stale, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str root = lm_root_name(text);
    struct lm_counts followers = {0};
    struct cht_buf value = {0};
    enum cht_rc rc = cursor_next(old, err);
    if (rc == CHT_OK)
        rc = cursor_next(counts, err);
    while (rc == CHT_OK && !old->end) {
        int d = counts->end ? -1 : compare(suffix(old), suffix(counts));
        uint64_t total = 1;
        if (d > 0) {
            rc = lm_smooth_cancelled(s) ? CHT_CANCELLED : cursor_next(counts, err);
            continue;
        }
        if (d == 0)
            rc = lm_entry_counts(s->store, &counts->entries[counts->at], &value, &followers, &total, err);
        if (rc == CHT_MALFORMED_PAYLOAD || rc == CHT_CORRUPT) /* as if there were none: total is 0 */
            rc = CHT_OK;
        const struct cht_entry *e = &old->entries[old->at];
        struct cht_str name = {e->name, e->name_len};
        if (rc == CHT_OK && (d < 0 || total == 0) && compare(name, root) != 0) /* which goes last */
            rc = stale(s, k, name, err);
        if (rc == CHT_OK && lm_smooth_cancelled(s))
            rc = CHT_FAIL(err, CHT_CANCELLED, "cancelled");
        if (rc == CHT_OK)
            rc = cursor_next(old, err);
    }
    lm_counts_free(&followers);
    cht_buf_free(&value);
    return rc == CHT_OK ? lm_writer_flush(k->writer, err) : rc;
}

static enum cht_rc both(struct lm_smooth *s, struct cht_str prefix, struct cht_str counts_prefix,
                        struct lm_keeper *k, stale_fn *stale, struct cht_err *err)
{
    struct cursor old, counts = {0};
    enum cht_rc rc = cursor_open(&old, s->store, prefix, false, err);
    if (rc == CHT_OK)
        rc = cursor_open(&counts, s->store, counts_prefix, true, err);
    if (rc == CHT_OK)
        rc = merge(s, &old, &counts, k, stale, err);
    cursor_close(&old);
    cursor_close(&counts);
    return rc;
}

static enum cht_rc stale_kind(struct lm_smooth *s, const char *kind, unsigned order, uint64_t written,
                              struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX], counts_text[LM_PREFIX_MAX];
    struct cht_str prefix = {text, lm_prefix(kind, order, text)};
    struct cht_str counts_prefix = {counts_text, lm_prefix(LM_CNT, order, counts_text)};
    uint64_t pairs;
    enum cht_rc rc = cht_store_count(s->store, prefix, &pairs, err);
    if (rc != CHT_OK || pairs <= written)
        return rc;
    struct lm_writer w = {.store = s->store};
    struct lm_keeper k = {.writer = &w};
    if (s->keeping)
        rc = both(s, prefix, counts_prefix, &k, lm_smooth_keep, err);
    if (rc == CHT_OK)
        rc = both(s, prefix, counts_prefix, &k, lm_smooth_remove, err);
    lm_writer_free(&w);
    lm_keeper_free(&k);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_smooth_stale_order(struct lm_smooth *s, unsigned order, uint64_t written, struct cht_err *err)
{
    enum cht_rc rc = stale_kind(s, LM_PROB, order, written, err);
    return rc == CHT_OK ? stale_kind(s, LM_TOPK, order, written, err) : rc;
}

enum cht_rc lm_smooth_stale_cont(struct lm_smooth *s, struct cht_err *err)
{
    struct cht_str prefix = {(const uint8_t *)LM_CONT, LM_LENGTH(LM_CONT)};
    uint64_t pairs;
    enum cht_rc rc = cht_store_count(s->store, prefix, &pairs, err);
    if (rc != CHT_OK || pairs <= s->continuing)
        return rc;
    struct cursor old;
    struct lm_writer w = {.store = s->store};
    rc = cursor_open(&old, s->store, prefix, false, err);
    if (rc == CHT_OK)
        rc = cursor_next(&old, err);
    while (rc == CHT_OK && !old.end) {
        struct cht_str token = suffix(&old);
        const struct lm_word *word =
            token.n == 4 ? lm_vocab_find(&s->vocab, reduce_payload_get32(token.p)) : NULL;
        const struct cht_entry *e = &old.entries[old.at];
        if (word == NULL || word->contexts == 0)
            rc = lm_writer_del(&w, (struct cht_str){e->name, e->name_len}, err);
        if (rc == CHT_OK && lm_smooth_cancelled(s))
            rc = CHT_FAIL(err, CHT_CANCELLED, "cancelled");
        if (rc == CHT_OK)
            rc = cursor_next(&old, err);
    }
    if (rc == CHT_OK)
        rc = lm_writer_flush(&w, err);
    cursor_close(&old);
    lm_writer_free(&w);
    return rc;
}
