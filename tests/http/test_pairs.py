"""Single pairs: /pairs/{pair} with PUT, exact=true and DELETE; byte strings in a URL."""
import random

import pytest
from harness import b64, escaped, hexed, unb64

RAW = {"Content-Type": "application/octet-stream"}
NASTY = [bytes([byte]) for byte in range(256)] + [bytes(range(256)), b"\0", b"\0\0", b"\xff" * 4096, b"a" * 4096, b"/", b"//",
         b"..", b"../..", b"./", b"a/b/c", b"a//b", b"a/", b"/a", b"?", b"a?b=c", b"#", b"%", b"%41", b"x", b"xy", b"x6374", b"*",
         b"**", b"*a", b"+", b"a b", b" ", b"\r\n", b"ctx:", "ü€".encode(), b"&", b";", b"count=true"]


def exact(client, pair, **params):
    return client.get("/pairs/" + hexed(pair), exact="true", **params)


def test_map(client):
    answer = client.put("/pairs/ctx:a", json_body={"key": 4})
    assert answer.status == 201 and answer.json() == {"pair": b64(b"ctx:a"), "key": 4}
    answer = client.put("/pairs/ctx:a", json_body={"key": 5})
    assert answer.status == 200 and answer.json() == {"pair": b64(b"ctx:a"), "key": 5}
    assert exact(client, b"ctx:a").json() == {"pair": b64(b"ctx:a"), "key": 5}


def test_key_without_a_value(client):
    client.map(b"early", 3)
    assert exact(client, b"early", values="true").json() == {"pair": b64(b"early"), "key": 3, "size": None, "value": None}
    for _ in range(3):
        client.insert(b"late")
    assert exact(client, b"early", values="true").json() == {"pair": b64(b"early"), "key": 3, "size": 4, "value": b64(b"late")}
    client.delete("/kv/3")
    assert exact(client, b"early", values="true").json()["value"] is None
    assert exact(client, b"early").json()["key"] == 3


@pytest.mark.parametrize("key", [1, 2**32, 2**48 - 1])
def test_keys_of_any_size(client, key):
    client.map(b"p", key)
    assert exact(client, b"p").json()["key"] == key


@pytest.mark.parametrize("body", [b'{"key":0}', b'{"key":-1}', b'{"key":281474976710656}', b'{"key":18446744073709551617}',
                                  b'{"key":1.5}', b'{"key":"4"}', b'{"key":null}', b'{"key":true}', b'{"key":[4]}'])
def test_map_to_an_invalid_key(client, body):
    answer = client.put("/pairs/p", body, headers={"Content-Type": "application/json"})
    assert answer.status == 400 and answer.code in ("invalid_key", "invalid_value"), body
    assert exact(client, b"p").code == "pair_not_found"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"{", b'{"value":5}', b'{"value":"a"}', b"null", b'{"key":4}}'])
def test_invalid_body(client, body):
    answer = client.put("/pairs/p", body, headers={"Content-Type": "application/json"})
    assert answer.status == 400 and answer.code == "invalid_value", body
    assert exact(client, b"p").status == 404


def test_upsert(client):
    answer = client.put("/pairs/ctx:a", json_body={"value": b64(b"hello")})
    assert answer.status == 201
    key = answer.json()["key"]
    assert answer.json() == {"pair": b64(b"ctx:a"), "key": key, "size": 5}
    assert client.read(key) == b"hello"
    answer = client.put("/pairs/ctx:a", b"longer value", headers=RAW)
    assert answer.status == 200 and answer.json() == {"pair": b64(b"ctx:a"), "key": key, "size": 12}
    assert client.read(key) == b"longer value"


def test_upsert_keeps_a_mapped_key_or_makes_a_new_one(client):
    key = client.insert(b"v")
    client.map(b"a", key)
    client.map(b"b", key)
    assert client.upsert(b"a", b"w") == key and client.read(key) == b"w"
    assert exact(client, b"b", values="true").json()["value"] == b64(b"w")
    client.delete("/kv/%d" % key)
    answer = client.put("/pairs/a", b"new", headers=RAW)  # mapped to a key that is not live: insert and map
    assert answer.status == 200 and answer.json()["key"] != key
    assert client.read(answer.json()["key"]) == b"new"
    assert exact(client, b"b").json()["key"] == key
    client.map(b"c", 2**40)
    assert client.upsert(b"c", b"z") < 2**40


def test_upsert_of_an_empty_or_too_large_value(client):
    assert client.put("/pairs/p", b"", headers=RAW).code == "empty_value"
    assert client.put("/pairs/p", json_body={"value": ""}).code == "empty_value"
    answer = client.put("/pairs/p", bytes((1 << 24) + 1), headers=RAW)
    assert answer.status == 413 and answer.code == "value_too_large"
    assert exact(client, b"p").status == 404


def test_exact(client):
    client.upsert(b"ctx:ab", b"v")
    assert exact(client, b"ctx:a").code == "pair_not_found"
    assert exact(client, b"ctx:abc").status == 404
    assert exact(client, b"ctx:ab", values="true").json()["value"] == b64(b"v")
    assert set(exact(client, b"ctx:ab", values="false").json()) == {"pair", "key"}


def test_unmap(client):
    key = client.upsert(b"a", b"v")
    answer = client.delete("/pairs/a")
    assert answer.status == 204 and answer.body == b""
    assert exact(client, b"a").status == 404 and client.read(key) == b"v"
    assert client.delete("/pairs/a").code == "pair_not_found"


def test_unmap_with_the_value(client):
    key = client.upsert(b"a", b"v")
    assert client.delete("/pairs/a", values="true").status == 204
    assert client.read(key) is None
    client.map(b"b", 12345)
    assert client.delete("/pairs/b", values="true").status == 204
    assert client.delete("/pairs/b", values="true").code == "pair_not_found"


def test_unmap_leaves_what_lies_below(client):
    for pair in (b"a", b"ab", b"abc"):
        client.upsert(pair, pair)
    client.delete("/pairs/ab")
    assert [pair for pair, _ in client.scan()] == [b"a", b"abc"]


def test_delete_a_namespace(client):
    keys = {pair: client.upsert(pair, pair) for pair in (b"a", b"ns:", b"ns:1", b"ns:2", b"ns;", b"n")}
    client.map(b"ns:dangling", 2**40)
    answer = client.delete("/pairs/ns:", recursive="true")
    assert answer.status == 200 and answer.json() == {"pairs_deleted": 4, "values_deleted": 0}
    assert [pair for pair, _ in client.scan()] == [b"a", b"n", b"ns;"]
    assert client.read(keys[b"ns:1"]) == b"ns:1"
    assert client.delete("/pairs/ns:", recursive="true").json() == {"pairs_deleted": 0, "values_deleted": 0}


def test_delete_a_namespace_with_values(client):
    keys = [client.upsert(b"ns:%d" % i, b"v") for i in range(100)]
    shared = client.insert(b"shared")
    client.map(b"ns:x", shared)
    client.map(b"ns:y", shared)
    client.map(b"ns:z", 2**40)
    keep = client.upsert(b"other", b"v")
    answer = client.delete("/pairs/ns:", recursive="true", values="true")
    assert answer.json() == {"pairs_deleted": 103, "values_deleted": 101}
    assert all(client.read(key) is None for key in keys + [shared])
    assert client.read(keep) == b"v" and client.scan() == [(b"other", keep)]


def test_delete_everything_must_say_so(client):
    client.upsert(b"a", b"v")
    answer = client.delete("/pairs/", recursive="true")
    assert answer.status == 400 and answer.code == "invalid_pair"
    assert client.delete("/pairs/*").code == "invalid_pair", "an empty pair"
    assert len(client.scan()) == 1
    answer = client.delete("/pairs/*", recursive="true", values="true")
    assert answer.json() == {"pairs_deleted": 1, "values_deleted": 1} and client.scan() == []


def test_empty_and_too_long_pairs(client):
    for path in ("/pairs/*", "/pairs/%2A", "/pairs/"):
        for answer in (client.put(path, b"v", headers=RAW), client.put(path, json_body={"key": 1}), client.delete(path),
                       client.get(path, exact="true")):
            assert answer.status == 400 and answer.code == "invalid_pair", path
    for pair in (b"a" * 4097, b"b" * 5000):
        for path in ("/pairs/" + pair.decode(), "/pairs/" + hexed(pair)):
            for answer in (client.put(path, b"v", headers=RAW), client.delete(path), client.get(path, exact="true")):
                assert answer.status == 400 and answer.code == "invalid_pair"
    assert client.scan() == []


def test_a_pair_of_4096_bytes(client):
    pair = random.Random(1).randbytes(4096)
    key = client.upsert(pair, b"v")
    assert client.scan() == [(pair, key)]
    assert client.get("/pairs/" + hexed(pair), exact="true").json()["key"] == key


@pytest.mark.parametrize("way", [hexed, escaped])
def test_any_bytes(client, way):
    for i, pair in enumerate(NASTY):
        answer = client.put("/pairs/" + way(pair), json_body={"key": i + 1})
        assert unb64(answer.json()["pair"]) == pair
    expected = {pair: i + 1 for i, pair in enumerate(NASTY)}
    assert client.scan() == sorted(expected.items())
    for pair, key in expected.items():
        assert client.get("/pairs/" + way(pair), exact="true").json() == {"pair": b64(pair), "key": key}


@pytest.mark.parametrize("text,pair", [("ctx:", b"ctx:"), ("x6374783a", b"ctx:"), ("x6374783A", b"ctx:"), ("x", b"x"), ("%78", b"x"),
                                       ("%786374", b"ct"), ("a/b", b"a/b"), ("a%2Fb", b"a/b"), ("a%2fb/c", b"a/b/c"),
                                       ("a//b", b"a//b"), ("a/", b"a/"), ("%00", b"\0"), ("a%00b", b"a\0b"), ("../kv/1", b"../kv/1"),
                                       ("./a", b"./a"), ("a/../b", b"a/../b"), ("a+b", b"a+b"), ("a%2Bb", b"a+b"), ("a%20b", b"a b"),
                                       ("**", b"**"), ("*a", b"*a"), ("x2a", b"*"), ("%25", b"%"), ("%2541", b"%41"),
                                       ("%FF%fe", b"\xff\xfe"), ("a=b&c", b"a=b&c"), ("a%3Fb", b"a?b"), ("X41", b"X41"), ("/", b"/"),
                                       ("//", b"//"), ("%2F", b"/"), ("a;b", b"a;b"), ("x00", b"\0"), ("x" + "61" * 4096, b"a" * 4096)])
def test_how_a_text_is_read(client, text, pair):
    answer = client.put("/pairs/" + text, json_body={"key": 7})
    assert answer.status == 201 and unb64(answer.json()["pair"]) == pair
    assert client.scan() == [(pair, 7)]
    assert client.get("/pairs/" + text, exact="true").json()["key"] == 7
    assert client.delete("/pairs/" + text).status == 204


@pytest.mark.parametrize("text", ["x1", "xg0", "xx", "x637", "x63 7", "x6374783", "x0x1", "xyz", "x%00%00", "x*", "%78%7a"])
def test_invalid_hex(client, text):
    text = text.replace(" ", "%20")
    for answer in (client.get("/pairs/" + text), client.put("/pairs/" + text, json_body={"key": 1}), client.delete("/pairs/" + text),
                   client.get("/pairs/a?after=" + text), client.get("/pairs/a?until=" + text)):
        assert answer.status == 400 and answer.code == "invalid_hex", text


@pytest.mark.parametrize("text", ["%", "%4", "%zz", "a%", "a%4", "%4g", "%%41", "a%-1b"])
def test_malformed_escapes(client, text):
    for answer in (client.get("/pairs/" + text), client.put("/pairs/" + text, json_body={"key": 1}), client.delete("/pairs/" + text),
                   client.get("/pairs/a?after=" + text), client.get("/kv?limit=" + text)):
        assert answer.status == 400 and answer.code == "invalid_encoding", text


@pytest.mark.parametrize("params", [{"exact": "maybe"}, {"values": "2"}, {"count": "x"}, {"reverse": "-1"}, {"limit": "0"},
                                    {"limit": "1.5"}, {"limit": "-5"}])
def test_bad_values_of_parameters(client, params):
    answer = client.get("/pairs/a", **params)
    assert answer.status == 400 and answer.code == "invalid_parameter"


def test_unknown_parameters(client):
    client.map(b"a", 1)
    assert client.get("/pairs/a", foo="1").code == "unknown_parameter"
    assert client.put("/pairs/a", b"v", headers=RAW, values="true").code == "unknown_parameter"
    assert client.delete("/pairs/a", limit="1").code == "unknown_parameter"
    assert client.get("/pairs/a", exact="true").json()["key"] == 1


def test_unknown_database(server, name):
    client = server.client(db=name)
    for answer in (client.get("/pairs/a"), client.get("/pairs/a", exact="true"), client.get("/pairs/a", count="true"),
                   client.get("/kv/1"), client.get("/kv"), client.get("/kv", keys="1"), client.get("/reduce/counts/a")):
        assert answer.status == 404 and answer.code == "database_not_found"
    assert name not in client.get("/databases").json()["databases"], "a read must not create it"


def test_a_write_creates_the_database(server, name):
    client = server.client(db=name)
    assert client.upsert(b"a", b"v") > 0
    assert name in client.get("/databases").json()["databases"]
    client.delete("/databases/" + name, confirm=name)


def test_parameters_may_be_repeated_by_nobody(client):
    answer = client.get("/pairs/a?limit=1&limit=2&db=" + client.db)
    assert answer.status in (200, 400)  # either is fine; it must not hurt
