/* payload: the binary payloads of statistics in every mode's decoder: what it shows is JSON, in any room. The first byte chooses the mode,
 * the second and third how much room there is. */
#include "fuzz/fuzz.h"

#include <jansson.h>

#include "reduce/mode.h"
#include "reduce/payload.h"

#define ROOM (1u << 20)

static const struct reduce_mode *choose(unsigned i)
{
    unsigned n = 0;
    while (reduce_mode_at(n) != NULL)
        n++;
    return reduce_mode_at(i % n);
}

static void is_json(const char *members, size_t n)
{
    char *text = malloc(n + 2);
    FUZZ_CHECK(text != NULL);
    text[0] = '{';
    memcpy(text + 1, members, n);
    text[n + 1] = '}';
    json_t *o =
        json_loadb(text, n + 2, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, NULL); /* integers of any length */
    FUZZ_CHECK(json_is_object(o));
    FUZZ_CHECK(memchr(members, '\n', n) == NULL);
    json_decref(o);
    free(text);
}

/* By the first bytes alone as by all of them. */
static void heads(const struct reduce_decoder *d, const uint8_t *p, size_t n)
{
    struct reduce_head all = {.count = 0}, some = {.count = 0};
    bool ok = d->head(p, n, n, &all);
    if (n > REDUCE_PAYLOAD_HEAD_MAX) {
        uint8_t *first = fuzz_exact(p, REDUCE_PAYLOAD_HEAD_MAX);
        FUZZ_CHECK(d->head(first, REDUCE_PAYLOAD_HEAD_MAX, n, &some) == ok);
        FUZZ_CHECK(!ok ||
                   (some.count == all.count && some.offset == all.offset && some.record == all.record));
        free(first);
    }
    FUZZ_CHECK(!ok || all.text_len <= sizeof all.text);
    FUZZ_CHECK(!ok || all.count == 0 || all.offset + all.count * all.record <= n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static char out[ROOM];
    struct fuzz_in in = {data, n};
    const struct reduce_mode *m = choose(fuzz_u8(&in));
    size_t room = (size_t)fuzz_u8(&in) << 8 | fuzz_u8(&in);
    uint8_t *p = fuzz_exact(in.p, in.n);
    if (m->decoder != NULL) {
        if (m->decoder->head != NULL)
            heads(m->decoder, p, in.n);
        size_t len = reduce_decode(m->decoder, p, in.n, out, ROOM);
        if (len > 0 && len != SIZE_MAX)
            is_json(out, len);
        char *exact = malloc(room + 1);
        FUZZ_CHECK(exact != NULL);
        size_t again = reduce_decode(m->decoder, p, in.n, exact, room);
        FUZZ_CHECK(again == SIZE_MAX || again <= room);
        FUZZ_CHECK(again == SIZE_MAX || (again == len && memcmp(exact, out, len) == 0));
        free(exact);
    }
    free(p);
    return 0;
}
