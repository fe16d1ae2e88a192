/* scan: `cheetah-db scan`: the pairs under a prefix in byte order, as a table on a terminal and as lines of JSON elsewhere, written while
 * they arrive.
 *
 * NDJSON: {"name":"greeting:de","key":1} a line, with --values also "size" and "text"; a name or value that is no text is "pair" or
 * "value", in base64; with --hex a name is "hex". A value that is damaged has "error" in its place, the scan goes on, and the exit code
 * is 3. What follows a scan that --limit ended is said on stderr.
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

#define NAME_COLUMNS 40
#define TAG_CHARACTERS 20u /* in JSON: 16, and two quotes with their backslashes */

static const char help_before[] =
    "cheetah-db scan [PREFIX] [OPTION ...]: the pairs under a prefix, or all of them, in byte order\n"
    "\n"
    "A table on a terminal, lines of JSON elsewhere or with --json.\n"
    "\n";

struct job {
    struct tool_one one;
    const char *prefix, *after, *until;
    uint64_t limit;
    bool values, reverse, etags, expires;
    struct cht_buf name, value; /* of a line */
    struct svc_out path, text;
    unsigned columns;
    bool ended, strange, headed;
    uint64_t rows, damaged;
    struct cht_buf next; /* where to go on, empty: at the end */
    struct cht_err err;  /* of the stream's last line */
};

static bool no_memory(struct job *j)
{
    j->err.code = CHT_FAIL(&j->err, CHT_NO_MEMORY, "no memory for a line of the scan");
    return false;
}

/* The bytes of a member in base64, in b. False: there is none that can be read. */
static bool take_bytes(const struct tool_flat *f, const char *member, struct cht_buf *b)
{
    const char *p;
    size_t n;
    b->len = 0;
    return tool_flat_string(f, member, &p, &n) &&
           cht_buf_reserve(b, cht_b64_decoded_max(n) + 1, NULL) == CHT_OK &&
           cht_b64_decode(b->data, p, n, &b->len);
}

/* ---- one pair ------------------------------------------------------------------------------------------------------- */

static void print_json(struct job *j, const struct tool_flat *f, uint64_t key, bool has_value)
{
    uint64_t size;
    struct svc_out *o = &j->text;
    const char *error;
    size_t n;
    svc_out_text(o, "{");
    tool_one_name_member(&j->one, o, j->name.data, j->name.len);
    svc_out_format(o, ",\"key\":%" PRIu64, key);
    if (j->values && tool_flat_number(f, "size", &size))
        svc_out_format(o, ",\"size\":%" PRIu64, size);
    if (j->expires && tool_flat_number(f, "expires", &size))
        svc_out_format(o, ",\"expires\":%" PRIu64, size);
    const struct tool_flat_field *tag = tool_flat_get(f, "etag");
    if (tag != NULL && tag->n == TAG_CHARACTERS)
        svc_out_format(o, ",\"etag\":\"%.16s\"", tag->p + 2);
    if (has_value) {
        svc_out_text(o, ",");
        tool_one_value_member(o, j->value.data, j->value.len);
    } else if (tool_flat_string(f, "error", &error, &n)) {
        svc_out_text(o, ",\"value\":null,\"error\":");
        svc_out_string(o, error, n);
    } else if (j->values) {
        svc_out_text(o, ",\"value\":null");
    }
    svc_out_text(o, "}");
    tool_one_line(stdout, o, 0);
}

/* The name padded, the key, and what of the value fits. */
static void print_row(struct job *j, const struct tool_flat *f, uint64_t key, bool has_value)
{
    struct svc_out *o = &j->text;
    uint64_t ends;
    if (!j->headed)
        (void)printf("%-*s  %12s%s%s\n", NAME_COLUMNS, "NAME", "KEY", j->expires ? "       EXPIRES" : "",
                     j->values ? "  VALUE" : "");
    j->headed = true;
    tool_one_padded_cell(&j->one, o, j->name.data, j->name.len, NAME_COLUMNS);
    svc_out_format(o, "  %12" PRIu64, key);
    if (j->expires && tool_flat_number(f, "expires", &ends))
        svc_out_format(o, "  %12" PRIu64, ends);
    else if (j->expires)
        svc_out_format(o, "  %12s", "never");
    if (has_value) {
        const uint8_t *v = j->value.data;
        size_t n = j->value.len < 4 * (size_t)j->columns ? j->value.len : 4 * (size_t)j->columns;
        bool text = tool_one_is_line(v, j->value.len);
        svc_out_text(o, text ? "  " : "  x");
        if (text)
            svc_out_bytes(o, v, n);
        else if (svc_out_room(o, 2 * n))
            o->n += svc_out_hex(o->p + o->n, v, n);
    } else if (j->values) {
        svc_out_text(o, tool_flat_get(f, "error") != NULL ? "  (damaged)" : "  (no value)");
    }
    tool_one_line(stdout, o, j->columns);
}

/* ---- the stream ------------------------------------------------------------------------------------------------------- */

static void take_end(struct job *j, const struct tool_flat_field *end)
{
    struct tool_flat f;
    const char *p;
    size_t n;
    j->ended = tool_flat_parse(&f, end->p, end->n);
    if (j->ended && tool_flat_string(&f, "next", &p, &n) &&
        cht_buf_reserve(&j->next, n + 1, NULL) == CHT_OK) {
        memcpy(j->next.data, p, n);
        j->next.len = n;
    }
}

static bool take_line(void *ctx, const char *p, size_t n)
{
    struct job *j = ctx;
    struct tool_flat f;
    uint64_t key;
    if (!tool_flat_parse(&f, p, n)) {
        j->strange = true;
        return false;
    }
    const struct tool_flat_field *end = tool_flat_get(&f, "end"), *error = tool_flat_get(&f, "error");
    bool damaged = error != NULL && error->kind == TOOL_FLAT_STRING;
    if (end != NULL || (error != NULL && !damaged)) {
        if (end != NULL)
            take_end(j, end);
        else
            j->err.code = tool_one_stream_error(&j->one, error, "the scan failed", &j->err);
        return true;
    }
    if (!take_bytes(&f, "pair", &j->name) || !tool_flat_number(&f, "key", &key)) {
        j->strange = true;
        return false;
    }
    bool has_value = take_bytes(&f, "value", &j->value);
    j->text.n = 0;
    j->rows++;
    j->damaged += damaged;
    if (j->one.table)
        print_row(j, &f, key, has_value);
    else
        print_json(j, &f, key, has_value);
    return j->text.failed ? no_memory(j) : ferror(stdout) == 0;
}

static enum cht_rc outcome(struct job *j, enum cht_rc rc, struct cht_err *err)
{
    const char *where = tool_place_name(&j->one.place);
    if (j->err.code != CHT_OK) {
        *err = j->err;
        return err->code;
    }
    if (j->strange)
        return CHT_FAIL(err, CHT_IO, "%.80s gave an answer that cannot be read; is it a cheetah-db server?",
                        where);
    if (rc == CHT_CANCELLED)
        return CHT_FAIL(err, CHT_IO, "the output could not be written");
    if (rc == CHT_OK && !j->ended)
        return CHT_FAIL(err, CHT_IO, "%.80s: the scan was cut off", where);
    if (rc == CHT_OK && j->damaged > 0)
        return CHT_FAIL(err, CHT_CORRUPT, "%.80s: %" PRIu64 " values are damaged", where, j->damaged);
    return rc;
}

/* How to go on, in the words of the next call. `next` is x and hexadecimal. */
static void tell_rest(struct job *j)
{
    struct tool_one hex = {.hex = true};
    if (j->next.len < 2)
        return;
    j->next.data[j->next.len] = 0;
    j->name.len = 0;
    j->text.n = 0;
    if (tool_one_name(&hex, (const char *)j->next.data + 1, &j->name, NULL) != CHT_OK)
        return;
    bool plain = !j->one.hex && tool_one_is_line(j->name.data, j->name.len) &&
                 memchr(j->name.data, '\'', j->name.len) == NULL; /* it stands in a command to copy */
    tool_one_name_cell(plain ? &j->one : &hex, &j->text, j->name.data, j->name.len);
    (void)fprintf(stderr, "cheetah-db scan: there is more: %s--after '%.*s'\n",
                  plain || j->one.hex ? "" : "--hex ", (int)j->text.n, j->text.n > 0 ? j->text.p : "");
}

static enum cht_rc add_bound(struct job *j, const char *parameter, const char *arg, struct cht_err *err)
{
    if (arg == NULL)
        return CHT_OK;
    j->name.len = 0;
    enum cht_rc rc = tool_one_name(&j->one, arg, &j->name, err);
    if (rc == CHT_OK)
        tool_one_parameter(&j->path, parameter, &j->name);
    return rc;
}

static enum cht_rc scan(struct job *j, struct cht_err *err)
{
    unsigned rows;
    struct tool_lines lines = {.line = take_line, .ctx = j};
    enum cht_rc rc = tool_one_name(&j->one, j->prefix, &j->name, err);
    tool_one_path(&j->one, &j->path, "/pairs/", &j->name);
    if (rc == CHT_OK)
        rc = add_bound(j, "after", j->after, err);
    if (rc == CHT_OK)
        rc = add_bound(j, "until", j->until, err);
    if (j->limit > 0)
        svc_out_format(&j->path, "&limit=%" PRIu64, j->limit);
    svc_out_text(&j->path, j->values ? "&values=true" : "");
    svc_out_text(&j->path, j->etags ? "&etags=true" : "");
    svc_out_text(&j->path, j->expires ? "&expires=true" : "");
    svc_out_text(&j->path, j->reverse ? "&reverse=true" : "");
    svc_out_bytes(&j->path, "", 1);
    if (rc == CHT_OK && j->path.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a path");
    if (rc != CHT_OK)
        return rc;
    cht_os_terminal_size(1, &rows, &j->columns);
    struct tool_request r = {.path = j->path.p, .sink = tool_lines_feed, .sink_ctx = &lines};
    rc = tool_client_run(j->one.place.client, &r, err);
    if (lines.no_memory)
        (void)no_memory(j);
    tool_lines_fini(&lines);
    rc = outcome(j, rc, err);
    if (rc == CHT_OK)
        tell_rest(j);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

int tool_scan(int argc, char **argv)
{
    struct job j = {.one.command = "scan"};
    struct cht_err err = {0};
    int rest;
    const struct tool_opt opts[] = {
        {"values", 'v', TOOL_OPT_FLAG, &j.values, 0, NULL, "with the values"},
        {"limit", 'n', TOOL_OPT_NUMBER, &j.limit, INT64_MAX, "N", "at most N pairs"},
        {"after", 0, TOOL_OPT_STRING, &j.after, 0, "NAME", "only names after this one"},
        {"until", 0, TOOL_OPT_STRING, &j.until, 0, "NAME", "only names before this one"},
        {"reverse", 0, TOOL_OPT_FLAG, &j.reverse, 0, NULL,
         "from the last one back; --after is then a name to begin before"},
        {"expires", 0, TOOL_OPT_FLAG, &j.expires, 0, NULL,
         "when each pair ends, in seconds since 1970, if it does"},
        {"etags", 0, TOOL_OPT_FLAG, &j.etags, 0, NULL,
         "with --values: the tag of each value, for --if-match (in JSON)"},
        TOOL_ONE_HEX(&j.one),
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (rest > 1)
        return tool_one_usage(&j.one, "takes one prefix; see cheetah-db scan --help");
    if (j.etags && !j.values)
        return tool_one_usage(&j.one, "--etags goes with --values");
    j.prefix = rest == 1 ? argv[0] : "";
    int code = tool_one_begin(&j.one, false);
    if (code == TOOL_EXIT_OK && scan(&j, &err) != CHT_OK)
        code = tool_one_failed(&j.one, &err);
    code = tool_one_end(&j.one, code);
    cht_buf_free(&j.name);
    cht_buf_free(&j.value);
    cht_buf_free(&j.next);
    svc_out_free(&j.path);
    svc_out_free(&j.text);
    return code;
}
