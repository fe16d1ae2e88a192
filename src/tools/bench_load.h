/* bench_load: a load of HTTP requests on one server by connections that each have one request in flight, spread over threads, each with a
 * poller; libcurl would cost more than what is measured.
 *
 *   closed loop   a connection asks again when it was answered: a server that slows down is asked less, and what it would have kept
 *                 waiting meanwhile is not in the times (coordinated omission, Gil Tene)
 *   open loop     with a rate: requests are due at fixed times, whatever the server does. A time begins when the request was due, not when
 *                 a connection was free for it. What was due and not sent when the time was over counts with what it had waited
 */
#pragma once

#include "tools/hdr.h"

#include <stdbool.h>

enum tool_bench_kind {
    TOOL_BENCH_POINT,   /* GET of one pair with its value, by a random name */
    TOOL_BENCH_PUT,     /* PUT of one value under a random name */
    TOOL_BENCH_BATCH,   /* POST /batch of many such */
    TOOL_BENCH_SCAN,    /* 1000 pairs with values, from a random name on */
    TOOL_BENCH_PREDICT, /* POST /predict after two random tokens */
    TOOL_BENCH_MIX,     /* 9 of 10 points, else puts */
    TOOL_BENCH_MIX50,   /* half and half */
    TOOL_BENCH_KINDS
};

#define TOOL_BENCH_TOKENS 1000u /* the vocabulary of predict */
#define TOOL_BENCH_SCANNED 1000u

struct svc_tls_config;
struct tool_bench_load {
    enum tool_bench_kind kind;
    const char *where;                /* borrowed: "127.0.0.1:8080" */
    const struct svc_tls_config *tls; /* borrowed; NULL: plain HTTP */
    const char *authorization;        /* borrowed: a header; NULL: none */
    const char *database;             /* borrowed */
    uint64_t keys, value_bytes, batch, connections, threads, ns, seed;
    uint64_t rate; /* requests a second by all connections together; 0: a closed loop */
};

/* Zero-initialise; runs add to it. */
struct tool_bench_result {
    struct tool_hdr
        times; /* of a request, from its first byte out, or when it was due, to its last byte in */
    uint64_t requests, bytes, ns;
    uint64_t unsent; /* with a rate: due, but no connection was free in time */
    uint64_t failed; /* of requests: answered with a failure */
    unsigned status; /* of the first of them */
    char why[120];   /* the beginning of its body */
};

/* Appends "bench:0000002a". */
struct svc_out;
void tool_bench_name(struct svc_out *o, uint64_t i);
/* A line of /batch that puts value[0..n) under that name. */
void tool_bench_operation(struct svc_out *o, uint64_t i, const uint8_t *value, uint64_t n);
/* Runs for load->ns. CHT_IO: no connection, or one ended; CHT_CANCELLED: an interrupt from the keyboard (cht_os_catch_interrupts). */
enum cht_rc tool_bench_run(const struct tool_bench_load *load, struct tool_bench_result *out,
                           struct cht_err *err);
