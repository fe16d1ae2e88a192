/* databases: making, listing, describing, checkpointing and dropping them. All of it on job threads. */
#include "http/calls/backup_feed.h"
#include "http/body.h"
#include "http/calls/handlers.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"

#include "reduce/cache.h"

#include <inttypes.h>

#define DROP_WAIT_NS UINT64_C(10000000000)

/* What each of these calls is about. */
struct about {
    char name[CHT_DATABASE_NAME_MAX + 1];
    unsigned shards; /* of PUT; 0: the default */
    bool more;       /* of a list in the answer: a member is there already */
};

static const char *name_of(const struct request *r) { return ((const struct about *)r->own)->name; }

/* A comma, but before the first member of a list. */
static const char *comma(struct request *r)
{
    struct about *a = r->own;
    const char *text = a->more ? "," : "";
    a->more = true;
    return text;
}

static void begin_list(struct request *r) { ((struct about *)r->own)->more = false; }

/* The name in the path, in r->own; false after answering. */
static bool take_name(struct request *r, size_t len)
{
    struct about *a = request_own(r, sizeof *a);
    a->shards = 0;
    char *name = a->name;
    if (len == 0 || len > CHT_DATABASE_NAME_MAX || memchr(r->rest, 0, len) != NULL) {
        reply_err(r, CHT_INVALID_DATABASE_NAME, NULL);
        return false;
    }
    memcpy(name, r->rest, len);
    name[len] = 0;
    if (!cht_database_name_valid(name)) {
        reply_err(r, CHT_INVALID_DATABASE_NAME, NULL);
        return false;
    }
    if (r->token != NULL && !access_allows(r->token, r->route->right, name)) {
        reply_fail(r, CHT_FORBIDDEN, "this token does not allow that in database '%s'", name);
        return false;
    }
    request_owner(r, name);
    return true;
}

/* ---- the list ------------------------------------------------------------------------------------------------------- */

static void add_name(void *ctx, const char *name)
{
    struct request *r = ctx;
    if (r->token != NULL && !access_allows(r->token, RIGHT_READ, name))
        return;
    out_text(&r->out, comma(r));
    out_string(&r->out, name, strlen(name));
}

static void list_work(struct request *r)
{
    begin_list(r);
    out_text(&r->out, "{\"databases\":[");
    r->rc = dbs_list(r->w->srv->dbs, add_name, r, &r->err);
    out_text(&r->out, "]}");
}

static void answer(struct request *r)
{
    if (r->rc != CHT_OK)
        reply_err(r, r->rc, &r->err);
    else
        reply_json(r, r->status != 0 ? r->status : 200);
}

void databases_list(struct request *r)
{
    (void)request_own(r, sizeof(struct about));
    request_job(r, list_work, answer);
}

/* ---- one of them ------------------------------------------------------------------------------------------------------ */

static void add_length(void *ctx, const struct cht_length_stat *l)
{
    struct request *r = ctx;
    out_format(&r->out,
               "%s{\"length\":%" PRIu32 ",\"values\":%" PRIu64 ",\"slots\":%" PRIu64 ",\"bytes\":%" PRIu64
               "}",
               comma(r), l->length, l->live, l->slots, l->live * l->length);
}

static void add_shard(void *ctx, const struct cht_shard_stat *s)
{
    struct request *r = ctx;
    out_format(&r->out, "%s{\"shard\":%u,\"directory\":", comma(r), s->shard);
    out_string(&r->out, s->dir, strlen(s->dir));
    out_format(&r->out,
               ",\"pairs\":%" PRIu64 ",\"values\":%" PRIu64 ",\"value_bytes\":%" PRIu64
               ",\"file_bytes\":%" PRIu64 ",\"checkpoint\":%" PRIu64 "}",
               s->pairs, s->values, s->value_bytes, s->file_bytes, s->checkpoint_seq);
}

static void describe(struct request *r)
{
    struct cht_store_stats st;
    struct cht_store *s = r->db->store;
    r->rc = cht_store_stats(s, &st, &r->err);
    if (r->rc != CHT_OK)
        return;
    out_text(&r->out, "{\"name\":");
    out_string(&r->out, r->db->name, strlen(r->db->name));
    out_format(&r->out,
               ",\"keys\":%" PRIu64 ",\"values\":%" PRIu64 ",\"pairs\":%" PRIu64 ",\"value_bytes\":%" PRIu64
               ",\"next_key\":%" PRIu64 ",\"file_bytes\":%" PRIu64
               ",\"read_only\":%s,\"dirty_bytes\":%" PRIu64,
               st.values, st.values, st.pairs, st.value_bytes, st.next_key, st.file_bytes,
               st.read_only ? "true" : "false", st.dirty_bytes);
    out_format(&r->out,
               ",\"log\":{\"position\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"since_checkpoint\":%" PRIu64 "}",
               st.log_seq, st.log_bytes, st.log_live);
    out_text(&r->out, ",\"lengths\":[");
    begin_list(r);
    r->rc = cht_store_lengths(s, add_length, r, &r->err);
    out_text(&r->out, "],\"shards\":[");
    begin_list(r);
    if (r->rc == CHT_OK)
        r->rc = cht_store_shards(s, add_shard, r, &r->err);
    out_text(&r->out, "]}");
}

static void get_work(struct request *r)
{
    bool created;
    r->rc = dbs_open(r->w->srv->dbs, name_of(r), false, 0, &r->db, &created, &r->err);
    if (r->rc == CHT_OK)
        describe(r);
}

void databases_get(struct request *r)
{
    if (take_name(r, r->rest_len))
        request_job(r, get_work, answer);
}

static void put_work(struct request *r)
{
    bool created;
    r->rc = dbs_open(r->w->srv->dbs, name_of(r), true, ((const struct about *)r->own)->shards, &r->db,
                     &created, &r->err);
    if (r->rc != CHT_OK)
        return;
    r->status = created ? 201 : 200;
    describe(r);
}

static void put_answer(struct request *r)
{
    if (r->rc == CHT_OK && r->status == 201)
        reply_header(r, "Location", "/databases/%.50s", name_of(r));
    answer(r);
}

void databases_put(struct request *r)
{
    if (!take_name(r, r->rest_len))
        return;
    if (r->body_len > 0) {
        json_t *o = body_object(r, CHT_INVALID_BODY);
        if (o == NULL)
            return;
        const json_t *shards = json_object_get(o, "shards");
        bool ok = shards == NULL || (json_is_integer(shards) && json_integer_value(shards) >= 1 &&
                                     json_integer_value(shards) <= (json_int_t)CHT_SHARDS_MAX);
        if (ok && shards != NULL)
            ((struct about *)r->own)->shards = (unsigned)json_integer_value(shards);
        json_decref(o);
        if (!ok) {
            reply_fail(r, CHT_INVALID_ARGUMENT, "\"shards\" is a number from 1 to %u", CHT_SHARDS_MAX);
            return;
        }
    }
    request_job(r, put_work, put_answer);
}

static void drop_work(struct request *r)
{
    struct database *d = dbs_get(r->w->srv->dbs, name_of(r));
    const struct cht_store *store = d != NULL ? d->store : NULL; /* only its address is used below */
    dbs_put(d);
    r->rc = dbs_drop(r->w->srv->dbs, name_of(r), DROP_WAIT_NS, &r->err);
    if (r->rc == CHT_OK && store != NULL)
        reduce_cache_forget(r->w->srv->cache, store);
    r->status = 204;
}

static void drop_answer(struct request *r)
{
    if (r->rc != CHT_OK)
        reply_err(r, r->rc, &r->err);
    else
        reply_empty(r, 204);
}

void databases_delete(struct request *r)
{
    const struct param_value *v = &r->param[P_CONFIRM];
    if (!take_name(r, r->rest_len))
        return;
    if (v->p == NULL || v->n != r->rest_len || memcmp(v->p, name_of(r), v->n) != 0)
        reply_fail(r, CHT_INVALID_ARGUMENT, "deleting all of it needs ?confirm=%s", name_of(r));
    else
        request_long_job(r, ALONE_DROP, drop_work, drop_answer);
}

static void checkpoint_work(struct request *r)
{
    bool created;
    struct cht_store_stats st;
    r->rc = dbs_open(r->w->srv->dbs, name_of(r), false, 0, &r->db, &created, &r->err);
    if (r->rc == CHT_OK)
        r->rc = cht_store_checkpoint(r->db->store, &r->err);
    if (r->rc == CHT_OK)
        r->rc = cht_store_stats(r->db->store, &st, &r->err);
    if (r->rc != CHT_OK)
        return;
    out_text(&r->out, "{\"name\":");
    out_string(&r->out, r->db->name, strlen(r->db->name));
    out_format(&r->out,
               ",\"log\":{\"position\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"since_checkpoint\":%" PRIu64 "}}",
               st.log_seq, st.log_bytes, st.log_live);
}

void databases_checkpoint(struct request *r)
{
    size_t n = strlen(r->route->suffix);
    if (take_name(r, r->rest_len - n))
        request_long_job(r, ALONE_CHECKPOINT, checkpoint_work, answer);
}

static void backup_work(struct request *r)
{
    bool created;
    r->rc = dbs_open(r->w->srv->dbs, name_of(r), false, 0, &r->db, &created, &r->err);
    if (r->rc == CHT_OK && !r->head)
        backup_prepare(r);
}

static void backup_answer(struct request *r)
{
    if (r->rc != CHT_OK)
        reply_err(r, r->rc, &r->err);
    else if (r->head)
        reply_media(r, 200, MEDIA_BACKUP);
    else
        backup_reply(r);
}

void databases_backup(struct request *r)
{
    size_t n = strlen(r->route->suffix);
    if (take_name(r, r->rest_len - n) && (r->head || backup_begin(r)))
        request_long_job(r, 0, backup_work, backup_answer);
}
