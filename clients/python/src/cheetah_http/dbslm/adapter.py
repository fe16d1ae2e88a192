"""The hot path of DB-SLM on cheetah-db: publishing in batches, reading with server-side procedures."""
from __future__ import annotations

import logging
import time
import weakref
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple, Union

from .._sync.client import Client
from ..errors import APIError, CheetahError
from ..types import Counted, Progress, Row, Smoothed
from ..retry import Retry
from .buffer import WriteBuffer
from .client import CheetahClient
from .known import KnownContexts
from .types import (
    ROOT, AbsoluteVectorOrder, CheetahSerializer, HotPathAdapter, NamespaceSummary, PredictionQueryResult,
    PredictionValueResult, RawContextProjection,
    RawContinuationProjection, RawCountsProjection, RawProbabilityProjection, hash_of, pair_name,
)  # fmt: skip

logger = logging.getLogger(__name__)
PAGE = 2048


PROBE_SECONDS = 5.0  # after which a server that does not answer is none
ABSENT_SECONDS = 2.0  # for which an absent metadata entry is not asked for again
META_MAX = 10_000  # metadata entries that are remembered


class CheetahHotPathAdapter:
    """Publishes contexts, counts, probabilities, continuations and best followers, and reads them back.

    What is published is collected and sent in batches: at `batch_rows` rows or `batch_bytes` bytes, `flush_seconds` after
    the first that waits, before anything that scans, by flush() and close(), and at the end of the program. A read sees
    what this adapter has published before, sent or not. Several threads may share one.

    client or client_factory    a CheetahClient or a cheetah_http.Client
    cache_bytes                 memory for contexts that are remembered: not sent again, and answered without a request
    optional                    True: a failure is logged and switches the adapter off, as db_slm's own does: nothing is sent
                                twice, and no publisher waits for the server; by default it is raised, and what could not be
                                sent is sent with the next flush
    """

    _publishes = True  # contexts and best followers come through here: they are sent before they are looked for

    def __init__(
        self,
        client: Union[CheetahClient, Client, None] = None,
        *,
        client_factory: Optional[Callable[[], CheetahClient]] = None,
        cache_bytes: int = 64 << 20,
        serializer: Optional[CheetahSerializer] = None,
        description: Optional[str] = None,
        batch_rows: int = 5000,
        batch_bytes: int = 8 << 20,
        flush_seconds: float = 1.0,
        optional: bool = False,
    ) -> None:
        if client is None:
            if client_factory is None:
                raise ValueError("Provide either client or client_factory.")
            client = client_factory()
        self._client = client
        self._db = client.db if isinstance(client, CheetahClient) else client
        if optional:
            self._db = self._db.on(self._db.database)
            self._db._retry = Retry(attempts=0)
        self._serializer = serializer or CheetahSerializer()
        self._vectors = AbsoluteVectorOrder()
        self._description = description or f"cheetah-db:{self._db.url}/{self._db.database}"
        self._known = KnownContexts(cache_bytes)
        self._fresh: Set[int] = set()  # orders whose counts here are not older than the contexts: see iter_counts
        self._meta: Dict[str, Tuple[Optional[str], float]] = {}  # what was written; None: absent, and when that was seen
        self._optional, self._enabled = optional, True
        tell = _teller(weakref.ref(self)) if optional else None
        self._buffer = WriteBuffer(self._db, batch_rows, batch_bytes, flush_seconds, tell)
        weakref.finalize(self, self._buffer.close)  # also at the end of the program
        self._topk_total = self._topk_hits = 0

    # ---- publishing

    def publish_context(self, context_hash: str, order_size: int, token_ids: Sequence[int]) -> None:
        """Registers a context under ctx: and, for context_relativism, ctxv:. Whoever calls this has just counted something
        that follows the context: counts of it that were published before are out of date (iter_counts)."""
        self._fresh.discard(order_size + 1)
        if not self._enabled or self._known.published(context_hash):
            return
        payload = self._serializer.encode_context(order_size, token_ids)
        vector = b"ctxv:" + self._vectors.encode_tokens(token_ids) if token_ids else None
        self._write(lambda: self._buffer.put_context(pair_name("ctx", context_hash), payload, vector))
        self._known.add(context_hash, token_ids, published=True)

    def publish_contexts(self, entries: Sequence[Tuple[str, int, Sequence[int]]]) -> None:
        """Many contexts: (hash, order size, tokens)."""
        for context_hash, order_size, token_ids in entries:
            self.publish_context(context_hash, order_size, token_ids)

    def publish_counts_batch(self, order: int, entries: Sequence[Tuple[str, Sequence[Tuple[int, int]]]]) -> None:
        """The counts of many contexts: (hash, followers)."""
        for context_hash, followers in entries:
            self.publish_counts(order, context_hash, followers)

    def publish_probabilities_batch(
        self, order: int, contexts: Sequence[Tuple[str, Sequence[Tuple[int, int, Optional[int]]]]]
    ) -> None:
        """The probabilities of many contexts: (hash, entries)."""
        for context_hash, entries in contexts:
            self.publish_probabilities(order, context_hash, entries)

    def publish_topk_batch(self, order: int, entries: Sequence[Tuple[str, Sequence[Tuple[int, int]]]]) -> None:
        """The best followers of many contexts: (hash, ranked)."""
        for context_hash, ranked in entries:
            self.publish_topk(order, context_hash, ranked)

    def flush_pending(self) -> None:
        """The same as flush()."""
        self.flush()

    def publish_counts(self, order: int, context_hash: str, followers: Sequence[Tuple[int, int]]) -> None:
        """Stores (token, count) of a context; any number of them."""
        self._fresh.add(order)
        if followers:
            self._put(f"cnt:{order}", context_hash, self._serializer.encode_counts(order, followers))

    def publish_probabilities(
        self, order: int, context_hash: str, entries: Sequence[Tuple[int, int, Optional[int]]]
    ) -> None:
        """Stores (token, q, back-off weight or None) of a context."""
        if entries:
            self._put(f"prob:{order}", context_hash, self._serializer.encode_probabilities(order, entries))

    def publish_topk(self, order: int, context_hash: str, ranked: Sequence[Tuple[int, int]]) -> None:
        """Stores (token, q) of a context, best first; the first 32."""
        if ranked:
            self._put(f"topk:{order}", context_hash, self._serializer.encode_topk(order, ranked))

    def publish_continuations(self, entries: Sequence[Tuple[int, int]]) -> None:
        """Stores for each (token, contexts) in how many contexts the token occurs."""
        for token_id, num_contexts in entries:
            payload = self._serializer.encode_continuation(token_id, num_contexts)
            self._put("cont", f"{token_id:08x}", payload)

    def write_metadata(self, key: str, value: str) -> None:
        """Stores a text (JSON, by custom) under meta:."""
        if not value:
            raise ValueError("metadata must not be empty")
        self._write(lambda: self._buffer.put(b"meta:" + key.encode(), value.encode()))
        self._remember(key, value)

    def flush(self) -> None:
        """Sends what waits; durable when this returns."""
        self._write(self._buffer.flush)

    def close(self) -> None:
        """Sends what waits; the client stays open."""
        self.flush()

    def __enter__(self) -> "CheetahHotPathAdapter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- reading

    def fetch_topk(self, order: int, context_hash: str, limit: int) -> Optional[List[Tuple[int, int]]]:
        """(token, q), best first; None where nothing is known of the context. One request."""
        if not self._enabled:
            return None
        self._topk_total += 1
        payload = self._read(pair_name(f"topk:{order}", context_hash))
        record = None if payload is None else self._serializer.decode_topk(payload)
        if record is None or record.order != order:
            return None
        self._topk_hits += 1
        return record.ranked[:limit]

    def fetch_context_tokens(self, context_hash: str) -> Optional[Sequence[int]]:
        """The tokens of a context; None where it is not registered. Contexts that are not known here yet are fetched all at
        once, when the first of them is asked for."""
        if context_hash == ROOT:
            return []
        tokens = self._known.tokens(context_hash)
        if tokens is None and self._enabled and not self._known.filled:
            self._known.fill((hash_of(name), payload) for name, payload in self._payloads("contexts", "ctx:"))
            tokens = self._known.tokens(context_hash)
        if tokens is not None or self._known.complete or not self._enabled:
            return None if tokens is None else list(tokens)
        payload = self._read(pair_name("ctx", context_hash))
        record = None if payload is None else self._serializer.decode_context(payload)
        return None if record is None else list(record.token_ids)

    def read_metadata(self, key: str) -> Optional[str]:
        """A text that was stored under meta:. What this adapter wrote is not asked for, nor, for two seconds, what is absent."""
        text, seen = self._meta.get(key, (None, -ABSENT_SECONDS))
        if text is not None or time.monotonic() - seen < ABSENT_SECONDS:
            return text
        payload = self._read(b"meta:" + key.encode())
        if payload is None:
            self._remember(key, None)
            return None
        return payload.decode("utf-8", "replace")

    def _remember(self, key: str, value: Optional[str]) -> None:
        if len(self._meta) >= META_MAX:
            self._meta.clear()
        self._meta[key] = (value, time.monotonic())

    def scan_namespace(self, namespace: str, *, prefix: bytes = b"", limit: int = 0) -> Iterable[Tuple[bytes, int]]:
        """(name without the namespace, key) in byte order; limit 0: all."""
        start = namespace.encode() + b":"
        rows = self._rows(lambda: self._db.pairs(start + prefix, limit=limit if limit > 0 else None))
        return [(row.pair[len(start) :], row.key) for row in rows]

    def iter_counts(self, order: int) -> Iterator[RawCountsProjection]:
        """All counts of an order, read as they are asked for. Nothing, where they may be older than what was counted: after a
        context of that order was published, and in a new program, until the counts of that order are published (or counted
        here, by ingest). A smoother that gets nothing takes its own."""
        if order not in self._fresh:
            return
        for name, payload in self._payloads("counts", f"cnt:{order}:"):
            record = self._serializer.decode_counts(payload)
            if record is None or record.order != order:
                logger.warning("cheetah-db: malformed counts of order %d under %s", order, hash_of(name))
                continue
            totals = sum(count for _, count in record.followers)
            yield RawCountsProjection(hash_of(name), order, totals, record.followers)

    def iter_probabilities(self, order: int) -> Iterator[RawProbabilityProjection]:
        """All probabilities of an order, read as they are asked for."""
        for name, payload in self._payloads("probabilities", f"prob:{order}:"):
            record = self._serializer.decode_probabilities(payload)
            if record is None or record.order != order:
                logger.warning("cheetah-db: malformed probabilities of order %d under %s", order, hash_of(name))
                continue
            yield RawProbabilityProjection(hash_of(name), order, record.entries)

    def iter_continuations(self) -> Iterator[RawContinuationProjection]:
        for name, payload in self._payloads("continuations", "cont:"):
            record = self._serializer.decode_continuation(payload)
            if record is None:
                logger.warning("cheetah-db: malformed continuation of token %s", name.hex())
                continue
            yield RawContinuationProjection(record.token_id, record.num_contexts)

    def context_relativism(
        self, context_tree: Any, *, limit: int = 32, depth: Optional[int] = None
    ) -> List[RawContextProjection]:
        """The contexts that start with a tree of tokens, and what follows them: one request. A tree that has no encoding
        has no contexts (it is logged)."""

        def ask() -> List[RawContextProjection]:
            if self._publishes:
                self._buffer.flush()
            found = self._db.contexts(context_tree, limit=limit if limit > 0 else None, depth=depth)
            return [
                RawContextProjection(m.hash, m.order_size, m.tokens, m.ranked, m.key, m.vector) for m in found
            ]

        try:
            return self._answer(ask) or []
        except APIError as error:
            if error.code not in ("invalid_tree", "invalid_body"):
                raise
            logger.warning("cheetah-db: no context tree: %s", error.detail)
            return []

    def topk_hit_ratio(self) -> float:
        """The part of the calls of fetch_topk that found something, 0 to 1."""
        return self._topk_hits / self._topk_total if self._topk_total else 0.0

    def describe(self) -> str:
        return self._description

    # ---- whole steps of a training run inside the server

    def ingest(self, documents: Iterable[Sequence[int]], *, order: int = 3) -> Counted:
        """Counts the n-grams of documents (token lists) in the server, a request for some megabytes of them; in place of
        publish_context and publish_counts. Returns the sums."""
        self.flush()
        counted = self._db.ingest(documents, order=order)
        self._fresh.update(range(1, order + 1))
        return counted

    def smooth(
        self,
        *,
        orders: Union[str, int, None] = None,
        topk: Optional[int] = None,
        progress: Optional[Callable[[Progress], None]] = None,
    ) -> List[Smoothed]:
        """Computes probabilities, continuations and best followers from the counts in the server: one request; in place of
        iter_counts, publish_probabilities, publish_topk and publish_continuations."""
        self.flush()
        return self._db.smooth(orders=orders, topk=topk, progress=progress)

    # ---- what db_slm asks of its own engine beside; "not known" and "not done" are answers

    def predict_query(
        self,
        *,
        key: Union[bytes, str, None] = None,
        keys: Optional[Sequence[Union[bytes, str]]] = None,
        context_matrix: Any = None,
        windows: Any = None,
        key_windows: Any = None,
        merge_mode: Optional[str] = None,
        table: Optional[str] = None,
    ) -> Optional[PredictionQueryResult]:
        """The values of a key, or of several, and their probabilities in a context; None if nothing is known of them. windows and
        key_windows add one number to all scores, which changes nothing."""
        asked = [_bytes(one) for one in (keys or ([key] if key else []))]
        if not asked:
            return None

        def ask() -> Optional[PredictionQueryResult]:
            try:
                found = self._db.table_query(table or "", asked, ctx=_matrix(context_matrix), merge=merge_mode or "avg")
            except APIError as error:
                if error.code == "prediction_entry_not_found":
                    return None
                raise
            entries = tuple(PredictionValueResult(one.value, one.p) for one in found)
            return PredictionQueryResult(table or "<unknown>", "cpu", len(entries), entries)

        result: Optional[PredictionQueryResult] = self._answer(ask)
        return result

    def predict_set(
        self,
        *,
        key: Union[bytes, str],
        value: Union[bytes, str],
        probability: float = 0.5,
        table: Optional[str] = None,
        weights: Optional[Sequence[Dict[str, Any]]] = None,
    ) -> bool:
        """Gives a value this score and these weights."""
        return self._learn(
            lambda: self._db.table_set(table or "", _bytes(key), _bytes(value), prob=probability, weights=weights)
        )

    def predict_train(
        self,
        *,
        key: Union[bytes, str],
        target: Union[bytes, str],
        context_matrix: Any = None,
        learning_rate: float = 0.01,
        table: Optional[str] = None,
        negatives: Optional[Sequence[Union[bytes, str]]] = None,
    ) -> bool:
        """One step of training; False if the key is not there."""
        rate = learning_rate if learning_rate > 0 else 0.01
        others = [_bytes(one) for one in negatives or ()]
        return self._learn(
            lambda: self._db.table_train(
                table or "", _bytes(key), _bytes(target), ctx=_matrix(context_matrix), rate=rate, negatives=others
            )
        )

    def predict_inherit(
        self,
        *,
        key: Union[bytes, str],
        target: Union[bytes, str],
        sources: Sequence[Union[bytes, str]],
        table: Optional[str] = None,
        merge_mode: Optional[str] = None,
    ) -> bool:
        """The target becomes the mean of the sources; False if none of them is there."""
        item = {"target": target, "sources": sources}
        return self.predict_inherit_batch(key=key, items=[item], table=table, merge_mode=merge_mode)

    def predict_inherit_batch(
        self,
        *,
        key: Union[bytes, str],
        items: Sequence[Dict[str, Any]],
        table: Optional[str] = None,
        merge_mode: Optional[str] = None,
    ) -> bool:
        """Many of these in one request; False if none of them was made."""
        name = _bytes(key)
        listed = [
            (name, _bytes(item["target"]), [_bytes(one) for one in item["sources"]])
            for item in items or []
            if item and item.get("target") and item.get("sources")
        ]
        if not listed:
            return False
        merged = 0

        def inherit() -> None:
            nonlocal merged
            merged = self._db.table_inherit(table or "", listed, merge=merge_mode or "avg").merged

        return self._learn(inherit) and merged > 0

    def _learn(self, call: Callable[[], Any]) -> bool:
        """Whether it was done; a key that is not there is no failure of the server."""

        def attempt() -> bool:
            try:
                call()
            except APIError as error:
                if error.code not in ("prediction_entry_not_found", "invalid_number", "invalid_body"):
                    raise
                logger.warning("cheetah-db: a prediction was not learned: %s", error.detail)
                return False
            return True

        return bool(self._answer(attempt))

    def namespace_summary(
        self, prefix: bytes, *, depth: int = 1, branch_limit: int = 32
    ) -> Optional[NamespaceSummary]:
        """How many pairs lie under a prefix, and the sizes of their payloads; without keys, depths and branches."""

        def ask() -> NamespaceSummary:
            self._buffer.flush()
            found = self._db.stats(prefix)
            alone = len(prefix) > 0 and self._db.pair_get(prefix) is not None
            return NamespaceSummary(
                prefix, found.pairs, found.bytes, found.min or 0, found.max or 0, None, None, 0, alone, ()
            )

        summary: Optional[NamespaceSummary] = self._answer(ask)
        return summary

    def system_stats(self) -> None:
        """Not over HTTP: see /metrics."""
        return None

    # ---- inside

    def _put(self, namespace: str, context_hash: str, payload: bytes) -> None:
        if self._enabled:
            try:
                self._buffer.put(pair_name(namespace, context_hash), payload)
            except CheetahError as error:
                self._failed(error)

    def _write(self, write: Callable[[], None]) -> None:
        self._answer(write)

    def _read(self, pair: bytes) -> Optional[bytes]:
        waiting = self._buffer.waiting(pair)
        return waiting if waiting is not None else self._answer(lambda: self._db.pair_value(pair))

    def _answer(self, call: Callable[[], Any]) -> Any:
        """The result of a call; None where the adapter is off or the database does not exist yet."""
        if not self._enabled:
            return None
        try:
            return call()
        except CheetahError as error:
            self._failed(error)
            return None

    def _failed(self, error: CheetahError) -> None:
        """Raises, or switches the adapter off; a database that is not there yet is an empty one."""
        if isinstance(error, APIError) and error.code == "database_not_found":
            return
        if not self._optional or isinstance(error, APIError) and error.status == 400:
            raise error
        self._switch_off(error)

    def _switch_off(self, error: CheetahError) -> None:
        if self._enabled:
            logger.warning("cheetah-db: the hot path is switched off: %s", error)
        self._enabled = False

    def _rows(self, scan: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        if not self._enabled:
            return
        try:
            self._buffer.flush()
            yield from scan()
        except CheetahError as error:
            self._failed(error)

    def _payloads(self, mode: str, prefix: str) -> Iterator[Tuple[bytes, bytes]]:
        """(name, payload) of a namespace; pairs without a value are left out."""
        start = prefix.encode()
        row: Row[Any]
        for row in self._rows(lambda: self._db.reduce(mode, start, decode=False, page_size=PAGE)):
            if row.payload is not None:
                yield row.pair[len(start) :], row.payload


def _bytes(value: Union[bytes, str]) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _matrix(context: Any) -> Optional[List[List[float]]]:
    """Rows of numbers; {"rows" or "matrix", "weights"}: each row times its weight, 0 to 2."""
    if context is None:
        return None
    if not isinstance(context, dict):
        return [[float(v) for v in row] for row in context]
    rows, weights = context.get("rows") or context.get("matrix") or [], context.get("weights") or []
    times = [max(0.0, min(2.0, float(w))) for w in weights] + [1.0] * len(rows)
    return [[float(v) * t for v in row] for row, t in zip(rows, times)]


class NullHotPathAdapter:
    """An adapter that keeps nothing and knows nothing."""

    def publish_context(self, context_hash: str, order_size: int, token_ids: Sequence[int]) -> None:
        return None

    def publish_topk(self, order: int, context_hash: str, ranked: Sequence[Tuple[int, int]]) -> None:
        return None

    def publish_counts(self, order: int, context_hash: str, followers: Sequence[Tuple[int, int]]) -> None:
        return None

    def publish_probabilities(
        self, order: int, context_hash: str, entries: Sequence[Tuple[int, int, Optional[int]]]
    ) -> None:
        return None

    def publish_continuations(self, entries: Sequence[Tuple[int, int]]) -> None:
        return None

    def fetch_topk(self, order: int, context_hash: str, limit: int) -> Optional[List[Tuple[int, int]]]:
        return None

    def fetch_context_tokens(self, context_hash: str) -> Optional[Sequence[int]]:
        return None

    def write_metadata(self, key: str, value: str) -> None:
        return None

    def read_metadata(self, key: str) -> Optional[str]:
        return None

    def scan_namespace(self, namespace: str, *, prefix: bytes = b"", limit: int = 0) -> Iterable[Tuple[bytes, int]]:
        return []

    def iter_counts(self, order: int) -> Iterable[RawCountsProjection]:
        return []

    def iter_probabilities(self, order: int) -> Iterable[RawProbabilityProjection]:
        return []

    def iter_continuations(self) -> Iterable[RawContinuationProjection]:
        return []

    def context_relativism(
        self, context_tree: Any, *, limit: int = 32, depth: Optional[int] = None
    ) -> Iterable[RawContextProjection]:
        return []

    def topk_hit_ratio(self) -> float:
        return 0.0

    def describe(self) -> str:
        return "hot-path:disabled"


def _teller(adapter: "weakref.ref[CheetahHotPathAdapter]") -> Callable[[CheetahError], None]:
    """Switches an adapter off that may be gone: its buffer must not keep it alive."""

    def tell(error: CheetahError) -> None:
        alive = adapter()
        if alive is not None:
            alive._switch_off(error)

    return tell


def null_adapter() -> HotPathAdapter:
    """db_slm's own NullHotPathAdapter where db_slm can be imported (its programs look at the type), else ours."""
    try:
        from db_slm.adapters.base import NullHotPathAdapter as Theirs  # type: ignore[import]
    except ImportError:
        return NullHotPathAdapter()
    theirs: HotPathAdapter = Theirs()
    return theirs


def build_cheetah_adapter(
    settings: Any,
    *,
    client: Optional[CheetahClient] = None,
    http_port: int = 8080,
    token: Optional[str] = None,
    optional: bool = False,
    strict: bool = False,
) -> HotPathAdapter:
    """The adapter for db_slm's settings (backend, cheetah_mirror, cheetah_host, cheetah_database,
    cheetah_timeout_seconds): a null adapter where cheetah-db is not asked for. settings.cheetah_port is the port of
    the line protocol; http_port is where this adapter goes. Where no server answers within five seconds: a warning and a null
    adapter, db_slm's own if there is one; with strict=True CheetahError. optional: as in CheetahHotPathAdapter."""
    if getattr(settings, "backend", "") != "cheetah-db" and not getattr(settings, "cheetah_mirror", False):
        return null_adapter()
    if client is None:
        timeout = PROBE_SECONDS if optional else max(30.0, float(getattr(settings, "cheetah_timeout_seconds", 0)))
        client = CheetahClient(
            settings.cheetah_host, http_port, database=settings.cheetah_database, timeout=timeout, token=token
        )
    if not _answers(client):
        if strict:
            raise CheetahError(f"cheetah-db cannot be reached: {client.describe_targets()} is not ready")
        logger.warning("cheetah-db at %s is not there: going on without it", client.describe_targets())
        return null_adapter()
    return CheetahHotPathAdapter(client, optional=optional)


def _answers(client: CheetahClient) -> bool:
    """Whether the server is ready, within five seconds."""
    with Client(client.db.url, timeout=PROBE_SECONDS, retry=Retry(attempts=0)) as probe:
        return probe.ready() and client.connect()
