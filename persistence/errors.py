"""The errors a store can raise, as one tree.

StoreError
├── StoreUnavailable      the server cannot be reached or is loading; nothing can be said of a
│                         write that was under way: repeat it, every write here may be repeated
├── StaleOwner            another owner has claimed the execution: stop, never retry
├── AlreadyExists         a create found its id taken
├── VersionConflict       a conditional write found another version
├── Missing               what the call names is not there
├── DefinitionMissing     the definition a create refers to is not stored: put it, then repeat
├── LimitReached          a create found as many executions live as there may be: try again later
├── UnsuitableServer      the server's configuration breaks a promise (eviction, cluster mode)
└── ServerFailed          the embedded server did not start; the end of its log says why
"""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "DefinitionMissing",
    "LimitReached",
    "Missing",
    "ServerFailed",
    "StaleOwner",
    "StoreError",
    "StoreUnavailable",
    "UnsuitableServer",
    "VersionConflict",
]


class StoreError(Exception):
    """Root of the tree."""


class StoreUnavailable(StoreError):
    """The server cannot be reached; a write that was under way may or may not have happened."""


class StaleOwner(StoreError):
    """The execution has been claimed by another owner since: its epoch is higher."""


class AlreadyExists(StoreError):
    """A create found its id taken."""


class VersionConflict(StoreError):
    """A conditional write found another version than it expected."""


class Missing(StoreError):
    """What the call names is not stored."""


class DefinitionMissing(StoreError):
    """The definition that a create refers to is not stored."""


class LimitReached(StoreError):
    """A create found as many executions live as its caller allows."""


class UnsuitableServer(StoreError):
    """The server is configured so that Harmonia could not keep its promise."""


class ServerFailed(StoreError):
    """The embedded server could not be started, or another process holds its directory."""
