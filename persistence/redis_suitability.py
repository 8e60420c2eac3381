"""Whether a server can keep Harmonia's promise, and which one, from its own configuration."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping

from redis.exceptions import ResponseError

from persistence.errors import UnsuitableServer
from persistence.redis_client import RedisClient
from persistence.redis_replies import info_fields
from persistence.store import Durability

__all__ = ["read_durability", "refuse_kind"]

_SETTINGS = (
    *("appendonly", "appendfsync", "no-appendfsync-on-rewrite"),
    *("save", "maxmemory-policy"),
)
#: COPY and ZRANGE in reverse came with this version.
_OLDEST = [6, 2]


async def read_durability(client: RedisClient) -> Durability:
    """See `Store.durability`."""
    await _require_authentication(client)
    info = info_fields(await client.command("INFO", "everything"))
    refuse_kind(info)
    try:
        config = await _configuration(client)
    except ResponseError as error:
        # What INFO says is enough to refuse a server, but it does not tell about fsync.
        _refuse_eviction(info.get("maxmemory_policy", ""))
        hidden = f"the server does not show its configuration ({error})"
        if info.get("aof_enabled") == "0":
            return Durability("none", f"the append-only file is off; {hidden}")
        return Durability("unknown", hidden)
    _refuse_eviction(config["maxmemory-policy"])
    return _promise(config)


def _promise(config: dict[str, str]) -> Durability:
    if config["appendonly"] != "yes":
        snapshots = f"snapshots only (save {config['save']!r})" if config["save"] else "no snapshot"
        return Durability("none", f"the append-only file is off; {snapshots}")
    if config["no-appendfsync-on-rewrite"] == "yes" and config["appendfsync"] != "no":
        return Durability(
            "none",
            "while the server rewrites its append-only file, the system decides when to write "
            "(no-appendfsync-on-rewrite yes)",
        )
    match config["appendfsync"]:
        case "always":
            return Durability("always", "every write is on disk before it is acknowledged")
        case "everysec":
            return Durability("everysec", "writes reach the disk once a second (appendfsync)")
        case other:
            return Durability("none", f"the system decides when to write (appendfsync {other})")


def refuse_kind(info: Mapping[str, str]) -> None:
    """Raise UnsuitableServer if a server of this version and role cannot be used at all."""
    version = info.get("redis_version", "")
    numbers = [int(part) for part in version.split(".") if part.isdigit()]
    if version and numbers < _OLDEST:
        raise UnsuitableServer(
            f"the server is Redis {version}, which lacks commands that Harmonia uses: it needs "
            "Redis 6.2 or newer, or Valkey"
        )
    if info.get("role") == "slave":
        raise UnsuitableServer("the server is a replica and takes no writes: give the primary")
    if info.get("cluster_enabled") == "1":
        raise UnsuitableServer(
            "the server runs in cluster mode, where one commit could not be atomic: use a single "
            "primary (with replicas if you like)"
        )


def _refuse_eviction(policy: str) -> None:
    if policy not in {"noeviction", ""}:
        raise UnsuitableServer(
            f"the server evicts keys when memory is short (maxmemory-policy {policy}), so it "
            "would lose executions: set maxmemory-policy to noeviction"
        )


async def _configuration(client: RedisClient) -> dict[str, str]:
    replies = await client.commands([("CONFIG", "GET", name) for name in _SETTINGS])
    config = dict.fromkeys(_SETTINGS, "")
    for reply in replies:
        words = [word.decode() for word in reply]
        config.update(zip(words[::2], words[1::2], strict=True))
    return config


async def _require_authentication(client: RedisClient) -> None:
    """Refuse a server that anybody on the network could write to."""
    if client.is_local_socket or client.has_credentials or await _is_loopback(client.host):
        return
    raise UnsuitableServer(
        f"the server at {client.host} is not on this machine's loopback and the URL has neither a "
        "password nor a TLS client certificate: give the server a password (requirepass or an "
        "ACL user) and put it into the URL"
    )


async def _is_loopback(host: str) -> bool:
    """Whether every address of a host is a loopback address."""
    if not host:
        return True
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)
