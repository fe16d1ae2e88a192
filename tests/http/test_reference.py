"""Counting, smoothing and asking against the formulas written down plainly (tests/lm/reference.py), byte for byte: orders 1 to 8,
texts from seeds and texts that are odd, fed in requests of any size."""
import random

import pytest
import reference
from harness import ndjson, unb64

NDJSON = {"Content-Type": "application/x-ndjson"}
LAST = 2**32 - 1


def documents_of(seed, tokens, vocabulary, far=True):
    """A Zipf text; some tokens are anywhere in 32 bits."""
    rng = random.Random(seed)
    words = [rng.randrange(2**32) if far and rng.random() < 0.1 else i for i in range(vocabulary)]
    weights = [1 / (i + 1) for i in range(vocabulary)]
    result = []
    while tokens > 0:
        n = rng.choice((0, 1, 2, 3, 8, 8, 20, 60))
        result.append(rng.choices(words, weights, k=n))
        tokens -= n
    return result


ODD = {
    "nothing": [],
    "empty documents": [[], [], []],
    "one token each": [[5], [6], [5]],
    "one pair": [[1, 2]],
    "one token repeated": [[7] * 300],
    "the same document": [[3, 1, 4, 1, 5, 9, 2, 6]] * 50,
    "the ends of 32 bits": [[0, LAST, 0, LAST, LAST, 0, LAST - 1, 1], [LAST, LAST, LAST], [0, 0, 0, 0], [2**31, 2**31 - 1, 2**31]],
    "all different": [list(range(1000, 1400))],
    "short and long": [[1, 2], [], [3], list(range(50)) * 4, [2, 1]],
    "permutations": [[1, 2, 3, 9], [3, 2, 1, 9], [2, 3, 1, 8], [1, 3, 2, 9], [3, 1, 2, 8], [2, 1, 3, 9]],
    "near the buckets of the counts": [[1, t] for t in range(2, 12) for _ in range(t - 1)],
    "more contexts than a byte": [[t, t + 1, t + 2] for t in range(0, 900, 3)],
}


def feed(client, documents, order, rng):
    """In requests of any size, in order."""
    client.put("/databases/" + client.db)
    at = 0
    while at < len(documents) or at == 0:
        size = rng.choice((1, 2, 7, 40, 1000))
        answer = client.post("/ngrams", ndjson({"tokens": d} for d in documents[at:at + size]), headers=NDJSON, order=str(order))
        assert answer.status == 200, answer
        at += size


def model_of(documents, order, topk=20):
    model = reference.Model(order, topk)
    for document in documents:
        model.add(document)
    model.smooth()
    return model


def compare(client, documents, order, topk=20, seed=0):
    model = model_of(documents, order, topk)
    feed(client, documents, order, random.Random(seed))
    answer = client.post("/reduce/smooth/cnt:", topk=str(topk))
    if not model.contexts:
        assert answer.status == 404 and answer.code == "pair_not_found"
        assert client.scan() == []
        return model
    assert answer.status == 200, answer
    have, want = {pair: value for pair, _, value in client.scan(values="true")}, model.pairs()
    assert set(have) == set(want)
    wrong = sorted(pair for pair in want if have[pair] != want[pair])
    assert not wrong, "%d of %d payloads differ, first %r: %s for %s" % (len(wrong), len(want), wrong[0], have[wrong[0]].hex(), want[wrong[0]].hex())
    results = [line for line in answer.entries() if "order" in line]
    got = [(line["order"], line["contexts"], line["types"], line["d1"], line["d2"], line["d3"]) for line in results]
    assert got == [r for r in model.results if r[1] > 0], "doubles are equal, not close"
    return model


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_orders_and_seeds(client, order, seed):
    compare(client, documents_of(seed * 100 + order, 1500, (20, 200, 2000)[seed - 1]), order, topk=(20, 1, 32)[seed - 1], seed=seed)


@pytest.mark.parametrize("text", sorted(ODD))
@pytest.mark.parametrize("order", [1, 2, 3, 8])
def test_odd_texts(client, text, order):
    compare(client, ODD[text], order)


def test_a_longer_text(client):
    compare(client, documents_of(77, 8000, 1500), 4)


def test_counting_again_after_smoothing(client):
    first, second = documents_of(5, 800, 50), documents_of(6, 800, 50)
    compare(client, first, 3)
    feed(client, second, 3, random.Random(1))
    client.post("/reduce/smooth/cnt:")
    have, want = {pair: value for pair, _, value in client.scan(values="true")}, model_of(first + second, 3).pairs()
    shared = {p for p in want if p.startswith(b"ctxv:")}  # who came last has it: as in one text
    assert {p: v for p, v in have.items() if p not in shared} == {p: v for p, v in want.items() if p not in shared}
    assert set(have) == set(want)


# ---- asking


@pytest.fixture(scope="module")
def asked(server):
    client, documents = server.client(db="reference-asked"), documents_of(9, 6000, 300)
    feed(client, documents, 5, random.Random(2))
    client.post("/reduce/smooth/cnt:")
    yield client, model_of(documents, 5), documents
    client.delete("/databases/reference-asked", confirm="reference-asked")


def questions(documents, number, seed):
    rng = random.Random(seed)
    documents = [d for d in documents if d]
    for _ in range(number):
        document = rng.choice(documents)
        at = rng.randrange(len(document))
        tokens = document[max(0, at - rng.randrange(12)):at + 1]
        kind = rng.random()
        if kind < 0.15:
            tokens = tokens + [rng.choice((LAST, 999999))]  # unknown at the end: the root answers
        elif kind < 0.3:
            tokens = [999999] + tokens[-2:]  # unknown before what is known
        elif kind < 0.4:
            tokens = (tokens * 40)[:200]  # far longer than any order
        yield tokens, rng.choice((1, 2, 20, 100000)), rng.choice((1, 2, 3, 5, 8, 9, 4000000000))
    yield [], 20, 5
    yield [], 1, 1
    yield [999999], 20, 5
    yield [0], 100000, 5


def body(tokens, k, top, mode):
    return {"tokens": tokens, "k": k, "max_order": top, "mode": mode}


def test_deepest(asked):
    client, model, documents = asked
    for tokens, k, top in questions(documents, 150, 1):
        got = client.post("/predict", json_body=body(tokens, k, top, "deepest")).json()
        order, best = model.deepest(tokens, k, top)
        assert (got["order"], [(c["token"], c["q"]) for c in got["candidates"]]) == (order, best)
        assert got["context"] == tokens[len(tokens) - order + 1:]
        assert [c["p"] for c in got["candidates"]] == [reference.dequantize(q) for _, q in best]


def test_levels(asked):
    client, model, documents = asked
    for tokens, k, top in questions(documents, 80, 2):
        answer = client.post("/predict", json_body=body(tokens, k, top, "levels"))
        want = []
        for n in model.orders(tokens, min(top, 8)):
            entry = model.entry(tokens, n) if n <= model.order else None
            want.append((n, tokens[len(tokens) - n + 1:], model.best(entry[0], k) if entry else []))
        got = [(line["order"], line["context"], [(c["token"], c["q"]) for c in line["candidates"]]) for line in answer.entries()]
        assert got == want


def test_blend(asked):
    client, model, documents = asked
    for tokens, k, top in questions(documents, 100, 3):
        got = client.post("/predict", json_body=body(tokens, k, top, "blend")).json()
        order, best = model.blend(tokens, k, top)
        assert got["order"] == order
        assert [(c["token"], c["q"], c["p"]) for c in got["candidates"]] == best


def test_score(asked):
    client, model, documents = asked
    for tokens, _, top in questions(documents, 150, 4):
        for mode in "blend", "deepest":
            got = client.post("/score", json_body={"tokens": tokens, "max_order": top, "mode": mode}).json()
            total, each = model.score(tokens, top, blend=mode == "blend")
            assert got["per_token"] == [log10 for _, log10 in each] and got["log10"] == total
            assert got["orders"] == [order for order, _ in each] and got["oov"] == got["orders"].count(0)
            if mode == "deepest":
                assert "perplexity" not in got
            elif each:
                known = [log10 for order, log10 in each if order]
                assert got["perplexity"] == (pytest.approx(10 ** (-sum(known) / len(known)), rel=1e-12) if known else None)
                assert got["perplexity_with_oov"] == pytest.approx(10 ** (-total / len(each)), rel=1e-12)
            else:
                assert got["tokens"] == 0 and got["perplexity"] is None


def test_answers_without_max_order_are_those_of_all_orders(asked):
    client, model, documents = asked
    for tokens, k, _ in questions(documents, 40, 5):
        for mode in ("deepest", "levels", "blend"):
            free = client.post("/predict", json_body={"tokens": tokens, "k": k, "mode": mode})
            assert free.body == client.post("/predict", json_body=body(tokens, k, 5, mode)).body
        assert client.post("/score", json_body={"tokens": tokens}).body == client.post("/score", json_body={"tokens": tokens, "max_order": 5}).body


# ---- Absolute Vector Order


def shuffled(rng, tree):
    if isinstance(tree, int):
        return tree
    tree = [shuffled(rng, child) for child in tree]
    rng.shuffle(tree)
    return tree


def test_any_permutation_of_siblings_is_the_same_vector(client):
    """The tree stands under its encoding; every permutation of it finds exactly that."""
    rng = random.Random(12)
    for i in range(60):
        tree, depth = reference.random_tree(rng, 4), rng.choice((None, None, 0, 1, 2, 3))
        vector = reference.avo(tree, depth)
        client.put_all({b"ctxv:" + vector: b"\1\1\1" + (i).to_bytes(4, "big")})
        for _ in range(3):
            answer = client.post("/contexts", json_body={"tree": shuffled(rng, tree), "depth": depth, "limit": 10000})
            lines = answer.entries()
            assert unb64(lines[0]["vector"]) == vector and lines[0]["tokens"] == [i]
            assert all(unb64(line["vector"]).startswith(vector) for line in lines)
    # other leaves, another vector
    assert reference.avo([[1, 2], [3]]) != reference.avo([[1, 3], [2]]) != reference.avo([[1], [2, 3]])


def test_a_tree_written_twice_is_one_key_and_one_payload(client):
    """Contexts of the same tokens lead to one vector, whichever order they were met in, and counting adds no second value."""
    documents = [[1, 2, 3, 4], [4, 3, 2, 1], [2, 1, 3, 4]]
    feed(client, documents, 4, random.Random(0))
    first = dict(client.scan(b"ctxv:"))
    values = len(client.get("/kv", values="false").entries())
    feed(client, documents, 4, random.Random(0))
    assert dict(client.scan(b"ctxv:")) == first
    assert len(client.get("/kv", values="false").entries()) == values
    vectors = {reference.avo([[t] for t in d[i:i + n]]) for d in documents for n in (1, 2, 3) for i in range(len(d) - n)}
    assert set(first) == {b"ctxv:" + v for v in vectors}


@pytest.mark.parametrize("page", [1, 2, 7, 50, 10000])
def test_paging_of_contexts(asked, page):
    client, _, _ = asked
    whole = client.post("/contexts", json_body={"tree": [], "depth": 0, "limit": 10000}).entries()  # 01 A0 00: nothing
    assert whole == []
    vectors = sorted(pair[5:] for pair, _ in client.scan(b"ctxv:"))
    # one leaf: [[t]] is a vector of its own; pages over all vectors of one length have no common tree, so put some that do
    mine = client.server.client(db="reference-paging-%d" % page)
    tree = [[5, 6], [7]]
    start = reference.avo(tree)
    names = sorted({start + bytes([i % 256]) * (i // 256 + 1) for i in range(1, 700)} | {start})
    mine.put_all({b"ctxv:" + v: b"\1\1\1" + bytes([0, 0, 0, 9]) for v in names})
    mine.put_all({b"ctxv:" + start[:-1]: b"\1\0\0", b"ctxv:" + start[:-1] + b"\xff" * 9: b"\1\0\0"})
    got, after, pages = [], None, 0
    while True:
        answer = mine.post("/contexts", json_body={"tree": tree, "limit": page, "after": after})
        lines = answer.entries()
        assert len(lines) <= page and answer.end["count"] == len(lines)
        got += [unb64(line["vector"]) for line in lines]
        pages += 1
        after = answer.end["next"]
        if after is None:
            break
        assert len(lines) == page and bytes.fromhex(after[1:]) == got[-1]
    assert got == names and pages >= len(names) // page
    assert len(vectors) > 1000
    mine.delete("/databases/" + mine.db, confirm=mine.db)
