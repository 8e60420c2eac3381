"""Which operations can be sent again: every POST carries a key, but the one of an API key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harmonia_serve.client.flows import Call, Flow
from harmonia_serve.client.operations import Operations
from harmonia_serve.client.wire import request_options


class Said(Operations[Call, Call]):
    """A client that gives back what it would send."""

    def _document(self, flow: Flow[Any]) -> Call:
        step = flow.send(None)
        assert isinstance(step, Call)
        return step

    _bytes = _document


SAID = Said()
MAKING: dict[str, Callable[..., Call]] = {
    "create_workflow": lambda **key: SAID.create_workflow({}, **key),
    "execute": lambda **key: SAID.execute("wf-1", **key),
    "create_template": lambda **key: SAID.create_template("t", parameters={}, **key),
    "instantiate_template": lambda **key: SAID.instantiate_template("tmpl-1", "i", {}, **key),
    "create_checkpoint": lambda **key: SAID.create_checkpoint("exec-1", "c", **key),
    "restore": lambda **key: SAID.restore("cp-1", **key),
}


@pytest.mark.parametrize("name", MAKING)
def test_what_makes_something_carries_a_key(name: str) -> None:
    say = MAKING[name]
    calls = [say(), say()]
    assert all(call.method == "POST" and call.repeatable for call in calls)
    assert calls[0].idempotency_key != calls[1].idempotency_key
    given = request_options(say(idempotency_key="monthly"), 30.0)
    assert given["headers"]["Idempotency-Key"] == "monthly"
    with pytest.raises(ValueError, match="visible ASCII"):
        say(idempotency_key="two words")


def test_a_cancel_can_be_sent_again() -> None:
    assert SAID.cancel_execution("exec-1").repeatable


def test_what_cannot_be_answered_twice_carries_none() -> None:
    call = SAID.create_key("k", ["read"])
    assert not call.repeatable
    assert "Idempotency-Key" not in request_options(call, 30.0)["headers"]


def test_what_makes_nothing_carries_none() -> None:
    for call in (
        SAID.get_workflow("wf-1"),
        SAID.replace_workflow("wf-1", {}),
        SAID.delete_workflow("wf-1"),
        SAID.list_keys(),
        SAID.health(),
    ):
        assert call.idempotency_key is None
