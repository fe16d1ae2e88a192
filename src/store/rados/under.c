/* under: see under.h. */
#include "store/rados/under.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "store/rados/pages.h"

#include <string.h>

#define TRIES 12u /* some seconds */

struct cht_under {
    struct cht_buf names; /* of rows: u32 length | bytes */
    size_t most;          /* of them, bytes */
    bool listed;
    unsigned tries;
};

static enum cht_rc no_memory(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the names under a prefix");
}

/* How many names the counters say. */
static enum cht_rc add_counters(struct cht_rowset *s, struct cht_str row, uint64_t *pairs,
                                struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (unsigned i = cht_map_next(s->map, 0); i < CHT_MAP_MAX; i = cht_map_next(s->map, i + 1)) {
        struct cht_str value;
        size_t at;
        enum cht_rc one = cht_rowset_get(s, i, row, &value, &at);
        int64_t n = one == CHT_OK ? cht_row_number(value) : 0;
        if (one == CHT_NO_MEMORY)
            return no_memory(err);
        if (n > (int64_t)CHT_ROWSET_STEPS_MAX)
            return CHT_FAIL(err, CHT_BATCH_TOO_LARGE,
                            "an atomic commit deletes a prefix, and shard %u has more than %zu names there",
                            i, CHT_ROWSET_STEPS_MAX);
        rc = one == CHT_OK ? rc : one;
        *pairs += n > 0 ? (uint64_t)n : 0;
    }
    return rc;
}

static enum cht_rc keep(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    struct cht_under *u = ctx;
    struct cht_buf *b = &u->names;
    size_t bytes = 0;
    for (size_t i = 0; i < page->n; i++)
        bytes += 4 + page->rows[i].name.n;
    if (b->len + bytes > u->most)
        return CHT_FAIL(err, CHT_BATCH_TOO_LARGE,
                        "an atomic commit deletes a prefix, and the names there have more than %zu KiB",
                        u->most >> 10);
    if (b->cap - b->len < bytes) {
        enum cht_rc rc = cht_buf_reserve(b, 2 * b->len + bytes, err);
        if (rc != CHT_OK)
            return rc;
    }
    for (size_t i = 0; i < page->n; i++) {
        struct cht_str name = page->rows[i].name;
        cht_put32(b->data + b->len, (uint32_t)name.n);
        memcpy(b->data + b->len + 4, name.p, name.n);
        b->len += 4 + name.n;
    }
    return CHT_OK;
}

/* prefix: of rows. */
static enum cht_rc list(const struct cht_rowset *s, struct cht_under *u, const char *prefix,
                        struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    u->names.len = 0;
    u->most = s->db->env->cfg.read_bytes;
    for (unsigned i = cht_map_next(s->map, 0); i < CHT_MAP_MAX && rc == CHT_OK;
         i = cht_map_next(s->map, i + 1)) {
        struct cht_page_wanted want = {i, s->map->level[i], "", prefix, CHT_PAGE_ROWS_MAX};
        rc = cht_page_each(s->db, &want, keep, u, err);
    }
    u->listed = rc == CHT_OK;
    return rc;
}

/* Looks at the rows of all names; *there: how many there are of them. */
static enum cht_rc look_at_all(struct cht_rowset *s, const struct cht_under *u, uint64_t *there,
                               struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < u->names.len;) {
        struct cht_str row = {u->names.data + i + 4, cht_get32(u->names.data + i)}, value;
        uint32_t bucket;
        size_t at;
        i += 4 + row.n;
        if (!cht_row_bucket_of(row, &bucket))
            return CHT_FAIL(err, CHT_CORRUPT, "database %s: the row of a name cannot be read", s->db->name);
        enum cht_rc one = cht_rowset_get(s, cht_map_locate(s->map, bucket), row, &value, &at);
        if (one == CHT_NO_MEMORY)
            return no_memory(err);
        rc = one == CHT_OK ? rc : one;
        *there += one == CHT_OK && s->rows[at].was.p != NULL;
    }
    return rc;
}

/* The counters and the names are of different moments: all is read anew. */
static enum cht_rc again(struct cht_rowset *s, struct cht_under *u, struct cht_err *err)
{
    if (u->tries == TRIES)
        return CHT_FAIL(err, CHT_OVERLOADED,
                        "names come and go under a prefix that an atomic commit deletes");
    cht_sleep_ns(UINT64_C(1000000) << u->tries++);
    u->listed = false;
    cht_rowset_forget(s, -1);
    return CHT_PENDING;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_under_look(struct cht_rowset *s, struct cht_str prefix, struct cht_under **u,
                           struct cht_err *err)
{
    char row[CHT_ROW_NAME_MAX + 1];
    size_t lengths[3];
    uint64_t pairs = 0, there = 0;
    if (*u == NULL && (*u = cht_calloc(1, sizeof **u)) == NULL)
        return no_memory(err);
    struct cht_str counted = {prefix.p, lengths[cht_row_counted(prefix, lengths) - 1]};
    size_t n = cht_row_of_name((uint8_t *)row, 'C', counted);
    row[n] = 0;
    enum cht_rc rc = add_counters(s, (struct cht_str){(const uint8_t *)row, n}, &pairs, err);
    if (rc == CHT_OK && !(*u)->listed) {
        row[0] = 'P';
        rc = list(s, *u, row, err);
    }
    if (rc == CHT_OK)
        rc = look_at_all(s, *u, &there, err);
    return rc == CHT_OK && pairs != there ? again(s, *u, err) : rc;
}

void cht_under_free(struct cht_under *u)
{
    if (u != NULL)
        cht_buf_free(&u->names);
    cht_free(u);
}
