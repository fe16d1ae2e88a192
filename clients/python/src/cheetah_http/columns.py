"""Answers as columns: one array for all rows where Row and Pair are an object each. Nothing here loops over rows in Python: what is
made of bytes is made by map(), slices and array, and numpy (if it is there) looks at the same memory.

The columns of a scan         pairs, keys, sizes (-1: no value, or not asked for), values
           of payloads        pairs, keys, orders, offsets, and one entry for each follower: tokens, counts / q / alphas / contexts
           of totals          tokens, counts, contexts

Entries of row i are those from offsets[i] to offsets[i + 1].
"""
from __future__ import annotations

import struct
import sys
from array import array
from binascii import a2b_base64
from dataclasses import dataclass, fields
from itertools import accumulate, repeat
from operator import floordiv, itemgetter, lt, methodcaller, mul, sub
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from . import payloads
from .errors import DamagedValue
from .payloads import MalformedPayload

Line = Dict[str, Any]
MODES = ("counts", "probabilities", "topk", "continuations")


class _Columns:
    def to_numpy(self) -> Dict[str, Any]:
        """{column: numpy array}. Arrays of numbers are read-only views of the same memory; byte strings are arrays of objects."""
        import numpy

        made: Dict[str, Any] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, array):
                made[field.name] = numpy.frombuffer(column, dtype=column.typecode) if len(column) else numpy.zeros(0, column.typecode)
                made[field.name].flags.writeable = False
            elif column is not None:
                made[field.name] = objects = numpy.empty(len(column), dtype=object)
                objects[:] = column
        return made


@dataclass
class PairColumns(_Columns):
    """pairs: empty for a sweep by keys. values: None unless they were asked for."""

    pairs: List[bytes]
    keys: "array[int]"
    sizes: "array[int]"
    values: Optional[List[Optional[bytes]]]

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"<PairColumns of {len(self)} rows{'' if self.values is None else ' with values'}>"

    def matrix(self, dtype: Any) -> Any:
        """The values as one numpy array, a row each: all must be there, and of one length that fits dtype (">f4", "u1", ...)."""
        import numpy

        if self.values is None or None in self.values:
            raise ValueError("not every row has a value (were values=True asked for?)")
        if len(set(self.sizes)) > 1:
            raise ValueError("the values are not of one length")
        joined = numpy.frombuffer(b"".join(self.values), dtype=dtype)  # type: ignore[arg-type]
        return joined.reshape(len(self), -1) if len(self) else joined.reshape(0, 0)


@dataclass
class RecordColumns(_Columns):
    """What is there depends on the mode: counts (tokens, counts), probabilities (tokens, q, alphas: payloads.NO_ALPHA is none), topk
    (tokens, q), continuations (tokens, contexts; one entry a row). malformed: numbers of rows that are no such payload, or have no value: they
    have no entries."""

    mode: str
    pairs: List[bytes]
    keys: "array[int]"
    orders: "array[int]"
    offsets: "array[int]"
    tokens: "array[int]"
    counts: Optional["array[int]"] = None
    q: Optional["array[int]"] = None
    alphas: Optional["array[int]"] = None
    contexts: Optional["array[int]"] = None
    malformed: Optional["array[int]"] = None

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"<RecordColumns of {len(self)} rows of {self.mode}, {len(self.tokens)} entries>"

    def to_numpy(self) -> Dict[str, Any]:
        mode, self.mode = self.mode, None  # type: ignore[assignment]
        try:
            return super().to_numpy()
        finally:
            self.mode = mode


@dataclass
class TotalColumns(_Columns):
    tokens: "array[int]"
    counts: "array[int]"
    contexts: "array[int]"

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"<TotalColumns of {len(self)} tokens>"


# ---- scans -----------------------------------------------------------------------------------------------------------


def checked(lines: List[Line]) -> None:
    """Raises what a line says of its value."""
    for line in lines:
        error = line.get("error")
        if error is not None and error != "key_not_found":
            pair = line.get("pair")
            raise DamagedValue(str(error), int(line["key"]), None if pair is None else a2b_base64(pair), line)


def _decoded(texts: Sequence[Optional[str]]) -> List[Optional[bytes]]:
    if None in texts:
        return [None if text is None else a2b_base64(text) for text in texts]
    return list(map(a2b_base64, texts))  # type: ignore[arg-type]


def pair_columns(lines: List[Line], named: bool, values: bool) -> PairColumns:
    names = list(map(a2b_base64, map(itemgetter("pair"), lines))) if named else []
    sizes: "array[int]"
    if values or not named:
        found = list(map(methodcaller("get", "size"), lines))
        sizes = array("q", found) if None not in found else array("q", [-1 if size is None else size for size in found])
    else:
        sizes = array("q", repeat(-1, len(lines)))
    texts = list(map(methodcaller("get", "value"), lines)) if values else []
    return PairColumns(names, array("Q", map(itemgetter("key"), lines)), sizes, _decoded(texts) if values else None)


def total_columns(lines: List[Line]) -> TotalColumns:
    return TotalColumns(*(array("Q", map(itemgetter(name), lines)) for name in ("token", "count", "contexts")))


# ---- payloads --------------------------------------------------------------------------------------------------------


def record_columns(mode: str, lines: List[Line]) -> RecordColumns:
    """lines: of a payload mode that was not decoded."""
    names = list(map(a2b_base64, map(itemgetter("pair"), lines)))
    keys = array("Q", map(itemgetter("key"), lines))
    texts: List[Any] = list(map(methodcaller("get", "payload"), lines))
    packed = list(map(a2b_base64, ["" if text is None else text for text in texts] if None in texts else texts))
    layout, head, width = _LAYOUTS[mode]
    plain = _plain(packed, layout, head, width)
    bad: List[int] = []
    if plain is not None:
        orders, offsets, body = plain
    else:
        orders, offsets, body, bad = _one_by_one(mode, packed, width)
    columns = RecordColumns(mode, names, keys, orders, offsets, array("I"), malformed=array("Q", bad))
    _BODIES[mode](columns, body)
    return columns


# mode: the head (version, order, entries), its bytes, the bytes of an entry
_LAYOUTS: Dict[str, Tuple[str, int, int]] = {
    "counts": (">BBH", 4, 8), "probabilities": (">BBH", 4, 7), "topk": (">BBB", 3, 5), "continuations": (">B", 1, 8),
}  # fmt: skip


def _plain(packed: List[bytes], layout: str, head: int, width: int) -> Optional[Tuple["array[int]", "array[int]", bytes]]:
    """(orders, offsets, the entries of all): if every payload is of version 1 and whole."""
    if not packed:
        return array("B"), array("Q", [0]), b""
    if min(map(len, packed)) < head:
        return None
    versions, *rest = zip(*map(struct.Struct(layout).unpack_from, packed))
    if versions.count(1) != len(packed):
        return None
    orders, entries = (rest[0], rest[1]) if rest else (bytes(len(packed)), (1,) * len(packed))
    room = map(floordiv, map(sub, map(len, packed), repeat(head)), repeat(width))
    if any(map(lt, room, entries)):
        return None
    ends = map(int.__add__, map(mul, entries, repeat(width)), repeat(head))
    body = b"".join(map(bytes.__getitem__, packed, map(slice, repeat(head), ends)))
    return array("B", orders), array("Q", accumulate(entries, initial=0)), body


def _one_by_one(mode: str, packed: List[bytes], width: int) -> Tuple["array[int]", "array[int]", bytes, List[int]]:
    """The same for a page that has a payload of version 2 (over 65535 followers) or a malformed one; and the numbers of the latter."""
    decode: Callable[[bytes], Any] = {
        "counts": payloads.decode_counts, "probabilities": payloads.decode_probabilities,
        "topk": payloads.decode_topk, "continuations": payloads.decode_continuation,
    }[mode]  # fmt: skip
    orders, offsets, bodies, bad = array("B"), array("Q", [0]), [], []
    for i, payload in enumerate(packed):
        order = size = 0
        try:
            record = decode(payload)
            order = 0 if mode == "continuations" else record.order
            size = 1 if mode == "continuations" else len(record[1])
        except MalformedPayload:
            bad.append(i)
        start = 1 if mode == "continuations" else 3 if mode == "topk" else 6 if payload[:1] == b"\2" else 4
        bodies.append(payload[start : start + size * width])
        orders.append(order)
        offsets.append(offsets[-1] + size)
    return orders, offsets, b"".join(bodies), bad


def _words(body: bytes, at: int, width: int, size: int) -> bytes:
    """Bytes at..at+size of each entry, in the order of this machine."""
    out = bytearray(len(body) // width * size)
    for i in range(size):
        to = size - 1 - i if sys.byteorder == "little" else i
        out[to::size] = body[at + i :: width]
    return bytes(out)


def _column(code: str, body: bytes, at: int, width: int) -> "array[int]":
    column: "array[int]" = array(code)
    column.frombytes(_words(body, at, width, column.itemsize))
    return column


def _counts(columns: RecordColumns, body: bytes) -> None:
    columns.tokens, columns.counts = _column("I", body, 0, 8), _column("I", body, 4, 8)


def _probabilities(columns: RecordColumns, body: bytes) -> None:
    columns.tokens, columns.q, columns.alphas = _column("I", body, 0, 7), _column("B", body, 4, 7), _column("H", body, 5, 7)


def _topk(columns: RecordColumns, body: bytes) -> None:
    columns.tokens, columns.q = _column("I", body, 0, 5), _column("B", body, 4, 5)


def _continuations(columns: RecordColumns, body: bytes) -> None:
    columns.tokens, columns.contexts = _column("I", body, 0, 8), _column("I", body, 4, 8)


_BODIES: Dict[str, Callable[[RecordColumns, bytes], None]] = {
    "counts": _counts, "probabilities": _probabilities, "topk": _topk, "continuations": _continuations,
}  # fmt: skip


# ---- pages -----------------------------------------------------------------------------------------------------------


def joined(parts: List[Any]) -> Any:
    """The columns of pages, one after the other."""
    first = parts[0]
    for part in parts[1:]:
        rows, entries = len(first), len(first.tokens) if isinstance(first, RecordColumns) else 0
        for field in fields(first):
            one, more = getattr(first, field.name), getattr(part, field.name)
            if field.name == "offsets":
                one.extend(map(int.__add__, more[1:], repeat(entries)))
            elif field.name == "malformed":
                one.extend(map(int.__add__, more, repeat(rows)))
            elif isinstance(one, (list, array)):
                one.extend(more)
    return first
