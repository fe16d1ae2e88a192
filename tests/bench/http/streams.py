#!/usr/bin/python3
"""Streams of several programs in turn, beside the bare server: CPU of each kind of thread, ns a byte. See README.md."""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

import bench

PATHS = ("/pairs/*?values=true", "/pairs/*")


def threads(pid):
    """Nanoseconds on a processor, by the name of the threads."""
    spent = {}
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/schedstat" % (pid, task)) as file, open("/proc/%d/task/%s/comm" % (pid, task)) as name:
            spent[task] = (name.read().strip(), int(file.read().split()[0]))
    return spent


def spent_by(server, run):
    before = threads(server.process.pid)
    answer = run()
    after, by_name = threads(server.process.pid), {}
    for task, (name, ns) in after.items():
        by_name[name] = by_name.get(name, 0) + ns - before.get(task, (name, 0))[1]
    return answer, {name: ns / answer["bytes"] for name, ns in by_name.items() if ns * 200 > answer["bytes"]}


def load(port, pairs):
    for _ in range(300):
        if bench.request(port, "GET", "/readyz")[0] == 200:
            break
        time.sleep(0.1)
    for start in range(0, pairs, bench.BATCH):
        body = bench.batch_body(start, min(bench.BATCH, pairs - start))
        answer = bench.request(port, "POST", "/batch?results=false", body, {"Content-Type": "application/x-ndjson"})
        assert answer[0] == 200, answer
    assert bench.request(port, "POST", "/databases/default/checkpoint")[0] == 200


def start(programs, folder, a):
    servers = {}
    for i, program in enumerate(programs):
        port = bench.free_port()
        argv = [program, "serve", "--line-listen", "none", "--listen", "127.0.0.1:%d" % port, "--data", "%s/%d" % (folder, i), "--http-threads", "1",
                "--durability", "os", "--log-format", "json"]
        servers[program] = bench.Server(program, argv, port, "%s/%d.log" % (folder, i))
        load(port, a.pairs)
    port = bench.free_port()
    servers["bare"] = bench.Server("bare", [a.tools + "/bench_http_bare", "--mode", "loop", "--port", str(port)], port, folder + "/bare.log")
    return servers


def measure(servers, a):
    found, size = {}, {}
    for path, count in [(path, count) for _ in range(a.rounds) for path in PATHS for count in (1, 4)]:
        for name, server in servers.items():
            target = path if name != "bare" else "/stream/%d" % size[path]
            argv = [a.tools + "/bench_http_client", "stream", str(server.port), target, str(count), "3"]
            answer, spent = spent_by(server, lambda argv=argv: json.loads(subprocess.run(argv, capture_output=True, check=True).stdout))
            size.setdefault(path, answer["bytes"] // (3 * count))
            found.setdefault((path, count, name), []).append((sum(spent.values()), answer["bytes"] / answer["seconds"] / 1e9, spent))
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("program", nargs="+", help="cheetah-db of each build")
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--pairs", type=int, default=500000)
    p.add_argument("--tools", default=os.path.join(bench.REPO, "build/bench-http"), help="where bare and client were built")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        servers = start(a.program, folder, a)
        try:
            for (path, count, name), rows in measure(servers, a).items():
                least = min(rows, key=lambda row: row[0])
                print("%-22s %d at once  CPU ns a byte: least %.3f, median %.3f  GB/s: most %.2f  %s  %s" % (
                    path, count, least[0], statistics.median(row[0] for row in rows), max(row[1] for row in rows), name,
                    ", ".join("%s %.3f" % row for row in sorted(least[2].items()))))
        finally:
            for server in servers.values():
                server.stop()


if __name__ == "__main__":
    main()
