/* apply_many: the operations of a commit that are made when they are looked at (struct cht_many), by the team of apply_team.h, also if that
 * is the committer alone. Of each operation stays its key, and whether its value, its name, or both go into the log:
 *
 *   key << 3 | DONE | VALUE | NAME       0: not run
 *
 * Of the links at the end without the key, which is that of their put.
 *
 * P1 the plan: which shard each operation belongs to
 * P2 the puts, P3 the links by shard, as T2 and T3 of apply_team.h. A link gets the key of its put. What the log says of them is
 *    not kept: cht_many_fill makes it again from the operations while the record is written
 * P4 what the threads left over is run by the committer, in order, and logged like any other operation, after the others
 */
#include "base/alloc.h"
#include "base/bytes.h"
#include "store/apply_team_int.h"
#include "store/db.h"

#include <string.h>

#define DONE 4u
#define VALUE 2u
#define NAME 1u
#define BITS 3u
#define PIECE ((size_t)4096) /* operations of the plan that a thread takes at a time */
#define VALUE_HEAD 11u
#define NAME_HEAD 9u

static bool make(const struct cht_many *m, size_t i, uint8_t *room, struct cht_op *op)
{
    *op = (struct cht_op){0};
    return m->make(m->ctx, i, room, op);
}

static size_t keyed(const struct cht_many *m) { return m->n - m->links; }

/* What stays of operation i; of a link at the end the bits. */
static uint64_t kept(const struct cht_many *m, size_t i)
{
    return i < keyed(m) ? m->key[i] : m->link[i - keyed(m)];
}

static void keep(const struct cht_many *m, size_t i, uint64_t key, uint64_t bits)
{
    if (i < keyed(m))
        m->key[i] = key << BITS | bits;
    else
        m->link[i - keyed(m)] = (uint8_t)bits;
}

/* Of an operation that was run. */
static uint64_t key_of(const struct cht_many *m, size_t i, const struct cht_op *op)
{
    return m->key[i < keyed(m) ? i : i - op->back] >> BITS;
}

static void plan(struct cht_part *p)
{
    struct cht_team *t = p->team;
    const struct cht_many *m = t->many;
    for (;;) {
        size_t from = PIECE * atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);
        if (from >= m->n)
            return;
        size_t to = m->n - from < PIECE ? m->n : from + PIECE;
        for (size_t i = from; i < to; i++) {
            struct cht_op op;
            t->list[i] = CHT_TEAM_REST;
            if (!make(m, i, p->room, &op))
                continue;
            unsigned shard = cht_shard_of_name(op.name, t->shards);
            t->list[i] = (uint16_t)(op.kind == CHT_OP_PAIR_LINK ? CHT_TEAM_LINKS * t->shards + shard : shard);
        }
    }
}

/* What no operation of many can be; else a link is one to the key of its put. CHT_PENDING: that is not known. */
static enum cht_rc prepare(const struct cht_many *m, size_t i, struct cht_op *op, struct cht_err *err)
{
    bool link = op->kind == CHT_OP_PAIR_LINK;
    if ((link && (op->back == 0 || op->back > i || i - op->back >= keyed(m))) ||
        (!link && (i >= keyed(m) || op->kind != CHT_OP_PAIR_PUT || op->value.n > CHT_MANY_VALUE_MAX ||
                   op->ttl_ms > 0 || op->ask != NULL)))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "operation %zu is none of many", i);
    if (!link)
        return CHT_OK;
    uint64_t put = m->key[i - op->back];
    if (put == 0)
        return CHT_PENDING;
    op->kind = CHT_OP_PAIR_SET;
    op->key = put >> BITS;
    return CHT_OK;
}

/* What the operations of a part have logged can be made again. Returns its bytes. */
static uint64_t note(struct cht_many *m, size_t i, const struct cht_op *op, const struct cht_logbuf *log,
                     struct cht_err *err)
{
    struct cht_logop entry;
    uint64_t bits = DONE, bytes = log->buf.len;
    for (size_t at = 0; at < log->buf.len;) {
        if (cht_logop_decode(log->buf.data, log->buf.len, &at, &entry, err) != CHT_OK)
            break;
        bits |= entry.kind == CHT_LOG_VALUE_PUT ? VALUE : NAME;
    }
    keep(m, i, op->key, bits);
    return bytes;
}

static void run_one(struct cht_part *p, size_t i)
{
    struct cht_team *t = p->team;
    struct cht_err err = {0};
    struct cht_op op;
    (void)make(t->many, i, p->room, &op);
    op.rc = prepare(t->many, i, &op, &err);
    if (op.rc == CHT_OK)
        cht_apply_op(&p->apply, t->commit, &op, 0, &err);
    if (op.rc == CHT_OK)
        p->logged += note(t->many, i, &op, &p->apply.log, &err);
    else if (op.rc != CHT_PENDING && err.code != op.rc)
        (void)CHT_FAIL(&err, op.rc, "%s", cht_rc_text(op.rc));
    if (op.rc != CHT_OK && op.rc != CHT_PENDING)
        cht_team_failed(p, i, &err);
    cht_logbuf_clear(&p->apply.log);
}

static void run_shard(struct cht_part *p, unsigned shard)
{
    const struct cht_team *t = p->team;
    const uint32_t *start = t->start + (unsigned)t->phase * t->shards + shard;
    for (uint32_t at = start[0]; at < start[1] && !atomic_load_explicit(&t->stop, memory_order_relaxed); at++)
        run_one(p, t->order[at]);
}

/* P4. */
static enum cht_rc run_left(struct cht_apply *a, struct cht_team *t, struct cht_commit *c)
{
    struct cht_many *m = c->many;
    for (size_t i = 0; i < m->n; i++) {
        struct cht_op op;
        if (kept(m, i) != 0 || !make(m, i, t->part[0].room, &op))
            continue;
        op.rc = prepare(m, i, &op, &c->err);
        if (op.rc == CHT_OK)
            cht_apply_op(a, c, &op, 0, &c->err);
        if (op.rc != CHT_OK) {
            if (c->err.code != op.rc)
                (void)CHT_FAIL(&c->err, op.rc, "%s", cht_rc_text(op.rc));
            return CHT_BATCH_FAILED;
        }
        keep(m, i, op.key, DONE);
    }
    return CHT_OK;
}

/* Rooms for the threads, and for the plan. */
static enum cht_rc reserve(struct cht_apply *a, struct cht_commit *c)
{
    const struct cht_many *m = c->many;
    if (a->team == NULL)
        a->team = cht_team_make(a);
    if (a->team == NULL)
        return CHT_FAIL(&c->err, CHT_NO_MEMORY, "no memory for a commit of %zu operations", m->n);
    enum cht_rc rc = cht_team_reserve(a->team, m->n, &c->err);
    for (unsigned i = 0; i < a->team->n && rc == CHT_OK; i++) {
        uint8_t *room = cht_realloc(a->team->part[i].room, m->room + 1);
        if (room == NULL)
            return CHT_FAIL(&c->err, CHT_NO_MEMORY, "no memory for an operation of %zu bytes", m->room);
        a->team->part[i].room = room;
    }
    return rc == CHT_OK ? cht_logbuf_break(&a->log, &c->err) : rc;
}

static enum cht_rc refuse(const struct cht_commit *c, struct cht_err *err)
{
    if ((c->flags & CHT_COMMIT_ATOMIC) == 0 || c->many->n > UINT32_MAX || c->many->links > c->many->n)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "at most %u operations, and atomic", UINT32_MAX);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_many_apply(struct cht_apply *a, struct cht_commit *c)
{
    static const struct cht_team_many made = {.plan = plan, .shard = run_shard};
    struct cht_many *m = c->many;
    c->failed = c->count;
    c->rc = refuse(c, &c->err);
    if (c->rc == CHT_OK)
        c->rc = reserve(a, c);
    if (c->rc != CHT_OK)
        return;
    struct cht_team *t = a->team;
    memset(m->key, 0, keyed(m) * sizeof *m->key); /* it may be the second time */
    if (m->links > 0)
        memset(m->link, 0, m->links);
    a->made = (struct cht_many_made){.many = m, .after = a->log.nparts};
    for (unsigned i = 0; i < t->shards; i++)
        (void)cht_apply_take(a, i, true);
    cht_team_begin(t, a, c);
    t->many = m;
    t->made = &made;
    cht_team_run(t, CHT_TEAM_PLAN);
    (void)cht_team_arrange(t, m->n);
    cht_team_arranged(t);
    cht_team_run(t, CHT_TEAM_PUTS);
    cht_team_run(t, CHT_TEAM_LINKS);
    cht_team_end(t, a, c);
    for (unsigned i = 0; i < t->n; i++)
        a->made.bytes += t->part[i].logged;
    if (c->rc == CHT_OK && !a->stuck)
        c->rc = run_left(a, t, c);
    c->failed = c->rc == CHT_OK ? 0 : c->count;
    t->many = NULL;
    t->made = NULL;
    if (c->rc != CHT_OK)
        a->made = (struct cht_many_made){0};
    a->made.room = t->part[0].room;
}

size_t cht_many_fill(void *ctx, uint8_t *out, size_t cap)
{
    struct cht_many_made *made = ctx;
    const struct cht_many *m = made->many;
    size_t used = 0;
    for (; made->next < 2 * m->n; made->next++) { /* puts, and then links, as they were run */
        struct cht_op op;
        bool links = made->next >= m->n;
        size_t i = links ? made->next - m->n : made->next;
        uint64_t key, bits = kept(m, i);
        if ((bits & (VALUE | NAME)) == 0 || links != ((bits & VALUE) == 0))
            continue;
        (void)make(m, i, made->room, &op);
        key = key_of(m, i, &op);
        size_t name = (bits & NAME) != 0 ? NAME_HEAD + op.name.n : 0;
        size_t value = (bits & VALUE) != 0 ? VALUE_HEAD + op.value.n : 0;
        if (name + value > cap - used)
            break;
        uint8_t *p = out + used;
        if (name > 0) {
            *p = CHT_LOG_PAIR_SET;
            cht_put48(p + 1, key);
            cht_put16(p + 7, (uint16_t)op.name.n);
            memcpy(p + NAME_HEAD, op.name.p, op.name.n);
        }
        p += name;
        if (value > 0) {
            *p = CHT_LOG_VALUE_PUT;
            cht_put48(p + 1, key);
            cht_put32(p + 7, (uint32_t)op.value.n);
            memcpy(p + VALUE_HEAD, op.value.p, op.value.n);
        }
        used += name + value;
    }
    return used;
}

bool cht_many_each(const struct cht_many *m, bool (*fn)(void *ctx, const struct cht_op *op), void *ctx)
{
    uint8_t *room = cht_malloc(m->room + 1);
    bool met = room == NULL; /* who knows */
    for (size_t i = 0; i < m->n && !met; i++) {
        struct cht_op op;
        if (kept(m, i) == 0 || !make(m, i, room, &op))
            continue;
        op.key = key_of(m, i, &op);
        met = fn(ctx, &op);
    }
    cht_free(room);
    return met;
}
