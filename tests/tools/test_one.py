"""The one-shot commands (get, put, del, scan, count, add, changes, ngrams, smooth, predict, score, links, associations, databases, create, drop): the same words to a running
server and on stopped data, with the same answers and exit codes."""
import http.server
import json
import os
import random
import subprocess
import threading
import time
import urllib.request

import pytest
from harness import BINARY, b64, certificates, unb64
from test_watching import terminal  # noqa: F401
from tooling import environment, tool, url


class Place:
    """A running server or stopped data; what a command is told of it."""

    def __init__(self, flags, name):
        self.flags, self.name = flags, name

    def __call__(self, *args, check=0, stdin=None):
        done = subprocess.run([BINARY, args[0], *self.flags, *args[1:]], input=stdin if stdin is not None else b"", capture_output=True, env=environment(), timeout=120)
        assert done.returncode == check, (args, done)
        return done

    def out(self, *args, **more):
        return self(*args, **more).stdout

    def lines(self, *args, **more):
        return [json.loads(line) for line in self.out(*args, **more).splitlines()]

    def fails(self, *args, code=1, **more):
        done = self(*args, check=code, **more)
        assert done.stdout == b"" and done.stderr.startswith(b"cheetah-db"), done
        return done.stderr.decode()


@pytest.fixture(params=["running", "stopped"])
def place(request, launch, tmp_path):
    if request.param == "running":
        server = launch()
        return Place(["--connect", url(server)], url(server))
    data = str(tmp_path / "data")
    tool("create", "default", "--data", data)
    return Place(["--data", data], data)


EVERY = bytes(range(256))


def test_values_are_bytes(place, tmp_path):
    """What went in comes out, byte by byte: from an argument, a pipe, a file; with newlines, zeros, and of 16 MiB."""
    assert place.out("put", "greeting:de", "hallo") == b"" and place.out("get", "greeting:de") == b"hallo"
    file = ["--file", str(tmp_path / "value")]
    for name, value, ways in (("every", EVERY, (["-"], [], file)), ("line", b"text\n", ([],)), ("newline", b"\n", ([],)), ("zero", b"\0", ([],)),
                              ("large", os.urandom(1 << 20) * 16, (["-"], file))):
        for how in ways:
            (tmp_path / "value").write_bytes(value)
            place("put", name, *how, stdin=value)
            assert place.out("get", name) == value
            place("del", name)
            assert "pair_not_found" in place.fails("get", name)
    assert "empty_value" in place.fails("put", "name", stdin=b"")
    assert "nothere" in place.fails("put", "name", "--file", str(tmp_path / "nothere"))
    assert place.out("count") == b"1\n"


def test_a_value_that_ends(place):
    place("put", "short", "v", "--ttl", "0.2")
    place("put", "long", "v", "--ttl", "500")
    time.sleep(0.25)
    assert "pair_not_found" in place.fails("get", "short") and place.out("count") == b"1\n"
    for wrong in "x", "1h", "", "1" * 21:
        place.fails("put", "name", "v", "--ttl", wrong, code=2)
    assert "invalid_parameter" in place.fails("put", "name", "v", "--ttl", "0", code=2) and place.out("count") == b"1\n"


def test_conditions(place):
    """put --if-absent, --if-match, del --if-match: as the headers; get --json shows the tag; what fails has changed nothing."""
    place("put", "name", "one", "--if-absent")
    assert "precondition_failed" in place.fails("put", "name", "two", "--if-absent")
    shown = json.loads(place.out("get", "name", "--json"))
    tag = shown["etag"]
    assert shown["text"] == "one" and len(tag) == 16
    assert "precondition_failed" in place.fails("put", "name", "two", "--if-match", "0" * 16)
    assert "precondition_failed" in place.fails("del", "name", "--if-match", "0" * 16)
    assert "precondition_failed" in place.fails("put", "other", "two", "--if-match", "*")
    assert place.out("get", "name") == b"one"
    place("put", "name", "two", "--if-match", tag)
    assert "precondition_failed" in place.fails("put", "name", "three", "--if-match", tag)
    place("put", "name", "three", "--if-match", '"%s"' % json.loads(place.out("get", "name", "--json"))["etag"])
    place("put", "name", "four", "--if-match", "*")
    place("del", "name", "--if-match", json.loads(place.out("get", "name", "--json"))["etag"])
    assert place.out("count") == b"0\n"
    for wrong in (["--if-match", "x y"], ["--if-match", ""], ["--if-match", "*", "--if-absent"], ["--if-match", "a" * 60]):
        place.fails("put", "name", "v", *wrong, code=2)
    place.fails("del", "name", "--recursive", "--yes", "--if-match", "*", code=2)


def test_changes(launch):
    """All that changed, in order; after a number; followed while it happens, as `tail -f` does."""
    server = launch()
    place = Place(["--connect", url(server)], url(server))
    place("put", "a:1", "one")
    place("put", "b:1", "other")
    place("put", "a:1", "two")
    place("del", "a:1", "--keep-value")
    told = place("changes", "a:")
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(line["name"], line["deleted"]) for line in lines] == [("a:1", False), ("a:1", False), ("a:1", True)]
    assert lines[0]["key"] == lines[1]["key"] and lines[2]["key"] is None
    last = lines[-1]["seq"]
    assert ("--after %d" % last) in told.stderr.decode()
    assert place.lines("changes", "a:", "--after", str(lines[0]["seq"])) == lines[1:] and place.lines("changes", "a:", "--limit", "1") == lines[:1]
    assert place.lines("changes", "--after", "0", "--hex")[0]["hex"] == b"a:1".hex()
    assert place.out("changes", "--after", "now") == b""
    follower = subprocess.Popen([BINARY, "changes", "a:", "--after", str(last), "--follow", *place.flags], stdout=subprocess.PIPE, env=environment())
    try:
        place("put", "b:2", "no")
        place("put", "a:2", "yes")
        line = json.loads(follower.stdout.readline())
        assert line["name"] == "a:2" and line["seq"] > last
    finally:
        follower.kill()
        follower.communicate()
    assert "gone" in place.fails("changes", "--after", "17")
    for wrong in (["--after", "x"], ["--after", ""], ["a", "b"]):
        place.fails("changes", *wrong, code=2)


def test_names_are_literal_unless_hex(place):
    """A name means itself, whatever stands in it; --hex gives any bytes."""
    odd = ["*", "x", "x00", "xyz", "a/b?c&d=e%20+", " ", "\u00fc", "tab\there", 'quote"', "back\\slash", "-5"]
    for i, name in enumerate(odd):
        place("put", "--", name, "value %d" % i)
    for i, name in enumerate(odd):
        assert place.out("get", *(["--", name] if i % 2 else ["--hex", name.encode().hex()])) == b"value %d" % i
    place("put", "--hex", EVERY.hex(), "all")
    assert place.out("get", "--hex", EVERY.hex().upper()) == b"all"
    rows = place.lines("scan", "-v")
    assert [row["name"] for row in rows if "name" in row] == sorted(odd, key=lambda name: name.encode())
    assert [unb64(row["pair"]) for row in rows if "pair" in row] == [EVERY]
    assert sorted(row["text"] for row in rows) == sorted(["all"] + ["value %d" % i for i in range(len(odd))])
    assert [bytes.fromhex(row["hex"]) for row in place.lines("scan", "--hex")] == sorted([name.encode() for name in odd] + [EVERY])
    for bad in ("0", "0g", "zz"):
        assert "hexadecimal" in place.fails("get", "--hex", bad, code=2)
    assert "invalid_pair" in place.fails("get", "") and "invalid_pair" in place.fails("put", "n" * 4097, "v")
    place("put", "n" * 4096, "v")
    assert place.out("get", "n" * 4096) == b"v"


def test_scan(place):
    names = ["a:%02d" % i for i in range(30)] + ["b"]
    for name in names[:5]:
        place("put", name, name.upper())
    place("put", "bytes", stdin=EVERY)
    assert [row["name"] for row in place.lines("scan")] == names[:5] + ["bytes"]
    assert [row["name"] for row in place.lines("scan", "a:")] == names[:5]
    assert [row["name"] for row in place.lines("scan", "a:", "--reverse")] == names[4::-1]
    assert [row["name"] for row in place.lines("scan", "a:", "--after", "a:01", "--until", "a:04")] == ["a:02", "a:03"]
    first = place.lines("scan", "a:", "--values", "--limit", "1")
    assert first == [{"name": "a:00", "key": first[0]["key"], "size": 4, "text": "A:00"}]
    assert place.lines("scan", "bytes", "-v")[0]["value"] == b64(EVERY)
    more = place("scan", "a:", "--limit", "2").stderr.decode()
    assert "there is more: --after 'a:01'" in more
    assert [row["name"] for row in place.lines("scan", "a:", "--after", "a:01")] == names[2:5]
    assert place("scan", "a:", "--limit", "5").stderr == b"", "what ends at its limit and has no more says nothing"
    assert [row["name"] for row in place.lines("scan", "a:", "--after", "")] == names[:5], "the empty name is before all others, not the letter x"
    assert place.lines("scan", "--after", "", "--until", "") == place.lines("scan") and place.lines("scan", "--hex", "--after", "") == place.lines("scan", "--hex")
    assert place.lines("scan", "--reverse", "--after", "") == place.lines("scan", "--reverse")
    assert place.out("scan", "nothing") == b"" and place.out("count", "nothing") == b"0\n" and place.out("count", "a:") == b"5\n"
    place.fails("add", "number", "9223372036854775808", code=2)
    place.fails("add", "number", "-9223372036854775809", code=2)
    place.fails("scan", "--etags", code=2)
    place.fails("scan", "a", "b", code=2)
    place.fails("scan", "--limit", "0", code=2)


def test_scan_shows_ends_and_tags(place):
    place("put", "a", "v")
    place("put", "b", "w", "--ttl", "500")
    shown = {name: json.loads(place.out("get", name, "--json")) for name in "ab"}
    rows = place.lines("scan", "--values", "--expires", "--etags")
    assert rows == [shown["a"], shown["b"]] and "expires" in rows[1] and "expires" not in rows[0]
    place("put", "a", "x", "--if-match", rows[0]["etag"])
    assert [row.get("expires") for row in place.lines("scan", "--expires")] == [None, rows[1]["expires"]]


def test_deleting(place):
    for name in ("p:1", "p:2", "q"):
        place("put", name, "v")
    assert "pair_not_found" in place.fails("del", "p:")
    assert "--yes" in place.fails("del", "p:", "--recursive", code=2) and place.out("count") == b"3\n"
    place.fails("del", "", "--recursive", "--yes", code=2)
    assert place.lines("del", "p:", "--recursive", "--yes", "--json") == [{"pairs_deleted": 2, "values_deleted": 2}]
    place("del", "q", "--keep-value")
    assert place.out("count") == b"0\n"
    assert json.loads(place.out("stat", "default", "--json"))["values"] == 1


def test_adding(place):
    assert place.out("add", "n", "5") == b"5\n" and place.out("add", "n", "-12") == b"-7\n" and place.out("get", "n") == b"-7"
    assert place.lines("add", "n", "007", "--json")[0]["value"] == 0
    place("put", "text", "abc")
    assert "not_a_number" in place.fails("add", "text", "1")
    place("add", "most", str(2**63 - 1))
    assert "number_overflow" in place.fails("add", "most", "1") and place.out("get", "most") == b"%d" % (2**63 - 1)
    for bad in ("x", "", "1.5", "1" * 20, "--5"):
        place.fails("add", "n", bad, code=2)


def test_databases(place):
    place("create", "words", "--shards", "2")
    assert "exists" in place.fails("create", "words")
    assert b"words\n" in place.out("databases") and {"database": "words"} in place.lines("list", "--json")
    place("put", "a", "1", "-d", "words")
    assert place.out("get", "a", "--database", "words") == b"1"
    place.fails("get", "a")
    assert "database_not_found" in place.fails("get", "a", "-d", "nothere") and b"nothere" not in place.out("list")
    place.fails("get", "a", "-d", "../x", code=2)
    place.fails("drop", "words", code=2)
    place("drop", "words", "--yes")
    assert b"words" not in place.out("list")
    place.fails("drop", "words", "--yes")


def test_the_model(place, tmp_path):
    """Documents in, predictions out: tokens as words of the command line, with commas, as lines, as JSON."""
    assert place.lines("ngrams", "2", "4", "5", "3", "--order", "3") == [{"documents": 1, "tokens": 4, "ngrams": 9, "contexts_created": 6}]
    documents = tmp_path / "documents"
    documents.write_text('2 4 5 3\n\n{"tokens":[2,4,5]}\n2,4,7,3')
    assert place.lines("ngrams", "--file", str(documents))[0]["documents"] == 3
    assert place.lines("ngrams", stdin=b"9 9\n")[0]["documents"] == 1
    assert [row["order"] for row in place.lines("smooth", "--orders", "1-3")] == [1, 2, 3]
    one = place.lines("predict", "2", "4", "-k", "1")
    assert one == place.lines("predict", "2,4", "-k", "1") == place.lines("predict", "-k", "1", stdin=b"2 4\n")
    assert [row["token"] for row in one[0]["candidates"]] == [5] and one[0]["order"] == 3
    assert len(place.lines("predict", "2", "4")[0]["candidates"]) == 2
    score = place.lines("score", "2", "4", "5")[0]
    assert score["tokens"] in (2, 3) and score["log10"] < 0
    for bad in (["predict", "2", "x"], ["score", "1.5"], ["ngrams", "-5"], ["predict", "2", "--k", "0"], ["ngrams", "--once", "a b", "1"],
                ["smooth", "x"], ["smooth", "--orders", "1&x"], ["predict", "2", "--file", str(documents)]):
        place.fails(*bad, code=2)
    assert "line 2" in place.fails("ngrams", code=2, stdin=b"1 2\nthree\n")
    before = place.lines("scan", "cnt:", "-v")
    assert place.fails("ngrams", "1", "2", "--order", "64", code=2) and place.lines("scan", "cnt:", "-v") == before


def test_what_is_related(place):
    """Links are found, kept and shown; a prediction with them; what belongs to a context, and to a token."""
    place("ngrams", "--text", "--order", "2", stdin=b"the old house stood\nthe old barn stood\na new house fell\na new barn fell\nthe old tree stood\n")
    assert place.lines("links", "cnt:2:") == []
    assert "no_links" in place.fails("predict", "--text", "house", "--links", "0.5")
    found = place.lines("links", "cnt:2:", "--find", "-k", "3", "--min", "0.2")
    assert [row["metric"] for row in found] == ["cosine"] and found[0]["links"] > 0
    shown = place.lines("links", "cnt:2:", "--text")
    links = {row["words"][0]: [(link["words"][0], link["weight"]) for link in row["links"]] for row in shown}
    assert len(shown) == found[0]["contexts"] and links["house"][0] == ("barn", 1) and all(len(of) <= 3 for of in links.values())
    assert place.lines("links", "--limit", "2") == place.lines("links", b"cnt:".hex(), "--hex")[:2]
    place("links", "cnt:2:", "--find", "--metric", "jaccard", "--to", "cnt:1:", "--min", "0")
    assert {link["pair"] for row in place.lines("links", "cnt:2:", "--metric", "jaccard") for link in row["links"]} == {b64(b"cnt:1:__root__")}
    place("smooth")
    mixed = place.lines("predict", "--text", "tree", "--links", "0.5", "-k", "100")[0]
    assert mixed["links"] > 0 and sum(c["p"] for c in mixed["candidates"]) == pytest.approx(1, abs=1e-9)
    house = unb64(next(row["pair"] for row in shown if row["words"] == ["house"]))[12:]
    related = place.lines("associations", house.hex(), "--hex", "-k", "1")
    assert [(row["relation"], row["metric"]) for row in related] == [("link", "cosine"), ("link", "jaccard"), ("after", "p")]
    assert place.lines("associations", "4294967295") == []
    assert "pair_not_found" in place.fails("associations", "nobody")
    for bad in (["links", "a", "b"], ["links", "-k", "3"], ["links", "--find", "--limit", "3"], ["links", "--find", "--min", "x"], ["links", "--metric", "&k=3"],
                ["associations"], ["associations", ""], ["predict", "2", "--links", "2x"], ["links", "--find", "--min", "0.1&k=5"],
                ["links", "--metric", "dice"], ["links", "--find", "--min", "1.5"]):
        place.fails(*bad, code=2)


def test_both_places_give_the_same_bytes(launch, tmp_path):
    """Every read, asked of a running server and then of the data that it leaves."""
    server = launch()
    running = Place(["--connect", url(server)], url(server))
    running("ngrams", stdin=b"2 4 5 3\n2 4 6 3\n2 5 5 3\n")
    running("smooth")
    running("put", "a", "text")
    running("put", "bytes", stdin=EVERY)
    reads = [["scan"], ["scan", "-v"], ["scan", b"topk:".hex(), "-v", "--hex"], ["scan", "--reverse", "--limit", "3"], ["count"], ["count", "cnt:"], ["get", "a"],
             ["get", "bytes"], ["get", "a", "--json"], ["get", "bytes", "--json"], ["predict", "2", "4"], ["score", "2", "4", "5"], ["databases"],
             ["list", "--json"]]
    there = [running.out(*read) for read in reads]
    server.stop()
    stopped = Place(["--data", server.data], server.data)
    assert [stopped.out(*read) for read in reads] == there
    tool("check", "--data", server.data)


def test_the_address_is_named_and_no_other_place_is_used(launch, tmp_path):
    """--connect before CHEETAH_URL before the default; a message names the place that was asked; stopped data is never looked for."""
    one, two = launch(), launch()
    for server, name in ((one, "one"), (two, "two")):
        tool("put", "who", name, env={"CHEETAH_URL": url(server)})
    assert tool("get", "who", env={"CHEETAH_URL": url(one)}).stdout == "one"
    assert tool("get", "who", "--connect", url(two), env={"CHEETAH_URL": url(one)}).stdout == "two"
    assert url(two) in tool("get", "nothere", env={"CHEETAH_URL": url(two)}, check=1).stderr
    data = str(tmp_path / "data")
    tool("create", "default", "--data", data)
    tool("put", "who", "nobody", "--data", data, env={"CHEETAH_URL": url(one), "CHEETAH_TOKEN": "x" * 20, "CHEETAH_LISTEN": "nonsense"})
    assert tool("get", "who", "--data", data, env={"CHEETAH_URL": url(one)}).stdout == "nobody"
    assert data[-60:] in tool("get", "nothere", "--data", data, check=1).stderr
    where = one.data
    assert "in use" in tool("get", "who", "--data", where, check=1).stderr, "a server has it"
    one.stop()
    done = tool("get", "who", env={"CHEETAH_URL": url(one)}, check=1)
    assert url(one) in done.stderr and not done.stdout
    for wrong in ("ftp://x", "http://h/path", "http://user@h", ""):
        done = tool("get", "who", "--connect", wrong, check=2 if wrong else None)
        assert done.returncode and not done.stdout
    assert "--data" in tool("get", "who", "--connect", url(two), "--data", data, check=2).stderr
    assert "no such data directory" in tool("get", "who", "--data", str(tmp_path / "none"), check=1).stderr and not (tmp_path / "none").exists()


def test_reading_changes_no_stopped_data(tmp_path):
    """A read of a database that is not there makes none."""
    data = tmp_path / "data"
    tool("create", "words", "--data", data)
    for read in (["get", "a"], ["scan"], ["count"], ["predict", "1"], ["score", "1", "2"]):
        assert "database_not_found" in tool(*read, "--data", data, check=1).stderr
    assert "default" not in os.listdir(data) and "words" in os.listdir(data)


def test_a_program_without_rados_says_so(tmp_path):
    done = tool("get", "a", "--store", "rados", "--rados-pool", "x", "--rados-conf", str(tmp_path / "none"), check=None)
    assert (done.returncode, "built without --store rados" in done.stderr) in ((2, True), (1, False)), done


def test_tokens_and_tls(launch, tmp_path):
    tokens = tmp_path / "tokens"
    reader, writer = "reader-0123456789abcdef", "writer-0123456789abcdef"
    tokens.write_text("%s read *\n%s write *\n" % (reader, writer))
    tokens.chmod(0o600)
    made = certificates.self_signed(tmp_path)
    server = launch("--tokens", str(tokens), "--tls-cert", made.cert, "--tls-key", made.key, scheme="https", cafile=str(made.cert))
    secret = tmp_path / "secret"
    secret.write_text(writer + "\n")
    there = "https://localhost:%d" % server.port
    flags = ["--connect", there, "--tls-ca", made.cert]
    tool("put", "a", "1", *flags, "--token-file", secret)
    assert tool("get", "a", *flags, env={"CHEETAH_TOKEN": reader}).stdout == "1"
    assert "forbidden" in tool("put", "a", "2", *flags, env={"CHEETAH_TOKEN": reader}, check=1).stderr
    assert "unauthorized" in tool("get", "a", *flags, check=1).stderr
    done = tool("get", "a", "--connect", there, env={"CHEETAH_TOKEN": reader}, check=1)
    assert "certificate" in done.stderr.lower() and there in done.stderr and not done.stdout


def test_a_damaged_value_is_told(launch, tmp_path):
    """Exit code 3, and no byte of it on stdout."""
    server = launch("--shards", "1")
    tool("put", "a", "A" * 3000, "--connect", url(server))
    server.stop()
    path = next(os.path.join(folder, "values") for folder, _, names in os.walk(server.data) if "values" in names and "default" in folder)
    with open(path, "r+b") as file:
        content = file.read()
        at = content.index(b"AAAA")
        file.seek(at + 10)
        file.write(b"B")
    done = tool("get", "a", "--data", server.data, check=3)
    assert "corrupt" in done.stderr and "A" not in done.stdout
    assert "AAAA" not in tool("scan", "-v", "--data", server.data, check=3).stdout


def test_a_program_without_descriptors(tmp_path):
    """Started with standard descriptors closed: no file of the data gets their numbers, and with them what is printed."""
    data = str(tmp_path / "data")
    tool("create", "default", "--data", data)
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.name in ("LOCK", "cheetah.set", "manifest")}
    lines = b"INSERT hello\n" * 1000
    for command, closed, code in (("shell --data", ">&-", 1), ("shell --data", "<&-", 0), ("shell --data", ">&- 2>&-", 1), ("get nothere --data", "2>&-", 1),
                                  ("get nothere --data", "<&- >&- 2>&-", 1), ("scan --data", ">&-", 0), ("put name --data", "<&-", 1)):  # fmt: skip
        done = subprocess.run(["bash", "-c", "exec %s %s %s %s" % (BINARY, command, data, closed)], input=lines, capture_output=True, env=environment(), timeout=120)
        assert done.returncode == code and done.stdout == b"", (command, closed, done)
    assert {path: path.read_bytes() for path in before} == before
    tool("check", "--data", data)
    done = subprocess.run(["bash", "-c", "exec %s list --data %s >&-" % (BINARY, data)], capture_output=True, env=environment(), timeout=120)
    assert done.returncode == 1 and b"could not be written" in done.stderr


def test_a_folder_that_holds_no_data(tmp_path):
    """A wrong path to a folder that is there: told by each command, and nothing is made there; the data of a set may lie elsewhere."""
    other, data = tmp_path / "other", tmp_path / "data"
    (other / "photos").mkdir(parents=True)
    (other / "photos" / "a.jpg").write_bytes(b"x")
    tool("create", "default", "--data", str(data))
    for args in (["get", "a"], ["put", "a", "b"], ["del", "a"], ["scan"], ["count"], ["add", "a", "1"], ["changes"], ["ngrams", "1", "2"], ["predict", "1"], ["smooth"],
                 ["stat"], ["check"], ["drop", "default", "--yes"], ["export", str(tmp_path / "file")], ["shell"]):  # fmt: skip
        assert "%s: no data directory" % other in tool(*args, "--data", str(other), check=1).stderr, args
    assert tool("list", "--data", str(other)).stdout == ""
    assert sorted(str(path.relative_to(other)) for path in other.rglob("*")) == ["photos", "photos/a.jpg"]
    tool("put", "a", "b", "--data", "%s,%s" % (data, tmp_path / "other"))  # another disk for the set


def test_large_values_as_json(launch):
    server = launch("--max-value-size", "64M", "--durability", "os")
    there = Place(["--connect", url(server)], url(server))
    value = b"v" * (50 << 20)
    there("put", "large", stdin=value)
    assert json.loads(there.out("get", "large", "--json"))["text"] == value.decode() and there.out("get", "large") == value


def test_who_answers_is_told(launch, tmp_path):
    server = launch("--line-listen", "127.0.0.1:0", "--line-port-file", str(tmp_path / "line"), env={"CHEETAH_LINE_LISTEN": ""})
    line = "127.0.0.1:%d" % int((tmp_path / "line").read_text())
    for where, what in (("unix:" + str(tmp_path / "nobody"), "no server listens at this socket"), (line, "does not speak HTTP")):
        assert what in tool("get", "a", "--connect", where, check=1).stderr
    assert server.process.poll() is None


def test_output_that_gets_nowhere(launch):
    server = launch()
    tool("put", "a", "1", "--connect", url(server))
    tool("put", "large", "--connect", url(server), check=1)  # an empty stdin
    for command in (["get", "a"], ["scan"], ["count"], ["databases"], ["get", "a", "--json"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([BINARY, *command, "--connect", url(server)], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                                  env=environment(), timeout=120)
        assert done.returncode == 1 and b"could not be written" in done.stderr, done


def test_a_slow_producer(launch):
    """The request begins when the input has ended, so no time-out of the server matters."""
    server = launch("--body-timeout", "1", "--header-timeout", "1")
    process = subprocess.Popen([BINARY, "put", "slow", "--connect", url(server)], stdin=subprocess.PIPE, env=environment())
    for piece in (b"one ", b"two ", b"three"):
        process.stdin.write(piece)
        process.stdin.flush()
        time.sleep(0.8)
    process.stdin.close()
    assert process.wait(120) == 0 and tool("get", "slow", "--connect", url(server)).stdout == "one two three"


def test_on_a_terminal(launch, terminal):  # noqa: F811
    """Tables, a newline after a value that has none, and a word about what a write did and where."""
    server = launch()
    tool("put", "greeting:de", "hallo", "--connect", url(server))
    tool("put", "two", "--connect", url(server), check=1)
    tool("ngrams", "2", "4", "5", "--connect", url(server))
    tool("smooth", "--connect", url(server))

    def shown(*args):
        one = terminal(*args, "--connect", url(server), which=(1, 2))
        assert one.ended() == 0
        return one.seen.replace(b"\r\n", b"\n").decode()

    assert shown("get", "greeting:de") == "hallo\n"
    assert url(server) in shown("put", "line", "text\n") and shown("get", "line") == "text\n"
    table = shown("scan", "greeting:", "-v").splitlines()
    assert table[0].split() == ["NAME", "KEY", "VALUE"] and table[1].split()[0] == "greeting:de" and table[1].split()[2] == "hallo"
    assert "{" not in shown("predict", "2", "4") and "token" in shown("predict", "2", "4")
    assert shown("scan", "greeting:", "--json").startswith('{"name":"greeting:de"')


class Counter(http.server.BaseHTTPRequestHandler):
    """Has too little memory for the first request, counts the second, and ends the connection of the third without an answer, as one that dies does."""

    protocol_version = "HTTP/1.1"
    seen = []

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(self.path)
        if len(self.seen) > 2:
            self.close_connection = True
            return
        status, body = (413, {"status": 413, "code": "request_too_large"}) if len(self.seen) == 1 else (200, {"documents": 1, "tokens": 2, "ngrams": 3, "contexts_created": 2})
        self.send_response(status)
        self.send_header("Content-Length", str(len(json.dumps(body))))
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


def test_no_document_is_counted_twice():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counter) as fake:
        threading.Thread(target=fake.serve_forever, daemon=True).start()
        there = Place(["--connect", "http://127.0.0.1:%d" % fake.server_port], "")
        done = there("ngrams", check=1, stdin=b"1 2\n3 4\n")
        assert len(Counter.seen) == 3 and json.loads(done.stdout)["documents"] == 1, (Counter.seen, done)
        fake.shutdown()


def test_what_others_have_stored_commands_no_terminal(launch, terminal):  # noqa: F811
    """Names and words with escape sequences, in ASCII and in the C1 controls; and no name ends the quotes of a command to copy."""
    server = launch()
    client = "--connect", url(server)
    live = urllib.request.Request(url(server) + "/databases/talk", b'{"live":{"order":2,"bos":2,"eos":3}}', method="PUT")
    assert urllib.request.urlopen(live).status == 201
    Place([*client], "")("ngrams", "--text", "-d", "talk", stdin="a \x1b]0;red\u009b31m\n".encode())
    names = ["n:\x1b[31m", "n:\u009b31m", "n:it's"]
    for name in names:
        tool("put", name, "v", *client)
    for args in (["predict", "--text", "a", "-d", "talk"], ["scan", "n:"], ["changes", "n:"], ["score", "--text", "a \x1b]0;red\u009b31m", "-d", "talk"]):
        one = terminal(*args, *client, which=(1, 2))
        assert one.ended() == 0 and b"\x1b" not in one.seen and "\u009b".encode() not in one.seen and len(one.seen) > 50, one.seen
    assert "--hex --after '%s'" % names[2].encode().hex() in tool("scan", "n:", "--limit", "2", *client).stderr


def test_documents_that_are_too_many_for_one_request(launch):
    """They are counted in several, each whole; one that is too large alone is told, with how many were counted before it."""
    small, large = launch("--request-memory-bytes", "4M", "--durability", "os", "--shards", "1"), launch("--durability", "os", "--shards", "1")
    there, other = Place(["--connect", url(small)], url(small)), Place(["--connect", url(large)], url(large))
    rng = random.Random(5)
    documents = [[rng.getrandbits(32) for _ in range(50)] for _ in range(500)]
    text = "".join(" ".join(map(str, d)) + "\n" for d in documents).encode()
    assert "request_too_large" in there.fails("ngrams", "--once", "all", stdin=text) and there.lines("scan", "cnt:") == []
    counted = there.lines("ngrams", stdin=text)
    assert len(counted) > 2 and sum(part["documents"] for part in counted) == 500
    assert len(other.lines("ngrams", stdin=text)) == 1

    def counts(place):
        return {json.dumps({**row, "key": 0}) for row in place.lines("scan", "cnt:", "-v")}

    assert counts(there) == counts(other) and len(counts(there)) > 10000
    huge = (" ".join(str(rng.getrandbits(32)) for _ in range(30_000)) + "\n").encode()
    told = there("ngrams", check=1, stdin=text[: len(text) // 2].rpartition(b"\n")[0] + b"\n" + huge).stderr.decode()
    assert "request_too_large" in told and "documents before were counted" in told
