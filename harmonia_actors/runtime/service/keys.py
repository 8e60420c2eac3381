"""API keys and rate limits: who may call, what, and how often.

A key is `hk_ID_SECRET`; only its SHA-256 digest is stored. Keys are long and random, so a plain
digest is enough. Revoking one works at once, because every request reads the key's record.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import (
    AuthenticationFailed,
    Conflict,
    Problem,
    RateLimitExceeded,
    ResourceNotFound,
    ValidationFailed,
)
from harmonia_actors.core.requests import SCOPES, JsonObject, PageRequest, Principal
from harmonia_actors.core.timestamps import timestamp
from harmonia_actors.runtime.service.parts import Service, ServiceParts, answered
from persistence.errors import AlreadyExists, VersionConflict
from persistence.store import IndexEntry, Store

__all__ = ["KeyService", "make_first_key", "new_key"]

_T = TypeVar("_T")

_KEY = re.compile(r"hk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_LIST = "keys:created_at"
_ADMINS = "keys:admin"
#: Admin keys that are looked at to find one that stays.
_ADMINS_MAX = 100
#: The document that names admin keys which are about to end.
_ENDING = ("keys", "ending")
#: Tokens leased at a time: this share of a second's worth, so that most requests write nothing.
_LEASE_SHARE = 0.05
_LEASE_MAX = 200
#: Leased tokens that were not used in this time are void.
_LEASE_MS = 1_000
_BUCKETS_KEPT = 10_000
_RATE_MAX = 1_000_000.0


@dataclass(slots=True)
class _Bucket:
    tokens: int = 0
    until_ms: int = 0


def new_key() -> tuple[str, str, str]:
    """A fresh key: its public id, the key itself, and the digest to be stored."""
    key_id = secrets.token_hex(6)
    key = f"hk_{key_id}_{secrets.token_urlsafe(32)}"
    return key_id, key, _digest(key)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class KeyService(Service):
    """Operations on keys, and the gate that every request passes."""

    def __init__(self, parts: ServiceParts) -> None:
        super().__init__(parts)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        #: Rate limits of keys that have their own, as of their last request.
        self._rates: OrderedDict[str, float] = OrderedDict()

    async def authenticate(self, secret: str) -> Principal:
        """Who has this key. Raises AuthenticationFailed."""
        match = _KEY.fullmatch(secret)
        if match is None:
            raise AuthenticationFailed("the API key is not valid")
        key_id = match.group(1)
        stored = await answered(lambda: self.store.get_document("key", key_id))
        record = jsontext.decode(stored.body) if stored is not None else {"digest": ""}
        # Compared also when there is no such key, so that both answers take the same time.
        if not hmac.compare_digest(record["digest"], _digest(secret)):
            raise AuthenticationFailed("the API key is not valid")
        rate = record["rate_limit_per_s"]
        if rate is not None:
            _remember(self._rates, key_id, float(rate))
        else:
            self._rates.pop(key_id, None)
        return Principal(key_id, record["name"], frozenset(record["scopes"]))

    async def admit(self, principal: Principal) -> None:
        """Count one request of a key. Raises RateLimitExceeded."""
        rate = self._rates.get(principal.key_id, self.settings.rate_limit_per_s)
        await self._take(f"key:{principal.key_id}", rate, "requests with this key")

    async def admit_anonymous(self, address: str) -> None:
        """Count one failed authentication of an address. Raises RateLimitExceeded."""
        rate = self.settings.failed_auth_per_s
        digest = hashlib.sha256(address.encode()).hexdigest()[:32]
        await self._take(f"address:{digest}", rate, "failed authentications from this address")

    async def create_key(
        self, *, name: str, scopes: Sequence[str], rate_limit_per_s: float | None
    ) -> JsonObject:
        """Make a key and return it, this once."""
        self._check(name, scopes, rate_limit_per_s)
        key_id, key, digest = new_key()
        now_ms = self.clock.now_ms()
        record = _record(name, scopes, rate_limit_per_s, digest, now_ms)
        body = jsontext.encode(record)
        indexes = _indexes(record)
        await answered(
            lambda: self.store.put_document("key", key_id, body, indexes, expected_version=0)
        )
        return {**_shown(key_id, record), "api_key": key}

    async def list_keys(self, page: PageRequest) -> JsonObject:
        """One page of keys, without their secrets."""
        return await self.page_of_documents("key", _LIST, page, _shown)

    async def revoke_key(self, key_id: str) -> JsonObject:
        """End a key at once. Raises ResourceNotFound, or Conflict for the last admin key."""
        stored = await answered(lambda: self.store.get_document("key", key_id))
        if stored is not None and "admin" in jsontext.decode(stored.body)["scopes"]:
            await answered(lambda: self._let_another_admin_stay(key_id))
        if not await answered(lambda: self.store.delete_document("key", key_id)):
            raise ResourceNotFound(f"there is no key '{key_id[:64]}'", {"key_id": key_id[:64]})
        self._buckets.pop(f"key:{key_id}", None)
        return {"success": True, "message": "Key revoked", "key_id": key_id}

    async def _let_another_admin_stay(self, key_id: str) -> None:
        """Note that an admin key is about to end. Raises Conflict if no other would be left.

        Two that end each other at the same time would both find the other one: so each writes down
        first that it ends, and the second to write reads what the first has written.
        """
        while True:
            note = await self.store.get_document(*_ENDING)
            version, ending = (note.version, jsontext.decode(note.body)) if note else (0, [])
            page = await self.store.page(_ADMINS, offset=0, limit=_ADMINS_MAX, descending=True)
            if not set(page.ids) - {key_id, *ending}:
                raise Conflict(
                    "this is the last key with the scope admin, and without one no key can ever be "
                    "made; create another first",
                    {"key_id": key_id},
                )
            body = jsontext.encode([*(i for i in ending if i in page.ids and i != key_id), key_id])
            try:
                await self.store.put_document(*_ENDING, body, expected_version=version)
            except (VersionConflict, AlreadyExists):
                continue
            return

    async def _take(self, bucket: str, rate_per_s: float, what: str) -> None:
        known = self._buckets.get(bucket)
        now_ms = self.clock.now_ms()
        if known is not None and known.tokens > 0 and now_ms < known.until_ms:
            known.tokens -= 1
            return
        lease = max(1, min(_LEASE_MAX, int(rate_per_s * _LEASE_SHARE)))
        burst = max(1, math.ceil(rate_per_s * self.settings.rate_limit_burst_s))
        grant = await answered(
            lambda: self.store.take_tokens(bucket, tokens=lease, rate_per_s=rate_per_s, burst=burst)
        )
        if grant.tokens == 0:
            retry_after_s = max(1, math.ceil(grant.retry_after_ms / 1000))
            raise RateLimitExceeded(
                f"too many {what}: at most {rate_per_s:g} a second; try again in {retry_after_s} s",
                retry_after_s,
            )
        _remember(self._buckets, bucket, _Bucket(grant.tokens - 1, now_ms + _LEASE_MS))

    def _check(self, name: str, scopes: Sequence[str], rate_limit_per_s: float | None) -> None:
        problems = []
        if not name.strip() or len(name) > self.settings.name_length_max:
            length_max = self.settings.name_length_max
            problems.append(Problem("name", f"must have from 1 to {length_max} characters"))
        if not scopes:
            problems.append(Problem("scopes", f"must name one of: {', '.join(SCOPES)}"))
        problems += [
            Problem(f"scopes[{place}]", f"'{scope}' is not one of: {', '.join(SCOPES)}")
            for place, scope in enumerate(scopes)
            if scope not in SCOPES
        ]
        if rate_limit_per_s is not None and not 0.01 <= rate_limit_per_s <= _RATE_MAX:
            problems.append(Problem("rate_limit_per_s", f"must be from 0.01 to {_RATE_MAX:g}"))
        if problems:
            raise ValidationFailed("key", problems)


def _remember(known: OrderedDict[str, _T], name: str, value: _T) -> None:
    known[name] = value
    known.move_to_end(name)
    while len(known) > _BUCKETS_KEPT:
        known.popitem(last=False)


def _shown(key_id: str, record: dict[str, object]) -> JsonObject:
    created_ms = record["created_ms"]
    assert isinstance(created_ms, int)  # noqa: S101 - written by create_key
    return {
        "key_id": key_id,
        "name": record["name"],
        "scopes": record["scopes"],
        "rate_limit_per_s": record["rate_limit_per_s"],
        "created_at": timestamp(created_ms),
    }


async def make_first_key(store: Store, now_ms: int, *, anew: bool = False) -> str | None:
    """Make an admin key if there is none, or `anew`; returns it, this once, else None."""
    page = await store.page(_ADMINS, offset=0, limit=1, descending=False)
    if page.total and not anew:
        return None
    key_id, key, digest = new_key()
    record = _record("first", ("admin",), None, digest, now_ms)
    body = jsontext.encode(record)
    await store.put_document("key", key_id, body, _indexes(record), expected_version=0)
    return key


def _indexes(record: Mapping[str, Any]) -> list[IndexEntry]:
    score = float(record["created_ms"])
    admins = [IndexEntry(_ADMINS, score)] if "admin" in record["scopes"] else []
    return [IndexEntry(_LIST, score), *admins]


def _record(
    name: str, scopes: Sequence[str], rate_limit_per_s: float | None, digest: str, now_ms: int
) -> dict[str, object]:
    return {
        "name": name,
        "scopes": [scope for scope in SCOPES if scope in scopes],
        "rate_limit_per_s": rate_limit_per_s,
        "digest": digest,
        "created_ms": now_ms,
    }
