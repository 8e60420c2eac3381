"""Components elsewhere, called from a real task actor over real HTTP."""

from __future__ import annotations

from typing import Any

from tests.support.remote_service import RemoteServer
from tests.support.running import RunningService, until


def far(action: str) -> dict[str, Any]:
    return {"call": {"component": "far", "action": action, "input": {"n": 1}}}


def test_an_action_elsewhere_is_a_task_like_any_other(
    service: RunningService, remote: RemoteServer
) -> None:
    done = service.run(far("greet"))
    assert (done["status"], done["output"]) == ("completed", {"said": "hello"})
    path, headers, body = next(one for one in remote.asked if one[0].endswith("/greet"))
    assert path == "/parts/far/greet"
    assert headers["idempotency-key"] == f"{done['execution_id']}/call"
    assert body["input"] == {"n": 1}
    assert body["attempt"]["attempt"] == 1
    shown = service.api.get("/components").json()["items"]
    assert [one["url"] for one in shown if one["name"] == "far"] == [remote.url]


def test_what_it_refuses_fails_the_task(service: RunningService) -> None:
    done = service.run(far("refuse"))
    assert done["status"] == "failed"
    error = done["task_status"]["call"]["error"]
    assert (error["message"], error["code"]) == ("no", "NOT_SO")


def test_a_cancel_reaches_it(service: RunningService, remote: RemoteServer) -> None:
    execution_id = service.start(service.create(far("hold")))
    until(
        lambda: service.status(execution_id)["task_status"]["call"].get("message") == "held",
        30,
        "progress from elsewhere",
    )
    assert not remote.disconnected.is_set()
    assert service.api.post(f"/executions/{execution_id}/cancel").status_code == 200
    assert service.finish(execution_id)["status"] == "cancelled"
    until(remote.disconnected.is_set, 10, "the end of the connection")
