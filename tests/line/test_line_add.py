"""PAIR_ADD and PAIR_COUNTS_ADD: `add` and `counts_add` of a batch, as lines."""
import base64
import threading



def test_adding(launch):
    server = launch()
    line, http = server.line(), server.client()
    assert line.ask("PAIR_ADD n 5") == b"SUCCESS,key=%d,value=5" % http.get("/pairs/n?exact=true").json()["key"]
    assert line.ask("PAIR_ADD n -12").endswith(b",value=-7") and http.get("/pairs/n?exact=true&values=true").json()["value"] == base64.b64encode(b"-7").decode()
    assert line.ask("PAIR_ADD x6e 7").endswith(b",value=0")
    assert line.ask("PAIR_ADD most 9223372036854775807").endswith(b",value=9223372036854775807")
    http.upsert(b"text", b"abc")
    for text, want in (("PAIR_ADD most 1", b"number_overflow"), ("PAIR_ADD text 1", b"not_a_number"), ("PAIR_ADD n", b"invalid_number"),
                       ("PAIR_ADD n x", b"invalid_number"), ("PAIR_ADD n 1.5", b"invalid_number"), ("PAIR_ADD n 9223372036854775808", b"invalid_number"),
                       ("PAIR_ADD n -", b"invalid_number"), ("PAIR_ADD n 1 2", b"too_many_arguments"), ("PAIR_ADD", b"pair_value_cannot_be_empty"),
                       ("PAIR_ADD xzz 1", b"invalid_hex")):  # fmt: skip
        assert line.ask(text).startswith(b"ERROR," + want), text
    assert line.ask("PAIR_ADD n 0").endswith(b",value=0") and line.ask("PAIR_ADD most 0").endswith(b"807")


def test_counts(launch):
    server = launch()
    line, http = server.line(), server.client()
    assert line.ask("PAIR_COUNTS_ADD cnt:3:a 3 7:2,5:1,7:3").startswith(b"SUCCESS,key=")
    row = http.get("/reduce/counts/cnt:3:?decode=true").entries()[0]
    assert row["order"] == 3 and row["followers"] == [[5, 1], [7, 5]]
    assert line.ask("PAIR_COUNTS_ADD cnt:3:a 3 5:-1").startswith(b"SUCCESS")
    for text, want in (("PAIR_COUNTS_ADD cnt:3:a 3 5:-1", b"not_counted"), ("PAIR_COUNTS_ADD cnt:3:a 2 5:1", b"malformed_payload"),
                       ("PAIR_COUNTS_ADD cnt:3:a 256 5:1", b"invalid_order"), ("PAIR_COUNTS_ADD cnt:3:a 3", b"invalid_followers"),
                       ("PAIR_COUNTS_ADD cnt:3:a 3 5", b"invalid_followers"), ("PAIR_COUNTS_ADD cnt:3:a 3 5:1,", b"invalid_followers"),
                       ("PAIR_COUNTS_ADD cnt:3:a 3 4294967296:1", b"invalid_followers"), ("PAIR_COUNTS_ADD cnt:3:a 3 5:1 x", b"too_many_arguments")):  # fmt: skip
        assert line.ask(text).startswith(b"ERROR," + want), text
    assert http.get("/reduce/counts/cnt:3:?decode=true").entries()[0]["followers"] == [[7, 5]]


def test_many_at_once(launch):
    """Every addition counts once, whoever makes it."""
    server = launch()

    def add():
        with server.line() as mine:
            for _ in range(50):
                assert mine.ask("PAIR_ADD n 1").startswith(b"SUCCESS")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.line().ask("PAIR_ADD n 0").endswith(b",value=200")
