/* replay: see replay.h. */
#include "store/rados/replay.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "store/rados/commit.h"
#include "store/rados/exec.h"
#include "store/rados/grow.h"
#include "store/wal_int.h"

#include <string.h>

#define OPS 4000u
#define BYTES ((size_t)4 << 20) /* of names and values that are held for a commit */
#define LONG (BYTES / 2)        /* a longer value is held in the buffer that it came in */

enum place { HEADER, HEAD, BODY, PADDING, OVER };

struct cht_replay {
    struct cht_rdb *db;
    uint8_t uuid[16];
    uint64_t next, upto; /* records */
    uint64_t highest;    /* key */
    /* the segment */
    uint64_t number, size, at;
    uint32_t seed;
    /* what comes next in it */
    enum place place;
    struct cht_wal_head record;
    uint32_t crc, sum;   /* of the record: what it says, what was seen so far */
    uint64_t left;       /* of its payload, or of the zeros after it */
    struct cht_buf part; /* of what is not whole yet */
    /* what is not committed yet */
    struct cht_op *ops; /* owned: OPS */
    size_t n;
    uint8_t *bytes; /* owned: BYTES */
    size_t used;
    struct cht_buf held;  /* a long value of the last operation */
    uint64_t since_grown; /* operations since it was looked at whether a shard is full */
};

static enum cht_rc damaged(const struct cht_replay *r, const char *what, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_CORRUPT, "log segment %llu of the backup, offset %llu: %s",
                    (unsigned long long)r->number, (unsigned long long)r->at, what);
}

/* ---- committing ------------------------------------------------------------------------------------------------------ */

static bool as_wanted(const struct cht_op *op)
{
    return op->rc == CHT_OK || op->rc == CHT_KEY_NOT_FOUND || op->rc == CHT_PAIR_NOT_FOUND;
}

static enum cht_rc commit(struct cht_replay *r, struct cht_err *err)
{
    struct cht_commit c = {.ops = r->ops, .count = r->n, .flags = CHT_COMMIT_UNORDERED};
    enum cht_rc rc = r->n > 0 ? cht_rcommit_run(&r->db->base, &c) : CHT_OK;
    if (rc != CHT_OK && err != NULL)
        *err = c.err;
    for (size_t i = 0; i < r->n && rc == CHT_OK; i++) {
        if (!as_wanted(&r->ops[i]))
            rc = CHT_FAIL(err, r->ops[i].rc, "an operation of the backup's log: %s",
                          cht_rc_text(r->ops[i].rc));
    }
    r->since_grown += r->n;
    r->n = r->used = 0;
    r->held.len = 0;
    if (r->held.cap > BYTES)
        cht_buf_free(&r->held);
    if (rc == CHT_OK && r->since_grown >= r->db->env->cfg.split_pairs / 4) {
        cht_grow(r->db);
        r->since_grown = 0;
    }
    return rc;
}

static struct cht_str keep(struct cht_replay *r, struct cht_str s)
{
    uint8_t *to = r->bytes + r->used;
    if (s.n > 0)
        memcpy(to, s.p, s.n);
    r->used += s.n;
    return (struct cht_str){to, s.n};
}

/* A name that leads to the key of the value just before it, in the shard where both can be in one row. */
static bool joins(const struct cht_replay *r, const struct cht_logop *op)
{
    return r->n > 0 && op->kind == CHT_LOG_PAIR_SET && r->ops[r->n - 1].kind == CHT_REDO_VALUE &&
           r->ops[r->n - 1].key == op->key && cht_row_bucket(op->data) == cht_row_bucket_of_key(op->key);
}

/* Its bytes are those of r->part. */
static void add(struct cht_replay *r, const struct cht_logop *op)
{
    static const enum cht_op_kind kinds[] = {
        [CHT_LOG_VALUE_PUT] = CHT_REDO_VALUE,     [CHT_LOG_VALUE_DEL] = CHT_OP_DELETE,
        [CHT_LOG_PAIR_SET] = CHT_REDO_NAME,       [CHT_LOG_PAIR_DEL] = CHT_OP_PAIR_DEL,
        [CHT_LOG_PREFIX_DEL] = CHT_OP_PREFIX_DEL, [CHT_LOG_PAIR_ENDS] = CHT_REDO_END};
    struct cht_op *to = &r->ops[r->n++];
    *to = (struct cht_op){.kind = kinds[op->kind], .key = op->key};
    if (op->kind == CHT_LOG_PAIR_ENDS)
        to->until_ms = op->key;
    if (op->kind != CHT_LOG_VALUE_PUT) {
        to->name = keep(r, op->data);
    } else if (op->data.n <= LONG) {
        to->value = keep(r, op->data);
    } else {
        struct cht_buf empty = r->held;
        to->value = op->data;
        r->held = r->part;
        r->part = empty;
    }
}

static enum cht_rc take(struct cht_replay *r, const struct cht_logop *op, struct cht_err *err)
{
    if ((op->kind == CHT_LOG_VALUE_PUT || op->kind == CHT_LOG_VALUE_DEL) && op->key > r->highest)
        r->highest = op->key; /* a name may lead to a key that nobody has given out */
    if (op->kind == CHT_LOG_PAIR_ENDS && op->data.n == 0)
        return CHT_OK;  /* what the clock was */
    if (joins(r, op)) { /* there is room for it */
        r->ops[r->n - 1].kind = CHT_REDO_BOTH;
        r->ops[r->n - 1].name = keep(r, op->data);
        return CHT_OK;
    }
    enum cht_rc rc = CHT_OK;
    size_t more = op->data.n <= LONG ? op->data.n : 0;
    if (r->n == OPS || r->held.len > 0 || r->used + more + CHT_NAME_MAX > BYTES)
        rc = commit(r, err);
    if (rc == CHT_OK)
        add(r, op);
    return rc;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

/* Moves bytes into the part until it has `want`. True: it has. */
static bool fill(struct cht_replay *r, size_t want, const uint8_t **p, size_t *n, enum cht_rc *rc,
                 struct cht_err *err)
{
    size_t some = want > r->part.len ? want - r->part.len : 0;
    some = some < *n ? some : *n;
    if (r->part.len + some > r->part.cap) {
        size_t twice = 2 * (r->part.len + some);
        *rc = cht_buf_reserve(&r->part, twice < want ? twice : want, err);
        if (*rc != CHT_OK)
            return false;
    }
    if (some > 0)
        memcpy(r->part.data + r->part.len, *p, some);
    if (r->place == BODY)
        r->sum = cht_crc32c(r->sum, *p, some);
    r->part.len += some;
    r->at += some;
    *p += some;
    *n -= some;
    return r->part.len == want;
}

static enum cht_rc take_header(struct cht_replay *r, struct cht_err *err)
{
    struct cht_wal_begin b;
    bool good = cht_wal_take_header(r->part.data, &b, &r->seed) && memcmp(b.uuid, r->uuid, 16) == 0 &&
                b.number == r->number && b.first_seq == r->next;
    r->part.len = 0;
    r->place = HEAD;
    return good ? CHT_OK : damaged(r, "its header is not that of the segment that comes next", err);
}

/* What is no record is the end of the log in this segment. */
static void take_head(struct cht_replay *r)
{
    uint64_t here = r->at - CHT_WAL_RECORD;
    bool good = cht_wal_parse_head(r->part.data, r->size - here, &r->record) && r->record.seq == r->next &&
                r->next <= r->upto && cht_wal_room(r->record.len) <= r->size - here;
    r->crc = cht_get32(r->part.data);
    r->sum = cht_crc32c(r->seed, r->part.data + 4, CHT_WAL_RECORD - 4);
    r->left = r->record.len;
    r->part.len = 0;
    r->place = good ? BODY : OVER;
}

/* How many bytes of an operation are wanted, by those of it that are there; with its head all of them. */
static size_t wanted(const struct cht_replay *r)
{
    static const uint8_t heads[] = {
        [CHT_LOG_VALUE_PUT] = 11, [CHT_LOG_VALUE_DEL] = 7,  [CHT_LOG_PAIR_SET] = 9,
        [CHT_LOG_PAIR_DEL] = 3,   [CHT_LOG_PREFIX_DEL] = 3, [CHT_LOG_PAIR_ENDS] = 9};
    const uint8_t *p = r->part.data;
    size_t have = r->part.len, head = have > 0 && p[0] < sizeof heads ? heads[p[0]] : 0;
    if (head == 0) /* nothing is there yet, or no operation */
        return 1;
    if (have < head)
        return head;
    if (p[0] == CHT_LOG_VALUE_PUT)
        return head + cht_get32(p + 7);
    return p[0] == CHT_LOG_VALUE_DEL ? head : head + cht_get16(p + head - 2);
}

static enum cht_rc end_record(struct cht_replay *r, struct cht_err *err)
{
    if (r->sum != r->crc)
        return damaged(r, "a record does not match its checksum", err);
    r->next++;
    r->left = cht_wal_room(r->record.len) - CHT_WAL_RECORD - r->record.len;
    r->place = PADDING;
    return CHT_OK;
}

/* Operations, as far as there are bytes. */
static enum cht_rc take_body(struct cht_replay *r, const uint8_t **p, size_t *n, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    uint32_t most = r->db->env->cfg.max_value_size;
    while (rc == CHT_OK && r->left > 0) {
        size_t have = r->part.len, want = wanted(r);
        if (want - have > r->left)
            return damaged(r, "an operation is longer than its record", err);
        if (want > CHT_LOGOP_HEAD_MAX && r->part.data[0] == CHT_LOG_VALUE_PUT &&
            want - CHT_LOGOP_HEAD_MAX > most)
            return CHT_FAIL(err, CHT_VALUE_TOO_LARGE, "a value of %zu bytes; at most %u are allowed",
                            want - CHT_LOGOP_HEAD_MAX, most);
        bool whole = fill(r, want, p, n, &rc, err);
        r->left -= r->part.len - have;
        if (rc != CHT_OK || !whole)
            return rc;
        if (wanted(r) > want || have == 0)
            continue; /* only now it is known how long it is */
        struct cht_logop op;
        size_t at = 0;
        rc = cht_logop_decode(r->part.data, r->part.len, &at, &op, err);
        if (rc == CHT_OK)
            rc = take(r, &op, err);
        r->part.len = 0;
    }
    if (rc == CHT_OK && r->part.len > 0)
        return damaged(r, "a record ends within an operation", err);
    return rc == CHT_OK ? end_record(r, err) : rc;
}

static void skip(struct cht_replay *r, uint64_t most, const uint8_t **p, size_t *n)
{
    size_t some = *n < most ? *n : (size_t)most;
    r->at += some;
    *p += some;
    *n -= some;
    r->left -= r->place == PADDING ? some : 0;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_replay_new(struct cht_rdb *db, const uint8_t uuid[16], uint64_t upto, struct cht_replay **out,
                           struct cht_err *err)
{
    struct cht_replay *r = cht_calloc(1, sizeof *r);
    if (r == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to restore a backup");
    r->db = db;
    r->next = 1;
    r->upto = upto;
    if (uuid != NULL)
        memcpy(r->uuid, uuid, sizeof r->uuid);
    r->ops = cht_calloc(OPS, sizeof *r->ops);
    r->bytes = cht_malloc(BYTES);
    if (r->ops == NULL || r->bytes == NULL) {
        cht_replay_free(r);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to restore a backup");
    }
    *out = r;
    return CHT_OK;
}

void cht_replay_free(struct cht_replay *r)
{
    if (r == NULL)
        return;
    cht_free(r->ops);
    cht_free(r->bytes);
    cht_buf_free(&r->part);
    cht_buf_free(&r->held);
    cht_free(r);
}

void cht_replay_segment(struct cht_replay *r, uint64_t number, uint64_t size)
{
    r->number = number;
    r->size = size;
    r->at = 0;
    r->part.len = 0;
    r->place = HEADER;
}

enum cht_rc cht_replay_feed(struct cht_replay *r, const uint8_t *p, size_t n, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && n > 0) {
        switch (r->place) {
        case HEADER:
            if (fill(r, CHT_WAL_HEAD, &p, &n, &rc, err))
                rc = take_header(r, err);
            break;
        case HEAD:
            if (fill(r, CHT_WAL_RECORD, &p, &n, &rc, err))
                take_head(r);
            break;
        case BODY:
            rc = take_body(r, &p, &n, err);
            break;
        case PADDING:
            skip(r, r->left, &p, &n);
            r->place = r->left == 0 ? HEAD : PADDING;
            break;
        case OVER:
            skip(r, n, &p, &n);
            break;
        }
    }
    return rc;
}

enum cht_rc cht_replay_op(struct cht_replay *r, const struct cht_logop *op, struct cht_err *err)
{
    struct cht_logop own = *op;
    enum cht_rc rc = CHT_OK;
    if (op->data.n > LONG) { /* see add() */
        rc = cht_buf_reserve(&r->part, op->data.n, err);
        if (rc != CHT_OK)
            return rc;
        memcpy(r->part.data, op->data.p, op->data.n);
        r->part.len = op->data.n;
        own.data.p = r->part.data;
    }
    rc = take(r, &own, err);
    r->part.len = 0;
    return rc;
}

void cht_replay_keys(struct cht_replay *r, uint64_t next)
{
    if (next > 0 && next - 1 > r->highest)
        r->highest = next - 1;
}

enum cht_rc cht_replay_finish(struct cht_replay *r, struct cht_err *err)
{
    if (r->next != r->upto + 1)
        return CHT_FAIL(err, CHT_CORRUPT, "the backup's log ends with record %llu, and not with %llu",
                        (unsigned long long)r->next - 1, (unsigned long long)r->upto);
    enum cht_rc rc = commit(r, err);
    return rc == CHT_OK ? cht_leases_raise(r->db, r->highest + 1, err) : rc;
}
