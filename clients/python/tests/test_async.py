"""AsyncClient: the same against the real server; the sync client is made from it by unasync.py."""
import asyncio
import inspect
import os
import random
import subprocess
import sys

import pytest
from conftest import PACKAGE, QUICK, url_of
from test_lost import first, problem, stream

from cheetah_http import (
    AsyncBatch, AsyncClient, BatchError, BatchFailed, Batch, Client, ConnectionLost, NotFound, StreamCut, TooLarge,
)  # fmt: skip


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_the_sync_client_is_made_from_this_one():
    result = subprocess.run([sys.executable, os.path.join(PACKAGE, "unasync.py"), "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_both_have_the_same_methods():
    for one, other in ((AsyncClient, Client), (AsyncBatch, Batch)):
        names = {n for n in dir(other) if not n.startswith("_")} - {"close"}
        assert names == {n for n in dir(one) if not n.startswith("_")} - {"aclose"}
        for n in names:
            a, b = getattr(one, n), getattr(other, n)
            if callable(a):
                assert list(inspect.signature(a).parameters) == list(inspect.signature(b).parameters), n
                assert a.__doc__ == b.__doc__ and (a.__doc__ or one is AsyncBatch or n), n


def test_calls(db):
    async def main():
        async with AsyncClient(db.url, database=db.database, retry=QUICK) as far:
            key = await far.insert(b"hello")
            assert await far.read(key) == b"hello"
            await far.edit(key, b"other")
            assert await far.get(key) == b"other"
            assert await far.pair_set(b"p", key) and await far.pair_get(b"p") == key
            assert (await far.pair_put(b"q", b"v")).created and await far.pair_value(b"q") == b"v"
            await far.delete(key)
            with pytest.raises(NotFound):
                await far.read(key)
            assert [row.value async for row in far.read_many([key, 2])] == [None, b"v"] or await far.count() == 2
            async with far.batch(max_operations=7) as batch:
                made = [await batch.pair_put(b"n:%03d" % i, b"v%d" % i) for i in range(50)]
            assert all(operation.done for operation in made)
            names = [b"n:%03d" % i for i in range(50)]
            assert [row.pair async for row in far.pairs(b"n:", page_size=7)] == names
            assert [row.pair async for row in far.pairs(b"n:", reverse=True, limit=20, page_size=7)] == names[:29:-1]
            assert [row.payload async for row in far.payloads(b"n:", limit=2)] == [b"v0", b"v1"]
            assert [row.pair for row in await far.queue_drain(b"n:", limit=10)] == names[:10]
            assert len([row async for row in far.values(page_size=9)]) == 41
            with pytest.raises(BatchError):
                async with far.batch() as batch:
                    await batch.delete(9999)
            with pytest.raises(BatchFailed):
                async with far.batch(atomic=True) as batch:
                    await batch.delete(9999)
            await far.pair_delete(b"p")
            assert (await far.delete_prefix(b"n:", values=True)).pairs == 40
            assert await far.ready() and await far.version() and db.database in await far.databases()
            assert (await far.stats()).pairs == 1 and (await far.metrics())
            assert (await far.database_statistics())["name"] == db.database

    run(main())


def test_model(db):
    async def main():
        async with AsyncClient(db.url, database=db.database, retry=QUICK) as far:
            rng = random.Random(1)
            documents = [[2] + [rng.randrange(4, 20) for _ in range(20)] + [3] for _ in range(30)]
            parts = [part async for part in far.ingest_parts(documents, request_bytes=500)]
            assert len(parts) > 2 and sum(part.documents for part in parts) == 30
            steps = []
            assert [result.order for result in await far.smooth(progress=steps.append)] == [1, 2, 3] and steps
            assert await far.predict(documents[0][:5]) == db.predict(documents[0][:5])
            assert await far.predict_levels([2]) == db.predict_levels([2])
            assert await far.score(documents[1]) == db.score(documents[1])
            assert await far.contexts([[4]]) == db.contexts([[4]])
            assert await far.totals() == db.totals() and await far.counts_of_counts(b"cnt:2:") == db.counts_of_counts(b"cnt:2:")
            target = db.counts(b"cnt:2:")
            pair = next(target).pair
            assert await far.similar(b"cnt:2:", pair) == db.similar(b"cnt:2:", pair)
            assert (await far.find_links(b"cnt:2:", metric="jaccard")).links == sum([len(x.links) async for x in far.links(b"cnt:2:", metric="jaccard")])

    run(main())


def test_ingest_halves_what_is_too_large_for_the_server(launch):
    rng = random.Random(3)
    documents = [[rng.getrandbits(32) for _ in range(50)] for _ in range(500)]
    server = launch("--request-memory-bytes", "4M", "--durability", "os", "--shards", "1")

    async def main():
        async with AsyncClient(url_of(server), retry=QUICK) as far:
            with pytest.raises(TooLarge):
                await far.ngrams(documents)
            parts = [part async for part in far.ingest_parts(documents)]
            assert len(parts) > 2 and sum(part.documents for part in parts) == 500
            assert {t.token: t.count for t in await far.totals(b"cnt:1:")} == {t: 1 for document in documents for t in document}

    run(main())


def test_many_at_once(db):
    async def main():
        async with AsyncClient(db.url, database=db.database, retry=QUICK) as far:
            keys = await asyncio.gather(*(far.insert(b"%d" % i) for i in range(200)))
            assert sorted(keys) == list(range(1, 201))
            values = await asyncio.gather(*(far.read(key) for key in keys))
            assert values == [b"%d" % i for i in range(200)]

    run(main())


def test_lost_connections(db, proxy):
    names = [b"n:%05d" % i for i in range(3000)]
    with db.batch() as batch:
        for name in names:
            batch.pair_put(name, name)
    rng = random.Random(6)

    async def main():
        async with AsyncClient(proxy.url, database=db.database, retry=QUICK) as far:
            proxy.plan = lambda number, head: ("cut", rng.randrange(0, 50_000)) if rng.random() < 0.6 else None
            assert [row.pair async for row in far.pairs(b"n:", page_size=1000)] == names and proxy.cuts
            proxy.plan = lambda number, head: ("lose",)
            proxy.requests.clear()
            with pytest.raises(ConnectionLost) as caught:
                await far.insert(b"once")
            assert caught.value.may_have_happened and len(proxy.requests) == 1
            proxy.requests.clear()
            proxy.plan = first(("say", problem(503, "overloaded", b"Retry-After: 0\r\n")), 3)
            await far.insert(b"twice?")
            assert len(proxy.requests) == 4
            proxy.plan = lambda number, head: ("say", stream({"pair": "YQ==", "key": 1}))
            with pytest.raises(StreamCut):
                await far.queue_drain(b"q:")

    run(main())
    values = [row.value for row in db.values()]
    assert values.count(b"once") == values.count(b"twice?") == 1


def test_a_scan_left_early_gives_its_connection_back(db):
    with db.batch() as batch:
        for i in range(3000):
            batch.pair_put(b"%05d" % i, b"x" * 100)

    async def main():
        async with AsyncClient(db.url, database=db.database, retry=QUICK) as far:
            for _ in range(150):  # more than the pool has connections
                rows = far.pairs(values=True)
                assert (await rows.__anext__()).pair == b"00000"
                await rows.aclose()
            assert await far.count() == 3000

    run(main())
