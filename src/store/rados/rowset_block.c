/* rowset_block: the changes of one shard as bytes.
 *
 *   u32 rows     | { u32 name length | u32 value length, 2^32-1: removed | name | value } ...
 *   u32 counters | { u32 name length | i64 by | name } ...
 *
 * The counters follow from the rows: how many P rows came and went under each counted prefix, how many values and bytes of values, and how
 * many of them end. So do the T rows, which say when: they come after the others.
 * If changes are kept, so do the L rows of those that are noted, which come last, and how many bytes they have.
 * Each counter is there once (cht_call_add).
 */
#include "base/alloc.h"
#include "base/bytes.h"
#include "store/rados/fold.h"
#include "store/rados/rowset.h"

#include <string.h>

#define REMOVED UINT32_MAX

struct counter {
    struct cht_str row; /* of the counter: 'C' and the escaped prefix, or "Nv", "Nb" */
    int64_t by;
    uint32_t hash;
};
struct counters {
    struct counter *v; /* owned; a table with open addressing */
    size_t n, mask;
    uint8_t *names; /* owned */
    size_t used;
    const struct cht_sip_key *key;
};

static void count(struct counters *c, struct cht_str row, int64_t by)
{
    uint32_t h = (uint32_t)cht_siphash(c->key, row.p, row.n);
    size_t at = h & c->mask;
    while (c->v[at].row.p != NULL &&
           (c->v[at].hash != h || c->v[at].row.n != row.n || memcmp(c->v[at].row.p, row.p, row.n) != 0))
        at = (at + 1) & c->mask;
    if (c->v[at].row.p == NULL) {
        memcpy(c->names + c->used, row.p, row.n);
        c->v[at] = (struct counter){{c->names + c->used, row.n}, 0, h};
        c->used += row.n;
        c->n++;
    }
    c->v[at].by += by;
}

static void count_value(struct counters *c, struct cht_str row, int64_t sign)
{
    struct cht_row r;
    if (row.p == NULL || !cht_row_read(row.p, row.n, &r) || !cht_row_live(&r))
        return;
    count(c, CHT_ROW_TEXT("Nv"), sign);
    count(c, CHT_ROW_TEXT("Nb"), sign * (int64_t)(r.len % 65536u));
    if (r.len >= 65536u)
        count(c, CHT_ROW_TEXT("Nq"), sign * (int64_t)(r.len / 65536u));
}

/* When the pair of a P row ends; 0: never, or it is none. */
static uint64_t end_of(const struct cht_rowset_row *r, struct cht_str value)
{
    struct cht_row row;
    return r->name.p[0] == 'P' && value.p != NULL && cht_row_read(value.p, value.n, &row) ? row.ends : 0;
}

/* The counted prefixes of a name, in its escaped form: ':' is not escaped, so they end where those of the name end. */
static void count_name(struct counters *c, struct cht_str row, int64_t by)
{
    uint8_t name[CHT_ROW_NAME_MAX];
    size_t lengths[3];
    memcpy(name, row.p, row.n);
    name[0] = 'C';
    unsigned n = cht_row_counted((struct cht_str){name + 1, row.n - 1}, lengths);
    for (unsigned i = 0; i < n; i++)
        count(c, (struct cht_str){name, 1 + lengths[i]}, by);
}

static bool is_noted(const struct cht_rowset *s, const struct cht_rowset_row *r)
{
    return r->note && s->keeps;
}

/* more: bytes of the M row. */
static void count_change(struct counters *c, const struct cht_rowset *s, const struct cht_rowset_row *r,
                         size_t more)
{
    uint8_t row[CHT_ROW_GENERATION];
    int64_t bytes = (int64_t)(CHT_ROW_GENERATION + r->name.n + CHT_ROW_CHANGED_SIZE + more);
    cht_row_of_generation(row, 'M', s->generation);
    count(c, (struct cht_str){row, sizeof row}, bytes);
    count(c, CHT_ROW_TEXT("Nl"), bytes);
}

static enum cht_rc count_all(const struct cht_rowset *s, unsigned shard, struct counters *c,
                             struct cht_err *err)
{
    size_t rows = 0, bytes = 64;
    for (size_t i = 0; i < s->n; i++) {
        if (s->rows[i].shard == shard && s->rows[i].dirty) {
            rows++;
            bytes += 3 * s->rows[i].name.n;
        }
    }
    size_t cap = 8;
    while (cap < 8 * (rows + 1))
        cap *= 2;
    c->mask = cap - 1;
    c->key = &s->db->env->key;
    c->v = cht_calloc(cap, sizeof *c->v);
    c->names = cht_malloc(bytes);
    if (c->v == NULL || c->names == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the counters of %zu rows", rows);
    size_t more = atomic_load(&s->db->lanes[shard].summed) != s->generation ? CHT_ROW_SUM_SIZE : 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct cht_rowset_row *r = &s->rows[i];
        if (r->shard == shard && is_noted(s, r)) {
            count_change(c, s, r, more);
            more = 0;
        }
        if (r->shard != shard || !r->dirty)
            continue;
        count_value(c, r->was, -1);
        count_value(c, r->now, 1);
        if (r->name.p[0] == 'P' && (r->was.p == NULL) != (r->now.p == NULL))
            count_name(c, r->name, r->now.p != NULL ? 1 : -1);
        int64_t ends = (end_of(r, r->now) != 0) - (end_of(r, r->was) != 0);
        if (ends != 0)
            count(c, CHT_ROW_TEXT("Ne"), ends);
    }
    return CHT_OK;
}

static enum cht_rc put(struct cht_buf *b, const void *p, size_t n, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (b->len + n > b->cap)
        rc = cht_buf_reserve(b, (b->len + n) * 2, err);
    if (rc == CHT_OK && n > 0) {
        memcpy(b->data + b->len, p, n);
        b->len += n;
    }
    return rc;
}

static enum cht_rc put32(struct cht_buf *b, uint32_t v, struct cht_err *err)
{
    uint8_t bytes[4];
    cht_put32(bytes, v);
    return put(b, bytes, sizeof bytes, err);
}

static enum cht_rc put_row(struct cht_buf *out, const struct cht_rowset_row *r, struct cht_err *err)
{
    enum cht_rc rc = put32(out, (uint32_t)r->name.n, err);
    if (rc == CHT_OK)
        rc = put32(out, r->now.p != NULL ? (uint32_t)r->now.n : REMOVED, err);
    if (rc == CHT_OK)
        rc = put(out, r->name.p, r->name.n, err);
    return rc == CHT_OK && r->now.p != NULL ? put(out, r->now.p, r->now.n, err) : rc;
}

/* The T rows of a P row that is changed: the one that goes, and the one that comes; *n: how many they are. out NULL: only that. */
static enum cht_rc put_ends(struct cht_buf *out, const struct cht_rowset_row *r, uint32_t *n,
                            struct cht_err *err)
{
    uint8_t name[CHT_ROW_NAME_MAX + CHT_ROW_KEY_SIZE];
    static const uint8_t there = 1;
    uint64_t was = end_of(r, r->was), now = end_of(r, r->now);
    struct cht_rowset_row row = {.now = {NULL, 0}};
    enum cht_rc rc = CHT_OK;
    if (was == now)
        return CHT_OK;
    *n += (uint32_t)(was != 0) + (uint32_t)(now != 0);
    if (out != NULL && was != 0) {
        row.name = (struct cht_str){name, cht_row_of_end(name, was, r->name)};
        rc = put_row(out, &row, err);
    }
    if (out != NULL && now != 0 && rc == CHT_OK) {
        row.name = (struct cht_str){name, cht_row_of_end(name, now, r->name)};
        row.now = (struct cht_str){&there, 1};
        rc = put_row(out, &row, err);
    }
    return rc;
}

/* The L row of a row that is noted: what the pair or value is after it. */
static enum cht_rc put_change(struct cht_buf *out, const struct cht_rowset *s, const struct cht_rowset_row *r,
                              struct cht_err *err)
{
    uint8_t name[CHT_ROW_CHANGED_NAME], value[CHT_ROW_CHANGED_SIZE];
    struct cht_row row;
    bool there = r->now.p != NULL && cht_row_read(r->now.p, r->now.n, &row);
    uint64_t key = r->name.p[0] == 'K' ? cht_row_key(r->name.p, r->name.n) : there ? row.key : 0;
    cht_row_changed_write(value, there, key);
    struct cht_rowset_row l = {.name = {name, cht_row_of_change(name, s->generation, r->name)},
                               .now = {value, sizeof value}};
    return put_row(out, &l, err);
}

static enum cht_rc put_counters(struct cht_buf *out, const struct counters *c, size_t *steps,
                                struct cht_err *err)
{
    uint32_t n = 0;
    for (size_t i = 0; i <= c->mask; i++)
        n += c->v[i].row.p != NULL && c->v[i].by != 0;
    *steps += n;
    enum cht_rc rc = put32(out, n, err);
    for (size_t i = 0; i <= c->mask && rc == CHT_OK; i++) {
        uint8_t by[8];
        if (c->v[i].row.p == NULL || c->v[i].by == 0)
            continue;
        cht_put64(by, (uint64_t)c->v[i].by);
        rc = put32(out, (uint32_t)c->v[i].row.n, err);
        if (rc == CHT_OK)
            rc = put(out, by, sizeof by, err);
        if (rc == CHT_OK)
            rc = put(out, c->v[i].row.p, c->v[i].row.n, err);
    }
    return rc;
}

void cht_rowset_summed(const struct cht_rowset *s, unsigned shard)
{
    bool noted = false;
    for (size_t i = 0; i < s->n && !noted; i++)
        noted = s->rows[i].shard == shard && is_noted(s, &s->rows[i]);
    if (noted)
        atomic_store(&s->db->lanes[shard].summed, s->generation);
}

size_t cht_rowset_weight(const struct cht_rowset *s, unsigned shard)
{
    size_t bytes = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct cht_rowset_row *r = &s->rows[i];
        if (r->shard != shard || !r->used)
            continue;
        bytes += r->name.n + (r->was.p != NULL ? r->was.n : 0) + 64;
        if (r->note)
            bytes += r->name.n + 64;
        if (r->dirty)
            bytes +=
                5 * r->name.n + (r->now.p != NULL ? r->now.n : 0) + 200; /* and the counters and T rows */
    }
    return bytes;
}

enum cht_rc cht_rowset_block(const struct cht_rowset *s, unsigned shard, struct cht_buf *out, size_t *steps,
                             struct cht_err *err)
{
    struct counters c = {0};
    uint32_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        n += s->rows[i].shard == shard && is_noted(s, &s->rows[i]);
        if (s->rows[i].shard != shard || !s->rows[i].dirty)
            continue;
        n++;
        (void)put_ends(NULL, &s->rows[i], &n, NULL); /* it only counts */
    }
    *steps = n;
    enum cht_rc rc = count_all(s, shard, &c, err);
    if (rc == CHT_OK)
        rc = put32(out, n, err);
    for (size_t i = 0; i < s->n && rc == CHT_OK; i++) {
        if (s->rows[i].shard == shard && s->rows[i].dirty)
            rc = put_row(out, &s->rows[i], err);
    }
    for (size_t i = 0; i < s->n && rc == CHT_OK; i++) {
        if (s->rows[i].shard == shard && s->rows[i].dirty)
            rc = put_ends(out, &s->rows[i], &n, err);
    }
    for (size_t i = 0; i < s->n && rc == CHT_OK; i++) {
        if (s->rows[i].shard == shard && is_noted(s, &s->rows[i]))
            rc = put_change(out, s, &s->rows[i], err);
    }
    if (rc == CHT_OK)
        rc = put_counters(out, &c, steps, err);
    cht_free(c.v);
    cht_free(c.names);
    return rc;
}

/* ---- applying ----------------------------------------------------------------------------------------------------- */

struct cursor {
    const uint8_t *p, *end;
};

static bool take(struct cursor *c, size_t n, const uint8_t **out)
{
    if ((size_t)(c->end - c->p) < n)
        return false;
    *out = c->p;
    c->p += n;
    return true;
}

static bool take32(struct cursor *c, uint32_t *v)
{
    const uint8_t *p;
    if (!take(c, 4, &p))
        return false;
    *v = cht_get32(p);
    return true;
}

static bool apply_row(struct cursor *c, struct cht_fold *set, struct cht_fold *remove)
{
    uint32_t nn, vn;
    const uint8_t *name, *value;
    if (!take32(c, &nn) || !take32(c, &vn) || nn == 0 || !take(c, nn, &name))
        return false;
    if (vn == REMOVED) {
        cht_fold_add(remove, (struct cht_str){name, nn}, (struct cht_str){NULL, 0});
        return true;
    }
    if (!take(c, vn, &value))
        return false;
    cht_fold_add(set, (struct cht_str){name, nn}, (struct cht_str){value, vn});
    return true;
}

static bool apply_counter(struct cursor *c, struct cht_call *call)
{
    uint32_t n;
    const uint8_t *by, *name;
    return take32(c, &n) && n > 0 && take(c, 8, &by) && take(c, n, &name) &&
           cht_call_add(call, (struct cht_str){name, n}, (int64_t)cht_get64(by), NULL) == CHT_OK;
}

enum cht_rc cht_block_apply(struct cht_str block, struct cht_call *call, struct cht_err *err)
{
    struct cursor c = {block.p, block.p + block.n};
    struct cht_fold set, remove;
    uint32_t n = 0;
    bool good = take32(&c, &n);
    cht_fold_begin(&set, CHT_FOLD_SET, call);
    cht_fold_begin(&remove, CHT_FOLD_REMOVE, call);
    for (uint32_t i = 0; i < n && good; i++)
        good = apply_row(&c, &set, &remove);
    cht_fold_end(&set);
    cht_fold_end(&remove);
    good = good && take32(&c, &n);
    for (uint32_t i = 0; i < n && good; i++)
        good = apply_counter(&c, call);
    if (good && c.p == c.end)
        return CHT_OK;
    return CHT_FAIL(err, CHT_CORRUPT, "the changes of a transaction cannot be read");
}
