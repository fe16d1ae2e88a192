"""One level of names: GET /pairs/{prefix}?children=true, against a plain model, page by page, beside writers, and what it costs."""
import random
import threading

import harness
import pytest
from harness import b64, hexed, unb64
from test_pairs_scan import nasty_pairs

PREFIXES = [b"", b"a", b"ab", b"\0", b"\xff", b"\xff\xff", b"a\0", b"ctx:", b"a" * 4096, b"m" * 100, b"none"]
SEPARATORS = [None, b":", b"\0", b"\xff", b"ab", b"a" * 16]


@pytest.fixture(scope="module")
def filled(server):
    """2500 nasty pairs, in all shards: (client, {pair: key})."""
    client = server.client(db="children")
    pairs = nasty_pairs(random.Random(11), 2000)
    pairs += [b"user:%d:%s" % (i % 40, name) for i in range(400) for name in (b"name", b"age:%d" % i)] + [b"user:", b"user", b"users"]
    client.put_all({pair: b"v" for pair in pairs})
    yield client, dict(client.scan())
    client.delete("/databases/children", confirm="children")


def children(model, prefix, separator):
    """[(name, pairs, key or None)] as the contract says."""
    groups = {}
    for pair in sorted(model):
        if not pair.startswith(prefix):
            continue
        at = pair.find(separator, len(prefix)) if separator else len(prefix)
        end = at + len(separator or b"1")
        groups.setdefault(pair if at < 0 or end > len(pair) else (pair[:end], "group"), []).append(pair)
    out = []
    for name, below in groups.items():
        if isinstance(name, tuple) and (separator or len(below) > 1):
            out.append((name[0], len(below), None))
        else:
            out.append((below[0], 1, model[below[0]]))
    return out


def parsed(line):
    return (unb64(line["prefix"]), line["pairs"], None) if "prefix" in line else (unb64(line["pair"]), 1, line["key"])


def asked(client, prefix, separator, **params):
    if separator is not None:
        params["separator"] = hexed(separator)
    return client.get("/pairs/" + hexed(prefix), children="true", **params)


@pytest.mark.parametrize("separator", SEPARATORS)
def test_every_prefix(filled, separator):
    client, model = filled
    for prefix in PREFIXES + [b"user:", b"user:7", b"user:7:"]:
        want = children(model, prefix, separator)
        answer = asked(client, prefix, separator, limit=10000)
        assert [parsed(line) for line in answer.entries()] == want, prefix[:20]
        assert answer.end == {"count": len(want), "next": None}
        assert sum(pairs for _, pairs, _ in want) == client.get("/pairs/" + hexed(prefix), count="true").json()["pairs"]


@pytest.mark.parametrize("name,value", [("count", "true"), ("exact", "true"), ("until", "a"), ("values", "true"), ("reverse", "true"), ("expires", "true"), ("etags", "true")])
def test_what_does_not_go_with_it(client, name, value):
    answer = client.get("/pairs/a", children="true", **{name: value})
    assert answer.status == 400 and answer.code == "invalid_parameter" and name in answer.json()["detail"]


@pytest.mark.parametrize("separator", [None, b":", b"\xff"])
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_page_by_page(filled, separator, limit):
    client, model = filled
    for prefix in (b"", b"user:", b"\xff"):
        want, got, after = children(model, prefix, separator)[:60], [], {}
        while len(got) < len(want):
            answer = asked(client, prefix, separator, limit=limit, **after)
            page = [parsed(line) for line in answer.entries()]
            assert len(page) == limit or answer.end["next"] is None
            got += page
            if answer.end["next"] is None:
                break
            after = {"after": answer.end["next"]}
        assert got[:len(want)] == want


def test_after_any_name(filled):
    """`after` need not be a child: it goes on after the one that it belongs to, or would."""
    client, model = filled
    rng = random.Random(3)
    for separator in (None, b":"):
        for prefix in (b"", b"user:"):
            want = children(model, prefix, separator)
            for after in rng.sample(sorted(model), 30) + [b"user:7:nobody", b"user:8", b"\0", b"zzz", b"u"]:
                one = children({after: 1}, prefix, separator)
                bound = one[0][0] if one else after
                group = bool(one) and (bound != after if separator else True)
                if separator and one:
                    group = separator in after[len(prefix):]
                elif one:
                    bound, group = after[:len(prefix) + 1], len(after) > len(prefix)
                rest = [child for child in want if child[0] > bound and not (group and child[0].startswith(bound))]
                answer = asked(client, prefix, separator, after=hexed(after), limit=10000)
                assert [parsed(line) for line in answer.entries()] == rest, (separator, prefix, after)


def test_a_page_of_long_names_ends_early(client):
    names = [b"n" * 4000 + b"%04d" % i for i in range(400)]
    client.put_all({name: b"v" for name in names})
    got, after, pages = [], {}, 0
    while True:
        answer = asked(client, b"", b":", limit=10000, **after)
        assert len(answer.body) < 1100000
        got += [parsed(line)[0] for line in answer.entries()]
        pages += 1
        if answer.end["next"] is None:
            break
        after = {"after": answer.end["next"]}
    assert got == names and pages == 3


@pytest.mark.parametrize("params,code", [
    ({"count": "true"}, "invalid_parameter"), ({"exact": "true"}, "invalid_parameter"), ({"values": "true"}, "invalid_parameter"),
    ({"reverse": "true"}, "invalid_parameter"), ({"until": "x"}, "invalid_parameter"), ({"limit": "0"}, "invalid_parameter"),
    ({"limit": "10001"}, "invalid_parameter"), ({"separator": ""}, "invalid_parameter"), ({"separator": "*"}, "invalid_parameter"),
    ({"separator": "a" * 17}, "invalid_parameter"), ({"separator": "x1"}, "invalid_hex"), ({"after": "x1"}, "invalid_hex"),
    ({"after": "a" * 4097}, "invalid_parameter")])
def test_refused(client, params, code):
    answer = client.get("/pairs/*", children="true", **params)
    assert answer.status == 400 and answer.code == code


def test_refused_without_children(client):
    assert client.get("/pairs/*", separator=":").code == "invalid_parameter"
    assert client.get("/pairs/*", separator=":", children="false").code == "invalid_parameter"
    assert client.get("/pairs/*", children="maybe").code == "invalid_parameter"
    assert client.get("/pairs/*", children="true", db="nobody").code == "database_not_found"
    assert client.get("/pairs/" + "a" * 4097, children="true").code == "invalid_pair"
    empty = client.get("/pairs/*", children="true")
    assert empty.entries() == [] and empty.end == {"count": 0, "next": None}


def test_beside_writers(server, client):
    """Groups that stay are there each time, in order and once; those that come and go may be."""
    stay = [b"stay%02d:" % i for i in range(50)]
    client.put_all({group + b"%d" % i: b"v" for group in stay for i in range(20)})
    done = threading.Event()

    def churn():
        other = server.client(db=client.db)
        while not done.is_set():
            other.put_all({b"stay%02d-%d:x" % (i, j): b"v" for i in range(50) for j in range(3)})
            for i in range(50):
                other.delete("/pairs/" + hexed(b"stay%02d-" % i), recursive="true", values="true")
        other.close()

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        for _ in range(40):
            answer = asked(client, b"", b":", limit=10000)
            seen = [parsed(line) for line in answer.entries()]
            names = [name for name, _, _ in seen]
            assert names == sorted(set(names)) and answer.end["next"] is None
            assert [child for child in seen if child[0] in stay] == [(group, 20, None) for group in stay]
            assert all(1 <= pairs <= 20 for _, pairs, _ in seen)
    finally:
        done.set()
        writer.join()


@pytest.mark.skipif(harness.SANITIZED, reason="a ratio of times")
def test_time_is_that_of_the_children(launch):
    """Five hundred times the pairs below the same twenty groups: the time stays. It is that of the processor, of a server that does nothing else."""
    server = launch("--durability", "os", "--shards", "3", "--access-log", "false", "--scrub-bytes-per-second", "0")
    client = server.client()

    def fill(first, last):
        for start in range(first, last, 5000):
            client.batch([{"op": "pair_set", "pair": b64(b"g%02d:%07d" % (i % 20, i)), "key": i + 1} for i in range(start, min(start + 5000, last))], results="false")

    def cost(ask, count):
        """The least of several: a checkpoint may be made beside one."""
        times = []
        for _ in range(15 if count == 20 else 3):
            begin = server.cpu()
            assert ask().end["count"] == count
            times.append(server.cpu() - begin)
        return min(times)

    fill(0, 200)
    small = cost(lambda: asked(client, b"", b":"), 20)
    fill(200, 100000)
    large = cost(lambda: asked(client, b"", b":"), 20)
    scan = cost(lambda: client.get("/pairs/*"), 100000)
    assert large < 8 * small + 0.002 and large < scan / 4, (small, large, scan)
