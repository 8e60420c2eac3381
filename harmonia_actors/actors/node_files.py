"""Workspaces on other nodes: a Ray task on the node calls what is to be called there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harmonia_actors.actors import parts
from harmonia_actors.core.errors import HarmoniaError
from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.janitor import Place, PlaceAway
from harmonia_actors.runtime.places import BlobPlace, DirectoryPlace
from harmonia_actors.settings import Settings

__all__ = ["ClusterPlaces", "call_on_node", "node_at"]

#: Time a node has to remove what it is asked to; it may have to start a process for it first.
_REMOVAL_S = 120.0


@ray.remote
def _on_node(settings: Settings, method: str, arguments: tuple[Any, ...]) -> Any:
    """Call a method of the workspaces on the node where this runs."""
    node_id = ray.get_runtime_context().get_node_id()
    try:
        return getattr(parts.make_files(settings, node_id), method)(*arguments)
    except HarmoniaError as error:
        return error


async def node_at(place: str) -> str:
    """The id of the node that is at a place now, as `Nodes.now`. Raises what Ray raises."""
    known = place.partition("@")[0]
    if known in ("", ray.get_runtime_context().get_node_id()):
        return known
    nodes = await asyncio.to_thread(ray.nodes)
    alive = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
    return Capacity(nodes=alive).node_at(place) or known


async def call_on_node(
    settings: Settings, node_id: str, method: str, arguments: tuple[Any, ...]
) -> Any:
    """What a method of the workspaces on a node returns or raises. Raises RayError."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = _on_node.options(num_cpus=0, scheduling_strategy=strategy, enable_task_events=False)
    answer = await task.remote(settings, method, arguments)
    if isinstance(answer, HarmoniaError):
        raise answer
    return answer


@dataclass(frozen=True)
class _NodePlace:
    """Workspaces on another node."""

    settings: Settings
    node_id: str

    @property
    def name(self) -> str:
        return f"workspaces on node {self.node_id}"

    async def ids(self, after: str, limit: int) -> Sequence[str]:
        found: Sequence[str] = await self._call("ids", after, limit)
        return found

    async def remove(self, ids: Sequence[str], older_than_s: float) -> Sequence[str]:
        gone: Sequence[str] = await self._call("remove", list(ids), older_than_s)
        return gone

    async def remove_unfinished(self) -> None:
        await self._call("remove_unfinished")

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(_REMOVAL_S):
                return await call_on_node(self.settings, self.node_id, method, arguments)
        except (RayError, TimeoutError, OSError) as error:
            raise PlaceAway(f"{type(error).__name__}: {error}") from error


class ClusterPlaces:
    """The blob store, and the workspaces of every node that is alive."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._here = ray.get_runtime_context().get_node_id()
        self._near: list[Place] = []

    async def find(self) -> list[Place]:
        """Those that there are now. A node that comes back later is swept then."""
        settings = self._settings
        if not self._near:
            blobs = await asyncio.to_thread(parts.make_blobs, settings)
            directory = parts.make_files(settings, self._here)
            self._near = [BlobPlace(blobs), DirectoryPlace(directory)]
        if settings.workspace_shared:
            return self._near
        nodes = await asyncio.to_thread(ray.nodes)
        others = sorted(n["NodeID"] for n in nodes if n["Alive"] and n["NodeID"] != self._here)
        return [*self._near, *(_NodePlace(settings, node_id) for node_id in others)]
