"""The hot path of a DB-SLM whose level 1 lives in the engine: metadata, scans and context relativism."""
from __future__ import annotations

from typing import Any, Iterable, List, Optional, Sequence, Tuple

from .._sync.client import Client
from ..errors import CheetahError
from .adapter import CheetahHotPathAdapter
from .level2 import Tables
from .points import PointReader
from .types import RawContextProjection


class HotPath(CheetahHotPathAdapter):
    """What db_slm calls its hot path. The engine counts and smooths, so nothing is published through it. It gets its database
    when level 1 is made (bind), for the SQLite file says which that is; until then nothing is known, and what is written waits."""

    _publishes = False

    def __init__(
        self, client: Client, database: Optional[str], base: str, token: Optional[str], level2: bool = False
    ) -> None:
        super().__init__(client, description=f"cheetah-db:{client.url}")
        self.client, self.token = client, token
        self.named, self.base, self.level2 = database, base, level2
        self._bound = False
        self._points: Optional[PointReader] = None
        self._early: List[Tuple[str, str]] = []
        self.tables: Optional[Tables] = None  # of levels 2 and 3, where they are in the engine

    def bind(self, client: Client, points: PointReader) -> None:
        """From here on this is the hot path of one database."""
        self.client = self._client = self._db = client
        self._points = points
        self._buffer._client = client
        self._description = f"cheetah-db:{client.url}/{client.database}"
        self._bound, early, self._early = True, self._early, []
        self._meta.clear()
        for key, value in early:
            self.write_metadata(key, value)

    def give_up(self) -> None:
        """Level 1 is not in the engine, or not any more: nothing is asked or written from here on, and what waited is dropped."""
        self._enabled = False
        self._buffer.drop()
        with self._buffer._sending:  # what is on its way has arrived
            pass

    # ---- metadata

    def read_metadata(self, key: str) -> Optional[str]:
        if not self._bound:
            return dict(self._early).get(key)
        return super().read_metadata(key)

    def write_metadata(self, key: str, value: str) -> None:
        if self._bound:
            super().write_metadata(key, value)
        elif self._enabled:
            self._early.append((key, value))

    def _read(self, pair: bytes) -> Optional[bytes]:
        points, waiting = self._points, self._buffer.waiting(pair)
        if waiting is not None or points is None:
            return waiting
        value = points.value
        found: Optional[bytes] = self._answer(lambda: value(pair))
        return found

    # ---- level 1 is in the engine already: nothing to publish

    def publish_context(self, context_hash: str, order_size: int, token_ids: Sequence[int]) -> None:
        return None

    def publish_counts(self, order: int, context_hash: str, followers: Sequence[Tuple[int, int]]) -> None:
        return None

    def publish_probabilities(
        self, order: int, context_hash: str, entries: Sequence[Tuple[int, int, Optional[int]]]
    ) -> None:
        return None

    def publish_topk(self, order: int, context_hash: str, ranked: Sequence[Tuple[int, int]]) -> None:
        return None

    def publish_continuations(self, entries: Sequence[Tuple[int, int]]) -> None:
        return None

    # ---- reading

    def context_relativism(
        self, context_tree: Any, *, limit: int = 32, depth: Optional[int] = None
    ) -> List[RawContextProjection]:
        return super().context_relativism(context_tree, limit=limit, depth=depth) if self._bound else []

    def scan_namespace(self, namespace: str, *, prefix: bytes = b"", limit: int = 0) -> Iterable[Tuple[bytes, int]]:
        return super().scan_namespace(namespace, prefix=prefix, limit=limit) if self._bound else []

    def close(self) -> None:
        if self._bound:
            super().close()


class ModelMismatch(CheetahError):
    """The database of the engine and the SQLite file belong to different models, or to different moments of one."""
