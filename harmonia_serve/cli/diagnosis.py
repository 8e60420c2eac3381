"""The checks of `harmonia doctor`, each with a verdict and the way out.

They change nothing but a file of their own in the data directory, which they remove.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from harmonia_serve.cli.installation.lock import holder_of
from harmonia_serve.cli.installation.plan import Plan, make_plan
from harmonia_serve.cli.installation.ports import holder_of_port, is_free
from harmonia_serve.cli.installation.remote import has_services, offered, with_catalogues
from harmonia_serve.cli.output import size_text
from harmonia_serve.cli.problems import CommandFailed, UsageProblem

__all__ = ["PYTHON_VERSIONS", "Finding", "diagnose"]

#: The first version that will do, and the first above that will not.
PYTHON_VERSIONS = ((3, 11), (3, 15))
_RAY = "2.60."
_DISK_FAIL_BYTES = 200_000_000
_DISK_WARN_BYTES = 2_000_000_000
#: Ray keeps objects in shared memory; with less it falls back to the disk, slowly.
_SHM_WARN_BYTES = 1_000_000_000
_FILES_WARN = 4_096
_MEMORY_WARN_BYTES = 4_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found."""

    subject: str
    verdict: Literal["ok", "warn", "fail"]
    text: str
    way_out: str = ""

    def to_json(self) -> dict[str, str]:
        """As `harmonia doctor --json` shows it."""
        return asdict(self)


def diagnose(options: Mapping[str, Any]) -> list[Finding]:
    """All checks, in the order in which `up` with these options would stumble over them."""
    machine: list[Callable[[], Finding]] = [
        _python, _ray, _curl, _memory, _shared_memory, _open_files,
    ]  # fmt: skip
    installation: list[Callable[[Plan], Finding]] = [_data_dir, _disk, _port, _store]
    findings = [check() for check in machine]
    plan, unusable = _plan(options)
    if unusable is not None:
        findings.append(unusable)
    elif plan is not None and has_services(plan.settings):
        installation.append(_remote_components)
    return findings if plan is None else [*findings, *(check(plan) for check in installation)]


def _plan(options: Mapping[str, Any]) -> tuple[Plan | None, Finding | None]:
    """What `up` would do, and why it would not; without a plan there is nothing to look at."""
    try:
        return make_plan(options), None
    except UsageProblem as problem:
        finding = Finding("settings", "fail", problem.message, problem.way_out)
    try:
        return make_plan(options, checked=False), finding
    except UsageProblem:
        return None, finding


def _python() -> Finding:
    found = platform.python_version()
    lowest, above = PYTHON_VERSIONS
    if lowest <= sys.version_info[:2] < above:
        return Finding("Python", "ok", found)
    wanted = f"{lowest[0]}.{lowest[1]} to {above[0]}.{above[1] - 1}"
    return Finding("Python", "fail", f"{found} is not supported", f"Use Python {wanted}.")


def _ray() -> Finding:
    try:
        found = version("ray")
    except PackageNotFoundError:
        return Finding("Ray", "fail", "is not installed", "Install Harmonia with pip or uv.")
    if found.startswith(_RAY):
        return Finding("Ray", "ok", found)
    return Finding("Ray", "fail", f"{found} is not supported", f"Install Ray {_RAY}x.")


def _curl() -> Finding:
    found = shutil.which("curl")
    if found:
        return Finding("curl", "ok", found)
    return Finding(
        "curl",
        "warn",
        "is not on PATH",
        "Workflows that fetch with it, the demo among them, need it: install curl.",
    )


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    if free >= _MEMORY_WARN_BYTES:
        return Finding("memory", "ok", f"{size_text(free)} available")
    return Finding(
        "memory",
        "warn",
        f"{size_text(free)} available; Ray, Serve and a few task actors take about 2 GB",
        "Close something, or keep fewer actors warm (HARMONIA_TASK_ACTORS_MIN).",
    )


def _shared_memory() -> Finding:
    path = Path("/dev/shm")  # noqa: S108 - looked at, not written to
    if not path.is_dir():
        return Finding("shared memory", "ok", "not used on this system")
    free = shutil.disk_usage(path).free
    if free >= _SHM_WARN_BYTES:
        return Finding("shared memory", "ok", f"{size_text(free)} free")
    return Finding(
        "shared memory",
        "warn",
        f"{size_text(free)} free; Ray keeps large objects on the disk then, which is slow",
        "In a container: give it more with --shm-size=2g.",
    )


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FILES_WARN:
        return Finding("open files", "ok", f"at most {soft}")
    return Finding(
        "open files",
        "warn",
        f"at most {soft} (the system allows {hard}); each stream and actor takes some",
        f"Raise it: ulimit -n {65_535}",
    )


def _data_dir(plan: Plan) -> Finding:
    data_dir = plan.settings.data_dir
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "data directory",
            "fail",
            f"{data_dir} cannot be written",
            "Choose another one with --data-dir, or give yourself the right to write there.",
        )
    holder = holder_of(data_dir)
    state = f", in use by `harmonia up` ({holder})" if holder else ""
    return Finding("data directory", "ok", f"{data_dir}{state}")


def _disk(plan: Plan) -> Finding:
    data_dir = plan.settings.data_dir
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    text = f"{size_text(free)} free at {existing}"
    if free >= _DISK_WARN_BYTES:
        return Finding("disk", "ok", text)
    verdict: Literal["warn", "fail"] = "warn" if free >= _DISK_FAIL_BYTES else "fail"
    return Finding("disk", verdict, text, "Make room, or choose another --data-dir.")


def _port(plan: Plan) -> Finding:
    settings = plan.settings
    try:
        free = is_free(settings.host, settings.port)
    except CommandFailed as error:
        return Finding("port", "fail", error.message, error.way_out)
    if free:
        return Finding("port", "ok", f"{settings.port} is free")
    who = holder_of_port(settings.port)
    if holder_of(settings.data_dir) is not None:
        return Finding("port", "ok", f"{settings.port} is in use by {who}; Harmonia is up")
    return Finding(
        "port",
        "fail" if plan.port_explicit else "warn",
        f"{settings.port} is taken by {who}",
        "`harmonia up` takes the next free one, unless told which by --port.",
    )


def _store(plan: Plan) -> Finding:
    if plan.embedded:
        return _embedded_store()
    from persistence.errors import StoreError, UnsuitableServer
    from persistence.redis_store import RedisStore

    async def look() -> Finding:
        store = RedisStore.connect(
            plan.settings.redis_url.get_secret_value(), namespace=plan.settings.namespace
        )
        try:
            await store.ping()
            found = await store.durability()
        finally:
            await store.close()
        if found.promise == "always":
            return Finding("Redis", "ok", f"appendfsync always: {found.detail}")
        loss = {
            "everysec": "a crash of the server can lose at most the last second",
            "none": "a crash of the server can lose anything",
        }.get(found.promise, "nothing can be said of what a crash of the server loses")
        return Finding(
            "Redis",
            "warn",
            f"{found.detail}: {loss}",
            "For the full promise: appendonly yes, appendfsync always.",
        )

    try:
        return asyncio.run(look())
    except ValueError as error:
        return Finding("Redis", "fail", f"its URL cannot be used: {error}")
    except UnsuitableServer as error:
        return Finding("Redis", "fail", "cannot be used", str(error))
    except StoreError as error:
        return Finding("Redis", "fail", str(error), "Is it running, and is the URL right?")


def _remote_components(plan: Plan) -> Finding:
    subject = "remote components"
    try:
        found = with_catalogues(plan.settings)
    except CommandFailed as error:
        return Finding(subject, "fail", error.message, error.way_out)
    return Finding(subject, "ok", "; ".join(offered(found)))


def _embedded_store() -> Finding:
    from persistence.embedded import find_binary
    from persistence.errors import ServerFailed

    try:
        return Finding("store", "ok", f"embedded: {find_binary()}")
    except ServerFailed as error:
        return Finding("store", "fail", str(error), "Or use a Redis that runs: --redis-url.")
