/* line: the line protocol over a real store: lines as a client sends them, in two pieces whose border is the input's first two bytes.
 * Each line has one line of answer, EXIT has none; what is not a whole line waits. The first byte's lowest bit: tokens are needed. */
#include "fuzz/fuzz.h"

#include "base/literal.h"
#include "service/access.h"
#include "tcp/session.h"

static struct fuzz_store store;
static struct svc_access *tokens;

static const struct svc_access *get_tokens(void *ctx)
{
    (void)ctx;
    return tokens;
}

/* Does what it can; returns the bytes that are done with. */
static size_t run(struct line_session *s, char *p, size_t n, bool *closed)
{
    size_t used, at = 0;
    enum line_session_next next = LINE_SESSION_FULL;
    while (next != LINE_SESSION_IDLE && next != LINE_SESSION_CLOSE) {
        next = line_session_run(s, p + at, n - at, &used);
        FUZZ_CHECK(used <= n - at && !s->out.failed);
        at += used;
        if (next == LINE_SESSION_COMMIT) {
            (void)cht_store_commit(s->db->store, &s->commit);
            FUZZ_CHECK(line_session_committed(s));
        } else if (next == LINE_SESSION_JOB) {
            line_session_job(s);
        }
        FUZZ_CHECK(next != LINE_SESSION_WAIT); /* without s->wait nothing is put off */
    }
    *closed = next == LINE_SESSION_CLOSE;
    return at;
}

static size_t lines(const char *p, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += p[i] == '\n';
    return count;
}

static void answers(struct line_session *s, const char *p, size_t used, bool closed)
{
    size_t got = lines(s->out.p, s->out.n), sent = lines(p, used);
    FUZZ_CHECK(s->out.n == 0 || s->out.p[s->out.n - 1] == '\n');
    FUZZ_CHECK(got == sent || (closed && got <= sent));
    for (const char *a = s->out.p, *end = s->out.n > 0 ? a + s->out.n : a; a < end;
         a = (const char *)memchr(a, '\n', (size_t)(end - a)) + 1)
        FUZZ_CHECK(CHT_STARTS(a, (size_t)(end - a), "SUCCESS,") ||
                   CHT_STARTS(a, (size_t)(end - a), "ERROR,"));
    line_session_taken(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "0123456789abcdefghij write default\nfedcba9876543210abcd admin *\n";
    struct cht_err err = {0};
    struct fuzz_in in = {data, n};
    struct line_session s;
    static struct line_session_counts counts;
    if (tokens == NULL)
        fuzz_must(svc_access_load(fuzz_file(text, sizeof text - 1), &tokens, &err), &err);
    if (store.used++ % FUZZ_STORE_USES == 0) {
        if (store.env != NULL)
            fuzz_store_close(&store);
        fuzz_store_open(&store, true);
        store.used = 1;
    }
    unsigned first = fuzz_u8(&in), border = first << 8 | fuzz_u8(&in);
    struct line_session_host host = {.dbs = store.dbs,
                                     .max_value_size = 1000,
                                     .answer_max = 4096,
                                     .no_creating = (first & 2) != 0,
                                     .access = (first & 1) != 0 ? get_tokens : NULL};
    fuzz_must(line_host_init(&host, &err), &err);
    line_session_init(&s, &host, &counts);
    char *p = fuzz_exact(in.p, in.n);
    size_t cut = border < in.n ? border : in.n;
    bool closed;
    size_t at = run(&s, p, cut, &closed);
    answers(&s, (const char *)in.p, at, closed);
    if (!closed) {
        size_t used = run(&s, p + at, in.n - at, &closed);
        answers(&s, (const char *)in.p + at, used, closed);
        FUZZ_CHECK(closed || lines((const char *)in.p + at + used, in.n - at - used) == 0);
    }
    line_session_trim(&s);
    line_session_fini(&s);
    FUZZ_CHECK(atomic_load(&host.held) == 0);
    line_host_fini(&host);
    fuzz_store_empty(&store);
    free(p);
    return 0;
}
