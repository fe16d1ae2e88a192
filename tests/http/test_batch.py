"""POST /batch."""
import random

import pytest
from harness import b64, ndjson, rados, unb64

NDJSON = {"Content-Type": "application/x-ndjson"}


def test_every_operation(client):
    answer = client.batch([
        {"op": "insert", "value": b64(b"hello")},
        {"op": "read", "key": 1},
        {"op": "edit", "key": 1, "value": b64(b"hello!")},
        {"op": "pair_set", "pair": b64(b"p"), "key": 1},
        {"op": "pair_set", "pair": b64(b"p"), "key": 2},
        {"op": "pair_set", "pair": b64(b"p"), "key": 1},
        {"op": "pair_get", "pair": b64(b"p"), "values": True},
        {"op": "pair_get", "pair": b64(b"p")},
        {"op": "pair_put", "pair": b64(b"p"), "value": b64(b"new")},
        {"op": "read", "key": 1},
        {"op": "pair_put", "pair": b64(b"q"), "value": b64(b"q's")},
        {"op": "pair_del", "pair": b64(b"q"), "values": True},
        {"op": "pair_del", "pair": b64(b"p")},
        {"op": "read", "key": 1},
        {"op": "delete", "key": 1},
        {"op": "read", "key": 1}])
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("application/x-ndjson")
    lines = answer.entries()
    assert [line["status"] for line in lines] == [201, 200, 200, 201, 200, 200, 200, 200, 200, 200, 201, 204, 204, 200, 204, 404]
    assert lines[0] == {"status": 201, "key": 1, "size": 5}
    assert lines[1]["value"] == b64(b"hello") and lines[1]["size"] == 5
    assert lines[2]["size"] == 6
    assert lines[6]["key"] == 1 and lines[6]["value"] == b64(b"hello!") and lines[6]["size"] == 6
    assert lines[7]["key"] == 1 and "value" not in lines[7]
    assert lines[8]["key"] == 1 and lines[8]["size"] == 3
    assert lines[9]["value"] == b64(b"new"), "a read sees the operations before it"
    assert lines[10]["size"] == 3
    assert lines[11] == {"status": 204}
    assert lines[15]["code"] == "key_not_found" and lines[15]["detail"]
    assert answer.end == {"count": 16, "failed": 1}
    assert client.scan() == [] and client.get("/kv").entries() == []


def test_failures_do_not_stop_it(client):
    answer = client.batch([{"op": "read", "key": 5}, {"op": "insert", "value": b64(b"a")}, {"op": "edit", "key": 9, "value": b64(b"b")},
                           {"op": "pair_get", "pair": b64(b"p")}, {"op": "pair_del", "pair": b64(b"p")}, {"op": "delete", "key": 7},
                           {"op": "insert", "value": b64(b"b")}])
    assert [line["status"] for line in answer.entries()] == [404, 201, 404, 404, 404, 404, 201]
    assert [line.get("code") for line in answer.entries()] == ["key_not_found", None, "key_not_found", "pair_not_found",
                                                               "pair_not_found", "key_not_found", None]
    assert answer.end == {"count": 7, "failed": 5}
    assert [line["value"] for line in client.get("/kv").entries()] == [b64(b"a"), b64(b"b")]


def test_reserve_and_put(client):
    answer = client.batch([{"op": "put", "key": 1, "value": b64(b"x")}, {"op": "reserve", "keys": 100},
                           {"op": "put", "key": 70, "value": b64(b"seventy")}, {"op": "put", "key": 70, "value": b64(b"70")},
                           {"op": "read", "key": 70}, {"op": "insert", "value": b64(b"new")}, {"op": "reserve", "keys": 1}])
    lines = answer.entries()
    assert [line["status"] for line in lines] == [lines[0]["status"], 201, 201, 200, 200, 201, 201]
    if rados.WANTED and lines[0]["status"] == 201:  # all that the batch reserves is leased before it is run for the last time
        assert client.delete("/kv/1").status == 204
    else:
        assert lines[0]["status"] == 404 and lines[0]["code"] == "key_not_found"
    assert lines[1] == {"status": 201, "key": 1}
    assert lines[2] == {"status": 201, "key": 70, "size": 7} and lines[3] == {"status": 200, "key": 70, "size": 2}
    assert lines[4]["value"] == b64(b"70") and lines[5]["key"] > 100 and lines[6]["key"] > lines[5]["key"]
    assert [line["key"] for line in client.get("/kv").entries()] == [70, lines[5]["key"]]


@pytest.mark.parametrize("keys", [0, -1, 268435457, 1.5, "1", None])
def test_reserve_out_of_range(client, keys):
    line = client.batch([{"op": "reserve", "keys": keys}]).entries()[0]
    assert line["status"] == 400 and line["code"] == "invalid_operation" and "keys" in line["detail"]


def test_a_failed_atomic_batch_reserves_nothing(client):
    answer = client.batch([{"op": "reserve", "keys": 100}, {"op": "put", "key": 4, "value": b64(b"x")}, {"op": "delete", "key": 5}],
                          atomic="true")
    assert answer.status == 409 and answer.json()["index"] == 2
    assert client.insert(b"first") == 1 and client.get("/kv/4").status == 404


def test_dangling_pair_get(client):
    answer = client.batch([{"op": "pair_set", "pair": b64(b"p"), "key": 77}, {"op": "pair_get", "pair": b64(b"p"), "values": True}])
    line = answer.entries()[1]
    assert line["status"] == 200 and line["key"] == 77 and line["size"] is None and line["value"] is None


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b"5", b'"insert"', b"{}", b'{"op":"drop"}', b'{"op":5}', b'{"op":"insert"}',
                                  b'{"op":"insert","value":5}', b'{"op":"insert","value":"a"}', b'{"op":"read"}', b'{"op":"read","key":"1"}',
                                  b'{"op":"edit","key":1}', b'{"op":"pair_set","pair":"YQ=="}', b'{"op":"pair_set","key":1}',
                                  b'{"op":"pair_put","pair":"YQ"}', b'{"op":"pair_get","pair":7}', b'{"op":"pair_del"}', b"\xff\xfe",
                                  b'{"op":"insert","value":"YQ=="} {"op":"insert","value":"YQ=="}', b'{"op":"insert","value":"YQ=="',
                                  b'{"op":"pair_get","pair":"YQ==","values":"yes"}'])
def test_a_malformed_line_fails_as_its_own_operation(client, line):
    body = b'{"op":"insert","value":"YQ=="}\n' + line + b'\n{"op":"insert","value":"Yg=="}\n'
    answer = client.post("/batch", body, headers=NDJSON)
    assert answer.status == 200
    statuses = [entry["status"] for entry in answer.entries()]
    if line == b"" and len(statuses) == 2:
        assert answer.end == {"count": 2, "failed": 0}  # an empty line may count as none
        return
    assert statuses == [201, 400, 201], line
    assert answer.entries()[1]["code"] in ("invalid_operation", "invalid_value", "invalid_key", "invalid_pair")
    assert answer.end == {"count": 3, "failed": 1}
    assert len(client.get("/kv").entries()) == 2


@pytest.mark.parametrize("line", [b"{", b"[]", b"null", b"nonsense", b'{"op":"drop"}', b"{}"])
def test_the_code_of_a_malformed_line(client, line):
    assert client.post("/batch", line + b"\n", headers=NDJSON).entries()[0]["code"] == "invalid_operation"


@pytest.mark.parametrize("line,detail", [(b'{"op":"read","key":18446744073709551616}', "64 bits"), (b'{"op":"read","key":1,"x":1e400}', "64 bits"),
                                         (b'{"op":"read","key":1,"key":2}', "twice"), (b"[]", "no JSON object"), (b"nonsense", "no JSON object")])
def test_a_malformed_line_says_why(client, line, detail):
    answer = client.post("/batch", line + b"\n", headers=NDJSON).entries()[0]
    assert answer["code"] == "invalid_operation" and detail in answer["detail"]


@pytest.mark.parametrize("operation,code", [({"op": "read", "key": 0}, "invalid_key"), ({"op": "pair_set", "pair": b64(b"p"), "key": 2**48}, "invalid_key"),
                                            ({"op": "insert", "value": ""}, "empty_value"), ({"op": "pair_get", "pair": ""}, "invalid_pair"),
                                            ({"op": "pair_put", "pair": b64(b"a" * 4097), "value": "YQ=="}, "invalid_pair")])
def test_operations_out_of_range(client, operation, code):
    line = client.batch([operation]).entries()[0]
    assert line["status"] == 400 and line["code"] in (code, "invalid_operation")


def test_a_value_that_is_too_large(launch):
    client = launch("--durability", "os", "--max-value-size", "100").client()
    answer = client.batch([{"op": "insert", "value": b64(bytes(101))}, {"op": "insert", "value": b64(bytes(100))}])
    assert [line["status"] for line in answer.entries()] == [413, 201]
    assert answer.entries()[0]["code"] == "value_too_large"


def test_no_results(client):
    answer = client.batch([{"op": "insert", "value": b64(b"a")}, {"op": "read", "key": 99}, {"op": "read", "key": 1}], results="false")
    assert [line["status"] for line in answer.entries()] == [404]
    assert answer.end == {"count": 3, "failed": 1}


def test_the_last_line_needs_no_line_break(client):
    answer = client.post("/batch", b'{"op":"insert","value":"YQ=="}', headers=NDJSON)
    assert answer.entries() == [{"status": 201, "key": 1, "size": 1}] and answer.end == {"count": 1, "failed": 0}


def test_line_ends_of_dos(client):
    answer = client.post("/batch", b'{"op":"insert","value":"YQ=="}\r\n{"op":"read","key":1}\r\n', headers=NDJSON)
    assert [line["status"] for line in answer.entries()] == [201, 200]


def test_nothing_to_do(client):
    answer = client.post("/batch", b"", headers=NDJSON)
    assert answer.status == 200 and answer.lines() == [{"end": {"count": 0, "failed": 0}}]
    assert client.post("/batch", b"", headers=NDJSON, atomic="true").end == {"count": 0, "failed": 0}


def test_atomic(client):
    answer = client.batch([{"op": "insert", "value": b64(b"a")}, {"op": "pair_set", "pair": b64(b"p"), "key": 1}], atomic="true")
    assert answer.status == 200 and answer.end == {"count": 2, "failed": 0}
    assert client.read(1) == b"a"


def test_atomic_all_or_nothing(client):
    client.put_all({b"a": b"old a", b"b": b"old b"})
    before = client.scan(values="true"), client.get("/kv").lines()
    answer = client.batch([{"op": "insert", "value": b64(b"x")}, {"op": "pair_put", "pair": b64(b"a"), "value": b64(b"new a")},
                           {"op": "pair_del", "pair": b64(b"b"), "values": True}, {"op": "pair_put", "pair": b64(b"c"), "value": b64(b"c")},
                           {"op": "edit", "key": 99999, "value": b64(b"y")}, {"op": "insert", "value": b64(b"z")}], atomic="true")
    assert answer.status == 409 and answer.code == "batch_failed"
    problem = answer.json()
    assert problem["index"] == 4
    assert problem["operation"]["status"] == 404 and problem["operation"]["code"] == "key_not_found" and problem["operation"]["detail"]
    assert (client.scan(values="true"), client.get("/kv").lines()) == before


def test_atomic_with_a_malformed_line(client):
    body = b'{"op":"insert","value":"YQ=="}\nnonsense\n'
    answer = client.post("/batch", body, headers=NDJSON, atomic="true")
    assert answer.status == 409 and answer.code == "batch_failed"
    assert answer.json()["index"] == 1 and answer.json()["operation"]["status"] == 400
    assert answer.json()["operation"]["code"] == "invalid_operation"
    assert client.get("/kv").entries() == []


def test_atomic_failed_read(client):
    answer = client.batch([{"op": "insert", "value": "YQ=="}, {"op": "pair_get", "pair": b64(b"nope")}], atomic="true", results="false")
    assert answer.status == 409 and answer.json()["operation"]["code"] == "pair_not_found"
    assert client.get("/kv").entries() == []


def test_limits_of_a_batch(launch):
    client = launch("--durability", "os", "--max-batch-ops", "10", "--max-batch-bytes", "2000").client()
    insert = {"op": "insert", "value": "YQ=="}
    assert client.batch([insert] * 10).end == {"count": 10, "failed": 0}
    answer = client.batch([insert] * 11)
    assert answer.status == 413 and answer.code == "batch_too_large"
    answer = client.batch([{"op": "insert", "value": b64(bytes(2000))}])
    assert answer.status == 413 and answer.code == "batch_too_large"
    answer = client.post("/batch", iter([ndjson([{"op": "insert", "value": b64(bytes(2000))}])]), headers=NDJSON, chunked=True)
    assert answer.status == 413 and answer.code == "batch_too_large"
    assert len(client.get("/kv").entries()) == 10, "nothing of a batch that is too large"


def test_100000_operations(client):
    rng = random.Random(5)
    pairs = {rng.randbytes(12): rng.randbytes(16) for _ in range(100000)}
    answer = client.batch([{"op": "pair_put", "pair": b64(p), "value": b64(v)} for p, v in pairs.items()])
    assert answer.status == 200 and answer.end == {"count": 100000, "failed": 0}
    keys = [line["key"] for line in answer.entries()]
    assert len(set(keys)) == 100000
    assert client.scan(values="true") == [(p, k, pairs[p]) for p, k in sorted(zip(pairs, keys))]
    answer = client.batch([{"op": "read", "key": 1}] * 100001)
    assert answer.status == 413 and answer.code == "batch_too_large"


def test_results_in_order_of_the_operations(client):
    rng = random.Random(6)
    values = [rng.randbytes(rng.randrange(1, 2000)) for _ in range(500)]
    client.batch([{"op": "insert", "value": b64(value)} for value in values])
    order = [rng.randrange(1, 501) for _ in range(2000)]
    answer = client.batch([{"op": "read", "key": key} for key in order])
    assert [unb64(line["value"]) for line in answer.entries()] == [values[key - 1] for key in order]
    assert [line["key"] for line in answer.entries()] == order


def test_parameters(client):
    assert client.batch([], foo="1").code == "unknown_parameter"
    assert client.batch([], atomic="yes").code == "invalid_parameter"
    assert client.batch([], results="").code == "invalid_parameter"


def test_a_batch_creates_the_database(server, name):
    client = server.client(db=name)
    assert client.batch([{"op": "insert", "value": "YQ=="}]).end["failed"] == 0
    assert client.read(1) == b"a"
    client.delete("/databases/" + name, confirm=name)
