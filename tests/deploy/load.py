"""load: clients that ask a proxy without pause and note every answer that is not the right one.

Each thread keeps a connection, but every tenth request comes on a new one. A failure is any other answer than the expected
one: a wrong status, a wrong or short body, a connection that breaks off.
"""
import http.client
import os
import socket
import threading
import time

import harness

SAMPLE = os.path.join(harness.ROOT, "tests", "data", "sample", "batch.ndjson")

# (method, target, body)
QUESTIONS = [
    ("GET", "/pairs/x636f6e743a0000000c?exact=true&values=true", None),
    ("GET", "/pairs/cnt:2:?limit=200&values=true", None),
    ("GET", "/reduce/topk/topk:2:?decode=true&limit=50", None),
    ("HEAD", "/pairs/cnt:3:?count=true", None),
    ("POST", "/predict", b'{"tokens":[2,4,5],"k":5}'),
    ("POST", "/score", b'{"tokens":[2,4,5,6,7]}'),
]


def load_sample(server):
    client = server.client()
    with open(SAMPLE, "rb") as file:
        answer = client.post("/batch?results=false", file.read(), headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 200 and answer.end["failed"] == 0
    client.close()


class Load:
    def __init__(self, port, expected, threads=8, questions=None):
        self.port, self.expected, self.stop_now = port, expected, False
        self.questions = questions or QUESTIONS
        self.answers, self.failures = 0, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.work, args=(n,), daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def work(self, n):
        connection = None
        while not self.stop_now:
            question = self.questions[n % len(self.questions)]
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
                    connection.connect()
                    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                got = ask(connection, question)
                wrong = None if got == self.expected[question] else "%d %r" % (got[0], got[1][:200])
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
            with self.lock:
                self.answers += 1
                if wrong is not None:
                    self.failures.append("%.3f %s %s: %s" % (time.time(), question[0], question[1], wrong))
            n += 1
            if wrong is not None or n % 10 == 0:
                connection.close()
                connection = None

    def stop(self):
        self.stop_now = True
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive()


def ask(connection, question):
    method, target, body = question
    connection.request(method, target, body=body)
    response = connection.getresponse()
    return response.status, response.read()


def answers_of(server, questions=None):
    """What a server says itself, which the proxy must pass on."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    expected = {question: ask(connection, question) for question in questions or QUESTIONS}
    connection.close()
    assert all(status == 200 for status, _ in expected.values()), expected
    return expected
