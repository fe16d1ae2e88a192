/* link: see link.h. */
#include "store/rados/link.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TIMEOUT_DEFAULT 10u
#define ASK_NS UINT64_C(1000000000)
#define COUNTER_MAX 8400u /* a row's name, a number, and two lengths */

enum cht_rc cht_link_rc(int result, const char *object, struct cht_err *err)
{
    char why[100];
    cht_os_code_text(result, why, sizeof why);
    switch (cht_os_code(result)) {
    case CHT_OS_OK:
        return CHT_OK;
    case CHT_OS_TIMED_OUT:
        return CHT_FAIL(err, CHT_TIMEOUT, "object %s: the cluster did not answer in time", object);
    case CHT_OS_NO_SPACE:
        return CHT_FAIL(err, CHT_DISK_FULL, "object %s: the pool is full", object);
    case CHT_OS_NO_MEMORY:
        return CHT_FAIL(err, CHT_NO_MEMORY, "object %s: %s", object, why);
    case CHT_OS_TOO_LARGE:
        return CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "object %s: more than the cluster takes at once", object);
    case CHT_OS_NOT_THERE:
        return CHT_FAIL(err, CHT_NO_FILE, "object %s is not there", object);
    case CHT_OS_SHUT_OUT:
        return CHT_FAIL(err, CHT_CLOSED, "the cluster has shut this process out: restart it");
    default:
        return CHT_FAIL(err, CHT_IO, "object %s: %s", object, why);
    }
}

static int configure(rados_t cluster, const struct cht_rados_config *cfg)
{
    char seconds[16];
    unsigned t = cfg->timeout_seconds != 0 ? cfg->timeout_seconds : TIMEOUT_DEFAULT;
    (void)snprintf(seconds, sizeof seconds, "%u", t);
    const char *const options[][2] = {
        {"rados_osd_op_timeout", seconds},
        {"rados_mon_op_timeout", seconds},
        {"client_mount_timeout", seconds},
        {"objecter_inflight_ops", "16384"},
        {"objecter_inflight_op_bytes", "1073741824"},
    };
    int r = rados_conf_read_file(cluster, cfg->conf);
    for (size_t i = 0; i < sizeof options / sizeof *options && r == 0; i++)
        r = rados_conf_set(cluster, options[i][0], options[i][1]);
    return r;
}

enum cht_rc cht_link_space(struct cht_link *l, const char *pool, const char *space, rados_ioctx_t *out,
                           struct cht_err *err)
{
    int r = rados_ioctx_create(l->cluster, pool, out);
    if (cht_os_code(r) == CHT_OS_NOT_THERE)
        return CHT_FAIL(err, CHT_NOT_FOUND, "there is no pool %s", pool);
    if (r < 0)
        return cht_link_rc(r, pool, err);
    rados_ioctx_set_namespace(*out, space);
    rados_set_pool_full_try(*out);
    return CHT_OK;
}

enum cht_rc cht_link_open(const struct cht_rados_config *cfg, struct cht_link *out, struct cht_err *err)
{
    rados_t cluster;
    rados_ioctx_t root = NULL;
    *out = (struct cht_link){.cfg = cfg};
    int r = rados_create(&cluster, cfg->id);
    if (r < 0)
        return cht_link_rc(r, "connection", err);
    out->cluster = cluster;
    out->connected = true;
    r = configure(out->cluster, cfg);
    if (r < 0) {
        cht_link_close(out);
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the configuration of Ceph cannot be read (%s)",
                        cfg->conf != NULL ? cfg->conf : "ceph.conf in its usual places");
    }
    r = rados_connect(out->cluster);
    enum cht_rc rc = r < 0 ? cht_link_rc(r, "connection", err) : CHT_OK;
    if (rc == CHT_OK)
        rc = cht_link_space(out, cfg->pool, "", &root, err);
    out->root = root;
    out->rooted = rc == CHT_OK;
    if (rc != CHT_OK)
        cht_link_close(out);
    return rc;
}

void cht_link_close(struct cht_link *l)
{
    if (l->rooted)
        rados_ioctx_destroy(l->root);
    if (l->connected)
        rados_shutdown(l->cluster);
    l->rooted = l->connected = false;
    for (unsigned i = 0; i < l->made; i++) {
        rados_ioctx_destroy(l->old[i].root);
        rados_shutdown(l->old[i].cluster);
    }
    l->made = 0;
}

void cht_link_again(struct cht_link *l, unsigned made)
{
    bool none = false;
    uint64_t now = cht_now_ns();
    if (atomic_load(&l->made) != made || made == CHT_LINK_MADE_MAX || now - atomic_load(&l->tried) < ASK_NS ||
        !atomic_compare_exchange_strong(&l->making, &none, true))
        return;
    struct cht_link fresh;
    if (atomic_load(&l->made) == made && cht_link_open(l->cfg, &fresh, NULL) == CHT_OK) {
        l->old[made].cluster = l->cluster;
        l->old[made].root = l->root;
        l->cluster = fresh.cluster;
        l->root = fresh.root;
        atomic_store(&l->made, made + 1);
    }
    atomic_store(&l->tried, cht_now_ns());
    atomic_store(&l->making, false);
}

bool cht_link_full(struct cht_link *l)
{
    bool none = false;
    uint64_t now = cht_now_ns();
    if (now - atomic_load(&l->asked) < ASK_NS || !atomic_compare_exchange_strong(&l->asking, &none, true))
        return atomic_load(&l->full);
    struct cht_call call = cht_call_write();
    rados_write_op_append(call.w, "", 1);
    int r = cht_call_run(&call, l->root, "room");
    if (r == 0) {
        call = cht_call_write();
        rados_write_op_truncate(call.w, 0);
        (void)cht_call_run(&call, l->root, "room"); /* what stays is one byte a time: the next time it goes */
    }
    if (r == 0 || cht_os_code(r) == CHT_OS_NO_SPACE)
        atomic_store(&l->full, r != 0);
    atomic_store(&l->asked, cht_now_ns());
    atomic_store(&l->asking, false);
    return atomic_load(&l->full);
}

enum cht_rc cht_link_answer(struct cht_link *l, int result, const char *object, struct cht_err *err)
{
    unsigned made = atomic_load(&l->made);
    if (cht_os_code(result) == CHT_OS_TIMED_OUT)
        cht_link_refresh(l);
    if (cht_os_code(result) == CHT_OS_SHUT_OUT && made < CHT_LINK_MADE_MAX) {
        cht_link_again(l, made);
        return CHT_FAIL(err, CHT_TIMEOUT,
                        "object %s: the cluster has shut this process out; it connects anew", object);
    }
    return cht_link_rc(result, object, err);
}

void cht_link_refresh(struct cht_link *l)
{
    bool none = false;
    if (!atomic_compare_exchange_strong(&l->refreshing, &none, true))
        return;
    (void)rados_wait_for_latest_osdmap(
        l->cluster); /* if no monitor answers it ends, too: the next call asks again */
    atomic_store(&l->refreshing, false);
}

struct cht_call_counts cht_call_counts;

static void add(_Atomic uint64_t *to, uint64_t n)
{
    (void)atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

/* What the callers take for an answer is none of the failures: a compare that does not hold, what is there or is not. */
static void count(bool writes, uint64_t since, int result)
{
    struct cht_call_counts *c = &cht_call_counts;
    enum cht_os_code code = cht_os_code(result);
    add(writes ? &c->writes : &c->reads, 1);
    add(writes ? &c->write_ns : &c->read_ns, cht_now_ns() - since);
    if (result >= 0 || code == CHT_OS_THERE || code == CHT_OS_NOT_THERE)
        return;
    if (code != CHT_OS_CANCELED)
        add(code == CHT_OS_TIMED_OUT ? &c->timeouts : &c->failed, 1);
    else if (writes)
        add(&c->refused, 1);
}

void cht_call_start(struct cht_call *call, rados_ioctx_t io, const char *object)
{
    call->since = cht_now_ns();
    call->result = rados_aio_create_completion2(call->ctx, call->done, &call->c);
    if (call->result == 0 && call->w != NULL)
        call->result = rados_aio_write_op_operate(call->w, io, call->c, object, NULL,
                                                  call->force ? LIBRADOS_OPERATION_FULL_FORCE : 0);
    else if (call->result == 0)
        call->result = rados_aio_read_op_operate(call->r, io, call->c, object, 0);
}

int cht_call_wait_version(struct cht_call *call, uint64_t *version)
{
    int r = call->result;
    *version = 0;
    if (r == 0) {
        (void)rados_aio_wait_for_complete(call->c); /* always 0 */
        r = rados_aio_get_return_value(call->c);
        *version = rados_aio_get_version(call->c);
    }
    if (call->since != 0) /* it was begun */
        count(call->w != NULL, call->since, r);
    if (call->c != NULL)
        rados_aio_release(call->c);
    if (call->w != NULL)
        rados_release_write_op(call->w);
    if (call->r != NULL)
        rados_release_read_op(call->r);
    *call = (struct cht_call){0};
    return r;
}

int cht_call_wait(struct cht_call *call)
{
    uint64_t version;
    return cht_call_wait_version(call, &version);
}

int cht_call_run(struct cht_call *call, rados_ioctx_t io, const char *object)
{
    cht_call_start(call, io, object);
    return cht_call_wait(call);
}

enum cht_rc cht_call_add(struct cht_call *call, struct cht_str row, int64_t by, struct cht_err *err)
{
    uint8_t in[COUNTER_MAX];
    char number[24];
    int n = snprintf(number, sizeof number, "%" PRId64, by);
    if (row.n + (size_t)n + 8 > sizeof in)
        return CHT_FAIL(err, CHT_INVALID_PAIR, "the name of a counter of %zu bytes", row.n);
    cht_put32(in, (uint32_t)row.n);
    memcpy(in + 4, row.p, row.n);
    cht_put32(in + 4 + row.n, (uint32_t)n);
    memcpy(in + 8 + row.n, number, (size_t)n);
    rados_write_op_exec(call->w, "numops", "add", (const char *)in, 8 + row.n + (size_t)n, NULL);
    return CHT_OK;
}

int cht_link_rows(rados_ioctx_t io, const char *object, const struct cht_rows_wanted *want,
                  void (*fn)(void *ctx, struct cht_str row, struct cht_str value), void *ctx)
{
    struct cht_call call = cht_call_read();
    rados_omap_iter_t it = NULL;
    int part = 0;
    rados_read_op_omap_get_vals_by_keys2(call.r, want->names, want->n, want->lens, &it, &part);
    int r = cht_call_run(&call, io, object);
    char *k = NULL, *v = NULL;
    size_t kn = 0, vn = 0;
    while (r == 0 && it != NULL && rados_omap_get_next2(it, &k, &v, &kn, &vn) == 0 && k != NULL)
        fn(ctx, (struct cht_str){(const uint8_t *)k, kn}, (struct cht_str){(const uint8_t *)v, vn});
    if (it != NULL)
        rados_omap_get_end(it);
    return r < 0 ? r : part;
}
