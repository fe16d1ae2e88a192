/* io_memory: files in memory, for what is made of files and never put on a disk: each is a descriptor without a name, which is opened by its
 * path in /proc like any other file.
 */
#include "os/io.h"

#include "base/alloc.h"
#include "os/code.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILES_MAX 16u

struct memory {
    struct cht_io io; /* first */
    struct cht_io_ops ops;
    char *path[FILES_MAX]; /* owned */
    int fd[FILES_MAX];
    unsigned n;
};

static enum cht_rc fail(const char *path, struct cht_err *err)
{
    char why[100];
    int code = errno;
    cht_os_code_text(-code, why, sizeof why);
    return CHT_FAIL(err, code == ENOMEM ? CHT_NO_MEMORY : CHT_IO, "%s: in memory: %s", path, why);
}

static enum cht_rc make(struct memory *m, const char *path, struct cht_err *err)
{
    if (m->n == FILES_MAX)
        return CHT_FAIL(err, CHT_IO, "%s: there are %u files in memory already", path, FILES_MAX);
    m->path[m->n] = cht_strdup(path);
    if (m->path[m->n] == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", path);
    m->fd[m->n] = memfd_create("cheetah", MFD_CLOEXEC);
    if (m->fd[m->n] < 0) {
        enum cht_rc rc = fail(path, err);
        cht_free(m->path[m->n]);
        return rc;
    }
    m->n++;
    return CHT_OK;
}

static enum cht_rc open_in_memory(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                                  struct cht_err *err)
{
    struct memory *m = (struct memory *)(void *)io;
    char name[40];
    unsigned i = 0;
    while (i < m->n && strcmp(m->path[i], path) != 0)
        i++;
    if (i == m->n && (flags & CHT_OPEN_CREATE) == 0)
        return CHT_FAIL(err, CHT_NO_FILE, "%s: there is no such file in memory", path);
    enum cht_rc rc = i == m->n ? make(m, path, err) : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", m->fd[i]);
    return cht_io_open(cht_io_posix(), name, flags & CHT_OPEN_RDONLY, out, err);
}

static enum cht_rc folder(struct cht_io *io, const char *path, struct cht_err *err)
{
    (void)io;
    (void)path;
    (void)err;
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_io_memory_new(struct cht_io **out, struct cht_err *err)
{
    struct memory *m = cht_calloc(1, sizeof *m);
    if (m == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for files in memory");
    m->ops = *cht_io_posix()->ops;
    m->ops.open = open_in_memory;
    m->ops.mkdir = folder;
    m->ops.sync_dir = folder;
    m->io.ops = &m->ops;
    *out = &m->io;
    return CHT_OK;
}

void cht_io_memory_free(struct cht_io *io)
{
    struct memory *m = (struct memory *)(void *)io;
    for (unsigned i = 0; m != NULL && i < m->n; i++) {
        (void)close(m->fd[i]);
        cht_free(m->path[i]);
    }
    cht_free(m);
}
