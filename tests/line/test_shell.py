"""The shell: piped (the bare protocol) and on a terminal (a pty), to a server and on stopped data."""
import base64
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import harness
import pytest
from harness import certificates

CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_") and k not in ("LC_ALL", "LANG", "LC_CTYPE")}


def piped(*flags, text, env=None, timeout=120):
    return subprocess.run([harness.BINARY, "shell", *flags], input=text if isinstance(text, bytes) else text.encode(), capture_output=True,
                          timeout=timeout, env=dict(CLEAN, **(env or {})))


@pytest.fixture(params=["server", "data"])
def where(request, launch, tmp_path):
    """The flags of a shell to a fresh server, or on a fresh directory."""
    if request.param == "server":
        return ["--connect", "127.0.0.1:%d" % launch().line_port]
    path = tmp_path / "cheetah_data"
    assert subprocess.run([harness.BINARY, "create", "default", "--data", str(path)], timeout=120).returncode == 0
    return ["--data", str(path)]


# ---- piped -----------------------------------------------------------------------------------------------------------


def test_bare_protocol(where):
    text = "INSERT hello\nREAD 1\nPAIR_SET ctx: 1\nPAIR_SCAN *\nPAIR_REDUCE counts *\nHELP\nDATABASE other\nREAD 1\nINSERT:5 four"
    result = piped(*where, text=text)
    assert result.stdout.decode().splitlines() == [
        "SUCCESS,key=1", "SUCCESS,size=5,value=hello", "SUCCESS,pair_set", "SUCCESS,count=1,items=6374783a:1",
        "SUCCESS,reducer=counts,count=1,items=6374783a:1:aGVsbG8=", "ERROR,unknown_command", "SUCCESS,database_changed_to_other",
        "ERROR,key_not_found", "ERROR,value_size_mismatch (expected 5, got 4)"]
    assert result.returncode == 0 and result.stderr == b""


def test_what_was_written_stays(where):
    assert piped(*where, text="INSERT hello\nPAIR_SET p 1\n").returncode == 0
    assert piped(*where, text="READ 1\nPAIR_GET p\n").stdout == b"SUCCESS,size=5,value=hello\nSUCCESS,key=1\n"


def test_ten_thousand_lines(where):
    text = b"".join(b"INSERT:8 v%07d\nREAD %d\n" % (n, n) for n in range(1, 10001))
    result = piped(*where, text=text)
    expected = b"".join(b"SUCCESS,key=%d\nSUCCESS,size=8,value=v%07d\n" % (n, n) for n in range(1, 10001))
    assert result.stdout == expected and result.returncode == 0


def test_large_lines(where):
    value = b"v" * (5 << 20)
    result = piped(*where, text=b"INSERT " + value + b"\nREAD 1\nINSERT small\n")
    assert result.stdout == b"SUCCESS,key=1\nSUCCESS,size=%d,value=%s\nSUCCESS,key=2\n" % (len(value), value)


def test_exit_ends(where):
    result = piped(*where, text="INSERT a\nexit\nINSERT b\n")
    assert result.stdout == b"SUCCESS,key=1\n" and result.returncode == 0
    assert piped(*where, text="READ 2\n").stdout == b"ERROR,key_not_found\n"


@pytest.mark.parametrize("exit", ["  EXIT", "Exit  ", "EXIT\r", " exit \r"])
def test_exit_with_blanks(where, exit):
    result = piped(*where, text="INSERT a\n%s\nINSERT b\n" % exit)
    assert result.stdout == b"SUCCESS,key=1\n" and result.returncode == 0 and result.stderr == b""


@pytest.mark.parametrize("other", ["EXIT now", "EXITS", "\rEXIT", "EXIT \r ", "EX IT", "EXIT\r\r"])
def test_what_is_no_exit(where, other):
    result = piped(*where, text="%s\nINSERT b" % other)
    assert re.fullmatch(rb"ERROR,\w+\nSUCCESS,key=1\n", result.stdout) and result.returncode == 0, result


def test_nothing_to_do(where):
    result = piped(*where, text="")
    assert result.stdout == b"" and result.returncode == 0


def test_output_that_gets_nowhere(where):
    with open("/dev/full", "wb") as full:
        result = subprocess.run([harness.BINARY, "shell", *where], input=b"READ 1\n", stdout=full, stderr=subprocess.PIPE, env=CLEAN, timeout=120)
    assert result.returncode == 1 and result.stderr


def test_no_server():
    result = piped("--connect", "127.0.0.1:1", text="READ 1\n")
    assert result.returncode == 1 and b"127.0.0.1:1" in result.stderr


def test_no_line_protocol(launch, tmp_path):
    """The port of HTTP, or of TLS without --tls: no answer of it is taken for one of the line protocol, and the token is not to blame."""
    shown = certificates.self_signed(tmp_path)
    http, tls = launch(), launch("--tls-cert", shown.cert, "--tls-key", shown.key, "--line-tls", scheme="https", cafile=shown.cert)
    for port in (http.port, tls.line_port):
        for env in ({}, {"CHEETAH_TOKEN": "secret-of-sixteen-bytes"}):
            result = piped("--connect", "127.0.0.1:%d" % port, text="READ 1\n", env=env)
            assert result.returncode == 1 and result.stdout == b"" and b"does not speak the line protocol" in result.stderr, result


@pytest.mark.parametrize("flags", [["--nonsense"], ["extra"], ["--connect"], ["--connect", "nonsense"], ["--connect", "a:1", "--data", "b"],
                                   ["--data", "a,,b"]])
def test_usage(flags):
    result = piped(*flags, text="")
    assert result.returncode == 2 and result.stderr and not result.stdout


def test_data_that_is_not_there(tmp_path):
    result = piped("--data", str(tmp_path / "nowhere"), text="READ 1\n")
    assert result.returncode == 1 and b"no such data directory" in result.stderr and not (tmp_path / "nowhere").exists()


def test_several_directories(tmp_path):
    both = "%s,%s" % (tmp_path / "one", tmp_path / "two")
    assert subprocess.run([harness.BINARY, "create", "default", "--shards", "4", "--data", both], timeout=120).returncode == 0
    text = "".join("INSERT v%d\nPAIR_SET p%d %d\n" % (n, n, n) for n in range(1, 101))
    assert piped("--data", both, text=text).stdout.count(b"SUCCESS,") == 200
    assert piped("--data", both, text="PAIR_SCAN p -1\n").stdout.startswith(b"SUCCESS,count=100,items=")
    result = piped("--data", str(tmp_path / "one"), text="READ 1\n")
    assert result.returncode == 1 and b"data directory 2 of 2 is missing" in result.stderr and not result.stdout


def test_data_of_a_running_server(launch):
    server = launch()
    result = piped("--data", server.data, text="READ 1\n")
    assert result.returncode == 1 and b"in use by another process" in result.stderr


def test_data_of_a_killed_server(launch):
    server = launch()
    with server.line() as line:
        line.ask("INSERT survives")
    server.kill()
    assert piped("--data", server.data, text="READ 1\n").stdout == b"SUCCESS,size=8,value=survives\n"
    server.restart()
    with server.line() as line:
        assert line.ask("READ 1") == b"SUCCESS,size=8,value=survives"


def test_help():
    result = piped("--help", text="")
    assert result.returncode == 0 and b"--connect" in result.stdout and b"--data" in result.stdout


def test_tokens(launch, tmp_path):
    path, mine, wrong = tmp_path / "tokens", tmp_path / "mine", tmp_path / "wrong"
    path.write_text("secret-0123456789 write *\n")
    mine.write_text("secret-0123456789\n")
    wrong.write_text("wrong\n")
    path.chmod(0o600)
    server = launch("--tokens", str(path), ready=False)
    harness.wait_for(lambda: server.client(check=False, token="secret-0123456789").get("/readyz").status == 200, what="/readyz")
    to = ["--connect", "127.0.0.1:%d" % server.line_port]
    assert piped(*to, text="READ 1\n").stdout == b"ERROR,unauthorized\n"
    assert piped(*to, "--token-file", str(mine), text="INSERT a\n").stdout == b"SUCCESS,key=1\n"
    assert piped(*to, text="READ 1\n", env={"CHEETAH_TOKEN": "secret-0123456789"}).stdout == b"SUCCESS,size=1,value=a\n"
    refused = piped(*to, "--token-file", str(wrong), text="READ 1\n")
    assert refused.returncode == 1 and b"token" in refused.stderr and refused.stdout == b""


def test_a_server_that_dies(launch):
    """Fewer answers than lines is a failure."""
    server = launch()
    with subprocess.Popen([harness.BINARY, "shell", "--connect", "127.0.0.1:%d" % server.line_port], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=CLEAN) as shell:
        shell.stdin.write(b"INSERT a\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == b"SUCCESS,key=1\n"
        os.kill(server.process.pid, signal.SIGSTOP)
        shell.stdin.write(b"READ 1\n" * 10)
        shell.stdin.flush()
        time.sleep(0.2)
        server.kill()
        assert shell.wait(120) == 1
        assert b"answered" in shell.stderr.read()


def test_a_server_that_dies_before_the_input_ends(launch):
    """All lines so far were answered, but those to come cannot be."""
    server = launch()
    with subprocess.Popen([harness.BINARY, "shell", "--connect", "127.0.0.1:%d" % server.line_port], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=CLEAN) as shell:
        shell.stdin.write(b"INSERT a\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == b"SUCCESS,key=1\n"
        server.kill()
        assert shell.wait(120) == 1
        assert b"1 of 1 lines were answered" in shell.stderr.read()


# ---- on a terminal ---------------------------------------------------------------------------------------------------


class Terminal:
    """A shell on a pty. What it prints is kept as text, without escape sequences."""

    def __init__(self, flags, history, columns=100, env=None):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.clear()
            os.environ.update(dict(CLEAN, TERM="xterm", CHEETAH_HISTORY=str(history), COLUMNS=str(columns), **(env or {})))
            os.execv(harness.BINARY, [harness.BINARY, "shell", *flags])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.raw, self.code = b"", None
        self.place = flags[1].rsplit("/", 1)[-1]  # HOST:PORT, or the folder

    def text(self):
        text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\([A-Z]", b"", self.raw)
        return text.replace(b"\r", b"").decode("utf-8", "replace")

    def read(self, seconds):
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return False
            self.raw += data
            return bool(data)
        return True

    def expect(self, wanted, seconds=60):
        """Waits until the text holds what is wanted; returns what came up to there and forgets it."""
        end = time.monotonic() + seconds
        while wanted not in self.text():
            assert time.monotonic() < end, "no %r in %r" % (wanted, self.text())
            assert self.read(0.2) or wanted in self.text(), "it ended: %r" % self.text()
        text = self.text()
        self.raw = text.partition(wanted)[2].encode()
        return text.partition(wanted)[0]

    def type(self, text):
        """Keys, once the editor reads them: it prints the prompt a moment before it takes the terminal over."""
        harness.wait_for(lambda: not termios.tcgetattr(self.fd)[3] & termios.ICANON, what="the editor")
        os.write(self.fd, text.encode() if isinstance(text, str) else text)

    def run(self, command, database="default"):
        """Types a command; returns the lines of its answer. The prompt names the server, or the folder of stopped data, and the database."""
        self.type(command + "\n")
        lines = self.expect("[%s/%s]> " % (self.place, database)).split("\n")
        return [line.rstrip() for line in lines[1:-1]]

    def wait(self, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                return self.code
        raise AssertionError("it did not end: %r" % self.text())

    def close(self):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(where, tmp_path):
    opened = []

    def start(**more):
        opened.append(Terminal(where, tmp_path / "history", **more))
        opened[-1].expect("[%s/default]> " % opened[-1].place)
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_conversation_over_tls(launch, tmp_path):
    shown = certificates.self_signed(tmp_path)
    server = launch("--tls-cert", shown.cert, "--tls-key", shown.key, "--line-tls", scheme="https", cafile=shown.cert)
    shell = Terminal(("--connect", "127.0.0.1:%d" % server.line_port, "--tls-ca", shown.cert), tmp_path / "history")
    try:
        shell.expect("[%s/default]> " % shell.place)
        shell.run("INSERT hello")
        assert "hello" in "".join(shell.run("READ 1"))
    finally:
        shell.close()


def test_conversation(terminal):
    shell = terminal()
    assert shell.run("INSERT hello world") == ["key=1"]
    assert shell.run("READ 1") == ["hello world", "11 bytes"]
    assert shell.run("READ 2") == ["ERROR,key_not_found"]
    assert shell.run("EDIT 1 x") == ["key=1_updated"]
    assert shell.run("READ 1") == ["x", "1 byte"]
    assert shell.run("PAIR_SET ctx: 1") == ["pair_set"]
    assert shell.run("") == []
    assert shell.run("NONSENSE") == ["ERROR,unknown_command"]
    shell.type("EXIT\n")
    assert shell.wait() == 0


def test_tables_and_decoded_payloads(terminal):
    shell = terminal()
    counts = bytes([1, 3, 0, 2]) + b"".join(n.to_bytes(4, "big") for n in (7, 2, 9, 5))
    json_text = b'{"a":1}'
    for value in (counts, json_text):
        shell.run("INSERT " + base64.b64encode(value).decode())
    assert shell.run("PAIR_SCAN *") == ["0 pairs"]
    shell.run("INSERT plain")
    for name, key in [("cnt:3:x", 3), ("x0001", 3), ("gone", 99)]:
        shell.run("PAIR_SET %s %d" % (name, key))
    lines = shell.run("PAIR_SCAN *")
    assert [line.split() for line in lines] == [["PAIR", "KEY"], ["x0001", "3"], ["cnt:3:x", "3"], ["gone", "99"], ["3", "pairs"]]
    lines = shell.run("PAIR_REDUCE payloads *")
    assert [line.split() for line in lines] == [["PAIR", "KEY", "PAYLOAD"], ["x0001", "3", "plain"], ["cnt:3:x", "3", "plain"],
                                                ["gone", "99", "(no", "value)"], ["3", "pairs"]]
    assert shell.run("PAIR_SCAN * 1")[-1] == "1 pair; more after x0001"


def test_payload_decoders(launch, tmp_path):
    """Binary payloads, as the statistics layer writes them, are shown decoded."""
    server = launch()
    http = server.client()
    counts = bytes([1, 3, 0, 2]) + b"".join(n.to_bytes(4, "big") for n in (7, 2, 9, 5))
    http.upsert(b"cnt:3:a", counts)
    http.upsert(b"cnt:3:b", b"\1\3\0\xff")
    http.upsert(b"meta:a", b'{"a": 1}')
    key = http.upsert(b"nl", b"one\ntwo")
    binary = http.upsert(b"bin", b"\0\1\2abc")
    shell = Terminal(["--connect", "127.0.0.1:%d" % server.line_port], tmp_path / "history")
    shell.expect("[%s/default]> " % shell.place)
    lines = shell.run("PAIR_REDUCE counts cnt:3:")
    assert '"order":3,"followers":[[7,2],[9,5]]' in lines[1] and "(malformed)" in lines[2] and lines[3] == "2 pairs"
    assert '"json":{"a":1}' in shell.run("PAIR_REDUCE meta meta:")[1]
    assert shell.run("READ %d" % key)[0].startswith("ERROR,value_contains_newline")
    lines = shell.run("READ %d" % binary)
    assert lines == ["00000000  00 01 02 61 62 63                                ...abc", "6 bytes"]
    shell.close()


def test_long_lines_are_cut(terminal):
    shell = terminal(columns=60)
    shell.run("INSERT " + "v" * 500)
    shell.run("PAIR_SET p 1")
    lines = shell.run("PAIR_REDUCE payloads p")
    assert len(lines[1]) == 60 and lines[1].endswith("vvv...")


def test_prompt_follows_the_database(terminal):
    shell = terminal()
    assert shell.run("DATABASE words", "words") == ["database_changed_to_words"]
    assert shell.run("INSERT x", "words") == ["key=1"]
    assert shell.run("DATABASE no/such", "words") == ["ERROR,invalid_database_name"]
    assert shell.run("DATABASE default") == ["database_changed_to_default"]
    assert shell.run("READ 1") == ["ERROR,key_not_found"]
    assert shell.run("RESET_DB words", "words") == ["database_reset_to_words"]
    assert shell.run("READ 1", "words") == ["ERROR,key_not_found"]


def test_help_on_a_terminal(terminal):
    shell = terminal()
    text = "\n".join(shell.run("HELP"))
    for word in ("INSERT", "READ", "EDIT", "DELETE", "PAIR_SET", "PAIR_GET", "PAIR_DEL", "PAIR_SCAN", "PAIR_REDUCE", "DATABASE", "EXIT"):
        assert word in text
    one = shell.run("help read")
    assert len(one) == 1 and one[0].split()[:2] == ["READ", "KEY"]


def test_completion(terminal):
    shell = terminal()
    shell.type("INS\t")
    shell.type("done\n")
    shell.expect("key=1")
    shell.expect("> ")
    shell.type("PAIR_\t\t")
    listed = shell.expect("PAIR_SCAN")
    assert "PAIR_GET" in listed
    shell.type("R\t cont\t\x15")  # PAIR_REDUCE_ASYNC begins so, too; contexts or continuations: only "cont" is common; the line is dropped
    shell.type("PAIR_R\t prob\t*\n")
    shell.expect("0 pairs")


def test_completion_of_names(terminal):
    """Names of pairs and databases are asked of the server: in the form that was begun, in the case that they have."""
    shell = terminal()
    for line in ("INSERT v", "PAIR_SET greeting:de 1", "PAIR_SET greeting:en 1", "PAIR_SET Other 1", "PAIR_SET x00ff 1", "DATABASE words", "DATABASE default"):
        shell.type(line + "\n")
        shell.expect("]> ")
    shell.type("PAIR_GET gr\t")
    shell.expect("greeting:")  # what both have in common
    shell.type("d\t\n")
    shell.expect("key=1")
    shell.type("PAIR_GET O\t\n")
    shell.expect("key=1")
    shell.type("PAIR_GET o\t\n")  # another letter: nothing is found, and what was typed stays
    shell.expect("ERROR,not_found")
    shell.type("PAIR_GET x67\t64\n")
    shell.expect("ERROR,")
    shell.type("PAIR_GET x00\t\n")
    shell.expect("key=1")
    shell.type("PAIR_REDUCE payloads gr\t\n")
    shell.expect("2 pairs")
    shell.type("DATABASE wo\t\n")
    shell.expect("database_changed_to_words")
    shell.type("PAIR_ADD n 5\n")
    shell.expect("value=5")
    shell.type("PAIR_AD\tn\t-7\n")
    shell.expect("value=-2")


def test_completion_of_many_names(terminal):
    """More than are looked at: they are shown, with dots, and nothing is put in that not all of them have."""
    shell = terminal()
    shell.type("INSERT v\n")
    shell.expect("]> ")
    pairs = ["PAIR_SET n:a%03d 1" % n for n in range(120)] + ["PAIR_SET n:b 1"]
    for line in pairs:
        shell.type(line + "\n")
        shell.expect("]> ")
    shell.type("PAIR_GET n:\t")
    assert "n:a000" in shell.expect("...")
    shell.type("b\n")
    shell.expect("key=1")


def test_the_server_of_the_environment(launch, tmp_path):
    """CHEETAH_URL names the host; nothing else is connected to, and what is no address is refused."""
    server = launch()
    for url, code in (("http://127.0.0.1:1", 1), ("127.0.0.1", 1), ("http://user@h", 2), ("http://", 2), ("unix:/run/x", 2), ("https://127.0.0.1:1", 1)):
        done = piped("--connect", "127.0.0.1:%d" % server.line_port, text="PAIR_SCAN *\n", env={"CHEETAH_URL": url})
        assert done.returncode == 0, "--connect is before it"
        if url == "127.0.0.1" or code == 2 or not listens(4455):
            done = piped(text="PAIR_SCAN *\n", env={"CHEETAH_URL": url})
            assert done.returncode == code or (code == 1 and listens(4455)), (url, done)
    assert piped("--connect", "http://127.0.0.1:8080", text="").returncode == 2


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_editing_and_history(terminal):
    shell = terminal()
    shell.type("INSERT abd\x1b[D\x7fc\n")  # one to the left, rub out b, type c
    shell.expect("key=1")
    shell.expect("> ")
    assert shell.run("READ 1") == ["acd", "3 bytes"]
    shell.run("AUTH secret-token")
    shell.type("EXIT\n")
    assert shell.wait() == 0
    again = terminal()
    again.type("\x1b[A\x1b[A\n")  # EXIT, then READ 1: the token is not kept
    again.expect("acd")
    again.type("\x04")
    assert again.wait() == 0


def test_history_file(where, tmp_path):
    history = tmp_path / "history"
    shell = Terminal(where, history)
    shell.expect("> ")
    shell.run("READ 7")
    shell.run("AUTH secret-token")
    shell.type("EXIT\n")
    assert shell.wait() == 0
    shell.close()
    kept = history.read_text()
    assert "READ" in kept and "secret" not in kept and history.stat().st_mode & 0o077 == 0


def test_interrupt_drops_the_line(terminal):
    shell = terminal()
    shell.type("INSERT not this")
    shell.expect("not this")
    shell.type("\x03")
    shell.expect("[%s/default]> " % shell.place)
    assert shell.run("READ 1") == ["ERROR,key_not_found"]


def test_an_interrupted_answer_keeps_the_history(launch, tmp_path):
    """Ctrl-C while an answer is waited for leaves, and what was typed is there the next time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        shell = Terminal(["--connect", "127.0.0.1:%d" % silent.getsockname()[1]], tmp_path / "history")
        shell.expect("> ")
        shell.type("READ 77\n")
        with silent.accept()[0] as held:  # open until the end: else the shell would see it lost, and ask for the next line
            held.recv(100)
            os.kill(shell.pid, signal.SIGINT)
            assert shell.wait() == -signal.SIGINT
            shell.close()
    assert "READ" in (tmp_path / "history").read_text()


def test_what_others_have_stored_commands_no_terminal(terminal):
    """Escape sequences, those of C1 controls too, in values, names and payloads."""
    shell = terminal()
    evil = "\x1b]0;red\u009b31m"
    for at, text in enumerate(("a\u009b31m", evil, json.dumps({"a": "\u009b31m"}, ensure_ascii=False), '{"a":"%s"}' % evil), 1):
        items = base64.b64encode(json.dumps([{"k": "n:%d" % at, "v": "x" + text.encode().hex()}]).encode()).decode()
        assert shell.run("PAIR_PUT_BATCH items=" + items)[0].startswith("command=PAIR_PUT_BATCH,requested=1,applied=1")
    shell.run("PAIR_SET x%s 1" % evil.encode().hex())
    shell.run("PAIR_SET x%s 1" % "n:\u009b31m".encode().hex())
    keys = [shell.run("PAIR_GET n:%d" % at)[0].partition("=")[2] for at in (1, 2)]
    for command in ("READ " + keys[0], "READ " + keys[1], "PAIR_SCAN *", "PAIR_REDUCE meta n:", "PAIR_REDUCE payloads *", "PAIR_SUMMARY *"):
        lines = "".join(shell.run(command))
        assert len(lines) > 20 and not re.search("[\x00-\x1f\x7f-\x9f]", lines), (command, lines)


def test_utf8(terminal):
    shell = terminal()
    assert shell.run("INSERT gr\u00fc\u00dfe") == ["key=1"]
    assert shell.run("READ 1") == ["gr\u00fc\u00dfe", "7 bytes"]
    for name in ("gr\u00fc\u00dfe", "\u65e5\u672c", "plain"):
        shell.run("PAIR_SET %s 1" % name)
    keys = [line.index("1") for line in shell.run("PAIR_SCAN *")[1:-1]]
    assert keys == [7, 7, 7 - 2], "the keys stand below each other: a character of the last takes two columns"


class Relay:
    """A port in front of a server's, whose connections the test ends."""

    def __init__(self, port):
        self.listening, self.target, self.open = socket.create_server(("127.0.0.1", 0)), port, []
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                pair = self.listening.accept()[0], socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            self.open.append(pair)
            for way in (pair, pair[::-1]):
                threading.Thread(target=self.copy, args=way, daemon=True).start()

    @staticmethod
    def copy(source, target):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    return
                target.sendall(data)
        except OSError:
            pass

    def cut(self):
        """Ends what is open; both sides are told before this returns."""
        for pair in self.open:
            for one in pair:
                one.shutdown(socket.SHUT_RDWR)
        self.open = []

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.cut()


def test_lost_connection(launch, tmp_path):
    server = launch()
    relay = Relay(server.line_port)
    shell = Terminal(["--connect", "127.0.0.1:%d" % relay.port], tmp_path / "history")
    shell.expect("> ")
    shell.run("DATABASE words", "words")
    relay.cut()
    lines = shell.run("INSERT x", "words")
    assert "connection was lost" in lines[0]
    assert shell.run("INSERT y", "words") == ["key=1"]
    relay.close()
    shell.type("READ 1\n")
    assert shell.wait() == 1
    shell.close()


def answering(connections):
    """A server of the line protocol that gives these answers, a list for each connection, and then ends it. Returns its port and what it reads."""
    listening, asked = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        with listening:
            for answers in connections:
                one = listening.accept()[0]
                with one, one.makefile("rb") as lines:
                    for answer in answers:
                        asked.append(lines.readline().decode().rstrip())
                        one.sendall(answer + b"\n")
                    asked.append(lines.readline().decode().rstrip())

    threading.Thread(target=serve, daemon=True).start()
    return listening.getsockname()[1], asked


def test_a_new_connection_goes_back_to_the_database_of_a_reset(tmp_path):
    port, asked = answering([[b"SUCCESS,database_reset_to_words"], [b"SUCCESS,database_changed_to_words"]])
    shell = Terminal(["--connect", "127.0.0.1:%d" % port], tmp_path / "history")
    shell.expect("> ")
    assert shell.run("RESET_DB words", "words") == ["database_reset_to_words"]
    assert "connection was lost" in shell.run("INSERT x", "words")[0]
    assert asked[:3] == ["RESET_DB words", "INSERT x", "DATABASE words"]
    shell.close()


def test_a_new_connection_that_may_not_go_back(tmp_path):
    """AUTH was typed, and the new connection has no token: the prompt says in which database it is."""
    port, asked = answering([[b"SUCCESS,authenticated", b"SUCCESS,database_changed_to_words"], [b"ERROR,unauthorized"]])
    shell = Terminal(["--connect", "127.0.0.1:%d" % port], tmp_path / "history")
    shell.expect("> ")
    shell.run("AUTH secret")
    shell.run("DATABASE words", "words")
    lines = shell.run("INSERT x")
    assert "connection was lost" in lines[0] and lines[1:] == ["ERROR,unauthorized", "words cannot be gone back to: this is default"]
    assert asked[2:4] == ["INSERT x", "DATABASE words"]
    shell.close()
