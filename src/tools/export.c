/* export: `cheetah-db export FILE`: every pair and value of a database in one file of JSON lines (dump.h), out of a running server
 * or of the data directories of a stopped one.
 *
 * Pairs are read first, then values: what a pair led to when it was written is then still met, unless it was deleted meanwhile.
 * A running server goes on writing: an export of it is every entry that was there from its start to its end, not a
 * snapshot. With --resume a file that has no end line is read, checked, and continued after its last whole line.
 */
#include "tools/dump.h"
#include "tools/flat.h"
#include "tools/import.h"
#include "tools/json.h"
#include "tools/progress.h"
#include "tools/target.h"
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "cheetah/scan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char help_before[] =
    "cheetah-db export FILE [--database NAME] [OPTION ...]\n"
    "\n"
    "Writes every pair and every value of a database to FILE, a line of JSON each; - is the standard\n"
    "output. cheetah-db import reads it back, on any machine. Two exports of the same data are the\n"
    "same bytes. A server that is written to meanwhile gives what was there from start to end; for a\n"
    "copy of one moment see cheetah-db backup. Pairs that end keep their end; a file that has some is\n"
    "of format 2, which programs up to 0.2.0 refuse.\n"
    "\n";
static const char help_after[] =
    "\n"
    "Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 stored data, or FILE, is damaged.\n";

struct job {
    const char *file, *database;
    struct tool_place place;
    bool resume, force, json;
    bool fresh;                /* there was no such file */
    struct tool_dump_info had; /* with --resume */
    struct tool_dump_writer w;
    struct tool_progress progress;
    bool ended, broken; /* the stream's end line came; what came is no stream */
    bool keeps_ends;    /* the server knows of pairs that end */
    bool ending;        /* there are some */
    struct cht_err err; /* of a line */
};

static const char marker64[] = TOOL_TARGET_MARKER_B64;

static enum cht_rc unfinished(const struct job *j, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_DATABASE_BUSY,
                    "an import into database '%s' has not finished: let it finish, then export", j->database);
}

static void step(struct job *j) { tool_progress_at(&j->progress, j->w.pairs + j->w.values); }

/* ---- a running server ---------------------------------------------------------------------------------------------- */

static bool problem(struct job *j, const struct tool_flat_field *e)
{
    struct tool_flat f;
    const char *code = "", *detail = "";
    size_t code_n = 0, detail_n = 0;
    if (e->kind == TOOL_FLAT_NESTED && tool_flat_parse(&f, e->p, e->n)) {
        (void)tool_flat_string(&f, "code", &code, &code_n);
        (void)tool_flat_string(&f, "detail", &detail, &detail_n);
    }
    bool damaged = CHT_IS(code, code_n, "corrupt_value");
    (void)CHT_FAIL(&j->err, damaged ? CHT_CORRUPT : CHT_IO, "the stream failed: %.*s (%.*s)",
                   (int)(detail_n < 120 ? detail_n : 120), detail, (int)(code_n < 40 ? code_n : 40), code);
    return false;
}

/* The line of a value that the server cannot show: {"key":K,...,"error":"corrupt_value"}. */
static bool damaged_value(struct job *j, uint64_t key, const char *code, size_t n)
{
    if (CHT_IS(code, n, "corrupt_value"))
        (void)CHT_DAMAGED(&j->err, "the value of key %" PRIu64 " does not match its checksum", key);
    else
        (void)CHT_FAIL(&j->err, CHT_IO, "the server cannot read the value of key %" PRIu64 " (%.*s)", key,
                       (int)(n < 40 ? n : 40), code);
    return false;
}

static bool other_line(struct job *j, const struct tool_flat *f)
{
    const struct tool_flat_field *e = tool_flat_get(f, "error");
    const char *code;
    size_t code_n;
    uint64_t key;
    if (tool_flat_number(f, "key", &key) && tool_flat_string(f, "error", &code, &code_n))
        return damaged_value(j, key, code, code_n);
    if (e != NULL)
        return problem(j, e);
    if (tool_flat_get(f, "end") != NULL && !j->ended) {
        j->ended = true;
        return true;
    }
    (void)CHT_FAIL(&j->err, CHT_IO, "the answer is no stream of entries; is it a cheetah-db server?");
    return false;
}

static bool pair_line(void *ctx, const char *p, size_t n)
{
    struct job *j = ctx;
    struct tool_flat f;
    const char *name;
    size_t name_n;
    uint64_t key, expires = 0;
    if (!tool_flat_parse(&f, p, n)) {
        (void)CHT_FAIL(&j->err, CHT_IO, "the answer is no JSON");
        return false;
    }
    if (!tool_flat_string(&f, "pair", &name, &name_n) || !tool_flat_number(&f, "key", &key))
        return other_line(j, &f);
    if (name_n == sizeof marker64 - 1 && memcmp(name, marker64, name_n) == 0)
        return unfinished(j, &j->err) == CHT_OK;
    (void)tool_flat_number(&f, "expires", &expires); /* 0 if it is not there */
    tool_dump_pair_text(&j->w, name, name_n, key, expires);
    step(j);
    return j->w.rc == CHT_OK;
}

static bool value_line(void *ctx, const char *p, size_t n)
{
    struct job *j = ctx;
    struct tool_flat f;
    const char *value;
    size_t value_n;
    uint64_t key;
    if (!tool_flat_parse(&f, p, n)) {
        (void)CHT_FAIL(&j->err, CHT_IO, "the answer is no JSON");
        return false;
    }
    if (!tool_flat_string(&f, "value", &value, &value_n) || !tool_flat_number(&f, "key", &key))
        return other_line(j, &f);
    tool_dump_value_text(&j->w, key, value, value_n);
    step(j);
    return j->w.rc == CHT_OK;
}

static enum cht_rc stream(struct job *j, struct tool_client *c, const char *path,
                          bool (*line)(void *, const char *, size_t), struct cht_err *err)
{
    struct tool_lines lines = {.line = line, .ctx = j};
    struct tool_request r = {.path = path, .sink = tool_lines_feed, .sink_ctx = &lines};
    j->ended = false;
    enum cht_rc rc = tool_client_run(c, &r, err);
    if (rc == CHT_CANCELLED && lines.no_memory)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a line of the stream");
    else if (rc == CHT_CANCELLED && err != NULL)
        *err = j->w.rc != CHT_OK ? j->w.err : j->err;
    if (rc == CHT_CANCELLED)
        rc = j->w.rc != CHT_OK ? j->w.rc : j->err.code;
    if (rc == CHT_OK && !j->ended)
        rc = CHT_FAIL(err, CHT_IO, "the stream was cut off");
    tool_lines_fini(&lines);
    return rc;
}

/* How much there is; also whether there is anything to be had at all, before the file is made. */
static enum cht_rc how_much(struct job *j, struct tool_client *c, uint64_t *entries, struct cht_err *err)
{
    char path[128];
    struct cht_buf b = {0};
    struct tool_flat f;
    uint64_t pairs = 0, values = 0, expiring = 0;
    (void)snprintf(path, sizeof path, "/databases/%.64s", j->database); /* fits */
    enum cht_rc rc = tool_client_get(c, path, &b, err);
    if (rc == CHT_OK && (!tool_flat_parse(&f, (const char *)b.data, b.len) ||
                         !tool_flat_number(&f, "pairs", &pairs) || !tool_flat_number(&f, "values", &values)))
        rc = CHT_FAIL(err, CHT_IO, "%s does not describe its databases; is it a cheetah-db server?",
                      tool_client_url(c));
    j->keeps_ends = rc == CHT_OK && tool_flat_number(&f, "expiring", &expiring);
    j->ending = expiring > 0;
    *entries = pairs + values;
    cht_buf_free(&b);
    return rc;
}

/* Opens the file, when it is known that the source is there. */
static enum cht_rc begin_file(struct job *j, uint64_t entries, struct cht_err *err)
{
    const struct tool_dump_info *had = &j->had;
    enum cht_rc rc = tool_dump_create(&j->w, strcmp(j->file, "-") == 0 ? NULL : j->file, had->end_at,
                                      j->fresh ? 0 : UINT64_MAX, err);
    if (rc != CHT_OK)
        return rc;
    j->w.pairs = had->pairs;
    j->w.values = had->values;
    j->w.last_key = had->last_key;
    j->w.crc = had->crc;
    j->w.format = had->format;
    if (had->end_at == 0)
        tool_dump_header(&j->w, j->database, j->ending ? TOOL_DUMP_FORMAT_ENDS : TOOL_DUMP_FORMAT);
    tool_progress_begin(&j->progress, "export", entries, false);
    j->progress.first = had->pairs + had->values;
    return CHT_OK;
}

/* Older servers know no such parameter. */
static const char *expires_of(const struct job *j) { return j->keeps_ends ? "&expires=true" : ""; }

static enum cht_rc from_server(struct job *j, struct cht_err *err)
{
    struct tool_client *c = j->place.client;
    char path[200 + 2 * CHT_NAME_MAX];
    uint64_t entries;
    enum cht_rc rc = how_much(j, c, &entries, err);
    if (rc == CHT_OK)
        rc = begin_file(j, entries, err);
    if (rc == CHT_OK && j->had.values == 0) {
        int n = snprintf(path, sizeof path, "/pairs/*?db=%.64s%s", j->database, expires_of(j));
        if (j->had.pairs > 0) {
            n += snprintf(path + n, sizeof path - (size_t)n, "&after=x");
            for (size_t i = 0; i < j->had.last_name_n; i++, n += 2)
                (void)snprintf(path + n, sizeof path - (size_t)n, "%02x", j->had.last_name[i]); /* fits */
        }
        rc = stream(j, c, path, pair_line, err);
    }
    if (rc == CHT_OK) {
        (void)snprintf(path, sizeof path, "/kv?db=%.64s&after=%" PRIu64, j->database,
                       j->had.last_key); /* fits */
        rc = stream(j, c, path, value_line, err);
    }
    return rc;
}

enum cht_rc tool_export_crc(const struct tool_connect *connect, const char *database,
                            const struct tool_dump_info *header, uint32_t *crc, struct cht_err *err)
{
    struct tool_client *c;
    char path[128];
    struct job *j = cht_calloc(1, sizeof *j);
    if (j == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to read what is there");
    j->database = database;
    enum cht_rc rc = tool_client_new(connect, &c, err);
    if (rc == CHT_OK)
        rc = tool_dump_create(&j->w, NULL, 0, 0, err);
    j->w.nowhere = true;
    if (rc == CHT_OK) {
        tool_dump_header(&j->w, header->database, header->format);
        j->keeps_ends = header->format >= TOOL_DUMP_FORMAT_ENDS;
        (void)snprintf(path, sizeof path, "/pairs/*?db=%.64s%s", database, expires_of(j)); /* fits */
        rc = stream(j, c, path, pair_line, err);
    }
    if (rc == CHT_OK) {
        (void)snprintf(path, sizeof path, "/kv?db=%.64s", database); /* fits */
        rc = stream(j, c, path, value_line, err);
    }
    tool_dump_close(&j->w); /* what is buffered goes into the checksum */
    *crc = j->w.crc;
    tool_client_free(c);
    cht_free(j);
    return rc;
}

/* ---- a stopped one ------------------------------------------------------------------------------------------------- */

/* A value too long for the batches of a scan. */
static enum cht_rc large_value(struct job *j, struct cht_store *s, uint64_t key, struct cht_err *err)
{
    struct cht_buf b = {0};
    enum cht_rc rc = cht_store_get(s, key, &b, NULL, err);
    if (rc == CHT_OK)
        tool_dump_value(&j->w, key, b.data, b.len);
    cht_buf_free(&b);
    return rc;
}

static enum cht_rc entry(struct job *j, struct cht_store *s, enum cht_scan_kind kind,
                         const struct cht_entry *e, struct cht_err *err)
{
    if (kind == CHT_SCAN_PAIRS) {
        if (e->name_len == sizeof TOOL_TARGET_MARKER - 1 &&
            memcmp(e->name, TOOL_TARGET_MARKER, e->name_len) == 0)
            return unfinished(j, err);
        tool_dump_pair(&j->w, (struct cht_str){e->name, e->name_len}, e->key, (e->ends + 999) / 1000);
        return CHT_OK;
    }
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_DAMAGED(err, "the value of key %" PRIu64 " does not match its checksum", e->key);
    if ((e->flags & CHT_ENTRY_LARGE) != 0)
        return large_value(j, s, e->key, err);
    tool_dump_value(&j->w, e->key, e->value, e->value_len);
    return CHT_OK;
}

static enum cht_rc scan(struct job *j, struct cht_store *s, const struct cht_scan_config *cfg,
                        struct cht_err *err)
{
    struct cht_scan *sc;
    struct cht_entry e[64];
    size_t got = 1;
    enum cht_rc rc = cht_scan_open(s, cfg, &sc, err);
    if (rc != CHT_OK)
        return rc;
    while (rc == CHT_OK && got > 0) {
        rc = cht_scan_next(sc, e, sizeof e / sizeof *e, &got, err);
        for (size_t i = 0; i < got && rc == CHT_OK; i++)
            rc = entry(j, s, cfg->kind, &e[i], err);
        step(j);
        if (rc == CHT_OK && j->w.rc != CHT_OK) {
            rc = j->w.rc;
            *err = j->w.err;
        }
    }
    cht_scan_close(sc);
    return rc;
}

static enum cht_rc from_store(struct job *j, struct cht_env *env, struct cht_err *err)
{
    struct cht_store *s;
    struct cht_store_stats st = {0};
    enum cht_rc rc = cht_env_get(env, j->database, &s, err);
    if (rc == CHT_OK)
        rc = cht_store_stats(s, &st, err);
    j->ending = rc == CHT_OK && st.ending > 0;
    if (rc == CHT_OK)
        rc = begin_file(j, st.pairs + st.values, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_scan_config pairs = {
        .kind = CHT_SCAN_PAIRS, .ends = true, .after = {j->had.last_name, j->had.last_name_n}};
    struct cht_scan_config values = {.kind = CHT_SCAN_VALUES, .values = true, .after_key = j->had.last_key};
    if (j->had.values == 0)
        rc = scan(j, s, &pairs, err);
    return rc == CHT_OK ? scan(j, s, &values, err) : rc;
}

static enum cht_rc from_directories(struct job *j, const struct tool_dirs *dirs, struct cht_err *err)
{
    struct cht_env *env;
    struct cht_err close_err = {0};
    struct cht_env_config cfg = {
        .dirs = (const char *const *)dirs->v, .dir_count = dirs->n, .mode = CHT_DIRS_AS_FOUND};
    enum cht_rc rc = cht_env_open(&cfg, &env, err);
    if (rc == CHT_OK) {
        rc = from_store(j, env, err);
        enum cht_rc closed = cht_env_close(env, &close_err);
        if (rc == CHT_OK && closed != CHT_OK) {
            rc = closed;
            *err = close_err;
        }
    }
    return rc;
}

static enum cht_rc from_stopped(struct job *j, struct cht_err *err)
{
    struct tool_dirs dirs = {NULL, 0};
    enum cht_rc rc = CHT_OK;
    if (!tool_dirs(&j->place.data, &dirs) || tool_need_dirs(&dirs) != TOOL_EXIT_OK)
        rc = CHT_FAIL(err, CHT_IO, "nothing was exported");
    else
        rc = from_directories(j, &dirs, err);
    tool_dirs_fini(&dirs);
    return rc;
}

/* ---- the file ------------------------------------------------------------------------------------------------------ */

static void report(const struct job *j)
{
    bool to_stdout = strcmp(j->file, "-") == 0;
    FILE *out = to_stdout ? stderr : stdout;
    bool resumed = j->had.end_at > 0;
    if (j->json) {
        (void)fprintf(out, "{\"database\":\"%s\",\"file\":", j->database);
        tool_json_string(out, j->file);
        (void)fprintf(out,
                      ",\"pairs\":%" PRIu64 ",\"values\":%" PRIu64 ",\"bytes\":%" PRIu64
                      ",\"crc32c\":\"%08" PRIx32 "\",\"resumed\":%s}\n",
                      j->w.pairs, j->w.values, j->w.offset, j->w.crc, resumed ? "true" : "false");
    } else if (!to_stdout) {
        (void)fprintf(out,
                      "%s: %" PRIu64 " pairs and %" PRIu64 " values of database '%s', %" PRIu64 " bytes%s\n",
                      j->file, j->w.pairs, j->w.values, j->database, j->w.offset,
                      resumed ? "; went on with what was there" : "");
    }
}

/* What a broken export has left. */
static enum cht_rc take_up(struct job *j, struct cht_err *err)
{
    enum cht_rc rc = tool_dump_verify(j->file, true, &j->had, NULL, NULL, err);
    if (rc == CHT_OK && j->had.end_at > 0 && strcmp(j->had.database, j->database) != 0)
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.80s is an export of database '%s', not '%s'", j->file,
                      j->had.database, j->database);
    return rc;
}

static enum cht_rc begin(struct job *j, bool *done, struct cht_err *err)
{
    bool to_stdout = strcmp(j->file, "-") == 0;
    enum cht_io_kind kind = CHT_IO_NOTHING;
    enum cht_rc rc = to_stdout ? CHT_OK : cht_io_kind(cht_io_posix(), j->file, &kind, err);
    bool there = kind != CHT_IO_NOTHING;
    j->fresh = !there;
    *done = false;
    if (rc != CHT_OK)
        return rc;
    if (there && !j->resume && !j->force)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "%.120s is there: --resume goes on with it, --force writes over it", j->file);
    if (there && j->resume)
        rc = take_up(j, err);
    if (rc == CHT_OK && j->had.complete) {
        *done = true;
        j->w.pairs = j->had.pairs;
        j->w.values = j->had.values;
        j->w.crc = j->had.crc;
        j->w.offset = j->had.size;
    }
    return rc;
}

static int run(struct job *j)
{
    struct cht_err err = {0};
    bool done;
    enum cht_rc rc = begin(j, &done, &err);
    if (rc == CHT_OK && !done) {
        rc = tool_place_stopped(&j->place) ? from_stopped(j, &err) : from_server(j, &err);
        if (rc == CHT_OK)
            rc = tool_dump_finish(&j->w, &err);
        tool_dump_close(&j->w);
        tool_progress_end(&j->progress);
    }
    if (rc == CHT_OK) {
        report(j);
        return TOOL_EXIT_OK;
    }
    return tool_failed(&err);
}

static int in_place(struct job *j)
{
    int code = tool_place_open("export", &j->place, false);
    return tool_place_close(&j->place, code == TOOL_EXIT_OK ? run(j) : code);
}

/* ---------------------------------------------------------------------------------------------------------------- */

int tool_export(int argc, char **argv)
{
    struct job *j = cht_calloc(1, sizeof *j);
    int rest, code = TOOL_EXIT_USAGE;
    if (j == NULL)
        return tool_failed(&(struct cht_err){.code = CHT_NO_MEMORY});
    j->database = CHT_DATABASE_DEFAULT;
    bool wants_help = false;
    const struct tool_opt opts[] = {
        {"database", 0, TOOL_OPT_STRING, &j->database, 0, "NAME", "which database (default: default)"},
        {"resume", 0, TOOL_OPT_FLAG, &j->resume, 0, NULL,
         "go on with a FILE that a broken export has left, after its last whole line"},
        {"force", 0, TOOL_OPT_FLAG, &j->force, 0, NULL, "write over a FILE that is there"},
        {"json", 0, TOOL_OPT_FLAG, &j->json, 0, NULL, "what was done as one JSON object"},
        TOOL_PLACE_OPTS(&j->place),
        {"help", 'h', TOOL_OPT_FLAG, &wants_help, 0, NULL, NULL},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        code = TOOL_EXIT_USAGE;
    else if (wants_help)
        code = tool_args_help(help_before, opts, sizeof opts / sizeof *opts, help_after);
    else if (rest != 1)
        (void)tool_usage("export", "takes the name of one file; see cheetah-db export --help");
    else if (!cht_database_name_valid(j->database))
        (void)tool_usage("export", "--database wants a name of " CHT_DATABASE_NAME_RULE);
    else if (j->resume && (j->force || strcmp(argv[0], "-") == 0))
        (void)tool_usage("export", "--resume goes on with a file; not with --force or -");
    else {
        j->file = argv[0];
        code = tool_place_check("export", &j->place);
        if (code == TOOL_EXIT_OK && tool_place_stopped(&j->place))
            code = run(j);
        else if (code == TOOL_EXIT_OK)
            code = in_place(j);
    }
    cht_free(j);
    return code;
}
