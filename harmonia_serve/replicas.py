"""What a Serve replica has to do for its streams, and Serve has no setting for.

Both are called in the replica's own process, before its server starts. This module must not import
Ray or the server: it changes what is loaded there already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["bound_websocket_messages", "call_before_replica_ends"]

#: The largest message that is taken in at all; whatever clients send here is ignored anyway. The
#: server's own 16 MB would be a client's to fill on each of its connections.
_MESSAGE_BYTES_MAX: Final = 16_384
_BOUNDS: Final = {"ws_max_size": _MESSAGE_BYTES_MAX, "ws_per_message_deflate": False}


def call_before_replica_ends(callback: Callable[[], object]) -> None:
    """Serve will call this when it begins to take the replica away, perhaps more than once.

    It waits for what is under way, for endless streams in vain, and kills the process in the end;
    the application is not told before.
    """
    replica: Any = sys.modules["ray.serve._private.replica"].Replica
    end = replica.perform_graceful_shutdown

    async def tell_and_end(self: object) -> None:
        callback()
        await end(self)

    replica.perform_graceful_shutdown = tell_and_end


def bound_websocket_messages() -> None:
    """Let this process's server refuse large messages while they arrive, and compress none.

    Where Serve's own proxy takes the requests, that reads them, and this does not reach it.
    """
    uvicorn: Any = sys.modules["uvicorn"]

    class BoundedConfig(uvicorn.Config):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**_BOUNDS, **options})

    uvicorn.Config = BoundedConfig
