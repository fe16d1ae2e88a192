"""A damaged value is raised, and never shown as one that is missing."""
import harness
import pytest
from conftest import url_of

from cheetah_http import APIError, Client, DamagedValue


@pytest.fixture(scope="module")
def rotten():
    server = harness.Server("--durability", "os", "--shards", "1", "--access-log", "false", "--scrub-bytes-per-second", "0")
    with Client(url_of(server)) as db:
        keys = [db.pair_put(b"n:%d" % i, b"<value %d>" % i).key for i in range(5)]
        db.checkpoint()
    server.stop()
    harness.damage(server.data, b"<value 2>")
    server.restart()
    with Client(url_of(server)) as db:
        yield db, keys
    server.finish()


@pytest.mark.parametrize("call", [
    lambda db, keys: db.pairs(b"n:", values=True),
    lambda db, keys: db.values(),
    lambda db, keys: db.read_many(keys),
    lambda db, keys: db.payloads(b"n:"),
    lambda db, keys: db.reduce("counts", b"n:"),
    lambda db, keys: db.reduce("counts", b"n:", decode=False),
    lambda db, keys: db.queue_peek(b"n:"),
], ids=["pairs", "values", "read_many", "payloads", "decoded", "not decoded", "queue_peek"])
def test_streams_raise_it_and_can_go_on(rotten, call):
    db, keys = rotten
    rows, got = call(db, keys), []
    with pytest.raises(DamagedValue) as caught:
        for row in rows:
            got.append(row.key)
    assert got == keys[:2], "what comes before it was shown"
    error = caught.value
    assert error.code == "corrupt_value" and error.status == 500 and error.key == keys[2] and isinstance(error, APIError)
    assert error.pair in (b"n:2", None) and str(keys[2]) in error.detail


def test_going_on_behind_it(rotten):
    db, keys = rotten
    assert [row.value for row in db.pairs(b"n:", values=True, after=b"n:2")] == [b"<value 3>", b"<value 4>"]
    assert [row.key for row in db.values(after=keys[2])] == keys[3:]
    assert [row.pair for row in db.pairs(b"n:")] == [b"n:%d" % i for i in range(5)], "names are whole"


def test_point_reads(rotten):
    db, keys = rotten
    for call in (lambda: db.read(keys[2]), lambda: db.get(keys[2]), lambda: db.pair_value(b"n:2"), lambda: db.pair(b"n:2")):
        with pytest.raises(APIError) as caught:
            call()
        assert caught.value.code == "corrupt_value"
