/* hidden: see hidden.h. */
#include "tcp/hidden.h"

#include <string.h>

#define PREFIX_LEN (sizeof LINE_HIDDEN - 1)
#define MARKS 64u

enum { NOT_ASKED, NONE, SOME };

static bool begins(const uint8_t *p, size_t n)
{
    return n >= PREFIX_LEN && memcmp(p, LINE_HIDDEN, PREFIX_LEN) == 0;
}

/* The marked name of a mark against a name. */
static int compare(const struct cht_entry *mark, const struct cht_entry *e)
{
    const uint8_t *p = mark->name + PREFIX_LEN;
    size_t n = mark->name_len - PREFIX_LEN;
    int c = memcmp(p, e->name, n < e->name_len ? n : e->name_len);
    return c != 0 ? c : n < e->name_len ? -1 : n > e->name_len;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool line_hidden_any(struct svc_database *d)
{
    int known = atomic_load_explicit(&d->hidden, memory_order_relaxed), unknown = NOT_ASKED;
    uint64_t n = 0;
    if (cht_store_remote(d->store)) /* others write it too: what was true a moment ago need not be */
        return true;
    if (known != NOT_ASKED)
        return known == SOME;
    struct cht_str prefix = {.p = (const uint8_t *)LINE_HIDDEN, .n = PREFIX_LEN};
    if (cht_store_count_soon(d->store, prefix, &n, &cht_ahead, NULL) != CHT_OK)
        return true;
    /* unless somebody has begun to mark meanwhile */
    atomic_compare_exchange_strong_explicit(&d->hidden, &unknown, n > 0 ? SOME : NONE, memory_order_relaxed,
                                            memory_order_relaxed);
    return n > 0 || unknown == SOME;
}

bool line_hidden_now(struct svc_database *d)
{
    struct cht_str prefix = {.p = (const uint8_t *)LINE_HIDDEN, .n = PREFIX_LEN};
    uint64_t n = 0;
    if (!cht_store_remote(d->store))
        return line_hidden_any(d);
    return cht_store_count(d->store, prefix, &n, NULL) != CHT_OK || n > 0;
}

void line_hidden_begin(struct svc_database *d)
{
    atomic_store_explicit(&d->hidden, SOME, memory_order_relaxed);
}

enum cht_rc line_hidden_mark(struct cht_buf *out, struct cht_str name, struct cht_err *err)
{
    if (name.n > LINE_HIDDEN_NAME_MAX)
        return CHT_FAIL(err, CHT_INVALID_PAIR, "a name that is to be hidden has at most %zu bytes",
                        LINE_HIDDEN_NAME_MAX);
    enum cht_rc rc = cht_buf_reserve(out, PREFIX_LEN + name.n, err);
    if (rc != CHT_OK)
        return rc;
    memcpy(out->data, LINE_HIDDEN, PREFIX_LEN);
    memcpy(out->data + PREFIX_LEN, name.p, name.n);
    out->len = PREFIX_LEN + name.n;
    return CHT_OK;
}

enum cht_rc line_hidden_open(struct line_hidden *h, struct svc_database *d, const struct line_command *l,
                             struct cht_err *err)
{
    struct cht_buf from = {0}, past = {0};
    h->marks = begins(l->name.p, l->name.n);
    h->active = line_hidden_any(d);
    if (!h->active || l->show_hidden || l->name.n > LINE_HIDDEN_NAME_MAX)
        return CHT_OK;
    enum cht_rc rc = line_hidden_mark(&from, l->name, err);
    if (rc == CHT_OK && l->after.n > 0 && l->after.n <= LINE_HIDDEN_NAME_MAX)
        rc = line_hidden_mark(&past, l->after, err);
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = {from.data, from.len}, .after = {past.data, past.len}};
    if (rc == CHT_OK)
        rc = cht_scan_open(d->store, &cfg, &h->scan, err);
    cht_buf_free(&from);
    cht_buf_free(&past);
    return rc;
}

enum cht_rc line_hidden_look(struct line_hidden *h, const struct cht_entry *e, bool *hides,
                             struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    *hides = false;
    if (h->active && begins(e->name, e->name_len))
        *hides = !h->marks;
    if (h->scan == NULL || h->ended || *hides)
        return CHT_OK;
    for (;;) {
        if (h->at == h->n) {
            h->at = 0;
            rc = cht_scan_next(h->scan, h->e, MARKS, &h->n, err);
            h->ended = h->n == 0;
            if (rc != CHT_OK || h->ended)
                return rc;
        }
        int c = compare(&h->e[h->at], e);
        *hides = c == 0 && h->e[h->at].key == e->key;
        if (c >= 0)
            return CHT_OK;
        h->at++;
    }
}

void line_hidden_close(struct line_hidden *h)
{
    cht_scan_close(h->scan);
    h->scan = NULL;
}
