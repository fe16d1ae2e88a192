"""POST /databases/{name}/merge: what was counted apart and is joined is what had been counted together, byte for byte."""
import random

import pytest
from harness import ndjson

NDJSON = {"Content-Type": "application/x-ndjson"}


def documents(rng, n, words=60):
    return [{"tokens": [2] + [10 + rng.randrange(rng.randrange(1, words)) for _ in range(rng.randrange(1, 12))] + [3]} for _ in range(n)]


def pairs(client, db, prefix):
    """{name: value} as the stream has them in base64."""
    answer = client.get("/pairs/" + prefix, db=db, values="true")
    assert answer.status == 200
    return {line["pair"]: line["value"] for line in answer.lines() if "pair" in line}


def make(client, db, live, keep=()):
    body = {"live": live, "keep": list(keep)} if live else None
    assert client.put("/databases/" + db, json_body=body).status in (200, 201)


def count(client, db, docs, **params):
    answer = client.post("/ngrams", ndjson(docs), headers=NDJSON, db=db, **params)
    assert answer.status == 200, answer
    return answer.json()


def merge(client, to, other, status=200):
    answer = client.post("/databases/%s/merge?from=%s" % (to, other))
    assert answer.status == status, answer
    return answer.json() if status == 200 else answer.code


@pytest.fixture
def names(client):
    made = [client.db + end for end in ("-a", "-b", "-c")]
    yield made
    for name in made:
        client.delete("/databases/" + name, confirm=name)


def same(client, one, two, live):
    for prefix in ("cnt:", "ctx:"):
        assert pairs(client, one, prefix) == pairs(client, two, prefix)
    assert pairs(client, one, "ctxv:").keys() == pairs(client, two, "ctxv:").keys()
    if live:
        have, want = pairs(client, one, "kn:"), pairs(client, two, "kn:")
        head = [name for name in want if name.startswith("a246MDpf")]  # kn:0:_: has an identifier of its own
        assert len(head) == 1 and have.keys() == want.keys()
        assert all(have[name] == want[name] for name in want if name not in head)
        a, b = (client.get("/databases/" + db).json()["live"] for db in (one, two))
        a.pop("generation"), b.pop("generation")
        assert a == b


@pytest.mark.parametrize("order,live,keep", [(3, False, ()), (2, True, ()), (5, True, ()), (1, True, ()), (3, True, ("cnt", "ctx", "ctxv")), (4, True, ("cnt",))])
def test_joined_is_as_counted_together(client, names, order, live, keep):
    rng = random.Random(order * 7 + live)
    a, b, both = names
    one, two = documents(rng, 150), documents(rng, 180, 90)
    two += one[:20]
    for db in names:
        make(client, db, {"order": order, "bos": 2, "eos": 3} if live else None, keep)
    count(client, a, one, order=order)
    count(client, b, two, order=order)
    count(client, both, one + two, order=order)
    before = pairs(client, b, "")
    answer = merge(client, a, b)
    assert ("generation" in answer) == live and (answer["contexts_created"] > 0 or order == 1)
    same(client, a, both, live)
    assert pairs(client, b, "") == before
    # A database that has nothing yet; and what was joined is taken away again.
    count(client, both, one, order=order, remove="true")
    count(client, both, two, order=order, remove="true")
    merge(client, both, a)
    same(client, both, a, live)
    count(client, both, two, order=order, remove="true")
    count(client, a, two, order=order, remove="true")
    for prefix in ("cnt:", "kn:2:", "kn:1:"):
        assert pairs(client, both, prefix) == pairs(client, a, prefix)


def test_refused(client, names):
    a, b, c = names
    make(client, a, {"order": 3, "bos": 2, "eos": 3})
    make(client, b, None)
    make(client, c, {"order": 3, "bos": 2})
    count(client, a, [{"tokens": [2, 11, 12, 3]}])
    count(client, b, [{"tokens": [2, 11, 12, 3]}])
    before = [pairs(client, db, "") for db in names]
    assert merge(client, a, b, 409) == merge(client, b, a, 409) == merge(client, a, c, 409) == "models_differ"
    assert merge(client, a, a, 400) == "invalid_parameter"
    assert merge(client, a, "never-made", 404) == merge(client, "never-made", a, 404) == "database_not_found"
    assert client.post("/databases/%s/merge" % a).code == client.post("/databases/%s/merge?from=no/name" % a).code == "invalid_database_name"
    assert [pairs(client, db, "") for db in names] == before
    text = "\\data\\\nngram 1=3\n\\1-grams:\n-1 <s>\n-1 </s>\n-1 11\n\\end\\\n"
    client.delete("/databases/" + c, confirm=c)
    assert client.post("/arpa", text.encode(), db=c).status == 201
    assert merge(client, a, c, 409) == merge(client, c, a, 409) == "fixed_model"


def test_damage_and_memory(client, launch):
    server = launch("--durability", "os", "--request-memory-bytes", "1M")
    client = server.client(db="b")
    rng = random.Random(3)
    for _ in range(8):
        count(client, "b", documents(rng, 60, 5000), order=2)
    make(client, "a", None)
    assert merge(client, "a", "b", 413) == "request_too_large"
    assert pairs(client, "a", "") == {}
    client.delete("/databases/b", confirm="b")
    count(client, "b", [{"tokens": [2, 11, 12, 3]}], order=2)
    client.upsert(b"cnt:2:12345678", b"\x09\x02xx")
    assert merge(client, "a", "b", 409) == "malformed_payload"
    assert pairs(client, "a", "") == {}


def test_contexts_without_counts_stay_registered(client, names):
    """keep ["ctx"]: nobody knows which contexts reach nothing any more, and taking away is no error."""
    a = names[0]
    for name in names[1:]:
        make(client, name, None)
    make(client, a, {"order": 3, "bos": 2, "eos": 3}, ["ctx"])
    one, two = {"tokens": [2, 11, 12, 3]}, {"tokens": [2, 12, 13, 3]}
    count(client, a, [one, two])
    registered = pairs(client, a, "ctx:")
    answer = count(client, a, [dict(one, remove=True), {"tokens": [2, 14, 3]}])
    assert answer["removed"] == 1
    assert pairs(client, a, "ctx:").items() > registered.items() and pairs(client, a, "cnt:") == {}
    assert client.get("/databases/" + a).json()["live"]["documents"] == 2
