"""Programs that train one model at a time take turns: a lock on a file beside that of SQLite, which the system gives back when a program
ends, however it does.

What the engine has counted and what SQLite knows of it change one after the other. Who looked in between, while the other program lives,
would take its document for one that nobody notes any more.
"""
from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any, Optional, Type

try:
    import fcntl
except ImportError:  # no such locks on this system: programs there do not take turns
    fcntl = None  # type: ignore[assignment]


class Turn:
    """`with turn:` waits for the others; it may be taken again within. path: None where nobody else can have the model."""

    def __init__(self, path: Optional[str]) -> None:
        self._path = path if fcntl is not None else None
        self._mine = threading.RLock()
        self._depth = 0
        self._file: Optional[int] = None

    def __enter__(self) -> "Turn":
        self._mine.acquire()
        self._depth += 1
        if self._depth == 1 and self._path is not None:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            except OSError:
                pass  # a folder that cannot be written, or that knows no locks: SQLite could not share its file there either
            except BaseException:
                self._leave()
                raise
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], where: Optional[TracebackType]) -> None:
        self._leave()

    def _leave(self) -> None:
        self._depth -= 1
        if self._depth == 0 and self._file is not None:
            file, self._file = self._file, None
            try:
                fcntl.flock(file, fcntl.LOCK_UN)  # a forked child has the descriptor, too
            except OSError:
                pass  # it was not locked
            os.close(file)
        self._mine.release()


def turn_of(db: Any) -> Turn:
    """Of a DatabaseEnvironment of DB-SLM."""
    path = str(db.path)
    no_file = path == ":memory:" or getattr(db, "cheetah_save", None) is not None
    return Turn(None if no_file else os.path.abspath(path) + "-cheetah")
