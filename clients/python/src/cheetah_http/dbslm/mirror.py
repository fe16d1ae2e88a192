"""Level 1 between the engine and the tables of SQLite, in either direction; levels 2 and 3: see moved."""
from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from .. import payloads
from .._sync.client import Client
from .buffer import WriteBuffer
from .level2 import Tables
from .moved import to_sqlite as levels_to_sqlite
from .types import ROOT, hash_of, hash_tokens, pair_name

MARK = "__cheetah__"  # the context hash of the rows in SQLite that stand for counts in the engine


def has_counts(db: Any) -> bool:
    """Does the file have counts of level 1 that are not in the engine?"""
    return bool(db.query("SELECT 1 FROM tbl_l1_ng_counts_1 WHERE context_hash <> ? LIMIT 1", (MARK,)))


def from_sqlite(db: Any, client: Client, order: int) -> int:
    """Counts and contexts of a file that was trained without the engine. Upserts: doing it again changes nothing. The number
    of tokens that the file has counted."""
    buffer = WriteBuffer(client, 20_000, 8 << 20, 0)
    contexts = db.query("SELECT context_hash, token_ids FROM tbl_l1_context_registry WHERE context_hash <> ?", (MARK,))
    for row in contexts:
        tokens = [int(token) for token in row["token_ids"].split(",") if token]
        vector = b"ctxv:" + payloads.context_vector(tokens) if tokens else None
        buffer.put_context(pair_name("ctx", row["context_hash"]), payloads.encode_context(len(tokens), tokens), vector)
    total = 0
    for n in range(1, order + 1):
        rows = db.query(
            f"SELECT context_hash, next_token_id, count FROM tbl_l1_ng_counts_{n} WHERE context_hash <> ? "
            "ORDER BY context_hash, next_token_id",
            (MARK,),
        )
        for context, group in groupby(rows, key=lambda row: str(row["context_hash"])):
            followers = [(row["next_token_id"], row["count"]) for row in group]
            total += sum(count for _, count in followers) if n == 1 else 0
            buffer.put(pair_name(f"cnt:{n}", context), payloads.encode_counts(n, followers))
    buffer.flush()
    return total


def to_sqlite(db: Any, client: Client, order: int, tables: Optional[Tables] = None) -> Dict[str, int]:
    """Fills the tables of level 1 from the engine, and where it has them those of levels 2 and 3, in one transaction. The rows of
    each."""
    done: Dict[str, int] = {}
    totals: "Counter[str]" = Counter()
    with db.transaction() as sql:

        def fill(table: str, columns: str, rows: Iterable[Tuple[Any, ...]]) -> None:
            sql.execute(f"DELETE FROM {table}")
            marks = ",".join("?" * (columns.count(",") + 1))
            sql.executemany(f"INSERT INTO {table}({columns}) VALUES ({marks})", rows)
            done[table] = sql.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]

        for n in range(1, order + 1):
            counts = list(_counts(client, n))
            for context, _, count in counts:
                totals[context] += count
            fill(f"tbl_l1_ng_counts_{n}", "context_hash, next_token_id, count", counts)
            fill(
                f"tbl_l1_ng_probs_{n}", "context_hash, next_token_id, q_logprob, backoff_alpha",
                ((c, *entry) for c, p in rows_of(client, "probabilities", b"prob:%d:" % n)
                 for entry in payloads.decode_probabilities(p).entries),
            )  # fmt: skip
            fill(
                f"tbl_l1_ng_topk_{n}", "context_hash, k_rank, next_token_id, q_logprob",
                ((c, rank, token, q) for c, p in rows_of(client, "topk", b"topk:%d:" % n)
                 for rank, (token, q) in enumerate(payloads.decode_topk(p).ranked, 1)),
            )  # fmt: skip
        fill(
            "tbl_l1_continuations", "token_id, num_contexts",
            (tuple(payloads.decode_continuation(p)) for _, p in rows_of(client, "continuations", b"cont:")),
        )  # fmt: skip
        fill(
            "tbl_l1_context_registry", "context_hash, order_size, token_ids, parent_hash, total_count, hot_rank",
            ((c, len(t), ",".join(map(str, t)), hash_tokens(t[1:]) if t else ROOT, totals[c], 0.0)
             for c, t in _contexts(client)),
        )  # fmt: skip
        if tables is not None:
            done.update(levels_to_sqlite(sql, tables))
        sql.execute("INSERT OR REPLACE INTO tbl_metadata(key, value) VALUES ('cheetah:mirrored', '1')")
    return done


def rows_of(client: Client, mode: str, prefix: bytes) -> Iterator[Tuple[str, bytes]]:
    """(context hash, payload) of a namespace."""
    for row in client.reduce(mode, prefix, decode=False):
        if row.payload is not None:
            yield hash_of(row.pair[len(prefix) :]), row.payload


def _counts(client: Client, order: int) -> Iterator[Tuple[str, int, int]]:
    for context, payload in rows_of(client, "counts", b"cnt:%d:" % order):
        for token, count in payloads.decode_counts(payload).followers:
            yield context, token, count


def _contexts(client: Client) -> Iterator[Tuple[str, List[int]]]:
    for context, payload in rows_of(client, "contexts", b"ctx:"):
        yield context, list(payloads.decode_context(payload).tokens)
