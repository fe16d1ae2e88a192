"""Content codings: gzip, which Python has, and zstd where the module zstandard is installed."""
from __future__ import annotations

import gzip
import importlib
import zlib
from typing import Any, Optional, Tuple

from .errors import TransportError

zstandard: Any = None
try:
    zstandard = importlib.import_module("zstandard")
except ImportError:
    pass  # gzip it is

LEAST = 1024  # shorter bodies are sent as they are


def readable() -> str:
    """What to ask for: Accept-Encoding."""
    return "gzip" if zstandard is None else "zstd, gzip"


class Unpacker:
    """Of an answer. TransportError: it is damaged, or ends too early."""

    def __init__(self, coding: bytes) -> None:
        self._coding = coding
        self._decoder: Any
        if coding in (b"gzip", b"deflate"):
            self._decoder = zlib.decompressobj(47)
        elif coding == b"zstd" and zstandard is not None:
            self._decoder = zstandard.ZstdDecompressor().decompressobj()
        else:
            raise TransportError(f"the answer is packed with {coding[:40]!r}, which nobody asked for")

    def feed(self, piece: bytes) -> bytes:
        try:
            return bytes(self._decoder.decompress(piece))
        except Exception as error:  # of two libraries
            raise TransportError(f"a body that cannot be unpacked: {error}") from None

    def end(self) -> None:
        if not self._decoder.eof:
            raise TransportError("a packed body that ends too early")


def packed(content: bytes) -> Tuple[bytes, Optional[str]]:
    """A body for the server and its Content-Encoding; as it is if that is no shorter."""
    if len(content) <= LEAST:
        return content, None
    if zstandard is not None:
        short, coding = bytes(zstandard.ZstdCompressor(level=2).compress(content)), "zstd"
    else:
        short, coding = gzip.compress(content, 1), "gzip"
    return (short, coding) if len(short) < len(content) else (content, None)
