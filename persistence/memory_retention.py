"""What the memory store needs to forget: who holds what, what has ended, what is garbage."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from persistence.errors import Missing

__all__ = ["Holdings", "Lives"]


class Holdings:
    """Outputs and constants of executions, who holds them, and ids of those that nobody holds."""

    def __init__(self, now_ms: Callable[[], int], there: Collection[str]) -> None:
        """`there`: ids of the executions that are there; each holds its own outputs."""
        self._now_ms = now_ms
        self._there = there
        self._outputs: dict[str, dict[str, bytes]] = {}
        self._constants: dict[str, dict[str, bytes]] = {}
        #: Holders besides the execution itself.
        self._held: Counter[str] = Counter()
        self._garbage: dict[str, int] = {}

    def keep_outputs(self, execution_id: str, outputs: dict[str, bytes]) -> None:
        """Add outputs; those that are there stay as they are."""
        if outputs:
            kept = self._outputs.setdefault(execution_id, {})
            self._outputs[execution_id] = {**outputs, **kept}

    def output(self, execution_id: str, key: str) -> bytes | None:
        """One output, as long as anybody holds it."""
        return self._outputs.get(execution_id, {}).get(key)

    def keep_constants(self, execution_id: str, constants: Mapping[str, bytes]) -> None:
        """Add the fields that no commit replaces; those that are there stay as they are."""
        if constants:
            self._constants.setdefault(execution_id, dict(constants))

    def constants(self, execution_id: str) -> Mapping[str, bytes]:
        """The fields of an execution that no commit replaces, as long as anybody holds it."""
        return self._constants.get(execution_id, {})

    def is_kept(self, execution_id: str) -> bool:
        """Whether an execution is there, or somebody else holds its outputs."""
        return execution_id in self._there or self._held[execution_id] > 0

    def require(self, ids: Sequence[str], subject: str) -> None:
        """Raise Missing, naming who asks, for what nobody holds any more."""
        for held in ids:
            if not self.is_kept(held):
                raise Missing(f"{subject}: outputs of {held!r} are not kept any more")

    def hold(self, ids: Sequence[str]) -> None:
        """Count one more holder of each."""
        self._held.update(ids)

    def let_go(self, ids: Sequence[str]) -> None:
        """Count one holder less of each."""
        self._held.subtract(ids)
        for execution_id in ids:
            self.discard_unless_kept(execution_id)

    def discard_unless_kept(self, execution_id: str) -> None:
        """Drop the outputs if nobody holds them; the id is garbage then."""
        if not self.is_kept(execution_id):
            del self._held[execution_id]
            self._outputs.pop(execution_id, None)
            self._constants.pop(execution_id, None)
            self._garbage[execution_id] = self._now_ms()

    def garbage(self) -> list[str]:
        """Ids of what nobody holds, the oldest first."""
        return _by_time(self._garbage)

    def clear_garbage(self, removed: Sequence[str], later: Sequence[str]) -> None:
        """See `Retention.clear_garbage`."""
        for execution_id in removed:
            self._garbage.pop(execution_id, None)
        now_ms = self._now_ms()
        self._garbage.update({one: now_ms for one in later if one in self._garbage})


class Lives:
    """How many executions live, which have ended and when, how many have expired."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.installation = secrets.token_hex(6)
        self.created = 0
        self.live = 0
        self.expired = 0
        self._ended: dict[str, int] = {}

    @property
    def ended(self) -> int:
        """How many have ended and not expired."""
        return len(self._ended)

    def begin(self) -> int:
        """One more lives. Returns its number in the order of creation."""
        self.created += 1
        self.live += 1
        return self.created

    def end(self, execution_id: str) -> None:
        """One less lives."""
        self.live -= 1
        self._ended[execution_id] = self._now_ms()

    def due(self, age_ms: int, limit: int) -> list[str]:
        """The oldest of those that ended at least so long ago."""
        latest_ms = self._now_ms() - age_ms
        return [one for one in _by_time(self._ended) if self._ended[one] <= latest_ms][:limit]

    def expire(self, execution_id: str) -> None:
        """One that has ended is forgotten."""
        del self._ended[execution_id]
        self.expired += 1


def _by_time(times: dict[str, int]) -> list[str]:
    return sorted(times, key=lambda one: (times[one], one.encode()))
