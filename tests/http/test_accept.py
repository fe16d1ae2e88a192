"""Raw bytes or JSON: the Accept header, with its q-values, on values by key and by name."""
import os

import pytest
from harness import b64, damage, hexed

BYTES = {"Accept": "application/octet-stream"}
CASES = [(None, False), ("*/*", False), ("application/json", False), ("application/octet-stream", True), ("APPLICATION/Octet-Stream", True), ("application/*", False),
         ("application/octet-stream, application/json", True), ("application/json, application/octet-stream", True), ("application/octet-stream, */*", True),
         ("application/octet-stream;q=0.5, application/json", False), ("application/json;q=0.5,application/octet-stream", True),
         ("application/octet-stream;q=0.5, application/json;q=0.4", True), ("application/octet-stream;q=0.001", True), ("application/octet-stream;q=0", False),
         ("application/octet-stream;q=0, */*", False), ("application/json;q=0, */*", True), ("application/json;q=0.1, application/*;q=0.2", True),
         ("*/*;q=0.9, application/octet-stream;q=0.8", False), ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
         ("application/octet-stream ; Q=1.000 , application/json ; q=0.999", True), ('application/octet-stream;v="a,b;q=0";q=0.5, application/json;q=0.4', True),
         ("application/octet-streams", False), ("x-application/octet-stream", False), ("application/octet-stream;q=2, application/json", False),
         ("application/octet-stream;q=", False), ("application/octet-stream;q=0.5x", False), ("", False), (",,;;,", False), ('"', False), ("text/plain", False)]


@pytest.mark.parametrize("accept,raw", CASES)
def test_which(client, accept, raw):
    key = client.upsert(b"name", b"\x00value\xff")
    headers = {} if accept is None else {"Accept": accept}
    for path, params in (("/kv/%d" % key, {}), ("/pairs/name", {"exact": "true"}), ("/pairs/name", {"exact": "true", "values": "true"})):
        answer = client.get(path, headers=headers, **params)
        assert answer.status == 200
        if raw:
            assert answer.headers["Content-Type"] == "application/octet-stream" and answer.body == b"\x00value\xff"
        else:
            assert answer.headers["Content-Type"] == "application/json" and answer.json()["key"] == key


def test_bytes_by_name(client):
    for name, value in ((b"a", b"a"), (b"long", os.urandom(3 << 20)), (b"x\x00/", b"\r\n\r\n"), (b"x" * 4096, b"{}")):
        key = client.upsert(name, value)
        answer = client.get("/pairs/" + hexed(name), headers=BYTES, exact="true")
        assert answer.body == value and answer.headers["Cheetah-Key"] == str(key)
        head = client.head("/pairs/" + hexed(name), headers=BYTES, exact="true")
        assert head.status == 200 and head.headers["Cheetah-Key"] == str(key) and head.headers["Content-Length"] == str(len(value))
    answer = client.get("/pairs/none", headers=BYTES, exact="true")
    assert answer.status == 404 and answer.code == "pair_not_found"
    client.map(b"dangling", 4711)
    answer = client.get("/pairs/dangling", headers=BYTES, exact="true")
    assert answer.status == 404 and answer.code == "key_not_found" and "4711" in answer.json()["detail"]


def test_caches_are_told(client):
    """One tag for both: a cache that was not told would give the one for the other once it has heard 304."""
    for name, value, more in ((b"short", b"v", []), (b"long", b"v" * 2000, ["Accept-Encoding"])):
        key = client.upsert(name, value)
        for path, params in (("/kv/%d" % key, {}), ("/pairs/" + hexed(name), {"exact": "true"})):
            for _ in range(2):
                for headers in ({}, BYTES):
                    for ask in (client.get, client.head):
                        answer = ask(path, headers=headers, **params)
                        assert answer.headers["Vary"].split(", ") == ["Accept", *(more if int(answer.headers["Content-Length"]) > 1024 else [])], (path, headers)
            tag = answer.headers["ETag"]
            answer = client.get(path, headers={"If-None-Match": tag, **BYTES}, **params)
            assert answer.status == 304 and answer.headers["Vary"] == "Accept, Accept-Encoding"
            assert "Vary" not in client.put(path, b"v" if name == b"short" else b"v" * 2000, headers={"If-Match": tag}).headers
    assert "Vary" not in client.get("/kv/999").headers and "Vary" not in client.get("/pairs/none", exact="true").headers
    for accept, status in (("application/json", 200), ("text/html", 303)):
        answer = client.get("/", headers={"Accept": accept})
        assert answer.status == status and answer.headers["Vary"] == "Accept"


def test_streams_and_counts_are_what_they_were(client):
    client.upsert(b"a", b"a")
    assert client.get("/pairs/*", headers=BYTES).headers["Content-Type"].startswith("application/x-ndjson")
    assert client.get("/pairs/*", headers=BYTES, count="true").json()["pairs"] == 1


def test_a_damaged_value_is_an_error(launch):
    server = launch("--durability", "os", "--shards", "1")
    server.client().upsert(b"bad", b"a value that will be damaged")
    server.stop()
    damage(server.data, b"a value that will be damaged")
    server.restart()
    answer = server.client().get("/pairs/bad", headers=BYTES, exact="true")
    assert answer.status == 500 and answer.code == "corrupt_value" and b64(b"a value")[:8].encode() not in answer.body
