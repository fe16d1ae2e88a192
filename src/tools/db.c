/* db: `cheetah-db create, list, drop, stat`: databases of a server that is stopped. The data directories are locked
 * meanwhile. `stat` opens the databases, which recovers one that was not stopped cleanly.
 *
 * --json: a line for each database: list {"database":NAME}; stat everything it knows, with "lengths" and "places".
 */
#include "tools/tools.h"

#include "base/alloc.h"
#include "os/io.h"
#include "tools/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SHARDS_MAX 256u

/* What the four commands have in common. */
struct job {
    const char *command;
    const char *data;
    bool json, yes;
    uint64_t shards;
    const char *name; /* borrowed; NULL: none given */
    struct cht_dirs dirs;
    struct cht_env *env;
};

static bool parse(struct job *j, int argc, char **argv, int *code)
{
    int rest;
    const struct cht_opt all[] = {
        {"data", 0, CHT_OPT_STRING, &j->data, 0},
        {"json", 0, CHT_OPT_FLAG, &j->json, 0},
        {"yes", 0, CHT_OPT_FLAG, &j->yes, 0},
        {"shards", 0, CHT_OPT_NUMBER, &j->shards, SHARDS_MAX},
    };
    struct cht_opt own[4];
    size_t n = 0;
    bool create = strcmp(j->command, "create") == 0, drop = strcmp(j->command, "drop") == 0;
    bool list = strcmp(j->command, "list") == 0;
    own[n++] = all[0];
    if (!create && !drop)
        own[n++] = all[1];
    if (drop)
        own[n++] = all[2];
    if (create)
        own[n++] = all[3];
    *code = CHT_EXIT_USAGE;
    if (!cht_args_parse(own, n, argc, argv, &rest))
        return false;
    if (rest > (list ? 0 : 1)) {
        (void)cht_tool_usage(j->command,
                             list ? "takes no names" : "takes one name"); /* *code says it already */
        return false;
    }
    j->name = rest == 1 ? argv[0] : NULL;
    if ((create || drop) && j->name == NULL)
        (void)cht_tool_usage(j->command, "the name of a database is missing"); /* as above */
    else if (j->name != NULL && !cht_database_name_valid(j->name))
        (void)cht_tool_usage(j->command, "a database name is [A-Za-z0-9][A-Za-z0-9_-]{0,63}"); /* as above */
    else if (drop && !j->yes)
        (void)cht_tool_usage(j->command,
                             "deletes the database and all of its data: add --yes if that is wanted");
    else
        return cht_tool_dirs(j->data, &j->dirs);
    return false;
}

/* Parses, opens the directories, runs fn, closes them. */
static int run(const char *command, int argc, char **argv, int (*fn)(struct job *j))
{
    struct job j = {.command = command};
    struct cht_err err = {0};
    int code;
    if (parse(&j, argc, argv, &code)) {
        struct cht_env_config cfg = {
            .dirs = (const char *const *)j.dirs.v, .dir_count = j.dirs.n, .scan_workers = 1};
        code = strcmp(command, "create") == 0 ? CHT_EXIT_OK : cht_tool_need_dirs(&j.dirs);
        if (code == CHT_EXIT_OK && cht_env_open(&cfg, &j.env, &err) != CHT_OK)
            code = cht_tool_failed(&err);
        if (code == CHT_EXIT_OK) {
            code = fn(&j);
            if (cht_env_close(j.env, &err) != CHT_OK && code == CHT_EXIT_OK)
                code = cht_tool_failed(&err);
        }
    }
    cht_dirs_fini(&j.dirs);
    return code;
}

static int do_create(struct job *j)
{
    struct cht_err err = {0};
    return cht_env_create(j->env, j->name, (unsigned)j->shards, &err) == CHT_OK ? CHT_EXIT_OK
                                                                                : cht_tool_failed(&err);
}

static int do_drop(struct job *j)
{
    struct cht_err err = {0};
    return cht_env_drop(j->env, j->name, &err) == CHT_OK ? CHT_EXIT_OK : cht_tool_failed(&err);
}

static void print_name(void *ctx, const char *name)
{
    const struct job *j = ctx;
    (void)printf(j->json ? "{\"database\":\"%s\"}\n" : "%s\n", name); /* a valid name needs no escape */
}

static int do_list(struct job *j)
{
    struct cht_err err = {0};
    return cht_env_list(j->env, print_name, j, &err) == CHT_OK ? CHT_EXIT_OK : cht_tool_failed(&err);
}

/* ---- stat ---------------------------------------------------------------------------------------------------- */

struct listing {
    bool json;
    size_t count;
};

static void print_length(void *ctx, const struct cht_length_stat *s)
{
    struct listing *l = ctx;
    if (l->json)
        (void)printf("%s{\"length\":%" PRIu32 ",\"live\":%" PRIu64 ",\"slots\":%" PRIu64
                     ",\"extents\":%" PRIu64 "}",
                     l->count == 0 ? "" : ",", s->length, s->live, s->slots, s->extents);
    else
        (void)printf("  length %-10" PRIu32 " live %-12" PRIu64 " slots %-12" PRIu64 " extents %" PRIu64 "\n",
                     s->length, s->live, s->slots, s->extents);
    l->count++;
}

static void print_shard(void *ctx, const struct cht_shard_stat *s)
{
    struct listing *l = ctx;
    if (l->json) {
        (void)printf("%s{\"shard\":%u,\"dir\":", l->count == 0 ? "" : ",", s->shard);
        cht_json_string(stdout, s->dir);
        (void)printf(",\"pairs\":%" PRIu64 ",\"values\":%" PRIu64 ",\"value_bytes\":%" PRIu64
                     ",\"file_bytes\":%" PRIu64 ",\"checkpoint_seq\":%" PRIu64 "}",
                     s->pairs, s->values, s->value_bytes, s->file_bytes, s->checkpoint_seq);
    } else {
        (void)printf("  shard %-3u pairs %-12" PRIu64 " values %-12" PRIu64 " file_bytes %-14" PRIu64 " %s\n",
                     s->shard, s->pairs, s->values, s->file_bytes, s->dir);
    }
    l->count++;
}

/* The numbers of a store that has just been opened; what counts since then (commits, syncs) says nothing here. */
static void print_numbers(const char *name, const struct cht_store_stats *s, bool json)
{
    const struct {
        const char *key;
        uint64_t value;
    } rows[] = {
        {"shards", s->shards},           {"pairs", s->pairs},       {"values", s->values},
        {"value_bytes", s->value_bytes}, {"next_key", s->next_key}, {"file_bytes", s->file_bytes},
        {"log_bytes", s->log_bytes},     {"log_live", s->log_live}, {"log_seq", s->log_seq},
        {"corrupt", s->corrupt},
    };
    (void)printf(json ? "{\"database\":\"%s\"" : "%s\n", name);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        (void)printf(json ? ",\"%s\":%" PRIu64 : "  %-12s %" PRIu64 "\n", rows[i].key, rows[i].value);
}

static int stat_one(struct job *j, const char *name)
{
    struct cht_err err = {0};
    struct cht_store *s;
    struct cht_store_stats st;
    struct listing lengths = {j->json, 0}, shards = {j->json, 0};
    enum cht_rc rc = cht_env_get(j->env, name, &s, &err);
    if (rc == CHT_OK)
        rc = cht_store_stats(s, &st, &err);
    if (rc != CHT_OK)
        return cht_tool_failed(&err);
    print_numbers(name, &st, j->json);
    (void)fputs(j->json ? ",\"lengths\":[" : "", stdout);
    rc = cht_store_lengths(s, print_length, &lengths, &err);
    (void)fputs(j->json ? "],\"places\":[" : "", stdout);
    if (rc == CHT_OK)
        rc = cht_store_shards(s, print_shard, &shards, &err);
    (void)fputs(j->json ? "]}\n" : "", stdout);
    return rc == CHT_OK ? CHT_EXIT_OK : cht_tool_failed(&err);
}

struct each {
    struct job *j;
    int code;
};

/* Each in its turn, whatever became of the one before; the first failure is the exit code. */
static void stat_each(void *ctx, const char *name)
{
    struct each *e = ctx;
    int code = stat_one(e->j, name);
    e->code = e->code == CHT_EXIT_OK ? code : e->code;
}

/* The names are printed by a callback of cht_env_list, which holds no lock of the environment. */
static int do_stat(struct job *j)
{
    struct cht_err err = {0};
    struct each e = {j, CHT_EXIT_OK};
    if (j->name != NULL)
        return stat_one(j, j->name);
    return cht_env_list(j->env, stat_each, &e, &err) == CHT_OK ? e.code : cht_tool_failed(&err);
}

/* -------------------------------------------------------------------------------------------------------------- */

int cht_tool_create(int argc, char **argv) { return run("create", argc, argv, do_create); }

int cht_tool_list(int argc, char **argv) { return run("list", argc, argv, do_list); }

int cht_tool_drop(int argc, char **argv) { return run("drop", argc, argv, do_drop); }

int cht_tool_stat(int argc, char **argv) { return run("stat", argc, argv, do_stat); }

int cht_tool_failed(const struct cht_err *err)
{
    (void)fprintf(stderr, "cheetah-db: %s\n", err->msg[0] != 0 ? err->msg : cht_rc_text(err->code));
    if (err->code == CHT_CORRUPT)
        return CHT_EXIT_DAMAGED;
    return err->code == CHT_INVALID_ARGUMENT || err->code == CHT_INVALID_DATABASE_NAME ? CHT_EXIT_USAGE
                                                                                       : CHT_EXIT_FAILED;
}

int cht_tool_usage(const char *command, const char *what)
{
    (void)fprintf(stderr, "cheetah-db %s: %s\n", command, what);
    return CHT_EXIT_USAGE;
}

bool cht_tool_dirs(const char *data, struct cht_dirs *dirs)
{
    if (data != NULL)
        return cht_dirs_add_list(dirs, data);
    return dirs->n > 0 || cht_dirs_add(dirs, CHT_DATA_DEFAULT, strlen(CHT_DATA_DEFAULT));
}

int cht_tool_need_dirs(const struct cht_dirs *dirs)
{
    for (size_t i = 0; i < dirs->n; i++) {
        if (!cht_io_exists(cht_io_posix(), dirs->v[i])) {
            (void)fprintf(stderr, "cheetah-db: %s: no such data directory\n", dirs->v[i]);
            return CHT_EXIT_FAILED;
        }
    }
    return CHT_EXIT_OK;
}
