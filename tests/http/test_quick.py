"""Point reads and short writes of connections that go on asking: they do not go by libmicrohttpd (src/http/quick.h), and nobody can tell."""
import random
import signal
import socket
import threading
import time

import harness
import pytest
from harness import b64

HOST = b"Host: localhost\r\nUser-Agent: test\r\nAccept: */*\r\n"


def request(path, more=b"", method=b"GET"):
    return method + b" " + path.encode() + b" HTTP/1.1\r\n" + HOST + more + b"\r\n"


def quick(server):
    return server.metric("cheetah_reads_quick_total")


def warm(raw, more=b""):
    """The next read with these headers is quick."""
    for _ in range(3):
        assert raw.send(request("/version", more)).answer().status < 500


@pytest.fixture(scope="module")
def single():
    """One HTTP thread, so that what is said of a connection is said of the thread; writes are synced. Connections may rest, on a machine that is busy."""
    server = harness.Server("--http-threads", "1", "--shards", "2", "--idle-timeout", "3600", "--header-timeout", "3600")
    yield server
    server.finish()


@pytest.fixture(scope="module")
def filled(single):
    client = single.client()
    keys = {name: client.upsert(name.encode(), value) for name, value in
            {"short": b"value", "middle": b"m" * 700, "long": bytes(range(256)) * 90, "longer": b"x" * 200000, "empty": b""}.items() if value}
    client.close()
    return keys


def test_the_same_answer_either_way(single, filled):
    paths = ["/kv/%d" % key for key in filled.values()]
    paths += ["/pairs/%s?exact=true" % name for name in filled] + ["/pairs/%s?exact=true&values=true" % name for name in filled]
    paths += ["/kv/999999", "/kv/0", "/kv/x", "/kv/", "/kv/%zz", "/kv/1?db=none", "/kv/1?db=Bad%20name", "/kv/1?nothing=1", "/kv/1?text=true",
              "/pairs/none?exact=true", "/pairs/short?exact=1", "/pairs/short?exact=true&count=true", "/pairs/sh*?count=true", "/pairs/?exact=true",
              "/pairs/%73hort?exact=true&text=true", "/pairs/68?exact=true&names=hex", "/none"]
    headers = [b"", b"Connection: keep-alive\r\n", b"Accept-Encoding: gzip\r\n", b"X-Request-Id: mine\r\n", b"If-None-Match: *\r\n", b"Connection: close\r\n",
               b"Origin: http://elsewhere\r\n", b"Accept-Encoding: gzip, zstd\r\nAccept-Language: en\r\n", b"X-Other: 1\r\n"]
    taken = []
    for more in headers:
        before = quick(single)
        for path in paths:
            with single.raw() as raw:
                answers = []
                for turn in range(2):
                    with single.raw() as other:  # its first request
                        answers.append(other.send(request(path, more)).answer())
                if b"close" in more:
                    continue
                warm(raw, more)
                answers.append(raw.send(request(path, more)).answer())
                shown = []
                for answer in answers:
                    kept = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id")}
                    shown.append((answer.status, kept, answer.body))
                    assert len(answer.headers["date"]) == 29
                assert shown[0] == shown[1] == shown[2], (path, more)
        taken.append(quick(single) - before)
    # Which of them were: not with an identifier or a condition of the client's, nor with what nobody knows.
    assert taken[0] == taken[1] == taken[2] == taken[7] and taken[0] >= 20, taken
    assert [taken[i] for i in (3, 4, 5, 6, 8)] == [0] * 5, taken


def test_raw_bytes(single, filled):
    accept = b"Accept: application/octet-stream\r\n"
    line = b"GET /pairs/%s?exact=true HTTP/1.1\r\nHost: localhost\r\n" + accept + b"\r\n"
    with single.raw() as raw:
        before = quick(single)
        for name in ("short", "middle", "long", "longer") * 3:
            answer = raw.send(line % name.encode()).answer()
            assert answer.status == 200 and answer.headers["content-type"] == "application/octet-stream" and int(answer.headers["cheetah-key"]) == filled[name]
            assert len(answer.body) == int(answer.headers["content-length"]) in (5, 700, 23040, 200000)
        assert quick(single) - before == 2, "after one that goes out by libmicrohttpd the next ones do"


def test_several_at_once_and_in_pieces(single, filled):
    one = request("/kv/%d" % filled["short"])
    two = request("/pairs/middle?exact=true&values=true")
    with single.raw() as raw:
        warm(raw)
        raw.send(one + two + one)
        assert [raw.answer().json().get("size") for _ in range(3)] == [5, 700, 5]
        for cut in (1, 4, 9, len(one) - 3, len(one) - 1):
            raw.send(one[:cut])
            time.sleep(0.005)
            raw.send(one[cut:] + two[:7])
            assert raw.answer().json()["size"] == 5
            raw.send(two[7:])
            assert raw.answer().json()["size"] == 700
        raw.send(request("/kv/%d" % filled["long"]))
        time.sleep(0.02)
        raw.send(one)
        assert raw.answer().json()["size"] == 23040 and raw.answer().json()["size"] == 5
        raw.send(b"POST /kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nvalue" + one)
        assert raw.answer().status == 201 and raw.answer().json()["size"] == 5
        raw.send(one)
        assert raw.answer().json()["size"] == 5
        raw.send(one[:-2] + b"Host: other\r\n\r\n")
        assert raw.answer().status == 400 and raw.closed()


def test_each_is_counted_and_logged(single, filled):
    path = "/pairs/short?exact=true"

    def counted():
        return single.metrics().get('cheetah_http_requests_total{route="/pairs/{prefix}",method="GET",status="200"}', 0)

    before, taken, lines = counted(), quick(single), len(single.log("request"))
    ids = []
    with single.raw() as raw:
        for _ in range(12):
            answer = raw.send(request(path)).answer()
            ids.append((answer.headers["x-request-id"], len(answer.body)))
    harness.wait_for(lambda: counted() - before == 12, what="the count")  # it is counted when it was answered
    assert quick(single) - taken == 10
    harness.wait_for(lambda: {line["id"] for line in single.log("request")[lines:]} >= {i for i, _ in ids}, what="lines of the access log")
    for line in single.log("request")[lines:]:
        if (line["id"], line["bytes"]) in ids:
            ids.remove((line["id"], line["bytes"]))
            assert line["method"] == "GET" and line["path"] == "/pairs/short" and line["status"] == 200
    assert ids == []


def test_a_client_that_does_not_read(single, filled):
    """What it has not taken is kept, and comes; the others are served meanwhile."""
    path = "/kv/%d" % filled["long"]
    before = quick(single)
    with single.raw(receive_buffer=4096) as raw, single.raw() as other:
        warm(raw)
        warm(other)
        asked = 0
        raw.socket.setblocking(True)
        for _ in range(300):
            raw.send(request(path))
            asked += 1
            if asked < 100:  # else several are read at once
                time.sleep(0.003)
            if asked % 10 == 0:
                assert other.send(request("/kv/%d" % filled["short"])).answer().json()["size"] == 5
        for _ in range(asked):
            answer = raw.answer()
            assert answer.status == 200 and answer.json()["value"] == b64(bytes(range(256)) * 90)
        assert raw.send(request(path)).answer().status == 200
    assert quick(single) - before > 30  # the others', and some of its own
    with single.raw(receive_buffer=4096) as raw:  # and one that leaves instead
        warm(raw)
        for _ in range(60):
            raw.send(request(path))
            time.sleep(0.003)
    assert single.client().get(path).status == 200


def test_the_end_of_what_is_sent(single, filled):
    for pause in (0, 0.05):
        with single.raw() as raw:
            warm(raw)
            raw.send(request("/kv/%d" % filled["short"]))
            time.sleep(pause)
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.answer().json()["size"] == 5 and raw.closed()


def asks_for_a_while(raw, path):
    """For longer than an idle connection may last; None if this machine was too slow to ask in time, else when it asked last."""
    began = last = time.monotonic()
    late = False
    try:
        warm(raw)
        while time.monotonic() - began < 1.8 and not late:
            time.sleep(0.1)
            late, last = time.monotonic() - last > 0.5, time.monotonic()
            assert raw.send(request(path)).answer().status == 200
            late = late or time.monotonic() - last > 0.5
    except (EOFError, ConnectionError):
        late = late or time.monotonic() - last > 0.5
        assert late, "it was ended, but was asked in time"
    return None if late else last


def test_idle_only_when_it_is(launch):
    """libmicrohttpd sees nothing of these requests, and ends a connection that is idle for a second."""
    server = launch("--http-threads", "1", "--shards", "2", "--idle-timeout", "1")
    key = server.client().upsert(b"short", b"value")
    for _ in range(5):
        with server.raw() as raw:
            before = quick(server)
            last = asks_for_a_while(raw, "/kv/%d" % key)
            if last is not None:
                assert quick(server) - before > 3
                assert raw.closed() and time.monotonic() - last > 0.7
                return
    pytest.skip("the machine is too busy")


def test_reads_of_what_is_being_written(single, filled):
    """They wait for the disk where they must, and go on."""
    stop, wrong = threading.Event(), []
    client = single.client()
    client.upsert(b"counter", b"%08d" % 0)

    def reader():
        with single.raw() as raw:
            seen = -1
            while not stop.is_set():
                answer = raw.send(request("/pairs/counter?exact=true&values=true")).answer().json()
                now = int(harness.unb64(answer["value"]))
                if now < seen:
                    wrong.append((seen, now))
                seen = now

    threads = [threading.Thread(target=reader) for _ in range(4)]
    before = quick(single)
    for thread in threads:
        thread.start()
    for i in range(150):
        client.upsert(b"counter", b"%08d" % i)
        with single.raw() as raw:
            assert int(harness.unb64(raw.send(request("/pairs/counter?exact=true&values=true")).answer().json()["value"])) == i
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and quick(single) - before > 50


def test_a_database_that_is_not_open(launch):
    server = launch("--http-threads", "1")
    client = server.client()
    assert client.put("/databases/second").status in (200, 201)
    assert server.client("second").upsert(b"name", b"there") > 0
    server.stop()
    server.restart()
    with server.raw() as raw:
        warm(raw)
        before = quick(server)
        for _ in range(3):
            answer = raw.send(request("/pairs/name?exact=true&values=true&db=second")).answer()
            assert answer.json()["value"] == b64(b"there")
        assert quick(server) - before == 3


def test_a_token_that_is_taken_away(launch, tmp_path):
    file = tmp_path / "tokens"
    secret, other = "a-token-of-some-length", "another-token-of-length"
    file.write_text("%s read *\n%s admin *\n" % (secret, other))
    file.chmod(0o600)
    server = launch("--http-threads", "1", "--tokens", str(file))
    mine = b"Authorization: Bearer " + secret.encode() + b"\r\n"
    with server.raw() as raw:
        path = "/kv/1"
        for _ in range(4):
            assert raw.send(request(path, mine)).answer().status == 404
        for _ in range(4):
            assert raw.send(request(path)).answer().status == 401
        for _ in range(4):
            assert raw.send(request(path, mine)).answer().status == 404
        file.write_text("%s admin *\n" % other)
        server.signal(signal.SIGHUP)
        harness.wait_for(lambda: raw.send(request(path, mine)).answer().status == 401, what="the token to go")
        theirs = b"Authorization: Bearer " + other.encode() + b"\r\n"
        for _ in range(4):
            assert raw.send(request(path, theirs)).answer().status == 404
        text = raw.send(request("/metrics", theirs)).answer().body.decode()
        assert int(text.split("cheetah_reads_quick_total ")[-1].split()[0]) >= 4


# ---- writes ------------------------------------------------------------------------------------------------------------------------------------------

RAW = b"Content-Type: application/octet-stream\r\n"
JSON = b"Content-Type: application/json\r\n"


def put(path, body, more=RAW):
    return b"PUT %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s" % (path.encode(), HOST, more, len(body), body)


def quick_writes(server):
    return server.metric("cheetah_writes_quick_total")


def warm_writes(raw, body, more=RAW):
    """The next write with these headers is quick."""
    for _ in range(3):
        assert raw.send(put("/kv/0", body, more)).answer().status == 400


@pytest.fixture(params=["sync", "os"])
def writing(launch, request):
    return launch("--http-threads", "1", "--shards", "2", "--durability", request.param)


def test_the_same_answer_to_writes(writing, filled):
    """Each on a connection of its own and as the fourth of one: status, headers and body are the same but for the key."""
    bodies = [b"value", b"\0" * 5, b"x" * 4096, b"x" * 4097, b"", b"GET /", b'{"value":"dmFsdWU="}', b'{"key":1}', b"{", b'{"value":"?"}']
    paths = ["/pairs/%s", "/pairs/x6e616d65%s", "/pairs/%s?text=true", "/pairs/%s?ttl=1000", "/pairs/%s?ttl=x", "/pairs/%s?db=other", "/pairs/%s?names=hex",
             "/pairs/%s?none=1", "/kv/1%.0s", "/kv/0%.0s", "/kv/99999999%.0s", "/pairs/%.0s", "/none%.0s", "/kv%.0s"]
    taken = 0
    for more in (RAW, JSON, b"", RAW + b"If-None-Match: *\r\n", RAW + b"Expect: 100-continue\r\n", RAW + b"Content-Encoding: gzip\r\n", RAW + b"X-Request-Id: mine\r\n"):
        before = quick_writes(writing)
        for path in paths if more == RAW else paths[:2]:
            for number, body in enumerate(bodies):
                shown = []
                with writing.raw() as raw, writing.raw() as first:
                    if b"If-None" not in more and b"Expect" not in more and b"gzip" not in more:
                        warm_writes(raw, body, more)
                    for one in (first, raw, raw, first):
                        answer = one.send(put(path % "name%d" % number if "%s" in path else path % "", body, more)).answer("PUT")
                        while answer.status == 100:
                            answer = one.answer("PUT")
                        kept = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id", "cheetah-expires", "etag")}
                        text = answer.body if answer.status >= 300 else {k: v for k, v in answer.json().items() if k not in ("key", "expires")}
                        shown.append((200 if answer.status == 201 else answer.status, {**kept, "content-length": None}, text))
                        if answer.headers.get("connection") == "close":
                            break
                assert all(one == shown[0] for one in shown), (more, path, body, shown)
        taken += quick_writes(writing) - before if more in (RAW, JSON, b"") else 0
        assert more in (RAW, JSON, b"") or quick_writes(writing) == before, more
    assert taken > 100
    for name, value in (("name0", b"value"), ("name2", b"x" * 4096), ("name3", b"x" * 4097)):
        assert writing.client().get("/pairs/" + name, exact="true", values="true").json()["value"] == b64(value)


def test_written_values_are_those_that_were_sent(writing):
    """Random names, lengths and cuts on several connections, some ended in the middle: what was answered is there, also after SIGKILL."""
    rng, model, maybe = random.Random(5), {}, {}  # maybe: what was sent and not waited for is done at some time, or not at all
    before = quick_writes(writing)
    raws = [writing.raw() for _ in range(12)]
    for turn in range(400):
        sent = []
        for i, raw in enumerate(raws):
            name = "/pairs/k%d" % (i * 40 + rng.choice([n for n in range(40) if "/pairs/k%d" % (i * 40 + n) not in maybe]))
            body = rng.randbytes(rng.choice((1, 8, 8, 8, 64, 64, 4096)))
            text = put(name, body)
            cut = rng.randrange(len(text)) if rng.random() < 0.05 else 0
            if cut:
                raw.send(text[:cut])
            raw.send(text[cut:])
            sent.append((i, name, body))
        for i, name, body in sent:
            if rng.random() < 0.01:
                raws[i].reset() if hasattr(raws[i], "reset") else raws[i].close()
                raws[i] = writing.raw()
                maybe[name] = body
                continue
            answer = raws[i].answer("PUT")
            assert answer.status in (200, 201) and answer.json()["size"] == len(body)
            model[name] = body
    assert quick_writes(writing) - before > 1000
    for raw in raws:
        raw.close()
    writing.kill()
    writing.restart()
    client = writing.client()
    for name in set(model) | set(maybe):
        answer = client.get(name, exact="true", values="true")
        value = harness.unb64(answer.json()["value"]) if answer.status == 200 else None
        assert value in (model.get(name), maybe.get(name, model.get(name))), name
    client.close()


def test_writes_of_those_who_leave(writing):
    """They send a write, and perhaps the start of another one, and reset the connection at once: done wholly or not, nothing is left behind, and the server ends in order."""
    with harness.large_commits(writing):
        for turn in range(60):
            raw = writing.raw()
            for i in range(3):
                assert raw.send(put("/pairs/a%d" % i, b"12345678")).answer("PUT").status in (200, 201)
            raw.send(put("/pairs/left%d" % turn, b"12345678") + (b"PUT /pairs" if turn % 3 == 0 else b""))
            if turn % 2 == 0:
                time.sleep(turn % 8 * 0.0005)  # else what was sent may be gone before it is read
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.close()
    client = writing.client()
    assert writing.comes_to("cheetah_connections_open", 1)
    lines = client.get("/pairs/left", values="true").lines()[:-1]
    assert len(lines) >= 30 and {line["value"] for line in lines} == {b64(b"12345678")}  # those who ended in order had sent theirs
    assert client.get("/healthz").status == 200
    client.close()
    writing.stop()


def test_a_half_closed_writer_is_answered(writing):
    for pause in (0, 0.05):
        with writing.raw() as raw:
            warm_writes(raw, b"value")
            raw.send(put("/pairs/half", b"value"))
            time.sleep(pause)
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.answer("PUT").status in (200, 201) and raw.closed()


def test_writes_and_reads_pipelined(writing):
    """Of many in one segment the answers come in their order, each with what was written before it."""
    with writing.raw() as raw:
        for turn in range(30):
            body = b"%08d" % turn
            raw.send(put("/pairs/one", body) + request("/pairs/one?exact=true&values=true") + put("/pairs/two", body))
            assert raw.answer("PUT").status in (200, 201)
            assert raw.answer().json()["value"] == b64(body)
            assert raw.answer("PUT").status in (200, 201)
            assert raw.send(put("/pairs/one", b"another1")).answer("PUT").status == 200
