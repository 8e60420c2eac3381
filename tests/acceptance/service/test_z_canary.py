"""Keys that were in query strings are nowhere, wherever one looks. Runs last, over all traces."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from harmonia_actors.settings import Settings
from harmonia_serve.cli.installation.ray_environment import ray_directory
from harmonia_serve.ingress import private_directory
from tests.support.running import RunningService, until
from tests.support.sockets import ending

_PIECE = 1 << 20


def files_below(directory: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink():
                yield path


def places_in_files(service: RunningService) -> dict[str, list[Path]]:
    """Every file that the service or anything it has started writes."""
    data_dir = service.data_dir
    return {
        "data directory": [p for p in files_below(data_dir) if p != data_dir / "connection.json"],
        "Ray": list(files_below(ray_directory(data_dir))),
        "ingress": list(files_below(private_directory(Settings(data_dir=data_dir)))),
        "up.log": [data_dir.parent / "up.log"],
    }


def holds(path: Path, needle: bytes) -> bool:
    """Whether a file holds some bytes, read piece by piece."""
    tail = b""
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                if needle in tail + piece:
                    return True
                tail = piece[-len(needle) :]
    except OSError:
        # Gone since it was listed, or a file that cannot be read as one.
        return False
    return False


def places_in_processes(service: RunningService) -> Iterator[tuple[str, bytes]]:
    """What other users of the machine may see of processes, and what commands inherit."""
    for process in service.processes():
        for what in ("cmdline", "environ"):
            try:
                yield (
                    f"{what} of {process.name()}",
                    Path(f"/proc/{process.pid}/{what}").read_bytes(),
                )
            except (OSError, psutil.NoSuchProcess):
                continue


def found_at(service: RunningService, needle: str, told: dict[str, str]) -> list[str]:
    """Where a text is, among files, processes and what the service has told."""
    wanted = needle.encode()
    found = [
        f"{where}: {path}"
        for where, paths in places_in_files(service).items()
        for path in paths
        if holds(path, wanted)
    ]
    found += [where for where, text in places_in_processes(service) if wanted in text]
    return found + [where for where, text in told.items() if needle in text]


def use_in_queries(service: RunningService, key: str, execution_id: str) -> dict[str, str]:
    """Use a key as browsers have to; good and bad requests, on both streams; what came back."""
    told = {}
    events = f"{service.url}/events/harmonia/executions/"
    for path in (execution_id, f"{execution_id}/", "exec-nobody", "../../health"):
        for kind, query in (
            ("good", f"?api_key={key}"),
            ("escaped", f"?after=0&api%5Fkey={key}"),
            ("bad", f"?api_key={key}&limit=x"),
        ):
            answer = httpx.get(events + path + query, timeout=60, trust_env=False)
            told[f"SSE {path} {kind}"] = answer.text + str(answer.headers)
    rest = httpx.get(f"{service.url}/api/harmonia/workflows?api_key={key}", trust_env=False)
    told["REST"] = rest.text + str(rest.headers)
    for name in (execution_id, "exec-nobody"):
        code, messages = ending(service, name, query=f"?api_key={key}")
        told[f"WebSocket {name} {code}"] = json.dumps(messages)
    assert "execution_completed" in told[f"SSE {execution_id} good"]
    assert "execution_completed" in told[f"WebSocket {execution_id} 1000"]
    return told


def test_keys_in_query_strings_leave_no_trace(service: RunningService) -> None:
    marker = f"marker-{os.urandom(8).hex()}"
    done = service.run(
        {
            "say": {"component": "testing", "action": "say", "input": {"text": marker}},
            "fail": {
                "component": "harmonia",
                "action": "fail",
                "input": {"message": "as asked", "retriable": False},
                "depends_on": ["say"],
            },
            "never": {"component": "harmonia", "action": "noop", "depends_on": ["fail"]},
        },
        {"canary": marker},
    )
    assert done["status"] == "failed"
    done = service.run(
        {"say": {"component": "harmonia", "action": "echo", "input": {"value": marker}}}
    )
    made = service.api.post("/keys", json={"name": "canary", "scopes": ["read"]}).json()
    told: dict[str, str] = {}
    for key in (service.key, made["api_key"]):
        told |= use_in_queries(service, key, done["execution_id"])
    for path in ("/metrics", "/service", "/keys", "/executions", "/openapi.json"):
        told[path] = service.api.get(path).text
    assert service.api.delete(f"/keys/{made['key_id']}").status_code == 200

    # The search finds what is there: an input in the store, an action's output in Ray's logs, a
    # word of an event; and in the processes the data directory.
    until(lambda: any(where.startswith("Ray: ") for where in found_at(service, marker, told)), 30)
    markers = found_at(service, marker, told)
    assert any("appendonly" in where for where in markers)
    assert any(where.startswith("WebSocket ") for where in markers)
    assert any(
        where.startswith("environ of ") for where in found_at(service, str(service.data_dir), told)
    )
    assert any("connection.json" not in where for where in markers)
    # Everybody writes all that they can.
    for logger in ("harmonia_serve.boundary", "harmonia_actors.runtime.driver"):
        assert any(
            where.startswith("Ray: ") for where in found_at(service, f" DEBUG {logger}: ", told)
        )

    second = made["api_key"].split("_", 2)[2]
    assert found_at(service, second, told) == []
    first = service.key.split("_", 2)[2]
    # Whoever typed `harmonia up` was shown the first key, this once.
    shown = service.data_dir.parent / "up.log"
    assert found_at(service, first, told) == [f"up.log: {shown}"]
    assert shown.read_text().count(first) == 1


@pytest.mark.parametrize("name", ["connection.json", "ray_token", "store/server.conf"])
def test_files_with_secrets_are_their_owners_alone(service: RunningService, name: str) -> None:
    assert (service.data_dir / name).stat().st_mode & 0o077 == 0
