"""The live Kneser-Ney model against KenLM: tests/data/live (README.md there) has what lmplz and query say of the same documents."""
import gzip
import json
import math
import os
import pathlib
import struct
import threading

import pytest
from harness import ndjson, wait_for

DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "live"
NDJSON = {"Content-Type": "application/x-ndjson"}
CLOSE = 1e-5


def lines(path):
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


DOCUMENTS = lines(DATA / "documents.ndjson.gz")


def make(client, order, keep=(), **live):
    name = client.db
    answer = client.put("/databases/" + name, json_body={"live": dict({"order": order, "bos": 2, "eos": 3}, **live), "keep": list(keep)})
    assert answer.status == 200, answer
    return answer.json()["live"]


def count(client, documents, status=200, **params):
    answer = client.post("/ngrams", ndjson(documents), headers=NDJSON, **params)
    assert answer.status == status, answer
    return answer.json()


def described(client):
    return client.get("/databases/" + client.db).json()["live"]


def ask(client, path, questions):
    answer = client.post(path, ndjson(questions), headers=NDJSON)
    assert answer.status == 200, answer
    *each, end = [json.loads(line) for line in answer.body.splitlines() if line.strip()]
    return each, end["end"]


@pytest.fixture(params=[3, 5])
def order(request):
    return request.param


@pytest.fixture
def full(client, order):
    make(client, order)
    count(client, DOCUMENTS)
    return client


def test_parameters_are_kenlms(full, order):
    want, have = json.loads((DATA / f"order{order}" / "parameters.json").read_text()), described(full)
    assert (have["order"], have["V"], have["documents"]) == (order, want["V"], want["documents"])
    for w, h in zip(want["orders"], have["orders"]):
        assert [h["types"], h["contexts"], h["n1"], h["n2"], h["n3"], h["n4"], h["fallback"]] == [w["types"], w["contexts"], *w["n"], w["fallback"]]
        assert [h["d1"], h["d2"], h["d3"]] == w["discounts"]


def same(want, have):
    assert have["tokens"] == len(want["log10"])
    assert max(abs(a - b) for a, b in zip(want["log10"], have["per_token"])) < CLOSE
    assert [0 if oov else m for m, oov in zip(want["matched"], want["oov"])] == have["orders"]
    assert have["oov"] == sum(want["oov"])
    assert abs(have["log10"] - sum(have["per_token"])) < 1e-7


def test_heldout_text(full, order):
    wanted = lines(DATA / f"order{order}" / "heldout.ndjson.gz")
    summary = json.loads((DATA / f"order{order}" / "heldout-summary.json").read_text())
    each, end = ask(full, "/score", [{"tokens": w["tokens"]} for w in wanted])
    assert len(each) == len(wanted) == end["count"]
    for w, h in zip(wanted, each):
        same(w, h)
    assert (end["tokens"], end["oov"], end["documents"]) == (summary["tokens"], summary["oov"], len(wanted))
    assert math.isclose(end["perplexity"], summary["ppl_without_oov"], rel_tol=1e-5)
    assert math.isclose(end["perplexity_with_oov"], summary["ppl_with_oov"], rel_tol=1e-5)
    for w in wanted[:20]:  # one at a time, with and without the bos that it gets anyway
        same(w, full.post("/score", json_body={"tokens": w["tokens"]}).json())
        same(w, full.post("/score", json_body={"tokens": w["tokens"][1:], "mode": "live"}).json())


def test_fragments(full, order):
    wanted = lines(DATA / f"order{order}" / "fragments.ndjson")
    each, _ = ask(full, "/score", [{"tokens": w["tokens"], "bos": False} for w in wanted])
    for w, h in zip(wanted, each):
        same(w, h)


def test_top_lists(full, order):
    wanted = lines(DATA / f"order{order}" / "top20.ndjson")
    each, _ = ask(full, "/predict", [{"tokens": w["context"], "k": 20} for w in wanted])
    for w, h in zip(wanted, each):
        one = full.post("/predict", json_body={"tokens": w["context"], "k": 20}).json()
        assert one == h
        assert [c["token"] for c in h["candidates"]] == [t for t, _ in w["top"]]
        for c, (_, log10) in zip(h["candidates"], w["top"]):
            assert abs(c["log10"] - log10) < CLOSE and abs(math.log10(c["p"]) - c["log10"]) < 1e-8


def test_distributions_sum_to_one(full, order):
    for context in ([], [2], [2, 1186], [597, 21], [999999], DOCUMENTS[3]["tokens"][:6]):
        answer = full.post("/predict", json_body={"tokens": context, "k": 100000}).json()
        assert len(answer["candidates"]) == described(full)["V"] - 1
        assert abs(sum(c["p"] for c in answer["candidates"]) + answer["unknown"] - 1) < 1e-9
        stream = full.post("/predict", json_body={"tokens": context, "k": 100000, "mode": "levels"})
        *levels, end = [json.loads(line) for line in stream.body.splitlines()]
        assert [level["order"] for level in levels] == list(range(answer["order"], 0, -1)) and end["end"]["count"] == answer["order"]
        assert levels[0] == answer
        for level in levels:
            assert abs(sum(c["p"] for c in level["candidates"]) + level["unknown"] - 1) < 1e-9


def test_every_moment(client, order):
    """Grown and shrunk: at each moment what KenLM makes of just the documents that are left."""
    make(client, order)
    added = removed = 0
    wanted = lines(DATA / f"order{order}" / "heldout.ndjson.gz")
    for moment in json.loads((DATA / f"order{order}" / "moments.json").read_text()):
        if moment["added"] > added:
            count(client, DOCUMENTS[added:moment["added"]])
        gone = [dict(d, remove=True) for d in DOCUMENTS[removed:moment["removed"]]]
        if gone:
            assert count(client, gone)["removed"] == len(gone)
        added, removed = moment["added"], moment["removed"]
        have = described(client)
        assert have["V"] == moment["V"] and [o["types"] for o in have["orders"]] == moment["types"]
        assert [[o["n1"], o["n2"], o["n3"], o["n4"]] for o in have["orders"]] == moment["n"]
        assert [o["order"] for o in have["orders"] if o["fallback"]] == moment["fallback"]
        _, end = ask(client, "/score", [{"tokens": w["tokens"]} for w in wanted])
        assert (end["tokens"], end["oov"]) == (moment["heldout"]["tokens"], moment["heldout"]["oov"])
        assert math.isclose(end["perplexity"], moment["heldout"]["ppl_without_oov"], rel_tol=2e-5)
        assert math.isclose(end["perplexity_with_oov"], moment["heldout"]["ppl_with_oov"], rel_tol=2e-5)


def varint(p, at):
    v = shift = 0
    while True:
        v |= (p[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if p[at - 1] < 128:
            return v, at


def followers(p):
    if p[0] == 2:
        n = struct.unpack(">I", p[4:8])[0]
        return [list(struct.unpack(">II", p[24 + 8 * i:32 + 8 * i])) for i in range(n)]
    out, at, token = [], 2, -1
    for _ in range(p[1]):
        step, at = varint(p, at)
        a, at = varint(p, at)
        token += step + 1
        out.append([token, a + 1])
    assert at == len(p)
    return out


def test_stored_counts(client):
    """The records as kn_format.h draws them, read by somebody else."""
    make(client, 3)
    count(client, DOCUMENTS)
    want = {tuple(s["context"]): s["followers"] for s in lines(DATA / "order3" / "state.ndjson.gz")}
    have = {}
    for pair, _, value in client.scan(b"kn:", values="true"):
        if not pair.startswith(b"kn:0:"):
            tokens = struct.unpack(">%dI" % ((len(pair) - 5) // 4), pair[5:])
            context = () if pair.startswith(b"kn:1:") else tuple(reversed(tokens))
            have.setdefault(context, []).extend(followers(value))
    assert have == want


def test_order_of_documents_and_requests_leaves_the_same_bytes(client, server, order):
    def state(c):
        return {pair: value for pair, _, value in c.scan(b"kn:", values="true") if not pair.startswith(b"kn:0:")}
    make(client, order)
    count(client, DOCUMENTS[:300])
    before = state(client)
    count(client, DOCUMENTS[300:] + [dict(d, remove=True) for d in DOCUMENTS[:100]])
    for i in range(500, 200, -100):
        count(client, DOCUMENTS[i:i + 100], remove="true")
    count(client, reversed(DOCUMENTS[:100]))
    count(client, [{"tokens": d["tokens"], "remove": False} for d in DOCUMENTS[300:310]], remove="true")
    count(client, DOCUMENTS[300:310], remove="true")
    assert state(client) == before
    count(client, DOCUMENTS[:300], remove="true")
    assert state(client) == {} and described(client)["V"] == 1
    assert client.post("/score", json_body={"tokens": [2, 5]}).code == "nothing_counted"


def test_one_document(client):
    make(client, 2)
    answer = client.post("/predict", json_body={"tokens": [2]})
    assert (answer.status, answer.code) == (409, "nothing_counted")
    assert count(client, [{"tokens": [2, 5]}])["generation"] == 2
    assert [c["p"] for c in client.post("/predict", json_body={"tokens": []}).json()["candidates"]] == [0.75]
    one = client.post("/predict", json_body={"tokens": [2]}).json()
    assert [c["p"] for c in one["candidates"]] == [0.875] and one["unknown"] == 0.125
    assert client.post("/score", json_body={"tokens": [77], "bos": False}).json()["orders"] == [0]
    assert client.post("/score", json_body={"tokens": []}).json()["perplexity"] is None


def test_errors(client):
    make(client, 3)
    count(client, DOCUMENTS[:10])
    before = list(client.scan(b"", values="true"))
    assert count(client, DOCUMENTS[11:12], status=409, remove="true")["code"] == "not_counted"
    assert count(client, DOCUMENTS[:2] + DOCUMENTS[:1], status=409, remove="true")["code"] == "not_counted"
    assert count(client, DOCUMENTS[:1], status=409, order="2")["code"] == "order_mismatch"
    assert count(client, [{"tokens": [1, 2], "remove": 1}], status=400)["code"] == "invalid_body"
    assert list(client.scan(b"", values="true")) == before
    count(client, DOCUMENTS[10:11], order="3")
    for body in ({"live": {"order": 4, "bos": 2, "eos": 3}}, {"live": {"order": 3, "bos": 2}}):
        answer = client.put("/databases/" + client.db, json_body=body)
        assert (answer.status, answer.code) == (409, "model_fixed")
    for body in ({"live": {}}, {"live": 3}, {"keep": []}, {"live": {"order": 9, "bos": 2}}, {"live": {"order": 3, "bos": -1}},
                 {"live": {"order": 3, "bos": 2, "eos": 2}}, {"live": {"order": 3, "bos": 2}, "keep": ["ctxv"]},
                 {"live": {"order": 3, "bos": 2}, "keep": ["all"]}, {"live": {"order": 3, "bos": 2}, "keep": "cnt"}):
        answer = client.put("/databases/never-made", json_body=body)
        assert (answer.status, answer.code) == (400, "invalid_parameter"), body
    assert client.get("/databases/never-made").status == 404
    each, end = ask(client, "/score", [{"tokens": [2, 5]}, {"tokens": [-1]}, {"tokens": 3}, {"tokens": [5], "bos": 1}, {"tokens": [2, 5]}])
    assert [e.get("error", {}).get("code") for e in each] == [None, "invalid_tokens", "invalid_tokens", "invalid_parameter", None]
    assert (end["count"], end["failed"], end["documents"]) == (5, 3, 2)


def test_texts_asked_together_are_answered_as_each_by_itself(full):
    questions = [{"tokens": d["tokens"]} for d in DOCUMENTS[:90]]
    questions += [{"tokens": d["tokens"][1:], "bos": False, "max_order": 1 + i % 6} for i, d in enumerate(DOCUMENTS[:80])]
    questions += [{"tokens": []}, {"tokens": [], "bos": False}, {"tokens": [2, 2]}, {"tokens": [q for d in DOCUMENTS[:60] for q in d["tokens"]]}]
    for odd in ([], [{"tokens": [-1]}], [{"tokens": [2, 5], "mode": "blend"}, {"tokens": [2, 5], "mode": "live"}]):
        asked = questions[:100] + odd + questions[100:]
        each, end = ask(full, "/score", asked)
        assert end["count"] == len(asked) == len(each) and end["tokens"] == sum(e.get("tokens", 0) for e in each if "mode" not in e)
        for question, answer in zip(asked, each):
            alone = full.post("/score", json_body=question)
            assert answer == alone.json() if alone.status == 200 else answer["error"]["code"] == alone.code


def test_no_live_model(client):
    count(client, DOCUMENTS[:10], order="2")
    for path in "/predict", "/score":
        answer = client.post(path, json_body={"tokens": [2], "mode": "live"})
        assert (answer.status, answer.code) == (409, "not_live")
    assert "live" not in client.get("/databases/" + client.db).json()
    assert client.put("/databases/" + client.db, json_body={"live": {"order": 2, "bos": 2}}).code == "model_fixed"


def test_damaged_records(client):
    make(client, 3)
    count(client, DOCUMENTS[:50])
    token = DOCUMENTS[0]["tokens"][1]
    question = {"tokens": [2, token]}
    client.post("/predict", json_body=question)
    client.upsert(b"kn:2:" + struct.pack(">I", token), b"\x01\x05\x01")
    for path, body in (("/predict", question), ("/score", {"tokens": [2, token, 3]})):
        answer = client.post(path, json_body=body)
        assert (answer.status, answer.code) == (409, "malformed_payload"), answer
    assert client.post("/predict", json_body={"tokens": [2]}).status == 200
    assert count(client, [{"tokens": [2, token, 12345]}], status=409)["code"] == "malformed_payload"


def test_kept_namespaces_are_those_of_the_older_model(client, server, name):
    other = server.client(db=name + "-other")
    count(other, DOCUMENTS, order="3")
    answer = make(client, 3, keep=["cnt", "ctx", "ctxv"])
    assert answer["keep"] == ["cnt", "ctx", "ctxv"]
    count(client, DOCUMENTS + DOCUMENTS[:50])
    count(client, [dict(d, remove=True) for d in DOCUMENTS[:50]])
    for prefix in b"cnt:", b"ctx:":
        assert [(p, v) for p, _, v in client.scan(prefix, values="true")] == [(p, v) for p, _, v in other.scan(prefix, values="true")]
    assert client.post("/reduce/smooth/cnt:").status == 200
    assert client.post("/predict", json_body={"tokens": [2], "mode": "deepest"}).json()["candidates"][0]["q"] > 0
    assert "generation" in client.post("/predict", json_body={"tokens": [2]}).json()
    other.delete("/databases/" + name + "-other", confirm=name + "-other")


def test_questions_beside_counting(client, server, order):
    """Each answer is that of one of the moments between commits, or says that it is mixed."""
    make(client, order)
    count(client, DOCUMENTS[:300])
    moments, question, stop = {}, {"tokens": DOCUMENTS[5]["tokens"]}, threading.Event()

    def note():
        answer = client.post("/score", json_body=question).json()
        moments[answer["generation"]] = answer["per_token"]
    note()
    wrong, seen = [], []

    def reader():
        mine = server.client(db=client.db)
        while not stop.is_set():
            for path in "/score", "/predict":
                answer = mine.post(path, json_body=question).json()
                if path == "/score":
                    seen.append(answer)
                elif abs(answer["candidates"][0]["p"] - 10 ** answer["candidates"][0]["log10"]) > 1e-6:
                    wrong.append(answer)
    threads = [threading.Thread(target=reader) for _ in range(3)]
    for t in threads:
        t.start()
    for i in range(int(os.environ.get("CHT_TEST_ROUNDS", "40"))):  # fewer under the thread sanitizer, to which each is worth more
        count(client, DOCUMENTS[300:600], remove="true" if i % 2 else "false")
        note()
    wait_for(lambda: seen, what="an answer")
    stop.set()
    for t in threads:
        t.join()
    assert seen and not wrong
    for answer in seen:
        assert answer.get("mixed") or answer["per_token"] == moments[answer["generation"]]


# ---- ARPA


def read_arpa(text):
    """{n-gram: (log10 p, log10 back-off)} of a file that is as it must be, and the counts at its head."""
    rows, counts, order, seen = {}, [], 0, 0
    assert text.startswith("\\data\\\n") and text.endswith("\n\\end\\\n")
    for line in text.splitlines()[1:-1]:
        if line.startswith("ngram "):
            counts.append(int(line.split("=")[1]))
        elif line.startswith("\\"):
            assert order == 0 or seen == counts[order - 1]
            order, seen = order + 1, 0
            assert line == "\\%d-grams:" % order
        elif line:
            p, words, *back_off = line.split("\t")
            assert len(words.split(" ")) == order and len(back_off) == (order < len(counts)), line
            rows[words] = (float(p), float(back_off[0]) if back_off else 0.0)
            seen += 1
    assert seen == counts[-1] and sum(counts) == len(rows)
    return rows, counts


def close(a, b):
    return a == b or abs(a - b) < CLOSE


def test_exported_model_is_lmplzs(full, order):
    want, counts = read_arpa(gzip.decompress((DATA / f"order{order}" / "model.arpa.gz").read_bytes()).decode())
    answer = full.get("/arpa")
    have, own = read_arpa(answer.body.decode())
    assert own == counts and have.keys() == want.keys()
    for words, (p, back_off) in want.items():
        assert words == "<s>" or close(have[words][0], p), words
        assert close(have[words][1], back_off), words
    assert full.head("/arpa").status == 200


def test_order_1(client):
    """Nothing but the empty context: lmplz -o 1 of the same documents. What is written goes in again and says the same of a text."""
    make(client, 1)
    count(client, DOCUMENTS)
    want, counts = read_arpa(gzip.decompress((DATA / "order1" / "model.arpa.gz").read_bytes()).decode())
    text = client.get("/arpa").body
    have, own = read_arpa(text.decode())
    assert own == counts and have.keys() == want.keys()
    assert all(words == "<s>" or close(have[words][0], p) for words, (p, _) in want.items())
    questions = [*DOCUMENTS[:50], {"tokens": [2, 999999, 3]}]
    scores, end = ask(client, "/score", questions)
    for question, score in zip(questions, scores):
        keys = ["</s>" if t == 3 else str(t) if str(t) in want else "<unk>" for t in question["tokens"][1:]]
        assert score["per_token"] == pytest.approx([want[key][0] for key in keys], abs=CLOSE) and score["orders"] == [int(key != "<unk>") for key in keys]
    best = client.post("/predict", json_body={"tokens": [2, 5, 6], "k": 2000}).json()
    assert best["order"] == 1 and math.fsum(c["p"] for c in best["candidates"]) + best["unknown"] == pytest.approx(1, abs=1e-9) and len(best["candidates"]) == len(want) - 2
    other = client.db + "-read"
    assert client.post("/arpa", text, db=other).status == 201
    again = client.post("/score", ndjson(questions), headers=NDJSON, db=other)
    assert [json.loads(line)["per_token"] for line in again.body.splitlines()[:-1]] == [pytest.approx(one["per_token"], abs=CLOSE) for one in scores]
    client.delete("/databases/" + other, confirm=other)


def test_export_without_eos(client):
    make(client, 3)
    count(client, [{"tokens": [2, 5, 6]}, {"tokens": [7, 6, 5]}])
    rows, _ = read_arpa(client.get("/arpa").body.decode())
    assert rows["</s>"] == rows["<unk>"] and "<s> 7 6" in rows
    make_other = client.get("/arpa", db="never-made")
    assert make_other.status == 404


def test_export_errors(client):
    assert client.get("/arpa").code == "not_live" and client.head("/arpa").status == 409
    make(client, 3)
    assert client.get("/arpa").code == "nothing_counted" and client.head("/arpa").status == 409
    count(client, DOCUMENTS[:20])
    head = client.head("/arpa")
    assert head.status == 200 and head.headers["Content-Type"] == "text/plain; charset=utf-8" and head.body == b""
    client.upsert(b"kn:1:" + bytes(4), b"\x01\x05\x01")
    assert client.get("/arpa").code == "malformed_payload" and client.head("/arpa").status == 409
