/* log: see log.h. */
#include "service/log.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"
#include "os/thread.h"

#include <stdarg.h>
#include <stdio.h>

#define QUEUE_MAX (4u << 20)

struct log {
    bool json;
    enum log_level least;
    struct cht_mutex mu;
    struct cht_cond work;
    struct out queue;  /* guarded by mu */
    uint64_t dropped;  /* lines, guarded by mu */
    uint64_t reported; /* of them; the writer's */
    bool stop;         /* guarded by mu */
    struct cht_thread thread;
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* What people read; control characters of a client's text are no commands to their terminal. */
static void out_plain(struct out *o, const char *text)
{
    struct out escaped = {0};
    out_string(&escaped, text, strlen(text));
    for (size_t i = 1; i + 1 < escaped.n && !escaped.failed; i++) {
        bool quoted = escaped.p[i] == '\\' && (escaped.p[i + 1] == '"' || escaped.p[i + 1] == '\\');
        out_bytes(o, escaped.p + i + quoted, 1);
        i += quoted;
    }
    out_free(&escaped);
}

static void *writer(void *arg)
{
    struct log *l = arg;
    struct out mine = {0};
    cht_mutex_lock(&l->mu);
    for (;;) {
        while (l->queue.n == 0 && !l->stop)
            cht_cond_wait(&l->work, &l->mu);
        if (l->queue.n == 0)
            break;
        struct out full = l->queue;
        uint64_t lost = l->dropped - l->reported;
        l->reported = l->dropped;
        l->queue = mine;
        cht_mutex_unlock(&l->mu);
        (void)fwrite(full.p, 1, full.n, stderr); /* a log that cannot be written cannot be reported either */
        (void)fflush(stderr);
        if (lost > 0)
            log_say(l, LOG_WARN, "log_lines_dropped", "%llu lines were dropped", (unsigned long long)lost);
        mine = full;
        out_reset(&mine, QUEUE_MAX);
        cht_mutex_lock(&l->mu);
    }
    cht_mutex_unlock(&l->mu);
    out_free(&mine);
    return NULL;
}

/* Days since 1970 to a date (Howard Hinnant, "chrono-compatible low-level date algorithms", 2013). */
static void civil(uint64_t days, unsigned *y, unsigned *m, unsigned *d)
{
    uint64_t z = days + 719468, era = z / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    *d = doy - (153 * mp + 2) / 5 + 1;
    *m = mp < 10 ? mp + 3 : mp - 9;
    *y = yoe + (unsigned)era * 400 + (*m <= 2);
}

static void digits(char *p, unsigned v, unsigned n)
{
    while (n-- > 0) {
        p[n] = (char)('0' + v % 10);
        v /= 10;
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

void log_time(char *p, uint64_t wall_ns)
{
    uint64_t ms = wall_ns / 1000000, s = ms / 1000;
    unsigned y, m, d, rest = (unsigned)(s % 86400);
    civil(s / 86400, &y, &m, &d);
    (void)CHT_PUT(p, "0000-00-00T00:00:00.000Z");
    digits(p, y, 4);
    digits(p + 5, m, 2);
    digits(p + 8, d, 2);
    digits(p + 11, rest / 3600, 2);
    digits(p + 14, rest / 60 % 60, 2);
    digits(p + 17, rest % 60, 2);
    digits(p + 20, (unsigned)(ms % 1000), 3);
}

enum cht_rc log_new(bool json, enum log_level least, struct log **out, struct cht_err *err)
{
    struct log *l = cht_calloc(1, sizeof *l);
    if (l == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the log");
    l->json = json;
    l->least = least;
    enum cht_rc rc = cht_mutex_init(&l->mu, err);
    if (rc == CHT_OK)
        rc = cht_cond_init(&l->work, err);
    if (rc == CHT_OK)
        rc = cht_thread_start(&l->thread, "cht-log", writer, l, err);
    if (rc != CHT_OK) {
        cht_free(l);
        return rc;
    }
    *out = l;
    return CHT_OK;
}

void log_free(struct log *l)
{
    if (l == NULL)
        return;
    cht_mutex_lock(&l->mu);
    l->stop = true;
    cht_cond_signal(&l->work);
    cht_mutex_unlock(&l->mu);
    cht_thread_join(&l->thread);
    out_free(&l->queue);
    cht_cond_fini(&l->work);
    cht_mutex_fini(&l->mu);
    cht_free(l);
}

bool log_wants(const struct log *l, enum log_level level) { return level <= l->least; }
bool log_json(const struct log *l) { return l->json; }

uint64_t log_dropped(struct log *l)
{
    cht_mutex_lock(&l->mu);
    uint64_t n = l->dropped;
    cht_mutex_unlock(&l->mu);
    return n;
}

void log_lines(struct log *l, const char *lines, size_t n, uint64_t count)
{
    cht_mutex_lock(&l->mu);
    if (l->queue.n + n > QUEUE_MAX || !out_room(&l->queue, n))
        l->dropped += count;
    else
        out_bytes(&l->queue, lines, n);
    cht_cond_signal(&l->work);
    cht_mutex_unlock(&l->mu);
}

void log_event(struct log *l, enum log_level level, const char *event, const char *fields, const char *text)
{
    struct out line = {0};
    char when[24];
    if (!log_wants(l, level))
        return;
    log_time(when, cht_wall_ns());
    if (l->json) {
        out_text(&line, "{\"time\":\"");
        out_bytes(&line, when, sizeof when);
        out_text(&line, "\",\"level\":\"");
        out_text(&line, level_names[level]);
        out_text(&line, "\",\"event\":\"");
        out_text(&line, event);
        out_text(&line, fields[0] != 0 ? "\"," : "\"");
        out_text(&line, fields);
        out_text(&line, "}\n");
    } else {
        out_bytes(&line, when, sizeof when);
        out_text(&line, " ");
        out_text(&line, level_names[level]);
        out_text(&line, " ");
        out_text(&line, event);
        out_text(&line, " ");
        out_plain(&line, text);
        out_text(&line, "\n");
    }
    if (!line.failed)
        log_lines(l, line.p, line.n, 1);
    out_free(&line);
}

void log_say(struct log *l, enum log_level level, const char *event, const char *fmt, ...)
{
    char text[600];
    struct out fields = {0};
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    out_text(&fields, "\"message\":");
    out_string(&fields, text, strlen(text));
    out_bytes(&fields, "", 1);
    if (!fields.failed)
        log_event(l, level, event, fields.p, text);
    out_free(&fields);
}
