/* databases: the commands that make, choose and empty databases, and what today's client sets of them.
 *
 *   DATABASE NAME [setting=value ...]       SUCCESS,database_changed_to_NAME        the session's from now on; made if it may be
 *   RESET_DB [NAME [settings]]              SUCCESS,database_reset_to_NAME          dropped and made anew, and the session's
 *   DB_CREATE NAME [settings]               SUCCESS,database_created=NAME,<settings>
 *   DB_CONFIG NAME [settings]               SUCCESS,database_configured=NAME,loaded=1,applied=A;B,on_open=-,reopen=-,reset=-,<settings>
 *   DB_LIST                                 SUCCESS,count=9,default=default,payload=base64([{"name","path","loaded","ad_hoc_settings","settings"}])
 *
 * The settings are those of another engine and change nothing here. They are kept with the database, so that a client sees what it has
 * set: a pair of that database, SETTINGS, with `name=value` words that differ from the defaults.
 */
#include "tcp/session.h"

#include "tcp/answer.h"
#include "tcp/detached.h"
#include "tcp/words.h"

#include "base/b64.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESET_WAIT_NS UINT64_C(30000000000)
#define SETTINGS "\x10set:line"
#define VALUE_MAX 32u
#define DIGITS_MAX 18u /* of a whole number: what fits 64 bits everywhere */

enum setting_kind { NUMBER, FRACTION, FLAG, DURATION };
static const struct setting {
    const char *name, *fallback;
    enum setting_kind kind;
    bool applied; /* at once; else with RESET_DB */
} known[] = {
    {"pair_index_bytes", "1", NUMBER, false},
    {"sharded_key_slots", "0", FLAG, false},
    {"key_slot_bits", "12", NUMBER, false},
    {"adaptive_pair_index", "1", FLAG, false},
    {"pair_list_max_bytes", "4096", NUMBER, false},
    {"pair_list_max_fill_percent", "0", NUMBER, false},
    {"payload_cache_entries", "16384", NUMBER, true},
    {"payload_cache_bytes", "67108864", NUMBER, true},
    {"graph_cache_enabled", "1", FLAG, true},
    {"graph_cache_sample", "0.25", FRACTION, true},
    {"graph_cache_capacity", "65536", NUMBER, true},
    {"graph_cache_half_life", "6h0m0s", DURATION, true},
    {"graph_cache_min_utility", "0.05", FRACTION, true},
    {"graph_cache_budget", "64", NUMBER, true},
    {"graph_cache_interval", "15s", DURATION, true},
    {"graph_cache_page", "256", NUMBER, true},
};
#define KNOWN (sizeof known / sizeof *known)

struct settings {
    char value[KNOWN][VALUE_MAX];
    bool own[KNOWN];   /* not the default */
    bool named[KNOWN]; /* of the command under way */
};

/* ---- settings ----------------------------------------------------------------------------------------------------- */

static bool is_value(enum setting_kind kind, struct cht_str v)
{
    static const char *const more[] = {
        [NUMBER] = "", [FRACTION] = ".eE+-", [FLAG] = "", [DURATION] = ".hmsun"};
    if (v.n == 0 || v.n >= VALUE_MAX || v.p[0] < '0' || v.p[0] > '9')
        return false;
    for (size_t i = 0; i < v.n; i++) {
        if ((v.p[i] < '0' || v.p[i] > '9') && (v.p[i] == 0 || strchr(more[kind], v.p[i]) == NULL))
            return false;
    }
    return true;
}

/* As DB_LIST shows it, where a number is one of JSON: without zeros before it, and with digits around a point. False: it is none. */
static bool keep_value(enum setting_kind kind, struct cht_str v, char text[VALUE_MAX])
{
    char *end = text;
    while (kind == NUMBER && v.n > 1 && v.p[0] == '0') {
        v.p++;
        v.n--;
    }
    if (!is_value(kind, v) || (kind == NUMBER && v.n > DIGITS_MAX))
        return false;
    memcpy(text, v.p, v.n);
    text[v.n] = 0;
    if (kind != FRACTION)
        return true;
    double d = strtod(text, &end);
    return *end == 0 && isfinite(d) && snprintf(text, VALUE_MAX, "%.15g", d) > 0;
}

/* The setting that a word names, and its value as it is kept, in `text`, which is empty if it is none of that setting. NULL: unknown. */
static const struct setting *find(const struct line_word *w, char text[VALUE_MAX])
{
    static const char *const aliases[][2] = {{"pair_bytes", "pair_index_bytes"},
                                             {"payload_cache_mb", "payload_cache_bytes"},
                                             {"graph_cache_page_size", "graph_cache_page"}};
    const char *alias = NULL;
    size_t i = 0;
    for (size_t k = 0; k < sizeof aliases / sizeof *aliases; k++) {
        if (line_word_is(w, aliases[k][0]))
            alias = aliases[k][1];
    }
    while (i < KNOWN && (alias != NULL ? strcmp(known[i].name, alias) != 0 : !line_word_is(w, known[i].name)))
        i++;
    if (i == KNOWN)
        return NULL;
    text[0] = 0;
    if (known[i].kind == FLAG) {
        memcpy(text, line_flag(w->value) ? "1" : "0", 2);
    } else if (!keep_value(known[i].kind, w->value, text)) {
        text[0] = 0;
    }
    if (line_word_is(w, "payload_cache_mb")) {
        unsigned long long mib = strtoull(text, NULL, 10);
        if (text[0] == 0 || snprintf(text, VALUE_MAX, "%llu", mib << 20) < 0 || mib > UINT32_MAX)
            text[0] = 0;
    }
    return &known[i];
}

static void defaults(struct settings *t)
{
    memset(t, 0, sizeof *t);
    for (size_t i = 0; i < KNOWN; i++)
        memcpy(t->value[i], known[i].fallback, strlen(known[i].fallback) + 1);
}

/* Takes the words over; NULL, or what is wrong with *bad. */
static const char *take(struct settings *t, struct cht_str words, struct cht_str *bad)
{
    for (struct cht_str w = line_words_next(&words); w.n > 0; w = line_words_next(&words)) {
        struct line_word named;
        char text[VALUE_MAX];
        *bad = w;
        if (!line_word_split(w, &named))
            return "invalid override token";
        const struct setting *known_one = find(&named, text);
        *bad = named.name;
        if (known_one == NULL)
            return "unknown override";
        if (text[0] == 0)
            return "invalid override value of";
        size_t i = (size_t)(known_one - known);
        memcpy(t->value[i], text, sizeof text);
        t->own[i] = strcmp(text, known[i].fallback) != 0;
        t->named[i] = true;
    }
    return NULL;
}

/* What is kept with the database; nothing, if it was never set or cannot be read as such. */
static enum cht_rc load(struct svc_database *d, struct settings *t, struct cht_err *err)
{
    struct cht_buf value = {0};
    uint64_t key;
    uint32_t size;
    struct cht_str name = {.p = (const uint8_t *)SETTINGS, .n = sizeof SETTINGS - 1}, bad;
    defaults(t);
    enum cht_rc rc = cht_store_pair_value(d->store, name, &key, &value, &size, err);
    if (rc == CHT_OK && take(t, (struct cht_str){.p = value.data, .n = value.len}, &bad) != NULL)
        defaults(t); /* written by something else */
    memset(t->named, 0, sizeof t->named);
    cht_buf_free(&value);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

/* Keeps what differs from the defaults; a blank, if that is nothing. */
static enum cht_rc save(struct svc_database *d, const struct settings *t)
{
    char text[KNOWN * (VALUE_MAX + 32)];
    size_t n = 0;
    for (size_t i = 0; i < KNOWN; i++) {
        if (t->own[i])
            n += (size_t)snprintf(text + n, sizeof text - n, "%s=%s ", known[i].name, t->value[i]);
    }
    if (n == 0)
        text[n++] = ' ';
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                        .name = {(const uint8_t *)SETTINGS, sizeof SETTINGS - 1},
                        .value = {(const uint8_t *)text, n}};
    struct cht_commit c = {.ops = &op, .count = 1};
    enum cht_rc rc = cht_store_commit(d->store, &c);
    return rc == CHT_OK ? op.rc : rc;
}

static bool any(const bool flags[KNOWN])
{
    for (size_t i = 0; i < KNOWN; i++) {
        if (flags[i])
            return true;
    }
    return false;
}

static void put_settings(struct svc_out *o, const struct settings *t)
{
    for (size_t i = 0; i < KNOWN; i++)
        svc_out_format(o, ",%s=%s", known[i].name, t->value[i]);
}

/* ---- names and answers -------------------------------------------------------------------------------------------- */

/* NAME with a NUL, and whether this client may do that there; the words after it. An error word, or NULL. */
static const char *take_name(struct line_session *s, struct cht_str given,
                             char name[CHT_DATABASE_NAME_MAX + 1])
{
    bool valid = given.n > 0 && given.n <= CHT_DATABASE_NAME_MAX && memchr(given.p, 0, given.n) == NULL;
    if (valid) {
        memcpy(name, given.p, given.n);
        name[given.n] = 0;
        valid = cht_database_name_valid(name);
    }
    return valid ? line_session_access(s, name) : line_error_word(CHT_INVALID_DATABASE_NAME);
}

static void refuse(struct line_session *s, const char *what, struct cht_str which)
{
    line_session_counted(s, s->command.verb, true);
    svc_out_text(&s->out, "ERROR,");
    svc_out_text(&s->out, what);
    svc_out_text(&s->out, strcmp(what, "invalid override token") == 0 ? " \"" : " ");
    svc_out_bytes(&s->out, which.p, which.n);
    svc_out_text(&s->out, strcmp(what, "invalid override token") == 0 ? "\"\n" : "\n");
}

/* The name and the settings of the command; `fallback`: the name if none is given, NULL: it must be. False: that is answered. */
static bool arguments(struct line_session *s, const char *fallback, char name[CHT_DATABASE_NAME_MAX + 1],
                      struct settings *t)
{
    struct cht_str words = s->command.value, given = line_words_next(&words), bad;
    if (given.n == 0 && fallback != NULL)
        given = (struct cht_str){.p = (const uint8_t *)fallback, .n = strlen(fallback)};
    const char *error = take_name(s, given, name);
    defaults(t);
    if (error != NULL) {
        line_session_error(s, s->command.verb, error);
        return false;
    }
    error = take(t, words, &bad);
    if (error != NULL) {
        refuse(s, error, bad);
        return false;
    }
    return true;
}

static void moved_to(struct line_session *s, const char *what, const char *name)
{
    memcpy(s->database, name, strlen(name) + 1);
    line_session_counted(s, s->command.verb, false);
    svc_out_text(&s->out, what);
    svc_out_text(&s->out, name);
    svc_out_text(&s->out, "\n");
}

/* What the command set goes over what the database had. */
static enum cht_rc merge(struct svc_database *d, struct settings *t, struct cht_err *err)
{
    struct settings had;
    enum cht_rc rc = load(d, &had, err);
    for (size_t i = 0; i < KNOWN; i++) {
        if (t->named[i])
            continue;
        memcpy(t->value[i], had.value[i], sizeof t->value[i]);
        t->own[i] = had.own[i];
    }
    return rc == CHT_OK && any(t->named) ? save(d, t) : rc;
}

/* ---- DB_LIST -------------------------------------------------------------------------------------------------------- */

struct listing {
    struct line_session *s;
    struct svc_out json;
    size_t n;
    enum cht_rc rc;
};

static void put_json_settings(struct svc_out *o, const struct settings *t)
{
    for (size_t i = 0; i < KNOWN; i++) {
        const char *v = t->value[i];
        if (known[i].kind == FLAG)
            v = strcmp(v, "1") == 0 ? "true" : "false";
        svc_out_format(o, known[i].kind == DURATION ? "%s\"%s\":\"%s\"" : "%s\"%s\":%s", i > 0 ? "," : "",
                       known[i].name, v);
    }
}

/* A database that cannot be opened is listed with the defaults: that it is there is true. */
static void list_one(void *ctx, const char *name)
{
    struct listing *g = ctx;
    struct cht_err err = {0};
    struct settings t;
    struct svc_database *d = svc_dbs_get(g->s->host->dbs, name);
    bool loaded = d != NULL;
    if (g->rc == CHT_OK)
        g->rc = line_session_goes_on(g->s);
    if (g->rc != CHT_OK || line_session_allows(g->s, SVC_RIGHT_READ, name) != NULL) {
        svc_dbs_put(d);
        return;
    }
    if (d == NULL && svc_dbs_visit(g->s->host->dbs, name, &d, &err) != CHT_OK)
        d = NULL;
    if (d == NULL || load(d, &t, &err) != CHT_OK)
        defaults(&t);
    svc_dbs_put(d);
    svc_out_format(&g->json,
                   "%s{\"name\":\"%s\",\"path\":\"\",\"loaded\":%s,\"ad_hoc_settings\":%s,\"settings\":{",
                   g->n++ > 0 ? "," : "", name, loaded ? "true" : "false", any(t.own) ? "true" : "false");
    put_json_settings(&g->json, &t);
    svc_out_text(&g->json, "}}");
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_session_database(struct line_session *s)
{
    char name[CHT_DATABASE_NAME_MAX + 1];
    struct settings t;
    struct svc_database *d = NULL;
    struct cht_err err = {0};
    bool created;
    if (!arguments(s, NULL, name, &t))
        return;
    /* a client that may write there gets a new one, as the first write would make it */
    const char *refused = line_session_allows(s, SVC_RIGHT_WRITE, name);
    if (any(t.named) && refused != NULL) {
        line_session_error(s, LINE_DATABASE, refused);
        return;
    }
    bool create = !s->host->no_creating && refused == NULL;
    enum cht_rc rc = svc_dbs_open(s->host->dbs, name, create, 0, &d, &created, &err);
    if (rc == CHT_OK && any(t.named))
        rc = merge(d, &t, &err);
    svc_dbs_put(d);
    if (rc != CHT_OK)
        line_session_failed(s, rc);
    else
        moved_to(s, "SUCCESS,database_changed_to_", name);
}

/* The database is dropped and made anew; who uses it meanwhile is told database_dropped, or sees the empty one. */
void line_session_reset(struct line_session *s)
{
    char name[CHT_DATABASE_NAME_MAX + 1];
    struct settings t;
    struct svc_database *d = NULL;
    struct cht_err err = {0};
    bool created;
    if (!arguments(s, s->database, name, &t))
        return;
    enum cht_rc rc = svc_dbs_drop(s->host->dbs, name, RESET_WAIT_NS, &err);
    line_detached_forget(s->host, name);
    if (rc == CHT_OK || rc == CHT_DATABASE_NOT_FOUND)
        rc = svc_dbs_open(s->host->dbs, name, true, 0, &d, &created, &err);
    if (rc == CHT_OK && any(t.named))
        rc = save(d, &t);
    svc_dbs_put(d);
    if (rc != CHT_OK)
        line_session_failed(s, rc);
    else
        moved_to(s, "SUCCESS,database_reset_to_", name);
}

void line_session_create(struct line_session *s)
{
    char name[CHT_DATABASE_NAME_MAX + 1];
    struct settings t;
    struct svc_database *d = NULL;
    struct cht_err err = {0};
    bool created = false;
    if (!arguments(s, NULL, name, &t))
        return;
    enum cht_rc rc = svc_dbs_open(s->host->dbs, name, true, 0, &d, &created, &err);
    if (rc == CHT_OK && created && any(t.named))
        rc = save(d, &t);
    svc_dbs_put(d);
    if (rc != CHT_OK) {
        line_session_failed(s, rc);
        return;
    }
    line_session_counted(s, LINE_DB_CREATE, !created);
    svc_out_format(&s->out, created ? "SUCCESS,database_created=%s" : "ERROR,database_exists:%s", name);
    if (created)
        put_settings(&s->out, &t);
    svc_out_text(&s->out, "\n");
}

static void put_names(struct svc_out *o, const char *what, const struct settings *t, bool applied)
{
    size_t n = 0;
    svc_out_format(o, ",%s=", what);
    for (size_t i = 0; i < KNOWN; i++) {
        if (t->named[i] && known[i].applied == applied)
            svc_out_format(o, "%s%s", n++ > 0 ? ";" : "", known[i].name);
    }
    svc_out_text(o, n == 0 ? "-" : "");
}

void line_session_configure(struct line_session *s)
{
    char name[CHT_DATABASE_NAME_MAX + 1];
    struct settings t;
    struct svc_database *d = NULL;
    struct cht_err err = {0};
    bool created;
    if (!arguments(s, NULL, name, &t))
        return;
    const char *refused = any(t.named) ? line_session_allows(s, SVC_RIGHT_ADMIN, name) : NULL;
    if (refused != NULL) {
        line_session_error(s, LINE_DB_CONFIG, refused);
        return;
    }
    enum cht_rc rc = svc_dbs_open(s->host->dbs, name, false, 0, &d, &created, &err);
    if (rc == CHT_OK)
        rc = merge(d, &t, &err);
    svc_dbs_put(d);
    if (rc == CHT_DATABASE_NOT_FOUND) {
        line_session_counted(s, LINE_DB_CONFIG, true);
        svc_out_format(&s->out, "ERROR,database_not_found:%s\n", name);
        return;
    }
    if (rc != CHT_OK) {
        line_session_failed(s, rc);
        return;
    }
    line_session_counted(s, LINE_DB_CONFIG, false);
    svc_out_format(&s->out, "SUCCESS,database_configured=%s,loaded=1", name);
    put_names(&s->out, "applied", &t, true);
    svc_out_text(&s->out, ",on_open=-,reopen=-");
    put_names(&s->out, "reset", &t, false);
    put_settings(&s->out, &t);
    svc_out_text(&s->out, "\n");
}

void line_session_list(struct line_session *s)
{
    struct listing g = {.s = s};
    struct cht_err err = {0};
    svc_out_text(&g.json, "[");
    enum cht_rc rc = svc_dbs_list(s->host->dbs, list_one, &g, &err);
    svc_out_text(&g.json, "]");
    rc = rc == CHT_OK ? g.rc : rc;
    if (rc == CHT_OK && g.json.failed)
        rc = CHT_NO_MEMORY;
    if (rc != CHT_OK) {
        line_session_failed(s, rc);
    } else {
        line_session_counted(s, LINE_DB_LIST, false);
        svc_out_format(&s->out, "SUCCESS,count=%zu,default=%s,payload=", g.n, CHT_DATABASE_DEFAULT);
        if (svc_out_room(&s->out, cht_b64_encoded(g.json.n)))
            s->out.n += cht_b64_encode(s->out.p + s->out.n, (const uint8_t *)g.json.p, g.json.n);
        svc_out_text(&s->out, "\n");
    }
    svc_out_free(&g.json);
}
