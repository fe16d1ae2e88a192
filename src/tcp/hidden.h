/* hidden: pairs that plain scans leave out. Today's client hides what it keeps for itself; it asks for it with include_hidden=1.
 *
 * A pair is hidden by a mark, a second pair that leads to the same key:
 *
 *   name   0x10 "hid:" NAME   ->   the key of NAME
 *
 * A mark whose key is not that of its pair means nothing: another key was given to the pair since, by something that knows no marks
 * (HTTP). PAIR_SET, PAIR_DEL, PAIR_PUT_BATCH, DEL and PAIR_PURGE take the mark away, PAIR_SET_HIDDEN and PAIR_PUT_BATCH hidden=1 set
 * it, in the same commit. PAIR_SCAN, PAIR_REDUCE and PAIR_SUMMARY leave hidden pairs out, and marks always, unless they are asked for by
 * name; all else sees both, as does HTTP.
 *
 * A database without marks, which is what nearly all are, costs one count when it is first asked about, and then a load.
 *
 * Threads: any; a filter belongs to one.
 */
#pragma once

#include "cheetah/scan.h"
#include "service/dbs.h"
#include "tcp/command.h"

#define LINE_HIDDEN "\x10hid:"
#define LINE_HIDDEN_NAME_MAX (CHT_NAME_MAX - (sizeof LINE_HIDDEN - 1))

/* Does the database have marks? True also if that could not be asked. */
bool line_hidden_any(struct svc_database *d);
/* The same, asked anew of a store that others write, too; blocks for a trip. What is begun after it and knows of no marks is as if it had been
 * done before one that is made meanwhile: it then belongs to another key, or hides what was put. */
bool line_hidden_now(struct svc_database *d);
/* From now on it has, whoever asks. Before the commit that writes the first one. */
void line_hidden_begin(struct svc_database *d);
/* The mark's name, in `out`, which is grown. CHT_INVALID_PAIR: the name is longer than LINE_HIDDEN_NAME_MAX; CHT_NO_MEMORY. */
enum cht_rc line_hidden_mark(struct cht_buf *out, struct cht_str name, struct cht_err *err);

/* Which entries of a scan of pairs, in byte order, are to be left out. Zero-initialise. */
struct line_hidden {
    struct cht_scan *scan; /* of the marks; NULL: they do not matter */
    struct cht_entry e[64];
    size_t n, at;
    bool ended;
    bool active; /* something is left out */
    bool marks;  /* not the marks: they were asked for by name */
};

/* For a scan as the command says: its prefix, after, and whether hidden pairs are shown. */
enum cht_rc line_hidden_open(struct line_hidden *h, struct svc_database *d, const struct line_command *l,
                             struct cht_err *err);
/* *hides: e is to be left out. Entries come in byte order. */
enum cht_rc line_hidden_look(struct line_hidden *h, const struct cht_entry *e, bool *hides,
                             struct cht_err *err);
void line_hidden_close(struct line_hidden *h);
