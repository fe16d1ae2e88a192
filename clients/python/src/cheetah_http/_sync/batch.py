# Made by unasync.py from _async/batch.py; change that.
"""Many operations in one request and one commit."""
from __future__ import annotations

from binascii import b2a_base64 as b2a
from types import TracebackType
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Type

from ..errors import APIError, BatchError, ProtocolError, error_of, named
from ..types import Operation
from ..wire import (
    NDJSON, Call, b64, checked_conditions, checked_key, checked_pair, checked_ttl, checked_value, dump,
)  # fmt: skip
from .transport import Transport


class Batches(Transport):
    def batch(
        self, *, atomic: bool = False, etags: bool = False, max_operations: int = 10_000, max_bytes: int = 16 << 20
    ) -> "Batch":
        """Collects operations, and sends them when there are many, at flush() and at the end of the with block. etags: what reads or
        writes a value has its tag afterwards, for if_match."""
        return Batch(self, atomic, max_operations, max_bytes, etags)

    def add(self, pair: bytes, by: int = 1) -> int:
        """Adds to the number, decimal digits, that a pair leads to (without a value it is 0), whoever else does, and gives the sum.
        Conflict if the value is no number, or the sum has more than 64 bits. Not sent again after a lost connection."""
        number = (self._one(_addition(pair, by))).number
        if number is None:
            raise ProtocolError("the server answered no number")
        return number

    def counts_add(self, pair: bytes, order: int, followers: Iterable[Tuple[int, int]]) -> None:
        """Adds (token, delta) to a payload of counts, and creates it if there is none. Conflict if more is taken away than was
        counted: then nothing is. Not sent again after a lost connection."""
        self._one(_counting(pair, order, followers))

    def _one(self, body: Dict[str, Any]) -> Operation:
        operation = Operation(body)
        try:
            self.run([operation])
        except BatchError:
            pass
        return operation.result()

    def run(
        self, operations: Sequence[Operation], *, atomic: bool = False, results: bool = True, etags: bool = False
    ) -> None:
        """One request; gives each operation its result. BatchError where some failed; BatchFailed where an atomic one was
        not applied. A read that finds nothing is answered, not failed: its status is 404, its key or value None. It is sent
        again after a lost connection only if all operations may be repeated: reads, edits and
        upserts; no inserts, no deletes. results=False: the operations are not told their results. etags: with tags."""
        content = b"".join(dump(operation.body) + b"\n" for operation in operations)
        repeatable = all(operation.repeatable for operation in operations)
        self._run_content(content, operations, atomic, results, repeatable, etags)

    def upsert(self, rows: Iterable[Tuple[bytes, bytes]], operations: Sequence[Operation] = ()) -> None:
        """Many pairs and values in one request, as pair_put of a batch but without results, and with less ado for each; after the
        operations, which may be repeated. Not atomic: BatchError where some failed."""
        lines = [dump(operation.body) + b"\n" for operation in operations]
        for pair, value in rows:
            name, raw = b2a(checked_pair(pair), newline=False), b2a(checked_value(value), newline=False)
            lines.append(b'{"op":"pair_put","pair":"%b","value":"%b"}\n' % (name, raw))
        self._run_content(b"".join(lines), range(len(lines)), False, False, True)

    def _run_content(
        self,
        content: bytes,
        operations: Sequence[Any],
        atomic: bool,
        results: bool,
        repeatable: bool,
        etags: bool = False,
    ) -> None:
        params = self._shown(atomic=atomic or None, results=None if results else False, etags=etags or None)
        lines, end = self._collect(Call("POST", "/batch", params, content, NDJSON, repeatable=repeatable))
        failures: List[Tuple[Optional[int], APIError]] = []
        if end.get("count") != len(operations) or (results and len(lines) != len(operations)):
            with named(self.server):
                raise ProtocolError(f"{len(operations)} operations were answered by {len(lines)} lines, end {end}")
        for i, line in enumerate(lines):
            error = error_of(line) if line["status"] >= 400 else None
            if error is not None:
                error.server = self.server
            if results:
                if operations[i].reads and line["status"] == 404:
                    error = None
                operations[i].settle(line, error)
            if error is not None:
                failures.append((i if results else None, error))
        if failures:
            with named(self.server):
                raise BatchError(failures)


def _conditional(body: Dict[str, Any], if_absent: bool, if_match: Optional[str]) -> Dict[str, Any]:
    checked_conditions(if_absent, if_match)
    if if_absent:
        body["if_absent"] = True
    if if_match is not None:
        body["if_match"] = if_match
    return body


def _addition(pair: bytes, by: int) -> Dict[str, Any]:
    return {"op": "add", "pair": b64(checked_pair(pair)), "by": by}


def _counting(pair: bytes, order: int, followers: Iterable[Tuple[int, int]]) -> Dict[str, Any]:
    whole = getattr(followers, "tolist", None)  # of numpy
    rows = [[token, delta] for token, delta in (whole() if whole is not None else followers)]
    return {"op": "counts_add", "pair": b64(checked_pair(pair)), "order": order, "followers": rows}


class Batch:
    """Operations on their way; made by batch(). Not for several tasks or threads at once.

    Each method returns the Operation, which has its result (key, size, value) after the flush; what a read did not find is
    None. Operations that fail are reported as one BatchError by the flush that sent them; the others of it are applied. With atomic=True everything is one
    request, sent at the end, and is applied whole or not at all. If the with block ends by an exception, what has not been
    sent is thrown away.
    """

    def __init__(
        self, client: Batches, atomic: bool, max_operations: int, max_bytes: int, etags: bool = False
    ) -> None:
        self._client, self._atomic, self._etags = client, atomic, etags
        self._most, self._most_bytes = max_operations, max_bytes
        self._operations: List[Operation] = []
        self._bytes = 0

    def __len__(self) -> int:
        """How many operations wait."""
        return len(self._operations)

    def insert(self, value: bytes) -> Operation:
        return self._add({"op": "insert", "value": b64(checked_value(value))})

    def read(self, key: int) -> Operation:
        return self._add({"op": "read", "key": checked_key(key)})

    def edit(self, key: int, value: bytes, *, if_match: Optional[str] = None) -> Operation:
        body = {"op": "edit", "key": checked_key(key), "value": b64(checked_value(value))}
        return self._add(_conditional(body, False, if_match))

    def delete(self, key: int, *, if_match: Optional[str] = None) -> Operation:
        return self._add(_conditional({"op": "delete", "key": checked_key(key)}, False, if_match))

    def pair_set(
        self, pair: bytes, key: int, *, if_absent: bool = False, if_match: Optional[str] = None
    ) -> Operation:
        body = {"op": "pair_set", "pair": b64(checked_pair(pair)), "key": checked_key(key)}
        return self._add(_conditional(body, if_absent, if_match))

    def pair_put(
        self,
        pair: bytes,
        value: bytes,
        *,
        ttl: Optional[float] = None,
        if_absent: bool = False,
        if_match: Optional[str] = None,
    ) -> Operation:
        """ttl and conditions as of the client's pair_put; with atomic=True the batch is a transaction."""
        body: Dict[str, Any] = {"op": "pair_put", "pair": b64(checked_pair(pair)), "value": b64(checked_value(value))}
        if checked_ttl(ttl) is not None:
            body["ttl"] = ttl
        return self._add(_conditional(body, if_absent, if_match))

    def pair_get(self, pair: bytes, *, values: bool = False) -> Operation:
        return self._add({"op": "pair_get", "pair": b64(checked_pair(pair)), "values": values})

    def pair_delete(
        self, pair: bytes, *, values: bool = False, if_match: Optional[str] = None
    ) -> Operation:
        body = {"op": "pair_del", "pair": b64(checked_pair(pair)), "values": values}
        return self._add(_conditional(body, False, if_match))

    def add(self, pair: bytes, by: int = 1) -> Operation:
        """Adds to the number, decimal digits, that the pair leads to; without a value it is 0."""
        return self._add(_addition(pair, by))

    def counts_add(self, pair: bytes, order: int, followers: Iterable[Tuple[int, int]]) -> Operation:
        """Adds (token, delta) to a payload of counts, and creates it if there is none."""
        return self._add(_counting(pair, order, followers))

    def flush(self) -> None:
        """Sends what waits. If the request fails with nothing done (no connection, 503), the operations wait on."""
        sent, size = self._operations, self._bytes
        if not sent:
            return
        self._operations, self._bytes = [], 0
        try:
            self._client.run(sent, atomic=self._atomic, etags=self._etags)
        except Exception as error:
            nothing_done = getattr(error, "not_started", False) or getattr(error, "may_have_happened", True) is False
            if nothing_done:
                self._operations, self._bytes = sent, size
            raise

    def _add(self, body: Dict[str, Any]) -> Operation:
        operation = Operation(body)
        size = 64 + len(body.get("value", "")) + len(body.get("pair", "")) + 24 * len(body.get("followers", ()))
        full = len(self._operations) >= self._most or self._bytes + size > self._most_bytes
        if full and not self._atomic:
            self.flush()
        self._operations.append(operation)
        self._bytes += size
        return operation

    def __enter__(self) -> "Batch":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind is None:
            self.flush()
        else:
            self._operations, self._bytes = [], 0
