"""The small files that `harmonia up` leaves in its data directory for other commands to read.

`connection.json`: where the service is and the first key (mode 0600). `up.json`: what runs now, for
`status`, `down` and the next `up`; it is gone when nothing runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harmonia_serve.client.location import CONNECTION_FILE

__all__ = [
    "RUNNING_FILE",
    "Running",
    "read_running",
    "remove_running",
    "write_connection",
    "write_private",
    "write_running",
]

RUNNING_FILE = "up.json"


@dataclass(frozen=True, slots=True)
class Running:
    """What an `up` has started."""

    url: str
    pid: int
    started_s: float
    namespace: str
    #: Process id of the embedded store; 0 if the store is elsewhere.
    store_pid: int
    #: Address of the Ray cluster it was deployed on; empty for a cluster of its own.
    address: str
    log: str


def write_private(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON that only this user may read, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
        fresh.replace(path)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()


def write_connection(data_dir: Path, url: str, api_key: str | None, *, store: str) -> bool:
    """Write where the service is, with the key for the store that it uses.

    Each store knows keys of its own. A key that is given is kept for its store, and others stay;
    without one, the file shows the key that was kept for this store. Returns whether there is one.
    """
    path = data_dir / CONNECTION_FILE
    keys: dict[str, str] = {}
    with suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        known = json.loads(path.read_text(encoding="utf-8"))
        keys = dict(known.get("keys") or ({store: known["api_key"]} if known["api_key"] else {}))
    if api_key is not None:
        keys[store] = api_key
    api_key = keys.get(store)
    write_private(path, {"url": url, "api_key": api_key, "keys": keys})
    return api_key is not None


def write_running(data_dir: Path, running: Running) -> None:
    """Write what runs now."""
    write_private(data_dir / RUNNING_FILE, asdict(running))


def read_running(data_dir: Path) -> Running | None:
    """What the last `up` wrote; None if it ended cleanly. It may have died since."""
    try:
        return Running(**json.loads((data_dir / RUNNING_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def remove_running(data_dir: Path) -> None:
    """Nothing runs any more."""
    with suppress(FileNotFoundError):
        (data_dir / RUNNING_FILE).unlink()
