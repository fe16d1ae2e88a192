"""new_values(): each value that was inserted once, whatever order keys are given out in."""
import asyncio
import json

from conftest import url_of

from cheetah_http import AsyncClient


def test_each_once(db):
    cursor, got, want = [], [], {}
    for i in range(30):
        want[db.pair_put(b"name %d" % i, b"u%d" % i).key] = b"u%d" % i
        if i % 2:
            new = db.new_values(json.loads(json.dumps(cursor)))
            got, cursor = got + new.values, new.cursor
        want[db.insert(b"i%d" % i)] = b"i%d" % i
    got += db.new_values(cursor).values
    assert len(got) == len(want) == 60 and {value.key: value.value for value in got} == want


def test_without_payloads_and_what_is_gone(db):
    key = db.insert(b"value")
    new = db.new_values(payloads=False)
    assert [tuple(value) for value in new.values] == [(key, 5, None)]
    db.edit(key, b"changed")
    gone = db.insert(b"gone")
    db.delete(gone)
    assert db.new_values(new.cursor).values == []


def test_asyncio(server, db):
    async def run():
        async with AsyncClient(url_of(server), database=db.database) as client:
            await client.insert(b"value")
            first = await client.new_values()
            return [value.value for value in first.values], (await client.new_values(first.cursor)).values

    assert asyncio.run(run()) == ([b"value"], [])
