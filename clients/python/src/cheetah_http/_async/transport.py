"""Sending requests: retries, errors, and streams that go on where a lost connection left them."""
from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Dict, List, Mapping, Optional, Tuple, Type, TypeVar, Union

from ..errors import APIError, CheetahError, ProtocolError, StreamCut, named
from ..net.address import address_of, authorization
from ..net.asyncio import AsyncAnswer, AsyncPool
from ..net.by_httpx import AsyncHttpxPool
from ..net.errors import TransportError
from ..net.http1 import header_value
from ..net.packing import packed, readable
from ..retry import Retry, lost, worth
from ..types import intact
from ..wire import Call, Lines, Param, body_of, checked_limit, end_of, failure_of, name_of, parse_line, redirected, url_bytes

if TYPE_CHECKING:
    import httpx

Self = TypeVar("Self", bound="AsyncTransport")
Line = Dict[str, Any]


class AsyncStream:
    """The lines of one answer, the end line among them; closes the answer on leaving."""

    def __init__(self, response: AsyncAnswer, call: Call, server: str) -> None:
        self._response, self._call, self._server = response, call, server

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def lines(self) -> AsyncIterator[Line]:
        what = f"{self._call.method} {self._call.path}"
        request_id, lines, ended = self._response.headers.get("X-Request-Id"), Lines(), False
        with named(self._server):
            try:
                async for chunk in self._response.aiter_bytes():
                    for raw in lines.feed(chunk):
                        line = parse_line(raw, request_id)
                        if ended:
                            raise ProtocolError(f"{what}: a line after the end line")
                        ended = "end" in line
                        yield line
            except TransportError as error:
                if not ended:
                    reason = f"{what}: the stream was cut off: {error or type(error).__name__}"
                    raise StreamCut(reason, may_have_happened=True) from error
            if not ended:
                raise StreamCut(f"{what}: the stream has no end line", may_have_happened=True)

    async def __aenter__(self) -> "AsyncStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._response.aclose()


class AsyncTransport:
    """What the parts of the client share: the connections, the database, the retry policy.

    url         where the server (or the load balancer) is: http://HOST:PORT, https://HOST:PORT, or unix:/path/of/its/socket
    database    the database of all calls; a write creates it. See on()
    token       of the server's --tokens file
    timeout     seconds of silence after which a connection counts as lost
    retry       when to send again; Retry(attempts=0) never does
    verify      for https: False, a file of certificate authorities, or an ssl.SSLContext
    text        names and values that are text travel as text and not in base64, which is shorter; the calls return the same
    compress    answers are asked for compressed, and long bodies sent so: for networks slower than some 50 MB/s. gzip, or zstd if
                Python's zstandard is installed
    cert        for https: the certificate to show in place of a token: a file with its key in it, or (certificate, key)
    http        an httpx client of your own in place of the standard library (its base_url, headers and time-outs count); it is not closed
                with this one
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        database: Optional[str] = None,
        token: Optional[str] = None,
        timeout: float = 60.0,
        retry: Retry = Retry(),
        verify: Union[bool, str, ssl.SSLContext] = True,
        cert: Optional[Union[str, Tuple[str, str]]] = None,
        text: bool = False,
        compress: bool = False,
        http: "Optional[httpx.AsyncClient]" = None,
    ) -> None:
        self._owner = http is None
        self._http: Any
        if http is not None:
            self._http = AsyncHttpxPool(http)
        else:
            address = address_of(url, verify, cert)
            allowed = authorization(address, token)
            fixed = "" if allowed is None else f"Authorization: {header_value(allowed)}\r\n"
            if compress:
                fixed += f"Accept-Encoding: {readable()}\r\n"
            self._http = AsyncPool(address, fixed, timeout)
        self._database, self._retry, self._text, self._compress = database, retry, text, compress

    @property
    def database(self) -> str:
        return self._database or "default"

    @property
    def url(self) -> str:
        return str(self._http.url)

    @property
    def server(self) -> str:
        """Host and port, as errors name them."""
        return str(self._http.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} database={self.database!r}>"

    def on(self: Self, database: str) -> Self:
        """The same client for another database; shares the connections, which close with the first."""
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__)
        other._database, other._owner = database, False
        return other

    async def aclose(self) -> None:
        if self._owner:
            await self._http.aclose()

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.aclose()

    # ---- for the parts of the client

    def _params(self, **params: Param) -> Dict[str, Param]:
        """The parameters of a data call."""
        return {"db": self._database, **params}

    def _shown(self, **params: Param) -> Dict[str, Param]:
        """The parameters of a data call that shows names or values."""
        return {"text": self._text or None, **self._params(**params)}

    async def _open(self, call: Call, stream: bool) -> AsyncAnswer:
        """Sends, again and again where that is safe; the answer is one below 300."""
        attempt, was_lost = 0, False
        if self._compress and call.content is not None:
            content, coding = packed(call.content)
            call = call._replace(content=content, content_encoding=coding)
        while True:
            error: CheetahError
            try:
                response: AsyncAnswer = await self._http.send(call, stream)
                if response.status_code < 300:
                    return response
                try:
                    await response.aread()
                finally:
                    await response.aclose()
                if response.status_code < 400:
                    with named(self.server):
                        raise redirected(response, f"{call.method} {call.path}")
                failure = error = failure_of(response)
                if response.status_code == 404 and was_lost and call.gone_is_done:
                    return response
                was_lost = was_lost or failure.status == 503 and not failure.not_started
            except TransportError as cause:
                error = lost(cause, f"{call.method} {call.path}", call.repeatable)
                error.__cause__ = cause
                was_lost = True
            error.server = self.server
            if call.pieces is not None and not call.pieces.again():
                raise error
            await self._pause(error, call.repeatable, attempt)
            attempt += 1

    async def _pause(self, error: CheetahError, repeatable: bool, attempt: int) -> None:
        """Waits before the next attempt; raises the error if there is to be none."""
        seconds = None
        if worth(error, repeatable):
            seconds = self._retry.pause(attempt, error.retry_after if isinstance(error, APIError) else None)
        if seconds is None:
            raise error
        await asyncio.sleep(seconds)

    async def _send(self, call: Call) -> AsyncAnswer:
        return await self._open(call, stream=False)

    async def _json(self, call: Call) -> Any:
        answer = await self._open(call, stream=False)
        with named(self.server):
            return body_of(answer)

    async def _stream(self, call: Call) -> AsyncStream:
        return AsyncStream(await self._open(call, stream=True), call, self.server)

    async def _collect(self, call: Call, watch: Optional[Callable[[Line], bool]] = None) -> Tuple[List[Line], Line]:
        """All lines and the end of a stream; one that is cut off is asked for again if that is safe. Lines that watch says
        True to are not collected."""
        attempt = 0
        while True:
            lines: List[Line] = []
            end: Line = {}
            try:
                async with await self._stream(call) as stream:
                    async for line in stream.lines():
                        if "end" in line:
                            end = end_of(line)
                        elif watch is None or not watch(line):
                            lines.append(line)
                return lines, end
            except StreamCut as error:
                await self._pause(error, call.repeatable, attempt)
                attempt += 1

    async def _scan(
        self,
        path: str,
        params: Mapping[str, Param],
        after: Union[str, int, None],
        limit: Optional[int],
        page: int,
    ) -> AsyncIterator[Line]:
        """The lines of a stream that takes limit and after, page by page. A page that is cut off is continued after the
        last line that came."""
        checked_limit(limit)
        checked_limit(page, "page_size")
        attempt, left = 0, limit
        while left is None or left > 0:
            last: Optional[Line] = None
            end: Line = {}
            ask = page if left is None else min(page, left)
            try:
                async with await self._stream(Call("GET", path, {**params, "after": after, "limit": ask})) as stream:
                    async for line in stream.lines():
                        if "end" in line:
                            end = end_of(line)
                            continue
                        with named(self.server):
                            intact(line)
                        last, attempt = line, 0
                        if left is not None:
                            left -= 1
                        yield line
            except StreamCut as error:
                if last is not None:
                    after = _position(last)
                if left == 0:
                    return
                await self._pause(error, True, attempt)
                attempt += 1
                continue
            if end.get("next") is None:
                return
            after = end["next"]


def _position(line: Line) -> Union[str, int]:
    """What goes on after a line: its pair or prefix, or of a sweep of values its key, of words its token."""
    if "pair" in line or "name" in line or "prefix" in line:
        return url_bytes(name_of(line))
    return int(line["token"] if "token" in line else line["key"])
