"""Trains DB-SLM on a text with level 1 in the engine, decodes, and prints the hit rate and the decoder's latency as a table.

    PYTHONPATH=DB-SLM/src python3 -m cheetah_http.dbslm.smoke TEXT [--url URL] [--characters N] [--prompts N]

A model in memory, whose database is dropped at the end. The table is Markdown, for a README.
"""
from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any, Dict, List

from .install import install
from .run import DEFAULT_URL


def quantile(values: List[float], part: float) -> float:
    """The value that so large a part of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def timed(call: Any, into: List[float]) -> Any:
    """The call, whose seconds are noted."""

    def run(*arguments: Any, **more: Any) -> Any:
        begin = time.perf_counter()
        try:
            return call(*arguments, **more)
        finally:
            into.append(time.perf_counter() - begin)

    return run


def measure(text: str, prompts: int) -> Dict[str, str]:
    """The rows of the table."""
    from db_slm import DBSLMEngine  # type: ignore[import]

    engine = DBSLMEngine(":memory:", ngram_order=3)
    if not hasattr(engine.store, "mirror_to_sqlite"):
        raise SystemExit("smoke: no server: DB-SLM counts in SQLite")
    begin = time.perf_counter()
    tokens = engine.train_from_text(text)
    training, words = time.perf_counter() - begin, text.split()
    lookups: List[float] = []
    answers: List[float] = []
    engine.store.get_topk = timed(engine.store.get_topk, lookups)
    respond = timed(engine.respond, answers)
    chosen, before = random.Random(1), engine.store._points.requests
    for i in range(prompts):
        random.seed(i)
        at = chosen.randrange(max(1, len(words) - 6))
        respond(engine.start_conversation("smoke", seed_history=False), " ".join(words[at : at + 6]))
    return {
        "tokens trained": str(tokens),
        "seconds of training": f"{training:.2f}",
        "answers": str(len(answers)),
        "best followers asked for; found": f"{len(lookups)}; {100 * engine.store.topk_hit_ratio():.0f} %",
        "requests for them and for metadata": str(engine.store._points.requests - before),
        "of the best followers, ms: median, 95 %": f"{1000 * quantile(lookups, 0.5):.2f}, {1000 * quantile(lookups, 0.95):.2f}",
        "of an answer, ms: median, 95 %": f"{1000 * quantile(answers, 0.5):.1f}, {1000 * quantile(answers, 0.95):.1f}",
    }


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m cheetah_http.dbslm.smoke", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("--url", default=DEFAULT_URL)
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
