/* links: the run (links.h). */
#include "reduce/links_int.h"

#include "base/alloc.h"
#include "os/io.h"
#include "reduce/move.h"

#define BLOCK_ROWS 4096u /* results of that many contexts a commit, if the other side is in memory */

/* What may be held at once. */
struct plan {
    uint64_t rows, terms, text;    /* of the left side, a block */
    uint64_t rrows, rterms, rtext; /* of the right side */
};

static void say(const struct reduce_links *l, const char *phase, uint64_t done, uint64_t total)
{
    if (l->cfg->progress != NULL) {
        atomic_store_explicit(&l->cfg->progress->done, done, memory_order_relaxed);
        atomic_store_explicit(&l->cfg->progress->total, total, memory_order_relaxed);
    }
    if (l->cfg->say != NULL)
        l->cfg->say(l->cfg->say_ctx, phase, done, total);
}

static uint64_t part(uint64_t whole, uint64_t have, uint64_t need)
{
    return need <= have ? whole : (uint64_t)((double)whole * ((double)have / (double)need));
}

/* A half of the memory for the right side, an eighth for rows of the left, an eighth for their results; the rest for tables and the threads'
 * own. The most that results can need is counted on. */
static struct plan make_plan(const struct reduce_links *l)
{
    const struct reduce_links_extent *a = &l->left, *b = &l->right;
    uint64_t used = atomic_load_explicit(&l->run.used, memory_order_relaxed);
    uint64_t max = l->params.memory_max > used ? l->params.memory_max - used : 0;
    uint64_t need = b->rows * (64 + 8 * (uint64_t)l->threads) + b->terms * (20 + 48) + b->text;
    uint64_t each = (uint64_t)l->cfg->k * (6u + b->longest_name) + 64;
    struct plan p = {.rrows = part(b->rows, max / 2, need) + 1,
                     .rterms = part(b->terms, max / 2, need),
                     .rtext = part(b->text, max / 2, need)};
    p.rows = max / 8 / each + 1;
    bool remote = cht_store_remote(l->run.store);
    if ((remote || need <= max / 2) && p.rows > BLOCK_ROWS)
        p.rows = BLOCK_ROWS;
    if (remote && p.rows > REDUCE_REMOTE_BYTES / each + 1)
        p.rows = REDUCE_REMOTE_BYTES / each + 1;
    p.rows = p.rows < a->rows ? p.rows : a->rows + 1;
    need = p.rows * 24 + (a->rows > 0 ? a->terms * p.rows / a->rows + a->longest_row : 0) * 12;
    p.terms = part(a->terms, max / 8, need);
    p.text = p.rows * a->longest_name < a->text ? p.rows * a->longest_name : a->text;
    return p;
}

/* The right side and what is made of it. */
struct right {
    struct reduce_links_cursor cursor;
    struct reduce_links_rows rows;
    struct reduce_links_index index;
    bool loaded, whole; /* whole: all of it is in memory */
};

static enum cht_rc load_right(struct reduce_links *l, struct right *r, const struct plan *p,
                              struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    reduce_links_index_free(l, &r->index);
    if (r->rows.term_cap != p->rterms || r->rows.cap != p->rrows)
        rc = reduce_links_rows_room(l, &r->rows, p->rrows, p->rterms, p->rtext, err);
    if (rc == CHT_OK)
        rc = reduce_links_fill(l, &r->rows, &r->cursor, UINT32_MAX, err);
    if (rc == CHT_OK)
        rc = reduce_links_index_make(l, &r->index, &r->rows, err);
    return rc;
}

/* The rows of the left side against all of the right. */
static enum cht_rc compare(struct reduce_links *l, const struct reduce_links_rows *left, struct right *r,
                           const struct plan *p, struct reduce_links_found *f, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (r->whole)
        return reduce_links_all(l, left, &r->rows, &r->index, f, err);
    rc = reduce_links_open(&r->cursor, l, l->to, (struct cht_str){0}, err);
    bool first = true;
    while (rc == CHT_OK && (first || !r->cursor.end)) {
        rc = load_right(l, r, p, err);
        r->whole = rc == CHT_OK && first && r->cursor.end;
        if (rc == CHT_OK)
            rc = reduce_links_all(l, left, &r->rows, &r->index, f, err);
        first = false;
    }
    reduce_links_close(&r->cursor);
    return rc;
}

static enum cht_rc run_blocks(struct reduce_links *l, struct cht_str after, struct cht_err *err)
{
    const struct plan p = make_plan(l);
    struct reduce_links_cursor c = {0};
    struct reduce_links_rows left = {0};
    struct reduce_links_found found = {0};
    struct right right = {0};
    enum cht_rc rc = reduce_links_open(&c, l, l->cfg->prefix, after, err);
    while (rc == CHT_OK && !c.end) {
        if (left.cap != p.rows || left.term_cap != p.terms)
            rc = reduce_links_rows_room(l, &left, p.rows, p.terms, p.text, err);
        if (rc == CHT_OK)
            rc = reduce_links_fill(l, &left, &c, (uint32_t)(p.rows < UINT32_MAX ? p.rows : UINT32_MAX), err);
        if (rc == CHT_OK)
            rc = reduce_links_found_room(l, &found, left.n, err);
        if (rc == CHT_OK)
            rc = compare(l, &left, &right, &p, &found, err);
        if (rc == CHT_OK)
            rc = reduce_links_keep(l, &left, &found, err);
        if (rc == CHT_OK)
            say(l, "links", l->result->contexts, l->left.rows);
    }
    reduce_links_found_free(l, &found);
    reduce_links_rows_free(l, &left);
    reduce_links_rows_free(l, &right.rows);
    reduce_links_index_free(l, &right.index);
    reduce_links_close(&c);
    return rc;
}

static enum cht_rc check(const struct reduce_links_config *cfg, struct cht_err *err)
{
    if (cfg->k < 1 || cfg->k > REDUCE_LINKS_K_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "k is %u; 1 to %u are allowed", cfg->k,
                        REDUCE_LINKS_K_MAX);
    if (!(cfg->min >= 0.0 && cfg->min <= 1.0))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "min is from 0 to 1");
    if (cfg->prefix.n > CHT_NAME_MAX - REDUCE_LINKS_NAME_EXTRA)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "the prefix has %zu bytes; at most %u leave room for links", cfg->prefix.n,
                        CHT_NAME_MAX - REDUCE_LINKS_NAME_EXTRA);
    return CHT_OK;
}

static enum cht_rc run(struct reduce_links *l, struct cht_err *err)
{
    struct cht_buf after = {0};
    uint64_t pairs = 0;
    enum cht_rc rc = cht_store_count(l->run.store, l->cfg->prefix, &pairs, err);
    say(l, "survey", 0, pairs);
    if (rc == CHT_OK)
        rc = reduce_links_survey(l, err);
    if (rc == CHT_OK)
        rc = reduce_links_free_names(l, err);
    if (rc == CHT_OK)
        rc = reduce_links_resume(l, &after, err);
    say(l, "links", l->result->resumed, l->left.rows);
    if (rc == CHT_OK && !l->done)
        rc = run_blocks(l, (struct cht_str){after.data, after.len}, err);
    reduce_tokens_free(&l->run, &l->tokens);
    say(l, "switch", l->left.rows, l->left.rows);
    if (rc == CHT_OK && !l->done)
        rc = reduce_links_switch(l, err);
    cht_buf_free(&after);
    return rc;
}

/* ---------------------------------------------------------------------------------------------------------------------- */

enum cht_rc reduce_links_run(struct cht_store *s, const struct reduce_links_config *cfg,
                             struct reduce_links_result *result, struct cht_err *err)
{
    struct reduce_links l = {.cfg = cfg, .result = result, .to = cfg->has_to ? cfg->to : cfg->prefix};
    *result = (struct reduce_links_result){0};
    l.run.store = s;
    l.run.p = &l.params;
    l.params =
        (struct reduce_params){.memory_max = cfg->memory_max > 0 ? cfg->memory_max : REDUCE_MEMORY_DEFAULT,
                               .book = cfg->book,
                               .unbook = cfg->unbook,
                               .book_ctx = cfg->book_ctx};
    l.threads = cfg->threads > 0 ? cfg->threads : cht_os_cores();
    l.threads = l.threads < REDUCE_LINKS_THREADS_MAX ? l.threads : REDUCE_LINKS_THREADS_MAX;
    enum cht_rc rc = check(cfg, err);
    if (rc == CHT_OK)
        rc = reduce_lock(s, REDUCE_LINKS_LOCK, cfg->cancel, err);
    if (rc != CHT_OK)
        return rc;
    rc = run(&l, err);
    cht_store_unlock(s, REDUCE_LINKS_LOCK);
    return rc;
}
