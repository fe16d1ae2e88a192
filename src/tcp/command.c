/* command: see command.h. */
#include "tcp/command.h"

#include "tcp/words.h"

#include <string.h>

#define R (LINE_CHECKED | LINE_OPENS)
#define V (R | LINE_WRITES)

static const struct {
    const char *name;
    unsigned traits;
} verbs[LINE_VERBS] = {
    [LINE_NONE] = {"unknown", 0},
    [LINE_INSERT] = {"INSERT", V},
    [LINE_READ] = {"READ", R},
    [LINE_EDIT] = {"EDIT", V},
    [LINE_DELETE] = {"DELETE", V},
    [LINE_PAIR_SET] = {"PAIR_SET", V},
    [LINE_PAIR_GET] = {"PAIR_GET", R},
    [LINE_PAIR_DEL] = {"PAIR_DEL", V},
    [LINE_PAIR_SCAN] = {"PAIR_SCAN", R},
    [LINE_PAIR_REDUCE] = {"PAIR_REDUCE", R},
    [LINE_PAIR_SUMMARY] = {"PAIR_SUMMARY", R | LINE_LONG},
    [LINE_PAIR_SET_HIDDEN] = {"PAIR_SET_HIDDEN", V},
    [LINE_PAIR_ADD] = {"PAIR_ADD", V},
    [LINE_PAIR_COUNTS_ADD] = {"PAIR_COUNTS_ADD", V},
    [LINE_PAIR_PUT_BATCH] = {"PAIR_PUT_BATCH", V | LINE_WORDS},
    [LINE_PAIR_PURGE] = {"PAIR_PURGE", V | LINE_LONG},
    [LINE_DEL] = {"DEL", V | LINE_WORDS | LINE_LONG},
    [LINE_NGRAMS] = {"NGRAMS", V | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT] = {"PREDICT", R | LINE_WORDS | LINE_LONG},
    [LINE_SCORE] = {"SCORE", R | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_SET] = {"PREDICT_SET", V | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_QUERY] = {"PREDICT_QUERY", R | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_TRAIN] = {"PREDICT_TRAIN", V | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_CTX] = {"PREDICT_CTX", V | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_INHERIT] = {"PREDICT_INHERIT", V | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_BACKEND] = {"PREDICT_BACKEND", R | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_BENCH] = {"PREDICT_BENCH", R | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_INHERIT_BATCH] = {"PREDICT_INHERIT_BATCH", V | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_INHERIT_ASYNC] = {"PREDICT_INHERIT_ASYNC", LINE_CHECKED | LINE_WORDS | LINE_LONG},
    [LINE_PREDICT_INHERIT_STATUS] = {"PREDICT_INHERIT_STATUS", LINE_CHECKED | LINE_WORDS},
    [LINE_PREDICT_INHERIT_FETCH] = {"PREDICT_INHERIT_FETCH", LINE_CHECKED | LINE_WORDS},
    [LINE_PAIR_REDUCE_ASYNC] = {"PAIR_REDUCE_ASYNC", LINE_CHECKED | LINE_WORDS | LINE_LONG},
    [LINE_PAIR_REDUCE_STATUS] = {"PAIR_REDUCE_STATUS", LINE_CHECKED | LINE_WORDS},
    [LINE_PAIR_REDUCE_FETCH] = {"PAIR_REDUCE_FETCH", LINE_CHECKED | LINE_WORDS},
    [LINE_BATCH] = {"BATCH", LINE_CHECKED | LINE_WORDS | LINE_LONG},
    [LINE_JOB] = {"JOB", LINE_CHECKED | LINE_WORDS | LINE_LONG},
    [LINE_FILE_CHECKPOINT] = {"FILE_CHECKPOINT", R | LINE_WORDS | LINE_LONG | LINE_ADMIN},
    [LINE_SYSTEM_STATS] = {"SYSTEM_STATS", LINE_CHECKED},
    [LINE_LOG_FLUSH] = {"LOG_FLUSH", LINE_CHECKED | LINE_WORDS | LINE_ADMIN},
    [LINE_DATABASE] = {"DATABASE", LINE_WORDS},
    [LINE_RESET_DB] = {"RESET_DB", LINE_WORDS | LINE_LONG | LINE_ADMIN},
    [LINE_DB_CREATE] = {"DB_CREATE", LINE_WORDS | LINE_LONG | LINE_ADMIN},
    [LINE_DB_CONFIG] = {"DB_CONFIG", LINE_WORDS | LINE_LONG},
    [LINE_DB_LIST] = {"DB_LIST", LINE_LONG},
    [LINE_DURABILITY] = {"DURABILITY", LINE_WORDS},
    [LINE_AUTH] = {"AUTH", 0},
    [LINE_EXIT] = {"EXIT", 0},
};

#undef R
#undef V

struct cursor {
    char *line, *p, *end;
};

static bool same_word(const char *p, size_t n, const char *name)
{
    if (strlen(name) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = p[i] >= 'a' && p[i] <= 'z' ? (char)(p[i] - 'a' + 'A') : p[i];
        if (c != name[i])
            return false;
    }
    return true;
}

static enum line_verb find(const char *p, size_t n)
{
    for (int c = LINE_INSERT; c < LINE_VERBS; c++) {
        if (same_word(p, n, verbs[c].name))
            return (enum line_verb)c;
    }
    return LINE_NONE;
}

/* The next argument; n == 0 if there is none. */
static struct cht_str word(struct cursor *c)
{
    while (c->p < c->end && *c->p == ' ')
        c->p++;
    char *start = c->p;
    while (c->p < c->end && *c->p != ' ')
        c->p++;
    return (struct cht_str){.p = (uint8_t *)start, .n = (size_t)(c->p - start)};
}

static bool digits(struct cht_str s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        if (digit > max || v > (max - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return s.n > 0;
}

/* The bytes that an argument means, decoded where it stands. NULL, or the error. */
static const char *byte_string(const struct cursor *c, struct cht_str in, struct cht_str *out)
{
    uint8_t *to = (uint8_t *)c->line + (in.n > 0 ? (const char *)in.p - c->line : 0); /* p may be NULL */
    if (in.n == 1 && in.p[0] == '*')
        in.n = 0;
    if (!line_bytes(to, in, out))
        return "invalid_hex";
    return out->n > CHT_NAME_MAX ? "invalid_pair" : NULL;
}

static const char *take_key(struct cursor *c, uint64_t *key)
{
    return digits(word(c), CHT_KEY_MAX, key) && *key > 0 ? NULL : "invalid_key_format";
}

static const char *take_pair(struct cursor *c, struct cht_str *out)
{
    const char *error = byte_string(c, word(c), out);
    if (error != NULL)
        return error;
    return out->n == 0 ? "pair_value_cannot_be_empty" : NULL;
}

/* The same of PAIR_SET_HIDDEN, whose errors have words of their own. */
static const char *take_hidden_pair(struct cursor *c, struct line_command *out)
{
    struct cht_str pair = word(c), key = word(c);
    if (key.n == 0)
        return "pair_set_requires_value_and_key";
    const char *error = byte_string(c, pair, &out->name);
    if (error != NULL)
        return error;
    if (!digits(key, CHT_KEY_MAX, &out->key) || out->key == 0)
        return "invalid_absolute_key_format";
    return out->name.n == 0 ? "pair_value_cannot_be_empty" : NULL;
}

static const char *finish(struct cursor *c) { return word(c).n > 0 ? "too_many_arguments" : NULL; }

/* The value: after one blank all that is left. `cr`: a \r stands after the end, and belongs to the value only if its size
 * says so. */
static const char *take_value(struct cursor *c, struct cht_str size, bool sized, bool cr, uint32_t max,
                              struct line_command *out)
{
    if (sized && !digits(size, UINT32_MAX, &out->expected))
        return "invalid_size";
    c->p += c->p < c->end;
    out->value = (struct cht_str){.p = (uint8_t *)c->p, .n = (size_t)(c->end - c->p)};
    if (sized && cr && out->expected == out->value.n + 1)
        out->value.n++;
    out->got = out->value.n;
    out->sizes = sized && out->expected != out->got;
    if (out->sizes)
        return "value_size_mismatch";
    if (out->value.n == 0)
        return "empty_value";
    return out->value.n > max ? "value_too_large" : NULL;
}

/* A number however long; one too large is a large one. */
static bool limit_digits(struct cht_str s, uint64_t *out)
{
    *out = UINT64_MAX;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    }
    (void)digits(s, UINT64_MAX, out); /* leaves the largest number if it overflows */
    return s.n > 0;
}

static const char *take_limit(struct cht_str limit, struct line_command *out)
{
    uint64_t n = 0;
    bool negative = limit.n > 1 && limit.p[0] == '-';
    out->limit = LINE_LIMIT_DEFAULT;
    if (negative) {
        limit.p++;
        limit.n--;
    }
    if (limit.n > 0 && !limit_digits(limit, &n))
        return "invalid_limit";
    if (negative && n > 0)
        out->limit = 0;
    else if (n > 0)
        out->limit = n < LINE_LIMIT_MAX ? n : LINE_LIMIT_MAX;
    return NULL;
}

/* include_hidden= and the like, in out; false: it is another word. */
static bool take_hidden(const struct line_word *w, struct line_command *out)
{
    static const char *const same[] = {"include_hidden", "includehidden", "hidden", "show_hidden"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        if (!line_word_is(w, same[i]))
            continue;
        out->show_hidden = line_flag(w->value);
        return true;
    }
    return false;
}

/* [limit] [after], and words with a = between them */
static const char *take_page(struct cursor *c, struct line_command *out)
{
    struct cht_str limit = {.p = NULL, .n = 0}, after = limit;
    unsigned plain = 0;
    for (struct cht_str w = word(c); w.n > 0; w = word(c)) {
        struct line_word named;
        if (!line_word_split(w, &named)) {
            if (plain == 2)
                return "too_many_arguments";
            *(plain++ == 0 ? &limit : &after) = w;
        } else if (line_word_is(&named, "limit")) {
            limit = named.value;
        } else if (line_word_is(&named, "cursor")) {
            after = named.value;
        } else if (!take_hidden(&named, out)) {
            return "too_many_arguments";
        }
    }
    const char *error = take_limit(limit, out);
    return error != NULL ? error : byte_string(c, after, &out->after);
}

/* A number with a sign, at most +-LINE_NUMBER_MAX; what is beyond is that. */
static bool take_number(struct cht_str s, int64_t *out)
{
    uint64_t n = 0;
    bool negative = s.n > 1 && s.p[0] == '-';
    if (!limit_digits((struct cht_str){.p = s.p + negative, .n = s.n - negative}, &n))
        return false;
    int64_t v = n < LINE_NUMBER_MAX ? (int64_t)n : LINE_NUMBER_MAX;
    *out = negative ? -v : v;
    return true;
}

/* PREFIX [depth] [branch_limit], both also by name */
static const char *take_summary(struct cursor *c, struct line_command *out)
{
    struct cht_str prefix = word(c);
    unsigned plain = 0;
    out->depth = 1;
    out->branches = 32;
    if (prefix.n == 0)
        return "pair_summary_requires_prefix";
    for (struct cht_str w = word(c); w.n > 0; w = word(c)) {
        struct line_word named = {.value = w};
        bool is_named = line_word_split(w, &named);
        if (is_named && take_hidden(&named, out))
            continue;
        bool depth = is_named ? line_word_is(&named, "depth") : plain == 0;
        bool limit = is_named ? line_word_is(&named, "branch_limit") : plain == 1;
        plain += !is_named;
        if (!depth && !limit)
            return "too_many_arguments";
        if (!take_number(named.value, depth ? &out->depth : &out->branches))
            return depth ? "invalid_depth" : "invalid_branch_limit";
    }
    return byte_string(c, prefix, &out->name);
}

/* PREFIX [page]; the page is a number and means nothing. */
static const char *take_purge(struct cursor *c, struct line_command *out)
{
    struct cht_str w = word(c), page = word(c);
    uint64_t n;
    if (w.n == 0)
        return "pair_purge_requires_prefix";
    if (page.n > 0 && !limit_digits(page, &n))
        return "invalid_limit";
    const char *error = byte_string(c, w, &out->name);
    return error != NULL ? error : finish(c);
}

static bool has_words(enum line_verb c) { return (verbs[c].traits & LINE_WORDS) != 0; }

static const char *take_prefix(struct cursor *c, struct cht_str *out)
{
    struct cht_str w = word(c);
    return w.n == 0 ? "missing_prefix" : byte_string(c, w, out);
}

static const char *take_arguments(struct cursor *c, struct cht_str size, bool sized, bool cr, uint32_t max,
                                  struct line_command *out)
{
    const char *error = NULL;
    if (has_words(out->verb)) {
        out->value = (struct cht_str){.p = (uint8_t *)c->p, .n = (size_t)(c->end - c->p)};
        return NULL;
    }
    switch (out->verb) {
    case LINE_INSERT:
        return take_value(c, size, sized, cr, max, out);
    case LINE_EDIT:
        error = take_key(c, &out->key);
        return error != NULL ? error : take_value(c, size, sized, cr, max, out);
    case LINE_READ:
    case LINE_DELETE:
        error = take_key(c, &out->key);
        break;
    case LINE_PAIR_SET:
        error = take_pair(c, &out->name);
        if (error == NULL)
            error = take_key(c, &out->key);
        break;
    case LINE_PAIR_SET_HIDDEN:
        error = take_hidden_pair(c, out);
        break;
    case LINE_PAIR_GET:
    case LINE_PAIR_DEL:
        error = take_pair(c, &out->name);
        break;
    case LINE_PAIR_ADD:
    case LINE_PAIR_COUNTS_ADD:
        error = take_pair(c, &out->name);
        out->value = (struct cht_str){.p = (uint8_t *)c->p, .n = (size_t)(c->end - c->p)};
        return error;
    case LINE_PAIR_REDUCE:
        out->mode = word(c);
        /* fall through */
    case LINE_PAIR_SCAN:
        error = take_prefix(c, &out->name);
        return error != NULL ? error : take_page(c, out);
    case LINE_PAIR_SUMMARY:
        return take_summary(c, out);
    case LINE_PAIR_PURGE:
        return take_purge(c, out);
    case LINE_AUTH:
        out->name = word(c);
        break;
    default:
        break;
    }
    return error != NULL ? error : finish(c);
}

/* Is that a request line of HTTP, or its Host? A web page can make a browser send one here, with lines of its own after it. */
static bool line_is_http(const char *p, size_t n)
{
    static const char host[] = "HOST:", version[] = " HTTP/";
    if (n >= sizeof host - 1 && same_word(p, sizeof host - 1, host))
        return true;
    n -= n > 0 && p[n - 1] == '\r';
    const size_t tail = sizeof version - 1 + 3; /* and the number, as 1.1 */
    if (n <= tail || memcmp(p + n - tail, version, sizeof version - 1) != 0 || p[n - 2] != '.')
        return false;
    const char *method = p; /* letters, as no command but those that have a value or a name has after it */
    while (method < p + n && *method >= 'A' && *method <= 'Z')
        method++;
    struct cht_str word = {.p = (const uint8_t *)p, .n = (size_t)(method - p)};
    enum line_verb c = find(p, word.n);
    return word.n > 0 && *method == ' ' && (c == LINE_NONE || c == LINE_DELETE);
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_command_parse(char *p, size_t n, uint32_t max_value_size, struct line_command *out)
{
    bool cr = n > 0 && p[n - 1] == '\r', sized = false;
    struct cursor c = {.line = p, .p = p, .end = p + n - cr};
    memset(out, 0, sizeof *out);
    struct cht_str verb = word(&c), size = {.p = NULL, .n = 0};
    const uint8_t *colon = memchr(verb.p, ':', verb.n);
    if (colon != NULL) {
        size = (struct cht_str){.p = colon + 1, .n = verb.n - (size_t)(colon + 1 - verb.p)};
        verb.n = (size_t)(colon - verb.p);
        sized = true;
    }
    out->verb = find((const char *)verb.p, verb.n);
    if (sized && out->verb != LINE_INSERT && out->verb != LINE_EDIT)
        out->verb = LINE_NONE;
    bool has_value = out->verb == LINE_INSERT || out->verb == LINE_EDIT || has_words(out->verb);
    out->http = line_is_http(p, n);
    if (out->http) {
        out->verb = LINE_NONE;
        out->error = "http_is_on_another_port";
    } else if (out->verb == LINE_NONE)
        out->error = "unknown_command";
    else if (!has_value && n > LINE_OVERHEAD)
        out->error = "line_too_long";
    else
        out->error = take_arguments(&c, size, sized, cr, max_value_size, out);
}

const char *line_verb_name(enum line_verb c) { return verbs[c].name; }

unsigned line_verb_traits(enum line_verb c) { return verbs[c].traits; }
