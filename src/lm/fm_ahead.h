/* fm_ahead: pages of a fixed model that an import is about to look at, read together if the store is on other machines: one after the other each
 * would take a trip.
 *
 * Threads: one.
 */
#pragma once

#include "lm/fm_format.h"

struct lm_fm_ahead;

/* Rows of words in the order of their keys, each the context of an n-gram, nearest token first, and its last token. */
struct lm_fm_rows {
    const uint32_t *row, *at; /* row + at[k]: the row k; borrowed, as all here */
    size_t n;
    unsigned order;
    bool written; /* pages of this order may be there */
};
/* From the row `from` on: the pages of rows, if `written`, and from order 2 on those of their contexts. What was read before is forgotten.
 * *until: the first row of which none was read; *a is made if it is NULL. With a store on this machine nothing is read, and *until is rows->n. */
enum cht_rc lm_fm_ahead_read(struct lm_fm_ahead **a, struct cht_store *s, const struct lm_fm_rows *rows,
                             size_t from, size_t *until, struct cht_err *err);
/* What was read of a page: rc CHT_OK with buf and size, or CHT_PAIR_NOT_FOUND. NULL: it was not, or not without a fault. a NULL is legal. */
const struct cht_op *lm_fm_ahead_find(const struct lm_fm_ahead *a, struct cht_str name);
void lm_fm_ahead_free(struct lm_fm_ahead *a); /* NULL is legal */
