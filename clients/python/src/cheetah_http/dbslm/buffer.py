"""Rows on their way to the server: collected, and sent as batches."""
from __future__ import annotations

import logging
import threading
from typing import Dict, List, NamedTuple, Optional

from .._sync.client import Client
from ..errors import BatchError, CheetahError
from ..types import Operation
from ..wire import b64

logger = logging.getLogger(__name__)


class _Context(NamedTuple):
    payload: bytes
    vector: Optional[bytes]  # its other name, a ctxv: pair


class WriteBuffer:
    """Upserts by pair; the last one of a pair wins, and all may be repeated: what could not be sent stays here and is sent
    with the next flush. Sent at `rows` rows or `size` bytes, after `seconds` (0: not by time), and by flush().

    A flush is two requests at most: contexts (whose keys come back) and all others, with the second names of the contexts.
    """

    def __init__(self, client: Client, rows: int, size: int, seconds: float) -> None:
        self._client, self._most, self._most_bytes, self._seconds = client, rows, size, seconds
        self._lock = threading.RLock()  # guards all below; held while sending, so that publishers wait
        self._contexts: Dict[bytes, _Context] = {}
        self._rows: Dict[bytes, bytes] = {}
        self._bytes = 0
        self._timer: Optional[threading.Timer] = None

    def __len__(self) -> int:
        return len(self._rows) + len(self._contexts)

    def put(self, pair: bytes, payload: bytes) -> None:
        with self._lock:
            self._make_room(len(payload))
            self._rows[pair] = payload
            self._account(len(pair) + len(payload))

    def put_context(self, pair: bytes, payload: bytes, vector: Optional[bytes]) -> None:
        with self._lock:
            self._make_room(len(payload))
            self._contexts[pair] = _Context(payload, vector)
            self._account(len(pair) + len(payload) + len(vector or b""))

    def waiting(self, pair: bytes) -> Optional[bytes]:
        """The payload of a pair that has not been sent yet."""
        with self._lock:
            if pair in self._contexts:
                return self._contexts[pair].payload
            return self._rows.get(pair)

    def flush(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            try:
                self._send()
            except BatchError as error:
                if all(failure.status < 500 for _, failure in error.failures):
                    self._forget()  # these rows will never be taken, and all others have been
                raise
            self._forget()

    def close(self) -> None:
        """For the end of the program: sends the rest; says so if that fails."""
        with self._lock:
            try:
                self.flush()
            except CheetahError as error:
                logger.error("cheetah-db: %d rows could not be sent and are lost: %s", len(self), error)

    def _make_room(self, size: int) -> None:
        if len(self) >= self._most or (len(self) and self._bytes + size > self._most_bytes):
            self.flush()

    def _account(self, size: int) -> None:
        self._bytes += size
        if self._seconds > 0 and self._timer is None:
            self._timer = threading.Timer(self._seconds, self._on_time)
            self._timer.daemon = True
            self._timer.start()

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
            try:
                self.flush()
            except CheetahError as error:
                logger.warning("cheetah-db: %d rows wait, they could not be sent: %s", len(self), error)
                self._account(0)

    def _send(self) -> None:
        """Contexts first; then, in one request, their second names and the other rows."""
        puts: List[Operation] = [_put(pair, context.payload) for pair, context in self._contexts.items()]
        if puts:
            self._client.run(puts)
        names = [
            Operation({"op": "pair_set", "pair": b64(context.vector), "key": put.key})
            for put, context in zip(puts, self._contexts.values())
            if context.vector is not None
        ]
        others = [_put(pair, payload) for pair, payload in self._rows.items()]
        if names or others:
            self._client.run(names + others, results=False)

    def _forget(self) -> None:
        self._contexts, self._rows, self._bytes = {}, {}, 0


def _put(pair: bytes, payload: bytes) -> Operation:
    return Operation({"op": "pair_put", "pair": b64(pair), "value": b64(payload)})
