"""Workspaces are found by their names, and go with the execution that they belong to."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harmonia_actors.runtime.files import WorkspaceFiles

DAY_S = 86_400


@pytest.fixture
def files(tmp_path: Path) -> WorkspaceFiles:
    return WorkspaceFiles(tmp_path / "workspaces")


def write(files: WorkspaceFiles, execution_id: str, name: str = "file") -> None:
    files.workspace(execution_id).write_file(name, b"x")


def test_workspaces_are_listed_in_order_and_in_parts(files: WorkspaceFiles) -> None:
    assert files.ids("", 10) == []
    for name in ("c", "a", "b"):
        write(files, name)
    files.workspace("d", ("a",))
    assert files.ids("", 3) == ["a", "b", "c"]
    assert files.ids("c", 3) == ["d"]
    assert files.ids("d", 3) == []


def test_those_that_are_named_are_removed(files: WorkspaceFiles) -> None:
    for name in ("a", "b", "c"):
        write(files, name)
    assert files.remove(["a", "c", "never"], 0) == ["a", "c", "never"]
    assert files.ids("", 10) == ["b"]
    assert files.read("b", (), "file", 0, 9) == b"x"


def test_what_was_touched_lately_stays_if_age_counts(files: WorkspaceFiles) -> None:
    write(files, "a")
    # Its own time of change is what counts: this one a copy would take over.
    os.utime(files.root / "a", (0, 0))
    assert files.remove(["a", "never"], DAY_S) == ["never"]
    assert files.ids("", 10) == ["a"]
    deadline = time.monotonic() + 20
    while not files.remove(["a"], 0.001):
        assert time.monotonic() < deadline


def test_a_large_workspace_goes_in_several_calls(
    files: WorkspaceFiles,
) -> None:
    files = replace(files, removed_entries_max=4)
    for at in range(7):
        write(files, "a", f"{at}")
    write(files, "b")
    gone = [files.remove(["a", "b"], 0) for _ in range(3)]
    assert gone == [[], ["a"], ["a", "b"]]


@pytest.mark.parametrize("name", ["", ".", "..", "../out", "a/b", "/etc", ".unfinished"])
def test_nothing_but_a_workspace_is_ever_removed(files: WorkspaceFiles, name: str) -> None:
    write(files, "a")
    (files.root.parent / "out").mkdir()
    assert files.remove([name], 0) == [name], "nothing lies there"
    assert files.ids("", 10) == ["a"]
    assert (files.root.parent / "out").is_dir()


def test_a_copy_takes_the_files_over_and_is_not_seen_before_it_is_whole(
    files: WorkspaceFiles,
) -> None:
    write(files, "a")
    files.workspace("b", ("a",)).write_file("more", b"y")
    assert [info.path for info in files.list_files("b", ())[0]] == ["file", "more"]
    assert [info.path for info in files.list_files("a", ())[0]] == ["file"]
    assert list((files.root / ".unfinished").iterdir()) == []


def test_copies_that_were_never_finished_go_after_a_day(files: WorkspaceFiles) -> None:
    files.remove_unfinished()
    part = files.root / ".unfinished" / "a-0123"
    part.mkdir(parents=True)
    files.remove_unfinished()
    assert part.is_dir()
    files.remove_unfinished(older_than_s=0)
    assert not part.exists()
