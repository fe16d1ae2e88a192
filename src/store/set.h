/* set: which data directories belong together. Each has a file cheetah.set that says to which set it belongs, which of
 * the set's places it is, and which databases have a folder in it, so that a disk that is not mounted, one that is new
 * and one that belongs elsewhere are told apart before anything is written. Private to src/store.
 *
 * cheetah.set, little-endian; the name is not one that a database can have:
 *      0        512      640      768
 *      +--------+--------+--------+- - -
 *      | head   | entry 0| entry 1|            a last piece shorter than an entry does not count (a cut append)
 *      +--------+--------+--------+- - -
 *   head, 512 bytes: 0 magic[8] "CHEETAHD"  8 version u32 (1)  12 zero u32  16 set[16]  32 place u32  36 places u32
 *     40 zeros  508 crc u32 of 0..507
 *   entry, 128 bytes, zeros throughout: free. 0 name[65], zero-padded  65 zeros  72 uuid[16]  88 zeros
 *     124 crc u32 of 0..123
 * The head is written over in place (one sector), and so are entries, four to a sector: dropping a database needs no space.
 *
 * Rules   T1 places are 0 .. places-1; of several files that disagree on places the largest is right (T3).
 *         T2 the set is complete if each place is there exactly once.
 *         T3 directories join one at a time, the file of the new one first: a cut in between leaves T2.
 *         T4 an entry is put after its database is made, and freed before it is dropped: one that is listed and has no
 *            folder is missing. One that has a folder and is not listed is put at the next opening.
 *         T5 the place is the file's, not that of the command line.
 *
 * Threads: reading and judging: one. put and remove: the caller's lock.
 */
#pragma once

#include "cheetah/store.h"
#include "os/io.h"

#define CHT_SET_FILE "cheetah.set"
#define CHT_SET_VERSION 1u

struct cht_set_entry {
    char name[CHT_DATABASE_NAME_MAX + 1]; /* empty: free */
    uint8_t uuid[16];
};
struct cht_set { /* of one directory */
    bool there;  /* it has the file */
    uint8_t id[16];
    unsigned place, places;
    struct cht_set_entry *v; /* owned; as in the file */
    size_t n, cap;
    struct cht_file *file; /* owned; NULL: not open for writing */
};

/* CHT_OK also without a file (there is false). CHT_CORRUPT, CHT_VERSION, and what reading says: nothing is known then. */
enum cht_rc cht_set_read(struct cht_io *io, const char *dir, struct cht_set *s, struct cht_err *err);
void cht_set_fini(struct cht_set *s);
/* T2 over those that have a file: CHT_DIRECTORY_MISSING, CHT_DIRECTORY_MISPLACED (another set, a place twice). */
enum cht_rc cht_set_judge(char *const *dirs, const struct cht_set *sets, size_t n, struct cht_err *err);
/* Opens the files that are there for writing, and makes those that are not (T3; if none has one: a new set). Call after
 * cht_set_judge. Durable on return. */
enum cht_rc cht_set_join(struct cht_io *io, char *const *dirs, struct cht_set *sets, size_t n,
                         struct cht_err *err);
/* The entry of a name; NULL: not listed. Borrowed until the next put. */
const struct cht_set_entry *cht_set_find(const struct cht_set *s, const char *name);
/* Lists, or takes from the list. Nothing happens if it is so already or the file is not open for writing. Durable after
 * cht_set_sync. */
enum cht_rc cht_set_put(struct cht_set *s, const char *name, const uint8_t uuid[16], struct cht_err *err);
enum cht_rc cht_set_remove(struct cht_set *s, const char *name, struct cht_err *err);
enum cht_rc cht_set_sync(struct cht_set *s, struct cht_err *err);
