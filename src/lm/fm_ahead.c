/* fm_ahead: see fm_ahead.h. */
#include "lm/fm_ahead.h"

#include <string.h>

#include "base/alloc.h"

#define PAGES 64u

struct lm_fm_ahead {
    size_t n;
    struct cht_op op[PAGES];
    struct cht_buf buf[PAGES];
    uint8_t name[PAGES][LM_FM_NAME_MAX];
};

static size_t place_of(const struct lm_fm_ahead *a, struct cht_str name)
{
    size_t i = a->n; /* the context of rows that follow each other is often the same */
    while (i > 0 && (a->op[i - 1].name.n != name.n || memcmp(a->name[i - 1], name.p, name.n) != 0))
        i--;
    return i > 0 ? i - 1 : a->n;
}

/* False: there is no room. */
static bool add(struct lm_fm_ahead *a, unsigned order, const uint32_t *context, uint32_t token)
{
    uint8_t text[LM_FM_NAME_MAX];
    struct cht_str name = {text, lm_fm_name(order, context, token, text)};
    if (place_of(a, name) < a->n)
        return true;
    if (a->n == PAGES)
        return false;
    memcpy(a->name[a->n], name.p, name.n);
    a->op[a->n] = (struct cht_op){
        .kind = CHT_OP_PAIR_READ, .name = {a->name[a->n], name.n}, .with_values = true, .buf = &a->buf[a->n]};
    a->n++;
    return true;
}

static bool add_row(struct lm_fm_ahead *a, const struct lm_fm_rows *r, const uint32_t *row)
{
    if (r->written && !add(a, r->order, row, row[r->order - 1]))
        return false;
    return r->order < 2 || add(a, r->order - 1, row + 1, row[0]);
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_fm_ahead_read(struct lm_fm_ahead **a, struct cht_store *s, const struct lm_fm_rows *rows,
                             size_t from, size_t *until, struct cht_err *err)
{
    *until = rows->n;
    if (!cht_store_remote(s) || (!rows->written && rows->order < 2))
        return CHT_OK;
    if (*a == NULL && (*a = cht_calloc(1, sizeof **a)) == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for pages");
    (*a)->n = 0;
    size_t k = from;
    while (k < rows->n && add_row(*a, rows, rows->row + rows->at[k]))
        k++;
    *until = k > from ? k : from + 1;
    struct cht_commit c = {.ops = (*a)->op, .count = (*a)->n, .flags = CHT_COMMIT_UNORDERED};
    enum cht_rc rc = cht_store_commit(s, &c);
    if (rc != CHT_OK && err != NULL)
        *err = c.err;
    return rc;
}

const struct cht_op *lm_fm_ahead_find(const struct lm_fm_ahead *a, struct cht_str name)
{
    size_t i = a != NULL ? place_of(a, name) : 0;
    if (a == NULL || i == a->n || (a->op[i].rc != CHT_OK && a->op[i].rc != CHT_PAIR_NOT_FOUND))
        return NULL;
    return &a->op[i];
}

void lm_fm_ahead_free(struct lm_fm_ahead *a)
{
    for (size_t i = 0; a != NULL && i < PAGES; i++)
        cht_buf_free(&a->buf[i]);
    cht_free(a);
}
