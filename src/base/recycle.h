/* recycle: memory that is kept and used again hides a use after its end: the bytes are somebody else's by then and the sanitizer sees
 * nothing. Under AddressSanitizer nothing is kept (CHT_RECYCLE), and what must stay where it is cannot be touched meanwhile.
 */
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define CHT_RECYCLE false
/* From now on nobody has business in these n bytes; they are in use again. */
#define CHT_UNUSED(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define CHT_USED(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#else
#define CHT_RECYCLE true
#define CHT_UNUSED(p, n) ((void)(p), (void)(n))
#define CHT_USED(p, n) ((void)(p), (void)(n))
#endif
