"""What is kept while strangers hold what they can: time, connections for those with a token, the operator's calls."""
import contextlib
import os
import socket
import threading
import time

import pytest
from harness import HANG, Machine, wait_for

OS = ("--durability", "os", "--shards", "1", "--access-log", "false")
TOKEN = "reader-0123456789abcdef"
CARE = ("/healthz", "/readyz", "/metrics")
LASTING = ("--idle-timeout", "3600", "--header-timeout", "3600", "--body-timeout", "3600")  # strangers do not go by themselves


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("%s admin *\n" % TOKEN)
    os.chmod(path, 0o600)
    return ("--tokens", str(path))


def get(path, token=None, more=""):
    return "GET %s HTTP/1.1\r\nHost: localhost\r\n%s%s\r\n" % (path, "Authorization: Bearer %s\r\n" % token if token else "", more)


def drip(raw, head, piece):
    """Sends a body by drops until the server ends the connection; what it said."""
    try:
        raw.send(head)
        for _ in range(10 * HANG):
            if raw.closed(0.1):
                break
            raw.send(piece)
        else:
            raise AssertionError("it was listened to for minutes")
    except (BrokenPipeError, ConnectionResetError):
        assert raw.closed()  # what it said may not have been read yet
    return raw.buffer


def test_the_body_of_a_refused_request_holds_no_connection(launch, tokens):
    server = launch("--body-timeout", "1", "--header-timeout", "3600", "--idle-timeout", "3600", *tokens, *OS)
    for head, piece in (("Content-Length: 900000\r\n\r\n", b"a"), ("Content-Length: 90000000\r\n\r\n", b"a"), ("Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n")):
        for path in ("/kv", "/batch", "/nothing"):
            with server.raw() as raw:
                said = drip(raw, "POST %s HTTP/1.1\r\nHost: localhost\r\n%s" % (path, head), piece)
            assert not said or said.startswith(b"HTTP/1.1 401 "), said[:100]
            if "900000\r" not in head:
                assert said, "long or endless: it is answered at once"


def test_a_refused_body_is_not_read_for_ever(launch, tokens):
    server = launch(*tokens, *OS)
    for head, piece in (("Content-Length: 100000000000\r\n\r\n", bytes(1 << 20)), ("Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + bytes(1 << 20) + b"\r\n")):
        with server.raw() as raw:
            raw.send("POST /batch HTTP/1.1\r\nHost: localhost\r\n" + head)
            sent = 0
            try:
                while sent < 1 << 30:
                    raw.send(piece)
                    sent += len(piece)
            except (BrokenPipeError, ConnectionResetError, socket.timeout):
                pass
        assert sent < 200 << 20, head


def test_connections_are_kept_for_those_with_a_token(launch, tokens):
    """Strangers who hold all they can: whoever shows a token is served all the same, on new connections and on those it has."""
    server = launch("--max-connections", "32", "--http-threads", "2", *LASTING, *tokens, *OS)
    server.close_clients()
    own = server.raw()
    assert own.send(get("/databases", TOKEN)).answer().status == 200
    strangers = []
    for i in range(64):
        raw = server.raw()
        raw.send("GET /kv HTTP/1.1\r\nHost: localhost\r\n" if i % 2 else "POST /kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        strangers.append(raw)
    for i in range(20):
        with server.raw() as raw:
            assert raw.send(get("/databases", TOKEN)).answer().status == 200, i
    assert own.send(get("/databases", TOKEN)).answer().status == 200, "one that has shown its token is not ended"
    client = server.client(token=TOKEN, check=False)
    assert "cheetah_connections_shed_total 0\n" not in client.get("/metrics").body.decode()
    for raw in strangers:
        raw.close()
    own.close()


def test_the_operator_is_answered_beyond_all_limits(launch):
    """At --max-connections, with more that came too late: /healthz, /readyz, /metrics at once, all else 503."""
    server = launch("--max-connections", "16", *LASTING, *OS)
    server.close_clients()
    held = [server.raw() for _ in range(300)]
    for raw in held[::2]:
        with contextlib.suppress(ConnectionError):  # the oldest ones have made room
            raw.send("GET /kv HTTP/1.1\r\nHost: localhost\r\n")

    def asked(path):
        """None: those who were there before did not make room in time, on a machine that is busy."""
        with server.raw() as raw, contextlib.suppress(EOFError, ConnectionError):
            return raw.send(get(path)).answer()

    for _ in range(5):
        for path in CARE:
            assert wait_for(lambda: asked(path), what=path).status == 200, path
        answer = wait_for(lambda: asked("/kv"), what="/kv")
        assert answer.status == 503 and answer.code == "overloaded" and "retry-after" in answer.headers
    for raw in held:
        raw.close()
    wait_for(lambda: server.client().get("/kv").status == 200, what="room")


def test_the_operator_is_answered_while_all_jobs_are_busy(launch, tmp_path):
    """Every short and long job at work: 80 commits and aggregates at once, with one HTTP thread. Nobody waits longer than the machine keeps everybody waiting."""
    server = launch("--http-threads", "1", *OS)
    client = server.client()
    line = b'{"op":"insert","value":"dg=="}\n'
    ended = threading.Event()

    def work(i):
        own = server.client(db="d%d" % i, check=False)
        while not ended.is_set():
            own.post("/batch", b'{"op":"insert","value":"' + b"YWFh" * 30000 + b'"}\n' + line * 500, headers={"Content-Type": "application/x-ndjson"})
            own.get("/reduce/stats/*")
            own.post("/databases/d%d/checkpoint" % i)

    def longest():
        worst = 0
        with Machine() as machine:
            for _ in range(10):
                for path in CARE:
                    start = time.monotonic()
                    assert client.get(path).status == 200
                    worst = max(worst, time.monotonic() - start)
        return worst - 4 * machine.stalled

    threads = [threading.Thread(target=work, args=(i,)) for i in range(24)]
    [t.start() for t in threads]
    try:
        assert any(longest() < 1 for _ in range(10)), "each time"
    finally:
        ended.set()
        [t.join() for t in threads]


def test_a_port_for_the_operator(launch, tmp_path, tokens):
    port_file = tmp_path / "admin-port"
    server = launch("--admin-listen", "127.0.0.1:0", "--admin-port-file", str(port_file), "--max-connections", "4", *tokens, *OS)
    server.close_clients()
    admin = int(wait_for(lambda: port_file.exists() and port_file.read_text().endswith("\n") and port_file.read_text(), what="its port"))
    held = [server.raw() for _ in range(20)]

    def asked(path, token):
        text = b""
        with socket.create_connection(("127.0.0.1", admin), HANG) as link, contextlib.suppress(ConnectionError):
            link.sendall(get(path, token, "Connection: close\r\n").encode())
            while part := link.recv(1 << 16):
                text += part
        return text.split()[1:2]

    def ask(path, token=None):
        return int(wait_for(lambda: asked(path, token), what=path)[0])

    assert [ask(path) for path in CARE] == [200, 200, 401] and ask("/metrics", TOKEN) == 200
    assert ask("/kv") == 401 and ask("/kv", TOKEN) == 404 and ask("/databases/default", TOKEN) == 404
    for raw in held:
        raw.close()


def test_addresses_are_limited_by_default(launch):
    """1024 connections of one address, but loopback's are not counted, unless the option is given: test_limits."""
    server = launch(*OS)
    held = [server.raw() for _ in range(1100)]
    with server.raw() as raw:
        assert raw.send(get("/kv")).answer().status == 200
    for raw in held:
        raw.close()
