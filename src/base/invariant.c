/* invariant: says which condition did not hold, then stops the program where a debugger finds it. */
#include "base/invariant.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void cht_invariant_failed(const char *cond, const char *file, int line)
{
    (void)fprintf(stderr, "cheetah: invariant failed: %s (%s:%d)\n", cond, file, line);
    abort();
}
