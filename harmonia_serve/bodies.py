"""Request bodies: read within bounds, parsed once as strict JSON, checked against a schema.

Malformed JSON and wrong types are an InvalidRequest (400), a body over the cap too (413); a field
that is missing, unknown or out of bounds is a ValidationFailed (422). What a definition means is
the gateway's to judge. This module must not know routes.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from harmonia_actors.core.errors import InvalidRequest
from harmonia_actors.core.jsontext import nests_deeper
from harmonia_actors.settings import Settings
from harmonia_serve.gateway import JsonObject
from harmonia_serve.shapes import refuse_many_unknown, shape_error

__all__ = ["parse_object", "read_object", "read_optional_object"]

_Model = TypeVar("_Model", bound=BaseModel)

#: Larger bodies are parsed in a thread, so that other requests and streams go on meanwhile.
_INLINE_BYTES_MAX: Final = 64 * 1024
#: Where nothing is to be said, an empty object may be written with so much white space.
_NO_BODY_BYTES_MAX: Final = 4_096
_DRAIN_FACTOR: Final = 4
_DRAIN_S: Final = 2.0
_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_object(
    request: Request, settings: Settings, model: type[_Model]
) -> tuple[JsonObject, _Model]:
    """The request's body as it was sent, and as the model that it fits.

    Raises InvalidRequest or ValidationFailed; each names the place and the way out.
    """
    _check_media_type(request)
    raw = await _read_bytes(request, settings, settings.body_bytes_max)
    if not raw:
        raise InvalidRequest("The request has no body; send a JSON object")
    if len(raw) <= _INLINE_BYTES_MAX:
        return _parse_and_check(raw, settings, model)
    return await asyncio.to_thread(_parse_and_check, raw, settings, model)


async def read_optional_object(request: Request, settings: Settings) -> None:
    """Accept no body or an empty JSON object, where there is nothing to be said."""
    raw = await _read_bytes(request, settings, _NO_BODY_BYTES_MAX)
    if raw and parse_object(raw, settings):
        raise InvalidRequest("This request takes no body; leave it out or send {}")


def _parse_and_check(
    raw: bytes, settings: Settings, model: type[_Model]
) -> tuple[JsonObject, _Model]:
    document = parse_object(raw, settings)
    refuse_many_unknown(document, model)
    try:
        return document, model.model_validate(document, strict=True)
    except ValidationError as error:
        raise shape_error(error, model) from None


def _check_media_type(request: Request) -> None:
    sent = request.headers.get("content-type", "")
    kind, _, parameters = sent.partition(";")
    if kind.strip().lower() != "application/json":
        raise InvalidRequest(
            f"The body's Content-Type must be application/json, not '{sent[:100]}'",
            {"content_type": sent[:100]},
        )
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        is_charset = name.lower() == "charset"
        if is_charset and value.strip('"').lower() not in ("utf-8", "utf8"):
            raise InvalidRequest(f"The body's charset must be utf-8, not '{value[:100]}'")


async def _read_bytes(request: Request, settings: Settings, most: int) -> bytes:
    """The whole body, never more than the cap of it in memory."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise InvalidRequest(
            f"Content-Encoding '{encoding[:50]}' is not accepted; send the body uncompressed",
            {"content_encoding": encoding[:50]},
        )
    announced = request.headers.get("content-length", "")
    stream = request.stream()
    if announced.isdecimal() and int(announced[:20]) > most:
        if "expect" not in request.headers:
            await _drain(stream, most)
        raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_read_timeout_s):
            async for chunk in stream:
                size += len(chunk)
                if size > most:
                    break
                parts.append(chunk)
    except TimeoutError:
        raise InvalidRequest(
            f"The body did not arrive within {settings.body_read_timeout_s:g} s",
            {"received_bytes": size},
        ) from None
    if size > most:
        parts.clear()
        await _drain(stream, most)
        raise _too_large(most)
    return b"".join(parts)


async def _drain(stream: AsyncIterator[bytes], most: int) -> None:
    """Read on for a while, keeping nothing; if the stream has come to its end, that is all.

    Most clients send all they have before they read an answer, and never see it if the connection
    is closed meanwhile.
    """
    left = _DRAIN_FACTOR * most
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            async for chunk in stream:
                left -= len(chunk)
                if left < 0:
                    return


def _too_large(most: int) -> InvalidRequest:
    return InvalidRequest(
        f"The body is larger than the {most} bytes that are allowed",
        {"limit_bytes": most},
        too_large=True,
    )


def parse_object(raw: bytes, settings: Settings) -> JsonObject:
    """A JSON object from UTF-8 text, strictly. Raises InvalidRequest.

    Refused are, besides what is not JSON: keys that come twice, NaN and Infinity, numbers too
    large for a float, integers of too many digits, lone surrogates, and deep nesting.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}",
            {"offset": error.start},
        ) from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            {"line": error.lineno, "column": error.colno},
        ) from None
    except RecursionError:
        raise _too_deep(settings.json_depth_max) from None
    except ValueError:
        # The interpreter's own limit, since the time to parse grows with the square.
        most = sys.get_int_max_str_digits()
        raise InvalidRequest(
            f"An integer has more than the {most} digits that are allowed", {"limit": most}
        ) from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {_noun(value)}")
    if raw.count(b"[") + raw.count(b"{") > settings.json_depth_max:
        _check_depth(value, settings.json_depth_max)
    if _SURROGATE_ESCAPE.search(raw):
        _check_surrogates(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidRequest(
            f"The key '{twice[:100]}' comes twice in one object", {"key": twice[:100]}
        )
    return found


def _refuse_constant(name: str) -> float:
    raise InvalidRequest(f"{name} is not JSON; send null or a number", {"value": name})


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidRequest(
            f"The number {text[:50]} is too large for a float", {"value": text[:50]}
        )
    return value


def _too_deep(most: int) -> InvalidRequest:
    return InvalidRequest(
        f"The body is nested deeper than the {most} levels that are allowed", {"limit": most}
    )


def _check_depth(value: Any, most: int) -> None:
    if nests_deeper(value, most):
        raise _too_deep(most)


def _check_surrogates(value: Any) -> None:
    """Raise InvalidRequest if a string holds half of a surrogate pair, which is no Unicode."""
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError as error:
                half = f"\\u{ord(item[error.start]):04x}"
                raise InvalidRequest(
                    f"A string holds the lone surrogate {half}, which is not Unicode",
                    {"value": half},
                ) from None
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _noun(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return "a string"
    return "true or false" if isinstance(value, bool) else "a number"
