/* add: PAIR_ADD and PAIR_COUNTS_ADD: changes whose result depends on what is there (lm/change.h), by a job.
 *
 *   PAIR_ADD PAIR BY                                SUCCESS,key=17,value=14
 *   PAIR_COUNTS_ADD PAIR ORDER TOKEN:DELTA[,...]    SUCCESS,key=17
 */
#include "tcp/answer.h"
#include "tcp/words.h"

#include "base/alloc.h"
#include "lm/change.h"

#include <string.h>

/* A whole number with an optional minus, from least to most. */
static bool take_integer(struct cht_str s, int64_t least, int64_t most, int64_t *out)
{
    bool minus = s.n > 0 && s.p[0] == '-', fits = true;
    int64_t v = 0;
    for (size_t i = minus; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        int64_t digit = minus ? -(int64_t)(s.p[i] - '0') : s.p[i] - '0';
        fits = fits && !__builtin_mul_overflow(v, (int64_t)10, &v) && !__builtin_add_overflow(v, digit, &v);
    }
    *out = v;
    return s.n > (size_t)minus && fits && v >= least && v <= most;
}

/* The part of s before `end`, which is cut off s with it; all of it if there is none. */
static struct cht_str cut(struct cht_str *s, char end)
{
    const uint8_t *at = s->n > 0 ? memchr(s->p, end, s->n) : NULL;
    struct cht_str part = {.p = s->p, .n = at != NULL ? (size_t)(at - s->p) : s->n};
    size_t skip = part.n + (at != NULL);
    s->p += skip;
    s->n -= skip;
    return part;
}

/* "5:2,7:-1". False: it is none, or there is no memory. */
static bool take_deltas(struct cht_str s, struct lm_delta **out, uint32_t *n)
{
    size_t most = 1;
    for (size_t i = 0; i < s.n; i++)
        most += s.p[i] == ',';
    struct lm_delta *d = cht_malloc(most * sizeof *d);
    bool ok = d != NULL && s.n > 0;
    size_t i = 0;
    while (ok && i < most) {
        struct cht_str by = cut(&s, ','), token = cut(&by, ':');
        int64_t number = 0;
        ok = take_integer(token, 0, UINT32_MAX, &number) &&
             take_integer(by, -(int64_t)UINT32_MAX, UINT32_MAX, &d[i].by);
        d[i++].token = (uint32_t)number;
    }
    if (!ok)
        cht_free(d);
    *out = ok ? d : NULL;
    *n = (uint32_t)most;
    return ok;
}

/* NULL, or the error. */
static const char *read_change(const struct line_command *l, struct lm_change *change)
{
    struct cht_str words = l->value, first = line_words_next(&words), second = line_words_next(&words);
    int64_t number;
    struct lm_delta *deltas;
    uint32_t n;
    bool adds = l->verb == LINE_PAIR_ADD;
    if (line_words_next(&words).n > 0 || (adds && second.n > 0))
        return "too_many_arguments";
    if (adds) {
        if (!take_integer(first, INT64_MIN, INT64_MAX, &number))
            return "invalid_number";
        lm_change_add(change, number);
        return NULL;
    }
    if (!take_integer(first, 0, UINT8_MAX, &number))
        return "invalid_order";
    if (!take_deltas(second, &deltas, &n))
        return "invalid_followers (TOKEN:DELTA,...)";
    lm_change_counts(change, (unsigned)number, deltas, n);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_session_add(struct line_session *s)
{
    struct lm_change change = {.is_add = false};
    struct cht_op op = {
        .kind = CHT_OP_PAIR_PUT, .name = s->command.name, .ask = &change.ask, .keep_end = true};
    struct cht_commit c = {.ops = &op, .count = 1, .flags = s->durability};
    const char *error = read_change(&s->command, &change);
    enum cht_rc rc = error == NULL ? cht_store_commit(s->db->store, &c) : CHT_OK;
    rc = rc == CHT_OK ? op.rc : rc;
    if (error != NULL) {
        line_session_error(s, s->command.verb, error);
    } else if (rc != CHT_OK) {
        line_session_failed(s, rc);
    } else {
        line_session_counted(s, s->command.verb, false);
        svc_out_text(&s->out, "SUCCESS,key=");
        svc_out_u64(&s->out, op.key);
        if (change.is_add)
            svc_out_format(&s->out, ",value=%lld", (long long)change.sum);
        svc_out_text(&s->out, "\n");
    }
    lm_change_fini(&change);
}
