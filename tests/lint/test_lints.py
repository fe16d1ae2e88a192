"""The lints of this folder find what they are for: each case leaves out one step of a recipe of CONTRIBUTING.md, or breaks one rule, in a copy
of the sources."""
import os
import shutil
import subprocess

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what the lints read, once; each case puts back what it changed."""
    copy = str(tmp_path_factory.mktemp("sources"))
    for name in sorted(os.listdir(ROOT)):
        path = os.path.join(ROOT, name)
        if name in ("build", ".git", ".github") or name.startswith(".") and name != ".ci":
            continue
        if os.path.isdir(path):
            shutil.copytree(path, os.path.join(copy, name), ignore=shutil.ignore_patterns("__pycache__", "build", "node_modules"))
        else:
            shutil.copy(path, copy)
    return copy


def lint(name, root):
    done = subprocess.run([os.path.join(HERE, name), root], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return done.returncode, "\n".join(line for line in done.stderr.splitlines() if "Deprecat" not in line and "RefResolver" not in line)


@pytest.mark.parametrize("name", ["console.py", "layers.sh", "names.py", "openapi.py", "source.py", "tables.py", "version.py", "words.py"])
def test_the_sources_are_clean(sources, name):
    code, said = lint(name, sources)
    assert code == 0, said


CASES = {
    # add a call
    "a route that is not described": ("openapi.py", "src/http/routes.c", '.label = "/score"', '.label = "/scores"', "is a route and not described"),
    "a call that is no route": ("openapi.py", "openapi/openapi.yaml", "  /healthz:\n", "  /health:\n", "is no route"),
    "a call with another right": ("openapi.py", "src/http/routes.c", "HTTP_PARAM(HTTP_P_ONCE),\n     .right = SVC_RIGHT_WRITE", "HTTP_PARAM(HTTP_P_ONCE),\n     .right = SVC_RIGHT_READ", "x-right is not"),
    "a handler that another includes": ("layers.sh", "src/http/request.c", '#include "http/reply.h"\n', '#include "http/calls/batch.h"\n', "may not know"),
    "http that knows what its handlers work with": ("layers.sh", "src/http/server.c", '#include "http/server.h"\n', '#include "reduce/cache.h"\n', "may not know"),
    "the line protocol over http": ("layers.sh", "src/tcp/session.c", '#include "tcp/answer.h"\n', '#include "http/reply.h"\n', "may not know"),
    "a call without a method of the client": ("tables.py", "clients/python/src/cheetah_http/_async/model.py", '"/score"', '"/scores"', "not called by the Python client"),
    # add a reducer
    "a mode that is not described": ("tables.py", "src/reduce/mode_json.c", '{"meta", NULL}', '{"meta", "notes", NULL}', "mode notes"),
    "a mode without a file": ("tables.py", "src/reduce/modes.c", 'X(meta, "meta")', 'X(metas, "metas")', "metas"),
    # add an option
    "an option that nothing takes": ("tables.py", "deploy/README.md", "--max-streams", "--most-streams", "most-streams"),
    "an option of a benchmark that nothing takes": ("tables.py", "tests/bench/http/README.md", "--no-webdis", "--not-webdis", "not-webdis"),
    "an option of a tool without help": ("tables.py", "src/tools/top.c", '"--count 1"', "NULL", "--once has no help"),
    # add a metric
    "a metric that nobody prints": ("tables.py", "src/http/metrics.c", '"commits_total"', '"commit_total"', "commits_total"),
    # add an error code
    "a code that is not described": ("openapi.py", "openapi/openapi.yaml", "database_busy", "database_bossy", "database_busy"),
    "a number that is used twice": ("tables.py", "include/cheetah/err.h", "X(NOT_FOUND, 50,", "X(NOT_FOUND, 51,", "51 twice"),
    "a status without a title": ("tables.py", "src/http/reply.c", '{409, "Conflict"}', '{408, "Conflict"}', "409"),
    # names
    "a function under another folder's prefix": ("names.py", "src/service/out.h", "void svc_out_free(", "void cht_out_free(", "cht_out_free: names of this folder begin with svc_"),
    "a constant without a prefix": ("names.py", "src/http/stream.h", "HTTP_MORE_LATER", "MORE_LATER", "MORE_LATER: names of this folder begin with HTTP_"),
    "two things of one name": ("names.py", "src/tcp/command.h", "struct line_command {", "struct line_command { struct http_stream { int x; } s;", "http_stream is defined by"),
    "a phrase that was taken out": ("words.py", "src/lm/score.c", "#include", "/* NULL where there is none. */\n#include", "say if"),
    # one version
    "a contract of another version": ("version.py", "openapi/openapi.yaml", "  version: ", "  version: 9", "openapi.yaml has version 9"),
    "an image of another version": ("version.py", "deploy/kubernetes/cheetah-db.yaml", "image: cheetah-db:", "image: cheetah-db:9", "cheetah-db.yaml has version 9"),
    "a version without a section": ("version.py", "CHANGELOG.md", "## [0.2.0] - ", "## [0.2.0], ", "the first section of CHANGELOG.md"),
    # the page
    "a page of other sources": ("console.py", "console/src/main.tsx", "cheetah-db", "cheetah", "console/src/main.tsx: changed since console/dist was built"),
    "a page that somebody edited": ("console.py", "console/dist/index.html", "cheetah-db", "cheetah", "console/dist/index.html: changed since"),
    # the rest
    "an unquoted comma": ("openapi.py", "openapi/openapi.yaml", "description: 'On disk, without the log.'", "description: On disk, without the log.", "is no member"),
    "a namespace under another name": ("tables.py", "src/lm/names.h", '#define LM_CONT "cont:"', '#define LM_CONT "kont:"', "kont"),
    "a README with a file that is gone": ("tables.py", "src/lm/README.md", "`src/reduce/payload.h`", "`src/reduce/payloads.h`", "payloads.h"),
    "a path trick": ("tables.py", "tests/line/conftest.py", "import pytest\n", "import sys\nimport pytest\nsys.path.insert(0, \"x\")\n", "changes sys.path"),
    "a comment with a file that is gone": ("source.py", "src/lm/score.c", "predict.h", "predicts.h", "there is no file predicts.h"),
    "a comment with a function that is gone": ("source.py", "src/lm/score.c", "lm_score of", "lm_scores of", "there is no lm_scores"),
    "a length that somebody counted": ("source.py", "src/service/log.c", '(void)CHT_PUT(p, "0000-00-00T00:00:00.000Z")', 'memcpy(p, "0000-00-00T00:00:00.000Z", 24)', "counted"),
    "a length that somebody counted in a fuzz target": ("source.py", "tests/fuzz/image.c", 'CHT_BEGINS(f->name, "default/log/")', 'strncmp(f->name, "default/log/", 12) == 0', "counted"),
    "a function that nobody calls": ("source.py", "src/lm/rank.h", "#pragma once\n", "#pragma once\nvoid lm_rank_nothing(void);\n", "nobody calls lm_rank_nothing"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_that_is_left_out_is_found(sources, case):
    name, path, old, new, complaint = CASES[case]
    path = os.path.join(sources, path)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert old in text, "the case is out of date"
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace(old, new))
        code, said = lint(name, sources)
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    assert code == 1 and complaint in said, said
