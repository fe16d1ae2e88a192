/* doubles: numbers of a score in the text of an answer: all digits that a double needs; what is not finite is null. */
#pragma once

#include <math.h>

#include "reduce/text.h"
#include "service/out.h"

static inline void http_put_double(struct svc_out *o, double v)
{
    if (!isfinite(v))
        svc_out_text(o, "null");
    else if (svc_out_room(o, REDUCE_DOUBLE_TEXT))
        o->n += reduce_put_double(o->p + o->n, v);
}

/* member: with its colon */
static inline void http_put_perplexity(struct svc_out *o, const char *member, double v)
{
    svc_out_text(o, member);
    http_put_double(o, v);
}
