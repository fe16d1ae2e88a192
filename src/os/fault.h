/* fault: pages of file mappings that the disk cannot give, told instead of deadly.
 *
 * Touching a page of a mapping whose sector cannot be read, or that lies beyond the end of a file that something else has cut,
 * raises SIGBUS. For the mappings known here the handler puts a page of zeros in its place, notes it as lost and lets the
 * thread go on; any other SIGBUS is passed on to what was there before, so that a crash stays a crash.
 *
 * So a page of zeros may be what a reader has read. What it may rely on:
 *   - a page is noted as lost, and its bit in `trusted` cleared, before its zeros can be seen by anybody
 *   - it stays lost until cht_fault_found is called: whoever has read a page and then finds it not lost (cht_fault_lost), or
 *     `events` unchanged since before, has read the file's bytes
 *   - the mapping stays in its place; a page that was changed (a private copy) can be lost, too: cutting the file takes it away
 *
 * If not even a page of zeros can be had (too many pieces of mappings), the whole mapping is given up: all of it is lost.
 *
 * Threads: cht_fault_lost and cht_fault_events from any. The others: nobody touches the mapping meanwhile. The handler takes no
 * lock and waits for nobody; any number of threads may be in it at once.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cheetah/err.h"

#define CHT_FAULT_PAGE 4096u /* what the bits are about */

struct cht_fault {
    _Atomic uint64_t events;   /* how often something was lost; never goes down */
    _Atomic uint64_t *trusted; /* borrowed, may be NULL: a bit a page, cleared when it is lost */
    _Atomic(uint64_t *) lost;  /* owned: a bit a page; NULL before the first loss */
    _Atomic bool all;          /* the mapping was given up */
    uint8_t *base;             /* of the mapping */
    size_t len, lost_pages;    /* its bytes; the bits in `lost` */
    uint32_t slot;             /* in the table of mappings; 0: not in it */
};

/* Installs the handler, which the first cht_fault_add does; again if something else has put its own there. */
void cht_fault_catch(void);
/* The mapping [base, base + len) is known from here on. f: zeroed, stays where it is. CHT_NO_MEMORY. */
enum cht_rc cht_fault_add(struct cht_fault *f, uint8_t *base, size_t len, _Atomic uint64_t *trusted,
                          struct cht_err *err);
/* Around a change of the mapping or of `trusted`: between the two it is not known. show cannot fail: without memory for more
 * bits everything counts as lost if anything was. len does not shrink. */
void cht_fault_hide(struct cht_fault *f);
void cht_fault_show(struct cht_fault *f, uint8_t *base, size_t len, _Atomic uint64_t *trusted);
void cht_fault_remove(
    struct cht_fault *f); /* before the mapping goes; of one that was never added: nothing */

bool cht_fault_test(const struct cht_fault *f, uint64_t page); /* as cht_fault_lost, whatever `events` is */
/* The page shows its file again. Not for a mapping that was given up. */
void cht_fault_found(struct cht_fault *f, uint64_t page);

static inline uint64_t cht_fault_events(const struct cht_fault *f)
{
    atomic_thread_fence(memory_order_acquire); /* what was read before this call was read before the count */
    return atomic_load_explicit(&f->events, memory_order_relaxed);
}

static inline bool cht_fault_lost(const struct cht_fault *f, uint64_t page)
{
    return __builtin_expect(cht_fault_events(f) != 0, 0) && cht_fault_test(f, page);
}
