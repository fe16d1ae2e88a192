#!/usr/bin/python3
"""circles: no object files of one library need each other in a circle, but the pairs that are named here with their reason.

An object needs another if it uses a symbol that the other defines (nm). What includes what is layers.sh's; a circle of calls
within a folder is what it cannot see.

    tests/lint/circles.py LIBRARY.a...
"""
import re
import subprocess
import sys
from collections import defaultdict

# Two files that are one thing in two parts: {library: {pair: why}}.
NAMED = {
    "tcp": {("conn", "loop"): "a loop serves its connections, a connection asks its loop to be served again or timed"},
    "store": {("scan_range", "scan_range_fill"): "a fill says how far its range goes, which the ranges need to begin the next one"},
}


def needs(archive):
    """{object: {another object of the archive that it needs: the symbols}}"""
    defined, used = {}, defaultdict(set)
    for line in subprocess.check_output(["nm", "-A", archive], text=True, stderr=subprocess.DEVNULL).splitlines():
        match = re.match(r"[^:]*:([^:]+)\.[cS]\.o:\s*[0-9a-f]*\s+([A-Za-z])\s+(\S+)", line)
        if match:
            name, kind, symbol = match.groups()
            if kind == "U":
                used[name].add(symbol)
            elif kind in "TDBRVWGC":
                defined[symbol] = name
    graph = {name: defaultdict(set) for name in set(defined.values()) | set(used)}
    for name, symbols in used.items():
        for symbol in symbols:
            if defined.get(symbol, name) != name:
                graph[name][defined[symbol]].add(symbol)
    return graph


def circles(graph):
    """The strongly connected components of more than one object (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def main():
    complaints = []
    for archive in sys.argv[1:]:
        graph = needs(archive)
        named = dict(NAMED.get(re.sub(r".*libcheetah_|\.a$", "", archive), {}))
        if not graph:
            complaints.append("%s: no object was found" % archive)
        for circle in circles(graph):
            if named.pop(tuple(circle), None):
                continue
            complaints.append("%s: %s need each other in a circle" % (archive, ", ".join(circle)))
            for one in circle:
                for other in sorted(set(graph[one]) & set(circle)):
                    complaints.append("    %s needs %s for %s" % (one, other, ", ".join(sorted(graph[one][other]))))
        for pair in sorted(named):
            complaints.append("%s: %s and %s are no circle any more: strike them out" % ((archive,) + pair))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
