#!/usr/bin/env python3
"""calls.py: statistics over HTTP: /predict beside GET /kv/{key}, hits of the aggregates' cache, counting and smoothing as calls.

    PYTHONPATH=tests/support tests/bench/statistics/calls.py [--live] [--binary build/release/cheetah-db] [--tokens 1000000] [--rounds 5] [--seconds 2] [--connections 32]

--live: /predict of a live model of order 3, a question a request and a thousand, beside GET /kv/{key}. Needs wrk. Each round measures everything once, one after the other; the table has medians, a ratio is the median of the rounds'
ratios. "cpu" is the server's processor time a request (cheetah_cpu_seconds_total): beside other work it is the steadier figure.
"""
import argparse
import json
import os
import random
import re
import statistics
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", "..", ".."))

LUA = """
local requests, i = {}, 0
function init() -- built before the clock starts: wrk must cost less than the server
    for line in io.lines("%s") do requests[#requests + 1] = %s end
end
function request()
    i = i %% #requests + 1
    return requests[i]
end
"""


def zipf(seed, tokens, vocabulary=50000):
    rng, weights, total = random.Random(seed), [], 0.0
    for rank in range(vocabulary):
        total += 1 / (rank + 1)
        weights.append(total)
    return rng.choices(range(vocabulary), cum_weights=weights, k=tokens)


def cpu(client):
    text = client.get("/metrics").body.decode()
    return float(re.search(r"^cheetah_cpu_seconds_total (\S+)", text, re.M).group(1))


def wrk(server, client, script, connections, seconds, threads=1):
    """(requests/s, cpu microseconds a request, latency percentiles)"""
    before = cpu(client)
    command = ["wrk", "--latency", "--timeout", "60s", "-t", str(threads), "-c", str(connections), "-d", "%ds" % seconds, "-s", script, "http://127.0.0.1:%d" % server.port]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = cpu(client) - before
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit("wrk: " + out)
    count = int(re.search(r"(\d+) requests in", out).group(1))
    rate = float(re.search(r"Requests/sec:\s+(\S+)", out).group(1))
    percentiles = dict(re.findall(r"^\s+(50|99)%\s+(\S+)$", out, re.M))
    return rate, spent / count * 1e6, percentiles


def live(o, harness):
    """The best 20 after three tokens of the text; bodies of a thousand such questions."""
    text = zipf(1, o.tokens)
    server = harness.Server("--access-log", "false", "--durability", "os")
    client = server.client(db="live", check=False, timeout=600)
    client.put("/databases/live", json_body={"live": {"order": 3, "bos": 60000, "eos": 60001}, "keep": []})
    body = harness.ndjson({"tokens": [60000] + text[i:i + 32] + [60001]} for i in range(0, o.tokens, 32))
    assert client.post("/ngrams", body, headers={"Content-Type": "application/x-ndjson"}).status == 200
    keys = [key for _, key in client.scan(b"kn:3:", limit="40000")]
    random.Random(2).shuffle(keys)
    questions = [json.dumps({"tokens": text[i:i + 3], "k": 20}) for i in range(0, 3 * min(40000, o.tokens // 4), 3)]
    cases = {"GET /kv/{key}": (["wrk.format('GET', '/kv/%d?db=live')" % key for key in keys], 1),
             "POST /predict, k=20": (["wrk.format('POST', '/predict?db=live', nil, '%s')" % q for q in questions], 1),
             "the same, 1000 a request": (["wrk.format('POST', '/predict?db=live', {['Content-Type']='application/x-ndjson'}, '%s')" % "\\n".join(questions[i:i + 1000])
                                           for i in range(0, len(questions), 1000)], 1000)}
    folder, results = tempfile.TemporaryDirectory(), {name: [] for name in cases}
    for n, (lines, _) in enumerate(cases.values()):
        with open("%s/%d.txt" % (folder.name, n), "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
        with open("%s/%d.lua" % (folder.name, n), "w", encoding="ascii") as file:
            file.write(LUA % ("%s/%d.txt" % (folder.name, n), "assert(loadstring('return ' .. line))()"))
    for _ in range(o.rounds):
        for n, (name, (_, each)) in enumerate(cases.items()):
            rate, spent, _ = wrk(server, client, "%s/%d.lua" % (folder.name, n), min(o.connections, 2 if each > 1 else 1000), o.seconds)
            results[name].append((rate * each, spent / each))
    for name, rows in results.items():
        print("%-28s %9.0f /s   cpu %6.2f us   of GET /kv: %.2f (cpu %.2f)   of one a request: cpu %.2f" % (
            name, statistics.median(r[0] for r in rows), statistics.median(r[1] for r in rows),
            statistics.median(r[0] / k[0] for r, k in zip(rows, results["GET /kv/{key}"])), statistics.median(k[1] / r[1] for r, k in zip(rows, results["GET /kv/{key}"])),
            statistics.median(k[1] / r[1] for r, k in zip(rows, results["POST /predict, k=20"]))))
    print("load %s" % " ".join("%.1f" % x for x in os.getloadavg()))
    server.finish()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--binary", default=os.path.join(ROOT, "build", "release", "cheetah-db"))
    options.add_argument("--tokens", type=int, default=1000000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=2)
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--live", action="store_true")
    o = options.parse_args()
    os.environ["CHEETAH_DB"] = o.binary
    import harness  # which reads CHEETAH_DB
    if o.live:
        live(o, harness)
        return

    print("%d cores, load %s" % (os.cpu_count(), " ".join("%.1f" % x for x in os.getloadavg())))
    text = zipf(1, o.tokens)
    server = harness.Server("--access-log", "false")
    client = server.client(check=False, timeout=600)
    before, start = cpu(client), time.monotonic()
    for at in range(0, o.tokens, 1000000):
        body = harness.ndjson({"tokens": text[i:i + 32]} for i in range(at, min(at + 1000000, o.tokens), 32))
        answer = client.post("/ngrams", body, headers={"Content-Type": "application/x-ndjson"}, order="3")
        assert answer.status == 200, answer
    print("count   %6.2f s, cpu %.2f s, of %d tokens, durable" % (time.monotonic() - start, cpu(client) - before, o.tokens))
    before, start = cpu(client), time.monotonic()
    answer = client.post("/reduce/smooth/cnt:")
    types = sum(line["types"] for line in answer.lines() if "order" in line)
    print("smooth  %6.2f s, cpu %.2f s, of %d followers" % (time.monotonic() - start, cpu(client) - before, types))
    start = time.monotonic()
    client.get("/reduce/counts-of-counts/cnt:")
    print("counts-of-counts, a miss: %.1f ms" % ((time.monotonic() - start) * 1e3))

    folder = tempfile.TemporaryDirectory()
    keys = [key for _, key in client.scan(b"prob:3:", limit="40000")]
    random.Random(2).shuffle(keys)
    cases = []
    for name, lines, call in (
            ("GET /kv/{key}", ["/kv/%d" % key for key in keys], "wrk.format('GET', line)"),
            ("GET /kv/{key}, raw", ["/kv/%d" % key for key in keys], "wrk.format('GET', line, {Accept='application/octet-stream'})"),
            ("POST /predict, k=20", [json.dumps({"tokens": text[i:i + 3], "k": 20, "max_order": 3, "mode": "deepest"}) for i in range(0, 120000, 3)], "wrk.format('POST', '/predict', nil, line)"),
            ("POST /predict, tokens only", [json.dumps({"tokens": text[i:i + 3]}) for i in range(0, 120000, 3)], "wrk.format('POST', '/predict', nil, line)"),
            ("a hit of counts-of-counts", ["/reduce/counts-of-counts/cnt:"], "wrk.format('GET', line)")):
        path = os.path.join(folder.name, "%d" % len(cases))
        with open(path + ".txt", "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
        with open(path + ".lua", "w", encoding="ascii") as file:
            file.write(LUA % (path + ".txt", call))
        cases.append((name, path + ".lua"))
    results = {name: [] for name, _ in cases}
    alone = []
    for _ in range(o.rounds):
        for name, script in cases:
            results[name].append(wrk(server, client, script, o.connections, o.seconds))
        alone.append(wrk(server, client, cases[-1][1], 1, 1)[2])
    for name, rows in results.items():
        print("%-28s %8.0f /s   cpu %6.1f us   of GET /kv: %.2f (cpu %.2f)" % (
            name, statistics.median(r[0] for r in rows), statistics.median(r[1] for r in rows),
            statistics.median(r[0] / k[0] for r, k in zip(rows, results["GET /kv/{key}"])),
            statistics.median(k[1] / r[1] for r, k in zip(rows, results["GET /kv/{key}"]))))
    print("a hit, one connection: 50%% %s, 99%% %s (round trips as wrk sees them, of the median round)" % (
        sorted(a["50"] for a in alone)[len(alone) // 2], sorted(a["99"] for a in alone)[len(alone) // 2]))
    print("load %s" % " ".join("%.1f" % x for x in os.getloadavg()))
    server.finish()


main()
