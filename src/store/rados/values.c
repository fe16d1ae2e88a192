/* values: see exec.h. The object v.<number> is written in pieces of 4 MiB. */
#include "store/rados/exec.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "os/code.h"
#include "os/io.h"

#define PIECE ((size_t)4 << 20)

static void object_of(char *out, uint64_t number)
{
    (void)snprintf(out, CHT_LINK_OBJECT_MAX, "v.%016llx", (unsigned long long)number);
}

enum cht_rc cht_parts_write(struct cht_rdb *db, struct cht_str value, uint64_t *number, struct cht_err *err)
{
    char object[CHT_LINK_OBJECT_MAX];
    *number = 0;
    for (size_t at = 0; at < value.n; at += PIECE) {
        while (*number == 0)
            cht_os_random(number, sizeof *number);
        object_of(object, *number);
        size_t n = value.n - at < PIECE ? value.n - at : PIECE;
        struct cht_call call = cht_call_write();
        if (at == 0)
            rados_write_op_create(call.w, LIBRADOS_CREATE_EXCLUSIVE, NULL);
        rados_write_op_write(call.w, (const char *)value.p + at, n, at);
        int r = cht_call_run(&call, db->io, object);
        if (at == 0 && cht_os_code(r) == CHT_OS_THERE)
            return CHT_FAIL(err, CHT_IO, "object %s is there already",
                            object); /* somebody else's: it stays */
        if (r < 0) {
            if (cht_os_code(r) != CHT_OS_SHUT_OUT)
                cht_parts_remove(db, *number);
            return cht_rdb_rc(db, r, object, err);
        }
    }
    return CHT_OK;
}

enum cht_rc cht_parts_read(struct cht_rdb *db, uint64_t number, uint8_t *out, uint32_t len,
                           struct cht_err *err)
{
    char object[CHT_LINK_OBJECT_MAX];
    object_of(object, number);
    for (size_t at = 0; at < len;) {
        size_t n = len - at < PIECE ? len - at : PIECE;
        int r = rados_read(db->io, object, (char *)out + at, n, at);
        if (r < 0)
            return cht_rdb_answer(db, r, object, err);
        if (r == 0)
            return CHT_FAIL(err, CHT_CORRUPT, "object %s ends after %zu of %u bytes", object, at, len);
        at += (size_t)r;
    }
    return CHT_OK;
}

void cht_parts_remove(struct cht_rdb *db, uint64_t number)
{
    char object[CHT_LINK_OBJECT_MAX];
    object_of(object, number);
    (void)rados_remove(db->io, object); /* what stays no row names */
}

static uint64_t number_in(struct cht_str row)
{
    struct cht_row r;
    return row.p != NULL && cht_row_read(row.p, row.n, &r) && r.flags == CHT_ROW_PARTS ? cht_get64(r.body.p)
                                                                                       : 0;
}

void cht_parts_sweep(struct cht_rowset *s)
{
    for (size_t i = 0; i < s->n; i++) {
        uint64_t was = s->rows[i].dirty ? number_in(s->rows[i].was) : 0;
        bool named = was == 0;
        for (size_t k = 0; k < s->n && !named; k++)
            named = number_in(s->rows[k].now) == was;
        if (!named)
            cht_parts_remove(s->db, was);
    }
}
