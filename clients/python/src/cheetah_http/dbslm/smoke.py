"""Trains DB-SLM on a text with level 1 in the engine, decodes, and prints the hit rate and the decoder's latency as a table.

    PYTHONPATH=DB-SLM/src python3 -m cheetah_http.dbslm.smoke TEXT [--url URL] [--characters N] [--prompts N]

A model in memory, whose database is dropped at the end. The table is Markdown, for a README.
"""
from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from typing import Any, Dict, List, Optional, Sequence

from .install import install
from .run import default_url


def quantile(values: List[float], part: float) -> float:
    """The value that so large a part of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class Lookups:
    """What the decoder asked for: the best followers of contexts, by order; and what of it went to the server."""

    def __init__(self, store: Any) -> None:
        self.seconds: List[float] = []
        self.asked: "Counter[int]" = Counter()
        self.found: "Counter[int]" = Counter()
        self.read = 0
        self._topk, self._value = store.get_topk, store._points.value
        store.get_topk, store._points.value = self._get_topk, self._get

    def _get(self, pair: bytes) -> Optional[bytes]:
        self.read += pair.startswith(b"topk:")
        found: Optional[bytes] = self._value(pair)
        return found

    def _get_topk(self, context: Sequence[int], order: int, k: int) -> Any:
        begin = time.perf_counter()
        found = self._topk(context, order, k)
        self.seconds.append(time.perf_counter() - begin)
        self.asked[order] += 1
        self.found[order] += bool(found)
        return found

    def rows(self) -> Dict[str, str]:
        rows = {}
        for order in sorted(self.asked, reverse=True):
            asked, found = self.asked[order], self.found[order]
            rows[f"best followers at order {order}: asked, found"] = f"{asked}, {100 * found / asked:.0f} %"
        total = sum(self.asked.values())
        rows["of these without a request (cache)"] = f"{100 * (total - self.read) / total:.0f} %" if total else "-"
        rows["a list, ms: median, 95 %"] = f"{1000 * quantile(self.seconds, 0.5):.3f}, {1000 * quantile(self.seconds, 0.95):.3f}"
        return rows


def measure(text: str, prompts: int) -> Dict[str, str]:
    """The rows of the table."""
    from db_slm import DBSLMEngine  # type: ignore[import]

    engine = DBSLMEngine(":memory:", ngram_order=3)
    if not hasattr(engine.store, "mirror_to_sqlite"):
        raise SystemExit("smoke: no server: DB-SLM counts in SQLite")
    begin = time.perf_counter()
    tokens = engine.train_from_text(text)
    training, words = time.perf_counter() - begin, text.split()
    lookups, answers = Lookups(engine.store), []
    chosen, before, produced = random.Random(1), engine.store._points.requests, 0
    for i in range(prompts):
        random.seed(i)
        at = chosen.randrange(max(1, len(words) - 6))
        talk = engine.start_conversation("smoke", seed_history=False)
        start = time.perf_counter()
        produced += len(engine.respond(talk, " ".join(words[at : at + 6])).split())
        answers.append(time.perf_counter() - start)
    return {
        "tokens trained": str(tokens),
        "seconds of training": f"{training:.4f}",
        "answers, words in them": f"{len(answers)}, {produced}",
        **lookups.rows(),
        "requests for them and for metadata": str(engine.store._points.requests - before),
        "an answer, ms: median, 95 %": f"{1000 * quantile(answers, 0.5):.1f}, {1000 * quantile(answers, 0.95):.1f}",
    }


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m cheetah_http.dbslm.smoke", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("--url", default=default_url(os.environ))
    parser.add_argument("--characters", type=int, default=200_000)
    parser.add_argument("--prompts", type=int, default=20)
    given = parser.parse_args(arguments)
    install(given.url)
    with open(given.text, encoding="utf-8") as file:
        rows = measure(file.read()[: given.characters], given.prompts)
    print("| | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
