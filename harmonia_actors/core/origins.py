"""Origins of web pages as browsers send them: scheme, host, and the port unless it is the usual.

Browsers send one form only, and it is compared byte by byte; people write others as well.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

__all__ = ["origin_as_sent"]

_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?/?"
)
_USUAL_PORTS: Final = {"http": 80, "https": 443}
_OF_WEBSOCKETS: Final = {"ws": "http", "wss": "https"}
_PORT_MAX: Final = 65_535


def origin_as_sent(text: str) -> str:
    """What a browser sends as the origin of pages at `text`. Raises ValueError.

    A wildcard is refused: nothing that a browser sends would be equal to it.
    """
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        raise ValueError(f"'{text}' is not an origin: {_advice(text)}")
    scheme, host, port = found.groups()
    if host.startswith("["):
        host = f"[{_version_6(host[1:-1], text)}]"
    if port is not None and not 1 <= int(port) <= _PORT_MAX:
        raise ValueError(f"'{text}' is not an origin: {_advice('')}")
    shown = "" if port is None or int(port) == _USUAL_PORTS.get(scheme) else f":{int(port)}"
    if scheme in _OF_WEBSOCKETS:
        page = f"{_OF_WEBSOCKETS[scheme]}://{host}{shown}"
        raise ValueError(f"'{text}' is not an origin: that of a page is like {page}, also here")
    return f"{scheme}://{host}{shown}"


def _version_6(address: str, text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(address))
    except ValueError:
        raise ValueError(f"'{text}' is not an origin: {_advice('')}") from None


def _advice(text: str) -> str:
    if "*" in text:
        return "there are no wildcards, name each"
    if not text.isascii():
        return "write the host as browsers send it, in ASCII (xn--…)"
    if re.match(r"[^/?#]+://[^/?#]+[/?#]", text):
        return "it has no path, and nothing else after host and port"
    return "it must be like https://dash.example.com or http://127.0.0.1:8080"
