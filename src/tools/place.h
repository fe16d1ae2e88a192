/* place: where a tool works: a running server (--connect, CHEETAH_URL, or the default), with --data the directories of one that is
 * stopped, or with --store rados a pool of a Ceph cluster. Each is asked over HTTP (http_client.h, here.h), and messages name it.
 *
 *     struct tool_place place = {0};                                    options: TOOL_PLACE_OPTS(&place)
 *     int code = tool_place_open("get", &place, false);
 *     if (code == TOOL_EXIT_OK) ... place.client ...
 *     code = tool_place_close(&place, code);
 */
#pragma once

#include "tools/http_client.h"
#include "tools/place_rados.h"

struct tool_here;

/* Zero-initialise; the options fill in the first three. */
struct tool_place {
    struct tool_connect connect;
    struct tool_opt_list data;
    struct tool_rados rados;
    struct tool_client *client; /* once it is open */
    struct tool_dirs dirs;      /* of a stopped server */
    struct tool_here *here;
    char label[91]; /* as much as messages have room for */
};

#define TOOL_PLACE_OPTS(p)                                                                         \
    {"data",                                                                                       \
     0,                                                                                            \
     TOOL_OPT_LIST,                                                                                \
     &(p)->data,                                                                                   \
     0,                                                                                            \
     "A,B,C",                                                                                      \
     "the data directories, all of them, of a server that is stopped, in place of a running one"}, \
        TOOL_RADOS_OPTS(&(p)->rados), TOOL_CONNECT_OPTS(&(p)->connect)

/* Is it stopped data? */
static inline bool tool_place_stopped(const struct tool_place *p) { return p->data.n > 0; }
/* Do the options go together? TOOL_EXIT_USAGE after a message, for tools that open the directories themselves. */
int tool_place_check(const char *command, const struct tool_place *p);
/* writes: see tool_here_open, tool_rados_open_pool. The exit code, after a message if it is not 0. A running server is connected to by the first request. */
int tool_place_open(const char *command, struct tool_place *p, bool writes);
/* "http://127.0.0.1:8080", "./cheetah_data". */
const char *tool_place_name(const struct tool_place *p);
/* Closes what is open; stopped data that cannot be brought home makes `code` a failure if it was none. */
int tool_place_close(struct tool_place *p, int code);
