/* memory: what requests take of the machine's memory: each is bounded, and all together have a budget.
 *
 * What is booked is about to be allocated, or is an estimate that is not too low. Small things (a line, an answer, a few
 * operations) are not booked: there are at most as many of them as connections. Threads: any.
 */
#pragma once

#include "cheetah/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SVC_MEMORY_SMALL (64u << 10) /* bytes of one buffer from which on it is booked */

struct svc_memory_budget {
    uint64_t max, each;               /* of all; of one of them; set at start, then read-only */
    _Atomic uint64_t used;            /* booked now */
    _Atomic uint64_t large, overbook; /* refused for `each`, for `max` */
};

/* What one request has booked. Zero-initialise but for the budget. */
struct svc_memory_use {
    struct svc_memory_budget *budget; /* borrowed */
    bool beside;                      /* not of the request's own: the budget of all bounds it alone */
    _Atomic uint64_t taken;
};

/* max 0: half of the memory that this process may use. */
void svc_memory_init(struct svc_memory_budget *b, uint64_t max, uint64_t each);
/* CHT_REQUEST_TOO_LARGE: the request (not `beside`) would pass its bound (or the whole budget); CHT_OVERLOADED: all of them theirs. Then nothing is
 * booked. */
enum cht_rc svc_memory_take(struct svc_memory_use *u, uint64_t bytes, struct cht_err *err);
/* The same without an error, and it is not counted as a refusal: for what can do with less. */
bool svc_memory_try(struct svc_memory_use *u, uint64_t bytes);
void svc_memory_give(struct svc_memory_use *u, uint64_t bytes);
/* Gives back all that is still booked. */
void svc_memory_end(struct svc_memory_use *u);
