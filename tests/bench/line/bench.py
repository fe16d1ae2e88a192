#!/usr/bin/python3
"""bench: the line protocol against redis-server, both driven by the same client in the same run, in turns.

    tests/bench/line/bench.py [--program build/release/cheetah-db] [--rounds 5] [--seconds 2] [--dir DIR]

The client sends prepared bytes and counts line ends, so that it measures the server: `depth` commands at a time, the next ones
when all are answered, on one connection or on several processes. Each figure is the median of the rounds; the ratio is that of
the medians. Durable: --durability sync against appendfsync always. Not: os against appendfsync no.
"""
import argparse
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
VALUE = b"0123456789abcdef"
KEYS = 100000


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connect(port):
    for _ in range(300):
        try:
            s = socket.create_connection(("127.0.0.1", port))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return s
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise SystemExit("no server on port %d" % port)


def drain(s, ends, mark):
    got = 0
    while got < ends:
        data = s.recv(1 << 18)
        if not data:
            raise SystemExit("the server closed the connection")
        got += data.count(mark)


class Cheetah:
    mark, name = b"\n", "cheetah-db"

    def __init__(self, program, directory, durable):
        self.port = free_port()
        self.process = subprocess.Popen([program, "serve", "--listen", "127.0.0.1:0", "--line-listen", "127.0.0.1:%d" % self.port,
                                         "--data", os.path.join(directory, "cheetah"), "--durability", "sync" if durable else "os",
                                         "--drain-seconds", "0", "--log-level", "error"], stdin=subprocess.DEVNULL)

    def commands(self, what, first, count):
        """Bytes of so many commands, and how many line ends answer them."""
        numbers = range(first, first + count)
        lines = {"insert": lambda n: b"INSERT:16 " + VALUE, "read": lambda n: b"READ %d" % (n % KEYS + 1),
                 "pair_set": lambda n: b"PAIR_SET name:%08d 1" % (n % (4 * KEYS)), "pair_get": lambda n: b"PAIR_GET name:%08d" % (n % KEYS)}
        return b"".join(lines[what](n) + b"\n" for n in numbers), count

    def load(self):
        s = connect(self.port)
        for what in ("insert", "pair_set"):
            data, ends = self.commands(what, 0, KEYS)
            for at in range(0, KEYS, 10000):
                part, ends = self.commands(what, at, 10000)
                s.sendall(part)
                drain(s, ends, self.mark)


class Redis:
    mark, name = b"\r\n", "redis"

    def __init__(self, program, directory, durable):
        self.port = free_port()
        os.makedirs(os.path.join(directory, "redis"), exist_ok=True)
        self.process = subprocess.Popen([program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", os.path.join(directory, "redis"),
                                         "--appendonly", "yes", "--appendfsync", "always" if durable else "no", "--save", "",
                                         "--daemonize", "no"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    @staticmethod
    def resp(*words):
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)

    def commands(self, what, first, count):
        makers = {"insert": lambda n: self.resp(b"SET", b"%d" % (n + KEYS + 1), VALUE), "read": lambda n: self.resp(b"GET", b"%d" % (n % KEYS + 1)),
                  "pair_set": lambda n: self.resp(b"SET", b"name:%08d" % (n % (4 * KEYS)), b"1"),
                  "pair_get": lambda n: self.resp(b"GET", b"name:%08d" % (n % KEYS))}
        return b"".join(makers[what](n) for n in range(first, first + count)), count * (2 if what in ("read", "pair_get") else 1)

    def load(self):
        s = connect(self.port)
        for at in range(0, KEYS, 10000):
            s.sendall(b"".join(self.resp(b"SET", b"%d" % (n + 1), VALUE) for n in range(at, at + 10000)))
            drain(s, 10000, self.mark)
            part, ends = self.commands("pair_set", at, 10000)
            s.sendall(part)
            drain(s, ends, self.mark)


def drive(server, what, depth, seconds, number, queue):
    s = connect(server.port)
    batches = [server.commands(what, number * 10 ** 7 + i * depth, depth) for i in range(max(2, min(64, 200000 // depth)))]
    done, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        data, ends = batches[done % len(batches)]
        s.sendall(data)
        drain(s, ends, server.mark)
        done += 1
    queue.put(done * depth / (time.monotonic() - start))


def rate(server, what, depth, connections, seconds):
    queue = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=drive, args=(server, what, depth, seconds, n, queue)) for n in range(connections)]
    for process in processes:
        process.start()
    total = sum(queue.get() for _ in processes)
    for process in processes:
        process.join()
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "release", "cheetah-db"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--dir", default=None)
    a = parser.parse_args()
    redis = shutil.which("redis-server")
    if redis is None:
        raise SystemExit("redis-server is missing (deploy/install-deps.sh bench)")
    print("| writes are | command | depth | connections | cheetah-db /s | redis /s | ratio |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for durable in (True, False):
        directory = tempfile.mkdtemp(prefix="bench_line.", dir=a.dir)
        servers = [Cheetah(a.program, directory, durable), Redis(redis, directory, durable)]
        try:
            for server in servers:
                server.load()
            for what in ("insert", "pair_set") if durable else ("insert", "pair_set", "read", "pair_get"):
                for depth, connections in ((1, 1), (100, 1), (1000, 1), (100, 4)):
                    got = [[], []]
                    for turn in range(a.rounds):
                        for i in (0, 1) if turn % 2 == 0 else (1, 0):
                            got[i].append(rate(servers[i], what, depth, connections, a.seconds))
                    ours, theirs = (statistics.median(one) for one in got)
                    print("| %s | %s | %d | %d | %d | %d | %.2f |" % ("durable" if durable else "left to the kernel", what.upper(), depth,
                                                                    connections, ours, theirs, ours / theirs))
                    sys.stdout.flush()
        finally:
            for server in servers:
                server.process.terminate()
                server.process.wait()
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
