/* mode_payloads: any payload, as it is. */
#include "reduce/modes_int.h"

static const char *const names[] = {"payloads", NULL};
const struct reduce_mode reduce_mode_payloads = {.names = names, .kind = REDUCE_PAYLOAD};
