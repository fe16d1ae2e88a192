"""GET /changes/{prefix}: a mirror that is told of changes is the database; numbers, ends, rights, many followers, restarts."""
import json
import random
import socket
import threading
import time
import zlib

import pytest
from harness import HANG, SANITIZED, b64, hexed, rados, unb64, wait_for


def now(client):
    answer = client.get("/changes/*", after="now")
    assert answer.status == 200
    return answer.end["next"]


def closed(client):
    """Over RADOS all that changes between two looks of a follower is one group: this is a look."""
    if rados.WANTED:
        now(client)


class Mirror:
    """What a client keeps: the pairs, by nothing but the lines of the stream."""

    def __init__(self, client, prefix=b""):
        self.client, self.prefix, self.pairs = client, prefix, {}
        self.path = "/changes/" + (hexed(prefix) if prefix else "*")
        self.after = client.get(self.path, after="now").end["next"]
        self.pairs.update(client.scan(prefix))

    def apply(self, line):
        assert line["seq"] >= self.after
        self.after = line["seq"]
        if line["pair"] is None:
            return
        name = unb64(line["pair"])
        if line.get("recursive"):
            self.pairs = {pair: key for pair, key in self.pairs.items() if not pair.startswith(name)}
            return
        assert name.startswith(self.prefix)
        if line["deleted"]:
            self.pairs.pop(name, None)
        else:
            self.pairs[name] = line["key"]

    def catch_up(self, **params):
        answer = self.client.get(self.path, after=self.after, **params)
        assert answer.status == 200, answer
        for line in answer.entries():
            self.apply(line)
        self.after = answer.end["next"]

    def compare(self):
        assert self.pairs == dict(self.client.scan(self.prefix))


def change_something(client, pick):
    name = b"%s:%d" % (pick.choice([b"a", b"b", b"ab"]), pick.randrange(30))
    kind = pick.randrange(10)
    if kind < 5:
        client.upsert(name, b"v%d" % pick.randrange(1000))
    elif kind == 5:
        client.map(name, pick.randrange(1, 50))
    elif kind == 6:
        client.delete("/pairs/" + hexed(name), values="true")
    elif kind == 7:
        client.delete("/pairs/" + hexed(pick.choice([b"a", b"ab:1", b"b:2"])), recursive="true")
    else:
        client.batch([{"op": "pair_put", "pair": b64(b"b:%d" % i), "value": b64(b"x")} for i in range(pick.randrange(1, 20))])


def await_all_told(client):
    """What was committed before is told by then, and on the disk: numbers have the order of commits."""
    after = now(client)
    client.upsert(b"told", b"x")
    assert client.get("/changes/told", after=after, wait=HANG, limit=1).end["count"] == 1


@pytest.mark.parametrize("durability", ["os", "interval"])
def test_mirrors(launch, durability):
    server = launch("--durability", durability, "--shards", "3")
    client, pick = server.client(), random.Random(5)
    mirrors = [Mirror(client), Mirror(client, b"a"), Mirror(client, b"ab:")]
    for i in range(120):
        change_something(client, pick)
        if i % 9 == 0:
            mirror = pick.choice(mirrors)
            mirror.catch_up(wait=0)
        if i in (40, 90):
            client.post("/databases/default/checkpoint")
        if i == 60:
            server.stop()
            server.restart()
        if i == 100:
            await_all_told(client)  # interval: what was acknowledged is on the disk
            server.kill()
            server.restart()
    await_all_told(client)
    for mirror in mirrors:
        mirror.catch_up()
        mirror.compare()


def test_lines(client):
    after = now(client)
    assert now(client) == after
    client.upsert(b"ctx:a", b"1")
    closed(client)
    client.upsert(b"ctx:a", b"2")
    closed(client)
    client.map(b"other", 7)
    closed(client)
    client.delete("/pairs/ctx:a", values="true")
    closed(client)
    key = client.insert(b"value")
    closed(client)
    n = 6
    if not rados.WANTED:  # there is nothing under it: over RADOS each name is told
        client.delete("/pairs/ctx:", recursive="true")
        n = 7
    everything = client.get("/changes/*", after=after)
    lines = [(line["pair"] and unb64(line["pair"]), line["deleted"], line.get("recursive", False)) for line in everything.entries()]
    assert lines == [(b"ctx:a", False, False), (b"ctx:a", False, False), (b"other", False, False), (b"ctx:a", True, False), (None, True, False),
                     (None, False, False), (b"ctx:", True, True)][:n]
    assert everything.entries()[5]["key"] == key
    assert everything.end == {"count": n, "next": everything.entries()[-1]["seq"]}
    assert [line["seq"] - after for line in everything.entries()] == [1, 2, 3, 3, 4, 5, 6][:n], "two of one commit: the first has the number before"
    assert [line.get("more") for line in everything.entries()].count(True) == 1
    below = client.get("/changes/ctx:", after=after)
    assert [line["seq"] - after for line in below.entries()] == [1, 2, 4, 6][:n - 3]
    text = client.get("/changes/ctx:", after=after, text="true").entries()
    assert text[0]["name"] == "ctx:a" and "pair" not in text[0]
    limited = client.get("/changes/ctx:", after=after, limit=2)
    assert limited.end == {"count": 2, "next": after + 2}
    assert client.get("/changes/ctx:", after=limited.end["next"]).entries() == below.entries()[2:]
    assert client.get("/changes/x6374783a", after=after).entries() == below.entries()
    assert client.get("/changes/6374783a", after=after, names="hex").entries() == below.entries()
    assert client.head("/changes/*").status == 200


def test_a_limit_ends_with_what_was_committed_together(client):
    after = now(client)
    client.batch([{"op": "pair_put", "pair": b64(b"n%d" % i), "value": b64(b"v")} for i in range(30)], atomic="true")
    closed(client)
    client.upsert(b"n99", b"v")
    first = client.get("/changes/n", after=after, limit=3)
    assert first.end == {"count": 30, "next": after + 1}
    assert {line["seq"] for line in first.entries()[:-1]} == {after}
    assert first.entries()[-1]["seq"] == after + 1
    assert len(client.get("/changes/n", after=first.end["next"], limit=3).entries()) == 1


def test_questions_that_are_refused(client, server):
    assert client.get("/changes/*", after="x").code == "invalid_parameter"
    assert client.get("/changes/*", wait=86401).code == "invalid_parameter"
    assert client.get("/changes/*", limit=0).code == "invalid_parameter"
    assert client.get("/changes/*", until="x").code == "unknown_parameter"
    assert client.get("/changes/xzz").code == "invalid_hex"
    assert client.get("/changes/*", db="nothing-of-this-name").code == "database_not_found"
    answer = client.post("/changes/*", b"")
    assert answer.status == 405 and "GET" in answer.headers["Allow"]


def test_gone(client, server, name):
    after = now(client)
    client.upsert(b"a", b"1")
    for wrong in (17, after - 2, after + 1000):
        answer = client.get("/changes/*", after=wrong)
        assert answer.status == 410 and answer.code == "gone"
        assert answer.json()["oldest"] <= after and answer.json()["newest"] == after + 1
    shown = client.get("/databases/" + name).json()["changes"]
    assert shown["oldest"] <= after and shown["newest"] == after + 1
    client.delete("/databases/" + name, confirm=name)
    client.put("/databases/" + name)
    for number in (after, after + 1):
        assert client.get("/changes/*", after=number).code == "gone", "another life of the database"
    assert now(client) > after + 1


def test_from_the_beginning(client, name):
    """A new database keeps its changes from the first one on (over RADOS from the first call on); without `after`, all that can be told."""
    begin = now(client) if rados.WANTED else 0
    if rados.WANTED:
        assert client.get("/changes/*", after=0).code == "gone"
    assert client.get("/changes/*", after=begin).entries() == []
    client.upsert(b"a", b"1")
    closed(client)
    client.upsert(b"a", b"2")
    closed(client)
    client.upsert(b"b", b"1")
    closed(client)
    client.delete("/pairs/a")
    told = client.get("/changes/a", after=begin).entries()
    assert [line["deleted"] for line in told] == [False, False, True]
    seqs = [line["seq"] for line in told]
    assert seqs == sorted(set(seqs)) and client.get("/changes/a").entries() == told
    for i, seq in enumerate(seqs):
        assert client.get("/changes/a", after=seq).entries() == told[i + 1 :]
    end = client.get("/changes/*", after="now").end
    assert end == {"count": 0, "next": seqs[-1]}


def test_how_far_back(launch):
    server = launch("--changes-bytes", "0", "--checkpoint-log-bytes", "1M")
    client = server.client()
    after = now(client)
    client.upsert(b"a", b"x" * 1000)
    assert len(client.get("/changes/*", after=after).entries()) == 1
    for _ in range(3):
        client.batch([{"op": "pair_put", "pair": b64(b"b%d" % i), "value": b64(b"x" * 1000)} for i in range(100)], results="false")
        client.post("/databases/default/checkpoint")
    answer = client.get("/changes/*", after=after)
    assert answer.code == "gone" and answer.json()["oldest"] > after
    assert client.get("/changes/*", after=0).code == "gone"
    assert client.get("/changes/*").status == 200
    newest = answer.json()["newest"]
    server.stop()
    server.restart()
    client = server.client()
    assert client.get("/changes/*", after=newest).entries() == [], "nothing has changed since: no gap"
    client.upsert(b"a", b"y")
    assert client.get("/changes/*", after=newest).entries()[0]["seq"] == newest + 1


def test_restored(client, server, name):
    after = now(client)
    client.upsert(b"a", b"1")
    copy = client.get("/databases/%s/backup" % name).body
    there = server.client(db=name + "-copy")
    try:
        assert there.put("/databases/%s-copy/restore" % name, copy, headers={"Content-Type": "application/octet-stream"}).status == 201
        assert there.get("/databases/%s-copy" % name).json()["changes"] is None
        for number in (after, after + 1):
            assert there.get("/changes/*", after=number).code == "gone"
    finally:
        there.delete("/databases/%s-copy" % name, confirm=name + "-copy")


# ---- following -------------------------------------------------------------------------------------------------------


class Follower:
    """Reads a stream line by line, in a thread."""

    def __init__(self, server, path, db=None, **params):
        self.client = server.client(db=db, check=False)
        self.lines, self.error = [], None
        self.response, _ = self.client.send("GET", path, **params)
        assert self.response.status == 200
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            for line in self.response:
                self.lines.append(json.loads(line))
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def close(self):
        self.client.connection.sock.shutdown(socket.SHUT_RDWR)  # the response holds it open
        self.client.close()

    def changes(self):
        return [line for line in list(self.lines) if "seq" in line]

    def over(self):
        self.thread.join(HANG)
        assert not self.thread.is_alive()
        return self.lines[-1]


def test_follow(client, server, name):
    after = now(client)
    follower = Follower(server, "/changes/a", db=name, after=after, wait=600)
    wait_for(lambda: follower.lines)
    assert all(line == {"progress": {"seq": after}} for line in list(follower.lines)), "it says where it waits"
    for turn in range(1, 6):
        before = len(follower.lines)
        client.upsert(b"a1", b"x")
        wait_for(lambda: len(follower.changes()) == turn)
        if len(follower.lines) == before + 1:
            break
    else:
        raise AssertionError("it is told when it happens, not by a tick, which says how far it is first: %r" % follower.lines)
    client.upsert(b"b1", b"x")
    for i in range(50):
        client.upsert(b"a2", b"%d" % i)
    if rados.WANTED:  # a name is told once in a group
        wait_for(lambda: follower.changes()[-1]["pair"] == b64(b"a2"))
    else:
        wait_for(lambda: len(follower.changes()) == turn + 50)
    assert client.get("/databases/" + name).json()["changes"]["followers"] == 1
    follower.close()  # gone
    wait_for(lambda: client.get("/databases/" + name).json()["changes"]["followers"] == 0)


def test_the_time_is_over(client, server, name):
    after = now(client)
    client.upsert(b"a1", b"x")
    follower = Follower(server, "/changes/a", db=name, after=after, wait=1)
    assert follower.over() == {"end": {"count": 1, "next": after + 1}}
    limited = Follower(server, "/changes/a", db=name, after=after, wait=600, limit=2)
    client.upsert(b"a2", b"x")
    assert limited.over() == {"end": {"count": 2, "next": after + 2}}


def test_dropped(client, server, name):
    follower = Follower(server, "/changes/*", db=name, wait=600)
    wait_for(lambda: follower.lines)
    assert client.delete("/databases/" + name, confirm=name).status == 204
    assert follower.over()["error"]["code"] == "database_dropped"
    client.put("/databases/" + name)


@pytest.mark.skipif(rados.WANTED, reason="there nobody is called by a commit")
def test_dropped_while_it_is_written_to(client, server, name):
    """The streams end just when commits call those who wait."""
    for _ in range(4):
        followers = [Follower(server, "/changes/*", db=name, wait=600) for _ in range(3)]
        for follower in followers:
            wait_for(lambda follower=follower: follower.lines)
        stop = threading.Event()

        def write():
            writer = server.client(db=name)
            while not stop.is_set():
                writer.put("/pairs/a", b"x")
            writer.close()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            wait_for(lambda: all(follower.changes() for follower in followers))
            assert client.delete("/databases/" + name, confirm=name).status == 204
        finally:
            stop.set()
            thread.join(HANG)
        for follower in followers:
            assert follower.over()["error"]["code"] == "database_dropped"
        client.put("/databases/" + name)


def test_the_server_stops(launch):
    server = launch("--drain-seconds", "3600")
    client = server.client()
    after = now(client)
    follower = Follower(server, "/changes/*", wait=600)
    wait_for(lambda: follower.lines)
    client.close()
    server.signal(15)
    last = follower.over()
    assert last == {"end": {"count": 0, "next": after}}, "it ends well, at once, not when the drain is over"
    follower.close()
    server.stop()  # the second signal ends the drain


def test_compressed(client, server, name):
    after = now(client)
    response, _ = client.send("GET", "/changes/*", after=after, wait=600, headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    text, decoder = b"", zlib.decompressobj(31)
    client_2 = server.client(db=name)
    client_2.upsert(b"a", b"1")
    while b'"seq"' not in text or b"deleted" not in text:
        text += decoder.decompress(response.read1(1000))
    client.close()
    client_2.close()


def test_rights(launch, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("reader-of-one-123456 read one\nwriter-of-all-123456 write *\nreader-of-two-123456 read two\n")
    tokens.chmod(0o600)
    server = launch("--tokens", str(tokens))
    writer = server.client(db="one", token="writer-of-all-123456")
    writer.upsert(b"a", b"1")
    assert server.client(db="one", token="reader-of-one-123456").get("/changes/*").status == 200
    assert server.client(db="one", token="reader-of-two-123456").get("/changes/*").status == 403
    assert server.client(db="one").get("/changes/*").status == 401


def test_many_followers(launch):
    """Waiting costs no thread and little memory; all hear of a change."""
    n = 400
    server = launch("--max-streams", str(n), "--http-threads", "2")
    client = server.client()
    after = now(client)
    raws = []
    for i in range(n):
        raw = server.raw()
        raw.send(b"GET /changes/%s?after=%d&wait=600 HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" if i % 2 else b"b", after))
        raws.append(raw)
    for raw in raws:
        raw.until(b'"progress"')
    with open("/proc/%d/status" % server.process.pid, encoding="ascii") as file:
        threads = next(int(line.split()[1]) for line in file if line.startswith("Threads:"))
    assert threads < n / 2, threads
    assert server.comes_to("cheetah_changes_followers", n)
    assert client.get("/changes/*", after=after).status == 503, "--max-streams"
    client.upsert(b"a1", b"x")
    for raw in raws[1::2]:
        raw.until(b'"deleted":false')
    for raw in raws:
        raw.close()
    assert server.comes_to("cheetah_changes_followers", 0)


def test_a_reader_that_takes_nothing(launch):
    """It holds up nobody, costs bounded memory, and is told that it was too slow."""
    server = launch("--changes-bytes", "0", "--checkpoint-log-bytes", "1M", "--durability", "os", "--idle-timeout", "3600")
    client = server.client()
    after = now(client)
    slow = server.raw(receive_buffer=65536)
    slow.send(b"GET /changes/*?after=%d&wait=600 HTTP/1.1\r\nHost: localhost\r\n\r\n" % after)
    slow.until(b'"progress"')
    before = server.rss()
    names = [b64(b"%s%05d" % (b"n" * 3000, i)) for i in range(1200)]
    for _ in range(2):
        answer = client.batch([{"op": "pair_put", "pair": pair, "value": b64(b"x" * 300)} for pair in names], results="false")
        assert answer.status == 200
        client.post("/databases/default/checkpoint")
    if not SANITIZED:
        assert server.rss() - before < 120 << 20
    while b'"gone"' not in slow.buffer:
        slow.buffer = slow.buffer[-1000:]
        assert slow.fill(), "it ends with a line that says why"
    assert b'{"error":' in slow.buffer
    slow.close()
    assert client.get("/changes/*", after=after).code == "gone"


def test_a_pair_that_ends_is_told_as_deleted(client):
    after = now(client)
    client.put("/pairs/short", b"x", headers={"Content-Type": "text/plain"}, ttl=1000)
    closed(client)
    client.put("/pairs/short", b"y", headers={"Content-Type": "text/plain"}, ttl=1)
    time.sleep(1.2)
    closed(client)
    client.upsert(b"other", b"x")  # space is given back with a commit at the latest; over RADOS within ten seconds
    lines = client.get("/changes/short", after=after, wait=60, limit=3, text="true").entries()
    assert [(line["name"], line["deleted"]) for line in lines] == [("short", False), ("short", False), ("short", True)]
