/* links_int: what the files of links share: links.c (the run), links_rows.c (reading), links_index.c (comparing), links_keep.c (what is kept).
 *
 * Memory: a row 24 bytes and its name, a term 12 bytes; on the side that is compared with, 8 bytes a term more, 24 to 48 a token, and for each
 * thread 8 a row, and 32 a row for columns; results of a block of rows as they are kept. pmi: 24 to 48 bytes a token of the vocabulary.
 */
#pragma once

#include "reduce/links.h"
#include "reduce/tokens.h"
#include "reduce/vector.h"

/* Rows in byte order of their names. The arrays are owned and have room for `cap` rows, `term_cap` terms, `text_cap` bytes. */
struct reduce_links_rows {
    uint32_t n, cap;
    uint64_t term_cap, text_cap, booked;
    uint64_t *start;   /* of the terms; n + 1 */
    uint64_t *name_at; /* n + 1 */
    double *square;    /* of the length; jaccard: the number of terms */
    uint32_t *token;   /* ascending in a row */
    double *weight;
    uint8_t *names;
};

/* How much there is on a side. */
struct reduce_links_extent {
    uint64_t rows, terms, text;
    uint32_t longest_row, longest_name;
};

struct reduce_links {
    struct reduce_run run; /* memory */
    struct reduce_params params;
    const struct reduce_links_config *cfg;
    struct reduce_links_result *result;
    struct cht_str to;
    uint64_t digest;
    struct reduce_links_extent left, right;
    uint64_t total;              /* pmi: of all counts */
    struct reduce_tokens tokens; /* pmi: how often a token was counted */
    unsigned threads;
    bool done; /* an earlier run of the same had all but the end of its switch */
};

static inline bool reduce_links_cancelled(const struct reduce_links *l)
{
    return l->cfg->cancel != NULL && atomic_load_explicit(l->cfg->cancel, memory_order_relaxed);
}

/* Counts payloads under a prefix, one at a time. Zero-initialise; after a next that said CHT_OK and not `end`, name, value and row are
 * those of the current one until the next call. */
struct reduce_links_cursor {
    struct reduce_links *l;
    struct cht_scan *scan; /* owned */
    struct cht_entry entries[64];
    size_t n, at;
    bool end;
    struct cht_str name, value;
    struct reduce_vector row; /* owned */
    struct cht_buf bytes;     /* of a long value */
    uint64_t malformed, too_long;
};
enum cht_rc reduce_links_open(struct reduce_links_cursor *c, struct reduce_links *l, struct cht_str prefix,
                              struct cht_str after, struct cht_err *err);
enum cht_rc reduce_links_step(struct reduce_links_cursor *c, struct cht_err *err);
void reduce_links_close(struct reduce_links_cursor *c);

/* Fills digest, left, right, total, tokens, and malformed and too_long of the result. */
enum cht_rc reduce_links_survey(struct reduce_links *l, struct cht_err *err);

/* Room in place of what the rows had; CHT_NO_MEMORY. */
enum cht_rc reduce_links_rows_room(struct reduce_links *l, struct reduce_links_rows *r, uint64_t rows,
                                   uint64_t terms, uint64_t text, struct cht_err *err);
/* Rows from the cursor (which is at one, or at its end) while there is room and at most `most`; a row that is too long for empty ones gets its room. */
enum cht_rc reduce_links_fill(struct reduce_links *l, struct reduce_links_rows *r,
                              struct reduce_links_cursor *c, uint32_t most, struct cht_err *err);
void reduce_links_rows_free(struct reduce_links *l, struct reduce_links_rows *r);
static inline struct cht_str reduce_links_name(const struct reduce_links_rows *r, uint32_t i)
{
    return (struct cht_str){r->names + r->name_at[i], (size_t)(r->name_at[i + 1] - r->name_at[i])};
}
int reduce_links_compare(struct cht_str a, struct cht_str b);

/* ---- comparing ---------------------------------------------------------------------------------------------------- */

#define REDUCE_LINKS_COLUMNS 16u
#define REDUCE_LINKS_STEP 16u       /* rows of a column that are looked at together */
#define REDUCE_LINKS_SCALE 32700.0f /* a weight of 1 in a column; so that sums of products stay below 2^15 */
#define REDUCE_LINKS_ONE 2u         /* jaccard: a token in a column */
#define REDUCE_LINKS_LEAST 1e-15f   /* the least weight in a list, so that an estimate of 0 means: not met */

/* Inverted lists over rows. */
struct reduce_links_index {
    struct reduce_tokens slots; /* number of the list + 1 */
    uint64_t *list;             /* owned; where each begins; slots.n + 1 */
    uint32_t *row;              /* owned; ascending in a list */
    float *weight;              /* owned; of the row with the length 1; jaccard: 1 */
    uint8_t *column;            /* owned; of each list: its column + 1, 0: it has none */
    uint16_t *dense;            /* owned; the columns one after the other: a weight of each row, scaled */
    size_t height;              /* of a column; zeros after the last row */
    uint64_t booked;
};
enum cht_rc reduce_links_index_make(struct reduce_links *l, struct reduce_links_index *x,
                                    const struct reduce_links_rows *rows, struct cht_err *err);
void reduce_links_index_free(struct reduce_links *l, struct reduce_links_index *x);

/* The results of the rows of the left side so far, as payloads. */
struct reduce_links_found {
    uint8_t **payload; /* owned, each as well */
    uint32_t *size;
    uint32_t n;
    uint64_t booked; /* beside the payloads */
};
enum cht_rc reduce_links_found_room(struct reduce_links *l, struct reduce_links_found *f, uint32_t n,
                                    struct cht_err *err);
void reduce_links_found_free(struct reduce_links *l, struct reduce_links_found *f);
/* Compares all of `left` with all of `right` and merges what is found into f. counted: rows go to the progress. */
enum cht_rc reduce_links_all(struct reduce_links *l, const struct reduce_links_rows *left,
                             const struct reduce_links_rows *right, const struct reduce_links_index *x,
                             struct reduce_links_found *f, struct cht_err *err);

/* ---- what is kept ------------------------------------------------------------------------------------------------- */

/* Where an earlier run of the same digest stopped: *after (owned by the buffer; empty: at the start). Begins anew if there is none. Brings a switch
 * that was cut off to its end; l->done: it was the same run's. */
enum cht_rc reduce_links_resume(struct reduce_links *l, struct cht_buf *after, struct cht_err *err);
/* Commits the results of the rows, and that it is done as far as the last of them. */
enum cht_rc reduce_links_keep(struct reduce_links *l, const struct reduce_links_rows *left,
                              const struct reduce_links_found *f, struct cht_err *err);
/* May what is under link:<metric>:<prefix> be deleted? CHT_NAMES_TAKEN. */
enum cht_rc reduce_links_free_names(struct reduce_links *l, struct cht_err *err);
enum cht_rc reduce_links_switch(struct reduce_links *l, struct cht_err *err);
