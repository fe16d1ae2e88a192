/* lane: the writes of one shard. One group at a time is on its way to the cluster; what arrives meanwhile is in the next. (Many guarded
 * operations on one object at once wait for each other inside the OSD.)
 *
 * commit.c cuts a commit into parts, one a shard; a part is done in windows, so that no group is larger than CHT_LANE_OPS
 * operations and CHT_LANE_BYTES of values. A group that is refused, because another process has changed a row that it looked at, is read
 * and made again, after the second time with half of its operations.
 */
#pragma once

#include "store/rados/exec.h"
#include "store/rados/fence.h"

#define CHT_LANE_OPS 2000u
#define CHT_LANE_BYTES ((size_t)4 << 20)

/* Operations of one shard of a commit, in order. */
struct cht_rpart {
    struct cht_rpart *next; /* the lane's */
    unsigned shard;
    struct cht_exec_op **ops; /* borrowed */
    size_t n, at;             /* at: the first that is not done */
    bool crossed;             /* ops[at] needs rows of another shard: it was not done */
    enum cht_rc
        rc; /* what ended it, not an operation's own failure; the operations from `at` on were not done, or (CHT_TIMEOUT)
                                 it is not known whether those of one window were */
    struct cht_err err;
    const struct cht_fences *fences;   /* borrowed; NULL: none */
    uint64_t read_max, read;           /* bytes that its reads may copy, and did */
    void (*done)(struct cht_rpart *p); /* all are done, or crossed, or rc. On a thread of the pool */
    void *ctx;
};

enum cht_rc cht_lane_init(struct cht_lane *l, struct cht_rdb *db, unsigned shard, struct cht_err *err);
void cht_lane_fini(struct cht_lane *l);
/* Does not block. p->done is called once, later. */
void cht_lane_push(struct cht_lane *l, struct cht_rpart *p);
/* The same, for a thread that would wait for it anyway: if nobody is at the lane it does the group itself, and blocks. */
void cht_lane_push_here(struct cht_lane *l, struct cht_rpart *p);
