"""The durable store of whoever has to do with it."""

from __future__ import annotations

from harmonia_actors.settings import Settings
from persistence.redis_store import RedisStore

__all__ = ["connect_store"]


def connect_store(settings: Settings) -> RedisStore:
    """The durable store; connects when it is first used."""
    return RedisStore.connect(
        settings.redis_url.get_secret_value(),
        settings.namespace,
        connections_max=settings.redis_connections_max,
        timeout_ms=settings.redis_timeout_ms,
        log_entries_max=settings.log_entries_max,
        crashes_kept_ms=int(settings.crashes_kept_s * 1000),
    )
