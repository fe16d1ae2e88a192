/* listen: where a server listens besides TCP: a unix socket, which is a file, and a socket that the service manager has opened and passed on
 * (sd_listen_fds(3)); and what is told to the service manager (sd_notify(3)). See net.h.
 *
 * The file of a unix socket stays when its server is killed. Whoever starts next removes it, but only what is a socket that nobody
 * answers at: not a file of another kind, not the socket of a running server, not what cannot be asked. Meanwhile the folder is locked
 * (flock), so that two that start at once do not remove each other's.
 */
#include "os/net.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/literal.h"
#include "os/listen.h"

#define BACKLOG 4096
#define FIRST_PASSED 3 /* SD_LISTEN_FDS_START */
#define PASSED_MAX 64

static enum cht_rc failed(struct cht_err *err, int number, int line, const char *what, const char *path)
{
    char text[80]; /* strerror is not for several threads */
    return cht_err_set(err, number == EMFILE || number == ENFILE ? CHT_NO_DESCRIPTORS : CHT_IO, number,
                       __FILE__, line, "listen: %s %.110s: %s", what, path,
                       strerror_r(number, text, sizeof text));
}

static bool address_of(const char *path, struct sockaddr_un *a)
{
    size_t n = strlen(path);
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (path[0] != '/' || n >= sizeof a->sun_path)
        return false;
    memcpy(a->sun_path, path, n + 1);
    return true;
}

/* Removes the socket of a server that is gone. CHT_OK: nothing is at the path any more. */
static enum cht_rc clear(const struct sockaddr_un *a, struct cht_err *err)
{
    struct stat st;
    if (lstat(a->sun_path, &st) < 0)
        return errno == ENOENT ? CHT_OK : failed(err, errno, __LINE__, "cannot look at", a->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return CHT_FAIL(err, CHT_IO, "listen: %.120s is there and is no socket", a->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return failed(err, errno, __LINE__, "cannot make a socket for", a->sun_path);
    int number = connect(fd, (const struct sockaddr *)(const void *)a, sizeof *a) == 0 ? 0 : errno;
    (void)close(fd);
    if (number == 0 || number == EAGAIN)
        return CHT_FAIL(err, CHT_IO, "listen: %.120s is in use by another server", a->sun_path);
    if (number != ECONNREFUSED)
        return failed(err, number, __LINE__, "cannot ask who listens on", a->sun_path);
    if (unlink(a->sun_path) < 0)
        return failed(err, errno, __LINE__, "cannot remove the old socket", a->sun_path);
    return CHT_OK;
}

/* Opens the folder of a path and waits for its lock; closing it ends that. */
static enum cht_rc lock_folder(const struct sockaddr_un *a, int *fd, struct cht_err *err)
{
    char folder[sizeof a->sun_path];
    size_t n = (size_t)(strrchr(a->sun_path, '/') - a->sun_path);
    memcpy(folder, a->sun_path, n > 0 ? n : 1);
    folder[n > 0 ? n : 1] = 0;
    *fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return failed(err, errno, __LINE__, "cannot open the folder", folder);
    int rc;
    do
        rc = flock(*fd, LOCK_EX);
    while (rc < 0 && errno == EINTR);
    if (rc == 0)
        return CHT_OK;
    enum cht_rc bad = failed(err, errno, __LINE__, "cannot lock the folder", folder);
    (void)close(*fd);
    return bad;
}

/* For owner and group, whatever the umask is: never for more, and nobody can connect before listen. */
static enum cht_rc bind_to(const struct sockaddr_un *a, int *out, struct cht_err *err)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return failed(err, errno, __LINE__, "cannot make a socket for", a->sun_path);
    if (fchmod(fd, 0660) < 0 || bind(fd, (const struct sockaddr *)(const void *)a, sizeof *a) < 0 ||
        fchmodat(AT_FDCWD, a->sun_path, 0660, AT_SYMLINK_NOFOLLOW) < 0 || listen(fd, BACKLOG) < 0) {
        enum cht_rc bad = failed(err, errno, __LINE__, "cannot listen on", a->sun_path);
        (void)close(fd);
        return bad;
    }
    *out = fd;
    return CHT_OK;
}

/* The descriptor that LISTEN_FDS and LISTEN_FDNAMES give to a name, or the only one if name is ""; -1: none. */
static int find_passed(const char *name)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS"); /* NOLINT(concurrency-mt-unsafe) */
    const char *names = getenv("LISTEN_FDNAMES");                        /* NOLINT(concurrency-mt-unsafe) */
    long count = fds != NULL ? strtol(fds, NULL, 10) : 0;
    if (pid == NULL || strtol(pid, NULL, 10) != (long)getpid() || count < 1 || count > PASSED_MAX)
        return -1;
    if (name[0] == 0)
        return count == 1 ? FIRST_PASSED : -1;
    for (int i = 0; i < count && names != NULL; i++) {
        size_t n = strcspn(names, ":");
        if (strlen(name) == n && memcmp(names, name, n) == 0)
            return FIRST_PASSED + i;
        names = names[n] == ':' ? names + n + 1 : NULL;
    }
    return -1;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_listen_unix(const char *path, int *fd, struct cht_err *err)
{
    struct sockaddr_un a;
    int folder;
    if (!address_of(path, &a))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "listen: unix: is followed by an absolute path of at most %zu bytes, not '%.80s'",
                        sizeof a.sun_path - 1, path);
    enum cht_rc rc = lock_folder(&a, &folder, err);
    if (rc != CHT_OK)
        return rc;
    rc = clear(&a, err);
    if (rc == CHT_OK)
        rc = bind_to(&a, fd, err);
    (void)close(folder);
    return rc;
}

enum cht_rc cht_listen_passed(const char *name, int *out, struct cht_err *err)
{
    int fd = find_passed(name), listening = 0, kind = 0;
    socklen_t n = sizeof listening, k = sizeof kind;
    if (fd < 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "listen: the service manager has passed no socket%s%.60s",
                        name[0] != 0 ? " called " : ", or several: use systemd:NAME", name);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &k) < 0 || listening == 0 || kind != SOCK_STREAM)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "listen: descriptor %d of the service manager is no "
                        "stream socket that listens (Accept=no)",
                        fd);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return failed(err, errno, __LINE__, "cannot change", "the socket of the service manager");
    *out = fd;
    return CHT_OK;
}

void cht_net_unlisten(int fd, const char *where)
{
    struct sockaddr_un a;
    int folder;
    if (fd < 0)
        return;
    (void)close(fd);
    if (!CHT_BEGINS(where, "unix:") || !address_of(where + CHT_LEN("unix:"), &a) ||
        lock_folder(&a, &folder, NULL) != CHT_OK)
        return;
    (void)clear(&a, NULL); /* what is left is removed by the next start */
    (void)close(folder);
}

bool cht_os_notify(const char *state)
{
    const char *where = getenv("NOTIFY_SOCKET"); /* NOLINT(concurrency-mt-unsafe) */
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = where != NULL ? strlen(where) : 0;
    if (n < 2 || n >= sizeof a.sun_path || (where[0] != '/' && where[0] != '@'))
        return false;
    memcpy(a.sun_path, where, n);
    if (where[0] == '@')
        a.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    bool ok = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&a, size) >= 0;
    (void)close(fd);
    return ok;
}
