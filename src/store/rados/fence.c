/* fence: see fence.h. */
#include "store/rados/fence.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/code.h"
#include "store/rados/txn.h"
#include "store/rados/txn_int.h"

#include <string.h>

#define HEADER "h"
#define HEADER_SIZE (CHT_FENCE_SIZE + 1u)
#define TRIES_MIN 8u      /* before the time is looked at: a process that stood still has a chance */
#define WAIT_MAX_SHIFT 6u /* between two tries: up to 64 ms */

static struct cht_str row_of(const struct cht_fence *f) { return (struct cht_str){f->row, f->n}; }

static struct cht_str token_of(const struct cht_fence *f)
{
    return (struct cht_str){f->token, CHT_FENCE_SIZE};
}

static enum cht_rc lost(const struct cht_rdb *db, enum cht_rc rc, struct cht_err *err)
{
    return CHT_FAIL(err, rc, "another server has taken a lock of database %s that this one had", db->name);
}

/* ---- in the header ----------------------------------------------------------------------------------------------------- */

struct known { /* what a row says */
    uint8_t bytes[HEADER_SIZE];
    size_t n;
};

static void take(void *ctx, struct cht_str row, struct cht_str value)
{
    struct known *k = ctx;
    (void)row;
    k->n = value.n < sizeof k->bytes ? value.n : sizeof k->bytes;
    memcpy(k->bytes, value.p, k->n);
}

/* In digits of 7 bits: see fence.h. */
static void number_after(uint8_t out[8], const struct known *k)
{
    unsigned carry = 1;
    for (unsigned i = 8; i-- > 0;) {
        carry += k->n > i ? k->bytes[i] : 0;
        out[i] = (uint8_t)(carry & 0x7f);
        carry >>= 7;
    }
}

/* f as it was -> as it is to be; that there is a header is compared, too: the lock alone makes an object. */
static enum cht_rc change_header(struct cht_rdb *db, struct cht_str row, struct cht_str was,
                                 struct cht_str now, struct cht_err *err)
{
    struct cht_call call = cht_call_write();
    rados_write_op_omap_cmp2(call.w, "format", LIBRADOS_CMPXATTR_OP_GT, "", 6, 0, NULL);
    cht_call_compare(&call, row, was);
    cht_call_set(&call, row, now);
    int r = cht_call_run(&call, db->io, HEADER);
    if (cht_os_code(r) != CHT_OS_CANCELED)
        return cht_rdb_rc(db, r, HEADER, err);
    enum cht_rc rc = cht_rdb_reload(db, err); /* is there a header? */
    return rc == CHT_OK ? lost(db, CHT_LOCKED, err) : rc;
}

/* ---- in the shards ------------------------------------------------------------------------------------------------------ */

static void start(struct cht_rdb *db, struct cht_call *call, const struct cht_map *m, unsigned shard,
                  const struct cht_fence *f)
{
    char object[CHT_LINK_OBJECT_MAX];
    *call = cht_call_write();
    cht_rdb_shard_name(object, shard);
    cht_txn_free(call, db, cht_map_epoch(m, shard));
    rados_write_op_omap_cmp2(call->w, (const char *)f->row, LIBRADOS_CMPXATTR_OP_LT, (const char *)f->token,
                             f->n, CHT_FENCE_SIZE, NULL); /* what is there is lower */
    cht_call_set(call, row_of(f), token_of(f));
    cht_call_start(call, db->io, object);
}

struct found { /* in a shard that refused */
    struct cht_epoch e;
    struct known token;
    bool epoch;
};

static void take_found(void *ctx, struct cht_str row, struct cht_str value)
{
    struct found *f = ctx;
    if (row.n == 1)
        f->epoch = cht_row_epoch_read(value.p, value.n, &f->e);
    else
        take(&f->token, row, value);
}

struct raising {
    bool up[CHT_MAP_MAX], left; /* left: not in all shards yet */
    struct cht_call *calls;     /* owned, CHT_MAP_MAX */
};

/* *up: it is up there already. Else it is to be tried again, maybe by another map. */
static enum cht_rc why_refused(struct cht_rdb *db, const struct cht_map *m, unsigned shard,
                               const struct cht_fence *f, bool *up, struct cht_err *err)
{
    char object[CHT_LINK_OBJECT_MAX];
    struct found found = {.epoch = false};
    bool again;
    const char *names[] = {"E", (const char *)f->row};
    size_t lens[] = {1, f->n};
    cht_rdb_shard_name(object, shard);
    int r = cht_link_rows(db->io, object, &(struct cht_rows_wanted){names, lens, 2}, take_found, &found);
    *up = false;
    if (r < 0)
        return cht_rdb_rc(db, r, object, err);
    if (!found.epoch)
        return CHT_FAIL(err, CHT_CORRUPT, "object %s has no epoch", object);
    if (found.token.n != 0 && found.token.n != CHT_FENCE_SIZE)
        return CHT_FAIL(err, CHT_CORRUPT, "object %s: who has a lock cannot be read", object);
    cht_rdb_learn(db, &found.e);
    int d = found.token.n == CHT_FENCE_SIZE ? memcmp(found.token.bytes, f->token, CHT_FENCE_SIZE) : -1;
    if (d > 0)
        return lost(db, CHT_LOCKED, err);
    if (found.e.lock != 0)
        return cht_txn_settle(db, shard, &found.e, true, &again, err);
    if (found.e.epoch < cht_map_epoch(m, shard))
        return CHT_FAIL(err, CHT_CORRUPT, "object %s is older than the map of the shards", object);
    *up = d == 0;
    return found.e.epoch != cht_map_epoch(m, shard) ? cht_rdb_reload(db, err) : CHT_OK;
}

/* Every shard of the map that has it not yet, once. */
static enum cht_rc raise_once(struct cht_rdb *db, const struct cht_fence *f, struct raising *r,
                              struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    const struct cht_map *m = cht_rdb_map(db);
    r->left = false;
    for (unsigned s = cht_map_next(m, 0); s < CHT_MAP_MAX; s = cht_map_next(m, s + 1)) {
        if (!r->up[s])
            start(db, &r->calls[s], m, s, f);
    }
    for (unsigned s = 0; s < CHT_MAP_MAX; s++) {
        char object[CHT_LINK_OBJECT_MAX];
        if (r->calls[s].w == NULL)
            continue;
        int result = cht_call_wait(&r->calls[s]);
        cht_rdb_shard_name(object, s);
        r->up[s] = result == 0;
        if (rc != CHT_OK || result == 0)
            continue;
        rc = cht_os_code(result) == CHT_OS_CANCELED ? why_refused(db, m, s, f, &r->up[s], err)
                                                    : cht_rdb_rc(db, result, object, err);
        r->left = r->left || !r->up[s];
    }
    r->left = r->left || cht_rdb_map(db) != m;
    return rc;
}

/* How long it may go on: several transactions that stand still are ended meanwhile, and the lock is not kept for longer without a beat. */
static uint64_t raising_ns(const struct cht_rdb *db)
{
    uint64_t ns = db->env->cfg.settle_ms * UINT64_C(4000000),
             most = CHT_GUARD_KEPT_SECONDS * UINT64_C(1000000000);
    return ns < most ? ns : most;
}

/* N2. A shard that the map has got meanwhile has its turn as well. */
static enum cht_rc raise_in_shards(struct cht_rdb *db, const struct cht_fence *f, struct cht_err *err)
{
    struct raising r = {.left = true};
    uint64_t end = cht_now_ns() + raising_ns(db);
    enum cht_rc rc = CHT_OK;
    r.calls = cht_calloc(CHT_MAP_MAX, sizeof *r.calls);
    if (r.calls == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a lock");
    for (unsigned tries = 0; rc == CHT_OK && r.left; tries++) {
        if (tries >= TRIES_MIN && cht_now_ns() > end) {
            rc = CHT_FAIL(err, CHT_TIMEOUT,
                          "a lock of database %s: a shard of it is never free of transactions", db->name);
            break;
        }
        if (tries > 0)
            cht_sleep_ns(UINT64_C(1000000) << (tries <= WAIT_MAX_SHIFT ? tries - 1 : WAIT_MAX_SHIFT));
        cht_rdb_step(db, "fence-try");
        rc = raise_once(db, f, &r, err);
    }
    cht_free(r.calls);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------------ */

static bool same_lock(const struct cht_fence *a, const struct cht_fence *b)
{
    return a->n == b->n && memcmp(a->row, b->row, a->n) == 0;
}

static bool is_doubted(struct cht_rdb *db, const struct cht_fence *f)
{
    bool found = false;
    cht_mutex_lock(&db->mu);
    for (unsigned i = 0; i < db->doubted->n; i++) {
        const struct cht_fence *d = &db->doubted->v[i];
        found = found || (same_lock(d, f) && memcmp(d->token, f->token, CHT_FENCE_SIZE) == 0);
    }
    cht_mutex_unlock(&db->mu);
    return found;
}

enum cht_rc cht_fence_raise(struct cht_rdb *db, const char *name, struct cht_fence *out, struct cht_err *err)
{
    const char *cookie = db->env->guards.cookie;
    uint8_t now[HEADER_SIZE], row[sizeof out->row];
    struct known was = {.n = 0};
    *out = (struct cht_fence){.n = 1 + strlen(name)}; /* ours, short */
    out->row[0] = 'F';
    memcpy(out->row + 1, name, out->n - 1);
    memcpy(row, out->row, sizeof row);
    row[0] = 'f';
    const char *names = (const char *)row;
    int r = cht_link_rows(db->io, HEADER, &(struct cht_rows_wanted){&names, &out->n, 1}, take, &was);
    if (r < 0)
        return cht_rdb_rc(db, r, HEADER, err);
    if (was.n == HEADER_SIZE && was.bytes[CHT_FENCE_SIZE] == 1 &&
        memcmp(was.bytes + 8, cookie, CHT_FENCE_SIZE - 8) == 0) {
        memcpy(out->token, was.bytes, CHT_FENCE_SIZE);
        if (!is_doubted(db, out))
            return CHT_OK;
    }
    number_after(out->token, &was);
    memcpy(out->token + 8, cookie, CHT_FENCE_SIZE - 8);
    memcpy(now, out->token, CHT_FENCE_SIZE);
    now[CHT_FENCE_SIZE] = 0;
    struct cht_str f = {row, out->n}, mine = {now, HEADER_SIZE};
    cht_rdb_step(db, "fence");
    enum cht_rc rc = change_header(db, f, (struct cht_str){was.bytes, was.n}, mine, err);
    cht_rdb_step(db, "fence-shards");
    if (rc == CHT_OK)
        rc = raise_in_shards(db, out, err);
    memcpy(was.bytes, now, HEADER_SIZE);
    now[CHT_FENCE_SIZE] = 1;
    cht_rdb_step(db, "fence-up");
    return rc == CHT_OK ? change_header(db, f, (struct cht_str){was.bytes, HEADER_SIZE}, mine, err) : rc;
}

void cht_fences_doubt(struct cht_rdb *db, const struct cht_fences *f, enum cht_rc ended)
{
    if (ended != CHT_TIMEOUT && ended != CHT_IO && ended != CHT_CLOSED)
        return;
    cht_mutex_lock(&db->mu);
    struct cht_fences *d = db->doubted;
    for (unsigned i = 0; i < f->n; i++) {
        unsigned at = 0;
        while (at < d->n && !same_lock(&d->v[at], &f->v[i]))
            at++;
        at = at < CHT_FENCES_MAX ? at : 0; /* more names than a process has locks */
        d->v[at] = f->v[i];
        d->n = at < d->n ? d->n : at + 1;
    }
    cht_mutex_unlock(&db->mu);
}

enum cht_rc cht_fences_look(const struct cht_fences *f, struct cht_rowset *s, unsigned shard, bool guess,
                            struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < f->n; i++) {
        struct cht_str value;
        size_t at;
        enum cht_rc one = guess
                              ? cht_rowset_expect(s, shard, row_of(&f->v[i]), token_of(&f->v[i]), &value, &at)
                              : cht_rowset_get(s, shard, row_of(&f->v[i]), &value, &at);
        if (one == CHT_NO_MEMORY)
            return CHT_FAIL(err, one, "no memory for a row");
        if (one == CHT_PENDING)
            rc = one;
        else if (value.n != CHT_FENCE_SIZE || memcmp(value.p, f->v[i].token, CHT_FENCE_SIZE) != 0)
            return lost(s->db, CHT_DATABASE_BUSY, err);
    }
    return rc;
}

enum cht_rc cht_fences_look_all(const struct cht_fences *f, struct cht_rowset *s, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    bool changes;
    for (unsigned i = 0; f->n > 0 && i < s->map->top; i++) {
        if (!cht_rowset_touches(s, i, &changes) || !changes)
            continue;
        enum cht_rc one = cht_fences_look(f, s, i, false, err);
        if (one != CHT_OK && one != CHT_PENDING)
            return one;
        rc = one == CHT_PENDING ? one : rc;
    }
    return rc;
}
