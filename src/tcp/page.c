/* page: PAIR_SCAN and PAIR_REDUCE: a page of pairs, in one answer.
 *
 *   SUCCESS,count=2,next_cursor=x6374,items=6374783a:4;6374:5
 *   SUCCESS,reducer=counts,count=1,items=6374783a:4:aGVsbG8=          nothing after the last colon: the key has no value
 *   SUCCESS,count=0                                                   a page without items ends here
 *
 * The items are made by the scan's workers. How many there are stands before them, so a page is put together in memory: it
 * ends at its limit or at answer_max bytes, whichever comes first, with the cursor after it if there is more. While clients
 * hold too many untaken answers, pages are shorter.
 */
#include "tcp/session.h"

#include "tcp/answer.h"
#include "tcp/hidden.h"

#include "base/alloc.h"
#include "cheetah/scan.h"
#include "reduce/mode.h"

#include <string.h>

#define ENTRIES 256u
#define SHORT_PAGE (256u << 10)
#define HELD_MANY 4u /* answers of answer_max bytes that may be held before pages get short */

struct page {
    struct line_session *s;
    bool values;
    size_t max; /* bytes of items */
    struct svc_out items;
    uint64_t count;
    bool more;
    struct line_hidden hidden;
    char last[CHT_NAME_MAX]; /* the name of the last item */
    size_t last_len;
    enum cht_rc rc;
};

static size_t put_head(char *out, const struct cht_entry *e)
{
    size_t n = svc_out_hex(out, e->name, e->name_len);
    out[n++] = ':';
    return n + svc_out_digits(out + n, e->key);
}

/* On the scan's workers. A long value comes later, read by the thread that puts the page together. */
static size_t render(void *ctx, const struct cht_entry *e, uint8_t *bytes, size_t room)
{
    const struct page *g = ctx;
    bool shown = g->values && (e->flags & (CHT_ENTRY_DANGLING | CHT_ENTRY_CORRUPT | CHT_ENTRY_LARGE)) == 0;
    size_t need = 2 * (size_t)e->name_len + 24 + (shown ? cht_b64_encoded(e->value_len) : 0);
    if (room < need)
        return SIZE_MAX;
    char *out = (char *)bytes;
    size_t n = put_head(out, e);
    if (g->values)
        out[n++] = ':';
    if (shown)
        n += cht_b64_encode(out + n, e->value, e->value_len);
    return n;
}

static void add_large(struct page *g, const struct cht_entry *e)
{
    uint32_t size;
    struct cht_err err = {0};
    enum cht_rc rc = cht_store_get_soon(g->s->db->store, e->key, &g->s->value, &size, &cht_ahead, &err);
    if (rc == CHT_KEY_NOT_FOUND) /* deleted meanwhile */
        return;
    if (rc != CHT_OK)
        g->rc = rc;
    else if (svc_out_room(&g->items, cht_b64_encoded(g->s->value.len)))
        g->items.n += cht_b64_encode(g->items.p + g->items.n, g->s->value.data, g->s->value.len);
}

/* False: the page is full, or failed. */
static bool add(struct page *g, const struct cht_entry *e)
{
    uint64_t limit = g->s->command.limit;
    size_t size = e->value_len + ((e->flags & CHT_ENTRY_LARGE) != 0 ? cht_b64_encoded(e->size) : 0);
    g->more = (limit > 0 && g->count == limit) || (g->count > 0 && g->items.n + size > g->max);
    if (g->more)
        return false;
    if (g->values && (e->flags & CHT_ENTRY_CORRUPT) != 0) { /* damage must not look like a missing value */
        g->rc = CHT_CORRUPT;
        return false;
    }
    if (g->count++ > 0)
        svc_out_text(&g->items, ";");
    svc_out_bytes(&g->items, e->value, e->value_len);
    if (g->values && (e->flags & CHT_ENTRY_LARGE) != 0)
        add_large(g, e);
    if (g->items.failed)
        g->rc = CHT_NO_MEMORY;
    return g->rc == CHT_OK;
}

/* The same of an entry that may be hidden. */
static bool visit(struct page *g, const struct cht_entry *e)
{
    bool hides = false;
    struct cht_err err = {0};
    g->rc = line_hidden_look(&g->hidden, e, &hides, &err);
    return g->rc == CHT_OK && (hides || add(g, e));
}

static void remember(struct page *g, const struct cht_entry *e)
{
    memcpy(g->last, e->name, e->name_len);
    g->last_len = e->name_len;
}

static void collect(struct page *g, struct cht_scan *scan)
{
    struct line_session *s = g->s;
    struct cht_entry e[ENTRIES];
    struct cht_err err = {0};
    size_t n = 0;
    while (!g->more && (g->rc = cht_scan_next(scan, e, ENTRIES, &n, &err)) == CHT_OK && n > 0) {
        size_t i = 0;
        while (i < n && visit(g, &e[i]))
            i++;
        if (i > 0)
            remember(g, &e[i - 1]);
        if (g->rc == CHT_OK)
            g->rc = line_session_goes_on(s);
        if (g->rc != CHT_OK)
            return;
    }
}

/* The head goes in front of the items, which are moved to make room for it. */
static bool put_page(struct page *g)
{
    struct svc_out head = {0};
    const struct line_command *l = &g->s->command;
    svc_out_text(&head, "SUCCESS,");
    if (g->values) {
        svc_out_text(&head, "reducer=");
        svc_out_bytes(&head, l->mode.p, l->mode.n);
        svc_out_text(&head, ",");
    }
    svc_out_text(&head, "count=");
    svc_out_u64(&head, g->count);
    if (g->more && svc_out_room(&head, 32 + 2 * g->last_len)) {
        svc_out_text(&head, ",next_cursor=x");
        head.n += svc_out_hex(head.p + head.n, (const uint8_t *)g->last, g->last_len);
    }
    if (g->count > 0)
        svc_out_text(&head, ",items=");
    bool ok = !head.failed && svc_out_room(&g->s->out, head.n + g->items.n + 1);
    if (ok) {
        svc_out_bytes(&g->s->out, head.p, head.n);
        svc_out_bytes(&g->s->out, g->items.p, g->items.n);
        svc_out_text(&g->s->out, "\n");
    }
    svc_out_free(&head);
    return ok;
}

static void run(struct page *g)
{
    struct line_session *s = g->s;
    const struct line_command *l = &s->command;
    struct cht_scan *scan = NULL;
    struct cht_err err = {0};
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS,
                                  .prefix = l->name,
                                  .after = l->after,
                                  .limit = l->limit > 0 ? l->limit + 1 : 0, /* one more: is there one? */
                                  .values = g->values,
                                  .render = render,
                                  .render_ctx = g};
    g->rc = line_hidden_open(&g->hidden, s->db, l, &err);
    if (g->hidden.active)
        cfg.limit = 0; /* hidden ones do not count */
    if (g->rc == CHT_OK)
        g->rc = cht_scan_open(s->db->store, &cfg, &scan, &err);
    if (g->rc == CHT_OK)
        collect(g, scan);
    cht_scan_close(scan);
    line_hidden_close(&g->hidden);
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_session_page(struct line_session *s)
{
    struct page *g = cht_calloc(1, sizeof *g);
    enum line_verb c = s->command.verb;
    if (g == NULL) {
        line_session_error(s, c, cht_rc_slug(CHT_NO_MEMORY));
        return;
    }
    g->s = s;
    g->values = c == LINE_PAIR_REDUCE;
    g->max = s->host->answer_max;
    if (atomic_load_explicit(&s->host->held, memory_order_relaxed) > HELD_MANY * (uint64_t)g->max &&
        g->max > SHORT_PAGE)
        g->max = SHORT_PAGE;
    run(g);
    if (g->rc == CHT_OK && !put_page(g))
        g->rc = CHT_NO_MEMORY;
    if (g->rc != CHT_OK) {
        s->out.failed = false; /* there is room for this much, or the owner sees it again */
        line_session_error(s, c, cht_rc_slug(g->rc));
    } else {
        line_session_counted(s, c, false);
        if (g->items.n > SHORT_PAGE) {
            s->held += g->items.n;
            atomic_fetch_add_explicit(&s->host->held, g->items.n, memory_order_relaxed);
        }
    }
    svc_out_free(&g->items);
    cht_free(g);
}
