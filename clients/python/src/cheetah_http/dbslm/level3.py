"""DB-SLM's level 3 in the engine: concepts, templates, their probabilities and signals. See level2.

    l3:name:<name>                               id
    l3:id:<id u32>                               [name, schema]
    l3:tpl:<concept>\\0<language>\\0<n u64>        template, as text
    l3:last:concept, l3:last:template            the last id that was given out
    l3:prob:<hash>                               [[concept, q], ...] best first
    l3:sig:<conv>\\0<order>                       [concept, score, until, ms, id]; until it expires
    l3:sig1:<conv>\\0<order>                      the same, of those that are used up by being used: to one caller only

<order> is what SQLite sorts by, so that the first one is the one to take: the score, highest first, as 8 bytes; the second, newest
first, as 8 bytes; then oldest first.
"""
from __future__ import annotations

import json
import sqlite3
import struct
import uuid
from typing import Any, Dict, List, Optional, Tuple

from ..errors import NotFound
from ..types import Pair
from .level2 import Stamp, Tables, part, part_or_hash, put, token_part


def score_part(score: float) -> bytes:
    """8 bytes that sort numbers, highest first."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", score + 0.0))
    ordered = bits ^ (0xFFFFFFFFFFFFFFFF if bits >> 63 else 1 << 63)
    return struct.pack(">Q", ordered ^ 0xFFFFFFFFFFFFFFFF)


def signal_pair(conversation: str, score: float, once: bool, stamp: Stamp, identity: str) -> bytes:
    newest_first = struct.pack(">Q", (1 << 64) - 1 - stamp.ms // 1000)
    kind = b"l3:sig1:" if once else b"l3:sig:"
    return kind + part(conversation) + b"\0" + score_part(score) + newest_first + stamp.name(identity)


def template_prefix(concept: int, language: str) -> bytes:
    return b"l3:tpl:" + token_part(concept) + b"\0" + part(language) + b"\0"


def concept_pair(concept: int) -> bytes:
    return b"l3:id:" + struct.pack(">I", concept)


def best_first(rows: List[List[int]]) -> List[List[int]]:
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def repository_class(level3: Any) -> Any:
    class Repository(level3.ConceptRepository):  # type: ignore[misc]
        """Concepts by name and by number; what is known of one never changes."""

        def __init__(self, db: Any, tables: Tables) -> None:
            super().__init__(db)
            self._tables = tables
            self._known: Dict[int, Any] = {}

        def register(self, concept_name: str, metadata_schema: Dict[str, Any]) -> int:
            tables, name = self._tables, b"l3:name:" + part_or_hash(concept_name)
            given: Optional[int] = None

            def next_id(last: Optional[int]) -> Optional[int]:
                nonlocal given
                given = tables.get(name)
                return (last or 0) + 1 if given is None else None

            made = tables.change(
                b"l3:last:concept",
                next_id,
                lambda number: [put(name, number), put(concept_pair(number), [concept_name, metadata_schema])],
            )
            return int(given if made is None and given is not None else made)

        def fetch_by_name(self, concept_name: str) -> Any:
            number = self._tables.get(b"l3:name:" + part_or_hash(concept_name))
            return None if number is None else self.fetch_by_id(number)

        def fetch_by_id(self, concept_id: int) -> Any:
            if not 0 < concept_id < 1 << 32:
                return None
            if concept_id not in self._known:
                found = self._tables.get(concept_pair(concept_id))
                if found is None:
                    return None
                self._known[concept_id] = level3.ConceptDefinition(concept_id, *found)
            return self._known[concept_id]

    return Repository


def verbalizer_class(level3: Any) -> Any:
    class Verbalizer(level3.Verbalizer):  # type: ignore[misc]
        """Templates; the first of a concept and a language is the one that is used, and never another one after it."""

        def __init__(self, db: Any, tables: Tables) -> None:
            super().__init__(db)
            self._tables = tables
            self._first: Dict[bytes, str] = {}

        def register_template(self, concept_id: int, template_string: str, language_code: str = "en") -> int:
            prefix = template_prefix(concept_id, language_code)

            def pair(number: int) -> bytes:
                return prefix + struct.pack(">Q", number)

            made = self._tables.change(
                b"l3:last:template",
                lambda last: (last or 0) + 1,
                lambda number: [put(pair(number), template_string.encode())],
                lambda number: self._tables.raw(pair(number)) == template_string.encode(),
            )
            return int(made)

        def has_template(self, concept_id: int, language_code: str) -> bool:
            return self._template(concept_id, language_code) is not None

        def _template(self, concept_id: int, language_code: str) -> Optional[str]:
            prefix = template_prefix(concept_id, language_code)
            if prefix not in self._first:
                for row in self._tables.rows(prefix, 1):
                    self._first[prefix] = (row.value or b"").decode()
            return self._first.get(prefix)

        def render(self, concept_id: int, payload: Dict[str, Any], language_code: str = "en") -> str:
            template = self._template(concept_id, language_code)
            if template is None:
                raise RuntimeError(f"Missing template for concept_id={concept_id}")
            return template.format(**payload)

    return Verbalizer


def predictor_class(level3: Any) -> Any:
    class Predictor(level3.ConceptPredictor):  # type: ignore[misc]
        """Which concept follows a context."""

        def __init__(self, db: Any, quantizer: Any, tables: Tables) -> None:
            super().__init__(db, quantizer)
            self._tables = tables

        def record_probability(self, context_hash: str, concept_id: int, probability: float) -> None:
            q = self.quantizer.quantize(probability)

            def replaced(rows: Optional[List[List[int]]]) -> Optional[List[List[int]]]:
                new = best_first([row for row in rows or [] if row[0] != concept_id] + [[concept_id, q]])
                return None if new == rows else new

            self._tables.change(b"l3:prob:" + part(context_hash), replaced)

        def _fetch_row(self, context_hash: str) -> Optional[Dict[str, int]]:
            rows = self._tables.get(b"l3:prob:" + part(context_hash))
            return {"concept_id": rows[0][0], "q_logprob": rows[0][1]} if rows else None

    return Predictor


def concepts_class(level3: Any) -> Any:
    """The class that takes the place of level3.ConceptEngine."""
    repository, verbalizer, predictor = repository_class(level3), verbalizer_class(level3), predictor_class(level3)

    class Concepts(level3.ConceptEngine):  # type: ignore[misc]
        """Concepts and signals in the engine."""

        def __init__(self, db: Any, memory: Any, quantizer: Any) -> None:
            super().__init__(db, memory, quantizer)
            self._tables: Tables = memory.hot_path.tables
            self.repo, self.verbalizer = repository(db, self._tables), verbalizer(db, self._tables)
            self.predictor = predictor(db, quantizer, self._tables)

        def push_signal(
            self,
            conversation_id: str,
            concept_name: str,
            score: float = 1.0,
            ttl_seconds: Optional[int] = 300,
            consume_once: bool = True,
        ) -> str:
            concept = self.repo.fetch_by_name(concept_name)
            if not concept:
                raise ValueError(f"Concept '{concept_name}' is not registered")
            if score != score:
                raise sqlite3.IntegrityError("NOT NULL constraint failed: tbl_l3_concept_signals.score")
            signal, tables = str(uuid.uuid4()), self._tables
            stamp = tables.stamp()
            until = stamp.ms + int(ttl_seconds * 1000) if ttl_seconds else None
            pair = signal_pair(conversation_id, score, bool(consume_once), stamp, signal)
            tables.write(put(pair, [concept.concept_id, score, until, stamp.ms, signal], ttl=ttl_seconds or None))
            return signal

        def _first_signal(self, kind: bytes, conversation_id: str) -> Tuple[bytes, Optional[Pair]]:
            """(what it is ordered by, the pair) of the best one that is alive."""
            prefix, now = kind + part(conversation_id) + b"\0", self._tables.clock() * 1000
            for limit in (8, None):  # the first are alive, as a rule
                rows = list(self._tables.rows(prefix, limit))
                for row in rows:
                    until = json.loads(row.value or b"")[2]
                    if until is None or until > now:
                        return row.pair[len(prefix) :], row
                if len(rows) < 8:
                    break
            return b"\xff" * 64, None

        def _next_signal(self, conversation_id: str) -> Any:
            while True:
                once, lasting = (self._first_signal(kind, conversation_id) for kind in (b"l3:sig1:", b"l3:sig:"))
                _, row = min(once, lasting, key=lambda found: found[0])
                if row is None:
                    return None
                concept, score = json.loads(row.value or b"")[:2]
                if row is once[1] and not self._take(row.pair):
                    continue
                return level3.ConceptPrediction(concept, min(max(score, 0.0), 1.0))

        def _take(self, pair: bytes) -> bool:
            """Whether it is this caller who has used it up."""
            try:
                self._tables.client.pair_delete(pair, values=True)
            except NotFound:
                return False
            return True

    return Concepts
