# Made by unasync.py from _async/columns.py; change that.
"""Scans and reducers as columns: see columns.py. A page of many rows is one request, and parsed as one piece."""
from __future__ import annotations

import json
from typing import Any, Iterator, Callable, Dict, List, Optional, TypeVar

from ..columns import MODES, PairColumns, RecordColumns, TotalColumns, checked, joined, pair_columns, record_columns, total_columns
from ..errors import ProtocolError, StreamCut, error_of, named
from ..wire import Call, Param, checked_limit, end_of, url_bytes
from .transport import Transport

T = TypeVar("T")
ROWS = 20_000  # of a page


class Columns(Transport):
    def pairs_columns(
        self,
        prefix: bytes = b"",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        values: bool = False,
        reverse: bool = False,
        page_size: int = ROWS,
    ) -> PairColumns:
        """pairs() as columns: names, keys, sizes and values of all of them, in memory. to_numpy() and matrix() make numpy arrays."""
        params = self._params(
            until=None if until is None else url_bytes(until), values=values or None, reverse=reverse or None
        )
        start = None if after is None else url_bytes(after)
        pages = self._pages("/pairs/" + url_bytes(prefix), params, start, limit, page_size)
        return self._columns(pages, lambda lines: pair_columns(lines, True, values))

    def values_columns(
        self,
        *,
        after: Optional[int] = None,
        limit: Optional[int] = None,
        size: Optional[int] = None,
        payloads: bool = True,
        page_size: int = ROWS,
    ) -> PairColumns:
        """values() as columns: keys, sizes and values."""
        pages = self._pages("/kv", self._params(size=size, values=payloads), after, limit, page_size)
        return self._columns(pages, lambda lines: pair_columns(lines, False, payloads))

    def reduce_columns(
        self,
        mode: str,
        prefix: bytes,
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        page_size: int = ROWS,
    ) -> RecordColumns:
        """The payloads of mode counts, probabilities, topk or continuations as columns: the entries of all in one array each."""
        if mode not in MODES:
            raise ValueError(f"columns are made of {', '.join(MODES)}, not of {mode!r}")
        params = self._params(until=None if until is None else url_bytes(until))
        start = None if after is None else url_bytes(after)
        pages = self._pages(f"/reduce/{mode}/{url_bytes(prefix)}", params, start, limit, page_size)
        return self._columns(pages, lambda lines: record_columns(mode, lines))

    def totals_columns(
        self, prefix: bytes = b"cnt:1:", *, by_count: bool = False, limit: Optional[int] = None
    ) -> TotalColumns:
        """totals() as columns."""
        checked_limit(limit)
        params = self._params(sort="count" if by_count else None, limit=limit)
        return total_columns((self._whole(Call("GET", f"/reduce/totals/{url_bytes(prefix)}", params)))[:-1])

    def _columns(self, pages: Iterator[List[Dict[str, Any]]], make: Callable[[List[Dict[str, Any]]], T]) -> T:
        parts: List[T] = [make(lines) for lines in pages]
        whole: T = joined(parts)
        return whole

    def _pages(
        self, path: str, params: Dict[str, Param], after: Any, limit: Optional[int], page: int
    ) -> Iterator[List[Dict[str, Any]]]:
        """The lines of each page, without the end; one page at least."""
        checked_limit(limit)
        checked_limit(page, "page_size")
        left = limit
        while True:
            ask = page if left is None else min(page, left)
            *lines, end = self._whole(Call("GET", path, {**params, "after": after, "limit": ask}))
            yield lines
            after = end_of(end).get("next")
            left = None if left is None else left - len(lines)
            if after is None or left == 0:
                return

    def _whole(self, call: Call) -> List[Dict[str, Any]]:
        """All lines of an answer, the end line the last."""
        attempt = 0
        while True:
            answer = self._open(call, stream=False)
            what = f"{call.method} {call.path}"
            body = answer.content
            with named(self.server):
                try:
                    lines: List[Dict[str, Any]] = json.loads(b"[" + body.rstrip(b"\n").replace(b"\n", b",") + b"]")
                except (ValueError, RecursionError):
                    raise ProtocolError(f"{what}: what came is no stream of JSON: {body[:100]!r}") from None
                if lines and not isinstance(lines[-1], dict):
                    raise ProtocolError(f"{what}: what came is no stream of objects: {body[:100]!r}")
                if b'"error":' in body:
                    last = lines[-1].get("error") if lines else None
                    if isinstance(last, dict):
                        raise error_of(last, answer.headers.get("X-Request-Id"))
                    checked(lines)
            if lines and "end" in lines[-1]:
                return lines
            cut = StreamCut(f"{what}: the stream has no end line", may_have_happened=True)
            cut.server = self.server
            self._pause(cut, call.repeatable, attempt)
            attempt += 1
