"""Payload modes: GET /reduce/{mode}/{prefix}, and queue-drain."""
import json
import random
import struct
import threading

import pytest
from harness import b64, hexed, layouts, unb64

ALIASES = {"counts": ["count"], "probabilities": ["probs", "backoffs"], "continuations": ["continuation"], "topk": [], "contexts": [],
           "cache": [], "bias": [], "meta": [], "payloads": [], "queue-drain": []}
NAMES = [name for mode, others in ALIASES.items() for name in [mode] + others]


def reduce(client, mode, prefix=b"", **params):
    answer = client.get("/reduce/%s/%s" % (mode, hexed(prefix)), **params)
    assert answer.status == 200, answer
    return answer


@pytest.mark.parametrize("mode", NAMES)
def test_every_mode_inlines_payloads(client, mode):
    keys = {pair: client.upsert(pair, b"payload of " + pair) for pair in (b"n:a", b"n:b", b"n:\xff", b"other")}
    client.map(b"n:c", 2**33)
    want = [{"pair": b64(pair), "key": keys.get(pair, 2**33), "payload": b64(b"payload of " + pair) if pair in keys else None}
            for pair in (b"n:a", b"n:b", b"n:c", b"n:\xff")]
    answer = reduce(client, mode, b"n:")
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    assert answer.entries() == want and answer.end == {"count": 4, "next": None}


def test_bounds_and_pages(client):
    pairs = [b"n:%03d" % i for i in range(50)]
    client.put_all({pair: pair for pair in pairs})
    got, params = [], {"limit": "7"}
    while True:
        answer = reduce(client, "payloads", b"n:", **params)
        got += [unb64(line["payload"]) for line in answer.entries()]
        assert len(answer.entries()) <= 7
        if answer.end["next"] is None:
            break
        params["after"] = answer.end["next"]
    assert got == pairs
    answer = reduce(client, "counts", b"n:", after="n:010", until="n:013")
    assert [unb64(line["pair"]) for line in answer.entries()] == pairs[11:13] and answer.end["count"] == 2
    assert len(reduce(client, "payloads").entries()) == 50
    assert client.get("/reduce/payloads/*").entries() == client.get("/reduce/payloads/n:").entries()


def test_counts(client):
    followers = [(2, 100), (3, 1), (2**32 - 1, 2**32 - 1)]
    client.put_all({b"c:1": layouts.counts(3, followers), b"c:2": layouts.counts(1, []), b"c:3": layouts.counts(2, followers, version=2),
                    b"c:4": layouts.counts(3, followers) + b"trailing bytes are accepted"})
    for mode in ("counts", "count"):
        lines = reduce(client, mode, b"c:", decode="true").entries()
        assert [line["followers"] for line in lines] == [[list(f) for f in followers], [], [list(f) for f in followers],
                                                         [list(f) for f in followers]]
        assert [line["order"] for line in lines] == [3, 1, 2, 3]
        assert all(set(line) == {"pair", "key", "order", "followers"} for line in lines)


def test_many_followers(client):
    """More than fit 16 bits, and more than one buffer of a stream holds."""
    followers = [(token, token * 7 % 1000 + 1) for token in range(70000)]
    client.upsert(b"c:", layouts.counts(1, followers, version=2))
    line = reduce(client, "counts", b"c:", decode="true").entries()[0]
    assert line["followers"] == [list(f) for f in followers]
    entries = [(token, token % 256, None if token % 3 else token % 1000) for token in range(66000)]
    client.upsert(b"p:", layouts.probabilities(1, entries, version=2))
    line = reduce(client, "probs", b"p:", decode="true").entries()[0]
    assert line["entries"] == [list(e) for e in entries]


def test_probabilities(client):
    entries = [(1, 0, None), (2, 255, 0), (2**32 - 1, 128, 1000), (7, 3, 65534)]
    client.put_all({b"p:1": layouts.probabilities(3, entries), b"p:2": layouts.probabilities(2, entries, version=2),
                    b"p:3": layouts.probabilities(1, [])})
    for mode in ("probabilities", "probs", "backoffs"):
        lines = reduce(client, mode, b"p:", decode="1").entries()
        assert [(line["order"], line["entries"]) for line in lines] == [(3, [list(e) for e in entries]), (2, [list(e) for e in entries]), (1, [])]


def test_continuations(client):
    client.put_all({b"cont:" + struct.pack(">I", t): layouts.continuation(t, t * 3) for t in (0, 5, 2**30)})
    for mode in ("continuations", "continuation"):
        lines = reduce(client, mode, b"cont:", decode="true").entries()
        assert [(line["token"], line["contexts"]) for line in lines] == [(0, 0), (5, 15), (2**30, 3 * 2**30)]


def test_topk(client):
    ranked = [(9, 255), (4, 200), (1, 0)]
    client.put_all({b"t:1": layouts.topk(3, ranked), b"t:2": layouts.topk(1, ranked) + bytes(85), b"t:3": layouts.topk(2, [])})
    lines = reduce(client, "topk", b"t:", decode="true").entries()
    assert [(line["order"], line["ranked"]) for line in lines] == [(3, [list(r) for r in ranked]), (1, [list(r) for r in ranked]), (2, [])]


def test_contexts(client):
    client.put_all({b"ctx:a": layouts.context([12, 2**32 - 1]), b"ctx:b": layouts.context([])})
    lines = reduce(client, "contexts", b"ctx:", decode="true").entries()
    assert [(line["order_size"], line["tokens"]) for line in lines] == [(2, [12, 2**32 - 1]), (0, [])]


@pytest.mark.parametrize("mode", ["cache", "bias", "meta"])
def test_json_payloads(client, mode):
    values = [{"a": [1, 2.5, None, True]}, [], "text \u00fc \n", 5, {"nested": {"x": "\u0000"}}]
    client.put_all({b"meta:%d" % i: json.dumps(value).encode() for i, value in enumerate(values)})
    client.upsert(b"meta:8", b' {\n  "pretty": [1,\n 2]\n}\n')
    client.upsert(b"meta:9", "{\"ü\":\"€\"}".encode())
    lines = reduce(client, mode, b"meta:", decode="true").entries()
    assert [line["json"] for line in lines] == values + [{"pretty": [1, 2]}, {"ü": "€"}]


MALFORMED = {"counts": [b"\1", b"\1\1", b"\1\1\0", b"\1\1\0\1", layouts.counts(1, [(1, 1), (2, 2)])[:-1], b"\3\1\0\0", b"\0\1\0\0",
                        b"\2\1\0\0\0", b"\2\1\xff\xff\xff\xff" + bytes(100), b"{}"],
             "probabilities": [b"\1\1\0\1" + bytes(6), b"\2\1\0\0\0\1" + bytes(6), b"\x09\1\0\0", b"x"],
             "continuations": [b"\1\0\0\0\5\0\0\0", b"\2" + bytes(8), b"\1"],
             "topk": [b"\1\1\1" + bytes(4), b"\1\1", b"\2\1\0"],
             "contexts": [b"\1\2\2" + bytes(7), b"\1\1", b"\0\0\0"],
             "cache": [b"{", b"\xff\xfe", b'{"a":1} x', b"nul", b"\0", b'"\x01"'],
             "bias": [b"[1,]"], "meta": [b"{'a':1}"]}


@pytest.mark.parametrize("mode", sorted(MALFORMED))
def test_malformed_payloads_never_end_the_stream(client, mode):
    good = {"counts": layouts.counts(1, [(1, 1)]), "probabilities": layouts.probabilities(1, [(1, 1, 1)]), "topk": layouts.topk(1, [(1, 1)]),
            "continuations": layouts.continuation(1, 1), "contexts": layouts.context([1])}.get(mode, b"{}")
    bad = MALFORMED[mode]
    client.put_all({b"n:%02d" % i: payload for i, payload in enumerate([good] + bad + [good])})
    client.map(b"n:99", 2**40)
    lines = reduce(client, mode, b"n:", decode="true").entries()
    assert len(lines) == len(bad) + 3
    for line, payload in zip(lines[1:-2], bad):
        assert unb64(line["payload"]) == payload and line["problem"] == "malformed_payload", payload
        assert set(line) == {"pair", "key", "payload", "problem"}
    for line in (lines[0], lines[-2]):
        assert "problem" not in line and "payload" not in line
    assert lines[-1]["payload"] is None and "followers" not in lines[-1]


def test_payloads_are_never_decoded(client):
    client.upsert(b"n:", layouts.counts(1, [(1, 1)]))
    assert reduce(client, "payloads", b"n:", decode="true").entries()[0]["payload"] == b64(layouts.counts(1, [(1, 1)]))
    assert reduce(client, "counts", b"n:", decode="false").entries()[0]["payload"] == b64(layouts.counts(1, [(1, 1)]))


def test_large_payloads(client):
    value = random.Random(1).randbytes(6_000_000)
    client.upsert(b"n:1", value)
    client.upsert(b"n:2", b"small")
    lines = reduce(client, "payloads", b"n:").entries()
    assert unb64(lines[0]["payload"]) == value and unb64(lines[1]["payload"]) == b"small"


@pytest.mark.parametrize("mode", ["nope", "Counts", "counts2", "", "count%00", "..", "c" * 300])
def test_unknown_mode(client, mode):
    answer = client.get("/reduce/%s/a" % mode)
    assert answer.status == 404
    if mode and mode != "..":
        assert answer.code == "unknown_reducer_mode"
        detail = answer.json()["detail"]
        for known in ("counts", "probabilities", "continuations", "topk", "contexts", "cache", "bias", "meta", "payloads", "queue-drain"):
            assert known in detail, "the known modes stand in detail"


def test_parameters(client):
    client.upsert(b"a", b"v")
    assert client.get("/reduce/counts/a", foo="1").code == "unknown_parameter"
    assert client.get("/reduce/counts/a", limit="0").code == "invalid_parameter"
    assert client.get("/reduce/counts/a", decode="maybe").code == "invalid_parameter"
    assert client.get("/reduce/counts/x1").code == "invalid_hex"
    assert client.get("/reduce/counts/a", after="xzz").code == "invalid_hex"
    assert client.get("/reduce/counts/%zz").code == "invalid_encoding"
    assert client.get("/reduce/counts/" + "a" * 4097).code == "invalid_pair"


def test_prefixes_take_the_rest_of_the_path(client):
    client.upsert(b"a/b//c", b"v")
    client.upsert(b"a/../d", b"w")
    assert [unb64(line["payload"]) for line in client.get("/reduce/payloads/a/b//").entries()] == [b"v"]
    assert [unb64(line["payload"]) for line in client.get("/reduce/payloads/a/../").entries()] == [b"w"]


def test_post_to_a_payload_mode(client):
    answer = client.request("POST", "/reduce/counts/a")
    assert answer.status == 405 and "GET" in answer.headers["Allow"] and "POST" not in answer.headers["Allow"]


# ---- queue-drain


def test_drain_needs_a_prefix(client):
    """As for the deletion of a namespace: a client's empty variable must not empty the database."""
    client.upsert(b"q", b"v")
    for path in ("/reduce/queue-drain/", "/reduce/queue-drain/?names=text", "/reduce/queue-drain/?names=hex"):
        answer = client.post(path)
        assert (answer.status, answer.code) == (400, "invalid_pair"), path
    assert len(client.post("/reduce/queue-drain/*").entries()) == 1


def test_drain(client):
    keys = {b"q:%02d" % i: client.upsert(b"q:%02d" % i, b"job %d" % i) for i in range(10)}
    client.upsert(b"other", b"stays")
    head = reduce(client, "queue-drain", b"q:", limit="3")
    assert [unb64(line["payload"]) for line in head.entries()] == [b"job 0", b"job 1", b"job 2"]
    assert len(client.scan(b"q:")) == 10, "GET only shows"
    answer = client.post("/reduce/queue-drain/q:", limit="4")
    assert answer.status == 200
    assert answer.entries() == [{"pair": b64(b"q:%02d" % i), "key": keys[b"q:%02d" % i], "payload": b64(b"job %d" % i)} for i in range(4)]
    assert answer.end["count"] == 4
    assert [pair for pair, _ in client.scan()] == [b"other"] + [b"q:%02d" % i for i in range(4, 10)]
    assert all(client.read(keys[b"q:%02d" % i]) is None for i in range(4)), "the values are removed too"
    rest = client.post("/reduce/queue-drain/q:", limit="100")
    assert len(rest.entries()) == 6 and rest.end["next"] is None
    assert client.post("/reduce/queue-drain/q:", limit="100").entries() == []
    assert [value for _, _, value in client.scan(values="true")] == [b"stays"]


def test_drain_with_8_callers(client, server):
    """Each entry goes to one caller only, while others put more."""
    total, got, errors, done = 3000, [], [], threading.Event()
    client.put_all({b"q:%05d" % i: b"%d" % i for i in range(1000)})

    def drain(seed):
        rng, mine = random.Random(seed), server.client(db=client.db)
        try:
            while True:
                finished = done.is_set()
                lines = mine.post("/reduce/queue-drain/q:", limit=str(rng.randrange(1, 40))).entries()
                got.extend(unb64(line["payload"]) for line in lines)
                if finished and not lines:
                    return
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=drain, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for start in range(1000, total, 100):
        client.put_all({b"q:%05d" % i: b"%d" % i for i in range(start, start + 100)})
    done.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert sorted(map(int, got)) == list(range(total))
    assert client.scan(b"q:") == [] and client.get("/kv").entries() == []


def test_drain_of_dangling_entries(client):
    client.map(b"q:1", 2**40)
    client.upsert(b"q:2", b"v")
    lines = client.post("/reduce/queue-drain/q:", limit="5").entries()
    assert [line["payload"] for line in lines] == [None, b64(b"v")] and client.scan() == []
