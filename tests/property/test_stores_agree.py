"""Random histories, done to the memory store and to a real server: every answer is the same."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from persistence.embedded import EmbeddedServer
from persistence.errors import StoreError
from persistence.log import LOG_START
from persistence.memory_store import MemoryStore
from persistence.redis_store import RedisStore
from persistence.store import Commit, InboxEntry, IndexEntry, NewExecution, OwnCheckpoint, Store

#: `make test` runs a few histories; more with HARMONIA_TEST_EXAMPLES.
EXAMPLES = int(os.environ.get("HARMONIA_TEST_EXAMPLES", "20"))
#: Looking at everything costs more than doing something, so it is done every few steps.
LOOK_EVERY = 8
#: No lease runs out and no bucket fills within a test, so that clocks make no difference.
FOR_EVER_MS = 10_000_000
#: Until when an owner may register: long over, and not for long, by whichever clock.
PAST_MS, FUTURE_MS = 1_000_000_000_000, 4_000_000_000_000
OWNERS = ("o1", "o2", "o:3")
EXECUTIONS = ("e1", "e2", "e:3", "e*\r\n4")
CHECKPOINTS = ("c1", "c2", "c3")
DOCUMENTS = ("d1", "d:2", "c1")
KINDS = ("workflow", "a:b", "checkpoint")
DIGESTS = ("x", "y")
LISTS = ("list", "l:2")

owners = st.sampled_from(OWNERS)
executions = st.sampled_from(EXECUTIONS)
names = st.sampled_from(["a", "b", ".", "task-1", "é:*"])
bodies = st.binary(max_size=4)
mappings = st.dictionaries(names, bodies, max_size=3)
entry_ids = st.sampled_from(["i1", "i2", "i:3"])
limits = st.integers(1, 3)
indexes = st.lists(
    st.builds(
        IndexEntry,
        st.sampled_from(LISTS),
        st.sampled_from([-1.0, 0.0, 0.5, 1e15]),
        st.sampled_from(["", "a", "a\x00", "a\x01", "b", "ä"]),
    ),
    max_size=2,
    unique_by=lambda entry: entry.index,
)


class StoresAgree(RuleBasedStateMachine):
    """One operation at a time; after each, what can be seen of both is compared."""

    url: str

    @initialize()
    def connect(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.memory = MemoryStore()
        self.redis = RedisStore.connect(self.url, f"test-{secrets.token_hex(8)}")
        #: The last epoch, version and seq seen of each execution, to aim commits at.
        self.seen: dict[str, tuple[int, int, int]] = {}

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.redis.close())
            self.loop.close()

    def both(self, operation: Callable[[Store], Awaitable[Any]]) -> Any:
        expected = self.loop.run_until_complete(answer(operation, self.memory))
        found = self.loop.run_until_complete(answer(operation, self.redis))
        assert found == expected
        return expected

    @rule(digest=st.sampled_from(DIGESTS), body=bodies)
    def put_definition(self, digest: str, body: bytes) -> None:
        self.both(lambda store: store.put_definition(digest, body))

    @rule(
        kind=st.sampled_from(KINDS),
        document=st.sampled_from(DOCUMENTS),
        body=bodies,
        indexes=indexes,
        definition=st.none() | st.sampled_from(DIGESTS),
        expected=st.none() | st.integers(0, 3),
    )
    def put_document(self, kind, document, body, indexes, definition, expected) -> None:
        # Lists hold ids of one kind, as Harmonia's do.
        own = [IndexEntry(f"{kind}/{one.index}", one.score, one.text) for one in indexes]
        self.both(
            lambda store: store.put_document(
                kind, document, body, own, definition=definition, expected_version=expected
            )
        )

    @rule(kind=st.sampled_from(KINDS), document=st.sampled_from(DOCUMENTS))
    def delete_document(self, kind: str, document: str) -> None:
        self.both(lambda store: store.delete_document(kind, document))

    @rule(
        owner=owners,
        known=st.booleans(),
        by_ms=st.none() | st.sampled_from([0, PAST_MS, FUTURE_MS]),
    )
    def renew_owner(self, owner: str, known: bool, by_ms: int | None) -> None:
        self.both(
            lambda store: store.renew_owner(owner, lease_ms=FOR_EVER_MS, known=known, by_ms=by_ms)
        )

    @rule(owner=owners)
    def retire_owner(self, owner: str) -> None:
        self.both(lambda store: store.retire_owner(owner))

    @rule(owner=owners, limit=limits, blame=st.booleans())
    def orphan(self, owner: str, limit: int, blame: bool) -> None:
        self.both(lambda store: store.orphan(owner, limit=limit, blame=blame))

    @rule(execution=executions, off=st.sampled_from([0, 0, -1]), blame=st.booleans())
    def give_on(self, execution: str, off: int, blame: bool) -> None:
        epoch = max(self.seen.get(execution, (0, 0, 0))[0] + off, 0)
        self.both(lambda store: store.give_on(execution, epoch=epoch, blame=blame))

    @rule(execution=executions, off=st.sampled_from([0, 0, -1]))
    def calm(self, execution: str, off: int) -> None:
        epoch = max(self.seen.get(execution, (0, 0, 0))[0] + off, 0)
        self.both(lambda store: store.calm(execution, epoch=epoch))

    @rule(
        execution=executions,
        digest=st.sampled_from(DIGESTS),
        fields=mappings,
        constants=mappings,
        rows=mappings,
        events=st.lists(bodies, max_size=2),
        indexes=indexes,
        alone=st.booleans(),
        holds=st.lists(executions, max_size=2, unique=True),
        owners_max=st.integers(0, 3),
        live_max=st.sampled_from([None, None, None, 0, 1, 2]),
        load_max=st.sampled_from([None, None, 0, 1, 2]),
    )
    def create(
        self,
        execution,
        digest,
        fields,
        constants,
        rows,
        *,
        events,
        indexes,
        alone,
        holds,
        owners_max,
        live_max,
        load_max,
    ) -> None:
        held = [one for one in holds if one != execution]
        sole = indexes[-1].index if alone and indexes else ""
        other = {name: body for name, body in constants.items() if name not in fields}
        new = NewExecution(execution, digest, fields, rows, events, indexes, held, sole, other)
        self.both(
            lambda store: store.create_execution(
                new, owners_max=owners_max, live_max=live_max, load_max=load_max
            )
        )
        self.look(execution)

    @rule(age_ms=st.sampled_from([0, 0, FOR_EVER_MS]))
    def expire(self, age_ms: int) -> None:
        # All that is due: which of two that ended in the same millisecond is older, is open.
        self.both(lambda store: store.expire(age_ms=age_ms, limit=len(EXECUTIONS)))

    @rule(removed=st.lists(executions, max_size=2), later=st.lists(executions, max_size=2))
    def clear_garbage(self, removed: list[str], later: list[str]) -> None:
        self.both(lambda store: store.clear_garbage(removed, later))

    @rule(execution=executions, owner=owners)
    def claim(self, execution: str, owner: str) -> None:
        self.both(lambda store: store.claim(execution, owner))
        self.look(execution)

    @rule(owner=owners, owners_max=st.integers(0, 3))
    def claim_next(self, owner: str, owners_max: int) -> None:
        loaded = self.both(lambda store: store.claim_next(owner, owners_max=owners_max))
        if loaded:
            self.look(loaded["execution_id"])

    @rule(
        execution=executions,
        epoch_off=st.sampled_from([0, 0, 0, 0, -1, 1]),
        version_off=st.sampled_from([1, 1, 1, 1, 0, 2, -1]),
        seq_off=st.sampled_from([1, 1, 1, 1, 0, 2]),
        parts=st.fixed_dictionaries(
            {
                "fields": mappings,
                "rows": mappings,
                "outputs": mappings,
                "events": st.lists(bodies, max_size=3),
                "inbox_done": st.lists(entry_ids, max_size=2),
                "indexes": st.none() | indexes,
                "release": st.sampled_from([False, False, False, True]),
            }
        ),
        many=st.booleans(),
    )
    def commit(self, execution, epoch_off, version_off, seq_off, parts, many) -> None:
        epoch, version, seq = self.seen.get(execution, (0, 0, 0))
        commit = Commit(
            execution_id=execution,
            owner="o1",
            epoch=max(epoch + epoch_off, 0),
            version=max(version + version_off, 1),
            first_seq=seq + seq_off,
            **parts,
        )
        if many:
            self.both(lambda store: store.commit_many([commit, commit]))
        else:
            self.both(lambda store: store.commit(commit))
        self.look(execution)

    @rule(
        execution=executions,
        entry_id=entry_ids,
        body=bodies,
        epoch_off=st.none() | st.sampled_from([0, 0, -1, 1]),
    )
    def append_inbox(
        self, execution: str, entry_id: str, body: bytes, epoch_off: int | None
    ) -> None:
        entry = InboxEntry(entry_id, body)
        known = self.seen.get(execution, (0, 0, 0))[0]
        epoch = None if epoch_off is None else max(known + epoch_off, 0)
        self.both(lambda store: store.append_inbox(execution, entry, epoch=epoch))

    @rule(
        checkpoint=st.sampled_from(CHECKPOINTS),
        execution=executions,
        body=bodies,
        note=st.none() | st.builds(InboxEntry, entry_ids, bodies),
    )
    def create_checkpoint(self, checkpoint, execution, body, note) -> None:
        index = [IndexEntry("checkpoint/list", 1.0)]
        self.both(lambda store: store.create_checkpoint(checkpoint, execution, body, index, note))

    @rule(
        checkpoint=st.sampled_from(CHECKPOINTS),
        execution=executions,
        epoch_off=st.sampled_from([0, 0, 0, -1]),
        number=st.integers(0, 3),
        kept=limits,
        body=bodies,
    )
    def take_checkpoint(self, checkpoint, execution, epoch_off, *, number, kept, body) -> None:
        epoch = max(self.seen.get(execution, (0, 0, 0))[0] + epoch_off, 0)
        index = [IndexEntry("checkpoint/list", 2.0)]
        taken = OwnCheckpoint(checkpoint, execution, epoch, number, kept, body, index)
        self.both(lambda store: store.take_checkpoint(taken))

    @rule(tokens=st.integers(1, 3), burst=st.integers(1, 5))
    def take_tokens(self, tokens: int, burst: int) -> None:
        async def granted(store: Store) -> tuple[int, bool]:
            grant = await store.take_tokens("b", tokens=tokens, rate_per_s=1e-6, burst=burst)
            return grant.tokens, grant.retry_after_ms > 0

        self.both(granted)

    @invariant()
    def nothing_else_differs(self) -> None:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps % LOOK_EVERY == 0:
            self.both(visible)

    def look(self, execution: str) -> None:
        snapshot = self.both(lambda store: store.read_execution(execution))
        if snapshot is None:
            self.seen.pop(execution, None)
        else:
            self.seen[execution] = (snapshot["epoch"], snapshot["version"], snapshot["seq"])


async def answer(operation: Callable[[Store], Awaitable[Any]], store: Store) -> Any:
    """What a call returned or raised, as plain values that compare."""
    try:
        return plain(await operation(store))
    except StoreError as error:
        return plain(error)


def plain(value: Any) -> Any:
    if isinstance(value, StoreError):
        return (type(value).__name__, str(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(part) for name, part in asdict(value).items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


async def visible(store: Store) -> list[Any]:
    """Everything that readers can see."""
    seen: list[Any] = [await store.owners(), await store.waiting_executions(), await store.tally()]
    seen.append(sorted(await store.garbage(limit=len(EXECUTIONS))))
    seen.append(sorted(await store.known(EXECUTIONS)))
    for execution in EXECUTIONS:
        seen.append(await store.read_execution(execution))
        seen.append(await store.read_inbox(execution))
        seen.append(await answer(lambda s, e=execution: s.read_events(e, after=1, limit=2), store))
        seen.append(await store.read_rows(execution, ["a", "b"]))
        seen.append(await store.read_outputs([(execution, "a"), (execution, "b")]))
    seen.append(await store.read_executions(EXECUTIONS, ["a", "b"]))
    for owner in OWNERS:
        seen.append(await store.owned_executions(owner, limit=2))
        seen.append(await store.owned_executions(owner, offset=1, limit=2))
        seen.append(sorted(await store.inboxes_waiting(owner)))
    seen.extend([await store.get_documents(kind, DOCUMENTS) for kind in KINDS])
    for name in [f"{kind}/{name}" for kind in ("", *KINDS) for name in LISTS]:
        seen.append(await store.page(name.removeprefix("/"), offset=1, limit=2, descending=True))
        seen.append(await store.page(name.removeprefix("/"), offset=0, limit=3, descending=False))
    seen.extend([await store.read_checkpoint(one) for one in CHECKPOINTS])
    seen.extend([await store.get_definition(one) for one in DIGESTS])
    log = await store.read_log(after=LOG_START, limit=100)
    # The two have clocks of their own.
    seen.extend([(e.log_id.number, e.execution_id, e.first_seq, e.count) for e in log])
    named = [(entry.execution_id, entry.first_seq, entry.count) for entry in log]
    seen.append(await store.read_event_ranges(named))
    return [plain(one) for one in seen]


@pytest.fixture
def server_url(redis_server: EmbeddedServer) -> Iterator[str]:
    StoresAgree.url = redis_server.url
    yield redis_server.url
    del StoresAgree.url


def test_the_stores_agree(server_url: str) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        StoresAgree,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
