/* scan_range: the ring of ranges: life, tasks, reader (structure in scan_range.h). */
#include "store/scan_range.h"

#include "base/alloc.h"
#include "store/db.h"

#include <string.h>

#define BLOCK (CHT_RANGE_ROOM + 2 * CHT_NAME_MAX)
#define WORK (sizeof(struct cht_range_work) + (40u << 10)) /* with its iterator */
#define ENDS (CHT_RANGE_ITEMS * sizeof(uint64_t))
#define VALUES (CHT_RANGE_ITEMS * sizeof(struct cht_range_value) + CHT_RANGE_BYTES)
#define BLOCKS_MORE 2u /* than tasks: what the reader has, and the next one */
#define FIXED (sizeof(struct cht_db_scan) + sizeof(struct cht_ranges) + CHT_NAME_MAX)

_Static_assert(CHT_RANGES_MAX == CHT_RANGE_TASKS_MAX + BLOCKS_MORE, "a block for each task");
_Static_assert(CHT_RANGES_MAX *BLOCK + CHT_RANGE_TASKS_MAX * (WORK + ENDS) + FIXED < CHT_SCAN_MEMORY,
               "a scan by ranges keeps within the memory of a scan");
_Static_assert((CHT_RANGE_TASKS_VALUES + BLOCKS_MORE) * BLOCK +
                       CHT_RANGE_TASKS_VALUES * (WORK + ENDS + VALUES) + FIXED <
                   CHT_SCAN_MEMORY,
               "with values, too");

static struct cht_range *in_ring(struct cht_ranges *rs, unsigned i)
{
    return &rs->range[(rs->head + i) % rs->n];
}

/* ---- tasks --------------------------------------------------------------------------------------------------- */

static void start(struct cht_db_scan *sc, struct cht_range *r, bool last)
{
    struct cht_ranges *rs = sc->ranges;
    r->work = rs->idle;
    rs->idle = r->work->next;
    r->state = CHT_RANGE_QUEUED;
    sc->active++;
    if (last)
        cht_pool_submit_last(cht_db_pool(sc->db, 0), &r->task);
    else
        cht_pool_submit(cht_db_pool(sc->db, 0), &r->task);
}

/* `last`: a task calls that is about to return. mu held. */
static void submit(struct cht_db_scan *sc, bool last)
{
    struct cht_ranges *rs = sc->ranges;
    if (rs->idle == NULL || atomic_load_explicit(&sc->cancelled, memory_order_relaxed))
        return;
    if (rs->used > 0 && in_ring(rs, 0)->state == CHT_RANGE_HUNGRY) {
        start(sc, in_ring(rs, 0), last);
        last = false; /* its worker takes one of them */
    }
    if (rs->planning || rs->planned_all || rs->used == rs->n || rs->idle == NULL)
        return;
    struct cht_range *r = in_ring(rs, rs->used++);
    if (rs->from_len > 0)
        memcpy(r->after, rs->from, rs->from_len);
    r->after_len = rs->from_len;
    r->ref = rs->ref;
    r->planned = false;
    rs->planning = true;
    start(sc, r, last);
}

void cht_ranges_submit(struct cht_db_scan *sc) { submit(sc, false); }

size_t cht_range_target(struct cht_range *r)
{
    struct cht_db_scan *sc = r->scan;
    cht_mutex_lock(&sc->mu);
    size_t n = sc->ranges->target;
    cht_mutex_unlock(&sc->mu);
    return n;
}

void cht_range_planned(struct cht_range *r, unsigned ref, bool last)
{
    struct cht_db_scan *sc = r->scan;
    struct cht_ranges *rs = sc->ranges;
    r->planned = true;
    cht_mutex_lock(&sc->mu);
    if (r->upto_len > 0)
        memcpy(rs->from, r->upto, r->upto_len);
    rs->from_len = r->upto_len;
    rs->ref = ref;
    rs->planned_all = last;
    rs->planning = false;
    cht_ranges_submit(sc);
    cht_mutex_unlock(&sc->mu);
}

/* How many lines of this length make a good block. */
static size_t target_for(const struct cht_range *r)
{
    size_t line = r->used / r->count + 1, n = CHT_RANGE_TEXT / 8 * 7 / line; /* ranges differ a little */
    return n < CHT_RANGE_TARGET ? n : CHT_RANGE_TARGET;
}

static void range_task(struct cht_task *t)
{
    struct cht_range *r = (struct cht_range *)t;
    struct cht_db_scan *sc = r->scan;
    struct cht_ranges *rs = sc->ranges;
    struct cht_err err = {0};
    enum cht_rc rc = CHT_OK;
    enum cht_calm_turn turn = cht_scan_enter(sc, cht_db_pool(sc->db, 0), t);
    if (turn == CHT_CALM_ASIDE)
        return;
    if (!atomic_load_explicit(&sc->cancelled, memory_order_relaxed))
        rc = cht_range_fill(r, &err);
    if (turn == CHT_CALM_INSIDE)
        cht_calm_leave(&sc->db->calm);
    cht_mutex_lock(&sc->mu);
    r->state = CHT_RANGE_READY;
    r->work->next = rs->idle;
    rs->idle = r->work;
    sc->active--;
    if (r->count > 0)
        rs->target = target_for(r);
    if (rc != CHT_OK && sc->rc == CHT_OK) {
        sc->rc = rc;
        sc->err = err;
    }
    if (rc == CHT_OK)
        submit(sc, true);
    if (sc->wants_ready && (r == in_ring(rs, 0) || rc != CHT_OK)) {
        sc->wants_ready = false;
        if (sc->cfg.ready != NULL)
            sc->cfg.ready(
                sc->cfg.ready_ctx); /* with mu held: close waits for it, so the scan is still there */
    }
    cht_cond_broadcast(&sc->cond);
    cht_mutex_unlock(&sc->mu);
}

/* ---- reader -------------------------------------------------------------------------------------------------- */

/* The reader is done with the head's text. mu held. */
static void give_back(struct cht_db_scan *sc)
{
    struct cht_ranges *rs = sc->ranges;
    struct cht_range *r = in_ring(rs, 0);
    r->state = r->more ? CHT_RANGE_HUNGRY : CHT_RANGE_IDLE;
    if (!r->more) {
        rs->head = (rs->head + 1) % rs->n;
        rs->used--;
    }
    cht_ranges_submit(sc);
}

/* The parts of the head that the reader has not had yet, at most max. */
static size_t give(struct cht_ranges *rs, struct cht_entry *out, size_t max)
{
    const struct cht_range *r = in_ring(rs, 0);
    size_t n = r->parts - rs->given < max ? r->parts - rs->given : max;
    memcpy(out, r->part + rs->given, n * sizeof *out);
    rs->given += (unsigned)n;
    return n;
}

enum cht_rc cht_ranges_next(struct cht_db_scan *sc, bool wait, struct cht_entry *out, size_t max,
                            size_t *count, struct cht_err *err)
{
    struct cht_ranges *rs = sc->ranges;
    enum cht_rc rc;
    cht_mutex_lock(&sc->mu);
    if (rs->given > 0 && rs->given == in_ring(rs, 0)->parts) {
        rs->given = 0;
        give_back(sc);
    }
    while ((rc = cht_scan_fault(sc, err)) == CHT_OK && !rs->done) {
        struct cht_range *r = in_ring(rs, 0);
        if (rs->used == 0) { /* a range is always under way but after the last one */
            rs->done = true;
        } else if (r->state == CHT_RANGE_READY && r->count == 0) { /* nothing left in it, or all skipped */
            give_back(sc);
        } else if (r->state == CHT_RANGE_READY) {
            *count = give(rs, out, max);
            break;
        } else if (wait) {
            cht_cond_wait(&sc->cond, &sc->mu);
        } else {
            sc->wants_ready = true;
            rc = CHT_PENDING;
            break;
        }
    }
    cht_mutex_unlock(&sc->mu);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

/* Are values short, in the first shard, which is like the others? */
static bool short_values(struct cht_db *db)
{
    struct cht_shard *sh = &db->shards[0];
    if (cht_db_enter(sh, NULL) != CHT_OK)
        return false;
    uint64_t live = cht_values_live(&sh->values), bytes = cht_values_bytes(&sh->values);
    cht_rwlock_read_end(&sh->lock);
    return bytes / CHT_RANGE_MEAN_MAX <= live;
}

bool cht_ranges_suit(struct cht_db_scan *sc)
{
    const struct cht_scan_config *c = &sc->cfg;
    const struct cht_db *db = sc->db;
    uint64_t pairs = 0;
    if (!c->runs || c->render == NULL || c->kind != CHT_SCAN_PAIRS || c->limit > 0 ||
        db->nshards > CHT_RANGE_MAX_SHARDS)
        return false;
    for (unsigned i = 1; i < db->nshards; i++) {
        if (db->shards[i].dir != db->shards[0].dir) /* a directory's workers read their own disk only */
            return false;
    }
    return cht_store_count(&sc->db->base, c->prefix, &pairs, NULL) == CHT_OK &&
           pairs >= CHT_RANGE_MIN_PAIRS && (!c->values || short_values(sc->db));
}

/* How many tasks at once. */
static unsigned tasks(const struct cht_db_scan *sc)
{
    unsigned n = cht_pool_workers(cht_db_pool(sc->db, 0));
    unsigned most = sc->cfg.values ? CHT_RANGE_TASKS_VALUES : CHT_RANGE_TASKS_MAX;
    if (sc->cfg.workers > 0 && n > sc->cfg.workers)
        n = sc->cfg.workers;
    return n < most ? n : most;
}

static struct cht_range_work *make_work(const struct cht_scan_config *c)
{
    struct cht_range_work *w = cht_malloc(sizeof *w);
    if (w == NULL)
        return NULL;
    w->next = NULL;
    w->ends = c->ends ? cht_malloc(ENDS) : NULL;
    w->values = c->values ? cht_malloc(VALUES) : NULL;
    w->bytes = w->values != NULL ? (uint8_t *)(w->values + CHT_RANGE_ITEMS) : NULL;
    bool ok = (!c->ends || w->ends != NULL) && (!c->values || w->values != NULL);
    if (ok && cht_trie_iter_new(&w->it, NULL) == CHT_OK)
        return w;
    cht_free(w->values);
    cht_free(w->ends);
    cht_free(w);
    return NULL;
}

static bool make_parts(struct cht_db_scan *sc)
{
    struct cht_ranges *rs = sc->ranges;
    unsigned n = tasks(sc);
    rs->n = n + BLOCKS_MORE;
    rs->from = cht_malloc(CHT_NAME_MAX);
    bool ok = rs->from != NULL;
    for (unsigned i = 0; i < n && ok; i++) {
        struct cht_range_work *w = make_work(&sc->cfg);
        ok = w != NULL;
        if (!ok)
            break;
        w->next = rs->idle;
        rs->idle = w;
    }
    for (unsigned i = 0; i < rs->n && ok; i++) {
        struct cht_range *r = &rs->range[i];
        r->task.run = range_task;
        r->scan = sc;
        r->text = cht_malloc(BLOCK);
        ok = r->text != NULL;
        r->after = ok ? r->text + CHT_RANGE_ROOM : NULL;
        r->upto = ok ? r->after + CHT_NAME_MAX : NULL;
    }
    return ok;
}

enum cht_rc cht_ranges_new(struct cht_db_scan *sc, struct cht_err *err)
{
    struct cht_ranges *rs = sc->ranges = cht_calloc(1, sizeof *rs);
    if (rs == NULL || !make_parts(sc))
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a scan");
    rs->target = CHT_RANGE_TARGET / 8; /* the first comes quickly */
    if (sc->cfg.after.n > 0)
        memcpy(rs->from, sc->cfg.after.p, sc->cfg.after.n);
    rs->from_len = sc->cfg.after.n;
    sc->memory = FIXED + rs->n * BLOCK +
                 tasks(sc) * (WORK + (sc->cfg.ends ? ENDS : 0) + (sc->cfg.values ? VALUES : 0));
    return CHT_OK;
}

void cht_ranges_free(struct cht_db_scan *sc)
{
    struct cht_ranges *rs = sc->ranges;
    if (rs == NULL)
        return;
    for (unsigned i = 0; i < CHT_RANGES_MAX; i++)
        cht_free(rs->range[i].text);
    while (rs->idle != NULL) {
        struct cht_range_work *w = rs->idle;
        rs->idle = w->next;
        cht_trie_iter_free(w->it);
        cht_free(w->ends);
        cht_free(w->values);
        cht_free(w);
    }
    cht_free(rs->from);
    cht_free(rs);
}
