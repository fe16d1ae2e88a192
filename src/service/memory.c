/* memory: see memory.h. */
#include "service/memory.h"

#include "os/io.h"

#define LEAST (UINT64_C(8) << 20) /* a stream, and what is small */

void svc_memory_init(struct svc_memory_budget *b, uint64_t max, uint64_t each)
{
    b->max = max > 0 ? max : cht_os_memory() / 2;
    if (b->max < LEAST)
        b->max = LEAST;
    b->each = each < b->max ? each : b->max;
}

/* CHT_OK, or why not. */
static enum cht_rc take(struct svc_memory_use *u, uint64_t bytes)
{
    struct svc_memory_budget *b = u->budget;
    uint64_t mine = atomic_fetch_add_explicit(&u->taken, bytes, memory_order_relaxed) + bytes;
    if ((mine > b->each && !u->beside) || mine < bytes) {
        atomic_fetch_sub_explicit(&u->taken, bytes, memory_order_relaxed);
        return CHT_REQUEST_TOO_LARGE;
    }
    if (atomic_fetch_add_explicit(&b->used, bytes, memory_order_relaxed) + bytes <= b->max)
        return CHT_OK;
    svc_memory_give(u, bytes);
    return CHT_OVERLOADED;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc svc_memory_take(struct svc_memory_use *u, uint64_t bytes, struct cht_err *err)
{
    struct svc_memory_budget *b = u->budget;
    enum cht_rc rc = take(u, bytes);
    if (rc == CHT_OK)
        return CHT_OK;
    if (rc == CHT_REQUEST_TOO_LARGE) {
        atomic_fetch_add_explicit(&b->large, 1, memory_order_relaxed);
        return CHT_FAIL(err, CHT_REQUEST_TOO_LARGE,
                        "the request needs more than its %llu bytes of memory (--request-memory-bytes): "
                        "send it in parts",
                        (unsigned long long)b->each);
    }
    atomic_fetch_add_explicit(&b->overbook, 1, memory_order_relaxed);
    return CHT_FAIL(
        err, CHT_OVERLOADED,
        "the requests under way have the %llu bytes of memory there are for them (--memory-bytes)",
        (unsigned long long)b->max);
}

bool svc_memory_try(struct svc_memory_use *u, uint64_t bytes) { return take(u, bytes) == CHT_OK; }

void svc_memory_give(struct svc_memory_use *u, uint64_t bytes)
{
    atomic_fetch_sub_explicit(&u->taken, bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&u->budget->used, bytes, memory_order_relaxed);
}

void svc_memory_end(struct svc_memory_use *u)
{
    uint64_t left = atomic_load_explicit(&u->taken, memory_order_relaxed);
    if (left > 0)
        svc_memory_give(u, left);
}
