/* clock: the only reader of the clock. */
#pragma once

#include <stdint.h>

uint64_t cht_now_ns(void); /* monotonic */
void cht_sleep_ns(uint64_t ns);
