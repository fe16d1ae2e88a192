"""A client that compresses gets and stores what one gets and stores that does not, and less travels; it asks only for what it can read."""
import asyncio
import gzip
import os

import pytest
from conftest import url_of

from cheetah_http import AsyncClient, Client, CheetahError
from cheetah_http.net import http1, packing

TEXT = b"a sentence with some words, again and again. " * 3000
CODINGS = ["gzip"] + (["zstd"] if packing.zstandard is not None else [])


@pytest.fixture(params=CODINGS)
def coding(request, monkeypatch):
    if request.param == "gzip":
        monkeypatch.setattr(packing, "zstandard", None)
    return request.param


@pytest.fixture
def compressed(server, db, coding):
    with Client(url_of(server), database=db.database, compress=True) as client:
        yield client


def figures(db):
    return {name[len("cheetah_compressed_"):]: int(value) for name, value in db.metrics().items() if name.startswith("cheetah_compressed_")}


def test_the_same(db, compressed):
    key = compressed.insert(TEXT)
    assert db.read(key) == compressed.read(key) == TEXT
    compressed.pair_put(b"name", TEXT)
    noise = os.urandom(5000)
    compressed.pair_put(b"noise", noise)
    with compressed.batch() as batch:
        for i in range(2000):
            batch.pair_put(b"row:%d" % i, b"value %d" % i)
    assert list(db.pairs(values=True)) == list(compressed.pairs(values=True)) and len(list(compressed.pairs())) == 2002
    assert compressed.pair_value(b"noise") == noise and compressed.pair_value(b"name") == TEXT
    names = [b"row:%d" % i for i in range(2000)]
    assert list(compressed.pair_many(names)) == list(db.pair_many(names))
    assert compressed.ngrams([[2, 11, 12, 3]] * 500, order=2).documents == 500
    assert compressed.count(b"row:") == 2000


def test_less_travels(db, compressed):
    before = figures(db)
    key = compressed.insert(TEXT)
    assert compressed.read(key) == TEXT
    after = figures(db)
    assert after["bodies_plain_bytes_total"] - before["bodies_plain_bytes_total"] == len(TEXT)
    assert 0 < after["bodies_bytes_total"] - before["bodies_bytes_total"] < len(TEXT) / 20
    assert after["answers_plain_bytes_total"] - before["answers_plain_bytes_total"] == len(TEXT)
    assert 0 < after["answers_bytes_total"] - before["answers_bytes_total"] < len(TEXT) / 20
    db.read(key)
    assert figures(db)["answers_total"] == after["answers_total"], "a client that does not ask gets it as it is"


def test_asyncio(server, db, coding):
    async def run():
        async with AsyncClient(url_of(server), database=db.database, compress=True) as client:
            await client.pair_put(b"name", TEXT)
            return await client.pair_value(b"name"), [row async for row in client.pairs(values=True)]

    assert asyncio.run(run()) == (TEXT, list(db.pairs(values=True)))


def test_what_is_damaged_or_was_not_asked_for_is_an_error(coding):
    whole, name = packing.packed(TEXT)
    assert name == coding and packing.packed(b"short") == (b"short", None)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Encoding: %s\r\n\r\n"
    good = http1.Incoming()
    assert b"".join(good.feed(head % (len(whole), name.encode()) + whole)) == TEXT and good.complete
    for body, said in ((whole[:-1], name), (b"x" + whole[1:], name), (gzip.compress(TEXT), "br")):
        with pytest.raises(packing.TransportError):
            http1.Incoming().feed(head % (len(body), said.encode()) + body)


def test_errors_are_read_too(db, compressed):
    with pytest.raises(CheetahError) as caught:
        compressed.read(4711)
    assert caught.value.code == "key_not_found"
