"""Ray's errors, as they come from a call: only a death of the actor itself is its death."""

from __future__ import annotations

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    RayError,
    RaySystemError,
    RayTaskError,
)

from harmonia_actors.actors.asking import asking
from harmonia_actors.runtime.silence import Failed, Gone, NotFound, Silent
from persistence.errors import StoreUnavailable


def raised_by_a_method(cause: Exception) -> Exception:
    """As it reaches whoever has called: also of the kind of its cause."""
    found: Exception = RayTaskError("ready", "Traceback …", cause).as_instanceof_cause()
    assert isinstance(found, type(cause))
    return found


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ActorDiedError(), Gone),
        (ActorUnavailableError("the line was cut", None), Silent),
        (RayError(), Silent),
        (RaySystemError("no"), Silent),
        (GetTimeoutError("late"), Silent),
        (ObjectLostError("00" * 28, None, ""), Silent),
        (ConnectionError("no head"), Silent),
        (ValueError("Failed to look up actor"), NotFound),
        (raised_by_a_method(StoreUnavailable("away")), Failed),
        (raised_by_a_method(ActorDiedError()), Failed),
        (raised_by_a_method(ValueError("a defect")), Failed),
        (raised_by_a_method(OSError("a disk")), Failed),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_only_the_death_of_an_actor_is_its_death(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as found, asking():
        raise error
    assert type(found.value) is kind


def test_a_defect_of_ones_own_is_none_of_these() -> None:
    with pytest.raises(AttributeError), asking():
        raise AttributeError("pool")
