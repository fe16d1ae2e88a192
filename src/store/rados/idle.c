/* idle: nobody has asked for long what changed, so that it is kept no longer. See cut.h, CH9. */
#include "store/rados/cut.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "os/io.h"

struct says { /* the header */
    uint64_t oldest, asked;
    bool marked; /* it has `asked` */
};

static void take(void *ctx, struct cht_str row, struct cht_str value)
{
    struct says *h = ctx;
    uint64_t v = value.n == 8 ? cht_get64(value.p) : 0;
    if (row.n == 7) {
        h->oldest = v;
    } else {
        h->marked = value.n == 8;
        h->asked = v;
    }
}

static enum cht_rc read_says(struct cht_rdb *db, struct says *h, struct cht_err *err)
{
    static const char *const names[] = {"changes", "asked"};
    static const size_t lens[] = {7, 5};
    *h = (struct says){0};
    int r = cht_link_rows(db->io, "h", &(struct cht_rows_wanted){names, lens, 2}, take, h);
    return cht_rdb_rc(db, r, "h", err);
}

/* Nobody is told of this generation, which is open, unless somebody has asked meanwhile. */
static enum cht_rc end_keeping(struct cht_rdb *db, const struct says *h, uint64_t generation,
                               struct cht_err *err)
{
    uint8_t was[8], asked[8], now[8];
    uint64_t oldest;
    struct cht_call call = cht_call_write();
    call.force = true; /* it makes room */
    cht_put64(was, h->oldest);
    cht_put64(asked, h->asked);
    cht_put64(now, generation);
    cht_call_compare(&call, CHT_ROW_TEXT("changes"), (struct cht_str){was, sizeof was});
    cht_call_compare(&call, CHT_ROW_TEXT("asked"), (struct cht_str){asked, h->marked ? sizeof asked : 0});
    cht_call_set(&call, CHT_ROW_TEXT("changes"), (struct cht_str){now, sizeof now});
    cht_rdb_step(db, "idle-end");
    int r = cht_call_run(&call, db->io, "h");
    cht_rdb_step(db, "idle-ended");
    db->told.quiet = 0;
    enum cht_rc rc = cht_os_code(r) == CHT_OS_CANCELED ? CHT_OK : cht_rdb_rc(db, r, "h", err);
    return rc == CHT_OK ? cht_cut_oldest(db, &oldest, err) : rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_cut_asked(struct cht_rdb *db, uint64_t every_ns, struct cht_err *err)
{
    uint64_t now = cht_now_ns(), last = atomic_load(&db->told.marked);
    uint8_t mark[8];
    if (atomic_load(&db->format) < CHT_RDB_FORMAT_CHANGES && cht_rdb_generation(db) == 0)
        return CHT_OK; /* this is the first who asks */
    if (last != 0 && now - last < every_ns)
        return CHT_OK;
    cht_os_random(mark, sizeof mark);
    struct cht_call call = cht_call_write();
    call.force = true; /* as a cut */
    rados_write_op_omap_cmp2(call.w, "format", LIBRADOS_CMPXATTR_OP_GT, "", 6, 0,
                             NULL); /* there is a header */
    cht_call_set(&call, CHT_ROW_TEXT("asked"), (struct cht_str){mark, sizeof mark});
    int r = cht_call_run(&call, db->io, "h");
    if (cht_os_code(r) == CHT_OS_CANCELED)
        return cht_rdb_dropped(db, err);
    enum cht_rc rc = cht_rdb_rc(db, r, "h", err);
    if (rc == CHT_OK)
        atomic_store(&db->told.marked, now);
    return rc;
}

enum cht_rc cht_cut_idle(struct cht_rdb *db, uint64_t idle_ns, struct cht_err *err)
{
    struct cht_told *told = &db->told;
    struct says h;
    uint64_t generation = cht_rdb_generation(db), now = cht_now_ns();
    if (generation == 0)
        return CHT_OK; /* none are kept, or it is not known yet */
    enum cht_rc rc = read_says(db, &h, err);
    if (rc != CHT_OK || h.oldest == 0)
        return rc;
    if (h.oldest >= generation) { /* it has ended: from now on this server knows it */
        told->quiet = 0;
        return cht_cut_oldest(db, &h.oldest, err);
    }
    if (atomic_load(&told->followers) > 0)
        rc = cht_cut_asked(db, idle_ns / 8, err);
    if (atomic_load(&told->followers) > 0 || told->quiet == 0 || h.asked != told->asked) {
        told->asked = h.asked;
        told->quiet = now;
        return rc;
    }
    return now - told->quiet < idle_ns ? CHT_OK : end_keeping(db, &h, generation, err);
}
