/* sheet: the contexts of one order that a commit writes, as entries (maker.h), and the operations that are made of them: their counts and
 * then their registrations, both in the order of the entries, then vectors.
 *
 *   operation   0 .. n-1 counts | n .. 2n-1 contexts | 2n .. vectors: of the entries that `vector` names
 *
 * Internal to src/lm. Threads: made by one, read by several.
 */
#pragma once

#include "lm/load.h"
#include "lm/maker.h"

struct lm_sheet {
    const struct lm_entry **entry; /* owned: n; the entries are their makers' */
    uint32_t *vector;              /* owned: nvectors indices of entries that were registered */
    size_t n, nvectors;
    unsigned order;
    const uint32_t *tokens; /* borrowed: the text */
};

enum cht_rc lm_sheet_begin(struct lm_sheet *t, size_t n, unsigned order, const uint32_t *tokens,
                           struct cht_err *err);
/* bytes: of the names and values of all that it makes. */
void lm_sheet_load(const struct lm_sheet *t, struct lm_load *l, uint64_t bytes);
void lm_sheet_free(struct lm_sheet *t);
