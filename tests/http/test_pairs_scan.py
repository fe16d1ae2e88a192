"""Scans and counts: GET /pairs/{prefix}."""
import random

import pytest
from harness import b64, decode_pair, hexed

IDS = dict(ids=lambda value: repr(value)[:20])
PREFIXES = [b"", b"a", b"ab", b"\0", b"\xff", b"\xff\xff", b"a\0", b"a\xff", b"zz", b"ctx:", b"a" * 4096, b"m" * 100]


def nasty_pairs(rng, count):
    """Prefixes of each other, runs of 00 and ff, all lengths."""
    pairs = {bytes([byte]) for byte in range(256)} | {b"a" * n for n in (1, 2, 3, 100, 4095, 4096)}
    pairs |= {b"m" * n for n in range(95, 105)} | {b"\xff" * n for n in range(1, 9)} | {b"\0" * n for n in range(1, 9)}
    while len(pairs) < count:
        head = rng.choice([b"a", b"ab", b"ctx:", b"a\xff", b"\xff\xff", b"a\0", b""])
        pairs.add((head + bytes(rng.choice(b"\0ab\xff") for _ in range(rng.randrange(1, 12))))[:4096])
    return sorted(pairs)


@pytest.fixture(scope="module")
def filled(server):
    """A read-only database with 3000 nasty pairs, a third of them dangling: (client, {pair: (key, value)})."""
    client = server.client(db="scanned")
    rng = random.Random(7)
    pairs = nasty_pairs(rng, 3000)
    shuffled = pairs[:]
    rng.shuffle(shuffled)
    live = [pair for i, pair in enumerate(shuffled) if i % 3]
    values = {pair: rng.randbytes(rng.randrange(1, 40)) for pair in live}
    client.put_all(values)
    dangling = [pair for i, pair in enumerate(shuffled) if not i % 3]
    client.batch([{"op": "pair_set", "pair": b64(pair), "key": 2**40 + i} for i, pair in enumerate(dangling)])
    keys = dict(client.scan())
    assert set(keys) == set(pairs)
    yield client, {pair: (keys[pair], values.get(pair)) for pair in pairs}
    client.delete("/databases/scanned", confirm="scanned")


def expected(model, prefix, after=None, until=None, reverse=False):
    chosen = [pair for pair in sorted(model, reverse=reverse) if pair.startswith(prefix)]
    if reverse:
        return [p for p in chosen if (after is None or p < after) and (until is None or p > until)]
    return [p for p in chosen if (after is None or p > after) and (until is None or p < until)]


@pytest.mark.parametrize("prefix", PREFIXES, **IDS)
@pytest.mark.parametrize("reverse", ["false", "true"])
def test_scan(filled, prefix, reverse):
    client, model = filled
    want = [(pair, model[pair][0]) for pair in expected(model, prefix, reverse=reverse == "true")]
    assert client.scan(prefix, reverse=reverse) == want
    assert client.get("/pairs/" + hexed(prefix), reverse=reverse).end == {"count": len(want), "next": None}


@pytest.mark.parametrize("prefix", PREFIXES, **IDS)
def test_scan_with_values(filled, prefix):
    client, model = filled
    answer = client.get("/pairs/" + hexed(prefix), values="true")
    assert [decode_pair(line) for line in answer.entries()] == [(p,) + model[p] for p in expected(model, prefix)]
    for line in answer.entries():
        assert (line["size"] is None) == (line["value"] is None)
        assert line["size"] is None or line["size"] * 4 <= len(line["value"]) * 3


@pytest.mark.parametrize("prefix", PREFIXES, **IDS)
def test_count(filled, prefix):
    client, model = filled
    answer = client.get("/pairs/" + hexed(prefix), count="true")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json() == {"prefix": b64(prefix), "pairs": len(expected(model, prefix))}


def test_empty_path_is_everything_for_a_read(filled):
    client, model = filled
    for path in ("/pairs/*", "/pairs/%2a"):
        assert client.get(path, count="true").json()["pairs"] == len(model)


def test_bounds(filled):
    client, model = filled
    rng = random.Random(3)
    pairs = sorted(model)
    places = pairs + [pair + b"\0" for pair in pairs if len(pair) < 4096] + [b"nowhere", b"\xff" * 20]
    for _ in range(150):
        prefix, reverse = rng.choice(PREFIXES), rng.random() < 0.5
        after = rng.choice([None, rng.choice(places)])
        until = rng.choice([None, rng.choice(places)])
        params = {"reverse": "true"} if reverse else {}
        if after is not None:
            params["after"] = hexed(after)
        if until is not None:
            params["until"] = hexed(until)
        want = [(p, model[p][0]) for p in expected(model, prefix, after, until, reverse)]
        assert client.scan(prefix, **params) == want, (prefix, params)


def test_bounds_as_plain_text(filled):
    client, model = filled
    want = [(p, model[p][0]) for p in expected(model, b"", b"a", b"ctx:")]
    answer = client.get("/pairs/*?after=a&until=ctx:&db=scanned")
    assert [decode_pair(line) for line in answer.entries()] == want
    answer = client.get("/pairs/*?after=%61&until=%63%74x%3a&db=scanned")
    assert [decode_pair(line) for line in answer.entries()] == want
    plus = client.get("/pairs/*?after=%2A%2B&until=+&db=scanned")  # a plus is a plus; %2A%2B is "*+"
    assert [p for p, _ in map(decode_pair, plus.entries())] == expected(model, b"", b"*+", b"+")
    assert client.scan(after="*") == client.scan()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 7, 1000, 2999, 3000, 3001, 10**9])
def test_pages(filled, reverse, limit):
    client, model = filled
    want = expected(model, b"", reverse=reverse)
    if limit == 1:
        want = want[:200]
    got, params = [], {"limit": str(limit)}
    if reverse:
        params["reverse"] = "true"
    while len(got) < len(want) or limit > 1:
        answer = client.get("/pairs/*", **params)
        page = [decode_pair(line)[0] for line in answer.entries()]
        assert answer.end["count"] == len(page) <= limit
        got += page
        if answer.end["next"] is None:
            break
        assert len(page) == limit and answer.end["next"].lower() == hexed(page[-1])
        params["after"] = answer.end["next"]
    assert got == want


def test_next_is_null_behind_the_last(filled):
    client, model = filled
    last = max(model)
    assert client.get("/pairs/*", after=hexed(last)).lines() == [{"end": {"count": 0, "next": None}}]
    first = min(model)
    answer = client.get("/pairs/*", after=hexed(first), reverse="true")
    assert answer.lines() == [{"end": {"count": 0, "next": None}}]
    assert client.get("/pairs/*", limit=str(len(model) + 1)).end["next"] is None
    middle = client.get("/pairs/*", limit="5").end["next"]
    assert middle.lower() == hexed(sorted(model)[4])


def test_a_limit_with_until(filled):
    client, model = filled
    want = expected(model, b"a", b"ab", b"b")
    answer = client.get("/pairs/a", after="ab", until="b", limit="3")
    assert [decode_pair(line)[0] for line in answer.entries()] == want[:3]
    answer = client.get("/pairs/a", after=answer.end["next"], until="b")
    assert [decode_pair(line)[0] for line in answer.entries()] == want[3:] and answer.end["next"] is None


def test_stream_headers(filled):
    client, _ = filled
    response, _ = client.send("GET", "/pairs/*")
    assert response.headers["Content-Type"].split(";")[0] == "application/x-ndjson"
    assert response.headers["Transfer-Encoding"].lower() == "chunked" and "Content-Length" not in response.headers
    response.read()


def test_head_of_a_stream(filled):
    client, _ = filled
    answer = client.head("/pairs/*")
    assert answer.status == 200 and answer.body == b""
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    assert client.head("/pairs/q", exact="true").status in (200, 404)


def test_nothing_there(client):
    assert client.get("/pairs/*").lines() == [{"end": {"count": 0, "next": None}}]
    assert client.get("/pairs/abc", reverse="true").lines() == [{"end": {"count": 0, "next": None}}]
    assert client.get("/pairs/abc", count="true").json() == {"prefix": b64(b"abc"), "pairs": 0}


@pytest.mark.parametrize("what,others", [("count", {"after": "a", "until": "b", "limit": "1", "reverse": "true", "values": "true", "expires": "true"}),
                                         ("exact", {"after": "a", "until": "b", "limit": "1", "reverse": "true"})])
def test_what_only_a_scan_has(client, what, others):
    """It would be passed over: a count after a name that counts all is wrong."""
    client.upsert(b"a", b"v")
    for name, value in others.items():
        answer = client.get("/pairs/a", **{what: "true", name: value})
        assert answer.status == 400 and answer.code == "invalid_parameter" and name in answer.json()["detail"], name
    assert client.get("/pairs/a", reverse="false", values="false", **{what: "true"}).status == 200
    assert [entry["pair"] for entry in client.get("/pairs/a", limit="1", **{what: "false"}).entries()] == [b64(b"a")]


@pytest.mark.parametrize("prefix", [b"a" * 4097, b"a" * 6000], **IDS)
def test_too_long_prefix(client, prefix):
    answer = client.get("/pairs/" + hexed(prefix))
    assert answer.status == 400 and answer.code == "invalid_pair"


def test_large_values_in_a_scan(client):
    values = {b"v:%d" % i: bytes([i]) * size for i, size in enumerate((1, 100000, 5000000, 65536, 1 << 24))}
    for pair, value in values.items():
        client.upsert(pair, value)
    assert {pair: value for pair, _, value in client.scan(values="true")} == values


def test_operations_against_a_model(client):
    """2000 random calls against a Python dictionary, with full scans compared on the way."""
    rng = random.Random(20240607)
    values, pairs, used = {}, {}, set()
    names = nasty_pairs(rng, 400)
    rng.shuffle(names)
    names = names[:120]
    raw = {"Content-Type": "application/octet-stream"}

    def any_key():
        return rng.choice(sorted(used)) if used and rng.random() < 0.9 else rng.randrange(1, 10**6)

    def insert():
        value = rng.randbytes(rng.randrange(1, 300))
        key = client.insert(value)
        assert key not in used
        used.add(key)
        values[key] = value

    def edit():
        key, value = any_key(), rng.randbytes(rng.randrange(1, 300))
        answer = client.put("/kv/%d" % key, value, headers=raw)
        assert answer.status == (200 if key in values else 404)
        if key in values:
            values[key] = value

    def delete():
        key = any_key()
        assert client.delete("/kv/%d" % key).status == (204 if key in values else 404)
        values.pop(key, None)

    def read():
        key = any_key()
        assert client.read(key) == values.get(key)

    def pair_set():
        pair, key = rng.choice(names), any_key()
        assert client.map(pair, key).status == (200 if pair in pairs else 201)
        pairs[pair] = key

    def pair_put():
        pair, value = rng.choice(names), rng.randbytes(rng.randrange(1, 300))
        key = client.upsert(pair, value)
        if pairs.get(pair) in values:
            assert key == pairs[pair]
        else:
            assert key not in used
        used.add(key)
        pairs[pair], values[key] = key, value

    def pair_get():
        pair = rng.choice(names)
        answer = client.get("/pairs/" + hexed(pair), exact="true", values="true")
        assert answer.status == (200 if pair in pairs else 404)
        if pair in pairs:
            assert decode_pair(answer.json()) == (pair, pairs[pair], values.get(pairs[pair]))

    def pair_del():
        pair, with_value = rng.choice(names), rng.random() < 0.5
        answer = client.delete("/pairs/" + hexed(pair), **({"values": "true"} if with_value else {}))
        assert answer.status == (204 if pair in pairs else 404)
        key = pairs.pop(pair, None)
        if with_value:
            values.pop(key, None)

    def namespace_del():
        prefix, with_values = rng.choice(names), rng.random() < 0.5
        gone = [pair for pair in pairs if pair.startswith(prefix)]
        dead = {pairs.pop(pair) for pair in gone}
        dead = {key for key in dead if key in values} if with_values else set()
        params = {"values": "true"} if with_values else {}
        answer = client.delete("/pairs/" + hexed(prefix), recursive="true", **params)
        assert answer.json() == {"pairs_deleted": len(gone), "values_deleted": len(dead)}
        for key in dead:
            del values[key]

    def scan():
        prefix, reverse = rng.choice([b"", rng.choice(names)[:1], rng.choice(names)]), rng.random() < 0.3
        want = [(p, pairs[p], values.get(pairs[p])) for p in expected(pairs, prefix, reverse=reverse)]
        assert client.scan(prefix, values="true", **({"reverse": "true"} if reverse else {})) == want
        assert client.get("/pairs/" + hexed(prefix), count="true").json()["pairs"] == len(want)

    steps = [insert, edit, delete, read, pair_set, pair_put, pair_get, pair_del, namespace_del, scan]
    weights = [20, 10, 5, 10, 15, 25, 10, 8, 0.5, 3]
    for _ in range(2000):
        rng.choices(steps, weights)[0]()
    assert client.scan(values="true") == [(p, pairs[p], values.get(pairs[p])) for p in sorted(pairs)]
    sweep = client.get("/kv").entries()
    assert {line["key"]: line["value"] for line in sweep} == {key: b64(value) for key, value in values.items()}
