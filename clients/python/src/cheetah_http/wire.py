"""How bytes, keys and lines look on the wire; the request that the transports send."""
from __future__ import annotations

import base64
import json
from operator import index
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Union

from .errors import APIError, ProtocolError, error_of
from .net.http1 import CHUNKED, Incoming

MAX_KEY = (1 << 48) - 1
MAX_TTL = 100 * 366 * 86400  # seconds
MAX_PAIR = 4096
PIECE = 256 << 10  # bytes of a body that is read while it is sent
NDJSON = "application/x-ndjson"
RAW = "application/octet-stream"

Param = Union[str, int, bool, None]


class Pieces:
    """A body that is sent while it is read, in chunks: of a file that is open for reading bytes, or of anything that yields some."""

    def __init__(self, source: Union[BinaryIO, Iterable[bytes]]) -> None:
        self._source: Any = source
        self._begun = False
        self._start: Optional[int] = None  # of a file that can go back there
        if isinstance(source, (str, bytes)) or not (hasattr(source, "read") or hasattr(source, "__iter__")):
            raise TypeError(f"bytes, a file or an iterable of bytes is expected, not {type(source).__name__}")
        if hasattr(source, "read") and getattr(source, "seekable", bool)():
            self._start = self._source.tell()

    def __iter__(self) -> Iterator[bytes]:
        self._begun = True
        for piece in self._read() if hasattr(self._source, "read") else self._source:
            if not isinstance(piece, (bytes, bytearray, memoryview)):
                raise TypeError(f"a piece of a body is bytes, not {type(piece).__name__}")
            if len(piece) > 0:
                yield bytes(piece)

    def _read(self) -> Iterator[Any]:
        while piece := self._source.read(PIECE):
            yield piece

    def again(self) -> bool:
        """Can it be sent once more? A file goes back to where it was."""
        if self._begun and self._start is not None:
            self._source.seek(self._start)
            self._begun = False
        return not self._begun


class Call(NamedTuple):
    """A request. repeatable: it may be sent again after a lost connection, which may mean that it is done twice.
    gone_is_done: a 404 after such a repetition means that the first attempt did it."""

    method: str
    path: str
    params: Mapping[str, Param] = {}
    content: Optional[bytes] = None
    content_type: Optional[str] = None
    accept: Optional[str] = None
    repeatable: bool = True
    gone_is_done: bool = False
    content_encoding: Optional[str] = None
    conditions: Mapping[str, str] = {}
    pieces: Optional[Pieces] = None  # in place of content

    def under(self, conditions: Mapping[str, str]) -> "Call":
        """With these headers. After a lost connection it could meet what it has done itself, so it is not sent again then."""
        return self._replace(conditions=conditions, repeatable=self.repeatable and not conditions)

    def length(self) -> Optional[int]:
        """Of the body; None: there is none."""
        if self.pieces is not None:
            return CHUNKED
        return None if self.content is None else len(self.content)

    def query(self) -> Dict[str, str]:
        return {name: text(value) for name, value in self.params.items() if value is not None}

    def headers(self) -> Dict[str, str]:
        headers = dict(self.conditions)
        if self.content_type is not None:
            headers["Content-Type"] = self.content_type
        if self.content_encoding is not None:
            headers["Content-Encoding"] = self.content_encoding
        if self.accept is not None:
            headers["Accept"] = self.accept
        return headers


def text(value: Param) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def unb64(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError):
        raise ProtocolError(f"base64 is expected, not {data!r:.100}") from None


def name_of(line: Mapping[str, Any]) -> bytes:
    """The pair (or prefix) of a line: as text if it is that and was asked for so."""
    return str(line["name"]).encode() if "name" in line else unb64(line["pair"] if "pair" in line else line["prefix"])


def bytes_of(line: Mapping[str, Any], member: str) -> Optional[bytes]:
    """The value (or payload) of a line likewise; None if there is none."""
    if "text" in line:
        return str(line["text"]).encode()
    value = line.get(member)
    return unb64(value) if isinstance(value, str) else None


def url_bytes(data: bytes) -> str:
    """A byte string for a URL: hexadecimal, which needs no escapes; `*` is the empty one."""
    return "x" + bytes(data).hex() if data else "*"


def checked_conditions(if_absent: bool, if_match: Optional[str]) -> Dict[str, str]:
    """The headers of a call that is done only if nothing is there, or if what is there has the tag (`*`: any)."""
    if if_absent and if_match is not None:
        raise ValueError("if_absent and if_match exclude each other")
    if if_absent:
        return {"If-None-Match": "*"}
    return {} if if_match is None else {"If-Match": if_match}


def checked_ttl(ttl: Optional[float]) -> Optional[float]:
    if ttl is not None and not 0.001 <= ttl <= MAX_TTL:
        raise ValueError(f"a ttl is a number of seconds from 0.001 to {MAX_TTL}, not {ttl!r}")
    return ttl


def checked_key(key: int) -> int:
    if type(key) is not int:
        key = _integer(key)
    if not 1 <= key <= MAX_KEY:
        raise ValueError(f"a key is an integer from 1 to 2^48-1, not {key!r}")
    return key


def _integer(key: Any) -> int:
    """Also of numpy."""
    try:
        if not isinstance(key, bool):
            return index(key)
    except TypeError:
        pass
    raise ValueError(f"a key is an integer from 1 to 2^48-1, not {key!r}")


def tokens_of(tokens: Any) -> List[int]:
    """A list for JSON of a list, a tuple, an array, a numpy array, or anything that yields integers."""
    if isinstance(tokens, list):
        return tokens
    whole = getattr(tokens, "tolist", None)
    return list(whole() if whole is not None else tokens)


def checked_pair(pair: bytes) -> bytes:
    if not isinstance(pair, (bytes, bytearray, memoryview)):
        raise TypeError(f"a pair is a byte string, not {type(pair).__name__}")
    if not 1 <= len(pair) <= MAX_PAIR:
        raise ValueError(f"a pair has 1 to {MAX_PAIR} bytes, not {len(pair)}")
    return bytes(pair)


def checked_value(value: bytes) -> bytes:
    if not isinstance(value, bytes):
        try:
            value = memoryview(value).tobytes()  # also of an array, and of numpy's
        except TypeError:
            raise TypeError(f"a value is a byte string or a buffer, not {type(value).__name__}") from None
    if not value:
        raise ValueError("a value has at least one byte")
    return value


def checked_limit(limit: Optional[int], name: str = "limit") -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"{name} must be at least 1, not {limit}")


def _plain(value: Any) -> int:
    return index(value)  # numpy's integers; TypeError if it is none


_encode = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def dump(value: Any) -> bytes:
    return _encode(value).encode()


def ndjson(values: Iterable[Any]) -> bytes:
    return b"".join(dump(value) + b"\n" for value in values)


class Members(Dict[str, Any]):
    """A JSON object of an answer, which has what it is asked for."""

    def __missing__(self, name: str) -> Any:
        raise ProtocolError(f"an answer has no {name!r}: {dict(self)!r:.100}")


def end_of(line: Mapping[str, Any]) -> Members:
    """What the end line of a stream says."""
    if not isinstance(line["end"], dict):
        raise ProtocolError(f"an end line is no object: {line!r:.100}")
    return Members(line["end"])


def parse_line(line: bytes, request_id: Optional[str] = None) -> Dict[str, Any]:
    """One line of a stream; an error line is raised."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a line of a stream is not JSON: {line[:100]!r}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"a line of a stream is not an object: {line[:100]!r}")
    if isinstance(value.get("error"), dict):
        raise error_of(value["error"], request_id)
    return value


class Lines:
    """Cuts chunks into lines; what follows the last newline waits for the next chunk."""

    def __init__(self) -> None:
        self._rest: List[bytes] = []  # a list: a line of many megabytes comes in very many chunks

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        first, *more = chunk.split(b"\n")
        self._rest.append(first)
        if not more:
            return iter(())
        lines = [b"".join(self._rest), *more]
        self._rest = [lines.pop()]
        return (line for line in lines if line)


def body_of(response: Incoming) -> Members:
    """The JSON object of an answer."""
    try:
        value = json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{response.status_code}: the answer is not JSON: {response.content[:100]!r}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"{response.status_code}: the answer is not a JSON object: {response.content[:100]!r}")
    return Members(value)


def redirected(response: Incoming, what: str) -> ProtocolError:
    """The exception for an answer from 300 to 399: nothing was done, and no cheetah-db answers so."""
    to = response.headers.get("Location")
    return ProtocolError(f"{what}: answered {response.status_code}" + ("" if to is None else f", go to {to!r:.200}"))


def failure_of(response: Incoming) -> APIError:
    """The exception for an answer of 400 and over that has been read; also where a proxy gave it."""
    request_id = response.headers.get("X-Request-Id")
    retry_after: Optional[float] = None
    try:
        retry_after = max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        pass  # none, or a date
    problem: Any = None
    try:
        problem = json.loads(response.content)
    except (ValueError, RecursionError):
        pass
    if not isinstance(problem, dict) or "code" not in problem:
        body = response.content[:200].decode("utf-8", "replace")
        problem = {"title": response.reason_phrase, "code": "unknown", "detail": body}
    problem["status"] = response.status_code
    return error_of(problem, request_id, retry_after)
