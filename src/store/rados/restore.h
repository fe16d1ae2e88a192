/* restore: a database in a pool, made of a backup (cheetah/backup.h).
 *
 *   head      the name, unless it was given
 *   log       its first header begins the database, in state r of the catalogue: nobody opens it. If it begins with the first commit, as that of a
 *             backup of a pool, its operations are done as they come (replay.h), and page files are passed over: what is in them is in it
 *   spool     else, as of most backups of files, all of it is laid out in files without names (spool.h), and done when its end is there
 *   finish    the row becomes l, which makes it a database
 *
 * While it goes on its server says so in the row, every ten seconds, also if no bytes come. What a server that ended left is removed by any
 * other: at a start, within ten minutes after that, or when somebody wants the name.
 */
#pragma once

#include "cheetah/backup.h"
#include "store/rados/rdb.h"

enum cht_rc cht_rrestore_new(struct cht_env *env, const char *name, struct cht_restore **out,
                             struct cht_err *err);
/* Says of all of this process that they go on. */
void cht_restores_go_on(struct cht_renv *env);
