/* sweep: see sweep.h. */
#include "lm/sweep.h"

#include "cheetah/scan.h"

#define ENTRIES 64u

static enum cht_rc take(struct cht_store *s, const struct cht_entry *e, struct cht_buf *buf, lm_sweep_fn *fn,
                        void *ctx, struct cht_err *err)
{
    struct cht_str name = {e->name, e->name_len}, value = {e->value, e->value_len};
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_FAIL(err, CHT_CORRUPT, "a value does not match its checksum");
    if ((e->flags & CHT_ENTRY_LARGE) != 0) {
        uint32_t size;
        enum cht_rc rc = cht_store_get(s, e->key, buf, &size, err);
        if (rc != CHT_OK && rc != CHT_KEY_NOT_FOUND)
            return rc;
        value = (struct cht_str){buf->data, rc == CHT_OK ? size : 0};
    }
    if (value.p == NULL)
        value.n = 0;
    return fn(ctx, name, value, err);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_sweep(struct cht_store *s, struct cht_str prefix, lm_sweep_fn *fn, void *ctx,
                     struct cht_err *err)
{
    struct cht_entry e[ENTRIES];
    struct cht_scan *sc;
    struct cht_buf buf = {0};
    size_t n = 1;
    const struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = prefix, .values = true};
    enum cht_rc rc = cht_scan_open(s, &cfg, &sc, err);
    if (rc != CHT_OK)
        return rc;
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(sc, e, ENTRIES, &n, err);
        for (size_t i = 0; i < n && rc == CHT_OK; i++)
            rc = take(s, &e[i], &buf, fn, ctx, err);
    }
    cht_scan_close(sc);
    cht_buf_free(&buf);
    return rc;
}
