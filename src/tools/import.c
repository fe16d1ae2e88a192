/* import: `cheetah-db import FILE` and `import --from-line HOST:PORT`: an export (dump.h), or a running server that speaks the
 * line protocol (import_line.c), into a database of a running server (target.h).
 *
 * A file is read twice: first all of it is checked, then the values are written, then the pairs that lead to them. Nothing is
 * written of a file that is not whole and sound.
 */
#include "tools/import.h"

#include "tools/dump.h"
#include "tools/json.h"
#include "tools/tools.h"

#include "base/alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char help_before[] =
    "cheetah-db import FILE [--database NAME] [OPTION ...]\n"
    "cheetah-db import --from-line HOST:PORT [--database NAME] [OPTION ...]\n"
    "\n"
    "Writes what cheetah-db export wrote to FILE into a database of a running server; or copies a\n"
    "database out of a running server that speaks the line protocol. Killed at any time, the same\n"
    "command again goes on where it was, and nothing is there twice. In a database that is new the\n"
    "keys are those of the source; with --merge all of them move by the same distance. Names that\n"
    "share a key go on sharing one. Pairs that end do so when they would have ended where they came\n"
    "from; those that have are left out. What was done is said just before the last step.\n"
    "\n";
static const char help_after[] =
    "What no pair leads to cannot be seen over the line protocol, and is not copied.\n"
    "\n"
    "Exit codes: 0 done; 1 it failed, run it again to go on; 2 the command line is wrong; 3 FILE is\n"
    "damaged: nothing was written.\n";

struct file_job {
    const struct tool_import *in;
    struct tool_dump_info info;
    struct tool_target target;
    struct tool_dump_reader r;
    struct tool_progress progress;
    uint64_t first_line; /* of the batch */
};

void tool_import_report(const struct tool_import *in, const struct tool_target *t, const char *from)
{
    const struct tool_target_state *s = &t->state;
    if (in->json) {
        (void)printf("{\"from\":");
        tool_json_string(stdout, from);
        (void)printf(",\"database\":\"%s\",\"pairs\":%" PRIu64 ",\"values\":%" PRIu64
                     ",\"key_offset\":%" PRIu64,
                     t->database, s->pairs, s->values, t->offset);
        if (in->from_line != NULL)
            (void)printf(",\"undecoded\":%" PRIu64, s->undecoded);
        if (s->ended > 0)
            (void)printf(",\"ended\":%" PRIu64, s->ended);
        (void)printf(",\"resumed\":%s}\n", t->resumed ? "true" : "false");
        return;
    }
    (void)printf("%s: %" PRIu64 " pairs and %" PRIu64 " values into database '%s'", from, s->pairs, s->values,
                 t->database);
    if (t->offset > 0)
        (void)printf(", keys moved by %" PRIu64, t->offset);
    if (s->ended > 0)
        (void)printf(", %" PRIu64 " pairs had ended and were left out with their values", s->ended);
    if (s->undecoded > 0)
        (void)printf(", %" PRIu64 " values are not base64 and were kept as they are", s->undecoded);
    (void)printf("%s\n", t->resumed ? "; went on with what was there" : "");
}

/* ---- a file ---------------------------------------------------------------------------------------------------------- */

static void tick(void *ctx, uint64_t bytes)
{
    struct tool_progress *p = ctx;
    tool_progress_at(p, bytes);
}

static enum cht_rc check_file(struct file_job *j, struct cht_err *err)
{
    struct tool_dump_reader r;
    struct tool_progress p;
    uint64_t size = 0;
    enum cht_rc rc = tool_dump_open(&r, j->in->file, err);
    if (rc == CHT_OK)
        rc = r.file->io->ops->size(r.file, &size, err);
    tool_dump_reader_close(&r);
    if (rc != CHT_OK)
        return rc;
    tool_progress_begin(&p, "check", size, true);
    rc = tool_dump_verify(j->in->file, false, &j->info, tick, &p, err);
    tool_progress_end(&p);
    return rc;
}

/* "file: line n: what was wrong". */
static enum cht_rc at_line(const struct file_job *j, uint64_t line, enum cht_rc rc, struct cht_err *err)
{
    char what[sizeof err->msg];
    (void)snprintf(what, sizeof what, "%.110s", err->msg); /* a long one is cut */
    return CHT_FAIL(err, rc, "%.60s: line %" PRIu64 ": %s", j->in->file, line, what);
}

static enum cht_rc commit(struct file_job *j, struct cht_err *err)
{
    enum cht_rc rc = tool_target_commit(&j->target, err);
    if (rc == CHT_BATCH_FAILED && j->target.failed >= 0)
        rc = at_line(j, j->first_line + (uint64_t)j->target.failed, rc, err);
    return rc;
}

static enum cht_rc add_line(struct file_job *j, const char *p, size_t n, struct cht_err *err)
{
    struct tool_dump_line l;
    enum cht_rc rc;
    tool_dump_parse(&l, p, n);
    if (l.kind == TOOL_DUMP_VALUE)
        rc = tool_target_value(&j->target, l.key, l.text, l.text_n, err);
    else if (l.kind == TOOL_DUMP_PAIR)
        rc = tool_target_pair(&j->target, l.text, l.text_n, l.key, l.expires, err);
    else
        return CHT_DAMAGED(err, "%.100s: line %" PRIu64 ": has changed since it was checked", j->in->file,
                           j->r.line);
    return rc == CHT_OK ? CHT_OK : at_line(j, j->r.line, rc, err);
}

/* Lines from where the state says up to `end`, one batch. */
static enum cht_rc one_batch(struct file_job *j, uint64_t end, struct cht_err *err)
{
    struct tool_target *t = &j->target;
    const char *p = "";
    size_t n = 0;
    enum cht_rc rc = CHT_OK;
    tool_dump_seek(&j->r, t->state.position, t->state.line);
    j->first_line = t->state.line + 1;
    while (rc == CHT_OK && !tool_target_full(t) && tool_dump_position(&j->r) < end) {
        rc = tool_dump_next(&j->r, &p, &n, err);
        if (rc == CHT_OK && p == NULL)
            rc = CHT_DAMAGED(err, "%.100s: has become shorter since it was checked", j->in->file);
        if (rc == CHT_OK)
            rc = add_line(j, p, n, err);
    }
    t->state.position = tool_dump_position(&j->r);
    t->state.line = j->r.line;
    return rc == CHT_OK ? commit(j, err) : rc;
}

static enum cht_rc lines_up_to(struct file_job *j, uint64_t end, struct cht_err *err)
{
    struct tool_target *t = &j->target;
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && t->state.position < end) {
        struct tool_target_state before = t->state;
        rc = one_batch(j, end, err);
        bool less = rc == CHT_BATCH_TOO_LARGE || rc == CHT_BODY_TOO_LARGE;
        if (less && tool_target_smaller(t)) {
            t->state = before;
            rc = CHT_OK;
        } else if (less) {
            rc = at_line(j, before.line + 1, rc, err);
        }
        tool_progress_at(&j->progress, t->state.pairs + t->state.values);
    }
    return rc;
}

static enum cht_rc write_file(struct file_job *j, struct cht_err *err)
{
    struct tool_target *t = &j->target;
    if (!t->resumed) {
        t->state.position = j->info.values_at;
        t->state.line = j->info.values_line;
    }
    enum cht_rc rc = tool_target_begin(t, j->info.last_key, err);
    if (rc == CHT_OK && j->info.highest_key > CHT_KEY_MAX - t->offset)
        rc = CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "key %" PRIu64 " cannot be moved by %" PRIu64,
                      j->info.highest_key, t->offset);
    if (rc == CHT_OK && !t->state.second)
        rc = lines_up_to(j, j->info.end_at, err);
    if (rc == CHT_OK && !t->state.second) {
        t->state.second = true;
        t->state.position = j->info.pairs_at;
        t->state.line = 1;
    }
    return rc == CHT_OK ? lines_up_to(j, j->info.values_at, err) : rc;
}

/* Does the database hold the file already, and nothing else? So it is where an import was killed after its last step. */
static bool is_there(struct file_job *j)
{
    struct tool_target *t = &j->target;
    uint32_t crc;
    if (!t->occupied || t->had_pairs != j->info.pairs || t->had_values != j->info.values ||
        tool_export_crc(&j->in->place.connect, t->database, &j->info, &crc, NULL) != CHT_OK ||
        crc != j->info.crc)
        return false;
    t->resumed = true;
    t->state.pairs = t->had_pairs;
    t->state.values = t->had_values;
    return true;
}

static enum cht_rc from_file(struct file_job *j, struct cht_err *err)
{
    char source[64];
    enum cht_rc rc = check_file(j, err);
    if (rc != CHT_OK)
        return rc;
    (void)snprintf(source, sizeof source, "export of %" PRIu64 " bytes, crc32c %08" PRIx32, j->info.end_at,
                   j->info.crc); /* fits */
    const struct tool_target_config cfg = {.connect = j->in->place.connect,
                                           .database =
                                               j->in->database != NULL ? j->in->database : j->info.database,
                                           .source = source,
                                           .merge = j->in->merge,
                                           .shards = j->in->shards};
    rc = tool_target_open(&j->target, &cfg, err);
    if (rc == CHT_DATABASE_BUSY && is_there(j)) {
        tool_import_report(j->in, &j->target, j->in->file);
        tool_target_close(&j->target);
        return CHT_OK;
    }
    if (rc == CHT_OK && j->info.ending > 0 && !j->target.keeps_ends)
        rc = CHT_FAIL(err, CHT_NOT_SUPPORTED,
                      "%.60s has %" PRIu64 " pairs that end, which %.60s would keep for ever", j->in->file,
                      j->info.ending, tool_client_url(j->target.client));
    if (rc == CHT_OK)
        rc = tool_dump_open(&j->r, j->in->file, err);
    if (rc == CHT_OK) {
        tool_progress_begin(&j->progress, "import", j->info.pairs + j->info.values, false);
        j->progress.first = j->target.state.pairs + j->target.state.values;
        rc = write_file(j, err);
        tool_progress_end(&j->progress);
        tool_dump_reader_close(&j->r);
    }
    if (rc == CHT_OK)
        rc = tool_import_finish(j->in, &j->target, j->in->file, err);
    tool_target_close(&j->target);
    return rc;
}

/* It is said before the last step: who is killed after that has read it. */
enum cht_rc tool_import_finish(const struct tool_import *in, struct tool_target *t, const char *from,
                               struct cht_err *err)
{
    tool_import_report(in, t, from);
    if (fflush(stdout) != 0)
        return CHT_FAIL(err, CHT_IO, "the output could not be written");
    return tool_target_end(t, err);
}

/* ---------------------------------------------------------------------------------------------------------------------- */

enum cht_rc tool_import_file(const struct tool_import *in, struct cht_err *err)
{
    struct file_job *j = cht_calloc(1, sizeof *j);
    if (j == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an import");
    j->in = in;
    enum cht_rc rc = from_file(j, err);
    cht_free(j);
    return rc;
}

static int run(struct tool_import *in)
{
    struct cht_err err = {0};
    int code = tool_place_open("import", &in->place, true);
    if (code == TOOL_EXIT_OK) {
        enum cht_rc rc = in->from_line != NULL ? tool_import_line(in, &err) : tool_import_file(in, &err);
        code = rc == CHT_OK ? TOOL_EXIT_OK : tool_failed(&err);
    }
    return tool_place_close(&in->place, code);
}

static bool name_ok(const char *name) { return name == NULL || cht_database_name_valid(name); }

static int check_arguments(const struct tool_import *in, int rest)
{
    if (rest != (in->from_line != NULL ? 0 : 1))
        return tool_usage("import", "takes a file, or --from-line HOST:PORT; see cheetah-db import --help");
    if (!name_ok(in->database) || !name_ok(in->from_database))
        return tool_usage("import", "a database name is " CHT_DATABASE_NAME_RULE);
    if (in->from_line == NULL &&
        (in->from_database != NULL || in->from_token_file != NULL || in->decode_base64 || in->from_tls))
        return tool_usage("import", "--from-database, --from-token-file, --from-tls and --decode-base64 go "
                                    "with --from-line");
    if ((in->tls.cert == NULL) != (in->tls.key == NULL))
        return tool_usage("import", "--from-tls-cert and --from-tls-key go together");
    if (in->keep_undecodable && !in->decode_base64)
        return tool_usage("import", "--keep-undecodable goes with --decode-base64");
    return TOOL_EXIT_OK;
}

int tool_import(int argc, char **argv)
{
    struct tool_import in = {0};
    int rest, code;
    bool wants_help = false;
    const struct tool_opt opts[] = {
        {"database", 0, TOOL_OPT_STRING, &in.database, 0, "NAME",
         "into which database; it is made if it is not there (default: the one\nFILE names, or default)"},
        {"merge", 0, TOOL_OPT_FLAG, &in.merge, 0, NULL,
         "the database need not be empty; a name that is there is mapped to the\nimported value"},
        {"shards", 0, TOOL_OPT_NUMBER, &in.shards, CHT_SHARDS_MAX, "N",
         "of a database that is made (default: as the server is set)"},
        {"json", 0, TOOL_OPT_FLAG, &in.json, 0, NULL, "what was done as one JSON object"},
        TOOL_RADOS_OPTS(&in.place.rados),
        TOOL_CONNECT_OPTS(&in.place.connect),
        {"help", 'h', TOOL_OPT_FLAG, &wants_help, 0, NULL, NULL},
        {NULL, 0, TOOL_OPT_FLAG, NULL, 0, NULL, "\nOut of a server of the line protocol:"},
        {"from-line", 0, TOOL_OPT_STRING, &in.from_line, 0, "HOST:PORT", "where it listens"},
        {"from-database", 0, TOOL_OPT_STRING, &in.from_database, 0, "NAME",
         "which database there (default: that of --database)"},
        {"from-token-file", 0, TOOL_OPT_STRING, &in.from_token_file, 0, "F", "the token that server wants"},
        {"from-tls", 0, TOOL_OPT_FLAG, &in.from_tls, 0, NULL, "it speaks TLS (--line-tls)"},
        {"from-tls-ca", 0, TOOL_OPT_STRING, &in.tls.client_ca, 0, "FILE",
         "the certificates to trust in place of the system's; implies --from-tls"},
        {"from-tls-cert", 0, TOOL_OPT_STRING, &in.tls.cert, 0, "FILE",
         "the certificate to show, in place of a token; implies --from-tls"},
        {"from-tls-key", 0, TOOL_OPT_STRING, &in.tls.key, 0, "FILE", "its private key"},
        {"decode-base64", 0, TOOL_OPT_FLAG, &in.decode_base64, 0, NULL,
         "the values there are base64 text: store what it stands for"},
        {"keep-undecodable", 0, TOOL_OPT_FLAG, &in.keep_undecodable, 0, NULL,
         "and keep a value that is not base64 as it is, instead of stopping at it"},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (wants_help)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, help_after);
    in.from_tls = in.from_tls || in.tls.client_ca != NULL || in.tls.cert != NULL || in.tls.key != NULL;
    code = check_arguments(&in, rest);
    if (code != TOOL_EXIT_OK)
        return code;
    in.file = rest == 1 ? argv[0] : NULL;
    return run(&in);
}
