/* tap: what a library of this process reads from its sockets goes through a function of ours first, on the threads that ask for it; what it
 * sends without TLS likewise.
 *
 *   libmicrohttpd  -> recv, gnutls_record_recv, send (tap.c defines them, so they come before libc's and GnuTLS's)
 *                  -> tap->read  -> cht_tap_take (the socket, or the TLS session)
 *                  -> tap->write -> the socket
 *
 * Other threads, and other libraries on them, notice nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct cht_tap_source;

struct cht_tap {
    /* Puts at most n bytes into buf: how many; 0: the end; CHT_TAP_LATER: nothing yet; CHT_TAP_FAILED. */
    ptrdiff_t (*read)(struct cht_tap *t, int fd, char *buf, size_t n, struct cht_tap_source *from);
    /* In place of the n bytes that the library sends: how many of them count as sent; CHT_TAP_AS_IS: they go out themselves;
     * CHT_TAP_LATER, CHT_TAP_FAILED. NULL: all as they are. */
    ptrdiff_t (*write)(struct cht_tap *t, int fd, size_t n);
    bool tls; /* the text of TLS sessions, not what goes over the wire */
};
#define CHT_TAP_LATER (-1)
#define CHT_TAP_FAILED (-2)
#define CHT_TAP_AS_IS (-3)

/* From now on for this thread; NULL: none. Borrowed. */
void cht_tap_set(struct cht_tap *t);
/* What is there, with the results of `read`. Only from within `read`. */
ptrdiff_t cht_tap_take(struct cht_tap_source *from, char *buf, size_t n);
