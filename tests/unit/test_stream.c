/* test_stream: what a stream gives to libmicrohttpd. */
#include "http/server.h"
#include "http/stream.h"

#include "base/literal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct place {
    struct conf conf;
    struct http_server server;
    struct http_worker worker;
    struct http_request request;
};

static struct http_request *prepare(struct place *p)
{
    memset(p, 0, sizeof *p);
    p->conf.max_streams = 1;
    p->server.conf = &p->conf;
    p->worker.srv = &p->server;
    p->request.w = &p->worker;
    return &p->request;
}

static void finish(struct http_request *r)
{
    http_stream_free(r);
    svc_out_free(&r->out);
    assert_int_equal(atomic_load(&r->w->srv->streams), 0);
}

static const char first[] = "{\"token\":1}\n", last[] = "{\"end\":{\"count\":2,\"next\":null}}\n";

static void test_text_that_is_there(void **state)
{
    static struct place p;
    struct http_request *r = prepare(&p);
    char buf[256];
    (void)state;
    svc_out_text(&r->out, first);
    svc_out_text(&r->out, last);
    http_stream_out(r);
    ssize_t n = http_stream_read(r, buf, sizeof buf);
    assert_int_equal(n, strlen(first) + strlen(last));
    assert_memory_equal(buf, first, strlen(first));
    assert_memory_equal(buf + strlen(first), last, strlen(last));
    assert_true(http_stream_read(r, buf, sizeof buf) == MHD_CONTENT_READER_END_OF_STREAM);
    finish(r);
}

/* A line in the middle found no memory, the last one did: it would say that all is there. */
static void test_text_with_a_gap(void **state)
{
    static struct place p;
    struct http_request *r = prepare(&p);
    char buf[256];
    (void)state;
    svc_out_text(&r->out, first);
    assert_false(svc_out_grow(&r->out, SIZE_MAX));
    svc_out_text(&r->out, last);
    http_stream_out(r);
    assert_true(http_stream_read(r, buf, sizeof buf) == MHD_CONTENT_READER_END_WITH_ERROR);
    finish(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_that_is_there),
        cmocka_unit_test(test_text_with_a_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
