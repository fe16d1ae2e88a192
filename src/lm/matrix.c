/* matrix: see matrix.h. The entries of an order are collected, sorted by row and added up, then by column; those that do not fit are left to
 * further passes over the counts, each for the tokens from where the last one ended.
 */
#include "lm/matrix_int.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "cheetah/scan.h"
#include "lm/names.h"
#include "lm/walk.h"
#include "reduce/links.h"
#include "reduce/move.h"
#include "reduce/payload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64u
#define SAY_EACH 16384u
#define ENTRIES_FIRST 1024u

/* Twice the entries, if they may have that; false: they have all. */
static enum cht_rc grow(struct lm_matrix_job *m, bool *grown, struct cht_err *err)
{
    size_t most = (size_t)(m->params.memory_max / 3 / sizeof *m->e),
           cap = m->cap > 0 ? 2 * m->cap : ENTRIES_FIRST;
    cap = cap < most ? cap : most;
    *grown = cap > m->cap && reduce_take_memory(&m->run, (cap - m->cap) * sizeof *m->e, err) == CHT_OK;
    if (!*grown)
        return m->cap > 0 ? CHT_OK : CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the entries of a matrix");
    struct lm_matrix_entry *e = cht_realloc(m->e, cap * sizeof *e);
    if (e == NULL) {
        reduce_give_memory(&m->run, (cap - m->cap) * sizeof *e);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu entries of a matrix", cap);
    }
    m->e = e;
    m->cap = cap;
    return CHT_OK;
}

/* Leaves the half with the greater tokens to the next pass. The entries are sorted. */
static enum cht_rc shrink(struct lm_matrix_job *m, struct cht_err *err)
{
    size_t n = m->n / 2;
    while (n > 0 && m->e[n - 1].major == m->e[n].major)
        n--;
    if (n == 0) /* the first row takes more than a half */
        for (n = m->n / 2; n < m->n && m->e[n].major == m->e[0].major;)
            n++;
    if (n == m->n) {
        return CHT_FAIL(err, CHT_NO_MEMORY, "the %zu entries of token %u do not fit %llu bytes of memory", n,
                        m->n > 0 ? m->e[0].major : 0, (unsigned long long)m->params.memory_max);
    }
    m->until = m->e[n].major;
    m->n = n;
    return CHT_OK;
}

static enum cht_rc room(struct lm_matrix_job *m, struct cht_err *err)
{
    bool grown;
    lm_matrix_compact(m);
    if (m->cap > 0 && m->n <= m->cap / 2)
        return CHT_OK;
    enum cht_rc rc = grow(m, &grown, err);
    if (rc != CHT_OK || grown || m->n <= m->cap / 4 * 3)
        return rc;
    return shrink(m, err);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

/* The first token of a context; false: it cannot be read. */
static bool first_token(struct lm_matrix_job *m, struct cht_str suffix, uint32_t *token)
{
    uint8_t text[LM_LENGTH(LM_CTX) + CHT_NAME_MAX];
    struct reduce_payload in;
    uint64_t key;
    uint32_t size = 0;
    memcpy(CHT_PUT(text, LM_CTX), suffix.p, suffix.n);
    struct cht_str name = {text, LM_LENGTH(LM_CTX) + suffix.n};
    if (name.n > CHT_NAME_MAX ||
        cht_store_pair_value(m->run.store, name, &key, &m->context, &size, NULL) != CHT_OK || size == 0 ||
        !reduce_payload_context(m->context.data, size, size, &in) || in.n == 0)
        return false;
    *token = reduce_payload_get32(in.records);
    return true;
}

/* p, pmi: adds to the sums of a row and of a column. */
static enum cht_rc add_sums(struct lm_matrix_job *m, uint32_t row, const struct lm_follower *f,
                            struct cht_err *err)
{
    if (m->cfg->metric == REDUCE_MATRIX_COUNT)
        return CHT_OK;
    uint64_t *sum = reduce_tokens_enter(&m->run, &m->row_sum, row, err);
    if (sum == NULL)
        return CHT_NO_MEMORY;
    *sum += f->count;
    sum = reduce_tokens_enter(&m->run, &m->column_sum, f->token, err);
    if (sum == NULL)
        return CHT_NO_MEMORY;
    *sum += f->count;
    m->total += f->count;
    return CHT_OK;
}

static enum cht_rc add_entry(struct lm_matrix_job *m, uint32_t row, const struct lm_follower *f,
                             struct cht_err *err)
{
    struct lm_matrix_entry e = {
        .major = m->transposed ? f->token : row, .minor = m->transposed ? row : f->token, .count = f->count};
    enum cht_rc rc = CHT_OK;
    if (e.major < m->from || e.major >= m->until)
        return CHT_OK;
    if (m->n == m->cap)
        rc = room(m, err);
    if (rc == CHT_OK && e.major < m->until)
        m->e[m->n++] = e;
    return rc;
}

/* survey: the first pass, which sees to what is needed of all. */
static enum cht_rc add_context(struct lm_matrix_job *m, const struct cht_entry *e, size_t prefix, bool survey,
                               struct cht_err *err)
{
    uint64_t total = 0;
    uint32_t token;
    enum cht_rc rc = (e->flags & CHT_ENTRY_DANGLING) != 0
                         ? CHT_OK
                         : lm_entry_counts(m->run.store, e, &m->value, &m->counts, &total, err);
    bool malformed = rc == CHT_MALFORMED_PAYLOAD || rc == CHT_CORRUPT;
    if ((rc != CHT_OK && !malformed) || (rc == CHT_OK && total == 0))
        return rc;
    if (malformed || !first_token(m, (struct cht_str){e->name + prefix, e->name_len - prefix}, &token)) {
        m->malformed += survey;
        return CHT_OK;
    }
    if (survey)
        m->digest = reduce_mix(reduce_mix_bytes(m->digest, (struct cht_str){e->name, e->name_len}), token);
    for (uint32_t i = 0; rc == CHT_OK && i < m->counts.n; i++) {
        const struct lm_follower *f = &m->counts.f[i];
        if (f->count == 0)
            continue;
        if (survey) {
            m->digest = reduce_mix(m->digest, (uint64_t)f->token << 32 | f->count);
            rc = add_sums(m, token, f, err);
        }
        if (rc == CHT_OK)
            rc = add_entry(m, token, f, err);
    }
    return rc;
}

static void say(const struct lm_matrix_job *m, uint64_t done, uint64_t total)
{
    char phase[16];
    (void)snprintf(phase, sizeof phase, "order %u", m->order); /* fits */
    if (m->cfg->say != NULL)
        m->cfg->say(m->cfg->ctx, phase, done, done > total ? done : total);
}

/* Collects what is from `from` on, as far as it fits. */
static enum cht_rc read_order(struct lm_matrix_job *m, struct cht_str under, bool survey, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX];
    size_t prefix = lm_prefix(LM_CNT, m->order, text), n = 1;
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = under, .values = true};
    struct cht_scan *scan = NULL;
    struct cht_entry e[BATCH];
    uint64_t done = 0, total = 0;
    m->n = 0;
    m->until = LM_MATRIX_ALL;
    enum cht_rc rc = cht_store_count(m->run.store, under, &total, err);
    if (rc == CHT_OK)
        rc = cht_scan_open(m->run.store, &cfg, &scan, err);
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(scan, e, BATCH, &n, err);
        for (size_t i = 0; i < n && rc == CHT_OK; i++) {
            rc = lm_matrix_cancelled(m, err);
            if (rc == CHT_OK)
                rc = add_context(m, &e[i], prefix, survey, err);
            if (rc == CHT_OK && done++ % SAY_EACH == 0)
                say(m, done - 1, total);
        }
    }
    cht_scan_close(scan);
    if (rc == CHT_OK)
        say(m, done, total);
    lm_matrix_compact(m);
    return rc;
}

/* ---- an order ----------------------------------------------------------------------------------------------------- */

static void forget(struct lm_matrix_job *m)
{
    reduce_tokens_free(&m->run, &m->row_sum);
    reduce_tokens_free(&m->run, &m->column_sum);
    cht_free(m->e);
    reduce_give_memory(&m->run, m->cap * sizeof *m->e);
    m->e = NULL;
    m->n = m->cap = 0;
    m->total = m->from = 0;
    m->transposed = false;
}

/* Rows, then columns, from where st says. read: the rows from the first token on are collected. */
static enum cht_rc run_parts(struct lm_matrix_job *m, struct cht_str under, struct lm_matrix_state *st,
                             bool read, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && !(st->phase == LM_MATRIX_COLUMNS && st->next == LM_MATRIX_ALL)) {
        m->transposed = st->phase == LM_MATRIX_COLUMNS;
        m->from = st->next;
        if (!read)
            rc = read_order(m, under, false, err);
        read = false;
        if (rc == CHT_OK)
            rc = lm_matrix_keep_part(m, st, err);
    }
    forget(m); /* the names take their memory */
    return rc == CHT_OK ? lm_matrix_move(m, st, err) : rc;
}

static enum cht_rc run_order(struct lm_matrix_job *m, struct cht_str under, struct cht_err *err)
{
    struct lm_matrix_state st = {0};
    bool some = false, whole = false;
    m->digest = reduce_mix_bytes(reduce_mix(1, (uint64_t)m->cfg->metric), under);
    enum cht_rc rc = lm_matrix_resume(m, &some, &st, err);
    if (rc == CHT_OK)
        rc = read_order(m, under, true, err);
    bool same = some && st.digest == m->digest;
    if (rc == CHT_OK && !same) {
        st = (struct lm_matrix_state){.digest = m->digest};
        rc = some ? lm_matrix_begin(m, &st, err) : CHT_OK;
        if (rc == CHT_OK && m->until == LM_MATRIX_ALL)
            rc = lm_matrix_keep(m, &st, &whole, err);
        if (rc == CHT_OK && !whole && !some)
            rc = lm_matrix_begin(m, &st, err);
    }
    if (rc == CHT_OK && st.phase != LM_MATRIX_DONE)
        rc = run_parts(m, under, &st, st.phase == LM_MATRIX_ROWS && st.next == 0, err);
    forget(m);
    struct lm_matrix_result r = {m->order, st.rows, st.columns, st.entries};
    if (rc == CHT_OK && m->cfg->result != NULL)
        m->cfg->result(m->cfg->ctx, &r);
    return rc;
}

static bool starts(struct cht_str s, struct cht_str with)
{
    return s.n >= with.n && (with.n == 0 || memcmp(s.p, with.p, with.n) == 0);
}

/* An order as a whole, if there is anything of it, or there are rows of what was counted before. */
static enum cht_rc run_whole_order(struct lm_matrix_job *m, struct cht_str all, struct cht_err *err)
{
    uint8_t text[] = REDUCE_MATRIX "0:";
    uint64_t pairs = 0;
    text[CHT_LEN(REDUCE_MATRIX)] = (uint8_t)('0' + m->order);
    enum cht_rc rc = cht_store_count(m->run.store, all, &pairs, err);
    if (rc == CHT_OK && pairs == 0)
        rc = cht_store_count(m->run.store, (struct cht_str){text, sizeof text - 1}, &pairs, err);
    return rc == CHT_OK && pairs > 0 ? run_order(m, all, err) : rc;
}

static enum cht_rc run(struct lm_matrix_job *m, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    bool any = false;
    for (m->order = 2; m->order <= LM_ORDER_MAX && rc == CHT_OK; m->order++) {
        uint8_t text[LM_PREFIX_MAX];
        struct cht_str all = {text, lm_prefix(LM_CNT, m->order, text)};
        if (starts(all, m->cfg->prefix))
            rc = run_whole_order(m, all, err);
        else if (starts(m->cfg->prefix, all))
            rc = run_order(m, m->cfg->prefix, err);
        else
            continue;
        any = true;
    }
    if (rc == CHT_OK && !any)
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                      "a matrix is made of the counts under " LM_CNT_ALL "2: to " LM_CNT_ALL "8:");
    if (rc == CHT_OK && m->recorded != 0)
        rc = lm_matrix_end(m, err);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_matrix_run(struct cht_store *s, const struct lm_matrix_config *cfg, uint64_t *malformed,
                          struct cht_err *err)
{
    struct lm_matrix_job m = {.cfg = cfg};
    m.run.store = s;
    m.run.p = &m.params;
    m.params =
        (struct reduce_params){.memory_max = cfg->memory_max > 0 ? cfg->memory_max : REDUCE_MEMORY_DEFAULT,
                               .book = cfg->book,
                               .unbook = cfg->unbook,
                               .book_ctx = cfg->ctx};
    enum cht_rc rc = reduce_lock(s, REDUCE_LINKS_LOCK, cfg->cancel, err);
    if (rc != CHT_OK)
        return rc;
    rc = run(&m, err);
    cht_store_unlock(s, REDUCE_LINKS_LOCK);
    *malformed = m.malformed;
    cht_buf_free(&m.value);
    cht_buf_free(&m.context);
    lm_counts_free(&m.counts);
    return rc;
}
