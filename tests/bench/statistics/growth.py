#!/usr/bin/env python3
"""growth.py: a live model that grows to tens of millions of n-grams; then its ARPA text out and in.

    PYTHONPATH=tests/support tests/bench/statistics/growth.py [--order 5] [--types 30000000] [--batch 500000] [--arpa FILE] [--data DIR]

Zipf tokens over 500 000, weight 1/rank, in documents of 5 to 29, in requests of about --batch tokens; "keep":[], durability os. A line a step: what it took for each token
and each new type, of the processor of the server, what the disk has a type, and what 20 000 held-out tokens cost to score. It should say the same from the first line
to the last. With --arpa: GET /arpa of the end to FILE, then POST /arpa of it into another database; FILE is removed. Takes minutes, some gigabytes of memory and of disk.
"""
import argparse
import json
import os
import random
import time

import harness

NDJSON = {"Content-Type": "application/x-ndjson"}
VOCABULARY = 500000


class Text:
    def __init__(self):
        self.rng, self.weights, total = random.Random(1), [], 0.0
        for rank in range(VOCABULARY):
            total += 1 / (rank + 1)
            self.weights.append(total)

    def body(self, tokens):
        words = self.rng.choices(range(4, 4 + VOCABULARY), cum_weights=self.weights, k=tokens)
        out, at = [], 0
        while at < len(words):
            n = self.rng.randrange(5, 30)
            out.append(b'{"tokens":[2,%s,3]}\n' % b",".join(b"%d" % w for w in words[at:at + n]))
            at += n
        return b"".join(out)


def metric(client, name):
    return sum(float(line.split()[1]) for line in client.get("/metrics").body.decode().splitlines() if line.startswith((name + " ", name + "{")))


def status(server, name):
    with open("/proc/%d/status" % server.process.pid) as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


class Call:
    """A request, its wall seconds and the server's processor seconds."""

    def __init__(self, client, method, path, data=None):
        spent, start = metric(client, "cheetah_cpu_seconds_total"), time.monotonic()
        self.answer = client.request(method, path, data, headers=NDJSON if data is not None else None)
        self.wall = time.monotonic() - start
        assert self.answer.status < 300, self.answer
        self.cpu = metric(client, "cheetah_cpu_seconds_total") - spent


def types_of(client):
    stats = client.get("/databases/bench").json()
    return sum(o["types"] for o in stats["live"]["orders"]), stats["file_bytes"]


def grow(client, server, arguments):
    text = Text()
    held_out = text.body(20000)
    types = tokens = 0
    step = arguments.batch // 8
    print("%10s %10s %11s %11s %9s %9s %11s %9s" % ("tokens", "types", "us a token", "us a type", "disk", "peak MiB", "score us", "pages MB"), flush=True)
    while types < arguments.types:
        before, cpu = types, 0.0
        target = max(2 * tokens, step)
        count = 0
        while tokens + count < target and types < arguments.types:
            n = min(arguments.batch, target - tokens - count)
            cpu += Call(client, "POST", "/ngrams", text.body(n)).cpu
            count += n
            types, _ = types_of(client)
        tokens += count
        score = Call(client, "POST", "/score", held_out)
        pages = metric(client, "cheetah_dirty_bytes") / 1e6
        client.request("POST", "/databases/bench/checkpoint")
        _, disk = types_of(client)
        print("%10d %10d %11.2f %11.2f %9.1f %9.0f %11.2f %9.0f" % (tokens, types, cpu / count * 1e6, cpu / (types - before) * 1e6, disk / types, status(server, "VmHWM"), score.cpu / 20000 * 1e6, pages), flush=True)


def arpa(client, server, path):
    out = Call(client, "GET", "/arpa")
    with open(path, "wb") as file:
        file.write(out.answer.body)
    data, out.answer = out.answer.body, None
    print("GET /arpa: %.0f MB, %.1f s, cpu %.1f s" % (len(data) / 1e6, out.wall, out.cpu), flush=True)
    other = server.client(db="other", check=False, timeout=3600)
    assert other.put("/databases/other", json_body={}).status == 201
    into = Call(other, "POST", "/arpa", data)
    print("POST /arpa: %.1f s, cpu %.1f s, peak %.0f MiB, %s" % (into.wall, into.cpu, status(server, "VmHWM"), into.answer.body[-300:]), flush=True)
    os.unlink(path)
    question = json.dumps({"tokens": [2, 4, 5, 6, 7, 8, 3]}).encode()
    print("scored alike: %s" % [json.loads(c.request("POST", "/score", question, headers={"Content-Type": "application/json"}).body).get("log10") for c in (client, other)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--types", type=int, default=30000000)
    parser.add_argument("--batch", type=int, default=500000)
    parser.add_argument("--arpa")
    parser.add_argument("--data", help="where the databases go; it stays (default: the temporary directory, removed at the end)")
    arguments = parser.parse_args()
    server = harness.Server("--shards", "8", "--access-log", "false", "--line-listen", "none", "--durability", "os", "--request-memory-bytes", "4G", "--max-ngrams-bytes", "1G",
                            "--body-timeout", "3600", data=arguments.data)
    try:
        client = server.client(db="bench", check=False, timeout=3600)
        assert client.put("/databases/bench", json_body={"live": {"order": arguments.order, "bos": 2, "eos": 3}, "keep": []}).status == 201
        grow(client, server, arguments)
        if arguments.arpa:
            arpa(client, server, arguments.arpa)
    finally:
        server.finish()


main()
