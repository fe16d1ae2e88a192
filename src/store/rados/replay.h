/* replay: the log of a backup (store/wal.h) as its bytes arrive, into a database that nobody sees yet.
 *
 *   segment   its header; then records: a head, operations, zeros up to cht_wal_room
 *
 * Only of a log that begins with the first record there is: then nothing is in the backup's page files that is not in the log. A backup of a pool
 * is so (backup.h). Operations are committed some thousand at a time as they come, before the checksum of their record is compared: after a failure
 * the database is of no use. Doing them again does no harm. A value and the name that follows it with the same key are one operation, so that both
 * are in one row, as they were.
 *
 * What comes from elsewhere (spool.h) is done in the same way, operation by operation, without a log.
 *
 * Memory: some MiB, and twice the longest value. Threads: one at a time.
 */
#pragma once

#include "store/logops.h"
#include "store/rados/rdb.h"
#include "store/wal.h"

struct cht_replay;
/* uuid: of the log; upto: the number of its last record. NULL, 0: there is none. */
enum cht_rc cht_replay_new(struct cht_rdb *db, const uint8_t uuid[16], uint64_t upto, struct cht_replay **out,
                           struct cht_err *err);
void cht_replay_free(struct cht_replay *r); /* NULL is legal */
/* The next segment, of `size` bytes, which are fed after this. */
void cht_replay_segment(struct cht_replay *r, uint64_t number, uint64_t size);
/* CHT_CORRUPT: that is no log, or not the one that comes next; CHT_VALUE_TOO_LARGE; what a commit says. */
enum cht_rc cht_replay_feed(struct cht_replay *r, const uint8_t *p, size_t n, struct cht_err *err);
/* What is left; and no key that was given out in the log is given out again. CHT_CORRUPT: records are missing. */
enum cht_rc cht_replay_finish(struct cht_replay *r, struct cht_err *err);
/* One operation, of no log. */
enum cht_rc cht_replay_op(struct cht_replay *r, const struct cht_logop *op, struct cht_err *err);
/* No key below it is given out again, either. */
void cht_replay_keys(struct cht_replay *r, uint64_t next);
