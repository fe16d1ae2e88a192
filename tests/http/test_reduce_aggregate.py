"""Aggregates: stats, totals, counts-of-counts, similar. Skipped while the server does not know the mode."""
import random
from collections import Counter

import pytest
from harness import b64, hexed, layouts, rados, unb64


@pytest.fixture(autouse=True)
def known(need):
    need("/reduce/stats/*")


def table(seed, contexts=200, tokens=60):
    """{pair: [(token, count)]}."""
    rng, result = random.Random(seed), {}
    for i in range(contexts):
        chosen = sorted(rng.sample(range(tokens), rng.randrange(1, 20)))
        result[b"cnt:2:%04d" % i] = [(token, min(int(rng.paretovariate(0.8)), 10**6)) for token in chosen]
    return result


def load(client, rows, version=1):
    client.put_all({pair: layouts.counts(2, followers, version) for pair, followers in rows.items()})


def aggregate(client, mode, prefix=b"cnt:", **params):
    answer = client.get("/reduce/%s/%s" % (mode, hexed(prefix)), **params)
    assert answer.status == 200, answer
    return answer


def totals(rows):
    count, contexts = Counter(), Counter()
    for followers in rows.values():
        for token, n in followers:
            count[token] += n
            contexts[token] += 1
    return [{"token": token, "count": count[token], "contexts": contexts[token]} for token in sorted(count)]


def test_stats(client):
    payloads = {b"n:%d" % i: bytes(i + 1) for i in range(100)}
    client.put_all(payloads)
    client.upsert(b"other", bytes(5000))
    client.map(b"n:dangling", 2**40)
    line = aggregate(client, "stats", b"n:").entries()
    assert line == [{"pairs": 101, "dangling": 1, "bytes": 5050, "min": 1, "max": 100, "mean": 50.5}]
    everything = aggregate(client, "stats", b"").entries()[0]
    assert everything["pairs"] == 102 and everything["bytes"] == 10050 and everything["max"] == 5000


def test_a_range_of_names(client):
    """after and until, also of what is cached."""
    rows = table(7)
    load(client, rows)
    for after, until in ((b"cnt:2:0100", None), (None, b"cnt:2:0050"), (b"cnt:2:0030", b"cnt:2:0032"), (b"cnt:3:", None)):
        some = {pair: followers for pair, followers in rows.items() if (after is None or pair > after) and (until is None or pair < until)}
        bounds = {name: hexed(value) for name, value in (("after", after), ("until", until)) if value is not None}
        for cached in ("miss", "hit"):
            answer = aggregate(client, "totals", **bounds)
            assert answer.entries() == totals(some) and (rados.WANTED or answer.headers["Cheetah-Cache"] == cached)
        assert aggregate(client, "stats", **bounds).entries()[0]["pairs"] == len(some)
        assert aggregate(client, "counts-of-counts", **bounds).entries()[0]["contexts"] == len(some)
        near = aggregate(client, "similar", to=hexed(b"cnt:2:0031"), limit="1000", **bounds).entries()
        assert {unb64(line["pair"]) for line in near} == set(some) - {b"cnt:2:0031"}


def test_stats_of_nothing(client):
    line = aggregate(client, "stats", b"n:").entries()[0]
    assert line["pairs"] == 0 and line["dangling"] == 0 and line["bytes"] == 0
    client.map(b"n:1", 2**40)
    line = aggregate(client, "stats", b"n:").entries()[0]
    assert line["pairs"] == 1 and line["dangling"] == 1 and line["bytes"] == 0


@pytest.mark.parametrize("seed,version", [(1, 1), (2, 2)])
def test_totals(client, seed, version):
    rows = table(seed)
    load(client, rows, version)
    want = totals(rows)
    assert aggregate(client, "totals").entries() == want
    assert aggregate(client, "totals").end["count"] == len(want)
    by_count = sorted(want, key=lambda line: (-line["count"], line["token"]))
    assert aggregate(client, "totals", sort="count").entries() == by_count
    assert aggregate(client, "totals", sort="count", limit="7").entries() == by_count[:7]
    assert aggregate(client, "totals", limit="7").entries() == want[:7]


def test_totals_beyond_32_bits(client):
    rows = {b"cnt:1:%d" % i: [(5, 2**32 - 1)] for i in range(10)}
    load(client, rows)
    assert aggregate(client, "totals").entries() == [{"token": 5, "count": 10 * (2**32 - 1), "contexts": 10}]


def same_numbers(got, want):
    assert set(got) == set(want)
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_counts_of_counts(client, seed):
    rows = table(seed)
    load(client, rows)
    same_numbers(aggregate(client, "counts-of-counts").entries()[0], layouts.counts_of_counts(list(rows.values())))
    assert len(aggregate(client, "counts-of-counts").entries()) == 1


def test_counts_of_counts_of_little(client):
    same_numbers(aggregate(client, "counts-of-counts").entries()[0], layouts.counts_of_counts([]))
    load(client, {b"cnt:a": [(1, 4)]})
    same_numbers(aggregate(client, "counts-of-counts").entries()[0], layouts.counts_of_counts([[(1, 4)]]))


@pytest.mark.parametrize("metric,function", [("cosine", layouts.cosine), ("jaccard", layouts.jaccard), (None, layouts.cosine)])
def test_similar(client, metric, function):
    rows = table(9)
    load(client, rows)
    target = b"cnt:2:0042"
    want = sorted(((function(rows[target], followers), pair) for pair, followers in rows.items() if pair != target), key=lambda x: (-x[0], x[1]))
    params = {"metric": metric} if metric else {}
    for limit in (None, "1", "25", "1000"):
        lines = aggregate(client, "similar", to=target.decode(), **params, **({"limit": limit} if limit else {})).entries()
        expected = want[:int(limit or 10)]
        if limit == "1000":
            assert len(lines) in (len(want), sum(score > 0 for score, _ in want))
        else:
            assert len(lines) == len(expected)
        for line, (score, _) in zip(lines, expected):
            assert line["score"] == pytest.approx(score, rel=1e-5, abs=1e-6)
            assert line["score"] == pytest.approx(function(rows[target], rows[unb64(line["pair"])]), rel=1e-5, abs=1e-6)
        assert len({line["pair"] for line in lines}) == len(lines) and b64(target) not in {line["pair"] for line in lines}


def test_similar_ties_go_by_pair(client):
    load(client, {b"cnt:%s" % name: [(1, 2), (3, 4)] for name in (b"c", b"a", b"t", b"b")})
    lines = aggregate(client, "similar", to="cnt:t").entries()
    assert [unb64(line["pair"]) for line in lines] == [b"cnt:a", b"cnt:b", b"cnt:c"]
    assert all(line["score"] == pytest.approx(1) for line in lines)
    assert aggregate(client, "similar", to=hexed(b"cnt:t")).entries() == lines


def test_similar_to_something_outside_the_prefix(client):
    load(client, {b"cnt:1": [(1, 1)], b"cnt:2": [(2, 1)], b"away": [(1, 5)]})
    assert unb64(aggregate(client, "similar", b"cnt:", to="away", limit="1").entries()[0]["pair"]) == b"cnt:1"


def test_similar_without_a_target(client):
    load(client, {b"cnt:1": [(1, 1)]})
    answer = client.get("/reduce/similar/cnt:")
    assert answer.status == 400 and answer.code == "invalid_parameter"
    answer = client.get("/reduce/similar/cnt:", to="nope")
    assert answer.outcome in ((404, "pair_not_found"), (404, "key_not_found"))
    assert client.get("/reduce/similar/cnt:", to="cnt:1", metric="euclid").code == "invalid_parameter"
    assert client.get("/reduce/similar/cnt:", to="x1").code == "invalid_hex"


def test_malformed_payloads_are_left_out_and_counted(client):
    rows = table(4, contexts=20)
    load(client, rows)
    client.put_all({b"cnt:2:bad%d" % i: bad for i, bad in enumerate([b"x", b"\1\2\0\5", layouts.counts(2, [(1, 1)])[:-1], b"\x07\2\0\0"])})
    assert aggregate(client, "totals").entries() == totals(rows)
    assert aggregate(client, "totals").end["malformed"] == 4
    answer = aggregate(client, "counts-of-counts")
    same_numbers(answer.entries()[0], layouts.counts_of_counts(list(rows.values())))
    assert answer.end["malformed"] == 4
    answer = aggregate(client, "similar", to="cnt:2:0003", limit="100")
    assert answer.end["malformed"] == 4 and not any(b"bad" in unb64(line["pair"]) for line in answer.entries())


def test_cached_until_a_write_under_the_prefix(client):
    rows = table(5, contexts=50)
    load(client, rows)

    def ask(mode="totals", prefix=b"cnt:", **params):
        answer = aggregate(client, mode, prefix, **params)
        return answer.headers["Cheetah-Cache"], answer.lines()

    state, first = ask()
    assert state == "miss" and ask() == ("hit", first)
    assert ask(sort="count")[0] == "miss" and ask(sort="count")[0] == "hit", "other parameters, another answer"
    assert ask("stats")[0] == "miss" and ask("stats")[0] == "hit"
    client.upsert(b"elsewhere", b"v")
    assert ask()[0] == ("miss" if rados.WANTED else "hit"), "a write elsewhere drops nothing; over RADOS any write does"
    changes = [lambda: client.upsert(b"cnt:2:0000", layouts.counts(2, [(1, 77)])),
               lambda: client.upsert(b"cnt:2:new", layouts.counts(2, [(2, 5)])),
               lambda: client.delete("/pairs/cnt:2:new"),
               lambda: client.batch([{"op": "pair_put", "pair": b64(b"cnt:2:0001"), "value": b64(layouts.counts(2, [(9, 9)]))}]),
               lambda: client.put("/kv/%d" % dict(client.scan(b"cnt:2:0002"))[b"cnt:2:0002"], layouts.counts(2, [(3, 3)]), headers={"Content-Type": "a/b"}),
               lambda: client.delete("/pairs/cnt:2:000", recursive="true"),
               lambda: client.delete("/kv/%d" % dict(client.scan(b"cnt:2:0012"))[b"cnt:2:0012"])]
    for i, change in enumerate(changes):
        assert ask()[0] == "hit"
        change()
        state, lines = ask()
        assert state == "miss", i
        current = {pair: layouts.read_counts(value)[1] for pair, _, value in client.scan(b"cnt:", values="true") if value is not None}
        assert lines[:-1] == totals(current), i


def test_databases_do_not_share_answers(client, server):
    load(client, {b"cnt:1": [(1, 1)]})
    other = server.client(db=client.db + "-b")
    load(other, {b"cnt:1": [(2, 2)]})
    assert aggregate(client, "totals").entries() == [{"token": 1, "count": 1, "contexts": 1}]
    assert aggregate(other, "totals").entries() == [{"token": 2, "count": 2, "contexts": 1}]
    other.delete("/databases/" + other.db, confirm=other.db)
    load(other, {b"cnt:1": [(3, 3)]})
    assert aggregate(other, "totals").entries() == [{"token": 3, "count": 3, "contexts": 1}], "a new database under an old name"
    other.delete("/databases/" + other.db, confirm=other.db)


def test_parameters(client):
    client.upsert(b"cnt:1", layouts.counts(1, [(1, 1)]))
    assert client.get("/reduce/totals/cnt:", sort="name").code == "invalid_parameter"
    assert client.get("/reduce/totals/cnt:", foo="1").code == "unknown_parameter"
    assert client.get("/reduce/stats/cnt:", limit="0").code in ("invalid_parameter", "unknown_parameter")
    assert client.get("/reduce/stats/x1").code == "invalid_hex"
    assert client.request("POST", "/reduce/totals/cnt:").status == 405


def test_many_pairs(client):
    rng = random.Random(8)
    rows = {b"cnt:2:" + rng.randbytes(8): [(rng.randrange(5000), rng.randrange(1, 9))] for _ in range(30000)}
    load(client, rows)
    assert aggregate(client, "totals").entries() == totals(rows)
    same_numbers(aggregate(client, "counts-of-counts").entries()[0], layouts.counts_of_counts(list(rows.values())))
