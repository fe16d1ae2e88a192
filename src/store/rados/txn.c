/* txn: see txn.h. */
#include "store/rados/txn.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "os/code.h"
#include "os/io.h"
#include "store/rados/txn_int.h"

#include <string.h>

/* ---- the record --------------------------------------------------------------------------------------------------- */

static enum cht_rc too_many(unsigned shard, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_BATCH_TOO_LARGE,
                    "a commit looks at or changes more than %zu rows and counters of shard %u",
                    CHT_ROWSET_STEPS_MAX, shard);
}

static enum cht_rc make_record(struct cht_txn *t, const struct cht_rowset *s, struct cht_err *err)
{
    bool changes;
    uint32_t n = 0;
    enum cht_rc rc = cht_buf_reserve(&t->record, 4096, err);
    t->generation = t->after = s->generation;
    t->record.len = t->after != 0 ? CHT_TXN_HEAD : 8;
    for (unsigned i = 0; i < s->map->top && rc == CHT_OK; i++) {
        if (!cht_rowset_touches(s, i, &changes))
            continue;
        size_t at = t->record.len, steps = 0;
        if (cht_rowset_weight(s, i) > CHT_ROWSET_WRITE_MAX)
            return CHT_FAIL(err, CHT_BATCH_TOO_LARGE,
                            "the values that a commit replaces or writes in shard %u have more than %zu MiB",
                            i, CHT_ROWSET_WRITE_MAX >> 20);
        rc = cht_buf_reserve(&t->record, at + 4096, err);
        if (rc != CHT_OK)
            break;
        t->record.len += 12;
        rc = cht_rowset_block(s, i, &t->record, &steps, err);
        if (rc == CHT_OK && (cht_rowset_looks(s, i) > CHT_ROWSET_STEPS_MAX || steps > CHT_ROWSET_STEPS_MAX))
            rc = too_many(i, err); /* T2 or T4 would be */
        if (rc == CHT_OK) {
            cht_put32(t->record.data + at, i);
            cht_put32(t->record.data + at + 4, cht_map_epoch(s->map, i));
            cht_put32(t->record.data + at + 8, (uint32_t)(t->record.len - at - 12));
        }
        n++;
        if (rc == CHT_OK && t->record.len > CHT_TXN_RECORD_MAX)
            rc = CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "an atomic commit changes more than %zu MiB",
                          CHT_TXN_RECORD_MAX >> 20);
    }
    if (rc != CHT_OK)
        return rc;
    (void)cht_txn_head(t, t->record.data, n);
    return cht_txn_parse(t, err);
}

/* ---- steps --------------------------------------------------------------------------------------------------------- */

/* Of what only removes, the record may be written into a full pool. */
static bool shrinks(const struct cht_rowset *s)
{
    bool less = true;
    for (size_t i = 0; i < s->n; i++) {
        const struct cht_rowset_row *r = &s->rows[i];
        less = less && (!r->dirty || r->now.p == NULL || (r->was.p != NULL && r->now.n <= r->was.n));
    }
    return less;
}

static int make_object(const struct cht_txn *t, const struct cht_rowset *s)
{
    struct cht_call call = cht_call_write();
    rados_write_op_create(call.w, LIBRADOS_CREATE_EXCLUSIVE, NULL);
    rados_write_op_write_full(call.w, (const char *)t->record.data, t->record.len);
    call.force = shrinks(s);
    cht_call_set(&call, CHT_ROW_TEXT("s"), CHT_ROW_TEXT("P"));
    return cht_call_run(&call, t->db->io, t->object);
}

#define IN_ORDER \
    2u /* refusals, after which the locks are taken one after the other: of two that meet one is then first */

/* T2. 0, or the first refusal or failure. */
static int lock_all(struct cht_txn *t, const struct cht_rowset *s)
{
    struct cht_call *calls = t->calls;
    char object[CHT_LINK_OBJECT_MAX];
    int result = 0;
    for (size_t i = 0; i < t->n; i++) {
        calls[i] = cht_call_write();
        cht_rdb_shard_name(object, t->places[i].shard);
        cht_txn_epoch(&calls[i], &(struct cht_epoch){t->places[i].epoch, 0, t->generation},
                      &(struct cht_epoch){t->places[i].epoch, t->id, t->generation});
        cht_rowset_compare(s, t->places[i].shard, &calls[i]);
        if (i == t->n - 1)
            cht_rdb_step(t->db, "lock-last");
        if (s->tries < IN_ORDER) {
            cht_call_start(&calls[i], t->db->io, object);
        } else {
            result = cht_call_run(&calls[i], t->db->io, object);
            if (result < 0)
                break;
        }
    }
    for (size_t i = 0; i < t->n && s->tries < IN_ORDER; i++) {
        int r = cht_call_wait(&calls[i]);
        if (r < 0 && (result == 0 || cht_rowset_refused(s, result)))
            result = r;
    }
    return result;
}

/* After T1: T2 to T5. */
static enum cht_rc go_on(struct cht_txn *t, const struct cht_rowset *s, bool *refused, struct cht_err *err)
{
    cht_rdb_step(t->db, "lock");
    int r = lock_all(t, s);
    if (r < 0) {
        *refused = cht_rowset_refused(s, r);
        enum cht_rc rc = *refused ? CHT_OK : cht_rdb_rc(t->db, r, t->object, err);
        if (cht_txn_state(t, "P", "A") == 0)
            (void)cht_txn_give_up(t, NULL); /* what is left of it is settled by whoever meets it */
        return rc;
    }
    cht_rdb_step(t->db, "commit");
    r = cht_txn_state(t, "P", "C");
    if (cht_os_code(r) == CHT_OS_CANCELED || cht_os_code(r) == CHT_OS_NOT_THERE) {
        *refused = true; /* somebody has ended it */
        (void)cht_txn_give_up(t, NULL);
        return CHT_OK;
    }
    if (r < 0)
        return cht_rdb_rc(t->db, r, t->object, err);
    for (size_t i = 0; i < t->n; i++)
        cht_rowset_summed(s, t->places[i].shard);
    (void)cht_txn_finish(t,
                         NULL); /* it is committed whatever becomes of this: who meets it goes on with it */
    return CHT_OK;
}

static enum cht_rc commit_many(struct cht_rowset *s, bool *refused, struct cht_err *err)
{
    struct cht_txn t = {.db = s->db};
    enum cht_rc rc = make_record(&t, s, err);
    while (t.id == 0)
        cht_os_random(&t.id, sizeof t.id);
    cht_txn_name(&t);
    if (rc == CHT_OK) {
        cht_rdb_step(s->db, "create");
        rc = cht_rdb_rc(s->db, make_object(&t, s), t.object, err);
    }
    if (rc == CHT_OK)
        rc = go_on(&t, s, refused, err);
    cht_txn_fini(&t);
    return rc;
}

/* In which generation it is written. */
static void begin(struct cht_rowset *s)
{
    s->generation = cht_rdb_generation(s->db);
    s->keeps = cht_rdb_keeps(s->db, s->generation);
}

/* ------------------------------------------------------------------------------------------------------------------ */

int cht_txn_write_one(struct cht_rowset *s, unsigned shard, enum cht_rc *rc, struct cht_err *err)
{
    struct cht_call call = cht_call_write();
    struct cht_buf block = {0};
    size_t steps = 0;
    char object[CHT_LINK_OBJECT_MAX];
    cht_rdb_shard_name(object, shard);
    begin(s);
    cht_txn_epoch(&call, &(struct cht_epoch){cht_map_epoch(s->map, shard), 0, s->generation},
                  &(struct cht_epoch){cht_map_epoch(s->map, shard), 0, s->generation});
    cht_rowset_compare(s, shard, &call);
    *rc = cht_rowset_block(s, shard, &block, &steps, err);
    if (*rc == CHT_OK && cht_rowset_looks(s, shard) + steps > CHT_ROWSET_STEPS_MAX)
        *rc = too_many(shard, err);
    if (*rc == CHT_OK)
        *rc = cht_block_apply((struct cht_str){block.data, block.len}, &call, err);
    cht_rdb_step(s->db, "write");
    int r = -1;
    if (*rc == CHT_OK)
        r = cht_call_run(&call, s->db->io, object);
    else
        rados_release_write_op(call.w);
    cht_buf_free(&block);
    if (*rc == CHT_OK && r >= 0)
        cht_rowset_summed(s, shard);
    if (*rc == CHT_OK && r < 0 && !cht_rowset_refused(s, r))
        *rc = cht_rdb_rc(s->db, r, object, err);
    return r;
}

static enum cht_rc compare_one(const struct cht_rowset *s, unsigned shard, struct cht_call *call,
                               struct cht_err *err)
{
    char object[CHT_LINK_OBJECT_MAX];
    if (cht_rowset_looks(s, shard) > CHT_ROWSET_STEPS_MAX)
        return too_many(shard, err);
    if (cht_rowset_weight(s, shard) > CHT_ROWSET_WRITE_MAX)
        return CHT_FAIL(err, CHT_BATCH_TOO_LARGE,
                        "the values that a commit reads in shard %u have more than %zu MiB", shard,
                        CHT_ROWSET_WRITE_MAX >> 20);
    *call = cht_call_write();
    call->force = true; /* it writes nothing */
    cht_txn_free(call, s->db, cht_map_epoch(s->map, shard));
    cht_rowset_compare(s, shard, call);
    cht_rdb_shard_name(object, shard);
    cht_call_start(call, s->db->io, object);
    return CHT_OK;
}

/* Of several shards: each still has what was read of it, now that all was read. So there was a moment at which all was so. */
static enum cht_rc compare_all(const struct cht_rowset *s, bool *refused, struct cht_err *err)
{
    bool changes;
    enum cht_rc rc = CHT_OK;
    struct cht_call *calls = cht_calloc(s->map->top, sizeof *calls);
    if (calls == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a transaction");
    cht_rdb_step(s->db, "compare");
    for (unsigned i = 0; i < s->map->top && rc == CHT_OK; i++) {
        if (cht_rowset_touches(s, i, &changes))
            rc = compare_one(s, i, &calls[i], err);
    }
    for (unsigned i = 0; i < s->map->top; i++) {
        char object[CHT_LINK_OBJECT_MAX];
        int r = calls[i].w != NULL ? cht_call_wait(&calls[i]) : 0;
        cht_rdb_shard_name(object, i);
        if (cht_rowset_refused(s, r))
            *refused = true;
        else if (r < 0 && rc == CHT_OK)
            rc = cht_rdb_rc(s->db, r, object, err);
    }
    cht_free(calls);
    return rc;
}

enum cht_rc cht_txn_commit(struct cht_rowset *s, bool *refused, struct cht_err *err)
{
    unsigned touched = 0, last = 0;
    bool any = false, changes;
    *refused = false;
    begin(s);
    for (unsigned i = 0; i < s->map->top; i++) {
        if (!cht_rowset_touches(s, i, &changes))
            continue;
        touched++;
        last = i;
        any = any || changes;
    }
    if (!any)
        return touched > 1 && s->at_once ? compare_all(s, refused, err) : CHT_OK;
    if (touched > 1)
        return commit_many(s, refused, err);
    enum cht_rc rc;
    int r = cht_txn_write_one(s, last, &rc, err);
    *refused = rc == CHT_OK && r < 0;
    if (rc == CHT_BATCH_TOO_LARGE) { /* not done: looking and changing as two operations */
        if (err != NULL)
            *err = (struct cht_err){0};
        rc = commit_many(s, refused, err);
    }
    return rc;
}
