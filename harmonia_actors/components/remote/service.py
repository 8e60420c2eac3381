"""Where a remote component service is, how it is spoken to, and which URLs are refused.

A URL is shown in errors, logs and the catalogue, so nothing secret may be in it: a token has a
setting of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from harmonia_actors.components.registry import ComponentLoadError

__all__ = ["RemoteLimits", "RemoteService", "is_url", "service_url", "urls_among"]

_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """Times and sizes of an exchange with a service."""

    connect_s_max: float = 10.0
    #: Until an answer begins, and between two pieces of one.
    silence_s_max: float = 600.0
    answer_bytes_max: int = 256_000_000
    #: Of the whole exchange that fetches the catalogue.
    catalogue_s_max: float = 10.0
    catalogue_bytes_max: int = 1_000_000


@dataclass(frozen=True)
class RemoteService:
    """One service. Raises ComponentLoadError for a URL or a token that cannot be used."""

    url: str
    token: str = field(default="", repr=False)
    limits: RemoteLimits = field(default_factory=RemoteLimits)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", service_url(self.url))
        if self.token and not _TOKEN.fullmatch(self.token):
            raise ComponentLoadError(
                f"the token for {self.url} must be visible ASCII characters without spaces"
            )


def is_url(entry: str) -> bool:
    """Whether an entry of the setting `components` is a service; else it is a module."""
    return "://" in entry


def urls_among(components: Sequence[str]) -> list[str]:
    """The services of the setting `components`, each once. Raises ComponentLoadError."""
    return list(dict.fromkeys(service_url(entry) for entry in components if is_url(entry)))


def service_url(text: str) -> str:
    """The URL as it is used and shown. Raises ComponentLoadError, without showing a secret."""
    if "@" in text:
        raise ComponentLoadError(
            "the URL of a component service must not hold credentials (there is an @ in it): it is "
            "shown in logs and errors. Give a bearer token in HARMONIA_COMPONENT_TOKENS instead: "
            '{"https://host/path": "token"}'
        )
    if "?" in text or "#" in text:
        beginning = re.split(r"[?#]", text, maxsplit=1)[0]
        raise ComponentLoadError(
            f"the URL of a component service must end with its path, so {beginning} without what "
            "follows it; a bearer token belongs into HARMONIA_COMPONENT_TOKENS"
        )
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0 and not _BLANK.search(text)
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https"):
        raise ComponentLoadError(
            f"'{text}' is not the URL of a component service; "
            "it has the form http://host[:port][/path] or https://host[:port][/path]"
        )
    return text.rstrip("/")
