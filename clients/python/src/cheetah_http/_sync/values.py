# Made by unasync.py from _async/values.py; change that.
"""Values under integer keys."""
from __future__ import annotations

from itertools import islice
from typing import Iterator, Iterable, Optional

from ..errors import NotFound
from ..types import Value, value_of
from ..wire import RAW, Call, checked_key, checked_value
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

    def edit(self, key: int, value: bytes) -> None:
        """Replaces the value of a key, by one of any length; NotFound if there is none."""
        self._json(Call("PUT", f"/kv/{checked_key(key)}", self._params(), checked_value(value), RAW))

    def delete(self, key: int) -> None:
        """Deletes a value; NotFound if there is none. The key is never given out again."""
        self._send(Call("DELETE", f"/kv/{checked_key(key)}", self._params(), gone_is_done=True))

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
