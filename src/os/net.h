/* net: the few socket and signal calls the servers need; everything else about HTTP is libmicrohttpd's.
 *
 * Descriptors are plain ints owned by the caller. errno stops here, as in io.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cheetah/err.h"

#define CHT_ADDR_TEXT 64u

/* A peer: the address bytes for counting, its text for people. That of a unix socket is the loopback address for libmicrohttpd, is
 * counted by user, and called unix:UID. */
struct cht_peer {
    uint8_t storage[128]; /* a struct sockaddr */
    uint32_t len;
    uint8_t key[16]; /* IPv6 or v4-mapped address; of a unix socket the user */
    bool is_unix;
    uint32_t uid; /* of a unix socket: who has connected */
};

/* Listens on "host:port", "[v6]:port" or ":port" (any address). Port 0: any free one. "unix:/path": a unix socket for owner and group;
 * "systemd" and "systemd:NAME": the socket that the service manager has passed (the only one, or the one of that name). *port is the
 * real one, 0 of a unix socket; *loopback says whether only this machine can reach it. CHT_INVALID_ARGUMENT (cannot be read, not
 * passed), CHT_IO (in use, not allowed). */
enum cht_rc cht_net_listen(const char *where, int *fd, unsigned *port, bool *loopback, struct cht_err *err);
/* Closes what cht_net_listen has made of `where`, and removes the file of a unix socket. fd -1 is legal. */
void cht_net_unlisten(int fd, const char *where);
/* Tells the service manager, if there is one (NOTIFY_SOCKET): "READY=1" and the like. Whether it was told. */
bool cht_os_notify(const char *state);
/* One waiting connection, non-blocking and closed on exec. False if none waits (or it was gone again); *exhausted if
 * the process is out of descriptors or memory: wait before the next call. */
bool cht_net_accept(int listen_fd, int *fd, struct cht_peer *peer, bool *exhausted);
/* Two ends of one connection within this process: `served` is what cht_net_accept would give (non-blocking), its peer the loopback
 * address; `asking` blocks. Both are closed on exec. CHT_IO, CHT_NO_DESCRIPTORS. */
enum cht_rc cht_net_pair(int *served, struct cht_peer *peer, int *asking, struct cht_err *err);
bool cht_net_peer_is_local(const struct cht_peer *peer); /* a loopback address */
void cht_net_peer_text(const struct cht_peer *peer, char out[CHT_ADDR_TEXT]);
/* Acknowledge what was received at once, not with the next answer (a client with Nagle's algorithm waits for it). */
void cht_net_quickack(int fd);
void cht_net_nodelay(int fd);
/* Ends both directions: whoever serves the connection sees its end. */
void cht_net_shutdown(int fd);
void cht_net_close(int fd);
int cht_net_dup(int fd); /* -1 on failure */
/* Reads and drops what is there; false at the end of the connection or on an error, *n bytes dropped. */
bool cht_net_discard(int fd, size_t *n);

/* Sends n bytes at head and then m at body, without waiting: how many went out; CHT_NET_LATER: nobody reads just now; CHT_NET_FAILED. */
#define CHT_NET_LATER (-1)
#define CHT_NET_FAILED (-2)
ptrdiff_t cht_net_send(int fd, const void *head, size_t n, const void *body, size_t m);
/* The same of several parts. */
struct cht_net_part {
    const void *p;
    size_t n;
};
#define CHT_NET_PARTS_MAX 3u
ptrdiff_t cht_net_send_parts(int fd, const struct cht_net_part *parts, unsigned n);

/* Has the other side ended what it sends (some of that may still be unread)? It may still read. */
bool cht_net_ended(int fd);
/* Is the connection broken, so that nobody reads any more? A client that just closed it looks like one that ended its side, until
 * something is sent to it: see cht_net_probe. */
bool cht_net_gone(int fd);
/* Asks the other side from time to time whether it is there, so that cht_net_gone knows within two minutes. */
void cht_net_probe(int fd);

/* Tells of connections whose other side ends. -1 on failure. */
int cht_net_watch_new(void);
bool cht_net_watch(int watch, int fd);
/* From now on also whether more can be sent; on false: no more. */
bool cht_net_watch_room(int watch, int fd, bool on);
void cht_net_unwatch(int watch, int fd);
/* Descriptors that ended, or have room, since the last call, at most n; how many. They may have been closed since. */
size_t cht_net_watch_take(int watch, int *fds, size_t n);

/* Waits until one of n descriptors is readable or ms have passed (-1: for ever); ready[i] says which. */
void cht_net_poll(const int *fds, bool *ready, size_t n, int ms);

/* A wake-up that poll sees. Any thread may ring; drain makes it silent again. */
enum cht_rc cht_bell_new(int *fd, struct cht_err *err);
void cht_bell_ring(int fd);
void cht_bell_drain(int fd);

/* For main, before anything is opened: a standard descriptor that was closed leads to /dev/null, so that no file or socket of ours gets its
 * number and with it what is printed, and reading from the first and writing to the second fail, as they should; and a file that reaches the limit of the size of files (RLIMIT_FSIZE) is a failed write and no
 * signal that ends the process. False: there is no /dev/null. */
bool cht_os_begin(void);
/* Raises the limit of open files to what is allowed; returns it. */
uint64_t cht_os_raise_files(void);
/* How many mappings a process may have. */
uint64_t cht_os_maps(void);
/* Blocks TERM, INT and HUP for this thread and those it starts, and ignores PIPE. Call before any thread is started. */
void cht_os_block_signals(void);
/* One of the blocked signals, by its letter: 'T', 'I', 'H'; 0 after ms (-1: for ever). */
char cht_os_wait_signal(int ms);
/* A write to a pipe or socket that nobody reads fails, and does not end the process. */
void cht_os_ignore_pipe(void);
/* For programs on a terminal: while on, an interrupt from the keyboard does not end the process but the call that waits;
 * interrupted() says, once, that there was one. */
void cht_os_catch_interrupts(bool on);
bool cht_os_interrupted(void);
bool cht_os_interrupt_pending(void); /* was there one that nobody has asked about? Any thread; a load. */
/* Ends the process here and now, with nothing flushed. */
_Noreturn void cht_os_exit_now(int code);
/* The resident memory and the processor time (ns) of this process, and its open files; 0 if unknown. */
void cht_os_usage(uint64_t *resident, uint64_t *cpu_ns, uint64_t *files);
/* May others than the owner read this file? */
bool cht_os_file_is_open_to_all(const char *path);
/* May others than the owner and the group read it, or others than the owner write it? */
bool cht_os_file_is_open_to_others(const char *path);
/* The whole file, at most max bytes, with a zero after it; free with cht_free. CHT_NO_FILE, CHT_INVALID_ARGUMENT. */
enum cht_rc cht_os_read_file(const char *path, size_t max, char **out, size_t *len, struct cht_err *err);
