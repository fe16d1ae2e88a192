"""Many databases: how long they take to make, what they cost, how fast a server starts with them and opens one.

    CHEETAH_DB=build/release/cheetah-db /usr/bin/python3 tests/bench/http/many.py 10000 [DIRECTORY]
"""
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
HOME = tempfile.mkdtemp(prefix="cht_many.", dir=sys.argv[2] if len(sys.argv) > 2 else None)
CLIENTS = 4


class Server:
    def __init__(self, *flags):
        port = os.path.join(HOME, "port")
        if os.path.exists(port):
            os.unlink(port)
        begin = time.monotonic()
        command = [os.environ["CHEETAH_DB"], "serve", "--listen", "127.0.0.1:0", "--line-listen", "none", "--port-file", port,
                   "--data", os.path.join(HOME, "data"), "--drain-seconds", "0", "--access-log", "false"]
        self.process = subprocess.Popen(command + list(flags), stderr=subprocess.DEVNULL)
        while not os.path.exists(port) or not open(port, encoding="ascii").read().endswith("\n"):
            time.sleep(0.002)
        self.port = int(open(port, encoding="ascii").read())
        while self.ask("GET", "/readyz") != 200:
            time.sleep(0.002)
        self.ready = time.monotonic() - begin

    def ask(self, method, target, body=None, connection=None):
        own = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        own.request(method, target, body)
        answer = own.getresponse()
        answer.read()
        if connection is None:
            own.close()
        return answer.status

    def figures(self):
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as file:
            status = dict(line.split(":", 1) for line in file)
        return "%d MiB resident, %d threads, %d descriptors" % (int(status["VmRSS"].split()[0]) // 1024, int(status["Threads"]),
                                                                len(os.listdir("/proc/%d/fd" % self.process.pid)))

    def stop(self):
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        return time.monotonic() - begin


def make(server):
    def some(first):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        for i in range(first, COUNT, CLIENTS):
            assert server.ask("POST", "/kv?db=m%d" % i, b"x", connection) == 201

    crowd = [threading.Thread(target=some, args=(k,)) for k in range(CLIENTS)]
    begin = time.monotonic()
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    return time.monotonic() - begin


try:
    server = Server("--idle-close-seconds", "5")
    taken = make(server)
    print("%d databases made and written to in %.1f s; %s" % (COUNT, taken, server.figures()))
    print("stopped in %.1f s" % server.stop())
    size = subprocess.run(["du", "-sk", os.path.join(HOME, "data", "m0")], capture_output=True, text=True, check=True).stdout
    print("one on the disk: %s KiB" % size.split()[0])
    server = Server()
    print("start: %.3f s; %s" % (server.ready, server.figures()))
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    times = []
    for i in range(0, COUNT, max(1, COUNT // 500)):
        begin = time.monotonic()
        assert server.ask("GET", "/kv?db=m%d&limit=1" % i, None, link) == 200
        times.append((time.monotonic() - begin) * 1000)
    times.sort()
    print("first use: median %.2f ms, worst %.2f ms; %s" % (times[len(times) // 2], times[-1], server.figures()))
    print("stopped in %.1f s" % server.stop())
finally:
    shutil.rmtree(HOME, ignore_errors=True)
