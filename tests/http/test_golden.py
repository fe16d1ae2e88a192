"""A whole n-gram database put in by one batch, read back in every way."""
import json

import pytest
from harness import b64, golden, hexed, layouts, unb64


@pytest.fixture(scope="module")
def pairs():
    return golden.pairs()


@pytest.fixture(scope="module")
def loaded(server, pairs):
    """Read-only: (client, {pair: key})."""
    client = server.client(db="golden")
    operations = [{"op": "pair_put", "pair": b64(pair), "value": b64(payload)} for pair, payload in pairs.items()]
    answer = client.batch(operations, results="false")
    assert answer.status == 200 and answer.lines() == [{"end": {"count": len(pairs), "failed": 0}}]
    yield client, dict(client.scan())
    client.delete("/databases/golden", confirm="golden")


def test_our_own_statistics_make_the_example():
    """layouts.py, which other tests measure the server with, leads to the example byte for byte."""
    table, made = layouts.ingested(golden.documents(), golden.ORDER)
    made.update(layouts.smooth(table))
    assert made == golden.pairs()


def test_scan(loaded, pairs):
    client, keys = loaded
    assert client.scan(values="true") == [(pair, keys[pair], pairs[pair]) for pair in sorted(pairs)]


def test_point_reads(loaded, pairs):
    client, keys = loaded
    for pair in sorted(pairs)[::97]:
        answer = client.get("/pairs/" + hexed(pair), exact="true", values="true").json()
        assert answer == {"pair": b64(pair), "key": keys[pair], "size": len(pairs[pair]), "value": b64(pairs[pair])}
        assert client.read(keys[pair]) == pairs[pair]


@pytest.mark.parametrize("prefix", [b"ctx:", b"ctxv:", b"cnt:1:", b"cnt:2:", b"cnt:3:", b"prob:2:", b"topk:3:", b"cont:", b"cnt:", b"c", b"none:"])
def test_namespaces(loaded, pairs, prefix):
    client, _ = loaded
    want = sorted(pair for pair in pairs if pair.startswith(prefix))
    assert [pair for pair, _ in client.scan(prefix)] == want
    assert client.get("/pairs/" + hexed(prefix), count="true").json()["pairs"] == len(want)


@pytest.mark.parametrize("mode,prefix,member,read", [
    ("counts", b"cnt:", "followers", layouts.read_counts), ("probabilities", b"prob:", "entries", layouts.read_probabilities),
    ("topk", b"topk:", "ranked", layouts.read_topk)])
def test_decoded(loaded, pairs, mode, prefix, member, read):
    client, keys = loaded
    lines = client.get("/reduce/%s/%s" % (mode, hexed(prefix)), decode="true").entries()
    names = sorted(pair for pair in pairs if pair.startswith(prefix))
    assert [unb64(line["pair"]) for line in lines] == names
    for line, name in zip(lines, names):
        order, rows = read(pairs[name])
        assert line == {"pair": b64(name), "key": keys[name], "order": order, member: [list(row) for row in rows]}


def test_decoded_contexts_and_continuations(loaded, pairs):
    client, _ = loaded
    for line in client.get("/reduce/contexts/ctx:", decode="true").entries():
        assert layouts.context(line["tokens"]) == pairs[unb64(line["pair"])] and line["order_size"] == len(line["tokens"])
        assert unb64(line["pair"]) == b"ctx:" + layouts.context_name(line["tokens"])
    for line in client.get("/reduce/continuations/cont:", decode="true").entries():
        assert layouts.continuation(line["token"], line["contexts"]) == pairs[unb64(line["pair"])]


def test_sweep(loaded, pairs):
    client, keys = loaded
    by_key = {key: pairs[pair] for pair, key in keys.items()}
    lines = client.get("/kv").entries()
    assert {line["key"]: unb64(line["value"]) for line in lines} == by_key
    assert [line["key"] for line in lines] == sorted(by_key)
    size = len(next(iter(by_key.values())))
    lines = client.get("/kv", size=str(size), values="false").entries()
    assert [line["key"] for line in lines] == sorted(key for key, value in by_key.items() if len(value) == size)


def test_statistics(loaded, pairs):
    client, _ = loaded
    statistics = client.get("/databases/golden").json()
    assert statistics["pairs"] == len(pairs) == statistics["values"]
    assert json.dumps(statistics)
