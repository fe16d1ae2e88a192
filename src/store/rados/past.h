/* past: what a database was at a moment (moment.h), as operations that make it again of an empty one.
 *
 * First the highest keys that may have been given out, so that none is given out again; then, of each shard, every value under its key and every
 * name. A second pass gives the same operations in the same order.
 *
 * Threads: one at a time.
 */
#pragma once

#include "store/rados/moment.h"

struct cht_page;

enum cht_past_kind { CHT_PAST_END, CHT_PAST_PUT, CHT_PAST_DELETE, CHT_PAST_SET, CHT_PAST_ENDS };
struct cht_past_op {
    enum cht_past_kind
        kind;     /* nothing more; a value under a key; none any more; a name leads to a key; and ends */
    uint64_t key; /* ENDS: when, ms since 1970 */
    struct cht_str data; /* the value, or the name; borrowed until the next call */
};

struct cht_past {
    const struct cht_moment *m;
    struct cht_rdb view; /* as much of a database as reading needs, of the moment */
    uint64_t next;       /* the key that was to be leased next */
    unsigned marks;      /* operations for such keys that were given */
    unsigned shard, kind;
    struct cht_page *page; /* owned */
    size_t at;
    bool more;            /* pages of this kind */
    unsigned part;        /* of the row: what it gives next, its value, its name, when it ends */
    struct cht_buf after; /* the last row's name, with NUL */
    struct cht_buf value; /* a long one */
    struct cht_buf text;  /* a name */
};
enum cht_rc cht_past_begin(struct cht_past *p, const struct cht_moment *m, struct cht_err *err);
void cht_past_end(struct cht_past *p);
/* To the first operation again. */
void cht_past_rewind(struct cht_past *p);
/* The next operation. Without `bytes` a long value is not read: data.p is NULL, data.n its length. CHT_CORRUPT: a row or value is damaged. */
enum cht_rc cht_past_next(struct cht_past *p, bool bytes, struct cht_past_op *op, struct cht_err *err);
