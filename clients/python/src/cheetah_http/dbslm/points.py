"""Point reads with little ado: the value of a pair over a connection of its own, a tenth of a millisecond each.

A decoder asks for one small payload a token; a general HTTP client takes most of the time of that. What this reader does not
understand (TLS, a proxy, a redirect, an error, a lost connection) it leaves to the client, with its retries and exceptions.
"""
from __future__ import annotations

import json
import os
import socket
import threading
from typing import Optional
from urllib.parse import quote, urlsplit

from .._sync.client import Client
from ..errors import APIError
from ..wire import unb64

_READ = 1 << 16


class PointReader:
    """pair_value() of a client, faster. Several threads may share one: they take turns."""

    def __init__(self, client: Client, token: Optional[str] = None) -> None:
        self._client = client
        url = urlsplit(client.url)
        self._plain = url.scheme == "http" and url.hostname is not None and url.path in ("", "/")
        self._host, self._port = url.hostname or "", url.port or 80
        head = f"?exact=true&values=true&db={quote(client.database, safe='')} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        self._tail = (head + (f"Authorization: Bearer {token}\r\n" if token else "") + "\r\n").encode("latin-1")
        self._lock = threading.Lock()
        self._socket: Optional[socket.socket] = None
        self._process = os.getpid()
        self.requests = 0  # that were sent

    def value(self, pair: bytes) -> Optional[bytes]:
        """The value of a pair; None if there is no such pair, no value or no such database."""
        self.requests += 1
        if self._plain:
            if self._process != os.getpid():  # the socket is the parent's, who reads answers from it; so may be the lock
                self._lock, self._socket, self._process = threading.Lock(), None, os.getpid()
            with self._lock:
                status, body = self._ask(pair)
            if status == 200:
                text = json.loads(body)["value"]
                return None if text is None else unb64(text)
            if status == 404 and b'"pair_not_found"' in body:
                return None
        try:
            return self._client.pair_value(pair)
        except APIError as error:
            if error.code == "database_not_found":
                return None
            raise

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _ask(self, pair: bytes) -> "tuple[int, bytes]":
        """(status, body); (0, b"") where that did not work out."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection((self._host, self._port), 5.0)
                self._socket.settimeout(30.0)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(b"GET /pairs/x" + pair.hex().encode() + self._tail)
            return self._answer(self._socket)
        except (OSError, ValueError):
            self._drop()
            return 0, b""
        except BaseException:  # KeyboardInterrupt: an answer is still to come, which would be taken for that of the next question
            self._drop()
            raise

    def _answer(self, connection: socket.socket) -> "tuple[int, bytes]":
        data = connection.recv(_READ)
        while b"\r\n\r\n" not in data:
            more = connection.recv(_READ)
            if not more:
                raise ValueError("the connection ended")
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"\r\ncontent-length:")
        if at < 0 or not head.startswith(b"HTTP/1.1 "):
            raise ValueError("not an answer that is understood here")
        length = int(lower[at + 17 :].split(b"\r\n", 1)[0])
        parts, size = [body], len(body)
        while size < length:
            more = connection.recv(_READ)
            if not more:
                raise ValueError("the connection ended")
            parts.append(more)
            size += len(more)
        if size > length or b"\r\nconnection: close" in lower:
            self._drop()
        return int(head[9:12]), b"".join(parts)[:length]
