/* sheet: the contexts of one order that a commit writes, as entries (maker.h), and the operations that are made of them: their counts and
 * then their registrations, both in the order of the entries; vectors.
 *
 *   operations   counts, n | contexts, n | ... after those of all sheets: vectors, of the entries that `vector` names
 *
 * Internal to src/lm. Threads: made by one, read by several.
 */
#pragma once

#include "lm/load.h"
#include "lm/maker.h"

struct lm_sheet {
    struct lm_entry *entry; /* owned: n; what they lead to is their makers' */
    uint32_t *vector;       /* owned: nvectors indices of entries that were registered */
    size_t n, nvectors;
    size_t at, vectors_at; /* in the load: the first of them */
    unsigned order;
    const uint32_t *tokens; /* borrowed: the text */
};

enum cht_rc lm_sheet_begin(struct lm_sheet *t, size_t n, unsigned order, const uint32_t *tokens,
                           struct cht_err *err);
/* bytes: of the names and values of all that it makes. */
void lm_sheet_load(struct lm_sheet *t, struct lm_load *l, uint64_t bytes);
/* Its vectors, when all else is in the load. */
void lm_sheet_load_vectors(struct lm_sheet *t, struct lm_load *l);
void lm_sheet_free(struct lm_sheet *t);
