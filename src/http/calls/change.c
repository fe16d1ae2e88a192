/* change: see change.h. */
#include "http/calls/change.h"

#include "base/alloc.h"

static enum cht_rc book(struct lm_change *change, uint64_t bytes, struct cht_err *err)
{
    struct http_change *c = (struct http_change *)(void *)change;
    if (bytes <= c->booked)
        return CHT_OK;
    enum cht_rc rc = svc_memory_take(c->memory, bytes - c->booked, err);
    c->booked = rc == CHT_OK ? bytes : c->booked;
    return rc;
}

static bool take_delta(const json_t *pair, struct lm_delta *d)
{
    const json_t *token = json_array_get(pair, 0), *by = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_integer(token) || !json_is_integer(by) ||
        json_integer_value(token) < 0 || json_integer_value(token) > (json_int_t)UINT32_MAX ||
        json_integer_value(by) < -(json_int_t)UINT32_MAX || json_integer_value(by) > (json_int_t)UINT32_MAX)
        return false;
    *d = (struct lm_delta){.token = (uint32_t)json_integer_value(token), .by = json_integer_value(by)};
    return true;
}

/* -------------------------------------------------------------------------------------------------------------------- */

struct http_change *http_change_add(const json_t *o, const char **why)
{
    const json_t *by = json_object_get(o, "by");
    *why = "\"by\" is an integer";
    if (!json_is_integer(by))
        return NULL;
    *why = NULL;
    struct http_change *c = cht_calloc(1, sizeof *c);
    if (c != NULL)
        lm_change_add(&c->change, json_integer_value(by));
    return c;
}

struct http_change *http_change_counts(const json_t *o, const char **why)
{
    const json_t *order = json_object_get(o, "order"), *list = json_object_get(o, "followers");
    *why = "\"order\" is an integer from 0 to 255, \"followers\" a list of [token,delta]";
    if (!json_is_integer(order) || json_integer_value(order) < 0 || json_integer_value(order) > UINT8_MAX ||
        !json_is_array(list))
        return NULL;
    size_t n = json_array_size(list), i = 0;
    struct http_change *c = cht_calloc(1, sizeof *c);
    struct lm_delta *d = cht_malloc((n + 1) * sizeof *d);
    while (c != NULL && d != NULL && i < n && take_delta(json_array_get(list, i), &d[i]))
        i++;
    if (c == NULL || d == NULL || i < n) {
        *why = c == NULL || d == NULL ? NULL : *why;
        cht_free(d);
        cht_free(c);
        return NULL;
    }
    lm_change_counts(&c->change, (unsigned)json_integer_value(order), d, (uint32_t)n);
    c->change.book = book;
    *why = NULL;
    return c;
}

void http_change_free(struct http_change *c)
{
    if (c == NULL)
        return;
    lm_change_fini(&c->change);
    cht_free(c);
}
