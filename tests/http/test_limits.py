"""Limits of bodies, headers, time, connections and streams."""
import itertools
import socket
import time

import pytest
from harness import HANG, Raw, hexed, wait_for

OS = ("--durability", "os", "--shards", "1")


@pytest.fixture(scope="module")
def small():
    import harness
    server = harness.Server("--max-value-size", "1000", "--max-batch-bytes", "5000", *OS)
    yield server
    server.finish()


def post(target, length=None, *headers):
    lines = ["POST %s HTTP/1.1" % target, "Host: localhost", "Content-Type: text/plain"] + list(headers)
    if length is not None:
        lines.append("Content-Length: %d" % length)
    return "\r\n".join(lines) + "\r\n\r\n"


def test_value_limit_by_content_length(small):
    client = small.client()
    key = client.insert(bytes(1000))
    assert client.read(key) == bytes(1000)
    answer = client.post("/kv", bytes(1001), headers={"Content-Type": "text/plain"})
    assert answer.status == 413 and answer.code == "value_too_large"
    assert small.client().get("/healthz").status == 200


def test_value_limit_of_a_chunked_body(small):
    client = small.client()
    raw = {"Content-Type": "text/plain"}
    answer = client.post("/kv", iter([bytes(400), bytes(400), bytes(200)]), headers=raw, chunked=True)
    assert answer.status == 201 and client.read(answer.json()["key"]) == bytes(1000)
    answer = client.post("/kv", iter([bytes(400), bytes(400), bytes(201)]), headers=raw, chunked=True)
    assert answer.status == 413 and answer.code == "value_too_large"


def test_json_bodies_are_measured_by_their_value(small):
    import base64
    client = small.client()
    text = base64.b64encode(bytes(1000)).decode()
    assert client.post("/kv", json_body={"value": text}).json()["size"] == 1000
    answer = client.post("/kv", json_body={"value": base64.b64encode(bytes(1001)).decode()})
    assert answer.status == 413 and answer.code == "value_too_large"


def test_an_announced_body_that_is_too_large_is_refused_early(small):
    """The answer comes though the body never does."""
    for target, code in (("/kv", "value_too_large"), ("/batch", "batch_too_large")):
        with small.raw() as raw:
            raw.send(post(target, 1 << 40))
            answer = raw.answer()
            assert answer.status == 413 and answer.code == code


def test_an_endless_body_is_cut_off(small):
    with small.raw() as raw:
        raw.send(post("/kv", None, "Transfer-Encoding: chunked"))
        sent = 0
        try:
            while sent < 64 << 20:
                raw.send(b"10000\r\n" + bytes(65536) + b"\r\n")
                sent += 65536
        except (BrokenPipeError, ConnectionResetError, socket.timeout):
            pass
        assert sent < 64 << 20, "all was taken in"
    assert small.client().get("/healthz").status == 200


def test_no_body_where_none_belongs(small):
    client = small.client()
    assert client.get("/version", body=b"x" * 100).status in (200, 400, 413)
    assert small.client().get("/version").status == 200


@pytest.mark.parametrize("target", ["/kv", "/kv/1", "/pairs/a"])
def test_expect_100_continue(small, target):
    with small.raw() as raw:
        method = "POST" if target == "/kv" else "PUT"
        small.client().insert(b"there is a key 1")
        raw.send(post(target, 5, "Expect: 100-continue").replace("POST", method, 1))
        status, _ = raw.head()
        assert status == 100
        raw.send(b"hello")
        assert raw.answer().status in (200, 201)


def test_expect_100_continue_of_a_body_that_is_too_large(small):
    with small.raw() as raw:
        raw.send(post("/kv", 100000, "Expect: 100-continue"))
        status, _ = raw.head()
        assert status == 413, "refused before the body is asked for"


def test_expect_100_continue_with_a_wrong_method(small):
    with small.raw() as raw:
        raw.send(post("/version", 5, "Expect: 100-continue"))
        assert raw.answer().status == 405


@pytest.mark.parametrize("request_text,statuses", [
    (b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", (414,)),
    (b"GET /version HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"b" * 300000 + b"\r\n\r\n", (431,)),
    (b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(20000)) + b"\r\n", (431,)),
    (b"nonsense\r\n\r\n", (400,)), (b"GET\r\n\r\n", (400,)), (b"GET /version HTTP/9.9\r\nHost: localhost\r\n\r\n", (505,)),
    (b"GET /version HTTP/1.1\r\n\r\n", (400,)), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", (400,)),
    (b"POST /kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n", (400,)),
    (b"POST /kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", (400,)),
    (b"POST /kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n", (400,)),
    (b"POST /kv HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (400,))], ids=itertools.count())
def test_malformed_requests(small, request_text, statuses):
    """An error or a closed connection; the server goes on."""
    with small.raw() as raw:
        try:
            raw.send(request_text)
            status, _ = raw.head()
            assert status in statuses
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass
    assert small.client().get("/version").status == 200


def test_a_connection_closed_in_the_middle(small):
    before = small.client().get("/kv").end["count"]
    for cut in (b"", b"P", b"POST /kv HT", post("/kv", 100).encode()[:-1], post("/kv", 100).encode(), post("/kv", 100).encode() + b"half",
                post("/kv", None, "Transfer-Encoding: chunked").encode() + b"5\r\nhel"):
        for _ in range(5):
            with small.raw() as raw:
                raw.send(cut)
    assert small.client().get("/kv").end["count"] == before, "half a body was stored"


def test_slow_headers(launch):
    server = launch("--header-timeout", "1", "--body-timeout", "3600", "--idle-timeout", "3600", *OS)
    start = time.monotonic()
    with server.raw() as raw:
        raw.send(b"GET /version HTTP/1.1\r\nHost")
        assert raw.closed()
    assert 0.5 < time.monotonic() - start


def test_trickling_headers(launch):
    """The time is for all headers, not for the pause between two bytes."""
    server = launch("--header-timeout", "1", "--body-timeout", "3600", "--idle-timeout", "3600", *OS)
    with server.raw() as raw:
        raw.send(b"GET /version HTTP/1.1\r\nX-Slow: ")
        for _ in range(5 * HANG):
            try:
                raw.send(b"y")
            except (BrokenPipeError, ConnectionResetError):
                break
            if raw.closed(0.2):
                break
        else:
            raise AssertionError("it was listened to for minutes")


def test_slow_body(launch):
    server = launch("--body-timeout", "1", "--header-timeout", "3600", "--idle-timeout", "3600", *OS)
    for headers in ((100000,), (None, "Transfer-Encoding: chunked")):
        with server.raw() as raw:
            raw.send(post("/kv", *headers) + ("" if headers[0] else "ffff\r\n"))
            closed = False
            try:
                for _ in range(5 * HANG):
                    raw.send(b"x")
                    closed = raw.closed(0.2)
                    if closed:
                        break
            except (BrokenPipeError, ConnectionResetError):
                closed = True
            assert closed, "it was listened to for minutes"
            assert not raw.buffer or b" 408 " in raw.buffer or b" 400 " in raw.buffer
    assert server.client().get("/kv").entries() == []


def test_idle_connections(launch):
    server = launch("--idle-timeout", "1", "--header-timeout", "1", *OS)

    def asked():
        raw = server.raw()
        try:
            assert raw.send(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").answer().status == 200
            return raw
        except (EOFError, BrokenPipeError):  # this program waited for a processor, and was too late
            raw.close()
            return None

    with wait_for(asked, what="an answer in time") as raw, server.raw() as never:
        assert raw.closed() and raw.buffer == b""
        assert never.closed()


def test_a_client_that_does_not_read_its_answer(launch):
    server = launch("--idle-timeout", "1", "--body-timeout", "3600", *OS)
    client = server.client()
    for _ in range(4):
        client.upsert(b"p%d" % client.insert(b"x"), bytes(8 << 20))
    with server.raw(receive_buffer=4096) as raw:
        raw.send(b"GET /pairs/p?values=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.head()[0] == 200, "it has begun"
        assert server.comes_to("cheetah_streams_open", 0), "the end of the stream nobody reads"
        assert raw.closed()
        assert b'{"end"' not in raw.buffer


def overloaded(answer):
    assert answer.status == 503 and answer.code == "overloaded"
    assert int(answer.headers["retry-after"]) >= 1
    return True


def test_max_connections(launch):
    server = launch("--max-connections", "5", "--http-threads", "2", *OS)
    server.close_clients()
    request = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def fill():
        kept = []
        while len(kept) < 5:
            raw = server.raw()
            raw.send(request)
            if raw.answer().status != 200:  # a connection that has just been closed still counts
                raw.close()
                [other.close() for other in kept]
                return None
            kept.append(raw)
        return kept

    kept = wait_for(fill, what="five connections")
    for _ in range(3):
        with server.raw() as raw:
            raw.send(request)
            assert overloaded(raw.answer())
            assert raw.closed()
    for raw in kept:
        assert raw.send(request).answer().status == 200
    kept.pop().close()

    def served():
        with server.raw() as raw:
            return raw.send(request).answer().status == 200

    assert wait_for(served, what="a place")
    for raw in kept:
        raw.close()


def test_max_connections_per_address(launch):
    server = launch("--max-connections-per-address", "3", *OS)
    server.close_clients()
    request = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def one(kept):
        raw = server.raw()
        answer = raw.send(request).answer()
        if answer.status == 200:
            kept.append(raw)
        else:
            raw.close()
        return answer

    kept = []
    wait_for(lambda: one(kept).status == 200 and len(kept) == 3, what="three connections")
    assert overloaded(one(kept))
    other = socket.socket()
    other.bind(("127.0.0.7", 0))
    other.settimeout(HANG)
    other.connect(("127.0.0.1", server.port))
    other.sendall(request)
    assert other.recv(4096).startswith(b"HTTP/1.1 200"), "another address has its own"
    other.close()
    for raw in kept:
        raw.close()


def test_max_streams(launch):
    server = launch("--max-streams", "2", "--idle-timeout", "3600", *OS)
    client = server.client()
    for i in range(4):
        client.upsert(b"p%d" % i, bytes(8 << 20))
    request = b"GET /pairs/p?values=true HTTP/1.1\r\nHost: localhost\r\n\r\n"
    stopped = [server.raw(receive_buffer=4096).send(request) for _ in range(2)]
    for raw in stopped:
        assert raw.head()[0] == 200
    assert overloaded(client.get("/pairs/p?values=true"))
    assert overloaded(client.get("/reduce/payloads/p"))
    assert client.get("/pairs/p0?exact=true").status == 200, "other calls go on"
    assert client.get("/healthz").status == 200
    stopped.pop().close()
    wait_for(lambda: client.get("/pairs/none").status == 200, what="a place for a stream")
    stopped.pop().close()


def test_4096_bytes_as_every_kind_of_text(server, client):
    """A pair and three bounds of full length in one request line of 48 KiB are answered, if only with 414 or 431."""
    long = "%FF" * 4096
    answer = client.get("/pairs/%s" % long)
    assert answer.status == 200
    with server.raw() as raw:
        raw.send("GET /pairs/%s?after=%s&until=%s&db=%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (long, long, long, client.db))
        try:
            assert raw.head()[0] in (200, 400, 414, 431)
        except (EOFError, ConnectionResetError):
            pass
    assert client.get("/pairs/" + hexed(b"\xff" * 4096), after=hexed(b"\xff" * 4096)).status == 200
    assert isinstance(client.server.raw(), Raw)
