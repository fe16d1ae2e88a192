/* main: finds the subcommand, runs it, makes sure that what it printed got out. */
#include "store/pagefile.h"
#include "tools/tools.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "cheetah-db: values under integer keys, and names that lead to them\n"
    "\n"
    "  cheetah-db serve [OPTION ...]            the database over HTTP and TCP\n"
    "  cheetah-db shell [OPTION ...]            commands of the line protocol, typed or piped\n"
    "  cheetah-db create NAME [--shards N]      a new database; N is 1 to 256, 8 if not said\n"
    "  cheetah-db list [--json]                 the names of the databases\n"
    "  cheetah-db drop NAME --yes               deletes a database and its files\n"
    "  cheetah-db stat [NAME] [OPTION ...]      what databases hold, in a running server or a stopped one\n"
    "  cheetah-db top [OPTION ...]              what a running server is doing, live\n"
    "  cheetah-db health [OPTION ...]           exit code 0 if a server is ready\n"
    "  cheetah-db check [DIR ...] [OPTION ...]  verifies every checksum, structure and reference\n"
    "  cheetah-db backup DIR [OPTION ...]       a copy of one moment from a running server\n"
    "  cheetah-db restore FILE [OPTION ...]     a database made of such a copy\n"
    "  cheetah-db export FILE [OPTION ...]      a database as lines of JSON\n"
    "  cheetah-db import FILE [OPTION ...]      and back; or out of a server of the line protocol\n"
    "  cheetah-db COMMAND --help | --help, -h | --version, -V\n"
    "\n"
    "  --data A,B,C    the data directories, all of them, in any order but the first: new databases\n"
    "                  keep their manifest and log there (default " TOOL_DATA_DEFAULT ")\n"
    "  --json          one JSON object a line\n"
    "\n"
    "The directories must not be in use by a server. Exit codes: 0 done; 1 it failed, or check found\n"
    "something; 2 the command line is wrong; 3 stored data is damaged.\n";

static int print_version(void)
{
    (void)printf("cheetah-db %s (%s, %s), disk format %u\n", CHEETAH_VERSION, CHEETAH_BUILD, __VERSION__,
                 CHT_FORMAT_VERSION);
    return TOOL_EXIT_OK;
}

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"serve", tool_serve},   {"create", tool_create},   {"list", tool_list},     {"stat", tool_stat},
    {"drop", tool_drop},     {"check", tool_check},     {"health", tool_health}, {"shell", tool_shell},
    {"backup", tool_backup}, {"restore", tool_restore}, {"top", tool_top},       {"export", tool_export},
    {"import", tool_import},
};

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    }
    return NULL;
}

static int dispatch(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    const struct command *c = find(what);
    for (int i = 1; i < argc && c == NULL && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return fputs(help, stdout) < 0 ? TOOL_EXIT_FAILED : TOOL_EXIT_OK;
    }
    if (strcmp(what, "--version") == 0 || strcmp(what, "-V") == 0)
        return print_version();
    if (c != NULL)
        return c->run(argc - 2, argv + 2);
    if (argc < 2)
        (void)fputs(help, stderr);
    else
        (void)fprintf(stderr, "cheetah-db: unknown command '%.80s'; see cheetah-db --help\n", what);
    return TOOL_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    int code = dispatch(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout) != 0) && code == TOOL_EXIT_OK) {
        (void)fputs("cheetah-db: the output could not be written\n", stderr);
        code = TOOL_EXIT_FAILED;
    }
    return code;
}
