"""AsyncPool: for asyncio, one event loop at a time. At most LIMIT connections, others wait their turn; the last one that became idle is
taken first. Silence is looked for by one timer for all connections."""
from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, AsyncIterator, Deque, Iterable, List, Optional, Set

from .address import Address
from .errors import NotConnected, TransportError, WriteFailed
from .http1 import ONE_WRITE, Incoming, chunks, request_head, target

if TYPE_CHECKING:
    from ..wire import Call

LIMIT = 100
KEPT = 20
IDLE_SECONDS = 15.0
AHEAD = 4 << 20  # bytes of an answer that lie unread before the server has to wait


class Connection(asyncio.Protocol):
    """Carries one answer at a time. Everything happens on the loop's thread."""

    def __init__(self, pool: "AsyncPool") -> None:
        self.pool = pool
        self.transport: Any = None
        self.answer: Optional[AsyncAnswer] = None
        self.since = 0.0  # of the last byte, or of the end of the last answer
        self.unsent = self.lost = False
        self.waiting = 0  # bytes that were still to be sent at the last look

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.transport.set_write_buffer_limits(high=0)  # so that unsent says whether all was handed over

    def pause_writing(self) -> None:
        self.unsent = True

    def resume_writing(self) -> None:
        self.unsent = False
        self.since = self.pool.now()
        if self.answer is not None:
            self.answer.written()

    def data_received(self, data: bytes) -> None:
        self.since = self.pool.now()
        if self.answer is None:
            self.transport.abort()  # nobody asked
        else:
            self.answer.arrived(data)

    def connection_lost(self, error: Optional[Exception]) -> None:
        self.lost = True
        self.pool.forget(self)
        if self.answer is not None:
            self.answer.ended(error)

    def look(self, now: float) -> None:
        """Bytes that were taken since the last time are no silence."""
        waiting = self.transport.get_write_buffer_size() if self.unsent else 0
        if waiting < self.waiting:
            self.since = now
        self.waiting = waiting

    def write(self, head: bytes, body: Optional[bytes]) -> None:
        self.since = self.pool.now()
        self.unsent = True
        if body is None:
            self.transport.write(head)
        elif len(body) <= ONE_WRITE:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        if not self.transport.is_closing() and self.transport.get_write_buffer_size() == 0:
            self.unsent = False


class AsyncAnswer(Incoming):
    """An answer whose body is read piece by piece, or as a whole by aread(). aclose() gives the connection back, or ends it."""

    __slots__ = ("_connection", "_pieces", "_bytes", "_waiter", "_whole", "_error", "_paused", "__weakref__")

    def __init__(self, connection: Connection, bodyless: bool, whole: bool) -> None:
        super().__init__(bodyless)
        self._connection: Optional[Connection] = connection
        self._pieces: List[bytes] = []
        self._bytes = 0
        self._waiter: Optional[asyncio.Future[None]] = None
        self._whole = whole  # who waits wants all of it
        self._error: Optional[TransportError] = None
        self._paused = False

    # ---- from the connection

    def arrived(self, data: bytes) -> None:
        try:
            pieces = self.feed(data)
        except TransportError as error:
            self._fail(error)
            return
        if pieces:
            self._pieces += pieces
            self._bytes += sum(map(len, pieces))
        sending = self._connection is not None and self._connection.unsent
        if self.complete or self.head and (sending or not self._whole):
            self._wake()
        if self._bytes > AHEAD and not self._whole and not self._paused and self._connection is not None:
            self._paused = True
            self._connection.transport.pause_reading()

    def written(self) -> None:
        """There is room for more of the request."""
        self._wake()

    def ended(self, error: Optional[Exception]) -> None:
        connection = self._connection
        if self.end():
            self._wake()
        elif connection is not None and connection.unsent:
            self._fail(WriteFailed(_said(error)))
        else:
            self._fail(TransportError(_said(error)))

    def silent(self) -> None:
        self._fail(WriteFailed("timed out") if self._connection is not None and self._connection.unsent else TransportError("timed out"))

    def _fail(self, error: TransportError) -> None:
        if self._error is None:
            self._error = error
        self.keep = False
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ---- to the caller

    async def carry(self, pieces: Iterable[bytes]) -> bool:
        """Sends a body after its head, a chunk when the last one has gone. False: the server has answered before it had all of it, or is
        gone; the rest is not sent."""
        for chunk in chunks(pieces):
            while self._connection is not None and self._connection.unsent and not self.head and self._error is None:
                await self._wait()
            if self._connection is None or self.head or self._error is not None:
                return False
            self._connection.write(chunk, None)
        return True

    async def start(self) -> None:
        """Waits for the head, or for all of it."""
        while self._error is None and not (self.complete or self.head and not self._whole):
            await self._wait()
        if self._error is not None and not self.head:
            raise self._error

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        try:
            while True:
                pieces, self._pieces = self._pieces, []
                self._bytes = 0
                for piece in pieces:
                    yield piece
                if self._pieces:
                    continue
                if self.complete:
                    break
                if self._error is not None:
                    raise self._error
                self._resume()
                await self._wait()
        finally:
            await self.aclose()

    async def aread(self) -> bytes:
        if self._connection is None and self.complete:
            return self.content
        try:
            self._whole = True
            self._resume()
            while not self.complete and self._error is None:
                await self._wait()
            if not self.complete and self._error is not None:
                raise self._error
            self.content = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces = []
        finally:
            await self.aclose()
        return self.content

    async def _wait(self) -> None:
        connection = self._connection
        if connection is None:
            raise TransportError("the answer was closed")
        self._waiter = connection.pool.loop.create_future()
        connection.since = connection.pool.now()
        await self._waiter

    def _resume(self) -> None:
        if self._paused and self._connection is not None:
            self._paused = False
            self._connection.since = self._connection.pool.now()
            self._connection.transport.resume_reading()

    async def aclose(self) -> None:
        self.release()

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.answer = None
            good = self.complete and self.keep and self._error is None and not connection.unsent
            connection.pool.give(connection, good)

    @property
    def waiting(self) -> bool:
        return self._waiter is not None


class AsyncPool:
    """timeout: seconds of silence after which a connection counts as lost. fixed: the headers of every request, as lines."""

    def __init__(self, address: Address, fixed: str, timeout: float) -> None:
        self.address, self._timeout = address, timeout
        self._fixed = f"Host: {address.host}\r\n{fixed}"
        self.loop: asyncio.AbstractEventLoop
        self._bound: Optional[asyncio.AbstractEventLoop] = None
        self._closed = False
        self._begin()

    @property
    def url(self) -> str:
        return self.address.url

    @property
    def name(self) -> str:
        return self.address.name

    def _begin(self) -> None:
        self._idle: List[Connection] = []
        self._all: Set[Connection] = set()
        self._count = 0  # of connections that are open, are being opened, or are promised to who waits
        self._turns: Deque[asyncio.Future[None]] = deque()
        self._timer: Optional[asyncio.TimerHandle] = None

    def now(self) -> float:
        return self.loop.time()

    async def send(self, call: "Call", stream: bool) -> AsyncAnswer:
        """An answer, whatever its status; read, unless stream. TransportError."""
        where = target(self.address.below, call.path, call.query())
        head = request_head(call.method, where, self._fixed, call.headers(), call.length())
        connection = await self._take()
        answer = AsyncAnswer(connection, call.method == "HEAD", not stream)
        connection.answer = answer
        try:
            connection.write(head, call.content)
            whole = call.pieces is None or await answer.carry(call.pieces)
            await answer.start()
            answer.keep = answer.keep and whole
            if not stream:
                await answer.aread()
        except BaseException:
            answer.release()
            raise
        return answer

    async def _take(self) -> Connection:
        loop = asyncio.get_running_loop()
        if loop is not self._bound:  # another asyncio.run(): the connections of the last one are dead
            self._leave()
            self._bound = self.loop = loop
            self._begin()
        while True:
            if self._closed:
                raise RuntimeError("the client is closed")
            oldest = self.now() - IDLE_SECONDS
            while self._idle:
                connection = self._idle.pop()
                if connection.lost or connection.transport.is_closing() or connection.since < oldest:
                    connection.transport.abort()
                    continue
                return connection
            if self._count < LIMIT:
                return await self._connect()
            turn: asyncio.Future[None] = loop.create_future()
            self._turns.append(turn)
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self._next()  # the turn goes to somebody else
                raise

    def _leave(self) -> None:
        """The loop of before is not used any more. RuntimeError: it is, right now, in another thread."""
        bound = self._bound
        if bound is None or bound.is_closed():
            return
        if not bound.is_running():
            if self._timer is not None:
                self._timer.cancel()
            return
        if self._turns or self._count > len(self._all) or any(connection.answer is not None for connection in self._all):
            raise RuntimeError("the client is in use by another event loop: make a client for each")
        if self._timer is not None:
            bound.call_soon_threadsafe(self._timer.cancel)
        for connection in self._all:
            bound.call_soon_threadsafe(connection.transport.abort)

    async def _connect(self) -> Connection:
        self._count += 1
        address = self.address
        connection = Connection(self)
        try:
            opening: Any
            if address.path is not None:
                opening = self.loop.create_unix_connection(lambda: connection, address.path)
            else:
                opening = self.loop.create_connection(
                    lambda: connection, address.server_name or address.host, address.port, ssl=address.tls,
                    server_hostname=address.server_name if address.tls is not None else None,
                )  # fmt: skip
            await asyncio.wait_for(opening, min(self._timeout, 5.0))
        except BaseException as error:
            self._count -= 1
            if connection.transport is not None:  # it came in the moment in which nobody waited any more
                connection.transport.abort()
            self._next()
            if isinstance(error, asyncio.TimeoutError):
                raise NotConnected("timed out") from error
            if isinstance(error, (OSError, ValueError)):
                raise NotConnected(_said(error)) from error
            raise
        self._all.add(connection)
        if self._timer is None:
            self._timer = self.loop.call_later(self._tick(), self._look)
        return connection

    def forget(self, connection: Connection) -> None:
        """It was lost."""
        if connection in self._all:
            self._all.discard(connection)
            self._count -= 1
            self._next()

    def give(self, connection: Connection, good: bool) -> None:
        if not good or self._closed or connection.lost or connection not in self._all or len(self._idle) >= max(KEPT, LIMIT if self._turns else KEPT):
            connection.transport.abort()
        else:
            connection.since = self.now()
            self._idle.append(connection)
            self._next()

    def _next(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _tick(self) -> float:
        return min(1.0, self._timeout / 10)

    def _look(self) -> None:
        """Who has heard nothing for too long; idle connections that are too old."""
        self._timer = None
        now = self.now()
        for connection in list(self._all):
            connection.look(now)
            answer = connection.answer
            if answer is None:
                if connection.since < now - IDLE_SECONDS:
                    connection.transport.abort()
            elif answer.waiting and connection.since < now - self._timeout:
                answer.silent()
        if self._all:
            self._timer = self.loop.call_later(self._tick(), self._look)

    async def aclose(self) -> None:
        self._closed = True
        if self._bound is None or self._bound.is_closed():
            return
        gone = [connection for connection in self._all if connection.answer is None]
        for connection in gone:
            connection.transport.abort()
        while self._turns:
            self._next()  # they find that it is closed
        if self._timer is not None and len(gone) == len(self._all):  # else it looks at those that wait for an answer
            self._timer.cancel()
            self._timer = None
        if gone and self._bound is asyncio.get_running_loop():
            await asyncio.sleep(0)  # the sockets are closed by the loop


def _said(error: Optional[BaseException]) -> str:
    if error is None:
        return "the server closed before the end of its answer"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
