/* hdr: a histogram of times with the layout of HdrHistogram: whatever the size of a value, it is kept to three significant digits, in memory
 * that does not grow.
 *
 *   bucket 0     2048 sub-buckets of 1 ns                             0 .. 2047
 *   bucket b     1024 sub-buckets of 2^b ns                           2048 * 2^(b-1) .. 2048 * 2^b - 1
 *
 * The index of a value v: b = how many bits v has beyond 11, then (b + 1) * 1024 + (v >> b) - 1024.
 *
 * Threads: one at a time for each histogram; tool_hdr_add brings those of several together.
 */
#pragma once

#include "cheetah/err.h"

#include <stdint.h>
#include <stdio.h>

#define TOOL_HDR_MAX ((UINT64_C(1) << 42) - 1) /* over an hour; what is more counts as this */

struct tool_hdr {
    uint64_t *counts; /* owned */
    uint64_t total, least, most;
    double sum;
};

enum cht_rc tool_hdr_init(struct tool_hdr *h, struct cht_err *err);
void tool_hdr_fini(struct tool_hdr *h); /* of one that is all zero, too */
void tool_hdr_record(struct tool_hdr *h, uint64_t ns);
void tool_hdr_add(struct tool_hdr *to, const struct tool_hdr *from);
/* The value that `percent` of 100 of all are at or below, as its highest equivalent; 0 if there is none. */
uint64_t tool_hdr_percentile(const struct tool_hdr *h, double percent);
/* The table that HdrHistogram prints and its plotter reads: value in microseconds, percentile, count, 1/(1-percentile). */
void tool_hdr_print(const struct tool_hdr *h, FILE *out);
