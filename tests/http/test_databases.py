"""Databases: /databases and ?db=."""
import threading

import pytest
from harness import b64

BAD_NAMES = ["", "-a", "_a", "a" * 65, "a.b", "a%20b", "%2e%2e", "a%2fb", "a%00", "%C3%A9", "a%2B"]


def test_default_always_exists(server):
    client = server.client()
    assert "default" in client.get("/databases").json()["databases"]
    assert client.get("/databases/default").status == 200
    assert client.get("/kv", limit="1").status == 200


def test_create_list_drop(server, name):
    client = server.client()
    answer = client.put("/databases/" + name)
    assert answer.status == 201
    assert client.put("/databases/" + name).status == 200
    names = client.get("/databases").json()["databases"]
    assert name in names and names == sorted(names)
    assert client.delete("/databases/" + name, confirm=name).status == 204
    assert name not in client.get("/databases").json()["databases"]
    assert client.delete("/databases/" + name, confirm=name).code == "database_not_found"
    assert client.get("/databases/" + name).code == "database_not_found"
    assert client.put("/databases/" + name).status == 201, "a name can be used again"
    assert client.get("/kv", db=name).entries() == []
    client.delete("/databases/" + name, confirm=name)


def test_names(server):
    client = server.client()
    for good in ("a", "A", "0", "a-b_c", "9" * 64, "Z" + "-" * 63):
        assert client.put("/databases/" + good).status == 201
        assert client.get("/kv", db=good).status == 200
        assert client.delete("/databases/" + good, confirm=good).status == 204


@pytest.mark.parametrize("bad", BAD_NAMES)
def test_bad_names(server, bad):
    client = server.client()
    for path in ("/kv", "/kv/1", "/pairs/a", "/reduce/counts/a"):
        answer = client.get(path + "?db=" + bad)
        assert answer.status == 400 and answer.code == "invalid_database_name", path
    assert client.post("/kv?db=" + bad, b"v").code == "invalid_database_name"
    assert client.post("/batch?db=" + bad, b"").code == "invalid_database_name"
    if bad:
        for call in (client.get, client.put):
            answer = call("/databases/" + bad)
            assert answer.status == 400 and answer.code == "invalid_database_name"
        assert client.delete("/databases/%s?confirm=%s" % (bad, bad)).code == "invalid_database_name"
        assert client.post("/databases/%s/checkpoint" % bad).status in (400, 404)


def test_shards(server, name):
    client = server.client()
    answer = client.put("/databases/" + name, json_body={"shards": 5})
    assert answer.status == 201
    text = client.get("/databases/" + name).body.decode()
    statistics = client.get("/databases/" + name).json()
    shards = statistics.get("shards")
    assert shards == 5 or isinstance(shards, list) and len(shards) == 5, text
    client.delete("/databases/" + name, confirm=name)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"shards":0}', b'{"shards":257}', b'{"shards":"8"}', b'{"shards":1.5}', b'{"shards":-1}', b"5",
                                  b'{"shard":4}', b'{"shards":4,"Keep":[]}', b'{"live":{"order":3,"bos":2,"eso":3}}'])
def test_bad_shards(server, name, body):
    client = server.client()
    answer = client.put("/databases/" + name, body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert name not in client.get("/databases").json()["databases"]


def test_statistics(client, server):
    for i in range(10):
        client.upsert(b"p%d" % i, b"v" * (i % 2 + 1))
    client.insert(b"abc")
    client.map(b"dangling", 2**40)
    statistics = client.get("/databases/" + client.db).json()
    assert statistics["name"] == client.db
    assert statistics["pairs"] == 11 and statistics["values"] == 11
    text = client.get("/databases/" + client.db).body.decode()
    assert server.data in text, "the directories of the shards"
    for word in ("shard", "log", "length"):
        assert word in text.lower(), word


def test_lengths_by_ranges(client):
    """A screen of them whatever is stored; lengths=all has each, and the sums are the same."""
    path = "/databases/" + client.db
    assert client.get(path).json()["lengths"] == [] == client.get(path, lengths="all").json()["lengths"]
    sizes = [1, 3, 15, 16, 255, 256, *range(300, 900, 7), 4095, 70_000, 70_000]
    assert client.batch([{"op": "insert", "value": b64(b"v" * size)} for size in sizes]).end["failed"] == 0
    every, ranges = client.get(path, lengths="all").json()["lengths"], client.get(path).json()["lengths"]
    assert [row["length"] for row in every] == sorted(set(sizes)) and ranges == client.get(path, lengths="ranges").json()["lengths"]
    assert [(row["least"], row["most"], row["lengths"], row["values"]) for row in ranges] == [
        (1, 15, 3, 3), (16, 255, 2, 2), (256, 4095, 88, 88), (70_000, 70_000, 1, 2)]
    assert [row.get("length") for row in ranges] == [None, None, None, 70_000]
    for member in "values", "slots", "bytes":
        assert sum(row[member] for row in ranges) == sum(row[member] for row in every)
    assert sum(row["bytes"] for row in ranges) == sum(sizes)
    bad = client.get(path, lengths="some")
    assert (bad.status, bad.json()["code"]) == (400, "invalid_parameter")


def test_drop_must_be_confirmed(client):
    path = "/databases/" + client.db
    client.insert(b"v")
    for params in ({}, {"confirm": ""}, {"confirm": "other"}, {"confirm": "true"}, {"confirm": client.db + "x"}):
        answer = client.delete(path, **params)
        assert answer.status == 400 and answer.code == "invalid_parameter", params
    assert client.read(1) == b"v"


def test_drop_while_it_is_used(server, name):
    """Whatever the answer, nothing breaks and the name can be used again."""
    client, other = server.client(), server.client(db=name)
    for _ in range(5):
        other.upsert(b"a", b"v")
        other.put_all({b"p%d" % i: b"v" for i in range(500)})
        response, _ = other.send("GET", "/pairs/*")
        answer = client.delete("/databases/" + name, confirm=name)
        assert answer.status in (204, 409), answer
        response.read()
        if answer.status == 409:
            assert client.delete("/databases/" + name, confirm=name).status == 204
        assert client.get("/databases/" + name).status == 404


def test_checkpoint(client):
    client.put_all({b"p%d" % i: b"v" for i in range(1000)})
    assert client.post("/databases/%s/checkpoint" % client.db).status in (200, 204)
    assert len(client.scan(values="true")) == 1000
    answer = client.post("/databases/no-such-database/checkpoint")
    assert answer.status == 404 and answer.code == "database_not_found"


def test_databases_survive_a_restart(launch):
    server = launch("--shards", "2")
    client = server.client(db="kept")
    client.upsert(b"a", b"v")
    server.client().put("/databases/empty")
    server.client().put("/databases/gone")
    server.client().delete("/databases/gone", confirm="gone")
    server.stop()
    server.restart()
    assert server.client().get("/databases").json() == {"databases": ["default", "empty", "kept"]}
    assert [value for _, _, value in server.client(db="kept").scan(values="true")] == [b"v"]
    assert server.client(db="gone").get("/kv").code == "database_not_found"


def test_wrong_methods(client):
    for method, path, allowed in (("POST", "/databases", {"GET"}), ("POST", "/databases/a", {"GET", "PUT", "DELETE"}),
                                  ("GET", "/databases/default/checkpoint", {"POST"}), ("DELETE", "/databases", {"GET"})):
        answer = client.request(method, path)
        assert answer.status == 405 and answer.code == "method_not_allowed"
        assert allowed <= {word.strip() for word in answer.headers["Allow"].split(",")}


def test_query_parameters_are_ignored(client):
    for answer in (client.get("/databases?foo=1"), client.get("/databases/default?foo=1&limit=0"), client.put("/databases/%s?foo=1" % client.db)):
        assert answer.status == 200


def test_only_who_may_makes_databases(launch):
    """--create-databases admin: no write makes one, whatever its call; PUT does, and then writes go there."""
    server = launch("--create-databases", "admin", "--durability", "os")
    client = server.client()
    raw, js, nd = ({"Content-Type": kind} for kind in ("application/octet-stream", "application/json", "application/x-ndjson"))
    writes = [("POST", "/kv", b"v", raw), ("PUT", "/pairs/p", b"v", raw), ("PUT", "/kv/1", b"v", raw), ("DELETE", "/kv/1", None, {}), ("DELETE", "/pairs/p", None, {}),
              ("POST", "/batch", b'{"op":"insert","value":"dg=="}\n', nd), ("POST", "/ngrams", b'{"tokens":[1,2,3]}\n', nd), ("POST", "/reduce/smooth/cnt:", None, {}),
              ("POST", "/reduce/queue-drain/q", None, {}), ("POST", "/contexts", b'{"tree":[1]}', js)]
    for method, path, body, headers in writes:
        answer = client.request(method, path + "?db=typo", body, headers=headers)
        assert answer.status in (400, 404) and (answer.status == 400 or answer.code == "database_not_found"), (method, path, answer)
    assert client.post("/kv?db=typo", b"v", headers=raw).code == "database_not_found"
    assert client.post("/batch?db=typo", b'{"op":"insert","value":"dg=="}\n', headers=nd).code == "database_not_found"
    assert client.get("/databases").json()["databases"] == ["default"]
    assert client.post("/kv", b"v", headers=raw).status == 201, "default is there"
    assert client.put("/databases/typo").status == 201 and client.post("/kv?db=typo", b"v", headers=raw).status == 201


RAW = {"Content-Type": "application/octet-stream"}


def test_what_only_takes_away_makes_none(client):
    """Of a database that is not there: nothing can be changed, deleted or drained."""
    for method, path, body in (("PUT", "/kv/1", b"v"), ("DELETE", "/kv/1", None), ("DELETE", "/pairs/p", None), ("DELETE", "/pairs/p?recursive=true", None),
                               ("POST", "/reduce/queue-drain/q", None)):
        answer = client.request(method, path + ("&" if "?" in path else "?") + "db=nowhere", body, headers=RAW if body else {})
        assert (answer.status, answer.code) == (404, "database_not_found"), (method, path, answer)
    assert "nowhere" not in client.get("/databases").json()["databases"]


def test_at_most_so_many_databases(launch):
    """--max-databases: beyond it no call makes one; those that are there are served; a place that comes free is given again, also to many at once."""
    server = launch("--max-databases", "4", "--durability", "os", "--shards", "1")
    client = server.client(check=False)
    assert client.put("/databases/a").status == 201 and client.put("/databases/b").status == 201
    assert client.post("/kv?db=c", b"v", headers=RAW).status == 201
    nd = {"Content-Type": "application/x-ndjson"}
    for method, path, body, headers in (("PUT", "/databases/d", None, {}), ("POST", "/kv?db=d", b"v", RAW), ("PUT", "/pairs/p?db=d", b"v", RAW),
                                        ("POST", "/batch?db=d", b'{"op":"insert","value":"dg=="}', nd), ("POST", "/ngrams?db=d", b'{"tokens":[1,2,3]}', nd)):
        answer = client.request(method, path, body, headers=headers)
        assert (answer.status, answer.code) == (503, "too_many_databases"), (method, path, answer)
        assert "Retry-After" in answer.headers
    assert client.get("/kv?db=d").code == "database_not_found"
    assert client.put("/databases/a").status == 200 and client.post("/kv?db=b", b"v", headers=RAW).status == 201
    assert server.comes_to("cheetah_databases", 4) and server.comes_to("cheetah_databases_limit", 4)
    assert client.delete("/databases/default?confirm=default").status == 204, "it is made anew whatever the limit"
    assert client.delete("/databases/a?confirm=a").status == 204 and client.delete("/databases/b?confirm=b").status == 204
    found = []

    def make(i):
        own = server.client(check=False)
        found.append(own.put("/databases/n%d" % i).status)

    threads = [threading.Thread(target=make, args=(i,)) for i in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(found) == [201, 201] + [503] * 10
    assert len(client.get("/databases").json()["databases"]) == 4
    server.stop()
    server.command += ["--max-databases", "2"]
    server.restart()
    client = server.client(check=False)
    for name in client.get("/databases").json()["databases"]:
        assert client.post("/kv?db=" + name, b"v", headers=RAW).status == 201, "what is there is served under a lower limit too"
    assert client.delete("/databases/default?confirm=default").status == 204 and client.get("/kv").status == 200


def test_names_that_differ_in_case_only(launch):
    """The second one is refused, whatever call would make it, and however many try at once."""
    server = launch("--durability", "os", "--shards", "1")
    client = server.client(check=False)
    assert client.post("/kv?db=Names-a_1", b"v", headers=RAW).status == 201
    for name in ("names-a_1", "NAMES-A_1", "nAmes-a_1"):
        for method, path, body, headers in (("PUT", "/databases/" + name, None, {}), ("POST", "/kv?db=" + name, b"v", RAW)):
            answer = client.request(method, path, body, headers=headers)
            assert (answer.status, answer.code) == (409, "database_case_conflict") and "Names-a_1" in answer.json()["detail"]
        assert client.get("/kv?db=" + name).code == "database_not_found"
    assert client.put("/databases/Default").code == "database_case_conflict"
    assert client.put("/databases/Names-a_2").status == 201 and client.put("/databases/names-a-1").status == 201
    assert client.delete("/databases/Names-a_1?confirm=Names-a_1").status == 204
    assert client.put("/databases/names-a_1").status == 201, "once the other is gone"
    for n in range(5):
        found = []

        def make(i):
            own = server.client(check=False)
            found.append(own.put("/databases/" + "".join(c.upper() if i >> k & 1 else c for k, c in enumerate("many")) + "-%d" % n).status)

        threads = [threading.Thread(target=make, args=(i,)) for i in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert sorted(found) == [201] + [409] * 7
