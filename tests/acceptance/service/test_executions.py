"""What an execution does, seen from outside."""

from __future__ import annotations

from tests.support.running import RunningService


def test_tasks_run_in_the_order_of_their_dependencies(service: RunningService) -> None:
    tasks = {
        "a": {"component": "testing", "action": "add", "input": {"a": 1, "b": 2}},
        "b": {
            "component": "testing",
            "action": "add",
            "input": {"a": "${tasks.a.output.sum}", "b": "${workflow.input.n}"},
            "depends_on": ["a"],
        },
    }
    done = service.run(tasks, {"n": 39})
    assert done["status"] == "completed"
    assert done["output"] == {"sum": 42}
    first, second = done["task_status"]["a"], done["task_status"]["b"]
    assert first["completed_ms"] <= second["started_ms"]
