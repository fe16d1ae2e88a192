/* growth: what a pair costs in databases of 10^5, 10^6, ... pairs, cheetah alone. Each database is loaded in a random order
 * of names, then measured by processes of their own: a start and reads with the page cache dropped, the same warm, scans. */
#include "bench.h"

#include "cheetah/scan.h"

#include <stdio.h>
#include <string.h>

#define SMALLEST 100000u
#define COLD_READS 500u
#define SOME_READS 64u /* reads between two looks at the clock */
#define ENTRIES 1024u
#define ANON_EVERY 64u /* commits between two looks at the memory */

/* A number of pairs and what it cost. */
struct span {
    double wall, cpu;
    uint64_t n;
};

static struct span begin(void) { return (struct span){.wall = now_s(), .cpu = cpu_s()}; }

static void end(struct span *s, uint64_t n)
{
    s->wall = now_s() - s->wall;
    s->cpu = cpu_s() - s->cpu;
    s->n = n;
}

static double wall_ns(const struct span *s) { return s->wall * 1e9 / (double)s->n; }

static double cpu_ns(const struct span *s) { return s->cpu * 1e9 / (double)s->n; }

static void checked(enum cht_rc rc, const struct cht_err *err, const char *what)
{
    if (rc != CHT_OK)
        die("%s: %s: %s", what, cht_rc_slug(rc), err->msg);
}

/* ---- load ---------------------------------------------------------------------------------------------------- */

static double checkpoints(void *db)
{
    struct cht_store_stats st;
    struct cht_err err = {0};
    checked(cht_store_stats(peer_cheetah_store(db), &st, &err), &err, "stats");
    return (double)st.checkpoints;
}

static void section_load_size(struct job *j)
{
    static struct pair batch[BATCH];
    const struct conf *c = j->c;
    struct written before;
    struct written after;
    double most = 0;
    written_now(j->dir, &before);
    void *db = j->p->open(c, j->dir);
    struct span s = begin();
    for (uint64_t i = 0, commits = 0; i < c->pairs; commits++) {
        size_t n = 0;
        for (; n < BATCH && i < c->pairs; n++, i++)
            data_pair(c, i, 0, &batch[n]);
        j->p->put(db, batch, n);
        if (commits % ANON_EVERY == 0) {
            double anon = (double)proc_anon_bytes();
            most = anon > most ? anon : most;
        }
    }
    j->out[M_GROW_CHECKPOINTS] = checkpoints(db);
    j->p->close(db);
    end(&s, c->pairs);
    written_now(j->dir, &after);
    j->out[M_GROW_LOAD] = wall_ns(&s);
    j->out[M_GROW_LOAD_CPU] = cpu_ns(&s);
    j->out[M_GROW_WRITTEN] = (double)(after.calls - before.calls) / ((double)c->pairs * sizeof(struct pair));
    j->out[M_GROW_ANON] = most / (1024.0 * 1024.0);
}

/* ---- start, reads --------------------------------------------------------------------------------------------- */

static void read_one(const struct job *j, void *reader, uint64_t *state)
{
    uint8_t name[NAME_SIZE];
    uint8_t value[VALUE_SIZE];
    *state = mix64(*state);
    uint64_t i = *state % j->c->pairs;
    data_name(j->c, i, name);
    if (!j->p->get(reader, name, value) || !data_value_ok(j->c, i, value))
        die("pair %llu is not there, or has another value", (unsigned long long)i);
}

static uint64_t read_for(const struct job *j, void *reader, uint64_t *state, double seconds)
{
    uint64_t n = 0;
    for (double start = now_s(); now_s() - start < seconds; n += SOME_READS) {
        for (unsigned k = 0; k < SOME_READS; k++)
            read_one(j, reader, state);
    }
    return n;
}

static void section_cold(struct job *j)
{
    uint64_t state = 1;
    drop_cache(j->dir);
    struct span s = begin();
    void *db = j->p->open(j->c, j->dir);
    void *reader = j->p->reader(db);
    read_one(j, reader, &state);
    end(&s, 1);
    j->out[M_GROW_START] = s.wall * 1e3;
    j->out[M_GROW_START_CPU] = s.cpu * 1e3;
    uint64_t bytes = proc_read_bytes();
    s = begin();
    for (unsigned k = 0; k < COLD_READS; k++)
        read_one(j, reader, &state);
    end(&s, COLD_READS);
    j->out[M_GROW_COLD] = wall_ns(&s) / 1e3;
    j->out[M_GROW_COLD_BYTES] = (double)(proc_read_bytes() - bytes) / 1024.0 / COLD_READS;
    j->p->reader_end(reader);
    j->p->close(db);
}

static void section_warm(struct job *j)
{
    uint64_t state = 2;
    void *db = j->p->open(j->c, j->dir);
    void *reader = j->p->reader(db);
    (void)read_for(j, reader, &state, 2 * j->c->seconds);
    struct span s = begin();
    end(&s, read_for(j, reader, &state, j->c->seconds));
    j->out[M_GROW_READ] = wall_ns(&s);
    j->out[M_GROW_READ_CPU] = cpu_ns(&s);
    j->p->reader_end(reader);
    j->p->close(db);
}

/* ---- scans ---------------------------------------------------------------------------------------------------- */

/* In order from the first name on, to the end or until the time is over; returns how many pairs. */
static uint64_t scan_some(const struct job *j, void *db, bool values, double seconds)
{
    static struct cht_entry entries[ENTRIES];
    struct cht_err err = {0};
    struct cht_scan *scan;
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = values, .workers = 1};
    struct scan_sum sum = {0};
    size_t n = 1;
    checked(cht_scan_open(peer_cheetah_store(db), &cfg, &scan, &err), &err, "scan_open");
    for (double start = now_s(); n > 0 && now_s() - start < seconds; sum.entries += n) {
        checked(cht_scan_next(scan, entries, ENTRIES, &n, &err), &err, "scan_next");
        for (size_t i = 0; i < n; i++) {
            scan_touch(&sum, entries[i].name, entries[i].name_len);
            if (values)
                scan_touch(&sum, entries[i].value, entries[i].value_len);
        }
    }
    cht_scan_close(scan);
    if (n == 0 && sum.entries != j->c->pairs)
        die("a scan returned %llu pairs", (unsigned long long)sum.entries);
    return sum.entries;
}

/* Scans one after the other, until the time is over. */
static struct span scan_for(const struct job *j, void *db, bool values, double seconds)
{
    uint64_t n = 0;
    struct span s = begin();
    for (double start = now_s(), left = seconds; left > 0; left = seconds - (now_s() - start))
        n += scan_some(j, db, values, left);
    end(&s, n);
    return s;
}

static void section_scans(struct job *j)
{
    void *db = j->p->open(j->c, j->dir);
    (void)scan_for(j, db, true, 2 * j->c->seconds); /* the second time it is warm, if it fits */
    struct span s = scan_for(j, db, true, 2 * j->c->seconds);
    j->out[M_GROW_VALUES] = wall_ns(&s);
    j->out[M_GROW_VALUES_CPU] = cpu_ns(&s);
    (void)scan_for(j, db, false, j->c->seconds);
    s = scan_for(j, db, false, j->c->seconds);
    j->out[M_GROW_NAMES] = wall_ns(&s);
    j->out[M_GROW_NAMES_CPU] = cpu_ns(&s);
    j->p->close(db);
}

/* ---------------------------------------------------------------------------------------------------------------- */

bool growth(const struct conf *c)
{
    static struct results r;
    static section_fn *const sections[] = {section_load_size, section_cold, section_warm, section_scans};
    uint64_t sizes[MAX_ROUNDS];
    size_t n = 0;
    char path[600];
    if (snprintf(path, sizeof path, "%s/growth", c->dir) >= (int)sizeof path)
        die("--dir is too long");
    for (uint64_t pairs = SMALLEST; pairs <= c->pairs && n < MAX_ROUNDS; pairs *= 10, n++) {
        struct conf own = *c;
        uint64_t blocks;
        uint64_t apparent;
        own.pairs = sizes[n] = pairs;
        for (int m = 0; m < M_COUNT; m++)
            r.v[P_CHEETAH][m][n] = __builtin_nan("");
        make_dir(path);
        for (size_t s = 0; s < sizeof sections / sizeof *sections; s++) {
            run_child(&own, P_CHEETAH, (unsigned)n, "growth", false, sections[s], &r);
            if (s == 0) {
                disk_usage(path, &blocks, &apparent);
                r.v[P_CHEETAH][M_GROW_DISK][n] = (double)blocks / (double)pairs;
            }
        }
        if (!c->keep)
            remove_tree(path);
        if (!c->json)
            report_growth(c, sizes, n + 1, &r); /* what there is: a large size may take long */
    }
    if (c->json)
        report_growth(c, sizes, n, &r);
    return r.failed == 0;
}
