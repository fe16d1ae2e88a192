"""Long text of streams goes from where it lies to the socket (src/http/direct.h): the same bytes for every kind of client, and whole chunks whatever happens."""
import json

import harness
import pytest
from harness import b64, wait_for

PAIRS = 30000
BOTH = pytest.mark.parametrize("target", ["/pairs/*?values=true", "/pairs/*"])


def name(i):
    return b"d:%08d" % (i * 7919 % PAIRS)


def fill(client):
    """Returns how long the answer was, which is a stream, too."""
    answer = client.batch([{"op": "pair_put", "pair": b64(name(i)), "value": b64(b"%d " % i * (1 + i % 30))} for i in range(PAIRS)], results="false")
    assert answer.end == {"count": PAIRS, "failed": 0}
    return len(answer.body)


@pytest.fixture(scope="module")
def full():
    server = harness.Server("--durability", "os", "--shards", "4", "--access-log", "false")
    fill(server.client())
    yield server
    server.finish()


def one_by_one(server, target):
    """The same entries in the other way, line by line."""
    mark = "&" if "?" in target else "?"
    body = server.client().get("%s%slimit=%d" % (target, mark, 2 * PAIRS)).body
    assert body.count(b"\n") == PAIRS + 1
    return body


def get(target, version="1.1"):
    return "GET %s HTTP/%s\r\nHost: localhost\r\n\r\n" % (target, version)


def chunks(raw):
    parts = [raw.chunk()]
    while parts[-1]:
        parts.append(raw.chunk())
    return parts


@BOTH
def test_equal_bytes_in_long_chunks(full, target):
    want = one_by_one(full, target)
    with full.raw() as raw:
        for _ in range(3):
            raw.send(get(target) + get("/version") + get(target))  # the next request is there already
            for part in (0, 1, 2):
                assert raw.head()[0] == 200 if part != 1 else raw.answer().status == 200
                if part != 1:
                    parts = chunks(raw)
                    assert b"".join(parts) == want and max(map(len, parts)) > 100000


@BOTH
def test_without_chunks(full, target):
    with full.raw() as raw:
        raw.send(get(target, "1.0"))
        status, headers = raw.head()
        assert status == 200 and "transfer-encoding" not in headers and raw.closed()
        assert raw.buffer == one_by_one(full, target)


@BOTH
def test_a_client_that_takes_little_at_a_time(full, target):
    with full.raw(receive_buffer=4096) as raw:
        raw.send(get(target))
        assert raw.head()[0] == 200
        text, last = raw.chunk(), None
        while last != b"":
            last = raw.chunk()
            text += last
        assert text == one_by_one(full, target)
    full.comes_to("cheetah_streams_open", 0)


def test_bytes_are_counted(launch):
    server = launch("--durability", "os")
    before = fill(server.client())
    assert server.comes_to("cheetah_stream_bytes_total", before)
    with server.raw() as raw:
        raw.send(get("/pairs/*?values=true"))
        assert raw.head()[0] == 200
        size = sum(map(len, chunks(raw)))
    assert server.comes_to("cheetah_stream_bytes_total", before + size)
    wait_for(lambda: any("/pairs/" in line and str(size) in line for line in list(server.lines)), what="the line of the access log")


@pytest.mark.parametrize("values", ["true", "false"])
def test_a_database_that_is_dropped_meanwhile(launch, values):
    """What was begun of a chunk is followed by its end, then by a line that says why there is no more."""
    server = launch("--durability", "os", "--shards", "2")
    client, stem, count = server.client(), b"g" * 50, 150000  # more than sockets hold
    client.put("/databases/gone")
    gone = server.client(db="gone")
    for start in range(0, count, 15000):
        gone.batch([{"op": "pair_put", "pair": b64(b"%s%07d" % (stem, i)), "value": b64(b"v" * 50)} for i in range(start, start + 15000)], results="false")
    with server.raw(receive_buffer=4096) as raw:
        raw.send(get("/pairs/*?db=gone&values=" + values))
        assert raw.head()[0] == 200
        first = raw.chunk()
        assert client.delete("/databases/gone?confirm=gone").status in (200, 204)  # while nothing is read
        lines = (first + b"".join(chunks(raw))).split(b"\n")
    assert lines.pop() == b""
    rows = [json.loads(line) for line in lines]
    assert rows[-1]["error"]["code"] == "database_dropped" and 0 < len(rows) <= count
    assert [row["pair"] for row in rows[:-1]] == [b64(b"%s%07d" % (stem, i)) for i in range(len(rows) - 1)]


def test_a_damaged_value_in_a_long_list(launch):
    server = launch("--durability", "os", "--shards", "2", "--scrub-bytes-per-second", "0")
    client = server.client()
    client.batch([{"op": "pair_put", "pair": b64(b"n%05d" % i), "value": b64(b"<the value %05d>" % i)} for i in range(6000)], results="false")
    assert client.post("/databases/default/checkpoint").status == 200
    server.stop()
    harness.damage(server.data, b"<the value 03333>")
    server.restart()
    lines = server.client().get("/pairs/*", values="true").lines()
    assert lines[-1] == {"end": {"count": 6000, "next": None, "corrupt": 1}}
    assert [line["pair"] for line in lines[:-1]] == [b64(b"n%05d" % i) for i in range(6000)]
    assert [i for i, line in enumerate(lines[:-1]) if "error" in line] == [3333]
    assert lines[3333]["value"] is None and lines[3333]["error"] == "corrupt_value"


def test_long_values_among_short_ones(launch):
    server = launch("--durability", "os", "--shards", "4")
    client = server.client()
    sizes = [1 + i % 50 if i % 400 else 1000 * (1 + i // 20) for i in range(6000)]  # up to 300 000
    for start in range(0, 6000, 1000):
        client.batch([{"op": "pair_put", "pair": b64(b"m%05d" % i), "value": b64(b"x" * sizes[i])} for i in range(start, start + 1000)], results="false")
    for more in ({}, {"text": "true"}, {"etags": "true", "expires": "true"}):
        lines = client.get("/pairs/*", values="true", **more).lines()
        assert lines[-1] == {"end": {"count": 6000, "next": None}}
        assert [line["size"] for line in lines[:-1]] == sizes
        assert all(len(line["text"]) == size if more.get("text") else len(line["value"]) == (size + 2) // 3 * 4 for line, size in zip(lines, sizes))
    assert lines[:-1] == client.get("/pairs/*", values="true", etags="true", expires="true", limit="7000").lines()[:-1]
