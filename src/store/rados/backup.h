/* backup: a copy of a database on RADOS in the format of those on files (store/backup_format.h), so that whatever takes those takes it: the page
 * files of an empty database, and a log whose records make all that was there at one moment (moment.h, past.h).
 *
 * All is read twice: the head says how long it will be.
 */
#pragma once

#include "store/rados/rdb.h"

/* cht_backup_open. */
enum cht_rc cht_rbackup_open(struct cht_store *s, struct cht_backup **out, struct cht_err *err);
