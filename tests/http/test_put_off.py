"""Commits that need no sync, of many connections at once: they are put off to the end of a round and run as one group (http_request_commit). Each is answered
for what it did, those of connections that go are done wholly or not at all, and what was answered is there after SIGKILL."""
import random

import harness

CONNECTIONS = 48


def put(path, body):
    return b"PUT %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s" % (
        path.encode(), len(body), body)


def rounds(server, n, each):
    """n rounds in which all connections send, then all read; each(i, answer) for request i. In the third round all are there at once."""
    raws = [server.raw() for _ in range(CONNECTIONS)]
    for r in range(n):
        if r == 2:
            server.pause()
        for i, raw in enumerate(raws):
            number = r * CONNECTIONS + i
            raw.send(put("/pairs/k%05d" % number, b"value %d" % number))
        if r == 2:
            server.go_on()
        for i, raw in enumerate(raws):
            each(r * CONNECTIONS + i, raw.answer("PUT"))
    for raw in raws:
        raw.close()


def check_all(server, count):
    client = server.client()
    for number in random.Random(1).sample(range(count), min(count, 100)):
        answer = client.get("/pairs/k%05d" % number, exact="true", values="true")
        assert harness.unb64(answer.json()["value"]) == b"value %d" % number
    assert client.get("/pairs/k", count="true").json()["pairs"] == count


def test_many_at_once(launch):
    server = launch("--durability", "os", "--http-threads", "1")
    keys = {}

    def each(number, answer):
        assert answer.status == 201, answer
        keys[number] = answer.json()["key"]

    rounds(server, 12, each)
    assert len(set(keys.values())) == 12 * CONNECTIONS
    assert server.metric("cheetah_commits_together_total") > 0
    check_all(server, 12 * CONNECTIONS)
    server.kill()
    server.restart()
    check_all(server, 12 * CONNECTIONS)


def test_many_beside_what_they_wait_for(launch):
    """Large atomic commits and checkpoints hold what a group needs: then the connections are suspended, and answered all the same."""
    server = launch("--durability", "os", "--http-threads", "1")
    with harness.large_commits(server):
        rounds(server, 12, lambda number, answer: check(answer.status == 201, answer))
    check_all(server, 12 * CONNECTIONS)


def check(ok, what):
    assert ok, what


def test_connections_that_go(launch):
    """Half of the connections end right after their request."""
    server = launch("--durability", "os", "--http-threads", "1")
    client = server.client()
    for r in range(12):
        raws = [server.raw() for _ in range(CONNECTIONS)]
        for raw in raws:
            raw.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for raw in raws:
            raw.answer()
        for i, raw in enumerate(raws):
            raw.send(put("/pairs/k%05d" % (r * CONNECTIONS + i), b"value"))
            if i % 2:
                raw.close()
        for i, raw in enumerate(raws):
            if i % 2 == 0:
                assert raw.answer("PUT").status == 201
                raw.close()
    count = client.get("/pairs/k", count="true").json()["pairs"]
    assert 6 * CONNECTIONS <= count <= 12 * CONNECTIONS
