"""Backup and restore of the real program: `cheetah-db backup` from a server that is written to, `cheetah-db restore`.

The writers write so that a copy can be judged by itself: commit n of writer w puts, in one atomic batch, left-w and right-w
with the number n in both, and seq-w-n. A consistent copy has left = right = n, and seq-w-1 .. seq-w-n, nothing else.
"""
import glob
import json
import lzma
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import BINARY, HANG, SANITIZED, Server, b64, wait_for

FLAGS = ("--line-listen", "127.0.0.1:0", "--access-log", "false")


def url(server):
    return "%s://127.0.0.1:%d" % (server.scheme, server.port)


def tool(*args, env=None, timeout=120, check=None):
    """Runs cheetah-db; check: the exit code it must have."""
    env = dict({k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}, **(env or {}))
    done = subprocess.run([BINARY, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, env=env, timeout=timeout, text=True)
    if check is not None:
        assert done.returncode == check, (args, done.returncode, done.stdout, done.stderr)
    return done


def backup(server, directory, *more, database="default", check=0):
    done = tool("backup", directory, "--connect", url(server), "--database", database, "--json", *more, check=check)
    return json.loads(done.stdout) if check == 0 else done


def finished(directory):
    """Files under their final names."""
    return sorted(glob.glob(os.path.join(str(directory), "*.cheetah")))


def everything(directory):
    return sorted(os.listdir(str(directory))) if os.path.isdir(str(directory)) else []


def contents(server, database="default"):
    client = server.client(db=database, check=False)
    pairs = client.scan(values="true")
    client.close()
    return pairs


def fill(server, count, size, database="default"):
    """count values of about size bytes, in batches."""
    client = server.client(db=database, check=False)
    for first in range(0, count, 200):
        client.put_all({b"fill-%06d" % n: (b"%d." % n) * (size // 4) for n in range(first, min(count, first + 200))})
    client.close()


class Writers:
    """Threads that commit until they are told to stop; `acknowledged` is per writer."""

    def __init__(self, server, count=3, database="default"):
        self.server, self.database, self.stopping = server, database, False
        self.acknowledged, self.failure = [0] * count, None
        self.threads = [threading.Thread(target=self.run, args=(w,), daemon=True) for w in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, writer):
        client = self.server.client(db=self.database, check=False)
        try:
            n = 0
            while not self.stopping:
                n += 1
                size = 300000 if n % 40 == 0 else 10 + n * 37 % 3000
                number = b"%d" % n
                answer = client.batch([
                    {"op": "pair_put", "pair": b64(b"left-%d" % writer), "value": b64(number + b"x" * size)},
                    {"op": "pair_put", "pair": b64(b"right-%d" % writer), "value": b64(number)},
                    {"op": "pair_put", "pair": b64(b"seq-%d-%d" % (writer, n)), "value": b64(number)}], atomic="true", results="false")
                assert answer.status == 200, answer
                self.acknowledged[writer] = n
        except Exception as error:  # noqa: BLE001 (told in stop)
            if not self.stopping:
                self.failure = error
        finally:
            client.close()

    def stop(self, expect_failure=False):
        self.stopping = True
        for thread in self.threads:
            thread.join(120)
        if not expect_failure:
            assert self.failure is None, self.failure

    def check(self, server, before, after):
        """The copy that `server` serves is one moment between the two lists of acknowledged numbers."""
        pairs = {pair: value for pair, _, value in contents(server, self.database)}
        total = 0
        for writer, (least, most) in enumerate(zip(before, after)):
            left = pairs.get(b"left-%d" % writer, b"0x").split(b"x")[0]
            right = pairs.get(b"right-%d" % writer, b"0")
            assert left == right, "writer %d: half a commit: %s and %s" % (writer, left, right)
            n = int(right)
            assert least <= n <= most + 1, "writer %d: %d is not between %d and %d" % (writer, n, least, most)
            for i in range(1, n + 1):
                assert pairs.get(b"seq-%d-%d" % (writer, i)) == b"%d" % i, "writer %d: commit %d of %d is missing" % (writer, i, n)
            total += n + (2 if n else 0)
        strange = [pair for pair in pairs if not re.match(rb"(left|right|seq)-", pair) and not pair.startswith(b"fill-")]
        assert strange == []
        assert sum(1 for pair in pairs if not pair.startswith(b"fill-")) == total


def restored(launch, path, directory, database=None, *more):
    """A server on what was restored from a file."""
    name = ["--database", database] if database else []
    done = tool("restore", path, "--data", directory, *name, *more, check=0)
    assert "restored and checked" in done.stdout
    return launch(data=str(directory))


# ---- what a copy holds -----------------------------------------------------------------------------------------------


def test_round_trip(launch, tmp_path):
    server = launch("--shards", "5", "--durability", "os")
    client = server.client(check=False)
    client.put_all({b"a\0b": b"1", b"x" * 4096: b"long name", b"z": bytes(range(256)) * 40, b"\xff": b"v"})
    client.upsert(b"large", os.urandom(5 << 20))
    key = client.upsert(b"gone", b"deleted")
    client.map(b"dangling", key)
    assert client.delete("/kv/%d" % key).status in (200, 204)
    client.map(b"alias", client.upsert(b"original", b"shared"))
    for _ in range(2):  # also what comes after a checkpoint, and a database that was opened again
        info = backup(server, tmp_path / "out")
        before = contents(server)
        assert info["database"] == "default" and info["shards"] == 5
        assert os.path.getsize(info["file"]) == info["bytes"]
        copy = restored(launch, info["file"], tmp_path / ("data%d" % len(finished(tmp_path / "out"))))
        assert contents(copy) == before
        fresh = copy.client(check=False).insert(b"goes on")
        assert fresh not in {key for _, key, _ in before}
        server.stop()
        server.start()
    assert everything(tmp_path / "out") == [os.path.basename(f) for f in finished(tmp_path / "out")]


def test_another_name_and_several_directories(launch, tmp_path):
    server = launch("--durability", "os")
    client = server.client(db="words", check=False)
    client.put_all({b"k%d" % n: b"v%d" % n for n in range(500)})
    info = backup(server, tmp_path, database="words")
    dirs = "%s,%s" % (tmp_path / "d1", tmp_path / "d2")
    tool("restore", info["file"], "--data", dirs, check=0)
    done = tool("restore", info["file"], "--data", dirs, "--database", "copy", "--json", check=0)
    assert json.loads(done.stdout) == {"database": "copy", "position": info["position"], "bytes": info["bytes"], "restored": True}
    assert tool("list", "--data", dirs, check=0).stdout.split() == ["copy", "words"]
    tool("check", "--data", dirs, check=0)
    copy = launch(data=dirs)
    assert contents(copy, "copy") == contents(copy, "words") == contents(server, "words")
    copy.stop()
    tool("restore", info["file"], "--data", dirs, "--database", "copy", check=1)
    for done in (tool("restore", info["file"], "--data", dirs, "--database", "Copy", check=1), tool("create", "WORDS", "--data", dirs, check=1)):
        assert "in upper and lower case only" in done.stderr
    assert tool("list", "--data", dirs, check=0).stdout.split() == ["copy", "default", "words"]


def test_frozen(launch, tmp_path):
    """A file of format version 1 can be restored for ever."""
    path = tmp_path / "frozen.cheetah"
    with lzma.open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "backup-1.cheetah.xz")) as file:
        path.write_bytes(file.read())
    done = tool("restore", path, "--verify", "--json", check=0)
    assert json.loads(done.stdout) == {"database": "default", "position": 41, "bytes": 86344, "restored": False}
    pairs = {pair: value for pair, _, value in contents(restored(launch, path, tmp_path / "data"))}
    assert pairs == {b"pair-%d" % n: b"value %d" % n for n in range(1, 41) if n != 7}


@pytest.mark.parametrize("durability", ["sync", "os"])
def test_beside_writers(launch, tmp_path, durability):
    """Backup after backup while writers commit and checkpoints run: each is one moment."""
    server = launch("--durability", durability, "--checkpoint-log-bytes", "2M", "--shards", "4")
    writers = Writers(server)
    wait_for(lambda: min(writers.acknowledged) > 20, 60, "the writers")
    taken = []
    for _ in range(4):
        before = list(writers.acknowledged)
        info = backup(server, tmp_path / "out")
        taken.append((info, before, list(writers.acknowledged)))
        seen = sum(writers.acknowledged)
        wait_for(lambda: sum(writers.acknowledged) > seen + 20, 60, "more of the writers")
    writers.stop()
    assert len({info["position"] for info, _, _ in taken}) == 4
    for number, (info, before, after) in enumerate(taken):
        copy = restored(launch, info["file"], tmp_path / ("copy%d" % number))
        writers.check(copy, before, after)
        copy.stop()


def request_backup(server, database="default", buffer=1 << 16):
    """A socket that has asked for a backup and reads when it is told to."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(HANG)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(b"GET /databases/%s/backup HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % database.encode())
    return sock


def read_rest(sock, data=b""):
    pieces = [data]
    while pieces[-1] or len(pieces) == 1:
        pieces.append(sock.recv(1 << 20))
    return b"".join(pieces)


def unchunk(data):
    """The body of a chunked answer as far as it came, and whether its last chunk is there."""
    at = data.index(b"\r\n\r\n") + 4
    body = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return b"".join(body), False
        size = int(data[at:end], 16)
        if size == 0:
            return b"".join(body), True
        body.append(data[end + 2:end + 2 + size])
        at = end + 2 + size + 2
        if at > len(data):
            return b"".join(body), False


def test_slow_client(launch, tmp_path):
    """A client that stops reading stops nobody; what it reads in the end is the moment it asked for."""
    server = launch("--durability", "os", "--shards", "2")
    fill(server, 2000, 12000)
    writers = Writers(server, 2)
    wait_for(lambda: min(writers.acknowledged) > 20, 60, "the writers")
    before = list(writers.acknowledged)
    sock = request_backup(server)
    first = sock.recv(4096)
    assert first.startswith(b"HTTP/1.1 200"), first
    after = list(writers.acknowledged)
    client = server.client(check=False)
    for _ in range(5):  # everything the copy needs is written over meanwhile
        client.put_all({b"fill-%06d" % n: b"new" * 900 for n in range(0, 2000, 3)})
        seen = sum(writers.acknowledged)
        assert client.post("/databases/default/checkpoint").status == 200
        wait_for(lambda: sum(writers.acknowledged) > seen + 20, 60, "writers beside a stalled backup")
    assert client.get("/databases/default/backup").status == 409
    assert client.get("/databases/default/backup").code == "database_busy"
    server.client(db="other", check=False).upsert(b"a", b"b")
    backup(server, tmp_path / "other", database="other")  # another database is free to have one
    writers.stop()
    body, whole = unchunk(read_rest(sock, first))
    sock.close()
    assert whole
    path = tmp_path / "slow.cheetah"
    path.write_bytes(body)
    copy = restored(launch, path, tmp_path / "copy")
    writers.check(copy, before, after)
    filled = {pair: value for pair, _, value in contents(copy) if pair.startswith(b"fill-")}
    assert filled == {b"fill-%06d" % n: (b"%d." % n) * 3000 for n in range(2000)}


# ---- ends before the end -----------------------------------------------------------------------------------------------


def open_files(server):
    links = []
    for fd in os.listdir("/proc/%d/fd" % server.process.pid):
        try:
            links.append(os.readlink("/proc/%d/fd/%s" % (server.process.pid, fd)))
        except OSError:
            pass
    return links


def side_files(server):
    return [link for link in open_files(server) if "backup.tmp" in link]


def start_backup(server, directory, least=2 << 20):
    """The tool with at least so much received."""
    part = os.path.join(str(directory), ".default.cheetah.part")
    for _ in range(20):
        process = subprocess.Popen([BINARY, "backup", str(directory), "--connect", url(server)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: process.poll() is not None or (os.path.exists(part) and os.path.getsize(part) >= least), 60, "some of the backup", 0.0005)
        process.send_signal(signal.SIGSTOP)
        if process.poll() is None and not finished(directory):
            return process, part
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, (out, err)
        for path in finished(directory):  # it was faster than this test: once more
            os.unlink(path)
    raise AssertionError("too fast to be interrupted")


def test_client_killed(launch, tmp_path):
    server = launch("--durability", "os")
    fill(server, 6000, 20000)
    for least in (1, 1 << 20, 40 << 20):
        process, part = start_backup(server, tmp_path, least)
        process.kill()
        process.wait()
        assert finished(tmp_path) == [] and everything(tmp_path) == [".default.cheetah.part"]
        done = tool("restore", part, "--data", tmp_path.parent / "none", "--database", "x", check=3)
        assert "not complete" in done.stderr
        wait_for(lambda: side_files(server) == [], what="the server to end the backup")
    assert tool("list", "--data", tmp_path.parent / "none", check=0).stdout == ""
    info = backup(server, tmp_path)
    assert everything(tmp_path) == [os.path.basename(info["file"])]
    tool("restore", info["file"], "--verify", check=0)
    client = server.client(check=False)
    assert client.post("/databases/default/checkpoint").status == 200
    assert client.get("/databases/default").json()["log"]["bytes"] <= 4 * (64 << 20)


def test_clients_that_go(launch):
    """Many that leave early: no files, no memory, no streams stay."""
    server = launch("--durability", "os", "--shards", "2")
    fill(server, 500, 20000)

    def gone():
        return side_files(server) == [] and server.metric("cheetah_streams_open") == 0

    for turn in range(30):
        sock = request_backup(server)
        if turn % 3:
            answer = sock.recv(1000)
            while answer.startswith(b"HTTP/1.1 409"):  # one that went before it began may begin and end later
                sock.close()
                sock = request_backup(server)
                answer = sock.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200")
        sock.close()
        wait_for(gone, what="an abandoned backup to end")
        if turn == 5:
            before, files = server.rss(), len(open_files(server))
    if not SANITIZED:
        wait_for(lambda: server.rss() < before + (12 << 20), 60, "the memory to be given back")
    wait_for(lambda: len(open_files(server)) <= files + 2, 60, "the files to be closed")


def test_server_killed(launch, tmp_path):
    server = launch("--durability", "sync")
    fill(server, 6000, 20000)
    expected = contents(server)
    process, _ = start_backup(server, tmp_path)
    server.kill()
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, (out, err)
    assert b"cheetah-db: " in err
    assert everything(tmp_path) == []
    server.restart()
    assert contents(server) == expected
    info = backup(server, tmp_path)
    tool("restore", info["file"], "--verify", check=0)


def test_server_stops(launch, tmp_path):
    """SIGTERM ends a backup that nobody reads, with a line that says so, and the server with exit code 0."""
    server = launch("--durability", "os", "--drain-seconds", "1")
    fill(server, 1500, 20000)
    sock = request_backup(server)
    first = sock.recv(1000)
    server.signal(signal.SIGTERM)
    time.sleep(2.5)
    body, _ = unchunk(read_rest(sock, first))
    assert server.wait() == 0
    path = tmp_path / "cut"
    path.write_bytes(body)
    done = tool("restore", path, "--verify")
    assert done.returncode != 0
    assert "gave up" in done.stderr or "not complete" in done.stderr
    server.start()


def test_drop_during_backup(launch, tmp_path):
    """It ends the backup of the database, with a line that says so. The one HTTP thread tells its streams in one go, the newest one first: when a follower knows, so
    does the backup, which nobody reads meanwhile."""
    server = launch("--durability", "os", "--http-threads", "1")
    fill(server, 1500, 20000, "other")
    sock = request_backup(server, "other")
    first = sock.recv(1000)
    follower, _ = server.client(db="other", check=False).send("GET", "/changes/none", wait=600)
    assert b'"progress"' in follower.readline()

    def drop():
        client = server.client(check=False)
        while (answer := client.delete("/databases/other", confirm="other")).status == 409:
            pass  # busy: it waits ten seconds for those who use it
        answers.append(answer.status)

    answers, thread = [], threading.Thread(target=drop)
    thread.start()
    assert b'"database_dropped"' in follower.read()
    body, _ = unchunk(read_rest(sock, first))
    thread.join(HANG)
    assert answers == [204]
    path = tmp_path / "cut"
    path.write_bytes(body)
    done = tool("restore", path, "--verify")
    assert done.returncode == 1 and "dropped" in done.stderr, done


# ---- damage ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sample")
    server = Server(*FLAGS, "--durability", "os", "--shards", "2")
    try:
        fill(server, 300, 2000)
        server.client(check=False).upsert(b"large", os.urandom(600000))
        info = backup(server, directory)
        info["contents"] = contents(server)
    finally:
        server.finish()
    return info


def test_damaged_files(sample, tmp_path):
    with open(sample["file"], "rb") as file:
        good = file.read()
    data = tmp_path / "data"
    bad = tmp_path / "bad.cheetah"
    size = len(good)
    variants = [good[:n] for n in (0, 1, 511, 512, 600, size // 2, size - 1)]
    variants += [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1:] for at in range(0, size, size // 40)]
    variants += [good + b"\0", good[:size // 2] + good[size // 2 + 1:], good[512:], b"x" * 5000, good[:512] * 2]
    for variant in variants:
        bad.write_bytes(variant)
        for more in (["--verify"], ["--data", str(data)]):
            done = tool("restore", bad, *more, check=3)
            assert done.stderr.startswith("cheetah-db: ") and done.stdout == ""
    assert tool("list", "--data", data, check=0).stdout == ""
    assert [name for name in everything(data) if name not in ("LOCK", "cheetah.set")] == []
    version = bytearray(good[:512])
    version[8] = 9
    bad.write_bytes(bytes(version) + good[512:])
    tool("restore", bad, "--verify", check=3)
    done = tool("restore", sample["file"], "--data", data, check=0)  # the name is free
    assert "restored and checked" in done.stdout


def test_restore_killed(sample, launch, tmp_path):
    """kill -9 at many moments: a database is there completely or not at all, and another attempt works."""
    begin = time.monotonic()
    tool("restore", sample["file"], "--data", tmp_path / "timing", check=0)
    whole = time.monotonic() - begin
    none = there = n = 0
    while n < 20 or there == 0:  # later and later, on a machine of any speed
        n += 1
        assert n < 400
        data = tmp_path / ("data%d" % n)
        process = subprocess.Popen([BINARY, "restore", sample["file"], "--data", str(data)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * (n - 1) / 16)
        process.kill()
        process.wait()
        if not data.exists() or tool("list", "--data", data, check=0).stdout == "":
            none += 1
            tool("restore", sample["file"], "--data", data, check=0)
        else:
            there += 1
        tool("stat", "--data", data, check=0)  # redoes the log where the end was not clean
        tool("check", "--data", data, check=0)
    assert none > 0 and there > 0, (none, there)
    assert contents(launch(data=str(data))) == sample["contents"]


def test_damaged_server(launch, tmp_path):
    """A page that does not match its checksum: the copy ends with an error, and nothing is left of it."""
    server = launch("--durability", "os", "--shards", "1")
    fill(server, 4000, 200)
    assert server.client(check=False).post("/databases/default/checkpoint").status == 200
    pairs = os.path.join(server.data, "default", "shard-000", "pairs")
    with open(pairs, "r+b") as file:
        file.seek(3 * 4096 + 17)
        byte = file.read(1)
        file.seek(3 * 4096 + 17)
        file.write(bytes([byte[0] ^ 16]))
    done = backup(server, tmp_path, check=1)
    assert "does not match its checksum" in done.stderr
    assert everything(tmp_path) == []
    wait_for(lambda: server.log("backup_failed"), what="the log line")  # it is read by another thread
    with open(pairs, "r+b") as file:
        file.seek(3 * 4096 + 17)
        file.write(byte)
    backup(server, tmp_path)


def test_damaged_value(launch, tmp_path):
    """Damage that only the check of the restored database can see: no database, or with --keep one to look into."""
    server = launch("--durability", "os", "--shards", "1")
    client = server.client(check=False)
    client.put_all({b"good": b"untouched", b"bad": b"the quick brown fox" * 50})
    assert client.post("/databases/default/checkpoint").status == 200
    values = os.path.join(server.data, "default", "shard-000", "values")
    with open(values, "r+b") as file:
        at = file.read().index(b"the quick brown fox")
        file.seek(at + 300)
        file.write(b"!")
    info = backup(server, tmp_path)
    data = tmp_path / "data"
    done = tool("restore", info["file"], "--data", data, check=3)
    assert re.search("found [1-9] faults", done.stderr) and "removed" in done.stderr and "values:" in done.stderr
    assert tool("list", "--data", data, check=0).stdout == ""
    tool("restore", info["file"], "--data", data, "--keep", check=3)
    copy = launch(data=str(data)).client(check=False)
    assert b"untouched" in [copy.read(key) for _, key in copy.scan(b"good")]
    assert copy.get("/pairs/bad", exact="true", values="true").status in (200, 500)


# ---- who may, and how it looks --------------------------------------------------------------------------------------------


def test_rights(launch, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("".join("%s-0123456789ab %s\n" % (who, may) for who, may in (("reader", "read *"), ("writer", "write *"), ("boss", "admin *"), ("other", "admin words"))))
    os.chmod(tokens, 0o600)
    server = launch("--tokens", str(tokens), ready=True)
    path = "/databases/default/backup"
    assert server.client(check=False).get(path).status == 401
    for token, status in (("reader", 403), ("writer", 403), ("other", 403), ("boss", 200)):
        assert server.client(token=token + "-0123456789ab", check=False).get(path).status == status
    done = tool("backup", tmp_path / "out", "--connect", url(server), check=1)
    assert "unauthorized" in done.stderr and everything(tmp_path / "out") == []
    done = tool("backup", tmp_path / "out", "--connect", url(server), env={"CHEETAH_TOKEN": "reader-0123456789ab"}, check=1)
    assert "forbidden" in done.stderr
    secret = tmp_path / "boss"
    secret.write_text("boss-0123456789ab\n")
    tool("backup", tmp_path / "out", "--connect", url(server), "--token-file", secret, check=0)
    assert len(finished(tmp_path / "out")) == 1


def test_contract(launch):
    server = launch("--durability", "os")
    client = server.client()  # checked against openapi.yaml
    answer = client.get("/databases/default/backup")
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.body[:8] == b"CHEETAHB"
    head = client.head("/databases/default/backup")
    assert head.status == 200 and head.headers["Content-Type"] == "application/octet-stream" and head.body == b""
    assert client.get("/databases/nothing/backup").code == "database_not_found"
    assert client.get("/databases/-/backup").code == "invalid_database_name"
    answer = client.post("/databases/default/backup")
    assert answer.status == 405 and answer.headers["Allow"].replace(" ", "").split(",")[0] == "GET"


def test_usage(launch, tmp_path, sample):
    for command in ("backup", "restore"):
        done = tool(command, "--help", check=0)
        assert command in done.stdout and "Exit codes" in done.stdout and done.stderr == ""
        tool(command, check=2)
        tool(command, "a", "b", check=2)
        tool(command, "--no-such-option", check=2)
        tool(command, "a", "--database", "no/name", check=2)
    done = tool("backup", tmp_path / "out", "--connect", "127.0.0.1:1", check=1)
    assert done.stderr.startswith("cheetah-db: ")
    assert everything(tmp_path / "out") == []
    tool("restore", tmp_path / "nothing", "--data", tmp_path / "d", check=1)
    server = launch()
    done = tool("restore", sample["file"], "--data", server.data, "--database", "x", check=1)
    assert "in use" in done.stderr
    done = tool("backup", tmp_path / "out", "--connect", url(server), "--database", "nothing", check=1)
    assert "database_not_found" in done.stderr
    done = tool("backup", tmp_path / "out", "--connect", url(server), check=0)
    assert done.stderr == "" and finished(tmp_path / "out")[0] in done.stdout


def test_progress_on_a_terminal(launch, tmp_path):
    server = launch("--durability", "os")
    fill(server, 4000, 20000)
    outer, inner = pty.openpty()
    server.signal(signal.SIGSTOP)  # so that it takes long enough to be worth a line
    process = subprocess.Popen([BINARY, "backup", str(tmp_path), "--connect", url(server)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=inner)
    os.close(inner)
    time.sleep(0.7)
    server.signal(signal.SIGCONT)
    shown = b""
    try:
        while True:
            some = os.read(outer, 65536)
            if not some:
                break
            shown += some
    except OSError:  # EIO: the other side is closed
        pass
    os.close(outer)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert os.fsencode(finished(tmp_path)[0]) in out
    assert b"backup" in shown and b"%" in shown and b"MiB" in shown, shown[-500:]
