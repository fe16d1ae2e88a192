"""Commands of today's client of DB-SLM: what it sends, and what it looks for in the answers."""
import base64
import json
import os
import threading

import pytest
from harness.line import fields


def b64(value):
    return base64.b64encode(json.dumps(value).encode()).decode()


def unpacked(answer):
    return json.loads(base64.b64decode(fields(answer)["payload"]))


def test_pages_without_items_and_named_words(line):
    line.many(["INSERT v", "PAIR_SET h:1 1", "PAIR_SET n:1 1", "PAIR_SET n:2 1", "PAIR_SET n:3 1"])
    for text, want in (
        ("PAIR_SCAN nothing", b"SUCCESS,count=0"),
        ("PAIR_REDUCE counts nothing", b"SUCCESS,reducer=counts,count=0"),
        ("PAIR_SCAN h: include_hidden=1", b"SUCCESS,count=1,items=683a31:1"),
        ("PAIR_SCAN n: 10 * include_hidden=0", b"SUCCESS,count=3,items=6e3a31:1;6e3a32:1;6e3a33:1"),
        ("PAIR_SCAN n: show_hidden=yes limit=1", b"SUCCESS,count=1,next_cursor=x6e3a31,items=6e3a31:1"),
        ("PAIR_SCAN n: LIMIT=1 Cursor=x6e3a31", b"SUCCESS,count=1,next_cursor=x6e3a32,items=6e3a32:1"),
        ("PAIR_SCAN n: 1 cursor=n:2 hidden=0", b"SUCCESS,count=1,items=6e3a33:1"),
        ("PAIR_REDUCE payloads n: 1 include_hidden=1", b"SUCCESS,reducer=payloads,count=1,next_cursor=x6e3a31,items=6e3a31:1:dg=="),
        ("PAIR_SCAN n: abc", b"ERROR,invalid_limit"), ("PAIR_SCAN n: limit=abc", b"ERROR,invalid_limit"),
        ("PAIR_SCAN n: 1 * 5", b"ERROR,too_many_arguments"), ("PAIR_SCAN n: other=1", b"ERROR,too_many_arguments"),
        ("PAIR_SCAN n: 1 cursor=x6", b"ERROR,invalid_hex"),
    ):  # fmt: skip
        assert line.ask(text) == want, text


def test_put_batch(line):
    answer = line.ask("PAIR_PUT_BATCH items=%s keys=1" % b64([{"k": "a:1", "v": "one"}, {"k": "x613a32", "v": "x00ff0a"}]))
    assert answer.startswith(b"SUCCESS,command=PAIR_PUT_BATCH,requested=2,applied=2,failed=0,payload=")
    keys = unpacked(answer)
    assert line.ask("PAIR_GET a:1") == b"SUCCESS,key=%d" % keys[0] and line.ask("READ %d" % keys[0]) == b"SUCCESS,size=3,value=one"
    assert line.ask("PAIR_REDUCE payloads a:2") == b"SUCCESS,reducer=payloads,count=1,items=613a32:%d:AP8K" % keys[1]
    # an upsert: a mapped name keeps its key; JSON itself, and base64 without padding
    assert unpacked(line.ask('pair_put_batch KEYS=yes json=[{"k":"a:1","v":"two"}]')) == [keys[0]]
    assert line.ask("READ %d" % keys[0]) == b"SUCCESS,size=3,value=two"
    assert b"applied=1" in line.ask("PAIR_PUT_BATCH items=" + b64([{"k": "c", "v": "1"}]).rstrip("="))
    items = [{"k": "b:1", "v": "1"}, {"k": "", "v": "1"}, {"k": "b:3", "v": "1"}]
    answer = line.ask("PAIR_PUT_BATCH keys=1 items=" + b64(items))
    assert answer.startswith(b"SUCCESS,command=PAIR_PUT_BATCH,requested=3,applied=1,failed=1,first_error=item_1:_pair_value_cannot_be_empty,")
    assert [key is None for key in unpacked(answer)] == [False, True] and line.ask("PAIR_GET b:3") == b"ERROR,not_found"
    for bad, why in (({"k": "x1", "v": "1"}, b"invalid_key"), ({"k": 5, "v": "1"}, b"invalid_key"), ({"k": "k" * 4097, "v": "1"}, b"invalid_key"),
                     ({"k": "a", "v": "x0"}, b"invalid_value"), ({"k": "a"}, b"invalid_value"), ({"k": "a", "v": ""}, b"invalid_value_size"),
                     (7, b"invalid_key")):  # fmt: skip
        answer = line.ask("PAIR_PUT_BATCH continue_on_error=on keys=1 items=" + b64([bad, {"k": "z", "v": "1"}]))
        assert b"requested=2,applied=1,failed=1,first_error=item_0:_" + why + b"," in answer and unpacked(answer)[0] is None, bad
    for text, want in (("", b"pair_put_batch_requires_items"), ("items=" + b64([]), b"pair_put_batch_requires_nonempty_items"),
                       ("items=%%%", b"invalid_items"), ("items=" + b64({"k": 1}), b"invalid_items"), ("items=[{]", b"invalid_items"),
                       ("items=" + b64([{"k": "a", "v": "b"}] * 10001), b"pair_put_batch_too_many_items (max 10000, got 10001)"),
                       ("items=", b"pair_put_batch_requires_items")):  # fmt: skip
        assert line.ask("PAIR_PUT_BATCH " + text).startswith(b"ERROR," + want), text


def test_a_large_batch(line):
    """What DB-SLM sends: base64 texts, 256 rows and more; longer than any other line but a value's."""
    rows = [{"k": "x" + (b"row:%05d" % i).hex(), "v": base64.b64encode(b"%d" % i * 90).decode()} for i in range(5000)]
    answer = line.ask("PAIR_PUT_BATCH keys=1 items=" + b64(rows))
    assert b"requested=5000,applied=5000,failed=0" in answer and len(set(unpacked(answer))) == 5000
    assert line.ask("PAIR_SCAN row: -1").startswith(b"SUCCESS,count=5000,")


def test_purge(line):
    with_values = [{"k": "p:%04d" % i, "v": "value"} for i in range(9000)]
    for at in range(0, 9000, 3000):
        line.ask("PAIR_PUT_BATCH items=" + b64(with_values[at : at + 3000]))
    line.ask("PAIR_SET p:other 77")
    line.ask("PAIR_SET q:kept 1")
    assert line.ask("PAIR_PURGE p: 3") == b"SUCCESS,purged=9001"
    assert line.ask("PAIR_SCAN *") == b"SUCCESS,count=1,items=713a6b657074:1" and line.ask("READ 5") == b"ERROR,key_not_found"
    assert line.ask("PAIR_PURGE p:") == b"SUCCESS,purged=0"
    assert line.ask("PAIR_PURGE") == b"ERROR,pair_purge_requires_prefix" and line.ask("PAIR_PURGE p x") == b"ERROR,invalid_limit"
    assert line.ask("PAIR_PURGE *") == b"SUCCESS,purged=1"


def test_reset(launch):
    """Others who use the database go on; the new one begins anew."""
    server = launch()
    with server.line() as one, server.line() as two:
        one.ask("DATABASE work")
        two.ask("DATABASE work")
        one.many(["INSERT a", "PAIR_SET n 1"])
        stop, odd = threading.Event(), []

        def busy():
            while not stop.is_set():
                for answer in two.many(["INSERT x", "PAIR_SCAN *", "READ 1"]):
                    if not answer.startswith((b"SUCCESS", b"ERROR,key_not_found", b"ERROR,database_dropped", b"ERROR,database_busy",
                                              b"ERROR,database_not_found")):  # fmt: skip
                        odd.append(answer)

        thread = threading.Thread(target=busy)
        thread.start()
        for _ in range(5):
            assert one.ask("RESET_DB") == b"SUCCESS,database_reset_to_work"
        stop.set()
        thread.join()
        assert odd == []
        assert one.ask("RESET_DB work") == b"SUCCESS,database_reset_to_work"
        assert one.ask("PAIR_SCAN *") == b"SUCCESS,count=0" and one.ask("INSERT b") == b"SUCCESS,key=1"
        assert one.ask("RESET_DB fresh") == b"SUCCESS,database_reset_to_fresh" and one.ask("INSERT c") == b"SUCCESS,key=1"
        assert one.ask("DATABASE work") and one.ask("READ 1") == b"SUCCESS,size=1,value=b"
        assert one.ask("RESET_DB a.b") == b"ERROR,invalid_database_name"


def test_rights(launch, tmp_path):
    """write for batches and purges, admin for RESET_DB; nothing is changed by who may not."""
    path = tmp_path / "tokens"
    path.write_text("".join("%s-secret-of-sixteen-bytes %s *\n" % (right, right) for right in ("read", "write", "admin")))
    server = launch("--tokens", str(path), ready=False)
    batch = "PAIR_PUT_BATCH items=" + b64([{"k": "a", "v": "b"}])
    allowed = {"read": [], "write": [batch, "PAIR_PURGE a"], "admin": [batch, "PAIR_PURGE a", "RESET_DB"]}
    for right, texts in allowed.items():
        with server.line() as line:
            for text in (batch, "PAIR_PURGE a", "RESET_DB"):
                assert line.ask(text) == b"ERROR,unauthorized"
            assert line.ask("AUTH %s-secret-of-sixteen-bytes" % right) == b"SUCCESS,authenticated"
            for text in (batch, "PAIR_PURGE a", "RESET_DB"):
                assert line.ask(text).startswith(b"SUCCESS," if text in texts else b"ERROR,forbidden"), (right, text)


@pytest.mark.parametrize("first", [b"\xc7\x01\0\0\0\5\1uint", b"\x80", b"\xff\n"])
def test_a_binary_handshake(server, first):
    """Answered at once, without a newline to wait for; the connection ends."""
    raw = server.line()
    raw.send(first)
    assert raw.answer() == b"ERROR,binary_protocol_unsupported"
    assert raw.closed()


def test_a_purge_ends_at_damage(launch):
    """Pairs whose values cannot be deleted are met again and again: the purge says so when nothing else is left."""
    server = launch("--shards", "1")
    with server.line() as line:
        rows = json.dumps([{"k": "p%05d" % i, "v": "v"} for i in range(3000)], separators=(",", ":"))
        assert b"applied=3000" in line.ask("PAIR_PUT_BATCH items=" + rows)
    server.stop()
    with open(os.path.join(server.data, "default", "shard-000", "keys"), "r+b") as file:
        for at in range(8192, os.fstat(file.fileno()).st_size, 4096):
            file.seek(at + 100)
            file.write(b"\xee" * 64)
    server.restart()
    with server.line(timeout=120) as line:
        assert line.ask("PAIR_PURGE p") == b"ERROR,corrupt_value"
        assert line.ask("PAIR_SCAN p 1").startswith(b"SUCCESS,count=1,")
