"""cheetah-db export and import: what comes back is what was there, to the byte and to the key, whatever happens in between."""
import fcntl
import http.server
import json
import os
import random
import signal
import subprocess
import threading
import time

import pytest
from tooling import (MARKER, awkward, b64, batches, contents, environment, export, fill, hexed, kill_as_it_goes, read, spawn, start, summary, tool,
                     unb64, url)
from harness import BINARY, certificates, damage


def imported(server, path, *flags, check=0, **more):
    return tool("import", path, "--connect", url(server), *flags, check=check, **more)


# ---- there and back --------------------------------------------------------------------------------------------------


def test_round_trip_is_byte_identical(launch, tmp_path):
    source, target = launch(), launch()
    awkward(source.client())
    first = export(source, tmp_path / "1")
    done = imported(target, tmp_path / "1", "--json")
    pairs, values = contents(source.client())
    assert summary(done) == {"from": str(tmp_path / "1"), "database": "default", "pairs": len(pairs), "values": len(values),
                             "key_offset": 0, "resumed": False}
    assert export(target, tmp_path / "2") == first
    assert contents(target.client()) == (pairs, values)
    third = launch("--shards", "3")  # another geometry
    imported(third, tmp_path / "2")
    assert export(third, tmp_path / "3") == first
    for server in (source, target, third):
        server.stop()
        tool("export", tmp_path / "stopped", "--data", server.data, "--force")
        assert read(tmp_path / "stopped") == first
        tool("check", server.data)


def test_the_format(launch, tmp_path):
    server = launch()
    client = server.client()
    client.put_new(b"ctx:", b"hello")
    client.map(b"other", 1)
    lines = export(server, tmp_path / "f").decode().splitlines()
    assert lines[:-1] == ['{"cheetah":"export","format":1,"database":"default"}', '{"pair":"Y3R4Og==","key":1}', '{"pair":"b3RoZXI=","key":1}',
                          '{"key":1,"value":"aGVsbG8="}']
    end = json.loads(lines[-1])["end"]
    assert end["pairs"] == 2 and end["values"] == 1 and end["last_key"] == 1 and len(end["crc32c"]) == 8
    out = tool("export", "-", "--connect", url(server))
    assert out.stdout == "\n".join(lines) + "\n" and out.stderr == ""


def test_the_empty_database(launch, tmp_path):
    server = launch()
    first = export(server, tmp_path / "f")
    assert first.count(b"\n") == 2
    imported(server, tmp_path / "f")
    assert contents(server.client()) == ({}, {})
    assert export(server, tmp_path / "g") == first
    assert server.client().get("/pairs/*", count="true").json()["pairs"] == 0


def test_pairs_without_values(launch, tmp_path):
    source, target = launch(), launch()
    client = source.client()
    client.map(b"a", 5)
    client.map(b"b", (1 << 48) - 1)
    first = export(source, tmp_path / "f")
    imported(target, tmp_path / "f")
    assert export(target, tmp_path / "g") == first


def test_new_keys_do_not_meet_imported_ones(launch, tmp_path):
    source, target = launch(), launch()
    fill(source.client(), 300)
    pairs, values = contents(source.client())
    export(source, tmp_path / "f")
    imported(target, tmp_path / "f")
    client = target.client()
    fresh = [client.insert(b"new") for _ in range(100)] + [client.upsert(b"new:%d" % i, b"new") for i in range(100)]
    assert min(fresh) > max(values) and len(set(fresh)) == 200
    assert {key: client.read(key) for key in values} == values


def test_another_database(launch, tmp_path):
    server = launch()
    fill(server.client(), 300)
    export(server, tmp_path / "f")
    imported(server, tmp_path / "f", "--database", "copy", "--shards", "5")
    assert contents(server.client(db="copy")) == contents(server.client())
    assert len(server.client().get("/databases/copy").json()["shards"]) == 5
    body = export(server, tmp_path / "g", "--database", "copy")
    assert body.split(b"\n", 1)[1].rsplit(b"\n", 2)[0] == read(tmp_path / "f").split(b"\n", 1)[1].rsplit(b"\n", 2)[0]
    done = export(server, tmp_path / "h", "--database", "nothere", check=1)
    assert "database_not_found" in done.stderr


def test_an_import_goes_to_the_database_the_file_names(launch, tmp_path):
    server = launch()
    server.client(db="named").upsert(b"p", b"v")
    export(server, tmp_path / "f", "--database", "named")
    other = launch()
    imported(other, tmp_path / "f")
    assert list(contents(other.client(db="named"))[0]) == [b"p"]


def test_merge_moves_all_keys_by_the_same_distance(launch, tmp_path):
    source, target = launch(), launch()
    awkward(source.client())
    pairs, values = contents(source.client())
    there = target.client()
    fill(there, 200, seed=3)
    there.upsert(b"shared 1", b"was here")
    old_pairs, old_values = contents(there)
    export(source, tmp_path / "f")
    done = imported(target, tmp_path / "f", check=1)
    assert "not empty" in done.stderr and "--merge" in done.stderr and contents(there) == (old_pairs, old_values)
    move = summary(imported(target, tmp_path / "f", "--merge", "--json"))["key_offset"]
    assert move >= max(old_values) and move % 8 == 0
    new_pairs, new_values = contents(there)
    assert new_values == {**old_values, **{key + move: value for key, value in values.items()}}
    assert new_pairs == {**old_pairs, **{name: key + move for name, key in pairs.items()}}


def test_a_batch_smaller_than_usual(launch, tmp_path):
    source = launch()
    awkward(source.client())
    first = export(source, tmp_path / "f")
    target = launch("--max-batch-ops", "7", "--max-batch-bytes", "5M")
    imported(target, tmp_path / "f")
    assert export(target, tmp_path / "g") == first


def test_a_value_the_target_does_not_take(launch, tmp_path):
    source, target = launch(), launch("--max-value-size", "1M")
    awkward(source.client())
    first = export(source, tmp_path / "f").split(b"\n")
    line = next(i for i, text in enumerate(first, 1) if text.startswith(b'{"key"') and len(text) > 2 << 20)
    done = imported(target, tmp_path / "f", check=1)
    # such a line is refused before anybody knows what it holds
    assert "line %d:" % line in done.stderr and "batch_too_large" in done.stderr, done.stderr


def test_the_marker_is_gone_and_no_data(launch, tmp_path):
    source, target = launch(), launch()
    fill(source.client(), 300)
    export(source, tmp_path / "f")
    imported(target, tmp_path / "f")
    client = target.client()
    assert client.get("/pairs/" + hexed(MARKER), exact="true").status == 404
    client.upsert(MARKER, b"{}")  # as if an import had not finished
    done = export(target, tmp_path / "g", check=1)
    assert "has not finished" in done.stderr
    done = imported(target, tmp_path / "f", check=1)
    assert "cannot be read" in done.stderr or "has not finished" in done.stderr


# ---- killed ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An export of some 25 MB, and the server it comes from."""
    server = start()
    client = server.client(check=False)
    fill(client, 30000, seed=5, value_bytes=900)
    path = tmp_path_factory.mktemp("large") / "export"
    export(server, path)
    yield server, path
    server.finish()


def test_kill_import(launch, large, tmp_path):
    target, path = launch("--max-batch-ops", "1000"), large[1]  # in many steps
    client = target.client(check=False)
    assert kill_as_it_goes(client, ("import", path, "--connect", url(target)), 6, random.Random(11)) >= 2, "too fast to be killed"
    assert "went on" in imported(target, path).stdout
    assert export(target, tmp_path / "f") == read(path)
    imported(target, path)  # as if it had been killed after its last step
    assert export(target, tmp_path / "f", "--force") == read(path)
    client.upsert(b"new", b"new")
    assert "not empty" in imported(target, path, check=1).stderr
    target.stop()
    tool("check", target.data)


def test_kill_the_server_during_an_import(launch, large, tmp_path):
    target, path = launch("--max-batch-ops", "1000"), large[1]
    rng, client = random.Random(12), target.client(check=False)
    failed, last = 0, None
    for _ in range(4):
        process = spawn("import", path, "--connect", url(target))
        while process.poll() is None:
            answer = client.get("/pairs/" + hexed(MARKER), exact="true", values="true")
            if answer.status == 200 and answer.json()["value"] != last:
                last = answer.json()["value"]
                time.sleep(rng.uniform(0, 0.02))
                break
        target.kill()
        out, err = process.communicate(timeout=120)
        failed += process.returncode == 1
        assert process.returncode in (0, 1), err
        target.restart()
    assert failed >= 2
    if process.returncode != 0:
        imported(target, path)
    assert export(target, tmp_path / "f") == read(path)


def test_a_killed_import_begins_with_the_range(launch, large, tmp_path):
    """The first batch makes the marker: the offset is the same for a second run that never saw its answer."""
    target, path = launch(), large[1]
    client = target.client(check=False)
    client.upsert(b"there", b"x")
    process = spawn("import", path, "--connect", url(target), "--merge")
    while client.get("/pairs/" + hexed(MARKER), exact="true").status != 200:
        assert process.poll() is None
    process.kill()
    process.communicate()
    line = client.get("/pairs/" + hexed(MARKER), exact="true", values="true").json()
    state = json.loads(unb64(line["value"]))
    done = summary(imported(target, path, "--merge", "--json"))
    assert done["resumed"] is True
    assert done["key_offset"] == (line["key"] - state["reserved"] - 1) // 8 * 8 > 0
    values = [json.loads(text) for text in read(path).splitlines() if text.startswith(b'{"key"')]
    for value in random.Random(1).sample(values, 50):
        assert client.read(value["key"] + done["key_offset"]) == unb64(value["value"])


def test_kill_export(large, tmp_path):
    server, path = large
    partial, out = 0, tmp_path / "f"
    for turn in range(40):
        if turn >= 4 and partial:
            break
        if out.exists() and out.stat().st_size == path.stat().st_size:
            out.unlink()  # it was faster than this test: once more
        size = out.stat().st_size if out.exists() else 0
        process = spawn("export", out, "--connect", url(server), "--resume")
        while process.poll() is None and (not out.exists() or out.stat().st_size <= size):
            pass
        process.kill()
        process.communicate()
        if 100 < out.stat().st_size < path.stat().st_size:
            partial += 1
            done = tool("import", out, "--connect", url(server), "--database", "never", check=3)
            assert "without an end line" in done.stderr
    tool("export", out, "--connect", url(server), "--resume")
    assert partial >= 1, "too fast to be killed"
    assert read(out) == read(path)


def test_resume_from_every_kind_of_place(launch, tmp_path):
    server = launch()
    awkward(server.client())
    whole = export(server, tmp_path / "whole")
    lines = [i + 1 for i, c in enumerate(whole) if c == 10]
    cuts = set(lines) | {at - 1 for at in lines} | {at + 5 for at in lines[:-1]}
    cuts = {0, 1, 30, len(whole) - 1, len(whole)} | set(random.Random(4).sample(sorted(cuts), 40))
    for cut in sorted(cuts):
        (tmp_path / "f").write_bytes(whole[:cut])
        done = tool("export", tmp_path / "f", "--connect", url(server), "--resume", "--json")
        assert read(tmp_path / "f") == whole, cut
        assert summary(done)["bytes"] == len(whole) and summary(done)["resumed"] == (cut > 52)
    server.stop()
    for cut in sorted(cuts)[::5]:
        (tmp_path / "f").write_bytes(whole[:cut])
        tool("export", tmp_path / "f", "--data", server.data, "--resume")
        assert read(tmp_path / "f") == whole, cut


def test_resume_is_for_the_same_database(launch, tmp_path):
    server = launch()
    server.client(db="other").upsert(b"p", b"v")
    export(server, tmp_path / "f", "--database", "other")
    done = export(server, tmp_path / "f", "--resume", check=2)
    assert "'other'" in done.stderr
    done = export(server, tmp_path / "f", check=2)
    assert "--resume" in done.stderr and "--force" in done.stderr


def test_two_exports_to_one_file(launch, tmp_path):
    """What another writes meanwhile stays as it is, whether it is still at it or has just made the file."""
    server = launch()
    awkward(server.client())
    whole = export(server, tmp_path / "f")
    for flag, begun in (("--force", b"another's"), ("--resume", whole[:100])):
        (tmp_path / "f").write_bytes(begun)
        with open(tmp_path / "f", "r+b") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            done = export(server, tmp_path / "f", flag, check=1)
            assert "another process is writing to it" in done.stderr and read(tmp_path / "f") == begun
    (tmp_path / "f").unlink()

    class Between(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            (tmp_path / "f").write_text("another's")
            self.send_response(200)
            self.send_header("Content-Length", "22")
            self.end_headers()
            self.wfile.write(b'{"pairs":0,"values":0}')

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Between) as front:
        thread = threading.Thread(target=front.serve_forever)
        thread.start()
        try:
            done = tool("export", tmp_path / "f", "--connect", "http://127.0.0.1:%d" % front.server_address[1], check=2)
        finally:
            front.shutdown()
            thread.join()
    assert "has just written to it" in done.stderr and read(tmp_path / "f") == b"another's"


# ---- damaged files ---------------------------------------------------------------------------------------------------


def damaged_files(whole):
    """(what, bytes, line that must be named or None)"""
    lines = whole.splitlines(keepends=True)
    first_value = next(i for i, text in enumerate(lines) if text.startswith(b'{"key"'))
    end = len(lines)

    def with_line(number, text):
        return b"".join(lines[:number - 1]) + text + b"".join(lines[number:])

    yield "empty", b"", None
    yield "no header", b"".join(lines[1:]), 1
    yield "another format", whole.replace(b'"format":1', b'"format":3'), None
    yield "a database's name", whole.replace(b'"database":"default"', b'"database":"../x"'), 1
    yield "no end", b"".join(lines[:-1]), end
    yield "cut within a line", whole[:len(whole) // 2], None
    yield "cut within the end", whole[:-3], end
    yield "something after the end", whole + b"\n", end + 1
    yield "something without a line break after the end", whole + b"{", end + 1
    yield "a missing pair", b"".join(lines[:3] + lines[4:]), end - 1
    yield "a missing value", b"".join(lines[:first_value + 1] + lines[first_value + 2:]), end - 1
    yield "pairs out of order", b"".join(lines[:2] + [lines[3], lines[2]] + lines[4:]), 4
    yield "values out of order", b"".join(lines[:first_value] + [lines[first_value + 1], lines[first_value]] + lines[first_value + 2:]), first_value + 2
    yield "a pair twice", b"".join(lines[:3] + [lines[2]] + lines[3:]), 4
    yield "no JSON", with_line(5, b"{nonsense}\n"), 5
    yield "zeros", with_line(5, bytes(len(lines[4]) - 1) + b"\n"), 5
    yield "an empty line", with_line(5, b"\n"), 5
    yield "another member", with_line(5, lines[4].replace(b'"key"', b'"kez"')), 5
    yield "no base64", with_line(3, b'{"pair":"a$$=","key":1}\n'), 3
    yield "an empty name", with_line(2, b'{"pair":"","key":1}\n'), 2
    yield "a long name", with_line(2, b'{"pair":"%s","key":1}\n' % b64(b"\0" * 4097).encode()), 2
    yield "key 0", with_line(2, lines[1].rsplit(b":", 1)[0] + b":0}\n"), 2
    yield "a large key", with_line(2, lines[1].rsplit(b":", 1)[0] + b":281474976710656}\n"), 2
    yield "a negative key", with_line(2, lines[1].rsplit(b":", 1)[0] + b":-1}\n"), 2
    yield "one key changed", with_line(2, lines[1].rsplit(b":", 1)[0] + b":3}\n"), end
    yield "one bit of a value", with_line(first_value + 1, lines[first_value].replace(b"value\":\"A", b"value\":\"B")), end


def test_damaged_files(launch, tmp_path):
    server = launch()
    client = server.client()
    for i in range(20):
        client.upsert(b"name %d" % i, b"\0value %d" % i)
    whole = export(server, tmp_path / "whole")
    for what, data, line in damaged_files(whole):
        assert data != whole, what
        (tmp_path / "f").write_bytes(data)
        done = imported(server, tmp_path / "f", "--database", "target", check=None)
        assert done.returncode == (1 if what == "another format" else 3), (what, done.stderr)
        assert line is None or "line %d:" % line in done.stderr, (what, line, done.stderr)
        assert client.get("/databases/target").status == 404, what
    tool("export", tmp_path / "f", "--connect", url(server), "--force")
    imported(server, tmp_path / "f", "--database", "target")


def test_a_damaged_file_is_not_resumed(launch, tmp_path):
    server = launch()
    client = server.client()
    for i in range(20):
        client.upsert(b"name %d" % i, b"\0value %d" % i)
    whole = export(server, tmp_path / "whole")
    data = whole[:200] + b"\0" + whole[201:300]
    (tmp_path / "f").write_bytes(data)
    done = export(server, tmp_path / "f", "--resume", check=3)
    assert "line " in done.stderr and read(tmp_path / "f") == data


@pytest.mark.parametrize("data", [b"words", b"{", b'{"cheetah":"backup"', b'{"cheetah":"export"' + b" " * 200, b"\0" * 70])
def test_what_is_no_export_is_not_resumed(launch, tmp_path, data):
    """One line without an end: it is written over if it can be the beginning of an export, and stays if not."""
    server = launch()
    (tmp_path / "f").write_bytes(data)
    if data == b"{":
        export(server, tmp_path / "f", "--resume")
        assert read(tmp_path / "f") == export(server, tmp_path / "whole")
        return
    done = export(server, tmp_path / "f", "--resume", check=3)
    assert "line 1: not the header of an export" in done.stderr and read(tmp_path / "f") == data


def test_random_damage(launch, tmp_path):
    """One changed byte anywhere is noticed before anything is written."""
    server = launch()
    client = server.client()
    for i in range(20):
        client.upsert(b"name %d" % i, b"value %d" % i)
    whole = export(server, tmp_path / "whole")
    rng = random.Random(21)
    for _ in range(40):
        at = rng.randrange(len(whole))
        data = whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1:]
        (tmp_path / "f").write_bytes(data)
        done = imported(server, tmp_path / "f", "--database", "target", check=None)
        assert done.returncode in (1, 3), (at, done.stderr)
        assert client.get("/databases/target").status == 404, at


# ---- servers that do not help ----------------------------------------------------------------------------------------


def test_no_server(tmp_path):
    done = tool("export", tmp_path / "f", "--connect", "127.0.0.1:1", check=1)
    assert "127.0.0.1" in done.stderr and "connect" in done.stderr.lower()
    assert not os.listdir(tmp_path)
    for where in ("ftp://x", "http://u@h:1", "http://h:1/path", "http://h:1?x", "nonsense url"):
        done = tool("export", tmp_path / "g", "--connect", where, check=2)
        assert "--connect" in done.stderr, done.stderr


def test_tokens(launch, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("reader-token-0123456789abcdef read default\nwriter-token-0123456789abcdef write *\n")
    os.chmod(tokens, 0o600)
    server = launch("--tokens", str(tokens))
    for name, text in (("reader", "reader-token-0123456789abcdef\n"), ("writer", "writer-token-0123456789abcdef"), ("wrong", "nobody"), ("empty", "\n")):
        (tmp_path / name).write_text(text)
    done = export(server, tmp_path / "f", check=1)
    assert "unauthorized" in done.stderr
    done = export(server, tmp_path / "f", "--force", "--token-file", tmp_path / "wrong", check=1)
    assert "unauthorized" in done.stderr
    done = export(server, tmp_path / "f", "--force", "--token-file", tmp_path / "empty", check=2)
    done = export(server, tmp_path / "f", "--force", "--token-file", tmp_path / "nofile", check=1)
    assert "nofile" in done.stderr
    writer = ("--token-file", tmp_path / "writer")
    export(server, tmp_path / "f", "--force", *writer)
    assert "forbidden" in imported(server, tmp_path / "f", "--token-file", tmp_path / "reader", check=1).stderr
    imported(server, tmp_path / "f", "--database", "new", *writer)
    export(server, tmp_path / "g", env={"CHEETAH_TOKEN": "reader-token-0123456789abcdef"})
    assert read(tmp_path / "f") == read(tmp_path / "g")


def test_tls(launch, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    server = launch("--tls-cert", str(cert), "--tls-key", str(key), scheme="https", cafile=str(cert))
    server.client().upsert(b"p", b"v")
    done = export(server, tmp_path / "f", check=1)
    assert "certificate" in done.stderr
    export(server, tmp_path / "f", "--force", "--tls-ca", cert)
    imported(server, tmp_path / "f", "--database", "copy", "--tls-ca", cert)


def test_client_certificates(launch, tmp_path):
    authority, shown = certificates.Authority(tmp_path), certificates.self_signed(tmp_path)
    reader, writer = authority.sign("reader"), authority.sign("writer")
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:reader read *\ncert:writer admin *\n")
    server = launch("--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-client-ca", authority.cert, "--tokens", str(tokens), scheme="https",
                    cafile=shown.cert)

    def show(pair):
        return ("--tls-ca", shown.cert, "--tls-cert", pair.cert, "--tls-key", pair.key)

    plain = launch()
    plain.client().upsert(b"p", b"v")
    export(plain, tmp_path / "f")
    imported(server, tmp_path / "f", *show(writer))
    export(server, tmp_path / "g", *show(reader))
    assert read(tmp_path / "f").splitlines()[1:-1] == read(tmp_path / "g").splitlines()[1:-1]
    plain.client().upsert(b"q", b"v")
    export(plain, tmp_path / "more")
    imported(server, tmp_path / "more", *show(reader), check=1)
    export(server, tmp_path / "h", "--tls-ca", shown.cert, check=1)
    done = export(server, tmp_path / "h", "--tls-ca", shown.cert, "--tls-cert", writer.cert, check=2)
    assert "go together" in done.stderr


def test_the_stream_breaks_off(launch, large, tmp_path):
    server = launch()
    imported(server, large[1])
    process = spawn("export", tmp_path / "f", "--connect", url(server))
    time.sleep(0.05)
    server.kill()
    _, err = process.communicate(timeout=120)
    server.restart()
    if process.returncode == 0:
        pytest.skip("it was done before the server was killed")
    assert process.returncode == 1 and err
    export(server, tmp_path / "f", "--resume")
    assert read(tmp_path / "f") == read(large[1])


def test_the_disk_is_full(launch):
    server = launch()
    fill(server.client(), 3000)
    done = tool("export", "/dev/full", "--connect", url(server), "--force", check=None)
    assert done.returncode == 1 and done.stderr
    with open("/dev/full", "wb") as out:
        process = subprocess.run([BINARY, "export", "-", "--connect", url(server)], stdout=out, stderr=subprocess.PIPE, env=environment(), timeout=120)
    assert process.returncode == 1 and b"could not be written" in process.stderr


def test_written_to_meanwhile(launch, tmp_path):
    """Every pair that was there all the time is in the export, with its value."""
    server = launch()
    client = server.client(check=False)
    names = fill(client, 5000)
    before = contents(client)
    process = spawn("export", tmp_path / "f", "--connect", url(server))
    i = 0
    while process.poll() is None:
        batches(client, [{"op": "pair_put", "pair": b64(b"new %d %d" % (i, k)), "value": b64(b"v")} for k in range(100)])
        i += 1
    assert process.returncode == 0 and names
    target = launch()
    imported(target, tmp_path / "f")
    pairs, values = contents(target.client())
    assert {name: key for name, key in pairs.items() if not name.startswith(b"new ")} == before[0]
    assert all(key in values for name, key in pairs.items() if name.startswith(b"new "))
    assert before[1].items() <= values.items()


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [
    ("export",), ("export", "a", "b"), ("export", "a", "--database", "../x"), ("export", "-", "--resume"), ("export", "a", "--resume", "--force"),
    ("export", "a", "--nonsense"), ("import",), ("import", "a", "b"), ("import", "a", "--from-line", "h:1"), ("import", "a", "--decode-base64"),
    ("import", "--from-line", "h:1", "--keep-undecodable"), ("import", "a", "--shards", "257"), ("import", "a", "--database", ""),
    ("import", "a", "--from-database", "x"), ("import", "--from-line", 'h"x:1')])
def test_wrong_command_lines(args, tmp_path):
    done = subprocess.run([BINARY, *args], cwd=tmp_path, capture_output=True, env=environment(), timeout=120)
    assert done.returncode == 2 and done.stderr and not done.stdout, done
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("command", ["export", "import"])
def test_help(command):
    out = tool(command, "--help").stdout
    assert out.startswith("cheetah-db %s" % command) and "--connect" in out and "--json" in out and "Exit codes" in out
    assert max(map(len, out.splitlines())) <= 120
    assert tool(command, "-h").stdout == out and "cheetah-db %s" % command in tool("--help").stdout


def test_a_locked_directory(launch, tmp_path):
    server = launch()
    done = tool("export", tmp_path / "f", "--data", server.data, check=1)
    assert "in use" in done.stderr or "lock" in done.stderr
    assert tool("export", tmp_path / "g", "--data", tmp_path / "none", check=1).stderr
    assert not (tmp_path / "none").exists()


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [40, 300 << 10], ids=["short", "long"])
def test_a_damaged_value_ends_an_export(launch, tmp_path, size):
    """Exit code 3, and the key, whether the server runs or not; what an export cannot hold it does not leave out."""
    server = launch("--shards", "1", "--scrub-bytes-per-second", "0")
    keys = [server.client().upsert(b"n:%d" % i, b"." * size + b"<value %d>" % i) for i in range(4)]
    server.client().post("/databases/default/checkpoint")
    server.stop()
    damage(server.data, b"<value 2>")
    stopped = tool("export", tmp_path / "a", "--data", server.data, check=3)
    server.restart()
    running = export(server, tmp_path / "b", check=3)
    for done in (stopped, running):
        assert "value of key %d " % keys[2] in done.stderr and "checksum" in done.stderr, done.stderr
    assert b'"end"' not in read(tmp_path / "b")
