#!/usr/bin/env python3
"""A plain implementation of counting, smoothing and asking, straight from the formulas and without regard for speed.

    reference.py text SEED TOKENS VOCABULARY          a Zipf text, one document a line
    reference.py model ORDER TOPK SEED QUERIES < text the database it must give, and answers to random questions

Output of `model`, one item a line (bytes in hex, doubles in C's hex notation):
    P name value                                      a pair; ctxv: pairs have the value of the ctx: pair they share
    R order contexts types d1 d2 d3                   what smoothing says of an order
    D max_order k tokens.. | order token:q ..         deepest (order 0: nothing there)
    L max_order k n tokens.. | token:q ..             the level of order n
    B max_order k tokens.. | order token:q:p ..       blend
    S max_order tokens.. | log10 order:log10 ..       score, deepest
    M max_order tokens.. | log10 order:log10 ..       score, blend
    A depth tree | bytes                              Absolute Vector Order; the tree as ( for a list, ) and numbers
"""
import hashlib
import math
import random
import struct
import sys

LMIN, LMAX = -12.0, 0.0


def avo_node(t, depth, at):
    if isinstance(t, int):
        return b"\xa1" + struct.pack(">I", t)
    children = [] if depth is not None and at >= depth else sorted(avo_node(c, depth, at + 1) for c in t)
    return b"\xa0" + bytes([len(children)]) + b"".join(struct.pack(">H", len(c)) + c for c in children)


def avo(t, depth=None):
    return b"\x01" + avo_node(t, depth, 0)


def name(tokens):
    if not tokens:
        return b"__root__"
    return hashlib.blake2b(",".join(map(str, tokens)).encode(), digest_size=8).digest()


def quantize(p):
    x = (math.log10(max(p, 10.0 ** LMIN)) - LMIN) / (LMAX - LMIN)
    return round(min(1.0, max(0.0, x)) * 255)


def dequantize(q):
    return 10.0 ** (LMIN + (q / 255) * (LMAX - LMIN))


def head(order, n):
    return struct.pack(">BBH", 1, order, n) if n <= 0xFFFF else struct.pack(">BBI", 2, order, n)


class Model:
    def __init__(self, order, topk):
        self.order, self.topk = order, topk
        self.counts = [None] + [{} for _ in range(order)]  # context tuple -> {token: count}
        self.contexts = {}  # tuple, in order of registration
        self.probs = [None] + [{} for _ in range(order)]  # context -> ({token: q}, alpha)
        self.cont, self.results = {}, []

    def add(self, document):
        if len(document) < 2:
            return
        for n in range(1, self.order + 1):
            for i in range(len(document) - n + 1):
                c, t = tuple(document[i:i + n - 1]), document[i + n - 1]
                self.contexts.setdefault(c, True)
                f = self.counts[n].setdefault(c, {})
                f[t] = min(f.get(t, 0) + 1, 0xFFFFFFFF)

    def smooth(self):
        if self.order >= 2:
            for f in self.counts[2].values():
                for t in f:
                    self.cont[t] = self.cont.get(t, 0) + 1
        s = sum(self.cont.values()) or 1
        lower0 = lambda t: self.cont[t] / s if t in self.cont else 1e-9
        for n in range(1, self.order + 1):
            all_counts = [k for f in self.counts[n].values() for k in f.values()]
            n1, n2, n3 = (sum(1 for k in all_counts if k == x) for x in (1, 2, 3))
            n4 = sum(1 for k in all_counts if k >= 4)
            d1 = 1 - 2 * n2 / (n1 + 2 * n2) if n1 + 2 * n2 else 0.5
            d2 = 2 - 3 * n3 / (n2 + 2 * n3) if n2 + 2 * n3 else 1.0
            d3 = 3 - 4 * n4 / (n3 + 2 * n4) if n3 + 2 * n4 else 1.5
            self.results.append((n, len(self.counts[n]), len(all_counts), d1, d2, d3))
            for c, f in self.counts[n].items():
                total = sum(f.values())
                b = [sum(1 for k in f.values() if k == 1), sum(1 for k in f.values() if k == 2),
                     sum(1 for k in f.values() if k >= 3)]
                alpha = (d1 * b[0] + d2 * b[1] + d3 * b[2]) / total
                entry = {}
                for t in sorted(f):
                    k = f[t]
                    d = d1 if k == 1 else d2 if k == 2 else d3
                    lower = lower0(t)
                    if n > 1:
                        parent = self.probs[n - 1].get(c[1:])
                        if parent and t in parent[0]:
                            lower = dequantize(parent[0][t])
                    entry[t] = quantize(max(k - d, 0) / total + alpha * lower)
                self.probs[n][c] = (entry, round(min(1.0, max(0.0, alpha)) * 1000))

    def pairs(self):
        out = {}
        for c in self.contexts:
            value = struct.pack(">BBB", 1, len(c), len(c)) + b"".join(struct.pack(">I", t) for t in c)
            out[b"ctx:" + name(c)] = value
            if c:
                out[b"ctxv:" + avo([[t] for t in c])] = value
        for n in range(1, self.order + 1):
            tag = str(n).encode() + b":"
            for c, f in self.counts[n].items():
                out[b"cnt:" + tag + name(c)] = head(n, len(f)) + b"".join(
                    struct.pack(">II", t, f[t]) for t in sorted(f))
            for c, (f, alpha) in self.probs[n].items():
                out[b"prob:" + tag + name(c)] = head(n, len(f)) + b"".join(
                    struct.pack(">IBH", t, f[t], alpha) for t in sorted(f))
                best = self.best(f, self.topk)
                out[b"topk:" + tag + name(c)] = struct.pack(">BBB", 1, n, len(best)) + b"".join(
                    struct.pack(">IB", t, q) for t, q in best)
        for t, n in self.cont.items():
            out[b"cont:" + struct.pack(">I", t)] = struct.pack(">BII", 1, t, n)
        return out

    @staticmethod
    def best(f, k):
        return sorted(f.items(), key=lambda x: (-x[1], x[0]))[:k]

    def entry(self, tokens, n):
        return self.probs[n].get(tuple(tokens[len(tokens) - (n - 1):]))

    def orders(self, tokens, max_order):
        return range(min(max_order, len(tokens) + 1), 0, -1)

    def deepest(self, tokens, k, max_order):
        for n in self.orders(tokens, max_order):
            if n <= self.order and self.entry(tokens, n):
                return n, self.best(self.entry(tokens, n)[0], k)
        return 0, []

    def blend(self, tokens, k, max_order):
        mass, found, top = 1.0, {}, 0
        for n in self.orders(tokens, max_order):
            e = self.entry(tokens, n) if n <= self.order else None
            if not e:
                continue
            top = top or n
            for t, q in e[0].items():
                found.setdefault(t, (mass * dequantize(q), q))
            mass *= e[1] / 1000
        best = sorted(found.items(), key=lambda x: (-x[1][0], x[0]))[:k]
        return top, [(t, q, p) for t, (p, q) in best]

    def score(self, tokens, max_order, blend=True):
        """The sum, and (order, log10) of each token but the first. A weight of 0 is a logarithm of -99."""
        total, each = 0.0, []
        for i in range(1, len(tokens)):
            mass, p, order = 1.0, None, 0
            for n in self.orders(tokens[:i], max_order):
                e = self.entry(tokens[:i], n) if n <= self.order else None
                if e and tokens[i] in e[0]:
                    p, order = mass * dequantize(e[0][tokens[i]]), n
                    break
                if e and blend:
                    mass *= e[1] / 1000
            if order == 0:
                p = mass * (1 / (len(self.cont) + 1)) if blend else 1 / len(self.cont) if self.cont else 1e-9
            each.append((order, math.log10(p) if p > 0 else -99.0))
            total += each[-1][1]
        return total, each


def text(seed, tokens, vocabulary):
    r = random.Random(seed)
    words = [r.randrange(1 << 32) if r.random() < 0.1 else i for i in range(vocabulary)]
    weights = [1 / (i + 1) for i in range(vocabulary)]
    while tokens > 0:
        n = r.choice((0, 1, 2, 3, 8, 8, 20, 60))
        print(*r.choices(words, weights, k=n))
        tokens -= n


def random_tree(r, depth):
    if depth == 0 or r.random() < 0.3:
        return r.randrange(1 << 32) if r.random() < 0.5 else r.randrange(300)
    return [random_tree(r, depth - 1) for _ in range(r.choice((0, 1, 2, 3, 9)))]


def show(t):
    return str(t) if isinstance(t, int) else "( " + "".join(show(c) + " " for c in t) + ")"


def main():
    if sys.argv[1] == "text":
        return text(*map(int, sys.argv[2:5]))
    order, topk, seed, queries = map(int, sys.argv[2:6])
    m, documents = Model(order, topk), [list(map(int, line.split())) for line in sys.stdin]
    for d in documents:
        m.add(d)
    m.smooth()
    for k, v in sorted(m.pairs().items()):
        print("P", k.hex(), v.hex())
    for n, contexts, types, d1, d2, d3 in m.results:
        print("R", n, contexts, types, float(d1).hex(), float(d2).hex(), float(d3).hex())
    r = random.Random(seed)
    for _ in range(queries):
        d = r.choice(documents) or [7]
        i = r.randrange(len(d))
        tokens = d[max(0, i - r.randrange(10)):i]
        if r.random() < 0.3:
            tokens = tokens + [r.choice((1 << 31, 0, 5))]
        k, top = r.choice((1, 3, 20, 50, 1000)), r.randrange(1, 9)
        n, best = m.deepest(tokens, k, top)
        print("D", top, k, *tokens, "|", n, *(f"{t}:{q}" for t, q in best))
        for n in m.orders(tokens, top):
            e = m.entry(tokens, n) if n <= order else None
            print("L", top, k, n, *tokens, "|", *(f"{t}:{q}" for t, q in (m.best(e[0], k) if e else [])))
        n, best = m.blend(tokens, k, top)
        print("B", top, k, *tokens, "|", n, *(f"{t}:{q}:{p.hex()}" for t, q, p in best))
        tokens = d[i:i + 30] + ([r.choice((1 << 31, 0, 5))] if r.random() < 0.3 else [])
        for kind in "SM":
            total, each = m.score(tokens, top, blend=kind == "M")
            print(kind, top, *tokens, "|", total.hex(), *(f"{n}:{p.hex()}" for n, p in each))
        tree, depth = random_tree(r, 4), r.choice((None, 0, 1, 2, 3))
        print("A", -1 if depth is None else depth, show(tree), "|", avo(tree, depth).hex())


if __name__ == "__main__":
    main()
