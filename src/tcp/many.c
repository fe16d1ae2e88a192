/* many: see many.h. */
#include "tcp/many.h"

#include "tcp/answer.h"
#include "tcp/words.h"

#include "base/alloc.h"
#include "base/b64.h"
#include "base/literal.h"

#include <math.h>
#include <string.h>

#define ITEMS_MAX 10000u
#define TEXT_MORE (16u << 20) /* bytes of the lines beside what the items have: their commands */
#define REASON_MAX 120u

static bool has(struct cht_str s, const char *bytes)
{
    for (size_t i = 0; i < s.n; i++) {
        if (strchr(bytes, s.p[i]) != NULL) /* and NUL */
            return true;
    }
    return false;
}

static bool is_option(const struct line_word *w)
{
    static const char *const options[] = {"items",   "json",  "command",           "target",
                                          "results", "async", "continue_on_error", "continueonerror"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (line_word_is(w, options[i]))
            return true;
    }
    return false;
}

/* ---- the line of an item: the reason why it is none, or NULL ------------------------------------------------------- */

static const char *put_number(struct svc_out *o, const json_t *v)
{
    double d = json_number_value(v);
    if (json_is_integer(v))
        svc_out_format(o, "%lld", (long long)json_integer_value(v));
    else if (d == floor(d) && fabs(d) < 1e15)
        svc_out_format(o, "%.0f", d);
    else
        svc_out_format(o, "%.17g", d);
    return NULL;
}

static const char *put_value(struct svc_out *o, const json_t *v)
{
    if (json_is_number(v))
        return put_number(o, v);
    if (json_is_boolean(v)) {
        svc_out_text(o, json_is_true(v) ? "1" : "0");
        return NULL;
    }
    if (!json_is_string(v))
        return "value_must_be_a_scalar";
    struct cht_str text = {.p = (const uint8_t *)json_string_value(v), .n = json_string_length(v)};
    if (has(text, " \t\r\n"))
        return "value_must_not_contain_whitespace";
    svc_out_bytes(o, text.p, text.n);
    return NULL;
}

/* *at: the argument that the error is of. */
static const char *put_list(struct svc_out *o, const json_t *list, size_t *at)
{
    const char *error = NULL;
    for (size_t i = 0; i < json_array_size(list) && error == NULL; i++) {
        if (json_is_null(json_array_get(list, i)))
            continue;
        svc_out_text(o, " ");
        error = put_value(o, json_array_get(list, i));
        *at = i;
    }
    return error;
}

/* The words of the line that an object does not have, then its own. */
static const char *put_object(struct svc_out *o, struct cht_str shared, json_t *object)
{
    const char *error = NULL, *name;
    json_t *v;
    for (struct cht_str w = line_words_next(&shared); w.n > 0; w = line_words_next(&shared)) {
        struct line_word named;
        if (!line_word_split(w, &named) || is_option(&named) ||
            json_object_getn(object, (const char *)named.name.p, named.name.n) != NULL)
            continue;
        svc_out_text(o, " ");
        svc_out_bytes(o, w.p, w.n);
    }
    json_object_foreach(object, name, v)
    {
        struct cht_str text = {.p = (const uint8_t *)name, .n = strlen(name)};
        if (json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0))
            continue;
        if (text.n == 0 || has(text, " =\t\r\n"))
            return "bad_name";
        svc_out_text(o, " ");
        svc_out_text(o, name);
        svc_out_text(o, "=");
        error = error == NULL ? put_value(o, v) : error;
    }
    return error;
}

static const char *put_item(struct svc_out *o, struct cht_str shared, json_t *item, size_t *at)
{
    if (json_is_array(item))
        return json_array_size(item) > 0 ? put_list(o, item, at) : "empty_item";
    if (json_is_object(item))
        return put_object(o, shared, item);
    if (!json_is_string(item))
        return "item_must_be_string_array_or_object";
    struct cht_str text = {.p = (const uint8_t *)json_string_value(item), .n = json_string_length(item)};
    if (text.n == 0)
        return "empty_item";
    if (has(text, "\n"))
        return "a_newline_ends_a_line";
    svc_out_text(o, " ");
    svc_out_bytes(o, text.p, text.n);
    if (text.p[text.n - 1] == '\r') /* one of them belongs to the end of the line */
        svc_out_text(o, "\r");
    return NULL;
}

/* ---- what is asked -------------------------------------------------------------------------------------------------- */

static const char *take_target(struct line_many *m, struct cht_str words)
{
    struct cht_str word = line_words_next(&words);
    struct line_word named;
    if (word.n == 0 || line_word_split(word, &named))
        word.n = 0;
    if (word.n == 0 && !line_words_get(m->words, "command", "target", &word))
        return "batch_requires_command";
    if (word.n == 0)
        return "batch_requires_command";
    if (word.n >= sizeof m->target)
        return "batch_invalid_command_name";
    for (size_t i = 0; i < word.n; i++) {
        char c = (char)word.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':';
        if (!letter && (c < '0' || c > '9'))
            return "batch_invalid_command_name";
        m->target[i] = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
    }
    m->target[word.n] = 0;
    return NULL;
}

/* Those that change the connection, or run others. */
static bool may_be_target(const char *target)
{
    static const char *const not [] = {
        "BATCH", "JOB",  "DATABASE",   "RESET_DB",          "EXIT",
        "QUIT",  "AUTH", "DURABILITY", "PAIR_REDUCE_ASYNC", "PREDICT_INHERIT_ASYNC"};
    size_t n = strcspn(target, ":");
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++) {
        if (strlen(not [i]) == n && memcmp(target, not [i], n) == 0)
            return false;
    }
    return true;
}

static const char *read_items(struct line_many *m, struct cht_str words)
{
    struct cht_str text;
    if (!line_words_get(words, "items", "json", &text) || text.n == 0)
        return "batch_requires_items";
    bool no_memory;
    m->items = line_json(text, &no_memory);
    m->requested = json_array_size(m->items);
    if (no_memory)
        return cht_rc_slug(CHT_NO_MEMORY);
    if (!json_is_array(m->items))
        return "invalid_items: a JSON list is expected";
    return m->requested == 0 ? "batch_requires_nonempty_items" : NULL;
}

/* at: its argument, SIZE_MAX: it is not that of one in a list. */
static bool refuse_item(struct line_many *m, size_t i, size_t at, const char *why)
{
    struct svc_out *o = &m->s->out;
    line_session_counted(m->s, m->s->command.verb, true);
    svc_out_format(o, "ERROR,invalid_item %zu: ", i);
    if (at != SIZE_MAX)
        svc_out_format(o, "argument %zu: ", at);
    svc_out_format(o, "%s\n", why);
    return false;
}

/* All lines; false: one is none, or there is no memory, which is answered. */
static bool put_lines(struct line_many *m, struct svc_out *lines)
{
    size_t most = m->s->host->max_value_size + (size_t)TEXT_MORE;
    for (size_t i = 0; i < m->requested; i++) {
        size_t at = SIZE_MAX;
        svc_out_text(lines, m->target);
        const char *why = put_item(lines, m->words, json_array_get(m->items, i), &at);
        svc_out_text(lines, "\n");
        if (why != NULL)
            return refuse_item(m, i, at, why);
        if (lines->failed || lines->n > most) {
            line_session_failed(m->s, lines->failed ? CHT_NO_MEMORY : CHT_BATCH_TOO_LARGE);
            return false;
        }
    }
    return true;
}

static void count(struct line_many *m)
{
    for (size_t i = 0; i < m->answers.n; i++) {
        if (line_is_error(line_answers_at(&m->answers, i)) && m->failed++ == 0)
            m->first = i;
    }
}

static bool is_utf8(struct cht_str s)
{
    json_t *text = json_stringn((const char *)s.p, s.n);
    bool ok = text != NULL;
    json_decref(text);
    return ok;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool line_many_begin(struct line_many *m, struct line_session *s, struct cht_str words)
{
    *m = (struct line_many){.s = s, .words = words};
    struct cht_str flag;
    const char *error = take_target(m, words);
    bool target = error != NULL || may_be_target(m->target);
    if (error == NULL && target)
        error = read_items(m, words);
    bool fits = m->requested <= ITEMS_MAX;
    if (error == NULL && target && fits) {
        m->go_on = line_words_flag(words, "continue_on_error", "continueonerror");
        m->results = !line_words_get(words, "results", NULL, &flag) || line_flag(flag);
        m->later = line_words_flag(words, "async", NULL);
        return true;
    }
    if (error != NULL) {
        line_session_error(s, s->command.verb, error);
    } else {
        line_session_counted(s, s->command.verb, true);
        if (!target)
            svc_out_format(&s->out, "ERROR,batch_cannot_target:%s\n", m->target);
        else
            svc_out_format(&s->out, "ERROR,batch_too_many_items (max %u, got %zu)\n", ITEMS_MAX,
                           m->requested);
    }
    line_many_free(m);
    return false;
}

bool line_many_run(struct line_many *m)
{
    struct svc_out lines = {0};
    struct line_nested n;
    bool ok = put_lines(m, &lines);
    if (ok) {
        line_nested_init(&n, m->s, &m->answers);
        n.stops = !m->go_on;
        enum cht_rc rc = line_nested_run(&n, lines.p, lines.n);
        line_nested_fini(&n);
        ok = rc == CHT_OK;
        if (ok)
            count(m);
        else
            line_session_failed(m->s, rc);
    }
    svc_out_free(&lines);
    json_decref(m->items);
    m->items = NULL;
    return ok;
}

void line_many_put_payload(const struct line_answers *a, size_t from, size_t to, struct svc_out *o)
{
    struct svc_out json = {0};
    bool base64 = false;
    for (size_t i = from; i < to && i < a->n; i++)
        base64 = base64 || !is_utf8(line_answers_at(a, i));
    for (size_t i = from; i < to; i++) {
        svc_out_text(&json, i > from ? "," : "[");
        struct cht_str line = i < a->n ? line_answers_at(a, i) : (struct cht_str){0};
        if (i >= a->n)
            svc_out_text(&json, "null");
        else if (base64)
            svc_out_b64(&json, line.p, line.n);
        else
            svc_out_string(&json, (const char *)line.p, line.n);
    }
    svc_out_text(&json, "]");
    svc_out_text(o, base64 ? ",results_encoding=base64,payload=" : ",payload=");
    if (!json.failed && svc_out_room(o, cht_b64_encoded(json.n)))
        o->n += cht_b64_encode(o->p + o->n, (const uint8_t *)json.p, json.n);
    o->failed = o->failed || json.failed;
    svc_out_free(&json);
}

void line_many_put(const struct line_many *m, struct svc_out *o)
{
    svc_out_format(o, "command=BATCH,target=%s,requested=%zu,applied=%zu,failed=%zu", m->target, m->requested,
                   m->answers.n - m->failed, m->failed);
    if (m->failed > 0) {
        struct cht_str why = line_answers_at(&m->answers, m->first);
        svc_out_format(o, ",first_error=item_%zu:", m->first);
        for (size_t i = sizeof "ERROR," - 1; i < why.n && i < REASON_MAX; i++) {
            char c = (char)why.p[i];
            svc_out_bytes(o, c == ',' ? ";" : c == ' ' ? "_" : &c, 1);
        }
    }
    if (m->results)
        line_many_put_payload(&m->answers, 0, m->requested, o);
}

void line_many_free(struct line_many *m)
{
    json_decref(m->items);
    line_answers_free(&m->answers);
}
