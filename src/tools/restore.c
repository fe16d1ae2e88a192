/* restore: `cheetah-db restore FILE`: makes a database of a backup, in a running server (PUT /databases/{name}/restore) or with --data
 * in directories that no server uses, or with --store rados in a pool beside its servers; there its log is redone and all of it is checked, and
 * one that does not pass is removed again, but for one in a pool: others may have written to it by then.
 */
#include "tools/place.h"
#include "tools/tools.h"

#include "base/alloc.h"
#include "cheetah/backup.h"
#include "os/io.h"
#include "os/net.h"
#include "tools/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PIECE (1u << 20)

static const char help_before[] =
    "cheetah-db restore FILE [OPTION ...]: a database made of a backup\n"
    "\n"
    "Into the running server, or with --data into directories that no server uses (made if missing). There\n"
    "must not be a database of this name. It appears when all of the backup is read and was whole; then it\n"
    "is opened and checked, and removed again if that finds something.\n"
    "With --store rados into a pool, beside its servers, where it stays also if the check finds something.\n"
    "A backup of a pool needs no disk; one of files that was used for long lies meanwhile in files without\n"
    "names in --scratch, as large as its database.\n"
    "What a run that was killed left in the pool any server there removes.\n"
    "\n";
static const char help_after[] =
    "\n"
    "Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 the backup is damaged.\n";

struct job {
    const char *path, *database, *scratch;
    struct tool_place place;
    bool verify, keep, json;
    struct tool_dirs dirs;
    struct cht_env_config cfg;
    char name[CHT_DATABASE_NAME_MAX + 1]; /* of the database */
    uint64_t position, bytes, findings;
};

/* Hands the file to one of the two sinks. */
struct sink {
    struct cht_backup_check *check; /* one of them is NULL */
    struct cht_restore *restore;
};

static enum cht_rc feed(const struct sink *s, const uint8_t *p, size_t n, struct cht_err *err)
{
    return s->check != NULL ? cht_backup_check_feed(s->check, p, n, err)
                            : cht_restore_feed(s->restore, p, n, err);
}

static enum cht_rc read_file(struct job *j, const struct sink *s, struct cht_err *err)
{
    struct cht_file *f;
    struct tool_progress progress;
    uint64_t size = 0;
    uint8_t *buf = cht_malloc(PIECE);
    if (buf == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to read a backup");
    enum cht_rc rc = cht_io_open(cht_io_posix(), j->path, CHT_OPEN_RDONLY, &f, err);
    if (rc != CHT_OK) {
        cht_free(buf);
        return rc;
    }
    rc = cht_io_posix()->ops->size(f, &size, err);
    tool_progress_begin(&progress, j->verify ? "verify" : "restore", size, true);
    size_t got = 1;
    while (rc == CHT_OK && got > 0) {
        rc = cht_file_read_some(f, buf, PIECE, j->bytes, &got, err);
        if (rc == CHT_OK && got > 0)
            rc = feed(s, buf, got, err);
        j->bytes += rc == CHT_OK ? got : 0;
        tool_progress_at(&progress, j->bytes);
    }
    tool_progress_end(&progress);
    cht_file_close(f);
    cht_free(buf);
    return rc;
}

static void note(struct job *j, const struct cht_backup_info *info, const char *name)
{
    j->position = info->position;
    (void)snprintf(j->name, sizeof j->name, "%s", name);
}

static enum cht_rc verify_file(struct job *j, struct cht_err *err)
{
    struct sink s = {NULL, NULL};
    uint64_t done;
    enum cht_rc rc = cht_backup_check_new(&s.check, err);
    if (rc == CHT_OK)
        rc = read_file(j, &s, err);
    if (rc == CHT_OK)
        rc = cht_backup_check_finish(s.check, err);
    if (rc == CHT_OK)
        note(j, cht_backup_check_info(s.check, &done), cht_backup_check_info(s.check, &done)->database);
    cht_backup_check_free(s.check);
    return rc;
}

static enum cht_rc open_env(struct job *j, struct cht_env **env, struct cht_err *err)
{
    return tool_rados_named(&j->place.rados) ? tool_rados_open_pool(&j->place.rados, true, env, err)
                                             : cht_env_open(&j->cfg, env, err);
}

/* Files, log, a clean stop. *made: the database is there. */
static enum cht_rc make(struct job *j, bool *made, struct cht_err *err)
{
    struct cht_env *env;
    struct cht_store *store;
    struct sink s = {NULL, NULL};
    uint64_t done;
    enum cht_rc rc = open_env(j, &env, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_restore_new(env, j->database, &s.restore, err);
    if (rc == CHT_OK)
        rc = read_file(j, &s, err);
    if (rc == CHT_OK)
        rc = cht_restore_finish(s.restore, err);
    *made = rc == CHT_OK;
    if (rc == CHT_OK) {
        note(j, cht_restore_info(s.restore, &done), cht_restore_name(s.restore));
        rc = cht_env_get(env, j->name, &store, err);
    }
    cht_restore_free(s.restore);
    enum cht_rc closed = cht_env_close(env, rc == CHT_OK ? err : NULL);
    return rc == CHT_OK ? closed : rc;
}

static void print_finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    (void)fprintf(stderr, "%s: %s\n", where, what);
}

static void take_away(struct job *j)
{
    struct cht_env *env;
    struct cht_err err = {0};
    enum cht_rc rc = cht_env_open(&j->cfg, &env, &err);
    if (rc == CHT_OK) {
        rc = cht_env_drop(env, j->name, &err);
        cht_env_abandon(env);
    }
    if (rc != CHT_OK)
        (void)fprintf(stderr, "cheetah-db restore: %s could not be removed: %s\n", j->name, err.msg);
}

static enum cht_rc look_at_all(struct job *j, struct cht_err *err)
{
    return tool_rados_named(&j->place.rados)
               ? tool_rados_verify(&j->place.rados, j->name, print_finding, NULL, NULL, &j->findings, err)
               : cht_check(&j->cfg, j->name, print_finding, NULL, &j->findings, err);
}

static enum cht_rc restore(struct job *j, struct cht_err *err)
{
    bool made = false,
         stays = j->keep || tool_rados_named(&j->place.rados); /* in a pool others use it already */
    enum cht_rc rc = make(j, &made, err);
    if (rc == CHT_OK)
        rc = look_at_all(j, err);
    if (rc == CHT_OK && j->findings > 0)
        rc = CHT_FAIL(err, CHT_CORRUPT,
                      "database %s: the check of what was restored found %" PRIu64 " faults%s", j->name,
                      j->findings, stays ? "; it is kept" : "; it is removed again");
    if (rc != CHT_OK && made && !stays)
        take_away(j);
    return rc;
}

/* ---- a running server ------------------------------------------------------------------------------------------------ */

/* A file on its way to the server, which is checked here as well. */
struct sending {
    struct job *j;
    struct cht_file *file;
    struct cht_backup_check *check;
    struct tool_progress progress;
    struct cht_err err; /* of the file */
};

static size_t give_piece(void *ctx, char *buf, size_t room)
{
    struct sending *s = ctx;
    size_t got = 0;
    enum cht_rc rc = cht_file_read_some(s->file, buf, room, s->j->bytes, &got, &s->err);
    if (rc == CHT_OK)
        rc = got > 0 ? cht_backup_check_feed(s->check, buf, got, &s->err)
                     : cht_backup_check_finish(s->check, &s->err);
    s->err.code = rc;
    if (rc != CHT_OK)
        return TOOL_CLIENT_ABORT;
    s->j->bytes += got;
    tool_progress_at(&s->progress, s->j->bytes);
    return got;
}

/* Is there one of this name? Told before all of a backup is sent. */
static enum cht_rc must_be_new(struct job *j, struct cht_err *err)
{
    char path[96];
    struct cht_buf answer = {0};
    (void)snprintf(path, sizeof path, "/databases/%.64s", j->name); /* fits */
    enum cht_rc rc = tool_client_get(j->place.client, path, &answer, err);
    cht_buf_free(&answer);
    if (rc == CHT_OK)
        return CHT_FAIL(err, CHT_DATABASE_EXISTS, "%.90s: database %s exists already",
                        tool_place_name(&j->place), j->name);
    return rc == CHT_DATABASE_NOT_FOUND ? CHT_OK : rc;
}

/* Reads as much as says the name that the database had. */
static enum cht_rc read_name(struct job *j, struct cht_file *f, struct cht_err *err)
{
    struct cht_backup_check *check;
    const struct cht_backup_info *info = NULL;
    uint8_t head[4096];
    uint64_t at = 0, done;
    size_t got = 1;
    enum cht_rc rc = cht_backup_check_new(&check, err);
    while (rc == CHT_OK && info == NULL && got > 0) {
        rc = cht_file_read_some(f, head, sizeof head, at, &got, err);
        if (rc == CHT_OK)
            rc = cht_backup_check_feed(check, head, got, err);
        at += got;
        info = cht_backup_check_info(check, &done);
    }
    if (rc == CHT_OK && info == NULL)
        rc = CHT_FAIL(err, CHT_CORRUPT, "%.120s is no backup: it is too short", j->path);
    if (rc == CHT_OK)
        note(j, info, j->database != NULL ? j->database : info->database);
    cht_backup_check_free(check);
    return rc;
}

static enum cht_rc send(struct job *j, struct sending *s, struct cht_err *err)
{
    char path[96];
    uint64_t size = 0;
    (void)cht_io_posix()->ops->size(s->file, &size, NULL);                  /* only for the progress line */
    (void)snprintf(path, sizeof path, "/databases/%.64s/restore", j->name); /* fits */
    struct tool_request r = {
        .method = "PUT", .path = path, .source = give_piece, .source_ctx = s, .idle_seconds = 86400};
    tool_progress_begin(&s->progress, "restore", size, true);
    enum cht_rc rc = tool_client_run(j->place.client, &r, err);
    tool_progress_end(&s->progress);
    if (s->err.code != CHT_OK) {
        *err = s->err;
        return s->err.code;
    }
    if (rc == CHT_OK && r.status != 201)
        rc = CHT_FAIL(err, CHT_IO, "the server did not say that it is there");
    return rc;
}

static enum cht_rc restore_there(struct job *j, struct cht_err *err)
{
    struct sending s = {.j = j};
    enum cht_rc rc = cht_io_open(cht_io_posix(), j->path, CHT_OPEN_RDONLY, &s.file, err);
    if (rc != CHT_OK)
        return rc;
    rc = read_name(j, s.file, err);
    if (rc == CHT_OK)
        rc = must_be_new(j, err);
    if (rc == CHT_OK)
        rc = cht_backup_check_new(&s.check, err);
    if (rc == CHT_OK)
        rc = send(j, &s, err);
    cht_backup_check_free(s.check);
    cht_file_close(s.file);
    return rc;
}

/* ---------------------------------------------------------------------------------------------------------------------- */

static int run(struct job *j)
{
    struct cht_err err = {0};
    enum cht_rc rc;
    if (j->verify)
        rc = verify_file(j, &err);
    else if (tool_place_stopped(&j->place) || tool_rados_named(&j->place.rados))
        rc = restore(j, &err);
    else
        rc = restore_there(j, &err);
    if (rc != CHT_OK)
        return tool_failed(&err);
    char size[16];
    tool_progress_number(size, j->bytes, true);
    if (j->json)
        (void)printf("{\"database\":\"%s\",\"position\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"restored\":%s}\n",
                     j->name, j->position, j->bytes, j->verify ? "false" : "true");
    else
        (void)printf("%s%s%s: %s, log position %" PRIu64 ": %s\n", j->name,
                     j->place.client != NULL ? " at " : "",
                     j->place.client != NULL ? tool_place_name(&j->place) : "", size, j->position,
                     j->verify ? "the backup is whole" : "restored and checked");
    return TOOL_EXIT_OK;
}

static int into_pool(struct job *j)
{
    char folder[CHT_PATH_MAX];
    const char *slash = strrchr(j->path, '/');
    (void)snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 1 : (int)(slash - j->path) + 1,
                   slash == NULL ? "." : j->path);
    (void)cht_os_raise_files(); /* six a shard of a backup of files */
    j->place.rados.spool = j->scratch != NULL ? j->scratch : folder;
    return run(j);
}

/* -------------------------------------------------------------------------------------------------------------- */

int tool_restore(int argc, char **argv)
{
    struct job j = {.path = NULL};
    bool asked = false;
    int rest;
    const struct tool_opt opts[] = {
        {"database", 0, TOOL_OPT_STRING, &j.database, 0, "NAME", "its name (default: the one it had)"},
        {"verify", 0, TOOL_OPT_FLAG, &j.verify, 0, NULL, "only reads FILE and says whether it is whole"},
        {"keep", 0, TOOL_OPT_FLAG, &j.keep, 0, NULL, "keeps a database in which the check finds something"},
        {"json", 0, TOOL_OPT_FLAG, &j.json, 0, NULL, "the result as one JSON object"},
        {"scratch", 0, TOOL_OPT_STRING, &j.scratch, 0, "DIR",
         "with --store rados: where the files are laid out meanwhile\n(default: where FILE is)"},
        TOOL_PLACE_OPTS(&j.place),
        {"help", 'h', TOOL_OPT_FLAG, &asked, 0, NULL, NULL},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (asked)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, help_after);
    if (rest != 1)
        return tool_usage("restore", "takes one file; see cheetah-db restore --help");
    if (j.database != NULL && !cht_database_name_valid(j.database))
        return tool_usage("restore", "--database wants a name of " CHT_DATABASE_NAME_RULE);
    if (j.keep && !tool_place_stopped(&j.place))
        return tool_usage("restore", "--keep goes with --data");
    if (j.scratch != NULL && !tool_rados_named(&j.place.rados))
        return tool_usage("restore", "--scratch goes with --store rados");
    j.path = argv[0];
    int code = tool_place_check("restore", &j.place);
    if (code != TOOL_EXIT_OK)
        return code;
    if (j.verify)
        return run(&j);
    if (tool_rados_named(&j.place.rados))
        return into_pool(&j);
    if (!tool_place_stopped(&j.place)) {
        code = tool_place_open("restore", &j.place, true);
        return tool_place_close(&j.place, code == TOOL_EXIT_OK ? run(&j) : code);
    }
    code = TOOL_EXIT_USAGE;
    if (tool_dirs(&j.place.data, &j.dirs)) {
        j.cfg = (struct cht_env_config){
            .dirs = (const char *const *)j.dirs.v, .dir_count = j.dirs.n, .scan_workers = 1};
        code = run(&j);
    }
    tool_dirs_fini(&j.dirs);
    return code;
}
