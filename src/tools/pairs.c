/* pairs: `cheetah-db get, put, del, count, add`: one pair or a prefix, in a running server or on stopped data (place.h). `scan` is
 * scan.c.
 *
 * The value goes to stdout as it is: `cheetah-db get NAME >FILE` is the value's bytes and no more, and only on a terminal a newline
 * ends a text that has none. What a write did is told on a terminal and with --json, and is silent in a script.
 */
#include "tools/flat.h"
#include "tools/one.h"
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "os/terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RAW "application/octet-stream"
#define VALUE_MORE (64u << 10) /* bytes of an answer beside the value */

struct job {
    struct tool_one one;
    const char *arg, *file, *ttl; /* the name, as typed; of put, the last as typed, too */
    const char *tag;              /* --if-match */
    bool absent;                  /* --if-absent */
    char condition[64];           /* of them, as a header */
    char by[24];                  /* of add: a number as JSON has it */
    struct cht_buf name, value, answer;
    struct svc_out path, text;
    bool keep_value, recursive, yes; /* of del */
    uint8_t last;                    /* of what went to stdout */
};

static void fini(struct job *j)
{
    cht_buf_free(&j->name);
    cht_buf_free(&j->value);
    cht_buf_free(&j->answer);
    svc_out_free(&j->path);
    svc_out_free(&j->text);
}

/* The name, the path that it stands in, and `query`. */
static enum cht_rc address(struct job *j, const char *name, const char *query, struct cht_err *err)
{
    enum cht_rc rc = tool_one_name(&j->one, name, &j->name, err);
    tool_one_path(&j->one, &j->path, "/pairs/", &j->name);
    svc_out_text(&j->path, query);
    svc_out_bytes(&j->path, "", 1);
    if (rc == CHT_OK && j->path.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a path");
    return rc;
}

/* {"name":...,"key":...,"size":...,"etag":...,"text":...} of what is in `f`; value NULL: it is not shown. */
static void print_pair(struct job *j, const struct tool_flat *f, const struct tool_request *r,
                       const struct cht_buf *value)
{
    uint64_t n;
    svc_out_text(&j->text, "{");
    tool_one_name_member(&j->one, &j->text, j->name.data, j->name.len);
    if (tool_flat_number(f, "key", &n))
        svc_out_format(&j->text, ",\"key\":%" PRIu64, n);
    if (tool_flat_number(f, "size", &n))
        svc_out_format(&j->text, ",\"size\":%" PRIu64, n);
    if (tool_flat_number(f, "expires", &n))
        svc_out_format(&j->text, ",\"expires\":%" PRIu64, n);
    if (r->tag[0] != 0) {
        svc_out_text(&j->text, ",\"etag\":");
        svc_out_string(&j->text, r->tag, strlen(r->tag));
    }
    if (value != NULL) {
        svc_out_text(&j->text, ",");
        tool_one_value_member(&j->text, value->data, value->len);
    }
    svc_out_text(&j->text, "}");
    tool_one_line(stdout, &j->text, 0);
}

static enum cht_rc strange(const struct job *j, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_IO, "%.80s gave an answer that cannot be read; is it a cheetah-db server?",
                    tool_place_name(&j->one.place));
}

/* ---- get ------------------------------------------------------------------------------------------------------------ */

static bool take_value(void *ctx, const char *p, size_t n)
{
    struct job *j = ctx;
    j->last = n > 0 ? (uint8_t)p[n - 1] : j->last;
    return n == 0 || fwrite(p, 1, n, stdout) == n;
}

/* The value of an answer in JSON, decoded in place. */
static enum cht_rc decode(struct job *j, struct tool_flat *f, struct cht_err *err)
{
    const char *p;
    size_t n;
    if (!tool_flat_parse(f, (const char *)j->answer.data, j->answer.len))
        return strange(j, err);
    if (!tool_flat_string(f, "value", &p, &n))
        return CHT_FAIL(err, CHT_KEY_NOT_FOUND, "%.80s: the name leads to a key that has no value",
                        tool_place_name(&j->one.place));
    enum cht_rc rc = cht_buf_reserve(&j->value, cht_b64_decoded_max(n) + 1, err);
    if (rc == CHT_OK && !cht_b64_decode(j->value.data, p, n, &j->value.len))
        rc = strange(j, err);
    return rc;
}

static enum cht_rc get_json(struct job *j, struct cht_err *err)
{
    struct tool_request r = {.path = j->path.p, .answer_max = cht_b64_encoded(CHT_VALUE_MAX) + VALUE_MORE};
    struct tool_flat f;
    enum cht_rc rc = tool_one_ask(&j->one, &r, &j->answer, err);
    if (rc == CHT_OK)
        rc = decode(j, &f, err);
    if (rc == CHT_OK)
        print_pair(j, &f, &r, &j->value);
    return rc;
}

struct raw {
    struct job *j;
    const struct tool_request *request;
};

/* The value as it comes; from a server that knows no raw answers here, an object, which is collected. */
static bool take_either(void *ctx, const char *p, size_t n)
{
    const struct raw *raw = ctx;
    struct job *j = raw->j;
    struct cht_buf *b = &j->answer;
    if (raw->request->type != NULL && CHT_BEGINS(raw->request->type, RAW))
        return take_value(j, p, n);
    if (b->cap - b->len <= n && cht_buf_reserve(b, 2 * (b->len + n) + 1, NULL) != CHT_OK)
        return false;
    memcpy(b->data + b->len, p, n);
    b->len += n;
    return true;
}

static enum cht_rc get_raw(struct job *j, struct cht_err *err)
{
    struct raw raw = {.j = j};
    struct tool_request r = {.path = j->path.p, .accept = RAW, .sink = take_either, .sink_ctx = &raw};
    struct tool_flat f;
    raw.request = &r;
    enum cht_rc rc = tool_client_run(j->one.place.client, &r, err);
    if (rc == CHT_OK && j->answer.len > 0) {
        rc = decode(j, &f, err);
        if (rc == CHT_OK && !take_value(j, (const char *)j->value.data, j->value.len))
            rc = CHT_CANCELLED;
    }
    if (rc == CHT_OK && cht_os_is_terminal(1) && j->last != '\n')
        (void)fputc('\n', stdout);
    if (rc == CHT_CANCELLED)
        rc = CHT_FAIL(err, CHT_IO, "the output could not be written");
    return rc;
}

static enum cht_rc get(struct job *j, struct cht_err *err)
{
    enum cht_rc rc = address(j, j->arg, "&exact=true&values=true", err);
    if (rc != CHT_OK)
        return rc;
    return j->one.json ? get_json(j, err) : get_raw(j, err);
}

/* ---- conditions ------------------------------------------------------------------------------------------------------ */

static const char matched[] = "only if the value has this tag, of get --json; *: if there is one";

/* What may stand in the quotes of a tag (RFC 9110, 8.8.3), without what is beyond ASCII. */
static bool is_tag(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] <= ' ' || p[i] >= 0x7F || p[i] == '"')
            return false;
    }
    return true;
}

/* The header of --if-match or --if-absent; false: it cannot be one. */
static bool take_condition(struct job *j)
{
    const char *p = j->tag;
    if (j->absent)
        (void)snprintf(j->condition, sizeof j->condition, "If-None-Match: *");
    if (p == NULL)
        return true;
    size_t n = strlen(p);
    if (n >= 2 && p[0] == '"' && p[n - 1] == '"') {
        p++;
        n -= 2;
    }
    bool any = strcmp(p, "*") == 0;
    (void)snprintf(j->condition, sizeof j->condition, any ? "If-Match: *" : "If-Match: \"%.*s\"", (int)n, p);
    return !j->absent && n > 0 && n < TOOL_CLIENT_TAG && (any || is_tag(p, n));
}

static const char *condition_of(const struct job *j) { return j->condition[0] != 0 ? j->condition : NULL; }

/* ---- put ------------------------------------------------------------------------------------------------------------ */

static enum cht_rc put(struct job *j, struct cht_err *err)
{
    struct tool_flat f;
    uint64_t key = 0, size = 0;
    char query[32] = "";
    if (j->ttl != NULL)
        (void)snprintf(query, sizeof query, "&ttl=%.20s", j->ttl); /* digits */
    enum cht_rc rc = address(j, j->arg, query, err);
    if (rc != CHT_OK)
        return rc;
    struct tool_request r = {.method = "PUT",
                             .path = j->path.p,
                             .content_type = RAW,
                             .condition = condition_of(j),
                             .body = (const char *)j->value.data,
                             .body_len = j->value.len};
    rc = tool_one_ask(&j->one, &r, &j->answer, err);
    if (rc == CHT_OK && (!tool_flat_parse(&f, (const char *)j->answer.data, j->answer.len) ||
                         !tool_flat_number(&f, "key", &key) || !tool_flat_number(&f, "size", &size)))
        rc = strange(j, err);
    if (rc != CHT_OK)
        return rc;
    if (j->one.json)
        print_pair(j, &f, &r, NULL);
    else if (j->one.table)
        (void)printf("%s: %" PRIu64 " bytes under key %" PRIu64 ", %s\n", tool_place_name(&j->one.place),
                     size, key, r.status == 201 ? "new" : "replaced");
    return CHT_OK;
}

/* ---- del ------------------------------------------------------------------------------------------------------------ */

static enum cht_rc del(struct job *j, struct cht_err *err)
{
    struct tool_flat f;
    uint64_t pairs = 0, values = 0;
    enum cht_rc rc = address(j, j->arg, j->keep_value ? "" : "&values=true", err);
    if (j->recursive) {
        j->path.n--; /* the zero */
        svc_out_text(&j->path, "&recursive=true");
        svc_out_bytes(&j->path, "", 1);
    }
    if (rc != CHT_OK)
        return rc;
    struct tool_request r = {.method = "DELETE", .path = j->path.p, .condition = condition_of(j)};
    if (j->path.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a path");
    else
        rc = tool_one_ask(&j->one, &r, &j->answer, err);
    if (rc != CHT_OK)
        return rc;
    if (j->recursive &&
        (!tool_flat_parse(&f, (const char *)j->answer.data, j->answer.len) ||
         !tool_flat_number(&f, "pairs_deleted", &pairs) || !tool_flat_number(&f, "values_deleted", &values)))
        return strange(j, err);
    if (j->recursive && j->one.json)
        (void)printf("{\"pairs_deleted\":%" PRIu64 ",\"values_deleted\":%" PRIu64 "}\n", pairs, values);
    else if (j->recursive && j->one.table)
        (void)printf("%s: %" PRIu64 " pairs and %" PRIu64 " values deleted\n", tool_place_name(&j->one.place),
                     pairs, values);
    else if (j->one.table)
        (void)printf("%s: deleted\n", tool_place_name(&j->one.place));
    return CHT_OK;
}

/* ---- count and add --------------------------------------------------------------------------------------------------- */

static enum cht_rc count(struct job *j, struct cht_err *err)
{
    struct tool_flat f;
    uint64_t pairs;
    enum cht_rc rc = address(j, j->arg, "&count=true", err);
    struct tool_request r = {.path = j->path.p};
    if (rc == CHT_OK)
        rc = tool_one_ask(&j->one, &r, &j->answer, err);
    if (rc == CHT_OK && (!tool_flat_parse(&f, (const char *)j->answer.data, j->answer.len) ||
                         !tool_flat_number(&f, "pairs", &pairs)))
        rc = strange(j, err);
    if (rc == CHT_OK)
        (void)printf(j->one.json ? "{\"pairs\":%" PRIu64 "}\n" : "%" PRIu64 "\n", pairs);
    return rc;
}

/* The first line of an answer to a batch of one operation: what it says, or the failure. */
static enum cht_rc one_result(struct job *j, json_t **out, struct cht_err *err)
{
    const char *p = (const char *)j->answer.data, *end = p != NULL ? strchr(p, '\n') : NULL;
    json_t *o = end != NULL ? json_loadb(p, (size_t)(end - p), 0, NULL) : NULL;
    const char *detail = json_string_value(json_object_get(o, "detail"));
    const char *code = json_string_value(json_object_get(o, "code"));
    json_int_t status = json_integer_value(json_object_get(o, "status"));
    *out = o;
    if (status >= 200 && status < 300)
        return CHT_OK;
    enum cht_rc rc;
    if (code == NULL)
        rc = strange(j, err);
    else
        rc = CHT_FAIL(err, CHT_IO, "%.90s: %.80s (%.22s)", tool_place_name(&j->one.place),
                      detail != NULL ? detail : "refused", code);
    json_decref(o);
    *out = NULL;
    return rc;
}

static enum cht_rc add(struct job *j, struct cht_err *err)
{
    char path[128];
    json_t *o;
    enum cht_rc rc = tool_one_name(&j->one, j->arg, &j->name, err);
    (void)snprintf(path, sizeof path, "/batch?db=%.64s", j->one.database); /* fits */
    svc_out_text(&j->text, "{\"op\":\"add\",\"pair\":");
    svc_out_b64(&j->text, j->name.data, j->name.len);
    svc_out_format(&j->text, ",\"by\":%s}\n", j->by);
    if (rc == CHT_OK && j->text.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an operation");
    struct tool_request r = {.method = "POST",
                             .path = path,
                             .body = j->text.p,
                             .body_len = j->text.n,
                             .content_type = "application/x-ndjson"};
    if (rc == CHT_OK)
        rc = tool_one_ask(&j->one, &r, &j->answer, err);
    if (rc == CHT_OK)
        rc = one_result(j, &o, err);
    if (rc != CHT_OK)
        return rc;
    json_int_t value = json_integer_value(json_object_get(o, "value"));
    if (j->one.json)
        (void)printf("{\"key\":%" JSON_INTEGER_FORMAT ",\"value\":%" JSON_INTEGER_FORMAT "}\n",
                     json_integer_value(json_object_get(o, "key")), value);
    else
        (void)printf("%" JSON_INTEGER_FORMAT "\n", value);
    json_decref(o);
    return CHT_OK;
}

/* ---- the command line ------------------------------------------------------------------------------------------------ */

static int run(struct job *j, bool writes, enum cht_rc (*fn)(struct job *j, struct cht_err *err))
{
    struct cht_err err = {0};
    int code = tool_one_begin(&j->one, writes);
    if (code == TOOL_EXIT_OK && fn(j, &err) != CHT_OK)
        code = tool_one_failed(&j->one, &err);
    code = tool_one_end(&j->one, code);
    fini(j);
    return code;
}

/* A whole number of 64 bits, without what JSON does not allow. */
static bool take_number(const char *s, char out[24])
{
    bool minus = *s == '-';
    s += *s == '-' || *s == '+';
    if (*s == 0 || strspn(s, "0123456789") != strlen(s))
        return false;
    while (s[0] == '0' && s[1] != 0)
        s++;
    (void)snprintf(out, 24, "%s%.20s", minus ? "-" : "", s); /* fits */
    size_t n = strlen(s);
    return n < 19 || (n == 19 && strcmp(s, minus ? "9223372036854775808" : "9223372036854775807") <= 0);
}

/* ------------------------------------------------------------------------------------------------------------ */

int tool_get(int argc, char **argv)
{
    struct job j = {.one.command = "get"};
    int rest;
    const struct tool_opt opts[] = {TOOL_ONE_HEX(&j.one), TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help("cheetah-db get NAME [OPTION ...]: the value under a name, as it is\n\n", opts,
                              sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (rest != 1)
        return tool_one_usage(&j.one, "takes one name; see cheetah-db get --help");
    j.arg = argv[0];
    return run(&j, false, get);
}

int tool_put(int argc, char **argv)
{
    struct job j = {.one.command = "put"};
    struct cht_err err = {0};
    int rest;
    const struct tool_opt opts[] = {
        {"file", 0, TOOL_OPT_STRING, &j.file, 0, "FILE", "the value is what is in FILE"},
        {"ttl", 0, TOOL_OPT_STRING, &j.ttl, 0, "SECONDS",
         "the name and its value are gone after that; without, they last"},
        {"if-absent", 0, TOOL_OPT_FLAG, &j.absent, 0, NULL,
         "only if there is nothing under the name, else nothing is changed"},
        {"if-match", 0, TOOL_OPT_STRING, &j.tag, 0, "TAG", matched},
        TOOL_ONE_HEX(&j.one),
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(
            "cheetah-db put NAME VALUE [OPTION ...]: stores a value under a name\n"
            "cheetah-db put NAME [- | --file FILE] [OPTION ...]\n"
            "\n"
            "Without VALUE, or with -, the value is the standard input, byte by byte. A value that is\n"
            "there is replaced, and its key stays. It is durable when the command ends with 0.\n"
            "\n",
            opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (rest < 1 || rest > 2)
        return tool_one_usage(&j.one, "takes a name and a value; see cheetah-db put --help");
    if (rest == 2 && j.file != NULL)
        return tool_one_usage(&j.one, "takes a value or --file, not both");
    if (j.ttl != NULL && (strspn(j.ttl, "0123456789.") != strlen(j.ttl) || strlen(j.ttl) - 1 > 19))
        return tool_one_usage(&j.one, "--ttl is a number of seconds, as 60 or 0.5");
    if (!take_condition(&j))
        return tool_one_usage(&j.one, "takes --if-absent, or --if-match with a tag of get --json, or *");
    j.arg = argv[0];
    bool given = rest == 2 && strcmp(argv[1], "-") != 0;
    size_t n = given ? strlen(argv[1]) : 0;
    enum cht_rc rc = given ? cht_buf_reserve(&j.value, n + 1, &err) : tool_one_read(j.file, &j.value, &err);
    if (given && rc == CHT_OK) {
        memcpy(j.value.data, argv[1], n);
        j.value.len = n;
    }
    if (rc == CHT_OK)
        return run(&j, true, put);
    fini(&j);
    return tool_failed(&err);
}

int tool_del(int argc, char **argv)
{
    struct job j = {.one.command = "del"};
    int rest;
    const struct tool_opt opts[] = {{"recursive", 0, TOOL_OPT_FLAG, &j.recursive, 0, NULL,
                                     "every pair whose name begins with NAME; with --yes"},
                                    {"yes", 0, TOOL_OPT_FLAG, &j.yes, 0, NULL, "it is meant"},
                                    {"keep-value", 0, TOOL_OPT_FLAG, &j.keep_value, 0, NULL,
                                     "only the name goes, not the value under its key"},
                                    {"if-match", 0, TOOL_OPT_STRING, &j.tag, 0, "TAG", matched},
                                    TOOL_ONE_HEX(&j.one),
                                    TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help("cheetah-db del NAME [OPTION ...]: deletes a name and its value\n\n", opts,
                              sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (rest != 1)
        return tool_one_usage(&j.one, "takes one name; see cheetah-db del --help");
    if (j.recursive && !j.yes)
        return tool_one_usage(&j.one,
                              "--recursive deletes everything under the prefix: add --yes if that is wanted");
    if (!take_condition(&j) || (j.tag != NULL && j.recursive))
        return tool_one_usage(&j.one, "takes --if-match with a tag of get --json, or *, of one name");
    if (argv[0][0] == 0)
        return tool_one_usage(&j.one, "the name is empty; cheetah-db drop deletes a whole database");
    j.arg = argv[0];
    return run(&j, true, del);
}

int tool_count(int argc, char **argv)
{
    struct job j = {.one.command = "count", .arg = ""};
    int rest;
    const struct tool_opt opts[] = {TOOL_ONE_HEX(&j.one), TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(
            "cheetah-db count [PREFIX] [OPTION ...]: how many pairs there are under a prefix, or in all\n\n",
            opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (rest > 1)
        return tool_one_usage(&j.one, "takes one prefix; see cheetah-db count --help");
    j.arg = rest == 1 ? argv[0] : "";
    return run(&j, false, count);
}

int tool_add(int argc, char **argv)
{
    struct job j = {.one.command = "add"};
    int rest;
    const struct tool_opt opts[] = {TOOL_ONE_HEX(&j.one), TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(
            "cheetah-db add NAME BY [OPTION ...]: adds to the number under a name, and prints the sum\n"
            "\n"
            "The value is a whole number in decimal digits; one that is not there is 0. BY may be negative.\n"
            "\n",
            opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (rest != 2 || !take_number(argv[1], j.by))
        return tool_one_usage(&j.one, "takes a name and a whole number; see cheetah-db add --help");
    j.arg = argv[0];
    return run(&j, true, add);
}
