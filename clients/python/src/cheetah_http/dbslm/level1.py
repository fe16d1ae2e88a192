"""DB-SLM's level 1 with its statistics in the engine: what takes the place of NGramStore and MKNSmoother.

Both are made at install time as subclasses of db_slm's own, so that whatever looks at the types is content. SQLite keeps the
vocabulary, the quantizer, levels 2 and 3, and of level 1 only what others read there:

    tbl_l1_ng_counts_1          one row of the context __cheetah__: there are counts (else every start counts the seed sentence again)
    tbl_l1_context_registry     one row of the same name: total_count is the number of windows (low-resource mode)
    tbl_l1_vocabulary           freq_global, as ever
    tbl_metadata                cheetah:model     the id of the model, in the engine too (meta:dropin:model)
                                cheetah:database  its database
                                cheetah:tokens    tokens that were counted; in the engine the sum of the root's counts
                                cheetah:pending   a document that was sent and not noted yet: {"tokens": n}
                                cheetah:mirrored  the tables in SQLite are those of the engine (mirror_to_sqlite)
                                cheetah:level2    levels 2 and 3 are in the engine, too

A document is counted once: it carries an identifier (POST /ngrams?once=), and is noted as pending before it is sent, in SQLite. Programs that
train one file take turns (turns.py), a document each.
"""
from __future__ import annotations

import json
import logging
import math
import re
import uuid
from collections import Counter, OrderedDict, deque
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

from .. import payloads
from .._sync.client import Client
from ..errors import APIError, Conflict
from .hotpath import HotPath, ModelMismatch
from .level2 import Tables
from .mirror import MARK, from_sqlite, has_counts, rows_of, to_sqlite
from .moved import Guard
from .moved import from_sqlite as levels_from_sqlite
from .points import PointReader
from .turns import turn_of
from .types import ROOT, pair_name
from .vocabulary import save

logger = logging.getLogger(__name__)
MODEL = b"meta:dropin:model"
LEAST = 1e-12  # of a probability, as db_slm has it
CACHE = 20_000  # contexts whose payloads are kept
SCORES = 200_000  # single log probabilities that are kept
AHEAD = 4096  # tokens of one question about a text
RECENT = 4  # texts that were encoded and may be asked about
Progress = Optional[Callable[[str, int, int], None]]
_UNKNOWN = object()


def windows(tokens: int, order: int) -> int:
    """N-grams of orders 1 to `order` in a document."""
    return sum(max(0, tokens - n + 1) for n in range(1, order + 1))


class _Scores:
    """Single log probabilities, asked for a sentence at a time.

    db_slm asks for one token after the other. All of them stand in a text that was encoded just before: at the first question
    the whole rest of that text is asked, in one request."""

    def __init__(self) -> None:
        self.known: Dict[Tuple[Tuple[int, ...], int], Optional[float]] = {}  # None: the token is nowhere
        self.recent: Deque[List[int]] = deque(maxlen=RECENT)

    def rest(self, context: Tuple[int, ...], token: int) -> Optional[List[int]]:
        """The text from this token on, where it is one of those that were encoded: one that has the context before it, else the
        longest that begins with the token."""
        begins: Optional[List[int]] = None
        for text in reversed(self.recent):
            if text[0] == token and (begins is None or len(text) > len(begins)):
                begins = text
            at = -1
            while context:
                try:
                    at = text.index(token, at + 1)
                except ValueError:
                    break
                if at >= len(context) and tuple(text[at - len(context) : at]) == context:
                    return text[at : at + AHEAD]
        return None if begins is None else begins[:AHEAD]


def store_class(level1: Any) -> Any:
    """The class that takes the place of level1.NGramStore."""

    class Store(level1.NGramStore):  # type: ignore[misc]
        """Counts and asks in the engine; the interface is NGramStore's."""

        def __init__(self, db: Any, vocab: Any, order: int, quantizer: Any, *, hot_path: HotPath) -> None:
            super().__init__(db, vocab, order, quantizer, hot_path=hot_path)
            self._logs = [math.log(max(quantizer.dequantize_prob(q), LEAST)) for q in range(256)]
            self._cache: "OrderedDict[Tuple[str, int, str], Any]" = OrderedDict()
            self._scores = _Scores()
            vocab.cheetah_recent = self._scores.recent  # what the tokenizer encodes: see install
            self._asked = self._hits = 0
            self._turn = turn_of(db)
            with self._turn:
                self._repair_schema()
                self.client, self._points = self._bind(hot_path)
                self._mirrored = bool(db.get_metadata("cheetah:mirrored"))
                self.verify()
                if hot_path.level2 or db.get_metadata("cheetah:level2"):
                    self._use_levels()

        def _use_levels(self) -> None:
            """Levels 2 and 3 are in the engine from here on; what SQLite had of them is moved there, once."""
            tables = Tables(self.client, self._points, self._changed)
            if not self.db.get_metadata("cheetah:level2"):
                moved = levels_from_sqlite(self.db, tables)
                if moved:
                    logger.warning("cheetah-db: %d rows of levels 2 and 3 of this SQLite file were moved to the engine", moved)
                self.db.set_metadata("cheetah:level2", "1")
                save(self.db)
            from .quality import use_queue  # here, or python3 -m cheetah_http.dbslm.quality warns that it is imported already

            Guard(self.db, tables)
            self.hot_path.tables = tables
            use_queue(self.hot_path)

        def _changed(self) -> None:
            """Before a write of levels 2 and 3: the copy in SQLite is not up to date any more."""
            if self._mirrored:
                self.db.execute("DELETE FROM tbl_metadata WHERE key = 'cheetah:mirrored'")
                self._mirrored = False
            save(self.db)

        # ---- which model, which database

        def _bind(self, hot_path: HotPath) -> Tuple[Client, PointReader]:
            mine, name = self.db.get_metadata("cheetah:model"), self.db.get_metadata("cheetah:database")
            noted = int(self.db.get_metadata("cheetah:tokens", "0"))
            model = mine or uuid.uuid4().hex
            base = re.sub(r"[^A-Za-z0-9_-]", "_", hot_path.base)[:55] or "dbslm"
            name = hot_path.named or name or f"{base}-{model[:8]}"
            client = hot_path.client.on(name)
            points = PointReader(client, hot_path.token)
            there = points.value(MODEL)
            where = f"database {name} of {client.url}"
            if there is None and noted > 0:
                raise ModelMismatch(f"{where} is empty, and the counts of this SQLite file were there")
            if there is not None and json.loads(there)["model"] != model:
                raise ModelMismatch(f"{where} holds another model: use another database name, or drop it")
            if there is None and mine is None and points.value(b"cnt:1:" + payloads.ROOT) is not None:
                raise ModelMismatch(f"{where} holds counts that are not of this model: use another database name")
            with self.db.transaction() as sql:
                for key, value in (("cheetah:model", model), ("cheetah:database", name)):
                    sql.execute("INSERT OR REPLACE INTO tbl_metadata(key, value) VALUES (?, ?)", (key, value))
            save(self.db)
            if there is None:
                client.pair_put(MODEL, json.dumps({"model": model, "order": self.order}).encode())
            self._model = model
            if noted == 0 and self.db.get_metadata("cheetah:tokens") is None and has_counts(self.db):
                logger.warning("cheetah-db: moving the counts of this SQLite file to %s", where)
                tokens = from_sqlite(self.db, client, self.order)
                client.smooth(orders=f"1-{self.order}")
                self.db.set_metadata("cheetah:tokens", str(tokens))
            hot_path.bind(client, points)
            return client, points

        def _repair_schema(self) -> None:
            """db_slm 0b81371 sorts tbl_l2_token_bias by updated_at, which it never makes: it cannot decode a token."""
            columns = {row["name"] for row in self.db.query("PRAGMA table_info(tbl_l2_token_bias)")}
            if columns and "updated_at" not in columns:
                self.db.execute("ALTER TABLE tbl_l2_token_bias ADD COLUMN updated_at TEXT")

        # ---- counting

        def counted(self) -> int:
            """Tokens that the engine has counted."""
            return sum(count for _, count in self._root_counts())

        def _root_counts(self) -> List[Tuple[int, int]]:
            payload = self._points.value(b"cnt:1:" + payloads.ROOT)
            return payloads.decode_counts(payload).followers if payload else []

        def verify(self) -> None:
            """ModelMismatch where the engine has counted what this file knows nothing of, or less than it knows."""
            with self._turn:
                self._settle()

        def _settle(self) -> None:
            """In turn, so what is pending was sent by a program that died, or when the server was gone: finds out what became of it."""
            self._tokens = int(self.db.get_metadata("cheetah:tokens", "0"))  # other programs count, too
            pending = self.db.get_metadata("cheetah:pending")
            if pending:
                tokens, roots = json.loads(pending)["tokens"], self._root_counts()
                if sum(count for _, count in roots) == self._tokens + tokens:
                    logger.warning("cheetah-db: a document of %d tokens was counted and is noted now", tokens)
                    self._note(tokens, "freq_global = ?", [(count, token) for token, count in roots])
                else:
                    self.db.execute("DELETE FROM tbl_metadata WHERE key = 'cheetah:pending'")
            counted = self.counted()
            if counted != self._tokens:
                raise ModelMismatch(
                    f"database {self.client.database} has counted {counted} tokens, this SQLite file knows of {self._tokens}: "
                    "another program counts into it, or one of both is of an earlier time"
                )

        def _note(self, tokens: int, change: str, frequencies: List[Tuple[int, int]]) -> None:
            """What others read in SQL: that there are counts, how many windows, and the frequencies. One transaction."""
            with self.db.transaction() as sql:
                sql.executemany(f"UPDATE tbl_l1_vocabulary SET {change} WHERE token_id = ?", frequencies)
                sql.execute(
                    "INSERT OR IGNORE INTO tbl_l1_ng_counts_1(context_hash, next_token_id, count) VALUES (?, 0, 0)", (MARK,)
                )
                sql.execute(
                    "INSERT INTO tbl_l1_context_registry"
                    "(context_hash, order_size, token_ids, parent_hash, total_count, hot_rank) "
                    "VALUES (?, 0, '', '__root__', ?, 0.0) "
                    "ON CONFLICT(context_hash) DO UPDATE SET total_count = total_count + excluded.total_count",
                    (MARK, windows(tokens, self.order)),
                )
                sql.execute(
                    "INSERT OR REPLACE INTO tbl_metadata(key, value) VALUES ('cheetah:tokens', ?)",
                    (str(self._tokens + tokens),),
                )
                sql.execute("DELETE FROM tbl_metadata WHERE key IN ('cheetah:mirrored', 'cheetah:pending')")
            self._tokens += tokens
            save(self.db)

        def _still_there(self) -> None:
            """ModelMismatch where the database was dropped, or another server answers at the address by now: what is counted there would
            be noted here, and be missing in the one of this model for ever."""
            there = self._points.value(MODEL)
            if there is None or json.loads(there)["model"] != self._model:
                raise ModelMismatch(
                    f"database {self.client.database} of {self.client.url} is not the one of this model any more: it was dropped, or "
                    "another server answers there"
                )

        def _count(self, ids: List[int]) -> None:
            self._still_there()
            if self.db.get_metadata("cheetah:pending"):
                self._settle()
            self._tokens = int(self.db.get_metadata("cheetah:tokens", "0"))
            self.db.set_metadata("cheetah:pending", json.dumps({"tokens": len(ids)}))
            save(self.db)
            try:
                self.client.ngrams([ids], order=self.order, once=uuid.uuid4().hex)
            except APIError as error:
                if error.status < 500 or error.status == 507:  # nothing of it was done
                    self.db.execute("DELETE FROM tbl_metadata WHERE key = 'cheetah:pending'")
                raise
            self._note(len(ids), "freq_global = freq_global + ?", [(n, t) for t, n in Counter(ids).items()])

        def ingest(self, token_ids: Sequence[int], *, progress_callback: Progress = None) -> None:
            """Counts a document: one request, after a look whether it is the right database."""
            ids = list(token_ids)
            if len(ids) < 2:
                return
            with self._turn:
                self._count(ids)
            if progress_callback:
                progress_callback("vocab", len(ids), len(ids))
                for n in range(1, self.order + 1):
                    if len(ids) >= n:
                        progress_callback(f"order_{n}", len(ids) - n + 1, len(ids) - n + 1)

        # ---- asking

        def forget(self) -> None:
            """After smoothing: nothing that was read before holds any more."""
            self._cache.clear()
            self._scores.known.clear()

        def _cached(self, kind: str, order: int, context: str, load: Callable[[Optional[bytes]], Any]) -> Any:
            key = (kind, order, context)
            found = self._cache.get(key, _UNKNOWN)
            if found is _UNKNOWN:
                found = load(self._points.value(pair_name(f"{kind}:{order}", context)))
                self._cache[key] = found
                if len(self._cache) > CACHE:
                    self._cache.popitem(last=False)
            else:
                self._cache.move_to_end(key)
            return found

        def _candidates(self, payload: Optional[bytes]) -> List[Any]:
            ranked = payloads.decode_topk(payload).ranked if payload else []
            return [
                level1.TokenCandidate(token, self.vocab.token_text(token), self.quantizer.dequantize_prob(q), q)
                for token, q in ranked
            ]

        def get_topk(self, context_ids: Sequence[int], order: int, k: int) -> List[Any]:
            """The best followers of a context, at most k and at most as many as were smoothed."""
            context = self._hash(context_ids[-(order - 1) :]) if order > 1 else ROOT
            found = self._cached("topk", order, context, self._candidates)
            self._asked += 1
            self._hits += bool(found)
            return list(found[:k])

        def token_log_probability(self, context_ids: Sequence[int], next_token_id: int) -> float:
            """Natural logarithm, from the deepest context that has the token."""
            if next_token_id <= 0:
                return math.log(LEAST)
            context = tuple(context_ids[-(self.order - 1) :])
            found = self._scores.known.get((context, next_token_id), _UNKNOWN)
            if found is _UNKNOWN:
                found = self._ask(context, next_token_id)
            return found if isinstance(found, float) else self._nowhere()

        def _nowhere(self) -> float:
            size = self.db.scalar("SELECT COUNT(*) FROM tbl_l1_vocabulary", default=1) or 1
            return math.log(max(1.0 / float(size), LEAST))

        def _ask(self, context: Tuple[int, ...], token: int) -> Optional[float]:
            scores = self._scores
            if len(scores.known) > SCORES:
                scores.known.clear()
            rest = scores.rest(context, token)
            if rest is not None:
                self.ask_ahead(context, rest)
            key = (context, token)
            if key not in scores.known:
                scores.known[key] = self._look_up(context, token)
            return scores.known[key]

        def ask_ahead(self, context: Sequence[int], text: Sequence[int]) -> None:
            """One request for the log probabilities of all tokens of a text that follows the context."""
            tokens, n = [*context, *text], self.order - 1
            if len(tokens) < 2:
                return
            try:
                answer = self.client.score(tokens, max_order=self.order, mode="deepest")
            except Conflict as error:
                if error.code != "not_smoothed":
                    raise
                return  # nothing is known of any token, which the look-ups find too
            for i, (log10, order) in enumerate(zip(answer.per_token, answer.orders), 1):
                value = self._logs[round((log10 + 12) / 12 * 255)] if order else None
                self._scores.known[tuple(tokens[max(0, i - n) : i]), tokens[i]] = value

        def _look_up(self, context: Tuple[int, ...], token: int) -> Optional[float]:
            for order in range(len(context) + 1, 0, -1):
                name = self._hash(context[len(context) - order + 1 :]) if order > 1 else ROOT
                q = self._cached("prob", order, name, _by_token).get(token)
                if q is not None:
                    return float(self._logs[q])
            return None

        def fetch_context_tokens(self, context_hash: str) -> List[int]:
            """The tokens of a context; none of the root and of unknown ones."""
            if context_hash == ROOT:
                return []
            payload = self._points.value(pair_name("ctx", context_hash))
            return list(payloads.decode_context(payload).tokens) if payload else []

        def iter_counts(self, order: int) -> List[Dict[str, Any]]:
            """Rows as SQLite gives them."""
            return [
                {"context_hash": context, "next_token_id": token, "count": count}
                for context, payload in rows_of(self.client, "counts", b"cnt:%d:" % order)
                for token, count in payloads.decode_counts(payload).followers
            ]

        def topk_hit_ratio(self) -> float:
            return self._hits / self._asked if self._asked else 0.0

        def mirror_to_sqlite(self) -> Dict[str, int]:
            """Copies the engine's statistics to the tables of level 1, for programs that read them there, and to go on without
            the engine; levels 2 and 3, too, where they are in the engine. The rows of each table."""
            with self._turn:
                self.verify()
                done = to_sqlite(self.db, self.client, self.order, self.hot_path.tables)
                self._mirrored = True
            return done

        def _not_here(self, *_: Any, **__: Any) -> None:
            raise NotImplementedError("level 1 is in cheetah-db: MKNSmoother.rebuild_order does this there")

        clear_probabilities = store_probabilities = mirror_continuations = _upsert_context = _not_here

    return Store


def smoother_class(level1: Any) -> Any:
    """The class that takes the place of level1.MKNSmoother."""

    class Smoother(level1.MKNSmoother):  # type: ignore[misc]
        """Smooths in the engine; the interface is MKNSmoother's."""

        def rebuild_all(self, progress_callback: Progress = None) -> None:
            """All orders: one request."""
            self._smooth(f"1-{self.store.order}")
            if progress_callback:
                progress_callback("smooth_continuations", 1, 1)
                for n in range(1, self.store.order + 1):
                    progress_callback(f"smooth_{n}", n, self.store.order)

        def rebuild_order(self, order: int) -> None:
            self._smooth(str(order))

        def _smooth(self, orders: str) -> None:
            with self.store._turn:
                self._in_turn(orders)

        def _in_turn(self, orders: str) -> None:
            self.store.verify()
            client = self.store.client
            try:
                results = client.smooth(orders=orders, topk=self.topk)
            except APIError as error:
                if error.code not in ("pair_not_found", "database_not_found"):
                    raise
                return  # nothing was counted yet
            self.store.forget()
            for result in results:  # small tables that reports read
                if result.contexts:
                    found = client.counts_of_counts(b"cnt:%d:" % result.order)
                    buckets = {1: found.n1, 2: found.n2, 3: found.n3, 4: found.n4}
                    self._persist_counts_of_counts(result.order, {k: v for k, v in buckets.items() if v})
                    self._persist_params(result.order, result.d1, result.d2, result.d3, result.contexts)

    return Smoother


def _by_token(payload: Optional[bytes]) -> Dict[int, int]:
    return {token: q for token, q, _ in payloads.decode_probabilities(payload).entries} if payload else {}


def own_store(level1: Any, db: Any, *arguments: Any, **more: Any) -> Any:
    """db_slm's own store, on SQLite; not for a model whose counts are in the engine only."""
    if db.get_metadata("cheetah:model") and (int(db.get_metadata("cheetah:tokens", "0")) > 0 or db.get_metadata("cheetah:level2")):
        if not db.get_metadata("cheetah:mirrored"):
            raise ModelMismatch(
                f"the counts of this model are in cheetah-db, database {db.get_metadata('cheetah:database')}, which is not "
                "there; without it only a model goes on whose store.mirror_to_sqlite() was made after the last change"
            )
        logger.warning("cheetah-db: going on with the copy in SQLite; from now on the model is SQLite's")
    db.execute("DELETE FROM tbl_metadata WHERE key LIKE 'cheetah:%'")
    return level1.NGramStore(db, *arguments, **more)

