/* fdcache: see fdcache.h. */
#include "os/fdcache.h"

#include "base/invariant.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

/* One of the process, as the limit of descriptors is. */
static struct {
    pthread_mutex_t mu;
    struct cht_fd *young, *old; /* guarded by mu */
    unsigned n;                 /* guarded by mu */
} list = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void lock(void)
{
    int rc = pthread_mutex_lock(&list.mu);
    CHT_INVARIANT(rc == 0);
}

static void unlock(void)
{
    int rc = pthread_mutex_unlock(&list.mu);
    CHT_INVARIANT(rc == 0);
}

static void insert_locked(struct cht_fd *f)
{
    f->prev = NULL;
    f->next = list.young;
    if (list.young != NULL)
        list.young->prev = f;
    else
        list.old = f;
    list.young = f;
    list.n++;
}

static void remove_locked(struct cht_fd *f)
{
    if (f->prev != NULL)
        f->prev->next = f->next;
    else
        list.young = f->next;
    if (f->next != NULL)
        f->next->prev = f->prev;
    else
        list.old = f->prev;
    f->prev = f->next = NULL;
    list.n--;
}

/* Takes the descriptor of the oldest in the list; -1 if there is none. The caller closes it. */
static int evict_locked(void)
{
    struct cht_fd *f = list.old;
    if (f == NULL)
        return -1;
    int fd = f->fd;
    remove_locked(f);
    f->fd = -1;
    return fd;
}

static void close_fd(int fd)
{
    int e = errno;
    if (fd >= 0)
        (void)close(fd); /* what mattered was synced before, and there its failure was told */
    errno = e;
}

static int open_again(const char *path, int flags)
{
    for (;;) {
        int fd = open(path, flags);
        if (fd >= 0 || (errno != EINTR && errno != EMFILE && errno != ENFILE))
            return fd;
        if (errno == EINTR)
            continue;
        lock(); /* no descriptor is left: one that rests makes room */
        int victim = evict_locked();
        unlock();
        if (victim < 0)
            return -1;
        close_fd(victim);
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_fd_init(struct cht_fd *f, int fd, int flags, dev_t dev, ino_t ino)
{
    *f = (struct cht_fd){.fd = fd, .flags = flags, .dev = dev, .ino = ino, .users = 1};
    cht_fd_give(f);
}

void cht_fd_fini(struct cht_fd *f)
{
    lock();
    CHT_INVARIANT(f->users == 0);
    int fd = f->fd;
    if (fd >= 0)
        remove_locked(f);
    f->fd = -1;
    unlock();
    close_fd(fd);
}

int cht_fd_take(struct cht_fd *f, const char *path)
{
    lock();
    if (f->users++ == 0 && f->fd >= 0)
        remove_locked(f);
    int fd = f->fd;
    unlock();
    if (fd >= 0)
        return fd;
    struct stat st;
    fd = open_again(path, f->flags);
    bool good = fd >= 0 && fstat(fd, &st) == 0;
    if (good && (st.st_dev != f->dev || st.st_ino != f->ino)) {
        errno = ESTALE;
        good = false;
    }
    lock();
    int spare = fd;
    if (good && f->fd < 0) {
        f->fd = fd;
        spare = -1;
    } else if (f->fd >= 0) { /* another one who uses it was quicker */
        good = true;
        fd = f->fd;
    }
    unlock();
    close_fd(spare);
    if (good)
        return fd;
    cht_fd_give(f);
    return -1;
}

void cht_fd_give(struct cht_fd *f)
{
    int victim = -1;
    lock();
    CHT_INVARIANT(f->users > 0);
    if (--f->users == 0 && f->fd >= 0) {
        insert_locked(f);
        if (list.n > CHT_FDS_KEPT)
            victim = evict_locked();
    }
    unlock();
    close_fd(victim);
}
