/* sock: sockets that are read and written directly (the line protocol, the shell), and waiting for many at once.
 *
 * Descriptors are plain ints owned by the caller. errno stops here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cheetah/err.h"

#define CHT_SOCK_LATER (-1) /* nothing to read, or no room to write, at the moment */
#define CHT_SOCK_FAILED (-2)

/* The bytes read or written (more than 0), 0 at the end of the stream (read), CHT_SOCK_LATER, CHT_SOCK_FAILED. A blocking
 * descriptor blocks. Also for pipes and terminals. */
ptrdiff_t cht_sock_read(int fd, void *buf, size_t n);
ptrdiff_t cht_sock_write(int fd, const void *buf, size_t n);
/* A blocking connection to "host:port"; every address of the host is tried. CHT_INVALID_ARGUMENT, CHT_IO. */
enum cht_rc cht_sock_connect(const char *where, int *fd, struct cht_err *err);
/* From now on nothing blocks: CHT_SOCK_LATER; and small pieces are sent at once. False if that cannot be. */
bool cht_sock_unblock(int fd);
/* "Nothing more comes from me": the other side reads an end and can still answer. */
void cht_sock_end(int fd);

/* What became possible on a descriptor. */
#define CHT_POLL_READ 1u
#define CHT_POLL_WRITE 2u
#define CHT_POLL_END 8u /* the other side sends nothing more; there may be something to read before its end */
#define CHT_POLL_DEAD 4u /* both directions have ended, or it failed */
struct cht_event {
    void *data; /* what it was added with */
    unsigned what;
};

enum cht_rc cht_poller_new(int *poller, struct cht_err *err);
/* Told once for every change (edge-triggered): read or write until CHT_SOCK_LATER. Closing the descriptor takes it out. */
enum cht_rc cht_poller_add(int poller, int fd, void *data, struct cht_err *err);
/* Told as long as there is something to read (level-triggered). */
enum cht_rc cht_poller_add_level(int poller, int fd, void *data, struct cht_err *err);
void cht_poller_remove(int poller, int fd);
/* Waits until there are events, at most ns; to the tenth of a millisecond, which cht_poller_wait is not. */
void cht_poller_sleep(int poller, uint64_t ns);
/* Waits at most ms (-1: for ever); returns how many events were written to out. */
size_t cht_poller_wait(int poller, struct cht_event *out, size_t max, int ms);
