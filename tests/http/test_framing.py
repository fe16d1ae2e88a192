"""What libmicrohttpd would guess about (RFC 9112): the end of a request, blanks, targets, clients that end their side."""
import contextlib
import json
import random
import socket
import threading
import time

import harness
import pytest
from harness import b64, framing, wait_for

HEAD = "POST /kv?db=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def is_marked(client):
    return client.get("/pairs/mark", exact="true").status == 200


@pytest.mark.parametrize("title,form,status", framing.FORMS, ids=[form[0] for form in framing.FORMS])
def test_ambiguous_forms(server, client, title, form, status):
    """Each is answered once, with a problem; the connection ends; nothing of it, and nothing after it, is run."""
    data = framing.write(form, client.db)
    for pause in (False, True):
        with server.raw() as raw:
            if pause:
                for i in range(0, len(data), 7):
                    try:
                        raw.send(data[i:i + 7])
                    except OSError:
                        break
            else:
                raw.send(data)
            answer = raw.answer()
            assert answer.status == status, (title, answer)
            assert answer.headers["connection"].lower() == "close"
            problem = answer.json()
            assert problem["status"] == status and problem["code"] == {
                400: "invalid_request", 501: "unsupported_transfer_coding", 505: "unsupported_http_version"}[status], answer
            assert raw.closed() and raw.buffer == b"", (title, raw.buffer)
        assert not is_marked(client), title


def test_requests_before_a_bad_one_are_answered(server, client):
    with server.raw() as raw:
        raw.send("GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 3 + "GET /version HTTP/1.1\r\n\r\n" + "GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert [raw.answer().status for _ in range(4)] == [200, 200, 200, 400]
        assert raw.closed() and raw.buffer == b""


@pytest.mark.parametrize("before", ["", " ", "\t", "  \t "])
@pytest.mark.parametrize("after", ["", " ", "\t", " \t  "])
def test_blanks_around_values(server, client, before, after):
    def ask(name, value, body, method="POST", path="/kv"):
        with server.raw() as raw:
            raw.send("%s %s?db=%s HTTP/1.1\r\nHost: %s127.0.0.1%s\r\n%s:%s%s%s\r\n%s" % (method, path, client.db, before, after, name, before, value, after, body))
            return raw.answer()

    assert ask("Content-Length", "5", "\r\nhello").json()["size"] == 5
    assert ask("Transfer-Encoding", "chunked", "\r\n5\r\nhello\r\n0\r\n\r\n").json()["size"] == 5
    answer = ask("Content-Type", "application/json", 'Content-Length: 20\r\n\r\n{"value":"aGVsbG8="}')
    assert answer.status == 201 and answer.json()["size"] == 5
    path = "/kv/%d" % answer.json()["key"]
    assert ask("Accept", "application/octet-stream", "\r\n", "GET", path).body == b"hello"
    assert ask("Connection", "close", "\r\n", "GET", path).headers["connection"].lower() == "close"
    assert ask("X-Request-Id", "mine", "\r\n", "GET", path).headers["x-request-id"] == "mine"


@pytest.mark.parametrize("form", ["http://127.0.0.1:%d%s", "http://localhost%.0s%s", "HTTP://[::1]:%d%s", "https://127.0.0.1:%d%s"])
def test_absolute_targets(server, client, form):
    client.upsert(b"a", b"v")
    for path, status in (("/version", 200), ("/pairs/a?exact=true&db=" + client.db, 200), ("?x=1", 200), ("", 200), ("/pairs/nope?exact=true&db=" + client.db, 404)):
        with server.raw() as raw:
            raw.send("GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (form % (server.port, path)))
            assert raw.answer().status == status, path
    with server.raw() as raw:  # its host counts, not the header
        raw.send("GET http://evil.example/pairs/*?db=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % client.db)
        assert raw.answer().json()["code"] == "forbidden_host"


def test_same_length_twice(server, client):
    with server.raw() as raw:
        raw.send(HEAD % client.db + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello")
        assert raw.answer().json()["size"] == 5


def test_line_feeds_alone(server, client):
    with server.raw() as raw:
        raw.send("\n\r\nPOST /kv?db=%s HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 5\n\nhello" % client.db)
        assert raw.answer().json()["size"] == 5


def test_chunk_extensions_and_trailers(server, client):
    with server.raw() as raw:
        for _ in range(3):
            raw.send(HEAD % client.db + "Transfer-Encoding: ChunKed\r\n\r\n3;a=b\r\nabc\r\n004;c=\"d e\"\r\ndefg\r\n0;e\r\nContent-Length: 99\r\nX: y\r\n\r\n")
            assert raw.answer().json()["size"] == 7


@pytest.mark.parametrize("form", ["", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("ask", ["GET /pairs/q:1?exact=true", "POST /reduce/queue-drain/q:?limit=1", "DELETE /pairs/q:1"])
def test_a_request_after_one_that_expects_without_a_body(server, client, ask, form):
    """Its answer comes, and that of the next one: libmicrohttpd shows the next one as a body of no bytes, which is not the end of the request."""
    client.upsert(b"q:1", b"one")
    method, target = ask.split(" ")
    first = "%s %s&db=%s HTTP/1.1\r\n" % (method, target if "?" in target else target + "?", client.db)
    with server.raw() as raw:
        raw.send(first + "Host: 127.0.0.1\r\nExpect: 100-continue\r\n" + form + "\r\n" + "0\r\n\r\n" * ("chunked" in form) +
                 "GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = raw.answer()
        assert answer.status == (204 if method == "DELETE" else 200), answer
        assert method == "DELETE" or answer.body.startswith(b'{"pair":"cTox",'), answer
        assert "version" in raw.answer().json()


@pytest.mark.parametrize("seed", range(4))
def test_any_segments(server, client, seed):
    """Pipelined requests of all kinds, long lines and chunked bodies among them, however they are cut."""
    rng = random.Random(seed)
    data, wanted = b"", []
    for i in range(60):
        kind = rng.randrange(5)
        pad = "X-Pad: %s\r\n" % ("p" * rng.choice([0, 10, 900, 1000, 1100, 3000])) + "Cookie: a=b; c=d\r\n"
        if kind == 0:
            data += ("GET /pairs/%s?exact=true&db=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n" % ("%41" * rng.choice([1, 300, 1000, 4096]), client.db, pad)).encode()
            wanted.append((404, None))
        elif kind < 3:
            body = bytes(rng.randrange(256) for _ in range(rng.choice([1, 10, 5000, 30000])))
            data += (HEAD % client.db + pad + "Content-Length: %d \r\n\r\n" % len(body)).encode() + body
            wanted.append((201, len(body)))
        else:
            size, part = 0, b""
            for _ in range(rng.randrange(1, 30)):
                n = rng.choice([1, 2, 15, 255, 4097])
                part += b"%x%s\r\n%s\r\n" % (n, rng.choice([b"", b";x=y", b";" + b"z" * 300]), rng.randbytes(n))
                size += n
            data += (HEAD % client.db + pad + "Transfer-Encoding: chunked\t\r\n\r\n").encode() + part + b"0\r\nT: u\r\n\r\n"
            wanted.append((201, size))
    with server.raw() as raw:
        def send():
            at = 0
            while at < len(data):
                n = rng.choice([1, 2, 3, 17, 100, 1000, 1024, 10240, 60000])
                raw.socket.sendall(data[at:at + n])
                at += n
                if rng.random() < 0.2:
                    time.sleep(0.001)
        thread = threading.Thread(target=send)
        thread.start()
        for status, size in wanted:
            answer = raw.answer()
            assert answer.status == status and (size is None or answer.json()["size"] == size), answer
        thread.join()


# ---- what is too long


def long_headers(n):
    return "X-A: %s\r\n" % ("a" * n), "/version"


def many_headers(n):
    return "".join("X%d: y\r\n" % i for i in range(n // 65)), "/version"


def long_path(n):
    return "", "/pairs/" + "&" * n


def long_query(n):
    return "", "/version?" + "a" * n


def many_parameters(n):
    return "", "/version?" + "&a=" * (n // 65)


def both(n):
    return "X-A: %s\r\n" % ("a" * (n // 2)), "/version?" + "a" * (n // 2)


@pytest.fixture(scope="module")
def narrow():
    server = harness.Server("--durability", "os", "--log-format", "json")
    yield server
    server.finish()


@pytest.mark.parametrize("pieces", [1 << 20, 1009])
@pytest.mark.parametrize("shape", [long_headers, many_headers, long_path, long_query, many_parameters, both])
def test_too_long(narrow, shape, pieces):
    """Whatever the size is, the answer is the request's own or a problem that says what is too long, and so is the line in the log."""
    seen = set()
    least = 100 * 65 if "many" in shape.__name__ else 12500  # a hundred headers, a name of 4096 bytes
    for n in [100, least] + list(range(least, 21500, 173)) + [40000, 200000]:
        headers, target = shape(n)
        for method, body in (("GET", ""), ("PUT", "b" * 3000)):
            data = "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: %s-%d-%d\r\n%s" % (method, target, shape.__name__, n, pieces, headers)
            data = (data + ("Content-Length: %d\r\n" % len(body) if body else "") + "\r\n" + body).encode()
            with narrow.raw() as raw:
                try:
                    for i in range(0, len(data), pieces):
                        raw.send(data[i:i + pieces])
                except OSError:
                    pass
                answer = raw.answer()
                wanted = {414: "uri_too_long", 431: "headers_too_large", 400: "invalid_pair", 404: "pair_not_found", 405: "method_not_allowed"}
                if answer.status not in (200, 201):
                    assert answer.code == wanted[answer.status], (n, answer)
                if answer.status in (414, 431):
                    assert raw.closed() and raw.buffer == b"", (n, raw.buffer)
            seen.add((answer.status in (414, 431), n))
    good, bad = [n for bad, n in seen if not bad], [n for bad, n in seen if bad]
    assert least < max(good) <= min(bad), (max(good), min(bad))


def test_too_long_is_logged_as_what_it_is(launch):
    narrow = launch("--durability", "os")
    def refused():
        return [line for line in narrow.log("request") if line["status"] in (414, 431)]

    cases = (("PUT", "/pairs/%s", ""), ("DELETE", "/named?%s", ""), ("PATCH", "/named?" + "&a=" * 3000, ""), ("OPTIONS", "/named", "X-B: %s\r\n"))
    for number, (method, target, headers) in enumerate(cases):
        with narrow.raw() as raw:
            try:
                raw.send("%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n" % (method, target.replace("%s", "p" * 30000), headers.replace("%s", "b" * 30000)))
            except OSError:
                pass
            status = raw.answer().status
        record = wait_for(lambda: refused()[number:], what="the line of %s %s" % (method, target))[0]
        assert record["method"] == method and record["status"] == status and len(record["id"]) == 16, record
        assert record["path"].startswith("/pairs/pppp") or record["path"] == "/named", record


# ---- clients that end their side

LASTING = ("--idle-timeout", "3600", "--header-timeout", "3600")  # a connection that is closed was not closed for its time


def half(server, data, pause=0.0):
    """All that comes until the connection is closed, for a client that ends its side at once."""
    with server.raw() as raw:
        raw.socket.sendall(data)
        if pause:
            time.sleep(pause)
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.closed(), "still open"
        return raw.buffer


@pytest.mark.parametrize("durability", ["sync", "os"])
def test_half_closed_clients_get_their_answers(launch, durability):
    server = launch("--durability", durability, *LASTING)
    put = b"PUT /pairs/p%d HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nv"
    get = b"GET /pairs/*?values=true HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for i in range(60):
        text = half(server, put % i, pause=0.01 * (i % 3 == 2))
        assert text.startswith(b"HTTP/1.1 201"), (i, text)
    for pause in (0, 0.05):
        text = half(server, get, pause)
        assert text.count(b'"pair"') == 60 and b'"end"' in text, text
        text = half(server, put % 1 + get + put % 2 + get[:-2] + b"Accept: */*\r\n\r\n", pause)
        assert text.count(b"HTTP/1.1 200") == 4, text
        text = half(server, put % 1 + get[:30], pause)  # and half a request, which is none
        assert text.count(b"HTTP/1.1 200") == 1 and text.count(b"HTTP/1.1") == 1, text
        assert half(server, b"", pause) == b""


def test_half_closed_after_its_answer(launch):
    with launch(*LASTING).raw() as raw:
        raw.send("GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert raw.answer().status == 200
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.closed()


# ---- the access log


PARTS = [b"%s /version HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: id\r\n\r\n", b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"GET /%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
         b"GET /version %s\r\nHost: 127.0.0.1\r\n\r\n", b"GET /version HTTP/1.1\r\nHost: %s\r\n\r\n", b"GET /kv HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: %s\r\n\r\n",
         b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n%s: a\r\n\r\n", b"POST /kv HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %s\r\n\r\n", b"POST /kv HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: %s\r\n\r\n",
         b"PUT /databases/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}", b"GET /kv?db=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"%s"]
EVIL = [b'A","level":"error","x":"', b'{"a":1}', b"\x1b[31mred", b"\xc2\x9b31m", b'"', b"\\", b"\x7f", b"\xff\xfe", b"%0d%0aX-Evil:%201", b"a" * 3000, "\u202e\u0085".encode()]


@pytest.mark.parametrize("style", ["json", "text"])
def test_logs_of_hostile_requests(launch, style):
    server = launch("--log-format", style, "--durability", "os")
    rng = random.Random(1)
    for part in PARTS:
        for evil in EVIL + [rng.randbytes(rng.randrange(1, 60)) for _ in range(12)]:
            with server.raw() as raw:
                with contextlib.suppress(OSError):  # it may have been answered, and closed, before all was sent
                    raw.send(part % evil)
                    raw.socket.shutdown(socket.SHUT_WR)
                assert raw.closed()
                assert b"\nx-evil" not in raw.buffer.lower()
                assert raw.buffer.count(b"\r\nDate:") == raw.buffer.count(b"HTTP/1.1 "), raw.buffer  # no header block twice
    server.stop()
    assert len(server.lines) > 200
    for line in server.lines:
        if style == "json":
            record = json.loads(line)
            assert record["level"] != "error", line
            if record["event"] == "request":
                assert set(record) <= {"time", "level", "event", "method", "path", "status", "bytes", "micros", "aborted", "id"}, line
        assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" for c in line), repr(line)


def test_logs_tell_their_own_requests(launch):
    """Nothing of one client's request stands in the line of another's, whoever answers it."""
    server = launch("--durability", "os")
    first = "DELETE /kv/5 HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: of-the-first-client\r\n\r\n"
    for i, bad in enumerate(["POST /n%d HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n", "POST /n%d HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: " + "a" * 60000,
                             "POST /n%d HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nab", "POST /n%d HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A"]):
        for data in (first, bad % i):
            with server.raw() as raw:
                with contextlib.suppress(OSError):
                    raw.send(data)
                    raw.socket.shutdown(socket.SHUT_WR)
                assert raw.closed()
    wait_for(lambda: len([r for r in server.log("request") if r["path"].startswith("/n")]) == 4, what="four lines: %r" % server.lines)
    for record in server.log("request"):
        if record["path"].startswith("/n"):
            assert record["method"] in ("POST", "") and record["id"] != "of-the-first-client" and len(record["id"]) == 16, record
    server.stop()
