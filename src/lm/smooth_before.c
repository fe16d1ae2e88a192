/* smooth_before: what questions read while a run is under way: see view.h. */
#include "lm/names.h"
#include "lm/smooth_int.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/literal.h"
#include "cheetah/scan.h"
#include "lm/view.h"
#include "reduce/payload.h"

#define BATCH 256u
#define AT_ONCE UINT64_C(16384) /* pairs that one commit deletes */

static const struct cht_str before_all = {(const uint8_t *)LM_BEFORE, LM_LENGTH(LM_BEFORE)};

static enum cht_rc copy(struct lm_writer *w, struct cht_str name, const uint8_t *p, size_t n,
                        struct cht_err *err)
{
    enum cht_rc rc;
    uint8_t *v = lm_writer_put(w, name, n, &rc, err);
    if (v == NULL)
        return rc;
    memcpy(v, p, n);
    lm_writer_put_end(w, n);
    return CHT_OK;
}

/* ---- deleting what was kept ----------------------------------------------------------------------------------- */

/* Prefixes that go in one commit. */
struct drops {
    struct cht_op ops[256];
    uint8_t text[256][LM_BEFORE_NAME_MAX];
    size_t n;
    uint64_t pairs;
};

static enum cht_rc drop_noted(struct lm_smooth *s, struct drops *d, struct cht_err *err)
{
    enum cht_rc rc = lm_commit(s->store, d->ops, d->n, CHT_COMMIT_UNORDERED, err);
    d->n = 0;
    d->pairs = 0;
    return rc;
}

static enum cht_rc note(struct lm_smooth *s, struct drops *d, struct cht_str prefix, uint64_t pairs,
                        struct cht_err *err)
{
    bool full = d->n == sizeof d->ops / sizeof *d->ops || (d->n > 0 && d->pairs + pairs > AT_ONCE);
    enum cht_rc rc = full ? drop_noted(s, d, err) : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    memcpy(d->text[d->n], prefix.p, prefix.n);
    d->ops[d->n] =
        (struct cht_op){.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = {d->text[d->n], prefix.n}};
    d->n++;
    d->pairs += pairs;
    return CHT_OK;
}

/* All entries of an order, in commits that keep nobody waiting for long. */
static enum cht_rc drop_order(struct lm_smooth *s, struct drops *d, const char *kind, unsigned order,
                              struct cht_err *err)
{
    uint8_t entry[LM_PREFIX_MAX], text[LM_BEFORE_NAME_MAX];
    uint64_t pairs;
    struct cht_str prefix = lm_before_name((struct cht_str){entry, lm_prefix(kind, order, entry)}, text);
    enum cht_rc rc = cht_store_count(s->store, prefix, &pairs, err);
    if (rc != CHT_OK || pairs <= AT_ONCE)
        return rc == CHT_OK && pairs > 0 ? note(s, d, prefix, pairs, err) : rc;
    prefix.n++; /* parts by the first byte of the context */
    for (unsigned c = 0; c < 256 && rc == CHT_OK; c++) {
        text[prefix.n - 1] = (uint8_t)c;
        rc = cht_store_count(s->store, prefix, &pairs, err);
        if (rc == CHT_OK && pairs > 0)
            rc = note(s, d, prefix, pairs, err);
    }
    return rc;
}

static enum cht_rc drop(struct lm_smooth *s, struct cht_err *err)
{
    uint64_t pairs;
    enum cht_rc rc = cht_store_count(s->store, before_all, &pairs, err);
    if (rc != CHT_OK || pairs == 0)
        return rc;
    struct drops *d = cht_calloc(1, sizeof *d);
    if (d == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a list of prefixes");
    for (unsigned order = 1; order <= LM_ORDER_MAX && rc == CHT_OK; order++) {
        rc = drop_order(s, d, LM_PROB, order, err);
        if (rc == CHT_OK)
            rc = drop_order(s, d, LM_TOPK, order, err);
    }
    if (rc == CHT_OK && d->n > 0)
        rc = drop_noted(s, d, err);
    if (rc == CHT_OK)
        rc = note(s, d, before_all, 1, err); /* what is left: the model */
    if (rc == CHT_OK)
        rc = drop_noted(s, d, err);
    cht_free(d);
    return rc;
}

/* ---- a run that was cut off ------------------------------------------------------------------------------------ */

/* The old value of one entry to its place. */
static enum cht_rc put_back(struct lm_smooth *s, struct lm_writer *w, const struct cht_entry *e,
                            struct cht_err *err)
{
    uint8_t root[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {e->name + before_all.n, e->name_len - before_all.n};
    struct cht_str last = lm_root_name(root);
    struct cht_buf large = {0};
    uint32_t size;
    bool is_last = name.n == last.n && memcmp(name.p, last.p, last.n) == 0;
    bool is_model = CHT_IS(name.p, name.n, "model");
    if (is_last || is_model || name.n == 0)
        return CHT_OK;
    if (e->size <= LM_BEFORE_DAMAGED) /* there was none, or none that could be read */
        return lm_writer_del(w, name, err);
    if ((e->flags & CHT_ENTRY_LARGE) == 0)
        return e->value != NULL ? copy(w, name, e->value, e->value_len, err) : lm_writer_del(w, name, err);
    enum cht_rc rc = cht_store_get(s->store, e->key, &large, &size, err);
    if (rc == CHT_CORRUPT)
        rc = lm_writer_del(w, name, err);
    else if (rc == CHT_OK)
        rc = copy(w, name, large.data, size, err);
    cht_buf_free(&large);
    return rc;
}

static enum cht_rc put_all_back(struct lm_smooth *s, struct lm_writer *w, struct cht_err *err)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = before_all, .values = true};
    struct cht_scan *scan = NULL;
    struct cht_entry *e = cht_malloc(BATCH * sizeof *e);
    size_t n = 1;
    if (e == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
    enum cht_rc rc = cht_scan_open(s->store, &cfg, &scan, err);
    while (rc == CHT_OK && n > 0) {
        if (lm_smooth_cancelled(s))
            rc = CHT_FAIL(err, CHT_CANCELLED, "cancelled");
        else
            rc = cht_scan_next(scan, e, BATCH, &n, err);
        for (size_t i = 0; i < n && rc == CHT_OK; i++)
            rc = put_back(s, w, &e[i], err);
    }
    cht_scan_close(scan);
    cht_free(e);
    return rc == CHT_OK ? lm_writer_flush(w, err) : rc;
}

/* ---- the root -------------------------------------------------------------------------------------------------- */

/* Puts it, or removes it if n is 0: the switch. */
static enum cht_rc put_root(struct lm_smooth *s, const uint8_t *p, size_t n, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_op op = {.kind = n > 0 ? CHT_OP_PAIR_PUT : CHT_OP_PAIR_DEL,
                        .with_values = true,
                        .name = lm_root_name(text),
                        .value = {p, n}};
    enum cht_rc rc = lm_commit(s->store, &op, 1, 0, err);
    if (rc == CHT_PAIR_NOT_FOUND && n == 0)
        rc = CHT_OK;
    lm_view_switched(s->store);
    return rc;
}

/* The root that questions read, without the bytes after its records. Empty: there is none that could answer. */
static enum cht_rc read_root(const struct lm_view *v, struct cht_buf *out, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_pair_value pv = {.out = out};
    struct reduce_payload head;
    enum cht_rc rc = lm_view_read(v, lm_root_name(text), &pv, NULL, err);
    bool none = rc == CHT_PAIR_NOT_FOUND || rc == CHT_CORRUPT || (rc == CHT_OK && pv.size == 0);
    if (rc != CHT_OK && !none)
        return rc;
    if (!none && reduce_payload_probs(out->data, pv.size, pv.size, &head))
        out->len = (size_t)(head.records - out->data) + (size_t)head.n * REDUCE_PAYLOAD_PROBS_RECORD;
    else
        out->len = 0;
    return CHT_OK;
}

/* The model before an earlier run that was cut off is put back; what a complete one left is deleted. */
static enum cht_rc clean_up(struct lm_smooth *s, struct lm_writer *w, struct cht_err *err)
{
    struct lm_view v;
    struct cht_buf root = {0};
    enum cht_rc rc = lm_view_open(&v, s->store, NULL, err);
    if (rc == CHT_OK && v.old) {
        rc = put_all_back(s, w, err);
        if (rc == CHT_OK)
            rc = read_root(&v, &root, err);
        if (rc == CHT_OK)
            rc = put_root(s, root.data, root.len, err);
    }
    cht_buf_free(&root);
    return rc == CHT_OK ? drop(s, err) : rc;
}

/* From here on questions look for old values: first what they find then, durable, then the root that tells them to. */
static enum cht_rc keep_model(struct lm_smooth *s, const struct lm_view *v, struct lm_writer *w,
                              struct cht_err *err)
{
    uint8_t model[LM_BEFORE_MODEL_SIZE] = {1}, text[LM_BEFORE_NAME_MAX], root[LM_PREFIX_MAX + LM_HASH_SIZE];
    unsigned highest = 0;
    uint64_t vocabulary = 0;
    enum cht_rc rc = lm_view_highest(v, &highest, NULL, err);
    if (rc == CHT_OK)
        rc = lm_view_vocabulary(v, &vocabulary, err);
    if (rc != CHT_OK)
        return rc;
    model[1] = (uint8_t)highest;
    cht_put64(model + 2, __builtin_bswap64(vocabulary));
    rc = copy(w, (struct cht_str){(const uint8_t *)LM_BEFORE_MODEL, LM_LENGTH(LM_BEFORE_MODEL)}, model,
              sizeof model, err);
    if (rc == CHT_OK)
        rc = copy(w, lm_before_name(lm_root_name(root), text), s->root.data, s->root.len, err);
    if (rc == CHT_OK)
        rc = lm_writer_flush(w, err);
    if (rc == CHT_OK)
        rc = cht_buf_reserve(&s->root, s->root.len + 1, err);
    if (rc != CHT_OK)
        return rc;
    s->root.data[s->root.len] = 0;
    return put_root(s, s->root.data, s->root.len + 1, err);
}

/* What is kept of an entry that will be changed: `found` and `size` are what reading it to k->value has brought. *keep has no bytes if
 * that failed. */
static enum cht_rc old_value(const struct lm_keeper *k, enum cht_rc found, uint32_t size,
                             struct cht_str *keep)
{
    static const uint8_t none[LM_BEFORE_DAMAGED];
    *keep = (struct cht_str){.n = 0};
    if (found == CHT_PAIR_NOT_FOUND || (found == CHT_OK && size == 0))
        *keep = (struct cht_str){none, LM_BEFORE_NONE};
    else if (found == CHT_CORRUPT || (found == CHT_OK && size <= LM_BEFORE_DAMAGED))
        *keep = (struct cht_str){none, LM_BEFORE_DAMAGED};
    else if (found == CHT_OK)
        *keep = (struct cht_str){k->value.data, size};
    return keep->n > 0 ? CHT_OK : found;
}

/* Entries with other names are not asked for. */
static bool is_asked(const struct lm_smooth *s, struct cht_str name)
{
    return s->keeping && name.n == LM_PREFIX_MAX - 1 + LM_HASH_SIZE;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_smooth_begin(struct lm_smooth *s, struct cht_err *err)
{
    struct lm_writer w = {.store = s->store};
    struct lm_view v;
    enum cht_rc rc = clean_up(s, &w, err);
    if (rc == CHT_OK)
        rc = lm_view_open(&v, s->store, NULL, err);
    if (rc == CHT_OK && v.smoothed)
        rc = read_root(&v, &s->root, err);
    s->keeping = rc == CHT_OK && s->root.len > 0;
    if (s->keeping)
        rc = keep_model(s, &v, &w, err);
    else if (rc == CHT_OK && v.smoothed && s->cfg->lo == 1) /* it answers nothing, and is made anew */
        rc = put_root(s, NULL, 0, err);
    if (rc == CHT_OK && s->cfg->lo == 1)
        s->root.len = 0; /* the new one comes here */
    lm_writer_free(&w);
    return rc;
}

enum cht_rc lm_smooth_put(struct lm_smooth *s, struct lm_keeper *k, struct cht_str name, struct cht_str value,
                          struct cht_err *err)
{
    uint8_t text[LM_BEFORE_NAME_MAX];
    uint64_t key;
    uint32_t size = 0;
    struct cht_str keep;
    if (!is_asked(s, name))
        return copy(k->writer, name, value.p, value.n, err);
    enum cht_rc rc = cht_store_pair_value(s->store, name, &key, &k->value, &size, err);
    if (rc == CHT_OK && size == value.n && memcmp(k->value.data, value.p, size) == 0)
        return CHT_OK;
    rc = old_value(k, rc, size, &keep);
    struct cht_str before = lm_before_name(name, text);
    if (rc == CHT_OK)
        rc = lm_writer_reserve(k->writer, 2, before.n + keep.n + name.n + value.n, err);
    if (rc == CHT_OK)
        rc = copy(k->writer, before, keep.p, keep.n, err);
    return rc == CHT_OK ? copy(k->writer, name, value.p, value.n, err) : rc;
}

enum cht_rc lm_smooth_keep(struct lm_smooth *s, struct lm_keeper *k, struct cht_str name, struct cht_err *err)
{
    uint8_t text[LM_BEFORE_NAME_MAX];
    uint64_t key;
    uint32_t size = 0;
    struct cht_str keep;
    if (!is_asked(s, name))
        return CHT_OK;
    struct cht_str before = lm_before_name(name, text);
    enum cht_rc rc = cht_store_pair(s->store, before, &key, err);
    if (rc !=
        CHT_PAIR_NOT_FOUND) /* if it is there, the run has written the entry, which then lost its counts */
        return rc;
    rc = cht_store_pair_value(s->store, name, &key, &k->value, &size, err);
    rc = old_value(k, rc, size, &keep);
    return rc == CHT_OK ? copy(k->writer, before, keep.p, keep.n, err) : rc;
}

enum cht_rc lm_smooth_remove(struct lm_smooth *s, struct lm_keeper *k, struct cht_str name,
                             struct cht_err *err)
{
    uint8_t text[LM_BEFORE_NAME_MAX];
    uint64_t key;
    enum cht_rc rc = CHT_OK;
    if (is_asked(s, name))
        rc = cht_store_pair(s->store, lm_before_name(name, text), &key, err);
    if (rc == CHT_PAIR_NOT_FOUND) /* it has lost its counts since: the next run removes it */
        return CHT_OK;
    return rc == CHT_OK ? lm_writer_del(k->writer, name, err) : rc;
}

enum cht_rc lm_smooth_switch(struct lm_smooth *s, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (s->cfg->lo == 1 || s->keeping)
        rc = put_root(s, s->root.data, s->root.len, err);
    return rc == CHT_OK && s->keeping ? drop(s, err) : rc;
}

void lm_keeper_free(struct lm_keeper *k) { cht_buf_free(&k->value); }
