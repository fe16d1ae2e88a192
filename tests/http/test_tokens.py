"""Token files, and what becomes of what a token has begun when it is taken out of the file or expires."""
import hashlib
import json
import os
import signal
import subprocess
import time

import pytest
from harness import BINARY, HANG, b64, hexed, ndjson, wait_for

BOSS, READER, OTHER = "boss-token-0123456789", "reader-token-0123456789", "other-token-0123456789"
PAIRS, VALUE = 60000, 300


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def hashed(token):
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """A token file, and the servers that read it."""

    def __init__(self, path):
        self.path = path

    def write(self, *lines):
        self.path.write_text("".join(line + "\n" for line in lines))
        self.path.chmod(0o600)

    def reload(self, server, *lines):
        before = len(server.log("reloaded"))
        self.write(*lines)
        server.signal(signal.SIGHUP)
        wait_for(lambda: len(server.log("reloaded")) > before, what="the reload")


@pytest.fixture
def tokens(tmp_path):
    return Tokens(tmp_path / "tokens")


def serve(tokens, tmp_path, *lines):
    tokens.write(*lines) if lines else None
    return subprocess.run([BINARY, "serve", "--line-listen", "none", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"), "--tokens", str(tokens.path)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG)


@pytest.mark.parametrize("content,why", [
    (b"\xef\xbb\xbf" + READER.encode() + b" read *\n", "byte order mark"),
    ((READER + " read *\n").encode("utf-16"), "byte order mark"),
    (READER.encode() + b" read *\n# \x00\n" + BOSS.encode() + b" admin *\n", "line 2: a zero byte"),
    (b"fifteen-letters read *\n", "line 1: a token has 16 to 256 characters"),
    (b"x" * 257 + b" read *\n", "line 1: a token has 16 to 256 characters"),
    (b"sha256:0123 read *\n", "line 1: sha256: wants 64 hexadecimal digits"),
    (READER.encode() + b" read * expires=soon\n", "line 1: expires= wants"),
    (READER.encode() + b" read * until=2027-01-01\n", "line 1: expected TOKEN RIGHT DATABASES [expires=TIME]"),
    ((READER + " read *\n" + hashed(READER) + " admin *\n").encode(), "line 2: the token is there already")])
def test_files_that_are_refused(tokens, tmp_path, content, why):
    tokens.path.write_bytes(content)
    tokens.path.chmod(0o600)
    done = serve(tokens, tmp_path)
    assert done.returncode == 2 and why in done.stderr
    assert READER not in done.stderr and "fifteen-letters" not in done.stderr
    assert not (tmp_path / "data").exists() or os.listdir(tmp_path / "data") == []


def test_a_bad_file_at_a_reload_changes_nothing(launch, tokens):
    tokens.write(BOSS + " admin *")
    server = launch("--tokens", str(tokens.path))
    client = server.client(token=BOSS)
    for content in ("short admin *\n", "\0", "\ufeff" + BOSS + " admin *\n"):
        tokens.path.write_text(content)
        server.signal(signal.SIGHUP)
    wait_for(lambda: len(server.log("reload_failed")) >= 1, what="the failure")
    assert client.get("/kv?limit=1").status == 200
    assert all(BOSS not in line for line in server.lines)


def test_a_hash_in_place_of_the_token(launch, tokens):
    tokens.write(hashed(READER) + " read *", hashed(BOSS).upper().replace("SHA256", "sha256") + " admin *")
    tokens.path.chmod(0o644)
    server = launch("--tokens", str(tokens.path))
    assert server.client(token=READER).get("/kv?limit=1").status == 200
    assert server.client(token=READER).put("/databases/new").status == 403
    assert server.client(token=BOSS).put("/databases/new").status == 201
    for text in (hashed(READER), hashed(READER)[7:], READER + "x"):
        assert server.client(token=text).get("/kv?limit=1").status == 401
    assert not server.log("tokens_readable"), "there is no secret in it"
    tokens.path.write_text(BOSS + " admin *\n")
    server.signal(signal.SIGHUP)
    wait_for(lambda: server.log("tokens_readable"), what="the warning")


def valid_for_a_while(tokens, server, is_valid, token, *others):
    """The token is in the file with an end, and is_valid was still true with it."""
    for seconds in (2, 4, 8, 16, 32, 64):
        tokens.reload(server, *others, "%s expires=%s" % (token, stamp(seconds)))
        if is_valid():
            return
    raise AssertionError("a machine on which a minute is not long enough")


@pytest.mark.parametrize("header", ["Bearer %s", "bearer %s", "BEARER %s", "bEARER   %s", "Bearer\t%s", "  Bearer %s  "])
def test_the_scheme(launch, tokens, header):
    tokens.write(READER + " read *")
    server = launch("--tokens", str(tokens.path))
    with server.raw() as raw:
        for token, status in ((READER, 200), (OTHER, 401), (READER, 200)):
            raw.send("GET /kv?limit=1 HTTP/1.1\r\nHost: a\r\nAuthorization: %s\r\n\r\n" % (header % token))
            assert raw.answer().status == status


def test_a_kept_connection_forgets_nothing_and_keeps_nothing_too_long(launch, tokens):
    """The last valid header of a connection is kept: it counts as long as the token, and for nothing but itself."""
    tokens.write(READER + " read *", OTHER + " write *", BOSS + " admin *")
    server = launch("--tokens", str(tokens.path))
    with server.raw() as raw:
        def ask(token, path="/kv?limit=1"):
            raw.send("GET %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n" % (path, token))
            return raw.answer().status

        backup = "/databases/none/backup"
        assert [ask(READER), ask(READER), ask(READER[:-1]), ask(READER[:-1] + "8"), ask(READER + "0"), ask(READER)] == [200, 200, 401, 401, 401, 200]
        assert [ask(BOSS, backup), ask(READER, backup), ask(BOSS, backup), ask(OTHER, backup)] == [404, 403, 404, 403], "each with its own right"
        assert ask("", "/kv") == 401
        valid_for_a_while(tokens, server, lambda: ask(BOSS) == 200, BOSS + " admin *", READER + " read *", OTHER + " write *")
        wait_for(lambda: ask(BOSS) == 401, what="the expiry")
        assert ask(READER) == 200
        tokens.reload(server, OTHER + " write *")
        assert [ask(READER), ask(OTHER)] == [401, 200]
        tokens.reload(server, OTHER + " read *", READER + " admin *")
        assert [ask(READER, backup), ask(OTHER, backup)] == [404, 403]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A server with more than the sockets can hold, and its token file."""
    import harness
    tokens = Tokens(tmp_path_factory.mktemp("tokens") / "tokens")
    tokens.write(BOSS + " admin *")
    server = harness.Server("--durability", "os", "--tokens", str(tokens.path), "--shards", "2", "--idle-timeout", "3600")
    client = server.client(token=BOSS, check=False, db="a")
    lines = [{"op": "pair_put", "pair": b64(b"s:%06d" % i), "value": b64(b"v" * VALUE)} for i in range(PAIRS)]
    for at in range(0, PAIRS, 20000):
        assert client.batch(lines[at:at + 20000], results="false").status == 200
    server.tokens = tokens
    yield server
    server.finish()


def begin_stream(server, token, target="/pairs/*?values=true&db=a"):
    """None: the token is not valid any more."""
    raw = server.raw(receive_buffer=8192)
    raw.send("GET %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n" % (target, token))
    if raw.head()[0] == 401:
        raw.close()
        return None
    raw.chunk()
    return raw


def last_line(raw, slowly=False):
    """slowly: so that the streams are looked at, which is done five times a second, before it is read to its end."""
    data, part, read = b"", raw.chunk(), 0
    while part:
        data, part, read = (data + part)[-100000:], raw.chunk(), read + len(part)
        if slowly and read > 1 << 18:
            read = 0
            time.sleep(0.05)
    assert data.endswith(b"\n")
    return json.loads(data.splitlines()[-1])


def test_a_revoked_token_ends_its_streams(filled):
    tokens = filled.tokens
    tokens.reload(filled, BOSS + " admin *", READER + " read *", OTHER + " read a")
    streams = {name: begin_stream(filled, token) for name, token in (("revoked", READER), ("moved", OTHER), ("kept", BOSS))}
    tokens.reload(filled, OTHER + " read b", "# first a comment", hashed(BOSS) + " admin *")
    for name in ("revoked", "moved"):
        line = last_line(streams[name], slowly=True)
        assert line["error"]["code"] == "unauthorized" and line["error"]["status"] == 401, (name, line)
    assert last_line(streams["kept"])["end"]["count"] == PAIRS, "the same token, as a hash and in another line"
    assert filled.client(token=READER).get("/kv?limit=1").status == 401
    for raw in streams.values():
        raw.close()


def test_an_expired_token_ends_its_streams(filled):
    streams = []

    def has_begun():
        streams.append(begin_stream(filled, READER, "/pairs/*?db=a&values=true"))
        return streams[-1]

    valid_for_a_while(filled.tokens, filled, has_begun, READER + " read *", BOSS + " admin *")
    stream, kept = streams[-1], begin_stream(filled, BOSS)
    client = filled.client(token=READER)
    wait_for(lambda: client.get("/kv?limit=1").status == 401, what="the expiry")
    assert last_line(stream, slowly=True)["error"]["code"] == "unauthorized"
    assert last_line(kept)["end"]["count"] == PAIRS
    stream.close()
    kept.close()


def test_a_revoked_token_cannot_finish_its_upload(filled):
    filled.tokens.reload(filled, BOSS + " admin *", OTHER + " write *")
    body = ndjson([{"op": "pair_put", "pair": b64(b"late:%d" % i), "value": b64(b"v")} for i in range(10)])
    with filled.raw() as raw:
        raw.send("POST /batch?db=a&atomic=true HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Type: application/x-ndjson\r\n"
                 "Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (OTHER, len(body)))
        assert raw.head()[0] == 100, "it has begun"
        raw.send(body[:-20])
        filled.tokens.reload(filled, BOSS + " admin *")
        assert raw.closed()
    boss = filled.client(token=BOSS, db="a")
    assert boss.get("/pairs/late:?count=true").json()["pairs"] == 0
    assert boss.get("/pairs/" + hexed(b"s:000001"), exact="true").status == 200
