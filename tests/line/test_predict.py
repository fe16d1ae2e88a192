"""PREDICT_ commands against a second implementation (predictions.py); that they last; what is refused."""
import base64
import json
import random
import select
import socket
import struct

import harness
import predictions
import pytest


def b64(value):
    return base64.b64encode(json.dumps(value).encode()).decode()


def items(answer):
    assert answer.startswith(b"SUCCESS,count="), answer
    listed = answer.decode().partition(",items=")[2]
    pairs = [item.rsplit(":", 1) for item in listed.split(";") if item]
    assert len(pairs) == int(answer.decode().split("count=")[1].split(",")[0])
    probabilities = [float(p) for _, p in pairs]
    assert probabilities == sorted(probabilities, reverse=True)
    return {bytes.fromhex(name).decode(): float(p) for name, p in pairs}


def same(answer, want):
    have = items(answer)
    assert set(have) == set(want)
    for value, p in want.items():
        assert have[value] == pytest.approx(p, rel=2e-5, abs=1e-9), value


class Driver:
    """Random commands to the server and to the model."""

    def __init__(self, line, seed):
        self.line, self.random, self.table = line, random.Random(seed), predictions.Table()

    def vector(self):
        return [round(self.random.uniform(-1, 1), 4) for _ in range(self.random.randint(1, 4))]

    def matrix(self):
        return [self.vector() for _ in range(self.random.choice([0, 1, 1, 2, 3, 5, 7]))]

    def step(self):
        r, table = self.random, self.table
        key, value, matrix = r.choice("pqr"), r.choice("abcdef"), self.matrix()
        ctx = " ctx=" + b64(matrix) if matrix else ""
        what = r.choice(["set", "train", "train", "shift", "inherit", "query", "query", "many"])
        if what == "set":
            weights = {d: (self.vector(), round(r.uniform(-1, 1), 3)) for d in r.sample(range(4), r.randint(0, 3))}
            prob = round(r.uniform(-0.2, 1.2), 3)
            table.set(key, value, prob, weights)
            listed = [{"depth": d, "vector": v, "bias": b} for d, (v, b) in weights.items()]
            answer = self.line.ask("PREDICT_SET key=%s value=%s prob=%s weights=%s" % (key, value, prob, b64(listed)))
            assert answer == b"SUCCESS,table=,prediction_values=%d" % len(table.keys[key]), answer
        elif what == "train":
            negatives, rate = r.sample("abcdefg", r.randint(0, 3)), r.choice([0.5, 0.05, -1, 0])
            want = table.train(key, value, matrix, rate, negatives)
            answer = self.line.ask("PREDICT_TRAIN key=%s target=%s lr=%s%s%s" % (key, value, rate, ctx, " negatives=" + ",".join(negatives) if negatives else ""))
            assert answer == (b"ERROR,prediction_entry_not_found" if want is None else b"SUCCESS,table=,prediction_values=%d,lr=%.4f" % (want, rate))
        elif what == "shift" and matrix and key in table.keys:
            how, strength = r.choice(["bias", "scale"]), r.choice([0.1, -0.2, 0])
            table.shift(key, matrix, how, strength)
            answer = self.line.ask("PREDICT_CTX key=%s strength=%s mode=%s%s" % (key, strength, how, ctx))
            assert answer == b"SUCCESS,table=,prediction_values=%d" % len(table.keys[key])
        elif what == "inherit" and key in table.keys:
            sources, how = r.sample("abcdefg", 3), r.choice(["avg", "max", "sum"])
            want = table.inherit(key, "g", sources, how)
            answer = self.line.ask("PREDICT_INHERIT key=%s target=g sources=%s merge=%s" % (key, ",".join(sources), how))
            assert answer == (b"SUCCESS,table=,prediction_values=%d,merged_sources=%d" % (len(table.keys[key]), want) if want else b"ERROR,inherit_sources_missing")
        elif what == "query":
            answer = self.line.ask("PREDICT_QUERY key=%s%s windows=%s" % (key, ctx, b64([self.vector()])))
            if key in table.keys:
                same(answer, table.query(key, matrix))
            else:
                assert answer == b"ERROR,prediction_entry_not_found"
        elif what == "many":
            how = r.choice(["avg", "sum", "max"])
            same(self.line.ask("PREDICT_QUERY keys=p,q,r merge=%s%s" % (how, ctx)), table.many("pqr", matrix, how))


def test_random_commands(line):
    driver = Driver(line, 5)
    for _ in range(1200):
        driver.step()


def test_they_last(launch):
    """A value that was answered is there after a kill, and the tables of a name are one, whoever asks."""
    server = launch("--shards", "2")
    with server.line() as line:
        driver = Driver(line, 9)
        for _ in range(150):
            driver.step()
    server.kill()
    server.restart()
    with server.line() as line:
        driver.line = line
        for key in driver.table.keys:
            same(line.ask("PREDICT_QUERY key=" + key), driver.table.query(key, []))
        for _ in range(50):
            driver.step()


def test_names(line):
    """Bytes of any kind as key and value; tables by name; a key is not a prefix of another."""
    assert line.ask("PREDICT_SET key=x00ff value=x0a2c prob=0.5 table=t.1") == b"SUCCESS,table=t.1,prediction_values=1"
    assert line.ask("PREDICT_SET key=x00ffff value=a table=t_1") == b"SUCCESS,table=t_1,prediction_values=1"
    assert line.ask("PREDICT_QUERY key=x00ff table=t_1") == b"SUCCESS,count=1,backend=cpu,table=t_1,items=0a2c:1"
    assert line.ask("PREDICT_QUERY key=x00ff") == b"ERROR,prediction_entry_not_found"
    assert line.ask("PREDICT_QUERY keys=x00ff,nobody table=t_1").endswith(b"items=0a2c:1")
    assert line.ask("PREDICT_QUERY keys=nobody,other") == b"SUCCESS,count=0,backend=cpu,table=,items="
    assert line.ask("predict_backend mode=gpu TABLE=t") == b"SUCCESS,table=t,backend=cpu"
    same(line.ask('PREDICT_QUERY key=x00ff table=t_1 ctx={"rows":[[1]],"weights":[9]}'), {"\n,": 1.0})


def test_bytes_are_no_words(line):
    """What a key or a value means in hexadecimal is never read as another word of its line."""
    inner = {name: "x" + (" %s=" % name).encode().hex() for name in ("ctx", "merge", "lr")}
    other = "x" + b" value=c".hex()
    assert line.ask("PREDICT_SET value=b key=" + other) == b"SUCCESS,table=,prediction_values=1"
    assert line.ask("PREDICT_QUERY key=" + other) == b"SUCCESS,count=1,backend=cpu,table=,items=62:1"
    assert line.ask("PREDICT_SET prob=0.75 key=k value=x" + b" prob=0.5 ".hex()) == b"SUCCESS,table=,prediction_values=1"
    assert line.ask("PREDICT_SET prob=0.75 key=k value=b") == b"SUCCESS,table=,prediction_values=2"
    same(line.ask("PREDICT_QUERY key=k"), {" prob=0.5 ": 0.5, "b": 0.5})
    line.ask("PREDICT_SET key=k value=" + inner["lr"])
    assert line.ask("PREDICT_TRAIN lr=0.5 key=k target=" + inner["lr"]).endswith(b",lr=0.5000")
    assert line.ask("PREDICT_TRAIN key=k target=b negatives=%s,%s" % (inner["ctx"], inner["merge"])) == b"SUCCESS,table=,prediction_values=5,lr=0.0100"
    assert set(items(line.ask("PREDICT_QUERY key=k"))) == {" prob=0.5 ", "b", " lr=", " ctx=", " merge="}


def peak(server):
    with open("/proc/%d/status" % server.process.pid, encoding="ascii") as file:
        return next(int(row.split()[1]) << 10 for row in file if row.startswith("VmHWM"))


def test_a_key_many_times(launch):
    """Values that come again and again are held once; a long query keeps nobody's commands waiting, and ends with its client."""
    server = launch()
    with server.line() as line:
        rows = [{"k": "x" + (b"\x10pt:default\0\0\1k" + b"v%04d" % i).hex(), "v": "x" + (b"\1" + bytes(12)).hex()} for i in range(1000)]
        assert b"failed=0" in line.ask("PAIR_PUT_BATCH items=" + b64(rows))
        once = items(line.ask("PREDICT_QUERY keys=k"))
        assert items(line.ask("PREDICT_QUERY keys=k,k,none,k")) == once
        before = peak(server)
        assert items(line.ask("PREDICT_QUERY keys=" + ",".join("k" for _ in range(4000)))) == once
        assert harness.SANITIZED or peak(server) - before < 16 << 20  # a sanitizer keeps what was freed
        with server.line() as other:
            line.send("PREDICT_QUERY keys=" + ",".join("k" for _ in range(400000)))  # a minute and more of the processor
            assert other.ask("PREDICT_SET key=o value=v").startswith(b"SUCCESS,")
            assert not select.select([line.socket], [], [], 0)[0], "it is still under way"
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # gone, and not at the end of what it sends
    gone = server.cpu()
    assert server.comes_to("cheetah_line_connections_open", 0) and server.cpu() - gone < 20


def test_weights_in_another_order(line):
    """Depths rise, as they are written: else each would be put before all others."""
    def put(depths):
        value = b"\1" + struct.pack(">dI", 1.0, len(depths)) + b"".join(struct.pack(">IId", depth, 0, 0.5) for depth in depths)
        return line.ask("PAIR_PUT_BATCH items=" + b64([{"k": "x" + (b"\x10pt:default\0\0\1kv").hex(), "v": "x" + value.hex()}]))
    assert b"failed=0" in put([1, 2, 7]) and list(items(line.ask("PREDICT_QUERY key=k"))) == ["v"]
    for depths in [7, 2], [2, 2]:
        assert b"failed=0" in put(depths)
        assert line.ask("PREDICT_QUERY key=k") == b"ERROR,malformed_payload"


def test_what_is_refused(line):
    line.ask("PREDICT_SET key=k value=v")
    for text, want in (
        ("PREDICT_SET key=k", b"predict_set_requires_key_and_value"), ("PREDICT_SET value=v", b"predict_set_requires_key_and_value"),
        ("PREDICT_SET key=x1 value=v", b"predict_set_requires_key_and_value"),
        ("PREDICT_SET key=k value=v weights=%%", b"invalid_weights_payload"), ("PREDICT_SET key=k value=v weights=[1]", b"invalid_weights_payload"),
        ('PREDICT_SET key=k value=v weights=[{"depth":-1}]', b"invalid_weights_payload"),
        ('PREDICT_SET key=k value=v weights=[{"depth":0,"vector":["a"]}]', b"invalid_weights_payload"),
        ("PREDICT_SET key=%s value=v" % ("k" * 4096), b"invalid_pair"),
        ("PREDICT_QUERY", b"predict_query_requires_key"), ("PREDICT_QUERY key=k ctx=[1]", b"invalid_ctx"), ("PREDICT_QUERY key=k ctx=7", b"invalid_ctx"),
        ("PREDICT_QUERY key=k ctx=[[1e999]]", b"invalid_ctx"), ("PREDICT_QUERY key=x1", b"invalid_hex"),
        ("PREDICT_TRAIN key=k", b"predict_train_requires_key_and_target"), ("PREDICT_TRAIN key=n target=v", b"prediction_entry_not_found"),
        ("PREDICT_TRAIN key=k target=v negatives=x1", b"invalid_negatives"), ("PREDICT_TRAIN key=k target=v lr=inf", b"invalid_number"),
        ("PREDICT_TRAIN key=k target=v lr=1e308 ctx=[[1e308]]", b"invalid_number"),
        ("PREDICT_CTX ctx=[]", b"predict_ctx_requires_key"), ("PREDICT_CTX key=k", b"predict_ctx_requires_matrix"),
        ("PREDICT_CTX key=n ctx=[]", b"prediction_entry_not_found"), ("PREDICT_CTX key=k ctx=[[1]] strength=nan", b"invalid_number"),
        ("PREDICT_INHERIT key=k target=t", b"predict_inherit_requires_key_target_sources"),
        ("PREDICT_INHERIT key=k target=t sources=x1", b"invalid_sources"), ("PREDICT_INHERIT key=k target=t sources=z", b"inherit_sources_missing"),
        ("PREDICT_INHERIT key=n target=t sources=v", b"prediction_entry_not_found"),
    ):  # fmt: skip
        assert line.ask(text).startswith(b"ERROR," + want), (text, line.ask(text))
    assert line.ask("PREDICT_CTX key=k ctx=[]") == b"SUCCESS,table=,prediction_values=1"  # no rows: nothing is changed
    assert line.ask("PREDICT_QUERY key=k") == b"SUCCESS,count=1,backend=cpu,table=,items=76:1"
    line.ask("PREDICT_SET key=k value=w prob=nonsense")
    assert items(line.ask("PREDICT_QUERY key=k"))["w"] == 0.5  # no number: one half, as v has


def test_a_large_value(line):
    """What DB-SLM trains: matrices of some rows of 384 numbers."""
    rng = random.Random(3)
    matrix = [[rng.uniform(-1, 1) for _ in range(384)] for _ in range(5)]
    table = predictions.Table()
    table.set("meta:token_predictions", "t1", 0.05, {})
    table.set("meta:token_predictions", "t2", 0.05, {})
    for value in ("t1", "t2"):
        line.ask("PREDICT_SET key=meta:token_predictions prob=0.05 value=" + value)
    for _ in range(3):
        table.train("meta:token_predictions", "t1", matrix, 0.05, ["t2"])
        assert line.ask("PREDICT_TRAIN key=meta:token_predictions target=t1 negatives=t2 lr=0.05 ctx=" + b64(matrix)).startswith(b"SUCCESS,")
    same(line.ask("PREDICT_QUERY key=meta:token_predictions ctx=" + b64(matrix)), table.query("meta:token_predictions", matrix))


def test_a_key_keeps_its_newest_values(line):
    """Beyond 65 536 values the oldest go, and setting one never fails; other keys are not touched."""
    head = b"\x10pt:t\0\0\1k"
    payload = "x" + (b"\1" + bytes(8) + bytes(4)).hex()
    line.ask("PREDICT_SET key=kk value=other table=t")
    for at in range(0, 66048, 8256):
        rows = [{"k": "x" + (head + b"v%05d" % i).hex(), "v": payload} for i in range(at, at + 8256)]
        assert b"failed=0" in line.ask("PAIR_PUT_BATCH items=" + b64(rows))
    assert line.ask("PREDICT_SET key=k value=new table=t") == b"SUCCESS,table=t,prediction_values=65537"
    left = items(line.ask("PREDICT_QUERY key=k table=t"))
    assert len(left) == 65537 and "new" in left and "v00512" in left and "v66047" in left and "v00511" not in left
    assert line.ask("PREDICT_QUERY key=kk table=t").startswith(b"SUCCESS,count=1,")


def test_room_whatever_the_steps(line):
    """Two new values at a time pass by each multiple of 256: the oldest go all the same."""
    head = b"\x10pt:t\0\0\1k"
    payload = "x" + (b"\1" + bytes(12)).hex()
    for at in range(0, 66045, 8256):
        rows = [{"k": "x" + (head + b"v%05d" % i).hex(), "v": payload} for i in range(at, min(at + 8256, 66045))]
        assert b"failed=0" in line.ask("PAIR_PUT_BATCH items=" + b64(rows))
    counts = []
    for i in range(4):
        answer = line.ask("PREDICT_TRAIN key=k table=t target=new%d negatives=other%d" % (i, i))
        counts.append(int(answer.split(b"prediction_values=")[1].split(b",")[0]))
    assert counts == [66047, 65538, 65540, 65542]


def test_lines_that_cost_much(server, line):
    """A line costs what it has, not the product of its rows and their length, nor of its negatives and theirs."""
    line.ask("PREDICT_SET key=k value=v")
    ctx = " ctx=[" + "[1]," * 100000 + "[" + "1," * 100000 + "1]]"
    before = server.cpu()
    assert line.ask("PREDICT_QUERY key=k" + ctx) == b"SUCCESS,count=1,backend=cpu,table=,items=76:1"
    assert line.ask("PREDICT_TRAIN key=k target=v" + ctx).startswith(b"SUCCESS,table=,prediction_values=1,")
    assert server.cpu() - before < 20
    many = ",".join("n%d" % i for i in range(10000))
    assert line.ask("PREDICT_TRAIN key=k target=v negatives=a," + many) == b"ERROR,invalid_negatives (max 10000)"
    assert line.ask("PREDICT_TRAIN key=k target=v negatives=" + ",".join("n%d" % i for i in range(1000)) + ctx) == b"ERROR,value_too_large"
    assert line.ask("PREDICT_QUERY key=k") == b"SUCCESS,count=1,backend=cpu,table=,items=76:1"  # nothing was written


def test_the_rights(launch, tmp_path):
    path = tmp_path / "tokens"
    path.write_text("read-secret-of-sixteen-bytes read *\nwrite-secret-of-sixteen-bytes write *\n")
    server = launch("--tokens", str(path), ready=False)
    changing = ("PREDICT_SET key=k value=v", "PREDICT_TRAIN key=k target=v", "PREDICT_CTX key=k ctx=[]", "PREDICT_INHERIT key=k target=t sources=v")
    with server.line() as writer, server.line() as reader:
        writer.ask("AUTH write-secret-of-sixteen-bytes")
        reader.ask("AUTH read-secret-of-sixteen-bytes")
        for text in changing:
            assert writer.ask(text).startswith(b"SUCCESS,") and reader.ask(text) == b"ERROR,forbidden", text
        for text in ("PREDICT_QUERY key=k", "PREDICT_BACKEND"):
            assert reader.ask(text).startswith(b"SUCCESS,"), text
