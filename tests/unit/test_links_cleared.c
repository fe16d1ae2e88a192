/* test_links_cleared: the record that says that old links go before new ones get their names (links_keep.c): a database with it may come from a pool
 * to files (tests/rados/test_rados_links.c makes it there). Who reads lists, the run that brings it to its end, what is in the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "reduce/links.h"
#include "reduce/move.h"
#include "support/reducing.h"

#define HEAD 25u /* of the record: version, digest, contexts, links */

static const uint8_t empty[] = {1, 0, 0}; /* a list */
static const uint8_t counts[] = {1, 2, 0, 1, 0, 0, 0, 7, 0, 0, 0, 1};

static void put_record(unsigned version, const char *prefix)
{
    uint8_t record[HEAD + 32] = {(uint8_t)version};
    size_t n = strlen(prefix);
    record[16] = 1; /* context */
    memcpy(record + HEAD, prefix, n);
    put("linkrun:cosine", record, HEAD + n);
}

static void begin(unsigned version, const char *prefix)
{
    put("link:cosine:a:old", empty, sizeof empty);
    put("link:cosine:b:old", empty, sizeof empty);
    put("linking:cosine:a:new", empty, sizeof empty);
    put_record(version, prefix);
}

static enum cht_rc read_list(const char *name)
{
    struct cht_buf got = {0};
    uint32_t size = 0;
    enum cht_rc rc = reduce_links_read(red.s, str(name), &got, &size, &red.err);
    if (rc == CHT_OK) {
        assert_int_equal(size, sizeof empty);
        assert_memory_equal(got.data, empty, size);
    }
    cht_buf_free(&got);
    return rc;
}

static bool any(const char *prefix)
{
    bool some = false;
    assert_int_equal(reduce_links_any(red.s, str(prefix), &some, &red.err), CHT_OK);
    return some;
}

static uint64_t pairs_under(const char *prefix)
{
    uint64_t pairs = 0;
    assert_int_equal(cht_store_count(red.s, str(prefix), &pairs, &red.err), CHT_OK);
    return pairs;
}

static enum cht_rc run_links(const char *prefix)
{
    struct reduce_links_config cfg = {.prefix = str(prefix), .k = 3, .threads = 1};
    struct reduce_links_result result;
    return reduce_links_run(red.s, &cfg, &result, &red.err);
}

/* Only those with the prefix are void. */
static void test_read(void **state)
{
    (void)state;
    begin(3, "a:");
    assert_int_equal(read_list("link:cosine:a:old"), CHT_PAIR_NOT_FOUND);
    assert_int_equal(read_list("link:cosine:a:new"), CHT_OK);
    assert_int_equal(read_list("link:cosine:b:old"), CHT_OK);
    assert_int_equal(read_list("link:cosine:a"), CHT_PAIR_NOT_FOUND);
    assert_int_equal(read_list("link:pmi:a:new"), CHT_PAIR_NOT_FOUND);
    put_record(3, "");
    assert_int_equal(read_list("link:cosine:b:old"), CHT_PAIR_NOT_FOUND);
    put_record(2, "");
    assert_int_equal(read_list("link:cosine:b:old"), CHT_OK);
    assert_int_equal(read_list("link:cosine:a:new"), CHT_OK);
    put_record(1, "");
    assert_int_equal(read_list("link:cosine:a:new"), CHT_PAIR_NOT_FOUND);
    put("linkrun:cosine", "mine", 4); /* no record */
    assert_int_equal(read_list("link:cosine:a:old"), CHT_OK);
    assert_int_equal(read_list("link:cosine:a:new"), CHT_PAIR_NOT_FOUND);
}

/* There are links also while no list has its name. */
static void test_any(void **state)
{
    (void)state;
    assert_false(any("link:cosine:a:"));
    put_record(3, "a:");
    assert_true(any("link:cosine:a:"));
    assert_false(any("link:pmi:a:"));
    put_record(1, "");
    assert_false(any("link:cosine:a:"));
    put("link:cosine:a:x", empty, sizeof empty);
    assert_true(any("link:cosine:a:"));
    assert_false(any("link:cosine:b:"));
}

/* Any run of the metric brings it to its end first. */
static void test_finished(void **state)
{
    (void)state;
    begin(3, "a:");
    put("c:x", counts, sizeof counts);
    assert_int_equal(run_links("c:"), CHT_OK);
    assert_int_equal(pairs_under("linking:"), 0);
    assert_int_equal(pairs_under("linkrun:"), 0);
    assert_int_equal(pairs_under("link:cosine:"), 3);
    assert_int_equal(read_list("link:cosine:a:old"), CHT_PAIR_NOT_FOUND);
    assert_int_equal(read_list("link:cosine:a:new"), CHT_OK);
    assert_int_equal(read_list("link:cosine:b:old"), CHT_OK);
    assert_int_equal(read_list("link:cosine:c:x"), CHT_OK);
}

static void test_in_the_way(void **state)
{
    (void)state;
    begin(3, "a:");
    put("link:cosine:a:mine", "mine", 4);
    assert_int_equal(run_links("c:"), CHT_NAMES_TAKEN);
    assert_int_equal(pairs_under("link:cosine:a:"), 2);
    assert_int_equal(pairs_under("linking:"), 1);
    put_record(4, "a:"); /* of a later program */
    assert_int_equal(run_links("c:"), CHT_NAMES_TAKEN);
    assert_int_equal(pairs_under("linkrun:"), 1);
}

/* A record that nobody has made: the memory for its contexts would be no number. Each time a little less than a part of a switch needs. */
static void test_contexts_without_number(void **state)
{
    (void)state;
    const uint64_t each = REDUCE_MOVE_EACH + 2 * REDUCE_LINKS_NAME_EXTRA;
    for (uint64_t less = 0; less < 3 * CHT_NAME_MAX / each + 40; less++) {
        uint8_t record[HEAD] = {2};
        uint64_t contexts = UINT64_MAX / each - less;
        for (unsigned i = 0; i < 8; i++)
            record[9 + i] = (uint8_t)(contexts >> (56 - 8 * i));
        put("linking:cosine:a:new", empty, sizeof empty);
        put("linkrun:cosine", record, HEAD);
        assert_int_equal(run_links("c:"), CHT_OK);
        assert_int_equal(pairs_under("linking:"), 0);
        assert_int_equal(read_list("link:cosine:a:new"), CHT_OK);
    }
}

/* A record that nobody has made: pairs of that prefix have no room for links. */
static void test_prefix_too_long(void **state)
{
    (void)state;
    static uint8_t record[HEAD + CHT_NAME_MAX];
    memset(record + HEAD, 'c', CHT_NAME_MAX);
    for (uint8_t version = 1; version <= 3; version++) {
        record[0] = version;
        put("linkrun:cosine", record, HEAD + CHT_NAME_MAX - REDUCE_LINKS_NAME_EXTRA + 1);
        assert_int_equal(run_links("c:"), CHT_NAMES_TAKEN);
        put("linkrun:cosine", record, HEAD + CHT_NAME_MAX);
        assert_int_equal(run_links("c:"), CHT_NAMES_TAKEN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {REDUCING_TEST(test_read),
                                       REDUCING_TEST(test_any),
                                       REDUCING_TEST(test_finished),
                                       REDUCING_TEST(test_in_the_way),
                                       REDUCING_TEST(test_contexts_without_number),
                                       REDUCING_TEST(test_prefix_too_long)};
    return REDUCING_MAIN(tests);
}
