/* kn_count: see kn_count.h. For each order, from N down to 1:
 *
 *   C1 the changes of this order: what the order above brought into being or ended, and windows of just this length
 *   C2 each context's record is read, changed and written; in place of its changes stay those of its n-grams that came or went
 *   C3 these, each less its first token, are the changes of the order below: they are grouped by its contexts already
 */
#include "lm/kn_count.h"

#include <string.h>

#include "base/alloc.h"
#include "lm/ngrams_int.h"
#include "os/io.h"

#define CHUNK ((size_t)256 << 10) /* the first: most requests are small */
#define CHUNK_NEXT ((size_t)8 << 20)
#define HEAD 5u /* of a context in a sheet */

struct lm_kn_chunk {
    struct lm_kn_chunk *next;
    size_t used, size;
    uint8_t bytes[];
};

/* Room for n bytes, of which `kept` says how many are used in the end; NULL: no memory. */
static uint8_t *room(struct lm_kn_maker *m, size_t n)
{
    struct lm_kn_chunk *c = m->chunks;
    if (c == NULL || c->size - c->used < n) {
        size_t usual = c == NULL ? CHUNK : CHUNK_NEXT, size = n > usual ? n : usual;
        c = cht_malloc(sizeof *c + size);
        if (c == NULL)
            return NULL;
        *c = (struct lm_kn_chunk){.next = m->chunks, .size = size};
        cht_os_huge_pages(c, sizeof *c + size);
        m->chunks = c;
    }
    return c->bytes + c->used;
}

static void keep(struct lm_kn_maker *m, size_t n) { m->chunks->used += n; }

static enum cht_rc reserve_followers(struct lm_kn_maker *m, size_t n, struct cht_err *err)
{
    if (n <= m->cap)
        return CHT_OK;
    size_t cap = n + n / 2 + 64;
    struct lm_follower *f = cht_realloc(m->f, cap * sizeof *f);
    if (f == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu followers", cap);
    m->f = f;
    m->cap = cap;
    return CHT_OK;
}

/* ---- C2: one context -------------------------------------------------------------------------------------------- */

/* The record as it is; n 0: there is none. */
static enum cht_rc stored(struct lm_kn_maker *m, struct cht_str name, struct lm_kn_record *out,
                          struct cht_err *err)
{
    uint64_t key;
    uint32_t size;
    *out = (struct lm_kn_record){0};
    if (m->count->old.m[m->count->order].contexts == 0)
        return CHT_OK;
    enum cht_rc rc = cht_store_pair_value(m->count->store, name, &key, &m->value, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0))
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    const uint8_t *p = m->value.data;
    unsigned order = m->count->order;
    if (order == 1 ? lm_kn_page_read(name, p, size, out)
                   : lm_kn_record_read(order, p, size, out) && lm_kn_record_sound(out))
        return CHT_OK;
    return lm_malformed(name, size, "record of a live model", err);
}

/* One n-gram's count goes from `before` to `after`; what that changes in the sums. */
static void account(struct lm_kn_maker *m, uint32_t before, uint32_t after)
{
    struct lm_kn_order *s = &m->sum;
    if (before > 0 && before <= 4)
        s->n[before - 1]--;
    if (after > 0 && after <= 4)
        s->n[after - 1]++;
    s->types += (uint64_t)(after > 0) - (uint64_t)(before > 0);
    m->root_total += (uint64_t)after - before;
}

/* The new count; false: it would be below 0. A count that has reached the end of its range stays there. */
static bool change(uint32_t before, int32_t by, uint32_t *after)
{
    int64_t v = (int64_t)before + by;
    if (before == UINT32_MAX || v > (int64_t)UINT32_MAX)
        v = UINT32_MAX;
    *after = (uint32_t)v;
    return v >= 0;
}

/* The context whose changes are c->d.d[from .. to-1]. */
struct one {
    size_t from, to;
    uint8_t text[LM_KN_NAME_MAX];
    struct cht_str name; /* in text */
    struct lm_kn_record record;
    struct lm_follower *f; /* in: the followers are merged to here */
    size_t n;
    size_t born; /* where the next n-gram that came or went is put */
};

static enum cht_rc not_counted(uint32_t token, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NOT_COUNTED, "an n-gram that ends with token %u would fall below 0", token);
}

/* Followers and changes, both ascending by token, become the followers after. */
static enum cht_rc merge(struct lm_kn_maker *m, struct one *o, struct cht_err *err)
{
    struct lm_kn_count *c = m->count;
    struct lm_kn_walk w;
    lm_kn_walk_begin(&w, &o->record);
    bool more = lm_kn_walk_next(&w);
    for (size_t i = o->from; i < o->to; i++) {
        struct lm_kn_delta d = c->d.d[i];
        uint32_t token = c->text.token[d.at], before = 0, after;
        for (; more && w.token < token; more = lm_kn_walk_next(&w))
            o->f[o->n++] = (struct lm_follower){w.token, w.a};
        if (more && w.token == token) {
            before = w.a;
            more = lm_kn_walk_next(&w);
        }
        if (!change(before, d.by, &after))
            return not_counted(token, err);
        account(m, before, after);
        if (after > 0)
            o->f[o->n++] = (struct lm_follower){token, after};
        if (c->order == 1)
            c->changes[i] = (struct lm_kn_change){token, before, after};
        else if ((before == 0) != (after == 0))
            c->d.d[o->born++] = (struct lm_kn_delta){d.at, after > 0 ? 1 : -1};
    }
    for (; more; more = lm_kn_walk_next(&w))
        o->f[o->n++] = (struct lm_follower){w.token, w.a};
    return CHT_OK;
}

/* A record that is no part of a sheet. */
static enum cht_rc put_op(struct lm_kn_maker *m, struct cht_str name, struct cht_str record,
                          struct cht_err *err)
{
    if (m->nops == m->ops_cap) {
        size_t cap = m->ops_cap * 2 + 16;
        struct cht_op *ops = cht_realloc(m->ops, cap * sizeof *ops);
        if (ops == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu operations", cap);
        m->ops = ops;
        m->ops_cap = cap;
    }
    m->ops[m->nops++] = (struct cht_op){.kind = record.n > 0 ? CHT_OP_PAIR_PUT : CHT_OP_PAIR_DEL,
                                        .with_values = true,
                                        .name = name,
                                        .value = record};
    return CHT_OK;
}

static enum cht_rc write(struct lm_kn_maker *m, const struct one *o, const uint8_t **at, struct cht_err *err)
{
    uint8_t *p = room(m, HEAD + o->name.n + lm_kn_record_room(o->n));
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the record of %zu followers", o->n);
    uint8_t *name = p + HEAD, *record = name + o->name.n;
    uint32_t n = 0;
    memcpy(name, o->name.p, o->name.n);
    if (o->n > 0)
        n = (uint32_t)lm_kn_record_write(m->count->order, o->f, (uint32_t)o->n, record);
    p[0] = (uint8_t)o->name.n;
    memcpy(p + 1, &n, sizeof n);
    keep(m, HEAD + o->name.n + n);
    *at = NULL;
    bool had = o->record.n > 0;
    m->sum.contexts += (uint64_t)(o->n > 0) - (uint64_t)had;
    m->created += !had;
    if (n == 0 || n > CHT_MANY_VALUE_MAX)
        return put_op(m, (struct cht_str){name, o->name.n}, (struct cht_str){record, n}, err);
    *at = p;
    m->bytes += o->name.n + n;
    return CHT_OK;
}

static enum cht_rc one_context(struct lm_kn_maker *m, struct one *o, const uint8_t **at, struct cht_err *err)
{
    const struct lm_kn_count *c = m->count;
    const uint32_t *end = c->text.token + c->d.d[o->from].at;
    o->name = (struct cht_str){o->text, c->order == 1 ? lm_kn_page_name(*end, o->text)
                                                      : lm_kn_name(c->order, end, o->text)};
    enum cht_rc rc = stored(m, o->name, &o->record, err);
    if (rc == CHT_OK)
        rc = lm_book_stored(c->request, o->record.n, err);
    if (rc == CHT_OK)
        rc = reserve_followers(m, o->record.n + (o->to - o->from), err);
    o->f = m->f;
    o->n = 0;
    if (rc == CHT_OK)
        rc = merge(m, o, err);
    return rc == CHT_OK ? write(m, o, at, err) : rc;
}

/* lm_share_fn: contexts from .. to-1. */
static enum cht_rc share_contexts(void *worker, size_t from, size_t to, struct cht_err *err)
{
    struct lm_kn_maker *m = worker;
    struct lm_kn_count *c = m->count;
    struct one o = {.born = c->offset[from]};
    enum cht_rc rc = CHT_OK;
    for (size_t i = from; i < to && rc == CHT_OK; i++) {
        o.from = c->offset[i];
        o.to = c->offset[i + 1];
        rc = one_context(m, &o, &c->sheet[c->order].at[i], err);
    }
    c->born[from / LM_SHARE_PIECE] = (uint32_t)(o.born - c->offset[from]);
    return rc;
}

/* ---- C2: an order ------------------------------------------------------------------------------------------------ */

static bool same_context(const struct lm_kn_count *c, size_t i, size_t j)
{
    uint32_t a = c->d.d[i].at, b = c->d.d[j].at;
    if (c->order == 1)
        return c->text.token[a] >> LM_KN_PAGE_SHIFT == c->text.token[b] >> LM_KN_PAGE_SHIFT;
    return lm_kn_context_compare(c->text.token, a, b, c->order - 1) == 0;
}

/* Where each context's changes start. */
static enum cht_rc find_contexts(struct lm_kn_count *c, struct cht_err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < c->d.n; i++)
        n += i == 0 || !same_context(c, i - 1, i);
    c->offset = cht_malloc((n + 1) * sizeof *c->offset);
    c->born = cht_calloc(n / LM_SHARE_PIECE + 1, sizeof *c->born);
    c->changes = c->order == 1 ? cht_malloc((c->d.n + 1) * sizeof *c->changes) : NULL;
    if (c->offset == NULL || c->born == NULL || (c->order == 1 && c->changes == NULL))
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu contexts", n);
    c->contexts = 0;
    for (size_t i = 0; i < c->d.n; i++) {
        if (i == 0 || !same_context(c, i - 1, i))
            c->offset[c->contexts++] = (uint32_t)i;
    }
    c->offset[c->contexts] = (uint32_t)c->d.n;
    return CHT_OK;
}

static enum cht_rc begin_sheet(struct lm_kn_count *c, struct cht_err *err)
{
    struct lm_kn_sheet *t = &c->sheet[c->order];
    size_t bytes = (c->contexts + 1) * sizeof *t->at;
    t->at = cht_malloc(bytes);
    if (t->at == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu contexts", c->contexts);
    cht_os_huge_pages(t->at, bytes);
    t->n = c->contexts;
    return CHT_OK;
}

/* The sums of the threads go into the new head. */
static void sum_up(struct lm_kn_count *c)
{
    struct lm_kn_order *o = &c->now.m[c->order];
    for (unsigned i = 0; i < c->threads; i++) {
        struct lm_kn_maker *m = &c->maker[i];
        o->contexts += m->sum.contexts;
        o->types += m->sum.types;
        for (unsigned j = 0; j < 4; j++)
            o->n[j] += m->sum.n[j];
        c->now.root_total += c->order == 1 ? m->root_total : 0;
        c->created += m->created;
        m->sum = (struct lm_kn_order){0};
        m->root_total = m->created = 0;
    }
}

/* What is left of the changes moves together. */
static void close_gaps(struct lm_kn_count *c)
{
    size_t n = 0;
    for (size_t p = 0; p * LM_SHARE_PIECE < c->contexts; p++) {
        size_t from = c->offset[p * LM_SHARE_PIECE];
        memmove(c->d.d + n, c->d.d + from, c->born[p] * sizeof *c->d.d);
        n += c->born[p];
    }
    c->d.n = n;
}

static enum cht_rc change_order(struct lm_kn_count *c, struct cht_err *err)
{
    enum cht_rc rc = find_contexts(c, err);
    if (rc == CHT_OK && c->request != NULL)
        rc = lm_book(c->request, (uint64_t)c->contexts * LM_KN_CONTEXT_COST, err);
    if (rc == CHT_OK)
        rc = begin_sheet(c, err);
    if (rc == CHT_OK && c->contexts > 0)
        rc = lm_share(c->contexts, share_contexts, c->makers, c->threads, err);
    if (rc == CHT_OK) {
        c->nchanges = c->order == 1 ? c->d.n : 0;
        sum_up(c);
        close_gaps(c);
    }
    cht_free(c->offset);
    cht_free(c->born);
    c->offset = c->born = NULL;
    return rc;
}

/* ---- C1 and C3 ---------------------------------------------------------------------------------------------------- */

/* What came or went in the order above, grouped by context and ordered by token: changes of c->order. */
static enum cht_rc settle(struct lm_kn_count *c, struct cht_err *err)
{
    struct lm_kn_deltas *d = &c->d;
    struct lm_kn_delta *spare = cht_malloc((d->n + 1) * sizeof *spare);
    if (spare == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu n-grams", d->n);
    size_t out = 0;
    for (size_t i = 0; i < d->n;) {
        size_t j = i + 1;
        while (j < d->n && lm_kn_context_compare(c->text.token, d->d[i].at, d->d[j].at, c->order - 1) == 0)
            j++;
        size_t n = lm_kn_deltas_settle(d->d + i, spare, j - i, c->text.token);
        memmove(d->d + out, d->d + i, n * sizeof *d->d);
        out += n;
        i = j;
    }
    d->n = out;
    cht_free(spare);
    return CHT_OK;
}

/* Both ascending by context, and none has a context of the other: windows of this length begin with bos. */
static enum cht_rc join(struct lm_kn_count *c, const struct lm_kn_deltas *w, struct cht_err *err)
{
    struct lm_kn_deltas *d = &c->d;
    if (w->n == 0)
        return CHT_OK;
    struct lm_kn_delta *all = cht_malloc((d->n + w->n) * sizeof *all);
    if (all == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu n-grams", d->n + w->n);
    size_t i = 0, j = 0, n = 0;
    while (i < d->n || j < w->n) {
        bool first = j == w->n || (i < d->n && lm_kn_context_compare(c->text.token, d->d[i].at, w->d[j].at,
                                                                     c->order - 1) < 0);
        all[n++] = first ? d->d[i++] : w->d[j++];
    }
    cht_free(d->d);
    *d = (struct lm_kn_deltas){all, n};
    return CHT_OK;
}

static enum cht_rc change_orders(struct lm_kn_count *c, struct lm_kn_windows *w, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    c->d = w->m[c->old.order];
    w->m[c->old.order] = (struct lm_kn_deltas){0};
    for (c->order = c->old.order; c->order >= 1 && rc == CHT_OK; c->order--) {
        if (c->order < c->old.order) {
            rc = settle(c, err);
            if (rc == CHT_OK)
                rc = join(c, &w->m[c->order], err);
        }
        if (rc == CHT_OK)
            rc = change_order(c, err);
    }
    cht_free(c->d.d);
    c->d = (struct lm_kn_deltas){0};
    return rc;
}

static enum cht_rc change_head(struct lm_kn_count *c, struct cht_err *err)
{
    struct lm_kn_head *h = &c->now;
    if (h->documents + c->documents < c->taken || h->tokens + c->text.predicted < c->text.taken)
        return CHT_FAIL(err, CHT_NOT_COUNTED, "more documents would be taken away than were counted");
    h->documents += c->documents - c->taken;
    h->tokens += c->text.predicted - c->text.taken;
    h->generation++;
    if (!lm_kn_head_sound(h)) /* it does not belong to the records */
        return CHT_FAIL(err, CHT_MALFORMED_PAYLOAD,
                        "the head of the live model does not belong to its records");
    return CHT_OK;
}

/* What is in no sheet, and the head. */
static enum cht_rc gather(struct lm_kn_count *c, struct cht_err *err)
{
    size_t n = 1;
    for (unsigned i = 0; i < c->threads; i++)
        n += c->maker[i].nops;
    c->ops = cht_malloc(n * sizeof *c->ops);
    if (c->ops == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu operations", n);
    for (unsigned i = 0; i < c->threads; i++) {
        const struct lm_kn_maker *m = &c->maker[i];
        if (m->nops > 0)
            memcpy(c->ops + c->n, m->ops, m->nops * sizeof *m->ops);
        c->n += m->nops;
    }
    c->ops[c->n] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = lm_kn_head_name()};
    c->ops[c->n++].value = (struct cht_str){c->head, lm_kn_head_write(&c->now, c->head)};
    return CHT_OK;
}

/* lm_load_fn */
static bool make_record(const void *ctx, size_t i, uint8_t *room, struct cht_op *op)
{
    const struct lm_kn_sheet *t = ctx;
    const uint8_t *p = t->at[i];
    uint32_t n;
    (void)room;
    if (p == NULL)
        return false;
    memcpy(&n, p + 1, sizeof n);
    op->kind = CHT_OP_PAIR_PUT;
    op->name = (struct cht_str){p + HEAD, p[0]};
    op->value = (struct cht_str){p + HEAD + p[0], n};
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_count_begin(struct lm_kn_count *c, struct cht_store *s, struct cht_err *err)
{
    *c = (struct lm_kn_count){.store = s};
    enum cht_rc rc = lm_kn_head_get(s, &c->old, &c->maker[0].value, NULL, err);
    c->now = c->old;
    if (rc != CHT_OK)
        lm_kn_count_free(c);
    return rc;
}

enum cht_rc lm_kn_count_make_of(struct lm_kn_count *c, struct lm_kn_windows *w, struct cht_err *err)
{
    unsigned cores = c->text.n < LM_SHARE_PIECE ? 1 : cht_os_cores(); /* asking takes a while */
    c->threads = cores < LM_SHARE_THREADS_MAX ? cores : LM_SHARE_THREADS_MAX;
    for (unsigned i = 0; i < c->threads; i++) {
        c->maker[i].count = c;
        c->makers[i] = &c->maker[i];
    }
    enum cht_rc rc = change_orders(c, w, err);
    if (rc == CHT_OK)
        rc = change_head(c, err);
    return rc == CHT_OK ? gather(c, err) : rc;
}

enum cht_rc lm_kn_count_make(struct lm_kn_count *c, struct cht_err *err)
{
    struct lm_kn_windows w;
    enum cht_rc rc = lm_kn_windows_make(&w, &c->text, c->old.order, err);
    if (rc == CHT_OK)
        rc = lm_kn_count_make_of(c, &w, err);
    lm_kn_windows_free(&w);
    return rc;
}

enum cht_rc lm_kn_count_publish(struct lm_engine *e, struct lm_kn_count *c, struct lm_kn_live **out,
                                struct cht_err *err)
{
    enum cht_rc rc = lm_kn_live_get(e, c->store, out, err);
    if (rc == CHT_OK)
        lm_kn_live_begin(*out);
    return rc;
}

void lm_kn_count_done(struct lm_engine *e, struct lm_kn_count *c, struct lm_kn_live *l, enum cht_rc rc)
{
    if (rc == CHT_OK)
        lm_kn_top_update(e, l, &c->old, &c->now, c->changes, c->nchanges);
    lm_kn_live_end(l);
    lm_kn_live_put(e, l);
}

void lm_kn_count_load(const struct lm_kn_count *c, struct lm_load *l)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < c->threads; i++)
        bytes += c->maker[i].bytes;
    for (unsigned m = LM_ORDER_MAX; m >= 1; m--) {
        lm_load_add(l, c->sheet[m].n, bytes, 0, make_record, &c->sheet[m]);
        bytes = c->sheet[m].n > 0 ? 0 : bytes;
    }
}

void lm_kn_count_free(struct lm_kn_count *c)
{
    for (unsigned i = 0; i < LM_SHARE_THREADS_MAX; i++) {
        struct lm_kn_maker *m = &c->maker[i];
        while (m->chunks != NULL) {
            struct lm_kn_chunk *k = m->chunks;
            m->chunks = k->next;
            cht_free(k);
        }
        cht_buf_free(&m->value);
        cht_free(m->f);
        cht_free(m->ops);
    }
    for (unsigned m = 0; m < LM_ORDERS; m++)
        cht_free(c->sheet[m].at);
    lm_kn_text_free(&c->text);
    cht_free(c->ops);
    cht_free(c->changes);
    *c = (struct lm_kn_count){0};
}
