"""`make` refuses a Python that Harmonia does not run on, before it has made anything with it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from harmonia_serve.cli.diagnosis import PYTHON_VERSIONS
from tests.architecture.source import ROOT

#: Stands for a Python, and for all that is installed with it. It tells whether it will do.
PYTHON = """#!/bin/sh
case "$1" in
  -c) exit {verdict} ;;
  --version) echo "Python {version}" ;;
  -m) if [ "$2" = venv ]; then
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        for program in pip uv; do printf '#!/bin/sh\\n' > "$3/bin/$program"; done
        chmod +x "$3/bin"/*
      fi ;;
esac
"""


def python(path: Path, version: str, *, good: bool) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.format(verdict=0 if good else 1, version=version))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, directory)
    return directory


def make(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    assert program is not None
    return subprocess.run(
        [program, *arguments], cwd=project, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("target", ["install", "demo", "test", "lint", "lock"])
def test_a_python_that_will_not_do_is_refused_before_anything_is_made(
    project: Path, tmp_path: Path, target: str
) -> None:
    old = python(tmp_path / "python3.9", "3.9.2", good=False)
    ran = make(project, target, f"PYTHON={old}")
    assert ran.returncode == 2
    assert "3.11 to 3.14" in ran.stderr
    assert "Python 3.9.2" in ran.stderr
    assert "make PYTHON=python3." in ran.stderr
    assert not (project / ".venv").exists()


def test_a_python_that_is_not_there_is_refused(project: Path) -> None:
    ran = make(project, "install", "PYTHON=python-of-nowhere")
    assert ran.returncode == 2
    assert "python-of-nowhere" in ran.stderr
    assert "make PYTHON=python3." in ran.stderr
    assert not (project / ".venv").exists()


def test_what_was_made_with_a_wrong_python_is_made_again(project: Path, tmp_path: Path) -> None:
    python(project / ".venv" / "bin" / "python", "3.9.2", good=False)
    (project / ".venv" / "left").write_text("")
    good = python(tmp_path / "python3.12", "3.12.1", good=True)
    ran = make(project, "install", f"PYTHON={good}")
    assert ran.returncode == 0, ran.stderr
    assert not (project / ".venv" / "left").exists()
    assert (project / ".venv" / ".installed").exists()


def test_what_was_made_with_a_right_python_stays(project: Path, tmp_path: Path) -> None:
    good = python(tmp_path / "python3.12", "3.12.1", good=True)
    assert make(project, "install", f"PYTHON={good}").returncode == 0
    (project / ".venv" / "left").write_text("")
    (project / ".venv" / ".installed").unlink()
    old = python(tmp_path / "python3.9", "3.9.2", good=False)
    assert make(project, "install", f"PYTHON={old}").returncode == 0
    assert (project / ".venv" / "left").exists()


def test_all_speak_of_the_same_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest, above = PYTHON_VERSIONS
    wanted = f">={lowest[0]}.{lowest[1]},<{above[0]}.{above[1]}"
    assert project["requires-python"] == wanted
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"\((3, ?\d+)\)", makefile) == [f"3, {lowest[1]}", f"3, {above[1]}"]
    said = f"Python 3.{lowest[1]} to 3.{above[1] - 1}"
    assert said in makefile
    assert said in (ROOT / "README.md").read_text()
