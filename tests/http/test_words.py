"""Words: texts are counted and asked about with text=true; the vocabulary gives each word one token, whoever counts it first."""
import random
import struct
import threading

import pytest
from harness import layouts, ndjson, unb64

NDJSON = {"Content-Type": "application/x-ndjson"}
LINES = ["to be or not to be", "that is the question", "whether tis nobler in the mind to suffer", "the slings and arrows of outrageous fortune",
         "or to take arms against a sea of troubles", "and by opposing end them to die to sleep", "to sleep perchance to dream", "to be or not"]


def count(client, texts, status=200, **params):
    answer = client.post("/ngrams", ndjson({"text": t} for t in texts), headers=NDJSON, text="true", **params)
    assert answer.status == status, answer
    return answer.json()


def vocabulary(client):
    """{word: token} as the pairs have it; both directions say the same, and no token is two words'."""
    voc = {p[4:].decode(): struct.unpack(">I", v)[0] for p, _, v in client.scan(b"voc:", values="true")}
    tok = {v.decode(): struct.unpack(">I", p[4:])[0] for p, _, v in client.scan(b"tok:", values="true")}
    assert voc == tok and len(set(voc.values())) == len(voc)
    return voc


def numbers(client, text):
    voc = vocabulary(client)
    return [voc.get(w, 2**32 - 1) for w in text.split()]


def live(client, order=3, **more):
    return client.put("/databases/" + client.db, json_body={"live": {"order": order, "bos": 5, "eos": 7}, **more})


def stored(client):
    return {p: v for p, _, v in client.scan(values="true")}


def test_texts_are_counted_as_their_tokens(client, server, name):
    answer = count(client, LINES + ["", "  \t ", "alone"], order="3")
    words = [w for line in LINES for w in line.split()]
    assert (answer["documents"], answer["tokens"]) == (len(LINES), len(words))
    voc = vocabulary(client)
    assert voc == {w: 4 + i for i, w in enumerate(dict.fromkeys(words + ["alone"]))}, "in the order in which they come"
    other = server.client(db=name + "-other")
    other.post("/ngrams", ndjson({"tokens": [voc[w] for w in line.split()]} for line in LINES), headers=NDJSON, order="3")
    assert {p: v for p, v in stored(client).items() if p[:4] not in (b"voc:", b"tok:")} == stored(other)
    count(client, ["to be\n\f\vor\u00a0not new"], order="3")
    assert vocabulary(client) == dict(voc, **{"or\u00a0not": len(voc) + 4, "new": len(voc) + 5}), "known ones keep theirs; a no-break space is no white space"
    other.delete("/databases/" + other.db, confirm=other.db)


def test_answers_are_those_of_the_tokens(client):
    count(client, LINES, order="3")
    client.post("/reduce/smooth/cnt:")
    voc = vocabulary(client)
    word = {t: w for w, t in voc.items()}
    word[2**32 - 1] = "<unk>"
    for text in ("to be or", "to", "", "nobody knows to", "  to \n sleep ", "the mind to"):
        tokens = numbers(client, text)
        for body in ({}, {"mode": "blend", "k": 7}, {"mode": "deepest", "max_order": 2}):
            want = client.post("/predict", json_body=dict(body, tokens=tokens)).json()
            got = client.post("/predict", json_body=dict(body, text=text), text="true").json()
            assert got["context"] == [word[t] for t in want["context"]] and got["order"] == want["order"]
            assert [dict(c, word=word[c["token"]]) for c in want["candidates"]] == got["candidates"]
        levels = client.post("/predict", json_body={"text": text, "mode": "levels"}, text="true").lines()
        want = client.post("/predict", json_body={"tokens": tokens, "mode": "levels"}).lines()
        assert [line["order"] for line in levels[:-1]] == [line["order"] for line in want[:-1]] and levels[-1] == want[-1]
        for mode in "blend", "deepest":
            want = client.post("/score", json_body={"tokens": tokens, "mode": mode}).json()
            got = client.post("/score", json_body={"text": text, "mode": mode}, text="true").json()
            assert got.pop("words") == [word[t] for t in tokens[1:]] and got == want
    texts = LINES + ["nobody", "to nobody"]
    for path in "/predict", "/score":
        lines = client.post(path, ndjson([{"text": t} for t in texts] + [{"text": 5}, {"tokens": [1]}]), headers=NDJSON, text="true").lines()
        for text, line in zip(texts, lines):
            assert line == client.post(path, json_body={"text": text}, text="true").json()
        assert [line["error"]["code"] for line in lines[len(texts):-1]] == ["invalid_tokens"] * 2 and lines[-1]["end"]["failed"] == 2


def test_a_live_model(client):
    """bos and eos stand around a text, as around a line that KenLM reads; no word gets their tokens."""
    live(client)
    assert count(client, LINES)["documents"] == len(LINES)
    voc = vocabulary(client)
    assert not {5, 7} & set(voc.values()) and min(voc.values()) == 4
    word = {**{t: w for w, t in voc.items()}, 7: "</s>", 2**32 - 1: "<unk>"}
    for text in ("to be or", "to", "be nobody", ""):
        tokens = numbers(client, text)
        got = client.post("/predict", json_body={"text": text, "k": 100}, text="true").json()
        want = client.post("/predict", json_body={"tokens": [5] + tokens, "k": 100}).json()
        assert [dict(c, word=word[c["token"]]) for c in want["candidates"]] == got["candidates"]
        assert got["context"] == ["<s>" if t == 5 else word[t] for t in want["context"]]
        for bos in True, False:
            got = client.post("/score", json_body={"text": text, "bos": bos}, text="true").json()
            asked = [5] + tokens + [7] if bos else tokens
            want = client.post("/score", json_body={"tokens": asked, "bos": bos}).json()
            assert got.pop("words") == [word[t] for t in asked if t != 5] and got == want
    assert client.post("/score", json_body={"text": "to nobody"}, text="true").json()["oov"] == 1
    before, pairs = client.get("/databases/" + client.db).json()["live"], stored(client)
    count(client, ["brand new words", "to be"])
    assert count(client, ["brand new words", "to be"], remove="true")["removed"] == 2
    after = client.get("/databases/" + client.db).json()["live"]
    assert after["orders"] == before["orders"] and set(vocabulary(client)) > {"brand"}, "the counts are gone, the words stay"
    assert {p: v for p, v in stored(client).items() if p[:4] in (b"cnt:", b"ctx:")} == {p: v for p, v in pairs.items() if p[:4] in (b"cnt:", b"ctx:")}


def test_one_request_is_one_commit(client):
    """What is refused leaves no word."""
    count(client, LINES[:2], order="2")
    before = stored(client)
    for texts, params, status, code in (
            (["fine words", "x" * 4093], {}, 400, "invalid_tokens"), (["never seen"], {"remove": "true"}, 409, "not_counted"),
            (["to be fair", "question the"], {"remove": "true"}, 409, "not_counted")):
        answer = client.post("/ngrams", ndjson({"text": t} for t in texts), headers=NDJSON, text="true", order="2", **params)
        assert (answer.status, answer.code) == (status, code), answer
    for line in (b'{"tokens":[1,2]}', b'{"text":["to"]}', b'{"text":null}', b"{}"):
        answer = client.post("/ngrams", b'{"text":"some words"}\n' + line, headers=NDJSON, text="true", order="2")
        assert (answer.status, answer.code) == (400, "invalid_tokens"), line
    assert client.post("/ngrams", b'{"text":"some words"}', headers=NDJSON, order="2").code == "invalid_tokens"
    assert stored(client) == before
    count(client, ["x" * 4092 + " y"], order="2")
    assert "x" * 4092 in vocabulary(client)
    client.upsert(b"voc:be", b"abc")
    answer = client.post("/ngrams", b'{"text":"to be"}', headers=NDJSON, text="true", order="2")
    assert (answer.status, answer.code) == (409, "malformed_payload") and "voc:be" in answer.json()["detail"]


def test_once(client):
    for repeated in (None, True):
        answer = count(client, ["to be or not"], order="2", once="first")
        assert answer.get("repeated") is repeated and answer["documents"] == 1
    assert client.post("/ngrams", ndjson([{"text": "never counted"}]), headers=NDJSON, text="true", order="2", once="first").json()["repeated"]
    assert set(vocabulary(client)) == {"to", "be", "or", "not"}


@pytest.mark.parametrize("kind", ["plain", "live"])
def test_many_clients_at_once_make_one_token_of_a_word(client, server, kind):
    if kind == "live":
        live(client, keep=["cnt"])
    rng = random.Random(3)
    texts = [" ".join("w%d" % min(int(rng.paretovariate(0.5)), 400) for _ in range(8)) for _ in range(240)]
    failed = []

    def one(part):
        mine = server.client(db=client.db)
        for i in range(0, len(part), 5):
            answer = mine.post("/ngrams", ndjson({"text": t} for t in part[i:i + 5]), headers=NDJSON, text="true", **({} if kind == "live" else {"order": "2"}))
            if answer.status != 200:
                failed.append(answer)

    threads = [threading.Thread(target=one, args=(texts[i::12],)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
    voc = vocabulary(client)
    assert set(voc) == {w for t in texts for w in t.split()}
    skipped = {5, 7} if kind == "live" else set()
    assert sorted(voc.values()) == [t for t in range(4, 4 + len(voc) + len(skipped)) if t not in skipped], "none is left out either"
    counts = dict(layouts.read_counts(unb64(client.get("/pairs/cnt:1:__root__", exact="true", values="true").json()["value"]))[1])
    for word in "w1", "w2", "w3":
        assert counts[voc[word]] == sum(t.split().count(word) for t in texts)


def test_vocabulary(client):
    client.put("/databases/" + client.db)
    assert client.get("/vocabulary").lines() == [{"end": {"count": 0, "next": None}}]
    count(client, LINES, order="2")
    voc = vocabulary(client)
    words = [w for line in LINES for w in line.split()]
    want = [{"token": t, "word": w, "count": words.count(w)} for w, t in voc.items()]
    want.sort(key=lambda line: line["token"])
    answer = client.get("/vocabulary").lines()
    assert answer[:-1] == want and answer[-1] == {"end": {"count": len(want), "next": None}}
    got, after = [], None
    while True:
        lines = client.get("/vocabulary", limit="5", **({} if after is None else {"after": str(after)})).lines()
        got += lines[:-1]
        after = lines[-1]["end"]["next"]
        if after is None:
            break
        assert len(lines) == 6 and after == lines[-2]["token"]
    assert got == want
    assert client.get("/vocabulary", limit=str(len(want))).lines()[-1]["end"]["next"] is None
    assert client.head("/vocabulary").status == 200
    for params in ({"after": "x"}, {"after": "-1"}, {"after": "4294967296"}, {"limit": "0"}):
        assert client.get("/vocabulary", **params).code == "invalid_parameter", params
    client.upsert(b"tok:longer", b"is no word")
    client.upsert(b"cnt:1:__root__", b"no counts")
    assert client.get("/vocabulary").lines()[:-1] == [dict(line, count=None) for line in want]
    assert client.get("/vocabulary", db="never-made").code == "database_not_found"


def test_a_long_vocabulary(client):
    """Longer than what a stream holds at a time; words that need escapes."""
    words = ['"%d\\\u00e9' % i for i in range(9000)]
    count(client, [" ".join(words)], order="1")
    lines = client.get("/vocabulary").lines()
    assert [line["word"] for line in lines[:-1]] == words and lines[-1]["end"]["count"] == 9000


def test_questions_that_are_none(client):
    count(client, LINES, order="2")
    for path in "/predict", "/score":
        assert client.post(path, json_body={"text": "to be"}, text="true").code == "not_smoothed"
    client.post("/reduce/smooth/cnt:")
    for path in "/predict", "/score":
        for body, code in (({}, "invalid_tokens"), ({"tokens": [4]}, "invalid_tokens"), ({"text": 4}, "invalid_tokens"), ({"text": "a", "mode": "best"}, "invalid_parameter"),
                           ({"text": "a", "max_order": 0}, "invalid_parameter"), ({"text": "a", "mode": "live"}, "not_live"), ({"text": "a", "bos": 3}, "invalid_parameter")):
            assert client.post(path, json_body=body, text="true").code == code, (path, body)
        assert client.post(path, b"[]", headers={"Content-Type": "application/json"}, text="true").code == "invalid_body"
        assert client.post(path, json_body={"text": "to"}).code == "invalid_tokens", "text=true is needed"
        assert client.post(path, json_body={"text": "to " * 100001}, text="true").status == 413
        assert client.post(path, json_body={"text": "to"}, text="maybe").code == "invalid_parameter"
    client.upsert(b"voc:be", b"abc")
    assert client.post("/predict", json_body={"text": "to be"}, text="true").code == "malformed_payload"
    tokens = [c["token"] for c in client.post("/predict", json_body={"text": "to", "k": 3}, text="true").json()["candidates"]]
    client.delete("/pairs/x" + (b"tok:" + struct.pack(">I", tokens[0])).hex(), values="true")
    assert client.post("/predict", json_body={"text": "to", "k": 3}, text="true").json()["candidates"][0]["word"] is None
