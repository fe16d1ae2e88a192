"""The client class that DB-SLM plugs in, over HTTP: the methods and return values of its own line-protocol client.

Texts are those of the line protocol: "SUCCESS,key=1", "ERROR,key_not_found (no value under key 7)"; the word before the
blank is stable. Nothing here raises for what the server says: see the return values. The whole client, which does, is `db`.
"""
from __future__ import annotations

import logging
from itertools import islice
from typing import Callable, Iterator, List, Optional, Tuple, TypeVar

from ..errors import APIError, CheetahError, ConnectionLost
from ..retry import Retry
from ..types import Pair, Row
from .._sync.client import Client

logger = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT_PAGE = 256  # of the line protocol: without a limit, and the most that one page gives
LARGEST_PAGE = 4096


class CheetahClient:
    """host, port: where the server speaks HTTP. url, token, retry: as in cheetah_http.Client; url wins over host and port."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        database: str = "default",
        timeout: float = 30.0,
        url: Optional[str] = None,
        token: Optional[str] = None,
        retry: Retry = Retry(),
    ) -> None:
        self.host, self.port, self.database, self.timeout = host, port, database, timeout
        bracketed = f"[{host}]" if ":" in host else host
        self.db = Client(
            url or f"http://{bracketed}:{port}", database=database, token=token, timeout=timeout, retry=retry
        )
        self._healthy = False
        self._last_errors: List[str] = []

    # ---- the connection

    def connect(self) -> bool:
        """Whether the server is there and ready."""
        self._healthy = self.db.ready()
        self._last_errors = [] if self._healthy else [f"{self.db.url} is not ready"]
        return self._healthy

    def healthy(self) -> bool:
        """Whether the last call reached the server."""
        return self._healthy

    def close(self) -> None:
        self._healthy = False
        self.db.close()

    def describe_targets(self) -> str:
        return self.db.url

    def describe_failures(self) -> str:
        return "; ".join(self._last_errors) or "no connection errors recorded"

    # ---- values

    def insert(self, payload: bytes) -> Tuple[Optional[int], str]:
        """(key, text); key None where it failed."""
        return self._call(lambda: self.db.insert(payload), lambda key: f"key={key}")

    def edit(self, key: int, payload: bytes) -> Tuple[bool, str]:
        """(whether it worked, text)."""
        return self._done(lambda: self.db.edit(key, payload), f"key={key}_updated")

    def read(self, key: int) -> Optional[bytes]:
        """The value; None if there is none, and (logged) if it could not be read."""
        return self._value(lambda: self.db.get(key))

    def delete(self, key: int) -> Tuple[bool, str]:
        return self._done(lambda: self.db.delete(key), f"key={key}_deleted")

    # ---- pairs

    def pair_set(self, value: bytes, key: int) -> Tuple[bool, str]:
        """Maps the byte string to the key."""
        return self._done(lambda: self.db.pair_set(value, key), "pair_set")

    def pair_get(self, value: bytes) -> Optional[int]:
        """The key; None if there is no such pair."""
        return self._value(lambda: self.db.pair_get(value))

    def pair_del(self, value: bytes) -> Tuple[bool, str]:
        return self._done(lambda: self.db.pair_delete(value), "pair_deleted")

    def pair_scan(
        self, prefix: bytes = b"", limit: int = 0, cursor: Optional[bytes] = None
    ) -> Optional[Tuple[List[Tuple[bytes, int]], Optional[bytes]]]:
        """(rows, cursor): a page of (pair, key), and what to pass to get the next (None: that was all). limit: 0 is 256, over
        4096 is 4096, negative is everything. None where the server did not answer."""

        def scan(limit: Optional[int]) -> Iterator[Pair]:
            return self.db.pairs(prefix, after=cursor, limit=limit, page_size=LARGEST_PAGE + 1)

        found = self._page(scan, limit)
        if found is None:
            return None
        rows, more = found
        return [(row.pair, row.key) for row in rows], rows[-1].pair if more else None

    def pair_reduce(
        self, mode: str, prefix: bytes = b"", limit: int = 0, cursor: Optional[bytes] = None
    ) -> Optional[Tuple[List[Tuple[bytes, int, Optional[bytes]]], Optional[bytes]]]:
        """The same with payloads: rows of (pair, key, payload); the payload is None where the key has no value."""

        def scan(limit: Optional[int]) -> Iterator[Row[object]]:
            return self.db.reduce(
                mode, prefix, after=cursor, limit=limit, decode=False, page_size=LARGEST_PAGE + 1
            )

        found = self._page(scan, limit)
        if found is None:
            return None
        rows, more = found
        return [(row.pair, row.key, row.payload) for row in rows], rows[-1].pair if more else None

    # ---- results as the line protocol has them

    def _call(self, call: Callable[[], T], text: Callable[[T], str]) -> Tuple[Optional[T], str]:
        try:
            result = call()
        except (CheetahError, ValueError) as error:
            self._note(error)
            return None, _text_of(error)
        self._note(None)
        return result, "SUCCESS," + text(result)

    def _done(self, call: Callable[[], object], text: str) -> Tuple[bool, str]:
        result, answer = self._call(lambda: (call(),), lambda _: text)
        return result is not None, answer

    def _value(self, call: Callable[[], Optional[T]]) -> Optional[T]:
        try:
            result = call()
        except (CheetahError, ValueError) as error:
            self._note(error)
            if not _no_database(error):
                logger.warning("cheetah-db: %s", error)
            return None
        self._note(None)
        return result

    def _page(self, scan: Callable[[Optional[int]], Iterator[T]], limit: int) -> Optional[Tuple[List[T], bool]]:
        """The rows of a page, and whether there are more: asks for one row too many."""
        most = None if limit < 0 else min(limit or DEFAULT_PAGE, LARGEST_PAGE)
        try:
            rows = list(scan(None if most is None else most + 1))
        except (CheetahError, ValueError) as error:
            self._note(error)
            if _no_database(error):
                return [], False
            logger.warning("cheetah-db: %s", error)
            return None
        self._note(None)
        return list(islice(rows, most)), most is not None and len(rows) > most

    def _note(self, error: Optional[Exception]) -> None:
        self._healthy = not isinstance(error, ConnectionLost)
        self._last_errors = [str(error)] if isinstance(error, ConnectionLost) else []


def _no_database(error: Exception) -> bool:
    """A database that nothing has been written to yet is an empty one."""
    return isinstance(error, APIError) and error.code == "database_not_found"


def _text_of(error: Exception) -> str:
    if isinstance(error, APIError):
        code = "not_found" if error.code == "pair_not_found" else error.code
        return f"ERROR,{code} ({error.detail})" if error.detail else f"ERROR,{code}"
    if isinstance(error, ConnectionLost):
        return f"ERROR,connection_lost ({error})"
    return f"ERROR,invalid_argument ({error})"
