#!/usr/bin/env python3
"""score.py: POST /score of many texts of a live model beside another program: contexts that are met for the first time, and once more.

    PYTHONPATH=tests/support tests/bench/statistics/score.py --before PROGRAM [--tokens 1000000] [--held-out 200000] [--orders 3,5] [--rounds 7]

Tokens of a Zipf distribution over 100 000, 17 a document in the mean, as live.py. "held out" are documents that were not counted, "own" the first ones that were: all of their
contexts are there. Before each round a document is counted and taken away again, so that nothing is known from before. Each round asks both programs once, one after
the other; medians of millions of tokens a second of the server's processor (cheetah_cpu_seconds_total), and of the ratio. The answers must be equal to the byte, but for the generation.
"""
import argparse
import random
import re
import statistics

import harness

NDJSON = {"Content-Type": "application/x-ndjson"}


def zipf(tokens, vocabulary=100000):
    rng, weights, total = random.Random(1), [], 0.0
    for rank in range(vocabulary):
        total += 1 / (rank + 1)
        weights.append(total)
    words, out = rng.choices(range(4, 4 + vocabulary), cum_weights=weights, k=tokens), []
    while words:
        n = rng.randrange(5, 30)
        out.append(words[:n])
        words = words[n:]
    return out


def body(documents):
    return b"".join(b'{"tokens":[2,%s,3]}\n' % b",".join(b"%d" % w for w in d) for d in documents)


class Asked:
    def __init__(self, program, order, counted):
        self.server = harness.Server("--access-log", "false", "--line-listen", "none", "--shards", "8", "--durability", "os", "--request-memory-bytes", "4G", "--max-ngrams-bytes", "1G",
                                     binary=program)
        self.client = self.server.client(db="bench", check=False, timeout=3600)
        assert self.client.put("/databases/bench", json_body={"live": {"order": order, "bos": 2, "eos": 3}, "keep": []}).status == 201
        self.post("/ngrams", counted)
        self.rates = {}

    def post(self, path, data):
        answer = self.client.request("POST", path, data, headers=NDJSON)
        assert answer.status == 200, answer
        return answer

    def forget(self):
        self.post("/ngrams", b'{"tokens":[2,9,3]}\n')
        self.post("/ngrams?remove=true", b'{"tokens":[2,9,3]}\n')

    def score(self, what, data):
        before = self.server.metric("cheetah_cpu_seconds_total")
        answer = self.post("/score", data).body
        spent = self.server.metric("cheetah_cpu_seconds_total") - before
        self.rates.setdefault(what, []).append(int(re.search(rb'"end":\{.*?"tokens":(\d+)', answer.splitlines()[-1])[1]) / spent / 1e6)
        return re.sub(rb'"generation":\d+', b"", answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True)
    parser.add_argument("--tokens", type=int, default=1000000)
    parser.add_argument("--held-out", type=int, default=200000)
    parser.add_argument("--orders", default="3,5")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    documents = zipf(arguments.tokens + arguments.held_out)
    some = len(documents) * arguments.held_out // (arguments.tokens + arguments.held_out)
    counted, texts = body(documents[some:]), {"held out": body(documents[:some]), "own": body(documents[some:2 * some])}
    for order in map(int, arguments.orders.split(",")):
        programs = [Asked(program, order, counted) for program in (arguments.before, None)]
        try:
            for _ in range(arguments.rounds):
                for name, data in texts.items():
                    for program in programs:
                        program.forget()
                    for what in (name, name + ", again"):
                        first, second = (program.score(what, data) for program in programs)
                        assert first == second, "other answers"
        finally:
            for program in programs:
                program.server.finish()
        print("order %d, %d tokens counted, texts of %d" % (order, arguments.tokens, arguments.held_out))
        for what in programs[0].rates:
            before, now = (p.rates[what] for p in programs)
            print("    %-16s before %5.2f (%.2f to %.2f)  now %5.2f (%.2f to %.2f)  ratio %.2f" % (
                what, statistics.median(before), min(before), max(before), statistics.median(now), min(now), max(now), statistics.median(b / a for a, b in zip(before, now))))


main()
