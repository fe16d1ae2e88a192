"""Prediction tables over HTTP: against the second implementation (predictions.py), with the line protocol beside, that they last, what is refused."""
import base64
import json
import random
import threading

import predictions
import pytest
from harness import b64, unb64
from harness.line import LineServer


def call(client, what, body, table="t"):
    return client.post("/tables/%s/%s" % (table, what), json_body=body)


def probabilities(answer):
    assert answer.status == 200, answer
    found = [(unb64(one["value"]).decode(), one["p"]) for one in answer.json()["candidates"]]
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
    return dict(found)


def same(have, want):
    assert set(have) == set(want)
    for value, p in want.items():
        assert have[value] == pytest.approx(p, rel=1e-6, abs=1e-9), value


class Driver:
    """Random calls to the server and to the model."""

    def __init__(self, client, seed, table="t"):
        self.client, self.random, self.model, self.table = client, random.Random(seed), predictions.Table(), table

    def vector(self):
        return [round(self.random.uniform(-1, 1), 4) for _ in range(self.random.randint(1, 4))]

    def call(self, what, body):
        return call(self.client, what, body, self.table)

    def step(self):
        r, model = self.random, self.model
        key, value = r.choice("pqr"), r.choice("abcdef")
        matrix = [self.vector() for _ in range(r.choice([0, 1, 1, 2, 3, 5]))]
        what = r.choice(["set", "train", "train", "shift", "inherit", "query", "query"])
        named = {"key": b64(key.encode())}
        if what == "set":
            weights = {d: (self.vector(), round(r.uniform(-1, 1), 3)) for d in r.sample(range(4), r.randint(0, 3))}
            prob = round(r.uniform(-0.2, 1.2), 3)
            model.set(key, value, prob, weights)
            listed = [{"depth": d, "vector": v, "bias": b} for d, (v, b) in weights.items()]
            answer = self.call("set", {**named, "value": b64(value.encode()), "prob": prob, "weights": listed})
            assert answer.json() == {"values": len(model.keys[key])}
        elif what == "train":
            negatives, rate = r.sample("abcdefg", r.randint(0, 3)), r.choice([0.5, 0.05])
            want = model.train(key, value, matrix, rate, negatives)
            answer = self.call("train", {**named, "target": b64(value.encode()), "ctx": matrix, "rate": rate, "negatives": [b64(n.encode()) for n in negatives]})
            assert answer.json()["code"] == "prediction_entry_not_found" if want is None else answer.json() == {"values": want}
        elif what == "shift" and key in model.keys:
            how, strength = r.choice(["bias", "scale"]), r.choice([0.1, -0.2])
            model.shift(key, matrix, how, strength)
            assert self.call("shift", {**named, "ctx": matrix, "mode": how, "strength": strength}).json() == {"values": len(model.keys[key])}
        elif what == "inherit":
            sources, how = r.sample("abcdefg", 3), r.choice(["avg", "max", "sum"])
            want = model.inherit(key, "g", sources, how) if key in model.keys else 0
            answer = self.call("inherit", {"items": [{**named, "target": b64(b"g"), "sources": [b64(s.encode()) for s in sources], "merge": how}]})
            assert answer.json() == {"merged": int(want > 0), "skipped": int(want == 0)}
        elif what == "query":
            self.check(key, matrix)

    def check(self, key, matrix=()):
        answer = self.call("query", {"keys": [b64(key.encode())], "ctx": [list(row) for row in matrix]})
        if key in self.model.keys:
            same(probabilities(answer), self.model.query(key, list(matrix)))
        else:
            assert (answer.status, answer.json()["code"]) == (404, "prediction_entry_not_found")


def test_random_calls(client):
    call(client, "set", {"key": b64(b"other"), "value": b64(b"v")})
    driver = Driver(client, 3)
    for _ in range(400):
        driver.step()
    for how in ("avg", "max", "sum"):
        keys = sorted(driver.model.keys)
        answer = call(client, "query", {"keys": [b64(k.encode()) for k in keys + ["nobody"]], "merge": how})
        same(probabilities(answer), driver.model.many(keys, [], how))


def test_both_protocols_and_a_kill():
    """What one protocol writes the other reads; what was answered is there after a kill."""
    server = LineServer("--shards", "2")
    try:
        driver = Driver(server.client(), 5, "both.ways")
        for _ in range(80):
            driver.step()
        server.kill()
        server.restart()
        driver.client = server.client()
        for key in driver.model.keys:
            driver.check(key, [[0.5, 1.0], [0.25]])
        with server.line() as line:
            for key in driver.model.keys:
                answer = line.ask("PREDICT_QUERY table=both_ways key=" + key).decode()
                have = {bytes.fromhex(i.split(":")[0]).decode(): float(i.split(":")[1]) for i in answer.partition(",items=")[2].split(";")}
                for value, p in driver.model.query(key, []).items():
                    assert have[value] == pytest.approx(p, rel=2e-5, abs=1e-9)
            items = [{"key": "p", "target": "h", "sources": ["a", "b", "c", "d", "e", "f"]}, {"key": "none", "target": "h", "sources": ["a"]}]
            driver.model.set("p", "a", 0.5, {})
            line.ask("PREDICT_SET table=both_ways key=p value=a prob=0.5")
            driver.model.inherit("p", "g", "abcdef", "avg")
            items[0]["target"] = "g"
            coded = base64.b64encode(json.dumps(items).encode()).decode()
            assert line.ask("PREDICT_INHERIT_BATCH table=both_ways items=" + coded) == b"SUCCESS,table=both_ways,merged=1,skipped=1,failed=0,total=2"
        driver.check("p")
    finally:
        server.finish()


def test_many_clients_train_one_key(server, client, name):
    """No step is lost, whoever makes it: each of them adds to the bias of the one row."""
    call(client, "set", {"key": b64(b"k"), "value": b64(b"v")}, "shared")
    server_steps, threads = 25, []

    def work(who):
        own = server.client(db=name)
        for i in range(server_steps):
            assert call(own, "set", {"key": b64(b"k"), "value": b64(b"%d-%d" % (who, i))}, "shared").status == 200
            assert call(own, "train", {"key": b64(b"k"), "target": b64(b"v"), "ctx": [[1.0]], "rate": 1e-6}, "shared").status == 200
        own.close()

    for who in range(4):
        threads.append(threading.Thread(target=work, args=(who,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    model = predictions.Table()
    model.set("k", "v", 0.5, {})
    for _ in range(4 * server_steps):
        model.train("k", "v", [[1.0]], 1e-6, [])
    score, weights = model.keys["k"]["v"]
    answer = call(client, "query", {"keys": [b64(b"k")], "ctx": [[1e5]]}, "shared")
    found = probabilities(answer)
    assert len(found) == 1 + 4 * server_steps
    want = predictions.math.exp(score + 1e5 * weights[0][0][0] + weights[0][1] - 0.5)
    others = [p for value, p in found.items() if value != "v"]
    assert found["v"] / others[0] == pytest.approx(want, rel=1e-6)


def test_what_is_refused(client):
    assert call(client, "set", {"key": b64(b"k"), "value": b64(b"v")}).status == 200
    key, value = {"key": b64(b"k")}, b64(b"v")
    for what, body, status, code in (
        ("set", {"key": "%%", "value": value}, 400, "invalid_body"), ("set", {"value": value}, 400, "invalid_body"), ("set", {**key, "value": ""}, 400, "invalid_body"),
        ("set", {**key, "value": value, "prob": "x"}, 400, "invalid_body"), ("set", {**key, "value": value, "weights": [{"depth": -1}]}, 400, "invalid_body"),
        ("set", {**key, "value": value, "weights": [{"depth": 0, "vector": ["a"]}]}, 400, "invalid_body"), ("set", [1], 400, "invalid_body"),
        ("set", {"key": b64(b"k" * 4096), "value": value}, 400, "invalid_pair"),
        ("query", {}, 400, "invalid_body"), ("query", {"keys": []}, 400, "invalid_body"), ("query", {"keys": [b64(b"k")], "ctx": [1]}, 400, "invalid_body"),
        ("query", {"keys": [b64(b"k")], "merge": "most"}, 400, "invalid_body"), ("query", {"keys": [b64(b"none")]}, 404, "prediction_entry_not_found"),
        ("train", key, 400, "invalid_body"), ("train", {**key, "target": value, "rate": 0}, 400, "invalid_body"),
        ("train", {**key, "target": value, "negatives": [value] * 10001}, 400, "invalid_body"),
        ("train", {"key": b64(b"none"), "target": value}, 404, "prediction_entry_not_found"),
        ("train", {**key, "target": value, "rate": 1e308, "ctx": [[1e308]]}, 400, "invalid_number"),
        ("shift", key, 400, "invalid_body"), ("shift", {**key, "ctx": [], "mode": "other"}, 400, "invalid_body"),
        ("shift", {"key": b64(b"none"), "ctx": []}, 404, "prediction_entry_not_found"),
        ("inherit", {"items": []}, 400, "invalid_body"), ("inherit", {"items": [{**key, "target": value}]}, 400, "invalid_body"),
        ("inherit", {"items": [{**key, "target": value, "sources": [1]}]}, 400, "invalid_body"),
    ):  # fmt: skip
        client.checked = False  # bodies that the contract has no place for
        answer = call(client, what, body)
        assert (answer.status, answer.json()["code"]) == (status, code), (what, body, answer.json())
    answer = client.post("/tables/t/set", b"{", headers={"Content-Type": "application/json"})
    assert (answer.status, answer.json()["code"]) == (400, "invalid_body")
    client.checked = True
    # nothing was changed, and a bad body makes no database
    assert probabilities(call(client, "query", {"keys": [b64(b"k")]})) == {"v": 1.0}
    client.checked = False
    assert client.post("/tables/t/set", json_body={"key": 1}, db="never-made").status == 400
    client.checked = True
    assert client.get("/databases/never-made").status == 404
    assert client.post("/tables/t/train", json_body={"key": b64(b"k"), "target": value}, db="never-made").json()["code"] == "database_not_found"
    assert client.post("/tables/t/set", json_body={"key": b64(b"k"), "value": value}, db="made").status == 200
