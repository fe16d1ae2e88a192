# Made by unasync.py from _async/values.py; change that.
"""Values under integer keys."""
from __future__ import annotations

from itertools import islice
from typing import Iterator, Iterable, List, Optional, Sequence

from ..errors import NotFound
from ..types import Tagged, NewValues, Value, value_of
from ..wire import RAW, Call, checked_conditions, checked_key, checked_value
from .transport import Transport

MAX_KEYS = 1000  # of one GET /kv?keys=


class Values(Transport):
    def insert(self, value: bytes) -> int:
        """Stores a value under a new key. Not sent again after a lost connection: it may have happened."""
        call = Call("POST", "/kv", self._params(), checked_value(value), RAW, repeatable=False)
        return int((self._json(call))["key"])

    def read(self, key: int) -> bytes:
        """The value of a key; NotFound if there is none."""
        return (self._send(Call("GET", f"/kv/{checked_key(key)}", self._params(), accept=RAW))).content

    def read_tagged(self, key: int) -> Tagged:
        """The value of a key, and its tag for if_match; NotFound if there is none."""
        answer = self._send(Call("GET", f"/kv/{checked_key(key)}", self._params(), accept=RAW))
        return Tagged(answer.content, str(answer.headers.get("ETag")))

    def get(self, key: int, default: Optional[bytes] = None) -> Optional[bytes]:
        """The value of a key, or the default."""
        try:
            return self.read(key)
        except NotFound as error:
            if error.code != "key_not_found":
                raise
            return default

    def read_many(self, keys: Iterable[int]) -> Iterator[Value]:
        """The values of any number of keys, in their order; a key without one comes with value None."""
        rest = iter(keys)
        while True:
            asked = [checked_key(key) for key in islice(rest, MAX_KEYS)]
            if not asked:
                return
            lines, _ = self._collect(Call("GET", "/kv", self._shown(keys=",".join(map(str, asked)))))
            for line in lines:
                yield value_of(line)

    def edit(self, key: int, value: bytes, *, if_match: Optional[str] = None) -> Optional[str]:
        """Replaces the value of a key, by one of any length; NotFound if there is none. if_match: only if the value has this tag
        (read_tagged(), or of an earlier edit; `*`: any), else PreconditionFailed; gives the new tag. With it the call is not
        sent again after a lost connection."""
        conditions = checked_conditions(False, if_match)
        call = Call("PUT", f"/kv/{checked_key(key)}", self._params(), checked_value(value), RAW)
        tag = (self._send(call.under(conditions))).headers.get("ETag")
        return None if tag is None else str(tag)

    def delete(self, key: int, *, if_match: Optional[str] = None) -> None:
        """Deletes a value; NotFound if there is none. The key is never given out again. if_match as of edit."""
        conditions = checked_conditions(False, if_match)
        call = Call("DELETE", f"/kv/{checked_key(key)}", self._params(), gone_is_done=True)
        self._send(call.under(conditions))

    def values(
        self,
        *,
        after: Optional[int] = None,
        limit: Optional[int] = None,
        size: Optional[int] = None,
        payloads: bool = True,
        page_size: int = 2000,
    ) -> Iterator[Value]:
        """All values in ascending key order: after the key `after`, at most `limit`, only those of `size` bytes. Pages by
        itself, and goes on by itself after a lost connection."""
        params = self._shown(size=size, values=payloads)
        for line in self._scan("/kv", params, after, limit, page_size):
            yield value_of(line)

    def new_values(self, cursor: Sequence[int] = (), *, payloads: bool = True) -> NewValues:
        """The values that were inserted since the call that gave this cursor (without one: all), each once, whatever order their keys were given
        out in. Replaced values are not new. A cursor is a key, and then the keys after it that have been seen already."""
        after = cursor[0] if cursor else 0
        seen = set(cursor[1:])
        stable = int((self._json(Call("GET", f"/databases/{self.database}")))["next_key"])
        values: List[Value] = []
        ahead: List[int] = []
        for value in self.values(after=after, payloads=payloads):
            if value.key in seen:
                continue
            if value.key < stable:
                values.append(value)
            else:
                ahead.append(value.key)
        for value in self.read_many(ahead):  # a sweep may be ahead of the disk, these are not: their keys are never given out again
            if value.size is not None:
                values.append(value if payloads else Value(value.key, value.size, None))
                seen.add(value.key)
        return NewValues(values, [max(after, stable - 1), *sorted(key for key in seen if key >= stable)])
