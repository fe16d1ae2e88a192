#!/usr/bin/python3
"""tables: what is written down in two places is the same in both.

  1  reducer modes    src/reduce/modes.c, their files' aliases       = the paths and the enum of openapi.yaml
  2  metrics          those that `stat` and `top` read (sample.c)    are printed by metrics.c
  3  options          every --option that a README or openapi.yaml names is in src/conf/conf.c or of a tool; each of a tool has its help
  4  calls            every operation of openapi.yaml                is called by the Python client
  5  error codes      the numbers of err.h                           are used once each; a slug is not two words' worth of codes
  6  headers          the namespaces of lm/names.h                   are the ones that the Python adapter writes
  7  files            every file and folder that a README or CONTRIBUTING.md names exists; src/ and tests/ name all their folders
  8  modules          no test changes sys.path

Routes and error codes against openapi.yaml are openapi.py's, metrics against the dashboard and the alerts tests/deploy's.

    tests/lint/tables.py [ROOT]
"""
import os
import re
import sys

import yaml

ROOT = os.path.normpath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
# Options of other programs that our texts name.
FOREIGN = {"data-binary", "output", "preset", "target", "workflow", "name", "rm", "user", "no-pager", "since", "follow", "time", "build", "publish",
           "volume", "restart", "network", "quiet", "max-time", "unit", "no-isolation", "long", "check", "quick", "output-on-failure", "test-dir", "cacert", "header", "request", "init", "depth", "prefix", "sparse", "tool",
           "db", "reset", "site", "level2", "no-sqlite", "set", "unix-socket", "cflags", "libs", "install"}
complaints = []


def read(*parts):
    with open(os.path.join(ROOT, *parts), encoding="utf-8") as file:
        return file.read()


def every(folder, end):
    for base, folders, names in os.walk(os.path.join(ROOT, folder)):
        folders[:] = [n for n in folders if n not in ("build", ".git", "__pycache__", ".mypy_cache", "node_modules")]
        for name in sorted(names):
            if name.endswith(end):
                yield os.path.relpath(os.path.join(base, name), ROOT)


def same(what, one, other, where_one, where_other):
    for name in sorted(one - other):
        complaints.append("%s %s is in %s and not in %s" % (what, name, where_one, where_other))
    for name in sorted(other - one):
        complaints.append("%s %s is in %s and not in %s" % (what, name, where_other, where_one))


def modes(contract):
    names = set(re.findall(r'^\s+X\(\w+, "([\w-]+)"\)', read("src/reduce/modes.c"), re.M))
    called = set()
    for path in every("src/reduce", ".c"):
        for row in re.findall(r"\*const (?:\w+_)?names\[\] = \{([^}]*)\}", read(path)):
            called.update(re.findall(r'"([\w-]+)"', row))
    for name in sorted(names - called):
        complaints.append("mode %s of modes.c has no file with that name in its `names`" % name)
    described = {path.split("/")[2] for path in contract["paths"] if path.startswith("/reduce/")} - {"{mode}", "smooth", "associations"}
    described.update(contract["paths"]["/reduce/{mode}/{prefix}"]["parameters"][0]["schema"]["enum"])
    same("mode", called, described, "src/reduce", "openapi.yaml")


def metrics():
    printed = set(re.findall(r'"(?:cheetah_)?([a-z][a-z0-9_]+)"', read("src/http/metrics.c") + read("src/http/calls/shared.c") + read("src/tcp/server.c")))
    taken = set(re.findall(r'^\s+\[TOOL_[GD]_\w+\] = \{"([a-z0-9_]+)"', read("src/tools/sample.c"), re.M))
    if len(taken) < 15:
        complaints.append("only %d metrics were found in sample.c" % len(taken))
    for name in sorted(taken - printed):
        complaints.append("metric %s is read by sample.c and not printed" % name)


def options():
    known = set(re.findall(r'^\s+\{"([a-z0-9-]+)",', read("src/conf/conf.c"), re.M)) | {"print-config", "help", "version"}
    for path in every("src/tools", (".c", ".h")):
        known.update(re.findall(r'\{"([a-z0-9-]+)", (?:0|\'.\'), TOOL_OPT', read(path)))
        for name in re.findall(r'\{"([a-z0-9-]+)", (?:0|\'.\'), TOOL_OPT_\w+, [^{}]*?NULL\}', read(path)):
            if name != "help":
                complaints.append("%s: --%s has no help" % (path, name))
    for path in [*every("clients", ".py"), *every("tests", ".py")]:
        known.update(re.findall(r'add_argument\("--([a-z0-9-]+)"', read(path)))
    benches = set()  # what the programs there take, or give to redis and the like
    for path in every("tests/bench", (".c", ".py")):
        benches.update(re.findall(r'"--([a-z0-9-]+)"', read(path)))
    if len(known) < 40:
        complaints.append("only %d options were found" % len(known))
    for path in ["openapi/openapi.yaml", *every(".", ".md")]:
        taken = known | FOREIGN
        if path.startswith("tests/bench"):
            taken = taken | benches
        for name in sorted(set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", read(path)))):
            if name not in taken:
                complaints.append("%s names --%s, which nothing takes" % (path, name))


def calls(contract):
    texts = "".join(read(path) for path in every("clients/python/src/cheetah_http/_async", ".py"))
    made = {(method, "/" + path.split("/")[1].split("{")[0]) for method, path in re.findall(r'Call\(\s*"([A-Z]+)", f?"(/[^"]*)"', texts)}
    made |= {(method, {"_path(pair)": "/pairs", "_path(name)": "/databases"}.get(how, "")) for method, how in
             re.findall(r'Call\(\s*"([A-Z]+)", (_path\(\w+\))', texts)}
    made |= {(method, "/databases") for method in re.findall(r'Call\(\s*"([A-Z]+)", _path\(name', texts)}
    made |= {("POST", path) for path in re.findall(r'self\._question\("(/\w+)"', texts)}
    made |= {("GET", path) for path in re.findall(r'self\._scan\(f?"(/\w+)', texts)}
    made |= {("POST", "/reduce") for _ in re.findall(r'path = f"/reduce/smooth', texts)}
    for path, item in contract["paths"].items():
        for method in item:
            if method in ("get", "put", "post", "delete") and (method.upper(), "/" + path.split("/")[1]) not in made:
                if not path.endswith("/backup") and path != "/" and not path.startswith("/console"):  # for files of many gigabytes, and for browsers
                    complaints.append("%s %s is not called by the Python client" % (method.upper(), path))


def codes():
    rows = re.findall(r'X\((\w+),\s*(\d+),\s*(\d+),\s*"(\w+)"', read("include/cheetah/err.h"))
    for column, what in ((1, "number"), (3, "slug"), (0, "name")):
        seen = {}
        for row in rows:
            if row[column] in seen:
                complaints.append("err.h has the %s %s twice" % (what, row[column]))
            seen[row[column]] = row
    titles = set(re.findall(r"\{(\d\d\d), \"", read("src/http/reply.c")))
    for name, _, status, _ in rows:
        if int(status) >= 400 and status not in titles:
            complaints.append("status %s of %s has no title in reply.c" % (status, name))


def namespaces():
    names = dict(re.findall(r'#define LM_(\w+) "(\w+):?"', read("src/lm/names.h")))
    adapter = "".join(read(path) for path in every("clients/python/src/cheetah_http/dbslm", ".py"))
    for name in sorted(set(names.values())):
        if not re.search(r"[\"f']%s\b" % name, adapter):
            complaints.append("namespace %s of names.h is unknown to the Python adapter" % name)


def files():
    for path in every(".", ".md"):
        for name in re.findall(r"`([\w./*{},-]+/[\w.*{},/-]*|[\w-]+\.(?:c|h|py|sh|md|yaml|yml))`", read(path)):
            if re.search(r"[*{}<>]|^/|^\.|://|NAME|MODULE", name):
                continue
            places = ("", os.path.dirname(path), "src", "include", "src/store", "src/http", "src/http/calls", "src/lm", "src/reduce", "src/tcp", "src/tools",
                      "src/service", "tests", "deploy")
            if name.split("/")[0] not in os.listdir(ROOT) and "." not in name:
                continue  # a media type, a call
            if "/" in name and not os.path.splitext(name)[1] and name.split("/")[0] not in ("src", "tests", "deploy", "clients", "include", "openapi"):
                continue
            if not any(os.path.exists(os.path.join(ROOT, place, name)) for place in places):
                complaints.append("%s names %s, which does not exist" % (path, name))
    for folder, text in (("src", read("README.md")), ("tests", read("tests/README.md"))):
        for name in sorted(os.listdir(os.path.join(ROOT, folder))):
            inside = os.path.join(ROOT, folder, name)
            if os.path.isdir(inside) and os.listdir(inside) and name != "__pycache__" and not re.search(r"(?<![\w-])%s/" % name, text):
                complaints.append("%s/%s is not named where its README says what is where" % (folder, name))


def paths():
    """tests/pytest.ini says where the harness is; nobody else changes the path, but for a program that another process runs."""
    for path in [*every("tests", ".py"), *every("clients", ".py")]:
        if not path.startswith("tests/lint/"):
            code = re.sub(r'"""(?:.|\n)*?"""', "", read(path))
            if re.search(r"\bsys\.path\s*[.\[=+]", code):
                complaints.append("%s changes sys.path: tests/pytest.ini and clients/python/pyproject.toml say where modules are" % path)


def main():
    contract = yaml.safe_load(read("openapi/openapi.yaml"))
    modes(contract)
    metrics()
    options()
    calls(contract)
    codes()
    namespaces()
    files()
    paths()
    for complaint in complaints:
        print("tables: " + complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
