"""Whatever bytes are sent as a body, the answer is never an unexpected error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonia_actors.core.errors import InvalidRequest
from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.bodies import parse_object
from tests.unit.serve.conftest import API, connect
from tests.unit.serve.gateway import MemoryGateway

PATHS = (
    "workflows",
    "executions",
    "templates",
    "templates/tmpl-123e4567-e89b-12d3-a456-426614174000/instantiate",
    "state/checkpoints",
    "state/restore",
    "keys",
)
FIELDS = st.sampled_from(
    [
        "name",
        "description",
        "tasks",
        "input",
        "workflow_id",
        "execution_id",
        "checkpoint_id",
        "execution_options",
        "async",
        "retry_policy",
        "parameters",
        "parameter_values",
        "definition",
        "scopes",
        "depends_on",
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(FIELDS | st.text(max_size=3), children, max_size=6)
    ),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(FIELDS, VALUES, max_size=6)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A document with a few bytes changed, taken out or put in."""
    raw = bytearray(json.dumps(draw(DOCUMENTS)).encode())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(raw)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.sampled_from(PATHS), raw=damaged() | st.binary(max_size=60))
async def test_no_body_is_an_unexpected_error(
    path: str, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = MemoryGateway()
    app = build_app(gateway, Settings())
    async with connect(app, gateway.add_key("admin")) as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.post(f"{API}/{path}", content=raw, headers=headers)
    assert answer.status_code in (201, 202, 400, 404, 422), answer.text
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"code", "message", "details"}
    assert "unexpected error" not in caplog.text


@given(DOCUMENTS)
def test_every_json_object_is_parsed_to_itself(document: dict[str, Any]) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(document, ensure_ascii=ascii_only).encode()
        assert parse_object(raw, Settings()) == document


@given(damaged() | st.binary(max_size=80))
def test_what_is_parsed_is_json_and_can_be_written_again(raw: bytes) -> None:
    try:
        document = parse_object(raw, Settings())
    except InvalidRequest as error:
        assert str(error)
        return
    assert document == json.loads(raw)
    json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
