/* tools: the subcommands of the program. Each gets the arguments behind its name, writes its answer to stdout and what
 * went wrong to stderr, and returns the exit code.
 */
#pragma once

#include "cheetah/store.h"
#include "tools/args.h"

enum cht_exit {
    CHT_EXIT_OK = 0,
    CHT_EXIT_FAILED = 1, /* it did not work; check: there are findings */
    CHT_EXIT_USAGE = 2,  /* the command line is wrong */
    CHT_EXIT_DAMAGED = 3 /* stored bytes are damaged (not check, which has 1 for that) */
};

#define CHT_DATA_DEFAULT "./cheetah_data"

int cht_tool_serve(int argc, char **argv);
int cht_tool_shell(int argc, char **argv);
int cht_tool_check(int argc, char **argv);
int cht_tool_create(int argc, char **argv);
int cht_tool_list(int argc, char **argv);
int cht_tool_drop(int argc, char **argv);
int cht_tool_stat(int argc, char **argv);
int cht_tool_top(int argc, char **argv);
int cht_tool_health(int argc, char **argv);
int cht_tool_backup(int argc, char **argv);
int cht_tool_restore(int argc, char **argv);
int cht_tool_export(int argc, char **argv);
int cht_tool_import(int argc, char **argv);

/* "cheetah-db: message" and the exit code that fits the failure. */
int cht_tool_failed(const struct cht_err *err);
/* A wrong command line: "cheetah-db COMMAND: what". */
int cht_tool_usage(const char *command, const char *what);
/* The directories of all --data, or the default if none are named and `dirs` is still empty. False after a message. */
bool cht_tool_dirs(const struct cht_opt_list *data, struct cht_dirs *dirs);
/* The first of the directories that is not there is an error: opening would create it. */
int cht_tool_need_dirs(const struct cht_dirs *dirs);
