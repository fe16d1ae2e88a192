/* prefetch: asks for a cache line ahead of its use. A hint: any address is legal.
 *
 * gcc 12 takes a static function that does nothing but __builtin_prefetch for one without effects and drops calls of it; the
 * empty assembly is an effect. Hence no __builtin_prefetch elsewhere (tests/lint/layers.sh).
 */
#pragma once

static inline void cht_prefetch(const void *p)
{
    __builtin_prefetch(p);
    __asm__ volatile("" : : "r"(p));
}

/* Of a line that will be written. */
static inline void cht_prefetch_write(const void *p)
{
    __builtin_prefetch(p, 1);
    __asm__ volatile("" : : "r"(p));
}
