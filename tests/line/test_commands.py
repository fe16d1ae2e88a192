"""Every command, answer and error of the line protocol, to the letter; the lines that existing clients send."""
import base64

import pytest


def test_the_contract(line):
    for sent, expected in [
        ("INSERT hello", b"SUCCESS,key=1"),
        ("INSERT:5 hello", b"SUCCESS,key=2"),
        ("READ 1", b"SUCCESS,size=5,value=hello"),
        ("EDIT 1 a longer value", b"SUCCESS,key=1_updated"),
        ("READ 1", b"SUCCESS,size=14,value=a longer value"),
        ("PAIR_SET x6374783a 4", b"SUCCESS,pair_set"),
        ("PAIR_GET x6374783a", b"SUCCESS,key=4"),
        ("PAIR_GET ctx:", b"SUCCESS,key=4"),
        ("PAIR_SCAN *", b"SUCCESS,count=1,items=6374783a:4"),
        ("PAIR_REDUCE payloads *", b"SUCCESS,reducer=payloads,count=1,items=6374783a:4:"),
        ("PAIR_SET x6374783a 2", b"SUCCESS,pair_set"),
        ("PAIR_REDUCE counts ctx", b"SUCCESS,reducer=counts,count=1,items=6374783a:2:aGVsbG8="),
        ("PAIR_DEL x6374783a", b"SUCCESS,pair_deleted"),
        ("PAIR_SCAN *", b"SUCCESS,count=0"),
        ("DELETE 1", b"SUCCESS,key=1_deleted"),
        ("READ 1", b"ERROR,key_not_found"),
    ]:
        assert line.ask(sent) == expected, sent


@pytest.mark.parametrize("sent,expected", [
    ("READ 999", b"ERROR,key_not_found"),
    ("EDIT 999 x", b"ERROR,key_not_found"),
    ("DELETE 999", b"ERROR,key_not_found"),
    ("PAIR_GET nobody", b"ERROR,not_found"),
    ("PAIR_DEL nobody", b"ERROR,not_found"),
    ("INSERT:5 four", b"ERROR,value_size_mismatch (expected 5, got 4)"),
    ("INSERT:5 sixsix", b"ERROR,value_size_mismatch (expected 5, got 6)"),
    ("INSERT:5", b"ERROR,value_size_mismatch (expected 5, got 0)"),
    ("INSERT:0 ", b"ERROR,empty_value"),
    ("INSERT:x value", b"ERROR,invalid_size"),
    ("INSERT: value", b"ERROR,invalid_size"),
    ("INSERT:-1 value", b"ERROR,invalid_size"),
    ("INSERT", b"ERROR,empty_value"),
    ("INSERT ", b"ERROR,empty_value"),
    ("EDIT 1", b"ERROR,empty_value"),
    ("EDIT one two", b"ERROR,invalid_key_format"),
    ("READ", b"ERROR,invalid_key_format"),
    ("READ 0", b"ERROR,invalid_key_format"),
    ("READ -1", b"ERROR,invalid_key_format"),
    ("READ 1x", b"ERROR,invalid_key_format"),
    ("READ 281474976710656", b"ERROR,invalid_key_format"),
    ("READ 281474976710655", b"ERROR,key_not_found"),
    ("READ 99999999999999999999999", b"ERROR,invalid_key_format"),
    ("READ 1 2", b"ERROR,too_many_arguments"),
    ("DELETE x", b"ERROR,invalid_key_format"),
    ("PAIR_SET", b"ERROR,pair_value_cannot_be_empty"),
    ("PAIR_SET * 1", b"ERROR,pair_value_cannot_be_empty"),
    ("PAIR_GET", b"ERROR,pair_value_cannot_be_empty"),
    ("PAIR_GET *", b"ERROR,pair_value_cannot_be_empty"),
    ("PAIR_DEL *", b"ERROR,pair_value_cannot_be_empty"),
    ("PAIR_SET name", b"ERROR,invalid_key_format"),
    ("PAIR_SET name x", b"ERROR,invalid_key_format"),
    ("PAIR_SET name 1 2", b"ERROR,too_many_arguments"),
    ("PAIR_SET x636 1", b"ERROR,invalid_hex"),
    ("PAIR_GET xyz", b"ERROR,invalid_hex"),
    ("PAIR_GET x63zz", b"ERROR,invalid_hex"),
    ("PAIR_GET x" + "61" * 4097, b"ERROR,invalid_pair"),
    ("PAIR_GET " + "a" * 4097, b"ERROR,invalid_pair"),
    ("PAIR_GET x" + "61" * 4096, b"ERROR,not_found"),
    ("PAIR_SCAN", b"ERROR,missing_prefix"),
    ("PAIR_SCAN * x", b"ERROR,invalid_limit"),
    ("PAIR_SCAN * 1.5", b"ERROR,invalid_limit"),
    ("PAIR_SCAN * -", b"ERROR,invalid_limit"),
    ("PAIR_SCAN * 10 x6", b"ERROR,invalid_hex"),
    ("PAIR_SCAN * 10 x61 more", b"ERROR,too_many_arguments"),
    ("PAIR_REDUCE", b"ERROR,unknown_reducer_mode"),
    ("PAIR_REDUCE nonsense *", b"ERROR,unknown_reducer_mode"),
    ("PAIR_REDUCE totals *", b"ERROR,unknown_reducer_mode"),
    ("PAIR_REDUCE counts", b"ERROR,missing_prefix"),
    ("PAIR_REDUCE counts * many", b"ERROR,invalid_limit"),
    ("DATABASE", b"ERROR,invalid_database_name"),
    ("DATABASE ../etc", b"ERROR,invalid_database_name"),
    ("DATABASE " + "a" * 65, b"ERROR,invalid_database_name"),
    ("DATABASE a b", b'ERROR,invalid override token "b"'),  # what follows a name are settings
    ("", b"ERROR,unknown_command"),
    (" ", b"ERROR,unknown_command"),
    ("NONSENSE", b"ERROR,unknown_command"),
    ("READ:5 1", b"ERROR,unknown_command"),
    ("INSERTx y", b"ERROR,unknown_command"),
    ("PAIR_GET " + "a" * 30000, b"ERROR,line_too_long"),
])
def test_errors(line, sent, expected):
    assert line.ask(sent) == expected
    assert line.ask("INSERT still works") == b"SUCCESS,key=1"


def test_words_in_any_case_and_many_blanks(line):
    assert line.ask("insert:3 abc") == b"SUCCESS,key=1"
    assert line.ask("  Read   1  ") == b"SUCCESS,size=3,value=abc"
    assert line.ask("pair_set  name   1 ") == b"SUCCESS,pair_set"
    assert line.ask("Pair_Scan   *   10  ") == b"SUCCESS,count=1,items=6e616d65:1"


def test_values_are_any_bytes(line):
    every = bytes(byte for byte in range(256) if byte != 10)
    for value in (every, b"\0", b" ", b"  two  blanks  ", b"a\rb", b"\xff" * 100, b"READ 1"):
        for sent in (b"INSERT " + value, b"INSERT:%d " % len(value) + value):
            answer = line.ask(sent)
            assert answer.startswith(b"SUCCESS,key="), answer
            key = answer[len(b"SUCCESS,key="):]
            assert line.ask(b"READ " + key) == b"SUCCESS,size=%d,value=%s" % (len(value), value)
            assert line.ask(b"EDIT " + key + b" " + value + b"!") == b"SUCCESS,key=" + key + b"_updated"
            assert line.ask(b"READ " + key) == b"SUCCESS,size=%d,value=%s!" % (len(value) + 1, value)


def test_carriage_return(line):
    """One \\r before the newline is not part of a line, but where a size says so."""
    assert line.ask(b"INSERT abc\r") == b"SUCCESS,key=1"
    assert line.ask(b"READ 1\r") == b"SUCCESS,size=3,value=abc"
    assert line.ask(b"INSERT:3 abc\r") == b"SUCCESS,key=2"
    assert line.ask(b"READ 2") == b"SUCCESS,size=3,value=abc"
    assert line.ask(b"INSERT:4 abc\r") == b"SUCCESS,key=3"
    assert line.ask(b"READ 3") == b"SUCCESS,size=4,value=abc\r"
    assert line.ask(b"INSERT abc\r\r") == b"SUCCESS,key=4"
    assert line.ask(b"READ 4") == b"SUCCESS,size=4,value=abc\r"
    assert line.ask(b"EDIT:2 4 a\r") == b"SUCCESS,key=4_updated"
    assert line.ask(b"READ 4") == b"SUCCESS,size=2,value=a\r"
    assert line.ask(b"PAIR_SET name 4\r") == b"SUCCESS,pair_set"
    assert line.ask(b"PAIR_GET name\r") == b"SUCCESS,key=4"


def test_byte_strings(line):
    for text, hexadecimal in [("x", "78"), ("ctx:", "6374783a"), ("a*", "612a"), ("%41", "253431"), ("a/b", "612f62"), ("X61", "583631")]:
        assert line.ask("PAIR_SET %s 7" % text) == b"SUCCESS,pair_set"
        assert line.ask("PAIR_GET x" + hexadecimal) == b"SUCCESS,key=7", text
        assert line.ask("PAIR_DEL x" + hexadecimal.upper()) == b"SUCCESS,pair_deleted"
    assert line.ask("PAIR_SET x00ff0a20 9") == b"SUCCESS,pair_set"
    assert line.ask("PAIR_SCAN x00") == b"SUCCESS,count=1,items=00ff0a20:9"


def test_pages(line):
    for key in range(1, 11):
        line.ask("PAIR_SET p%02d %d" % (key, key))
    assert line.ask("PAIR_SCAN p 3") == b"SUCCESS,count=3,next_cursor=x703033,items=703031:1;703032:2;703033:3"
    assert line.ask("PAIR_SCAN p 3 x703033") == b"SUCCESS,count=3,next_cursor=x703036,items=703034:4;703035:5;703036:6"
    assert line.ask("PAIR_SCAN p 4 p06") == b"SUCCESS,count=4,items=703037:7;703038:8;703039:9;703130:10"
    assert line.ask("PAIR_SCAN p 5 x703036") == b"SUCCESS,count=4,items=703037:7;703038:8;703039:9;703130:10"
    assert line.ask("PAIR_SCAN p 2 p10") == b"SUCCESS,count=0"
    assert line.ask("PAIR_SCAN p 2 *") == b"SUCCESS,count=2,next_cursor=x703032,items=703031:1;703032:2"
    assert line.ask("PAIR_REDUCE counts p 1 p09") == b"SUCCESS,reducer=counts,count=1,items=703130:10:"


def fields(answer):
    """An answer's head as a dictionary, and its items."""
    head, _, items = answer.partition(b",items=")
    words = dict(word.split(b"=", 1) for word in head.split(b",")[1:])
    return words, items.split(b";") if items else []


def test_limits(line):
    answers = line.many(["PAIR_SET n%05d %d" % (n, n) for n in range(1, 5001)])
    assert answers == [b"SUCCESS,pair_set"] * 5000
    names = [b"%s:%d" % ((b"n%05d" % n).hex().encode(), n) for n in range(1, 5001)]
    for limit, count in [("", 256), (" 0", 256), (" -0", 256), (" 10", 10), (" 4096", 4096), (" 4097", 4096), (" 1000000", 4096),
                         (" 99999999999999999999999999", 4096), (" -1", 5000), (" -4", 5000)]:
        words, items = fields(line.ask("PAIR_SCAN n" + limit))
        assert int(words[b"count"]) == count and items == names[:count], limit
        assert (b"next_cursor" in words) == (count < 5000), limit
        if count < 5000:
            assert words[b"next_cursor"] == b"x" + names[count - 1].split(b":")[0]
    seen, after = [], ""
    while True:
        words, items = fields(line.ask("PAIR_SCAN * 999" + after))
        seen += items
        if b"next_cursor" not in words:
            break
        after = " " + words[b"next_cursor"].decode()
    assert seen == names


def test_existing_clients(line):
    """The exact lines that DB-SLM sends: base64 payloads with their size, hexadecimal names, paging with cursors."""
    payloads = {b"cnt:3:" + n.to_bytes(8, "big"): base64.b64encode(b"\1\3" + n.to_bytes(6, "big")) for n in range(2500)}
    for n, (name, payload) in enumerate(list(payloads.items())[:20]):
        assert line.ask(b"INSERT:%d %s" % (len(payload), payload)) == b"SUCCESS,key=%d" % (n + 1)
        assert line.ask("PAIR_SET x%s %d" % (name.hex(), n + 1)) == b"SUCCESS,pair_set"
    more = list(payloads.items())[20:]
    keys = line.many([b"INSERT:%d %s" % (len(payload), payload) for _, payload in more])
    line.many(["PAIR_SET x%s %s" % (name.hex(), key.decode().partition("=")[2]) for (name, _), key in zip(more, keys)])
    prefix, cursor, got = b"cnt:3:".hex(), "", {}
    while True:
        words, items = fields(line.ask("PAIR_REDUCE counts x%s 1024%s" % (prefix, cursor)))
        assert words[b"reducer"] == b"counts" and int(words[b"count"]) == len(items)
        for item in items:
            name, _, payload = item.split(b":")
            got[bytes.fromhex(name.decode())] = base64.b64decode(payload)
        if b"next_cursor" not in words:
            break
        cursor = " " + words[b"next_cursor"].decode()
    assert got == payloads
    cursor, names = "", []
    while True:
        words, items = fields(line.ask("PAIR_SCAN x%s %d%s" % (prefix, 100, cursor)))
        names += [bytes.fromhex(item.split(b":")[0].decode()) for item in items]
        if b"next_cursor" not in words:
            break
        cursor = " " + words[b"next_cursor"].decode()
    assert names == sorted(payloads)


@pytest.mark.parametrize("mode", ["counts", "count", "probabilities", "probs", "backoffs", "continuations", "continuation", "topk",
                                  "contexts", "cache", "bias", "meta", "payloads", "queue-drain"])
def test_reducer_modes(line, mode):
    line.many(["INSERT payload", "PAIR_SET q 1"])
    expected = b"SUCCESS,reducer=%s,count=1,items=71:1:cGF5bG9hZA==" % mode.encode()
    assert line.ask("PAIR_REDUCE %s *" % mode) == expected
    assert line.ask("PAIR_REDUCE %s *" % mode) == expected, "looking takes nothing away"


def test_same_data_as_http(server, line):
    name = "shared"
    assert line.ask("DATABASE " + name) == b"SUCCESS,database_changed_to_shared"
    http = server.client(db=name)
    assert line.ask("INSERT from the line") == b"SUCCESS,key=1"
    assert http.read(1) == b"from the line"
    key = http.upsert(b"pair", b"from HTTP")
    assert line.ask("PAIR_GET pair") == b"SUCCESS,key=%d" % key
    assert line.ask("READ %d" % key) == b"SUCCESS,size=9,value=from HTTP"


def test_a_value_with_a_newline(server, line):
    """It cannot be one line: READ says so, PAIR_REDUCE shows it."""
    line.ask("DATABASE newline")
    http = server.client(db="newline")
    key = http.upsert(b"pair", b"two\nlines")
    assert line.ask("READ %d" % key).startswith(b"ERROR,value_contains_newline")
    assert line.ask("INSERT x\nREAD %d" % key).startswith(b"SUCCESS,key=")
    assert line.answer().startswith(b"ERROR,value_contains_newline")
    assert line.ask("PAIR_REDUCE payloads pair") == b"SUCCESS,reducer=payloads,count=1,items=70616972:%d:%s" % (
        key, base64.b64encode(b"two\nlines"))


def test_databases(server, line):
    assert line.ask("DATABASE one") == b"SUCCESS,database_changed_to_one"
    line.ask("INSERT in one")
    assert line.ask("DATABASE two") == b"SUCCESS,database_changed_to_two"
    assert line.ask("READ 1") == b"ERROR,key_not_found"
    assert line.ask("DATABASE bad/name") == b"ERROR,invalid_database_name"
    assert line.ask("INSERT in two") == b"SUCCESS,key=1"
    line.ask("DATABASE one")
    assert line.ask("READ 1") == b"SUCCESS,size=6,value=in one"
    with server.line() as other:
        assert other.ask("READ 1") == b"ERROR,key_not_found", "a connection begins in default"


def test_dropped_database(server, line):
    """It may be dropped while connections use it: the next write makes it anew, a read says that it is not there."""
    line.ask("DATABASE doomed")
    line.ask("INSERT x")
    http = server.client()
    assert http.delete("/databases/doomed", confirm="doomed").status in (200, 204)
    assert line.ask("READ 1") == b"ERROR,database_not_found"
    assert line.ask("PAIR_SCAN *") == b"ERROR,database_not_found"
    assert line.ask("INSERT y") == b"SUCCESS,key=1"
    assert line.ask("READ 1") == b"SUCCESS,size=1,value=y"


def test_exit(server):
    with server.line() as line:
        line.send("INSERT x\nEXIT\nINSERT y")
        assert line.answer().startswith(b"SUCCESS,key=")
        assert line.answer() is None


def test_survives_a_kill(launch):
    server = launch()
    with server.line() as line:
        answers = line.many(["INSERT value %d" % n for n in range(500)])
        assert answers[-1] == b"SUCCESS,key=500"
        server.kill()
    server.restart()
    with server.line() as line:
        for key, answer in enumerate(line.many(["READ %d" % key for key in range(1, 501)])):
            assert answer.endswith(b"value=value %d" % key)
