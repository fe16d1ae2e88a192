/* db: `cheetah-db create, list (or databases), drop`: the databases of a running server, or with --data those of one that is stopped; the
 * data directories are locked meanwhile.
 *
 * list --json: a line for each database, {"database":NAME}.
 */
#include "tools/place.h"
#include "tools/tools.h"

#include "base/literal.h"
#include "os/io.h"
#include "os/terminal.h"
#include "store/own.h"
#include "store/set.h"

#include <jansson.h>

#include <stdio.h>
#include <string.h>

/* What each of the three says before its options. */
static const char create_help[] = "cheetah-db create NAME [OPTION ...]: makes an empty database\n\n";
static const char list_help[] =
    "cheetah-db list [OPTION ...]\n"
    "cheetah-db databases [OPTION ...]: the names of the databases, one a line\n\n";
static const char drop_help[] =
    "cheetah-db drop NAME --yes [OPTION ...]: deletes a database and its files\n\n";

/* What they have in common. */
struct job {
    const char *command;
    struct tool_place place;
    bool json, yes, help;
    uint64_t shards;
    const char *name; /* borrowed; NULL: none given */
    struct tool_dirs dirs;
    struct cht_env *env;
};

static bool parse(struct job *j, int argc, char **argv, int *code)
{
    int rest;
    const struct tool_opt all[] = {
        {"json", 0, TOOL_OPT_FLAG, &j->json, 0, NULL, "{\"database\":NAME} a line"},
        {"yes", 0, TOOL_OPT_FLAG, &j->yes, 0, NULL, "it is meant; nothing is done without"},
        {"shards", 0, TOOL_OPT_NUMBER, &j->shards, CHT_SHARDS_MAX, "N",
         "1 to 256, fixed from then on (default 8)"},
        TOOL_PLACE_OPTS(&j->place),
        {"help", 'h', TOOL_OPT_FLAG, &j->help, 0, NULL, NULL},
    };
    struct tool_opt own[sizeof all / sizeof *all];
    size_t n = 0;
    bool create = strcmp(j->command, "create") == 0, drop = strcmp(j->command, "drop") == 0;
    bool list = strcmp(j->command, "list") == 0;
    own[n++] = all[create ? 2 : drop ? 1 : 0];
    for (size_t i = 3; i < sizeof all / sizeof *all; i++)
        own[n++] = all[i];
    *code = TOOL_EXIT_USAGE;
    if (!tool_args_parse(own, n, argc, argv, &rest))
        return false;
    if (j->help) {
        *code = tool_args_help(create ? create_help : drop ? drop_help : list_help, own, n, "");
        return false;
    }
    if (rest > (list ? 0 : 1)) {
        (void)tool_usage(j->command, list ? "takes no names" : "takes one name"); /* *code says it already */
        return false;
    }
    j->name = rest == 1 ? argv[0] : NULL;
    if ((create || drop) && j->name == NULL)
        (void)tool_usage(j->command, "the name of a database is missing"); /* as above */
    else if (j->name != NULL && !cht_database_name_valid(j->name))
        (void)tool_usage(j->command, "a database name is " CHT_DATABASE_NAME_RULE); /* as above */
    else if (drop && !j->yes)
        (void)tool_usage(j->command, "deletes the database and all of its data: add --yes if that is wanted");
    else if (tool_place_check(j->command, &j->place) == TOOL_EXIT_OK)
        return !tool_place_stopped(&j->place) || tool_dirs(&j->place.data, &j->dirs);
    return false;
}

/* ---- the directories ------------------------------------------------------------------------------------------------- */

/* Is there something of a database in a folder of a data directory? */
static bool has_parts(const char *dir, const char *name)
{
    char path[CHT_PATH_MAX];
    struct cht_io_names in = {.n = 0};
    bool has = cht_path_join(path, sizeof path, dir, name, NULL) != CHT_OK ||
               cht_io_names(cht_io_posix(), path, &in, NULL) != CHT_OK; /* who opens it says why */
    for (size_t i = 0; i < in.n; i++) {
        has = has || strcmp(in.v[i], "manifest") == 0 || CHT_BEGINS(in.v[i], "shard-");
        for (unsigned m = 0; m < CHT_MARKS; m++) /* what was begun, or is being dropped */
            has = has || strcmp(in.v[i], cht_mark_names[m]) == 0;
    }
    cht_io_names_fini(&in);
    return has;
}

/* Has a server or `create` ever made a data directory of it? Before 0.2.0 there were databases only. */
static enum cht_rc has_data(const char *dir, bool *out, struct cht_err *err)
{
    struct cht_io_names in = {.n = 0};
    enum cht_rc rc = cht_io_names(cht_io_posix(), dir, &in, err);
    for (size_t i = 0; i < in.n; i++)
        *out = *out || strcmp(in.v[i], CHT_SET_FILE) == 0;
    for (size_t i = 0; rc == CHT_OK && i < in.n && !*out; i++)
        *out = in.kind[i] == CHT_IO_FOLDER && cht_database_name_valid(in.v[i]) && has_parts(dir, in.v[i]);
    cht_io_names_fini(&in);
    return rc;
}

/* What is wrong with the directories; *data: one of them has some. */
static int look_at(const struct tool_dirs *dirs, bool *data)
{
    *data = false;
    for (size_t i = 0; i < dirs->n; i++) {
        struct cht_err err = {0};
        enum cht_io_kind kind;
        if (cht_io_kind(cht_io_posix(), dirs->v[i], &kind, &err) != CHT_OK)
            return tool_failed(&err);
        if (kind != CHT_IO_FOLDER) {
            (void)fprintf(stderr, "cheetah-db: %s: no such data directory\n", dirs->v[i]);
            return TOOL_EXIT_FAILED;
        }
        if (!*data && has_data(dirs->v[i], data, &err) != CHT_OK)
            return tool_failed(&err);
    }
    return TOOL_EXIT_OK;
}

/* Opens the directories, runs fn, closes them. */
static int run_stopped(struct job *j, int (*fn)(struct job *j))
{
    struct cht_err err = {0};
    bool list = strcmp(j->command, "list") == 0,
         data; /* which writes nothing, and shows that there is nothing */
    struct cht_env_config cfg = {.dirs = (const char *const *)j->dirs.v,
                                 .dir_count = j->dirs.n,
                                 .mode = list ? CHT_DIRS_LOOK : CHT_DIRS_JOIN,
                                 .scan_workers = 1};
    int code = strcmp(j->command, "create") == 0 ? TOOL_EXIT_OK
               : list                            ? look_at(&j->dirs, &data)
                                                 : tool_need_dirs(&j->dirs);
    if (code == TOOL_EXIT_OK && cht_env_open(&cfg, &j->env, &err) != CHT_OK)
        code = tool_failed(&err);
    if (code == TOOL_EXIT_OK) {
        code = fn(j);
        if (cht_env_close(j->env, &err) != CHT_OK && code == TOOL_EXIT_OK)
            code = tool_failed(&err);
    }
    return code;
}

static int run_there(struct job *j, enum cht_rc (*fn)(struct job *j, struct cht_err *err))
{
    struct cht_err err = {0};
    int code = tool_place_open(j->command, &j->place, strcmp(j->command, "create") == 0);
    if (code == TOOL_EXIT_OK && fn(j, &err) != CHT_OK)
        code = tool_failed(&err);
    return tool_place_close(&j->place, code);
}

/* Parses, then asks the running server or opens the directories. */
static int run(const char *command, int argc, char **argv, int (*stopped)(struct job *j),
               enum cht_rc (*there)(struct job *j, struct cht_err *err))
{
    struct job j = {.command = command};
    int code;
    if (parse(&j, argc, argv, &code))
        code = tool_place_stopped(&j.place) ? run_stopped(&j, stopped) : run_there(&j, there);
    tool_dirs_fini(&j.dirs);
    return code;
}

/* ---- a running server ------------------------------------------------------------------------------------------------ */

static void tell(const struct job *j, const char *what)
{
    if (cht_os_is_terminal(1))
        (void)printf("%s: %s %s\n", tool_place_name(&j->place), j->name, what);
}

static enum cht_rc create_there(struct job *j, struct cht_err *err)
{
    char path[96], body[32] = "";
    struct cht_buf answer = {0};
    (void)snprintf(path, sizeof path, "/databases/%.64s", j->name); /* fits, as the next */
    if (j->shards > 0)
        (void)snprintf(body, sizeof body, "{\"shards\":%u}", (unsigned)j->shards);
    struct tool_request r = {.method = "PUT",
                             .path = path,
                             .body = body,
                             .body_len = strlen(body),
                             .content_type = "application/json"};
    enum cht_rc rc = tool_client_ask(j->place.client, &r, &answer, err);
    cht_buf_free(&answer);
    if (rc == CHT_OK && r.status != 201)
        rc = CHT_FAIL(err, CHT_DATABASE_EXISTS, "%.80s: database %s exists already",
                      tool_place_name(&j->place), j->name);
    if (rc == CHT_OK)
        tell(j, "is made");
    return rc;
}

static enum cht_rc drop_there(struct job *j, struct cht_err *err)
{
    char path[192];
    (void)snprintf(path, sizeof path, "/databases/%.64s?confirm=%.64s", j->name, j->name); /* fits */
    struct tool_request r = {.method = "DELETE", .path = path};
    enum cht_rc rc = tool_client_run(j->place.client, &r, err);
    if (rc == CHT_OK)
        tell(j, "and all of its data is deleted");
    return rc;
}

static void print_name(void *ctx, const char *name)
{
    const struct job *j = ctx;
    (void)printf(j->json ? "{\"database\":\"%s\"}\n" : "%s\n", name); /* a valid name needs no escape */
}

static enum cht_rc list_there(struct job *j, struct cht_err *err)
{
    struct cht_buf b = {0};
    enum cht_rc rc = tool_client_get(j->place.client, "/databases", &b, err);
    json_t *o = rc == CHT_OK ? json_loadb((const char *)b.data, b.len, 0, NULL) : NULL;
    const json_t *names = json_object_get(o, "databases");
    if (rc == CHT_OK && !json_is_array(names))
        rc = CHT_FAIL(err, CHT_IO, "%.80s does not name its databases; is it a cheetah-db server?",
                      tool_place_name(&j->place));
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (name != NULL && cht_database_name_valid(name))
            print_name(j, name);
    }
    json_decref(o);
    cht_buf_free(&b);
    return rc;
}

/* ---- a stopped one ---------------------------------------------------------------------------------------------------- */

static int do_create(struct job *j)
{
    struct cht_err err = {0};
    return cht_env_create(j->env, j->name, (unsigned)j->shards, &err) == CHT_OK ? TOOL_EXIT_OK
                                                                                : tool_failed(&err);
}

static int do_drop(struct job *j)
{
    struct cht_err err = {0};
    return cht_env_drop(j->env, j->name, &err) == CHT_OK ? TOOL_EXIT_OK : tool_failed(&err);
}

/* On stderr: the names alone are what a script reads. */
static void print_unfinished(void *ctx, const char *name, enum cht_rc rc, const char *what)
{
    (void)ctx;
    (void)fprintf(stderr, "cheetah-db list: %s: %s%s\n", name, what,
                  rc == CHT_OK ? " by the next start" : "");
}

static int do_list(struct job *j)
{
    struct cht_err err = {0};
    if (cht_env_finish(j->env, print_unfinished, NULL, &err) != CHT_OK)
        return tool_failed(&err);
    return cht_env_list(j->env, print_name, j, &err) == CHT_OK ? TOOL_EXIT_OK : tool_failed(&err);
}

/* -------------------------------------------------------------------------------------------------------------- */

int tool_create(int argc, char **argv) { return run("create", argc, argv, do_create, create_there); }

int tool_list(int argc, char **argv) { return run("list", argc, argv, do_list, list_there); }

int tool_drop(int argc, char **argv) { return run("drop", argc, argv, do_drop, drop_there); }

int tool_failed(const struct cht_err *err)
{
    (void)fprintf(stderr, "cheetah-db: %s\n", err->msg[0] != 0 ? err->msg : cht_rc_text(err->code));
    if (err->code == CHT_CORRUPT)
        return TOOL_EXIT_DAMAGED;
    return err->code == CHT_INVALID_ARGUMENT || err->code == CHT_INVALID_DATABASE_NAME ? TOOL_EXIT_USAGE
                                                                                       : TOOL_EXIT_FAILED;
}

int tool_usage(const char *command, const char *what)
{
    (void)fprintf(stderr, "cheetah-db %s: %s\n", command, what);
    return TOOL_EXIT_USAGE;
}

bool tool_dirs(const struct tool_opt_list *data, struct tool_dirs *dirs)
{
    for (size_t i = 0; i < data->n; i++) {
        if (!tool_dirs_add_list(dirs, data->v[i]))
            return false;
    }
    return dirs->n > 0 || tool_dirs_add(dirs, TOOL_DATA_DEFAULT, strlen(TOOL_DATA_DEFAULT));
}

int tool_need_dirs(const struct tool_dirs *dirs)
{
    bool data;
    int code = look_at(dirs, &data);
    if (code != TOOL_EXIT_OK)
        return code;
    if (data)
        return TOOL_EXIT_OK;
    (void)fprintf(stderr, "cheetah-db: %s: no data directory; cheetah-db create NAME --data makes one\n",
                  dirs->v[0]);
    return TOOL_EXIT_FAILED;
}
