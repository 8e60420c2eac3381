"""A tree that users' programs have made is gone in the end, whatever is in it, and nothing else."""

from __future__ import annotations

import os
import subprocess
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from harmonia_actors.runtime.tree_removal import remove_tree

NOBODY = 65_534
PLENTY = 10_000


def test_everything_below_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/.hidden", "a/b/c/ünï\ncode"):
        (tree / name).write_text("x")
    os.mkfifo(tree / "a/pipe")
    assert remove_tree(tree, PLENTY) < PLENTY
    assert not tree.exists()
    assert remove_tree(tree, PLENTY) == 0, "again is fine"


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, target in (("d", kept), ("f", kept / "file"), ("up", tmp_path), ("no", "nowhere")):
        (tree / name).symlink_to(target)
    assert remove_tree(tree, PLENTY) < PLENTY
    assert (kept / "file").read_text() == "x"


def test_a_link_in_the_place_of_the_tree_is_removed_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "tree").symlink_to(kept)
    assert remove_tree(tmp_path / "tree", PLENTY) == 1
    assert not (tmp_path / "tree").is_symlink()
    assert kept.is_dir()


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_each_call_removes_no_more_than_it_may(tmp_path: Path, most: int) -> None:
    tree = tmp_path / "tree"
    for directory in ("a", "a/b", "c"):
        (tree / directory).mkdir(parents=True)
        for at in range(4):
            (tree / directory / f"{at}").touch()

    def left() -> int:
        return sum(1 for _ in tree.rglob("*"))

    before, calls = left(), 0
    while tree.exists():
        taken = remove_tree(tree, most)
        calls += 1
        assert taken <= most
        assert before - left() <= most
        before = left()
    assert calls >= 15 // most


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    descriptor = os.open(tree, os.O_RDONLY)
    for _ in range(1_200):
        os.mkdir("directory", dir_fd=descriptor)
        below = os.open("directory", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    try:
        assert remove_tree(tree, PLENTY) < PLENTY
        assert not tree.exists()
    finally:
        # What pytest removes old directories with cannot remove such a tree.
        subprocess.run(["/bin/rm", "-rf", tree], check=True)


def test_directories_that_forbid_it_are_opened_up() -> None:
    """As read-only caches of build tools are."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        assert as_nobody(lambda: make_and_remove_what_is_shut(Path(directory) / "tree")) == 0


def make_and_remove_what_is_shut(tree: Path) -> None:
    for name in ("read-only", "shut", "outer/inner"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").touch()
    shut = {"read-only": 0o500, "shut": 0, "outer/inner": 0o500, "outer": 0o400, ".": 0o500}
    for name, mode in shut.items():
        (tree / name).chmod(mode)
    with pytest.raises(PermissionError):
        (tree / "read-only/file").unlink()
    remove_tree(tree, PLENTY)
    assert not tree.exists()


def as_nobody(call: Callable[[], None]) -> int:
    """Call in a process that the superuser's rights are taken from; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        if os.geteuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        call()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
