"""Keys as requests carry them: found in the headers, taken out of the query string.

Pure functions over ASGI scopes. This module must not know which keys are good; `auth` asks the
gateway.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_plus

from starlette.types import Scope

from harmonia_actors.core.errors import AuthenticationFailed

__all__ = [
    "QueryKeys",
    "is_key_name",
    "presented_secret",
    "presents_key",
    "take_query_keys",
]

_QUERY_NAME: Final = "api_key"
#: Printable ASCII without spaces; whatever else is sent cannot be one of our keys.
_SECRET: Final = re.compile(r"[\x21-\x7e]{1,256}")


class QueryKeys:
    """Keys that were in a query string. It shows nothing of them when it is printed."""

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(secrets)

    def __repr__(self) -> str:
        return f"QueryKeys({len(self._secrets)})"

    def reveal(self) -> tuple[str, ...]:
        """The keys themselves."""
        return self._secrets


def take_query_keys(scope: Scope) -> QueryKeys:
    """Take every `api_key` out of the scope's query string, in place, and return the values.

    In place, because the server logs from the same scope object later on.
    """
    query: bytes = scope.get("query_string", b"")
    if not query:
        return QueryKeys(())
    kept: list[bytes] = []
    taken: list[str] = []
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if is_key_name(name.decode("latin-1")):
            taken.append(unquote_plus(value.decode("latin-1")))
        else:
            kept.append(pair)
    if taken:
        scope["query_string"] = b"&".join(kept)
    return QueryKeys(taken)


def is_key_name(name: str) -> bool:
    """Whether a query parameter's name means the key, however it is escaped or capitalised."""
    return unquote_plus(name).strip().lower() == _QUERY_NAME


def presents_key(scope: Scope) -> bool:
    """Whether a request has a key in its headers, good or not; an empty header has none."""
    names = (b"x-api-key", b"authorization")
    return any(name in names and value.strip() for name, value in scope["headers"])


def presented_secret(scope: Scope, query_keys: QueryKeys, *, query_allowed: bool) -> str:
    """The one key that a request presents. Raises AuthenticationFailed if it is not just one."""
    found = _from_headers(scope)
    in_query = query_keys.reveal()
    if in_query and not query_allowed:
        raise AuthenticationFailed(
            "A key in the query string is not accepted here; "
            "send it in the X-API-Key header or as Authorization: Bearer"
        )
    if len(in_query) > 1:
        raise AuthenticationFailed("api_key is given more than once; send one key")
    found.extend(in_query)
    if not found:
        raise AuthenticationFailed(
            "An API key is required: send it in the X-API-Key header or as Authorization: Bearer"
        )
    if not all(_SECRET.fullmatch(secret) for secret in found):
        raise AuthenticationFailed("The API key is empty or malformed")
    first = found[0]
    if not all(hmac.compare_digest(first, other) for other in found[1:]):
        raise AuthenticationFailed("Two different API keys are given; send one")
    return first


def _from_headers(scope: Scope) -> list[str]:
    """The keys of both headers, one each at most; a header that is there counts, even if empty."""
    plain = [value for name, value in scope["headers"] if name == b"x-api-key"]
    bearer = [value for name, value in scope["headers"] if name == b"authorization"]
    for name, values in (("X-API-Key", plain), ("Authorization", bearer)):
        if len(values) > 1:
            raise AuthenticationFailed(f"{name} is given more than once; send one key")
    found = [value.decode("latin-1").strip() for value in plain]
    for value in bearer:
        kind, _, secret = value.decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            raise AuthenticationFailed("The Authorization header must be: Bearer and the API key")
        found.append(secret.strip())
    return found
