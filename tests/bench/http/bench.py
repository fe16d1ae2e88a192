#!/usr/bin/python3
"""The HTTP benchmark: cheetah-db beside a bare libmicrohttpd and beside webdis with Redis. See README.md."""
import argparse
import base64
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
TICKS = os.sysconf("SC_CLK_TCK")
VALUE = 64
BATCH = 10_000
PATHS = 1 << 18  # requests that wrk cycles through
CASES = ("kv", "pair", "latency", "stream", "put", "batch")
children = []


def note(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    raise RuntimeError(text)


# The data: pair i is "ctx:" and a bijection of i, so ascending i is a random order of names; values do not compress.
def name_of(i):
    mask = (1 << 64) - 1
    z = (i + 1) * 0x9E3779B97F4A7C15 & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return b"ctx:" + (z ^ z >> 31).to_bytes(8, "big")


def value_of(name):
    return hashlib.sha512(name).digest()


def b64(data):
    return base64.b64encode(data).decode()


def batch_body(first, count):
    lines = []
    for i in range(first, first + count):
        name = name_of(i)
        lines.append('{"op":"pair_put","pair":"%s","value":"%s"}\n' % (b64(name), b64(value_of(name))))
    return "".join(lines).encode()


# Processes
def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, label, argv, port, log, cwd=None):
        self.label, self.port, self.log = label, port, log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=cwd)
        children.append(self)
        deadline = time.time() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.time() > deadline:
                    with open(log, errors="replace") as f:
                        fail("%s did not start: %s" % (label, f.read()[-2000:]))
                time.sleep(0.02)

    def cpu(self):
        with open("/proc/%d/stat" % self.process.pid) as f:
            fields = f.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS  # utime, stime: all threads

    def truncate_log(self):
        if os.path.getsize(self.log) > 64 << 20:  # opened with O_APPEND
            with open(self.log) as f:
                self.log_line = f.readline()
            os.truncate(self.log, 0)

    def stop(self):
        if self in children:
            children.remove(self)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Group:
    """Several processes that make one server."""
    def __init__(self, label, servers, port):
        self.label, self.servers, self.port = label, servers, port

    def cpu(self):
        return sum(s.cpu() for s in self.servers)


def settle(server, seconds=120):
    """Wait until the server's background work is done: under 3 % of a core for a second."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        before = server.cpu()
        time.sleep(1)
        if server.cpu() - before < 0.03:
            return
    note("%s is still busy after %d s" % (server.label, seconds))


def request(port, method, path, body=None, headers=None):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    c.request(method, path, body, headers or {})
    r = c.getresponse()
    data = r.read()
    c.close()
    return r.status, data


def metric(text, pattern):
    m = re.search(r"^%s(?:\{[^}]*\})?\s+([0-9.eE+-]+)$" % pattern, text, re.M)
    return float(m.group(1)) if m else None


class Bench:
    def __init__(self, args):
        self.a = args
        self.rows, self.targets, self.facts = [], [], {}
        os.makedirs(args.dir, exist_ok=True)
        self.dir = tempfile.mkdtemp(prefix="run.", dir=args.dir)
        self.bare_bin = os.path.join(args.tools, "bench_http_bare")
        self.client_bin = os.path.join(args.tools, "bench_http_client")
        self.loaded = {}

    # Starting and loading
    def start_cheetah(self, durability):
        port, data = free_port(), os.path.join(self.dir, "data-" + durability)
        argv = [self.a.bin, "serve", "--line-listen", "none", "--listen", "127.0.0.1:%d" % port, "--data", data,
                "--durability", durability,
                "--access-log", "false" if self.a.no_access_log else "true", "--http-threads", str(self.a.threads),
                "--log-format", "json"] + self.a.server_args.split()
        s = Server("cheetah", argv, port, os.path.join(self.dir, "cheetah-%s.log" % durability), cwd=self.dir)
        deadline = time.time() + 30
        while request(port, "GET", "/readyz")[0] != 200:
            if time.time() > deadline:
                fail("cheetah is not ready")
            time.sleep(0.05)
        return s

    def load_cheetah(self, server):
        """All pairs by /batch; returns the keys their values got."""
        keys = []
        t, cpu = time.time(), server.cpu()
        c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        for body in self.bodies():
            c.request("POST", "/batch", body, {"Content-Type": "application/x-ndjson"})
            r = c.getresponse()
            data = r.read()
            count = body.count(b"\n")
            if r.status != 200 or b'"failed":0}' not in data[-200:]:
                fail("load: %d %r" % (r.status, data[-300:]))
            got = [int(k) for k in re.findall(rb'"key":(\d+)', data)]
            if len(got) != count:
                fail("load: %d keys for %d operations: %r" % (len(got), count, data[:300]))
            keys += got
        c.close()
        note("loaded %d pairs in %.1f s (%.1f s of server CPU)" % (len(keys), time.time() - t, server.cpu() - cpu))
        status, data = request(server.port, "GET", "/pairs/*?count=true")
        if status != 200 or json.loads(data)["pairs"] != self.a.pairs:
            fail("count after load: %d %r" % (status, data))
        status, data = request(server.port, "POST", "/databases/default/checkpoint")
        if status >= 300:
            note("checkpoint: %d %r" % (status, data[:200]))
        settle(server)
        return keys

    def bodies(self):
        if not hasattr(self, "_bodies"):
            note("building %d operations" % self.a.pairs)
            self._bodies = [batch_body(i, min(BATCH, self.a.pairs - i)) for i in range(0, self.a.pairs, BATCH)]
        return self._bodies

    def cheetah(self):
        if "sync" not in self.loaded:
            s = self.start_cheetah("sync")
            self.loaded["sync"] = (s, self.load_cheetah(s))
        return self.loaded["sync"]

    def bare(self, mode, body):
        port = free_port()
        return Server("bare " + mode, [self.bare_bin, "--mode", mode, "--port", str(port), "--threads",
                                       str(self.a.threads), "--body", str(body)], port,
                      os.path.join(self.dir, "bare.log"))

    def webdis(self):
        if "webdis" in self.loaded:
            return self.loaded["webdis"]
        rport, wport, where = free_port(), free_port(), os.path.join(self.dir, "webdis")
        os.makedirs(where)
        redis = Server("redis", ["redis-server", "--port", str(rport), "--bind", "127.0.0.1", "--save", "",
                                 "--appendonly", "no", "--daemonize", "no", "--dir", where], rport,
                       os.path.join(where, "redis.log"))
        s = socket.create_connection(("127.0.0.1", rport))
        for first in range(0, self.a.pairs, BATCH):
            count = min(BATCH, self.a.pairs - first)
            parts = []
            for i in range(first, first + count):
                parts.append("*3\r\n$3\r\nSET\r\n$12\r\nk%011d\r\n$64\r\n%s\r\n" % (i, b64(value_of(name_of(i)))[:64]))
            s.sendall("".join(parts).encode())
            left = 5 * count
            while left:
                left -= len(s.recv(min(left, 1 << 16)))
        s.close()
        config = os.path.join(where, "webdis.json")
        with open(config, "w") as f:
            json.dump({"redis_host": "127.0.0.1", "redis_port": rport, "http_host": "127.0.0.1", "http_port": wport,
                       "threads": self.a.webdis_threads, "daemonize": False, "database": 0, "verbosity": 1,
                       "logfile": os.path.join(where, "webdis.log")}, f)
        w = Server("webdis", ["webdis", config], wport, os.path.join(where, "webdis.out"))
        time.sleep(0.5)
        status, data = request(wport, "GET", "/GET/k%011d" % 1)
        if status != 200 or json.loads(data)["GET"] != b64(value_of(name_of(1)))[:64]:
            fail("webdis: %d %r" % (status, data))
        self.loaded["webdis"] = Group("webdis", [w, redis], wport)
        return self.loaded["webdis"]

    def paths(self, name, one):
        """A file of PATHS random requests."""
        file = os.path.join(self.dir, name + ".paths")
        if not os.path.exists(file):
            rng = random.Random(name)
            with open(file, "w") as f:
                f.writelines(one(rng) + "\n" for _ in range(PATHS))
        return file

    # Measuring
    def wrk(self, server, paths, method, connections, start, seconds=None):
        cpu = server.cpu()
        out = subprocess.run(["wrk", "-t1", "-c%d" % connections, "-d%gs" % (seconds or self.a.seconds), "-s",
                              os.path.join(HERE, "load.lua"), "http://127.0.0.1:%d/" % server.port, "--", paths, method,
                              str(start * 7919)], capture_output=True, text=True)
        cpu = server.cpu() - cpu
        m = re.search(r"^JSON (.*)$", out.stdout, re.M)
        if not m:
            fail("wrk against %s: %s %s" % (server.label, out.stdout, out.stderr))
        r = json.loads(m.group(1))
        if r["errors"] or r["status_errors"] or not r["requests"]:
            r["bad"] = True
            note("%s: %s" % (server.label, r))
        r["per_second"] = r["requests"] / r["seconds"]
        r["cpu_us"] = cpu / max(1, r["requests"]) * 1e6
        r["cores"] = cpu / r["seconds"]
        if isinstance(server, Server):
            server.truncate_log()
        return r

    def row(self, case, engine, rounds, fields):
        entry = {"case": case, "engine": engine, "rounds": rounds}
        for f in fields:
            entry[f] = statistics.median(r[f] for r in rounds)
        self.rows.append(entry)
        return entry

    def target(self, name, ratios, want, note_text=""):
        ratio = statistics.median(ratios) if isinstance(ratios, list) else ratios
        self.targets.append({"name": name, "ratio": ratio, "rounds": ratios, "want": want,
                             "met": None if want is None else ratio >= want, "note": note_text})

    def ratios(self, got, over, under, field, inverse=False):
        pairs = zip(got[over], got[under])
        return [(y[field] / x[field]) if inverse else (x[field] / y[field]) for x, y in pairs]

    def interleave(self, case, engines, run, fields):
        """engines: {label: server}; run(server, round) gives the figures of one measurement."""
        got = {label: [] for label in engines}
        for n in range(self.a.rounds):
            for label, server in engines.items():
                got[label].append(run(label, server, n))
                note("  %s, round %d, %s: %s" % (case, n + 1, label, ", ".join(
                    "%s %.4g" % (f, got[label][-1][f]) for f in fields)))
        for label in engines:
            self.row(case, label, got[label], fields)
        return got

    FIELDS = ("per_second", "cpu_us", "cores", "p50_us", "p99_us")

    def point(self, case, path, check):
        server, keys = self.cheetah()
        paths = self.paths(case, path)
        with open(paths) as f:
            some = [next(f).strip() for _ in range(100)]
        for p in some:
            status, body = request(server.port, "GET", p)
            if status != 200:
                fail("%s: %d %r" % (p, status, body))
            check(p, json.loads(body))
        engines = {"cheetah": server, "bare loop": self.bare("loop", len(body)), "bare pool": self.bare("pool", len(body))}
        self.facts[case + "_body_bytes"] = len(body)
        files = {label: (paths, case) for label in engines}
        if not self.a.no_webdis:
            engines["webdis"] = self.webdis()
            files["webdis"] = (self.paths("webdis", lambda rng: "/GET/k%011d" % rng.randrange(self.a.pairs)), case)
        return engines, files

    def close_bare(self, engines):
        for s in engines.values():
            if s.label.startswith("bare"):
                s.stop()

    def point_case(self, case, path, check):
        engines, files = self.point(case, path, check)
        got = self.interleave(case, engines, lambda label, s, n: self.wrk(s, files[label][0], "GET", 64, n),
                              self.FIELDS)
        self.close_bare(engines)
        title = {"kv": "GET /kv/{key}", "pair": "GET /pairs/{pair}?exact"}[case]
        self.target(title + ", requests/s / bare loop", self.ratios(got, "cheetah", "bare loop", "per_second"), 0.85)
        self.target(title + ", CPU a request, bare loop / cheetah",
                    self.ratios(got, "cheetah", "bare loop", "cpu_us", True), 0.85, "the steadier figure")
        self.target(title + ", requests/s / bare pool", self.ratios(got, "cheetah", "bare pool", "per_second"), None)
        self.target(title + ", CPU a request, bare pool / cheetah",
                    self.ratios(got, "cheetah", "bare pool", "cpu_us", True), None)
        if "webdis" in engines:
            self.target(title + ", requests/s / webdis", self.ratios(got, "cheetah", "webdis", "per_second"), 2.0)
            self.target(title + ", CPU a request, webdis and Redis / cheetah",
                        self.ratios(got, "cheetah", "webdis", "cpu_us", True), None)

    def kv_path(self, rng):
        return "/kv/%d" % rng.choice(self.cheetah()[1])

    def kv_check(self, path, body):
        key = int(path.rsplit("/", 1)[1])
        if not hasattr(self, "_of_key"):
            self._of_key = {k: i for i, k in enumerate(self.cheetah()[1])}
        want = value_of(name_of(self._of_key[key]))
        if base64.b64decode(body["value"]) != want or body["key"] != key or body["size"] != VALUE:
            fail("%s: wrong answer %r" % (path, body))

    def pair_path(self, rng):
        return "/pairs/x%s?exact=true&values=true" % name_of(rng.randrange(self.a.pairs)).hex()

    def pair_check(self, path, body):
        name = bytes.fromhex(path[8:32])
        if base64.b64decode(body["pair"]) != name or base64.b64decode(body["value"]) != value_of(name):
            fail("%s: wrong answer %r" % (path, body))

    def kv(self):
        self.point_case("kv", self.kv_path, self.kv_check)

    def pair(self):
        self.point_case("pair", self.pair_path, self.pair_check)

    def latency(self):
        for case, path, check in (("kv", self.kv_path, self.kv_check), ("pair", self.pair_path, self.pair_check)):
            engines, files = self.point(case, path, check)
            for connections in (1, 64):
                self.interleave("latency %s, %d" % (case, connections), engines,
                                lambda label, s, n: self.wrk(s, files[label][0], "GET", connections, n), self.FIELDS)
            self.close_bare(engines)

    def put(self):
        """PUT over twice as many names as there are: half are there."""
        paths = self.paths("put", lambda rng: "/pairs/x%s" % name_of(rng.randrange(2 * self.a.pairs)).hex())
        with open(paths) as f:
            path = next(f).strip()
        server, _ = self.cheetah()
        status, body = request(server.port, "PUT", path, os.urandom(VALUE))
        if status not in (200, 201):
            fail("PUT: %d %r" % (status, body))
        if "os" not in self.loaded:
            s = self.start_cheetah("os")
            self.loaded["os"] = (s, self.load_cheetah(s))
        engines = {"cheetah": server, "cheetah os": self.loaded["os"][0], "bare loop": self.bare("loop", len(body)),
                   "bare pool": self.bare("pool", len(body))}

        def run(label, s, n):
            ours = label.startswith("cheetah")
            if ours:
                settle(s)
            before = self.commits(s) if ours else None
            r = self.wrk(s, paths, "PUT", 64, n)
            if ours:
                after = self.commits(s)
                r["commits"], r["fsyncs"] = after[0] - before[0], after[1] - before[1]
                r["group"] = r["commits"] / r["fsyncs"] if r["fsyncs"] else float("nan")
            if label == "cheetah":
                r.update(self.disk(64 * 120))
                r["bound"] = r["syncs_per_second"] * r["group"]
            return r

        got = self.interleave("put", engines, run, self.FIELDS)
        self.close_bare(engines)
        groups = [r["group"] for r in got["cheetah"]]
        syncs = [r["syncs_per_second"] for r in got["cheetah"]]
        bounds = [r["per_second"] / r["bound"] for r in got["cheetah"]]
        self.facts["put"] = {"commits_per_fsync": groups, "syncs_per_second_alone": syncs,
                             "bound": [r["bound"] for r in got["cheetah"]],
                             "server_fsyncs_per_second": [r["fsyncs"] / r["seconds"] for r in got["cheetah"]]}
        self.target("PUT /pairs sync, requests/s / bare loop", self.ratios(got, "cheetah", "bare loop", "per_second"),
                    0.5, "or the disk's bound, next line")
        self.target("PUT /pairs sync, requests/s / (syncs/s of this disk x %.1f commits a sync)"
                    % statistics.median(groups), bounds, None, "%.0f syncs/s of 64 x 120 bytes" % statistics.median(syncs))
        self.target("PUT /pairs sync, CPU a request, bare loop / cheetah",
                    self.ratios(got, "cheetah", "bare loop", "cpu_us", True), None)
        self.target("PUT /pairs os, requests/s / bare loop", self.ratios(got, "cheetah os", "bare loop", "per_second"),
                    None)
        self.target("PUT /pairs os, CPU a request, bare loop / cheetah",
                    self.ratios(got, "cheetah os", "bare loop", "cpu_us", True), None)

    def disk(self, size):
        out = subprocess.run([self.client_bin, "fdatasync", os.path.join(self.dir, "sync.tmp"), str(size), "2"],
                             capture_output=True, text=True, check=True)
        return json.loads(out.stdout)

    def commits(self, server):
        _, data = request(server.port, "GET", "/metrics")
        text = data.decode()
        commits = [float(v) for v in re.findall(r"^cheetah_commits_total(?:\{[^}]*\})? (\S+)$", text, re.M)]
        syncs = [float(v) for v in re.findall(r"^cheetah_fsync(?:_seconds_count|_total)(?:\{[^}]*\})? (\S+)$", text, re.M)]
        if not commits or not syncs:
            note("no cheetah_commits_total or cheetah_fsync_total in /metrics")
        return sum(commits), sum(syncs)

    def batch(self):
        server, _ = self.cheetah()
        bodies = self.bodies()

        def run(label, s, n):
            connections, results = kinds[label]
            db = "batch%d" % n
            path = "/batch?db=%s%s" % (db, "" if results else "&results=false")
            request(s.port, "DELETE", "/databases/%s?confirm=%s" % (db, db))
            settle(s)
            errors = []

            def work(k):
                try:
                    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=300)
                    for b in bodies[k::connections]:
                        c.request("POST", path, b, {"Content-Type": "application/x-ndjson"})
                        r = c.getresponse()
                        data = r.read()
                        if r.status != 200 or b'"failed":0}' not in data[-200:]:
                            fail("batch: %d %r" % (r.status, data[-300:]))
                    c.close()
                except Exception as e:  # told by the caller
                    errors.append(e)

            threads = [threading.Thread(target=work, args=(k,)) for k in range(connections)]
            cpu, t = s.cpu(), time.time()
            for x in threads:
                x.start()
            for x in threads:
                x.join()
            t, cpu = time.time() - t, s.cpu() - cpu
            if errors:
                raise errors[0]
            status, data = request(s.port, "GET", "/pairs/*?count=true&db=" + db)
            if status != 200 or json.loads(data)["pairs"] != self.a.pairs:
                fail("batch: %d %r" % (status, data))
            before = s.cpu()
            settle(s)
            request(s.port, "DELETE", "/databases/%s?confirm=%s" % (db, db))
            ops = self.a.pairs
            return {"per_second": ops / t, "cpu_us": cpu / ops * 1e6, "cores": cpu / t, "per_cpu_second": ops / cpu,
                    "cpu_us_after": (s.cpu() - before) / ops * 1e6}

        kinds = {"1 connection": (1, True), "4 connections": (4, True), "1 connection, no results": (1, False)}
        got = self.interleave("batch", {x: server for x in kinds}, run,
                              ("per_second", "cpu_us", "cores", "per_cpu_second", "cpu_us_after"))
        for label, (_, results) in kinds.items():
            self.target("POST /batch, %s, operations a CPU second / 200 000" % label,
                        [r["per_cpu_second"] / 200_000 for r in got[label]], 1.0 if results else None)

    def stream_once(self, server, path, connections, repeat):
        cpu = server.cpu()
        out = subprocess.run([self.client_bin, "stream", str(server.port), path, str(connections), str(repeat)],
                             capture_output=True, text=True)
        if out.returncode:
            fail("stream from %s: %s" % (server.label, out.stderr))
        r = json.loads(out.stdout)
        cpu = server.cpu() - cpu
        for e in r.pop("ends"):
            tail = bytes.fromhex(e["tail"])
            if " 200 " not in e["status"] or not tail.endswith(b"0\r\n\r\n"):
                fail("stream from %s %s: %s %r" % (server.label, path, e["status"], tail))
            if server.label == "cheetah" and b'{"end":{"count":%d,"next":null}}' % self.a.pairs not in tail:
                fail("%s: not complete: %r" % (path, tail))
        r["gb_per_second"] = r["bytes"] / r["seconds"] / 1e9
        r["cores"] = cpu / r["seconds"]
        r["ns_per_byte"] = cpu / r["bytes"] * 1e9
        r["pairs_per_second"] = r["streams"] * self.a.pairs / r["seconds"]
        return r

    def stream(self):
        server, _ = self.cheetah()
        for title, path, want in (("values", "/pairs/*?values=true", 0.25), ("names", "/pairs/*", 0.3)):
            first = self.stream_once(server, path, 1, 1)  # warms up, tells the size
            bare = "/stream/%d" % (first["bytes"])
            repeat = max(1, round(self.a.seconds / first["seconds"]))
            self.facts["stream_%s_bytes" % title] = first["bytes"]
            loop, pool = self.bare("loop", 60), self.bare("pool", 60)
            engines = {"cheetah": server, "cheetah, 4 at once": server, "bare loop": loop, "bare loop, 4 at once": loop,
                       "bare pool": pool}

            def run(label, s, n):
                ours, four = label.startswith("cheetah"), "4 at" in label
                times = repeat if ours else max(1, min(10 * repeat, int(3e9 * self.a.seconds / first["bytes"])))
                return self.stream_once(s, path if ours else bare, 4 if four else 1, max(1, times // (4 if four else 1)))

            got = self.interleave("stream " + title, engines, run,
                                  ("gb_per_second", "pairs_per_second", "ns_per_byte", "cores"))
            loop.stop()
            pool.stop()
            self.target("stream of %s, GB/s / bare loop" % title,
                        self.ratios(got, "cheetah", "bare loop", "gb_per_second"), want)
            self.target("stream of %s, GB/s / bare pool" % title,
                        self.ratios(got, "cheetah", "bare pool", "gb_per_second"), None)
            self.target("stream of %s, 4 at once / one" % title,
                        self.ratios(got, "cheetah, 4 at once", "cheetah", "gb_per_second"), 1.0)
            self.target("stream of %s, 4 at once / bare loop, 4 at once" % title,
                        self.ratios(got, "cheetah, 4 at once", "bare loop, 4 at once", "gb_per_second"), None)

    def run(self):
        def sysctl(name):
            try:
                with open("/proc/sys/" + name) as f:
                    return f.read().strip()
            except OSError:
                return None
        self.facts.update(pairs=self.a.pairs, rounds=self.a.rounds, seconds=self.a.seconds, threads=self.a.threads,
                          access_log=not self.a.no_access_log, cpus=os.cpu_count(),
                          tcp=sysctl("net/ipv4/tcp_congestion_control"), load_before=os.getloadavg())
        failed = []
        for case in CASES:
            if self.a.only and case not in self.a.only:
                continue
            note(case)
            try:
                getattr(self, case)()
            except (RuntimeError, OSError, http.client.HTTPException, ValueError, KeyError,
                    subprocess.SubprocessError) as e:
                failed.append("%s: %s" % (case, e))
                note("FAILED: " + failed[-1])
        self.facts["load_after"] = os.getloadavg()
        self.facts["failed"] = failed
        self.facts["bad_runs"] = [[r["case"], r["engine"]] for r in self.rows if any(x.get("bad") for x in r["rounds"])]
        return not failed

    def table(self):
        f = self.facts
        print("%d pairs of 12 + %d bytes, %d rounds of %g s, %d HTTP threads, access log %s, %d CPUs, TCP %s, "
              "load %.2f before, %.2f after\n" % (f["pairs"], VALUE, f["rounds"], f["seconds"], f["threads"],
                                                  "on" if f["access_log"] else "off", f["cpus"], f["tcp"],
                                                  f["load_before"][0], f["load_after"][0]))
        print("%-22s %-26s %10s %9s %7s %9s %9s" % ("", "", "/s", "CPU us", "cores", "p50 us", "p99 us"))
        for r in self.rows:
            if "gb_per_second" in r:
                print("%-22s %-26s %5.2f GB/s %9.3f %7.2f   %5.2f M pairs/s (CPU: ns a byte)" % (
                    r["case"], r["engine"], r["gb_per_second"], r["ns_per_byte"], r["cores"],
                    r["pairs_per_second"] / 1e6 if "cheetah" in r["engine"] else 0))
            else:
                print("%-22s %-26s %10.0f %9.2f %7.2f %s" % (
                    r["case"], r["engine"], r["per_second"], r["cpu_us"], r["cores"],
                    "%9.0f %9.0f" % (r["p50_us"], r["p99_us"]) if "p50_us" in r else
                    "  %.0f a CPU second; CPU afterwards %.2f" % (r["per_cpu_second"], r["cpu_us_after"])))
        if "put" in f:
            p = f["put"]
            print("\nPUT sync: %s commits a sync, %s syncs/s by the server, %s syncs/s of this disk alone" % tuple(
                "/".join("%.4g" % v for v in p[k])
                for k in ("commits_per_fsync", "server_fsyncs_per_second", "syncs_per_second_alone")))
        print()
        for t in self.targets:
            print("%-84s %6.2f %s%s" % (t["name"], t["ratio"], "" if t["want"] is None else
                                        " want %.2f: %s" % (t["want"], "met" if t["met"] else "NOT MET"),
                                        "  (%s)" % t["note"] if t["note"] else ""))
        for text in f["failed"]:
            print("FAILED " + text)
        for case, engine in f["bad_runs"]:
            print("errors or statuses other than 2xx in %s, %s: see the JSON" % (case, engine))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--bin", default=os.path.join(REPO, "build/release/cheetah-db"), help="the server")
    p.add_argument("--tools", default=os.path.join(REPO, "build/bench-http"), help="where bare and client were built")
    p.add_argument("--dir", default=os.path.join(REPO, "build/bench-http"), help="data goes below it; same disk as the measurement")
    p.add_argument("--only", default="", help="comma-separated: " + ",".join(CASES))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--pairs", type=int, default=1_000_000)
    p.add_argument("--threads", type=int, default=1, help="HTTP threads of cheetah and of the bare server")
    p.add_argument("--webdis-threads", type=int, default=2)
    p.add_argument("--no-access-log", action="store_true")
    p.add_argument("--no-webdis", action="store_true")
    p.add_argument("--server-args", default="", help="more arguments for the server")
    p.add_argument("--keep", action="store_true", help="keep the data directory")
    p.add_argument("--hold", action="store_true", help="load, print the port and wait, for a profiler")
    p.add_argument("--json", metavar="FILE", help="write every round there; - for stdout")
    a = p.parse_args()
    a.bin, a.tools, a.dir = map(os.path.abspath, (a.bin, a.tools, a.dir))
    a.only = [x for x in a.only.split(",") if x]
    if set(a.only) - set(CASES):
        p.error("--only: one of " + ", ".join(CASES))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(a)
    ok = False
    try:
        if a.hold:
            server, _ = bench.cheetah()
            for case, path in (("kv", bench.kv_path), ("pair", bench.pair_path)):
                print(bench.paths(case, path))
            print("pid %d port %d; Enter ends it" % (server.process.pid, server.port), flush=True)
            sys.stdin.readline()
            return 0
        ok = bench.run()
    except KeyboardInterrupt:
        return 130
    finally:
        for s in list(children):
            s.stop()
        if not a.keep:
            shutil.rmtree(bench.dir, ignore_errors=True)
    if a.json:
        with (sys.stdout if a.json == "-" else open(a.json, "w")) as f:
            json.dump({"facts": bench.facts, "targets": bench.targets, "rows": bench.rows}, f, indent=1)
    if a.json != "-":
        bench.table()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
