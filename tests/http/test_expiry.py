"""Pairs that end: ttl in PUT and batches, how the end is shown, and that what has ended is gone for every reader: not one of them first."""
import math
import threading
import time

import pytest
from harness import b64, damage, unb64

PAIR = {"exact": "true"}


def put(client, name, ttl=None, value=b"value", statuses=(201,), **params):
    if ttl is not None:
        params["ttl"] = ttl
    answer = client.put("/pairs/" + name, value, **params)
    assert answer.status in statuses, answer.body
    return answer.json()


def lines(answer):
    assert answer.status == 200, answer.body
    return answer.lines()


def test_shown_by_reads_by_name(client):
    before = time.time()
    made = put(client, "a", 60)
    after = time.time()
    assert math.floor(before + 60) <= made["expires"] <= math.ceil(after + 60) + 1
    assert client.get("/pairs/a", **PAIR).json() == {"pair": b64(b"a"), "key": made["key"], "expires": made["expires"]}
    raw = client.get("/pairs/a", headers={"Accept": "application/octet-stream"}, **PAIR)
    assert raw.headers["Cheetah-Expires"] == str(made["expires"]) and raw.body == b"value"
    for values in ({}, {"values": "true"}):
        many = lines(client.request("POST", "/pairs", b'{"names":["a","b"]}', {"Content-Type": "application/json"}, **values))
        assert many[0]["expires"] == made["expires"]
    results = lines(client.batch([{"op": "pair_get", "pair": b64(b"a")},
                                  {"op": "pair_put", "pair": b64(b"b"), "value": b64(b"x"), "ttl": 0.5},
                                  {"op": "pair_put", "pair": b64(b"a"), "value": b64(b"x")},
                                  {"op": "pair_get", "pair": b64(b"a"), "values": True}]))
    assert results[0]["expires"] == made["expires"] and "expires" in results[1]
    assert "expires" not in results[2] and "expires" not in results[3]


READERS = {
    "name": lambda c: c.get("/pairs/n%3A1", **PAIR).status == 404,
    "head": lambda c: c.head("/pairs/n%3A1", **PAIR).status == 404,
    "key": lambda c: c.get("/kv/%d" % c.made).status == 404,
    "keys": lambda c: "error" in lines(c.get("/kv", keys=str(c.made)))[0],
    "names": lambda c: "error" in lines(c.request("POST", "/pairs", b'{"names":["n:1"]}', {"Content-Type": "application/json"}))[0],
    "count": lambda c: c.get("/pairs/n%3A", count="true").json()["pairs"] == 1,
    "scan": lambda c: lines(c.get("/pairs/n%3A"))[-1]["end"]["count"] == 1,
    "reverse": lambda c: lines(c.get("/pairs/n%3A", reverse="true", values="true"))[-1]["end"]["count"] == 1,
    "values": lambda c: lines(c.get("/kv"))[-1]["end"]["count"] == 1,
    "children": lambda c: lines(c.get("/pairs/*", children="true", separator=":"))[0]["pairs"] == 1,
    "reducer": lambda c: lines(c.get("/reduce/payloads/n%3A"))[-1]["end"]["count"] == 1,
    "aggregate": lambda c: lines(c.get("/reduce/stats/n%3A"))[0]["pairs"] == 1,
    "batch": lambda c: lines(c.batch([{"op": "read", "key": c.made}]))[0]["status"] == 404,
    "absent": lambda c: c.put("/pairs/n%3A1", b"v", headers={"If-None-Match": "*"}).status == 201,
    "namespace": lambda c: c.delete("/pairs/n%3A", recursive="true").json()["pairs_deleted"] == 1,
}


def test_gone_for_whoever_comes_first(server, name):
    """Each reader in a database of its own, where it is the first to look."""
    clients = {reader: server.client("%s-%s" % (name[:40], reader)) for reader in READERS}
    for client in clients.values():
        put(client, "n%3A2")
        client.made = put(client, "n%3A1", 0.3)["key"]
    aggregate = clients["aggregate"]
    put(aggregate, "n%3A1", 0.3, statuses=(200, 201))  # the first one may have ended
    counted = lines(aggregate.get("/reduce/stats/n%3A"))[0]["pairs"]  # an answer that was kept does not outlive it
    start = time.monotonic()
    assert counted in (1, 2)
    time.sleep(max(0, 0.32 - (time.monotonic() - start)))
    for reader, client in clients.items():
        assert READERS[reader](client), reader


def test_what_writes_do_to_an_end(client):
    for name in ("put", "set", "add", "edit", "longer"):
        put(client, name, 100, b"1")
    key = client.get("/pairs/edit", **PAIR).json()["key"]
    results = lines(client.batch([{"op": "pair_put", "pair": b64(b"put"), "value": b64(b"2")},
                                  {"op": "pair_set", "pair": b64(b"set"), "key": key},
                                  {"op": "add", "pair": b64(b"add"), "by": 1},
                                  {"op": "edit", "key": key, "value": b64(b"2")},
                                  {"op": "pair_put", "pair": b64(b"longer"), "value": b64(b"2"), "ttl": 1000}]))
    assert results[-1]["end"]["failed"] == 0
    end = {name: client.get("/pairs/" + name, **PAIR).json().get("expires") for name in ("put", "set", "add", "edit", "longer")}
    assert end["put"] is None and end["set"] is None
    assert end["add"] is not None and end["edit"] is not None
    assert end["longer"] >= end["edit"] + 890
    assert unb64(client.get("/pairs/add", values="true", **PAIR).json()["value"]) == b"2"


@pytest.mark.parametrize("ttl", ["0", "-1", "", "x", "1s", "0.0001", "1.", ".5", "1e3", "3162240001", "99999999999999999999", " 1"])
def test_no_time_to_live(client, ttl):
    answer = client.put("/pairs/a", b"v", ttl=ttl)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_parameter")
    assert client.get("/pairs/a", **PAIR).status == 404


def test_where_there_is_none(client):
    put(client, "a")
    answer = client.put("/pairs/a", b'{"key":1}', headers={"Content-Type": "application/json"}, ttl="1")
    assert (answer.status, answer.json()["code"]) == (400, "invalid_parameter")
    for path in ("/kv/1", "/pairs/a?exact=true"):
        assert client.get(path + ("&" if "?" in path else "?") + "ttl=1").json()["code"] == "unknown_parameter"
    bad = [{"op": "pair_set", "pair": b64(b"a"), "key": 1, "ttl": 1}, {"op": "insert", "value": b64(b"a"), "ttl": 1},
           {"op": "add", "pair": b64(b"c"), "by": 1, "ttl": 1}]
    worse = [{"op": "pair_put", "pair": b64(b"a"), "value": b64(b"v"), "ttl": ttl} for ttl in (0, -1, "1", None, True, 1e12)]
    results = lines(client.batch(bad + worse))
    assert [r["code"] for r in results[:-1]] == ["unknown_parameter"] * 3 + ["invalid_operation"] * 6
    assert "expires" not in client.get("/pairs/a", **PAIR).json()


def test_a_database_that_is_not_there_is_made(client):
    put(client, "a", 60)
    answer = client.get("/pairs/a", **PAIR)
    assert answer.status == 200 and "expires" in answer.json()


def test_a_restart_keeps_ends(launch):
    s = launch()
    c = s.client("default")
    put(c, "short", 0.5)
    shown = put(c, "long", 500)["expires"]
    s.stop()
    s.restart()
    c = s.client("default")
    assert c.get("/pairs/long", **PAIR).json()["expires"] == shown
    time.sleep(0.5)
    assert c.get("/pairs/*", count="true").json()["pairs"] == 1


def test_a_lock_that_ends(server, client):
    """At each time at most one of many clients has it, and after its end another one gets it."""
    got = []

    def worker(i):
        own = server.client(client.db)
        for _ in range(25):
            asked = time.monotonic()
            answer = own.put("/pairs/lock", b"%d" % i, headers={"If-None-Match": "*"}, ttl="0.2")
            if answer.status == 201:
                got.append((asked, time.monotonic()))
            time.sleep(0.02)
        own.close()

    threads = [threading.Thread(target=worker, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(got) >= 2
    for a in got:
        for b in got:  # one of them was given it 0.2 s after the other
            assert a is b or b[1] - a[0] >= 0.19 or a[1] - b[0] >= 0.19


def test_scans_show_ends_if_asked(client):
    """Long ones of names alone, which parts of the name space make, and all others; in both directions, and as text."""
    shown = {}
    for at in range(0, 6000, 2000):
        batch = [{"op": "pair_put", "pair": b64(b"n:%04d" % i), "value": b64(b"v"), **({"ttl": 1000 + i} if i % 7 == 0 else {})} for i in range(at, at + 2000)]
        shown.update({b"n:%04d" % (at + i): line.get("expires") for i, line in enumerate(client.batch(batch).entries())})
    assert sum(end is not None for end in shown.values()) == 858
    for params in ({}, {"reverse": "true"}, {"values": "true"}, {"text": "true"}, {"values": "true", "text": "true"}, {"limit": "50"},
                   {"limit": "3000", "reverse": "true"}):
        entries = client.get("/pairs/n%3A", expires="true", **params).entries()
        assert len(entries) == int(params.get("limit", 6000))
        for line in entries:
            name = line["name"].encode() if "text" in params else unb64(line["pair"])
            assert line.get("expires") == shown[name], (params, line)
            assert ("size" in line) == ("values" in params)
        plain = client.get("/pairs/n%3A", **params).entries()
        assert [{k: v for k, v in line.items() if k != "expires"} for line in entries] == plain
    answer = client.get("/pairs/n%3A", count="true", expires="true")
    assert (answer.status, answer.json()["code"]) == (400, "invalid_parameter")


def test_long_and_damaged_lines_show_ends(launch):
    s = launch("--scrub-bytes-per-second", "0", "--shards", "1")
    c = s.client("default")
    put(c, "long", 500, b"x" * 300_000)
    put(c, "broken", 500, b"<this one>")
    ends = [c.get("/pairs/" + name, **PAIR).json()["expires"] for name in ("broken", "long")]
    c.post("/databases/default/checkpoint")
    s.stop()
    damage(s.data, b"<this one>")
    s.restart()
    entries = s.client("default").get("/pairs/*", values="true", expires="true", etags="true").entries()
    assert [(unb64(line["pair"]), line["size"]) for line in entries] == [(b"broken", None), (b"long", 300_000)]
    assert [line["expires"] for line in entries] == ends
    assert entries[0]["error"] == "corrupt_value" and "etag" not in entries[0] and "etag" in entries[1]


def test_an_end_by_the_clock(client):
    """pair_set with "expires": for copies. One that has been takes the pair and its value away."""
    key = client.upsert(b"from", b"v")
    end = int(time.time()) + 100
    results = lines(client.batch([{"op": "pair_set", "pair": b64(b"to"), "key": key, "expires": end}, {"op": "pair_get", "pair": b64(b"to")}]))
    assert results[1]["expires"] == end
    assert client.get("/pairs/to", **PAIR).json()["expires"] == end
    gone = client.insert(b"w")
    done = client.batch([{"op": "pair_set", "pair": b64(b"past"), "key": gone, "expires": end - 200}], atomic="true")
    assert done.status == 200
    assert client.get("/pairs/past", **PAIR).status == 404 and client.get("/kv/%d" % gone).status == 404
    assert client.get("/pairs/*", count="true").json()["pairs"] == 2
    bad = [{"op": "pair_set", "pair": b64(b"a"), "key": key, "expires": at} for at in (0, -1, "1", None, 1.5, True, 281474976711)]
    bad += [{"op": "pair_put", "pair": b64(b"a"), "value": b64(b"v"), "expires": end}]
    assert [r["code"] for r in lines(client.batch(bad))[:-1]] == ["invalid_operation"] * 7 + ["unknown_parameter"]
    assert client.get("/pairs/a", **PAIR).status == 404


def test_figures_leave_out_what_has_ended(client):
    put(client, "b", 100)
    put(client, "c", 100)
    before = client.get("/databases/" + client.db).json()
    assert before["expiring"] == before["pairs"] == before["values"] == 2
    put(client, "a", 0.1)
    time.sleep(0.12)
    after = client.get("/databases/" + client.db).json()
    assert after["expiring"] == after["pairs"] == after["values"] == 2 and after["value_bytes"] == 10
