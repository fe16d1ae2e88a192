"""harness: starts the server under test, and the clients that the tests speak to it with. A package: tests/pytest.ini puts it on the path,
for programs that are no test PYTHONPATH=tests/support does.

Server    one process with its own data directory; stopped with SIGTERM, which must end it with exit code 0
Client    HTTP/1.1 over one kept connection; sends targets as they are and checks every answer against the contract
Raw       a socket, for what a client library would not send
line      the same for the line protocol            openapi   the contract, and whether an answer keeps it
answer    what came back                           waiting   for what comes when it comes
rados     CHT_STORE=rados: servers on a Ceph cluster
layouts   the payloads of a database of n-grams     golden    the example of tests/data/golden
"""
import base64
import contextlib
import glob
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse

from harness import rados
from harness.answer import Answer
from harness.waiting import HANG, Machine, wait_for  # noqa: F401

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BINARY = os.environ.get("CHEETAH_DB") or os.path.join(ROOT, "build", "release", "cheetah-db")
if os.path.dirname(BINARY):
    BINARY = os.path.abspath(BINARY)


def _sanitized():
    try:
        with open(shutil.which(BINARY) or BINARY, "rb") as program:
            return re.search(b"lib[at]san", program.read()) is not None
    except OSError:
        return False


SANITIZED = _sanitized()  # several times slower, and keeps memory that was freed
LONG = bool(os.environ.get("CHT_TEST_LONG"))
SERVICE = re.compile(r"/(healthz|readyz|metrics|version|openapi\.yaml|databases)\b")
_contract = []


def contract():
    if not _contract:
        from harness.openapi import Contract  # JSON Schema, which a load generator need not have

        _contract.append(Contract())
    return _contract[0]


# ---- byte strings ----------------------------------------------------------------------------------------------------


def b64(data):
    return base64.b64encode(data).decode()


def unb64(text):
    return base64.b64decode(text, validate=True)


def hexed(data):
    """A byte string as a URL takes it, in hexadecimal."""
    return "x" + data.hex() if data else "*"


def escaped(data):
    """A byte string with every byte percent-encoded; in hexadecimal where the contract asks for it."""
    if data[:1] == b"x" and len(data) > 1 or data == b"*":
        data = hexed(data).encode()
    return "".join("%%%02X" % byte for byte in data)


def ndjson(values):
    return "".join(json.dumps(value, separators=(",", ":")) + "\n" for value in values).encode()


# ---- ports -----------------------------------------------------------------------------------------------------------


def free_port():
    """A port that nobody has now; foreign programs cannot be told to take any. It is none of those that the system gives to whoever connects, or listens
    on any: they might have it before it is used, or between two uses."""
    for port in random.SystemRandom().sample(range(10000, 30000), 1000):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise AssertionError("no free port")


# ---- damage ----------------------------------------------------------------------------------------------------------


def damage(directory, text):
    """Changes the last byte of the one value that holds these bytes, in the page files of a stopped server; its checksum then
    no longer fits. Returns the file and the offset."""
    if rados.WANTED:
        rados.skip("there are no files to damage")
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.isfile(path) or name.endswith(".log"):
                continue
            with open(path, "rb") as file:
                data = file.read()
            at = data.find(text)
            while at >= 0:
                found.append((path, at + len(text) - 1, data[at + len(text) - 1]))
                at = data.find(text, at + 1)
    assert len(found) == 1, "the value %r lies in %r" % (text[:40], found)
    path, at, byte = found[0]
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    return path, at


# ---- the server ------------------------------------------------------------------------------------------------------


class Server:
    def __init__(self, *flags, data=None, env=None, scheme="http", cafile=None, defaults=True, ready=True, binary=None):
        self.directory = tempfile.TemporaryDirectory(prefix="cht_http.")
        self.data = data or os.path.join(self.directory.name, "data")
        self.port_file = os.path.join(self.directory.name, "port")
        self.flags, self.scheme, self.cafile = list(flags), scheme, cafile
        self.command = [binary or BINARY, "serve"]
        if defaults and "--listen" not in flags:
            self.command += ["--listen", "127.0.0.1:0"]
        if defaults and "--drain-seconds" not in flags:
            self.command += ["--drain-seconds", "0"]
        self.pool = rados.pool(self.data) if rados.WANTED else None
        place = rados.store(self.pool) + rados.flags(self.flags) if rados.WANTED else ["--data", self.data] + self.flags
        self.command += ["--port-file", self.port_file] + place
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
        self.env["CHEETAH_LINE_LISTEN"] = "none"  # tests/line turns it on
        self.env.update(env or {})
        self.lines, self.clients, self.process = [], [], None
        try:
            self.start(ready)
        except BaseException:
            self.process.kill()
            self.process.wait()
            self.directory.cleanup()
            raise

    def start(self, ready=True):
        if os.path.exists(self.port_file):
            os.unlink(self.port_file)
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, env=self.env)
        self.reader = threading.Thread(target=self._collect, args=(self.process.stderr,), daemon=True)
        self.reader.start()
        self.port = wait_for(self._read_port, what="the port file")
        if ready:
            client = self.client(check=False)
            wait_for(lambda: self._is_ready(client), what="/readyz")
            client.close()

    @staticmethod
    def _is_ready(client):
        try:
            return client.get("/readyz").status == 200
        except ConnectionError:  # a time-out of a second, and this program waited longer for a processor
            client.close()
            return False

    def _collect(self, pipe):
        for line in pipe:
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    def _read_port(self):
        if self.process.poll() is not None:
            self.reader.join(HANG)
            raise AssertionError("the server ended with %d: %s" % (self.process.returncode, "\n".join(self.lines)))
        try:
            with open(self.port_file, encoding="ascii") as file:
                text = file.read()
        except FileNotFoundError:
            return 0
        return int(text) if text.endswith("\n") else 0

    def log(self, event=None):
        """The lines of stderr, parsed; with event only those."""
        parsed = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return parsed if event is None else [line for line in parsed if line.get("event") == event]

    def client(self, db=None, **more):
        client = Client(self, db=db, **more)
        self.clients.append(client)
        return client

    def raw(self, **more):
        return Raw(self.port, **more)

    def rss(self):
        """Resident memory in bytes."""
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:"))

    def metrics(self):
        """Metric lines: {"name{labels}": value}."""
        for turn in range(5):
            client = self.client(check=False)
            try:
                text = client.get("/metrics").body.decode()
                break
            except ConnectionError:  # as above
                if turn == 4:
                    raise
            finally:
                client.close()
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def cpu(self):
        """Seconds of processor time that it has taken: the same on a machine that is busy."""
        try:
            return time.clock_gettime(~self.process.pid << 3 | 2)  # clock_getcpuclockid(3)
        except OSError:  # there is none here: in hundredths
            with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as file:
                return sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def pause(self):
        """Stops the process and waits until it has: what is sent before go_on is there at once."""
        self.signal(signal.SIGSTOP)

        def is_stopped():
            states = []
            for thread in glob.glob("/proc/%d/task/*/stat" % self.process.pid):
                with contextlib.suppress(OSError), open(thread, encoding="ascii") as file:  # one that has ended meanwhile
                    states.append(file.read().rpartition(")")[2].split()[0])
            return set(states) == {"T"}

        wait_for(is_stopped, what="the process to stop")

    def go_on(self):
        self.signal(signal.SIGCONT)

    def metric(self, name):
        """A metric, summed over its labels."""
        found = [value for full, value in self.metrics().items() if full.split("{")[0] == name]
        assert found, name
        return sum(found)

    def comes_to(self, name, value, seconds=HANG):
        """Is a metric of that value soon? What a request took is counted and given back after its answer has left, which may have been read before that."""
        wait_for(lambda: self.metric(name) == value, seconds, "%s is %r" % (name, value))
        return True

    def close_clients(self):
        for client in self.clients:
            client.close()
        self.clients = []

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=HANG):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not end within %s s" % seconds)
        self.reader.join(HANG)
        self.process.stderr.close()
        return code

    def stop(self, seconds=HANG):
        """SIGTERM; must exit with 0."""
        self.close_clients()
        self.signal(signal.SIGTERM)
        code = self.wait(seconds)
        assert code == 0, "exit code %d: %s" % (code, "\n".join(self.lines[-20:]))

    def kill(self):
        self.close_clients()
        self.process.kill()
        return self.wait()

    def restart(self):
        self.start()

    def finish(self):
        """For fixtures: stops a server that still runs, removes its files."""
        try:
            if self.process.returncode is None:
                self.stop()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                self.process.wait()
            if self.pool:
                rados.drop(self.pool)
            self.directory.cleanup()


def finish_all(servers):
    """All are stopped, also where one says that something is wrong with it."""
    errors = []
    for server in servers:
        try:
            server.finish()
        except AssertionError as error:
            errors.append(error)
    assert not errors, errors


# ---- HTTP ------------------------------------------------------------------------------------------------------------


class Client:
    """One kept connection. db: added as ?db= to data calls. check: answers are checked against the contract."""

    def __init__(self, server, db=None, token=None, check=True, timeout=HANG):
        self.server, self.db, self.token, self.checked, self.timeout = server, db, token, check, timeout
        self.connection = None

    def connect(self):
        if self.server.scheme == "https":
            context = ssl.create_default_context(cafile=self.server.cafile)
            connection = http.client.HTTPSConnection("127.0.0.1", self.server.port, timeout=self.timeout, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=self.timeout)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def target(self, path, params):
        query = dict(params or {})
        if self.db is not None and "db=" not in path and not SERVICE.match(path):
            query.setdefault("db", self.db)
        if not query:
            return path
        encoded = urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        return path + ("&" if "?" in path else "?") + encoded

    def send(self, method, path, body=None, headers=None, json_body=None, chunked=False, **params):
        """Sends a request; returns the http.client response, not yet read, and the target."""
        target = self.target(path, params)
        headers = dict(headers or {})
        if json_body is not None:
            body = json.dumps(json_body).encode()
            headers.setdefault("Content-Type", "application/json")
        if self.token is not None:
            headers.setdefault("Authorization", "Bearer " + self.token)
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        fresh = self.connection is None
        if fresh:
            self.connection = self.connect()
        try:
            self.connection.request(method, target, body=body, headers=headers, encode_chunked=chunked)
            return self.connection.getresponse(), target
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.close()
            if fresh:
                raise
        self.connection = self.connect()  # the kept connection had been closed meanwhile
        self.connection.request(method, target, body=body, headers=headers, encode_chunked=chunked)
        return self.connection.getresponse(), target

    def request(self, method, path, body=None, headers=None, json_body=None, chunked=False, **params):
        response, target = self.send(method, path, body, headers, json_body, chunked, **params)
        answer = Answer(response.status, response.headers, response.read())
        if response.will_close:
            self.close()
        if self.checked:
            kind = response.headers.get("Content-Type")
            contract().check(method, target, answer.status, kind, answer.body)
        return answer

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def head(self, path, **more):
        return self.request("HEAD", path, **more)

    def put(self, path, body=None, **more):
        return self.request("PUT", path, body, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)

    def delete(self, path, **more):
        return self.request("DELETE", path, **more)

    # shorthands

    def insert(self, value):
        answer = self.post("/kv", value, headers={"Content-Type": "application/octet-stream"})
        assert answer.status == 201, answer
        return answer.json()["key"]

    def read(self, key):
        """The raw bytes under a key, None if there are none."""
        answer = self.get("/kv/%d" % key, headers={"Accept": "application/octet-stream"})
        assert answer.status in (200, 404), answer
        return answer.body if answer.status == 200 else None

    def map(self, pair, key):
        answer = self.put("/pairs/" + hexed(pair), json_body={"key": key})
        assert answer.status in (200, 201), answer
        return answer

    def put_new(self, pair, value):
        """An insert and a mapping: in a fresh database the key is 1, which an upsert does not promise."""
        key = self.insert(value)
        self.map(pair, key)
        return key

    def upsert(self, pair, value):
        answer = self.put("/pairs/" + hexed(pair), value, headers={"Content-Type": "application/octet-stream"})
        assert answer.status in (200, 201), answer
        return answer.json()["key"]

    def scan(self, prefix=b"", **params):
        """All pairs under a prefix: [(pair, key)], or [(pair, key, value)] with values="true"."""
        answer = self.get("/pairs/" + hexed(prefix), **params)
        assert answer.status == 200, answer
        return [decode_pair(line) for line in answer.entries()]

    def batch(self, operations, **params):
        return self.post("/batch", ndjson(operations), headers={"Content-Type": "application/x-ndjson"}, **params)

    def put_all(self, pairs):
        """pairs: {bytes: bytes}; one batch of upserts."""
        answer = self.batch([{"op": "pair_put", "pair": b64(p), "value": b64(v)} for p, v in pairs.items()], results="false")
        assert answer.status == 200 and answer.end["failed"] == 0, answer
        return answer

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def decode_pair(line):
    pair = unb64(line["pair"])
    if "value" in line:
        return pair, line["key"], None if line["value"] is None else unb64(line["value"])
    return pair, line["key"]


# ---- sockets ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def large_commits(server):
    """Large atomic commits and checkpoints, one after the other, beside what is done meanwhile: small commits wait for them. One that fails is raised
    at the end: else that would be tested beside nothing."""
    stop, failed = threading.Event(), []

    def others():
        client = server.client()
        try:
            while not stop.is_set():
                operations = [{"op": "pair_put", "pair": b64(b"other %d" % i), "value": b64(b"x" * 50)} for i in range(6000)]
                assert client.batch(operations, atomic="true").status == 200
                assert client.post("/databases/default/checkpoint").status == 200
        except Exception as error:
            failed.append(error)
        finally:
            client.close()

    thread = threading.Thread(target=others)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


class Raw:
    """A socket that reads HTTP answers one by one."""

    def __init__(self, port, timeout=HANG, receive_buffer=None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))
        return self

    def fill(self):
        """Receives once more; False at the end of the connection."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def until(self, mark):
        while mark not in self.buffer:
            if not self.fill():
                raise EOFError("closed; got %r" % self.buffer[:500])
        head, _, self.buffer = self.buffer.partition(mark)
        return head

    def exactly(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                raise EOFError("closed; got %d of %d bytes" % (len(self.buffer), count))
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def head(self):
        """(status, headers in lower case) of the next answer."""
        first, *lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, value in pairs}

    def chunk(self):
        """The next chunk of a chunked body; b"" is the last."""
        size = int(self.until(b"\r\n").split(b";")[0], 16)
        data = self.exactly(size)
        assert self.exactly(2) == b"\r\n"
        return data

    def answer(self, method="GET"):
        status, headers = self.head()
        while status == 100:
            status, headers = self.head()
        body = b""
        if method == "HEAD" or status in (204, 304):
            pass
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            part = self.chunk()
            while part:
                body += part
                part = self.chunk()
        elif "content-length" in headers:
            body = self.exactly(int(headers["content-length"]))
        else:
            while self.fill():
                pass
            body, self.buffer = self.buffer, b""
        return Answer(status, headers, body)

    def closed(self, seconds=HANG):
        """True once the server has closed the connection (what came before is kept in buffer)."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                if not self.fill():
                    return True
            except socket.timeout:
                return False
        return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
