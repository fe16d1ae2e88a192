"""Servers that start, and servers that end, while the cluster does not answer (its OSDs are stopped): neither is held up by librados."""
import contextlib
import os
import signal
import subprocess
import threading

import harness
import pytest
from harness import rados, unb64, wait_for

pytestmark = pytest.mark.skipif(not rados.WANTED or "CHT_RADOS_SHELL" not in os.environ, reason="CHT_STORE=rados: see tests/rados/README.md")
TIMEOUT = ("--rados-timeout", "300")  # so that it is not that which ends a server


def shell(*words):
    subprocess.run([os.environ["CHT_RADOS_SHELL"], words[0], os.environ["CHT_RADOS_DIR"], *words[1:]], check=True, timeout=60,
                   stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def silent():
    osds = [name.split(".")[1] for name in os.listdir(os.environ["CHT_RADOS_DIR"]) if name.startswith("osd.")]
    try:
        for osd in osds:
            shell("pause-osd", osd)
        yield
    finally:
        for osd in osds:
            shell("resume-osd", osd)


@pytest.fixture
def server(launch):
    return launch("--access-log", "false", *TIMEOUT)


@pytest.fixture
def launch():
    servers = []

    def start(*flags, **more):
        servers.append(harness.Server(*flags, **more))
        return servers[-1]

    yield start
    for extra in servers[1:]:
        extra.pool = None
    harness.finish_all(servers[::-1])


def writer(server):
    """A client that waits for the answer to a write, or for the end of its connection."""
    client = server.client(check=False)

    def write():
        with contextlib.suppress(Exception):
            client.put("/pairs/under-way", b"2")

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def ends(server, seconds):
    """On SIGTERM, with exit code 0. The bound is far above what it takes, and far below --rados-timeout."""
    server.signal(signal.SIGTERM)
    assert server.wait(seconds) == 0, server.lines[-20:]


def acknowledged_is_there(server):
    server.restart()
    row = server.client().get("/pairs/acknowledged", exact="true", values="true").json()
    assert unb64(row["value"]) == b"1"


def test_a_server_ends_without_a_cluster_that_is_silent(server):
    server.client().upsert(b"acknowledged", b"1")
    probe = server.client()
    with silent():
        thread = writer(server)
        wait_for(lambda: probe.get("/readyz").status == 503, 60, "/readyz 503")
        ends(server, 60)
        thread.join()
    assert any("the cluster does not answer" in line for line in server.lines)
    acknowledged_is_there(server)


@pytest.mark.skipif(not harness.LONG, reason="long; set CHT_TEST_LONG=1")
def test_a_cluster_that_is_silent_from_then_on(server):
    """It has answered until the signal: what is under way has the time of an operation, and no more."""
    server.client().upsert(b"acknowledged", b"1")
    with silent():
        thread = writer(server)
        ends(server, 60)
        thread.join()
    acknowledged_is_there(server)


def test_a_server_that_starts_waits_for_the_cluster(launch):
    first = launch("--access-log", "false")
    first.client().upsert(b"acknowledged", b"1")
    with silent():
        waits = launch("--access-log", "false", "--rados-timeout", "2", data=first.data, ready=False)
        probe = waits.client()
        wait_for(lambda: waits.log("cluster_silent"), 120, "the first try")
        answer = probe.get("/readyz")
        assert answer.status == 503 and answer.code == "starting"
        assert probe.get("/healthz").status == 200
        given_up = launch("--access-log", "false", *TIMEOUT, data=first.data, ready=False)
        ends(given_up, 60)
    wait_for(lambda: probe.get("/readyz").status == 200, 120, "/readyz")
    row = waits.client().get("/pairs/acknowledged", exact="true", values="true").json()
    assert unb64(row["value"]) == b"1"
