/* split: see split.h. */
#include "store/rados/split.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "os/io.h"
#include "store/rados/pages.h"

#include <string.h>

#define COPY_ROWS 512u
#define CLEAN_ROWS 1000u

struct names { /* of the two shards */
    char from[CHT_LINK_OBJECT_MAX], to[CHT_LINK_OBJECT_MAX];
    unsigned shard, other, level; /* level: before */
    uint32_t epoch;               /* of the first, before */
    uint64_t generation;          /* of the first from S3 to S8 (S-5); 0 in the other before */
};

static void name_them(struct names *n, const struct cht_map *m, unsigned shard, unsigned level)
{
    n->shard = shard;
    n->level = level;
    n->other = shard + (1u << level);
    n->epoch = 1u + level - m->base;
    cht_rdb_shard_name(n->from, n->shard);
    cht_rdb_shard_name(n->to, n->other);
}

static enum cht_rc refused_is_done(struct cht_rdb *db, int r, const char *object, struct cht_err *err)
{
    return cht_os_code(r) == CHT_OS_CANCELED ? CHT_OK : cht_rdb_rc(db, r, object, err);
}

/* ---- S4: copying ---------------------------------------------------------------------------------------------------- */

/* The bucket of a P or K row. */
static enum cht_rc bucket_of(struct cht_rdb *db, struct cht_str row, uint32_t *bucket, struct cht_err *err)
{
    if (!cht_row_bucket_of(row, bucket))
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: the name of a row cannot be read", db->name);
    return CHT_OK;
}

/* The rows of a page that are the other shard's, in one operation with their counters. */
static enum cht_rc copy_page(struct cht_txn *t, const struct names *n, const struct cht_page *page,
                             struct cht_err *err)
{
    struct cht_rowset set;
    struct cht_str value;
    struct cht_buf block = {0};
    enum cht_rc rc = CHT_OK;
    size_t at, steps; /* few: of a page */
    cht_rowset_init(&set, t->db, -1);
    for (size_t i = 0; i < page->n && rc == CHT_OK; i++) {
        uint32_t bucket;
        rc = bucket_of(t->db, page->rows[i].name, &bucket, err);
        if (rc != CHT_OK || !cht_map_in_class(bucket, n->other, n->level + 1))
            continue;
        rc = cht_rowset_guess(&set, n->other, page->rows[i].name, true, &value, &at);
        if (rc == CHT_OK)
            rc = cht_rowset_set(&set, at, page->rows[i].value);
        if (rc == CHT_NO_MEMORY)
            (void)CHT_FAIL(err, rc, "no memory to copy rows");
    }
    if (rc == CHT_OK && set.n > 0) {
        struct cht_call call = cht_call_write();
        struct cht_epoch e = {n->epoch + 1, t->id, 0};
        cht_txn_epoch(&call, &e, &e);
        rc = cht_rowset_block(&set, n->other, &block, &steps, err);
        if (rc == CHT_OK)
            rc = cht_block_apply((struct cht_str){block.data, block.len}, &call, err);
        if (rc == CHT_OK)
            rc = cht_rdb_rc(t->db, cht_call_run(&call, t->db->io, n->to), n->to, err);
        else
            rados_release_write_op(call.w);
    }
    cht_buf_free(&block);
    cht_rowset_fini(&set);
    return rc;
}

/* So that nobody takes it for one that stands still. */
static enum cht_rc tell(const struct cht_txn *t, uint64_t pages, struct cht_err *err)
{
    uint8_t b[8];
    struct cht_call call = cht_call_write();
    cht_put64(b, pages);
    cht_call_compare(&call, CHT_ROW_TEXT("s"), CHT_ROW_TEXT("R"));
    cht_call_set(&call, CHT_ROW_TEXT("n"), (struct cht_str){b, sizeof b});
    return cht_rdb_answer(t->db, cht_call_run(&call, t->db->io, t->object), t->object, err);
}

/* The fences (fence.h, N-3), which stay in both shards. */
static enum cht_rc copy_fences(struct cht_txn *t, const struct names *n, struct cht_err *err)
{
    struct cht_page page;
    struct cht_raw_wanted w = {n->shard, "", "F", COPY_ROWS};
    struct cht_epoch e = {n->epoch + 1, t->id, 0};
    enum cht_rc rc = cht_page_raw(t->db, &w, &page, err);
    if (rc == CHT_OK && page.n > 0) {
        struct cht_call call = cht_call_write();
        cht_txn_epoch(&call, &e, &e);
        for (size_t i = 0; i < page.n; i++)
            cht_call_set(&call, page.rows[i].name, page.rows[i].value);
        rc = cht_rdb_rc(t->db, cht_call_run(&call, t->db->io, n->to), n->to, err);
    }
    cht_page_free(&page);
    return rc;
}

static enum cht_rc copy(struct cht_txn *t, const struct names *n, struct cht_err *err)
{
    static const char *const kinds[] = {"P", "K"};
    uint64_t pages = 0;
    cht_rdb_step(t->db, "split-copy");
    enum cht_rc rc = copy_fences(t, n, err);
    for (unsigned k = 0; k < 2 && rc == CHT_OK; k++) {
        struct cht_buf after = {0};
        bool more = true;
        while (rc == CHT_OK && more) {
            struct cht_page page;
            struct cht_raw_wanted w = {n->shard, after.data != NULL ? (char *)after.data : "", kinds[k],
                                       COPY_ROWS};
            rc = cht_page_raw(t->db, &w, &page, err);
            if (rc == CHT_OK)
                rc = copy_page(t, n, &page, err);
            if (rc == CHT_OK)
                rc = tell(t, ++pages, err);
            more = page.more && page.n > 0;
            if (rc == CHT_OK && more)
                rc = cht_page_last(&page, &after, err);
            cht_page_free(&page);
            if (pages == 1)
                cht_rdb_step(t->db, "split-copying");
        }
        cht_buf_free(&after);
    }
    return rc;
}

/* ---- S7: the counters ------------------------------------------------------------------------------------------------- */

static enum cht_rc share_out(struct cht_txn *t, const struct names *n, struct cht_err *err)
{
    struct cht_call call = cht_call_write();
    uint8_t level = (uint8_t)(n->level + 1);
    cht_txn_epoch(&call, &(struct cht_epoch){n->epoch, t->id, n->generation},
                  &(struct cht_epoch){n->epoch + 1, 0, n->generation});
    cht_call_set(&call, CHT_ROW_TEXT("D"), (struct cht_str){&level, 1});
    enum cht_rc rc = cht_split_less(t->db, n->from, n->other, &call, err);
    if (rc != CHT_OK) {
        rados_release_write_op(call.w);
        return rc;
    }
    return refused_is_done(t->db, cht_call_run(&call, t->db->io, n->from), n->from, err);
}

/* ---- S6: the map ------------------------------------------------------------------------------------------------------ */

static enum cht_rc change_map(struct cht_rdb *db, const struct names *n, struct cht_err *err)
{
    for (;;) {
        enum cht_rc rc = cht_rdb_reload(db, err);
        if (rc != CHT_OK)
            return rc;
        const struct cht_map *m = cht_rdb_map(db);
        if (!cht_map_has(m, n->shard) || m->level[n->shard] != n->level)
            return CHT_OK; /* somebody else has */
        uint8_t levels[CHT_MAP_MAX], was[4], format[4];
        uint32_t known = atomic_load(&db->format);
        memcpy(levels, m->level, sizeof levels);
        levels[n->shard] = levels[n->other] = (uint8_t)(n->level + 1);
        cht_put32(was, known);
        cht_put32(format, known < CHT_RDB_FORMAT_SPLIT ? CHT_RDB_FORMAT_SPLIT : known);
        struct cht_call call = cht_call_write();
        bool first = m->shards == (1u << m->base); /* there is no such row yet */
        cht_call_compare(&call, CHT_ROW_TEXT("map"), (struct cht_str){m->level, first ? 0 : sizeof m->level});
        cht_call_compare(&call, CHT_ROW_TEXT("format"), (struct cht_str){was, sizeof was});
        cht_call_set(&call, CHT_ROW_TEXT("map"), (struct cht_str){levels, sizeof levels});
        cht_call_set(&call, CHT_ROW_TEXT("format"), (struct cht_str){format, sizeof format});
        int r = cht_call_run(&call, db->io, "h");
        if (r < 0 && cht_os_code(r) != CHT_OS_CANCELED)
            return cht_rdb_rc(db, r, "h", err);
        if (r == 0)
            return cht_rdb_reload(db, err);
    }
}

/* ---- S2 ---------------------------------------------------------------------------------------------------------------- */

static void take_epoch(void *ctx, struct cht_str row, struct cht_str value)
{
    (void)row;
    (void)cht_row_epoch_read(value.p, value.n, ctx);
}

/* The other shard is there already: of an attempt that was given up, or of one under way. */
static enum cht_rc remove_left(struct cht_rdb *db, const struct names *n, struct cht_err *err)
{
    const char *row = "E";
    size_t len = 1;
    struct cht_epoch e = {0};
    bool again;
    int r = cht_link_rows(db->io, n->to, &(struct cht_rows_wanted){&row, &len, 1}, take_epoch, &e);
    enum cht_rc rc = r < 0 && cht_os_code(r) != CHT_OS_NOT_THERE ? cht_rdb_answer(db, r, n->to, err) : CHT_OK;
    if (rc == CHT_OK && e.lock != 0)
        rc = cht_txn_settle(db, n->other, &e, true, &again,
                            err); /* it waits while somebody is at it; what stays is unlocked */
    if (rc != CHT_OK || e.epoch == 0)
        return rc;
    rc = cht_rdb_reload(db, err);
    if (rc != CHT_OK || cht_map_has(cht_rdb_map(db), n->other))
        return rc; /* the other server has done it */
    struct cht_call call = cht_call_write();
    e.lock = 0;
    cht_txn_epoch(&call, &e, &e);
    rados_write_op_remove(call.w);
    r = cht_call_run(&call, db->io, n->to);
    return cht_os_code(r) == CHT_OS_NOT_THERE ? CHT_OK : refused_is_done(db, r, n->to, err);
}

static enum cht_rc make_other(struct cht_txn *t, const struct names *n, struct cht_err *err)
{
    uint8_t e[CHT_ROW_EPOCH_SIZE];
    struct cht_call call = cht_call_write();
    cht_rdb_step(t->db, "split-make");
    size_t len = cht_row_epoch_write(e, &(struct cht_epoch){n->epoch + 1, t->id, 0});
    rados_write_op_create(call.w, LIBRADOS_CREATE_EXCLUSIVE, NULL);
    cht_call_set(&call, CHT_ROW_TEXT("E"), (struct cht_str){e, len});
    int r = cht_call_run(&call, t->db->io, n->to);
    if (cht_os_code(r) != CHT_OS_THERE)
        return cht_rdb_answer(t->db, r, n->to, err);
    enum cht_rc rc = remove_left(t->db, n, err);
    if (rc == CHT_OK)
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "shard %u is being divided by another server", n->shard);
    return rc;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------- */

static enum cht_rc make_record(struct cht_txn *t, const struct names *n, struct cht_err *err)
{
    uint8_t record[12];
    struct cht_call call = cht_call_write();
    cht_rdb_step(t->db, "split-record");
    while (t->id == 0)
        cht_os_random(&t->id, sizeof t->id);
    cht_txn_name(t);
    t->is_split = true;
    t->split = n->shard;
    t->level = n->level;
    cht_put32(record, 3);
    cht_put32(record + 4, n->shard);
    cht_put32(record + 8, n->level);
    rados_write_op_create(call.w, LIBRADOS_CREATE_EXCLUSIVE, NULL);
    rados_write_op_write_full(call.w, (const char *)record, sizeof record);
    cht_call_set(&call, CHT_ROW_TEXT("s"), CHT_ROW_TEXT("R"));
    return cht_rdb_answer(t->db, cht_call_run(&call, t->db->io, t->object), t->object, err);
}

/* S3. */
static enum cht_rc lock_first(struct cht_txn *t, const struct names *n, struct cht_err *err)
{
    struct cht_call call = cht_call_write();
    cht_rdb_step(t->db, "split-lock");
    uint64_t generation = cht_rdb_generation(t->db);
    cht_txn_epoch(&call, &(struct cht_epoch){n->epoch, 0, generation},
                  &(struct cht_epoch){n->epoch, t->id, generation});
    cht_call_compare(&call, CHT_ROW_TEXT("D"), CHT_ROW_TEXT(""));
    int r = cht_call_run(&call, t->db->io, n->from);
    if (cht_os_code(r) == CHT_OS_CANCELED) {
        struct cht_epoch e;
        enum cht_rc rc = cht_txn_look(t->db, n->shard, &e, err); /* it may have another generation */
        if (rc == CHT_OK)
            rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "shard %u is being changed", n->shard);
        return rc;
    }
    return cht_rdb_rc(t->db, r, n->from, err);
}

/* S2 to S5. */
static enum cht_rc decide(struct cht_txn *t, const struct names *n, struct cht_err *err)
{
    enum cht_rc rc = make_other(t, n, err);
    for (unsigned tries = 0; rc == CHT_OK; tries++) { /* transactions come and go */
        rc = lock_first(t, n, err);
        if (rc != CHT_DATABASE_BUSY || tries == 50)
            break;
        rc = tell(t, tries, err);
        cht_sleep_ns(UINT64_C(2000000));
    }
    if (rc == CHT_OK)
        rc = copy(t, n, err);
    if (rc == CHT_OK)
        rc = cht_split_weigh(t->db, n->other, err);
    if (rc != CHT_OK)
        return rc;
    cht_rdb_step(t->db, "split-decide");
    int r = cht_txn_state(t, "R", "M");
    if (cht_os_code(r) == CHT_OS_CANCELED || cht_os_code(r) == CHT_OS_NOT_THERE)
        return CHT_FAIL(err, CHT_DATABASE_BUSY, "another server has given up that shard %u is divided",
                        n->shard);
    return cht_rdb_answer(t->db, r, t->object, err);
}

/* ------------------------------------------------------------------------------------------------------------------ */

/* The generation of the first shard, which is one from S3 to S8. */
static enum cht_rc look_at_first(const struct cht_txn *t, struct names *n, struct cht_err *err)
{
    struct cht_epoch e;
    enum cht_rc rc = cht_txn_look(t->db, n->shard, &e, err);
    n->generation = e.generation;
    return rc;
}

enum cht_rc cht_split_finish(struct cht_txn *t, struct cht_err *err)
{
    struct names n;
    name_them(&n, cht_rdb_map(t->db), t->split, t->level);
    cht_rdb_step(t->db, "split-map");
    enum cht_rc rc = look_at_first(t, &n, err);
    if (rc == CHT_OK)
        rc = change_map(t->db, &n, err);
    cht_rdb_step(t->db, "split-share");
    if (rc == CHT_OK)
        rc = share_out(t, &n, err);
    cht_rdb_step(t->db, "split-open");
    if (rc == CHT_OK) {
        struct cht_call call = cht_call_write();
        cht_txn_epoch(&call, &(struct cht_epoch){n.epoch + 1, t->id, 0},
                      &(struct cht_epoch){n.epoch + 1, 0, n.generation});
        rc = refused_is_done(t->db, cht_call_run(&call, t->db->io, n.to), n.to, err);
    }
    cht_rdb_step(t->db, "split-end");
    if (rc == CHT_OK)
        (void)rados_remove(t->db->io, t->object); /* what stays is met by nobody */
    return rc;
}

enum cht_rc cht_split_give_up(struct cht_txn *t, struct cht_err *err)
{
    struct names n;
    name_them(&n, cht_rdb_map(t->db), t->split, t->level);
    cht_rdb_step(t->db, "split-back");
    enum cht_rc rc = look_at_first(t, &n, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_call call = cht_call_write();
    cht_txn_epoch(&call, &(struct cht_epoch){n.epoch, t->id, n.generation},
                  &(struct cht_epoch){n.epoch, 0, n.generation});
    rc = refused_is_done(t->db, cht_call_run(&call, t->db->io, n.from), n.from, err);
    if (rc != CHT_OK)
        return rc;
    call = cht_call_write();
    struct cht_epoch e = {n.epoch + 1, t->id, 0};
    cht_txn_epoch(&call, &e, &e);
    rados_write_op_remove(call.w);
    int r = cht_call_run(&call, t->db->io, n.to);
    if (r < 0 && cht_os_code(r) != CHT_OS_NOT_THERE && cht_os_code(r) != CHT_OS_CANCELED)
        return cht_rdb_answer(t->db, r, n.to, err);
    (void)rados_remove(t->db->io, t->object);
    return CHT_OK;
}

enum cht_rc cht_split(struct cht_rdb *db, unsigned shard, struct cht_err *err)
{
    struct cht_txn t = {.db = db};
    struct names n;
    enum cht_rc rc = cht_rdb_reload(db, err);
    const struct cht_map *m = cht_rdb_map(db);
    if (rc != CHT_OK)
        return rc;
    if (!cht_map_has(m, shard) || m->level[shard] >= CHT_MAP_LEVEL_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "there is no shard %u to divide", shard);
    rc = cht_split_clean(db, shard, err);
    if (rc != CHT_OK)
        return rc;
    name_them(&n, m, shard, m->level[shard]);
    rc = make_record(&t, &n, err);
    if (rc == CHT_OK) {
        rc = decide(&t, &n, err);
        if (rc == CHT_OK)
            rc = cht_split_finish(&t, err);
        else if (cht_txn_state(&t, "R", "A") == 0)
            (void)cht_split_give_up(&t, NULL); /* else whoever meets it does */
    }
    cht_txn_fini(&t);
    cht_rdb_step(db, "split-clean");
    return rc == CHT_OK ? cht_split_clean(db, shard, err) : rc;
}

/* ---- S10 ---------------------------------------------------------------------------------------------------------------- */

static enum cht_rc clean_page(struct cht_rdb *db, unsigned shard, unsigned level, const struct cht_page *page,
                              struct cht_err *err)
{
    struct cht_call call = cht_call_write();
    char object[CHT_LINK_OBJECT_MAX];
    size_t n = 0;
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < page->n && rc == CHT_OK; i++) {
        uint32_t bucket;
        rc = bucket_of(db, page->rows[i].name, &bucket, err);
        if (rc == CHT_OK && !cht_map_in_class(bucket, shard, level)) {
            cht_call_remove(&call, page->rows[i].name);
            n++;
        }
    }
    if (rc != CHT_OK || n == 0) {
        rados_release_write_op(call.w);
        return rc;
    }
    cht_rdb_shard_name(object, shard);
    return cht_rdb_rc(db, cht_call_run(&call, db->io, object), object,
                      err); /* no E: these rows never come back */
}

static void take_level(void *ctx, struct cht_str row, struct cht_str value)
{
    (void)row;
    *(unsigned *)ctx = value.n == 1 ? value.p[0] : CHT_MAP_NONE;
}

enum cht_rc cht_split_clean(struct cht_rdb *db, unsigned shard, struct cht_err *err)
{
    static const char *const kinds[] = {"P", "K", "T"};
    const char *row = "D";
    size_t len = 1;
    unsigned level = 0;
    char object[CHT_LINK_OBJECT_MAX];
    cht_rdb_shard_name(object, shard);
    int r = cht_link_rows(db->io, object, &(struct cht_rows_wanted){&row, &len, 1}, take_level, &level);
    enum cht_rc rc = cht_rdb_rc(db, r < 0 ? r : 0, object, err);
    if (rc != CHT_OK || level == 0)
        return rc;
    if (level > CHT_MAP_LEVEL_MAX)
        return CHT_FAIL(err, CHT_CORRUPT, "object %s: its row D cannot be read", object);
    for (unsigned k = 0; k < 3 && rc == CHT_OK; k++) {
        struct cht_buf after = {0};
        bool more = true;
        while (rc == CHT_OK && more) {
            struct cht_page page;
            struct cht_raw_wanted w = {shard, after.data != NULL ? (char *)after.data : "", kinds[k],
                                       CLEAN_ROWS};
            rc = cht_page_raw(db, &w, &page, err);
            if (rc == CHT_OK)
                rc = clean_page(db, shard, level, &page, err);
            more = page.more && page.n > 0;
            if (rc == CHT_OK && more)
                rc = cht_page_last(&page, &after, err);
            cht_page_free(&page);
            cht_rdb_step(db, "split-cleaning");
            if (rc == CHT_OK && more)
                rc = cht_rdb_closes(db, err);
        }
        cht_buf_free(&after);
    }
    if (rc != CHT_OK)
        return rc;
    uint8_t was = (uint8_t)level;
    struct cht_call call = cht_call_write();
    cht_call_compare(&call, CHT_ROW_TEXT("D"), (struct cht_str){&was, 1});
    cht_call_remove(&call, CHT_ROW_TEXT("D"));
    return refused_is_done(db, cht_call_run(&call, db->io, object), object, err);
}
