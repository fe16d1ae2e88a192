"""A damaged value: its line says so, the lines around it and the end line are whole, and everything else is shown."""
import json

import harness
import pytest
from harness import b64, contract, hexed

MODES = [mode for mode in contract().document["paths"]["/reduce/{mode}/{prefix}"]["parameters"][0]["schema"]["enum"]] + ["queue-drain"]
SHORT, LONG = 40, 300 << 10  # longer than what a scan carries, and than what is read as a whole


def value(name, size):
    return (b"<%s>" % name).ljust(size, b".") + b"<end of %s>" % name


@pytest.fixture(scope="module", params=[SHORT, LONG], ids=["short", "long"])
def rotten(request):
    """A server, and its pairs in order; the value of the second is damaged. Nothing here writes."""
    server = harness.Server("--durability", "os", "--shards", "2", "--access-log", "false", "--scrub-bytes-per-second", "0")
    pairs = [(name, value(name, request.param)) for name in (b"n:a", b"n:b", b"n:c", b"n:d")]
    keys = [server.client().upsert(name, text) for name, text in pairs]
    assert server.client().post("/databases/default/checkpoint").status == 200
    server.stop()
    harness.damage(server.data, b"<end of n:b>")
    server.restart()
    yield server.client(), pairs, keys
    server.finish()


def expected(pairs, keys, good, bad):
    return [bad(name, key) if name == b"n:b" else good(name, key, text) for (name, text), key in zip(pairs, keys)]


def whole(answer):
    """Every byte belongs to a line of JSON."""
    assert answer.status == 200 and b"\0" not in answer.body
    return [json.loads(line) for line in answer.body.split(b"\n")[:-1]]


@pytest.mark.parametrize("decode", ["false", "true"])
@pytest.mark.parametrize("mode", MODES)
def test_payloads(rotten, mode, decode):
    client, pairs, keys = rotten
    lines = whole(client.get("/reduce/%s/%s" % (mode, hexed(b"n:")), decode=decode))
    decoder = {"problem": "malformed_payload"} if decode == "true" and mode not in ("payloads", "queue-drain") else {}
    assert lines == expected(pairs, keys, lambda name, key, text: {"pair": b64(name), "key": key, "payload": b64(text), **decoder},
                             lambda name, key: {"pair": b64(name), "key": key, "payload": None, "error": "corrupt_value"}) + [
        {"end": {"count": 4, "next": None, "corrupt": 1}}]


def test_pairs(rotten):
    client, pairs, keys = rotten
    lines = whole(client.get("/pairs/" + hexed(b"n:"), values="true"))
    assert lines == expected(pairs, keys, lambda name, key, text: {"pair": b64(name), "key": key, "size": len(text), "value": b64(text)},
                             lambda name, key: {"pair": b64(name), "key": key, "size": None, "value": None, "error": "corrupt_value"}) + [
        {"end": {"count": 4, "next": None, "corrupt": 1}}]
    lines = whole(client.get("/pairs/" + hexed(b"n:"), values="true", limit="2"))
    assert lines[-1] == {"end": {"count": 2, "next": hexed(b"n:b"), "corrupt": 1}}
    lines = whole(client.get("/pairs/" + hexed(b"n:")))
    assert len(lines) == 5 and lines[-1] == {"end": {"count": 4, "next": None}}, "names alone are whole"


@pytest.mark.parametrize("asked", ["sweep", "keys"])
def test_values(rotten, asked):
    client, pairs, keys = rotten
    lines = whole(client.get("/kv") if asked == "sweep" else client.get("/kv", keys=",".join(map(str, sorted(keys)))))
    want = expected(pairs, keys, lambda name, key, text: {"key": key, "size": len(text), "value": b64(text)},
                    lambda name, key: {"key": key, "size": None, "value": None, "error": "corrupt_value"})
    assert lines == sorted(want, key=lambda line: line["key"]) + [{"end": {"count": 4, "next": None, "corrupt": 1}}]


def test_point_reads_and_batches(rotten):
    client, pairs, keys = rotten
    for path in ("/kv/%d" % keys[1], "/pairs/%s?exact=true&values=true" % hexed(b"n:b")):
        answer = client.get(path)
        assert answer.status == 500 and answer.code == "corrupt_value"
    lines = whole(client.batch([{"op": "read", "key": key} for key in keys]))
    assert [line["status"] for line in lines[:-1]] == [200, 500, 200, 200] and lines[1]["code"] == "corrupt_value"
    assert client.get("/kv/%d" % keys[2]).status == 200


def test_a_queue_keeps_it(launch):
    """POST takes what can be read; what cannot stays, and is not lost."""
    server = launch("--durability", "os", "--shards", "1")
    for name in (b"q:1", b"q:2", b"q:3"):
        server.client().upsert(name, value(name, SHORT))
    server.client().post("/databases/default/checkpoint")
    server.stop()
    harness.damage(server.data, b"<end of q:2>")
    server.restart()
    lines = whole(server.client().post("/reduce/queue-drain/" + hexed(b"q:")))
    assert [line["pair"] for line in lines[:-1]] == [b64(b"q:1"), b64(b"q:3")]
    lines = whole(server.client().get("/reduce/queue-drain/" + hexed(b"q:")))
    assert len(lines) == 2 and lines[0]["pair"] == b64(b"q:2") and lines[0]["error"] == "corrupt_value"
