/* json: the readers of JSON that are our own, against jansson: what question.c accepts means what jansson reads (the first byte is 0, of 4),
 * what flat.c accepts, which an export and a stream are read with, is an object that jansson reads the same (1), and what document.c
 * accepts, of tokens (2) or as a text (3), means what jansson reads. */
#include "fuzz/fuzz.h"

#include <jansson.h>

#include "http/calls/document.h"
#include "http/calls/question.h"
#include "tools/flat.h"

enum { TOKENS = 64, K_MAX = 100000 };

static void same_number(const json_t *o, const char *name, bool has, uint64_t v)
{
    const json_t *got = json_object_get(o, name);
    FUZZ_CHECK(has == (got != NULL));
    FUZZ_CHECK(!has || (json_is_integer(got) && json_integer_value(got) == (json_int_t)v && v >= 1));
}

static void question(const char *text, size_t n)
{
    static const char *const modes[] = {"deepest", "levels", "blend"};
    uint32_t tokens[TOKENS];
    struct http_question q = {.tokens = tokens, .cap = TOKENS};
    if (!http_question_read(text, n, K_MAX, &q))
        return;
    json_error_t where;
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &where);
    FUZZ_CHECK(json_is_object(o));
    const json_t *list = json_object_get(o, "tokens"), *mode = json_object_get(o, "mode");
    FUZZ_CHECK(json_is_array(list) && json_array_size(list) == q.n);
    for (size_t i = 0; i < q.n; i++)
        FUZZ_CHECK(json_integer_value(json_array_get(list, i)) == (json_int_t)q.tokens[i]);
    same_number(o, "k", q.has_k, q.k);
    same_number(o, "max_order", q.has_max_order, q.max_order);
    FUZZ_CHECK(q.has_mode == (mode != NULL));
    FUZZ_CHECK(mode == NULL || strcmp(json_string_value(mode), modes[q.mode]) == 0);
    FUZZ_CHECK(json_object_size(o) == 1u + q.has_k + q.has_max_order + q.has_mode);
    json_decref(o);
}

static void document(const char *text, size_t n, bool texts)
{
    uint32_t tokens[TOKENS];
    struct http_document d = {.tokens = tokens, .cap = TOKENS, .texts = texts};
    if (!http_document_read(text, n, &d))
        return;
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
    FUZZ_CHECK(json_is_object(o) && json_object_size(o) == 1u + d.has_remove);
    const json_t *content = json_object_get(o, texts ? "text" : "tokens"),
                 *remove = json_object_get(o, "remove");
    FUZZ_CHECK(d.has_remove ? json_is_boolean(remove) && json_is_true(remove) == d.remove : remove == NULL);
    FUZZ_CHECK(texts ? json_string_length(content) == d.text_n : json_array_size(content) == d.n);
    FUZZ_CHECK(!texts || memcmp(json_string_value(content), d.text, d.text_n) == 0);
    FUZZ_CHECK(texts ? json_is_string(content) : json_is_array(content) && d.n <= n / 2);
    for (size_t i = 0; i < d.n && i < TOKENS; i++)
        FUZZ_CHECK(json_integer_value(json_array_get(content, i)) == (json_int_t)tokens[i]);
    json_decref(o);
}

static void member(const struct tool_flat *f, const char *name, const json_t *v)
{
    const char *p;
    size_t n;
    uint64_t number;
    if (json_is_string(v)) {
        const struct tool_flat_field *x = tool_flat_get(f, name);
        if (x == NULL) /* its name was written with an escape */
            return;
        FUZZ_CHECK(x->kind == TOOL_FLAT_STRING && x->escaped == !tool_flat_string(f, name, &p, &n));
        FUZZ_CHECK(x->escaped || (n == json_string_length(v) && memcmp(p, json_string_value(v), n) == 0));
    } else if (json_is_integer(v) && tool_flat_number(f, name, &number)) {
        FUZZ_CHECK((json_int_t)number == json_integer_value(v));
    }
}

/* It is more lenient than jansson (it does not look into strings and nested values), so only what both read is compared. */
static void flat(const char *text, size_t n)
{
    struct tool_flat f;
    if (!tool_flat_parse(&f, text, n))
        return;
    for (size_t i = 0; i < f.n; i++) {
        const struct tool_flat_field *x = &f.field[i];
        FUZZ_CHECK(x->name >= text && x->name + x->name_n <= text + n);
        FUZZ_CHECK(x->p >= text && x->p + x->n <= text + n);
    }
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const char *name;
    json_t *v;
    if (o == NULL)
        return;
    FUZZ_CHECK(json_is_object(o));
    json_object_foreach(o, name, v) member(&f, name, v);
    json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    char *text = fuzz_exact(data + 1, n - 1);
    if (data[0] % 4 == 0)
        question(text, n - 1);
    else if (data[0] % 4 == 1)
        flat(text, n - 1);
    else
        document(text, n - 1, data[0] % 4 == 3);
    free(text);
    return 0;
}
