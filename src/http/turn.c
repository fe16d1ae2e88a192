/* turn: see turn.h. */
#include "http/turn.h"

void http_turn_over(struct http_worker *w, struct http_conn *c)
{
    c->gate.done++;
    if (c->gate.fin && http_gate_answered(&c->gate))
        c->gate.again = w->again = true;
}

bool http_turn_refused(const struct http_request *r)
{
    if (r->conn == NULL)
        return false;
    const struct http_gate *g = &r->conn->gate;
    return g->bad != CHT_OK && g->done + 1 == g->begun;
}

bool http_turn_last(const struct http_request *r)
{
    if (r->conn == NULL)
        return false;
    const struct http_gate *g = &r->conn->gate;
    return g->eof && g->done + 1 >= g->ended;
}
