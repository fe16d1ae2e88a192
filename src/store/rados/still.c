/* still: see still.h. */
#include "store/rados/still.h"

#include "base/bytes.h"
#include "os/code.h"
#include "os/io.h"

#include <string.h>

#define PLACE (12u + NO_CHANGES)
#define NO_CHANGES 8u /* bytes: no rows, no counters (rowset_block.c) */
#define WAITS 64u     /* of a shard, in the middle */

static enum cht_rc make_record(struct cht_txn *t, const struct cht_map *m, struct cht_err *err)
{
    enum cht_rc rc = cht_buf_reserve(&t->record, CHT_TXN_HEAD + PLACE * (size_t)m->shards, err);
    if (rc != CHT_OK)
        return rc;
    size_t head = cht_txn_head(t, t->record.data, m->shards);
    uint8_t *p = t->record.data + head;
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX; i = cht_map_next(m, i + 1), p += PLACE) {
        cht_put32(p, i);
        cht_put32(p + 4, cht_map_epoch(m, i));
        cht_put32(p + 8, NO_CHANGES);
        memset(p + 12, 0, NO_CHANGES);
    }
    t->record.len = head + PLACE * (size_t)m->shards;
    while (t->id == 0)
        cht_os_random(&t->id, sizeof t->id);
    cht_txn_name(t);
    return cht_txn_parse(t, err);
}

/* T1. */
static int make_object(const struct cht_txn *t)
{
    struct cht_call call = cht_call_write();
    rados_write_op_create(call.w, LIBRADOS_CREATE_EXCLUSIVE, NULL);
    rados_write_op_write_full(call.w, (const char *)t->record.data, t->record.len);
    call.force = true; /* also in a full pool: it goes again */
    cht_call_set(&call, CHT_ROW_TEXT("s"), CHT_ROW_TEXT("P"));
    return cht_call_run(&call, t->db->io, t->object);
}

/* A shard refused its lock: waits for the transaction that has it, and ends one that stands still. For one that divides the shard, which may be at it
 * for long, not as long as others are locked: *refused, and cht_still_back waits. So it is if its epoch or generation is another, too. */
static enum cht_rc wait_for_other(struct cht_txn *t, size_t at, bool *refused, struct cht_err *err)
{
    const struct cht_txn_place *p = &t->places[at];
    struct cht_epoch e = {0};
    bool again, divides = false;
    enum cht_rc rc = cht_txn_look(t->db, p->shard, &e, err);
    if (rc == CHT_OK && e.lock != 0 && at > 0)
        rc = cht_txn_divides(t->db, e.lock, &divides, err);
    if (divides) {
        t->met_shard = p->shard;
        t->met = e;
    } else if (rc == CHT_OK && e.lock != 0) {
        rc = cht_txn_settle(t->db, p->shard, &e, true, &again, err);
    }
    bool other = e.epoch != p->epoch || e.generation != t->generation;
    *refused = divides || other;
    return rc == CHT_OK && other ? cht_rdb_reload(t->db, err) : rc;
}

static void start_lock(struct cht_txn *t, size_t i)
{
    char object[CHT_LINK_OBJECT_MAX];
    t->calls[i] = cht_call_write();
    t->calls[i].force = true; /* also in a full pool: it is taken back */
    cht_rdb_shard_name(object, t->places[i].shard);
    cht_txn_epoch(&t->calls[i], &(struct cht_epoch){t->places[i].epoch, 0, t->generation},
                  &(struct cht_epoch){t->places[i].epoch, t->id, t->generation});
    cht_call_start(&t->calls[i], t->db->io, object);
}

/* T2, all at once. *refused: a transaction has one of the locks, or the map is old. */
static enum cht_rc lock_all(struct cht_txn *t, bool *refused, struct cht_err *err)
{
    int result = 0;
    for (size_t i = 0; i < t->n; i++)
        start_lock(t, i);
    for (size_t i = 0; i < t->n; i++) {
        int r = cht_call_wait(&t->calls[i]);
        if (r < 0 && (result == 0 || cht_os_code(result) == CHT_OS_CANCELED))
            result = r;
    }
    *refused = cht_os_code(result) == CHT_OS_CANCELED;
    return result < 0 && !*refused ? cht_rdb_rc(t->db, result, t->object, err) : CHT_OK;
}

/* T2, one after the other, keeping those that are had: so do transactions that were refused often (txn.c), and others give theirs back when they
 * are refused. So nobody waits for each other. */
static enum cht_rc lock_in_order(struct cht_txn *t, bool *refused, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    unsigned tries = 0;
    *refused = false;
    for (size_t i = 0; i < t->n && rc == CHT_OK && !*refused;) {
        start_lock(t, i);
        int r = cht_call_wait(&t->calls[i]);
        if (r >= 0)
            i++;
        else if (cht_os_code(r) != CHT_OS_CANCELED)
            rc = cht_rdb_rc(t->db, r, t->object, err);
        else
            rc = wait_for_other(t, i, refused, err);
        *refused = *refused || ++tries == WAITS * t->n;
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_still_make(struct cht_txn *t, const struct cht_map *m, struct cht_err *err)
{
    enum cht_rc rc = make_record(t, m, err);
    return rc == CHT_OK ? cht_rdb_rc(t->db, make_object(t), t->object, err) : rc;
}

enum cht_rc cht_still_lock(struct cht_txn *t, bool in_order, bool *refused, struct cht_err *err)
{
    return in_order ? lock_in_order(t, refused, err) : lock_all(t, refused, err);
}

void cht_still_back(struct cht_txn *t)
{
    bool again;
    if (cht_txn_state(t, "P", "A") == 0)
        (void)cht_txn_give_up(t, NULL);
    if (t->met.lock != 0)
        (void)cht_txn_settle(t->db, t->met_shard, &t->met, true, &again, NULL);
}

enum cht_rc cht_still_held(struct cht_txn *t, bool *refused, struct cht_err *err)
{
    int r = cht_txn_state(t, "P", "C");
    *refused = cht_os_code(r) == CHT_OS_CANCELED || cht_os_code(r) == CHT_OS_NOT_THERE;
    if (*refused)
        (void)cht_txn_give_up(t, NULL);
    return r >= 0 || *refused ? CHT_OK : cht_rdb_rc(t->db, r, t->object, err);
}
