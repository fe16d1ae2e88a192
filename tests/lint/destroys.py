#!/usr/bin/env python3
"""destroys: every place in src that removes, cuts, renames, overwrites by name or gives back what is stored stands in destroys.tsv with the
reason why it may. A new place, one more in a function, or one that has moved away fails until the table says so.

    tests/lint/destroys.py [ROOT]            what the table lacks, what it has too much
    tests/lint/destroys.py --list [ROOT]     all places, as lines of the table without reasons

destroys.tsv: file, function, call, how often, reason; tab-separated, '#' starts a comment.
"""
import collections
import os
import re
import sys

# What is looked for: calls through the table of functions, helpers over it, and what the kernel has.
CALLS = {
    "truncate": r"->truncate\s*\(",
    "punch": r"->punch\s*\(",
    "rename": r"->rename\s*\(",
    "unlink": r"->unlink\s*\(",
    "rmdir": r"->rmdir\s*\(",
    "discard": r"->discard\s*\(",
    "refresh": r"->refresh\s*\(",
    "cht_io_replace": r"(?<!\w)cht_io_replace\s*\(",
    "cht_io_remove_tree": r"(?<!\w)cht_io_remove_tree\s*\(",
    "system truncate": r"(?<![\w>.])f?truncate\s*\(",
    "system rename": r"(?<![\w>.])rename(at2?)?\s*\(",
    "system unlink": r"(?<![\w>.])(unlink(at)?|remove)\s*\(",
    "system rmdir": r"(?<![\w>.])rmdir\s*\(",
    "O_TRUNC": r"\bO_TRUNC\b",
    "fopen for writing": r"\bfopen\s*\([^;]*,\s*\"[^\"]*[wa+]",
    "hole": r"\bFALLOC_FL_(PUNCH_HOLE|ZERO_RANGE|COLLAPSE_RANGE)\b",
    "MAP_FIXED": r"\bMAP_FIXED\b",
    "mremap": r"(?<![\w>.])mremap\s*\(",
    "MADV_DONTNEED": r"\bMADV_(DONTNEED|FREE|REMOVE)\b",
    "BLKDISCARD": r"\bBLK(DISCARD|ZEROOUT|SECDISCARD)\b",
}
CALLS = {name: re.compile(text) for name, text in CALLS.items()}
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
HEAD = re.compile(r"(\w+)\s*\([^;{}]*\)\s*$", re.S)


def without_comments(text):
    return re.sub(r"[ \t]+$", "", COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text), flags=re.M)


def functions(text):
    """(name, body) of each function; what stands outside of them under the name "-"."""
    rest, at = [], 0
    for match in re.finditer(r"^\{\n.*?^\}", text, re.S | re.M):  # a body starts and ends at the left edge
        before = text[at:match.start()]
        start = before.rstrip().rfind("\n\n") + 1
        head = HEAD.search(re.sub(r"^#(.*\\\n)*.*$", "", before[start:], flags=re.M))
        rest.append(before[:start])
        yield head.group(1) if head else "-", match.group()
        at = match.end()
    rest.append(text[at:])
    for match in re.finditer(r"^[^\n{]*?(\w+)\([^\n]*\) *\{[^\n]*\}$", "".join(rest), re.M):  # on one line
        yield match.group(1), match.group()
    yield "-", re.sub(r"^[^\n{]*?(\w+)\([^\n]*\) *\{[^\n]*\}$", "", "".join(rest), flags=re.M)


def declaration(name, call, body):
    """Is it the function itself, or its prototype?"""
    return name == call or (name == "-" and call.startswith("cht_io_"))


def places(root):
    found = collections.Counter()
    for folder, _, files in sorted(os.walk(os.path.join(root, "src"))):
        for file in sorted(files):
            if not file.endswith((".c", ".h")):
                continue
            path = os.path.relpath(os.path.join(folder, file), root)
            with open(os.path.join(root, path), encoding="utf-8") as source:
                text = without_comments(source.read())
            for name, body in functions(text):
                for call, pattern in CALLS.items():
                    n = len(pattern.findall(body))
                    if n and not declaration(name, call, body):
                        found[path, name, call] += n
    return found


def forgets():
    """What of CALLS the patterns do not see in a text that has all of them."""
    text = """
enum rc f(struct a *b)
{
    io->ops->truncate(f, 0); pf->ops->punch(f, 1, 2); ops->rename(io, a, b); x->unlink(io, p); x->rmdir(io, p); o->discard(f); o->refresh(f);
    cht_io_replace(io, d); cht_io_remove_tree(io, p); ftruncate(fd, 0); rename(a, b); unlinkat(fd, p); rmdir(p); open(p, O_TRUNC);
    fopen(path, "w"); fallocate(fd, FALLOC_FL_PUNCH_HOLE); mmap(p, n, MAP_FIXED); mremap(p, n); madvise(p, n, MADV_DONTNEED); ioctl(fd, BLKDISCARD);
}
"""
    seen = {call for name, body in functions(text) for call, pattern in CALLS.items() if pattern.search(body) and name == "f"}
    return sorted(set(CALLS) - seen)


def table(path):
    rows, bad = {}, []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not line.startswith("#"):
                parts = line.rstrip("\n").split("\t")
                if len(parts) != 5 or not parts[3].isdigit() or len(parts[4].split()) < 4:
                    bad.append("destroys.tsv:%d: not file, function, call, number, reason" % number)
                elif tuple(parts[:3]) in rows:
                    bad.append("destroys.tsv:%d: stands there twice" % number)
                else:
                    rows[tuple(parts[:3])] = int(parts[3])
    return rows, bad


def main():
    args = [a for a in sys.argv[1:] if a != "--list"]
    here = os.path.dirname(os.path.abspath(__file__))
    root = args[0] if args else os.path.dirname(os.path.dirname(here))
    found = places(root)
    if "--list" in sys.argv:
        for key in sorted(found):
            print(*key, found[key], "", sep="\t")
        return 0
    rows, bad = table(os.path.join(here, "destroys.tsv"))
    if len(found) < 20 or forgets():
        bad.append("%d places found; the lint does not see: %s" % (len(found), forgets()))
    for key in sorted(found.keys() | rows.keys()):
        if found[key] != rows.get(key, 0):
            bad.append("%s: %s: %s: %d in the source, %d in tests/lint/destroys.tsv" % (*key, found[key], rows.get(key, 0)))
    for line in bad:
        print("destroys: " + line, file=sys.stderr)
    if bad:
        print("destroys: before a place goes into the table: what else could be there, and what if the question itself fails?", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
