/* router: from method and path to a route. */
#include "http/server.h"

/* Is the path this route's? *rest is where what is after the route's own path begins. */
static bool matches(const struct http_route *t, const char *path, size_t len, size_t *rest)
{
    size_t n = strlen(t->path);
    *rest = n;
    if (!t->rest)
        return len == n && memcmp(path, t->path, n) == 0;
    if (len < n || memcmp(path, t->path, n) != 0)
        return false;
    if (t->suffix == NULL)
        return true;
    size_t end = strlen(t->suffix);
    if (end == 0)
        return memchr(path + n, '/', len - n) == NULL;
    return len - n > end && memcmp(path + len - end, t->suffix, end) == 0 &&
           memchr(path + n, '/', len - n - end) == NULL;
}

const struct http_route *http_router_find(const struct http_routes *routes, const char *path, size_t len,
                                          unsigned method, const char **rest, size_t *rest_len,
                                          unsigned *allowed)
{
    size_t at;
    *allowed = 0;
    *rest = path + len;
    *rest_len = 0;
    for (size_t i = 0; i < routes->n; i++) {
        const struct http_route *t = &routes->v[i];
        if (!matches(t, path, len, &at))
            continue;
        *allowed |= t->methods != NULL ? t->methods(path + at, len - at) : t->method;
        if (t->method == method) {
            *rest = path + at;
            *rest_len = len - at;
            return t;
        }
    }
    return NULL;
}
