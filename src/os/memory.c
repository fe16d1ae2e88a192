/* memory: what this process holds of the machine's memory, and giving back what its heap has free.
 *
 * The heap keeps what is freed in between used blocks: after 200 streams of 4 MiB have closed, all of it. Returning each buffer
 * at once would cost every short scan its page faults; so they stay, and a slow tick gives back what is still free then.
 */
#include "os/io.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)
#define WORTH (UINT64_C(16) << 20) /* bytes that are worth a walk through the heap */
#define HEAPS 8                    /* of threads, together */
#define SPARE (1 << 20)            /* at the end of each: what it keeps for the next buffers */
#define MAPPED (4 << 20)           /* longer blocks are mapped, each by itself */

uint64_t cht_os_anonymous(void)
{
    char line[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
    if (fd >= 0)
        (void)close(fd); /* opened for reading */
    if (n <= 0)
        return 0;
    line[n] = 0;
    char *end;
    (void)strtoull(line, &end, 10);
    uint64_t resident = strtoull(end, &end, 10), of_files = strtoull(end, &end, 10);
    return resident > of_files ? (resident - of_files) * PAGE : 0;
}

uint64_t cht_os_give_memory_back(uint64_t *low)
{
    uint64_t before = cht_os_anonymous();
    if (before < *low)
        *low = before;
    if (before < *low + WORTH)
        return 0;
#ifdef __GLIBC__
    struct mallinfo2 heap = mallinfo2();
    if (heap.fordblks < WORTH)
        return 0;
    (void)malloc_trim(0);
#endif
    *low = cht_os_anonymous();
    return before > *low ? before - *low : 0;
}

/* malloc_trim returns what is free between used blocks of all heaps, but the free end of the first only. The end of another shrinks when something is freed before
 * it, down to SPARE; unless thresholds are left to malloc, which then raises them to 64 MiB. */
void cht_os_few_heaps(void)
{
#ifdef __GLIBC__
    /* NOLINTBEGIN(concurrency-mt-unsafe): other threads may see the old bound a little longer */
    (void)mallopt(M_ARENA_MAX, HEAPS);
    (void)mallopt(M_TOP_PAD, SPARE);
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED);
    /* NOLINTEND(concurrency-mt-unsafe) */
#endif
}
