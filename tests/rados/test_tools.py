"""The tools on a pool: --store rados in place of a running server, beside servers or without any; migration from files and back."""
import contextlib
import json
import os
import subprocess

import harness
import pytest
import tooling
from harness import hexed, rados, unb64
from tooling import read, tool

pytestmark = pytest.mark.skipif(not rados.WANTED, reason="CHT_STORE=rados: see tests/rados/README.md")


@pytest.fixture(scope="module")
def pool():
    name = rados.pool("tools of %d" % os.getpid())
    yield name
    rados.drop(name)


@contextlib.contextmanager
def on_files(path):
    """A server on files, as if CHT_STORE were not set."""
    was, rados.WANTED = rados.WANTED, False
    try:
        server = harness.Server("--access-log", "false", "--shards", "4", data=str(path))
    finally:
        rados.WANTED = was
    try:
        yield server
    finally:
        server.finish()


def place(pool):
    return rados.store(pool)


class Objects:
    """The objects of a database, by the program `rados`."""

    def __init__(self, pool, database, folder):
        self.common, self.file = ["rados", "-c", rados.CONF, "-p", pool], str(folder / "row")
        self.space = []
        self.space = ["-N", self.row("cheetah", b"d" + database.encode())[1:33].decode()]

    def __call__(self, *words, **more):
        return subprocess.run(self.common + self.space + list(words), check=True, capture_output=True, timeout=60, **more).stdout

    def row(self, name, row):
        self("getomapval", name, row, self.file)
        return read(self.file)

    def put(self, name, row, value):
        self("setomapval", name, row, input=value)

    def rows(self, kind):
        """{row: its object} of a kind, in 8 shards."""
        return {row: "s.%d" % shard for shard in range(8) for row in self("listomapkeys", "s.%d" % shard).split(b"\n") if row.startswith(kind)}


def test_who_looks_makes_nothing(pool):
    """The first test of the pool: it is empty, like one that is named by mistake, and stays so."""
    def objects():
        return subprocess.run(["rados", "-c", rados.CONF, "-p", pool, "ls", "--all"], check=True, capture_output=True, timeout=60).stdout

    assert objects() == b""
    for words in (("check",), ("get", "a"), ("list",), ("stat",), ("drop", "default", "--yes")):
        assert "there are no databases in pool " + pool in tool(*words, *place(pool), check=1).stderr
    assert objects() == b""
    tool("create", "first", *place(pool))
    assert tool("check", *place(pool)).stdout == "" and objects() != b""


def test_from_files_and_back(pool, tmp_path):
    """export | import, both ways: the same bytes; and a backup of files into the pool."""
    with on_files(tmp_path / "data") as server:
        tooling.fill(server.client(), 300)
        tooling.awkward(server.client())
        assert server.client().put("/pairs/ends", b"v", ttl="1000000").status == 201
        first = tooling.export(server, tmp_path / "1")
        tool("backup", tmp_path, "--connect", tooling.url(server))
    backup = next(path for path in tmp_path.iterdir() if path.suffix == ".cheetah")
    done = tool("import", tmp_path / "1", "--database", "moved", "--json", *place(pool))
    assert json.loads(done.stdout)["key_offset"] == 0
    tool("export", tmp_path / "2", "--database", "moved", *place(pool))
    assert read(tmp_path / "2").replace(b'"moved"', b'"default"').split(b'{"end"')[0] == first.split(b'{"end"')[0]
    with on_files(tmp_path / "back") as server:
        tool("import", tmp_path / "2", "--database", "default", "--connect", tooling.url(server))
        assert tooling.export(server, tmp_path / "3") == first
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    told = json.loads(tool("restore", backup, "--database", "restored", "--scratch", scratch, "--json", *place(pool)).stdout)
    assert told["database"] == "restored" and told["restored"] and list(scratch.iterdir()) == []
    tool("export", tmp_path / "4", "--database", "restored", *place(pool))
    assert read(tmp_path / "4").split(b'{"end"')[0].split(b"\n", 1)[1] == first.split(b'{"end"')[0].split(b"\n", 1)[1]
    assert "moved exists already" in tool("restore", backup, "--database", "moved", *place(pool), check=1).stderr
    (tmp_path / "cut").write_bytes(backup.read_bytes()[:-1])
    assert "end" in tool("restore", tmp_path / "cut", "--database", "cut", "--scratch", scratch, *place(pool), check=3).stderr
    assert list(scratch.iterdir()) == []
    assert set(tool("list", *place(pool)).stdout.split()) & {"cut", "moved", "restored"} == {"moved", "restored"}
    for name in ("moved", "restored"):
        assert tool("check", "--database", name, *place(pool)).stdout == ""


def test_backups_over_http_both_ways(tmp_path):
    """A backup of files into a server on a pool, and one of that into a server on files: the same names, keys, values and ends. One that is not
    whole, or that a server takes with it when it is killed, leaves no database and no file."""
    body = {"Content-Type": "application/octet-stream"}
    spool = tmp_path / "spool"
    spool.mkdir()

    def lines(client):
        return (client.get("/pairs/*", values="true", expires="true").body, client.get("/kv", limit="1000").body)

    with on_files(tmp_path / "data") as server:
        tooling.fill(server.client(), 300)
        tooling.awkward(server.client())
    with on_files(tmp_path / "data") as server:  # a log that was done with
        client = server.client()
        assert client.put("/pairs/ends", b"v", ttl="1000000").status == 201
        backup, there = client.get("/databases/default/backup").body, lines(client)
    one = harness.Server("--access-log", "false", "--rados-spool", str(spool))
    two = harness.Server("--access-log", "false", "--rados-spool", "/nothing/is/there", data=one.data)
    try:
        client = one.client()
        for wrong in (backup[:-1], backup[:-200] + b"x" * 200):
            answer = client.put("/databases/again/restore", wrong, headers=body)
            assert (answer.status, answer.code) == (400, "invalid_backup")
            assert client.get("/databases/again").status == 404 and list(spool.iterdir()) == []
        answer = two.client().put("/databases/again/restore", backup, headers=body)
        assert (answer.status, answer.code) == (501, "not_supported")
        assert client.put("/databases/again/restore", backup, headers=body).status == 201
        assert lines(one.client(db="again")) == there and lines(two.client(db="again")) == there
        again = client.get("/databases/again/backup").body
        with contextlib.closing(one.raw()) as raw:  # it is killed when most of it is there
            raw.send(b"PUT /databases/killed/restore HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
                     % len(backup) + backup[:-100])
            harness.wait_for(lambda: two.client().delete("/databases/killed", confirm="killed").code == "database_busy", 60, "it is begun")
            one.kill()
        assert two.client().get("/databases/killed").status == 404 and list(spool.iterdir()) == []
    finally:
        two.pool = None
        harness.finish_all([two, one])
    with on_files(tmp_path / "back") as server:
        client = server.client()
        assert client.put("/databases/back/restore", again, headers=body).status == 201
        assert lines(server.client(db="back")) == there


def test_beside_a_server(pool, tmp_path):
    """One-shots, stat and top see what a server on the pool has written, and the other way round."""
    server = harness.Server("--access-log", "false", data="tools of %d" % os.getpid())
    client = server.client()
    client.upsert(b"by the server", b"1")
    assert tool("get", "by the server", *place(pool)).stdout == "1"
    tool("put", "by the tool", "22", *place(pool))
    assert unb64(client.get("/pairs/" + hexed(b"by the tool"), exact="true", values="true").json()["value"]) == b"22"
    seen = json.loads(tool("stat", "default", "--json", *place(pool)).stdout)
    assert (seen["pairs"], seen["values"], seen["value_bytes"]) == (2, 2, 3) and seen["places"] and "trie" not in seen
    assert json.loads(tool("stat", "default", "--json", "--connect", tooling.url(server)).stdout)["pairs"] == 2
    assert "pairs" in tool("stat", "default", *place(pool)).stdout
    looked = json.loads(tool("top", "--once", "--json", "--connect", tooling.url(server)).stdout)
    assert looked
    assert "default" in tool("list", *place(pool)).stdout
    assert tool("check", "--json", *place(pool)).stdout.splitlines()[-1] == '{"findings":0,"complete":true}'
    server.pool = None
    server.finish()


def test_backup(pool, tmp_path):
    """Of a pool, by a server or without: whatever it is restored into has the same names, keys and values."""
    def exported(file, *where):
        tool("export", tmp_path / file, *where)
        return read(tmp_path / file).split(b'{"end"')[0].split(b"\n", 1)[1]

    server = harness.Server("--access-log", "false", data="tools of %d" % os.getpid())
    tooling.fill(server.client(db="kept"), 300)
    tooling.awkward(server.client(db="kept"))
    told = [json.loads(tool("backup", tmp_path / folder, "--database", "kept", "--json", *where).stdout)
            for folder, where in (("a", ("--connect", tooling.url(server))), ("b", place(pool)))]
    assert told[0]["database"] == "kept" and {key: told[0][key] for key in ("position", "shards")} == {key: told[1][key] for key in ("position", "shards")}
    server.pool = None
    server.finish()
    was = exported("1", "--database", "kept", *place(pool))
    for i, one in enumerate(told):
        assert tool("restore", one["file"], "--verify").returncode == 0
        tool("restore", one["file"], "--data", tmp_path / ("data%d" % i))
        assert exported("2%d" % i, "--database", "kept", "--data", tmp_path / ("data%d" % i)) == was
    tool("restore", told[0]["file"], "--database", "again", *place(pool))
    assert exported("3", "--database", "again", *place(pool)) == was
    assert tool("check", "--database", "again", *place(pool)).stdout == ""
    for name in ("kept", "again"):
        tool("drop", name, "--yes", *place(pool))
    listed = subprocess.run(["rados", "-c", rados.CONF, "-p", pool, "lssnap"], check=True, capture_output=True, timeout=60, text=True).stdout
    assert "0 snaps" in listed


def test_what_check_finds(pool, tmp_path):
    """A value that was changed, a row that is no row, a name and a key that do not know each other, counters, an object that is gone."""
    tool("create", "broken", *place(pool))
    for name, value in ((b"a:0", b"value 0"), (b"a:1", b"value 1"), (b"long", os.urandom(200 << 10))):
        (tmp_path / "value").write_bytes(value)
        tool("put", name.decode(), "--file", tmp_path / "value", "--database", "broken", *place(pool))
    check = ["check", "--json", "--database", "broken", *place(pool)]
    assert tool(*check).stdout == '{"findings":0,"complete":true}\n'
    there = Objects(pool, "broken", tmp_path)
    names, keys = there.rows(b"P"), there.rows(b"K")
    assert sorted(names) == [b"Pa:0", b"Pa:1", b"Plong"] and len(keys) == 3
    zero, one, long = names[b"Pa:0"], names[b"Pa:1"], names[b"Plong"]

    def found(*parts):
        lines = [json.loads(line) for line in tool(*check, check=1).stdout.splitlines()]
        assert lines[-1] == {"findings": len(lines) - 1, "complete": True}
        told = [line["where"] + ": " + line["what"] for line in lines[:-1]]
        assert len(told) == len(parts) and all(any(part in text for text in told) for part in parts), told

    def repaired(name, row, value):
        there.put(name, row, value)
        assert tool(*check).stdout == '{"findings":0,"complete":true}\n'

    good = there.row(zero, b"Pa:0")
    there.put(zero, b"Pa:0", good[:-1] + b"!")
    found('broken %s: "a:0": the value does not match its sum' % zero)
    assert "checksum" in tool("backup", tmp_path / "none", "--database", "broken", *place(pool), check=3).stderr
    assert list((tmp_path / "none").iterdir()) == []
    there.put(zero, b"Pa:0", b"short")
    found('the row of "a:0" cannot be read', 'says that "a:0" has its value, and the name does not', "values, and their counter", "bytes, and their counter")
    repaired(zero, b"Pa:0", good)
    key = next(row for row in keys if there.row(keys[row], row).endswith(b"a:1"))
    good = there.row(one, key)
    there("rmomapkey", one, key)
    found('"a:1" has a value under key')
    repaired(one, key, good)
    good = there.row(one, b"Ca:")
    there.put(one, b"Ca:", b"7")
    found('pairs under "a:", and their counter says 7')
    there.put(one, b"Ca:", good)
    there.put(one, b"Cb:", b"1")
    found("1 counters are of prefixes under which nothing is")
    repaired(one, b"Cb:", b"0")
    there("rm", next(name for name in there("ls").decode().split() if name.startswith("v.")))
    found('broken %s: "long": ' % long)
    tool("drop", "broken", "--yes", *place(pool))


def test_options(tmp_path):
    for words, said in ((("get", "a", "--rados-pool", "x"), "--rados-... is for --store rados"),
                        (("get", "a", "--store", "rados"), "needs --rados-pool"),
                        (("stat", "--store", "local"), "--store is rados"),
                        (("export", "-", "--store", "rados", "--rados-pool", "x", "--data", str(tmp_path)), "a place of its own"),
                        (("import", "f", "--store", "rados", "--rados-pool", "x", "--connect", "h:1"), "a place of its own"),
                        (("check", str(tmp_path), "--store", "rados", "--rados-pool", "x"), "a place of its own"),
                        (("backup", "d", "--store", "rados", "--rados-pool", "x", "--connect", "h:1"), "a place of its own"),
                        (("restore", "f", "--scratch", "x"), "--scratch goes with --store rados")):
        assert said in tool(*words, check=2).stderr
    missing = tool("stat", "--store", "rados", "--rados-pool", "not-there", "--rados-conf", rados.CONF, check=1)
    assert "there is no pool not-there" in missing.stderr
