/* lane: see lane.h. */
#include "store/rados/lane.h"

#include "base/clock.h"
#include "os/code.h"
#include "store/rados/txn.h"
#include "store/rados/txn_int.h"

#define CAREFUL 16u   /* groups without guesses after a wrong one */
#define HALVE_FROM 2u /* refusals */
#define PARTS_MAX 256u

struct window { /* of a part, in this group */
    struct cht_rpart *part;
    size_t from, to, done; /* done: up to where it was run */
    uint64_t read;         /* bytes, with those of the part's windows before */
    enum cht_rc rc;        /* CHT_DATABASE_BUSY: its locks are another's */
};
struct group {
    struct cht_lane *lane;
    struct window w[PARTS_MAX];
    size_t n, ops;
    struct cht_rowset set;
    struct cht_err err;
};

static void take_back(struct cht_lane *l, struct cht_rpart *p)
{
    p->next = l->first;
    if (l->first == NULL)
        l->last = &p->next;
    l->first = p;
}

/* Under the lane's mutex: what waits, up to the limits. */
static void gather(struct group *g)
{
    struct cht_lane *l = g->lane;
    size_t bytes = 0;
    bool full = false;
    while (l->first != NULL && g->n < PARTS_MAX && !full) {
        struct cht_rpart *p = l->first;
        size_t to = p->at;
        while (to < p->n && !full) {
            bytes += p->ops[to]->op->value.n;
            full = g->ops > 0 && (g->ops >= CHT_LANE_OPS || bytes > CHT_LANE_BYTES);
            to += !full;
            g->ops += !full;
        }
        if (to == p->at)
            break;
        l->first = p->next;
        if (l->first == NULL)
            l->last = &l->first;
        g->w[g->n++] = (struct window){p, p->at, to, p->at, p->read, CHT_OK};
    }
}

/* Runs every operation of the group once. CHT_PENDING: rows are wanted. */
static enum cht_rc run_all(struct group *g, bool guess, bool fresh)
{
    bool full = cht_link_full(&g->lane->db->env->link);
    cht_rowset_restart(&g->set);
    for (size_t i = 0; i < g->n; i++) {
        struct window *w = &g->w[i];
        struct cht_exec x = {.db = g->lane->db,
                             .set = &g->set,
                             .full = full,
                             .guess = guess,
                             .fresh = fresh,
                             .read_max = w->part->read_max,
                             .read = w->part->read,
                             .err = &w->part->err};
        w->part->crossed = false;
        w->done = w->from;
        w->rc = CHT_OK;
        if (w->part->fences != NULL)
            w->rc = cht_fences_look(w->part->fences, &g->set, g->lane->shard, guess, &w->part->err);
        if (w->rc != CHT_OK && w->rc != CHT_PENDING)
            continue;
        for (; w->done < w->to; w->done++) {
            g->set.crossed = false;
            if (cht_exec_run(&x, w->part->ops[w->done]) == CHT_PENDING && g->set.crossed) {
                w->part->crossed = true;
                break;
            }
        }
        w->read = x.read;
    }
    return g->set.wants ? CHT_PENDING : CHT_OK;
}

/* After many refusals: fewer operations, the first of them. */
static void halve(struct group *g)
{
    size_t left = g->ops / 2;
    g->ops = left;
    for (size_t i = 0; i < g->n; i++) {
        size_t n = g->w[i].to - g->w[i].from;
        n = n < left ? n : left;
        g->w[i].to = g->w[i].from + n;
        left -= n;
    }
}

/* One write. *refused: it has to be made again; *large: with fewer operations. */
static enum cht_rc write_group(struct group *g, bool *refused, bool *large)
{
    bool changes;
    enum cht_rc rc = CHT_OK;
    *refused = *large = false;
    (void)cht_rowset_touches(&g->set, g->lane->shard, &changes);
    if (!changes && !g->set.guessed)
        return CHT_OK;
    if (g->ops > 1 && cht_rowset_weight(&g->set, g->lane->shard) > CHT_ROWSET_WRITE_MAX) {
        *refused = *large = true; /* long values that are compared or replaced */
        return CHT_OK;
    }
    int r = cht_txn_write_one(&g->set, g->lane->shard, &rc, &g->err);
    *refused = rc == CHT_OK && r < 0;
    if (rc == CHT_OK && r == 0)
        cht_parts_sweep(&g->set);
    return rc;
}

/* A write was refused: only because the shard has another generation by now (cut.h)? Then it goes again as it is. */
static enum cht_rc is_later(struct group *g, bool *later)
{
    struct cht_epoch e = {0};
    struct cht_rdb *db = g->lane->db;
    bool again;
    *later = false;
    if (g->set.generation == 0 && cht_rdb_generation(db) == 0)
        return CHT_OK; /* no changes are kept */
    enum cht_rc rc = cht_txn_look(db, g->lane->shard, &e, &g->err);
    uint64_t before =
        e.generation; /* a cut had the lock, if it is another then: this server may have heard of it earlier */
    if (rc == CHT_OK && e.lock != 0) {
        rc = cht_txn_settle(db, g->lane->shard, &e, true, &again, &g->err);
        if (rc == CHT_OK)
            rc = cht_txn_look(db, g->lane->shard, &e, &g->err);
    }
    *later = rc == CHT_OK && e.lock == 0 && (e.generation != g->set.generation || e.generation != before) &&
             e.epoch == cht_map_epoch(g->set.map, g->lane->shard);
    return rc;
}

static enum cht_rc run_group(struct group *g)
{
    struct cht_lane *l = g->lane;
    bool guess = true, fresh = l->careful == 0, refused = true, large = false;
    enum cht_rc rc = CHT_OK;
    l->careful -= l->careful > 0;
    while (rc == CHT_OK && refused) {
        while (rc == CHT_OK && run_all(g, guess, fresh) == CHT_PENDING)
            rc = cht_rowset_fetch(&g->set, true, &g->err);
        if (rc == CHT_BATCH_TOO_LARGE && g->ops > 1) { /* to read */
            g->err = (struct cht_err){0};
            halve(g);
            cht_rowset_reset(&g->set);
            rc = CHT_OK;
            continue;
        }
        if (rc == CHT_OK)
            rc = write_group(g, &refused, &large);
        if (rc != CHT_OK || !refused)
            break;
        if (large) { /* what was read stays */
            halve(g);
            continue;
        }
        bool later = false;
        rc = is_later(g, &later);
        if (rc != CHT_OK || later)
            continue;
        if (fresh)
            l->careful = CAREFUL;
        cht_rowset_learn(&g->set, false);
        guess = fresh = g->set.guessed = false;
        if (++g->set.tries > HALVE_FROM && g->ops > 1)
            halve(g);
        cht_rowset_renew(&g->set);
    }
    return rc;
}

/* What became of the parts; those that are not done go back to the front, in their order. */
static void end_group(struct group *g, enum cht_rc rc)
{
    struct cht_lane *l = g->lane;
    struct cht_rpart *done[PARTS_MAX];
    size_t n = 0;
    cht_mutex_lock(&l->mu);
    for (size_t i = g->n; i-- > 0;) {
        struct window *w = &g->w[i];
        if (rc == CHT_OK) {
            w->part->at = w->done;
            w->part->read = w->read;
            w->part->rc = w->rc; /* why is told already */
        } else {
            w->part->rc = rc;
            w->part->err = g->err;
        }
        if (w->part->rc != CHT_OK || w->part->crossed || w->part->at == w->part->n)
            done[n++] = w->part;
        else
            take_back(l, w->part);
    }
    l->queued = l->first != NULL;
    bool again = l->queued;
    cht_mutex_unlock(&l->mu);
    if (again)
        cht_jobs_submit(l->db->env->jobs, &l->job);
    while (n-- > 0) /* the database may be closed after the last one */
        done[n]->done(done[n]);
}

static void run_lane(struct cht_job *job)
{
    struct cht_lane *l = (struct cht_lane *)job;
    struct group g = {.lane = l};
    struct cht_rdb *db = l->db;
    cht_rdb_hold(db);
    cht_mutex_lock(&l->mu);
    gather(&g);
    cht_mutex_unlock(&l->mu);
    cht_rowset_init(&g.set, db, (int)l->shard);
    cht_mutex_lock(&l->turn);
    g.set.cache = &l->cache;
    enum cht_rc rc = run_group(&g);
    cht_rowset_learn(&g.set, rc == CHT_OK);
    cht_mutex_unlock(&l->turn);
    cht_rowset_fini(&g.set);
    atomic_fetch_add_explicit(&db->groups, 1, memory_order_relaxed);
    end_group(&g, rc);
    cht_rdb_put(db);
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_lane_init(struct cht_lane *l, struct cht_rdb *db, unsigned shard, struct cht_err *err)
{
    *l = (struct cht_lane){.job = {.run = run_lane}, .db = db, .shard = shard};
    l->last = &l->first;
    enum cht_rc rc = cht_mutex_init(&l->mu, err);
    return rc == CHT_OK ? cht_mutex_init(&l->turn, err) : rc;
}

void cht_lane_fini(struct cht_lane *l)
{
    cht_rcache_fini(&l->cache);
    cht_mutex_fini(&l->turn);
    cht_mutex_fini(&l->mu);
}

static bool add(struct cht_lane *l, struct cht_rpart *p)
{
    cht_mutex_lock(&l->mu);
    p->next = NULL;
    *l->last = p;
    l->last = &p->next;
    bool first = !l->queued;
    l->queued = true;
    cht_mutex_unlock(&l->mu);
    return first;
}

void cht_lane_push(struct cht_lane *l, struct cht_rpart *p)
{
    struct cht_jobs *jobs = l->db->env->jobs;
    if (add(l, p))
        cht_jobs_submit(jobs, &l->job);
}

void cht_lane_push_here(struct cht_lane *l, struct cht_rpart *p)
{
    if (add(l, p))
        run_lane(&l->job);
}
