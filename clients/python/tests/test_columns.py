"""Scans and reducers as columns, numpy and arrays as input, and calls that do their work when they are called."""
import asyncio
import array
import random
import time

import pytest
from conftest import QUICK, url_of

from cheetah_http import AsyncClient, Client, CheetahError, DamagedValue, ProtocolError, payloads
from cheetah_http.columns import pair_columns, record_columns
from test_transport import Script, ok, say


@pytest.fixture
def numpy():
    return pytest.importorskip("numpy")


@pytest.fixture
def filled(db):
    rng = random.Random(5)
    documents = [[2] + [rng.randrange(4, 60) for _ in range(40)] + [3] for _ in range(40)]
    db.ngrams(documents, order=3)
    db.smooth()
    with db.batch() as batch:
        for i in range(500):
            batch.pair_put(b"v:%04d" % i, bytes([i % 256, i // 256, 0, 0]))
    db.pair_set(b"v:dangling", 1 << 40)
    return db


# ---- columns are what the rows are


@pytest.mark.parametrize("more", [{}, {"values": True}, {"limit": 37}, {"reverse": True, "limit": 120, "values": True}, {"after": b"v:0100", "until": b"v:0200"}])
def test_pairs(filled, more):
    for page_size in (7, 100, 20_000):
        rows, columns = list(filled.pairs(b"v:", **more)), filled.pairs_columns(b"v:", page_size=page_size, **more)
        assert columns.pairs == [row.pair for row in rows] and list(columns.keys) == [row.key for row in rows]
        assert list(columns.sizes) == [-1 if row.size is None else row.size for row in rows]
        assert columns.values == ([row.value for row in rows] if more.get("values") else None)
        assert len(columns) == len(rows) and str(len(rows)) in repr(columns)


def test_nothing_is_no_rows(filled):
    columns = filled.pairs_columns(b"nothing:", values=True)
    assert len(columns) == 0 and columns.pairs == [] and columns.values == []
    records = filled.reduce_columns("counts", b"nothing:")
    assert len(records) == 0 and list(records.offsets) == [0] and len(records.tokens) == 0


def test_values(filled):
    rows, columns = list(filled.values()), filled.values_columns(page_size=1000)
    assert list(columns.keys) == [row.key for row in rows] and columns.values == [row.value for row in rows]
    assert list(filled.values_columns(payloads=False, size=4, limit=9).sizes) == [4] * 9


RECORDS = {
    "counts": (b"cnt:", payloads.decode_counts, lambda c, i: c.counts[i]),
    "probabilities": (b"prob:", payloads.decode_probabilities, lambda c, i: (c.q[i], None if c.alphas[i] == payloads.NO_ALPHA else c.alphas[i])),
    "topk": (b"topk:", payloads.decode_topk, lambda c, i: c.q[i]),
    "continuations": (b"cont:", payloads.decode_continuation, lambda c, i: c.contexts[i]),
}


@pytest.mark.parametrize("mode", RECORDS)
def test_records(filled, mode):
    prefix, decode, rest = RECORDS[mode]
    rows = list(filled.reduce(mode, prefix, decode=False))
    for page_size in (13, 20_000):
        columns = filled.reduce_columns(mode, prefix, page_size=page_size)
        assert columns.pairs == [row.pair for row in rows] and list(columns.keys) == [row.key for row in rows] and len(rows) > 20
        assert list(columns.malformed) == []
        for i, row in enumerate(rows):
            record, entries = decode(row.payload), range(columns.offsets[i], columns.offsets[i + 1])
            if mode == "continuations":
                assert [(columns.tokens[k], rest(columns, k)) for k in entries] == [record]
                continue
            assert columns.orders[i] == record.order
            flat = [(token, *more) if len(more) > 1 else (token, more[0]) for token, *more in record[1]]
            assert [(columns.tokens[k], *(rest(columns, k) if mode == "probabilities" else (rest(columns, k),))) for k in entries] == flat


def test_long_and_malformed_payloads(db):
    followers = [(token, token + 1) for token in range(70_000)]
    db.pair_put(b"cnt:1:a", payloads.encode_counts(1, [(7, 8)]))
    db.pair_put(b"cnt:1:b", payloads.encode_counts(1, followers))  # version 2
    db.pair_put(b"cnt:1:c", b"\x01\x02\xff\xff")  # says more than it has
    db.pair_set(b"cnt:1:d", 1 << 40)  # no value
    db.pair_put(b"cnt:1:e", payloads.encode_counts(3, [(9, 10)]) + b"padding")
    columns = db.reduce_columns("counts", b"cnt:1:")
    assert list(columns.offsets) == [0, 1, 70_001, 70_001, 70_001, 70_002] and list(columns.malformed) == [2, 3]
    assert columns.tokens[0] == 7 and columns.counts[70_000] == 70_000 and columns.counts[-1] == 10 and list(columns.orders) == [1, 1, 0, 0, 3]
    for page_size in (1, 2):
        assert db.reduce_columns("counts", b"cnt:1:", page_size=page_size) == columns
    with pytest.raises(ValueError):
        db.reduce_columns("stats", b"cnt:")


def test_totals(filled):
    rows, columns = filled.totals(by_count=True, limit=20), filled.totals_columns(by_count=True, limit=20)
    assert list(zip(columns.tokens, columns.counts, columns.contexts)) == rows and len(columns) == 20


def test_asyncio_has_them_too(filled):
    async def main():
        async with AsyncClient(filled.url, database=filled.database, retry=QUICK) as far:
            assert await far.pairs_columns(b"v:", values=True) == filled.pairs_columns(b"v:", values=True)
            assert await far.reduce_columns("topk", b"topk:") == filled.reduce_columns("topk", b"topk:")
            assert (await far.totals_columns()) == filled.totals_columns()

    asyncio.run(main())


def test_to_numpy(filled, numpy):
    columns = filled.pairs_columns(b"v:0", values=True)
    arrays = columns.to_numpy()
    assert arrays["keys"].dtype == numpy.uint64 and list(arrays["keys"]) == list(columns.keys) and list(arrays["pairs"]) == columns.pairs
    matrix = columns.matrix("<u4")
    assert matrix.shape == (500, 1) and matrix[300, 0] == 300
    with pytest.raises(ValueError):
        filled.pairs_columns(b"v:", values=True).matrix("u1")  # the dangling one
    with pytest.raises(ValueError):
        filled.pairs_columns(b"v:").matrix("u1")
    counts = filled.reduce_columns("counts", b"cnt:2:")
    arrays = counts.to_numpy()
    assert arrays["counts"].dtype == numpy.uint32 and arrays["orders"].dtype == numpy.uint8 and "q" not in arrays
    sums = numpy.add.reduceat(arrays["counts"], arrays["offsets"][:-1].astype(numpy.int64))
    assert [int(n) for n in sums] == [sum(n for _, n in row.record.followers) for row in filled.counts(b"cnt:2:")]
    assert not arrays["tokens"].flags.writeable and counts.mode == "counts"
    assert filled.pairs_columns(b"nothing:", values=True).to_numpy()["keys"].shape == (0,)


def test_columns_are_several_times_as_fast_as_rows(db):
    with db.batch() as batch:
        for i in range(20_000):
            batch.pair_put(b"cnt:3:%08d" % i, payloads.encode_counts(3, [(i, 1), (i + 1, 2)]))

    def cost(call):
        begun = time.process_time()
        call()
        return time.process_time() - begun

    rows = min(cost(lambda: list(db.counts(b"cnt:3:"))) for _ in range(3))
    columns = min(cost(lambda: db.reduce_columns("counts", b"cnt:3:")) for _ in range(3))
    assert columns < rows / 2, (columns, rows)  # it is a fifth or less


def test_what_a_stream_says_of_itself():
    end = b'{"end":{"count":0}}\n'
    for body, error in [(b"<html>\n", ProtocolError), (b'{"error":{"status":500,"code":"corrupt_value","title":"t"}}\n', CheetahError), (b"", CheetahError),
                        (b'{"pair":"YQ==","key":7,"error":"corrupt_value"}\n' + end, DamagedValue)]:  # fmt: skip
        with Script(say(ok(body))) as server:
            with Client(server.url, retry=QUICK._replace(attempts=0)) as client, pytest.raises(error) as caught:
                client.pairs_columns(b"a", values=True)
            assert caught.value.server in server.url


def test_pieces_by_themselves():
    assert pair_columns([], True, True).values == [] and len(record_columns("counts", [])) == 0
    with pytest.raises(DamagedValue):
        from cheetah_http.columns import checked

        checked([{"key": 1, "error": "key_not_found"}, {"key": 2, "error": "corrupt_value"}])


# ---- numpy and arrays as input


def test_arrays_are_taken_as_lists_are(db, numpy):
    documents = numpy.array([[2, 5, 6, 3], [2, 6, 5, 3]], dtype=numpy.uint32)
    counted = db.on(db.database).ingest(documents, order=2)
    assert (counted.documents, counted.tokens, counted.ngrams) == (2, 8, 14)
    assert db.ngrams([array.array("I", [2, 5, 3]), (2, 6, 3), [numpy.int64(2), 3]], order=2).documents == 3
    db.smooth()
    assert db.predict(documents[0][:2]) == db.predict([2, 5]) and db.score(documents[0]) == db.score([2, 5, 6, 3])
    key = db.insert(numpy.arange(4, dtype=">u2"))
    assert db.read(numpy.int64(key)) == bytes([0, 0, 0, 1, 0, 2, 0, 3])
    db.pair_put(b"a", array.array("B", [1, 2]))
    db.edit(key, documents[:, ::2])  # not in one piece
    assert db.pair_value(b"a") == b"\1\2" and len(db.read(key)) == 16
    keys = numpy.array([key, 4711], dtype=numpy.uint64)
    assert [row.value is None for row in db.read_many(keys)] == [False, True]
    db.counts_add(b"c", 2, numpy.array([[7, 2], [8, 1]]))
    assert payloads.decode_counts(db.pair_value(b"c")).followers == [(7, 2), (8, 1)]
    for wrong in (lambda: db.read(True), lambda: db.read(1.5), lambda: db.read("1"), lambda: db.insert("text"), lambda: db.insert([1, 2]),
                  lambda: db.insert(numpy.zeros(0)), lambda: db.predict([1.5, object()])):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            wrong()


# ---- work is done when it is asked for


def test_ingest_counts_when_it_is_called(db):
    documents, seen = [[2, i + 4, 3] for i in range(100)], []
    counted = db.ingest(iter(documents), order=2, request_bytes=200, progress=seen.append)
    assert (counted.documents, counted.tokens, counted.ngrams) == (100, 300, 500) and db.totals(b"cnt:1:", limit=1) == [(2, 100, 1)]
    assert len(seen) > 5 and seen[-1] == counted and [one.documents for one in seen] == sorted({one.documents for one in seen})
    assert db.ingest([])[:4] == (0, 0, 0, 0)
    parts = db.ingest_parts([[2, 4, 3]], order=2)
    assert db.totals(b"cnt:1:", limit=1) == [(2, 100, 1)]  # nothing yet
    assert [part.documents for part in parts] == [1] and db.totals(b"cnt:1:", limit=1) == [(2, 101, 1)]


def test_an_error_of_ingest_says_what_was_counted(db):
    documents = [[2, i + 4, 3] for i in range(50)] + [[2, -1, 3]]
    with pytest.raises(CheetahError) as caught:
        db.ingest(documents, order=2, request_bytes=300)
    assert 0 < caught.value.counted.documents < 50
    assert db.totals(b"cnt:1:", limit=1) == [(2, caught.value.counted.documents, 1)]


def test_queue_drain_takes_when_it_is_called(db):
    with db.batch() as batch:
        for i in range(10):
            batch.pair_put(b"q:%d" % i, b"job %d" % i)
    taken = db.queue_drain(b"q:", limit=4)
    assert db.count(b"q:") == 6 and [row.payload for row in taken] == [b"job 0", b"job 1", b"job 2", b"job 3"]
    rows = db.queue_drain_rows(b"q:")
    assert db.count(b"q:") == 6 and [row.pair for row in rows] == [b"q:%d" % i for i in range(4, 10)] and db.count(b"q:") == 0


def test_clients_over_https_and_others_share_the_columns(server):
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=url_of(server)) as http:
        assert len(Client(http=http).on("default").pairs_columns(b"nothing")) == 0
