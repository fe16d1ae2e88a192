/* fdcache: descriptors that are only held while they are used, and for a few files for a while after that.
 *
 * A database has 40 page files, each mapped. A mapping needs no descriptor, and what does (growing, a checkpoint, a large
 * value) concerns few files at a time. So a file that is opened with CHT_OPEN_REST keeps its descriptor only between take
 * and give; given ones stay open in one list of the whole process until CHT_FDS_KEPT newer ones have been given.
 *
 *   take   users 0 -> 1: out of the list, or opened again by its path; it must be the same file (device and inode)
 *   give   users 1 -> 0: to the young end of the list; what is too old at the other end is closed
 *
 * A failed write-back is told to the next fdatasync of the file also if all of its descriptors were closed in between, as long
 * as its inode stays in memory, which its mapping sees to: only files that are mapped while they are written may rest.
 *
 * Threads: any, also on one file. init, fini: no other call on it. The list's mutex is a leaf and no file call is made under it.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "cheetah/err.h"

#define CHT_FDS_KEPT 12u

struct cht_fd {
    int fd;    /* -1: closed */
    int flags; /* of open(2), to open it again; set at init, as are the next two */
    dev_t dev;
    ino_t ino;
    unsigned users;             /* guarded by the list's mutex, as is all of the rest */
    struct cht_fd *prev, *next; /* younger, older; in the list if users == 0 and fd >= 0 */
};

/* fd: open; in the list from here on. */
void cht_fd_init(struct cht_fd *f, int fd, int flags, dev_t dev, ino_t ino);
void cht_fd_fini(struct cht_fd *f); /* closes it */
/* The descriptor, valid until cht_fd_give; -1 with errno set if it cannot be opened again. ESTALE: there is another file under
 * the path now. */
int cht_fd_take(struct cht_fd *f, const char *path);
void cht_fd_give(struct cht_fd *f); /* errno stays */
