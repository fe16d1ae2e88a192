/* router: from method and path to a handler. The table is the list of all calls; openapi/openapi.yaml describes them. */
#include "http/handlers.h"
#include "http/server.h"

#define DB PARAM(P_DB)
#define PAGE (PARAM(P_AFTER) | PARAM(P_LIMIT))

static const struct route routes[] = {
    {METHOD_GET, "/kv/", true, NULL, "/kv/{key}", kv_get, DB, false, RIGHT_READ, BODY_NONE, 0},
    {METHOD_GET, "/pairs/", true, NULL, "/pairs/{prefix}", pairs_get,
     DB | PAGE | PARAM(P_UNTIL) | PARAM(P_VALUES) | PARAM(P_REVERSE) | PARAM(P_COUNT) | PARAM(P_EXACT), false,
     RIGHT_READ, BODY_NONE, 1},
    {METHOD_PUT, "/pairs/", true, NULL, "/pairs/{pair}", pairs_put, DB, false, RIGHT_WRITE, BODY_VALUE, 2},
    {METHOD_DELETE, "/pairs/", true, NULL, "/pairs/{pair}", pairs_delete,
     DB | PARAM(P_VALUES) | PARAM(P_RECURSIVE), false, RIGHT_WRITE, BODY_NONE, 3},
    {METHOD_POST, "/kv", false, NULL, "/kv", kv_insert, DB, false, RIGHT_WRITE, BODY_VALUE, 4},
    {METHOD_GET, "/kv", false, NULL, "/kv", kv_list,
     DB | PAGE | PARAM(P_SIZE) | PARAM(P_VALUES) | PARAM(P_KEYS), false, RIGHT_READ, BODY_NONE, 5},
    {METHOD_PUT, "/kv/", true, NULL, "/kv/{key}", kv_put, DB, false, RIGHT_WRITE, BODY_VALUE, 6},
    {METHOD_DELETE, "/kv/", true, NULL, "/kv/{key}", kv_delete, DB, false, RIGHT_WRITE, BODY_NONE, 7},
    {METHOD_POST, "/batch", false, NULL, "/batch", batch_post, DB | PARAM(P_ATOMIC) | PARAM(P_RESULTS), false,
     RIGHT_WRITE, BODY_BATCH, 8},
    {METHOD_GET, "/reduce/", true, NULL, "/reduce/{mode}/{prefix}", reduce_get,
     DB | PAGE | PARAM(P_UNTIL) | PARAM(P_DECODE) | PARAM(P_SORT) | PARAM(P_TO) | PARAM(P_METRIC), false,
     RIGHT_READ, BODY_NONE, 9},
    {METHOD_POST, "/reduce/", true, NULL, "/reduce/{mode}/{prefix}", reduce_post,
     DB | PARAM(P_LIMIT) | PARAM(P_ORDERS) | PARAM(P_TOPK), false, RIGHT_WRITE, BODY_NONE, 10},
    {METHOD_GET, "/healthz", false, NULL, "/healthz", service_health, 0, true, RIGHT_OPEN, BODY_NONE, 11},
    {METHOD_GET, "/readyz", false, NULL, "/readyz", service_ready, 0, true, RIGHT_OPEN, BODY_NONE, 12},
    {METHOD_GET, "/version", false, NULL, "/version", service_version, 0, true, RIGHT_OPEN, BODY_NONE, 13},
    {METHOD_GET, "/metrics", false, NULL, "/metrics", service_metrics, 0, true, RIGHT_READ, BODY_NONE, 14},
    {METHOD_GET, "/openapi.yaml", false, NULL, "/openapi.yaml", service_openapi, 0, true, RIGHT_READ,
     BODY_NONE, 15},
    {METHOD_GET, "/databases", false, NULL, "/databases", databases_list, 0, true, RIGHT_READ, BODY_NONE, 16},
    {METHOD_GET, "/databases/", true, "", "/databases/{name}", databases_get, 0, true, RIGHT_READ, BODY_NONE,
     17},
    {METHOD_PUT, "/databases/", true, "", "/databases/{name}", databases_put, 0, true, RIGHT_ADMIN, BODY_JSON,
     18},
    {METHOD_DELETE, "/databases/", true, "", "/databases/{name}", databases_delete, PARAM(P_CONFIRM), true,
     RIGHT_ADMIN, BODY_NONE, 19},
    {METHOD_POST, "/ngrams", false, NULL, "/ngrams", ngrams_post, DB | PARAM(P_ORDER), false, RIGHT_WRITE,
     BODY_NGRAMS, 21},
    {METHOD_POST, "/predict", false, NULL, "/predict", predict_post, DB, false, RIGHT_READ, BODY_JSON, 22},
    {METHOD_POST, "/score", false, NULL, "/score", score_post, DB, false, RIGHT_READ, BODY_JSON, 23},
    {METHOD_POST, "/contexts", false, NULL, "/contexts", contexts_post, DB, false, RIGHT_READ, BODY_JSON, 24},
    {METHOD_POST, "/databases/", true, "/checkpoint", "/databases/{name}/checkpoint", databases_checkpoint, 0,
     true, RIGHT_ADMIN, BODY_NONE, 20},
    {METHOD_GET, "/databases/", true, "/backup", "/databases/{name}/backup", databases_backup, 0, true,
     RIGHT_ADMIN, BODY_NONE, 25},
};
#define ROUTES (sizeof routes / sizeof *routes)
_Static_assert(ROUTES < METRIC_ROUTES, "a metric for each route and one for what has none");

/* Is the path this route's? *rest is where what is behind the route's own path begins. */
static bool matches(const struct route *t, const char *path, size_t len, size_t *rest)
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

const struct route *router_find(const char *path, size_t len, unsigned method, const char **rest,
                                size_t *rest_len, unsigned *allowed)
{
    size_t at;
    *allowed = 0;
    *rest = path + len;
    *rest_len = 0;
    for (size_t i = 0; i < ROUTES; i++) {
        const struct route *t = &routes[i];
        if (!matches(t, path, len, &at))
            continue;
        *allowed |= t->method;
        if (t->method == method) {
            *rest = path + at;
            *rest_len = len - at;
            return t;
        }
    }
    return NULL;
}

bool router_is_reduce(const char *path, size_t len)
{
    return len >= REDUCE_PATH_LEN && memcmp(path, "/reduce/", REDUCE_PATH_LEN) == 0;
}

const struct route *router_route(unsigned index) { return index < ROUTES ? &routes[index] : NULL; }
unsigned router_count(void) { return ROUTES; }
