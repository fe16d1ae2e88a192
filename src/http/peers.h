/* peers: how many connections an address has, and descriptors that linger after their answer. */
#pragma once

#include "http/server.h"

/* Counts c; false if its address has too many already, or if no memory is left to count it. The acceptor's thread. */
bool peers_count(struct server *s, struct conn *c);
/* Takes back what peers_count did; nothing if c was not counted. Any thread. */
void peers_uncount(struct server *s, struct conn *c);
/* The acceptor reads and drops what still comes in on this descriptor, which it owns from here. Any thread. */
void peers_linger(struct server *s, int fd);
