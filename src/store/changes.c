/* changes: see changes.h and cheetah/changes.h. The log's side, which segments stay and how they are read, is wal_kept.c.
 *
 * From operations of the log to changes. One change is held back until the next one of its record is met, since only the last of a record
 * has the record's number:
 *
 *     PAIR_SET k n, VALUE_PUT k    (a new pair)            PAIR_SET n
 *     VALUE_PUT k, PAIR_SET k n    (an upsert)             PAIR_SET n
 *     VALUE_PUT k, VALUE_DEL k     (keys reserved)         VALUE_DEL k
 *
 * Values alone are told only to who follows everything: a value has no way back to its names.
 */
#include "store/changes.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "store/commit_int.h"
#include "store/db.h"

#include <inttypes.h>
#include <string.h>

#define STEP_BYTES (UINT64_C(4) << 20) /* of the log, for one call */

/* One call of next. */
struct telling {
    struct cht_follower *c;
    bool (*each)(void *ctx, const struct cht_change *change);
    void *ctx;
    bool held; /* `change` is to be told yet */
    struct cht_change change;
    uint8_t name[CHT_NAME_MAX]; /* of change */
};

/* The change that is held back, with the number of record `seq`. False: enough. */
static bool tell_held(struct telling *t, uint64_t seq, bool more)
{
    if (!t->held)
        return true;
    t->held = false;
    t->change.number = t->c->origin + seq;
    t->change.more = more;
    return t->each(t->ctx, &t->change);
}

static bool begins(struct cht_str name, const uint8_t *p, size_t n)
{
    return name.n >= n && (n == 0 || memcmp(name.p, p, n) == 0);
}

/* Does it concern this prefix? As which change. */
static bool concerns(const struct cht_follower *c, const struct cht_logop *op, enum cht_change_kind *kind)
{
    switch (op->kind) {
    case CHT_LOG_VALUE_PUT:
        *kind = CHT_CHANGE_VALUE_SET;
        return c->len == 0;
    case CHT_LOG_VALUE_DEL:
        *kind = CHT_CHANGE_VALUE_DEL;
        return c->len == 0;
    case CHT_LOG_PAIR_SET:
        *kind = CHT_CHANGE_PAIR_SET;
        return begins(op->data, c->prefix, c->len);
    case CHT_LOG_PAIR_DEL:
        *kind = CHT_CHANGE_PAIR_DEL;
        return begins(op->data, c->prefix, c->len);
    case CHT_LOG_PREFIX_DEL:
        *kind = CHT_CHANGE_PREFIX_DEL;
        return begins(op->data, c->prefix, c->len) ||
               begins((struct cht_str){c->prefix, c->len}, op->data.p, op->data.n);
    default: /* nothing that a pair or a value is */
        return false;
    }
}

/* The two halves of one change: the second takes the place of the first, or adds nothing to it. */
static bool same_change(struct telling *t, enum cht_change_kind kind, uint64_t key, bool *drop)
{
    if (!t->held || t->change.key != key)
        return false;
    *drop = t->change.kind == CHT_CHANGE_PAIR_SET && kind == CHT_CHANGE_VALUE_SET;
    return *drop || (t->change.kind == CHT_CHANGE_VALUE_SET &&
                     (kind == CHT_CHANGE_PAIR_SET || kind == CHT_CHANGE_VALUE_DEL));
}

/* Holds the operation back, after the one before. False: enough, and this one is not taken. */
static bool take(struct telling *t, const struct cht_logop *op, uint64_t seq)
{
    enum cht_change_kind kind;
    bool drop = false;
    if (!concerns(t->c, op, &kind))
        return true;
    if (same_change(t, kind, op->key, &drop)) {
        if (drop)
            return true;
        t->held = false;
    }
    if (!tell_held(t, seq - 1, true))
        return false;
    bool named = kind <= CHT_CHANGE_PREFIX_DEL;
    t->held = true;
    t->change = (struct cht_change){.kind = kind, .key = op->key};
    if (named && op->data.n > 0)
        memcpy(t->name, op->data.p, op->data.n);
    t->change.name = (struct cht_str){t->name, named ? op->data.n : 0};
    return true;
}

/* The operation at *pos; of a value only as much as is needed, its bytes may be after the window. */
static enum cht_rc decode(const uint8_t *p, size_t n, uint64_t left, uint64_t *pos, struct cht_logop *op,
                          struct cht_err *err)
{
    if (p[*pos] != CHT_LOG_VALUE_PUT) {
        size_t at = (size_t)*pos;
        enum cht_rc rc = cht_logop_decode(p, n, &at, op, err);
        *pos = at;
        return rc;
    }
    uint64_t rest = left - *pos, len = rest >= CHT_LOGOP_HEAD_MAX ? cht_get32(p + *pos + 7) : rest;
    if (rest < CHT_LOGOP_HEAD_MAX || len > rest - CHT_LOGOP_HEAD_MAX)
        return CHT_DAMAGED(err, "log record: a value is cut off");
    *op = (struct cht_logop){.kind = CHT_LOG_VALUE_PUT, .key = cht_get48(p + *pos + 1)};
    *pos += CHT_LOGOP_HEAD_MAX + len;
    return CHT_OK;
}

/* For cht_wal_follow. */
static enum cht_rc part(void *ctx, uint64_t seq, const uint8_t *p, size_t n, uint64_t left, uint64_t *used,
                        struct cht_err *err)
{
    struct telling *t = ctx;
    uint64_t pos = 0;
    while (pos < n && (n - pos >= CHT_LOGOP_HEAD_MAX + CHT_NAME_MAX || left == n)) {
        struct cht_logop op;
        *used = pos;
        enum cht_rc rc = decode(p, n, left, &pos, &op, err);
        if (rc != CHT_OK)
            return rc;
        if (!take(t, &op, seq))
            return CHT_PENDING; /* it comes again */
    }
    *used = pos;
    return pos < left || tell_held(t, seq, false) ? CHT_OK : CHT_PENDING;
}

static void follower_close(struct cht_changes *base)
{
    struct cht_follower *c = cht_follower(base);
    atomic_fetch_sub_explicit(&c->db->followers.open, 1, memory_order_relaxed);
    cht_free(c);
}

static uint64_t follower_position(const struct cht_changes *base)
{
    const struct cht_follower *c = (const struct cht_follower *)(const void *)base;
    return c->origin + c->place.next - 1;
}

static enum cht_rc follower_next(struct cht_changes *base,
                                 bool (*each)(void *ctx, const struct cht_change *change), void *ctx,
                                 struct cht_err *err)
{
    struct cht_follower *c = cht_follower(base);
    struct telling t = {.c = c, .each = each, .ctx = ctx};
    uint64_t upto = cht_followers_end(c->db);
    if (upto < c->place.next)
        return CHT_PENDING;
    enum cht_rc rc = CHT_OK;
    if (cht_wal_synced(c->db->wal) < upto) /* CHT_DURABLE_OS: nobody else asks for it */
        rc = cht_committer_sync(c->db->committer, err);
    if (rc == CHT_OK)
        rc = cht_wal_follow(c->db->wal, &c->place, upto, STEP_BYTES, part, &t, err);
    if (rc == CHT_GONE) {
        struct cht_changes_range range;
        (void)cht_db_changes_range(&c->db->base, &range, NULL);
        return CHT_FAIL(err, CHT_GONE, "changes after %" PRIu64 " are told, not after %" PRIu64, range.oldest,
                        follower_position(base));
    }
    (void)tell_held(&t, c->place.next - 1,
                    true); /* of a record that was not read to its end, which ends with the place at it */
    return rc == CHT_PENDING ? CHT_OK : rc;
}

static const struct cht_changes_ops follower_ops = {.close = follower_close,
                                                    .next = follower_next,
                                                    .await = cht_follower_await,
                                                    .forget = cht_follower_forget,
                                                    .position = follower_position};

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_db_changes_range(struct cht_store *s, struct cht_changes_range *out, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    struct cht_wal_span span;
    uint64_t newest = cht_wal_synced(db->wal);
    (void)err;
    cht_wal_span(db->wal, &span);
    *out = (struct cht_changes_range){
        .kept = span.kept, .followers = atomic_load_explicit(&db->followers.open, memory_order_relaxed)};
    if (span.origin != 0) {
        out->oldest = span.origin + span.first - 1;
        out->newest = span.origin + newest;
        out->whole = span.first == 1;
        if (out->oldest > out->newest) /* the last of it could not be read */
            out->oldest = out->newest;
    }
    return CHT_OK;
}

/* A number above all that were given out before. */
static uint64_t new_origin(const struct cht_env *env)
{
    uint64_t now = cht_wall_ns() / 1000, last = atomic_load_explicit(&env->last_change, memory_order_relaxed);
    return now > last ? now : last + 1;
}

/* A segment whose header says that it names what changes, if there is none. */
static enum cht_rc begin_changes(struct cht_db *db, struct cht_err *err)
{
    struct cht_committer *cm = db->committer;
    enum cht_rc rc = CHT_OK;
    cht_committer_lock(cm);
    if (atomic_load_explicit(&db->read_only, memory_order_acquire))
        rc = cht_trouble_stopped(&db->trouble, err);
    if (rc == CHT_OK)
        rc = cht_wal_begin_changes(db->wal, new_origin(db->env), err);
    if (rc == CHT_IO || (rc != CHT_OK && cht_wal_broken(db->wal)))
        rc = cht_committer_stop(cm, err, err);
    cht_committer_unlock(cm);
    return rc;
}

void cht_db_begin_with_changes(struct cht_db *db)
{
    if (db->env->cfg.changes)
        cht_wal_begin_with_changes(db->wal, new_origin(db->env));
}

enum cht_rc cht_db_changes_open(struct cht_store *s, struct cht_str prefix, uint64_t after,
                                struct cht_changes **out, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    struct cht_changes_range range;
    struct cht_err local = {0};
    err = err == NULL ? &local : err;
    enum cht_rc rc = cht_wal_origin(db->wal) == 0 ? begin_changes(db, err) : CHT_OK;
    if (rc == CHT_OK) /* what was committed before is told, under any durability */
        rc = cht_committer_sync(db->committer, err);
    if (rc == CHT_OK)
        rc = cht_db_changes_range(s, &range, err);
    if (rc != CHT_OK)
        return rc;
    if (after == CHT_CHANGES_NOW)
        after = range.newest;
    if (after == CHT_CHANGES_OLDEST || (after == CHT_CHANGES_BEGIN && range.whole))
        after = range.oldest;
    if (after < range.oldest || after > range.newest)
        return CHT_FAIL(err, CHT_GONE, "changes after %" PRIu64 " are told, not after %" PRIu64, range.oldest,
                        after);
    struct cht_follower *c = cht_calloc(1, sizeof *c + prefix.n);
    if (c == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a follower");
    c->base.ops = &follower_ops;
    c->db = db;
    c->origin = cht_wal_origin(db->wal);
    c->place.next = after - c->origin + 1;
    c->len = prefix.n;
    if (prefix.n > 0)
        memcpy(c->prefix, prefix.p, prefix.n);
    atomic_fetch_add_explicit(&db->followers.open, 1, memory_order_relaxed);
    *out = &c->base;
    return CHT_OK;
}
