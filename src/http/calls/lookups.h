/* lookups: what a decoder feels: predictions, and the lists of best followers that it reads itself, found or not, by order. Any thread. */
#pragma once

#include "cheetah/store.h"
#include "lm/counts.h"
#include "lm/names.h"
#include "service/out.h"

#include <stdatomic.h>

/* One kind of look-up; zero-initialise. An order that has never found anything is not one of the models here: it has no misses. */
struct http_lookups_kind {
    _Atomic uint64_t hits[LM_ORDER_MAX + 1], misses[LM_ORDER_MAX + 1];
    atomic_uint highest; /* order with a hit */
};
struct http_lookups {
    struct http_lookups_kind predictions, followers;
};

/* A prediction: the orders down to the one that answered (0: none) have missed. asked: the highest that the question has tokens for. */
void http_lookups_predicted(struct http_lookups *l, unsigned asked, unsigned answered);
/* The highest order that a question of n tokens can be answered by; max_order 0: any. */
unsigned http_lookups_asked(size_t n, uint64_t max_order);
/* A point read of this pair; others than topk:<order>: are not counted. */
void http_lookups_read(struct http_lookups *l, struct cht_str pair, bool found);
/* For /metrics. */
void http_lookups_print(const struct http_lookups *l, struct svc_out *o);
