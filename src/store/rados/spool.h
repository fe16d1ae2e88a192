/* spool: a backup of files on its way into a pool (restore.h). What it has in its page files is in no log, and a page says nothing before all of them
 * are there. So they are kept for a while, in files without names below `spool_dir` (os/io.h): of them a database is made, as on a disk,
 * its log is redone, its pages are compared with their sums, and its values and pairs go into the pool. Whatever happens, nothing of it stays.
 *
 *   keys      each value under its key, in the order of the keys
 *   pairs     each name, with its key, and when it ends; in the order of the names
 *   ends      none comes between the two: its clock stands still, from when it was opened on
 *
 * Memory: what an environment of files takes with 64 MiB of changed pages. Disk: what the files occupy, at most spool_bytes for all that are
 * under way in an environment; CHT_DISK_FULL. Threads: one at a time.
 */
#pragma once

#include "store/backup_format.h"
#include "store/rados/replay.h"

struct cht_spool;
/* CHT_NOT_SUPPORTED: files cannot be made there. */
enum cht_rc cht_spool_new(struct cht_renv *env, const struct cht_backup_info *info, unsigned files,
                          struct cht_spool **out, struct cht_err *err);
enum cht_rc cht_spool_frame(struct cht_spool *s, const struct cht_frame *f, struct cht_err *err);
/* After the last frame: all of it becomes operations. `go_on` is asked every some hundred of them: what it says, if not CHT_OK, ends it. CHT_CORRUPT,
 * CHT_VALUE_TOO_LARGE, what opening a database says and what a commit does. */
enum cht_rc cht_spool_pour(struct cht_spool *s, struct cht_replay *to,
                           enum cht_rc (*go_on)(void *ctx, struct cht_err *err), void *ctx,
                           struct cht_err *err);
void cht_spool_free(struct cht_spool *s); /* NULL is legal */
