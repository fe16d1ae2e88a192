"""Switches the drop-in on when db_slm is imported, not before: importing it here would be too early for most programs."""
from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, Optional, Sequence

NAME = "db_slm.pipeline"  # where DBSLMEngine makes its parts


class _Loader(importlib.abc.Loader):
    """Runs the module, then installs into it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        made: Optional[ModuleType] = self._inner.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        from .install import install

        install(os.environ.get("CHEETAH_DBSLM"), module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self._busy = False

    def find_spec(
        self, name: str, path: Optional[Sequence[Any]], target: Optional[ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if self._busy or not (name == NAME or name.endswith("." + NAME)):
            return None
        self._busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def hook() -> None:
    """Once a process; where db_slm.pipeline has been imported already, it is installed at once."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    if NAME in sys.modules:
        from .install import install

        install(os.environ.get("CHEETAH_DBSLM"), module=sys.modules[NAME])
