/* batch_line: what a line of a batch says: which operation, with which members; and the memory that these lie in. */
#include "http/calls/batch_int.h"

#include "http/calls/change.h"
#include "http/calls/condition.h"
#include "http/server.h"

#include "base/alloc.h"
#include "base/literal.h"

#include <stdio.h>

#define BLOCK (256u << 10) /* of memory for operations */

enum cht_rc http_batch_no_memory(struct http_request *r)
{
    return CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the batch");
}

uint8_t *http_batch_memory(struct http_request *r, size_t n)
{
    struct http_batch *b = r->own;
    struct http_batch_block *k = b->blocks;
    if (k == NULL || k->cap - k->n < n) {
        size_t cap = n > BLOCK / 4 ? n : BLOCK;
        if (svc_memory_take(&r->memory, cap, &r->err) != CHT_OK)
            return NULL;
        k = cht_malloc(sizeof *k + cap);
        if (k == NULL)
            return http_batch_no_memory(r), NULL;
        b->bytes += cap;
        k->n = 0;
        k->cap = cap;
        if (b->blocks != NULL && cap == n &&
            b->blocks->cap - b->blocks->n > BLOCK / 8) { /* keep the open one in front */
            k->next = b->blocks->next;
            b->blocks->next = k;
        } else {
            k->next = b->blocks;
            b->blocks = k;
        }
    }
    uint8_t *p = k->data + k->n;
    k->n += n;
    return p;
}

static void *take_aligned(struct http_request *r, size_t n)
{
    uint8_t *p = http_batch_memory(r, n + _Alignof(max_align_t));
    size_t off = (uintptr_t)p % _Alignof(max_align_t);
    return p == NULL || off == 0 ? p : p + _Alignof(max_align_t) - off;
}

/* A base64 member. False: refused, or *fatal and r->err without memory. */
static bool take_bytes(struct http_request *r, const json_t *o, const char *member, struct cht_str *out,
                       struct http_batch_entry *e, bool *fatal)
{
    const json_t *text = json_object_get(o, member);
    bool pair = member[0] == 'p';
    if (!json_is_string(text))
        return http_batch_refuse(e, CHT_INVALID_OPERATION,
                                 pair ? "\"pair\" is missing" : "\"value\" is missing");
    size_t n = json_string_length(text), len;
    uint8_t *p = http_batch_memory(r, cht_b64_decoded_max(n) + 4);
    if (p == NULL) {
        *fatal = true;
        return false;
    }
    if (!cht_b64_decode(p, json_string_value(text), n, &len))
        return http_batch_refuse(e, pair ? CHT_INVALID_PAIR : CHT_INVALID_VALUE,
                                 pair ? "\"pair\" is standard base64 with padding"
                                      : "\"value\" is standard base64 with padding");
    if (pair && (len == 0 || len > CHT_NAME_MAX))
        return http_batch_refuse(e, CHT_INVALID_PAIR, cht_rc_text(CHT_INVALID_PAIR));
    if (!pair && len == 0)
        return http_batch_refuse(e, CHT_EMPTY_VALUE, cht_rc_text(CHT_EMPTY_VALUE));
    *out = (struct cht_str){.p = p, .n = len};
    return true;
}

static bool take_key(const json_t *o, uint64_t *key, struct http_batch_entry *e)
{
    const json_t *v = json_object_get(o, "key");
    if (v == NULL)
        return http_batch_refuse(e, CHT_INVALID_OPERATION, "\"key\" is missing");
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > (json_int_t)CHT_KEY_MAX)
        return http_batch_refuse(e, CHT_INVALID_KEY, cht_rc_text(CHT_INVALID_KEY));
    *key = (uint64_t)json_integer_value(v);
    return true;
}

/* How many keys to reserve: its place in the operation is that of a key. */
static bool take_keys(const json_t *o, uint64_t *keys, struct http_batch_entry *e)
{
    const json_t *v = json_object_get(o, "keys");
    if (!json_is_integer(v) || json_integer_value(v) < 1 ||
        json_integer_value(v) > (json_int_t)CHT_RESERVE_MAX)
        return http_batch_refuse(e, CHT_INVALID_OPERATION, "\"keys\" is a number from 1 to 268435456");
    *keys = (uint64_t)json_integer_value(v);
    return true;
}

static bool take_values(const json_t *o, bool *out, struct http_batch_entry *e)
{
    const json_t *v = json_object_get(o, "values");
    *out = json_is_true(v);
    if (v != NULL && !json_is_boolean(v))
        return http_batch_refuse(e, CHT_INVALID_OPERATION, "\"values\" is true or false");
    return true;
}

/* What each operation takes. */
enum {
    TAKES_KEY = 1,
    TAKES_PAIR = 2,
    TAKES_VALUE = 4,
    TAKES_VALUES = 8,
    READS = 16,
    TAKES_KEYS = 32,
    ADDS = 64,
    ADDS_COUNTS = 128,
    TAKES_CONDITION = 256,
    TAKES_TTL = 512,
    TAKES_EXPIRES = 1024
};
static const struct kind {
    const char *name;
    enum cht_op_kind kind;
    unsigned takes;
} kinds[] = {
    {"pair_put", CHT_OP_PAIR_PUT, TAKES_PAIR | TAKES_VALUE | TAKES_CONDITION | TAKES_TTL},
    {"pair_get", CHT_OP_PAIR_READ, TAKES_PAIR | TAKES_VALUES | READS},
    {"read", CHT_OP_READ, TAKES_KEY | READS},
    {"insert", CHT_OP_INSERT, TAKES_VALUE},
    {"edit", CHT_OP_EDIT, TAKES_KEY | TAKES_VALUE | TAKES_CONDITION},
    {"delete", CHT_OP_DELETE, TAKES_KEY | TAKES_CONDITION},
    {"pair_set", CHT_OP_PAIR_SET, TAKES_PAIR | TAKES_KEY | TAKES_CONDITION | TAKES_EXPIRES},
    {"pair_del", CHT_OP_PAIR_DEL, TAKES_PAIR | TAKES_VALUES | TAKES_CONDITION},
    {"add", CHT_OP_PAIR_PUT, TAKES_PAIR | ADDS},
    {"counts_add", CHT_OP_PAIR_PUT, TAKES_PAIR | ADDS_COUNTS},
    {"put", CHT_OP_PUT, TAKES_KEY | TAKES_VALUE},
    {"reserve", CHT_OP_RESERVE, TAKES_KEYS},
};

/* What add and counts_add say. False: refused, or *fatal and r->err without memory. */
static bool take_change(struct http_request *r, const json_t *o, unsigned takes, struct cht_op *op,
                        struct http_batch_entry *e, bool *fatal)
{
    struct http_batch *b = r->own;
    const char *why;
    uint64_t need =
        sizeof(struct http_change) + json_array_size(json_object_get(o, "followers")) * 2 * sizeof(int64_t);
    *fatal = svc_memory_take(&r->memory, need, &r->err) != CHT_OK;
    if (*fatal)
        return false;
    struct http_change *c = (takes & ADDS) != 0 ? http_change_add(o, &why) : http_change_counts(o, &why);
    if (c == NULL && why == NULL) {
        *fatal = true;
        (void)http_batch_no_memory(r);
        return false;
    }
    if (c == NULL)
        return http_batch_refuse(e, CHT_INVALID_OPERATION, why);
    c->memory = &r->memory;
    c->next = b->changes;
    b->changes = c;
    op->ask = &c->change.ask;
    op->keep_end = true;
    return true;
}

/* "if_match": a tag, with its quotes or without, or *; *text: as in a header, NULL: not there. */
static bool take_tag(struct http_request *r, const json_t *v, const char **text, struct http_batch_entry *e,
                     bool *fatal)
{
    const char *p = json_string_value(v);
    size_t n = json_string_length(v);
    *text = NULL;
    if (v == NULL)
        return true;
    if (p == NULL || strlen(p) != n || n > HTTP_ETAG_LEN)
        return http_batch_refuse(e, CHT_INVALID_PRECONDITION, "\"if_match\" is a tag or \"*\"");
    bool bare = n > 0 && p[0] != '"' && p[0] != '*';
    char *copy = (char *)http_batch_memory(r, n + 3);
    if (copy == NULL) {
        *fatal = true;
        return false;
    }
    (void)snprintf(copy, n + 3, bare ? "\"%s\"" : "%s", p);
    *text = copy;
    return http_condition_valid(copy) ||
           http_batch_refuse(e, CHT_INVALID_PRECONDITION, "\"if_match\" is a tag or \"*\"");
}

/* Whoever asks for an end must not get a pair that lasts. */
static bool take_ttl(const json_t *v, unsigned takes, struct cht_op *op, struct http_batch_entry *e)
{
    if ((takes & TAKES_TTL) == 0)
        return http_batch_refuse(e, CHT_UNKNOWN_PARAMETER, "\"ttl\" goes with pair_put only");
    double seconds = json_is_number(v) ? json_number_value(v) : 0;
    if (!(seconds >= 0.001 && seconds * 1000 <= (double)CHT_TTL_MAX_MS))
        return http_batch_refuse(e, CHT_INVALID_OPERATION,
                                 "\"ttl\" is a number of seconds, 0.001 to 3162240000");
    op->ttl_ms = (uint64_t)(seconds * 1000 + 0.5);
    return true;
}

/* An end that is known by the clock, of a pair that is copied: one that has been takes pair and value away at once. */
static bool take_expires(const json_t *v, unsigned takes, struct cht_op *op, struct http_batch_entry *e)
{
    if ((takes & TAKES_EXPIRES) == 0)
        return http_batch_refuse(e, CHT_UNKNOWN_PARAMETER, "\"expires\" goes with pair_set only");
    if (!json_is_integer(v) || json_integer_value(v) < 1 ||
        json_integer_value(v) > (json_int_t)CHT_EXPIRES_MAX)
        return http_batch_refuse(e, CHT_INVALID_OPERATION,
                                 "\"expires\" is a number of seconds since 1970, 1 to 281474976710");
    op->until_ms = (uint64_t)json_integer_value(v) * 1000;
    return true;
}

/* Of the members those that say when the pair ends. */
static bool take_end(const char *member, const json_t *v, unsigned takes, struct cht_op *op,
                     struct http_batch_entry *e)
{
    if (strcmp(member, "ttl") == 0)
        return take_ttl(v, takes, op, e);
    return strcmp(member, "expires") != 0 || take_expires(v, takes, op, e);
}

/* "if_absent", "if_match" and "ttl"; any other member that begins with "if_" is one that is not known. */
static bool take_condition(struct http_request *r, const json_t *o, unsigned takes, struct cht_op *op,
                           struct http_batch_entry *e, bool *fatal)
{
    const json_t *absent = NULL, *match = NULL;
    const char *member, *text;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, member, v) /* NOLINT(performance-no-int-to-ptr): const */
    {
        if (!take_end(member, v, takes, op, e))
            return false;
        if (strncmp(member, CHT_LITERAL("if_")) != 0)
            continue;
        if ((takes & TAKES_CONDITION) == 0)
            return http_batch_refuse(e, CHT_UNSUPPORTED_PRECONDITION, "this operation has no preconditions");
        if (strcmp(member, "if_absent") == 0)
            absent = v;
        else if (strcmp(member, "if_match") == 0)
            match = v;
        else
            return http_batch_refuse(e, CHT_UNSUPPORTED_PRECONDITION,
                                     "preconditions are \"if_absent\" and \"if_match\"");
    }
    if (absent != NULL && !json_is_boolean(absent))
        return http_batch_refuse(e, CHT_INVALID_PRECONDITION, "\"if_absent\" is true or false");
    if (json_is_true(absent) && match != NULL)
        return http_batch_refuse(e, CHT_INVALID_PRECONDITION,
                                 "\"if_absent\" and \"if_match\" exclude each other");
    if (!take_tag(r, match, &text, e, fatal))
        return false;
    if (text == NULL && !json_is_true(absent))
        return true;
    struct http_condition *c = take_aligned(r, sizeof *c);
    if (c == NULL) {
        *fatal = true;
        return false;
    }
    *c = (struct http_condition){.match = text, .none = text == NULL ? "*" : NULL};
    http_condition_ask(c);
    op->ask = &c->ask;
    e->conditional = true;
    return true;
}

/* The members that it must have; more may be preconditions. */
static size_t members_of(unsigned takes)
{
    static const unsigned one[] = {TAKES_KEY, TAKES_PAIR,  TAKES_VALUE, TAKES_KEYS,
                                   ADDS,      ADDS_COUNTS, ADDS_COUNTS};
    size_t n = 1; /* "op" */
    for (size_t i = 0; i < sizeof one / sizeof *one; i++)
        n += (takes & one[i]) != 0;
    return n;
}

/* -------------------------------------------------------------------------------------------------------------------- */

bool http_batch_refuse(struct http_batch_entry *e, enum cht_rc rc, const char *detail)
{
    e->rc = rc;
    e->detail = detail;
    return false;
}

void http_batch_line(struct http_request *r, const json_t *o, struct cht_op *op, struct http_batch_entry *e,
                     bool *fatal)
{
    struct http_batch *b = r->own;
    const json_t *name = json_object_get(o, "op");
    const struct kind *k = NULL;
    for (size_t i = 0; json_is_string(name) && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, json_string_value(name)) == 0)
            k = &kinds[i];
    }
    b->writes |= k == NULL || (k->takes & READS) == 0;
    if (k == NULL) {
        (void)http_batch_refuse(e, CHT_INVALID_OPERATION, "\"op\" names no operation");
        return;
    }
    op->kind = k->kind;
    if ((k->takes & TAKES_PAIR) != 0 && !take_bytes(r, o, "pair", &op->name, e, fatal))
        return;
    if ((k->takes & TAKES_KEY) != 0 && !take_key(o, &op->key, e))
        return;
    if ((k->takes & TAKES_KEYS) != 0 && !take_keys(o, &op->key, e))
        return;
    if ((k->takes & TAKES_VALUES) != 0 && !take_values(o, &op->with_values, e))
        return;
    if ((k->takes & TAKES_VALUE) != 0 && !take_bytes(r, o, "value", &op->value, e, fatal))
        return;
    if ((k->takes & (ADDS | ADDS_COUNTS)) != 0 && !take_change(r, o, k->takes, op, e, fatal))
        return;
    if (json_object_size(o) > members_of(k->takes) && !take_condition(r, o, k->takes, op, e, fatal))
        return;
    if (op->value.n > r->w->srv->conf->max_value_size)
        (void)http_batch_refuse(e, CHT_VALUE_TOO_LARGE, "the value is larger than --max-value-size");
    else if (op->kind == CHT_OP_READ || (op->kind == CHT_OP_PAIR_READ && op->with_values))
        b->reads++;
}
