"""The Lua scripts: one per atomic operation, in `lua/`, put together for one namespace.

A script is the key names it uses, the parts it shares with others, and its own text. All of them
check first and write last: Redis does not roll back. Arguments are never part of the text.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from persistence.redis_keys import Keys

__all__ = ["SCRIPTS", "Script", "Scripts"]

#: Each script with the parts it needs, in the order in which they build on each other.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "append_inbox": ("time", "inbox"),
    "calm": ("queues",),
    "claim": ("time", "queues", "owners", "claim"),
    "claim_next": ("time", "queues", "owners", "claim"),
    "clear_garbage": ("time",),
    "commit": ("time", "fields", "events", "indexes", "queues", "owners", "inbox"),
    "create_checkpoint": (
        *("time", "definitions", "indexes", "inbox"),
        *("holdings", "copies", "reading"),
    ),
    "create_execution": (
        *("time", "fields", "events", "indexes"),
        *("definitions", "queues", "owners", "holdings"),
    ),
    "delete_document": ("time", "definitions", "indexes", "holdings", "documents"),
    "expire": ("time", "definitions", "indexes", "holdings", "documents"),
    "give_on": ("time", "queues", "owners"),
    "orphan": ("time", "queues", "owners"),
    "owners": ("time", "queues", "owners"),
    "put_definition": (),
    "put_document": ("definitions", "indexes"),
    "read_checkpoint": ("time", "holdings", "reading"),
    "renew_owner": ("time", "queues", "owners"),
    "retire_owner": ("queues",),
    "take_checkpoint": ("time", "definitions", "indexes", "holdings", "documents", "copies"),
    "take_tokens": (),
}


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the digest by which the server knows it once it is loaded."""

    name: str
    text: str
    sha: str


class Scripts:
    """The scripts for one namespace, each put together when it is first asked for."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._made: dict[str, Script] = {}

    def get(self, name: str) -> Script:
        """The script with this name."""
        script = self._made.get(name)
        if script is None:
            body = "\n".join([*(_read(f"part_{part}") for part in SCRIPTS[name]), _read(name)])
            text = self._keys.lua_constants(body) + body
            digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            script = self._made[name] = Script(name, text, digest)
        return script


@cache
def _read(name: str) -> str:
    text = (resources.files("persistence") / "lua" / f"{name}.lua").read_text("utf-8")
    # Comments are for readers of the files; the server need not keep them.
    return re.sub(r"^\s*--.*\n", "", text, flags=re.MULTILINE)
