# Made by unasync.py from _async/changes.py; change that.
"""What changed, told as it happens."""
from __future__ import annotations

import time
from time import monotonic
from typing import Iterator, Optional

from ..errors import StreamCut, Unavailable
from ..types import Change, change_of
from ..wire import Call, url_bytes
from .transport import Transport

LONGEST = 86_400  # seconds of one request
AGAIN = 0.5  # seconds before a stream that ended early, since its server stops, is asked for again


class Changes(Transport):
    def changes_now(self) -> int:
        """The number of now, for changes(after=): take it before you read what there is."""
        _, end = self._collect(Call("GET", "/changes/*", self._params(after="now")))
        return int(end["next"])

    def changes(
        self, prefix: bytes = b"", *, after: Optional[int] = None, wait: float = 0, progress: bool = False
    ) -> Iterator[Change]:
        """What changed under a prefix after a number (that of the last change that was dealt with; 0: from the beginning of the
        database; now unless given), in the order of the commits, and for `wait` seconds (math.inf: for ever) what changes then. A lost connection, or a stream that the
        server ends since its cluster does not answer in time, is begun again, and goes on after the last change that came; of changes that were committed together some can come twice. progress=True: a Change whose
        nothing_until is true says now and then how far everything has been told, which is worth keeping where changes are few. Gone:
        the server cannot tell any more what came after that number; read all there is again, from changes_now() on."""
        seq = self.changes_now() if after is None else after
        end, attempt, first = monotonic() + wait, 0, True
        while first or monotonic() < end:
            first = begun = False
            left = max(0, int(min(LONGEST, end - monotonic() + 0.999))) if wait else 0
            call = Call("GET", "/changes/" + url_bytes(prefix), self._shown(after=seq, wait=left or None))
            try:
                with self._stream(call) as stream:
                    begun = True
                    for line in stream.lines():
                        attempt = 0
                        change = change_of(line)
                        seq = change.seq
                        if progress or not change.nothing_until:
                            yield change
            except (StreamCut, Unavailable) as error:
                if not begun:  # it was tried often enough
                    raise
                first = True
                self._pause(error, True, attempt)
                attempt += 1
                continue
            if monotonic() < end:
                time.sleep(AGAIN)
