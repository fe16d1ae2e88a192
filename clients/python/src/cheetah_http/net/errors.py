"""What goes wrong below HTTP. None of it leaves the package: retry.lost() makes a ConnectionLost of it."""
from __future__ import annotations


class TransportError(Exception):
    """sent: the server may have got the whole request, so that it may be done."""

    sent = True


class NotConnected(TransportError):
    """No connection could be made."""

    sent = False


class WriteFailed(TransportError):
    """The server closed before all of the request was handed over: it never does such a one."""

    sent = False
