"""A second implementation of the prediction tables, in Python: what PREDICT_ commands must answer."""
import math


def logistic(x):
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    z = math.exp(x)
    return z / (1 + z)


def clamp(score):
    return max(-24.0, min(24.0, score))


def deepen(matrix):
    """The matrix with six rows more, where it has two that are not empty and these differ."""
    rows = [row for row in matrix if row]
    if len(rows) < 2:
        return matrix
    n, m = max(map(len, rows)), len(rows)

    def at(row, i):
        return row[i] if i < len(row) else 0.0

    mean = [sum(at(row, i) for row in rows) / m for i in range(n)]
    var = [sum((row[i] - mean[i]) ** 2 for row in rows if i < len(row)) / m for i in range(n)]
    rms = [math.sqrt(sum(at(row, i) ** 2 for row in rows) / m) for i in range(n)]
    k = min(3, max(1, m // 2))
    order = sorted(range(m), key=lambda i: -(sum(map(abs, rows[i])) / len(rows[i])))
    top, bottom = ([sum(at(rows[r], i) for r in chosen) / k for i in range(n)] for chosen in (order[:k], order[::-1][:k]))
    contrast = [math.tanh(a - b) for a, b in zip(top, bottom)]
    inter = [math.tanh(a * b) for a, b in zip(mean, contrast)]
    blend = [math.tanh(a + b + c) for a, b, c in zip(mean, var, inter)]
    scale = min(1.0, math.tanh(sum(map(abs, var)) / n * math.log1p(m)))
    if scale <= 0:
        return matrix
    return matrix + [[v * scale for v in row] for row in (mean, var, rms, contrast, inter, blend)]


def delta(matrix, weights):
    return sum(sum(a * b for a, b in zip(matrix[d], vector)) + bias for d, (vector, bias) in weights.items() if d < len(matrix))


class Table:
    def __init__(self):
        self.keys = {}  # key -> value -> [score, {depth: (vector, bias)}]

    def set(self, key, value, prob, weights):
        self.keys.setdefault(key, {})[value] = [max(0.0, min(1.0, prob)), dict(weights)]

    def query(self, key, matrix):
        scores = {v: s + delta(deepen(matrix), w) for v, (s, w) in self.keys.get(key, {}).items()}
        top = max(scores.values(), default=0)
        total = sum(math.exp(s - top) for s in scores.values())
        return {v: math.exp(s - top) / total for v, s in scores.items()}

    def many(self, keys, matrix, how):
        found = [self.query(key, matrix) for key in keys]
        out = {}
        for value in {v for one in found for v in one}:
            p = [one[value] for one in found if value in one]
            out[value] = max(0.0, min(1.0, {"max": max(p), "sum": sum(p)}.get(how, sum(p) / len(p))))
        return out

    def train(self, key, target, matrix, rate, negatives):
        if key not in self.keys:
            return None
        rate, deep = (rate if rate > 0 else 0.01), deepen(matrix)
        for number, value in enumerate(dict.fromkeys([target, *negatives])):
            entry = self.keys[key].setdefault(value, [0.05, {}])
            d = rate * ((1 if number == 0 else 0) - logistic(entry[0] + delta(deep, entry[1])))
            entry[0] = clamp(entry[0] + d)
            for depth, row in enumerate(deep):
                vector, bias = entry[1].get(depth, ([], 0.0))
                vector = vector + [0.0] * (len(row) - len(vector))
                entry[1][depth] = ([v + (row[i] * d if i < len(row) else 0) for i, v in enumerate(vector)], bias + d)
        return len(self.keys[key])

    def shift(self, key, matrix, how, strength):
        for entry in self.keys[key].values():
            b = delta(deepen(matrix), entry[1]) * (strength or 1.0)
            entry[0] = clamp(entry[0] * (1 + b) if how == "scale" else entry[0] + b)

    def inherit(self, key, target, sources, how):
        entries = [self.keys[key][s] for s in sources if s in self.keys[key]]
        if not entries:
            return 0
        scores, weights = [e[0] for e in entries], {}
        for depth in {d for e in entries for d in e[1]}:
            have = [(logistic(e[0]), *e[1][depth]) for e in entries if depth in e[1]]
            share, n = sum(w for w, _, _ in have), max(len(v) for _, v, _ in have)
            vector = [sum(w * v[i] for w, v, _ in have if i < len(v)) / share for i in range(n)]
            weights[depth] = (vector, sum(w * b for w, _, b in have) / share)
        self.keys[key][target] = [clamp({"max": max(scores), "sum": sum(scores)}.get(how, sum(scores) / len(scores))), weights]
        return len(entries)
