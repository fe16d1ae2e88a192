/* past: see past.h. */
#include "store/rados/past.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "store/rados/exec.h"
#include "store/rados/pages.h"

#include <limits.h>
#include <string.h>

#define MARKS 8u /* the highest keys, one for each shard that a restore makes: put, and deleted */
static const char *const kinds[] = {"P", "K"};

static enum cht_rc damaged(const struct cht_past *p, const char *what, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_CORRUPT, "database %s: shard %u: %s", p->view.name, p->shard, what);
}

/* ---- rows ------------------------------------------------------------------------------------------------------------ */

static void begin_kind(struct cht_past *p)
{
    p->after.len = 0;
    p->more = true;
}

/* The next page with rows, of this shard or those that follow. */
static enum cht_rc turn_page(struct cht_past *p, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    p->at = 0;
    if (p->page->n > 0 && p->page->more)
        rc = cht_page_last(p->page, &p->after, err);
    cht_page_free(p->page);
    while (rc == CHT_OK && p->page->n == 0 && p->shard < CHT_MAP_MAX) {
        if (!p->more) {
            p->kind++;
            if (p->kind == 2) {
                p->kind = 0;
                p->shard = cht_map_next(p->m->map, p->shard + 1);
            }
            begin_kind(p);
            continue;
        }
        struct cht_raw_wanted want = {p->shard, p->after.len > 0 ? (const char *)p->after.data : "",
                                      kinds[p->kind], CHT_PAGE_ROWS_MAX};
        cht_page_free(p->page);
        rc = cht_page_raw(&p->view, &want, p->page, err);
        p->more = rc == CHT_OK && p->page->more;
    }
    return rc;
}

/* The value of a row, if it has one. */
static enum cht_rc give_value(struct cht_past *p, const struct cht_row *r, bool bytes, struct cht_past_op *op,
                              struct cht_err *err)
{
    *op = (struct cht_past_op){.kind = CHT_PAST_PUT, .key = r->key, .data = {r->body.p, r->body.n}};
    if ((r->flags & CHT_ROW_PARTS) != 0) {
        op->data = (struct cht_str){NULL, r->len};
        if (!bytes)
            return CHT_OK;
        enum cht_rc rc = cht_buf_reserve(&p->value, r->len, err);
        if (rc == CHT_OK)
            rc = cht_parts_read(&p->view, cht_get64(r->body.p), p->value.data, r->len, err);
        if (rc != CHT_OK)
            return rc;
        op->data.p = p->value.data;
    }
    if (bytes && cht_row_crc(r->key, op->data) != r->crc)
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: the value under key %llu does not match its checksum",
                        p->view.name, (unsigned long long)r->key);
    return CHT_OK;
}

static enum cht_rc give_name(struct cht_past *p, struct cht_str row, const struct cht_past_op *give,
                             struct cht_past_op *op, struct cht_err *err)
{
    enum cht_rc rc = cht_buf_reserve(&p->text, row.n, err);
    if (rc != CHT_OK || p->text.data == NULL)
        return rc;
    size_t n = cht_row_unescape(p->text.data, row.p + 1, row.n - 1);
    if (n == SIZE_MAX || n > CHT_NAME_MAX)
        return damaged(p, "the row of a name cannot be read", err);
    *op = *give;
    op->data = (struct cht_str){p->text.data, n};
    return CHT_OK;
}

enum { VALUE, NAME, ENDS, ALL };

/* What the row at p->at gives next. CHT_PAST_END: nothing more. */
static enum cht_rc give_row(struct cht_past *p, bool bytes, struct cht_past_op *op, struct cht_err *err)
{
    const struct cht_page_row *row = &p->page->rows[p->at];
    struct cht_row r;
    uint32_t bucket;
    if (!cht_row_bucket_of(row->name, &bucket) || !cht_row_read(row->value.p, row->value.n, &r))
        return damaged(p, "a row cannot be read", err);
    bool mine =
        cht_map_locate(p->m->map, bucket) == p->shard; /* else it has been another's since a division */
    bool ended =
        r.ends != 0 && r.ends <= p->m->when / 1000000; /* it is not there, and takes nothing with it */
    unsigned part = mine && !ended ? p->part++ : ALL;
    if (part == VALUE)
        return cht_row_live(&r) ? give_value(p, &r, bytes, op, err) : CHT_OK;
    if (part == NAME && p->kind == 0)
        return give_name(p, row->name, &(struct cht_past_op){.kind = CHT_PAST_SET, .key = r.key}, op, err);
    if (part == ENDS && p->kind == 0 && r.ends != 0)
        return give_name(p, row->name, &(struct cht_past_op){.kind = CHT_PAST_ENDS, .key = r.ends}, op, err);
    p->part = VALUE;
    p->at++;
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_past_begin(struct cht_past *p, const struct cht_moment *m, struct cht_err *err)
{
    *p = (struct cht_past){.m = m, .page = cht_calloc(1, sizeof *p->page)};
    p->view.env = m->db->env;
    p->view.io = m->io;
    p->view.io_made = UINT_MAX; /* no newer connection takes its place: that would read what is there now */
    memcpy(p->view.name, m->db->name, sizeof p->view.name);
    memcpy(p->view.uuid, m->db->uuid, sizeof p->view.uuid);
    enum cht_rc rc = cht_mutex_init(&p->view.mu, err);
    if (p->page == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup");
    if (rc == CHT_OK)
        rc = cht_leases_next(&p->view, &p->next, err);
    cht_past_rewind(p);
    return rc;
}

void cht_past_end(struct cht_past *p)
{
    if (p->page != NULL)
        cht_page_free(p->page);
    cht_free(p->page);
    cht_buf_free(&p->after);
    cht_buf_free(&p->value);
    cht_buf_free(&p->text);
    cht_mutex_fini(&p->view.mu);
}

void cht_past_rewind(struct cht_past *p)
{
    cht_page_free(p->page);
    p->at = 0;
    p->kind = p->marks = 0;
    p->part = VALUE;
    p->shard = cht_map_next(p->m->map, 0);
    begin_kind(p);
}

enum cht_rc cht_past_next(struct cht_past *p, bool bytes, struct cht_past_op *op, struct cht_err *err)
{
    static const uint8_t mark;
    enum cht_rc rc = CHT_OK;
    *op = (struct cht_past_op){0};
    if (p->marks < 2 * MARKS && p->next > 1 + p->marks / 2) {
        bool put = p->marks % 2 == 0;
        *op = (struct cht_past_op){.kind = put ? CHT_PAST_PUT : CHT_PAST_DELETE,
                                   .key = p->next - 1 - p->marks++ / 2};
        if (put)
            op->data = (struct cht_str){&mark, 1};
        return CHT_OK;
    }
    while (rc == CHT_OK && op->kind == CHT_PAST_END && p->shard < CHT_MAP_MAX) {
        if (p->at == p->page->n)
            rc = turn_page(p, err);
        if (rc == CHT_OK && p->at < p->page->n)
            rc = give_row(p, bytes, op, err);
    }
    return rc;
}
