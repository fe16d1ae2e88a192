"""golden: the example of tests/data/golden/small: documents, and the exact pairs that an order-3 model of them consists of.

Where the files are not there, the same is made from random documents by layouts.py.
"""
import json
import os
import random

from harness import ROOT, layouts, unb64

FOLDER = os.environ.get("CHT_GOLDEN") or os.path.join(ROOT, "tests", "data", "golden", "small")
ORDER = 3


def available():
    return os.path.exists(os.path.join(FOLDER, "pairs.ndjson"))


def read(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def documents():
    if available():
        return [line["tokens"] for line in read("tokens.ndjson")]
    rng = random.Random(11)
    return [[2] + [min(int(rng.paretovariate(0.7)) + 3, 800) for _ in range(rng.randrange(5, 60))] + [3] for _ in range(100)]


def pairs():
    """{pair: payload}."""
    if available():
        return {unb64(line["pair"]): unb64(line["value"]) for line in read("pairs.ndjson")}
    table, result = layouts.ingested(documents(), ORDER)
    result.update(layouts.smooth(table))
    return result
