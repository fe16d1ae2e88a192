/* follow: `cheetah-db changes`: what changed under a prefix, in the order of the commits, as a table on a terminal and as lines of JSON
 * elsewhere; with --follow it goes on until it is ended, as by Ctrl-C.
 *
 * NDJSON: {"seq":7,"name":"greeting:de","key":1,"deleted":false} a line, with "recursive" of a whole prefix and "more" of a change whose
 * group goes on, as GET /changes/{prefix} has them. The number to go on after is that of the last line; it is said on stderr, too.
 */
#include "tools/flat.h"
#include "tools/one.h"
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"
#include "os/terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAME_COLUMNS 40
#define LONGEST 3600u /* seconds of one request */
#define AGAIN_NS UINT64_C(500000000)

static const char help_before[] =
    "cheetah-db changes [PREFIX] [OPTION ...]: what changed under a prefix, in the order of the commits\n"
    "\n"
    "A table on a terminal, lines of JSON elsewhere or with --json. Without --after all that the\n"
    "server's log can tell (--changes-bytes of cheetah-db serve); changes that are told may come again\n"
    "if it is asked once more after a number in the middle of those that were committed together.\n"
    "\n";

struct job {
    struct tool_one one;
    const char *prefix, *after;
    uint64_t limit;
    bool follow;
    struct cht_buf name;
    struct svc_out path, text;
    unsigned columns;
    bool ended, strange, headed;
    uint64_t rows, next; /* next: to go on after; 0: nothing was told yet */
    struct cht_err err;  /* of the stream's last line */
};

/* ---- one change ----------------------------------------------------------------------------------------------------- */

static const char *what_of(bool deleted, bool recursive)
{
    return recursive ? "deleted, and all that begins so" : deleted ? "deleted" : "put";
}

static void print_row(struct job *j, uint64_t seq, bool named, const char *what)
{
    struct svc_out *o = &j->text;
    if (!j->headed)
        (void)printf("%17s  %-*s  %s\n", "AFTER", NAME_COLUMNS, "NAME", "WHAT");
    j->headed = true;
    (void)printf("%17" PRIu64 "  ", seq);
    if (named)
        tool_one_padded_cell(&j->one, o, j->name.data, j->name.len, NAME_COLUMNS);
    else
        svc_out_format(o, "%-*s", NAME_COLUMNS, "(a value, by its key)");
    svc_out_format(o, "  %s", what);
    tool_one_line(stdout, o, j->columns > 20 ? j->columns - 19 : j->columns);
}

static bool is_true(const struct tool_flat *f, const char *member)
{
    const struct tool_flat_field *v = tool_flat_get(f, member);
    return v != NULL && CHT_IS(v->p, v->n, "true");
}

static void print_json(struct job *j, const struct tool_flat *f, uint64_t seq, bool named)
{
    struct svc_out *o = &j->text;
    uint64_t key;
    svc_out_format(o, "{\"seq\":%" PRIu64 ",", seq);
    if (named)
        tool_one_name_member(&j->one, o, j->name.data, j->name.len);
    else
        svc_out_text(o, "\"name\":null");
    if (tool_flat_number(f, "key", &key))
        svc_out_format(o, ",\"key\":%" PRIu64, key);
    else
        svc_out_text(o, ",\"key\":null");
    svc_out_text(o, is_true(f, "deleted") ? ",\"deleted\":true" : ",\"deleted\":false");
    svc_out_text(o, is_true(f, "recursive") ? ",\"recursive\":true" : "");
    svc_out_text(o, is_true(f, "more") ? ",\"more\":true}" : "}");
    tool_one_line(stdout, o, 0);
}

/* ---- the stream ------------------------------------------------------------------------------------------------------- */

static bool take_number(const struct tool_flat_field *object, const char *member, uint64_t *out)
{
    struct tool_flat f;
    return tool_flat_parse(&f, object->p, object->n) && tool_flat_number(&f, member, out);
}

static bool take_change(struct job *j, const struct tool_flat *f)
{
    const char *p;
    size_t n;
    uint64_t seq;
    j->name.len = 0;
    j->text.n = 0;
    bool named = tool_flat_string(f, "pair", &p, &n);
    if (!tool_flat_number(f, "seq", &seq) ||
        (named && (cht_buf_reserve(&j->name, cht_b64_decoded_max(n) + 1, NULL) != CHT_OK ||
                   !cht_b64_decode(j->name.data, p, n, &j->name.len)))) {
        j->strange = true;
        return false;
    }
    j->next = seq;
    j->rows++;
    if (j->one.table)
        print_row(j, seq, named, what_of(is_true(f, "deleted"), is_true(f, "recursive")));
    else
        print_json(j, f, seq, named);
    return !j->text.failed && fflush(stdout) == 0;
}

static bool take_line(void *ctx, const char *p, size_t n)
{
    struct job *j = ctx;
    struct tool_flat f;
    if (!tool_flat_parse(&f, p, n)) {
        j->strange = true;
        return false;
    }
    const struct tool_flat_field *end = tool_flat_get(&f, "end"), *error = tool_flat_get(&f, "error"),
                                 *progress = tool_flat_get(&f, "progress");
    if (error != NULL)
        j->err.code = tool_one_stream_error(&j->one, error, "the changes cannot be told", &j->err);
    else if (end != NULL)
        j->strange = !(j->ended = take_number(end, "next", &j->next));
    else if (progress != NULL)
        j->strange = !take_number(progress, "seq", &j->next);
    else
        return take_change(j, &f);
    return !j->strange;
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
        return CHT_FAIL(err, CHT_IO, "%.80s: the stream was cut off", where);
    return rc;
}

/* One request, after j->next or what the command line says. */
static enum cht_rc ask(struct job *j, struct cht_err *err)
{
    struct tool_lines lines = {.line = take_line, .ctx = j};
    j->name.len = j->path.n = 0;
    j->ended = false;
    enum cht_rc rc = tool_one_name(&j->one, j->prefix, &j->name, err);
    tool_one_path(&j->one, &j->path, "/changes/", &j->name);
    if (j->next > 0)
        svc_out_format(&j->path, "&after=%" PRIu64, j->next);
    else if (j->after != NULL)
        svc_out_format(&j->path, "&after=%.20s", j->after); /* "now", or digits */
    if (j->follow)
        svc_out_format(&j->path, "&wait=%u", LONGEST);
    if (j->limit > 0)
        svc_out_format(&j->path, "&limit=%" PRIu64, j->limit - j->rows);
    svc_out_bytes(&j->path, "", 1);
    if (rc == CHT_OK && j->path.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a path");
    if (rc != CHT_OK)
        return rc;
    struct tool_request r = {.path = j->path.p, .sink = tool_lines_feed, .sink_ctx = &lines};
    rc = tool_client_run(j->one.place.client, &r, err);
    if (lines.no_memory)
        j->err.code = CHT_FAIL(&j->err, CHT_NO_MEMORY, "no memory for a line of the stream");
    tool_lines_fini(&lines);
    return outcome(j, rc, err);
}

static enum cht_rc follow(struct job *j, struct cht_err *err)
{
    unsigned rows;
    enum cht_rc rc;
    cht_os_terminal_size(1, &rows, &j->columns);
    do {
        uint64_t begun = cht_now_ns();
        rc = ask(j, err);
        if (rc == CHT_OK && j->follow && cht_now_ns() - begun < AGAIN_NS)
            cht_sleep_ns(AGAIN_NS); /* the server stops, and ends its streams at once */
    } while (rc == CHT_OK && j->follow && (j->limit == 0 || j->rows < j->limit));
    if (j->next > 0)
        (void)fprintf(stderr, "cheetah-db changes: go on with --after %" PRIu64 "\n", j->next);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

int tool_changes(int argc, char **argv)
{
    struct job j = {.one.command = "changes"};
    struct cht_err err = {0};
    int rest;
    const struct tool_opt opts[] = {
        {"after", 0, TOOL_OPT_STRING, &j.after, 0, "N",
         "after this number; 0: all that ever happened; now: nothing that was before"},
        {"follow", 'f', TOOL_OPT_FLAG, &j.follow, 0, NULL, "go on with what changes, until Ctrl-C"},
        {"limit", 'n', TOOL_OPT_NUMBER, &j.limit, INT64_MAX, "N",
         "at most N changes, and those committed with the last"},
        TOOL_ONE_HEX(&j.one),
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (rest > 1)
        return tool_one_usage(&j.one, "takes one prefix; see cheetah-db changes --help");
    if (j.after != NULL && strcmp(j.after, "now") != 0 &&
        (*j.after == 0 || strspn(j.after, "0123456789") != strlen(j.after) || strlen(j.after) > 18))
        return tool_one_usage(&j.one, "--after is a number that was told, 0 or now");
    j.prefix = rest == 1 ? argv[0] : "";
    int code = tool_one_begin(&j.one, false);
    if (code == TOOL_EXIT_OK && follow(&j, &err) != CHT_OK)
        code = tool_one_failed(&j.one, &err);
    code = tool_one_end(&j.one, code);
    cht_buf_free(&j.name);
    svc_out_free(&j.path);
    svc_out_free(&j.text);
    return code;
}
