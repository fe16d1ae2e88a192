"""cheetah-db bench: it measures what it says, works in a database of its own, and tells what fails. No figure is judged here."""
import json
import re
import signal
import time

from harness import certificates
from tooling import spawn, tool, url, wait_for


def databases(server):
    return server.client().get("/databases").json()["databases"]


def test_every_load(launch):
    """A line of JSON for each: requests were answered, none failed, the times are in order; the database is gone afterwards."""
    server = launch("--durability", "os")
    done = tool("bench", "--connect", url(server), "--seconds", 1, "--keys", 2000, "--batch", 50, "--connections", 4, "--threads", 2, "--json",
                "--load", "point,put,batch,scan,predict,mix,mix50")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["load"] for row in rows] == ["point", "put", "batch", "scan", "predict", "mix", "mix50"]
    for row in rows:
        assert row["server"] == url(server) and row["failed"] == 0 and row["requests"] > 0 and row["per_second"] > 0 and row["bytes"] > 0, row
        assert 0 < row["p50_us"] <= row["p90_us"] <= row["p99_us"] <= row["p999_us"] <= row["max_us"], row
    assert databases(server) == ["default"]


def test_a_fixed_rate(launch):
    """As many requests as were due; a server that answers nothing for half of the time has that in the times of all that were due meanwhile, not only in
    those of the four under way (coordinated omission); and what cannot be sent in time is told."""
    server = launch("--durability", "os")
    flags = ["bench", "--connect", url(server), "--keys", 500, "--connections", 4, "--threads", 2, "--load", "point", "--seconds", 1]
    bench = spawn(*flags, "--rate", 500, "--database", "stopped", "--json")
    wait_for(lambda: server.client("stopped").get("/databases/stopped").json().get("pairs") == 500)
    while bench.poll() is None:
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(0.06)
        server.process.send_signal(signal.SIGCONT)
        time.sleep(0.06)
    out, told = bench.communicate(timeout=120)
    row = json.loads(out)
    assert bench.returncode == 0 and row["rate"] == 500 and row["failed"] == 0 and row["max_us"] > 40_000, (row, told)
    assert 490 <= row["requests"] + row["unsent"] <= 510 and row["p90_us"] > 20_000, row
    done = tool(*flags, "--rate", 1_000_000)
    assert "takes less than --rate" in done.stderr and databases(server) == ["default"]


def test_two_servers(launch):
    one, two = launch("--durability", "os"), launch("--durability", "os")
    done = tool("bench", "--connect", url(one), "--connect", url(two), "--load", "point", "--seconds", 1, "--keys", 500, "--connections", 2)
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and url(one) in lines[1] and url(two) in lines[2] and re.search(r"[0-9.]+ x$", lines[2])
    assert databases(one) == databases(two) == ["default"]


def test_tls(launch, tmp_path):
    """Every load over TLS, by a client's certificate; without the authority, or the right, it says so."""
    authority, shown = certificates.Authority(tmp_path), certificates.self_signed(tmp_path)
    admin, reader = authority.sign("admin"), authority.sign("reader")
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:admin admin *\ncert:reader read *\n")
    server = launch("--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-client-ca", authority.cert, "--tokens", str(tokens), "--durability", "os",
                    scheme="https", cafile=shown.cert)
    flags = ["bench", "--connect", "https://127.0.0.1:%d" % server.port, "--seconds", 1, "--keys", 1200, "--batch", 50, "--connections", 3, "--json", "--load"]
    known = ["--tls-ca", shown.cert, "--tls-cert", admin.cert, "--tls-key", admin.key]
    rows = [json.loads(line) for line in tool(*flags, "point,put,batch,scan,predict,mix", *known).stdout.splitlines()]
    assert [row["load"] for row in rows] == ["point", "put", "batch", "scan", "predict", "mix"]
    for row in rows:
        assert row["failed"] == 0 and row["requests"] > 0, row
    assert "certificate" in tool(*flags, "point", *known[2:], check=1).stderr
    assert "forbidden" in tool(*flags, "point", "--tls-ca", shown.cert, "--tls-cert", reader.cert, "--tls-key", reader.key, check=1).stderr


def test_percentiles(launch):
    server = launch()
    out = tool("bench", "--connect", url(server), "--load", "point", "--seconds", 1, "--keys", 100, "--percentiles").stdout
    rows = re.findall(r"^ *([0-9.]+) ([01]\.[0-9]+) +([0-9]+)", out, re.M)
    values, parts, counts = zip(*((float(v), float(p), int(c)) for v, p, c in rows))
    assert list(values) == sorted(values) and list(parts) == sorted(parts) and list(counts) == sorted(counts) and parts[-1] == 1.0
    assert "Total count    = %12d" % counts[-1] in out


def test_nothing_of_others_is_touched(launch, tmp_path):
    server = launch()
    server.client().upsert(b"a", b"1")
    assert "exists" in tool("bench", "--connect", url(server), "--database", "default", "--load", "point", "--seconds", 1, check=1).stderr
    assert tool("get", "a", "--connect", url(server)).stdout == "1" and databases(server) == ["default"]
    tokens = tmp_path / "tokens"
    tokens.write_text("writer-0123456789abcdef write *\nadmin-0123456789abcdef admin *\n")
    tokens.chmod(0o600)
    guarded = launch("--tokens", str(tokens))
    flags = ["bench", "--connect", url(guarded), "--load", "point", "--seconds", 1, "--keys", 10]
    assert "forbidden" in tool(*flags, env={"CHEETAH_TOKEN": "writer-0123456789abcdef"}, check=1).stderr
    tool(*flags, env={"CHEETAH_TOKEN": "admin-0123456789abcdef"})


def test_what_fails_is_told(launch):
    """Requests that the server refuses: exit code 1, with the first answer; the database is dropped all the same."""
    server = launch("--max-value-size", "50")
    done = tool("bench", "--connect", url(server), "--load", "put", "--seconds", 1, "--keys", 1, "--value-bytes", 51, check=1)
    assert "value_too_large" in done.stderr and databases(server) == ["default"]
    small = launch("--max-batch-ops", "2000")
    done = tool("bench", "--connect", url(small), "--load", "batch", "--batch", 3000, "--seconds", 1, "--keys", 10, check=1)
    assert "batch_too_large" in done.stderr and "requests failed" in done.stderr and databases(small) == ["default"]
    for bad in (["--load", "nonsense"], ["--load", ""], ["x"], ["--seconds", "0"], ["--connect", "a:1", "--connect", "b:1", "--connect", "c:1"],
                ["--connect", "https://localhost"], ["--connect", "http://localhost"], ["--database", "../x"]):
        assert tool("bench", *bad, check=2).stdout == ""
    server.stop()
    assert url(server) in tool("bench", "--connect", url(server), "--load", "point", check=1).stderr


def test_interrupted(launch):
    """Ctrl-C while it measures or loads: it ends, says so, and leaves nothing behind."""
    server = launch("--durability", "os")
    client = server.client()

    def made():
        return [name for name in databases(server) if name.startswith("bench-")]

    for keys, seconds in ((100, 60), (50_000_000, 1)):
        bench = spawn("bench", "--connect", url(server), "--load", "point", "--seconds", seconds, "--keys", keys)
        wait_for(lambda: any(client.get("/databases/" + name).json().get("pairs", 0) > 0 for name in made()))
        bench.send_signal(signal.SIGINT)
        _, told = bench.communicate(timeout=120)
        assert bench.returncode == 1 and b"interrupted" in told, told
        assert made() == []
