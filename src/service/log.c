/* log: see log.h. */
#include "service/log.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"
#include "os/thread.h"

#include <stdarg.h>
#include <stdio.h>

#define QUEUE_MAX (4u << 20)

struct svc_log {
    bool json;
    enum svc_log_level least;
    struct cht_mutex mu;
    struct cht_cond work;
    struct svc_out queue; /* guarded by mu */
    uint64_t dropped;     /* lines, guarded by mu */
    uint64_t reported;    /* of them; the writer's */
    bool stop;            /* guarded by mu */
    struct cht_thread thread;
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* What people read; control characters of a client's text are no commands to their terminal. */
static void out_plain(struct svc_out *o, const char *text)
{
    struct svc_out escaped = {0};
    svc_out_string(&escaped, text, strlen(text));
    for (size_t i = 1; i + 1 < escaped.n && !escaped.failed; i++) {
        bool quoted = escaped.p[i] == '\\' && (escaped.p[i + 1] == '"' || escaped.p[i + 1] == '\\');
        svc_out_bytes(o, escaped.p + i + quoted, 1);
        i += quoted;
    }
    svc_out_free(&escaped);
}

static void *writer(void *arg)
{
    struct svc_log *l = arg;
    struct svc_out mine = {0};
    cht_mutex_lock(&l->mu);
    for (;;) {
        while (l->queue.n == 0 && !l->stop)
            cht_cond_wait(&l->work, &l->mu);
        if (l->queue.n == 0)
            break;
        struct svc_out full = l->queue;
        uint64_t lost = l->dropped - l->reported;
        l->reported = l->dropped;
        l->queue = mine;
        cht_mutex_unlock(&l->mu);
        (void)fwrite(full.p, 1, full.n, stderr); /* a log that cannot be written cannot be reported either */
        (void)fflush(stderr);
        if (lost > 0)
            svc_log_say(l, SVC_LOG_WARN, "log_lines_dropped", "%llu lines were dropped",
                        (unsigned long long)lost);
        mine = full;
        svc_out_reset(&mine, QUEUE_MAX);
        cht_mutex_lock(&l->mu);
    }
    cht_mutex_unlock(&l->mu);
    svc_out_free(&mine);
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

void svc_log_time(char *p, uint64_t wall_ns)
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

enum cht_rc svc_log_new(bool json, enum svc_log_level least, struct svc_log **out, struct cht_err *err)
{
    struct svc_log *l = cht_calloc(1, sizeof *l);
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

void svc_log_free(struct svc_log *l)
{
    if (l == NULL)
        return;
    cht_mutex_lock(&l->mu);
    l->stop = true;
    cht_cond_signal(&l->work);
    cht_mutex_unlock(&l->mu);
    cht_thread_join(&l->thread);
    svc_out_free(&l->queue);
    cht_cond_fini(&l->work);
    cht_mutex_fini(&l->mu);
    cht_free(l);
}

bool svc_log_wants(const struct svc_log *l, enum svc_log_level level) { return level <= l->least; }
bool svc_log_json(const struct svc_log *l) { return l->json; }

uint64_t svc_log_dropped(struct svc_log *l)
{
    cht_mutex_lock(&l->mu);
    uint64_t n = l->dropped;
    cht_mutex_unlock(&l->mu);
    return n;
}

void svc_log_lines(struct svc_log *l, const char *lines, size_t n, uint64_t count)
{
    cht_mutex_lock(&l->mu);
    if (l->queue.n + n > QUEUE_MAX || !svc_out_room(&l->queue, n))
        l->dropped += count;
    else
        svc_out_bytes(&l->queue, lines, n);
    cht_cond_signal(&l->work);
    cht_mutex_unlock(&l->mu);
}

void svc_log_event(struct svc_log *l, enum svc_log_level level, const char *event, const char *fields,
                   const char *text)
{
    struct svc_out line = {0};
    char when[24];
    if (!svc_log_wants(l, level))
        return;
    svc_log_time(when, cht_wall_ns());
    if (l->json) {
        svc_out_text(&line, "{\"time\":\"");
        svc_out_bytes(&line, when, sizeof when);
        svc_out_text(&line, "\",\"level\":\"");
        svc_out_text(&line, level_names[level]);
        svc_out_text(&line, "\",\"event\":\"");
        svc_out_text(&line, event);
        svc_out_text(&line, fields[0] != 0 ? "\"," : "\"");
        svc_out_text(&line, fields);
        svc_out_text(&line, "}\n");
    } else {
        svc_out_bytes(&line, when, sizeof when);
        svc_out_text(&line, " ");
        svc_out_text(&line, level_names[level]);
        svc_out_text(&line, " ");
        svc_out_text(&line, event);
        svc_out_text(&line, " ");
        out_plain(&line, text);
        svc_out_text(&line, "\n");
    }
    if (!line.failed)
        svc_log_lines(l, line.p, line.n, 1);
    svc_out_free(&line);
}

void svc_log_say(struct svc_log *l, enum svc_log_level level, const char *event, const char *fmt, ...)
{
    char text[600];
    struct svc_out fields = {0};
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    svc_out_text(&fields, "\"message\":");
    svc_out_string(&fields, text, strlen(text));
    svc_out_bytes(&fields, "", 1);
    if (!fields.failed)
        svc_log_event(l, level, event, fields.p, text);
    svc_out_free(&fields);
}
