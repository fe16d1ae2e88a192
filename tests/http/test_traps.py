"""What has gone wrong elsewhere: many ready connections, delayed acknowledgements, long request lines, pipelining, old HTTP."""
import json
import re
import resource
import socket
import struct
import time

import httpx
import pytest
from harness import b64, escaped, hexed

OS = ("--durability", "os", "--shards", "1", "--access-log", "false")
VERSION = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 16384) if hard != resource.RLIM_INFINITY else 16384
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module", params=["1", "2"])
def threaded(request):
    import harness
    server = harness.Server("--http-threads", request.param, "--idle-timeout", "3600", "--header-timeout", "3600", *OS)
    client = server.client()
    client.upsert(b"p", b"value")
    client.close()
    yield server
    server.finish()


@pytest.mark.parametrize("count", [127, 128, 129, 256, 384, 1000])
def test_connections_that_are_ready_at_the_same_instant(threaded, count):
    """The process is stopped while the requests arrive, so that it finds exactly so many at once."""
    raws = [threaded.raw() for _ in range(count)]
    try:
        for raw in raws:
            assert raw.send(VERSION).answer().status == 200
        for _ in range(5 if count < 1000 else 3):
            threaded.pause()
            try:
                for raw in raws:
                    raw.send(VERSION)
            finally:
                threaded.go_on()
            for raw in raws:
                assert raw.answer().status == 200, "none is left until its connection has been idle for its time"
    finally:
        for raw in raws:
            raw.close()


def test_reads_that_come_together(launch):
    """Where many come at once they are put off for a moment and fetched side by side, and their answers go out in objects that
    were used before: each has its own text, id and length."""
    server = launch("--http-threads", "1", "--durability", "os", "--shards", "4")
    client = server.client(check=False)
    values = [bytes([65 + i % 26]) * (1 + i * 37 % 700) for i in range(120)]
    keys = [client.upsert(b"n%d" % i, value) for i, value in enumerate(values)]
    other = [client.put("/pairs/q%d?db=other" % i, value).json()["key"] for i, value in enumerate(values)]
    paths, expected = [], []
    for i, value in enumerate(values):
        found = {"size": len(value), "value": b64(value)}
        pair = {"pair": b64(b"n%d" % i), "key": keys[i]}
        kind = i % 12
        path, want = [("/kv/%d" % keys[i], {"key": keys[i], **found}),
                      ("/pairs/n%d?exact=true&values=true" % i, {**pair, **found}),
                      ("/pairs/n%d?exact=true" % i, pair),
                      ("/pairs/x%s?exact=true&values=1" % (b"n%d" % i).hex(), {**pair, **found}),
                      ("/kv/%d?db=other" % other[i], {"key": other[i], **found}),
                      ("/pairs/q%d?exact=true&values=true&db=other" % i, {"pair": b64(b"q%d" % i), "key": other[i], **found}),
                      ("/kv/987654321", "key_not_found"), ("/kv/0", "invalid_key"),
                      ("/pairs/none?exact=true", "pair_not_found"), ("/kv/1?x=1", "unknown_parameter"),
                      ("/pairs/%zz?exact=true", "invalid_encoding"), ("/kv/%d" % keys[i], None)][kind]
        paths.append(path)
        expected.append(want)
    raws = [server.raw() for _ in paths]
    ids = set()
    try:
        for turn in range(6):
            server.pause()
            order = [(i * 7 + turn * 31) % len(paths) for i in range(len(paths))]
            for n, (raw, i) in enumerate(zip(raws, order)):
                given = b"X-Request-Id: mine-%d-%d\r\n" % (turn, n) if n % 5 == 0 else b""
                method = b"HEAD" if expected[i] is None else b"GET"
                raw.send(b"%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (method, paths[i].encode(), given))
            server.go_on()
            for n, (raw, i) in enumerate(zip(raws, order)):
                answer = raw.answer("HEAD" if expected[i] is None else "GET")
                request_id = answer.headers["x-request-id"]
                assert request_id not in ids
                ids.add(request_id)
                if n % 5 == 0:
                    assert request_id == "mine-%d-%d" % (turn, n)
                if expected[i] is None:
                    assert answer.status == 200 and answer.body == b"" and int(answer.headers["content-length"]) > 0
                elif isinstance(expected[i], str):
                    assert answer.json()["code"] == expected[i]
                else:
                    assert answer.status == 200 and answer.json() == expected[i], paths[i]
                    assert answer.headers["content-type"] == "application/json"
        assert server.metric("cheetah_reads_ahead_total") >= 5 * len(paths) // 2, "the case did not come about"
    finally:
        for raw in raws:
            raw.close()
        client.close()


def test_clients_that_leave_while_their_reads_are_put_off(launch):
    server = launch("--http-threads", "1", "--durability", "os", "--shards", "4")
    client = server.client()
    key = client.upsert(b"n", b"value")
    for turn in range(20):
        raws = [server.raw() for _ in range(60)]
        for raw in raws:
            assert raw.send(VERSION).answer().status == 200
        for _ in range(2):
            server.pause()
            for n, raw in enumerate(raws):
                raw.send((b"GET /kv/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % key) * (1 + n % 3))
                if n % 2 == turn % 2:
                    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    raw.close()
            server.go_on()
            raws = [raw for n, raw in enumerate(raws) if n % 2 != turn % 2]
            assert raws[-1].answer().status == 200, "it had the time to read what was there"
        for raw in raws:
            raw.close()
    assert client.get("/kv/%d" % key).json()["value"] == b64(b"value")
    assert server.metric("cheetah_reads_ahead_total") > 20


@pytest.mark.parametrize("count", [128, 256, 1000])
def test_busy_connections(threaded, count):
    raws = [threaded.raw() for _ in range(count)]
    requests = [b"GET /pairs/p?exact=true&values=true HTTP/1.1\r\nHost: localhost\r\n\r\n", VERSION,
                b"PUT /pairs/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nvalue"]
    try:
        for round_number in range(4):
            for i, raw in enumerate(raws):
                raw.send(requests[(i + round_number) % 3])
            for raw in raws:
                assert raw.answer().status == 200
    finally:
        for raw in raws:
            raw.close()


def test_connections_that_all_stream(threaded):
    raws = [threaded.raw() for _ in range(256)]
    try:
        for _ in range(3):
            for raw in raws:
                raw.send(b"GET /pairs/*?values=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for raw in raws:
                answer = raw.answer()
                assert answer.status == 200 and len(answer.entries()) == 1
    finally:
        for raw in raws:
            raw.close()


def test_4096_connections_by_default(launch, tmp_path):
    """The default must work where a shell allows 1024 open files softly."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 6000:
        pytest.skip("the hard limit of open files is %d" % hard)
    script = tmp_path / "server"
    script.write_text('#!/bin/sh\nulimit -S -n 1024\nexec "$CHT_REAL" "$@"\n')
    script.chmod(0o755)
    import harness
    server = launch(*OS, binary=str(script), env={"CHT_REAL": harness.BINARY})
    raws = [server.raw() for _ in range(1500)]
    try:
        for raw in raws:
            raw.send(VERSION)
        for raw in raws:
            assert raw.answer().status == 200
    finally:
        for raw in raws:
            raw.close()


DELAYED = 0.04  # how long Linux holds an acknowledgement back, at least


def timed(session, method, path, **more):
    start = time.perf_counter()
    assert session.request(method, path, **more).status_code in (200, 201)
    return time.perf_counter() - start


def are_quick(call, wanted):
    """So many take less than an acknowledgement is delayed: none does that waits for one, and some do on a machine that is busy."""
    quick = i = 0
    while quick < wanted:
        quick, i = quick + (call(i) < DELAYED), i + 1
        assert i < 1000, quick


def test_small_puts_of_httpx(server, client):
    """Headers and body in two segments with Nagle on must not wait for a delayed acknowledgement."""
    with httpx.Client(base_url="http://127.0.0.1:%d" % server.port) as session:
        are_quick(lambda i: timed(session, "PUT", "/pairs/p%d?db=%s" % (i, client.db), json={"value": b64(b"v")}), 20)


def test_first_calls_of_httpx(server, client):
    """The same for new connections."""

    def put(i):
        with httpx.Client(base_url="http://127.0.0.1:%d" % server.port) as session:
            return timed(session, "PUT", "/pairs/p%d?db=%s" % (i, client.db), content=b"v")

    are_quick(put, 5)


@pytest.mark.parametrize("length", [2000, 2700, 2731, 3000, 4095, 4096])
def test_long_request_lines(client, length):
    """Request lines over 8 KiB, up to a whole pair percent-encoded."""
    pair = bytes((i * 7 + length) % 256 for i in range(length))
    if pair[:1] == b"x":
        pair = b"y" + pair[1:]
    target = "/pairs/" + escaped(pair)
    assert len(target) > 3 * length
    assert client.put(target, json_body={"key": 9}).status == 201
    assert client.get(target, exact="true").json() == {"pair": b64(pair), "key": 9}
    assert client.get(target, count="true").json()["pairs"] == 1
    assert client.scan() == [(pair, 9)]
    assert client.get("/pairs/a", after=hexed(pair)).status == 200
    assert client.delete(target).status == 204


def test_long_request_line_with_many_headers(client):
    headers = {"X-Header-%d" % i: "v" * 100 for i in range(40)}
    target = "/pairs/" + "%FF" * 4096
    assert client.put(target, json_body={"key": 9}, headers=headers).status == 201
    assert client.get(target, exact="true", headers=headers).status == 200


def test_zero_bytes_and_slashes(client):
    for text, pair in (("a%00b", b"a\0b"), ("%00", b"\0"), ("a%2Fb", b"a/b"), ("a/b", b"a/b"), ("%2F%2f", b"//"), ("%00%2F%00", b"\0/\0")):
        answer = client.put("/pairs/" + text, json_body={"key": 1})
        assert answer.json()["pair"] == b64(pair)
        assert client.get("/pairs/%s?exact=true" % text).json()["pair"] == b64(pair)
    assert [pair for pair, _ in client.scan()] == sorted([b"a\0b", b"\0", b"a/b", b"//", b"\0/\0"])


# ---- pipelining, versions, connections


def test_pipelined_reads(server, client):
    for i in range(50):
        client.upsert(b"p%02d" % i, b"value %d" % i)
    with server.raw() as raw:
        raw.send("".join("GET /pairs/p%02d?exact=true&values=true&db=%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (i, client.db) for i in range(50)))
        for i in range(50):
            assert raw.answer().json()["value"] == b64(b"value %d" % i)


def test_pipelined_everything(server, client):
    db = client.db
    client.insert(b"the value of key 1")
    requests = [("PUT", "/pairs/a?db=" + db, b"hello", 201), ("GET", "/pairs/*?values=true&db=" + db, None, 200), ("HEAD", "/kv/1?db=" + db, None, 200),
                ("GET", "/nothing", None, 404), ("POST", "/kv?db=" + db, b"x" * 100000, 201), ("GET", "/pairs/x1?db=" + db, None, 400),
                ("POST", "/kv?db=" + db, b"", 400), ("DELETE", "/pairs/a?db=" + db, None, 204), ("GET", "/pairs/a?exact=true&db=" + db, None, 404),
                ("POST", "/batch?db=" + db, b'{"op":"insert","value":"YQ=="}\n', 200), ("DELETE", "/version", None, 405), ("GET", "/version", None, 200)]
    with server.raw() as raw:
        for _ in range(10):
            data = b""
            for method, target, body, _ in requests:
                data += ("%s %s HTTP/1.1\r\nHost: localhost\r\n" % (method, target)).encode()
                data += b"\r\n" if body is None else b"Content-Length: %d\r\n\r\n" % len(body) + body
            raw.send(data)
            for method, target, _, status in requests:
                assert raw.answer(method).status == status, target


def test_requests_byte_by_byte(server, client):
    with server.raw() as raw:
        for byte in b"PUT /pairs/a?db=%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc" % client.db.encode():
            raw.send(bytes([byte]))
        assert raw.answer().status == 201
        for byte in b"POST /kv?db=%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n" % client.db.encode():
            raw.send(bytes([byte]))
        answer = raw.answer()
        assert answer.status == 201 and client.read(answer.json()["key"]) == b"abcdefg"


def test_http_1_0(server, client):
    client.put_all({b"p%d" % i: b"v" for i in range(100)})
    client.put_new(b"p0", b"v")
    with server.raw() as raw:
        raw.send("GET /kv/1?db=%s HTTP/1.0\r\n\r\n" % client.db)
        status, headers = raw.head()
        assert status == 200 and headers.get("connection", "close").lower() != "keep-alive"
        assert len(raw.exactly(int(headers["content-length"]))) > 0 and raw.closed()
    with server.raw() as raw:
        raw.send("GET /pairs/*?db=%s HTTP/1.0\r\n\r\n" % client.db)
        status, headers = raw.head()
        assert status == 200 and "transfer-encoding" not in headers and raw.closed()
        lines = [json.loads(line) for line in raw.buffer.splitlines()]
        assert len(lines) == 101 and lines[-1]["end"]["count"] == 100
    with server.raw() as raw:
        for _ in range(2):
            raw.send("GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            status, headers = raw.head()
            raw.exactly(int(headers["content-length"]))
            assert status == 200
            if headers.get("connection", "").lower() != "keep-alive":
                break


def test_connection_close(server, client):
    client.upsert(b"a", b"v")
    for target in ("/version", "/pairs/*?db=" + client.db, "/nothing", "/pairs/a?exact=true&db=" + client.db):
        with server.raw() as raw:
            raw.send("GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target)
            answer = raw.answer()
            assert answer.headers["connection"].lower() == "close"
            assert raw.closed() and raw.buffer == b"", target


def test_kept_connections_survive_errors(server, client):
    """Errors do not cost the connection, also those of writes with a body."""
    with server.raw() as raw:
        for _ in range(3):
            for head, body in (("GET /kv/abc", b""), ("PUT /kv/77", b"v" * 1000), ("POST /nothing", b"v" * 1000), ("POST /version", b"v"),
                               ("PUT /pairs/x1", b"v" * 70000), ("POST /kv?db=-", b"v" * 1000)):
                raw.send(("%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (head, len(body))).encode() + body)
                assert 400 <= raw.answer().status < 500, head


def test_absolute_targets_and_case(server):
    with server.raw() as raw:
        raw.send("GET http://localhost:%d/version HTTP/1.1\r\nhOsT: localhost\r\n\r\n" % server.port)
        assert raw.answer().status in (200, 400, 404)
    with server.raw() as raw:
        raw.send("get /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.answer().status in (400, 405, 501)
    assert server.client().get("/version").status == 200


def test_smuggling(server, client):
    """Content-Length and Transfer-Encoding together, or two lengths, are not two requests."""
    inner = "DELETE /pairs/a?db=%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % client.db
    for headers, body in (("Content-Length: %d\r\nTransfer-Encoding: chunked" % (len(inner) + 5), "0\r\n\r\n" + inner),
                          ("Content-Length: 1\r\nContent-Length: %d" % len(inner), inner)):
        client.upsert(b"a", b"v")
        with server.raw() as raw:
            raw.send("POST /kv?db=%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n%s" % (client.db, headers, body))
            try:
                raw.answer()
            except EOFError:
                pass
        if "Transfer" not in headers:
            assert client.get("/pairs/a", exact="true").status == 200, headers


def test_date_and_length(client):
    answer = client.get("/version")
    assert re.fullmatch(r"\d+", answer.headers["Content-Length"])
    assert int(answer.headers["content-length"]) == len(answer.body)
