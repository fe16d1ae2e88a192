/* session: see session.h. */
#include "tcp/session.h"

#include "tcp/answer.h"
#include "tcp/hidden.h"
#include "tcp/words.h"

#include "base/alloc.h"
#include "base/recycle.h"
#include "reduce/mode.h"

#include <stdio.h>
#include <string.h>

#define BATCH_OPS 4096u
#define BATCH_BYTES (2u << 20) /* of values written and read */
#define READ_IN_BATCH (256u << 10)
#define BUF_KEEP 4096u
#define TURN 8192u /* commands of one run: then others have theirs */
#define KEEP_BYTES (64u << 10)
#define REFUSED_MAX 3u

/* What is known of an operation beside itself. */
struct line_session_op {
    enum line_verb verb;
};

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static void answer_text(struct line_session *s, enum line_verb c, const char *text)
{
    line_session_counted(s, c, false);
    svc_out_text(&s->out, text);
}

static void answer_key(struct line_session *s, enum line_verb c, uint64_t key, const char *tail)
{
    line_session_counted(s, c, false);
    svc_out_text(&s->out, "SUCCESS,key=");
    svc_out_u64(&s->out, key);
    svc_out_text(&s->out, tail);
}

/* One line an answer: a value that has a newline in it cannot be one. */
static void answer_value(struct line_session *s, const struct cht_buf *v)
{
    if (memchr(v->data, '\n', v->len) != NULL) {
        line_session_error(s, LINE_READ, "value_contains_newline (PAIR_REDUCE payloads shows it in base64)");
        return;
    }
    line_session_counted(s, LINE_READ, false);
    svc_out_text(&s->out, "SUCCESS,size=");
    svc_out_u64(&s->out, v->len);
    svc_out_text(&s->out, ",value=");
    if (svc_out_room(&s->out, v->len + 1)) {
        svc_out_bytes(&s->out, v->data, v->len);
        svc_out_text(&s->out, "\n");
    }
}

/* What a read left with the store is not needed any more. */
static void forget_read(struct line_session *s)
{
    if (s->wait != NULL && s->wait->held != NULL)
        cht_store_forget(s->db->store, s->wait);
}

/* False: it is to be asked again once s->wait was called. */
static bool point_read(struct line_session *s, enum line_verb c, uint64_t key, struct cht_str name)
{
    uint32_t size;
    struct cht_err err = {0};
    enum cht_rc rc = c == LINE_READ ? cht_store_get_soon(s->db->store, key, &s->value, &size, s->wait, &err)
                                    : cht_store_pair_soon(s->db->store, name, &key, s->wait, &err);
    if (rc == CHT_PENDING)
        return false;
    forget_read(s);
    if (rc == CHT_DATABASE_DROPPED)
        svc_dbs_gone(s->db);
    if (rc != CHT_OK)
        line_session_error(s, c, line_error_word(rc));
    else if (c == LINE_PAIR_GET)
        answer_key(s, c, key, "\n");
    else
        answer_value(s, &s->value);
    return true;
}

/* False: not yet, as point_read. */
static bool answer_op(struct line_session *s, size_t i)
{
    const struct cht_op *op = &s->ops[i];
    enum line_verb c = s->notes[i].verb;
    enum cht_rc rc = s->commit.rc != CHT_OK ? s->commit.rc : op->rc;
    if (c == LINE_NONE) /* beside another one */
        return true;
    if (s->commit.rc != CHT_OK && (c == LINE_READ || c == LINE_PAIR_GET)) { /* reading may still work */
        return point_read(s, c, op->key, op->name);
    }
    if (rc == CHT_DATABASE_DROPPED)
        svc_dbs_gone(s->db);
    if (rc != CHT_OK) {
        line_session_error(s, c, line_error_word(rc));
        return true;
    }
    switch (c) {
    case LINE_INSERT:
    case LINE_PAIR_GET:
        answer_key(s, c, op->key, "\n");
        break;
    case LINE_EDIT:
        answer_key(s, c, op->key, "_updated\n");
        break;
    case LINE_DELETE:
        answer_key(s, c, op->key, "_deleted\n");
        break;
    case LINE_READ:
        answer_value(s, op->buf);
        break;
    default:
        answer_text(s, c, c == LINE_PAIR_SET ? "SUCCESS,pair_set\n" : "SUCCESS,pair_deleted\n");
        break;
    }
    return true;
}

/* ---- access ------------------------------------------------------------------------------------------------------- */

/* By the token of AUTH, else by the certificate of the connection. */
static const struct svc_token *look_up(const struct line_session *s)
{
    if (s->seen == NULL)
        return NULL;
    if (s->secret[0] != 0)
        return svc_access_find_text(s->seen, s->secret, strlen(s->secret));
    return s->certificate != NULL ? svc_access_find_certificate(s->seen, s->certificate) : NULL;
}

static bool has_expired(const struct line_session *s)
{
    return svc_access_expired(s->token) ||
           (s->secret[0] == 0 && s->certificate != NULL && svc_access_certificate_over(s->certificate));
}

/* The table may have been replaced since: the token is looked up in the new one. */
static bool needs_token(struct line_session *s)
{
    const struct svc_access *a = s->host->access != NULL ? s->host->access(s->host->ctx) : NULL;
    if (a == s->seen) {
        s->token = s->token != NULL && !has_expired(s) ? s->token : NULL;
        return a != NULL;
    }
    s->seen = a;
    s->token = look_up(s);
    return a != NULL;
}

static void authenticate(struct line_session *s)
{
    struct cht_str t = s->command.name;
    bool needed = needs_token(s);
    s->secret[0] = 0;
    if (t.n < sizeof s->secret && memchr(t.p, 0, t.n) == NULL) {
        memcpy(s->secret, t.p, t.n);
        s->secret[t.n] = 0;
    }
    s->token = needed && s->secret[0] != 0 ? look_up(s) : NULL;
    if (!needed || s->token != NULL) {
        s->refused = 0;
        answer_text(s, LINE_AUTH, "SUCCESS,authenticated\n");
        return;
    }
    s->secret[0] = 0;
    s->token = look_up(s); /* what the certificate allows is not lost */
    s->closing = ++s->refused >= REFUSED_MAX;
    line_session_error(s, LINE_AUTH, "unauthorized");
}

/* DURABILITY [interval|sync]: of what this connection writes from now on. */
static void set_durability(struct line_session *s)
{
    struct cht_str words = s->command.value;
    const struct line_word how = {.name = line_words_next(&words)};
    bool sync = line_word_is(&how, "sync"), interval = line_word_is(&how, "interval");
    if (how.name.n == 0 || (!sync && !interval) || line_words_next(&words).n > 0) {
        line_session_error(s, LINE_DURABILITY, "invalid_durability (interval or sync)");
        return;
    }
    s->durability = sync ? CHT_COMMIT_SYNC : CHT_COMMIT_INTERVAL;
    answer_text(s, LINE_DURABILITY, sync ? "SUCCESS,durability=sync\n" : "SUCCESS,durability=interval\n");
}

/* A command that is an operation of a commit and changes something. */
static bool is_write(enum line_verb c)
{
    return c == LINE_INSERT || c == LINE_EDIT || c == LINE_DELETE || c == LINE_PAIR_SET || c == LINE_PAIR_DEL;
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

/* Room for two more. */
static bool more_ops(struct line_session *s)
{
    if (s->commit.count + 2 <= s->ops_cap)
        return true;
    size_t cap = s->ops_cap == 0 ? 16 : s->ops_cap * 2;
    struct cht_op *ops = cht_realloc(s->ops, cap * sizeof *ops);
    if (ops != NULL)
        s->ops = ops;
    struct line_session_op *notes = ops != NULL ? cht_realloc(s->notes, cap * sizeof *notes) : NULL;
    if (notes != NULL)
        s->notes = notes;
    struct cht_buf *bufs = notes != NULL ? cht_realloc(s->bufs, cap * sizeof *bufs) : NULL;
    if (bufs == NULL)
        return false;
    memset(bufs + s->ops_cap, 0, (cap - s->ops_cap) * sizeof *bufs);
    s->bufs = bufs;
    s->ops_cap = cap;
    return true;
}

static enum cht_op_kind op_kind(enum line_verb c)
{
    switch (c) {
    case LINE_INSERT:
        return CHT_OP_INSERT;
    case LINE_EDIT:
        return CHT_OP_EDIT;
    case LINE_DELETE:
        return CHT_OP_DELETE;
    case LINE_PAIR_SET:
        return CHT_OP_PAIR_SET;
    case LINE_PAIR_DEL:
        return CHT_OP_PAIR_DEL;
    case LINE_PAIR_GET:
        return CHT_OP_PAIR_READ;
    default:
        return CHT_OP_READ;
    }
}

/* Adds the operation that takes a name's mark away (hidden.h), which is not answered. False: no memory. */
static bool add_unhide(struct line_session *s, size_t i, struct cht_str name)
{
    if (name.n > LINE_HIDDEN_NAME_MAX)
        return true;
    if (line_hidden_mark(&s->bufs[i], name, NULL) != CHT_OK)
        return false;
    s->ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = {s->bufs[i].data, s->bufs[i].len}};
    s->notes[i].verb = LINE_NONE;
    s->commit.count++;
    return true;
}

/* False: the operations before it come first, or there is no memory (then it is answered). */
static bool add_op(struct line_session *s)
{
    const struct line_command *l = &s->command;
    size_t i = s->commit.count, more = l->value.n;
    uint32_t size = 0;
    if (l->verb == LINE_READ && cht_store_remote(s->db->store)) /* its size would have to be waited for */
        return false;
    if (l->verb == LINE_READ &&
        cht_store_get_soon(s->db->store, l->key, NULL, &size, &cht_ahead, NULL) == CHT_OK) {
        if (size > READ_IN_BATCH)
            return false;
        more = size;
    }
    if (i > 0 && (i >= BATCH_OPS || s->bytes + more > BATCH_BYTES))
        return false;
    if (!more_ops(s)) {
        if (i == 0)
            s->command.error = line_error_word(CHT_NO_MEMORY);
        return false;
    }
    s->ops[i] = (struct cht_op){.kind = op_kind(l->verb), .name = l->name, .value = l->value, .key = l->key};
    s->notes[i].verb = l->verb;
    s->commit.count++;
    s->bytes += more;
    if ((l->verb != LINE_PAIR_SET && l->verb != LINE_PAIR_DEL) || s->unmarked || !line_hidden_any(s->db) ||
        add_unhide(s, i + 1, l->name))
        return true;
    s->commit.count = i;
    if (i == 0)
        s->command.error = line_error_word(CHT_NO_MEMORY);
    return false;
}

/* ---- the interpreter ---------------------------------------------------------------------------------------------- */

static void check_mode(struct line_session *s)
{
    const struct line_command *l = &s->command;
    const struct reduce_mode *m = reduce_mode_find((const char *)l->mode.p, l->mode.n);
    if (m == NULL || m->kind == REDUCE_AGGREGATE)
        s->command.error = "unknown_reducer_mode";
}

/* s->command, which is no part of a commit. */
static enum line_session_next run_alone(struct line_session *s)
{
    struct line_command *l = &s->command;
    enum line_verb c = l->verb;
    if (l->http)
        s->closing = true;
    if (l->error != NULL)
        line_answer_error(s, l);
    else if (c == LINE_READ || c == LINE_PAIR_GET)
        return point_read(s, c, l->key, l->name) ? LINE_SESSION_IDLE : LINE_SESSION_WAIT;
    else if (c == LINE_AUTH)
        authenticate(s);
    else if (c == LINE_DURABILITY)
        set_durability(s);
    else if (c == LINE_EXIT)
        s->closing = true;
    else
        return LINE_SESSION_JOB;
    return LINE_SESSION_IDLE;
}

/* Does s->command, which the caller has put there; LINE_SESSION_IDLE: done, or noted as an operation. */
static enum line_session_next run_line(struct line_session *s)
{
    struct line_command *l = &s->command;
    enum line_verb c = l->verb;
    unsigned traits = line_verb_traits(c);
    if (c != LINE_AUTH && c != LINE_EXIT && needs_token(s) && s->token == NULL && !l->http)
        l->error = "unauthorized";
    if (l->error == NULL && (traits & LINE_CHECKED) != 0)
        l->error = line_session_access(s, s->database);
    if (c == LINE_PAIR_REDUCE && (l->error == NULL || strcmp(l->error, "missing_prefix") == 0))
        check_mode(s);
    if (l->error == NULL && s->db == NULL && (traits & LINE_OPENS) != 0) {
        s->db = svc_dbs_get(s->host->dbs, s->database);
        s->opening = s->db == NULL;
        if (s->opening)
            return LINE_SESSION_JOB;
    }
    bool batch =
        l->error == NULL && (is_write(c) || (s->commit.count > 0 && (c == LINE_READ || c == LINE_PAIR_GET)));
    if (batch && add_op(s))
        return LINE_SESSION_IDLE;
    if (s->commit.count > 0) /* their answers come first */
        return LINE_SESSION_COMMIT;
    return run_alone(s);
}

/* Nothing holds the database while nothing is under way: it may be dropped. */
static enum line_session_next rest(struct line_session *s, enum line_session_next next)
{
    svc_dbs_put(s->db);
    s->db = NULL;
    return next;
}

static enum line_session_next commit(struct line_session *s)
{
    s->commit.ops = s->ops; /* the buffers may have moved while it grew */
    for (size_t i = 0; i < s->commit.count; i++)
        s->ops[i].buf = s->ops[i].kind == CHT_OP_READ ? &s->bufs[i] : NULL;
    bool at_once = s->durability == 0 ? s->host->inline_commits : s->durability == CHT_COMMIT_INTERVAL;
    s->commit.flags = s->durability | (at_once ? CHT_COMMIT_INLINE : 0);
    return LINE_SESSION_COMMIT;
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_session_init(struct line_session *s, struct line_session_host *host,
                       struct line_session_counts *counts)
{
    memset(s, 0, sizeof *s);
    s->host = host;
    s->counts = counts;
    memcpy(s->database, CHT_DATABASE_DEFAULT, sizeof CHT_DATABASE_DEFAULT);
}

static void free_ops(struct line_session *s)
{
    for (size_t i = 0; i < s->ops_cap; i++)
        cht_buf_free(&s->bufs[i]);
    cht_free(s->ops);
    cht_free(s->notes);
    cht_free(s->bufs);
    s->ops = NULL;
    s->notes = NULL;
    s->bufs = NULL;
    s->ops_cap = 0;
}

void line_session_fini(struct line_session *s)
{
    forget_read(s);
    svc_dbs_put(s->db);
    free_ops(s);
    svc_out_free(&s->out);
    cht_buf_free(&s->value);
    atomic_fetch_sub_explicit(&s->host->held, s->held, memory_order_relaxed);
    memset(s->secret, 0, sizeof s->secret);
}

enum line_session_next line_session_run(struct line_session *s, char *p, size_t n, size_t *used)
{
    *used = 0;
    for (unsigned turn = 0; !s->closing; turn++) {
        if (s->out.n >= LINE_SESSION_OUT_HIGH || turn >= TURN)
            return s->commit.count > 0 ? commit(s) : rest(s, LINE_SESSION_FULL);
        if (!s->pending) {
            char *end = *used < n ? memchr(p + *used, '\n', n - *used) : NULL;
            if (end == NULL)
                break;
            size_t len = (size_t)(end - (p + *used));
            line_command_parse(p + *used, len, s->host->max_value_size, &s->command);
            *used += len + 1;
        }
        s->pending = true;
        enum line_session_next next = run_line(s);
        if (next == LINE_SESSION_COMMIT)
            return commit(s);
        if (next == LINE_SESSION_JOB || next == LINE_SESSION_WAIT)
            return next;
        s->pending = false;
    }
    if (s->commit.count > 0)
        return commit(s);
    return rest(s, s->closing ? LINE_SESSION_CLOSE : LINE_SESSION_IDLE);
}

bool line_session_committed(struct line_session *s)
{
    for (; s->answered < s->commit.count; s->answered++) {
        if (!answer_op(s, s->answered))
            return false;
    }
    s->answered = 0;
    for (size_t i = 0; i < s->commit.count; i++) {
        if (s->bufs[i].cap > BUF_KEEP)
            cht_buf_free(&s->bufs[i]);
    }
    s->commit = (struct cht_commit){0};
    s->bytes = 0;
    if (!CHT_RECYCLE)
        free_ops(s);
    (void)rest(s, LINE_SESSION_IDLE); /* run goes on */
    return true;
}

enum line_verb line_session_op_verb(const struct line_session *s, size_t i) { return s->notes[i].verb; }

bool line_session_job_is_long(const struct line_session *s)
{
    enum line_verb c = s->command.verb;
    bool page = c == LINE_PAIR_SCAN || c == LINE_PAIR_REDUCE;
    return !s->opening && (page ? s->command.limit == 0 : (line_verb_traits(c) & LINE_LONG) != 0);
}

void line_session_job(struct line_session *s)
{
    struct line_command *l = &s->command;
    if (s->opening) {
        bool created;
        struct cht_err err = {0};
        bool create = (line_verb_traits(l->verb) & LINE_WRITES) != 0 && !s->host->no_creating;
        enum cht_rc rc = svc_dbs_open(s->host->dbs, s->database, create, 0, &s->db, &created, &err);
        s->opening = false;
        if (rc == CHT_OK)
            return; /* run goes on with the line */
        s->db = NULL;
        line_session_error(s, l->verb, line_error_word(rc));
    } else {
        if ((line_verb_traits(l->verb) & LINE_OPENS) == 0)
            (void)rest(s, LINE_SESSION_IDLE); /* nobody may hold what is dropped */
        s->host->jobs[l->verb](s);
    }
    (void)rest(s, LINE_SESSION_IDLE); /* run goes on */
    s->pending = false;
}

void line_session_taken(struct line_session *s)
{
    if (s->held > 0)
        atomic_fetch_sub_explicit(&s->host->held, s->held, memory_order_relaxed);
    s->held = 0;
    svc_out_reset(&s->out, CHT_RECYCLE ? KEEP_BYTES : 0);
    if (s->value.cap > KEEP_BYTES)
        cht_buf_free(&s->value);
}

void line_session_trim(struct line_session *s)
{
    if (s->commit.count == 0)
        free_ops(s);
    svc_out_reset(&s->out, 0);
    cht_buf_free(&s->value);
}

enum cht_rc line_session_goes_on(const struct line_session *s)
{
    const struct line_session *o = s;
    do {
        if (atomic_load_explicit(&o->cancel, memory_order_relaxed))
            return CHT_CANCELLED;
        o = o->outer;
    } while (o != NULL);
    return s->db != NULL && atomic_load_explicit(&s->db->dropping, memory_order_relaxed)
               ? CHT_DATABASE_DROPPED
               : CHT_OK;
}

const char *line_session_access(struct line_session *s, const char *database)
{
    unsigned traits = line_verb_traits(s->command.verb);
    return line_session_allows(s,
                               (traits & LINE_ADMIN) != 0    ? SVC_RIGHT_ADMIN
                               : (traits & LINE_WRITES) != 0 ? SVC_RIGHT_WRITE
                                                             : SVC_RIGHT_READ,
                               database);
}

const char *line_session_allows(struct line_session *s, enum svc_right right, const char *database)
{
    if (!needs_token(s))
        return NULL;
    if (s->token == NULL)
        return "unauthorized";
    return svc_access_allows(s->token, right, database) ? NULL : "forbidden";
}

void line_session_show(struct line_session *s, const struct svc_access_certificate *certificate)
{
    s->certificate = certificate;
    s->seen = NULL;
    s->token = NULL;
}

bool line_session_trusted(struct line_session *s) { return !needs_token(s) || s->token != NULL; }
