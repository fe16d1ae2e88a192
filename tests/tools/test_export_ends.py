"""Pairs that end in copies: export, import, backup and restore keep the end; what has ended meanwhile is gone with its value."""
import http.server
import json
import threading
import time

from tooling import b64, batches, contents, export, read, spawn, summary, tool, unb64, url

HEADER = '{"cheetah":"export","format":%d,"database":"default"}'


def put(client, name, ttl=None, value=b"value"):
    params = {} if ttl is None else {"ttl": str(ttl)}
    answer = client.put("/pairs/" + name, value, **params)
    assert answer.status in (200, 201), answer.body
    return answer.json()


def ends(client):
    """{name: when it ends}, of a scan."""
    return {unb64(line["pair"]): line.get("expires") for line in client.get("/pairs/*", expires="true").entries()}


def imported(server, path, *flags, check=0):
    return tool("import", path, "--connect", url(server), *flags, check=check)


def wait_until(second):
    while time.time() < second + 0.02:
        time.sleep(0.02)


def test_there_and_back(launch, tmp_path):
    source, target = launch(), launch("--shards", "3")
    client = source.client()
    put(client, "lasting")
    put(client, "an%20hour", 3600.5, b"x" * 100_000)
    put(client, "a:shared", 5000)
    batches(client, [{"op": "pair_put", "pair": b64(b"n:%04d" % i), "value": b64(b"%d" % i), **({"ttl": 900 + i} if i % 3 else {})} for i in range(500)])
    there = ends(client)
    assert sum(end is not None for end in there.values()) == 335 and client.get("/databases/default").json()["expiring"] == 335
    first = export(source, tmp_path / "f").decode().splitlines()
    assert first[0] == HEADER % 2
    assert {unb64(line["pair"]): line.get("expires") for line in map(json.loads, first[1:]) if "pair" in line} == there
    done = imported(target, tmp_path / "f", "--json")
    assert summary(done)["pairs"] == 503 and "ended" not in summary(done)
    assert ends(target.client()) == there and contents(target.client()) == contents(client)
    assert export(target, tmp_path / "g") == read(tmp_path / "f")
    imported(target, tmp_path / "f", "--database", "other")
    imported(target, tmp_path / "f", "--database", "other", "--merge")
    assert ends(target.client(db="other")) == there
    for server in (source, target):
        server.stop()
        tool("export", tmp_path / "stopped", "--data", server.data, "--force")
        assert read(tmp_path / "stopped") == read(tmp_path / "f")
        tool("check", server.data)
    cut = read(tmp_path / "f")[:9000]
    (tmp_path / "cut").write_bytes(cut)
    tool("export", tmp_path / "cut", "--data", source.data, "--resume")
    assert read(tmp_path / "cut") == read(tmp_path / "f")


def test_without_ends_it_is_as_it_was(launch, tmp_path):
    """Format 1, which every program reads, also of a database in which something ended; and what was lasting stays so."""
    server = launch()
    client = server.client()
    put(client, "a", 500)
    put(client, "b", 0.05)
    put(client, "a")
    client.put_new(b"c", b"v")
    time.sleep(0.06)
    lines = export(server, tmp_path / "f").decode().splitlines()
    assert lines[0] == HEADER % 1 and "expires" not in "".join(lines) and len(lines) == 6
    server.stop()
    tool("export", tmp_path / "g", "--data", server.data)
    assert read(tmp_path / "g") == read(tmp_path / "f")


def test_a_lasting_name_takes_an_end_by_merging_and_loses_it(launch, tmp_path):
    server = launch()
    put(server.client(), "both", 700)
    export(server, tmp_path / "ending")
    put(server.client(), "both")
    export(server, tmp_path / "lasting")
    shown = {line["expires"] for line in map(json.loads, read(tmp_path / "ending").decode().splitlines()) if "expires" in line}
    imported(server, tmp_path / "ending", "--merge")
    assert {ends(server.client())[b"both"]} == shown
    imported(server, tmp_path / "lasting", "--merge")
    assert ends(server.client())[b"both"] is None


def test_what_has_ended_meanwhile(launch, tmp_path):
    """Neither the pair nor its value is there afterwards, and it is said how many; a backup, too, in a running server and stopped."""
    server = launch()
    client = server.client()
    put(client, "kept", 500)
    ttl, begun = 0.125, 0
    while time.time() >= begun + ttl:  # later, if the first may have ended before they were in both
        ttl, begun = ttl * 4, time.time()
        gone = [put(client, "short:%d" % i, ttl) for i in range(3)]
        export(server, tmp_path / "f", "--force")
        made = summary(tool("backup", tmp_path / ("b%g" % ttl), "--connect", url(server), "--json"))["file"]
    wait_until(max(pair["expires"] for pair in gone))
    assert client.get("/databases/default").json()["pairs"] == 1  # nobody has looked before
    done = imported(server, tmp_path / "f", "--database", "copy", "--json")
    assert (summary(done)["pairs"], summary(done)["ended"]) == (1, 3)
    tool("restore", made, "--database", "restored", "--connect", url(server))
    tool("restore", made, "--data", tmp_path / "data")
    for name in ("copy", "restored"):
        there = server.client(db=name)
        assert ends(there) == ends(client) and list(contents(there)[1].values()) == [b"value"], name
        assert all(there.get("/kv/%d" % pair["key"]).status == 404 for pair in gone), name
    said = imported(server, tmp_path / "f", "--database", "second").stdout
    assert "3 pairs had ended" in said
    tool("export", tmp_path / "g", "--data", tmp_path / "data")
    tool("export", tmp_path / "h", "--connect", url(server), "--database", "default")
    assert read(tmp_path / "g") == read(tmp_path / "h") and b"short" not in read(tmp_path / "g")
    tool("check", tmp_path / "data")


def test_what_has_ended_takes_nothing_away_by_merging(launch, tmp_path):
    """The database has the same name, and its pair has not ended."""
    server = launch()
    client = server.client()
    put(client, "kept")
    ttl, begun = 0.125, 0
    while time.time() >= begun + ttl:  # later, if it may have ended before it was in the file
        ttl, begun = ttl * 4, time.time()
        gone = put(client, "short", ttl)
        export(server, tmp_path / "f", "--force")
    wait_until(gone["expires"])
    target = server.client(db="target")
    put(target, "short", None, b"another")
    done = imported(server, tmp_path / "f", "--database", "target", "--merge", "--json")
    assert (summary(done)["pairs"], summary(done)["ended"]) == (1, 1)
    pairs, values = contents(target)
    assert values[pairs[b"short"]] == b"another"
    assert ends(target) == {b"kept": None, b"short": None}
    assert sorted(values.values()) == [b"another", b"value"]
    server.stop()
    tool("check", server.data)


def test_the_first_end_comes_while_it_is_exported(launch, tmp_path):
    """A file of format 1 cannot say it: it is refused, and not left out."""
    server = launch()
    for name in ("a", "b", "c"):
        put(server.client(), name)
    whole = export(server, tmp_path / "f")
    (tmp_path / "f").write_bytes(whole[:90])
    put(server.client(), "c", 900)
    done = export(server, tmp_path / "f", "--resume", check=1)
    assert "--force" in done.stderr and "ends" in done.stderr
    assert export(server, tmp_path / "f", "--force").startswith((HEADER % 2).encode())


def test_damaged_ends(launch, tmp_path):
    server = launch()
    put(server.client(), "a", 900)
    whole = export(server, tmp_path / "whole").decode()
    pair = whole.splitlines()[1]
    expires = json.loads(pair)["expires"]
    for what, text in (("format 1", whole.replace('"format":2', '"format":1')), ("no end", whole.replace(":%d}" % expires, ":0}")),
                       ("late", whole.replace(":%d}" % expires, ":281474976711}")), ("text", whole.replace(":%d}" % expires, ':"9"}')),
                       ("other", whole.replace(":%d}" % expires, ":%d}" % (expires + 1))), ("member", whole.replace("expires", "expirex"))):
        assert text != whole, what
        (tmp_path / "f").write_text(text)
        done = imported(server, tmp_path / "f", "--database", "target", check=3)
        assert "line %d:" % (4 if what == "other" else 2) in done.stderr, (what, done.stderr)
        assert server.client().get("/databases/target").status == 404, what


def test_a_server_that_knows_no_ends(launch, tmp_path):
    """It would keep such pairs for ever: nothing of the file is sent."""
    asked = []

    class Old(http.server.BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            asked.append((self.command, self.path, self.rfile.read(length)))
            found = {"/batch": (200, b'{"end":{"count":0,"failed":0}}\n'), "/databases": (200, b'{"pairs":0,"values":0,"shards":[{}]}')}
            status, body = found.get("/" + self.path.split("/")[1].split("?")[0], (404, b'{"code":"pair_not_found","status":404,"detail":"no"}'))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    server = launch()
    put(server.client(), "a", 900)
    export(server, tmp_path / "f")
    old = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Old)
    threading.Thread(target=old.serve_forever, daemon=True).start()
    done = tool("import", tmp_path / "f", "--connect", "127.0.0.1:%d" % old.server_address[1], check=1)
    old.shutdown()
    old.server_close()
    assert "for ever" in done.stderr and not any(body for _, _, body in asked)


def test_killed_it_goes_on(launch, tmp_path):
    server = launch()
    batches(server.client(), [{"op": "pair_put", "pair": b64(b"n:%05d" % i), "value": b64(b"%d" % i), "ttl": 900} for i in range(4000)])
    export(server, tmp_path / "f")
    process = spawn("import", tmp_path / "f", "--connect", url(server), "--database", "copy")
    time.sleep(0.05)
    process.kill()
    process.communicate()
    imported(server, tmp_path / "f", "--database", "copy")
    assert ends(server.client(db="copy")) == ends(server.client())
