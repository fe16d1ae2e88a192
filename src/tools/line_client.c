/* line_client: see line_client.h. */
#include "tools/line_client.h"

#include "base/alloc.h"
#include "os/net.h"
#include "os/sock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAGE 4096u
#define PIECE (256u << 10)
#define ANSWER_MAX (96u << 20) /* a page of the longest names is 34 MiB */
#define WAIT_MS 300000
#define TOKEN_MAX 4096u

static enum cht_rc strange(const struct tool_line_client *l, const char *p, size_t n, struct cht_err *err)
{
    char text[81];
    size_t m = n < 80 ? n : 80;
    for (size_t i = 0; i < m; i++)
        text[i] = p[i] >= ' ' && p[i] < 127 ? p[i] : '?';
    text[m] = 0;
    return CHT_FAIL(err, CHT_IO, "%.60s answered: %s", l->where, text);
}

static ptrdiff_t receive(struct tool_line_client *l, void *p, size_t n)
{
    return l->tls != NULL ? svc_tls_read(l->tls, p, n) : cht_sock_read(l->fd, p, n);
}

static ptrdiff_t transmit(struct tool_line_client *l, const char *p, size_t n)
{
    ptrdiff_t done;
    if (l->tls == NULL)
        return cht_sock_write(l->fd, p, n);
    do
        done = svc_tls_write(l->tls, p, n);
    while (done == CHT_SOCK_LATER); /* the socket blocks */
    return done;
}

/* Receives more after what is there. */
static enum cht_rc fill(struct tool_line_client *l, struct cht_err *err)
{
    bool ready = false;
    if (l->at > 0) {
        memmove(l->buf.data, l->buf.data + l->at, l->buf.len - l->at);
        l->buf.len -= l->at;
        l->at = 0;
    }
    enum cht_rc rc = cht_buf_reserve(&l->buf, l->buf.len + (l->buf.len > PIECE ? l->buf.len : PIECE), err);
    if (rc != CHT_OK)
        return rc;
    if (l->tls != NULL && svc_tls_pending(l->tls) > 0)
        ready = true;
    else
        cht_net_poll(&l->fd, &ready, 1, WAIT_MS);
    ptrdiff_t got = ready ? receive(l, l->buf.data + l->buf.len, l->buf.cap - l->buf.len) : 0;
    if (!ready)
        return CHT_FAIL(err, CHT_IO, "%.100s does not answer", l->where);
    if (got <= 0 && got != CHT_SOCK_LATER)
        return CHT_FAIL(err, CHT_IO, "%.100s closed the connection", l->where);
    l->buf.len += got > 0 ? (size_t)got : 0;
    return CHT_OK;
}

/* At least n bytes from l->at on. */
static enum cht_rc have(struct tool_line_client *l, size_t n, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && l->buf.len - l->at < n)
        rc = fill(l, err);
    return rc;
}

enum cht_rc tool_line_send(struct tool_line_client *l, const char *p, size_t n, struct cht_err *err)
{
    while (n > 0) {
        ptrdiff_t done = transmit(l, p, n);
        if (done <= 0)
            return CHT_FAIL(err, CHT_IO, "%.100s closed the connection", l->where);
        p += done;
        n -= (size_t)done;
    }
    return CHT_OK;
}

enum cht_rc tool_line_answer(struct tool_line_client *l, const char **p, size_t *n, struct cht_err *err)
{
    size_t seen = 0;
    for (;;) {
        const char *start = (const char *)l->buf.data + l->at;
        size_t size = l->buf.len - l->at;
        const char *end = size > seen ? memchr(start + seen, '\n', size - seen) : NULL;
        if (end != NULL) {
            *p = start;
            *n = (size_t)(end - start);
            l->at += *n + 1;
            *n -= *n > 0 && start[*n - 1] == '\r' ? 1 : 0;
            return CHT_OK;
        }
        if (size > ANSWER_MAX)
            return CHT_FAIL(err, CHT_IO, "%.100s: an answer has no end", l->where);
        seen = size;
        enum cht_rc rc = fill(l, err);
        if (rc != CHT_OK)
            return rc;
    }
}

static bool starts(const char *p, size_t n, const char *with)
{
    return n >= strlen(with) && memcmp(p, with, strlen(with)) == 0;
}

/* One command whose answer says nothing but that it worked. */
static enum cht_rc command(struct tool_line_client *l, const char *text, struct cht_err *err)
{
    const char *p = "";
    size_t n = 0;
    enum cht_rc rc = tool_line_send(l, text, strlen(text), err);
    if (rc == CHT_OK)
        rc = tool_line_answer(l, &p, &n, err);
    return rc == CHT_OK && !starts(p, n, "SUCCESS") ? strange(l, p, n, err) : rc;
}

static enum cht_rc authenticate(struct tool_line_client *l, const char *file, struct cht_err *err)
{
    char *token = NULL, text[TOKEN_MAX + 8];
    size_t n;
    enum cht_rc rc = cht_os_read_file(file, TOKEN_MAX, &token, &n, err);
    if (rc != CHT_OK)
        return rc;
    token[strcspn(token, " \t\r\n")] = 0;
    (void)snprintf(text, sizeof text, "AUTH %s\n", token); /* fits */
    cht_free(token);
    return command(l, text, err);
}

/* "host" of "host:port" and of "[v6]:port". */
enum cht_rc tool_line_secure(int fd, const char *where, const struct svc_tls_config *tls,
                             struct svc_tls_conn **out, struct cht_err *err)
{
    char host[256];
    size_t n = strlen(where) - strlen(strrchr(where, ':')); /* it was connected to: it has one */
    bool bare = where[0] != '[';
    if (n >= sizeof host)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the host's name is too long");
    (void)snprintf(host, sizeof host, "%.*s", (int)(bare ? n : n - 2), where + (bare ? 0 : 1)); /* fits */
    return svc_tls_connect(fd, host, tls, out, err);
}

enum cht_rc tool_line_open(struct tool_line_client *l, const struct tool_line_how *how, struct cht_err *err)
{
    char text[96];
    *l = (struct tool_line_client){.fd = -1, .where = how->where};
    enum cht_rc rc = cht_sock_connect(how->where, &l->fd, err);
    if (rc == CHT_OK && how->tls != NULL)
        rc = tool_line_secure(l->fd, how->where, how->tls, &l->tls, err);
    if (rc == CHT_OK && how->token_file != NULL)
        rc = authenticate(l, how->token_file, err);
    if (rc == CHT_OK && how->database != NULL) {
        (void)snprintf(text, sizeof text, "DATABASE %.64s\n", how->database); /* fits */
        rc = command(l, text, err);
    }
    return rc;
}

void tool_line_close(struct tool_line_client *l)
{
    svc_tls_close(l->tls);
    l->tls = NULL;
    if (l->fd >= 0)
        cht_net_close(l->fd);
    cht_buf_free(&l->buf);
    l->fd = -1;
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

/* "SUCCESS,size=5,value=": its length and the size; 0 if more must be received to know, -1 if it is none. */
static int value_head(const char *p, size_t n, size_t *size)
{
    static const char head[] = "SUCCESS,size=", tail[] = ",value=";
    size_t i = sizeof head - 1, v = 0;
    if (n < i)
        return memcmp(p, head, n) == 0 ? 0 : -1;
    if (memcmp(p, head, i) != 0)
        return -1;
    for (; i < n && p[i] >= '0' && p[i] <= '9'; i++) {
        v = v * 10 + (size_t)(p[i] - '0');
        if (v > CHT_VALUE_MAX)
            return -1;
    }
    size_t m = n - i < sizeof tail - 1 ? n - i : sizeof tail - 1;
    if (memcmp(p + i, tail, m) != 0)
        return -1;
    *size = v;
    return m < sizeof tail - 1 ? 0 : (int)(i + m);
}

enum cht_rc tool_line_value(struct tool_line_client *l, const char **p, size_t *n, bool *hidden,
                            struct cht_err *err)
{
    size_t size = 0;
    int head = 0;
    *hidden = false;
    enum cht_rc rc = have(l, 1, err);
    while (rc == CHT_OK &&
           (head = value_head((const char *)l->buf.data + l->at, l->buf.len - l->at, &size)) == 0)
        rc = fill(l, err);
    if (rc != CHT_OK)
        return rc;
    *p = NULL;
    *n = 0;
    if (head < 0) {
        const char *answer;
        size_t answer_n;
        rc = tool_line_answer(l, &answer, &answer_n, err);
        *hidden = rc == CHT_OK && starts(answer, answer_n, "ERROR,value_contains_newline");
        if (rc == CHT_OK && !*hidden && !starts(answer, answer_n, "ERROR,key_not_found"))
            rc = strange(l, answer, answer_n, err);
        return rc;
    }
    size_t whole = (size_t)head + size;
    rc = have(l, whole + 1, err);
    if (rc != CHT_OK)
        return rc;
    const char *start = (const char *)l->buf.data + l->at;
    if (start[whole] == '\r') {
        rc = have(l, whole + 2, err);
        start = (const char *)l->buf.data + l->at;
        whole += rc == CHT_OK ? 1 : 0;
    }
    if (rc == CHT_OK && start[whole] != '\n')
        return CHT_FAIL(err, CHT_IO, "%.100s: a value is not as long as its answer says", l->where);
    *p = start + head;
    *n = size;
    l->at += whole + 1;
    return rc;
}

/* The first pair under a prefix that is a name is that name. */
enum cht_rc tool_line_payload(struct tool_line_client *l, const char *hex, size_t hex_n, const char **p,
                              size_t *n, struct cht_err *err)
{
    char text[2 * CHT_NAME_MAX + 64];
    const char *answer = "";
    size_t answer_n = 0;
    int len = snprintf(text, sizeof text, "PAIR_REDUCE payloads x%.*s 1\n", (int)hex_n, hex);
    enum cht_rc rc = tool_line_send(l, text, (size_t)len, err); /* fits: a name has at most 4096 bytes */
    if (rc == CHT_OK)
        rc = tool_line_answer(l, &answer, &answer_n, err);
    if (rc != CHT_OK)
        return rc;
    static const char items[] = ",items=";
    const char *end = answer + answer_n, *at = answer;
    while (end - at > (ptrdiff_t)sizeof items && memcmp(at, items, sizeof items - 1) != 0)
        at++;
    at += sizeof items - 1;
    bool ok = starts(answer, answer_n, "SUCCESS,") && end - at > (ptrdiff_t)hex_n &&
              memcmp(at, hex, hex_n) == 0 && at[hex_n] == ':';
    const char *colon = ok ? memchr(at + hex_n + 1, ':', (size_t)(end - at) - hex_n - 1) : NULL;
    if (colon == NULL)
        return strange(l, answer, answer_n, err);
    *p = colon + 1;
    *n = (size_t)(end - *p);
    return CHT_OK;
}

/* ---- pages ----------------------------------------------------------------------------------------------------------- */

/* The text after "name=", up to the next comma or, for the last member, the end. Cuts the answer up. */
static char *member(char *text, const char *name)
{
    char *p = strstr(text, name);
    return p != NULL ? p + strlen(name) : NULL;
}

enum cht_rc tool_line_scan(struct tool_line_client *l, const char *cursor, struct tool_line_page *page,
                           struct cht_err *err)
{
    char text[2 * CHT_NAME_MAX + 64];
    const char *p = "";
    size_t n = 0;
    *page = (struct tool_line_page){NULL, 0, NULL, NULL};
    int len = cursor != NULL ? snprintf(text, sizeof text, "PAIR_SCAN * %u x%s\n", PAGE, cursor)
                             : snprintf(text, sizeof text, "PAIR_SCAN * %u\n", PAGE);
    if (len < 0 || (size_t)len >= sizeof text)
        return CHT_FAIL(err, CHT_IO, "%.100s: a cursor of more than 4096 bytes", l->where);
    enum cht_rc rc = tool_line_send(l, text, (size_t)len, err);
    if (rc == CHT_OK)
        rc = tool_line_answer(l, &p, &n, err);
    if (rc != CHT_OK)
        return rc;
    if (!starts(p, n, "SUCCESS,count="))
        return strange(l, p, n, err);
    page->text = cht_malloc(n + 1);
    if (page->text == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a page of pairs");
    memcpy(page->text, p, n);
    page->text[n] = 0;
    page->text_n = n;
    char *items = member(page->text, ",items="), *next = NULL;
    if (items == NULL && strcmp(page->text, "SUCCESS,count=0") == 0) { /* a page without items ends so */
        page->items = page->text + n;
        return CHT_OK;
    }
    if (items == NULL) {
        rc = strange(l, p, n, err);
        cht_free(page->text);
        page->text = NULL;
        return rc;
    }
    items[-7] = 0; /* the comma in front */
    next = member(page->text, ",next_cursor=x");
    page->items = items;
    page->next = next;
    return CHT_OK;
}

enum cht_rc tool_line_next(struct tool_line_page *page, struct tool_line_item *item, bool *got,
                           struct cht_err *err)
{
    const char *p = page->items;
    *got = *p != 0;
    if (*p == 0)
        return CHT_OK;
    item->hex = p;
    item->hex_n = strspn(p, "0123456789abcdefABCDEF");
    p += item->hex_n;
    item->key = 0;
    bool ok = *p++ == ':' && item->hex_n > 0 && item->hex_n % 2 == 0 && item->hex_n <= 2 * CHT_NAME_MAX;
    const char *digits = p;
    for (; ok && *p >= '0' && *p <= '9'; p++) {
        item->key = item->key * 10 + (uint64_t)(*p - '0');
        ok = item->key <= CHT_KEY_MAX;
    }
    if (!ok || p == digits || item->key == 0 || (*p != ';' && *p != 0))
        return CHT_FAIL(err, CHT_IO, "an item of PAIR_SCAN that cannot be read: %.60s", item->hex);
    page->items = *p == ';' ? p + 1 : p;
    return CHT_OK;
}
