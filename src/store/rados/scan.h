/* scan: ordered scans, sweeps and children on RADOS: see stream.h for what is read. */
#pragma once

#include "store/rados/rdb.h"

enum cht_rc cht_rscan_open(struct cht_store *s, const struct cht_scan_config *cfg, struct cht_scan **out,
                           struct cht_err *err);
enum cht_rc cht_rscan_next(struct cht_scan *scan, bool wait, struct cht_entry *out, size_t max, size_t *count,
                           struct cht_err *err);
bool cht_rscan_exhausted(const struct cht_scan *scan);
void cht_rscan_cancel(struct cht_scan *scan);
void cht_rscan_close(struct cht_scan *scan);
size_t cht_rscan_memory(const struct cht_scan *scan);

/* sweep.c */
enum cht_rc cht_rscan_sweep(struct cht_store *s, const struct cht_sweep_config *cfg, struct cht_err *err);
/* levels.c */
enum cht_rc cht_rscan_children(struct cht_store *s, const struct cht_children_config *cfg,
                               struct cht_err *err);
