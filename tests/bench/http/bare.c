// The floor of the HTTP benchmark: libmicrohttpd with nothing behind it. GET and PUT are answered with a fixed body,
// GET /stream (or /stream/BYTES) with a chunked body from memory.
//
// --mode pool: libmicrohttpd's own threads. --mode loop: our threads, each polls the epoll descriptor of its daemon and
// calls MHD_run; all daemons share one listening socket. The product works like that: an epoll loop inside
// libmicrohttpd 0.9.75 hangs when exactly 128 events are ready.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STREAM_SOURCE = 1 << 20, MAX_THREADS = 64 };

static uint16_t port = 18090;
static unsigned threads = 1;
static size_t pool_bytes = 20480; // as cheetah's --max-header-bytes
static uint64_t stream_bytes = 1 << 30;
static struct MHD_Response *fixed, *not_allowed;
static char source[STREAM_SOURCE];

static void die(const char *what)
{
    fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t number(const char *name, const char *text, uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || end == text || *end || v > max) {
        fprintf(stderr, "bare: bad value of %s: %s\n", name, text);
        exit(2);
    }
    return v;
}

typedef struct {
    uint64_t left;
} stream;

// Like an NDJSON body: from memory, one copy into libmicrohttpd's pool.
static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
    stream *s = cls;
    (void)pos;
    if (!s->left)
        return MHD_CONTENT_READER_END_OF_STREAM;
    size_t n = max < STREAM_SOURCE ? max : STREAM_SOURCE;
    if (n > s->left)
        n = (size_t)s->left;
    memcpy(buf, source, n);
    s->left -= n;
    return (ssize_t)n;
}

static enum MHD_Result answer_stream(struct MHD_Connection *connection, const char *url)
{
    stream *s = malloc(sizeof *s);
    if (!s)
        return MHD_NO;
    s->left = url[7] == '/' ? strtoull(url + 8, NULL, 10) : stream_bytes;
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, pool_bytes, stream_read, s, free);
    if (!r) {
        free(s);
        return MHD_NO;
    }
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "application/x-ndjson");
    enum MHD_Result result = MHD_queue_response(connection, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data, size_t *size,
                              void **state)
{
    static int seen;
    (void)cls;
    (void)version;
    (void)data;
    if (!*state) { // headers only: an answer here would close the connection
        *state = &seen;
        return MHD_YES;
    }
    if (*size) {
        *size = 0;
        return MHD_YES;
    }
    if (strcmp(method, "GET") && strcmp(method, "PUT"))
        return MHD_queue_response(connection, MHD_HTTP_METHOD_NOT_ALLOWED, not_allowed);
    if (!strncmp(url, "/stream", 7) && (!url[7] || url[7] == '/'))
        return answer_stream(connection, url);
    return MHD_queue_response(connection, MHD_HTTP_OK, fixed);
}

static int listen_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd < 0)
        die("socket");
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) || bind(fd, (struct sockaddr *)&a, sizeof a))
        die("bind");
    if (listen(fd, 1024) || fcntl(fd, F_SETFL, O_NONBLOCK))
        die("listen");
    return fd;
}

static struct MHD_Daemon *start(unsigned flags, int fd, unsigned pool)
{
    struct MHD_OptionItem options[] = {
        {MHD_OPTION_LISTEN_SOCKET, fd, NULL},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)pool_bytes, NULL},
        {pool > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, (intptr_t)pool, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_Daemon *d = MHD_start_daemon(flags | MHD_USE_ERROR_LOG, 0, NULL, NULL, handle, NULL,
                                            MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    if (!d)
        die("MHD_start_daemon");
    return d;
}

static void *loop(void *arg)
{
    struct MHD_Daemon *d = arg;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(d, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        die("MHD_DAEMON_INFO_EPOLL_FD");
    struct pollfd p = {.fd = info->epoll_fd, .events = POLLIN};
    for (;;) {
        MHD_UNSIGNED_LONG_LONG ms;
        int timeout = -1;
        if (MHD_get_timeout(d, &ms) == MHD_YES)
            timeout = ms > INT_MAX ? INT_MAX : (int)ms;
        if (poll(&p, 1, timeout) < 0 && errno != EINTR)
            die("poll");
        if (MHD_run(d) != MHD_YES)
            die("MHD_run");
    }
    return NULL;
}

static void usage(FILE *out)
{
    fputs("bare [--mode loop|pool] [--port N] [--threads N] [--pool-bytes N] [--body N] [--stream BYTES]\n",
          out);
}

int main(int argc, char **argv)
{
    bool pool = false;
    size_t body_bytes = 60;
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(name, "--help")) {
            usage(stdout);
            return 0;
        }
        if (!value) {
            usage(stderr);
            return 2;
        }
        if (!strcmp(name, "--mode") && (!strcmp(value, "pool") || !strcmp(value, "loop"))) {
            pool = *value == 'p';
        } else if (!strcmp(name, "--port")) {
            port = (uint16_t)number(name, value, UINT16_MAX);
        } else if (!strcmp(name, "--threads")) {
            threads = (unsigned)number(name, value, MAX_THREADS);
        } else if (!strcmp(name, "--pool-bytes")) {
            pool_bytes = number(name, value, 1 << 30);
        } else if (!strcmp(name, "--body")) {
            body_bytes = number(name, value, 1 << 30);
        } else if (!strcmp(name, "--stream")) {
            stream_bytes = number(name, value, UINT64_MAX);
        } else {
            usage(stderr);
            return 2;
        }
    }
    if (!threads)
        threads = 1;
    signal(SIGPIPE, SIG_IGN);

    char *body = malloc(body_bytes + 1);
    if (!body)
        die("malloc");
    memset(body, 'b', body_bytes);
    for (size_t i = 0; i < STREAM_SOURCE; i++)
        source[i] = i % 150 == 149 ? '\n' : (char)('a' + i % 26);
    fixed = MHD_create_response_from_buffer(body_bytes, body, MHD_RESPMEM_PERSISTENT);
    not_allowed = MHD_create_response_from_buffer(0, body, MHD_RESPMEM_PERSISTENT);
    if (!fixed || !not_allowed)
        die("response");
    MHD_add_response_header(fixed, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");

    int fd = listen_socket();
    pthread_t thread;
    if (pool) {
        start(MHD_USE_EPOLL_INTERNAL_THREAD, fd, threads);
    } else {
        for (unsigned i = 0; i < threads; i++) {
            struct MHD_Daemon *d = start(MHD_USE_EPOLL, fd, 0);
            if (pthread_create(&thread, NULL, loop, d))
                die("pthread_create");
        }
    }
    for (;;) // until killed
        pause();
}
