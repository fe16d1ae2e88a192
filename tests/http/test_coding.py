"""Compression: Accept-Encoding of answers and streams, Content-Encoding of bodies."""
import gzip
import json
import os
import random
import threading
import time
import zlib

import harness
import pytest
import zstandard
from harness import b64, ndjson

NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
RAW = {"Content-Type": "application/octet-stream"}


def zstd(data, level=3, **more):
    return zstandard.ZstdCompressor(level=level, **more).compress(data)


def unzstd(data):
    """All frames, which must be whole."""
    out = b""
    while data:
        one = zstandard.ZstdDecompressor().decompressobj()
        out += one.decompress(data)
        data = one.unused_data
    return out


def ungzip(data):
    one = zlib.decompressobj(31)
    out = one.decompress(data)
    assert one.eof and not one.unused_data, "a gzip member that has not ended, or more after it"
    return out


PACK = {"gzip": gzip.compress, "zstd": zstd}
UNPACK = {"gzip": ungzip, "zstd": unzstd, None: lambda data: data}


def ask(client, path, accept, method="GET", **params):
    """The answer with its body decompressed, and the bytes that came."""
    client.checked = False  # the contract is about what comes out
    answer = client.request(method, path, headers={} if accept is None else {"Accept-Encoding": accept}, **params)
    client.checked = True
    came = len(answer.body)
    if method == "GET":
        answer.body = UNPACK[answer.headers.get("Content-Encoding")](answer.body)
        harness.contract().check(method, path, answer.status, answer.headers.get("Content-Type"), answer.body)
    return answer, came


def fill(client, n=3000):
    client.batch([{"op": "pair_put", "pair": b64(b"name:%05d" % i), "value": b64(b"some value, of words, number %d" % i)} for i in range(n)])


CASES = [("zstd, gzip", "zstd"), ("gzip, zstd", "zstd"), ("gzip", "gzip"), ("GZIP", "gzip"), ("x-gzip", "gzip"), ("deflate, gzip;q=1.0, *;q=0.5", "gzip"), ("*", "gzip"),
         ("zstd", "zstd"), ("gzip;q=0.5, zstd;q=0.4", "gzip"), ("gzip;q=0.5,zstd;q=0.6", "zstd"), ("zstd;q=0, gzip;q=0.001", "gzip"), ("gzip, deflate, br, zstd", "zstd"),
         (None, None), ("", None), ("identity", None), ("br, deflate", None), ("gzip;q=0", None), ("*;q=0", None), ("gzip;q=0, *", None), ("identity, gzip;q=0.5", None),
         ("gzip;q=0.5, identity;q=0.5", "gzip"), ("gzipped, zstandard", None), (",,;", None), ("gzip;q=x", None)]


@pytest.mark.parametrize("accept,coding", CASES, ids=[repr(c[0]) for c in CASES])
def test_which(client, accept, coding):
    fill(client, 300)
    plain = client.get("/pairs/*", values="true").body
    answer, came = ask(client, "/pairs/*", accept, values="true")
    assert answer.headers.get("Content-Encoding") == coding and answer.body == plain and answer.headers["Vary"] == "Accept-Encoding"
    assert came < len(plain) / 3 if coding else came == len(plain)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_everything(client, coding):
    """Streams of all kinds and whole answers: the same bytes come out."""
    fill(client)
    text = b"a sentence with some words. " * 4000
    key = client.upsert(b"long", text)
    client.upsert(b"longer", os.urandom(40000) + text * 4)  # shown in pieces
    paths = [("/pairs/*", {}), ("/pairs/*", {"values": "true"}), ("/pairs/*", {"values": "true", "text": "true"}), ("/kv", {}), ("/reduce/payloads/*", {}),
             ("/kv", {"keys": ",".join(str(k) for k in range(1, 500))}), ("/pairs/long", {"exact": "true", "values": "true"}), ("/kv/%d" % key, {}),
             ("/pairs/name:", {"children": "true", "separator": "9"}), ("/pairs/name:", {"reverse": "true"})]
    for path, params in paths:
        plain = client.get(path, **params)
        answer, came = ask(client, path, coding, **params)
        assert answer.headers["Content-Encoding"] == coding and answer.headers["Content-Type"] == plain.headers["Content-Type"], path
        assert answer.body == plain.body and came < len(plain.body) * 0.7, (path, came, len(plain.body))
    client.checked = False
    answer = client.get("/kv/%d" % key, headers={"Accept-Encoding": coding, "Accept": "application/octet-stream"})
    assert UNPACK[coding](answer.body) == text and answer.headers["Content-Type"] == "application/octet-stream"
    assert int(answer.headers["Content-Length"]) == len(answer.body) < 2000
    for path in ("/openapi.yaml", "/metrics"):
        answer = client.get(path, headers={"Accept-Encoding": coding})
        assert answer.headers["Content-Encoding"] == coding and len(UNPACK[coding](answer.body)) > 2 * len(answer.body), path
    batch = ndjson([{"op": "read", "key": key}] * 20)
    answer = client.post("/batch", batch, headers={**NDJSON, "Accept-Encoding": coding})
    assert UNPACK[coding](answer.body) == client.post("/batch", batch, headers=NDJSON).body
    answer = client.post("/pairs", json_body={"names": ["name:%05d" % i for i in range(3000)]}, headers={"Accept-Encoding": coding})
    assert answer.headers["Content-Encoding"] == coding and UNPACK[coding](answer.body).count(b"\n") == 3001


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_what_is_small_or_does_not_pay_is_left_as_it_is(client, coding):
    key = client.upsert(b"name", b"value")
    noise = client.upsert(b"noise", os.urandom(5000))
    for path, params in (("/pairs/*", {"limit": "1"}), ("/pairs/name", {"exact": "true"}), ("/kv/%d" % key, {}), ("/kv", {"size": "5"}), ("/pairs/*", {"count": "true"}),
                         ("/pairs/none", {}), ("/pairs/none", {"exact": "true"}), ("/healthz", {}), ("/reduce/stats/*", {}), ("/nothing", {})):
        answer, _ = ask(client, path, coding, **params)
        plain = client.get(path, **params)
        streams = answer.headers["Content-Type"].startswith("application/x-ndjson")  # an aggregate may say how far it is
        assert "Content-Encoding" not in answer.headers and (answer.lines() == plain.lines() if streams else answer.body == plain.body), path
    client.checked = False
    answer = client.get("/kv/%d" % noise, headers={"Accept-Encoding": coding, "Accept": "application/octet-stream"})
    assert "Content-Encoding" not in answer.headers and len(answer.body) == 5000 and answer.headers["Vary"] == "Accept, Accept-Encoding"


def test_head(client):
    """As GET, but for what is known of a stream only when it has been made."""
    fill(client, 300)
    key = client.upsert(b"long", b"text " * 1000)
    for coding in ("gzip", "zstd"):
        headers = {"Accept-Encoding": coding}
        get, head = client.request("GET", "/openapi.yaml", headers=headers), client.head("/openapi.yaml", headers=headers)
        assert [head.headers.get(name) for name in ("Content-Encoding", "Content-Length", "Vary")] == [get.headers.get(name) for name in ("Content-Encoding", "Content-Length", "Vary")]
        assert client.head("/kv/%d" % key, headers=headers).headers["Content-Encoding"] == coding
        assert client.head("/pairs/*", headers=headers).headers["Vary"] == "Accept-Encoding"
    assert client.head("/kv/%d" % client.upsert(b"s", b"s")).headers["Vary"] == "Accept" and client.head("/pairs/*").headers["Vary"] == "Accept-Encoding"


class Slow:
    """A client that reads a stream as it comes, decompressed."""

    def __init__(self, server, target, coding, method="GET"):
        self.raw = server.raw(receive_buffer=4096)
        self.raw.send("%s %s HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: %s\r\n\r\n" % (method, target, coding))
        status, headers = self.raw.head()
        assert status == 200 and headers["content-encoding"] == coding and headers["transfer-encoding"] == "chunked"
        self.decoder = zlib.decompressobj(31) if coding == "gzip" else zstandard.ZstdDecompressor().decompressobj()

    def chunk(self):
        """What can be read of the next chunk; None after the last."""
        data = self.raw.chunk()
        return self.decoder.decompress(data) if data else None

    def rest(self):
        return b"".join(iter(self.chunk, None))


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_slow_stream_arrives_line_by_line(launch, coding):
    """Smoothing says how far it is every half second: each line can be read when it comes, not when a block is full."""
    server = launch("--durability", "os", "--shards", "1")
    client = server.client()
    words = random.Random(1)
    documents = [{"tokens": [words.randrange(40000) for _ in range(200)]} for _ in range(600 if not harness.SANITIZED else 150)]
    assert client.post("/ngrams?order=3", ndjson(documents), headers=NDJSON).status == 200
    for _ in range(10):  # a thread that waits for a processor sends several lines at a time
        slow = Slow(server, "/reduce/smooth/cnt:?orders=1-3", coding, "POST")
        start, text, chunks = time.monotonic(), b"", 0
        while True:
            got = slow.chunk()
            if got is None:
                break
            text += got
            assert text.endswith(b"\n"), "what came can be read to the end of a line"
            chunks += 1
        lines = [json.loads(line) for line in text.splitlines()]
        assert "end" in lines[-1] and [line["order"] for line in lines if "order" in line] == [1, 2, 3]
        slow.raw.close()
        if chunks > 1 or time.monotonic() - start < 1.5:
            return
    raise AssertionError("all %d lines came at once, after a second and a half, each time" % len(lines))


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_reader_that_is_slow_or_goes_away(launch, coding):
    """Back-pressure holds through the compressor, the rest is whole, and who goes leaves nothing."""
    server = launch("--durability", "os", "--shards", "2", "--idle-timeout", "3600")
    client = server.client()
    noise = os.urandom(30000)
    client.batch([{"op": "pair_put", "pair": b64(b"%05d" % i), "value": b64(noise[i:i + 20000])} for i in range(1500)])
    before = server.rss()
    slow = [Slow(server, "/pairs/*?values=true", coding) for _ in range(4)]
    time.sleep(0.5)
    if not harness.SANITIZED:
        assert server.rss() - before < 80 << 20, "of 160 MB no more than some megabytes a stream are held"
    for gone in slow[1:]:
        gone.raw.close()
    plain = client.get("/pairs/*", values="true").body
    got = slow[0].rest() if coding == "zstd" else slow[0].chunk() + slow[0].chunk()
    assert got == plain if coding == "zstd" else plain.startswith(got)
    slow[0].raw.close()
    harness.wait_for(lambda: server.metric("cheetah_streams_open") == 0, what="streams that nobody reads are ended")


def test_many_at_once(server, client):
    """Streams of several clients, compressed and not, at the same time."""
    fill(client)
    plain, errors = client.get("/pairs/*", values="true").body, []

    def run(coding):
        try:
            one = server.client(db=client.db)
            for _ in range(6):
                answer, _ = ask(one, "/pairs/*", coding, values="true")
                assert answer.body == plain
        except Exception as error:  # shown below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(coding,)) for coding in ("gzip", "zstd", "zstd", None, "gzip", "zstd")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not errors


def test_a_stream_that_is_cut_off_has_no_end(launch):
    """A database that is dropped: the error is the last line, and what was compressed is whole."""
    server = launch("--durability", "os", "--shards", "1")
    client = server.client()
    client.put("/databases/gone")
    gone = server.client(db="gone")
    gone.batch([{"op": "pair_put", "pair": b64(b"%05d" % i), "value": b64(os.urandom(15000))} for i in range(1500)])
    slow = Slow(server, "/pairs/*?values=true&db=gone", "zstd")
    first = slow.chunk()
    assert client.delete("/databases/gone?confirm=gone").status == 204  # while nothing is read: it is longer than what sockets hold
    text = first + slow.rest()
    last = json.loads(text.splitlines()[-1])
    assert last.get("error", {}).get("code") == "database_dropped"


def test_metrics(launch):
    server = launch("--durability", "os")
    client = server.client()
    fill(client, 1000)
    answer, came = ask(client, "/pairs/*", "zstd", values="true")
    body = zstd(ndjson([{"op": "read", "key": 1}] * 1000))
    client.checked = False
    assert client.post("/batch", body, headers={**NDJSON, "Content-Encoding": "zstd"}).status == 200
    assert server.comes_to("cheetah_compressed_answers_total", 1)
    assert server.comes_to("cheetah_compressed_answers_plain_bytes_total", len(answer.body)) and server.comes_to("cheetah_compressed_answers_bytes_total", came)
    assert server.comes_to("cheetah_compressed_bodies_bytes_total", len(body)) and server.comes_to("cheetah_compressed_bodies_plain_bytes_total", 22000)


# ---- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies(client, coding, chunked):
    """Each call that takes a body takes it compressed: nothing else is different."""
    pack = PACK[coding]
    headers = lambda kind: {**kind, "Content-Encoding": coding}
    value = os.urandom(70000) + b"x" * 70000
    for content in (value, b"v", b"text " * 100000):
        key = client.post("/kv", pack(content), headers=headers(RAW), chunked=chunked).json()["key"]
        assert client.get("/kv/%d" % key, headers={"Accept": "application/octet-stream"}).body == content
    assert client.put("/kv/%d" % key, pack(json.dumps({"value": b64(value)}).encode()), headers=headers(JSON), chunked=chunked).json() == {"key": key, "size": len(value)}
    assert client.put("/pairs/name", pack(value), headers=headers(RAW), chunked=chunked).status == 201
    assert client.get("/pairs/name", exact="true", headers={"Accept": "application/octet-stream"}).body == value
    assert client.put("/pairs/name", pack(b'{"key":7}'), headers=headers(JSON), chunked=chunked).json()["key"] == 7
    assert client.post("/pairs", pack(b'{"names":["name"]}'), headers=headers(JSON), chunked=chunked).entries()[0]["key"] == 7
    operations = ndjson([{"op": "pair_put", "pair": b64(b"%d" % i), "value": b64(b"v%d" % i)} for i in range(20000)])
    answer = client.post("/batch", pack(operations), headers=headers(NDJSON), chunked=chunked, results="false")
    assert answer.end == {"count": 20000, "failed": 0} and client.get("/pairs/*", count="true").json()["pairs"] == 20001
    documents = ndjson([{"tokens": [2, 11, 12 + i % 7, 3]} for i in range(3000)])
    assert client.post("/ngrams", pack(documents), headers=headers(NDJSON), chunked=chunked, order=2).json()["documents"] == 3000
    assert client.post("/reduce/smooth/cnt:", orders="1-2").status == 200
    for path in ("/score", "/predict"):
        assert client.post(path, pack(b'{"tokens":[2,11,12]}'), headers=headers(JSON), chunked=chunked).status == 200


def test_several_members_and_frames(client):
    """gzip members and zstd frames one after the other are one body; so are skippable frames."""
    for coding, pack in PACK.items():
        parts = [b"one ", b"two ", os.urandom(100000), b"three"]
        body = b"".join(pack(part) for part in parts)
        if coding == "zstd":
            body = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + body
        key = client.post("/kv", body, headers={**RAW, "Content-Encoding": coding}).json()["key"]
        assert client.get("/kv/%d" % key, headers={"Accept": "application/octet-stream"}).body == b"".join(parts)


def test_byte_by_byte(server, client):
    """However the body is cut up."""
    content = ndjson([{"op": "pair_put", "pair": b64(b"%d" % i), "value": b64(b"v%d" % i)} for i in range(300)])
    for coding, pack in PACK.items():
        body, raw = pack(content), server.raw()
        raw.send(b"POST /batch?db=%s&results=false HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (
            client.db.encode(), coding.encode(), len(body)))
        for i in range(len(body)):
            raw.send(body[i:i + 1])
        answer = raw.answer()
        assert answer.status == 200 and answer.end == {"count": 300, "failed": 0}
        raw.close()


@pytest.mark.parametrize("header", ["br", "deflate", "gzip, zstd", "gzip,gzip", "compress", "zstd;q=1", "zst"])
def test_an_unknown_coding_is_refused_before_anything_is_done(client, header):
    for method, path, body in (("POST", "/batch", ndjson([{"op": "insert", "value": b64(b"v")}])), ("POST", "/kv", b"v"), ("PUT", "/pairs/name", b"v"),
                               ("POST", "/ngrams", ndjson([{"tokens": [1, 2]}])), ("POST", "/pairs", b'{"names":["a"]}'), ("POST", "/score", b'{"tokens":[1]}')):
        for chunked in (False, True):
            answer = client.request(method, path, body, headers={**RAW, "Content-Encoding": header}, chunked=chunked)
            assert (answer.status, answer.code) == (415, "unsupported_content_coding"), (path, header)
            assert answer.headers["Accept-Encoding"] == "zstd, gzip"
    assert client.get("/kv").entries() == [] and client.get("/pairs/*", count="true").json()["pairs"] == 0
    assert client.post("/kv", b"v", headers={**RAW, "Content-Encoding": "identity"}).status == 201
    assert client.post("/kv", b"v", headers={**RAW, "Content-Encoding": ""}).status == 201


STREAMS = ("/kv", "/kv?keys=1,2", "/pairs/*", "/pairs/*?values=true&etags=true", "/pairs/*?children=true", "/reduce/counts/cnt:", "/reduce/topk/topk:?decode=true&text=true",
           "/reduce/payloads/*", "/reduce/queue-drain/*", "/reduce/stats/*", "/reduce/totals/cnt:", "/reduce/counts-of-counts/cnt:", "/reduce/links/*", "/reduce/matrix/*",
           "/reduce/associations/4", "/vocabulary", "/changes/*?after=now&wait=60", "/arpa", "/openapi.yaml", "/metrics", "/databases/default/backup")


@pytest.mark.parametrize("path", STREAMS)
def test_head_of_all_that_is_compressed(client, path):
    """Answered at once, and the server goes on: a stream that HEAD has not begun was looked into."""
    client.put("/databases/" + client.db, json_body={"live": {"order": 2, "bos": 2, "eos": 3}})
    client.post("/ngrams", ndjson([{"text": "to be or not to be"}]), headers=NDJSON, text="true")
    plain = client.request("HEAD", path)
    for accept in ("gzip", "zstd", "zstd, gzip", "*"):
        answer = client.request("HEAD", path, headers={"Accept-Encoding": accept})
        assert answer.status == plain.status in (200, 404) and answer.headers["Content-Type"] == plain.headers["Content-Type"], (accept, answer)
        assert answer.headers.get("Vary") == plain.headers.get("Vary")
    assert client.get("/healthz").status == 200


def test_codings_in_two_headers_are_two(server, client):
    """A list may stand in several headers (RFC 9110, 5.3): a body that was compressed twice is not taken half decoded."""
    body = gzip.compress(gzip.compress(b"value"))
    for lines in (("gzip", "gzip"), ("identity", "gzip"), ("gzip", "br")):
        with server.raw() as raw:
            head = "".join("Content-Encoding: %s\r\n" % line for line in lines)
            raw.send("POST /kv?db=%s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n" % (client.db, head, len(body))).send(body)
            answer = raw.answer()
            assert (answer.status, answer.code) == (415, "unsupported_content_coding"), lines
    assert client.get("/kv").entries() == []


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_damaged_bodies(client, coding):
    """Cut off, with other bytes, with more after the end, or something else altogether: 400, nothing stored."""
    whole = PACK[coding](ndjson([{"op": "insert", "value": b64(os.urandom(30))} for _ in range(50)]))
    bad = [whole[:n] for n in (1, 3, 10, len(whole) // 2, len(whole) - 1)] + [whole + b"x", whole + whole[:7], b"no such thing", b"\x00" * 100, PACK["zstd" if coding == "gzip" else "gzip"](b"x")]
    if coding == "gzip":
        flipped = bytearray(whole)
        flipped[-6] ^= 1  # of its checksum
        bad.append(bytes(flipped))
    for body in bad:
        for path, kind in (("/kv", RAW), ("/batch?atomic=true", NDJSON)):
            for chunked in (False, True):
                answer = client.post(path, body, headers={**kind, "Content-Encoding": coding}, chunked=chunked)
                assert (answer.status, answer.code) == (400, "invalid_content_coding"), (path, body[:20], answer)
    assert client.get("/kv").entries() == []
    assert client.post("/kv", b"", headers={**RAW, "Content-Encoding": coding}).code == "empty_value"
    assert client.post("/kv", PACK[coding](b""), headers={**RAW, "Content-Encoding": coding}).code == "empty_value"
    assert client.post("/kv", b"", headers={**RAW, "Content-Encoding": coding}, chunked=True).code == "invalid_content_coding"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_bombs(launch, coding):
    """The limits are of what comes out; what a small body expands to is neither held nor made beyond them, and other clients are served."""
    server = launch("--durability", "os", "--max-value-size", "4M", "--max-batch-bytes", "16M", "--http-threads", "1")
    client, other = server.client(), server.client()
    limit = 4 << 20
    for size, status in ((limit, 201), (limit + 1, 413), (3 << 30 if coding == "zstd" else 300 << 20, 413)):
        if size > 1 << 25:
            one = zstandard.ZstdCompressor(level=3).compressobj() if coding == "zstd" else zlib.compressobj(9, zlib.DEFLATED, 31)
            zeros = bytes(1 << 20)
            body = b"".join(one.compress(zeros) for _ in range(size >> 20)) + one.flush()
        else:
            body = PACK[coding](bytes(size))
        rss = server.rss()
        answer = client.post("/kv", body, headers={**RAW, "Content-Encoding": coding})
        assert answer.status == status and (status == 201 or answer.code == "value_too_large"), (size, answer)
        assert harness.SANITIZED or server.rss() - rss < 64 << 20
        assert other.get("/kv", limit=1).status == 200
    lines = b'{"op":"read","key":1}\n' * (30 << 20 >> 5)  # 20 MB, a line each 22 bytes
    answer = client.post("/batch", PACK[coding](lines), headers={**NDJSON, "Content-Encoding": coding})
    assert answer.status == 413 and answer.code == "batch_too_large"
    blanks = PACK[coding](b"\n" * (15 << 20))
    assert client.post("/batch", blanks, headers={**NDJSON, "Content-Encoding": coding}).end == {"count": 0, "failed": 0}


def test_a_window_of_more_than_eight_megabytes_is_refused(client):
    """RFC 8878: a decoder need not hold more, and ours does not, whoever asks."""
    small = zstandard.ZstdCompressionParameters.from_level(19, window_log=23)
    large = zstandard.ZstdCompressionParameters.from_level(19, window_log=27)
    content = os.urandom(2000)
    for parameters, status in ((small, 201), (large, 400)):
        one = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # of unknown length, so that the window counts
        body = one.compress(content) + one.flush()
        answer = client.post("/kv", body, headers={**RAW, "Content-Encoding": "zstd"})
        assert answer.status == status and (status == 201 or answer.code == "invalid_content_coding"), answer


def test_memory_of_bodies_is_booked(launch):
    """A body that expands beyond what one request may take is 413 while it expands."""
    server = launch("--durability", "os", "--request-memory-bytes", "16M", "--max-value-size", "64M")
    client = server.client()
    for coding in PACK:
        answer = client.post("/kv", PACK[coding](bytes(32 << 20)), headers={**RAW, "Content-Encoding": coding})
        assert (answer.status, answer.code) == (413, "request_too_large"), answer
    assert server.comes_to("cheetah_request_memory_bytes", 0)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_model_that_is_read_in_pieces(client, coding, chunked):
    """POST /arpa gives pieces of a megabyte to jobs while its body comes in: what is decoded meanwhile waits, and comes in its order."""
    words = 160000
    text = ("\\data\\\nngram 1=%d\n\n\\1-grams:\n-2\t<unk>\n0\t<s>\n-2\t</s>\n" % (words + 3)).encode()
    text += b"".join(b"-%d.%d\t%d\n" % (1 + i % 5, i, i + 10) for i in range(words)) + b"\n\\end\\\n"
    plain = client.post("/arpa", text, headers={"Content-Type": "text/plain"})
    assert plain.status == 201
    assert len(text) > 2 << 20, "several pieces"
    other = client.server.client(db=client.db + "-packed")
    answer = other.post("/arpa", PACK[coding](text), headers={"Content-Type": "text/plain", "Content-Encoding": coding}, chunked=chunked)
    assert answer.status == 201, answer
    assert other.get("/arpa").body == client.get("/arpa").body
    assert other.post("/arpa", PACK[coding](text)[:-9], headers={"Content-Encoding": coding}, db=client.db + "-cut").code == "invalid_content_coding"
    assert client.get("/arpa?db=%s-cut" % client.db).status in (404, 409)
    client.delete("/databases/%s-packed" % client.db, confirm=client.db + "-packed")
