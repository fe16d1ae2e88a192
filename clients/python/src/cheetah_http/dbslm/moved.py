"""Levels 2 and 3 between SQLite and the engine, in either direction, and the SQL of others on tables that have moved."""
from __future__ import annotations

import json
import re
import struct
from collections import defaultdict
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ..types import Operation
from .level2 import (
    DAY, EVERYBODY, STAR, Remembered, Stamp, Tables, bias_pair, counted_message, part, part_or_hash, put, second_of, stats_pair, time_of, token_part,
)  # fmt: skip
from .level3 import best_first, concept_pair, signal_pair, template_prefix

MOVED = re.compile(
    r"\b(tbl_l2_conversations|tbl_l2_messages|tbl_l2_window_cache|tbl_l2_correction_log|tbl_l2_token_bias|tbl_l1_session_cache"
    r"|tbl_decode_hparams|tbl_decode_bans|tbl_l3_concept_repo|tbl_l3_verbal_templates|tbl_l3_concept_probs|tbl_l3_concept_signals)\b"
)
AT_ONCE = 2000  # operations of a request
NO_STATS = {"message_count": 0, "user_turns": 0, "assistant_turns": 0, "started_at": None, "updated_at": None}


class Guard:
    """Answers what db_slm's programs ask of the moved tables in SQL; refuses what it does not know, for the tables are empty."""

    def __init__(self, db: Any, tables: Tables) -> None:
        self._tables, self._query, self._execute = tables, db.query, db.execute
        self._bans = Remembered()
        self._answers: Dict[str, Callable[..., List[Dict[str, Any]]]] = {
            "SELECT 1 FROM tbl_l2_conversations WHERE id = ? LIMIT 1": self._conversation,
            "SELECT 1 FROM tbl_l3_verbal_templates WHERE concept_id = ? AND language_code = ? LIMIT 1": self._template,
            "SELECT token_id FROM tbl_decode_bans WHERE profile = ?": self._banned,
        }
        db.query, db.execute = self.query, self.execute

    def query(self, sql: str, params: Optional[Sequence[Any]] = None) -> Any:
        found = MOVED.search(sql)
        if found is None or sql.lstrip()[:6].upper() == "PRAGMA":
            return self._query(sql, params or ())
        answer = self._answers.get(" ".join(sql.split()))
        if answer is None:
            raise _elsewhere(found.group())
        return answer(*(params or ()))

    def execute(self, sql: str, params: Optional[Sequence[Any]] = None) -> Any:
        found = MOVED.search(sql)
        if found is not None and sql.lstrip()[:5].upper() != "ALTER":
            raise _elsewhere(found.group())
        return self._execute(sql, params or ())

    def _conversation(self, conversation: str) -> List[Dict[str, Any]]:
        return [{"1": 1}] if self._tables.has(b"l2:conv:" + part(conversation)) else []

    def _template(self, concept: int, language: str) -> List[Dict[str, Any]]:
        return [{"1": 1} for _ in self._tables.rows(template_prefix(concept, language), 1)]

    def _banned(self, profile: str) -> List[Dict[str, Any]]:
        rows: List[Dict[str, Any]] = self._bans.get(
            profile, lambda: [{"token_id": json.loads(row.value or b"")[0]} for row in self._tables.rows(ban_prefix(profile))]
        )
        return rows


def _elsewhere(table: str) -> NotImplementedError:
    return NotImplementedError(f"{table} is in cheetah-db (levels 2 and 3): see cheetah_http.dbslm.level2, or mirror_to_sqlite()")


def ban_prefix(profile: str) -> bytes:
    return b"l2:ban:" + part(profile) + b"\0"


# ---- from SQLite


def from_sqlite(db: Any, tables: Tables) -> int:
    """Levels 2 and 3 of a file that had them in SQLite; the number of pairs. Upserts of names that follow from the rows: doing it
    again changes nothing. What has expired is left there."""
    waiting: List[Operation] = []
    done = 0
    for operation in _operations(db, tables.clock()):
        waiting.append(operation)
        done += 1
        if len(waiting) >= AT_ONCE:
            tables.run(waiting)
            waiting = []
    if waiting:
        tables.run(waiting)
    return done


def _operations(db: Any, now: float) -> Iterator[Operation]:
    for rows in (_conversations, _corrections, _caches, _profiles, _concepts):
        yield from rows(db)
    yield from _biases(db, now)
    yield from _signals(db, now)


def _ms(text: Optional[str]) -> int:
    """Of a time as SQLite or isoformat() writes it, in UTC."""
    if not text:
        return 0
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1000)


def _conversations(db: Any) -> Iterator[Operation]:
    stats: Dict[str, Dict[str, Any]] = {}
    for row in db.query("SELECT id, user_id, agent_name, created_at FROM tbl_l2_conversations"):
        stats[row["id"]] = NO_STATS
        yield put(b"l2:conv:" + part(row["id"]), [row["user_id"], row["agent_name"], _ms(row["created_at"])])
    for row in db.query("SELECT rowid AS n, id, conversation_id, sender, content, created_at FROM tbl_l2_messages ORDER BY rowid"):
        conversation, at = row["conversation_id"], _ms(row["created_at"])
        stats[conversation] = counted_message(stats.get(conversation, NO_STATS), row["sender"], second_of(at))
        name = b"l2:msg:" + part(conversation) + b"\0" + Stamp(at, row["n"]).name(row["id"])
        yield put(name, [row["id"], row["sender"], row["content"]])
    for conversation, found in stats.items():
        yield put(stats_pair(conversation), found)


def _corrections(db: Any) -> Iterator[Operation]:
    for row in db.query("SELECT rowid AS n, * FROM tbl_l2_correction_log ORDER BY rowid"):
        name = Stamp(_ms(row["created_at"]), row["n"]).name(row["correction_id"])
        fact = json.loads(row["corrected_fact_json"]) if row["corrected_fact_json"] else {}
        yield put(
            b"l2:corr:" + part(row["conversation_id"]) + b"\0" + name,
            [fact, row["correction_id"], row["error_message_id"], row["correction_message_id"], row["error_context"]],
        )


def _caches(db: Any) -> Iterator[Operation]:
    caches: Dict[str, List[List[Any]]] = defaultdict(list)
    for row in db.query("SELECT * FROM tbl_l1_session_cache ORDER BY conversation_id, token_id"):
        caches[row["conversation_id"]].append([row["token_id"], row["recency_weight"]])
    for conversation, weights in caches.items():
        yield put(b"l2:cache:" + part(conversation), weights, ttl=DAY)


def _profiles(db: Any) -> Iterator[Operation]:
    for row in db.query("SELECT profile, lambda_cache, temp, topk, topp FROM tbl_decode_hparams"):
        found = {name: row[name] for name in ("lambda_cache", "temp", "topk", "topp")}
        yield put(b"meta:decode:" + row["profile"].encode(), found)
    for row in db.query("SELECT profile, token_id FROM tbl_decode_bans"):
        yield put(ban_prefix(row["profile"]) + token_part(row["token_id"]), [row["token_id"]])


def _concepts(db: Any) -> Iterator[Operation]:
    last = {"concept": 0, "template": 0}
    for row in db.query("SELECT * FROM tbl_l3_concept_repo"):
        last["concept"] = max(last["concept"], row["concept_id"])
        yield put(b"l3:name:" + part_or_hash(row["concept_name"]), row["concept_id"])
        yield put(concept_pair(row["concept_id"]), [row["concept_name"], json.loads(row["metadata_schema"])])
    for row in db.query("SELECT * FROM tbl_l3_verbal_templates"):
        last["template"] = max(last["template"], row["template_id"])
        prefix = template_prefix(row["concept_id"], row["language_code"])
        yield put(prefix + struct.pack(">Q", row["template_id"]), row["template_string"].encode())
    for name, number in last.items():
        if number:
            yield put(b"l3:last:" + name.encode(), number)
    found: Dict[str, List[List[int]]] = defaultdict(list)
    for row in db.query("SELECT * FROM tbl_l3_concept_probs"):
        found[row["context_hash"]].append([row["concept_id"], row["q_logprob"]])
    for context, rows in found.items():
        yield put(b"l3:prob:" + part(context), best_first(rows))


def _biases(db: Any, now: float) -> Iterator[Operation]:
    """Of one key SQLite may hold several for all conversations, which add up."""
    merged: Dict[bytes, List[Any]] = {}
    for row in db.query("SELECT * FROM tbl_l2_token_bias ORDER BY rowid"):
        until = _ms(row["expires_at"]) // 1000 if row["expires_at"] else None
        if until is not None and until < now:
            continue
        at = _ms(row["updated_at"]) // 1000 if "updated_at" in row.keys() else 0
        name = bias_pair(row["conversation_id"], row["pattern"] or "", row["token_id"])
        before = merged.get(name, ["", 0, 0, None, 0])
        merged[name] = [row["pattern"] or "", row["token_id"], row["q_bias"] + before[2], until, at]
    for name, value in merged.items():
        yield put(name, value, ttl=None if value[3] is None else value[3] - now)


def _signals(db: Any, now: float) -> Iterator[Operation]:
    for row in db.query("SELECT rowid AS n, * FROM tbl_l3_concept_signals"):
        until = _ms(row["expires_at"]) if row["expires_at"] else None
        if until is not None and until <= now * 1000:
            continue
        at = _ms(row["created_at"])
        name = signal_pair(
            row["conversation_id"], row["score"], bool(row["consume_once"]), Stamp(at, row["n"]), row["signal_id"]
        )
        value = [row["concept_id"], row["score"], until, at, row["signal_id"]]
        yield put(name, value, ttl=None if until is None else until / 1000 - now)


# ---- to SQLite


def to_sqlite(sql: Any, tables: Tables) -> Dict[str, int]:
    """Fills the tables of levels 2 and 3 in a transaction; the rows of each."""
    done: Dict[str, int] = {"tbl_l2_window_cache": 0}
    sql.execute("DELETE FROM tbl_l2_window_cache")  # db_slm asks the messages then
    for table, columns, rows in (
        ("tbl_l2_conversations", "id, user_id, agent_name, created_at", _to_conversations(tables)),
        ("tbl_l2_messages", "id, conversation_id, sender, content, created_at", _to_messages(tables)),
        (
            "tbl_l2_correction_log",
            "correction_id, conversation_id, error_message_id, correction_message_id, error_context, corrected_fact_json, created_at",
            _to_corrections(tables),
        ),
        ("tbl_l1_session_cache", "conversation_id, token_id, recency_weight", _to_caches(tables)),
        ("tbl_l2_token_bias", "conversation_id, pattern, token_id, q_bias, expires_at, updated_at", _to_biases(tables)),
        ("tbl_decode_hparams", "profile, lambda_cache, temp, topk, topp", _to_profiles(tables)),
        ("tbl_decode_bans", "profile, token_id", _to_bans(tables)),
        ("tbl_l3_concept_repo", "concept_id, concept_name, metadata_schema", _to_concepts(tables)),
        ("tbl_l3_verbal_templates", "template_id, concept_id, template_string, language_code", _to_templates(tables)),
        ("tbl_l3_concept_probs", "context_hash, concept_id, q_logprob", _to_probabilities(tables)),
        (
            "tbl_l3_concept_signals",
            "signal_id, conversation_id, concept_id, score, expires_at, consume_once, created_at",
            _to_signals(tables),
        ),
    ):
        sql.execute(f"DELETE FROM {table}")
        marks = ",".join("?" * (columns.count(",") + 1))
        sql.executemany(f"INSERT INTO {table}({columns}) VALUES ({marks})", rows)
        done[table] = sql.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
    return done


Rows = Iterator[Tuple[Any, ...]]


def _named(tables: Tables, prefix: bytes) -> Iterator[Tuple[bytes, Any]]:
    """(the rest of the name, the value) of a namespace."""
    for row in tables.rows(prefix, page=5000):
        yield row.pair[len(prefix) :], json.loads(row.value or b"")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None).isoformat(timespec="seconds")


def _to_conversations(tables: Tables) -> Rows:
    for name, (user, agent, at) in _named(tables, b"l2:conv:"):
        yield name.decode(), user, agent, second_of(at)


def _to_messages(tables: Tables) -> Rows:
    for name, (message, sender, text) in _named(tables, b"l2:msg:"):
        yield message, name[:-21].decode(), sender, text, second_of(time_of(name[-20:], b""))


def _to_corrections(tables: Tables) -> Rows:
    for name, (fact, correction, wrong, right, text) in _named(tables, b"l2:corr:"):
        at = second_of(time_of(name[-20:], b""))
        yield correction, name[:-21].decode(), wrong, right, text, json.dumps(fact), at


def _to_caches(tables: Tables) -> Rows:
    for name, weights in _named(tables, b"l2:cache:"):
        yield from ((name.decode(), token, weight) for token, weight in weights)


def _to_biases(tables: Tables) -> Rows:
    for name, (pattern, token, q, until, at) in _named(tables, b"l2:bias:"):
        named = name.split(b"\0", 1)[0]
        conversation = None if named == EVERYBODY else "*" if named == STAR else named.decode()
        yield conversation, pattern, token, q, None if until is None else _iso(until) + "+00:00", second_of(at * 1000)


def _to_profiles(tables: Tables) -> Rows:
    for name, found in _named(tables, b"meta:decode:"):
        yield name.decode(), *(found[key] for key in ("lambda_cache", "temp", "topk", "topp"))


def _to_bans(tables: Tables) -> Rows:
    for name, (token,) in _named(tables, b"l2:ban:"):
        yield name[:-9].decode(), token


def _to_concepts(tables: Tables) -> Rows:
    for name, (concept, schema) in _named(tables, b"l3:id:"):
        yield struct.unpack(">I", name)[0], concept, json.dumps(schema)


def _to_templates(tables: Tables) -> Rows:
    prefix = b"l3:tpl:"
    rows: Iterable[Any] = tables.rows(prefix, page=5000)
    for row in rows:
        name = row.pair[len(prefix) :]
        concept = struct.unpack_from(">Q", name)[0] - (1 << 63)
        yield struct.unpack(">Q", name[-8:])[0], concept, (row.value or b"").decode(), name[9:-9].decode()


def _to_probabilities(tables: Tables) -> Rows:
    for name, rows in _named(tables, b"l3:prob:"):
        yield from ((name.decode(), concept, q) for concept, q in rows)


def _to_signals(tables: Tables) -> Rows:
    """SQLite takes the first that was inserted of those of one second."""
    for kind in (b"l3:sig:", b"l3:sig1:"):
        for name, (concept, score, until, at, signal) in _named(tables, kind):
            expires = None if until is None else _iso(until / 1000)
            yield signal, name[:-37].decode(), concept, score, expires, int(kind == b"l3:sig1:"), second_of(at)
