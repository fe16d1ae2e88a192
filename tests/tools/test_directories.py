"""Data directories and what an operator may do to them: a disk that is not mounted, a file or a permission that is missing, a copy, a new one,
another order, folders that are no databases. Nothing is destroyed that was not made here; a refused start changes no byte.

Some need root, for tmpfs mounts and for a user without rights; elsewhere they are skipped and say so.
"""
import hashlib
import os
import pathlib
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
import time

import pytest
from tooling import BINARY, environment, tool, wait_for
from harness import LONG, Server, finish_all

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, another user")
FLAGS = ("--line-listen", "none", "--access-log", "false", "--shards", "4")


def digest(*directories, skip=("LOCK",)):
    """Every entry: kind, mode, bytes or target of a link. Links are not followed."""
    seen = {}
    for directory in map(str, directories):
        for folder, folders, files in os.walk(directory):
            for name in folders + files:
                path = os.path.join(folder, name)
                if name in skip:
                    continue
                mode = os.lstat(path).st_mode
                what = ""
                if stat.S_ISREG(mode):
                    with open(path, "rb") as file:
                        what = hashlib.sha256(file.read()).hexdigest()
                elif stat.S_ISLNK(mode):
                    what = os.readlink(path)
                seen[path] = (mode, what)
    return seen


@pytest.fixture
def place(tmp_path):
    """Directories of a test, and servers over them that are stopped in the end."""

    class Place:
        root = tmp_path
        servers = []

        def dirs(self, *names):
            return ",".join(str(self.root / name) for name in names)

        def serve(self, *names, more=()):
            self.servers.append(Server(*FLAGS, *more, data=self.dirs(*names)))
            return self.servers[-1]

        def refused(self, data, code=1, user=None, flags=()):
            """A start that ends by itself; its log."""
            command = [BINARY, "serve", *FLAGS, "--listen", "127.0.0.1:0", "--data", data, *flags]
            if user is not None:
                command = ["setpriv", "--reuid=" + user, "--regid=nogroup", "--clear-groups"] + command
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), timeout=120, text=True, check=False)
            assert done.returncode == code, (done.returncode, done.stderr)
            assert '"ready"' not in done.stderr
            return done.stderr

    p = Place()
    p.servers = []
    yield p
    finish_all(p.servers)


def logged(server, event, *parts):
    """A line of the log that has all the parts; the pipe may be a little behind."""
    wait_for(lambda: any(all(part in line["message"] for part in parts) for line in server.log(event)), what="%s %s in the log" % (event, parts))


def put_all(server, count, db):
    client = server.client(db=db, check=False)
    client.put_all({b"%s-%d" % (db.encode(), n): b"precious %d" % n for n in range(count)})
    client.close()


def count(server, db):
    client = server.client(db=db, check=False)
    answer = client.get("/pairs/*?count=true")
    client.close()
    return answer.json()["pairs"] if answer.status == 200 else answer.code


def filled(place, *names, dbs=("default", "second")):
    server = place.serve(*names)
    for db in dbs:
        put_all(server, 60, db)
    server.stop()


def good(place, *names, dbs=("default", "second")):
    """All is there, and checks clean."""
    server = place.serve(*names)
    assert [count(server, db) for db in dbs] == [60] * len(dbs)
    server.stop()
    assert tool("check", "--data", place.dirs(*names), check=0).stdout == ""


# ---- a directory is missing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["a", "b"])
@pytest.mark.parametrize("set_files", [True, False], ids=["set", "released"])
def test_not_mounted(place, missing, set_files):
    """One of two directories is an empty mount point (with and without set files, as the released program left them)."""
    filled(place, "a", "b")
    if not set_files:
        for name in "ab":
            (place.root / name / "cheetah.set").unlink()
    (place.root / missing).rename(place.root / "disk")
    (place.root / missing).mkdir()
    before = digest(place.root)
    log = place.refused(place.dirs("a", "b"))
    assert "directory_missing" in log or "database_incomplete" in log or "shard_missing" in log
    assert digest(place.root) == before
    assert os.listdir(place.root / missing) == [], "an empty mount point stays empty"
    for command in (("create", "more"), ("drop", "second", "--yes")):
        tool(*command, "--data", place.dirs("a", "b"), check=1)
    assert tool("check", "--data", place.dirs("a", "b"), check=1).stdout != ""
    assert digest(place.root) == before
    log = place.refused(place.dirs("ab".replace(missing, "")))
    assert "directory_missing" in log or "database_incomplete" in log or "shard_missing" in log
    assert digest(place.root) == before
    (place.root / missing).rmdir()
    (place.root / "disk").rename(place.root / missing)
    good(place, "a", "b")


@ROOT_ONLY
def test_real_mounts(place):
    """The same with file systems that are mounted and not."""
    mounts = [place.root / "a", place.root / "b"]

    def mount(path):
        path.mkdir(exist_ok=True)
        return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)], check=False, capture_output=True).returncode == 0

    if not all(mount(path) for path in mounts):
        for path in mounts:
            subprocess.run(["umount", str(path)], check=False, capture_output=True)
        pytest.skip("mounting tmpfs is not allowed here")
    away = place.root / "away"
    away.mkdir()
    try:
        filled(place, "a", "b")
        for path in mounts:
            subprocess.run(["mount", "--move", str(path), str(away)], check=False, capture_output=True)
            if path.is_mount():  # a shared parent does not let go of it
                pytest.skip("mounts cannot be moved here")
            assert "directory_missing" in place.refused(place.dirs("a", "b"))
            assert os.listdir(path) == []
            subprocess.run(["mount", "--move", str(away), str(path)], check=True)
        good(place, "a", "b")
    finally:
        for path in mounts + [away]:
            subprocess.run(["umount", str(path)], check=False, capture_output=True)


def test_set_of_directories(place):
    """A new one joins, the order is free; one of another set, a copy, and the same one twice are refused."""
    filled(place, "a")
    good(place, "a", "b")
    good(place, "b", "a")
    assert "data directory 2 of 2 is missing" in place.refused(place.dirs("a"))
    server = place.serve("c")
    server.stop()
    before = digest(place.root)
    assert "directory_misplaced" in place.refused(place.dirs("a", "b", "c"))
    shutil.copytree(place.root / "b", place.root / "copy")
    before = digest(place.root)
    assert "one is a copy of the other" in place.refused(place.dirs("a", "b", "copy"))
    assert "the same data directory" in place.refused(place.dirs("a", "b", "a"), code=2)
    os.symlink(place.root / "a", place.root / "again")
    before.update(digest(place.root))
    assert "the same data directory" in place.refused(place.dirs("a", "b", "again"), code=2)
    assert digest(place.root) == before
    # one --data for each, and commas, are the same
    server = Server(*FLAGS, "--data", str(place.root / "b"), data=str(place.root / "a"))
    place.servers.append(server)
    assert count(server, "second") == 60
    server.stop()
    assert tool("list", "--data", place.root / "a", "--data", place.root / "b", check=0).stdout.split() == ["default", "second"]
    # the head of a set file is damaged: said, with exit code 3, and nothing is changed
    path = place.root / "b" / "cheetah.set"
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    before = digest(place.root)
    assert "cheetah.set: offset 0: does not match its checksum" in place.refused(place.dirs("a", "b"), code=3)
    path.write_bytes(whole[:8] + b"\x09" + whole[9:])
    assert "does not match its checksum" in place.refused(place.dirs("a", "b"), code=3)
    path.write_bytes(whole)
    assert {k: v for k, v in digest(place.root).items() if not k.endswith("cheetah.set")} == \
        {k: v for k, v in before.items() if not k.endswith("cheetah.set")}
    # the way out that the guide names: without set files they are taken up anew
    for name in "ab":
        (place.root / name / "cheetah.set").unlink()
    good(place, "a", "b")


def test_moved_shards(place):
    """A shard's folder may be moved to another directory, or a link put in its place; a database that is gone is not made anew."""
    filled(place, "a", "b")
    a, b, c = (place.root / name for name in "abc")
    (c / "second").mkdir(parents=True)
    shutil.move(a / "second" / "shard-002", c / "second")
    good(place, "a", "b", "c")
    shutil.move(b / "second" / "shard-001", place.root / "elsewhere")
    os.symlink(place.root / "elsewhere", b / "second" / "shard-001")
    good(place, "a", "b", "c")
    # the link leads to nothing: that disk is not mounted
    (place.root / "elsewhere").rename(place.root / "unmounted")
    before = digest(place.root)
    server = place.serve("a", "b", "c")
    assert count(server, "second") == "shard_missing"
    answer = server.client(db="second", check=False).put("/pairs/x", b"1")
    assert answer.code == "shard_missing" and "leads to nothing" in answer.json()["detail"]
    assert server.client(check=False).delete("/databases/second?confirm=second").code == "database_incomplete"
    server.stop()
    assert {k: v for k, v in digest(place.root).items() if "second" in k} == {k: v for k, v in before.items() if "second" in k}
    (place.root / "unmounted").rename(place.root / "elsewhere")
    good(place, "a", "b", "c")
    # dropped: what the link leads to is this database's, so its files go; the folder it lies in stays
    (place.root / "elsewhere" / "mine").write_bytes(b"x")
    done = tool("drop", "second", "--yes", "--data", place.dirs("a", "b", "c"), check=1)
    assert "elsewhere" not in done.stderr and "shard-001/mine: is no file of a database" in done.stderr
    good(place, "a", "b", "c")
    (place.root / "elsewhere" / "mine").unlink()
    tool("drop", "second", "--yes", "--data", place.dirs("a", "b", "c"), check=0)
    assert os.listdir(place.root / "elsewhere") == [] and not (a / "second").exists() and not (b / "second").exists()
    assert tool("list", "--data", place.dirs("a", "b", "c"), check=0).stdout.split() == ["default"]


# ---- what is missing or may not be read ---------------------------------------------------------------------------------


def test_missing_manifest(place):
    filled(place, "a", "b")
    for db in ("default", "second"):
        (place.root / "a" / db / "manifest").rename(place.root / db)
    before = digest(place.root)
    assert "no data directory has its manifest" in place.refused(place.dirs("a", "b"))
    assert digest(place.root) == before
    (place.root / "default").rename(place.root / "a" / "default" / "manifest")
    server = place.serve("a", "b")
    client = server.client(db="second", check=False)
    for answer in (client.put("/pairs/x", b"1"), client.get("/pairs/x"), server.client(check=False).put("/databases/second")):
        assert (answer.status, answer.code) == (503, "database_incomplete")
    server.stop()
    for command in (("create", "second"), ("drop", "second", "--yes")):
        assert "manifest" in tool(*command, "--data", place.dirs("a", "b"), check=1).stderr
    assert "manifest" in tool("check", "--data", place.dirs("a", "b"), check=1).stdout
    (place.root / "second").rename(place.root / "a" / "second" / "manifest")
    good(place, "a", "b")


def test_a_listed_database_is_gone(place):
    """Its folders are not there at all: it is not made anew until it is dropped, which only takes it from the list."""
    filled(place, "a", "b")
    for name in "ab":
        (place.root / name / "second").rename(place.root / (name + ".second"))
    server = place.serve("a", "b")
    assert server.client(db="second", check=False).put("/pairs/x", b"1").code == "database_incomplete"
    logged(server, "unfinished_work", "second: database_incomplete")
    server.stop()
    assert "not there any more" in tool("create", "second", "--data", place.dirs("a", "b"), check=1).stderr
    assert "listed" in tool("check", "--data", place.dirs("a", "b"), check=1).stdout
    for name in "ab":
        (place.root / (name + ".second")).rename(place.root / name / "second")
    good(place, "a", "b")
    for name in "ab":
        shutil.rmtree(place.root / name / "second")
    tool("drop", "second", "--yes", "--data", place.dirs("a", "b"), check=0)
    server = place.serve("a", "b")
    put_all(server, 5, "second")
    assert count(server, "second") == 5
    server.stop()


@ROOT_ONLY
@pytest.mark.parametrize("what", ["default/manifest", "default", "default/shard-000/keys", "cheetah.set"])
def test_without_permission(place, what):
    """As a user without rights: what may not be read is not absent."""
    with tempfile.TemporaryDirectory(prefix="cht_dirs.") as root:  # pytest's own may be entered by its owner only
        place.root = pathlib.Path(root)
        place.root.chmod(0o755)
        without_permission(place, what)


def without_permission(place, what):
    filled(place, "a")
    subprocess.run(["chown", "-R", "nobody:nogroup", str(place.root / "a")], check=True)
    path = place.root / "a" / what
    mode = path.stat().st_mode & 0o777
    shutil.chown(path, "root", "root")
    path.chmod(0o700 if path.is_dir() else 0o600)
    before = digest(place.root)
    log = place.refused(place.dirs("a"), user="nobody")
    assert what in log and "Permission denied" in log
    assert digest(place.root) == before
    shutil.chown(path, "nobody", "nogroup")
    path.chmod(mode)
    good(place, "a")


# ---- what is no database ------------------------------------------------------------------------------------------------


def test_foreign_folders(place):
    """Folders, files and links in a data directory that are no databases are left alone by everything that makes or drops one."""
    filled(place, "a", "b")
    outside = place.root / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "file").write_bytes(b"precious")
    a, b = place.root / "a", place.root / "b"
    shutil.copytree(outside, a / "backups")
    (b / "empty").mkdir()
    (a / "plain").write_bytes(b"precious")
    os.symlink(outside, b / "linked")
    os.symlink(place.root / "nowhere", a / "dangling")
    names = ["backups", "empty", "plain", "linked", "dangling"]
    outside_before = digest(outside)
    server = place.serve("a", "b", more=("--line-listen", "127.0.0.1:0", "--line-port-file", str(place.root / "line")))
    backup = place.root / "copies"
    backup.mkdir()
    tool("backup", backup, "--connect", "http://127.0.0.1:%d" % server.port, "--database", "second", check=0)
    client = server.client(check=False)
    port = int(wait_for(lambda: (place.root / "line").read_text().strip(), what="the line port"))
    for name in names:
        for answer in (client.request("POST", "/kv?db=" + name, b"x"), client.put("/pairs/x?db=" + name, b"x"), client.put("/databases/" + name),
                       client.delete("/databases/%s?confirm=%s" % (name, name))):
            assert (answer.status, answer.code) == (409, "foreign_files"), answer
        assert client.get("/kv/1?db=" + name).code == "database_not_found"
        with socket.create_connection(("127.0.0.1", port), 10) as line:
            line.sendall(b"DATABASE %s\n" % name.encode())
            assert b"ERROR,foreign_files" in line.recv(4096)
    assert client.get("/databases").json()["databases"] == ["default", "second"]
    server.stop()
    data = place.dirs("a", "b")
    for name in names:
        tool("create", name, "--data", data, check=1)
        tool("drop", name, "--yes", "--data", data, check=1)
        tool("restore", next(backup.iterdir()), "--data", data, "--database", name, check=1)
    assert digest(outside) == outside_before
    assert digest(a / "backups") == {str(a / "backups") + k[len(str(outside)):]: v for k, v in outside_before.items()}
    assert os.listdir(b / "empty") == [] and (a / "plain").read_bytes() == b"precious"
    assert os.readlink(b / "linked") == str(outside) and os.path.islink(a / "dangling")
    good(place, "a", "b")
    # in a database's own folder: it is not dropped until that is out of the way
    (a / "second" / "notes").write_bytes(b"precious")
    before = digest(a / "second", b / "second")
    server = place.serve("a", "b")
    answer = server.client(check=False).delete("/databases/second?confirm=second")
    assert (answer.status, answer.code) == (409, "foreign_files") and "second/notes" in answer.json()["detail"]
    assert count(server, "second") == 60
    server.stop()
    assert set(digest(a / "second", b / "second")) >= set(before) - {k for k in before if "/log/" in k}
    (a / "second" / "notes").unlink()
    tool("drop", "second", "--yes", "--data", data, check=0)
    assert tool("list", "--data", data, check=0).stdout.split() == ["default"]


# ---- unfinished work ----------------------------------------------------------------------------------------------------


def put_mark(place, mark):
    """What a cut at some moment leaves: the manifest under the name of a mark."""
    home = place.root / "a" / "second"
    (home / "manifest").rename(home / mark)


@pytest.mark.parametrize("mark,text", [("creating", "an unfinished creation is removed"), ("restoring", "an unfinished restore is removed"),
                                       ("dropping", "an unfinished deletion is completed")])
def test_unfinished_work(place, mark, text):
    filled(place, "a", "b")
    for name in "ab":  # before it is marked it is taken from the lists: as if made by an earlier start
        (place.root / name / "cheetah.set").unlink()
    put_mark(place, mark)
    shutil.rmtree(place.root / "b" / "second" / "shard-003")
    (place.root / "b" / "husk.unfinished").mkdir()
    (place.root / "b" / "foreign.unfinished").mkdir()
    (place.root / "b" / "foreign.unfinished" / "file").write_bytes(b"precious")
    data = place.dirs("a", "b")
    before = digest(place.root)
    done = tool("check", "--data", data, check=0)
    assert "second: a " in done.stderr and "was cut off" in done.stderr and done.stdout == ""
    done = tool("list", "--data", data, check=0)
    assert "second: " + text in done.stderr and done.stdout.split() == ["default"]
    assert digest(place.root) == before, "who only reads changes nothing"
    # something foreign in it: all of it is kept, and that is said
    (place.root / "b" / "second" / "mine").write_bytes(b"precious")
    server = place.serve("a", "b")
    logged(server, "unfinished_work", "second: foreign_files", "second/mine")
    answer = server.client(db="second", check=False).put("/pairs/x", b"1")
    assert (answer.status, answer.code) == (409, "foreign_files")
    server.stop()
    assert (place.root / "a" / "second" / mark).exists() and (place.root / "b" / "second" / "mine").exists()
    (place.root / "b" / "second" / "mine").unlink()
    server = place.serve("a", "b")
    logged(server, "unfinished_work", "second: " + text)
    assert not (place.root / "a" / "second").exists() and not (place.root / "b" / "second").exists()
    assert not (place.root / "b" / "husk.unfinished").exists() and (place.root / "b" / "foreign.unfinished" / "file").exists()
    put_all(server, 7, "second")
    assert (count(server, "default"), count(server, "second")) == (60, 7)
    server.stop()
    assert tool("check", "--data", data, check=0).stdout == ""


def test_unfinished_work_is_tried_again(place):
    """What a start could not remove is removed by the running server when that has become possible."""
    filled(place, "a", "b")
    for name in "ab":
        (place.root / name / "cheetah.set").unlink()
    put_mark(place, "dropping")
    foreign = place.root / "b" / "second" / "mine"
    foreign.write_bytes(b"precious")
    server = place.serve("a", "b")
    logged(server, "unfinished_work", "second: foreign_files", "second/mine")
    foreign.unlink()
    logged(server, "unfinished_work", "second: an unfinished deletion is completed")
    assert not (place.root / "a" / "second").exists() and not (place.root / "b" / "second").exists()
    assert count(server, "default") == 60
    server.stop()
    assert tool("check", "--data", place.dirs("a", "b"), check=0).stdout == ""


def test_killed_while_dropping_and_creating(place):
    """SIGKILL at any moment of a drop or a creation: afterwards a database is there wholly or not at all, and its space is free."""
    rounds = 40 if LONG else 8
    for n in range(rounds):
        server = place.serve("a", "b")
        client = server.client(check=False)
        client.put_all({b"%d" % i: os.urandom(2000) for i in range(200)}) if n == 0 else None
        client.put("/databases/victim")
        server.client(db="victim", check=False).put_all({b"%d" % i: b"v" * 500 for i in range(100)})

        def hit(server=server, n=n):
            try:
                other = server.client(check=False)
                if n % 2:
                    other.put("/databases/fresh-%d" % n)
                else:
                    other.delete("/databases/victim?confirm=victim")
            except Exception:  # the kill may come first
                pass

        thread = threading.Thread(target=hit)
        thread.start()
        time.sleep(0.0015 * (n + 1))
        server.process.kill()
        thread.join()
        server.wait()
        server = place.serve("a", "b")
        databases = server.client(check=False).get("/databases").json()["databases"]
        for name in "ab":
            here = {entry for entry in os.listdir(place.root / name) if os.path.isdir(place.root / name / entry)}
            assert here == set(databases), (n, here, databases)
        assert count(server, "default") == 200
        if "victim" in databases:
            assert count(server, "victim") == 100
        for name in databases:
            if name.startswith("fresh"):
                assert count(server, name) == 0
        server.stop()
        assert tool("check", "--data", place.dirs("a", "b"), check=0).stdout == ""


# ---- of the released program ------------------------------------------------------------------------------------------------


def value(db, n):
    return b"%s value %d " % (db.encode(), n) * (1 + n % 5)


def test_upgrade(place):
    """A data directory that the program of commit 15285a7 made: default stopped cleanly, killed after SIGKILL with a log to redo."""
    here = os.path.dirname(os.path.abspath(__file__))
    subprocess.run(["tar", "-xJf", os.path.join(here, "..", "fixtures", "released-15285a7.tar.xz"), "-C", str(place.root), "--strip-components=1"],
                   check=True)
    data = place.dirs("a", "b")
    before = digest(place.root)
    assert tool("list", "--data", data, check=0).stdout.split() == ["default", "killed"]
    assert tool("check", "--data", data, check=0).stdout == ""
    assert digest(place.root) == before and not (place.root / "a" / "cheetah.set").exists()
    for _ in range(2):
        server = place.serve("a", "b")
        for db, numbers in (("default", range(1, 200)), ("killed", range(300))):
            client = server.client(db=db, check=False)
            found = {pair: stored for pair, _, stored in client.scan(values="true")}
            assert found == {b"%s/key-%04d" % (db.encode(), n): value(db, n) for n in numbers}
        server.stop()
        assert tool("check", "--data", data, check=0).stdout == ""
    server = place.serve("b", "a")
    put_all(server, 60, "new")
    client = server.client(db="killed", check=False)
    assert client.put("/pairs/more", b"1").status == 201
    server.kill()
    server = place.serve("a", "b")
    assert (count(server, "new"), count(server, "killed"), count(server, "default")) == (60, 301, 199)
    server.stop()
    assert tool("check", "--data", data, check=0).stdout == ""
