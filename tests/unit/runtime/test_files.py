"""Workspaces as the API sees them, and whose files an execution that was restored has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

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


# Files that are in use -------------------------------------------------------------------------


@contextmanager
def busy(directory: Path) -> Iterator[None]:
    """Files and directories come and go all the time."""
    over = Event()

    def come_and_go() -> int:
        rounds = 0
        while not over.is_set():
            (directory / "deep/er").mkdir(parents=True, exist_ok=True)
            for number in range(20):
                (directory / f"deep/er/{number}").write_text("x")
                (directory / f"{number}.tmp").write_text("x")
            for number in range(20):
                (directory / f"{number}.tmp").unlink()
            shutil.rmtree(directory / "deep")
            rounds += 1
        return rounds

    with ThreadPoolExecutor() as pool:
        done = pool.submit(come_and_go)
        try:
            yield
        finally:
            over.set()
            assert done.result(timeout=60)


def test_files_that_come_and_go_do_not_keep_others_from_beginning_with_the_rest(
    files: WorkspaceFiles,
) -> None:
    write(files, "exec-1", "hello")
    with busy(files.root / "exec-1"):
        for number in range(100):
            files.workspace(f"exec-c{number}", ("exec-1",))
    for number in range(100):
        with files.workspace(f"exec-c{number}").open_read("x.txt") as opened:
            assert opened.read() == b"hello"
    assert list((files.root / ".unfinished").iterdir()) == []


def test_what_is_no_content_is_neither_shown_nor_copied(files: WorkspaceFiles) -> None:
    write(files, "exec-1", "hello")
    source = files.root / "exec-1"
    part = f".{'0f' * 8}.part"
    (source / part).write_text("not whole")
    (source / ".mine.part").write_text("a file like any other")
    os.mkfifo(source / "pipe")
    (source / "link").symlink_to("x.txt")
    assert [info.path for info in files.list_files("exec-1", ())[0]] == [".mine.part", "x.txt"]
    files.workspace("exec-2", ("exec-1",))
    copied = {one.name for one in (files.root / "exec-2").iterdir()}
    assert copied == {".mine.part", "x.txt", "link"}


def test_a_file_that_cannot_be_copied_is_a_failure_that_leaves_nothing(
    files: WorkspaceFiles,
) -> None:
    deep = files.workspace("exec-1").directory
    while (left := 4_090 - len(os.fsencode(deep))) > 1:
        deep /= "d" * min(200, left - 1)
    deep.mkdir(parents=True)
    with pytest.raises(shutil.Error, match="File name too long"):
        files.workspace("exec-2", ("exec-1",))
    assert not (files.root / "exec-2").exists()
    assert list((files.root / ".unfinished").iterdir()) == []
