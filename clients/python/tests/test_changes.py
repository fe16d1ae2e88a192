"""changes(): a mirror, lost connections, an end of what can be told."""
import asyncio
import math
import threading

import pytest
from conftest import url_of

from cheetah_http import AsyncClient, Change, Client, Gone


def test_in_order(db):
    after = db.changes_now()
    key = db.pair_put(b"a:1", b"x").key
    db.pair_put(b"b:1", b"x")
    db.pair_delete(b"a:1")
    db.delete_prefix(b"a:")
    assert list(db.changes(b"a:", after=after)) == [
        Change(after + 1, b"a:1", key), Change(after + 3, b"a:1", None, True), Change(after + 4, b"a:", None, True, True)]  # fmt: skip
    assert list(db.changes(b"a:", after=after + 4)) == []
    (told,) = db.changes(b"a:", after=after + 4, progress=True)
    assert told.nothing_until and told.seq == after + 4
    assert list(db.changes()) == []


def test_text_is_the_same(server, db):
    after = db.changes_now()
    db.pair_put("gruß".encode(), b"x")
    db.pair_put(b"\xff", b"x")
    with Client(url_of(server), database=db.database, text=True) as other:
        assert [change.pair for change in other.changes(after=after)] == ["gruß".encode(), b"\xff"]


def test_while_it_happens(server, db):
    after = db.changes_now()
    got = []

    def follow():
        with Client(url_of(server), database=db.database) as other:
            for change in other.changes(b"n", after=after, wait=60):
                got.append(change.pair)
                if change.pair == b"n-last":
                    return

    thread = threading.Thread(target=follow)
    thread.start()
    for i in range(20):
        db.pair_put(b"n%d" % i, b"x")
        db.pair_put(b"m%d" % i, b"x")
    db.pair_put(b"n-last", b"x")
    thread.join(60)
    assert got == [b"n%d" % i for i in range(20)] + [b"n-last"]


def test_for_ever(db):
    after = db.changes_now()
    db.pair_put(b"n", b"x")
    assert next(db.changes(after=after, wait=math.inf)).pair == b"n"


def test_gone(db):
    after = db.changes_now()
    with pytest.raises(Gone) as gone:
        list(db.changes(after=1))
    assert gone.value.status == 410 and gone.value.oldest <= after


def test_asyncio(server, db):
    async def run():
        async with AsyncClient(url_of(server), database=db.database) as client:
            after = await client.changes_now()
            await client.pair_put(b"a", b"x")
            return [change.pair async for change in client.changes(after=after, wait=0.5)]

    assert asyncio.run(run()) == [b"a"]


def test_a_lost_connection_goes_on(far, proxy, db):
    after = db.changes_now()
    names = [b"name %d" % i for i in range(60)]
    for name in names:
        db.pair_put(name, b"x")
    proxy.plan = lambda number, head: ("cut", 1500) if b"/changes/" in head and number < 3 else None
    assert [change.pair for change in far.changes(after=after)] == names
    assert proxy.counted("GET", "/changes/") == 4


def test_a_cluster_that_was_silent_for_a_while(far, proxy, db):
    """What the server ends since its own store does not answer in time goes on, too."""
    after = db.changes_now()
    db.pair_put(b"a", b"x")
    line = b'{"error":{"type":"about:blank","title":"Service Unavailable","status":503,"code":"timeout","detail":"object s.1"}}\n'
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n" % len(line) + line
    seen = []

    def plan(_, head):
        seen.append(head)
        return ("say", answer) if len(seen) < 3 else None

    proxy.plan = plan
    assert [change.pair for change in far.changes(after=after)] == [b"a"]
    assert len(seen) == 3
