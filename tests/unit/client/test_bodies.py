"""What the client puts into a request, and what it leaves out."""

from __future__ import annotations

from harmonia_serve.client.flows import Call, run_flow
from tests.unit.client.test_once import SAID


def test_what_was_not_given_is_left_out() -> None:
    """The service has defaults of its own, and takes an empty text for a mistake."""
    template = SAID.create_template("t", workflow_id="wf-1")
    assert template.body == {"name": "t", "workflow_id": "wf-1"}
    instance = SAID.instantiate_template("tmpl-1", "i", {})
    assert instance.body == {"name": "i", "parameter_values": {}}
    checkpoint = SAID.create_checkpoint("exec-1", "c")
    assert checkpoint.body == {"execution_id": "exec-1", "name": "c"}


def test_what_was_given_is_sent() -> None:
    template = SAID.create_template("t", parameters={}, definition={"tasks": {}}, description="d")
    assert template.body == {
        "name": "t",
        "description": "d",
        "parameters": {},
        "definition": {"tasks": {}},
    }
    instance = SAID.instantiate_template("tmpl-1", "i", {"a": 1}, description="d")
    assert instance.body == {"name": "i", "description": "d", "parameter_values": {"a": 1}}
    checkpoint = SAID.create_checkpoint("exec-1", "c", description="d")
    assert checkpoint.body == {"execution_id": "exec-1", "name": "c", "description": "d"}


def test_a_restore_says_what_is_different_and_nothing_else() -> None:
    plain = SAID.restore("cp-1", {"timeout": 5}, input_values={}, task_inputs={})
    assert plain.body == {"checkpoint_id": "cp-1", "execution_options": {"timeout": 5}}
    edited = SAID.restore("cp-1", input_values={"a": 1}, task_inputs={"t": {"x": None}})
    assert edited.body == {
        "checkpoint_id": "cp-1",
        "execution_options": {},
        "input": {"a": 1},
        "task_inputs": {"t": {"x": None}},
    }


def test_a_request_that_waits_is_waited_for_however_it_is_made() -> None:
    options = {"async": False}
    executed, restored = SAID.execute("wf-1", {}, options), SAID.restore("cp-1", options)
    ran = run_flow("wf-1", {}, options).send(None)
    assert isinstance(ran, Call)
    assert executed.timeout_s is not None
    assert ran.timeout_s == restored.timeout_s == executed.timeout_s
    quick = run_flow("wf-1", {}, {"async": True}).send(None)
    assert isinstance(quick, Call)
    assert quick.timeout_s is None
