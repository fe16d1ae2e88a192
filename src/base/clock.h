/* clock: the only reader of the clock. */
#pragma once

#include <stdint.h>

uint64_t cht_now_ns(void);  /* monotonic */
uint64_t cht_wall_ns(void); /* since 1970, UTC; may jump */
void cht_sleep_ns(uint64_t ns);
