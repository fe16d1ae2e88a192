/* sections: what is measured in the child processes. */
#include "bench.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_CHUNK 256u /* reads between two looks at the clock */
#define WARM_READS 200000u
#define ANON_EVERY 32u /* commits between two looks at the memory */
#define MAX_SCANS 1000u
#define MIB (1024.0 * 1024.0)

/* ---- load ---------------------------------------------------------------------------------------------------- */

struct load {
    double seconds, close_seconds;
    uint64_t anon_peak;
    struct written written;
    struct peer_stats stats;
};

static void load(const struct job *j, const struct conf *c, uint64_t pairs, struct load *l)
{
    static struct pair batch[BATCH];
    memset(l, 0, sizeof *l);
    struct written before;
    struct written *w = &l->written;
    written_now(j->dir, &before);
    void *db = j->p->open(c, j->dir);
    double start = now_s();
    unsigned commits = 0;
    for (uint64_t i = 0; i < pairs;) {
        size_t n = 0;
        for (; n < BATCH && i < pairs; n++, i++)
            data_pair(c, i, 0, &batch[n]);
        j->p->put(db, batch, n);
        if (commits++ % ANON_EVERY == 0 || i == pairs) {
            uint64_t anon = proc_anon_bytes();
            l->anon_peak = anon > l->anon_peak ? anon : l->anon_peak;
        }
    }
    double loaded = now_s();
    if (j->p->stats != NULL)
        j->p->stats(db, &l->stats);
    j->p->close(db);
    l->close_seconds = now_s() - loaded;
    l->seconds = loaded - start;
    written_now(j->dir, w);
    *w = (struct written){w->calls - before.calls, w->pages - before.pages, w->device - before.device};
}

void section_load(struct job *j)
{
    struct load l;
    double pairs = (double)j->c->pairs;
    load(j, j->c, j->c->pairs, &l);
    j->out[M_LOAD] = pairs / l.seconds / 1e3;
    j->out[M_LOAD_CLOSE] = pairs / (l.seconds + l.close_seconds) / 1e3;
    j->out[M_WCALLS] = (double)l.written.calls / (pairs * sizeof(struct pair));
    j->out[M_WBYTES] = (double)l.written.pages / (pairs * sizeof(struct pair));
    if (l.written.device > 0)
        j->out[M_WDEVICE] = (double)l.written.device / (pairs * sizeof(struct pair));
    if (l.stats.bytes_inserted > 0)
        j->out[M_WSELF] = (double)l.stats.bytes_written / (double)l.stats.bytes_inserted;
    j->out[M_ANON] = (double)l.anon_peak / MIB;
}

/* ---- reads --------------------------------------------------------------------------------------------------- */

struct read_thread {
    const struct job *j;
    void *db;
    pthread_barrier_t *barrier;
    uint64_t seed, done;
    double seconds, elapsed;
};

static void read_some(const struct read_thread *t, void *reader, uint64_t *state, unsigned n)
{
    uint8_t name[NAME_SIZE];
    uint8_t value[VALUE_SIZE];
    const struct conf *c = t->j->c;
    for (unsigned k = 0; k < n; k++) {
        *state = mix64(*state);
        uint64_t i = *state % c->pairs;
        data_name(c, i, name);
        if (!t->j->p->get(reader, name, value))
            die("%s: pair %llu is not there", t->j->p->name, (unsigned long long)i);
        if (!data_value_ok(c, i, value))
            die("%s: pair %llu has another value", t->j->p->name, (unsigned long long)i);
    }
}

static void *read_thread(void *arg)
{
    struct read_thread *t = arg;
    uint64_t state = t->seed;
    void *reader = t->j->p->reader(t->db);
    (void)pthread_barrier_wait(t->barrier);
    double start = now_s();
    do {
        read_some(t, reader, &state, READ_CHUNK);
        t->done += READ_CHUNK;
        t->elapsed = now_s() - start;
    } while (t->elapsed < t->seconds);
    t->j->p->reader_end(reader);
    return NULL;
}

/* Reads a second, by all threads together. */
static double read_rate(const struct job *j, void *db, unsigned threads, double seconds)
{
    struct read_thread t[2];
    pthread_t id[2];
    pthread_barrier_t barrier;
    double rate = 0;
    if (pthread_barrier_init(&barrier, NULL, threads) != 0)
        die("pthread_barrier_init");
    for (unsigned i = 0; i < threads; i++) {
        t[i] = (struct read_thread){.j = j, .db = db, .barrier = &barrier, .seconds = seconds};
        t[i].seed = mix64(j->c->seed + 17 * i + j->round);
        if (pthread_create(&id[i], NULL, read_thread, &t[i]) != 0)
            die("pthread_create");
    }
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_join(id[i], NULL) != 0)
            die("pthread_join");
        rate += (double)t[i].done / t[i].elapsed;
    }
    (void)pthread_barrier_destroy(&barrier);
    return rate;
}

void section_read(struct job *j)
{
    void *db = j->p->open(j->c, j->dir);
    struct read_thread warm = {.j = j, .db = db};
    uint64_t state = 1;
    void *reader = j->p->reader(db);
    read_some(&warm, reader, &state, WARM_READS);
    j->p->reader_end(reader);
    j->out[M_READ1] = read_rate(j, db, 1, j->c->seconds) / 1e3;
    j->out[M_READ2] = read_rate(j, db, 2, j->c->seconds) / 1e3;
    j->p->close(db);
}

/* ---- scans --------------------------------------------------------------------------------------------------- */

/* Entries a second, a scan of everything after the other for as long as the section takes; at least one. */
static double scan_rate(const struct job *j, void *db, bool values, unsigned workers, double *sum)
{
    uint64_t entries = 0;
    double start = now_s();
    for (unsigned k = 0; k < MAX_SCANS; k++) {
        struct scan_sum s = {0};
        j->p->scan(db, values, workers, &s);
        if (s.entries != j->c->pairs)
            die("%s: a scan returned %llu pairs", j->p->name, (unsigned long long)s.entries);
        entries += s.entries;
        *sum = (double)s.bytes;
        if (now_s() - start >= j->c->seconds)
            break;
    }
    return (double)entries / (now_s() - start);
}

void section_scan(struct job *j)
{
    struct scan_sum warm = {0};
    void *db = j->p->open(j->c, j->dir);
    j->p->scan(db, true, 1, &warm);
    j->out[M_SCAN_V1] = scan_rate(j, db, true, 1, &j->out[M_SUM_V]) / 1e3;
    j->out[M_SCAN_N1] = scan_rate(j, db, false, 1, &j->out[M_SUM_N]) / 1e3;
    if (j->p->scan_workers > 1) {
        double sum_v = 0;
        double sum_n = 0;
        j->out[M_SCAN_V2] = scan_rate(j, db, true, 2, &sum_v) / 1e3;
        j->out[M_SCAN_N2] = scan_rate(j, db, false, 2, &sum_n) / 1e3;
        if (sum_v != j->out[M_SUM_V] || sum_n != j->out[M_SUM_N])
            die("%s: scans with one and two workers differ", j->p->name);
    }
    j->p->close(db);
}

/* ---- a memory that is too small ------------------------------------------------------------------------------ */

void section_limited(struct job *j)
{
    struct load l;
    struct conf c = *j->c;
    char how[256];
    double pairs = (double)c.limited_pairs;
    if (!enter_limit(&c, c.limit_bytes, how, sizeof how))
        c.dirty_bytes = c.limit_bytes / 4;
    (void)fprintf(stderr, "  limited: %.0f MiB (%s)\n", (double)c.limit_bytes / MIB, how);
    load(j, &c, c.limited_pairs, &l);
    j->out[M_LIM_LOAD] = pairs / l.seconds / 1e3;
    j->out[M_LIM_WCALLS] = (double)l.written.calls / (pairs * sizeof(struct pair));
    j->out[M_LIM_WBYTES] = (double)l.written.pages / (pairs * sizeof(struct pair));
    if (l.written.device > 0)
        j->out[M_LIM_WDEVICE] = (double)l.written.device / (pairs * sizeof(struct pair));
    j->out[M_LIM_ANON] = (double)l.anon_peak / MIB;
}

/* What is there is read under the same limit, in a process of its own, from a cold cache: it stays too small for all of it. */
void section_limited_reads(struct job *j)
{
    struct conf c = *j->c;
    struct job own = *j;
    char how[256];
    double sum = 0;
    c.pairs = c.limited_pairs;
    own.c = &c;
    (void)enter_limit(&c, c.limit_bytes, how, sizeof how);
    drop_cache(j->dir);
    void *db = j->p->open(&c, j->dir);
    (void)read_rate(&own, db, 1, c.seconds);
    uint64_t bytes = proc_read_bytes();
    double rate = read_rate(&own, db, 1, c.seconds);
    j->out[M_LIM_READ] = rate / 1e3;
    j->out[M_LIM_READ_BYTES] = (double)(proc_read_bytes() - bytes) / (rate * c.seconds) / 1024.0;
    bytes = proc_read_bytes();
    c.seconds = 0; /* one */
    j->out[M_LIM_SCAN] = scan_rate(&own, db, true, 1, &sum) / 1e3;
    j->out[M_LIM_SCAN_BYTES] = (double)(proc_read_bytes() - bytes) / (double)c.pairs;
    j->p->close(db);
}

/* ---- more writes --------------------------------------------------------------------------------------------- */

/* Commits of BATCH upserts of names that are there, until `pairs` or the time is over; returns how many. */
static uint64_t overwrite(const struct job *j, void *db, uint64_t pairs, unsigned version, double seconds)
{
    static struct pair batch[BATCH];
    uint64_t state = mix64(j->c->seed + version);
    uint64_t done = 0;
    double start = now_s();
    while (done < pairs && now_s() - start < seconds) {
        for (size_t n = 0; n < BATCH; n++) {
            state = mix64(state);
            data_pair(j->c, state % j->c->pairs, version, &batch[n]);
        }
        j->p->put(db, batch, BATCH);
        done += BATCH;
    }
    return done;
}

void section_update(struct job *j)
{
    void *db = j->p->open(j->c, j->dir);
    double start = now_s();
    uint64_t done = overwrite(j, db, j->c->pairs, 1 + j->round, 2 * j->c->single_seconds);
    j->out[M_UPDATE] = (double)done / (now_s() - start) / 1e3;
    j->p->close(db);
}

struct single_thread {
    const struct job *j;
    void *db;
    pthread_barrier_t *barrier;
    atomic_ullong *next;
    uint64_t done;
    double elapsed;
};

static void *single_thread(void *arg)
{
    struct single_thread *t = arg;
    struct pair p;
    (void)pthread_barrier_wait(t->barrier);
    double start = now_s();
    do {
        data_pair(t->j->c, atomic_fetch_add(t->next, 1), 0, &p);
        t->j->p->put(t->db, &p, 1);
        t->done++;
        t->elapsed = now_s() - start;
    } while (t->elapsed < t->j->c->single_seconds);
    return NULL;
}

void section_single(struct job *j)
{
    static struct single_thread t[SINGLE_THREADS];
    pthread_t id[SINGLE_THREADS];
    pthread_barrier_t barrier;
    atomic_ullong next;
    double rate = 0;
    void *db = j->p->open(j->c, j->dir);
    atomic_init(&next, (UINT64_C(1) << 48) + ((uint64_t)j->round << 40)); /* names not used before */
    if (pthread_barrier_init(&barrier, NULL, SINGLE_THREADS) != 0)
        die("pthread_barrier_init");
    for (unsigned i = 0; i < SINGLE_THREADS; i++) {
        t[i] = (struct single_thread){.j = j, .db = db, .barrier = &barrier, .next = &next};
        if (pthread_create(&id[i], NULL, single_thread, &t[i]) != 0)
            die("pthread_create");
    }
    for (unsigned i = 0; i < SINGLE_THREADS; i++) {
        if (pthread_join(id[i], NULL) != 0)
            die("pthread_join");
        rate += (double)t[i].done / t[i].elapsed;
    }
    (void)pthread_barrier_destroy(&barrier);
    j->out[M_SINGLE] = rate / 1e3;
    j->p->close(db);
}

/* ---- starts -------------------------------------------------------------------------------------------------- */

/* Until the first answer is there. */
static double start_seconds(const struct job *j)
{
    uint8_t name[NAME_SIZE];
    uint8_t value[VALUE_SIZE];
    double start = now_s();
    void *db = j->p->open(j->c, j->dir);
    void *reader = j->p->reader(db);
    data_name(j->c, 1, name);
    if (!j->p->get(reader, name, value) || !data_value_ok(j->c, 1, value))
        die("%s: pair 1 is not there after the start", j->p->name);
    double s = now_s() - start;
    j->p->reader_end(reader);
    j->p->close(db);
    return s;
}

void section_start_clean(struct job *j)
{
    drop_cache(j->dir);
    j->out[M_START_CLEAN] = start_seconds(j);
}

void section_start_kill(struct job *j) { j->out[M_START_KILL] = start_seconds(j); }

/* Writes a while and ends as by SIGKILL. */
void section_kill(struct job *j)
{
    void *db = j->p->open(j->c, j->dir);
    (void)overwrite(j, db, 4000000, 100 + j->round, 4 * j->c->single_seconds);
    if (j->p->stats != NULL) {
        struct peer_stats st;
        j->p->stats(db, &st);
        j->out[M_KILL_LOG] = (double)st.log_live / MIB;
    }
    (void)raise(SIGKILL);
}
