"""Matrices of tokens: POST /reduce/matrix makes them, GET shows rows and columns, GET /reduce/associations what belongs to a token or a context."""
import hashlib
import math
import random
import struct

import pytest
from harness import hexed, layouts, ndjson, unb64

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(autouse=True)
def known(need):
    need("/reduce/matrix/cnt:")


def documents(seed, n=60, tokens=25):
    rng = random.Random(seed)
    return [[min(int(rng.paretovariate(0.7)), tokens) + 3 for _ in range(rng.randrange(2, 12))] for _ in range(n)]


def count(client, docs, order=3):
    assert client.post("/ngrams", ndjson({"tokens": d} for d in docs), headers=NDJSON, order=str(order)).status == 200


def make(client, prefix=b"cnt:", status=200, **params):
    answer = client.post("/reduce/matrix/" + hexed(prefix), **params)
    assert answer.status == status, answer
    return answer.lines()


def rows(client, prefix, **params):
    """{(token of the row, token): value}; rows and what is in them come ascending."""
    entries = client.get("/reduce/matrix/" + hexed(prefix), **params).entries()
    names = [unb64(e["pair"]) for e in entries]
    assert names == sorted(names) and all(e["row"] == sorted(e["row"]) for e in entries)
    return {(struct.unpack(">I", name[-4:])[0], t): v for name, e in zip(names, entries) for t, v in e["row"]}


def plain(docs, distance, metric):
    c = {}
    for d in docs:
        for a, b in zip(d, d[distance:]):
            c[a, b] = c.get((a, b), 0) + 1
    row, column, total = {}, {}, sum(c.values())
    for (a, b), n in c.items():
        row[a], column[b] = row.get(a, 0) + n, column.get(b, 0) + n
    of = {"count": lambda a, b, n: n, "p": lambda a, b, n: n / row[a], "pmi": lambda a, b, n: math.log2(n * total / (row[a] * column[b]))}[metric]
    return {(a, b): of(a, b, n) for (a, b), n in c.items()}


@pytest.mark.parametrize("metric", ["pmi", "count", "p"])
def test_rows_and_columns(client, metric):
    docs = documents(metric)
    count(client, docs)
    made = make(client, metric=metric)
    for order in (2, 3):
        expected = plain(docs, order - 1, metric)
        assert rows(client, b"mat:%d:" % order) == pytest.approx(expected, abs=1e-9)
        assert rows(client, b"cnt:%d:" % order) == rows(client, b"mat:%d:" % order)
        columns = rows(client, b"mat:%d:" % order, transpose="true")
        assert {(a, b): v for (b, a), v in columns.items()} == pytest.approx(expected, abs=1e-9)
        assert made[order - 2] == {"order": order, "metric": metric, "rows": len({a for a, _ in expected}), "columns": len({b for _, b in expected}),
                                   "entries": len(expected)}
    assert made[-1] == {"end": {"count": 2, "next": None, "malformed": 0}}


def test_a_new_run_replaces_the_rows_of_its_orders(client):
    docs = documents(1)
    count(client, docs)
    make(client, metric="count")
    client.delete("/pairs/" + hexed(b"cnt:2:"), recursive="true", values="true")
    count(client, [[5, 6]], order=2)
    assert [line.get("order") for line in make(client, b"cnt:2:", metric="count")] == [2, None]
    assert rows(client, b"mat:2:") == {(5, 6): 1} and rows(client, b"mat:3:") == plain(docs, 2, "count")
    client.delete("/pairs/" + hexed(b"cnt:3:"), recursive="true", values="true")
    make(client)
    assert rows(client, b"mat:3:") == {} == rows(client, b"mat:3:", transpose="true"), "nothing is left of what is not counted any more"


def test_an_order_that_does_not_fit_the_memory_is_made_in_parts(launch):
    server = launch("--durability", "os", "--reduce-memory-bytes", "1048576")
    client = server.client()
    docs = [[3 + (i * j * j + j) % 997 for j in range(40)] for i in range(1100)]
    count(client, docs, order=2)
    expected = plain(docs, 1, "pmi")
    assert len(expected) * 24 > 1048576 // 3, "or it would fit"
    made = make(client, metric="pmi")
    assert [line.get("entries") for line in made] == [len(expected), None]
    assert rows(client, b"mat:2:") == pytest.approx(expected, abs=1e-9)
    columns = rows(client, b"mat:2:", transpose="true")
    assert {(a, b): v for (b, a), v in columns.items()} == pytest.approx(expected, abs=1e-9)
    assert pairs_under(client, b"mat") == made[0]["rows"] + made[0]["columns"], "nothing else is left"


def test_what_cannot_be_read_is_passed_over(client):
    count(client, [[5, 6, 7]])
    client.upsert(b"cnt:2:broken", b"\x01\x02\x00\x09")
    client.upsert(b"cnt:2:no context", layouts.counts(2, [(1, 1)]))
    client.map(b"cnt:2:no value", 2**40)
    made = make(client, metric="count")
    assert made[-1]["end"]["malformed"] == 2 and rows(client, b"mat:2:") == {(5, 6): 1, (6, 7): 1}
    client.upsert(b"mat:2:broken", b"\x01\x02\x00\x00\x00\x00\x09")
    assert [e.get("problem") for e in client.get("/reduce/matrix/mat:2:").entries()] == [None, None, "malformed_payload"]


def test_names_that_are_taken(client):
    count(client, [[5, 6, 7]], order=2)
    client.upsert(b"mat:2:steel", b"a material")
    assert make(client)[-1]["error"]["code"] == "names_taken"
    assert [(p, v) for p, _, v in client.scan(b"mat", values="true")] == [(b"mat:2:steel", b"a material")], "nothing was deleted, nothing written"
    client.delete("/pairs/" + hexed(b"mat:2:steel"), values="true")
    client.upsert(b"matt:2:other", b"\x01\x02\x00\x00\x00\x00\x00rest")
    assert make(client)[-1]["error"]["code"] == "names_taken" and pairs_under(client, b"mat") == 1
    client.delete("/pairs/" + hexed(b"matt:2:other"), values="true")
    assert make(client)[0]["entries"] == 2 and make(client)[0]["entries"] == 2


def pairs_under(client, prefix):
    return client.get("/pairs/" + hexed(prefix), count="true").json()["pairs"]


def test_by_words(client):
    client.post("/ngrams", ndjson({"text": t} for t in ["the old house", "the old barn", "the new house"]), headers=NDJSON, text="true", order="2")
    make(client, metric="count")
    entries = client.get("/reduce/matrix/mat:2:", text="true").entries()
    spoken = {e["word"]: {word: (token, v) for token, v, word in e["row"]} for e in entries}
    assert {w: {x: v for x, (_, v) in row.items()} for w, row in spoken.items()} == {"the": {"old": 2, "new": 1}, "old": {"house": 1, "barn": 1}, "new": {"house": 1}}
    plain = rows(client, b"mat:2:")
    assert {(e["token"], t): v for e in entries for t, v, _ in e["row"]} == plain
    columns = client.get("/reduce/matrix/cnt:2:", text="true", transpose="true").entries()
    assert {e["word"]: {word: v for _, v, word in e["row"]} for e in columns}["house"] == {"old": 1, "new": 1}
    client.upsert(b"mat:2:broken", b"\x01\x02\x00\x00\x00\x00\x09")
    assert [e.get("problem") for e in client.get("/reduce/matrix/mat:2:", text="true").entries()] == [None, None, None, "malformed_payload"]
    assert all("payload" in e for e in client.get("/reduce/matrix/mat:2:", text="true", decode="false").entries())


def test_associations(client):
    texts = ["the old house stood", "the old barn stood", "a new house fell", "the old house burnt"]
    client.post("/ngrams", ndjson({"text": t} for t in texts), headers=NDJSON, text="true", order="3")
    make(client, metric="count")
    assert client.post("/reduce/links/cnt:2:", min="0.1").status == 200
    voc = {p[4:].decode(): struct.unpack(">I", v)[0] for p, _, v in client.scan(b"voc:", values="true")}
    found = [e for e in client.get("/reduce/associations/%d" % voc["old"], text="true").entries() if e["order"] == 2]
    assert [(e["relation"], e["word"], e["weight"]) for e in found] == [("after", "house", 2), ("after", "barn", 1), ("before", "the", 3)]
    assert len(client.get("/reduce/associations/%d" % voc["old"], k="1").entries()) == 3
    assert client.get("/reduce/associations/4294967295").entries() == []
    pair = b"cnt:2:" + hashlib.blake2b(b"%d" % voc["house"], digest_size=8).digest()
    found = client.get("/reduce/associations/" + hexed(pair)).entries()
    links = client.get("/reduce/links/" + hexed(b"link:cosine:" + pair)).entries()[0]["links"]
    assert [(e["pair"], e["weight"]) for e in found if e["relation"] == "link"] == [(x["pair"], x["weight"]) for x in links]
    after = [e for e in found if e["relation"] == "after"]
    assert after and sum(e["weight"] for e in after) == pytest.approx(1) and after == sorted(after, key=lambda e: (-e["weight"], e["token"]))


def test_wrong_calls(client):
    for answer, code in ((client.post("/reduce/matrix/cnt:", metric="cosine"), "invalid_parameter"), (client.post("/reduce/matrix/cnt:1:"), "invalid_parameter"),
                         (client.post("/reduce/matrix/prob:"), "invalid_parameter"), (client.post("/reduce/matrix/cnt:", k="3"), "unknown_parameter"),
                         (client.get("/reduce/associations/5", k="0"), "invalid_parameter"), (client.get("/reduce/associations/4294967296"), "pair_not_found"),
                         (client.get("/reduce/matrix/mat:", transpose="maybe"), "invalid_parameter")):
        assert answer.json()["code"] == code, answer
    assert client.get("/reduce/associations/" + hexed(b"nobody")).status == 404
    assert make(client, b"") == [{"end": {"count": 0, "next": None, "malformed": 0}}]
