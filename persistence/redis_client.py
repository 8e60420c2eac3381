"""The connection to a Redis-protocol server: bounded, lazy, and with one kind of failure.

Everything that means "the server cannot do this now" becomes StoreUnavailable; every other error
reply stays what it is, because it means that Harmonia itself is wrong. Nothing is tried again
here but a script that the server does not have: the caller knows whether and when to repeat.
This module must not know what is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from persistence.errors import StoreUnavailable
from persistence.redis_scripts import Script

__all__ = ["Argument", "RedisClient", "is_refusal"]

Argument = bytes | int | str | float

#: Error codes by which a server says that it takes no commands, or no writes, at the moment.
_REFUSALS = (
    "LOADING",
    "READONLY",
    "MISCONF",
    "OOM",
    "BUSY",
    "MASTERDOWN",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "UNBLOCKED",
)
_SCHEMES = ("redis", "rediss", "unix")


def is_refusal(error: Exception) -> bool:
    """Whether an error reply says that the server cannot take the command at the moment."""
    if type(error).__name__ in {"ReadOnlyError", "OutOfMemoryError"}:
        return True
    text = str(error)
    code = text.split(" ", 1)[0].lstrip("-")
    # Old servers wrap what a script's command answered into an error of the script.
    return code in _REFUSALS or any(f"-{refusal} " in text for refusal in _REFUSALS)


class RedisClient:
    """A pool of connections to one server, and the few ways in which the store uses them."""

    def __init__(self, url: str, *, connections_max: int, timeout_ms: int) -> None:
        parts = _split(url)
        self.host = parts.hostname or ""
        self.is_local_socket = parts.scheme == "unix"
        self.has_credentials = bool(parts.password) or "ssl_certfile" in parts.query
        self._secrets = [
            secret for secret in {parts.password or "", unquote(parts.password or "")} if secret
        ]
        self.timeout_ms = timeout_ms
        timeout_s = timeout_ms / 1000
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=connections_max,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                **({} if self.is_local_socket else {"socket_keepalive": True}),
            )
        except (ValueError, TypeError, RedisError):
            raise ValueError(_URL_ADVICE) from None
        self._redis = redis.Redis.from_pool(pool)
        # Replies stay as the server sends them: `redis_replies` knows what each should be.
        self._redis.response_callbacks.clear()

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def command(self, *words: Argument) -> Any:
        """One command in one round trip."""
        async with self._translated():
            return await self._execute(*words)

    async def commands(
        self, commands: Sequence[Sequence[Argument]], *, atomic: bool = False
    ) -> list[Any]:
        """Several commands in one round trip; `atomic`: nothing of others comes between."""
        replies = await self._send(commands, atomic=atomic)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def run(self, script: Script, *arguments: Argument) -> Any:
        """One script in one round trip (three if the server has to be given it first)."""
        async with self._translated():
            try:
                return await self._execute("EVALSHA", script.sha, 0, *arguments)
            except NoScriptError:
                await self._execute("SCRIPT LOAD", script.text)
                return await self._execute("EVALSHA", script.sha, 0, *arguments)

    async def run_many(
        self, script: Script, calls: Sequence[Sequence[Argument]]
    ) -> list[Any | Exception]:
        """One script several times in one round trip; per call the reply or the error."""
        commands = [("EVALSHA", script.sha, 0, *arguments) for arguments in calls]
        replies = await self._send(commands)
        absent = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if absent:
            # These calls have not run, so sending them again cannot do anything twice.
            await self.command("SCRIPT LOAD", script.text)
            again = await self._send([commands[at] for at in absent])
            for at, reply in zip(absent, again, strict=True):
                replies[at] = reply
        return replies

    async def _execute(self, *words: Argument) -> Any:
        return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def _send(
        self, commands: Sequence[Sequence[Argument]], *, atomic: bool = False
    ) -> list[Any]:
        if not commands:
            return []
        async with self._translated():
            pipeline = self._redis.pipeline(transaction=atomic)
            for words in commands:
                pipeline.execute_command(*words)
            replies = await pipeline.execute(raise_on_error=False)
        return [self._translate(reply) for reply in replies]

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        cancels = _cancels()
        try:
            yield
        except (RedisError, OSError, asyncio.IncompleteReadError) as error:
            _be_cancelled_after(cancels)
            translated = self._translate(error)
            if translated is error:
                raise
            raise translated from None
        _be_cancelled_after(cancels)

    def _translate(self, reply: Any) -> Any:
        """StoreUnavailable for an error that means so; anything else as it is."""
        if not isinstance(reply, Exception):
            return reply
        if isinstance(reply, ResponseError) and not is_refusal(reply):
            return reply
        if isinstance(reply, RedisError) and not isinstance(
            reply, (RedisConnectionError, RedisTimeoutError, ResponseError)
        ):
            return reply
        cause = f"{type(reply).__name__}: {reply}"
        for secret in self._secrets:
            cause = cause.replace(secret, "***")
        return StoreUnavailable(f"the Redis server cannot be used at the moment ({cause})")


def _cancels() -> int:
    """How often the running task has been told to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _be_cancelled_after(cancels: int) -> None:
    """Raise CancelledError if the task was told to end meanwhile, and never heard of it.

    The client library sends by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation
    that comes in the moment in which the sending ends (CPython issue 86296).
    """
    if _cancels() > cancels:
        raise asyncio.CancelledError


_URL_ADVICE = (
    "redis_url: not valid; it has the form redis://[[user]:password@]host[:port][/db], "
    "rediss://… with TLS or unix:///path; characters such as / @ : # ? % in the password must be "
    "percent-encoded"
)


def _split(url: str) -> Any:
    """The parts of a URL. Errors never quote it, because it may hold a password."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _SCHEMES and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(_URL_ADVICE) from None
    return parts
