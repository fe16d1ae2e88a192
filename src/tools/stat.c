/* stat: `cheetah-db stat`: what databases hold, in a running server or, with --data, in the directories of a stopped one, where
 * it also measures the shape of the tries. Opening the directories recovers a database that was not stopped cleanly.
 *
 * For people it fits a screen: values by ranges of lengths (1 to 15, 16 to 255, ...), shards each if they are few and else by their
 * directories; --lengths and --shards show them all. --json: a line for each database: numbers, "lengths", "places", and of a stopped one "trie".
 */
#include "tools/json.h"
#include "tools/place.h"
#include "tools/progress.h"
#include "tools/tools.h"

#include "base/alloc.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char help_before[] =
    "cheetah-db stat [NAME] [OPTION ...]\n"
    "\n"
    "What a database holds, or all of them: pairs, values and their bytes, values by length, shards and\n"
    "their directories, files and log; of a stopped server also the shape of the tries of the names.\n"
    "\n";
static const char help_after[] =
    "\n"
    "Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 stored data is damaged.\n";

struct job {
    const char *name; /* NULL: all */
    struct tool_place place;
    bool json, all_lengths, all_shards;
    struct cht_env *env; /* of a stopped server */
    int code;
};

/* ---- printing --------------------------------------------------------------------------------------------------------- */

#define RANGES 9u       /* of lengths: each to 16 times the one before; the last holds what is longer */
#define SHARDS_SHOWN 8u /* more are summed up by directory */
#define DIRS_SHOWN 64u

static uint64_t number(const json_t *o, const char *name)
{
    json_int_t v = json_integer_value(json_object_get(o, name));
    return v < 0 ? 0 : (uint64_t)v;
}

/* The lengths or the shards of a database on their way out. */
struct listing {
    bool json, all;
    size_t count;
    struct {
        uint64_t least, most, live, slots, bytes, lengths;
    } range[RANGES];
    struct cht_shard_stat
        first[SHARDS_SHOWN]; /* for people, until it is known whether there are more; dir is owned */
    struct {
        char *dir; /* owned */
        uint64_t shards, pairs, values, file_bytes;
    } dirs[DIRS_SHOWN];
    size_t dir_count;
    bool no_memory;
};

static void comma(struct listing *l)
{
    if (l->json && l->count > 0)
        (void)fputc(',', stdout);
    l->count++;
}

static void add_to_range(struct listing *l, uint64_t length, uint64_t live, uint64_t slots)
{
    unsigned i = 0;
    while (i + 1 < RANGES && length >= UINT64_C(16) << (4 * i))
        i++;
    l->range[i].least = l->range[i].lengths == 0 || length < l->range[i].least ? length : l->range[i].least;
    l->range[i].most = length > l->range[i].most ? length : l->range[i].most;
    l->range[i].lengths++;
    l->range[i].live += live;
    l->range[i].slots += slots;
    l->range[i].bytes += live * length;
}

/* extents UINT64_MAX: not known. */
static void length_row(struct listing *l, uint64_t length, uint64_t live, uint64_t slots, uint64_t extents)
{
    char bytes[16];
    if (!l->json && !l->all) {
        add_to_range(l, length, live, slots);
        return;
    }
    tool_progress_number(bytes, length * live, true);
    comma(l);
    if (l->json)
        (void)printf("{\"length\":%" PRIu64 ",\"live\":%" PRIu64 ",\"slots\":%" PRIu64, length, live, slots);
    else
        (void)printf("  length %-10" PRIu64 " live %-12" PRIu64 " slots %-12" PRIu64 " %-9s", length, live,
                     slots, bytes);
    if (extents != UINT64_MAX)
        (void)printf(l->json ? ",\"extents\":%" PRIu64 : " extents %" PRIu64, extents);
    (void)fputs(l->json ? "}" : "\n", stdout);
}

/* One that the server has summed up. */
static void add_range(struct listing *l, const json_t *x)
{
    unsigned i = 0;
    while (i + 1 < RANGES && number(x, "least") >= UINT64_C(16) << (4 * i))
        i++;
    l->range[i].least = number(x, "least");
    l->range[i].most = number(x, "most");
    l->range[i].lengths = number(x, "lengths");
    l->range[i].live = number(x, "values");
    l->range[i].slots = number(x, "slots");
    l->range[i].bytes = number(x, "bytes");
}

static void print_ranges(const struct listing *l)
{
    for (unsigned i = 0; i < RANGES; i++) {
        char bytes[16], what[48];
        if (l->range[i].lengths == 0)
            continue;
        tool_progress_number(bytes, l->range[i].bytes, true);
        if (l->range[i].least == l->range[i].most)
            (void)snprintf(what, sizeof what, "%" PRIu64, l->range[i].least);
        else
            (void)snprintf(what, sizeof what, "%" PRIu64 " to %" PRIu64, l->range[i].least, l->range[i].most);
        (void)printf("  lengths %-20s live %-12" PRIu64 " slots %-12" PRIu64 " %s\n", what, l->range[i].live,
                     l->range[i].slots, bytes);
    }
}

static void print_shard_row(const struct cht_shard_stat *s)
{
    (void)printf("  shard %-3u pairs %-12" PRIu64 " values %-12" PRIu64 " file_bytes %-14" PRIu64 " %s\n",
                 s->shard, s->pairs, s->values, s->file_bytes, s->dir);
}

/* Sums up by directory, and keeps the first ones whole. */
static void keep_shard(struct listing *l, const struct cht_shard_stat *s)
{
    size_t i = 0;
    while (i < l->dir_count && strcmp(l->dirs[i].dir, s->dir) != 0)
        i++;
    if (i == l->dir_count && i < DIRS_SHOWN) {
        l->dirs[i].dir = cht_strdup(s->dir);
        l->no_memory = l->no_memory || l->dirs[i].dir == NULL;
        l->dir_count += l->dirs[i].dir != NULL;
    }
    if (i < l->dir_count) {
        l->dirs[i].shards++;
        l->dirs[i].pairs += s->pairs;
        l->dirs[i].values += s->values;
        l->dirs[i].file_bytes += s->file_bytes;
    }
    if (l->count <= SHARDS_SHOWN && i < l->dir_count) {
        l->first[l->count - 1] = *s;
        l->first[l->count - 1].dir = l->dirs[i].dir;
    }
}

static void shard_row(struct listing *l, const struct cht_shard_stat *s)
{
    comma(l);
    if (l->json) {
        (void)printf("{\"shard\":%u,\"dir\":", s->shard);
        tool_json_string(stdout, s->dir);
        (void)printf(",\"pairs\":%" PRIu64 ",\"values\":%" PRIu64 ",\"value_bytes\":%" PRIu64
                     ",\"file_bytes\":%" PRIu64 ",\"checkpoint_seq\":%" PRIu64 "}",
                     s->pairs, s->values, s->value_bytes, s->file_bytes, s->checkpoint_seq);
    } else if (l->all) {
        print_shard_row(s);
    } else {
        keep_shard(l, s);
    }
}

/* Prints what was kept. False after a message: no memory. */
static bool print_shards(struct listing *l)
{
    bool few = l->count <= SHARDS_SHOWN;
    for (size_t i = 0; !l->no_memory && few && i < l->count; i++)
        print_shard_row(&l->first[i]);
    for (size_t i = 0; i < l->dir_count; i++) {
        if (!few && !l->no_memory)
            (void)printf("  %-3" PRIu64 " shards pairs %-12" PRIu64 " values %-12" PRIu64
                         " file_bytes %-14" PRIu64 " %s\n",
                         l->dirs[i].shards, l->dirs[i].pairs, l->dirs[i].values, l->dirs[i].file_bytes,
                         l->dirs[i].dir);
        cht_free(l->dirs[i].dir);
    }
    if (l->no_memory)
        (void)fprintf(stderr, "cheetah-db stat: no memory for the shards\n");
    return !l->no_memory;
}

static void end_lengths(const struct job *j, const struct listing *lengths)
{
    if (j->json)
        (void)fputs("],\"places\":[", stdout);
    else if (!lengths->all)
        print_ranges(lengths);
}

/* False after a message. */
static bool end_shards(const struct job *j, struct listing *shards)
{
    if (j->json)
        (void)fputs("]}\n", stdout);
    return j->json || shards->all || print_shards(shards);
}

struct row {
    const char *key;
    uint64_t value;
};

static void numbers(const char *name, const struct row *rows, size_t n, bool json)
{
    (void)printf(json ? "{\"database\":\"%s\"" : "%s\n", name); /* a valid name needs no escape */
    for (size_t i = 0; i < n; i++)
        (void)printf(json ? ",\"%s\":%" PRIu64 : "  %-12s %" PRIu64 "\n", rows[i].key, rows[i].value);
}

static void shape(const struct cht_shape_stat *t, bool json)
{
    if (json)
        (void)printf(",\"trie\":{\"leaves\":%" PRIu64 ",\"leaf_bytes\":%" PRIu64 ",\"nodes_4\":%" PRIu64
                     ",\"nodes_16\":%" PRIu64 ",\"nodes_48\":%" PRIu64 ",\"nodes_256\":%" PRIu64
                     ",\"depth\":%u}",
                     t->leaves, t->leaf_bytes, t->nodes[0], t->nodes[1], t->nodes[2], t->nodes[3], t->depth);
    else
        (void)printf("  trie leaves %" PRIu64 " (%.0f%% full) nodes of 4 %" PRIu64 " of 16 %" PRIu64
                     " of 48 %" PRIu64 " of 256 %" PRIu64 " depth %u\n",
                     t->leaves, t->leaves > 0 ? (double)t->leaf_bytes / (double)t->leaves / 40.96 : 0.0,
                     t->nodes[0], t->nodes[1], t->nodes[2], t->nodes[3], t->depth);
}

/* ---- a stopped server --------------------------------------------------------------------------------------------------- */

static void print_length(void *ctx, const struct cht_length_stat *s)
{
    length_row(ctx, s->length, s->live, s->slots, s->extents);
}

static void print_shard(void *ctx, const struct cht_shard_stat *s) { shard_row(ctx, s); }

/* The numbers of a store that has just been opened; what counts since then (commits, syncs) says nothing here. */
static int stopped_one(struct job *j, const char *name)
{
    struct cht_err err = {0};
    struct cht_store *s;
    struct cht_store_stats st;
    struct cht_shape_stat t;
    struct listing lengths = {.json = j->json, .all = j->all_lengths};
    struct listing shards = {.json = j->json, .all = j->all_shards};
    enum cht_rc rc = cht_env_get(j->env, name, &s, &err);
    if (rc == CHT_OK)
        rc = cht_store_stats(s, &st, &err);
    if (rc == CHT_OK)
        rc = cht_store_shape(s, &t, &err);
    if (rc != CHT_OK)
        return tool_failed(&err);
    const struct row rows[] = {
        {"shards", st.shards},           {"pairs", st.pairs},       {"values", st.values},
        {"value_bytes", st.value_bytes}, {"next_key", st.next_key}, {"file_bytes", st.file_bytes},
        {"log_bytes", st.log_bytes},     {"log_live", st.log_live}, {"log_seq", st.log_seq},
        {"corrupt", st.corrupt},
    };
    numbers(name, rows, sizeof rows / sizeof *rows, j->json);
    shape(&t, j->json);
    (void)fputs(j->json ? ",\"lengths\":[" : "", stdout);
    rc = cht_store_lengths(s, print_length, &lengths, &err);
    end_lengths(j, &lengths);
    if (rc == CHT_OK)
        rc = cht_store_shards(s, print_shard, &shards, &err);
    bool ok = end_shards(j, &shards);
    if (rc != CHT_OK)
        return tool_failed(&err);
    return ok ? TOOL_EXIT_OK : TOOL_EXIT_FAILED;
}

/* Each in its turn, whatever became of the one before; the first failure is the exit code. Called by cht_env_list, which holds
 * no lock of the environment. */
static void stopped_each(void *ctx, const char *name)
{
    struct job *j = ctx;
    int code = stopped_one(j, name);
    j->code = j->code == TOOL_EXIT_OK ? code : j->code;
}

static int stopped(struct job *j)
{
    struct cht_err err = {0};
    struct tool_dirs dirs = {NULL, 0};
    int code = tool_dirs(&j->place.data, &dirs) ? tool_need_dirs(&dirs) : TOOL_EXIT_USAGE;
    struct cht_env_config cfg = {.dirs = (const char *const *)dirs.v,
                                 .dir_count = dirs.n,
                                 .mode = CHT_DIRS_AS_FOUND,
                                 .scan_workers = 1};
    if (code == TOOL_EXIT_OK && cht_env_open(&cfg, &j->env, &err) != CHT_OK)
        code = tool_failed(&err);
    if (code == TOOL_EXIT_OK) {
        if (j->name != NULL)
            code = stopped_one(j, j->name);
        else
            code = cht_env_list(j->env, stopped_each, j, &err) == CHT_OK ? j->code : tool_failed(&err);
        if (cht_env_close(j->env, &err) != CHT_OK && code == TOOL_EXIT_OK)
            code = tool_failed(&err);
    }
    tool_dirs_fini(&dirs);
    return code;
}

/* ---- a running one ------------------------------------------------------------------------------------------------------- */

static bool print_answer(const struct job *j, const char *name, const json_t *o)
{
    const json_t *log = json_object_get(o, "log"), *lengths = json_object_get(o, "lengths");
    const json_t *shards = json_object_get(o, "shards"), *x;
    struct listing a = {.json = j->json, .all = j->all_lengths}, b = {.json = j->json, .all = j->all_shards};
    size_t i;
    const struct row rows[] = {
        {"shards", json_array_size(shards)},
        {"pairs", number(o, "pairs")},
        {"values", number(o, "values")},
        {"value_bytes", number(o, "value_bytes")},
        {"next_key", number(o, "next_key")},
        {"file_bytes", number(o, "file_bytes")},
        {"dirty_bytes", number(o, "dirty_bytes")},
        {"log_bytes", number(log, "bytes")},
        {"log_live", number(log, "since_checkpoint")},
        {"log_seq", number(log, "position")},
        {"read_only", json_is_true(json_object_get(o, "read_only"))},
    };
    numbers(name, rows, sizeof rows / sizeof *rows, j->json);
    (void)fputs(j->json ? ",\"lengths\":[" : "", stdout);
    for (i = 0; i < json_array_size(lengths); i++) {
        x = json_array_get(lengths, i);
        if (json_object_get(x, "least") != NULL) /* servers up to 0.2.0 have no ranges */
            add_range(&a, x);
        else
            length_row(&a, number(x, "length"), number(x, "values"), number(x, "slots"), UINT64_MAX);
    }
    end_lengths(j, &a);
    for (i = 0; i < json_array_size(shards); i++) {
        x = json_array_get(shards, i);
        const char *dir = json_string_value(json_object_get(x, "directory"));
        struct cht_shard_stat s = {.shard = (unsigned)number(x, "shard"),
                                   .dir = dir != NULL ? dir : "",
                                   .pairs = number(x, "pairs"),
                                   .values = number(x, "values"),
                                   .value_bytes = number(x, "value_bytes"),
                                   .file_bytes = number(x, "file_bytes"),
                                   .checkpoint_seq = number(x, "checkpoint")};
        shard_row(&b, &s);
    }
    return end_shards(j, &b);
}

static enum cht_rc ask(struct job *j, const char *path, json_t **out, struct cht_err *err)
{
    struct cht_buf b = {0};
    enum cht_rc rc = tool_client_get(j->place.client, path, &b, err);
    *out = rc == CHT_OK ? json_loadb((const char *)b.data, b.len, 0, NULL) : NULL;
    if (rc == CHT_OK && !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        rc = CHT_FAIL(err, CHT_IO, "%s does not describe its databases; is it a cheetah-db server?",
                      tool_place_name(&j->place));
    }
    cht_buf_free(&b);
    return rc;
}

static int running_one(struct job *j, const char *name)
{
    struct cht_err err = {0};
    char path[128];
    json_t *o;
    (void)snprintf(path, sizeof path, "/databases/%.64s%s", name,
                   j->json || j->all_lengths ? "?lengths=all" : ""); /* fits */
    if (ask(j, path, &o, &err) != CHT_OK)
        return tool_failed(&err);
    bool ok = print_answer(j, name, o);
    json_decref(o);
    return ok ? TOOL_EXIT_OK : TOOL_EXIT_FAILED;
}

static int running_all(struct job *j)
{
    struct cht_err err = {0};
    json_t *o;
    const json_t *names;
    if (ask(j, "/databases", &o, &err) != CHT_OK)
        return tool_failed(&err);
    names = json_object_get(o, "databases");
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        int code = name != NULL && cht_database_name_valid(name) ? running_one(j, name) : TOOL_EXIT_FAILED;
        j->code = j->code == TOOL_EXIT_OK ? code : j->code;
    }
    json_decref(o);
    return j->code;
}

static int running(struct job *j)
{
    int code = tool_place_open("stat", &j->place, false);
    if (code == TOOL_EXIT_OK)
        code = j->name != NULL ? running_one(j, j->name) : running_all(j);
    return tool_place_close(&j->place, code);
}

/* --------------------------------------------------------------------------------------------------------------------------- */

int tool_stat(int argc, char **argv)
{
    struct job j = {.code = TOOL_EXIT_OK};
    bool wants_help = false;
    int rest;
    const struct tool_opt opts[] = {
        {"lengths", 0, TOOL_OPT_FLAG, &j.all_lengths, 0, NULL, "every length of values by itself"},
        {"shards", 0, TOOL_OPT_FLAG, &j.all_shards, 0, NULL, "every shard, however many there are"},
        TOOL_PLACE_OPTS(&j.place),
        {"json", 0, TOOL_OPT_FLAG, &j.json, 0, NULL, "one JSON object a line"},
        {"help", 'h', TOOL_OPT_FLAG, &wants_help, 0, NULL, NULL},
    };
    if (!tool_args_parse(opts, sizeof opts / sizeof *opts, argc, argv, &rest))
        return TOOL_EXIT_USAGE;
    if (wants_help)
        return tool_args_help(help_before, opts, sizeof opts / sizeof *opts, help_after);
    if (rest > 1)
        return tool_usage("stat", "takes one name");
    j.name = rest == 1 ? argv[0] : NULL;
    if (j.name != NULL && !cht_database_name_valid(j.name))
        return tool_usage("stat", "a database name is " CHT_DATABASE_NAME_RULE);
    int code = tool_place_check("stat", &j.place);
    if (code != TOOL_EXIT_OK)
        return code;
    return tool_place_stopped(&j.place) ? stopped(&j) : running(&j);
}
