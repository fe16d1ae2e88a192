"""Unix sockets and what the service manager passes: both protocols, the file of a socket, who connects, sockets by name, READY=1."""
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import harness
import pytest

PROGRAM = harness.BINARY


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=harness.HANG)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(harness.HANG)
        self.sock.connect(self.path)


def ask(connection, path, method="GET", body=None):
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def started(command, env=None, **more):
    """A running server; its log goes to a file that `said` reads."""
    log = more.pop("log")
    with open(log, "ab") as file:
        process = subprocess.Popen(command, env=dict(os.environ, **env or {}), stdin=subprocess.DEVNULL, stdout=file, stderr=file, **more)
    process.log = log
    return process


def said(process):
    with open(process.log, encoding="utf-8", errors="replace") as file:
        return file.read()


def wait_ready(process, text='"ready"'):
    until = time.monotonic() + harness.HANG
    while text not in said(process):
        assert process.poll() is None and time.monotonic() < until, said(process)
        time.sleep(0.02)


def stop(process, how=signal.SIGTERM):
    process.send_signal(how)
    return process.wait(harness.HANG)


@pytest.fixture
def launch(tmp_path):
    processes = []

    def start(*flags, env=None, wait=True, data="data", **more):
        command = [PROGRAM, "serve", "--data", str(tmp_path / data), "--line-listen", "none", "--drain-seconds", "0", "--shards", "1", *flags]
        processes.append(started(more.pop("prefix", []) + command, env, log=str(tmp_path / ("log%d" % len(processes))), **more))
        if wait:
            wait_ready(processes[-1])
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def refused(launch, *flags, **more):
    """Exit code and words of a server that does not start."""
    process = launch(*flags, wait=False, **more)
    return process.wait(harness.HANG), said(process)


def test_both_protocols(launch, tmp_path):
    web, line = str(tmp_path / "web"), str(tmp_path / "line")
    process = launch("--listen", "unix:" + web, "--line-listen", "unix:" + line)
    for path in (web, line):
        mode = os.stat(path).st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    connection = UnixConnection(web)
    status, body = ask(connection, "/kv", "POST", b"hello")
    assert status == 201 and ask(connection, "/kv/%d" % json.loads(body)["key"])[0] == 200
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(harness.HANG)
        sock.connect(line)
        sock.sendall(b"READ 1\nEXIT\n")
        answer = b""
        while not answer.endswith(b"\n") or b"hello" not in answer:
            answer += sock.recv(4096)
        assert b"hello" in answer
    wait_ready(process, '"client":"unix:%d"' % os.getuid())
    connection.close()
    assert stop(process) == 0 and not os.path.exists(web) and not os.path.exists(line)


def test_the_socket_of_a_server_that_was_killed_is_taken(launch, tmp_path):
    web = str(tmp_path / "web")
    stop(launch("--listen", "unix:" + web), signal.SIGKILL)
    assert os.path.exists(web)
    process = launch("--listen", "unix:" + web)
    assert ask(UnixConnection(web), "/readyz")[0] == 200
    code, words = refused(launch, "--listen", "unix:" + web, data="other")
    assert code == 1 and "in use by another server" in words
    assert ask(UnixConnection(web), "/readyz")[0] == 200, "the first still serves, at the same path"
    assert stop(process) == 0 and not os.path.exists(web)


def test_what_is_no_socket_is_left_alone(launch, tmp_path):
    there = tmp_path / "file"
    there.write_bytes(b"somebody's")
    (tmp_path / "link").symlink_to(there)
    (tmp_path / "folder").mkdir()
    for name in ("file", "link", "folder"):
        code, words = refused(launch, "--listen", "unix:" + str(tmp_path / name))
        assert code == 1 and "is no socket" in words, words
    assert there.read_bytes() == b"somebody's" and (tmp_path / "link").is_symlink()
    code, words = refused(launch, "--listen", "unix:" + str(tmp_path / "nothing" / "web"))
    assert code == 1 and "cannot open the folder" in words
    for bad in ("unix:web", "unix:", "unix:/" + "x" * 200):
        code, words = refused(launch, "--listen", bad)
        assert code == 2 and "absolute path" in words, words


def test_a_socket_that_another_server_has_taken_is_not_removed(launch, tmp_path):
    web = str(tmp_path / "web")
    process = launch("--listen", "unix:" + web)
    os.unlink(web)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(web)
        other.listen(5)
        assert stop(process) == 0 and os.path.exists(web)


def test_connections_are_counted_by_user(launch, tmp_path):
    web = str(tmp_path / "web")
    launch("--listen", "unix:" + web, "--max-connections-per-address", "2")
    connections = [UnixConnection(web) for _ in range(3)]
    assert [ask(connection, "/version")[0] for connection in connections] == [200, 200, 503]
    connections[0].close()
    until = time.monotonic() + harness.HANG
    while ask(UnixConnection(web), "/version")[0] != 200:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_tools_ask_over_it(launch, tmp_path):
    web, line = str(tmp_path / "web"), str(tmp_path / "line")
    launch("--listen", "unix:" + web, "--line-listen", "unix:" + line)

    def tool(*words, **more):
        return subprocess.run([PROGRAM, *words], stdin=more.pop("stdin", subprocess.DEVNULL), capture_output=True, text=True, timeout=harness.HANG, **more)

    assert tool("health", "--connect", "unix:" + web).stdout == "ready\n"
    assert tool("health", env=dict(os.environ, CHEETAH_LISTEN="unix:" + web)).returncode == 0
    assert tool("health", "--connect", "unix:" + str(tmp_path / "nobody")).returncode == 1
    assert "default" in tool("stat", "--connect", "unix:" + web).stdout
    (tmp_path / "lines").write_text("INSERT:5 hello\nREAD 1\n")
    with open(tmp_path / "lines") as file:
        done = tool("shell", "--connect", "unix:" + line, stdin=file)
    assert done.returncode == 0 and "hello" in done.stdout, done


# ---- what the service manager passes

PASS = """
import os, sys
names, count = sys.argv[1], int(sys.argv[2])
fds = [os.dup(int(n)) for n in sys.argv[3:3 + count]]  # out of the way of each other
fds = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(fds):
    os.dup2(fd, 3 + i, inheritable=True)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=names)
os.execv(sys.argv[3 + count], sys.argv[3 + count:])
"""


def passing(names, *sockets):
    numbers = [sock.fileno() for sock in sockets]
    return {"prefix": [sys.executable, "-c", PASS, names, str(len(numbers)), *map(str, numbers)], "pass_fds": numbers}


def test_sockets_that_were_passed(launch, tmp_path):
    web, path = socket.create_server(("127.0.0.1", 0)), str(tmp_path / "line")
    with web, socket.socket(socket.AF_UNIX) as line:
        line.bind(path)
        line.listen(5)
        process = launch("--listen", "systemd:web", "--line-listen", "systemd:line", **passing("line:web", line, web))
        connection = http.client.HTTPConnection(*web.getsockname(), timeout=harness.HANG)
        assert ask(connection, "/readyz")[0] == 200
        connection.close()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(harness.HANG)
            client.connect(path)
            client.sendall(b"INSERT:1 x\n")
            assert client.recv(100).startswith(b"SUCCESS")
        assert stop(process) == 0 and os.path.exists(path), "it is the service manager's"


def test_the_only_socket_needs_no_name(launch):
    with socket.create_server(("127.0.0.1", 0)) as web:
        launch("--listen", "systemd", **passing("unknown", web))
        assert ask(http.client.HTTPConnection(*web.getsockname(), timeout=harness.HANG), "/readyz")[0] == 200


def test_sockets_that_were_not_passed(launch):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        for flags, more, words in [
            (["--listen", "systemd:web"], {}, "has passed no socket called web"),
            (["--listen", "systemd"], {}, "has passed no socket"),
            (["--listen", "systemd:web"], passing("line", one), "has passed no socket called web"),
            (["--listen", "systemd"], passing("a:b", one, two), "or several"),
            (["--listen", "systemd:web"], passing("web", datagrams), "no stream socket that listens"),
            (["--listen", "systemd:web"], {"env": {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}}, "has passed no socket"),
        ]:
            code, log = refused(launch, *flags, **more)
            assert code == 2 and words in log, log


def test_a_passed_socket_beyond_loopback_needs_tokens(launch):
    with socket.create_server(("0.0.0.0", 0)) as web:
        code, log = refused(launch, "--listen", "systemd:web", **passing("web", web))
        assert code == 2 and "can be reached from other machines" in log


# ---- readiness


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(launch, tmp_path, abstract):
    name = "@cheetah-test-%d" % os.getpid() if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(harness.HANG)
        process = launch("--listen", "127.0.0.1:0", env={"NOTIFY_SOCKET": name})
        told = []
        while not any("READY=1" in text for text in told):
            told.append(manager.recv(1000).decode())
        assert told[0] == "STATUS=opening databases: logs are read" and told[-1].split("\n")[0] == "READY=1"
        assert stop(process) == 0
        assert manager.recv(1000).decode().startswith("STOPPING=1\n")


def test_a_manager_that_is_gone_is_no_error(launch, tmp_path):
    process = launch("--listen", "127.0.0.1:0", env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert stop(process) == 0
    process = launch("--listen", "127.0.0.1:0", env={"NOTIFY_SOCKET": "relative"})
    assert stop(process) == 0
