/* bench: what the files of the storage benchmark share. A benchmark has no way to go on after a failure, so every
 * helper and every peer ends the process (die) where a call fails; the parent reports the child that did. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_SIZE 12u
#define VALUE_SIZE 64u
#define BATCH 1000u /* pairs to a commit */
#define MAX_ROUNDS 15u
#define MAX_PEERS 7u
#define SINGLE_THREADS 32u

struct pair {
    uint8_t name[NAME_SIZE];
    uint8_t value[VALUE_SIZE];
};

struct conf {
    uint64_t pairs, seed;
    unsigned rounds, timeout_s;
    double seconds;        /* a timed loop of reads or scans */
    double single_seconds; /* a timed loop of single commits */
    const char *dir;       /* the run's own folder, made and removed by the program */
    const char *cgroup;    /* --cgroup: where limited children go, or NULL */
    unsigned sections;     /* enum section bits */
    bool peers[MAX_PEERS];
    bool json, keep, rocksdb_flush, order, limited, micro, growth;
    uint64_t limited_pairs, limit_bytes;
    uint64_t dirty_bytes; /* cheetah's; 0: its own choice */
};

enum section {
    S_WRITE = 1u,
    S_READ = 2u,
    S_SCAN = 4u,
    S_DISK = 8u,
    S_START = 16u,
    S_UPDATE = 32u,
    S_SINGLE = 64u,
    S_LIMITED = 128u
};

/* X(name, slug, unit, what it is) */
#define METRICS(X)                                                                        \
    X(LOAD, "load", "k/s", "random upsert, 1000 a commit, sync")                          \
    X(LOAD_CLOSE, "load_close", "k/s", "the same, with the clean close")                  \
    X(WCALLS, "write_calls", "B/B", "bytes to disk per byte, with close")                 \
    X(WBYTES, "write_bytes", "B/B", "the same by io write_bytes (see README)")            \
    X(WDEVICE, "write_device", "B/B", "the same by the device, whole machine")            \
    X(WSELF, "write_bytes_self", "B/B", "as the engine counts, before close")             \
    X(ANON, "anon_peak", "MiB", "anonymous memory, peak of the load")                     \
    X(DISK, "disk", "MB", "disk used after clean close")                                  \
    X(APPARENT, "disk_apparent", "MB", "the same, apparent size")                         \
    X(READ1, "read_1", "k/s", "random point read, 1 thread")                              \
    X(READ2, "read_2", "k/s", "random point read, 2 threads")                             \
    X(SCAN_V1, "scan_values_1", "k/s", "ordered scan with values, 1 worker")              \
    X(SCAN_V2, "scan_values_2", "k/s", "ordered scan with values, 2 workers")             \
    X(SCAN_N1, "scan_names_1", "k/s", "ordered scan, names only, 1 worker")               \
    X(SCAN_N2, "scan_names_2", "k/s", "ordered scan, names only, 2 workers")              \
    X(START_CLEAN, "start_clean", "s", "start after clean stop, cold cache")              \
    X(START_KILL, "start_kill", "s", "start after SIGKILL")                               \
    X(KILL_LOG, "kill_log", "MiB", "log to replay at the SIGKILL")                        \
    X(UPDATE, "update", "k/s", "overwrite loaded names, 1000 a commit, sync")             \
    X(SINGLE, "single_32", "k/s", "single upserts, 32 threads, sync")                     \
    X(LIM_WCALLS, "limited_write_calls", "B/B", "limited memory: bytes to disk per byte") \
    X(LIM_WBYTES, "limited_write_bytes", "B/B", "limited memory: by io write_bytes")      \
    X(LIM_WDEVICE, "limited_write_device", "B/B", "limited memory: by the device")        \
    X(LIM_LOAD, "limited_load", "k/s", "limited memory: random upsert")                   \
    X(LIM_ANON, "limited_anon_peak", "MiB", "limited memory: anonymous memory, peak")     \
    X(LIM_DISK, "limited_disk", "MB", "limited memory: disk used after clean close")      \
    X(LIM_READ, "limited_read", "k/s", "limited memory: random point read")               \
    X(LIM_READ_BYTES, "limited_read_bytes", "KiB", "  from the disk a read")              \
    X(LIM_SCAN, "limited_scan", "k/s", "limited memory: scan with values")                \
    X(LIM_SCAN_BYTES, "limited_scan_bytes", "B", "  from the disk a pair")                \
    X(GROW_LOAD_CPU, "grow_load_cpu", "ns", "load a pair, with close: CPU")               \
    X(GROW_LOAD, "grow_load", "ns", "  by the clock")                                     \
    X(GROW_WRITTEN, "grow_written", "B/B", "  bytes to disk per byte (calls)")            \
    X(GROW_CHECKPOINTS, "grow_checkpoints", "", "  checkpoints before the close")         \
    X(GROW_ANON, "grow_anon", "MiB", "  anonymous memory, peak")                          \
    X(GROW_DISK, "grow_disk", "B", "  disk a pair after the close")                       \
    X(GROW_START_CPU, "grow_start_cpu", "ms", "start, cold cache: CPU")                   \
    X(GROW_START, "grow_start", "ms", "  by the clock")                                   \
    X(GROW_COLD, "grow_cold", "us", "point read, cold cache: by the clock")               \
    X(GROW_COLD_BYTES, "grow_cold_bytes", "KiB", "  from the disk a read")                \
    X(GROW_READ_CPU, "grow_read_cpu", "ns", "point read, warm: CPU")                      \
    X(GROW_READ, "grow_read", "ns", "  by the clock")                                     \
    X(GROW_VALUES_CPU, "grow_values_cpu", "ns", "scan with values, a pair: CPU")          \
    X(GROW_VALUES, "grow_values", "ns", "  by the clock")                                 \
    X(GROW_NAMES_CPU, "grow_names_cpu", "ns", "scan of names, a pair: CPU")               \
    X(GROW_NAMES, "grow_names", "ns", "  by the clock")                                   \
    X(SUM_V, "", "", "") /* checksums of the scans, to compare the peers' answers */      \
    X(SUM_N, "", "", "")

enum metric {
#define METRIC_ENUM(name, slug, unit, text) M_##name,
    METRICS(METRIC_ENUM)
#undef METRIC_ENUM
        M_COUNT
};

struct results {
    double v[MAX_PEERS][M_COUNT][MAX_ROUNDS]; /* NaN where not measured */
    unsigned failed;                          /* children */
};

/* ---- peers --------------------------------------------------------------------------------------------------- */

struct scan_sum {
    uint64_t entries, bytes; /* bytes: sum of the first and the last byte of each name (and value) */
};

struct peer_stats {
    uint64_t log_live, bytes_inserted, bytes_written;
};

struct peer {
    const char *name;
    unsigned scan_workers; /* the most its scan can use */
    /* Opens, creating if missing, with durable commits. */
    void *(*open)(const struct conf *c, const char *dir);
    void (*close)(void *db);
    /* One durable commit of upserts; from any thread. */
    void (*put)(void *db, const struct pair *pairs, size_t n);
    /* One a thread. get copies the value out and says whether the name is there. */
    void *(*reader)(void *db);
    bool (*get)(void *reader, const uint8_t name[NAME_SIZE], uint8_t value[VALUE_SIZE]);
    void (*reader_end)(void *reader);
    /* Everything in order of the names. */
    void (*scan)(void *db, bool values, unsigned workers, struct scan_sum *out);
    void (*stats)(void *db, struct peer_stats *out); /* or NULL */
};

enum peer_id { P_CHEETAH, P_LMDB, P_ROCKSDB, P_SQLITE, P_LEVELDB, P_WIREDTIGER, P_TKRZW };
extern const struct peer peer_cheetah, peer_lmdb, peer_rocksdb, peer_sqlite, peer_leveldb, peer_wiredtiger,
    peer_tkrzw;
extern const struct peer *const peers[MAX_PEERS];
struct cht_store *peer_cheetah_store(void *db); /* for the calls that only cheetah has */

static inline void scan_touch(struct scan_sum *s, const uint8_t *p, size_t n)
{
    s->bytes += (uint64_t)p[0] + p[n - 1];
}

/* ---- data ---------------------------------------------------------------------------------------------------- */

uint64_t mix64(uint64_t x); /* a bijection (splitmix64) */
/* The i-th pair; names of different i differ, and ascending i is a random order of names. */
void data_pair(const struct conf *c, uint64_t i, unsigned version, struct pair *out);
void data_name(const struct conf *c, uint64_t i, uint8_t name[NAME_SIZE]);
/* Does the value belong to the i-th name? */
bool data_value_ok(const struct conf *c, uint64_t i, const uint8_t value[VALUE_SIZE]);

/* ---- system -------------------------------------------------------------------------------------------------- */

_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
double now_s(void);
double cpu_s(void);             /* of this process, all threads */
uint64_t proc_read_bytes(void); /* what this process has had the disk read */
/* What went to the disk, three ways, none of them exact:
 * calls   bytes of this process's write calls (/proc/self/io wchar). No peer writes through a mapping, none overwrites
 *         what it has not synced, so this is what reaches the disk but for rounding up to blocks at each sync.
 * pages   the kernel's charge for dirtied page cache (write_bytes). Since ext4 has large folios, one changed block of a
 *         folio is charged as the whole folio: many times too much for files that are changed in place.
 * device  sectors written by the device: all processes and the file system's own writes. */
struct written {
    uint64_t calls, pages, device;
};
void written_now(const char *dir, struct written *w);
uint64_t proc_anon_bytes(void);
void disk_usage(const char *dir, uint64_t *blocks, uint64_t *apparent);
void drop_cache(const char *dir); /* of the files in it, which nobody may have mapped */
void remove_tree(const char *dir);
void make_dir(const char *dir);
/* Puts this process under the limit; says how in `how`. False: not possible here. */
bool enter_limit(const struct conf *c, uint64_t bytes, char *how, size_t n);

/* ---- children ------------------------------------------------------------------------------------------------ */

struct job {
    const struct conf *c;
    const struct peer *p;
    char dir[512];
    unsigned round;
    double *out; /* M_COUNT, shared with the parent */
};
typedef void section_fn(struct job *j);

/* Runs fn in a child of its own and stores what it measured. by_kill: the child ends itself with SIGKILL. */
void run_child(const struct conf *c, enum peer_id p, unsigned round, const char *folder, bool by_kill,
               section_fn *fn, struct results *r);

section_fn section_load, section_read, section_scan, section_update, section_single, section_start_clean,
    section_start_kill, section_kill, section_limited, section_limited_reads;

/* ---- growth -------------------------------------------------------------------------------------------------- */

/* What a pair costs in databases of 10^5, 10^6, ... up to c->pairs; prints the table. False: a measurement failed. */
bool growth(const struct conf *c);

/* ---- reports ------------------------------------------------------------------------------------------------- */

double median(const double *v, size_t n); /* NaN are left out */
/* The metrics from first to last of cheetah, whose rounds are the sizes. */
void report_growth(const struct conf *c, const uint64_t *sizes, size_t n, const struct results *r);
/* False if an answer was wrong (scans that do not agree). */
bool report(const struct conf *c, const struct results *r);
void micro(const struct conf *c);
