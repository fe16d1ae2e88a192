/* check_counts: the counters of a shard against its rows. See check.h. */
#include "store/rados/check.h"

#include "base/alloc.h"

#include <inttypes.h>
#include <string.h>

#define GROUPS_AT_ONCE 256u
#define WRONG_MAX 16u

struct group { /* names that begin alike, up to their first or second ':' */
    size_t n;  /* 0: none is open */
    uint64_t pairs;
    uint8_t prefix[CHT_NAME_MAX];
};
struct wrong {
    char text[CHT_CHECK_TEXT];
    uint64_t pairs;
    int64_t says;
};
struct counts {
    struct cht_check *c;
    uint64_t pairs, values, bytes, ends, times; /* seen; times: T rows */
    uint64_t groups;                            /* that were closed */
    struct group open[2];
    struct cht_check_want w[GROUPS_AT_ONCE];
    uint64_t seen[GROUPS_AT_ONCE]; /* by who */
    int64_t says[GROUPS_AT_ONCE];
    size_t at[GROUPS_AT_ONCE]; /* where the name of the row begins in bytes */
    size_t waiting;
    struct cht_buf bytes_of; /* owned: the names of the rows that wait */
    struct wrong wrong[WRONG_MAX];
    uint64_t wrongs;
    uint64_t rows;             /* counters of pairs that are not zero */
    int64_t kept, generations; /* what Nl says, and all M rows together */
    uint64_t changes, unread;  /* bytes of L rows that are there; how many of them cannot be read */
    int64_t total, live, bytes_low, bytes_q, ending; /* what C, Nv, Nb, Nq and Ne say */
};

static void take_said(void *ctx, size_t who, struct cht_str value)
{
    struct counts *k = ctx;
    k->says[who] = cht_row_number(value);
}

/* Asks for the counters of the groups that wait. */
static enum cht_rc compare(struct counts *k, struct cht_err *err)
{
    for (size_t i = 0; i < k->waiting; i++) {
        size_t end = i + 1 < k->waiting ? k->at[i + 1] : k->bytes_of.len;
        k->w[i] = (struct cht_check_want){{k->bytes_of.data + k->at[i], end - k->at[i]}, i};
        k->says[i] = 0;
    }
    enum cht_rc rc = cht_check_rows(k->c, k->w, k->waiting, take_said, k, err);
    for (size_t i = 0; rc == CHT_OK && i < k->waiting; i++) {
        size_t who = k->w[i].who;
        if (k->says[who] == (int64_t)k->seen[who])
            continue;
        if (k->wrongs < WRONG_MAX) {
            struct wrong *w = &k->wrong[k->wrongs];
            (void)cht_check_text(w->text, (struct cht_str){k->w[i].name.p + 1, k->w[i].name.n - 1});
            w->pairs = k->seen[who];
            w->says = k->says[who];
        }
        k->wrongs++;
    }
    k->waiting = 0;
    k->bytes_of.len = 0;
    return rc;
}

static enum cht_rc close_group(struct counts *k, unsigned which, struct cht_err *err)
{
    struct group *g = &k->open[which];
    if (g->n == 0)
        return CHT_OK;
    size_t need = k->bytes_of.len + 1 + 2 * g->n;
    enum cht_rc rc = need > k->bytes_of.cap ? cht_buf_reserve(&k->bytes_of, 2 * need, err) : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    k->at[k->waiting] = k->bytes_of.len;
    k->seen[k->waiting++] = g->pairs;
    k->bytes_of.len +=
        cht_row_of_name(k->bytes_of.data + k->bytes_of.len, 'C', (struct cht_str){g->prefix, g->n});
    k->groups++;
    g->n = 0;
    g->pairs = 0;
    return k->waiting == GROUPS_AT_ONCE ? compare(k, err) : CHT_OK;
}

/* Names come in order: a group ends when a name does not begin like it. */
static enum cht_rc count_name(struct counts *k, struct cht_str name, struct cht_err *err)
{
    size_t lengths[3];
    unsigned n = cht_row_counted(name, lengths);
    enum cht_rc rc = CHT_OK;
    k->pairs++;
    for (unsigned i = 0; i < 2 && rc == CHT_OK; i++) {
        struct group *g = &k->open[i];
        size_t len = i + 1 < n ? lengths[i + 1] : 0;
        if (g->n != len || memcmp(g->prefix, name.p, len) != 0)
            rc = close_group(k, i, err);
        if (rc == CHT_OK && len > 0) {
            memcpy(g->prefix, name.p, len);
            g->n = len;
            g->pairs++;
        }
    }
    return rc;
}

static enum cht_rc count_page(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    struct counts *k = ctx;
    uint8_t *name = cht_malloc(CHT_ROW_NAME_MAX);
    enum cht_rc rc =
        name == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the counters of a shard") : CHT_OK;
    for (size_t i = 0; i < page->n && rc == CHT_OK; i++) {
        struct cht_str row = page->rows[i].name;
        struct cht_row r;
        uint32_t bucket;
        if (!cht_row_bucket_of(row, &bucket)) /* check_row tells it: no write has counted it */
            continue;
        if (row.p[0] == 'P')
            rc = count_name(k, (struct cht_str){name, cht_row_unescape(name, row.p + 1, row.n - 1)}, err);
        if (!cht_row_read(page->rows[i].value.p, page->rows[i].value.n, &r))
            continue;
        k->ends += row.p[0] == 'P' && r.ends != 0;
        if (cht_row_live(&r)) {
            k->values++;
            k->bytes += r.len;
        }
    }
    cht_free(name);
    return rc;
}

static void take_counter(struct counts *k, const struct cht_page_row *row)
{
    int64_t number = cht_row_number(row->value);
    if (row->name.n == 1)
        k->total = number;
    else if (row->name.p[0] == 'C')
        k->rows += number != 0;
    else if (row->name.p[1] == 'v')
        k->live = number;
    else if (row->name.p[1] == 'q')
        k->bytes_q = number;
    else if (row->name.p[1] == 'l')
        k->kept = number;
    else if (row->name.p[1] == 'e')
        k->ending = number;
    else
        k->bytes_low = number;
}

static enum cht_rc take_counters(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    (void)err;
    for (size_t i = 0; i < page->n; i++)
        take_counter(ctx, &page->rows[i]);
    return CHT_OK;
}

/* How many counters of pairs there are, and what the totals say; kind: "C" or "N". */
static enum cht_rc read_counters(struct counts *k, const char *kind, struct cht_err *err)
{
    const struct cht_raw_wanted w = {k->c->shard, "", kind, CHT_PAGE_ROWS_MAX};
    return cht_page_each_raw(k->c->db, &w, take_counters, k, err);
}

static void tell_changes(struct counts *k)
{
    if (k->unread > 0)
        cht_check_found(k->c, "%" PRIu64 " rows of changes cannot be read", k->unread);
    if (k->kept != k->generations)
        cht_check_found(k->c, "changes of %" PRId64 " bytes, and their counter says %" PRId64, k->generations,
                        k->kept);
    if (k->changes > (uint64_t)(k->generations > 0 ? k->generations : 0))
        cht_check_found(k->c, "rows of changes have %" PRIu64 " bytes, and their generations say %" PRId64,
                        k->changes, k->generations);
}

/* Nothing has changed meanwhile: what differs is wrong. */
static void tell(struct counts *k)
{
    struct cht_check *c = k->c;
    int64_t bytes = k->bytes_q * 65536 + k->bytes_low;
    for (size_t i = 0; i < k->wrongs && i < WRONG_MAX; i++)
        cht_check_found(c, "%" PRIu64 " pairs under \"%s\", and their counter says %" PRId64,
                        k->wrong[i].pairs, k->wrong[i].text, k->wrong[i].says);
    if (k->wrongs > WRONG_MAX)
        cht_check_found(c, "%" PRIu64 " more counters are wrong", k->wrongs - WRONG_MAX);
    if (k->wrongs == 0 && k->rows > k->groups)
        cht_check_found(c, "%" PRIu64 " counters are of prefixes under which nothing is",
                        k->rows - k->groups);
    if (k->total != (int64_t)k->pairs)
        cht_check_found(c, "%" PRIu64 " pairs, and their counter says %" PRId64, k->pairs, k->total);
    if (k->ending != (int64_t)k->ends)
        cht_check_found(c, "%" PRIu64 " pairs end, and their counter says %" PRId64, k->ends, k->ending);
    if (k->times != k->ends)
        cht_check_found(c, "%" PRIu64 " pairs end, and %" PRIu64 " rows say when", k->ends, k->times);
    if (k->live != (int64_t)k->values)
        cht_check_found(c, "%" PRIu64 " values, and their counter says %" PRId64, k->values, k->live);
    if (bytes != (int64_t)k->bytes)
        cht_check_found(c, "values of %" PRIu64 " bytes, and their counter says %" PRId64, k->bytes, bytes);
    tell_changes(k);
}

/* The version that the shard's object has now. */
static enum cht_rc version_of(struct cht_check *c, uint64_t *version, struct cht_err *err)
{
    char object[CHT_LINK_OBJECT_MAX];
    struct cht_call call = cht_call_read();
    int there = 0;
    cht_rdb_shard_name(object, c->shard);
    rados_read_op_stat(call.r, NULL, NULL, &there);
    cht_call_start(&call, c->db->io, object);
    int r = cht_call_wait_version(&call, version);
    return r < 0 ? cht_rdb_rc(c->db, r, object, err) : CHT_OK;
}

static enum cht_rc count_times(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    struct counts *k = ctx;
    (void)err;
    k->times += page->n;
    return CHT_OK;
}

static enum cht_rc take_generations(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    struct counts *k = ctx;
    (void)err;
    for (size_t i = 0; i < page->n; i++)
        k->generations += cht_row_number(page->rows[i].value);
    return CHT_OK;
}

static enum cht_rc take_changes(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    struct counts *k = ctx;
    struct cht_changed c;
    (void)err;
    for (size_t i = 0; i < page->n; i++) {
        k->unread += !cht_row_changed_read(page->rows[i].name, page->rows[i].value, &c);
        k->changes += page->rows[i].name.n + page->rows[i].value.n;
    }
    return CHT_OK;
}

/* The changes that are kept (cut.h). */
static enum cht_rc count_changes(struct counts *k, struct cht_err *err)
{
    struct cht_raw_wanted w = {k->c->shard, "", "M", CHT_PAGE_ROWS_MAX};
    enum cht_rc rc = cht_page_each_raw(k->c->db, &w, take_generations, k, err);
    w = (struct cht_raw_wanted){k->c->shard, "", "L", CHT_PAGE_ROWS_MAX};
    return rc == CHT_OK ? cht_page_each_raw(k->c->db, &w, take_changes, k, err) : rc;
}

static enum cht_rc count(struct counts *k, struct cht_err *err)
{
    enum cht_rc rc = cht_check_pages(k->c, "P", count_page, k, err);
    for (unsigned i = 0; i < 2 && rc == CHT_OK; i++)
        rc = close_group(k, i, err);
    if (rc == CHT_OK)
        rc = compare(k, err);
    if (rc == CHT_OK)
        rc = cht_check_pages(k->c, "K", count_page, k, err);
    if (rc == CHT_OK)
        rc = cht_check_pages(k->c, "T", count_times, k, err);
    if (rc == CHT_OK)
        rc = count_changes(k, err);
    if (rc == CHT_OK)
        rc = read_counters(k, "C", err);
    return rc == CHT_OK ? read_counters(k, "N", err) : rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_check_counters(struct cht_check *c, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    uint64_t before = 0, after = 1;
    struct cht_check now = *c;
    for (unsigned i = 0; i < CHT_CHECK_TRIES && rc == CHT_OK && before != after; i++) {
        struct counts *k = cht_calloc(1, sizeof *k);
        if (k == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the counters of a shard");
        k->c = &now;
        now.map = cht_rdb_map(c->db);
        rc = version_of(&now, &before, err);
        if (rc == CHT_OK)
            rc = count(k, err);
        if (rc == CHT_OK)
            rc = version_of(&now, &after, err);
        if (rc == CHT_OK && before == after && now.map == cht_rdb_map(c->db))
            tell(k);
        else
            after = before + 1;
        cht_buf_free(&k->bytes_of);
        cht_free(k);
    }
    if (rc == CHT_OK && before != after && c->out->notice != NULL) {
        char what[96];
        (void)snprintf(what, sizeof what, "s.%u is written to: its counters were not compared", c->shard);
        c->out->notice(c->out->ctx, c->db->name, what);
    }
    return rc;
}
