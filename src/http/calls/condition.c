/* condition: see condition.h. The headers are checked on the HTTP thread, what is there on the committer's. */
#include "http/calls/condition.h"

#include "http/reply.h"

#include <string.h>

static const char *skip_blanks(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

/* An entity-tag (RFC 9110, 8.8.3) at p: where it ends, and its opaque part with the quotes; NULL: there is none. */
static const char *take_tag(const char *p, bool *weak, const char **opaque)
{
    *weak = p[0] == 'W' && p[1] == '/';
    p += *weak ? 2 : 0;
    *opaque = p;
    if (*p++ != '"')
        return NULL;
    while (*p != '"') {
        if ((unsigned char)*p <= ' ' || *p == 0x7F)
            return NULL;
        p++;
    }
    return p + 1;
}

static bool is_any(const char *text)
{
    text = skip_blanks(text);
    return *text == '*' && *skip_blanks(text + 1) == 0;
}

/* Is the tag in the list? Weak ones are as good only for If-None-Match. */
static bool has_tag(const char *list, const char *tag, bool weak_too)
{
    for (const char *p = skip_blanks(list); *p != 0; p = skip_blanks(p)) {
        bool weak;
        const char *opaque;
        if (*p == ',') {
            p++;
            continue;
        }
        const char *end = take_tag(p, &weak, &opaque);
        if (end == NULL)
            return false;
        if ((!weak || weak_too) && end - opaque == HTTP_ETAG_LEN && memcmp(opaque, tag, HTTP_ETAG_LEN) == 0)
            return true;
        p = end;
    }
    return false;
}

static bool match_holds(const char *match, const char *tag)
{
    return match == NULL || (tag != NULL && (is_any(match) || has_tag(match, tag, false)));
}

static bool none_holds(const char *none, const char *tag)
{
    return none == NULL || tag == NULL || (!is_any(none) && !has_tag(none, tag, true));
}

/* Why a precondition does not hold; tag NULL: nothing is there. */
static const char *reason(const char *tag)
{
    return tag != NULL ? "what is there is not what the request asks for" : "there is nothing";
}

static enum cht_rc decide(struct cht_ask *ask, struct cht_op *op, const struct cht_found *found,
                          struct cht_err *err)
{
    const struct http_condition *c = (const struct http_condition *)(void *)ask;
    bool by_tag = (c->match != NULL && !is_any(c->match)) || (c->none != NULL && !is_any(c->none));
    char text[HTTP_ETAG_LEN + 1] = "";
    const char *tag = found->mapped ? text : NULL;
    (void)op;
    if (tag != NULL && by_tag && found->damage != CHT_OK)
        return CHT_FAIL(err, found->damage, "the value under key %llu cannot be read",
                        (unsigned long long)found->key);
    if (tag != NULL && by_tag)
        http_etag_text(text, http_etag(found->key, found->value.p, found->value.n));
    if (match_holds(c->match, tag) && none_holds(c->none, tag))
        return CHT_OK;
    return CHT_FAIL(err, CHT_PRECONDITION_FAILED, "%s", reason(tag));
}

static bool refuse(struct http_request *r, const char *tag)
{
    http_reply_fail(r, CHT_PRECONDITION_FAILED, "%s", reason(tag));
    return false;
}

/* -------------------------------------------------------------------------------------------------------------------- */

bool http_condition_valid(const char *text)
{
    bool weak, any = false, separate = true;
    const char *opaque;
    if (is_any(text))
        return true;
    for (const char *p = skip_blanks(text); *p != 0; p = skip_blanks(p)) {
        if (*p == ',') {
            separate = true;
            p++;
            continue;
        }
        p = separate ? take_tag(p, &weak, &opaque) : NULL;
        if (p == NULL)
            return false;
        any = true;
        separate = false;
    }
    return any;
}

void http_condition_ask(struct http_condition *c) { c->ask = (struct cht_ask){.decide = decide}; }

bool http_condition_check(struct http_request *r)
{
    const char *match = r->in[HTTP_H_IF_MATCH], *none = r->in[HTTP_H_IF_NONE_MATCH];
    if (!r->conditional)
        return true;
    if (!r->twice && (match == NULL || http_condition_valid(match)) &&
        (none == NULL || http_condition_valid(none)))
        return true;
    http_reply_fail(r, CHT_INVALID_PRECONDITION, "%s",
                    r->twice ? "a precondition is given twice; a list has commas"
                             : cht_rc_text(CHT_INVALID_PRECONDITION));
    return false;
}

bool http_condition_found(struct http_request *r, uint64_t key, const uint8_t *value, size_t n)
{
    http_reply_tag(r, http_etag(key, value, n));
    if (!r->conditional)
        return true;
    if (!match_holds(r->in[HTTP_H_IF_MATCH], r->etag))
        return refuse(r, r->etag);
    if (none_holds(r->in[HTTP_H_IF_NONE_MATCH], r->etag))
        return true;
    http_reply_empty(r, 304);
    return false;
}

bool http_condition_absent(struct http_request *r)
{
    return match_holds(r->in[HTTP_H_IF_MATCH], NULL) || refuse(r, NULL);
}

struct cht_op *http_condition_operation(struct http_request *r, enum cht_op_kind kind)
{
    struct own {
        struct cht_op op;
        struct http_condition condition;
    } *own = http_request_own(r, sizeof *own);
    own->op = (struct cht_op){.kind = kind};
    if (!r->conditional)
        return &own->op;
    if (!http_condition_check(r))
        return NULL;
    own->condition =
        (struct http_condition){.match = r->in[HTTP_H_IF_MATCH], .none = r->in[HTTP_H_IF_NONE_MATCH]};
    http_condition_ask(&own->condition);
    own->op.ask = &own->condition.ask;
    return &own->op;
}
