/* mode_queue: queue-drain. Shows the head of a queue, or takes it: the pairs and their values, each to one caller only (the
 * caller of this layer runs the deleting commit). */
#include "reduce/modes_int.h"

static const char *const names[] = {"queue-drain", NULL};
const struct reduce_mode reduce_mode_queue = {.names = names, .kind = REDUCE_QUEUE};
