/* here: the HTTP service within this process, over the data directories of a server that is stopped, or over a pool of a Ceph cluster: what a tool asks a running
 * server it asks this one in the same words, so both answer alike. It listens nowhere; each connection is a pair of sockets.
 *
 * Threads: one at a time, but for tool_here_dial.
 */
#pragma once

#include "cheetah/store.h"
#include "tools/args.h"

struct tool_here;

/* Locks and opens the directories, and recovers what was not stopped cleanly. writes: new directories may join the set, and a write makes
 * the database it is for. What cht_env_open says; CHT_NO_MEMORY. */
enum cht_rc tool_here_open(const struct tool_dirs *dirs, bool writes, struct tool_here **out,
                           struct cht_err *err);
/* Over an environment that is open, which is closed with it, and if this fails. */
enum cht_rc tool_here_over(struct cht_env *env, struct tool_here **out, struct cht_err *err);
/* A connection (`dial` of tool_connect), -1 if there are no descriptors. */
int tool_here_dial(void *here);
/* Ends connections, makes checkpoints and closes all. The first failure; it is gone either way. NULL is legal. */
enum cht_rc tool_here_close(struct tool_here *h, struct cht_err *err);
