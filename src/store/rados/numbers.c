/* numbers: see numbers.h. */
#include "store/rados/numbers.h"

#include "base/bytes.h"
#include "os/code.h"
#include "store/rados/catalogue.h"

#include <string.h>

static void take_last(void *ctx, struct cht_str row, struct cht_str value)
{
    (void)row;
    *(uint64_t *)ctx = value.n == 8 ? cht_get64(value.p) : 0;
}

/* E of shard 0 as it is. */
struct state {
    uint8_t bytes[CHT_ROW_EPOCH_SIZE];
    size_t n;
    struct cht_epoch e;
};

static void take_state(void *ctx, struct cht_str row, struct cht_str value)
{
    struct state *s = ctx;
    (void)row;
    if (!cht_row_epoch_read(value.p, value.n, &s->e))
        return; /* damaged: it is as if there were none */
    s->n = value.n;
    memcpy(s->bytes, value.p, value.n);
}

static enum cht_rc raise(struct cht_renv *env, uint64_t to, struct cht_err *err)
{
    for (;;) {
        uint64_t last = 0;
        uint8_t was[8], now[8];
        enum cht_rc rc = cht_numbers_last(env, &last, err);
        if (rc != CHT_OK || last >= to)
            return rc;
        struct cht_call call = cht_call_write();
        call.force = true; /* it makes room */
        cht_put64(was, last);
        cht_put64(now, to);
        cht_call_compare(&call, CHT_ROW_TEXT("changes"), (struct cht_str){was, last != 0 ? sizeof was : 0});
        cht_call_set(&call, CHT_ROW_TEXT("changes"), (struct cht_str){now, sizeof now});
        int r = cht_call_run(&call, env->link.root, CHT_CATALOGUE);
        if (r < 0 && cht_os_code(r) != CHT_OS_CANCELED)
            return cht_link_answer(&env->link, r, CHT_CATALOGUE, err);
    }
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_numbers_last(struct cht_renv *env, uint64_t *last, struct cht_err *err)
{
    const char *name = "changes";
    size_t n = 7;
    *last = 0;
    int r = cht_link_rows(env->link.root, CHT_CATALOGUE, &(struct cht_rows_wanted){&name, &n, 1}, take_last,
                          last);
    return r < 0 ? cht_link_answer(&env->link, r, CHT_CATALOGUE, err) : CHT_OK;
}

enum cht_rc cht_numbers_end(struct cht_renv *env, rados_ioctx_t io, struct cht_err *err)
{
    const char *name = "E";
    size_t n = 1;
    for (;;) {
        char object[CHT_LINK_OBJECT_MAX];
        struct state s = {.n = 0};
        cht_rdb_shard_name(object, 0);
        int r = cht_link_rows(io, object, &(struct cht_rows_wanted){&name, &n, 1}, take_state, &s);
        if (cht_os_code(r) == CHT_OS_NOT_THERE)
            return CHT_OK; /* it was removed before, or not made */
        enum cht_rc rc = r < 0 ? cht_link_answer(&env->link, r, object, err) : CHT_OK;
        if (rc == CHT_OK && s.e.generation != 0)
            rc = raise(env, s.e.generation, err); /* one that is being closed is the newest */
        if (rc != CHT_OK || s.n == 0)
            return rc;
        struct cht_call call = cht_call_write();
        call.force = true;
        cht_call_compare(&call, CHT_ROW_TEXT("E"), (struct cht_str){s.bytes, s.n});
        rados_write_op_remove(call.w);
        r = cht_call_run(&call, io, object);
        if (cht_os_code(r) == CHT_OS_NOT_THERE)
            return CHT_OK;
        if (cht_os_code(r) != CHT_OS_CANCELED)
            return r < 0 ? cht_link_answer(&env->link, r, object, err) : CHT_OK;
    }
}
