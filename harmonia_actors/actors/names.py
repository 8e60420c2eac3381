"""Names of Harmonia's actors. Every create, get and kill passes the namespace, always.

Ray's default namespace is a random one per job, so drivers, actors and replicas would not see each
other's actors without it.
"""

from __future__ import annotations

import secrets
from typing import Any

import ray

__all__ = [
    "broadcaster_name",
    "find_actor",
    "has_started",
    "is_execution_actor",
    "is_task_actor",
    "list_actors",
    "new_execution_actor_name",
    "new_task_actor_name",
    "pool_name",
    "supervisor_name",
]


def supervisor_name(namespace: str) -> str:
    """The supervisor's name."""
    return f"{namespace}:supervisor"


def pool_name(namespace: str) -> str:
    """The name of the pool of task actors."""
    return f"{namespace}:task-pool"


def broadcaster_name(namespace: str, shard: int) -> str:
    """The name of one of the broadcasters, counted from 0."""
    return f"{namespace}:broadcaster-{shard}"


def new_execution_actor_name(namespace: str) -> str:
    """A name that no execution actor has had: it is also the owner's name in the store."""
    return f"{namespace}:execution-{secrets.token_hex(4)}"


def new_task_actor_name(namespace: str) -> str:
    """A name that no task actor has had, whatever pool made it.

    Somebody may still say of an actor that he lost it when the pool has long been restarted: that
    must end no other one.
    """
    return f"{namespace}:task-{secrets.token_hex(8)}"


def is_execution_actor(name: str, namespace: str) -> bool:
    """True for names that `new_execution_actor_name` made."""
    return name.startswith(f"{namespace}:execution-")


def is_task_actor(name: str, namespace: str) -> bool:
    """True for names of task actors."""
    return name.startswith(f"{namespace}:task-") and name != pool_name(namespace)


def find_actor(name: str, namespace: str) -> Any:
    """A handle. Raises ValueError if there is no such actor. Blocks for a call to the head node."""
    return ray.get_actor(name, namespace=namespace)


def has_started(handle: Any) -> bool:
    """Whether an actor has ever run, or may have. Blocks for a call to the head node."""
    known = ray._private.state.state.actor_table(handle._actor_id.hex())
    return known.get("State") not in ("DEPENDENCIES_UNREADY", "PENDING_CREATION")


def list_actors(namespace: str) -> list[str]:
    """Names of all live actors of this installation."""
    found = ray.util.list_named_actors(all_namespaces=True)
    return [
        entry["name"]
        for entry in found
        if entry["namespace"] == namespace and entry["name"].startswith(f"{namespace}:")
    ]
