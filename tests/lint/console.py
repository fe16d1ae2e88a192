#!/usr/bin/python3
"""console: console/dist, which the program embeds, is what console/ builds.

  1  the sums in console/dist.sha256 are those of the sources and of console/dist: without Node, so everywhere
  2  compressed it is less than 150 000 bytes
  3  with --build, if Node and its packages can be had: built anew it is the same, byte for byte

    tests/lint/console.py [ROOT] [--build]
"""
import gzip
import hashlib
import os
import subprocess
import sys
import tempfile

MOST = 150000
SOURCES = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "public", "src", "dist")


def files(console):
    for name in SOURCES:
        path = os.path.join(console, name)
        if os.path.isfile(path):
            yield name
        for base, _, names in os.walk(path):
            yield from (os.path.relpath(os.path.join(base, one), console) for one in names)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def complaints(root):
    console = os.path.join(root, "console")
    told = dict(reversed(line.split(None, 1)) for line in read(os.path.join(console, "dist.sha256")).decode().splitlines())
    there = {name: hashlib.sha256(read(os.path.join(console, name))).hexdigest() for name in files(console)}
    for name in sorted(set(told) | set(there)):
        if told.get(name) != there.get(name):
            yield "console/%s: %s since console/dist was built: run console/build.sh" % (name, "new" if name not in told else "gone" if name not in there else "changed")
    size = sum(len(gzip.compress(read(os.path.join(console, name)), 9)) for name in there if name.startswith("dist/"))
    if size >= MOST:
        yield "console/dist: %d bytes compressed, %d are allowed" % (size, MOST)


def main():
    args = [arg for arg in sys.argv[1:] if arg != "--build"]
    root = args[0] if args else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    found = list(complaints(root))
    for line in found:
        print(line, file=sys.stderr)
    if found or "--build" not in sys.argv:
        return 1 if found else 0
    with tempfile.TemporaryDirectory(prefix="cht_console.") as directory:
        done = subprocess.run([os.path.join(root, "console", "build.sh"), "--check", os.path.join(directory, "dist")], check=False)
    if done.returncode == 77:
        print("console: not built anew, its sums are right")
        return 0
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
