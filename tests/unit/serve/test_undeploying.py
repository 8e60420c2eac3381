"""In which order an installation's applications leave Serve."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray import serve

from harmonia_actors.settings import Settings
from harmonia_serve.deployments import surfaces, undeploy

#: Several, because an order may be right by luck.
NAMESPACES = [f"hm-{letter}" for letter in "abcdefghij"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Serve is told, of a cluster where all those installations and another one's app are."""
    ours = [one.name for space in NAMESPACES for one in surfaces(Settings(namespace=space))]
    told: list[str] = []
    there = dict.fromkeys([*ours, "another"])
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications=there))
    monkeypatch.setattr(serve, "delete", told.append)
    monkeypatch.setattr(serve, "shutdown", lambda: told.append("shutdown"))
    return told


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_rest_leaves_first_or_it_would_answer_for_the_streams(
    calls: list[str], namespace: str
) -> None:
    """It is at "/", where all is that nothing else is at: its 404 would end their clients."""
    undeploy(namespace)
    assert calls[0] == f"{namespace}-rest"
    assert sorted(calls) == sorted(one.name for one in surfaces(Settings(namespace=namespace)))


def test_serve_ends_with_the_last_application(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only = {"hm-a-events": None, "hm-a-rest": None}
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications=only))
    undeploy("hm-a")
    assert calls == ["hm-a-rest", "hm-a-events", "shutdown"]
