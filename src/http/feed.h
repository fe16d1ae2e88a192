/* feed: a stream whose text is made by a job that runs on for as long as it takes, also after its client has gone (until
 * it looks at `cancel`). The job and the stream each hold the feed; it goes with the last of them.
 */
#pragma once

#include "http/stream.h"

#include "os/thread.h"

struct feed {
    struct cht_mutex mu;
    struct out text;       /* guarded by mu: not yet taken */
    bool done;             /* guarded by mu */
    bool waiting;          /* guarded by mu: the stream wants to be woken */
    struct stream *stream; /* guarded by mu: NULL when the client has gone */
    unsigned refs;         /* guarded by mu */
    _Atomic bool cancel;
    struct server *srv;
    struct database *db; /* held */
    struct cht_task task;
    void (*work)(struct feed *f); /* on a job thread; appends with feed_put */
    uint64_t args[4];             /* the job's */
    uint64_t count;               /* the job's: lines */
};

/* Answers r with a feed whose job runs `work`; false after an error was answered. */
bool feed_begin(struct request *r, void (*work)(struct feed *f), const uint64_t args[4]);
/* Appends whole lines (of the job). */
void feed_put(struct feed *f, const struct out *lines);
