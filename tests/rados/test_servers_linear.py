"""Linearizability over RADOS: clients read and write the same few names and keys at once through two servers, each operation through
either of them, while servers are killed (SIGKILL) and started anew and, in the long form, OSDs too. The history of each name and key is
then that of one register (tests/linear/linear.py): no answered write is forgotten, whichever server is asked, and none that was seen is
taken back. CHT_LINEAR_SECONDS: how long, 3 is a short form; from 10 on OSDs
are killed as well. Without it: skipped (it takes some 10 s more than that, most of them to start). CHT_TEST_SEED.
"""
import http.client
import json
import os
import random
import signal
import subprocess
import time

import harness
import pytest
from harness import rados
from linear import READ, WRITE, Op
from test_linear import Client, Lost, Web, check

SECONDS = float(os.environ.get("CHT_LINEAR_SECONDS", "0"))
OSDS = SECONDS >= 10 and "CHT_RADOS_SHELL" in os.environ
NAMES, KEYS, CLIENTS = 2, 2, 10
pytestmark = pytest.mark.skipif(not rados.WANTED or SECONDS <= 0, reason="CHT_STORE=rados CHT_LINEAR_SECONDS=3: see tests/rados/README.md")


class Both:
    """Connections to all servers that live; each operation goes through one of them."""

    def __init__(self, servers, rng):
        self.rng, self.servers, self.links = rng, servers, [Web(server) for server in servers]

    def follow(self, servers):
        """Others may live by now."""
        if servers is not None and servers is not self.servers:
            self.close()
            self.__init__(servers, self.rng)

    def write(self, place, value):
        self.rng.choice(self.links).write(place, value)

    def read(self, place, way):
        return self.rng.choice(self.links).read(place, way)

    def close(self):
        for link in self.links:
            link.close()


class Between(Client):
    def __init__(self, who, box, places):
        super().__init__(2 * who, box, places)  # even: HTTP

    def connect(self, server):
        return Both(server, self.random)

    def one(self, link):
        link.follow(self.box["server"])
        super().one(link)


def shell(*words):
    subprocess.run([os.environ["CHT_RADOS_SHELL"], words[0], os.environ["CHT_RADOS_DIR"], *words[1:]], check=True, timeout=60,
                   stdout=subprocess.DEVNULL)


def kill_server(servers, box, rng):
    """It is killed while it is in use; the clients go on with the other."""
    victim = rng.choice(servers)
    victim.signal(signal.SIGKILL)
    victim.wait()
    box["server"] = [server for server in servers if server is not victim] or None
    end = time.monotonic() + 60
    while True:  # without an OSD it may end with a time-out
        try:
            victim.restart()
            break
        except (AssertionError, OSError):
            assert time.monotonic() < end
            victim.process.kill()
            victim.wait()
    box["server"] = servers


def kill_osd(rng):
    osd = str(rng.randrange(3))
    shell("kill-osd", osd)
    time.sleep(rng.uniform(0.2, 2))
    shell("start-osd", osd)


def new_key(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", "/kv", body=b"0.0", headers={"Content-Type": "application/octet-stream"})
    answer = connection.getresponse()
    assert answer.status == 201
    key = json.loads(answer.read())["key"]
    connection.close()
    return key


def last_reads(servers, places, who):
    """What each server shows at the end."""
    ops = {place: [] for place in places}
    for server in servers:
        for place in places:
            end, link = time.monotonic() + 60, Web(server)
            while True:
                call = time.monotonic_ns()
                try:
                    ops[place].append(Op(READ, link.read(place, 1), call, time.monotonic_ns(), who))
                    break
                except Lost:
                    assert time.monotonic() < end
                    link.close()
                    link = Web(server)
            link.close()
    return ops


def test_two_servers_across_kills():
    one = harness.Server("--shards", "2", "--access-log", "false")
    servers = [one, harness.Server("--access-log", "false", data=one.data)]
    places = [("name", "n%d" % i) for i in range(NAMES)] + [("key", new_key(one)) for _ in range(KEYS)]
    begun, rng = time.monotonic_ns(), random.Random(int(os.environ.get("CHT_TEST_SEED", "1")))
    histories = {place: [Op(WRITE, "0.0", begun - 2, begun - 1, "-")] if place[0] == "key" else [] for place in places}
    box = {"stop": False, "server": servers}
    clients = [Between(who, box, places) for who in range(CLIENTS)]
    kills = osds = 0
    try:
        for client in clients:
            client.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(rng.uniform(0.1, 0.7))
            if OSDS and rng.random() < 0.3:
                kill_osd(rng)
                osds += 1
            else:
                kill_server(servers, box, rng)
                kills += 1
        time.sleep(0.2)
        box["stop"] = True
        for client in clients:
            client.join(90)
            assert not client.is_alive() and client.failure is None, client.failure
        for ops in [client.ops for client in clients] + [last_reads(servers, places, "end")]:
            for place, some in ops.items():
                histories[place] += some
        total = check(histories, kills)
        print("%.0f s: %d operations, %d servers and %d OSDs killed" % (SECONDS, total, kills, osds))
        assert kills >= 1 and total > 20 * kills and (osds > 0 or not OSDS), (kills, osds, total)  # else nothing was tried
    finally:
        box["stop"] = True
        servers[1].pool = None
        harness.finish_all([servers[1], one])
