"""Tokens, TLS, and the refusal to listen beyond loopback."""
import contextlib
import json
import os
import socket
import ssl
import subprocess
import time

import pytest
from harness import BINARY, HANG, b64, ndjson

TOKENS = """# a comment
reader-all-01234567 read *
writer-all-01234567 write *

admin-all-01234567 admin *
reader-a-01234567 read a
writer-ab-01234567 write a,b
admin-a-01234567 admin a
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with tokens and the databases a, b, c with one pair and value each."""
    import harness
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(TOKENS)
    os.chmod(path, 0o600)
    server = harness.Server("--durability", "os", "--tokens", str(path), "--access-log", "true", "--shards", "1")
    for db in "abc":
        server.client(db=db, token="writer-all-01234567").put_new(b"p", b"v")
    yield server
    server.finish()


def calls(db):
    """(right, method, path, body, headers) of every kind of call on a database."""
    raw, nd, js = {"Content-Type": "application/octet-stream"}, {"Content-Type": "application/x-ndjson"}, {"Content-Type": "application/json"}
    return [("read", "GET", "/kv/1?db=" + db, None, {}), ("read", "GET", "/kv?db=" + db, None, {}), ("read", "GET", "/pairs/*?db=" + db, None, {}),
            ("read", "HEAD", "/kv/1?db=" + db, None, {}), ("read", "GET", "/pairs/p?exact=true&db=" + db, None, {}),
            ("read", "GET", "/pairs/p?count=true&db=" + db, None, {}), ("read", "GET", "/reduce/payloads/*?db=" + db, None, {}),
            ("read", "GET", "/reduce/queue-drain/zz?db=" + db, None, {}),
            ("write", "POST", "/kv?db=" + db, b"v", raw), ("write", "PUT", "/kv/1?db=" + db, b"v", raw),
            ("write", "PUT", "/pairs/p?db=" + db, b"v", raw), ("write", "DELETE", "/pairs/none?db=" + db, None, {}),
            ("write", "POST", "/reduce/queue-drain/zz?db=" + db, None, {}),
            ("write", "POST", "/batch?db=" + db, ndjson([{"op": "insert", "value": b64(b"v")}]), nd),
            ("write", "DELETE", "/kv/99999?db=" + db, None, {}),
            ("admin", "PUT", "/databases/" + db, b"{}", js), ("admin", "POST", "/databases/%s/checkpoint" % db, None, {})]


RANK = {"read": 0, "write": 1, "admin": 2}


@pytest.mark.parametrize("token,right,databases", [("reader-all-01234567", "read", "abc"), ("writer-all-01234567", "write", "abc"), ("admin-all-01234567", "admin", "abc"),
                                                   ("reader-a-01234567", "read", "a"), ("writer-ab-01234567", "write", "ab"), ("admin-a-01234567", "admin", "a")])
def test_rights(guarded, token, right, databases):
    client = guarded.client(token=token)
    for db in "abc":
        for need, method, path, body, headers in calls(db):
            answer = client.request(method, path, body, headers=headers)
            if RANK[need] <= RANK[right] and db in databases:
                assert answer.status not in (401, 403), (token, method, path, answer)
            else:
                assert answer.status == 403, (token, method, path, answer)
                assert method == "HEAD" or answer.code == "forbidden"


def test_the_default_database_needs_its_right_too(guarded):
    assert guarded.client(token="reader-a-01234567").get("/kv").status == 403
    assert guarded.client(token="reader-all-01234567").get("/kv").status == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer"},
                                     {"Authorization": "Basic cmVhZGVyLWFsbC0wMTIzNDU2Nw=="}, {"Authorization": "reader-all-01234567"}, {"Authorization": ""},
                                     {"Authorization": "Bearer reader-all-0123456"}, {"Authorization": "Bearer reader-all-01234567x"}, {"Authorization": "Bearer #"},
                                     {"Authorization": "Bearer READER-ALL-01234567"}, {"Authorization": "Bearer reader-all-01234567 read *"}])
def test_unauthorized(guarded, headers):
    client = guarded.client()
    for _, method, path, body, more in calls("a"):
        answer = client.request(method, path, body, headers=dict(headers, **more))
        assert answer.status == 401, (method, path)
        assert method == "HEAD" or answer.code == "unauthorized"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for path in ("/metrics", "/databases", "/openapi.yaml"):
        assert client.get(path, headers=headers).status == 401, path


def test_the_scheme_has_no_case(guarded):
    assert guarded.client().get("/kv/1?db=a", headers={"Authorization": "bearer reader-a-01234567"}).status == 200


def test_what_is_open(guarded):
    client = guarded.client()
    for path in ("/healthz", "/readyz", "/version"):
        assert client.get(path).status == 200 and client.head(path).status == 200


def test_an_unauthorized_write_writes_nothing(guarded):
    client = guarded.client()
    assert client.put("/pairs/new?db=a", b"v", headers={"Content-Type": "text/plain"}).status == 401
    assert client.put("/pairs/new?db=new-database", b"v", headers={"Content-Type": "text/plain", "Authorization": "Bearer reader-all-01234567"}).status == 403
    admin = guarded.client(token="admin-all-01234567")
    assert admin.get("/pairs/new?db=a&exact=true").status == 404
    assert "new-database" not in admin.get("/databases").json()["databases"]


def test_the_list_shows_what_the_token_may_see(guarded):
    names = guarded.client(token="reader-a-01234567").get("/databases")
    assert names.status in (200, 403)
    if names.status == 200:
        assert names.json()["databases"] == ["a"]


def test_a_large_unauthorized_body_is_not_taken_in(guarded):
    client = guarded.client()
    try:
        assert client.post("/kv?db=a", bytes(1 << 24), headers={"Content-Type": "text/plain"}).status == 401
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server may close instead of reading 16 MiB
    assert guarded.client().get("/healthz").status == 200


def test_tokens_stay_out_of_the_log(guarded):
    guarded.client(token="reader-all-01234567").get("/kv?db=a")
    guarded.client(token="guessed-token-0123").get("/kv?db=a")
    text = "\n".join(guarded.lines)
    for token in ("reader-all-01234567", "writer-all-01234567", "admin-all-01234567", "guessed-token-0123"):
        assert token not in text


def run(*flags, timeout=HANG):
    return subprocess.run([BINARY, "serve", "--line-listen", "none"] + list(flags), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("text", ["TOK", "TOK read", "TOK other *", "TOK read a.b", "TOK read *\nTOK admin *", "TOK read a,,b", "TOK read * extra"])
def test_a_bad_token_file_stops_the_start(tmp_path, text):
    (tmp_path / "tokens").write_text(text.replace("TOK", "token-0123456789") + "\n")
    os.chmod(tmp_path / "tokens", 0o600)
    result = run("--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"), "--tokens", str(tmp_path / "tokens"))
    assert result.returncode in (1, 2) and "token" in result.stderr.lower()


def test_a_missing_token_file_stops_the_start(tmp_path):
    result = run("--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"), "--tokens", str(tmp_path / "none"))
    assert result.returncode in (1, 2)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_refuses_to_listen_beyond_loopback(tmp_path, address):
    result = run("--listen", address, "--data", str(tmp_path / "data"))
    assert result.returncode in (1, 2) and "--allow-anonymous" in result.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0", "127.0.0.2:0"])
def test_listens_on_loopback_without_tokens(launch, address):
    if address.startswith("[") and not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        server = launch("--listen", address, ready=False)
    except AssertionError as error:
        if address.startswith("[") and "address" in str(error).lower():
            pytest.skip("no IPv6 loopback here")
        raise
    server.stop()


def test_listens_anywhere_when_told_to(launch, tmp_path):
    launch("--listen", "0.0.0.0:0", "--allow-anonymous").client().get("/version")
    (tmp_path / "tokens").write_text("token-0123456789 admin *\n")
    os.chmod(tmp_path / "tokens", 0o600)
    server = launch("--listen", "0.0.0.0:0", "--tokens", str(tmp_path / "tokens"))
    assert server.client().get("/databases").status == 401
    assert server.client(token="token-0123456789").get("/databases").status == 200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"], check=True, capture_output=True)
    return cert, key


def test_tls(launch, certificate):
    cert, key = certificate
    server = launch("--durability", "os", "--tls-cert", cert, "--tls-key", key, scheme="https", cafile=cert)
    client = server.client(db="a")
    value = bytes(range(256)) * 4000
    key = client.upsert(b"p", value)
    assert client.scan(values="true") == [(b"p", key, value)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=HANG) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):  # it may be reset before it is read
            assert b"200 OK" not in plain.recv(1000)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=cert)
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", server.port), timeout=HANG) as plain, context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            data = b""
            while True:
                part = tls.recv(4096)
                if not part:
                    break
                data += part
            assert data.startswith(b"HTTP/1.1 200") and json.loads(data.partition(b"\r\n\r\n")[2])["version"]


def test_half_closed_clients_over_tls(launch, certificate):
    """Also those that end their side without saying so in TLS get their answers, then the connection is closed."""
    cert, key = certificate
    server = launch("--durability", "os", "--idle-timeout", "3600", "--header-timeout", "3600", "--tls-cert", cert, "--tls-key", key, scheme="https", cafile=cert)
    context = ssl.create_default_context(cafile=cert)
    put = b"PUT /pairs/p%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv"
    for i in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=HANG) as plain, context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(put % i + put % (i + 1) + b"GET /pairs/p?count=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.02 * (i % 2))
            with socket.socket(fileno=os.dup(tls.fileno())) as under:
                under.shutdown(socket.SHUT_WR)
            text = b""
            while True:
                part = tls.recv(4096)
                if not part:
                    break
                text += part
            assert text.count(b"HTTP/1.1 20") == 3 and b'"pairs":%d' % (i + 2) in text, text


def test_tls_streams(launch, certificate):
    cert, key = certificate
    server = launch("--durability", "os", "--tls-cert", cert, "--tls-key", key, scheme="https", cafile=cert)
    client = server.client()
    pairs = {b"p%06d" % i: b"v" * 100 for i in range(20000)}
    client.put_all(pairs)
    assert {pair: value for pair, _, value in client.scan(values="true")} == pairs


def test_tls_needs_both_files(tmp_path, certificate):
    cert, key = certificate
    base = ["--listen", "127.0.0.1:0", "--data", str(tmp_path / "data")]
    assert run(*base, "--tls-cert", cert).returncode in (1, 2)
    assert run(*base, "--tls-key", key).returncode in (1, 2)
    assert run(*base, "--tls-cert", key, "--tls-key", key).returncode in (1, 2)
    assert run(*base, "--tls-cert", cert, "--tls-key", str(tmp_path / "none")).returncode in (1, 2)
