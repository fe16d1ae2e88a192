"""Statistics as a service: progress of long runs, clients that go away, the cache under writers, the queue under many drainers."""
import json
import random
import resource
import threading
import time

import harness
import pytest
from harness import Machine, b64, layouts, ndjson, unb64, wait_for

NDJSON = {"Content-Type": "application/x-ndjson"}
TOKENS, PART = 400000, 100000


def zipf(seed, tokens, vocabulary=20000):
    rng, weights, total = random.Random(seed), [], 0.0
    for rank in range(vocabulary):
        total += 1 / (rank + 1)
        weights.append(total)
    return rng.choices(range(vocabulary), cum_weights=weights, k=tokens)


@pytest.fixture(scope="module")
def big():
    """A server with the counts of 400 000 Zipf tokens, order 3 (about 600 000 pairs); nothing is cached."""
    server = harness.Server("--durability", "os", "--shards", "3", "--access-log", "false", "--reduce-cache-bytes", "0", "--scrub-bytes-per-second", "0")
    client, text = server.client(), zipf(1, TOKENS)
    for at in range(0, TOKENS, PART):
        documents = (text[i:i + 50] for i in range(at, at + PART, 50))
        answer = client.post("/ngrams", ndjson({"tokens": d} for d in documents), headers=NDJSON, order="3")
        assert answer.status == 200, answer
    assert client.post("/databases/default/checkpoint").status == 200  # none is made beside what is measured
    yield server
    server.finish()


class Asking:
    """GETs under way at once, on sockets of their own."""

    def __init__(self, server, targets, method="GET"):
        self.started = time.monotonic()
        self.raw = [server.raw() for _ in targets]
        for raw, target in zip(self.raw, targets):
            raw.send("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n" % (method, target))

    def go(self):
        for raw in self.raw:
            raw.close()


def sweeps(number, more=""):
    """Aggregates that no cache knows: each has bounds of its own."""
    return ["/reduce/totals/cnt:?after=a%d%s" % (i, more) for i in range(number)]


def jobs(server):
    return server.metric("cheetah_statistics_jobs")


def longest_silence(raw, started):
    """Reads an answer to its end; (lines, the longest time between two arrivals)."""
    status, _ = raw.head()
    last, silence, body = started, 0.0, b""
    while True:
        part = raw.chunk()
        silence, last = max(silence, time.monotonic() - last), time.monotonic()
        if not part:
            return status, [json.loads(line) for line in body.splitlines()], silence
        body += part


# ---- long runs


def test_aggregates_say_how_far_they_are(big):
    assert any(beyond_a_second(big) < 1.0 for _ in range(5)), "another second is for a machine that is loaded"


def beyond_a_second(big):
    """How much longer than a second, and than the machine may keep anybody waiting, one of many aggregates says nothing."""
    asking = Asking(big, sweeps(200, "&limit=100"))  # some seconds of work; short answers, so that the time is not ours
    results = [None] * len(asking.raw)

    def read(i):
        results[i] = longest_silence(asking.raw[i], asking.started)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(results))]
    with Machine() as machine:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    took = time.monotonic() - asking.started
    asking.go()
    progress, longest = 0, 0.0
    for status, lines, silence in results:
        assert status == 200
        plain = [line for line in lines if "progress" not in line]
        assert plain[-1]["end"]["count"] == len(plain) - 1 and plain[:-1] == [line for line in results[0][1] if "token" in line]
        assert all("progress" in line for line in lines[:len(lines) - len(plain)]), "progress comes before the lines"
        said = [line["progress"] for line in lines if "progress" in line]
        assert all(0 <= p["done"] <= p["total"] or p["total"] == 0 for p in said)
        assert all(p["phase"] == "totals" for p in said)
        assert [p["done"] for p in said] == sorted(p["done"] for p in said)
        progress += len(said)
        longest = max(longest, silence)
    assert took < 1 or progress > 0
    return longest - 1.0 - 4 * machine.stalled


def test_aggregates_stop_when_nobody_waits(big):
    before = big.cpu()
    Asking(big, sweeps(1)).raw[0].answer()
    alone = big.cpu() - before
    asking = Asking(big, sweeps(60))
    wait_for(lambda: jobs(big) > 0, what="a job")
    time.sleep(0.1)
    asking.go()
    gone = big.cpu()
    wait_for(lambda: jobs(big) == 0, what="the end of all jobs", pause=0.02)
    took = big.cpu() - gone
    assert took < max(1.5, 5 * alone), "60 sweeps of %.2f s of a processor each went on for %.2f s" % (alone, took)
    before = big.cpu()
    time.sleep(0.5)
    assert big.cpu() - before < 0.3, "it goes on computing"


def test_smoothing_says_how_far_it_is_and_stops(big):
    client = big.client()
    for _ in range(5):  # nothing is said for longer only because the machine keeps it waiting
        asking, before = Asking(big, ["/reduce/smooth/cnt:"], "POST"), big.cpu()
        with Machine() as machine:
            status, lines, silence = longest_silence(asking.raw[0], asking.started)
        whole = big.cpu() - before
        asking.go()
        if silence < 2.0 + 4 * machine.stalled:
            break
    assert status == 200 and silence < 2.0 + 4 * machine.stalled
    assert [line["order"] for line in lines if "order" in line] == [1, 2, 3] and lines[-1] == {"end": {"count": 3, "next": None, "malformed": 0}}
    phases = [line["progress"]["phase"] for line in lines if "progress" in line]
    assert [p for i, p in enumerate(phases) if i == 0 or phases[i - 1] != p][-5:] == ["counts", "continuations", "order 1", "order 2", "order 3"]
    # one works, the others wait for their turn and are no jobs yet; all go away
    asking = Asking(big, ["/reduce/smooth/cnt:"] * 3, "POST")
    wait_for(lambda: jobs(big) == 1, what="the job")
    asking.go()
    gone = big.cpu()
    wait_for(lambda: jobs(big) == 0, what="the end of the jobs", pause=0.02)
    took = big.cpu() - gone
    assert took < max(1.5, 0.6 * whole), "a run of %.1f s of a processor went on for %.1f s" % (whole, took)
    # a run that was cut off is simply run again
    answer = client.post("/reduce/smooth/cnt:")
    assert [line["order"] for line in answer.entries() if "order" in line] == [1, 2, 3]
    assert client.get("/pairs/prob:3:", count="true").json()["pairs"] == client.get("/pairs/cnt:3:", count="true").json()["pairs"]


def test_a_dropped_database_stops_its_runs(server, name):
    client = server.client(db=name)
    client.put_all({b"cnt:%06d" % i: layouts.counts(1, [(i, 1)]) for i in range(20000)})
    asking = Asking(server, ["%s&db=%s" % (target, name) for target in sweeps(30)])
    assert client.delete("/databases/" + name, confirm=name).status == 204
    for raw in asking.raw:
        answer = raw.answer()
        assert answer.status in (200, 404, 410), answer
        if answer.status == 200:
            assert "end" in answer.lines()[-1] or answer.lines()[-1]["error"]["code"] in ("database_dropped", "cancelled")
    asking.go()
    assert server.client().get("/healthz").status == 200


def test_stopping_the_server_does_not_wait_for_its_runs(launch):
    server = launch("--shards", "3", "--durability", "os", "--access-log", "false")
    client, text = server.client(), zipf(3, 200000)
    for at in range(0, len(text), PART):
        client.post("/ngrams", ndjson({"tokens": text[i:i + 50]} for i in range(at, at + PART, 50)), headers=NDJSON, order="3")
    before = server.cpu()
    client.post("/reduce/smooth/cnt:")
    whole = server.cpu() - before
    asking = Asking(server, ["/reduce/smooth/cnt:?orders=1-3"] * 6, "POST")  # one after the other
    sweeping = []

    def are_many():
        sweeping.append(Asking(server, sweeps(30)))
        return jobs(server) > 2

    wait_for(are_many, what="the jobs")
    ended, begun = resource.getrusage(resource.RUSAGE_CHILDREN), server.cpu()
    server.stop()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # with all that the server has taken, from its start on
    took = usage.ru_utime + usage.ru_stime - ended.ru_utime - ended.ru_stime - begun
    for asked in [asking, *sweeping]:
        asked.go()
    assert took < max(2.5, 3 * whole), "six runs of %.2f s of a processor: the server took %.2f s to stop" % (whole, took)


# ---- the cache


def ask(client, mode="totals", prefix="cnt:", **params):
    answer = client.get("/reduce/%s/%s" % (mode, prefix), **params)
    assert answer.status == 200, answer
    return answer.headers["Cheetah-Cache"], answer.lines()


def test_the_cache_is_in_the_metrics(launch):
    server = launch("--shards", "3", "--durability", "os")
    client = server.client(db="m")
    client.put_all({b"cnt:%d" % i: layouts.counts(1, [(i, 2)]) for i in range(100)})
    names = ("cheetah_reduce_cache_hits_total", "cheetah_reduce_cache_misses_total", "cheetah_reduce_cache_dropped_total",
             "cheetah_reduce_cache_entries")
    wait_for(lambda: [server.metric(n) for n in names] == [0, 0, 0, 0], what="the counts")
    assert ask(client)[0] == "miss" and ask(client)[0] == "hit" and ask(client)[0] == "hit"
    assert ask(client, "stats")[0] == "miss"
    wait_for(lambda: [server.metric(n) for n in names] == [2, 2, 0, 2], what="the counts")
    kept = server.metric("cheetah_reduce_cache_bytes")
    assert 100 * 40 < kept < 1 << 20
    client.upsert(b"cnt:5", layouts.counts(1, [(5, 3)]))
    assert ask(client)[0] == "miss"
    wait_for(lambda: [server.metric(n) for n in names] == [2, 3, 1, 2], what="the counts")
    assert client.delete("/databases/m", confirm="m").status == 204
    assert server.comes_to("cheetah_reduce_cache_entries", 0) and server.comes_to("cheetah_reduce_cache_bytes", 0)


def test_the_cache_is_bounded(launch):
    server = launch("--shards", "3", "--durability", "os", "--reduce-cache-bytes", "64K")
    client = server.client()
    client.put_all({b"cnt:%03d" % i: layouts.counts(1, [(i, 2)]) for i in range(300)})
    for i in range(50):
        first = ask(client, after="cnt:%03d" % i)
        assert first[0] == "miss" and len(first[1]) == 300 - i
        assert server.metric("cheetah_reduce_cache_bytes") <= 1 << 16
    assert server.metric("cheetah_reduce_cache_entries") >= 1
    assert ask(client, after="cnt:049")[0] == "hit" and ask(client, after="cnt:000")[0] == "miss"


def test_nothing_stale_under_concurrent_writers(client, server):
    """Each writer raises a counter of its own and then, having the answer, asks: no sum may miss what it wrote."""
    rounds, writers, errors, hits = 150, 4, [], [0]
    client.put_all({b"cnt:%d" % i: layouts.counts(1, [(i, 1)]) for i in range(writers)})
    client.put_all({b"cnt:x%04d" % i: layouts.counts(1, [(100, 1)]) for i in range(2000)})
    key = {i: client.get("/pairs/cnt:%d" % i, exact="true").json()["key"] for i in range(writers)}

    def count_of(lines, token):
        return next((line["count"] for line in lines if line.get("token") == token), 0)

    def write(i):
        mine = server.client(db=client.db)
        try:
            for n in range(2, rounds):
                value = layouts.counts(1, [(i, n)])
                if n % 3 == 0:  # by key: the name is not mentioned
                    assert mine.put("/kv/%d" % key[i], value, headers={"Content-Type": "application/octet-stream"}).status == 200
                elif n % 3 == 1:
                    mine.upsert(b"cnt:%d" % i, value)
                else:
                    mine.batch([{"op": "pair_put", "pair": b64(b"cnt:%d" % i), "value": b64(value)}])
                got = count_of(ask(mine)[1], i)
                assert got == n, "wrote %d, was told %d" % (n, got)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    def read():
        mine, seen = server.client(db=client.db), [0] * writers
        try:
            while any(thread.is_alive() for thread in threads) and not errors:
                state, lines = ask(mine)
                hits[0] += state == "hit"
                now = [count_of(lines, i) for i in range(writers)]
                assert all(a <= b for a, b in zip(seen, now)), "went back from %s to %s" % (seen, now)
                seen = now
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(writers)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads + readers:
        thread.start()
    for thread in threads + readers:
        thread.join()
    assert not errors, errors[0]
    assert ask(client)[0] in ("hit", "miss") and ask(client)[0] == "hit"


# ---- the queue


def test_each_entry_to_exactly_one_of_many_drainers(client, server):
    entries = {b"q:%06d" % i: b"job %d" % i for i in range(6000)}
    late = {b"q:%06d" % i: b"job %d" % i for i in range(6000, 9000)}
    client.put_all(entries)
    taken, errors, feeding = [], [], threading.Event()

    def drain(seed):
        mine, rng = server.client(db=client.db), random.Random(seed)
        try:
            empty = False
            while not empty or not feeding.is_set():
                fed = feeding.is_set()
                answer = mine.post("/reduce/queue-drain/q:", limit=str(rng.choice((1, 3, 17, 100, 700))))
                assert answer.status == 200, answer
                lines = answer.entries()
                assert answer.end["count"] == len(lines)
                taken.extend((unb64(line["pair"]), unb64(line["payload"]), line["key"]) for line in lines)
                empty = fed and not lines
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=drain, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for at in range(6000, 9000, 100):
        client.put_all({b"q:%06d" % i: late[b"q:%06d" % i] for i in range(at, at + 100)})
    feeding.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    left = {pair: value for pair, _, value in client.scan(b"q:", values="true")}
    assert not left
    pairs = [pair for pair, _, _ in taken]
    assert len(pairs) == len(set(pairs)) == 9000, "each to exactly one"
    assert {pair: value for pair, value, _ in taken} == {**entries, **late}
    keys = [key for _, _, key in taken]
    assert all(client.read(key) is None for key in keys[::97]), "the values are gone, too"


def test_draining_a_database_that_is_dropped(server, name):
    client = server.client(db=name)
    client.put_all({b"q:%06d" % i: bytes(100) for i in range(5000)})
    asking = Asking(server, ["/reduce/queue-drain/q:?db=" + name] * 4, "POST")
    time.sleep(0.01)
    dropped = client.delete("/databases/" + name, confirm=name)
    assert dropped.status in (204, 409)
    for raw in asking.raw:
        answer = raw.answer()
        assert answer.status in (200, 404, 410) or answer.code == "database_dropped", answer
    asking.go()
    client.delete("/databases/" + name, confirm=name)
    assert server.client().get("/healthz").status == 200
