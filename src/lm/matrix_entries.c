/* matrix_entries: the entries of an order, sorted and added up, and what they are worth (matrix_int.h). */
#include "lm/matrix_int.h"

#include <math.h>
#include <stdlib.h>

static int in_order(const void *x, const void *y)
{
    const struct lm_matrix_entry *a = x, *b = y;
    return a->major != b->major ? (a->major > b->major) - (a->major < b->major)
                                : (a->minor > b->minor) - (a->minor < b->minor);
}

void lm_matrix_compact(struct lm_matrix_job *m)
{
    size_t n = 0;
    if (m->n == 0)
        return;
    qsort(m->e, m->n, sizeof *m->e, in_order);
    for (size_t i = 0; i < m->n; i++) {
        if (n > 0 && in_order(&m->e[n - 1], &m->e[i]) == 0)
            m->e[n - 1].count += m->e[i].count;
        else
            m->e[n++] = m->e[i];
    }
    m->n = n;
}

void lm_matrix_weigh(struct lm_matrix_job *m)
{
    for (size_t i = 0; i < m->n; i++) {
        struct lm_matrix_entry *e = &m->e[i];
        e->value = (double)e->count;
        if (m->cfg->metric == REDUCE_MATRIX_COUNT)
            continue;
        uint64_t row = reduce_tokens_value(&m->row_sum, m->transposed ? e->minor : e->major);
        uint64_t column = reduce_tokens_value(&m->column_sum, m->transposed ? e->major : e->minor);
        bool known = row > 0 && column > 0; /* else it was counted since the first pass */
        e->value = known ? e->value / (double)row : 0.0;
        if (m->cfg->metric == REDUCE_MATRIX_PMI && known)
            e->value = log2(e->value * (double)m->total / (double)column);
    }
}

enum cht_rc lm_matrix_cancelled(const struct lm_matrix_job *m, struct cht_err *err)
{
    if (m->cfg->cancel != NULL && atomic_load_explicit(m->cfg->cancel, memory_order_relaxed))
        return CHT_FAIL(err, CHT_CANCELLED, "the matrix was cancelled");
    return CHT_OK;
}
