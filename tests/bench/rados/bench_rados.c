/* bench_rados: the store on RADOS against a plain librados loop that does the same operations on the same cluster in the same run: no lock, no
 * compare, no counter, no checksum. Needs CHT_RADOS_CONF (tests/rados/run.sh). README.md has the figures.
 *
 *   tests/rados/run.sh build/rados/tests/bench/rados/bench_rados [ROUNDS [SHARDS [SERVERS [ONLY]]]]
 *
 * Each measure runs store and loop alternately, ROUNDS times (15); what is printed are the medians and their ratio. With SERVERS (1) above 1 so
 * many processes do it at the same time on one database, or as so many loops; a round ends with the last of them. ONLY: measures that have
 * this in their name. The processor time of the OSDs is shown if run.sh started them.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rados/librados.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cheetah/changes.h"
#include "cheetah/rados.h"
#include "cheetah/scan.h"
#include "cheetah/sweep.h"
#include "os/thread.h"
#include "store/rados/rdb.h"

#define ROUNDS_MAX 50u
#define PAIRS 100000u /* that are there */
#define BATCH 1000u
#define AHEAD 256u
#define VALUE "a value of some thirty-two bytes"

static struct cht_env *env;
static struct cht_store *s;
static rados_ioctx_t io; /* of the loop: its own namespace, the same pool */
static unsigned shards = 8, fresh;
static struct cht_rng rng;
static const char *only = "";
static unsigned servers = 1, server; /* this is one of them */
static pthread_barrier_t *together;  /* in memory that all have */

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "bench_rados: %s: %s\n", what, why);
    exit(1);
}

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static void name_of(char *out, const char *kind, unsigned i) { (void)snprintf(out, 32, "%s:%07u", kind, i); }

static unsigned object_of(const char *name) { return cht_row_bucket(str(name)) % shards; }

static void object_name(char *out, unsigned i) { (void)snprintf(out, 32, "plain.%u", i); }

/* ---- the loop --------------------------------------------------------------------------------------------------------- */

/* The two rows of a pair: the value under its name, and the name under its key. */
static void add_rows(rados_write_op_t w, const char *name, bool guarded)
{
    static unsigned keys;
    char key[16];
    (void)snprintf(key, sizeof key, "K%07x", (server << 24) + (keys++ & 0xffffffu));
    for (unsigned i = 0; i < 2 && guarded; i++) /* neither row is there */
        rados_write_op_omap_cmp2(w, i == 0 ? name : key, LIBRADOS_CMPXATTR_OP_EQ, "",
                                 i == 0 ? strlen(name) : 8, 0, NULL);
    const char *names[2] = {name, key}, *values[2] = {VALUE, name};
    size_t lens[2] = {strlen(name), 8}, value_lens[2] = {sizeof VALUE - 1, strlen(name)};
    rados_write_op_omap_set2(w, names, values, lens, value_lens, 2);
}

static void plain_put(const char *name)
{
    char object[32];
    rados_write_op_t w = rados_create_write_op();
    add_rows(w, name, false);
    object_name(object, object_of(name));
    if (rados_write_op_operate(w, io, object, NULL, 0) < 0)
        die("loop", "put");
    rados_release_write_op(w);
}

static void plain_get(const char *name)
{
    char object[32], *k, *v;
    size_t len = strlen(name), kn, vn;
    rados_omap_iter_t it;
    int part;
    rados_read_op_t r = rados_create_read_op();
    rados_read_op_omap_get_vals_by_keys2(r, &name, 1, &len, &it, &part);
    object_name(object, object_of(name));
    if (rados_read_op_operate(r, io, object, 0) < 0 || rados_omap_get_next2(it, &k, &v, &kn, &vn) < 0 ||
        k == NULL)
        die("loop", "a pair is not there");
    rados_omap_get_end(it);
    rados_release_read_op(r);
}

/* As many at once as there are objects, each with all of its pairs. */
static void plain_batch(const char *kind, unsigned from, bool guarded)
{
    rados_write_op_t *w = calloc(shards, sizeof *w);
    rados_completion_t *c = calloc(shards, sizeof *c);
    char name[32];
    for (unsigned i = 0; i < BATCH; i++) {
        name_of(name, kind, from + i);
        unsigned at = object_of(name);
        if (w[at] == NULL)
            w[at] = rados_create_write_op();
        add_rows(w[at], name, guarded);
    }
    for (unsigned i = 0; i < shards; i++) {
        if (w[i] == NULL)
            continue;
        object_name(name, i);
        (void)rados_aio_create_completion2(NULL, NULL, &c[i]);
        (void)rados_aio_write_op_operate(w[i], io, c[i], name, NULL, 0);
    }
    for (unsigned i = 0; i < shards; i++) {
        if (w[i] == NULL)
            continue;
        (void)rados_aio_wait_for_complete(c[i]);
        if (rados_aio_get_return_value(c[i]) < 0)
            die("loop", "batch");
        rados_aio_release(c[i]);
        rados_release_write_op(w[i]);
    }
    free(w);
    free(c);
}

struct page {
    rados_read_op_t r;
    rados_completion_t c;
    rados_omap_iter_t it;
    char after[64], object[32];
    unsigned char more;
    int part;
};

static void start_page(struct page *p, unsigned rows)
{
    p->r = rados_create_read_op();
    rados_read_op_omap_get_vals2(p->r, p->after, "s:", rows, &p->it, &p->more, &p->part);
    (void)rados_aio_create_completion2(NULL, NULL, &p->c);
    (void)rados_aio_read_op_operate(p->r, io, p->c, p->object, 0);
}

static unsigned end_page(struct page *p)
{
    char *k, *v;
    size_t kn, vn;
    unsigned n = 0;
    (void)rados_aio_wait_for_complete(p->c);
    while (rados_omap_get_next2(p->it, &k, &v, &kn, &vn) == 0 && k != NULL) {
        memcpy(p->after, k, kn);
        p->after[kn] = 0;
        n++;
    }
    rados_omap_get_end(p->it);
    rados_aio_release(p->c);
    rados_release_read_op(p->r);
    return n;
}

/* All rows of all objects, a page of each at a time. */
static unsigned plain_scan(void)
{
    struct page *p = calloc(shards, sizeof *p);
    unsigned n = 0, left = shards;
    for (unsigned i = 0; i < shards; i++) {
        object_name(p[i].object, i);
        start_page(&p[i], 1024);
    }
    while (left > 0) {
        for (unsigned i = 0; i < shards; i++) {
            if (p[i].c == NULL)
                continue;
            n += end_page(&p[i]);
            p[i].c = NULL;
            if (p[i].more)
                start_page(&p[i], 1024);
            else
                left--;
        }
    }
    free(p);
    return n;
}

static void plain_count(void)
{
    static const char *const row = "C:counter";
    size_t len = 9;
    struct page *p = calloc(shards, sizeof *p);
    for (unsigned i = 0; i < shards; i++) {
        object_name(p[i].object, i);
        p[i].r = rados_create_read_op();
        rados_read_op_omap_get_vals_by_keys2(p[i].r, &row, 1, &len, &p[i].it, &p[i].part);
        (void)rados_aio_create_completion2(NULL, NULL, &p[i].c);
        (void)rados_aio_read_op_operate(p[i].r, io, p[i].c, p[i].object, 0);
    }
    for (unsigned i = 0; i < shards; i++)
        (void)end_page(&p[i]);
    free(p);
}

/* AHEAD operations of one pair each in flight. */
static void plain_many(const char *kind, unsigned from, unsigned n)
{
    rados_completion_t c[AHEAD] = {0};
    rados_write_op_t w[AHEAD];
    char name[32], object[32];
    for (unsigned i = 0; i < n + AHEAD; i++) {
        unsigned at = i % AHEAD;
        if (i >= AHEAD && c[at] != NULL) {
            (void)rados_aio_wait_for_complete(c[at]);
            if (rados_aio_get_return_value(c[at]) < 0)
                die("loop", "put");
            rados_aio_release(c[at]);
            rados_release_write_op(w[at]);
            c[at] = NULL;
        }
        if (i >= n)
            continue;
        name_of(name, kind, from + i);
        w[at] = rados_create_write_op();
        add_rows(w[at], name, false);
        object_name(object, object_of(name));
        (void)rados_aio_create_completion2(NULL, NULL, &c[at]);
        (void)rados_aio_write_op_operate(w[at], io, c[at], object, NULL, 0);
    }
}

/* ---- the store -------------------------------------------------------------------------------------------------------- */

static void store_put(const char *name)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = str(VALUE)};
    struct cht_commit c = {.ops = &op, .count = 1};
    if (cht_store_commit(s, &c) != CHT_OK || op.rc != CHT_OK)
        die("store", c.err.msg);
}

static void store_batch(const char *kind, unsigned from)
{
    static struct cht_op ops[BATCH];
    static char names[BATCH][32];
    for (unsigned i = 0; i < BATCH; i++) {
        name_of(names[i], kind, from + i);
        ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = str(VALUE)};
    }
    struct cht_commit c = {.ops = ops, .count = BATCH, .flags = CHT_COMMIT_UNORDERED};
    if (cht_store_commit(s, &c) != CHT_OK || c.failed > 0)
        die("store", c.err.msg);
}

struct slot {
    struct cht_commit c;
    struct cht_op op;
    char name[32];
    _Atomic bool busy;
};

static void slot_done(struct cht_commit *c)
{
    struct slot *l = c->ctx;
    if (c->rc != CHT_OK || l->op.rc != CHT_OK)
        die("store", c->err.msg);
    atomic_store(&l->busy, false);
}

static void store_many(const char *kind, unsigned from, unsigned n)
{
    static struct slot slots[AHEAD];
    for (unsigned i = 0; i < n + AHEAD; i++) {
        struct slot *l = &slots[i % AHEAD];
        while (atomic_load(&l->busy))
            cht_sleep_ns(20000);
        if (i >= n)
            continue;
        name_of(l->name, kind, from + i);
        l->op = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(l->name), .value = str(VALUE)};
        l->c = (struct cht_commit){.ops = &l->op, .count = 1, .done = slot_done, .ctx = l};
        atomic_store(&l->busy, true);
        if (cht_store_submit(s, &l->c) != CHT_PENDING)
            die("store", l->c.err.msg);
    }
}

static unsigned store_scan(void)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = str("s:"), .values = true};
    struct cht_scan *scan;
    struct cht_entry e[512];
    struct cht_err err;
    size_t got = 1;
    unsigned n = 0;
    if (cht_scan_open(s, &cfg, &scan, &err) != CHT_OK)
        die("scan", err.msg);
    while (got > 0) {
        if (cht_scan_next(scan, e, 512, &got, &err) != CHT_OK)
            die("scan", err.msg);
        n += (unsigned)got;
    }
    cht_scan_close(scan);
    return n;
}

static bool see(void *ctx, const struct cht_entry *e, size_t n)
{
    (void)e;
    *(unsigned *)ctx += (unsigned)n;
    return true;
}

static unsigned store_sweep(void)
{
    unsigned n = 0;
    struct cht_err err;
    struct cht_sweep_config cfg = {.prefix = str("s:"), .visit = see, .ctx = &n};
    if (cht_store_sweep(s, &cfg, &err) != CHT_OK)
        die("sweep", err.msg);
    return n;
}

/* ---- measures: operations of one run, by the store or by the loop ------------------------------------------------------ */

static unsigned point_read(bool plain)
{
    char name[32];
    struct cht_buf b = {0};
    uint64_t key;
    struct cht_err err;
    for (unsigned i = 0; i < 600; i++) {
        name_of(name, "s", (unsigned)cht_rng_below(&rng, PAIRS));
        if (plain)
            plain_get(name);
        else if (cht_store_pair_value(s, str(name), &key, &b, NULL, &err) != CHT_OK)
            die("read", err.msg);
    }
    cht_buf_free(&b);
    return 600;
}

static unsigned upserts(bool plain, const char *kind, unsigned from)
{
    char name[32];
    for (unsigned i = 0; i < 100; i++) {
        name_of(name, kind, from + i);
        if (plain)
            plain_put(name);
        else
            store_put(name);
    }
    return 100;
}

static unsigned upsert_new(bool plain) { return upserts(plain, "u", fresh); }
static unsigned upsert_known(bool plain) { return upserts(plain, "known", server * 100); }

static unsigned grouped(bool plain)
{
    (plain ? plain_many : store_many)("g", fresh, 2000);
    return 2000;
}

static unsigned batches_of(bool plain, bool guarded)
{
    for (unsigned i = 0; i < 5; i++) {
        if (plain)
            plain_batch("b", fresh + i * BATCH, guarded);
        else
            store_batch("b", fresh + i * BATCH);
    }
    return 5 * BATCH;
}

static unsigned batches(bool plain) { return batches_of(plain, false); }
static unsigned guarded_batches(bool plain) { return batches_of(plain, true); }

static unsigned scan(bool plain)
{
    unsigned n = plain ? plain_scan() : store_scan();
    if (n != PAIRS)
        die("scan", "not all pairs");
    return n;
}

static unsigned sweep(bool plain)
{
    unsigned n = plain ? plain_scan() : store_sweep();
    if (n != PAIRS)
        die("sweep", "not all pairs");
    return n;
}

static unsigned counting(bool plain)
{
    uint64_t n;
    struct cht_err err;
    for (unsigned i = 0; i < 100; i++) {
        if (plain)
            plain_count();
        else if (cht_store_count(s, str("s:"), &n, &err) != CHT_OK || n != PAIRS)
            die("count", err.msg);
    }
    return 100;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of this process, librados included. */
static double cpu_us(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* Of all OSDs that run.sh started; 0 without them. */
static double osd_us(void)
{
    const char *dir = getenv("CHT_RADOS_DIR");
    double sum = 0;
    for (unsigned i = 0; dir != NULL && i < 16; i++) {
        char path[256], text[1024] = "";
        unsigned long user = 0, kernel = 0;
        int pid = 0;
        (void)snprintf(path, sizeof path, "%s/run/osd.%u.pid", dir, i);
        FILE *f = fopen(path, "r");
        if (f == NULL)
            break;
        if (fscanf(f, "%d", &pid) != 1)
            pid = 0;
        (void)fclose(f);
        (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
        if ((f = fopen(path, "r")) == NULL)
            continue;
        size_t n = fread(text, 1, sizeof text - 1, f);
        (void)fclose(f);
        text[n] = 0;
        const char *p = strrchr(text, ')');
        if (p != NULL &&
            sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) == 2)
            sum += (double)(user + kernel) * 1e6 / (double)sysconf(_SC_CLK_TCK);
    }
    return sum;
}

static void meet(void) { (void)pthread_barrier_wait(together); }

struct costs {
    double rate[ROUNDS_MAX], cpu, osds, ops;
};

static void one_run(struct costs *c, unsigned round, unsigned (*run)(bool plain), bool plain)
{
    meet();
    double used = cpu_us(), osds = osd_us();
    uint64_t start = cht_now_ns();
    unsigned n = run(plain);
    c->cpu += cpu_us() - used;
    meet();
    c->rate[round] = servers * n / ((double)(cht_now_ns() - start) / 1e9);
    c->osds += osd_us() - osds;
    c->ops += n;
}

static void measure(const char *what, unsigned (*run)(bool plain), unsigned rounds, double bar)
{
    struct costs c[2] = {0};
    double ratio[ROUNDS_MAX];
    if (strstr(what, only) == NULL)
        return;
    for (unsigned i = 0; i < rounds; i++) {
        fresh += 100000; /* names of which nobody has heard */
        for (unsigned k = 0; k < 2; k++)
            one_run(&c[(k + i) % 2], i, run, (k + i) % 2 != 0); /* now this one first, now that one */
        ratio[i] = c[0].rate[i] / c[1].rate[i];
    }
    if (server != 0)
        return;
    qsort(c[0].rate, rounds, sizeof(double), by_size);
    qsort(c[1].rate, rounds, sizeof(double), by_size);
    qsort(ratio, rounds, sizeof(double), by_size);
    printf("%-30s %10.0f %10.0f %8.2f   (%.2f to %.2f) %8.1f %8.1f %8.1f %8.1f%s\n", what,
           c[0].rate[rounds / 2], c[1].rate[rounds / 2], ratio[rounds / 2], ratio[0], ratio[rounds - 1],
           c[0].cpu / c[0].ops, c[1].cpu / c[1].ops, c[0].osds / c[0].ops / servers,
           c[1].osds / c[1].ops / servers, ratio[rounds / 2] < bar ? "  below the bar" : "");
    (void)fflush(stdout);
}

static void fill(void)
{
    char name[32];
    for (unsigned i = 0; i < PAIRS; i += BATCH) {
        store_batch("s", i);
        plain_batch("s", i, false);
    }
    for (unsigned i = 0; i < 400; i++) {
        name_of(name, "known", i);
        store_put(name);
        plain_put(name);
    }
}

static void child_ended(int sig)
{
    (void)sig;
    _exit(1); /* it would be waited for */
}

/* The other processes; none has a connection yet. */
static void start_servers(void)
{
    pthread_barrierattr_t a;
    together = mmap(NULL, sizeof *together, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (together == MAP_FAILED)
        die("start", "no memory");
    (void)pthread_barrierattr_init(&a);
    (void)pthread_barrierattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    (void)pthread_barrier_init(together, &a, servers);
    (void)signal(SIGCHLD, child_ended);
    for (unsigned i = 1; i < servers && server == 0; i++) {
        pid_t pid = fork();
        if (pid < 0)
            die("start", "fork");
        if (pid == 0) {
            server = i;
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        }
    }
    fresh = server * 20000;
}

static void connect_loop(const char *conf, const char *pool, const char *name, rados_t *cluster)
{
    if (rados_create(cluster, NULL) < 0 || rados_conf_read_file(*cluster, conf) < 0 ||
        rados_connect(*cluster) < 0 || rados_ioctx_create(*cluster, pool, &io) < 0)
        die("loop", "cannot connect");
    rados_ioctx_set_namespace(io, name);
}

static void measure_all(unsigned rounds)
{
    measure("point read, one", point_read, rounds, 0.7);
    measure("upsert of a new name, one", upsert_new, rounds, 0.7);
    measure("upsert of a known name, one", upsert_known, rounds, 0.7);
    measure("upserts, 256 in flight", grouped, rounds, 0.7);
    measure("batch of 1000 new pairs", batches, rounds, 0.8);
    measure("the same, a loop that compares", guarded_batches, rounds, 0.8);
    measure("scan with values", scan, rounds, 0.7);
    measure("sweep", sweep, rounds, 0.7);
    measure("count", counting, rounds, 0.7);
}

/* The database keeps what changes from now on. */
static void keep_changes(void)
{
    struct cht_err err = {0};
    struct cht_changes *c;
    if (cht_changes_open(s, (struct cht_str){NULL, 0}, CHT_CHANGES_NOW, &c, &err) != CHT_OK)
        die("changes", err.msg);
    cht_changes_close(c);
}

static void drop(const char *name)
{
    struct cht_err err = {0};
    char object[32];
    for (unsigned i = 0; i < shards; i++) {
        object_name(object, i);
        (void)rados_remove(io, object);
    }
    if (cht_env_drop(env, name, &err) != CHT_OK)
        die("drop", err.msg);
}

int main(int argc, char **argv)
{
    struct cht_err err = {0};
    char name[32];
    rados_t cluster;
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 15;
    shards = argc > 2 ? (unsigned)atoi(argv[2]) : 8;
    servers = argc > 3 ? (unsigned)atoi(argv[3]) : 1;
    only = argc > 4 ? argv[4] : "";
    const char *conf = getenv("CHT_RADOS_CONF"), *pool = getenv("POOL") != NULL ? getenv("POOL") : "cheetah";
    if (conf == NULL || rounds < 1 || rounds > ROUNDS_MAX || shards < 1 || shards > 256 || servers < 1 ||
        servers > 4)
        die("usage", "tests/rados/run.sh bench_rados [ROUNDS [SHARDS [SERVERS [ONLY]]]]");
    (void)snprintf(name, sizeof name, "bench-%u", (unsigned)getpid());
    start_servers();
    struct cht_rados_config cfg = {.pool = pool, .conf = conf};
    if (cht_rados_open(&cfg, &env, &err) != CHT_OK)
        die("open", err.msg);
    connect_loop(conf, pool, name, &cluster);
    cht_rng_seed(&rng, 1 + server);
    if (server == 0 && cht_env_create(env, name, shards, &err) != CHT_OK)
        die("create", err.msg);
    meet();
    if (cht_env_get(env, name, &s, &err) != CHT_OK)
        die("open", err.msg);
    if (server == 0)
        fill();
    if (server == 0 && getenv("CHT_BENCH_CHANGES") != NULL)
        keep_changes();
    meet();
    if (server == 0)
        printf("%u pairs, %u shards, %u servers, %u rounds    a second: store       loop    ratio   (of the "
               "rounds)   CPU us of one: store, loop; of the OSDs: store, loop\n",
               PAIRS, shards, servers, rounds);
    measure_all(rounds);
    (void)signal(SIGCHLD, SIG_DFL);
    meet();
    if (server == 0)
        drop(name);
    rados_ioctx_destroy(io);
    rados_shutdown(cluster);
    if (cht_env_close(env, &err) != CHT_OK)
        die("close", err.msg);
    while (server == 0 && wait(NULL) > 0) {
    }
    return 0;
}
