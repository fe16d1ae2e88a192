"""What deploy/README.md says under "When something is wrong", made to happen: a full disk (tmpfs, ext4 on a loop device; as root), no
descriptors, a failed write, starts that are refused."""
import os
import resource
import signal
import socket
import subprocess
import time

import pytest

import harness
from conftest import run, tool

MIB = 1 << 20


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request, tmp_path):
    """A file system of 32 MiB, mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting wants root")
    at, image = str(tmp_path / "disk"), str(tmp_path / "image")
    os.mkdir(at)
    if request.param == "tmpfs":
        mount = [tool("mount"), "-t", "tmpfs", "-o", "size=32m", "none", at]
    else:
        with open(image, "wb") as file:
            file.truncate(32 * MIB)
        run(tool("mkfs.ext4"), "-q", "-F", "-m", "0", image)
        mount = [tool("mount"), "-o", "loop", image, at]
    done = subprocess.run(mount, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    if done.returncode != 0:
        pytest.skip("cannot mount here: " + done.stdout.strip())
    yield at
    run(tool("umount"), "-l", at)


def fill(path):
    """Somebody else takes what is left."""
    with open(path, "ab") as file:
        for step in (MIB, 1 << 16, 4096):
            while True:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
                except OSError:
                    break


def write_until_refused(client, known, name=b"f"):
    for i in range(100000):
        pair, value = b"%s%06d" % (name, i), os.urandom((64, 5000, 20000)[i % 3])
        answer = client.put("/pairs/" + harness.hexed(pair), value)
        if answer.status == 507:
            assert answer.code == "disk_full" and "No space left" in answer.json()["detail"], answer
            return
        assert answer.status == 201, answer
        known[pair] = value
    raise AssertionError("a disk of 32 MiB is never full")


def read_all(client):
    return {harness.unb64(line["pair"]): harness.unb64(line["value"]) for line in client.get("/pairs/*?values=true").lines() if "pair" in line}


def fill_until_refused(client, known, path):
    """A checkpoint that was under way may give some of it back."""
    for _ in range(100):
        fill(path)
        value = os.urandom(100000)
        answer = client.put("/pairs/more", value)
        if answer.status == 507:
            return
        assert answer.status == 201, answer
        known[b"more"] = value
    raise AssertionError("the disk does not stay full")


def delete_some(client, known, count):
    for pair in list(known)[:count]:
        answer = client.delete("/pairs/%s?values=true" % harness.hexed(pair))
        assert answer.status == 204, (pair, answer)
        del known[pair]


def test_deleting_works_on_a_full_disk(small_disk, launch):
    flags = ("--checkpoint-log-bytes", "4M", "--dirty-bytes", "8M")
    server = launch(*flags, data=os.path.join(small_disk, "data"))
    client, known = server.client(check=False), {}
    assert client.put("/databases/other").status == 201
    assert client.put("/pairs/there?db=other", b"1").status == 201
    write_until_refused(client, known)
    fill_until_refused(client, known, os.path.join(small_disk, "theirs"))
    assert client.get("/readyz").status == 200
    refused = [value for name, value in server.metrics().items() if name.startswith("cheetah_database_writes_refused{") and "disk_full" in name]
    assert refused == [1.0]
    events = harness.wait_for(lambda: server.log("writes_refused") + server.log("checkpoint_failed"), what="the log line")
    assert 1 <= len(events) <= 6 and all("default: disk_full: " + small_disk in event["message"] for event in events), events

    # pairs with their values, a namespace, a key, a database
    delete_some(client, known, 600)
    gone = [pair for pair in known if pair.startswith(b"f0008")]
    assert len(known) > 300 and gone
    assert client.delete("/pairs/%s?recursive=true&values=true" % harness.hexed(b"f0008")).status in (200, 204)
    for pair in gone:
        del known[pair]
    pair = next(iter(known))
    key = client.get("/pairs/%s?exact=true" % harness.hexed(pair)).json()["key"]
    assert client.delete("/kv/%d" % key).status == 204
    known.pop(pair)
    assert client.delete("/pairs/" + harness.hexed(pair)).status == 204
    assert client.delete("/databases/other?confirm=other").status in (200, 204)
    assert read_all(client) == known

    # a checkpoint gives the space back, and writes go on
    assert client.post("/databases/default/checkpoint").status == 200
    harness.wait_for(lambda: client.put("/pairs/again", b"x" * 3000).status == 201, what="a write after the checkpoint", pause=0.2)
    known[b"again"] = b"x" * 3000

    # full again, killed, started on the full disk
    write_until_refused(client, known, b"g")
    fill(os.path.join(small_disk, "theirs"))
    server.kill()
    server.restart()
    client = server.client(check=False)
    assert read_all(client) == known
    delete_some(client, known, 300)
    assert client.post("/databases/default/checkpoint").status == 200
    os.unlink(os.path.join(small_disk, "theirs"))
    harness.wait_for(lambda: client.put("/pairs/last", b"y").status == 201, what="a write when there is room", pause=0.2)
    known[b"last"] = b"y"
    assert read_all(client) == known
    server.stop()
    assert run(harness.BINARY, "check", os.path.join(small_disk, "data")) is not None


def with_files(count):
    """Popen arguments: so many descriptors at most."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def serve(tmp_path, *flags, limit=None, **more):
    """A server without the harness, for limits and signals that it inherits."""
    port = tmp_path / "port"
    command = [harness.BINARY, "serve", "--listen", "127.0.0.1:0", "--line-listen", "none", "--drain-seconds", "0", "--data",
               str(tmp_path / "data"), "--port-file", str(port)] + list(flags)
    with open(tmp_path / "log", "ab") as log:
        more = {"stdout": log, "stderr": log, **more}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=limit, **more)
    return process, port


def wait_ready(process, port):
    def ready():
        assert process.poll() is None, "ended with %s" % process.returncode
        try:
            with socket.create_connection(("127.0.0.1", int(port.read_text())), timeout=120) as s:
                s.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                return b" 200 " in s.recv(4096)
        except (OSError, ValueError):
            return False
    harness.wait_for(ready, what="/readyz", pause=0.05)
    return int(port.read_text())


def put(connection, name, value):
    connection.sendall(b"PUT /pairs/%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s" % (
        name, len(value), value))
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) == 0:
        part = connection.recv(65536)
        assert part, answer
        answer += part
    return int(answer[9:12]), answer


def test_idle_connections_do_not_take_the_logs_descriptor(tmp_path):
    process, port = serve(tmp_path, "--checkpoint-log-bytes", "1M", "--access-log", "false", limit=with_files(1024))
    idle = []
    try:
        number = wait_ready(process, port)
        log = (tmp_path / "log").read_text()
        assert '"descriptors"' in log and "--max-connections is" in log and "instead of 4096" in log, log
        writer = socket.create_connection(("127.0.0.1", number), timeout=120)
        assert put(writer, b"first", b"x")[0] == 201
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        for _ in range(1000):
            idle.append(socket.create_connection(("127.0.0.1", number), timeout=120))
        time.sleep(0.3)
        assert len(os.listdir("/proc/%d/fd" % process.pid)) < 1000
        for i in range(1200):  # several segments of the log, several checkpoints
            assert put(writer, b"n%d" % i, os.urandom(3000))[0] == 201
        writer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    finally:
        for connection in idle:
            connection.close()
        process.terminate()
        assert process.wait(120) == 0
    log = (tmp_path / "log").read_text()
    assert "writes_refused" not in log and "checkpoint_failed" not in log, log


def test_a_start_without_descriptors_says_what_is_needed(tmp_path):
    process, _ = serve(tmp_path, limit=with_files(128))
    assert process.wait(120) == 1
    assert "the limit of open files is 128, at least" in (tmp_path / "log").read_text()


def test_a_failed_write_stops_writing_and_names_the_file(tmp_path):
    def ready_to_die():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; a write beyond the limit is EFBIG all the same
    process, port = serve(tmp_path, limit=ready_to_die, stderr=subprocess.PIPE)  # a log in a file would meet the limit, too
    try:
        number = wait_ready(process, port)
        writer = socket.create_connection(("127.0.0.1", number), timeout=120)
        assert put(writer, b"kept", b"x")[0] == 201
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (512, 512))
        status, answer = put(writer, b"lost", b"y")
        assert status == 503 and b"read_only" in answer and b"File too large" in answer, answer
        status, answer = put(writer, b"lost", b"y")
        assert status == 503 and b"File too large" in answer, answer
        writer.close()
        with socket.create_connection(("127.0.0.1", number), timeout=120) as s:
            s.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            answer = s.recv(4096)
        assert b" 503 " in answer and b"default" in answer and b"File too large" in answer, answer
    finally:
        process.terminate()
        log, code = process.communicate(timeout=120)[1].decode(), process.returncode
    assert code == 1, log
    assert log.count('"writing_stopped"') == 1 and "default: io_error: " in log and "not cleanly" in log, log
    assert '"cleanly"' not in log
    process, port = serve(tmp_path)  # nothing that was acknowledged is lost
    try:
        with socket.create_connection(("127.0.0.1", wait_ready(process, port)), timeout=120) as s:
            s.sendall(b"GET /pairs/kept?exact=true&values=true HTTP/1.0\r\n\r\n")
            assert b" 200 " in s.recv(4096)
    finally:
        process.terminate()
        assert process.wait(120) == 0


def test_a_start_that_may_work_later_exits_with_1(tmp_path):
    process, port = serve(tmp_path)
    wait_ready(process, port)
    other, _ = serve(tmp_path)  # locked
    assert other.wait(120) == 1
    process.kill()
    process.wait()
    journal = tmp_path / "data" / "default" / "shard-003" / "journal"
    journal.unlink()
    journal.mkdir()  # an open that fails for a reason that says nothing of the data
    process, port = serve(tmp_path)
    assert process.wait(120) == 1
    assert "shard-003/journal" in (tmp_path / "log").read_text().splitlines()[-1]
    journal.rmdir()
    process, port = serve(tmp_path)
    wait_ready(process, port)
    process.terminate()
    assert process.wait(120) == 0


def test_killed_after_its_creation_and_after_writes(launch):
    server = launch()
    server.kill()
    run(harness.BINARY, "check", server.data)  # no finding
    server.restart()
    client = server.client(check=False)
    for i in range(200):
        assert client.put("/pairs/n%d" % i, os.urandom(3000)).status == 201
    server.kill()
    run(harness.BINARY, "check", server.data)
    server.restart()
    assert server.client(check=False).get("/databases/default").json()["dirty_bytes"] > 0  # what the recovery has redone
    server.stop()


def test_writers_do_not_wait_for_a_whole_checkpoint(launch):
    """256 shards and a short log: a checkpoint takes seconds, a writer waits for one shard of it at a time."""
    server = launch("--shards", "256", "--checkpoint-log-bytes", "1M", "--access-log", "false")
    client = server.client(check=False)
    parts = []
    while not parts or (min(parts) >= 0.5 and len(parts) < 5):  # again, if another program may have had the processors or the disk
        waits, end = [], time.monotonic() + 5
        while time.monotonic() < end:
            start = time.monotonic()
            assert client.put("/pairs/n%d" % len(waits), os.urandom(9000)).status == 201
            waits.append(time.monotonic() - start)
        start = time.monotonic()
        assert client.post("/databases/default/checkpoint").status == 200
        whole = time.monotonic() - start
        if whole < 0.5:
            pytest.skip("a checkpoint of %.2f s tells nothing" % whole)
        parts.append(max(waits) / whole)
    assert min(parts) < 0.5, parts
