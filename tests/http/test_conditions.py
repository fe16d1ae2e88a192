"""Preconditions: ETag, If-Match, If-None-Match; if_absent and if_match in batches. Never ignored, and of clients that race one succeeds."""
import random
import threading

import pytest
from harness import b64, damage, unb64

OTHER = '"0123456789abcdef"'
PAIR = {"exact": "true"}


def made(client, kind, value=b"one"):
    """The path of something that is there, with its parameters for GET."""
    if kind == "kv":
        return "/kv/%d" % client.insert(value), {}
    client.upsert(b"name", value)
    return "/pairs/name", PAIR


def tag(client, path, params):
    answer = client.get(path, **params)
    assert answer.status == 200, answer.body
    return answer.headers["ETag"]


def value(client, path, params):
    answer = client.get(path, **{**params, **({"values": "true"} if params else {})})
    return unb64(answer.json()["value"]) if answer.status == 200 else None


@pytest.fixture(params=["kv", "pairs"])
def there(client, request):
    return made(client, request.param)


# ---- reading -----------------------------------------------------------------------------------------------------------


def test_a_tag_stands_for_key_and_bytes(client, there):
    path, params = there
    first = tag(client, path, params)
    assert len(first) == 18 and first[0] == first[-1] == '"' and int(first[1:-1], 16) >= 0
    more = {**params, **({"values": "true"} if params else {})}
    shown = [client.get(path, **more), client.head(path, **more), client.head(path, **params),
             client.get(path, headers={"Accept": "application/octet-stream"}, **params)]
    assert {a.headers["ETag"] for a in shown} == {first}
    client.put(path, b"two")
    second = tag(client, path, params)
    client.put(path, b"one")
    assert tag(client, path, params) == first != second
    other = client.insert(b"one")
    assert client.get("/kv/%d" % other).headers["ETag"] != first


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_compressed_answer_has_the_same_tag(client, coding):
    client.upsert(b"name", b"a long value " * 500)
    mine = tag(client, "/pairs/name", PAIR)
    headers = {"Accept-Encoding": coding}
    plain = client.server.client(client.db, check=False)  # the other one reads what it is given
    for method in plain.get, plain.head:
        answer = method("/pairs/name", headers=headers, values="true", **PAIR)
        assert (answer.status, answer.headers["Content-Encoding"], answer.headers["ETag"]) == (200, coding, mine)
        answer = method("/pairs/name", headers={**headers, "If-None-Match": mine}, values="true", **PAIR)
        assert (answer.status, answer.body, answer.headers["Content-Encoding"], answer.headers["ETag"]) == (304, b"", None, mine)
    plain.close()


def test_tags_do_not_change(client):
    """Clients keep them: over a restart, and over releases."""
    client.insert(b"hello")
    assert client.get("/kv/1").headers["ETag"] == HELLO
    client.insert(bytes(range(256)) * 5)
    assert client.get("/kv/2").headers["ETag"] == LONG
    client.map(b"to hello", 1)
    client.map(b"dangling", 77)
    assert client.get("/pairs/to%20hello", **PAIR).headers["ETag"] == HELLO
    dangling = client.get("/pairs/dangling", **PAIR).headers["ETag"]
    assert dangling == client.get("/pairs/dangling", values="true", **PAIR).headers["ETag"] not in (HELLO, LONG)


@pytest.mark.parametrize("bytes_", [1, 15, 16, 17, 31, 32, 33, 511, 700, 70_000])
def test_each_byte_counts(client, bytes_):
    data = bytearray(random.Random(bytes_).randbytes(bytes_))
    key = client.insert(bytes(data))
    seen = {client.get("/kv/%d" % key).headers["ETag"]}
    places = sorted({0, bytes_ // 3, bytes_ // 2, bytes_ - 1})
    for at in places:
        data[at] ^= 1
        client.put("/kv/%d" % key, bytes(data))
        seen.add(client.get("/kv/%d" % key).headers["ETag"])
    client.put("/kv/%d" % key, bytes(data) + b"\0")
    seen.add(client.get("/kv/%d" % key).headers["ETag"])
    assert len(seen) == len(places) + 2


def test_not_modified(client, there):
    path, params = there
    mine = tag(client, path, params)
    for method in client.get, client.head:
        for header in mine, "W/" + mine, OTHER + ", " + mine, ' , "x",\t%s ,' % mine, "*", " * ":
            answer = method(path, headers={"If-None-Match": header}, **params)
            assert (answer.status, answer.headers["ETag"], answer.body) == (304, mine, b""), header
        for header in OTHER, '""', '"%s,%s"' % (mine[1:9], mine[9:-1]), '"%s"' % mine[1:-1].upper(), '"x", W/"y"':
            answer = method(path, headers={"If-None-Match": header}, **params)
            assert (answer.status, answer.headers["ETag"]) == (200, mine), header
    assert client.get(path, **params).status == 200  # the connection goes on
    client.put(path, b"two")
    assert client.get(path, headers={"If-None-Match": mine}, **params).status == 200


def test_reading_with_if_match(client, there):
    path, params = there
    mine = tag(client, path, params)
    for header in mine, OTHER + "," + mine, "*":
        assert client.get(path, headers={"If-Match": header}, **params).status == 200
    for header in OTHER, "W/" + mine:
        answer = client.get(path, headers={"If-Match": header}, **params)
        assert (answer.status, answer.code) == (412, "precondition_failed") and answer.headers["ETag"] is None
    client.delete(path)
    assert client.get(path, headers={"If-Match": "*"}, **params).status == 412
    assert client.get(path, headers={"If-None-Match": "*"}, **params).status == 404
    assert client.get(path, headers={"If-None-Match": mine}, **params).status == 404


# ---- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["put", "delete"])
def test_writing(client, there, method):
    path, params = there
    mine = tag(client, path, params)

    def call(**headers):
        headers = {name.replace("_", "-"): v for name, v in headers.items()}
        return client.put(path, b"two", headers=headers) if method == "put" else client.delete(path, headers=headers)

    for headers in {"If_Match": OTHER}, {"If_Match": "W/" + mine}, {"If_None_Match": "*"}, {"If_None_Match": mine}, {"If_None_Match": "W/" + mine}, \
            {"If_Match": mine, "If_None_Match": "*"}, {"If_Match": OTHER, "If_None_Match": OTHER}:
        answer = call(**headers)
        assert (answer.status, answer.code) == (412, "precondition_failed"), headers
        assert tag(client, path, params) == mine and value(client, path, params) == b"one"
    for form in {"If_Match": "%s"}, {"If_Match": OTHER + ", %s"}, {"If_Match": "*"}, {"If_None_Match": OTHER}, {"If_Match": "%s", "If_None_Match": OTHER}:
        headers = {name: text.replace("%s", mine) for name, text in form.items()}
        answer = call(**headers)
        assert answer.status == (200 if method == "put" else 204), (headers, answer.body)
        if method == "put":
            assert answer.headers["ETag"] == tag(client, path, params) != mine and value(client, path, params) == b"two"
        path, params = made(client, "pairs" if params else "kv")
        mine = tag(client, path, params)


@pytest.mark.parametrize("kind", ["kv", "pairs"])
def test_nothing_is_there(client, kind):
    path, params = made(client, kind)
    assert client.delete(path).status == 204
    assert client.put(path, b"x", headers={"If-Match": "*"}).status == 412
    assert client.put(path, b"x", headers={"If-Match": OTHER}).status == 412
    assert client.delete(path, headers={"If-Match": "*"}).status == 412
    assert client.delete(path, headers={"If-None-Match": "*"}).status == 404
    assert client.get(path, **params).status == 404
    answer = client.put(path, b"x", headers={"If-None-Match": "*"})
    assert answer.status == (201 if kind == "pairs" else 404)  # a value's key is not the client's to choose
    if kind == "pairs":
        assert answer.headers["ETag"] == tag(client, path, params)


def test_mapping(client):
    key = client.insert(b"one")
    headers = {"If-None-Match": "*"}
    assert client.put("/pairs/m", json_body={"key": key}, headers=headers).status == 201
    assert client.put("/pairs/m", json_body={"key": 99}, headers=headers).status == 412
    mine = tag(client, "/pairs/m", PAIR)
    assert mine == tag(client, "/kv/%d" % key, {})
    client.put("/kv/%d" % key, b"two")  # the value, not the name, has changed
    assert client.put("/pairs/m", json_body={"key": 99}, headers={"If-Match": mine}).status == 412
    mine = tag(client, "/pairs/m", PAIR)
    assert client.put("/pairs/m", json_body={"key": 99}, headers={"If-Match": mine}).status == 200
    dangling = tag(client, "/pairs/m", PAIR)
    assert client.put("/pairs/m", b"x", headers={"If-None-Match": "*"}).status == 412  # it is mapped
    assert client.delete("/pairs/m", headers={"If-Match": dangling}, values="true").status == 204


def test_no_precondition_makes_no_database(client):
    answer = client.put("/pairs/n?db=fresh", b"x", headers={"If-Match": "nonsense"})
    assert (answer.status, answer.code) == (400, "invalid_precondition")
    assert "fresh" not in client.get("/databases").json()["databases"]


def test_a_damaged_value(launch):
    server = launch()
    client = server.client(check=False)
    client.upsert(b"name", b"a value that will be damaged")
    mine = tag(client, "/pairs/name", PAIR)
    assert client.post("/databases/default/checkpoint").status == 200
    server.stop()
    damage(server.data, b"a value that will be damaged")
    server.restart()
    client = server.client(check=False)
    answer = client.put("/pairs/name", b"x", headers={"If-Match": mine})
    assert (answer.status, answer.code) == (500, "corrupt_value")
    assert client.put("/pairs/name", b"x", headers={"If-None-Match": "*"}).status == 412  # it is there
    client.close()


# ---- bad forms ---------------------------------------------------------------------------------------------------------

BAD = ["", " ", ",", "abc", '"abc', 'abc"', "'abc'", '"a b"', '"a"b', '"a" "b"', "*, *", '*,"a"', '"a",*', 'w/"a"', 'W"a"', 'W/ "a"', "W/*"]


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_bad_forms(client, there, header):
    path, params = there
    mine = tag(client, path, params)
    for text in BAD:
        for answer in (client.get(path, headers={header: text}, **params), client.put(path, b"x", headers={header: text}),
                       client.delete(path, headers={header: text})):
            assert (answer.status, answer.code) == (400, "invalid_precondition"), (text, answer.status, answer.body)
    assert tag(client, path, params) == mine


def test_twice(server, client):
    """The second of a name must not be overlooked."""
    path, params = made(client, "pairs")
    mine = tag(client, path, params)
    for lines in ('If-Match: %s\r\nIf-Match: "x"\r\n' % mine, 'if-none-match: "x"\r\nIF-NONE-MATCH: %s\r\n' % mine):
        with server.raw() as raw:
            raw.send(b"PUT /pairs/name?db=%s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: 1\r\n\r\nx" % (client.db.encode(), lines.encode()))
            assert raw.head()[0] == 400
    assert tag(client, path, params) == mine


CALLS = [("get", "/pairs/*"), ("get", "/pairs/n?count=true"), ("get", "/pairs/n?children=true"), ("get", "/kv"), ("get", "/kv?keys=1"), ("post", "/kv"), ("post", "/batch"),
         ("post", "/pairs"), ("delete", "/pairs/n?recursive=true"), ("get", "/reduce/stats/*"), ("post", "/ngrams?order=2"), ("post", "/predict"),
         ("get", "/databases"), ("put", "/databases/other"), ("delete", "/databases/other?confirm=other"), ("get", "/metrics"), ("get", "/version")]


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_calls_without(client, header):
    client.upsert(b"n", b"one")
    for method, path in CALLS:
        answer = getattr(client, method)(path, headers={header: "*"})
        assert (answer.status, answer.code) == (400, "unsupported_precondition"), (method, path, answer.status)
    assert value(client, "/pairs/n", PAIR) == b"one" and "other" not in client.get("/databases").json()["databases"]


def test_dates(client, there):
    """There are none. A write that hangs on one is not done; a read that does is answered as if it were new."""
    path, params = there
    for call in (lambda h: client.get(path, headers=h, **params), lambda h: client.put(path, b"x", headers=h), lambda h: client.delete(path, headers=h)):
        answer = call({"If-Unmodified-Since": "Sat, 29 Oct 1994 19:43:31 GMT"})
        assert (answer.status, answer.code) == (400, "unsupported_precondition")
    assert client.get(path, headers={"If-Modified-Since": "Sat, 29 Oct 2094 19:43:31 GMT"}, **params).status == 200
    assert value(client, path, params) == b"one"


# ---- batches -----------------------------------------------------------------------------------------------------------


def test_batch(client):
    client.upsert(b"a", b"one")
    key = client.get("/pairs/a", **PAIR).json()["key"]
    mine = tag(client, "/pairs/a", PAIR)
    put = {"op": "pair_put", "pair": b64(b"a"), "value": b64(b"two")}
    lines = client.batch([{**put, "if_absent": True}, {**put, "if_match": OTHER}, {**put, "if_match": mine}, {**put, "if_match": mine},
                          {"op": "edit", "key": key, "value": b64(b"three"), "if_match": "*"}, {"op": "edit", "key": key, "value": b64(b"x"), "if_absent": True},
                          {"op": "delete", "key": key, "if_match": OTHER[1:-1]}, {"op": "delete", "key": key + 50, "if_match": "*"},
                          {"op": "pair_set", "pair": b64(b"a"), "key": 9, "if_absent": True}, {"op": "pair_set", "pair": b64(b"b"), "key": key, "if_absent": True},
                          {"op": "pair_del", "pair": b64(b"b"), "if_match": OTHER}, {"op": "pair_del", "pair": b64(b"c"), "if_absent": True},
                          {**put, "if_absent": False}]).entries()
    assert [line["status"] for line in lines] == [412, 412, 200, 412, 200, 412, 412, 412, 412, 201, 412, 404, 200]
    assert {line["code"] for line in lines if line["status"] == 412} == {"precondition_failed"}
    assert lines[4]["etag"] != lines[2]["etag"] == tag(client, "/pairs/a", PAIR) and "etag" not in lines[12]
    bare = tag(client, "/pairs/b", PAIR)[1:-1]
    assert client.batch([{"op": "pair_del", "pair": b64(b"b"), "if_match": bare}]).entries()[0]["status"] == 204


FORMS = [({"if_absent": 1}, "invalid_precondition"), ({"if_absent": None}, "invalid_precondition"), ({"if_absent": "true"}, "invalid_precondition"),
         ({"if_match": 5}, "invalid_precondition"), ({"if_match": None}, "invalid_precondition"), ({"if_match": ""}, "invalid_precondition"),
         ({"if_match": "a b"}, "invalid_precondition"), ({"if_match": '"a'}, "invalid_precondition"), ({"if_match": "x" * 500}, "invalid_precondition"),
         ({"if_match": "*", "if_absent": True}, "invalid_precondition"),
         ({"if_none_match": "*"}, "unsupported_precondition"), ({"if_key": 5}, "unsupported_precondition"), ({"if_": True}, "unsupported_precondition")]


@pytest.mark.parametrize("more,code", FORMS)
def test_bad_forms_in_batches(client, more, code):
    client.upsert(b"a", b"one")
    put = {"op": "pair_put", "pair": b64(b"a"), "value": b64(b"two"), **more}
    line = client.batch([put]).entries()[0]
    assert (line["status"], line["code"]) == (400, code)
    answer = client.batch([{"op": "insert", "value": b64(b"x")}, put], atomic="true")
    assert answer.code == "batch_failed" and answer.json()["operation"]["code"] == code and answer.json()["index"] == 1
    assert value(client, "/pairs/a", PAIR) == b"one"


@pytest.mark.parametrize("op", [{"op": "insert", "value": b64(b"x")}, {"op": "read", "key": 1}, {"op": "pair_get", "pair": b64(b"a")},
                                {"op": "add", "pair": b64(b"n"), "by": 1}, {"op": "counts_add", "pair": b64(b"n"), "order": 1, "followers": []},
                                {"op": "put", "key": 1, "value": b64(b"x")}, {"op": "reserve", "keys": 5}])
def test_operations_without(client, op):
    client.upsert(b"a", b"one")
    for more in {"if_absent": True}, {"if_match": "*"}, {"if_absent": False}:
        line = client.batch([{**op, **more}]).entries()[0]
        assert (line["status"], line["code"]) == (400, "unsupported_precondition"), line


def together(client, count, work):
    """Runs work(client, number) on as many threads; raises what one of them raised."""
    failures = []

    def run(number):
        mine = client.server.client(client.db, check=False)
        try:
            work(mine, number)
        except BaseException as error:  # pylint: disable=broad-except
            failures.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_many_counters(client):
    """Read, add one, write if it is still the same: as many successes as the counters say, each number once a counter."""
    names, each, clients = [b"c%d" % i for i in range(3)], 25, 8
    for name in names:
        client.upsert(name, b"0")
    wins = [[] for _ in range(clients)]

    def work(mine, number):
        rng = random.Random(number)
        while len(wins[number]) < each:
            name = rng.choice(names).decode()
            shown = mine.get("/pairs/" + name, values="true", **PAIR)
            now = int(unb64(shown.json()["value"])) + 1
            answer = mine.put("/pairs/" + name, b"%d" % now, headers={"If-Match": shown.headers["ETag"]})
            assert answer.status in (200, 412), answer.body
            if answer.status == 200:
                wins[number].append((name, now))

    together(client, clients, work)
    won = [win for mine in wins for win in mine]
    assert len(set(won)) == len(won) == each * clients
    for name in names:
        last = int(value(client, "/pairs/" + name.decode(), PAIR))
        assert sorted(n for at, n in won if at == name.decode()) == list(range(1, last + 1))


def test_many_locks(client):
    """A lock is a pair that is made only if it is not there, and deleted only as its owner made it; in it nobody else is."""
    inside, seen = [], []

    def work(mine, number):
        done = 0
        while done < 10:
            if number % 2 == 0:
                answer = mine.put("/pairs/lock", b"owner %d" % number, headers={"If-None-Match": "*"})
                status, key = answer.status, answer.headers["ETag"]
            else:
                line = mine.batch([{"op": "pair_put", "pair": b64(b"lock"), "value": b64(b"owner %d" % number), "if_absent": True}]).entries()[0]
                status, key = line["status"], line.get("etag")
            assert status in (201, 412)
            if status == 412:
                continue
            inside.append(number)
            seen.append(len(inside))
            assert mine.put("/pairs/lock", b"thief", headers={"If-None-Match": "*"}).status == 412
            inside.remove(number)
            assert mine.delete("/pairs/lock", headers={"If-Match": OTHER}, values="true").status == 412
            assert mine.delete("/pairs/lock", headers={"If-Match": key}, values="true").status == 204
            done += 1

    together(client, 6, work)
    assert seen == [1] * 60 and client.get("/pairs/lock", **PAIR).status == 404


def test_many_transactions(client):
    """Amounts are moved between accounts by atomic batches: none is lost or made, and no account falls below 0."""
    accounts = [b"account%d" % i for i in range(5)]
    for name in accounts:
        client.upsert(name, b"100")
    moved = [0] * 6

    def work(mine, number):
        rng = random.Random(100 + number)
        while moved[number] < 12:
            a, b = rng.sample(accounts, 2)
            shown = [mine.get("/pairs/" + name.decode(), values="true", **PAIR) for name in (a, b)]
            have = [int(unb64(answer.json()["value"])) for answer in shown]
            amount = rng.randint(1, 60)
            if have[0] < amount:
                amount = have[0]
            after = [have[0] - amount, have[1] + amount]
            answer = mine.batch([{"op": "pair_put", "pair": b64(name), "value": b64(b"%d" % n), "if_match": show.headers["ETag"]}
                                 for name, n, show in zip((a, b), after, shown)], atomic="true")
            assert answer.status in (200, 409), answer.body
            moved[number] += answer.status == 200
            if answer.status == 409:
                assert answer.json()["operation"]["code"] == "precondition_failed"

    together(client, 6, work)
    left = [int(value(client, "/pairs/" + name.decode(), PAIR)) for name in accounts]
    assert sum(left) == 500 and min(left) >= 0


HELLO = '"9ea6c4709464ff6d"'
LONG = '"d26c832e82c06e5e"'


def test_tags_in_lines(client):
    """Of scans, of POST /pairs, of /kv and of batches: each is that of the value read by itself; long values are hashed as they are sent."""
    values = {b"short": b"v", b"sixteen": b"0123456789abcdef", b"more": b"0123456789abcdefg", b"bytes": bytes(range(256)), b"long": b"ab\xc3\xa9" * 30_000,
              b"not text": b"\xff" + b"z" * 200_000, b"longer": "\u00e9".encode() * 300_001}
    keys = {name: client.upsert(name, value) for name, value in values.items()}
    client.map(b"dangling", 99_999)
    shown = {name: tag(client, "/pairs/" + name.decode().replace(" ", "%20"), PAIR) for name in [*values, b"dangling"]}
    for text in ({}, {"text": "true"}):
        entries = client.get("/pairs/*", values="true", etags="true", **text).entries()
        assert {line["name"].encode() if text else unb64(line["pair"]): line["etag"] for line in entries} == shown
        assert client.get("/pairs/*", values="true", **text).entries() == [{k: v for k, v in line.items() if k != "etag"} for line in entries]
        body = b'{"names":["longer","short","none","dangling","long","not text"]}'
        many = client.request("POST", "/pairs", body, {"Content-Type": "application/json"}, values="true", etags="true", **text).entries()
        assert [line.get("etag") for line in many] == [shown.get(name) for name in (b"longer", b"short", b"none", b"dangling", b"long", b"not text")]
        by_key = {keys[name]: end for name, end in shown.items() if name in keys}
        assert {line["key"]: line["etag"] for line in client.get("/kv", etags="true", **text).entries()} == by_key
        some = ",".join(str(keys[name]) for name in values) + ",77777"
        assert [line.get("etag") for line in client.get("/kv", keys=some, etags="true", **text).entries()] == [shown[name] for name in values] + [None]
    results = client.batch([{"op": "read", "key": keys[b"long"]}, {"op": "pair_get", "pair": b64(b"short"), "values": True},
                            {"op": "pair_get", "pair": b64(b"short")}, {"op": "pair_put", "pair": b64(b"new"), "value": b64(b"1")},
                            {"op": "add", "pair": b64(b"new"), "by": 1}, {"op": "insert", "value": b64(b"2")}], etags="true").entries()
    assert [r.get("etag") for r in results[:3]] == [shown[b"long"], shown[b"short"], None] and "etag" not in results[4]
    assert client.get("/kv/%d" % results[5]["key"]).headers["ETag"] == results[5]["etag"] and len(results[3]["etag"]) == 18
    assert client.put("/pairs/short", b"w", headers={"If-Match": results[1]["etag"]}).status == 200
    assert all("etag" not in r for r in client.batch([{"op": "read", "key": keys[b"long"]}, {"op": "insert", "value": b64(b"2")}]).entries())


def test_tags_go_with_values(client):
    client.upsert(b"a", b"v")
    for answer in (client.get("/pairs/*", etags="true"), client.get("/kv", etags="true", values="false"), client.get("/pairs/*", count="true", etags="true"),
                   client.request("POST", "/pairs", b'{"names":["a"]}', {"Content-Type": "application/json"}, etags="true")):
        assert (answer.status, answer.json()["code"]) == (400, "invalid_parameter")
