#!/usr/bin/env python3
"""linked: does /predict with "links" say a held-out text better? Documents are the lines of --text, every 20th of them held out; words are runs of letters, lower case.
A live model of the others, links of its contexts, then the next word at random places of the held-out lines: p of the context alone (links 0) and of its links alone (links 1), from
which the perplexity of every weight follows, since a mixture is a sum. Words that were never counted are left out.

    CHEETAH_DB=... PYTHONPATH=tests/support tests/bench/statistics/linked.py --text FILE [--order 3] [--metric cosine] [--prefix cnt:2:] [--places 3000]
"""
import argparse
import contextlib
import math
import random
import re
import sys
import time

from harness import Server, hexed, layouts, ndjson

NDJSON = {"Content-Type": "application/x-ndjson"}
ALL, BOS, EOS, FIRST = 100000, 2, 3, 4
WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
SELDOM = (1, 2, 5, 10, 20, 100, None)


def read(path):
    voc, lines = {}, []
    for line in open(path, encoding="utf-8", errors="replace"):
        words = re.findall(r"[a-z']+", re.sub(r"^\S+:\S+ ", "", line).lower())  # chapter and verse are no words
        if words:
            lines.append(words)
    train = [line for i, line in enumerate(lines) if i % 20 != 19]
    for line in train:
        for word in line:
            voc.setdefault(word, FIRST + len(voc))
    number = [[voc.get(w) for w in line] for line in lines]
    return [[BOS, *(voc[w] for w in line), EOS] for line in train], [line for i, line in enumerate(number) if i % 20 == 19], len(voc)


def p_of(answer, token):
    for c in answer["candidates"]:
        if c["token"] == token:
            return c["p"]
    return 0.0


def places(held, n, order, rng):
    every = [(line, i) for line in held for i in range(len(line)) if line[i] is not None]
    for line, i in rng.sample(every, min(n, len(every))):
        before = [BOS, *line[:i]][-(order - 1):]
        start = max((k + 1 for k, t in enumerate(before) if t is None), default=0)
        yield before[start:], line[i]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--text", required=True)
    a.add_argument("--order", type=int, default=3)
    a.add_argument("--metric", default="cosine")
    a.add_argument("--prefix", default="cnt:")
    a.add_argument("--places", type=int, default=3000)
    a.add_argument("--k", default="20")
    a.add_argument("--min", default="0.1")
    o = a.parse_args()
    documents, held, words = read(o.text)
    with contextlib.ExitStack() as at_the_end:
        server = Server("--durability", "os", "--reduce-memory-bytes", "2G")
        at_the_end.callback(server.stop)
        client = server.client(db="text", check=False, timeout=3600)
        made = client.put("/databases/text", json_body={"live": {"order": o.order, "bos": BOS, "eos": EOS}})
        assert made.status in (200, 201), made
        for i in range(0, len(documents), 2000):
            assert client.post("/ngrams", ndjson({"tokens": d} for d in documents[i:i + 2000]), headers=NDJSON).status == 200
        since = time.monotonic()
        result = client.post("/reduce/links/" + hexed(o.prefix.encode()), metric=o.metric, k=o.k, min=o.min).lines()[-2]
        print(f"{len(documents)} documents, {words} words; {result}, {time.monotonic() - since:.1f} s", flush=True)
        linked = {p.split(b":", 2)[2] for p, _, v in client.scan(b"link:", values="true") if v[1:3] != b"\0\0"}
        total = {p: sum(n for _, n in layouts.read_counts(v)[1]) for p, _, v in client.scan(b"cnt:", values="true") if p in linked}
        found, alone, spent = [], 0.0, {}
        for before, token in places(held, o.places, o.order, random.Random(1)):
            p = {}
            for weight in (0, 1):
                at = time.monotonic()
                answer = client.post("/predict", json_body={"tokens": before, "k": ALL, "mode": "live", "links": weight}).json()
                spent[weight] = spent.get(weight, 0.0) + time.monotonic() - at
                p[weight] = p_of(answer, token)
            names = [b"cnt:%d:" % (n + 1) + layouts.context_name(before[len(before) - n:]) for n in range(answer["order"] - 1, -1, -1)]
            count = next((total[n] for n in names if n in linked), 0)
            found.append((p[0], p[1], count if answer["links"] > 0 else None))
            alone -= math.log2(p[0])
        base = 2 ** (alone / len(found))
        print(f"{len(found)} places, {sum(c is not None for *_, c in found)} with links; perplexity without {base:.2f}; "
              f"seconds an answer {spent[0] / len(found):.4f}, with links {spent[1] / len(found):.4f}")
        print("| counted at most | places mixed | " + " | ".join(f"weight {w}" for w in WEIGHTS) + " |\n|" + "---|" * (2 + len(WEIGHTS)))
        for most in SELDOM:
            row = []
            mixed = [c is not None and (most is None or c <= most) for *_, c in found]
            for w in WEIGHTS:
                bits = -sum(math.log2((1 - w) * p0 + w * p1 if m else p0) for (p0, p1, _), m in zip(found, mixed)) / len(found)
                row.append(f"{2 ** bits:.2f} ({(2 ** bits / base - 1) * 100:+.2f} %)")
            print(f"| {most if most is not None else 'any number'} | {sum(mixed)} | " + " | ".join(row) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
