/* invariant: conditions that hold unless the program itself is wrong; checked in every build, fatal. Never for
 * input, files or failing calls. */
#pragma once

_Noreturn void cht_invariant_failed(const char *cond, const char *file, int line);
#define CHT_INVARIANT(c) ((c) ? (void)0 : cht_invariant_failed(#c, __FILE__, __LINE__))
