#!/usr/bin/env python3
"""compression: what compressed streams save and cost: bytes, wall time, processor time of the server.

    tests/bench/http/compression.py [cheetah-db]

Loads 300 000 names, 60 000 of them with values of twelve words, into a server of its own, and reads each stream five times with each coding; the
best of them counts. The client does not decompress.
"""
import base64
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import time

STREAMS = [("names", "/pairs/name:"), ("names and values", "/pairs/user:?values=true"), ("the same as text", "/pairs/user:?values=true&text=true")]
ROUNDS = 5


def b64(data):
    return base64.b64encode(data).decode()


def start(binary, folder):
    port = os.path.join(folder, "port")
    server = subprocess.Popen([binary, "serve", "--data", os.path.join(folder, "data"), "--listen", "127.0.0.1:0", "--line-listen", "none", "--durability", "os",
                               "--port-file", port, "--access-log", "false"], stderr=subprocess.DEVNULL)
    while not os.path.exists(port) or not open(port).read().endswith("\n"):
        time.sleep(0.05)
    return server, int(open(port).read())


def load(connection):
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(2, 10))) for _ in range(5000)]
    for first in range(0, 300000, 20000):
        lines = [{"op": "pair_set", "pair": b64(b"name:%08d" % i), "key": i + 1} for i in range(first, first + 20000)]
        if first < 60000:
            lines += [{"op": "pair_put", "pair": b64(b"user:%08d" % i), "value": b64(" ".join(rng.choices(words, k=12)).encode())} for i in range(first, first + 20000)]
        connection.request("POST", "/batch?results=false", "".join(json.dumps(line) + "\n" for line in lines), {"Content-Type": "application/x-ndjson"})
        answer = connection.getresponse()
        assert json.loads(answer.read())["end"]["failed"] == 0


def cpu(pid):
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read(connection, path, coding):
    connection.request("GET", path, headers={"Accept-Encoding": coding})
    answer, n = connection.getresponse(), 0
    while True:
        data = answer.read(1 << 20)
        if not data:
            return n
        n += len(data)


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else "build/release/cheetah-db"
    with tempfile.TemporaryDirectory() as folder:
        server, port = start(binary, folder)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.connect()
            while True:
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                if (answer.read(), answer.status)[1] == 200:
                    break
                time.sleep(0.05)
            load(connection)
            print("| stream | coding | MB | ratio | MB/s of text | CPU ns a byte of text |\n|---|---|---|---|---|---|")
            for name, path in STREAMS:
                plain = 0
                for coding in ("identity", "zstd", "gzip"):
                    rounds = []
                    for _ in range(ROUNDS):
                        wall, used = time.monotonic(), cpu(server.pid)
                        n = read(connection, path, coding)
                        rounds.append((time.monotonic() - wall, cpu(server.pid) - used))
                    plain = plain or n
                    print("| %s | %s | %.2f | %.1f | %.0f | %.1f |" % (name, coding, n / 1e6, plain / n, plain / min(rounds)[0] / 1e6,
                                                                      min(used for _, used in rounds) / plain * 1e9))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
