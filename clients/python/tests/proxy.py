"""proxy: stands between client and server, counts requests, and cuts or answers where a test says so.

A plan is a function (number, request head) -> action, called for each request:
    None                    pass it on
    ("cut", n)              pass it on, and close the connection after n bytes of the answer (head included)
    ("lose",)               pass it on, read the whole answer, close without sending any of it
    ("drop",)               close without passing it on
    ("say", bytes)          answer with these bytes; the server does not hear of it
"""
import socket
import threading


class Proxy:
    def __init__(self, port):
        self.target, self.requests, self.plan = port, [], None
        self.cuts = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = "http://127.0.0.1:%d" % self.port
        self.sockets, self.closed = [], False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True
        self.listener.close()
        for sock in self.sockets:
            sock.close()

    def turn_to(self, port):
        """Connections go there from now on; those that are open are closed."""
        self.target = port
        for sock in list(self.sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    def counted(self, method, path):
        """How many requests began so."""
        return sum(head.startswith(("%s %s" % (method, path)).encode()) for head in self.requests)

    def _accept(self):
        while not self.closed:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        server = None
        try:
            incoming = client.makefile("rb")
            while True:
                head = read_head(incoming)
                if not head:
                    return
                body = incoming.read(length(head))
                with self.lock:
                    number = len(self.requests)
                    self.requests.append(head)
                    action = self.plan(number, head) if self.plan else None
                kind = action[0] if action else None
                if kind == "drop":
                    return self._cut()
                if kind == "say":
                    client.sendall(action[1])
                    continue
                if server is None:
                    server = socket.create_connection(("127.0.0.1", self.target))
                    self.sockets.append(server)
                    answers = server.makefile("rb")
                server.sendall(head + body)
                allowed = action[1] if kind == "cut" else 0 if kind == "lose" else None
                whole = relay(answers, client, allowed, head.startswith(b"HEAD"))
                if not whole or kind == "lose":
                    return self._cut()
        except OSError:
            pass
        finally:
            client.close()
            if server is not None:
                server.close()

    def _cut(self):
        with self.lock:
            self.cuts += 1


def read_head(file):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            return b""
        head += line
    return head


def length(head):
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def relay(answers, client, allowed, bodyless):
    """Hands one answer on, at most `allowed` bytes of it to the client; False when that was not all."""
    sent = 0

    def forward(data):
        nonlocal sent
        part = data if allowed is None else data[: max(0, allowed - sent)]
        if part:
            client.sendall(part)
        sent += len(data)
        return allowed is None or sent <= allowed

    head = read_head(answers)
    if not head:
        raise OSError("the server closed")
    good = forward(head)
    if bodyless or b" 204 " in head.split(b"\r\n")[0]:
        return good
    if b"chunked" in head.lower():
        while True:
            line = answers.readline()
            data = line + answers.read(int(line.split(b";")[0], 16) + 2)
            good = forward(data)
            if not good and allowed:
                return False
            if line.strip() == b"0":
                return good
    return forward(answers.read(length(head))) and good
