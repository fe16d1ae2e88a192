/* tap: see tap.h. */
#include "os/tap.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>

#define TLS_AGAIN (-28)       /* GNUTLS_E_AGAIN */
#define TLS_INTERRUPTED (-52) /* GNUTLS_E_INTERRUPTED */
#define TLS_PULL_ERROR (-54)  /* GNUTLS_E_PULL_ERROR */

struct cht_tap_source {
    int fd, flags;
    void *session; /* NULL: no TLS */
    ptrdiff_t failed;
};

typedef ptrdiff_t (*record_recv_fn)(void *session, void *buf, size_t n);
typedef int (*transport_fn)(void *session);

static _Thread_local struct cht_tap *tap;

void cht_tap_set(struct cht_tap *t) { tap = t; }

/* The next definition of a function: the library's own. A pointer to data cannot be cast to one to code in ISO C. */
static void library_function(const char *name, void *fn) { *(void **)fn = dlsym(RTLD_NEXT, name); }

static int descriptor_of(void *session)
{
    static _Thread_local transport_fn real;
    if (real == NULL)
        library_function("gnutls_transport_get_int", (void *)&real);
    return real != NULL ? real(session) : -1;
}

/* Bytes that the library has not taken from the socket. */
static bool more_waits(void *session)
{
    int n = 0;
    return ioctl(descriptor_of(session), FIONREAD, &n) == 0 && n > 0;
}

/* A record that is no text, new keys of TLS 1.3 for one, is "again" as well, though there may be more after it, of which nobody would hear
 * again who waits for edges. */
static ptrdiff_t take_tls(struct cht_tap_source *from, char *buf, size_t n)
{
    static _Thread_local record_recv_fn real;
    if (real == NULL)
        library_function("gnutls_record_recv", (void *)&real);
    ptrdiff_t got;
    do
        got = real != NULL ? real(from->session, buf, n) : TLS_PULL_ERROR;
    while (got == TLS_AGAIN && more_waits(from->session));
    if (got >= 0)
        return got;
    from->failed = got;
    return got == TLS_AGAIN || got == TLS_INTERRUPTED ? CHT_TAP_LATER : CHT_TAP_FAILED;
}

ptrdiff_t cht_tap_take(struct cht_tap_source *from, char *buf, size_t n)
{
    if (from->session != NULL)
        return take_tls(from, buf, n);
    for (;;) {
        ssize_t got = recvfrom(from->fd, buf, n, from->flags, NULL, NULL);
        if (got >= 0)
            return got;
        if (errno == EINTR)
            continue;
        from->failed = errno;
        return errno == EAGAIN || errno == EWOULDBLOCK ? CHT_TAP_LATER : CHT_TAP_FAILED;
    }
}

/* ---- what libraries call ----------------------------------------------------------------------------------------------- */

__attribute__((visibility("default"))) ssize_t recv(int fd, void *buf, size_t n, int flags)
{
    if (tap == NULL || tap->tls)
        return recvfrom(fd, buf, n, flags, NULL, NULL);
    struct cht_tap_source from = {.fd = fd, .flags = flags};
    ptrdiff_t got = tap->read(tap, fd, buf, n, &from);
    if (got >= 0)
        return got;
    errno = got == CHT_TAP_LATER ? EAGAIN : (from.failed != 0 ? (int)from.failed : ECONNRESET);
    return -1;
}

__attribute__((visibility("default"))) ssize_t send(int fd, const void *buf, size_t n, int flags)
{
    ptrdiff_t sent = tap == NULL || tap->tls || tap->write == NULL ? CHT_TAP_AS_IS : tap->write(tap, fd, n);
    if (sent == CHT_TAP_AS_IS)
        return sendto(fd, buf, n, flags, NULL, 0);
    if (sent >= 0)
        return sent;
    errno = sent == CHT_TAP_LATER ? EAGAIN : ECONNRESET;
    return -1;
}

ptrdiff_t gnutls_record_recv(void *session, void *buf, size_t n);

__attribute__((visibility("default"))) ptrdiff_t gnutls_record_recv(void *session, void *buf, size_t n)
{
    struct cht_tap_source from = {.fd = -1, .session = session};
    int fd = tap != NULL && tap->tls ? descriptor_of(session) : -1;
    if (fd < 0) {
        ptrdiff_t got = take_tls(&from, buf, n);
        return got >= 0 ? got : from.failed;
    }
    ptrdiff_t got = tap->read(tap, fd, buf, n, &from);
    if (got >= 0)
        return got;
    return got == CHT_TAP_LATER ? TLS_AGAIN : (from.failed != 0 ? from.failed : TLS_PULL_ERROR);
}
