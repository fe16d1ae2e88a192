"""Values: /kv."""
import random

import pytest
from harness import b64, contract, unb64

RAW = {"Content-Type": "application/octet-stream"}
BYTES = bytes(range(256))


def test_insert_json(client):
    answer = client.post("/kv", json_body={"value": "aGVsbG8="})
    assert answer.status == 201
    assert answer.json() == {"key": 1, "size": 5}
    assert answer.headers["Location"].split("?")[0] == "/kv/1"
    assert client.read(1) == b"hello"


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain; charset=utf-8", "application/x-whatever", None])
def test_insert_raw(client, kind):
    answer = client.post("/kv", BYTES, headers={"Content-Type": kind} if kind else {})
    assert answer.status == 201 and answer.json() == {"key": 1, "size": 256}
    assert client.read(1) == BYTES


def test_json_with_a_charset_is_json(client):
    answer = client.post("/kv", b'{"value":"aGVsbG8="}', headers={"Content-Type": "application/json; charset=utf-8"})
    assert answer.status == 201 and answer.json()["size"] == 5
    answer = client.post("/kv", b' { "value" : "aGVsbG8\\u003d" } ', headers={"Content-Type": "Application/JSON"})
    assert answer.status == 201 and answer.json()["size"] == 5


def test_plain_inserts_count_from_1(client):
    assert [client.insert(b"v") for _ in range(20)] == list(range(1, 21))


def test_read(client):
    key = client.insert(b"hello")
    answer = client.get("/kv/%d" % key)
    assert answer.status == 200 and answer.json() == {"key": key, "size": 5, "value": "aGVsbG8="}
    assert answer.headers["Content-Type"].startswith("application/json")
    raw = client.get("/kv/%d" % key, headers={"Accept": "application/octet-stream"})
    assert raw.body == b"hello" and raw.headers["Content-Type"] == "application/octet-stream"
    assert raw.headers["Content-Length"] == "5"
    for accept in ("*/*", "application/json", "text/html, application/json"):
        assert client.get("/kv/%d" % key, headers={"Accept": accept}).json()["value"] == "aGVsbG8="


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, (1 << 24) - 1, 1 << 24])
def test_sizes(client, size):
    value = random.Random(size).randbytes(size)
    key = client.insert(value)
    assert client.read(key) == value
    answer = client.get("/kv/%d" % key)
    assert answer.json()["size"] == size and unb64(answer.json()["value"]) == value


def test_replace(client):
    key = client.insert(b"hello")
    answer = client.put("/kv/%d" % key, b"hello!", headers=RAW)
    assert answer.status == 200 and answer.json() == {"key": key, "size": 6}
    assert client.read(key) == b"hello!"
    answer = client.put("/kv/%d" % key, json_body={"value": b64(b"\0")})
    assert answer.json() == {"key": key, "size": 1} and client.read(key) == b"\0"
    for size in (100000, 3, 70000, 70000, 1):
        value = bytes([size % 251]) * size
        assert client.put("/kv/%d" % key, value, headers=RAW).json() == {"key": key, "size": size}
        assert client.read(key) == value


def test_delete(client):
    keys = [client.insert(b"a"), client.insert(b"b")]
    answer = client.delete("/kv/%d" % keys[0])
    assert answer.status == 204 and answer.body == b"" and "Content-Type" not in answer.headers
    assert client.get("/kv/%d" % keys[0]).code == "key_not_found"
    for call in (client.delete, client.get):
        assert call("/kv/%d" % keys[0]).status == 404
    assert client.put("/kv/%d" % keys[0], b"x", headers=RAW).code == "key_not_found"
    assert client.read(keys[1]) == b"b"
    assert client.insert(b"c") not in keys, "a key was given out again"


def test_deleted_keys_are_never_given_out_again(client):
    seen = set()
    for _ in range(5):
        keys = [client.insert(b"same size") for _ in range(8)]
        assert not seen & set(keys)
        seen.update(keys)
        for key in keys:
            assert client.delete("/kv/%d" % key).status == 204


@pytest.mark.parametrize("key", [1, 2, 999999, 2**47, 2**48 - 1])
def test_no_such_key(client, key):
    for answer in (client.get("/kv/%d" % key), client.delete("/kv/%d" % key), client.put("/kv/%d" % key, b"x", headers=RAW)):
        assert answer.status == 404 and answer.code == "key_not_found"
    raw = client.get("/kv/%d" % key, headers={"Accept": "application/octet-stream"})
    assert raw.status == 404 and raw.code == "key_not_found"


@pytest.mark.parametrize("key", ["0", "-1", str(2**48), str(2**64), str(2**64 + 1), "9" * 40, "abc", "1a", "1.0", "0x1",
                                 "%20", "1%20", "+1", "1e3", "%00", "1%00"])
def test_invalid_key(client, key):
    for answer in (client.get("/kv/" + key), client.delete("/kv/" + key), client.put("/kv/" + key, b"x", headers=RAW)):
        assert answer.status == 400 and answer.code == "invalid_key", key


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"aGVsbG8="', b"5", b"{}", b'{"value":5}', b'{"value":null}', b"null",
                                  b'{"valu":"aGVsbG8="}', b'{"value":"aGVsbG8"}', b'{"value":"aGVsb*8="}', b"\xff\xfe",
                                  b'{"value":"aGVs\\nbG8="}', b'{"value":"aGVsbG9="}', b'{"value":"-_-_"}',
                                  b'{"value":"aGVsbG8="} x', b'{"value":["aGVsbG8="]}', b'{"value":"aGVsbG8= "}'])
def test_invalid_value(client, body):
    key = client.insert(b"old")
    headers = {"Content-Type": "application/json"}
    for answer in (client.post("/kv", body, headers=headers), client.put("/kv/%d" % key, body, headers=headers)):
        assert answer.status == 400 and answer.code == "invalid_value", body
    assert client.read(key) == b"old"


def test_empty_value(client):
    key = client.insert(b"old")
    answers = [client.post("/kv", b"", headers=RAW), client.post("/kv", json_body={"value": ""}),
               client.put("/kv/%d" % key, b"", headers=RAW), client.put("/kv/%d" % key, json_body={"value": ""}),
               client.post("/kv", b"", headers=dict(RAW, **{"Content-Length": "0"}))]
    for answer in answers:
        assert answer.status == 400 and answer.code == "empty_value"
    assert client.read(key) == b"old"


def test_value_too_large(client):
    key = client.insert(b"old")
    large = bytes((1 << 24) + 1)
    for answer in (client.post("/kv", large, headers=RAW), client.put("/kv/%d" % key, large, headers=RAW),
                   client.post("/kv", json_body={"value": b64(large)})):
        assert answer.status == 413 and answer.code == "value_too_large"
    assert client.read(key) == b"old"


def test_several_keys(client):
    keys = [client.insert(b"v%d" % i) for i in range(5)]
    answer = client.get("/kv?keys=%d,%d,9999,%d,%d" % (keys[2], keys[0], keys[4], keys[2]))
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("application/x-ndjson")
    want = [{"key": keys[2], "size": 2, "value": b64(b"v2")}, {"key": keys[0], "size": 2, "value": b64(b"v0")},
            {"key": 9999, "error": "key_not_found"}, {"key": keys[4], "size": 2, "value": b64(b"v4")},
            {"key": keys[2], "size": 2, "value": b64(b"v2")}]
    assert answer.entries() == want
    assert answer.end == {"count": 5, "next": None}


def test_a_thousand_keys_and_no_more(client):
    client.batch([{"op": "insert", "value": b64(b"v%d" % i)} for i in range(1000)])
    text = ",".join(str(key) for key in range(1000, 0, -1))
    entries = client.get("/kv?keys=" + text).entries()
    assert [line["key"] for line in entries] == list(range(1000, 0, -1))
    assert all(unb64(line["value"]) == b"v%d" % (line["key"] - 1) for line in entries)
    answer = client.get("/kv?keys=" + text + ",1")
    assert answer.status == 400 and answer.code == "invalid_parameter"


@pytest.mark.parametrize("keys", ["", ",", "1,", ",1", "1,,2", "a", "1,b", "0", "1,0", str(2**48), "1 2", "-1"])
def test_invalid_keys_parameter(client, keys):
    answer = client.get("/kv", keys=keys)
    assert answer.status == 400 and answer.code in ("invalid_key", "invalid_parameter")


def sweep(client, **params):
    return client.get("/kv", **params)


def test_sweep(client):
    values = {client.insert(bytes([i]) * (i % 3 + 1)): bytes([i]) * (i % 3 + 1) for i in range(50)}
    for key in (3, 17, 50):
        client.delete("/kv/%d" % key)
        del values[key]
    answer = sweep(client)
    assert [line["key"] for line in answer.entries()] == sorted(values)
    assert {line["key"]: unb64(line["value"]) for line in answer.entries()} == values
    assert all(line["size"] == len(values[line["key"]]) for line in answer.entries())
    assert answer.end == {"count": len(values), "next": None}


def test_sweep_without_values(client):
    client.insert(b"abc")
    assert sweep(client, values="false").entries() == [{"key": 1, "size": 3}]
    assert sweep(client, values="0").entries() == [{"key": 1, "size": 3}]
    assert sweep(client, values="true").entries() == [{"key": 1, "size": 3, "value": "YWJj"}]
    assert sweep(client, values="1").entries() == [{"key": 1, "size": 3, "value": "YWJj"}]


def test_sweep_of_one_size(client):
    keys = {size: [] for size in (1, 2, 3)}
    for i in range(60):
        keys[i % 3 + 1].append(client.insert(b"v" * (i % 3 + 1)))
    for size, expected in keys.items():
        assert [line["key"] for line in sweep(client, size=str(size)).entries()] == expected
    assert sweep(client, size="4").lines() == [{"end": {"count": 0, "next": None}}]
    page = sweep(client, size="2", limit="7", after=str(keys[2][2]), values="false")
    assert [line["key"] for line in page.entries()] == keys[2][3:10]


def test_sweep_by_pages(client):
    client.batch([{"op": "insert", "value": b64(b"v")}] * 100)
    got, after = [], "0"
    for _ in range(100):
        answer = sweep(client, limit="7", after=after, values="false")
        got += [line["key"] for line in answer.entries()]
        assert answer.end["count"] == len(answer.entries()) <= 7
        if answer.end["next"] is None:
            break
        assert answer.end["next"] == got[-1]
        after = str(answer.end["next"])
    assert got == list(range(1, 101))


def test_sweep_of_nothing(client):
    assert sweep(client).lines() == [{"end": {"count": 0, "next": None}}]
    client.insert(b"v")
    assert sweep(client, after="1").lines() == [{"end": {"count": 0, "next": None}}]
    assert sweep(client, after=str(2**48 - 1)).entries() == []


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "-1"}, {"limit": "x"}, {"limit": ""}, {"limit": "1x"},
                                    {"limit": "9" * 30}, {"size": "0"}, {"size": "-2"}, {"size": "x"}, {"values": "yes"},
                                    {"values": "TRUE"}, {"values": ""}, {"after": "x"}, {"after": "-1"},
                                    {"after": str(2**48)}])
def test_bad_values_of_parameters(client, params):
    answer = sweep(client, **params)
    assert answer.status == 400 and answer.code in ("invalid_parameter", "invalid_key"), params


@pytest.mark.parametrize("path,params", [("/kv", {"lmit": "1"}), ("/kv", {"reverse": "true"}), ("/kv/1", {"values": "true"}),
                                         ("/kv/1", {"x": ""}), ("/kv", {"LIMIT": "1"}), ("/kv", {"": "1"})])
def test_unknown_parameters(client, path, params):
    answer = client.get(path, **params)
    assert answer.status == 400 and answer.code == "unknown_parameter"


def test_unknown_parameters_of_writes(client):
    key = client.insert(b"v")
    assert client.post("/kv", b"v", headers=RAW, limit="1").code == "unknown_parameter"
    assert client.put("/kv/%d" % key, b"w", headers=RAW, values="1").code == "unknown_parameter"
    assert client.delete("/kv/%d" % key, values="1").code == "unknown_parameter"
    assert client.read(key) == b"v" and len(sweep(client).entries()) == 1


def test_keys_of_databases_are_apart(client, server):
    other = server.client(db=client.db + "-b")
    assert client.insert(b"here") == 1 and other.insert(b"there") == 1
    assert client.read(1) == b"here" and other.read(1) == b"there"
    client.delete("/databases/" + other.db, confirm=other.db)


def test_the_checks_of_this_suite_can_fail():
    with pytest.raises(AssertionError):
        contract().check("GET", "/kv/1", 200, "application/json", b'{"key":1,"size":5}')
    with pytest.raises(AssertionError):
        contract().check("GET", "/kv", 200, "application/x-ndjson", b'{"key":1,"size":1,"value":"YQ=="}\n')
    with pytest.raises(AssertionError):
        contract().check("GET", "/kv/1", 404, "application/problem+json", b'{"type":"about:blank","title":"Not Found",'
                         b'"status":404,"code":"no_such_code","detail":"x"}')
