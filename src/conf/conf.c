/* conf: see conf.h. */
#include "conf/conf.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "base/nearest.h"

#include <stdlib.h>
#include <string.h>

enum kind { TEXT, CHOICE, BOOL, COUNT, BYTES, SECONDS };
enum source { DEFAULT, FROM_FILE, FROM_ENV, FROM_FLAG };

struct option {
    const char *name;
    enum kind kind;
    size_t offset; /* of the field in struct conf */
    const char *fallback;
    uint64_t min, max;   /* numbers */
    const char *choices; /* "a|b" */
    const char *help;
};

#define F(field) offsetof(struct conf, field)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)
static const struct option table[] = {
    {"listen", TEXT, F(listen), "127.0.0.1:8080", 0, 0, NULL,
     "address and port for HTTP; [::]:8080 for IPv6; port 0: any free one; unix:/path; "
     "systemd:NAME: the socket that systemd passes under this name"},
    {"port-file", TEXT, F(port_file), "", 0, 0, NULL, "file to write the port to once the server listens"},
    {"admin-listen", TEXT, F(admin_listen), "none", 0, 0, NULL,
     "address and port for /healthz, /readyz and /metrics alone, on a thread of their own; none: "
     "the main port only"},
    {"admin-port-file", TEXT, F(admin_port_file), "", 0, 0, NULL, "file to write that port to"},
    {"line-listen", TEXT, F(line_listen), "127.0.0.1:4455", 0, 0, NULL,
     "address and port for the line protocol, or unix:/path, or systemd:NAME; none: it is off; "
     "port 0: any free one"},
    {"line-port-file", TEXT, F(line_port_file), "", 0, 0, NULL,
     "file to write the port of the line protocol to"},
    {"line-tls", BOOL, F(line_tls), "false", 0, 0, NULL,
     "TLS for the line protocol, with --tls-cert; wanted beyond loopback if there are tokens"},
    {"data", TEXT, F(data), "./cheetah_data", 0, 0, NULL,
     "data directories, separated by commas, or one a --data; the first is home to new databases"},
    {"store", CHOICE, F(store), "local", 0, 0, "local|rados",
     "where the databases are: local, in the directories of --data; rados, in a pool of a Ceph cluster, "
     "which many servers may share"},
    {"rados-pool", TEXT, F(rados_pool), "", 0, 0, NULL, "the pool, a replicated one"},
    {"rados-conf", TEXT, F(rados_conf), "", 0, 0, NULL,
     "ceph.conf; none: where Ceph looks for it (CEPH_CONF, /etc/ceph/ceph.conf)"},
    {"rados-id", TEXT, F(rados_id), "", 0, 0, NULL, "the Ceph user, without \"client.\"; none: admin"},
    {"rados-timeout", SECONDS, F(rados_timeout), "10", 1, 600, NULL,
     "for one operation of the cluster; then 503 timeout"},
    {"rados-spool", TEXT, F(rados_spool), "/var/tmp", 0, 0, NULL,
     "folder in which a backup of files that is restored is laid out meanwhile, unseen"},
    {"rados-spool-bytes", BYTES, F(rados_spool_bytes), "8G", 1 << 20, 1024 * TIB, NULL,
     "what those under way may occupy there; more is answered 507 disk_full"},
    {"durability", CHOICE, F(durability), "sync", 0, 0, "sync|interval|os",
     "when a write is answered: sync after fdatasync, interval within --sync-interval-ms of it, os when the "
     "kernel has it"},
    {"sync-interval-ms", COUNT, F(interval_ms), "50", 1, 60000, NULL,
     "for --durability interval, and DURABILITY interval"},
    {"shards", COUNT, F(shards), "8", 1, 256, NULL, "shards of a new database"},
    {"create-databases", CHOICE, F(create_databases), "auto", 0, 0, "auto|admin",
     "how databases are made: auto by the first write to one, too; admin by PUT /databases/{name} only"},
    {"max-databases", COUNT, F(max_databases), "1000", 1, 1000000, NULL,
     "databases; beyond it none is made (503 too_many_databases), those that are there are served"},
    {"http-threads", COUNT, F(http_threads), "0", 0, 256, NULL, "HTTP threads; 0: one a core"},
    {"scan-workers", COUNT, F(scan_workers), "0", 0, 64, NULL,
     "scan threads a data directory; 0: one a core, at most 8"},
    {"max-value-size", BYTES, F(max_value_size), "16M", 1, GIB, NULL, "largest value"},
    {"max-batch-ops", COUNT, F(max_batch_ops), "100000", 1, 10000000, NULL, "operations of one batch"},
    {"max-batch-bytes", BYTES, F(max_batch_bytes), "64M", 1024, GIB, NULL,
     "body of one batch, and what its reads may answer"},
    {"max-ngrams-bytes", BYTES, F(max_ngrams_bytes), "64M", 1024, GIB, NULL, "body of one POST /ngrams"},
    {"max-document-tokens", COUNT, F(max_document_tokens), "1000000", 2, 100000000, NULL,
     "tokens of one document"},
    {"request-memory-bytes", BYTES, F(request_memory_bytes), "1G", 1 << 20, TIB, NULL,
     "memory of one request; what would need more is answered 413 request_too_large"},
    {"memory-bytes", BYTES, F(memory_bytes), "0", 0, TIB, NULL,
     "memory of all requests together, beyond which they are answered 503; 0: half of the memory"},
    {"max-connections", COUNT, F(max_connections), "4096", 1, 1000000, NULL,
     "connections; further ones are answered 503"},
    {"max-connections-per-address", COUNT, F(max_connections_per_address), "1024", 0, 1000000, NULL,
     "connections of one client address, by default of none of loopback; 0: no limit, for behind a proxy"},
    {"max-streams", COUNT, F(max_streams), "1024", 1, 100000, NULL,
     "streams at once, each of at most 4 MiB; further ones are answered 503"},
    {"line-threads", COUNT, F(line_threads), "0", 0, 256, NULL,
     "threads of the line protocol; 0: half the cores, at most 4"},
    {"line-connections", COUNT, F(line_connections), "1024", 1, 1000000, NULL,
     "connections of the line protocol; further ones are answered ERROR,overloaded"},
    {"line-idle-timeout", SECONDS, F(line_idle_timeout), "3600", 0, 31536000, NULL,
     "for a connection of the line protocol on which nothing moves; 0: none"},
    {"line-answer-bytes", BYTES, F(line_answer_bytes), "64M", 4096, GIB, NULL,
     "one page of PAIR_SCAN or PAIR_REDUCE: after that it ends, with a cursor"},
    {"max-header-bytes", BYTES, F(header_bytes), "20K", 8192, 1 << 20, NULL,
     "memory for the request line and headers of a connection; cleared for every request"},
    {"header-timeout", SECONDS, F(header_timeout), "30", 1, 86400, NULL, "for a request's line and headers"},
    {"body-timeout", SECONDS, F(body_timeout), "300", 1, 86400, NULL, "for a request's whole body"},
    {"idle-timeout", SECONDS, F(idle_timeout), "120", 1, 86400, NULL,
     "for a connection on which nothing moves, also one whose client does not read its answer"},
    {"drain-seconds", SECONDS, F(drain_seconds), "5", 0, 3600, NULL,
     "after SIGTERM: how long new requests are still served"},
    {"tokens", TEXT, F(tokens), "", 0, 0, NULL,
     "file of access tokens: lines TOKEN read|write|admin DATABASE,...|* [expires=TIME]; TOKEN: 16 or more "
     "characters, or sha256: and its hash"},
    {"allow-anonymous", BOOL, F(allow_anonymous), "false", 0, 0, NULL,
     "listen beyond loopback without tokens"},
    {"allow-hosts", TEXT, F(allow_hosts), "", 0, 0, NULL,
     "names besides addresses and localhost that requests may be for (Host), with commas, or *; checked "
     "without tokens, and always if given"},
    {"cors-origins", TEXT, F(cors_origins), "", 0, 0, NULL,
     "origins (https://host[:port], with commas) whose web pages may read answers and write"},
    {"tls-cert", TEXT, F(tls_cert), "", 0, 0, NULL, "certificate chain (PEM); with --tls-key serves HTTPS"},
    {"tls-key", TEXT, F(tls_key), "", 0, 0, NULL, "private key (PEM)"},
    {"tls-min", CHOICE, F(tls_min), "1.2", 0, 0, "1.2|1.3", "the oldest version of TLS that is spoken"},
    {"tls-ciphers", TEXT, F(tls_ciphers), "", 0, 0, NULL,
     "ciphers and key exchanges, a GnuTLS priority string; only what is forward secret; none: ECDHE with "
     "AES-GCM or "
     "ChaCha20-Poly1305"},
    {"tls-client-ca", TEXT, F(tls_client_ca), "", 0, 0, NULL,
     "authorities (PEM) whose client certificates are taken in place of tokens: lines cert:NAME of the file "
     "of --tokens"},
    {"tls-client-crl", TEXT, F(tls_client_crl), "", 0, 0, NULL,
     "lists (PEM) of certificates that those authorities have revoked; read again on SIGHUP"},
    {"log-format", CHOICE, F(log_format), "json", 0, 0, "json|text",
     "lines on stderr: for machines or for people"},
    {"log-level", CHOICE, F(log_level), "info", 0, 0, "error|warn|info|debug",
     "the least serious line that is written"},
    {"console", BOOL, F(console), "true", 0, 0, NULL, "the page /console/"},
    {"access-log", BOOL, F(access_log), "true", 0, 0, NULL, "one line a request"},
    {"checkpoint-log-bytes", BYTES, F(checkpoint_log_bytes), "1G", 1 << 20, TIB, NULL,
     "log since the last checkpoint that starts the next"},
    {"changes-bytes", BYTES, F(changes_bytes), "64M", 0, TIB, NULL,
     "log of a database that is kept for those who follow its changes, beyond what a restart needs"},
    {"dirty-bytes", BYTES, F(dirty_bytes), "0", 0, TIB, NULL,
     "changed memory of all databases that starts a checkpoint; 0: a quarter of the memory"},
    {"value-order", CHOICE, F(value_order), "resting", 0, 0, "resting|always|never",
     "which checkpoints put new values of at most 1 KiB in the order of their names, for scans: those of a "
     "database that rests, all, or none"},
    {"read-ahead", CHOICE, F(read_ahead), "auto", 0, 0, "auto|always|never",
     "whether the disk reads what lies around a page: while all databases fit into 3/4 of the memory, "
     "always, "
     "or never"},
    {"idle-close-seconds", SECONDS, F(idle_close_seconds), "300", 0, 31536000, NULL,
     "a database that was not used for so long is closed until it is used again; 0: never"},
    {"reduce-cache-bytes", BYTES, F(reduce_cache_bytes), "64M", 0, TIB, NULL,
     "answers of aggregates that are kept; as much again of what was read of live models"},
    {"reduce-memory-bytes", BYTES, F(reduce_memory_bytes), "256M", 1 << 20, TIB, NULL,
     "memory of one aggregate"},
    {"scrub-bytes-per-second", BYTES, F(scrub_bytes_per_second), "4M", 0, TIB, NULL,
     "how fast stored pages are compared with their checksums in the background; 0: never"},
    {"config", TEXT, F(config), "", 0, 0, NULL, "file with lines name = value"},
};
#define OPTIONS (sizeof table / sizeof *table)
_Static_assert(OPTIONS <= sizeof(((struct conf *)0)->source), "a source for every option");

static const char *const source_names[] = {"default", "file", "environment", "flag"};

static char **text_field(struct conf *c, const struct option *o) { return (char **)((char *)c + o->offset); }
static uint64_t *number_field(struct conf *c, const struct option *o)
{
    return (uint64_t *)((char *)c + o->offset);
}
static bool *bool_field(struct conf *c, const struct option *o) { return (bool *)((char *)c + o->offset); }

static void env_name(const struct option *o, char *out) /* 64 bytes */
{
    size_t n = sizeof "CHEETAH_" - 1;
    memcpy(out, "CHEETAH_", n);
    for (const char *p = o->name; *p != 0; p++)
        out[n++] = *p == '-' ? '_' : (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
    out[n] = 0;
}

static bool parse_number(const char *s, enum kind kind, uint64_t *out)
{
    uint64_t v = 0, unit = 1;
    if (*s < '0' || *s > '9')
        return false;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (v > (UINT64_MAX - 9) / 10)
            return false;
        v = v * 10 + (uint64_t)(*s - '0');
    }
    if (kind == BYTES && *s != 0) {
        const char *units = "KMG", *u = strchr(units, *s);
        if (u == NULL || s[1] != 0)
            return false;
        unit = UINT64_C(1) << (10 * (u - units + 1));
    } else if (*s != 0) {
        return false;
    }
    *out = v * unit;
    return v <= UINT64_MAX / unit;
}

static bool in_choices(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = choices; n > 0; p++) {
        if (strncmp(p, value, n) == 0 && (p[n] == '|' || p[n] == 0))
            return true;
        p = strchr(p, '|');
        if (p == NULL)
            break;
    }
    return false;
}

/* What the user wrote: --name, CHEETAH_NAME, or the name in the file. */
static enum cht_rc refuse(const struct option *o, enum source from, const char *value, struct cht_err *err)
{
    char where[80];
    if (from == FROM_ENV)
        env_name(o, where);
    else
        (void)snprintf(where, sizeof where, "%s%s", from == FROM_FLAG ? "--" : "", o->name);
    if (o->kind == CHOICE)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s (%s): '%.60s' is not one of %s", where,
                        source_names[from], value, o->choices);
    if (o->kind == TEXT)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s (%s): a line break is part of the value", where,
                        source_names[from]);
    if (o->kind == BOOL)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s (%s): '%.60s' is neither true nor false", where,
                        source_names[from], value);
    return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s (%s): '%.60s' is not a number from %llu to %llu%s", where,
                    source_names[from], value, (unsigned long long)o->min, (unsigned long long)o->max,
                    o->kind == BYTES ? " (K, M and G may follow)" : "");
}

/* "a" and "b": "a,b". */
static char *append(const char *list, const char *value)
{
    size_t n = strlen(list) + strlen(value) + 2;
    char *both = cht_malloc(n);
    if (both != NULL)
        (void)snprintf(both, n, "%s,%s", list, value); /* fits */
    return both;
}

static enum cht_rc set(struct conf *c, const struct option *o, enum source from, const char *value,
                       struct cht_err *err)
{
    size_t row = (size_t)(o - table);
    uint64_t n = 0;
    if (c->source[row] > (unsigned char)from)
        return CHT_OK; /* a stronger source has spoken; reading goes from strong to weak only for the file's name */
    switch (o->kind) {
    case CHOICE:
        if (!in_choices(o->choices, value))
            return refuse(o, from, value, err);
        /* fall through */
    case TEXT: {
        if (strchr(value, '\n') != NULL)
            return refuse(o, from, value, err);
        bool again = o->offset == F(data) && from != DEFAULT && c->source[row] == (unsigned char)from;
        char *copy = again ? append(c->data, value) : cht_strdup(value);
        if (copy == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the configuration");
        cht_free(*text_field(c, o));
        *text_field(c, o) = copy;
        break;
    }
    case BOOL:
        if (strcmp(value, "true") != 0 && strcmp(value, "1") != 0 && strcmp(value, "false") != 0 &&
            strcmp(value, "0") != 0)
            return refuse(o, from, value, err);
        *bool_field(c, o) = value[0] == 't' || value[0] == '1';
        break;
    case COUNT:
    case BYTES:
    case SECONDS:
        if (!parse_number(value, o->kind, &n) || n < o->min || n > o->max)
            return refuse(o, from, value, err);
        *number_field(c, o) = n;
        break;
    }
    c->source[row] = (unsigned char)from;
    return CHT_OK;
}

static const struct option *find(const char *name, size_t n)
{
    for (size_t i = 0; i < OPTIONS; i++) {
        if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0)
            return &table[i];
    }
    return NULL;
}

/* The option that n letters of a name are most like; NULL: none is. */
static const char *most_like(const char *name, size_t n)
{
    char word[64];
    struct cht_nearest near = {.word = word};
    if (n >= sizeof word)
        return NULL;
    memcpy(word, name, n);
    word[n] = 0;
    for (size_t i = 0; i < OPTIONS; i++)
        cht_nearest_try(&near, table[i].name);
    return near.best;
}

/* n letters after "--"; 0: it is no option at all. */
static enum cht_rc unknown_flag(const char *arg, size_t n, struct cht_err *err)
{
    const char *like = n > 0 ? most_like(arg + 2, n) : NULL;
    if (like != NULL)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "unknown option '%.80s'; did you mean --%s?", arg, like);
    return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "unknown option '%.80s'; see cheetah-db serve --help", arg);
}

static enum cht_rc unknown_in_file(const char *path, unsigned number, const char *name, struct cht_err *err)
{
    const char *like = most_like(name, strlen(name));
    return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s line %u: unknown option '%.60s'%s%s%s", path, number, name,
                    like != NULL ? "; did you mean " : "", like != NULL ? like : "", like != NULL ? "?" : "");
}

/* Flags of bool options need no value. */
static enum cht_rc read_flags(struct conf *c, int argc, char **argv, struct cht_err *err)
{
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            c->help = true;
            continue;
        }
        if (strcmp(arg, "--print-config") == 0) {
            c->print = true;
            continue;
        }
        size_t n = CHT_BEGINS(arg, "--") ? strcspn(arg + 2, "=") : 0;
        const struct option *o = n > 0 ? find(arg + 2, n) : NULL;
        if (o == NULL)
            return unknown_flag(arg, n, err);
        const char *value = arg[2 + n] == '=' ? arg + 3 + n : NULL;
        bool next_is_value = i + 1 < argc && !CHT_BEGINS(argv[i + 1], "--");
        if (value == NULL && next_is_value)
            value = argv[++i];
        else if (value == NULL && o->kind == BOOL)
            value = "true";
        if (value == NULL)
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "option --%s needs a value", o->name);
        enum cht_rc rc = set(c, o, FROM_FLAG, value, err);
        if (rc != CHT_OK)
            return rc;
    }
    return CHT_OK;
}

static enum cht_rc read_env(struct conf *c, const char *(*get)(const char *), struct cht_err *err)
{
    char name[64];
    for (size_t i = 0; i < OPTIONS; i++) {
        env_name(&table[i], name);
        const char *value = get(name);
        enum cht_rc rc = value != NULL ? set(c, &table[i], FROM_ENV, value, err) : CHT_OK;
        if (rc != CHT_OK)
            return rc;
    }
    return CHT_OK;
}

static char *trim(char *s)
{
    s += strspn(s, " \t\r\n");
    size_t n = strlen(s);
    while (n > 0 && strchr(" \t\r\n", s[n - 1]) != NULL)
        s[--n] = 0;
    return s;
}

/* One line of the file. A # begins a comment at the start of a line or after a blank. */
static enum cht_rc read_line(struct conf *c, const char *path, unsigned number, char *line,
                             struct cht_err *err)
{
    for (char *p = line; (p = strchr(p, '#')) != NULL; p++) {
        if (p == line || p[-1] == ' ' || p[-1] == '\t') {
            *p = 0;
            break;
        }
    }
    char *name = trim(line), *eq = strchr(name, '=');
    if (*name == 0)
        return CHT_OK;
    if (eq == NULL)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s line %u: expected name = value", path, number);
    *eq = 0;
    char *value = trim(eq + 1);
    name = trim(name);
    const struct option *o = find(name, strlen(name));
    if (o != NULL && strcmp(name, "config") == 0) /* as --print-config writes it: a file names no other */
        return CHT_OK;
    if (o == NULL)
        return unknown_in_file(path, number, name, err);
    return set(c, o, FROM_FILE, value, err);
}

/* Whether the line that fgets has put there, into bytes that were not 0, has a NUL in it. */
static bool has_nul(const char *line, size_t size)
{
    while (line[size - 1] != 0)
        size--;
    return strlen(line) != size - 1;
}

static enum cht_rc read_file(struct conf *c, struct cht_err *err)
{
    char line[4096];
    memset(line, 1, sizeof line);
    if (c->config[0] == 0)
        return CHT_OK;
    FILE *f = fopen(c->config, "r");
    if (f == NULL)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the file of --config, %s, cannot be read", c->config);
    enum cht_rc rc = CHT_OK;
    for (unsigned number = 1; rc == CHT_OK && fgets(line, sizeof line, f) != NULL; number++) {
        if (strlen(line) == sizeof line - 1)
            rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s line %u is too long", c->config, number);
        else if (has_nul(line, sizeof line))
            rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s line %u has a NUL in it", c->config, number);
        else
            rc = read_line(c, c->config, number, line, err);
        memset(line, 1, sizeof line);
    }
    if (rc == CHT_OK && ferror(f))
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the file of --config, %s, cannot be read", c->config);
    (void)fclose(f); /* opened for reading */
    return rc;
}

static const char *process_env(const char *name)
{
    return getenv(name); /* NOLINT(concurrency-mt-unsafe): one thread yet */
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc conf_read(struct conf *c, int argc, char **argv, const char *(*getenv_fn)(const char *),
                      struct cht_err *err)
{
    memset(c, 0, sizeof *c);
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < OPTIONS && rc == CHT_OK; i++)
        rc = set(c, &table[i], DEFAULT, table[i].fallback, err);
    if (rc == CHT_OK)
        rc = read_flags(c, argc, argv, err);
    if (rc == CHT_OK && !c->help)
        rc = read_env(c, getenv_fn != NULL ? getenv_fn : process_env, err);
    if (rc == CHT_OK && !c->help)
        rc = read_file(c, err);
    return rc;
}

bool conf_given(const struct conf *c, const char *name)
{
    const struct option *o = find(name, strlen(name));
    return o != NULL && c->source[o - table] != DEFAULT;
}

void conf_fini(struct conf *c)
{
    for (size_t i = 0; i < OPTIONS; i++) {
        if (table[i].kind == TEXT || table[i].kind == CHOICE)
            cht_free(*text_field(c, &table[i]));
    }
    memset(c, 0, sizeof *c);
}

/* What could not be written shows in ferror, which main asks once at the end. */
void conf_help(FILE *out)
{
    (void)fputs("cheetah-db serve [OPTION ...]: the database over HTTP\n\n"
                "An option is set by its flag, else by its environment variable (CHEETAH_LISTEN for "
                "--listen), else by\n"
                "the file of --config (lines \"listen = ...\"), else it has the default shown. K, M, G: "
                "powers of 1024.\n\n",
                out);
    for (size_t i = 0; i < OPTIONS; i++) {
        static const char *const what[] = {"TEXT", "", "BOOL", "N", "BYTES", "SECONDS"};
        const struct option *o = &table[i];
        uint64_t n = 0;
        (void)fprintf(out, "  --%s %s\n      %s (default: %s", o->name,
                      o->kind == CHOICE ? o->choices : what[o->kind], o->help,
                      o->fallback[0] == 0 ? "none" : o->fallback);
        if (o->kind == BYTES && parse_number(o->fallback, o->kind, &n) && n >= 1024)
            (void)fprintf(out, ", %llu bytes", (unsigned long long)n);
        (void)fputs(")\n", out);
    }
    (void)fputs(
        "  --print-config\n      show every option, its value and where it came from, and exit\n"
        "  --help\n\n"
        "SIGTERM or SIGINT: /readyz turns 503, requests are served for --drain-seconds, a checkpoint is "
        "taken,\n"
        "exit 0. A second one ends at once; what was acknowledged is recovered at the next start.\n"
        "Exit codes: 0 stopped; 1 it failed; 2 the configuration is wrong; 3 stored data is damaged.\n",
        out);
}

/* A file can say it: no blanks around it, and nothing that begins a comment. */
static bool fits_file(const char *value)
{
    size_t n = strlen(value);
    if (n > 0 && (strchr(" \t\r", value[0]) != NULL || strchr(" \t\r", value[n - 1]) != NULL))
        return false;
    return strstr(value, " #") == NULL && strstr(value, "\t#") == NULL;
}

static void print_text(const struct option *o, const char *value, FILE *out)
{
    if (!fits_file(value))
        (void)fprintf(out, "# not for a file: ");
    (void)fprintf(out, "%s =%s%s", o->name, value[0] == '#' ? "" : " ", value);
}

void conf_print(const struct conf *c, FILE *out)
{
    struct conf *v = (struct conf *)c; /* the accessors do not write */
    for (size_t i = 0; i < OPTIONS; i++) {
        const struct option *o = &table[i];
        if (o->kind == TEXT || o->kind == CHOICE)
            print_text(o, *text_field(v, o), out);
        else if (o->kind == BOOL)
            (void)fprintf(out, "%s = %s", o->name, *bool_field(v, o) ? "true" : "false");
        else
            (void)fprintf(out, "%s = %llu", o->name, (unsigned long long)*number_field(v, o));
        (void)fprintf(out, "  # %s\n", source_names[c->source[i]]);
    }
}
