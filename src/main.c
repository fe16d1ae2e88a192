/* main: finds the subcommand, runs it, makes sure that what it printed got out. */
#include "base/nearest.h"
#include "os/net.h"
#include "store/pagefile.h"
#include "tools/http_client.h"
#include "tools/tools.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "cheetah-db: values under integer keys, names that lead to them, and a language model of counts\n"
    "\n"
    "  cheetah-db serve [OPTION ...]             the database over HTTP and TCP\n"
    "  cheetah-db put NAME VALUE, get, del NAME  one pair; the value may be stdin\n"
    "  cheetah-db scan, count [PREFIX]           the pairs under a prefix, in order; how many\n"
    "  cheetah-db add NAME BY, changes [PREFIX]  adds to a number; what changed, and changes\n"
    "  cheetah-db ngrams, predict, score, smooth, links, associations  counts; what is likely, and alike\n"
    "  cheetah-db shell [OPTION ...]             commands of the line protocol, typed or piped\n"
    "  cheetah-db stat [NAME], databases (or list)            what they hold; their names\n"
    "  cheetah-db create NAME [--shards N], drop NAME --yes   a new database; deletes one\n"
    "  cheetah-db backup DIR                     a copy of one moment\n"
    "  cheetah-db restore FILE                   a database made of such a copy\n"
    "  cheetah-db export FILE                    a database as lines of JSON\n"
    "  cheetah-db import FILE                    and back; or out of a server of the line protocol\n"
    "  cheetah-db top, health, bench             what a running server is doing; is it ready; how fast\n"
    "  cheetah-db check [DIR ...]                verifies every checksum and reference of stopped data\n"
    "  cheetah-db COMMAND --help | --help, -h | --version, -V\n"
    "\n"
    "  --connect URL   the running server (default: CHEETAH_URL, else " TOOL_CONNECT_DEFAULT ");\n"
    "                  its token: --token-file FILE or CHEETAH_TOKEN\n"
    "  --data A,B,C    in place of it the data directories, all of them, of a server that is stopped\n"
    "  --json          one JSON object a line\n"
    "\n"
    "Exit codes: 0 done; 1 it failed, or check found something; 2 the command line is wrong; 3 damaged.\n";

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
    {"serve", tool_serve},   {"create", tool_create},
    {"list", tool_list},     {"stat", tool_stat},
    {"drop", tool_drop},     {"check", tool_check},
    {"health", tool_health}, {"shell", tool_shell},
    {"backup", tool_backup}, {"restore", tool_restore},
    {"top", tool_top},       {"export", tool_export},
    {"import", tool_import}, {"get", tool_get},
    {"put", tool_put},       {"del", tool_del},
    {"scan", tool_scan},     {"count", tool_count},
    {"add", tool_add},       {"predict", tool_predict},
    {"score", tool_score},   {"ngrams", tool_ngrams},
    {"smooth", tool_smooth}, {"databases", tool_list},
    {"bench", tool_bench},   {"changes", tool_changes},
    {"links", tool_links},   {"associations", tool_associations},
};

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    }
    return NULL;
}

static void tell_unknown(const char *what)
{
    struct cht_nearest near = {.word = what};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        cht_nearest_try(&near, commands[i].name);
    (void)fprintf(stderr, "cheetah-db: unknown command '%.80s'; ", what);
    if (near.best != NULL)
        (void)fprintf(stderr, "did you mean %s? ", near.best);
    (void)fputs("See cheetah-db --help\n", stderr);
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
        tell_unknown(what);
    return TOOL_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    int code = cht_os_begin() ? dispatch(argc, argv) : TOOL_EXIT_FAILED;
    if ((fflush(stdout) != 0 || ferror(stdout) != 0) && code == TOOL_EXIT_OK) {
        (void)fputs("cheetah-db: the output could not be written\n", stderr);
        code = TOOL_EXIT_FAILED;
    }
    return code;
}
