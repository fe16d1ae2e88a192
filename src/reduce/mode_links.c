/* mode_links: links payloads (links.h) as `"links":[{"pair":base64,"weight":w},...]`, best first. */
#include "base/b64.h"
#include "reduce/links.h"
#include "reduce/modes_int.h"
#include "reduce/text.h"

static size_t put_link(const struct reduce_link *link, bool first, char *out)
{
    size_t n = first ? 0 : reduce_put_str(out, ",");
    n += reduce_put_str(out + n, "{\"pair\":\"");
    n += cht_b64_encode(out + n, link->name.p, link->name.n);
    n += reduce_put_str(out + n, "\",\"weight\":");
    n += reduce_links_put_weight(out + n, link->weight);
    out[n++] = '}';
    return n;
}

static size_t whole(const uint8_t *p, size_t n, char *out, size_t room)
{
    static const char head[] = "\"links\":[";
    struct reduce_link link;
    size_t at = 0, used = sizeof head - 1;
    uint32_t left = 0;
    bool malformed;
    if (room < sizeof head + 1)
        return SIZE_MAX;
    memcpy(out, head, used);
    while (reduce_links_next(p, n, &at, &left, &link, &malformed)) {
        if (!(link.weight >= -3.4028235e38f && link.weight <= 3.4028235e38f))
            return 0; /* no number that JSON has */
        if (room - used < cht_b64_encoded(link.name.n) + 64)
            return SIZE_MAX;
        used += put_link(&link, used == sizeof head - 1, out + used);
    }
    if (malformed)
        return 0;
    out[used++] = ']';
    return used;
}

static const struct reduce_decoder decoder = {.whole = whole};
static const char *const names[] = {"links", NULL};
const struct reduce_mode reduce_mode_links = {.names = names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
