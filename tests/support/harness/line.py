"""line: a server with the line protocol on, and connections to it."""
import os
import select
import socket
import time

import harness


class LineServer(harness.Server):
    def __init__(self, *flags, **more):
        flags = list(flags)
        if "--line-listen" not in flags:
            flags += ["--line-listen", "127.0.0.1:0"]
        self.flags_line = flags
        super().__init__(*flags, **more)

    def start(self, ready=True):
        path = os.path.join(self.directory.name, "line-port")
        if "--line-port-file" not in self.command:
            self.command += ["--line-port-file", path]
        if os.path.exists(path):
            os.unlink(path)
        super().start(ready)
        if "none" in self.flags_line:
            return
        harness.wait_for(lambda: os.path.exists(path) and open(path, encoding="ascii").read().endswith("\n"), what="the line port")
        with open(path, encoding="ascii") as file:
            self.line_port = int(file.read())

    def line(self, **more):
        return Line(self.line_port, **more)


class Line:
    def __init__(self, port, timeout=harness.HANG, receive_buffer=None, context=None):
        """context: an ssl.SSLContext; None: no TLS."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.reader = self.socket.makefile("rb", buffering=1 << 16)

    def send(self, data):
        """Bytes as they are; text gets its newline."""
        self.socket.sendall(data if isinstance(data, bytes) else data.encode() + b"\n")

    def answer(self):
        """The next answer without its newline; None at the end of the connection."""
        try:
            text = self.reader.readline()
        except ConnectionResetError:
            return None
        if not text:
            return None
        assert text.endswith(b"\n"), text[:200]
        return text[:-1]

    def ask(self, line):
        self.send(line if isinstance(line, str) else line + b"\n")
        return self.answer()

    def many(self, lines):
        """Sends all lines, then reads all answers."""
        self.send(b"".join(line.encode() + b"\n" if isinstance(line, str) else line + b"\n" for line in lines))
        return [self.answer() for _ in lines]

    def closed(self, seconds=harness.HANG):
        """Has the server closed the connection within so many seconds? Answers before the end are dropped."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.socket.settimeout(max(0.05, end - time.monotonic()))
            try:
                if self.answer() is None:
                    return True
            except socket.timeout:
                return False
        return False

    def close(self):
        self.reader.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Arrivals:
    """In which order answers come to these lines, none of which has any yet: the kernel knows it, however late this program looks."""

    def __init__(self, *lines):
        self.poll, self.lines = select.epoll(), {line.socket.fileno(): line for line in lines}
        for number in self.lines:
            self.poll.register(number, select.EPOLLIN | select.EPOLLET)

    def first(self):
        """The line that was answered first."""
        events = self.poll.poll(harness.HANG, len(self.lines))
        self.poll.close()
        assert events, "no answer"
        return self.lines[events[0][0]]


def fields(answer):
    """name -> value of a SUCCESS."""
    assert answer.startswith(b"SUCCESS,"), answer
    return dict(part.split("=", 1) for part in answer.decode().split(",")[1:])
