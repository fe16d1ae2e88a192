#!/usr/bin/python3
"""source: what a compiler does not check in the C sources (src, include, tests).

  1  a length that a person counted (not in tests but fuzz): a text followed by the number of its characters. base/literal.h counts.
  2  a comment that names a file, a function, a type or a section of a README that does not exist
  3  a function that nobody calls: declared in a header of src, defined, and not named anywhere else

    tests/lint/source.py [ROOT]
"""
import os
import re
import sys

TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'', re.S)
COUNTED = re.compile(r'"((?:[^"\\\n]|\\.)+)"\s*,\s*(\d+)[uU]?\s*[),}]')
ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)")
FILE = re.compile(r"(?<![\w.*<>/-])((?:[\w-]+/)*[\w-]+\.(?:c|h|S|py|sh|md|yaml|yml|cmake|lua))\b(?!\()")
NAME = re.compile(r"(?<![\w.$\"<*-])((?:cht|lm|reduce|http|svc|line|tool|conf)"
                  r"_[a-z0-9_]+)(?![\w*<{.-])")
QUOTED = re.compile(r"`([a-z]\w+)`")
CALLED = re.compile(r"(?<![\w.])([a-z_][a-z0-9_]+)\(\)")
SECTION = re.compile(r'((?:[\w-]+/)*[\w-]+\.md),?\s+"([^"]+)"')
WORD = re.compile(r"[A-Za-z_]\w*")
# What C, POSIX and the libraries have: named in comments, not defined here.
FOREIGN = re.compile(r"^(MHD_|json_|curl_|sd_|io_|__|pthread_|log_format|log_[0-9])|^(main|fork|mmap|fsync|fdatasync|sync_file_range)$")


class Linter:
    def __init__(self, root):
        self.root, self.complaints = root, []
        self.files = {path: self.read(path) for path in self.walk(("src", "include", "tests"), (".c", ".h"))}
        self.every = {path for path in self.walk((".",), ("",))}
        self.names = {os.path.basename(path) for path in self.every}
        self.code = {path: TOKEN.sub(lambda m: m.group(0) if m.group(0)[0] in "\"'" else re.sub(r"[^\n]", " ", m.group(0)), text) for path, text in self.files.items()}
        self.words = {}
        for path, text in self.code.items():
            for word in WORD.findall(re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', text)):
                self.words.setdefault(word, []).append(path)
        # Fields of the log, options, Python, CMake: any word of the other sources counts as a name, too.
        self.others = set()
        for path in self.walk((".",), (".py", ".txt", ".yaml", ".yml", ".json", ".lua", ".S")):
            if not path.startswith(os.path.join("tests", "lint")):  # which speak of names that are wrong
                self.others.update(WORD.findall(self.read(path)))
        self.others.update(word for text in self.code.values() for quoted in re.findall(r'"((?:[^"\\\n]|\\.)*)"', text)
                           for word in WORD.findall(quoted))

    def walk(self, folders, ends):
        for folder in folders:
            for base, names, files in os.walk(os.path.join(self.root, folder)):
                names[:] = [n for n in names if n not in ("build", ".git", "__pycache__", ".mypy_cache", "node_modules")]
                for name in files:
                    if name.endswith(ends):
                        yield os.path.relpath(os.path.join(base, name), self.root)

    def read(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as file:
            return file.read()

    def complain(self, path, at, what):
        line = self.files[path].count("\n", 0, at) + 1
        self.complaints.append("%s:%d: %s" % (path, line, what))

    # 1

    def counted(self, path, text):
        for match in COUNTED.finditer(text):
            length = len(ESCAPE.sub(".", match.group(1)))
            if length == 1 and not match.group(0).endswith(")"):
                continue  # a table: "8", 1, 256
            if int(match.group(2)) == length and not text[:match.start()].endswith("CHT_LITERAL("):
                self.complain(path, match.start(), "somebody counted the %d characters of \"%s\"; let base/literal.h do it"
                              % (length, match.group(1)))

    # 2

    def is_file(self, path, name):
        places = (os.path.dirname(path), "src", "include", "include/cheetah", "tests", "")
        if any(os.path.normpath(os.path.join(place, name)) in self.every for place in places):
            return True
        return "/" not in name and name in self.names or any(other.endswith("/" + name) for other in self.every)

    def is_name(self, name):
        if name in self.words or name in self.others or FOREIGN.match(name):
            return True
        # "cht_team_", a family; "stream_scan's"; a macro that makes names: cht_##name
        return any(word.startswith(name) for word in self.words) if name.endswith("_") else False

    def sections(self, path):
        return {line.lstrip("# ").strip() for line in self.read(path).splitlines() if line.startswith("#")}

    def comments(self, path, text):
        for match in TOKEN.finditer(text):
            comment = match.group(0)
            if comment[0] != "/":
                continue
            joined = re.sub(r"\n\s*\*? ?", lambda m: " " * len(m.group(0)), comment)
            for found in FILE.finditer(joined):
                if not self.is_file(path, found.group(1)):
                    self.complain(path, match.start() + found.start(), "there is no file %s" % found.group(1))
            for kind in (NAME, CALLED, QUOTED):
                for found in kind.finditer(joined):
                    if not self.is_name(found.group(1)):
                        self.complain(path, match.start() + found.start(), "there is no %s" % found.group(1))
            for found in SECTION.finditer(joined):
                target = [p for p in self.every if p.endswith(found.group(1)) and ("/" in found.group(1) or
                          os.path.dirname(p) == os.path.dirname(path))] or [p for p in self.every if p == found.group(1)]
                if not any(found.group(2).strip(".") in self.sections(p) for p in target):
                    self.complain(path, match.start() + found.start(), "%s has no section \"%s\"" % found.groups())

    # 3

    def dead(self, path, text):
        for match in re.finditer(r"^(?!static|typedef|struct \w+ \{|enum \w+ \{|#|extern)[a-z][\w\s*]*?\b([a-z]\w+)\(", text, re.M):
            if len(self.words.get(match.group(1), [])) <= 2:
                self.complain(path, 0, "nobody calls %s" % match.group(1))

    def run(self):
        for path, text in sorted(self.files.items()):
            if path.startswith(("src/", "include/", "tests/fuzz/")):
                self.counted(path, self.code[path])
            self.comments(path, text)
            if path.startswith("src/") and path.endswith(".h"):
                self.dead(path, self.code[path])
        if len(self.files) < 100:
            self.complaints.append("only %d sources were found" % len(self.files))
        return self.complaints


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    complaints = Linter(os.path.normpath(root)).run()
    for complaint in complaints:
        print("source: " + complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
