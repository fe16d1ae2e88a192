/* load: see load.h. */
#include "lm/load.h"

#include "base/alloc.h"
#include "base/invariant.h"
#include "lm/engine_int.h"
#include "os/io.h"

static bool make(const void *ctx, size_t i, uint8_t *room, struct cht_op *op)
{
    const struct lm_load *l = ctx;
    const struct lm_load_part *p = l->part;
    while (i - p->from >= p->n)
        p++;
    return p->make(p->ctx, i - p->from, room, op);
}

/* ------------------------------------------------------------------------------------------------------------ */

void lm_load_add(struct lm_load *l, size_t n, uint64_t bytes, size_t room, lm_load_fn *fn, const void *ctx)
{
    CHT_INVARIANT(l->parts < LM_LOAD_PARTS);
    if (n == 0)
        return;
    l->part[l->parts++] = (struct lm_load_part){l->n, n, fn, ctx};
    l->n += n;
    l->bytes += bytes;
    l->room = room > l->room ? room : l->room;
}

void lm_load_links(struct lm_load *l, size_t n, lm_load_fn *fn, const void *ctx)
{
    lm_load_add(l, n, 0, 0, fn, ctx);
    l->links += n;
}

enum cht_rc lm_load_commit(struct lm_load *l, struct cht_store *s, struct cht_op *ops, size_t n,
                           unsigned flags, struct cht_err *err)
{
    struct cht_many many = {.n = l->n, .bytes = l->bytes, .room = l->room, .make = make, .ctx = l};
    if (l->n == 0)
        return lm_commit(s, ops, n, flags, err);
    many.links = l->links;
    many.key = cht_calloc(l->n - l->links + 1, sizeof *many.key);
    many.link = cht_calloc(l->links + 1, 1);
    if (many.key == NULL || many.link == NULL) {
        cht_free(many.key);
        cht_free(many.link);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu operations", l->n);
    }
    cht_os_huge_pages(many.key, (l->n - l->links) * sizeof *many.key);
    enum cht_rc rc = lm_commit_many(s, &many, ops, n, flags, err);
    cht_free(many.key);
    cht_free(many.link);
    return rc;
}
