/* shell_complete: see shell_complete.h.
 *
 * Of the names of pairs the first NAMES under what was typed are looked at. If there are more, they are only shown: what all of those that
 * were looked at have in common is not what all have.
 */
#include "tools/shell_complete.h"

#include "base/b64.h"
#include "base/literal.h"
#include "reduce/mode.h"
#include "tcp/command.h"
#include "tools/one.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define NAMES 100u
#define SHOWN_MAX 1024u /* bytes of a name that is offered */

/* What can stand at a place. */
struct choice {
    struct svc_out text; /* owned: words, each with a zero after it */
    size_t n;
    bool more;     /* than these */
    bool any_case; /* upper and lower case are the same */
};

static void offer(struct choice *c, const char *p, size_t n)
{
    svc_out_bytes(&c->text, p, n);
    svc_out_bytes(&c->text, "", 1);
    c->n++;
}

static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c; }

static bool begins(const struct choice *c, const char *word, const char *with, size_t n)
{
    for (size_t i = 0; i < n; i++) { /* a shorter word has its zero there */
        if (c->any_case ? upper(word[i]) != upper(with[i]) : word[i] != with[i])
            return false;
    }
    return true;
}

/* ---- what there is ------------------------------------------------------------------------------------------------ */

static void offer_commands(struct choice *c)
{
    c->any_case = true;
    for (int v = LINE_NONE + 1; v < LINE_VERBS; v++)
        offer(c, line_verb_name((enum line_verb)v), strlen(line_verb_name((enum line_verb)v)));
    offer(c, CHT_LITERAL("HELP"));
}

/* The commands of the protocol take modes that show payloads, no aggregates. */
static void offer_modes(struct choice *c)
{
    const struct reduce_mode *m;
    c->any_case = true;
    for (unsigned i = 0; (m = reduce_mode_at(i)) != NULL; i++) {
        if (m->kind != REDUCE_AGGREGATE)
            offer(c, m->names[0], strlen(m->names[0]));
    }
}

/* The text after "member=", up to the next comma or the end; n == 0 if it is not there. */
static struct cht_str member(struct cht_str answer, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i + n <= answer.n; i++) {
        if (memcmp(answer.p + i, name, n) != 0)
            continue;
        struct cht_str v = {.p = answer.p + i + n, .n = answer.n - i - n};
        const uint8_t *comma = memchr(v.p, ',', v.n);
        v.n = comma != NULL ? (size_t)(comma - v.p) : v.n;
        return v;
    }
    return (struct cht_str){.p = answer.p, .n = 0};
}

static void offer_databases(struct choice *c, struct tool_shell *s)
{
    struct cht_str answer, payload;
    struct svc_out json = {0};
    size_t n = 0;
    if (tool_link_ask(s->link, CHT_LITERAL("DB_LIST"), &answer, NULL) != CHT_OK)
        return;
    payload = member(answer, "payload=");
    bool ok = payload.n > 0 && svc_out_room(&json, cht_b64_decoded_max(payload.n)) &&
              cht_b64_decode((uint8_t *)json.p, (const char *)payload.p, payload.n, &n);
    json_t *list = ok ? json_loadb(json.p, n, 0, NULL) : NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(list, i), "name"));
        if (name != NULL)
            offer(c, name, strlen(name));
    }
    json_decref(list);
    svc_out_free(&json);
}

static unsigned nibble(uint8_t c) { return c <= '9' ? c - (unsigned)'0' : (c | 0x20u) - 'a' + 10; }

/* As it is typed: itself, or if it cannot be, or what was typed is hexadecimal, x and hexadecimal. */
static void offer_name(struct choice *c, struct cht_str hex, bool in_hex)
{
    char name[SHOWN_MAX + 1] = "";
    size_t n = hex.n / 2;
    if (hex.n == 0 || hex.n > SHOWN_MAX || hex.n % 2 != 0)
        return;
    for (size_t i = 0; i < n; i++)
        name[i] = (char)(nibble(hex.p[2 * i]) << 4 | nibble(hex.p[2 * i + 1]));
    bool plain = !in_hex && tool_one_is_line(name, n) && memchr(name, ' ', n) == NULL && name[0] != '*' &&
                 (n < 2 || name[0] != 'x');
    if (!plain) {
        name[0] = 'x';
        memcpy(name + 1, hex.p, hex.n);
        n = hex.n + 1;
    }
    offer(c, name, n);
}

static void offer_names(struct choice *c, struct tool_shell *s, const char *typed, size_t n)
{
    char line[SHOWN_MAX + 64];
    struct cht_str answer;
    bool in_hex = n > 1 && typed[0] == 'x';
    size_t asked = in_hex ? n - (n - 1) % 2 : n; /* half a byte is not asked for */
    if (in_hex && (strspn(typed + 1, "0123456789abcdefABCDEF") < n - 1 || asked < 3))
        return;
    int len =
        snprintf(line, sizeof line, "PAIR_SCAN %.*s %u", n > 0 ? (int)asked : 1, n > 0 ? typed : "*", NAMES);
    if (len < 0 || (size_t)len >= sizeof line ||
        tool_link_ask(s->link, line, (size_t)len, &answer, NULL) != CHT_OK)
        return;
    c->more = member(answer, ",next_cursor=").n > 0;
    struct cht_str items = member(answer, ",items=");
    while (items.n > 0) {
        const uint8_t *colon = memchr(items.p, ':', items.n), *end = memchr(items.p, ';', items.n);
        if (colon == NULL)
            return;
        offer_name(c, (struct cht_str){.p = items.p, .n = (size_t)(colon - items.p)}, in_hex);
        size_t used = end != NULL ? (size_t)(end - items.p) + 1 : items.n;
        items.p += used;
        items.n -= used;
    }
}

/* ---- the word before the cursor ------------------------------------------------------------------------------------- */

static void show(const struct choice *c, const char *typed, size_t n)
{
    const char *w = c->text.p;
    (void)fputc('\n', stdout);
    for (size_t i = 0; i < c->n; i++, w += strlen(w) + 1) {
        if (begins(c, w, typed, n))
            (void)printf("%s  ", w);
    }
    (void)fputs(c->more ? "...\n" : "\n", stdout);
}

/* Inserts what all candidates have in common; lists them if that is nothing new. ends: a blank follows a word that is the only one. */
static unsigned char complete_from(EditLine *el, const struct choice *c, const char *typed, size_t n,
                                   bool ends)
{
    const char *first = NULL, *w = c->text.p;
    size_t common = 0, count = 0;
    char text[SHOWN_MAX + 2];
    if (c->text.failed || c->n == 0)
        return CC_ERROR;
    for (size_t i = 0; i < c->n; i++, w += strlen(w) + 1) {
        if (!begins(c, w, typed, n))
            continue;
        if (count++ == 0) {
            first = w;
            common = strlen(w);
        }
        size_t k = n;
        while (k < common && w[k] == first[k])
            k++;
        common = k;
    }
    if (count == 0)
        return CC_ERROR;
    if (c->more || (count > 1 && common == n)) {
        show(c, typed, n);
        return CC_REDISPLAY;
    }
    (void)snprintf(text, sizeof text, "%.*s%s", (int)(common < SHOWN_MAX ? common : SHOWN_MAX), first,
                   count == 1 && ends ? " " : "");
    el_deletestr(el, (int)n); /* in capitals, as the command is written */
    return el_insertstr(el, text) == 0 ? CC_REFRESH : CC_ERROR;
}

/* Is it a command whose argument after `rest` is a name? Most have it first, PAIR_REDUCE after the mode. */
static bool wants_name(const char *verb, const char *rest)
{
    const char *blank = strchr(rest, ' ');
    if (strcmp(verb, "PAIR_REDUCE") == 0)
        return blank != NULL && blank[strspn(blank, " ")] == 0;
    return *rest == 0 && CHT_BEGINS(verb, "PAIR_") && strcmp(verb, "PAIR_PUT_BATCH") != 0;
}

/* ------------------------------------------------------------------------------------------------------------ */

const char *tool_shell_word(const char *line, char out[TOOL_SHELL_WORD])
{
    size_t n = 0;
    line += strspn(line, " ");
    while (*line != 0 && *line != ' ' && n < TOOL_SHELL_WORD - 1)
        out[n++] = upper(*line++);
    out[n] = 0;
    return line + strspn(line, " ");
}

unsigned char tool_shell_complete(struct tool_shell *s, EditLine *el)
{
    const LineInfo *info = el_line(el);
    const char *start = info->cursor;
    char verb[TOOL_SHELL_WORD], before[256], typed[SHOWN_MAX + 1];
    struct choice c = {.more = false};
    bool ends = true;
    while (start > info->buffer && start[-1] != ' ')
        start--;
    size_t n = (size_t)(info->cursor - start), lead = (size_t)(start - info->buffer);
    if (n > SHOWN_MAX || lead >= sizeof before)
        return CC_ERROR;
    memcpy(before, info->buffer, lead);
    before[lead] = 0;
    memcpy(typed, start, n); /* the server is asked meanwhile */
    typed[n] = 0;
    const char *rest = tool_shell_word(before, verb);
    if (verb[0] == 0 || (strcmp(verb, "HELP") == 0 && *rest == 0)) {
        offer_commands(&c);
    } else if (strcmp(verb, "PAIR_REDUCE") == 0 && *rest == 0) {
        offer_modes(&c);
    } else if (wants_name(verb, rest)) {
        offer_names(&c, s, typed, n);
        ends = strcmp(verb, "PAIR_SCAN") != 0 && strcmp(verb, "PAIR_PURGE") != 0;
    } else if (*rest == 0 && (strcmp(verb, "DATABASE") == 0 || strcmp(verb, "RESET_DB") == 0 ||
                              CHT_BEGINS(verb, "DB_CONFIG"))) {
        offer_databases(&c, s);
    }
    unsigned char done = complete_from(el, &c, typed, n, ends);
    svc_out_free(&c.text);
    return done;
}
