/* own: which files in the folder of a database are the store's, and removing them. Whoever makes a file of a new name below
 * DIR/NAME adds it to the tables of own.c, or no such database can be dropped. Private to src/store.
 *
 * Removing is two passes: the first looks at everything and refuses if anything is there that the store does not make, or
 * that carries the uuid of another database; the second removes. A link in place of a shard or of the log is followed only
 * if what it leads to carries the uuid; its files go, and the link, but the folder it leads to stays.
 */
#pragma once

#include "os/io.h"

/* The names that a manifest has in the life of a database: the file is the same, so a change of state is a rename. */
enum cht_mark {
    CHT_MARK_CREATING,  /* being made by cht_db_create */
    CHT_MARK_RESTORING, /* being made of a backup */
    CHT_MARK_DROPPING   /* being removed */
};
#define CHT_MARKS 3u
extern const char *const cht_mark_names[CHT_MARKS];

/* What stands in a folder that is moved out of the way of its name, or not moved there yet: NAME.unfinished. */
#define CHT_UNFINISHED ".unfinished"

/* Whether an entry of DIR/NAME looks like a part of a database: a shard's folder, or a link in its place. */
bool cht_own_shard_name(const char *name, enum cht_io_kind kind);
/* Whether a folder holds segments of a log. */
enum cht_rc cht_own_has_log(struct cht_io *io, const char *path, bool *has, struct cht_err *err);

/* Whose is this shard? By the header of its keys. UNKNOWN: there is none, or none that checks (torn, not written yet). */
enum cht_own { CHT_OWN_UNKNOWN, CHT_OWN_SAME, CHT_OWN_OTHER };
enum cht_rc cht_own_shard(struct cht_io *io, const char *path, const uint8_t uuid[16], enum cht_own *own,
                          struct cht_err *err);

/* The first pass over DIR/NAME. Nothing there: CHT_OK. CHT_FOREIGN_FILES: something is in there that is not to be removed;
 * CHT_DATABASE_INCOMPLETE: a link that leads to nothing; err names it. */
enum cht_rc cht_own_survey(struct cht_io *io, const char *path, const uint8_t uuid[16], struct cht_err *err);
/* Both passes. Without keep_mark the folder goes too; with it the marks stay, and the folder. */
enum cht_rc cht_own_remove(struct cht_io *io, const char *path, const uint8_t uuid[16], bool keep_mark,
                           struct cht_err *err);
/* A folder NAME.unfinished: holds nothing but a mark, perhaps half written, or it is refused like above. */
enum cht_rc cht_own_remove_husk(struct cht_io *io, const char *path, struct cht_err *err);
