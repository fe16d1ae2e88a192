/* model: `cheetah-db ngrams, smooth, predict, score`: the language model, in a running server or on stopped data (place.h).
 *
 * A document or question is what stands on the command line ("2 4 5" or "2,4,5"), or each line of --file or stdin: numbers apart by
 * blanks or commas, or a JSON object as the HTTP call takes it. With --text it is words.
 *
 * Answers: the lines of JSON that the server gives, or on a terminal tables of them.
 */
#include "tools/flat.h"
#include "tools/one.h"
#include "tools/progress.h"
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "os/terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LINES "application/x-ndjson"

struct job {
    struct tool_one one;
    const char *file, *mode, *orders, *once;
    uint64_t k, max_order, order, topk;
    bool text, remove;
    bool ended, printed, quiet;
    uint64_t failed; /* lines that are an error */
    struct tool_progress progress;
    struct cht_buf input, answer;
    struct svc_out path, body;
    struct cht_err err; /* of the stream */
};

static void fini(struct job *j)
{
    cht_buf_free(&j->input);
    cht_buf_free(&j->answer);
    svc_out_free(&j->path);
    svc_out_free(&j->body);
}

/* ---- bodies --------------------------------------------------------------------------------------------------------- */

static bool between(char c) { return c == ' ' || c == ',' || c == '\t' || c == '\r'; }

/* [2,4,5] of "2, 4 5". False: something else stands there. */
static bool put_tokens(struct svc_out *o, const char *p, size_t n)
{
    bool first = true;
    svc_out_text(o, "[");
    for (size_t i = 0; i < n;) {
        if (between(p[i])) {
            i++;
            continue;
        }
        size_t start = i;
        while (i < n && p[i] >= '0' && p[i] <= '9')
            i++;
        if (i == start || (i < n && !between(p[i])))
            return false;
        while (start + 1 < i && p[start] == '0') /* JSON has no numbers that begin so */
            start++;
        svc_out_text(o, first ? "" : ",");
        svc_out_bytes(o, p + start, i - start);
        first = false;
    }
    svc_out_text(o, "]");
    return true;
}

/* What the options add to a question. */
static void put_options(const struct job *j, struct svc_out *o)
{
    if (j->k > 0)
        svc_out_format(o, ",\"k\":%" PRIu64, j->k);
    if (j->max_order > 0)
        svc_out_format(o, ",\"max_order\":%" PRIu64, j->max_order);
    if (j->mode != NULL) {
        svc_out_text(o, ",\"mode\":");
        svc_out_string(o, j->mode, strlen(j->mode));
    }
}

/* One line of the body; `number` is its line of the input, 0: the command line. */
static enum cht_rc put_line(struct job *j, const char *p, size_t n, uint64_t number, struct cht_err *err)
{
    struct svc_out *o = &j->body;
    while (n > 0 && between(p[n - 1]))
        n--;
    if (n > 0 && p[0] == '{') {
        svc_out_bytes(o, p, n);
        svc_out_text(o, "\n");
        return CHT_OK;
    }
    bool good = true;
    if (j->text) {
        svc_out_text(o, "{\"text\":");
        svc_out_string(o, p, n);
    } else {
        svc_out_text(o, "{\"tokens\":");
        good = put_tokens(o, p, n);
    }
    put_options(j, o);
    svc_out_text(o, "}\n");
    if (good)
        return CHT_OK;
    if (number > 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "line %" PRIu64 ": '%.*s': tokens are numbers; words need --text", number,
                        (int)(n < 60 ? n : 60), p);
    return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "'%.*s': tokens are numbers; words need --text",
                    (int)(n < 60 ? n : 60), p);
}

static enum cht_rc put_arguments(struct job *j, int argc, char **argv, struct cht_err *err)
{
    struct svc_out line = {0};
    for (int i = 0; i < argc; i++) {
        svc_out_text(&line, i > 0 ? " " : "");
        svc_out_text(&line, argv[i]);
    }
    enum cht_rc rc = CHT_OK;
    if (line.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a question");
    if (rc == CHT_OK)
        rc = put_line(j, line.p, line.n, 0, err);
    svc_out_free(&line);
    return rc;
}

static enum cht_rc put_input(struct job *j, struct cht_err *err)
{
    enum cht_rc rc = tool_one_read(j->file, &j->input, err);
    const char *p = (const char *)j->input.data, *end = p + j->input.len;
    for (uint64_t number = 1; rc == CHT_OK && p < end; number++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t n = stop != NULL ? (size_t)(stop - p) : (size_t)(end - p);
        if (strspn(p, " \t\r") < n)
            rc = put_line(j, p, n, number, err);
        p += n + (stop != NULL);
    }
    if (rc == CHT_OK && j->body.n == 0 && !j->body.failed)
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the input has no line");
    return rc;
}

/* The body out of the arguments, or of --file or stdin if there are none. */
static enum cht_rc make_body(struct job *j, int argc, char **argv, struct cht_err *err)
{
    bool dash = argc == 1 && strcmp(argv[0], "-") == 0;
    if (argc > 0 && !dash && j->file != NULL)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "what stands on the command line and --file exclude each other");
    enum cht_rc rc = argc > 0 && !dash ? put_arguments(j, argc, argv, err) : put_input(j, err);
    if (rc == CHT_OK && j->body.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the input");
    return rc;
}

/* ---- answers -------------------------------------------------------------------------------------------------------- */

static bool take_error(struct job *j, const json_t *error)
{
    const char *detail = json_string_value(json_object_get(error, "detail"));
    const char *code = json_string_value(json_object_get(error, "code"));
    j->err.code = CHT_FAIL(&j->err, CHT_IO, "%.90s: %.80s (%.22s)", tool_place_name(&j->one.place),
                           detail != NULL ? detail : "it failed", code != NULL ? code : "io_error");
    return true;
}

static void take_progress(struct job *j, const json_t *o)
{
    json_int_t done = json_integer_value(json_object_get(o, "done"));
    json_int_t total = json_integer_value(json_object_get(o, "total"));
    if (!j->progress.shown)
        tool_progress_begin(&j->progress, "smooth", total > 0 ? (uint64_t)total : 0, false);
    j->progress.total = total > 0 ? (uint64_t)total : 0;
    tool_progress_at(&j->progress, done > 0 ? (uint64_t)done : 0);
}

/* Does the end say more than how many lines there were? That of /score sums up, that of smoothing says what could not be read. */
static bool says_more(const json_t *end)
{
    return json_object_get(end, "perplexity") != NULL || json_object_get(end, "log10") != NULL ||
           json_integer_value(json_object_get(end, "malformed")) > 0;
}

static void print_line(struct job *j, json_t *o, const char *p, size_t n)
{
    tool_progress_clear(&j->progress);
    if (!j->one.table) {
        (void)fwrite(p, 1, n, stdout);
        (void)fputc('\n', stdout);
        return;
    }
    if (j->printed)
        (void)fputc('\n', stdout);
    j->printed = true;
    tool_one_object(stdout, o);
}

/* A line of the answer; an object that is the whole answer has no line break. */
static bool take_line(void *ctx, const char *p, size_t n)
{
    struct job *j = ctx;
    json_t *o = json_loadb(p, n, 0, NULL);
    bool go = true;
    json_t *end = json_object_get(o, "end"), *error = json_object_get(o, "error");
    const json_t *progress = json_object_get(o, "progress");
    if (!json_is_object(o)) {
        j->err.code = CHT_FAIL(&j->err, CHT_IO, "%.80s gave an answer that cannot be read",
                               tool_place_name(&j->one.place));
        go = false;
    } else if (progress != NULL) {
        take_progress(j, progress);
    } else if (end != NULL) {
        j->ended = true;
        if (says_more(end))
            print_line(j, j->one.table ? end : o, p, n);
    } else {
        if (json_is_object(error)) {
            j->failed++;
            (void)take_error(j, error);
        }
        print_line(j, o, p, n);
    }
    json_decref(o);
    return go && ferror(stdout) == 0;
}

/* Sends the body and shows what comes. stream: the answer has to end with "end". */
static enum cht_rc ask(struct job *j, const char *path, bool stream, struct cht_err *err)
{
    struct tool_lines lines = {.line = take_line, .ctx = j};
    struct tool_request r = {.method = "POST",
                             .path = path,
                             .sink = tool_lines_feed,
                             .sink_ctx = &lines,
                             .idle_seconds = 3600,
                             .body = j->body.n > 0 ? j->body.p : NULL,
                             .body_len = j->body.n,
                             .content_type = LINES};
    enum cht_rc rc = tool_client_run(j->one.place.client, &r, err);
    if (rc == CHT_OK && lines.rest.len > 0) /* one object, and no line break */
        rc = take_line(j, (const char *)lines.rest.data, lines.rest.len) ? CHT_OK : CHT_CANCELLED;
    tool_progress_end(&j->progress);
    tool_lines_fini(&lines);
    if (j->err.code != CHT_OK && (rc == CHT_OK || rc == CHT_CANCELLED)) {
        *err = j->err;
        return err->code;
    }
    if (rc == CHT_CANCELLED)
        return CHT_FAIL(err, CHT_IO, "the output could not be written");
    if (rc == CHT_OK && stream && !j->ended)
        return CHT_FAIL(err, CHT_IO, "%.80s: the answer was cut off", tool_place_name(&j->one.place));
    return rc;
}

/* Exit code of a call with this body. several: the body has more than one line. */
static int run(struct job *j, bool writes, const char *call)
{
    struct cht_err err = {0};
    int code = tool_one_begin(&j->one, writes);
    if (code == TOOL_EXIT_OK) {
        const char *first = j->body.n > 0 ? memchr(j->body.p, '\n', j->body.n) : NULL;
        bool several = first != NULL && first + 1 < j->body.p + j->body.n;
        bool stream = strcmp(call, "/reduce/smooth/cnt:") == 0 || (several && strcmp(call, "/ngrams") != 0);
        svc_out_text(&j->path, call);
        svc_out_format(&j->path, "?db=%s", j->one.database);
        if (j->order > 0)
            svc_out_format(&j->path, "&order=%" PRIu64, j->order);
        if (j->topk > 0)
            svc_out_format(&j->path, "&topk=%" PRIu64, j->topk);
        if (j->orders != NULL)
            svc_out_format(&j->path, "&orders=%.20s", j->orders);
        if (j->once != NULL)
            svc_out_format(&j->path, "&once=%.64s", j->once);
        svc_out_text(&j->path, j->remove ? "&remove=true" : "");
        svc_out_text(&j->path, j->text ? "&text=true" : "");
        svc_out_bytes(&j->path, "", 1);
        if (j->path.failed)
            code = tool_failed(&(struct cht_err){.code = CHT_NO_MEMORY, .msg = "no memory for a path"});
        else if (ask(j, j->path.p, stream, &err) != CHT_OK)
            code = tool_one_failed(&j->one, &err);
    }
    code = tool_one_end(&j->one, code);
    fini(j);
    return code;
}

/* The body, then the call; what is wrong with the input is said before anything is asked. */
static int run_with_body(struct job *j, int argc, char **argv, bool writes, const char *call)
{
    struct cht_err err = {0};
    if (argc == 0 && j->file == NULL && cht_os_is_terminal(0)) {
        (void)fprintf(stderr, "cheetah-db %s: reads from the terminal: lines, then Ctrl-D\n", j->one.command);
    }
    if (make_body(j, argc, argv, &err) == CHT_OK)
        return run(j, writes, call);
    fini(j);
    return tool_failed(&err);
}

/* Letters that stand for themselves in a query. */
static bool plain(const char *s)
{
    return s == NULL ||
           (s[0] != 0 &&
            strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == strlen(s));
}

#define FILE_OPT(j)                                                            \
    {                                                                          \
        "file", 'f', TOOL_OPT_STRING, &(j)->file, 0, "FILE",                   \
            "reads the lines of FILE; -: those of stdin, as without arguments" \
    }
#define TEXT_OPT(j)                                                                \
    {                                                                              \
        "text", 0, TOOL_OPT_FLAG, &(j)->text, 0, NULL, "words in place of numbers" \
    }

/* ------------------------------------------------------------------------------------------------------------ */

int tool_predict(int argc, char **argv)
{
    struct job j = {.one.command = "predict"};
    int rest;
    const struct tool_opt opts[] = {
        {"k", 'k', TOOL_OPT_NUMBER, &j.k, 1000000, "N", "how many candidates (default: 20)"},
        {"mode", 0, TOOL_OPT_STRING, &j.mode, 0, "MODE", "deepest, levels, blend or live"},
        {"max-order", 0, TOOL_OPT_NUMBER, &j.max_order, 64, "N", "looks at contexts of at most N - 1 tokens"},
        FILE_OPT(&j),
        TEXT_OPT(&j),
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(
            "cheetah-db predict TOKEN ... [OPTION ...]: what comes next, most likely first\n"
            "\n"
            "TOKENs are numbers, apart by blanks or commas. Without any, each line of stdin is a question.\n"
            "\n",
            opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    return run_with_body(&j, rest, argv, false, "/predict");
}

int tool_score(int argc, char **argv)
{
    struct job j = {.one.command = "score"};
    int rest;
    const struct tool_opt opts[] = {
        {"mode", 0, TOOL_OPT_STRING, &j.mode, 0, "MODE", "deepest, blend or live"},
        FILE_OPT(&j),
        TEXT_OPT(&j),
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(
            "cheetah-db score TOKEN ... [OPTION ...]: how likely a text is\n"
            "\n"
            "TOKENs are numbers, apart by blanks or commas. Without any, each line of stdin is a text.\n"
            "\n",
            opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    return run_with_body(&j, rest, argv, false, "/score");
}

int tool_ngrams(int argc, char **argv)
{
    struct job j = {.one.command = "ngrams"};
    int rest;
    const struct tool_opt opts[] = {
        {"order", 'n', TOOL_OPT_NUMBER, &j.order, 64, "N",
         "n-grams of 1 to N tokens (default: 3, or the live model's)"},
        {"remove", 0, TOOL_OPT_FLAG, &j.remove, 0, NULL, "takes documents away that were counted"},
        {"once", 0, TOOL_OPT_STRING, &j.once, 0, "ID", "a second call with this ID counts nothing"},
        FILE_OPT(&j),
        TEXT_OPT(&j),
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help("cheetah-db ngrams TOKEN ... [OPTION ...]: counts the n-grams of a document\n"
                              "\n"
                              "TOKENs are numbers, apart by blanks or commas. Without any, each line of "
                              "stdin is a document. All\n"
                              "are counted in one commit, or none.\n"
                              "\n",
                              opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (!plain(j.once))
        return tool_one_usage(&j.one, "--once wants 1 to 64 of A-Z a-z 0-9 _ -");
    return run_with_body(&j, rest, argv, true, "/ngrams");
}

int tool_smooth(int argc, char **argv)
{
    struct job j = {.one.command = "smooth"};
    int rest;
    const struct tool_opt opts[] = {
        {"orders", 0, TOOL_OPT_STRING, &j.orders, 0, "A-B", "only these (default: all that were counted)"},
        {"topk", 0, TOOL_OPT_NUMBER, &j.topk, 32, "N",
         "followers that are ranked for each context (default: 20)"},
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(
            "cheetah-db smooth [OPTION ...]: makes probabilities of the counts (modified Kneser-Ney)\n\n",
            opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (rest > 0)
        return tool_one_usage(&j.one, "takes options only; see cheetah-db smooth --help");
    if (!plain(j.orders))
        return tool_one_usage(&j.one, "--orders wants 1-3 or 2");
    return run(&j, true, "/reduce/smooth/cnt:");
}
