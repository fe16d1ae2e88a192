"""Linearizability across crashes: clients read and write the same few names and keys at once, over HTTP and the line protocol, while
the log is slow (slowlog.c) and the server is killed again and again. The history of each name and key is then that of a register
that never forgets an answered write and never shows what a kill takes back (linear.py). CHT_TEST_LONG=1: a minute of it."""
import base64
import http.client
import json
import math
import os
import random
import signal
import socket
import threading
import time

import pytest

from harness import wait_for
from harness.line import LineServer
from linear import READ, WRITE, Op, linearizable, shortest_failure

SECONDS = 60 if os.environ.get("CHT_TEST_LONG") else 6
NAMES, KEYS, CLIENTS, LIFE = 2, 2, 12, (0.1, 0.5)
READERS = 6  # of the clients


# ---- the checker itself -------------------------------------------------------------------------------------------------


def history(*ops):
    return [Op(kind, value, call, end, n) for n, (kind, value, call, end) in enumerate(ops)]


def test_checker_accepts():
    assert linearizable([])
    assert linearizable(history((WRITE, 1, 0, 10), (READ, None, 1, 2), (READ, 1, 3, 4)))
    assert linearizable(history((WRITE, 1, 0, 5), (WRITE, 2, 1, 6), (READ, 2, 7, 8), (READ, 2, 9, 10)))
    assert linearizable(history((WRITE, 1, 0, 5), (WRITE, 2, 1, 6), (READ, 1, 7, 8)))
    # of unknown outcome: never, at once, or late
    assert linearizable(history((WRITE, 1, 0, math.inf), (READ, None, 1, 2), (READ, 1, 3, 4)))
    assert linearizable(history((WRITE, 1, 0, 1), (WRITE, None, 2, math.inf), (READ, 1, 3, 4), (READ, None, 5, 6)))


def test_checker_refuses():
    assert not linearizable(history((WRITE, 1, 0, 1), (READ, None, 2, 3)))  # forgotten
    assert not linearizable(history((WRITE, 1, 0, math.inf), (READ, 1, 1, 2), (READ, None, 3, 4)))  # shown, then taken back
    assert not linearizable(history((WRITE, 1, 0, 10), (READ, 1, 1, 2), (READ, None, 3, 4)))
    assert not linearizable(history((WRITE, 1, 0, 1), (WRITE, 2, 2, 3), (READ, 2, 4, 5), (READ, 1, 6, 7)))
    assert not linearizable(history((READ, 1, 0, 1), (WRITE, 1, 2, 3)))  # from the future
    assert "read" in shortest_failure(history((WRITE, 1, 0, 1), (READ, None, 2, 3)))


# ---- clients --------------------------------------------------------------------------------------------------------------


class Lost(Exception):
    """No answer: nobody knows what was done."""


class Web:
    def __init__(self, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)

    def call(self, method, path, body=None):
        kind = {"Content-Type": "application/octet-stream"} if body is not None else {}
        try:
            self.connection.request(method, path, body=body, headers=kind)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as e:
            raise Lost from e
        if answer.status >= 500:
            raise Lost
        return answer.status, text

    def write(self, place, value):
        if place[0] == "name" and value is None:
            status, text = self.call("DELETE", "/pairs/" + place[1])
            assert status in (204, 404), (status, text)
        elif place[0] == "name":
            status, text = self.call("PUT", "/pairs/" + place[1], value.encode())
            assert status in (200, 201), (status, text)
        else:
            status, text = self.call("PUT", "/kv/%d" % place[1], value.encode())
            assert status == 200, (status, text)

    def read(self, place, way):
        if place[0] == "name" and way == 0:
            body = json.dumps({"op": "pair_get", "pair": base64.b64encode(place[1].encode()).decode(), "values": True}).encode()
            text = self.call("POST", "/batch", body)[1]
            found = json.loads(text.split(b"\n")[0])
        elif place[0] == "name":
            status, text = self.call("GET", "/pairs/%s?exact=true&values=true" % place[1])
            found = json.loads(text) if status == 200 else {}
        elif way == 0:
            found = json.loads(self.call("GET", "/kv?keys=%d" % place[1])[1].split(b"\n")[0])
            if found.get("error", "key_not_found") != "key_not_found":
                raise Lost
        else:
            status, text = self.call("GET", "/kv/%d" % place[1])
            found = json.loads(text) if status == 200 else {}
        value = found.get("value")
        return None if value is None else base64.b64decode(value).decode()

    def close(self):
        self.connection.close()


class Wire:
    def __init__(self, server):
        try:
            self.line = server.line(timeout=20)
        except OSError as e:
            raise Lost from e

    def ask(self, line):
        try:
            answer = self.line.ask(line)
        except (OSError, AssertionError) as e:
            raise Lost from e
        if answer is None:
            raise Lost
        return answer.decode()

    def write(self, place, value):
        answer = self.ask("EDIT %d %s" % (place[1], value))
        assert answer.startswith("SUCCESS"), answer

    def read(self, place, way):
        if way == 0:  # in one burst with a write elsewhere: the read is in the commit
            try:
                answers = self.line.many(["EDIT 1 aside", "READ %d" % place[1]])
            except (OSError, AssertionError) as e:
                raise Lost from e
            if None in answers:
                raise Lost
            answer = answers[1].decode()
        else:
            answer = self.ask("READ %d" % place[1])
        if not answer.startswith("SUCCESS"):
            raise Lost
        return answer.split("value=", 1)[1]

    def close(self):
        self.line.close()


class Client(threading.Thread):
    """Talks to whatever server lives; notes every operation."""

    def __init__(self, who, box, places):
        super().__init__(daemon=True)
        self.who, self.box, self.ops, self.failure = who, box, {place: [] for place in places}, None
        self.wire, self.random, self.count = who % 2 == 1, random.Random(who), 0
        self.share = 0 if who < READERS else 0.7  # of writes
        self.places = [place for place in places if not self.wire or place[0] == "key"]

    def one(self, link):
        place = self.random.choice(self.places)
        value = None
        writes = self.random.random() < self.share
        if writes and (place[0] == "key" or self.random.random() < 0.8):
            self.count += 1
            value = "%d.%d" % (self.who, self.count)
        call = time.monotonic_ns()
        try:
            if writes:
                link.write(place, value)
            else:
                value = link.read(place, self.random.randrange(3))
        except Lost:
            if writes:
                self.ops[place].append(Op(WRITE, value, call, math.inf, self.who))
            raise
        self.ops[place].append(Op(WRITE if writes else READ, value, call, time.monotonic_ns(), self.who))

    def connect(self, server):
        return (Wire if self.wire else Web)(server)

    def run(self):
        link = None
        try:
            while not self.box["stop"]:
                server = self.box["server"]
                if server is None:
                    time.sleep(0.002)
                    continue
                try:
                    link = link or self.connect(server)
                    self.one(link)
                except Lost:
                    if link is not None:
                        link.close()
                    link = None
                    time.sleep(0.005)
        except BaseException as e:  # pylint: disable=broad-except
            self.failure = e
        finally:
            if link is not None:
                link.close()


def check(histories, kills):
    total = 0
    for place, ops in sorted(histories.items()):
        total += len(ops)
        if not linearizable(ops):
            pytest.fail("after %d kills the history of %s %s is not linearizable:\n%s"
                        % (kills, place[0], place[1], shortest_failure(ops)))
    return total


def test_across_kills():
    shim = os.environ.get("CHT_SLOWLOG")
    if not shim:
        pytest.skip("CHT_SLOWLOG (the library that slows the log) is not given")
    server = LineServer("--access-log", "false", env={"LD_PRELOAD": shim, "SLOWLOG_WRITE_US": "60000", "SLOWLOG_SYNC_US": "10000"})
    places = [("name", "n%d" % i) for i in range(NAMES)]
    first = Web(server)
    for _ in range(1 + KEYS):  # key 1 is for writes aside
        first.call("POST", "/kv", b"0.0")
    places += [("key", 2 + i) for i in range(KEYS)]
    first.close()
    begun = time.monotonic_ns()
    histories = {place: [Op(WRITE, "0.0", begun - 2, begun - 1, "-")] if place[0] == "key" else [] for place in places}
    box = {"stop": False, "server": server}
    clients = [Client(who, box, places) for who in range(CLIENTS)]
    rng, kills, end = random.Random(int(os.environ.get("CHT_TEST_SEED", "1"))), 0, time.monotonic() + SECONDS
    try:
        for client in clients:
            client.start()
        while time.monotonic() < end or kills < 3:
            time.sleep(rng.uniform(*LIFE))
            box["server"] = None
            server.signal(signal.SIGKILL)
            server.wait()
            kills += 1
            server.restart()
            box["server"] = server
        time.sleep(0.2)
        wait_for(lambda: sum(len(ops) for client in clients for ops in client.ops.values()) > 20 * kills, 60, "enough of the clients")
        box["stop"] = True
        for client in clients:
            client.join(120)
            assert not client.is_alive() and client.failure is None, client.failure
        last = Client(CLIENTS, box, places)
        link = Web(server)
        for place in places:
            call = time.monotonic_ns()
            last.ops[place].append(Op(READ, link.read(place, 1), call, time.monotonic_ns(), "end"))
        link.close()
        for client in clients + [last]:
            for place, ops in client.ops.items():
                histories[place] += ops
        total = check(histories, kills)
        assert kills >= 3 and total > 20 * kills, (kills, total)  # else nothing was tried
        reads = sum(op.kind == READ for ops in histories.values() for op in ops)
        print("%d operations, %d of them reads, %d kills" % (total, reads, kills))
    finally:
        box["stop"] = True
        server.finish()


# ---- who waits, and who does not --------------------------------------------------------------------------------------------


def test_only_its_readers_wait(tmp_path):
    """One HTTP thread, one thread of the line protocol, and a write whose record is held: reads of what it writes wait for it and
    show it, all others are answered meanwhile by the same threads."""
    shim = os.environ.get("CHT_SLOWLOG")
    if not shim:
        pytest.skip("CHT_SLOWLOG (the library that slows the log) is not given")
    hold, held = tmp_path / "hold", tmp_path / "hold.held"
    server = LineServer("--access-log", "false", "--http-threads", "1", "--line-threads", "1", env={"LD_PRELOAD": shim, "SLOWLOG_HOLD": str(hold)})
    try:
        web = Web(server)
        for value in (b"one", b"two"):
            assert web.call("POST", "/kv", value)[0] == 201
        web.write(("name", "n"), "old")
        key = json.loads(web.call("GET", "/pairs/n?exact=true")[1])["key"]
        hold.touch()
        writer = threading.Thread(target=Web(server).write, args=(("key", key), "new"))
        writer.start()
        wait_for(held.exists, what="the write to be held")
        answers = {}

        def ask(name, fn, *args):
            answers[name] = fn(*args)

        waits = [("kv", Web(server).read, ("key", key), 1), ("keys", Web(server).read, ("key", key), 0),
                 ("pair", Web(server).read, ("name", "n"), 1), ("batch", Web(server).read, ("name", "n"), 0),
                 ("line", Wire(server).read, ("key", key), 1)]
        threads = [threading.Thread(target=ask, args=case) for case in waits]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.metric("cheetah_reads_awaited_total") >= 2, what="reads that wait")
        time.sleep(0.05)
        for link in (web, Wire(server)):
            assert link.read(("key", 1), 1) == "one"
        assert web.call("GET", "/pairs/n*?count=true")[0] == 200
        assert not answers and writer.is_alive(), answers
        hold.unlink()
        for thread in threads + [writer]:
            thread.join(120)
        assert answers == {case[0]: "new" for case in waits}
    finally:
        hold.unlink(missing_ok=True)
        server.finish()


def test_writers_that_leave_while_a_sync_lasts():
    """What waits for a sync is limited by connections also where those are reset: in the end there is no place for another one."""
    shim = os.environ.get("CHT_SLOWLOG")
    if not shim:
        pytest.skip("CHT_SLOWLOG (the library that slows the log) is not given")
    server = LineServer("--access-log", "false", "--http-threads", "1", "--max-connections", "16")
    try:
        server.client().upsert(b"name", b"value")
        server.stop()
        server.env.update({"LD_PRELOAD": shim, "SLOWLOG_LEAST_US": "60000000", "SLOWLOG_SYNC_US": "60000000"})
        server.restart()
        server.close_clients()
        write, refused = "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nvalue", False
        for turn in range(2000):  # a few of which come to nothing, since the reset is seen before the write
            raw = server.raw()
            for _ in range(3):
                refused = refused or raw.send(write % "/kv/0").answer("PUT").status == 503
            if refused:
                break
            raw.send(write % "/pairs/n%d" % turn)
            time.sleep(0.001)
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.socket.close()
        assert refused
    finally:
        server.kill()  # it would wait for the sync
        server.finish()
