"""POST /pairs: many pairs by name; and batches that only read, which need no more than the right to read."""
import json
import os
import threading

import harness
import pytest
from harness import b64, damage, ndjson, unb64

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def ask(client, pairs, **params):
    return client.post("/pairs", json_body={"pairs": [b64(pair) for pair in pairs]}, **params)


def test_in_the_order_asked(client):
    keys = {name: client.upsert(name, b"value of " + name) for name in (b"a", b"b", b"c\x00\xff", b"x" * 4096)}
    client.map(b"dangling", 4711)
    asked = [b"c\x00\xff", b"none", b"a", b"dangling", b"x" * 4096, b"a", b"b"]
    answer = ask(client, asked)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("application/x-ndjson")
    for name, line in zip(asked, answer.entries()):
        key = keys.get(name, 4711)
        assert line == ({"pair": b64(name), "error": "pair_not_found"} if name == b"none" else {"pair": b64(name), "key": key})
    assert answer.end == {"count": 7, "next": None}
    for name, line in zip(asked, ask(client, asked, values="true").entries()):
        if name == b"none":
            assert line == {"pair": b64(name), "error": "pair_not_found"}
        elif name == b"dangling":
            assert line == {"pair": b64(name), "key": 4711, "size": None, "value": None}
        else:
            assert line == client.get("/pairs/" + harness.hexed(name), exact="true", values="true").json()


def test_names_as_text(client):
    names = ["greeting:de", "grüße", "x41", "*", "a\x00b", "€"]
    for name in names:
        client.upsert(name.encode(), name.encode())
    lines = client.post("/pairs", json_body={"names": names}, values="true").entries()
    assert [unb64(line["pair"]).decode() for line in lines] == names == [unb64(line["value"]).decode() for line in lines]


def test_nothing_asked(client):
    assert client.post("/pairs", json_body={"pairs": []}).lines() == [{"end": {"count": 0, "next": None}}]


def test_ten_thousand_and_no_more(client):
    client.batch([{"op": "pair_put", "pair": b64(b"%d" % i), "value": b64(b"v%d" % i)} for i in range(0, 10000, 2)])
    answer = ask(client, [b"%d" % i for i in range(10000)], values="true")
    assert answer.end["count"] == 10000
    for i, line in enumerate(answer.entries()):
        assert (line["error"] == "pair_not_found") if i % 2 else (unb64(line["value"]) == b"v%d" % i), (i, line)
    answer = ask(client, [b"%d" % i for i in range(10001)])
    assert answer.status == 413 and answer.code == "batch_too_large"


def test_names_of_the_greatest_length(client):
    """A body of 13 MiB, and names that differ in their last bytes."""
    names = [b"n" * 4090 + b"%06d" % i for i in range(2500)]
    client.upsert(names[7], b"seven")
    lines = ask(client, names, values="true").entries()
    assert [i for i, line in enumerate(lines) if "error" not in line] == [7] and unb64(lines[7]["value"]) == b"seven"


def test_long_values(client):
    """Values longer than what is held at once come in pieces, in their place."""
    values = {b"short": b"s", b"long": os.urandom(3 << 20), b"edge": os.urandom((256 << 10) + 1), b"in": os.urandom(256 << 10)}
    for name, value in values.items():
        client.upsert(name, value)
    asked = [b"long", b"short", b"edge", b"none", b"in", b"long"]
    for name, line in zip(asked, ask(client, asked, values="true").entries()):
        assert line.get("error") == "pair_not_found" if name == b"none" else unb64(line["value"]) == values[name] and line["size"] == len(values[name])


@pytest.mark.parametrize("body,code", [
    (b"", "invalid_body"), (b"{", "invalid_body"), (b"[]", "invalid_body"), (b"{}", "invalid_body"), (b'{"pairs":"YQ=="}', "invalid_body"),
    (b'{"pairs":[],"names":[]}', "invalid_body"), (b'{"pairs":[],"x":1}', "invalid_body"), (b'{"names":null}', "invalid_body"),
    (b'{"pairs":["YQ"]}', "invalid_pair"), (b'{"pairs":["YQ==",5]}', "invalid_pair"), (b'{"pairs":[""]}', "invalid_pair"),
    (b'{"names":["a",null]}', "invalid_pair"), (b'{"names":["\xff"]}', "invalid_body"), (b'{"names":["' + b"a" * 4097 + b'"]}', "invalid_pair")])
def test_bad_bodies(client, body, code):
    answer = client.post("/pairs", body, headers=JSON)
    assert answer.status == 400 and answer.code == code


def test_bad_requests(client):
    assert client.post("/pairs", json_body={"pairs": []}, values="maybe").code == "invalid_parameter"
    assert client.post("/pairs", json_body={"pairs": []}, limit="1").code == "unknown_parameter"
    assert client.get("/pairs").status == 405
    answer = client.post("/pairs?db=not-there", json_body={"pairs": ["YQ=="]})
    assert answer.status == 404 and answer.code == "database_not_found"


def test_a_body_over_the_limit(launch):
    client = launch("--durability", "os", "--max-batch-bytes", "100000").client()
    client.upsert(b"a", b"a")
    assert ask(client, [b"a" * 3000] * 20).status == 200
    answer = ask(client, [b"a" * 3000] * 30)
    assert answer.status == 413 and answer.code == "batch_too_large"


def test_a_damaged_value_is_shown_as_what_it_is(launch):
    server = launch("--durability", "os", "--shards", "1")
    client = server.client()
    client.upsert(b"good", b"good value")
    key = client.upsert(b"bad", b"a value that will be damaged")
    server.stop()
    damage(server.data, b"a value that will be damaged")
    server.restart()
    client = server.client()
    lines = ask(client, [b"bad", b"good"], values="true")
    assert lines.entries()[0] == {"pair": b64(b"bad"), "key": key, "size": None, "value": None, "error": "corrupt_value"}
    assert unb64(lines.entries()[1]["value"]) == b"good value" and lines.end == {"count": 2, "next": None, "corrupt": 1}
    assert ask(client, [b"bad"]).entries() == [{"pair": b64(b"bad"), "key": key}]


def test_while_others_write(client):
    """Each line is what one moment had: a value is always that of its name."""
    names = [b"n%d" % i for i in range(50)]
    stop = threading.Event()
    writer = client.server.client(db=client.db, check=False)

    def write():
        i = 0
        while not stop.is_set():
            i += 1
            writer.batch([{"op": "pair_put", "pair": b64(n), "value": b64(n + b"=" + b"%d" % i * (i % 9 + 1))} for n in names])
            writer.batch([{"op": "pair_del", "pair": b64(n), "values": True} for n in names[::7]])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(60):
            for name, line in zip(names, ask(client, names, values="true").entries()):
                assert line["pair"] == b64(name)
                if line.get("value") is not None:
                    assert unb64(line["value"]).startswith(name + b"=") and len(unb64(line["value"])) == line["size"]
    finally:
        stop.set()
        thread.join()
        writer.close()


def test_under_sync(launch):
    """A read that meets a write which is on its way to the disk waits for it; none is lost, whoever is first."""
    server = launch("--durability", "sync", "--shards", "2")
    client, writer = server.client(), server.client(check=False)
    stop, done = threading.Event(), []

    def write():
        while not stop.is_set():
            i = len(done)
            writer.upsert(b"n%d" % (i % 20), b"%d" % i)
            done.append(i)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(100):
            low = len(done)
            seen = [int(unb64(line["value"])) for line in ask(client, [b"n%d" % i for i in range(20)], values="true").entries() if "value" in line]
            if low >= 20:
                assert len(seen) == 20 and max(seen) >= low - 1 and min(seen) >= low - 20
    finally:
        stop.set()
        thread.join()


# ---- rights --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("reader-0123456789 read a\nwriter-0123456789 write a\nboss-0123456789ab admin *\n")
    os.chmod(path, 0o600)
    server = harness.Server("--durability", "os", "--tokens", str(path), "--shards", "1")
    server.client(token="boss-0123456789ab", db="b").upsert(b"p", b"of b")
    server.client(token="writer-0123456789", db="a").upsert(b"p", b"of a")
    yield server
    server.finish()


READS = [{"op": "pair_get", "pair": b64(b"p"), "values": True}, {"op": "pair_get", "pair": b64(b"q")}, {"op": "read", "key": 10**9}]


def test_reading_needs_the_right_to_read(guarded):
    reader = guarded.client(token="reader-0123456789", db="a")
    assert [unb64(line["value"]) for line in ask(reader, [b"p"], values="true").entries()] == [b"of a"]
    for atomic in ({}, {"results": "false"}):
        lines = reader.batch(READS, **atomic)
        assert lines.status == 200 and lines.end == {"count": 3, "failed": 2}
    assert unb64(reader.batch(READS[:1], atomic="true").entries()[0]["value"]) == b"of a"
    assert reader.batch([]).status == 200
    elsewhere = guarded.client(token="reader-0123456789", db="b")
    for answer in (elsewhere.batch(READS), ask(elsewhere, [b"p"])):
        assert answer.status == 403 and answer.code == "forbidden"


@pytest.mark.parametrize("line", [b'{"op":"insert","value":"YQ=="}', b'{"op":"pair_put","pair":"cA==","value":"YQ=="}', b'{"op":"pair_del","pair":"cA=="}',
                                  b'{"op":"delete","key":1}', b'{"op":"edit","key":1,"value":"YQ=="}', b'{"op":"pair_set","pair":"cA==","key":1}',
                                  b'{"op":"put","key":1,"value":"YQ=="}', b'{"op":"reserve","keys":1}', b"nonsense", b'{"op":"drop"}'])
@pytest.mark.parametrize("where", ["first", "last"])
def test_one_operation_that_writes_needs_the_right_to_write(guarded, line, where):
    reader = guarded.client(token="reader-0123456789", db="a")
    reads = ndjson(READS * 300)
    answer = reader.post("/batch", line + b"\n" + reads if where == "first" else reads + line + b"\n", headers=NDJSON)
    assert answer.status == 403 and answer.code == "forbidden"
    assert unb64(ask(reader, [b"p"], values="true").entries()[0]["value"]) == b"of a", "and nothing was done"
    assert guarded.client(token="writer-0123456789", db="b").batch([json.loads(line)] if line[:1] == b"{" else []).status == 403


def test_reading_makes_no_database(guarded, launch):
    client = launch("--durability", "os").client(db="new")
    answer = client.batch(READS)
    assert answer.status == 404 and answer.code == "database_not_found"
    assert client.batch([{"op": "insert", "value": "YQ=="}] + READS).status == 200
