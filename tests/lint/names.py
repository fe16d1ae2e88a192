#!/usr/bin/python3
"""names: the folder is the prefix of what its files define for others, and a word has one meaning.

  1  headers    functions, structs, enums and their constants, macros of src/FOLDER/*.h begin with the folder's prefix; include/cheetah with cht_
  2  headers    no struct or enum is defined by two headers, or by a header and, for itself, by a file that could include it
  3  symbols    what the object files of a folder export begins with its prefix (nm), also where no header declares it

    tests/lint/names.py [ROOT]                      1 and 2
    tests/lint/names.py --symbols OBJECT_OR_LIBRARY...     3; the folder is taken from the names: libcheetah_http_calls.a, src/tools/top.c.o
"""
import glob
import os
import re
import subprocess
import sys

PREFIX = {"base": "cht", "os": "cht", "exec": "cht", "store": "cht", "reduce": "reduce", "lm": "lm", "embed": "cht", "service": "svc", "http": "http", "http/calls": "http",
          "tcp": "line", "conf": "conf", "tools": "tool"}
# struct conf is the folder's one thing; os/tap.c stands in the way of libmicrohttpd's reads.
ALSO = {"conf": {"conf"}, "main": {"main"}, "os": {"recv", "send", "gnutls_record_recv"}}

COMMENT = re.compile(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', re.S)
DIRECTIVE = re.compile(r"^#(?:[^\n]*\\\n)*[^\n]*$", re.M)
TAG = re.compile(r"\b(?:struct|enum|union) (\w+)\s*\{")
ENUM = re.compile(r"\benum(?: \w+)?\s*\{([^}]*)\}")
FUNCTION = re.compile(r"^(?!typedef|struct \w+ \{|enum \w+ \{)[a-z][\w\s*]*?\b([a-z]\w+)\(", re.M)
DATA = re.compile(r"^extern (?! *\{)[^;(]*?\b(\w+)(?:\[[^;]*)?;", re.M)
MACRO = re.compile(r"^#define (\w+)", re.M)


def blank(text):
    return COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def declared(text):
    """The names that a header gives to whoever includes it, and where they stand."""
    text = blank(text)
    code = DIRECTIVE.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)
    for match in MACRO.finditer(text):
        yield match.group(1), match.start(), True
    for pattern in (TAG, FUNCTION, DATA):
        for match in pattern.finditer(code):
            yield match.group(1), match.start(), False
    for match in ENUM.finditer(code):
        for constant in re.finditer(r"(?:^|,)\s*(\w+)", match.group(1)):
            yield constant.group(1), match.start(), True


def headers(root):
    complaints, seen, count = [], {}, 0
    for folder, prefix in sorted(PREFIX.items()) + [("../include/cheetah", "cht")]:
        for path in sorted(glob.glob(os.path.join(root, "src", folder, "*.h"))):
            with open(path, encoding="utf-8") as file:
                text = file.read()
            short = os.path.relpath(path, root)
            for name, at, upper in declared(text):
                count += 1
                want = prefix.upper() + "_" if upper else prefix + "_"
                if not name.startswith(want) and name not in ALSO.get(folder, ()):
                    complaints.append("%s:%d: %s: names of this folder begin with %s" % (short, text.count("\n", 0, at) + 1, name, want))
            for match in TAG.finditer(blank(text)):
                if seen.setdefault(match.group(1), short) != short:
                    complaints.append("%s: %s is defined by %s, too" % (short, match.group(1), seen[match.group(1)]))
    for path in sorted(glob.glob(os.path.join(root, "src", "**", "*.c"), recursive=True)):
        with open(path, encoding="utf-8") as file:
            for match in TAG.finditer(blank(file.read())):
                if match.group(1) in seen and match.group(1):
                    complaints.append("%s: %s is another thing in %s" % (os.path.relpath(path, root), match.group(1), seen[match.group(1)]))
    if count < 1000:
        complaints.append("only %d names were found" % count)
    return complaints


def folder_of(path):
    match = re.search(r"libcheetah_(\w+)\.a$", path)
    if match:
        return match.group(1).replace("http_calls", "http/calls")
    match = re.search(r"src/(?:(\w+(?:/calls)?)/)?(\w+)\.[cS]\.o$", path)
    return (match.group(1) or match.group(2)) if match else None


def symbols(paths):
    complaints, count = [], 0
    for path in paths:
        folder = folder_of(path)
        if folder not in PREFIX and folder not in ALSO:
            complaints.append("%s: of which folder is that?" % path)
            continue
        for line in subprocess.check_output(["nm", "-A", path], text=True, stderr=subprocess.DEVNULL).splitlines():
            match = re.match(r"(\S+?):\s*[0-9a-f]+ [TDBRVWGC] (\w+)$", line)
            if not match or match.group(2).startswith("__"):
                continue  # __: the compiler's and the sanitizers'
            count += 1
            name = match.group(2)
            if not name.startswith(PREFIX.get(folder, "main") + "_") and name not in ALSO.get(folder, ()):
                complaints.append("%s: %s: names of this folder begin with %s_" % (match.group(1), name, PREFIX.get(folder, "main")))
    if count < 100:
        complaints.append("only %d symbols were found" % count)
    return complaints


def main():
    if sys.argv[1:2] == ["--symbols"]:
        complaints = symbols(sys.argv[2:])
    else:
        complaints = headers(os.path.normpath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")))
    for complaint in complaints:
        print("names: " + complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
