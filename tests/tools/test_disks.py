"""Real disks: mounts that are missing or read-only, an unreadable sector, a user without permission. Each test says why it is skipped where
it cannot run: mounts want root, and they are made in a mount name space of this process."""
import ctypes
import hashlib
import os
import shutil
import subprocess
import time

import pytest

from tooling import BINARY, b64, hexed, spawn, start, tool, unb64

CLONE_NEWNS = 0x20000
EXIT_FAILED = 1
VALUE = 9000


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True)


@pytest.fixture(scope="module")
def mounts():
    """A place for mounts that nobody else sees."""
    if os.geteuid() != 0:
        pytest.skip("mounts want root")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0 or run("mount", "--make-rprivate", "/", check=False).returncode != 0:
        pytest.skip("no mount name space of our own: %s" % os.strerror(ctypes.get_errno()))


class Disks:
    """Two tmpfs, each a data directory as a whole."""

    def __init__(self, path):
        self.names = [str(path / name) for name in "ab"]
        self.away = str(path / "away")
        for place in self.names + [self.away]:
            os.mkdir(place)
        for place in self.names:
            run("mount", "-t", "tmpfs", "-o", "size=300m", "test", place)
        self.data = ",".join(self.names)

    def take_away(self, i):
        run("mount", "--move", self.names[i], self.away)

    def bring_back(self, i):
        run("mount", "--move", self.away, self.names[i])

    def close(self):
        for place in self.names + [self.away]:
            run("umount", "-l", place, check=False)


@pytest.fixture
def disks(mounts, tmp_path):
    made = Disks(tmp_path)
    yield made
    made.close()


def fill(server, db, n=60):
    client = server.client(db=db)
    lines = [{"op": "pair_put", "pair": b64(b"name %d" % i), "value": b64(b"%s %d" % (db.encode(), i))} for i in range(n)]
    answer = client.batch(lines, results="false")
    assert answer.status == 200 and answer.end["failed"] == 0, answer
    client.close()


def expect(server, db, n=60):
    client = server.client(db=db)
    pairs = client.scan(values="true")
    assert {name: value for name, _, value in pairs} == {b"name %d" % i: b"%s %d" % (db.encode(), i) for i in range(n)}
    client.close()


def picture(*places):
    """Names, sizes and bytes of all files."""
    out = {}
    for place in places:
        for folder, folders, files in os.walk(place):
            for name in folders:
                out[os.path.join(folder, name)] = None
            for name in files:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    out[path] = hashlib.sha1(file.read()).hexdigest()
    return out


def refused(data, *flags, prefix=()):
    """A start that must fail: (exit code, what it said)."""
    command = [*prefix, BINARY, "serve", "--data", data, "--listen", "127.0.0.1:0", "--line-listen", "none", *flags]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        pytest.fail("it starts: %s" % (error.stderr or b"")[-600:])
    return done.returncode, done.stderr


def filled(data, *dbs):
    server = start(data=data)
    for db in dbs:
        fill(server, db)
    server.stop()
    server.finish()


@pytest.mark.parametrize("i", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("lost_found", [False, True], ids=["empty", "lost+found"])
def test_a_disk_that_is_not_mounted(disks, i, lost_found):
    filled(disks.data, "default", "second")
    before = picture(*disks.names)
    disks.take_away(i)
    if lost_found:
        os.mkdir(os.path.join(disks.names[i], "lost+found"))
    code, said = refused(disks.data)
    assert code == EXIT_FAILED, said
    assert disks.names[i] in said, said
    assert set(os.listdir(disks.names[i])) <= {"lost+found"}
    shutil.rmtree(os.path.join(disks.names[i], "lost+found"), ignore_errors=True)
    disks.bring_back(i)
    assert picture(*disks.names) == before
    tool("check", "--data", disks.data)
    server = start(data=disks.data)
    for db in ("default", "second"):
        expect(server, db)
    server.stop()
    server.finish()


def test_a_disk_that_goes_read_only_and_comes_back(disks):
    filled(disks.data, "default")
    before = picture(*disks.names)
    run("mount", "-o", "remount,ro", disks.names[1])
    code, said = refused(disks.data)
    assert code == EXIT_FAILED and "ead-only file system" in said and disks.names[1] in said, (code, said)
    run("mount", "-o", "remount,rw", disks.names[1])
    assert picture(*disks.names) == before
    server = start(data=disks.data)
    expect(server, "default")
    server.stop()
    server.finish()


def test_a_start_on_a_full_disk(disks):
    """It starts and says 507, or it is refused with exit code 1; with room again all is there."""
    server = start(data=disks.data)
    fill(server, "default")
    server.kill()
    with open(os.path.join(disks.names[0], "filler"), "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"x" * 65536)
    process = spawn("serve", "--data", disks.data, "--listen", "127.0.0.1:0", "--line-listen", "none", "--drain-seconds", "0")
    time.sleep(2)
    code = process.poll()
    process.kill()
    said = process.communicate()[1].decode()
    assert code in (None, EXIT_FAILED), (code, said)
    assert "damaged" not in said and "corrupt" not in said, said
    os.unlink(os.path.join(disks.names[0], "filler"))
    server.restart()
    expect(server, "default")
    server.stop()
    server.finish()


def test_reading_on_a_full_disk(disks):
    """What was given back reads as before, also where reading a hole would take space (tmpfs)."""
    server = start("--shards", "2", data=disks.data)
    client = server.client()
    for at in range(0, 20000, 5000):
        client.put_all({b"gone %06d" % i: b"%d" % i * (1 + i % 40) for i in range(at, at + 5000)})
    fill(server, "default")
    assert client.delete("/pairs/" + hexed(b"gone"), recursive="true", values="true").json()["pairs_deleted"] == 20000
    for _ in range(2):
        assert client.post("/databases/default/checkpoint").status == 200
    server.stop()
    server.restart()
    for place in disks.names:
        with open(os.path.join(place, "filler"), "wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(b"x" * 65536)
    expect(server, "default")
    client = server.client()
    assert client.get("/databases/default").json()["pairs"] == 60
    for key in range(1, 20000, 37):
        assert client.get("/kv/%d" % key).status in (200, 404)
    assert len(client.get("/kv").entries()) == 60
    server.stop()
    server.finish()


@pytest.fixture
def image(mounts, tmp_path):
    """An ext4 whose end can be cut off under it: what lies there cannot be read any more."""
    path, place = str(tmp_path / "image"), str(tmp_path / "disk")
    os.mkdir(place)
    with open(path, "wb") as file:
        file.truncate(200 << 20)
    if run("mkfs.ext4", "-q", "-F", "-b", "4096", path, check=False).returncode != 0 or \
            run("mount", "-o", "loop", path, place, check=False).returncode != 0:
        pytest.skip("no ext4 on a loop device here")
    yield path, place
    os.truncate(path, 200 << 20)
    run("umount", "-l", place, check=False)


def middle_block(path):
    """Where, in blocks of the device, the middle extent of the file begins."""
    rows = [line.split() for line in run("filefrag", "-v", path).stdout.splitlines() if ".." in line]
    starts = sorted(int(row[3].split("..")[0].rstrip(".")) for row in rows)
    return starts[len(starts) // 2]


def test_an_unreadable_sector(image):
    if shutil.which("filefrag") is None or not os.access("/proc/sys/vm/drop_caches", os.W_OK):
        pytest.skip("filefrag and /proc/sys/vm/drop_caches are wanted")
    path, place = image
    data, flags = os.path.join(place, "data"), ("--shards", "1", "--scrub-bytes-per-second", "0")
    server = start(*flags, data=data)
    client = server.client()
    assert client.put("/databases/other").status in (200, 201)  # made first: it lies before the other's values
    want = {}
    for i in range(1500):
        want[b"p%05d" % i] = hashlib.shake_128(b"%d" % i).digest((64, 500, VALUE)[i % 3])
    for at in range(0, 1500, 250):
        client.put_all(dict(list(want.items())[at:at + 250]))
    server.stop()
    run("sync")
    cut = (middle_block(os.path.join(data, "default", "shard-000", "values")) + 2) * 4096
    server.restart()
    fill(server, "other")  # open: what its start reads may lie after the cut
    run("sync")
    os.truncate(path, cut)
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
    client, results = server.client(), {}
    for name, value in want.items():
        answer = client.get("/pairs/%s?exact=true&values=true" % hexed(name))
        kind = answer.status if answer.status != 200 else "right" if unb64(answer.json()["value"]) == value else "wrong"
        if kind == 500:
            assert answer.code == "corrupt_value", answer
        results[kind] = results.get(kind, 0) + 1
    assert server.process.poll() is None
    if set(results) == {"right"}:
        pytest.skip("the kernel still had all of it")
    assert set(results) == {"right", 500}, results
    assert client.get("/databases/other").json()["pairs"] == 60  # others go on
    server.kill()
    done = tool("check", "--data", data, check=EXIT_FAILED)
    assert "shard-000/values" in done.stdout, (done.stdout[-500:], done.stderr[-500:])
    server.process.returncode = 0
    server.finish()


def test_a_user_without_permission(tmp_path):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("root and setpriv are wanted")
    place = tmp_path / "place"
    place.mkdir()
    for parent in [tmp_path, *tmp_path.parents]:  # nobody must be able to come here
        if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o001 == 0:
            os.chmod(parent, parent.stat().st_mode | 0o011)
    shutil.chown(place, "nobody")
    data = str(place / "data")
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    server = start(data=data)
    for db in ("default", "second"):
        fill(server, db)
    server.stop()
    run("chown", "-R", "nobody:nogroup", data)
    manifest = os.path.join(data, "default", "manifest")
    os.chown(manifest, 0, 0)
    os.chmod(manifest, 0o600)
    before = picture(data)
    code, said = refused(data, prefix=nobody)
    assert code == EXIT_FAILED and "ermission denied" in said and manifest in said, (code, said)
    assert picture(data) == before
    for folder in ("log", "shard-000", "."):
        where = os.path.normpath(os.path.join(data, "default", folder))
        os.chmod(manifest, 0o644)
        os.chown(where, 0, 0)
        os.chmod(where, 0o700)
        code, said = refused(data, prefix=nobody)
        assert code == EXIT_FAILED and "ermission denied" in said, (folder, code, said)
        assert picture(data) == before, folder
        shutil.chown(where, "nobody")
    server.restart()
    for db in ("default", "second"):
        expect(server, db)
    server.stop()
    server.finish()
