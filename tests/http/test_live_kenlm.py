"""The live model beside KenLM's own programs, on texts made up here: KENLM_BIN is the folder of lmplz, query and build_binary; without it
this is skipped. Trained by lmplz and counted here, the texts must get the same numbers; and what GET /arpa writes must be read by
query and build_binary and give the same again."""
import json
import os
import random
import subprocess

import pytest
from harness import ndjson

BIN = os.environ.get("KENLM_BIN")
pytestmark = pytest.mark.skipif(not BIN, reason="KENLM_BIN does not say where lmplz, query and build_binary are")
NDJSON = {"Content-Type": "application/x-ndjson"}


def text(rng, documents, vocabulary):
    """Sentences with words that follow one another: each has a few successors."""
    after = {w: [4 + int(rng.paretovariate(0.9)) % vocabulary for _ in range(4)] for w in range(4, 4 + vocabulary)}
    out = []
    for _ in range(documents):
        words = [4 + int(rng.paretovariate(0.9)) % vocabulary]
        while rng.random() < 0.9 and len(words) < 40:
            words.append(rng.choice(after[words[-1]]) if rng.random() < 0.7 else 4 + int(rng.paretovariate(0.9)) % vocabulary)
        out.append(words)
    # lmplz counts the last n-gram of each lower order wrongly (kenlm 427): the newest word stands once, in one place.
    return out + [[4 + vocabulary]]


def run(program, *arguments, given=None):
    return subprocess.run([os.path.join(BIN, program), *arguments], input=given, capture_output=True, check=True, timeout=300).stdout.decode()


def as_lines(documents):
    return "".join(" ".join(map(str, words)) + "\n" for words in documents).encode()


def queried(model, documents):
    """[(log10, matched, unknown)] of each token, per sentence."""
    out = [[]]
    for part in run("query", "-v", "word", model, given=as_lines(documents)).replace("\n", "\t").split("\t"):
        word, said, numbers = part.rpartition("=")
        if said and len(numbers.split()) == 3:
            i, n, p = numbers.split()
            out[-1].append((float(p), int(n), int(i) == 0))
            if word == "</s>":
                out.append([])
    return out[:-1]


def scores(client, documents):
    answer = client.post("/score", ndjson({"tokens": [2] + words + [3]} for words in documents), headers=NDJSON)
    assert answer.status == 200
    return [json.loads(line) for line in answer.body.splitlines()][:-1]


def same(want, have):
    assert len(want) == len(have)
    for w, h in zip(want, have):
        assert len(w) == len(h["per_token"])
        for (log10, matched, unknown), mine, order in zip(w, h["per_token"], h["orders"]):
            assert abs(log10 - mine) < 1e-5 and order == (0 if unknown else matched), (w, h)


@pytest.mark.parametrize("order,vocabulary,documents", [(2, 40, 300), (3, 400, 1500), (5, 900, 2500), (6, 60, 400)])
def test_equal_to_lmplz_and_read_by_query(client, tmp_path, order, vocabulary, documents):
    rng = random.Random(order * 1000 + vocabulary)
    training, held_out = text(rng, documents, vocabulary), text(rng, 60, vocabulary + 30)
    gone = text(rng, 100, vocabulary + 50)
    (tmp_path / "text").write_bytes(as_lines(training))
    arpa = str(tmp_path / "lmplz.arpa")
    run("lmplz", "-o", str(order), "-S", "200M", "-T", str(tmp_path), "--discount_fallback", "--text", str(tmp_path / "text"), "--arpa", arpa)
    client.put("/databases/" + client.db, json_body={"live": {"order": order, "bos": 2, "eos": 3}, "keep": []})
    for part, remove in ((gone, "false"), (training, "false"), (gone, "true")):
        answer = client.post("/ngrams", ndjson({"tokens": [2] + words + [3]} for words in part), headers=NDJSON, remove=remove)
        assert answer.status == 200, answer
    mine = scores(client, held_out)
    same(queried(arpa, held_out), mine)
    exported = tmp_path / "exported.arpa"
    exported.write_bytes(client.get("/arpa").body)
    same(queried(str(exported), held_out), mine)
    for kind in "probing", "trie":
        binary = str(tmp_path / kind)
        run("build_binary", "-T", str(tmp_path / "t"), kind, str(exported), binary)
        same(queried(binary, held_out), mine)


@pytest.mark.parametrize("order,prune", [(3, "0"), (4, "0 1 1 2")])
def test_what_lmplz_writes_is_read_in(client, tmp_path, order, prune):
    """Its text, pruned too, goes in; answers are query's; what goes out again is read by query and build_binary and says the same."""
    rng = random.Random(order)
    training, held_out = text(rng, 2500, 600), text(rng, 80, 660)
    (tmp_path / "text").write_bytes(as_lines(training))
    arpa = str(tmp_path / "lmplz.arpa")
    run("lmplz", "-o", str(order), "-S", "200M", "-T", str(tmp_path), "--discount_fallback", "--prune", *prune.split(), "--text", str(tmp_path / "text"), "--arpa", arpa)
    answer = client.post("/arpa", open(arpa, "rb").read())
    assert answer.status == 201 and answer.json()["warnings"] == []
    mine = scores(client, held_out)
    same(queried(arpa, held_out), mine)
    exported = tmp_path / "exported.arpa"
    exported.write_bytes(client.get("/arpa").body)
    assert exported.read_bytes().count(b"\n") == open(arpa, "rb").read().count(b"\n")
    same(queried(str(exported), held_out), mine)
    for kind in "probing", "trie":
        run("build_binary", "-T", str(tmp_path / "t"), kind, str(exported), str(tmp_path / kind))
        same(queried(str(tmp_path / kind), held_out), mine)


def grams(text):
    """{words: (log10 p, log10 back-off)}; what is p = 0 is -99, as lmplz's -inf."""
    rows = {}
    for line in text.decode().splitlines():
        if "\t" in line:
            p, words, *weight = line.split("\t")
            rows[words] = (max(float(p), -99.0), max(float(weight[0]), -99.0) if weight else 0.0)
    return rows


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_each_prefix_of_a_text(client, tmp_path, order):
    """Every n-gram and weight after each of the first documents, as lmplz has them of just those; order 1 too, which query does not read."""
    rng = random.Random(order + 20)
    documents = text(rng, 400 if os.environ.get("CHT_TEST_LONG") else 30, 12)[:-1]
    newest = [[1000]]  # once, in one place, as in text()
    client.put("/databases/" + client.db, json_body={"live": {"order": order, "bos": 2, "eos": 3}, "keep": []})

    def change(part, remove):
        lines = ndjson({"tokens": [2] + words + [3]} for words in part)
        assert client.post("/ngrams", lines, headers=NDJSON, remove=remove).status == 200

    fallbacks = 0
    for n in range(1, len(documents) + 1):
        change([documents[n - 1], *newest], "false")
        want = grams(run("lmplz", "-o", str(order), "-S", "50M", "-T", str(tmp_path), "--discount_fallback", given=as_lines(documents[:n] + newest)).encode())
        have = grams(client.get("/arpa").body)
        assert have.keys() == want.keys(), n
        for words, (p, weight) in want.items():
            assert words == "<s>" or abs(have[words][0] - p) < 1e-5, (n, words)
            assert abs(have[words][1] - weight) < 1e-5, (n, words)
        fallbacks += any(o["fallback"] for o in client.get("/databases/" + client.db).json()["live"]["orders"])
        change(newest, "true")
    assert 0 < fallbacks <= len(documents)


def spelled(documents):
    return [["word%d" % w for w in words] for words in documents]


@pytest.mark.parametrize("order", [3, 5])
def test_words_of_what_lmplz_writes(client, server, tmp_path, order):
    """Its text goes in with its words; asked by words the answers are query's. Written out with them query says of it what it said of the first, and
    read in once more into a database that has other words already it is the same again."""
    rng = random.Random(order + 50)
    training, held_out = spelled(text(rng, 1500, 500)), spelled(text(rng, 60, 560))
    (tmp_path / "text").write_bytes(as_lines(training))
    arpa = str(tmp_path / "lmplz.arpa")
    run("lmplz", "-o", str(order), "-S", "200M", "-T", str(tmp_path), "--discount_fallback", "--text", str(tmp_path / "text"), "--arpa", arpa)
    want = queried(arpa, held_out)
    other = server.client(db=client.db + "-other")
    partly = [{"text": "these are there before word7 word5"}]
    for remove in "false", "true":
        assert other.post("/ngrams", ndjson(partly), headers=NDJSON, text="true", order="2", remove=remove).status == 200
    source = arpa
    for where in client, other:
        answer = where.post("/arpa", open(source, "rb").read(), text="true")
        assert answer.status == 201 and answer.json()["warnings"] == []
        asked = where.post("/score", ndjson({"text": " ".join(words)} for words in held_out), headers=NDJSON, text="true")
        same(want, [json.loads(line) for line in asked.body.splitlines()][:-1])
        source = str(tmp_path / (where.db + ".arpa"))
        with open(source, "wb") as out:
            out.write(where.get("/arpa", text="true").body)
        assert queried(source, held_out) == want
        assert sorted(open(source, "rb").read().split()) == sorted(open(arpa, "rb").read().replace(b"-99\t<s>", b"0\t<s>").split())
    other.delete("/databases/" + other.db, confirm=other.db)
