"""The first screen of the README: its commands, run against a fresh server, give the answers that are printed there.

A ```console block holds commands after "$ ", each followed by what it prints; a line "..." stands for any lines.

    CHEETAH_DB=build/release/cheetah-db /usr/bin/python3 -m pytest -q tests/cli/test_readme.py
"""
import os
import re
import subprocess

import harness
import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))

ADDRESS = "127.0.0.1:8080"


def readme():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        return file.read()


def blocks(kind):
    return re.findall(r"^```%s\n(.*?)^```$" % kind, readme(), re.S | re.M)


def steps(block):
    """[(command, [line, ...])]; a command goes on in the next line where it ends with a backslash."""
    found, lines = [], iter(block.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + next(lines)
            found.append((command, []))
        else:
            found[-1][1].append(line)
    return found


def matches(expected, printed):
    """Whole lines; a "..." matches any number of them."""
    pattern = "".join(r"(?:.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in expected)
    return re.fullmatch(pattern, "".join(line + "\n" for line in printed)) is not None


@pytest.fixture
def fresh():
    server = harness.Server()
    yield server
    server.finish()


def test_console_blocks(fresh):
    done = 0
    for block in blocks("console"):
        for command, expected in steps(block):
            assert command.startswith("curl ") and ADDRESS in command, command
            run = subprocess.run(["sh", "-c", command.replace(ADDRESS, "127.0.0.1:%d" % fresh.port)], cwd=ROOT,
                                 stdout=subprocess.PIPE, text=True, timeout=60)
            assert run.returncode == 0, command
            printed = run.stdout.splitlines()
            assert matches(expected, printed), "$ %s\nREADME:\n%s\nprinted:\n%s" % (
                command, "\n".join(expected), "\n".join(printed[:40]))
            done += 1
    assert done >= 4, "the first screen has a load, a read, a scan and a reduce"


def test_a_wrong_answer_would_be_seen():
    assert not matches(['{"key":1}'], ['{"key":2}'])
    assert not matches([], ['{"key":2}'])
    assert matches(["a", "...", "z"], ["a", "b", "c", "z"]) and not matches(["a", "...", "z"], ["a", "b"])


def test_the_sample_is_up_to_date():
    subprocess.run([os.path.join(ROOT, "tests", "data", "sample", "make.py"), "--check"], check=True)


def test_files_that_are_named_exist():
    """Paths in backticks and in the two commands."""
    for path in re.findall(r"`((?:src|include|tests|deploy|openapi|clients)/[\w./-]+)`", readme()):
        assert os.path.exists(os.path.join(ROOT, path)), path
    for path in re.findall(r"^    ((?:deploy|tests)/[\w.]+)", readme(), re.M):
        assert os.access(os.path.join(ROOT, path), os.X_OK), path


def rows():
    """[(what, curl command, Python, value or "")] of the table with both."""
    found = re.findall(r"^\| ([^|]+) \| `(curl [^`]+)` \| `([^`]+)` \| (?:`([^`]+)`)? ?\|$", readme(), re.M)
    assert len(found) == len(re.findall(r"^\|.*`curl ", readme(), re.M)) >= 10
    return found


def test_curl_and_python_side_by_side(fresh):
    url = "http://127.0.0.1:%d" % fresh.port
    load = blocks("console")[0].splitlines()[0][2:].replace("http://" + ADDRESS, url)
    subprocess.run(["sh", "-c", load], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    names = {}
    (start,) = blocks("python")
    exec(start.replace("http://" + ADDRESS, url), names)
    for what, curl, python, value in rows():
        run = subprocess.run(["sh", "-c", "set -e; " + curl.replace("curl ", "curl -sS --fail-with-body ", 1)], cwd=ROOT,
                             env={**os.environ, "U": url}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        assert run.returncode == 0 and '"error"' not in run.stdout and run.stdout.startswith("{"), (what, run.stdout)
        if value:
            assert eval(python, names) == eval(value), what
        else:
            exec(python, names)
    names["db"].close()
