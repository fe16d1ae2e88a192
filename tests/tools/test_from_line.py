"""cheetah-db import --from-line: out of a server that speaks the line protocol. Most of it against a small one written here,
whose answers are those of the contract; then against our own."""
import random
import re
import socketserver
import threading
import time

import pytest
from tooling import (MARKER, FLAGS, b64, contents, export, fill, hexed, kill_as_it_goes, read, spawn, start, summary, tool, unb64, url, wait_for)
from harness import Server, certificates


class LineServer:
    """The line protocol over a dict. dies_after: closes every connection after so many answers. delay: seconds a page."""

    def __init__(self, pairs, values, token=None, dies_after=None, delay=0.0):
        self.databases = {"default": (dict(pairs), dict(values))}
        self.token, self.dies_after, self.delay = token, dies_after, delay
        self.commands = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                state = {"database": "default", "known": outer.token is None}
                count = 0
                try:
                    while True:
                        line = self.rfile.readline()
                        if not line:
                            return
                        answer = outer.answer(state, line.rstrip(b"\r\n"))
                        count += 1
                        if outer.dies_after is not None and count > outer.dies_after:
                            return
                        self.wfile.write(answer + b"\n")
                except OSError:
                    pass  # the other side is gone

        class Many(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self.server = Many(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def where(self):
        return "127.0.0.1:%d" % self.port

    def answer(self, state, line):
        word, _, rest = line.partition(b" ")
        self.commands.append(line)
        if word == b"AUTH":
            state["known"] = rest.decode() == self.token
            return b"SUCCESS,authenticated" if state["known"] else b"ERROR,unauthorized"
        if not state["known"]:
            return b"ERROR,unauthorized"
        if word == b"DATABASE":
            state["database"] = rest.decode()
            self.databases.setdefault(state["database"], ({}, {}))
            return b"SUCCESS,database_changed_to_" + rest
        pairs, values = self.databases[state["database"]]
        if word == b"READ":
            value = values.get(int(rest))
            return b"ERROR,key_not_found" if value is None else b"SUCCESS,size=%d,value=%s" % (len(value), value)
        if word == b"PAIR_SCAN":
            time.sleep(self.delay)
            return self.scan(pairs, rest.split(b" "))
        return b"ERROR,unknown_command"

    def scan(self, pairs, arguments):
        assert arguments[0] == b"*"
        limit = int(arguments[1])
        assert 0 < limit <= 4096
        after = bytes.fromhex(arguments[2][1:].decode()) if len(arguments) > 2 else b""
        names = sorted(name for name in pairs if name > after)
        page = names[:limit]
        items = b";".join(b"%s:%d" % (name.hex().encode(), pairs[name]) for name in page)
        more = b",next_cursor=x" + page[-1].hex().encode() if len(names) > limit else b""
        return b"SUCCESS,count=%d%s,items=%s" % (len(page), more, items)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def line():
    servers = []

    def launched(*args, **more):
        servers.append(LineServer(*args, **more))
        return servers[-1]

    yield launched
    for server in servers:
        server.close()


def copy(line_server, server, *flags, check=0, **more):
    return tool("import", "--from-line", line_server.where, "--connect", url(server), *flags, check=check, **more)


def payload(rng, most=400):
    return bytes(rng.choice(b"\0\1\r ,;=\xff" + bytes(range(11, 256))) for _ in range(rng.randrange(1, most)))


def random_data(count, seed=1, most=400):
    """Keys in no order of the names, some shared, some dangling, some values that nobody leads to."""
    rng = random.Random(seed)
    names = sorted({rng.randbytes(rng.randrange(1, 20)) for _ in range(count)})
    values = {key: payload(rng, most) for key in range(1, count + 1) if rng.random() < 0.95}
    return {name: rng.randrange(1, count + 1) for name in names}, values


def expected(pairs, values, move=0):
    led = set(pairs.values())
    return {name: key + move for name, key in pairs.items()}, {key + move: value for key, value in values.items() if key in led}


def test_copy(launch, line):
    pairs, values = random_data(9000)
    there, here = line(pairs, values), launch()
    want = expected(pairs, values)
    done = summary(copy(there, here, "--json"))
    assert done == {"from": there.where, "database": "default", "pairs": len(pairs), "values": len(want[1]), "key_offset": 0, "undecoded": 0,
                    "resumed": False}
    assert contents(here.client()) == want
    reads = [command for command in there.commands if command.startswith(b"READ")]
    assert len(reads) <= len(set(pairs.values())) + 50, "a key is read once, however many names it has"
    assert here.client().get("/pairs/" + hexed(MARKER), exact="true").status == 404


def test_payloads_of_every_kind(launch, line):
    every = bytes(byte for byte in range(256) if byte != 10)
    values = {1: every, 2: b"\r", 3: b"a\r", 4: b",value=", 5: b"ERROR,key_not_found", 6: bytes(3 << 20), 7: b"x" * 70000, 8: b";:"}
    pairs = {b"\0" * 4096: 1, b"\xff" * 4096: 2, b"a": 3, b"b": 4, b"c": 5, b"d": 6, b"e": 7, b"f": 8, every: 8, b"\n": 8, b"gone": 9}
    there, here = line(pairs, values), launch()
    copy(there, here)
    assert contents(here.client()) == (pairs, values)


def test_nothing_there(launch, line):
    there, here = line({}, {}), launch()
    assert summary(copy(there, here, "--json"))["pairs"] == 0
    assert contents(here.client()) == ({}, {})


def test_only_dangling_pairs_with_enormous_keys(launch, line):
    pairs = {b"a": (1 << 48) - 1, b"b": 1 << 40, b"c": 7}
    there, here = line(pairs, {}), launch()
    copy(there, here)
    assert contents(here.client()) == (pairs, {})


def test_dangling_keys_above_the_values(launch, line):
    pairs = {b"p%05d" % i: (1 << 30) + i for i in range(900)}
    pairs.update({b"v%d" % i: i for i in range(1, 50)})
    values = {i: b"value %d" % i for i in range(1, 50)}
    there, here = line(pairs, values), launch()
    copy(there, here)
    assert contents(here.client()) == (pairs, values)
    assert here.client().insert(b"new") < 200


def test_databases(launch, line):
    there, here = line({b"d": 1}, {1: b"of default"}), launch()
    there.databases["other"] = ({b"o": 1}, {1: b"of other"})
    copy(there, here, "--database", "other")
    assert contents(here.client(db="other")) == ({b"o": 1}, {1: b"of other"})
    copy(there, here, "--database", "third", "--from-database", "other", "--shards", "2")
    assert contents(here.client(db="third")) == ({b"o": 1}, {1: b"of other"})
    copy(there, here)
    assert contents(here.client()) == ({b"d": 1}, {1: b"of default"})
    assert "not empty" in copy(there, here, check=1).stderr
    copy(there, here, "--merge")
    pairs, values = contents(here.client())
    assert list(pairs) == [b"d"] and sorted(values.values()) == [b"of default"] * 2 and values[pairs[b"d"]] == b"of default"


def test_merge(launch, line):
    pairs, values = random_data(3000, seed=9)
    there, here = line(pairs, values), launch()
    fill(here.client(), 200)
    before = contents(here.client())
    move = summary(copy(there, here, "--merge", "--json"))["key_offset"]
    want = expected(pairs, values, move)
    assert contents(here.client()) == ({**before[0], **want[0]}, {**before[1], **want[1]})


def test_decode_base64(launch, line):
    rng = random.Random(3)
    plain = {key: rng.randbytes(rng.randrange(1, 300)) for key in range(1, 200)}
    pairs = {b"p%d" % key: key for key in plain}
    there, here = line(pairs, {key: b64(value).encode() for key, value in plain.items()}), launch()
    copy(there, here, "--decode-base64")
    assert contents(here.client()) == (pairs, plain)


@pytest.mark.parametrize("bad", [b"abc", b"ab=c", b"a===", b"YQ", b"YR==", b"YQ==\r", b" YQ==", b"Y-==", b"\xff", b"===="])
def test_what_is_not_base64(launch, line, bad):
    pairs, values = {b"a": 1, b"bad": 2, b"c": 3}, {1: b"YQ==", 2: bad, 3: b"Yw=="}
    there, here = line(pairs, values), launch()
    done = copy(there, here, "--decode-base64", check=1)
    assert "x" + b"bad".hex() in done.stderr and "--keep-undecodable" in done.stderr
    assert "has not finished" in copy(there, here, check=1).stderr, "it was to be decoded, and is not any more"
    done = summary(copy(there, here, "--decode-base64", "--keep-undecodable", "--json"))
    assert done["undecoded"] == 1 and done["resumed"] is True
    assert contents(here.client()) == (pairs, {1: b"a", 2: bad, 3: b"c"})


def test_an_empty_payload(launch, line):
    there, here = line({b"p": 1}, {1: b""}), launch()
    assert "empty" in copy(there, here, check=1).stderr


def test_the_other_server_goes_away(launch, line):
    """It dies again and again; each run takes it further."""
    pairs, values = random_data(15000, seed=4)
    there, here = line(pairs, values), launch()
    there.dies_after = 4
    assert "closed the connection" in copy(there, here, check=1).stderr
    there.dies_after = 6000
    runs = 0
    while True:
        done = copy(there, here, check=None)
        if done.returncode == 0:
            break
        assert done.returncode == 1 and "closed the connection" in done.stderr
        runs += 1
        assert runs < 20
    assert runs >= 2 and "went on" in done.stdout
    assert contents(here.client()) == expected(pairs, values)


def test_kill(launch, line, tmp_path):
    pairs, values = random_data(25000, seed=5, most=200)
    there, here, twin = line(pairs, values, delay=0.05), launch(), launch()
    client = here.client(check=False)
    assert kill_as_it_goes(client, ("import", "--from-line", there.where, "--connect", url(here)), 4, random.Random(6)) >= 2
    assert "went on" in copy(there, here).stdout
    copy(there, twin)
    assert export(here, tmp_path / "a") == export(twin, tmp_path / "b")
    assert contents(client) == expected(pairs, values)
    here.stop()
    tool("check", here.data)


def test_a_small_target(launch, line):
    pairs, values = random_data(3000, seed=7)
    values[1] = bytes(range(11, 256)) * 3000
    pairs[b"large"] = 1
    there, here = line(pairs, values), launch("--max-batch-ops", "50", "--max-batch-bytes", "2M")
    done = summary(copy(there, here, "--json"))
    want = expected(pairs, values)
    assert contents(here.client()) == want and done["pairs"] == len(pairs) and done["values"] == len(want[1])


def test_the_source_grows_meanwhile(launch, line):
    pairs, values = random_data(9000, seed=8)
    there, here = line(pairs, values, delay=0.3), launch()
    process = spawn("import", "--from-line", there.where, "--connect", url(here))
    wait_for(lambda: sum(command.startswith(b"PAIR_SCAN") for command in there.commands) > 4, 30)
    there.databases["default"][0][b"\xff\xff new"] = 9999999
    there.databases["default"][1][9999999] = b"new"
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and b"written to while it is copied" in err


def test_tokens(launch, line, tmp_path):
    there, here = line({b"p": 1}, {1: b"v"}, token="a-token-of-the-line"), launch()
    (tmp_path / "token").write_text("a-token-of-the-line\n")
    (tmp_path / "wrong").write_text("another\n")
    assert "unauthorized" in copy(there, here, check=1).stderr
    assert "unauthorized" in copy(there, here, "--from-token-file", tmp_path / "wrong", check=1).stderr
    copy(there, here, "--from-token-file", tmp_path / "token")
    assert contents(here.client()) == ({b"p": 1}, {1: b"v"})


def test_nobody_there(launch):
    here = launch()
    done = tool("import", "--from-line", "127.0.0.1:1", "--connect", url(here), check=1)
    assert "127.0.0.1:1" in done.stderr
    done = tool("import", "--from-line", "nonsense", "--connect", url(here), check=2)
    assert done.stderr


@pytest.mark.parametrize("answer", [b"ERROR,unknown_command", b"HTTP/1.1 400 Bad Request", b"SUCCESS,count=1", b"SUCCESS,count=1,items=zz:1",
                                    b"SUCCESS,count=1,items=61:0", b"SUCCESS,count=1,items=61", b"SUCCESS,count=1,items=6:1",
                                    b"SUCCESS,count=1,items=61:281474976710656", b"\0\xff"])
def test_an_answer_that_is_none(launch, line, answer):
    there, here = line({b"p": 1}, {1: b"v"}), launch()
    there.scan = lambda *_: answer
    done = copy(there, here, check=1)
    assert done.stderr and contents(here.client()) == ({}, {})


@pytest.mark.parametrize("answer", [b"SUCCESS,size=5,value=abcd", b"SUCCESS,size=3,value=abcd", b"SUCCESS,size=-1,value=abcd", b"ERROR,io_error", b"SUCCESS",
                                    b"SUCCESS,size=99999999999,value=a"])
def test_a_value_that_is_none(launch, line, answer):
    there, here = line({b"p": 1, b"q": 2}, {1: b"v", 2: b"w"}), launch()
    original = there.answer
    there.answer = lambda state, text: answer if text == b"READ 1" else original(state, text)
    done = copy(there, here, check=1, timeout=120)
    assert done.stderr
    there.answer = original
    copy(there, here)
    assert contents(here.client()) == ({b"p": 1, b"q": 2}, {1: b"v", 2: b"w"})


# ---- our own server on the other side --------------------------------------------------------------------------------


def test_out_of_our_own_server(launch, tmp_path):
    port_file = tmp_path / "line-port"
    there, here = launch("--line-port-file", str(port_file)), launch()
    client = there.client()
    fill(client, 6000, seed=10)
    client.upsert(b"with line breaks", b"a\nb\n\nc")
    client.upsert(b"\0" * 4096, bytes(range(256)) * 1000)
    client.map(b"dangling", 123456)
    pairs, values = contents(client)
    where = "127.0.0.1:" + wait_for(lambda: port_file.exists() and port_file.read_text().strip(), 10)
    tool("import", "--from-line", where, "--connect", url(here))
    assert contents(here.client()) == expected(pairs, values)
    done = summary(tool("import", "--from-line", where, "--connect", url(here), "--database", "kept", "--from-database", "default",
                        "--decode-base64", "--keep-undecodable", "--json"))
    kept = contents(here.client(db="kept"))
    assert kept[0] == pairs and kept[1].keys() == expected(pairs, values)[1].keys()
    for key, value in kept[1].items():
        assert value == values[key] or b64(value).encode() == values[key]
    assert done["undecoded"] == sum(value == values[key] for key, value in kept[1].items())


def test_over_tls(launch, tmp_path):
    """With a certificate in place of a token; what is not trusted, or not given, ends it before anything is made."""
    authority, shown = certificates.Authority(tmp_path), certificates.self_signed(tmp_path)
    reader, tokens, port_file = authority.sign("reader"), tmp_path / "tokens", tmp_path / "line-port"
    tokens.write_text("cert:reader read *\nadmin-token-0123456789 admin *\n")
    tokens.chmod(0o600)
    there = launch("--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-client-ca", authority.cert, "--tokens", str(tokens), "--line-tls",
                   "--line-port-file", str(port_file), scheme="https", cafile=shown.cert)  # fmt: skip
    here = launch()
    client = there.client(token="admin-token-0123456789")
    fill(client, 3000, seed=11)
    client.upsert(b"large", b"v" * 3000000)
    pairs, values = contents(client)
    where = "localhost:" + wait_for(lambda: port_file.exists() and port_file.read_text().strip(), 10)

    def run(*flags, check=0):
        return tool("import", "--from-line", where, "--connect", url(here), *flags, check=check, timeout=120)

    mine = ("--from-tls-cert", reader.cert, "--from-tls-key", reader.key)
    assert where in run(check=1).stderr, "plain text to a port that speaks TLS"
    assert "NOT trusted" in run("--from-tls", *mine, check=1).stderr
    assert "NOT trusted" in run("--from-tls-ca", authority.cert, *mine, check=1).stderr
    assert "unauthorized" in run("--from-tls-ca", shown.cert, check=1).stderr
    assert "go together" in run("--from-tls-ca", shown.cert, *mine[:2], check=2).stderr
    assert "go with" in tool("import", tmp_path / "file", "--from-tls", "--connect", url(here), check=2).stderr
    assert contents(here.client()) == ({}, {})
    run("--from-tls-ca", shown.cert, *mine)
    assert contents(here.client()) == expected(pairs, values)
    (tmp_path / "token").write_text("admin-token-0123456789\n")
    run("--from-tls-ca", shown.cert, "--from-token-file", tmp_path / "token", "--database", "copy", "--from-database", "default")
    assert contents(here.client(db="copy")) == expected(pairs, values)
