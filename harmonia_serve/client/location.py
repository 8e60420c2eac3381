"""Where the service is and which key to use: arguments, environment, or a data directory.

`harmonia up` writes `<data_dir>/connection.json` (mode 0600) with the URL and the first key. A key
from that file is only ever sent to the URL in that file. This module must not know the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from harmonia_serve.client.errors import NotConfigured

__all__ = ["CONNECTION_FILE", "DEFAULT_DATA_DIR", "DEFAULT_URL", "Location", "locate"]

CONNECTION_FILE = "connection.json"
DEFAULT_DATA_DIR = ".harmonia"
DEFAULT_URL = "http://127.0.0.1:8002"
_API_SUFFIX = "/api/harmonia"


@dataclass(frozen=True, slots=True)
class Location:
    """The service's root URL without a trailing slash, and the key (never shown by `repr`)."""

    url: str
    api_key: str | None = field(repr=False)


def locate(
    url: str | None = None,
    api_key: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Location:
    """Find the service: arguments first, then the environment, then the data directory.

    The environment is `HARMONIA_URL` and `HARMONIA_API_KEY`; the data directory is `data_dir`,
    `HARMONIA_DATA_DIR` or `.harmonia`.
    Naming a data directory in the argument puts it before the environment.
    Raises NotConfigured if none of them says where the service is.
    """
    chosen = Path(data_dir or environ.get("HARMONIA_DATA_DIR") or DEFAULT_DATA_DIR)
    directory = chosen.expanduser()
    from_environ = environ if data_dir is None else {}
    found_url = url or from_environ.get("HARMONIA_URL")
    found_key = _key(api_key) or _key(from_environ.get("HARMONIA_API_KEY"))
    if found_url and found_key:
        return Location(_normalised(found_url), found_key)
    stored = _read_connection(directory)
    if not found_url:
        if stored is not None:
            found_url = stored.url
        elif found_key:
            found_url = DEFAULT_URL
        else:
            raise NotConfigured(
                f"no running Harmonia is known here: HARMONIA_URL is not set and "
                f"{directory / CONNECTION_FILE} does not exist"
            )
    found_url = _normalised(found_url)
    if not found_key and stored is not None and stored.url == found_url:
        found_key = stored.api_key
    return Location(found_url, found_key)


def _key(text: str | None) -> str | None:
    """A key without the line break that a file or a paste has put behind it.

    It travels as a header, and what no header can hold must not end up in somebody's error.
    """
    key = (text or "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise NotConfigured(
            "the API key holds a space, a line break or a character beyond ASCII, which no key "
            "has; copy it again"
        )
    return key or None


def _normalised(url: str) -> str:
    url = url.strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        # A port that is no number, brackets that do not close.
        usable = False
    if not usable or not url.isprintable() or " " in url:
        shown = "the URL" if "@" in url or "?" in url else f"'{url}'"
        raise NotConfigured(
            f"{shown} is not the URL of a service; it should look like {DEFAULT_URL}"
        )
    if parts.username or parts.password:
        raise NotConfigured("the URL holds a user or password; pass the key as HARMONIA_API_KEY")
    path = parts.path.rstrip("/").removesuffix(_API_SUFFIX)
    return f"{parts.scheme}://{parts.netloc}{path}"


def _read_connection(directory: Path) -> Location | None:
    path = directory / CONNECTION_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Location(_normalised(str(document["url"])), _key(document.get("api_key")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, NotConfigured) as error:
        raise NotConfigured(
            f"{path} cannot be read ({error}); `harmonia up` writes it anew"
        ) from error
