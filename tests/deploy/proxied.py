"""proxied: what must hold through any proxy: names arrive as they were sent, ids are passed on, streams are not buffered."""
import json
import os
import time

import harness
from harness import b64, framing, wait_for


class Front:
    """A proxy, as far as harness.Client and the tests need to know it."""

    scheme, cafile = "http", None

    def __init__(self, port, writer_port):
        self.port, self.writer_port = port, writer_port

    def client(self, port=None):
        return harness.Client(self if port is None else Front(port, port), check=False)

    def answers(self, path):
        try:
            client = self.client()
            status = client.get(path).status
            client.close()
            return status == 200
        except (OSError, harness.http.client.HTTPException):
            return False


def check_names_pass_through(front, zero=True):
    """Bytes that proxies like to normalise; written and read through the proxy, compared at the server."""
    names = [b"a/b", b"a//b", b"a%2Fb", b"a b", b"a?b#c", b"\xff\xfe", b"a;b=c", b"a+b", b"a\\b", b"n" * 4096]
    if zero:
        names += [b"\x00", b"a\x00b\r\n", b"cnt:\x00\x01"]
    writer = front.client(front.writer_port)
    for name in names:
        target = "/pairs/" + harness.escaped(name)
        answer = writer.put(target, b"v")
        assert answer.status == 201, (name[:20], answer)
        assert harness.unb64(answer.json()["pair"]) == name
        assert writer.get(target, exact="true").status == 200, name[:20]
    assert writer.get("/pairs/*", count="true").json()["pairs"] == len(names)
    writer.close()


def check_request_ids(front, servers):
    client = front.client()
    answer = client.get("/kv?limit=1", headers={"X-Request-Id": "from-the-client-17"})
    assert answer.headers["X-Request-Id"] == "from-the-client-17"
    made = client.get("/kv?limit=1").headers["X-Request-Id"]
    assert len(made) >= 16 and made != "from-the-client-17"
    client.close()
    for wanted in ("from-the-client-17", made):
        wait_for(lambda: any('"id":"%s"' % wanted in line for s in servers for line in s.lines), what="logged by a server")


def fill_with_64_mib(front):
    """More than all socket buffers on the way can hold."""
    writer = front.client(front.writer_port)
    value = b64(os.urandom(1 << 20))
    for part in range(2):
        lines = [{"op": "pair_put", "pair": b64(b"big:%02d" % (part * 32 + n)), "value": value} for n in range(32)]
        answer = writer.batch(lines, results="false")
        assert answer.status == 200 and answer.end["failed"] == 0, answer
    writer.close()


def check_backpressure(front, server, port=None):
    """The first line is there at once; a client that stops reading stops the server's stream; what was begun ends."""
    with harness.Raw(port or front.port, timeout=120, receive_buffer=65536) as raw:
        raw.send("GET /pairs/big:?values=true HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status, headers = raw.head()
        assert status == 200 and headers["transfer-encoding"] == "chunked"
        raw.exactly(1000)
        time.sleep(1.5)
        assert server.metric("cheetah_streams_open") == 1, "a proxy that buffers would have taken it all by now"
        raw.buffer = b""
        taken, tail = 0, b""
        while raw.fill():
            taken += len(raw.buffer)
            tail, raw.buffer = (tail + raw.buffer)[-4096:], b""
        assert taken > 64 << 20
        assert b'{"end":{"count":64,"next":null}}' in tail
    wait_for(lambda: server.metric("cheetah_streams_open") == 0, what="the stream's end")


def check_upload_is_not_collected(front, server, port=None):
    """The first half of a body is at the server before the second is sent: ten bodies at once need ten connections."""
    before, raws = server.metric("cheetah_connections_open"), []
    body = b'{"op":"pair_put","pair":"dXA=","value":"dXA="}\n'
    try:
        for _ in range(10):
            raws.append(harness.Raw(port or front.port, timeout=120))
            raws[-1].send(b"POST /batch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body))
        wait_for(lambda: server.metric("cheetah_connections_open") >= before + 5, what="the server sees the requests")
        for raw in raws:
            raw.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            answer = raw.answer("POST")
            assert answer.status == 200
            assert json.loads(answer.body.split(b"\n")[-2]) == {"end": {"count": 2, "failed": 0}}
    finally:
        for raw in raws:
            raw.close()


def check_framing(front, server, log):
    """Forms whose end can be read in two ways: what the proxy takes for one request is not two to the server. log(): the proxy's access log.

    A proxy may refuse a form, or pass it on as what it reads; then the mark after it is a request of its own in its log."""
    raws = []
    try:
        forms = [form for _, form, _ in framing.FORMS] + [framing.GET + b"\r\n{mark}"]  # the last is two good requests
        for number, form in enumerate(forms):
            raws.append(harness.Raw(front.writer_port, timeout=120))
            raws[-1].send(framing.write(form, "f%d" % number))
        other = front.client(front.writer_port)
        end = time.monotonic() + 1.5  # a form that the proxy thinks is not whole gets no answer
        while time.monotonic() < end:
            assert other.get("/version").json()["name"] == "cheetah-db", "an answer of somebody else's request"
            assert other.get("/kv/77?db=default").code == "key_not_found", "an answer of somebody else's request"
        other.close()
    finally:
        for raw in raws:
            raw.close()
    wait_for(lambda: "/kv/77" in log(), what="the proxy's log")
    direct = server.client(check=False)
    marked = [number for number in range(len(forms)) if direct.get("/pairs/mark?exact=true&db=f%d" % number).status == 200]
    assert marked[-1:] == [len(framing.FORMS)], "the mark of two good requests is seen"
    smuggled = [forms[number] for number in marked if "PUT /pairs/mark?db=f%d HTTP" % number not in log()]
    assert not smuggled, smuggled
    direct.close()
