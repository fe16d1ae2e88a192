/* scrub: a thread that compares the files of all databases with their sums, slowly, over and over, so that a page that
 * rots is known of while there is still a backup that is good. What it finds goes to the log and into the metrics.
 * A database that is not open is looked at once a day: opened for that, and closed again.
 */
#pragma once

#include "service/dbs.h"
#include "service/log.h"

#include <stdatomic.h>

struct svc_scrub;

struct svc_scrub_stats {
    uint64_t bytes;  /* compared */
    uint64_t passes; /* over all databases */
    uint64_t bad;    /* pages that failed, again in every pass */
};

/* Not before SCRUB_PAUSE after the last pass the next begins. Borrows dbs and log. */
enum cht_rc svc_scrub_start(struct svc_dbs *dbs, struct svc_log *log, uint64_t bytes_per_second,
                            struct svc_scrub **out, struct cht_err *err);
/* Any thread. NULL: all 0. */
void svc_scrub_read_stats(const struct svc_scrub *s, struct svc_scrub_stats *out);
/* Within a fraction of a second, or when a database that it opens or closes is done; joins the thread. The figures stay. */
void svc_scrub_halt(struct svc_scrub *s); /* NULL is legal, as in the next */
void svc_scrub_stop(struct svc_scrub *s); /* halts and frees it */
