/* alloc: every heap allocation goes through here, so that tests can fail the n-th one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As malloc/calloc/realloc/free; NULL on failure. Sizes are overflow-checked. Alignment as malloc. */
void *cht_malloc(size_t n);
void *cht_calloc(size_t count, size_t size);
void *cht_realloc(void *p, size_t n);
void *cht_aligned_alloc(size_t align, size_t n); /* free with cht_free */
char *cht_strdup(const char *s);
void cht_free(void *p); /* NULL is legal */

/* Tests: the n-th allocation from now on (1 = the next) fails, and with `forever` all after it. 0 disarms. The
 * counter of injected failures tells a test whether its n was reached. Process-wide, atomic. */
void cht_alloc_fail_at(uint64_t n, bool forever);
uint64_t cht_alloc_failures(void);
