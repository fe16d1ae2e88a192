/* literal: text that is known when compiling. The compiler counts it, so that nobody has to: a length that a person counted is
 * a bug that waits. Each macro takes a string literal, and refuses anything else.
 */
#pragma once

#include <string.h>

/* The text and its length: two arguments of a call. */
#define CHT_LITERAL(s) ("" s), (sizeof(s) - 1)
/* Its length. */
#define CHT_LEN(s) (sizeof("" s) - 1)
/* Copies the text to `to`, without its NUL; the place after it. */
#define CHT_PUT(to, s) ((char *)memcpy((to), "" s, sizeof(s) - 1) + (sizeof(s) - 1))
/* Are the n bytes at p this text? */
#define CHT_IS(p, n, s) ((n) == sizeof(s) - 1 && memcmp((p), "" s, sizeof(s) - 1) == 0)
/* Do they start with it? */
#define CHT_STARTS(p, n, s) ((n) >= sizeof(s) - 1 && memcmp((p), "" s, sizeof(s) - 1) == 0)
/* The same for text that ends with a NUL. */
#define CHT_BEGINS(text, s) (strncmp((text), "" s, sizeof(s) - 1) == 0)
