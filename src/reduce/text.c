/* text: see text.h. */
#include "reduce/text.h"

#include <stdio.h>
#include <stdlib.h>

size_t reduce_put_double(char *out, double v)
{
    char text[REDUCE_DOUBLE_TEXT];
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if (back == v || v != v)
            break;
    }
    memcpy(out, text, (size_t)n);
    return (size_t)n;
}
