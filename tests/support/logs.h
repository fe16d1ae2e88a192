/* logs: what the tests of the log share: a folder with a log in it, on a disk that fails when it is told to; records whose payload only their
 * number decides; the log's files from the outside.
 */
#pragma once

#include <stdatomic.h>

#include "store/wal.h"

#define LOGS_SEGMENT 8192u
#define LOGS_HEADER 512u

enum logs_op {
    OP_OPEN,
    OP_WRITE,
    OP_SYNC,
    OP_ALLOCATE,
    OP_TRUNCATE,
    OP_RENAME,
    OP_UNLINK,
    OP_SYNC_DIR,
    OP_COUNT
};

struct logs_disk {
    struct cht_io io;
    struct cht_io_ops ops;
    _Atomic long calls[OP_COUNT], all;
    enum logs_op op; /* fail_at counts calls of this one; OP_COUNT: of all that change something */
    long fail_at;    /* 0: never */
    bool forever;
    enum cht_rc code;
    _Atomic long failed;
};

struct logs_seen {
    uint64_t first, last, count;
    size_t max; /* payload sizes are logs_size_of(seq, max), or exactly `exact` */
    size_t exact;
    const size_t *sizes; /* or sizes[seq - 1] */
    bool wrong;
};

struct logs_sum {
    uint64_t files, bytes, crc;
};

extern struct logs_disk logs_disk; /* the tests' way to the real one: logs_real */
extern const struct cht_io_ops *logs_real;
extern char logs_dir[64];
extern uint64_t logs_seed;

/* The call, which gets E as its error, must succeed. */
#define OK(call)                               \
    do {                                       \
        struct cht_err err_ = {0}, *E = &err_; \
        logs_check((call), E, __LINE__);       \
    } while (0)

void logs_fault(enum logs_op op, long nth, bool forever, enum cht_rc code);
void logs_heal(void);
int logs_setup(void **state);
int logs_teardown(void **state);
/* An empty folder again. */
void logs_wipe(void);
void logs_check(enum cht_rc rc, const struct cht_err *err, int line);
struct cht_wal_config logs_config(bool read_only);
/* The payload of record i. */
size_t logs_size_of(uint64_t i, size_t max);
void logs_fill(uint64_t i, uint8_t *p, size_t n);
enum cht_rc logs_see(void *ctx, uint64_t seq, const uint8_t *p, size_t n, struct cht_err *err);
void logs_append(struct cht_wal *w, size_t n, bool sync);
struct cht_wal *logs_open(uint64_t from, uint64_t known, struct logs_seen *s);
/* Opens, replays, closes; the code of the first failure. */
enum cht_rc logs_try(uint64_t from, uint64_t known, bool read_only, struct logs_seen *s, struct cht_err *err);
const char *logs_path(uint64_t number);
uint8_t *logs_slurp(uint64_t number, size_t *n);
void logs_spit(uint64_t number, const uint8_t *p, size_t n);
struct logs_sum logs_look(void);
/* Six synced records in one segment; ends[i] is where record i + 1 ends. */
uint8_t *logs_six(size_t *n, uint64_t ends[6]);
