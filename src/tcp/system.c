/* system: SYSTEM_STATS, LOG_FLUSH and FILE_CHECKPOINT: the program rather than what it stores.
 *
 *   SYSTEM_STATS                                  SUCCESS,command=SYSTEM_STATS,timestamp=...,logical_cores=2,gomaxprocs=2,...
 *   LOG_FLUSH [n]                                 SUCCESS,count=0              lines of the log go to stderr, none is kept here
 *   FILE_CHECKPOINT [IDLE=5s] [DROP_CACHE] [CLOSE_HANDLES]    SUCCESS,file_checkpoint_flushed=N      shards that had something to write
 *
 * The names in SYSTEM_STATS are those that today's client looks for: gomaxprocs are cores, goroutines are threads; there is no cache of
 * payloads beside the pages, so its figures are 0. Percentages and rates are since the last time somebody asked, or since the start.
 */
#include "tcp/host.h"

#include "tcp/answer.h"
#include "tcp/words.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "service/log.h"

#include <inttypes.h>
#include <string.h>

#define APART_NS UINT64_C(100000000) /* two looks that are compared */

/* Now, and what it is compared with. */
static void look(struct line_host *h, struct cht_os_usage *now, struct cht_os_usage *before)
{
    cht_os_used(now);
    cht_mutex_lock(&h->mu);
    if (now->at_ns - h->used.at_ns >= APART_NS)
        h->before = h->used;
    h->used = *now;
    *before = h->before;
    cht_mutex_unlock(&h->mu);
}

static void put_percent(struct svc_out *o, const char *name, uint64_t part, uint64_t of)
{
    if (of > 0)
        svc_out_format(o, ",%s_pct=%.2f,%s_supported=1", name, 100.0 * (double)part / (double)of, name);
    else
        svc_out_format(o, ",%s_pct=NA,%s_supported=0", name, name);
}

static void put_io(struct svc_out *o, const struct cht_os_usage *now, const struct cht_os_usage *before)
{
    double seconds = (double)(now->at_ns - before->at_ns) / 1e9;
    svc_out_format(o, ",io_supported=%d,io_read_bytes=%" PRIu64 ",io_write_bytes=%" PRIu64, now->io,
                   now->read_bytes, now->write_bytes);
    if (now->io && seconds > 0)
        svc_out_format(o, ",io_read_bytes_per_sec=%.2f,io_write_bytes_per_sec=%.2f",
                       (double)(now->read_bytes - before->read_bytes) / seconds,
                       (double)(now->write_bytes - before->write_bytes) / seconds);
    else
        svc_out_text(o, ",io_read_bytes_per_sec=NA,io_write_bytes_per_sec=NA");
}

/* "5", "5s", "1m30s", "250ms": numbers with units. */
static bool is_duration(struct cht_str v)
{
    bool digits = false;
    for (size_t i = 0; i < v.n; i++) {
        bool digit = v.p[i] >= '0' && v.p[i] <= '9';
        if (!digit && (!digits || memchr(".hmsun", v.p[i], 6) == NULL))
            return false;
        digits = digits || digit;
    }
    return digits;
}

static bool digits_only(struct cht_str v)
{
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
    }
    return v.n > 0;
}

static void refuse_word(struct line_session *s, const char *what, struct cht_str w)
{
    line_session_counted(s, s->command.verb, true);
    svc_out_text(&s->out, what);
    svc_out_bytes(&s->out, w.p, w.n);
    svc_out_text(&s->out, "\n");
}

/* NULL, or what is wrong with a word of FILE_CHECKPOINT. */
static const char *option_error(struct cht_str w)
{
    struct line_word named = {.name = w, .value = w};
    bool is_named = line_word_split(w, &named);
    if (is_named ? line_word_is(&named, "idle") : w.p[0] >= '0' && w.p[0] <= '9')
        return is_duration(named.value) ? NULL : "ERROR,invalid_idle_duration:";
    if (!is_named && (line_word_is(&named, "drop_cache") || line_word_is(&named, "close_handles")))
        return NULL;
    return "ERROR,invalid_checkpoint_option:";
}

/* False: a word is wrong, which is answered. */
static bool options(struct line_session *s)
{
    struct cht_str words = s->command.value;
    for (struct cht_str w = line_words_next(&words); w.n > 0; w = line_words_next(&words)) {
        const char *error = option_error(w);
        if (error != NULL) {
            refuse_word(s, error, w);
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_session_stats(struct line_session *s)
{
    struct cht_os_usage now, before;
    struct svc_out *o = &s->out;
    char time[25] = {0};
    unsigned cores = cht_os_cores();
    look(s->host->shared, &now, &before);
    svc_log_time(time, cht_wall_ns());
    line_session_counted(s, LINE_SYSTEM_STATS, false);
    svc_out_format(
        o, "SUCCESS,command=SYSTEM_STATS,timestamp=%.19sZ,logical_cores=%u,gomaxprocs=%u,goroutines=%u", time,
        cores, cores, now.threads);
    svc_out_format(o, ",mem_alloc_bytes=%" PRIu64 ",mem_sys_bytes=%" PRIu64, cht_os_anonymous(),
                   cht_os_memory());
    put_percent(o, "process_cpu", now.cpu_ns - before.cpu_ns, now.at_ns - before.at_ns);
    uint64_t idle = now.idle_ticks - before.idle_ticks, ticks = now.ticks - before.ticks;
    put_percent(o, "system_cpu", idle < ticks ? ticks - idle : 0, ticks);
    put_io(o, &now, &before);
    svc_out_format(o, ",recommended_workers=1:1;32:%u;256:%u;4096:%u", cores, cores, cores);
    svc_out_text(
        o,
        ",payload_cache_enabled=0,payload_cache_entries=0,payload_cache_max_entries=0,payload_cache_bytes=0,"
        "payload_cache_max_bytes=0,payload_cache_hits=0,payload_cache_misses=0,payload_cache_evictions=0,"
        "payload_cache_hit_pct=0,payload_cache_advisory_bypass_bytes=0\n");
}

void line_session_log(struct line_session *s)
{
    struct cht_str words = s->command.value, n = line_words_next(&words);
    if (n.n > 1 && n.p[0] == '-') {
        n.p++;
        n.n--;
    }
    if (n.n > 0 && !digits_only(n)) {
        line_session_error(s, LINE_LOG_FLUSH, "invalid_limit");
        return;
    }
    line_session_counted(s, LINE_LOG_FLUSH, false);
    svc_out_text(&s->out, "SUCCESS,count=0\n");
}

void line_session_checkpoint(struct line_session *s)
{
    struct cht_store_stats before;
    struct cht_err err = {0};
    if (!options(s))
        return;
    enum cht_rc rc = cht_store_stats(s->db->store, &before, &err);
    if (rc == CHT_OK)
        rc = cht_store_checkpoint(s->db->store, &err);
    if (rc != CHT_OK) {
        line_session_failed(s, rc);
        return;
    }
    line_session_counted(s, LINE_FILE_CHECKPOINT, false);
    svc_out_format(&s->out, "SUCCESS,file_checkpoint_flushed=%u\n", before.log_live > 0 ? before.shards : 0);
}
