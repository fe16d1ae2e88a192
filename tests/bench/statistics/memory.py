#!/usr/bin/env python3
"""memory.py: what counting takes of memory, by order and size of the request.

    PYTHONPATH=tests/support tests/bench/statistics/memory.py [--orders 1,2,3,5,8] [--tokens 100000,1000000] [--texts zipf,distinct] [--live]

zipf: tokens of a Zipf distribution over 50 000, weight 1/rank, in documents of 32: more different n-grams than a natural text has. distinct: no
token twice, of 32 bits, the worst there is. Peak: VmHWM of a server of its own after the one request, less what it was before; "of it pages": changed pages of
the store, which are private memory until the next checkpoint and bounded by --dirty-bytes. A request that is refused says how long that took.
"""
import argparse
import random
import time

import harness

NDJSON = {"Content-Type": "application/x-ndjson"}


def text(kind, tokens):
    if kind == "distinct":
        words = random.Random(1).sample(range(1 << 32), tokens)
    else:
        weights, total = [], 0.0
        for rank in range(50000):
            total += 1 / (rank + 1)
            weights.append(total)
        words = random.Random(1).choices(range(4, 50004), cum_weights=weights, k=tokens)
    return b"".join(b'{"tokens":[%s]}\n' % b",".join(b"%d" % w for w in words[i:i + 32]) for i in range(0, tokens, 32))


def status(server, name):
    with open("/proc/%d/status" % server.process.pid) as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def metric(client, name):
    return sum(float(line.split()[1]) for line in client.get("/metrics").body.decode().splitlines() if line.startswith((name + " ", name + "{")))


def measure(order, data, live, limit):
    server = harness.Server("--access-log", "false", "--line-listen", "none", "--request-memory-bytes", limit, "--memory-bytes", "16G", "--dirty-bytes", "16G", "--max-ngrams-bytes", "1G")
    try:
        client = server.client(db="bench", check=False, timeout=3600)
        made = {"live": {"order": order, "bos": 2}, "keep": []} if live else {}
        assert client.put("/databases/bench", json_body=made).status == 201
        idle, start = status(server, "VmRSS"), time.monotonic()
        answer = client.request("POST", "/ngrams?order=%d" % order, data, headers=NDJSON)
        wall = time.monotonic() - start
        return answer, wall, status(server, "VmHWM") - idle, metric(client, "cheetah_dirty_bytes")
    finally:
        server.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", default="1,2,3,5,8")
    parser.add_argument("--tokens", default="100000,1000000")
    parser.add_argument("--texts", default="zipf,distinct")
    parser.add_argument("--limit", default="16G", help="--request-memory-bytes")
    parser.add_argument("--live", action="store_true", help="the live model, nothing else kept")
    arguments = parser.parse_args()
    print("%-9s %9s %6s %10s %9s %22s %14s" % ("text", "tokens", "order", "seconds", "peak MB", "bytes a token, order", "of it pages"))
    for kind in arguments.texts.split(","):
        for tokens in map(int, arguments.tokens.split(",")):
            data = text(kind, tokens)
            for order in map(int, arguments.orders.split(",")):
                answer, wall, peak, pages = measure(order, data, arguments.live, arguments.limit)
                done = "" if answer.status == 200 else " %d %s" % (answer.status, answer.json().get("code"))
                print("%-9s %9d %6d %10.3f %9.1f %22.1f %14.1f%s" % (kind, tokens, order, wall, peak / 1e6, peak / tokens / order, pages / tokens / order, done), flush=True)


main()
