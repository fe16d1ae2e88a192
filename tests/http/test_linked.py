"""/predict with "links": the distribution of a context mixed with those of its most related ones, against plain sums over the unmixed answers."""
import random
import struct

import pytest
from harness import hexed, layouts, ndjson, unb64

NDJSON = {"Content-Type": "application/x-ndjson"}
ALL = 100000


def documents(seed=1, n=150, tokens=30):
    rng = random.Random(seed)
    return [[2] + [4 + min(int(rng.paretovariate(0.8)), tokens) for _ in range(rng.randrange(2, 9))] + [3] for _ in range(n)]


def count(client, docs, **params):
    assert client.post("/ngrams", ndjson({"tokens": d} for d in docs), headers=NDJSON, **params).status == 200


def ask(client, tokens, status=200, **members):
    answer = client.post("/predict", json_body=dict({"tokens": tokens, "k": ALL}, **members))
    assert answer.status == status, answer
    return answer.json()


def find(client, prefix=b"cnt:", **params):
    assert client.post("/reduce/links/" + hexed(prefix), **params).status == 200


def pair_of(context):
    name = layouts.context_name(context)
    return b"cnt:%d:" % (len(context) + 1) + name


def links_of(client, context, metric="cosine"):
    """[(tokens, weight)] of the first 20 links of a context, by what is stored."""
    stored = [e["links"] for e in client.get("/reduce/links/" + hexed(b"link:%s:" % metric.encode() + pair_of(context))).entries()]
    found = []
    for link in (stored[0] if stored else [])[:20]:
        _, order, name = unb64(link["pair"]).split(b":", 2)
        tokens = () if name == b"__root__" else next(struct.unpack_from(">%dI" % v[2], v, 3) for _, _, v in client.scan(b"ctx:" + name, values="true"))
        assert len(tokens) == int(order) - 1
        found.append((list(tokens), struct.unpack(">f", struct.pack(">f", link["weight"]))[0]))
    return found


def distribution(answer):
    """{token: p}, summing to 1; None: the unknown token."""
    p = {c["token"]: c["p"] for c in answer["candidates"]}
    if "unknown" in answer:
        p[None] = answer["unknown"]
    total = sum(p.values())
    return {t: x / total for t, x in p.items()}


def mixture(client, answer, weight, links, **members):
    """What the mixture must be: of the unmixed answer and those of the linked contexts."""
    own, all_of_them = distribution(answer), sum(w for _, w in links)
    mixed = {t: (1 - weight if links else 1) * p for t, p in own.items()}
    for tokens, w in links:
        other = ask(client, tokens, max_order=len(tokens) + 1, **members)
        assert other["order"] == len(tokens) + 1
        for t, p in distribution(other).items():
            mixed[t] = mixed.get(t, 0) + weight * w / all_of_them * p
    return mixed


def check(answer, expected):
    assert sum(c["p"] for c in answer["candidates"]) + answer.get("unknown", 0) == pytest.approx(1, abs=1e-9)
    found = {c["token"]: c["p"] for c in answer["candidates"]}
    if None in expected:
        assert answer["unknown"] == pytest.approx(expected.pop(None), abs=1e-12)
    assert found == pytest.approx({t: p for t, p in expected.items() if p > 0 or t in found}, abs=1e-12)
    assert answer["candidates"] == sorted(answer["candidates"], key=lambda c: (-c["p"], c["token"]))


@pytest.fixture
def smoothed(client):
    count(client, documents(), order="3")
    assert client.post("/reduce/smooth/cnt:").status == 200
    return client


@pytest.mark.parametrize("weight", [0.3, 1])
@pytest.mark.parametrize("mode", ["deepest", "blend"])
def test_of_what_was_smoothed(smoothed, mode, weight):
    find(smoothed, min="0.05")
    for question in ([5], [2, 5], [4, 6], [7, 9], [], [9999]):
        plain = ask(smoothed, question, mode=mode)
        mixed = ask(smoothed, question, mode=mode, links=weight)
        assert (mixed["order"], mixed["context"]) == (plain["order"], plain["context"])
        context = plain["context"]
        links = links_of(smoothed, context)
        while not links and context:
            context = context[1:]
            links = links_of(smoothed, context)
        assert mixed["links"] == len(links) and mixed["metric"] == ("cosine" if links else None)
        check(mixed, mixture(smoothed, plain, weight, links, mode=mode))
        few = ask(smoothed, question, mode=mode, links=weight, k=3)
        assert few["candidates"] == mixed["candidates"][:3], "k says how many are shown, not what they are"


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_of_a_live_model(client, weight):
    assert client.put("/databases/" + client.db, json_body={"live": {"order": 3, "bos": 2, "eos": 3}}).status == 200
    count(client, documents(2))
    find(client, metric="jaccard")
    mixed_in = 0
    for question in ([2, 5], [6, 5], [2, 30], [4], [2]):
        plain, mixed = ask(client, question), ask(client, question, links=weight, mode="live")
        assert (mixed["order"], mixed["generation"]) == (plain["order"], plain["generation"])
        links = []
        for context in (question[len(question) - n:] for n in range(plain["order"] - 1, -1, -1)):
            links = links or links_of(client, context, "jaccard")
        reached = [(t, w) for t, w in links if ask(client, t, max_order=len(t) + 1)["order"] == len(t) + 1]
        assert mixed["links"] == len(reached)
        check(mixed, mixture(client, plain, weight, reached))
        mixed_in += len(reached)
    assert mixed_in > 20
    levels = [e for e in client.post("/predict", json_body={"tokens": [2, 5], "mode": "levels", "links": weight, "k": ALL}).entries()]
    assert [e["order"] for e in levels] == list(range(len(levels), 0, -1)) and levels[0] == ask(client, [2, 5], links=weight)


def test_levels(smoothed):
    find(smoothed)
    levels = smoothed.post("/predict", json_body={"tokens": [2, 5], "mode": "levels", "links": 0.5, "k": ALL}).entries()
    assert [e["order"] for e in levels] == [3, 2, 1]
    for level in levels[1:]:
        assert level == ask(smoothed, [2, 5], links=0.5, mode="deepest", max_order=level["order"])


def test_contexts_that_were_seen_seldom(smoothed):
    find(smoothed)
    rows = {p: sum(n for _, n in layouts.read_counts(v)[1]) for p, _, v in smoothed.scan(b"cnt:2:", values="true")}
    tried = set()
    for token in range(4, 35):
        total = rows.get(pair_of([token]), 0)
        if total < 2 or not links_of(smoothed, [token]):
            continue
        plain = distribution(ask(smoothed, [token], max_order=2))
        at, below = (ask(smoothed, [token], max_order=2, links=0.5, seldom=n) for n in (total, total - 1))
        assert at["links"] > 0 and below["links"] == 0 and below["metric"] is None
        assert {c["token"]: c["p"] for c in below["candidates"]} == pytest.approx(plain)
        tried.add(token)
    assert len(tried) > 3


def test_no_links_and_weight_0(smoothed):
    assert ask(smoothed, [5], 409, links=0.5)["code"] == "no_links"
    plain = ask(smoothed, [5])
    assert ask(smoothed, [5], links=0) == plain, "as if it was not said"
    find(smoothed, metric="pmi")
    assert ask(smoothed, [5], 409, links=0.5, metric="cosine")["code"] == "no_links"
    assert ask(smoothed, [5], links=0.5)["metric"] == ask(smoothed, [5], links=0.5, metric="pmi")["metric"] == "pmi"
    find(smoothed, b"cnt:2:", metric="cosine")
    assert ask(smoothed, [5], links=0.5)["metric"] == "cosine", "the first of cosine, jaccard, pmi"


def test_nothing_to_answer(client, need):
    need("/reduce/links/cnt:")
    count(client, documents())
    find(client)
    assert ask(client, [5], 409, links=0.5)["code"] == "not_smoothed"
    assert ask(client, [5], 409, links=0.5, mode="live")["code"] == "not_live"


@pytest.mark.parametrize("wrong", [{"links": -0.1}, {"links": 1.1}, {"links": "1"}, {"links": True}, {"links": None}, {"links": 0.5, "metric": "dice"},
                                   {"links": 0.5, "metric": 1}, {"links": 0.5, "seldom": 0}, {"links": 0.5, "seldom": 1.5}, {"links": 0.5, "k": 0}])
def test_bad_members(smoothed, wrong):
    assert ask(smoothed, [5], 400, **wrong)["code"] == "invalid_parameter"


def test_links_that_lead_nowhere(smoothed):
    """To what is no context, to one that is not there any more, with weights that are no numbers: passed over. A list that lies is an error."""
    link = b"link:cosine:" + pair_of([5])

    def put(*entries, n=None):
        body = b"".join(struct.pack(">H", len(p)) + p + struct.pack(">f", w) for p, w in entries)
        smoothed.upsert(link, struct.pack(">BH", 1, len(entries) if n is None else n) + body)

    plain = ask(smoothed, [5], max_order=2)
    put((b"other", 1), (b"cnt:2:short", 1), (b"cnt:2:nobody.." + b"?", 1), (b"cnt:9:12345678", 1), (pair_of([6]), float("nan")), (pair_of([7]), 0), (pair_of([8]), -1))
    for mode in ("deepest", "blend"):
        mixed = ask(smoothed, [5], links=1, max_order=2, mode=mode)
        assert mixed["links"] == 0
        check(mixed, distribution(ask(smoothed, [5], max_order=2, mode=mode)))
    put((b"cnt:2:nobody..", 1), (pair_of([6]), 0.25))
    mixed = ask(smoothed, [5], links=0.5, max_order=2)
    assert mixed["links"] == 1
    check(mixed, mixture(smoothed, plain, 0.5, [([6], 0.25)]))
    put((pair_of([6]), 0.25), n=2)
    assert ask(smoothed, [5], 409, links=0.5, max_order=2)["code"] == "malformed_payload"
    smoothed.upsert(link, b"\x02\x00\x00")
    assert ask(smoothed, [5], 409, links=0.5, max_order=2)["code"] == "malformed_payload"


def test_by_words_and_many(client):
    texts = ["the old house stood", "the old barn stood", "a new house fell", "a new barn fell", "the old tree stood", "a new tree fell", "a green house stood"]
    client.post("/ngrams", ndjson({"text": t} for t in texts), headers=NDJSON, text="true", order="2")
    client.post("/reduce/smooth/cnt:")
    find(client, b"cnt:2:")
    mixed = client.post("/predict", json_body={"text": "green", "links": 0.5}, text="true").json()
    assert mixed["context"] == ["green"] and mixed["links"] > 0
    assert {"house", "barn", "tree"} <= {c["word"] for c in mixed["candidates"]}, "old and new are like green, and barns and trees may follow"
    questions = [{"text": "green", "links": 0.5}, {"text": "green"}, {"text": "new", "links": 2}]
    answers = [line for line in client.post("/predict", ndjson(questions), headers=NDJSON, text="true").lines()]
    assert answers[0] == mixed and "links" not in answers[1] and answers[2]["error"]["code"] == "invalid_parameter" and answers[3]["end"]["failed"] == 1
