/* purge: PAIR_PURGE, DEL and PAIR_SET_HIDDEN: pairs that go, or are hidden, with their marks (hidden.h).
 *
 *   PAIR_PURGE PREFIX [page]                              SUCCESS,purged=N
 *   DEL pairs prefix=BYTES [limit=page] [payloads=FLAG]   SUCCESS,deleted=N
 *   DEL pairs key=BYTES                                   SUCCESS,deleted=1          the value stays
 *   DEL values key=N                                      SUCCESS,deleted=1,key=N
 *   PAIR_SET_HIDDEN PAIR KEY                              SUCCESS,pair_set_hidden
 *
 * A prefix: all pairs under it and, unless payloads=0, their values, some thousand a commit. The page is a number and means nothing.
 */
#include "tcp/session.h"

#include "tcp/answer.h"
#include "tcp/hidden.h"
#include "tcp/words.h"

#include "base/alloc.h"
#include "cheetah/scan.h"

#include <stdlib.h>
#include <string.h>

#define PURGE_OPS 4096u

struct purge {
    struct line_session *s;
    struct cht_str prefix;
    bool values;
    struct cht_op *ops;
    struct cht_buf names;
    uint64_t deleted;
    size_t n; /* operations of the last page */
};

/* The names of a page, as operations. */
static enum cht_rc collect(struct purge *p, struct cht_err *err)
{
    struct cht_entry e[256];
    struct cht_scan *scan = NULL;
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = p->prefix, .limit = PURGE_OPS};
    size_t got = 1;
    p->n = p->names.len = 0;
    enum cht_rc rc = cht_scan_open(p->s->db->store, &cfg, &scan, err);
    while (rc == CHT_OK && got > 0) {
        rc = cht_scan_next(scan, e, 256, &got, err);
        for (size_t i = 0; rc == CHT_OK && i < got; i++) {
            uint8_t *name = p->names.data + p->names.len;
            memcpy(name, e[i].name, e[i].name_len);
            p->names.len += e[i].name_len;
            p->ops[p->n++] = (struct cht_op){
                .kind = CHT_OP_PAIR_DEL, .with_values = p->values, .name = {name, e[i].name_len}};
        }
    }
    cht_scan_close(scan);
    return rc;
}

/* Deletes a page of names. */
static enum cht_rc purge_page(struct purge *p)
{
    struct cht_err err = {0};
    enum cht_rc rc = collect(p, &err), failed = CHT_OK;
    struct cht_commit c = {.ops = p->ops, .count = p->n, .flags = p->s->durability};
    uint64_t before = p->deleted;
    if (rc == CHT_OK && p->n > 0)
        rc = cht_store_commit(p->s->db->store, &c);
    for (size_t i = 0; rc == CHT_OK && i < p->n; i++) {
        p->deleted += p->ops[i].rc == CHT_OK;
        if (p->ops[i].rc != CHT_PAIR_NOT_FOUND &&
            failed == CHT_OK) /* that one is gone, the others are met again */
            failed = p->ops[i].rc;
    }
    return rc == CHT_OK && p->deleted == before ? failed : rc;
}

static enum cht_rc purge_all(struct purge *p)
{
    enum cht_rc rc = CHT_OK;
    p->n = 1;
    while (rc == CHT_OK && p->n > 0) {
        rc = purge_page(p);
        if (rc == CHT_OK)
            rc = line_session_goes_on(p->s);
    }
    return rc;
}

/* All pairs under the prefix, then their marks. */
static enum cht_rc purge(struct line_session *s, struct cht_str prefix, bool values, uint64_t *deleted)
{
    struct purge p = {.s = s, .prefix = prefix, .values = values};
    struct cht_buf marks = {0};
    struct cht_err err = {0};
    p.ops = cht_malloc(PURGE_OPS * sizeof *p.ops);
    enum cht_rc rc =
        p.ops == NULL ? CHT_NO_MEMORY : cht_buf_reserve(&p.names, (size_t)PURGE_OPS * CHT_NAME_MAX, &err);
    if (rc == CHT_OK)
        rc = purge_all(&p);
    *deleted = p.deleted;
    if (rc == CHT_OK && line_hidden_any(s->db) && prefix.n <= LINE_HIDDEN_NAME_MAX) {
        rc = line_hidden_mark(&marks, prefix, &err);
        p.prefix = (struct cht_str){.p = marks.data, .n = marks.len};
        p.values = false;
        if (rc == CHT_OK)
            rc = purge_all(&p);
    }
    cht_free(p.ops);
    cht_buf_free(&p.names);
    cht_buf_free(&marks);
    return rc;
}

static void answer_number(struct line_session *s, const char *what, uint64_t n)
{
    line_session_counted(s, s->command.verb, false);
    svc_out_text(&s->out, what);
    svc_out_u64(&s->out, n);
    svc_out_text(&s->out, "\n");
}

/* A pair's operation and that of its mark, in one commit that does all or nothing of the first. */
static enum cht_rc commit_marked(struct line_session *s, struct cht_op ops[2])
{
    struct cht_buf mark = {0};
    struct cht_err err = {0};
    struct cht_commit c = {.ops = ops, .count = 1, .flags = s->durability};
    bool marks = line_hidden_any(s->db) && ops->name.n <= LINE_HIDDEN_NAME_MAX;
    enum cht_rc rc = marks ? line_hidden_mark(&mark, ops->name, &err) : CHT_OK;
    if (marks) {
        ops[1].name = (struct cht_str){.p = mark.data, .n = mark.len};
        c.count = 2;
    }
    if (rc == CHT_OK)
        rc = cht_store_commit(s->db->store, &c);
    cht_buf_free(&mark);
    return rc == CHT_OK ? ops[0].rc : rc;
}

static bool is_all(struct cht_str text) { return text.n == 1 && text.p[0] == '*'; }

/* BYTES in DEL: `*` and a lone x are empty. NULL, or the error. */
static const char *bytes_of(struct cht_str text, uint8_t *room, struct cht_str *out)
{
    if (is_all(text) || (text.n == 1 && text.p[0] == 'x'))
        text.n = 0;
    if (text.n > 1 + 2 * (size_t)CHT_NAME_MAX || !line_bytes(room, text, out))
        return "invalid_hex";
    return out->n > CHT_NAME_MAX ? "invalid_pair" : NULL;
}

/* A key, or a page: digits. */
static bool number(struct cht_str text, uint64_t *out)
{
    char copy[24], *end;
    if (text.n == 0 || text.n >= sizeof copy || text.p[0] < '0' || text.p[0] > '9')
        return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    *out = strtoull(copy, &end, 10);
    return end == copy + text.n;
}

static void del_prefix(struct line_session *s, struct cht_str words, struct cht_str text)
{
    uint8_t room[1 + 2 * CHT_NAME_MAX];
    struct cht_str prefix, page, flag;
    uint64_t n;
    const char *error = bytes_of(text, room, &prefix);
    if (error == NULL && line_words_get(words, "limit", NULL, &page) && !number(page, &n))
        error = "invalid_limit";
    if (error != NULL) {
        line_session_error(s, LINE_DEL, error);
        return;
    }
    bool values = !line_words_get(words, "payloads", NULL, &flag) || line_flag(flag);
    enum cht_rc rc = purge(s, prefix, values, &n);
    if (rc != CHT_OK)
        line_session_failed(s, rc);
    else
        answer_number(s, "SUCCESS,deleted=", n);
}

static void del_pair(struct line_session *s, struct cht_str text)
{
    uint8_t room[1 + 2 * CHT_NAME_MAX];
    struct cht_op ops[2] = {{.kind = CHT_OP_PAIR_DEL}, {.kind = CHT_OP_PAIR_DEL}};
    const char *error = bytes_of(text, room, &ops[0].name);
    if (error == NULL && ops[0].name.n == 0)
        error = "pair_value_cannot_be_empty";
    if (error != NULL) {
        line_session_error(s, LINE_DEL, error);
        return;
    }
    enum cht_rc rc = commit_marked(s, ops);
    if (rc != CHT_OK)
        line_session_failed(s, rc);
    else
        answer_number(s, "SUCCESS,deleted=", 1);
}

static void del_value(struct line_session *s, struct cht_str words)
{
    struct cht_str text;
    struct cht_op op = {.kind = CHT_OP_DELETE};
    struct cht_commit c = {.ops = &op, .count = 1, .flags = s->durability};
    if (!line_words_get(words, "key", "id", &text)) {
        line_session_error(s, LINE_DEL, "del_values_requires_key");
        return;
    }
    if (!number(text, &op.key) || op.key == 0 || op.key > CHT_KEY_MAX) {
        line_session_error(s, LINE_DEL, "invalid_key_format");
        return;
    }
    enum cht_rc rc = cht_store_commit(s->db->store, &c);
    rc = rc == CHT_OK ? op.rc : rc;
    if (rc != CHT_OK)
        line_session_failed(s, rc);
    else
        answer_number(s, "SUCCESS,deleted=1,key=", op.key);
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_session_purge(struct line_session *s)
{
    uint64_t n;
    enum cht_rc rc = purge(s, s->command.name, true, &n);
    if (rc != CHT_OK)
        line_session_failed(s, rc);
    else
        answer_number(s, "SUCCESS,purged=", n);
}

void line_session_del(struct line_session *s)
{
    struct cht_str words = s->command.value, text = {.p = NULL, .n = 0};
    const struct line_word target = {.name = line_words_next(&words)};
    bool pairs = line_word_is(&target, "pairs");
    if (target.name.n == 0)
        line_session_error(s, LINE_DEL, "del_requires_target");
    else if (line_word_is(&target, "values") || line_word_is(&target, "keys"))
        del_value(s, words);
    else if (!pairs)
        line_session_error(s, LINE_DEL, "unknown_del_target");
    else if (line_words_get(words, "prefix", NULL, &text))
        del_prefix(s, words, text);
    else if (line_words_get(words, "key", NULL, &text))
        del_pair(s, text);
    else
        line_session_error(s, LINE_DEL, "del_pairs_requires_prefix_or_key");
}

void line_session_hide(struct line_session *s)
{
    const struct line_command *l = &s->command;
    struct cht_op ops[2] = {{.kind = CHT_OP_PAIR_SET, .name = l->name, .key = l->key},
                            {.kind = CHT_OP_PAIR_SET, .key = l->key}};
    if (l->name.n > LINE_HIDDEN_NAME_MAX) {
        line_session_failed(s, CHT_INVALID_PAIR);
        return;
    }
    line_hidden_begin(s->db);
    enum cht_rc rc = commit_marked(s, ops);
    if (rc == CHT_OK)
        rc = ops[1].rc;
    if (rc != CHT_OK) {
        line_session_failed(s, rc);
        return;
    }
    line_session_counted(s, l->verb, false);
    svc_out_text(&s->out, "SUCCESS,pair_set_hidden\n");
}
