"""Files outside the permitted directories cannot be reached, whatever the path says (S14)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from harmonia_actors.components.contract import ActionError
from harmonia_actors.components.workspace import Workspace


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A workspace, an allowed directory, and one that is neither."""
    made = (tmp_path / "work", tmp_path / "shared", tmp_path / "outside")
    for place in made:
        place.mkdir()
    (made[2] / "secret").write_text("secret")
    return made


@pytest.fixture
def workspace(places: tuple[Path, Path, Path]) -> Workspace:
    return Workspace(places[0], [places[1]])


def refused(workspace: Workspace, path: str, says: str = "not allowed") -> None:
    """All ways in are closed to this path."""
    for attempt in (
        lambda: workspace.resolve(path, write=False),
        lambda: workspace.resolve(path, write=True),
        lambda: workspace.open_read(path),
        lambda: workspace.open_write(path),
        lambda: workspace.write_file(path, b"x"),
        lambda: workspace.open_download(path),
    ):
        with pytest.raises(ActionError, match=says) as error:
            attempt()
        assert error.value.code == "PATH_NOT_ALLOWED"
        assert not error.value.retriable


def test_relative_paths_lie_in_the_workspace(workspace: Workspace) -> None:
    assert workspace.resolve("a/b.csv", write=False) == workspace.directory / "a" / "b.csv"
    assert workspace.resolve("a/../b.csv", write=True) == workspace.directory / "b.csv"
    assert workspace.resolve(".", write=False) == workspace.directory


def test_configured_directories_are_permitted(
    workspace: Workspace, places: tuple[Path, Path, Path]
) -> None:
    target = places[1] / "deep" / "file"
    assert workspace.write_file(str(target), b"here") == target
    with workspace.open_read(str(target)) as opened:
        assert opened.read() == b"here"


@pytest.mark.parametrize(
    "path",
    [
        *("../outside/secret", "a/../../outside/secret", "/etc/passwd", "../../etc/x", "/"),
        *("/proc/self/environ", "/dev/null", "/dev/fd/0", "/sys/kernel", "../work2", ".."),
    ],
)
def test_paths_that_lead_out_are_refused(workspace: Workspace, path: str) -> None:
    refused(workspace, path)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "empty"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("\ud800", "Unicode"),
        ("x" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
        ("x/" * 3000, "4095 bytes"),
    ],
)
def test_paths_that_are_no_names_are_refused(workspace: Workspace, path: str, says: str) -> None:
    refused(workspace, path, says)


def test_system_directories_are_refused_even_if_everything_is_allowed(
    places: tuple[Path, Path, Path],
) -> None:
    workspace = Workspace(places[0], [Path("/")])
    workspace.resolve(str(places[2] / "secret"), write=False)
    for path in ("/proc/self/environ", "/dev/zero", "/sys/kernel/notes"):
        refused_read = pytest.raises(ActionError, match="not allowed")
        with refused_read:
            workspace.open_read(path)


def test_denied_directories_win_over_allowed_ones_but_not_over_the_workspace(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    inside = data / "workspaces" / "e1"
    inside.mkdir(parents=True)
    (data / "keys").write_text("key")
    workspace = Workspace(inside, [tmp_path], denied=[data])
    workspace.write_file("fine", b"x")
    workspace.write_file(str(tmp_path / "also-fine"), b"x")
    with pytest.raises(ActionError, match="not allowed"):
        workspace.open_read(str(data / "keys"))


def test_symlinks_that_lead_out_are_refused(
    workspace: Workspace, places: tuple[Path, Path, Path]
) -> None:
    (workspace.directory / "file").symlink_to(places[2] / "secret")
    (workspace.directory / "folder").symlink_to(places[2])
    (workspace.directory / "chain").symlink_to("file")
    (workspace.directory / "dangling").symlink_to(places[2] / "new")
    for path in ("file", "folder/secret", "folder/new", "chain", "dangling"):
        refused(workspace, path)
    assert not (places[2] / "new").exists()
    assert (places[2] / "secret").read_text() == "secret"


def test_a_loop_of_symlinks_is_refused(workspace: Workspace) -> None:
    (workspace.directory / "a").symlink_to("b")
    (workspace.directory / "b").symlink_to("a")
    with pytest.raises(ActionError) as error:
        workspace.open_read("a")
    assert error.value.code == "PATH_NOT_ALLOWED"


def test_symlinks_within_are_followed(workspace: Workspace) -> None:
    workspace.write_file("real/data", b"x")
    (workspace.directory / "link").symlink_to("real")
    assert workspace.resolve("link/data", write=False) == workspace.directory / "real" / "data"
    with workspace.open_read("link/data") as opened:
        assert opened.read() == b"x"


class _Swapping(Workspace):
    """Between the check and the opening, somebody puts a symlink in the way."""

    swap: tuple[Path, Path]

    def resolve(self, path: str, *, write: bool) -> Path:
        found = super().resolve(path, write=write)
        place, target = self.swap
        if place.is_dir():
            place.rename(place.with_name("moved"))
        else:
            place.unlink(missing_ok=True)
        place.symlink_to(target)
        return found


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("operation", ["read", "write", "put"])
def test_a_symlink_swapped_in_after_the_check_is_not_followed(
    places: tuple[Path, Path, Path], what: str, operation: str
) -> None:
    workspace = _Swapping(places[0])
    (places[0] / "folder").mkdir()
    (places[0] / "folder" / "secret").write_text("mine")
    outside = places[2]
    if what == "file":
        workspace.swap = (places[0] / "folder" / "secret", outside / "secret")
    else:
        workspace.swap = (places[0] / "folder", outside)
    path = "folder/secret"
    if operation == "put" and what == "file":
        # Renaming replaces the symlink itself.
        workspace.write_file(path, b"attack")
    else:
        acts: dict[str, Callable[[], object]] = {
            "read": lambda: workspace.open_read(path),
            "write": lambda: workspace.open_write(path),
            "put": lambda: workspace.write_file(path, b"attack"),
        }
        with pytest.raises(ActionError) as error:
            acts[operation]()
        assert error.value.code == "PATH_NOT_ALLOWED"
    assert (outside / "secret").read_text() == "secret"


def test_what_is_no_regular_file_is_refused(workspace: Workspace) -> None:
    os.mkfifo(workspace.directory / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(workspace.directory)
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
    refused(workspace, "fifo", "regular file")
    refused(workspace, "socket", "regular file")


def test_a_fifo_swapped_in_holds_nobody_up(places: tuple[Path, Path, Path]) -> None:
    class Piping(Workspace):
        def resolve(self, path: str, *, write: bool) -> Path:
            found = super().resolve(path, write=write)
            os.mkfifo(found)
            return found

    workspace = Piping(places[0])
    with pytest.raises(ActionError, match="not a regular file"):
        workspace.open_read("a")
    with pytest.raises(ActionError):
        workspace.open_write("b")


def test_directories_are_no_files(workspace: Workspace) -> None:
    (workspace.directory / "folder").mkdir()
    for attempt in (
        lambda: workspace.open_read("folder"),
        lambda: workspace.open_write("folder"),
        lambda: workspace.write_file("folder", b"x"),
        lambda: workspace.open_download("folder"),
    ):
        with pytest.raises(ActionError):
            attempt()


def test_a_missing_file_is_told_by_name(workspace: Workspace) -> None:
    with pytest.raises(ActionError, match=r"file not found: data\.csv") as error:
        workspace.open_read("data.csv")
    assert error.value.code == "FILE_NOT_FOUND"
    assert error.value.details == {"file": "data.csv"}


def test_names_that_only_look_like_dots_are_names(workspace: Workspace) -> None:
    for name in ("．．", "․․", "..a", "%2e%2e", "...", "é", "e\u0301"):
        workspace.write_file(f"{name}/x", b"x")
        assert (workspace.directory / name / "x").exists()


def test_writing_replaces_whole_files_and_leaves_no_parts(workspace: Workspace) -> None:
    workspace.write_file("a/report.pdf", b"first, longer")
    workspace.write_file("a/report.pdf", b"second")
    assert (workspace.directory / "a" / "report.pdf").read_bytes() == b"second"
    assert [entry.name for entry in (workspace.directory / "a").iterdir()] == ["report.pdf"]
    with workspace.open_write("a/report.pdf") as opened:
        opened.write(b"3")
    assert (workspace.directory / "a" / "report.pdf").read_bytes() == b"3"


def test_files_are_listed_by_path_without_symlinks(
    workspace: Workspace, places: tuple[Path, Path, Path]
) -> None:
    for path in ("b.txt", "a/c.txt", "a/b/d.txt"):
        workspace.write_file(path, b"12345")
    (workspace.directory / "link").symlink_to(places[2])
    (workspace.directory / "file-link").symlink_to(places[2] / "secret")
    os.mkfifo(workspace.directory / "fifo")
    listing = workspace.list_files(10)
    assert [entry.path for entry in listing.files] == ["a/b/d.txt", "a/c.txt", "b.txt"]
    assert {entry.size for entry in listing.files} == {5}
    assert not listing.truncated
    shorter = workspace.list_files(2)
    assert len(shorter.files) == 2
    assert shorter.truncated


def test_downloads_come_from_the_workspace_alone(
    workspace: Workspace, places: tuple[Path, Path, Path]
) -> None:
    workspace.write_file("a/report.pdf", b"report")
    opened, entry = workspace.open_download("a/report.pdf")
    with opened:
        assert opened.read() == b"report"
    assert (entry.path, entry.size) == ("a/report.pdf", 6)
    shared = places[1] / "x"
    shared.write_text("x")
    (workspace.directory / "link").symlink_to(shared)
    for path in (str(shared), "link", str(workspace.directory / "a" / "report.pdf")):
        with pytest.raises(ActionError) as error:
            workspace.open_download(path)
        assert error.value.code == "PATH_NOT_ALLOWED"
