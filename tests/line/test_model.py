"""NGRAMS, PREDICT and SCORE against what HTTP says of the same text, in the three kinds of models; in the shell, piped, on a terminal and on stopped data."""
import struct
import threading

import pytest
from harness import ndjson
from test_shell import piped, terminal, where  # noqa: F401: fixtures

NDJSON = {"Content-Type": "application/x-ndjson"}
LINES = ["to be or not to be", "to be is to do", "\u00e4rger to be", "do be do"]
ASKED = ["to be", "to", "", "nobody to be", "nobody", "  be   or  ", "\u00e4rger"]


def fields(answer):
    """{name: value} of an answer, and its items as lists."""
    assert answer.startswith(b"SUCCESS,"), answer
    head, _, items = answer.decode().strip().partition(",items=")
    found = dict(part.split("=", 1) for part in head.split(",")[1:])
    listed = [item.split(":") for item in items.split(";") if item]
    assert "count" not in found or int(found["count"]) == len(listed)
    return found, [[bytes.fromhex(i[0]).decode() if not i[0].startswith("#") else int(i[0][1:]), *map(float, i[1:])] for i in listed]


def same_answers(line, client):
    for text in ASKED:
        for more, body in (("", {}), ("k=3 ", {"k": 3}), ("max_order=2 k=50 ", {"max_order": 2, "k": 50})):
            want = client.post("/predict", json_body=dict(body, text=text), text="true")
            found, items = fields(line.ask("PREDICT %stext=%s" % (more, text)))
            assert int(found["order"]) == want.json()["order"] and [i[0] for i in items] == [c["word"] for c in want.json()["candidates"]]
            assert [i[1] for i in items] == pytest.approx([c["p"] for c in want.json()["candidates"]], rel=1e-5)
        want = client.post("/score", json_body={"text": text}, text="true").json()
        found, items = fields(line.ask("SCORE text=" + text))
        assert [i[0] for i in items] == want["words"] and [int(i[2]) for i in items] == want["orders"]
        assert [i[1] for i in items] == pytest.approx(want["per_token"], rel=1e-6) and int(found["oov"]) == want["oov"]
        assert float(found["log10"]) == pytest.approx(want["log10"], rel=1e-6)
        for name in "perplexity", "perplexity_with_oov":
            assert (float(found[name]) if name in found else None) == pytest.approx(want[name], rel=1e-6)


def at(server, line, name):
    assert line.ask("DATABASE " + name).startswith(b"SUCCESS,")
    return server.client(db=name)


def test_a_smoothed_model(server, line):
    client = at(server, line, "words-smoothed")
    for text in LINES:
        once = line.ask("NGRAMS " + text)
        assert fields(line.ask("NGRAMS remove=1 " + text))[0]["removed"] == "1"
        assert line.ask("NGRAMS order=3 text=" + text) == once and fields(once)[0]["tokens"] == str(len(text.split()))
    assert line.ask("PREDICT to be") == b"ERROR,not_smoothed" and line.ask("SCORE to be") == b"ERROR,not_smoothed"
    client.post("/reduce/smooth/cnt:")
    same_answers(line, client)
    other = server.client(db="words-other")
    assert other.post("/ngrams", ndjson({"text": text} for text in LINES), headers=NDJSON, text="true").status == 200
    assert client.get("/pairs/cnt:", values="true").entries() == [dict(e, key=k["key"]) for e, k in zip(other.get("/pairs/cnt:", values="true").entries(), client.get("/pairs/cnt:").entries())]


def test_a_live_model_and_one_that_was_read_in(server, line):
    client = at(server, line, "words-live")
    client.put("/databases/words-live", json_body={"live": {"order": 3, "bos": 2, "eos": 3}})
    assert line.ask("PREDICT to") == b"ERROR,nothing_counted"
    for text in LINES:
        assert fields(line.ask("NGRAMS " + text))[0]["documents"] == "1"
    same_answers(line, client)
    assert line.ask("NGRAMS order=2 to be") == b"ERROR,order_mismatch" and line.ask("NGRAMS remove=1 nobody be") == b"ERROR,not_counted"
    read = at(server, line, "words-read")
    assert read.post("/arpa", client.get("/arpa", text="true").body, text="true").status == 201
    same_answers(line, read)
    assert line.ask("NGRAMS to be") == b"ERROR,fixed_model"


def test_what_is_said_of_a_line(server, line):
    client = at(server, line, "words-lines")
    assert fields(line.ask("ngrams k=3 is a word"))[0]["tokens"] == "4"
    assert fields(line.ask("NGRAMS order=2 text=order=3 is one, too"))[0]["ngrams"] == "7"
    assert {e["word"] for e in client.get("/vocabulary").entries()} == {"k=3", "is", "a", "word", "order=3", "one,", "too"}
    for text, word in (("NGRAMS order=9 a b", "invalid_order"), ("NGRAMS order= a b", "invalid_order"), ("PREDICT k=0 a", "invalid_k"), ("PREDICT k=x a", "invalid_k"),
                       ("SCORE max_order=0 a", "invalid_order"), ("NGRAMS " + "x" * 4093 + " b", "invalid_tokens")):
        assert line.ask(text) == b"ERROR," + word.encode(), text
    assert line.ask(b"NGRAMS \xe4 b") == b"ERROR,invalid_tokens"
    for text in ("NGRAMS", "NGRAMS alone", "NGRAMS text="):
        assert fields(line.ask(text))[0]["documents"] == "0"
    client.post("/ngrams", ndjson([{"tokens": [900, 901]}]), headers=NDJSON)
    client.post("/reduce/smooth/cnt:")
    assert {900, 901} <= {i[0] for i in fields(line.ask("PREDICT k=100"))[1]}, "tokens without a word"
    assert b"NGRAMS" in server.client().get("/metrics").body


def test_made_up_words(server, line):
    """What a pair calls a word of a token, and no name of a word has room for, is none."""
    client = at(server, line, "words-made-up")
    client.put("/databases/words-made-up", json_body={"live": {"order": 2, "bos": 2, "eos": 3}})
    assert fields(line.ask("NGRAMS to be"))[0]["documents"] == "1"
    token = next(e["token"] for e in client.get("/vocabulary").entries() if e["word"] == "be")
    client.put_all({b"tok:" + struct.pack(">I", token): b"x" * 5000})
    assert [i[0] for i in fields(line.ask("SCORE to be"))[1]][:2] == ["to", token]
    assert client.post("/score", json_body={"text": "to be"}, text="true").json()["words"][:2] == ["to", None]


def test_clients_of_both_ports_count_at_once(server, line):
    """One gate: each word gets one token, and every text is counted."""
    client = at(server, line, "words-both")
    failed = []

    def one(n):
        with server.line() as mine:
            mine.ask("DATABASE words-both")
            for i in range(25):
                answer = mine.ask("NGRAMS order=2 w%d w%d w%d" % (i, i + n, i * n)) if n % 2 else None
                if answer is not None and not answer.startswith(b"SUCCESS,"):
                    failed.append(answer)
                if answer is None:
                    body = ndjson([{"text": "w%d w%d w%d" % (i, i + n, i * n)}])
                    answer = server.client(db="words-both").post("/ngrams", body, headers=NDJSON, text="true", order="2")
                    if answer.status != 200:
                        failed.append(answer)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
    words = client.get("/vocabulary").entries()
    assert len({e["token"] for e in words}) == len({e["word"] for e in words}) == len(words) and sum(e["count"] for e in words) == 300


def test_rights(launch, tmp_path):
    path = tmp_path / "tokens"
    path.write_text("reader-0123456789 read *\n")
    path.chmod(0o600)
    server = launch("--tokens", str(path), ready=False)
    to = ["--connect", "127.0.0.1:%d" % server.line_port]
    env = {"CHEETAH_TOKEN": "reader-0123456789"}
    answers = piped(*to, text="NGRAMS to be\nPREDICT to\n", env=env).stdout.splitlines()
    assert answers[0] == b"ERROR,forbidden" and answers[1] == b"ERROR,not_smoothed"


def test_piped(where):  # noqa: F811
    text = "NGRAMS to be or not to be\nPREDICT to be\nNGRAMS remove=1 to be or not to be\nNGRAMS to be\n"
    assert piped(*where, text=text).stdout.decode().splitlines() == [
        "SUCCESS,documents=1,tokens=6,ngrams=15,contexts=9,removed=0", "ERROR,not_smoothed", "SUCCESS,documents=0,tokens=0,ngrams=0,contexts=0,removed=1",
        "SUCCESS,documents=1,tokens=2,ngrams=3,contexts=2,removed=0"]


def test_on_a_terminal(launch, terminal):  # noqa: F811
    shell = terminal()
    assert shell.run("NGRAMS to be or not to be") == ["documents=1,tokens=6,ngrams=15,contexts=9,removed=0"]
    assert shell.run("PREDICT to be") == ["ERROR,not_smoothed"]
    shell.run("NGRAMS \u00e4rger to be")
    assert any("count a text" in row for row in shell.run("HELP NGRAMS"))


def test_answers_on_a_terminal(launch, tmp_path):
    from test_shell import Terminal
    server = launch()
    client = server.client(db="default")
    client.post("/ngrams", ndjson([{"text": "to be or not to be"}]), headers=NDJSON, text="true")
    client.post("/reduce/smooth/cnt:")
    shell = Terminal(["--connect", "127.0.0.1:%d" % server.line_port], str(tmp_path / "history"))
    try:
        shell.expect("[%s/default]> " % shell.place)
        lines = [row.split() for row in shell.run("PREDICT k=1 to be")]
        assert lines[0] == ["WORD", "P"] and lines[1][0] == "or" and lines[2] == ["order=3"]
        lines = [row.split() for row in shell.run("SCORE to be nobody")]
        assert lines[0] == ["WORD", "LOG10", "ORDER"] and [row[0] for row in lines[1:3]] == ["be", "<unk>"] and lines[2][2] == "0" and lines[3][0] == "oov=1,"
        assert shell.run("SCORE") == ["oov=0, log10=0"]
    finally:
        shell.close()
