"""Statistics: bad input, line by line of what can be wrong: a clear code, and nothing half-written."""
import json

import harness
import pytest
from harness import b64, hexed, layouts, ndjson, unb64

NDJSON = {"Content-Type": "application/x-ndjson"}
GOOD = b'{"tokens":[1,2,3,1,2]}\n'


def post(client, body, **params):
    return client.post("/ngrams", body, headers=NDJSON, **params)


def stored(client):
    return {pair: value for pair, _, value in client.scan(values="true")}


@pytest.fixture
def counted(client):
    """A client, and what its database holds."""
    assert post(client, GOOD).status == 200
    return client, stored(client)


# ---- documents


@pytest.mark.parametrize("token", ["-1", "4294967296", "18446744073709551616", "1.5", "1.0", "1e3", '"1"', "null", "true", "[1]", "{}"])
@pytest.mark.parametrize("at", [0, 2])
def test_tokens_out_of_range(counted, token, at):
    client, before = counted
    tokens = ["7", "8"]
    tokens.insert(at, token)
    answer = post(client, GOOD + b'{"tokens":[%s]}\n' % ",".join(tokens).encode() + GOOD)
    assert answer.status == 400 and answer.code in ("invalid_tokens", "invalid_body"), answer
    assert "line 2" in answer.json()["detail"]
    assert stored(client) == before
    for path in ("/predict", "/score"):
        answer = client.post(path, b'{"tokens":[%s]}' % ",".join(tokens).encode(), headers={"Content-Type": "application/json"})
        assert answer.status == 400 and answer.code in ("invalid_tokens", "invalid_body"), answer


@pytest.mark.parametrize("line,code", [
    (b"{", "invalid_body"), (b"[1,2]", "invalid_tokens"), (b"1", ("invalid_tokens", "invalid_body")), (b"{}", "invalid_tokens"), (b'{"tokens":5}', "invalid_tokens"),
    (b'{"tokens":null}', "invalid_tokens"), (b'{"tokens":{"a":1}}', "invalid_tokens"), (b'{"tokens":[1,2]', "invalid_body"),
    (b'{"tokens":[1,2]} x', "invalid_body"), (b'{"tokens":[1],"tokens":[2]}', "invalid_body"), (b"\xff\xfe", "invalid_body"), (b"[" * 5000, "invalid_body")])
def test_lines_that_are_no_documents(counted, line, code):
    client, before = counted
    answer = post(client, GOOD + line + b"\n" + GOOD)
    assert answer.status == 400 and answer.code in (code if isinstance(code, tuple) else (code,)), answer
    assert stored(client) == before


def test_blank_lines_are_none(client):
    assert post(client, b"\n \r\n" + GOOD + b"\n\t\n" + GOOD.rstrip()).json()["documents"] == 2


def written_otherwise(body):
    """The same lines with a member more, which the reader of the common shape leaves to the JSON library."""
    return b"\n".join(line.replace(b"{", b'{"more":[1,"\\u0062"],', 1) for line in body.split(b"\n"))


@pytest.mark.parametrize("text", [False, True])
def test_common_lines_and_unusual_ones_mean_the_same(launch, text):
    """Answers, errors and what is stored: short lines, lines of 64 KiB and more, and those beside them."""
    server = launch("--shards", "2", "--durability", "os", "--max-document-tokens", "20000")
    long = list(range(100, 20100))
    documents = [[2, 4, 5, 3], [], [7], long, [0, 4294967295, 12345678, 9], long + [1], [2, 4, 5, 3]]
    if text:
        documents = [" ".join("w%d" % token for token in document) for document in documents] + ["f\u00fcr \u20ac \U0001f642 f\u00fcr"]
    lines = [json.dumps({"text" if text else "tokens": document}, ensure_ascii=False).encode() for document in documents]
    taken = lines[0][:-1] + b', "remove": true}'
    bodies = [b"\n".join(lines[:5]), b"\n".join(lines[6:] + lines[2:4]), lines[0] + b"\n" + lines[3] + b"\n" + taken + b"\n", b"\n".join(lines), lines[5],
              lines[0] + b"\n\n" + lines[5] + b"\n" + lines[0], b" \r\n\n" + lines[0] + b"\r\n" + taken, taken + b"\n" + taken + b"\n" + taken]
    clients = [server.client(db=name, check=False) for name in ("common", "unusual")]
    seen = set()
    for body in bodies:
        answers = [post(client, sent, order="2", **({"text": "true"} if text else {})) for client, sent in zip(clients, (body, written_otherwise(body)))]
        first, second = (dict(answer.json(), instance=None, request_id=None) for answer in answers)
        assert answers[0].status == answers[1].status and first == second, (body[:80], answers)
        seen.add(answers[0].code if answers[0].status != 200 else 200)
        assert stored(clients[0]) == stored(clients[1])
    assert seen == {200, "body_too_large", "not_counted"}


@pytest.mark.parametrize("order", ["0", "9", "99", "-1", "1.5", "x", "", "18446744073709551617"])
def test_orders_out_of_range(counted, order):
    client, before = counted
    answer = post(client, GOOD, order=order)
    assert answer.status == 400 and answer.code == "invalid_parameter", answer
    assert stored(client) == before
    answer = client.post("/reduce/smooth/cnt:", orders=order)
    assert answer.status == 400 and answer.code == "invalid_parameter", answer
    assert stored(client) == before


def test_a_document_of_a_million_tokens(launch):
    """That many are taken; one more is refused and leaves nothing, not even the documents before it."""
    server = launch("--shards", "3", "--durability", "os", "--access-log", "false")
    client = server.client()
    tokens = [i % 1000 for i in range(1000000)]
    answer = post(client, ndjson([{"tokens": tokens}]), order="2")
    assert answer.status == 200 and answer.json()["tokens"] == 1000000 and answer.json()["ngrams"] == 1999999
    before = client.get("/pairs/*", count="true").json()["pairs"]
    answer = post(client, GOOD + ndjson([{"tokens": tokens + [1]}]), order="2")
    assert answer.status == 413 and answer.code == "body_too_large" and "1000000" in answer.json()["detail"], answer
    assert client.get("/pairs/*", count="true").json()["pairs"] == before
    assert post(client, GOOD).status == 200


def test_limits_can_be_set(launch):
    server = launch("--shards", "3", "--durability", "os", "--max-document-tokens", "10", "--max-ngrams-bytes", "4K")
    client = server.client()
    assert post(client, ndjson([{"tokens": list(range(10))}])).status == 200
    before = stored(client)
    assert post(client, ndjson([{"tokens": list(range(11))}])).code == "body_too_large"
    for chunked in (False, True):
        answer = client.post("/ngrams", ndjson([{"tokens": [1, 2, 3]}] * 1000), headers=NDJSON, chunked=chunked)
        assert answer.status == 413 and answer.code == "body_too_large", answer
    assert stored(client) == before


# ---- counts that are not there, and payloads that lie


def test_a_prefix_without_counts(client):
    client.upsert(b"other", b"v")
    answer = client.post("/reduce/smooth/cnt:")
    assert answer.status == 404 and answer.code == "pair_not_found" and "cnt:" in answer.json()["detail"]
    for prefix in ("prob:", "cnt", "cnt:1:", "*", "x"):
        answer = client.post("/reduce/smooth/" + prefix)
        assert answer.status == 400 and answer.code == "invalid_parameter", answer
    assert client.get("/reduce/totals/cnt:").entries() == []
    line = client.get("/reduce/counts-of-counts/cnt:").entries()[0]
    assert line["contexts"] == 0 and line["types"] == 0 and (line["d1"], line["d2"], line["d3"]) == (0.5, 1.0, 1.5)
    assert client.get("/reduce/similar/cnt:", to="cnt:1:__root__").code == "pair_not_found"
    answer = client.get("/reduce/similar/cnt:", to="other")
    assert answer.outcome[0] in (400, 409), answer
    assert set(stored(client)) == {b"other"}


LIES = [b"x", b"\1", b"\1\1", b"\1\1\0\2" + bytes(8), b"\1\1\xff\xff" + bytes(80), b"\2\1\0\0", b"\2\1\xff\xff\xff\xff" + bytes(8), b"\7\1\0\0",
        layouts.counts(1, [(1, 1), (2, 2)])[:-1]]


def test_counts_with_a_bad_checksum(launch):
    """They are passed over and counted, by adding and by taking away, as those of another layout are: the rest is counted."""
    def readable(client):
        return {line["pair"]: line["value"] for line in client.get("/pairs/", values="true").entries() if line["value"] is not None}

    server = launch("--durability", "os", "--shards", "1", "--scrub-bytes-per-second", "0")
    client = server.client()
    assert post(client, GOOD + ndjson([{"tokens": list(range(1000, 1600))}])).status == 200  # the root's counts have pages of their own
    before = readable(client)
    assert client.post("/databases/default/checkpoint").status == 200
    server.stop()
    harness.damage(server.data, unb64(before[b64(b"cnt:1:__root__")]))
    server.restart()
    client = server.client()
    del before[b64(b"cnt:1:__root__")]
    assert readable(client) == before
    answer = post(client, GOOD + b'{"tokens":[8,9]}\n', once="with-malformed")
    assert answer.status == 200 and answer.json()["malformed"] == 1 and answer.json()["documents"] == 2, answer
    assert post(client, GOOD, once="with-malformed").json() == {**answer.json(), "repeated": True}
    after, pair = readable(client), b64(b"cnt:2:" + layouts.context_name([1]))
    assert set(before) < set(after) and after[pair] != before[pair]
    answer = post(client, GOOD + b'{"tokens":[8,9]}\n', remove="true")
    assert answer.status == 200 and answer.json()["malformed"] == 1, answer
    assert {name: value for name, value in readable(client).items() if name[:8] != b64(b"\x10once:")[:8]} == before


@pytest.mark.parametrize("lie", LIES)
def test_counts_with_a_lying_length(counted, lie):
    client, _ = counted
    client.upsert(b"cnt:1:__root__", lie)
    before = stored(client)
    answer = post(client, GOOD)
    assert answer.status == 200 and answer.json()["malformed"] == 1, "it is passed over: the rest is counted"
    after = stored(client)
    assert after[b"cnt:1:__root__"] == lie and after != before
    assert post(client, GOOD, remove="true").json()["malformed"] == 1 and stored(client) == before
    end = client.post("/reduce/smooth/cnt:").lines()[-1]["end"]
    assert end["malformed"] == 1, "nor does it stop smoothing"
    smoothed = stored(client)
    assert b"prob:1:__root__" not in smoothed and any(p.startswith(b"prob:2:") for p in smoothed)
    assert {p: v for p, v in smoothed.items() if p.startswith((b"cnt:", b"ctx"))} == before
    for mode in ("totals", "counts-of-counts"):
        assert client.get("/reduce/%s/cnt:1:" % mode).end["malformed"] == 1
    line = client.get("/reduce/counts/cnt:1:", decode="true").entries()[0]
    assert line["problem"] == "malformed_payload" and line["payload"] == b64(lie)


@pytest.mark.parametrize("kind", ["prob", "topk"])
def test_answers_with_a_lying_length(counted, kind):
    client, _ = counted
    assert client.post("/reduce/smooth/cnt:").status == 200
    for pair, value in stored(client).items():
        if pair.startswith(kind.encode() + b":"):
            client.upsert(pair, value[:-1])
    answer = client.post("/predict", json_body={"tokens": [1, 2]})
    if kind == "topk":  # the other may answer, but not this
        assert answer.status in (200, 409)
        answer = client.post("/contexts", json_body={"tree": [[1]]})
        assert answer.status == 409 or answer.lines()[-1].get("end") is not None
    else:
        for mode in ("levels", "blend"):
            answer = client.post("/predict", json_body={"tokens": [1, 2], "mode": mode, "k": 1000})
            assert answer.status == 409 and answer.code == "malformed_payload", answer
        answer = client.post("/score", json_body={"tokens": [1, 2, 3]})
        assert answer.status == 409 and answer.code == "malformed_payload", answer


def test_contexts_that_are_none(counted):
    client, _ = counted
    pairs = stored(client)
    context = next(pair for pair in pairs if pair.startswith(b"ctx:") and pairs[pair][2] == 2)
    client.upsert(context, b"\1\2\2\0")
    before = {p: v for p, v in stored(client).items() if p.startswith((b"cnt:", b"ctx"))}
    assert client.post("/reduce/smooth/cnt:").lines()[-1]["end"]["malformed"] == 1, "one that cannot be read is as one that is missing"
    after = stored(client)
    assert {p: v for p, v in after.items() if p.startswith((b"cnt:", b"ctx"))} == before
    client.delete("/pairs/" + hexed(context), values="true")
    assert client.post("/reduce/smooth/cnt:").lines()[-1]["end"]["malformed"] == 0
    assert {p: v for p, v in stored(client).items() if p.startswith(b"prob:")} == {p: v for p, v in after.items() if p.startswith(b"prob:")}
    client.upsert(context, pairs[context])
    assert "end" in client.post("/reduce/smooth/cnt:").lines()[-1], "put right and run again"


def test_an_order_2_context_of_several_tokens(client):
    """It backs off to the context without its first token, as one of any order; without such a follower there to order 0, not to the root."""
    rest, several = layouts.context_name([8]), layouts.context_name([7, 8])
    client.put_all({b"cnt:1:__root__": layouts.counts(1, [(1, 6), (2, 2), (3, 1), (4, 1)]), b"cnt:1:" + rest: layouts.counts(1, [(1, 1), (2, 5)]),
                    b"cnt:2:" + several: layouts.counts(2, [(1, 1), (2, 3), (3, 2), (9, 1)]), b"ctx:" + several: layouts.context([7, 8]),
                    b"cnt:2:" + rest: layouts.counts(2, [(1, 4), (3, 1)]), b"ctx:" + rest: layouts.context([8])})
    assert client.post("/reduce/smooth/cnt:", orders="1-2").lines()[-1]["end"]["malformed"] == 0
    have = stored(client)
    cont = {1: 2, 2: 1, 3: 2, 9: 1}
    total = sum(cont.values())
    n = [0, 3, 1, 1, 1]  # of order 2: counts 1, 3, 2, 1, 4, 1
    d1, d2, d3 = layouts.discounts(*n[1:])
    lower1 = {t: layouts.dequantize(q) for t, q, _ in layouts.read_probabilities(have[b"prob:1:" + rest])[1]}
    root = {t: layouts.dequantize(q) for t, q, _ in layouts.read_probabilities(have[b"prob:1:__root__"])[1]}
    for name, followers, lower in ((several, [(1, 1), (2, 3), (3, 2), (9, 1)], lower1), (rest, [(1, 4), (3, 1)], root)):
        c = sum(k for _, k in followers)
        d = {1: d1, 2: d2}
        alpha = sum(d.get(k, d3) for _, k in followers) / c
        want = [(t, layouts.quantize(max(k - d.get(k, d3), 0) / c + alpha * lower.get(t, cont[t] / total))) for t, k in followers]
        assert [(t, q) for t, q, _ in layouts.read_probabilities(have[b"prob:2:" + name])[1]] == want


def test_a_token_that_is_named_twice(client):
    """One follower with the sum, to 2^32 - 1, for the aggregates as for smoothing; wherever in the payload it is."""
    big = 2**32 - 1
    client.put_all({b"cnt:1:a": layouts.counts(1, [(5, 1), (3, 1), (5, 1), (3, 1), (4, big), (4, 7)]), b"cnt:1:b": layouts.counts(1, [(3, 4), (5, 1)])})
    assert client.get("/reduce/totals/cnt:1:").entries() == [{"token": 3, "count": 6, "contexts": 2}, {"token": 4, "count": big, "contexts": 1},
                                                             {"token": 5, "count": 3, "contexts": 2}]
    line = client.get("/reduce/counts-of-counts/cnt:1:").entries()[0]
    assert (line["contexts"], line["types"]) == (2, 5) and [line["n%d" % i] for i in (1, 2, 3, 4)] == [1, 2, 0, 2]
    assert client.post("/reduce/smooth/cnt:", orders="1").lines()[-2]["types"] == 5


def test_longer_payloads_are_padding(client):
    """A payload longer than its n says is accepted, also for adding to it."""
    client.upsert(b"cnt:1:__root__", layouts.counts(1, [(1, 5), (2, 7)]) + b"padding")
    assert post(client, GOOD, order="1").status == 200
    assert layouts.read_counts(stored(client)[b"cnt:1:__root__"])[1] == [(1, 7), (2, 9), (3, 1)]


# ---- questions


@pytest.mark.parametrize("members", [{"k": 0}, {"k": -1}, {"k": "5"}, {"k": 1.5}, {"k": 10**9}, {"max_order": 0}, {"max_order": -3}, {"max_order": "3"},
                                     {"mode": "best"}, {"mode": 1}, {"mode": []}])
def test_members_of_questions(counted, members):
    answer = counted[0].post("/predict", json_body=dict({"tokens": [1]}, **members))
    assert answer.status == 400 and answer.code == "invalid_parameter", answer


@pytest.mark.parametrize("members", [{"limit": 0}, {"limit": "1"}, {"limit": 10**9}, {"depth": -1}, {"depth": "1"}, {"after": 5}, {"after": "xabc"}])
def test_members_of_contexts(counted, members):
    answer = counted[0].post("/contexts", json_body=dict({"tree": [[1]]}, **members))
    assert answer.status == 400 and answer.code in ("invalid_parameter", "invalid_hex"), answer


def test_too_many_tokens_to_ask_about(counted):
    assert counted[0].post("/reduce/smooth/cnt:").status == 200  # without it the answer is 409
    answer = counted[0].post("/predict", json_body={"tokens": [1] * 100001})
    assert answer.status == 413, answer
    assert counted[0].post("/predict", json_body={"tokens": [1] * 100000}).status == 200
    assert json.loads(counted[0].post("/score", json_body={"tokens": [1] * 50000}).body)["tokens"] == 49999
