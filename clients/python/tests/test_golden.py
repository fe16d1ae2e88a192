"""The example of tests/data/golden: documents counted and smoothed are the exact pairs, and predict and score follow."""
from harness import golden, layouts
import pytest
from conftest import QUICK, url_of

from cheetah_http import Client, payloads


@pytest.fixture(scope="module")
def example(server):
    with Client(url_of(server), database="example", retry=QUICK) as db:
        counted = db.ngrams(golden.documents(), order=golden.ORDER)
        assert counted.documents == len(golden.documents())
        db.smooth(orders="1-3", topk=20)
        yield db
        db.drop_database("example")


def test_is_there():
    assert golden.available(), "the example is part of the sources"


def test_the_pairs(example):
    assert {row.pair: row.value for row in example.pairs(values=True)} == golden.pairs()


def test_the_discounts(example):
    for order, want in golden_parameters().items():
        have = example.counts_of_counts(b"cnt:%d:" % order)
        assert (have.d1, have.d2, have.d3) == pytest.approx((want["D1"], want["D2"], want["D3p"]), rel=1e-15)
        assert (have.contexts, have.types) == (want["total_contexts"], want["total_types"])


def golden_parameters():
    import json
    import os

    with open(os.path.join(golden.FOLDER, "params.json"), encoding="utf-8") as file:
        return {int(order): values for order, values in json.load(file)["discounts"].items()}


def test_predictions(example):
    model = layouts.Model(golden.pairs())
    for document in golden.documents()[:40]:
        for size in (1, 2, 5):
            tokens = document[:size]
            levels = list(model.levels(tokens, 10, 3))
            order, context, best = levels[0]
            answer = example.predict(tokens, k=10)
            assert (answer.order, list(answer.context)) == (order, list(context))
            assert [(c.token, c.q) for c in answer.candidates] == best
            assert [c.p for c in answer.candidates] == pytest.approx([payloads.dequantize(q) for _, q in best])
            have = example.predict_levels(tokens, k=10)
            assert [(p.order, [(c.token, c.q) for c in p.candidates]) for p in have] == [(o, b) for o, _, b in levels]
            want = model.blend(tokens, 10, 3)
            have = example.predict(tokens, k=10, blend=True).candidates
            assert [c.p for c in have] == pytest.approx([p for _, p in want])


def test_scores(example):
    model = layouts.Model(golden.pairs())
    for document in golden.documents()[:40]:
        for mode in "blend", "deepest":
            score, want = example.score(document, mode=mode), model.score(document, blend=mode == "blend")
            assert score.per_token == pytest.approx([log10 for log10, _ in want])
            assert score.orders == [order for _, order in want] and score.oov == score.orders.count(0)
            assert (score.perplexity is None) == (mode == "deepest")
    texts = golden.documents()[:40]
    assert example.scores(texts) == [example.score(text) for text in texts]
    assert example.scores(texts[:1], mode="deepest") == [example.score(texts[0], mode="deepest")] and example.scores([]) == []
    assert example.predictions(texts, k=3, blend=True) == [example.predict(text, k=3, blend=True) for text in texts]
