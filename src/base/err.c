/* err: the tables made from the one list of codes in cheetah/err.h, and the message. */
#include "cheetah/err.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

struct row {
    int num, http;
    const char *slug, *text;
};

static const struct row rows[] = {
#define CHT_ERR_ROW(name, num, http, slug, text) {(num), (http), (slug), (text)},
    CHT_ERRORS(CHT_ERR_ROW)
#undef CHT_ERR_ROW
};

static const struct row unknown = {-1, 500, "io_error", "an unknown failure"};

static const struct row *find(enum cht_rc rc)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].num == (int)rc)
            return &rows[i];
    }
    return &unknown;
}

const char *cht_rc_slug(enum cht_rc rc) { return find(rc)->slug; }

const char *cht_rc_text(enum cht_rc rc) { return find(rc)->text; }

int cht_rc_http(enum cht_rc rc) { return find(rc)->http; }

enum cht_rc cht_err_set(struct cht_err *err, enum cht_rc code, int sys, const char *file, int line,
                        const char *fmt, ...)
{
    if (err == NULL)
        return code;
    err->code = code;
    err->sys = sys;
    err->file = file;
    err->line = line;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->msg, sizeof err->msg, fmt, ap); /* cut if it is too long */
    va_end(ap);
    return code;
}
