/* test_session: the parser of the line protocol on every kind of bytes, and the interpreter while memory runs out. */
#include "base/alloc.h"
#include "base/recycle.h"
#include "base/rng.h"
#include "service/dbs.h"
#include "lm/kn_setup.h"
#include "tcp/session.h"
#include "tcp/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the parser --------------------------------------------------------------------------------------------------- */

static struct line_command parse(const char *text, uint32_t max)
{
    static char copy[70000];
    struct line_command l;
    size_t n = strlen(text);
    assert_true(n < sizeof copy);
    memcpy(copy, text, n);
    line_command_parse(copy, n, max, &l);
    return l;
}

static void test_parts(void **state)
{
    (void)state;
    struct line_command l = parse("PAIR_REDUCE counts x6374783a 1024 x00ff", 100);
    assert_int_equal(l.verb, LINE_PAIR_REDUCE);
    assert_null(l.error);
    assert_int_equal(l.name.n, 4);
    assert_memory_equal(l.name.p, "ctx:", 4);
    assert_int_equal(l.limit, 1024);
    assert_int_equal(l.after.n, 2);
    assert_memory_equal(l.after.p, "\0\xff", 2);
    assert_int_equal(l.mode.n, 6);
    assert_int_equal(parse("PAIR_SCAN *", 1).name.n, 0);
    assert_int_equal(parse("PAIR_SCAN *", 1).limit, LINE_LIMIT_DEFAULT);
    assert_int_equal(parse("PAIR_SCAN * 0", 1).limit, LINE_LIMIT_DEFAULT);
    assert_int_equal(parse("PAIR_SCAN * 5000", 1).limit, LINE_LIMIT_MAX);
    assert_int_equal(parse("PAIR_SCAN * 18446744073709551616", 1).limit, LINE_LIMIT_MAX);
    assert_int_equal(parse("PAIR_SCAN * -7", 1).limit, 0);
    assert_string_equal(parse("PAIR_SCAN * --7", 1).error, "invalid_limit");
    assert_string_equal(parse("INSERT 12345", 4).error, "value_too_large");
    assert_null(parse("INSERT 1234", 4).error);
    assert_int_equal(parse("READ 281474976710655", 1).key, CHT_KEY_MAX);
    assert_string_equal(parse("INSERT:99999999999999999999 x", 4).error, "invalid_size");
}

/* Words, digits and rubbish in any order: every part that comes back lies within the line. */
static void test_any_bytes(void **state)
{
    static const char *const words[] = {"INSERT",
                                        "INSERT:",
                                        "READ",
                                        "EDIT:2",
                                        "DELETE",
                                        "PAIR_SET",
                                        "PAIR_GET",
                                        "PAIR_DEL",
                                        "PAIR_SCAN",
                                        "PAIR_REDUCE",
                                        "DATABASE",
                                        "AUTH",
                                        "EXIT",
                                        "counts",
                                        "*",
                                        "x",
                                        "x6",
                                        "x6374",
                                        "xZZ",
                                        "-1",
                                        "99999999999999999999999",
                                        "PAIR_SUMMARY",
                                        "PAIR_SET_HIDDEN",
                                        "PAIR_ADD",
                                        "NGRAMS",
                                        "SCORE",
                                        "text=",
                                        "PAIR_COUNTS_ADD",
                                        "hidden=1",
                                        "depth=",
                                        "limit=-3",
                                        "cursor=x61",
                                        "PAIR_PURGE",
                                        "0",
                                        " ",
                                        "  ",
                                        "\r",
                                        "\0",
                                        "a:b",
                                        ";",
                                        "\xff"};
    struct cht_rng r;
    (void)state;
    cht_rng_seed(&r, 7);
    for (int round = 0; round < 200000; round++) {
        char text[400];
        size_t n = 0, parts = cht_rng_below(&r, 7);
        for (size_t i = 0; i < parts; i++) {
            const char *w = words[cht_rng_below(&r, sizeof words / sizeof *words)];
            size_t k = *w == 0 ? 1 : strlen(w);
            memcpy(text + n, w, k);
            n += k;
            if (cht_rng_below(&r, 4) > 0)
                text[n++] = ' ';
        }
        char *line = malloc(n > 0 ? n : 1); /* its own block: the sanitizer sees a step beyond */
        assert_non_null(line);
        memcpy(line, text, n);
        struct line_command l;
        line_command_parse(line, n, 50, &l);
        const struct cht_str got[] = {l.name, l.value, l.after, l.mode};
        for (size_t i = 0; i < 4; i++) {
            const char *p = (const char *)got[i].p;
            assert_true(got[i].n == 0 || (p >= line && p + got[i].n <= line + n));
        }
        if (l.error == NULL && (l.verb == LINE_READ || l.verb == LINE_PAIR_SET))
            assert_in_range(l.key, 1, CHT_KEY_MAX);
        assert_true(l.verb != LINE_NONE || l.error != NULL);
        free(line);
    }
}

/* ---- the interpreter ---------------------------------------------------------------------------------------------- */

struct fixture {
    char dir[64];
    struct cht_env *env;
    struct svc_dbs *dbs;
    struct line_session_host host;
    struct line_session_counts counts;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    bool created;
    struct svc_database *d;
    struct cht_err err = {0};
    assert_non_null(f);
    memcpy(f->dir, "/tmp/test_session.XXXXXX", sizeof "/tmp/test_session.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    const char *dirs[] = {f->dir};
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .durability = CHT_DURABLE_OS, .default_shards = 1};
    assert_int_equal(cht_env_open(&cfg, &f->env, &err), CHT_OK);
    assert_int_equal(svc_dbs_new(f->env, &f->dbs, &err), CHT_OK);
    assert_int_equal(svc_dbs_open(f->dbs, "default", true, 1, &d, &created, &err), CHT_OK);
    svc_dbs_put(d);
    f->host.dbs = f->dbs;
    f->host.max_value_size = 1000000;
    f->host.answer_max = 1 << 20;
    assert_int_equal(line_host_init(&f->host, &err), CHT_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[100];
    line_host_fini(&f->host);
    svc_dbs_free(f->dbs);
    assert_int_equal(cht_env_close(f->env, NULL), CHT_OK);
    (void)snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* All lines, as the server would; the answers are in s->out. */
static void run(struct line_session *s, const char *text)
{
    static char copy[1 << 20];
    size_t n = strlen(text), used, at = 0;
    enum line_session_next next;
    assert_true(n < sizeof copy);
    memcpy(copy, text, n);
    do {
        next = line_session_run(s, copy + at, n - at, &used);
        at += used;
        if (next == LINE_SESSION_COMMIT) {
            (void)cht_store_commit(s->db->store, &s->commit);
            (void)line_session_committed(s); /* without s->wait it is through */
        } else if (next == LINE_SESSION_JOB) {
            line_session_job(s);
        }
    } while (next != LINE_SESSION_IDLE && next != LINE_SESSION_CLOSE && !s->out.failed);
}

static void test_session(void **state)
{
    struct fixture *f = *state;
    struct line_session s;
    line_session_init(&s, &f->host, &f->counts);
    run(&s, "INSERT a\nREAD 1\nPAIR_SET p 1\nPAIR_SCAN *\nPAIR_REDUCE payloads *\nEXIT\nREAD 1\n");
    svc_out_bytes(&s.out, "", 1);
    assert_string_equal(
        s.out.p, "SUCCESS,key=1\nSUCCESS,size=1,value=a\nSUCCESS,pair_set\nSUCCESS,count=1,items=70:1\n"
                 "SUCCESS,reducer=payloads,count=1,items=70:1:YQ==\n");
    assert_true(s.closing);
    assert_int_equal(s.commands, 5);
    assert_true((s.ops != NULL) ==
                CHT_RECYCLE); /* the address sanitizer sees who keeps a pointer to what is done */
    assert_int_equal(atomic_load(&f->counts.done[LINE_INSERT][0]), 1);
    line_session_fini(&s);
    assert_int_equal(atomic_load(&f->host.held), 0);
}

/* One answer: what it is, what it may be after a write before it failed, or out_of_memory. */
static void check_answer(unsigned index, const char *line)
{
    static const char *const good[][3] = {
        {"SUCCESS,key=", NULL, NULL},
        {"SUCCESS,size=5,value=value", "ERROR,key_not_found", NULL},
        {"SUCCESS,pair_set", NULL, NULL},
        {"SUCCESS,key=1", "ERROR,not_found", NULL},
        {"SUCCESS,count=1,items=6e:1", "SUCCESS,count=0", NULL},
        {"SUCCESS,reducer=payloads,count=1,items=6e:1:dmFsdWU=",
         "SUCCESS,reducer=payloads,count=1,items=6e:1:", "SUCCESS,reducer=payloads,count=0"},
        {"ERROR,unknown_command", NULL, NULL},
    };
    assert_true(index < sizeof good / sizeof *good);
    bool ok = strcmp(line, "ERROR,out_of_memory") == 0 || (index == 0 && strncmp(line, good[0][0], 12) == 0);
    for (int i = 0; i < 3 && !ok; i++)
        ok = good[index][i] != NULL && strcmp(line, good[index][i]) == 0;
    if (!ok)
        fail_msg("answer %u: %s", index, line);
}

/* The n-th allocation fails, for every n: each line has its answer, or the answers themselves found no room (then the connection
 * is closed); nothing breaks for the next one; and nothing leaks (the address sanitizer looks). */
static void test_out_of_memory(void **state)
{
    struct fixture *f = *state;
    unsigned failures = 0, said = 0;
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        struct line_session s;
        line_session_init(&s, &f->host, &f->counts);
        run(&s, "PAIR_DEL n\n");
        line_session_taken(&s);
        line_session_trim(&s);
        uint64_t before = cht_alloc_failures();
        cht_alloc_fail_at(n, false);
        run(&s, "INSERT value\nREAD 1\nPAIR_SET n 1\nPAIR_GET n\nPAIR_SCAN n\nPAIR_REDUCE payloads "
                "n\nNONSENSE\n");
        failed = cht_alloc_failures() > before;
        cht_alloc_fail_at(0, false);
        if (!s.out.failed) {
            unsigned index = 0;
            svc_out_bytes(&s.out, "", 1);
            said += strstr(s.out.p, "out_of_memory") != NULL;
            for (char *line = strtok(s.out.p, "\n"); line != NULL; line = strtok(NULL, "\n"))
                check_answer(index++, line);
            assert_int_equal(index, 7);
        }
        line_session_fini(&s);
        failures += failed;
        assert_true(n < 10000);
    }
    assert_true(failures > 5 && said > 3);
    assert_int_equal(atomic_load(&f->host.held), 0);
    struct line_session s;
    line_session_init(&s, &f->host, &f->counts);
    run(&s, "INSERT after\n");
    assert_memory_equal(s.out.p, "SUCCESS,key=", 12);
    line_session_fini(&s);
}

/* The same of the commands that jobs do: one answer each, which is not that of another state. */
static void test_jobs_out_of_memory(void **state)
{
    static const char lines[] = "PAIR_SET_HIDDEN h:1 1\nPAIR_SET h:2 1\nPAIR_SCAN h:\nPAIR_SUMMARY h: -1 -1\n"
                                "DB_CONFIG default key_slot_bits=7\nDB_LIST\nSYSTEM_STATS\n"
                                "PAIR_PUT_BATCH hidden=1 items=[{\"k\":\"h:3\",\"v\":\"v\"}]\nDEL pairs "
                                "key=h:1\nDEL pairs prefix=h:\n"
                                "BATCH PAIR_SET items=[\"h:7 1\",\"h:8 1\"]\nJOB submit PAIR_REDUCE payloads "
                                "h:\nBATCH READ async=1 items=[\"1\"]\n";
    static const char *const good[] = {
        "SUCCESS,pair_set_hidden",
        "SUCCESS,pair_set",
        "SUCCESS,count=1,items=683a32:1",
        "SUCCESS,command=PAIR_SUMMARY,count=1,",
        "SUCCESS,database_configured=default,",
        "SUCCESS,count=1,default=default,",
        "SUCCESS,command=SYSTEM_STATS,",
        "SUCCESS,command=PAIR_PUT_BATCH,requested=1,applied=1,failed=0",
        "SUCCESS,deleted=1",
        "SUCCESS,deleted=2",
        "SUCCESS,command=BATCH,target=PAIR_SET,requested=2,applied=2,failed=0,payload=",
        "SUCCESS,job=reduce_",
        "SUCCESS,job=batch_"};
    struct fixture *f = *state;
    unsigned said = 0;
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        struct line_session s;
        unsigned index = 0;
        bool broken = false;
        line_session_init(&s, &f->host, &f->counts);
        run(&s, "DEL pairs prefix=h: payloads=0\nINSERT value\n");
        line_session_taken(&s);
        line_session_trim(&s);
        uint64_t before = cht_alloc_failures();
        cht_alloc_fail_at(n, false);
        run(&s, lines);
        failed = cht_alloc_failures() > before;
        cht_alloc_fail_at(0, false);
        svc_out_bytes(&s.out, "", 1);
        for (char *line = s.out.failed ? NULL : strtok(s.out.p, "\n"); line != NULL;
             line = strtok(NULL, "\n")) {
            bool memory = strstr(line, "out_of_memory") != NULL || strstr(line, "pair_set_failed") != NULL ||
                          strstr(line, "invalid_items") != NULL /* JSON that found none */;
            assert_true(index < sizeof good / sizeof *good);
            said += memory;
            broken = broken || memory; /* what follows may find less */
            if (!broken && strncmp(line, good[index], strlen(good[index])) != 0)
                fail_msg("allocation %llu, answer %u: %s", (unsigned long long)n, index, line);
            index++;
        }
        assert_true(s.out.failed || index == sizeof good / sizeof *good);
        line_session_fini(&s);
        assert_true(n < 10000);
    }
    assert_true(said > 10);
    assert_int_equal(atomic_load(&f->host.held), 0);
}

/* The same of texts: what is counted is taken away again, or was not counted. */
static void test_texts_out_of_memory(void **state)
{
    static const char lines[] = "NGRAMS to be or\nPREDICT k=2 text=to\nSCORE to be nobody\n";
    static const char *const good[] = {"SUCCESS,documents=1,tokens=5,", "SUCCESS,count=2,order=2,items=6265:",
                                       "SUCCESS,count=4,oov=1,log10=-"};
    const struct lm_kn_parameters live = {.order = 2, .flags = LM_KN_EOS, .bos = 2, .eos = 3};
    struct fixture *f = *state;
    struct svc_database *db;
    struct cht_err err = {0};
    unsigned said = 0;
    bool failed = true, created;
    assert_int_equal(svc_dbs_open(f->dbs, "texts", true, 0, &db, &created, &err), CHT_OK);
    assert_int_equal(lm_kn_setup(f->host.lm, db->store, &live, &err), CHT_OK);
    svc_dbs_put(db);
    for (uint64_t n = 1; failed; n++) {
        struct line_session s;
        unsigned index = 0;
        bool broken = false;
        line_session_init(&s, &f->host, &f->counts);
        run(&s, "DATABASE texts\n");
        line_session_taken(&s);
        line_session_trim(&s);
        uint64_t before = cht_alloc_failures();
        cht_alloc_fail_at(n, false);
        run(&s, lines);
        failed = cht_alloc_failures() > before;
        cht_alloc_fail_at(0, false);
        svc_out_bytes(&s.out, "", 1);
        for (char *line = s.out.failed ? NULL : strtok(s.out.p, "\n"); line != NULL;
             line = strtok(NULL, "\n")) {
            bool memory = strstr(line, "out_of_memory") != NULL;
            assert_true(index < sizeof good / sizeof *good);
            said += memory;
            broken = broken || memory;
            if (!broken && strncmp(line, good[index], strlen(good[index])) != 0)
                fail_msg("allocation %llu, answer %u: %s", (unsigned long long)n, index, line);
            index++;
        }
        line_session_taken(&s);
        run(&s, "NGRAMS remove=1 to be or\n");
        svc_out_bytes(&s.out, "", 1);
        if (!s.out.failed) /* and not twice */
            assert_true(strstr(s.out.p, "removed=1") != NULL || strstr(s.out.p, "ERROR,not_counted") != NULL);
        line_session_taken(&s);
        run(&s, "NGRAMS remove=1 to be or\n");
        svc_out_bytes(&s.out, "", 1);
        assert_non_null(strstr(s.out.p, "ERROR,not_counted"));
        line_session_fini(&s);
        assert_true(n < 10000);
    }
    assert_true(said > 10);
    assert_int_equal(atomic_load(&f->host.held), 0);
}

/* A page that would be too long ends early, and the next ones bring the rest; while much is held it ends sooner. */
static void test_page_bytes(void **state)
{
    struct fixture *f = *state;
    struct line_session s;
    char line[100];
    line_session_init(&s, &f->host, &f->counts);
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(line, sizeof line, "PAIR_SET long-name-of-pair-%04d 7\n", i);
        run(&s, line);
        line_session_taken(&s);
    }
    f->host.answer_max = 20000;
    unsigned pages = 0;
    size_t names = 0;
    char next[8300] = "";
    do {
        char command[8400];
        (void)snprintf(command, sizeof command, "PAIR_SCAN * -1 %s\n", next);
        run(&s, command);
        svc_out_bytes(&s.out, "", 1);
        assert_true(s.out.n < 21000);
        for (size_t i = 0; i < s.out.n; i++)
            names += s.out.p[i] == ':';
        const char *cursor = strstr(s.out.p, "next_cursor=");
        next[0] = 0;
        if (cursor != NULL)
            (void)sscanf(cursor, "next_cursor=%8200[^,]", next);
        line_session_taken(&s);
        pages++;
    } while (next[0] != 0);
    assert_int_equal(names, 3000);
    assert_true(pages >= 8);
    line_session_fini(&s);
}

/* JSON that is none, and JSON for which there is no memory, whichever allocation fails, are told apart. */
static void test_json_out_of_memory(void **state)
{
    static const struct {
        const char *text;
        bool good;
    } cases[] = {
        {"[[1,2.5],{\"k\":\"a longer text, and so on\",\"v\":null}]", true},
        {"W1sxLDIuNV0seyJrIjoiYSJ9XQ", true}, /* base64 */
        {"[1,", false},
        {"{\"a\"}", false},
        {"!no base64", false},
        {"bm8ganNvbg==", false},
        {"", false},
    };
    (void)state;
    json_set_alloc_funcs(cht_malloc, cht_free);
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        const char *said = cases[i / 2].text;
        bool forever = i % 2 == 1, failed = true, no_memory, good = cases[i / 2].good;
        unsigned n = 0;
        while (failed) {
            uint64_t before = cht_alloc_failures();
            cht_alloc_fail_at(++n, forever);
            json_t *o = line_json((struct cht_str){(const uint8_t *)said, strlen(said)}, &no_memory);
            failed = cht_alloc_failures() > before;
            cht_alloc_fail_at(0, false);
            assert_true(o == NULL || good);
            assert_true(!no_memory || (failed && o == NULL));
            if (good && o == NULL)
                assert_true(no_memory);
            if (forever && failed && n == 1)
                assert_true(no_memory);
            json_decref(o);
        }
        assert_true(!good || n > 5);
    }
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_json_out_of_memory),
        cmocka_unit_test_setup_teardown(test_session, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_jobs_out_of_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_texts_out_of_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_bytes, setup, teardown),
    };
    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
