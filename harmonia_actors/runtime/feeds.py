"""One broadcaster as a replica reads it: follows what is wanted, pulls as long as anything is.

A broadcaster may be away, or another one that knows nobody. Then it is told again what is followed,
and whoever follows it is told that something may have been missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from harmonia_actors.runtime.broadcast import Batch, UnknownReader

__all__ = ["EventFeed", "FeedGone", "FeedReader"]

_log = logging.getLogger(__name__)

_PULL_S = 20.0
_AGAIN_S = 0.5


class FeedGone(Exception):
    """The broadcaster cannot be reached at the moment."""


class EventFeed(Protocol):
    """A broadcaster, seen from a replica. Methods may raise FeedGone or UnknownReader."""

    async def follow(self, execution_ids: Sequence[str]) -> None:
        """Send these executions' events from now on."""
        ...

    async def unfollow(self, execution_ids: Sequence[str]) -> None:
        """Do not send these any more."""
        ...

    async def pull(self, wait_s: float) -> Sequence[Batch]:
        """What has come, or nothing after `wait_s` seconds."""
        ...


class FeedReader:
    """Reads one feed. Others are not held up by it, whatever becomes of it."""

    def __init__(
        self,
        feed: EventFeed,
        take: Callable[[str, int, Sequence[bytes]], None],
        missed: Callable[[str], None],
    ) -> None:
        """`take` gets every batch; `missed` each execution of which something may be missing."""
        self._feed = feed
        self._take = take
        self._missed = missed
        #: In the order in which they came: what follows must not depend on hashes.
        self._followed: dict[str, None] = {}
        self._pulling: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def follow(self, execution_id: str) -> None:
        """Returns when the broadcaster sends its events, or cannot be told so now."""
        self._followed[execution_id] = None
        try:
            await self._feed.follow([execution_id])
        except (FeedGone, UnknownReader):
            # Pulling finds out, too.
            pass
        except Exception:
            # Whoever waits looks into the log for all clients, and must not end by this.
            _log.exception("a broadcaster cannot be told to send the events of %s", execution_id)
        finally:
            # Also if nobody waits for the answer any more: pulling finds out what is the matter.
            if self._pulling is None or self._pulling.done():
                self._pulling = asyncio.get_running_loop().create_task(self._pull())

    def unfollow(self, execution_id: str) -> None:
        """Nobody here wants its events any more."""
        self._followed.pop(execution_id, None)
        leaving = asyncio.get_running_loop().create_task(self._unfollow(execution_id))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Stop pulling."""
        tasks = [*self._leaving, *([self._pulling] if self._pulling else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -------------------------------------------------------------------------------------------

    async def _unfollow(self, execution_id: str) -> None:
        if execution_id in self._followed:
            return
        with contextlib.suppress(FeedGone, UnknownReader):
            await self._feed.unfollow([execution_id])
            if execution_id in self._followed:
                # Somebody has come meanwhile, and what was said for him may have been done first.
                await self._feed.follow([execution_id])
                self._missed(execution_id)

    async def _pull(self) -> None:
        """Fetch batches as long as anybody follows anything."""
        while self._followed:
            try:
                for execution_id, first_seq, bodies in await self._feed.pull(_PULL_S):
                    self._take(execution_id, first_seq, bodies)
            except UnknownReader:
                await self._follow_again()
            except FeedGone as error:
                _log.info("no broadcaster at the moment: %s", error)
                await asyncio.sleep(_AGAIN_S)
                await self._follow_again()
            except Exception:
                # All who follow anything depend on it: it must not end by what may pass.
                _log.exception("what a broadcaster has cannot be had")
                await asyncio.sleep(_AGAIN_S)
                await self._follow_again()

    async def _follow_again(self) -> None:
        """What came meanwhile was missed."""
        try:
            await self._feed.follow(list(self._followed))
        except FeedGone:
            pass
        except Exception:
            _log.exception("a broadcaster cannot be told again what to send")
        for execution_id in list(self._followed):
            self._missed(execution_id)
