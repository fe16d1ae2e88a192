"""One tenant does not stop another: while one database has work of seconds, calls of another one and of the service are answered.

The server has one HTTP thread, so a call that held it would be seen by all. Each piece of work is started by one or several
clients and watched by another: what it asks must be answered again and again while the work is under way.
"""
import json
import threading
import time

import pytest
from harness import LONG, SANITIZED, Server, b64

SHARE = 8 if SANITIZED else 1  # so much less work takes as long then
NAMESPACES = {"d": 400_000 // SHARE, "e": 400_000 // SHARE}


def ngrams_body(seed, tokens):
    """Documents of 1000 tokens; a linear congruential sequence, so that contexts seldom repeat."""
    x, lines = seed, []
    for _ in range(tokens // 1000):
        document = []
        for _ in range(1000):
            x = (x * 6364136223846793005 + 1442695040888963407) & (2 ** 64 - 1)
            document.append(2 + (x >> 40) % 5000)
        lines.append(json.dumps({"tokens": document}, separators=(",", ":")))
    return "\n".join(lines).encode()


@pytest.fixture(scope="module", params=["sync", "os"] + ["interval"] * LONG)
def busy(request):
    server = Server("--durability", request.param, "--http-threads", "1", "--access-log", "false", "--max-batch-ops", "1000000")
    fill(server, "a", NAMESPACES)
    assert server.client(db="a").put("/pairs/large", bytes(3 << 20)).status == 201
    client = server.client(db="b")
    assert client.put("/pairs/here", b"value").status == 201
    assert client.post("/ngrams", b'{"tokens":[1,2,3]}').status == 200
    yield server
    server.finish()


def fill(server, db, namespaces):
    client = server.client(db=db)
    for namespace, pairs in namespaces.items():
        for first in range(0, pairs, 50_000):
            rows = ('{"op":"pair_put","pair":"%s","value":"%s"}'
                    % (b64(b"%s:%08x" % (namespace.encode(), i * 2654435761 % 2 ** 32)), b64(b"%024d" % i))
                    for i in range(first, min(pairs, first + 50_000)))
            answer = client.post("/batch", "\n".join(rows).encode(), results="false", atomic="true")
            assert answer.status == 200, answer.body


def probes(server):
    """What another tenant and an operator ask meanwhile."""
    b = server.client(db="b")
    service = server.client()
    return {
        "read": lambda: b.get("/pairs/here", exact="true", values="true"),
        "scan": lambda: b.get("/pairs/*", values="true"),
        "count": lambda: b.get("/pairs/*", count="true"),
        "write": lambda: b.put("/pairs/written", b"x"),
        "ngrams": lambda: b.post("/ngrams", b'{"tokens":[1,2,3]}'),
        "stats": lambda: b.get("/reduce/stats/here"),
        "describe": lambda: service.get("/databases/b"),
        "ready": lambda: service.get("/readyz"),
        "metrics": lambda: service.get("/metrics"),
    }


def during(server, works):
    """Runs the calls of `works` side by side. For each probe: how often it was answered meanwhile, and the longest wait; and how
    long the work took."""
    results = [None] * len(works)

    def run(i):
        results[i] = works[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    seen = {}
    ask = probes(server)
    for call in ask.values():
        assert call().status < 300
    start = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for what, call in ask.items():
            begin = time.monotonic()
            assert call().status < 300, what
            count, worst = seen.get(what, (0, 0.0))
            seen[what] = (count + 1, max(worst, time.monotonic() - begin))
            if not any(thread.is_alive() for thread in threads):
                break
    took = time.monotonic() - start
    for answer in results:
        assert answer.status < 300, answer.body
    return seen, took


def late(seen, took):
    """The waits that were as long as a good part of the work, and longer than this program's own threads keep each other."""
    waits = {what: "%.3f s" % worst for what, (_, worst) in seen.items() if worst > max(0.5, took / 3)}
    if took > 0.6 and sum(count for count, _ in seen.values()) < 9:
        waits["answers"] = str(seen)
    return waits


def assert_not_stopped(server, prepare):
    """prepare() makes the work anew. A loaded machine can make anything wait: only what waits each time of ten was stopped."""
    for attempt in range(10):
        seen, took = during(server, prepare())
        if not late(seen, took):
            return
    assert not late(seen, took), "the work took %.3f s; %s" % (took, late(seen, took))


def deletion(server, namespace):
    """Deletes the namespace, which is there."""
    client = server.client(db="a", check=False)
    if client.get("/pairs/%s:" % namespace, count="true").json()["pairs"] == 0:
        fill(server, "a", {namespace: NAMESPACES[namespace]})
    return lambda: client.delete("/pairs/%s:" % namespace, recursive="true", values="true")


def test_counting_in_one_database_leaves_room_for_another(busy):
    """Six clients count into one database; five of them only wait for their turn, and hold no thread."""
    bodies = [ngrams_body(seed, 60_000 // SHARE) for seed in range(1, 7)]
    assert_not_stopped(busy, lambda: [lambda body=body: busy.client(db="a", check=False).post("/ngrams", body, order="4") for body in bodies])


def test_deleting_a_namespace_holds_no_thread_of_others(busy):
    assert_not_stopped(busy, lambda: [deletion(busy, "d")])


def test_a_reader_of_the_namespace_that_is_deleted_holds_no_thread(busy):
    """Readers of the same database wait for it, and nobody else does."""

    def later(target, **query):
        def call():
            time.sleep(0.03)
            return busy.client(db="a", check=False).get(target, **query)
        return call

    readers = [later("/pairs/e:", count="true"), later("/pairs/e:", limit="9"), later("/kv", limit="5"), later("/databases/a"),
               later("/reduce/stats/e:"), later("/pairs/large", exact="true", values="true"), later("/pairs/large", values="true")]
    assert_not_stopped(busy, lambda: [deletion(busy, "e")] + readers * 3)


def test_a_large_atomic_batch_holds_no_thread_of_others(busy):
    rows = "\n".join('{"op":"pair_put","pair":"%s","value":"eA=="}' % b64(b"m:%08x" % (i * 2654435761 % 2 ** 32))
                     for i in range(200_000 // SHARE)).encode()
    assert_not_stopped(busy, lambda: [lambda: busy.client(db="a", check=False).post("/batch", rows, atomic="true", results="false")])


def test_dropping_a_database_waits_for_nobody_elses(busy):
    def works():
        fill(busy, "gone", {"x": 50_000 // SHARE})
        return [lambda: busy.client(check=False).delete("/databases/gone", confirm="gone"), lambda: busy.client(check=False).post("/databases/a/checkpoint"),
                lambda: busy.client(db="a", check=False).post("/reduce/smooth/cnt:", b"")]

    assert_not_stopped(busy, works)
