"""The connection to a Redis-protocol server: bounded, lazy, and with one kind of failure.

Commands that are sent while others are under way go together: who sends many at once must not pay
a round trip for each, and each gets its turn in the order in which it came. Everything that means
"the server cannot do this now" becomes StoreUnavailable; every other error reply stays what it is,
because it means that Harmonia itself is wrong. Nothing is tried again here but a script that the
server does not have: the caller knows whether and when to repeat.
This module must not know what is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, cast
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
from persistence.redis_batches import Batches
from persistence.redis_scripts import Script

__all__ = ["Argument", "Command", "RedisClient", "is_refusal"]

Argument = bytes | int | str | float
Command = Sequence[Argument]

#: Round trips under way at a time; a command that comes meanwhile goes with others.
_LANES = 4
#: Calls that go together, at most, and bytes of their arguments.
_TOGETHER_MAX = 128
_TOGETHER_BYTES_MAX = 1_000_000

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
        self._batches: Batches[Sequence[Command]] = Batches(
            self._send_together,
            size_of=_size_of,
            calls_max=_TOGETHER_MAX,
            bytes_max=_TOGETHER_BYTES_MAX,
            lanes=min(_LANES, connections_max),
            wait_ms=timeout_ms,
        )
        self._encode = self._redis.get_encoder().encode  # type: ignore[no-untyped-call]
        # Replies stay as the server sends them: `redis_replies` knows what each should be.
        self._redis.response_callbacks.clear()

    async def close(self) -> None:
        """Finish what is under way, then close every connection."""
        await self._batches.close()
        await self._redis.aclose()

    async def command(self, *words: Argument) -> Any:
        """One command in one round trip."""
        return _given((await self._send([words]))[0])

    async def waiting_command(self, *words: Argument) -> Any:
        """One command that the server may answer late: on a connection of its own."""
        async with self._translated():
            return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def commands(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        """Several commands in one round trip; `atomic`: nothing of others comes between."""
        if not atomic:
            return [_given(reply) for reply in await self._send(commands)]
        # It goes with what others send, like all else: what is queued runs as one on the server.
        *queued, replies = await self._send([("MULTI",), *commands, ("EXEC",)])
        for reply in queued:
            _given(reply)
        return [_given(self._translate(reply)) for reply in _given(replies)]

    async def run(self, script: Script, *arguments: Argument) -> Any:
        """One script in one round trip (three if the server has to be given it first)."""
        return _given((await self.run_many(script, [arguments]))[0])

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

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        """With whatever else is to be sent; per command the reply or the error."""
        if not commands:
            return []
        # What cannot be sent is an error here, and not of all whose commands would go with it.
        encoded = [[words[0], *map(self._encode, words[1:])] for words in commands]
        replies: list[Any] | Exception = await self._batches.run(encoded)
        return cast("list[Any]", _given(replies))

    async def _send_together(self, calls: Sequence[Sequence[Command]]) -> list[Any]:
        replies = await self._send_now([command for commands in calls for command in commands])
        left = iter(replies)
        return [list(islice(left, len(commands))) for commands in calls]

    async def _send_now(self, commands: Sequence[Command]) -> list[Any]:
        async with self._translated():
            pipeline = self._redis.pipeline(transaction=False)
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


def _given(reply: Any) -> Any:
    if isinstance(reply, Exception):
        # What the client library made of it before would show the URL.
        raise reply from None
    return reply


def _size_of(commands: Sequence[Command]) -> int:
    return sum(len(word) for words in commands for word in words if isinstance(word, bytes))


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
