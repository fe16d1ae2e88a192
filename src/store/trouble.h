/* trouble: why a database refuses writes, or has stopped writing, and who is told of it. The store does not log: it calls the
 * function of the environment's configuration once when a condition begins and once when it is over.
 *
 *   CHT_TROUBLE_STOPPED      something may be lost or half written: no more writing until the database is opened again
 *   CHT_TROUBLE_CHECKPOINT   a checkpoint could not be made; it is tried again
 *   CHT_TROUBLE_WRITE        writes were refused for want of room, memory or descriptors; they go on when there is some
 *
 * Threads: any. The mutex is a leaf but for the function that is called under it, which must not call the store.
 */
#pragma once

#include "cheetah/store.h"
#include "os/thread.h"

#include <stdatomic.h>

struct cht_trouble {
    const char *database; /* borrowed; set at open, then read-only, as are the next two */
    void (*tell)(void *ctx, const char *database, enum cht_trouble_kind kind, const struct cht_err *why);
    void *ctx;
    struct cht_mutex mu;
    struct cht_err why[CHT_TROUBLE_KINDS]; /* guarded by mu; code CHT_OK: none of this kind */
    uint64_t since_ns[CHT_TROUBLE_KINDS];  /* guarded by mu: when it was last set */
    _Atomic unsigned kinds; /* a bit a kind; changed under mu, read without: a late answer does no harm */
};

enum cht_rc cht_trouble_init(struct cht_trouble *t, const char *database, const struct cht_env_config *cfg,
                             struct cht_err *err);
void cht_trouble_fini(struct cht_trouble *t);
/* why: the failed call, with file and errno. STOPPED keeps its first cause. */
void cht_trouble_set(struct cht_trouble *t, enum cht_trouble_kind kind, const struct cht_err *why);
/* It is over: the call that had failed went through. WRITE stays for a second after it was last set, so that a disk with a
 * few bytes left does not fill the log. Costs a load if there is none. Nothing clears STOPPED. */
void cht_trouble_clear(struct cht_trouble *t, enum cht_trouble_kind kind);
/* How long ago it was last set, in nanoseconds; UINT64_MAX if it is not set now. */
uint64_t cht_trouble_age(struct cht_trouble *t, enum cht_trouble_kind kind);
/* The gravest one now: STOPPED, else CHECKPOINT, else WRITE. False, and code CHT_OK, if there is none. */
bool cht_trouble_get(struct cht_trouble *t, struct cht_err *why);
static inline bool cht_trouble_is(const struct cht_trouble *t, enum cht_trouble_kind kind)
{
    return (atomic_load_explicit(&t->kinds, memory_order_acquire) >> kind & 1) != 0;
}
/* Why nothing is written now: CHT_READ_ONLY with the cause of STOPPED; without one, a write that found no room is being taken
 * back (takeback.c), and it is that of WRITE. */
enum cht_rc cht_trouble_stopped(struct cht_trouble *t, struct cht_err *err);
