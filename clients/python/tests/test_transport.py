"""The transport: HTTP/1.1 over the standard library, for threads and for asyncio, and the same over httpx. A server of the test says the
bytes of its answers."""
import asyncio
import gzip
import hashlib
import http.client
import io
import os
import socket
import ssl
import threading
import time
import tracemalloc

import pytest
from conftest import QUICK, url_of
from harness import HANG, wait_for

from cheetah_http import AsyncClient, BadRequest, Client, ConnectionLost, NotFound, ProtocolError, Retry, TooLarge, Unavailable
from cheetah_http.net.address import address_of, authorization
from cheetah_http.net.http1 import Incoming, request_head, target

NEVER = Retry(attempts=0)


class Script:
    """A server: for each request on each connection one step of the script, a function (socket, head, body)."""

    def __init__(self, *steps, family=socket.AF_INET, address=("127.0.0.1", 0)):
        self.steps, self.heads, self.connections, self.closed = list(steps), [], 0, 0
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind(address)
        self.listener.listen(200)
        self.lock = threading.Lock()
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1] if family == socket.AF_INET else "unix:" + address
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        file = sock.makefile("rb")
        try:
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = file.readline()
                    if not line:
                        return
                    head += line
                length = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                with self.lock:
                    self.heads.append(head)
                    step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
                if step(sock, head, file, length[0] if length else 0) is False:
                    return
        except OSError:
            pass
        finally:
            file.close()
            sock.close()
            with self.lock:
                self.closed += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def say(*pieces, close=False, pause=0.0):
    """A step that sends these bytes, one after the other."""

    def step(sock, head, file, length):
        file.read(length)
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause)
        return not close

    return step


def ok(body, *lines):
    return b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Waiting:
    """The calls of an AsyncClient, each run to its end, so that one test serves both."""

    def __init__(self, url, **more):
        self.loop = asyncio.new_event_loop()
        self.client = AsyncClient(url, **more)

    def __getattr__(self, name):
        def call(*args, **more):
            return self.loop.run_until_complete(asyncio.wait_for(getattr(self.client, name)(*args, **more), 30))

        return call

    def close(self):
        self.loop.run_until_complete(self.client.aclose())
        self.loop.close()


def over_httpx(url, **more):
    httpx = pytest.importorskip("httpx")
    headers = {"Authorization": "Bearer " + more.pop("token")} if more.get("token") else {}
    return Client(http=httpx.Client(base_url=url, headers=headers, timeout=more.pop("timeout", 30)), **more)


@pytest.fixture(params=[Client, Waiting, over_httpx], ids=["threads", "asyncio", "httpx"])
def connect(request):
    made = []

    def make(url, **more):
        more.setdefault("retry", NEVER)
        made.append(request.param(url, **more))
        return made[-1]

    make.kind = request.node.callspec.id
    yield make
    for client in made:
        client.close()


# ---- answers


BODIES = {
    "a length": ok(b"hello"),
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n",
    "chunks with a trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    "an interim answer before": b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"hello"),
    "gzip": ok(gzip.compress(b"hello"), b"Content-Encoding: gzip"),
}


@pytest.mark.parametrize("what", BODIES)
def test_every_form_of_a_body(connect, what):
    with Script(say(BODIES[what])) as server:
        client = connect(server.url)
        assert [client.read(1) for _ in range(3)] == [b"hello"] * 3
        assert server.connections == 1, "the connection is used again"


@pytest.mark.parametrize("what", BODIES)
def test_every_form_byte_by_byte(what):
    for step in (1, 2, 3, 7):
        incoming, pieces = Incoming(), []
        for at in range(0, len(BODIES[what]), step):
            pieces += incoming.feed(BODIES[what][at : at + step])
        assert incoming.complete and incoming.keep and b"".join(pieces) == b"hello"


def test_a_body_until_the_end_of_the_connection(connect):
    with Script(say(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)) as server:
        client = connect(server.url)
        assert client.read(1) == b"hello" and client.read(2) == b"hello" and server.connections == 2


def test_a_connection_that_is_to_be_closed_is_not_used_again(connect):
    with Script(say(ok(b"hello", b"Connection: close"))) as server:
        client = connect(server.url)
        assert client.read(1) == b"hello" and client.read(2) == b"hello" and server.connections == 2


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\nContent-Le",
                                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n"])  # fmt: skip
def test_what_is_no_answer_is_a_lost_connection(connect, answer):
    with Script(say(answer, close=True)) as server:
        client = connect(server.url)
        with pytest.raises(ConnectionLost) as caught:
            client.insert(b"x")
        assert caught.value.may_have_happened


def test_a_body_that_ends_too_early(connect):
    with Script(say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", close=True)) as server:
        with pytest.raises(ConnectionLost):
            connect(server.url).read(1)


def test_headers_by_any_name():
    incoming = Incoming()
    incoming.feed(ok(b"", b"X-Request-Id: abc", b"Vary: a", b"vary: b"))
    headers = incoming.headers
    assert headers.get("x-request-ID") == headers["X-Request-Id"] == "abc" and "VARY" in headers and headers["Vary"] == "a, b"
    assert headers.get("ETag") is None and "ETag" not in headers


# ---- errors


def test_every_error_names_the_server(connect):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # taken and not listened on
        port = reserved.getsockname()[1]
        client = connect("http://127.0.0.1:%d" % port)
        with pytest.raises(ConnectionLost) as caught:
            client.read(1)
        assert not caught.value.may_have_happened
        assert caught.value.server == "127.0.0.1:%d" % port and "server 127.0.0.1:%d" % port in str(caught.value)
    with Script(say(ok(b"<html>"))) as server:
        with pytest.raises(ProtocolError, match="127.0.0.1:%s" % server.url.rpartition(":")[2]):
            connect(server.url).insert(b"x")


def test_errors_of_the_server_name_it_too(db, server):
    name = "127.0.0.1:%d" % server.port
    db.pair_put(b"p", b"v")
    for call in (lambda: db.read(999), lambda: db.add(b"p"), lambda: list(db.on("no-such-database").pairs()), lambda: list(db.reduce("nothing")),
                 lambda: db.ngrams([[1, 2]], order=99), lambda: db.run([db.batch()._client and __import__("cheetah_http").Operation({"op": "delete", "key": 999})])):  # fmt: skip
        with pytest.raises(Exception) as caught:
            call()
        assert caught.value.server == name and name in str(caught.value), caught.value


def test_silence_is_a_lost_connection(connect):
    def nothing(sock, head, file, length):
        time.sleep(40)
        return False

    with Script(nothing) as server:
        begun = time.monotonic()
        with pytest.raises(ConnectionLost, match="timed out") as caught:
            connect(server.url, timeout=0.3).insert(b"x")
        assert caught.value.may_have_happened and 0.2 < time.monotonic() - begun < 20


def test_an_answer_that_comes_before_the_body_was_taken(connect):
    """413, and no more is read. The client says what the server said, or at least that the request was not done."""
    problem = b'{"status":413,"code":"body_too_large","title":"T","detail":"too much"}'

    def refuse(sock, head, file, length):
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(problem), problem))
        time.sleep(0.2)
        return False

    with Script(refuse) as server:
        with pytest.raises((TooLarge, ConnectionLost)) as caught:
            connect(server.url).insert(b"x" * (64 << 20))
        assert isinstance(caught.value, TooLarge) or not caught.value.may_have_happened


def test_a_server_that_goes_while_it_is_sent_to(connect):
    def close(sock, head, file, length):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        return False

    with Script(close) as server:
        with pytest.raises(ConnectionLost) as caught:
            connect(server.url).insert(b"x" * (64 << 20))
        assert not caught.value.may_have_happened


# ---- connections


# ---- bodies that are sent while they are read


def read_chunks(file):
    """A chunked body; the sizes of its chunks, and its bytes."""
    sizes, body = [], hashlib.sha256()
    while size := int(file.readline(), 16):
        body.update(file.read(size))
        sizes.append(size)
        file.readline()
    file.readline()
    return sizes, body.hexdigest()


READ = ok(b'{"order":1,"bos":2,"eos":3,"unk":4,"ngrams":[3],"lines":9,"warnings":[]}')


def test_a_long_body_is_not_in_memory(connect, tmp_path):
    """48 MiB of a file, and of a generator, in a few of them; the connection is used again."""
    seen = []

    def step(sock, head, file, _):
        assert b"transfer-encoding: chunked" in head.lower() and b"content-length" not in head.lower()
        seen.append(read_chunks(file))
        sock.sendall(READ)

    part = bytes(range(256)) * 4096
    path = tmp_path / "model"
    path.write_bytes(part * 48)
    want = hashlib.sha256(part * 48).hexdigest()
    with Script(step) as server, open(path, "rb") as file:
        client = connect(server.url, compress=False)
        for source in (file, (part for _ in range(48))):
            tracemalloc.start()
            assert client.import_arpa(source, words=True, unk=4).ngrams == [3]
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 12 << 20 and seen[-1][1] == want
        assert server.connections == 1 and b"text=true" in server.heads[0]


def test_a_refusal_ends_a_long_body(connect):
    taken = []

    def source():
        for i in range(2000):
            taken.append(i)
            yield b"x" * 100000

    problem = b'{"title":"Bad Request","status":400,"code":"invalid_arpa","detail":"line 1"}'
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%b" % (len(problem), problem)

    def step(sock, head, file, _):
        file.read(200000)
        sock.sendall(answer)
        time.sleep(5)  # nobody waits for it
        return False

    with Script(step, say(READ)) as server:
        client = connect(server.url)
        if connect.kind == "httpx":
            return  # which sends all of it first
        with pytest.raises(BadRequest, match="line 1"):
            client.import_arpa(source())
        assert len(taken) < 1000
        server.steps[:] = [lambda sock, head, file, length: sock.sendall(ok(b'{"databases":[]}'))]
        assert client.databases() == [] and server.connections == 2  # what was half sent is not used again


def test_a_body_that_is_sent_again(connect, tmp_path):
    """A file goes back to where it was; what cannot is sent once, and the error is raised."""
    problem = b'{"title":"Service Unavailable","status":503,"code":"overloaded","detail":"later"}'
    answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%b" % (len(problem), problem)
    seen = []

    def step(what):
        def run(sock, head, file, _):
            seen.append(read_chunks(file)[1])
            sock.sendall(what)

        return run

    path = tmp_path / "model"
    path.write_bytes(b"headmodel")
    with Script(step(answer), step(READ), step(answer)) as server, open(path, "rb") as file:
        client = connect(server.url, retry=QUICK)
        file.seek(4)
        assert client.import_arpa(file).order == 1
        assert seen == [hashlib.sha256(b"model").hexdigest()] * 2
        with pytest.raises(Unavailable):
            client.import_arpa(iter([b"mo", b"", b"del"]))
        assert len(seen) == 3 and seen[2] == seen[0]


def test_a_body_of_something_else(connect, server):
    client = connect(url_of(server))
    for source in ("text", ["text"], io.StringIO("text"), 5):
        with pytest.raises(TypeError):
            client.import_arpa(source)

    def fails():
        yield b"\\data\\\n"
        raise KeyError("mine")

    with pytest.raises(KeyError):
        client.import_arpa(fails())
    assert "default" in client.databases()


def test_idle_connections_that_the_server_closed_are_not_used(connect):
    def once(sock, head, file, length):
        sock.sendall(ok(b"1"))
        return False  # without a word about it

    with Script(once) as server:
        client = connect(server.url)
        for _ in range(5):
            assert client.read(1) == b"1"
            wait_for(lambda: server.closed == server.connections, what="the connection's end")
        assert server.connections == 5


def test_many_threads_share_a_client(server, db):
    keys = [db.insert(b"%d" % i) for i in range(40)]
    found = {}

    def work(i):
        found[i] = [db.read(key) for key in keys]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16 and all(values == [b"%d" % i for i in range(40)] for values in found.values())


def test_a_forked_process_has_connections_of_its_own(db):
    key = db.insert(b"hello")
    child = os.fork()
    if child == 0:
        try:
            good = all(db.read(key) == b"hello" for _ in range(50))
        except BaseException:
            good = False
        os._exit(0 if good else 1)
    assert all(db.read(key) == b"hello" for _ in range(50))
    assert os.waitpid(child, 0)[1] == 0


def test_one_async_client_in_two_loops(db):
    far = AsyncClient(db.url, database=db.database, retry=QUICK)

    async def main():
        return await far.count()

    assert asyncio.run(main()) == asyncio.run(main()) == 0


def test_two_loops_at_once_are_refused():
    """Each would wait for what the other one has been sent."""
    begun, go_on = threading.Event(), threading.Event()

    def step(sock, head, file, length):
        begun.set()
        go_on.wait(20)
        sock.sendall(ok(b"v"))

    with Script(step) as server:
        far, got = AsyncClient(server.url, retry=NEVER), []

        async def read():
            return await far.read(1)

        thread = threading.Thread(target=lambda: got.append(asyncio.run(read())))
        thread.start()
        assert begun.wait(20)
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(read())
        go_on.set()
        thread.join(20)
        assert got == [b"v"] and asyncio.run(read()) == b"v"


def test_a_client_that_is_closed_while_others_wait():
    """What is on its way is not waited for longer than without, and what waits for its turn does not go."""
    with Script(lambda *_: time.sleep(90)) as server:

        async def main():
            far = AsyncClient(server.url, retry=NEVER)
            tasks = [asyncio.ensure_future(far.read(1)) for _ in range(120)]
            while len(server.heads) < 100:
                await asyncio.sleep(0.01)
            await far.aclose()
            far._http._timeout = 0.2  # not before: none of them is to end while the others begin
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(error, ConnectionLost) and "timed out" in str(error) for error in done[:100])
            assert all("the client is closed" in str(error) for error in done[100:])
            assert server.connections == 100

        asyncio.run(asyncio.wait_for(main(), 45))


def test_a_body_that_is_taken_slowly_is_no_silence(connect):
    if connect.kind == "httpx":
        pytest.skip("its own time-outs")

    def step(sock, head, file, length):
        """Slow for longer than the time-out, and at the end, when all lies in buffers, no more."""
        slow = time.monotonic() + 4
        while length:
            length -= len(file.read(min(256 << 10, length)))
            time.sleep(0.1 if time.monotonic() < slow else 0)
        sock.sendall(ok(b'{"key":7}'))

    with Script(step) as server:
        assert connect(server.url, timeout=3, retry=NEVER).insert(b"x" * (32 << 20)) == 7


def test_a_task_that_is_cancelled_takes_its_connection_with_it():
    slow = threading.Event()

    def step(sock, head, file, length):
        if b"/kv/1 " in head:
            slow.wait(5)
        sock.sendall(ok(head.split(b" ")[1]))

    with Script(step) as server:

        async def main():
            async with AsyncClient(server.url, retry=NEVER) as far:
                task = asyncio.ensure_future(far.read(1))
                await asyncio.sleep(0.2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert [await far.read(i) for i in (2, 3)] == [b"/kv/2", b"/kv/3"]
                slow.set()

        asyncio.run(main())


def test_over_a_hundred_at_once_wait_their_turn():
    with Script(say(ok(b"v"))) as server:

        async def main():
            async with AsyncClient(server.url, retry=NEVER) as far:
                tasks = [asyncio.ensure_future(far.read(1)) for _ in range(500)]
                for task in tasks[::7]:
                    task.cancel()
                done = await asyncio.gather(*tasks, return_exceptions=True)
                assert sum(value == b"v" for value in done) == 500 - len(tasks[::7])
                assert await far.read(1) == b"v"

        asyncio.run(asyncio.wait_for(main(), 60))
        assert server.connections <= 200  # 100, and those of cancelled ones


def test_a_unix_socket(tmp_path, connect):
    if connect.kind == "httpx":
        pytest.skip("httpx has a transport of its own for that")
    with Script(say(ok(b"hello")), family=socket.AF_UNIX, address=str(tmp_path / "s")) as server:
        client = connect(server.url)
        assert client.read(1) == b"hello" and client.read(2) == b"hello" and server.connections == 1
        assert b"Host: localhost\r\n" in server.heads[0]
    with pytest.raises(ConnectionLost, match="unix:"):
        connect("unix:" + str(tmp_path / "nobody")).read(1)


def test_requests_as_they_are_written():
    assert target("", "/pairs/x61", {"values": "true"}) == "/pairs/x61?values=true"
    assert target("/below", "/databases/a b", {"to": "x&y=+/ä"}) == "/below/databases/a%20b?to=x%26y%3D%2B%2F%C3%A4"
    assert request_head("GET", "/", "Host: h\r\n", {"Accept": "a"}, None) == b"GET / HTTP/1.1\r\nHost: h\r\nAccept: a\r\n\r\n"
    assert b"Content-Length: 0\r\n" in request_head("POST", "/", "", {}, None)
    with pytest.raises(ValueError):
        request_head("GET", "/", "", {"Accept": "a\r\nX: y"}, None)
    with pytest.raises(ValueError):
        Client("http://127.0.0.1:1", token="a\nb")


def test_addresses():
    assert address_of("http://127.0.0.1:8080/")[:3] == ("http://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080")
    assert address_of("http://[::1]:8080")[1:4] == ("[::1]:8080", "[::1]:8080", 8080)
    assert address_of("http://host")[1:4] == ("host:80", "host", 80) and address_of("https://host").port == 443
    assert address_of("https://host/db/").below == "/db" and address_of("unix:///run/x").path == address_of("unix:/run/x").path == "/run/x"
    assert authorization(address_of("http://a:b%40@host"), None) == "Basic YTpiQA==" and "b%40" not in address_of("http://a:b%40@host").url
    assert authorization(address_of("http://a:b@host"), "t") == "Bearer t"
    context = ssl.create_default_context()
    assert address_of("https://host", context).tls is context
    for bad in ("host:80", "ftp://host", "http://", "http://host?x=1", "unix:relative", "http://host:99999"):
        with pytest.raises(ValueError):
            address_of(bad)


def test_repr_names_the_server_and_no_token(db, server):
    client = Client(url_of(server), token="secret-secret-secret", database="d")
    assert repr(client) == "<Client http://127.0.0.1:%d database='d'>" % server.port and "secret" not in repr(client._http)
    assert repr(AsyncClient("http://[::1]:80")) == "<AsyncClient http://[::1]:80 database='default'>"
    with pytest.raises(NotFound) as caught:
        db.read(5)
    assert "secret" not in repr(caught.value)
    assert Unavailable(503, "starting").server is None


# ---- costs


def test_a_read_costs_at_most_three_and_a_half_of_http_client(db):
    """CPU of this process, the least of rounds in turn. It is 0.4 to 0.5."""
    key = db.insert(b"x" * 100)
    connection = http.client.HTTPConnection("127.0.0.1", int(db.url.rpartition(":")[2]))
    path = "/kv/%d?db=%s" % (key, db.database)

    def plain():
        connection.request("GET", path, headers={"Accept": "application/octet-stream"})
        return connection.getresponse().read()

    def cost(call):
        begun = time.process_time()
        for _ in range(200):
            call()
        return time.process_time() - begun

    assert plain() == db.read(key) == b"x" * 100
    least = [min(times) for times in zip(*((cost(plain), cost(lambda: db.read(key))) for _ in range(7)))]
    connection.close()
    assert least[1] <= 3.5 * least[0], least


def test_reads_at_once_do_not_wait_for_each_other():
    """A server that answers nobody before 32 have asked: each waits for its own answer only."""
    together = threading.Barrier(32)

    def late(sock, head, file, length):
        together.wait(HANG)
        sock.sendall(ok(b"v"))

    with Script(late) as server:

        async def read_all():
            async with AsyncClient(server.url, retry=NEVER, timeout=2 * HANG) as far:
                return [await asyncio.gather(*(far.read(1) for _ in range(32))) for _ in range(4)]

        assert asyncio.run(read_all()) == [[b"v"] * 32] * 4
