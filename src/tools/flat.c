/* flat: see flat.h. */
#include "tools/flat.h"

#include "base/literal.h"

#include <string.h>

struct text {
    const char *p, *end;
};

static void blanks(struct text *t)
{
    while (t->p < t->end && (*t->p == ' ' || *t->p == '\t' || *t->p == '\r'))
        t->p++;
}

static bool take(struct text *t, char c)
{
    blanks(t);
    if (t->p == t->end || *t->p != c)
        return false;
    t->p++;
    return true;
}

/* After the opening quote. */
static bool string(struct text *t, const char **p, size_t *n, bool *escaped)
{
    const char *start = t->p;
    *escaped = false;
    for (;;) {
        const char *quote = memchr(t->p, '"', (size_t)(t->end - t->p));
        if (quote == NULL)
            return false;
        size_t slashes = 0;
        while (quote - slashes > start && quote[-1 - (ptrdiff_t)slashes] == '\\')
            slashes++;
        t->p = quote + 1;
        if (slashes % 2 != 0)
            continue;
        *p = start;
        *n = (size_t)(quote - start);
        *escaped = memchr(start, '\\', *n) != NULL;
        return true;
    }
}

/* An object or array, by counting brackets outside of strings. */
static bool nested(struct text *t)
{
    unsigned depth = 0;
    while (t->p < t->end) {
        char c = *t->p++;
        const char *p;
        size_t n;
        bool escaped;
        if (c == '"' && !string(t, &p, &n, &escaped))
            return false;
        if (c == '{' || c == '[')
            depth++;
        if ((c == '}' || c == ']') && --depth == 0)
            return true;
    }
    return false;
}

/* All of them characters that numbers have. The text may end with it, so no function that looks for a NUL will do. */
static bool numeric(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && ((p[i] >= '0' && p[i] <= '9') || p[i] == '+' || p[i] == '-' || p[i] == '.' ||
                     p[i] == 'e' || p[i] == 'E'))
        i++;
    return n > 0 && i == n;
}

static void number(struct tool_flat_field *f)
{
    uint64_t v = 0;
    f->number = UINT64_MAX;
    if (f->n > 1 && f->p[0] == '0')
        return;
    for (size_t i = 0; i < f->n; i++) {
        if (f->p[i] < '0' || f->p[i] > '9' || v > (UINT64_MAX - 9) / 10)
            return;
        v = v * 10 + (uint64_t)(f->p[i] - '0');
    }
    f->number = v;
}

static bool value(struct text *t, struct tool_flat_field *f)
{
    blanks(t);
    f->p = t->p;
    if (take(t, '"')) {
        f->kind = TOOL_FLAT_STRING;
        return string(t, &f->p, &f->n, &f->escaped);
    }
    if (t->p < t->end && (*t->p == '{' || *t->p == '[')) {
        f->kind = TOOL_FLAT_NESTED;
        if (!nested(t))
            return false;
        f->n = (size_t)(t->p - f->p);
        return true;
    }
    while (t->p < t->end && strchr(",} \t\r", *t->p) == NULL)
        t->p++;
    f->n = (size_t)(t->p - f->p);
    f->kind = TOOL_FLAT_WORD;
    if (CHT_IS(f->p, f->n, "true") || CHT_IS(f->p, f->n, "null") || CHT_IS(f->p, f->n, "false"))
        return true;
    f->kind = TOOL_FLAT_NUMBER;
    if (!numeric(f->p, f->n))
        return false;
    number(f);
    return true;
}

static bool known(const struct tool_flat *f, const struct tool_flat_field *new)
{
    for (size_t i = 0; i < f->n; i++) {
        if (f->field[i].name_n == new->name_n && memcmp(f->field[i].name, new->name, new->name_n) == 0)
            return true;
    }
    return false;
}

/* ---------------------------------------------------------------------------------------------------------------- */

bool tool_flat_parse(struct tool_flat *f, const char *p, size_t n)
{
    struct text t = {p, p + n};
    f->n = 0;
    if (memchr(p, 0, n) != NULL || !take(&t, '{'))
        return false;
    bool more = !take(&t, '}');
    while (more) {
        bool escaped;
        if (f->n == TOOL_FLAT_MAX)
            return false;
        struct tool_flat_field *x = &f->field[f->n];
        *x = (struct tool_flat_field){.number = UINT64_MAX};
        if (!take(&t, '"') || !string(&t, &x->name, &x->name_n, &escaped) || !take(&t, ':') ||
            !value(&t, x) || known(f, x))
            return false;
        f->n++;
        more = take(&t, ',');
        if (!more && !take(&t, '}'))
            return false;
    }
    blanks(&t);
    return t.p == t.end;
}

const struct tool_flat_field *tool_flat_get(const struct tool_flat *f, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < f->n; i++) {
        if (f->field[i].name_n == n && memcmp(f->field[i].name, name, n) == 0)
            return &f->field[i];
    }
    return NULL;
}

bool tool_flat_string(const struct tool_flat *f, const char *name, const char **p, size_t *n)
{
    const struct tool_flat_field *x = tool_flat_get(f, name);
    if (x == NULL || x->kind != TOOL_FLAT_STRING || x->escaped)
        return false;
    *p = x->p;
    *n = x->n;
    return true;
}

bool tool_flat_number(const struct tool_flat *f, const char *name, uint64_t *out)
{
    const struct tool_flat_field *x = tool_flat_get(f, name);
    if (x == NULL || x->kind != TOOL_FLAT_NUMBER || x->number == UINT64_MAX)
        return false;
    *out = x->number;
    return true;
}
