"""The vocabulary and the settings of a model in the engine: install(sqlite=False). DB-SLM's SQLite is then one in memory, which is
filled at the start and saved as it changes.

    voc:i:<id u32>      [text, control]          a word; its frequency is its count at the root, cnt:1
    voc:t:<text>        id
    voc:m:<key>         text, or null            a row of tbl_metadata; also cheetah:windows, the number of windows counted

What is in SQLite's memory alone, and is made anew at each start: the quantizer's tables (constants), the rows of the context
__cheetah__ (see level1). tbl_l1_mkn_params and tbl_l1_counts_of_counts, which reports read, are empty until the next smoothing.

A file that is there is taken over when the engine does not have its vocabulary yet, with all that it holds; it is not written to.

Words are saved before anything that refers to them. Token ids are given out by one program at a time: where another one has given
the same id to another word, ModelMismatch.
"""
from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import sqlite3
import struct
from typing import Any, List, Optional, Sequence, Tuple
from urllib.parse import quote

from .. import payloads
from .._sync.client import Client
from ..errors import APIError, BatchFailed, ConnectionLost
from ..types import Operation
from .hotpath import ModelMismatch
from .level2 import part_or_hash, put
from .mirror import MARK

AT_ONCE = 2000  # words of a request
WINDOWS = b"voc:m:cheetah:windows"
Word = Tuple[int, str, int]  # id, text, control


def database_of(path: str, base: str) -> str:
    """The database of a model that has no file to say so: of its path."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", os.path.splitext(os.path.basename(path))[0])[:32]
    base = re.sub(r"[^A-Za-z0-9_-]", "_", base)[:20] or "dbslm"
    return f"{base}-{stem}-{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:8]}"


def file_url(path: str) -> str:
    return "file:" + quote(os.path.abspath(path)) + "?mode=ro"


def database_in(path: str) -> Optional[str]:
    """The one that a file names, if there is a file and it does."""
    if not os.path.isfile(path):
        return None
    file = sqlite3.connect(file_url(path), uri=True)
    try:
        row = file.execute("SELECT value FROM tbl_metadata WHERE key = 'cheetah:database'").fetchone()
    except sqlite3.OperationalError:  # a file without tables
        return None
    finally:
        file.close()
    return None if row is None else str(row[0])


def word_pair(token: int) -> bytes:
    return b"voc:i:" + struct.pack(">I", token)


def _has(client: Client, pair: bytes) -> bool:
    try:
        return client.pair_get(pair) is not None
    except APIError as error:
        if error.code != "database_not_found":
            raise
        return False


class Vocabulary:
    """Keeps tbl_l1_vocabulary and tbl_metadata of an SQLite database in memory and the engine the same."""

    def __init__(self, db: Any, client: Client, path: str) -> None:
        self._db, self._client, self._closed = db, client, False
        taken_over = False
        if _has(client, b"voc:m:cheetah:model"):
            self._load()
        elif os.path.isfile(path):
            taken_over = True
            self._take_over(path)
        sql = db._conn
        sql.execute("CREATE TEMP TABLE cheetah_changed (n INTEGER PRIMARY KEY, kind TEXT, key)")
        for table, column, what in (
            ("tbl_metadata", "NEW.key", "INSERT"), ("tbl_metadata", "NEW.key", "UPDATE"), ("tbl_metadata", "OLD.key", "DELETE"),
            ("tbl_l1_vocabulary", "NEW.token_id", "INSERT"),
        ):  # fmt: skip
            sql.execute(
                f"CREATE TEMP TRIGGER cheetah_{table}_{what} AFTER {what} ON {table} "
                f"BEGIN INSERT INTO cheetah_changed(kind, key) VALUES ('{table}', {column}); END"
            )
        sql.execute("INSERT INTO cheetah_changed(kind, key) SELECT 'tbl_metadata', key FROM tbl_metadata")
        if taken_over:
            sql.execute("INSERT INTO cheetah_changed(kind, key) SELECT 'tbl_l1_vocabulary', token_id FROM tbl_l1_vocabulary")
        self._own_close, db.close, db.cheetah_save = db.close, self.close, self.save
        atexit.register(self.close)

    # ---- at the start

    def _load(self) -> None:
        counts = self._client.pair_value(b"cnt:1:" + payloads.ROOT)
        seen = dict(payloads.decode_counts(counts).followers) if counts else {}
        words = []
        for row in self._client.pairs(b"voc:i:", values=True):
            text, control = json.loads(row.value or b"")
            token = struct.unpack(">I", row.pair[6:])[0]
            words.append((token, text, control, seen.get(token, 0)))
        kept = {row.pair[6:].decode(): json.loads(row.value or b"") for row in self._client.pairs(b"voc:m:", values=True)}
        windows = int(kept.pop("cheetah:windows", None) or 0)
        with self._db.transaction() as sql:
            sql.executemany(
                "INSERT INTO tbl_l1_vocabulary(token_id, token_text, is_control, freq_global) VALUES (?, ?, ?, ?)", words
            )
            sql.executemany(
                "INSERT OR REPLACE INTO tbl_metadata(key, value) VALUES (?, ?)",
                [row for row in kept.items() if row[1] is not None],
            )
            if windows:
                sql.execute("INSERT INTO tbl_l1_ng_counts_1(context_hash, next_token_id, count) VALUES (?, 0, 0)", (MARK,))
                sql.execute(
                    "INSERT INTO tbl_l1_context_registry(context_hash, order_size, token_ids, parent_hash, total_count, hot_rank) "
                    "VALUES (?, 0, '', '__root__', ?, 0.0)",
                    (MARK, windows),
                )

    def _take_over(self, path: str) -> None:
        """All of a file, to memory."""
        file = sqlite3.connect(file_url(path), uri=True)
        try:
            file.backup(self._db._conn)
        finally:
            file.close()
        if hasattr(self._db, "_bootstrap_schema"):  # tables that a later DB-SLM has
            self._db._bootstrap_schema()

    # ---- saving

    def save(self) -> None:
        """What has changed since the last time: words first, then the settings in one commit."""
        changed = self._db._conn.execute("SELECT kind, key, MAX(n) FROM cheetah_changed GROUP BY kind, key").fetchall()
        if not changed:
            return
        self._save_words([row[1] for row in changed if row[0] == "tbl_l1_vocabulary"])
        keys = [row[1] for row in changed if row[0] == "tbl_metadata"]
        if keys:
            self._client.run([self._setting(key) for key in keys] + self._windows(), atomic=True)
        self._db._conn.execute("DELETE FROM cheetah_changed WHERE n <= ?", (max(row[2] for row in changed),))

    def _setting(self, key: str) -> Operation:
        """null stands for a row that is gone."""
        return put(b"voc:m:" + key.encode(), self._db.get_metadata(key))

    def _windows(self) -> List[Operation]:
        total = self._db.scalar("SELECT total_count FROM tbl_l1_context_registry WHERE context_hash = ?", (MARK,), default=0)
        return [put(WINDOWS, str(total))]

    def _save_words(self, tokens: Sequence[int]) -> None:
        for i in range(0, len(tokens), AT_ONCE):
            marks = ",".join("?" * len(tokens[i : i + AT_ONCE]))
            rows = self._db._conn.execute(
                f"SELECT token_id, token_text, is_control FROM tbl_l1_vocabulary WHERE token_id IN ({marks})", tokens[i : i + AT_ONCE]
            )
            self._add([(row[0], row[1], row[2]) for row in rows.fetchall()])

    def _add(self, words: List[Word]) -> None:
        while words:
            operations = []
            for token, text, control in words:
                operations.append(put(word_pair(token), [text, control], if_absent=True))
                operations.append(put(b"voc:t:" + part_or_hash(text), token))
            try:
                self._client.run(operations, atomic=True, results=False)
            except BatchFailed as error:
                if error.operation.status != 412:
                    raise
                words = self._missing(words)
            except ConnectionLost:
                words = self._missing(words)
            else:
                return

    def _missing(self, words: List[Word]) -> List[Word]:
        """Those that the engine does not have; ModelMismatch if it has others under their ids."""
        missing = []
        found = self._client.pair_many([word_pair(token) for token, _, _ in words])
        for word, pair in zip(words, found):
            if pair is None or pair.value is None:
                missing.append(word)
            elif json.loads(pair.value)[0] != word[1]:
                raise ModelMismatch(
                    f"another program has added words to the vocabulary in {self._client.database}: token {word[0]} is "
                    f"{json.loads(pair.value)[0]!r} there and {word[1]!r} here; start again"
                )
        return missing

    def close(self) -> None:
        """Saves, and closes the database in memory."""
        if not self._closed:
            self._closed = True
            self.save()
            self._own_close()


def save(db: Any) -> None:
    """Of a database whose vocabulary is kept in the engine: what has changed is there when this returns."""
    kept = getattr(db, "cheetah_save", None)
    if kept is not None:
        kept()


def without_file(own: Any, client: Client, path: str, database: Optional[str], base: str, **more: Any) -> Any:
    """DB-SLM's DatabaseEnvironment in memory, with the vocabulary and the settings of the engine."""
    db = own(":memory:", **more)
    if path != ":memory:":
        db.path = path
        name = database or database_in(path) or database_of(path, base)
        Vocabulary(db, client.on(name), path)
        if db.get_metadata("cheetah:database") is None:
            db.set_metadata("cheetah:database", name)
    return db
