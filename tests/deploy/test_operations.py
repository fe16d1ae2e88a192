"""What deploy/README.md tells an operator to do, done: the backup drill, a shard on another disk."""
import glob
import os
import shutil

import harness
import load
from conftest import run


def state(server):
    client = server.client(check=False)
    pairs = client.get("/pairs/*?values=true").body
    client.close()
    return pairs


def test_backup_and_restore_drill(launch, tmp_path):
    server = launch()
    load.load_sample(server)
    here = "http://127.0.0.1:%d" % server.port
    before = state(server)
    run(harness.BINARY, "backup", str(tmp_path / "backup"), "--database", "default", "--connect", here)
    client = server.client(check=False)
    assert client.put("/pairs/later", b"not in the backup").status == 201
    client.close()
    (file,) = glob.glob(str(tmp_path / "backup" / "default-*.cheetah"))
    run(harness.BINARY, "restore", file, "--verify")
    run(harness.BINARY, "restore", file, "--data", str(tmp_path / "drill"))
    copy = launch(data=str(tmp_path / "drill"))
    assert state(copy) == before != state(server)
    copy.stop()
    broken = tmp_path / "broken.cheetah"
    data = bytearray(open(file, "rb").read())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    run(harness.BINARY, "restore", str(broken), "--verify", code=3)
    run(harness.BINARY, "restore", str(broken), "--data", str(tmp_path / "no"), code=3)


def test_a_shard_moves_to_another_disk(launch, tmp_path):
    old, new, away = str(tmp_path / "disk1"), str(tmp_path / "disk2"), str(tmp_path / "away")
    server = launch(data=old)
    load.load_sample(server)
    before = state(server)
    server.stop()
    both = "%s,%s" % (old, new)
    os.makedirs(os.path.join(new, "default"))
    run("cp", "-a", os.path.join(old, "default", "shard-003"), os.path.join(new, "default"))

    # there twice: named, and nobody starts with it
    assert "shard 3 is in" in run(harness.BINARY, "check", old, new, code=None)
    text = run(harness.BINARY, "serve", "--data", both, "--listen", "127.0.0.1:0", "--line-listen", "none", code=1)
    assert "shard 3" in text
    shutil.move(os.path.join(old, "default", "shard-003"), away)

    # a directory that is not named
    text = run(harness.BINARY, "serve", "--data", old, "--listen", "127.0.0.1:0", "--line-listen", "none", code=1)
    assert "shard 3" in text

    run(harness.BINARY, "check", old, new)
    assert run(harness.BINARY, "stat", "default", "--data", both).count(new) == 1
    moved = launch(data=both)
    assert state(moved) == before
    moved.stop()
