/* databases: making, listing, describing, checkpointing and dropping them. All of it on job threads. */
#include "http/calls/backup_feed.h"
#include "http/body.h"
#include "http/calls/handlers.h"
#include "http/calls/live.h"
#include "http/calls/shared.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/literal.h"

#include <inttypes.h>

#define DROP_WAIT_NS UINT64_C(10000000000)

/* What each of these calls is about. */
struct about {
    char name[CHT_DATABASE_NAME_MAX + 1];
    unsigned shards; /* of PUT; 0: the default */
    bool live;       /* of PUT: it is to have a live model with these parameters */
    struct lm_kn_parameters parameters;
};

static const char *name_of(const struct http_request *r) { return ((const struct about *)r->own)->name; }

/* A list of an answer on its way out. */
struct listing {
    struct http_request *r;
    bool more; /* a member is there already */
};

/* A comma, but before the first member of a list. */
static const char *comma(struct listing *l)
{
    const char *text = l->more ? "," : "";
    l->more = true;
    return text;
}

/* The name in the path, in r->own; false after answering. */
static bool take_name(struct http_request *r, size_t len)
{
    struct about *a = http_request_own(r, sizeof *a);
    a->shards = 0;
    a->live = false;
    return http_database_name(r, len, a->name);
}

/* ---- the list ------------------------------------------------------------------------------------------------------- */

static void add_name(void *ctx, const char *name)
{
    struct listing *l = ctx;
    struct http_request *r = l->r;
    if (r->token != NULL && !svc_access_allows(r->token, SVC_RIGHT_READ, name))
        return;
    svc_out_text(&r->out, comma(l));
    svc_out_string(&r->out, name, strlen(name));
}

static void list_work(struct http_request *r)
{
    struct listing names = {.r = r};
    svc_out_text(&r->out, "{\"databases\":[");
    r->rc = svc_dbs_list(r->w->srv->dbs, add_name, &names, &r->err);
    svc_out_text(&r->out, "]}");
}

static void answer(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_reply_json(r, r->status != 0 ? r->status : 200);
}

void http_databases_list(struct http_request *r)
{
    (void)http_request_own(r, sizeof(struct about));
    http_request_job(r, list_work, answer);
}

/* ---- one of them ------------------------------------------------------------------------------------------------------ */

/* Values by ranges of lengths: 1 to 15, 16 to 255, ...; the last holds what is longer. The same as of cheetah-db stat. */
#define RANGES 9u
struct ranges {
    struct {
        uint32_t least, most;
        uint64_t lengths, live, slots, bytes;
    } v[RANGES];
};

static void add_to_range(void *ctx, const struct cht_length_stat *l)
{
    struct ranges *ranges = ctx;
    unsigned i = 0;
    while (i + 1 < RANGES && l->length >= UINT64_C(16) << (4 * i))
        i++;
    ranges->v[i].least = ranges->v[i].lengths == 0 ? l->length : ranges->v[i].least; /* they come ascending */
    ranges->v[i].most = l->length;
    ranges->v[i].lengths++;
    ranges->v[i].live += l->live;
    ranges->v[i].slots += l->slots;
    ranges->v[i].bytes += l->live * l->length;
}

static enum cht_rc put_ranges(struct http_request *r, struct listing *list)
{
    struct ranges ranges = {0};
    enum cht_rc rc = cht_store_lengths(r->db->store, add_to_range, &ranges, &r->err);
    for (unsigned i = 0; i < RANGES && rc == CHT_OK; i++) {
        if (ranges.v[i].lengths == 0)
            continue;
        svc_out_format(&r->out, "%s{", comma(list));
        if (ranges.v[i].lengths == 1)
            svc_out_format(&r->out, "\"length\":%" PRIu32 ",", ranges.v[i].least);
        svc_out_format(&r->out,
                       "\"least\":%" PRIu32 ",\"most\":%" PRIu32 ",\"lengths\":%" PRIu64
                       ",\"values\":%" PRIu64 ",\"slots\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
                       ranges.v[i].least, ranges.v[i].most, ranges.v[i].lengths, ranges.v[i].live,
                       ranges.v[i].slots, ranges.v[i].bytes);
    }
    return rc;
}

static void add_length(void *ctx, const struct cht_length_stat *l)
{
    struct listing *list = ctx;
    struct http_request *r = list->r;
    svc_out_format(&r->out,
                   "%s{\"length\":%" PRIu32 ",\"values\":%" PRIu64 ",\"slots\":%" PRIu64 ",\"bytes\":%" PRIu64
                   "}",
                   comma(list), l->length, l->live, l->slots, l->live * l->length);
}

static void add_shard(void *ctx, const struct cht_shard_stat *s)
{
    struct listing *list = ctx;
    struct http_request *r = list->r;
    svc_out_format(&r->out, "%s{\"shard\":%u,\"directory\":", comma(list), s->shard);
    svc_out_string(&r->out, s->dir, strlen(s->dir));
    svc_out_format(&r->out,
                   ",\"pairs\":%" PRIu64 ",\"values\":%" PRIu64 ",\"value_bytes\":%" PRIu64
                   ",\"file_bytes\":%" PRIu64 ",\"checkpoint\":%" PRIu64 "}",
                   s->pairs, s->values, s->value_bytes, s->file_bytes, s->checkpoint_seq);
}

static void put_changes(struct svc_out *o, const struct cht_store_stats *st)
{
    if (st->changes_newest == 0) {
        svc_out_text(o, ",\"changes\":null");
        return;
    }
    svc_out_format(o,
                   ",\"changes\":{\"oldest\":%" PRIu64 ",\"newest\":%" PRIu64 ",\"kept_bytes\":%" PRIu64
                   ",\"followers\":%" PRIu64 "}",
                   st->changes_oldest, st->changes_newest, st->changes_kept, st->changes_followers);
}

void http_database_describe(struct http_request *r)
{
    struct cht_store_stats st;
    struct listing lengths = {.r = r}, shards = {.r = r};
    struct cht_store *s = r->db->store;
    r->rc = cht_store_stats(s, &st, &r->err);
    if (r->rc == CHT_OK && st.ended_there) { /* it goes first, as for any reader */
        uint64_t pairs;
        r->rc = cht_store_count(s, (struct cht_str){0}, &pairs, &r->err);
        if (r->rc == CHT_OK)
            r->rc = cht_store_stats(s, &st, &r->err);
    }
    if (r->rc != CHT_OK)
        return;
    svc_out_text(&r->out, "{\"name\":");
    svc_out_string(&r->out, r->db->name, strlen(r->db->name));
    svc_out_format(&r->out,
                   ",\"keys\":%" PRIu64 ",\"values\":%" PRIu64 ",\"pairs\":%" PRIu64 ",\"expiring\":%" PRIu64
                   ",\"value_bytes\":%" PRIu64 ",\"next_key\":%" PRIu64 ",\"file_bytes\":%" PRIu64
                   ",\"read_only\":%s,\"dirty_bytes\":%" PRIu64,
                   st.values, st.values, st.pairs, st.ending, st.value_bytes, st.next_key, st.file_bytes,
                   st.read_only ? "true" : "false", st.dirty_bytes);
    svc_out_format(
        &r->out, ",\"log\":{\"position\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"since_checkpoint\":%" PRIu64 "}",
        st.log_seq, st.log_bytes, st.log_live);
    put_changes(&r->out, &st);
    r->rc = http_live_describe(s, &r->out, &r->err);
    if (r->rc != CHT_OK)
        return;
    size_t before = r->out.n;
    svc_out_text(&r->out, ",\"lengths\":[");
    r->rc = r->param[HTTP_P_LENGTHS].p != NULL && r->param[HTTP_P_LENGTHS].n == 3 /* all */
                ? cht_store_lengths(s, add_length, &lengths, &r->err)
                : put_ranges(r, &lengths);
    svc_out_text(&r->out, "]");
    if (r->rc == CHT_NOT_SUPPORTED && !r->out.failed) {
        r->rc = CHT_OK;
        r->out.n = before;
        svc_out_text(&r->out, ",\"lengths\":null");
    }
    svc_out_text(&r->out, ",\"shards\":[");
    if (r->rc == CHT_OK)
        r->rc = cht_store_shards(s, add_shard, &shards, &r->err);
    svc_out_text(&r->out, "]}");
}

static void get_work(struct http_request *r)
{
    bool created;
    r->rc = svc_dbs_open(r->w->srv->dbs, name_of(r), false, 0, &r->db, &created, &r->err);
    if (r->rc == CHT_OK)
        http_database_describe(r);
}

void http_databases_get(struct http_request *r)
{
    const struct http_param_value *v = &r->param[HTTP_P_LENGTHS];
    if (v->p != NULL && !CHT_IS(v->p, v->n, "all") && !CHT_IS(v->p, v->n, "ranges")) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'lengths' is all or ranges");
        return;
    }
    if (take_name(r, r->rest_len))
        http_request_job(r, get_work, answer);
}

static void put_work(struct http_request *r)
{
    bool created;
    r->rc = svc_dbs_open(r->w->srv->dbs, name_of(r), true, ((const struct about *)r->own)->shards, &r->db,
                         &created, &r->err);
    const struct about *a = r->own;
    if (r->rc == CHT_OK && a->live)
        r->rc = lm_kn_setup(http_shared(r->w->srv)->lm, r->db->store, &a->parameters, &r->err);
    if (r->rc != CHT_OK)
        return;
    r->status = created ? 201 : 200;
    http_database_describe(r);
}

static void put_answer(struct http_request *r)
{
    if (r->rc == CHT_OK && r->status == 201)
        http_reply_header(r, "Location", "/databases/%.50s", name_of(r));
    answer(r);
}

/* What a database is made with stays: a member that is spelt wrong is not passed over. False after answering. */
static bool only_known(struct http_request *r, const json_t *o)
{
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)(uintptr_t)o, name, value) /* NOLINT(performance-no-int-to-ptr): const */
    {
        if (strcmp(name, "shards") != 0 && strcmp(name, "live") != 0 && strcmp(name, "keep") != 0) {
            http_reply_fail(r, CHT_INVALID_BODY, "\"%.64s\" is none of shards, live, keep", name);
            return false;
        }
    }
    return true;
}

/* False after answering. */
static bool take_parameters(struct http_request *r, const json_t *o)
{
    struct about *a = r->own;
    const json_t *shards = json_object_get(o, "shards");
    if (!only_known(r, o) || !http_live_parameters(r, o, &a->parameters, &a->live))
        return false;
    if (shards == NULL)
        return true;
    if (!json_is_integer(shards) || json_integer_value(shards) < 1 ||
        json_integer_value(shards) > (json_int_t)CHT_SHARDS_MAX) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "\"shards\" is a number from 1 to %u", CHT_SHARDS_MAX);
        return false;
    }
    a->shards = (unsigned)json_integer_value(shards);
    return true;
}

void http_databases_put(struct http_request *r)
{
    if (!take_name(r, r->rest_len))
        return;
    if (r->body_len > 0) {
        json_t *o = http_body_object(r, CHT_INVALID_BODY);
        if (o == NULL)
            return;
        bool known = take_parameters(r, o);
        json_decref(o);
        if (!known)
            return;
    }
    struct about *put = r->own;
    if (put->live)
        http_request_long_job(r, HTTP_ALONE_COUNT, put_work, put_answer); /* waits for counting */
    else
        http_request_job(r, put_work, put_answer);
}

static void drop_work(struct http_request *r)
{
    r->rc = svc_dbs_drop(r->w->srv->dbs, name_of(r), DROP_WAIT_NS, &r->err);
    r->status = 204;
}

static void drop_answer(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_reply_empty(r, 204);
}

void http_databases_delete(struct http_request *r)
{
    const struct http_param_value *v = &r->param[HTTP_P_CONFIRM];
    if (!take_name(r, r->rest_len))
        return;
    if (v->p == NULL || v->n != r->rest_len || memcmp(v->p, name_of(r), v->n) != 0)
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "deleting all of it needs ?confirm=%s", name_of(r));
    else
        http_request_long_job(r, HTTP_ALONE_DROP, drop_work, drop_answer);
}

static void checkpoint_work(struct http_request *r)
{
    bool created;
    struct cht_store_stats st;
    r->rc = svc_dbs_open(r->w->srv->dbs, name_of(r), false, 0, &r->db, &created, &r->err);
    if (r->rc == CHT_OK)
        r->rc = cht_store_checkpoint(r->db->store, &r->err);
    if (r->rc == CHT_OK)
        r->rc = cht_store_stats(r->db->store, &st, &r->err);
    if (r->rc != CHT_OK)
        return;
    svc_out_text(&r->out, "{\"name\":");
    svc_out_string(&r->out, r->db->name, strlen(r->db->name));
    svc_out_format(&r->out,
                   ",\"log\":{\"position\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"since_checkpoint\":%" PRIu64
                   "}}",
                   st.log_seq, st.log_bytes, st.log_live);
}

void http_databases_checkpoint(struct http_request *r)
{
    size_t n = strlen(r->route->suffix);
    if (take_name(r, r->rest_len - n))
        http_request_long_job(r, HTTP_ALONE_CHECKPOINT, checkpoint_work, answer);
}

static void backup_work(struct http_request *r)
{
    bool created;
    r->rc = svc_dbs_open(r->w->srv->dbs, name_of(r), false, 0, &r->db, &created, &r->err);
    if (r->rc == CHT_OK && !r->head)
        http_backup_prepare(r);
}

static void backup_answer(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else if (r->head)
        http_reply_media(r, 200, HTTP_MEDIA_BACKUP);
    else
        http_backup_reply(r);
}

void http_databases_backup(struct http_request *r)
{
    size_t n = strlen(r->route->suffix);
    if (take_name(r, r->rest_len - n) && (r->head || http_backup_begin(r)))
        http_request_long_job(r, 0, backup_work, backup_answer);
}

bool http_database_name(struct http_request *r, size_t len, char name[CHT_DATABASE_NAME_MAX + 1])
{
    if (len == 0 || len > CHT_DATABASE_NAME_MAX || memchr(r->rest, 0, len) != NULL) {
        http_reply_err(r, CHT_INVALID_DATABASE_NAME, NULL);
        return false;
    }
    memcpy(name, r->rest, len);
    name[len] = 0;
    if (!cht_database_name_valid(name)) {
        http_reply_err(r, CHT_INVALID_DATABASE_NAME, NULL);
        return false;
    }
    if (r->token != NULL && !svc_access_allows(r->token, r->right, name)) {
        http_reply_fail(r, CHT_FORBIDDEN, "this token does not allow that in database '%s'", name);
        return false;
    }
    http_request_owner(r, name);
    return true;
}
