"""The Idempotency-Key header: that a POST is to be carried out once, however often it is sent.

Read by a dependency of each route that makes something; the gateway does the rest. This module
must not know what is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import Depends, params
from starlette.requests import HTTPConnection

from harmonia_actors.core.errors import InvalidRequest
from harmonia_serve.auth import caller_of
from harmonia_serve.gateway import Once

__all__ = ["KEY_LENGTH_MAX", "PARAMETER", "OnceOf", "refuses_once", "takes_once"]

_HEADER: Final = "Idempotency-Key"
KEY_LENGTH_MAX: Final = 255
_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{KEY_LENGTH_MAX}}}")

#: How the header is described in the OpenAPI document.
PARAMETER: Final[Mapping[str, Any]] = {
    "name": _HEADER,
    "in": "header",
    "required": False,
    "description": "Any text of your own for this request, such as a UUID: sent again with the "
    "same key and body, it makes nothing new and is answered like the first time; another "
    "request with the same key is a conflict.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": KEY_LENGTH_MAX,
        "pattern": "^[!-~]+$",
    },
}


async def _once(connection: HTTPConnection) -> Once | None:
    sent = connection.headers.getlist(_HEADER)
    if not sent:
        return None
    if len(sent) > 1:
        raise InvalidRequest(f"{_HEADER} is given more than once; send one", {"header": _HEADER})
    if _KEY.fullmatch(sent[0]) is None:
        raise InvalidRequest(
            f"{_HEADER} must have from 1 to {KEY_LENGTH_MAX} visible ASCII characters, without "
            f"spaces; '{sent[0][:100]}' has {len(sent[0])}",
            {"header": _HEADER, "value": sent[0][:100]},
        )
    return Once(caller_of(connection).principal.key_id, sent[0])


#: A route's parameter of this type is what the header says, or None without one.
OnceOf = Annotated[Once | None, Depends(_once)]


def takes_once(route: Any) -> bool:
    """Whether a route reads the header."""
    return any(dependency.call is _once for dependency in route.dependant.dependencies)


async def _refuse(connection: HTTPConnection) -> None:
    if connection.headers.getlist(_HEADER):
        raise InvalidRequest(
            f"{_HEADER} is not taken here: a key's secret is shown once and cannot be shown again "
            "in answer to the same request; leave the header out, and if no answer comes, list "
            "the keys and revoke the one that you did not get",
            {"header": _HEADER},
        )


def refuses_once() -> params.Depends:
    """The dependency of a route that cannot be answered twice."""
    dependency: params.Depends = Depends(_refuse)
    return dependency
