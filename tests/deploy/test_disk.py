"""A disk of which a part cannot be read (deploy/README.md, "When something is wrong"): for root only, with a loop device whose
image is cut under the file system. Only the values lie on it.
"""
import base64
import os
import random
import re
import subprocess

import harness
import pytest

MEGABYTES = 64


def sh(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def forget_pages():
    sh("sync")
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    image, mount = str(tmp_path / "image"), str(tmp_path / "mount")
    with open(image, "wb") as file:
        file.truncate(MEGABYTES << 20)
    os.mkdir(mount)
    try:
        sh("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal", image)
        sh("mount", "-o", "loop", image, mount)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip("no loop devices here: %s" % (getattr(error, "stderr", None) or error))
    bound = []
    try:
        yield image, mount, bound
    finally:
        os.truncate(image, MEGABYTES << 20)
        for path in bound + [mount]:
            subprocess.run(("umount", path), check=False)


def physical(path, page):
    """The block of the device that a page of a file lies in."""
    for row in re.findall(r"^ *\d+: *(\d+)\.\. *\d+: *(\d+)\.\. *\d+: *(\d+):", sh("filefrag", "-v", path), re.M):
        logical, first, length = (int(n) for n in row)
        if logical <= page < logical + length:
            return first + page - logical
    raise AssertionError("page %d of %s is nowhere" % (page, path))


def read_all(client, values):
    """The names whose values are damaged; all others are right."""
    damaged = set()
    for name, value in values.items():
        answer = client.get("/pairs/%s?exact=true&values=true" % name)
        if answer.status == 500:
            assert answer.json()["code"] == "corrupt_value"
            damaged.add(name)
        else:
            assert answer.status == 200 and base64.b64decode(answer.json()["value"]) == value
    return damaged


def test_unreadable_sectors(disk, launch, tmp_path):
    image, mount, bound = disk
    data, flags = str(tmp_path / "data"), ("--shards", "1", "--scrub-bytes-per-second", "0")
    server = launch(*flags, data=data)
    client = server.client(check=False)
    made = random.Random(1)
    values = {"p%05d" % n: made.randbytes(made.choice((64, 500, 2000))) for n in range(1500)}
    for name, value in values.items():
        assert client.put("/pairs/" + name, value).status == 201
    client.close()
    server.stop()
    path = os.path.join(data, "default", "shard-000", "values")
    there = os.path.join(mount, "values")
    sh("cp", path, there)
    sh("mount", "--bind", there, path)
    bound.append(path)
    page = os.path.getsize(path) // 4096 * 3 // 4
    server = launch(*flags, data=data)
    forget_pages()
    os.truncate(image, physical(there, page) * 4096)
    forget_pages()
    client = server.client(check=False)
    damaged = read_all(client, values)
    assert 0 < len(damaged) < len(values)
    seen = re.search(r"^cheetah_corrupt_values_total\S* (\d+)", client.get("/metrics").body.decode(), re.M)
    assert int(seen.group(1)) >= len(damaged)
    lines = client.get("/pairs/*?values=true").body.splitlines()
    assert sum(b"corrupt_value" in line for line in lines) == len(damaged)
    assert client.get("/readyz").status == 200
    client.close()
    server.kill()
    found = subprocess.run((harness.BINARY, "check", "--data", data), capture_output=True, text=True, check=False)
    assert found.returncode == 1 and "values:%d" % (page * 4096) in found.stdout + found.stderr
    os.truncate(image, MEGABYTES << 20)  # what was cut off reads as zeros: damage of another kind
    server = launch(*flags, data=data)
    client = server.client(check=False)
    assert read_all(client, values) == damaged
    client.close()
    server.stop()
