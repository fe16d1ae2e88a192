"""POST /arpa: models in ARPA format that are read in while they come in. What is taken and what is refused is looked at in tests/unit/test_fm.c, line
by line; here is the call: the body in pieces, clients that go, databases that are dropped half way, memory, and what answers afterwards."""
import contextlib
import gzip
import json
import pathlib
import random
import socket
import threading

import pytest
from harness import HANG, ndjson, wait_for

DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "live"
NDJSON = {"Content-Type": "application/x-ndjson"}
GOOD = (
    "\\data\\\nngram 1=5\nngram 2=3\nngram 3=1\n\n\\1-grams:\n-1\t<unk>\t0\n0\t<s>\t-0.5\n-0.5\t</s>\t0\n-0.75\t11\t-0.25\n-1.25\t12\t-0.5\n\n\\2-grams:\n"
    "-0.25\t<s> 11\t-0.125\n-0.5\t11 12\t0\n-0.5\t12 </s>\t0\n\n\\3-grams:\n-0.125\t<s> 11 12\n\n\\end\\\n"
)


def read_in(client, text, status=201, **params):
    answer = client.post("/arpa", text if isinstance(text, bytes) else text.encode(), headers={"Content-Type": "text/plain"}, **params)
    assert answer.status == status, answer
    return answer


def fixed_of(client, db):
    return client.get("/databases/" + db).json().get("fixed")


def fixed(client):
    return fixed_of(client, client.db)


def large(words, rng):
    """A model of order 2 of about 30 bytes a word and 60 for what follows it, its n-grams in no order."""
    pairs = [(w, rng.randrange(words)) for w in range(words) for _ in range(3)]
    pairs = sorted(set(pairs), key=lambda p: rng.random())
    yield "\\data\\\nngram 1=%d\nngram 2=%d\n\n\\1-grams:\n-2\t<unk>\n0\t<s>\t-1\n-2\t</s>\n" % (words + 3, len(pairs))
    for w in sorted(range(words), key=lambda w: rng.random()):
        yield "%.6f\t%d\t%.6f\n" % (-rng.random() * 6, w + 10, -rng.random())
    yield "\n\\2-grams:\n"
    for a, b in pairs:
        yield "%.6f\t%d %d\n" % (-rng.random() * 6, a + 10, b + 10)
    yield "\n\\end\\\n"


def test_answers_come_from_it(client):
    read = read_in(client, GOOD).json()
    assert read == {"order": 3, "bos": 2, "eos": 3, "unk": 4294967295, "ngrams": [5, 3, 1], "lines": 21, "warnings": []}
    assert fixed(client) == {"order": 3, "bos": 2, "eos": 3, "unk": 4294967295, "ngrams": [5, 3, 1], "making": False}
    assert client.get("/arpa").body.decode() == GOOD
    score = client.post("/score", json_body={"tokens": [2, 11, 12, 99, 12, 3]}).json()
    assert score["per_token"] == [-0.25, -0.125, -1.5, -1.25, -0.5] and score["orders"] == [2, 3, 0, 1, 2] and score["oov"] == 1
    assert score["perplexity"] == pytest.approx(10 ** (2.125 / 4)) and score["perplexity_with_oov"] == pytest.approx(10 ** (3.625 / 5))
    assert client.post("/score", json_body={"tokens": [11, 12], "bos": False, "mode": "live"}).json()["per_token"] == [-0.75, -0.5]
    answer = client.post("/predict", json_body={"tokens": [2, 11], "k": 9}).json()
    assert [(c["token"], c["log10"], c["order"]) for c in answer["candidates"]] == [(12, -0.125, 3), (3, -0.875, 1), (11, -1.125, 1)]
    assert answer["unknown"] == pytest.approx(10**-1.375) and answer["order"] == 3
    levels = client.post("/predict", json_body={"tokens": [2, 11], "mode": "levels"})
    assert [line.get("order") for line in map(json.loads, levels.body.splitlines())] == [3, 2, 1, None]
    many = client.post("/score", ndjson([{"tokens": [11]}, {"tokens": [12, 3]}]), headers=NDJSON)
    assert [json.loads(line).get("per_token") for line in many.body.splitlines()] == [[-0.25], [-1.75, -0.5], None]
    # Nothing is counted into it, and no other model takes its place.
    assert client.post("/ngrams", b'{"tokens":[2,11,12]}\n', headers=NDJSON).code == "fixed_model"
    assert client.put("/databases/" + client.db, json_body={"live": {"order": 3, "bos": 2}}).code == "fixed_model"
    assert read_in(client, GOOD, 409).code == "model_exists"
    assert client.get("/arpa").body.decode() == GOOD


@pytest.mark.parametrize("bits", ["7f800000", "ff800000", "7fc00000", "ff7fffff"])
def test_pages_with_no_numbers(client, bits):
    """Whoever may write may write anything into a model's pages: the answers are JSON all the same."""
    read_in(client, GOOD)
    for name, _, value in client.scan(b"fm:", values="true"):
        page, size = bytearray(value), 8 if value[1] == 0 else 12 if value[1] == 3 else 16
        for at in range(2, len(page), size):
            page[at + 4:at + 8] = bytes.fromhex(bits)
        client.upsert(name, bytes(page))
    score = client.post("/score", json_body={"tokens": [2, 11, 12, 99, 12, 3]})
    assert score.status == 200 and len(score.json()["per_token"]) == 5
    answer = client.post("/predict", json_body={"tokens": [2, 11], "k": 9})
    assert answer.status == 200 and all(0 <= c["p"] <= 1 for c in answer.json()["candidates"])


def test_parameters(client):
    assert read_in(client, GOOD, 400, bos=3).code == "invalid_parameter"
    assert read_in(client, GOOD, 400, unk="x").code == "invalid_parameter"
    assert read_in(client, GOOD, 400, order=3).code == "unknown_parameter"
    assert read_in(client, GOOD, 400, bos=11).code == "invalid_arpa"  # a word of the text
    assert client.post("/arpa", GOOD.encode(), db="no/name").code == "invalid_database_name"
    assert client.post("/arpa", GOOD.encode(), text="x").code == "invalid_parameter"
    read = read_in(client, GOOD.replace("<unk>", "<UNK>"), bos=100, eos=101, unk=1).json()
    assert (read["bos"], read["eos"], read["unk"]) == (100, 101, 1)
    score = client.post("/score", json_body={"tokens": [100, 11, 12, 1, 101]}).json()
    assert score["per_token"] == [-0.25, -0.125, -1.5, -0.5] and score["orders"] == [2, 3, 0, 1]
    assert sorted(client.get("/arpa").body.decode().splitlines()) == sorted(GOOD.splitlines())


def test_refused_texts_leave_nothing(client):
    pairs = client.get("/databases/" + client.db).json()["pairs"]
    for text, detail in (("", "\\data\\"), (GOOD[:-8], "\\end\\"), (GOOD.replace("-0.75\t11", "0.75\t11"), "line 10"),
                         (GOOD.replace("-1.25\t12", "-1.25\t11"), "lines 10 and 11")):
        answer = read_in(client, text, 400)
        assert answer.code == "invalid_arpa" and detail in answer.json()["detail"]
        assert client.get("/databases/" + client.db).json()["pairs"] == pairs and fixed(client) is None
    unmarked = GOOD.replace("-0.5\t</s>\t0", "-0.5\t13\t0").replace("12 </s>", "12 13")
    assert "</s>" in read_in(client, unmarked, 400).json()["detail"]
    assert read_in(client, unmarked, unmarked="true").json()["warnings"] == ["no_marks"]
    assert sorted(client.get("/arpa").body.decode().splitlines()) == sorted(unmarked.splitlines())


def names(client):
    return client.get("/databases").json()["databases"]


def test_refused_texts_leave_no_database(client, server):
    """One that was made for the text goes with it; one that is there for others stays."""
    made = client.db + "-made"
    for text in ("", GOOD[:-8], GOOD.replace("-1.25\t12", "-1.25\t11")):
        assert read_in(client, text, 400, db=made).code == "invalid_arpa"
        assert made not in names(client), text
    long = "".join(large(20000, random.Random(9))).encode()
    with begin(server, made, long):
        wait_for(lambda: made in names(client), 60)
    wait_for(lambda: made not in names(client), 60)
    with begin(server, made, long):
        wait_for(lambda: made in names(client), 60)
        assert client.put("/databases/" + made).status == 200
    wait_for(lambda: client.post("/arpa", GOOD[:-8].encode(), db=made).code == "invalid_arpa", 60)
    assert made in names(client)
    assert client.delete("/databases/" + made, confirm=made).status == 204


def test_refused_texts_leave_what_others_made(client, server):
    """The database that was made for a text is deleted, and made again by somebody else: that one is not what the refused text takes away."""
    made = client.db + "-again"
    text = "".join(large(20000, random.Random(11))).encode()
    with begin(server, made, text) as s:
        wait_for(lambda: (fixed_of(client, made) or {}).get("making"))
        assert client.delete("/databases/" + made, confirm=made).status == 204
        assert client.put("/databases/" + made).status == 201
        with contextlib.suppress(ConnectionError):  # it may have its answer already, and be closed
            s.sendall(text[len(text) * 3 // 4 :])
        assert b" 410 " in s.recv(4096)
    assert made in names(client)
    assert client.delete("/databases/" + made, confirm=made).status == 204


def test_refused_texts_leave_what_others_wrote_to(client, server):
    """Keys are never given out twice: where somebody else has put a value, and deleted it, the database stays."""
    made = client.db + "-written"
    text = "".join(large(20000, random.Random(12))).encode()[:-8]
    with begin(server, made, text) as s:
        wait_for(lambda: (fixed_of(client, made) or {}).get("making"))
        key = client.post("/kv", b"v", headers={"Content-Type": "application/octet-stream"}, db=made).json()["key"]
        assert client.delete("/kv/%d" % key, db=made).status == 204
        with contextlib.suppress(ConnectionError):
            s.sendall(text[len(text) * 3 // 4 :])
        assert b" 400 " in s.recv(4096)
    assert made in names(client)
    assert client.delete("/databases/" + made, confirm=made).status == 204


def test_a_model_without_a_begin_takes_it_for_unknown(client):
    """As KenLM's query does of a model that was built with `build_binary -s`; the numbers are its own."""
    text = "\\data\\\nngram 1=3\nngram 2=2\n\\1-grams:\n-1.5\t<unk>\t-0.25\n-2\t</s>\t-0.5\n-1\t11\t-0.125\n\\2-grams:\n-0.375\t<unk> 11\n-0.25\t11 11\n\\end\\\n"
    read_in(client, text, unmarked="true")
    score = client.post("/score", json_body={"tokens": [11, 11, 3]}).json()
    assert score["per_token"] == [-0.375, -0.25, -2.125] and score["orders"] == [2, 2, 1]
    assert client.post("/score", json_body={"tokens": [11, 11], "bos": False}).json()["per_token"] == [-1, -0.25]
    answer = client.post("/predict", json_body={"tokens": [2], "k": 9}).json()
    assert [(c["token"], c["log10"], c["order"]) for c in answer["candidates"]] == [(11, -0.375, 2), (3, -2.25, 1)]


def test_warnings(client):
    text = GOOD.replace("-1\t<unk>\t0\n", "").replace("1=5", "1=4").replace("-0.125\t<s> 11 12", "-0.125\t<s> 11 12\t-1") + "more\n"
    assert read_in(client, text).json()["warnings"] == ["no_unk", "backoff_at_highest_order", "text_after_end"]
    score = client.post("/score", json_body={"tokens": [2, 11, 99, 11]}).json()
    assert score["per_token"] == [-0.25, -99, -0.75] and score["orders"] == [2, 0, 1]


def test_what_is_there_is_in_the_way(client):
    client.post("/ngrams", b'{"tokens":[2,11,12]}\n', headers=NDJSON)
    assert read_in(client, GOOD, 409).code == "model_exists"


@pytest.mark.parametrize("order", [3, 5])
def test_live_model_goes_out_and_comes_in(client, order):
    """What KenLM makes of the documents (tests/data/live) is read in and says what KenLM's query said, and the live model's own text byte for byte."""
    documents = [json.loads(line) for line in gzip.decompress((DATA / "documents.ndjson.gz").read_bytes()).splitlines()]
    client.put("/databases/" + client.db, json_body={"live": {"order": order, "bos": 2, "eos": 3}, "keep": []})
    assert client.post("/ngrams", ndjson(documents), headers=NDJSON).status == 200
    text = client.get("/arpa").body
    questions = ndjson(documents[:300])
    want = [json.loads(line) for line in client.post("/score", questions, headers=NDJSON).body.splitlines()]
    other = client.db + "-read"
    for body in (text, gzip.decompress((DATA / f"order{order}" / "model.arpa.gz").read_bytes())):
        read_in(client, body, db=other)
        if body is text:
            assert client.get("/arpa", db=other).body == text
        have = [json.loads(line) for line in client.post("/score", questions, headers=NDJSON, db=other).body.splitlines()]
        for w, h in zip(want[:-1], have[:-1]):
            assert h["orders"] == w["orders"]
            assert max(abs(a - b) for a, b in zip(h["per_token"], w["per_token"])) < 1e-5
        assert have[-1]["end"]["perplexity"] == pytest.approx(want[-1]["end"]["perplexity"], rel=1e-5)
        for tokens in ([], [2], documents[5]["tokens"][:4], [2, 999999]):
            asked = {"tokens": tokens, "k": 20}
            one, two = (client.post("/predict", json_body=asked, db=db).json() for db in (client.db, other))
            assert one["order"] == two["order"]
            for a, b in zip(one["candidates"], two["candidates"]):
                assert abs(a["log10"] - b["log10"]) < 1e-5  # near ties may change places
        client.delete("/databases/" + other, confirm=other)


def test_in_pieces(client, server):
    """Three megabytes in no order, by Content-Length and in chunks, from a slow client too: the same model."""
    text = "".join(large(20000, random.Random(5))).encode()
    assert len(text) > 1500000
    read_in(client, text)
    want = client.get("/arpa").body
    assert want.count(b"\n") == text.count(b"\n")
    for i, step in enumerate((1 << 18, 777)):
        other = "%s-%d" % (client.db, i)
        with socket.create_connection(("127.0.0.1", server.port), timeout=HANG) as s:
            s.sendall(b"POST /arpa?db=%s HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % other.encode())
            for at in range(0, len(text), step):
                part = text[at : at + step]
                s.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            s.sendall(b"0\r\n\r\n")
            answer = b""
            while part := s.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 201"), answer
        assert client.get("/arpa", db=other).body == want
        client.delete("/databases/" + other, confirm=other)


def test_little_memory(launch):
    """A request that may use little memory reads the same model."""
    small = launch("--durability", "os", "--request-memory-bytes", "6M")
    client = small.client(db="small")
    text = "".join(large(60000, random.Random(6))).encode()
    read_in(client, text)
    rows = sorted(client.get("/arpa").body.splitlines())
    assert len(rows) == text.count(b"\n")
    probe = [line.split(b"\t") for line in text.splitlines()[70000:70050]]
    have = {line.split(b"\t")[1]: line.split(b"\t")[0] for line in rows if line.count(b"\t") == 1}
    for p, words in probe:
        assert float(have[words]) == pytest.approx(float(p), abs=1e-6)
    tight = launch("--durability", "os", "--request-memory-bytes", "1M").client(db="tight")
    assert read_in(tight, text, 413).code == "request_too_large"
    assert tight.get("/databases/tight").status == 404


def begin(server, db, text):
    """A client that has sent half of a long text."""
    s = socket.create_connection(("127.0.0.1", server.port), timeout=HANG)
    s.sendall(b"POST /arpa?db=%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (db.encode(), len(text)))
    s.sendall(text[: len(text) * 3 // 4])
    return s


def test_client_that_goes(client, server):
    text = "".join(large(20000, random.Random(7))).encode()
    with begin(server, client.db, text):
        wait_for(lambda: (fixed(client) or {}).get("making"))
        assert client.post("/score", json_body={"tokens": [2, 11]}).code == "fixed_model"
        assert client.get("/arpa").code == "fixed_model"
        assert client.post("/ngrams", b'{"tokens":[2,11,12]}\n', headers=NDJSON).code == "fixed_model"
        assert read_in(client, GOOD, 409).code == "model_exists"
    wait_for(lambda: fixed(client) is None)
    assert client.get("/databases/" + client.db).json()["pairs"] == 0
    read_in(client, GOOD)


def test_database_that_is_dropped(client, server):
    text = "".join(large(20000, random.Random(8))).encode()
    with begin(server, client.db, text) as s:
        wait_for(lambda: (fixed(client) or {}).get("making"))
        assert client.delete("/databases/" + client.db, confirm=client.db).status == 204
        client.put("/databases/" + client.db)
        with contextlib.suppress(ConnectionError):  # it may have its answer already, and be closed
            s.sendall(text[len(text) * 3 // 4 :])
        assert b" 410 " in s.recv(4096)
    assert fixed(client) is None
    read_in(client, GOOD)


def test_server_that_stops(launch, tmp_path):
    """What a stopped server has left is no model, and is not in the way."""
    text = "".join(large(20000, random.Random(9))).encode()
    server = launch("--durability", "os", data=tmp_path)
    client = server.client(db="m")
    client.put("/databases/m")
    with begin(server, "m", text):
        wait_for(lambda: (fixed(client) or {}).get("making"))
        server.kill()
    server = launch("--durability", "os", data=tmp_path)
    client = server.client(db="m")
    if fixed(client) is not None:
        assert fixed(client)["making"] and client.get("/arpa").code == "fixed_model"
    read_in(client, GOOD)
    assert client.get("/arpa").body.decode() == GOOD and client.get("/databases/m").json()["pairs"] < 40


def test_many_at_once(client, server):
    """Several texts at once, each into its own database, while another is counted into."""
    text = "".join(large(6000, random.Random(10))).encode()
    names = ["%s-%d" % (client.db, i) for i in range(4)]

    def work(name):
        with_it = server.client(db=name)
        assert read_in(with_it, text).status == 201
        with_it.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for t in threads:
        t.start()
    for _ in range(20):
        assert client.post("/ngrams", b'{"tokens":[2,11,12]}\n', headers=NDJSON).status == 200
    for t in threads:
        t.join()
    assert len({client.get("/arpa", db=name).body for name in names}) == 1
    for name in names:
        client.delete("/databases/" + name, confirm=name)
