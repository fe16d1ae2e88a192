"""Pool: for threads, as many as there are. Idle connections are kept, the last one first; one that the server has closed meanwhile
is noticed before it is used. A process that was forked has none of its parent's."""
from __future__ import annotations

import os
import select
import socket
import time
import weakref
from typing import TYPE_CHECKING, Iterable, Iterator, List, Optional, Protocol

from .address import Address
from .errors import NotConnected, TransportError, WriteFailed
from .http1 import ONE_WRITE, Incoming, chunks, request_head, target

if TYPE_CHECKING:
    from ..wire import Call

KEPT = 20
IDLE_SECONDS = 15.0
PIECE = 256 << 10


class Sender(Protocol):
    """What keeps something back that is still to be sent."""

    def close(self) -> None: ...


class Connection:
    __slots__ = ("sock", "since", "_poll")

    def __init__(self, address: Address, timeout: float, connect: float) -> None:
        self.sock: socket.socket
        try:
            if address.path is not None:
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    self.sock.settimeout(connect)
                    self.sock.connect(address.path)
                except OSError:
                    self.sock.close()
                    raise
            else:
                self.sock = socket.create_connection((address.server_name or address.host, address.port), connect)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls is not None:
                plain = self.sock
                try:
                    self.sock = address.tls.wrap_socket(plain, server_hostname=address.server_name)
                except (OSError, ValueError):
                    plain.close()
                    raise
        except OSError as error:
            raise NotConnected(_said(error)) from error
        self.sock.settimeout(timeout)
        self._poll = select.poll()
        self._poll.register(self.sock, select.POLLIN)
        self.since = 0.0

    def stale(self) -> bool:
        """The server has closed it, or said something unasked."""
        return bool(self._poll.poll(0))

    def write(self, head: bytes, body: Optional[bytes]) -> None:
        try:
            if body is None:
                self._send(head)
            elif len(body) <= ONE_WRITE:
                self.sock.sendall(head + body)
            else:
                self.sock.sendall(head)
                self._send(body)
        except OSError as error:
            raise WriteFailed(_said(error)) from error

    def _send(self, data: bytes) -> None:
        """In pieces: what sendall is given has the time-out for all of it together, however much the other side takes."""
        for at in range(0, len(data), PIECE):
            self.sock.sendall(memoryview(data)[at : at + PIECE])

    def read(self, size: int = PIECE) -> bytes:
        """b"": the server has closed."""
        try:
            return self.sock.recv(size)
        except OSError as error:
            raise TransportError(_said(error)) from error

    def close(self) -> None:
        self.sock.close()


class Answer(Incoming):
    """An answer whose body is read piece by piece, or as a whole by read(). close() gives the connection back, or ends it."""

    __slots__ = ("_pool", "_connection", "_pieces")

    def __init__(self, pool: "Pool", connection: Connection, bodyless: bool) -> None:
        super().__init__(bodyless)
        self._pool = pool
        self._connection: Optional[Connection] = connection
        self._pieces: List[bytes] = []

    def start(self) -> None:
        """Reads the head."""
        connection = self._connection
        assert connection is not None
        while not self.head:
            data = connection.read()
            if not data:
                self.end()
                raise TransportError("the server closed without an answer")
            self._pieces += self.feed(data)

    def iter_bytes(self) -> Iterator[bytes]:
        try:
            while True:
                pieces, self._pieces = self._pieces, []
                yield from pieces
                if self.complete:
                    break
                self._more()
        finally:
            self.close()

    def read(self) -> bytes:
        if self._connection is None and self.complete:
            return self.content
        try:
            pieces, self._pieces = self._pieces, []
            while not self.complete:
                self._more()
                pieces += self._pieces
                self._pieces = []
            self.content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        finally:
            self.close()
        return self.content

    def _more(self) -> None:
        if self._connection is None:
            raise TransportError("the answer was closed")
        data = self._connection.read()
        if data:
            self._pieces += self.feed(data)
        elif not self.end():
            raise TransportError("the server closed before the end of its answer")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give(connection, self.complete and self.keep)

    def __del__(self) -> None:
        self.close()


class Pool:
    """timeout: seconds of silence after which a connection counts as lost. fixed: the headers of every request, as lines."""

    def __init__(self, address: Address, fixed: str, timeout: float) -> None:
        self.address, self._timeout = address, timeout
        self._fixed = f"Host: {address.host}\r\n{fixed}"
        self._idle: List[Connection] = []  # append and pop are atomic
        self._process = os.getpid()
        self._closed = False
        self._senders: "weakref.WeakSet[Sender]" = weakref.WeakSet()

    def before_close(self, sender: Sender) -> None:
        """It is closed before the connections are, as long as it exists."""
        self._senders.add(sender)

    @property
    def url(self) -> str:
        return self.address.url

    @property
    def name(self) -> str:
        return self.address.name

    def send(self, call: "Call", stream: bool) -> Answer:
        """An answer, whatever its status; read, unless stream. TransportError."""
        where = target(self.address.below, call.path, call.query())
        head = request_head(call.method, where, self._fixed, call.headers(), call.length())
        connection = self._take()
        answer = Answer(self, connection, call.method == "HEAD")
        try:
            connection.write(head, call.content)
            whole = call.pieces is None or self._carry(connection, call.pieces)
            answer.start()
            answer.keep = answer.keep and whole
        except WriteFailed:
            self._early(answer, connection)
        except BaseException:
            answer.close()
            raise
        if not stream:
            answer.read()
        return answer

    def _carry(self, connection: Connection, pieces: Iterable[bytes]) -> bool:
        """False: the server has answered before it had all of it; the rest is not sent."""
        for chunk in chunks(pieces):
            if self.address.tls is None and connection.stale():  # of TLS there may be more than answers
                return False
            connection.write(chunk, None)
        return True

    def _early(self, answer: Answer, connection: Connection) -> None:
        """The server may have said why before it closed. Called while the failed write is handled; raises that if not."""
        try:
            connection.sock.settimeout(min(self._timeout, 1.0))
            answer.start()
        except (TransportError, OSError):
            pass
        if not answer.head or answer.status_code < 400:
            answer.close()
            raise  # noqa: PLE0704
        answer.keep = False

    def _take(self) -> Connection:
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._process != os.getpid():
            self._process, self._idle = os.getpid(), []
        oldest = time.monotonic() - IDLE_SECONDS
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if connection.since > oldest and not connection.stale():
                return connection
            connection.close()
        return Connection(self.address, self._timeout, min(self._timeout, 5.0))

    def give(self, connection: Connection, good: bool) -> None:
        if not good or self._closed or len(self._idle) >= KEPT or self._process != os.getpid():
            connection.close()
            return
        connection.since = time.monotonic()
        self._idle.append(connection)

    def close(self) -> None:
        if not self._closed:
            for sender in list(self._senders):
                sender.close()
        self._closed = True
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                break


def _said(error: OSError) -> str:
    if isinstance(error, socket.timeout):
        return "timed out"
    return error.strerror or str(error) or type(error).__name__
