/* links_rows: reading of counts payloads as rows (links_int.h): the survey, blocks of rows. */
#include "reduce/links_int.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "cheetah/scan.h"

#include <math.h>
#include <string.h>

/* ---- the cursor --------------------------------------------------------------------------------------------------- */

enum cht_rc reduce_links_open(struct reduce_links_cursor *c, struct reduce_links *l, struct cht_str prefix,
                              struct cht_str after, struct cht_err *err)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = prefix, .after = after, .values = true};
    c->l = l;
    enum cht_rc rc = cht_scan_open(l->run.store, &cfg, &c->scan, err);
    return rc == CHT_OK ? reduce_links_step(c, err) : rc;
}

void reduce_links_close(struct reduce_links_cursor *c)
{
    cht_scan_close(c->scan);
    cht_buf_free(&c->bytes);
    if (c->l != NULL)
        reduce_vector_free(&c->l->run, &c->row);
    *c = (struct reduce_links_cursor){0};
}

/* The value of an entry; *some false if it has none. */
static enum cht_rc value_of(struct reduce_links_cursor *c, const struct cht_entry *e, bool *some,
                            struct cht_err *err)
{
    *some = (e->flags & CHT_ENTRY_DANGLING) == 0;
    c->value = (struct cht_str){e->value, e->value_len};
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_FAIL(err, CHT_CORRUPT, "the value of key %llu does not match its checksum",
                        (unsigned long long)e->key);
    if ((e->flags & CHT_ENTRY_LARGE) == 0)
        return CHT_OK;
    uint32_t size;
    enum cht_rc rc = cht_store_get(c->l->run.store, e->key, &c->bytes, &size, err);
    *some = rc == CHT_OK;
    c->value = (struct cht_str){c->bytes.data, c->bytes.len};
    return rc == CHT_KEY_NOT_FOUND ? CHT_OK : rc;
}

enum cht_rc reduce_links_step(struct reduce_links_cursor *c, struct cht_err *err)
{
    struct reduce_payload in;
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && !c->end) {
        if (reduce_links_cancelled(c->l))
            return CHT_FAIL(err, CHT_CANCELLED, "the links were cancelled");
        if (c->at == c->n) {
            c->at = 0;
            rc = cht_scan_next(c->scan, c->entries, sizeof c->entries / sizeof *c->entries, &c->n, err);
            c->end = rc == CHT_OK && c->n == 0;
            continue;
        }
        const struct cht_entry *e = &c->entries[c->at++];
        bool some;
        c->name = (struct cht_str){e->name, e->name_len};
        if (reduce_links_own(c->name))
            continue;
        rc = value_of(c, e, &some, err);
        if (rc != CHT_OK || !some)
            continue;
        if (!reduce_payload_counts(c->value.p, c->value.n, c->value.n, &in)) {
            c->malformed++;
        } else if (c->name.n > CHT_NAME_MAX - REDUCE_LINKS_NAME_EXTRA) {
            c->too_long++;
        } else {
            return reduce_vector_read(&c->l->run, &c->row, &in, err);
        }
    }
    return rc;
}

/* ---- the survey --------------------------------------------------------------------------------------------------- */

static bool under(struct cht_str name, struct cht_str prefix)
{
    return prefix.n == 0 || (name.n >= prefix.n && memcmp(name.p, prefix.p, prefix.n) == 0);
}

static void extend(struct reduce_links_extent *x, struct cht_str name, size_t terms)
{
    x->rows++;
    x->terms += terms;
    x->text += name.n;
    x->longest_row = terms > x->longest_row ? (uint32_t)terms : x->longest_row;
    x->longest_name = name.n > x->longest_name ? (uint32_t)name.n : x->longest_name;
}

static enum cht_rc count_tokens(struct reduce_links *l, const struct reduce_vector *row, struct cht_err *err)
{
    for (size_t i = 0; i < row->n; i++) {
        if (row->terms[i].count == 0)
            continue;
        uint64_t *v = reduce_tokens_enter(&l->run, &l->tokens, row->terms[i].token, err);
        if (v == NULL)
            return CHT_NO_MEMORY;
        *v += row->terms[i].count;
        l->total += row->terms[i].count;
    }
    return CHT_OK;
}

static enum cht_rc survey_under(struct reduce_links *l, struct cht_str prefix, struct cht_err *err)
{
    struct reduce_links_cursor c = {0};
    enum cht_rc rc = reduce_links_open(&c, l, prefix, (struct cht_str){0}, err);
    while (rc == CHT_OK && !c.end) {
        l->digest = reduce_mix_bytes(reduce_mix_bytes(l->digest, c.name), c.value);
        if (under(c.name, l->cfg->prefix))
            extend(&l->left, c.name, c.row.n);
        if (under(c.name, l->to))
            extend(&l->right, c.name, c.row.n);
        if (l->cfg->metric == REDUCE_PMI)
            rc = count_tokens(l, &c.row, err);
        if (l->cfg->progress != NULL)
            atomic_fetch_add_explicit(&l->cfg->progress->done, 1, memory_order_relaxed);
        if (rc == CHT_OK)
            rc = reduce_links_step(&c, err);
    }
    l->result->malformed += c.malformed;
    l->result->too_long += c.too_long;
    reduce_links_close(&c);
    return rc;
}

/* Both sides, each payload once: one prefix is a part of the other, or nothing is under both. */
enum cht_rc reduce_links_survey(struct reduce_links *l, struct cht_err *err)
{
    const struct reduce_links_config *cfg = l->cfg;
    uint64_t min;
    memcpy(&min, &cfg->min, sizeof min);
    l->digest = reduce_mix(reduce_mix(reduce_mix(1, cfg->k), min), (uint64_t)cfg->metric);
    l->digest = reduce_mix_bytes(reduce_mix_bytes(l->digest, cfg->prefix), l->to);
    if (under(l->to, cfg->prefix))
        return survey_under(l, cfg->prefix, err);
    if (under(cfg->prefix, l->to))
        return survey_under(l, l->to, err);
    enum cht_rc rc = survey_under(l, cfg->prefix, err);
    return rc == CHT_OK ? survey_under(l, l->to, err) : rc;
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

enum cht_rc reduce_links_rows_room(struct reduce_links *l, struct reduce_links_rows *r, uint64_t rows,
                                   uint64_t terms, uint64_t text, struct cht_err *err)
{
    reduce_links_rows_free(l, r);
    if (rows > UINT32_MAX - 1)
        rows = UINT32_MAX - 1;
    uint64_t bytes = (rows + 1) * (sizeof *r->start + sizeof *r->name_at + sizeof *r->square) +
                     (terms + 1) * (sizeof *r->token + sizeof *r->weight) + text + 1;
    enum cht_rc rc = reduce_take_memory(&l->run, bytes, err);
    if (rc != CHT_OK)
        return rc;
    r->booked = bytes;
    r->start = cht_malloc((rows + 1) * sizeof *r->start);
    r->name_at = cht_malloc((rows + 1) * sizeof *r->name_at);
    r->square = cht_malloc((rows + 1) * sizeof *r->square);
    r->token = cht_malloc((terms + 1) * sizeof *r->token);
    r->weight = cht_malloc((terms + 1) * sizeof *r->weight);
    r->names = cht_malloc(text + 1);
    if (r->start == NULL || r->name_at == NULL || r->square == NULL || r->token == NULL ||
        r->weight == NULL || r->names == NULL) {
        reduce_links_rows_free(l, r);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %llu contexts", (unsigned long long)rows);
    }
    r->cap = (uint32_t)rows;
    r->term_cap = terms;
    r->text_cap = text;
    r->start[0] = r->name_at[0] = 0;
    return CHT_OK;
}

void reduce_links_rows_free(struct reduce_links *l, struct reduce_links_rows *r)
{
    cht_free(r->start);
    cht_free(r->name_at);
    cht_free(r->square);
    cht_free(r->token);
    cht_free(r->weight);
    cht_free(r->names);
    reduce_give_memory(&l->run, r->booked);
    *r = (struct reduce_links_rows){0};
}

/* The weight of one term; 0: it says nothing. */
static double weigh(const struct reduce_links *l, const struct reduce_term *t, double row_total)
{
    if (l->cfg->metric == REDUCE_JACCARD)
        return 1.0;
    if (l->cfg->metric == REDUCE_COSINE || t->count == 0)
        return (double)t->count;
    uint64_t all = reduce_tokens_value(&l->tokens, t->token);
    if (all == 0) /* counted since the survey */
        return 0.0;
    double pmi = log2((double)t->count * (double)l->total / (row_total * (double)all));
    return pmi > 0.0 ? pmi : 0.0;
}

static void add_row(const struct reduce_links *l, struct reduce_links_rows *r,
                    const struct reduce_links_cursor *c)
{
    uint64_t at = r->start[r->n];
    double total = 0.0, square = 0.0;
    for (size_t i = 0; i < c->row.n; i++)
        total += (double)c->row.terms[i].count;
    for (size_t i = 0; i < c->row.n; i++) {
        double w = weigh(l, &c->row.terms[i], total);
        if (!(w > 0.0))
            continue;
        r->token[at] = c->row.terms[i].token;
        r->weight[at++] = w;
        square += w * w;
    }
    memcpy(r->names + r->name_at[r->n], c->name.p, c->name.n);
    r->square[r->n] = l->cfg->metric == REDUCE_COSINE ? (double)c->row.norm : square;
    r->n++;
    r->start[r->n] = at;
    r->name_at[r->n] = r->name_at[r->n - 1] + c->name.n;
}

enum cht_rc reduce_links_fill(struct reduce_links *l, struct reduce_links_rows *r,
                              struct reduce_links_cursor *c, uint32_t most, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    r->n = 0;
    while (rc == CHT_OK && !c->end && r->n < most) {
        bool fits = r->n < r->cap && r->start[r->n] + c->row.n <= r->term_cap &&
                    r->name_at[r->n] + c->name.n <= r->text_cap;
        if (!fits && r->n > 0)
            break;
        if (!fits)
            rc = reduce_links_rows_room(l, r, 1, c->row.n, c->name.n, err);
        if (rc == CHT_OK) {
            add_row(l, r, c);
            rc = reduce_links_step(c, err);
        }
    }
    return rc;
}

int reduce_links_compare(struct cht_str a, struct cht_str b)
{
    int d = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return d != 0 ? d : (a.n > b.n) - (a.n < b.n);
}
