"""DB-SLM's quality queue in the engine: answers that its QualityGate flags wait under queue:quality:<ms u64><seq u32><id>, a JSON
object each, as it would write them to its file.

    python3 -m cheetah_http.dbslm.quality --url URL --database NAME            how many wait
    python3 -m cheetah_http.dbslm.quality --url URL --database NAME --to FILE  moves them to a file, for scripts/drain_queue.py
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
import weakref
from typing import Any, Dict, List, Optional, Tuple

from .._sync.client import Client
from ..types import Operation
from ..wire import b64
from .level2 import Tables, put
from .run import default_url

PREFIX = b"queue:quality:"
AT_ONCE = 1000


class QualityQueue:
    """Records on their way to being trained on, oldest first."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def push(self, record: Dict[str, Any]) -> None:
        self.push_line(json.dumps(record))

    def push_line(self, line: str) -> None:
        self._tables.write(put(PREFIX + self._tables.stamp().name(uuid.uuid4().hex), line.encode()))

    def count(self) -> int:
        return self._tables.client.count(PREFIX)

    def drain(self, limit: Optional[int] = None) -> List[Dict[str, Any]]:
        """Takes the oldest; each goes to one caller only."""
        rows = self._tables.client.queue_drain(PREFIX, limit=limit)
        return [json.loads(row.payload) for row in rows if row.payload is not None]


class _Lines:
    """What QualityGate takes for the path of its file: lines that are written go to the queue."""

    def __init__(self, queue: QualityQueue) -> None:
        self._queue = queue

    def open(self, *_: Any, **__: Any) -> "_Lines":
        return self

    def write(self, text: str) -> None:
        self._queue.push_line(text.rstrip("\n"))

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None


_current: Dict[str, "weakref.ref[Any]"] = {}  # the hot path whose queue the gates write to


def use_queue(hot_path: Any) -> None:
    """Gates that exist, or are made from now on, write to the queue of this model."""
    _current["hot_path"] = weakref.ref(hot_path)
    gate = getattr(sys.modules.get("db_slm.evaluation"), "QualityGate", None)
    if gate is None or hasattr(gate, "_cheetah_process"):
        return
    own = gate._cheetah_process = gate.process

    def process(self: Any, *arguments: Any, **more: Any) -> Any:
        found = _current["hot_path"]()
        tables = getattr(found, "tables", None)
        if tables is None:
            return own(self, *arguments, **more)
        path = self.path
        self.path = _Lines(QualityQueue(tables))
        try:
            return own(self, *arguments, **more)
        finally:
            self.path = path

    gate.process = process


def drain_to(client: Client, path: str) -> int:
    """Appends the records to a file, a line each, and takes them from the queue when they are safely there. Killed in between, it
    writes some of them again; of two at a time both would write them all."""
    done = 0
    while True:
        rows = [row for row in client.pairs(PREFIX, values=True, limit=AT_ONCE) if row.value is not None]
        if not rows:
            return done
        with open(path, "ab") as file:
            file.write(b"".join((row.value or b"") + b"\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
        client.run([Operation({"op": "pair_del", "pair": b64(row.pair), "values": True}) for row in rows])
        done += len(rows)


def parsed(arguments: List[str]) -> Tuple[Client, Optional[str]]:
    parser = argparse.ArgumentParser(prog="python3 -m cheetah_http.dbslm.quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default=default_url(os.environ))
    parser.add_argument("--database", required=True)
    parser.add_argument("--to", metavar="FILE")
    given = parser.parse_args(arguments)
    return Client(given.url, database=given.database, token=os.environ.get("CHEETAH_TOKEN")), given.to


def main(arguments: List[str]) -> int:
    client, path = parsed(arguments)
    with client:
        print(client.count(PREFIX) if path is None else drain_to(client, path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
