"""When a request is sent again.

After a lost connection: only what may be done twice (reads, replacing, upserts, unmapping; never an insert, the counting
of n-grams or the draining of a queue), or what was surely not sent. After a 503: the same, and everything that the
server turned away unread (overloaded, starting, draining).
"""
from __future__ import annotations

import random
from typing import NamedTuple, Optional

from .errors import APIError, CheetahError, ConnectionLost
from .net.errors import TransportError, WriteFailed


class Retry(NamedTuple):
    """attempts: how often a request is sent again at most (0: never). The pause grows from `first` seconds by `factor` up
    to `longest`, and is a random part of that; where the server names one (Retry-After) it is that and a little more; one over `patience` is not waited for."""

    attempts: int = 6
    first: float = 0.1
    factor: float = 2.0
    longest: float = 5.0
    patience: float = 60.0

    def pause(self, attempt: int, retry_after: Optional[float] = None) -> Optional[float]:
        """Seconds before attempt number `attempt` (from 0) is repeated; None: give up."""
        if attempt >= self.attempts:
            return None
        if retry_after is not None:
            return retry_after + random.uniform(0, self.first) if retry_after <= self.patience else None
        ceiling = min(self.longest, self.first * self.factor ** min(attempt, 64))
        return random.uniform(ceiling / 10, ceiling)


def lost(error: TransportError, what: str, repeatable: bool) -> ConnectionLost:
    """The exception for an error of the transport."""
    message = f"{what}: {error or type(error).__name__}"
    if isinstance(error, WriteFailed):
        message += " (the server closed while the request was being sent; it may be larger than the server takes)"
    if error.sent and not repeatable:
        message += " (it may have been done; not sent again)"
    return ConnectionLost(message, may_have_happened=error.sent)


def worth(error: CheetahError, repeatable: bool) -> bool:
    """Whether a request that failed so is sent again."""
    if isinstance(error, ConnectionLost):
        return repeatable or not error.may_have_happened
    if isinstance(error, APIError) and error.status == 503:
        return error.not_started or repeatable
    return False
