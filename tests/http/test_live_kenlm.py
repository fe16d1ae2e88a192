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
