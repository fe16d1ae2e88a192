/* stream: a chunked NDJSON answer, produced while it is sent. A source gives text piece by piece; when it has nothing yet
 * the connection is suspended until it has. Memory: the source's (a scan: 4 MiB at most, booked of --memory-bytes) and one piece.
 *
 * Sources keep their state in r->stream->source and are freed with the stream, which happens when the answer was sent,
 * the client has gone, or the server ends it (the database is dropped, the server stops).
 */
#pragma once

#include "http/etag.h"
#include "http/request.h"

#include "cheetah/scan.h"

#define HTTP_STREAM_ENTRIES 256u
#define HTTP_STREAM_PIECE (48u << 10) /* of a long value, bytes; a multiple of 3 */

enum http_more { HTTP_MORE_TEXT, HTTP_MORE_LATER, HTTP_MORE_END };

/* How a long value is shown. */
enum http_piece_form {
    HTTP_PIECE_BASE64,
    HTTP_PIECE_CHECK, /* not at all yet: is it text? */
    HTTP_PIECE_TEXT,
    HTTP_PIECE_PART /* by `part` */
};

/* A value too long to be carried, shown in pieces after a head that is in stage. */
struct http_piece {
    struct cht_value *value; /* NULL: none under way */
    uint32_t size, at;
    enum http_piece_form form;
    enum http_member what; /* of which member it is the string */
    /* The next part of it into s->stage, false after the last or a failure. */
    bool (*part)(struct http_stream *s);
    uint64_t left; /* of part's own use */
    const char *tail;
    bool tagged; /* set after http_stream_large: the tag follows the value, in front of the tail's end */
    struct http_etag_part tag;
    uint32_t hashed; /* bytes of it so far */
};

/* Of text that goes out from where it lies (direct.h). */
struct http_direct {
    bool on;
    bool framed;     /* it is known how: head and tail are those of a chunk, or empty */
    size_t stand_in; /* bytes that libmicrohttpd was given in place of the text */
    size_t left;     /* text to be sent: of s->left */
    size_t head_at, head_n, tail_at, tail_n;
    char head[24];
};

struct http_pack;

/* Of a scan on another machine: a long value that was opened before its line is begun. */
struct http_early {
    uint64_t key; /* 0: none */
    enum cht_rc rc;
    struct cht_value *value; /* owned */
    uint32_t size;
};

struct http_stream {
    struct http_request *r;
    /* The next text at *p, valid until the next call. LATER: `wake` will be called. Not called again after END. */
    enum http_more (*next)(struct http_stream *s, const char **p, size_t *n);
    void (*free)(struct http_request *r);       /* http_stream_free */
    void (*free_source)(struct http_stream *s); /* NULL: nothing to free */
    /* Five times a second until it has ended, also before it begins; stop: nobody wants it any more. NULL: no need. */
    void (*tick)(struct http_stream *s, uint64_t now, bool stop);
    void *source;   /* owned by the source */
    const char *at; /* text not yet copied */
    size_t left;
    struct http_direct direct;
    struct svc_out stage; /* text made here rather than by a worker */
    bool ended, counted;
    bool arpa; /* it is a model as text, no lines of JSON */
    bool cut;  /* ends without a last line, and without the last chunk, so that nobody takes it for whole */
    enum cht_rc abort;    /* CHT_OK, or why the server ends it */
    _Atomic int wake;     /* 0 running, 1 suspended, 2 woken */
    bool suspended;       /* the HTTP thread's: since http_stream_wait, and not asked again yet */
    struct cht_wait wait; /* of http_stream_enter, and of a value that is opened early */
    _Atomic bool waiting; /* the store has `wait`, and will call it */
    uint64_t count;       /* entries so far */
    uint64_t corrupt;     /* of these: lines with an "error" in place of their value */
    uint64_t bytes;
    struct http_pack *pack; /* owned: it is compressed, or was looked at whether it should be */
    void (*free_pack)(struct http_pack *k);
    bool failed;   /* ended with an error line */
    bool finished; /* the last line is staged */
    bool is_values;

    /* for sources that are scans (http_stream_scan) */
    struct cht_scan *scan;
    struct svc_memory_use memory; /* the scan's */
    struct cht_entry *entries;    /* owned, HTTP_STREAM_ENTRIES */
    size_t have, pos;
    const struct http_stream_kind *kind;
    struct http_piece piece;
    struct http_early early;
    uint64_t last_key;
    struct svc_out last_name;
};

/* How a scan shows its entries. */
struct http_stream_kind {
    cht_scan_render *render; /* on the scan's workers; ctx is r->stream */
    bool runs;               /* `render` keeps nothing: it may be called by several threads at once */
    /* On the HTTP thread, for an entry flagged CHT_ENTRY_LARGE: the whole line into s->stage, or its beginning after a
     * successful stream_large. */
    void (*large)(struct http_stream *s, const struct cht_entry *e);
    const void *own; /* the kind's own use */
};

/* Makes r->stream; false after answering 503 if there are too many. */
bool http_stream_new(struct http_request *r,
                     enum http_more (*next)(struct http_stream *, const char **, size_t *));
/* Answers with r->stream: status 200, NDJSON. Ends the handler. */
void http_stream_begin(struct http_request *r);
void http_stream_free(struct http_request *r);
/* For libmicrohttpd: copies text to buf; 0: suspended, or a MHD_CONTENT_READER_END_. */
ssize_t http_stream_read(struct http_request *r, char *buf, size_t max);
/* Copies the text that there is to buf, at most max bytes. *more: TEXT: buf is full; LATER: more will come, and http_stream_wake be called;
 * END: that was all of it, and if s->cut, it is not whole. */
size_t http_stream_take(struct http_stream *s, char *buf, size_t max, enum http_more *more);
/* Nothing to send: the connection is suspended until http_stream_wake, which may have been already. */
void http_stream_wait(struct http_stream *s);
/* The source has something (any thread). At most one call for each HTTP_MORE_LATER. */
void http_stream_wake(struct http_stream *s);
/* Around what takes the store's locks on the HTTP thread (cht_store_enter). False: later, `wake` will be called. */
bool http_stream_enter(struct http_stream *s);
void http_stream_leave(struct http_stream *s);
/* On the HTTP thread: no more from the source; what follows is an error line. Wakes a suspended stream. Inside a long value:
 * that line comes after the value if the server is draining; else the stream is cut off. */
void http_stream_abort(struct http_stream *s, enum cht_rc why);

/* Answers with the lines in r->out. Ends the handler. */
void http_stream_out(struct http_request *r);
/* Answers with a scan of r->db: `cfg` without render and ready. Ends the handler. */
void http_stream_scan(struct http_request *r, struct cht_scan_config *cfg,
                      const struct http_stream_kind *kind);
/* {"end":{"count":N,"next":...}} staged, with "corrupt":N if values were damaged. next: NULL is null; else appended as it is. */
void http_stream_end_line(struct http_stream *s, const char *next);
void http_stream_error_line(struct http_stream *s, enum cht_rc rc, const char *detail);
/* The rest of a line, staged, whose value cannot be shown: `members` in its place (,"value":null), the error unless the key just
 * has no value (CHT_KEY_NOT_FOUND), the line's end. The stream goes on. */
void http_stream_no_value(struct http_stream *s, const char *members, enum cht_rc rc);
/* Opens a long value (as cht_value_open_soon) to be shown in pieces after what is staged: s->piece.size is its size. Then http_stream_show, or
 * form, part, tail are set. False: it has none (any more), *rc is CHT_KEY_NOT_FOUND or what failed. Stages nothing. */
/* A read failed for a reason that is no answer about what was read: the stream ends, with what is staged as its last line. */
bool http_stream_broken(struct http_stream *s, enum cht_rc rc, const struct cht_err *err);
bool http_stream_large(struct http_stream *s, uint64_t key, struct cht_wait *w, enum cht_rc *rc,
                       struct cht_err *err);
/* Its tag is shown, too: called after http_stream_large. */
void http_stream_tag(struct http_stream *s, uint64_t key);
/* It is shown as the member `what`, as text if that is asked for and it is that, and `tail` follows, which begins with the quote: stages a
 * comma and the member's name, if that is known already. */
void http_stream_show(struct http_stream *s, enum http_member what, const char *tail);
/* The next piece of it, or its tail, in place of what is staged. LATER: it has been looked at for long enough, others have their turn. END: it
 * cannot be read any more, and the stream is cut off. */
enum http_more http_stream_piece(struct http_stream *s);
