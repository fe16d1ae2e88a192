/* links_index: inverted lists by token over the rows of one side, and columns for the tokens of the longest lists (links_int.h; what they are for:
 * links_ask.c).
 */
#include "reduce/links_int.h"

#include "base/alloc.h"

#include <math.h>
#include <string.h>

#define COLUMN_PART 64u /* a token with a column is in at least one of that many rows */

/* ---- lists -------------------------------------------------------------------------------------------------------- */

static enum cht_rc count_lists(struct reduce_links *l, struct reduce_links_index *x,
                               const struct reduce_links_rows *rows, struct cht_err *err)
{
    for (uint64_t i = 0; i < rows->start[rows->n]; i++) {
        size_t before = x->slots.n;
        uint64_t *v = reduce_tokens_enter(&l->run, &x->slots, rows->token[i], err);
        if (v == NULL)
            return CHT_NO_MEMORY;
        if (x->slots.n > before)
            *v = x->slots.n;
    }
    return CHT_OK;
}

static void fill_lists(const struct reduce_links *l, struct reduce_links_index *x,
                       const struct reduce_links_rows *rows)
{
    uint64_t terms = rows->start[rows->n], sum = 0;
    memset(x->list, 0, (x->slots.n + 1) * sizeof *x->list);
    for (uint64_t i = 0; i < terms; i++)
        x->list[reduce_tokens_value(&x->slots, rows->token[i]) - 1]++;
    for (size_t i = 0; i <= x->slots.n; i++) {
        uint64_t n = x->list[i];
        x->list[i] = sum;
        sum += n;
    }
    for (uint32_t i = 0; i < rows->n; i++) {
        double length = sqrt(rows->square[i]);
        for (uint64_t k = rows->start[i]; k < rows->start[i + 1]; k++) {
            uint64_t at = x->list[reduce_tokens_value(&x->slots, rows->token[k]) - 1]++;
            float w = l->cfg->metric == REDUCE_JACCARD ? 1.0f : (float)(rows->weight[k] / length);
            x->row[at] = i;
            x->weight[at] = w > REDUCE_LINKS_LEAST ? w : REDUCE_LINKS_LEAST;
        }
    }
    for (size_t i = x->slots.n; i > 0; i--) /* each has moved to its end, which is where the next began */
        x->list[i] = x->list[i - 1];
    x->list[0] = 0;
}

/* The longest lists get a column each. */
static void choose_columns(const struct reduce_links *l, struct reduce_links_index *x, uint32_t rows)
{
    uint64_t length[REDUCE_LINKS_COLUMNS];
    size_t list[REDUCE_LINKS_COLUMNS];
    unsigned n = 0;
    for (size_t i = 0; i < x->slots.n; i++) {
        uint64_t len = x->list[i + 1] - x->list[i];
        if (len < rows / COLUMN_PART || (n == REDUCE_LINKS_COLUMNS && len <= length[n - 1]))
            continue;
        unsigned at = n < REDUCE_LINKS_COLUMNS ? n++ : n - 1;
        for (; at > 0 && length[at - 1] < len; at--) {
            length[at] = length[at - 1];
            list[at] = list[at - 1];
        }
        length[at] = len;
        list[at] = i;
    }
    memset(x->column, 0, x->slots.n + 1);
    memset(x->dense, 0, x->height * REDUCE_LINKS_COLUMNS * sizeof *x->dense);
    for (unsigned c = 0; c < n; c++) {
        uint16_t *column = x->dense + c * x->height;
        x->column[list[c]] = (uint8_t)(c + 1);
        for (uint64_t i = x->list[list[c]]; i < x->list[list[c] + 1]; i++)
            column[x->row[i]] = l->cfg->metric == REDUCE_JACCARD
                                    ? REDUCE_LINKS_ONE
                                    : (uint16_t)lrintf(fminf(x->weight[i], 1.0f) * REDUCE_LINKS_SCALE);
    }
}

enum cht_rc reduce_links_index_make(struct reduce_links *l, struct reduce_links_index *x,
                                    const struct reduce_links_rows *rows, struct cht_err *err)
{
    reduce_links_index_free(l, x);
    enum cht_rc rc = count_lists(l, x, rows, err);
    uint64_t terms = rows->start[rows->n];
    x->height = ((size_t)rows->n / REDUCE_LINKS_STEP + 1) * REDUCE_LINKS_STEP;
    uint64_t columns = (uint64_t)x->height * REDUCE_LINKS_COLUMNS;
    uint64_t bytes = (x->slots.n + 1) * (sizeof *x->list + 1) +
                     (terms + 1) * (sizeof *x->row + sizeof *x->weight) + columns * sizeof *x->dense;
    if (rc == CHT_OK)
        rc = reduce_take_memory(&l->run, bytes, err);
    if (rc != CHT_OK)
        return rc;
    x->booked = bytes;
    x->list = cht_malloc((x->slots.n + 1) * sizeof *x->list);
    x->row = cht_malloc((terms + 1) * sizeof *x->row);
    x->weight = cht_malloc((terms + 1) * sizeof *x->weight);
    x->column = cht_malloc(x->slots.n + 1);
    x->dense = cht_aligned_alloc(64, columns * sizeof *x->dense);
    if (x->list == NULL || x->row == NULL || x->weight == NULL || x->column == NULL || x->dense == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for lists of %llu entries", (unsigned long long)terms);
    fill_lists(l, x, rows);
    choose_columns(l, x, rows->n);
    return CHT_OK;
}

void reduce_links_index_free(struct reduce_links *l, struct reduce_links_index *x)
{
    reduce_tokens_free(&l->run, &x->slots);
    cht_free(x->list);
    cht_free(x->row);
    cht_free(x->weight);
    cht_free(x->column);
    cht_free(x->dense);
    reduce_give_memory(&l->run, x->booked);
    *x = (struct reduce_links_index){0};
}
