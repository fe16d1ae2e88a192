/* access: see access.h. */
#include "service/access.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "cheetah/store.h"
#include "os/net.h"

#include <stdint.h>
#include <string.h>

#define TOKEN_MIN 1u
#define TOKEN_MAX 256u
#define FILE_MAX (1u << 20)

struct token {
    char text[TOKEN_MAX]; /* padded with zeros */
    size_t len;
    enum right right;
    bool all;
    const char *databases; /* "a,b", borrowed from the file's text */
};

struct access {
    char *text; /* owned: the file */
    size_t count;
    struct token tokens[];
};

static bool parse_right(const char *s, enum right *out)
{
    static const char *const names[] = {"", "read", "write", "admin"};
    for (int i = RIGHT_READ; i <= RIGHT_ADMIN; i++) {
        if (strcmp(s, names[i]) == 0) {
            *out = (enum right)i;
            return true;
        }
    }
    return false;
}

static bool valid_databases(const char *list)
{
    char name[66];
    if (strcmp(list, "*") == 0)
        return true;
    for (;;) {
        size_t n = strcspn(list, ",");
        if (n >= sizeof name)
            return false;
        memcpy(name, list, n);
        name[n] = 0;
        if (!cht_database_name_valid(name))
            return false;
        if (list[n] == 0)
            return true;
        list += n + 1;
    }
}

/* The next word of a line; NULL if there is none. */
static char *word(char **at)
{
    char *p = *at + strspn(*at, " \t\r");
    if (*p == 0)
        return NULL;
    size_t n = strcspn(p, " \t\r");
    *at = p + n + (p[n] != 0);
    p[n] = 0;
    return p;
}

static enum cht_rc parse_line(struct access *a, char *line, unsigned number, struct cht_err *err)
{
    char *text = word(&line);
    if (text == NULL || *text == '#')
        return CHT_OK;
    char *right = word(&line), *databases = word(&line);
    struct token *t = &a->tokens[a->count];
    t->len = strlen(text);
    if (t->len < TOKEN_MIN || t->len > TOKEN_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "token file, line %u: a token has %u to %u characters",
                        number, TOKEN_MIN, TOKEN_MAX);
    if (right == NULL || !parse_right(right, &t->right))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "token file, line %u: the right is read, write or admin",
                        number);
    if (databases == NULL || word(&line) != NULL)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "token file, line %u: expected TOKEN RIGHT DATABASES",
                        number);
    if (!valid_databases(databases))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "token file, line %u: databases are names with commas, or *", number);
    memset(t->text, 0, sizeof t->text);
    memcpy(t->text, text, t->len);
    for (size_t i = 0; i < a->count; i++) {
        if (memcmp(a->tokens[i].text, t->text, TOKEN_MAX) == 0)
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "token file, line %u: the token is there already",
                            number);
    }
    t->all = strcmp(databases, "*") == 0;
    t->databases = databases;
    a->count++;
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc access_load(const char *path, struct access **out, struct cht_err *err)
{
    char *text;
    size_t len, lines = 1;
    enum cht_rc rc = cht_os_read_file(path, FILE_MAX, &text, &len, err);
    if (rc != CHT_OK)
        return rc;
    for (size_t i = 0; i < len; i++)
        lines += text[i] == '\n';
    struct access *a = cht_calloc(1, sizeof *a + lines * sizeof(struct token));
    if (a == NULL) {
        cht_free(text);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the tokens");
    }
    a->text = text;
    unsigned number = 1;
    for (char *line = text; line != NULL && rc == CHT_OK; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end++ = 0;
        rc = parse_line(a, line, number, err);
        line = end;
    }
    if (rc == CHT_OK && a->count == 0)
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the token file %.120s holds no token", path);
    if (rc != CHT_OK) {
        access_free(a);
        return rc;
    }
    *out = a;
    return CHT_OK;
}

void access_free(struct access *a)
{
    if (a == NULL)
        return;
    cht_free(a->text);
    cht_free(a);
}

const struct token *access_find_text(const struct access *a, const char *text, size_t n)
{
    char given[TOKEN_MAX] = {0};
    memcpy(given, text, n < TOKEN_MAX ? n : TOKEN_MAX);
    const struct token *found = NULL;
    for (size_t i = 0; i < a->count; i++) {
        const struct token *t = &a->tokens[i];
        size_t differ = t->len ^ n;
        for (size_t k = 0; k < TOKEN_MAX; k++)
            differ |= (uint8_t)(t->text[k] ^ given[k]);
        found = differ == 0 ? t : found;
    }
    return found;
}

const struct token *access_find(const struct access *a, const char *header)
{
    bool bearer = header != NULL && (CHT_BEGINS(header, "Bearer ") || CHT_BEGINS(header, "bearer "));
    return access_find_text(a, bearer ? header + 7 : "", bearer ? strlen(header + 7) : 0);
}

bool access_has_right(const struct token *t, enum right right) { return t->right >= right; }

bool access_allows(const struct token *t, enum right right, const char *database)
{
    if (!access_has_right(t, right))
        return false;
    size_t n = strlen(database);
    for (const char *p = t->databases; !t->all; p++) {
        if (strncmp(p, database, n) == 0 && (p[n] == 0 || p[n] == ','))
            return true;
        p = strchr(p, ',');
        if (p == NULL)
            return false;
    }
    return true;
}
