/* exec_int: rows of names and keys as operations see them: what exec.c and exec_rows.c share.
 *
 * A pair that has ended by this server's clock is not there: whoever looks at its row takes it away in the set, with its value. So a commit
 * that goes on with what it found removes it, and a read leaves that to others.
 */
#pragma once

#include "store/rados/exec.h"

/* CHT_PENDING: the row is wanted. v->row.key is 0 if there is none. guess: as cht_rowset_guess. */
enum cht_rc cht_exec_name(struct cht_exec *x, struct cht_str name, bool guess, struct cht_exec_value *v);
enum cht_rc cht_exec_key(struct cht_exec *x, uint64_t key, bool guess, struct cht_exec_value *v);
enum cht_rc cht_exec_set(struct cht_exec *x, size_t at, const struct cht_row *r);
enum cht_rc cht_exec_drop(struct cht_exec *x, size_t at);
/* The pair or value of this P or K row is put or deleted: that is told (cut.h). */
enum cht_rc cht_exec_note(struct cht_exec *x, size_t at);
enum cht_rc cht_exec_damaged(struct cht_exec *x, const char *what);
/* The value under this key ends then (0: never), if it is in another row than that of a name. One that another name's row has moves into that
 * of the key first, unless it is to last anyway. */
enum cht_rc cht_exec_end_value(struct cht_exec *x, uint64_t key, uint64_t ends);
