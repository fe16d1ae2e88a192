/* check: `cheetah-db check`: the offline verification of data directories, or with --store rados of a pool, beside the servers on it. Only
 * reads.
 *
 * A line for each finding: "file:offset: what"; with --json {"where":...,"what":...} and, at the end,
 * {"findings":N,"complete":true|false}. Exit code 0: nothing found; 1: findings, or it could not be finished; 2: usage.
 */
#include "tools/tools.h"

#include "tools/json.h"
#include "tools/place_rados.h"
#include "tools/progress.h"

#include <stdio.h>
#include <string.h>

static const char help_before[] =
    "cheetah-db check [DIR ...] [OPTION ...]\n"
    "\n"
    "Verifies every checksum, structure and reference of the databases in the data directories of a server\n"
    "that is stopped: pages, values, names, log. Only reads. A line for each finding: file, offset, what.\n"
    "\n";
static const char help_after[] =
    "\n"
    "Exit codes: 0 all is well; 1 there are findings, or it could not be finished; 2 the command line is\n"
    "wrong.\n";

struct output {
    bool json;
    struct tool_progress progress;
    char label[80];
};

static void print_progress(void *ctx, const char *database, uint64_t done, uint64_t total)
{
    struct output *o = ctx;
    if (o->progress.label == NULL || o->progress.total != total ||
        done < o->progress.done) { /* the next database */
        tool_progress_end(&o->progress);
        (void)snprintf(o->label, sizeof o->label, "check %.64s", database); /* fits */
        tool_progress_begin(&o->progress, o->label, total, true);
    }
    tool_progress_at(&o->progress, done);
}

/* No finding: on stderr, so that what is on stdout stays a list of findings. */
static void print_notice(void *ctx, const char *database, const char *what)
{
    struct output *o = ctx;
    if (o->progress.label != NULL)
        tool_progress_clear(&o->progress);
    (void)fprintf(stderr, "cheetah-db check: %s: %s\n", database, what);
}

static void print_finding(void *ctx, const char *where, const char *what)
{
    struct output *o = ctx;
    if (o->progress.label != NULL)
        tool_progress_clear(&o->progress);
    if (o->json) {
        (void)fputs("{\"where\":", stdout);
        tool_json_string(stdout, where);
        (void)fputs(",\"what\":", stdout);
        tool_json_string(stdout, what);
        (void)fputs("}\n", stdout);
    } else {
        (void)printf("%s: %s\n", where, what);
    }
}

static int end(struct output *o, enum cht_rc rc, uint64_t findings, const struct cht_err *err)
{
    tool_progress_end(&o->progress);
    if (o->json)
        (void)printf("{\"findings\":%llu,\"complete\":%s}\n", (unsigned long long)findings,
                     rc == CHT_OK ? "true" : "false");
    if (rc != CHT_OK) {
        (void)tool_failed(err); /* its exit code is for the other commands */
        return TOOL_EXIT_FAILED;
    }
    return findings == 0 ? TOOL_EXIT_OK : TOOL_EXIT_FAILED;
}

static int check_dirs(const struct tool_dirs *dirs, const char *database, bool json)
{
    struct output out = {.json = json};
    struct cht_env_config cfg = {.dirs = (const char *const *)dirs->v,
                                 .dir_count = dirs->n,
                                 .progress = print_progress,
                                 .notice = print_notice,
                                 .progress_ctx = &out};
    struct cht_err err = {0};
    uint64_t findings = 0;
    int missing = tool_need_dirs(dirs);
    if (missing != TOOL_EXIT_OK)
        return missing;
    enum cht_rc rc = cht_check(&cfg, database, print_finding, &out, &findings, &err);
    return end(&out, rc, findings, &err);
}

static int check_pool(const struct tool_rados *r, const char *database, bool json)
{
    struct output out = {.json = json};
    struct cht_err err = {0};
    uint64_t findings = 0;
    enum cht_rc rc = tool_rados_verify(r, database, print_finding, print_notice, &out, &findings, &err);
    return end(&out, rc, findings, &err);
}

/* -------------------------------------------------------------------------------------------------------------- */

int tool_check(int argc, char **argv)
{
    const char *database = NULL;
    struct tool_opt_list data = {.n = 0};
    struct tool_rados rados = {0};
    bool json = false, wants_help = false;
    int rest;
    const struct tool_opt opts[] = {
        {"data", 0, TOOL_OPT_LIST, &data, 0, "A,B,C",
         "or DIR ...: the data directories, all of them (default " TOOL_DATA_DEFAULT ")"},
        TOOL_RADOS_OPTS(&rados),
        {"database", 0, TOOL_OPT_STRING, &database, 0, "NAME", "only this one"},
        {"json", 0, TOOL_OPT_FLAG, &json, 0, NULL,
         "{\"where\":...,\"what\":...} a finding, at the end {\"findings\":N,\"complete\":...}"},
        {"help", 'h', TOOL_OPT_FLAG, &wants_help, 0, NULL, NULL},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (wants_help)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, help_after);
    if (database != NULL && !cht_database_name_valid(database))
        return tool_usage("check", "--database wants a name of " CHT_DATABASE_NAME_RULE);
    int code = tool_rados_options("check", &rados, data.n > 0 || rest > 0 ? "a directory" : NULL);
    if (code != TOOL_EXIT_OK || tool_rados_named(&rados))
        return code != TOOL_EXIT_OK ? code : check_pool(&rados, database, json);
    struct tool_dirs dirs = {NULL, 0};
    bool ok = true;
    for (int i = 0; i < rest && ok; i++)
        ok = tool_dirs_add(&dirs, argv[i], strlen(argv[i]));
    code = ok && tool_dirs(&data, &dirs) ? check_dirs(&dirs, database, json) : TOOL_EXIT_USAGE;
    tool_dirs_fini(&dirs);
    return code;
}
