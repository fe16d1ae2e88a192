/* log: one line an event on stderr, as JSON or for people. A thread of its own writes, so nobody waits for a slow
 * terminal or pipe: when its 4 MiB are full, lines are dropped and counted, and the count is logged.
 *
 * Threads: any. Text values may be any bytes; they are escaped.
 */
#pragma once

#include "service/out.h"

#include "cheetah/err.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
struct log;

enum cht_rc log_new(bool json, enum log_level least, struct log **out, struct cht_err *err);
/* Writes what is there and ends. NULL is legal. */
void log_free(struct log *l);
bool log_wants(const struct log *l, enum log_level level);
bool log_json(const struct log *l);

/* {"time":...,"level":...,"event":event, and the fields}. fields: JSON members without the leading comma, "" for none;
 * text is what a person reads in their place. */
void log_event(struct log *l, enum log_level level, const char *event, const char *fields, const char *text);
/* An event with a printf text, as {"message":...}. */
void log_say(struct log *l, enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Whole lines that are ready (the access log of an HTTP thread). */
void log_lines(struct log *l, const char *lines, size_t n, uint64_t count);
uint64_t log_dropped(struct log *l);
/* "2026-11-21T07:00:00.123Z" at p (24 characters) for nanoseconds since 1970. */
void log_time(char *p, uint64_t wall_ns);
