/* export: the file that import reads: any bytes; and what is an export but for its end line becomes a whole one with the right one. */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "tools/dump.h"

/* Whether it is one as far as it goes. */
static bool verify(const void *data, size_t n, struct tool_dump_info *info)
{
    struct cht_err err = {0};
    const char *path = fuzz_file(data, n);
    enum cht_rc rc = CHT_OK;
    for (int partial = 0; partial < 2; partial++) {
        rc = tool_dump_verify(path, partial != 0, info, NULL, NULL, &err);
        FUZZ_CHECK(rc == CHT_OK || rc == CHT_CORRUPT || rc == CHT_VERSION);
        FUZZ_CHECK(info->end_at <= n && info->size <= n && info->pairs_at <= n && info->values_at <= n);
        FUZZ_CHECK(rc != CHT_OK || info->complete || partial != 0);
        FUZZ_CHECK(rc != CHT_OK || info->last_key <= info->highest_key);
    }
    return rc == CHT_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct tool_dump_info info;
    char end[200];
    bool good = verify(data, n, &info);
    size_t at = info.end_at;
    if (!good || at == 0)
        return 0;
    int len = snprintf(end, sizeof end,
                       "{\"end\":{\"pairs\":%llu,\"values\":%llu,\"last_key\":%llu,\"crc32c\":\"%08x\"}}\n",
                       (unsigned long long)info.pairs, (unsigned long long)info.values,
                       (unsigned long long)info.last_key, cht_crc32c(0, data, at));
    uint8_t *whole = malloc(at + (size_t)len);
    FUZZ_CHECK(whole != NULL);
    memcpy(whole, data, at);
    memcpy(whole + at, end, (size_t)len);
    FUZZ_CHECK(verify(whole, at + (size_t)len, &info) && info.complete);
    struct cht_err err = {0};
    FUZZ_CHECK(tool_dump_verify(fuzz_file(whole, at + (size_t)len), false, &info, NULL, NULL, &err) ==
               CHT_OK);
    free(whole);
    return 0;
}
