/* detached: see detached.h. */
#include "tcp/detached.h"

#include "tcp/answer.h"
#include "tcp/host.h"
#include "tcp/words.h"

#include "base/alloc.h"
#include "base/b64.h"
#include "base/clock.h"
#include "base/literal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 1000u
#define ID_MAX 40u

enum kind { REDUCE, INHERIT, BATCH };
static const char *const kinds[] = {[REDUCE] = "reduce", [INHERIT] = "predict_inherit", [BATCH] = "batch"};

struct line_detached {
    struct line_detached *older;
    char id[ID_MAX];
    char database[CHT_DATABASE_NAME_MAX + 1];
    enum kind kind;
    uint64_t born, total;
    struct svc_out answer; /* after SUCCESS, */
    struct svc_out more;   /* ,name=value ... of its state */
    struct line_answers answers;
    size_t bytes;
};

/* ---- what is kept --------------------------------------------------------------------------------------------------- */

static void free_one(struct line_detached *d)
{
    if (d == NULL)
        return;
    svc_out_free(&d->answer);
    svc_out_free(&d->more);
    line_answers_free(&d->answers);
    cht_free(d);
}

/* Takes it out of the list; mu held. */
static void take_out(struct line_host *h, struct line_detached **at)
{
    struct line_detached *d = *at;
    *at = d->older;
    h->kept--;
    h->kept_bytes -= d->bytes;
    free_one(d);
}

/* What is too old, too much or too many goes; mu held. */
static void clean(struct line_host *h)
{
    uint64_t now = cht_now_ns(), bytes = 0;
    size_t n = 0;
    for (struct line_detached **at = &h->newest; *at != NULL;) {
        bytes += (*at)->bytes;
        bool keep = n == 0 || (n < LINE_KEPT_MAX && bytes <= LINE_KEPT_BYTES);
        if (keep && now - (*at)->born <= LINE_KEPT_NS) {
            n++;
            at = &(*at)->older;
        } else {
            bytes -= (*at)->bytes;
            take_out(h, at);
        }
    }
}

static struct line_detached *new_one(const struct line_session *s, enum kind kind)
{
    struct line_detached *d = cht_calloc(1, sizeof *d);
    if (d == NULL)
        return NULL;
    d->kind = kind;
    d->born = cht_now_ns();
    memcpy(d->database, s->database, sizeof d->database);
    return d;
}

/* Keeps it and gives it its id; false: something of it found no memory, and it is gone. */
static bool keep(struct line_session *s, struct line_detached *d, char id[ID_MAX])
{
    struct line_host *h = s->host->shared;
    if (d == NULL || d->answer.failed || d->more.failed) {
        free_one(d);
        return false;
    }
    d->bytes = sizeof *d + d->answer.n + d->more.n + d->answers.text.n + d->answers.n * sizeof(size_t);
    cht_mutex_lock(&h->mu);
    (void)snprintf(d->id, sizeof d->id, "%s_%" PRIu64, kinds[d->kind], ++h->serial); /* fits */
    memcpy(id, d->id, sizeof d->id);
    d->older = h->newest;
    h->newest = d;
    h->kept++;
    h->kept_bytes += d->bytes;
    clean(h);
    cht_mutex_unlock(&h->mu);
    return true;
}

/* Where the one of this id is, in the session's database; NULL: nowhere. mu held. */
static struct line_detached **find(struct line_session *s, struct cht_str id, int kind)
{
    struct line_host *h = s->host->shared;
    clean(h);
    for (struct line_detached **at = &h->newest; *at != NULL; at = &(*at)->older) {
        const struct line_detached *d = *at;
        if (strlen(d->id) == id.n && memcmp(d->id, id.p, id.n) == 0 &&
            strcmp(d->database, s->database) == 0 && (kind < 0 || kind == (int)d->kind))
            return at;
    }
    return NULL;
}

/* ---- running -------------------------------------------------------------------------------------------------------- */

/* The number after a name in an answer; 0 if it is not there. */
static uint64_t number_in(struct cht_str answer, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i + n < answer.n; i++) {
        if (memcmp(answer.p + i, name, n) == 0)
            return strtoull((const char *)answer.p + i + n, NULL,
                            10); /* ends at what is no digit: a copy has a NUL */
    }
    return 0;
}

/* From the name up to the next comma, with a comma before it. */
static void put_field(struct svc_out *o, struct cht_str answer, const char *name)
{
    size_t n = strlen(name), i = 0;
    while (i + n <= answer.n && memcmp(answer.p + i, name, n) != 0)
        i++;
    if (i + n > answer.n)
        return;
    const uint8_t *end = memchr(answer.p + i, ',', answer.n - i);
    svc_out_text(o, ",");
    svc_out_bytes(o, answer.p + i, end != NULL ? (size_t)(end - (answer.p + i)) : answer.n - i);
}

/* Runs a line that is not a BATCH; NULL: its error is answered. */
static struct line_detached *run_line(struct line_session *s, enum kind kind, const char *verb,
                                      struct cht_str rest)
{
    struct svc_out line = {0};
    struct line_answers answers = {0};
    struct line_nested n;
    struct line_detached *d = NULL;
    svc_out_format(&line, "%s ", verb);
    svc_out_bytes(&line, rest.p, rest.n);
    svc_out_text(&line, "\n");
    line_nested_init(&n, s, &answers);
    n.most = SIZE_MAX / 2; /* one page, which has its own bound */
    enum cht_rc rc = line.failed ? CHT_NO_MEMORY : line_nested_run(&n, line.p, line.n);
    line_nested_fini(&n);
    svc_out_free(&line);
    if (rc == CHT_OK)
        svc_out_bytes(&answers.text, "", 1);
    if (rc == CHT_OK && (answers.n != 1 || answers.text.failed))
        rc = CHT_NO_MEMORY;
    struct cht_str answer = rc == CHT_OK ? line_answers_at(&answers, 0) : (struct cht_str){0};
    if (rc == CHT_OK && line_is_error(answer)) {
        line_session_counted(s, s->command.verb, true);
        svc_out_bytes(&s->out, answer.p, answer.n);
        svc_out_text(&s->out, "\n");
    } else {
        d = rc == CHT_OK ? new_one(s, kind) : NULL;
        if (d == NULL)
            line_session_failed(s, rc == CHT_OK ? CHT_NO_MEMORY : rc);
    }
    if (d != NULL) {
        const size_t head = sizeof "SUCCESS," - 1;
        svc_out_bytes(&d->answer, answer.p + head, answer.n - head);
        d->total = number_in(answer, kind == REDUCE ? ",count=" : ",total=");
        static const char *const fields[][4] = {
            [REDUCE] = {"reducer="}, [INHERIT] = {"merged=", "skipped=", "failed=", "table="}};
        for (size_t i = 0; i < 4 && fields[kind][i] != NULL; i++)
            put_field(&d->more, answer, fields[kind][i]);
    }
    line_answers_free(&answers);
    return d;
}

static struct line_detached *take_batch(struct line_session *s, struct line_many *m)
{
    struct line_detached *d = new_one(s, BATCH);
    if (d == NULL)
        return NULL;
    line_many_put(m, &d->answer);
    d->total = m->requested;
    svc_out_format(&d->more, ",applied=%zu,failed=%zu,available=%zu,target=%s", m->answers.n - m->failed,
                   m->failed, m->answers.n, m->target);
    d->answers = m->answers;
    m->answers = (struct line_answers){0};
    return d;
}

/* ---- submit --------------------------------------------------------------------------------------------------------- */

/* The line to run: base64, or what follows. In `room`, which is owned. An error word, or NULL. */
static const char *command_line(struct cht_str words, uint8_t **room, struct cht_str *line)
{
    struct cht_str text, first = words;
    struct line_word named;
    first = line_words_next(&first);
    bool coded =
        first.n > 0 && line_word_split(first, &named) && line_words_get(words, "command", "cmd", &text);
    if (!coded)
        text = words;
    size_t n = 0, padded = (text.n + 3) / 4 * 4;
    *room = cht_malloc(padded + cht_b64_decoded_max(padded) + 1);
    if (*room == NULL)
        return cht_rc_slug(CHT_NO_MEMORY);
    memset(*room, '=', padded);
    if (text.n > 0)
        memcpy(*room, text.p, text.n);
    *line = (struct cht_str){.p = *room, .n = text.n};
    if (coded) {
        if (!cht_b64_decode(*room + padded, (const char *)*room, padded, &n))
            return "invalid_job_command: base64 is expected";
        *line = (struct cht_str){.p = *room + padded, .n = n};
    }
    while (line->n > 0 && (*line->p == ' ' || *line->p == '\n' || *line->p == '\r')) {
        line->p++;
        line->n--;
    }
    while (line->n > 0 && memchr(" \r\n", line->p[line->n - 1], 3) != NULL)
        line->n--;
    if (line->n > 0 && memchr(line->p, '\n', line->n) != NULL)
        return "invalid_job_command: one line is expected";
    return line->n == 0 ? "job_submit_requires_command" : NULL;
}

static void answer_submitted(struct line_session *s, struct line_detached *d, const char *command)
{
    char id[ID_MAX];
    struct svc_out *o = &s->out;
    struct svc_out more = {0};
    if (d == NULL) {
        line_session_failed(s, CHT_NO_MEMORY);
        return;
    }
    const char *kind = kinds[d->kind];
    uint64_t total = d->total;
    if (d->kind == REDUCE || d->kind == INHERIT)
        svc_out_bytes(&more, d->more.p, d->more.n);
    if (!keep(s, d, id)) {
        line_session_failed(s, CHT_NO_MEMORY);
    } else {
        line_session_counted(s, s->command.verb, false);
        svc_out_format(o, "SUCCESS,job=%s,kind=%s,command=%s,state=completed,total=%" PRIu64, id, kind,
                       command, total);
        svc_out_bytes(o, more.p, more.n);
        svc_out_text(o, "\n");
    }
    svc_out_free(&more);
}

static void submit(struct line_session *s, struct cht_str words)
{
    uint8_t *room = NULL;
    struct cht_str line, rest;
    const char *error = command_line(words, &room, &line);
    if (error == NULL) {
        rest = line;
        const struct line_word verb = {.name = line_words_next(&rest)};
        struct line_many m;
        struct line_detached *d = NULL;
        if (line_word_is(&verb, "pair_reduce")) {
            d = run_line(s, REDUCE, "PAIR_REDUCE", rest);
            if (d != NULL)
                answer_submitted(s, d, "PAIR_REDUCE");
        } else if (line_word_is(&verb, "predict_inherit_batch")) {
            d = run_line(s, INHERIT, "PREDICT_INHERIT_BATCH", rest);
            if (d != NULL)
                answer_submitted(s, d, "PREDICT_INHERIT_BATCH");
        } else if (!line_word_is(&verb, "batch")) {
            error = "command_not_submittable";
        } else if (line_many_begin(&m, s, rest)) {
            if (line_many_run(&m))
                line_detached_batch(s, &m);
            line_many_free(&m);
        }
    }
    if (error != NULL)
        line_session_error(s, s->command.verb, error);
    cht_free(room);
}

/* ---- status, results, fetch ------------------------------------------------------------------------------------------ */

/* id=J, job=J, or J. */
static struct cht_str id_of(struct cht_str words)
{
    struct cht_str id, first = line_words_next(&(struct cht_str){.p = words.p, .n = words.n});
    struct line_word named;
    if (line_words_get(words, "id", "job", &id))
        return id;
    return first.n > 0 && !line_word_split(first, &named) ? first : (struct cht_str){0};
}

static void put_status(struct line_session *s, const struct line_detached *d)
{
    struct svc_out *o = &s->out;
    svc_out_format(o, "SUCCESS,job=%s", d->id);
    if (s->command.verb == LINE_JOB)
        svc_out_format(o, ",kind=%s", kinds[d->kind]);
    svc_out_text(o, ",state=completed,progress=100.00");
    if (s->command.verb == LINE_JOB || d->kind == INHERIT) {
        svc_out_format(o, ",completed=%" PRIu64 ",total=%" PRIu64, d->total, d->total);
        svc_out_bytes(o, d->more.p, d->more.n);
    }
}

static void put_fetched(struct line_session *s, const struct line_detached *d)
{
    struct svc_out *o = &s->out;
    svc_out_text(o, "SUCCESS,");
    if (s->command.verb != LINE_PAIR_REDUCE_FETCH)
        svc_out_format(o, "job=%s,", d->id);
    svc_out_bytes(o, d->answer.p, d->answer.n);
}

/* A number of the words; false: it is none. */
static bool take_number(struct cht_str words, const char *name, size_t *out)
{
    struct cht_str text;
    size_t v = 0;
    if (!line_words_get(words, name, NULL, &text))
        return true;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9' || v > SIZE_MAX / 20)
            return false;
        v = v * 10 + (size_t)(text.p[i] - '0');
    }
    *out = v;
    return text.n > 0;
}

static const char *put_results(struct line_session *s, const struct line_detached *d, struct cht_str words)
{
    struct svc_out *o = &s->out;
    size_t from = 0, limit = PAGE, n = d->answers.n;
    if (!take_number(words, "from", &from))
        return "invalid_from";
    if (!take_number(words, "limit", &limit))
        return "invalid_limit";
    limit = limit == 0 || limit > PAGE ? PAGE : limit;
    from = from < n ? from : n;
    size_t to = n - from < limit ? n : from + limit;
    svc_out_format(
        o, "SUCCESS,job=%s,kind=%s,state=completed,from=%zu,count=%zu,next=%zu,available=%zu,total=%" PRIu64,
        d->id, kinds[d->kind], from, to - from, to, n, d->total);
    if (to > from)
        line_many_put_payload(&d->answers, from, to, o);
    return NULL;
}

enum what { STATUS, RESULTS, FETCH };

static void show(struct line_session *s, enum what what, struct cht_str words, int kind)
{
    struct line_host *h = s->host->shared;
    struct cht_str id = id_of(words);
    const char *error = id.n == 0 ? "missing_job_id" : NULL;
    cht_mutex_lock(&h->mu);
    struct line_detached **at = error == NULL ? find(s, id, kind) : NULL;
    if (error == NULL && at == NULL)
        error = kind == REDUCE    ? "reduce_job_not_found"
                : kind == INHERIT ? "predict_inherit_job_not_found"
                                  : "job_not_found";
    else if (at != NULL && what == RESULTS)
        error = put_results(s, *at, words);
    else if (at != NULL && what == STATUS)
        put_status(s, *at);
    else if (at != NULL) {
        put_fetched(s, *at);
        take_out(h, at);
    }
    cht_mutex_unlock(&h->mu);
    if (error != NULL) {
        line_session_error(s, s->command.verb, error);
        return;
    }
    line_session_counted(s, s->command.verb, false);
    svc_out_text(&s->out, "\n");
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_detached_batch(struct line_session *s, struct line_many *m)
{
    answer_submitted(s, take_batch(s, m), "BATCH");
}

void line_detached_forget(struct line_session_host *host, const char *database)
{
    struct line_host *h = host->shared;
    cht_mutex_lock(&h->mu);
    for (struct line_detached **at = &h->newest; *at != NULL;) {
        if (database == NULL || strcmp((*at)->database, database) == 0)
            take_out(h, at);
        else
            at = &(*at)->older;
    }
    cht_mutex_unlock(&h->mu);
}

void line_session_batch(struct line_session *s)
{
    struct line_many m;
    if (!line_many_begin(&m, s, s->command.value))
        return;
    bool ran = line_many_run(&m);
    if (ran && m.later) {
        line_detached_batch(s, &m);
    } else if (ran) {
        line_session_counted(s, LINE_BATCH, false);
        svc_out_text(&s->out, "SUCCESS,");
        line_many_put(&m, &s->out);
        svc_out_text(&s->out, "\n");
    }
    line_many_free(&m);
}

void line_session_detached(struct line_session *s)
{
    struct cht_str words = s->command.value;
    const struct line_word action = {.name = line_words_next(&words)};
    if (action.name.n == 0)
        line_session_error(s, LINE_JOB, "job_requires_action");
    else if (line_word_is(&action, "submit"))
        submit(s, words);
    else if (line_word_is(&action, "status"))
        show(s, STATUS, words, -1);
    else if (line_word_is(&action, "results"))
        show(s, RESULTS, words, -1);
    else if (line_word_is(&action, "fetch"))
        show(s, FETCH, words, -1);
    else
        line_session_error(s, LINE_JOB, "unknown_job_action");
}

void line_session_detached_old(struct line_session *s)
{
    struct cht_str words = s->command.value;
    char id[ID_MAX];
    struct line_detached *d;
    switch (s->command.verb) {
    case LINE_PAIR_REDUCE_STATUS:
    case LINE_PAIR_REDUCE_FETCH:
        show(s, s->command.verb == LINE_PAIR_REDUCE_FETCH ? FETCH : STATUS, words, REDUCE);
        return;
    case LINE_PREDICT_INHERIT_STATUS:
    case LINE_PREDICT_INHERIT_FETCH:
        show(s, s->command.verb == LINE_PREDICT_INHERIT_FETCH ? FETCH : STATUS, words, INHERIT);
        return;
    default:
        break;
    }
    bool reduce = s->command.verb == LINE_PAIR_REDUCE_ASYNC;
    d = reduce ? run_line(s, REDUCE, "PAIR_REDUCE", words)
               : run_line(s, INHERIT, "PREDICT_INHERIT_BATCH", words);
    if (d == NULL)
        return;
    struct svc_out head = {0};
    put_field(&head, (struct cht_str){.p = (const uint8_t *)d->answer.p, .n = d->answer.n},
              reduce ? "reducer=" : "table=");
    uint64_t total = d->total;
    if (!keep(s, d, id)) {
        line_session_failed(s, CHT_NO_MEMORY);
    } else {
        line_session_counted(s, s->command.verb, false);
        svc_out_text(&s->out, "SUCCESS");
        svc_out_bytes(&s->out, head.p, head.n);
        svc_out_format(&s->out, ",job=%s,state=completed", id);
        if (!reduce)
            svc_out_format(&s->out, ",total=%" PRIu64, total);
        svc_out_text(&s->out, "\n");
    }
    svc_out_free(&head);
}
