"""Values under integer keys."""
from __future__ import annotations

from itertools import islice
from typing import AsyncIterator, Iterable, Optional

from ..errors import NotFound
from ..types import Value, value_of
from ..wire import RAW, Call, checked_key, checked_value
from .transport import AsyncTransport

MAX_KEYS = 1000  # of one GET /kv?keys=


class AsyncValues(AsyncTransport):
    async def insert(self, value: bytes) -> int:
        """Stores a value under a new key. Not sent again after a lost connection: it may have happened."""
        call = Call("POST", "/kv", self._params(), checked_value(value), RAW, repeatable=False)
        return int((await self._json(call))["key"])

    async def read(self, key: int) -> bytes:
        """The value of a key; NotFound if there is none."""
        return (await self._send(Call("GET", f"/kv/{checked_key(key)}", self._params(), accept=RAW))).content

    async def get(self, key: int, default: Optional[bytes] = None) -> Optional[bytes]:
        """The value of a key, or the default."""
        try:
            return await self.read(key)
        except NotFound as error:
            if error.code != "key_not_found":
                raise
            return default

    async def read_many(self, keys: Iterable[int]) -> AsyncIterator[Value]:
        """The values of any number of keys, in their order; a key without one comes with value None."""
        rest = iter(keys)
        while True:
            asked = [checked_key(key) for key in islice(rest, MAX_KEYS)]
            if not asked:
                return
            lines, _ = await self._collect(Call("GET", "/kv", self._shown(keys=",".join(map(str, asked)))))
            for line in lines:
                yield value_of(line)

    async def edit(self, key: int, value: bytes) -> None:
        """Replaces the value of a key, by one of any length; NotFound if there is none."""
        await self._json(Call("PUT", f"/kv/{checked_key(key)}", self._params(), checked_value(value), RAW))

    async def delete(self, key: int) -> None:
        """Deletes a value; NotFound if there is none. The key is never given out again."""
        await self._send(Call("DELETE", f"/kv/{checked_key(key)}", self._params(), gone_is_done=True))

    async def values(
        self,
        *,
        after: Optional[int] = None,
        limit: Optional[int] = None,
        size: Optional[int] = None,
        payloads: bool = True,
        page_size: int = 2000,
    ) -> AsyncIterator[Value]:
        """All values in ascending key order: after the key `after`, at most `limit`, only those of `size` bytes. Pages by
        itself, and goes on by itself after a lost connection."""
        params = self._shown(size=size, values=payloads)
        async for line in self._scan("/kv", params, after, limit, page_size):
            yield value_of(line)
