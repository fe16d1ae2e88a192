#!/usr/bin/python3
"""version: one version, in CMakeLists.txt; every other place that names it has the same.

    tests/lint/version.py [ROOT]               exit code 1 if one has another
    tests/lint/version.py --set X.Y.Z [ROOT]   writes it everywhere but into CHANGELOG.md, whose section is for a person
"""
import os
import re
import sys

PLACES = [  # file, a pattern whose one group is the version, how often it stands there
    ("CMakeLists.txt", r"^project\(cheetah-db VERSION (\S+) ", 1),
    ("openapi/openapi.yaml", r"^  version: (\S+)$", 1),
    ("clients/python/pyproject.toml", r'^version = "([^"]+)"$', 1),
    ("clients/python/src/cheetah_http/__init__.py", r'^__version__ = "([^"]+)"$', 1),
    ("clients/python/shim/pyproject.toml", r'^(?:version = "|dependencies = \["cheetah-http==)([^"]+)"', 2),
    ("deploy/kubernetes/cheetah-db.yaml", r"^ +image: cheetah-db:(\S+)$", 1),
    ("Dockerfile", r'^LABEL org\.opencontainers\.image\.version="([^"]+)"', 1),
]
CHANGES = ("CHANGELOG.md", r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$")


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8") as file:
        return file.read()


def main():
    words = sys.argv[1:]
    new = None
    if words[:1] == ["--set"]:
        if len(words) < 2 or not re.fullmatch(r"\d+\.\d+\.\d+", words[1]):
            sys.exit("version.py: --set X.Y.Z")
        new, words = words[1], words[2:]
    root = words[0] if words else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    for name, pattern, _ in PLACES if new else []:
        text = re.sub(pattern, lambda m: m.group().replace(m.group(1), new), read(root, name), flags=re.M)
        with open(os.path.join(root, name), "w", encoding="utf-8") as file:
            file.write(text)
    complaints, wanted = [], None
    for name, pattern, times in PLACES:
        found = re.findall(pattern, read(root, name), re.M)
        wanted = wanted or (found[0] if found else None)
        if found != [wanted] * times:
            complaints.append("%s has version %s, CMakeLists.txt %s" % (name, " ".join(found) or "none", wanted))
    found = re.findall(CHANGES[1], read(root, CHANGES[0]), re.M)
    if found[:1] != [wanted]:
        complaints.append("the first section of CHANGELOG.md is of %s, CMakeLists.txt has %s" % (found[:1], wanted))
    for complaint in complaints:
        print("version: " + complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
