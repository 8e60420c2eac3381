"""Which components there are, what they say of themselves, and how unknown names are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harmonia_actors.components.contract import ActionError, Component, TaskContext
from harmonia_actors.components.registry import ComponentLoadError, Registry, UnknownAction


def test_installed_components_are_found_by_entry_point() -> None:
    names = [component.name for component in Registry.load().components()]
    assert {"ergon", "harmonia", "rhetor", "sophia"} <= set(names)
    assert names == sorted(names)


def test_modules_add_every_component_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_components.py").write_text(
        "from harmonia_actors.components.contract import Component\n"
        "first, second = Component('first'), Component('second')\n"
        "alias = first\n"
        "@first.action\n"
        "def greet(name: str) -> dict:\n"
        "    return {'greeting': name}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry.load(["own_components"])
    assert registry.action("first", "greet").function("Ada") == {"greeting": "Ada"}
    assert "second" in [component.name for component in registry.components()]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("x = 1", "has no module-level Component"),
        (
            "from harmonia_actors.components.contract import Component\nmine = Component('ergon')",
            "two components are called 'ergon'",
        ),
    ],
)
def test_a_module_that_cannot_be_used_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    name = f"broken_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ComponentLoadError, match=says):
        Registry.load([name])


def test_an_unknown_component_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownAction, match="did you mean 'ergon'") as refused:
        Registry.load().action("ergonn", "execute_command")
    assert (refused.value.field, refused.value.suggestion) == ("component", "ergon")


def test_an_unknown_action_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownAction, match="did you mean 'analyze_data'") as refused:
        Registry.load().action("sophia", "analyse_data")
    assert (refused.value.field, refused.value.suggestion) == ("action", "analyze_data")


def test_a_name_like_nothing_gets_the_list_of_known_ones() -> None:
    with pytest.raises(UnknownAction, match=r"known: .*ergon") as refused:
        Registry.load().action("zzzzzz", "x")
    assert refused.value.suggestion is None


def test_the_catalogue_describes_every_action_with_its_schema() -> None:
    catalogue = {entry["name"]: entry for entry in Registry.load().catalogue()}
    actions = {action["name"]: action for action in catalogue["ergon"]["actions"]}
    command = actions["execute_command"]
    assert command["uses_files"]
    assert not command["is_async"]
    assert command["input_schema"]["required"] == ["command"]
    assert "context" not in command["input_schema"]["properties"]
    assert command["description"].startswith("Run a program")
    sleeps = {action["name"]: action for action in catalogue["harmonia"]["actions"]}["sleep"]
    assert sleeps["is_async"]
    assert not sleeps["uses_files"]


def test_only_execute_command_takes_words() -> None:
    words = {
        f"{component.name}.{action.name}": action.argv_inputs
        for component in Registry.load().components()
        for action in component.actions.values()
        if action.argv_inputs
    }
    assert words["ergon.execute_command"] == {"command"}


def test_loading_the_registry_loads_nothing_heavy() -> None:
    heavy = ["pandas", "numpy", "matplotlib", "pyarrow", "reportlab", "jinja2", "ray", "redis"]
    script = (
        "import sys\n"
        "from harmonia_actors.components.registry import Registry\n"
        "Registry.load().catalogue()\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert ran.stdout.strip() == "[]"


def test_preload_loads_what_actions_need() -> None:
    script = (
        "import sys\n"
        "from harmonia_actors.components.registry import Registry\n"
        "Registry.load().preload()\n"
        "print(all(n in sys.modules for n in ('pandas', 'pyarrow', 'matplotlib', 'reportlab')))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert ran.stdout.strip() == "True"


def _example() -> Component:
    component = Component("example")

    @component.action
    def measure(length: int, unit: str = "mm", *, context: TaskContext) -> dict[str, object]:
        return {"length": length, "unit": unit, "task": context.task_name}

    return component


def test_input_is_coerced_and_defaults_are_applied() -> None:
    action = _example().actions["measure"]
    assert action.takes_context
    assert action.parse({"length": "5"}) == {"length": 5, "unit": "mm"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "length: action 'measure' needs it"),
        ({"length": "five"}, "length: Input should be a valid integer"),
        ({"length": 1, "units": "m"}, "units: .* did you mean 'unit'"),
        ({"length": 1, "context": {}}, "context: .* no such input"),
    ],
)
def test_wrong_input_is_refused_by_field(given: dict[str, object], says: str) -> None:
    with pytest.raises(ActionError, match=says) as refused:
        _example().actions["measure"].parse(given)
    assert refused.value.code == "INVALID_INPUT"
    assert not refused.value.retriable


def test_problems_of_a_template_leave_out_values_not_known_yet() -> None:
    action = _example().actions["measure"]
    template = {"length": "${workflow.input.n}", "unit": 3, "colour": "${workflow.input.c}"}
    found = action.problems(template, lambda value: isinstance(value, str) and "${" in value)
    assert [problem["field"] for problem in found] == ["unit", "colour"]
    assert action.problems({"length": "${x}"}, lambda _: True) == []
    assert [p["field"] for p in action.problems({}, lambda _: True)] == ["length"]


def test_of_very_many_wrong_values_a_part_is_told() -> None:
    component = Component("c")

    @component.action
    def take(words: list[str], table: dict[str, list[int]] | None = None) -> None: ...

    action = component.actions["take"]
    numbers = {"words": [7] * 100_000}
    found = action.problems(numbers, lambda _: False)
    assert 0 < len(found) <= 1_000
    assert found[0]["field"] == "words.0"
    with pytest.raises(ActionError) as refused:
        action.parse(numbers)
    assert 0 < len(refused.value.details["errors"]) <= 1_000
    late = action.problems({"words": ["w"] * 1_000 + [7] * 100_000}, lambda _: False)
    assert late == [{"field": "*", "message": "has 100000 wrong values, too many to tell which"}]
    references: dict[str, object] = {"words": [], "table": {"a": [1] * 60 + ["${x}"] * 2_000}}
    assert action.problems(references, lambda value: "${" in str(value)) == []
    unknown = action.problems({f"w{n}": 1 for n in range(100_000)}, lambda _: False)
    assert 0 < len(unknown) <= 1_000
    assert "no such input" in unknown[-1]["message"]
