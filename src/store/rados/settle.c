/* settle: goes on with transactions, one's own after the commit and others' that are met. See txn.h. */
#include "store/rados/txn.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "store/rados/split.h"
#include "store/rados/txn_int.h"

#include <string.h>
#include <time.h>

#define WAIT_NS UINT64_C(2000000)
#define HEAD_SHORT 8u /* of a record */

static struct cht_str text(const char *s) { return (struct cht_str){(const uint8_t *)s, 1}; }

enum cht_rc cht_txn_read(struct cht_txn *t, struct cht_err *err)
{
    uint64_t size = 0;
    time_t when;
    int r = rados_stat(t->db->io, t->object, &size, &when);
    enum cht_rc rc = r < 0 ? cht_rdb_answer(t->db, r, t->object, err) : CHT_OK;
    if (rc == CHT_OK && size > CHT_TXN_RECORD_MAX + 4096)
        rc = CHT_FAIL(err, CHT_CORRUPT, "object %s has %llu bytes", t->object, (unsigned long long)size);
    if (rc == CHT_OK)
        rc = cht_buf_reserve(&t->record, size + 1, err);
    if (rc != CHT_OK)
        return rc;
    r = rados_read(t->db->io, t->object, (char *)t->record.data, size, 0);
    if (r < 0)
        return cht_rdb_answer(t->db, r, t->object, err);
    t->record.len = (size_t)r;
    return cht_txn_parse(t, err);
}

/* One operation for each shard of the record, all at once. The first result that is neither 0 nor `also`, or 0. */
static int every_shard(struct cht_txn *t,
                       enum cht_rc (*fill)(struct cht_txn *, const struct cht_txn_place *, struct cht_call *),
                       enum cht_os_code also)
{
    struct cht_call *calls = t->calls;
    char object[CHT_LINK_OBJECT_MAX];
    int result = 0;
    for (size_t i = 0; i < t->n; i++) {
        calls[i] = cht_call_write();
        cht_rdb_shard_name(object, t->places[i].shard);
        if (fill(t, &t->places[i], &calls[i]) == CHT_OK)
            cht_call_start(&calls[i], t->db->io, object);
        else
            calls[i].result = -1;
    }
    for (size_t i = 0; i < t->n; i++) {
        int r = cht_call_wait(&calls[i]);
        if (r < 0 && cht_os_code(r) != also && result == 0)
            result = r;
    }
    return result;
}

static enum cht_rc fill_apply(struct cht_txn *t, const struct cht_txn_place *p, struct cht_call *call)
{
    cht_txn_epoch(call, &(struct cht_epoch){p->epoch, t->id, t->generation},
                  &(struct cht_epoch){p->epoch, 0, t->after});
    return cht_block_apply(p->block, call, NULL);
}

static enum cht_rc fill_unlock(struct cht_txn *t, const struct cht_txn_place *p, struct cht_call *call)
{
    cht_txn_epoch(call, &(struct cht_epoch){p->epoch, t->id, t->generation},
                  &(struct cht_epoch){p->epoch, 0, t->generation});
    return CHT_OK;
}

/* T4 and T5. What is refused was done by somebody else. */
enum cht_rc cht_txn_finish(struct cht_txn *t, struct cht_err *err)
{
    cht_rdb_step(t->db, "apply");
    int r = every_shard(t, fill_apply, CHT_OS_CANCELED);
    if (r < 0 && cht_os_code(r) != CHT_OS_NOT_THERE)
        return cht_rdb_rc(t->db, r, t->object, err);
    cht_rdb_step(t->db, "remove");
    (void)rados_remove(t->db->io, t->object);    /* what stays is removed by whoever looks for it (X2) */
    return cht_rdb_rc(t->db, r, t->object, err); /* of a database that was dropped nobody does */
}

/* P -> A has been done. */
enum cht_rc cht_txn_give_up(struct cht_txn *t, struct cht_err *err)
{
    cht_rdb_step(t->db, "unlock");
    int r = every_shard(t, fill_unlock, CHT_OS_CANCELED);
    if (r < 0 && cht_os_code(r) != CHT_OS_NOT_THERE)
        return cht_rdb_rc(t->db, r, t->object, err);
    (void)rados_remove(t->db->io, t->object);
    return cht_rdb_rc(t->db, r, t->object, err);
}

/* A transaction that was met. state 0: there is none; n: how far a copy has come. */
struct met {
    char state;
    uint64_t n;
};

static void take_state(void *ctx, struct cht_str row, struct cht_str value)
{
    struct met *m = ctx;
    if (row.n == 1 && row.p[0] == 'n')
        m->n = value.n == 8 ? cht_get64(value.p) : 0;
    else
        m->state = value.n == 1 ? (char)value.p[0] : '?';
}

static enum cht_rc read_state(const struct cht_txn *t, struct met *m, struct cht_err *err)
{
    static const char *const names[] = {"s", "n"};
    static const size_t lens[] = {1, 1};
    *m = (struct met){0};
    int r = cht_link_rows(t->db->io, t->object, &(struct cht_rows_wanted){names, lens, 2}, take_state, m);
    if (cht_os_code(r) == CHT_OS_NOT_THERE)
        return CHT_OK;
    return r < 0 ? cht_rdb_answer(t->db, r, t->object, err) : CHT_OK;
}

static enum cht_rc unlock_one(const struct cht_txn *t, unsigned shard, const struct cht_epoch *e,
                              struct cht_err *err)
{
    struct cht_call call = cht_call_write();
    char object[CHT_LINK_OBJECT_MAX];
    cht_rdb_shard_name(object, shard);
    cht_txn_epoch(&call, e, &(struct cht_epoch){e->epoch, 0, e->generation});
    int r = cht_call_run(&call, t->db->io, object);
    return cht_os_code(r) == CHT_OS_CANCELED ? CHT_OK : cht_rdb_rc(t->db, r, object, err);
}

static enum cht_rc help(struct cht_txn *t, char state, struct cht_err *err)
{
    if (state != 'C' && state != 'A' && state != 'M')
        return CHT_FAIL(err, CHT_CORRUPT, "the state of transaction %s cannot be read", t->object);
    enum cht_rc rc = cht_txn_read(t, err);
    if (rc == CHT_NO_FILE)
        return CHT_OK; /* it has ended */
    if (rc != CHT_OK)
        return rc;
    if (t->is_split)
        return state == 'M' ? cht_split_finish(t, err) : cht_split_give_up(t, err);
    return state == 'C' ? cht_txn_finish(t, err) : cht_txn_give_up(t, err);
}

/* Waits while somebody is at it. *seen: its state then. Of one that stands still for settle_ms: P and R become A, M is left as it is. */
static enum cht_rc wait_for(const struct cht_txn *t, struct met *seen, struct cht_err *err)
{
    uint64_t settle = t->db->env->cfg.settle_ms * UINT64_C(1000000), end = cht_now_ns() + settle;
    struct met was = {0};
    for (;;) {
        enum cht_rc rc = read_state(t, seen, err);
        if (rc != CHT_OK || (seen->state != 'P' && seen->state != 'R' && seen->state != 'M'))
            return rc;
        uint64_t now = cht_now_ns();
        if (seen->n != was.n || seen->state != was.state)
            end = now + settle;
        was = *seen;
        if (now < end) {
            cht_sleep_ns(WAIT_NS);
            continue;
        }
        if (seen->state == 'M')
            return CHT_OK;
        int r = cht_txn_state(t, seen->state == 'P' ? "P" : "R", "A");
        if (r < 0 && cht_os_code(r) != CHT_OS_CANCELED && cht_os_code(r) != CHT_OS_NOT_THERE)
            return cht_rdb_answer(t->db, r, t->object, err);
    }
}

/* ------------------------------------------------------------------------------------------------------------------ */

void cht_txn_name(struct cht_txn *t)
{
    (void)snprintf(t->object, sizeof t->object, "t.%016llx", (unsigned long long)t->id);
}

void cht_txn_fini(struct cht_txn *t)
{
    cht_buf_free(&t->record);
    cht_free(t->places);
    cht_free(t->calls);
}

void cht_txn_epoch(struct cht_call *call, const struct cht_epoch *was, const struct cht_epoch *now)
{
    uint8_t a[CHT_ROW_EPOCH_SIZE], b[CHT_ROW_EPOCH_SIZE];
    size_t n = cht_row_epoch_write(a, was), m = cht_row_epoch_write(b, now);
    cht_call_compare(call, CHT_ROW_TEXT("E"), (struct cht_str){a, n});
    if (n != m || memcmp(a, b, n) != 0)
        cht_call_set(call, CHT_ROW_TEXT("E"), (struct cht_str){b, m});
}

static void take_epoch(void *ctx, struct cht_str row, struct cht_str value)
{
    (void)row;
    (void)cht_row_epoch_read(value.p, value.n, ctx);
}

enum cht_rc cht_txn_look(struct cht_rdb *db, unsigned shard, struct cht_epoch *out, struct cht_err *err)
{
    static const char *const row = "E";
    static const size_t len = 1;
    char object[CHT_LINK_OBJECT_MAX];
    *out = (struct cht_epoch){0};
    cht_rdb_shard_name(object, shard);
    int r = cht_link_rows(db->io, object, &(struct cht_rows_wanted){&row, &len, 1}, take_epoch, out);
    if (r < 0)
        return cht_rdb_rc(db, r, object, err);
    if (out->epoch == 0)
        return CHT_FAIL(err, CHT_CORRUPT, "object %s has no epoch", object);
    cht_rdb_learn(db, out);
    return CHT_OK;
}

size_t cht_txn_head(const struct cht_txn *t, uint8_t *out, uint32_t shards)
{
    bool kept = t->after != 0;
    cht_put32(out, kept ? 4 : 2);
    cht_put32(out + 4, shards);
    if (!kept)
        return HEAD_SHORT;
    cht_put64(out + 8, t->generation);
    cht_put64(out + 16, t->after);
    return CHT_TXN_HEAD;
}

int cht_txn_state(const struct cht_txn *t, const char *from, const char *to)
{
    struct cht_call call = cht_call_write();
    cht_call_compare(&call, CHT_ROW_TEXT("s"), text(from));
    cht_call_set(&call, CHT_ROW_TEXT("s"), text(to));
    return cht_call_run(&call, t->db->io, t->object);
}

static enum cht_rc parse_split(struct cht_txn *t, struct cht_err *err)
{
    const uint8_t *p = t->record.data;
    if (t->record.len != 12 || cht_get32(p + 8) >= CHT_MAP_LEVEL_MAX ||
        cht_get32(p + 4) >= 1u << cht_get32(p + 8))
        return CHT_FAIL(err, CHT_CORRUPT, "object %s is no transaction", t->object);
    t->is_split = true;
    t->split = cht_get32(p + 4);
    t->level = cht_get32(p + 8);
    return CHT_OK;
}

enum cht_rc cht_txn_parse(struct cht_txn *t, struct cht_err *err)
{
    const uint8_t *p = t->record.data, *end = p + t->record.len;
    if (t->record.len >= 8 && cht_get32(p) == 3)
        return parse_split(t, err);
    bool kept = t->record.len >= CHT_TXN_HEAD && cht_get32(p) == 4;
    if (t->record.len < HEAD_SHORT || (cht_get32(p) != 2 && !kept) || cht_get32(p + 4) > CHT_MAP_MAX)
        return CHT_FAIL(err, CHT_CORRUPT, "object %s is no transaction", t->object);
    t->n = cht_get32(p + 4);
    t->places = cht_calloc(t->n + 1, sizeof *t->places);
    t->calls = cht_calloc(t->n + 1, sizeof *t->calls);
    if (t->places == NULL || t->calls == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a transaction");
    t->generation = kept ? cht_get64(p + 8) : 0;
    t->after = kept ? cht_get64(p + 16) : 0;
    p += kept ? CHT_TXN_HEAD : HEAD_SHORT;
    for (size_t i = 0; i < t->n; i++) {
        if (end - p < 12 || cht_get32(p) >= CHT_MAP_MAX || (size_t)(end - p - 12) < cht_get32(p + 8))
            return CHT_FAIL(err, CHT_CORRUPT, "object %s is cut off", t->object);
        t->places[i] = (struct cht_txn_place){cht_get32(p), cht_get32(p + 4), {p + 12, cht_get32(p + 8)}};
        p += 12 + t->places[i].block.n;
    }
    return CHT_OK;
}

enum cht_rc cht_txn_divides(struct cht_rdb *db, uint64_t id, bool *divides, struct cht_err *err)
{
    struct cht_txn t = {.db = db, .id = id};
    struct met m;
    cht_txn_name(&t);
    enum cht_rc rc = read_state(&t, &m, err);
    *divides = rc == CHT_OK && (m.state == 'R' || m.state == 'M');
    return rc;
}

enum cht_rc cht_txn_settle(struct cht_rdb *db, unsigned shard, const struct cht_epoch *e, bool writing,
                           bool *again, struct cht_err *err)
{
    struct cht_txn t = {.db = db, .id = e->lock};
    struct met m;
    cht_txn_name(&t);
    *again = true;
    enum cht_rc rc = read_state(&t, &m, err);
    if (rc == CHT_OK && !writing && (m.state == 'P' || m.state == 'R' || m.state == 'M')) {
        *again = false; /* not committed; or divided, and the shard is as it was (split.h, S-1) */
        return CHT_OK;
    }
    if (rc == CHT_OK)
        rc = wait_for(&t, &m, err);
    if (rc == CHT_OK && m.state == 0)
        rc = unlock_one(&t, shard, e, err);
    else if (rc == CHT_OK)
        rc = help(&t, m.state, err);
    cht_txn_fini(&t);
    return rc;
}

enum cht_rc cht_txn_end_old(struct cht_rdb *db, uint64_t id, struct cht_err *err)
{
    struct cht_txn t = {.db = db, .id = id};
    struct met m;
    cht_txn_name(&t);
    enum cht_rc rc = read_state(&t, &m, err);
    if (rc == CHT_OK && (m.state == 'P' || m.state == 'R')) {
        int r = cht_txn_state(&t, m.state == 'P' ? "P" : "R", "A");
        if (r < 0 && cht_os_code(r) != CHT_OS_CANCELED && cht_os_code(r) != CHT_OS_NOT_THERE)
            return cht_rdb_answer(db, r, t.object, err);
        rc = read_state(&t, &m, err);
    }
    if (rc == CHT_OK && m.state != 0)
        rc = help(&t, m.state, err);
    cht_txn_fini(&t);
    return rc;
}
