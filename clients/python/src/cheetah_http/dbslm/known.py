"""The contexts that a hot path knows: their tokens by their hashes, in bounded memory."""
from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from typing import Iterable, Optional, Sequence, Tuple

from .. import payloads

COST = 200  # bytes of an entry beside its tokens: the hash, the two objects, the place in the table


class KnownContexts:
    """Tokens by hash, the least recently used thrown out beyond `size` bytes. Several threads may share one.

    filled      all contexts of the server have been read once
    complete    and all of them are here: a context that is not here is not registered
    """

    def __init__(self, size: int) -> None:
        self._most, self._bytes = size, 0
        self._thrown_out = 0  # how many were
        self._lock = threading.Lock()
        self._tokens: "OrderedDict[str, Tuple[bytes, bool]]" = OrderedDict()  # packed tokens, published by this program
        self.filled = self.complete = False

    def published(self, context_hash: str) -> bool:
        """Was it published by this program? Asked for every window of a text, so without the lock: one look."""
        found = self._tokens.get(context_hash)
        return found is not None and found[1]

    def tokens(self, context_hash: str) -> Optional[Tuple[int, ...]]:
        with self._lock:
            found = self._tokens.get(context_hash)
            if found is None:
                return None
            self._tokens.move_to_end(context_hash)
        return struct.unpack(f">{len(found[0]) // 4}I", found[0])

    def add(self, context_hash: str, tokens: Sequence[int], published: bool = False) -> None:
        packed = struct.pack(f">{len(tokens)}I", *tokens)
        with self._lock:
            old = self._tokens.pop(context_hash, None)
            self._bytes += COST + len(packed) - (0 if old is None else COST + len(old[0]))
            self._tokens[context_hash] = (packed, published or (old is not None and old[1]))
            while self._bytes > self._most and len(self._tokens) > 1:
                _, (gone, _) = self._tokens.popitem(last=False)
                self._bytes -= COST + len(gone)
                self._thrown_out += 1
                self.complete = False

    def fill(self, contexts: Iterable[Tuple[str, bytes]]) -> None:
        """Takes in all contexts of the server: (hash, ctx: payload)."""
        before = self._thrown_out
        for context_hash, payload in contexts:
            try:
                self.add(context_hash, payloads.decode_context(payload).tokens)
            except payloads.MalformedPayload:
                continue
        with self._lock:
            self.complete = self._thrown_out == before
        self.filled = True
