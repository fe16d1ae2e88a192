/* usage: what this process and the machine have used, as the kernel counts it. */
#include "os/io.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"

static uint64_t ns_of(struct timeval t)
{
    return ((uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec) * 1000;
}

/* The first line of /proc/stat: ticks of all cores. */
static void read_machine(struct cht_os_usage *u)
{
    FILE *f = fopen("/proc/stat", "re");
    unsigned long long v[8] = {0};
    int n = f == NULL ? 0
                      : fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", /* NOLINT(cert-err34-c) */
                               &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]);
    if (f != NULL)
        (void)fclose(f); /* opened for reading */
    for (int i = 0; i < n; i++)
        u->ticks += v[i];
    if (n >= 5)
        u->idle_ticks = v[3] + v[4];
}

static void read_io(struct cht_os_usage *u)
{
    FILE *f = fopen("/proc/self/io", "re");
    char name[32];
    unsigned long long v;
    while (f != NULL &&
           fscanf(f, "%31s %llu", name, &v) == 2) { /* NOLINT(cert-err34-c): numbers of the kernel's */
        if (strcmp(name, "read_bytes:") == 0)
            u->read_bytes = v;
        else if (strcmp(name, "write_bytes:") == 0)
            u->write_bytes = v;
        u->io = true;
    }
    if (f != NULL)
        (void)fclose(f); /* opened for reading */
}

static unsigned count_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    unsigned n = 0;
    while (d != NULL && readdir(d) != NULL) /* NOLINT(concurrency-mt-unsafe): a directory of this thread's */
        n++;
    if (d != NULL)
        (void)closedir(d);
    return n > 2 ? n - 2 : 1;
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_os_used(struct cht_os_usage *u)
{
    struct rusage r;
    *u = (struct cht_os_usage){.at_ns = cht_now_ns(), .threads = count_threads()};
    if (getrusage(RUSAGE_SELF, &r) == 0)
        u->cpu_ns = ns_of(r.ru_utime) + ns_of(r.ru_stime);
    read_machine(u);
    read_io(u);
}
