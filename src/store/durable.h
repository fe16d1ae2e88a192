/* durable: what a point read must not show yet, and waiting for it. Under durability `sync` a group of commits is in the pages
 * before it is in the log; until then, and for good if the log refuses it, point reads do not show it.
 *
 *   committer   marks each name and key that it changes, in the shard, with the shard's lock held exclusively
 *   reader      reads with the lock held shared, then asks whether what it looked at is marked by a group that is not
 *               decided; if so it forgets what it has read, waits for the group, and reads again
 *   committer   cht_durable_decide when the group is on disk: marks up to it mean nothing from then on
 *
 * Groups are undecided while one of them is synced and others are applied after it (commit_pipe.c). The marks of a shard lie in two sets: a
 * group takes one of which everything is decided, or adds its marks to those of the group before it, which then are waited for
 * together. As one of the two is free again as soon as a sync has ended, a set has what two syncs bring to the disk, at most. Each
 * has its few first hashes, then a blocked Bloom filter. A hash that meets another one's mark costs a wait, nothing else. A
 * reader of a shard without undecided marks pays two loads and a comparison (cht_marked).
 *
 * If the group is refused (takeback.c) all shards are fenced: no read enters until the pages are those of before the group.
 *
 *   NORMAL -> TAKING_BACK -> NORMAL    it is certain that the log does not have the group: it is decided, as never done
 *                        \-> UNKNOWN   the log may have it or not: names and keys of the group are refused until a restart
 *                        \-> LOST      the pages could not be read again: every read is refused until that works, or a restart
 *
 * Locking: the marks belong to the shard's lock. mu is a leaf; what waits is told with mu held, so that after
 * cht_durable_forget nothing is on its way any more.
 */
#pragma once

#include <stdatomic.h>

#include "cheetah/store.h"
#include "os/thread.h"

#define CHT_MARKS_FEW 16u
#define CHT_MARKS_WORDS 512u
#define CHT_FENCED UINT64_MAX          /* as `limit`: no read may enter */
#define CHT_GROUP_ALL (UINT64_MAX - 1) /* a group that is never decided */

struct cht_mark_set {
    uint64_t group; /* the last one whose marks these are */
    bool all;       /* everything is marked */
    unsigned count; /* in few; more than CHT_MARKS_FEW: they are in words */
    uint64_t few[CHT_MARKS_FEW];
    uint64_t *words; /* owned; NULL before the first group that needs it */
};

struct cht_marks {
    uint64_t limit; /* what cht_marked looks at: the last group, or CHT_FENCED. 0: never marked */
    unsigned last;  /* the set of the last group */
    struct cht_mark_set sets[2];
};

enum cht_durable_state { CHT_DURABLE_NORMAL, CHT_DURABLE_TAKING_BACK, CHT_DURABLE_UNKNOWN, CHT_DURABLE_LOST };

struct cht_durable {
    _Atomic uint64_t decided; /* groups up to this one are; written by the committer */
    struct cht_mutex mu;
    struct cht_cond changed;
    enum cht_durable_state state; /* guarded by mu */
    struct cht_wait *waiting;     /* guarded by mu */
};

enum cht_rc cht_durable_init(struct cht_durable *d, struct cht_err *err);
void cht_durable_fini(struct cht_durable *d);

/* ---- marks; the shard's lock held exclusively, for meet at least shared */

uint64_t cht_mark_of_key(uint64_t key);
uint64_t cht_mark_of_name(struct cht_str name);
/* `group` is that under way; groups up to `decided` are. Without memory everything is marked. */
void cht_marks_add(struct cht_marks *m, uint64_t group, uint64_t decided, uint64_t mark);
void cht_marks_all(struct cht_marks *m, uint64_t group, uint64_t decided);
/* The limit to wait for (cht_durable_await); 0: it is not marked by a group after `decided`. */
uint64_t cht_marks_meet(const struct cht_marks *m, uint64_t decided, uint64_t mark);
/* No fence any more: what is marked by groups after `decided` stays so. */
void cht_marks_unfence(struct cht_marks *m, uint64_t decided);
void cht_marks_fini(struct cht_marks *m);

/* Is anything of the shard undecided? Shard lock held. The load needs no order: what the marks stand for is ordered by the lock, and
 * a group that is seen as decided late costs a wait that ends at once. */
static inline bool cht_marked(const struct cht_durable *d, const struct cht_marks *m)
{
    return __builtin_expect(m->limit > atomic_load_explicit(&d->decided, memory_order_relaxed), 0);
}

/* ---- waiting; no lock held */

/* After a read that met the marks of `limit` (cht_marks_meet). CHT_OK: read again, now. CHT_PENDING: w->done will be called. NULL for
 * w waits here. CHT_OUTCOME_UNKNOWN, CHT_READ_ONLY: there is nothing to wait for. */
enum cht_rc cht_durable_await(struct cht_durable *d, uint64_t limit, struct cht_wait *w, struct cht_err *err);
/* w is not told any more, whether it was waiting or not. */
void cht_durable_forget(struct cht_durable *d, struct cht_wait *w);

/* ---- the committer's: of whoever decides groups (commit_pipe.c), in their order */

/* Everything up to the group is durable, or as if it had never been. */
void cht_durable_decide(struct cht_durable *d, uint64_t group);
void cht_durable_change(struct cht_durable *d, enum cht_durable_state state);
