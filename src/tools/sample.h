/* sample: what /metrics says at one moment, and the rates between two of them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHT_SAMPLE_ROUTES 96u
#define CHT_SAMPLE_DATABASES 64u
#define CHT_SAMPLE_BUCKETS 24u

/* Of the server as a whole; the order is that of the table in sample.c. */
enum cht_gauge {
    CHT_G_READY,
    CHT_G_CONNECTIONS,
    CHT_G_STREAMS,
    CHT_G_RESIDENT,
    CHT_G_FILES,
    CHT_G_UPTIME,
    CHT_G_CPU,
    CHT_G_REFUSED,
    CHT_G_ABORTED,
    CHT_G_STREAM_ENTRIES,
    CHT_G_COUNT
};
/* Of a database. */
enum cht_db_gauge {
    CHT_D_PAIRS,
    CHT_D_VALUES,
    CHT_D_BYTES,
    CHT_D_FILE_BYTES,
    CHT_D_LOG_LIVE,
    CHT_D_DIRTY,
    CHT_D_COMMITS,
    CHT_D_OPERATIONS,
    CHT_D_GROUPS,
    CHT_D_FSYNCS,
    CHT_D_FSYNC_SECONDS,
    CHT_D_CHECKPOINTS,
    CHT_D_INSERTED,
    CHT_D_WRITTEN,
    CHT_D_CORRUPT,
    CHT_D_READ_ONLY,
    CHT_D_COUNT
};

struct cht_sample_route {
    char name[64], method[8];
    double requests, errors, bytes, seconds; /* errors: answers of 400 and over */
    double bucket[CHT_SAMPLE_BUCKETS];       /* not over bound[i], cumulative */
};
struct cht_sample_db {
    char name[65];
    double v[CHT_D_COUNT];
};
struct cht_sample {
    uint64_t taken_ns;
    double v[CHT_G_COUNT];
    double bound[CHT_SAMPLE_BUCKETS]; /* seconds; the last is infinite */
    size_t bounds, routes, dbs;
    struct cht_sample_route route[CHT_SAMPLE_ROUTES];
    struct cht_sample_db db[CHT_SAMPLE_DATABASES];
};

/* Reads the page; false where it is none of a cheetah-db server. Routes and databases beyond the room are left out. */
bool cht_sample_parse(struct cht_sample *s, const char *text, size_t n);
/* now - before; routes and databases are those of `now`, without what does not count upwards (pairs, bytes, ...), which keep
 * the value they have now. */
void cht_sample_since(struct cht_sample *out, const struct cht_sample *before, const struct cht_sample *now);
/* The time that a part q of the requests of a route (NULL: all) did not exceed, in seconds; 0 where there were none. */
double cht_sample_quantile(const struct cht_sample *s, const struct cht_sample_route *r, double q);
const char *cht_sample_gauge_name(unsigned i);
const char *cht_sample_db_name(unsigned i);
bool cht_sample_gauge_counts(unsigned i);
bool cht_sample_db_counts(unsigned i);
