/* figures: see figures.h. */
#include "store/rados/figures.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "store/rados/ends.h"
#include "store/rados/follow.h"

/* Without what has ended, which is removed first. */
static enum cht_rc totals_now(struct cht_rdb *db, struct cht_shard_counts **out, struct cht_err *err)
{
    uint64_t removed = 1;
    enum cht_rc rc = CHT_OK;
    *out = NULL;
    while (rc == CHT_OK && removed > 0) {
        uint64_t ending = 0;
        removed = 0;
        cht_free(*out);
        rc = cht_figures_totals(db, out, err);
        for (unsigned i = 0; i < CHT_MAP_MAX && rc == CHT_OK; i++)
            ending += (*out)[i].ending;
        if (rc != CHT_OK || ending == 0)
            continue;
        rc = cht_ends_purge(db, &removed, err);
        if (rc == CHT_CORRUPT) { /* one of them: no reason to know nothing, nor not to be opened */
            removed = 0;
            rc = CHT_OK;
        }
    }
    if (rc != CHT_OK) {
        cht_free(*out);
        *out = NULL;
    }
    return rc;
}

/* What this server counts itself. */
static void add_counts(struct cht_rdb *db, struct cht_store_stats *out)
{
    out->shards = cht_rdb_map(db)->shards;
    out->commits = atomic_load_explicit(&db->commits, memory_order_relaxed);
    out->operations = atomic_load_explicit(&db->operations, memory_order_relaxed);
    out->groups = atomic_load_explicit(&db->groups, memory_order_relaxed);
    out->ended = atomic_load_explicit(&db->ended, memory_order_relaxed);
    struct cht_changes_range r;
    (void)cht_rchanges_range(&db->base, &r, NULL); /* cannot fail */
    out->changes_oldest = r.oldest;
    out->changes_newest = r.newest;
    out->changes_kept = r.kept;
    out->changes_followers = r.followers;
    out->corrupt = atomic_load_explicit(&db->corrupt, memory_order_relaxed);
}

static void run(struct cht_job *job)
{
    struct cht_figures *f = (struct cht_figures *)job;
    struct cht_rdb *db = f->db;
    for (bool more = true; more;) {
        struct cht_store_stats st;
        uint64_t asked = cht_now_ns();
        enum cht_rc rc = cht_figures_stats(db, &st, NULL);
        cht_mutex_lock(&f->mu);
        if (rc == CHT_OK) {
            f->last = st;
            f->asked = asked;
        }
        more = f->again && rc == CHT_OK;
        f->again = false;
        f->busy = more;
        cht_mutex_unlock(&f->mu);
    }
    cht_rdb_put(db);
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_figures_totals(struct cht_rdb *db, struct cht_shard_counts **out, struct cht_err *err)
{
    *out = cht_calloc(CHT_MAP_MAX, sizeof **out);
    if (*out == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for counters");
    enum cht_rc rc = cht_prefix_totals(db, *out, err);
    if (rc != CHT_OK) {
        cht_free(*out);
        *out = NULL;
    }
    return rc;
}

enum cht_rc cht_figures_stats(struct cht_rdb *db, struct cht_store_stats *out, struct cht_err *err)
{
    struct cht_shard_counts *c;
    *out = (struct cht_store_stats){0};
    enum cht_rc rc = totals_now(db, &c, err);
    if (rc != CHT_OK)
        return rc;
    for (unsigned i = 0; i < CHT_MAP_MAX; i++) {
        out->pairs += c[i].pairs;
        out->values += c[i].values;
        out->value_bytes += c[i].value_bytes;
        out->ending += c[i].ending;
    }
    cht_free(c);
    bool keeps = atomic_load(&db->format) >= CHT_RDB_FORMAT_CHANGES || cht_rdb_generation(db) != 0;
    if (keeps && atomic_load(&db->told.oldest) == 0) {
        uint64_t oldest; /* others have asked */
        rc = cht_cut_look(db, NULL, err);
        if (rc == CHT_OK)
            rc = cht_cut_oldest(db, &oldest, err);
        if (rc != CHT_OK)
            return rc;
    }
    add_counts(db, out);
    out->next_key = 1; /* servers give out keys that they have leased, in any order and at any time */
    return CHT_OK;
}

void cht_figures_ask(struct cht_rdb *db)
{
    struct cht_figures *f = db->figures;
    cht_mutex_lock(&f->mu);
    bool begin = !f->busy;
    f->again = f->busy;
    f->busy = true;
    cht_mutex_unlock(&f->mu);
    if (!begin)
        return;
    f->job.run = run;
    f->db = db;
    cht_rdb_hold(db);
    cht_jobs_submit(db->env->jobs, &f->job);
}

bool cht_figures_kept(struct cht_rdb *db, struct cht_store_stats *out, uint64_t *asked)
{
    struct cht_figures *f = db->figures;
    cht_mutex_lock(&f->mu);
    *out = f->last;
    *asked = f->asked;
    cht_mutex_unlock(&f->mu);
    add_counts(db, out);
    return *asked != 0;
}
