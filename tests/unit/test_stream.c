/* test_stream: what a stream gives to libmicrohttpd. */
#include "base/alloc.h"
#include "exec/jobs.h"
#include "http/feed.h"
#include "http/server.h"
#include "http/stream.h"

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

/* A job whose second piece finds no memory, and its last one does. */
static void say(struct http_feed *f)
{
    static const char long_line[1u << 16] = {0};
    struct svc_out lines = {0};
    svc_out_text(&lines, first);
    http_feed_put(f, &lines);
    lines.n = 0;
    svc_out_bytes(&lines, long_line, sizeof long_line);
    cht_alloc_fail_at(1, true);
    http_feed_put(f, &lines);
    cht_alloc_fail_at(0, false);
    lines.n = 0;
    svc_out_text(&lines, last);
    http_feed_end(f, &lines);
    svc_out_free(&lines);
}

static void test_lines_of_a_job_with_a_gap(void **state)
{
    static const struct http_feed_kind kind = {.work = say};
    static const struct cht_jobs_config jobs = {.name = "test", .threads = 1, .per_owner = 1, .idle_ns = 1};
    static struct svc_database db = {.name = "default"};
    static struct place p;
    struct http_request *r = prepare(&p);
    struct http_feed *f = cht_calloc(1, sizeof *f);
    char buf[256];
    (void)state;
    svc_memory_init(&p.server.memory, 1u << 20, 1u << 20);
    assert_int_equal(cht_jobs_new(&jobs, &p.server.long_jobs, NULL), CHT_OK);
    r->db = &db;
    f->kind = &kind;
    http_feed_begin(r, f);
    cht_jobs_free(p.server.long_jobs);
    assert_true(http_stream_read(r, buf, sizeof buf) == MHD_CONTENT_READER_END_WITH_ERROR);
    finish(r);
    assert_int_equal(db.users, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_that_is_there),
        cmocka_unit_test(test_text_with_a_gap),
        cmocka_unit_test(test_lines_of_a_job_with_a_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
