"""Restore into a running server: `cheetah-db restore FILE` and PUT /databases/{name}/restore. Until all of a backup is there and was whole there is no
database, and nobody waits for one that is on its way."""
import json
import os
import socket
import threading
import time

import pytest
from tooling import contents, fill, start, tool, url, wait_for


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A backup of several pieces, and what is in it."""
    server = start()
    client = server.client()
    names = fill(client, 3000, value_bytes=4000)
    folder = tmp_path_factory.mktemp("backups")
    done = tool("backup", folder, "--connect", url(server), "--json")
    path = json.loads(done.stdout)["file"]
    truth = contents(client)
    server.finish()
    with open(path, "rb") as file:
        content = file.read()
    assert len(names) > 2000 and len(content) > 4 << 20
    return path, content, truth


def put(client, name, body, **more):
    return client.put("/databases/%s/restore" % name, body, headers={"Content-Type": "application/octet-stream"}, **more)


class Sender:
    """The head of a restore and some of its body, on a connection of its own."""

    def __init__(self, server, name, total):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=120)
        self.socket.sendall(b"PUT /databases/%s/restore HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (name.encode(), total))

    def send(self, data):
        self.socket.sendall(data)

    def status(self):
        return int(self.socket.recv(65536).split()[1])


def databases(client):
    return client.get("/databases").json()["databases"]


def test_the_tool(source, launch):
    path, _, truth = source
    server = launch()
    done = tool("restore", path, "--connect", url(server), "--database", "copy")
    assert url(server) in done.stdout and "restored and checked" in done.stdout
    assert contents(server.client(db="copy")) == truth
    summary = json.loads(tool("restore", path, "--database", "second", "--json", env={"CHEETAH_URL": url(server)}).stdout)
    assert summary["database"] == "second" and summary["restored"] and summary["bytes"] == os.path.getsize(path)
    before = server.client(db="copy").get("/databases/copy").json()["log"]["position"]
    assert "exists" in tool("restore", path, "--connect", url(server), "--database", "copy", check=1).stderr
    assert "exists" in tool("restore", path, "--connect", url(server), check=1).stderr, "the name in the file is default, which is there"
    assert server.client().get("/databases/copy").json()["log"]["position"] == before
    assert "--keep" in tool("restore", path, "--keep", "--connect", url(server), check=2).stderr
    server.client(db="copy").upsert(b"new", b"value")
    server.stop()
    tool("check", "--data", server.data)
    assert tool("get", "new", "-d", "copy", "--data", server.data).stdout == "value"


def test_a_file_that_is_no_whole_backup(source, launch, tmp_path):
    """The exit code is that of damage, and nothing is there afterwards."""
    _, content, _ = source
    server = launch()
    middle = bytearray(content)
    middle[len(content) // 2] ^= 1
    for bad in (content[:-1], content[:len(content) // 2], bytes(middle), b"", b"nonsense" * 1000, content + b"x"):
        (tmp_path / "bad").write_bytes(bad)
        tool("restore", tmp_path / "bad", "--connect", url(server), "--database", "bad", check=3)
        answer = None
        while answer is None or answer.json()["code"] == "database_busy":  # the tool has just hung up, and the server is about to see it
            answer = put(server.client(), "bad", bad)
        assert (answer.status, answer.json()["code"]) == (400, "invalid_backup"), answer
        assert databases(server.client()) == ["default"] and not os.path.exists(os.path.join(server.data, "bad"))
    assert put(server.client(), "bad", content).status == 201, "the name is free"


def test_over_http(source, launch):
    _, content, truth = source
    server = launch()
    client = server.client()
    answer = put(client, "copy", content)
    assert answer.status == 201 and answer.headers["Location"] == "/databases/copy" and answer.json()["pairs"] == len(truth[0])
    assert contents(server.client(db="copy")) == truth
    assert put(client, "copy", content).json()["code"] == "database_exists"
    assert put(client, "COPY", content).json()["code"] == "database_case_conflict"
    assert put(client, "no.name", content).json()["code"] == "invalid_database_name"


def test_nobody_waits_for_a_restore(source, launch):
    """While one is on its way the name is taken: each call about it is answered at once, other databases are served, and a second restore is refused."""
    _, content, truth = source
    server = launch("--body-timeout", "3")
    client = server.client()
    sender = Sender(server, "copy", len(content))
    half, begun, asked = len(content) // 2, time.monotonic(), threading.Event()
    sender.send(content[:half])

    def trickle():
        """Longer than --body-timeout, but it moves."""
        at = half
        while at < len(content) - 1000 and not (asked.is_set() and time.monotonic() - begun > 4):
            sender.send(content[at:at + 10])
            at += 10
            time.sleep(0.1)
        sender.send(content[at:])

    moving = threading.Thread(target=trickle)
    moving.start()
    wait_for(lambda: os.path.exists(os.path.join(server.data, "copy")), 60, "the folder")
    started = time.monotonic()
    for answer in (client.get("/databases/copy"), client.get("/pairs/*?db=copy"), client.put("/databases/copy", b"{}"),
                   client.delete("/databases/copy?confirm=copy"), put(client, "copy", content), put(client, "Copy", content),
                   client.post("/batch?db=copy", b'{"op":"insert","value":"YQ=="}\n')):
        assert answer.status in (404, 409), answer
    assert client.put("/databases/copy", b"{}").json()["code"] == "database_busy"
    assert databases(client) == ["default"] and client.insert(b"other") > 0
    assert time.monotonic() - started < 30
    asked.set()
    moving.join()
    assert sender.status() == 201
    assert contents(server.client(db="copy")) == truth


def test_clients_that_go(source, launch):
    """Half of a body, then nothing: what was written goes, and the name is free."""
    _, content, _ = source
    server = launch()
    for at in (0, 100, 1 << 20, (1 << 20) + 1, len(content) - 1):
        sender = Sender(server, "copy", len(content))
        sender.send(content[:at])
        time.sleep(0.1)
        sender.socket.close()
        wait_for(lambda: server.client().get("/databases/copy").status == 404 and not os.path.exists(os.path.join(server.data, "copy")), 60, "its end")
    senders = [Sender(server, "copy", len(content)) for _ in range(4)]
    threads = [threading.Thread(target=one.send, args=(content,)) for one in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.status() for one in senders) == [201, 409, 409, 409]


def test_a_kill_leaves_none(source, launch):
    _, content, _ = source
    server = launch()
    sender = Sender(server, "copy", len(content))
    sender.send(content[:3 << 20])
    wait_for(lambda: os.path.exists(os.path.join(server.data, "copy")), 60, "the folder")
    server.kill()
    server.start()
    again = server
    assert databases(again.client()) == ["default"] and not os.path.exists(os.path.join(server.data, "copy"))
    assert put(again.client(), "copy", content).status == 201


def test_only_for_admin(source, launch, tmp_path):
    path, content, _ = source
    tokens = tmp_path / "tokens"
    writer, admin = "writer-0123456789abcdef", "admin-0123456789abcdef"
    tokens.write_text("%s write *\n%s admin copy\n" % (writer, admin))
    tokens.chmod(0o600)
    server = launch("--tokens", str(tokens))
    assert "forbidden" in tool("restore", path, "--database", "copy", "--connect", url(server), env={"CHEETAH_TOKEN": writer}, check=1).stderr
    assert "forbidden" in tool("restore", path, "--database", "other", "--connect", url(server), env={"CHEETAH_TOKEN": admin}, check=1).stderr
    tool("restore", path, "--database", "copy", "--connect", url(server), env={"CHEETAH_TOKEN": admin})


# ---- pages that do not agree with their checksums -----------------------------------------------------------------------


def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC32C = _table()


def crc32c(seed, data):
    value = seed ^ 0xFFFFFFFF
    for byte in data:
        value = CRC32C[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF


def changed(backup, old, new):
    """The backup with other bytes in its page files, and with checksums of the stream that are right: what a machine does whose memory or disk fails
    before the backup is made. The layout is in src/store/backup_format.h."""
    out, at, found, pages = [backup[:512]], 512, 0, False
    chain = int.from_bytes(backup[508:512], "little")
    assert crc32c(0, backup[:508]) == chain
    while at < len(backup):
        head = bytearray(backup[at:at + 32])
        kind, size = head[4], int.from_bytes(head[8:12], "little") if head[4] == 3 else 8
        payload = backup[at + 32:at + 32 + size]
        pages = kind == 2 or (pages and kind != 1)
        if pages and kind == 3 and old in payload:
            found += payload.count(old)
            payload = payload.replace(old, new)
        chain = crc32c(chain, bytes(head[4:]) + payload)
        head[0:4] = chain.to_bytes(4, "little")
        out.append(bytes(head) + payload)
        at += 32 + size
    assert found == 1 and len(b"".join(out)) == len(backup)
    return b"".join(out)


def test_pages_that_fail_the_comparison(launch, tmp_path):
    """It is said, the database is there and stays: others may use it already. What is whole in it can be read, and it is no hindrance to a good one."""
    there = launch("--shards", "1")
    client = there.client()
    client.upsert(b"first", b"a value that stays as it is")
    client.upsert(b"second", b"a value that changes on the way")
    assert client.post("/databases/default/checkpoint").status == 200
    path = json.loads(tool("backup", tmp_path, "--connect", url(there), "--json").stdout)["file"]
    with open(path, "rb") as file:
        good = file.read()
    assert changed(good, b"changes on", b"changes on") == good
    bad = changed(good, b"changes on", b"changed on")
    here = launch()
    client = here.client()
    answer = put(client, "copy", bad)
    assert (answer.status, answer.code) == (500, "corrupt_value") and "the database is there, but" in answer.json()["detail"]
    wait_for(lambda: any(one["message"].startswith("copy is there") for one in here.log("restore_failed")), what="what the log says")
    assert "copy" in databases(client)
    copy = here.client(db="copy")
    assert copy.get("/pairs/first", exact="true", values="true").status == 200
    answer = copy.get("/pairs/second", exact="true", values="true")
    assert (answer.status, answer.code) == (500, "corrupt_value")
    assert (put(client, "copy", good).status, put(client, "copy", good).code) == (409, "database_exists")
    (tmp_path / "bad").write_bytes(bad)
    done = tool("restore", tmp_path / "bad", "--connect", url(here), "--database", "second", check=3)
    assert "the database is there, but" in done.stderr
    assert client.delete("/databases/copy", confirm="copy").status == 204
    assert put(client, "copy", good).status == 201
    assert here.client(db="copy").get("/pairs/second", exact="true", values="true").status == 200
