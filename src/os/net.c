/* net: see net.h. */
#include "os/net.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "os/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 4096
#define POLL_MAX 256u
#define DISCARD_MAX (1u << 20) /* of one call: who sends faster than it is read must not hold it */

_Static_assert(sizeof(((struct cht_peer *)0)->storage) >= sizeof(struct sockaddr_storage),
               "room for any address");

/* "host:port" to its parts; host "" means any. */
static bool split(const char *where, char *host, size_t cap, const char **port)
{
    const char *colon = strrchr(where, ':');
    if (colon == NULL || colon[1] == 0 || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        strtoul(colon + 1, NULL, 10) > 65535)
        return false;
    size_t n = (size_t)(colon - where);
    if (n >= 2 && where[0] == '[' && where[n - 1] == ']') {
        where++;
        n -= 2;
    }
    if (n >= cap)
        return false;
    memcpy(host, where, n);
    host[n] = 0;
    *port = colon + 1;
    return true;
}

/* "what which: the system's words for it". */
static enum cht_rc failed(struct cht_err *err, enum cht_rc rc, int line, const char *what, const char *which)
{
    char text[80]; /* strerror is not for several threads */
    int number = errno;
    return cht_err_set(err, rc, number, __FILE__, line, "%s %.120s: %s", what, which,
                       strerror_r(number, text, sizeof text));
}

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24) == 127;
    if (a->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
    return false;
}

static enum cht_rc listen_on(const struct addrinfo *a, const char *where, int *out, struct cht_err *err)
{
    int one = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return failed(err, CHT_IO, __LINE__, "cannot make a socket for", where);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* without it a restart has to wait */
    if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        enum cht_rc bad = failed(err, CHT_IO, __LINE__, "listen: cannot listen on", where);
        close(fd);
        return bad;
    }
    *out = fd;
    return CHT_OK;
}

static void fill_key(struct cht_peer *peer)
{
    const struct sockaddr *a = (const struct sockaddr *)(const void *)peer->storage;
    memset(peer->key, 0, sizeof peer->key);
    if (a->sa_family == AF_INET6) {
        memcpy(peer->key, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, 16);
    } else if (a->sa_family == AF_INET) {
        peer->key[10] = peer->key[11] = 0xFF;
        memcpy(peer->key + 12, &((const struct sockaddr_in *)(const void *)a)->sin_addr, 4);
    }
}

/* The client of a unix socket: on the loopback address for those who want one, counted by its user. */
static void fill_unix(int fd, struct cht_peer *peer)
{
    const struct sockaddr_in self = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct ucred who = {.uid = (uid_t)-1};
    socklen_t n = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) < 0)
        who.uid = (uid_t)-1; /* nobody: counted as one user */
    memset(peer->storage, 0, sizeof peer->storage);
    memcpy(peer->storage, &self, sizeof self);
    peer->len = sizeof self;
    peer->uid = who.uid;
    memset(peer->key, 0, sizeof peer->key);
    (void)CHT_PUT(peer->key, "unix");
    memcpy(peer->key + 12, &peer->uid, sizeof peer->uid);
}

/* The port of a listening socket, 0 of a unix socket, and whether only this machine can reach it. */
static void port_of(int fd, unsigned *port, bool *loopback)
{
    struct sockaddr_storage real;
    socklen_t n = sizeof real;
    memset(&real, 0, sizeof real);
    (void)getsockname(fd, (struct sockaddr *)&real, &n); /* cannot fail on a bound socket */
    *loopback = real.ss_family == AF_UNIX || is_loopback((struct sockaddr *)&real);
    *port = 0;
    if (real.ss_family == AF_INET6)
        *port = ntohs(((struct sockaddr_in6 *)(void *)&real)->sin6_port);
    else if (real.ss_family == AF_INET)
        *port = ntohs(((struct sockaddr_in *)(void *)&real)->sin_port);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_net_listen(const char *where, int *fd, unsigned *port, bool *loopback, struct cht_err *err)
{
    bool is_unix = CHT_BEGINS(where, "unix:"), any = strcmp(where, "systemd") == 0;
    if (is_unix || any || CHT_BEGINS(where, "systemd:")) {
        enum cht_rc made = is_unix ? cht_listen_unix(where + CHT_LEN("unix:"), fd, err)
                                   : cht_listen_passed(any ? "" : where + CHT_LEN("systemd:"), fd, err);
        if (made == CHT_OK)
            port_of(*fd, port, loopback);
        return made;
    }
    char host[256];
    const char *service;
    if (!split(where, host, sizeof host, &service))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "listen: '%.80s' is not HOST:PORT", where);
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM},
                    *list = NULL;
    int failed = getaddrinfo(host[0] != 0 ? host : NULL, service, &hints, &list);
    if (failed != 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "listen: cannot find the address of '%.80s': %s", where,
                        gai_strerror(failed));
    enum cht_rc rc = listen_on(list, where, fd, err);
    freeaddrinfo(list);
    if (rc == CHT_OK)
        port_of(*fd, port, loopback);
    return rc;
}

bool cht_net_accept(int listen_fd, int *fd, struct cht_peer *peer, bool *exhausted)
{
    socklen_t n = sizeof peer->storage;
    *exhausted = false;
    *fd = accept4(listen_fd, (struct sockaddr *)(void *)peer->storage, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (*fd < 0) {
        *exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        return false;
    }
    peer->len = n;
    peer->is_unix = ((const struct sockaddr *)(const void *)peer->storage)->sa_family == AF_UNIX;
    if (peer->is_unix)
        fill_unix(*fd, peer);
    else
        fill_key(peer);
    return true;
}

enum cht_rc cht_net_pair(int *served, struct cht_peer *peer, int *asking, struct cht_err *err)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fds[2];
    *served = *asking = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return failed(err, errno == EMFILE || errno == ENFILE ? CHT_NO_DESCRIPTORS : CHT_IO, __LINE__,
                      "cannot make", "a connection within the process");
    int flags = fcntl(fds[0], F_GETFL);
    if (flags < 0 || fcntl(fds[0], F_SETFL, flags | O_NONBLOCK) < 0) {
        enum cht_rc rc = failed(err, CHT_IO, __LINE__, "cannot change", "a connection within the process");
        (void)close(fds[0]);
        (void)close(fds[1]);
        return rc;
    }
    memset(peer, 0, sizeof *peer);
    memcpy(peer->storage, &self, sizeof self);
    peer->len = sizeof self;
    fill_key(peer);
    *served = fds[0];
    *asking = fds[1];
    return CHT_OK;
}

bool cht_net_peer_is_local(const struct cht_peer *peer)
{
    static const uint8_t v4[12] = {[10] = 0xFF, [11] = 0xFF}, v6[16] = {[15] = 1};
    return (memcmp(peer->key, v4, sizeof v4) == 0 && peer->key[12] == 127) ||
           memcmp(peer->key, v6, sizeof v6) == 0 || peer->is_unix;
}

void cht_net_peer_text(const struct cht_peer *peer, char out[CHT_ADDR_TEXT])
{
    if (peer->is_unix)
        (void)snprintf(out, CHT_ADDR_TEXT, "unix:%u", (unsigned)peer->uid); /* fits */
    else if (getnameinfo((const struct sockaddr *)(const void *)peer->storage, peer->len, out, CHT_ADDR_TEXT,
                         NULL, 0, NI_NUMERICHOST) != 0)
        memcpy(out, "?", sizeof "?");
}

void cht_net_quickack(int fd)
{
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one); /* a matter of speed only */
}

void cht_net_nodelay(int fd)
{
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* a matter of speed only */
}

void cht_net_shutdown(int fd) { (void)shutdown(fd, SHUT_RDWR); /* fails only if it has ended already */ }
void cht_net_close(int fd) { (void)close(fd); /* nothing to be done about a failure */ }
int cht_net_dup(int fd) { return dup(fd); }

bool cht_net_discard(int fd, size_t *n)
{
    char buf[16384];
    *n = 0;
    while (*n < DISCARD_MAX) {
        ssize_t got = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (got > 0)
            *n += (size_t)got;
        else if (got == 0)
            return false;
        else if (errno != EINTR)
            return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    return true;
}

/* What a call that sends answered. */
static ptrdiff_t sent_or_why(ssize_t sent)
{
    if (sent >= 0)
        return sent;
    return errno == EAGAIN || errno == EWOULDBLOCK ? CHT_NET_LATER : CHT_NET_FAILED;
}

ptrdiff_t cht_net_send_parts(int fd, const struct cht_net_part *parts, unsigned n)
{
    struct iovec v[CHT_NET_PARTS_MAX];
    const struct msghdr msg = {.msg_iov = v, .msg_iovlen = n};
    ssize_t sent;
    for (unsigned i = 0; i < n;
         i++) /* NOLINTNEXTLINE(performance-no-int-to-ptr): const, which iovec does not know */
        v[i] = (struct iovec){.iov_base = (void *)(uintptr_t)parts[i].p, .iov_len = parts[i].n};
    do
        sent = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent_or_why(sent);
}

ptrdiff_t cht_net_send(int fd, const void *head, size_t n, const void *body, size_t m)
{
    const struct cht_net_part parts[2] = {{head, n}, {body, m}};
    ssize_t sent;
    if (m > 0)
        return cht_net_send_parts(fd, parts, 2);
    do
        sent = send(fd, head, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent_or_why(sent);
}

bool cht_net_ended(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

bool cht_net_gone(int fd)
{
    struct pollfd p = {.fd = fd, .events = 0};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

void cht_net_probe(int fd)
{
    int on = 1, idle = 10, interval = 10, count = 3; /* seconds; without them the system's own hold */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

int cht_net_watch_new(void) { return epoll_create1(EPOLL_CLOEXEC); }

bool cht_net_watch(int watch, int fd)
{
    struct epoll_event e = {.events = EPOLLRDHUP | EPOLLET, .data.fd = fd};
    return epoll_ctl(watch, EPOLL_CTL_ADD, fd, &e) == 0;
}

bool cht_net_watch_room(int watch, int fd, bool on)
{
    struct epoll_event e = {.events = EPOLLRDHUP | EPOLLET | (on ? (unsigned)EPOLLOUT : 0u), .data.fd = fd};
    return epoll_ctl(watch, EPOLL_CTL_MOD, fd, &e) == 0;
}

void cht_net_unwatch(int watch, int fd)
{
    (void)epoll_ctl(watch, EPOLL_CTL_DEL, fd, NULL); /* fails where it was never watched */
}

size_t cht_net_watch_take(int watch, int *fds, size_t n)
{
    struct epoll_event e[64];
    int found = epoll_wait(watch, e, n < 64 ? (int)n : 64, 0);
    for (int i = 0; i < found; i++)
        fds[i] = e[i].data.fd;
    return found > 0 ? (size_t)found : 0;
}

void cht_net_poll(const int *fds, bool *ready, size_t n, int ms)
{
    struct pollfd p[POLL_MAX];
    n = n < POLL_MAX ? n : POLL_MAX;
    for (size_t i = 0; i < n; i++)
        p[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    int found = poll(p, n, ms);
    for (size_t i = 0; i < n; i++)
        ready[i] = found > 0 && p[i].revents != 0;
}

enum cht_rc cht_bell_new(int *fd, struct cht_err *err)
{
    *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (*fd < 0)
        return failed(err, CHT_IO, __LINE__, "cannot make", "an eventfd");
    return CHT_OK;
}

void cht_bell_ring(int fd)
{
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* fails only if it rings already */
}

void cht_bell_drain(int fd)
{
    uint64_t v;
    ssize_t n = read(fd, &v, sizeof v);
    (void)n; /* fails only if it is silent */
}

bool cht_os_begin(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_WRONLY};
    (void)signal(SIGXFSZ, SIG_IGN); /* cannot fail */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd) /* the lowest that is free */
            return false;
    }
    return true;
}

uint64_t cht_os_raise_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return 0;
    rlim_t had = r.rlim_cur;
    r.rlim_cur = r.rlim_max;
    if (r.rlim_max != had && setrlimit(RLIMIT_NOFILE, &r) != 0)
        return had;
    return r.rlim_cur;
}

static void signal_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

void cht_os_block_signals(void)
{
    sigset_t set;
    signal_set(&set);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL); /* cannot fail with these arguments */
    (void)signal(SIGPIPE, SIG_IGN);               /* likewise */
}

char cht_os_wait_signal(int ms)
{
    sigset_t set;
    signal_set(&set);
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    int got = ms < 0 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &t);
    return got == SIGTERM ? 'T' : got == SIGINT ? 'I' : got == SIGHUP ? 'H' : 0;
}

void cht_os_ignore_pipe(void) { (void)signal(SIGPIPE, SIG_IGN); /* cannot fail */ }

static volatile sig_atomic_t interrupt;

/* A signal that comes just before the call that waits would be forgotten by it: the alarm rings until somebody has asked. */
static void note_interrupt(int number)
{
    if (number == SIGINT)
        interrupt = 1;
    if (interrupt != 0)
        (void)alarm(1);
}

void cht_os_catch_interrupts(bool on)
{
    struct sigaction a = {.sa_handler =
                              on ? note_interrupt : SIG_DFL}; /* no SA_RESTART: the read is to end */
    (void)sigemptyset(&a.sa_mask);
    (void)sigaction(SIGINT, &a, NULL); /* cannot fail with these arguments */
    if (!on)
        (void)alarm(0); /* before an alarm is deadly again */
    (void)sigaction(SIGALRM, &a, NULL);
}

bool cht_os_interrupted(void)
{
    bool was = interrupt != 0;
    interrupt = 0;
    (void)alarm(0);
    return was;
}

bool cht_os_interrupt_pending(void) { return interrupt != 0; }

_Noreturn void cht_os_exit_now(int code) { _exit(code); }

/* Open descriptors: what /proc/self/fd names, but ".", ".." and the one that reads it. */
static uint64_t count_files(void)
{
    uint64_t n = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return 0;
    while (readdir(dir) != NULL) /* NOLINT(concurrency-mt-unsafe): nobody else has dir */
        n++;
    (void)closedir(dir);
    return n > 3 ? n - 3 : 0;
}

void cht_os_usage(uint64_t *resident, uint64_t *cpu_ns, uint64_t *files)
{
    struct timespec t;
    unsigned long long pages = 0;
    *cpu_ns = clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0
                  ? (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec
                  : 0;
    *files = count_files();
    FILE *f = fopen("/proc/self/statm", "re");
    if (f != NULL) {
        char line[128], *at = line;
        if (fgets(line, sizeof line, f) != NULL) { /* total and resident pages */
            (void)strtoull(line, &at, 10);
            pages = strtoull(at, NULL, 10);
        }
        (void)fclose(f); /* opened for reading */
    }
    *resident = pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

bool cht_os_file_is_open_to_all(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & 077) != 0;
}

bool cht_os_file_is_open_to_others(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & (S_IRWXO | S_IWGRP)) != 0;
}

enum cht_rc cht_os_read_file(const char *path, size_t max, char **out, size_t *len, struct cht_err *err)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return failed(err, CHT_NO_FILE, __LINE__, "cannot open", path);
    size_t cap = 4096, n = 0;
    char *p = NULL;
    enum cht_rc rc = CHT_OK;
    for (;;) {
        char *more = n + 1 < cap && p != NULL ? p : cht_realloc(p, cap *= 2);
        if (more == NULL) {
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %.120s", path);
            break;
        }
        p = more;
        size_t got = fread(p + n, 1, cap - n - 1, f);
        n += got;
        if (got == 0)
            break;
        if (n > max) {
            rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.120s is larger than %zu bytes", path, max);
            break;
        }
    }
    if (rc == CHT_OK && ferror(f))
        rc = CHT_FAIL(err, CHT_IO, "cannot read %.120s", path);
    (void)fclose(f); /* opened for reading */
    if (rc != CHT_OK) {
        cht_free(p);
        return rc;
    }
    p[n] = 0;
    *out = p;
    *len = n;
    return CHT_OK;
}
