"""Pairs that plain scans leave out: PAIR_SET_HIDDEN, PAIR_PUT_BATCH hidden=1; what takes the mark away; that it lasts."""
import base64
import json
import random

from harness.line import fields


def b64(value):
    return base64.b64encode(json.dumps(value).encode()).decode()


def shown(line, prefix="*", flag=""):
    answer = line.ask("PAIR_SCAN %s -1%s" % (prefix, flag))
    assert answer.startswith(b"SUCCESS,count="), answer
    listed = answer.decode().partition(",items=")[2]
    names = [bytes.fromhex(item.split(":")[0]).decode() for item in listed.split(";") if item]
    assert answer.startswith(b"SUCCESS,count=%d" % len(names))
    return names


def test_hidden_pairs(line):
    line.many(["INSERT one", "INSERT two", "PAIR_SET n:1 1", "PAIR_SET n:2 1"])
    assert line.ask("PAIR_SET_HIDDEN n:1 1") == b"SUCCESS,pair_set_hidden"
    assert line.ask("PAIR_SET_HIDDEN h:1 2") == b"SUCCESS,pair_set_hidden"
    assert shown(line) == ["n:2"] and shown(line, "*", " include_hidden=1") == ["h:1", "n:1", "n:2"]
    assert line.ask("PAIR_GET h:1") == b"SUCCESS,key=2" and line.ask("READ 2") == b"SUCCESS,size=3,value=two"
    assert line.ask("PAIR_REDUCE payloads n:").endswith(b"count=1,items=6e3a32:1:b25l")
    assert fields(line.ask("PAIR_SUMMARY n:"))["count"] == "1" and fields(line.ask("PAIR_SUMMARY n: show_hidden=yes"))["count"] == "2"
    # a page counts and goes on by what is shown
    assert line.ask("PAIR_SCAN * 1") == b"SUCCESS,count=1,items=6e3a32:1"
    assert line.ask("PAIR_SCAN * 1 hidden=1") == b"SUCCESS,count=1,next_cursor=x683a31,items=683a31:2"
    # set again, it is plain; also in one burst, and after it was deleted
    assert line.many(["PAIR_SET n:1 1", "PAIR_SCAN n:1", "PAIR_DEL h:1", "PAIR_SET h:1 2", "PAIR_SCAN h:"])[1::3] == [b"SUCCESS,count=1,items=6e3a31:1", b"SUCCESS,count=1,items=683a31:2"]
    for text, want in (("PAIR_SET_HIDDEN n:2", b"ERROR,pair_set_requires_value_and_key"), ("PAIR_SET_HIDDEN n:2 abc", b"ERROR,invalid_absolute_key_format"),
                       ("PAIR_SET_HIDDEN n:2 0", b"ERROR,invalid_absolute_key_format"), ("PAIR_SET_HIDDEN * 1", b"ERROR,pair_value_cannot_be_empty"),
                       ("PAIR_SET_HIDDEN", b"ERROR,pair_set_requires_value_and_key"), ("PAIR_SET_HIDDEN %s 1" % ("n" * 4092), b"ERROR,invalid_pair"),
                       ("PAIR_SET_HIDDEN a 1 2", b"ERROR,too_many_arguments")):  # fmt: skip
        assert line.ask(text) == want, text
    assert line.ask("PAIR_SET_HIDDEN %s 1" % ("n" * 4091)) == b"SUCCESS,pair_set_hidden"
    assert line.ask("PAIR_GET " + "n" * 4091) == b"SUCCESS,key=1" and line.ask("PAIR_SET %s 1" % ("n" * 4096)) == b"SUCCESS,pair_set"


def test_batches(line):
    assert b"applied=2" in line.ask("PAIR_PUT_BATCH hidden=1 items=" + b64([{"k": "b:1", "v": "x"}, {"k": "b:2", "v": "y"}]))
    assert shown(line) == [] and shown(line, "b:", " include_hidden=1") == ["b:1", "b:2"]
    assert b"applied=1" in line.ask("PAIR_PUT_BATCH items=" + b64([{"k": "b:2", "v": "z"}]))
    assert shown(line) == ["b:2"]
    answer = line.ask("PAIR_PUT_BATCH hidden=1 continue_on_error=1 keys=1 items=" + b64([{"k": "k" * 4092, "v": "x"}, {"k": "b:3", "v": "x"}]))
    assert b"applied=1,failed=1,first_error=item_0:_invalid_key," in answer
    keys = json.loads(base64.b64decode(fields(answer)["payload"]))
    assert keys[0] is None and line.ask("READ %d" % keys[1]) == b"SUCCESS,size=1,value=x"
    assert line.ask("DEL pairs prefix=b:") == b"SUCCESS,deleted=3" and line.ask("PAIR_SCAN * include_hidden=1") == b"SUCCESS,count=0"
    line.ask("PAIR_SET b:1 1")  # no mark is left over
    assert shown(line) == ["b:1"]


def test_against_a_model(line):
    """Random commands; pages of every size."""
    rng, pairs, hidden = random.Random(4), {}, set()
    for _ in range(30):
        line.ask("INSERT v")
    for step in range(1500):
        name, key = "n%02d" % rng.randrange(60), rng.randint(1, 30)
        what = rng.choice(["set", "set", "hide", "hide", "del", "page", "purge"] if step % 50 == 0 else ["set", "hide", "hide", "del", "page"])
        if what == "set":
            line.ask("PAIR_SET %s %d" % (name, key))
            pairs[name] = key
            hidden.discard(name)
        elif what == "hide":
            assert line.ask("PAIR_SET_HIDDEN %s %d" % (name, key)) == b"SUCCESS,pair_set_hidden"
            pairs[name] = key
            hidden.add(name)
        elif what == "del":
            command = rng.choice(["PAIR_DEL ", "DEL pairs key="])
            assert line.ask(command + name).startswith(b"SUCCESS" if name in pairs else b"ERROR,not_found")
            pairs.pop(name, None)
            hidden.discard(name)
        elif what == "purge":
            digit = name[:2]
            gone = [n for n in pairs if n.startswith(digit)]
            assert line.ask("DEL pairs payloads=0 prefix=" + digit) == b"SUCCESS,deleted=%d" % len(gone)
            for n in gone:
                del pairs[n]
                hidden.discard(n)
        else:
            plain, limit, cursor, found = sorted(n for n in pairs if n not in hidden), rng.randint(1, 9), "", []
            while True:
                answer = line.ask("PAIR_SCAN n %d%s" % (limit, cursor)).decode()
                found += [bytes.fromhex(item.split(":")[0]).decode() for item in answer.partition(",items=")[2].split(";") if item]
                if ",next_cursor=" not in answer:
                    break
                cursor = " " + answer.split(",next_cursor=")[1].split(",")[0]
            assert found == plain, step
            assert shown(line, "n", " include_hidden=1") == sorted(pairs)


def test_they_last(launch):
    """Hidden after a kill; HTTP sees the pair, and a key that HTTP gives it takes it out of hiding."""
    server = launch("--shards", "2")
    with server.line() as line:
        line.many(["INSERT v", "INSERT w"])
        assert line.ask("PAIR_SET_HIDDEN h:1 1") == line.ask("PAIR_SET_HIDDEN h:2 1") == b"SUCCESS,pair_set_hidden"
    server.kill()
    server.restart()
    with server.line() as line:
        assert shown(line) == [] and len(shown(line, "*", " include_hidden=1")) == 2
        assert line.ask("PAIR_SET h:2 1") == b"SUCCESS,pair_set" and shown(line) == ["h:2"]
