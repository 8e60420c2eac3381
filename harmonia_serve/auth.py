"""Who may do what: deny by default, on HTTP, WebSocket and SSE alike.

`Authentication` stands before all routing: whatever path is asked for, a key comes first. Each
route then names the scope it needs with a `Guard`. This module must not know how keys are stored.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final, cast
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from harmonia_actors.core.errors import (
    AuthenticationFailed,
    PermissionDenied,
    RateLimitExceeded,
    ServiceUnavailable,
)
from harmonia_actors.settings import Settings
from harmonia_serve.boundary import QUERY_KEYS
from harmonia_serve.credentials import presented_secret, presents_key
from harmonia_serve.gateway import SCOPES, Gateway, Principal
from harmonia_serve.queries import check_query

__all__ = [
    "OPEN_PATHS",
    "OPTIONAL_KEY_PATHS",
    "Authentication",
    "Caller",
    "Guard",
    "caller_of",
    "is_identified",
]

#: The only paths that are served without a key, byte for byte.
OPEN_PATHS: Final = frozenset({"/health", "/ready", "/api/harmonia/health", "/api/harmonia/ready"})
#: Those of them that say more to whoever presents a key.
OPTIONAL_KEY_PATHS: Final = frozenset({"/health", "/api/harmonia/health"})
#: Where browsers read events: they can set no header there.
_STREAMS: Final = "/events/harmonia/executions"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_CALLER: Final = "harmonia.caller"


class Caller:
    """Who sent a request, and the means to ask again whether the key is still good."""

    __slots__ = ("_gateway", "_secret", "principal")

    def __init__(self, gateway: Gateway, principal: Principal, secret: str) -> None:
        self._gateway = gateway
        self._secret = secret
        self.principal = principal

    def __repr__(self) -> str:
        return f"Caller({self.principal.key_id})"

    def demand(self, scope: str) -> None:
        """Raise PermissionDenied unless the key has the scope, or admin."""
        scopes = self.principal.scopes
        if scope in scopes or "admin" in scopes:
            return
        raise PermissionDenied(
            f"This needs a key with the scope '{scope}'; "
            f"the key '{self.principal.name}' has: {', '.join(sorted(scopes)) or 'none'}",
            {"required_scope": scope, "scopes": sorted(scopes)},
        )

    async def confirm(self, scope: str) -> None:
        """Ask the gateway again, for as long as a stream is open.

        Raises AuthenticationFailed (revoked since) or PermissionDenied.
        """
        self.principal = await self._gateway.authenticate(self._secret)
        self.demand(scope)


def caller_of(connection: HTTPConnection) -> Caller:
    """The caller of an authenticated request."""
    return cast("Caller", connection.scope[_CALLER])


def is_identified(connection: HTTPConnection) -> bool:
    """Whether a good key came with a request, which on an open path it need not."""
    return _CALLER in connection.scope


class Authentication:
    """ASGI middleware: finds the key, asks the gateway, counts against the limits."""

    def __init__(self, app: ASGIApp, *, gateway: Gateway, settings: Settings) -> None:
        self._app = app
        self._gateway = gateway
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through to the routes with its `Caller` in the scope.

        Raises AuthenticationFailed, PermissionDenied (a foreign origin), RateLimitExceeded or
        ServiceUnavailable.
        """
        if scope["type"] in ("http", "websocket") and not _is_open(scope):
            if scope["type"] == "websocket":
                check_origin(Headers(scope=scope), self._settings.allowed_origins)
            scope[_CALLER] = await self._identify(scope)
        elif scope.get("path") in OPTIONAL_KEY_PATHS and presents_key(scope):
            # It stays open: whoever has no good key, or one that cannot be looked at now, gets what
            # is there for everybody. A failure counts all the same.
            with suppress(AuthenticationFailed, RateLimitExceeded, ServiceUnavailable):
                scope[_CALLER] = await self._identify(scope)
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope) -> Caller:
        try:
            secret = presented_secret(
                scope,
                scope[QUERY_KEYS],
                query_allowed=_is_stream(scope) and self._settings.query_keys,
            )
            principal = await self._gateway.authenticate(secret)
        except AuthenticationFailed:
            # The peer's own address counts: what X-Forwarded-For says is the client's to choose.
            client = scope.get("client")
            await self._gateway.admit_anonymous(client[0] if client else "unknown")
            raise
        await self._gateway.admit(principal)
        return Caller(self._gateway, principal, secret)


def _is_open(scope: Scope) -> bool:
    """Whether this is one of the open paths as it was sent, not only as it was decoded."""
    if scope["type"] != "http" or scope["path"] not in OPEN_PATHS:
        return False
    raw_path = scope.get("raw_path")
    as_sent = raw_path is None or raw_path.endswith(scope["path"].encode())
    return as_sent and bool(scope["method"] == "GET")


def _is_stream(scope: Scope) -> bool:
    path = str(scope["path"])
    return scope["type"] == "websocket" or path == _STREAMS or path.startswith(f"{_STREAMS}/")


def check_origin(headers: Headers, allowed: tuple[str, ...]) -> None:
    """Refuse a WebSocket that a browser opens for another site. Raises PermissionDenied.

    Programs send no Origin. A browser always does, and a page cannot change it.
    """
    origins = headers.getlist("origin")
    if not origins:
        return
    origin = origins[0]
    if len(origins) == 1 and (origin in allowed or _is_own(origin, headers.get("host", ""))):
        return
    raise PermissionDenied(
        f"WebSockets from the origin '{origin[:100]}' are refused; "
        "add it to HARMONIA_ALLOWED_ORIGINS to allow it",
        {"origin": origin[:100]},
    )


def _is_own(origin: str, host: str) -> bool:
    try:
        site = urlsplit(origin)
        own = urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(site.scheme)
        same_port = (site.port or default) == (own.port or default)
    except ValueError:
        return False
    return default is not None and site.hostname == own.hostname and same_port and bool(own.netloc)


class Guard:
    """A route's dependency: the scope that it needs, and the query parameters that it knows."""

    def __init__(self, scope: str) -> None:
        if scope not in SCOPES:
            raise ValueError(f"there is no scope '{scope}'; there are: {', '.join(SCOPES)}")
        self.scope = scope

    async def __call__(self, connection: HTTPConnection) -> None:
        """Raise PermissionDenied, or ValidationFailed for a parameter that the route lacks."""
        caller_of(connection).demand(self.scope)
        check_query(connection)
