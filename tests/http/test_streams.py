"""Streams: written while they run, bounded in memory, in order and complete whatever is written meanwhile."""
import json
import random
import re
import threading
import time

import pytest
from harness import Server, b64, decode_pair, hexed, wait_for

PAIRS = 300000
KINDS = pytest.mark.parametrize("target", ["/pairs/*?values=true", "/pairs/*"])  # made in two ways
VALUE = 200


def stable_name(i):
    return b"s:%08d" % (i * 2)


@pytest.fixture(scope="module")
def big():
    """A server of its own with 300 000 pairs and values: about 100 MB as NDJSON."""
    server = Server("--durability", "os", "--shards", "4", "--access-log", "false", "--idle-timeout", "3600")  # who is gone is not gone for its time
    client = server.client()
    for start in range(0, PAIRS, 50000):
        lines = [b'{"op":"pair_put","pair":"%s","value":"%s"}\n' % (b64(stable_name(i)).encode(), b64(b"%08d" % i * (VALUE // 8)).encode())
                 for i in range(start, start + 50000)]
        answer = client.post("/batch", b"".join(lines), headers={"Content-Type": "application/x-ndjson"}, results="false")
        assert answer.end == {"count": 50000, "failed": 0}
    yield server
    server.finish()


def request(target):
    return "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target


def anonymous_memory(server):
    with open("/proc/%d/status" % server.process.pid, encoding="ascii") as file:
        return int(re.search(r"^RssAnon:\s*(\d+) kB", file.read(), re.M).group(1)) * 1024


def settled(server):
    """Waits until what streams may hold is held: memory stands still for a while."""
    last, since = 0, time.monotonic()

    def still():
        nonlocal last, since
        now = anonymous_memory(server)
        if abs(now - last) > 65536:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 0.5

    wait_for(still, what="streams to stand still", pause=0.05)


@KINDS
def test_written_while_it_runs(big, target):
    with big.raw(receive_buffer=8192) as raw:
        raw.send(request(target))
        status, headers = raw.head()
        assert status == 200 and headers["transfer-encoding"].lower() == "chunked"
        first = raw.chunk()
        assert json.loads(first.split(b"\n")[0])["pair"] == b64(stable_name(0))
        assert big.comes_to("cheetah_streams_open", 1), "the scan is still under way when its first lines are read; others may have to be given back"
    assert big.comes_to("cheetah_streams_open", 0)


def test_complete_and_in_order(big):
    client = big.client()
    answer = client.get("/pairs/*", values="true")
    rows = [decode_pair(line) for line in answer.entries()]
    assert answer.end == {"count": PAIRS, "next": None}
    assert [pair for pair, _, _ in rows] == [stable_name(i) for i in range(PAIRS)]
    assert all(value == b"%08d" % i * (VALUE // 8) for i, (_, _, value) in enumerate(rows))


def test_reverse(big):
    client = big.client()
    rows = client.scan(reverse="true")
    assert [pair for pair, _ in rows] == [stable_name(i) for i in reversed(range(PAIRS))]


@pytest.mark.parametrize("reverse", [False, True])
def test_pages_of_a_large_namespace(big, reverse):
    client, got = big.client(), []
    params = {"limit": "37777", **({"reverse": "true"} if reverse else {})}
    while True:
        answer = client.get("/pairs/s:", **params)
        got += [decode_pair(line)[0] for line in answer.entries()]
        if answer.end["next"] is None:
            break
        params["after"] = answer.end["next"]
    want = [stable_name(i) for i in range(PAIRS)]
    assert got == (want[::-1] if reverse else want)


@KINDS
def test_a_reader_that_goes_away_ends_its_scan(big, target):
    for _ in range(5):
        raws = [big.raw(receive_buffer=8192).send(request(target)) for _ in range(4)]
        for raw in raws:
            assert raw.head()[0] == 200
        assert big.comes_to("cheetah_streams_open", 4)
        for raw in raws:
            raw.close()
        assert big.comes_to("cheetah_streams_open", 0), "nobody reads them"


@KINDS
def test_memory_of_stopped_readers(big, target):
    client = big.client()
    client.get(target)  # what a scan needs anyway is there now
    before = anonymous_memory(big)
    raws = [big.raw(receive_buffer=8192).send(request(target)) for _ in range(30)]
    for raw in raws:
        assert raw.head()[0] == 200
    settled(big)
    grown = anonymous_memory(big) - before
    for raw in raws:
        raw.close()
    assert big.comes_to("cheetah_streams_open", 0)
    assert grown < 30 * (4 << 20) + (16 << 20), "%.1f MiB a stream" % (grown / 30 / 1048576)


def test_stopped_readers_do_not_slow_a_fast_one(big):
    """Neither by what they take of the processor nor by keeping it waiting."""
    client = big.client(check=False)

    def seconds():
        start, taken = time.monotonic(), big.cpu()
        assert client.get("/pairs/*").body.endswith(b'{"end":{"count":%d,"next":null}}\n' % PAIRS)
        return time.monotonic() - start, big.cpu() - taken

    def least(n):
        return [min(each) for each in zip(*(seconds() for _ in range(n)))]

    seconds()
    alone = least(3)
    raws = [big.raw(receive_buffer=8192).send(request("/pairs/*?values=" + ("false" if i % 2 else "true"))) for i in range(200)]
    for raw in raws:
        assert raw.head()[0] == 200
    assert big.comes_to("cheetah_streams_open", 200)
    settled(big)
    for _ in range(10):  # others may have begun to keep the machine busy
        crowded = least(3)
        if all(now < 3 * then + 0.5 for now, then in zip(crowded, alone)):
            break
    points, taken = [], big.cpu()
    for _ in range(100):
        start = time.monotonic()
        assert client.get("/pairs/" + hexed(stable_name(5)), exact="true").status == 200
        points.append(time.monotonic() - start)
    taken = (big.cpu() - taken) / 100
    slow = raws[0]
    total, part = 0, slow.chunk()
    while part:
        total, last = total + part.count(b"\n"), part
        part = slow.chunk()
    for raw in raws:
        raw.close()
    assert total == PAIRS + 1 and last.endswith(b'"next":null}}\n'), "a slow reader gets all of it in the end"
    assert all(now < 3 * then + 0.5 for now, then in zip(crowded, alone)), (alone, crowded)
    assert taken < 0.02 and min(points) < 0.02, (taken, points)


def test_a_scan_under_concurrent_writes(big):
    """Stable pairs appear all, in order, once; others may or may not."""
    stop, errors = threading.Event(), []

    def write(seed):
        rng, client = random.Random(seed), big.client(check=False)
        try:
            while not stop.is_set():
                names = [b"s:%08d" % (2 * rng.randrange(PAIRS) + 1) for _ in range(200)]
                operations = [{"op": rng.choice(["pair_put", "pair_put", "pair_del"]), "pair": b64(name), "value": "eHl6", "values": True} for name in names]
                for operation in operations:
                    operation.pop("value" if operation["op"] == "pair_del" else "values")
                assert client.batch(operations, results="false").status == 200
                key = dict(client.scan(stable_name(rng.randrange(PAIRS)))).popitem()[1]
                client.put("/kv/%d" % key, rng.randbytes(rng.randrange(1, 2000)), headers={"Content-Type": "text/plain"})
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for reverse, values in ((False, "true"), (True, "true"), (False, "false"), (True, "false"), (False, "false")):
            client = big.client()
            answer = client.get("/pairs/*", values=values, **({"reverse": "true"} if reverse else {}))
            pairs = [decode_pair(line)[0] for line in answer.entries()]
            assert answer.end["count"] == len(pairs) and answer.end["next"] is None
            assert pairs == sorted(set(pairs), reverse=reverse), "in order, never twice"
            stable = [pair for pair in pairs if int(pair[2:]) % 2 == 0]
            want = [stable_name(i) for i in range(PAIRS)]
            assert stable == (want[::-1] if reverse else want)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors[0]
    client = big.client()
    odd = [{"op": "pair_del", "pair": b64(pair), "values": True} for pair, _ in client.scan() if int(pair[2:]) % 2]
    for start in range(0, len(odd), 50000):
        assert client.batch(odd[start:start + 50000], results="false").end["failed"] == 0


def test_every_stream_has_its_end(client):
    client.upsert(b"p", b"v")
    for target in ("/kv", "/kv?keys=1,2", "/kv?limit=1", "/pairs/*", "/pairs/none", "/pairs/p?values=true", "/reduce/payloads/*",
                   "/reduce/counts/p?decode=true"):
        assert "end" in client.get(target).lines()[-1], target
    assert "end" in client.batch([{"op": "read", "key": 1}]).lines()[-1]
    assert "end" in client.post("/reduce/queue-drain/p", limit="1").lines()[-1]


def test_the_gauge_falls_to_0(big):
    client = big.client()
    for target in ("/kv?limit=10", "/pairs/*?limit=10", "/reduce/payloads/*?limit=10", "/pairs/nothing"):
        client.get(target)
        assert big.comes_to("cheetah_streams_open", 0)


def test_many_streams_at_once(big):
    """32 readers, each complete."""
    errors = []

    def read(i):
        try:
            client, prefix = big.client(check=False), b"s:%04d" % (i % 60)
            body = client.get("/pairs/" + hexed(prefix)).body
            assert body.count(b"\n") >= 5000 + 1
            assert set(json.loads(body.rstrip().rpartition(b"\n")[2])) == {"end"}
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
