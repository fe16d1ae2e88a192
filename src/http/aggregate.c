/* aggregate: the aggregates of /reduce, and the stored procedure. */
#include "http/handlers.h"
#include "http/reply.h"

void aggregate_get(struct request *r) { reply_fail(r, CHT_UNKNOWN_MODE, "not yet"); }
void lm_smooth(struct request *r) { reply_fail(r, CHT_UNKNOWN_MODE, "not yet"); }
