/* check: is what the rows of a database say true? (cht_rados_check.) It goes on beside servers that write.
 *
 * A shard is gone through twice, names and then keys, a page at a time:
 *   - a row can be read, its name as well, and lies where its bucket belongs (R3);
 *   - a value has the sum that its row says; a long one is read from its object;
 *   - a name has a value exactly if the row of its key says so (R1, R2).
 * Two rows that were read one after the other may disagree because somebody has written between: both are then read again by one operation,
 * and what that says counts. An object that is not as its row says counts if the row is still the same after it was read.
 *
 * check_counts.c: the counters (W2) are held against what was seen, if the version of the shard's object says that nothing has changed from
 * the first page to the last; it is tried CHT_CHECK_TRIES times.
 */
#pragma once

#include "store/rados/pages.h"

#define CHT_CHECK_TRIES 3u
#define CHT_CHECK_TEXT 200u

struct cht_check {
    struct cht_rados_check *out; /* the caller's */
    struct cht_rdb *db;
    const struct cht_map *map; /* as it was when the shard was begun */
    unsigned shard;
};
/* where: "default s.3"; what: printf. */
void cht_check_found(struct cht_check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A name or prefix for people, into CHT_CHECK_TEXT bytes: what is no letter in hexadecimal, a long one cut. */
const char *cht_check_text(char *out, struct cht_str name);

/* Rows of one shard, by name, read by one operation: fn for each that is there, with its `who`. Sorts w. */
struct cht_check_want {
    struct cht_str name;
    size_t who;
};
enum cht_rc cht_check_rows(struct cht_check *c, struct cht_check_want *w, size_t n,
                           void (*fn)(void *ctx, size_t who, struct cht_str value), void *ctx,
                           struct cht_err *err);
/* All pages of the shard's rows of a kind, "P" or "K". */
enum cht_rc cht_check_pages(struct cht_check *c, const char *kind, cht_page_fn *fn, void *ctx,
                            struct cht_err *err);
/* The counters of a shard. CHT_OK also if they could not be compared, after a notice. */
enum cht_rc cht_check_counters(struct cht_check *c, struct cht_err *err);
