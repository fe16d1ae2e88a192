"""`add` and `counts_add` in /batch: what is there is changed by whoever's turn it is, so nothing that clients add at once is lost."""
import random
import struct
import threading

import pytest
from harness import b64, damage, unb64

LOW, HIGH = -2**63, 2**63 - 1


def add(pair, by):
    return {"op": "add", "pair": b64(pair), "by": by}


def counts_add(pair, followers, order=2):
    return {"op": "counts_add", "pair": b64(pair), "order": order, "followers": followers}


def value(client, pair):
    text = client.get("/pairs/" + "x" + pair.hex(), exact="true", values="true").json()["value"]
    return None if text is None else unb64(text)


def counts(payload):
    """(version, order, followers) of a counts payload, which must hold nothing else."""
    version, order = payload[0], payload[1]
    head = 4 if version == 1 else 6
    n = int.from_bytes(payload[2:head], "big")
    assert len(payload) == head + 8 * n
    return version, order, [list(struct.unpack_from(">II", payload, head + 8 * i)) for i in range(n)]


# ---- add -----------------------------------------------------------------------------------------------------------------


def test_add(client):
    lines = client.batch([add(b"n", 5), add(b"n", 9), add(b"n", -20), add(b"n", 0), {"op": "pair_get", "pair": b64(b"n"), "values": True}]).entries()
    key = lines[0]["key"]
    assert lines[:4] == [{"status": 200, "key": key, "value": v} for v in (5, 14, -6, -6)]
    assert unb64(lines[4]["value"]) == b"-6" == value(client, b"n") == client.read(key)
    client.upsert(b"n", b"41")
    assert client.batch([add(b"n", 1)]).entries() == [{"status": 200, "key": key, "value": 42}]
    client.map(b"dangling", 10**6)
    line = client.batch([add(b"dangling", 7)]).entries()[0]
    assert line["value"] == 7 and line["key"] != 10**6 and value(client, b"dangling") == b"7"


@pytest.mark.parametrize("text,number", [(b"0", 0), (b"-0", 0), (b"007", 7), (b"-12", -12), (b"9223372036854775807", HIGH), (b"-9223372036854775808", LOW),
                                         (b"0" * 100 + b"5", 5)])
def test_numbers(client, text, number):
    client.upsert(b"n", text)
    assert client.batch([add(b"n", 0)]).entries()[0]["value"] == number and value(client, b"n") == b"%d" % number


@pytest.mark.parametrize("text", [b" 1", b"1 ", b"1\n", b"+1", b"-", b"--1", b"1.5", b"1e3", b"0x10", b"one", b"\x00", b"\xd9\xa1", b"1\x002", b"99999999999999999999x"])
def test_what_is_no_number_stays(client, text):
    client.upsert(b"n", text)
    line = client.batch([add(b"n", 1)]).entries()[0]
    assert (line["status"], line["code"]) == (409, "not_a_number") and value(client, b"n") == text


@pytest.mark.parametrize("text,by", [(b"%d" % HIGH, 1), (b"%d" % LOW, -1), (b"1", HIGH), (b"-2", LOW), (b"%d" % (HIGH + 1), -5), (b"%d" % (LOW - 1), 5), (b"9" * 1000, 0)])
def test_what_would_not_fit_stays(client, text, by):
    client.upsert(b"n", text)
    line = client.batch([add(b"n", by)]).entries()[0]
    assert (line["status"], line["code"]) == (409, "number_overflow") and value(client, b"n") == text


@pytest.mark.parametrize("more", [{}, {"by": "1"}, {"by": 1.0}, {"by": True}, {"by": None}, {"by": [1]}])
def test_add_needs_an_integer(client, more):
    line = client.batch([{"op": "add", "pair": b64(b"n"), **more}]).entries()[0]
    assert (line["status"], line["code"]) == (400, "invalid_operation")
    assert client.scan() == []
    assert client.batch([{"op": "add", "by": 1}, {"op": "add", "pair": "", "by": 1}]).end["failed"] == 2


def test_all_or_nothing(client):
    client.upsert(b"word", b"word")
    client.batch([add(b"a", 1)])
    answer = client.batch([add(b"a", 10), add(b"b", 10), counts_add(b"c", [[1, 1]]), add(b"word", 1)], atomic="true")
    assert answer.status == 409 and answer.json()["index"] == 3 and answer.json()["operation"]["code"] == "not_a_number"
    assert value(client, b"a") == b"1" and {row[0] for row in client.scan()} == {b"a", b"word"}
    answer = client.batch([add(b"a", 10), add(b"b", -10), {"op": "pair_del", "pair": b64(b"word"), "values": True}], atomic="true")
    assert answer.status == 200 and (value(client, b"a"), value(client, b"b")) == (b"11", b"-10")


def test_many_clients_lose_nothing(client):
    """Eight clients add to the same few names, alone and in atomic batches that move from one to another."""
    sums, lock = {}, threading.Lock()

    def work(seed):
        rng, mine = random.Random(seed), client.server.client(db=client.db, check=False)
        for _ in range(60):
            a, b, by = rng.randrange(5), rng.randrange(5), rng.randrange(-9, 10)
            moves = rng.random() < 0.5
            answer = mine.batch([add(b"%d" % a, by)] + ([add(b"%d" % b, -by), counts_add(b"c", [[a, 1]], 1)] if moves else []), atomic="true")
            assert answer.status == 200
            with lock:
                sums[a] = sums.get(a, 0) + by
                if moves:
                    sums[b] = sums.get(b, 0) - by
                    sums["c", a] = sums.get(("c", a), 0) + 1
        mine.close()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: int(value(client, b"%d" % i)) for i in range(5)} == {i: sums[i] for i in range(5)}
    assert counts(value(client, b"c")) == (1, 1, [[i, sums["c", i]] for i in range(5) if ("c", i) in sums])


def test_what_was_answered_is_there_after_a_kill(launch):
    server = launch("--durability", "sync", "--shards", "2")
    done, sent = [0], [0]

    def work():
        mine = server.client(check=False)
        try:
            while True:
                sent[0] += 1
                assert mine.batch([add(b"n", 1), counts_add(b"c", [[7, 1]], 1)]).status == 200
                done[0] += 1
        except Exception:  # the server was killed
            mine.close()

    thread = threading.Thread(target=work)
    thread.start()
    while done[0] < 30:
        pass
    server.kill()
    thread.join()
    server.restart()
    client = server.client()
    n = int(value(client, b"n"))
    assert done[0] <= n <= sent[0] and counts(value(client, b"c")) == (1, 1, [[7, n]])


def test_a_damaged_value_is_not_taken_for_none(launch):
    server = launch("--durability", "os", "--shards", "1")
    server.client().upsert(b"n", b"123456789012345678")
    server.stop()
    damage(server.data, b"123456789012345678")
    server.restart()
    client = server.client()
    lines = client.batch([add(b"n", 1), counts_add(b"n", [[1, 1]])]).entries()
    assert [line["code"] for line in lines] == ["corrupt_value"] * 2
    assert client.get("/pairs/n", exact="true", values="true").status == 500


def test_aggregates_see_it(client):
    """The cached answer of an aggregate ends with the change."""
    client.batch([counts_add(b"cnt:1:a", [[1, 2]], 1)])
    assert client.get("/reduce/totals/cnt:1:").entries() == [{"token": 1, "count": 2, "contexts": 1}]
    client.batch([counts_add(b"cnt:1:a", [[1, 3], [2, 1]], 1)])
    assert client.get("/reduce/totals/cnt:1:").entries() == [{"token": 1, "count": 5, "contexts": 1}, {"token": 2, "count": 1, "contexts": 1}]


# ---- counts_add ----------------------------------------------------------------------------------------------------------


def test_counts(client):
    lines = client.batch([counts_add(b"c", [[9, 3], [2, 5], [9, 1]])]).entries()
    assert lines == [{"status": 201, "pair": b64(b"c"), "key": lines[0]["key"], "size": 20}]
    assert counts(value(client, b"c")) == (1, 2, [[2, 5], [9, 4]])
    line = client.batch([counts_add(b"c", [[2, -5], [5, 1], [9, -1]])]).entries()[0]
    assert line["status"] == 200 and counts(value(client, b"c")) == (1, 2, [[5, 1], [9, 3]])
    assert client.batch([counts_add(b"c", [[5, -1], [9, -3]])]).end["failed"] == 0
    assert value(client, b"c") == b"\x01\x02\x00\x00"
    assert client.batch([counts_add(b"new", [])]).end["failed"] == 0 and value(client, b"new") == b"\x01\x02\x00\x00"


def test_what_was_not_counted_is_not_taken_away(client):
    client.batch([counts_add(b"c", [[1, 5], [2, 5]])])
    for followers in ([[1, -6]], [[1, 1], [2, -6]], [[3, -1]], [[2, -3], [2, -3]]):
        line = client.batch([counts_add(b"c", followers)]).entries()[0]
        assert (line["status"], line["code"]) == (409, "not_counted"), followers
    assert counts(value(client, b"c"))[2] == [[1, 5], [2, 5]]
    assert client.batch([counts_add(b"c", [[2, -6], [2, 1], [3, 0]])]).end["failed"] == 0
    assert counts(value(client, b"c"))[2] == [[1, 5]]
    line = client.batch([counts_add(b"none", [[1, -1]])]).entries()[0]
    assert line["code"] == "not_counted" and client.get("/pairs/none", exact="true").status == 404


def test_they_saturate(client):
    top = 2**32 - 1
    client.batch([counts_add(b"c", [[0, top], [top, top]])])
    assert client.batch([counts_add(b"c", [[0, 1], [top, -1], [5, top], [5, top]])]).end["failed"] == 0
    assert counts(value(client, b"c"))[2] == [[0, top], [5, top], [top, top - 1]]


def test_payloads_of_others(client):
    """In any order, a token twice, bytes after the end: read as they are meant, written in order."""
    client.upsert(b"c", bytes([1, 2, 0, 3]) + struct.pack(">6I", 9, 1, 2, 2, 9, 3) + b"padding")
    client.batch([counts_add(b"c", [[2, 1]])])
    assert counts(value(client, b"c")) == (1, 2, [[2, 3], [9, 4]])
    for payload, order in ((b"\x01\x02\x00\x01short", 2), (b"\x03\x02\x00\x00", 2), (b"text", 2), (b"\x01\x03\x00\x00", 2)):
        client.upsert(b"c", payload)
        line = client.batch([counts_add(b"c", [[1, 1]], order)]).entries()[0]
        assert (line["status"], line["code"]) == (409, "malformed_payload") and value(client, b"c") == payload


def test_more_than_65535_followers(client):
    n = 70000
    client.batch([counts_add(b"c", [[t, 1] for t in range(n)])])
    version, _, followers = counts(value(client, b"c"))
    assert version == 2 and len(followers) == n
    client.batch([counts_add(b"c", [[t, -1] for t in range(0, n, 2)] + [[n, 8]])])
    version, _, followers = counts(value(client, b"c"))
    assert version == 1 and followers == [[t, 1] for t in range(1, n, 2)] + [[n, 8]]


@pytest.mark.parametrize("members", [{}, {"order": 2}, {"followers": []}, {"order": -1, "followers": []}, {"order": 256, "followers": []}, {"order": "2", "followers": []},
                                     {"order": 2, "followers": {}}, {"order": 2, "followers": [1]}, {"order": 2, "followers": [[1]]}, {"order": 2, "followers": [[1, 2, 3]]},
                                     {"order": 2, "followers": [[-1, 1]]}, {"order": 2, "followers": [[2**32, 1]]}, {"order": 2, "followers": [[1, 2**32]]},
                                     {"order": 2, "followers": [[1, -2**32]]}, {"order": 2, "followers": [[1, 1.5]]}, {"order": 2, "followers": [[1, 1], None]}])
def test_bad_members(client, members):
    line = client.batch([{"op": "counts_add", "pair": b64(b"c"), **members}]).entries()[0]
    assert (line["status"], line["code"]) == (400, "invalid_operation") and client.scan() == []


def test_a_model_of_it(client):
    rng, model = random.Random(5), {}
    for _ in range(300):
        followers = [[rng.randrange(12), rng.choice([-3, -1, 0, 1, 2, 5, 2**32 - 1])] for _ in range(rng.randrange(6))]
        net = {}
        for token, by in followers:
            net[token] = net.get(token, 0) + by
        fails = any(model.get(token, 0) + by < 0 for token, by in net.items())
        line = client.batch([counts_add(b"c", followers, 3)]).entries()[0]
        assert (line.get("code") == "not_counted") == fails, (followers, model, line)
        if not fails:
            for token, by in net.items():
                model[token] = min(model.get(token, 0) + by, 2**32 - 1)
            assert counts(value(client, b"c"))[2] == [[t, n] for t, n in sorted(model.items()) if n]
            model = {t: n for t, n in model.items() if n}


def test_the_memory_of_a_batch_is_bounded(launch):
    """Each operation has a payload of its own until the batch is through; what would pass the bound of a request fails, alone."""
    client = launch("--durability", "os", "--request-memory-bytes", "2000000").client()
    for first in range(0, 20000, 5000):
        client.batch([counts_add(b"c", [[t, 1] for t in range(first, first + 5000)])])
    lines = client.batch([counts_add(b"c", [[1, 1]]) for _ in range(50)]).entries()
    assert {line.get("code") for line in lines} == {None, "request_too_large"}
    worked = sum("code" not in line for line in lines)
    assert 0 < worked < 10 and counts(value(client, b"c"))[2][:3] == [[0, 1], [1, 1 + worked], [2, 1]]
