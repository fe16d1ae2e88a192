"""Manual pages and completion are made of what the program says (deploy/manual.py): every command and every option is in them."""
import os
import re
import subprocess

import pytest
from conftest import ROOT, run, tool


@pytest.fixture(scope="module")
def made(build, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("manual"))
    run(os.path.join(ROOT, "deploy", "manual.py"), os.path.join(build, "cheetah-db"), folder)
    return folder


@pytest.fixture(scope="module")
def helps(build):
    """{command: its options}, of --help."""
    program = os.path.join(build, "cheetah-db")
    with open(os.path.join(ROOT, "src", "main.c"), encoding="utf-8") as file:
        commands = re.findall(r'\{"([a-z]+)", +tool_\w+', file.read())
    assert len(commands) > 12
    return {name: re.findall(r"^  --([a-z0-9-]+)", run(program, name, "--help"), re.M) for name in commands}


def text_of(*names):
    with open(os.path.join(*names), encoding="utf-8") as file:
        return file.read()


def test_every_command_has_a_page_with_its_options(made, helps):
    assert set(os.listdir(os.path.join(made, "man"))) == {"cheetah-db-%s.1" % name for name in helps} | {"cheetah-db.1"}
    for name, options in helps.items():
        page = text_of(made, "man", "cheetah-db-%s.1" % name)
        assert page.startswith(".TH ") and "\n.SH NAME\n" in page and "\n.SH SYNOPSIS\n" in page
        for option in options:
            assert ".B \\-\\-" + option.replace("-", "\\-") in page, (name, option)
    front = text_of(made, "man", "cheetah-db.1")
    assert all(".BR cheetah\\-db\\-%s (1)" % name in front for name in helps)


def test_pages_are_sound(made):
    man = tool("man")
    for name in sorted(os.listdir(os.path.join(made, "man"))):
        done = subprocess.run([man, "--warnings=all", "-E", "UTF-8", "-l", "-Tutf8", os.path.join(made, "man", name)], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="120", MAN_KEEP_STDERR="1"))
        assert done.returncode == 0 and "warning" not in done.stderr, (name, done.stderr)
        text = re.sub(".\b", "", done.stdout)  # bold
        assert "NAME" in text and "SYNOPSIS" in text


def test_bash_completes(made, helps):
    script = os.path.join(made, "bash", "cheetah-db")
    run("bash", "-n", script)

    def complete(*words):
        code = "source %s; COMP_WORDS=(%s); COMP_CWORD=%d; _cheetah_db; echo \"${COMPREPLY[@]}\"" % (
            script, " ".join("'%s'" % word for word in ("cheetah-db",) + words), len(words))
        return set(run("bash", "-c", code).split())

    assert complete("") == set(helps) | {"--help", "--version"} and complete("ba") == {"backup"}
    for name, options in helps.items():
        assert complete(name, "--") == {"--" + option for option in options} | {"--help"}, name
    assert complete("serve", "--durability", "") == {"sync", "interval", "os"} and complete("serve", "--line-tls", "t") == {"true"}


def test_zsh_completes(made, helps):
    text = text_of(made, "zsh", "_cheetah-db")
    assert text.startswith("#compdef cheetah-db\n")
    for name, options in helps.items():
        part = text.split("\n%s)\n" % name, 1)[1].split(";;")[0]
        assert set(re.findall(r"^ +'\*--([a-z0-9-]+)\[", part, re.M)) | {"help"} == set(options) | {"help"}, name
    if os.path.exists("/usr/bin/zsh"):
        run("/usr/bin/zsh", "-n", os.path.join(made, "zsh", "_cheetah-db"))
