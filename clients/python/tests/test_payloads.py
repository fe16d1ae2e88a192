"""The codecs of cheetah_http.payloads against the layouts written a second time, and against the example."""
import random
import struct

from harness import golden, layouts
import pytest

from cheetah_http import payloads
from cheetah_http.payloads import MalformedPayload

CODECS = {
    b"cnt": (payloads.decode_counts, payloads.encode_counts), b"prob": (payloads.decode_probabilities, payloads.encode_probabilities),
    b"topk": (payloads.decode_topk, payloads.encode_topk), b"cont": (payloads.decode_continuation, payloads.encode_continuation),
    b"ctx": (payloads.decode_context, payloads.encode_context), b"ctxv": (payloads.decode_context, payloads.encode_context),
}  # fmt: skip


def test_every_payload_of_the_example_comes_back():
    seen = set()
    for pair, payload in golden.pairs().items():
        kind = pair.partition(b":")[0]
        decode, encode = CODECS[kind]
        record = decode(payload)
        assert encode(*record) == payload
        if kind == b"ctx":
            assert pair == b"ctx:" + payloads.context_name(record.tokens)
        elif kind == b"ctxv":
            assert pair == b"ctxv:" + payloads.context_vector(record.tokens)
        seen.add(kind)
    assert seen == set(CODECS)


def test_names():
    assert payloads.context_hash([]) == "__root__" and payloads.context_name([]) == b"__root__"
    assert payloads.context_name([12, 45, 43]) == layouts.context_name([12, 45, 43])
    assert payloads.context_hash([12, 45, 43]) == layouts.context_name([12, 45, 43]).hex()


def random_tree(rng, depth):
    if depth == 0 or rng.random() < 0.3:
        return rng.randrange(1 << 32)
    return [random_tree(rng, depth - 1) for _ in range(rng.randrange(5))]


def test_vectors():
    rng = random.Random(2)
    for _ in range(300):
        tree, depth = random_tree(rng, 5), rng.choice([None, 0, 1, 2, 3])
        assert payloads.encode_vector(tree, depth) == layouts.vector(tree, depth)
    assert payloads.encode_vector([[[12, 45], [43, 21]], [[643, 23]]]) == payloads.encode_vector([[[23, 643]], [[21, 43], [45, 12]]])
    for bad in ([[1]] * 256, [[[t for t in range(255)]] * 255], -1, 1 << 32):
        with pytest.raises(ValueError):
            payloads.encode_vector(bad)
    for bad in ("text", None, [True], [1.5]):
        with pytest.raises(TypeError):
            payloads.encode_vector(bad)


def test_the_server_encodes_trees_the_same_way(db):
    rng = random.Random(3)
    for _ in range(40):
        tree = random_tree(rng, 4)
        vector = payloads.encode_vector(tree)
        db.pair_put(b"ctxv:" + vector, layouts.context([1, 2]))
        assert vector in [match.vector for match in db.contexts(tree)]


def test_both_versions():
    followers, entries = [(5, 6), (7, 8)], [(5, 6, None), (7, 8, 9)]
    for version in (1, 2):
        assert payloads.decode_counts(layouts.counts(3, followers, version) + b"more") == (3, followers)
        assert payloads.decode_probabilities(layouts.probabilities(3, entries, version)) == (3, entries)
    assert payloads.encode_counts(1, [(1, 1)] * 65535)[0] == 1 and payloads.encode_counts(1, [(1, 1)] * 65536)[0] == 2
    assert payloads.encode_counts(1, [(1, 1 << 40)]) == layouts.counts(1, [(1, (1 << 32) - 1)])


def test_short_payloads():
    for decode, payload in (
        (payloads.decode_counts, layouts.counts(1, [(1, 1)])), (payloads.decode_counts, layouts.counts(1, [(1, 1)], 2)),
        (payloads.decode_probabilities, layouts.probabilities(1, [(1, 1, 1)])), (payloads.decode_topk, layouts.topk(1, [(1, 1)])),
        (payloads.decode_continuation, layouts.continuation(1, 1)), (payloads.decode_context, layouts.context([1, 2])),
    ):  # fmt: skip
        decode(payload)
        for size in range(len(payload)):
            with pytest.raises(MalformedPayload):
                decode(payload[:size])
        with pytest.raises(MalformedPayload):
            decode(b"\x09" + payload[1:])


def test_what_does_not_fit_is_an_error():
    for call in (
        lambda: payloads.encode_counts(256, []), lambda: payloads.encode_counts(1, [(1 << 32, 1)]),
        lambda: payloads.encode_counts(1, [(1, -1)]), lambda: payloads.encode_probabilities(1, [(1, 256, None)]),
        lambda: payloads.encode_probabilities(1, [(1, 1, 65535)]), lambda: payloads.encode_topk(1, [(1, 1)] * 256),
        lambda: payloads.encode_topk(1, [(1, -1)]), lambda: payloads.encode_continuation(-1, 1),
        lambda: payloads.encode_context(1, [1] * 256), lambda: payloads.encode_context(1, [1 << 32]),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            call()
    assert struct.calcsize(">IBH") == 7
