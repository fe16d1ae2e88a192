#!/usr/bin/env python3
"""live.py: the live model beside KenLM: a text counted and ready to answer beside lmplz to ARPA, one hundredth more, scores in bulk beside query,
predictions beside GET /kv, disk, growth.

    PYTHONPATH=tests/support [KENLM_BIN=.../bin] tests/bench/statistics/live.py [--text FILE] [--tokens 1000000] [--orders 3,5] [--rounds 3]

FILE: words in lines; without it tokens of a Zipf distribution. The server is durable (--durability sync) and keeps the live model only
("keep":[]). Medians of the rounds; lmplz and query run in the same rounds, after the server has answered. Without KENLM_BIN
their columns say so. "cpu" is the processor time of the server, or of the program.
"""
import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import tempfile
import time

import harness

NDJSON = {"Content-Type": "application/x-ndjson"}


def zipf(tokens, vocabulary=100000):
    rng, weights, total = random.Random(1), [], 0.0
    for rank in range(vocabulary):
        total += 1 / (rank + 1)
        weights.append(total)
    words = rng.choices(range(4, 4 + vocabulary), cum_weights=weights, k=tokens)
    out = []
    while words:
        n = rng.randrange(5, 30)
        out.append(words[:n])
        words = words[n:]
    return out


def of_file(path):
    ids = {}
    with open(path, encoding="utf-8") as lines:
        return [[ids.setdefault(word, 4 + len(ids)) for word in line.split()] for line in lines if line.strip()]


def body(documents, **more):
    return b"".join(json.dumps(dict({"tokens": [2] + d + [3]}, **more), separators=(",", ":")).encode() + b"\n" for d in documents)


class Measured:
    """One server; wall seconds and the server's processor seconds of calls."""

    def __init__(self, order):
        self.server = harness.Server("--shards", "8", "--access-log", "false", "--line-listen", "none", "--request-memory-bytes", "4G", "--max-ngrams-bytes", "1G")
        self.client = self.server.client(db="bench", check=False, timeout=3600)
        answer = self.client.put("/databases/bench", json_body={"live": {"order": order, "bos": 2, "eos": 3}, "keep": []})
        assert answer.status == 201, answer

    def metric(self, name):
        return next(float(line.split()[1]) for line in self.client.get("/metrics").body.decode().splitlines() if line.startswith(name + " "))

    def call(self, method, path, data=None):
        spent, start = self.metric("cheetah_cpu_seconds_total"), time.monotonic()
        answer = self.client.request(method, path, data, headers=NDJSON if data is not None else None)
        wall = time.monotonic() - start
        assert answer.status < 300, answer
        return answer, wall, self.metric("cheetah_cpu_seconds_total") - spent

    def peak(self):
        with open("/proc/%d/status" % self.server.process.pid) as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def program(name, arguments, given=None):
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    out = subprocess.run([os.path.join(os.environ["KENLM_BIN"], name), *arguments], input=given, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return out, time.monotonic() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_round(order, documents, held_out, folder):
    row = {}
    measured = Measured(order)
    try:
        data = body(documents)
        _, row["count s"], row["count cpu"] = measured.call("POST", "/ngrams", data)
        row["peak MiB"] = measured.peak()
        measured.call("POST", "/databases/bench/checkpoint")
        stats = measured.client.get("/databases/bench").json()
        types = sum(o["types"] for o in stats["live"]["orders"])
        row["types"], row["bytes a type"] = types, stats["file_bytes"] / types
        _, row["+1 % s"], row["+1 % cpu"] = measured.call("POST", "/ngrams", body(documents[: len(documents) // 100 + 1]))
        measured.call("POST", "/ngrams?remove=true", body(documents[: len(documents) // 100 + 1]))
        answer, _, spent = measured.call("POST", "/score", body(held_out))
        end = json.loads(answer.body.splitlines()[-1])["end"]
        row["score M tokens/cpu s"] = end["tokens"] / spent / 1e6
        row["perplexity"] = end["perplexity_with_oov"]
        questions = body([d[: 1 + i % 8] for i, d in enumerate(held_out)], k=20)
        measured.call("POST", "/predict", questions[:1000].rpartition(b"\n")[0] + b"\n")
        _, _, spent = measured.call("POST", "/predict", questions)
        row["predict many cpu us"] = spent / len(held_out) * 1e6
        answer, row["arpa s"], row["arpa cpu"] = measured.call("GET", "/arpa")
        row["arpa MB"] = len(answer.body) / 1e6
    finally:
        measured.server.finish()
    if os.environ.get("KENLM_BIN"):
        text, arpa = os.path.join(folder, "text"), os.path.join(folder, "arpa")
        with open(text, "w") as file:
            file.writelines(" ".join(map(str, d)) + "\n" for d in documents)
        out, row["lmplz s"], row["lmplz cpu"] = program("lmplz", ["-o", str(order), "-S", "1G", "-T", folder, "--discount_fallback", "--text", text, "--arpa", arpa])
        said = dict(part.split(":", 1) for part in out.stderr.decode().splitlines()[-1].split("\t") if ":" in part)
        row["lmplz peak MiB"] = int(said["RSSMax"].split()[0]) / 1024
        given = "".join(" ".join(map(str, d)) + "\n" for d in held_out).encode()
        binary_model = os.path.join(folder, "binary")
        program("build_binary", ["-T", folder, "probing", arpa, binary_model])
        out, _, spent = program("query", ["-v", "summary", binary_model], given)
        row["query M tokens/cpu s"] = sum(len(d) + 1 for d in held_out) / spent / 1e6
        row["query perplexity"] = float(out.stdout.decode().split("including OOVs:")[1].split()[0])
        row["count / lmplz"], row["peak / lmplz"] = row["count s"] / row["lmplz s"], row["peak MiB"] / row["lmplz peak MiB"]
    row["+1 % / count"] = row["+1 % s"] / row["count s"]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text")
    parser.add_argument("--tokens", type=int, default=1000000)
    parser.add_argument("--orders", default="3,5")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    documents = of_file(arguments.text) if arguments.text else zipf(arguments.tokens)
    held_out = documents[-len(documents) // 20:]
    documents = documents[: len(documents) - len(held_out)]
    if not os.environ.get("KENLM_BIN"):
        print("KENLM_BIN does not say where lmplz and query are: no figures of theirs")
    for order in map(int, arguments.orders.split(",")):
        rows = []
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory(prefix="live-") as folder:
                rows.append(one_round(order, documents, held_out, folder))
        print("order %d, %d documents, %d tokens" % (order, len(documents), sum(len(d) + 1 for d in documents)))
        for name in rows[0]:
            print("    %-24s %12.3f" % (name, statistics.median(row[name] for row in rows)))


main()
