/* io: the table of functions through which all file access goes, so that tests can put a simulated disk under the
 * same code. errno is read only in the functions of this table: failures come back as CHT_DISK_FULL (ENOSPC, EDQUOT),
 * CHT_NO_FILE (ENOENT), CHT_LOCKED, CHT_NO_MEMORY (ENOMEM), CHT_NO_DESCRIPTORS (EMFILE, ENFILE), CHT_READ_ONLY_DISK (EROFS)
 * or CHT_IO, with path and errno in the message. A failed sync is CHT_IO whatever its errno: data may be lost.
 *
 * Threads: any thread, also on the same file at once. Paths are borrowed during the call.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cheetah/err.h"

struct cht_io;
struct cht_file; /* implementations embed this as their first member */

#define CHT_OPEN_CREATE 1u /* create if missing */
#define CHT_OPEN_EXCL 2u   /* with CREATE: fail if it is there */
#define CHT_OPEN_RDONLY 4u
/* Take an exclusive advisory lock; CHT_LOCKED if another process holds it, or had it and has just given the file another name. */
#define CHT_OPEN_LOCK 8u
/* The descriptor is closed while it is not used and opened again by its path (os/fdcache.h), so that any call on the file may fail as
 * an open does. For files that stay mapped and are not renamed while they are open. */
#define CHT_OPEN_REST 16u

#define CHT_OPEN_NOLINK \
    32u /* a symbolic link at the path itself is refused: for what is cut or written over as soon as it is open */

/* What is at a path. A question that cannot be answered (no permission, an I/O error) is a failure and never
 * CHT_IO_NOTHING, so that nobody takes it for "it is not there". */
enum cht_io_kind {
    CHT_IO_NOTHING, /* no entry, or a component before it is missing or no folder */
    CHT_IO_FILE,
    CHT_IO_FOLDER,
    CHT_IO_LINK, /* symbolic; with CHT_STAT_FOLLOW: one that leads to nothing */
    CHT_IO_OTHER /* device, socket, pipe */
};
struct cht_io_stat {
    enum cht_io_kind kind;
    uint64_t device, inode, size; /* of nothing: 0 */
};
#define CHT_STAT_FOLLOW 1u /* a symbolic link: what it leads to */

/* How the pages of a mapping are going to be read. */
enum cht_io_advice {
    CHT_ADVICE_AROUND, /* what lies around a page is read with it: what a mapping has at first */
    CHT_ADVICE_ALONE,  /* a page is read and nothing around it */
    CHT_ADVICE_SOON    /* the pages of the range are read now, and nobody waits for that */
};

struct cht_io_ops {
    enum cht_rc (*open)(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                        struct cht_err *err);
    void (*close)(struct cht_file *f); /* drops a lock; maps stay valid */
    /* One call to the system: may transfer less than asked (n_done); 0 at end of file for reads. */
    enum cht_rc (*pread)(struct cht_file *f, void *buf, size_t n, uint64_t off, size_t *n_done,
                         struct cht_err *err);
    enum cht_rc (*pwrite)(struct cht_file *f, const void *buf, size_t n, uint64_t off, size_t *n_done,
                          struct cht_err *err);
    enum cht_rc (*sync)(struct cht_file *f, struct cht_err *err); /* fdatasync */
    enum cht_rc (*size)(struct cht_file *f, uint64_t *size, struct cht_err *err);
    enum cht_rc (*truncate)(struct cht_file *f, uint64_t size, struct cht_err *err);
    /* Backs [off, off+len) with space (reads as zeros if it was a hole), growing the file. */
    enum cht_rc (*allocate)(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err);
    /* Gives the space of [off, off+len) back; it then reads as zeros. Falls back to writing zeros. Size is kept. */
    enum cht_rc (*punch)(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err);
    /* Private, writable, unreserved mapping of len bytes from the start (len may exceed the file's size; touching
     * pages after the end is fatal). A page shows the file's bytes, also later writes, until it is changed. */
    enum cht_rc (*map)(struct cht_file *f, size_t len, uint8_t **out, struct cht_err *err);
    enum cht_rc (*remap)(struct cht_file *f, uint8_t *old, size_t old_len, size_t len, uint8_t **out,
                         struct cht_err *err);
    void (*unmap)(struct cht_file *f, uint8_t *p, size_t len);
    /* Drops private copies in [p, p+len) (page aligned): the range shows the file again. */
    enum cht_rc (*discard)(struct cht_file *f, uint8_t *p, size_t len, struct cht_err *err);
    /* Maps [off, off+len) of the file at p anew, privately: it shows the file again, whatever was put there (os/fault.h). */
    enum cht_rc (*refresh)(struct cht_file *f, uint8_t *p, uint64_t off, size_t len, struct cht_err *err);
    /* Advice for [p, p+len) of a mapping of f, page aligned; it may be ignored. NULL: nobody listens. */
    void (*advise)(struct cht_file *f, uint8_t *p, size_t len, enum cht_io_advice advice);
    enum cht_rc (*rename)(struct cht_io *io, const char *from, const char *to, struct cht_err *err);
    enum cht_rc (*unlink)(struct cht_io *io, const char *path, struct cht_err *err);
    enum cht_rc (*mkdir)(struct cht_io *io, const char *path, struct cht_err *err); /* OK if it is there */
    /* A folder that is empty; CHT_IO if it is not, or is a link. */
    enum cht_rc (*rmdir)(struct cht_io *io, const char *path, struct cht_err *err);
    enum cht_rc (*sync_dir)(struct cht_io *io, const char *path, struct cht_err *err);
    /* Calls fn for every entry but "." and "..", in any order; links are not followed. */
    enum cht_rc (*list)(struct cht_io *io, const char *path,
                        void (*fn)(void *ctx, const char *name, enum cht_io_kind kind), void *ctx,
                        struct cht_err *err);
    /* Needs no descriptor. flags: 0 or CHT_STAT_FOLLOW. */
    enum cht_rc (*stat)(struct cht_io *io, const char *path, unsigned flags, struct cht_io_stat *out,
                        struct cht_err *err);
    /* Bytes that the file occupies on disk. */
    enum cht_rc (*usage)(struct cht_file *f, uint64_t *bytes, struct cht_err *err);
};

struct cht_io {
    const struct cht_io_ops *ops;
};
struct cht_file {
    struct cht_io *io;
    const char *path; /* owned by the implementation, for messages */
    bool
        holes_take; /* a hole takes space when it is read through a mapping, and SIGBUS if there is none (tmpfs) */
};

struct cht_io *cht_io_posix(void); /* the real file system; static */
/* How much files without names may occupy, those of several tables together. */
struct cht_io_room {
    uint64_t most;
    _Atomic uint64_t taken;
};
/* Files that only this process has (io_unnamed.c), in memory or, with dir, below it, where nothing is seen of them; under any paths of up to 127
 * bytes. They are gone with it, and with cht_io_unnamed_free. Up to 2000 files and folders, each a descriptor more: CHT_NO_DESCRIPTORS.
 * room: borrowed, NULL: no bound; what would be more is CHT_DISK_FULL. */
enum cht_rc cht_io_unnamed_new(const char *dir, struct cht_io_room *room, struct cht_io **out,
                               struct cht_err *err);
void cht_io_unnamed_free(struct cht_io *io); /* no file of it is open; NULL is legal */

/* Loops over short transfers. read: CHT_CORRUPT "short file" if the end comes before n bytes. */
enum cht_rc cht_file_read(struct cht_file *f, void *buf, size_t n, uint64_t off, struct cht_err *err);
/* Up to n bytes, fewer only at the end of the file. */
enum cht_rc cht_file_read_some(struct cht_file *f, void *buf, size_t n, uint64_t off, size_t *got,
                               struct cht_err *err);
enum cht_rc cht_file_write(struct cht_file *f, const void *buf, size_t n, uint64_t off, struct cht_err *err);
enum cht_rc cht_io_open(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                        struct cht_err *err);
void cht_file_close(struct cht_file *f); /* NULL is legal */
static inline enum cht_rc cht_file_sync(struct cht_file *f, struct cht_err *err)
{
    return f->io->ops->sync(f, err);
}
/* Writes a whole small file under a temporary name, syncs, renames, syncs the directory: it is there wholly or not. */
enum cht_rc cht_io_replace(struct cht_io *io, const char *dir, const char *name, const void *data, size_t n,
                           struct cht_err *err);
/* A folder, if it is not there yet, and its entry on the disk. */
enum cht_rc cht_io_make_folder(struct cht_io *io, const char *path, struct cht_err *err);
/* What is at path, links followed: a link that leads to nothing is CHT_IO_LINK. */
enum cht_rc cht_io_kind(struct cht_io *io, const char *path, enum cht_io_kind *kind, struct cht_err *err);
/* Which file is at a path, links followed. Kept beside a path that is opened again, or changed by name, while it is in use: whoever moves a
 * folder away and puts another in its place must not have that one written to. A file is asked about and not its folder, whose number
 * does not stay on every file system. */
struct cht_io_id {
    uint64_t device, inode; /* 0: not known */
};
enum cht_rc cht_io_note(struct cht_io *io, const char *path, struct cht_io_id *id, struct cht_err *err);
/* CHT_IO: there is another one now, or none. CHT_OK if the id is not known. */
enum cht_rc cht_io_same(struct cht_io *io, const char *path, struct cht_io_id id, struct cht_err *err);
/* The entries of a folder, in no order: zero-initialise, free with cht_io_names_fini. */
struct cht_io_names {
    char (*v)[256];         /* owned */
    enum cht_io_kind *kind; /* owned; links are not followed */
    size_t n, cap;
    bool failed;
};
enum cht_rc cht_io_names(struct cht_io *io, const char *path, struct cht_io_names *l, struct cht_err *err);
void cht_io_names_fini(struct cht_io_names *l);
/* Deletes a folder of files (one level of sub-folders too). Links are removed, never followed. */
enum cht_rc cht_io_remove_tree(struct cht_io *io, const char *path, struct cht_err *err);
/* "a/b" into a caller's buffer; CHT_INVALID_ARGUMENT if it does not fit. */
enum cht_rc cht_path_join(char *out, size_t cap, const char *a, const char *b, struct cht_err *err);
#define CHT_PATH_MAX 1024
/* Memory this process may use: the least of physical memory and the cgroup limits. Online cores. */
uint64_t cht_os_memory(void);
/* Memory that is about to be filled as a whole may come in huge pages: fewer faults. Advice only, for blocks of megabytes. */
void cht_os_huge_pages(void *p, size_t n);
/* Memory of this process that is no file's, in bytes; 0 if the system does not say. */
uint64_t cht_os_anonymous(void);
/* Gives back what the heap holds free, if much has come since the last call: *low is the caller's, 0 at first, from one call to the
 * next. Takes about 50 ms for a GiB, during which threads may wait for their part of the heap: for a slow tick. Returns bytes. */
uint64_t cht_os_give_memory_back(uint64_t *low);
/* For a program in which a library has many threads that free what others allocated: fewer heaps, and none keeps more than a little free at its end, which
 * cht_os_give_memory_back cannot return but for the first heap's. Before those threads are there; it holds for the process. */
void cht_os_few_heaps(void);
unsigned cht_os_cores(void);
/* What this process and the machine have used since they began. */
struct cht_os_usage {
    uint64_t at_ns, cpu_ns;           /* the clock; processor time of this process */
    uint64_t ticks, idle_ticks;       /* of all cores; 0: the system does not say */
    uint64_t read_bytes, write_bytes; /* from and to disks */
    bool io;                          /* those two are known */
    unsigned threads;
};
void cht_os_used(struct cht_os_usage *u);
void cht_os_random(void *buf, size_t n);
