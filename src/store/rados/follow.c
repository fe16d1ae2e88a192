/* follow: see follow.h. */
#include "store/rados/follow.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <inttypes.h>
#include <string.h>

#define PAUSE_MIN UINT64_C(100000000) /* ns, between two looks */
#define PAUSE_MAX UINT64_C(1000000000)
#define SHARE 50u                     /* of the time that a cut takes passes between two */
#define OPENS 3u                      /* looks, if keeping ends meanwhile */
#define REST_MAX UINT64_C(5000000000) /* but no more than that */

static void unlist(struct cht_rfollower *c)
{
    if (c->wait == NULL)
        return;
    *c->at = c->listed;
    if (c->listed != NULL)
        c->listed->at = c->at;
    c->wait = NULL;
}

/* Everybody who waits for this database and has not seen all, or everybody. */
static void wake(struct cht_follow *f, const struct cht_rdb *db, bool all)
{
    uint64_t newest = atomic_load(&db->told.newest);
    for (struct cht_rfollower *c = f->first, *next; c != NULL; c = next) {
        next = c->listed;
        if (c->db != db || (!all && c->position >= newest))
            continue;
        struct cht_wait *w = c->wait;
        c->failed = all;
        unlist(c);
        w->done(w);
    }
}

/* The database whose turn is next, of those that nobody looks at; *in: how long until then. */
static struct cht_rdb *next_due(const struct cht_follow *f, uint64_t *in)
{
    struct cht_rdb *db = NULL;
    uint64_t now = cht_now_ns();
    for (const struct cht_rfollower *c = f->first; c != NULL; c = c->listed) {
        if (!c->db->told.looking && (db == NULL || c->db->told.due < db->told.due))
            db = c->db;
    }
    *in = db != NULL && db->told.due > now ? db->told.due - now : 0;
    return db;
}

/* When it is the turn of a database again, after a look that took so long for a cut (0: none was made, or it failed, and the time went for waiting). */
static void rest(struct cht_told *told, bool news, uint64_t took)
{
    uint64_t least = took < REST_MAX / SHARE ? SHARE * took : REST_MAX;
    uint64_t pause = news ? PAUSE_MIN : 2 * told->pause;
    pause = pause < PAUSE_MAX ? pause : PAUSE_MAX;
    told->pause = pause > PAUSE_MIN ? pause : PAUSE_MIN;
    told->due = cht_now_ns() + (least > told->pause ? least : told->pause);
}

/* A look, and a cut if there is something to be told. Failures that pass are no news; what does not is told by who is woken. A job of its own: a
 * database of which a shard is divided, or does not answer, keeps no other waiting. */
static void look(struct cht_job *job)
{
    struct cht_rdb *db = ((struct cht_look *)(void *)job)->db;
    struct cht_follow *f = &db->env->follow;
    struct cht_err err = {0};
    bool open = false;
    uint64_t before = atomic_load(&db->told.newest), took = 0;
    enum cht_rc rc = cht_cut_look(db, &open, &err);
    if (rc == CHT_OK && open && atomic_load(&db->told.newest) == before) {
        uint64_t begun = cht_now_ns();
        rc = cht_cut(db, &err);
        took = rc == CHT_OK ? cht_now_ns() - begun : 0;
    }
    bool passes = rc == CHT_TIMEOUT || rc == CHT_DATABASE_BUSY || rc == CHT_NO_MEMORY || rc == CHT_DISK_FULL;
    bool news = atomic_load(&db->told.newest) != before || (rc != CHT_OK && !passes);
    cht_mutex_lock(&f->mu);
    rest(&db->told, news, took);
    db->told.looking = false;
    wake(f, db, rc != CHT_OK && !passes);
    cht_cond_signal(&f->wake);
    cht_mutex_unlock(&f->mu);
    cht_rdb_put(db);
}

static void *follow_main(void *arg)
{
    struct cht_follow *f = arg;
    cht_mutex_lock(&f->mu);
    while (!f->stop) {
        uint64_t in;
        struct cht_rdb *db = next_due(f, &in);
        if (db == NULL) {
            cht_cond_wait(&f->wake, &f->mu);
        } else if (in > 0) {
            (void)cht_cond_wait_ns(&f->wake, &f->mu,
                                   in); /* woken too early it looks again whose turn it is */
        } else {
            db->told.looking = true;
            db->told.look = (struct cht_look){.job = {.run = look}, .db = db};
            cht_rdb_hold(db);
            cht_jobs_submit(db->env->jobs, &db->told.look.job);
        }
    }
    cht_mutex_unlock(&f->mu);
    return NULL;
}

static enum cht_rc start(struct cht_follow *f, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&f->mu);
    if (!f->up) {
        rc = cht_thread_start(&f->thread, "cht-follow", follow_main, f, err);
        f->up = rc == CHT_OK;
    }
    cht_mutex_unlock(&f->mu);
    return rc;
}

static enum cht_rc await(struct cht_changes *base, struct cht_wait *w)
{
    struct cht_rfollower *c = cht_rfollower(base);
    struct cht_told *told = &c->db->told;
    struct cht_follow *f = &c->db->env->follow;
    cht_mutex_lock(&f->mu);
    unlist(c);
    bool more = c->failed || atomic_load(&told->newest) > c->position;
    c->failed = false;
    if (!more) {
        c->wait = w;
        c->listed = f->first;
        c->at = &f->first;
        if (c->listed != NULL)
            c->listed->at = &c->listed;
        f->first = c;
        cht_cond_signal(&f->wake);
    }
    cht_mutex_unlock(&f->mu);
    return more ? CHT_OK : CHT_PENDING;
}

static void forget(struct cht_changes *base)
{
    struct cht_rfollower *c = cht_rfollower(base);
    struct cht_follow *f = &c->db->env->follow;
    cht_mutex_lock(&f->mu);
    unlist(c);
    cht_mutex_unlock(&f->mu);
}

static void close_one(struct cht_changes *base)
{
    struct cht_rfollower *c = cht_rfollower(base);
    atomic_fetch_sub(&c->db->told.followers, 1);
    cht_buf_free(&c->row);
    cht_free(c);
}

static uint64_t position(const struct cht_changes *base)
{
    return ((const struct cht_rfollower *)(const void *)base)->position;
}

static const struct cht_changes_ops ops = {
    .close = close_one, .next = cht_rtell, .await = await, .forget = forget, .position = position};

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rchanges_open(struct cht_store *s, struct cht_str prefix, uint64_t after,
                              struct cht_changes **out, struct cht_err *err)
{
    struct cht_rdb *db = cht_rdb(s);
    struct cht_err local = {0};
    uint64_t oldest = 0;
    err = err == NULL ? &local : err;
    enum cht_rc rc = start(&db->env->follow, err);
    if (rc == CHT_OK)
        rc = cht_cut_asked(db, CHT_CUT_ASKED_NS, err);
    bool ended = true;
    for (unsigned i = 0; i < OPENS && rc == CHT_OK && ended; i++) {
        rc = cht_cut(db, err); /* what was answered before is told, or is not newer than now */
        if (rc == CHT_OK)
            rc = cht_cut_oldest(db, &oldest, err);
        ended = oldest > atomic_load(&db->told.newest); /* CH9: this server did not know it */
    }
    if (rc != CHT_OK)
        return rc;
    uint64_t newest = atomic_load(&db->told.newest);
    if (after == CHT_CHANGES_NOW)
        after = newest;
    if (after == CHT_CHANGES_OLDEST)
        after = oldest;
    if (after < oldest || after > newest)
        return CHT_FAIL(err, CHT_GONE, "changes after %" PRIu64 " are told, not after %" PRIu64, oldest,
                        after);
    struct cht_rfollower *c = cht_calloc(1, sizeof *c + prefix.n);
    if (c == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a follower");
    c->base.ops = &ops;
    c->db = db;
    c->position = after;
    c->len = prefix.n;
    if (prefix.n > 0)
        memcpy(c->prefix, prefix.p, prefix.n);
    atomic_fetch_add(&db->told.followers, 1);
    *out = &c->base;
    return CHT_OK;
}

enum cht_rc cht_rchanges_range(struct cht_store *s, struct cht_changes_range *out, struct cht_err *err)
{
    const struct cht_told *told = &cht_rdb(s)->told;
    (void)err;
    *out = (struct cht_changes_range){.followers = atomic_load(&told->followers)};
    uint64_t oldest = atomic_load(&told->oldest), newest = atomic_load(&told->newest);
    if (oldest == 0 || newest == 0 || oldest > newest)
        return CHT_OK; /* none are kept, or not any more, or it is not known yet */
    out->newest = newest;
    out->oldest = oldest;
    out->kept = atomic_load(&told->bytes);
    return CHT_OK;
}

enum cht_rc cht_follow_init(struct cht_follow *f, struct cht_err *err)
{
    return cht_mutex_cond_init(&f->mu, &f->wake, err);
}

void cht_follow_fini(struct cht_follow *f)
{
    if (f->up) {
        cht_mutex_lock(&f->mu);
        f->stop = true;
        cht_cond_broadcast(&f->wake);
        cht_mutex_unlock(&f->mu);
        cht_thread_join(&f->thread);
    }
    cht_cond_fini(&f->wake);
    cht_mutex_fini(&f->mu);
}
