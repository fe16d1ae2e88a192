# Made by unasync.py from _async/pairs.py; change that.
"""Byte strings that lead to keys."""
from __future__ import annotations

from itertools import islice
from typing import Iterator, Iterable, List, Optional

from ..errors import NotFound, ProtocolError
from ..types import Child, Deleted, Found, Pair, Stored, found_of, pair_of, stored_of
from ..wire import (
    RAW, Call, b64, body_of, checked_conditions, checked_key, checked_pair, checked_ttl, checked_value, dump, name_of, url_bytes,
)  # fmt: skip
from .transport import Transport

MAX_NAMES = 10_000  # of one POST /pairs
MAX_NAME_BYTES = 8 << 20  # likewise, of ours


def _path(pair: bytes) -> str:
    return "/pairs/" + url_bytes(checked_pair(pair))


class Pairs(Transport):
    def pair_set(
        self, pair: bytes, key: int, *, if_absent: bool = False, if_match: Optional[str] = None
    ) -> bool:
        """Maps a pair to a key (which need not have a value yet). True: the pair is new. Conditions as of pair_put."""
        body, conditions = dump({"key": checked_key(key)}), checked_conditions(if_absent, if_match)
        call = Call("PUT", _path(pair), self._params(), body, "application/json")
        answer = self._send(call.under(conditions))
        return answer.status_code == 201

    def pair_put(
        self,
        pair: bytes,
        value: bytes,
        *,
        ttl: Optional[float] = None,
        if_absent: bool = False,
        if_match: Optional[str] = None,
    ) -> Stored:
        """Stores a value under a pair, in one commit: replaces that of the key it leads to, or inserts and maps. if_absent: only
        if there is no such pair; if_match: only if it has this tag (pair(...).etag, or of an earlier write; `*`: any). Else
        PreconditionFailed, and nothing is changed. With a condition it is not sent again after a lost connection.
        ttl: the pair and its value end after that many seconds; without it the pair lasts, also if it was to end."""
        conditions = checked_conditions(if_absent, if_match)
        seconds = None if checked_ttl(ttl) is None else f"{ttl:.3f}"
        call = Call("PUT", _path(pair), self._params(ttl=seconds), checked_value(value), RAW)
        answer = self._send(call.under(conditions))
        return stored_of(int(body_of(answer)["key"]), answer.status_code == 201, answer.headers.get("ETag"))

    def pair_get(self, pair: bytes, default: Optional[int] = None) -> Optional[int]:
        """The key that a pair leads to, or the default."""
        found = self.pair(pair, values=False)
        return default if found is None else found.key

    def pair_value(self, pair: bytes, default: Optional[bytes] = None) -> Optional[bytes]:
        """The value that a pair leads to, in one request; the default if there is no pair or no value."""
        try:
            return (self._send(Call("GET", _path(pair), self._params(exact=True), accept=RAW))).content
        except NotFound as error:
            if error.code not in ("pair_not_found", "key_not_found"):
                raise
            return default

    def pair(self, pair: bytes, *, values: bool = True) -> Optional[Found]:
        """A mapping with its value and its tag; None if there is no such pair."""
        params = self._shown(exact=True, values=values)
        try:
            answer = self._send(Call("GET", _path(pair), params))
            return found_of(body_of(answer), answer.headers.get("ETag"))
        except NotFound as error:
            if error.code != "pair_not_found":
                raise
            return None

    def pair_many(
        self, pairs: Iterable[bytes], *, values: bool = True, etags: bool = False
    ) -> Iterator[Optional[Found]]:
        """Any number of mappings by name, some thousand a request, in the order asked; None for a name that is not mapped. etags: with
        the tags of the values, for if_match."""
        rest = iter(pairs)
        last: Optional[bytes] = None
        while True:
            names: List[str] = [] if last is None else [b64(last)]
            size = len(last or b"")
            last = None
            for name in islice(rest, MAX_NAMES - len(names)):
                size += len(checked_pair(name))
                if size > MAX_NAME_BYTES:
                    last = name
                    break
                names.append(b64(name))
            if not names:
                return
            params = self._shown(values=values or None, etags=etags or None)
            call = Call("POST", "/pairs", params, dump({"pairs": names}), "application/json")
            lines, _ = self._collect(call)
            if len(lines) != len(names):
                raise ProtocolError(f"{len(names)} names were answered by {len(lines)} lines")
            for line in lines:
                yield None if line.get("error") == "pair_not_found" else found_of(line, None)

    def pair_delete(self, pair: bytes, *, values: bool = False, if_match: Optional[str] = None) -> None:
        """Unmaps a pair, with values=True its value too; NotFound if there is none. if_match as of pair_put."""
        conditions = checked_conditions(False, if_match)
        call = Call("DELETE", _path(pair), self._params(values=values), gone_is_done=True)
        self._send(call.under(conditions))

    def delete_prefix(self, prefix: bytes, *, values: bool = False) -> Deleted:
        """Unmaps everything under a prefix. After a lost connection the numbers are those of the last attempt."""
        params = self._params(recursive=True, values=values)
        answer = self._json(Call("DELETE", "/pairs/" + url_bytes(prefix), params))
        return Deleted(answer["pairs_deleted"], answer["values_deleted"])

    def count(self, prefix: bytes = b"") -> int:
        """How many pairs lie under a prefix, without scanning them."""
        return int((self._json(Call("GET", "/pairs/" + url_bytes(prefix), self._params(count=True))))["pairs"])

    def pairs(
        self,
        prefix: bytes = b"",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        values: bool = False,
        reverse: bool = False,
        etags: bool = False,
        expires: bool = False,
        page_size: int = 5000,
    ) -> Iterator[Pair]:
        """All pairs under a prefix in byte order (reverse=True: descending), after `after` and before `until`, both
        exclusive. Pages by itself, and goes on after the last pair after a lost connection: nothing twice, nothing left
        out. etags (with values), expires: each is a Found, with its tag for if_match, and when it ends."""
        params = self._shown(
            until=None if until is None else url_bytes(until),
            values=values or None,
            reverse=reverse or None,
            etags=etags or None,
            expires=expires or None,
        )
        start = None if after is None else url_bytes(after)
        for line in self._scan("/pairs/" + url_bytes(prefix), params, start, limit, page_size):
            yield found_of(line, None) if etags or expires else pair_of(line)

    def children(
        self,
        prefix: bytes = b"",
        *,
        separator: Optional[bytes] = None,
        after: Optional[bytes] = None,
        limit: Optional[int] = None,
        page_size: int = 1000,
    ) -> Iterator[Child]:
        """One level of the names under a prefix, in byte order, with how many pairs lie below each: grouped by the first
        separator after the prefix, or by the next byte. The time is that of the children, not of the pairs."""
        params = self._shown(children=True, separator=None if separator is None else url_bytes(separator))
        start = None if after is None else url_bytes(after)
        for line in self._scan("/pairs/" + url_bytes(prefix), params, start, limit, page_size):
            if "pairs" in line:
                yield Child(name_of(line), int(line["pairs"]))
            else:
                yield Child(name_of(line), 1, int(line["key"]))
