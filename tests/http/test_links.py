"""Links: POST /reduce/links finds them, GET /reduce/links shows them; against plain loops, with text=true, cut off and gone on with."""
import math
import random
import socket
import struct
import time

import pytest
from harness import hexed, layouts, ndjson, unb64, wait_for

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(autouse=True)
def known(need):
    need("/reduce/links/cnt:")


def table(seed, prefix=b"cnt:2:", contexts=120, tokens=40):
    rng = random.Random(seed)
    return {prefix + b"%04d" % i: {t: 1 + int(rng.paretovariate(0.9)) % 50 for t in rng.sample(range(tokens), rng.randrange(0, 9))}
            for i in range(contexts)}


def load(client, rows):
    client.put_all({pair: layouts.counts(2, sorted(row.items())) for pair, row in rows.items()})


def weights(rows, metric):
    if metric == "cosine":
        return {pair: {t: float(n) for t, n in row.items()} for pair, row in rows.items()}
    if metric == "jaccard":
        return {pair: dict.fromkeys(row, 1.0) for pair, row in rows.items()}
    token, total = {}, sum(sum(row.values()) for row in rows.values())
    for row in rows.values():
        for t, n in row.items():
            token[t] = token.get(t, 0) + n
    return {pair: {t: w for t, n in row.items() if (w := math.log2(n * total / (sum(row.values()) * token[t]))) > 0}
            for pair, row in rows.items()}


def single(x):
    return struct.unpack(">f", struct.pack(">f", x))[0]


def score(a, b, metric):
    shared = sum(a[t] * b[t] for t in a.keys() & b.keys())
    if shared == 0:
        return 0.0
    if metric == "jaccard":
        return shared / (len(a) + len(b) - shared)
    return min(1.0, shared / math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values())))


def plain(rows, metric="cosine", k=20, least=0.1, to=b"", of=b""):
    """{pair: [(name, weight)]} by comparing all with all."""
    of_rows = weights({p: r for p, r in rows.items() if p.startswith(of) or p.startswith(to)}, metric)
    answer = {}
    for pair, row in of_rows.items():
        if pair.startswith(of):
            found = [(other, single(score(row, of_rows[other], metric))) for other in of_rows if other != pair and other.startswith(to)]
            answer[pair] = sorted(((o, s) for o, s in found if s > 0 and s >= single(least)), key=lambda x: (-x[1], x[0]))[:k]
    return answer


def find(client, prefix=b"cnt:", status=200, **params):
    answer = client.post("/reduce/links/" + hexed(prefix), **params)
    assert answer.status == status, answer
    return answer.all_lines()


def pairs(client, prefix):
    return client.get("/pairs/" + hexed(prefix), count="true").json()["pairs"]


def shown(client, prefix=b"link:cosine:", **params):
    entries = client.get("/reduce/links/" + hexed(prefix), **params).entries()
    return {unb64(e["pair"]).split(b":", 2)[2]: [(unb64(x["pair"]), single(x["weight"])) for x in e["links"]] for e in entries}


def close(found, expected):
    assert found.keys() == expected.keys()
    for pair, links in expected.items():
        assert [w for _, w in found[pair]] == pytest.approx([w for _, w in links], abs=1e-6), pair
        if len({w for _, w in links}) == len(links):
            assert [n for n, _ in found[pair]] == [n for n, _ in links], pair


@pytest.mark.parametrize("metric", ["cosine", "jaccard", "pmi"])
def test_links_are_those_of_all_with_all(client, metric):
    rows = table(metric)
    load(client, rows)
    lines = find(client, b"cnt:2:", metric=metric, k="7", min="0.2")
    assert {"survey", "links", "switch"} <= {line["progress"]["phase"] for line in lines if "progress" in line}
    result = lines[-2]
    expected = plain(rows, metric, 7, 0.2)
    assert (result["metric"], result["contexts"], result["resumed"]) == (metric, len(rows), 0)
    assert result["links"] == sum(map(len, expected.values())) and lines[-1] == {"end": {"count": 1, "next": None, "malformed": 0}}
    close(shown(client, b"link:%s:" % metric.encode()), expected)
    close(shown(client, b"cnt:", metric=metric), expected)
    assert pairs(client, b"link") == len(rows), "nothing but the links is left of the run"
    payload = next(v for _, _, v in client.scan(b"link:%s:cnt:2:0007" % metric.encode(), values="true"))
    assert payload[:3] == struct.pack(">BH", 1, len(expected[b"cnt:2:0007"]))


def test_metrics_of_runs(client, server):
    names = ("runs", "failed", "contexts", "found", "compared", "pruned", "seconds")
    before = {n: server.metric("cheetah_links_%s_total" % n) for n in names}
    rows = table(3, contexts=80)
    load(client, rows)
    found = find(client, b"cnt:2:", k="2")[-2]
    moved = {n: server.metric("cheetah_links_%s_total" % n) - before[n] for n in names}
    assert (moved["runs"], moved["failed"], moved["contexts"], moved["found"]) == (1, 0, 80, found["links"]) and moved["seconds"] > 0
    assert moved["compared"] + moved["pruned"] == 80 * 80 and moved["compared"] >= found["links"] and moved["pruned"] > 80


def test_to_another_prefix_and_the_next_generation(client):
    rows = {**table(1, b"cnt:2:", 40), **table(2, b"other:", 30)}
    load(client, rows)
    find(client, b"cnt:2:", to="other:", min="0")
    close(shown(client), plain(rows, least=0, to=b"other:", of=b"cnt:2:"))
    client.delete("/pairs/" + hexed(b"cnt:2:0001"), values="true")
    del rows[b"cnt:2:0001"]
    find(client, b"cnt:2:", k="3")
    close(shown(client), plain({p: r for p, r in rows.items() if p.startswith(b"cnt:")}, k=3, of=b"cnt:2:", to=b"cnt:2:"))
    find(client, b"", k="2", min="0.3")
    close(shown(client), plain(rows, k=2, least=0.3))  # links are no contexts of further links


def test_nothing_one_and_what_is_no_counts(client):
    assert find(client, b"cnt:")[-2]["contexts"] == 0
    load(client, {b"cnt:2:a": {1: 2}})
    client.upsert(b"cnt:2:b", b"\x01\x02\x00")
    client.map(b"cnt:2:c", 2**40)
    lines = find(client, b"cnt:")
    assert lines[-2]["contexts"] == 1 and lines[-1]["end"]["malformed"] == 1
    assert shown(client) == {b"cnt:2:a": []}
    client.upsert(b"link:cosine:x", b"\x01\x00\x05")
    entries = client.get("/reduce/links/" + hexed(b"link:"), text="true").entries()
    assert [e.get("problem") for e in entries] == [None, "malformed_payload"]
    entries = client.get("/reduce/links/" + hexed(b"link:")).entries()
    assert [e.get("problem") for e in entries] == [None, "malformed_payload"]
    assert [e.keys() for e in client.get("/reduce/links/" + hexed(b"link:"), decode="false").entries()] == [{"pair", "key", "payload"}] * 2


def test_names_that_are_taken_and_weights_that_are_no_numbers(client):
    load(client, {b"cnt:2:a": {1: 2}, b"cnt:2:b": {1: 3}})
    client.upsert(b"link:cosine:cnt:2:mine", b"not links")
    line = find(client, b"cnt:")[-1]
    assert line["error"]["code"] == "names_taken" and "link:cosine:cnt:2:mine" in line["error"]["detail"]
    assert [v for _, _, v in client.scan(b"link:", values="true")] == [b"not links"], "nothing was deleted"
    client.delete("/pairs/" + hexed(b"link:cosine:cnt:2:mine"), values="true")
    find(client, b"cnt:")
    bad = struct.pack(">BHH", 1, 1, 7) + b"cnt:2:b" + struct.pack(">f", math.nan)
    client.upsert(b"link:cosine:cnt:2:a", bad)
    assert client.get("/reduce/associations/" + hexed(b"cnt:2:a")).entries()[0]["relation"] == "after"
    for text in ("true", "false"):
        entries = client.get("/reduce/links/" + hexed(b"link:"), text=text).entries()
        assert [e.get("problem") for e in entries] == ["malformed_payload", None]


def test_a_long_row_and_its_like(client):
    row = [(t, 1 + t % 3) for t in range(65536)]
    client.put_all({b"cnt:2:long": layouts.counts(2, row, 2), b"cnt:2:other": layouts.counts(2, row[:-1], 2)})
    find(client, b"cnt:")
    assert [(n, round(w, 4)) for n, w in shown(client)[b"cnt:2:long"]] == [(b"cnt:2:other", 1.0)]


def test_by_words(client):
    texts = ["the old house stood", "the old barn stood", "a new house fell", "a new barn fell", "the old tree stood", "a new tree fell"]
    client.post("/ngrams", ndjson({"text": t} for t in texts), headers=NDJSON, text="true", order="2")
    find(client, b"cnt:2:", min="0.2")
    entries = client.get("/reduce/links/" + hexed(b"link:cosine:cnt:2:"), text="true").entries()
    links = {tuple(e["words"]): {tuple(x["words"]): x["weight"] for x in e["links"]} for e in entries}
    assert links[("house",)] == {("barn",): 1, ("tree",): 1} and ("old",) in links[("new",)]
    first = client.get("/reduce/links/" + hexed(b"link:"), text="true", limit="2")
    rest = client.get("/reduce/links/" + hexed(b"link:"), text="true", after=first.end["next"])
    assert first.entries() + rest.entries() == entries and first.end["count"] == 2


@pytest.mark.parametrize("params", [{"metric": "dice"}, {"k": "0"}, {"k": "1001"}, {"min": "1.5"}, {"min": "x"}, {"min": "-1"}, {"min": ""}, {"min": "nan"}])
def test_bad_parameters(client, params):
    answer = client.post("/reduce/links/cnt:", **params)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_parameter")


def test_other_calls(client, server):
    answer = client.post("/reduce/links/cnt:", topk="3")
    assert (answer.status, answer.json()["code"]) == (400, "unknown_parameter")
    answer = client.get("/reduce/links/cnt:", k="3")
    assert (answer.status, answer.json()["code"]) == (400, "unknown_parameter")
    assert client.post("/reduce/links/" + "x61" * 1 + "61" * 4090).status == 400
    assert server.client(db="links-nowhere").post("/reduce/links/cnt:").status == 404


def test_a_run_that_was_cut_off_goes_on(launch):
    """Killed between two commits: the links of before are there until the run is done, and what was found is not looked for again."""
    server = launch("--durability", "os", "--shards", "2")
    client = server.client()
    rows = table(5, contexts=9000, tokens=300)
    load(client, rows)
    before = plain(dict(list(rows.items())[:50]), k=2, of=b"cnt:2:000", to=b"cnt:2:000")
    find(client, b"cnt:2:000", k="2")
    old = shown(client)
    assert len(old) == 10 and old.keys() <= before.keys()
    with socket.create_connection(("127.0.0.1", server.port)) as c:
        c.sendall(b"POST /reduce/links/cnt:2:?k=5 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        deadline = time.monotonic() + 120
        while pairs(client, b"linking:") == 0 and pairs(client, b"link:") < len(rows) and time.monotonic() < deadline:
            time.sleep(0.002)
        server.kill()
    server.start()
    client = server.client()
    assert shown(client) == old or len(shown(client)) == len(rows), "all of one generation"
    lines = find(client, b"cnt:2:", k="5")
    assert lines[-2]["contexts"] == len(rows) and pairs(client, b"link") == len(rows)
    assert lines[-2]["resumed"] in (0, 4096, 8192, 9000)
    again = shown(client)
    sample = random.Random(3).sample(sorted(rows), 5)
    w = weights(rows, "cosine")
    for pair in sample:
        expected = sorted(((o, single(score(w[pair], w[o], "cosine"))) for o in w if o != pair), key=lambda x: (-x[1], x[0]))
        expected = [x for x in expected if x[1] >= single(0.1)][:5]
        assert [x for _, x in again[pair]] == pytest.approx([x for _, x in expected], abs=1e-6)


@pytest.mark.long
def test_who_leaves_cancels_the_run(launch):
    server = launch("--durability", "os", "--shards", "2")
    client = server.client()
    rows = table(8, contexts=60000, tokens=4000)
    load(client, rows)
    with socket.create_connection(("127.0.0.1", server.port)) as c:
        c.sendall(b"POST /reduce/links/cnt:2:?k=20&min=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        wait_for(lambda: pairs(client, b"linking:"), what="the first links")
    wait_for(lambda: server.metric("cheetah_statistics_jobs") == 0, what="the end of the run")
    assert server.comes_to("cheetah_links_failed_total", 1) and pairs(client, b"link:") == 0, "it was not at its end"
    lines = find(client, b"cnt:2:", k="20", min="0")
    assert lines[-2]["resumed"] >= 4096 and pairs(client, b"link:") == len(rows)


def test_made_up_names(client):
    """A payload may say anything of the names in it: one that is longer than any pair's has no words."""
    name = b"cnt:2:" + b"x" * 59994
    client.put_all({b"link:cosine:x": b"\1" + struct.pack(">HH", 1, len(name)) + name + struct.pack(">f", 1.0)})
    [entry] = client.get("/reduce/links/" + hexed(b"link:"), text="true").entries()
    assert [(len(link["name"]), link["weight"], "words" in link) for link in entry["links"]] == [(len(name), 1.0, False)]
