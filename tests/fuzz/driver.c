/* driver: runs a target without libFuzzer, as a test: every file that is named, or lies in a folder that is named, and mutants of each of
 * them, which are the same in every run.
 *
 *   test_fuzz_NAME [-m MUTANTS] [-s SEED] FILE|FOLDER ...      MUTANTS: of each file (default 30; 0: only the files)
 *
 * A folder that is not there has no files. A crash is told with the file, and the mutant is written to ./mutant.
 */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"

#define INPUT_MAX (1u << 20)
#define SECONDS 60u /* for one input */

#pragma weak LLVMFuzzerCustomMutator

static struct cht_rng rng;
static uint64_t mutants = 30, seed = 1;
static unsigned files, runs;
static char what[300];
static const uint8_t *running;
static size_t running_n;

static void last_words(int number)
{
    int fd = open("mutant", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ssize_t ignored = write(2, what, strlen(what));
    if (fd >= 0)
        ignored = write(fd, running, running_n);
    (void)ignored;
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* One of the changes that libFuzzer makes as well. */
static size_t change(uint8_t *p, size_t n, size_t max)
{
    static const uint8_t odd[] = {0, 1, 0x7f, 0x80, 0xff, '"', '\\', '%', '\n', '0', ' ', '{', '['};
    size_t at = n > 0 ? cht_rng_below(&rng, n) : 0, len = 1 + cht_rng_below(&rng, 8);
    len = len < n - at ? len : n - at;
    switch (n == 0 ? 1 : cht_rng_below(&rng, 6)) {
    case 0: /* some bytes go */
        memmove(p + at, p + at + len, n - at - len);
        return n - len;
    case 1: /* one comes */
        if (n == max)
            return n;
        memmove(p + at + 1, p + at, n - at);
        p[at] = odd[cht_rng_below(&rng, sizeof odd)];
        return n + 1;
    case 2:
        p[at] ^= (uint8_t)(1u << cht_rng_below(&rng, 8));
        return n;
    case 3:
        p[at] = odd[cht_rng_below(&rng, sizeof odd)];
        return n;
    case 4: /* some are copied elsewhere */
        memmove(p + cht_rng_below(&rng, n - len + 1), p + at, len);
        return n;
    default:
        return at > 0 && cht_rng_below(&rng, 4) == 0 ? at : n; /* cut off */
    }
}

/* Of a target with a mutator of its own this is what that calls for bytes without structure. */
#ifndef CHEETAH_FUZZ
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max)
{
    for (uint64_t k = 1 + cht_rng_below(&rng, 3); k > 0; k--)
        n = change(data, n, max);
    return n;
}
#endif

static void run_one(const uint8_t *p, size_t n, const char *path, uint64_t mutant)
{
    running = p;
    running_n = n;
    (void)snprintf(what, sizeof what, "\n%.200s: mutant %llu of seed %llu\n", path,
                   (unsigned long long)mutant, (unsigned long long)seed);
    (void)alarm(SECONDS);
    (void)LLVMFuzzerTestOneInput(p, n);
    runs++;
}

static void run_file(const char *path)
{
    static uint8_t original[INPUT_MAX], p[INPUT_MAX];
    int fd = open(path, O_RDONLY);
    FUZZ_CHECK(fd >= 0);
    ssize_t got = read(fd, original, sizeof original);
    FUZZ_CHECK(got >= 0);
    close(fd);
    files++;
    run_one(original, (size_t)got, path, 0);
    cht_rng_seed(&rng, seed);
    for (uint64_t i = 1; i <= mutants; i++) {
        size_t n = (size_t)got;
        memcpy(p, original, n);
        if (LLVMFuzzerCustomMutator != NULL && i % 2 == 0)
            n = LLVMFuzzerCustomMutator(p, n, sizeof p, (unsigned)cht_rng_below(&rng, UINT32_MAX));
        else
            n = LLVMFuzzerMutate(p, n, sizeof p);
        run_one(p, n, path, i);
    }
}

static int visible(const struct dirent *e) { return e->d_name[0] != '.'; }

static void run_path(const char *path)
{
    struct stat st;
    struct dirent **list;
    if (stat(path, &st) != 0) {
        FUZZ_CHECK(errno == ENOENT);
        return;
    }
    if (!S_ISDIR(st.st_mode)) {
        run_file(path);
        return;
    }
    int n = scandir(path, &list, visible, alphasort);
    FUZZ_CHECK(n >= 0);
    for (int i = 0; i < n; i++) {
        char file[512];
        (void)snprintf(file, sizeof file, "%s/%s", path, list[i]->d_name);
        free(list[i]);
        run_file(file);
    }
    free(list);
}

int main(int argc, char **argv)
{
    int c;
    while ((c = getopt(argc, argv, "m:s:")) != -1) {
        if (c == '?')
            return 2;
        *(c == 'm' ? &mutants : &seed) = strtoull(optarg, NULL, 10);
    }
    (void)signal(SIGALRM, last_words);
    (void)signal(SIGABRT, last_words);
    for (int i = optind; i < argc; i++)
        run_path(argv[i]);
    (void)alarm(0);
    (void)printf("%u files, %u inputs\n", files, runs);
    return files > 0 ? 0 : 1; /* a test that had nothing to run has shown nothing */
}
