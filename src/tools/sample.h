/* sample: what /metrics says at one moment, and the rates between two of them. */
#pragma once

#include "cheetah/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOOL_SAMPLE_ROUTES 96u
#define TOOL_SAMPLE_DATABASES 64u
#define TOOL_SAMPLE_BUCKETS 24u
#define TOOL_SAMPLE_ORDERS 9u /* 1 to 8 */

/* Of the server as a whole; the order is that of the table in sample.c. */
enum tool_gauge {
    TOOL_G_READY,
    TOOL_G_CONNECTIONS,
    TOOL_G_STREAMS,
    TOOL_G_RESIDENT,
    TOOL_G_FILES,
    TOOL_G_UPTIME,
    TOOL_G_CPU,
    TOOL_G_REFUSED,
    TOOL_G_ABORTED,
    TOOL_G_STREAM_ENTRIES,
    TOOL_G_CACHE_HITS,
    TOOL_G_CACHE_MISSES,
    TOOL_G_COUNT
};
/* Of a database. */
enum tool_db_gauge {
    TOOL_D_PAIRS,
    TOOL_D_VALUES,
    TOOL_D_BYTES,
    TOOL_D_FILE_BYTES,
    TOOL_D_LOG_LIVE,
    TOOL_D_DIRTY,
    TOOL_D_COMMITS,
    TOOL_D_OPERATIONS,
    TOOL_D_GROUPS,
    TOOL_D_FSYNCS,
    TOOL_D_FSYNC_SECONDS,
    TOOL_D_CHECKPOINTS,
    TOOL_D_INSERTED,
    TOOL_D_WRITTEN,
    TOOL_D_CORRUPT,
    TOOL_D_READ_ONLY,
    TOOL_D_COUNT
};

struct tool_sample_route {
    char name[64], method[8];
    double requests, errors, bytes, seconds; /* errors: answers of 400 and over */
    double bucket[TOOL_SAMPLE_BUCKETS];      /* not over bound[i], cumulative */
};
struct tool_sample_db {
    char name[CHT_DATABASE_NAME_MAX + 1];
    double v[TOOL_D_COUNT];
};
/* Look-ups of an order: predictions, lists of best followers. */
struct tool_sample_order {
    double predictions, predictions_missed, followers, followers_missed;
};
struct tool_sample {
    uint64_t taken_ns;
    double v[TOOL_G_COUNT];
    double bound[TOOL_SAMPLE_BUCKETS]; /* seconds; the last is infinite */
    size_t bounds, routes, dbs;
    struct tool_sample_route route[TOOL_SAMPLE_ROUTES];
    struct tool_sample_db db[TOOL_SAMPLE_DATABASES];
    struct tool_sample_order order[TOOL_SAMPLE_ORDERS];
};

/* Reads the page; false if it is none of a cheetah-db server. Routes and databases beyond the room are left out. */
bool tool_sample_parse(struct tool_sample *s, const char *text, size_t n);
/* now - before; routes and databases are those of `now`, without what does not count upwards (pairs, bytes, ...), which keep
 * the value they have now. */
void tool_sample_since(struct tool_sample *out, const struct tool_sample *before,
                       const struct tool_sample *now);
/* The time that a part q of the requests of a route (NULL: all) did not exceed, in seconds; 0 if there were none. */
double tool_sample_quantile(const struct tool_sample *s, const struct tool_sample_route *r, double q);
const char *tool_sample_gauge_name(unsigned i);
const char *tool_sample_db_name(unsigned i);
bool tool_sample_gauge_counts(unsigned i);
bool tool_sample_db_counts(unsigned i);
