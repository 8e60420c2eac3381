"""Turn a recorded workflow in WfFormat 1.5 (https://wfcommons.org) into a Harmonia workflow.

    python wfcommons.py INSTANCE.json --scale 0.001 > workflow.json
    python wfcommons.py INSTANCE.json --check EVENTS.json

The first makes one task per recorded task: it sleeps for the recorded runtime times --scale, and
depends on the recorded parents. The second takes the events of an execution of that workflow (a
JSON list, or an object with the list as `items` or `events`) and checks them against the recorded
files, which the conversion does not use: each task must have started only after the producers of
all its input files had completed. It exits 0 if all is well and 1 if not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SCHEMA_VERSION = "1.5"
PROBLEMS_SHOWN = 20


class NotWfFormat(ValueError):
    """The file is not what this script can read; the message says what is missing."""


def read_instance(path: Path) -> dict[str, Any]:
    """A WfFormat file, checked for what is used here."""
    try:
        instance = json.loads(path.read_text(encoding="utf-8"))
        version = instance["schemaVersion"]
        tasks = instance["workflow"]["specification"]["tasks"]
        ids = [task["id"] for task in tasks]
    except (OSError, ValueError) as error:
        raise NotWfFormat(f"{path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise NotWfFormat(f"{path} is not WfFormat: {error} is missing") from error
    if version != SCHEMA_VERSION:
        raise NotWfFormat(f"{path} is WfFormat {version}; this script reads {SCHEMA_VERSION}")
    if len(set(ids)) != len(ids):
        raise NotWfFormat(f"{path}: task ids repeat")
    return dict(instance)


def to_workflow(instance: dict[str, Any], *, action: str, scale: float) -> dict[str, Any]:
    """The workflow to be created: one task per recorded task, named by its id."""
    workflow = instance["workflow"]
    recorded = workflow.get("execution", {}).get("tasks", [])
    runtimes = {task["id"]: float(task.get("runtimeInSeconds", 0)) for task in recorded}
    tasks: dict[str, Any] = {}
    for task in workflow["specification"]["tasks"]:
        name = task["id"]
        seconds = round(runtimes.get(name, 0.0) * scale, 6)
        tasks[name] = {
            "name": name,
            "component": "harmonia",
            "action": action,
            "input": {"seconds": seconds} if action == "sleep" else {},
            "depends_on": list(dict.fromkeys(task.get("parents", []))),
        }
    return {
        "name": instance.get("name") or "wfcommons",
        "description": instance.get("description") or "A recorded workflow in WfFormat",
        "version": "1.0.0",
        "tasks": tasks,
    }


def producers(instance: dict[str, Any]) -> dict[str, set[str]]:
    """For each task, who produces its input files; files from outside have no producer."""
    tasks = instance["workflow"]["specification"]["tasks"]
    made_by = {file: task["id"] for task in tasks for file in task.get("outputFiles", [])}
    return {
        task["id"]: {made_by[file] for file in task.get("inputFiles", []) if file in made_by}
        - {task["id"]}
        for task in tasks
    }


def check_events(instance: dict[str, Any], events: Iterable[dict[str, Any]]) -> list[str]:
    """What is wrong with an execution's events, in words; empty if nothing is."""
    needed = producers(instance)
    ordered = sorted(events, key=lambda event: event["seq"])
    problems = []
    started: set[str] = set()
    completed: set[str] = set()
    for event in ordered:
        name = event.get("data", {}).get("task_name")
        if event["type"] not in ("task_started", "task_completed"):
            continue
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


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events as the API lists them, or as a bare list."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(found, dict):
        found = found.get("items", found.get("events"))
    if not isinstance(found, list) or not all("seq" in event for event in found):
        raise NotWfFormat(f"{path} holds no list of events with a seq each")
    return found


def main() -> int:
    """Convert or check, as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("instance", type=Path, help="a workflow recorded in WfFormat 1.5")
    parser.add_argument("--action", choices=("sleep", "noop"), default="sleep")
    parser.add_argument(
        "--scale", type=float, default=0.001, help="seconds slept per recorded second (0.001)"
    )
    parser.add_argument("--output", type=Path, help="where to write the workflow, not to stdout")
    parser.add_argument("--check", type=Path, metavar="EVENTS", help="check an execution's events")
    chosen = parser.parse_args()
    try:
        instance = read_instance(chosen.instance)
        if chosen.check:
            problems = check_events(instance, read_events(chosen.check))
            return report(problems, len(producers(instance)))
    except (NotWfFormat, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    workflow = to_workflow(instance, action=chosen.action, scale=chosen.scale)
    text = json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"
    if chosen.output:
        chosen.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
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
