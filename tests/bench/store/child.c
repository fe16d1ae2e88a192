/* child: every measurement of a peer runs in a process of its own, so that its memory, its /proc/self/io and its
 * threads are its own, and a peer that fails takes nothing with it. */
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

const struct peer *const peers[MAX_PEERS] = {&peer_cheetah, &peer_lmdb,       &peer_rocksdb, &peer_sqlite,
                                             &peer_leveldb, &peer_wiredtiger, &peer_tkrzw};

void run_child(const struct conf *c, enum peer_id p, unsigned round, const char *folder, bool by_kill,
               section_fn *fn, struct results *r)
{
    size_t size = M_COUNT * sizeof(double);
    double *out = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (out == MAP_FAILED)
        die("mmap: %s", strerror(errno));
    for (int m = 0; m < M_COUNT; m++)
        out[m] = NAN;
    struct job j = {.c = c, .p = peers[p], .round = round, .out = out};
    int n = snprintf(j.dir, sizeof j.dir, "%s/%s", c->dir, folder);
    if (n < 0 || (size_t)n >= sizeof j.dir)
        die("--dir is too long");
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        die("fork: %s", strerror(errno));
    if (pid == 0) {
        (void)alarm(c->timeout_s); /* a child that hangs ends */
        fn(&j);
        _exit(0);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            die("waitpid: %s", strerror(errno));
    }
    bool ok = by_kill ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                      : WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!ok) {
        r->failed++;
        (void)fprintf(stderr, "bench_store: %s FAILED in %s (%s %d)\n", peers[p]->name, folder,
                      WIFSIGNALED(status) ? "signal" : "exit",
                      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        for (int m = 0; m < M_COUNT; m++)
            out[m] = NAN; /* figures of a run that failed are no figures */
    }
    for (int m = 0; m < M_COUNT; m++) {
        if (!isnan(out[m]))
            r->v[p][m][round] = out[m];
    }
    if (munmap(out, size) != 0)
        die("munmap: %s", strerror(errno));
}
