/* restore: a database in a pool, made of a backup (cheetah/backup.h).
 *
 *   head      the name, unless it was given
 *   log       its first header begins the database, in state r of the catalogue: nobody opens it. Its operations are done as they come (replay.h)
 *   finish    the row becomes l, which makes it a database
 *
 * A backup of files begins with what is in its page files, which nothing here reads: CHT_NOT_SUPPORTED, before anything is made.
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
