"""Lost connections, refused requests and what is sent again: a proxy cuts where the tests say."""
import json
import random
import time

import pytest
from conftest import QUICK

from cheetah_http import APIError, Client, ConnectionLost, NotFound, ProtocolError, Retry, StreamCut, TooLarge, Unavailable
from cheetah_http.payloads import encode_continuation


def problem(status, code, headers=b"", reason=b"Service Unavailable"):
    body = json.dumps({"type": "about:blank", "title": "T", "status": status, "code": code, "detail": "said by the test"}).encode()
    return b"HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n%s\r\n%s" % (
        status, reason, len(body), headers, body)  # fmt: skip


def stream(*lines):
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nX-Request-Id: abc\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body), body)  # fmt: skip


def first(action, times=1):
    """A plan: the action for the first requests, then none."""
    return lambda number, head: action if number < times else None


@pytest.fixture
def filled(db):
    names = [b"n:%05d" % i for i in range(4000)]
    with db.batch() as batch:
        for name in names:
            batch.pair_put(name, b"value of " + name)
    return names


# ---- scans go on


def test_a_scan_goes_on_where_it_was_cut(filled, far, proxy):
    rng = random.Random(1)
    proxy.plan = lambda number, head: ("cut", rng.randrange(0, 60_000)) if rng.random() < 0.6 else None
    found = list(far.pairs(b"n:", values=True, page_size=1500))
    assert [row.pair for row in found] == filled
    assert all(row.value == b"value of " + row.pair for row in found)
    assert proxy.cuts > 2
    proxy.requests.clear()
    assert [row.pair for row in far.pairs(b"n:", reverse=True, limit=3210, page_size=900)] == filled[:-3211:-1]


def test_a_reducer_goes_on_where_it_was_cut(filled, far, proxy):
    rng = random.Random(2)
    proxy.plan = lambda number, head: ("cut", rng.randrange(2000, 90_000)) if number % 2 == 0 else None
    found = list(far.payloads(b"n:", page_size=2500))
    assert [row.pair for row in found] == filled and proxy.cuts > 1


def test_continuations_go_on_after_the_pair(db, far, proxy):
    """Their lines have a token as well as a pair."""
    db.upsert((b"cont:" + token.to_bytes(4, "big"), encode_continuation(token, 1)) for token in range(1, 400))
    proxy.plan = first(("cut", 6000))
    assert [row.record.token for row in far.continuations()] == list(range(1, 400)) and proxy.cuts == 1


def test_a_sweep_of_values_goes_on_where_it_was_cut(filled, far, proxy, db):
    keys = [row.key for row in db.values()]
    proxy.plan = lambda number, head: ("cut", 30_000) if number % 2 == 0 else None
    assert [row.key for row in far.values(page_size=1000)] == keys and proxy.cuts > 2


def test_a_scan_that_is_always_cut_at_once_ends_in_an_error(filled, far, proxy):
    proxy.plan = lambda number, head: ("cut", 100)  # within the head of the answer
    far._retry = Retry(attempts=3, first=0.001)
    with pytest.raises(ConnectionLost):
        list(far.pairs(b"n:", page_size=100, values=True))


def test_a_stream_without_its_end_line_is_an_error(far, proxy):
    far._retry = Retry(attempts=2, first=0.001)
    proxy.plan = lambda number, head: ("say", stream({"pair": "YQ==", "key": 1}))
    with pytest.raises(StreamCut) as caught:
        far.queue_drain(b"q:")
    assert caught.value.may_have_happened and len(proxy.requests) == 1
    assert [row.pair for row in caught.value.arrived] == [b"a"]
    proxy.requests.clear()
    proxy.plan = lambda number, head: ("say", stream())
    with pytest.raises(StreamCut):
        list(far.pairs())
    assert len(proxy.requests) == 3


def test_an_error_line_is_an_exception(far, proxy):
    line = {"error": {"type": "about:blank", "title": "Oh", "status": 500, "code": "corrupt_value", "detail": "shard 3"}}
    proxy.plan = lambda number, head: ("say", stream({"pair": "YQ==", "key": 1}, line))
    rows = far.pairs()
    assert next(rows).pair == b"a"
    with pytest.raises(APIError) as caught:
        next(rows)
    error = caught.value
    assert (error.code, error.status, error.detail, error.request_id) == ("corrupt_value", 500, "shard 3", "abc")
    for call in (lambda: far.stats(), lambda: far.smooth(), lambda: far.contexts([1])):
        with pytest.raises(APIError):
            call()


def test_aggregates_that_say_how_far_they_are(far, proxy):
    """One that takes more than half a second does, before its lines."""
    steps = [{"progress": {"phase": "x", "done": n, "total": 5}} for n in range(3)]
    end = {"end": {"count": 1, "next": None, "malformed": 0}}
    lines = {"stats": {"pairs": 1, "dangling": 0, "bytes": 7, "min": 7, "max": 7, "mean": 7.0}, "totals": {"token": 5, "count": 2, "contexts": 1},
             "similar": {"pair": "YQ==", "key": 1, "score": 0.5},
             "counts-of-counts": {"contexts": 1, "types": 1, "n1": 1, "n2": 0, "n3": 0, "n4": 0, "d1": 0.5, "d2": 1.0, "d3": 1.5}}  # fmt: skip
    proxy.plan = lambda number, head: ("say", stream(*steps, lines[head.split(b"/reduce/")[1].split(b"/")[0].decode()], end))
    assert far.stats().bytes == 7 and [total.token for total in far.totals()] == [5]
    assert [near.pair for near in far.similar(b"cnt:", b"b")] == [b"a"] and far.counts_of_counts(b"cnt:").d3 == 1.5


def test_what_is_no_stream(far, proxy):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n<html>hello\n\n\n"
    proxy.plan = lambda number, head: ("say", answer)
    for call in (lambda: list(far.pairs()), lambda: far.stats(), lambda: far.predict([1]), lambda: far.insert(b"x")):
        with pytest.raises(ProtocolError):
            call()


# ---- sent again, or not


@pytest.mark.parametrize("action", [("lose",), ("cut", 30)])
def test_no_insert_is_sent_twice(db, far, proxy, action):
    proxy.plan = lambda number, head: action
    for call, path in (
        (lambda: far.insert(b"once"), "/kv"),
        (lambda: far.ngrams([[2, 4, 3]]), "/ngrams"),
    ):
        before = len(proxy.requests)
        with pytest.raises(ConnectionLost) as caught:
            call()
        assert caught.value.may_have_happened
        assert len(proxy.requests) == before + 1 and proxy.counted("POST", path) == 1
    with pytest.raises(ConnectionLost):
        with far.batch() as batch:
            batch.pair_put(b"p", b"v")
            batch.insert(b"batched")
    assert proxy.counted("POST", "/batch") == 1
    proxy.plan = None
    assert [row.value for row in db.values()].count(b"once") == 1  # it did happen
    assert [row.value for row in db.values()].count(b"batched") == 1
    assert db.totals(b"cnt:1:")[0] == (2, 1, 1)


def test_counting_with_an_identifier_is_sent_again(db, far, proxy):
    proxy.plan = first(("lose",), 2)
    counted = far.ngrams([[2, 4, 3]], once="document-1")
    assert counted.repeated and counted.documents == 1 and proxy.counted("POST", "/ngrams") == 3
    proxy.plan = None
    assert not far.ngrams([[2, 4, 3]], once="document-2").repeated
    assert db.totals(b"cnt:1:")[0] == (2, 2, 1)


def test_no_queue_is_drained_twice(db, far, proxy):
    with db.batch() as batch:
        for i in range(100):
            batch.pair_put(b"q:%03d" % i, b"j")
    proxy.plan = lambda number, head: ("lose",)
    with pytest.raises(ConnectionLost):
        far.queue_drain(b"q:", limit=10)
    assert len(proxy.requests) == 1 and db.count(b"q:") == 90


def test_what_may_be_repeated_is_sent_again(db, far, proxy):
    key = db.insert(b"v")
    documents = [[2, 4, 5, 3], [2, 5, 4, 3]]
    db.ngrams(documents)

    def batch():
        with far.batch() as batch:
            batch.pair_put(b"b", b"1")
            return batch.pair_get(b"p")

    for number, call in enumerate((
        lambda: far.read(key), lambda: far.edit(key, b"w"), lambda: far.pair_set(b"p", key), lambda: far.pair_put(b"q", b"v"),
        lambda: list(far.read_many([key])), lambda: far.count(), lambda: far.stats(), lambda: far.smooth(), batch,
        lambda: far.predict([2, 4]), lambda: far.predict_levels([2, 4]), lambda: far.score([2, 4, 5]),
        lambda: far.contexts([[2]]), lambda: far.databases(), lambda: far.create_database(db.database),
        lambda: far.checkpoint(), lambda: far.version(), lambda: far.pair_delete(b"q"), lambda: far.delete(key),
        lambda: far.delete_prefix(b"b"), lambda: list(far.queue_peek(b"q:")),
    )):  # fmt: skip
        for action in (("lose",), ("drop",)):
            if action == ("drop",) and number in (17, 18):
                continue  # deleted already
            proxy.requests.clear()
            proxy.plan = first(action, 2)
            call()
            assert len(proxy.requests) == 3, (number, action)


def test_a_delete_that_worked_before_the_connection_was_lost_has_worked(db, far, proxy):
    key = db.insert(b"x")
    proxy.plan = first(("lose",))
    far.delete(key)
    with pytest.raises(NotFound):
        far.delete(key)


def test_a_delete_that_may_have_worked_before_a_503(db, far, proxy):
    key = db.insert(b"x")

    def plan(number, head):
        if number == 0:
            db.delete(key)
            return ("say", problem(503, "timeout", b"Retry-After: 0\r\n"))

    proxy.plan = plan
    far.delete(key)
    proxy.requests.clear()
    proxy.plan = first(("say", problem(503, "overloaded", b"Retry-After: 0\r\n")))
    with pytest.raises(NotFound):  # it was turned away, so another one deleted it
        far.delete(key)


def test_a_redirect_is_not_done(far, proxy):
    answer = b"HTTP/1.1 307 Elsewhere\r\nLocation: https://elsewhere/\r\nContent-Length: 4\r\n\r\nhtml"
    proxy.plan = lambda number, head: ("say", answer)
    for call in (lambda: far.delete(1), lambda: far.edit(1, b"x"), lambda: far.pair_value(b"a"), lambda: far.pair_set(b"a", 1),
                 lambda: list(far.pairs()), lambda: far.drop_database("elsewhere"), far.pairs_columns):  # fmt: skip
        proxy.requests.clear()
        with pytest.raises(ProtocolError, match="307, go to 'https://elsewhere/'"):
            call()
        assert len(proxy.requests) == 1


def test_an_answer_of_something_else(far, proxy):
    """JSON, but none of cheetah-db; and members that a later server may add."""
    def said(body):
        return lambda number, head: ("say", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    for body in (b"{}", b"[]", b"null", b"[" * 100_000, b'{"end":1}\n', b'{"error":{"status":"x"}}\n', b'{"pair":"!","key":1}\n{"end":{"next":null}}\n'):
        proxy.plan = said(body)
        for call in (lambda: far.insert(b"x"), lambda: far.pair_put(b"a", b"b"), far.count, lambda: far.ngrams([[1, 2]]), lambda: far.predict([1]),
                     lambda: far.add(b"a"), far.stats):  # fmt: skip
            with pytest.raises((ProtocolError, ConnectionLost)):
                call()
        if len(body) > 4:
            with pytest.raises((ProtocolError, ConnectionLost)):
                list(far.pairs())
    proxy.plan = said(b'{"documents":1,"tokens":2,"ngrams":3,"contexts_created":0,"new":[1]}')
    assert far.ngrams([[1, 2]]).ngrams == 3


def test_an_insert_that_was_not_sent_is_sent_later(db):
    """Nobody listens at first: the connection is refused, which is safe to repeat even for an insert."""
    import socket
    import threading

    from proxy import Proxy

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started = []

    def later():
        late = Proxy.__new__(Proxy)
        original = socket.create_server
        late.__init__(int(db.url.rpartition(":")[2]))
        late.listener.close()
        late.listener = original(("127.0.0.1", port))
        threading.Thread(target=late._accept, daemon=True).start()
        started.append(late)

    timer = threading.Timer(0.3, later)
    timer.start()
    with Client("http://127.0.0.1:%d" % port, database=db.database, retry=Retry(attempts=100, first=0.05, factor=1)) as client:
        key = client.insert(b"patient")
    assert db.read(key) == b"patient" and len(list(db.values())) == 1
    timer.join()
    started[0].__exit__()


def test_a_request_that_the_server_did_not_want_to_read(launch):
    server = launch("--max-value-size", "1000", "--durability", "os")
    with Client("http://127.0.0.1:%d" % server.port, retry=Retry(attempts=1, first=0.01)) as client:
        with pytest.raises((ConnectionLost, TooLarge)) as caught:
            client.insert(bytes(64 << 20))
        if isinstance(caught.value, ConnectionLost):
            assert caught.value.may_have_happened is False and "larger" in str(caught.value)
        assert list(client.values()) == []


def test_large_lines(db):
    value = random.Random(1).randbytes(12 << 20)
    db.pair_put(b"large", value)
    start = time.process_time()
    assert [row.value for row in db.pairs(values=True)] == [value]
    assert time.process_time() - start < 10


def test_a_url_needs_a_scheme():
    with pytest.raises(ValueError):
        Client("127.0.0.1:8080")


def test_nobody_there():
    with Client("http://127.0.0.1:1", retry=Retry(attempts=2, first=0.01)) as client:
        with pytest.raises(ConnectionLost) as caught:
            client.insert(b"x")
        assert caught.value.may_have_happened is False
        assert client.ready() is False


def test_503_is_waited_out(db, far, proxy, monkeypatch):
    sleep, slept = time.sleep, []
    monkeypatch.setattr("cheetah_http._sync.transport.time.sleep", lambda seconds: (slept.append(seconds), sleep(seconds)))
    proxy.plan = first(("say", problem(503, "overloaded", b"Retry-After: 1\r\n")))
    start = time.monotonic()
    key = far.insert(b"welcome in the end")
    assert time.monotonic() - start >= 1.0 and [1.0 <= seconds < 2.0 for seconds in slept] == [True], slept
    assert db.read(key) == b"welcome in the end" and len(proxy.requests) == 2
    for code in ("overloaded", "starting", "draining"):
        proxy.requests.clear()
        proxy.plan = first(("say", problem(503, code, b"Retry-After: 0\r\n")), 3)
        assert far.queue_drain(b"q:") == [] and len(proxy.requests) == 4
        with far.batch() as batch:
            batch.insert(b"x")


def test_503_that_may_have_happened_is_not_repeated(far, proxy):
    proxy.plan = lambda number, head: ("say", problem(503, "read_only"))
    with pytest.raises(Unavailable) as caught:
        far.insert(b"x")
    assert caught.value.code == "read_only" and len(proxy.requests) == 1
    proxy.plan = lambda number, head: ("say", b"HTTP/1.1 503 Nope\r\nContent-Length: 6\r\n\r\n<html>")
    with pytest.raises(Unavailable) as caught:
        far.insert(b"x")
    assert caught.value.code == "unknown" and caught.value.detail == "<html>" and len(proxy.requests) == 2
    proxy.requests.clear()
    far._retry = QUICK._replace(attempts=3)
    with pytest.raises(Unavailable):
        far.count()
    assert len(proxy.requests) == 4  # a read is worth another try


def test_other_errors_are_not_repeated(far, proxy):
    for status, code in ((400, "invalid_key"), (404, "key_not_found"), (500, "io_error"), (507, "disk_full")):
        proxy.requests.clear()
        proxy.plan = lambda number, head, s=status, c=code: ("say", problem(s, c))
        with pytest.raises(APIError) as caught:
            far.read(1)
        assert (caught.value.status, caught.value.code) == (status, code) and len(proxy.requests) == 1


def test_a_batch_keeps_what_was_surely_not_done(db, far, proxy):
    far._retry = QUICK._replace(attempts=1)
    batch = far.batch()
    operation = batch.insert(b"kept")
    proxy.plan = lambda number, head: ("say", problem(503, "overloaded", b"Retry-After: 0\r\n"))
    with pytest.raises(Unavailable):
        batch.flush()
    assert len(batch) == 1
    proxy.plan = None
    batch.flush()
    assert db.read(operation.result().key) == b"kept"
    batch.insert(b"perhaps")
    proxy.plan = lambda number, head: ("lose",)
    with pytest.raises(ConnectionLost):
        batch.flush()
    assert len(batch) == 0  # sending it again could insert it twice
    assert [row.value for row in db.values()] == [b"kept", b"perhaps"]


def test_the_server_itself_is_overloaded(launch):
    """No test double: one stream too many, and the client waits until it is over."""
    import threading

    import harness

    server = launch("--max-streams", "1", "--durability", "os", "--access-log", "false")
    with Client("http://127.0.0.1:%d" % server.port, retry=Retry(attempts=50)) as client:
        with client.batch() as batch:
            for i in range(9000):
                batch.pair_put(b"%05d" % i, b"x" * 1000)
        raw = server.raw(receive_buffer=4096)  # a reader that does not read keeps its stream
        raw.send("GET /pairs/*?values=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        raw.head()
        refused = server.client(check=False)
        harness.wait_for(lambda: refused.get("/pairs/*", limit="1").status == 503, what="the stream to be there")
        threading.Timer(0.5, raw.close).start()
        assert len(list(client.pairs())) == 9000


def test_pauses():
    retry = Retry(attempts=4, first=0.1, factor=2, longest=0.5)
    for attempt, most in enumerate((0.1, 0.2, 0.4, 0.5)):
        pauses = {retry.pause(attempt) for _ in range(200)}
        assert len(pauses) > 100 and most / 10 <= min(pauses) and max(pauses) <= most
    assert retry.pause(4) is None
    assert all(3 <= retry.pause(0, 3.0) <= 3.1 for _ in range(100))
    assert retry.pause(0, 3600.0) is None
    assert Retry(attempts=10_000).pause(9_999) <= 5
