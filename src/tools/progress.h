/* progress: one line on stderr that is drawn again a few times a second, if stderr is a terminal; otherwise nothing at all.
 *
 *   export  [=========>          ]  47%  1.2M of 2.6M  310k/s  0:04 left
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct tool_progress {
    const char *label;    /* borrowed */
    uint64_t done, total; /* total 0: unknown */
    uint64_t first;       /* what was done before this run: not part of the rate */
    uint64_t start_ns, drawn_ns;
    bool shown;  /* stderr is a terminal */
    bool binary; /* bytes: KiB, MiB, ... */
};

void tool_progress_begin(struct tool_progress *p, const char *label, uint64_t total, bool bytes);
/* Draws the first time, then at most five times a second; cheap enough for every entry. */
void tool_progress_at(struct tool_progress *p, uint64_t done);
/* Takes the line away; it is drawn again with the next call of at. */
void tool_progress_clear(struct tool_progress *p);
/* Removes the line for good, so that what is printed next starts on a clean one. */
void tool_progress_end(struct tool_progress *p);
/* "1.2M", "310k", "17"; with binary "1.2 MiB". At least 16 bytes. */
void tool_progress_number(char out[16], uint64_t n, bool binary);
