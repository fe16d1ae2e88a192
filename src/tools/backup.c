/* backup: `cheetah-db backup DIR`: receives a copy of a database from a running server, or with --store rados of a pool beside its servers, into one file.
 *
 *   DIR/.NAME.cheetah.part            while it is received; locked, so that two of them do not mix; the next one starts over
 *   DIR/NAME-20261121T083312.345Z.cheetah     synced, complete, under its name in one step
 *
 * Every frame is checked as it arrives (cheetah/backup.h), so a file under its final name is one that `restore` takes.
 */
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cheetah/backup.h"
#include "os/io.h"
#include "tools/http_client.h"
#include "tools/json.h"
#include "tools/place_rados.h"
#include "tools/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char help_before[] =
    "cheetah-db backup DIR [OPTION ...]: a copy of a database of a running server, as one file in DIR\n"
    "\n"
    "The copy holds every commit up to one moment and none after it; the server goes on reading and "
    "writing.\n"
    "DIR is made if it is missing. The file is there completely or not at all, and is checked while it is\n"
    "received. `cheetah-db restore` makes a database of it.\n"
    "With --store rados of a pool of a Ceph cluster, whose servers wait for a moment.\n"
    "\n";
static const char help_after[] =
    "\n"
    "The token needs the right `admin`. Exit codes: 0 done; 1 it failed; 2 the command line is wrong;\n"
    "3 what the server has or sent is damaged.\n";

struct job {
    struct tool_connect how;
    struct tool_rados rados;
    const char *database, *dir;
    bool json;
    char part[CHT_PATH_MAX], path[CHT_PATH_MAX];
    struct cht_file *file; /* owned */
    struct cht_backup_check *check;
    struct tool_progress progress;
    uint64_t bytes;
    bool named;         /* what was received has its name: `part` is not ours any more */
    struct cht_err err; /* of the sink */
};

static bool take(void *ctx, const char *p, size_t n)
{
    struct job *j = ctx;
    uint64_t done;
    if (cht_backup_check_feed(j->check, p, n, &j->err) != CHT_OK ||
        cht_file_write(j->file, p, n, j->bytes, &j->err) != CHT_OK)
        return false;
    j->bytes += n;
    const struct cht_backup_info *info = cht_backup_check_info(j->check, &done);
    if (info != NULL) {
        j->progress.total = info->bytes;
        tool_progress_at(&j->progress, done);
    }
    return true;
}

static enum cht_rc begin(struct job *j, struct cht_err *err)
{
    struct cht_io *io = cht_io_posix();
    char name[96];
    enum cht_rc rc = cht_io_make_folder(io, j->dir, err);
    (void)snprintf(name, sizeof name, ".%s.cheetah.part", j->database); /* at most 64 characters and these */
    if (rc == CHT_OK)
        rc = cht_path_join(j->part, sizeof j->part, j->dir, name, err);
    if (rc == CHT_OK)
        rc = cht_io_open(io, j->part, CHT_OPEN_CREATE | CHT_OPEN_LOCK | CHT_OPEN_NOLINK, &j->file, err);
    if (rc == CHT_LOCKED)
        return CHT_FAIL(err, CHT_LOCKED, "%s: another backup is writing to it", j->part);
    if (rc == CHT_OK)
        rc = io->ops->truncate(j->file, 0, err);
    return rc == CHT_OK ? cht_backup_check_new(&j->check, err) : rc;
}

/* All of what the pool gives. */
static enum cht_rc read_all(struct job *j, struct cht_store *s, struct cht_err *err)
{
    struct cht_backup *b;
    size_t n = 1;
    uint8_t *buf = cht_malloc(CHT_BACKUP_BUFFER_MIN);
    if (buf == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup");
    enum cht_rc rc = cht_backup_open(s, &b, err);
    if (rc == CHT_OK) {
        while (rc == CHT_OK && n > 0) {
            rc = cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &n, err);
            if (rc == CHT_OK && n > 0 && !take(j, (const char *)buf, n)) {
                *err = j->err;
                rc = err->code;
            }
        }
        cht_backup_close(b);
    }
    cht_free(buf);
    return rc;
}

static enum cht_rc take_pool(struct job *j, struct cht_err *err)
{
    struct cht_env *env;
    struct cht_store *s;
    enum cht_rc rc = tool_rados_open_pool(&j->rados, false, &env, err);
    if (rc != CHT_OK)
        return rc;
    tool_progress_begin(&j->progress, "backup", 0, true);
    rc = cht_env_get(env, j->database, &s, err);
    if (rc == CHT_OK)
        rc = read_all(j, s, err);
    tool_progress_end(&j->progress);
    if (rc == CHT_OK)
        rc = cht_backup_check_finish(j->check, err);
    enum cht_rc closed = cht_env_close(env, rc == CHT_OK ? err : NULL);
    return rc == CHT_OK ? closed : rc;
}

static enum cht_rc receive(struct job *j, struct cht_err *err)
{
    struct tool_client *client;
    char path[128];
    enum cht_rc rc = tool_client_new(&j->how, &client, err);
    if (rc != CHT_OK)
        return rc;
    (void)snprintf(path, sizeof path, "/databases/%s/backup",
                   j->database); /* at most 64 characters and these */
    struct tool_request r = {.path = path, .sink = take, .sink_ctx = j};
    tool_progress_begin(&j->progress, "backup", 0, true);
    rc = tool_client_run(client, &r, err);
    tool_progress_end(&j->progress);
    if (j->err.code != CHT_OK) { /* the sink's own failure says more than that it ended the request */
        *err = j->err;
        rc = j->err.code;
    }
    if (rc == CHT_OK)
        rc = cht_backup_check_finish(j->check, err);
    tool_client_free(client);
    return rc;
}

/* The name says of when it is. */
static enum cht_rc final_name(struct job *j, struct cht_err *err)
{
    uint64_t done;
    const struct cht_backup_info *info = cht_backup_check_info(j->check, &done);
    char name[128], when[32];
    struct tm tm;
    time_t seconds = (time_t)(info->created / 1000000000);
    if (gmtime_r(&seconds, &tm) == NULL || strftime(when, sizeof when, "%Y%m%dT%H%M%S", &tm) == 0)
        return CHT_FAIL(err, CHT_CORRUPT, "the backup has no valid time");
    (void)snprintf(name, sizeof name, "%s-%s.%03uZ.cheetah", j->database, when,
                   (unsigned)(info->created / 1000000 % 1000)); /* at most 64 characters and these */
    enum cht_rc rc = cht_path_join(j->path, sizeof j->path, j->dir, name, err);
    enum cht_io_kind kind = CHT_IO_NOTHING;
    if (rc == CHT_OK)
        rc = cht_io_kind(cht_io_posix(), j->path, &kind, err);
    if (rc == CHT_OK && kind != CHT_IO_NOTHING)
        return CHT_FAIL(err, CHT_IO, "%s: is there already", j->path);
    return rc;
}

static enum cht_rc finish(struct job *j, struct cht_err *err)
{
    struct cht_io *io = cht_io_posix();
    enum cht_rc rc = cht_file_sync(j->file, err);
    if (rc == CHT_OK)
        rc = final_name(j, err);
    if (rc == CHT_OK)
        rc = io->ops->rename(io, j->part, j->path, err);
    j->named = rc == CHT_OK;
    return rc == CHT_OK ? io->ops->sync_dir(io, j->dir, err) : rc;
}

static void report(const struct job *j)
{
    uint64_t done;
    const struct cht_backup_info *info = cht_backup_check_info(j->check, &done);
    char size[16];
    if (j->json) {
        (void)fputs("{\"file\":", stdout);
        tool_json_string(stdout, j->path);
        (void)printf(",\"database\":\"%s\",\"position\":%" PRIu64 ",\"shards\":%u,\"bytes\":%" PRIu64
                     ",\"data_bytes\":%" PRIu64 "}\n",
                     j->database, info->position, info->shards, j->bytes, info->bytes);
        return;
    }
    tool_progress_number(size, j->bytes, true);
    (void)printf("%s: %s, log position %" PRIu64 "\n", j->path, size, info->position);
}

static int run(struct job *j)
{
    struct cht_err err = {0};
    enum cht_rc rc = begin(j, &err);
    bool ours = j->file != NULL;
    if (rc == CHT_OK)
        rc = tool_rados_named(&j->rados) ? take_pool(j, &err) : receive(j, &err);
    if (rc == CHT_OK)
        rc = finish(j, &err);
    if (rc == CHT_OK)
        report(j);
    else if (ours && !j->named)
        (void)cht_io_posix()->ops->unlink(cht_io_posix(), j->part,
                                          NULL); /* what stays looks like no backup */
    cht_file_close(j->file);
    cht_backup_check_free(j->check);
    return rc == CHT_OK ? TOOL_EXIT_OK : tool_failed(&err);
}

/* -------------------------------------------------------------------------------------------------------------- */

int tool_backup(int argc, char **argv)
{
    struct job j = {.database = CHT_DATABASE_DEFAULT};
    bool asked = false;
    int rest;
    const struct tool_opt opts[] = {
        {"database", 0, TOOL_OPT_STRING, &j.database, 0, "NAME", "which one (default: default)"},
        TOOL_RADOS_OPTS(&j.rados),
        TOOL_CONNECT_OPTS(&j.how),
        {"json", 0, TOOL_OPT_FLAG, &j.json, 0, NULL, "what was written, as one JSON object"},
        {"help", 'h', TOOL_OPT_FLAG, &asked, 0, NULL, NULL},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (asked)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, help_after);
    if (rest != 1)
        return tool_usage("backup", "takes one directory; see cheetah-db backup --help");
    if (!cht_database_name_valid(j.database))
        return tool_usage("backup", "--database wants a name of " CHT_DATABASE_NAME_RULE);
    int code = tool_rados_options("backup", &j.rados,
                                  j.how.connect != NULL || j.how.token_file != NULL ? "--connect" : NULL);
    if (code != TOOL_EXIT_OK)
        return code;
    j.dir = argv[0];
    return run(&j);
}
