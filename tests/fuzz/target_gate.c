/* gate: what clients send before libmicrohttpd reads it, driven through recv as libmicrohttpd does it. However it is cut into pieces, and
 * whatever room there is to read it into, the verdict is the same. The first byte says how it is cut. */
#include "fuzz/fuzz.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/rng.h"
#include "http/gate.h"

enum { OUT_MAX = 1 << 18, IN_MAX = 60000 };

struct run {
    struct cht_tap tap;
    struct http_gate gate;
    int fd[2]; /* the client's end, the gate's */
    size_t n;
    char out[OUT_MAX];
};

static ptrdiff_t tap_read(struct cht_tap *t, int fd, char *buf, size_t n, struct cht_tap_source *from)
{
    (void)fd;
    return http_gate_read(&((struct run *)(void *)t)->gate, buf, n, from);
}

/* All that is there now; false at the end. */
static bool drain(struct run *x, struct cht_rng *r, bool narrow)
{
    for (;;) {
        size_t cap = narrow ? 1 + cht_rng_below(r, 1200) : 8192;
        char *room = malloc(cap); /* its own block: the sanitizer sees a step beyond */
        FUZZ_CHECK(room != NULL);
        ssize_t got = recv(x->fd[1], room, cap, 0);
        FUZZ_CHECK(got <= (ssize_t)cap);
        if (got > 0) {
            FUZZ_CHECK(x->n + (size_t)got <= OUT_MAX);
            memcpy(x->out + x->n, room, (size_t)got);
            x->n += (size_t)got;
        }
        free(room);
        if (got == 0)
            return false;
        if (x->gate.state == HTTP_GATE_LINE && x->gate.ended == x->gate.begun)
            x->gate.done = x->gate.ended; /* all that is whole counts as answered */
        if (got < (ssize_t)cap && !x->gate.again)
            return true;
        if (got < (ssize_t)cap)
            x->gate.again = false;
    }
}

static void send_all(struct run *x, const uint8_t *p, size_t n, uint8_t how)
{
    struct cht_rng r;
    bool more = true;
    cht_rng_seed(&r, how);
    memset(&x->gate, 0, sizeof x->gate);
    x->n = 0;
    x->tap.read = tap_read;
    x->gate.memory = 20480;
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, x->fd) == 0);
    cht_tap_set(&x->tap);
    for (size_t at = 0, k; at < n && more; at += k) {
        k = how == 0 ? n : 1 + cht_rng_below(&r, how % 2 == 0 ? 30 : 3000);
        k = k < n - at ? k : n - at;
        FUZZ_CHECK(write(x->fd[0], p + at, k) == (ssize_t)k);
        more = drain(x, &r, how % 4 > 1);
    }
    FUZZ_CHECK(shutdown(x->fd[0], SHUT_WR) == 0);
    for (unsigned i = 0; more && i < 3; i++)
        more = drain(x, &r, how % 4 > 1);
    cht_tap_set(NULL);
    close(x->fd[0]);
    close(x->fd[1]);
    http_gate_fini(&x->gate);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct run whole, pieces;
    if (n < 2 || n > IN_MAX)
        return 0;
    send_all(&whole, data + 1, n - 1, 0);
    send_all(&pieces, data + 1, n - 1, (uint8_t)(data[0] | 1));
    bool over = whole.gate.begun == whole.gate.ended && pieces.gate.begun == pieces.gate.ended;
    bool good = whole.gate.bad == CHT_OK;
    FUZZ_CHECK(!over || good == (pieces.gate.bad == CHT_OK)); /* of half a request it depends */
    FUZZ_CHECK(!over || !good || (whole.n == pieces.n && memcmp(whole.out, pieces.out, whole.n) == 0));
    return 0;
}
