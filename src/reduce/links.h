/* links: for every counts payload under a prefix its k most related ones, exact, found by comparing all with all; kept as pairs.
 *
 *   link:<metric>:<name>      the links of <name>: see below. metric: cosine, jaccard, pmi
 *   linking:<metric>:<name>   those of a run that is under way, or was cut off
 *   linkrun:<metric>          how far it is, and of what
 *
 *   payload   version=1 u8 | n u16 | n x (length u16, name, weight f32), best first, ties by name; big-endian
 *
 * One run:  survey -> { rows -> links -> commit with how far it is } ... -> switch
 *   survey   reads all once: a digest of names and payloads, the sizes, and for pmi how often each token was counted
 *   rows     a block of contexts in byte order; beside them the other side, all of it or block after block if it does not fit
 *   switch   one atomic commit: what was under link:<metric>:<prefix> goes, the new ones get their names. If it does not fit the memory: in several
 *            (move.h), with the first of which the old ones go, and reduce_links_read finds all of the new ones. On a store of other machines more old ones
 *            than a commit takes away (move.h) go before that, page by page, after a commit from which on reduce_links_read finds all of the new ones
 * What goes must be links: a pair under these names with any other value, or none, is not deleted, and the run fails (CHT_NAMES_TAKEN).
 * Readers see the old links or the new ones. A run that was cut off leaves the old ones alone; the same run again over the same data (by the
 * digest) goes on after the last commit, any other begins anew.
 *
 * A pair whose value is no counts payload is passed over and counted, one without a value passed over; what links and matrices keep
 * is no context of anything. How scores are defined: README.md.
 *
 * Threads: any; runs of one database and metric must not overlap in a process (the caller's care); those of other processes wait for each other
 * (REDUCE_LINKS_LOCK). Blocks.
 */
#pragma once

#include "reduce/aggregate.h"

#define REDUCE_LINKS "link:"
#define REDUCE_LINKING "linking:"
#define REDUCE_LINKRUN "linkrun:"
#define REDUCE_LINKS_LOCK "links" /* cht_store_lock: of links and of matrices */
#define REDUCE_LINKS_K_DEFAULT 20u
#define REDUCE_LINKS_K_MAX 1000u
#define REDUCE_LINKS_MIN_DEFAULT 0.1
#define REDUCE_LINKS_NAME_EXTRA 16u /* a name is at most CHT_NAME_MAX less that */
#define REDUCE_LINKS_THREADS_MAX 16u

struct reduce_links_config {
    struct cht_str prefix; /* whose links */
    struct cht_str to;     /* among which; looked at if has_to, else the prefix */
    bool has_to;
    enum reduce_metric metric;
    unsigned k;       /* 1 to REDUCE_LINKS_K_MAX */
    double min;       /* 0 to 1: a link weighs at least that, and more than 0 */
    unsigned threads; /* 0: the cores of the machine */
    uint64_t
        memory_max; /* 0: REDUCE_MEMORY_DEFAULT; what is read in a scan, and the store's own memory of a commit, come on top */
    struct reduce_progress *progress; /* NULL: not wanted */
    /* NULL: nobody is told. On the caller's thread, at the begin of each phase ("survey", "links", "switch") and after each commit. */
    void (*say)(void *ctx, const char *phase, uint64_t done, uint64_t total);
    void *say_ctx;
    enum cht_rc (*book)(void *ctx, uint64_t bytes, struct cht_err *err); /* as in struct reduce_params */
    void (*unbook)(void *ctx, uint64_t bytes);
    void *book_ctx;
    _Atomic bool *cancel; /* NULL: never */
};

struct reduce_links_result {
    uint64_t contexts, links; /* that have a result; in all of them */
    uint64_t malformed,
        too_long;     /* passed over: no counts payload; a name that leaves no room for the prefix */
    uint64_t resumed; /* contexts that an earlier run had done */
    uint64_t compared,
        pruned; /* pairs of contexts whose score was computed; that could not be among the best, by a bound of it. After a failure: so far */
};

/* CHT_INVALID_ARGUMENT, CHT_CANCELLED, CHT_NO_MEMORY (memory_max), CHT_CORRUPT, and what scans and commits return. */
enum cht_rc reduce_links_run(struct cht_store *s, const struct reduce_links_config *cfg,
                             struct reduce_links_result *result, struct cht_err *err);
/* "cosine", "jaccard", "pmi"; -1 if it is none. */
int reduce_links_metric(const char *p, size_t n);
const char *reduce_links_metric_name(enum reduce_metric m);
/* The value of the pair link:<metric>:<name>: of the old links until the switch, from then on of the new ones, also while they still get their names.
 * CHT_PAIR_NOT_FOUND, and as cht_store_pair_value. */
enum cht_rc reduce_links_read(struct cht_store *s, struct cht_str name, struct cht_buf *out, uint32_t *size,
                              struct cht_err *err);
/* Is there any list under link:<metric>:<prefix>, or do new ones get their names? */
enum cht_rc reduce_links_any(struct cht_store *s, struct cht_str prefix, bool *any, struct cht_err *err);
/* Is it a name that links and matrices are kept under? */
bool reduce_links_own(struct cht_str name);
/* Are all values under a prefix ours, so that they may be deleted? CHT_NAMES_TAKEN names a pair that has another one, or none; CHT_CORRUPT one that cannot be
 * read; CHT_CANCELLED. is_ours is shown whole values. */
enum cht_rc reduce_links_check(struct cht_store *s, struct cht_str prefix,
                               bool (*is_ours)(struct cht_str value), const _Atomic bool *cancel,
                               struct cht_err *err);
/* Is it a whole payload of links, and nothing more? */
bool reduce_links_payload(struct cht_str value);
/* A weight as text: the shortest that reads back as the same float. Room: REDUCE_DOUBLE_TEXT. Returns the characters. */
size_t reduce_links_put_weight(char *out, float v);

/* The next entry of a payload's list: *at (0: the head is read first) goes on, *left is how many there are after it. False: the end, or
 * malformed: *malformed says which. */
struct reduce_link {
    struct cht_str name; /* borrowed from the payload */
    float weight;
};
bool reduce_links_next(const uint8_t *p, size_t n, size_t *at, uint32_t *left, struct reduce_link *out,
                       bool *malformed);
