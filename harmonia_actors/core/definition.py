"""From a workflow's JSON definition to a Workflow, with every problem found and named.

All problems are collected before any is raised, so that a person mends a definition in one go.
Which components exist, and whether an input schema is a good one, is asked of the caller: this
module knows neither a registry nor a schema library.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harmonia_actors.core.errors import Problem, ValidationFailed
from harmonia_actors.core.graph import Graph, find_cycle
from harmonia_actors.core.options import (
    parse_checkpoint_policy,
    parse_retry_policy,
    parse_seconds,
)
from harmonia_actors.core.references import Reference, Template, compile_template
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.core.workflow import Task, Workflow

__all__ = [
    "READ_ONLY_FIELDS",
    "DefinitionLimits",
    "build_workflow",
    "nearest",
    "output_template",
    "parse_definition",
]

#: What a definition may hold, and what a stored workflow shows besides: the latter may be sent
#: back (get, edit, put) and is ignored.
_FIELDS = (
    "name",
    "description",
    "version",
    "tasks",
    "input_schema",
    "output",
    "timeout",
    "retry_policy",
    "checkpoint",
    "metadata",
)
READ_ONLY_FIELDS = ("workflow_id", "template_id", "created_at", "updated_at")
_TASK_FIELDS = (
    "name",
    "description",
    "component",
    "action",
    "input",
    "depends_on",
    "timeout",
    "retry_policy",
    "resources",
    "metadata",
)


@dataclass(frozen=True, slots=True)
class DefinitionLimits:
    """Bounds on what a definition may hold; counts, characters and seconds."""

    tasks_max: int = 10_000
    edges_max: int = 100_000
    name_length_max: int = 128
    description_length_max: int = 10_000
    references_per_task_max: int = 20_000
    retries_max: int = 100
    timeout_s_max: float = 30 * 86_400.0
    checkpoints_kept_max: int = 100


#: Bounds of looking for a word that is like another: what is looked at, and what is looked into.
_WORD_CHARS_MAX = 200
_WORDS_MAX = 2_000
_LIKELY_MAX = 20
_LIKE = 0.6
#: Words of one definition for which another is looked for.
_GUESSES_MAX = 10


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word that is like `word`, else an empty text.

    The order of letters is slow to compare, so only words that have about the same ones get so far.
    """
    matcher = difflib.SequenceMatcher(None, "", word[:_WORD_CHARS_MAX])
    shares: list[tuple[float, str]] = []
    for other in list(known)[:_WORDS_MAX]:
        if len(other) <= _WORD_CHARS_MAX:
            matcher.set_seq1(other)
            if matcher.real_quick_ratio() >= _LIKE and (share := matcher.quick_ratio()) >= _LIKE:
                shares.append((share, other))
    likely = [other for _, other in heapq.nlargest(_LIKELY_MAX, shares)]
    close = difflib.get_close_matches(word[:_WORD_CHARS_MAX], likely, n=1, cutoff=_LIKE)
    return f"; did you mean '{close[0]}'?" if close else ""


class _Problems:
    """Problems found so far, each at a field: how many, and the first of them."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.count = 0
        self._guesses = 0

    def add(self, where: str, message: str) -> None:
        self.count += 1
        if len(self.found) < ValidationFailed.SHOWN_MAX:
            self.found.append(Problem(where, message))

    def refuse_any(self) -> None:
        """Raise ValidationFailed if there are any."""
        if self.count:
            raise ValidationFailed("workflow", self.found, total=self.count)

    def guess(self, word: str, known: Iterable[str]) -> str:
        """As `nearest`, for the first few words: looking for likeness is slow."""
        self._guesses += 1
        return nearest(word, known) if self._guesses <= _GUESSES_MAX else ""

    def unknown_fields(self, where: str, raw: Mapping[str, Any], known: Iterable[str]) -> None:
        for key in raw:
            if key not in known:
                place = f"{where}.{key}" if where else key
                self.add(place, f"there is no such field{self.guess(key, known)}")

    def text(self, where: str, value: Any, length_max: int, *, required: bool) -> str:
        if value is None and not required:
            return ""
        if not isinstance(value, str):
            self.add(where, "is required" if value is None else f"must be a string, not {value!r}")
            return ""
        if required and not value.strip():
            self.add(where, "must not be empty")
        if len(value) > length_max:
            self.add(where, f"has {len(value)} characters; at most {length_max} are allowed")
        return value


def parse_definition(
    definition: Mapping[str, Any],
    *,
    limits: DefinitionLimits | None = None,
    check_action: Callable[[Task], Iterable[tuple[str, str]]] | None = None,
    check_schema: Callable[[Any], Iterable[tuple[str, str]]] | None = None,
    inputs_of: Callable[[Any], Collection[str] | None] | None = None,
) -> Workflow:
    """Check a definition and build its Workflow. Raises ValidationFailed with all problems.

    `check_action(task)` and `check_schema(input_schema)` return further problems as pairs of a
    field (relative to the task or the schema, like `.input.command`) and a message.
    `inputs_of(input_schema)` names all inputs that an execution can be given, or is None if any
    can; without it, references to inputs are not judged.
    """
    limits = limits or DefinitionLimits()
    problems = _Problems()
    problems.unknown_fields("", definition, (*_FIELDS, *READ_ONLY_FIELDS))
    problems.text("name", definition.get("name"), limits.name_length_max, required=True)
    description_max = limits.description_length_max
    problems.text("description", definition.get("description"), description_max, required=False)
    problems.text("version", definition.get("version"), limits.name_length_max, required=False)
    raw_tasks = _raw_tasks(definition.get("tasks"), limits, problems)
    if check_schema is not None and definition.get("input_schema") is not None:
        for where, message in check_schema(definition["input_schema"]):
            problems.add(f"input_schema{where}", message)
    tasks = [
        _parse_task(index, key, raw, limits, problems)
        for index, (key, raw) in enumerate(raw_tasks.items())
    ]
    parents = _edges(tasks, limits, problems)
    workflow_timeout = parse_seconds(
        definition.get("timeout"), "timeout", limits.timeout_s_max, problems.add
    )
    retry = parse_retry_policy(
        definition.get("retry_policy"), "retry_policy", limits.retries_max, problems.add
    )
    checkpoint = parse_checkpoint_policy(
        definition.get("checkpoint"),
        "checkpoint",
        kept_max=limits.checkpoints_kept_max,
        most_s=limits.timeout_s_max,
        report=problems.add,
    )
    if check_action is not None:
        for task in tasks:
            for where, message in check_action(task):
                problems.add(f"tasks.{task.name}{where}", message)
    problems.refuse_any()
    workflow = Workflow(
        name=definition["name"],
        tasks=tuple(tasks),
        graph=Graph.build(parents),
        output=definition.get("output"),
        timeout_ms=workflow_timeout,
        retry=retry,
        checkpoint=checkpoint,
    )
    judge = None
    if inputs_of is not None:
        judge = _judge_inputs(inputs_of(definition.get("input_schema")), problems)
    _check_references(workflow, limits, problems, judge)
    problems.refuse_any()
    return workflow


def build_workflow(definition: Mapping[str, Any]) -> Workflow:
    """The Workflow of a definition that was checked when it was stored."""
    unbounded = DefinitionLimits(
        tasks_max=10**9,
        edges_max=10**9,
        name_length_max=10**9,
        description_length_max=10**9,
        references_per_task_max=10**9,
        retries_max=10**9,
        timeout_s_max=1e12,
        checkpoints_kept_max=10**9,
    )
    return parse_definition(definition, limits=unbounded)


def _raw_tasks(
    value: Any, limits: DefinitionLimits, problems: _Problems
) -> dict[str, Mapping[str, Any]]:
    if not isinstance(value, dict):
        problems.add("tasks", "must be an object of tasks by name")
        return {}
    if not value:
        problems.add("tasks", "must hold at least one task")
    if len(value) > limits.tasks_max:
        problems.add("tasks", f"has {len(value)} tasks; at most {limits.tasks_max} are allowed")
        return {}
    kept: dict[str, Mapping[str, Any]] = {}
    for key, raw in value.items():
        if isinstance(raw, dict):
            kept[key] = raw
        else:
            problems.add(f"tasks.{key}", "must be an object")
    return kept


def _parse_task(
    index: int, key: str, raw: Mapping[str, Any], limits: DefinitionLimits, problems: _Problems
) -> Task:
    where = f"tasks.{key}"
    problems.unknown_fields(where, raw, _TASK_FIELDS)
    problems.text(f"{where}", key, limits.name_length_max, required=True)
    if any(ord(char) < 32 or ord(char) == 127 for char in key):
        problems.add(where, "a task's name must not hold control characters")
    if key and not key.strip("."):
        problems.add(
            where,
            "a task's name must not consist of dots only: in paths, those mean other places",
        )
    if raw.get("name", key) != key:
        problems.add(f"{where}.name", f"must be the task's key '{key}', not {raw['name']!r}")
    component = problems.text(
        f"{where}.component", raw.get("component"), limits.name_length_max, required=True
    )
    action = problems.text(
        f"{where}.action", raw.get("action"), limits.name_length_max, required=True
    )
    task_input = raw.get("input")
    if task_input is None:
        task_input = {}
    if not isinstance(task_input, dict):
        problems.add(f"{where}.input", "must be an object of the action's inputs by name")
        task_input = {}
    return Task(
        index=index,
        name=key,
        component=component,
        action=action,
        input=task_input,
        depends_on=_names(raw.get("depends_on"), f"{where}.depends_on", problems),
        timeout_ms=parse_seconds(
            raw.get("timeout"), f"{where}.timeout", limits.timeout_s_max, problems.add
        ),
        retry=parse_retry_policy(
            raw.get("retry_policy"), f"{where}.retry_policy", limits.retries_max, problems.add
        ),
        resources=_resources(raw.get("resources"), f"{where}.resources", problems),
    )


def _names(value: Any, where: str, problems: _Problems) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        problems.add(where, "must be an array of task names")
        return ()
    return tuple(value)


def _resources(value: Any, where: str, problems: _Problems) -> ResourceRequest:
    if value is None:
        return ResourceRequest()
    if not isinstance(value, dict):
        problems.add(where, 'must be an object, like {"num_cpus": 2}')
        return ResourceRequest()
    try:
        return ResourceRequest.parse(value)
    except ValueError as error:
        problems.add(where, str(error))
        return ResourceRequest()


def _edges(tasks: list[Task], limits: DefinitionLimits, problems: _Problems) -> list[list[int]]:
    index_of = {task.name: task.index for task in tasks}
    if sum(len(task.depends_on) for task in tasks) > limits.edges_max:
        count = sum(len(task.depends_on) for task in tasks)
        problems.add("tasks", f"have {count} dependencies; at most {limits.edges_max} are allowed")
        return [[] for _ in tasks]
    parents: list[list[int]] = []
    for task in tasks:
        mine: list[int] = []
        seen: set[str] = set()
        for place, name in enumerate(task.depends_on):
            where = f"tasks.{task.name}.depends_on[{place}]"
            if name not in index_of:
                problems.add(where, f"there is no task '{name}'{problems.guess(name, index_of)}")
            elif name in seen:
                problems.add(where, f"'{name}' is named twice")
            else:
                mine.append(index_of[name])
            seen.add(name)
        parents.append(mine)
    cycle = find_cycle(parents)
    if cycle is not None:
        names = [tasks[index].name for index in cycle]
        shown = " → ".join(names if len(names) <= 12 else [*names[:11], "…", names[-1]])
        problems.add(
            f"tasks.{names[0]}.depends_on",
            f"the tasks wait for each other in a cycle of {len(names) - 1}: {shown}",
        )
    return parents


def _judge_inputs(known: Collection[str] | None, problems: _Problems) -> Callable[[Reference], str]:
    """Says of a reference why no execution could ever have a value for it; empty if one could."""

    def judge(reference: Reference) -> str:
        *_, last = reference.chain()
        if last.task is not None or last.has_default or not last.path:
            return ""
        name = last.path[0]
        if isinstance(name, int):
            return (
                f"'{reference.text}' needs item {name} of the input, but the input is an object; "
                "write ${workflow.input.NAME}"
            )
        if known is None or name in known:
            return ""
        way_out = problems.guess(name, known) or "; name it there, or write a default with ??"
        return (
            f"'{reference.text}' needs the input '{name}', which input_schema does not name"
            f"{way_out}"
        )

    return judge


def _check_references(
    workflow: Workflow,
    limits: DefinitionLimits,
    problems: _Problems,
    judge: Callable[[Reference], str] | None,
) -> None:
    names = workflow.by_name
    for task in workflow.tasks:
        where = f"tasks.{task.name}.input"

        def report(place: str, message: str, where: str = where) -> None:
            problems.add(where + place, message)

        template = compile_template(task.input, names, report, judge)
        if len(template.references) > limits.references_per_task_max:
            problems.add(
                where,
                f"has {len(template.references)} references; "
                f"at most {limits.references_per_task_max} are allowed",
            )
        for name in sorted(template.tasks()):
            _check_ancestor(workflow, task, name, problems)
    if workflow.output is not None:
        compile_template(
            workflow.output,
            names,
            lambda place, message: problems.add("output" + place, message),
            judge,
        )


def _check_ancestor(workflow: Workflow, task: Task, name: str, problems: _Problems) -> None:
    other = workflow.by_name[name]
    if not workflow.graph.is_ancestor(other.index, task.index):
        problems.add(
            f"tasks.{task.name}.input",
            f"refers to the output of '{name}', which need not have completed when "
            f"'{task.name}' starts; add '{name}' to the depends_on of '{task.name}'",
        )


def output_template(workflow: Workflow) -> Template | None:
    """The compiled `output` of a workflow, or None if it has none."""
    if workflow.output is None:
        return None
    return compile_template(workflow.output, workflow.by_name)
