"""text=true: names and values that are text are shown as that, in every call that shows them. names=text and names=hex: how a URL names them."""
import json
import os
import random
import unicodedata
import urllib.parse

import pytest
from harness import b64, damage, hexed, ndjson, unb64

NDJSON = {"Content-Type": "application/x-ndjson"}


def is_text(data):
    """The contract, by Python's own tables."""
    try:
        return all(unicodedata.category(c) != "Cc" or c in "\t\n" for c in data.decode())
    except UnicodeDecodeError:
        return False


def member(text, other, data):
    return {text: data.decode()} if is_text(data) else {other: b64(data)}


def pair(data):
    return member("name", "pair", data)


def value(data, other="value"):
    return member("text", other, data)


# What is text, what is not, and what is not by a hair.
SAMPLES = [b"greeting:de", "grüße".encode(), b"a\tb\nc", b"\xc2\xa0", "\u2028\u202e\u2066\ufeff\U0010ffff\ud7ff\ue000".encode(), b'"\\/<>', b" ", b"\x7e",
           b"\x00", b"\x1f", b"a\r\n", b"\x7f", b"\xc2\x80", b"\xc2\x9f", b"abcdefgh\xc2\x85", b"\xff", b"\xc3", b"\xc3(", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
           b"\xe2\x82", b"abcdefgh\xf0\x9f\x98", b"\x1b[31m", b"x" * 4095 + b"\n", b"x" * 4095 + b"\xff"]


@pytest.mark.parametrize("data", SAMPLES, ids=[repr(s[:12]) for s in SAMPLES])
def test_one(client, data):
    key = client.upsert(data, data)
    path = "/pairs/" + hexed(data)
    assert client.get(path, exact="true", text="true").json() == {**pair(data), "key": key}
    assert client.get(path, exact="true", values="true", text="1").json() == {**pair(data), "key": key, "size": len(data), **value(data)}
    assert client.get("/kv/%d" % key, text="true").json() == {"key": key, "size": len(data), **value(data)}
    assert client.get("/kv/%d" % key, text="false").json() == {"key": key, "size": len(data), "value": b64(data)}
    assert client.get(path, count="true", text="true").json() == {**member("name", "prefix", data), "pairs": 1}
    assert client.get(path, text="true").entries() == [{**pair(data), "key": key}]
    assert client.get(path, values="true", text="true").entries() == [{**pair(data), "key": key, "size": len(data), **value(data)}]
    assert client.get("/kv", text="true").entries() == [{"key": key, "size": len(data), **value(data)}]
    assert client.get("/kv", keys=key, text="true").entries() == [{"key": key, "size": len(data), **value(data)}]
    assert client.post("/pairs", json_body={"pairs": [b64(data)]}, values="true", text="true").entries() == [
        {**pair(data), "key": key, "size": len(data), **value(data)}]
    assert client.get("/reduce/payloads/*", text="true").entries() == [{**pair(data), "key": key, **value(data, "payload")}]
    assert client.put(path, b"new", text="true").json() == {**pair(data), "key": key, "size": 3}
    assert client.get(path, exact="true", headers={"Accept": "application/octet-stream"}, text="true").body == b"new"


def test_in_all_calls(client):
    """Whatever stands in lines: dangling pairs, those that are missing, batches, payloads, queues."""
    key = client.upsert(b"q:1", b"one")
    client.map(b"q:2", 4711)
    binary = client.upsert(b"q:3", b"\xff")
    dangling = {"name": "q:2", "key": 4711, "size": None, "value": None}
    first = {"name": "q:1", "key": key, "size": 3, "text": "one"}
    last = {"name": "q:3", "key": binary, "size": 1, "value": b64(b"\xff")}
    assert client.get("/pairs/q:", values="true", text="true").entries() == [first, dangling, last]
    assert client.get("/pairs/q:", values="true", text="true", reverse="true").entries() == [last, dangling, first]
    assert client.get("/pairs/q:2", exact="true", values="true", text="true").json() == dangling
    asked = client.post("/pairs", json_body={"names": ["none", "q:2", "q:1"]}, values="true", text="true")
    assert asked.entries() == [{"name": "none", "error": "pair_not_found"}, dangling, first]
    assert client.post("/pairs", json_body={"pairs": [b64(b"\xff")]}, text="true").entries() == [{"pair": b64(b"\xff"), "error": "pair_not_found"}]
    operations = [{"op": "pair_put", "pair": b64(b"n"), "value": b64(b"v")}, {"op": "pair_get", "pair": b64(b"q:1"), "values": True},
                  {"op": "read", "key": binary}, {"op": "read", "key": key}, {"op": "pair_get", "pair": b64(b"q:2"), "values": True},
                  {"op": "pair_set", "pair": b64(b"\x00"), "key": 5}]
    lines = client.post("/batch", ndjson(operations), headers=NDJSON, text="true").entries()
    assert [lines[0]["name"], lines[0]["size"]] == ["n", 1] and "pair" not in lines[0]
    assert lines[1:] == [{"status": 200, **first}, {"status": 200, "key": binary, "size": 1, "value": b64(b"\xff")},
                         {"status": 200, "key": key, "size": 3, "text": "one"}, {"status": 200, **dangling},
                         {"status": 201, "pair": b64(b"\x00"), "key": 5}]
    payloads = [{"name": "q:1", "key": key, "text": "one"}, {"name": "q:2", "key": 4711, "payload": None},
                {"name": "q:3", "key": binary, "payload": b64(b"\xff")}]
    assert client.get("/reduce/queue-drain/q:", text="true").entries() == payloads
    assert client.post("/reduce/queue-drain/q:", text="true").entries() == payloads
    client.upsert(b"cache:a", b'{"a":1}')
    bad = client.upsert(b"cache:b", b"no json")
    lines = client.get("/reduce/cache/cache:", decode="true", text="true").entries()
    assert lines[0]["name"] == "cache:a" and lines[0]["json"] == {"a": 1}
    assert lines[1] == {"name": "cache:b", "key": bad, "text": "no json", "problem": "malformed_payload"}


def test_long_values(client):
    """Those that are shown in pieces: text whose characters lie across the pieces, text that turns out to be none at its very end."""
    step, most = 48 << 10, (1 << 20) + (96 << 10)  # of a piece; more than is looked at at a time
    texts = {b"a": b"x" * (step - 1) + "ä".encode() * step + b"\n" * 100, b"b": b"x" + "\U0001f600".encode() * (300 << 10), b"c": b"\n" * (70 << 10),
             b"d": b"y" * most, b"e": b"y" * most + b"\xff", b"f": b"y" * most + b"\xc3", b"g": b"\x00" + b"y" * most,
             b"h": b"y" * (step - 1) + b"\xc3" + b"y" * step, b"i": os.urandom(1 << 20), b"j": b'"' * (65 << 10), b"k": "\u202e".encode() * (100 << 10)}
    keys = {name: client.upsert(name, data) for name, data in texts.items()}
    want = [{**pair(n), "key": keys[n], "size": len(d), **value(d)} for n, d in texts.items()]
    assert client.get("/pairs/*", values="true", text="true").entries() == want
    assert client.post("/pairs", json_body={"names": [n.decode() for n in texts]}, values="true", text="true").entries() == want
    only = [{k: v for k, v in line.items() if k not in ("name", "pair")} for line in want]
    assert client.get("/kv", keys=",".join(str(k) for k in keys.values()), text="true").entries() == only
    assert client.get("/kv", text="true").entries() == sorted(only, key=lambda line: line["key"])
    payloads = client.get("/reduce/payloads/*", text="true").entries()
    assert payloads == [{**pair(n), "key": keys[n], **value(d, "payload")} for n, d in texts.items()]
    lines = client.get("/reduce/counts/*", decode="true", text="true").entries()
    assert lines == [{**pair(n), "key": keys[n], **value(d, "payload"), "problem": "malformed_payload"} for n, d in texts.items()]
    assert client.get("/pairs/b", exact="true", values="true", text="true").json() == want[1]


def test_values_at_the_edge_of_what_is_carried(client):
    """Escapes make a line twice as long as its value: such a one fits no batch of a scan, and is shown in pieces."""
    values = [c * n for c in (b"\n", b'"', b"a", b"\xff") for n in (64 << 10, (64 << 10) - 1, 60 << 10, 40 << 10, 30 << 10, (64 << 10) + 1)]
    names = [b"%04d" % i + b"\n" * 4000 for i in range(len(values))]
    for name, data in zip(names, values):
        client.upsert(name, data)
    lines = client.get("/pairs/*", values="true", text="true").entries()
    assert [line["name"].encode() for line in lines] == names
    assert [line.get("text") for line in lines] == [None if data[:1] == b"\xff" else data.decode() for data in values]
    assert [line["value"] for line in lines if "value" in line] == [b64(data) for data in values if data[:1] == b"\xff"]


def test_many(client):
    """Thousands of lines, rendered on the scan's workers: against the same scan in base64."""
    rng = random.Random(7)
    alphabet = ["a", "ß", "€", "\t", "\n", "\u202e", '"', "\\", "\x00", "\x7f", "\x85", "z" * 9]
    pairs = {}
    for i in range(4000):
        name = ("%04d" % i + "".join(rng.choices(alphabet, [9, 9, 9, 2, 2, 2, 2, 2, .2, .2, .2, 9], k=rng.randrange(12)))).encode()
        data = bytes(rng.randrange(256) for _ in range(5)) if i % 5 == 0 else "".join(rng.choices(alphabet[:8], k=rng.randrange(1, 90))).encode()
        pairs[name] = data
    client.batch([{"op": "pair_put", "pair": b64(n), "value": b64(d)} for n, d in pairs.items()])
    want = [(n, pairs[n]) for n in sorted(pairs)]
    lines = client.get("/pairs/*", text="true").entries()
    assert [{k: v for k, v in line.items() if k != "key"} for line in lines] == [pair(n) for n, _ in want]
    lines = client.get("/pairs/*", values="true", text="true").entries()
    assert [{k: v for k, v in line.items() if k != "key"} for line in lines] == [{**pair(n), "size": len(d), **value(d)} for n, d in want]


def test_a_damaged_value_is_shown_as_that(launch):
    server = launch("--durability", "os", "--shards", "1")
    client = server.client()
    bad, good = client.upsert(b"bad", b"a value that will be damaged"), client.upsert(b"good", b"fine")
    server.stop()
    damage(server.data, b"a value that will be damaged")
    server.restart()
    client = server.client()
    damaged, fine = {"name": "bad", "key": bad, "size": None, "value": None, "error": "corrupt_value"}, {"name": "good", "key": good, "size": 4, "text": "fine"}
    end = {"end": {"count": 2, "next": None, "corrupt": 1}}
    assert client.get("/pairs/*", values="true", text="true").lines() == [damaged, fine, end]
    assert client.post("/pairs", json_body={"names": ["bad", "good"]}, values="true", text="true").lines() == [damaged, fine, end]
    assert client.get("/reduce/payloads/*", text="true").entries()[0] == {"name": "bad", "key": bad, "payload": None, "error": "corrupt_value"}
    assert client.get("/kv", text="true").entries()[0] == {"key": bad, "size": None, "value": None, "error": "corrupt_value"}
    assert client.get("/kv/%d" % bad, text="true").code == "corrupt_value"
    assert client.get("/pairs/bad", exact="true", values="true", text="true").status == 500


# ---- names= ----------------------------------------------------------------------------------------------------------


def test_names_as_text_are_taken_literally(client):
    for name in (b"*", b"x41", b"xyz", b"A", b"", b"x"):
        if name:
            client.upsert(name, b"value of " + name)
    for name in (b"*", b"x41", b"xyz", b"A", b"x"):
        path = "/pairs/" + urllib.parse.quote(name, safe="")
        got = client.get(path, names="text", exact="true", values="true", text="true").json()
        assert (got["name"], got["text"]) == (name.decode(), "value of " + name.decode())
    assert client.get("/pairs/x41", exact="true").json()["pair"] == b64(b"A")
    assert client.get("/pairs/xyz", exact="true").code == "invalid_hex"
    under = lambda prefix: [line["name"] for line in client.get("/pairs/" + prefix, names="text", text="true").entries()]
    assert under("x") == ["x", "x41", "xyz"] and under("") == ["*", "A", "x", "x41", "xyz"] and under("*") == ["*"]
    assert client.get("/pairs/*", names="text", count="true").json()["pairs"] == 1
    assert client.get("/pairs/", names="text", exact="true").code == "invalid_pair"
    assert [line["name"] for line in client.get("/pairs/", names="text", text="true", after="*", until="x41").entries()] == ["A", "x"]
    assert client.put("/pairs/x00", b"put", names="text", text="true").json()["name"] == "x00"
    assert client.get("/pairs/x783030", exact="true", values="true").json()["value"] == b64(b"put")
    assert client.delete("/pairs/x00", names="text", values="true").status == 204
    assert client.delete("/pairs/", names="text", recursive="true").code == "invalid_pair", "an empty variable must not empty the database"
    assert client.delete("/pairs/*", names="text", recursive="true").json()["pairs_deleted"] == 1
    assert client.get("/pairs/*", count="true").json()["pairs"] == 4


def test_names_as_hexadecimal(client):
    for name in (b"*", b"A", b"\x00\xff", b"xyz"):
        client.upsert(name, name)
    for name in (b"*", b"A", b"\x00\xff", b"xyz"):
        for text in (name.hex(), name.hex().upper()):
            assert client.get("/pairs/" + text, names="hex", exact="true").json()["pair"] == b64(name)
    assert [line["pair"] for line in client.get("/pairs/", names="hex", after=b"*".hex(), until=b"xyz".hex()).entries()] == [b64(b"A")]
    for bad in ("x41", "4", "4g", "*", "414", "%20%20"):
        assert client.get("/pairs/" + bad, names="hex", exact="true").code == "invalid_hex", bad
    assert client.get("/pairs/", names="hex", after="x41").code == "invalid_hex"
    assert client.delete("/pairs/41", names="hex").status == 204 and client.get("/pairs/A", exact="true").status == 404
    for bad in ("", "base64", "TEXT", "text,hex"):
        assert client.get("/pairs/a?names=" + bad).code == "invalid_parameter", bad
    assert client.get("/pairs/a?names=hex&names=hex").code == "invalid_parameter"
    assert client.get("/pairs/a", text="yes").code == "invalid_parameter"


def pages(client, names, limit=3, **params):
    """All names by pages of `limit`, each cursor handed back as the contract says; and the cursors."""
    target, cursors, seen = "/pairs/?names=%s" % names if names else "/pairs/*", [], []
    for _ in range(1000):
        answer = client.get(target, limit=limit, **params)
        seen += [line["name"].encode() if "name" in line else unb64(line["pair"]) for line in answer.entries()]
        cursor = answer.end["next"]
        if cursor is None:
            return seen, cursors
        cursors.append(answer.end)
        text = cursor if answer.end.get("next_encoding") == "percent" else urllib.parse.quote(cursor, safe="")
        target = "/pairs/%safter=%s" % ("?names=%s&" % names if names else "*?", text)
    raise AssertionError("it never ends")


NAMES = sorted([b"*", b"x41", b"a&b=c", b"100%", b"%41", b"\xff", b"\x00\x01", b"a\nb", "grüße".encode(), b"+ +", b"#", b"\xed\xa0\x80", b"x", b"A", b"zz"])


@pytest.mark.parametrize("names", [None, "text", "hex"])
@pytest.mark.parametrize("text", ["true", "false"])
@pytest.mark.parametrize("reverse", ["true", "false"])
def test_next_comes_as_the_request_takes_it(client, names, text, reverse):
    for name in NAMES:
        client.upsert(name, b"v")
    seen, cursors = pages(client, names, limit=1, text=text, reverse=reverse)
    assert seen == (NAMES if reverse == "false" else NAMES[::-1])
    for name, end in zip(seen, cursors):
        if names is None:
            assert end["next"] == hexed(name)
        elif names == "hex":
            assert end["next"] == name.hex()
        elif is_text(name):
            assert end["next"] == name.decode() and "next_encoding" not in end
        else:
            assert end == {"count": 1, "next": urllib.parse.quote(name, safe=""), "next_encoding": "percent"}


def test_reducers_take_names(client):
    for name in (b"x41", b"x42", b"A"):
        client.upsert(name, b"p")
    answer = client.get("/reduce/payloads/x", names="text", text="true", limit=1)
    assert [line["name"] for line in answer.entries()] == ["x41"] and answer.end["next"] == "x41"
    assert [line["name"] for line in client.get("/reduce/payloads/x", names="text", text="true", after="x41").entries()] == ["x42"]
    assert client.get("/reduce/stats/78", names="hex").entries()[0]["pairs"] == 2
    assert client.get("/reduce/stats/x", names="text", after="x41").entries()[0]["pairs"] == 1
    assert client.get("/reduce/stats/x", text="true").code == "unknown_parameter"
    assert client.post("/reduce/queue-drain/x4", names="text", text="true", limit=1).entries()[0]["name"] == "x41"


def test_children(client):
    for name in (b"x:1", b"x:2", b"y", b"\xff:1", b"\xff:2"):
        client.upsert(name, b"v")
    ask = lambda **params: client.get("/pairs/", children="true", separator=":", names="text", text="true", **params)
    lines = ask().entries()
    key = lines[1]["key"]
    assert lines == [{"name": "x:", "pairs": 2}, {"name": "y", "key": key}, {"prefix": b64(b"\xff:"), "pairs": 2}]
    assert ask(limit=1).end == {"count": 1, "next": "x:"} and ask(after="x:").entries() == lines[1:]
    assert client.get("/pairs/*", children="true", separator="x3a", limit=1).end == {"count": 1, "next": hexed(b"x:")}
    client.upsert(b"\xff\xff", b"v")
    assert ask(limit=3).end == {"count": 3, "next": "%FF%3A", "next_encoding": "percent"}
    assert [line["pair"] for line in client.get("/pairs/?names=text&after=%FF%3A", children="true", separator=":").entries()] == [b64(b"\xff\xff")]


def test_where_it_means_nothing_it_is_refused(client):
    for method, path in (("POST", "/kv"), ("DELETE", "/kv/1"), ("PUT", "/kv/1"), ("DELETE", "/pairs/a")):
        answer = client.request(method, path, b"{}", text="true")
        assert answer.status == 400 and answer.code == "unknown_parameter", (method, path)
    for path in ("/kv", "/kv/1"):
        assert client.get(path, names="text").code == "unknown_parameter"
    assert json.loads(client.get("/healthz?text=what&names=what").body)
