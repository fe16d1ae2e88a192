#!/usr/bin/env python3
"""first.py: POST /predict of a live model, each question for the first time since the last commit, beside another program and beside GET /kv/{key}.

    PYTHONPATH=tests/support tests/bench/statistics/first.py --before PROGRAM [--tokens 300000] [--questions 20000] [--rounds 5]

The text and the questions of calls.py --live: three tokens of a Zipf text, k = 20, order 3. Before each round a document is counted and taken away again, so that nothing is known from before.
Microseconds of the server's processor, medians: one question a request, one after the other, GET /kv/{key} in the same way, and a thousand questions a request. The answers must be equal to the byte, but for
the generation.
"""
import argparse
import json
import random
import re
import statistics

import harness

NDJSON = {"Content-Type": "application/x-ndjson"}


def zipf(tokens, vocabulary=50000):
    rng, weights, total = random.Random(1), [], 0.0
    for rank in range(vocabulary):
        total += 1 / (rank + 1)
        weights.append(total)
    return rng.choices(range(vocabulary), cum_weights=weights, k=tokens)


class Asked:
    def __init__(self, program, text):
        self.server = harness.Server("--access-log", "false", "--line-listen", "none", "--durability", "os", binary=program)
        self.client = self.server.client(db="live", check=False, timeout=600)
        self.client.put("/databases/live", json_body={"live": {"order": 3, "bos": 60000, "eos": 60001}, "keep": []})
        self.count(harness.ndjson({"tokens": [60000] + text[i:i + 32] + [60001]} for i in range(0, len(text), 32)))
        self.keys = [key for _, key in self.client.scan(b"kn:3:", limit="40000")]
        random.Random(2).shuffle(self.keys)
        self.spent = {}

    def count(self, body, path="/ngrams"):
        assert self.client.request("POST", path, body, headers=NDJSON).status == 200

    def forget(self):
        self.count(b'{"tokens":[60000,9,60001]}\n')
        self.count(b'{"tokens":[60000,9,60001]}\n', "/ngrams?remove=true")

    def measure(self, what, n, ask):
        before = self.server.metric("cheetah_cpu_seconds_total")
        out = ask()
        self.spent.setdefault(what, []).append((self.server.metric("cheetah_cpu_seconds_total") - before) / n * 1e6)
        return out

    def round(self, questions):
        self.measure("GET /kv/{key}", len(questions), lambda: [self.client.request("GET", "/kv/%d" % self.keys[i % len(self.keys)]).status for i in range(len(questions))])
        self.forget()
        one = self.measure("one a request", len(questions), lambda: [self.client.request("POST", "/predict", q).body for q in questions])
        self.forget()
        many = self.measure("a thousand a request", len(questions),
                            lambda: b"".join(self.client.request("POST", "/predict", b"\n".join(questions[i:i + 1000]), headers=NDJSON).body for i in range(0, len(questions), 1000)))
        return [re.sub(rb'"generation":\d+', b"", x) for x in one + [many]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True)
    parser.add_argument("--tokens", type=int, default=300000)
    parser.add_argument("--questions", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    o = parser.parse_args()
    text = zipf(o.tokens)
    questions = [json.dumps({"tokens": text[i:i + 3], "k": 20}).encode() for i in range(0, 3 * o.questions, 3)]
    programs = [Asked(program, text) for program in (o.before, None)]
    try:
        for _ in range(o.rounds):
            first, second = (program.round(questions) for program in programs)
            assert first == second, "other answers"
    finally:
        for program in programs:
            program.server.finish()
    for what in programs[0].spent:
        before, now = (p.spent[what] for p in programs)
        kv = [p.spent["GET /kv/{key}"] for p in programs]
        print("%-22s before %6.2f (%.2f to %.2f)  now %6.2f (%.2f to %.2f)  ratio %.2f  of GET /kv: %.2f, now %.2f" % (
            what, statistics.median(before), min(before), max(before), statistics.median(now), min(now), max(now), statistics.median(b / a for a, b in zip(now, before)),
            statistics.median(k / x for k, x in zip(kv[0], before)), statistics.median(k / x for k, x in zip(kv[1], now))))


main()
