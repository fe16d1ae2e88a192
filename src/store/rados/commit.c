/* commit: see commit.h.
 *
 * A commit is a job that goes on whenever the parts that it waits for are done: it holds no thread meanwhile.
 */
#include "store/rados/commit.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/io.h"
#include "store/rados/lane.h"
#include "store/rados/prefix.h"
#include "store/rados/txn.h"

#include <string.h>

#define WAIT_MAX_SHIFT 7u /* between two tries of a transaction: up to 128 ms */

struct commit {
    struct cht_job job; /* first */
    struct cht_rdb *db;
    struct cht_commit *c;
    struct cht_exec_op *ops;    /* owned, one an operation */
    struct cht_exec_op **order; /* owned: the order in which they are done */
    size_t at;                  /* in order: the first that no stage has had */
    size_t marked;              /* those before it are done */
    uint64_t read;              /* bytes that were read so far */
    uint64_t charged, bytes;    /* what counts of it as waiting: operations, and bytes of values */
    struct cht_rpart *parts;    /* owned, one a shard: nparts */
    unsigned nparts;
    struct cht_exec_op **lists; /* owned: the parts' lists */
    const struct cht_map *map;  /* by which the parts were made */
    _Atomic unsigned pending;   /* parts under way */
    struct cht_mutex *mu;       /* of whoever waits, NULL: nobody; with cond and over */
    struct cht_cond *cond;
    bool *over;
    struct cht_fences fences; /* CHT_COMMIT_FENCED */
    bool begun;
    bool here; /* the thread that waits is the one that runs go_on */
};

static void free_commit(struct commit *m)
{
    for (size_t i = 0; m->ops != NULL && i < m->c->count; i++)
        cht_under_free(m->ops[i].under);
    cht_free(m->ops);
    cht_free(m->order);
    cht_free(m->parts);
    cht_free(m->lists);
    cht_free(m);
}

/* What is under way of a database, so that a cluster that does not answer does not fill this process's memory. */
static void account(const struct commit *m, bool begins)
{
    struct cht_rdb *db = m->db;
    if (begins) {
        atomic_fetch_add_explicit(&db->waiting, m->charged, memory_order_relaxed);
        atomic_fetch_add_explicit(&db->waiting_bytes, m->bytes, memory_order_relaxed);
    } else {
        atomic_fetch_sub_explicit(&db->waiting, m->charged, memory_order_relaxed);
        atomic_fetch_sub_explicit(&db->waiting_bytes, m->bytes, memory_order_relaxed);
    }
}

/* The first operation that failed ends an atomic commit; here they are counted. */
static void finish(struct commit *m, enum cht_rc rc)
{
    struct cht_commit *c = m->c;
    struct cht_rdb *db = m->db;
    if (m->fences.n > 0) { /* before anybody can give the lock back */
        cht_fences_doubt(db, &m->fences, rc);
        for (size_t i = 0; i < c->count; i++)
            cht_fences_doubt(db, &m->fences, c->ops[i].rc); /* a prefix that is deleted by itself */
    }
    struct cht_mutex *mu = m->mu;
    c->rc = rc;
    for (size_t i = 0; i < c->count; i++) {
        if (m->ops[i].parts != 0 && c->ops[i].rc != CHT_OK && rc != CHT_TIMEOUT)
            cht_parts_remove(db, m->ops[i].parts);
    }
    if (rc == CHT_OK) {
        c->failed = 0;
        for (size_t i = 0; i < c->count; i++)
            c->failed += c->ops[i].rc != CHT_OK;
    }
    atomic_fetch_add_explicit(&db->commits, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&db->operations, c->count, memory_order_relaxed);
    account(m, false);
    struct cht_cond *cond = m->cond;
    bool *over = m->over;
    free_commit(m);
    if (mu == NULL) {
        c->done(c);
    } else {
        cht_mutex_lock(mu);
        *over = true;
        cht_cond_signal(cond);
        cht_mutex_unlock(mu);
    }
    cht_rdb_put(db);
}

/* ---- several shards as one ---------------------------------------------------------------------------------------- */

static void turns(struct cht_rdb *db, bool take)
{
    for (unsigned i = 0; i < CHT_MAP_MAX; i++) {
        if (take)
            cht_mutex_lock(&db->lanes[i].turn);
        else
            cht_mutex_unlock(&db->lanes[i].turn);
    }
}

static void back_off(unsigned tries)
{
    uint64_t r;
    cht_os_random(&r, sizeof r);
    cht_sleep_ns((r % (UINT64_C(1) << (tries < WAIT_MAX_SHIFT ? tries : WAIT_MAX_SHIFT))) * 1000000);
}

/* Operations of one transaction. stopped NULL: each that fails fails for itself; else the first ends it, *stopped is its index, and n if
 * there is none. */
static enum cht_rc run_ops(struct cht_exec *x, struct cht_exec_op **ops, size_t n, size_t *stopped)
{
    enum cht_rc rc = CHT_PENDING;
    uint64_t before = x->read;
    while (rc == CHT_PENDING) {
        cht_rowset_restart(x->set);
        x->read = before;
        rc = CHT_OK;
        if (stopped != NULL)
            *stopped = n;
        for (size_t i = 0; i < n; i++) {
            enum cht_rc one = cht_exec_run(x, ops[i]);
            if (one == CHT_PENDING) {
                rc = CHT_PENDING; /* those after it may want more: all is read at once */
            } else if (one != CHT_OK && rc == CHT_OK && stopped != NULL) {
                *stopped = i;
                return CHT_OK;
            }
        }
        if (rc == CHT_OK)
            rc = cht_fences_look_all(x->fences, x->set, x->err);
        if (rc == CHT_PENDING) {
            enum cht_rc got = cht_rowset_fetch(x->set, true, x->err);
            rc = got == CHT_OK ? CHT_PENDING : got;
        }
    }
    return rc;
}

static enum cht_rc transact(struct commit *m, struct cht_exec_op **ops, size_t n, size_t *stopped)
{
    struct cht_rowset set;
    uint64_t before = m->read;
    struct cht_exec x = {.db = m->db,
                         .set = &set,
                         .full = cht_link_full(&m->db->env->link),
                         .read_max = m->c->read_max,
                         .fences = &m->fences,
                         .err = &m->c->err};
    bool refused = true;
    enum cht_rc rc = CHT_OK;
    cht_rowset_init(&set, m->db, -1);
    set.at_once = stopped != NULL;
    while (rc == CHT_OK && refused) {
        refused = false;
        turns(m->db, true);
        x.read = before;
        rc = run_ops(&x, ops, n, stopped);
        if (rc == CHT_OK && (stopped == NULL || *stopped == n))
            rc = cht_txn_commit(&set, &refused, x.err);
        cht_rowset_learn(&set, rc == CHT_OK && !refused && (stopped == NULL || *stopped == n));
        turns(m->db, false);
        if (rc == CHT_OK && !refused && (stopped == NULL || *stopped == n))
            cht_parts_sweep(&set);
        atomic_fetch_add_explicit(&m->db->groups, 1, memory_order_relaxed);
        if (rc == CHT_OK && refused) {
            back_off(++set.tries);
            cht_rowset_renew(&set);
        }
    }
    m->read = x.read;
    cht_rowset_fini(&set);
    return rc;
}

static void run_atomic(struct commit *m)
{
    size_t stopped = m->c->count;
    enum cht_rc rc = transact(m, m->order, m->c->count, &stopped);
    if (rc == CHT_OK && stopped < m->c->count) {
        m->c->failed = stopped;
        for (size_t i = 0; i < m->c->count; i++) {
            if (m->ops[i].parts != 0)
                cht_parts_remove(m->db, m->ops[i].parts);
            m->ops[i].parts = 0;
        }
        rc = CHT_FAIL(&m->c->err, CHT_BATCH_FAILED, "operation %zu failed", stopped);
    }
    finish(m, rc);
}

/* ---- in order ------------------------------------------------------------------------------------------------------ */

static enum cht_rc run_ordered(struct commit *m)
{
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && m->at < m->c->count) {
        size_t n = 0, bytes = 0;
        for (; m->at + n < m->c->count && n < CHT_COMMIT_CHUNK && bytes < CHT_COMMIT_BYTES; n++) {
            const struct cht_op *op = m->order[m->at + n]->op;
            if (op->kind == CHT_OP_PREFIX_DEL)
                break;
            bytes += op->value.n;
        }
        if (n > 0)
            rc = transact(m, m->order + m->at, n, NULL);
        while (rc == CHT_BATCH_TOO_LARGE && n > 1) { /* long values that are replaced: fewer at once */
            n = n / 2;
            m->c->err = (struct cht_err){0};
            rc = transact(m, m->order + m->at, n, NULL);
        }
        if (n == 0)
            m->order[m->at]->op->rc = cht_prefix_delete(m->db, &m->fences, m->order[m->at]->op, &m->c->err);
        m->at += n > 0 ? n : 1;
    }
    return rc;
}

/* ---- stages: operations of all shards side by side ---------------------------------------------------------------- */

static void go_on(struct cht_job *job);

static void part_done(struct cht_rpart *p)
{
    struct commit *m = p->ctx;
    if (atomic_fetch_sub_explicit(&m->pending, 1, memory_order_acq_rel) != 1)
        return;
    if (m->at == m->c->count && m->c->count == 1 && p->at == p->n)
        go_on(&m->job); /* it only ends */
    else
        cht_jobs_submit(m->db->env->jobs, &m->job);
}

/* Does an operation have to be done by itself? */
static bool alone(const struct cht_exec_op *o)
{
    return o->op->kind == CHT_OP_PREFIX_DEL || (o->op->kind == CHT_OP_PAIR_LINK && o->op->back == 0) ||
           o->op->kind == CHT_OP_RESERVE || o->op->kind == CHT_OP_PURGE;
}

/* The shard of an operation. A key for an insert is taken here. CHT_PENDING: the operation that a link follows is not done. */
static enum cht_rc shard_of(struct commit *m, struct cht_exec_op *o, unsigned *shard)
{
    const struct cht_op *op = o->op;
    uint32_t bucket;
    switch ((unsigned)op->kind) { /* also those of a restore */
    case CHT_OP_INSERT:
        if (o->fresh == 0) {
            enum cht_rc rc = cht_leases_key(m->db, &o->fresh, &m->c->err);
            if (rc != CHT_OK)
                return rc;
        }
        bucket = cht_row_bucket_of_key(o->fresh);
        break;
    case CHT_OP_EDIT:
    case CHT_OP_DELETE:
    case CHT_OP_PUT:
    case CHT_OP_READ:
    case CHT_REDO_VALUE:
        bucket = cht_row_bucket_of_key(op->key);
        break;
    case CHT_OP_PAIR_LINK:
        if (!m->ops[(size_t)(op - m->c->ops) - op->back].done)
            return CHT_PENDING;
        bucket = cht_row_bucket(op->name);
        break;
    default:
        bucket = cht_row_bucket(op->name);
        break;
    }
    *shard = cht_map_locate(m->map, bucket);
    return CHT_OK;
}

/* Shares n operations out among the parts, in their order; `to` has room for them. */
static enum cht_rc share_out(struct commit *m, struct cht_exec_op **from, size_t n, struct cht_exec_op **to)
{
    size_t count[CHT_MAP_MAX] = {0}, at[CHT_MAP_MAX] = {0}, sum = 0;
    unsigned shard = 0;
    if (m->map->top > m->nparts) {
        struct cht_rpart *parts = cht_realloc(m->parts, m->map->top * sizeof *parts);
        if (parts == NULL)
            return CHT_FAIL(&m->c->err, CHT_NO_MEMORY, "no memory for a commit of %zu operations", n);
        m->parts = parts;
        m->nparts = m->map->top;
    }
    for (size_t i = 0; i < n; i++) {
        enum cht_rc rc = shard_of(m, from[i], &shard);
        if (rc != CHT_OK)
            return rc;
        count[shard]++;
    }
    for (unsigned s = 0; s < m->nparts; s++) {
        m->parts[s] = (struct cht_rpart){.shard = s,
                                         .ops = to + sum,
                                         .n = count[s],
                                         .fences = m->fences.n > 0 ? &m->fences : NULL,
                                         .read_max = m->c->read_max,
                                         .done = part_done,
                                         .ctx = m};
        at[s] = sum;
        sum += count[s];
    }
    for (size_t i = 0; i < n; i++) {
        (void)shard_of(m, from[i], &shard); /* as before */
        to[at[shard]++] = from[i];
    }
    return CHT_OK;
}

/* The next operations, up to one that has to be done alone. They lie shard by shard in m->lists. */
static enum cht_rc next_stage(struct commit *m, size_t *end)
{
    unsigned shard;
    size_t i = m->at;
    m->map = cht_rdb_map(m->db);
    for (; i < m->c->count && !alone(m->order[i]); i++) {
        enum cht_rc rc = shard_of(m, m->order[i], &shard);
        if (rc == CHT_PENDING)
            break;
        if (rc != CHT_OK)
            return rc;
    }
    *end = i;
    return share_out(m, m->order + m->at, i - m->at, m->lists);
}

/* A shard was divided: what is not done yet is shared out again. Operations of one name were in one part, so their order stays. */
static enum cht_rc stage_again(struct commit *m)
{
    size_t n = 0;
    struct cht_exec_op **left = cht_calloc(m->c->count + 1, sizeof(struct cht_exec_op *));
    if (left == NULL)
        return CHT_FAIL(&m->c->err, CHT_NO_MEMORY, "no memory for a commit of %zu operations", m->c->count);
    for (unsigned s = 0; s < m->nparts; s++) {
        for (size_t i = m->parts[s].at; i < m->parts[s].n; i++)
            left[n++] = m->parts[s].ops[i];
    }
    m->map = cht_rdb_map(m->db);
    enum cht_rc rc = share_out(m, left, n, m->lists);
    cht_free(left);
    return rc;
}

/* Starts the parts that have something left; false if none has. */
static bool push_parts(struct commit *m)
{
    unsigned n = 0;
    for (unsigned s = 0; s < m->nparts; s++)
        n += m->parts[s].at < m->parts[s].n;
    if (n == 0)
        return false;
    atomic_store_explicit(&m->pending, n, memory_order_release);
    for (unsigned s = 0, left = n; left > 0; s++) { /* after the last one m may be gone */
        if (m->parts[s].at >= m->parts[s].n)
            continue;
        left--;
        if (n == 1 && m->mu != NULL && m->here) /* its own thread: nobody is woken for it */
            cht_lane_push_here(&m->db->lanes[s], &m->parts[s]);
        else
            cht_lane_push(&m->db->lanes[s], &m->parts[s]);
    }
    return true;
}

static enum cht_rc one_alone(struct commit *m, struct cht_exec_op *o)
{
    if (o->op->kind != CHT_OP_PREFIX_DEL)
        return transact(m, &o, 1, NULL);
    o->op->rc = cht_prefix_delete(m->db, &m->fences, o->op, &m->c->err);
    return CHT_OK;
}

/* What the stage that has just ended left: operations that need several shards. */
static enum cht_rc end_stage(struct commit *m)
{
    bool crossed = false;
    for (unsigned s = 0; s < m->nparts; s++) {
        const struct cht_rpart *p = &m->parts[s];
        if (p->rc != CHT_OK) {
            m->c->err = p->err;
            return p->rc;
        }
        crossed = crossed || p->crossed;
    }
    if (crossed && m->map != cht_rdb_map(m->db))
        return stage_again(m);
    for (unsigned s = 0; s < m->nparts; s++) {
        struct cht_rpart *p = &m->parts[s];
        if (!p->crossed)
            continue;
        enum cht_rc rc = one_alone(m, p->ops[p->at]);
        if (rc != CHT_OK)
            return rc;
        p->at++;
        p->crossed = false;
    }
    return CHT_OK;
}

/* On a thread of the pool: at the start, and whenever all parts of a stage are done. */
static void go_on(struct cht_job *job)
{
    struct commit *m = (struct commit *)job;
    size_t end = m->at;
    m->here = m->begun ? false : m->here;
    m->begun = true;
    if ((m->c->flags & CHT_COMMIT_ATOMIC) != 0) {
        run_atomic(m);
        return;
    }
    if (m->c->count > 1 && (m->c->flags & CHT_COMMIT_UNORDERED) == 0) {
        finish(m, run_ordered(m));
        return;
    }
    enum cht_rc rc = end_stage(m);
    while (rc == CHT_OK) {
        if (push_parts(m))
            return;
        for (; m->marked < m->at; m->marked++)
            m->order[m->marked]->done = true;
        if (m->at == m->c->count)
            break;
        rc = next_stage(m, &end);
        if (rc == CHT_OK && end == m->at) {
            rc = one_alone(m, m->order[m->at]);
            end++;
        }
        m->at = end;
    }
    finish(m, rc);
}

/* ---- beginning ----------------------------------------------------------------------------------------------------- */

static bool is_link_back(const struct cht_op *op) { return op->kind == CHT_OP_PAIR_LINK && op->back > 0; }

/* CHT_COMMIT_UNORDERED: upserts, links with `back`, all others. */
static void put_in_order(struct commit *m)
{
    size_t n = 0;
    bool any = (m->c->flags & (CHT_COMMIT_UNORDERED | CHT_COMMIT_ATOMIC)) == CHT_COMMIT_UNORDERED;
    for (unsigned pass = 0; pass < (any ? 3u : 1u); pass++) {
        for (size_t i = 0; i < m->c->count; i++) {
            const struct cht_op *op = &m->c->ops[i];
            unsigned mine = !any ? 0 : op->kind == CHT_OP_PAIR_PUT ? 0 : is_link_back(op) ? 1 : 2;
            if (mine == pass)
                m->order[n++] = &m->ops[i];
        }
    }
}

static enum cht_rc refuse(const struct cht_commit *c, struct cht_err *err)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->ops[i].kind == CHT_OP_PAIR_LINK && c->ops[i].back > i)
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "there are no %u operations before this one",
                            (unsigned)c->ops[i].back);
    }
    return CHT_OK;
}

static uint64_t at_most(uint64_t n, uint64_t most) { return n < most ? n : most; }

/* A large commit is in memory already, and counts as a quarter of the room: beside some there is room for others, however large it is. One commit
 * is always let in. */
static enum cht_rc crowded(const struct commit *m, struct cht_err *err)
{
    const struct cht_rdb *db = m->db;
    uint64_t ops = atomic_load_explicit(&db->waiting, memory_order_relaxed);
    uint64_t bytes = atomic_load_explicit(&db->waiting_bytes, memory_order_relaxed);
    unsigned most = db->env->cfg.queue_ops;
    if (ops == 0 || (ops + m->charged <= most && bytes + m->bytes <= CHT_COMMIT_WAITING_BYTES))
        return CHT_OK;
    return CHT_FAIL(err, CHT_OVERLOADED, "%llu operations wait for the cluster", (unsigned long long)ops);
}

static enum cht_rc make_lists(struct commit *m)
{
    size_t n = m->c->count + 1;
    m->ops = cht_calloc(n, sizeof *m->ops);
    m->order = cht_calloc(n, sizeof(struct cht_exec_op *));
    m->lists = cht_calloc(n, sizeof(struct cht_exec_op *));
    m->nparts = m->map->top;
    m->parts = cht_calloc(m->nparts, sizeof *m->parts);
    if (m->ops == NULL || m->order == NULL || m->lists == NULL || m->parts == NULL)
        return CHT_FAIL(&m->c->err, CHT_NO_MEMORY, "no memory for a commit of %zu operations", m->c->count);
    return CHT_OK;
}

static enum cht_rc make(struct cht_rdb *db, struct cht_commit *c, struct commit **out)
{
    c->err = (struct cht_err){0};
    enum cht_rc rc = refuse(c, &c->err);
    if (rc != CHT_OK)
        return rc;
    struct commit *m = cht_calloc(1, sizeof *m);
    if (m == NULL)
        return CHT_FAIL(&c->err, CHT_NO_MEMORY, "no memory for a commit");
    *m = (struct commit){.job = {.run = go_on}, .db = db, .c = c, .map = cht_rdb_map(db)};
    for (size_t i = 0; i < c->count; i++)
        m->bytes += c->ops[i].value.n;
    m->charged = at_most(c->count, ((uint64_t)db->env->cfg.queue_ops + 3) / 4);
    m->bytes = at_most(m->bytes, CHT_COMMIT_WAITING_BYTES / 4);
    rc = crowded(m, &c->err);
    if (rc == CHT_OK)
        rc = make_lists(m);
    if (rc != CHT_OK) {
        free_commit(m);
        return rc;
    }
    for (size_t i = 0; i < c->count; i++) {
        m->ops[i].op = &c->ops[i];
        c->ops[i].rc = CHT_PENDING;
    }
    if ((c->flags & CHT_COMMIT_FENCED) != 0)
        cht_guards_fences(db, &m->fences);
    put_in_order(m);
    account(m, true);
    *out = m;
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

/* To find its shard. */
static bool no_network(const struct cht_op *op)
{
    return op->kind == CHT_OP_PAIR_PUT || op->kind == CHT_OP_EDIT || op->kind == CHT_OP_DELETE ||
           op->kind == CHT_OP_PUT || op->kind == CHT_OP_PAIR_DEL || op->kind == CHT_OP_PAIR_SET;
}

enum cht_rc cht_rcommit_submit(struct cht_store *s, struct cht_commit *c)
{
    struct commit *m;
    c->rc = make(cht_rdb(s), c, &m);
    if (c->rc != CHT_OK)
        return c->rc;
    cht_rdb_hold(m->db);
    if (c->count == 1 && c->flags == 0 && no_network(c->ops))
        go_on(&m->job); /* as far as its lane */
    else
        cht_jobs_submit(m->db->env->jobs, &m->job);
    return CHT_PENDING;
}

enum cht_rc cht_rcommit_run(struct cht_store *s, struct cht_commit *c)
{
    struct commit *m;
    struct cht_mutex mu;
    struct cht_cond cond;
    bool over = false;
    c->rc = make(cht_rdb(s), c, &m);
    if (c->rc != CHT_OK)
        return c->rc;
    c->rc = cht_mutex_cond_init(&mu, &cond, &c->err);
    if (c->rc != CHT_OK) {
        account(m, false);
        free_commit(m);
        return c->rc;
    }
    m->mu = &mu;
    m->cond = &cond;
    m->over = &over;
    cht_rdb_hold(m->db);
    m->here = true;
    go_on(&m->job);
    cht_mutex_lock(&mu);
    while (!over)
        cht_cond_wait(&cond, &mu);
    cht_mutex_unlock(&mu);
    cht_cond_fini(&cond);
    cht_mutex_fini(&mu);
    return c->rc;
}
