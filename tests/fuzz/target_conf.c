/* conf: the configuration file, and what is on the command line and in the environment. Input: the file, and after an empty line one
 * argument a line. What is printed of a configuration that was taken is a file that is taken, and prints the same. */
#include "fuzz/fuzz.h"

#include "base/literal.h"
#include "conf/conf.h"

enum { ARGS = 8 };
static char environment[200];

static const char *get_environment(const char *name)
{
    return strcmp(name, "CHEETAH_SHARDS") == 0 && environment[0] != 0 ? environment : NULL;
}

static const char *no_environment(const char *name)
{
    (void)name;
    return NULL;
}

static size_t print(const struct conf *c, char *out, size_t cap)
{
    FILE *f = fmemopen(out, cap, "w");
    FUZZ_CHECK(f != NULL);
    conf_print(c, f);
    FUZZ_CHECK(fflush(f) == 0);
    long n = ftell(f);
    (void)fclose(f);
    FUZZ_CHECK(n > 0 && (size_t)n < cap - 1);
    return (size_t)n;
}

/* The values, without where they came from, and without the name of the file, which is the last: each line ends before its '#'. */
static void values_only(char *text)
{
    char *last = strstr(text, "\nconfig ="), *to = text;
    FUZZ_CHECK(last != NULL && strchr(last + 1, '\n')[1] == 0);
    last[1] = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        char *hash = end;
        while (hash > line && *hash != '#')
            hash--;
        memmove(to, line, (size_t)(hash - line));
        to += hash - line;
        *to++ = '\n';
    }
    *to = 0;
}

static void again(const struct conf *c)
{
    static char first[1 << 16], second[1 << 16];
    struct conf d;
    struct cht_err err = {0};
    if (c->print || c->help)
        return;
    memset(first, 0, sizeof first);
    memset(second, 0, sizeof second);
    size_t n = print(c, first, sizeof first);
    if (CHT_BEGINS(first, "# not for a file") || strstr(first, "\n# not for a file") != NULL)
        return;
    char path[64], option[] = "--config";
    (void)snprintf(path, sizeof path, "%s", fuzz_file(first, n));
    char *argv[] = {option, path};
    fuzz_must(conf_read(&d, 2, argv, no_environment, &err), &err);
    (void)print(&d, second, sizeof second);
    values_only(first);
    values_only(second);
    if (strcmp(first, second) != 0)
        (void)fprintf(stderr, "%s\n%s\n", first, second);
    FUZZ_CHECK(strcmp(first, second) == 0);
    conf_fini(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *p = (const char *)data, *cut = n >= 2 ? memmem(p, n, CHT_LITERAL("\n\n")) : NULL;
    size_t file = cut != NULL ? (size_t)(cut - p) + 1 : n;
    char *args = malloc(n - file + 1), path[64], option[] = "--config", *argv[ARGS + 2] = {option, path};
    struct conf c;
    struct cht_err err = {0};
    int argc = 2;
    FUZZ_CHECK(args != NULL);
    (void)snprintf(path, sizeof path, "%s", fuzz_file(data, file));
    memcpy(args, data + file, n - file);
    args[n - file] = 0;
    environment[0] = 0;
    for (char *a = strtok(args, "\n"); a != NULL && argc < ARGS + 2; a = strtok(NULL, "\n")) {
        if (CHT_BEGINS(a, "env="))
            (void)snprintf(environment, sizeof environment, "%s", strchr(a, '=') + 1);
        else
            argv[argc++] = a;
    }
    enum cht_rc rc = conf_read(&c, argc, argv, get_environment, &err);
    FUZZ_CHECK(rc == CHT_OK || (rc != CHT_NO_MEMORY && err.msg[0] != 0));
    if (rc == CHT_OK)
        again(&c);
    conf_fini(&c);
    free(args);
    return 0;
}
