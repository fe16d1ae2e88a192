"""layouts: the payloads of an n-gram database and the statistics over them, written a second time and for reading."""
import hashlib
import math
import struct
from collections import Counter, defaultdict

ROOT_NAME = b"__root__"


def counts(order, followers, version=1):
    """followers: [(token, count)]."""
    head = struct.pack(">BBH" if version == 1 else ">BBI", version, order, len(followers))
    return head + b"".join(struct.pack(">II", t, c) for t, c in followers)


def read_counts(data):
    version, order = data[0], data[1]
    size = 4 if version == 1 else 6
    (n,) = struct.unpack_from(">H" if version == 1 else ">I", data, 2)
    return order, [struct.unpack_from(">II", data, size + 8 * i) for i in range(n)]


def probabilities(order, entries, version=1):
    """entries: [(token, q, alpha or None)]."""
    head = struct.pack(">BBH" if version == 1 else ">BBI", version, order, len(entries))
    return head + b"".join(struct.pack(">IBH", t, q, 0xFFFF if a is None else a) for t, q, a in entries)


def read_probabilities(data):
    size = 4 if data[0] == 1 else 6
    (n,) = struct.unpack_from(">H" if data[0] == 1 else ">I", data, 2)
    entries = [struct.unpack_from(">IBH", data, size + 7 * i) for i in range(n)]
    return data[1], [(t, q, None if a == 0xFFFF else a) for t, q, a in entries]


def topk(order, ranked):
    return struct.pack(">BBB", 1, order, len(ranked)) + b"".join(struct.pack(">IB", t, q) for t, q in ranked)


def read_topk(data):
    return data[1], [struct.unpack_from(">IB", data, 3 + 5 * i) for i in range(data[2])]


def continuation(token, contexts):
    return struct.pack(">BII", 1, token, contexts)


def context(tokens):
    return struct.pack(">BBB", 1, len(tokens), len(tokens)) + b"".join(struct.pack(">I", t) for t in tokens)


def context_name(tokens):
    """The 8-byte hash of a context, or the name of the empty one."""
    if not tokens:
        return ROOT_NAME
    return hashlib.blake2b(",".join(map(str, tokens)).encode(), digest_size=8).digest()


def vector(tree, depth=None):
    """Absolute Vector Order."""
    return b"\1" + _node(tree, depth, 0)


def _node(tree, depth, level):
    if isinstance(tree, int):
        return b"\xa1" + struct.pack(">I", tree)
    children = [] if depth is not None and level >= depth else sorted(_node(child, depth, level + 1) for child in tree)
    assert len(children) <= 255
    return b"\xa0" + bytes([len(children)]) + b"".join(struct.pack(">H", len(c)) + c for c in children)


def context_vector(tokens):
    return vector([[token] for token in tokens])


def quantize(p):
    ratio = (math.log10(max(p, 1e-12)) + 12) / 12
    return round(min(max(ratio, 0.0), 1.0) * 255)


def dequantize(q):
    return 10 ** (-12 + q / 255 * 12)


def discounts(n1, n2, n3, n4):
    def part(base, factor, upper, lower, other):
        return base - factor * upper / (lower + 2 * upper) if lower + 2 * upper else other

    d1 = 1 - 2 * n2 / (n1 + 2 * n2) if n1 + 2 * n2 else 0.5
    d2 = 2 - 3 * n3 / (n2 + 2 * n3) if n2 + 2 * n3 else 1.0
    d3 = 3 - 4 * n4 / (n3 + 2 * n4) if n3 + 2 * n4 else 1.5
    return d1, d2, d3


def count_ngrams(documents, order):
    """{order: {context tokens: Counter}}."""
    table = {n: defaultdict(Counter) for n in range(1, order + 1)}
    for tokens in documents:
        if len(tokens) < 2:
            continue
        for n in table:
            for i in range(len(tokens) - n + 1):
                *head, last = tokens[i:i + n]
                table[n][tuple(head)][last] += 1
    return table


def counts_of_counts(payloads):
    """The line of /reduce/counts-of-counts for a list of [(token, count)]."""
    n = Counter(min(count, 4) for followers in payloads for _, count in followers if count)
    d1, d2, d3 = discounts(n[1], n[2], n[3], n[4])
    return {"contexts": len(payloads), "types": sum(map(len, payloads)), "n1": n[1], "n2": n[2], "n3": n[3], "n4": n[4],
            "d1": d1, "d2": d2, "d3": d3}


def cosine(a, b):
    a, b = dict(a), dict(b)
    dot = sum(count * b.get(token, 0) for token, count in a.items())
    norm = math.sqrt(sum(c * c for c in a.values())) * math.sqrt(sum(c * c for c in b.values()))
    return dot / norm if norm else 0.0


def jaccard(a, b):
    a, b = {t for t, _ in a}, {t for t, _ in b}
    return len(a & b) / len(a | b) if a | b else 0.0


class Model:
    """A smoothed model read from pairs {name: payload}: predicts and scores as the contract says."""

    def __init__(self, pairs):
        self.probs = {}
        for name, data in pairs.items():
            if name.startswith(b"prob:"):
                _, order, rest = name.split(b":", 2)
                self.probs[int(order), rest] = read_probabilities(data)[1]
        self.vocabulary = sum(name.startswith(b"cont:") for name in pairs)

    def entries(self, order, tokens):
        context_tokens = tokens[len(tokens) - order + 1:] if order > 1 else []
        return context_tokens, self.probs.get((order, context_name(context_tokens)))

    def levels(self, tokens, k, max_order):
        """[(order, context, [(token, q)])], deepest first, without orders that have no entry."""
        for n in range(min(max_order, len(tokens) + 1), 0, -1):
            context_tokens, entries = self.entries(n, tokens)
            if entries is not None:
                best = sorted(entries, key=lambda e: (-e[1], e[0]))[:k]
                yield n, context_tokens, [(t, q) for t, q, _ in best]

    def blend(self, tokens, k, max_order):
        weight, found = 1.0, {}
        for n in range(min(max_order, len(tokens) + 1), 0, -1):
            _, entries = self.entries(n, tokens)
            if entries is None:
                continue
            for t, q, _ in entries:
                found.setdefault(t, weight * dequantize(q))
            alphas = [a for _, _, a in entries if a is not None]
            weight *= alphas[0] / 1000 if alphas else 1.0
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:k]

    def score(self, tokens, max_order=3, blend=True):
        """(log10, order) of each token after the first; order 0: nowhere."""
        result = []
        for i in range(1, len(tokens)):
            weight, p, order = 1.0, None, 0
            for n in range(min(max_order, i + 1), 0, -1):
                _, entries = self.entries(n, tokens[:i])
                q, alpha = next(((q, a) for t, q, a in entries or [] if t == tokens[i]), (None, None))
                if q is not None:
                    p, order = weight * dequantize(q), n
                    break
                if entries and blend:
                    weight *= entries[0][2] / 1000 if entries[0][2] is not None else 1.0
            if p is None:
                p = weight / (self.vocabulary + 1) if blend else 1 / self.vocabulary
            result.append((math.log10(p) if p > 0 else -99.0, order))
        return result


def smooth(table, best=20):
    """prob:, topk: and cont: of counts {order: {context tokens: {token: count}}}, as pairs {name: payload}."""
    pairs, followed = {}, Counter()
    for followers in table.get(2, {}).values():
        followed.update(followers.keys())
    for token, contexts in followed.items():
        pairs[b"cont:" + struct.pack(">I", token)] = continuation(token, contexts)
    total = sum(followed.values()) or 1
    quantized = {}

    def lower0(token):
        return followed[token] / total if token in followed else 1e-9

    for order in sorted(table):
        n = Counter(min(count, 4) for followers in table[order].values() for count in followers.values())
        d1, d2, d3 = discounts(n[1], n[2], n[3], n[4])
        for tokens, followers in table[order].items():
            c = sum(followers.values())
            if not c:
                continue
            b = Counter(min(count, 3) for count in followers.values())
            alpha = (d1 * b[1] + d2 * b[2] + d3 * b[3]) / c
            stored_alpha = round(min(max(alpha, 0.0), 1.0) * 1000)
            parent = quantized.get((order - 1, tokens[1:]), {})
            entries = []
            for token, k in sorted(followers.items()):
                lower = dequantize(parent[token]) if order > 1 and token in parent else lower0(token)
                d = (d1, d2, d3)[min(k, 3) - 1]
                entries.append((token, quantize(max(k - d, 0) / c + alpha * lower), stored_alpha))
            quantized[order, tokens] = {token: q for token, q, _ in entries}
            name = context_name(tokens)
            ranked = sorted(((t, q) for t, q, _ in entries), key=lambda e: (-e[1], e[0]))[:best]
            pairs[b"prob:%d:" % order + name] = probabilities(order, entries)
            pairs[b"topk:%d:" % order + name] = topk(order, ranked)
    return pairs


def ingested(documents, order):
    """cnt:, ctx: and ctxv: that counting the documents leaves behind, as pairs."""
    table, pairs = count_ngrams(documents, order), {}
    for n, contexts in table.items():
        for tokens, followers in contexts.items():
            name = context_name(tokens)
            pairs[b"cnt:%d:" % n + name] = counts(n, sorted(followers.items()))
            pairs[b"ctx:" + name] = context(tokens)
            if tokens:
                pairs[b"ctxv:" + context_vector(tokens)] = context(tokens)
    return table, pairs
