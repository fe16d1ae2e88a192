/* reduce: see cheetah/reduce.h: src/reduce for programs that embed the engine. */
#include "cheetah/reduce.h"

#include <string.h>

#include "reduce/aggregate.h"
#include "reduce/mode.h"

/* A mode of that name that has what is wanted of it; NULL after CHT_FAIL. */
static const struct reduce_mode *find(const char *name, bool aggregate, struct cht_err *err)
{
    const struct reduce_mode *m = reduce_mode_find(name, strlen(name));
    if (m != NULL && (aggregate ? m->aggregate != NULL : m->decoder != NULL))
        return m;
    (void)CHT_FAIL(err, CHT_UNKNOWN_MODE, "'%.40s' is no %s", name,
                   aggregate ? "aggregate" : "mode that decodes payloads");
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_reduce(struct cht_store *s, const char *mode, const struct cht_reduce_config *cfg,
                       struct cht_reduced *out, struct cht_err *err)
{
    const struct cht_reduce_config plain = {0};
    const struct reduce_mode *m = find(mode, true, err);
    *out = (struct cht_reduced){0};
    if (m == NULL)
        return CHT_UNKNOWN_MODE;
    cfg = cfg != NULL ? cfg : &plain;
    const struct reduce_params p = {
        .prefix = cfg->prefix,
        .after = cfg->after,
        .until = cfg->until,
        .limit = cfg->limit,
        .sort = cfg->sort == CHT_REDUCE_BY_COUNT ? REDUCE_SORT_COUNT : REDUCE_SORT_TOKEN,
        .to = cfg->to,
        .metric = cfg->metric == CHT_REDUCE_JACCARD ? REDUCE_JACCARD : REDUCE_COSINE,
        .memory_max = cfg->memory_max};
    enum cht_rc rc = reduce_aggregate_run(s, m, &p, &out->lines, &out->count, &out->malformed, NULL, err);
    if (rc != CHT_OK) {
        cht_buf_free(&out->lines);
        *out = (struct cht_reduced){0};
    }
    return rc;
}

enum cht_rc cht_reduce_decode(const char *mode, const uint8_t *payload, size_t n, struct cht_buf *out,
                              struct cht_err *err)
{
    const struct reduce_mode *m = find(mode, false, err);
    if (m == NULL)
        return CHT_UNKNOWN_MODE;
    for (size_t room = 4 * n + 256;; room *= 2) {
        enum cht_rc rc = cht_buf_reserve(out, out->len + room, err);
        if (rc != CHT_OK)
            return rc;
        size_t k = reduce_decode(m->decoder, payload, n, (char *)out->data + out->len, out->cap - out->len);
        if (k == 0)
            return CHT_FAIL(err, CHT_MALFORMED_PAYLOAD, "%zu bytes are no payload of '%s'", n, mode);
        if (k != SIZE_MAX) {
            out->len += k;
            return CHT_OK;
        }
    }
}
