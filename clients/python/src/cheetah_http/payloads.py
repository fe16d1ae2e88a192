"""The payload layouts of n-gram namespaces: encoders, decoders, names and the quantized probabilities.

All integers are big-endian. Decoders raise MalformedPayload; a payload longer than its own count says is accepted.
"""
from __future__ import annotations

import hashlib
import math
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .errors import CheetahError

ROOT = b"__root__"
NO_ALPHA = 0xFFFF
MAX_TOPK = 32
_SHORT = 0xFFFF  # entries that version 1 of counts and probabilities can hold
_U32 = 0xFFFFFFFF


class MalformedPayload(CheetahError, ValueError):
    """A payload whose layout is wrong."""


class Counts(NamedTuple):
    order: int
    followers: List[Tuple[int, int]]


class Probabilities(NamedTuple):
    """entries: token, quantized probability, back-off weight in thousandths or None."""

    order: int
    entries: List[Tuple[int, int, Optional[int]]]


class TopK(NamedTuple):
    order: int
    ranked: List[Tuple[int, int]]


class Continuation(NamedTuple):
    token: int
    contexts: int


class Context(NamedTuple):
    order_size: int
    tokens: Tuple[int, ...]


class Json(NamedTuple):
    """The JSON value of a payload (which may be null)."""

    json: Any


# ---- names -----------------------------------------------------------------------------------------------------------


def context_name(tokens: Sequence[int]) -> bytes:
    """What stands after `cnt:2:` and the like: the 8-byte hash of a context, `__root__` for the empty one."""
    if not tokens:
        return ROOT
    return hashlib.blake2b(",".join(map(str, tokens)).encode(), digest_size=8).digest()


def context_hash(tokens: Sequence[int]) -> str:
    """The same as text: 16 hex digits or `__root__`."""
    return ROOT.decode() if not tokens else context_name(tokens).hex()


def encode_vector(tree: Any, depth: Optional[int] = None) -> bytes:
    """Absolute Vector Order: one byte string for a nested tree of tokens, whatever the order of siblings."""
    return b"\x01" + _node(tree, depth, 0)


def _node(tree: Any, depth: Optional[int], level: int) -> bytes:
    if isinstance(tree, int) and not isinstance(tree, bool):
        return b"\xa1" + struct.pack(">I", _within(tree, _U32, "a token"))
    if not isinstance(tree, (list, tuple)):
        raise TypeError(f"a tree consists of integers and lists, not {type(tree).__name__}")
    if depth is not None and level >= depth:
        return b"\xa0\x00"
    if len(tree) > 255:
        raise ValueError(f"a list of a tree has at most 255 children, not {len(tree)}")
    children = sorted(_node(child, depth, level + 1) for child in tree)
    if any(len(child) > 0xFFFF for child in children):
        raise ValueError("a child of a tree takes more than 65535 bytes")
    return b"\xa0" + bytes([len(children)]) + b"".join(struct.pack(">H", len(c)) + c for c in children)


_ONE_TOKEN = b"\x00\x09\xa0\x01\x00\x05\xa1"  # the length of a list of one token, that list up to the token
_U32_PACK = struct.Struct(">I").pack


def context_vector(tokens: Sequence[int]) -> bytes:
    """What stands after `ctxv:` for a context: the encoding of a tree of lists of one token each."""
    if len(tokens) > 255 or not all(type(token) is int for token in tokens):
        return encode_vector([[token] for token in tokens])
    children = sorted(_ONE_TOKEN + _U32_PACK(_within(token, _U32, "a token")) for token in tokens)
    return b"\x01\xa0" + bytes([len(children)]) + b"".join(children)


# ---- quantized probabilities -----------------------------------------------------------------------------------------


def quantize(p: float) -> int:
    """log10 of a probability, 1e-12 ... 1 to 0 ... 255."""
    ratio = (math.log10(max(p, 1e-12)) + 12) / 12
    return round(min(max(ratio, 0.0), 1.0) * 255)


def dequantize(q: int) -> float:
    return float(10 ** (-12.0 + (q / 255) * 12.0))


# ---- encoders --------------------------------------------------------------------------------------------------------


def _within(value: int, most: int, what: str) -> int:
    if not 0 <= value <= most:
        raise ValueError(f"{what} is 0 to {most}, not {value}")
    return int(value)


def _head(order: int, count: int) -> bytes:
    _within(order, 255, "an order")
    return struct.pack(">BBH", 1, order, count) if count <= _SHORT else struct.pack(">BBI", 2, order, count)


def encode_counts(order: int, followers: Sequence[Tuple[int, int]]) -> bytes:
    """Over 65535 followers are written as version 2; never cut off. Counts saturate at 2^32-1."""
    flat = [n for token, count in followers for n in (token, min(count, _U32))]
    return _head(order, len(followers)) + _packed(f">{len(flat)}I", flat, "tokens and counts are 0 to 2^32-1")


def encode_probabilities(order: int, entries: Sequence[Tuple[int, int, Optional[int]]]) -> bytes:
    parts = [_head(order, len(entries))]
    for token, q, alpha in entries:
        if alpha is not None:
            _within(alpha, NO_ALPHA - 1, "a back-off weight")
        parts.append(_packed(">IBH", (token, q, NO_ALPHA if alpha is None else alpha), "a token is 0 to 2^32-1, q 0 to 255"))
    return b"".join(parts)


def encode_topk(order: int, ranked: Sequence[Tuple[int, int]]) -> bytes:
    """The best first; at most 255 (smoothing writes at most 32)."""
    if len(ranked) > 255:
        raise ValueError(f"a top-k payload holds at most 255 entries, not {len(ranked)}")
    _within(order, 255, "an order")
    flat = [_packed(">IB", entry, "a token is 0 to 2^32-1, q 0 to 255") for entry in ranked]
    return struct.pack(">BBB", 1, order, len(ranked)) + b"".join(flat)


def encode_continuation(token: int, contexts: int) -> bytes:
    return _packed(">BII", (1, token, min(contexts, _U32)), "a token is 0 to 2^32-1")


def encode_context(order_size: int, tokens: Sequence[int]) -> bytes:
    if len(tokens) > 255:
        raise ValueError(f"a context has at most 255 tokens, not {len(tokens)}")
    _within(order_size, 255, "an order size")
    return struct.pack(">BBB", 1, order_size, len(tokens)) + _packed(f">{len(tokens)}I", tokens, "a token is 0 to 2^32-1")


def _packed(layout: str, values: Sequence[int], problem: str) -> bytes:
    try:
        return struct.pack(layout, *values)
    except struct.error as error:
        raise ValueError(problem) from error


# ---- decoders --------------------------------------------------------------------------------------------------------


def _counted(payload: bytes, what: str, width: int) -> Tuple[int, memoryview]:
    """(order, the bytes of the entries) of a counts or probabilities payload."""
    try:
        head = struct.Struct(">BBI" if payload[0] == 2 else ">BBH")
        version, order, count = head.unpack_from(payload)
    except (IndexError, struct.error):
        raise MalformedPayload(f"a {what} payload of {len(payload)} bytes has no head") from None
    if version not in (1, 2):
        raise MalformedPayload(f"version {version} of {what} payloads is not known")
    end = head.size + count * width
    if len(payload) < end:
        raise MalformedPayload(f"{count} {what} take {end} bytes, the payload has {len(payload)}")
    return order, memoryview(payload)[head.size : end]


def _first(payload: bytes, layout: str, what: str) -> Tuple[int, ...]:
    """The head of a payload that has only version 1, without the version."""
    try:
        version, *rest = struct.unpack_from(layout, payload)
    except struct.error:
        raise MalformedPayload(f"a {what} payload of {len(payload)} bytes has no head") from None
    if version != 1:
        raise MalformedPayload(f"version {version} of {what} payloads is not known")
    return tuple(rest)


def _entries(payload: bytes, start: int, size: int, what: str) -> memoryview:
    if len(payload) < start + size:
        raise MalformedPayload(f"the {what} payload takes {start + size} bytes, it has {len(payload)}")
    return memoryview(payload)[start : start + size]


def decode_counts(payload: bytes) -> Counts:
    order, entries = _counted(payload, "counts", 8)
    return Counts(order, [(token, count) for token, count in struct.iter_unpack(">II", entries)])


def decode_probabilities(payload: bytes) -> Probabilities:
    order, entries = _counted(payload, "probabilities", 7)
    rows = struct.iter_unpack(">IBH", entries)
    return Probabilities(order, [(token, q, None if alpha == NO_ALPHA else alpha) for token, q, alpha in rows])


def decode_topk(payload: bytes) -> TopK:
    order, count = _first(payload, ">BBB", "top-k")
    entries = _entries(payload, 3, 5 * count, "top-k")
    return TopK(order, [(token, q) for token, q in struct.iter_unpack(">IB", entries)])


def decode_continuation(payload: bytes) -> Continuation:
    token, contexts = _first(payload, ">BII", "continuation")
    return Continuation(token, contexts)


def decode_context(payload: bytes) -> Context:
    order_size, count = _first(payload, ">BBB", "context")
    return Context(order_size, struct.unpack(f">{count}I", _entries(payload, 3, 4 * count, "context")))


def record_of(line: Dict[str, Any]) -> Any:
    """The record of a line that the server decoded; None if there is none."""
    if "followers" in line:
        return Counts(line["order"], [(entry[0], entry[1]) for entry in line["followers"]])  # the word follows, with text=true
    if "entries" in line:
        return Probabilities(line["order"], [(entry[0], entry[1], entry[2]) for entry in line["entries"]])
    if "ranked" in line:
        return TopK(line["order"], [(entry[0], entry[1]) for entry in line["ranked"]])
    if "contexts" in line:
        return Continuation(line["token"], line["contexts"])
    if "tokens" in line:
        return Context(line["order_size"], tuple(line["tokens"]))
    if "json" in line:
        return Json(line["json"])
    return None
