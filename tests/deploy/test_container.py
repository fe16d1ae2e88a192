"""The container image: built with buildah as deploy/build-image.sh does it, inspected, and run.

Without a container engine it runs in a chroot of the image's file system, as the image's user, with the image's
environment and command; the network is that of this machine. Needs root. CHT_TEST_IMAGE names one that is built already.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile

import pytest

import harness
import load
from conftest import ROOT, free_port, in_deploy, run, tool

TAG = "localhost/cheetah-db-test"


@pytest.fixture(scope="module")
def image():
    tool("buildah"), tool("debootstrap")
    if os.geteuid() != 0:
        pytest.skip("building and running an image without an engine needs root")
    tag = os.environ.get("CHT_TEST_IMAGE")
    if tag is None:
        tag = TAG
        text = run(in_deploy("build-image.sh"), "--tag", tag, timeout=800)
        print(text.splitlines()[-1])
    yield tag
    if tag == TAG:
        run("buildah", "rmi", TAG)  # its base stays, for the next time


@pytest.fixture(scope="module")
def root(image):
    """The image's files, where they can be read and run."""
    container = run("buildah", "from", image).split()[-1]
    try:
        yield run("buildah", "mount", container).split()[-1]
    finally:
        run("buildah", "umount", container)
        run("buildah", "rm", container)


def config(image):
    return json.loads(run("buildah", "inspect", "--type", "image", image))["Docker"]["config"]


class Container:
    """The image's entry point in a chroot. data: a folder of the host in the place of /data."""

    def __init__(self, image, root, data, *extra, **env):
        self.port, self.root = free_port(), root
        self.config = config(image)
        self.user = self.config["User"]
        self.env = dict(e.split("=", 1) for e in self.config["Env"])
        self.env.update({"CHEETAH_LISTEN": "127.0.0.1:%d" % self.port, "CHEETAH_DATA": data, "CHEETAH_LINE_LISTEN": "none", **env})
        command = self.config["Entrypoint"] + (list(extra) or self.config["Cmd"])
        self.process = subprocess.Popen(self.inside(command), env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)

    def inside(self, command):
        return ["chroot", "--userspec", self.user, self.root, *command]

    def healthy(self):
        """The HEALTHCHECK command, inside."""
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return subprocess.run(self.inside(command), env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def stop(self):
        self.process.send_signal(signal.Signals[self.config.get("StopSignal") or "SIGTERM"])
        errors = self.process.communicate(timeout=120)[1]
        return self.process.returncode, errors


@pytest.fixture
def data(root):
    """A folder inside the image's /data: a named volume starts as a copy of it, with its owner."""
    with tempfile.TemporaryDirectory(dir=os.path.join(root, "data")) as folder:
        os.chown(folder, 10001, 10001)
        yield "/data/" + os.path.basename(folder)


def test_what_the_image_says(image):
    c = config(image)
    assert c["User"] == "10001:10001" and list(c["Volumes"]) == ["/data"] and list(c["ExposedPorts"]) == ["8080/tcp"]
    assert c["Entrypoint"] == ["cheetah-db"] and c["Cmd"] == ["serve"], "no shell between the engine and the server"
    assert c["StopSignal"] == "SIGTERM" and c["Healthcheck"]["Test"] == ["CMD", "cheetah-db", "health"]


def test_it_is_small_and_has_no_compiler(root):
    kib = int(run("du", "-skx", root).split()[0])
    print("%d MiB" % (kib // 1024))
    assert kib < 120 * 1024
    for name in ("gcc", "cc", "cmake", "curl", "python3"):
        assert not os.path.exists(os.path.join(root, "usr", "bin", name)), name
    assert os.stat(os.path.join(root, "data")).st_uid == 10001
    assert os.path.getsize(os.path.join(root, "usr/local/bin/cheetah-db")) < 4 << 20, "stripped"


def test_life(image, root, data):
    first = Container(image, root, data, CHEETAH_DRAIN_SECONDS="1")
    first.scheme, first.cafile = "http", None
    harness.wait_for(first.healthy, what="healthy")
    first.client = lambda: harness.Client(first, check=False)
    load.load_sample(first)
    client = first.client()
    assert client.get("/pairs/*?count=true").json()["pairs"] == 14102
    client.close()
    code, errors = first.stop()
    assert code == 0, errors
    assert not first.healthy()
    second = Container(image, root, data)
    second.scheme, second.cafile = "http", None
    harness.wait_for(second.healthy, what="healthy")
    client = harness.Client(second, check=False)
    assert client.get("/pairs/*?count=true").json()["pairs"] == 14102
    client.close()
    assert second.stop()[0] == 0


def test_open_to_the_network_only_when_told(image, root, data):
    refused = Container(image, root, data, CHEETAH_LISTEN="0.0.0.0:0")
    code, errors = refused.process.wait(120), refused.process.stderr.read()
    assert code != 0 and "allow-anonymous" in errors, errors


def test_the_http_tests_pass_against_the_image(root, tmp_path):
    """The program and the libraries of the image, driven by tests/http; /tmp is shared with it."""
    place = os.path.join(root, "tmp")
    run("mount", "--bind", tempfile.gettempdir(), place)
    try:
        program = tmp_path / "cheetah-db"
        program.write_text('#!/bin/sh\nexec chroot "%s" /usr/local/bin/cheetah-db "$@"\n' % root)
        program.chmod(0o755)
        tests = [os.path.join(ROOT, "tests", "http", "test_%s.py" % name) for name in ("kv", "service", "golden")]
        text = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, timeout=600,
                   env={**os.environ, "CHEETAH_DB": str(program)})
        assert " passed" in text and "failed" not in text, text
        print(text.splitlines()[-1])
    finally:
        run("umount", place)
