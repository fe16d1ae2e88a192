"""HAProxy, with deploy/ceph/haproxy.cfg, in front of two servers on one pool, one of which is killed under load.

    tests/rados/run.sh env CHT_STORE=rados CHEETAH_DB=... /usr/bin/python3 -m pytest -q tests/rados/test_haproxy.py
"""
import http.client
import json
import os
import shutil
import subprocess
import threading

import harness
import pytest
from harness import free_port, rados, unb64, wait_for

CONFIG = os.path.join(os.path.dirname(__file__), "..", "..", "deploy", "ceph", "haproxy.cfg")
pytestmark = pytest.mark.skipif(not (rados.WANTED and shutil.which("haproxy")), reason="CHT_STORE=rados and HAProxy")
WRITERS, READERS = 4, 2
EACH = 500 if harness.LONG else 50  # calls of each before the server is killed, and as many after


def ask(port, method, path, body=None):
    """The status and the body; 0: the connection ended without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


@pytest.fixture
def front():
    a = harness.Server("--access-log", "false")
    b = harness.Server("--access-log", "false", data=a.data)
    port = free_port()
    env = dict(os.environ, CHEETAH_FRONT="127.0.0.1:%d" % port, CHEETAH_A="127.0.0.1:%d" % a.port, CHEETAH_B="127.0.0.1:%d" % b.port)
    subprocess.run(["haproxy", "-c", "-f", CONFIG], env=env, check=True, capture_output=True, timeout=30)
    with subprocess.Popen(["haproxy", "-db", "-f", CONFIG], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as proxy:
        try:
            wait_for(lambda: ask(port, "GET", "/readyz")[0] == 200, what="haproxy")
            yield port, a, b
        finally:
            proxy.kill()
    b.pool = None
    harness.finish_all([b, a])


def test_a_server_is_killed_under_load(front):
    port, _, b = front
    written, broken, unread, stop = [{} for _ in range(WRITERS)], [0] * WRITERS, [], threading.Event()
    done = [0] * (WRITERS + READERS)
    assert ask(port, "PUT", "/pairs/read", b"me")[0] == 201

    def write(who):
        i = 0
        while not stop.is_set():
            name, value = "w%d-%d" % (who, i % 50), b"%d" % i
            status, _ = ask(port, "PUT", "/pairs/" + name, value)
            if status in (200, 201):
                written[who][name] = value
                i += 1
                done[who] = i
            else:
                assert status in (502, 503), status
                broken[who] += 1  # an upsert: the same once more

    def read(who):
        while not stop.is_set():
            status, body = ask(port, "GET", "/pairs/read?exact=true&values=true")
            if status != 200 or b"bWU=" not in body:
                unread.append((status, body))
            done[who] += 1

    def all_go_on(text):
        before = list(done)
        wait_for(lambda: all(now - then >= EACH for now, then in zip(done, before)), 120, text)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(WRITERS)]
    threads += [threading.Thread(target=read, args=(who,)) for who in range(WRITERS, WRITERS + READERS)]
    for thread in threads:
        thread.start()
    try:
        all_go_on("calls through both")
        b.process.kill()
        b.wait()
        all_go_on("calls through the one that is left")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not unread, unread
    assert sum(broken) <= 4 * WRITERS, "what was under way at the server that was killed, and no more: %r" % broken
    for one in written:
        for name, value in one.items():
            status, body = ask(port, "GET", "/pairs/%s?exact=true&values=true" % name)
            assert status == 200 and unb64(json.loads(body)["value"]) == value, name
    print("%d written, %d broken off" % (sum(len(one) for one in written), sum(broken)))
