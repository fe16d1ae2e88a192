"""A client that asks for text gets what one gets that asks for base64, and less travels."""
import asyncio

import harness
import pytest
from conftest import url_of

from cheetah_http import AsyncClient, Client, DamagedValue

NAMES = {b"a:text": b"hello", "a:grüße".encode(): "€\t\n".encode(), b"a:\xff": b"text", b"a:binary": b"\x00\xff", b"a:json": b'{"a":1}', b"x41": b"x", b"*": b"*"}


@pytest.fixture
def both(server, db):
    keys = {name: db.pair_put(name, value).key for name, value in NAMES.items()}
    with Client(url_of(server), database=db.database, text=True) as text:
        yield db, text, keys
    assert not db._text and text._text and text.on("other")._text


@pytest.mark.parametrize("call", [
    lambda db, keys: list(db.pairs()), lambda db, keys: list(db.pairs(values=True, page_size=1)), lambda db, keys: list(db.pairs(b"a:", reverse=True, page_size=2)),
    lambda db, keys: list(db.values(page_size=3)), lambda db, keys: list(db.read_many([*keys.values(), 4711])),
    lambda db, keys: list(db.pair_many([*keys, b"none", b"\xfe"])), lambda db, keys: [db.pair(name) for name in keys],
    lambda db, keys: [db.pair_value(name) for name in keys], lambda db, keys: [db.count(b"a:"), db.count(b"\xff")],
    lambda db, keys: list(db.payloads()), lambda db, keys: list(db.documents(b"a:")), lambda db, keys: list(db.queue_peek(b"a:")),
    lambda db, keys: list(db.children(page_size=1)), lambda db, keys: list(db.children(separator=b":")),
], ids=["pairs", "values of pairs", "reverse", "values", "read_many", "pair_many", "pair", "pair_value", "count", "payloads", "decoded", "queue_peek", "children", "groups"])
def test_the_same_bytes(both, call):
    db, text, keys = both
    assert call(db, keys) == call(text, keys)


def test_decoded_counts(both):
    """A server that is asked for text says the words, too; the records are the same."""
    db, text, _ = both
    db.ngrams([[4, 5, 4]], order=2)
    db.smooth()
    for call in (lambda db: list(db.counts()), lambda db: list(db.topk()), lambda db: list(db.probabilities())):
        assert call(db) == call(text) != []


def test_batches(both):
    _, text, keys = both
    with text.batch() as batch:
        read = [(batch.read(key), batch.pair_get(name, values=True), NAMES[name]) for name, key in keys.items()]
        none = batch.read(4711)
    assert all(a.value == b.value == value for a, b, value in read) and none.value is None
    assert text.add(b"number", 3) == 3


def test_draining(both):
    db, text, keys = both
    assert [(row.pair, row.payload) for row in text.queue_drain(b"a:")] == sorted((n, v) for n, v in NAMES.items() if n.startswith(b"a:"))


def test_it_is_text_that_travels(server, db):
    db.pair_put(b"name", b"value")
    seen = []
    httpx = pytest.importorskip("httpx")
    http = httpx.Client(base_url=url_of(server), event_hooks={"response": [lambda response: seen.append((str(response.url), response.read()))]})
    with http, Client(database=db.database, text=True, http=http) as text:
        assert text.pair(b"name").value == b"value" and [row.value for row in text.pairs(values=True)] == [b"value"]
    assert len(seen) == 2 and all("text=true" in url and b'"name":"name"' in body and b'"text":"value"' in body for url, body in seen)


def test_asyncio(server, both):
    async def run():
        async with AsyncClient(url_of(server), database=both[0].database, text=True) as db:
            return [row async for row in db.pairs(values=True)], await db.pair(b"a:text")

    assert asyncio.run(run()) == (list(both[0].pairs(values=True)), both[0].pair(b"a:text"))


def test_a_damaged_value_is_raised(launch):
    server = launch("--durability", "os", "--shards", "1", "--scrub-bytes-per-second", "0")
    with Client(url_of(server)) as db:
        db.pair_put(b"bad", b"<the value>")
        db.checkpoint()
    server.stop()
    harness.damage(server.data, b"<the value>")
    server.restart()
    with Client(url_of(server), text=True) as db:
        for rows in (lambda: db.pairs(values=True), lambda: db.pair_many([b"bad"]), db.values, db.payloads):
            with pytest.raises(DamagedValue) as caught:
                list(rows())
            assert caught.value.pair in (b"bad", None)
