"""The calls, one by one, against the real server."""
import random
import urllib.request

from harness import layouts, wait_for
import pytest
from conftest import QUICK, url_of

import cheetah_http
from cheetah_http import BadRequest, BatchError, BatchFailed, Client, Conflict, NotFound, PreconditionFailed, TooLarge
from cheetah_http.types import Operation
from cheetah_http.wire import b64


def test_values(db):
    key = db.insert(b"hello")
    assert key == 1 and db.read(key) == b"hello"
    db.edit(key, b"a longer value\0\xff")
    assert db.get(key) == b"a longer value\0\xff"
    db.delete(key)
    assert db.get(key) is None and db.get(key, b"none") == b"none"
    for call in (lambda: db.read(key), lambda: db.edit(key, b"x"), lambda: db.delete(key)):
        with pytest.raises(NotFound) as caught:
            call()
        error = caught.value
        assert (error.status, error.code, error.title) == (404, "key_not_found", "Not Found")
        assert error.detail and error.request_id and isinstance(error, LookupError)


def test_pair_many(db):
    made = {b"n%d" % i: b"v%d" % i for i in range(0, 25_000, 5)}
    with db.batch() as batch:
        for name, value in made.items():
            batch.pair_put(name, value)
    asked = [b"n%d" % i for i in range(25_000)]
    found = list(db.pair_many(iter(asked)))
    assert [row and (row.pair, row.value) for row in found] == [(name, made[name]) if name in made else None for name in asked]
    assert [row and row.size for row in db.pair_many([b"n5", b"none"], values=False)] == [None, None]
    assert list(db.pair_many([])) == []
    long = [b"%04d" % i + b"n" * 4092 for i in range(2500)]  # more than goes into one request
    db.pair_put(long[2100], b"there")
    assert [i for i, row in enumerate(db.pair_many(long)) if row] == [2100]
    with pytest.raises(ValueError):
        list(db.pair_many([b"n5", b""]))


def test_add(db):
    assert [db.add(b"n"), db.add(b"n", 41), db.add(b"n", -50)] == [1, 42, -8] and db.pair_value(b"n") == b"-8"
    db.pair_put(b"word", b"word")
    with pytest.raises(Conflict) as caught:
        db.add(b"word")
    assert caught.value.code == "not_a_number"
    db.counts_add(b"c", 2, [(7, 3), (5, 1)])
    with pytest.raises(Conflict) as caught:
        db.counts_add(b"c", 2, [(5, 1), (7, -4)])
    assert caught.value.code == "not_counted"
    with db.batch(atomic=True) as batch:
        sums = [batch.add(b"n", 1), batch.add(b"m", 2)]
        batch.counts_add(b"c", 2, [(7, -3)])
    assert [one.number for one in sums] == [-7, 2] and sums[0].value is None
    assert cheetah_http.payloads.decode_counts(db.pair_value(b"c")).followers == [(5, 1)]
    assert not sums[0].repeatable


def test_conditions(db):
    made = db.pair_put(b"n", b"one", if_absent=True)
    assert made.created and made.etag == db.pair(b"n").etag == db.pair(b"n", values=False).etag == db.read_tagged(made.key).etag
    for call in (lambda: db.pair_put(b"n", b"x", if_absent=True), lambda: db.pair_put(b"n", b"x", if_match='"0123"'), lambda: db.pair_set(b"n", 5, if_absent=True),
                 lambda: db.pair_put(b"m", b"x", if_match="*"), lambda: db.edit(made.key, b"x", if_match='"0"'), lambda: db.delete(made.key, if_match='"0"'),
                 lambda: db.pair_delete(b"n", if_match='"0"')):
        with pytest.raises(PreconditionFailed) as caught:
            call()
        assert (caught.value.status, caught.value.code) == (412, "precondition_failed")
    assert db.pair_value(b"n") == b"one" and db.pair(b"m") is None
    again = db.pair_put(b"n", b"two", if_match=made.etag)
    assert not again.created and again.etag == db.pair(b"n").etag != made.etag
    third = db.edit(made.key, b"three", if_match=again.etag)
    assert db.read_tagged(made.key) == (b"three", third) and db.edit(made.key, b"four") is None
    assert db.pair_set(b"other", made.key, if_absent=True)
    db.pair_delete(b"other", if_match=db.pair(b"other").etag)
    db.delete(made.key, if_match=db.read_tagged(made.key).etag)
    with pytest.raises(BadRequest) as caught:
        db.pair_put(b"n", b"x", if_match="not in quotes")
    assert caught.value.code == "invalid_precondition"
    with pytest.raises(ValueError):
        db.pair_put(b"n", b"x", if_absent=True, if_match="*")


def test_tags_and_ends_of_many(db):
    """What a read by name says of a pair, scans, pair_many and batches say of many."""
    db.pair_put(b"a", b"one")
    db.pair_put(b"b", b"two", ttl=900)
    by_name = [db.pair(b"a"), db.pair(b"b")]
    for rows in (list(db.pairs(values=True, etags=True, expires=True, page_size=1)), list(db.pair_many([b"a", b"b"], etags=True))):
        assert [(tuple(row), row.etag, row.expires) for row in rows] == [(tuple(row), row.etag, row.expires) for row in by_name]
    assert by_name[1].expires and [row.expires for row in db.pairs(expires=True)] == [None, by_name[1].expires]
    with db.batch(etags=True) as batch:
        operations = [batch.pair_get(b"a", values=True), batch.read(by_name[1].key), batch.pair_put(b"c", b"three")]
    assert [one.etag for one in operations] == [by_name[0].etag, by_name[1].etag, db.pair(b"c").etag]
    statistics = db.database_statistics(all_lengths=True)
    assert statistics["expiring"] == 1 and [row["length"] for row in statistics["lengths"]] == [3, 5]
    assert [(row["least"], row["most"]) for row in db.database_statistics()["lengths"]] == [(3, 5)]


def test_conditions_in_batches(db):
    with db.batch() as batch:
        first = batch.pair_put(b"a", b"one", if_absent=True)
        batch.pair_put(b"b", b"one", if_absent=True)
    assert first.etag == db.pair(b"a").etag and not first.repeatable
    with pytest.raises(BatchFailed) as caught:
        with db.batch(atomic=True) as batch:
            batch.pair_put(b"b", b"two", if_match=db.pair(b"b").etag)
            batch.pair_put(b"a", b"two", if_match='"0123456789abcdef"')
    assert caught.value.index == 1 and isinstance(caught.value.operation, PreconditionFailed)
    assert db.pair_value(b"b") == b"one"
    with db.batch(atomic=True) as batch:
        batch.pair_put(b"a", b"two", if_match=first.etag)
        batch.pair_delete(b"b", values=True, if_match=db.pair(b"b").etag)
        batch.pair_set(b"c", first.key, if_absent=True)
        batch.edit(first.key, b"three", if_match="*")
    assert [(row.pair, row.value) for row in db.pairs(values=True)] == [(b"a", b"three"), (b"c", b"three")]
    with db.batch() as batch:
        batch.delete(first.key, if_match=db.read_tagged(first.key).etag)
    assert db.get(first.key) is None


def test_bad_arguments_are_not_sent(db):
    for call in (
        lambda: db.insert(b""), lambda: db.read(0), lambda: db.read(1 << 48), lambda: db.read(True), lambda: db.read("1"),
        lambda: db.pair_put(b"", b"x"), lambda: db.pair_put(b"p" * 4097, b"x"), lambda: db.pair_set(b"p", 0),
        lambda: list(db.pairs(limit=0)), lambda: list(db.pairs(page_size=0)),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            call()
    for call in (lambda: db.insert("text"), lambda: db.pair_put("text", b"x")):
        with pytest.raises(TypeError):
            call()


def test_read_many_over_the_limit_of_one_request(db):
    with db.batch() as batch:
        for i in range(2500):
            batch.insert(b"%d" % i)
    keys = list(range(2500, 0, -1)) + [9999]
    found = list(db.read_many(keys))
    assert [row.key for row in found] == keys
    assert [row.value for row in found] == [b"%d" % (key - 1) for key in keys[:-1]] + [None]


def test_sweep_of_values(db):
    with db.batch() as batch:
        for i in range(100):
            batch.insert(b"x" * (i % 3 + 1))
    everything = list(db.values(page_size=7))
    assert [row.key for row in everything] == list(range(1, 101))
    assert [row.value for row in everything] == [b"x" * (i % 3 + 1) for i in range(100)]
    assert [row.key for row in db.values(after=10, limit=20, page_size=6)] == list(range(11, 31))
    assert [row.key for row in db.values(size=2, page_size=10)] == list(range(2, 101, 3))
    assert all(row.value is None and row.size for row in db.values(payloads=False))


def test_pairs(db):
    assert db.pair_set(b"ctx:a", 7) is True and db.pair_set(b"ctx:a", 8) is False
    assert db.pair_get(b"ctx:a") == 8 and db.pair_get(b"ctx:b") is None and db.pair_get(b"ctx:b", 5) == 5
    assert db.pair_value(b"ctx:a") is None and db.pair_value(b"ctx:b", b"d") == b"d"
    first = db.pair_put(b"ctx:b", b"one")
    again = db.pair_put(b"ctx:b", b"another")
    assert first.created and not again.created and first.key == again.key
    assert db.pair(b"ctx:b") == (b"ctx:b", first.key, 7, b"another")
    assert db.count() == 2 and db.count(b"ctx:b") == 1
    db.pair_delete(b"ctx:b", values=True)
    assert db.pair(b"ctx:b") is None and db.get(first.key) is None
    with pytest.raises(NotFound) as caught:
        db.pair_delete(b"ctx:b")
    assert caught.value.code == "pair_not_found"
    assert db.delete_prefix(b"ctx:") == (1, 0)
    assert list(db.pairs()) == []


@pytest.mark.parametrize("pair", [b"*", b"x", b"x00", b"\0", b"a/b?c#d%2F", bytes(range(256)), b"p" * 4096])
def test_any_bytes_are_a_pair(db, pair):
    db.pair_put(pair, b"v")
    assert db.pair_value(pair) == b"v"
    assert [row.pair for row in db.pairs(pair)] == [pair]
    db.pair_put(pair[:-1] + b"\xff\xff" if len(pair) < 4096 else b"q" * 4096, b"w")
    assert [row.pair for row in db.pairs(after=pair)] == [row.pair for row in db.pairs()][1:]
    db.pair_delete(pair)


def test_scans_page_by_themselves(db, server):
    rng = random.Random(5)
    names = sorted({rng.randbytes(rng.randrange(1, 9)) for _ in range(3000)})
    with db.batch() as batch:
        for name in names:
            batch.pair_put(name, b"v" + name)
    assert [row.pair for row in db.pairs()] == names
    assert [row.pair for row in db.pairs(page_size=100)] == names
    assert [row.pair for row in db.pairs(page_size=100, reverse=True)] == names[::-1]
    assert [row.pair for row in db.pairs(page_size=len(names))] == names
    assert [row.pair for row in db.pairs(limit=250, page_size=100)] == names[:250]
    middle, end = names[500], names[900]
    assert [row.pair for row in db.pairs(after=middle, until=end, page_size=64)] == names[501:900]
    assert [row.pair for row in db.pairs(after=end, until=middle, reverse=True, page_size=64)] == names[899:500:-1]
    for row in db.pairs(values=True, page_size=333):
        assert row.value == b"v" + row.pair and row.size == len(row.value)
    prefix = names[0][:1]
    assert [row.pair for row in db.pairs(prefix, page_size=3)] == [name for name in names if name.startswith(prefix)]


def test_children_page_by_themselves(db):
    with db.batch() as batch:
        for i in range(300):
            batch.pair_put(b"%c%d:%d" % (97 + i % 26, i % 7, i), b"v")
        lone = batch.pair_put(b"lone", b"v")
    key = lone.result().key
    names = sorted(row.pair for row in db.pairs())
    groups = sorted({name.split(b":")[0] + b":" for name in names if b":" in name})
    for page_size in (3, 1000):
        children = list(db.children(separator=b":", page_size=page_size))
        assert [child.name for child in children] == sorted([*groups, b"lone"])
        assert all(child.pairs == db.count(child.name) and child.key is None for child in children if child.name != b"lone")
        assert [child.key for child in children if child.name == b"lone"] == [key]
        letters = list(db.children(page_size=page_size))
        assert [child.name for child in letters] == sorted({name[:1] for name in names}) and sum(child.pairs for child in letters) == 301
    assert [child.name for child in db.children(b"a", after=b"a0:", separator=b":", limit=2)] == [group for group in groups if b"a0:" < group < b"b"][:2]


def test_scan_left_early_does_not_hurt(db):
    with db.batch() as batch:
        for i in range(5000):
            batch.pair_put(b"%06d" % i, b"x")
    for _ in range(30):
        assert next(iter(db.pairs())).pair == b"000000"
    assert db.count() == 5000


def test_batches_collect_and_flush(db):
    with db.batch(max_operations=10) as batch:
        made = [batch.insert(b"%d" % i) for i in range(25)]
        assert made[0].done and made[0].result().key == 1 and not made[24].done and len(batch) == 5
        with pytest.raises(RuntimeError):
            made[24].result()
    assert [operation.result().key for operation in made] == list(range(1, 26))
    with db.batch() as batch:
        edited = batch.edit(1, b"new")
        read = batch.read(1)
        mapped = batch.pair_set(b"p", 1)
        put = batch.pair_put(b"q", b"value")
        found = batch.pair_get(b"p", values=True)
        gone = batch.delete(2)
        unmapped = batch.pair_delete(b"q", values=True)
    assert (edited.status, read.value, mapped.status, put.status) == (200, b"new", 201, 201)
    assert (found.key, found.value, gone.status, unmapped.status) == (1, b"new", 204, 204)


def test_batches_flush_by_bytes(db):
    with db.batch(max_bytes=10_000) as batch:
        first = batch.insert(b"a" * 5000)
        assert not first.done
        batch.insert(b"b" * 5000)
        assert first.done and len(batch) == 1
    assert db.read(2) == b"b" * 5000


def test_failed_operations_of_a_batch(db):
    batch = db.batch()
    kept, missing, other = batch.insert(b"x"), batch.edit(99, b"y"), batch.pair_delete(b"none")
    with pytest.raises(BatchError) as caught:
        batch.flush()
    assert [(number, error.code) for number, error in caught.value.failures] == [(1, "key_not_found"), (2, "pair_not_found")]
    assert kept.result().key == 1 and isinstance(missing.error, NotFound)
    with pytest.raises(NotFound):
        other.result()
    assert db.read(1) == b"x" and len(batch) == 0


def test_what_a_batch_of_reads_does_not_find_is_an_answer(db):
    key = db.insert(b"x")
    db.pair_set(b"there", key)
    with db.batch() as batch:
        reads = [batch.read(99), batch.pair_get(b"none", values=True), batch.read(key), batch.pair_get(b"there", values=True)]
    assert [(r.status, r.value, r.error) for r in reads] == [(404, None, None), (404, None, None), (200, b"x", None), (200, b"x", None)]
    assert reads[1].result().key is None and reads[3].result().key == key


def test_atomic_batch(db):
    with pytest.raises(BatchFailed) as caught:
        with db.batch(atomic=True, max_operations=2) as batch:
            operations = [batch.insert(b"a"), batch.insert(b"b"), batch.insert(b"c"), batch.read(77)]
            assert not any(operation.done for operation in operations)
    error = caught.value
    assert (error.index, error.operation.code, error.status) == (3, "key_not_found", 409)
    assert list(db.values()) == []
    with db.batch(atomic=True) as batch:
        batch.insert(b"a")
        batch.pair_put(b"p", b"b")
    assert len(list(db.values())) == 2


def test_an_exception_throws_the_batch_away(db):
    with pytest.raises(ZeroDivisionError):
        with db.batch() as batch:
            batch.insert(b"x")
            raise ZeroDivisionError
    assert list(db.values()) == []


@pytest.fixture
def model(db):
    """A database with a small counted and smoothed model; and its documents."""
    rng = random.Random(4)
    documents = [[2] + [rng.randrange(4, 40) for _ in range(rng.randrange(3, 30))] + [3] for _ in range(60)]
    counted = db.ngrams(documents, order=3)
    assert counted.documents == 60 and counted.tokens == sum(map(len, documents)) and counted.contexts_created > 60
    db.smooth()
    return db, documents


RECORDS = {
    "counts": (b"cnt:2:", cheetah_http.payloads.decode_counts),
    "probabilities": (b"prob:2:", cheetah_http.payloads.decode_probabilities),
    "topk": (b"topk:2:", cheetah_http.payloads.decode_topk),
    "continuations": (b"cont:", cheetah_http.payloads.decode_continuation),
    "contexts": (b"ctx:", cheetah_http.payloads.decode_context),
}


@pytest.mark.parametrize("mode", sorted(RECORDS))
def test_reducers_decode_as_the_local_decoders_do(model, mode):
    db, _ = model
    prefix, decode = RECORDS[mode]
    decoded = list(db.reduce(mode, prefix, page_size=13))
    raw = list(db.reduce(mode, prefix, decode=False, page_size=17))
    assert len(decoded) > 30 and [row.pair for row in decoded] == [row.pair for row in db.pairs(prefix)]
    assert [row.record for row in decoded] == [decode(row.payload) for row in raw]
    assert all(row.payload is None and row.problem is None for row in decoded)
    short = {"counts": db.counts, "probabilities": db.probabilities, "topk": db.topk, "continuations": db.continuations,
             "contexts": db.stored_contexts}[mode]  # fmt: skip
    assert list(short(prefix, limit=20)) == decoded[:20]


def test_reducer_rows_without_a_record(db):
    db.pair_put(b"cnt:1:a", b"\1\1\0\1")
    db.pair_set(b"cnt:1:b", 4711)
    bad, dangling = db.counts(b"cnt:1:")
    assert (bad.problem, bad.payload, bad.record) == ("malformed_payload", b"\1\1\0\1", None)
    assert (dangling.problem, dangling.payload, dangling.record, dangling.key) == (None, None, None, 4711)
    with pytest.raises(cheetah_http.payloads.MalformedPayload):
        cheetah_http.payloads.decode_counts(bad.payload)
    with pytest.raises(NotFound) as caught:
        list(db.reduce("nonsense", b"cnt:"))
    assert caught.value.code == "unknown_reducer_mode"


def test_json_payloads_and_queues(db):
    db.pair_put(b"meta:a", b'{"n":[1,2]}')
    db.pair_put(b"meta:b", b"null")
    assert [row.record.json for row in db.documents()] == [{"n": [1, 2]}, None]
    with db.batch() as batch:
        for i in range(10):
            batch.pair_put(b"q:%03d" % i, b"job %d" % i)
    assert [row.payload for row in db.queue_peek(b"q:", limit=2)] == [b"job 0", b"job 1"]
    assert [row.payload for row in db.queue_drain_rows(b"q:", limit=4)] == [b"job %d" % i for i in range(4)]
    assert [row.pair for row in db.queue_drain(b"q:")] == [b"q:%03d" % i for i in range(4, 10)]
    assert db.queue_drain(b"q:") == [] and db.count(b"q:") == 0
    assert [row.payload for row in db.payloads(b"meta:")] == [b'{"n":[1,2]}', b"null"]


def test_aggregates(model):
    db, documents = model
    stats = db.stats(b"cnt:1:")
    assert stats.pairs == 1 and stats.dangling == 0 and stats.bytes == stats.min == stats.max == stats.mean
    tokens = [token for document in documents for token in document]
    totals = db.totals(b"cnt:1:")
    assert {total.token: total.count for total in totals} == {token: tokens.count(token) for token in set(tokens)}
    best = db.totals(b"cnt:1:", by_count=True, limit=3)
    assert best == sorted(totals, key=lambda t: (-t.count, t.token))[:3]
    want = layouts.counts_of_counts([row.record.followers for row in db.counts(b"cnt:2:")])
    assert db.counts_of_counts(b"cnt:2:")._asdict() == want
    target = next(iter(db.counts(b"cnt:2:")))
    for metric, function in (("cosine", layouts.cosine), ("jaccard", layouts.jaccard)):
        scores = {r.pair: function(target.record.followers, r.record.followers) for r in db.counts(b"cnt:2:") if r.pair != target.pair}
        found = db.similar(b"cnt:2:", target.pair, metric=metric, limit=5)
        assert [row.pair for row in found] == sorted(scores, key=lambda pair: (-scores[pair], pair))[:5]
        assert [row.score for row in found] == pytest.approx(sorted(scores.values(), reverse=True)[:5])


def test_links(model):
    db, _ = model
    seen = []
    found = db.find_links(b"cnt:2:", k=3, min=0.25, progress=seen.append)
    rows = {row.pair: row.record.followers for row in db.counts(b"cnt:2:")}
    assert (found.metric, found.contexts, found.too_long) == ("cosine", len(rows), 0) and {step.phase for step in seen} >= {"survey", "links", "switch"}
    kept = list(db.links(b"cnt:2:", page_size=2))
    assert [entry.pair for entry in kept] == sorted(rows) and sum(len(entry.links) for entry in kept) == found.links > 0
    for entry in kept[:5]:
        want = sorted((-layouts.cosine(rows[entry.pair], rows[pair]), pair) for pair in rows if pair != entry.pair)
        assert [link.weight for link in entry.links] == pytest.approx([-score for score, _ in want if score <= -0.25][:3], abs=1e-6)
    assert list(db.links(b"cnt:2:", metric="pmi")) == [] and db.find_links(b"cnt:2:", metric="pmi", to=b"cnt:1:").contexts == len(rows)
    assert [entry.pair for entry in db.links(b"cnt:2:", metric="pmi", words=True, limit=2)] == sorted(rows)[:2]


def test_prediction_with_links(model):
    db, documents = model
    with pytest.raises(Conflict) as caught:
        db.linked_predict(documents[0][:2], 0.5)
    assert caught.value.code == "no_links"
    db.find_links(min=0.01, metric="jaccard")
    own, mixed = db.predict(documents[0][:2], k=1000), db.linked_predict(documents[0][:2], 0.5, k=1000)
    assert mixed.context == own.context and mixed.links > 0 and mixed.metric == "jaccard" and mixed.unknown is None
    assert sum(c.p for c in mixed.candidates) == pytest.approx(1, abs=1e-9) and {c.token for c in own.candidates} <= {c.token for c in mixed.candidates}
    assert db.linked_predict(documents[0][:2], 0.5, seldom=1, metric="jaccard", mode="blend", max_order=1).links == 0


def test_matrix_and_associations(model):
    db, documents = model
    made = db.make_matrix(metric="count")
    assert [m.order for m in made] == [2, 3] and made[0].rows == sum(1 for _ in db.matrix(2))
    pairs = {}
    for document in documents:
        for a, b in zip(document, document[1:]):
            pairs[a, b] = pairs.get((a, b), 0) + 1
    assert {(row.token, token): value for row in db.matrix(2) for token, value in row.row} == pairs
    assert {(token, row.token): value for row in db.matrix(2, transpose=True, page_size=3) for token, value in row.row} == pairs
    spoken = next(db.matrix(2, words=True))
    assert spoken[:4] == next(db.matrix(2))[:4] and spoken.word is None and spoken.words == [None] * len(spoken.row)
    (a, b), n = max(pairs.items(), key=lambda x: x[1])
    assert ("after", 2, n) in [(x.relation, x.order, x.weight) for x in db.associations(a, k=1)]
    assert ("before", 2) in [(x.relation, x.order) for x in db.associations(b, k=1)] and db.associations(4000000000) == []
    db.find_links(b"cnt:2:", min=0.01)
    entry = next(e for e in db.links(b"cnt:2:") if e.links)
    found = db.associations(entry.pair, k=3)
    assert [x.pair for x in found if x.relation == "link"] == [link.pair for link in entry.links][:3] and found[-1].relation == "after"


def test_smoothing_reports_progress(model):
    db, _ = model
    seen = []
    results = db.smooth(orders="1-2", topk=3, progress=seen.append)
    assert [result.order for result in results] == [1, 2]
    assert [result.contexts for result in results] == [1, db.count(b"cnt:2:")]
    assert seen and all(0 <= step.done <= step.total and step.phase for step in seen)
    assert all(len(row.record.ranked) <= 3 for row in db.topk(b"topk:2:"))
    with pytest.raises(BadRequest):
        db.smooth(orders="3-1")


def test_live_model(db, name):
    db = db.on(name + "-live")
    assert db.create_database(name + "-live", live={"order": 3, "bos": 2, "eos": 3}, keep=[])
    documents = [[2, 11, 12, 13, 3], [2, 11, 12, 14, 3], [2, 12, 13, 3]]
    assert db.ngrams(documents).generation == 2
    answer = db.live_predict([2, 11], k=2)
    assert (answer.order, answer.context, answer.candidates[0].token, answer.candidates[0].order) == (3, (2, 11), 12, 3)
    everything = db.live_predict([2, 11], k=1000)
    assert sum(c.p for c in everything.candidates) + everything.unknown == pytest.approx(1, abs=1e-9)
    score = db.live_score([11, 12, 99])
    assert score.orders == [2, 3, 0] and score.oov == 1 and not score.mixed
    assert db.live_scores([[11, 12, 99]]) == [score] and db.live_scores([]) == []
    assert db.live_scores([[11, 12, 99], [2, 12]])[0] == score
    with pytest.raises(BadRequest) as caught:
        db.live_scores([[11, 12], [-1], [12]])
    assert caught.value.code == "invalid_tokens"
    assert db.score([11, 12]).perplexity == pytest.approx(db.live_score([11, 12]).perplexity)
    text = b"".join(db.arpa())
    assert text.startswith(b"\\data\\\n") and text.endswith(b"\\end\\\n") and b"\t<s> 11 12" in text
    read = db.on(name + "-read")
    model = read.import_arpa(text)
    assert model.order == 3 and model.bos == 2 and model.ngrams[0] == 7 and model.warnings == []
    assert b"".join(read.arpa()) == text
    mine, live = read.live_score([11, 12]), db.live_score([11, 12])
    assert mine.perplexity == pytest.approx(live.perplexity, rel=1e-5) and mine.orders == live.orders
    assert [c.token for c in read.live_predict([2, 11], k=2).candidates] == [c.token for c in answer.candidates]
    with pytest.raises(Conflict) as caught:
        read.import_arpa(text)
    assert caught.value.code == "model_exists"
    with pytest.raises(BadRequest) as caught:
        db.on(name + "-cut").import_arpa(text[:-10], bos=2, eos=3, unk=5, unmarked=True)
    assert caught.value.code == "invalid_arpa"
    joined = db.on(name + "-joined")
    joined.create_database(name + "-joined", live={"order": 3, "bos": 2, "eos": 3}, keep=[])
    assert joined.merge_database(name + "-joined", name + "-live")["documents"] == 3
    assert b"".join(joined.arpa()) == text
    joined.drop_database(name + "-joined")
    read.drop_database(name + "-read")
    wait_for(lambda: name + "-cut" not in db.databases(), what="the end of the database that was made for a model which was refused")
    assert db.ngrams(documents[1:], remove=True).removed == 2
    assert db.database_statistics()["live"]["documents"] == 1
    db.drop_database(name + "-live")


def test_asking_the_model(model):
    db, documents = model
    document = documents[0]
    answer = db.predict(document[:4], k=5)
    assert answer.order == 3 and answer.context == tuple(document[2:4]) and len(answer.candidates) <= 5
    levels = db.predict_levels(document[:4], k=5)
    assert levels[0] == answer and [level.order for level in levels] == [3, 2, 1]
    blend = db.predict(document[:4], k=50, blend=True)
    assert len(blend.candidates) > len(answer.candidates)
    score = db.score(document)
    assert score.tokens == len(score.per_token) == len(document) - 1
    assert score.log10 == pytest.approx(sum(score.per_token)) and score.perplexity > 1 and score.oov == 0
    assert db.score([*document, 99999]).oov == 1
    context = document[:1]
    matches = db.contexts([[context[0]]])
    assert [match.tokens for match in matches] == [tuple(context)]
    around = db.contexts([context[0]], contains=True, limit=1000)
    assert all(context[0] in match.tokens for match in around) and matches[0] in around and len(around) > 1
    assert matches[0].hash == cheetah_http.payloads.context_hash(context)
    assert matches[0].vector == cheetah_http.payloads.context_vector(context)
    assert matches[0].ranked == tuple(next(iter(db.topk(b"topk:2:" + cheetah_http.payloads.context_name(context)))).record.ranked)
    with pytest.raises(BadRequest) as caught:
        db.contexts([list(range(300))])
    assert caught.value.code == "invalid_tree"


def test_the_highest_order_is_asked_unless_another_is_given(db):
    db.ngrams([[2, 4, 5, 6, 7, 3]], order=4)
    for call in (lambda: db.score([2, 4]), lambda: db.predict([2]), lambda: db.scores([[2, 4], [4, 5]])):
        with pytest.raises(Conflict) as caught:
            call()
        assert caught.value.code == "not_smoothed"
    db.smooth()
    text = [2, 4, 5, 6]
    assert db.predict(text).order == 4 and [level.order for level in db.predict_levels(text)] == [4, 3, 2, 1]
    assert db.score([*text, 7]).orders == [2, 3, 4, 4]
    assert db.predict(text, max_order=3).order == 3 and db.score([*text, 7], max_order=2).orders == [2, 2, 2, 2]


def test_words(db, name):
    texts = ["to be or not to be", "to be is to do", "be not"]
    assert db.ngrams(texts, order=3).tokens == 13
    db.smooth()
    token = {word.word: word.token for word in db.vocabulary()}
    assert [word.count for word in db.vocabulary()] == [sum(text.split().count(w) for text in texts) for w in token]
    assert list(db.vocabulary(page_size=2)) == list(db.vocabulary()) and [w.word for w in db.vocabulary(after=token["be"], limit=2)] == ["or", "not"]
    answer = db.predict("or not", k=3)
    plain = db.predict([token["or"], token["not"]], k=3)
    assert answer.context == ("or", "not") and answer.candidates[0].word == "to"
    assert [(c.token, c.p) for c in answer.candidates] == [(c.token, c.p) for c in plain.candidates] and plain.candidates[0].word is None
    assert [level.context for level in db.predict_levels("or not")] == [("or", "not"), ("not",), ()]
    score = db.score("to be nobody")
    assert score.words == ["be", "<unk>"] and score.oov == 1 and score._replace(words=None) == db.score([token["to"], token["be"], 2**32 - 1])
    assert db.scores(["to be nobody", "to"]) == [score, db.score("to")] and db.predictions(["or not"], k=3) == [answer]
    match, = db.contexts("or not")
    plain, = db.contexts([[token["or"]], [token["not"]]])
    assert match.words == ("or", "not") and match.ranked_words == ("to",) and match._replace(words=None, ranked_words=None) == plain and plain.words is None
    assert [m.words for m in db.contexts("not", contains=True, limit=1)] and db.contexts("nobody") == []
    for plain, prefix in ((db.counts, b"cnt:2:"), (db.probabilities, b"prob:2:"), (db.topk, b"topk:2:")):
        rows = {row.words: row for row in plain(prefix, words=True)}
        assert rows[("to",)].entry_words is not None and "be" in rows[("to",)].entry_words and None not in rows
        bare = {row.pair: row for row in plain(prefix)}
        assert {row.pair: row.record for row in rows.values()} == {pair: row.record for pair, row in bare.items()}
        assert all(row.words is None and row.entry_words is None for row in bare.values())
    totals = db.totals(b"cnt:1:", by_count=True, words=True)
    assert totals == db.totals(b"cnt:1:", by_count=True) and totals[0].word in ("to", "be") and not hasattr(db.totals()[0], "word")
    near = db.similar(b"cnt:2:", "or", words=True)
    assert near == db.similar(b"cnt:2:", rows[("or",)].pair.replace(b"topk", b"cnt")) and all(len(one.words) == 1 for one in near)
    with pytest.raises(TypeError):
        db.similar(b"cnt:2:", "or")
    assert db.ingest(["to see", "to dream"], order=3).documents == 2
    for call in (lambda: db.ngrams(["to be", [1, 2]]), lambda: db.ingest(["to be", [1, 2]]), lambda: db.scores(["to be", [1, 2]])):
        with pytest.raises(TypeError):
            call()
    live = db.on(name + "-live")
    live.create_database(name + "-live", live={"order": 3, "bos": 2, "eos": 3}, keep=[])
    live.ngrams(texts)
    assert live.live_predict("").candidates[0].word == "to" and live.live_score("to be").words == ["to", "be", "</s>"]
    assert live.live_score("to be", bos=False).words == ["to", "be"] and [w.count for w in live.vocabulary(limit=1)] == [None]
    assert b"\tto be\t" in b"".join(live.arpa(words=True)) and b"\tto be\t" not in b"".join(live.arpa())
    read = db.on(name + "-read")
    model = read.import_arpa(live.arpa(words=True), words=True)  # from one database to the other, piece by piece
    assert model.new_words == 6 and {w.word for w in read.vocabulary()} == {w.word for w in live.vocabulary()}
    assert read.live_score("to be").words == ["to", "be", "</s>"] and b"".join(read.arpa(words=True)) == b"".join(live.arpa(words=True))
    read.drop_database(name + "-read")
    assert live.ngrams(texts[1:], remove=True).removed == 2
    live.drop_database(name + "-live")


def test_ingest_cuts_into_requests(db):
    documents = [[2, 4 + i % 7, 5, 3] for i in range(300)]
    counted = list(db.ingest_parts(iter(documents), order=2, request_bytes=1000))
    assert len(counted) > 5 and sum(part.documents for part in counted) == 300
    assert {t.token: t.count for t in db.totals(b"cnt:1:")}[5] == 300 + sum(4 + i % 7 == 5 for i in range(300))


def test_ingest_halves_what_is_too_large_for_the_server(launch):
    """A request of all documents is 413; in parts each is counted once and in order, up to the one that is too large alone."""
    rng = random.Random(3)
    documents = [[rng.getrandbits(32) for _ in range(50 + i % 3)] for i in range(500)]  # nothing repeats: the dearest there is
    huge = [rng.getrandbits(32) for _ in range(30_000)]
    server = launch("--request-memory-bytes", "4M", "--durability", "os", "--shards", "1")
    with Client(url_of(server), retry=QUICK) as db:
        with pytest.raises(TooLarge) as caught:
            db.ngrams(documents)
        assert caught.value.code == "request_too_large" and list(db.pairs(limit=1)) == []
        counted = list(db.ingest_parts(iter(documents)))
        assert len(counted) > 2 and sum(part.documents for part in counted) == 500
        assert {t.token: t.count for t in db.totals(b"cnt:1:")} == {token: 1 for document in documents for token in document}
        assert db.metrics()["cheetah_requests_too_large_total"] >= 2

        db.create_database("b")
        counted = []
        with pytest.raises(TooLarge) as caught:
            for part in db.on("b").ingest_parts(documents[:150] + [huge] + documents[150:]):
                counted.append(part)
        assert caught.value.code == "request_too_large"
        assert sum(part.documents for part in counted) == 150, "those before it are yielded and counted, none after it is"
        assert {t.token for t in db.on("b").totals(b"cnt:1:")} == {token for document in documents[:150] for token in document}


def test_databases_and_service(db, server, name):
    other = db.on(name + "-b")
    assert other.database == name + "-b" and db.database == name
    with pytest.raises(NotFound) as caught:
        list(other.pairs())
    assert caught.value.code == "database_not_found"
    assert db.create_database(name + "-b", shards=2) is True and db.create_database(name + "-b") is False
    other.insert(b"there")
    assert db.get(1) is None and other.get(1) == b"there"
    assert {name, name + "-b", "default"} <= set(db.databases())
    assert other.database_statistics()["values"] == 1 and len(other.database_statistics()["shards"]) == 2
    assert db.database_statistics("default")["name"] == "default"
    assert other.checkpoint()["log"]["since_checkpoint"] == 0
    with urllib.request.urlopen("http://127.0.0.1:%d/databases/%s-b/backup" % (server.port, name)) as answer:
        backup = answer.read()
    assert db.restore_database(name + "-c", backup)["values"] == 1 and db.on(name + "-c").get(1) == b"there"
    with pytest.raises(Conflict) as caught:
        db.restore_database(name + "-c", backup)
    assert caught.value.code == "database_exists"
    with pytest.raises(BadRequest) as caught:
        db.restore_database(name + "-d", backup[:-1])
    assert caught.value.code == "invalid_backup" and name + "-d" not in db.databases()
    db.drop_database(name + "-c")
    db.drop_database(name + "-b")
    with pytest.raises(NotFound):
        db.drop_database(name + "-b")
    assert db.access() == ("admin", None)
    assert isinstance(db.health(), dict) and db.ready() and db.version() and db.openapi().startswith("openapi:")
    metrics = db.metrics()
    assert metrics and all(sample.startswith("cheetah_") for sample in metrics)


def test_tokens(launch, tmp_path):
    file = tmp_path / "tokens"
    file.write_text("rosebud-rosebud-rosebud read default\nopen-sesame-open-sesame write default\n")
    file.chmod(0o600)
    server = launch("--tokens", str(file))
    with Client(url_of(server), retry=QUICK) as db, pytest.raises(cheetah_http.Unauthorized):
        db.get(1)
    with Client(url_of(server), token="rosebud-rosebud-rosebud", retry=QUICK) as db:
        assert db.get(1) is None
        with pytest.raises(cheetah_http.Forbidden) as caught:
            db.insert(b"x")
        assert caught.value.code == "forbidden"
    with Client(url_of(server), token="open-sesame-open-sesame", retry=QUICK) as db:
        assert db.insert(b"x") == 1


def test_too_large(launch):
    server = launch("--max-value-size", "1000", "--max-batch-ops", "10")
    with Client(url_of(server), retry=QUICK) as db:
        with pytest.raises(TooLarge) as caught:
            db.insert(b"x" * 1001)
        assert caught.value.code == "value_too_large"
        with pytest.raises(TooLarge) as caught, db.batch() as batch:
            for _ in range(11):
                batch.insert(b"x")
        assert caught.value.code == "batch_too_large" and list(db.values()) == []


def test_own_http_client(db, server):
    import httpx

    with httpx.Client(base_url=url_of(server), headers={"X-Request-Id": "from-the-test"}) as http:
        mine = Client(http=http, database=db.database)
        with mine, pytest.raises(NotFound) as caught:
            mine.read(5)
        assert caught.value.request_id == "from-the-test" and "from-the-test" in str(caught.value)
        assert not http.is_closed


def test_upsert_many(db, far, proxy):
    """Pairs and values in one request without results: what is refused is told, the rest is there; sent again after a lost connection."""
    rows = {b"u%03d\0\xff" % i: b"\0value %d\n" % i for i in range(300)}
    key = db.insert(b"there")
    db.upsert(rows.items(), [Operation({"op": "pair_set", "pair": b64(b"name"), "key": key})])
    assert {row.pair: row.value for row in db.pairs(b"u", values=True)} == rows and db.pair_value(b"name") == b"there"
    proxy.plan = lambda number, head: ("lose",) if head.startswith(b"POST /batch") and not proxy.cuts else None
    far.upsert([(pair, value + b"!") for pair, value in rows.items()])
    assert proxy.cuts == 1 and db.count(b"u") == 300 and db.pair_value(b"u007\0\xff") == b"\0value 7\n!"
    with pytest.raises(BatchError) as caught:
        db.upsert([(b"ok", b"1")], [Operation({"op": "pair_set", "pair": b64(b"bad"), "key": 1 << 60})])
    assert caught.value.failures[0][1].status == 400 and db.pair_value(b"ok") == b"1" and db.pair_get(b"bad") is None
    for pair, value in ((b"", b"v"), (b"p" * 5000, b"v"), (b"p", b"")):
        with pytest.raises(ValueError):
            db.upsert([(pair, value)])
    db.upsert([])
