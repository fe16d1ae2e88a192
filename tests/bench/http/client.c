// The clients of the HTTP benchmark that must cost little:
//
// client stream PORT PATH CONNECTIONS REPEAT: each connection reads the answer to GET PATH to its end, REPEAT times, into a
// 1 MiB buffer, and counts bytes; nothing is parsed. One line of JSON, with the status line and the last bytes (hex) of a
// stream so that the caller can see whether it was complete.
//
// client fdatasync FILE BYTES SECONDS: append BYTES, fdatasync, repeat. What the disk allows.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, TAIL = 64, STATUS = 64, MAX_CONNECTIONS = 256 };

typedef struct {
    uint64_t bytes;
    size_t tail_len;
    char status[STATUS];
    unsigned char tail[TAIL];
} reader;

static uint16_t port;
static const char *path;
static long repeat;
static pthread_barrier_t barrier;

static void die(const char *what)
{
    fprintf(stderr, "client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void keep_tail(reader *r, const unsigned char *data, size_t n)
{
    if (n >= TAIL) {
        memcpy(r->tail, data + n - TAIL, TAIL);
        r->tail_len = TAIL;
        return;
    }
    size_t keep = r->tail_len < TAIL - n ? r->tail_len : TAIL - n;
    memmove(r->tail, r->tail + r->tail_len - keep, keep);
    memcpy(r->tail + keep, data, n);
    r->tail_len = keep + n;
}

static void read_one(reader *r, unsigned char *buffer, const char *request, size_t request_len)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
        die("connect");
    if (send(fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len)
        die("send");
    r->tail_len = 0;
    uint64_t got = 0;
    for (;;) {
        ssize_t n = recv(fd, buffer, BUFFER, 0);
        if (n < 0)
            die("recv");
        if (!n)
            break;
        if (!got) {
            size_t len = strcspn((char *)buffer, "\r\n");
            len = len < STATUS - 1 ? len : STATUS - 1;
            memcpy(r->status, buffer, len);
            r->status[len] = 0;
        }
        got += (uint64_t)n;
        keep_tail(r, buffer, (size_t)n);
    }
    close(fd);
    r->bytes += got;
}

static void *reader_main(void *arg)
{
    reader *r = arg;
    unsigned char *buffer = malloc(BUFFER + 1);
    char request[8192];
    int len = snprintf(request, sizeof request,
                       "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", path);
    if (!buffer || len < 0 || (size_t)len >= sizeof request)
        die("request");
    memset(buffer, 0, BUFFER + 1); // touched before the clock starts
    pthread_barrier_wait(&barrier);
    for (long i = 0; i < repeat; i++)
        read_one(r, buffer, request, (size_t)len);
    free(buffer);
    return NULL;
}

static int stream(char **args)
{
    static reader readers[MAX_CONNECTIONS];
    pthread_t thread[MAX_CONNECTIONS];
    port = (uint16_t)atoi(args[0]);
    path = args[1];
    unsigned n = (unsigned)atoi(args[2]);
    repeat = atol(args[3]);
    if (!n || n > MAX_CONNECTIONS || repeat < 1)
        return 2;
    pthread_barrier_init(&barrier, NULL, n + 1);
    for (unsigned i = 0; i < n; i++)
        if (pthread_create(&thread[i], NULL, reader_main, &readers[i]))
            die("pthread_create");
    pthread_barrier_wait(&barrier);
    double t = now();
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        pthread_join(thread[i], NULL);
        bytes += readers[i].bytes;
    }
    t = now() - t;
    printf("{\"bytes\":%llu,\"seconds\":%.6f,\"streams\":%lu,\"ends\":[", (unsigned long long)bytes, t,
           (unsigned long)n * (unsigned long)repeat);
    for (unsigned i = 0; i < n; i++) {
        printf("%s{\"status\":\"%s\",\"tail\":\"", i ? "," : "", readers[i].status);
        for (size_t k = 0; k < readers[i].tail_len; k++)
            printf("%02x", readers[i].tail[k]);
        printf("\"}");
    }
    printf("]}\n");
    return 0;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int sync_loop(char **args)
{
    enum { MAX_SYNCS = 1 << 20 };
    size_t bytes = (size_t)atol(args[1]);
    double seconds = atof(args[2]);
    int fd = open(args[0], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    char *block = malloc(bytes + 1);
    double *took = malloc(MAX_SYNCS * sizeof *took);
    if (fd < 0 || !block || !took)
        die(args[0]);
    memset(block, 's', bytes);
    size_t n = 0;
    double start = now(), t = start;
    while (n < MAX_SYNCS && t - start < seconds) {
        if (write(fd, block, bytes) != (ssize_t)bytes || fdatasync(fd))
            die("fdatasync");
        double end = now();
        took[n++] = end - t;
        t = end;
    }
    close(fd);
    unlink(args[0]);
    double rate = (double)n / (t - start);
    qsort(took, n, sizeof *took, compare);
    printf("{\"syncs_per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n", rate, n ? took[n / 2] * 1e6 : 0,
           n ? took[n * 99 / 100] * 1e6 : 0);
    free(block);
    free(took);
    return 0;
}

int main(int argc, char **argv)
{
    int rc = 2;
    if (argc == 6 && !strcmp(argv[1], "stream"))
        rc = stream(argv + 2);
    else if (argc == 5 && !strcmp(argv[1], "fdatasync"))
        rc = sync_loop(argv + 2);
    if (rc == 2)
        fputs("client stream PORT PATH CONNECTIONS REPEAT\nclient fdatasync FILE BYTES SECONDS\n", stderr);
    return rc;
}
