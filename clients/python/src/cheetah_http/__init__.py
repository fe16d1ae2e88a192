"""cheetah_http: the client of cheetah-db. Client waits, AsyncClient is for asyncio; both have the same methods.

    from cheetah_http import Client

    with Client("http://127.0.0.1:8080", database="corpus") as db:
        key = db.insert(b"hello")
"""
from . import payloads
from ._async.batch import AsyncBatch
from ._async.client import AsyncClient
from ._sync.batch import Batch
from ._sync.client import Client
from .columns import PairColumns, RecordColumns, TotalColumns
from .errors import (
    APIError, BadRequest, BatchError, BatchFailed, CheetahError, Conflict, ConnectionLost, DamagedValue, Forbidden, Gone,
    NotFound, PreconditionFailed, ProtocolError, StorageFull, StreamCut, TooLarge, Unauthorized, Unavailable,
)  # fmt: skip
from .retry import Retry
from .types import (
    Access, ArpaRead, Association, Candidate, Change, Child, ContextMatch, Counted, CountsOfCounts, Deleted, Found, Inherited, Learned, Link, Linked, LinkedCandidate, LinkedPrediction, Links, LiveCandidate, LivePrediction,
    LiveScore, MatrixMade, MatrixRow, NewValues, Operation, Pair, Prediction, Progress, Row, Score,
    Similar, Smoothed, Stats, Stored, Tagged, Total, Value, Word, WordSimilar, WordTotal, Written,
)  # fmt: skip

__version__ = "0.2.0"
__all__ = [
    "APIError", "Access", "ArpaRead", "Association", "AsyncBatch", "AsyncClient", "BadRequest", "Batch", "BatchError", "BatchFailed", "Candidate",
    "Change", "CheetahError", "Child", "Client", "Conflict", "ConnectionLost", "ContextMatch", "Counted", "CountsOfCounts", "DamagedValue",
    "Deleted", "Forbidden", "Found", "Gone", "Inherited", "Learned", "Link", "Linked", "LinkedCandidate", "LinkedPrediction", "Links", "LiveCandidate", "LivePrediction", "LiveScore", "MatrixMade", "MatrixRow", "NewValues", "NotFound", "Operation", "Pair", "PairColumns", "PreconditionFailed", "Prediction", "Progress", "ProtocolError", "RecordColumns", "Retry", "Row", "Score",
    "Similar", "Smoothed", "Stats", "StorageFull", "Stored", "StreamCut", "Tagged", "TooLarge", "Total", "TotalColumns", "Unauthorized", "Unavailable",
    "Value", "Word", "Written", "payloads",
]  # fmt: skip
