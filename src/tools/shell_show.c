/* shell_show: see shell_show.h. What was not written shows in ferror, which main asks once at the end. */
#include "tools/shell_show.h"

#include "base/alloc.h"
#include "base/b64.h"
#include "base/literal.h"
#include "service/out.h"
#include "reduce/mode.h"
#include "tools/one.h"

#include <string.h>

#define NAME_MAX_COLUMNS 40u
#define DUMP_ROWS 64u /* of 16 bytes */
#define DECODED_MAX (1u << 20)

/* ---- text --------------------------------------------------------------------------------------------------------- */

/* Bytes of a line; what others have stored is not to command the terminal. */
static void put_bytes(FILE *out, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *c = (const uint8_t *)p + i;
        bool wide = *c == 0xC2 && i + 1 < n && c[1] < 0xA0; /* U+0080 to U+009F: terminals obey them, too */
        i += wide;
        (void)fputc((*c < 0x20 && *c != '\t') || *c == 0x7F || wide ? '?' : *c, out);
    }
}

/* A line of at most `columns` characters. */
static void put_line(FILE *out, const char *p, size_t n, unsigned columns)
{
    if (columns < 8 || n <= columns) {
        put_bytes(out, p, n);
    } else {
        n = columns - 3;
        while (n > 0 && ((uint8_t)p[n] & 0xC0) == 0x80) /* not in the middle of a character */
            n--;
        put_bytes(out, p, n);
        (void)fputs("...", out);
    }
    (void)fputc('\n', out);
}

static void dump(FILE *out, const uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n && at < DUMP_ROWS * 16; at += 16) {
        (void)fprintf(out, "%08zx ", at);
        for (size_t i = 0; i < 16; i++) {
            if (at + i < n)
                (void)fprintf(out, " %02x", p[at + i]);
            else
                (void)fputs("   ", out);
        }
        (void)fputs("  ", out);
        for (size_t i = at; i < n && i < at + 16; i++)
            (void)fputc(p[i] >= 0x20 && p[i] < 0x7F ? p[i] : '.', out);
        (void)fputc('\n', out);
    }
    if (n > DUMP_ROWS * 16)
        (void)fprintf(out, "... %zu bytes in all\n", n);
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static bool starts(struct cht_str s, const char *with)
{
    size_t n = strlen(with);
    return s.n >= n && memcmp(s.p, with, n) == 0;
}

static struct cht_str from(struct cht_str s, size_t n)
{
    return (struct cht_str){.p = s.p + n, .n = s.n - n};
}

/* What stands between `name=` and the next comma; n == 0 if it is not there. */
static struct cht_str field(struct cht_str s, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i + n < s.n; i++) {
        if ((i > 0 && s.p[i - 1] != ',') || memcmp(s.p + i, name, n) != 0 || s.p[i + n] != '=')
            continue;
        struct cht_str v = from(s, i + n + 1);
        const uint8_t *comma = memchr(v.p, ',', v.n);
        v.n = comma != NULL ? (size_t)(comma - v.p) : v.n;
        return v;
    }
    return (struct cht_str){.p = s.p, .n = 0};
}

/* Cuts the part before `c` off; all of it if there is none. */
static struct cht_str cut(struct cht_str *s, char c)
{
    const uint8_t *end = memchr(s->p, c, s->n);
    struct cht_str part = {.p = s->p, .n = end != NULL ? (size_t)(end - s->p) : s->n};
    *s = end != NULL ? from(*s, part.n + 1) : from(*s, s->n);
    return part;
}

static uint8_t nibble(uint8_t c) { return (uint8_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10); }

/* The name as it can be typed: itself, or x and hexadecimal. */
static void put_name(struct svc_out *o, struct cht_str hex)
{
    size_t at = o->n, n = hex.n / 2;
    if (!svc_out_room(o, hex.n + 1) || o->p == NULL)
        return;
    for (size_t i = 0; i < n; i++)
        o->p[at + i] = (char)(nibble(hex.p[2 * i]) << 4 | nibble(hex.p[2 * i + 1]));
    const uint8_t *name = (const uint8_t *)o->p + at;
    bool plain = tool_one_is_line(name, n) && memchr(name, ' ', n) == NULL && name[0] != '*' &&
                 (n < 2 || name[0] != 'x');
    if (!plain) {
        o->p[at] = 'x';
        memcpy(o->p + at + 1, hex.p, hex.n);
        n = hex.n + 1;
    }
    o->n = at + n;
}

static void put_payload(struct svc_out *o, const struct reduce_mode *m, struct cht_str b64)
{
    size_t n, had = o->n;
    uint8_t *raw = cht_malloc(cht_b64_decoded_max(b64.n) + 1);
    if (b64.n == 0)
        svc_out_text(o, "(no value)");
    if (b64.n == 0 || raw == NULL || !cht_b64_decode(raw, (const char *)b64.p, b64.n, &n)) {
        cht_free(raw);
        return;
    }
    if (m != NULL && m->decoder != NULL && svc_out_room(o, DECODED_MAX)) {
        size_t k = reduce_decode(m->decoder, raw, n, o->p + o->n, DECODED_MAX);
        o->n += k != SIZE_MAX ? k : 0;
        if (k == 0)
            svc_out_text(o, "(malformed) ");
    }
    if (m == NULL || m->decoder == NULL || o->n == had + strlen("(malformed) ") || o->n == had) {
        if (tool_one_is_line(raw, n))
            svc_out_bytes(o, raw, n);
        else
            svc_out_bytes(o, b64.p, b64.n);
    }
    cht_free(raw);
}

static void pad(struct svc_out *o, size_t from_n, size_t width)
{
    if (o->failed)
        return;
    for (size_t at = tool_one_columns(o->p + from_n, o->n - from_n); at < width; at++)
        svc_out_text(o, " ");
    svc_out_text(o, "  ");
}

/* The widest name, to a bound. */
static size_t name_width(struct cht_str items)
{
    size_t width = 4;
    struct svc_out o = {0};
    while (items.n > 0) {
        struct cht_str item = cut(&items, ';');
        o.n = 0;
        put_name(&o, cut(&item, ':'));
        size_t columns = tool_one_columns(o.p, o.n);
        width = columns > width ? columns : width;
    }
    svc_out_free(&o);
    return width < NAME_MAX_COLUMNS ? width : NAME_MAX_COLUMNS;
}

static void show_page(FILE *out, struct cht_str head, struct cht_str items, unsigned columns)
{
    struct cht_str mode = field(head, "reducer"), more = field(head, "next_cursor"),
                   count = field(head, "count");
    const struct reduce_mode *m = mode.n > 0 ? reduce_mode_find((const char *)mode.p, mode.n) : NULL;
    size_t width = name_width(items);
    struct svc_out o = {0};
    if (items.n > 0)
        (void)fprintf(out, "%-*s  %-12s  %s\n", (int)width, "PAIR", "KEY", mode.n > 0 ? "PAYLOAD" : "");
    while (items.n > 0 && !o.failed) {
        struct cht_str item = cut(&items, ';');
        o.n = 0;
        put_name(&o, cut(&item, ':'));
        pad(&o, 0, width);
        size_t at = o.n;
        struct cht_str key = cut(&item, ':');
        svc_out_bytes(&o, key.p, key.n);
        if (mode.n > 0) {
            pad(&o, at, 12);
            put_payload(&o, m, item);
        }
        put_line(out, o.p, o.n, columns);
    }
    (void)fprintf(out, "%.*s pair%s", (int)count.n, (const char *)count.p,
                  count.n == 1 && *count.p == '1' ? "" : "s");
    if (more.n > 0)
        (void)fprintf(out, "; more after %.*s", (int)more.n, (const char *)more.p);
    (void)fputc('\n', out);
    svc_out_free(&o);
}

/* A word of the vocabulary in hexadecimal; #TOKEN is one that has none. */
static void put_word(struct svc_out *o, struct cht_str hex)
{
    size_t at = o->n;
    if (hex.n > 0 && hex.p[0] == '#') {
        svc_out_bytes(o, hex.p, hex.n);
        return;
    }
    for (size_t i = 0; i + 1 < hex.n && svc_out_room(o, 1); i += 2)
        o->p[o->n++] = (char)(nibble(hex.p[i]) << 4 | nibble(hex.p[i + 1]));
    if (!o->failed && !tool_one_is_line(o->p + at, o->n - at)) {
        o->n = at;
        svc_out_text(o, "x");
        svc_out_bytes(o, hex.p, hex.n);
    }
}

/* The answers to PREDICT and SCORE: a word a line, and what there is to it; then the rest. */
static void show_words(FILE *out, struct cht_str head, struct cht_str items, unsigned columns)
{
    bool scores = field(head, "oov").n > 0;
    struct svc_out o = {0};
    if (items.n > 0)
        (void)fprintf(out, scores ? "%-20s  %-14s  %s\n" : "%-20s  %s\n", "WORD", scores ? "LOG10" : "P",
                      "ORDER");
    while (items.n > 0 && !o.failed) {
        struct cht_str item = cut(&items, ';');
        o.n = 0;
        put_word(&o, cut(&item, ':'));
        pad(&o, 0, 20);
        struct cht_str p = cut(&item, ':');
        size_t at = o.n;
        svc_out_bytes(&o, p.p, p.n);
        if (item.n > 0) {
            pad(&o, at, 14);
            svc_out_bytes(&o, item.p, item.n);
        }
        put_line(out, o.p, o.n, columns);
    }
    o.n = 0;
    for (cut(&head, ','); head.n > 0;) { /* without the count */
        struct cht_str more = cut(&head, ',');
        svc_out_text(&o, o.n > 0 ? ", " : "");
        svc_out_bytes(&o, more.p, more.n);
    }
    put_line(out, o.p, o.n, columns);
    svc_out_free(&o);
}

/* ------------------------------------------------------------------------------------------------------------ */

void tool_show_answer(FILE *out, struct cht_str answer, unsigned columns)
{
    static const char value_mark[] = ",value=", items_mark[] = ",items=";
    if (!starts(answer, "SUCCESS,")) {
        put_line(out, (const char *)answer.p, answer.n, 0);
        return;
    }
    answer = from(answer, strlen("SUCCESS,"));
    if (starts(answer, "size=")) {
        struct cht_str size = field(answer, "size");
        struct cht_str value = from(answer, strlen("size=") + size.n + strlen(value_mark));
        if (tool_one_is_line(value.p, value.n))
            put_line(out, (const char *)value.p, value.n, 0);
        else
            dump(out, value.p, value.n);
        (void)fprintf(out, "%.*s byte%s\n", (int)size.n, (const char *)size.p, value.n == 1 ? "" : "s");
        return;
    }
    struct cht_str head = answer, all = from(answer, answer.n);
    for (size_t i = 0; i + strlen(items_mark) <= answer.n && head.n == answer.n; i++) {
        if (memcmp(answer.p + i, items_mark, strlen(items_mark)) == 0) {
            head.n = i;
            all = from(answer, i + strlen(items_mark));
        }
    }
    if (starts(head, "count=") && (field(head, "oov").n > 0 || field(head, "order").n > 0)) {
        show_words(out, head, all, columns);
        return;
    }
    if (head.n < answer.n) {
        show_page(out, head, all, columns);
        return;
    }
    if (field(answer, "count").n == 1 && *field(answer, "count").p == '0') /* a page without items */
        show_page(out, answer, from(answer, answer.n), columns);
    else
        put_line(out, (const char *)answer.p, answer.n, 0);
}

void tool_show_help(FILE *out, const char *word)
{
    static const struct {
        const char *word, *form, *what;
    } rows[] = {
        {"INSERT", "INSERT[:size] VALUE", "a new value; the answer is its key"},
        {"READ", "READ KEY", "the value under a key"},
        {"EDIT", "EDIT[:size] KEY VALUE", "another value, of any length, under the same key"},
        {"DELETE", "DELETE KEY", "the value goes; its key is never given out again"},
        {"PAIR_SET", "PAIR_SET PAIR KEY", "map a name to a key"},
        {"PAIR_PUT_BATCH", "PAIR_PUT_BATCH items=JSON [keys=1] [continue_on_error=1]",
         "many names and values, one commit"},
        {"PAIR_PURGE", "PAIR_PURGE PREFIX", "delete all pairs under a prefix, and their values"},
        {"PAIR_ADD", "PAIR_ADD PAIR BY", "add to a number; one that is not there is 0"},
        {"PAIR_COUNTS_ADD", "PAIR_COUNTS_ADD PAIR ORDER TOKEN:DELTA,...", "add to the counts of a context"},
        {"PAIR_SET_HIDDEN", "PAIR_SET_HIDDEN PAIR KEY", "map a name that plain scans leave out"},
        {"PAIR_SUMMARY", "PAIR_SUMMARY PREFIX [depth] [branches]",
         "how many pairs, how large, how they branch"},
        {"DEL", "DEL pairs prefix=P | pairs key=P | values key=K", "delete pairs, or a value"},
        {"BATCH", "BATCH COMMAND items=JSON [continue_on_error=1]", "one command many times"},
        {"JOB", "JOB submit LINE | status J | fetch J", "an answer that is fetched later"},
        {"NGRAMS", "NGRAMS [order=N] [remove=1] [text=]TEXT", "count a text, or take it away again"},
        {"PREDICT", "PREDICT [k=N] [max_order=N] [text=]TEXT", "the words that may come next"},
        {"SCORE", "SCORE [max_order=N] [text=]TEXT", "how likely a text is, word by word"},
        {"PREDICT_SET", "PREDICT_SET key=K value=V [prob=P] [weights=JSON]",
         "a learned value of a prediction table"},
        {"PREDICT_QUERY", "PREDICT_QUERY key=K [ctx=JSON]", "its values and their probabilities"},
        {"PREDICT_TRAIN", "PREDICT_TRAIN key=K target=V [ctx=JSON] [lr=R] [negatives=A,B]",
         "one step of training"},
        {"PREDICT_CTX", "PREDICT_CTX key=K ctx=JSON [mode=bias|scale] [strength=S]",
         "shift all scores of a key"},
        {"PREDICT_INHERIT", "PREDICT_INHERIT key=K target=V sources=A,B [merge=avg|max|sum]",
         "a value that is the mean of others"},
        {"PREDICT_INHERIT_BATCH", "PREDICT_INHERIT_BATCH items=JSON", "many of these"},
        {"PREDICT_BACKEND", "PREDICT_BACKEND", "what computes: the processor"},
        {"RESET_DB", "RESET_DB [NAME]", "empty a database, and go there"},
        {"DB_CREATE", "DB_CREATE NAME [settings]", "a new database"},
        {"DB_CONFIG", "DB_CONFIG NAME [settings]", "what clients have set of a database"},
        {"DB_LIST", "DB_LIST", "the databases"},
        {"FILE_CHECKPOINT", "FILE_CHECKPOINT", "write what has changed to the files, now"},
        {"SYSTEM_STATS", "SYSTEM_STATS", "processor, memory and disk"},
        {"LOG_FLUSH", "LOG_FLUSH", "none: the log goes to stderr"},
        {"PAIR_GET", "PAIR_GET PAIR", "the key a name is mapped to"},
        {"PAIR_DEL", "PAIR_DEL PAIR", "unmap a name; the value stays"},
        {"PAIR_SCAN", "PAIR_SCAN PREFIX [limit] [after]",
         "names under a prefix, in byte order; * is all of them"},
        {"PAIR_REDUCE", "PAIR_REDUCE MODE PREFIX [limit] [after]",
         "the same with payloads, decoded as the mode says"},
        {"DATABASE", "DATABASE NAME", "another database; one that is not there is made"},
        {"DURABILITY", "DURABILITY interval|sync", "of what this connection writes"},
        {"AUTH", "AUTH TOKEN", "for a server that wants a token"},
        {"HELP", "HELP [COMMAND]", "this"},
        {"EXIT", "EXIT", "leave (or Ctrl-D)"},
    };
    bool found = false;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (word == NULL || strcmp(word, rows[i].word) == 0) {
            (void)fprintf(out, "  %-40s %s\n", rows[i].form, rows[i].what);
            found = true;
        }
    }
    if (!found)
        (void)fprintf(out, "  there is no command '%.40s'; HELP lists them\n", word);
    if (word == NULL || strcmp(word, "PAIR_REDUCE") == 0)
        (void)fputs("  modes: counts probabilities continuations topk contexts links matrix cache bias meta "
                    "payloads queue-drain\n",
                    out);
    if (word == NULL || CHT_BEGINS(word, "PAIR_"))
        (void)fputs(
            "  PAIR, PREFIX, after: bytes as text, or x and hexadecimal (x6374783a is ctx:), or * for none\n"
            "  limit: 256 unless said, at most 4096; negative: no limit\n",
            out);
}
