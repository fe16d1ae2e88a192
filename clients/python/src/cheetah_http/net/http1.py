"""The bytes of HTTP/1.1: a request's head, and an answer as it comes in. No sockets here."""
from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional
from urllib.parse import quote

from .errors import TransportError
from .packing import Unpacker

HEAD_MAX = 256 << 10
ONE_WRITE = 32 << 10  # a body up to that goes with its head

_plain_path = re.compile(r"[A-Za-z0-9/_.~*:,-]*\Z").match
_plain_word = re.compile(r"[A-Za-z0-9_.~*:,-]*\Z").match
_hex = re.compile(rb"[0-9A-Fa-f]{1,16}\Z").match  # int() would take a sign, too
_PATH_SAFE = "/%:*@!$&'()+,;="


def target(below: str, path: str, query: Mapping[str, str]) -> str:
    """Path and query of a request; what is not a letter, a digit or harmless is percent-encoded (a + is a plus)."""
    text = below + (path if _plain_path(path) else quote(path, safe=_PATH_SAFE))
    if query:
        text += "?" + "&".join(
            name + "=" + (value if _plain_word(value) else quote(value, safe="*:,")) for name, value in query.items()
        )
    return text


CHUNKED = -1


def request_head(method: str, where: str, fixed: str, headers: Mapping[str, str], length: Optional[int]) -> bytes:
    """fixed: the lines that are the same in every request, each with its line break. length: of the body, or CHUNKED. ValueError: a line
    break in a header."""
    text = f"{method} {where} HTTP/1.1\r\n{fixed}"
    for name, value in headers.items():
        text += f"{name}: {header_value(value)}\r\n"
    if length == CHUNKED:
        text += "Transfer-Encoding: chunked\r\n"
    elif length is not None:
        text += f"Content-Length: {length}\r\n"
    elif method in ("POST", "PUT", "PATCH"):
        text += "Content-Length: 0\r\n"
    return (text + "\r\n").encode("latin-1")


def chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A body whose length is not known, as it is sent; pieces are not empty."""
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def header_value(text: str) -> str:
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError("a header has no line breaks")
    return text


class Headers(Dict[str, str]):
    """By name, in lower case; get() and [] take any."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())


class Incoming:
    """One answer, fed with the bytes of its connection. Attributes are there once `head` is true.

    status_code, reason_phrase, headers    as the server sent them
    content                                the body, if it was read as a whole
    complete                               nothing is to come
    keep                                   the connection can carry another request then
    """

    __slots__ = ("status_code", "content", "head", "complete", "keep", "_raw", "_headers", "_rest", "_left", "_chunked", "_bodyless", "_unpacker")

    def __init__(self, bodyless: bool = False) -> None:
        self.status_code = 0
        self.content = b""
        self.head = self.complete = self.keep = False
        self._raw = b""
        self._headers: Optional[Headers] = None
        self._rest = b""
        self._left = 0  # bytes of the body or of the chunk; -1: until the end of the connection
        self._chunked = False
        self._bodyless = bodyless
        self._unpacker: Optional[Unpacker] = None

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers()
            for line in self._raw.decode("latin-1").split("\r\n")[1:]:
                name, _, value = line.partition(":")
                name, value = name.lower(), value.strip()
                self._headers[name] = f"{self._headers[name]}, {value}" if name in self._headers else value
        return self._headers

    @property
    def reason_phrase(self) -> str:
        return self._raw.split(b"\r\n", 1)[0][13:].decode("latin-1")

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        return json.loads(self.content)

    def feed(self, data: bytes) -> List[bytes]:
        """The pieces of the body in it. TransportError: this is no HTTP."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not self.head:
            data = self._take_head(data)
            if not self.head:
                return []
        if self.complete:
            if data:
                self.keep = False  # nobody asked for that
            return []
        pieces = self._take_chunks(data) if self._chunked else self._take_plain(data)
        if self._unpacker is not None:
            pieces = self._unpacked(pieces)
        return pieces

    def end(self) -> bool:
        """The connection ended: is that the end of the answer?"""
        self.keep = False
        if not self.complete and self.head and self._left < 0:
            self.complete = True
        return self.complete

    def _take_head(self, data: bytes) -> bytes:
        """What stands after the head."""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > HEAD_MAX or not b"HTTP/1.".startswith(data[:7]):
                    raise TransportError(f"what came is no HTTP answer: {data[:40]!r}")
                self._rest = data
                return b""
            if not data.startswith(b"HTTP/1.") or not data[9:12].isdigit():
                raise TransportError(f"what came is no HTTP answer: {data[:40]!r}")
            self.status_code, self._raw = int(data[9:12]), data[:end]
            data = data[end + 4 :]
            if self.status_code >= 200:
                break
        self.head = True
        self._frame(self._raw.lower())
        return data

    def _frame(self, head: bytes) -> None:
        """How long the body is. head: in lower case."""
        connection = _member(head, b"connection")
        self.keep = connection != b"close" if head.startswith(b"http/1.1") else connection == b"keep-alive"
        length = _member(head, b"content-length")
        if self._bodyless or self.status_code in (204, 304):
            self.complete = True
        elif _member(head, b"transfer-encoding") is not None:
            self._chunked = True
        elif length is not None:
            if not length.isdigit():
                raise TransportError(f"a length that is none: {length[:40]!r}")
            self._left = int(length)
            self.complete = self._left == 0
        else:
            self._left, self.keep = -1, False
        coding = _member(head, b"content-encoding")
        if coding and coding != b"identity" and not self._bodyless:
            self._unpacker = Unpacker(coding)

    def _take_plain(self, data: bytes) -> List[bytes]:
        if self._left < 0:
            return [data] if data else []
        if len(data) > self._left:
            data, self.keep = data[: self._left], False
        self._left -= len(data)
        self.complete = self._left == 0
        return [data] if data else []

    def _take_chunks(self, data: bytes) -> List[bytes]:
        """_left: bytes of the chunk and the two of its line break that are to come."""
        pieces, at, end = [], 0, len(data)
        while at < end:
            if self._left > 0:
                take = min(self._left, end - at)
                body = min(take, self._left - 2)
                if body > 0:
                    pieces.append(data[at : at + body])
                at += take
                self._left -= take
                continue
            line = data.find(b"\r\n", at)
            if line < 0:
                break
            word = data[at:line].split(b";", 1)[0].strip()
            if not _hex(word):
                raise TransportError(f"a chunk of no size: {word[:40]!r}")
            size = int(word, 16)
            if size == 0:
                last = line if data[line : line + 4] == b"\r\n\r\n" else data.find(b"\r\n\r\n", line)
                if last < 0:
                    break  # trailers are to come
                self.complete = True
                self.keep = self.keep and last + 4 == end
                return pieces
            at, self._left = line + 2, size + 2
        if at < end:
            self._rest = data[at:]
            if len(self._rest) > HEAD_MAX:
                raise TransportError("a chunk's size is too long")
        return pieces

    def _unpacked(self, pieces: List[bytes]) -> List[bytes]:
        assert self._unpacker is not None
        plain = [self._unpacker.feed(piece) for piece in pieces]
        if self.complete:
            self._unpacker.end()
        return [piece for piece in plain if piece]


def _member(head: bytes, name: bytes) -> Optional[bytes]:
    """The value of a header, whose names are in lower case."""
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    end = head.find(b"\r\n", at + 2)
    return head[at + len(name) + 3 : end if end >= 0 else len(head)].strip()
