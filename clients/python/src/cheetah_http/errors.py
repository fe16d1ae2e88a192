"""Everything that the client raises.

    CheetahError (a RuntimeError)
      ConnectionLost      no answer, or half of one; may_have_happened says whether the server may have done the work
        StreamCut         a stream without its end line
      ProtocolError       an answer that is none of cheetah-db's
      APIError            the server said no: status, code (stable), title, detail (for people), request_id
        BadRequest 400    Unauthorized 401    Forbidden 403    NotFound 404 (also a LookupError)
        Conflict 409      PreconditionFailed 412 (if_absent, if_match)
        TooLarge 413        StorageFull 507  Unavailable 503 (retry_after)
        Gone              410 gone: the log does not reach back as far as changes(after=) asks; oldest
        BatchFailed       409 batch_failed: an operation of an atomic batch failed, nothing was applied
        DamagedValue 500  a line of a stream shows an error in place of its value: key, pair; go on after it with after=
      BatchError          operations of a batch failed (the others were applied): failures
"""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple, Type

__all__ = [
    "APIError", "BadRequest", "BatchError", "BatchFailed", "CheetahError", "Conflict", "ConnectionLost", "DamagedValue",
    "Forbidden", "Gone", "NotFound", "PreconditionFailed", "ProtocolError", "StorageFull", "StreamCut", "TooLarge", "Unauthorized", "Unavailable",
]  # fmt: skip

# 503 answers that are given before a request is looked at; even an insert may be sent again.
NOT_STARTED = frozenset({"overloaded", "starting", "draining"})


class CheetahError(RuntimeError):
    """The base of all. server: host and port of the server that it is about, if it is about one. counted: of ingest(), what was counted before
    it failed. arrived: of queue_drain(), the rows that had arrived."""

    server: Optional[str] = None
    counted: Any = None
    arrived: Any = None

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.server is None else f"{text} (server {self.server})"


class named:
    """with named("host:port"): errors that pass have it as their server."""

    __slots__ = ("_server",)

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        if isinstance(error, CheetahError) and error.server is None:
            error.server = self._server


class ConnectionLost(CheetahError):
    """The connection broke, timed out or was refused, and retries (where they are safe) did not help."""

    def __init__(self, message: str, *, may_have_happened: bool) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened


class StreamCut(ConnectionLost):
    """A stream ended without its end line; what came before is true but not all there is."""


class ProtocolError(CheetahError):
    """The answer does not look like one of cheetah-db."""


class APIError(CheetahError):
    """A problem+json answer, an error line of a stream, or the failure of one operation of a batch."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str = "",
        detail: str = "",
        *,
        request_id: Optional[str] = None,
        retry_after: Optional[float] = None,
        problem: Optional[Mapping[str, Any]] = None,
    ) -> None:
        text = f"{status} {code}: {detail or title}"
        super().__init__(text + (f" (request {request_id})" if request_id else ""))
        self.status, self.code, self.title, self.detail = status, code, title, detail
        self.request_id, self.retry_after = request_id, retry_after
        self.problem: Dict[str, Any] = dict(problem or {})

    @property
    def not_started(self) -> bool:
        """The server turned the request away before doing any of it."""
        return self.status == 503 and self.code in NOT_STARTED


class BadRequest(APIError):
    pass


class Unauthorized(APIError):
    pass


class Forbidden(APIError):
    pass


class NotFound(APIError, LookupError):
    pass


class Conflict(APIError):
    pass


class PreconditionFailed(APIError):
    """What is there is not what if_absent or if_match asks for; nothing was changed."""


class TooLarge(APIError):
    pass


class Unavailable(APIError):
    pass


class StorageFull(APIError):
    pass


class Gone(APIError):
    """What changed after a number cannot be told any more, only what changed after `oldest`."""

    @property
    def oldest(self) -> int:
        return int(self.problem["oldest"])


class BatchFailed(Conflict):
    """An atomic batch was not applied: operation number `index` failed with `operation`."""

    @property
    def index(self) -> int:
        return int(self.problem["index"])

    @property
    def operation(self) -> APIError:
        return error_of(self.problem["operation"], self.request_id)


class DamagedValue(APIError):
    """A value that the server cannot show: its bytes do not match their checksum (corrupt_value), or cannot be read. It is not
    missing. The others are not affected: a scan can go on with after=key, or after=pair."""

    def __init__(self, code: str, key: int, pair: Optional[bytes], line: Mapping[str, Any]) -> None:
        detail = f"the value of key {key} cannot be shown; the server's log and `cheetah-db check` say where it lies"
        super().__init__(500, code, "Internal Server Error", detail, problem=line)
        self.key, self.pair = key, pair


class BatchError(CheetahError):
    """Operations of a batch that failed, by their number in it (None where no results were asked for, and so the numbers
    are not known); all others were applied."""

    def __init__(self, failures: List[Tuple[Optional[int], APIError]]) -> None:
        number, first = failures[0]
        which = "the first" if number is None else f"operation {number}"
        super().__init__(f"{len(failures)} operations of a batch failed; {which}: {first}")
        self.failures = failures


_BY_STATUS: Dict[int, Type[APIError]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 412: PreconditionFailed, 413: TooLarge,
    503: Unavailable, 507: StorageFull,
}  # fmt: skip


def error_of(
    problem: Mapping[str, Any], request_id: Optional[str] = None, retry_after: Optional[float] = None
) -> APIError:
    """The exception for a problem object."""
    status, code = problem.get("status", 500), str(problem.get("code", "unknown"))
    if not isinstance(status, int):
        raise ProtocolError(f"an error has no status: {dict(problem)!r:.100}")
    kind = _BY_STATUS.get(status, APIError)
    if code == "batch_failed":
        kind = BatchFailed
    elif code == "gone":
        kind = Gone
    return kind(
        status, code, str(problem.get("title", "")), str(problem.get("detail", "")),
        request_id=request_id, retry_after=retry_after, problem=problem,
    )  # fmt: skip
