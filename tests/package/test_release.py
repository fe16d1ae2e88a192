"""deploy/release.sh and deploy/build-deb.sh. A release without packages and image is made here every time; what takes minutes (packages, twice in two
places; the upgrade with a package) with CHT_TEST_LONG=1."""
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile

import harness
import pytest
from conftest import ROOT, run, tool

LONG = pytest.mark.skipif(not os.environ.get("CHT_TEST_LONG"), reason="minutes: CHT_TEST_LONG=1")
OLD = "15285a7"  # the commit that was 0.1.0
FIXTURE = os.path.join(ROOT, "tests", "fixtures", "released-15285a7.tar.xz")  # of the program that was 0.1.0


def version():
    with open(os.path.join(ROOT, "CMakeLists.txt"), encoding="utf-8") as file:
        return re.search(r"^project\(cheetah-db VERSION (\S+) ", file.read(), re.M).group(1)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    tool("lintian")
    out = str(tmp_path_factory.mktemp("release") / "out")
    run(os.path.join(ROOT, "deploy", "release.sh"), "--no-deb", "--no-image", out)
    return out


def test_what_a_release_has(release):
    name = "cheetah-db-" + version()
    assert set(os.listdir(release)) == {name + ".tar.gz", name + ".spdx.json", "cheetah_http-%s-py3-none-any.whl" % version(), "SHA256SUMS"}
    with open(os.path.join(release, "SHA256SUMS"), encoding="utf-8") as file:
        sums = dict(reversed(line.split()) for line in file)
    assert set(sums) == set(os.listdir(release)) - {"SHA256SUMS"}
    for path, digest in sums.items():
        with open(os.path.join(release, path), "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == digest
    with open(os.path.join(release, name + ".spdx.json"), encoding="utf-8") as file:
        document = json.load(file)
    assert document["spdxVersion"] == "SPDX-2.3" and {"libmicrohttpd12", "libgnutls30", "libc6", "cheetah-db"} <= {p["name"] for p in document["packages"]}
    assert {one["fileName"][2:]: one["checksums"][0]["checksumValue"] for one in document["files"]} == {n: s for n, s in sums.items() if not n.endswith(".json")}
    known = {"SPDXRef-DOCUMENT"} | {one["SPDXID"] for one in document["packages"] + document["files"]}
    assert all({one["spdxElementId"], one["relatedSpdxElement"]} <= known for one in document["relationships"])
    assert any(n.endswith("LICENSE") for n in zipfile.ZipFile(glob.glob(release + "/*.whl")[0]).namelist())


def test_the_archive_is_all_of_the_sources(release):
    """Of one owner and one time, so that two of them are the same bytes; and what is built of it has all it needs."""
    with tarfile.open(os.path.join(release, "cheetah-db-%s.tar.gz" % version())) as archive:
        members = archive.getmembers()
    names = [member.name.split("/", 1)[1] for member in members]
    assert names == sorted(names) and {"LICENSE", "CHANGELOG.md", "CMakeLists.txt", "src/main.c", "deploy/debian/rules", "cmake/cheetah.pc.in"} <= set(names)
    assert set(names) == set(run(os.path.join(ROOT, "deploy", "sources.sh")).split("\n")) - {""}
    assert {(m.uid, m.gid, m.uname, m.mtime) for m in members} == {(0, 0, "", members[0].mtime)}
    assert {oct(m.mode) for m in members if m.isfile()} <= {"0o644", "0o755"}


def test_without_a_program_nothing_is_begun(release, tmp_path):
    """Of a source archive that nothing was built in."""
    with tarfile.open(os.path.join(release, "cheetah-db-%s.tar.gz" % version())) as archive:
        archive.extractall(tmp_path)
    source = tmp_path / ("cheetah-db-" + version())
    assert "build it, or the packages" in run(str(source / "deploy" / "release.sh"), "--no-deb", "--no-image", str(tmp_path / "out"), code=1)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    assert "is not empty" in run(os.path.join(ROOT, "deploy", "release.sh"), str(tmp_path), code=1)
    assert os.listdir(tmp_path) == ["mine"]


# ---- packages


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    """A release with its packages; CHEETAH_DEBS names a folder that has one."""
    if os.environ.get("CHEETAH_DEBS"):
        return os.environ["CHEETAH_DEBS"]
    tool("lintian")
    out = str(tmp_path_factory.mktemp("debs"))
    run(os.path.join(ROOT, "deploy", "release.sh"), "--no-image", out, timeout=3000)  # lintian is a part of it
    return out


@LONG
def test_two_builds_in_two_places_are_the_same_bytes(debs, tmp_path):
    """All of a release but the image. The second is made of the source archive of the first, in another folder, with another umask and time zone, and
    without the cache of the compiler."""
    with tarfile.open(os.path.join(debs, "cheetah-db-%s.tar.gz" % version())) as archive:
        archive.extractall(tmp_path / "some" / "where")
    source, out = str(tmp_path / "some" / "where" / ("cheetah-db-" + version())), str(tmp_path / "out")
    run(os.path.join(source, "deploy", "release.sh"), "--no-image", out, timeout=3000, env=dict(os.environ, CCACHE_DISABLE="1", TZ="Asia/Tokyo"), umask=0o077)
    names = sorted(os.listdir(debs))
    assert names == sorted(os.listdir(out)) and len(names) == 7 and sum(name.endswith(".deb") for name in names) == 3
    for name in names:
        with open(os.path.join(debs, name), "rb") as a, open(os.path.join(out, name), "rb") as b:
            assert a.read() == b.read(), name


def dpkg(root, *words):
    return run("dpkg", "--root=" + str(root), "--force-script-chrootless", "--force-depends", "--force-confold", *words,
               env=dict(os.environ, DEBIAN_FRONTEND="noninteractive", PATH="/usr/sbin:/usr/bin:/sbin:/bin"))


@pytest.fixture(scope="module")
def old_program(tmp_path_factory):
    """The program that was 0.1.0, built of the history of this repository; None where that is not there (a source archive, a shallow clone)."""
    if subprocess.run(["git", "-C", ROOT, "cat-file", "-e", OLD + "^{commit}"], capture_output=True, check=False).returncode != 0:
        return None
    source = tmp_path_factory.mktemp("old")
    archive = subprocess.run(["git", "-C", ROOT, "archive", OLD], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    run("cmake", "-G", "Ninja", "-S", str(source), "-B", str(source / "build"), "-DCMAKE_BUILD_TYPE=Release", "-DCHEETAH_TESTS=OFF")
    run("cmake", "--build", str(source / "build"), "--target", "cheetah-db", timeout=3000)
    return str(source / "build" / "cheetah-db")


def write_with(program, data):
    """The old program, as its package has it, over data of its own; killed, so that its log is still to be redone."""
    server = harness.Server("--durability", "sync", data=str(data), binary=program)
    try:
        client = server.client()
        written = {b"upgrade/%04d" % i: b"value %d " % i * (i % 50 + 1) for i in range(400)}
        for name, value in written.items():
            client.upsert(name, value)
        client.batch([{"op": "pair_put", "pair": harness.b64(b"batch/%04d" % i), "value": harness.b64(b"v")} for i in range(500)], db="other")
        server.kill()
    finally:
        server.finish()
    return written


def read_with(program, data, written):
    server = harness.Server(data=str(data), binary=program)
    try:
        client = server.client()
        for name, value in written.items():
            answer = client.get("/pairs/%s?exact=true&values=true" % harness.hexed(name)).json()
            assert harness.unb64(answer["value"]) == value
        assert client.get("/pairs/batch/?count=true&db=other").json()["pairs"] == 500
        server.stop()
    finally:
        server.finish()


@LONG
def test_upgrade_of_package_and_data(debs, old_program, tmp_path):
    """A machine with the package as it was, an edited configuration and data that 0.1.0 wrote: after the upgrade the packaged program serves the same
    data; what the operator wrote, and the data, stay when the package goes, also when it is purged. 0.1.0 had no package: it is today's with the
    program of that time in it, which writes the data; without the history to build that, data of the fixture alone."""
    if os.getuid() != 0:
        pytest.skip("dpkg wants to be root")
    (deb,) = glob.glob(os.path.join(debs, "cheetah-db_*.deb"))
    root, old = tmp_path / "root", tmp_path / "old"
    for folder in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "etc", "var/lib/dpkg/triggers"):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text("")
    for name in ("passwd", "group"):
        (root / "etc" / name).write_text("root:x:0:0::/root:/bin/sh\n" if name == "passwd" else "root:x:0:\n")
    run("dpkg-deb", "-R", deb, str(old))
    if old_program:
        shutil.copy(old_program, old / "usr/bin/cheetah-db")
    control = (old / "DEBIAN" / "control").read_text()
    (old / "DEBIAN" / "control").write_text(re.sub(r"^Version: .*$", "Version: 0.1.0", control, flags=re.M))
    (old / "etc/cheetah-db/cheetah-db.conf").write_text("# as 0.1.0 had it\nlisten = 127.0.0.1:8080\n")
    run("dpkg-deb", "-b", str(old), str(tmp_path / "old.deb"))
    dpkg(root, "-i", str(tmp_path / "old.deb"))
    assert "cheetah-db" in (root / "etc/passwd").read_text(), "sysusers"
    (root / "etc/cheetah-db/cheetah-db.conf").write_text("# the operator's\nlisten = 127.0.0.1:0\n")
    data = root / "var/lib/cheetah-db"
    data.mkdir(parents=True)
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(data)
    program, written = str(root / "usr/bin/cheetah-db"), None
    if old_program:
        assert run(program, "--version").split()[1].startswith("0.1.")
        written = write_with(program, data / "here")
    dpkg(root, "-i", deb)
    assert (root / "etc/cheetah-db/cheetah-db.conf").read_text().startswith("# the operator's")
    assert run(program, "--version").split()[1] == version()
    if written:
        read_with(program, data / "here", written)
        run(program, "check", str(data / "here"))
    dirs = "%s,%s" % (data / "released" / "a", data / "released" / "b")
    assert run(program, "list", "--data", dirs).split() == ["default", "killed"]
    assert run(program, "count", "default/", "--data", dirs).split()[0] == "199"
    assert run(program, "count", "killed/", "--data", dirs, "--database", "killed").split()[0] == "300"
    assert run(program, "get", "killed/key-0001", "--data", dirs, "--database", "killed") == "killed value 1 killed value 1 "
    run(program, "check", *dirs.split(","))
    dpkg(root, "-r", "cheetah-db")
    assert not (root / "usr/bin/cheetah-db").exists() and (root / "etc/cheetah-db/cheetah-db.conf").exists()
    dpkg(root, "-P", "cheetah-db")
    assert os.listdir(data / "released" / "a"), "data is the operator's"


@LONG
def test_what_the_packages_hold(debs):
    holds = {os.path.basename(path).split("_")[0]: run("dpkg-deb", "-c", path) for path in glob.glob(debs + "/*.deb")}
    for name, part in [("cheetah-db", "./usr/bin/cheetah-db"), ("cheetah-db", "./lib/systemd/system/cheetah-db.service"), ("cheetah-db", "man1/cheetah-db-serve.1.gz"),
                       ("cheetah-db", "bash-completion/completions/cheetah-db"), ("cheetah-db", "zsh/vendor-completions/_cheetah-db"),
                       ("cheetah-db", "./usr/lib/sysusers.d/cheetah-db.conf"), ("libcheetah0.2", "libcheetah.so.0.2"), ("libcheetah-dev", "cheetah/lm.h")]:  # fmt: skip
        assert part in holds[name], (name, part)
    (deb,) = glob.glob(os.path.join(debs, "cheetah-db_*.deb"))
    unit = subprocess.run("dpkg-deb --fsys-tarfile '%s' | tar -xO ./lib/systemd/system/cheetah-db.service" % deb, shell=True, capture_output=True, text=True, check=True).stdout
    assert "ExecStart=/usr/bin/cheetah-db serve\n" in unit and "/usr/local" not in unit
