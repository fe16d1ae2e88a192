#!/usr/bin/python3
"""cheetah-db beside etcd, which also keeps base64 values under byte-string names behind HTTP/JSON and syncs each write: reads and writes by name.
The same names, values, load and rules as in bench.py; etcd as one member, its JSON gateway, compaction off."""
import argparse
import base64
import json
import os
import random
import shutil
import statistics
import sys

import bench

GROUP = 1000  # operations of one transaction while it is loaded


def etcd(directory, pairs):
    client, peer = bench.free_port(), bench.free_port()
    url, peer_url = "http://127.0.0.1:%d" % client, "http://127.0.0.1:%d" % peer
    argv = ["etcd", "--name", "one", "--data-dir", os.path.join(directory, "etcd"), "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url, "--initial-cluster", "one=" + peer_url, "--max-txn-ops",
            str(GROUP), "--max-request-bytes", str(16 << 20), "--quota-backend-bytes", str(8 << 30), "--log-level", "error"]
    server = bench.Server("etcd", argv, client, os.path.join(directory, "etcd.log"))
    for first in range(0, pairs, GROUP):
        puts = [{"requestPut": {"key": bench.b64(bench.name_of(i)), "value": bench.b64(bench.value_of(bench.name_of(i)))}}
                for i in range(first, min(first + GROUP, pairs))]
        status, data = bench.request(client, "POST", "/v3/kv/txn", json.dumps({"success": puts}).encode())
        if status != 200:
            bench.fail("etcd: %d %r" % (status, data[:300]))
    name = bench.name_of(1)
    answer = json.loads(bench.request(client, "POST", "/v3/kv/range", json.dumps({"key": bench.b64(name)}).encode())[1])
    if base64.b64decode(answer["kvs"][0]["value"]) != bench.value_of(name):
        bench.fail("etcd: %r" % answer)
    return server


def path_files(b, pairs):
    rng = random.Random("etcd")
    numbers = [rng.randrange(pairs) for _ in range(1 << 16)]
    texts = {"cheetah get": [], "cheetah put": [], "etcd get": [], "etcd put": []}
    for i in numbers:
        name, new = bench.name_of(i), bench.name_of(i + i % 2 * pairs)  # half of what is written is there
        texts["cheetah get"].append("/pairs/x%s?exact=true&values=true" % name.hex())
        texts["cheetah put"].append("/pairs/x%s" % new.hex())
        texts["etcd get"].append('/v3/kv/range {"key":"%s"}' % bench.b64(name))
        texts["etcd put"].append('/v3/kv/put {"key":"%s","value":"%s"}' % (bench.b64(new), bench.b64(bench.value_of(new))))
    files = {}
    for label, lines in texts.items():
        files[label] = os.path.join(b.dir, label.replace(" ", "-"))
        with open(files[label], "w") as f:
            f.write("\n".join(lines) + "\n")
    return files


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--bin", default=os.path.join(bench.REPO, "build/release/cheetah-db"))
    p.add_argument("--dir", default=os.path.join(bench.REPO, "build/bench-http"))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=3)
    p.add_argument("--pairs", type=int, default=200_000)
    a = p.parse_args()
    a.only, a.tools, a.threads, a.webdis_threads, a.server_args = [], a.dir, 1, 2, ""
    a.no_access_log, a.no_webdis, a.keep = False, True, False
    a.bin, a.dir = os.path.abspath(a.bin), os.path.abspath(a.dir)
    os.makedirs(a.dir, exist_ok=True)
    b = bench.Bench(a)
    try:
        ours, theirs = b.cheetah()[0], etcd(b.dir, a.pairs)
        files = path_files(b, a.pairs)
        got = {}
        for n in range(a.rounds):
            for label, server, method in (("cheetah get", ours, "GET"), ("etcd get", theirs, "POST"), ("cheetah put", ours, "PUT"), ("etcd put", theirs, "POST")):
                got.setdefault(label, []).append(b.wrk(server, files[label], method, 64, n))
        for label, rounds in got.items():
            print("%-12s %9.0f requests/s  %7.1f us of CPU  p50 %8.0f us  p99 %8.0f us" % (
                (label,) + tuple(statistics.median(r[f] for r in rounds) for f in ("per_second", "cpu_us", "p50_us", "p99_us"))))
        for what in ("get", "put"):
            for field, inverse in (("per_second", False), ("cpu_us", True)):
                ratios = b.ratios(got, "cheetah " + what, "etcd " + what, field, inverse)
                print("%s, %s: %.2f x etcd" % (what, "requests/s" if not inverse else "CPU a request, etcd / cheetah", statistics.median(ratios)))
    finally:
        for s in list(bench.children):
            s.stop()
        shutil.rmtree(b.dir, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
