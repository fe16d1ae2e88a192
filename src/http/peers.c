/* peers: see peers.h. */
#include "http/peers.h"

#include "base/alloc.h"

#include <string.h>

/* ---- addresses ------------------------------------------------------------------------------------------------------ */

static struct http_address **address_slot(struct http_server *s, const uint8_t key[16])
{
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */
    for (int i = 0; i < 16; i++)
        h = (h ^ key[i]) * UINT64_C(1099511628211);
    struct http_address **at = &s->addresses[h % HTTP_ADDRESS_SLOTS];
    while (*at != NULL && memcmp((*at)->key, key, 16) != 0)
        at = &(*at)->next;
    return at;
}

bool http_peers_count(struct http_server *s, struct http_conn *c)
{
    uint64_t max = s->conf->max_connections_per_address;
    bool local =
        cht_net_peer_is_local(&c->peer); /* by default not counted: a proxy, or programs of this machine */
    if (max == 0 || (local && s->address_limit_is_default))
        return true;
    cht_mutex_lock(&s->addr_mu);
    struct http_address **at = address_slot(s, c->peer.key);
    if (*at == NULL) {
        *at = cht_calloc(1, sizeof **at);
        if (*at != NULL)
            memcpy((*at)->key, c->peer.key, 16);
    }
    c->counted = *at != NULL;
    bool ok = c->counted && ++(*at)->count <= max;
    cht_mutex_unlock(&s->addr_mu);
    return ok;
}

void http_peers_uncount(struct http_server *s, struct http_conn *c)
{
    if (!c->counted)
        return;
    cht_mutex_lock(&s->addr_mu);
    struct http_address **at = address_slot(s, c->peer.key), *a = *at;
    if (a != NULL && --a->count == 0) {
        *at = a->next;
        cht_free(a);
    }
    cht_mutex_unlock(&s->addr_mu);
}

void http_peers_linger(struct http_server *s, int fd)
{
    cht_mutex_lock(&s->addr_mu);
    bool room = s->linger_n < HTTP_LINGER_SLOTS && !atomic_load_explicit(&s->stop, memory_order_relaxed);
    if (room)
        s->linger[s->linger_n++] = fd;
    cht_mutex_unlock(&s->addr_mu);
    if (room)
        cht_bell_ring(s->acceptor_bell);
    else
        cht_net_close(fd);
}
