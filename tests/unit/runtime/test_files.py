"""Workspaces as the API sees them, and whose files an execution that was restored has."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmonia_actors.core.errors import ResourceNotFound
from harmonia_actors.runtime.files import WorkspaceFiles

CHAIN = ("exec-2", "exec-1")


@pytest.fixture
def files(tmp_path: Path) -> WorkspaceFiles:
    return WorkspaceFiles(tmp_path / "workspaces")


def write(files: WorkspaceFiles, execution_id: str, text: str) -> None:
    files.workspace(execution_id).write_file("x.txt", text.encode())


def seen(files: WorkspaceFiles, execution_id: str, files_from: tuple[str, ...]) -> str:
    """What there is to see of x.txt, by each of the ways to see it."""
    listed, more = files.list_files(execution_id, files_from)
    if not listed:
        with pytest.raises(ResourceNotFound, match=f"'{execution_id}' has no file 'x.txt'"):
            files.describe(execution_id, files_from, "x.txt")
        return ""
    assert (more, [info.path for info in listed]) == (False, ["x.txt"])
    assert files.describe(execution_id, files_from, "x.txt") == listed[0]
    return files.read(execution_id, files_from, "x.txt", 0, 100).decode()


def test_until_it_has_a_directory_an_execution_shows_the_files_it_will_begin_with(
    files: WorkspaceFiles,
) -> None:
    assert seen(files, "exec-3", CHAIN) == ""
    write(files, "exec-1", "of the first")
    assert seen(files, "exec-3", CHAIN) == "of the first"
    write(files, "exec-2", "of the second")
    assert seen(files, "exec-3", CHAIN) == "of the second"
    files.workspace("exec-3", CHAIN)
    write(files, "exec-2", "changed since")
    assert seen(files, "exec-3", CHAIN) == "of the second"
    write(files, "exec-3", "its own")
    assert (seen(files, "exec-3", CHAIN), seen(files, "exec-3", ())) == ("its own", "its own")


def test_a_workspace_begins_with_the_nearest_files(files: WorkspaceFiles) -> None:
    write(files, "exec-1", "of the first")
    with files.workspace("exec-3", CHAIN).open_read("x.txt") as opened:
        assert opened.read() == b"of the first"
    assert seen(files, "exec-2", ()) == ""


def test_a_workspace_that_begins_with_nothing_is_empty(files: WorkspaceFiles) -> None:
    assert files.workspace("exec-3", CHAIN).list_files(10).files == ()
    write(files, "exec-1", "too late")
    assert files.workspace("exec-3", CHAIN).list_files(10).files == ()
    assert seen(files, "exec-3", CHAIN) == ""
