#!/usr/bin/python3
"""words: phrases that the editing pass took out stay out: comments, help and messages of src and include, what operators and users read, docstrings
of the Python client.

  behind        "after"; a proxy, a table of functions or an interface may have something behind it
  where         "if", unless a place is meant: after a value or a code (NULL where ..., CHT_IO where ...)
  let go of     "release", "free", "give up"
  is through    "is done", "is complete", "that was all"
  so many       "that many"; "so many that" is something else

    tests/lint/words.py [ROOT]
"""
import glob
import os
import re
import sys

ROOT = os.path.normpath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
TEXTS = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "deploy/README.md", "openapi/openapi.yaml", "clients/python/README.md", "src/*/README.md",
         "tests/README.md", "include/cheetah/*.h", "src/**/*.[ch]", "clients/python/src/**/*.py"]
COMMENT = re.compile(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', re.S)
GAP = r"\s+(?:\*\s+)?"  # a line break of a comment, too
PHRASES = [
    (r"\b[Bb]ehind\b(?!" + GAP + r"(?:an?|the|libmicrohttpd's)" + GAP + r"(?:\w+" + GAP + r")?(?:prox(?:y|ies)|load|balancers?|table|handle|interface|io|haproxy|nginx)\b)", "after"),
    (r"\b(?:[Ff]alse|NULL|null|SIZE_MAX|UINT64_MAX|CHT_[A-Z_]+|-1|[Tt]rue|; 0|[Oo]nly)" + GAP + r"where\b(?! (?:they|it) lies?\b)", "if"),
    (r"\b[Ww]here" + GAP + r"(?:there" + GAP + r"(?:is|are|was|were)\b|it is not there|it is none)", "if"),
    (r"\b(?:[Ll]ets?|[Ll]etting)" + GAP + r"(?:\w+" + GAP + r")?go\b", "release, free or give up"),
    (r"\b(?:is|are|was|were)" + GAP + r"through\b(?!" + GAP + r"(?:the|a|an|which|it)\b)", "done"),
    (r"\bso" + GAP + r"many\b(?!" + GAP + r"(?:\w+" + GAP + r"){0,3}(?:that|as)\b)", "that many"),
]


def spoken(path, text):
    """The text that a person reads, at its place: the rest is blank."""
    if not path.endswith((".c", ".h")):
        return text
    kept = [" "] * len(text)
    for match in COMMENT.finditer(text):
        kept[match.start():match.end()] = match.group(0)
    return "".join(c if c != " " or t != "\n" else "\n" for c, t in zip(kept, text))


def main():
    complaints, count = [], 0
    for pattern in TEXTS:
        for path in sorted(glob.glob(os.path.join(ROOT, pattern), recursive=True)):
            with open(path, encoding="utf-8") as file:
                text = spoken(path, file.read())
            count += 1
            for phrase, better in PHRASES:
                for match in re.finditer(phrase, text):
                    line = text[text.rfind("\n", 0, match.start()) + 1:(text.find("\n", match.end()) + 1 or len(text) + 1) - 1]
                    if '"after", not "behind"' in line or "left behind" in line or "leave the same pairs behind" in line or "`behind`" in line:
                        continue
                    complaints.append('%s:%d: "%s": say %s' % (os.path.relpath(path, ROOT), text.count("\n", 0, match.start()) + 1,
                                                             " ".join(match.group(0).split()), better))
    if count < 300:
        complaints.append("only %d texts were found" % count)
    for complaint in complaints:
        print("words: " + complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
