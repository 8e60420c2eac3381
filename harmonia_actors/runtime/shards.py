"""Which broadcaster has an execution's events. They share all executions among them, by name.

Whoever publishes and whoever follows must count alike, so the number of broadcasters is a setting
of the installation. If they do not, nothing is lost: subscribers look into the log, only later.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from harmonia_actors.runtime.ports import EventSink

__all__ = ["ShardedSink", "shard_of"]


def shard_of(execution_id: str, count: int) -> int:
    """From 0 to `count` - 1; the same in every process, and after every restart."""
    return zlib.crc32(execution_id.encode()) % count


class ShardedSink:
    """Tells of each execution the one broadcaster that has it. An EventSink itself."""

    def __init__(self, sinks: Sequence[EventSink]) -> None:
        """`sinks`: one for each broadcaster, in their order."""
        self._sinks = sinks

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        """Committed events of one execution, in order, without a gap."""
        sink = self._sinks[shard_of(execution_id, len(self._sinks))]
        sink.publish(execution_id, first_seq, bodies)
