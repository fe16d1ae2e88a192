/* access: see access.h. */
#include "service/access.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"
#include "cheetah/store.h"
#include "os/net.h"

#include <stdint.h>
#include <string.h>

#define TOKEN_MIN 16u
#define TOKEN_MAX 256u
#define FILE_MAX (1u << 20)
#define NANOS UINT64_C(1000000000)

/* What a client shows. */
enum kind { KIND_TOKEN, KIND_NAME, KIND_CERTIFICATE };

struct svc_token {
    uint8_t hash[CHT_SHA256_BYTES]; /* of the token, the common name, the certificate */
    enum kind kind;
    uint64_t expires; /* ns since 1970; 0: never */
    const struct svc_access *table;
    enum svc_right right;
    bool all;
    const char *databases; /* "a,b", borrowed from the file's text */
};

struct svc_access {
    char *text; /* owned: the file, without its tokens */
    bool secrets;
    size_t count;
    struct svc_token tokens[];
};

static bool parse_right(const char *s, enum svc_right *out)
{
    static const char *const names[] = {"", "read", "write", "admin"};
    for (int i = SVC_RIGHT_READ; i <= SVC_RIGHT_ADMIN; i++) {
        if (strcmp(s, names[i]) == 0) {
            *out = (enum svc_right)i;
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

static unsigned hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    char low = (char)(c | 0x20);
    return low >= 'a' && low <= 'f' ? (unsigned)(low - 'a' + 10) : 16;
}

/* 64 hexadecimal digits and nothing else; with `colons` one may stand between two bytes. */
static bool parse_hash(const char *s, bool colons, uint8_t *hash)
{
    for (size_t i = 0; i < CHT_SHA256_BYTES; i++) {
        if (colons && i > 0 && *s == ':')
            s++;
        unsigned high = hex_digit(s[0]), low = high < 16 ? hex_digit(s[1]) : 16;
        if (low > 15)
            return false;
        hash[i] = (uint8_t)(high << 4 | low);
        s += 2;
    }
    return *s == 0;
}

static bool has_controls(const char *s)
{
    for (; *s != 0; s++) {
        if ((uint8_t)*s < 0x20 || *s == 0x7F)
            return true;
    }
    return false;
}

/* After "cert:": the name, or the hash of the certificate. Nothing of it is secret. */
static enum cht_rc parse_certificate(const char *text, struct svc_token *t, unsigned number,
                                     struct cht_err *err)
{
    size_t n = strlen(text);
    if (CHT_BEGINS(text, "sha256:")) {
        t->kind = KIND_CERTIFICATE;
        return parse_hash(text + sizeof "sha256:" - 1, true, t->hash)
                   ? CHT_OK
                   : CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                              "token file, line %u: cert:sha256: wants 64 hexadecimal digits", number);
    }
    if (n == 0 || n > TOKEN_MAX || has_controls(text))
        return CHT_FAIL(
            err, CHT_INVALID_ARGUMENT,
            "token file, line %u: cert: wants a common name of 1 to %u characters, or sha256: and a hash",
            number, TOKEN_MAX);
    t->kind = KIND_NAME;
    cht_sha256(text, n, t->hash);
    return CHT_OK;
}

/* The hash of a token, or the one that stands in its place. The text is wiped. */
static enum cht_rc parse_token(struct svc_access *a, char *text, struct svc_token *t, unsigned number,
                               struct cht_err *err)
{
    size_t n = strlen(text);
    if (CHT_BEGINS(text, "cert:"))
        return parse_certificate(text + sizeof "cert:" - 1, t, number, err);
    if (CHT_BEGINS(text, "sha256:"))
        return parse_hash(text + sizeof "sha256:" - 1, false, t->hash)
                   ? CHT_OK
                   : CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                              "token file, line %u: sha256: wants 64 hexadecimal digits", number);
    if (n < TOKEN_MIN || n > TOKEN_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "token file, line %u: a token has %u to %u characters",
                        number, TOKEN_MIN, TOKEN_MAX);
    if (has_controls(text))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "token file, line %u: a token has no control characters",
                        number);
    cht_sha256(text, n, t->hash);
    memset(text, 0, n);
    a->secrets = true;
    return CHT_OK;
}

/* Digits alone; false if there is another character. */
static bool take_digits(const char *s, unsigned n, unsigned *out)
{
    *out = 0;
    for (unsigned i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *out = *out * 10 + (unsigned)(s[i] - '0');
    }
    return true;
}

/* YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ to ns since 1970. */
static bool parse_time(const char *s, uint64_t *ns)
{
    static const uint8_t days_of[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned year, month, day, hour = 0, minute = 0, second = 0;
    size_t n = strlen(s);
    if ((n != 10 && n != 20) || !take_digits(s, 4, &year) || s[4] != '-' || !take_digits(s + 5, 2, &month) ||
        s[7] != '-' || !take_digits(s + 8, 2, &day))
        return false;
    if (n == 20 &&
        (s[10] != 'T' || !take_digits(s + 11, 2, &hour) || s[13] != ':' || !take_digits(s + 14, 2, &minute) ||
         s[16] != ':' || !take_digits(s + 17, 2, &second) || s[19] != 'Z'))
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (year < 1971 || year > 2500 || month < 1 || month > 12 || day < 1 ||
        day > days_of[month - 1] + (month == 2 && leap ? 1u : 0u) || hour > 23 || minute > 59 || second > 59)
        return false;
    uint64_t days = 365 * (uint64_t)(year - 1970);
    for (unsigned y = 1970; y < year; y++)
        days += (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    for (unsigned m = 1; m < month; m++)
        days += days_of[m - 1] + (m == 2 && leap ? 1u : 0u);
    *ns = ((days + day - 1) * 86400 + hour * 3600 + minute * 60 + second) * NANOS;
    return true;
}

static bool same_hash(const uint8_t *a, const uint8_t *b)
{
    unsigned differ = 0;
    for (size_t i = 0; i < CHT_SHA256_BYTES; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}

static enum cht_rc parse_line(struct svc_access *a, char *line, unsigned number, struct cht_err *err)
{
    static const char expires[] = "expires=";
    char *text = word(&line);
    if (text == NULL || *text == '#')
        return CHT_OK;
    char *right = word(&line), *databases = word(&line), *until = word(&line);
    struct svc_token *t = &a->tokens[a->count];
    enum cht_rc rc = parse_token(a, text, t, number, err);
    if (rc != CHT_OK)
        return rc;
    if (right == NULL || !parse_right(right, &t->right))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "token file, line %u: the right is read, write or admin",
                        number);
    if (databases == NULL || (until != NULL && strncmp(until, expires, sizeof expires - 1) != 0) ||
        word(&line) != NULL)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "token file, line %u: expected TOKEN RIGHT DATABASES [expires=TIME]", number);
    if (!valid_databases(databases))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "token file, line %u: databases are names with commas, or *", number);
    if (until != NULL && !parse_time(until + sizeof expires - 1, &t->expires))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "token file, line %u: expires= wants 2027-01-31 or 2027-01-31T08:30:00Z", number);
    for (size_t i = 0; i < a->count; i++) {
        if (a->tokens[i].kind == t->kind && same_hash(a->tokens[i].hash, t->hash))
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "token file, line %u: the token is there already",
                            number);
    }
    t->all = strcmp(databases, "*") == 0;
    t->databases = databases;
    t->table = a;
    a->count++;
    return CHT_OK;
}

/* What an editor leaves that is no text: all after a zero would be silently left out, and with a mark before it the first token
 * would be another one. */
static enum cht_rc check_text(const char *text, size_t len, struct cht_err *err)
{
    static const char *const marks[] = {"\xEF\xBB\xBF", "\xFF\xFE", "\xFE\xFF"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (strncmp(text, marks[i], strlen(marks[i])) == 0)
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                            "the token file begins with a byte order mark: save it without");
    }
    unsigned number = 1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == 0)
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "token file, line %u: a zero byte", number);
        number += text[i] == '\n';
    }
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc svc_access_load(const char *path, struct svc_access **out, struct cht_err *err)
{
    char *text;
    size_t len, lines = 1;
    enum cht_rc rc = cht_os_read_file(path, FILE_MAX, &text, &len, err);
    if (rc != CHT_OK)
        return rc;
    for (size_t i = 0; i < len; i++)
        lines += text[i] == '\n';
    struct svc_access *a = cht_calloc(1, sizeof *a + lines * sizeof(struct svc_token));
    if (a == NULL) {
        cht_free(text);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the tokens");
    }
    a->text = text;
    rc = check_text(text, len, err);
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
        svc_access_free(a);
        return rc;
    }
    *out = a;
    return CHT_OK;
}

void svc_access_free(struct svc_access *a)
{
    if (a == NULL)
        return;
    cht_free(a->text);
    cht_free(a);
}

bool svc_access_has_secrets(const struct svc_access *a) { return a->secrets; }

bool svc_access_expired(const struct svc_token *t) { return t->expires != 0 && cht_wall_ns() >= t->expires; }

static const struct svc_token *find_hash(const struct svc_access *a, enum kind kind, const uint8_t *hash)
{
    const struct svc_token *found = NULL;
    for (size_t i = 0; i < a->count; i++)
        found = same_hash(a->tokens[i].hash, hash) && a->tokens[i].kind == kind ? &a->tokens[i] : found;
    return found != NULL && !svc_access_expired(found) ? found : NULL;
}

const struct svc_token *svc_access_find_text(const struct svc_access *a, const char *text, size_t n)
{
    uint8_t hash[CHT_SHA256_BYTES];
    cht_sha256(text, n, hash);
    return find_hash(a, KIND_TOKEN, hash);
}

bool svc_access_certificate_over(const struct svc_access_certificate *c)
{
    return cht_wall_ns() >= c->expires || (c->revoked != NULL && svc_revoked_has(c->revoked, &c->id));
}

const struct svc_token *svc_access_find_certificate(const struct svc_access *a,
                                                    const struct svc_access_certificate *c)
{
    if (svc_access_certificate_over(c))
        return NULL;
    const struct svc_token *t = find_hash(a, KIND_CERTIFICATE, c->fingerprint);
    return t != NULL || !c->named ? t : find_hash(a, KIND_NAME, c->name);
}

const struct svc_token *svc_access_again(const struct svc_access *a, const struct svc_token *t)
{
    if (t->table == a) /* mostly */
        return svc_access_expired(t) ? NULL : t;
    return find_hash(a, t->kind, t->hash);
}

const struct svc_token *svc_access_find(const struct svc_access *a, const char *header)
{
    static const char scheme[] = "bearer";
    size_t at = 0;
    while (header != NULL && scheme[at] != 0 && (header[at] | 0x20) == scheme[at])
        at++;
    bool bearer = header != NULL && scheme[at] == 0 && (header[at] == ' ' || header[at] == '\t');
    const char *text = bearer ? header + at + strspn(header + at, " \t") : "";
    size_t n = strlen(text);
    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t'))
        n--;
    return svc_access_find_text(a, text, n);
}

enum svc_right svc_access_right(const struct svc_token *t) { return t->right; }

bool svc_access_all(const struct svc_token *t) { return t->all; }

void svc_access_databases(const struct svc_token *t, void (*each)(void *ctx, const char *name, size_t n),
                          void *ctx)
{
    for (const char *p = t->databases; !t->all && *p != 0;) {
        size_t n = strcspn(p, ",");
        each(ctx, p, n);
        p += n + (p[n] == ',');
    }
}

bool svc_access_has_right(const struct svc_token *t, enum svc_right right) { return t->right >= right; }

bool svc_access_allows(const struct svc_token *t, enum svc_right right, const char *database)
{
    if (!svc_access_has_right(t, right))
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
