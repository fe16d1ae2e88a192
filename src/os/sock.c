/* sock: see sock.h. */
#include "os/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/literal.h"

#define EVENTS_MAX 256

static ptrdiff_t outcome(ssize_t n)
{
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EWOULDBLOCK ? CHT_SOCK_LATER : CHT_SOCK_FAILED;
}

/* "what: the system's words for it". */
static enum cht_rc failed(struct cht_err *err, int number, int line, const char *what)
{
    char text[80]; /* strerror is not for several threads */
    return cht_err_set(err, CHT_IO, number, __FILE__, line, "%s: %s", what,
                       strerror_r(number, text, sizeof text));
}

static enum cht_rc add(int poller, int fd, uint32_t events, void *data, struct cht_err *err)
{
    struct epoll_event e = {.events = events, .data.ptr = data};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e) < 0)
        return failed(err, errno, __LINE__, "cannot watch a connection");
    return CHT_OK;
}

/* "host:port" or "[v6]:port" to its parts. */
static bool split(const char *where, char *host, size_t cap, const char **port)
{
    const char *colon = strrchr(where, ':');
    if (colon == NULL || colon == where || colon[1] == 0)
        return false;
    size_t n = (size_t)(colon - where);
    if (n >= 2 && where[0] == '[' && where[n - 1] == ']') {
        where++;
        n -= 2;
    }
    if (n == 0 || n >= cap)
        return false;
    memcpy(host, where, n);
    host[n] = 0;
    *port = colon + 1;
    return true;
}

static enum cht_rc connect_unix(const char *path, int *fd, struct cht_err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    *fd = -1;
    if (n == 0 || n >= sizeof a.sun_path)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "'%.80s' is no path of a unix socket", path);
    memcpy(a.sun_path, path, n + 1);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s >= 0 && connect(s, (const struct sockaddr *)&a, sizeof a) == 0) {
        *fd = s;
        return CHT_OK;
    }
    int number = errno;
    char what[120];
    if (s >= 0)
        close(s);
    (void)snprintf(what, sizeof what, "cannot connect to %.90s", path); /* fits */
    return failed(err, number, __LINE__, what);
}

/* ------------------------------------------------------------------------------------------------------------ */

ptrdiff_t cht_sock_read(int fd, void *buf, size_t n)
{
    ssize_t got;
    do
        got = read(fd, buf, n);
    while (got < 0 && errno == EINTR);
    return outcome(got);
}

ptrdiff_t cht_sock_write(int fd, const void *buf, size_t n)
{
    ssize_t got;
    do
        got = write(fd, buf, n); /* SIGPIPE is ignored */
    while (got < 0 && errno == EINTR);
    return outcome(got);
}

enum cht_rc cht_sock_connect(const char *where, int *fd, struct cht_err *err)
{
    char host[256];
    const char *port;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    if (CHT_BEGINS(where, "unix:"))
        return connect_unix(where + CHT_LEN("unix:"), fd, err);
    if (!split(where, host, sizeof host, &port))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "'%.80s' is not HOST:PORT or unix:/path", where);
    int bad = getaddrinfo(host, port, &hints, &list), last = 0;
    if (bad != 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "cannot find the address of '%.80s': %s", where,
                        gai_strerror(bad));
    *fd = -1;
    for (struct addrinfo *a = list; a != NULL && *fd < 0; a = a->ai_next) {
        int s = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s >= 0 && connect(s, a->ai_addr, a->ai_addrlen) == 0) {
            *fd = s;
            break;
        }
        last = errno;
        if (s >= 0)
            close(s);
    }
    freeaddrinfo(list);
    if (*fd < 0) {
        char what[120];
        (void)snprintf(what, sizeof what, "cannot connect to %.80s", where); /* fits */
        return failed(err, last, __LINE__, what);
    }
    int one = 1;
    (void)setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* a matter of speed only */
    return CHT_OK;
}

bool cht_sock_unblock(int fd)
{
    int on = 1, flags = fcntl(fd, F_GETFL);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on what is no TCP */
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

void cht_sock_end(int fd) { (void)shutdown(fd, SHUT_WR); /* fails only if it has ended already */ }

enum cht_rc cht_poller_new(int *poller, struct cht_err *err)
{
    *poller = epoll_create1(EPOLL_CLOEXEC);
    if (*poller < 0)
        return failed(err, errno, __LINE__, "cannot make an epoll descriptor");
    return CHT_OK;
}

enum cht_rc cht_poller_add(int poller, int fd, void *data, struct cht_err *err)
{
    return add(poller, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, data, err);
}

enum cht_rc cht_poller_add_level(int poller, int fd, void *data, struct cht_err *err)
{
    return add(poller, fd, EPOLLIN, data, err);
}

void cht_poller_remove(int poller, int fd)
{
    struct epoll_event e = {.events = 0};
    (void)epoll_ctl(poller, EPOLL_CTL_DEL, fd, &e); /* fails only if it is not in it */
}

void cht_poller_sleep(int poller, uint64_t ns)
{
    struct pollfd p = {.fd = poller, .events = POLLIN};
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    (void)ppoll(&p, 1, &t, NULL); /* whatever it says, the caller looks at the clock and the events */
}

size_t cht_poller_wait(int poller, struct cht_event *out, size_t max, int ms)
{
    struct epoll_event e[EVENTS_MAX];
    int n = epoll_wait(poller, e, max < EVENTS_MAX ? (int)max : EVENTS_MAX, ms);
    for (int i = 0; i < n; i++) {
        uint32_t what = e[i].events;
        out[i] = (struct cht_event){.data = e[i].data.ptr,
                                    .what = ((what & (EPOLLIN | EPOLLRDHUP)) != 0 ? CHT_POLL_READ : 0) |
                                            ((what & EPOLLRDHUP) != 0 ? CHT_POLL_END : 0) |
                                            ((what & EPOLLOUT) != 0 ? CHT_POLL_WRITE : 0) |
                                            ((what & (EPOLLHUP | EPOLLERR)) != 0 ? CHT_POLL_DEAD : 0)};
    }
    return n > 0 ? (size_t)n : 0;
}
