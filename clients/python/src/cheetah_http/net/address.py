"""Where a server is, read out of a URL.

    http://host:port[/below]    https://host:port[/below]    unix:/path/of/the/socket
"""
from __future__ import annotations

import base64
import ssl
from typing import NamedTuple, Optional, Tuple, Union
from urllib.parse import quote, unquote, urlsplit

Verify = Union[bool, str, ssl.SSLContext]
Certificate = Optional[Union[str, Tuple[str, str]]]


class Address(NamedTuple):
    """name: for people and errors, "host:port" or "unix:/path". host: for the header. path: of a unix socket. below: what stands before
    every path. user: "name:password" of the URL."""

    url: str
    name: str
    host: str
    port: int
    path: Optional[str]
    below: str
    tls: Optional[ssl.SSLContext]
    server_name: Optional[str]
    user: Optional[str]


def address_of(url: str, verify: Verify = True, cert: Certificate = None) -> Address:
    """ValueError: it is none."""
    if url.startswith("unix:"):
        path = url[5:]
        if path.startswith("//"):  # unix:///run/x
            path = path[2:]
        if not path.startswith("/"):
            raise ValueError(f"unix: is followed by an absolute path, not {url!r}")
        return Address(url, url, "localhost", 0, path, "", None, None, None)
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"a URL starts with http://, https:// or unix:, not {url!r}")
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    name, port = parts.hostname, parts.port or (443 if tls else 80)
    if not name or parts.query or parts.fragment:
        raise ValueError(f"a URL of a server is http://HOST:PORT, not {url!r}")
    shown = f"[{name}]" if ":" in name else name
    host = shown if parts.port is None else f"{shown}:{port}"
    user = None if parts.username is None else f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    below = quote(parts.path.rstrip("/"), safe="/%")
    clean = f"{parts.scheme}://{host}{below}"
    context = _context(verify, cert) if tls else None
    return Address(clean, f"{shown}:{port}", host, port, None, below, context, name, user)


def authorization(address: Address, token: Optional[str]) -> Optional[str]:
    if token:
        return f"Bearer {token}"
    return None if address.user is None else "Basic " + base64.b64encode(address.user.encode()).decode()


def _context(verify: Verify, cert: Certificate) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        context = verify
    else:
        context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
        if verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    if isinstance(cert, str):
        context.load_cert_chain(cert)
    elif cert is not None:
        context.load_cert_chain(*cert)
    return context
