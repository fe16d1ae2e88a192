#!/usr/bin/python3
"""manual: man pages, bash and zsh completion, made of what the program says: the commands of src/main.c, and `--help` of each, which the program prints
from the tables that it reads its options by.

    deploy/manual.py PROGRAM FOLDER      writes FOLDER/man/*.1, FOLDER/bash/cheetah-db, FOLDER/zsh/_cheetah-db
"""
import os
import re
import subprocess
import sys
from datetime import datetime, timezone

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OPTION = re.compile(r"^  --([a-z0-9-]+)(?: ([^ ]+(?: [^ ]+)*?))?(?:  +(\S.*))?$")
FILES = re.compile(r"file|directory|FILE|DIR|PATH", re.I)


def said(program, *words):
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    return subprocess.run([program, *words], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment).stdout


def commands():
    """The rows of the table of src/main.c, in its order."""
    with open(os.path.join(ROOT, "src", "main.c"), encoding="utf-8") as file:
        table = re.search(r"\bcommands\[\] = \{(.*?)^\};", file.read(), re.S | re.M).group(1)
    names = re.findall(r'\{"([a-z]+)",', table)
    assert len(names) > 10 and len(set(names)) == len(names), names
    return names


class Help:
    """One text: usage and summary, paragraphs, and options as (name, argument, text)."""

    def __init__(self, text):
        first, _, rest = text.partition("\n")
        self.usage, _, self.summary = first.partition(": ")
        self.before, self.options, self.after = [], [], []
        option = None
        for line in rest.splitlines():
            match = OPTION.match(line)
            if match:
                option = [match.group(1), match.group(2) or "", [match.group(3)] if match.group(3) else []]
                self.options.append(option)
            elif option is not None and line.startswith("      "):
                option[2].append(line.strip())
            else:
                option = None
                (self.after if self.options else self.before).append(line)
        self.options = [(name, argument, " ".join(words)) for name, argument, words in self.options]


def roff(text):
    """Text of a page: no line of it is an order, a hyphen is one, a backslash is one."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti").replace("`", "\\(ga")
    return "\n".join("\\&" + line if line.startswith((".", "\\(aq")) else line for line in text.splitlines())


def plain(lines):
    """Paragraphs as they stand."""
    text = "\n".join(lines).strip("\n")
    return [] if not text else [".nf", roff(text), ".fi"]


def head(name, version, date):
    return ['.TH "%s" 1 "%s" "cheetah\\-db %s" "cheetah\\-db"' % (name.upper().replace("-", "\\-"), date, version), ".nh"]


def page(name, text, version, date, also):
    lines = head(name, version, date)
    lines += [".SH NAME", "%s \\- %s" % (roff(name), roff(text.summary or "see cheetah-db(1)")), ".SH SYNOPSIS", ".B " + roff(text.usage)]
    if any(text.before):
        lines += [".SH DESCRIPTION", *plain(text.before)]
    if text.options:
        lines.append(".SH OPTIONS")
        for option, argument, words in text.options:
            lines += [".TP", ".B \\-\\-%s%s" % (roff(option), " \\fI%s\\fR" % roff(argument) if argument else ""), roff(words) or "\\&"]
    if any(text.after):
        lines += [".SH NOTES", *plain(text.after)]
    lines += [".SH SEE ALSO", ",\n".join(".BR %s (1)" % roff(other) for other in also).replace(" (1),\n", " (1),\n")]
    return "\n".join(lines) + "\n"


def bash(helps):
    lines = ["# bash completion for cheetah-db; made by deploy/manual.py", "_cheetah_db()", "{",
             "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} words=",
             "    if [ \"$COMP_CWORD\" -eq 1 ]; then",
             "        mapfile -t COMPREPLY < <(compgen -W '%s --help --version' -- \"$cur\")" % " ".join(helps), "        return", "    fi",
             '    case "$command $prev" in']
    for command, text in helps.items():
        for name, argument, _ in text.options:
            if "|" in argument:
                lines.append("    '%s --%s') words='%s' ;;" % (command, name, argument.replace("|", " ")))
            elif argument == "BOOL":
                lines.append("    '%s --%s') words='true false' ;;" % (command, name))
    lines += ["    esac", '    if [ -z "$words" ] && [[ $cur == -* ]]; then', "        case $command in"]
    for command, text in helps.items():
        lines.append("        %s) words='%s' ;;" % (command, " ".join(sorted({"--" + name for name, _, _ in text.options} | {"--help"}))))
    lines += ["        esac", "    fi", '    if [ -n "$words" ]; then', "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")", "    else",
              "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")", "        compopt -o filenames 2>/dev/null", "    fi", "}",
              "complete -F _cheetah_db cheetah-db"]
    return "\n".join(lines) + "\n"


def zsh(helps):
    def quoted(text):
        return re.sub(r"([\[\]:])", r"\\\1", text.replace("'", "")).replace("\n", " ")

    lines = ["#compdef cheetah-db", "# zsh completion for cheetah-db; made by deploy/manual.py", "local -a commands", "commands=("]
    lines += ["    '%s:%s'" % (command, quoted(text.summary)) for command, text in helps.items()]
    lines += [")", "if (( CURRENT == 2 )); then", "    _describe command commands", "    return", "fi", "case $words[2] in"]
    for command, text in helps.items():
        lines.append("%s)" % command)
        lines.append("    _arguments \\")
        seen = set()
        for name, argument, words in text.options:
            if name in seen or name == "help":
                continue
            seen.add(name)
            values = "" if not argument else ":%s:%s" % (
                quoted(argument), "(%s)" % argument.replace("|", " ") if "|" in argument else "(true false)" if argument == "BOOL" else
                "_files" if FILES.search(argument + " " + words) else " ")
            lines.append("        '*--%s[%s]%s' \\" % (name, quoted(words), values))
        lines += ["        '--help[show help]' '*:: :_files'", "    ;;"]
    lines.append("esac")
    return "\n".join(lines) + "\n"


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    program, folder = os.path.abspath(sys.argv[1]), sys.argv[2]
    version = said(program, "--version").split()[1]
    date = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), timezone.utc).strftime("%Y-%m-%d")
    helps = {name: Help(said(program, name, "--help")) for name in commands()}
    top = Help(said(program, "--help"))
    top.usage = "cheetah-db COMMAND [OPTION ...]"
    pages = ["cheetah-db-" + name for name in helps]
    write(os.path.join(folder, "man", "cheetah-db.1"), page("cheetah-db", top, version, date, pages))
    for name, text in helps.items():
        write(os.path.join(folder, "man", "cheetah-db-%s.1" % name), page("cheetah-db-" + name, text, version, date, ["cheetah-db"]))
    write(os.path.join(folder, "bash", "cheetah-db"), bash(helps))
    write(os.path.join(folder, "zsh", "_cheetah-db"), zsh(helps))


if __name__ == "__main__":
    main()
