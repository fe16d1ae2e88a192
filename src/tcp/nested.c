/* nested: see nested.h. */
#include "tcp/nested.h"

#include "tcp/answer.h"
#include "tcp/hidden.h"

#include "base/alloc.h"
#include "base/literal.h"

#include <string.h>

/* Does the commit have an operation that is not answered? It may fail by itself. */
static bool has_marks(const struct line_session *s)
{
    for (size_t i = 0; i < s->commit.count; i++) {
        if (line_session_op_verb(s, i) == LINE_NONE)
            return true;
    }
    return false;
}

/* The commit of a session that stops: all before the first operation that fails. */
static void commit_up_to_failure(struct line_session *s)
{
    struct cht_commit *c = &s->commit;
    enum line_verb verb = LINE_NONE;
    enum cht_rc failed = CHT_OK;
    c->flags = CHT_COMMIT_ATOMIC | s->durability;
    while (c->count > 0 && cht_store_commit(s->db->store, c) == CHT_BATCH_FAILED) {
        failed = s->ops[c->failed].rc;
        verb = line_session_op_verb(s, c->failed);
        c->count = c->failed;
    }
    if (c->count == 0)
        c->rc = CHT_OK;
    (void)line_session_committed(s); /* without s->wait it is done */
    if (failed != CHT_OK)
        line_session_error(s, verb, line_error_word(failed));
}

/* Takes the answers of the session over. */
static enum cht_rc take(struct line_nested *n)
{
    struct svc_out *o = &n->s.out;
    enum cht_rc rc = o->failed ? CHT_NO_MEMORY : CHT_OK;
    for (const char *p = o->p, *end = o->n > 0 ? o->p + o->n : p; p < end && rc == CHT_OK;) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)(stop - p);
        const char *text = p;
        if (n->out->text.n + len > n->most) {
            static const char large[] = "ERROR,answer_too_large";
            text = large;
            len = sizeof large - 1;
        }
        bool error = line_is_error((struct cht_str){.p = (const uint8_t *)text, .n = len});
        if (!(n->stops && n->failed) && !line_answers_add(n->out, text, len))
            rc = CHT_NO_MEMORY;
        n->failed = n->failed || error;
        p = stop + 1;
    }
    line_session_taken(&n->s);
    return rc;
}

/* Runs lines as far as they go. */
static enum cht_rc run(struct line_nested *n, char *p, size_t len)
{
    struct line_session *s = &n->s;
    enum line_session_next next = LINE_SESSION_FULL;
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && next != LINE_SESSION_IDLE && !(n->stops && n->failed)) {
        size_t used;
        next = line_session_run(s, p, len, &used);
        p += used;
        len -= used;
        rc = take(n);
        if (n->stops && n->failed)
            break;
        if (next == LINE_SESSION_COMMIT) {
            if (n->stops && !has_marks(s)) {
                commit_up_to_failure(s);
            } else {
                (void)cht_store_commit(s->db->store, &s->commit); /* its result is in it */
                (void)line_session_committed(s);
            }
        } else if (next == LINE_SESSION_JOB) {
            line_session_job(s);
        } else if (next == LINE_SESSION_CLOSE) { /* a line of HTTP; those after it are no worse */
            s->closing = false;
            next = len > 0 ? LINE_SESSION_FULL : LINE_SESSION_IDLE;
        }
        if (rc == CHT_OK)
            rc = line_session_goes_on(s);
    }
    return rc == CHT_OK ? take(n) : rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_nested_init(struct line_nested *n, struct line_session *outer, struct line_answers *out)
{
    struct line_session *s = &n->s;
    line_session_init(s, outer->host, outer->counts);
    memcpy(s->database, outer->database, sizeof s->database);
    memcpy(s->secret, outer->secret, sizeof s->secret);
    s->seen = outer->seen;
    s->token = outer->token;
    s->certificate = outer->certificate;
    s->durability = outer->durability;
    s->outer = outer;
    n->out = out;
    n->most = outer->host->answer_max;
    n->stops = n->failed = false;
}

enum cht_rc line_nested_run(struct line_nested *n, char *p, size_t len)
{
    enum cht_rc rc = CHT_OK;
    struct svc_database *d = n->stops ? svc_dbs_get(n->s.host->dbs, n->s.database) : NULL;
    bool singly = d != NULL && line_hidden_now(d);
    n->s.unmarked = d != NULL && !singly && cht_store_remote(d->store);
    svc_dbs_put(d);
    if (!singly)
        return run(n, p, len);
    while (len > 0 && rc == CHT_OK && !n->failed) {
        size_t one = (size_t)((char *)memchr(p, '\n', len) - p) + 1;
        rc = run(n, p, one);
        p += one;
        len -= one;
    }
    return rc;
}

void line_nested_fini(struct line_nested *n) { line_session_fini(&n->s); }

struct cht_str line_answers_at(const struct line_answers *a, size_t i)
{
    size_t from = i > 0 ? a->end[i - 1] : 0;
    return (struct cht_str){.p = (const uint8_t *)a->text.p + from, .n = a->end[i] - from};
}

bool line_answers_add(struct line_answers *a, const char *p, size_t n)
{
    if (a->n == a->cap) {
        size_t cap = a->cap == 0 ? 16 : a->cap * 2, *end = cht_realloc(a->end, cap * sizeof *end);
        if (end == NULL)
            return false;
        a->end = end;
        a->cap = cap;
    }
    svc_out_bytes(&a->text, p, n);
    if (a->text.failed)
        return false;
    a->end[a->n++] = a->text.n;
    return true;
}

void line_answers_free(struct line_answers *a)
{
    svc_out_free(&a->text);
    cht_free(a->end);
    *a = (struct line_answers){0};
}

bool line_is_error(struct cht_str answer) { return CHT_STARTS(answer.p, answer.n, "ERROR,"); }
