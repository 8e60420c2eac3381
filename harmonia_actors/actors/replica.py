"""What a Serve replica is made of: the gateway between its routes and the installation."""

from __future__ import annotations

from importlib import metadata

from harmonia_actors.actors import parts
from harmonia_actors.actors.launcher import RayEventFeed, RayFileReader, RayLauncher
from harmonia_actors.actors.store_parts import connect_store
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.event_hub import EventHub
from harmonia_actors.runtime.service.gateway import InstallationGateway
from harmonia_actors.runtime.service.parts import ServiceParts
from harmonia_actors.settings import Settings

__all__ = ["make_gateway"]


def make_gateway(settings: Settings) -> InstallationGateway:
    """The gateway of one replica, which is connected to Ray."""
    made = ServiceParts(
        store=connect_store(settings),
        blobs=parts.make_blobs(settings),
        registry=parts.make_registry(settings),
        clock=SystemClock(),
        launcher=RayLauncher(settings),
        settings=settings,
        version=metadata.version("harmonia"),
    )
    hub = EventHub(
        made.store,
        [RayEventFeed(settings, shard) for shard in range(settings.broadcasters)],
        recent_bytes_max=settings.stream_recent_bytes_max,
        batch_bytes_max=settings.stream_buffer_bytes_max,
    )
    return InstallationGateway(made, hub, RayFileReader(settings))
