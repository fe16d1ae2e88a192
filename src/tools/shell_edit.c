/* shell_edit: the shell on a terminal: prompt, editing, history and completion by libedit, answers for people. */
#include "tools/shell.h"
#include "tools/shell_complete.h"

#include "os/net.h"
#include "os/terminal.h"
#include "tools/shell_show.h"

#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY 2000

struct editor {
    struct tool_shell *shell;
    EditLine *el;
    History *history;
    char prompt[400];
    char file[1024]; /* of the history; empty: none */
};

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
    char word[TOOL_SHELL_WORD];
    HistEvent event;
    (void)tool_shell_word(line, word);
    if (strcmp(word, "AUTH") != 0)
        (void)history(e->history, &event, H_ENTER, line); /* without it the line is only not kept */
}

static bool save(struct editor *e)
{
    HistEvent event;
    return e->file[0] == 0 || history(e->history, &event, H_SAVE, e->file) >= 0;
}

/* ---- the conversation --------------------------------------------------------------------------------------------- */

static char *prompt(EditLine *el)
{
    struct editor *e = NULL;
    (void)el_get(el, EL_CLIENTDATA, &e); /* set before the first prompt */
    (void)snprintf(e->prompt, sizeof e->prompt, "[%s/%s]> ", e->shell->place, e->shell->database);
    return e->prompt;
}

/* DATABASE and RESET_DB move the connection: the prompt goes along. False: the answer is of another command, or a refusal. */
static bool note_database(struct tool_shell *s, struct cht_str answer)
{
    static const char *const marks[] = {"SUCCESS,database_changed_to_", "SUCCESS,database_reset_to_"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        size_t n = strlen(marks[i]);
        if (answer.n <= n || answer.n - n >= sizeof s->database || memcmp(answer.p, marks[i], n) != 0)
            continue;
        memcpy(s->database, answer.p + n, answer.n - n);
        s->database[answer.n - n] = 0;
        return true;
    }
    return false;
}

/* The server has closed the connection (it was idle, or the server was restarted): a new one in the same database, or if that is refused
 * (AUTH was typed, and has to be again), in the default one, which the prompt then shows. The line is not sent again, for it may have
 * been executed. */
static enum cht_rc reconnect(struct tool_shell *s, struct cht_err *err)
{
    char line[80];
    struct cht_str answer;
    (void)tool_link_close(s->link, NULL); /* a connection that has ended */
    enum cht_rc rc = tool_shell_connect(s, err);
    if (rc != CHT_OK)
        return rc;
    int n = snprintf(line, sizeof line, "DATABASE %s", s->database);
    bool moves = strcmp(s->database, CHT_DATABASE_DEFAULT) != 0;
    if (moves)
        rc = tool_link_ask(s->link, line, (size_t)n, &answer, err);
    (void)fputs("the connection was lost and is there again; what became of the line is not known: ask, or "
                "repeat it\n",
                stdout);
    if (rc == CHT_OK && moves && !note_database(s, answer)) {
        tool_show_answer(stdout, answer, 0);
        (void)printf("%s cannot be gone back to: this is %s\n", s->database, CHT_DATABASE_DEFAULT);
        (void)snprintf(s->database, sizeof s->database, "%s", CHT_DATABASE_DEFAULT); /* fits */
    }
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
    (void)note_database(s, answer); /* most commands stay where they are */
    cht_os_terminal_size(1, &rows, &columns);
    tool_show_answer(stdout, answer, columns);
    return CHT_OK;
}

/* False at the end. */
static bool one_line(struct editor *e, char *line, enum cht_rc *rc, struct cht_err *err)
{
    char word[TOOL_SHELL_WORD];
    size_t n = strlen(line);
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
        line[--n] = 0;
    const char *rest = tool_shell_word(line, word);
    if (word[0] == 0)
        return true;
    remember(e, line);
    if (strcmp(word, "EXIT") == 0 || strcmp(word, "QUIT") == 0)
        return false;
    if (strcmp(word, "HELP") == 0) {
        char topic[TOOL_SHELL_WORD];
        (void)tool_shell_word(rest, topic);
        tool_show_help(stdout, topic[0] != 0 ? topic : NULL);
        return true;
    }
    (void)save(e);                  /* the end tells if it cannot be */
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

static unsigned char complete(EditLine *el, int key)
{
    struct editor *e = NULL;
    (void)key;
    (void)el_get(el, EL_CLIENTDATA, &e); /* set before the first key */
    return tool_shell_complete(e->shell, el);
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
    if (!save(&e))
        (void)fprintf(stderr, "cheetah-db: the history cannot be written to %s\n", e.file);
    history_end(e.history);
    el_end(e.el);
    return rc;
}
