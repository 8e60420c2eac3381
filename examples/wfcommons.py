"""Turn a recorded workflow in WfFormat (https://wfcommons.org) into a Harmonia workflow.

    python wfcommons.py INSTANCE.json --scale 0.001 > workflow.json
    python wfcommons.py INSTANCE.json --check EVENTS

The first makes one task per recorded task: it sleeps for the recorded runtime times --scale, and
depends on the recorded parents. The second takes the events of an execution of that workflow, as
`harmonia executions events --json` prints them (one JSON object to a line; a JSON list, or an
object with the list as `items` or `events`, will do as well), and checks them against the recorded
files, which the conversion does not use: each task must have started only after the producers of
all its input files had completed. It exits 0 if all is well, 1 if not, and 2 if it cannot tell.

It reads WfFormat 1.4, where a task has its files and its runtime and knows others by their names,
and 1.5 and 1.6, where specification and execution are apart and tasks know each other by id.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROBLEMS_SHOWN = 20

Json = dict[str, Any]


class Unusable(ValueError):
    """A file is not what this script can read; the message says what is wrong with it."""


@dataclass(frozen=True)
class Task:
    """A recorded task: whom it waits for, its files, and how long it took."""

    id: str
    parents: Sequence[str]
    inputs: Sequence[str]
    outputs: Sequence[str]
    seconds: float


@dataclass(frozen=True)
class Instance:
    """A recorded workflow."""

    name: str
    description: str
    tasks: Sequence[Task]


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unusable(str(error)) from error
    except RecursionError:
        raise Unusable("nested too deeply") from None


def read_instance(path: Path) -> Instance:
    """A WfFormat file, checked for what is used here."""
    try:
        return instance_of(read_json(path))
    except Unusable as error:
        raise Unusable(f"{path}: {error}") from error


def instance_of(document: Any) -> Instance:
    if not isinstance(document, dict) or "schemaVersion" not in document:
        raise Unusable("not WfFormat: it has no schemaVersion")
    version = document["schemaVersion"]
    if version not in ("1.4", "1.5", "1.6"):
        raise Unusable(f"this is WfFormat {version}; this script reads 1.4, 1.5 and 1.6")
    workflow = an_object(document, "workflow")
    return Instance(
        text_or_none(document, "name") or "wfcommons",
        text_or_none(document, "description") or "A recorded workflow in WfFormat",
        tasks_of_14(workflow) if version == "1.4" else tasks_of_15(workflow),
    )


def tasks_of_15(workflow: Json) -> list[Task]:
    """Tasks and what became of them are in two lists, and belong together by id."""
    recorded = objects(an_object(workflow, "specification"), "tasks")
    execution = workflow.get("execution")
    ended = objects(execution, "tasks") if isinstance(execution, dict) else []
    seconds = {text(task, "id"): runtime(task) for task in ended}
    ids = unique([text(task, "id") for task in recorded])
    parents = parents_of(recorded, ids, {name: name for name in ids})
    return [
        Task(
            name,
            parents[name],
            texts(task, "inputFiles"),
            texts(task, "outputFiles"),
            seconds.get(name, 0.0),
        )
        for name, task in zip(ids, recorded, strict=True)
    ]


def tasks_of_14(workflow: Json) -> list[Task]:
    """All that is known of a task is in one place. They know each other by name, some by id."""
    recorded = objects(workflow, "tasks")
    names = [text(task, "name") for task in recorded]
    known: dict[str, str] = {}
    if len(set(names)) == len(names):
        ids = unique(names)
        known = {str(task.get("id")): name for name, task in zip(ids, recorded, strict=True)}
    else:
        ids = unique([text(task, "id") for task in recorded])
    known |= {name: name for name in ids}
    parents = parents_of(recorded, ids, known)
    return [
        Task(name, parents[name], files(task, "input"), files(task, "output"), runtime(task))
        for name, task in zip(ids, recorded, strict=True)
    ]


def parents_of(
    recorded: Sequence[Json], ids: Sequence[str], known: dict[str, str]
) -> dict[str, list[str]]:
    """Whom each task waits for, whichever end of a dependency has it; `known` by what name."""
    parents: dict[str, dict[str, None]] = {name: {} for name in ids}
    for end in ("parents", "children"):
        for name, task in zip(ids, recorded, strict=True):
            for other in texts(task, end):
                if other not in known:
                    raise Unusable(
                        f"task '{name}' has '{other}' among its {end}, but there is none"
                    )
                first, then = (known[other], name) if end == "parents" else (name, known[other])
                parents[then][first] = None
    return {name: list(found) for name, found in parents.items()}


def an_object(document: Json, field: str) -> Json:
    found = document.get(field)
    if not isinstance(found, dict):
        raise Unusable(f"not WfFormat: '{field}' is no object")
    return found


def objects(document: Json, field: str) -> list[Json]:
    found = document.get(field) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Unusable(f"not WfFormat: '{field}' is no list of objects")
    return found


def text(document: Json, field: str) -> str:
    found = document.get(field)
    if not isinstance(found, str) or not found:
        raise Unusable(f"not WfFormat: '{field}' is {found!r}, and no text")
    return found


def text_or_none(document: Json, field: str) -> str | None:
    return text(document, field) if document.get(field) not in (None, "") else None


def texts(document: Json, field: str) -> list[str]:
    found = document.get(field) or []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise Unusable(f"not WfFormat: a task's '{field}' is no list of texts")
    return found


def files(task: Json, link: str) -> list[str]:
    return [
        f"{file.get('path') or ''}{text(file, 'name')}"
        for file in objects(task, "files")
        if str(file.get("link")).lower() == link
    ]


def runtime(task: Json) -> float:
    seconds = task.get("runtimeInSeconds")
    if seconds is None:
        return 0.0
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds < math.inf:
        raise Unusable(f"a task's 'runtimeInSeconds' is {seconds!r}")
    return float(seconds)


def unique(names: Sequence[str]) -> Sequence[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Unusable(f"the task id '{name}' repeats")
        seen.add(name)
    if not names:
        raise Unusable("not WfFormat: there are no tasks")
    return names


def to_workflow(instance: Instance, *, action: str, scale: float) -> Json:
    """The workflow to be created: one task per recorded task, named by its id."""
    return {
        "name": instance.name,
        "description": instance.description,
        "version": "1.0.0",
        "tasks": {
            task.id: {
                "name": task.id,
                "component": "harmonia",
                "action": action,
                "input": {"seconds": round(task.seconds * scale, 6)} if action == "sleep" else {},
                "depends_on": list(task.parents),
            }
            for task in instance.tasks
        },
    }


def producers(instance: Instance) -> dict[str, set[str]]:
    """For each task, who produces its input files; files from outside have no producer."""
    made_by = {file: task.id for task in instance.tasks for file in task.outputs}
    return {
        task.id: {made_by[file] for file in task.inputs if file in made_by} - {task.id}
        for task in instance.tasks
    }


def check_events(instance: Instance, events: Iterable[Json]) -> list[str]:
    """What is wrong with an execution's events, in words; empty if nothing is."""
    needed = producers(instance)
    ordered = sorted(events, key=lambda event: int(event["seq"]))
    problems = []
    started: set[str] = set()
    completed: set[str] = set()
    for event in ordered:
        if event["type"] not in ("task_started", "task_completed"):
            continue
        name = event["data"]["task_name"]
        if name not in needed:
            problems.append(f"seq {event['seq']}: task '{name}' is not in the file")
        elif event["type"] == "task_completed":
            if name in completed or name not in started:
                what = "completed again" if name in completed else "completed without a start"
                problems.append(f"seq {event['seq']}: '{name}' {what}")
            completed.add(name)
        else:
            missing = sorted(needed[name] - completed)
            if missing:
                problems.append(f"seq {event['seq']}: '{name}' started before {missing} completed")
            started.add(name)
    seqs = [event["seq"] for event in ordered]
    if seqs != list(range(seqs[0], seqs[0] + len(seqs)) if seqs else []):
        problems.append("the events' seq has gaps or repeats")
    problems += [f"'{name}' never completed" for name in needed if name not in completed]
    if not any(event["type"] == "execution_completed" for event in ordered):
        problems.append("there is no execution_completed event")
    return problems


def read_events(path: Path) -> list[Json]:
    """The events, one to a line or in a list, each checked for what is used here."""
    try:
        found = lines_or_list(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            found = [found] if "seq" in found else found.get("items", found.get("events"))
        if not isinstance(found, list):
            raise Unusable("there is no list of events in it")
        if not found:
            raise Unusable("there are no events in it")
        for number, event in enumerate(found, 1):
            check_event(number, event)
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from error
    except RecursionError:
        raise Unusable(f"{path}: nested too deeply") from None
    return found


def lines_or_list(written: str) -> Any:
    lines = [line for line in written.split("\n") if line.strip()]
    if len(lines) > 1 and lines[0].startswith("{") and lines[0].endswith("}"):
        return [json_line(number, line) for number, line in enumerate(lines, 1)]
    return json.loads(written)


def json_line(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise Unusable(f"line {number} is not JSON: {error}") from error


def check_event(number: int, event: Any) -> None:
    """Raise Unusable for an event that is none."""
    if not isinstance(event, dict):
        raise Unusable(f"event {number} is no object")
    if not isinstance(event.get("seq"), int):
        raise Unusable(f"event {number} has no seq that is a number")
    if not isinstance(event.get("type"), str):
        raise Unusable(f"event {number} has no type")
    if event["type"].startswith("task_"):
        data = event.get("data", {})
        if not isinstance(data, dict):
            raise Unusable(f"event {number}: its data is no object")
        if not isinstance(data.get("task_name"), str):
            raise Unusable(f"event {number}: its data has no task_name")


def factor(written: str) -> float:
    """What --scale takes."""
    number = float(written)
    if not 0 <= number < math.inf:
        raise ValueError(written)
    return number


def main() -> int:
    """Convert or check, as the arguments say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("instance", type=Path, help="a workflow recorded in WfFormat 1.4 to 1.6")
    parser.add_argument("--action", choices=("sleep", "noop"), default="sleep")
    parser.add_argument(
        "--scale", type=factor, default=0.001, help="seconds slept per recorded second (0.001)"
    )
    parser.add_argument("--output", type=Path, help="where to write the workflow, not to stdout")
    parser.add_argument("--check", type=Path, metavar="EVENTS", help="check an execution's events")
    chosen = parser.parse_args()
    try:
        instance = read_instance(chosen.instance)
        if chosen.check:
            problems = check_events(instance, read_events(chosen.check))
            return report(problems, len(instance.tasks))
        workflow = to_workflow(instance, action=chosen.action, scale=chosen.scale)
        written = json.dumps(workflow, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if chosen.output:
            chosen.output.write_text(written, encoding="utf-8")
        else:
            sys.stdout.write(written)
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads it has seen enough; what is left must not raise again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(problems: list[str], tasks: int) -> int:
    """Say how the check went; the exit code."""
    for problem in problems[:PROBLEMS_SHOWN]:
        print(problem)
    if len(problems) > PROBLEMS_SHOWN:
        print(f"and {len(problems) - PROBLEMS_SHOWN} more")
    if not problems:
        print(f"{tasks} tasks, each started after the producers of its inputs had completed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
