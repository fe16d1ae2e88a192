/* backup: a consistent copy of an open database as one stream of bytes, checking such a stream, and making a database from
 * it. The copy is of one moment: it holds all commits up to a log position and none after it. Readers, writers and
 * checkpoints go on meanwhile. The format is drawn in src/store/backup_format.h.
 *
 *     source   cht_backup_open -> cht_backup_read until *n is 0 -> cht_backup_close
 *     sink     cht_backup_check_new -> _feed ... -> _finish                  is it whole?
 *              cht_restore_new -> _feed ... -> _finish                       makes the database
 *
 * Threads: one at a time for each of them.
 */
#pragma once

#include "cheetah/store.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* What the head of a stream says. */
struct cht_backup_info {
    char database[CHT_DATABASE_NAME_MAX + 1]; /* its name where it was made */
    uint8_t uuid[16];
    unsigned shards;
    uint64_t position; /* log position: the last commit that is in it */
    uint64_t bytes;    /* of all files; more than the stream if files have holes */
    uint64_t created;  /* wall clock, ns since 1970 */
};

#define CHT_BACKUP_BUFFER_MIN (320u << 10)

struct cht_backup;
/* Makes a checkpoint, then fixes the moment. Blocks for as long as a checkpoint takes. One at a time for a database:
 * CHT_DATABASE_BUSY. CHT_READ_ONLY if writing has stopped. The store must stay open until close. */
enum cht_rc cht_backup_open(struct cht_store *s, struct cht_backup **out, struct cht_err *err);
const struct cht_backup_info *cht_backup_info(const struct cht_backup *b);
/* The next bytes of the stream; *n == 0: that was all. Blocks for file reads. cap at least CHT_BACKUP_BUFFER_MIN. A
 * failure is for good: CHT_IO, CHT_CORRUPT (a page that does not match its sum), CHT_DISK_FULL (no space for the old
 * contents of what is written meanwhile), CHT_NO_MEMORY. What was read so far is then worth nothing. */
enum cht_rc cht_backup_read(struct cht_backup *b, uint8_t *buf, size_t cap, size_t *n, struct cht_err *err);
/* Blocks until no checkpoint is under way. NULL is legal. */
void cht_backup_close(struct cht_backup *b);

struct cht_backup_check;
enum cht_rc cht_backup_check_new(struct cht_backup_check **out, struct cht_err *err);
/* CHT_CORRUPT: this is not a backup, or a damaged one. CHT_VERSION: of another version. */
enum cht_rc cht_backup_check_feed(struct cht_backup_check *c, const void *p, size_t n, struct cht_err *err);
/* CHT_CORRUPT if its end is missing. */
enum cht_rc cht_backup_check_finish(struct cht_backup_check *c, struct cht_err *err);
void cht_backup_check_free(struct cht_backup_check *c);
/* NULL before the head was read. *done: bytes of files so far, of info->bytes. */
const struct cht_backup_info *cht_backup_check_info(const struct cht_backup_check *c, uint64_t *done);

struct cht_restore;
/* Into a database `name` (NULL: the name it had) that is not there. It appears with a successful finish; before, and after a
 * crash, there is none. From the head of the stream to finish or free the name is taken: to open it is
 * CHT_DATABASE_NOT_FOUND, every other call about it in this environment CHT_DATABASE_BUSY. */
enum cht_rc cht_restore_new(struct cht_env *env, const char *name, struct cht_restore **out,
                            struct cht_err *err);
/* As cht_backup_check_feed, and CHT_DATABASE_EXISTS, CHT_DISK_FULL, CHT_IO. Into a pool (cheetah/rados.h) also CHT_VALUE_TOO_LARGE; CHT_DATABASE_BUSY:
 * another server has given it up; CHT_TIMEOUT; and of a backup whose log does not begin with the first commit CHT_NOT_SUPPORTED: files cannot be
 * kept for a while (spool_dir), and CHT_DISK_FULL: not that many (spool_bytes). */
enum cht_rc cht_restore_feed(struct cht_restore *r, const void *p, size_t n, struct cht_err *err);
/* Durable on return. Opening it redoes the log in it. Into a pool it may take as long as it took to feed. */
enum cht_rc cht_restore_finish(struct cht_restore *r, struct cht_err *err);
/* Asked now and then by a finish that takes long: true ends it with CHT_CANCELLED. From the thread of the finish. */
void cht_restore_ask(struct cht_restore *r, bool (*over)(void *ctx), void *ctx);
/* Without a finish: what was written is deleted. */
void cht_restore_free(struct cht_restore *r);
const struct cht_backup_info *cht_restore_info(const struct cht_restore *r, uint64_t *done);
const char *cht_restore_name(
    const struct cht_restore *r); /* NULL before the head was read and no name was given */

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
