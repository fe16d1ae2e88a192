/* matrix_keep: what a matrix keeps in the database: its rows and columns, how far it is, the switch of what was made in parts.
 *
 *   matrun:<order>   version=1 u8 | phase u8 (0 rows, 1 columns, 2 they get their names, 3 done) | digest u64 | the next token u64 |
 *                    rows u64 | columns u64 | entries u64; big-endian. Gone when the run is done.
 *                    version=2 u8 | phase u8 (4: the old ones go, which are too many for one commit; then 2) | the same
 */
#include "lm/matrix_int.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "reduce/links.h"
#include "reduce/move.h"
#include "reduce/payload.h"

#include <stdlib.h>
#include <string.h>

#define NAME_MAX (CHT_LEN(REDUCE_MATRIX_NEW_TRANSPOSED) + 2 + 4)
#define RECORD 42u
#define ROW_BYTES (sizeof(struct cht_op) + NAME_MAX + REDUCE_MATRIX_HEAD) /* beside its entries */

/* <space><order>[:]; returns the bytes. */
static size_t put_prefix(uint8_t *to, const char *space, unsigned order, bool colon)
{
    size_t n = strlen(space);
    memcpy(to, space, n);
    to[n++] = (uint8_t)('0' + order);
    if (colon)
        to[n++] = ':';
    return n;
}

static const char *space_of(bool transposed, bool part)
{
    if (part)
        return transposed ? REDUCE_MATRIX_NEW_TRANSPOSED : REDUCE_MATRIX_NEW;
    return transposed ? REDUCE_MATRIX_TRANSPOSED : REDUCE_MATRIX;
}

static void put64(uint8_t *p, uint64_t v)
{
    reduce_payload_put32(p, (uint32_t)(v >> 32));
    reduce_payload_put32(p + 4, (uint32_t)v);
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)reduce_payload_get32(p) << 32 | reduce_payload_get32(p + 4);
}

/* ---- the record --------------------------------------------------------------------------------------------------- */

struct record {
    uint8_t name[NAME_MAX], value[RECORD];
};

static struct cht_op put_record(const struct lm_matrix_job *m, const struct lm_matrix_state *st,
                                struct record *r)
{
    const uint64_t numbers[] = {st->digest, st->next, st->rows, st->columns, st->entries};
    r->value[0] = st->phase == LM_MATRIX_CLEAR ? 2 : 1;
    r->value[1] = (uint8_t)st->phase;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        put64(r->value + 2 + 8 * i, numbers[i]);
    return (struct cht_op){.kind = CHT_OP_PAIR_PUT,
                           .name = {r->name, put_prefix(r->name, REDUCE_MATRIX_RUN, m->order, false)},
                           .value = {r->value, RECORD}};
}

static bool take_record(const uint8_t *p, size_t n, struct lm_matrix_state *st)
{
    if (n != RECORD || p[1] > LM_MATRIX_CLEAR || p[0] != (p[1] == LM_MATRIX_CLEAR ? 2 : 1))
        return false;
    *st = (struct lm_matrix_state){.phase = (enum lm_matrix_phase)p[1],
                                   .digest = get64(p + 2),
                                   .next = get64(p + 10),
                                   .rows = get64(p + 18),
                                   .columns = get64(p + 26),
                                   .entries = get64(p + 34)};
    return true;
}

/* Are as many rows and columns there as the record says? If not, it is one of nothing that is there. */
static enum cht_rc compare(struct lm_matrix_job *m, struct lm_matrix_state *st, struct cht_err *err)
{
    uint8_t name[NAME_MAX];
    const uint64_t wanted[2] = {st->rows, st->columns};
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < 2 && rc == CHT_OK; i++) {
        uint64_t pairs = 0;
        size_t n = put_prefix(name, space_of(i > 0, st->phase < LM_MATRIX_MOVE), m->order, true);
        rc = cht_store_count(m->run.store, (struct cht_str){name, n}, &pairs, err);
        if (pairs != wanted[i])
            *st = (struct lm_matrix_state){0};
    }
    return rc;
}

enum cht_rc lm_matrix_resume(struct lm_matrix_job *m, bool *some, struct lm_matrix_state *st,
                             struct cht_err *err)
{
    uint8_t name[NAME_MAX];
    struct cht_str record = {name, put_prefix(name, REDUCE_MATRIX_RUN, m->order, false)};
    uint64_t key;
    uint32_t size = 0;
    enum cht_rc rc = cht_store_pair_value(m->run.store, record, &key, &m->value, &size, err);
    *some = rc != CHT_PAIR_NOT_FOUND;
    if (rc == CHT_PAIR_NOT_FOUND)
        return CHT_OK;
    if (rc == CHT_KEY_NOT_FOUND || (rc == CHT_OK && !take_record(m->value.data, size, st)))
        return CHT_FAIL(err, CHT_NAMES_TAKEN, "the pair %.*s is in the way: it was not made by this call",
                        (int)record.n, (const char *)record.p);
    if (rc == CHT_CORRUPT) { /* it cannot say anything; it is written anew */
        *st = (struct lm_matrix_state){0};
        return CHT_OK;
    }
    if (rc != CHT_OK)
        return rc;
    m->recorded |= 1u << m->order;
    if (st->phase == LM_MATRIX_MOVE || st->phase == LM_MATRIX_CLEAR)
        return lm_matrix_move(m, st, err);
    return compare(m, st, err);
}

/* ---- what is in the way ------------------------------------------------------------------------------------------- */

static bool is_row(struct cht_str value)
{
    struct reduce_matrix_row row;
    return reduce_matrix_read(value.p, value.n, value.n, &row) &&
           value.n == REDUCE_MATRIX_HEAD + (size_t)row.n * REDUCE_MATRIX_RECORD;
}

struct old {
    uint8_t name[2][NAME_MAX];
};

/* Two operations that remove rows and columns of the order, or parts of them; CHT_NAMES_TAKEN if they must not. */
static enum cht_rc remove_old(const struct lm_matrix_job *m, bool part, struct old *o, struct cht_op ops[2],
                              struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < 2 && rc == CHT_OK; i++) {
        struct cht_str under = {o->name[i], put_prefix(o->name[i], space_of(i > 0, part), m->order, true)};
        ops[i] = (struct cht_op){.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = under};
        rc = reduce_links_check(m->run.store, under, is_row, m->cfg->cancel, err);
    }
    return rc;
}

/* Are the rows and columns that the order has too many for one commit? */
static enum cht_rc too_many(const struct lm_matrix_job *m, bool *are, struct cht_err *err)
{
    struct old o;
    struct cht_str under[2];
    for (unsigned i = 0; i < 2; i++)
        under[i] = (struct cht_str){o.name[i], put_prefix(o.name[i], space_of(i > 0, false), m->order, true)};
    return reduce_too_many(m->run.store, under, 2, are, err);
}

/* They go page by page, the columns first, after the record says so: a run that is cut off begins with it again. */
static enum cht_rc clear_old(struct lm_matrix_job *m, struct lm_matrix_state *st, const struct cht_op old[2],
                             struct cht_err *err)
{
    struct record record;
    st->phase = LM_MATRIX_CLEAR;
    struct cht_op op = put_record(m, st, &record);
    enum cht_rc rc = reduce_commit(m->run.store, &op, 1, err);
    for (unsigned i = 2; i-- > 0 && rc == CHT_OK;)
        rc = reduce_clear(m->run.store, old[i].name, err);
    return rc;
}

enum cht_rc lm_matrix_begin(struct lm_matrix_job *m, struct lm_matrix_state *st, struct cht_err *err)
{
    struct cht_op ops[3];
    struct old old;
    struct record record;
    enum cht_rc rc = remove_old(m, true, &old, ops, err);
    for (unsigned i = 0; i < 2 && rc == CHT_OK; i++)
        rc = reduce_clear(m->run.store, ops[i].name, err);
    ops[2] = put_record(m, st, &record);
    if (rc == CHT_OK)
        rc = reduce_commit(m->run.store, ops, 3, err);
    if (rc == CHT_OK)
        m->recorded |= 1u << m->order;
    return rc;
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

struct writing {
    struct cht_op *ops; /* owned: `size` bytes; names and payloads from its end on */
    size_t n, text, size;
};

static enum cht_rc writing_room(struct lm_matrix_job *m, struct writing *w, uint64_t bytes,
                                struct cht_err *err)
{
    enum cht_rc rc = reduce_take_memory(&m->run, bytes, err);
    if (rc != CHT_OK)
        return rc;
    w->ops = cht_malloc((size_t)bytes);
    if (w->ops == NULL) {
        reduce_give_memory(&m->run, bytes);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the rows of a matrix");
    }
    w->size = w->text = (size_t)bytes;
    return CHT_OK;
}

static void writing_free(struct lm_matrix_job *m, struct writing *w)
{
    cht_free(w->ops);
    reduce_give_memory(&m->run, w->size);
}

/* Where the row that begins at entry i ends. */
static size_t row_end(const struct lm_matrix_job *m, size_t i)
{
    size_t end = i;
    while (end < m->n && m->e[end].major == m->e[i].major)
        end++;
    return end;
}

static uint64_t count_rows(const struct lm_matrix_job *m)
{
    uint64_t rows = 0;
    for (size_t i = 0; i < m->n; i = row_end(m, i))
        rows++;
    return rows;
}

/* There is room for it. */
static void put_row(const struct lm_matrix_job *m, struct writing *w, bool part, size_t i, size_t end)
{
    uint8_t *name =
        (uint8_t *)w->ops + (w->text -= NAME_MAX + REDUCE_MATRIX_HEAD + (end - i) * REDUCE_MATRIX_RECORD);
    size_t n = put_prefix(name, space_of(m->transposed, part), m->order, true);
    reduce_payload_put32(name + n, m->e[i].major);
    n += 4;
    uint8_t *value = name + n;
    size_t size = reduce_matrix_begin(value, m->order, m->cfg->metric, (uint32_t)(end - i));
    for (size_t k = i; k < end; k++, size += REDUCE_MATRIX_RECORD)
        reduce_matrix_put(value + size, m->e[k].minor, m->e[k].value);
    w->ops[w->n++] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = {name, n}, .value = {value, size}};
}

/* All rows, or columns; returns how many. */
static uint64_t put_rows(const struct lm_matrix_job *m, struct writing *w)
{
    size_t before = w->n;
    for (size_t i = 0, end; i < m->n; i = end) {
        end = row_end(m, i);
        put_row(m, w, false, i, end);
    }
    return w->n - before;
}

static void turn(struct lm_matrix_job *m)
{
    for (size_t i = 0; i < m->n; i++) {
        uint32_t major = m->e[i].major;
        m->e[i].major = m->e[i].minor;
        m->e[i].minor = major;
    }
    m->transposed = !m->transposed;
    lm_matrix_compact(m);
}

static enum cht_rc commit_whole(struct lm_matrix_job *m, struct lm_matrix_state *st, struct writing *w,
                                struct cht_err *err)
{
    struct old old;
    struct record record;
    enum cht_rc rc = remove_old(m, false, &old, w->ops, err);
    w->n = 2;
    st->columns = put_rows(m, w);
    turn(m);
    st->rows = put_rows(m, w);
    st->entries = m->n;
    st->phase = LM_MATRIX_DONE;
    w->ops[w->n++] = put_record(m, st, &record);
    return rc == CHT_OK ? reduce_commit(m->run.store, w->ops, w->n, err) : rc;
}

enum cht_rc lm_matrix_keep(struct lm_matrix_job *m, struct lm_matrix_state *st, bool *fits,
                           struct cht_err *err)
{
    struct writing w = {0};
    uint64_t rows = count_rows(m);
    bool many = false;
    enum cht_rc rc = too_many(m, &many, err);
    *fits = false;
    if (rc != CHT_OK || many)
        return rc;
    lm_matrix_weigh(m);
    turn(m);
    rows += count_rows(m);
    uint64_t room = 3 * sizeof(struct cht_op) + rows * ROW_BYTES + 2 * (uint64_t)m->n * REDUCE_MATRIX_RECORD;
    rc = reduce_take_memory(&m->run, room, err);
    *fits = rc == CHT_OK &&
            !(cht_store_remote(m->run.store) && (rows + 3 > REDUCE_REMOTE_OPS || room > REDUCE_REMOTE_BYTES));
    if (rc == CHT_OK)
        reduce_give_memory(&m->run, room);
    if (!*fits) {
        turn(m);
        return CHT_OK;
    }
    rc = writing_room(m, &w, room, err);
    if (rc == CHT_OK)
        rc = commit_whole(m, st, &w, err);
    if (rc == CHT_OK)
        m->recorded |= 1u << m->order;
    writing_free(m, &w);
    return rc;
}

/* ---- parts -------------------------------------------------------------------------------------------------------- */

/* Commits the rows so far, and that all below `next` are there. */
static enum cht_rc flush(struct lm_matrix_job *m, struct writing *w, struct lm_matrix_state *st,
                         uint64_t next, struct cht_err *err)
{
    struct record record;
    enum cht_rc rc = lm_matrix_cancelled(m, err);
    if (rc != CHT_OK)
        return rc;
    st->next = next;
    if (next == LM_MATRIX_ALL && st->phase == LM_MATRIX_ROWS) {
        st->phase = LM_MATRIX_COLUMNS;
        st->next = 0;
    }
    w->ops[w->n++] = put_record(m, st, &record);
    rc = reduce_commit(m->run.store, w->ops, w->n, err);
    w->n = 0;
    w->text = w->size;
    return rc;
}

static enum cht_rc keep_rows(struct lm_matrix_job *m, struct writing *w, struct lm_matrix_state *st,
                             struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    uint64_t *rows = st->phase == LM_MATRIX_ROWS ? &st->rows : &st->columns;
    for (size_t i = 0, end; i < m->n && rc == CHT_OK; i = end) {
        end = row_end(m, i);
        size_t bytes = ROW_BYTES + sizeof *w->ops + (end - i) * REDUCE_MATRIX_RECORD;
        bool full = w->n * sizeof *w->ops + bytes > w->text ||
                    (w->n + 1 >= REDUCE_REMOTE_OPS && cht_store_remote(m->run.store));
        if (w->n > 0 && full)
            rc = flush(m, w, st, m->e[i].major, err);
        if (rc == CHT_OK && w->n * sizeof *w->ops + bytes > w->text)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "the %zu entries of token %u do not fit %llu bytes of memory",
                          end - i, m->e[i].major, (unsigned long long)m->params.memory_max);
        if (rc != CHT_OK)
            break;
        put_row(m, w, true, i, end);
        ++*rows;
        st->entries += st->phase == LM_MATRIX_ROWS ? end - i : 0;
    }
    return rc == CHT_OK ? flush(m, w, st, m->until, err) : rc;
}

/* A half of what is left of the memory, or as much as it takes. */
enum cht_rc lm_matrix_keep_part(struct lm_matrix_job *m, struct lm_matrix_state *st, struct cht_err *err)
{
    struct writing w = {0};
    uint64_t used = atomic_load_explicit(&m->run.used, memory_order_relaxed);
    uint64_t left = m->params.memory_max > used ? (m->params.memory_max - used) / 2 : 0;
    if (cht_store_remote(m->run.store) && left > REDUCE_REMOTE_BYTES)
        left = REDUCE_REMOTE_BYTES;
    uint64_t least = 2 * sizeof *w.ops;
    uint64_t most = least + count_rows(m) * ROW_BYTES + (uint64_t)m->n * REDUCE_MATRIX_RECORD;
    left = left > least ? left : least;
    enum cht_rc rc = writing_room(m, &w, most < left ? most : left, err);
    lm_matrix_weigh(m);
    if (rc == CHT_OK)
        rc = keep_rows(m, &w, st, err);
    writing_free(m, &w);
    return rc;
}

enum cht_rc lm_matrix_move(struct lm_matrix_job *m, struct lm_matrix_state *st, struct cht_err *err)
{
    uint8_t names[4][NAME_MAX];
    struct cht_op first[2], last;
    struct old old;
    struct record under_way, done;
    struct reduce_move move = {.n = 2,
                               .first = first,
                               .last = &last,
                               .n_last = 1,
                               .bytes = (st->rows + st->columns) * (REDUCE_MOVE_EACH + 2 * NAME_MAX),
                               .cancel = m->cfg->cancel};
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < 2; i++) {
        move.from[i] =
            (struct cht_str){names[i], put_prefix(names[i], space_of(i > 0, true), m->order, true)};
        move.to[i] =
            (struct cht_str){names[2 + i], put_prefix(names[2 + i], space_of(i > 0, false), m->order, true)};
    }
    if (st->phase != LM_MATRIX_MOVE) {
        rc = remove_old(m, false, &old, first, err);
        move.n_first = 2;
        bool many = false;
        if (rc == CHT_OK)
            rc = too_many(m, &many, err);
        if (rc == CHT_OK && (many || (st->phase == LM_MATRIX_CLEAR && cht_store_remote(m->run.store)))) {
            rc = clear_old(m, st, first, err);
            move.n_first = 0;
        }
    }
    st->phase = LM_MATRIX_MOVE;
    move.under_way = put_record(m, st, &under_way);
    st->phase = LM_MATRIX_DONE;
    last = put_record(m, st, &done);
    return rc == CHT_OK ? reduce_move(&m->run, &move, err) : rc;
}

enum cht_rc lm_matrix_end(struct lm_matrix_job *m, struct cht_err *err)
{
    struct cht_op ops[LM_ORDER_MAX + 1];
    uint8_t names[LM_ORDER_MAX + 1][NAME_MAX];
    size_t n = 0;
    for (unsigned order = 2; order <= LM_ORDER_MAX; order++) {
        if ((m->recorded & 1u << order) == 0)
            continue;
        ops[n] = (struct cht_op){.kind = CHT_OP_PAIR_DEL,
                                 .with_values = true,
                                 .name = {names[n], put_prefix(names[n], REDUCE_MATRIX_RUN, order, false)}};
        n++;
    }
    enum cht_rc rc = reduce_commit(m->run.store, ops, n, err);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc; /* somebody else has deleted it */
}
