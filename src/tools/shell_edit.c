/* shell_edit: the shell on a terminal: prompt, editing, history and completion by libedit, answers for people. */
#include "tools/shell.h"

#include "os/net.h"
#include "os/terminal.h"
#include "reduce/mode.h"
#include "tcp/command.h"
#include "tools/shell_show.h"

#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY 2000
#define WORD_MAX 64u

struct editor {
    struct tool_shell *shell;
    EditLine *el;
    History *history;
    char prompt[160];
    char file[1024]; /* of the history; empty: none */
};

/* What can stand at a place: the words of a table, one after the other, NULL after the last. */
typedef const char *words(unsigned i);

static const char *command_word(unsigned i)
{
    unsigned first = LINE_NONE + 1, n = LINE_VERBS - first;
    return i < n ? line_verb_name((enum line_verb)(first + i)) : i == n ? "HELP" : NULL;
}

/* The commands of the protocol take modes that show payloads, no aggregates. */
static const char *mode_word(unsigned i)
{
    const struct reduce_mode *m = reduce_mode_at(i);
    return m != NULL && m->kind != REDUCE_AGGREGATE ? m->names[0] : NULL;
}

/* ---- lines -------------------------------------------------------------------------------------------------------- */

static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c; }

/* The first word of a line in capitals; returns what stands after it and its blanks. */
static const char *first_word(const char *line, char out[WORD_MAX])
{
    size_t n = 0;
    line += strspn(line, " ");
    while (*line != 0 && *line != ' ' && n < WORD_MAX - 1)
        out[n++] = upper(*line++);
    out[n] = 0;
    return line + strspn(line, " ");
}

/* ---- completion --------------------------------------------------------------------------------------------------- */

static bool begins(const char *word, const char *with, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (upper(word[i]) != upper(with[i])) /* a shorter word has its zero there */
            return false;
    }
    return true;
}

/* Inserts what all candidates have in common; lists them if that is nothing new. */
static unsigned char complete_from(EditLine *el, words *word, const char *typed, size_t n)
{
    const char *first = NULL, *w;
    size_t common = 0, count = 0;
    for (unsigned i = 0; (w = word(i)) != NULL; i++) {
        if (!begins(w, typed, n))
            continue;
        if (count++ == 0) {
            first = w;
            common = strlen(w);
        }
        size_t k = n;
        while (k < common && w[k] == first[k])
            k++;
        common = k;
    }
    if (count == 0)
        return CC_ERROR;
    if (count > 1 && common == n) {
        (void)fputc('\n', stdout);
        for (unsigned i = 0; (w = word(i)) != NULL; i++) {
            if (begins(w, typed, n))
                (void)printf("%s  ", w);
        }
        (void)fputc('\n', stdout);
        return CC_REDISPLAY;
    }
    char text[WORD_MAX + 2];
    (void)snprintf(text, sizeof text, "%.*s%s", (int)common, first, count == 1 ? " " : "");
    el_deletestr(el, (int)n); /* in capitals, as the command is written */
    return el_insertstr(el, text) == 0 ? CC_REFRESH : CC_ERROR;
}

static unsigned char complete(EditLine *el, int key)
{
    const LineInfo *info = el_line(el);
    const char *start = info->cursor;
    char word[WORD_MAX];
    char before[256];
    (void)key;
    while (start > info->buffer && start[-1] != ' ')
        start--;
    size_t n = (size_t)(info->cursor - start), lead = (size_t)(start - info->buffer);
    if (n >= WORD_MAX || lead >= sizeof before)
        return CC_ERROR;
    memcpy(before, info->buffer, lead);
    before[lead] = 0;
    const char *rest = first_word(before, word);
    if (word[0] == 0 || (strcmp(word, "HELP") == 0 && *rest == 0))
        return complete_from(el, command_word, start, n);
    if (strcmp(word, "PAIR_REDUCE") == 0 && *rest == 0)
        return complete_from(el, mode_word, start, n);
    return CC_ERROR;
}

/* ---- history ------------------------------------------------------------------------------------------------------ */

static void find_history(struct editor *e)
{
    const char *file = getenv("CHEETAH_HISTORY"); /* NOLINT(concurrency-mt-unsafe): nobody changes it */
    const char *home = getenv("HOME");            /* NOLINT(concurrency-mt-unsafe): likewise */
    int n = 0;
    if (file != NULL)
        n = snprintf(e->file, sizeof e->file, "%s", file);
    else if (home != NULL && home[0] != 0)
        n = snprintf(e->file, sizeof e->file, "%s/.cheetah_history", home);
    if (n < 0 || (size_t)n >= sizeof e->file)
        e->file[0] = 0;
}

/* Tokens are not kept. */
static void remember(struct editor *e, const char *line)
{
    char word[WORD_MAX];
    HistEvent event;
    (void)first_word(line, word);
    if (strcmp(word, "AUTH") != 0)
        (void)history(e->history, &event, H_ENTER, line); /* without it the line is only not kept */
}

/* ---- the conversation --------------------------------------------------------------------------------------------- */

static char *prompt(EditLine *el)
{
    struct editor *e = NULL;
    (void)el_get(el, EL_CLIENTDATA, &e); /* set before the first prompt */
    (void)snprintf(e->prompt, sizeof e->prompt, "[%s/%s]> ", e->shell->place, e->shell->database);
    return e->prompt;
}

static void note_database(struct tool_shell *s, struct cht_str answer)
{
    static const char mark[] = "SUCCESS,database_changed_to_";
    size_t n = strlen(mark);
    if (answer.n <= n || answer.n - n >= sizeof s->database || memcmp(answer.p, mark, n) != 0)
        return;
    memcpy(s->database, answer.p + n, answer.n - n);
    s->database[answer.n - n] = 0;
}

/* The server has closed the connection (it was idle, or the server was restarted): a new one in the same database. The line is
 * not sent again, for it may have been executed. */
static enum cht_rc reconnect(struct tool_shell *s, struct cht_err *err)
{
    char line[80];
    struct cht_str answer;
    (void)tool_link_close(s->link, NULL); /* a connection that has ended */
    enum cht_rc rc = tool_shell_connect(s, err);
    if (rc != CHT_OK)
        return rc;
    int n = snprintf(line, sizeof line, "DATABASE %s", s->database);
    if (strcmp(s->database, CHT_DATABASE_DEFAULT) != 0)
        rc = tool_link_ask(s->link, line, (size_t)n, &answer, err);
    (void)fputs("the connection was lost and is there again; what became of the line is not known: ask, or "
                "repeat it\n",
                stdout);
    return rc;
}

static enum cht_rc ask(struct tool_shell *s, const char *line, struct cht_err *err)
{
    struct cht_str answer;
    unsigned rows, columns;
    enum cht_rc rc = tool_link_ask(s->link, line, strlen(line), &answer, err);
    if (rc == CHT_CLOSED && s->dirs.n == 0)
        return reconnect(s, err);
    if (rc != CHT_OK)
        return rc;
    note_database(s, answer);
    cht_os_terminal_size(1, &rows, &columns);
    tool_show_answer(stdout, answer, columns);
    return CHT_OK;
}

/* False at the end. */
static bool one_line(struct editor *e, char *line, enum cht_rc *rc, struct cht_err *err)
{
    char word[WORD_MAX];
    size_t n = strlen(line);
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
        line[--n] = 0;
    const char *rest = first_word(line, word);
    if (word[0] == 0)
        return true;
    remember(e, line);
    if (strcmp(word, "EXIT") == 0 || strcmp(word, "QUIT") == 0)
        return false;
    if (strcmp(word, "HELP") == 0) {
        char topic[WORD_MAX];
        (void)first_word(rest, topic);
        tool_show_help(stdout, topic[0] != 0 ? topic : NULL);
        return true;
    }
    cht_os_catch_interrupts(false); /* while an answer is waited for, Ctrl-C leaves */
    *rc = ask(e->shell, line, err);
    cht_os_catch_interrupts(true);
    (void)fflush(stdout); /* main looks at ferror */
    return *rc == CHT_OK;
}

static enum cht_rc converse(struct editor *e, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    cht_os_catch_interrupts(true);
    for (;;) {
        int n = 0;
        const char *got = el_gets(e->el, &n);
        if (got == NULL && cht_os_interrupted()) { /* Ctrl-C: the line is dropped */
            (void)fputs("^C\n", stdout);
            el_reset(e->el);
            continue;
        }
        if (got == NULL || n <= 0) {
            (void)fputc('\n', stdout);
            break;
        }
        char *line = cht_strdup(got); /* libedit's own is reused by completion and history */
        if (line == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a line");
        bool more = one_line(e, line, &rc, err);
        cht_free(line);
        if (!more)
            break;
    }
    cht_os_catch_interrupts(false);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc tool_shell_interact(struct tool_shell *s, struct cht_err *err)
{
    struct editor e = {.shell = s};
    HistEvent event;
    /* libedit reads characters; nothing else here asks for the locale */
    const char *locale = setlocale(LC_CTYPE, ""); /* NOLINT(concurrency-mt-unsafe) */
    if (locale == NULL || strcmp(locale, "C") == 0 || strcmp(locale, "POSIX") == 0)
        (void)setlocale(LC_CTYPE, "C.UTF-8"); /* NOLINT(concurrency-mt-unsafe) */
    find_history(&e);
    e.el = el_init("cheetah-db", stdin, stdout, stderr);
    e.history = history_init();
    if (e.el == NULL || e.history == NULL) {
        if (e.el != NULL)
            el_end(e.el);
        if (e.history != NULL)
            history_end(e.history);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the editor");
    }
    (void)history(e.history, &event, H_SETSIZE, HISTORY);
    (void)history(e.history, &event, H_SETUNIQUE, 1);
    if (e.file[0] != 0)
        (void)history(e.history, &event, H_LOAD, e.file); /* there is none the first time */
    (void)el_set(e.el, EL_CLIENTDATA, &e);
    (void)el_set(e.el, EL_PROMPT, prompt);
    (void)el_set(e.el, EL_EDITOR, "emacs");
    (void)el_set(e.el, EL_HIST, history, e.history);
    /* el_set copies these two and loses the copies */
    (void)el_wset(e.el, EL_ADDFN, L"cht-complete", L"complete commands and modes", complete);
    (void)el_set(e.el, EL_BIND, "^I", "cht-complete", NULL);
    (void)el_source(e.el, NULL); /* ~/.editrc, if there is one */
    enum cht_rc rc = converse(&e, err);
    if (e.file[0] != 0 && history(e.history, &event, H_SAVE, e.file) < 0)
        (void)fprintf(stderr, "cheetah-db: the history cannot be written to %s\n", e.file);
    history_end(e.history);
    el_end(e.el);
    return rc;
}
