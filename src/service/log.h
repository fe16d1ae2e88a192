/* log: one line an event on stderr, as JSON or for people. A thread of its own writes, so nobody waits for a slow
 * terminal or pipe: when its 4 MiB are full, lines are dropped and counted, and the count is logged.
 *
 * Threads: any. Text values may be any bytes; they are escaped.
 */
#pragma once

#include "service/out.h"

#include "cheetah/err.h"

enum svc_log_level { SVC_LOG_ERROR, SVC_LOG_WARN, SVC_LOG_INFO, SVC_LOG_DEBUG };
struct svc_log;

enum cht_rc svc_log_new(bool json, enum svc_log_level least, struct svc_log **out, struct cht_err *err);
/* Writes what is there and ends. NULL is legal. */
void svc_log_free(struct svc_log *l);
bool svc_log_wants(const struct svc_log *l, enum svc_log_level level);
bool svc_log_json(const struct svc_log *l);

/* {"time":...,"level":...,"event":event, and the fields}. fields: JSON members without the leading comma, "" for none;
 * text is what a person reads in their place. */
void svc_log_event(struct svc_log *l, enum svc_log_level level, const char *event, const char *fields,
                   const char *text);
/* An event with a printf text, as {"message":...}. */
void svc_log_say(struct svc_log *l, enum svc_log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Whole lines that are ready (the access log of an HTTP thread). */
void svc_log_lines(struct svc_log *l, const char *lines, size_t n, uint64_t count);
uint64_t svc_log_dropped(struct svc_log *l);
/* "2026-11-21T07:00:00.123Z" at p (24 characters) for nanoseconds since 1970. */
void svc_log_time(char *p, uint64_t wall_ns);
