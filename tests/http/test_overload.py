"""Memory of requests: each is bounded (413 request_too_large), all have a budget (503 overloaded); long bodies hold up no thread."""
import base64
import json
import os
import random
import threading
import time

import pytest
from harness import HANG, SANITIZED, Machine, b64, ndjson, wait_for

OS = ("--durability", "os", "--shards", "1", "--access-log", "false")
ND = {"Content-Type": "application/x-ndjson"}
MIB = 1 << 20


def anonymous(server):
    with open("/proc/%d/status" % server.process.pid, encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))


class Peak:
    """The most anonymous memory that the server had, beyond what it had before."""

    def __init__(self, server):
        self.server, self.before, self.most, self.ended = server, anonymous(server), 0, False
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.ended:
            self.most = max(self.most, anonymous(self.server) - self.before)
            time.sleep(0.001)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()


def documents(n, length=1000, seed=1):
    """Nothing in them repeats: the dearest there is."""
    rng = random.Random(seed)
    return [json.dumps({"tokens": [rng.getrandbits(32) for _ in range(length)]}, separators=(",", ":")) for _ in range(n)]


def booked(server):
    return server.metric("cheetah_request_memory_bytes")


def given_back(server):
    return server.comes_to("cheetah_request_memory_bytes", 0)


@pytest.mark.skipif(SANITIZED, reason="a sanitizer has memory of its own")
@pytest.mark.parametrize("order", [2, 3, 8])
def test_ngrams_are_bounded(launch, order):
    """What would pass --request-memory-bytes counts nothing and takes no more than that; in parts it is counted. The estimate is not too low."""
    server = launch("--request-memory-bytes", "32M", "--http-threads", "1", *OS)
    client = server.client()
    many = {2: 135, 3: 135, 8: 45}[order]
    docs = documents(many)
    with Peak(server) as peak:
        answer = client.post("/ngrams", "\n".join(docs * 2), headers=ND, order=str(order))
    assert (answer.status, answer.code) == (413, "request_too_large") and "--request-memory-bytes" in answer.json()["detail"]
    assert peak.most < 32 * MIB + 8 * MIB
    assert client.get("/pairs/*", count="true").json()["pairs"] == 0, "nothing was counted"
    parts = {2: 3, 3: 5, 8: 15}[order]
    for i in range(parts):
        answer = client.post("/ngrams", "\n".join(docs[i * many // parts:(i + 1) * many // parts]), headers=ND, order=str(order))
        assert answer.status == 200, answer
    assert given_back(server) and server.comes_to("cheetah_requests_too_large_total", 1)


def test_a_stored_context_of_many_followers_counts(launch):
    """The counts that a request adds to are read and written: they are booked too."""
    server = launch("--request-memory-bytes", "16M", *OS)
    client = server.client()
    rng = random.Random(2)
    seen = set()
    for _ in range(12):
        tokens = [rng.getrandbits(32) for _ in range(60000)]
        answer = client.post("/ngrams", json.dumps({"tokens": tokens}), headers=ND, order="1")
        if answer.status != 200:
            assert (answer.status, answer.code) == (413, "request_too_large")
            break
        seen.update(tokens)
    assert len(seen) > 150000 and answer.status == 413
    assert client.get("/reduce/counts-of-counts/cnt:1:").entries()[0]["types"] == len(seen)


@pytest.mark.parametrize("pad", [70000, 200000])
def test_a_long_line_gives_back_what_it_took(launch, pad):
    """Its beginning came while its buffer was small, which books nothing. What the commit books after it is still counted right."""
    server = launch(*OS)
    client = server.client()
    assert client.post("/kv", b"v").status == 201
    line = '{"op":"read","key":1,"pad":"%s"}\n' % ("x" * pad)
    assert client.post("/batch", line, headers=ND, results="false").end == {"count": 1, "failed": 0}
    assert given_back(server) and server.comes_to("cheetah_requests_too_large_total", 0)


def test_a_batch_line_is_bounded(launch):
    """A line takes at most base64 of --max-value-size and 64 KiB; one of small elements within that is refused before they are made."""
    server = launch("--max-value-size", "8M", "--request-memory-bytes", "128M", "--http-threads", "1", *OS)
    client = server.client()
    answer = client.post("/batch", b'{"op":"insert","value":"dg==","x":"' + b"a" * (12 * MIB) + b'"}', headers=ND)
    assert (answer.status, answer.code) == (413, "batch_too_large")
    for filler in (b"[],", b"1,", b'{"a":1},'):
        with Peak(server) as peak:
            line = b'{"op":"insert","value":"dg==","x":[' + filler * (10 * MIB // len(filler)) + b"1]}"
            answer = client.post("/batch", line, headers=ND)
        assert (answer.status, answer.code) == (413, "request_too_large"), filler
        assert SANITIZED or peak.most < 48 * MIB
    assert client.get("/kv").entries() == [] and given_back(server)


def test_long_lines_keep_their_place(server, client):
    """Long and short lines of a batch and of /ngrams are read as if all were short."""
    size = 200000
    operations = []
    for i in range(9):
        operations.append({"op": "insert", "value": b64(b"%d" % i * (size if i % 3 == 1 else 1))})
    text = ndjson(operations).split(b"\n")
    text.insert(4, b'{"op":"insert","value":"' + b"!" * size + b'"}')
    text.insert(5, b"")
    text.insert(6, b"nonsense")
    answer = client.post("/batch", b"\n".join(text).rstrip(b"\n"), headers=ND)
    lines = answer.entries()
    assert [line["status"] for line in lines] == [201] * 4 + [400] * 2 + [201] * 5 and answer.end == {"count": 11, "failed": 2}
    assert [line["code"] for line in lines[4:6]] == ["invalid_value", "invalid_operation"]
    for i in range(9):
        assert client.read(i + 1) == b"%d" % i * (size if i % 3 == 1 else 1)
    failed = client.post("/batch", b"\n".join(text[:7]), headers=ND, atomic="true")
    assert failed.status == 409 and failed.json()["index"] == 4 and failed.json()["operation"]["code"] == "invalid_value"
    docs = ['{"tokens":[%s]}' % ",".join(str(t % 7) for t in range(n)) for n in (5, 90000, 3, 60000, 2)]
    whole = client.post("/ngrams", "\n".join(docs) + "\n\n", headers=ND).json()
    assert (whole["documents"], whole["tokens"]) == (5, 150010)
    for bad, code in (('{"tokens":["%s"]}' % ("1" * 100000), "invalid_tokens"), ("[" + "1," * 50000 + "1]", "invalid_tokens"), ("{" * 100000, "invalid_body")):
        answer = client.post("/ngrams", "\n".join([docs[0], docs[1], bad, docs[2]]), headers=ND)
        assert answer.status == 400 and answer.code == code and answer.json()["detail"].startswith("line 3")


def test_long_json_values(server, client):
    value = bytes(range(256)) * 2000
    answer = client.post("/kv", json_body={"value": b64(value)})
    assert answer.status == 201 and client.read(answer.json()["key"]) == value
    assert client.put("/pairs/long", json_body={"value": b64(value), "x": 1}).status in (201, 400)
    for body in ("{" + " " * 100000, "[" + " " * 100000 + "]", '{"value":"' + "!" * 100000 + '"}', '{"x":"' + "a" * 100000 + '"}'):
        for method, path in (("POST", "/kv"), ("PUT", "/kv/1"), ("PUT", "/pairs/bad")):
            answer = client.request(method, path, body, headers={"Content-Type": "application/json"})
            assert (answer.status, answer.code) == (400, "invalid_value"), (path, body[:20], answer)
    assert client.get("/pairs/bad", exact="true").status == 404


def test_long_bodies_hold_up_no_thread(launch):
    """With one HTTP thread: while long lines and documents are parsed, /healthz is answered at once."""
    server = launch("--http-threads", "1", *OS)
    line = b'{"op":"insert","value":"dg==","x":[' + b"1," * (2 * MIB) + b"1]}\n"
    bodies = [("/batch?db=a", line * 2, ND), ("/ngrams?db=b&order=1", b'{"tokens":[%s1]}' % (b"1," * 900000), ND),
              ("/kv?db=c", b'{"x":[' + b"1," * (3 * MIB) + b'1],"value":"dg=="}', {"Content-Type": "application/json"})]
    probe = server.client(check=False)

    def longest():
        """The longest that somebody waited meanwhile, beyond what the machine keeps everybody waiting."""
        answers, slowest = [], 0

        def send(path, body, headers):
            answers.append(server.client(check=False).post(path, body, headers=headers).status)

        threads = [threading.Thread(target=send, args=one) for one in bodies]
        with Machine() as machine:
            [t.start() for t in threads]
            while any(t.is_alive() for t in threads):
                start = time.monotonic()
                assert probe.get("/healthz").status == 200
                slowest = max(slowest, time.monotonic() - start)
                time.sleep(0.005)
        [t.join() for t in threads]
        assert sorted(answers) == [200, 200, 201]
        return slowest - 4 * machine.stalled

    assert any(longest() < 1.0 for _ in range(10)), "each time"


def test_all_requests_have_a_budget(launch):
    """Bodies that are under way fill --memory-bytes: further ones are 503 with Retry-After, small calls go on, and what ends makes room."""
    server = launch("--memory-bytes", "24M", *OS)
    client = server.client()
    size = 2 * MIB
    head = "POST /kv HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size

    def statuses_of_all():
        begun = time.monotonic()
        held = [server.raw() for _ in range(6)]
        refused = server.metric("cheetah_requests_over_memory_total")
        try:
            for raw in held:
                raw.send(head).send(bytes(size - 1))
            wait_for(lambda: booked(server) > 8 * MIB, what="bodies that are booked")
            assert client.read(client.insert(b"small")) == b"small"
            wait_for(lambda: server.metric("cheetah_requests_over_memory_total") > refused, what="a refusal")
            answers = [raw.send(b"x").answer() for raw in held]
        except (EOFError, ConnectionError):
            assert time.monotonic() - begun > 9, "the rest of a body that was refused is waited for ten seconds"
            return None
        finally:
            [raw.close() for raw in held]
            given_back(server)
        for answer in answers:
            assert answer.status == 201 or answer.code == "overloaded" and int(answer.headers["retry-after"]) >= 1
        return [answer.status for answer in answers]

    statuses = wait_for(statuses_of_all, 10 * HANG, "ends of bodies in time")
    assert 1 <= statuses.count(503) <= 5 and statuses.count(201) >= 1
    before = client.get("/kv", values="false").end["count"]
    assert before >= 1 + statuses.count(201) and client.insert(bytes(size)) > 0
    assert client.get("/kv", values="false").end["count"] == before + 1


def test_streams_are_of_the_budget(launch):
    """Each has the memory of its scan while it is open: when all is booked the next one is 503, point reads go on, and what ends makes room."""
    server = launch("--memory-bytes", "24M", "--idle-timeout", "3600", *OS[:2], *OS[4:])
    client = server.client()
    for start in range(0, 4000, 400):
        lines = [{"op": "pair_put", "pair": b64(b"p%05d" % i), "value": b64(b"v" * 3000)} for i in range(start, start + 400)]
        assert client.batch(lines, results="false").end["failed"] == 0
    given_back(server)
    held = [server.raw(receive_buffer=4096).send("GET /pairs/*?values=true HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(12)]
    answers = [raw.head() for raw in held]
    statuses = [answer[0] for answer in answers]
    assert set(statuses) == {200, 503} and 2 <= statuses.count(200) <= 10
    assert MIB * statuses.count(200) < booked(server) <= 24 * MIB and server.comes_to("cheetah_requests_over_memory_total", statuses.count(503))
    answer = client.get("/pairs/*", values="true")
    assert (answer.status, answer.code) == (503, "overloaded") and "--memory-bytes" in answer.json()["detail"]
    assert client.get("/pairs/p00001", exact="true", values="true").status == 200
    for raw in held:
        raw.close()
    given_back(server)
    assert len(client.get("/pairs/*").entries()) == 4000


def test_what_has_no_stream_for_its_answer_is_not_done(launch):
    """At --max-streams a batch was 503 `overloaded`, with Retry-After, after it had been committed: who sent it again inserted and added twice."""
    server = launch("--max-streams", "2", "--idle-timeout", "3600", *OS)
    client = server.client()
    for start in range(0, 6000, 600):
        lines = [{"op": "pair_put", "pair": b64(b"p%05d" % i), "value": b64(b"v" * 3000)} for i in range(start, start + 600)]
        assert client.batch(lines, results="false").end["failed"] == 0
    assert client.post("/ngrams", b'{"tokens":[1,2,1,2,3]}\n', headers=ND, order="2").status == 200
    client.upsert(b"number", b"1")
    client.upsert(b"queue:1", b"v")
    held = [server.raw(receive_buffer=4096).send("GET /pairs/p?values=true HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(2)]
    assert [raw.head()[0] for raw in held] == [200, 200]
    assert client.post("/databases/default/checkpoint").status == 200  # else one may be made by itself between the two looks
    before = client.get("/databases/default").json()
    writes = ndjson([{"op": "insert", "value": b64(b"v")}, {"op": "add", "pair": b64(b"number"), "by": 1}, {"op": "pair_put", "pair": b64(b"new"), "value": b64(b"v")}])
    for path, body, params in (("/batch", writes, {}), ("/batch", writes, {"results": "false"}), ("/batch", writes, {"atomic": "true"}), ("/batch", b'{"op":"read","key":1}', {}),
                               ("/reduce/queue-drain/queue:", b"", {}), ("/reduce/smooth/cnt:", b"", {"orders": "1-2"})):
        answer = client.post(path, body, headers=ND, **params)
        assert (answer.status, answer.code) == (503, "overloaded") and answer.headers["Retry-After"] == "1", path
    after = client.get("/databases/default").json()
    assert [after[name] for name in ("keys", "values", "pairs", "next_key", "log")] == [before[name] for name in ("keys", "values", "pairs", "next_key", "log")]
    assert client.get("/pairs/number", exact="true", values="true", text="true").json()["text"] == "1"
    for raw in held:
        raw.close()
    server.comes_to("cheetah_streams_open", 0)
    for params in ({}, {"atomic": "true"}):
        assert client.post("/batch", writes, headers=ND, **params).end == {"count": 3, "failed": 0}
    assert client.post("/batch", b'{"op":"read","key":99999999}', headers=ND, atomic="true").code == "batch_failed"
    assert server.comes_to("cheetah_streams_open", 0), "also of one that failed"
    assert client.get("/pairs/number", exact="true", values="true", text="true").json()["text"] == "3"


def test_nothing_of_a_queue_is_lost_for_memory(launch, tmp_path):
    """What an answer had no memory for was taken from the queue and answered 413; it is taken in smaller parts, or stays."""
    server = launch("--request-memory-bytes", "4M", *OS, data=tmp_path)
    client = server.client()
    want = {b"q:%03d" % i: bytes([i]) * 60000 for i in range(100)}
    for name, value in want.items():
        client.upsert(name, value)
    got = {}
    while len(got) < len(want):
        lines = client.post("/reduce/queue-drain/q:", limit="1000").entries()
        assert lines, "each call goes on"
        got.update((base64.b64decode(line["pair"]), base64.b64decode(line["payload"])) for line in lines)
    assert got == want and client.get("/pairs/q:", count="true").json()["pairs"] == 0
    client.upsert(b"q:short", b"v")
    text = '\t"\u202e' * 200000  # each is twice as long in the answer
    key = client.upsert(b"q:long", text.encode())
    server.stop()
    server = launch("--request-memory-bytes", "2M", *OS, data=tmp_path)
    client = server.client()
    for params in ({}, {"text": "true"}):
        answer = client.post("/reduce/queue-drain/q:", **params)
        assert (answer.status, answer.code) == (413, "request_too_large"), answer
    value = client.get("/kv/%d" % key, headers={"Accept": "application/octet-stream"}).body
    assert client.get("/pairs/q:", count="true").json()["pairs"] == 2 and value == text.encode()
    server.stop()
    server = launch("--request-memory-bytes", "4M", *OS, data=tmp_path)
    assert [line["text"] for line in server.client().post("/reduce/queue-drain/q:", text="true").entries()] == [text, "v"]
    given_back(server)


def test_smoothing_is_of_the_budget(launch):
    """Where there is no room for its tables it does without them, with the same result; where there is none for its threads it is refused, and has
    written nothing."""
    threads = min(max(os.sysconf("SC_NPROCESSORS_ONLN"), 2), 16)
    rng = random.Random(5)
    docs = "\n".join(json.dumps({"tokens": [rng.randrange(200) for _ in range(300)]}) for _ in range(20))
    results = []
    for flags in ((), ("--memory-bytes", "%dM" % (11 * threads + 2))):
        server = launch(*flags, "--idle-timeout", "3600", *OS[:2], *OS[4:])
        client = server.client()
        assert client.post("/ngrams", docs, headers=ND, order="3").status == 200
        if flags:
            for _ in range(10):
                assert client.batch([{"op": "insert", "value": b64(b"v" * 3000)}] * 400, results="false").end["failed"] == 0
            held = [server.raw(receive_buffer=4096).send("GET /kv?size=3000 HTTP/1.1\r\nHost: localhost\r\n\r\n")]
            assert held[0].head()[0] == 200 and booked(server) > 2 * MIB
            lines = client.post("/reduce/smooth/cnt:").body.splitlines()
            assert json.loads(lines[-1])["error"]["code"] == "overloaded"
            assert client.get("/pairs/prob:", count="true").json()["pairs"] == 0
            held[0].close()
            given_back(server)
        lines = client.post("/reduce/smooth/cnt:").body.splitlines()
        assert json.loads(lines[-1]).get("end", {}).get("count") == 3, lines[-1]
        given_back(server)
        results.append([(row["pair"], row["payload"]) for order in "123" for row in client.get("/reduce/probabilities/prob:%s:" % order).entries()])
    assert len(results[0]) > 1000 and results[0] == results[1]


def test_answers_that_nobody_reads_are_booked(launch):
    server = launch("--memory-bytes", "32M", "--idle-timeout", "3600", *OS)
    client = server.client()
    key = client.insert(bytes(4 * MIB))
    held = [server.raw(receive_buffer=4096).send("GET /kv/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % key) for _ in range(12)]
    statuses = [raw.head()[0] for raw in held]
    assert set(statuses) == {200, 503} and statuses.count(200) >= 2
    assert booked(server) <= 32 * MIB
    for raw in held:
        raw.close()
    given_back(server)
    assert client.get("/kv/%d" % key).status == 200


def test_aggregates_are_booked(launch):
    server = launch("--request-memory-bytes", "4M", *OS)
    client = server.client()
    rng = random.Random(3)
    for _ in range(20):
        assert client.post("/ngrams", json.dumps({"tokens": [rng.getrandbits(32) for _ in range(4500)]}), headers=ND, order="1").status == 200
    assert client.get("/reduce/totals/cnt:").outcome == (413, "request_too_large")
    assert client.get("/reduce/stats/cnt:").status == 200
    given_back(server)
