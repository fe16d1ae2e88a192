/* levels: the children of a prefix (cheetah/children.h): for each a scan of one name, and a count if it is a group. */
#include "base/alloc.h"
#include "store/rados/scan.h"

#include <string.h>

struct walk {
    struct cht_store *store;
    const struct cht_children_config *cfg;
    uint8_t name[CHT_NAME_MAX], after[CHT_NAME_MAX];
    size_t name_len, after_len;
    uint64_t key;
};

/* Where the group of a name ends; 0: it is a child of its own. */
static size_t group_of(const struct walk *w, struct cht_str name)
{
    size_t p = w->cfg->prefix.n;
    struct cht_str sep = w->cfg->separator;
    if (name.n < p || (p > 0 && memcmp(name.p, w->cfg->prefix.p, p) != 0))
        return 0;
    if (sep.n == 0)
        return name.n > p ? p + 1 : 0;
    for (size_t i = p; i + sep.n <= name.n; i++) {
        if (memcmp(name.p + i, sep.p, sep.n) == 0)
            return i + sep.n;
    }
    return 0;
}

/* From now on after this name, or after all names that begin with it. */
static void go_past(struct walk *w, const uint8_t *p, size_t n, bool group)
{
    memcpy(w->after, p, n);
    w->after_len = n;
    if (group) {
        memset(w->after + n, 0xff, sizeof w->after - n); /* no longer name is there */
        w->after_len = sizeof w->after;
    }
}

static enum cht_rc next_name(struct walk *w, bool *found, struct cht_err *err)
{
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = w->cfg->prefix, .after = {w->after, w->after_len}, .limit = 1};
    struct cht_scan *scan;
    struct cht_entry e;
    size_t n = 0;
    *found = false;
    enum cht_rc rc = cht_scan_open(w->store, &cfg, &scan, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_scan_next(scan, &e, 1, &n, err);
    if (rc == CHT_OK && n == 1) {
        memcpy(w->name, e.name, e.name_len);
        w->name_len = e.name_len;
        w->key = e.key;
        *found = true;
    }
    cht_scan_close(scan);
    return rc;
}

/* Finds and shows the next child. */
static enum cht_rc next_child(struct walk *w, bool *more, struct cht_err *err)
{
    struct cht_child c = {.pairs = 1};
    enum cht_rc rc = next_name(w, more, err);
    if (rc != CHT_OK || !*more)
        return rc;
    size_t g = group_of(w, (struct cht_str){w->name, w->name_len});
    c.name = (struct cht_str){w->name, g > 0 ? g : w->name_len};
    c.key = g > 0 ? 0 : w->key;
    if (g > 0)
        rc = cht_store_count(w->store, c.name, &c.pairs, err);
    if (g > 0 && w->cfg->separator.n == 0 && c.pairs == 1) { /* alone in its group */
        c.name.n = w->name_len;
        c.key = w->key;
    }
    go_past(w, w->name, g > 0 ? g : w->name_len, g > 0);
    if (rc == CHT_OK && c.pairs > 0)
        *more = w->cfg->each(w->cfg->ctx, &c);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rscan_children(struct cht_store *s, const struct cht_children_config *cfg,
                               struct cht_err *err)
{
    struct walk *w = cht_calloc(1, sizeof *w);
    if (w == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the children of a prefix");
    w->store = s;
    w->cfg = cfg;
    size_t g = group_of(w, cfg->after);
    if (cfg->after.n > 0)
        go_past(w, cfg->after.p, g > 0 ? g : cfg->after.n, g > 0);
    enum cht_rc rc = CHT_OK;
    for (bool more = true; more && rc == CHT_OK;) {
        if (cfg->cancel != NULL && atomic_load(cfg->cancel)) {
            rc = CHT_FAIL(err, CHT_CANCELLED, "cancelled");
            break;
        }
        rc = next_child(w, &more, err);
    }
    cht_free(w);
    return rc;
}
