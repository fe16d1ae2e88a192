/* dbs: see dbs.h. A turn serialises what is done about one name, which may be file work; lock guards list and slots and is held
 * for moments only. Order: a turn, lock. Whoever has a turn and wants another's only tries.
 */
#include "service/dbs.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/thread.h"

#include <string.h>

#define SLOTS 1024u
#define GONE_WAIT_NS UINT64_C(5000000000)
#define UNDO_WAIT_NS UINT64_C(5000000000)
#define MAKE_ROOM_TRIES 4u /* databases that are closed, or not, before one more is opened all the same */

struct turn { /* on the stack of whoever does something about a name */
    const char *name;
    struct turn *next;
};

struct svc_dbs {
    struct cht_env *env;
    void (*closed_fn)(void *ctx, const struct cht_store *store); /* NULL: none */
    void *closed_ctx;
    uint64_t maps_limit, start;
    struct cht_mutex turn_mu;
    struct cht_cond calm; /* a turn has ended */
    struct turn *turns;   /* guarded by turn_mu */
    struct cht_rwlock lock;
    struct svc_database *list, **end; /* guarded by lock; in the order in which they were opened */
    struct svc_database *slot[SLOTS]; /* guarded by lock: the same, by name */
    _Atomic uint64_t now;             /* seconds */
    _Atomic uint64_t maps, open;      /* of what is listed */
    _Atomic uint64_t opened, closed;
    _Atomic uint64_t made; /* since the start */
    _Atomic bool undone;   /* "default" was to be dropped and made anew, which failed: it may be missing */
};

static bool has_turn(const struct svc_dbs *t, const char *name)
{
    const struct turn *at = t->turns;
    while (at != NULL && strcmp(at->name, name) != 0)
        at = at->next;
    return at != NULL;
}

/* False, without `wait`: somebody else has it. */
static bool begin_turn(struct svc_dbs *t, struct turn *mine, const char *name, bool wait)
{
    cht_mutex_lock(&t->turn_mu);
    while (has_turn(t, name) && wait)
        cht_cond_wait(&t->calm, &t->turn_mu);
    bool got = !has_turn(t, name);
    if (got) {
        *mine = (struct turn){name, t->turns};
        t->turns = mine;
    }
    cht_mutex_unlock(&t->turn_mu);
    return got;
}

static void end_turn(struct svc_dbs *t, struct turn *mine)
{
    cht_mutex_lock(&t->turn_mu);
    struct turn **at = &t->turns;
    while (*at != mine)
        at = &(*at)->next;
    *at = mine->next;
    cht_cond_broadcast(&t->calm);
    cht_mutex_unlock(&t->turn_mu);
}

static unsigned slot_of(const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *name != 0; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return (h ^ h >> 16) % SLOTS;
}

static struct svc_database *find(struct svc_dbs *t, const char *name)
{
    struct svc_database *d = t->slot[slot_of(name)];
    while (d != NULL && strcmp(d->name, name) != 0)
        d = d->chain;
    return d;
}

/* The lock is held exclusively, here and in list_locked. */
static void unlist(struct svc_dbs *t, struct svc_database *d)
{
    struct svc_database **at = &t->list;
    while (*at != d)
        at = &(*at)->next;
    *at = d->next;
    if (*at == NULL)
        t->end = at;
    at = &t->slot[slot_of(d->name)];
    while (*at != d)
        at = &(*at)->chain;
    *at = d->chain;
    atomic_fetch_sub_explicit(&t->maps, d->maps, memory_order_relaxed);
    atomic_fetch_sub_explicit(&t->open, 1, memory_order_relaxed);
}

static void list_locked(struct svc_dbs *t, struct svc_database *d)
{
    d->next = NULL;
    *t->end = d;
    t->end = &d->next;
    struct svc_database **slot = &t->slot[slot_of(d->name)];
    d->chain = *slot;
    *slot = d;
    atomic_fetch_add_explicit(&t->maps, d->maps, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->open, 1, memory_order_relaxed);
}

/* With the name's turn. It is held once, and not used yet. */
static enum cht_rc open_listed(struct svc_dbs *t, const char *name, bool made, struct svc_database **out,
                               struct cht_err *err)
{
    struct svc_database *d = cht_calloc(1, sizeof *d);
    struct cht_store_stats st;
    if (d == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a database");
    enum cht_rc rc = cht_env_get(t->env, name, &d->store, err);
    if (rc == CHT_OK)
        rc = cht_store_stats(d->store, &st, err);
    if (rc != CHT_OK) {
        cht_free(d);
        return rc;
    }
    memcpy(d->name, name, strlen(name) + 1);
    d->table = t;
    d->maps = st.shards * SVC_DBS_MAPS_A_SHARD;
    atomic_store_explicit(&d->users, 1, memory_order_relaxed);
    if (made)
        d->fresh = atomic_fetch_add_explicit(&t->made, 1, memory_order_relaxed) + 1;
    atomic_fetch_add_explicit(&t->opened, 1, memory_order_relaxed);
    cht_rwlock_write(&t->lock);
    list_locked(t, d);
    cht_rwlock_write_end(&t->lock);
    *out = d;
    return CHT_OK;
}

static void touch(struct svc_database *d)
{
    uint64_t now = svc_dbs_seconds(d->table);
    if (atomic_load_explicit(&d->used, memory_order_relaxed) != now)
        atomic_store_explicit(&d->used, now, memory_order_relaxed);
}

/* Somebody wants it, whatever becomes of what it was made for. */
static void keep(struct svc_database *d)
{
    if (atomic_load_explicit(&d->fresh, memory_order_relaxed) != 0)
        atomic_store_explicit(&d->fresh, 0, memory_order_relaxed);
}

/* Held, or NULL if it is not open. asked: not only looked at. */
static struct svc_database *peek(struct svc_dbs *t, const char *name, bool asked)
{
    cht_rwlock_read(&t->lock);
    struct svc_database *d = find(t, name);
    if (d != NULL && atomic_load_explicit(&d->dropping, memory_order_relaxed))
        d = NULL;
    if (d != NULL)
        svc_dbs_hold(d);
    if (d != NULL && asked)
        keep(d); /* before it can be seen to be unused (unlist_fresh) */
    cht_rwlock_read_end(&t->lock);
    return d;
}

static bool is_default(const char *name) { return strcmp(name, CHT_DATABASE_DEFAULT) == 0; }

static bool is_undone(const struct svc_dbs *t, const char *name)
{
    return is_default(name) && atomic_load_explicit(&t->undone, memory_order_relaxed);
}

static bool is_unused(const struct svc_database *d, uint64_t used)
{
    return atomic_load_explicit(&d->users, memory_order_acquire) == 0 &&
           !atomic_load_explicit(&d->dropping, memory_order_relaxed) &&
           atomic_load_explicit(&d->used, memory_order_relaxed) <= used && !is_default(d->name);
}

/* The name of the one that was used least lately, of those that nobody holds. */
static bool find_oldest(struct svc_dbs *t, char name[CHT_DATABASE_NAME_MAX + 1])
{
    uint64_t least = UINT64_MAX;
    cht_rwlock_read(&t->lock);
    for (const struct svc_database *d = t->list; d != NULL; d = d->next) {
        uint64_t used = atomic_load_explicit(&d->used, memory_order_relaxed);
        if (used < least && is_unused(d, used)) {
            least = used;
            memcpy(name, d->name, sizeof d->name);
        }
    }
    cht_rwlock_read_end(&t->lock);
    return least != UINT64_MAX;
}

/* Before one more is opened. If none can be closed it is tried all the same: the limit is far from what the system allows. */
static void make_room(struct svc_dbs *t)
{
    char name[CHT_DATABASE_NAME_MAX + 1];
    enum cht_rc rc;
    struct cht_err ignored;
    for (unsigned i = 0; i < MAKE_ROOM_TRIES && t->maps_limit > 0 &&
                         atomic_load_explicit(&t->maps, memory_order_relaxed) >= t->maps_limit;
         i++) {
        if (!find_oldest(t, name))
            return;
        (void)svc_dbs_close_unused(t, name, UINT64_MAX, &rc,
                                   &ignored); /* one that cannot be closed stays open */
    }
}

static bool wait_unused(struct svc_database *d, uint64_t wait_ns)
{
    uint64_t end = cht_now_ns() + wait_ns;
    while (atomic_load_explicit(&d->users, memory_order_acquire) > 0) {
        if (cht_now_ns() > end)
            return false;
        cht_sleep_ns(1000000);
    }
    return true;
}

/* With the name's turn: if it is the one that was made, and as it was then, it is taken out of the list, so that who wants it waits for the turn. Who only looks at it
 * (metrics, scrubbing) is waited for. NULL: it stays. */
static struct svc_database *unlist_fresh(struct svc_dbs *t, const char *name, uint64_t fresh)
{
    struct cht_store_stats st;
    struct cht_err err = {0};
    uint64_t end = cht_now_ns() + UNDO_WAIT_NS;
    struct svc_database *d;
    for (bool listed = true; listed;) {
        cht_rwlock_write(&t->lock);
        d = find(t, name);
        if (d != NULL && (fresh == 0 || atomic_load_explicit(&d->fresh, memory_order_relaxed) != fresh ||
                          cht_store_remote(d->store) || cht_now_ns() > end))
            d = NULL;
        listed = d != NULL && !is_unused(d, UINT64_MAX);
        if (d != NULL && !listed)
            unlist(t, d);
        cht_rwlock_write_end(&t->lock);
        if (listed)
            cht_sleep_ns(1000000);
    }
    if (d == NULL || (cht_store_stats(d->store, &st, &err) == CHT_OK && st.pairs == 0 && st.values == 0))
        return d;
    cht_rwlock_write(&t->lock);
    list_locked(t, d);
    cht_rwlock_write_end(&t->lock);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc svc_dbs_new(struct cht_env *env, struct svc_dbs **out, struct cht_err *err)
{
    struct svc_dbs *t = cht_aligned_alloc(64, (sizeof *t + 63) / 64 * 64);
    if (t == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the databases");
    memset(t, 0, sizeof *t);
    t->env = env;
    t->end = &t->list;
    t->start = cht_now_ns();
    atomic_store_explicit(&t->now, 1, memory_order_relaxed);
    enum cht_rc rc = cht_mutex_init(&t->turn_mu, err);
    if (rc == CHT_OK)
        rc = cht_cond_init(&t->calm, err);
    if (rc == CHT_OK)
        rc = cht_rwlock_init(&t->lock, err);
    if (rc != CHT_OK) {
        cht_free(t);
        return rc;
    }
    *out = t;
    return CHT_OK;
}

void svc_dbs_free(struct svc_dbs *t)
{
    if (t == NULL)
        return;
    while (t->list != NULL) {
        struct svc_database *d = t->list;
        t->list = d->next;
        cht_free(d);
    }
    cht_rwlock_fini(&t->lock);
    cht_cond_fini(&t->calm);
    cht_mutex_fini(&t->turn_mu);
    cht_free(t);
}

void svc_dbs_on_close(struct svc_dbs *t, void (*fn)(void *ctx, const struct cht_store *store), void *ctx)
{
    t->closed_fn = fn;
    t->closed_ctx = ctx;
}

void svc_dbs_limit(struct svc_dbs *t, uint64_t maps) { t->maps_limit = maps; }

struct svc_database *svc_dbs_get(struct svc_dbs *t, const char *name)
{
    struct svc_database *d = peek(t, name, true);
    if (d != NULL)
        touch(d);
    return d;
}

void svc_dbs_hold(struct svc_database *d) { atomic_fetch_add_explicit(&d->users, 1, memory_order_relaxed); }

/* Release pairs with the acquire of is_unused and wait_unused: what was done with the database is done. */
static void let_go(struct svc_database *d) { atomic_fetch_sub_explicit(&d->users, 1, memory_order_release); }

void svc_dbs_put(struct svc_database *d)
{
    if (d == NULL)
        return;
    if (atomic_load_explicit(&d->used, memory_order_relaxed) > 0) /* more than visited */
        touch(d);
    let_go(d);
}

void svc_dbs_gone(struct svc_database *d)
{
    atomic_store_explicit(&d->gone, true, memory_order_relaxed);
    atomic_store_explicit(&d->dropping, true, memory_order_release);
}

/* With the name's turn: one that is gone is closed. */
static enum cht_rc close_gone(struct svc_dbs *t, const char *name, struct cht_err *err)
{
    bool closed = true;
    cht_rwlock_read(&t->lock);
    struct svc_database *d = find(t, name);
    cht_rwlock_read_end(&t->lock);
    if (d == NULL || !atomic_load_explicit(&d->gone, memory_order_relaxed))
        return CHT_OK;
    if (!wait_unused(d, GONE_WAIT_NS))
        return CHT_FAIL(err, CHT_DATABASE_BUSY, "%s was dropped by another server; try again", name);
    cht_rwlock_write(&t->lock);
    unlist(t, d);
    cht_rwlock_write_end(&t->lock);
    (void)cht_env_release(t->env, name, &closed, NULL); /* there is nothing to bring home */
    if (t->closed_fn != NULL)
        t->closed_fn(t->closed_ctx, d->store);
    cht_free(d);
    return CHT_OK;
}

enum cht_rc svc_dbs_open(struct svc_dbs *t, const char *name, bool create, unsigned shards,
                         struct svc_database **out, bool *created, struct cht_err *err)
{
    struct turn mine;
    *created = false;
    if (!cht_database_name_valid(name))
        return CHT_FAIL(err, CHT_INVALID_DATABASE_NAME, "%s", cht_rc_text(CHT_INVALID_DATABASE_NAME));
    (void)begin_turn(t, &mine, name, true); /* it has waited */
    enum cht_rc rc = CHT_OK;
    *out = peek(t, name, true);
    if (*out == NULL) {
        make_room(t);
        rc = close_gone(t, name, err);
        if (rc == CHT_OK)
            rc = open_listed(t, name, false, out, err);
        if (rc == CHT_DATABASE_NOT_FOUND && (create || is_undone(t, name))) {
            rc = cht_env_create(t->env, name, shards, err);
            *created = rc == CHT_OK && create;
            if (rc == CHT_OK || rc == CHT_DATABASE_EXISTS) /* another server was faster */
                rc = open_listed(t, name, *created && !is_default(name), out, err);
        }
    }
    if (rc == CHT_OK)
        touch(*out);
    end_turn(t, &mine);
    return rc;
}

enum cht_rc svc_dbs_visit(struct svc_dbs *t, const char *name, struct svc_database **out, struct cht_err *err)
{
    struct turn mine;
    (void)begin_turn(t, &mine, name, true); /* it has waited */
    enum cht_rc rc = CHT_OK;
    *out = peek(t, name, false);
    if (*out == NULL) {
        make_room(t);
        rc = close_gone(t, name, err);
        if (rc == CHT_OK)
            rc = open_listed(t, name, false, out, err);
    }
    end_turn(t, &mine);
    return rc;
}

bool svc_dbs_close_unused(struct svc_dbs *t, const char *name, uint64_t used, enum cht_rc *rc,
                          struct cht_err *err)
{
    struct turn mine;
    bool closed = false;
    *rc = CHT_OK;
    if (!begin_turn(t, &mine, name, false))
        return false;
    cht_rwlock_write(&t->lock);
    struct svc_database *d = find(t, name);
    if (d != NULL && is_unused(d, used))
        unlist(t, d); /* who wants it now waits for the turn */
    else
        d = NULL;
    cht_rwlock_write_end(&t->lock);
    if (d != NULL) {
        *rc = cht_env_release(t->env, name, &closed, err);
        if (closed) {
            atomic_fetch_add_explicit(&t->closed, 1, memory_order_relaxed);
            if (t->closed_fn != NULL)
                t->closed_fn(t->closed_ctx, d->store);
            cht_free(d);
        } else {
            cht_rwlock_write(&t->lock);
            list_locked(t, d);
            cht_rwlock_write_end(&t->lock);
        }
    }
    end_turn(t, &mine);
    return closed;
}

size_t svc_dbs_unused(struct svc_dbs *t, uint64_t used, char (*names)[CHT_DATABASE_NAME_MAX + 1], size_t max)
{
    size_t n = 0;
    cht_rwlock_read(&t->lock);
    for (const struct svc_database *d = t->list; d != NULL && n < max; d = d->next) {
        if (is_unused(d, used))
            memcpy(names[n++], d->name, sizeof d->name);
    }
    cht_rwlock_read_end(&t->lock);
    return n;
}

uint64_t svc_dbs_seconds(const struct svc_dbs *t)
{
    return atomic_load_explicit(&t->now, memory_order_relaxed);
}

void svc_dbs_tick(struct svc_dbs *t)
{
    atomic_store_explicit(&t->now, 1 + (cht_now_ns() - t->start) / UINT64_C(1000000000),
                          memory_order_relaxed);
}

void svc_dbs_read_stats(const struct svc_dbs *t, struct svc_dbs_stats *out)
{
    out->open = atomic_load_explicit(&t->open, memory_order_relaxed);
    out->opened = atomic_load_explicit(&t->opened, memory_order_relaxed);
    out->closed = atomic_load_explicit(&t->closed, memory_order_relaxed);
}

enum cht_rc svc_dbs_is_clean(struct svc_dbs *t, const char *name, bool *clean, struct cht_err *err)
{
    return cht_env_is_clean(t->env, name, clean, err);
}

void svc_dbs_undo(struct svc_dbs *t, const char *name, uint64_t fresh)
{
    struct turn mine;
    struct cht_err err = {0};
    (void)begin_turn(t, &mine, name, true); /* it has waited */
    struct svc_database *d = unlist_fresh(t, name, fresh);
    if (d != NULL) {
        (void)cht_env_drop(t->env, name, &err); /* one that cannot be deleted stays, empty */
        if (t->closed_fn != NULL)
            t->closed_fn(t->closed_ctx, d->store); /* only its address is used */
        cht_free(d);
    }
    end_turn(t, &mine);
}

enum cht_rc svc_dbs_drop(struct svc_dbs *t, const char *name, uint64_t wait_ns, struct cht_err *err)
{
    struct turn mine;
    const struct cht_store *gone = NULL; /* only its address is used */
    if (!cht_database_name_valid(name))
        return CHT_FAIL(err, CHT_INVALID_DATABASE_NAME, "%s", cht_rc_text(CHT_INVALID_DATABASE_NAME));
    (void)begin_turn(t, &mine, name, true); /* it has waited */
    enum cht_rc rc = CHT_OK;
    cht_rwlock_write(&t->lock);
    struct svc_database *d = find(t, name);
    if (d != NULL)
        atomic_store_explicit(&d->dropping, true, memory_order_release);
    cht_rwlock_write_end(&t->lock);
    if (d != NULL && !wait_unused(d, wait_ns)) {
        atomic_store_explicit(&d->dropping, false, memory_order_release);
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "%s is still being used; try again", name);
    } else if (d != NULL) {
        cht_rwlock_write(&t->lock);
        unlist(t, d);
        cht_rwlock_write_end(&t->lock);
        gone = d->store;
        cht_free(d);
    }
    if (rc == CHT_OK)
        rc = cht_env_drop(t->env, name, err);
    if (gone != NULL && t->closed_fn != NULL)
        t->closed_fn(t->closed_ctx, gone); /* before its address is in use again */
    if (is_default(name) && (rc == CHT_OK || (rc == CHT_DATABASE_NOT_FOUND && is_undone(t, name)))) {
        struct svc_database *fresh = NULL;
        rc = cht_env_create(t->env, name, 0, err);
        if (rc == CHT_OK)
            rc = open_listed(t, name, false, &fresh, err);
        svc_dbs_put(fresh);
    }
    if (is_default(name) && rc != CHT_DATABASE_BUSY && rc != CHT_DATABASE_NOT_FOUND)
        atomic_store_explicit(&t->undone, rc != CHT_OK, memory_order_relaxed);
    end_turn(t, &mine);
    return rc;
}

void svc_dbs_finish(struct svc_dbs *t,
                    void (*fn)(void *ctx, const char *name, enum cht_rc rc, const char *what), void *ctx)
{
    struct cht_err err = {0};
    if (cht_env_unfinished(t->env) && cht_env_finish(t->env, fn, ctx, &err) != CHT_OK)
        fn(ctx, "the data directories", err.code, err.msg);
}

enum cht_rc svc_dbs_list(struct svc_dbs *t, void (*fn)(void *ctx, const char *name), void *ctx,
                         struct cht_err *err)
{
    return cht_env_list(t->env, fn, ctx, err);
}

/* The first from d on that is not being dropped, held. The lock is held. */
static struct svc_database *hold_from(struct svc_database *d)
{
    while (d != NULL && atomic_load_explicit(&d->dropping, memory_order_relaxed))
        d = d->next;
    if (d != NULL)
        svc_dbs_hold(d);
    return d;
}

/* One that is held stays listed, so the walk can go on from it. */
void svc_dbs_each(struct svc_dbs *t, void (*fn)(void *ctx, struct svc_database *d), void *ctx)
{
    cht_rwlock_read(&t->lock);
    struct svc_database *d = hold_from(t->list);
    cht_rwlock_read_end(&t->lock);
    while (d != NULL) {
        fn(ctx, d);
        cht_rwlock_read(&t->lock);
        struct svc_database *next = hold_from(d->next);
        cht_rwlock_read_end(&t->lock);
        let_go(d);
        d = next;
    }
}
