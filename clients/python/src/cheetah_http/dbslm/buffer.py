"""Rows on their way to the server: collected, and sent as batches."""
from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import Callable, Dict, List, NamedTuple, Optional

from .._sync.client import Client
from ..errors import BatchError, CheetahError
from ..types import Operation
from ..wire import b64

logger = logging.getLogger(__name__)
HELD = 4  # an optional buffer that holds that many times what one sending takes is given up


class _Context(NamedTuple):
    payload: bytes
    vector: Optional[bytes]  # its other name, a ctxv: pair


class _Rows:
    """What is sent at once."""

    def __init__(self) -> None:
        self.contexts: Dict[bytes, _Context] = {}
        self.rows: Dict[bytes, bytes] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.rows) + len(self.contexts)

    def payload(self, pair: bytes) -> Optional[bytes]:
        context = self.contexts.get(pair)
        return context.payload if context is not None else self.rows.get(pair)

    def add_older(self, other: "_Rows") -> None:
        """Takes in what could not be sent, but for what has been put again since."""
        self.contexts = {**other.contexts, **self.contexts}
        self.rows = {**other.rows, **self.rows}
        self.bytes = sum(len(c.payload) + len(p) + len(c.vector or b"") for p, c in self.contexts.items())
        self.bytes += sum(len(p) + len(v) for p, v in self.rows.items())


class WriteBuffer:
    """Upserts by pair; the last one of a pair wins, and all may be repeated: what could not be sent stays here and is sent
    with the next flush. Sent at `rows` rows or `size` bytes, after `seconds` (0: not by time), and by flush().

    A flush is two requests at most: contexts (whose keys come back) and all others, with the second names of the contexts. Rows
    are put while others are on their way; who fills the buffer waits for one sending, with `failed` nobody does.

    failed      None: a failure is raised where it happens, or logged where that is the timer. Else the buffer is optional: it is
                sent by its own thread, and any failure, also that the server does not keep up, is told here, once the rows have
                been thrown away
    """

    def __init__(
        self,
        client: Client,
        rows: int,
        size: int,
        seconds: float,
        failed: Optional[Callable[[CheetahError], None]] = None,
    ) -> None:
        self._client, self._most, self._most_bytes, self._seconds = client, rows, size, seconds
        self._failed = failed
        self._sending = threading.RLock()  # held while rows are on their way; taken before the other
        self._lock = threading.RLock()  # guards all below; never held while sending
        self._now, self._sent = _Rows(), _Rows()
        self._timer: Optional[threading.Timer] = None
        self._urgent = False  # the timer runs without waiting
        before_close = getattr(client._http, "before_close", None)  # not of an httpx client, which is not closed with ours
        if before_close is not None:
            before_close(self)
        _buffers.add(self)

    def __len__(self) -> int:
        with self._lock:
            return len(self._now) + len(self._sent)

    def put(self, pair: bytes, payload: bytes) -> None:
        with self._lock:
            room = not self._full(len(payload))
            if room:
                self._now.rows[pair] = payload
                self._account(len(pair) + len(payload))
        if not room:
            self._make_room(len(payload))
            with self._lock:
                self._now.rows[pair] = payload
                self._account(len(pair) + len(payload))

    def put_context(self, pair: bytes, payload: bytes, vector: Optional[bytes]) -> None:
        self._make_room(len(payload))
        with self._lock:
            self._now.contexts[pair] = _Context(payload, vector)
            self._account(len(pair) + len(payload) + len(vector or b""))

    def waiting(self, pair: bytes) -> Optional[bytes]:
        """The payload of a pair that the server may not have yet."""
        with self._lock:
            found = self._now.payload(pair)
            return found if found is not None else self._sent.payload(pair)

    def flush(self) -> None:
        """Sends what waits, and waits for what is on its way."""
        with self._sending:
            with self._lock:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer, self._urgent = None, False
                self._sent, self._now = self._now, _Rows()
            try:
                self._send(self._sent)
            except BatchError as error:
                if _refused(error):
                    self._settle(kept=False)  # these rows will never be taken, and all others have been
                else:
                    self._settle(kept=True)
                raise
            except BaseException:
                self._settle(kept=True)
                raise
            self._settle(kept=False)

    def close(self) -> None:
        """For the end of the program, or of the client: sends the rest; says so if that fails."""
        try:
            self.flush()
        except RuntimeError as error:  # also: the client (of httpx) is closed
            logger.error("cheetah-db: %d rows could not be sent and are lost: %s", len(self), error)
            self.drop()

    def drop(self) -> None:
        """Throws away what waits."""
        with self._lock:
            self._now = _Rows()

    def forked(self) -> None:
        """In a child: what waits is sent by its parent. The locks may be held by threads that are not here, as the timer's is."""
        self._sending, self._lock = threading.RLock(), threading.RLock()
        self._now, self._sent = _Rows(), _Rows()
        self._timer, self._urgent = None, False

    def _settle(self, kept: bool) -> None:
        with self._lock:
            sent, self._sent = self._sent, _Rows()
            if kept:
                self._now.add_older(sent)

    def _full(self, size: int, times: int = 1) -> bool:
        now = self._now
        rows = len(now.rows) + len(now.contexts)
        return rows >= times * self._most or (rows > 0 and now.bytes + size > times * self._most_bytes)

    def _make_room(self, size: int) -> None:
        with self._lock:
            if not self._full(size):
                return
            if self._failed is not None:
                if not self._full(size, HELD):
                    self._start_timer(0.0)
                    return
                self.drop()
                failed = self._failed
        if self._failed is None:
            self.flush()
        else:
            failed(CheetahError("the server does not keep up with what is published"))

    def _account(self, size: int) -> None:
        self._now.bytes += size
        if self._seconds > 0 and self._timer is None:
            self._start_timer(self._seconds)

    def _start_timer(self, seconds: float) -> None:
        """The lock is held."""
        if self._timer is not None and (seconds > 0 or self._urgent):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, self._on_time)
        self._timer.daemon, self._urgent = True, seconds == 0
        self._timer.start()

    def _on_time(self) -> None:
        try:
            self.flush()
        except RuntimeError as error:
            if self._failed is not None:
                self.drop()
                self._failed(error if isinstance(error, CheetahError) else CheetahError(str(error)))
                return
            logger.warning("cheetah-db: %d rows wait, they could not be sent: %s", len(self), error)
            with self._lock:
                self._account(0)

    def _send(self, sent: _Rows) -> None:
        """Contexts first; then, in one request, their second names and the other rows."""
        puts: List[Operation] = [_put(pair, context.payload) for pair, context in sent.contexts.items()]
        refused: Optional[BatchError] = None
        if puts:
            try:
                self._client.run(puts)
            except BatchError as error:
                if not _refused(error):
                    raise
                refused = error  # told when all others are there
        names = [
            Operation({"op": "pair_set", "pair": b64(context.vector), "key": put.key})
            for put, context in zip(puts, sent.contexts.values())
            if context.vector is not None and put.key is not None
        ]
        if names or sent.rows:
            self._client.upsert(sent.rows.items(), names)
        if refused is not None:
            raise refused


_buffers: "weakref.WeakSet[WriteBuffer]" = weakref.WeakSet()


def _forked() -> None:
    for buffer in list(_buffers):
        buffer.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _refused(error: BatchError) -> bool:
    """Whether what failed will never be taken, and the others of the batch have been."""
    return all(failure.status < 500 for _, failure in error.failures)


def _put(pair: bytes, payload: bytes) -> Operation:
    return Operation({"op": "pair_put", "pair": b64(pair), "value": b64(payload)})
