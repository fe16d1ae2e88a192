/* args: the command line, read by a table: --name VALUE, --name=VALUE, -n VALUE, flags, and everything else in place.
 * Options may stand anywhere; "--" ends them. A negative number is no option.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tool_opt_kind {
    TOOL_OPT_FLAG,   /* bool * */
    TOOL_OPT_STRING, /* const char **, borrowed from argv */
    TOOL_OPT_NUMBER, /* uint64_t *, decimal, 1..max */
    TOOL_OPT_LIST    /* struct tool_opt_list *: may be given several times; each value is added */
};
#define TOOL_OPT_LIST_MAX 64u
struct tool_opt_list {
    const char *v[TOOL_OPT_LIST_MAX]; /* borrowed from argv */
    size_t n;
};

struct tool_opt {
    const char *name; /* without "--"; NULL: only a line of the help */
    char letter;      /* 0: none */
    enum tool_opt_kind kind;
    void *out;
    uint64_t max;     /* for numbers */
    const char *arg;  /* in the help: NAME; NULL: it takes no value */
    const char *help; /* "\n" begins another line; NULL: not shown */
};

/* Fills in what the options name and moves the other arguments to the front of argv; *rest is their count. False after a
 * message to stderr: an unknown option (with the one that is most like it), a value that is missing, not wanted or out of range. */
bool tool_args_parse(const struct tool_opt *opts, size_t count, int argc, char **argv, int *rest);

/* Prints `before`, a line or more for each option, and `after`; returns the exit code. */
int tool_args_help(const char *before, const struct tool_opt *opts, size_t count, const char *after);

/* Data directories: owned strings. */
struct tool_dirs {
    char **v; /* owned */
    size_t n;
};
/* Adds "A,B,C" (commas separate) or one path as it is. False after a message: an empty name, no memory. */
bool tool_dirs_add_list(struct tool_dirs *d, const char *list);
bool tool_dirs_add(struct tool_dirs *d, const char *path, size_t len);
void tool_dirs_fini(struct tool_dirs *d);
