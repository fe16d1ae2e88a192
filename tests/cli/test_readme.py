"""Every console block of every README: its commands, run in order against a fresh server, give the answers that are printed there, from the
first screen on, as someone would type them who has read nothing else.

A ```console block holds commands after "$ ", each followed by what it prints; a line "..." stands for any lines.

    CHEETAH_DB=build/release/cheetah-db /usr/bin/python3 -m pytest -q tests/cli/test_readme.py
"""
import os
import re
import subprocess
import time

import harness
import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))

ADDRESS = "127.0.0.1:8080"


def readme(path="README.md"):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def blocks(kind, path="README.md"):
    return re.findall(r"^```%s\n(.*?)^```$" % kind, readme(path), re.S | re.M)


def readmes():
    """Every text in Markdown, without what a build has made."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in ("build", "node_modules", "__pycache__"))
        found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in sorted(names) if name.endswith(".md")]
    assert "README.md" in found and len(found) > 10
    return [path for path in found if blocks("console", path)]


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


def run_blocks(path, server, folder):
    """Runs the commands of a README in its order, in a folder of their own that has tests/data; how many there were. cheetah-db is the program
    under test, and asks the server that has the place of 127.0.0.1:8080."""
    os.makedirs(folder / "bin")
    os.symlink(harness.BINARY, folder / "bin" / "cheetah-db")
    os.symlink(os.path.join(ROOT, "tests"), folder / "tests")
    address = "127.0.0.1:%d" % server.port
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
    env = dict(clean, PATH="%s:%s" % (folder / "bin", clean["PATH"]), CHEETAH_URL="http://" + address)
    done = 0
    for block in blocks("console", path):
        for command, expected in steps(block):
            assert (command.startswith("curl ") and ADDRESS in command) or "cheetah-db " in command, command
            run = subprocess.run(["sh", "-c", command.replace(ADDRESS, address)], cwd=folder, env=env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, text=True, timeout=120)
            assert run.returncode == 0, command
            printed = run.stdout.splitlines()
            assert matches(expected, printed), "%s: $ %s\nthere:\n%s\nprinted:\n%s" % (
                path, command, "\n".join(expected), "\n".join(printed[:40]))
            done += 1
    return done


@pytest.mark.parametrize("path", readmes())
def test_console_blocks(path, fresh, tmp_path):
    assert run_blocks(path, fresh, tmp_path) >= (15 if path == "README.md" else 1), "a load, a scan, a reduce, words, and the commands"


def test_a_new_user(fresh, tmp_path):
    """From the first command after the start to a prediction in words: well under five minutes, by the README alone."""
    words = next(i for i, block in enumerate(blocks("console")) if "/predict?db=talk&text=true" in block)
    assert words <= 1, "it is on the first screen"
    assert re.search(r"^    deploy/run\.sh ", readme(), re.M) and readme().index("deploy/run.sh") < readme().index("```console")
    start = time.monotonic()
    run_blocks("README.md", fresh, tmp_path)
    assert time.monotonic() - start < 120


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
                             env={**os.environ, "U": url}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        assert run.returncode == 0 and '"error"' not in run.stdout and run.stdout.startswith("{"), (what, run.stdout)
        if value:
            assert eval(python, names) == eval(value), what
        else:
            exec(python, names)
    names["db"].close()
