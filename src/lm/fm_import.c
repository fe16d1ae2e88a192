/* fm_import: see fm_import.h. N-grams are gathered as rows of 32-bit words, the keys first: the context, nearest token first, and the last
 * token. That is the order of the names, so rows that are sorted by their keys go to one page after the other. A text whose n-grams come in
 * that order, as GET /arpa writes them, is not sorted, and each page is written once. */
#include "lm/fm_import.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "lm/engine_int.h"
#include "lm/fm_ahead.h"
#include "lm/fm_words.h"
#include "lm/kn_format.h"
#include "lm/kn_live.h"
#include "lm/names.h"
#include "lm/writer.h"
#include "os/io.h"

#define ROWS_FIRST ((size_t)4096) /* words */
#define ROWS_MAX (LM_FM_GATHER_BYTES / sizeof(uint32_t))
#define DIGIT 11u
#define NO_RANK UINT32_MAX /* of what is no candidate */
#define BLOCK_BITS 15u     /* tokens of a block of the vocabulary */
#define BLOCKS (UINT32_C(1) << (32 - BLOCK_BITS))
#define BLOCK_BYTES ((size_t)1 << (BLOCK_BITS - 3))

struct lm_fm_import {
    struct lm_fm_import *next; /* the engine's */
    struct lm_engine *engine;
    uint64_t id;
    struct lm_fm_parameters parameters;
    struct lm_fm_head head;
    struct lm_arpa text;
    struct lm_fm_words words;
    struct lm_writer writer;
    uint32_t *row; /* owned */
    size_t used, cap;
    uint32_t *at, *spare; /* owned: where rows begin, in order, while they are put to pages */
    bool sorted;          /* rows came in order so far */
    bool written[LM_ORDER_MAX + 1];
    uint64_t **known; /* owned, as are the blocks: which tokens are 1-grams, a bit each */
    struct cht_buf value, check;
    struct lm_fm_ahead *ahead; /* owned */
};

/* Of a row: keys, p, back-off, line, and for 1-grams the rank. */
static size_t stride(unsigned order) { return order + 3 + (order == 1); }

static float as_float(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

static uint32_t as_bits(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static enum cht_rc book(struct lm_fm_import *i, uint64_t bytes, struct cht_err *err)
{
    return i->parameters.book != NULL ? i->parameters.book(i->parameters.ctx, bytes, err) : CHT_OK;
}

/* ---- the vocabulary ---------------------------------------------------------------------------------------------- */

static bool is_known(const struct lm_fm_import *i, uint32_t token)
{
    const uint64_t *b = i->known[token >> BLOCK_BITS];
    uint32_t bit = token & ((1u << BLOCK_BITS) - 1);
    return b != NULL && (b[bit / 64] >> bit % 64 & 1) != 0;
}

static enum cht_rc know(struct lm_fm_import *i, uint32_t token, struct cht_err *err)
{
    uint64_t **b = &i->known[token >> BLOCK_BITS];
    uint32_t bit = token & ((1u << BLOCK_BITS) - 1);
    if (*b == NULL) {
        enum cht_rc rc = book(i, BLOCK_BYTES, err);
        if (rc != CHT_OK)
            return rc;
        *b = cht_calloc(1, BLOCK_BYTES);
        if (*b == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the words");
    }
    (*b)[bit / 64] |= UINT64_C(1) << bit % 64;
    return CHT_OK;
}

/* ---- rows in order ----------------------------------------------------------------------------------------------- */

/* Stable, by one word of each row. */
static void sort_by(struct lm_fm_import *i, size_t n, size_t word)
{
    uint32_t all = 0, common = UINT32_MAX;
    for (size_t k = 0; k < n; k++) {
        all |= i->row[i->at[k] + word];
        common &= i->row[i->at[k] + word];
    }
    for (unsigned shift = 0; shift < 32; shift += DIGIT) {
        uint32_t count[1u << DIGIT] = {0}, sum = 0, mask = (1u << DIGIT) - 1;
        if (((all ^ common) >> shift & mask) == 0)
            continue;
        for (size_t k = 0; k < n; k++)
            count[i->row[i->at[k] + word] >> shift & mask]++;
        for (uint32_t d = 0; d <= mask; d++) {
            uint32_t c = count[d];
            count[d] = sum;
            sum += c;
        }
        for (size_t k = 0; k < n; k++) {
            uint32_t at = i->at[k];
            i->spare[count[i->row[at + word] >> shift & mask]++] = at;
        }
        uint32_t *sorted = i->spare;
        i->spare = i->at;
        i->at = sorted;
    }
}

/* i->at: where the rows begin, in the order of their keys. */
static enum cht_rc arrange(struct lm_fm_import *i, unsigned order, size_t n, struct cht_err *err)
{
    size_t step = stride(order);
    i->at = cht_malloc((n + 1) * sizeof *i->at);
    i->spare = cht_malloc((n + 1) * sizeof *i->spare);
    if (i->at == NULL || i->spare == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu n-grams", n);
    for (size_t k = 0; k < n; k++)
        i->at[k] = (uint32_t)(k * step);
    if (!i->sorted) {
        for (size_t word = order; word-- > 0;) /* the last key first */
            sort_by(i, n, word);
    }
    return CHT_OK;
}

/* ---- pages ------------------------------------------------------------------------------------------------------- */

/* The page as it is; n 0: there is none. */
static enum cht_rc stored(struct lm_fm_import *i, unsigned order, struct cht_str name, struct cht_buf *buf,
                          struct lm_fm_page *out, struct cht_err *err)
{
    uint64_t key;
    uint32_t size;
    *out = (struct lm_fm_page){0};
    const struct cht_op *read = lm_fm_ahead_find(i->ahead, name);
    enum cht_rc rc =
        read != NULL ? read->rc : cht_store_pair_value(i->writer.store, name, &key, buf, &size, err);
    if (read != NULL) {
        buf = read->buf;
        size = read->size;
    }
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0))
        return CHT_OK;
    if (rc == CHT_OK && !lm_fm_page_read(order, i->head.order, buf->data, size, out))
        return lm_malformed(name, size, "page of a fixed model", err);
    return rc;
}

/* The context of this row is an n-gram of the section before. */
static enum cht_rc check_context(struct lm_fm_import *i, unsigned order, const uint32_t *row,
                                 struct cht_err *err)
{
    uint8_t text[LM_FM_NAME_MAX];
    struct lm_fm_page page;
    struct lm_fm_entry e;
    struct cht_str name = {text, lm_fm_name(order - 1, row + 1, row[0], text)};
    enum cht_rc rc = stored(i, order - 1, name, &i->check, &page, err);
    if (rc != CHT_OK || (page.n > 0 && lm_fm_find(&page, row[0], &e)))
        return rc;
    return CHT_FAIL(err, CHT_INVALID_ARPA, "line %" PRIu32 ": its first %u words are no n-gram of section %u",
                    row[order + 2], order - 1, order - 1);
}

static struct lm_fm_entry entry_of(unsigned order, const uint32_t *row)
{
    size_t keys = order > 0 ? order : 1; /* ranks are put from the rows of 1-grams */
    return (struct lm_fm_entry){row[keys - 1], as_float(row[keys]), as_float(row[keys + 1]), row[keys + 2]};
}

static enum cht_rc twice(uint32_t a, uint32_t b, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_INVALID_ARPA, "lines %" PRIu32 " and %" PRIu32 " have the same n-gram",
                    a < b ? a : b, a < b ? b : a);
}

/* The rows from .. to-1, all of one page and ascending by token, are added to it. */
static enum cht_rc put_page(struct lm_fm_import *i, unsigned order, struct cht_str name, size_t from,
                            size_t to, struct cht_err *err)
{
    struct lm_fm_page old = {0};
    enum cht_rc rc = i->written[order] ? stored(i, order, name, &i->value, &old, err) : CHT_OK;
    if (rc == CHT_OK && old.n == 0 && order > 1)
        rc = check_context(i, order, i->row + i->at[from], err);
    if (rc != CHT_OK)
        return rc;
    uint8_t *begin = lm_writer_put(&i->writer, name, lm_fm_page_room(old.n + (to - from)), &rc, err);
    if (begin == NULL)
        return rc;
    uint8_t *end = lm_fm_page_begin(order, begin);
    uint32_t had = 0;
    for (size_t k = from; k < to; k++) {
        struct lm_fm_entry e = entry_of(order, i->row + i->at[k]), o = {0};
        for (; had < old.n && (o = lm_fm_entry(&old, had)).token < e.token; had++)
            end = lm_fm_put(order, i->head.order, &o, end);
        if (had < old.n && o.token == e.token)
            return twice(o.line, e.line, err);
        if (k > from && i->row[i->at[k - 1] + (order > 0 ? order : 1) - 1] == e.token)
            return twice(entry_of(order, i->row + i->at[k - 1]).line, e.line, err);
        end = lm_fm_put(order, i->head.order, &e, end);
    }
    for (; had < old.n; had++) {
        struct lm_fm_entry o = lm_fm_entry(&old, had);
        end = lm_fm_put(order, i->head.order, &o, end);
    }
    lm_writer_put_end(&i->writer, (size_t)(end - begin));
    return CHT_OK;
}

static bool same_page(unsigned order, const uint32_t *a, const uint32_t *b)
{
    return memcmp(a, b, (order - 1) * sizeof *a) == 0 &&
           a[order - 1] >> lm_fm_shift(order) == b[order - 1] >> lm_fm_shift(order);
}

static enum cht_rc put_pages(struct lm_fm_import *i, unsigned order, size_t n, struct cht_err *err)
{
    uint8_t text[LM_FM_NAME_MAX];
    const struct lm_fm_rows rows = {i->row, i->at, n, order, i->written[order]};
    enum cht_rc rc = CHT_OK;
    for (size_t from = 0, to, known = 0; from < n && rc == CHT_OK; from = to) {
        const uint32_t *first = i->row + i->at[from];
        if (from >= known)
            rc = lm_fm_ahead_read(&i->ahead, i->writer.store, &rows, from, &known, err);
        for (to = from + 1; to < n && same_page(order, first, i->row + i->at[to]); to++)
            ;
        struct cht_str name = {text, lm_fm_name(order, first, first[order - 1], text)};
        if (rc == CHT_OK)
            rc = put_page(i, order, name, from, to, err);
    }
    return rc;
}

/* 1-grams once more, by rank. They are in order by token. */
static enum cht_rc put_ranks(struct lm_fm_import *i, size_t n, struct cht_err *err)
{
    const size_t rank = stride(1) - 1;
    uint8_t text[LM_FM_NAME_MAX];
    enum cht_rc rc = CHT_OK;
    sort_by(i, n, rank);
    for (size_t from = 0, to; from < n && rc == CHT_OK; from = to) {
        const uint32_t *a = i->row + i->at[from];
        for (to = from + 1; to < n; to++) {
            const uint32_t *b = i->row + i->at[to];
            if (a[rank] != b[rank] || a[0] >> LM_FM_WIDE_SHIFT != b[0] >> LM_FM_WIDE_SHIFT)
                break;
        }
        struct cht_str name = {text, lm_fm_rank_name(a[rank], a[0], text)};
        if (a[rank] != NO_RANK)
            rc = put_page(i, 0, name, from, to, err);
    }
    return rc;
}

/* What was gathered is put to pages, and written. */
static enum cht_rc put_rows(struct lm_fm_import *i, struct cht_err *err)
{
    unsigned order = i->text.at;
    size_t n = i->used / stride(order);
    if (n == 0)
        return CHT_OK;
    enum cht_rc rc = arrange(i, order, n, err);
    if (rc == CHT_OK)
        rc = put_pages(i, order, n, err);
    if (rc == CHT_OK && order == 1)
        rc = put_ranks(i, n, err);
    struct cht_err late = {0};
    enum cht_rc flushed = lm_writer_flush(&i->writer, &late);
    if (rc == CHT_OK && flushed != CHT_OK) {
        rc = flushed;
        if (err != NULL)
            *err = late;
    }
    cht_free(i->at);
    cht_free(i->spare);
    i->at = i->spare = NULL;
    i->written[order] = true;
    i->written[0] = i->written[0] || order == 1;
    i->used = 0;
    i->sorted = true;
    return rc;
}

/* ---- what the parser hands over ---------------------------------------------------------------------------------- */

/* Room for one more row. If no more memory may be used, what there is becomes free. */
static enum cht_rc reserve(struct lm_fm_import *i, size_t more, struct cht_err *err)
{
    if (i->used + more <= i->cap)
        return CHT_OK;
    size_t cap = i->cap == 0 ? ROWS_FIRST : i->cap * 2;
    struct cht_err refused = {0};
    bool most = cap > ROWS_MAX;
    enum cht_rc rc = most ? CHT_OK : book(i, (cap - i->cap) * sizeof *i->row * 3 / 2, &refused);
    if (i->used > 0 && (most || rc != CHT_OK))
        return put_rows(i, err);
    if (rc != CHT_OK) {
        if (err != NULL)
            *err = refused;
        return rc;
    }
    uint32_t *p = cht_realloc(i->row, cap * sizeof *p);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu words", cap);
    i->row = p;
    i->cap = cap;
    return CHT_OK;
}

/* lm_arpa.begin */
static enum cht_rc begin_text(void *ctx, unsigned order, const uint64_t *n, struct cht_err *err)
{
    struct lm_fm_import *i = ctx;
    (void)err;
    i->head.order = order;
    memcpy(i->head.n, n, sizeof i->head.n);
    return CHT_OK;
}

/* lm_arpa.gram */
static enum cht_rc take_gram(void *ctx, const struct lm_arpa_gram *g, struct cht_err *err)
{
    struct lm_fm_import *i = ctx;
    size_t step = stride(g->order);
    uint32_t last = g->token[g->order - 1];
    enum cht_rc rc = CHT_OK;
    for (unsigned k = 0; k < g->order && g->order > 1; k++) {
        if (!is_known(i, g->token[k]))
            return CHT_FAIL(err, CHT_INVALID_ARPA, "line %" PRIu64 ": the word %u of it is no 1-gram",
                            g->line, k + 1);
    }
    if (g->order == 1)
        rc = know(i, last, err);
    if (rc == CHT_OK)
        rc = reserve(i, step, err);
    if (rc != CHT_OK)
        return rc;
    uint32_t *row = i->row + i->used;
    for (unsigned k = 0; k + 1 < g->order; k++)
        row[k] = g->token[g->order - 2 - k];
    row[g->order - 1] = last;
    row[g->order] = as_bits(g->p);
    row[g->order + 1] = as_bits(g->backoff);
    row[g->order + 2] = g->line < UINT32_MAX ? (uint32_t)g->line : UINT32_MAX;
    if (g->order == 1)
        row[4] = last == i->head.bos || last == i->head.unk ? NO_RANK : lm_fm_rank(g->p);
    if (i->used > 0 && i->sorted) {
        const uint32_t *before = row - step;
        unsigned k = 0;
        while (k + 1 < g->order && before[k] == row[k])
            k++;
        i->sorted = before[k] <= row[k];
    }
    i->used += step;
    return CHT_OK;
}

/* lm_arpa.word */
static enum cht_rc take_word(void *ctx, struct cht_str word, uint32_t *token, struct cht_err *err)
{
    struct lm_fm_import *i = ctx;
    return lm_fm_words_token(&i->words, i->writer.store, word, i->text.at == 1, i->text.lines, token, err);
}

/* lm_arpa.section */
static enum cht_rc end_section(void *ctx, unsigned order, struct cht_err *err)
{
    (void)order;
    return put_rows(ctx, err);
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

/* In one commit with the load. */
static enum cht_rc write_head(struct lm_fm_import *i, struct cht_store *s, unsigned flags,
                              struct lm_load *load, struct cht_err *err)
{
    uint8_t bytes[LM_FM_HEAD_MAX];
    struct lm_kn_live *l;
    i->head.flags = flags;
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = lm_kn_head_name()};
    op.value = (struct cht_str){bytes, lm_fm_head_write(&i->head, bytes)};
    enum cht_rc rc = lm_kn_live_get(i->engine, s, &l, err);
    if (rc != CHT_OK)
        return rc;
    lm_kn_live_begin(l); /* what questions know of the head before is forgotten */
    rc = lm_load_commit(load, s, &op, 1, CHT_COMMIT_ATOMIC, err);
    lm_kn_live_end(l);
    lm_kn_live_put(i->engine, l);
    return rc;
}

/* The head of a fixed model that is there, whatever its state. CHT_PAIR_NOT_FOUND: nothing is; CHT_MODEL_EXISTS: another kind. */
static enum cht_rc read_head(struct cht_store *s, struct lm_fm_head *out, struct cht_err *err)
{
    struct cht_buf buf = {0};
    uint64_t key;
    uint32_t size;
    enum cht_rc rc = cht_store_pair_value(s, lm_kn_head_name(), &key, &buf, &size, err);
    if (rc == CHT_OK && size == 0)
        rc = CHT_PAIR_NOT_FOUND;
    if (rc == CHT_OK && !lm_fm_head_read(buf.data, size, out))
        rc = CHT_FAIL(err, CHT_MODEL_EXISTS, "the database has a live model");
    cht_buf_free(&buf);
    return rc;
}

static bool under_way(struct lm_engine *e, uint64_t id)
{
    cht_mutex_lock(&e->mu);
    const struct lm_fm_import *i = e->imports;
    while (i != NULL && i->id != id)
        i = i->next;
    cht_mutex_unlock(&e->mu);
    return i != NULL;
}

/* Takes away the pages and the head. */
static enum cht_rc remove_all(struct cht_store *s, struct cht_err *err)
{
    struct cht_op op[2] = {{.kind = CHT_OP_PREFIX_DEL, .with_values = true},
                           {.kind = CHT_OP_PAIR_DEL, .with_values = true, .name = lm_kn_head_name()}};
    op[0].name = (struct cht_str){(const uint8_t *)LM_FM_ALL, LM_LENGTH(LM_FM_ALL)};
    return lm_commit(s, op, 2, 0, err); /* one record of the log all the same */
}

/* Nothing is in the way, or was and is gone now: what another import has left. */
static enum cht_rc make_way(struct lm_engine *e, struct cht_store *s, struct cht_err *err)
{
    static const char *const others[] = {LM_CNT_ALL, LM_KN_ALL, LM_FM_ALL};
    struct lm_fm_head old;
    enum cht_rc rc = read_head(s, &old, err);
    if (rc == CHT_OK && (old.flags & LM_FM_MAKING) == 0)
        return CHT_FAIL(err, CHT_MODEL_EXISTS, "the database has a model that was read in");
    if (rc == CHT_OK && under_way(e, old.id))
        return CHT_FAIL(err, CHT_MODEL_EXISTS, "a model is being read into the database");
    if (rc == CHT_OK)
        rc = remove_all(s, err);
    rc = rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    for (size_t k = 0; k < sizeof others / sizeof *others && rc == CHT_OK; k++) {
        uint64_t pairs = 0;
        struct cht_str prefix = {(const uint8_t *)others[k], strlen(others[k])};
        rc = cht_store_count(s, prefix, &pairs, err);
        if (rc == CHT_OK && pairs > 0)
            rc = CHT_FAIL(err, CHT_MODEL_EXISTS, "there are pairs under %s in the database", others[k]);
    }
    return rc;
}

/* Is it still the database that it was? */
static enum cht_rc check(struct lm_fm_import *i, struct cht_store *s, struct cht_err *err)
{
    struct lm_fm_head now;
    enum cht_rc rc = read_head(s, &now, err);
    if (rc == CHT_OK && (now.id != i->id || (now.flags & LM_FM_MAKING) == 0))
        rc = CHT_PAIR_NOT_FOUND;
    if (rc == CHT_PAIR_NOT_FOUND)
        return CHT_FAIL(err, CHT_DATABASE_DROPPED,
                        "the database is not the one that the model was read into");
    i->writer.store = s;
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_fm_import_begin(struct lm_engine *e, struct cht_store *s, const struct lm_fm_parameters *p,
                               struct lm_fm_import **out, struct cht_err *err)
{
    struct lm_gate *gate;
    struct lm_load none = {0};
    *out = NULL;
    if (p->bos == p->eos || p->bos == p->unk || p->eos == p->unk)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "bos, eos and unk are different tokens");
    struct lm_fm_import *i = cht_calloc(1, sizeof *i);
    uint64_t **known = i != NULL ? cht_calloc(BLOCKS, sizeof *known) : NULL;
    if (known == NULL) {
        cht_free(i);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a model");
    }
    i->known = known;
    i->engine = e;
    i->parameters = *p;
    i->sorted = true;
    i->head = (struct lm_fm_head){.bos = p->bos, .eos = p->eos, .unk = p->unk};
    i->text = (struct lm_arpa){.bos = p->bos,
                               .eos = p->eos,
                               .unk = p->unk,
                               .unmarked = p->unmarked,
                               .word = p->words ? take_word : NULL,
                               .begin = begin_text,
                               .gram = take_gram,
                               .section = end_section,
                               .ctx = i};
    i->words = (struct lm_fm_words){
        .special = {p->bos, p->eos, p->unk}, .is_text = p->is_text, .book = p->book, .ctx = p->ctx};
    lm_arpa_begin(&i->text);
    cht_os_random(&i->id, sizeof i->id);
    i->head.id = i->id;
    enum cht_rc rc = lm_gate_enter(e, s, LM_GATE_COUNT, NULL, &gate, err);
    if (rc == CHT_OK) {
        rc = make_way(e, s, err);
        if (rc == CHT_OK) {
            cht_mutex_lock(&e->mu);
            i->next = e->imports;
            e->imports = i;
            cht_mutex_unlock(&e->mu);
            rc = p->words ? lm_fm_words_begin(&i->words, s, err) : CHT_OK;
            if (rc == CHT_OK)
                rc = write_head(i, s, LM_FM_MAKING, &none, err);
        }
        lm_gate_leave(e, gate, LM_GATE_COUNT);
    }
    if (rc != CHT_OK)
        lm_fm_import_free(i);
    else
        *out = i;
    return rc;
}

enum cht_rc lm_fm_import_feed(struct lm_fm_import *i, struct cht_store *s, const char *p, size_t n,
                              struct cht_err *err)
{
    enum cht_rc rc = check(i, s, err);
    return rc == CHT_OK ? lm_arpa_feed(&i->text, p, n, err) : rc;
}

enum cht_rc lm_fm_import_end(struct lm_fm_import *i, struct cht_store *s, struct cht_err *err)
{
    enum cht_rc rc = check(i, s, err);
    if (rc == CHT_OK)
        rc = lm_arpa_end(&i->text, err);
    struct lm_load words = {0};
    if (rc == CHT_OK && i->parameters.words)
        rc = lm_fm_words_load(&i->words, s, &words, err);
    return rc == CHT_OK ? write_head(i, s, i->text.flags, &words, err) : rc;
}

void lm_fm_import_free(struct lm_fm_import *i)
{
    if (i == NULL)
        return;
    cht_mutex_lock(&i->engine->mu);
    struct lm_fm_import **at = &i->engine->imports;
    while (*at != NULL && *at != i)
        at = &(*at)->next;
    if (*at == i)
        *at = i->next;
    cht_mutex_unlock(&i->engine->mu);
    for (size_t b = 0; b < BLOCKS; b++)
        cht_free(i->known[b]);
    cht_free(i->known);
    lm_writer_free(&i->writer);
    lm_fm_ahead_free(i->ahead);
    lm_fm_words_free(&i->words);
    cht_buf_free(&i->value);
    cht_buf_free(&i->check);
    cht_free(i->row);
    cht_free(i->at);
    cht_free(i->spare);
    cht_free(i);
}

const struct lm_arpa *lm_fm_import_text(const struct lm_fm_import *i) { return &i->text; }

size_t lm_fm_import_fresh(const struct lm_fm_import *i) { return i->words.fresh; }

uint64_t lm_fm_import_id(const struct lm_fm_import *i) { return i->id; }

enum cht_rc lm_fm_drop(struct lm_engine *e, struct cht_store *s, uint64_t id, struct cht_err *err)
{
    struct lm_fm_head now;
    struct lm_gate *gate;
    enum cht_rc rc = lm_gate_enter(e, s, LM_GATE_COUNT, NULL, &gate, err);
    if (rc != CHT_OK)
        return rc;
    rc = read_head(s, &now, err);
    if (rc == CHT_OK && now.id == id && (now.flags & LM_FM_MAKING) != 0 && !under_way(e, id))
        rc = remove_all(s, err);
    lm_gate_leave(e, gate, LM_GATE_COUNT);
    return rc == CHT_PAIR_NOT_FOUND || rc == CHT_MODEL_EXISTS ? CHT_OK : rc;
}
