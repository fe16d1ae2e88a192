"""deploy/haproxy: Debian's HAProxy in front of two servers on two data sets, with the configuration that ships."""
import csv
import datetime
import io
import json
import signal
import socket
import time

import pytest

import load
from conftest import free_port, in_deploy, run, tool
from harness import wait_for
from proxied import (
    Front, check_backpressure, check_framing, check_names_pass_through, check_request_ids, check_upload_is_not_collected, fill_with_64_mib)

CONFIG = in_deploy("haproxy", "haproxy.cfg")
DRAIN = 10


@pytest.fixture
def proxy(spawn, tmp_path):
    """start(a, b) -> the proxy's Front; b may be None for a server that is not there."""

    def start(a, b=None):
        program = tool("haproxy")
        front = Front(free_port(), free_port())
        env = {
            "CHEETAH_FRONT": "127.0.0.1:%d" % front.port,
            "CHEETAH_FRONT_WRITER": "127.0.0.1:%d" % front.writer_port,
            "CHEETAH_A": "127.0.0.1:%d" % a.port,
            "CHEETAH_B": "127.0.0.1:%d" % (b.port if b else free_port()),
            "CHEETAH_HAPROXY_SOCKET": str(tmp_path / "haproxy.sock"),
        }
        front.socket = env["CHEETAH_HAPROXY_SOCKET"]
        front.log = open(tmp_path / "haproxy.log", "w+")
        run(program, "-c", "-f", CONFIG, env=env)
        front.process = spawn(program, "-db", "-f", CONFIG, env=env, stdout=front.log, stderr=front.log)
        wait_for(lambda: front.answers("/readyz") or front.process.poll() is not None, what="haproxy")
        assert front.process.poll() is None, open(front.log.name).read()
        wait_for(lambda: status(front, "readers", "a") == "UP" and (b is None or status(front, "readers", "b") == "UP"), what="checks")
        return front

    return start


def stats(front):
    """{(backend, server): {column: value}}"""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(front.socket)
        s.sendall(b"show stat\n")
        text = b""
        while True:
            part = s.recv(1 << 16)
            if not part:
                break
            text += part
    rows = csv.DictReader(io.StringIO(text.decode().lstrip("# ")))
    return {(row["pxname"], row["svname"]): row for row in rows}


def status(front, backend, server):
    return stats(front)[(backend, server)]["status"].split()[0]


def last_question(server):
    """When the server last answered something else than a health check, in seconds."""
    events = [json.loads(line) for line in server.lines if '"event":"request"' in line]
    times = [event["time"] for event in events if event["path"] != "/readyz"]
    return datetime.datetime.fromisoformat(max(times).replace("Z", "+00:00")).timestamp()


def test_ambiguous_forms(launch, proxy, tmp_path):
    a = launch("--durability", "os")
    check_framing(proxy(a, a), a, (tmp_path / "haproxy.log").read_text)


def test_a_server_is_drained_under_load_and_no_request_fails(launch, proxy):
    a = launch("--drain-seconds", str(DRAIN), "--listen", "127.0.0.1:%d" % free_port())
    b = launch("--drain-seconds", "0")
    for server in (a, b):
        load.load_sample(server)
    expected = load.answers_of(a)
    assert expected == load.answers_of(b), "two copies of one data set"
    front = proxy(a, b)
    running = load.Load(front.port, expected)
    try:
        wait_for(lambda: all(int(stats(front)[("readers", name)]["stot"]) > 50 for name in "ab"), what="both are used")

        told = time.time()
        a.signal(signal.SIGTERM)
        wait_for(lambda: status(front, "readers", "a") == "DOWN", what="out of the pool")
        assert a.process.poll() is None, "haproxy noticed while it still served"
        assert a.wait() == 0, "\n".join(a.lines[-20:])
        ended = time.time()
        assert ended - told >= DRAIN - 0.1
        assert last_question(a) < ended - 0.5, "nothing was sent to a server that was about to stop"
        answered = running.answers
        wait_for(lambda: running.answers > answered + 50, what="the other one goes on alone")

        a.restart()  # after an upgrade, say
        wait_for(lambda: status(front, "readers", "a") == "UP", what="back in the pool")
        before = int(stats(front)[("readers", "a")]["stot"])
        wait_for(lambda: int(stats(front)[("readers", "a")]["stot"]) > before + 50, what="is used again")
    finally:
        running.stop()
    assert not running.failures, running.failures[:10]
    assert running.answers > 500
    rows = stats(front)
    for name in "ab":
        row = rows[("readers", name)]
        assert [row[c] for c in ("wretr", "wredis", "econ", "eresp")] == ["0"] * 4, "no retry had to hide a failure: %s" % row
    a.kill()  # it has been drained once


def test_reads_survive_a_server_that_is_killed(launch, proxy):
    a, b = launch("--drain-seconds", "0"), launch("--drain-seconds", "0")
    for server in (a, b):
        load.load_sample(server)
    expected = load.answers_of(a)
    front = proxy(a, b)
    # short answers: one that had begun when its server died cannot be taken back
    questions = [q for q in load.QUESTIONS if "exact" in q[1] or q[0] == "POST"]
    running = load.Load(front.port, expected, questions=questions)
    time.sleep(0.5)
    b.kill()
    time.sleep(1.5)
    running.stop()
    # at most what was being sent at that moment
    assert len(running.failures) <= len(running.threads), running.failures[:10]
    client = front.client()
    assert client.get("/pairs/*?count=true").status == 200
    client.close()


def test_writes_go_to_one_server(launch, proxy):
    a, b = launch(), launch()
    front = proxy(a, b)
    client, writer = front.client(), front.client(front.writer_port)
    for n in range(20):
        assert client.put("/pairs/w:%d" % n, b"v").status == 201
    assert writer.get("/pairs/w:?count=true").json()["pairs"] == 20
    at_a, at_b = a.client(), b.client()
    assert at_a.get("/pairs/w:?count=true").json()["pairs"] == 20
    assert at_b.get("/pairs/*?count=true").json()["pairs"] == 0
    assert client.post("/batch", b'{"op":"pair_put","pair":"YQ==","value":"Yg=="}\n').status == 200
    assert at_a.get("/pairs/a?exact=true").status == 200 and at_b.get("/pairs/a?exact=true").status == 404
    for port in (front.port, front.writer_port):
        closed = front.client(port)
        assert closed.get("/metrics").status == 404 and closed.get("/metrics?x=1").status == 404
        closed.close()
    for c in (client, writer, at_a, at_b):
        c.close()


def test_no_server_is_a_problem_with_retry_after(launch, proxy):
    a = launch()
    front = proxy(a)
    a.stop()
    wait_for(lambda: status(front, "readers", "a") == "DOWN", what="down")
    client = front.client()
    answer = client.get("/pairs/*")
    assert answer.status == 503 and answer.headers["Retry-After"] and answer.json()["code"] == "overloaded"
    assert answer.headers["Content-Type"] == "application/problem+json"
    client.close()


def test_names_ids_and_streams(launch, proxy):
    a, b = launch("--durability", "os"), launch("--durability", "os")
    front = proxy(a, b)
    check_names_pass_through(front)
    check_request_ids(front, [a, b])
    fill_with_64_mib(front)
    check_backpressure(front, a, port=front.writer_port)
    check_upload_is_not_collected(front, a, port=front.writer_port)
