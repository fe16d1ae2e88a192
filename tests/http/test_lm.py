"""Language-model calls: /ngrams, /reduce/smooth, /predict, /score, /contexts. Skipped while the server does not have them."""
import itertools
import json
import math
import random
import re
import time

import pytest
from harness import b64, golden, hexed, layouts, ndjson, unb64

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(autouse=True)
def known(need):
    for path in ("/ngrams", "/predict", "/score", "/contexts", "/reduce/smooth/cnt:"):
        need(path)


def count(client, documents, order=3):
    answer = client.post("/ngrams", ndjson({"tokens": d} for d in documents), headers=NDJSON, order=str(order))
    assert answer.status == 200, answer
    return answer.json()


def smooth(client, **params):
    answer = client.post("/reduce/smooth/cnt:", **params)
    assert answer.status == 200, answer
    return answer


def stored(client, prefix=b""):
    return {pair: value for pair, _, value in client.scan(prefix, values="true")}


def random_documents(seed, number=40, vocabulary=30):
    rng = random.Random(seed)
    return [[2] + [min(int(rng.paretovariate(0.6)) + 3, vocabulary) for _ in range(rng.randrange(0, 30))] + [3] for _ in range(number)]


@pytest.fixture(scope="module")
def model(server):
    """A read-only database that holds the example: (client, layouts.Model, pairs)."""
    client, pairs = server.client(db="golden-lm"), golden.pairs()
    client.put_all(pairs)
    yield client, layouts.Model(pairs), pairs
    client.delete("/databases/golden-lm", confirm="golden-lm")


# ---- counting


def test_counting_and_smoothing_make_the_example(client):
    documents = golden.documents()
    answer = count(client, documents)
    assert answer["documents"] == len(documents)
    assert answer["tokens"] == sum(map(len, documents))
    assert answer["ngrams"] == sum(max(len(d) - n + 1, 0) for d in documents for n in (1, 2, 3))
    table, counted = layouts.ingested(documents, 3)
    assert stored(client) == counted
    assert answer["contexts_created"] == sum(pair.startswith(b"ctx:") for pair in counted)
    smooth(client)
    want, have = golden.pairs(), stored(client)
    assert set(have) == set(want)
    wrong = sorted(pair for pair in want if have[pair] != want[pair])
    assert not wrong, "%d payloads differ, first %r" % (len(wrong), wrong[0])
    one_value_two_names(client, have)


def one_value_two_names(client, have):
    """The vector leads to the key of a context with these tokens: where several share a vector, to one of them."""
    keys = dict(client.scan(b"ctx"))
    of_vector = {}
    for pair in keys:
        if pair.startswith(b"ctx:") and pair != b"ctx:__root__":
            of_vector.setdefault(layouts.context_vector(unpack(have[pair])), set()).add(keys[pair])
    vectors = {pair[5:]: key for pair, key in keys.items() if pair.startswith(b"ctxv:")}
    assert set(vectors) == set(of_vector)
    wrong = [v for v, key in vectors.items() if key not in of_vector[v]]
    assert not wrong, wrong[0]


def same_but_vectors(client, want):
    """The order in which contexts came decides nothing but which of those that share a vector has it."""
    have = stored(client)
    plain = {p: v for p, v in have.items() if not p.startswith(b"ctxv:")}
    assert plain == {p: v for p, v in want.items() if not p.startswith(b"ctxv:")}
    one_value_two_names(client, have)


def unpack(payload):
    return [int.from_bytes(payload[3 + 4 * i:7 + 4 * i], "big") for i in range(payload[2])]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_orders(client, order):
    documents = random_documents(order)
    count(client, documents, order)
    assert stored(client) == layouts.ingested(documents, order)[1]


def test_counting_adds_up(client):
    parts = [random_documents(seed) for seed in range(5)]
    created = [count(client, part)["contexts_created"] for part in parts]
    whole = [document for part in parts for document in part]
    want = layouts.ingested(whole, 3)[1]
    assert stored(client) == want
    assert sum(created) == sum(pair.startswith(b"ctx:") for pair in want)


def test_counting_by_many_at_once(client, server):
    import threading
    parts, errors = [random_documents(seed, 20) for seed in range(16)], []

    def work(some):
        try:
            mine = server.client(db=client.db)
            for part in some:
                count(mine, part)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(parts[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    same_but_vectors(client, layouts.ingested([d for part in parts for d in part], 3)[1])


def test_any_order_and_any_split(client):
    documents = random_documents(31, 60)
    want = layouts.ingested(documents, 4)[1]
    rng = random.Random(5)
    rng.shuffle(documents)
    while documents:
        size = rng.randrange(1, 9)
        count(client, documents[:size], 4)
        documents = documents[size:]
    same_but_vectors(client, want)


def test_short_documents_are_skipped(client):
    answer = count(client, [[], [5], [5, 6]])
    assert stored(client) == layouts.ingested([[5, 6]], 3)[1]
    assert answer["ngrams"] == 3
    assert count(client, [])["ngrams"] == 0


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_documents_that_are_taken_away(client, order):
    """Without a live model: what is left is what the other documents alone had made; contexts that reach nothing any more are gone. Too much is refused whole."""
    rng = random.Random(order)
    documents = random_documents(order)
    count(client, documents, order)
    gone = set(rng.sample(range(len(documents)), len(documents) // 2))
    left = [d for i, d in enumerate(documents) if i not in gone]
    listed = sorted(gone)
    some, others = listed[::2], listed[1::2]
    answer = client.post("/ngrams", ndjson({"tokens": documents[i]} for i in some), headers=NDJSON, order=order, remove="true")
    assert answer.json()["removed"] == sum(len(documents[i]) > 1 for i in some) and answer.json()["documents"] == 0
    extra = [7, 7, 900001, 7]
    mixed = [{"tokens": extra}, *({"tokens": documents[i], "remove": True} for i in others), {"tokens": extra, "remove": True}]
    assert client.post("/ngrams", ndjson(mixed), headers=NDJSON, order=order).status == 200
    want, have = layouts.ingested(left, order)[1], stored(client)
    plain = lambda pairs: {p: v for p, v in pairs.items() if not p.startswith(b"ctxv:")}  # noqa: E731
    assert plain(have) == plain(want)
    vectors = {p for p in have if p.startswith(b"ctxv:")}
    assert vectors <= set(want) and all(p == b"ctxv:" + layouts.context_vector(unpack(have[p])) for p in vectors)
    keys = dict(client.scan(b"ctx"))
    assert all(keys[p] == keys[b"ctx:" + layouts.context_name(unpack(have[p]))] for p in vectors)
    for lines in ([{"tokens": extra, "remove": True}], [{"tokens": left[0]}, *[{"tokens": max(left, key=len), "remove": True}] * 400]):
        answer = client.post("/ngrams", ndjson(lines), headers=NDJSON, order=order)
        assert (answer.status, answer.code) == (409, "not_counted") and stored(client) == have
    assert client.post("/ngrams", ndjson({"tokens": d} for d in left), headers=NDJSON, order=order, remove="true").status == 200
    assert stored(client) == {}


def test_counts_saturate(client):
    client.upsert(b"cnt:1:__root__", layouts.counts(1, [(7, 2**32 - 2)]))
    count(client, [[7, 7, 7, 7]], 1)
    assert layouts.read_counts(stored(client, b"cnt:1:")[b"cnt:1:__root__"])[1] == [(7, 2**32 - 1)]


def test_a_large_vocabulary(client):
    documents = [list(range(start, start + 10000)) for start in range(0, 70000, 10000)]
    count(client, documents, 1)
    payload = stored(client, b"cnt:1:")[b"cnt:1:__root__"]
    assert payload[0] == 2 and len(layouts.read_counts(payload)[1]) == 70000
    count(client, [[5, 6]], 1)
    followers = dict(layouts.read_counts(stored(client, b"cnt:1:")[b"cnt:1:__root__"])[1])
    assert followers[5] == 2 and followers[7] == 1 and len(followers) == 70000


@pytest.mark.parametrize("line", [b"{", b"[1,2]", b'{"tokens":5}', b'{"tokens":[1,"a"]}', b'{"tokens":[-1,2]}', b'{"tokens":[1.5,2]}',
                                  b'{"tokens":[4294967296,2]}', b"{}", b"null"])
def test_all_or_nothing(client, line):
    body = ndjson({"tokens": d} for d in random_documents(1)) + line + b"\n"
    answer = client.post("/ngrams", body, headers=NDJSON)
    assert answer.status == 400 and stored(client) == {}


def test_order_out_of_range(client):
    for order in ("0", "-1", "x", "1000"):
        assert client.post("/ngrams", b'{"tokens":[1,2]}\n', headers=NDJSON, order=order).code == "invalid_parameter", order
    assert client.post("/ngrams", b"", headers=NDJSON, foo="1").code == "unknown_parameter"


def count_once(client, documents, once, order=3):
    answer = client.post("/ngrams", ndjson({"tokens": d} for d in documents), headers=NDJSON, order=str(order), once=once)
    assert answer.status == 200, answer
    return answer.json()


def test_once(client):
    """A request that is sent again with its identifier is answered as before, and counted once."""
    first = count_once(client, [[5, 6, 7], [5, 6]], "run-1_A")
    assert "repeated" not in first and first["documents"] == 2
    want = stored(client, b"c")
    assert want == layouts.ingested([[5, 6, 7], [5, 6]], 3)[1]
    assert count_once(client, [[5, 6, 7], [5, 6]], "run-1_A") == {**first, "repeated": True}
    assert count_once(client, [[9, 9, 9, 9]], "run-1_A") == {**first, "repeated": True}  # the identifier decides
    assert stored(client, b"c") == want
    assert "repeated" not in count_once(client, [[5, 6, 7], [5, 6]], "run-1_a")  # another one
    assert stored(client, b"c") != want
    nothing = count_once(client, [], "empty")
    assert nothing["documents"] == 0 and count_once(client, [[1, 2]], "empty") == {**nothing, "repeated": True}
    for bad in ("", "a" * 65, "a b", "a.b", "\u00e9", "a/b"):
        answer = client.post("/ngrams", b'{"tokens":[1,2]}\n', headers=NDJSON, once=bad)
        assert answer.status == 400 and answer.code == "invalid_parameter", bad
    assert count_once(client, [[1, 2]], "a" * 64)["documents"] == 1


def test_once_is_kept_only_with_its_counts(client):
    """A request that fails leaves no trace of its identifier."""
    body = ndjson([{"tokens": [1, 2]}]) + b'{"tokens":5}\n'
    assert client.post("/ngrams", body, headers=NDJSON, once="failed").status == 400
    assert stored(client) == {}
    client.upsert(b"cnt:1:__root__", b"no counts")
    answer = count_once(client, [[1, 2]], "failed")
    assert "repeated" not in answer and answer["malformed"] == 1  # passed over, and counted: it did not fail
    assert count_once(client, [[1, 2]], "failed") == {**answer, "repeated": True}
    client.upsert(b"\x10once:strange", b"of somebody else")
    assert client.post("/ngrams", b'{"tokens":[1,2]}\n', headers=NDJSON, once="strange").code == "malformed_payload"


def test_once_at_once(server, client):
    """Many connections send the same requests at the same time: each is counted once."""
    import threading

    def work():
        other = server.client(db=client.db)
        for i in range(20):
            count_once(other, [[i + 1, 50, 60]], "doc-%d" % i)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(client, b"c") == layouts.ingested([[i + 1, 50, 60] for i in range(20)], 3)[1]


def test_once_and_kill(launch, name):
    """The server is killed while requests are under way, which are sent again until they are answered: all counted once."""
    server, documents = launch("--shards", "2", "--access-log", "false"), [[i, i + 1, 7] for i in range(1, 61)]
    import threading

    stop = threading.Event()

    def kill():
        for _ in range(3):
            time.sleep(0.25)
            server.kill()
            server.restart()
        stop.set()

    killer = threading.Thread(target=kill)
    killer.start()
    repeated, done = 0, 0
    while done < len(documents) or not stop.is_set():
        if done == len(documents):
            documents.append([done, done + 1, 7])
        while True:
            try:
                answer = server.client(db=name, check=False).post("/ngrams", ndjson([{"tokens": documents[done]}]), headers=NDJSON, order="3",
                                                                   once="n%d" % done)
                if answer.status == 200:
                    break
            except Exception:  # noqa: BLE001 - killed: sent again
                time.sleep(0.01)
        repeated += "repeated" in answer.json()
        done += 1
    killer.join()
    assert stored(server.client(db=name), b"c") == layouts.ingested(documents, 3)[1], repeated


def test_counting_creates_the_database(server, name):
    client = server.client(db=name)
    count(client, [[1, 2]])
    assert len(stored(client)) > 0
    client.delete("/databases/" + name, confirm=name)


# ---- smoothing


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_smoothing(client, seed):
    documents = random_documents(seed, 30 * seed, 10 * seed)
    count(client, documents)
    answer = smooth(client)
    table, want = layouts.ingested(documents, 3)
    want.update(layouts.smooth(table))
    assert stored(client) == want
    results = [line for line in answer.entries() if "order" in line]
    assert [line["order"] for line in results] == [1, 2, 3]
    for line in results:
        rows = layouts.counts_of_counts([list(f.items()) for f in table[line["order"]].values()])
        for field in ("contexts", "types", "d1", "d2", "d3"):
            assert line[field] == pytest.approx(rows[field], rel=1e-12)
    assert all("progress" in line or "order" in line for line in answer.all_lines()[:-1])
    assert any("progress" in line for line in answer.all_lines())
    before = dict(client.scan())
    smooth(client)
    assert stored(client) == want
    assert set(dict(client.scan())) == set(before)


def test_counts_whose_probabilities_have_no_name(client):
    """`prob:` is longer than `cnt:`: what nobody can have counted is passed over, and said."""
    client.put_all({b"cnt:2:" + b"x" * 4090: layouts.counts(2, [(1, 1)], 2), b"cnt:2:y": layouts.counts(2, [(1, 1)], 2)})
    assert smooth(client).end["malformed"] == 1
    assert set(stored(client, b"prob:2:")) == {b"prob:2:y"}


def test_smoothing_follows_the_counts(client):
    first, second = random_documents(4), random_documents(5)
    count(client, first)
    smooth(client)
    count(client, second)
    smooth(client)
    table, want = layouts.ingested(first + second, 3)
    want.update(layouts.smooth(table))
    assert stored(client) == want


def test_entries_without_counts_are_removed(client):
    count(client, random_documents(6))
    smooth(client)
    gone = [pair for pair in stored(client) if pair.startswith((b"cnt:2:", b"cnt:3:"))][::3]
    for pair in gone:
        client.delete("/pairs/" + hexed(pair), values="true")
    client.put_all({b"prob:2:leftover": layouts.probabilities(2, [(1, 1, 1)]), b"topk:3:leftover": layouts.topk(3, []),
                    b"cont:\xff\xff\xff\xff": layouts.continuation(2**32 - 1, 1)})
    smooth(client)
    left = stored(client)
    for n in (1, 2, 3):
        names = {pair.split(b":", 2)[2] for pair in left if pair.startswith(b"cnt:%d:" % n)}
        for kind in (b"prob", b"topk"):
            assert {pair.split(b":", 2)[2] for pair in left if pair.startswith(b"%s:%d:" % (kind, n))} == names
    assert b"cont:\xff\xff\xff\xff" not in left


def test_topk_and_orders(client):
    documents = random_documents(7)
    count(client, documents)
    smooth(client, topk="3", orders="1-2")
    left = stored(client)
    table = layouts.count_ngrams(documents, 2)
    want = layouts.smooth(table, best=3)
    assert {p: v for p, v in left.items() if p.startswith((b"prob:", b"topk:", b"cont:"))} == want
    for params in ({"topk": "0"}, {"topk": "33"}, {"orders": "x"}, {"orders": "0"}, {"orders": "3-1"}):
        assert client.post("/reduce/smooth/cnt:", **params).code == "invalid_parameter", params
    assert client.post("/reduce/smooth/cnt:", foo="1").code == "unknown_parameter"


# ---- asking


def cases(documents, number, seed):
    rng = random.Random(seed)
    for _ in range(number):
        document = rng.choice(documents)
        start = rng.randrange(len(document))
        yield document[start:start + rng.randrange(1, 6)]
    yield []
    yield [999999, 888888]
    yield document[:2] + [999999]
    yield [999999] + document[:2]


def test_deepest(model):
    client, reference, _ = model
    for tokens in cases(golden.documents(), 60, 1):
        for k, max_order in ((20, 3), (3, 2), (5, 1), (10, 9)):
            answer = client.post("/predict", json_body={"tokens": tokens, "k": k, "max_order": max_order, "mode": "deepest"})
            assert answer.status == 200, answer
            order, context, ranked = next(reference.levels(tokens, k, min(max_order, 3)))
            got = answer.json()
            assert got["order"] == order and got["context"] == context
            assert [(c["token"], c["q"]) for c in got["candidates"]] == ranked
            for candidate in got["candidates"]:
                assert candidate["p"] == pytest.approx(layouts.dequantize(candidate["q"]), rel=1e-9)


def test_questions_that_come_together(launch):
    """Where many come at once they are put off for a moment; written in any way, each gets the answer that it gets alone."""
    server = launch("--http-threads", "1", "--durability", "os", "--shards", "4")  # of 8 the thread sanitizer would count too many locks
    client = server.client(check=False)
    client.post("/ngrams", ndjson({"tokens": d} for d in golden.documents()), headers=NDJSON, order="3")
    smooth(client)
    bodies = []
    for i, tokens in enumerate(cases(golden.documents(), 90, 4)):
        more = ({}, {"k": 20, "max_order": 3, "mode": "deepest"}, {"mode": "blend", "k": 3}, {"mode": "levels", "max_order": 2}, {"k": 0}, {"other": 1})[i % 6]
        body = json.dumps({"tokens": tokens, **more}, indent=i % 3 or None)
        bodies.append((body if i % 7 else body.replace("tokens", "t\\u006fkens")).encode())
    alone = [client.post("/predict", body).body for body in bodies]
    assert len(set(alone)) > 20
    raws = [server.raw() for _ in bodies]
    before = server.metric("cheetah_reads_ahead_total")
    try:
        for turn in range(4):
            order = [(i * 7 + turn * 31) % len(bodies) for i in range(len(bodies))]
            server.pause()
            for raw, i in zip(raws, order):
                raw.send(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(bodies[i]), bodies[i]))
            server.go_on()
            for raw, i in zip(raws, order):
                assert raw.answer().body == alone[i], bodies[i]
        assert server.metric("cheetah_reads_ahead_total") >= before + 2 * len(bodies), "the case did not come about"
    finally:
        for raw in raws:
            raw.close()
        client.close()


def test_what_was_looked_up_is_in_the_metrics(launch):
    """Predictions and reads of best followers by order, found or not; nothing else is counted."""
    server = launch("--shards", "2", "--durability", "os")
    client = server.client(db="m")
    client.put_all(golden.pairs())

    def figures(name):
        text = client.get("/metrics").body.decode()
        return {(int(order), result): int(n) for order, result, n in re.findall(r'^cheetah_%s\{order="(\d)",result="(\w+)"\} (\d+)$' % name, text, re.M)}

    assert figures("predictions_total") == {} == figures("best_followers_total")
    model, (a, b, *_) = layouts.Model(golden.pairs()), golden.documents()[0][1:]
    asked = [{"tokens": [a, b]}, {"tokens": [b]}, {"tokens": [99999, 99998]}, {"tokens": [a, 99998], "mode": "levels"}, {"tokens": [99999, b], "mode": "blend"}]
    want, seen = {}, 0
    for i, body in enumerate(asked):
        tokens = body["tokens"]
        answered = next(model.levels(tokens, 1, 3))[0]
        if i % 2:  # in a stream of questions, too
            lines = client.post("/predict", body=json.dumps(body).encode() + b"\n", headers={"Content-Type": "application/x-ndjson"})
            assert lines.status == 200, lines
        else:
            assert client.post("/predict", json_body=body).status == 200
        seen = max(seen, answered)
        for order in range(1, len(tokens) + 2):
            if order == answered or answered < order <= seen:
                key = (order, "hit" if order == answered else "miss")
                want[key] = want.get(key, 0) + 1
    have = figures("predictions_total")
    assert {key: n for key, n in have.items() if n} == want and want[3, "hit"] >= 1 and want[3, "miss"] >= 2 and want[2, "hit"] >= 1
    assert client.post("/predict", json_body={"tokens": "no"}).status == 400 and figures("predictions_total") == have
    there = [name for name in golden.pairs() if name.startswith(b"topk:2:")][0]
    for name in (there, there, b"topk:2:" + bytes(8), b"topk:1:__root__", b"topk:9:" + bytes(8), b"topk:", b"cnt:1:__root__"):
        client.get("/pairs/x" + name.hex(), exact="true", values="true")
    assert {key: n for key, n in figures("best_followers_total").items() if n} == {(2, "hit"): 2, (2, "miss"): 1, (1, "hit"): 1}


def test_contexts_with_one_of_the_two(client):
    """An order answers from `prob:` or from `topk:` alone; from all probabilities where the list is shorter than k."""
    few, many = [(t, 200 - t, 7) for t in range(3)], [(t, 200 - t % 9, 7) for t in range(100)]
    name = layouts.context_name([5])
    ranked = {key: sorted(((t, q) for t, q, _ in records), key=lambda r: (-r[1], r[0])) for key, records in (("few", few), ("many", many))}

    def ask(k):
        got = client.post("/predict", json_body={"tokens": [5], "k": k, "mode": "deepest"}).json()
        found = [(c["token"], c["q"]) for c in got["candidates"]]
        assert got["order"] == 2 or found == [(999, 1)], "else the root, which makes it a smoothed database"
        return found if got["order"] == 2 else []

    client.put_all({b"prob:1:__root__": layouts.probabilities(1, [(999, 1, 7)])})
    for prob, topk, best in ((None, None, []), (few, None, ranked["few"]), (many, None, ranked["many"]), (None, 3, ranked["few"]),
                             (few, 1, ranked["few"]), (many, 20, ranked["many"]), (few, 3, ranked["few"])):
        payloads = {}
        if prob:
            payloads[b"prob:2:" + name] = layouts.probabilities(2, prob)
        if topk:
            payloads[b"topk:2:" + name] = layouts.topk(2, best[:topk])
        for pair in (b"prob:2:" + name, b"topk:2:" + name):
            client.delete("/pairs/" + hexed(pair), values="true")
        client.put_all(payloads)
        for k in (1, 2, 3, 20, 21, 99, 100, 1000):
            assert ask(k) == best[:k], (prob is many, topk, k)


def test_defaults_of_predict(model):
    client, _, _ = model
    tokens = golden.documents()[0][:5]
    short = client.post("/predict", json_body={"tokens": tokens}).json()
    assert short == client.post("/predict", json_body={"tokens": tokens, "k": 20, "max_order": 3, "mode": "deepest"}).json()


def test_levels(model):
    client, reference, _ = model
    for tokens in cases(golden.documents(), 30, 2):
        answer = client.post("/predict", json_body={"tokens": tokens, "k": 7, "max_order": 3, "mode": "levels"})
        lines = {line["order"]: line for line in answer.entries() if line["candidates"]}
        want = {order: (context, ranked) for order, context, ranked in reference.levels(tokens, 7, 3)}
        assert {o: (l["context"], [(c["token"], c["q"]) for c in l["candidates"]]) for o, l in lines.items()} == want
        orders = [line["order"] for line in answer.entries()]
        assert orders == sorted(orders, reverse=True), "deepest first"


def test_blend(model):
    client, reference, _ = model
    for tokens in cases(golden.documents(), 40, 3):
        answer = client.post("/predict", json_body={"tokens": tokens, "k": 10, "max_order": 3, "mode": "blend"}).json()
        want = reference.blend(tokens, 10, 3)
        assert [c["p"] for c in answer["candidates"]] == pytest.approx([p for _, p in want], rel=1e-9)
        values = dict(reference.blend(tokens, 10**6, 3))
        for candidate in answer["candidates"]:
            assert candidate["p"] == pytest.approx(values[candidate["token"]], rel=1e-9)
        got = [(-c["p"], c["token"]) for c in answer["candidates"]]
        assert [t for _, t in got] == [t for t, _ in want] or sorted(got) == got


def test_score(model):
    client, reference, _ = model
    for tokens in cases(golden.documents(), 60, 4):
        if len(tokens) < 2:
            continue
        answer = client.post("/score", json_body={"tokens": tokens})
        got, want = answer.json(), reference.score(tokens)
        assert got == client.post("/score", json_body={"tokens": tokens, "mode": "blend"}).json(), "blend is the default"
        logs, known = [log for log, _ in want], [log for log, order in want if order]
        assert got["orders"] == [order for _, order in want]
        assert got["per_token"] == pytest.approx(logs, rel=1e-9)
        assert got["log10"] == pytest.approx(sum(logs), rel=1e-9)
        assert got["tokens"] == len(want) and got["oov"] == len(want) - len(known)
        assert got["perplexity"] == (pytest.approx(10 ** (-sum(known) / len(known)), rel=1e-9) if known else None)
        assert got["perplexity_with_oov"] == pytest.approx(10 ** (-sum(logs) / len(logs)), rel=1e-9)
        alone, want = client.post("/score", json_body={"tokens": tokens, "mode": "deepest"}).json(), reference.score(tokens, blend=False)
        assert set(alone) == {"tokens", "log10", "per_token", "orders", "oov"}, "no perplexity of what is no distribution"
        assert alone["per_token"] == pytest.approx([log for log, _ in want], rel=1e-9) and alone["orders"] == got["orders"]
    answer = client.post("/score", json_body={"tokens": [1, 2], "mode": "levels"})
    assert (answer.status, answer.code) == (400, "invalid_parameter")


def test_blended_scores_are_a_distribution(model):
    """Summed over all tokens and one that is unknown: 1 but for the steps of stored probabilities (a twentieth in the log10), whatever the context."""
    client, reference, _ = model
    known = sorted(set(t for document in golden.documents() for t in document))
    for context in ([2, known[5]], golden.documents()[3][:3], [known[-1]], [999999]):
        lines = client.post("/score", ndjson({"tokens": context + [t]} for t in known + [999998]), headers=NDJSON).lines()
        total = sum(10 ** line["per_token"][-1] for line in lines[:-1])
        assert 0.95 < total < 1.05, (context, total)
        deepest = client.post("/score", ndjson({"tokens": context + [t], "mode": "deepest"} for t in known), headers=NDJSON).lines()
        if len(context) > 1:
            assert sum(10 ** line["per_token"][-1] for line in deepest[:-1]) > 1.1, "which is why it has no perplexity"


def test_many_questions(model):
    """A line is answered as it is by itself, whatever its mode; a bad one costs itself only."""
    client, reference, _ = model
    contexts = list(cases(golden.documents(), 30, 6))
    for path, modes in (("/score", ({}, {"mode": "deepest"}, {"max_order": 2}, {"mode": "blend"})),
                        ("/predict", ({}, {"mode": "blend", "k": 7}, {"mode": "deepest", "max_order": 2}))):
        bodies = [dict(modes[i % len(modes)], tokens=tokens) for i, tokens in enumerate(contexts)]
        bodies.insert(5, {"tokens": [-1]})
        bodies.insert(9, {"tokens": [5], "mode": "live"})
        lines = client.post(path, ndjson(bodies), headers=NDJSON).lines()
        alone = [client.post(path, json_body=body) for body in bodies]
        for line, one in zip(lines, alone):
            assert line == one.json() if one.status == 200 else line["error"]["code"] == one.code
        end = lines[-1]["end"]
        assert (end["count"], end["failed"]) == (len(bodies), 2)
        if path == "/score":
            assert end["log10"] == pytest.approx(sum(line["log10"] for line in lines[:-1] if "log10" in line)) and "perplexity" not in end
            assert (end["documents"], end["oov"]) == (len(bodies) - 2, sum(line.get("oov", 0) for line in lines[:-1]))
    end = client.post("/score", ndjson({"tokens": tokens} for tokens in contexts), headers=NDJSON).lines()[-1]["end"]
    want = [pair for tokens in contexts for pair in reference.score(tokens)]
    known = [log for log, order in want if order]
    assert end["perplexity"] == pytest.approx(10 ** (-sum(known) / len(known)))
    assert end["perplexity_with_oov"] == pytest.approx(10 ** (-sum(log for log, _ in want) / len(want)))
    lines = client.post("/predict", ndjson([{"tokens": [5], "mode": "levels"}, {"tokens": [5]}]), headers=NDJSON).lines()
    assert [line["order"] for line in lines[:2]] == [2, 1] and lines[2] == client.post("/predict", json_body={"tokens": [5]}).json()


@pytest.mark.parametrize("path", ["/predict", "/score"])
def test_the_first_of_many_questions_is_none(model, path):
    """NDJSON that says so is lines, whatever they are; /score has no k, by itself and among others."""
    client = model[0]
    question = {"tokens": [1, 2], "k": 0} if path == "/score" else {"tokens": [1, 2]}
    alone = client.post(path, json_body=question).json()
    for first in (b"{", b"5", b"[]", b'{"tokens":'):
        body = first + b"\n" + ndjson([question, question])
        assert client.post(path, body, headers={"Content-Type": "application/json"}).status == 400
        lines = client.post(path, body, headers=NDJSON).lines()
        assert lines[0]["error"]["code"] == "invalid_body" and lines[1:3] == [alone] * 2
        assert (lines[-1]["end"]["count"], lines[-1]["end"]["failed"]) == (3, 1)


@pytest.mark.parametrize("path", ["/predict", "/score"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"tokens":5}', b'{"tokens":["a"]}', b'{"tokens":[-1]}', b'{"tokens":[4294967296]}', b'{"tokens":[1.5]}'])
def test_bad_bodies(model, path, body):
    answer = model[0].post(path, body, headers={"Content-Type": "application/json"})
    assert answer.status == 400


def test_bad_members_of_predict(model):
    for more in ({"k": 0}, {"k": "a"}, {"max_order": 0}, {"mode": "best"}, {"mode": 5}):
        assert model[0].post("/predict", json_body=dict({"tokens": [1, 2]}, **more)).status == 400, more


def test_nothing_smoothed(client):
    """Counts alone answer nothing: 409, never a number; so does a model whose root is gone."""
    client.upsert(b"a", b"v")
    for turn in range(3):
        for mode in ({}, {"mode": "deepest"}, {"mode": "blend"}, {"mode": "levels"}):
            answer = client.post("/predict", json_body=dict(mode, tokens=[1, 2]))
            assert (answer.status, answer.code) == (409, "not_smoothed"), (turn, mode, answer)
            if mode.get("mode") != "levels":
                answer = client.post("/score", json_body=dict(mode, tokens=[1, 2]))
                assert (answer.status, answer.code) == (409, "not_smoothed"), (turn, mode, answer)
        lines = client.post("/score", ndjson([{"tokens": [1, 2]}, {"tokens": [2, 1], "mode": "deepest"}]), headers=NDJSON).lines()
        assert [line["error"]["code"] for line in lines[:2]] == ["not_smoothed"] * 2 and lines[2]["end"]["failed"] == 2
        if turn == 0:
            count(client, random_documents(3))
        elif turn == 1:
            smooth(client)
            assert client.post("/predict", json_body={"tokens": [1, 2]}).status == 200
            client.delete("/pairs/prob:1:__root__", values="true")


def test_unknown_database(server, name):
    client = server.client(db=name)
    for path, body in (("/predict", {"tokens": [1]}), ("/score", {"tokens": [1, 2]}), ("/contexts", {"tree": [[1]]})):
        answer = client.post(path, json_body=body)
        assert answer.status == 404 and answer.code == "database_not_found"
    assert name not in client.get("/databases").json()["databases"]


# ---- context relativism


def relatives(pairs, tree, depth=None):
    start = b"ctxv:" + layouts.vector(tree, depth)
    for pair in sorted(pair for pair in pairs if pair.startswith(start)):
        tokens = unpack(pairs[pair])
        name = layouts.context_name(tokens)
        ranked = pairs.get(b"topk:%d:" % (len(tokens) + 1) + name) or pairs.get(b"topk:%d:" % len(tokens) + name)
        yield {"vector": b64(pair[5:]), "hash": name.hex(), "order_size": len(tokens), "tokens": tokens,
               "ranked": [list(r) for r in layouts.read_topk(ranked)[1]] if ranked else []}


def test_contexts(model):
    client, _, pairs = model
    tokens = sorted(unpack(v)[0] for p, v in pairs.items() if p.startswith(b"ctx:") and v[2] == 1)
    twos = [unpack(v) for p, v in pairs.items() if p.startswith(b"ctx:") and v[2] == 2]
    trees = [[[t]] for t in tokens[:40:4]] + [[[a], [b]] for a, b in twos[::100]] + [[[b], [a]] for a, b in twos[::200]] + [[[999999]], [[5], [999999]]]
    for tree in trees:
        answer = client.post("/contexts", json_body={"tree": tree, "limit": 1000})
        lines = answer.entries()
        assert [{k: v for k, v in line.items() if k != "key"} for line in lines] == list(relatives(pairs, tree))
        for line in lines[:3]:
            assert client.get("/pairs/" + hexed(b"ctxv:" + unb64(line["vector"])), exact="true").json()["key"] == line["key"]


def exact(client, tokens):
    return client.post("/contexts", json_body={"tree": [[t] for t in tokens]}).entries()


def contains(client, tokens):
    return sorted(line["tokens"] for line in client.post("/contexts", json_body={"tree": tokens, "match": "contains"}).entries())


def test_contexts_that_are_permutations(client, name):
    """They share one vector, which leads to the one that was registered last. Whichever of them are taken away, in whatever order, one that is left is found by it."""
    tokens = [5, 6, 7, 7]
    orders = sorted(set(itertools.permutations(tokens)))
    documents = [[*order, 9] for order in orders]
    count(client, documents, 5)
    vector = b"ctxv:" + layouts.context_vector(tokens)
    last, = exact(client, tokens)
    threes = {o[i:i + 3] for o in orders for i in range(2) if set(o[i:i + 3]) == {5, 6, 7}}
    assert last["tokens"] == list(orders[-1]) and contains(client, [5, 6, 7]) == sorted(map(list, {*orders, *threes}))
    left = list(orders)
    random.Random(7).shuffle(left)
    left.sort(key=lambda o: o != orders[-1])  # the one that has the vector goes first
    while left:
        gone = left.pop(0)
        answer = client.post("/ngrams", ndjson([{"tokens": [*gone, 9]}]), headers=NDJSON, order=5, remove="true")
        assert answer.json()["removed"] == 1
        assert client.get("/pairs/" + hexed(vector), exact="true").status == 404
        lines = exact(client, tokens)
        assert [line["tokens"] for line in lines] == [list(o) for o in sorted(left)[:1]]
        for line in lines:
            assert unb64(line["vector"]) == vector[5:] and line["hash"] == layouts.context_name(line["tokens"]).hex() and line["order_size"] == 4
            assert client.get("/pairs/" + hexed(b"ctx:" + layouts.context_name(line["tokens"])), exact="true").json()["key"] == line["key"]
    count(client, documents[:1], 5)
    assert [line["tokens"] for line in exact(client, tokens)] == [documents[0][:4]] and client.get("/pairs/" + hexed(vector), exact="true").status == 200
    bare = client.db + "-bare"
    client.put("/databases/" + bare, json_body={"live": {"order": 5, "bos": 2}, "keep": ["cnt", "ctx"]})
    client.post("/ngrams", ndjson([{"tokens": [2, 12, 11, 13]}]), headers=NDJSON, db=bare)
    for asked in ([11, 12], [12, 11], [2, 13, 12, 11][:1]):
        lines = client.post("/contexts", json_body={"tree": [[t] for t in asked]}, db=bare).entries()
        assert [sorted(line["tokens"]) for line in lines] == [sorted(asked)], "without vectors"
    for asked in ([[11], [14]], [[11, 12]], [11, 12], [[11], []], [[t] for t in range(2, 10)]):
        assert client.post("/contexts", json_body={"tree": asked}, db=bare).entries() == []
    client.delete("/databases/" + bare, confirm=bare)


def test_limit_of_contexts(model):
    client, _, pairs = model
    client_limit = [{k: v for k, v in line.items() if k != "key"} for line in client.post("/contexts", json_body={"tree": [], "depth": 0, "limit": 3}).entries()]
    assert client_limit == list(relatives(pairs, [], 0))[:3]
    many = client.post("/contexts", json_body={"tree": []})
    assert many.status == 200


def test_contexts_that_contain(model):
    """Every context with all leaves of the tree, permutations included, whatever the shape of the tree; pages go on where they ended."""
    client, _, pairs = model
    found = {p[4:]: unpack(v) for p, v in pairs.items() if p.startswith(b"ctx:")}
    some = [tokens for tokens in found.values() if len(tokens) == 2][::150]
    trees = [[[t] for t in tokens] for tokens in some] + [[t] for t in some[0]] + [some[1][0], [[[some[2]]]], [], [[999999]], [[some[0][0]], [some[0][0]]]]
    for tree in trees:
        leaves = set(leaves_of(tree))
        want = [(name, tokens) for name, tokens in sorted(found.items()) if leaves <= set(tokens)]
        lines = client.post("/contexts", json_body={"tree": tree, "match": "contains", "limit": 10000}).entries()
        assert [(line["hash"], line["tokens"]) for line in lines] == [("__root__" if name == b"__root__" else name.hex(), tokens) for name, tokens in want[:10000]]
        for line in lines[:5]:
            vector = line["vector"] and unb64(line["vector"])
            assert vector == (layouts.vector([[t] for t in line["tokens"]]) if line["tokens"] else None)
            alone = client.post("/contexts", json_body={"tree": [[t] for t in line["tokens"]]}).entries() if vector else []
            if alone and alone[0]["tokens"] == line["tokens"]:
                assert dict(alone[0], key=0) == dict(line, key=0)
        got, after = [], None
        while len(want) < 200:
            page = client.post("/contexts", json_body={"tree": tree, "match": "contains", "limit": 7, "after": after}).lines()
            got += page[:-1]
            after = page[-1]["end"]["next"]
            if after is None:
                assert got == lines
                break
    tree = [[some[0][0]], [[[some[0][1]]]]]
    lines = client.post("/contexts", json_body={"tree": tree, "match": "contains", "depth": 2, "limit": 10000}).entries()
    assert [line["tokens"] for line in lines] == [tokens for _, tokens in sorted(found.items()) if some[0][0] in tokens], "deeper leaves are not there"
    for match in "prefix", 5, None, "":
        assert client.post("/contexts", json_body={"tree": [[1]], "match": match}).code == "invalid_parameter", match


def leaves_of(tree):
    return [tree] if isinstance(tree, int) else [t for child in tree for t in leaves_of(child)]


def test_damaged_contexts_are_passed_over(client):
    count(client, [[1, 2, 3], [2, 1, 3]])
    client.upsert(b"ctx:" + layouts.context_name([1]), b"no context")
    lines = client.post("/contexts", json_body={"tree": [1], "match": "contains"}).lines()
    assert sorted(line["tokens"] for line in lines[:-1]) == [[1, 2], [2, 1]] and lines[-1]["end"]["count"] == 2


def test_nested_trees(client):
    tree = [[[12, 45], [43, 21]], [[643, 23]]]
    client.upsert(b"ctxv:" + layouts.vector(tree), layouts.context([1, 2]))
    for same in (tree, [[[23, 643]], [[21, 43], [45, 12]]]):
        lines = client.post("/contexts", json_body={"tree": same, "limit": 32, "depth": None}).entries()
        assert len(lines) == 1 and unb64(lines[0]["vector"]) == layouts.vector(tree), "the order of siblings never matters"
    assert client.post("/contexts", json_body={"tree": [[[12, 45], [43, 22]], [[643, 23]]]}).entries() == []
    shallow = layouts.vector(tree, 2)
    client.upsert(b"ctxv:" + shallow, layouts.context([1]))
    lines = client.post("/contexts", json_body={"tree": tree, "depth": 2}).entries()
    assert unb64(lines[0]["vector"]) == shallow
    client.upsert(b"ctxv:" + layouts.vector(7), layouts.context([7]))
    assert len(client.post("/contexts", json_body={"tree": 7}).entries()) == 1


def test_invalid_trees(client):
    client.upsert(b"a", b"v")
    deep = {"tree": list(range(256))}
    assert client.post("/contexts", json_body=deep).code == "invalid_tree"
    assert client.post("/contexts", json_body={"tree": [[list(range(255))] * 1] * 255}).status in (200, 400)
    wide = [[list(range(255)) for _ in range(40)]]
    assert client.post("/contexts", json_body={"tree": wide}).code == "invalid_tree", "a child over 65 535 bytes"
    for bad in ({}, {"tree": "a"}, {"tree": [1.5]}, {"tree": [-1]}, {"tree": [2**32]}, {"tree": None}, {"tree": {"a": 1}}, {"tree": [[None]]}):
        answer = client.post("/contexts", json_body=bad)
        assert answer.status == 400 and answer.code in ("invalid_tree", "invalid_value"), bad
    nested = b'{"tree":' + b"[" * 100000 + b"]" * 100000 + b"}"
    assert client.post("/contexts", nested, headers={"Content-Type": "application/json"}).status in (400, 413)
    assert client.get("/kv").status == 200


def test_hash_of_the_contract():
    """printf 12,45,43 | b2sum -l 64"""
    import hashlib
    assert layouts.context_name([12, 45, 43]).hex() == hashlib.blake2b(b"12,45,43", digest_size=8).hexdigest()
    assert layouts.context_name([12, 45, 43]) != hashlib.blake2b(b"12,45,43").digest()[:8]
    assert math.isclose(layouts.dequantize(255), 1)


def test_what_score_does_not_know_is_passed_over(client):
    """Alone and in lines alike: k is none of its members, however it is written."""
    client.put("/databases/" + client.db, json_body={"live": {"order": 2, "bos": 2, "eos": 3}})
    client.post("/ngrams", b'{"tokens":[2,4,5,3]}\n', headers=NDJSON)
    plain = client.post("/score", json_body={"tokens": [2, 4, 5]}).json()
    for k in (0, -1, 1.5, "5", None, []):
        question = {"tokens": [2, 4, 5], "k": k}
        assert client.post("/score", json_body=question).json() == plain, k
        lines = client.post("/score", ndjson([question, question]), headers=NDJSON).body.splitlines()
        assert [json.loads(line) for line in lines[:2]] == [plain, plain], k
        assert client.post("/predict", json_body=question).status == (400 if k is not None else 200), k
