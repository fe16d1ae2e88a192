/* alloc: the heap, with a place for tests to make it fail (alloc.h). */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static _Atomic int64_t countdown; /* allocations until the failing one; 0: not armed */
static _Atomic bool failing;      /* every allocation fails from here on */
static _Atomic bool stay;         /* ... is wanted once the failing one was reached */
static _Atomic uint64_t failures;

static bool must_fail(void)
{
    bool fail = atomic_load_explicit(&failing, memory_order_relaxed);
    if (!fail && atomic_load_explicit(&countdown, memory_order_relaxed) > 0 &&
        atomic_fetch_sub_explicit(&countdown, 1, memory_order_relaxed) == 1) {
        fail = true;
        atomic_store_explicit(&failing, atomic_load_explicit(&stay, memory_order_relaxed),
                              memory_order_relaxed);
    }
    if (fail)
        atomic_fetch_add_explicit(&failures, 1, memory_order_relaxed);
    return fail;
}

void *cht_malloc(size_t n) { return must_fail() ? NULL : malloc(n > 0 ? n : 1); }

void *cht_calloc(size_t count, size_t size)
{
    size_t n;
    if (__builtin_mul_overflow(count, size, &n))
        return NULL; /* calloc says the same, but the address sanitizer's stops the program */
    return must_fail() ? NULL : calloc(1, n > 0 ? n : 1);
}

void *cht_realloc(void *p, size_t n) { return must_fail() ? NULL : realloc(p, n > 0 ? n : 1); }

void *cht_aligned_alloc(size_t align, size_t n)
{
    if (n > SIZE_MAX - align)
        return NULL;
    return must_fail() ? NULL : aligned_alloc(align, (n + align - 1) / align * align);
}

char *cht_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = cht_malloc(n);
    if (p != NULL)
        memcpy(p, s, n);
    return p;
}

void cht_free(void *p) { free(p); }

void cht_alloc_fail_at(uint64_t n, bool forever)
{
    atomic_store_explicit(&failing, false, memory_order_relaxed);
    atomic_store_explicit(&stay, forever, memory_order_relaxed);
    atomic_store_explicit(&failures, 0, memory_order_relaxed);
    atomic_store_explicit(&countdown, (int64_t)n, memory_order_relaxed);
}

uint64_t cht_alloc_failures(void) { return atomic_load_explicit(&failures, memory_order_relaxed); }
