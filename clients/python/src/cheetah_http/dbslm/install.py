"""Puts the engine in the place of DB-SLM's level 1, or of all three; no file of DB-SLM is changed.

    import cheetah_http.dbslm
    cheetah_http.dbslm.install("http://127.0.0.1:8080")
    from db_slm import DBSLMEngine                      # from here on as usual

DBSLMEngine takes its parts from names of the module db_slm.pipeline; these are replaced: build_cheetah_adapter, NGramStore,
MKNSmoother and Tokenizer; ConversationMemory, SessionCache, BiasEngine and ConceptEngine are db_slm's own until levels 2 and 3 of
a model are in the engine (level2=True). Where no server answers: one warning, and db_slm's own parts on SQLite.
"""
from __future__ import annotations

import atexit
import logging
import os
import sys
from types import ModuleType
from typing import Any, Callable, Dict, List, Optional

from .._sync.client import Client
from ..errors import CheetahError
from ..retry import Retry
from .adapter import PROBE_SECONDS, null_adapter
from .hotpath import HotPath
from .level1 import own_store, smoother_class, store_class
from .level2 import bias_class, cache_class, memory_class, tables_of
from .level3 import concepts_class
from .vocabulary import without_file

logger = logging.getLogger(__name__)
ORDER_MAX = 8  # of the engine
NAMES = ("build_cheetah_adapter", "NGramStore", "MKNSmoother", "Tokenizer")
LEVELS = {"ConversationMemory": memory_class, "SessionCache": cache_class, "BiasEngine": bias_class, "ConceptEngine": concepts_class}
DEFAULT_RETRY = Retry(attempts=12)


def install(
    url: Optional[str] = None,
    *,
    database: Optional[str] = None,
    token: Optional[str] = None,
    retry: Retry = DEFAULT_RETRY,
    timeout: float = 120.0,
    level2: Optional[bool] = None,
    sqlite: Optional[bool] = None,
    module: Optional[ModuleType] = None,
) -> None:
    """Level 1 of every DBSLMEngine that is made from now on lives in the engine.

    url         of the server; else CHEETAH_URL, else http:// and DBSLM_CHEETAH_HOST, port 8080
    database    else CHEETAH_DBSLM_DATABASE, else what the SQLite file says, else DBSLM_CHEETAH_DATABASE and 8 digits of the model's id
    token       else CHEETAH_TOKEN
    level2      True: levels 2 and 3, too, and what SQLite has of them is moved there; else CHEETAH_DBSLM_LEVEL2=1. A model whose
                levels 2 and 3 are in the engine stays so
    sqlite      False: the vocabulary and the settings, too, and no file is written (see vocabulary); else CHEETAH_DBSLM_SQLITE=0.
                The database is called after the path, unless it is named or a file of that path says so. CheetahError where no
                server is
    module      db_slm.pipeline, where it is not imported under that name
    """
    pipeline: Any = module
    if pipeline is None:
        from db_slm import pipeline  # type: ignore[import,no-redef]
    known = [name for name in (*NAMES, *LEVELS, "DatabaseEnvironment") if name in NAMES or hasattr(pipeline, name)]
    originals: Dict[str, Any] = pipeline.__dict__.setdefault("_cheetah_originals", {n: getattr(pipeline, n) for n in known})
    level1 = _Level1(originals, pipeline)
    if sqlite is None:
        sqlite = os.environ.get("CHEETAH_DBSLM_SQLITE", "") != "0"
    if level2 is None:
        level2 = os.environ.get("CHEETAH_DBSLM_LEVEL2", "") not in ("", "0")
    builder = _Builder(url, database, token or os.environ.get("CHEETAH_TOKEN"), retry, timeout, level2 or not sqlite)
    if "DatabaseEnvironment" in originals:
        pipeline.DatabaseEnvironment = originals["DatabaseEnvironment"] if sqlite else builder.environment(originals, pipeline)
    for name, make in LEVELS.items():
        if name in originals:
            setattr(pipeline, name, _chooser(originals[name], make))
    pipeline.build_cheetah_adapter = builder
    pipeline.NGramStore = level1.store
    pipeline.MKNSmoother = level1.smoother
    pipeline.Tokenizer = _tokenizer_class(originals["Tokenizer"])


class _Builder:
    """In place of build_cheetah_adapter: the hot path, or db_slm's null adapter."""

    def __init__(
        self, url: Optional[str], database: Optional[str], token: Optional[str], retry: Retry, timeout: float, level2: bool
    ) -> None:
        self._url = url or os.environ.get("CHEETAH_URL")
        self._database = database or os.environ.get("CHEETAH_DBSLM_DATABASE") or None
        self._token, self._retry, self._timeout, self._level2 = token, retry, timeout, level2
        self._warned = False

    def __call__(self, settings: Any, **_: Any) -> Any:
        if settings.backend != "cheetah-db" and not settings.cheetah_mirror:
            return null_adapter()
        url = self._url_of(settings)
        if not _there(url):
            if not self._warned:
                logger.warning("cheetah-db at %s is not there: db_slm counts and smooths in SQLite", url)
            self._warned = True
            return null_adapter()
        return HotPath(self._client(url), self._database, settings.cheetah_database, self._token, self._level2)


    def _url_of(self, settings: Any) -> str:
        return self._url or f"http://{settings.cheetah_host}:8080"

    def _client(self, url: str) -> Client:
        return Client(url, token=self._token, timeout=self._timeout, retry=self._retry)

    def environment(self, originals: Dict[str, Any], pipeline: Any) -> Callable[..., Any]:
        """In place of DatabaseEnvironment: no file."""

        def make(path: Any = ":memory:", max_order: int = 3) -> Any:
            settings = pipeline.load_settings()
            url = self._url_of(settings)
            if not _there(url):
                raise CheetahError(f"sqlite=False needs the engine, and cheetah-db at {url} is not there")
            own, base = originals["DatabaseEnvironment"], settings.cheetah_database
            return without_file(own, self._client(url), str(path), self._database, base, max_order=max_order)

        return make


def _there(url: str) -> bool:
    with Client(url, timeout=PROBE_SECONDS, retry=Retry(attempts=0)) as probe:
        try:
            return probe.ready()
        except CheetahError as error:
            raise CheetahError(f"what answers at {url} is no cheetah-db: {error}") from error


class _Level1:
    """In place of NGramStore and MKNSmoother: the engine's where the hot path leads there, else db_slm's own."""

    def __init__(self, originals: Dict[str, Any], pipeline: Any) -> None:
        class Parts:  # what db_slm.level1 has under these names
            NGramStore, MKNSmoother = originals["NGramStore"], originals["MKNSmoother"]
            TokenCandidate = pipeline.TokenCandidate

        self._own = Parts
        self._store, self._smoother = store_class(Parts), smoother_class(Parts)

    def store(self, db: Any, vocab: Any, order: int, quantizer: Any, *, hot_path: Any = None) -> Any:
        if isinstance(hot_path, HotPath):
            why = _unfit(order, quantizer)
            if why is None:
                made = self._store(db, vocab, order, quantizer, hot_path=hot_path)
                if str(db.path) == ":memory:" and hot_path.named is None:
                    atexit.register(_drop, made.client, hot_path)
                return made
            logger.warning("cheetah-db: %s: db_slm counts and smooths in SQLite", why)
            hot_path.give_up()
            hot_path = null_adapter()
        return own_store(self._own, db, vocab, order, quantizer, hot_path=hot_path)

    def smoother(self, db: Any, store: Any, quantizer: Any, topk: int = 20) -> Any:
        kind = self._smoother if isinstance(store, self._store) else self._own.MKNSmoother
        return kind(db, store, quantizer, topk)


def _chooser(own: Any, make: Callable[[Any], Any]) -> Callable[..., Any]:
    """In place of a class of levels 2 and 3: the engine's where the hot path has them there, else db_slm's own."""
    ours = make(sys.modules[own.__module__])

    def choose(*arguments: Any, **more: Any) -> Any:
        hot_path = more.get("hot_path")
        if hot_path is None and len(arguments) > 1:
            hot_path = getattr(arguments[1], "hot_path", None)  # of the conversation memory
        return (own if tables_of(hot_path) is None else ours)(*arguments, **more)

    return choose


def _unfit(order: int, quantizer: Any) -> Optional[str]:
    """Why the engine cannot hold this model."""
    if order > ORDER_MAX:
        return f"it counts orders up to {ORDER_MAX}, not {order}"
    if (quantizer.Lmin, quantizer.Lmax) != (-12.0, 0.0):
        return f"it quantizes from -12 to 0, not from {quantizer.Lmin} to {quantizer.Lmax}"
    return None


def _drop(client: Client, hot_path: HotPath) -> None:
    """The model of an SQLite database in memory ends with the program: nobody could use its counts any more. What the hot path still
    has to write would make the database anew."""
    hot_path.give_up()
    try:
        once = client.on(client.database)
        once._retry = Retry(attempts=0)
        once.drop_database(client.database)
    except CheetahError as error:
        logger.warning("cheetah-db: database %s of a model in memory is left over: %s", client.database, error)


def _tokenizer_class(own: Any) -> Any:
    """db_slm's Tokenizer, which tells the store what it has encoded: see level1._Scores."""

    class Tokenizer(own):  # type: ignore[misc]
        def encode(self, *arguments: Any, **more: Any) -> List[int]:
            ids: List[int] = super().encode(*arguments, **more)
            recent = getattr(self.vocab, "cheetah_recent", None)
            if recent is not None and len(ids) > 1:
                recent.append(ids[:4096])
            return ids

    Tokenizer.__name__ = Tokenizer.__qualname__ = own.__name__
    return Tokenizer
