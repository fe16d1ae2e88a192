/* test_access: token files: what is taken, what is refused and with which words, hashes, expiry; and SHA-256 below them. */
#include "base/clock.h"
#include "base/sha256.h"
#include "base/alloc.h"
#include "service/access.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define TOKEN "a-token-of-16-ch"

static char path[] = "/tmp/test_access_XXXXXX";

static void write_file(const char *text, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static struct svc_access *load(const char *text)
{
    struct svc_access *a = NULL;
    struct cht_err err = {0};
    write_file(text, strlen(text));
    if (svc_access_load(path, &a, &err) != CHT_OK)
        fail_msg("%s: %s", text, err.msg);
    return a;
}

static void refused_bytes(const char *text, size_t n, const char *why)
{
    struct svc_access *a = NULL;
    struct cht_err err = {0};
    write_file(text, n);
    assert_int_equal(svc_access_load(path, &a, &err), CHT_INVALID_ARGUMENT);
    assert_null(a);
    if (strstr(err.msg, why) == NULL)
        fail_msg("'%s' does not say '%s'", err.msg, why);
    assert_null(strstr(err.msg, TOKEN)); /* it goes to the log */
}

static void refused(const char *text, const char *why) { refused_bytes(text, strlen(text), why); }

static void hex_of(const void *p, size_t n, char out[65])
{
    uint8_t hash[CHT_SHA256_BYTES];
    cht_sha256(p, n, hash);
    for (size_t i = 0; i < sizeof hash; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

/* FIPS 180-4 and NIST's vectors; other lengths: the next test. */
static void test_sha256(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hash;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmno"
         "pqrstnopq"
         "rstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    char hex[65];
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        hex_of(vectors[i].text, strlen(vectors[i].text), hex);
        assert_string_equal(hex, vectors[i].hash);
    }
    char *million = malloc(1000000);
    assert_non_null(million);
    memset(million, 'a', 1000000);
    hex_of(million, 1000000, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

/* Lengths 0 to 300, against the system's program: all that padding can be, and all that a token can be. */
static void test_sha256_lengths(void **state)
{
    (void)state;
    char text[301], hex[65], want[80], command[512];
    memset(text, 'x', sizeof text);
    for (size_t n = 0; n <= 300; n += n > 130 ? 17 : 1) {
        write_file(text, n);
        (void)snprintf(command, sizeof command, "sha256sum %s", path);
        FILE *f = popen(command, "r");
        assert_non_null(f);
        assert_non_null(fgets(want, sizeof want, f));
        (void)pclose(f);
        want[64] = 0;
        hex_of(text, n, hex);
        assert_string_equal(hex, want);
    }
}

static void test_lines(void **state)
{
    (void)state;
    struct svc_access *a =
        load("# comment\n\n" TOKEN
             " read one,two\r\n  other-token-of-some-length\tadmin\t* \nlast-token-without-newline write *");
    const struct svc_token *t = svc_access_find_text(a, TOKEN, strlen(TOKEN));
    assert_non_null(t);
    assert_true(svc_access_allows(t, SVC_RIGHT_READ, "one") && svc_access_allows(t, SVC_RIGHT_READ, "two"));
    assert_false(svc_access_allows(t, SVC_RIGHT_READ, "on") ||
                 svc_access_allows(t, SVC_RIGHT_READ, "three") ||
                 svc_access_allows(t, SVC_RIGHT_WRITE, "one"));
    assert_null(svc_access_find_text(a, TOKEN, strlen(TOKEN) - 1));
    assert_null(svc_access_find_text(a, TOKEN "h", strlen(TOKEN) + 1));
    assert_null(svc_access_find_text(a, "", 0));
    assert_true(
        svc_access_has_right(svc_access_find_text(a, "other-token-of-some-length", 26), SVC_RIGHT_ADMIN));
    assert_non_null(svc_access_find_text(a, "last-token-without-newline", 26));
    assert_true(svc_access_has_secrets(a));
    svc_access_free(a);
}

static void test_refused(void **state)
{
    (void)state;
    char text[400];
    refused("", "holds no token");
    refused("# only this\n", "holds no token");
    refused("short-token-0015 read *\nshort-token-015 read *\n", "line 2: a token has 16 to 256");
    memset(text, 't', sizeof text);
    (void)snprintf(text + 257, sizeof text - 257, " read *\n");
    refused(text, "line 1: a token has 16 to 256");
    (void)snprintf(text + 256, sizeof text - 256, " read *\n");
    svc_access_free(load(text));
    refused(TOKEN, "the right is");
    refused(TOKEN " all *\n", "the right is");
    refused(TOKEN " read\n", "expected TOKEN RIGHT DATABASES");
    refused(TOKEN " read * more\n", "expected TOKEN RIGHT DATABASES");
    refused(TOKEN " read * expires=2030-01-01 more\n", "expected TOKEN RIGHT DATABASES");
    refused(TOKEN " read a,,b\n", "names with commas");
    refused(TOKEN " read *\n" TOKEN " admin *\n", "line 2: the token is there already");
    refused("a-token\x01of-16-chars read *\n", "control characters");
    refused("\xEF\xBB\xBF" TOKEN " read *\n", "byte order mark");
    refused("\xFF\xFE" TOKEN " read *\n", "byte order mark");
    static const char zero[] = TOKEN " read *\n# \0 hidden\nother-token-of-some-length admin *\n";
    refused_bytes(zero, sizeof zero - 1, "line 2: a zero byte");
    struct svc_access *a = NULL;
    struct cht_err err = {0};
    assert_int_equal(svc_access_load("/nowhere/tokens", &a, &err), CHT_NO_FILE);
}

static void test_hashes(void **state)
{
    (void)state;
    char hex[65], text[400];
    hex_of(TOKEN, strlen(TOKEN), hex);
    (void)snprintf(text, sizeof text, "sha256:%s write one\n", hex);
    struct svc_access *a = load(text);
    const struct svc_token *t = svc_access_find_text(a, TOKEN, strlen(TOKEN));
    assert_true(t != NULL && svc_access_allows(t, SVC_RIGHT_WRITE, "one"));
    assert_false(svc_access_has_secrets(a));
    (void)snprintf(text, sizeof text, "sha256:%s", hex);
    assert_null(
        svc_access_find_text(a, text, strlen(text))); /* whoever reads the file cannot use what is in it */
    assert_null(svc_access_find_text(a, hex, 64));
    svc_access_free(a);
    for (char *p = hex; *p != 0; p++)
        *p = (char)(*p >= 'a' ? *p - 32 : *p);
    (void)snprintf(text, sizeof text, "sha256:%s write one\n", hex);
    a = load(text);
    assert_non_null(svc_access_find_text(a, TOKEN, strlen(TOKEN)));
    svc_access_free(a);
    (void)snprintf(text, sizeof text, "sha256:%s read *\n" TOKEN " admin *\n", hex);
    refused(text, "line 2: the token is there already");
    (void)snprintf(text, sizeof text, "sha256:%.63s read *\n", hex);
    refused(text, "64 hexadecimal digits");
    (void)snprintf(text, sizeof text, "sha256:%.63sg read *\n", hex);
    refused(text, "64 hexadecimal digits");
    (void)snprintf(text, sizeof text, "sha256:%s0 read *\n", hex);
    refused(text, "64 hexadecimal digits");
}

static void test_header(void **state)
{
    (void)state;
    struct svc_access *a = load(TOKEN " read *\n");
    static const char *const good[] = {"Bearer " TOKEN,     "bearer " TOKEN,    "BEARER " TOKEN,
                                       "bEaReR    " TOKEN,  "Bearer \t " TOKEN, "Bearer " TOKEN " ",
                                       "Bearer " TOKEN "\t"};
    static const char *const bad[] = {"",
                                      "Bearer",
                                      "Bearer ",
                                      TOKEN,
                                      "Bearer" TOKEN,
                                      "Bearer:" TOKEN,
                                      "Basic " TOKEN,
                                      "Bearerx " TOKEN,
                                      " Bearer " TOKEN,
                                      "Bearer " TOKEN " x",
                                      "Bearer \"" TOKEN "\"",
                                      "\"earer " TOKEN,
                                      "BeaRer  " TOKEN "," TOKEN};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_non_null(svc_access_find(a, good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_null(svc_access_find(a, bad[i]));
    assert_null(svc_access_find(a, NULL));
    svc_access_free(a);
}

/* "expires=" and a moment so many seconds from now. */
static struct svc_access *load_expiring(long seconds)
{
    char text[200], when[32];
    time_t at = time(NULL) + seconds;
    struct tm tm;
    assert_non_null(gmtime_r(&at, &tm));
    assert_true(strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0);
    (void)snprintf(text, sizeof text, TOKEN " read * expires=%s\nother-token-of-some-length read *\n", when);
    return load(text);
}

static void test_expiry(void **state)
{
    (void)state;
    for (long off = -400; off <= 400; off += 31) { /* days: every month and both ends of a year */
        struct svc_access *a = load_expiring(off * 86400 + (off < 0 ? -5 : 5));
        assert_true((svc_access_find_text(a, TOKEN, strlen(TOKEN)) != NULL) == (off > 0));
        assert_non_null(svc_access_find_text(a, "other-token-of-some-length", 26));
        svc_access_free(a);
    }
    struct svc_access *a = NULL;
    const struct svc_token *t = NULL;
    bool good = false;
    for (long seconds = 2; !good; seconds *= 2) { /* later, if it may have ended before it was looked at */
        time_t end = time(NULL) + seconds;
        svc_access_free(a);
        a = load_expiring(seconds);
        t = svc_access_find_text(a, TOKEN, strlen(TOKEN));
        good = t != NULL && !svc_access_expired(t) && svc_access_again(a, t) == t;
        assert_true(good || time(NULL) >= end);
    }
    while (!svc_access_expired(t))
        cht_sleep_ns(20000000);
    assert_null(svc_access_again(a, t));
    assert_null(svc_access_find_text(a, TOKEN, strlen(TOKEN)));
    svc_access_free(a);
    a = load(TOKEN " read * expires=2026-01-01\nother-token-of-some-length read * expires=2400-02-29\n");
    assert_null(svc_access_find_text(a, TOKEN, strlen(TOKEN)));
    assert_non_null(svc_access_find_text(a, "other-token-of-some-length", 26));
    svc_access_free(a);
    static const char *const bad[] = {"",
                                      "never",
                                      "2026",
                                      "2026-13-01",
                                      "2026-00-01",
                                      "2026-02-29",
                                      "2100-02-29",
                                      "2026-04-31",
                                      "2026-1-1",
                                      "2026-01-01T00:00:00",
                                      "2026-01-01T24:00:00Z",
                                      "2026-01-01T00:60:00Z",
                                      "2026-01-01T00:00:60Z",
                                      "2026-01-01 ",
                                      "1969-12-31",
                                      "9999-01-01",
                                      "2026-01-01T00:00:00z",
                                      "2026/01/01",
                                      "-026-01-01"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[200];
        (void)snprintf(text, sizeof text, TOKEN " read * expires=%s%s\n", bad[i],
                       strcmp(bad[i], "2026-01-01 ") == 0 ? "00:00:00Z" : "");
        refused(text, strcmp(bad[i], "2026-01-01 ") == 0 ? "expected TOKEN" : "expires= wants");
    }
}

/* What a reload makes of a token that somebody holds. */
static void test_again(void **state)
{
    (void)state;
    struct svc_access *a = load(TOKEN " admin *\nother-token-of-some-length read *\n");
    const struct svc_token *t = svc_access_find_text(a, TOKEN, strlen(TOKEN));
    struct svc_access *b = load("one-more-token-here write *\n" TOKEN " read two\n"),
                      *c = load("one-more-token-here write *\n");
    const struct svc_token *again = svc_access_again(b, t);
    assert_true(again != NULL && again != t);
    assert_true(svc_access_allows(again, SVC_RIGHT_READ, "two") &&
                !svc_access_allows(again, SVC_RIGHT_READ, "one"));
    assert_null(svc_access_again(c, t));
    assert_ptr_equal(svc_access_again(a, again), t);
    svc_access_free(a);
    svc_access_free(b);
    svc_access_free(c);
}

static struct svc_access_certificate certificate(const char *name, const char *der, uint64_t expires)
{
    struct svc_access_certificate c = {.named = name != NULL, .expires = expires};
    cht_sha256(der, strlen(der), c.fingerprint);
    if (name != NULL)
        cht_sha256(name, strlen(name), c.name);
    return c;
}

static void test_certificates(void **state)
{
    char text[512], hex[65], colons[97];
    (void)state;
    hex_of("the DER", 7, hex);
    for (size_t i = 0; i < 32; i++)
        (void)snprintf(colons + 3 * i, 4, "%.2s:", hex + 2 * i);
    colons[95] = 0;
    (void)snprintf(text, sizeof text,
                   "cert:someone read *\ncert:sha256:%s write a\ncert:late read * expires=2001-01-01\n", hex);
    struct svc_access *a = load(text), *again;
    assert_false(svc_access_has_secrets(a));
    struct svc_access_certificate both = certificate("someone", "the DER", UINT64_MAX),
                                  named = certificate("someone", "other DER", UINT64_MAX),
                                  nobody = certificate("nobody", "other DER", UINT64_MAX),
                                  nameless = certificate(NULL, "other DER", UINT64_MAX),
                                  late = certificate("late", "other DER", UINT64_MAX),
                                  over = certificate("someone", "the DER", 1);
    const struct svc_token *t = svc_access_find_certificate(a, &both),
                           *u = svc_access_find_certificate(a, &named);
    assert_non_null(t);
    assert_true(svc_access_allows(t, SVC_RIGHT_WRITE, "a")); /* the line for the certificate comes first */
    assert_false(svc_access_allows(t, SVC_RIGHT_READ, "b"));
    assert_non_null(u);
    assert_true(svc_access_allows(u, SVC_RIGHT_READ, "b"));
    assert_false(svc_access_allows(u, SVC_RIGHT_WRITE, "a"));
    assert_null(svc_access_find_certificate(a, &nobody));
    assert_null(svc_access_find_certificate(a, &nameless));
    assert_null(svc_access_find_certificate(a, &late));
    assert_null(svc_access_find_certificate(a, &over));
    /* What stands in the file is no token, and a token is no name. */
    assert_null(svc_access_find_text(a, "someone", 7));
    assert_null(svc_access_find_text(a, "cert:someone", 12));
    assert_null(svc_access_find_text(a, "the DER", 7));
    (void)snprintf(text, sizeof text, "cert:sha256:%s admin *\n" TOKEN " read *\ncert:" TOKEN "2 write *\n",
                   colons);
    again = load(text);
    assert_true(svc_access_has_secrets(again));
    assert_true(svc_access_has_right(svc_access_again(again, t), SVC_RIGHT_ADMIN)); /* by the certificate */
    assert_null(svc_access_again(again, u)); /* by the name, which is not there */
    struct svc_access_certificate token = certificate(TOKEN, TOKEN, UINT64_MAX);
    assert_null(svc_access_find_certificate(again, &token));
    assert_non_null(svc_access_find_text(again, TOKEN, strlen(TOKEN)));
    svc_access_free(a);
    svc_access_free(again);
    refused("cert: read *\n", "common name");
    refused("cert:sha256: read *\n", "64 hexadecimal");
    (void)snprintf(text, sizeof text, "cert:sha256:%s0 read *\n", hex);
    refused(text, "64 hexadecimal");
    (void)snprintf(text, sizeof text, "cert:sha256::%s read *\n", hex);
    refused(text, "64 hexadecimal");
    (void)snprintf(text, sizeof text, "cert:sha256:%s: read *\n", hex);
    refused(text, "64 hexadecimal");
    (void)snprintf(text, sizeof text, "cert:sha256:%s read *\ncert:sha256:%s read *\n", hex, colons);
    refused(text, "there already");
    refused("cert:a\001b read *\n", "common name");
}

/* A set of any size, replaced as a whole; a serial number is its issuer's. */
static void test_revoked(void **state)
{
    struct svc_revoked *s = NULL;
    struct cht_err err = {0};
    (void)state;
    cht_alloc_fail_at(1, false);
    assert_int_equal(svc_revoked_new(&s, &err), CHT_NO_MEMORY);
    cht_alloc_fail_at(0, false);
    assert_int_equal(svc_revoked_new(&s, &err), CHT_OK);
    for (unsigned n = 0; n < 70; n++) {
        struct svc_revoked_id *list = cht_malloc((n + 1) * sizeof *list);
        for (unsigned i = 0; i < n; i++)
            list[i] = svc_revoked_id("one", 3, &i, sizeof i);
        svc_revoked_replace(s, list, n);
        for (unsigned i = 0; i < 80; i++) {
            struct svc_revoked_id mine = svc_revoked_id("one", 3, &i, sizeof i),
                                  other = svc_revoked_id("other", 5, &i, sizeof i);
            assert_int_equal(svc_revoked_has(s, &mine), i < n);
            assert_false(svc_revoked_has(s, &other));
        }
    }
    unsigned first = 0;
    struct svc_access_certificate c = {
        .expires = UINT64_MAX, .revoked = s, .id = svc_revoked_id("one", 3, &first, sizeof first)};
    assert_true(svc_access_certificate_over(&c));
    svc_revoked_replace(s, NULL, 0);
    assert_false(svc_access_certificate_over(&c));
    svc_revoked_free(s);
    svc_revoked_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),       cmocka_unit_test(test_sha256_lengths),
        cmocka_unit_test(test_lines),        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hashes),       cmocka_unit_test(test_header),
        cmocka_unit_test(test_expiry),       cmocka_unit_test(test_again),
        cmocka_unit_test(test_certificates), cmocka_unit_test(test_revoked)};
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    (void)close(fd);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
