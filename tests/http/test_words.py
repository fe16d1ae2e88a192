"""Words: texts are counted and asked about with text=true; the vocabulary gives each word one token, whoever counts it first."""
import random
import struct
import threading

import pytest
from harness import hexed, layouts, ndjson, unb64

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


def test_contexts(client):
    count(client, LINES, order="3")
    client.post("/reduce/smooth/cnt:")
    voc = vocabulary(client)
    word = {t: w for w, t in voc.items()}
    for text in ("to be", "be to", "to", "nobody", "to nobody", "", " to\n be ", "x" * 5000):
        tokens = numbers(client, text)
        for match in "exact", "contains":
            want = client.post("/contexts", json_body={"tree": [[t] for t in tokens], "match": match}).lines()
            got = client.post("/contexts", json_body={"text": text, "match": match}, text="true").lines()
            assert got[-1] == want[-1] and (text == "to nobody") <= (len(got) == 1)
            for line, plain in zip(got[:-1], want[:-1]):
                assert line.pop("words") == [word[t] for t in line["tokens"]]
                assert [e[2] for e in line["ranked"]] == [word[e[0]] for e in line["ranked"]]
                assert dict(line, ranked=[e[:2] for e in line["ranked"]]) == plain
    shown = client.post("/contexts", json_body={"tree": [[voc["to"]]]}, text="true").lines()
    assert shown[0]["words"] == ["to"] and shown[0]["ranked"][0][2] in voc, "a tree is shown with words too"
    for body in ({"text": 5}, {"text": "to", "tree": [[4]]}, {}, {"text": "w " * 256}):
        assert client.post("/contexts", json_body=body, text="true").code == "invalid_tree", body
    assert client.post("/contexts", json_body={"text": "to"}).code == "invalid_tree", "text=true is needed"
    client.upsert(b"voc:be", b"abc")
    assert client.post("/contexts", json_body={"text": "be"}, text="true").code == "malformed_payload"
    client.delete("/pairs/x" + (b"tok:" + struct.pack(">I", voc["to"])).hex(), values="true")
    assert client.post("/contexts", json_body={"text": "to"}, text="true").lines()[0]["words"] == [None]


def test_arpa(client, server, name):
    """The same text, but for the words; read into a vocabulary by numbers it is the model again."""
    live(client)
    count(client, LINES)
    word = {str(t): w for w, t in vocabulary(client).items()}
    plain, spelled = (client.get("/arpa", **params) for params in ({}, {"text": "true"}))
    want = []
    for line in plain.body.decode().split("\n"):
        fields = line.split("\t")
        if len(fields) > 1:
            fields[1] = " ".join(word.get(w, w) for w in fields[1].split(" "))
        want.append("\t".join(fields))
    assert spelled.status == 200 and spelled.body.decode() == "\n".join(want)
    client.post("/ngrams", ndjson([{"tokens": [9000, 9001]}]), headers=NDJSON)
    assert client.get("/arpa").status == 200
    answer = client.get("/arpa", text="true")
    assert (answer.status, answer.code) == (409, "no_word") and "9000" in answer.json()["detail"]
    client.post("/ngrams", ndjson([{"tokens": [9000, 9001], "remove": True}]), headers=NDJSON)
    for bad in "<unk>", "</s>", "<s>":
        count(client, [bad + " to"])
        assert client.get("/arpa", text="true").code == "no_word", bad
        count(client, [bad + " to"], remove="true")
        assert client.get("/arpa", text="true").status == 200
    assert client.get("/arpa", text="true", db="default").code == "not_live"


def test_reducers(client):
    """counts and topk decoded, totals and similar: the word of each token, the words of each context; `to` is a name or its words."""
    count(client, ["to be or not to be", "to be or else", "or not"], order=3)
    client.post("/reduce/smooth/cnt:")
    words = lambda line: tuple(line["words"])  # noqa: E731
    counts = client.get("/reduce/counts/cnt:2:", decode="true", text="true").entries()
    assert {words(line): {f[2]: f[1] for f in line["followers"]} for line in counts} == {
        ("to",): {"be": 3}, ("be",): {"or": 2}, ("or",): {"not": 2, "else": 1}, ("not",): {"to": 1}}
    plain = client.get("/reduce/counts/cnt:2:", decode="true").entries()
    assert [[f[:2] for f in line["followers"]] for line in counts] == [line["followers"] for line in plain]
    root = client.get("/reduce/counts/cnt:1:", decode="true", text="true").entries()
    assert len(root) == 1 and root[0]["name"] == "cnt:1:__root__" and {f[2]: f[1] for f in root[0]["followers"]} == {"to": 3, "be": 3, "or": 3, "not": 2, "else": 1}
    best = client.get("/reduce/topk/topk:3:", decode="true", text="true").entries()
    assert {words(line): [r[2] for r in line["ranked"]] for line in best}[("to", "be")] == ["or"]
    probs = client.get("/reduce/probabilities/prob:", decode="true", text="true").entries()
    bare = client.get("/reduce/probs/prob:", decode="true").entries()
    assert [[e[:3] for e in line["entries"]] for line in probs] == [line["entries"] for line in bare] and any(line["entries"][0][2] for line in bare)
    token = {t: w for w, t in vocabulary(client).items()}
    assert all(e[3] == token[e[0]] for line in probs for e in line["entries"])
    assert {words(line) for line in probs if line["order"] == 2} == {("to",), ("be",), ("or",), ("not",)} and ("to", "be") in {words(line) for line in probs if line["order"] == 3}
    paged, after = [], None
    while True:
        page = client.get("/reduce/counts/cnt:2:", decode="true", text="true", limit=1, **({"after": after} if after else {}))
        paged += page.entries()
        after = page.end["next"]
        if after is None:
            break
    assert paged == counts
    totals = client.get("/reduce/totals/cnt:1:", text="true", sort="count", limit=2).entries()
    assert [line["word"] for line in totals] == ["to", "be"] and totals[0]["count"] == 3
    assert client.get("/reduce/totals/cnt:1:").entries()[0].keys() == {"token", "count", "contexts"}
    name = next(unb64(line["pair"]) for line in counts if words(line) == ("or",))
    near = client.get("/reduce/similar/cnt:2:", to=hexed(name), text="true").entries()
    assert {words(line) for line in near} == {("to",), ("be",), ("not",)}
    assert client.get("/reduce/similar/cnt:2:", to="or", text="true").entries() == near
    assert {words(line) for line in client.get("/reduce/similar/cnt:3:", to="or not", text="true").entries()} >= {("to", "be"), ("be", "or")}
    assert client.get("/reduce/similar/cnt:2:", to="never").code == client.get("/reduce/similar/cnt:2:", to="never", text="true").code == "pair_not_found"
    assert client.get("/reduce/similar/cnt:2:", to="a b c d e f g h i", text="true").code == "pair_not_found"
    assert client.get("/reduce/stats/cnt:2:", text="true").code == "unknown_parameter"
    client.upsert(b"cnt:2:broken", b"\x01\x02")
    client.upsert(b"prob:2:broken", b"\x01\x02\x00\x05")
    client.upsert(b"prob:2:bare", b"\x01\x02\x00\x01" + struct.pack(">IBH", 77, 200, 0xFFFF))
    assert [line.get("problem") for line in client.get("/reduce/counts/cnt:2:b", decode="true", text="true").entries()] == ["malformed_payload"]
    bare, broken = client.get("/reduce/probabilities/prob:2:b", decode="true", text="true").entries()
    assert bare["entries"] == [[77, 200, None, None]] and "words" not in bare and broken["problem"] == "malformed_payload"


# ---- models in ARPA format


ARPA = ("\\data\\\nngram 1=6\nngram 2=3\n\n\\1-grams:\n-1\t<unk>\t0\n0\t<s>\t-0.5\n-0.5\t</s>\t0\n-0.75\tto\t-0.25\n-1.25\tbe\t-0.5\n-2\t\u00e4rger\t0\n\n"
        "\\2-grams:\n-0.25\t<s> to\n-0.5\tto be\n-0.5\tbe </s>\n\n\\end\\\n")


def read_in(client, text, status=201, **params):
    answer = client.post("/arpa", text if isinstance(text, bytes) else text.encode(), headers={"Content-Type": "text/plain"}, text="true", **params)
    assert answer.status == status, answer
    return answer


def test_the_words_of_a_model_that_is_read_in(client):
    read = read_in(client, ARPA).json()
    assert (read["new_words"], read["ngrams"], read["warnings"]) == (3, [6, 3], [])
    assert vocabulary(client) == {"to": 4, "be": 5, "\u00e4rger": 6}
    assert [(line["token"], line["word"]) for line in client.get("/vocabulary").lines()[:-1]] == [(4, "to"), (5, "be"), (6, "\u00e4rger")]
    assert client.get("/arpa", text="true").body.decode() == ARPA
    assert client.get("/arpa").body.decode() == ARPA.replace("to", "4").replace("be", "5").replace("\u00e4rger", "6")
    score = client.post("/score", json_body={"text": "to be nobody"}, text="true").json()
    assert score["words"] == ["to", "be", "<unk>", "</s>"] and score["per_token"] == [-0.25, -0.5, -1.5, -0.5] and score["oov"] == 1
    answer = client.post("/predict", json_body={"text": "to", "k": 2}, text="true").json()
    assert [(c["word"], c["log10"]) for c in answer["candidates"]] == [("be", -0.5), ("</s>", -0.75)] and answer["context"] == ["to"]
    assert count(client, ["to be"], 409) and vocabulary(client) == {"to": 4, "be": 5, "\u00e4rger": 6}


def test_a_vocabulary_that_was_there(client):
    """Known words keep their tokens, new ones get the next; what is refused leaves the vocabulary as it was."""
    count(client, ["not to be"], order="2")
    count(client, ["not to be"], order="2", remove="true")
    assert vocabulary(client) == {"not": 4, "to": 5, "be": 6} and client.get("/pairs/cnt:", count="true").json()["pairs"] == 0
    before = stored(client)
    for text, params, detail in (
            (ARPA.replace("\u00e4rger", "x" * 4093), {}, "line 11: a word of more than 4092 bytes"), (ARPA.encode().replace(b"\xc3\xa4", b"\xe4"), {}, "line 11: a word of 5 bytes is not UTF-8"),
            (ARPA.replace("\u00e4rger", "\0"), {}, "line 11"), (ARPA.replace("\u00e4rger", "a\r"), {}, "line 11"), (ARPA.replace("-0.5\tto be", "-0.5\tto see"), {}, "line 15: the word 'see' is no 1-gram"),
            (ARPA, {"unk": "6"}, "line 10: the word 'be' has the token 6"), (ARPA.replace("\u00e4rger", "to"), {}, "lines 9 and 11"), (ARPA[:-7], {}, "cut off")):
        answer = read_in(client, text, 400, **params)
        assert answer.code == "invalid_arpa" and detail in answer.json()["detail"], answer
        assert stored(client) == before
    assert read_in(client, ARPA, bos="7", unk="8").json()["new_words"] == 1
    assert vocabulary(client) == {"not": 4, "to": 5, "be": 6, "\u00e4rger": 9}
    assert sorted(client.get("/arpa", text="true").body.decode().splitlines()) == sorted(ARPA.splitlines())
    assert client.post("/score", json_body={"text": "not to"}, text="true").json()["oov"] == 1, "a word of the vocabulary that is no 1-gram"


def test_the_words_of_a_live_model_go_out_and_come_in(client, server):
    """The text of a live model is read into another database and written out again, byte for byte; answers by words are the same."""
    live(client)
    count(client, LINES)
    text = client.get("/arpa", text="true").body
    other = server.client(db=client.db + "-read")
    assert read_in(other, text, bos="5", eos="7").json()["new_words"] == len(vocabulary(client))
    assert other.get("/arpa", text="true").body == text
    for line in LINES + ["nobody knows to be", ""]:
        one, two = (c.post("/score", json_body={"text": line}, text="true").json() for c in (client, other))
        assert one["words"] == two["words"] and one["orders"] == two["orders"] and one["per_token"] == pytest.approx(two["per_token"], abs=1e-5)
    other.delete("/databases/" + other.db, confirm=other.db)


def test_many_words_come_in(client, server, launch):
    """20 000 words in pieces; with too little memory for them nothing is left."""
    rng = random.Random(5)
    words = ["w%x" % rng.getrandbits(60) for _ in range(20000)]
    pairs = sorted({(rng.choice(words), rng.choice(words)) for _ in range(30000)}, key=lambda p: rng.random())
    text = "\\data\\\nngram 1=%d\nngram 2=%d\n\\1-grams:\n-2\t<unk>\n0\t<s>\t-1\n-2\t</s>\n" % (len(words) + 3, len(pairs))
    text += "".join("-%d.25\t%s\t-0.5\n" % (i % 5, w) for i, w in enumerate(words)) + "\\2-grams:\n"
    text += "".join("-0.%d\t%s %s\n" % (i % 7 + 1, a, b) for i, (a, b) in enumerate(pairs)) + "\\end\\\n"
    assert read_in(client, text).json()["new_words"] == len(words)
    assert vocabulary(client) == {w: 4 + i for i, w in enumerate(words)}
    out = client.get("/arpa", text="true").body.decode().splitlines()
    assert sorted(line.replace("\t0", "") for line in out if "\t" in line) == sorted(line for line in text.splitlines() if "\t" in line)
    enough = launch("--durability", "os", "--request-memory-bytes", "12M").client(db="enough")  # 600 bytes a word
    assert read_in(enough, text).json()["new_words"] == len(words)
    small = launch("--durability", "os", "--request-memory-bytes", "6M").client(db="small")
    assert read_in(small, text, 413).code == "request_too_large"
    small.put("/databases/small")
    assert small.get("/databases/small").json()["pairs"] == 0
