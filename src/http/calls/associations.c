/* associations: GET /reduce/associations/: what belongs together with one token, or with one context, in one request.
 *
 *   token    for each order, the tokens after it (its row of the matrix) and before it (its column)
 *   pair     its links by each metric, and what follows it by its counts
 */
#include "http/calls/handlers.h"
#include "http/calls/spell.h"
#include "http/ndjson.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/literal.h"
#include "lm/counts.h"
#include "reduce/links.h"
#include "reduce/matrix.h"
#include "reduce/payload.h"
#include "reduce/text.h"

#include <math.h>
#include <stdlib.h>

#define K_DEFAULT 20u
#define K_MAX 1000u

struct asking {
    struct cht_str pair; /* borrowed from the request */
    bool is_token;
    uint32_t token;
    uint64_t k, count;
    bool found;
    struct cht_buf value;
    struct http_spell spell;
};

struct best {
    double value;
    uint32_t token;
};

/* The worst of the k best is at the end. */
static void offer(struct best *b, size_t *n, size_t k, struct best x)
{
    if (*n == k && b[k - 1].value >= x.value) /* tokens come ascending */
        return;
    size_t at = *n < k ? (*n)++ : k - 1;
    for (; at > 0 && b[at - 1].value < x.value; at--)
        b[at] = b[at - 1];
    b[at] = x;
}

static void put_number(struct svc_out *o, const char *member, double v)
{
    svc_out_text(o, member);
    if (svc_out_room(o, REDUCE_DOUBLE_TEXT))
        o->n += reduce_put_double(o->p + o->n, v);
}

static void put_best(struct http_request *r, const char *relation, unsigned order, const char *metric,
                     const struct best *b, size_t n)
{
    struct asking *a = r->own;
    for (size_t i = 0; i < n; i++) {
        svc_out_format(&r->out, "{\"relation\":\"%s\",\"order\":%u,\"metric\":\"%s\",\"token\":%u", relation,
                       order, metric, b[i].token);
        if (r->text) {
            svc_out_text(&r->out, ",\"word\":");
            http_spell_put(&r->out, &a->spell, b[i].token);
        }
        put_number(&r->out, ",\"weight\":", b[i].value);
        svc_out_text(&r->out, "}\n");
        a->count++;
    }
}

/* The value of a pair; *size 0: there is none. */
static enum cht_rc read_pair(struct http_request *r, struct cht_str name, uint32_t *size)
{
    struct asking *a = r->own;
    uint64_t key;
    *size = 0;
    enum cht_rc rc = cht_store_pair_value(r->db->store, name, &key, &a->value, size, &r->err);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

static enum cht_rc of_matrix(struct http_request *r, bool transposed, unsigned order, struct best *b)
{
    struct asking *a = r->own;
    struct reduce_matrix_row row;
    uint8_t name[16];
    uint32_t size;
    size_t n = 0;
    char *end = transposed ? CHT_PUT(name, REDUCE_MATRIX_TRANSPOSED) : CHT_PUT(name, REDUCE_MATRIX);
    *end++ = (char)('0' + order);
    *end++ = ':';
    reduce_payload_put32((uint8_t *)end, a->token);
    enum cht_rc rc = read_pair(r, (struct cht_str){name, (size_t)((uint8_t *)end + 4 - name)}, &size);
    if (rc != CHT_OK || size == 0 || !reduce_matrix_read(a->value.data, size, size, &row))
        return rc;
    for (uint32_t i = 0; i < row.n; i++) {
        const uint8_t *p = row.records + (size_t)i * REDUCE_MATRIX_RECORD;
        double v = reduce_matrix_value(p);
        if (v == v && v - v == 0.0) /* a number that JSON has */
            offer(b, &n, (size_t)a->k, (struct best){v, reduce_payload_get32(p)});
    }
    put_best(r, transposed ? "before" : "after", order, reduce_matrix_metric_name(row.metric), b, n);
    return CHT_OK;
}

static enum cht_rc of_links(struct http_request *r, enum reduce_metric metric)
{
    struct asking *a = r->own;
    uint8_t name[CHT_NAME_MAX + REDUCE_LINKS_NAME_EXTRA];
    const char *text = reduce_links_metric_name(metric);
    uint32_t size, left = 0;
    size_t at = 0, n = CHT_LEN(REDUCE_LINKS), len = strlen(text);
    struct reduce_link link;
    bool malformed;
    memcpy(name, REDUCE_LINKS, n);
    memcpy(name + n, text, len);
    n += len;
    name[n++] = ':';
    memcpy(name + n, a->pair.p, a->pair.n);
    n += a->pair.n;
    if (n > CHT_NAME_MAX)
        return CHT_OK;
    enum cht_rc rc = reduce_links_read(r->db->store, (struct cht_str){name, n}, &a->value, &size, &r->err);
    if (rc != CHT_OK || size == 0)
        return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    a->found = true;
    for (uint64_t i = 0; i < a->k && reduce_links_next(a->value.data, size, &at, &left, &link, &malformed);
         i++) {
        if (!isfinite(link.weight)) /* no number that JSON has */
            continue;
        svc_out_format(&r->out, "{\"relation\":\"link\",\"metric\":\"%s\",", text);
        http_ndjson_put_member(&r->out, HTTP_MEMBER_PAIR, link.name, r->text);
        svc_out_text(&r->out, ",\"weight\":");
        if (svc_out_room(&r->out, REDUCE_DOUBLE_TEXT))
            r->out.n += reduce_links_put_weight(r->out.p + r->out.n, link.weight);
        svc_out_text(&r->out, "}\n");
        a->count++;
    }
    return CHT_OK;
}

static enum cht_rc of_counts(struct http_request *r, struct best *b)
{
    struct asking *a = r->own;
    struct lm_counts counts = {0};
    uint64_t key;
    uint32_t size = 0;
    double total = 0.0;
    size_t n = 0;
    enum cht_rc rc = cht_store_pair_value(r->db->store, a->pair, &key, &a->value, &size, &r->err);
    a->found = a->found || rc == CHT_OK;
    if (rc == CHT_OK && size > 0)
        rc = lm_counts_read(&counts, a->value.data, size, a->pair, &r->err);
    for (uint32_t i = 0; rc == CHT_OK && i < counts.n; i++)
        total += counts.f[i].count;
    for (uint32_t i = 0; rc == CHT_OK && total > 0.0 && i < counts.n; i++)
        offer(b, &n, (size_t)a->k, (struct best){counts.f[i].count / total, counts.f[i].token});
    if (rc == CHT_OK && n > 0)
        put_best(r, "after", a->value.data[1], "p", b, n);
    lm_counts_free(&counts);
    return rc == CHT_PAIR_NOT_FOUND || rc == CHT_MALFORMED_PAYLOAD ? CHT_OK : rc;
}

/* On a job thread. */
static void work(struct http_request *r)
{
    struct asking *a = r->own;
    static const enum reduce_metric metrics[] = {REDUCE_COSINE, REDUCE_JACCARD, REDUCE_PMI};
    struct best b[K_MAX] = {0};
    a->spell.store = r->db->store;
    r->rc = CHT_OK;
    for (unsigned order = 2; a->is_token && order <= LM_ORDER_MAX && r->rc == CHT_OK; order++) {
        r->rc = of_matrix(r, false, order, b);
        if (r->rc == CHT_OK)
            r->rc = of_matrix(r, true, order, b);
    }
    for (size_t i = 0; !a->is_token && i < sizeof metrics / sizeof *metrics && r->rc == CHT_OK; i++)
        r->rc = of_links(r, metrics[i]);
    if (!a->is_token && r->rc == CHT_OK)
        r->rc = of_counts(r, b);
    if (r->rc == CHT_OK && !a->is_token && !a->found)
        r->rc = CHT_FAIL(&r->err, CHT_PAIR_NOT_FOUND, "there is no pair of this name, and no links of it");
    if (r->rc == CHT_OK && a->spell.rc != CHT_OK) {
        r->rc = a->spell.rc;
        r->err = a->spell.err;
    }
    cht_buf_free(&a->value);
    http_spell_fini(&a->spell);
    if (r->rc == CHT_OK)
        svc_out_format(&r->out, "{\"end\":{\"count\":%llu,\"next\":null}}\n", (unsigned long long)a->count);
    else
        r->out.n = 0;
}

static void answer(struct http_request *r)
{
    if (r->rc == CHT_OK)
        http_stream_out(r);
    else
        http_reply_err(r, r->rc, &r->err);
}

static void ask(struct http_request *r)
{
    if (http_stream_new(r, NULL))
        http_request_job(r, work, answer);
}

/* ------------------------------------------------------------------------------------------------------------ */

void http_associations_get(struct http_request *r)
{
    struct asking *a = http_request_own(r, sizeof *a);
    uint64_t token = 0;
    *a = (struct asking){.is_token = http_parse_decimal(r->rest, r->rest_len, UINT32_MAX, &token)};
    a->token = (uint32_t)token;
    if ((!a->is_token && !http_rest_bytes(r, false, &a->pair)) ||
        !http_param_number(r, HTTP_P_K, 1, K_MAX, K_DEFAULT, &a->k))
        return;
    http_request_database(r, false, ask);
}
