/* tools: the subcommands of the program. Each gets the arguments after its name, writes its answer to stdout and what
 * went wrong to stderr, and returns the exit code.
 */
#pragma once

#include "cheetah/store.h"
#include "tools/args.h"

enum tool_exit {
    TOOL_EXIT_OK = 0,
    TOOL_EXIT_FAILED = 1, /* it did not work; check: there are findings */
    TOOL_EXIT_USAGE = 2,  /* the command line is wrong */
    TOOL_EXIT_DAMAGED = 3 /* stored bytes are damaged (not check, which has 1 for that) */
};

#define TOOL_DATA_DEFAULT "./cheetah_data"

int tool_serve(int argc, char **argv);
int tool_shell(int argc, char **argv);
int tool_get(int argc, char **argv);
int tool_put(int argc, char **argv);
int tool_del(int argc, char **argv);
int tool_scan(int argc, char **argv);
int tool_count(int argc, char **argv);
int tool_changes(int argc, char **argv);
int tool_add(int argc, char **argv);
int tool_predict(int argc, char **argv);
int tool_score(int argc, char **argv);
int tool_links(int argc, char **argv);
int tool_associations(int argc, char **argv);
int tool_ngrams(int argc, char **argv);
int tool_smooth(int argc, char **argv);
int tool_check(int argc, char **argv);
int tool_create(int argc, char **argv);
int tool_list(int argc, char **argv);
int tool_drop(int argc, char **argv);
int tool_stat(int argc, char **argv);
int tool_top(int argc, char **argv);
int tool_bench(int argc, char **argv);
int tool_health(int argc, char **argv);
int tool_backup(int argc, char **argv);
int tool_restore(int argc, char **argv);
int tool_export(int argc, char **argv);
int tool_import(int argc, char **argv);

/* "cheetah-db: message" and the exit code that fits the failure. */
int tool_failed(const struct cht_err *err);
/* A wrong command line: "cheetah-db COMMAND: what". */
int tool_usage(const char *command, const char *what);
/* The directories of all --data, or the default if none are named and `dirs` is still empty. False after a message. */
bool tool_dirs(const struct tool_opt_list *data, struct tool_dirs *dirs);
/* A directory that is not there is an error, for opening would create it; so is it if none of them is a data directory, for opening would
 * make one of it. */
int tool_need_dirs(const struct tool_dirs *dirs);
