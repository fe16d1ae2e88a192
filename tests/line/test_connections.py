"""Connections: pipelining, bytes in any pieces, limits, tokens, time-outs, clients that do not read, metrics, the end."""
import random
import signal
import socket
import subprocess
import threading
import time

import harness
import pytest
from harness.line import Arrivals

TOKENS = "writer-token-0123456789 write *\nreader-token-0123456789 read *\nsome-token-0123456789 write mine,other\nboss-token-0123456789 admin *\n"


def test_ten_thousand_lines_before_the_first_read(line):
    lines = []
    for n in range(2500):
        lines += ["INSERT:6 v%05d" % n, "PAIR_SET p%05d %d" % (n, n + 1), "READ %d" % (n + 1), "PAIR_GET p%05d" % n]
    line.send("".join(text + "\n" for text in lines).encode())
    for n in range(2500):
        assert line.answer() == b"SUCCESS,key=%d" % (n + 1)
        assert line.answer() == b"SUCCESS,pair_set"
        assert line.answer() == b"SUCCESS,size=6,value=v%05d" % n
        assert line.answer() == b"SUCCESS,key=%d" % (n + 1)


def test_a_burst_shares_commits(server, line):
    before = server.metric("cheetah_commits_total")
    assert line.many(["INSERT v"] * 5000)[-1] == b"SUCCESS,key=5000"
    assert server.metric("cheetah_commits_total") - before < 500


def test_every_kind_in_one_burst(line):
    """Each sees what those before it did, errors and pages in their places."""
    lines, expected = [], []
    for n in range(1, 301):
        for sent, answer in [("INSERT a%d" % n, "SUCCESS,key=%d" % n), ("READ %d" % n, "SUCCESS,size=%d,value=a%d" % (len(str(n)) + 1, n)),
                             ("EDIT %d longer%d" % (n, n), "SUCCESS,key=%d_updated" % n),
                             ("READ %d" % n, "SUCCESS,size=%d,value=longer%d" % (len(str(n)) + 6, n)),
                             ("NONSENSE", "ERROR,unknown_command"), ("PAIR_SET k %d" % n, "SUCCESS,pair_set"),
                             ("PAIR_SCAN k", "SUCCESS,count=1,items=6b:%d" % n), ("PAIR_GET k", "SUCCESS,key=%d" % n),
                             ("PAIR_DEL k", "SUCCESS,pair_deleted"), ("PAIR_GET k", "ERROR,not_found"),
                             ("DELETE %d" % n, "SUCCESS,key=%d_deleted" % n), ("READ %d" % n, "ERROR,key_not_found"),
                             ("EDIT %d x" % n, "ERROR,key_not_found"), ("INSERT:1 ab", "ERROR,value_size_mismatch (expected 1, got 2)")]:
            lines.append(sent)
            expected.append(answer.encode())
    assert line.many(lines) == expected


def test_bytes_in_any_pieces(line):
    text = b"".join(b"INSERT:%d %s\n" % (n, b"v" * n) for n in range(1, 200))
    generator = random.Random(5)
    at = 0
    while at < len(text):
        n = generator.choice([1, 1, 2, 3, 50, 500])
        line.send(text[at:at + n])
        at += n
    assert [line.answer() for _ in range(199)] == [b"SUCCESS,key=%d" % n for n in range(1, 200)]
    for byte in b"READ 7\n":
        line.send(bytes([byte]))
        time.sleep(0.01)
    assert line.answer() == b"SUCCESS,size=7,value=vvvvvvv"


def test_every_line_has_one_answer(launch):
    """Words, numbers and rubbish in any order and any pieces."""
    server = launch("--durability", "os", "--shards", "1")
    words = [b"INSERT", b"INSERT:5", b"READ", b"EDIT", b"EDIT:2", b"DELETE", b"PAIR_SET", b"PAIR_GET", b"PAIR_DEL", b"PAIR_SCAN", b"PAIR_REDUCE",
             b"DATABASE", b"AUTH", b"counts", b"*", b"x", b"x6374", b"1", b"2", b"-1", b"99", b"abc", b"\r", b"\0", b"hello", b"z" * 300]
    generator = random.Random(3)
    for _ in range(300):
        count = generator.randrange(1, 300)
        text = b"".join(b" ".join(generator.choice(words) for _ in range(generator.randrange(5))) + b"\n" for _ in range(count))
        with server.line() as line:
            while text:
                n = generator.choice([1, 10, 1000, len(text)])
                line.send(text[:n])
                text = text[n:]
            line.socket.shutdown(socket.SHUT_WR)
            answers = 0
            while line.answer() is not None:
                answers += 1
            assert answers == count


def test_large_values(line):
    value = bytes(random.Random(1).choices([byte for byte in range(256) if byte != 10], k=16 << 20))
    assert line.ask(b"INSERT:%d " % len(value) + value) == b"SUCCESS,key=1"
    assert line.ask("READ 1") == b"SUCCESS,size=%d,value=%s" % (len(value), value)
    assert line.ask(b"INSERT " + value + b"x") == b"ERROR,value_too_large"
    assert line.ask(b"EDIT 1 small") == b"SUCCESS,key=1_updated"
    line.ask("PAIR_SET big 1")
    assert line.ask(b"EDIT 1 " + value) == b"SUCCESS,key=1_updated"
    answer = line.ask("PAIR_REDUCE payloads big")
    assert answer.startswith(b"SUCCESS,reducer=payloads,count=1,items=626967:1:") and len(answer) > len(value) * 4 // 3


def test_a_line_that_is_too_long_is_skipped(launch):
    server = launch("--max-value-size", "1000")
    with server.line() as line:
        line.send(b"INSERT " + b"v" * 1001 + b"\nINSERT ok\n")
        assert line.answer() == b"ERROR,value_too_large"
        assert line.answer() == b"SUCCESS,key=1"
        line.send(b"INSERT " + b"v" * 5000000 + b"\nREAD 1\n")
        assert line.answer() == b"ERROR,line_too_long"
        assert line.answer() == b"SUCCESS,size=2,value=ok"
        assert line.ask(b"INSERT " + b"v" * 1000) == b"SUCCESS,key=2"


def test_pages_end_at_line_answer_bytes(launch):
    server = launch("--line-answer-bytes", "100000")
    with server.line() as line:
        line.many(["INSERT " + "v" * 3000] * 200 + ["PAIR_SET p%03d %d" % (n, n + 1) for n in range(200)])
        names, after, pages = [], "", 0
        while True:
            answer = line.ask("PAIR_REDUCE payloads p -1" + after)
            head, _, items = answer.partition(b",items=")
            assert len(items) <= 101000
            names += [item.split(b":")[0] for item in items.split(b";")]
            pages += 1
            if b"next_cursor=" not in head:
                break
            after = " " + head.partition(b"next_cursor=")[2].decode()
        assert names == [(b"p%03d" % n).hex().encode() for n in range(200)] and pages > 5


def test_many_connections(server):
    lines = [server.line() for _ in range(200)]
    try:
        for n, line in enumerate(lines):
            line.send("DATABASE many\nINSERT from %d" % n)
        keys = set()
        for line in lines:
            assert line.answer() == b"SUCCESS,database_changed_to_many"
            answer = line.answer()
            assert answer.startswith(b"SUCCESS,key=")
            keys.add(answer)
        assert len(keys) == 200
    finally:
        for line in lines:
            line.close()


def test_a_new_connection_is_not_old(launch):
    """One accepted in the round in which idle ones are looked for."""
    server = launch("--durability", "os")
    end = time.monotonic() + 4
    while time.monotonic() < end:
        with server.line() as line:
            assert line.ask("READ 1") == b"ERROR,key_not_found"
    assert not [event for event in server.log("line_connection") if event["reason"] == "idle"]


def test_writers_at_once(server):
    failed = []

    def write(number):
        with server.line() as line:
            line.ask("DATABASE writers")
            for part in range(5):
                answers = line.many(["PAIR_SET w%d-%d-%03d %d" % (number, part, n, n + 1) for n in range(200)])
                if answers != [b"SUCCESS,pair_set"] * 200:
                    failed.append(answers)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with server.line() as line:
        line.ask("DATABASE writers")
        assert line.ask("PAIR_SCAN w -1").startswith(b"SUCCESS,count=8000,items=")


def test_connection_limit(launch):
    server = launch("--line-connections", "3")
    lines = [server.line() for _ in range(3)]
    for line in lines:
        assert line.ask("READ 1") == b"ERROR,key_not_found"
    with server.line() as fourth:
        assert fourth.answer() == b"ERROR,overloaded"
        assert fourth.answer() is None
    assert server.comes_to("cheetah_line_refused_total", 1)
    lines.pop().close()
    harness.wait_for(lambda: server.metric("cheetah_line_connections_open") == 2, what="a connection less")
    with server.line() as line:
        assert line.ask("READ 1") == b"ERROR,key_not_found"
    for line in lines:
        line.close()


def test_idle_time_out(launch):
    server = launch("--line-idle-timeout", "3")
    with server.line() as idle, server.line() as half, server.line() as busy:
        idle.ask("READ 1")
        half.send(b"INSERT half a li")

        def both_ended():
            assert busy.ask("READ 1") == b"ERROR,key_not_found"
            return len(server.log("line_connection")) == 2

        harness.wait_for(both_ended, 60, "the end of both", 0.1)
        assert idle.closed() and half.closed()
        assert busy.ask("PAIR_SCAN *") == b"SUCCESS,count=0"
    assert {event["reason"] for event in server.log("line_connection")} >= {"idle"}


def test_a_client_that_does_not_read(launch):
    """Its answers wait in bounded memory, the others go on, and it is closed after the idle time-out."""
    server = launch("--line-idle-timeout", "3", "--durability", "os")
    with server.line() as line:
        line.many(["INSERT " + "v" * 100000] * 100)
    before = server.rss()
    with server.line(receive_buffer=4096) as slow, server.line() as other:
        slow.socket.settimeout(1)
        try:
            for _ in range(200):
                slow.send(b"".join(b"READ %d\n" % key for key in range(1, 101)))
        except socket.timeout:
            pass  # it is not read either, any more
        for _ in range(100):
            assert other.ask("READ 1").startswith(b"SUCCESS,size=100000")
        assert server.rss() - before < 100 << 20
        harness.wait_for(lambda: [e for e in server.log("line_connection") if e["reason"] == "the client does not read"], what="its end")
    with server.line() as line:
        assert line.ask("READ 999") == b"ERROR,key_not_found"


def test_a_slow_reader_gets_everything(launch):
    server = launch("--durability", "os")
    with server.line(receive_buffer=4096) as line:
        line.send(b"".join(b"INSERT %d-%s\n" % (n, b"v" * 20000) for n in range(300)) + b"".join(b"READ %d\n" % (n + 1) for n in range(300)))
        for n in range(300):
            assert line.answer() == b"SUCCESS,key=%d" % (n + 1)
        for n in range(300):
            if n % 50 == 0:
                time.sleep(0.1)
            value = b"%d-%s" % (n, b"v" * 20000)
            assert line.answer() == b"SUCCESS,size=%d,value=%s" % (len(value), value)


def test_long_scans_do_not_block_others(launch):
    """One thread finds six long scans and, after them, a short question: it answers that one first."""
    server = launch("--durability", "os", "--line-threads", "1")
    with server.line() as line:
        for part in range(20):
            line.many(["PAIR_SET %06d 1" % n for n in range(part * 10000, part * 10000 + 10000)])
    scanning = [server.line() for _ in range(6)]
    with server.line() as line:
        for one in scanning + [line]:
            assert one.ask("READ 1") == b"ERROR,key_not_found"
        server.pause()
        for one in scanning:
            one.send("PAIR_SCAN * -1")
        line.send("READ 1")
        arrivals = Arrivals(line, *scanning)
        server.go_on()
        assert arrivals.first() is line
        assert line.answer() == b"ERROR,key_not_found"
        for one in scanning:
            assert one.answer().startswith(b"SUCCESS,count=200000,items=")
            one.close()


def test_half_closed(server):
    """Like `printf ... | nc -N`: the answers come, then the end. Half a line is not executed."""
    with server.line() as line:
        line.send(b"DATABASE half\nINSERT one\nINSERT tw")
        line.socket.shutdown(socket.SHUT_WR)
        assert [line.answer() for _ in range(3)] == [b"SUCCESS,database_changed_to_half", b"SUCCESS,key=1", None]
    with server.line() as line:
        assert line.many(["DATABASE half", "READ 2"])[1] == b"ERROR,key_not_found"


def test_what_follows_exit_destroys_no_answer(server):
    """Much more than the server has read lies in the kernel when it closes."""
    for _ in range(5):
        with server.line() as line:
            line.send(b"DATABASE exit\n" + b"READ 77\n" * 100 + b"EXIT\n" + b"INSERT never\n" * 200000)
            assert line.answer() == b"SUCCESS,database_changed_to_exit"
            time.sleep(0.05)
            assert [line.answer() for _ in range(101)] == [b"ERROR,key_not_found"] * 100 + [None]
    harness.wait_for(lambda: server.metric("cheetah_line_connections_open") == 0, what="all closed")


def test_a_client_that_goes_away(server):
    for _ in range(20):
        with server.line() as line:
            line.send("DATABASE gone\nINSERT x\nPAIR_SCAN * -1\n" * 50)
    with server.line() as line:
        assert line.ask("READ 999999") == b"ERROR,key_not_found"
    harness.wait_for(lambda: server.metric("cheetah_line_connections_open") == 0, what="all closed")


# ---- tokens ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(launch, tmp_path):
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    path.chmod(0o600)
    server = launch("--tokens", str(path), ready=False)
    client = server.client(token="boss-token-0123456789", check=False)
    harness.wait_for(lambda: client.get("/readyz").status == 200, what="/readyz")
    server.token_file = path
    return server


def test_nothing_before_auth(guarded):
    with guarded.line() as line:
        for text in ("READ 1", "INSERT x", "PAIR_SCAN *", "DATABASE x", "PAIR_REDUCE counts *", "NONSENSE"):
            assert line.ask(text) == b"ERROR,unauthorized"
        assert line.ask("AUTH writer-token-0123456789") == b"SUCCESS,authenticated"
        assert line.ask("INSERT x") == b"SUCCESS,key=1"


def test_wrong_tokens(guarded):
    with guarded.line() as line:
        assert line.ask("AUTH wrong") == b"ERROR,unauthorized"
        assert line.ask("AUTH") == b"ERROR,unauthorized"
        assert line.ask("AUTH writer-token-012345678") == b"ERROR,unauthorized"
        assert line.answer() is None, "closed after three"
    with guarded.line() as line:
        assert line.ask("AUTH writer-token-0123456789") == b"SUCCESS,authenticated"
        assert line.ask("AUTH wrong") == b"ERROR,unauthorized"
        assert line.ask("READ 1") == b"ERROR,unauthorized", "the token that was there is gone"


def test_rights(guarded):
    with guarded.line() as line:
        assert line.ask("AUTH writer-token-0123456789") == b"SUCCESS,authenticated"
        assert line.many(["INSERT x", "PAIR_SET p 1"]) == [b"SUCCESS,key=1", b"SUCCESS,pair_set"]
    with guarded.line() as line:
        assert line.ask("AUTH reader-token-0123456789") == b"SUCCESS,authenticated"
        assert line.many(["READ 1", "PAIR_GET p", "PAIR_SCAN *", "PAIR_REDUCE payloads *"])[2] == b"SUCCESS,count=1,items=70:1"
        for text in ("INSERT x", "EDIT 1 y", "DELETE 1", "PAIR_SET q 1", "PAIR_DEL p"):
            assert line.ask(text) == b"ERROR,forbidden"
        assert line.ask("DATABASE missing") == b"ERROR,database_not_found", "who may not write makes none"
    with guarded.line() as line:
        assert line.ask("AUTH some-token-0123456789") == b"SUCCESS,authenticated"
        assert line.ask("READ 1") == b"ERROR,forbidden", "default is not in its list"
        assert line.ask("DATABASE theirs") == b"ERROR,forbidden"
        assert line.ask("DATABASE mine") == b"SUCCESS,database_changed_to_mine"
        assert line.ask("INSERT x") == b"SUCCESS,key=1"


def test_tokens_are_reloaded(guarded):
    with guarded.line() as line:
        assert line.ask("AUTH writer-token-0123456789") == b"SUCCESS,authenticated"
        guarded.token_file.write_text("new-token-0123456789 write *\n")
        guarded.signal(signal.SIGHUP)
        harness.wait_for(lambda: guarded.log("reloaded"), what="the reload")
        assert line.ask("INSERT x") == b"ERROR,unauthorized"
        assert line.ask("AUTH new-token-0123456789") == b"SUCCESS,authenticated"
        assert line.ask("INSERT x") == b"SUCCESS,key=1"


def test_strangers_send_no_long_lines(guarded):
    with guarded.line() as line:
        line.send(b"x" * 100000)
        assert line.answer() == b"ERROR,line_too_long"
        assert line.closed()


def test_auth_without_tokens(line):
    assert line.ask("AUTH anything") == b"SUCCESS,authenticated"


def run(tmp_path, *flags):
    return subprocess.run([harness.BINARY, "serve", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"), *flags],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def test_not_beyond_loopback_without_tokens(tmp_path):
    result = run(tmp_path, "--line-listen", "0.0.0.0:0")
    assert result.returncode == 2 and "line-listen" in result.stderr and "--tokens" in result.stderr


@pytest.mark.parametrize("where", ["nonsense", "127.0.0.1:99999", "127.0.0.1:", ""])
def test_bad_addresses(tmp_path, where):
    assert run(tmp_path, "--line-listen", where).returncode == 2


def test_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run(tmp_path, "--line-listen", "127.0.0.1:%d" % taken.getsockname()[1])
        assert result.returncode == 1 and "cannot listen" in result.stderr


def test_default_address():
    text = subprocess.run([harness.BINARY, "serve", "--print-config"], capture_output=True, text=True, timeout=120).stdout
    assert "line-listen = 127.0.0.1:4455 " in text
    assert "line-listen = none " in subprocess.run([harness.BINARY, "serve", "--line-listen", "none", "--print-config"],
                                                   capture_output=True, text=True, timeout=120).stdout


# ---- service ---------------------------------------------------------------------------------------------------------


def test_metrics_and_log(launch):
    server = launch()
    with server.line() as line:
        line.many(["INSERT x", "READ 1", "READ 2", "PAIR_SCAN *", "NONSENSE"])
        harness.wait_for(lambda: server.metric("cheetah_line_sent_bytes_total") > 50, what="the count of bytes: it is made after they were sent")
        got = server.metrics()
        assert got["cheetah_line_connections_open"] == 1 and got["cheetah_line_connections_total"] == 1
        for labels, count in [('command="INSERT",result="success"', 1), ('command="READ",result="success"', 1),
                              ('command="READ",result="error"', 1), ('command="PAIR_SCAN",result="success"', 1),
                              ('command="unknown",result="error"', 1)]:
            assert got["cheetah_line_commands_total{%s}" % labels] == count
        assert got["cheetah_line_received_bytes_total"] == len("INSERT x\nREAD 1\nREAD 2\nPAIR_SCAN *\nNONSENSE\n")
        line.ask("EXIT")
    event = harness.wait_for(lambda: server.log("line_connection"), what="the log line")[0]
    assert event["commands"] == 5 and event["errors"] == 2 and event["client"] == "127.0.0.1" and event["reason"] == "EXIT"


def test_stop_answers_what_was_received(launch):
    server = launch("--drain-seconds", "1")
    with server.line() as line, server.line() as idle:
        idle.ask("READ 1")
        line.send(b"INSERT x\n" * 2000)
        assert line.answer() == b"SUCCESS,key=1"
        server.signal(signal.SIGTERM)
        answers = 1
        while line.answer() is not None:
            answers += 1
        assert answers == 2000
        assert idle.closed(10)
    assert server.wait(120) == 0


def test_served_while_draining(launch):
    server = launch("--drain-seconds", "6")
    with server.line() as line:
        line.ask("READ 1")
        server.signal(signal.SIGTERM)
        harness.wait_for(lambda: server.log("draining"), what="the drain")
        assert line.ask("INSERT late") == b"SUCCESS,key=1"
        assert line.closed(60)
    assert server.wait(120) == 0


def test_kill_during_bursts_loses_nothing_acknowledged(launch):
    """SIGKILL in the middle of a stream of inserts: each key that was answered is there with its value."""
    server = launch()
    acknowledged = {}
    with server.line() as line:
        line.send(b"".join(b"INSERT:9 v%08d\n" % n for n in range(20000)))
        for n in range(20000):
            answer = line.answer()
            if answer is None:
                break
            acknowledged[int(answer.partition(b"=")[2])] = n
            if n == 3000:
                server.process.kill()
    server.wait()
    assert len(acknowledged) >= 3000
    server.restart()
    with server.line() as line:
        keys = sorted(acknowledged)
        for key, answer in zip(keys, line.many(["READ %d" % key for key in keys])):
            assert answer == b"SUCCESS,size=9,value=v%08d" % acknowledged[key]


def test_a_script_with_crlf(server):
    """What telnet and netcat send."""
    with server.line() as line:
        line.send(b"DATABASE crlf\r\nINSERT hello\r\nREAD 1\r\nEXIT\r\n")
        assert [line.answer() for _ in range(4)] == [b"SUCCESS,database_changed_to_crlf", b"SUCCESS,key=1", b"SUCCESS,size=5,value=hello", None]


def test_only_who_may_makes_databases(launch):
    """--create-databases admin."""
    server = launch("--create-databases", "admin")
    with server.line() as line:
        assert line.ask("DATABASE typo") == b"ERROR,database_not_found"
        assert line.ask("INSERT x") == b"SUCCESS,key=1", "still in default"
    assert server.client(check=False).get("/databases").json()["databases"] == ["default"]
    assert server.client(check=False).put("/databases/typo").status == 201
    with server.line() as line:
        assert line.ask("DATABASE typo") == b"SUCCESS,database_changed_to_typo"
        assert server.client(check=False).delete("/databases/typo?confirm=typo").status == 204
        assert line.ask("INSERT x") == b"ERROR,database_not_found", "one that was dropped is not made again"


def test_limits_of_new_databases(launch):
    """--max-databases, and names that differ in case only."""
    server = launch("--max-databases", "2")
    with server.line() as line:
        assert line.ask("DATABASE One") == b"SUCCESS,database_changed_to_One"
        assert line.ask("DATABASE one").split(b" ")[0] == b"ERROR,database_case_conflict"
        assert line.ask("DATABASE two").split(b" ")[0] == b"ERROR,too_many_databases"
        assert line.ask("INSERT x") == b"SUCCESS,key=1", "still in One"
    assert server.client(check=False).get("/databases").json()["databases"] == ["One", "default"]


# ---- web pages


@pytest.mark.parametrize("first", [b"POST / HTTP/1.1", b"GET /x HTTP/1.1\r", b"DELETE /kv/1 HTTP/1.1", b"OPTIONS * HTTP/1.0\r", b"Host: 127.0.0.1:4455\r", b"host: a"])
@pytest.mark.parametrize("before", [b"", b"INSERT a\n"])
def test_http_is_refused(server, first, before):
    """A browser that is made to send a request here has none of its lines run."""
    with socket.create_connection(("127.0.0.1", server.line_port), timeout=120) as s:
        s.sendall(before + first + b"\nINSERT stolen\nPAIR_SET stolen 1\n")
        text = b""
        while True:
            part = s.recv(4096)
            if not part:
                break
            text += part
    lines = text.splitlines()
    assert lines[-1] == b"ERROR,http_is_on_another_port" and len(lines) == 1 + (before != b""), text
    with socket.create_connection(("127.0.0.1", server.line_port), timeout=120) as s:
        s.sendall(b"PAIR_GET stolen\nEXIT\n")
        assert s.recv(4096) == b"ERROR,not_found\n"
