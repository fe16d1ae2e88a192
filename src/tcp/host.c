/* host: see host.h; and which function does which command. A session knows it from its host, so that what it runs may run sessions itself. */
#include "tcp/host.h"

#include "tcp/detached.h"
#include "tcp/model.h"
#include "tcp/predict.h"

#include "base/alloc.h"
#include "lm/engine.h"

/* What is done by a job; all others are done at once, or are operations. */
static void (*const jobs[LINE_VERBS])(struct line_session *s) = {
    [LINE_PAIR_SCAN] = line_session_page,
    [LINE_PAIR_REDUCE] = line_session_page,
    [LINE_PAIR_SUMMARY] = line_session_summary,
    [LINE_PAIR_SET_HIDDEN] = line_session_hide,
    [LINE_PAIR_ADD] = line_session_add,
    [LINE_PAIR_COUNTS_ADD] = line_session_add,
    [LINE_PAIR_PUT_BATCH] = line_session_put_batch,
    [LINE_PAIR_PURGE] = line_session_purge,
    [LINE_DEL] = line_session_del,
    [LINE_PREDICT_SET] = line_session_predict,
    [LINE_PREDICT_QUERY] = line_session_predict,
    [LINE_PREDICT_TRAIN] = line_session_predict,
    [LINE_PREDICT_CTX] = line_session_predict,
    [LINE_PREDICT_INHERIT] = line_session_predict,
    [LINE_PREDICT_BACKEND] = line_session_predict,
    [LINE_PREDICT_BENCH] = line_session_predict,
    [LINE_PREDICT_INHERIT_BATCH] = line_session_predict,
    [LINE_PREDICT_INHERIT_ASYNC] = line_session_detached_old,
    [LINE_PREDICT_INHERIT_STATUS] = line_session_detached_old,
    [LINE_PREDICT_INHERIT_FETCH] = line_session_detached_old,
    [LINE_PAIR_REDUCE_ASYNC] = line_session_detached_old,
    [LINE_PAIR_REDUCE_STATUS] = line_session_detached_old,
    [LINE_PAIR_REDUCE_FETCH] = line_session_detached_old,
    [LINE_NGRAMS] = line_session_model,
    [LINE_PREDICT] = line_session_model,
    [LINE_SCORE] = line_session_model,
    [LINE_BATCH] = line_session_batch,
    [LINE_JOB] = line_session_detached,
    [LINE_FILE_CHECKPOINT] = line_session_checkpoint,
    [LINE_SYSTEM_STATS] = line_session_stats,
    [LINE_LOG_FLUSH] = line_session_log,
    [LINE_DATABASE] = line_session_database,
    [LINE_RESET_DB] = line_session_reset,
    [LINE_DB_CREATE] = line_session_create,
    [LINE_DB_CONFIG] = line_session_configure,
    [LINE_DB_LIST] = line_session_list,
};

enum cht_rc line_host_init(struct line_session_host *host, struct cht_err *err)
{
    struct line_host *h = cht_calloc(1, sizeof *h);
    if (h == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for what sessions share");
    enum cht_rc rc = cht_mutex_init(&h->mu, err);
    if (rc != CHT_OK) {
        cht_free(h);
        return rc;
    }
    if (host->lm == NULL) {
        rc = lm_engine_new(&h->lm, err);
        if (rc != CHT_OK) {
            cht_mutex_fini(&h->mu);
            cht_free(h);
            return rc;
        }
        host->lm = h->lm;
    }
    cht_os_used(&h->used);
    h->before = h->used;
    host->shared = h;
    host->jobs = jobs;
    return CHT_OK;
}

void line_host_fini(struct line_session_host *host)
{
    struct line_host *h = host->shared;
    if (h == NULL)
        return;
    line_detached_forget(host, NULL);
    lm_engine_free(h->lm);
    cht_mutex_fini(&h->mu);
    cht_free(h);
    host->shared = NULL;
}
