/* link: the connection to a cluster, and single operations on its objects.
 *
 * Every operation ends: librados gives up after the time-out that is set when connecting, and is told to report a full pool instead of
 * waiting for room. One connection a process, made after the last fork.
 *
 * Threads: any, on one link; a call belongs to one thread.
 */
#pragma once

#include <rados/librados.h>

#include <stdatomic.h>

#include "cheetah/rados.h"

#define CHT_LINK_OBJECT_MAX 64u

#define CHT_LINK_MADE_MAX 8u /* connections of a process, one after the other */

struct cht_link {
    const struct cht_rados_config *cfg; /* borrowed */
    _Atomic rados_t cluster;
    _Atomic rados_ioctx_t root; /* the namespace "" of the pool: which databases there are */
    bool connected, rooted;
    _Atomic bool refreshing; /* a thread asks for the map */
    _Atomic bool making;     /* a thread connects anew */
    _Atomic unsigned
        made; /* connections before this one; they stay until the end, since calls may be under way on them */
    struct {
        rados_t cluster;
        rados_ioctx_t root;
    } old[CHT_LINK_MADE_MAX];
    _Atomic bool full, asking;     /* the pool; a thread asks whether it is */
    _Atomic uint64_t asked, tried; /* when it was asked, and when a new connection was tried, ns */
};
enum cht_rc cht_link_open(const struct cht_rados_config *cfg, struct cht_link *out, struct cht_err *err);
void cht_link_close(struct cht_link *l);
/* After an operation that was not answered in time: waits for the monitors' newest map of the cluster, one thread at a time. An operation
 * that is given up does not ask for it: if every OSD was started anew, this process would ask at their old addresses for ever. */
void cht_link_refresh(struct cht_link *l);
/* After an operation that was refused because the cluster has shut this process out (an administrator's blocklist): connects anew, under a
 * new address. `made` is the link's as it was when the operation was begun: if it is another one by now nothing is done. */
void cht_link_again(struct cht_link *l, unsigned made);
/* Has the pool no room? An OSD of a full pool still takes rows for objects that are there until it fails: so this is asked of it with a
 * byte of the object `room`, at most once a second, by one of those who want to know. */
bool cht_link_full(struct cht_link *l);
/* cht_link_rc, with what is to be done about it: cht_link_refresh, cht_link_again. Of a write that met the latter it is not known whether it
 * was done: CHT_TIMEOUT. */
enum cht_rc cht_link_answer(struct cht_link *l, int result, const char *object, struct cht_err *err);
/* Of the objects of one database; the caller destroys it with rados_ioctx_destroy. */
enum cht_rc cht_link_space(struct cht_link *l, const char *pool, const char *space, rados_ioctx_t *out,
                           struct cht_err *err);

/* What a negative result means. CHT_TIMEOUT, CHT_DISK_FULL, CHT_NO_MEMORY, CHT_BATCH_TOO_LARGE, CHT_NO_FILE (no such object),
 * CHT_CLOSED (the cluster has shut this process out), CHT_IO. Results that are answers (a compare that fails) are the caller's. */
enum cht_rc cht_link_rc(int result, const char *object, struct cht_err *err);

/* One operation under way. Fill in w or r, start, wait: the answer of librados; then the operation is released. */
struct cht_call {
    rados_write_op_t w;
    rados_read_op_t r;
    rados_completion_t c;
    int result; /* of starting it */
    bool force; /* in: it makes room, also in a full pool */
    uint64_t since;
    /* in, may be NULL: called once when the answer is there, by a thread of librados, which must not block; not if `result` is no 0 after
     * cht_call_start. The call is to be waited for all the same. */
    rados_callback_t done;
    void *ctx;
};
/* Operations of this process that were waited for, by cht_call_wait: a process has one connection at a time. */
struct cht_call_counts {
    _Atomic uint64_t reads, writes, read_ns, write_ns, refused, timeouts, failed;
};
extern struct cht_call_counts cht_call_counts;
void cht_call_start(struct cht_call *call, rados_ioctx_t io, const char *object);
int cht_call_wait(struct cht_call *call);
/* The same; *version: that of the object, which grows with every operation that writes it. */
int cht_call_wait_version(struct cht_call *call, uint64_t *version);
/* Both. */
int cht_call_run(struct cht_call *call, rados_ioctx_t io, const char *object);
static inline struct cht_call cht_call_write(void) { return (struct cht_call){.w = rados_create_write_op()}; }
static inline struct cht_call cht_call_read(void) { return (struct cht_call){.r = rados_create_read_op()}; }

/* One row. */
static inline void cht_call_compare(struct cht_call *call, struct cht_str row, struct cht_str value)
{
    rados_write_op_omap_cmp2(call->w, (const char *)row.p, LIBRADOS_CMPXATTR_OP_EQ, (const char *)value.p,
                             row.n, value.n, NULL);
}
static inline void cht_call_set(struct cht_call *call, struct cht_str row, struct cht_str value)
{
    const char *k = (const char *)row.p, *v = (const char *)value.p;
    rados_write_op_omap_set2(call->w, &k, &v, &row.n, &value.n, 1);
}
static inline void cht_call_remove(struct cht_call *call, struct cht_str row)
{
    const char *k = (const char *)row.p;
    rados_write_op_omap_rm_keys2(call->w, &k, &row.n, 1);
}
/* Adds to a decimal counter; at most once for each counter in one operation (a second one would undo the first). */
enum cht_rc cht_call_add(struct cht_call *call, struct cht_str row, int64_t by, struct cht_err *err);

/* Reads rows of an object: fn for each that is there. */
struct cht_rows_wanted {
    const char *const *names;
    const size_t *lens;
    size_t n;
};
int cht_link_rows(rados_ioctx_t io, const char *object, const struct cht_rows_wanted *want,
                  void (*fn)(void *ctx, struct cht_str row, struct cht_str value), void *ctx);
