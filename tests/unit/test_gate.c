/* test_gate: what a client sends, cut anywhere and read into any room, comes out as requests that can be read in one way only, or ends
 * with a refusal. The gate is driven through recv, as libmicrohttpd drives it.
 */
#include "base/alloc.h"
#include "base/literal.h"
#include "base/rng.h"
#include "http/gate.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define OUT_MAX (1u << 18)
#define MEMORY 20480u

struct run {
    struct cht_tap tap;
    struct http_gate g;
    int fd[2]; /* the client's end, the gate's */
    char out[OUT_MAX];
    size_t n;
    struct cht_rng r;
    bool narrow; /* little room at a time */
};

static ptrdiff_t tap_read(struct cht_tap *t, int fd, char *buf, size_t n, struct cht_tap_source *from)
{
    (void)fd;
    return http_gate_read(&((struct run *)(void *)((char *)t - offsetof(struct run, tap)))->g, buf, n, from);
}

static struct run *begin(uint64_t seed, bool narrow)
{
    struct run *x = calloc(1, sizeof *x);
    assert_non_null(x);
    x->tap.read = tap_read;
    x->g.memory = MEMORY;
    x->narrow = narrow;
    cht_rng_seed(&x->r, seed);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, x->fd), 0);
    cht_tap_set(&x->tap);
    return x;
}

static void end(struct run *x)
{
    cht_tap_set(NULL);
    if (x->fd[0] >= 0)
        close(x->fd[0]);
    close(x->fd[1]);
    http_gate_fini(&x->g);
    free(x);
}

/* Reads as libmicrohttpd does: again after a read that filled its room, and if gate.again says so; never else, for nothing would tell it to. All
 * that is whole counts as answered. 0 at the end. */
static ssize_t drain(struct run *x)
{
    for (;;) {
        size_t cap = x->narrow ? 1 + cht_rng_below(&x->r, cht_rng_below(&x->r, 2) == 0 ? 40 : 1200) : 8192;
        char *room = malloc(cap); /* its own block: the sanitizer sees a step beyond */
        assert_non_null(room);
        ssize_t got = recv(x->fd[1], room, cap, 0);
        assert_true(got <= (ssize_t)cap);
        if (got > 0) {
            assert_true(x->n + (size_t)got <= sizeof x->out);
            memcpy(x->out + x->n, room, (size_t)got);
            x->n += (size_t)got;
        }
        free(room);
        if (got == 0)
            return 0;
        if (x->g.state == HTTP_GATE_LINE && x->g.ended == x->g.begun)
            x->g.done = x->g.ended;
        if (got < (ssize_t)cap && !x->g.again)
            return -1;
        if (got < (ssize_t)cap)
            x->g.again = false;
    }
}

/* Sends it, in pieces of at most `piece` bytes; 0: in any. */
static void feed(struct run *x, const char *p, size_t n, size_t piece)
{
    static const size_t sizes[] = {1, 2, 3, 17, 100, 1023, 1024, 9000};
    cht_tap_set(&x->tap);
    while (n > 0 && x->g.state != HTTP_GATE_OVER) {
        size_t k = piece > 0 ? piece : sizes[cht_rng_below(&x->r, sizeof sizes / sizeof *sizes)];
        k = k < n ? k : n;
        assert_int_equal(send(x->fd[0], p, k, 0), k);
        (void)drain(x);
        p += k;
        n -= k;
    }
}

/* ---- how any program reads what came out ------------------------------------------------------------------------------- */

static const char *line_of(const char **at, const char *stop, size_t *n)
{
    const char *p = *at, *lf = memchr(p, '\n', (size_t)(stop - p));
    if (lf == NULL)
        return NULL;
    *n = (size_t)(lf - p) - (lf > p && lf[-1] == '\r');
    *at = lf + 1;
    return p;
}

static bool is_header(const char *p, size_t n, const char *name)
{
    size_t k = strlen(name);
    return n > k && strncasecmp(p, name, k) == 0 && p[k] == ':';
}

/* Passes over the chunks; false: they are not whole. */
static bool skip_chunks(const char **at, const char *stop)
{
    for (;;) {
        size_t n;
        const char *p = line_of(at, stop, &n);
        if (p == NULL)
            return false;
        char *rest;
        unsigned long long size = strtoull(p, &rest, 16);
        if (n == 0 || rest != p + n) /* a number and nothing else */
            fail_msg("no size: '%.*s'", (int)(n < 100 ? n : 100), p);
        if (size > 0 && (size_t)(stop - *at) < size + 2)
            return false;
        if (size > 0)
            assert_memory_equal(*at + size, "\r\n", 2);
        *at += size > 0 ? size + 2 : 0;
        if (size == 0) {
            p = line_of(at, stop, &n);
            assert_true(p == NULL || n == 0); /* no trailer */
            return p != NULL;
        }
    }
}

/* How many whole requests there are, `most` at most, each of which has one meaning; *left: bytes that come after them. */
static unsigned count_requests(const char *p, size_t n, unsigned most, size_t *left)
{
    const char *at = p, *stop = p + n, *begun = p;
    unsigned whole = 0;
    while (whole < most) {
        size_t k, lengths = 0, codings = 0, hosts = 0;
        unsigned long long length = 0;
        bool old;
        const char *line = line_of(&at, stop, &k);
        if (line == NULL)
            break;
        assert_true(k > 0 && memchr(line, 0, k) == NULL);
        old = k > 3 && line[k - 1] == '0';
        while ((line = line_of(&at, stop, &k)) != NULL && k > 0) {
            const char *colon = memchr(line, ':', k);
            if (colon == NULL)
                fail_msg("no colon in '%.*s' after %u requests; all: '%.*s'", (int)k, line, whole,
                         (int)(n < 3000 ? n : 3000), p);
            assert_true(colon > line && memchr(line, ' ', (size_t)(colon - line)) == NULL &&
                        memchr(line, '\t', (size_t)(colon - line)) == NULL);
            assert_null(memchr(line, 0, k));
            assert_null(memchr(line, '\r', k));
            hosts += is_header(line, k, "host");
            codings += is_header(line, k, "transfer-encoding");
            if (is_header(line, k, "content-length")) {
                unsigned long long v = strtoull(colon + 1, NULL, 10);
                assert_true(lengths == 0 || v == length);
                lengths++;
                length = v;
            }
        }
        if (line == NULL)
            break;
        assert_true((hosts == 1 || old) && (codings == 0 || lengths == 0) && codings < 2);
        if (codings > 0 && !skip_chunks(&at, stop))
            break;
        if (length > (size_t)(stop - at))
            break;
        at += length;
        begun = at;
        whole++;
    }
    *left = (size_t)(stop - begun);
    return whole;
}

/* What came out is what the gate says. */
static void verify(const struct run *x)
{
    size_t left;
    const struct http_gate *g = &x->g;
    unsigned good = (unsigned)(g->bad != CHT_OK ? g->begun - 1 : g->ended);
    assert_int_equal(count_requests(x->out, x->n, g->bad != CHT_OK ? good : UINT_MAX, &left), good);
    assert_true(g->ready_n == 0 && g->tail_n == 0);
    if (g->bad == CHT_OK) {
        assert_true((left > 0) == (g->begun > g->ended));
    } else {
        assert_int_equal(g->state, HTTP_GATE_OVER);
        assert_memory_equal(x->out + x->n - 2, "\r\n", 2);
        assert_true(left > 4);
    }
}

/* What differs where a long line is cut: blanks at its end. Without them; how many bytes are left. */
static size_t without_blanks(char *p, size_t n)
{
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\r' && i + 1 < n && p[i + 1] == '\n') {
            while (to > 0 && (p[to - 1] == ' ' || p[to - 1] == '\t'))
                to--;
        }
        p[to++] = p[i];
    }
    return to;
}

static void same_out(struct run *a, struct run *b)
{
    size_t n = without_blanks(a->out, a->n);
    assert_int_equal(n, without_blanks(b->out, b->n));
    assert_memory_equal(a->out, b->out, n);
}

/* ---- one by one -------------------------------------------------------------------------------------------------------- */

#define H "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n" H
#define POST "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static const struct {
    const char *in;
    size_t in_n;
    const char *out; /* NULL: as it is */
    enum cht_rc bad;
} cases[] = {
#define SAME_OUT(in)                  \
    {                                 \
        CHT_LITERAL(in), NULL, CHT_OK \
    }
#define OUT(in, out)                 \
    {                                \
        CHT_LITERAL(in), out, CHT_OK \
    }
#define BAD(in, out)                              \
    {                                             \
        CHT_LITERAL(in), out, CHT_INVALID_REQUEST \
    }
    SAME_OUT(GET "\r\n" GET "\r\n"),
    SAME_OUT("GET / HTTP/1.0\r\n\r\n"),
    OUT("\r\n\n\r\n" GET "\r\n", GET "\r\n"),
    OUT("GET / HTTP/1.1\nHost:a\n\n", "GET / HTTP/1.1\nHost:a\n\n"),
    OUT(GET "A:b \t \r\n\r\n", GET "A:b\r\n\r\n"),
    OUT(GET "A: \r\n\r\n", GET "A:\r\n\r\n"),
    OUT(GET "Cookie: a=b\r\n\r\n", GET "-ookie: a=b\r\n\r\n"),
    SAME_OUT(POST "Content-Length: 3\r\n\r\nabc" GET "\r\n"),
    SAME_OUT(POST "Content-Length: 3\r\ncontent-length: 3\r\n\r\n\0\r\n"),
    SAME_OUT(CHUNKED "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n" GET "\r\n"),
    OUT(CHUNKED "3;a=b;c\r\nabc\r\n000\r\nX: y\r\nContent-Length: 9\r\n\r\n",
        CHUNKED "3\r\nabc\r\n000\r\n\r\n"),
    BAD(GET "A : b\r\n\r\n", GET "\r\n"),
    BAD(GET "A: b\r\n c\r\n\r\n", GET "A: b\r\n\r\n"),
    BAD(GET "\r\nGET  / HTTP/1.1\r\n", GET "\r\nGET - HTTP/1.1\r\n\r\n"),
    BAD("GET /p\0x HTTP/1.1\r\n" H, "GET /p HTTP/1.1\r\n\r\n"),
    BAD("GET /p?q x HTTP/1.1\r\n" H, "GET /p HTTP/1.1\r\n\r\n"),
    {CHT_LITERAL("GET /p HTTP/2.0\r\n" H), "GET /p HTTP/1.1\r\n\r\n", CHT_HTTP_VERSION},
    BAD("hello\r\n", "- - HTTP/1.1\r\n\r\n"),
    BAD("\x01 / HTTP/1.1\r\n", "- - HTTP/1.1\r\n\r\n"),
    BAD("GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"),
    BAD(GET H "\r\n", GET H "\r\n"),
    BAD(CHUNKED "3\r\nabcd", CHUNKED "3\r\nabc\r\n0\r\n\r\n"),
    BAD(CHUNKED "x", CHUNKED "0\r\n\r\n"),
    BAD(CHUNKED "3\nabc", CHUNKED "0\r\n\r\n"),
    BAD(CHUNKED "0\r\n x: y\r\n", CHUNKED "0\r\n\r\n"),
    BAD(POST "Content-Length: 3\r\nContent-Length: 4\r\n", POST "Content-Length: 3\r\n\r\n"),
    BAD(POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", POST "Content-Length: 3\r\n\r\n"),
    {CHT_LITERAL(POST "Transfer-Encoding: gzip\r\n"), POST "\r\n", CHT_UNSUPPORTED_TRANSFER_CODING},
#undef SAME_OUT
#undef OUT
#undef BAD
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *out = cases[i].out != NULL ? cases[i].out : cases[i].in;
        size_t n = cases[i].out != NULL ? strlen(out) : cases[i].in_n;
        for (size_t piece = 1; piece < cases[i].in_n + 1; piece++) {
            struct run *x = begin(i, false);
            feed(x, cases[i].in, cases[i].in_n, piece);
            if (x->n != n || memcmp(x->out, out, n) != 0 || x->g.bad != cases[i].bad)
                fail_msg("case %zu in pieces of %zu: %d '%.*s'", i, piece, (int)x->g.bad, (int)x->n, x->out);
            verify(x);
            end(x);
        }
        struct run *x = begin(i, true); /* with little room the end of a bad one may be another */
        feed(x, cases[i].in, cases[i].in_n, 0);
        assert_int_equal(x->g.bad, cases[i].bad);
        verify(x);
        end(x);
    }
}

/* ---- anything ---------------------------------------------------------------------------------------------------------- */

static size_t put(char *to, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static size_t put(char *to, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsprintf(to, fmt, ap);
    va_end(ap);
    return (size_t)n;
}

static size_t fill(char *to, size_t n, struct cht_rng *r)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (char)cht_rng_below(r, 256);
    return n;
}

/* A few good requests, with long lines and bodies among them. */
static size_t make(char *p, struct cht_rng *r, unsigned requests)
{
    static const unsigned pads[] = {0, 5, 300, 900, 959, 960, 961, 1000, 1024, 2500, 6000};
    size_t n = 0;
    for (unsigned i = 0; i < requests; i++) {
        unsigned kind = (unsigned)cht_rng_below(r, 3), pad = pads[cht_rng_below(r, 11)],
                 size = (unsigned)cht_rng_below(r, 2000);
        n += put(p + n, "%s /%0*u?a=b&c=d HTTP/1.1\r\nHost:  b%s\r\n", kind == 0 ? "GET" : "POST",
                 cht_rng_below(r, 3) == 0 ? (int)pad + 1 : 1, i, cht_rng_below(r, 2) == 0 ? "" : " \t");
        if (cht_rng_below(r, 2) == 0)
            n += put(p + n, "X-Pad: %0*u%s\r\n", (int)pad + 1, i, cht_rng_below(r, 2) == 0 ? "" : "  ");
        if (kind == 0)
            n += put(p + n, "\r\n");
        if (kind == 1) {
            n += put(p + n, "Content-Length: %u\r\n\r\n", size);
            n += fill(p + n, size, r);
        }
        if (kind == 2) {
            n += put(p + n, "Transfer-Encoding: chunked\r\n\r\n");
            for (unsigned c = (unsigned)cht_rng_below(r, 5); c > 0; c--) {
                unsigned k = 1 + (unsigned)cht_rng_below(r, 300);
                n += put(p + n, "%x%s\r\n", k, cht_rng_below(r, 2) == 0 ? "" : ";x=y");
                n += fill(p + n, k, r);
                n += put(p + n, "\r\n");
            }
            n += put(p + n, "0\r\n%s\r\n", cht_rng_below(r, 2) == 0 ? "" : "T: u\r\n");
        }
    }
    return n;
}

static uint64_t seed_of(void)
{
    const char *text = getenv("CHT_TEST_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : 1;
    print_message("CHT_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static unsigned rounds(unsigned usual) { return getenv("CHT_TEST_LONG") != NULL ? usual * 50 : usual; }

/* Good requests come out the same, however they are cut and whatever room there is. */
static void test_good_ones(void **state)
{
    static char text[1 << 17];
    (void)state;
    struct cht_rng r;
    cht_rng_seed(&r, seed_of());
    for (unsigned round = 0; round < rounds(600); round++) {
        size_t n = make(text, &r, 1 + (unsigned)cht_rng_below(&r, 6));
        struct run *a = begin(round, false), *b = begin(round, true);
        cht_tap_set(&a->tap);
        feed(a, text, n, 0);
        cht_tap_set(&b->tap);
        feed(b, text, n, 0);
        assert_int_equal(a->g.bad, CHT_OK);
        assert_int_equal(b->g.bad, CHT_OK);
        assert_int_equal(b->g.ended, a->g.ended);
        assert_int_equal(a->g.begun, a->g.ended);
        verify(a);
        verify(b);
        same_out(a, b);
        end(b);
        end(a);
    }
}

/* Changed anywhere: either way it is read, what came out has one meaning, and both ways agree on what was asked. */
static void test_changed_ones(void **state)
{
    static char text[1 << 17];
    static const char *const bits[] = {"\r\n",
                                       "\n",
                                       "\r",
                                       " ",
                                       "\t",
                                       ":",
                                       "\r\n ",
                                       "Content-Length: 5\r\n",
                                       "Transfer-Encoding: chunked\r\n",
                                       "Host: c\r\n",
                                       "0\r\n\r\n",
                                       "x",
                                       "?",
                                       "&",
                                       "HTTP/1.0",
                                       ";"};
    (void)state;
    struct cht_rng r;
    cht_rng_seed(&r, seed_of());
    unsigned refused = 0;
    for (unsigned round = 0; round < rounds(10000); round++) {
        size_t n = make(text, &r, 1 + (unsigned)cht_rng_below(&r, 3));
        for (size_t changes = 1 + cht_rng_below(&r, 3); changes > 0; changes--) {
            size_t at = cht_rng_below(&r, cht_rng_below(&r, 2) == 0 && n > 200 ? 200 : n);
            const char *bit = bits[cht_rng_below(&r, sizeof bits / sizeof *bits)];
            size_t k = strlen(bit);
            if (cht_rng_below(&r, 3) == 0) {
                text[at] = (char)cht_rng_below(&r, cht_rng_below(&r, 2) == 0 ? 33 : 256);
                continue;
            }
            memmove(text + at + k, text + at, n - at);
            memcpy(text + at, bit, k);
            n += k;
        }
        struct run *a = begin(round, false), *b = begin(round, true);
        cht_tap_set(&a->tap);
        feed(a, text, n, 9000);
        cht_tap_set(&b->tap);
        feed(b, text, n, 0);
        verify(a);
        verify(b);
        refused += a->g.bad != CHT_OK;
        assert_int_equal(a->g.bad, b->g.bad);
        assert_true(a->g.begun == b->g.begun && a->g.ended == b->g.ended);
        if (a->g.bad == CHT_OK && a->g.held_n == b->g.held_n)
            same_out(a, b);
        end(b);
        end(a);
    }
    assert_true(refused > rounds(10000) / 4);
}

/* ---- limits, the end, memory ------------------------------------------------------------------------------------------- */

static void test_too_long(void **state)
{
    static char text[300000];
    (void)state;
    for (size_t n = 10; n < 200000; n += n / 2) {
        for (unsigned kind = 0; kind < 4; kind++) {
            struct run *x = begin(n, kind % 2 == 1);
            size_t k = put(text, "GET /%s", kind < 2 ? "" : "a HTTP/1.1\r\nHost: a\r\nX: ");
            memset(text + k, 'b', n);
            k += n;
            k += put(text + k, "%s\r\n\r\n", kind < 2 ? " HTTP/1.1\r\nHost: a" : "");
            feed(x, text, k, 0);
            enum cht_rc bad = kind < 2 ? CHT_URI_TOO_LONG : CHT_HEADERS_TOO_LARGE;
            assert_int_equal(x->g.bad, n < 16000 ? CHT_OK : (n > MEMORY ? bad : x->g.bad));
            assert_true(x->n <= MEMORY);
            verify(x);
            end(x);
        }
    }
}

/* What an answer may repeat of a request counts alike, whether the line comes at once or in pieces. */
static void test_long_and_repeated(void **state)
{
    static const char *const names[] = {"Origin", "X-Request-Id"};
    static const size_t pieces[] = {8000, 1000, 100, 1};
    char text[8000];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
            struct run *x = begin(k, false);
            x->g.memory = 8192;
            size_t n = put(text, GET "%s: %04000u\r\n\r\n", names[i], 1u);
            feed(x, text, n, pieces[k]);
            assert_int_equal(x->g.bad, CHT_OK);
            assert_int_equal(x->g.ended, 1);
            end(x);
        }
    }
}

/* Headers that come again are compared with those of the last request; what comes out is as if each had been judged. Each request is read at
 * once (where that happens), and with a cut in its headers (where it never does). */
static void test_the_same_headers(void **state)
{
#define SAME H "User-Agent: u\r\nAccept: */*\r\n"
    static const char *const lines[] = {"GET / HTTP/1.1\r\n", "GET /b?c=d&e=f HTTP/1.1\r\n",
                                        "GET / HTTP/1.0\r\n", "\r\nPUT /c HTTP/1.1\r\n"};
    static const char *const heads[] = {SAME "\r\n",
                                        SAME "X: y\r\n\r\n",
                                        SAME "X: y \r\n\r\n",
                                        "Cookie: c\r\n" SAME "\r\n",
                                        "-ookie: c\r\n" SAME "\r\n",
                                        SAME "Content-Length: 3\r\n\r\nGET",
                                        SAME "Transfer-Encoding: chunked\r\n\r\n1\r\nG\r\n0\r\n\r\n",
                                        H "\r\n",
                                        SAME "Origin: http://o\r\n\r\n",
                                        "Accept: */*\r\n\r\n",
                                        SAME H "\r\n"};
    static char text[OUT_MAX];
    struct cht_rng r;
    uint64_t remembered = 0;
    (void)state;
    cht_rng_seed(&r, seed_of());
    for (unsigned round = 0; round < rounds(300); round++) {
        struct run *a = begin(round, false), *b = begin(round, false);
        a->g.memory = b->g.memory = round % 2 == 0 ? MEMORY : 2048;
        for (unsigned i = 0, kind = 0; i < 40; i++) {
            kind = cht_rng_below(&r, 3) == 0 ? (unsigned)cht_rng_below(&r, 9 + (i > 30 ? 2 : 0)) : kind;
            size_t n = put(text, "%s", lines[cht_rng_below(&r, 4)]), begun = n;
            n += put(text + n, "%s", heads[kind]);
            feed(a, text, n, n);
            if (a->g.last != NULL && a->g.last->n == n - begun)
                remembered += memcmp(a->g.last->text, text + begun, n - begun) == 0;
            feed(b, text, begun, begun);
            feed(b, text + begun, n - begun, 5);
            assert_null(b->g.last); /* nothing was whole in one piece */
            assert_true(a->g.bad == b->g.bad && a->g.begun == b->g.begun && a->g.ended == b->g.ended);
            same_out(a, b);
        }
        verify(a);
        end(a);
        end(b);
    }
    assert_true(remembered > rounds(300) * 5);
}

/* A target that leaves no room for headers that did fit before. */
static void test_the_same_headers_too_long(void **state)
{
    static char text[OUT_MAX];
    (void)state;
    for (size_t target = 1; target < 3000; target += target < 40 ? 1 : 7) {
        struct run *a = begin(target, false), *b = begin(target, false);
        a->g.memory = b->g.memory = 2048;
        for (unsigned i = 0; i < 4; i++) {
            size_t n = put(text, "GET /?"), k = i < 3 ? 1 : target;
            memset(text + n, i < 3 ? 'a' : "a&?"[target % 3], k);
            n += k;
            n += put(text + n, " HTTP/1.1\r\n" H "X: %0200u\r\n\r\n", 1u);
            feed(a, text, n, n);
            feed(b, text, n, 11);
        }
        assert_non_null(a->g.last);
        assert_int_equal(a->g.bad, b->g.bad);
        assert_int_equal(a->g.ended, b->g.ended);
        if (a->g.bad == CHT_OK)
            same_out(a, b);
        end(a);
        end(b);
    }
}

/* HTTP/1.0 may have no Host; the same headers are wrong in HTTP/1.1. */
static void test_the_same_headers_of_another_version(void **state)
{
    static const char *const in[] = {"GET / HTTP/1.0\r\nA: b\r\n\r\n", "GET / HTTP/1.0\r\nA: b\r\n\r\n",
                                     "GET / HTTP/1.1\r\nA: b\r\n\r\n"};
    (void)state;
    struct run *x = begin(1, false);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        feed(x, in[i], strlen(in[i]), OUT_MAX);
    assert_non_null(x->g.last);
    assert_int_equal(x->g.bad, CHT_INVALID_REQUEST);
    verify(x);
    end(x);
}

/* gate.same is for one request that came alone and whole, with the headers of the one before. What is put in place of a request comes next. */
static void test_one_alone(void **state)
{
    static const char first[] = "GET /a HTTP/1.1\r\n", heads[] = H "Accept: */*\r\n\r\n";
    static const struct {
        const char *text;
        bool alone;
    } singles[] = {
        {"GET /a HTTP/1.1\r\n" H "Accept: */*\r\n\r\n", true},
        {"PUT /a HTTP/1.1\r\n" H "Accept: */*\r\n\r\n", true},
        {"GET /a HTTP/1.0\r\n" H "Accept: */*\r\n\r\n", false},
        {"GET /a HTTP/1.1\r\n" H "Accept: */*\r\n\r\nGET /a HTTP/1.1\r\n" H "Accept: */*\r\n\r\n", false},
        {"GET /a HTTP/1.1\r\n" H "Accept: */*\r\n\r\nGET", false},
        {"\r\nGET /a HTTP/1.1\r\n" H "Accept: */*\r\n\r\n", false},
        {"GET /a HTTP/1.1\r\n" H "Accept: a/b\r\n\r\n", false},
        {"GET /a HTTP/1.1\r\n" H "\r\n", false}};
    (void)state;
    for (size_t i = 0; i < sizeof singles / sizeof *singles; i++) {
        struct http_gate g = {.memory = MEMORY};
        char text[512], before[512];
        size_t b = put(before, "%s%s", first, heads), n;
        for (unsigned turn = 0; turn < 2; turn++) {
            memcpy(text, before, b);
            assert_int_equal(http_gate_pass(&g, text, b, sizeof text), b);
            assert_int_equal(g.same, 0);
        }
        uint64_t serial = g.last->serial;
        n = put(text, "%s", singles[i].text);
        (void)http_gate_pass(&g, text, n, sizeof text);
        assert_int_equal(g.same, singles[i].alone ? strlen(first) : 0);
        assert_true(!singles[i].alone || (g.last->serial == serial && g.begun == 3 && g.ended == 3));
        http_gate_fini(&g);
    }
    struct run *x = begin(1, false);
    feed(x, GET "\r\n", strlen(GET "\r\n"), OUT_MAX);
    size_t n = x->n;
    cht_alloc_fail_at(1, false);
    assert_false(http_gate_put(&x->g, CHT_LITERAL("instead")));
    cht_alloc_fail_at(0, false);
    assert_true(http_gate_put(&x->g, CHT_LITERAL("instead")));
    feed(x, GET "\r\n", strlen(GET "\r\n"), OUT_MAX);
    assert_int_equal(x->n, 2 * n + CHT_LEN("instead"));
    assert_memory_equal(x->out + n, "instead" GET "\r\n", CHT_LEN("instead") + n);
    end(x);
}

/* The same of a request with a body, all of which came with it. */
static void test_one_alone_with_a_body(void **state)
{
#define SIZED H "Content-Length: 3\r\n\r\n"
    static const char first[] = "PUT /a HTTP/1.1\r\n";
    static const struct {
        const char *text, *rest;
        bool alone;
    } singles[] = {{"PUT /a HTTP/1.1\r\n" SIZED "xyz", "", true},
                   {"GET /a HTTP/1.1\r\n" SIZED "GET", "", true},
                   {"PUT /a HTTP/1.1\r\n" SIZED "xy", "z", false},
                   {"PUT /a HTTP/1.1\r\n" SIZED, "xyz", false},
                   {"PUT /a HTTP/1.1\r\n" SIZED "xyzP", "UT /b HTTP/1.1\r\n" SIZED "xyz", false},
                   {"PUT /a HTTP/1.1\r\n" SIZED "xyz\r\n", "", false},
                   {"PUT /a HTTP/1.1\r\n" H "Content-Length: 4\r\n\r\nwxyz", "", false},
                   {"PUT /a HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "", false},
                   {"PUT /a HTTP/1.1\r\n" H "\r\n", "", false}};
    (void)state;
    for (size_t i = 0; i < sizeof singles / sizeof *singles; i++) {
        struct http_gate g = {.memory = MEMORY};
        char text[512];
        size_t n, passed = 0, sent = 0;
        for (unsigned turn = 0; turn < 2; turn++) {
            n = put(text, "%s%sabc", first, SIZED);
            assert_int_equal(http_gate_pass(&g, text, n, sizeof text), n);
            assert_int_equal(g.same, 0);
        }
        assert_true(g.last->sized && g.last->length == 3);
        n = put(text, "%s", singles[i].text);
        sent += n;
        passed += http_gate_pass(&g, text, n, sizeof text);
        assert_int_equal(g.same, singles[i].alone ? strlen(first) : 0);
        if (singles[i].alone)
            assert_memory_equal(text + g.same + g.last->n, singles[i].text + n - 3, 3);
        n = g.held_n;
        assert_true(n < 3);
        if (n > 0)
            memcpy(text, g.held, n);
        sent += strlen(singles[i].rest);
        n += put(text + n, "%s", singles[i].rest);
        g.held_n = 0;
        passed += http_gate_pass(&g, text, n, sizeof text);
        assert_int_equal(g.bad, CHT_OK);
        assert_int_equal(g.ended, strlen(singles[i].rest) > 3 ? 4 : 3);
        assert_int_equal(g.state, HTTP_GATE_LINE);
        assert_true(passed + g.held_n == sent ||
                    passed + 2 == sent); /* an empty line after a body is left out */
        http_gate_fini(&g);
    }
}

/* The store of the last headers is no more than a help. */
static void test_no_memory_for_the_last(void **state)
{
    (void)state;
    struct run *x = begin(1, false);
    cht_alloc_fail_at(1, true);
    for (unsigned i = 0; i < 5; i++)
        feed(x, GET "\r\n", strlen(GET "\r\n"), OUT_MAX);
    cht_alloc_fail_at(0, false);
    assert_null(x->g.last);
    assert_int_equal(x->g.ended, 5);
    verify(x);
    end(x);
}

static void test_the_end(void **state)
{
    (void)state;
    struct run *x = begin(1, false);
    feed(x, GET "\r\n" GET, strlen(GET "\r\n" GET), 7);
    x->g.done = 0; /* the first is not answered yet */
    close(x->fd[0]);
    x->fd[0] = -1;
    char buf[100];
    assert_int_equal(recv(x->fd[1], buf, sizeof buf, 0), -1);
    x->g.done = 1;
    assert_int_equal(recv(x->fd[1], buf, sizeof buf, 0), 0);
    end(x);
}

/* Half a line that cannot be kept ends its request, in whichever state; nothing that is half is taken for whole. */
static void test_no_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run *x = begin(i, false);
        cht_alloc_fail_at(1, true);
        feed(x, cases[i].in, cases[i].in_n, 2);
        cht_alloc_fail_at(0, false);
        assert_int_equal(x->g.bad, CHT_NO_MEMORY);
        verify(x);
        end(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_good_ones),
        cmocka_unit_test(test_changed_ones),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_long_and_repeated),
        cmocka_unit_test(test_the_same_headers),
        cmocka_unit_test(test_the_same_headers_too_long),
        cmocka_unit_test(test_the_same_headers_of_another_version),
        cmocka_unit_test(test_one_alone),
        cmocka_unit_test(test_one_alone_with_a_body),
        cmocka_unit_test(test_no_memory_for_the_last),
        cmocka_unit_test(test_the_end),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
