/* shell_link: see shell_link.h. */
#include "tools/shell_link.h"

#include "base/literal.h"

#include "service/dbs.h"
#include "os/net.h"
#include "os/sock.h"
#include "os/thread.h"
#include "tcp/session.h"
#include "tools/line_client.h"

#include <stdio.h>
#include <string.h>

#define BLOCK (256u << 10)
#define ANSWER_MAX (256u << 20) /* of a page in this process */

struct tool_link {
    /* a server */
    int fd;                   /* -1: in this process */
    struct svc_tls_conn *tls; /* owned; NULL: plain */
    bool fed;                 /* a thread may still be writing to it */
    char *where, *token;      /* owned */
    struct cht_buf in;        /* received; [taken..len) is not answered yet */
    size_t taken;
    /* in this process */
    struct cht_env *env;
    struct svc_dbs *dbs;
    struct line_session_host host;
    struct line_session_counts counts;
    struct line_session session;
    struct cht_buf line; /* parsed in place, so a copy */
};

static ptrdiff_t give(struct tool_link *l, const char *p, size_t n)
{
    ptrdiff_t done;
    if (l->tls == NULL)
        return cht_sock_write(l->fd, p, n);
    do
        done = svc_tls_write(l->tls, p, n);
    while (done == CHT_SOCK_LATER);
    return done;
}

static ptrdiff_t take(struct tool_link *l, void *p, size_t n)
{
    ptrdiff_t got;
    if (l->tls == NULL)
        return cht_sock_read(l->fd, p, n);
    do
        got = svc_tls_read(l->tls, p, n);
    while (got == CHT_SOCK_LATER); /* the socket blocks: it was no text */
    return got;
}

static enum cht_rc send_there(struct tool_link *l, const char *p, size_t n, struct cht_err *err)
{
    while (n > 0) {
        ptrdiff_t some = give(l, p, n);
        if (some < 0)
            return CHT_FAIL(err, CHT_CLOSED, "it cannot be written: the other side is gone");
        p += some;
        n -= (size_t)some;
    }
    return CHT_OK;
}

static enum cht_rc send_all(int fd, const char *p, size_t n, struct cht_err *err)
{
    while (n > 0) {
        ptrdiff_t some = cht_sock_write(fd, p, n);
        if (some < 0)
            return CHT_FAIL(err, CHT_CLOSED, "it cannot be written: the other side is gone");
        p += some;
        n -= (size_t)some;
    }
    return CHT_OK;
}

/* ---- a server ----------------------------------------------------------------------------------------------------- */

static enum cht_rc receive(struct tool_link *l, struct cht_err *err)
{
    struct cht_buf *b = &l->in;
    if (l->taken > 0) {
        memmove(b->data, b->data + l->taken, b->len - l->taken);
        b->len -= l->taken;
        l->taken = 0;
    }
    if (b->cap - b->len < BLOCK) {
        enum cht_rc rc = cht_buf_reserve(b, b->len * 2 + BLOCK, err);
        if (rc != CHT_OK)
            return rc;
    }
    ptrdiff_t n = take(l, b->data + b->len, b->cap - b->len);
    if (n <= 0)
        return CHT_FAIL(err, CHT_CLOSED, "the server has closed the connection");
    b->len += (size_t)n;
    return CHT_OK;
}

static enum cht_rc read_answer(struct tool_link *l, struct cht_str *answer, struct cht_err *err)
{
    size_t looked = 0;
    for (;;) {
        const uint8_t *start = l->in.data + l->taken;
        size_t have = l->in.len - l->taken;
        const uint8_t *end = have > looked ? memchr(start + looked, '\n', have - looked) : NULL;
        if (end != NULL) {
            *answer = (struct cht_str){.p = start, .n = (size_t)(end - start)};
            l->taken += answer->n + 1;
            return CHT_OK;
        }
        looked = have;
        enum cht_rc rc = receive(l, err);
        if (rc != CHT_OK)
            return rc;
    }
}

/* Can it be the beginning of an answer of the line protocol? */
static bool is_answer(const uint8_t *p, size_t n)
{
    static const char *const words[] = {"SUCCESS", "ERROR", "PENDING"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t len = strlen(words[i]);
        if (memcmp(p, words[i], n < len ? n : len) == 0)
            return true;
    }
    return false;
}

static enum cht_rc no_protocol(const struct tool_link *l, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_IO, "what answers at %.80s does not speak the line protocol%s", l->where,
                    l->tls == NULL ? " (is it the port of HTTP, or does it want --tls?)" : "");
}

static enum cht_rc authenticate(struct tool_link *l, struct cht_err *err)
{
    char line[300];
    struct cht_str answer;
    if (l->token == NULL)
        return CHT_OK;
    int n = snprintf(line, sizeof line, "AUTH %s\n", l->token);
    if (n < 0 || (size_t)n >= sizeof line)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the token is too long");
    enum cht_rc rc = send_there(l, line, (size_t)n, err);
    if (rc == CHT_OK)
        rc = read_answer(l, &answer, err);
    if (rc == CHT_OK && !is_answer(answer.p, answer.n))
        rc = no_protocol(l, err);
    else if (rc == CHT_OK && !CHT_STARTS(answer.p, answer.n, "SUCCESS,"))
        rc = CHT_FAIL(err, CHT_UNAUTHORIZED, "the server does not take the token");
    return rc;
}

/* ---- in this process ---------------------------------------------------------------------------------------------- */

/* Runs the lines in p[0..n); answers are handed to `out` when they get many; if out < 0 they stay in the session. */
static enum cht_rc run_lines(struct tool_link *l, char *p, size_t n, int out, struct cht_err *err)
{
    struct line_session *s = &l->session;
    enum line_session_next next = LINE_SESSION_FULL;
    while (next != LINE_SESSION_IDLE && next != LINE_SESSION_CLOSE) {
        size_t used;
        next = line_session_run(s, p, n, &used);
        p += used;
        n -= used;
        if (next == LINE_SESSION_COMMIT) {
            s->commit.flags = 0;
            (void)cht_store_commit(s->db->store, &s->commit); /* its result is in it */
            (void)line_session_committed(s);                  /* without s->wait it is answered */
        } else if (next == LINE_SESSION_JOB) {
            line_session_job(s);
        }
        if (s->out.failed)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the answer");
        if (out >= 0 && next != LINE_SESSION_COMMIT && next != LINE_SESSION_JOB) {
            enum cht_rc rc = send_all(out, s->out.p, s->out.n, err);
            line_session_taken(s);
            if (rc != CHT_OK)
                return rc;
        }
    }
    return CHT_OK;
}

static enum cht_rc relay_here(struct tool_link *l, int in, int out, struct cht_err *err)
{
    struct cht_buf *b = &l->line;
    enum cht_rc rc = CHT_OK;
    bool end = false;
    b->len = 0;
    while (rc == CHT_OK && !end && !l->session.closing) {
        if (b->cap - b->len < BLOCK + 1)
            rc = cht_buf_reserve(b, b->len * 2 + BLOCK + 1, err);
        if (rc != CHT_OK)
            break;
        size_t from = b->len;
        ptrdiff_t n = cht_sock_read(in, b->data + b->len, b->cap - b->len - 1);
        end = n <= 0;
        b->len += n > 0 ? (size_t)n : 0;
        if (end && b->len > 0)
            b->data[b->len++] = '\n';
        size_t lines = b->len;
        while (lines > from && b->data[lines - 1] != '\n')
            lines--;
        if (lines == from)
            continue;
        rc = run_lines(l, (char *)b->data, lines, out, err);
        memmove(b->data, b->data + lines, b->len - lines);
        b->len -= lines;
    }
    return rc;
}

/* ---- from a pipe to a server -------------------------------------------------------------------------------------- */

/* Counts the lines, up to one that says EXIT, after which no answers come. Blanks around it, and one \r at the end, change nothing, as the
 * server sees it. */
struct counter {
    char word[5]; /* the first of the line, as far as it fits */
    size_t n;     /* of the word so far */
    bool begun;   /* the line has a byte */
    bool over;    /* the word has ended */
    bool more;    /* something stands after it */
    bool cr;      /* the last byte was a \r */
    uint64_t lines;
    bool exit;
};

static void count_byte(struct counter *c, char b)
{
    c->begun = true;
    c->more = c->more || c->cr;
    c->cr = b == '\r';
    if (c->cr)
        return;
    if (b == ' ') {
        c->over = c->n > 0;
        return;
    }
    c->more = c->more || c->over;
    if (c->n < sizeof c->word)
        c->word[c->n++] = b >= 'a' && b <= 'z' ? (char)(b - 'a' + 'A') : b;
}

static void count_lines(struct counter *c, const char *p, size_t n)
{
    for (size_t i = 0; i < n && !c->exit; i++) {
        if (p[i] != '\n') {
            count_byte(c, p[i]);
            continue;
        }
        bool exit = !c->more && CHT_IS(c->word, c->n, "EXIT");
        *c = (struct counter){.lines = c->lines + !exit, .exit = exit};
    }
}

struct feeder {
    struct tool_link *link; /* borrowed */
    int in;
    struct counter counter;
    _Atomic uint64_t lines; /* sent, or about to be */
    _Atomic bool over;      /* the input has ended, or said EXIT: the server is about to end the connection */
};

static void *feed(void *arg)
{
    struct feeder *f = arg;
    static char block[BLOCK]; /* likewise one */
    for (;;) {
        ptrdiff_t n = cht_sock_read(f->in, block, sizeof block);
        if (n <= 0)
            break;
        count_lines(&f->counter, block, (size_t)n);
        atomic_store(&f->lines, f->counter.lines);
        atomic_store(&f->over, f->counter.exit);
        if (send_there(f->link, block, (size_t)n, NULL) != CHT_OK)
            return NULL;
    }
    bool unended = f->counter.begun;
    if (unended) {
        count_lines(&f->counter, CHT_LITERAL("\n"));
        atomic_store(&f->lines, f->counter.lines);
    }
    atomic_store(&f->over, true);
    if (unended && send_there(f->link, "\n", 1, NULL) != CHT_OK)
        return NULL;
    if (f->link->tls != NULL)
        svc_tls_end(f->link->tls);
    cht_sock_end(f->link->fd);
    return NULL;
}

/* The thread that feeds may wait for input that never comes, after the server has ended: it lives until the process ends. */
static enum cht_rc relay_there(struct tool_link *l, int in, int out, struct cht_err *err)
{
    static struct feeder feeder; /* one a process */
    struct feeder *f = &feeder;
    struct cht_thread thread;
    uint64_t answers = 0;
    f->in = in;
    f->link = l;
    l->fed = true;
    enum cht_rc rc = cht_thread_start(&thread, "feed", feed, f, err);
    for (bool first = true; rc == CHT_OK; first = false) {
        rc = receive(l, err);
        if (rc != CHT_OK)
            break;
        if (first && !is_answer(l->in.data, l->in.len))
            return no_protocol(l, err);
        for (size_t i = 0; i < l->in.len; i++)
            answers += l->in.data[i] == '\n';
        rc = send_all(out, (const char *)l->in.data, l->in.len, err);
        l->in.len = 0;
        if (rc != CHT_OK)
            return rc;
    }
    if (rc != CHT_CLOSED)
        return rc;
    bool over = atomic_load(&f->over);
    uint64_t lines = atomic_load(&f->lines);
    return over && answers >= lines
               ? CHT_OK
               : (CHT_FAIL(err, CHT_IO, "the server ended the connection: %llu of %llu lines were answered",
                           (unsigned long long)answers, (unsigned long long)lines));
}

/* ------------------------------------------------------------------------------------------------------------ */

static enum cht_rc link_new(struct tool_link **out, struct cht_err *err)
{
    struct tool_link *l = cht_calloc(1, sizeof *l);
    if (l == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a connection");
    l->fd = -1;
    *out = l;
    return CHT_OK;
}

enum cht_rc tool_link_connect(const char *where, const char *token, const struct svc_tls_config *tls,
                              struct tool_link **out, struct cht_err *err)
{
    struct tool_link *l = NULL;
    enum cht_rc rc = link_new(&l, err);
    if (rc != CHT_OK)
        return rc;
    l->where = cht_strdup(where);
    l->token = token != NULL ? cht_strdup(token) : NULL;
    if (l->where == NULL || (token != NULL && l->token == NULL))
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a connection");
    if (rc == CHT_OK)
        rc = cht_sock_connect(where, &l->fd, err);
    if (rc == CHT_OK && tls != NULL)
        rc = tool_line_secure(l->fd, where, tls, &l->tls, err);
    if (rc == CHT_OK)
        rc = authenticate(l, err);
    if (rc != CHT_OK) {
        (void)tool_link_close(l, NULL); /* the first failure is the one to tell */
        return rc;
    }
    *out = l;
    return CHT_OK;
}

enum cht_rc tool_link_open(const struct tool_dirs *dirs, struct tool_link **out, struct cht_err *err)
{
    struct tool_link *l = NULL;
    struct svc_database *d = NULL;
    bool created;
    struct cht_env_config cfg = {.dirs = (const char *const *)dirs->v, .dir_count = dirs->n};
    enum cht_rc rc = link_new(&l, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_env_open(&cfg, &l->env, err);
    if (rc == CHT_OK)
        rc = svc_dbs_new(l->env, &l->dbs, err);
    if (rc == CHT_OK) {
        l->host.dbs = l->dbs;
        l->host.max_value_size = CHT_VALUE_DEFAULT_MAX;
        l->host.answer_max = ANSWER_MAX;
        rc = line_host_init(&l->host, err);
    }
    if (rc == CHT_OK) {
        line_session_init(&l->session, &l->host, &l->counts);
        rc = svc_dbs_open(l->dbs, l->session.database, true, 0, &d, &created, err);
    }
    if (rc != CHT_OK) {
        (void)tool_link_close(l, NULL); /* the first failure is the one to tell */
        return rc;
    }
    svc_dbs_put(d);
    *out = l;
    return CHT_OK;
}

enum cht_rc tool_link_close(struct tool_link *l, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (l == NULL)
        return CHT_OK;
    if (l->fed) /* the process is about to end */
        return CHT_OK;
    svc_tls_close(l->tls);
    if (l->fd >= 0)
        cht_net_close(l->fd);
    if (l->session.host != NULL)
        line_session_fini(&l->session);
    line_host_fini(&l->host);
    svc_dbs_free(l->dbs);
    if (l->env != NULL)
        rc = cht_env_close(l->env, err);
    cht_buf_free(&l->in);
    cht_buf_free(&l->line);
    cht_free(l->where);
    cht_free(l->token);
    cht_free(l);
    return rc;
}

enum cht_rc tool_link_ask(struct tool_link *l, const char *line, size_t n, struct cht_str *answer,
                          struct cht_err *err)
{
    enum cht_rc rc = cht_buf_reserve(&l->line, n + 1, err);
    if (rc != CHT_OK)
        return rc;
    memcpy(l->line.data, line, n);
    l->line.data[n] = '\n';
    if (l->fd >= 0) {
        rc = send_there(l, (const char *)l->line.data, n + 1, err);
        rc = rc == CHT_OK ? read_answer(l, answer, err) : rc;
        return rc == CHT_OK && !is_answer(answer->p, answer->n) ? no_protocol(l, err) : rc;
    }
    struct line_session *s = &l->session;
    line_session_taken(s);
    rc = run_lines(l, (char *)l->line.data, n + 1, -1, err);
    if (rc == CHT_OK && s->out.n == 0)
        rc = CHT_FAIL(err, CHT_CLOSED, "closed");
    if (rc == CHT_OK)
        *answer = (struct cht_str){.p = (const uint8_t *)s->out.p, .n = s->out.n - 1};
    return rc;
}

enum cht_rc tool_link_relay(struct tool_link *l, int in, int out, struct cht_err *err)
{
    return l->fd >= 0 ? relay_there(l, in, out, err) : relay_here(l, in, out, err);
}
