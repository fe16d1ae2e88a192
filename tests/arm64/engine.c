/* engine: for 64-bit ARM: the checksum by its instructions against the one by table; then the store: opens the data directories given, counts, reads and
 * writes, closes, checks. Prints "instruction" or "table", and what it found.
 *
 *   engine DIR,DIR DATABASE PREFIX
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "cheetah/store.h"

#define BYTES 9000u

static int complain(const char *what, const struct cht_err *err)
{
    (void)fprintf(stderr, "%s: %s\n", what, err->msg);
    return 1;
}

static int checksums(void)
{
    static uint8_t b[BYTES];
    uint64_t seed = 88172645463325252u;
    for (size_t i = 0; i < sizeof b; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        b[i] = (uint8_t)seed;
    }
    if (cht_crc32c(0, "123456789", 9) != 0xE3069283u)
        return 1;
    for (size_t n = 0; n < sizeof b - 16; n += n < 400 ? 1 : 97) {
        for (size_t at = 0; at < 9; at++) {
            if (cht_crc32c((uint32_t)n, b + at, n) != cht_crc32c_table((uint32_t)n, b + at, n)) {
                (void)fprintf(stderr, "the checksum of %zu bytes at %zu is wrong\n", n, at);
                return 1;
            }
        }
    }
    return 0;
}

static int put(struct cht_store *s, unsigned i)
{
    char name[32], value[5000];
    int n = snprintf(name, sizeof name, "arm64/%05u", i);
    size_t size = 1 + i * 37 % sizeof value;
    memset(value, (int)('a' + i % 26), size);
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT,
                        .name = {(const uint8_t *)name, (size_t)n},
                        .value = {(const uint8_t *)value, size}};
    struct cht_commit c = {.ops = &op, .count = 1};
    return cht_store_commit(s, &c) == CHT_OK ? 0 : complain("commit", &c.err);
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    (void)fprintf(stderr, "%s: %s\n", where, what);
}

int main(int argc, char **argv)
{
    const char *dirs[8];
    size_t n = 0;
    if (argc != 4 || checksums() != 0)
        return 1;
    for (char *p = strtok(argv[1], ","); p != NULL && n < 8; p = strtok(NULL, ","))
        dirs[n++] = p;
    const struct cht_env_config cfg = {.dirs = dirs, .dir_count = n, .durability = CHT_DURABLE_OS};
    struct cht_err err = {0};
    struct cht_env *env;
    struct cht_store *s;
    uint64_t before, after, findings;
    const struct cht_str prefix = {(const uint8_t *)argv[3], strlen(argv[3])},
                         mine = {(const uint8_t *)"arm64/", 6};
    if (cht_env_open(&cfg, &env, &err) != CHT_OK || cht_env_get(env, argv[2], &s, &err) != CHT_OK ||
        cht_store_count(s, prefix, &before, &err) != CHT_OK)
        return complain("open", &err);
    for (unsigned i = 0; i < 500; i++) {
        if (put(s, i) != 0)
            return 1;
    }
    if (cht_store_count(s, mine, &after, &err) != CHT_OK || cht_env_close(env, &err) != CHT_OK)
        return complain("close", &err);
    if (cht_check(&cfg, NULL, finding, NULL, &findings, &err) != CHT_OK || findings > 0)
        return complain("check", &err);
    (void)printf("%s %" PRIu64 " %" PRIu64 "\n", cht_crc32c_by_instruction() ? "instruction" : "table",
                 before, after);
    return 0;
}
