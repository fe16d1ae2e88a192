"""cheetah_db: the old name of cheetah_http, for one release. Every module of it is the module of cheetah_http itself, so
that classes, exceptions and isinstance() are the same under both names. New programs import cheetah_http."""
from __future__ import annotations

import importlib
import sys
import warnings

import cheetah_http
from cheetah_http import *  # noqa: F401,F403
from cheetah_http import __all__, __version__  # noqa: F401

_MODULES = (
    "errors", "payloads", "retry", "types", "wire",
    "_async", "_async.batch", "_async.client", "_async.model", "_async.pairs", "_async.reduce", "_async.service",
    "_async.transport", "_async.values",
    "_sync", "_sync.batch", "_sync.client", "_sync.model", "_sync.pairs", "_sync.reduce", "_sync.service",
    "_sync.transport", "_sync.values",
    "dbslm", "dbslm.adapter", "dbslm.buffer", "dbslm.client", "dbslm.types",
)  # fmt: skip

for _name in _MODULES:
    _module = importlib.import_module("cheetah_http." + _name)
    sys.modules[__name__ + "." + _name] = _module
    if "." not in _name:
        globals()[_name] = _module

warnings.warn(
    "the package cheetah_db is now called cheetah_http (distribution cheetah-http); this name goes with the next release",
    DeprecationWarning,
    stacklevel=2,
)
