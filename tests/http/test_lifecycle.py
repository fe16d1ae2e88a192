"""Start, drain, stop, crash; options, their sources and their help."""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from harness import BINARY, HANG, b64, wait_for

OPTIONS = {"listen": "127.0.0.1:8080", "data": None, "http-threads": None, "durability": "sync", "max-value-size": None, "max-batch-ops": "100000",
           "max-batch-bytes": None, "max-connections": None, "max-connections-per-address": None, "max-streams": None, "header-timeout": None,
           "body-timeout": None, "idle-timeout": None, "drain-seconds": None, "tokens": None, "allow-anonymous": "false", "tls-cert": None,
           "tls-key": None, "tls-min": "1.2", "tls-ciphers": None, "tls-client-ca": None, "tls-client-crl": None, "line-tls": "false", "log-format": "json", "access-log": "true", "config": None, "reduce-cache-bytes": None, "scan-workers": None,
           "shards": None, "checkpoint-log-bytes": None, "changes-bytes": None, "dirty-bytes": None, "value-order": "resting", "read-ahead": "auto", "port-file": None, "create-databases": "auto",
           "max-databases": "1000", "memory-bytes": "0", "request-memory-bytes": None, "admin-listen": "none", "admin-port-file": None}


def run(*args, env=None, timeout=HANG):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
    clean["CHEETAH_LINE_LISTEN"] = "none"
    clean.update(env or {})
    return subprocess.run([BINARY, "serve"] + list(args), stdin=subprocess.DEVNULL, capture_output=True, text=True, env=clean, timeout=timeout)


# ---- stopping


def test_drain(launch):
    """Requests are served meanwhile, on new connections too. It lasts an hour here, and a second signal ends it."""
    server = launch("--drain-seconds", "3600")
    client = server.client()
    client.upsert(b"a", b"v")
    server.signal(signal.SIGTERM)
    answer = wait_for(lambda: client.get("/readyz").status == 503 and client.get("/readyz"), what="readyz 503")
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert client.get("/healthz").status == 200
    assert client.upsert(b"b", b"w") > 0, "requests still work while draining"
    fresh = server.client()
    assert [pair for pair, _ in fresh.scan()] == [b"a", b"b"], "on new connections too"
    server.stop()
    server.restart()
    assert [value for _, _, value in server.client().scan(values="true")] == [b"v", b"w"]
    server.kill()


def test_a_drain_ends(launch):
    server = launch("--drain-seconds", "3")
    started = time.monotonic()
    server.stop()
    assert 1 < time.monotonic() - started


def test_no_drain(launch):
    server = launch("--drain-seconds", "0")
    server.client().upsert(b"a", b"v")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_sigint_is_like_sigterm(launch):
    server = launch("--drain-seconds", "0")
    server.signal(signal.SIGINT)
    assert server.wait() == 0


def test_who_finds_the_data_locked_writes_no_port(launch, tmp_path):
    """The files say where the server is that has the directories, not where one was that never served."""
    server = launch()
    files = {name: tmp_path / name for name in ("port-file", "line-port-file", "admin-port-file")}
    for file in files.values():
        file.write_text("mine\n")
    second = run("--data", server.data, "--listen", "127.0.0.1:0", "--line-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
                 *(word for name, file in files.items() for word in ("--" + name, str(file))))
    assert second.returncode == 1 and "locked" in second.stderr
    assert [file.read_text() for file in files.values()] == ["mine\n"] * 3


def test_idle_connections_do_not_hold_it_up(launch):
    server = launch("--drain-seconds", "1", "--idle-timeout", "3600", "--header-timeout", "3600", "--body-timeout", "3600")
    raws = [server.raw() for _ in range(20)]
    raws[0].send(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").answer()
    raws[1].send(b"POST /kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
    raws[2].send(b"GET /ver")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    for raw in raws:
        raw.close()


def test_connections_that_arrive_while_it_stops(launch):
    """The acceptor may be handing a connection to a thread that ends; a sanitizer sees what the exit code does not."""
    for _ in range(8):
        server = launch()
        over = threading.Event()

        def knock():
            while not over.is_set():
                with socket.socket() as s:
                    s.settimeout(0.5)
                    if s.connect_ex(("127.0.0.1", server.port)) != 0:
                        time.sleep(0.001)

        threads = [threading.Thread(target=knock) for _ in range(6)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.1)
            server.stop()
        finally:
            over.set()
            for thread in threads:
                thread.join()


def test_second_signal_ends_at_once(launch):
    server = launch("--drain-seconds", "3600")
    client = server.client()
    for i in range(50):
        client.upsert(b"p%d" % i, b"v%d" % i)
    server.signal(signal.SIGTERM)
    wait_for(lambda: client.get("/readyz").status == 503, what="readyz 503")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    server.restart()
    assert {pair: value for pair, _, value in server.client().scan(values="true")} == {b"p%d" % i: b"v%d" % i for i in range(50)}
    server.kill()


def fill(client, count=20, size=4 << 20):
    for i in range(count):
        client.upsert(b"p%02d" % i, bytes([i + 1]) * size)


def test_streams_finish_while_draining(launch):
    server = launch("--drain-seconds", "3600", "--durability", "os", "--idle-timeout", "3600")
    fill(server.client())
    with server.raw(receive_buffer=65536) as raw:
        raw.send(b"GET /pairs/p?values=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.head()[0] == 200
        server.signal(signal.SIGTERM)
        client = server.client()
        wait_for(lambda: client.get("/readyz").status == 503, what="readyz 503")
        body, part = [], raw.chunk()
        while part:
            body.append(part)
            part = raw.chunk()
        lines = b"".join(body).splitlines()
        assert len(lines) == 21 and json.loads(lines[-1]) == {"end": {"count": 20, "next": None}}
    server.stop()


def test_streams_that_do_not_finish_end_with_an_error_line(launch):
    server = launch("--drain-seconds", "1", "--durability", "os", "--idle-timeout", "3600")
    fill(server.client())
    raws = [server.raw(receive_buffer=8192) for _ in range(2)]
    for raw in raws:
        raw.send(b"GET /pairs/p?values=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.head()[0] == 200
    server.close_clients()
    server.signal(signal.SIGTERM)
    reader, never = raws
    lines = b""
    time.sleep(1.5)  # beyond the drain time: the stream must not have been able to finish
    try:
        part = reader.chunk()
        while part:
            lines = (lines + part)[-100000:]
            part = reader.chunk()
        last = lines.rstrip(b"\n").rpartition(b"\n")[2]
        assert set(json.loads(last)) <= {"end", "error"}, last[:200]
        if "error" in json.loads(last):
            assert json.loads(last)["error"]["status"] == 503
    except EOFError:
        pass  # cut off: neither line
    assert server.wait() == 0, "a reader that has stopped does not hold it up"
    reader.close()
    never.close()


# ---- crashes


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_keeps_acknowledged_writes(launch, seed):
    server = launch("--durability", "sync", "--shards", "2", "--access-log", "false")
    acknowledged, doubtful = {}, {}

    def write(number):
        client, i = server.client(check=False), 0
        while True:
            pair, value = b"w%d:%06d" % (number, i % 500), b"%d-%d" % (number, i)
            doubtful[pair] = value
            try:
                if i % 10 == 9:
                    operations = [{"op": "pair_put", "pair": b64(b"b%d:%d" % (number, j)), "value": b64(value)} for j in range(20)]
                    assert client.batch(operations, atomic="true").status == 200
                    acknowledged[b"batch", number] = value
                client.upsert(pair, value)
            except Exception:  # noqa: BLE001
                return
            acknowledged[pair] = value
            i += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(acknowledged) > 200 * seed, what="writes")
    server.process.kill()
    for thread in threads:
        thread.join()
    server.wait()
    server.clients = []
    server.restart()
    found = {pair: value for pair, _, value in server.client().scan(values="true")}
    for pair, value in acknowledged.items():
        if isinstance(pair, bytes):
            assert found[pair] in (value, doubtful[pair]), pair
    for number in range(4):
        batch = {found.get(b"b%d:%d" % (number, j)) for j in range(20)}
        assert len(batch) == 1, "an atomic batch is there wholly or not at all"
        if (b"batch", number) in acknowledged:
            at_least = int(acknowledged[b"batch", number].split(b"-")[1])
            assert int(batch.pop().split(b"-")[1]) >= at_least
    keys = [line["key"] for line in server.client().get("/kv", values="false").entries()]
    assert server.client().insert(b"new") not in keys


def test_kill_and_restart_again_and_again(launch):
    server, model = launch("--durability", "os", "--shards", "2"), {}
    for round_number in range(4):
        client = server.client()
        for i in range(50):
            pair = b"p%d" % (i * 7 % 60)
            model[pair] = b"%d-%d" % (round_number, i)
            client.upsert(pair, model[pair])
        server.kill()
        server.restart()
        assert {pair: value for pair, _, value in server.client().scan(values="true")} == model


# ---- options


def printed(*args, env=None):
    """--print-config as {name: (value, source)}."""
    result = run("--print-config", *args, env=env)
    assert result.returncode == 0, result.stderr
    rows = {}
    for line in result.stdout.splitlines():
        if line.strip() and not line.startswith("#"):
            match = re.fullmatch(r"([a-z-]+) *= *(.*?) *# *(\S.*)", line)
            assert match, line
            rows[match.group(1)] = (match.group(2), match.group(3))
    return rows


def test_print_config(tmp_path):
    rows = printed()
    assert set(OPTIONS) <= set(rows)
    for name, default in OPTIONS.items():
        assert rows[name][1] == "default", name
        if default is not None:
            assert rows[name][0] == default


def test_precedence(tmp_path):
    file = tmp_path / "conf"
    file.write_text("# a comment\n\nmax-streams = 11\nmax-connections=12   # after a value\n  shards =  3  \ndurability = os\n")
    env = {"CHEETAH_MAX_STREAMS": "21", "CHEETAH_SHARDS": "4"}
    rows = printed("--config", str(file), "--max-streams", "31", env=env)
    assert rows["max-streams"][0] == "31" and "flag" in rows["max-streams"][1]
    assert rows["shards"][0] == "4" and "env" in rows["shards"][1]
    assert rows["max-connections"][0] == "12" and "file" in rows["max-connections"][1]
    assert rows["durability"][0] == "os" and "file" in rows["durability"][1]
    assert rows["idle-timeout"][1] == "default"
    rows = printed("--max-streams=31", env=dict(env, CHEETAH_CONFIG=str(file)))
    assert rows["max-streams"][0] == "31" and rows["max-connections"][0] == "12"


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_has_a_variable(name):
    values = {"durability": "os", "value-order": "always", "read-ahead": "never", "create-databases": "admin", "log-format": "text", "access-log": "false", "allow-anonymous": "true", "listen": "127.0.0.1:1", "data": "/tmp/x",
              "tokens": "/dev/null", "config": "/dev/null", "tls-cert": "c", "tls-key": "k", "tls-min": "1.3", "tls-ciphers": "PFS", "tls-client-ca": "c", "tls-client-crl": "c", "line-tls": "true", "port-file": "p", "checkpoint-log-bytes": str(1 << 21),
              "request-memory-bytes": str(1 << 21)}
    value = values.get(name, "7777" if name.endswith(("bytes", "ops", "size")) else "7")
    rows = printed(env={"CHEETAH_" + name.upper().replace("-", "_"): value})
    assert rows[name][0] == value and "env" in rows[name][1]


def test_what_is_printed_can_be_read_back(tmp_path):
    result = run("--print-config", "--max-streams", "5", "--durability", "os")
    file = tmp_path / "conf"
    file.write_text(result.stdout)
    rows = printed("--config", str(file))
    assert rows["max-streams"][0] == "5" and "file" in rows["max-streams"][1] and rows["durability"][0] == "os"


@pytest.mark.parametrize("args", [["--no-such-option"], ["--no-such-option", "5"], ["stray"], ["--max-streams"], ["--max-streams", "0"],
                                  ["--max-streams", "x"], ["--max-streams", "-1"], ["--max-streams", "5x"], ["--durability", "maybe"], ["--listen", ""],
                                  ["--listen", "127.0.0.1"], ["--listen", "127.0.0.1:99999"], ["--listen", "127.0.0.1:x"], ["--access-log", "perhaps"],
                                  ["--log-format", "xml"], ["--shards", "257"], ["--shards", "0"], ["--max-value-size", "0"],
                                  ["--max-value-size", "99999999999999999999999"], ["--header-timeout", "0"], ["--drain-seconds", "-1"]])
def test_bad_options(tmp_path, args):
    result = run("--data", str(tmp_path / "data"), *args)
    assert result.returncode == 2, (args, result)
    assert result.stderr.strip(), "it says why"
    assert "Traceback" not in result.stderr and len(result.stderr.splitlines()) < 10
    if len(args) == 2 and args[1]:
        assert args[0].strip("-") in result.stderr


def test_bad_values_elsewhere(tmp_path):
    result = run("--data", str(tmp_path / "data"), env={"CHEETAH_MAX_STREAMS": "many"})
    assert result.returncode == 2 and "CHEETAH_MAX_STREAMS" in result.stderr and "many" in result.stderr
    for text in ("max-streams = many\n", "no-such-option = 5\n", "just words\n", "max-streams\n"):
        (tmp_path / "conf").write_text("# first line\n" + text)
        result = run("--data", str(tmp_path / "data"), "--config", str(tmp_path / "conf"))
        assert result.returncode == 2, text
    assert run("--config", str(tmp_path / "missing")).returncode in (1, 2)


def test_help():
    result = run("--help")
    assert result.returncode == 0 and result.stderr == ""
    for name, default in OPTIONS.items():
        assert "--" + name in result.stdout, name
        if default:
            assert default in result.stdout
    assert "CHEETAH_" in result.stdout


def test_the_help_says_the_defaults():
    text = run("--help").stdout
    for name, (value, _) in printed().items():
        if value and not name.startswith("print"):
            section = text[text.index("--" + name):][:600]
            assert value in section, (name, value)


def test_port_in_use(launch, tmp_path):
    server = launch()
    result = run("--listen", "127.0.0.1:%d" % server.port, "--data", str(tmp_path / "data"))
    assert result.returncode == 1 and str(server.port) in result.stderr
    assert server.client().get("/version").status == 200


def test_directory_in_use(launch):
    server = launch()
    result = run("--listen", "127.0.0.1:0", "--data", server.data)
    assert result.returncode in (1, 3) and server.data in result.stderr


def test_several_directories(launch, tmp_path):
    data = "%s,%s" % (tmp_path / "one", tmp_path / "two")
    server = launch("--shards", "4", data=data)
    client = server.client()
    client.put_all({b"p%d" % i: b"v" for i in range(1000)})
    server.stop()
    server.restart()
    assert len(server.client().scan(values="true")) == 1000
    text = server.client().get("/databases/default").body.decode()
    assert str(tmp_path / "one") in text and str(tmp_path / "two") in text
    server.stop()
    for folder in ("one", "two"):
        assert sum(len(files) for _, _, files in os.walk(tmp_path / folder)) > 0


def test_the_port_file(launch):
    server = launch()
    with open(server.port_file, encoding="ascii") as file:
        assert file.read() == "%d\n" % server.port
    with socket.create_connection(("127.0.0.1", server.port), timeout=HANG):
        pass
