"""The shapes that DB-SLM works with: projections, payload records, the serializer, the interface of a hot path.

Names, fields and signatures are those of db_slm (cheetah_types, adapters.base, adapters.cheetah); what they do is
cheetah_http's own: see cheetah_http.payloads.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterable, List, Optional, Protocol, Sequence, Tuple, TypeVar

from .. import payloads

T = TypeVar("T")
ROOT = "__root__"


@dataclass(frozen=True)
class RawContextProjection:
    """A context found by context_relativism, with what follows it, best first."""

    context_hash: str
    order_size: int
    token_ids: Tuple[int, ...]
    ranked: Tuple[Tuple[int, int], ...]
    cheetah_key: int
    vector_signature: bytes


@dataclass(frozen=True)
class RawCountsProjection:
    """The followers of a context: (token, count); totals is the sum of the counts."""

    context_hash: str
    order: int
    totals: int
    followers: Tuple[Tuple[int, int], ...]


@dataclass(frozen=True)
class RawProbabilityProjection:
    """The quantized probabilities of a context: (token, q, back-off weight in thousandths or None)."""

    context_hash: str
    order: int
    followers: Tuple[Tuple[int, int, Optional[int]], ...]


@dataclass(frozen=True)
class RawContinuationProjection:
    """In how many contexts a token occurs."""

    token_id: int
    num_contexts: int


@dataclass(frozen=True)
class NamespaceSummary:
    """What lies under a prefix; terminal_count: how many pairs."""

    prefix: bytes
    terminal_count: int
    total_payload_bytes: int
    min_payload_bytes: int
    max_payload_bytes: int
    min_key: Optional[int]
    max_key: Optional[int]
    max_depth: int
    self_terminal: bool
    branches: Tuple[Tuple[bytes, int], ...]


@dataclass(frozen=True)
class PredictionValueResult:
    """A value of a prediction table."""

    value: bytes
    probability: float


@dataclass(frozen=True)
class PredictionQueryResult:
    """The values of a key of a prediction table, the most probable first."""

    table: str
    backend: str
    count: int
    entries: Tuple[PredictionValueResult, ...]


@dataclass(frozen=True)
class TopKPayload:
    order: int
    ranked: List[Tuple[int, int]]


@dataclass(frozen=True)
class ContextPayload:
    order_size: int
    token_ids: Tuple[int, ...]


@dataclass(frozen=True)
class CountsPayload:
    order: int
    followers: Tuple[Tuple[int, int], ...]


@dataclass(frozen=True)
class ProbabilityPayload:
    order: int
    entries: Tuple[Tuple[int, int, Optional[int]], ...]


@dataclass(frozen=True)
class ContinuationPayload:
    token_id: int
    num_contexts: int


def _or_none(decode: Callable[[bytes], T], payload: bytes) -> Optional[T]:
    try:
        return decode(payload)
    except payloads.MalformedPayload:
        return None


class CheetahSerializer:
    """The payload codec with db_slm's names; decoders return None for what is malformed."""

    MAX_TOPK = payloads.MAX_TOPK

    def encode_context(self, order_size: int, token_ids: Sequence[int]) -> bytes:
        return payloads.encode_context(order_size, token_ids)

    def decode_context(self, payload: bytes) -> Optional[ContextPayload]:
        record = _or_none(payloads.decode_context, payload)
        return None if record is None else ContextPayload(record.order_size, record.tokens)

    def encode_counts(self, order: int, followers: Sequence[Tuple[int, int]]) -> bytes:
        return payloads.encode_counts(order, followers)

    def decode_counts(self, payload: bytes) -> Optional[CountsPayload]:
        record = _or_none(payloads.decode_counts, payload)
        return None if record is None else CountsPayload(record.order, tuple(record.followers))

    def encode_topk(self, order: int, ranked: Sequence[Tuple[int, int]]) -> bytes:
        """The best 32, as db_slm keeps them; not padded."""
        return payloads.encode_topk(order, list(ranked)[: self.MAX_TOPK])

    def decode_topk(self, payload: bytes) -> Optional[TopKPayload]:
        record = _or_none(payloads.decode_topk, payload)
        return None if record is None else TopKPayload(record.order, record.ranked)

    def encode_probabilities(self, order: int, entries: Sequence[Tuple[int, int, Optional[int]]]) -> bytes:
        return payloads.encode_probabilities(order, entries)

    def decode_probabilities(self, payload: bytes) -> Optional[ProbabilityPayload]:
        record = _or_none(payloads.decode_probabilities, payload)
        return None if record is None else ProbabilityPayload(record.order, tuple(record.entries))

    def encode_continuation(self, token_id: int, num_contexts: int) -> bytes:
        return payloads.encode_continuation(token_id, num_contexts)

    def decode_continuation(self, payload: bytes) -> Optional[ContinuationPayload]:
        record = _or_none(payloads.decode_continuation, payload)
        return None if record is None else ContinuationPayload(record.token, record.contexts)


class AbsoluteVectorOrder:
    """Encodes trees of tokens; see cheetah_http.payloads.encode_vector."""

    def encode_tree(self, tree: Any, *, depth_limit: Optional[int] = None) -> bytes:
        return payloads.encode_vector(tree, depth_limit)

    def encode_tokens(self, token_ids: Sequence[int]) -> bytes:
        return payloads.context_vector(token_ids)


def hash_tokens(token_ids: Sequence[int]) -> str:
    """The hash of a context: 16 hex digits, `__root__` for the empty one."""
    return payloads.context_hash(token_ids)


def pair_name(namespace: str, context_hash: str) -> bytes:
    """The pair of a context: the namespace, a colon, and the bytes of the hash."""
    if context_hash == ROOT:
        return namespace.encode() + b":" + payloads.ROOT
    try:
        return namespace.encode() + b":" + bytes.fromhex(context_hash)
    except ValueError:
        return namespace.encode() + b":" + context_hash.encode()


def hash_of(name: bytes) -> str:
    """The hash that stands after the namespace of a pair."""
    return ROOT if name == payloads.ROOT else name.hex()


class HotPathAdapter(Protocol):
    """What DB-SLM calls to mirror its statistics and to read them back."""

    def publish_context(self, context_hash: str, order_size: int, token_ids: Sequence[int]) -> None: ...
    def publish_topk(self, order: int, context_hash: str, ranked: Sequence[Tuple[int, int]]) -> None: ...
    def publish_counts(self, order: int, context_hash: str, followers: Sequence[Tuple[int, int]]) -> None: ...
    def publish_probabilities(
        self, order: int, context_hash: str, entries: Sequence[Tuple[int, int, Optional[int]]]
    ) -> None: ...
    def publish_continuations(self, entries: Sequence[Tuple[int, int]]) -> None: ...
    def fetch_topk(self, order: int, context_hash: str, limit: int) -> Optional[List[Tuple[int, int]]]: ...
    def fetch_context_tokens(self, context_hash: str) -> Optional[Sequence[int]]: ...
    def write_metadata(self, key: str, value: str) -> None: ...
    def read_metadata(self, key: str) -> Optional[str]: ...
    def scan_namespace(
        self, namespace: str, *, prefix: bytes = b"", limit: int = 0
    ) -> Iterable[Tuple[bytes, int]]: ...
    def iter_counts(self, order: int) -> Iterable[RawCountsProjection]: ...
    def iter_probabilities(self, order: int) -> Iterable[RawProbabilityProjection]: ...
    def iter_continuations(self) -> Iterable[RawContinuationProjection]: ...
    def context_relativism(
        self, context_tree: Any, *, limit: int = 32, depth: Optional[int] = None
    ) -> Iterable[RawContextProjection]: ...
    def topk_hit_ratio(self) -> float: ...
    def describe(self) -> str: ...
