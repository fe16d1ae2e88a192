/* pages: rows in order, some at a time: of one shard as they are, or of a class of buckets (map.h), which is one shard or several.
 *
 * Of a class it does not matter whether its shard is divided between two pages: the next one is put together from both.
 */
#pragma once

#include "store/rados/rdb.h"

#define CHT_PAGE_ROWS_MAX 1024u /* an OSD gives no more at once */

struct cht_page_row {
    struct cht_str name, value; /* borrowed from the page */
};
struct cht_page {
    struct cht_page_row *rows; /* owned, with bytes */
    size_t n;
    uint8_t *bytes;
    size_t size; /* of bytes */
    bool more;   /* then there is a row at least */
};
struct cht_page_wanted {
    unsigned shard, level; /* the class */
    const char *after;     /* a row's name, exclusive; "": from the start */
    const char *prefix;    /* of rows' names, which are P or K rows */
    unsigned rows;         /* at most, of each shard */
};
/* Blocks for a trip. Of a transaction that is committed all is seen or nothing. CHT_DATABASE_DROPPED, CHT_TIMEOUT, CHT_NO_MEMORY, ... The
 * caller frees *out in any case. */
enum cht_rc cht_page_read(struct cht_rdb *db, const struct cht_page_wanted *want, struct cht_page *out,
                          struct cht_err *err);
/* Of one shard, whatever its E says, rows of any kind. For split.c. */
struct cht_raw_wanted {
    unsigned shard;
    const char *after, *prefix;
    unsigned rows;
};
enum cht_rc cht_page_raw(struct cht_rdb *db, const struct cht_raw_wanted *want, struct cht_page *out,
                         struct cht_err *err);
/* The same without waiting: ask, then answer, which is to be called in any case. *e: what E said, zeros if it cannot be read. */
struct cht_page_asked {
    struct cht_call call;
    rados_omap_iter_t rows, state; /* state: E and D */
    unsigned char more;
    int rows_rc, state_rc;
};
void cht_page_ask(struct cht_rdb *db, const struct cht_raw_wanted *want, struct cht_page_asked *a);
enum cht_rc cht_page_answer(struct cht_rdb *db, struct cht_page_asked *a, struct cht_epoch *e,
                            struct cht_page *out, struct cht_err *err);
/* All pages, one after the other, from want->after on; fn ends it with what is not CHT_OK. The page is freed after fn. */
typedef enum cht_rc cht_page_fn(void *ctx, const struct cht_page *page, struct cht_err *err);
enum cht_rc cht_page_each(struct cht_rdb *db, const struct cht_page_wanted *want, cht_page_fn *fn, void *ctx,
                          struct cht_err *err);
enum cht_rc cht_page_each_raw(struct cht_rdb *db, const struct cht_raw_wanted *want, cht_page_fn *fn,
                              void *ctx, struct cht_err *err);
void cht_page_free(struct cht_page *p);
/* The name of the last row of a page that has one, with NUL. */
enum cht_rc cht_page_last(const struct cht_page *p, struct cht_buf *out, struct cht_err *err);
