"""The store over a Redis-protocol server: one primary, one script per write.

Reads that belong together are one atomic transaction, writes are one script each, and every call
is one round trip. What is under which key: `redis_keys`; the scripts: `lua/`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from persistence import checks, redis_replies
from persistence.errors import (
    AlreadyExists,
    DefinitionMissing,
    Missing,
    VersionConflict,
)
from persistence.log import LOG_ENTRIES_MAX
from persistence.redis_batches import Batches
from persistence.redis_client import Argument, RedisClient
from persistence.redis_compaction import compact
from persistence.redis_keys import Keys, document_suffix, member_id
from persistence.redis_log import RedisLog
from persistence.redis_scripts import Scripts
from persistence.redis_suitability import read_durability
from persistence.retention import Tally
from persistence.store import (
    CRASHES_KEPT_MS,
    Commit,
    Document,
    Durability,
    Grant,
    InboxEntry,
    IndexEntry,
    Loaded,
    NewExecution,
    OwnCheckpoint,
    OwnerLoad,
    Page,
    Snapshot,
)

__all__ = ["RedisStore"]

#: How long a definition to which nothing has referred yet is kept.
UNREFERENCED_S = 86_400
#: Most inbox entries, and most executions with unread ones, that one call returns.
INBOX_MAX = 1_000
#: Commits that one round trip carries; a batch is full sooner if it has this many bytes.
BATCH_CALLS_MAX = 256
BATCH_BYTES_MAX = 4_000_000


class RedisStore(RedisLog):
    """`Store` over Redis. Bound to the event loop in which it is first used."""

    def __init__(
        self,
        client: RedisClient,
        namespace: str,
        log_entries_max: int = LOG_ENTRIES_MAX,
        crashes_kept_ms: int = CRASHES_KEPT_MS,
    ) -> None:
        self._client = client
        self._keys = Keys(namespace)
        self._scripts = Scripts(self._keys)
        self._log_entries_max = log_entries_max
        self._crashes_kept_ms = crashes_kept_ms
        self._commits: Batches[Sequence[Argument]] = Batches(
            self._send_commits,
            size_of=lambda words: sum(len(word) for word in words if isinstance(word, bytes)),
            calls_max=BATCH_CALLS_MAX,
            bytes_max=BATCH_BYTES_MAX,
        )

    @classmethod
    def connect(
        cls,
        url: str,
        namespace: str,
        *,
        connections_max: int = 32,
        timeout_ms: int = 10_000,
        log_entries_max: int = LOG_ENTRIES_MAX,
        crashes_kept_ms: int = CRASHES_KEPT_MS,
    ) -> RedisStore:
        """A store that connects when it is first used.

        At most `connections_max` connections; each reply, and each wait for a free connection, is
        given `timeout_ms`. The log keeps at least the newest `log_entries_max` entries; crashes of
        an execution are forgotten `crashes_kept_ms` after its last one. Raises ValueError for a URL
        or namespace that cannot be used.
        """
        client = RedisClient(url, connections_max=connections_max, timeout_ms=timeout_ms)
        return cls(client, namespace, log_entries_max, crashes_kept_ms)

    # The server ------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Write a key that nobody reads: only a write shows that writes are taken."""
        await self._client.command("SET", self._keys.of("PING"), 1, "EX", 60)

    async def time_ms(self) -> int:
        """The server's clock."""
        seconds, microseconds = await self._client.command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def durability(self) -> Durability:
        """Read the server's configuration and say what it allows. Raises UnsuitableServer."""
        return await read_durability(self._client)

    async def close(self) -> None:
        """Finish the commits that are under way, then close connections."""
        await self._commits.close()
        await self._client.close()

    # Documents -------------------------------------------------------------------------------

    async def put_definition(self, digest: str, body: bytes) -> None:
        """See `Store.put_definition`."""
        checks.check_name("digest", digest)
        checks.check_bodies("body", (body,))
        await self._run("put_definition", digest, body, UNREFERENCED_S)

    async def get_definition(self, digest: str) -> bytes | None:
        """See `Store.get_definition`."""
        body = await self._client.command("HGET", self._keys.of("DEFINITION", digest), "b")
        return None if body is None else bytes(body)

    async def put_document(
        self,
        kind: str,
        document_id: str,
        body: bytes,
        indexes: Sequence[IndexEntry] = (),
        *,
        definition: str | None = None,
        expected_version: int | None = None,
    ) -> int:
        """See `Store.put_document`."""
        checks.check_put(kind, document_id, body, indexes, definition, expected_version)
        reason, version = await self._run(
            "put_document",
            document_suffix(kind, document_id),
            body,
            definition or "",
            "" if expected_version is None else expected_version,
            redis_replies.packed_indexes(document_id, indexes),
        )
        subject = f"{kind} {document_id!r}"
        match reason:
            case b"ok":
                return int(version)
            case b"exists":
                raise AlreadyExists(f"{subject} exists, with version {version}")
            case b"missing":
                raise Missing(f"{subject} does not exist")
            case b"version":
                raise VersionConflict(
                    f"{subject} has version {version}, not the expected {expected_version}"
                )
            case _:
                raise DefinitionMissing(f"{subject}: definition {definition!r} is not stored")

    async def get_document(self, kind: str, document_id: str) -> Document | None:
        """See `Store.get_document`."""
        return (await self.get_documents(kind, (document_id,)))[0]

    async def get_documents(self, kind: str, ids: Sequence[str]) -> list[Document | None]:
        """See `Store.get_documents`."""
        replies = await self._client.commands(
            [("HMGET", self._document(kind, document_id), "b", "v") for document_id in ids]
        )
        return [
            None if version is None else Document(document_id, body, int(version))
            for document_id, (body, version) in zip(ids, replies, strict=True)
        ]

    async def delete_document(self, kind: str, document_id: str) -> bool:
        """See `Store.delete_document`."""
        copy = document_id if kind == "checkpoint" else ""
        suffix = document_suffix(kind, document_id)
        return bool(await self._run("delete_document", suffix, copy))

    async def page(self, index: str, *, offset: int, limit: int, descending: bool) -> Page:
        """See `Store.page`."""
        checks.check_count("offset", offset, 0)
        checks.check_count("limit", limit)
        key = self._keys.of("INDEX", index)
        order = ("REV",) if descending else ()
        members, total = await self._client.commands(
            [("ZRANGE", key, offset, offset + limit - 1, *order), ("ZCARD", key)], atomic=True
        )
        return Page(tuple(member_id(member) for member in members), total)

    # Executions ------------------------------------------------------------------------------

    async def create_execution(
        self,
        new: NewExecution,
        *,
        owners_max: int,
        live_max: int | None = None,
        load_max: int | None = None,
    ) -> str:
        """See `Store.create_execution`."""
        checks.check_new(new)
        most = checks.EXACT_MAX if live_max is None else live_max
        most_each = checks.EXACT_MAX if load_max is None else load_max
        arguments = redis_replies.create_arguments(new, owners_max, most, most_each)
        reply = await self._run("create_execution", *arguments, self._log_entries_max)
        if reply[0] != b"ok":
            raise redis_replies.refused_create(new, most, reply)
        return str(reply[1].decode())

    async def claim(self, execution_id: str, owner: str) -> Loaded | None:
        """See `Store.claim`."""
        checks.check_name("owner", owner)
        reply = await self._run("claim", execution_id, owner)
        if reply == b"missing":
            raise redis_replies.no_execution(execution_id)
        return None if reply in (b"ended", b"no owner") else redis_replies.loaded(reply)

    async def claim_next(self, owner: str, *, owners_max: int) -> Loaded | None:
        """See `Store.claim_next`."""
        checks.check_name("owner", owner)
        reply = await self._run("claim_next", owner, owners_max)
        return None if reply is None else redis_replies.loaded(reply)

    async def commit(self, commit: Commit) -> None:
        """See `Store.commit`. Commits of other callers may travel along."""
        checks.check_commit(commit)
        reply = await self._commits.run(self._commit_arguments(commit))
        refusal = redis_replies.refused_commit(commit, reply)
        if refusal is not None:
            raise refusal

    async def commit_many(self, commits: Sequence[Commit]) -> list[Exception | None]:
        """See `Store.commit_many`."""
        for commit in commits:
            checks.check_commit(commit)
        replies = await self._send_commits([self._commit_arguments(one) for one in commits])
        return [
            redis_replies.refused_commit(commit, reply)
            for commit, reply in zip(commits, replies, strict=True)
        ]

    async def read_execution(self, execution_id: str, *, rows: bool = True) -> Snapshot | None:
        """See `Store.read_execution`."""
        kinds = ["EXECUTION", "CONSTANTS", *(["ROWS"] if rows else [])]
        head, constants, *found = await self._client.commands(
            [("HGETALL", self._keys.of(kind, execution_id)) for kind in kinds], atomic=True
        )
        return redis_replies.snapshot(head, found[0] if rows else (), constants)

    async def read_executions(
        self, ids: Sequence[str], fields: Sequence[str]
    ) -> list[Mapping[str, bytes] | None]:
        """See `Store.read_executions`."""
        names = [f".{field}" for field in fields]
        replies = await self._client.commands(
            [("HMGET", self._keys.of("EXECUTION", one), "v", *names) for one in ids]
        )
        return [
            None
            if reply[0] is None
            else {
                field: body
                for field, body in zip(fields, reply[1:], strict=True)
                if body is not None
            }
            for reply in replies
        ]

    async def read_seq(self, execution_id: str) -> int | None:
        """See `Store.read_seq`."""
        found = await self._client.command("HGET", self._keys.of("EXECUTION", execution_id), "s")
        return None if found is None else int(found)

    async def read_rows(self, execution_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """See `Store.read_rows`."""
        if not names:
            return {}
        bodies = await self._client.command("HMGET", self._keys.of("ROWS", execution_id), *names)
        return {name: body for name, body in zip(names, bodies, strict=True) if body is not None}

    async def read_outputs(self, references: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """See `Store.read_outputs`."""
        return await self._client.commands(
            [("HGET", self._keys.of("OUTPUTS", one), output) for one, output in references]
        )

    async def append_inbox(
        self, execution_id: str, entry: InboxEntry, *, epoch: int | None = None
    ) -> str:
        """See `Store.append_inbox`."""
        checks.check_bodies("body", (entry.body,))
        fence = "" if epoch is None else epoch
        reply = await self._run("append_inbox", execution_id, entry.entry_id, entry.body, fence)
        return redis_replies.appended(execution_id, reply)

    async def read_inbox(self, execution_id: str) -> list[InboxEntry]:
        """See `Store.read_inbox`."""
        entries = await self._client.command(
            "XRANGE", self._keys.of("INBOX", execution_id), "-", "+", "COUNT", INBOX_MAX
        )
        return redis_replies.inbox(entries)

    async def inboxes_waiting(self, owner: str) -> list[str]:
        """See `Store.inboxes_waiting`."""
        return await self._members("MAIL", owner, INBOX_MAX)

    # Owners ----------------------------------------------------------------------------------

    async def renew_owner(
        self, owner: str, *, lease_ms: int, known: bool = False, by_ms: int | None = None
    ) -> bool:
        """See `Store.renew_owner`."""
        checks.check_name("owner", owner)
        checks.check_count("lease_ms", lease_ms)
        latest_ms = checks.EXACT_MAX if by_ms is None else by_ms
        return bool(await self._run("renew_owner", owner, lease_ms, int(known), latest_ms))

    async def retire_owner(self, owner: str) -> bool:
        """See `Store.retire_owner`."""
        return bool(await self._run("retire_owner", owner))

    async def owners(self, *, lease_ms: int | None = None) -> list[OwnerLoad]:
        """See `Store.owners`."""
        reply = await self._run("owners", "" if lease_ms is None else lease_ms)
        return sorted(
            (
                OwnerLoad(reply[at].decode(), reply[at + 1], bool(reply[at + 2]))
                for at in range(0, len(reply), 3)
            ),
            key=lambda one: one.owner,
        )

    async def owned_executions(self, owner: str, *, limit: int, offset: int = 0) -> list[str]:
        """See `Store.owned_executions`."""
        checks.check_count("limit", limit)
        checks.check_count("offset", offset, 0)
        return await self._members("OWNED", owner, limit, offset)

    async def orphan(self, owner: str, *, limit: int, blame: bool = False) -> int:
        """See `Store.orphan`."""
        checks.check_count("limit", limit)
        return int(await self._run("orphan", owner, limit, int(blame), self._crashes_kept_ms))

    async def give_on(
        self, execution_id: str, *, epoch: int, blame: bool = False, aside: bool = False
    ) -> None:
        """See `Store.give_on`."""
        how = (int(blame), self._crashes_kept_ms, int(aside))
        await self._run("give_on", execution_id, epoch, *how)

    async def calm(self, execution_id: str, *, epoch: int) -> bool:
        """See `Store.calm`."""
        return bool(await self._run("calm", execution_id, epoch))

    async def waiting_executions(self) -> int:
        """See `Store.waiting_executions`."""
        queues = ("WAITING", "SUSPECTS")
        return sum(
            await self._client.commands([("ZCARD", self._keys.of(queue)) for queue in queues])
        )

    # Checkpoints -----------------------------------------------------------------------------

    async def create_checkpoint(
        self,
        checkpoint_id: str,
        execution_id: str,
        body: bytes,
        indexes: Sequence[IndexEntry],
        note: InboxEntry | None,
    ) -> Snapshot:
        """See `Store.create_checkpoint`."""
        checks.check_put("checkpoint", checkpoint_id, body, indexes, None, None)
        reply = await self._run(
            "create_checkpoint",
            checkpoint_id,
            execution_id,
            document_suffix("checkpoint", checkpoint_id),
            body,
            *((1, note.entry_id, note.body) if note else (0, "", "")),
            redis_replies.packed_indexes(checkpoint_id, indexes),
        )
        if reply == b"missing":
            raise redis_replies.no_execution(execution_id)
        if reply == b"exists":
            raise AlreadyExists(f"checkpoint {checkpoint_id!r} exists as a document without a copy")
        copy = redis_replies.snapshot(*reply)
        if copy is None:
            raise Missing(f"checkpoint {checkpoint_id!r} has lost its copy")
        return copy

    async def take_checkpoint(self, checkpoint: OwnCheckpoint) -> None:
        """See `Store.take_checkpoint`."""
        checks.check_own(checkpoint)
        reply = await self._run("take_checkpoint", *redis_replies.take_arguments(checkpoint))
        if reply != 0:
            raise redis_replies.refused_take(checkpoint, reply)

    async def read_checkpoint(self, checkpoint_id: str) -> Snapshot | None:
        """See `Store.read_checkpoint`."""
        return redis_replies.snapshot(*await self._run("read_checkpoint", checkpoint_id))

    # Retention -------------------------------------------------------------------------------

    async def expire(self, *, age_ms: int, limit: int) -> int:
        """See `Retention.expire`."""
        checks.check_count("age_ms", age_ms, 0)
        checks.check_count("limit", limit)
        return int(await self._run("expire", age_ms, limit))

    async def garbage(self, *, limit: int) -> list[str]:
        """See `Retention.garbage`."""
        checks.check_count("limit", limit)
        return await self._members("GARBAGE", "", limit)

    async def clear_garbage(self, removed: Sequence[str], later: Sequence[str] = ()) -> None:
        """See `Retention.clear_garbage`."""
        await self._run("clear_garbage", redis_replies.packed((list(removed), list(later))))

    async def known(self, ids: Sequence[str]) -> set[str]:
        """See `Retention.known`."""
        if not ids:
            return set()
        # Not atomic: what is neither there now nor held a moment later cannot come back.
        *there, held = await self._client.commands(
            [
                *(("EXISTS", self._keys.of("EXECUTION", one)) for one in ids),
                ("HMGET", self._keys.of("HELD"), *ids),
            ]
        )
        return {
            one
            for one, exists, holders in zip(ids, there, held, strict=True)
            if exists or holders is not None
        }

    async def tally(self) -> Tally:
        """See `Retention.tally`."""
        live, ended, expired, garbage, aside = await self._client.commands(
            [
                ("GET", self._keys.of("LIVE")),
                ("ZCARD", self._keys.of("ENDED")),
                ("GET", self._keys.of("EXPIRED")),
                ("ZCARD", self._keys.of("GARBAGE")),
                ("ZCARD", self._keys.of("ASIDE")),
            ]
        )
        return Tally(int(live or 0), ended, int(expired or 0), garbage, aside)

    async def compact(self, *, bytes_min: int) -> bool:
        """See `Retention.compact`."""
        checks.check_count("bytes_min", bytes_min, 0)
        return await compact(self._client, bytes_min)

    async def installation(self) -> str:
        """See `Retention.installation`."""
        key = self._keys.of("INSTALLATION")
        _, digits = await self._client.commands(
            [("SET", key, secrets.token_hex(6), "NX"), ("GET", key)], atomic=True
        )
        return str(digits.decode())

    # Rate limits -----------------------------------------------------------------------------

    async def take_tokens(
        self, bucket: str, *, tokens: int, rate_per_s: float, burst: int
    ) -> Grant:
        """See `Store.take_tokens`."""
        checks.check_tokens(tokens, rate_per_s, burst)
        granted, wait_ms = await self._run(
            "take_tokens", bucket, tokens, repr(1_000_000 / rate_per_s), burst
        )
        return Grant(granted, wait_ms)

    # -----------------------------------------------------------------------------------------

    async def _run(self, script: str, *arguments: Argument) -> Any:
        return await self._client.run(self._scripts.get(script), *arguments)

    def _commit_arguments(self, commit: Commit) -> list[Argument]:
        return [*redis_replies.commit_arguments(commit), self._log_entries_max, commit.owner]

    async def _send_commits(self, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        return await self._client.run_many(self._scripts.get("commit"), calls)

    async def _members(self, constant: str, owner: str, limit: int, offset: int = 0) -> list[str]:
        key, last = self._keys.of(constant, owner), offset + limit - 1
        return [one.decode() for one in await self._client.command("ZRANGE", key, offset, last)]

    def _document(self, kind: str, document_id: str) -> bytes:
        return self._keys.of("DOCUMENT", document_suffix(kind, document_id))
