/* kn_arpa: see kn_arpa.h. */
#include "lm/kn_arpa.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/literal.h"
#include "cheetah/scan.h"
#include "lm/kn_ask.h"
#include "lm/words.h"
#include "reduce/text.h"

#pragma STDC FP_CONTRACT OFF

#define PIECE 65536u /* bytes handed over together */
#define LINE_MAX_BYTES \
    (256u + LM_ORDER_MAX * (LM_WORD_MAX + 1)) /* of one n-gram: two numbers and LM_ORDER_MAX words */
#define ENTRIES 64u

struct writer {
    struct lm_kn_reader *r;
    lm_kn_arpa_sink *sink;
    void *ctx;
    char text[PIECE + LINE_MAX_BYTES];
    size_t n;
    uint32_t token[LM_ORDER_MAX];               /* the n-gram: its context, and the follower */
    struct lm_kn_level chain[LM_ORDER_MAX + 1]; /* of its context, by order from 2 */
    struct lm_kn_record deepest;                /* of the context itself, of which it is a follower */
    double gamma;                               /* its weight of the order below */
    unsigned order;
    struct cht_buf value, weight, word;
    bool words;
    enum cht_rc rc; /* of the first word that could not be written */
    struct cht_err *err;
};

static enum cht_rc flush(struct writer *w)
{
    bool wanted = w->n == 0 || w->sink(w->ctx, w->text, w->n);
    w->n = 0;
    return wanted ? CHT_OK : CHT_FAIL(w->err, CHT_CANCELLED, "cancelled");
}

static enum cht_rc end_line(struct writer *w)
{
    w->text[w->n++] = '\n';
    if (w->rc != CHT_OK)
        return w->rc;
    return w->n >= PIECE ? flush(w) : CHT_OK;
}

static void put_text(struct writer *w, const char *s)
{
    size_t n = strlen(s);
    memcpy(w->text + w->n, s, n);
    w->n += n;
}

static void put_float(struct writer *w, float v) { w->n += lm_fm_put_float(w->text + w->n, v); }

/* As a float, which is what readers of such a text keep: what is read in and written again is the same. */
static void put_log10(struct writer *w, double p)
{
    double v = p > 0 ? log10(p) : LM_KN_LOG10_ZERO;
    put_float(w, v < 0 ? (float)v : 0.0F);
}

/* Has the word a meaning of its own in the format, or a byte that ends a text for its readers? */
static bool is_unfit(const uint8_t *p, size_t n)
{
    return CHT_IS(p, n, "<s>") || CHT_IS(p, n, "</s>") || CHT_IS(p, n, "<unk>") || CHT_IS(p, n, "<UNK>") ||
           memchr(p, 0, n) != NULL;
}

/* The token's word of the vocabulary. */
static void put_spelled(struct writer *w, uint32_t token)
{
    if (w->rc != CHT_OK)
        return;
    enum cht_rc rc = lm_word_text(w->r->store, token, &w->word, w->err);
    if (rc == CHT_PAIR_NOT_FOUND)
        rc = CHT_FAIL(w->err, CHT_NO_WORD, "token %" PRIu32 " has no word in the vocabulary", token);
    else if (rc == CHT_OK && (w->word.len > LM_WORD_MAX || is_unfit(w->word.data, w->word.len)))
        rc =
            CHT_FAIL(w->err, CHT_NO_WORD, "the word of token %" PRIu32 " cannot stand in this format", token);
    w->rc = rc;
    if (rc == CHT_OK) {
        memcpy(w->text + w->n, w->word.data, w->word.len);
        w->n += w->word.len;
    }
}

static void put_word(struct writer *w, uint32_t token)
{
    const struct lm_kn_head *h = &w->r->head;
    const struct lm_fm_head *f = &w->r->fixed;
    if (f->order > 0 && (f->flags & LM_FM_UNK) != 0 && token == f->unk)
        put_text(w, "<unk>");
    else if (token == h->bos)
        put_text(w, "<s>");
    else if ((h->flags & LM_KN_EOS) != 0 && token == h->eos)
        put_text(w, "</s>");
    else if (w->words)
        put_spelled(w, token);
    else
        w->n += reduce_put_u64(w->text + w->n, token);
}

/* The weight of the n-gram of w->order tokens as a context. It is read once only, so it is not kept. */
static enum cht_rc put_weight(struct writer *w)
{
    unsigned order = w->order + 1;
    if (w->order == w->r->head.order)
        return CHT_OK;
    uint8_t text[LM_KN_NAME_MAX];
    struct cht_str name = {text, lm_kn_name(order, w->token + w->order, text)};
    struct lm_kn_record rec;
    uint64_t key;
    uint32_t size;
    enum cht_rc rc = cht_store_pair_value(w->r->store, name, &key, &w->weight, &size, w->err);
    put_text(w, "\t");
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0)) {
        put_text(w, "0");
        return CHT_OK;
    }
    if (rc != CHT_OK)
        return rc;
    if (!lm_kn_record_read(order, w->weight.data, size, &rec))
        return lm_malformed(name, size, "record of a live model", w->err);
    put_log10(w, lm_kn_gamma(w->r, order, &rec));
    return CHT_OK;
}

/* One n-gram: w->token, whose last one has the count a in the record of the context itself. */
static enum cht_rc put_gram(struct writer *w, uint32_t a1, uint32_t a)
{
    struct lm_kn_reader *r = w->r;
    uint32_t last = w->token[w->order - 1];
    double p = lm_kn_share(r, &r->root, a1) + r->root.gamma * r->p0;
    for (unsigned m = 2; m < w->order; m++) {
        const struct lm_kn_level *l = &w->chain[m];
        p = lm_kn_share(r, l, lm_kn_find(r, l, last)) + l->gamma * p;
    }
    if (w->order > 1)
        p = lm_kn_share_of(r, w->order, w->deepest.total, a) + w->gamma * p;
    put_log10(w, p);
    for (unsigned i = 0; i < w->order; i++) {
        put_text(w, i == 0 ? "\t" : " ");
        put_word(w, w->token[i]);
    }
    enum cht_rc rc = put_weight(w);
    return rc == CHT_OK ? end_line(w) : rc;
}

/* ---- sections ---------------------------------------------------------------------------------------------------- */

/* The levels between the root and the context itself. */
static enum cht_rc read_chain(struct writer *w)
{
    enum cht_rc rc = CHT_OK;
    uint32_t chain = 0;
    lm_kn_spare(w->r);
    for (unsigned m = 2; m < w->order && rc == CHT_OK; m++) {
        const struct lm_kn_level *l;
        rc = lm_kn_level_next(w->r, m, w->token + w->order - 1, &chain, &l, w->err);
        if (rc == CHT_OK && !l->there)
            rc = CHT_FAIL(w->err, CHT_MALFORMED_PAYLOAD,
                          "a context of the live model has no record, but a longer one has");
        if (rc == CHT_OK)
            w->chain[m] = *l;
    }
    return rc;
}

/* All followers of one record. */
static enum cht_rc put_record(struct writer *w, struct cht_str name, const uint8_t *p, size_t n)
{
    struct lm_kn_walk walk;
    if (name.n != 5 + 4 * (size_t)(w->order == 1 ? 1 : w->order - 1) ||
        !lm_kn_record_read(w->order, p, n, &w->deepest) || !lm_kn_record_sound(&w->deepest))
        return lm_malformed(name, n, "record of a live model", w->err);
    for (unsigned i = 0; i + 1 < w->order; i++)
        w->token[w->order - 2 - i] = cht_be32(name.p + 5 + 4 * i);
    w->gamma = lm_kn_gamma(w->r, w->order, &w->deepest);
    enum cht_rc rc = read_chain(w);
    lm_kn_walk_begin(&walk, &w->deepest);
    while (rc == CHT_OK && lm_kn_walk_next(&walk)) {
        uint32_t a1 = walk.a;
        w->token[w->order - 1] = walk.token;
        if (w->order == 1 && (w->r->head.flags & LM_KN_EOS) != 0 && walk.token == w->r->head.eos)
            continue; /* it was put before */
        if (w->order > 1)
            rc = lm_kn_root_count(w->r, walk.token, &a1, w->err);
        if (rc == CHT_OK)
            rc = put_gram(w, a1, walk.a);
    }
    return rc;
}

/* One n-gram of a fixed model: w->token. */
static enum cht_rc put_entry_line(struct writer *w, const struct lm_fm_entry *e)
{
    put_float(w, e->p);
    for (unsigned i = 0; i < w->order; i++) {
        put_text(w, i == 0 ? "\t" : " ");
        put_word(w, w->token[i]);
    }
    if (w->order < w->r->fixed.order) {
        put_text(w, "\t");
        put_float(w, e->backoff);
    }
    return end_line(w);
}

/* Is it put in front of the other 1-grams? */
static bool is_special(const struct lm_fm_head *f, uint32_t token)
{
    return token == f->bos || token == f->eos || token == f->unk;
}

/* All n-grams of one page of a fixed model. */
static enum cht_rc put_page(struct writer *w, struct cht_str name, const uint8_t *p, size_t n)
{
    const struct lm_fm_head *f = &w->r->fixed;
    struct lm_fm_page page;
    if (name.n != 5 + 4 * (size_t)w->order || !lm_fm_page_read(w->order, f->order, p, n, &page))
        return lm_malformed(name, n, "page of a fixed model", w->err);
    for (unsigned i = 0; i + 1 < w->order; i++)
        w->token[w->order - 2 - i] = cht_be32(name.p + 5 + 4 * i);
    enum cht_rc rc = CHT_OK;
    for (uint32_t i = 0; i < page.n && rc == CHT_OK; i++) {
        struct lm_fm_entry e = lm_fm_entry(&page, i);
        w->token[w->order - 1] = e.token;
        if (w->order > 1 || !is_special(f, e.token))
            rc = put_entry_line(w, &e);
    }
    return rc;
}

static enum cht_rc put_entry(struct writer *w, const struct cht_entry *e)
{
    struct cht_str name = {e->name, e->name_len};
    const uint8_t *p = e->value;
    uint32_t size = e->value_len;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_FAIL(w->err, CHT_CORRUPT, "a record of the model does not match its checksum");
    if ((e->flags & CHT_ENTRY_LARGE) != 0) {
        enum cht_rc rc = cht_store_get(w->r->store, e->key, &w->value, &size, w->err);
        if (rc != CHT_OK)
            return rc;
        p = w->value.data;
    }
    if (p == NULL)
        return lm_malformed(name, 0, "record of a model", w->err);
    return w->r->fixed.order > 0 ? put_page(w, name, p, size) : put_record(w, name, p, size);
}

static enum cht_rc put_section(struct writer *w, const _Atomic bool *cancel)
{
    uint8_t prefix[LM_FM_NAME_MAX];
    struct cht_entry e[ENTRIES];
    struct cht_scan *sc;
    size_t n = 1;
    size_t len = w->r->fixed.order > 0 ? lm_fm_section(w->order, prefix) : lm_kn_prefix(w->order, prefix);
    const struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = {prefix, len}, .values = true};
    enum cht_rc rc = cht_scan_open(w->r->store, &cfg, &sc, w->err);
    if (rc != CHT_OK)
        return rc;
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(sc, e, ENTRIES, &n, w->err);
        for (size_t i = 0; i < n && rc == CHT_OK; i++)
            rc = put_entry(w, &e[i]);
        if (rc == CHT_OK && cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed))
            rc = CHT_FAIL(w->err, CHT_CANCELLED, "cancelled");
    }
    cht_scan_close(sc);
    return rc;
}

/* A word of its own: with the weight of what follows it if `weight`, else 0. */
static enum cht_rc put_special(struct writer *w, double p, const char *word, bool weight)
{
    put_log10(w, p);
    put_text(w, "\t");
    put_text(w, word);
    if (weight) {
        w->order = 1;
        w->token[0] = w->r->head.bos;
        enum cht_rc rc = put_weight(w);
        if (rc != CHT_OK)
            return rc;
    } else if (w->r->head.order > 1) {
        put_text(w, "\t0");
    }
    return end_line(w);
}

/* How often eos was counted; if it is set and never was, it is written all the same: KenLM refuses a file without it. */
static enum cht_rc count_eos(struct writer *w, uint32_t *a)
{
    const struct lm_kn_head *h = &w->r->head;
    *a = 0;
    return (h->flags & LM_KN_EOS) != 0 ? lm_kn_root_count(w->r, h->eos, a, w->err) : CHT_OK;
}

static enum cht_rc put_counts(struct writer *w)
{
    const struct lm_kn_head *h = &w->r->head;
    const struct lm_fm_head *f = &w->r->fixed;
    uint32_t eos = 0;
    enum cht_rc rc = f->order > 0 ? CHT_OK : count_eos(w, &eos);
    if (rc != CHT_OK)
        return rc;
    put_text(w, "\\data\\\n");
    for (unsigned m = 1; m <= h->order; m++) {
        uint64_t more = m > 1 ? 0 : (h->flags & LM_KN_EOS) != 0 && eos == 0 ? 3 : 2; /* <unk>, <s>, </s> */
        w->n += (size_t)snprintf(w->text + w->n, LINE_MAX_BYTES, "ngram %u=%" PRIu64 "\n", m,
                                 f->order > 0 ? f->n[m] : h->m[m].types + more);
    }
    return CHT_OK;
}

/* <unk>, <s>, </s>. */
static enum cht_rc put_specials(struct writer *w)
{
    const struct lm_kn_head *h = &w->r->head;
    double unknown = w->r->root.gamma * w->r->p0;
    uint32_t a = 0;
    enum cht_rc rc = put_special(w, unknown, "<unk>", false);
    if (rc == CHT_OK)
        rc = put_special(w, 1, "<s>", true);
    if (rc == CHT_OK)
        rc = count_eos(w, &a);
    if (rc != CHT_OK || (h->flags & LM_KN_EOS) == 0)
        return rc;
    if (a == 0)
        return put_special(w, unknown, "</s>", false);
    w->order = 1;
    w->token[0] = h->eos;
    return put_gram(w, a, a);
}

/* The same of a fixed model, those that it has. */
static enum cht_rc put_fixed_specials(struct writer *w)
{
    const struct lm_fm_head *f = &w->r->fixed;
    const uint32_t token[] = {f->unk, f->bos, f->eos};
    enum cht_rc rc = CHT_OK;
    w->order = 1;
    for (unsigned i = 0; i < 3 && rc == CHT_OK; i++) {
        struct lm_fm_entry e;
        bool found;
        rc = lm_fm_lookup(w->r, 1, NULL, token[i], &e, &found, w->err);
        w->token[0] = token[i];
        if (rc == CHT_OK && found)
            rc = put_entry_line(w, &e);
    }
    return rc;
}

static enum cht_rc put_model(struct writer *w, const _Atomic bool *cancel)
{
    enum cht_rc rc = put_counts(w);
    for (unsigned m = 1; m <= w->r->head.order && rc == CHT_OK; m++) {
        w->n += (size_t)snprintf(w->text + w->n, LINE_MAX_BYTES, "\n\\%u-grams:\n", m);
        if (m == 1)
            rc = w->r->fixed.order > 0 ? put_fixed_specials(w) : put_specials(w);
        w->order = m;
        if (rc == CHT_OK)
            rc = put_section(w, cancel);
    }
    if (rc != CHT_OK)
        return rc;
    put_text(w, "\n\\end\\\n");
    return flush(w);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_arpa_write(struct lm_engine *e, struct cht_store *s, bool words, const _Atomic bool *cancel,
                             lm_kn_arpa_sink *sink, void *ctx, struct cht_err *err)
{
    struct lm_gate *gate;
    struct writer *w = cht_calloc(1, sizeof *w);
    if (w == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a text");
    w->words = words;
    w->sink = sink;
    w->ctx = ctx;
    w->err = err;
    enum cht_rc rc = lm_gate_enter(e, s, LM_GATE_COUNT, cancel, &gate, err);
    if (rc == CHT_OK) {
        rc = lm_kn_reader_open_apart(e, s, &w->r, err);
        if (rc == CHT_OK)
            rc = lm_kn_begin(w->r, err);
        if (rc == CHT_OK)
            rc = put_model(w, cancel);
        lm_kn_reader_close(w->r);
        lm_gate_leave(e, gate, LM_GATE_COUNT);
    }
    cht_buf_free(&w->value);
    cht_buf_free(&w->weight);
    cht_buf_free(&w->word);
    cht_free(w);
    return rc;
}
