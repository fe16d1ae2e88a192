/* live: see live.h. Logarithms are shown to 9 places, probabilities to 12 digits: more than they are known to, and they are written much
 * faster so than with all digits of a double. */
#include "http/calls/live.h"

#include <inttypes.h>
#include <math.h>

#include "http/calls/doubles.h"
#include "http/calls/spell.h"
#include "http/reply.h"
#include "base/literal.h"
#include "lm/fm_format.h"
#include "lm/kn_ask.h"
#include "reduce/text.h"

#define NUMBER_TEXT 32u
#define CANDIDATE_TEXT 160u /* of one, without its word */
#define DIGITS 12
#define LOG10_PLACES 9
#define LOG10_MOST 1000.0 /* no double has a longer one */
#define PLAIN_FROM (-5)   /* exponents that are shown as zeros */

_Static_assert(LM_ORDER_MAX <= 9, "an order has one digit");

/* v is not below 0; halves go up. */
static uint64_t nearest(double v)
{
    uint64_t n = (uint64_t)v;
    return n + (v - (double)n >= 0.5);
}

/* 10^n, the same as pow's: up to 22 it is exact. */
static double ten_to(int n)
{
    static const double exact[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    return n < (int)(sizeof exact / sizeof *exact) ? exact[n] : pow(10.0, n);
}

/* A logarithm, -99 to 0, to p, NUMBER_TEXT bytes; returns its end. A page that nobody has checked may say anything. */
static char *log10_text(char *p, double v)
{
    double billions = v < 0 ? -v * 1e9 : 0; /* over 0: rounding */
    if (billions > LOG10_MOST * 1e9)
        billions = LOG10_MOST * 1e9;
    uint64_t n = nearest(billions), whole = n / 1000000000u, part = n % 1000000000u;
    if (n > 0)
        *p++ = '-';
    p += reduce_put_u64(p, whole);
    if (part == 0)
        return p;
    uint32_t high = (uint32_t)(part / 1000000u);
    p[0] = '.';
    p[1] = (char)('0' + high / 100);
    reduce_put_two(p + 2, high % 100);
    reduce_put_six(p + 4, (uint32_t)(part % 1000000u));
    p += LOG10_PLACES + 1;
    while (p[-1] == '0')
        p--;
    return p;
}

/* DIGITS digits, zeros in front; returns their end without the zeros there. */
static char *put_digits(char *p, uint64_t n)
{
    reduce_put_six(p, (uint32_t)(n / 1000000u));
    reduce_put_six(p + 6, (uint32_t)(n % 1000000u));
    char *end = p + DIGITS;
    while (end > p && end[-1] == '0')
        end--;
    return end;
}

/* A probability whose logarithm is known, to p, NUMBER_TEXT bytes; returns its end. */
static char *p_text(char *p, double v, double log10_v)
{
    if (!(v > 0 && v < 1 && log10_v >= -98)) { /* also what is no number */
        *p++ = v >= 1 ? '1' : '0';
        return p;
    }
    int e = (int)log10_v;
    e -= (double)e > log10_v; /* towards 0 is up */
    uint64_t n = nearest(v * ten_to(DIGITS - 1 - e));
    if (n >= UINT64_C(1000000000000)) { /* rounded up to the next power, or the logarithm was */
        n /= 10;
        e++;
    }
    if (e >= 0) {
        *p++ = '1';
    } else if (e >= PLAIN_FROM) {
        *p++ = '0';
        *p++ = '.';
        for (int i = -1; i > e; i--)
            *p++ = '0';
        p = put_digits(p, n);
    } else {
        char *end = put_digits(p + 1, n); /* the first digit goes before the point */
        p[0] = p[1];
        p[1] = '.';
        p = end > p + 2 ? end : p + 1;
        *p++ = 'e';
        *p++ = '-';
        p += reduce_put_u64(p, (uint64_t)-e);
    }
    return p;
}

static void put_p(struct svc_out *o, double v, double log10_v)
{
    if (svc_out_room(o, NUMBER_TEXT))
        o->n = (size_t)(p_text(o->p + o->n, v, log10_v) - o->p);
}

static double log10_of(double p) { return p > 0 ? log10(p) : LM_KN_LOG10_ZERO; }

static void put_moment(struct svc_out *o, const struct lm_kn_reader *k)
{
    svc_out_text(o, ",\"generation\":");
    svc_out_u64(o, k->head.generation);
    svc_out_text(o, "}");
}

/* The last line says so where what was read is of two moments. */
static void put_mixed(struct svc_out *o, const struct lm_kn_reader *k, bool line)
{
    if (!k->mixed || o->failed)
        return;
    o->n -= line ? 2 : 1;
    svc_out_text(o, line ? ",\"mixed\":true}\n" : ",\"mixed\":true}");
}

/* ---- prediction ---------------------------------------------------------------------------------------------------- */

static void put_candidate(struct svc_out *o, const struct lm_kn_candidate *c, struct http_spell *w,
                          bool first)
{
    double l = c->log10 <= 0 ? c->log10 : log10_of(c->p);
    if (!svc_out_room(o, CANDIDATE_TEXT))
        return;
    char *p = CHT_PUT(o->p + o->n, ",{\"token\":");
    if (first)
        p = CHT_PUT(o->p + o->n, "{\"token\":");
    p += reduce_put_u64(p, c->token);
    if (w != NULL) {
        o->n = (size_t)(p - o->p);
        svc_out_text(o, ",\"word\":");
        http_spell_put(o, w, c->token);
        if (!svc_out_room(o, CANDIDATE_TEXT))
            return;
        p = o->p + o->n;
    }
    p = CHT_PUT(p, ",\"p\":");
    p = p_text(p, c->p, l);
    p = CHT_PUT(p, ",\"log10\":");
    p = log10_text(p, l);
    p = CHT_PUT(p, ",\"order\":");
    *p++ = (char)('0' + c->order);
    *p++ = '}';
    o->n = (size_t)(p - o->p);
}

static void put_prediction(struct svc_out *o, const struct http_live_question *q,
                           const struct lm_kn_prediction *p)
{
    svc_out_text(o, "{\"order\":");
    svc_out_u64(o, p->order);
    svc_out_text(o, ",\"context\":");
    if (q->spell != NULL) {
        http_spell_list(o, q->spell, q->tokens + (q->n - (p->order - 1)), p->order - 1);
    } else {
        svc_out_text(o, "[");
        for (size_t i = p->order - 1; i > 0; i--) {
            svc_out_u64(o, q->tokens[q->n - i]);
            svc_out_text(o, i > 1 ? "," : "");
        }
        svc_out_text(o, "]");
    }
    svc_out_text(o, ",\"candidates\":[");
    for (size_t i = 0; i < p->n; i++)
        put_candidate(o, &p->c[i], q->spell, i == 0);
    svc_out_text(o, "],\"unknown\":");
    put_p(o, p->unknown, log10_of(p->unknown));
}

/* The answer, or with levels that of each order. */
static enum cht_rc predict_once(struct lm_kn_reader *k, const struct http_live_question *q, struct svc_out *o,
                                uint64_t *lines, bool *later, struct cht_err *err)
{
    struct lm_kn_text_query t = {.tokens = q->tokens, .n = q->n, .max_order = q->max_order};
    struct lm_kn_prediction p;
    enum cht_rc rc = lm_kn_predict(k, &t, q->k, &p, later, err);
    *lines = 0;
    while (rc == CHT_OK && !*later) {
        if (++*lines == 1 && q->answered != NULL)
            *q->answered = p.order;
        put_prediction(o, q, &p);
        put_moment(o, k);
        if (q->levels)
            svc_out_text(o, "\n");
        if (!q->levels || p.order == 1)
            break;
        t.max_order = p.order - 1;
        rc = lm_kn_predict(k, &t, q->k, &p, later, err);
    }
    return rc;
}

enum cht_rc http_live_predict(struct lm_kn_reader *k, const struct http_live_question *q, struct svc_out *o,
                              uint64_t *lines, bool *later, struct cht_err *err)
{
    size_t start = o->n;
    enum cht_rc rc;
    *later = false;
    do {
        o->n = start;
        rc = lm_kn_begin(k, err);
        if (rc == CHT_OK)
            rc = predict_once(k, q, o, lines, later, err);
    } while (rc != CHT_PENDING && !*later && lm_kn_again(k));
    if (rc == CHT_OK && !*later)
        put_mixed(o, k, q->levels);
    return rc;
}

/* ---- scores -------------------------------------------------------------------------------------------------------- */

void http_live_perplexities(struct svc_out *o, const struct lm_kn_score *s)
{
    http_put_perplexity(o, "\"perplexity\":", lm_kn_perplexity(s, false));
    http_put_perplexity(o, ",\"perplexity_with_oov\":", lm_kn_perplexity(s, true));
}

/* Answers that are being written, one after the other: of those before `text` all is there. */
struct lists {
    struct svc_out *logs; /* of the answers themselves */
    struct svc_out orders;
    const struct lm_kn_reader *k;
    const struct lm_kn_score *sum; /* of each */
    size_t text;
    bool lines; /* each ends one */
    bool more;
};

static void begin_lists(struct lists *l)
{
    svc_out_text(l->logs, "{\"per_token\":[");
    l->orders.n = 0;
    l->more = false;
}

static void end_lists(struct lists *l)
{
    struct svc_out *o = l->logs;
    const struct lm_kn_score *sum = &l->sum[l->text++];
    svc_out_text(o, "],\"orders\":[");
    svc_out_bytes(o, l->orders.p, l->orders.n);
    svc_out_text(o, "],\"tokens\":");
    svc_out_u64(o, sum->tokens);
    svc_out_text(o, ",\"oov\":");
    svc_out_u64(o, sum->oov);
    svc_out_text(o, ",\"log10\":");
    http_put_double(o, sum->log10);
    svc_out_text(o, ",");
    http_live_perplexities(o, sum);
    put_moment(o, l->k);
    put_mixed(o, l->k, false);
    if (l->lines)
        svc_out_text(o, "\n");
    o->failed = o->failed || l->orders.failed;
}

/* Up to the answer of that number. */
static void go_on(struct lists *l, size_t text)
{
    while (l->text < text) {
        end_lists(l);
        begin_lists(l);
    }
}

static void put_score(void *ctx, size_t text, const struct lm_kn_scored *t)
{
    struct lists *l = ctx;
    struct svc_out *o = l->logs, *orders = &l->orders;
    go_on(l, text);
    if (!svc_out_room(o, NUMBER_TEXT + 1) || !svc_out_room(orders, 2))
        return;
    o->p[o->n] = orders->p[orders->n] = ',';
    char *p = o->p + o->n + l->more;
    o->n = (size_t)(log10_text(p, t->log10) - o->p);
    orders->n += l->more;
    orders->p[orders->n++] = (char)('0' + t->matched);
    l->more = true;
}

enum cht_rc http_live_score_all(struct lm_kn_reader *k, const struct lm_kn_text_query *q, size_t n,
                                bool lines, struct svc_out *o, struct lm_kn_score *sum, struct cht_err *err)
{
    size_t start = o->n;
    struct lists l = {.logs = o, .k = k, .sum = sum, .lines = lines};
    enum cht_rc rc;
    do {
        o->n = start;
        l.text = 0;
        begin_lists(&l);
        rc = lm_kn_begin(k, err);
        if (rc == CHT_OK)
            rc = lm_kn_score_all(k, q, n, put_score, &l, sum, err);
    } while (lm_kn_again(k));
    if (rc == CHT_OK) {
        go_on(&l, n - 1);
        end_lists(&l);
    } else {
        o->n = start;
    }
    svc_out_free(&l.orders);
    return rc;
}

enum cht_rc http_live_score(struct lm_kn_reader *k, const struct http_live_question *q, struct svc_out *o,
                            struct lm_kn_score *sum, struct cht_err *err)
{
    const struct lm_kn_text_query t = {
        .tokens = q->tokens, .n = q->n, .bos = q->bos, .max_order = q->max_order};
    return http_live_score_all(k, &t, 1, false, o, sum, err);
}

/* ---- parameters ---------------------------------------------------------------------------------------------------- */

static bool token_member(const json_t *o, const char *name, bool needed, uint32_t *out, bool *has)
{
    const json_t *v = json_object_get(o, name);
    *has = v != NULL && !json_is_null(v);
    if (!*has)
        return !needed;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > (json_int_t)UINT32_MAX)
        return false;
    *out = (uint32_t)json_integer_value(v);
    return true;
}

static bool keep_members(const json_t *keep, unsigned *flags)
{
    static const struct {
        const char *name;
        unsigned flag;
    } known[] = {{"cnt", LM_KN_KEEP_CNT}, {"ctx", LM_KN_KEEP_CTX}, {"ctxv", LM_KN_KEEP_CTXV}};
    if (!json_is_array(keep))
        return false;
    for (size_t i = 0; i < json_array_size(keep); i++) {
        const char *name = json_string_value(json_array_get(keep, i));
        unsigned flag = 0;
        for (size_t j = 0; j < sizeof known / sizeof *known && name != NULL; j++)
            flag |= strcmp(name, known[j].name) == 0 ? known[j].flag : 0;
        if (flag == 0)
            return false;
        *flags |= flag;
    }
    return true;
}

bool http_live_parameters(struct http_request *r, const json_t *o, struct lm_kn_parameters *p, bool *has)
{
    const json_t *live = json_object_get(o, "live"), *keep = json_object_get(o, "keep");
    const json_t *order = json_object_get(live, "order");
    bool has_bos, has_eos;
    *p = (struct lm_kn_parameters){0};
    *has = live != NULL;
    if (live == NULL && keep == NULL)
        return true;
    if (!json_is_object(live) || !json_is_integer(order) || json_integer_value(order) < 1 ||
        json_integer_value(order) > LM_ORDER_MAX || !token_member(live, "bos", true, &p->bos, &has_bos) ||
        !token_member(live, "eos", false, &p->eos, &has_eos) ||
        json_object_size(live) != 2 + (size_t)(json_object_get(live, "eos") != NULL)) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT,
                        "\"live\" is {\"order\":1 to %u,\"bos\":TOKEN,\"eos\":TOKEN or nothing}",
                        LM_ORDER_MAX);
        return false;
    }
    p->order = (unsigned)json_integer_value(order);
    p->flags = has_eos ? LM_KN_EOS : 0;
    if (keep == NULL) {
        p->flags |= LM_KN_KEEP;
    } else if (!keep_members(keep, &p->flags)) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "\"keep\" is a list of cnt, ctx, ctxv");
        return false;
    }
    if (lm_kn_check(p, &r->err) == CHT_OK)
        return true;
    http_reply_err(r, CHT_INVALID_ARGUMENT, &r->err);
    return false;
}

static void put_order(struct svc_out *o, const struct lm_kn_order *m, unsigned order)
{
    struct lm_kn_discounts d = lm_kn_discounts(m);
    svc_out_format(o, "%s{\"order\":%u,\"types\":%" PRIu64 ",\"contexts\":%" PRIu64 ",\"n1\":%" PRIu64,
                   order > 1 ? "," : "", order, m->types, order > 1 ? m->contexts : (uint64_t)(m->types > 0),
                   m->n[0]);
    svc_out_format(o, ",\"n2\":%" PRIu64 ",\"n3\":%" PRIu64 ",\"n4\":%" PRIu64, m->n[1], m->n[2], m->n[3]);
    for (unsigned j = 1; j <= 3; j++) {
        svc_out_format(o, ",\"d%u\":", j);
        http_put_double(o, d.d[j]);
    }
    svc_out_text(o, d.fallback ? ",\"fallback\":true}" : ",\"fallback\":false}");
}

static void put_keep(struct svc_out *o, unsigned flags)
{
    const char *comma = "";
    svc_out_text(o, "\"keep\":[");
    if ((flags & LM_KN_KEEP_CNT) != 0) {
        svc_out_text(o, "\"cnt\"");
        comma = ",";
    }
    if ((flags & LM_KN_KEEP_CTX) != 0) {
        svc_out_format(o, "%s\"ctx\"", comma);
        comma = ",";
    }
    if ((flags & LM_KN_KEEP_CTXV) != 0)
        svc_out_format(o, "%s\"ctxv\"", comma);
    svc_out_text(o, "]");
}

static void describe_fixed(struct svc_out *o, const struct lm_fm_head *f)
{
    svc_out_format(o,
                   ",\"fixed\":{\"order\":%u,\"bos\":%" PRIu32 ",\"eos\":%" PRIu32 ",\"unk\":%" PRIu32
                   ",\"ngrams\":[",
                   f->order, f->bos, f->eos, f->unk);
    for (unsigned m = 1; m <= f->order; m++)
        svc_out_format(o, "%s%" PRIu64, m > 1 ? "," : "", f->n[m]);
    svc_out_format(o, "],\"making\":%s}", (f->flags & LM_FM_MAKING) != 0 ? "true" : "false");
}

enum cht_rc http_live_describe(struct cht_store *s, struct svc_out *o, struct cht_err *err)
{
    struct lm_kn_head h;
    struct lm_fm_head fixed = {0};
    struct cht_buf buf = {0};
    enum cht_rc rc = lm_kn_head_get(s, &h, &buf, NULL, err);
    bool is_fixed = rc == CHT_FIXED_MODEL && lm_fm_head_read(buf.data, buf.len, &fixed);
    cht_buf_free(&buf);
    if (is_fixed) {
        describe_fixed(o, &fixed);
        return CHT_OK;
    }
    if (rc == CHT_PAIR_NOT_FOUND)
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    svc_out_format(o, ",\"live\":{\"order\":%u,\"bos\":%" PRIu32 ",\"eos\":", h.order, h.bos);
    if ((h.flags & LM_KN_EOS) != 0)
        svc_out_u64(o, h.eos);
    else
        svc_out_text(o, "null");
    svc_out_text(o, ",");
    put_keep(o, h.flags);
    svc_out_format(o,
                   ",\"generation\":%" PRIu64 ",\"documents\":%" PRIu64 ",\"tokens\":%" PRIu64
                   ",\"V\":%" PRIu64 ",\"orders\":[",
                   h.generation, h.documents, h.tokens, h.m[1].types + 1);
    for (unsigned m = 1; m <= h.order; m++)
        put_order(o, &h.m[m], m);
    svc_out_text(o, "]}");
    return CHT_OK;
}
