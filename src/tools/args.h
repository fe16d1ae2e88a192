/* args: the command line, read by a table: --name VALUE, --name=VALUE, -n VALUE, flags, and everything else in place.
 * Options may stand anywhere; "--" ends them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cht_opt_kind {
    CHT_OPT_FLAG,   /* bool * */
    CHT_OPT_STRING, /* const char **, borrowed from argv */
    CHT_OPT_NUMBER, /* uint64_t *, decimal, 1..max */
    CHT_OPT_LIST    /* struct cht_opt_list *: may be given several times; each value is added */
};
#define CHT_OPT_LIST_MAX 64u
struct cht_opt_list {
    const char *v[CHT_OPT_LIST_MAX]; /* borrowed from argv */
    size_t n;
};

struct cht_opt {
    const char *name; /* without "--"; NULL: only a line of the help */
    char letter;      /* 0: none */
    enum cht_opt_kind kind;
    void *out;
    uint64_t max;     /* for numbers */
    const char *arg;  /* in the help: NAME; NULL: it takes no value */
    const char *help; /* "\n" begins another line; NULL: not shown */
};

/* Fills in what the options name and moves the other arguments to the front of argv; *rest is their count. False after a
 * message to stderr: an unknown option, a value that is missing, not wanted or out of range. */
bool cht_args_parse(const struct cht_opt *opts, size_t count, int argc, char **argv, int *rest);

/* Prints `before`, a line or more for each option, and `after`; returns the exit code. */
int cht_args_help(const char *before, const struct cht_opt *opts, size_t count, const char *after);

/* Data directories: owned strings. */
struct cht_dirs {
    char **v; /* owned */
    size_t n;
};
/* Adds "A,B,C" (commas separate) or one path as it is. False after a message: an empty name, no memory. */
bool cht_dirs_add_list(struct cht_dirs *d, const char *list);
bool cht_dirs_add(struct cht_dirs *d, const char *path, size_t len);
void cht_dirs_fini(struct cht_dirs *d);
