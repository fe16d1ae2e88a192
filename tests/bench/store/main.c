/* bench_store: cheetah beside LMDB, RocksDB, SQLite, LevelDB, WiredTiger and Tkrzw in one run. See tests/bench/README.md. */
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LMDB_BYTES_A_PAIR 138u /* its file, measured: what "the database" of --limited is taken to be */

static const struct {
    const char *name;
    enum section bit;
} section_names[] = {{"write", S_WRITE}, {"read", S_READ},     {"scan", S_SCAN},     {"disk", S_DISK},
                     {"start", S_START}, {"update", S_UPDATE}, {"single", S_SINGLE}, {"limited", S_LIMITED}};

static _Noreturn void usage(int code)
{
    (void)fprintf(
        code == 0 ? stdout : stderr,
        "bench_store [options]\n"
        "  --pairs N         pairs of 12 + 64 bytes; K and M are understood (1M)\n"
        "  --rounds N        interleaved rounds, 1..15; the medians are printed (3)\n"
        "  --only LIST       of write,read,scan,disk,start,update,single,limited (all but limited)\n"
        "  --peers LIST      of cheetah,lmdb,rocksdb,sqlite,leveldb,wiredtiger,tkrzw (all)\n"
        "  --limited         the limited section too, in a database 4 x larger than the memory\n"
        "  --limited-pairs N pairs of the limited section (2M)\n"
        "  --cgroup DIR      an empty memory cgroup (v2 or v1) of yours for the limited section\n"
        "  --micro           the micro-benchmarks instead\n"
        "  --growth          instead: what a pair costs in databases of 10^5, 10^6, ... up to --pairs\n"
        "  --dirty-bytes N   what cheetah may keep of changed pages (a quarter of the memory)\n"
        "  --dir DIR         where the data goes, in a folder of its own that is removed (./bench_data)\n"
        "  --seconds S       length of a timed loop (1.5)\n"
        "  --seed N          of the data (1)\n"
        "  --timeout S       a measurement in a process of its own ends after so long (1800)\n"
        "  --rocksdb-flush   flush RocksDB's memtable before its close\n"
        "  --order           cheetah's checkpoints put values in the order of their names\n"
        "  --keep            do not remove the data\n"
        "  --json            JSON in place of the table\n");
    exit(code);
}

static double number(const char *text, double min, double max)
{
    char *end;
    double v = strtod(text, &end);
    if (end != text && (*end == 'K' || *end == 'k' || *end == 'M'))
        v *= *end++ == 'M' ? 1e6 : 1e3;
    if (end == text || *end != 0 || !(v >= min && v <= max)) {
        (void)fprintf(stderr, "bench_store: '%s' is not a number from %g to %g\n", text, min, max);
        exit(2);
    }
    return v;
}

/* Calls set for each word of a list; it says whether it knows the word. */
static void each_word(struct conf *c, const char *list, bool (*set)(struct conf *c, const char *word))
{
    char *copy = strdup(list);
    char *save = NULL;
    if (copy == NULL)
        die("no memory");
    for (char *w = strtok_r(copy, ",", &save); w != NULL; w = strtok_r(NULL, ",", &save)) {
        if (!set(c, w)) {
            (void)fprintf(stderr, "bench_store: '%s' is not known\n", w);
            exit(2);
        }
    }
    free(copy);
}

static bool set_section(struct conf *c, const char *word)
{
    for (size_t i = 0; i < sizeof section_names / sizeof *section_names; i++) {
        if (strcmp(section_names[i].name, word) == 0) {
            c->sections |= (unsigned)section_names[i].bit;
            return true;
        }
    }
    return false;
}

static bool set_peer(struct conf *c, const char *word)
{
    for (size_t i = 0; i < MAX_PEERS; i++) {
        if (strcmp(peers[i]->name, word) == 0)
            return c->peers[i] = true;
    }
    return false;
}

static bool parse_flag(struct conf *c, const char *arg)
{
    if (strcmp(arg, "--json") == 0)
        return c->json = true;
    if (strcmp(arg, "--keep") == 0)
        return c->keep = true;
    if (strcmp(arg, "--rocksdb-flush") == 0)
        return c->rocksdb_flush = true;
    if (strcmp(arg, "--order") == 0)
        return c->order = true;
    if (strcmp(arg, "--limited") == 0)
        return c->limited = true;
    if (strcmp(arg, "--micro") == 0)
        return c->micro = true;
    if (strcmp(arg, "--growth") == 0)
        return c->growth = true;
    return false;
}

static bool parse_value(struct conf *c, const char *arg, const char *v)
{
    if (strcmp(arg, "--pairs") == 0)
        c->pairs = (uint64_t)number(v, BATCH, 1e9);
    else if (strcmp(arg, "--rounds") == 0)
        c->rounds = (unsigned)number(v, 1, MAX_ROUNDS);
    else if (strcmp(arg, "--only") == 0)
        each_word(c, v, set_section);
    else if (strcmp(arg, "--peers") == 0)
        each_word(c, v, set_peer);
    else if (strcmp(arg, "--limited-pairs") == 0)
        c->limited_pairs = (uint64_t)number(v, BATCH, 1e9);
    else if (strcmp(arg, "--dirty-bytes") == 0)
        c->dirty_bytes = (uint64_t)number(v, 1, 1e15);
    else if (strcmp(arg, "--cgroup") == 0)
        c->cgroup = v;
    else if (strcmp(arg, "--dir") == 0)
        c->dir = v;
    else if (strcmp(arg, "--seconds") == 0)
        c->seconds = number(v, 0.01, 3600);
    else if (strcmp(arg, "--seed") == 0)
        c->seed = (uint64_t)number(v, 0, 1e15);
    else if (strcmp(arg, "--timeout") == 0)
        c->timeout_s = (unsigned)number(v, 1, 1e6);
    else
        return false;
    return true;
}

static void parse(struct conf *c, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            usage(0);
        if (parse_flag(c, argv[i]))
            continue;
        if (i + 1 >= argc || !parse_value(c, argv[i], argv[i + 1]))
            usage(2);
        i++;
    }
    bool any = false;
    for (size_t p = 0; p < MAX_PEERS; p++)
        any = any || c->peers[p];
    for (size_t p = 0; p < MAX_PEERS && !any; p++)
        c->peers[p] = true;
    if (c->sections == 0)
        c->sections = S_WRITE | S_READ | S_SCAN | S_DISK | S_START | S_UPDATE | S_SINGLE;
    if (c->limited)
        c->sections |= S_LIMITED;
    c->limit_bytes = c->limited_pairs * LMDB_BYTES_A_PAIR / 4;
}

/* ---- the run ------------------------------------------------------------------------------------------------- */

/* Measures a section of every peer, round by round; the folder of a peer has its name. */
static void rounds(const struct conf *c, const char *what, unsigned count, section_fn *fn, struct results *r)
{
    for (unsigned i = 0; i < count; i++) {
        (void)fprintf(stderr, "%s, round %u of %u\n", what, i + 1, count);
        for (int p = 0; p < (int)MAX_PEERS; p++) {
            if (c->peers[p])
                run_child(c, (enum peer_id)p, i, peers[p]->name, false, fn, r);
        }
    }
}

static void peer_path(const struct conf *c, int p, const char *suffix, char *path, size_t n)
{
    if (snprintf(path, n, "%s/%s%s", c->dir, peers[p]->name, suffix) >= (int)n)
        die("--dir is too long");
}

static void store_usage(const char *path, double *blocks_mb, double *apparent_mb)
{
    uint64_t blocks;
    uint64_t apparent;
    disk_usage(path, &blocks, &apparent);
    *blocks_mb = (double)blocks / 1e6;
    if (apparent_mb != NULL)
        *apparent_mb = (double)apparent / 1e6;
}

/* The data of the last round stay for the other sections. */
static void run_loads(const struct conf *c, struct results *r)
{
    unsigned count = (c->sections & (S_WRITE | S_DISK)) != 0 ? c->rounds : 1;
    for (unsigned i = 0; i < count; i++) {
        (void)fprintf(stderr, "load, round %u of %u\n", i + 1, count);
        for (int p = 0; p < (int)MAX_PEERS; p++) {
            char path[600];
            if (!c->peers[p])
                continue;
            peer_path(c, p, "", path, sizeof path);
            remove_tree(path);
            make_dir(path);
            run_child(c, (enum peer_id)p, i, peers[p]->name, false, section_load, r);
            store_usage(path, &r->v[p][M_DISK][i], &r->v[p][M_APPARENT][i]);
        }
    }
}

static void run_limited(const struct conf *c, struct results *r)
{
    for (unsigned i = 0; i < c->rounds; i++) {
        (void)fprintf(stderr, "limited, round %u of %u\n", i + 1, c->rounds);
        for (int p = 0; p < (int)MAX_PEERS; p++) {
            char path[600];
            char folder[64];
            if (!c->peers[p])
                continue;
            peer_path(c, p, ".limited", path, sizeof path);
            (void)snprintf(folder, sizeof folder, "%s.limited", peers[p]->name);
            make_dir(path);
            run_child(c, (enum peer_id)p, i, folder, false, section_limited, r);
            store_usage(path, &r->v[p][M_LIM_DISK][i], NULL);
            if (c->cgroup != NULL)
                run_child(c, (enum peer_id)p, i, folder, false, section_limited_reads, r);
            remove_tree(path);
        }
    }
}

static void run_kills(const struct conf *c, struct results *r)
{
    for (unsigned i = 0; i < c->rounds; i++) {
        (void)fprintf(stderr, "start after SIGKILL, round %u of %u\n", i + 1, c->rounds);
        for (int p = 0; p < (int)MAX_PEERS; p++) {
            if (!c->peers[p])
                continue;
            run_child(c, (enum peer_id)p, i, peers[p]->name, true, section_kill, r);
            run_child(c, (enum peer_id)p, i, peers[p]->name, false, section_start_kill, r);
        }
    }
}

static void run_sections(const struct conf *c, struct results *r)
{
    /* Scans compare sums of the values, so what changes them comes after. */
    if ((c->sections & ~(unsigned)S_LIMITED) != 0)
        run_loads(c, r);
    if (c->sections & S_START)
        rounds(c, "start after a clean stop", c->rounds, section_start_clean, r);
    if (c->sections & S_READ)
        rounds(c, "read", c->rounds, section_read, r);
    if (c->sections & S_SCAN)
        rounds(c, "scan", c->rounds, section_scan, r);
    if (c->sections & S_UPDATE)
        rounds(c, "update", c->rounds, section_update, r);
    if (c->sections & S_SINGLE)
        rounds(c, "single", c->rounds, section_single, r);
    if (c->sections & S_START)
        run_kills(c, r);
    if (c->sections & S_LIMITED)
        run_limited(c, r);
}

static void print_load_average(void)
{
    double load[3];
    if (getloadavg(load, 3) == 3)
        (void)fprintf(stderr, "load average %.2f %.2f %.2f, %ld cores\n", load[0], load[1], load[2],
                      sysconf(_SC_NPROCESSORS_ONLN));
}

int main(int argc, char **argv)
{
    static struct results results;
    char dir[400];
    bool ok = true;
    struct conf c = {.pairs = 1000000,
                     .seed = 1,
                     .rounds = 3,
                     .timeout_s = 1800,
                     .seconds = 1.5,
                     .single_seconds = 3,
                     .dir = "bench_data",
                     .limited_pairs = 2000000};
    parse(&c, argc, argv);
    const char *parent = c.dir;
    if (snprintf(dir, sizeof dir, "%s/run.%ld", parent, (long)getpid()) >= (int)sizeof dir)
        die("--dir is too long");
    make_dir(parent);
    make_dir(dir);
    c.dir = dir;
    for (size_t p = 0; p < MAX_PEERS; p++) {
        for (size_t m = 0; m < M_COUNT; m++) {
            for (size_t i = 0; i < MAX_ROUNDS; i++)
                results.v[p][m][i] = NAN;
        }
    }
    print_load_average();
    if (c.micro) {
        micro(&c);
    } else if (c.growth) {
        ok = growth(&c);
    } else {
        run_sections(&c, &results);
        ok = report(&c, &results) && results.failed == 0;
    }
    print_load_average();
    if (!c.keep) {
        remove_tree(dir);
        (void)rmdir(parent); /* stays if something else is in it */
    }
    return ok ? 0 : 1;
}
