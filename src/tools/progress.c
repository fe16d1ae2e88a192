/* progress: see progress.h. */
#include "tools/progress.h"

#include "base/clock.h"
#include "os/terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STDERR 2
#define EVERY_NS UINT64_C(200000000)
#define BAR 24u

void tool_progress_number(char out[16], uint64_t n, bool binary)
{
    static const char *const decimal[] = {"", "k", "M", "G", "T", "P", "E"};
    static const char *const powers[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    double v = (double)n, step = binary ? 1024 : 1000;
    unsigned i = 0;
    while (v >= step && i < 6) {
        v /= step;
        i++;
    }
    const char *unit = binary ? powers[i] : decimal[i];
    if (i == 0) /* 15 characters are enough for every case: three digits, a point, one digit, a unit */
        (void)snprintf(out, 16, "%u%s", (unsigned)n, unit);
    else
        (void)snprintf(out, 16, "%.*f%s", v < 99.95 ? 1 : 0, v, unit);
}

static void draw(struct tool_progress *p, uint64_t now)
{
    char bar[BAR + 1], done[16], total[16], rate[16], line[256];
    unsigned rows, columns;
    double seconds = (double)(now - p->start_ns) / 1e9;
    double per_second = seconds > 0 ? (double)(p->done - p->first) / seconds : 0;
    cht_os_terminal_size(STDERR, &rows, &columns);
    tool_progress_number(done, p->done, p->binary);
    tool_progress_number(total, p->total, p->binary);
    tool_progress_number(rate, (uint64_t)per_second, p->binary);
    int n;
    if (p->total == 0) {
        n = snprintf(line, sizeof line, "%s  %s  %s/s", p->label, done, rate);
    } else {
        uint64_t at = p->done < p->total ? p->done : p->total;
        unsigned full = (unsigned)((double)at / (double)p->total * BAR);
        memset(bar, '=', full);
        memset(bar + full, ' ', BAR - full);
        if (full < BAR)
            bar[full] = '>';
        bar[BAR] = 0;
        uint64_t left = per_second > 0 ? (uint64_t)((double)(p->total - at) / per_second) : 0;
        n = snprintf(line, sizeof line, "%s  [%s] %3u%%  %s of %s  %s/s  %" PRIu64 ":%02u left", p->label,
                     bar, (unsigned)((double)at / (double)p->total * 100), done, total, rate, left / 60,
                     (unsigned)(left % 60));
    }
    if (n > 0 && (unsigned)n >= columns)
        line[columns - 1] = 0; /* a line that wraps cannot be drawn over */
    (void)fprintf(stderr, "\r\033[K%s", line);
    (void)fflush(stderr);
}

void tool_progress_begin(struct tool_progress *p, const char *label, uint64_t total, bool bytes)
{
    uint64_t now = cht_now_ns();
    *p = (struct tool_progress){.label = label,
                                .total = total,
                                .start_ns = now,
                                .shown = cht_os_is_terminal(STDERR),
                                .binary = bytes};
}

void tool_progress_at(struct tool_progress *p, uint64_t done)
{
    p->done = done;
    if (!p->shown)
        return;
    uint64_t now = cht_now_ns();
    if (p->drawn_ns != 0 && now - p->drawn_ns < EVERY_NS)
        return;
    p->drawn_ns = now;
    draw(p, now);
}

void tool_progress_clear(struct tool_progress *p)
{
    if (!p->shown)
        return;
    (void)fputs("\r\033[K", stderr);
    (void)fflush(stderr);
}

void tool_progress_end(struct tool_progress *p)
{
    tool_progress_clear(p);
    p->shown = false;
}
