"""DB-SLM's levels 2 and 3 in the engine: conversations, messages, session cache, biases and corrections here, concepts in level3,
the quality queue in quality. Installed by install(level2=True).

The classes are made at install time as subclasses of db_slm's own; what they answer is what db_slm answers over SQLite. Pairs (\\0
separates, numbers are big-endian, values are JSON):

    l2:conv:<id>                                 [user, agent, ms]
    l2:msg:<conv>\\0<ms u64><seq u32><id>         [id, sender, text]; with the next one in one atomic batch
    meta:l2:stats:<conv>                         {message_count, user_turns, assistant_turns, started_at, updated_at}
    l2:corr:<conv>\\0<ms u64><seq u32><id>        [fact, id, wrong message, right message, text]
    l2:cache:<conv>                              [[token, weight], ...] by token; for a day
    l2:bias:<conv, or *>\\0<pattern>\\0<token>     [pattern, token, q, until, at]; until it expires
    l2:ban:<profile>\\0<token>                    [token]
    meta:decode:<profile>                        {lambda_cache, temp, topk, topp}

Times are those of SQLite: whole seconds. It sorts by them, and what happened within one second comes in the order in which SQLite
gives it: messages newest first, corrections and biases oldest first. Where it differs, and is meant to:

    a bias of all conversations     replaces the one before it (SQLite adds another row, whose sum both are)
    a session cache                 is forgotten after a day without a message
    an expired signal               is gone (SQLite compares "...T..." with "... ...", which keeps it for the rest of its day)
"""
from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import struct
import threading
import time
import uuid
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from .._sync.client import Client
from ..errors import APIError, BatchError, BatchFailed, CheetahError, ConnectionLost
from ..types import Operation, Pair
from ..wire import MAX_TTL, b64
from .points import PointReader

DAY = 86_400  # seconds that a session cache lasts
LATE = 2.0  # seconds in which a bias or a ban that another program has set may be unseen here
LONG = 512  # bytes of an id in a name
PROFILE = {"lambda_cache": 0.15, "temp": 1.0, "topk": 20, "topp": 0.9}  # db_slm's own, if none was set
EVERYBODY = b"*"  # in place of a conversation
STAR = b"*\xff"  # a conversation that is called so


class Stamp(NamedTuple):
    """A moment, and what tells it from others of the same millisecond."""

    ms: int
    seq: int

    def name(self, identity: str) -> bytes:
        """As part of a pair's name: ordered by time; the identity's digest tells programs apart."""
        return struct.pack(">QI", self.ms, self.seq & 0xFFFFFFFF) + hashlib.sha256(identity.encode()).digest()[:8]


def second_of(ms: int) -> str:
    """As SQLite's CURRENT_TIMESTAMP."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms // 1000))


def part(text: str) -> bytes:
    """An id as part of a name."""
    raw = text.encode()
    if len(raw) > LONG or b"\0" in raw:
        raise ValueError(f"an id has at most {LONG} bytes and no NUL: {text[:80]!r}")
    return raw


def part_or_hash(text: str) -> bytes:
    """Any text as part of a name: of a long one the hash stands there, and the value has the text."""
    raw = text.encode()
    return raw if len(raw) <= LONG and b"\0" not in raw else b"\xfe" + hashlib.sha256(raw).digest()


def token_part(token: int) -> bytes:
    return struct.pack(">Q", token + (1 << 63))


def tables_of(hot_path: Any) -> Optional["Tables"]:
    """Those of a hot path whose levels 2 and 3 are in the engine."""
    found: Optional[Tables] = getattr(hot_path, "tables", None)
    return found


def conversation_part(conversation: Optional[str]) -> bytes:
    if conversation is None:
        return EVERYBODY
    name = part(conversation)
    return name if name != EVERYBODY else STAR


def put(pair: bytes, value: Any, *, ttl: Optional[float] = None, **conditions: Any) -> Operation:
    """An operation that stores a value as JSON; bytes as they are. ttl: seconds after which it is gone; one that is too long for the
    server is none."""
    raw = value if isinstance(value, bytes) else dump(value)
    body: Dict[str, Any] = {"op": "pair_put", "pair": b64(pair), "value": b64(raw), **conditions}
    if ttl is not None and ttl <= MAX_TTL:
        body["ttl"] = max(1, -int(-ttl // 1))
    return Operation(body)


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def without_end(operation: Operation) -> Operation:
    return Operation({name: value for name, value in operation.body.items() if name != "ttl"})


def unknown_end(error: CheetahError) -> bool:
    """A server of 0.2.0 refuses lines with a ttl."""
    if isinstance(error, BatchFailed):
        return error.operation.code == "unknown_parameter"
    if isinstance(error, BatchError):
        return any(failure.code == "unknown_parameter" for _, failure in error.failures)
    return isinstance(error, APIError) and error.code == "unknown_parameter"


class Tables:
    """Reads and writes of levels 2 and 3 in the database of a model. Threads may share one.

    before      called before each write: what a write refers to (tokens) is in the engine before it
    """

    clock = staticmethod(time.time)

    def __init__(self, client: Client, points: PointReader, before: Callable[[], None] = lambda: None) -> None:
        self.client, self._points, self._before = client, points, before
        self._lasting = False  # the server lets no pair end
        self._seq, self._last, self._lock = itertools.count(), 0, threading.Lock()
        self._tags: Dict[bytes, Tuple[Any, str]] = {}  # of what change() wrote: value, tag

    def stamp(self) -> Stamp:
        """Now; never before the last one."""
        with self._lock:
            now = self.clock()
            self._last = max(self._last, int(now) * 1000 + int(now % 1 * 1000))
            return Stamp(self._last, next(self._seq))

    def get(self, pair: bytes) -> Any:
        """What a pair holds; None if there is none."""
        raw = self.raw(pair)
        return None if raw is None else json.loads(raw)

    def raw(self, pair: bytes) -> Optional[bytes]:
        return self._points.value(pair)

    def has(self, pair: bytes) -> bool:
        return self.raw(pair) is not None

    def rows(self, prefix: bytes, limit: Optional[int] = None, *, reverse: bool = False, page: int = 1000) -> Iterator[Pair]:
        """Pairs that have a value, in the order of their names; none of a database that does not exist."""
        found = self.client.pairs(prefix, values=True, reverse=reverse, limit=limit, page_size=page)
        try:
            yield from (row for row in found if row.value is not None)
        except APIError as error:
            if error.code != "database_not_found":
                raise

    def write(self, *operations: Operation) -> None:
        """Upserts, in one commit."""
        self._before()
        self.run(operations, atomic=len(operations) > 1)

    def run(self, operations: Sequence[Operation], *, atomic: bool = False) -> None:
        """Upserts; without their ends where the server knows of none: what has ended is passed over by its `until`."""
        if self._lasting:
            operations = [without_end(operation) for operation in operations]
        try:
            self.client.run(operations, atomic=atomic, results=False)
        except (APIError, BatchError) as error:
            if self._lasting or not unknown_end(error) or not any("ttl" in operation.body for operation in operations):
                raise
            self._lasting = True
            self.run(operations, atomic=atomic)

    def change(
        self,
        pair: bytes,
        new: Callable[[Any], Any],
        more: Callable[[Any], Sequence[Operation]] = lambda _: (),
        done: Callable[[Any], bool] = lambda _: False,
    ) -> Any:
        """Replaces what a pair holds by new(it), with the operations of more(that) in one atomic batch, and gives what was written;
        whoever else does the same, nothing is lost. new gives None: nothing is to be done. done: after a lost
        connection, whether it was done."""
        self._before()
        known, lost = self._tags.pop(pair, None), False
        while True:
            if known is None:
                found = self.client.pair(pair)
                known = (json.loads(found.value), found.etag or "") if found is not None and found.value is not None else None
            value = new(None if known is None else known[0])
            if value is None:
                return None
            condition: Dict[str, Any] = {"if_absent": True} if known is None else {"if_match": known[1]}
            operation, known = put(pair, value, **condition), None
            try:
                self.client.run([operation, *more(value)], atomic=True)
            except BatchFailed as error:
                if error.operation.status != 412:
                    raise
                if lost and done(value):  # what was lost has come after the first look
                    return value
            except ConnectionLost:
                if done(value):
                    return value
                lost = True
            else:
                if operation.etag:
                    if len(self._tags) >= 1000:
                        self._tags.clear()
                    self._tags[pair] = value, operation.etag
                return value


class Remembered:
    """Answers that are kept for a short time."""

    def __init__(self) -> None:
        self._kept: Dict[Any, Tuple[float, Any]] = {}

    def get(self, key: Any, load: Callable[[], Any]) -> Any:
        at, value = self._kept.get(key, (-LATE, None))
        now = time.monotonic()
        if now - at >= LATE:
            value = load()
            if len(self._kept) >= 1000:
                self._kept.clear()
            self._kept[key] = now, value
        return value

    def forget(self, key: Any) -> None:
        self._kept.pop(key, None)


def stats_pair(conversation: str) -> bytes:
    return b"meta:l2:stats:" + part(conversation)


def counted_message(stats: Dict[str, Any], sender: str, second: str) -> Dict[str, Any]:
    """The statistics of a conversation with one message more."""
    return {
        "message_count": stats["message_count"] + 1,
        "user_turns": stats["user_turns"] + (sender == "user"),
        "assistant_turns": stats["assistant_turns"] + (sender == "assistant"),
        "started_at": min(stats["started_at"] or second, second),
        "updated_at": max(stats["updated_at"] or second, second),
    }


def time_of(name: bytes, prefix: bytes) -> int:
    """The milliseconds in the name of a message or correction."""
    return int(struct.unpack_from(">Q", name, len(prefix))[0])


def memory_class(level2: Any) -> Any:
    """The class that takes the place of level2.ConversationMemory."""

    class Memory(level2.ConversationMemory):  # type: ignore[misc]
        """Conversations, messages and corrections in the engine."""

        @property
        def _tables(self) -> Tables:
            tables: Tables = self.hot_path.tables
            return tables

        def start_conversation(self, user_id: str, agent_name: str) -> str:
            conversation, now = str(uuid.uuid4()), self._tables.stamp().ms
            self._tables.write(
                put(b"l2:conv:" + part(conversation), [user_id, agent_name, now]),
                put(stats_pair(conversation), self._empty_stats()),
            )
            return conversation

        def log_message(self, conversation_id: str, sender: str, content: str) -> str:
            if sender not in ("user", "assistant"):
                raise sqlite3.IntegrityError("CHECK constraint failed: sender IN ('user','assistant')")
            message, tables = str(uuid.uuid4()), self._tables
            stamp = tables.stamp()
            pair = b"l2:msg:" + part(conversation_id) + b"\0" + stamp.name(message)
            tables.change(
                stats_pair(conversation_id),
                lambda old: counted_message(old or self._empty_stats(), sender, second_of(stamp.ms)),
                lambda _: [put(pair, [message, sender, content])],
                lambda _: tables.has(pair),
            )
            return message

        def _newest(self, conversation_id: str, limit: int) -> List[Tuple[int, List[str]]]:
            """(second, [id, sender, text]), newest first."""
            prefix = b"l2:msg:" + part(conversation_id) + b"\0"
            if limit == 0:
                return []
            rows = self._tables.rows(prefix, limit if limit > 0 else None, reverse=True)
            return [(time_of(row.pair, prefix) // 1000, json.loads(row.value or b"")) for row in rows]

        def context_window(self, conversation_id: str, use_cache: bool = True) -> str:
            newest = self._newest(conversation_id, self.window)
            return "\n".join(f"{sender}: {text}" for _, (_, sender, text) in sorted(newest, key=lambda row: row[0]))

        def recent_messages(self, conversation_id: str, limit: int = 10) -> List[Any]:
            newest = self._newest(conversation_id, limit)
            return [level2.Message(message, conversation_id, sender, text) for _, (message, sender, text) in newest]

        def record_correction(
            self,
            conversation_id: str,
            error_message_id: str,
            correction_message_id: str,
            error_context: str,
            corrected_fact: Dict[str, Any],
        ) -> str:
            correction = str(uuid.uuid4())
            pair = b"l2:corr:" + part(conversation_id) + b"\0" + self._tables.stamp().name(correction)
            row = [corrected_fact, correction, error_message_id, correction_message_id, error_context]
            self._tables.write(put(pair, row))
            return correction

        def lookup_corrections(self, conversation_id: str, limit: int = 5) -> List[Any]:
            return self._query_corrections(conversation_id, max(limit, self._correction_cache))[:limit]

        def _query_corrections(self, conversation_id: str, limit: int) -> List[Any]:
            """The newest; of the second in which they end, the oldest: so all of that second are read."""
            rows: List[Tuple[int, List[Any]]] = []
            prefix = b"l2:corr:" + part(conversation_id) + b"\0"
            for row in self._tables.rows(prefix, reverse=True, page=limit + 8):
                second = time_of(row.pair, prefix) // 1000
                if len(rows) >= limit and rows[-1][0] != second:
                    break
                rows.append((second, json.loads(row.value or b"")))
            rows.reverse()
            rows.sort(key=lambda row: -row[0])
            return [level2.Correction(row[1], conversation_id, row[0] or {}) for _, row in rows[:limit]]

        def conversation_stats(self, conversation_id: str) -> Dict[str, Any]:
            found: Dict[str, Any] = self._tables.get(stats_pair(conversation_id)) or self._empty_stats()
            return found

        _compute_stats = conversation_stats

    return Memory


def cache_class(level2: Any) -> Any:
    """The class that takes the place of level2.SessionCache."""

    class Cache(level2.SessionCache):  # type: ignore[misc]
        """The tokens of a conversation and their weights, in the engine."""

        def _ensure_profile(self) -> None:
            if not self._read_profile_metadata("default"):
                self._write_profile_metadata("default", dict(PROFILE))

        def _fetch_profile_from_sqlite(self, profile: str) -> None:
            return None

        def _weights(self, conversation_id: str) -> Dict[int, float]:
            return dict(self.hot_path.tables.get(b"l2:cache:" + part(conversation_id)) or ())

        def update(self, conversation_id: str, token_ids: Sequence[int]) -> None:
            weights = {token: weight * self.decay for token, weight in self._weights(conversation_id).items()}
            for token in token_ids:
                weights[token] = weights.get(token, 0.0) + 1.0
            kept = [[token, weights[token]] for token in sorted(weights) if weights[token] > 1e-6]
            self.hot_path.tables.write(put(b"l2:cache:" + part(conversation_id), kept, ttl=DAY))

        def distribution(self, conversation_id: str) -> Dict[int, float]:
            weights = self._weights(conversation_id)
            total = sum(weights.values()) or 1.0
            return {token: weight / total for token, weight in weights.items()}

    return Cache


def bias_pair(conversation: Optional[str], pattern: str, token: int) -> bytes:
    return b"l2:bias:" + conversation_part(conversation) + b"\0" + part_or_hash(pattern) + b"\0" + token_part(token)


def bias_class(level2: Any) -> Any:
    """The class that takes the place of level2.BiasEngine; which of them count is decided by db_slm's own lookup()."""

    class Bias(level2.BiasEngine):  # type: ignore[misc]
        """Biases in the engine, which forgets those that have expired."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self._remembered = Remembered()

        def upsert_bias(
            self, conversation_id: Optional[str], pattern: str, token_id: int, q_bias: int, ttl_seconds: Optional[int] = None
        ) -> None:
            now = self.hot_path.tables.clock()
            until = int(now + ttl_seconds) if ttl_seconds else None
            row = [pattern or "", token_id, q_bias, until, int(now)]
            self.hot_path.tables.write(
                put(bias_pair(conversation_id, pattern or "", token_id), row, ttl=ttl_seconds or None)
            )
            self._remembered.forget(conversation_id)

        def _load_bias_entries(self, conversation_id: Optional[str]) -> List[Dict[str, Any]]:
            found: List[Dict[str, Any]] = self._remembered.get(
                conversation_id, lambda: self._query_bias_entries(conversation_id, self._bias_cache_limit)
            )
            return found

        def _query_bias_entries(self, conversation_id: Optional[str], limit: int) -> List[Dict[str, Any]]:
            """The newest."""
            rows = self.hot_path.tables.rows(b"l2:bias:" + conversation_part(conversation_id) + b"\0")
            entries: List[List[Any]] = [json.loads(row.value or b"") for row in rows]
            entries.sort(key=lambda row: -int(row[4]))
            return [
                {
                    "conversation_id": conversation_id, "pattern": pattern, "token_id": token, "q_bias": q,
                    "expires_at": None if until is None else datetime.fromtimestamp(until, timezone.utc).isoformat(),
                }
                for pattern, token, q, until, _ in entries[:limit]
            ]  # fmt: skip

    return Bias
