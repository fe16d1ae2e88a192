"""What DB-SLM plugs in: the client class, each method of the adapter, and how few requests a training run takes."""
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
import types

from harness import golden, layouts
import pytest
from conftest import PACKAGE, QUICK, url_of

import cheetah_http
from cheetah_http import BadRequest, BatchError, CheetahError, Client, ConnectionLost, Retry, payloads
from cheetah_http.dbslm.known import KnownContexts
from cheetah_http.dbslm.points import PointReader
from cheetah_http.dbslm import (
    AbsoluteVectorOrder, CheetahClient, CheetahHotPathAdapter, CheetahSerializer, HotPathAdapter, NullHotPathAdapter,
    RawContextProjection, RawContinuationProjection, RawCountsProjection, RawProbabilityProjection, build_cheetah_adapter,
    hash_tokens,
)  # fmt: skip

ROOT = "__root__"


@pytest.fixture
def client(db, server):
    made = CheetahClient("127.0.0.1", server.port, database=db.database, retry=QUICK)
    yield made
    made.close()


@pytest.fixture
def adapter(client):
    with CheetahHotPathAdapter(client, flush_seconds=0) as made:
        yield made


# ---- the client class


def test_client_values(client):
    assert not client.healthy() and client.connect() and client.healthy()
    key, text = client.insert(b"\0payload")
    assert (key, text) == (1, "SUCCESS,key=1")
    assert client.read(key) == b"\0payload"
    assert client.edit(key, b"longer than before") == (True, "SUCCESS,key=1_updated")
    assert client.read(key) == b"longer than before"
    assert client.delete(key) == (True, "SUCCESS,key=1_deleted")
    assert client.read(key) is None
    for ok, text in (client.edit(key, b"x"), client.delete(key)):
        assert ok is False and text.split(" ")[0] == "ERROR,key_not_found"
    key, text = client.insert(b"")
    assert key is None and text.startswith("ERROR,")


def test_client_pairs(client):
    assert client.pair_get(b"ctx:\0a") is None
    assert client.pair_set(b"ctx:\0a", 5) == (True, "SUCCESS,pair_set")
    assert client.pair_get(b"ctx:\0a") == 5
    assert client.pair_del(b"ctx:\0a") == (True, "SUCCESS,pair_deleted")
    ok, text = client.pair_del(b"ctx:\0a")
    assert not ok and text.split(" ")[0] == "ERROR,not_found"
    assert client.pair_set(b"", 5)[0] is False


def pages(call):
    rows, cursor, sizes = [], None, []
    while True:
        page, cursor = call(cursor)
        rows += page
        sizes.append(len(page))
        if cursor is None:
            return rows, sizes


def test_client_scans_in_pages(client, db):
    names = [b"a:%04d" % i for i in range(5000)]
    with db.batch() as batch:
        for name in names:
            batch.pair_put(name, b"v" + name)
    keys = {row.pair: row.key for row in db.pairs()}
    rows, sizes = pages(lambda cursor: client.pair_scan(b"a:", 700, cursor))
    assert rows == [(name, keys[name]) for name in names] and sizes == [700] * 7 + [100]
    rows, sizes = pages(lambda cursor: client.pair_scan(b"a:", cursor=cursor))
    assert [name for name, _ in rows] == names and set(sizes[:-1]) == {256}
    rows, sizes = pages(lambda cursor: client.pair_scan(b"a:", 5000, cursor))
    assert len(rows) == 5000 and sizes == [4096, 904]
    assert len(client.pair_scan(b"a:", -1)[0]) == 5000 and client.pair_scan(b"a:", 5000 - 904)[1] is not None
    assert client.pair_scan(b"a:", -1)[1] is None and client.pair_scan(b"b:") == ([], None)
    rows, sizes = pages(lambda cursor: client.pair_reduce("payloads", b"a:", 2000, cursor))
    assert rows == [(name, keys[name], b"v" + name) for name in names] and sizes == [2000, 2000, 1000]
    client.pair_set(b"a:0000", 1 << 40)
    assert client.pair_reduce("payloads", b"a:0000")[0] == [(b"a:0000", 1 << 40, None)]
    assert client.pair_reduce("nonsense", b"a:") is None and client.healthy()


def test_client_of_a_database_that_does_not_exist_yet(server, name):
    client = CheetahClient("127.0.0.1", server.port, database=name)
    assert client.connect()
    assert client.read(1) is None and client.pair_get(b"a") is None
    assert client.pair_scan() == ([], None) and client.pair_reduce("counts") == ([], None)
    adapter = CheetahHotPathAdapter(client)
    assert adapter.fetch_topk(1, ROOT, 5) is None and list(adapter.iter_counts(1)) == []
    assert adapter.context_relativism([[1]]) == [] and adapter.scan_namespace("ctx") == []
    assert client.insert(b"x")[0] == 1
    client.db.drop_database(name)


def test_client_without_a_server():
    client = CheetahClient("127.0.0.1", 1, retry=cheetah_http.Retry(attempts=0))
    assert not client.connect() and "127.0.0.1:1" in client.describe_failures()
    assert client.insert(b"x") [1].startswith("ERROR,connection_lost")
    assert client.pair_scan() is None and client.read(1) is None and not client.healthy()
    settings = types.SimpleNamespace(backend="cheetah-db", cheetah_host="127.0.0.1", cheetah_database="default",
                                     cheetah_timeout_seconds=1.0)  # fmt: skip
    with pytest.raises(CheetahError):
        build_cheetah_adapter(settings, http_port=1, strict=True)
    assert isinstance(build_cheetah_adapter(settings, http_port=1), NullHotPathAdapter)
    assert isinstance(build_cheetah_adapter(types.SimpleNamespace(backend="sqlite")), NullHotPathAdapter)


def test_build_from_settings(server, db):
    settings = types.SimpleNamespace(backend="sqlite", cheetah_mirror=True, cheetah_host="127.0.0.1", cheetah_port=4455,
                                     cheetah_database=db.database, cheetah_timeout_seconds=1.0)  # fmt: skip
    adapter = build_cheetah_adapter(settings, http_port=server.port)
    adapter.write_metadata("built", '{"yes":true}')
    assert adapter.read_metadata("built") == '{"yes":true}' and db.database in adapter.describe()
    adapter.flush()


# ---- the adapter


def test_the_interfaces_are_the_same():
    import inspect

    names = [n for n in vars(HotPathAdapter) if not n.startswith("_")]
    assert len(names) == 16
    for n in names:
        want = list(inspect.signature(getattr(HotPathAdapter, n)).parameters.values())
        for kind in (CheetahHotPathAdapter, NullHotPathAdapter):
            have = list(inspect.signature(getattr(kind, n)).parameters.values())
            assert [(p.name, p.kind, p.default) for p in have] == [(p.name, p.kind, p.default) for p in want], n


def test_contexts(adapter, db):
    tokens = [12, 45, 43]
    adapter.publish_context(hash_tokens(tokens), 3, tokens)
    adapter.publish_context(ROOT, 0, [])
    assert adapter.fetch_context_tokens(hash_tokens(tokens)) == tokens  # not sent yet
    assert db.count() == 0
    adapter.flush()
    assert adapter.fetch_context_tokens(hash_tokens(tokens)) == tokens and adapter.fetch_context_tokens(ROOT) == []
    assert adapter.fetch_context_tokens("00" * 8) is None
    one, two = db.pair(b"ctx:" + payloads.context_name(tokens)), db.pair(b"ctxv:" + payloads.context_vector(tokens))
    assert one.key == two.key and one.value == layouts.context(tokens)  # one value, two names
    assert db.count() == 3
    adapter.publish_context(hash_tokens(tokens), 3, tokens)
    assert len(adapter._buffer) == 0  # known


def test_counts_probabilities_continuations_topk(adapter, db):
    rng = random.Random(8)
    contexts = [[rng.randrange(1 << 32) for _ in range(2)] for _ in range(40)] + [[]]
    counts, probabilities, ranked = {}, {}, {}
    for tokens in contexts:
        name, order = hash_tokens(tokens), len(tokens) + 1
        followers = sorted((rng.randrange(1 << 32), rng.randrange(1, 99)) for _ in range(rng.randrange(1, 50)))
        entries = [(token, rng.randrange(256), rng.choice([None, rng.randrange(1001)])) for token, _ in followers]
        best = sorted(((t, q) for t, q, _ in entries), key=lambda e: (-e[1], e[0]))[:20]
        adapter.publish_counts(order, name, followers)
        adapter.publish_probabilities(order, name, entries)
        adapter.publish_topk(order, name, best)
        counts[order, name], probabilities[order, name], ranked[order, name] = followers, entries, best
    continuations = sorted((rng.randrange(1 << 32), rng.randrange(1, 1000)) for _ in range(100))
    adapter.publish_continuations(continuations)
    for times in range(2):  # from the buffer, then from the server
        for (order, name), best in ranked.items():
            assert adapter.fetch_topk(order, name, 7) == best[:7]
        adapter.flush()
    assert adapter.topk_hit_ratio() == 1.0
    assert adapter.fetch_topk(2, "ab" * 8, 7) is None
    assert adapter.topk_hit_ratio() == pytest.approx(82 / 83)
    for order in (1, 3):
        have = list(adapter.iter_counts(order))
        assert all(isinstance(p, RawCountsProjection) and p.totals == sum(c for _, c in p.followers) for p in have)
        assert {(p.order, p.context_hash): list(p.followers) for p in have} == {k: v for k, v in counts.items() if k[0] == order}
        have = list(adapter.iter_probabilities(order))
        assert all(isinstance(p, RawProbabilityProjection) for p in have)
        want = {k: v for k, v in probabilities.items() if k[0] == order}
        assert {(p.order, p.context_hash): list(p.followers) for p in have} == want
    assert [(p.token_id, p.num_contexts) for p in adapter.iter_continuations()] == continuations
    assert all(isinstance(p, RawContinuationProjection) for p in adapter.iter_continuations())
    # the server reads the same
    assert all(row.problem is None for mode, prefix in (("counts", b"cnt:"), ("probabilities", b"prob:"), ("topk", b"topk:"))
               for row in db.reduce(mode, prefix))  # fmt: skip
    assert [tuple(row.record) for row in db.continuations()] == continuations


def test_the_last_one_published_counts(adapter):
    adapter.publish_counts(1, ROOT, [(1, 1)])
    adapter.publish_counts(1, ROOT, [(1, 2)])
    adapter.flush()
    adapter.publish_counts(1, ROOT, [(1, 3), (2, 9)])
    assert [p.followers for p in adapter.iter_counts(1)] == [((1, 3), (2, 9))]


def test_more_followers_than_version_1_holds(adapter, db):
    followers = [(token, token % 7 + 1) for token in range(70_000)]
    adapter.publish_counts(1, ROOT, followers)
    adapter.publish_probabilities(1, ROOT, [(t, 100, None) for t, _ in followers])
    (counts,), (probabilities,) = adapter.iter_counts(1), adapter.iter_probabilities(1)
    assert list(counts.followers) == followers and len(probabilities.followers) == 70_000
    assert db.pair_value(b"cnt:1:__root__")[0] == 2
    (row,) = db.counts(b"cnt:1:")
    assert row.record.followers == followers


def test_malformed_payloads_are_left_out(adapter, db, caplog):
    adapter.publish_counts(2, "01" * 8, [(1, 1)])
    db.pair_put(b"cnt:2:\0", b"\1\2\0\5")
    db.pair_put(b"cnt:2:\3", layouts.counts(7, [(1, 1)]))
    db.pair_set(b"cnt:2:\4", 999_999)
    assert [p.context_hash for p in adapter.iter_counts(2)] == ["01" * 8]
    assert len(caplog.records) == 2


def test_metadata(adapter, db):
    assert adapter.read_metadata("l2:stats:x") is None
    adapter.write_metadata("l2:stats:x", json.dumps({"ü": [1, 2]}))
    assert json.loads(adapter.read_metadata("l2:stats:x")) == {"ü": [1, 2]}
    adapter.flush()
    assert json.loads(adapter.read_metadata("l2:stats:x")) == {"ü": [1, 2]}
    assert [row.record.json for row in db.documents()] == [{"ü": [1, 2]}]
    with pytest.raises(ValueError):
        adapter.write_metadata("empty", "")


def test_scan_namespace(adapter):
    for i in range(300):
        adapter.publish_counts(2, "%016x" % i, [(1, 1)])
    rows = adapter.scan_namespace("cnt:2")
    assert [name for name, _ in rows] == [i.to_bytes(8, "big") for i in range(300)] and all(key for _, key in rows)
    assert adapter.scan_namespace("cnt:2", limit=10) == rows[:10]
    assert adapter.scan_namespace("cnt:2", prefix=bytes(6) + b"\1") == rows[256:]
    assert adapter.scan_namespace("cnt") == [] or all(name.startswith(b"2:") for name, _ in adapter.scan_namespace("cnt"))


def test_context_relativism(adapter, caplog):
    for tokens in ([12], [45], [12, 45], [45, 12], [12, 45, 43]):
        adapter.publish_context(hash_tokens(tokens), len(tokens), tokens)
        adapter.publish_topk(len(tokens) + 1, hash_tokens(tokens), [(tokens[-1] + 1, 200), (7, 100)])
    (found,) = adapter.context_relativism([[12]])
    key = dict(adapter.scan_namespace("ctx"))[bytes.fromhex(hash_tokens([12]))]
    vector = AbsoluteVectorOrder().encode_tree([[12]])
    assert found == RawContextProjection(hash_tokens([12]), 1, (12,), ((13, 200), (7, 100)), key, vector)
    # the order of siblings does not matter: one vector, so one of both contexts
    (found,) = adapter.context_relativism([[45], [12]])
    assert found.token_ids in ((12, 45), (45, 12))
    assert adapter.context_relativism([[99]]) == [] and len(adapter.context_relativism([[12], [43], [45]], limit=1)) == 1
    assert adapter.context_relativism([[t] for t in range(300)]) == [] and "no context tree" in caplog.text


def test_serializer():
    codec = CheetahSerializer()
    assert codec.decode_counts(codec.encode_counts(2, [(1, 5)])).followers == ((1, 5),)
    assert codec.decode_probabilities(codec.encode_probabilities(3, [(1, 5, None), (2, 6, 700)])).entries == ((1, 5, None), (2, 6, 700))
    assert codec.decode_context(codec.encode_context(2, [3, 4])).token_ids == (3, 4)
    assert codec.decode_continuation(codec.encode_continuation(3, 4) + b"more").num_contexts == 4
    ranked = [(i, 255 - i) for i in range(40)]
    assert codec.decode_topk(codec.encode_topk(1, ranked)).ranked == ranked[:32]
    assert codec.decode_topk(layouts.topk(1, ranked[:3]) + bytes(100)).ranked == ranked[:3]  # padded, as db_slm writes it
    for decode in (codec.decode_counts, codec.decode_probabilities, codec.decode_topk, codec.decode_context, codec.decode_continuation):
        assert decode(b"") is None and decode(b"\1") is None and decode(b"\7\1\1\1\1\1\1\1\1\1\1") is None
        assert decode(b"\1\1\xff\xff") is None


# ---- counts are never older than the contexts (M1), tokens of contexts without a request each (M2), today's methods


def test_counts_are_not_older_than_the_contexts(adapter, client):
    adapter.publish_context(ROOT, 0, [])
    adapter.publish_context(hash_tokens([5]), 1, [5])
    assert list(adapter.iter_counts(1)) == list(adapter.iter_counts(2)) == []  # counted and not published yet
    adapter.publish_counts(1, ROOT, [(5, 1)])
    adapter.publish_counts(2, hash_tokens([5]), [(6, 1)])
    assert [p.totals for p in adapter.iter_counts(1)] == [p.totals for p in adapter.iter_counts(2)] == [1]
    adapter.publish_context(hash_tokens([5]), 1, [5])  # known, and something more was counted behind it
    assert [p.totals for p in adapter.iter_counts(1)] == [1] and list(adapter.iter_counts(2)) == []
    adapter.publish_counts_batch(2, [(hash_tokens([5]), [(6, 2)])])
    assert [p.totals for p in adapter.iter_counts(2)] == [2]
    with CheetahHotPathAdapter(client, flush_seconds=0) as another:  # a new program
        assert list(another.iter_counts(1)) == []
        another.ingest([[5, 6, 7]], order=2)  # counted by the engine: these are the counts
        assert [p.totals for p in another.iter_counts(1)] == [4]


def test_tokens_of_contexts_take_one_scan(db, proxy):
    """As a rebuild asks: for the parent of every context, in a program that has not published them itself."""
    contexts = [[i, i % 7] for i in range(3000)]
    with CheetahHotPathAdapter(db, flush_seconds=0) as first:
        first.publish_contexts([(hash_tokens(tokens), 2, tokens) for tokens in contexts])
    with Client(proxy.url, database=db.database, retry=QUICK) as http:
        adapter = CheetahHotPathAdapter(http, flush_seconds=0)
        for tokens in contexts:
            assert adapter.fetch_context_tokens(hash_tokens(tokens)) == tokens
        assert adapter.fetch_context_tokens("ee" * 8) is None and adapter.fetch_context_tokens(ROOT) == []
        assert len(proxy.requests) <= 3
        small = CheetahHotPathAdapter(http, flush_seconds=0, cache_bytes=50_000)
        before = len(proxy.requests)
        assert [small.fetch_context_tokens(hash_tokens(tokens)) for tokens in contexts[:20]] == contexts[:20]
        assert small._known._bytes <= 50_000 and len(proxy.requests) - before <= 23
        mine = CheetahHotPathAdapter(http, flush_seconds=0)
        mine.publish_context(hash_tokens([1, 2, 3]), 3, [1, 2, 3])
        before = len(proxy.requests)
        assert mine.fetch_context_tokens(hash_tokens([1, 2, 3])) == [1, 2, 3] and len(proxy.requests) == before


def test_metadata_is_remembered(adapter, db, client):
    reads = []
    value = adapter._db.pair_value
    adapter._db.pair_value = lambda pair: reads.append(pair) or value(pair)
    for _ in range(5):
        assert adapter.read_metadata("absent") is None
    assert len(reads) == 1
    adapter.write_metadata("mine", "1")
    adapter.flush()
    assert adapter.read_metadata("mine") == "1" and len(reads) == 1
    db.pair_put(b"meta:theirs", b"1")
    assert adapter.read_metadata("theirs") == "1"
    db.pair_put(b"meta:theirs", b"2")
    assert adapter.read_metadata("theirs") == "2"  # what others write is asked for


def test_methods_of_todays_adapter(adapter, db):
    name = hash_tokens([5])
    adapter.publish_contexts([(name, 1, [5]), (ROOT, 0, [])])
    adapter.publish_probabilities_batch(2, [(name, [(6, 200, None)])])
    adapter.publish_topk_batch(2, [(name, [(6, 200)])])
    adapter.flush_pending()
    assert db.count(b"ctx:") == 2 and db.count(b"prob:2:") == db.count(b"topk:2:") == 1
    summary = adapter.namespace_summary(b"ctx:")
    assert (summary.terminal_count, summary.total_payload_bytes, summary.min_payload_bytes, summary.self_terminal) == (2, 3 + 7, 3, False)
    assert adapter.predict_query(key=b"a") is None and adapter.system_stats() is None
    assert not any(name.startswith("graph") for name in dir(adapter))  # db_slm switches its graph memory off


def test_predictions(adapter):
    """The learned tables, with the arguments that db_slm sends."""
    table, key = "context_matrices", b"meta:token_predictions"
    assert adapter.predict_query(key=key, table=table) is None and adapter.predict_query() is None
    assert adapter.predict_train(key=key, target="t1", context_matrix=[[1.0]], table=table) is False  # no such key
    for value in ("t1", b"t2"):
        assert adapter.predict_set(key=key, value=value, probability=0.05, table=table) is True
    context = {"rows": [[0.5, 1.0], [0.25, 0.0]], "weights": [3, 0.5]}
    even = adapter.predict_query(key="meta:token_predictions", context_matrix=context, table=table)
    assert (even.table, even.backend, even.count) == (table, "cpu", 2) and [one.probability for one in even.entries] == [0.5, 0.5]
    for _ in range(20):
        assert adapter.predict_train(key=key, target="t1", context_matrix=context, learning_rate=0.5, table=table, negatives=["t2"]) is True
    learned = adapter.predict_query(keys=[key, b"nobody"], context_matrix=context, windows=[[1.0]], table=table, merge_mode="max")
    assert learned.entries[0].value == b"t1" and learned.entries[0].probability > 0.9
    weighted = adapter.predict_query(key=key, context_matrix=[[1.0, 2.0], [0.125, 0.0]], table=table)  # what the weights, 0 to 2, make of it
    assert [one.probability for one in weighted.entries] == pytest.approx([one.probability for one in learned.entries], rel=1e-6)
    assert adapter.predict_inherit(key=key, target="t3", sources=["t1", "t2"], table=table, merge_mode="avg") is True
    assert adapter.predict_inherit(key=key, target="t4", sources=["none"], table=table) is False
    assert adapter.predict_inherit_batch(key=key, items=[{"target": "t5", "sources": [b"t1"]}, {}, {"target": "t6"}], table=table) is True
    assert {one.value for one in adapter.predict_query(key=key, table=table).entries} == {b"t1", b"t2", b"t3", b"t5"}
    assert adapter.predict_query(key=key, table="other") is None
    assert adapter.predict_set(key=key, value=b"t1", weights=[{"depth": 0, "vector": [1e400]}], table=table) is False


# ---- requests


def test_a_training_run_takes_few_requests(db, proxy):
    """50 000 rows published one by one."""
    rng = random.Random(9)
    with Client(proxy.url, database=db.database, retry=QUICK) as http:
        with CheetahHotPathAdapter(http, flush_seconds=0) as adapter:
            rows = 0
            for i in range(12_500):
                tokens = [i, rng.randrange(1000)]
                name = hash_tokens(tokens)
                adapter.publish_context(name, 2, tokens)
                adapter.publish_counts(3, name, [(rng.randrange(1000), 1)])
                adapter.publish_probabilities(3, name, [(5, 200, None)])
                adapter.publish_topk(3, name, [(5, 200)])
                rows += 4
        published = len(proxy.requests)
        assert published / (rows / 1000) < 1, "%d requests for %d rows" % (published, rows)
        assert db.count(b"ctx:") == db.count(b"ctxv:") == db.count(b"cnt:3:") == db.count(b"prob:3:") == db.count(b"topk:3:") == 12_500
        assert sum(1 for _ in adapter.iter_counts(3)) == 12_500
        assert len(proxy.requests) - published <= 12_500 / 2048 + 1


def test_a_training_run_inside_the_server_takes_two_requests(db, proxy):
    with Client(proxy.url, database=db.database, retry=QUICK) as http, CheetahHotPathAdapter(http) as adapter:
        steps = []
        counted = adapter.ingest(golden.documents(), order=golden.ORDER)
        results = adapter.smooth(progress=steps.append)
        assert len(proxy.requests) == 2 and counted.documents == 100 and steps
        assert [result.order for result in results] == [1, 2, 3]
    have = {row.pair: row.value for row in db.pairs(values=True)}
    assert have == golden.pairs()


def test_the_example_published_from_outside(db, adapter):
    """The statistics computed in Python and published through the adapter are the example, byte for byte."""
    table = layouts.count_ngrams(golden.documents(), golden.ORDER)
    for order, contexts in table.items():
        for tokens, followers in contexts.items():
            adapter.publish_context(hash_tokens(tokens), len(tokens), tokens)
            adapter.publish_counts(order, hash_tokens(tokens), sorted(followers.items()))
    for name, payload in layouts.smooth(table).items():
        namespace = b"cont" if name.startswith(b"cont:") else name[: name.index(b":", 5)]
        identifier = ROOT if name.endswith(b":__root__") else name[len(namespace) + 1 :].hex()
        if namespace == b"cont":
            record = payloads.decode_continuation(payload)
            adapter.publish_continuations([(record.token, record.contexts)])
        elif namespace.startswith(b"prob"):
            record = payloads.decode_probabilities(payload)
            adapter.publish_probabilities(record.order, identifier, record.entries)
        else:
            record = payloads.decode_topk(payload)
            adapter.publish_topk(record.order, identifier, record.ranked)
    adapter.flush()
    assert {row.pair: row.value for row in db.pairs(values=True)} == golden.pairs()


# ---- when things go wrong


def test_what_could_not_be_sent_is_sent_later(db, proxy):
    with Client(proxy.url, database=db.database, retry=cheetah_http.Retry(attempts=0)) as http:
        adapter = CheetahHotPathAdapter(http, batch_rows=10, flush_seconds=0)
        for i in range(10):
            adapter.publish_context(hash_tokens([i]), 1, [i])
        proxy.plan = lambda number, head: ("drop",)
        with pytest.raises(ConnectionLost):
            adapter.publish_context(hash_tokens([10]), 1, [10])
        with pytest.raises(ConnectionLost):
            adapter.flush()
        proxy.plan = lambda number, head: ("lose",) if number % 3 == 0 else None
        while True:  # answers get lost, too
            try:
                adapter.publish_context(hash_tokens([10]), 1, [10])
                adapter.flush()
                break
            except ConnectionLost:
                pass
        assert db.count(b"ctx:") == db.count(b"ctxv:") == 11 and len(list(db.values())) == 11


def test_an_optional_adapter_switches_itself_off(db, proxy, caplog):
    with Client(proxy.url, database=db.database, retry=cheetah_http.Retry(attempts=0)) as http:
        adapter = CheetahHotPathAdapter(http, optional=True, flush_seconds=0)
        adapter.publish_topk(1, ROOT, [(1, 1)])
        proxy.plan = lambda number, head: ("drop",)
        adapter.flush()
        assert "switched off" in caplog.text
        assert adapter.fetch_topk(1, ROOT, 5) is None and list(adapter.iter_counts(1)) == [] and len(proxy.requests) == 1
        adapter._buffer.drop()


def test_an_optional_adapter_does_not_wait(db, proxy, caplog):
    """Publishers go on while the server is silent, and a failure of the timer switches the adapter off as any other does."""
    hold = threading.Event()
    with Client(proxy.url, database=db.database, retry=QUICK) as http:
        adapter = CheetahHotPathAdapter(http, optional=True, batch_rows=100, flush_seconds=0.02)
        proxy.plan = lambda number, head: hold.wait(20) and ("drop",)
        start = time.monotonic()
        for i in range(350):  # beyond what one sending takes: nobody waits for it
            adapter.publish_counts(2, "%016x" % i, [(1, 1)])
        assert time.monotonic() - start < 15 and not caplog.text  # it is silent for 20
        hold.set()
        end = time.monotonic() + 60
        while "switched off" not in caplog.text and time.monotonic() < end:
            time.sleep(0.01)
        assert caplog.text.count("switched off") == 1 and len(adapter._buffer) == 0
        adapter.publish_counts(2, ROOT, [(1, 1)])
        assert len(adapter._buffer) == 0 and adapter.read_metadata("x") is None


def test_an_optional_adapter_gives_up_on_a_server_that_does_not_keep_up(db, proxy, caplog):
    hold = threading.Event()
    with Client(proxy.url, database=db.database, retry=QUICK) as http:
        adapter = CheetahHotPathAdapter(http, optional=True, batch_rows=10, flush_seconds=0)
        proxy.plan = lambda number, head: hold.wait(20) and None
        for i in range(200):
            adapter.publish_counts(2, "%016x" % i, [(1, 1)])
        assert "does not keep up" in caplog.text
        hold.set()
        adapter._buffer.flush()


def test_publishers_do_not_wait_for_the_sending(db, proxy):
    """While one batch is on its way another fills; what was put meanwhile is newer than what failed."""
    hold = threading.Event()
    with Client(proxy.url, database=db.database, retry=cheetah_http.Retry(attempts=0)) as http:
        adapter = CheetahHotPathAdapter(http, flush_seconds=0)
        adapter.publish_counts(1, ROOT, [(1, 1)])
        adapter.publish_counts(2, "aa" * 8, [(7, 7)])
        proxy.plan = lambda number, head: hold.wait(20) and ("drop",)
        failed = []

        def flush():
            try:
                adapter.flush()
            except ConnectionLost as error:
                failed.append(error)

        thread = threading.Thread(target=flush)
        thread.start()
        while not proxy.requests:
            time.sleep(0.001)
        adapter.publish_counts(1, ROOT, [(2, 2)])  # would wait for ever under one lock
        assert adapter._read(b"cnt:1:__root__")[-8:] == b"\0\0\0\2\0\0\0\2" and adapter._read(b"cnt:2:" + b"\xaa" * 8) is not None
        hold.set()
        thread.join()
        proxy.plan = None
        assert len(failed) == 1
        adapter.flush()
        assert [p.followers for p in adapter.iter_counts(1)] == [((2, 2),)] and [p.followers for p in adapter.iter_counts(2)] == [((7, 7),)]


def test_a_row_that_the_server_does_not_take(launch):
    server = launch("--max-value-size", "1000", "--durability", "os")
    with Client(url_of(server), retry=QUICK) as http:
        adapter = CheetahHotPathAdapter(http, flush_seconds=0)
        adapter.publish_counts(1, ROOT, [(i, 1) for i in range(500)])
        adapter.publish_counts(2, "aa" * 8, [(1, 1)])
        with pytest.raises(BatchError) as caught:
            adapter.flush()
        assert [error.code for _, error in caught.value.failures] == ["value_too_large"]
        adapter.flush()
        assert [p.context_hash for p in adapter.iter_counts(2)] == ["aa" * 8]
        adapter.publish_context("z" * 5000, 1, [4])  # a name of more than 4096 bytes
        adapter.publish_context("bb" * 8, 1, [5])
        adapter.publish_counts(3, "bb" * 8, [(1, 1)])
        with pytest.raises(BatchError) as caught:
            adapter.flush()
        assert [error.code for _, error in caught.value.failures] == ["invalid_pair"]
        assert [p.context_hash for p in adapter.iter_counts(3)] == ["bb" * 8]
        assert (http.count(b"ctx:"), http.count(b"ctxv:")) == (1, 1)
    with pytest.raises(ValueError):
        adapter.publish_counts(1, ROOT, [(-1, 1)])
    with pytest.raises(ValueError):
        adapter.publish_counts(300, ROOT, [(1, 1)])


def test_what_is_being_filled_is_not_complete():
    """Another thread that looks meanwhile must not take a context that has not come yet, or was thrown out, for none."""
    for size, complete in ((1 << 20, True), (500, False)):
        known, seen = KnownContexts(size), []

        def contexts():
            for i in range(10):
                seen.append(known.complete)
                yield "%016x" % i, payloads.encode_context(1, [i])

        known.fill(contexts())
        assert seen == [False] * 10 and known.filled and known.complete is complete


def test_rows_are_sent_after_a_while(client, db):
    adapter = CheetahHotPathAdapter(client, flush_seconds=0.05)
    adapter.publish_counts(1, ROOT, [(1, 1)])
    end = time.monotonic() + 30
    while (db.count() == 0 or len(adapter._buffer) > 0) and time.monotonic() < end:
        time.sleep(0.01)  # a row leaves the buffer when it has been answered
    assert db.count() == 1 and len(adapter._buffer) == 0


def test_rows_are_sent_before_the_client_is_closed(db, server, caplog):
    with Client(url_of(server), database=db.database, retry=QUICK) as closed:
        adapter = CheetahHotPathAdapter(closed, flush_seconds=0)
        adapter.write_metadata("a", "b")
        other = CheetahHotPathAdapter(closed.on(db.database), flush_seconds=0, optional=True)
        other.write_metadata("c", "d")
    assert db.pair_value(b"meta:a") == b"b" and db.pair_value(b"meta:c") == b"d"
    adapter.close()  # nothing waits
    adapter.write_metadata("e", "f")
    with pytest.raises(RuntimeError, match="the client is closed"):
        adapter.flush()
    del adapter
    assert "1 rows could not be sent and are lost: the client is closed" in caplog.text


def test_a_client_that_is_closed_says_what_is_lost(db, proxy, caplog):
    with Client(proxy.url, database=db.database, retry=Retry(attempts=0)) as closed:
        adapter = CheetahHotPathAdapter(closed, flush_seconds=0)
        adapter.write_metadata("a", "b")
        proxy.plan = lambda number, head: ("drop",)
    assert "1 rows could not be sent and are lost" in caplog.text
    adapter.close()


def in_child(check):
    """Whether a forked process finds it so."""
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = check()
        finally:
            os._exit(0 if good else 1)
    return lambda: os.waitpid(child, 0)[1] == 0


def test_a_forked_process_does_not_send_what_its_parent_has(db, adapter):
    adapter._buffer._seconds = 0
    adapter.write_metadata("a", "old")
    with adapter._buffer._sending, adapter._buffer._lock:  # as another thread may, which is not in the child

        def check():
            adapter.write_metadata("b", "child")
            adapter.flush()
            return db.pair_value(b"meta:a") is None

        done = in_child(check)
        assert done()
    assert db.pair_value(b"meta:b") == b"child"
    adapter.flush()
    assert db.pair_value(b"meta:a") == b"old"


def test_a_forked_process_reads_points_over_a_connection_of_its_own(db):
    for i in range(20):
        db.pair_put(b"v:%d" % i, b"%d" % i)
    points = PointReader(db)

    def right():
        return all(points.value(b"v:%d" % (i % 20)) == b"%d" % (i % 20) for i in range(300))

    assert right()
    done = in_child(right)
    assert right() and done()


def test_a_point_read_that_was_interrupted(db, monkeypatch):
    """The next one does not take its answer."""
    db.upsert([(b"v:1", b"1"), (b"v:2", b"2")])
    points = PointReader(db)
    assert points.value(b"v:1") == b"1"

    def interrupt(connection):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(points, "_answer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            points.value(b"v:1")
    assert points.value(b"v:2") == b"2"


def test_rows_are_sent_at_the_end_of_the_program(db, server):
    code = """
from cheetah_http.dbslm import CheetahClient, CheetahHotPathAdapter
adapter = CheetahHotPathAdapter(CheetahClient("127.0.0.1", %d, database=%r), flush_seconds=3600)
adapter.publish_context("00" * 8, 1, [7])
adapter.publish_counts(1, "__root__", [(1, 1)])
""" % (server.port, db.database)
    env = dict(os.environ, PYTHONPATH=os.path.join(PACKAGE, "src"))
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)
    assert db.count(b"cnt:1:") == 1 and db.count(b"ctx") == 2


def test_several_threads(client, db):
    with CheetahHotPathAdapter(client, batch_rows=50, flush_seconds=0.01) as adapter:
        errors = []

        def work(number):
            try:
                for i in range(300):
                    tokens = [number, i]
                    adapter.publish_context(hash_tokens(tokens), 2, tokens)
                    adapter.publish_topk(3, hash_tokens(tokens), [(i, number)])
                    if i % 50 == 0:
                        assert adapter.fetch_topk(3, hash_tokens(tokens), 1) == [(i, number)]
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
    assert db.count(b"ctx:") == db.count(b"topk:3:") == 1800
    assert db.count(b"ctxv:") == 1800 - 15  # [1, 2] and [2, 1] have one vector


def test_quantizing_is_that_of_the_layouts():
    rng = random.Random(3)
    for p in [0.0, 1e-13, 1e-12, 1.0, 2.0] + [10 ** rng.uniform(-12, 0) for _ in range(2000)]:
        assert payloads.quantize(p) == layouts.quantize(p)
    assert all(math.isclose(payloads.dequantize(q), layouts.dequantize(q)) for q in range(256))
