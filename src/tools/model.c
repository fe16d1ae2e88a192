/* model: `cheetah-db ngrams, smooth, predict, score, links, associations`: the language model, in a running server or on stopped data (place.h).
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
    const char *file, *mode, *orders, *once, *links;
    const char *metric, *min, *to;
    uint64_t k, max_order, order, topk, limit;
    bool text, remove, find, get;
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
    if (j->links != NULL)
        svc_out_format(o, ",\"links\":%.20s", j->links);
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

/* Each phase counts from its own beginning. */
static void take_progress(struct job *j, const json_t *o)
{
    json_int_t done = json_integer_value(json_object_get(o, "done"));
    json_int_t total = json_integer_value(json_object_get(o, "total"));
    if (!j->progress.shown)
        tool_progress_begin(&j->progress, j->one.command, total > 0 ? (uint64_t)total : 0, false);
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

/* Sends a body and shows what comes. stream: the answer has to end with "end". */
static enum cht_rc ask(struct job *j, struct cht_str body, bool stream, struct cht_err *err)
{
    struct tool_lines lines = {.line = take_line, .ctx = j};
    struct tool_request r = {.method = j->get ? "GET" : "POST",
                             .path = j->path.p,
                             .sink = tool_lines_feed,
                             .sink_ctx = &lines,
                             .idle_seconds = 3600,
                             .body = body.n > 0 ? (const char *)body.p : NULL,
                             .body_len = body.n,
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

/* Does it have more than one line? */
static bool several_lines(struct cht_str body)
{
    const uint8_t *first = body.n > 0 ? memchr(body.p, '\n', body.n) : NULL;
    return first != NULL && first + 1 < body.p + body.n;
}

/* The lines at the beginning that are at most that many bytes, or the first if it is longer. */
static struct cht_str first_lines(struct cht_str body, size_t most)
{
    if (body.n <= most)
        return body;
    size_t n = most;
    while (n > 0 && body.p[n - 1] != '\n')
        n--;
    if (n == 0)
        n = (size_t)((const uint8_t *)memchr(body.p, '\n', body.n) - body.p) +
            1; /* the last line has one, too */
    return (struct cht_str){body.p, n};
}

/* Counts all documents in one request; if they are too many for one, in several, each a commit. */
static enum cht_rc count(struct job *j, struct cht_str body, struct cht_err *err)
{
    uint64_t counted = 0;
    size_t most = body.n;
    while (body.n > 0) {
        struct cht_str part = first_lines(body, most);
        enum cht_rc rc = ask(j, part, false, err);
        if ((rc == CHT_REQUEST_TOO_LARGE || rc == CHT_BODY_TOO_LARGE) && j->once == NULL &&
            several_lines(part)) {
            most = part.n / 2;
            continue;
        }
        if (rc != CHT_OK && counted > 0) {
            struct cht_err why = *err;
            return CHT_FAIL(err, rc, "%.150s; %" PRIu64 " documents before were counted", why.msg, counted);
        }
        if (rc != CHT_OK)
            return rc;
        for (size_t i = 0; i < part.n; i++)
            counted += part.p[i] == '\n';
        body = (struct cht_str){body.p + part.n, body.n - part.n};
    }
    return CHT_OK;
}

/* Exit code of a call with this body. */
static int run(struct job *j, bool writes, const char *call)
{
    struct cht_err err = {0};
    int code = tool_one_begin(&j->one, writes);
    if (code == TOOL_EXIT_OK) {
        struct cht_str body = {(const uint8_t *)j->body.p, j->body.n};
        bool counts = strcmp(call, "/ngrams") == 0;
        bool stream = strcmp(call, "/reduce/smooth/cnt:") == 0 || (several_lines(body) && !counts);
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
        else if ((counts ? count(j, body, &err) : ask(j, body, stream, &err)) != CHT_OK)
            code = tool_one_failed(&j->one, &err);
    }
    code = tool_one_end(&j->one, code);
    fini(j);
    return code;
}

/* The path of a call without a body. name NULL: it is in `before`. */
static enum cht_rc make_path(struct job *j, const char *before, const char *name, struct cht_err *err)
{
    struct cht_buf to = {0}, bytes = {0};
    enum cht_rc rc = name != NULL ? tool_one_name(&j->one, name, &bytes, err) : CHT_OK;
    if (rc == CHT_OK && j->to != NULL)
        rc = tool_one_name(&j->one, j->to, &to, err);
    tool_one_path(&j->one, &j->path, before, name != NULL ? &bytes : NULL);
    if (j->metric != NULL)
        svc_out_format(&j->path, "&metric=%.20s", j->metric);
    if (j->min != NULL)
        svc_out_format(&j->path, "&min=%.20s", j->min);
    if (j->k > 0)
        svc_out_format(&j->path, "&k=%" PRIu64, j->k);
    if (j->limit > 0)
        svc_out_format(&j->path, "&limit=%" PRIu64, j->limit);
    if (j->to != NULL)
        tool_one_parameter(&j->path, "to", &to);
    svc_out_text(&j->path, j->text ? "&text=true" : "");
    svc_out_bytes(&j->path, "", 1);
    cht_buf_free(&to);
    cht_buf_free(&bytes);
    if (rc == CHT_OK && j->path.failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a path");
    return rc;
}

/* A call without a body, whose answer is a stream. */
static int run_stream(struct job *j, const char *before, const char *name)
{
    struct cht_err err = {0};
    int code = tool_one_begin(&j->one, j->find);
    if (code == TOOL_EXIT_OK) {
        enum cht_rc rc = make_path(j, before, name, &err);
        if (rc == CHT_OK)
            rc = ask(j, (struct cht_str){0}, true, &err);
        if (rc != CHT_OK)
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

/* 0, 1, or 0 and 1 with digits after the point: JSON reads it as it is. */
static bool is_weight(const char *s)
{
    size_t n = strlen(s);
    bool fraction = n > 2 && n <= 20 && s[1] == '.' && strspn(s + 2, "0123456789") == n - 2;
    return (s[0] == '0' || s[0] == '1') && (n == 1 || fraction);
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
        {"links", 0, TOOL_OPT_STRING, &j.links, 0, "WEIGHT", "mixes in related contexts, weight 0 to 1"},
        FILE_OPT(&j),
        TEXT_OPT(&j),
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.links != NULL && !is_weight(j.links))
        return tool_usage("predict", "--links wants a number from 0 to 1, such as 0.2");
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
        return tool_args_help(
            "cheetah-db ngrams TOKEN ... [OPTION ...]: counts the n-grams of a document\n"
            "\n"
            "TOKENs are numbers, apart by blanks or commas. Without any, each line of "
            "stdin is a document. All\n"
            "are counted in one commit, or none; if they are too many for the server's memory, in "
            "several,\n"
            "with an answer each (not with --once).\n"
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

int tool_links(int argc, char **argv)
{
    struct job j = {.one.command = "links"};
    int rest;
    const struct tool_opt opts[] = {
        {"find", 0, TOOL_OPT_FLAG, &j.find, 0, NULL,
         "finds and keeps them; else those that are kept are shown"},
        {"metric", 0, TOOL_OPT_STRING, &j.metric, 0, "METRIC", "cosine (the default), jaccard or pmi"},
        {"k", 'k', TOOL_OPT_NUMBER, &j.k, 1000, "N", "--find: of each context at most N (default: 20)"},
        {"min", 0, TOOL_OPT_STRING, &j.min, 0, "WEIGHT",
         "--find: that weigh at least so much (default: 0.1)"},
        {"to", 0, TOOL_OPT_STRING, &j.to, 0, "PREFIX", "--find: among these contexts (default: the same)"},
        {"limit", 0, TOOL_OPT_NUMBER, &j.limit, UINT32_MAX, "N", "shows those of N contexts"},
        TEXT_OPT(&j),
        TOOL_ONE_HEX(&j.one),
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(
            "cheetah-db links [PREFIX] [OPTION ...]: the most related contexts of each under a prefix\n\n",
            opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    bool finding = j.k > 0 || j.min != NULL || j.to != NULL;
    if (rest > 1)
        return tool_one_usage(&j.one, "wants one PREFIX");
    if (j.find ? j.limit > 0 || j.text : finding)
        return tool_one_usage(&j.one, j.find ? "--limit and --text show links; they do not go with --find"
                                             : "--k, --min and --to go with --find");
    if (!plain(j.metric) || (j.min != NULL && !is_weight(j.min)))
        return tool_one_usage(&j.one, j.min != NULL ? "--min wants a number from 0 to 1, such as 0.2"
                                                    : "--metric wants cosine, jaccard or pmi");
    j.get = !j.find;
    return run_stream(&j, "/reduce/links/", rest > 0 ? argv[0] : j.one.hex ? "636e743a" : "cnt:");
}

int tool_associations(int argc, char **argv)
{
    struct job j = {.one.command = "associations", .get = true};
    char token[64];
    int rest;
    const struct tool_opt opts[] = {
        {"k", 'k', TOOL_OPT_NUMBER, &j.k, 1000, "N", "of each kind at most N (default: 20)"},
        TEXT_OPT(&j),
        TOOL_ONE_HEX(&j.one),
        TOOL_ONE_OPTS(&j.one)};
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (j.one.help)
        return tool_args_help(
            "cheetah-db associations TOKEN|PAIR [OPTION ...]: what belongs together with it\n"
            "\n"
            "A number is a token: its rows and columns of the matrices (POST /reduce/matrix/cnt:). Anything\n"
            "else, or with --hex, is the pair of a context: its links, and what follows it.\n"
            "\n",
            opts, sizeof opts / sizeof *opts, TOOL_ONE_EXITS);
    if (rest != 1 || argv[0][0] == 0)
        return tool_one_usage(&j.one, "wants one TOKEN or PAIR");
    size_t n = strlen(argv[0]);
    if (j.one.hex || n > 10 || strspn(argv[0], "0123456789") != n)
        return run_stream(&j, "/reduce/associations/", argv[0]);
    (void)snprintf(token, sizeof token, "/reduce/associations/%s", argv[0]); /* fits */
    return run_stream(&j, token, NULL);
}
