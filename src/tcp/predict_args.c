/* predict_args: what is sent to the PREDICT_ commands; see predict.h. */
#include "tcp/predict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tcp/words.h"

struct cht_str line_predict_text(const struct line_predict *p, const char *name, const char *other)
{
    struct cht_str out = {.p = (const uint8_t *)"", .n = 0};
    (void)line_words_get(p->s->command.value, name, other, &out);
    return out;
}

bool line_predict_is(struct cht_str s, const char *word)
{
    const struct line_word w = {.name = s};
    return line_word_is(&w, word);
}

/* The bytes that a text means, in p->text, which has room: each word of the line is decoded once. */
static bool decode(struct line_predict *p, struct cht_str text, struct cht_str *out)
{
    if (!line_bytes(p->text + p->used, text, out))
        return false;
    p->used += out->n;
    return true;
}

bool line_predict_bytes(struct line_predict *p, const char *name, struct cht_str *out)
{
    struct cht_str text = line_predict_text(p, name, NULL);
    return text.n > 0 && decode(p, text, out) && out->n > 0;
}

enum cht_rc line_predict_list(struct line_predict *p, struct cht_str text, size_t *n)
{
    size_t most = 1;
    *n = 0;
    for (size_t i = 0; i < text.n; i++)
        most += text.p[i] == ',';
    p->list = cht_calloc(most, sizeof *p->list);
    if (p->list == NULL)
        return CHT_NO_MEMORY;
    while (text.n > 0) {
        const uint8_t *comma = memchr(text.p, ',', text.n);
        struct cht_str one = {.p = text.p, .n = comma != NULL ? (size_t)(comma - text.p) : text.n};
        size_t used = one.n + (comma != NULL);
        if (!decode(p, one, &p->list[(*n)++]))
            return CHT_INVALID_HEX;
        text.p += used;
        text.n -= used;
    }
    return CHT_OK;
}

double line_predict_number(const struct line_predict *p, const char *name, double fallback)
{
    struct cht_str text = line_predict_text(p, name, NULL);
    char copy[64], *end;
    if (text.n == 0 || text.n >= sizeof copy)
        return fallback;
    memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    double v = strtod(copy, &end);
    return end == copy + text.n ? v : fallback;
}

/* Numbers of a JSON list to v; false: one is none. */
static bool numbers(const json_t *list, double *v, double times)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        if (!json_is_number(o))
            return false;
        v[i] = json_number_value(o) * times;
    }
    return true;
}

static const char *read_rows(struct lm_matrix *m, const json_t *rows, const json_t *weights)
{
    if (!json_is_array(rows))
        return "invalid_ctx: a list of rows is expected";
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *weight = json_array_get(weights, i);
        double times = json_is_number(weight) ? fmax(0, fmin(2, json_number_value(weight))) : 1;
        if (!json_is_array(row))
            return "invalid_ctx: a row is a list of numbers";
        double *v = lm_matrix_add(m, json_array_size(row));
        if (v == NULL)
            return cht_rc_slug(CHT_NO_MEMORY);
        if (!numbers(row, v, times))
            return "invalid_ctx: a row is a list of numbers";
    }
    return NULL;
}

const char *line_predict_ctx(struct line_predict *p, bool *given)
{
    struct cht_str text;
    *given = line_words_get(p->s->command.value, "ctx", NULL, &text) && text.n > 0;
    if (!*given)
        return NULL;
    bool no_memory;
    json_t *o = line_json(text, &no_memory);
    if (no_memory)
        return cht_rc_slug(CHT_NO_MEMORY);
    const json_t *rows = json_is_object(o) ? json_object_get(o, "rows") : o;
    if (json_is_object(o) && rows == NULL)
        rows = json_object_get(o, "matrix");
    const char *error = read_rows(&p->ctx, rows, json_object_get(o, "weights"));
    json_decref(o);
    if (error == NULL && lm_matrix_deepen(&p->ctx, NULL) != CHT_OK)
        error = cht_rc_slug(CHT_NO_MEMORY);
    return error;
}

const char *line_predict_weights(struct line_predict *p, struct lm_learned *l)
{
    struct cht_str text;
    const char *bad = "invalid_weights_payload: a list of {depth, vector, bias} is expected";
    if (!line_words_get(p->s->command.value, "weights", NULL, &text) || text.n == 0)
        return NULL;
    bool no_memory;
    json_t *list = line_json(text, &no_memory);
    const char *error = json_is_array(list) ? NULL : no_memory ? cht_rc_slug(CHT_NO_MEMORY) : bad;
    for (size_t i = 0; i < json_array_size(list) && error == NULL; i++) {
        const json_t *o = json_array_get(list, i), *depth = json_object_get(o, "depth"),
                     *vector = json_object_get(o, "vector"), *bias = json_object_get(o, "bias");
        if (!json_is_integer(depth) || json_integer_value(depth) < 0 || json_integer_value(depth) > 65535)
            error = bad;
        else if ((vector != NULL && !json_is_array(vector)) || (bias != NULL && !json_is_number(bias)))
            error = bad;
        if (error != NULL)
            break;
        struct lm_weight *w =
            lm_learned_weight(l, (uint32_t)json_integer_value(depth), json_array_size(vector));
        if (w == NULL)
            error = cht_rc_slug(CHT_NO_MEMORY);
        else if (!numbers(vector, w->v, 1))
            error = bad;
        else
            w->bias = json_number_value(bias);
    }
    json_decref(list);
    return error;
}
