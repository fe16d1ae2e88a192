/* pulse: does the cluster answer? One write a second of the object `pulse`, which all servers share; of an
 * environment that only looks (cht_rados_config.look) a read of another.
 *
 * Threads: its own; cht_pulse_ask from any.
 */
#pragma once

#include "os/thread.h"
#include "store/rados/guard.h"
#include "store/rados/link.h"

#define CHT_PULSE_LATE_NS UINT64_C(5000000000)

struct cht_pulse {
    struct cht_link *link;
    struct cht_guards *guards; /* renewed with each beat */
    const char *reads; /* set before start: the object that is read instead; NULL: `pulse` is written */
    struct cht_thread thread;
    bool up;
    struct cht_mutex mu;
    struct cht_cond wake;
    bool stop; /* guarded by mu, like all below */
    uint64_t answered_ns;
    struct cht_err why; /* of the last beat; CHT_OK: it was done */
};
enum cht_rc cht_pulse_start(struct cht_pulse *p, struct cht_link *link, struct cht_guards *guards,
                            struct cht_err *err);
/* Waits for the beat that is under way. It need not have been started. */
void cht_pulse_stop(struct cht_pulse *p);
/* Since an answer, or the start. Does not wait. */
uint64_t cht_pulse_silent(struct cht_pulse *p);
/* CHT_OK, or what the last beat said if none was answered for CHT_PULSE_LATE_NS. Does not wait. */
enum cht_rc cht_pulse_ask(struct cht_pulse *p, struct cht_err *err);
