"""link: one HTTP connection, one line connection, without anything that repeats a call; what an answer means for the checker.

A call ends in one of three ways: an Answer; Refused (it was certainly not done: nothing was sent, or the server said no); or
Doubt (nobody knows: the connection ended before the answer, or the answer says that something broke half way).
"""
import base64
import http.client
import json
import socket
import time

PATIENCE = 150.0  # seconds for one answer; longer is a finding


class Refused(Exception):
    """status 0: not sent. code: the server's."""

    def __init__(self, status, code, detail=""):
        super().__init__("%d %s %s" % (status, code, detail))
        self.status, self.code, self.detail = status, code, detail


class Doubt(Exception):
    """sticky: only a restart shows the outcome."""

    def __init__(self, text, sticky=False):
        super().__init__(text)
        self.sticky = sticky


def hexed(data):
    return "x" + data.hex() if data else "*"


def b64(data):
    return base64.b64encode(data).decode()


def unb64(text):
    return base64.b64decode(text, validate=True)


class Answer:
    def __init__(self, status, body):
        self.status, self.body = status, body

    def json(self):
        return json.loads(self.body)

    def entries(self):
        """The lines of a stream and its end line; Doubt where the end is missing or an error."""
        lines = [json.loads(line) for line in self.body.split(b"\n") if line]
        if not lines or "end" not in lines[-1]:
            raise Doubt("a stream without an end: %r" % self.body[-200:])
        return lines[:-1], lines[-1]["end"]


class Link:
    """One kept HTTP connection to whatever process the soak runs at the moment."""

    def __init__(self, soak, name):
        self.soak, self.name, self.connection, self.port = soak, name, None, None

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _connect(self):
        port = self.soak.server.port
        if self.connection is not None and self.port == port:
            return
        self.close()
        if not port:
            raise Refused(0, "down")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise Refused(0, "down", str(error))
        self.connection, self.port = connection, port

    def call(self, method, target, body=None, kind="application/octet-stream", accept=None):
        """The answer, if it is one of success or an ordinary 404, 409. Raises Refused or Doubt for all else."""
        self._connect()
        headers = {"Content-Type": kind} if body is not None else {}
        if accept:
            headers["Accept"] = accept
        began = time.monotonic()
        try:
            self.connection.request(method, target, body=body, headers=headers)
            response = self.connection.getresponse()
            answer = Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if time.monotonic() - began > PATIENCE - 1:
                self.soak.findings.add("no answer", "%s %s within %d s" % (method, target[:80], PATIENCE))
            self.soak.count("unanswered")
            raise Doubt("%s %s: %s" % (method, target[:60], error))
        if response.will_close:
            self.close()
        self.soak.figures["bytes sent"] += len(body or b"")
        if answer.status < 400 or answer.status in (404, 409, 410):
            return answer
        raise self._refusal(answer, method, target, began)

    def _refusal(self, answer, method, target, began):
        try:
            problem = answer.json()
            code, detail = problem["code"], problem.get("detail", "")
        except (ValueError, KeyError):
            code, detail = "no problem+json", repr(answer.body[:100])
        self.soak.refused(answer.status, code, "%s %s: %s" % (method, target[:80], detail), began)
        if answer.status == 500 or code in ("read_only", "outcome_unknown"):
            return Doubt("%s %s: %d %s" % (method, target[:60], answer.status, code), sticky=True)
        return Refused(answer.status, code, detail)


class LineLink:
    """A connection to the line protocol: several commands in flight."""

    def __init__(self, soak, db):
        self.soak, self.db, self.socket, self.reader, self.port = soak, db, None, None, None

    def close(self):
        if self.socket is not None:
            self.reader.close()
            self.socket.close()
            self.socket = None

    def _connect(self):
        port = self.soak.server.line_port
        if self.socket is not None and self.port == port:
            return
        self.close()
        if not port:
            raise Refused(0, "down")
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.reader, self.port = self.socket.makefile("rb", 1 << 16), port
            self.socket.sendall(b"DATABASE %s\n" % self.db.encode())
            answer = self.reader.readline()
        except OSError as error:
            self.close()
            raise Refused(0, "down", str(error))
        if not answer.startswith(b"SUCCESS"):
            began = time.monotonic()
            self.close()
            if answer:
                self.soak.refused(503, answer.decode("ascii", "replace").strip(), "DATABASE", began)
            raise Refused(0, "down")

    def many(self, lines):
        """As many answers as came, in order, each without its newline."""
        self._connect()
        answers, began = [], time.monotonic()
        try:
            self.socket.sendall(b"".join(line + b"\n" for line in lines))
            for _ in lines:
                answer = self.reader.readline()
                if not answer.endswith(b"\n"):
                    raise OSError("closed")
                answers.append(answer[:-1])
        except OSError:
            self.close()
            self.soak.count("unanswered", len(lines) - len(answers))
            if time.monotonic() - began > PATIENCE - 1:
                self.soak.findings.add("no answer", "%d line commands within %d s" % (len(lines), PATIENCE))
        return answers
