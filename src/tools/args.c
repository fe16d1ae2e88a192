/* args: see args.h. Own code, because getopt_long lives in a header of the operating system. */
#include "tools/args.h"

#include "base/alloc.h"
#include "base/nearest.h"
#include "tools/tools.h"

#include <stdio.h>
#include <string.h>

/* The option an argument names; *value is what stands after '=', NULL if nothing does. */
static const struct tool_opt *find_option(const struct tool_opt *opts, size_t count, const char *arg,
                                          const char **value)
{
    *value = NULL;
    if (arg[1] != '-') {
        for (size_t i = 0; i < count; i++) {
            if (opts[i].letter != 0 && arg[1] == opts[i].letter && arg[2] == 0)
                return &opts[i];
        }
        return NULL;
    }
    const char *eq = strchr(arg, '=');
    size_t n = eq == NULL ? strlen(arg + 2) : (size_t)(eq - arg) - 2;
    for (size_t i = 0; i < count; i++) {
        if (opts[i].name != NULL && strlen(opts[i].name) == n && memcmp(opts[i].name, arg + 2, n) == 0) {
            *value = eq == NULL ? NULL : eq + 1;
            return &opts[i];
        }
    }
    return NULL;
}

/* What is no option, and the one that it may have been meant to be. */
static void tell_unknown(const struct tool_opt *opts, size_t count, const char *arg)
{
    char word[80];
    (void)snprintf(word, sizeof word, "%.*s", (int)strcspn(arg, "="), arg[1] == '-' ? arg + 2 : arg + 1);
    word[strcspn(word, "=")] = 0;
    struct cht_nearest near = {.word = word};
    for (size_t i = 0; i < count; i++) {
        if (opts[i].name != NULL)
            cht_nearest_try(&near, opts[i].name);
    }
    (void)fprintf(stderr, "cheetah-db: unknown option '%.80s'", arg);
    if (near.best != NULL)
        (void)fprintf(stderr, "; did you mean --%s?", near.best);
    (void)fputc('\n', stderr);
}

/* Digits only: no sign, no space, nothing after. */
static bool parse_number(const char *s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (*s == 0)
        return false;
    for (; *s != 0; s++) {
        if (*s < '0' || *s > '9')
            return false;
        uint64_t digit = (uint64_t)(*s - '0');
        if (v > (max - digit) / 10 || digit > max)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return v >= 1;
}

static bool add_value(const struct tool_opt *o, const char *value)
{
    struct tool_opt_list *l = o->out;
    if (l->n == TOOL_OPT_LIST_MAX) {
        (void)fprintf(stderr, "cheetah-db: --%s is given more than %u times\n", o->name, TOOL_OPT_LIST_MAX);
        return false;
    }
    l->v[l->n++] = value;
    return true;
}

static bool set_option(const struct tool_opt *o, const char *value)
{
    switch (o->kind) {
    case TOOL_OPT_FLAG:
        *(bool *)o->out = true;
        break;
    case TOOL_OPT_STRING:
        *(const char **)o->out = value;
        break;
    case TOOL_OPT_LIST:
        return add_value(o, value);
    case TOOL_OPT_NUMBER:
        if (!parse_number(value, o->max, o->out)) {
            (void)fprintf(stderr, "cheetah-db: --%s '%.80s': a number from 1 to %llu is wanted\n", o->name,
                          value, (unsigned long long)o->max);
            return false;
        }
        break;
    }
    return true;
}

/* "  --name ARG", padded to where the texts begin; lines of a text after the first stand under it. */
static void print_option(const struct tool_opt *o, int width)
{
    const char *line = o->help;
    int n = printf("  --%s%s%s", o->name, o->arg != NULL ? " " : "", o->arg != NULL ? o->arg : "");
    for (bool first = true; *line != 0; first = false) {
        size_t len = strcspn(line, "\n");
        (void)printf("%*s%.*s\n", first ? width - n : width, "", (int)len, line);
        line += len + (line[len] != 0);
    }
}

/* -------------------------------------------------------------------------------------------------------------- */

int tool_args_help(const char *before, const struct tool_opt *opts, size_t count, const char *after)
{
    size_t width = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = opts[i].name != NULL && opts[i].help != NULL
                       ? strlen(opts[i].name) + (opts[i].arg != NULL ? strlen(opts[i].arg) + 1 : 0)
                       : 0;
        width = n > width ? n : width;
    }
    (void)fputs(before, stdout);
    for (size_t i = 0; i < count; i++) {
        if (opts[i].name == NULL)
            (void)printf("%s\n", opts[i].help);
        else if (opts[i].help != NULL)
            print_option(&opts[i], (int)width + 6);
    }
    return fputs(after, stdout) < 0 ? TOOL_EXIT_FAILED : TOOL_EXIT_OK; /* main looks at the whole of stdout */
}

bool tool_args_parse(const struct tool_opt *opts, size_t count, int argc, char **argv, int *rest)
{
    bool options = true;
    *rest = 0;
    for (int i = 0; i < argc; i++) {
        const char *value;
        bool number = argv[i][0] == '-' && argv[i][1] >= '0' && argv[i][1] <= '9'; /* no option's letter */
        if (!options || argv[i][0] != '-' || argv[i][1] == 0 || number) {
            argv[(*rest)++] = argv[i];
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            options = false;
            continue;
        }
        const struct tool_opt *o = find_option(opts, count, argv[i], &value);
        if (o == NULL) {
            tell_unknown(opts, count, argv[i]);
            return false;
        }
        if (o->kind == TOOL_OPT_FLAG && value != NULL) {
            (void)fprintf(stderr, "cheetah-db: --%s takes no value\n", o->name);
            return false;
        }
        if (o->kind != TOOL_OPT_FLAG && value == NULL && i + 1 < argc)
            value = argv[++i];
        if (o->kind != TOOL_OPT_FLAG && value == NULL) {
            (void)fprintf(stderr, "cheetah-db: --%s needs a value\n", o->name);
            return false;
        }
        if (!set_option(o, value))
            return false;
    }
    return true;
}

bool tool_dirs_add(struct tool_dirs *d, const char *path, size_t len)
{
    if (len == 0) {
        (void)fprintf(stderr, "cheetah-db: the name of a data directory is empty\n");
        return false;
    }
    char **v = cht_realloc(d->v, (d->n + 1) * sizeof *v);
    char *copy = cht_malloc(len + 1);
    if (v != NULL)
        d->v = v;
    if (v == NULL || copy == NULL) {
        cht_free(copy);
        (void)fprintf(stderr, "cheetah-db: no memory\n");
        return false;
    }
    memcpy(copy, path, len);
    copy[len] = 0;
    v[d->n++] = copy;
    return true;
}

bool tool_dirs_add_list(struct tool_dirs *d, const char *list)
{
    for (;;) {
        size_t n = strcspn(list, ",");
        if (!tool_dirs_add(d, list, n))
            return false;
        if (list[n] == 0)
            return true;
        list += n + 1;
    }
}

void tool_dirs_fini(struct tool_dirs *d)
{
    for (size_t i = 0; i < d->n; i++)
        cht_free(d->v[i]);
    cht_free(d->v);
    *d = (struct tool_dirs){NULL, 0};
}
