"""The interface of a pool over an httpx client of the caller's: its base_url, headers, time-outs and proxies count."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, AsyncIterator, Iterable, Iterator

from .errors import NotConnected, TransportError, WriteFailed

if TYPE_CHECKING:
    from ..wire import Call


def _translated(error: Exception) -> TransportError:
    import httpx

    message = str(error) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return NotConnected(message)
    return WriteFailed(message) if isinstance(error, httpx.WriteError) else TransportError(message)


async def _awaited(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


class _Answer:
    def __init__(self, response: Any) -> None:
        self._response = response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)


class HttpxAnswer(_Answer):
    def iter_bytes(self) -> Iterator[bytes]:
        import httpx

        try:
            yield from self._response.iter_bytes()
        except httpx.TransportError as error:
            raise _translated(error) from error


class AsyncHttpxAnswer(_Answer):
    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        import httpx

        try:
            async for piece in self._response.aiter_bytes():
                yield piece
        except httpx.TransportError as error:
            raise _translated(error) from error


class _Pool:
    def __init__(self, http: Any) -> None:
        self._http = http

    @property
    def url(self) -> str:
        return str(self._http.base_url).rstrip("/")

    @property
    def name(self) -> str:
        url = self._http.base_url
        return f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"

    def _body(self, call: "Call") -> Any:
        return call.content if call.pieces is None else iter(call.pieces)

    def _request(self, call: "Call") -> Any:
        return self._http.build_request(
            call.method, call.path, params=call.query(), content=self._body(call), headers=call.headers()
        )


class HttpxPool(_Pool):
    def send(self, call: "Call", stream: bool) -> Any:
        import httpx

        try:
            return HttpxAnswer(self._http.send(self._request(call), stream=stream))
        except httpx.TransportError as error:
            raise _translated(error) from error

    def close(self) -> None:
        """It is the caller's."""


class AsyncHttpxPool(_Pool):
    def _body(self, call: "Call") -> Any:
        return call.content if call.pieces is None else _awaited(call.pieces)

    async def send(self, call: "Call", stream: bool) -> Any:
        import httpx

        try:
            return AsyncHttpxAnswer(await self._http.send(self._request(call), stream=stream))
        except httpx.TransportError as error:
            raise _translated(error) from error

    async def aclose(self) -> None:
        """It is the caller's."""
