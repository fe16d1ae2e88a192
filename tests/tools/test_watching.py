"""cheetah-db stat, top and check, and the progress line: against a running server, stopped data, and on a terminal (a pty)."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest
from tooling import environment, export, fill, spawn, start, tool, url, wait_for
from harness import BINARY, free_port


class Terminal:
    """A program on a pseudo terminal; which: the descriptors that are the terminal."""

    def __init__(self, *args, which=(0, 1, 2), rows=30, columns=120, env=None):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.slave = os.dup(slave)
        self.before = termios.tcgetattr(self.slave)
        other = subprocess.DEVNULL
        self.process = subprocess.Popen([BINARY, *map(str, args)], stdin=slave if 0 in which else other, stdout=slave if 1 in which else other,
                                        stderr=slave if 2 in which else other, env=environment(env), start_new_session=True)
        os.close(slave)
        self.seen = b""

    def read(self, seconds=0.2):
        while select.select([self.master], [], [], seconds)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                break
            if not data:
                break
            self.seen += data
            seconds = 0.05
        return self.seen

    def expect(self, what, seconds=60):
        wait_for(lambda: what in self.read(0.05), seconds, repr(what))

    def type(self, data):
        os.write(self.master, data)

    def ended(self, seconds=60):
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.05)
        assert self.process.poll() is not None, "still running: %r" % self.seen[-500:]
        self.read(0.1)
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal():
    terminals = []

    def opened(*args, **more):
        terminals.append(Terminal(*args, **more))
        return terminals[-1]

    yield opened
    for one in terminals:
        one.close()


# ---- stat ------------------------------------------------------------------------------------------------------------


def test_stat_of_a_running_and_a_stopped_server_agree(launch):
    server = launch()
    client = server.client()
    fill(client, 3000)
    server.client(db="other").upsert(b"p", b"v")
    running = [json.loads(line) for line in tool("stat", "--connect", url(server), "--json").stdout.splitlines()]
    assert [one["database"] for one in running] == ["default", "other"]
    truth = client.get("/databases/default").json()
    assert running[0]["pairs"] == truth["pairs"] and running[0]["values"] == truth["values"] and running[0]["read_only"] == 0
    assert running[0]["log_bytes"] == truth["log"]["bytes"] and len(running[0]["places"]) == running[0]["shards"] == 8
    assert json.loads(tool("stat", "other", "--connect", url(server), "--json").stdout)["pairs"] == 1
    text = tool("stat", "default", "--connect", url(server)).stdout
    assert re.search(r"^  pairs +%d$" % truth["pairs"], text, re.M) and text.count("\n  shard ") == 8
    assert "database_not_found" in tool("stat", "nothere", "--connect", url(server), check=1).stderr
    server.stop()
    stopped = [json.loads(line) for line in tool("stat", "--data", server.data, "--json").stdout.splitlines()]
    for a, b in zip(running, stopped):
        for key in ("database", "shards", "pairs", "values", "value_bytes", "next_key"):
            assert a[key] == b[key], key
        assert [(x["length"], x["live"], x["slots"]) for x in a["lengths"]] == [(x["length"], x["live"], x["slots"]) for x in b["lengths"]]
        assert [(x["shard"], x["pairs"], x["values"]) for x in a["places"]] == [(x["shard"], x["pairs"], x["values"]) for x in b["places"]]
    assert sum(x["length"] * x["live"] for x in stopped[0]["lengths"]) == stopped[0]["value_bytes"]


def test_stat_fits_a_screen(launch):
    """A thousand lengths and 64 shards: ranges and directories, whose sums are those of the rows that --lengths and --shards show."""
    server = launch("--shards", "64", "--durability", "os")
    client = server.client()
    client.put_all({b"n%04d" % n: b"v" * n for n in range(1, 1001)})
    client.upsert(b"large", b"v" * 70000)
    truth = client.get("/databases/default").json()

    def look(*where):
        short = tool("stat", "default", *where).stdout
        assert len(short.splitlines()) <= 24, short
        ranges = re.findall(r"^  lengths (\d+)(?: to (\d+))? +live (\d+) +slots (\d+) ", short, re.M)
        assert [(int(low), int(high or low), int(live)) for low, high, live, _ in ranges] == [(1, 15, 15), (16, 255, 240), (256, 1000, 745), (70000, 70000, 1)]
        every = tool("stat", "default", "--lengths", *where).stdout
        rows = re.findall(r"^  length (\d+) +live (\d+) +slots (\d+) ", every, re.M)
        assert [int(row[0]) for row in rows] == [*range(1, 1001), 70000]
        assert sum(int(row[2]) for row in rows) == sum(int(one[3]) for one in ranges)
        (places,) = re.findall(r"^  (\d+) +shards pairs (\d+) +values (\d+) +file_bytes (\d+) ", short, re.M)
        assert [int(one) for one in places[:3]] == [64, truth["pairs"], truth["values"]]
        shards = re.findall(r"^  shard (\d+) +pairs (\d+) +values (\d+) +file_bytes (\d+) ", tool("stat", "default", "--shards", *where).stdout, re.M)
        assert len(shards) == 64 and sum(int(one[3]) for one in shards) == int(places[3])
        assert len(json.loads(tool("stat", "default", "--json", *where).stdout)["lengths"]) == 1001
        return ranges

    running = look("--connect", url(server))
    server.stop()
    assert look("--data", server.data) == running


def test_the_shape_of_the_tries(launch):
    server = launch("--shards", "1")
    client = server.client()
    client.put_all({b"%06d" % i: b"v" for i in range(20000)})
    server.stop()
    trie = json.loads(tool("stat", "default", "--data", server.data, "--json").stdout)["trie"]
    # 20000 names of 6 bytes: what each takes in a leaf (key 6, length 1, place 6, the suffix in part) is 13 to 19 bytes
    assert trie["leaf_bytes"] >= 20000 * 13 and trie["leaf_bytes"] <= trie["leaves"] * 4096
    assert trie["nodes_4"] + trie["nodes_16"] + trie["nodes_48"] + trie["nodes_256"] >= 1 and trie["depth"] >= 1
    text = tool("stat", "default", "--data", server.data).stdout
    assert "trie leaves %d " % trie["leaves"] in text and "depth %d" % trie["depth"] in text


@pytest.mark.parametrize("args", [("stat", "a", "b"), ("stat", "../x"), ("stat", "--data", "x", "--token-file", "x"), ("stat", "--connect", "h:1", "--data", "x"),
                                  ("stat", "--connect", "h:1/x"), ("top", "x"), ("top", "--interval", "0"), ("top", "--count", "x"),
                                  ("top", "--connect", "ftp://x"), ("check", "--nonsense")])
def test_wrong_command_lines(args, tmp_path):
    done = subprocess.run([BINARY, *args], cwd=tmp_path, capture_output=True, env=environment(), timeout=120)
    assert done.returncode == 2 and done.stderr and not done.stdout, done


@pytest.mark.parametrize("command", ["stat", "top", "check"])
def test_help(command):
    out = tool(command, "--help").stdout
    assert out.startswith("cheetah-db %s" % command) and "--json" in out and "Exit codes" in out
    assert max(map(len, out.splitlines())) <= 120 and "cheetah-db %s" % command in tool("--help").stdout


# ---- top -------------------------------------------------------------------------------------------------------------


class Load:
    """So many reads, failures and writes, again and again, until it is stopped."""

    def __init__(self, server):
        self.client, self.over = server.client(check=False), False
        self.counts = {"reads": 0, "missing": 0, "writes": 0}
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        key = self.client.insert(b"value")
        while not self.over:
            self.client.get("/kv/%d" % key)
            self.client.get("/kv/99999999")
            self.client.upsert(b"name", b"value")
            for name in self.counts:
                self.counts[name] += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over = True
        self.thread.join()


def test_top_json(launch):
    """Rates, and so many seconds: how often something was counted in them is what the load did, but for what was on its way at either end."""
    server = launch()
    with Load(server) as load:
        wait_for(lambda: load.counts["writes"] > 0, what="the load")
        before, begun = dict(load.counts), time.monotonic()
        out = tool("top", "--connect", url(server), "--json", "--count", "3").stdout
        lasted, done = time.monotonic() - begun, load.counts["writes"] - before["writes"]
    samples = [json.loads(line) for line in out.splitlines()]
    assert len(samples) == 3 and 1.5 < sum(sample["seconds"] for sample in samples) <= lasted  # one that is late takes from the next
    times = 0
    for sample in samples:
        assert sample["ready"] == 1 and sample["connections"] >= 2 and sample["seconds"] > 0 and sample["uptime"] > 0
        routes = {(route["route"], route["method"]): route for route in sample["routes"]}
        reads, writes, few = routes["/kv/{key}", "GET"], routes["/pairs/{pair}", "PUT"], 3 / sample["seconds"]
        assert reads["errors"] == pytest.approx(reads["requests"] / 2, rel=0.2, abs=few) and writes["errors"] == 0
        assert 0 < reads["p50"] <= reads["p99"] and writes["mean"] > 0
        assert sample["requests"] >= reads["requests"] + writes["requests"]
        data = sample["databases"]["default"]
        assert data["commits"] == pytest.approx(writes["requests"], rel=0.3, abs=few) and data["fsyncs"] > 0 and data["pairs"] == 1 and data["values"] == 2
        times += data["commits"] * sample["seconds"]
    assert done / 10 - 3 <= times <= done + 3, (times, done)  # the tool's start and end are no part of the samples


def test_top_shows_what_a_decoder_feels(launch):
    """Predictions and best followers by order, and aggregates from the cache."""
    server = launch("--durability", "os")
    client = server.client(db="m")
    assert client.post("/ngrams", body=b'{"tokens":[1,2,3,4]}\n', order=3).status == 200
    assert client.post("/reduce/smooth/cnt:").status == 200
    top = spawn("top", "--connect", url(server), "--json", "--count", "1", stdout=subprocess.PIPE)
    begun, i = time.monotonic(), 0
    while top.poll() is None:
        i += 1
        assert time.monotonic() - begun < 120
        assert client.post("/predict", json_body={"tokens": [1, 2] if i % 4 else [77, 2]}).status == 200
        client.get("/pairs/x" + (b"topk:1:__root__" if i % 4 else b"topk:1:none").hex(), exact="true")
        time.sleep(0.005)
    samples = [json.loads(line)["orders"] for line in top.communicate(timeout=120)[0].splitlines()]
    busy = [sample for sample in samples if sample]
    assert len(busy) == 1 and all(set(sample) <= {"1", "2", "3"} for sample in busy)
    sums = {(order, name): sum(s.get(order, {}).get(name, 0) for s in busy) for order in "123" for name in
            ("predictions", "predictions_missed", "followers", "followers_missed")}  # fmt: skip
    assert sums["3", "predictions"] > sums["3", "predictions_missed"] > 0 and sums["2", "predictions"] > 0 == sums["2", "predictions_missed"]
    assert sums["1", "followers"] > sums["1", "followers_missed"] > 0 and sums["1", "predictions"] == 0
    text = tool("top", "--connect", url(server), "--once").stdout
    assert re.search(r"^ORDER +predictions found +best followers found +aggregates from the cache:", text, re.M) and re.search(r"^3 ", text, re.M)


def test_top_once_is_text_without_a_terminal(launch):
    server = launch()
    out = tool("top", "--connect", url(server), "--once")
    assert out.stdout.startswith("cheetah-db " + url(server)) and "\033" not in out.stdout and out.stderr == ""
    assert re.search(r"^DATABASE ", out.stdout, re.M) and re.search(r"^default ", out.stdout, re.M) and "/metrics" in out.stdout


def test_top_on_a_terminal(launch, terminal):
    server = launch()
    with Load(server):
        top = terminal("top", "--connect", url(server))
        top.expect(b"/kv/{key}")
        first = top.seen.count(b"ROUTE")
        wait_for(lambda: top.read(0.05).count(b"ROUTE") >= first + 2, what="another page")
        assert top.seen.startswith(b"\033[?1049h") and b"requests " in top.seen and b"default" in top.seen
        assert termios.tcgetattr(top.slave)[3] & termios.ICANON == 0
        top.type(b"q")
        assert top.ended() == 0
    assert top.seen.rstrip().endswith(b"\033[?1049l") and termios.tcgetattr(top.slave) == top.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_top_puts_the_terminal_back(launch, terminal, number):
    server = launch()
    top = terminal("top", "--connect", url(server))
    top.expect(b"ROUTE")
    top.process.send_signal(number)
    assert top.ended() == 0
    assert b"\033[?1049l" in top.seen and termios.tcgetattr(top.slave) == top.before


def test_top_fits_a_small_terminal(launch, terminal):
    server = launch()
    for i in range(20):
        server.client(db="a-database-with-a-long-name-%d" % i).upsert(b"p", b"v")
    top = terminal("top", "--connect", url(server), rows=8, columns=40)
    top.expect(b"\033[J\033[H")
    page = re.sub(rb"\033\[[?0-9]*[A-Za-z]", b"", top.seen.split(b"\033[H")[2])
    lines = page.split(b"\r\n")
    assert len(lines) <= 8 and max(map(len, lines)) < 40
    top.type(b"q")
    assert top.ended() == 0


def test_top_goes_on_when_the_server_comes_back(launch, terminal):
    server = launch("--listen", "127.0.0.1:%d" % free_port())
    top = terminal("top", "--connect", url(server))
    top.expect(b"ROUTE")
    server.kill()
    top.expect(b"onnect")
    server.restart()
    mark = len(top.read())
    wait_for(lambda: b"up 0:0" in top.read(0.05)[mark:] and b"onnect" not in top.seen[mark:][-300:], what="figures again")
    top.type(b"q")
    assert top.ended() == 0


def test_top_without_a_server(terminal):
    assert "127.0.0.1:1" in tool("top", "--connect", "127.0.0.1:1", "--once", check=1).stderr
    top = terminal("top", "--connect", "127.0.0.1:1")
    assert top.ended() == 1 and b"\033[?1049h" not in top.seen


def test_top_ends_when_nobody_reads(launch):
    server = launch()
    process = spawn("top", "--connect", url(server), "--json")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) == 1
    process.stderr.close()


def test_top_and_tokens(launch, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("reader-token-0123456789abcdef read default\n")
    os.chmod(tokens, 0o600)
    server = launch("--tokens", str(tokens))
    for command in (("top", "--once"), ("stat",)):
        assert "unauthorized" in tool(*command, "--connect", url(server), check=1).stderr
        out = tool(*command, "--connect", url(server), env={"CHEETAH_TOKEN": "reader-token-0123456789abcdef"}).stdout
        assert "default" in out


# ---- progress --------------------------------------------------------------------------------------------------------


def test_progress_of_an_export_and_an_import(launch, terminal, tmp_path):
    """A line that is drawn over on the terminal that stderr is, taken away at the end; nothing of it elsewhere."""
    server = launch()
    fill(server.client(check=False), 60000, value_bytes=1200)
    out = terminal("export", tmp_path / "f", "--connect", url(server), which=(2,), columns=70)
    assert out.ended(120) == 0
    assert re.search(rb"\r\033\[Kexport  \[=*>? *\] +\d+%", out.seen) and out.seen.endswith(b"\r\033[K") and b"\n" not in out.seen
    for line in out.seen.split(b"\r"):
        assert len(re.sub(rb"\033\[K", b"", line)) < 70
    into = terminal("import", tmp_path / "f", "--database", "copy", "--connect", url(server), which=(2,))
    assert into.ended(120) == 0
    assert b"import  [" in into.seen and b" left" in into.seen and into.seen.endswith(b"\r\033[K")
    assert tool("export", tmp_path / "g", "--connect", url(server)).stderr == ""


def test_progress_of_a_check(launch, terminal):
    server = launch()
    fill(server.client(check=False), 30000, value_bytes=8000)
    server.stop()
    seen = terminal("check", server.data, which=(2,))
    assert seen.ended(120) == 0
    assert b"check default  [" in seen.seen and seen.seen.endswith(b"\r\033[K") and b"\n" not in seen.seen
    done = tool("check", server.data)
    assert done.stderr == "" and done.stdout == ""
