/* peers: how many connections an address has, and descriptors that linger after their answer. */
#pragma once

#include "http/server.h"

/* Counts c; false if its address has too many already, or if no memory is left to count it. The acceptor's thread. */
bool http_peers_count(struct http_server *s, struct http_conn *c);
/* Takes back what http_peers_count did; nothing if c was not counted. Any thread. */
void http_peers_uncount(struct http_server *s, struct http_conn *c);
/* The acceptor reads and drops what still comes in on this descriptor, which it owns from here. Any thread. */
void http_peers_linger(struct http_server *s, int fd);
