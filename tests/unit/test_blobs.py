"""Blobs: kept whole, found by URL, and nothing outside the store's own root is touched."""

from __future__ import annotations

import os
import secrets
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from persistence.blobs import BlobStore, FileBlobs, FsspecBlobs, blob_store
from persistence.errors import Missing, StoreUnavailable

ALL_BYTES = bytes(range(256)) * 3
BAD_NAMES = [
    "", ".", "..", "a/../b", "/etc/passwd", "a//b", "a/", ".hidden", "a b", "a\\b", "a%2fb",
    "a\x00", "a\n", "é", "x" * 201, "/".join("abcdefghi"), "~", "a:b", "a?b", "a#b",
]  # fmt: skip


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "file":
        return blob_store((tmp_path / "bläbs here").as_uri())
    return blob_store(f"memory://{secrets.token_hex(8)}/blobs")


def test_a_blob_is_found_under_its_url(blobs: BlobStore):
    url = blobs.put("exec-1/task.1/2", ALL_BYTES)
    assert url.endswith("/exec-1/task.1/2")
    assert blobs.get(url) == ALL_BYTES
    assert blobs.get(blobs.put("empty", b"")) == b""


def test_a_second_put_replaces_the_first(blobs: BlobStore):
    url = blobs.put("a", b"first, and longer")
    assert blobs.put("a", b"second") == url
    assert blobs.get(url) == b"second"


def test_part_of_a_blob_can_be_read(blobs: BlobStore):
    url = blobs.put("a", b"0123456789")
    assert blobs.get_range(url, 0, 4) == b"0123"
    assert blobs.get_range(url, 8, 100) == b"89"
    assert blobs.get_range(url, 10, 1) == b""
    assert blobs.get_range(url, 3, 0) == b""
    with pytest.raises(ValueError, match="negative"):
        blobs.get_range(url, -1, 2)


def test_a_deleted_blob_is_missing_and_deleting_again_is_fine(blobs: BlobStore):
    url = blobs.put("a/b", b"1")
    blobs.delete(url)
    blobs.delete(url)
    with pytest.raises(Missing):
        blobs.get(url)
    assert blobs.put("a/b", b"2") == url
    blobs.discard("a/b")
    blobs.discard("a/b")
    with pytest.raises(ValueError, match="blob name"):
        blobs.discard("a/../b")
    with pytest.raises(Missing):
        blobs.get(url)
    with pytest.raises(Missing):
        blobs.get_range(url, 0, 1)


def test_blobs_that_belong_together_are_removed_together(blobs: BlobStore):
    mine = [blobs.put(f"exec-1/{at}.json", b"x") for at in range(5)]
    deep = blobs.put("exec-1/a/b/c", b"x")
    other = blobs.put("exec-10/0.json", b"other")
    assert blobs.remove_all("exec-1", 100) is True
    for url in (*mine, deep):
        with pytest.raises(Missing):
            blobs.get(url)
    assert blobs.get(other) == b"other"
    assert blobs.first_parts("", 10) == ["exec-10"]
    assert blobs.remove_all("exec-1", 100) is True, "again is fine"


def test_many_blobs_are_removed_in_parts(blobs: BlobStore):
    for at in range(7):
        blobs.put(f"exec-1/{at}", b"x")
    answers = [blobs.remove_all("exec-1", 3) for _ in range(3)]
    assert answers == [False, False, True]
    assert blobs.first_parts("", 10) == []


def test_first_parts_come_in_order_and_in_parts(blobs: BlobStore):
    assert blobs.first_parts("", 10) == []
    for name in ("c/1", "a/1", "a/2", "b/1", "d"):
        blobs.put(name, b"x")
    assert blobs.first_parts("", 3) == ["a", "b", "c"]
    assert blobs.first_parts("c", 3) == ["d"]
    assert blobs.first_parts("d", 3) == []
    blobs.put("aa/1", b"x")
    assert blobs.first_parts("", 3) == ["a", "aa", "b"]


def test_the_latest_change_of_blobs_is_known(blobs: BlobStore):
    before_s = time.time() - 5
    blobs.put("a/1", b"x")
    blobs.put("a/2", b"x")
    changed_s = blobs.changed_s("a")
    assert changed_s is not None
    assert before_s < changed_s < time.time() + 5
    assert blobs.changed_s("none") is None


@pytest.mark.parametrize("first", [*BAD_NAMES, "a/b"])
def test_only_what_can_be_a_first_part_is_removed(blobs: BlobStore, first: str):
    url = blobs.put("a/b", b"x")
    with pytest.raises(ValueError, match="blob name"):
        blobs.remove_all(first, 100)
    assert blobs.get(url) == b"x"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_lead_elsewhere_is_refused(blobs: BlobStore, name: str):
    with pytest.raises(ValueError, match="blob name"):
        blobs.put(name, b"x")
    url = blobs.put("good", b"x").removesuffix("good") + name
    for use in (blobs.get, blobs.delete):
        with pytest.raises(ValueError, match="blob name"):
            use(url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "s3://b/k", "", "memory://x"])
def test_a_url_outside_the_root_is_refused(blobs: BlobStore, url: str):
    for use in (blobs.get, blobs.delete):
        with pytest.raises(ValueError, match="is not in the blob store"):
            use(url)


def test_a_root_whose_name_only_begins_alike_is_another(tmp_path: Path):
    other = FileBlobs(tmp_path / "blobs-other").put("a", b"x")
    with pytest.raises(ValueError, match="is not in the blob store"):
        FileBlobs(tmp_path / "blobs").get(other)


def test_links_do_not_lead_out(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    blobs = FileBlobs(tmp_path / "blobs")
    url = blobs.put("dir/a", b"x")
    (tmp_path / "blobs/dir/link").symlink_to(secret)
    with pytest.raises(StoreUnavailable):
        blobs.get(url.replace("/a", "/link"))
    (tmp_path / "blobs/out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out"):
        blobs.get(url.replace("dir/a", "out/secret"))


def test_links_are_removed_and_not_followed(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    blobs = FileBlobs(tmp_path / "blobs")
    blobs.put("dir/a", b"x")
    (tmp_path / "blobs/dir/to-directory").symlink_to(kept)
    (tmp_path / "blobs/dir/to-file").symlink_to(kept / "file")
    (tmp_path / "blobs/link").symlink_to(kept)
    assert blobs.remove_all("dir", 100) is True
    assert blobs.remove_all("link", 100) is True
    assert blobs.first_parts("", 10) == []
    assert (kept / "file").exists()


def test_what_writers_are_at_is_no_first_part(tmp_path: Path):
    blobs = FileBlobs(tmp_path)
    blobs.put("a/1", b"x")
    (tmp_path / ".unfinished/young").touch()
    assert blobs.first_parts("", 10) == ["a"]


def test_files_are_for_their_owner_only(tmp_path: Path):
    mask = os.umask(0)
    try:
        FileBlobs(tmp_path / "blobs").put("d/a", b"x")
    finally:
        os.umask(mask)
    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "blobs", tmp_path / "blobs/d", tmp_path / "blobs/d/a")
    }
    assert modes == {"blobs": 0o700, "blobs/d": 0o700, "blobs/d/a": 0o600}


def test_writers_of_one_name_never_show_a_mixture(tmp_path: Path):
    blobs = FileBlobs(tmp_path)
    bodies = [bytes([at]) * 100_000 for at in range(8)]
    url = blobs.put("a", bodies[0])
    writers = [threading.Thread(target=blobs.put, args=("a", body)) for body in bodies]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert blobs.get(url) in bodies
    for writer in writers:
        writer.join()
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_a_failed_put_leaves_the_former_blob_and_no_rest(tmp_path: Path):
    blobs = FileBlobs(tmp_path)
    url = blobs.put("a", b"former")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/child").touch()
    with pytest.raises(StoreUnavailable):
        blobs.put("b", b"a directory is in the way")
    assert blobs.get(url) == b"former"
    assert list((tmp_path / ".unfinished").iterdir()) == []


class Disk:
    """Follows what the system is asked to do, and knows what a power cut would leave of it."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        #: Bytes that are there for good, by the inode of their file.
        self._bytes: dict[int, int] = {}
        #: New names that are not there for good yet, by the inode of their directory.
        self._names: dict[int, set[str]] = {}
        #: Names given to files of which a power cut would leave less than they hold.
        self.hollow: list[str] = []
        self._fsync, self._mkdir, self._replace = os.fsync, os.mkdir, os.replace
        for call in (self.fsync, self.mkdir, self.replace):
            patched.setattr(os, call.__name__, call)

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._names.pop(found.st_ino, None)
        else:
            self._bytes[found.st_ino] = found.st_size

    def mkdir(self, path: Path, *more: Any, **options: Any) -> None:
        self._mkdir(path, *more, **options)
        self._note_name(Path(path))

    def replace(self, source: Path, target: Path) -> None:
        held = Path(source).stat()
        if self._bytes.pop(held.st_ino, None) != held.st_size:
            self.hollow.append(Path(target).name)
        self._replace(source, target)
        self._note_name(Path(target))

    def lost_names(self) -> set[str]:
        """Names that nobody would find after a power cut."""
        return set().union(*self._names.values())

    def _note_name(self, path: Path) -> None:
        self._names.setdefault(path.parent.stat().st_ino, set()).add(path.name)


@pytest.mark.parametrize("name", ["a", "exec-1/a", "exec-1/task.1/2"])
def test_a_blob_that_was_put_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever refers to it comes after it: its bytes, then its name, then its directory's own."""
    disk = Disk(monkeypatch)
    blobs = FileBlobs(tmp_path / "blobs")
    for body in (ALL_BYTES, b"another, in directories that are there", b""):
        url = blobs.put(name, body)
        assert disk.hollow == []
        assert disk.lost_names() == set()
        assert blobs.get(url) == body


def test_what_killed_writers_left_is_swept(tmp_path: Path):
    blobs = FileBlobs(tmp_path)
    blobs.put("a", b"x")
    old, young = tmp_path / ".unfinished/old", tmp_path / ".unfinished/young"
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    blobs.put("b", b"x")
    assert not old.exists()
    assert young.exists()


def test_a_path_or_a_file_url_is_a_directory_of_files(tmp_path: Path):
    url = blob_store(str(tmp_path)).put("a", b"x")
    assert blob_store(tmp_path.as_uri() + "/").get(url) == b"x"
    with pytest.raises(ValueError, match="absolute"):
        blob_store("some/directory")


def test_a_file_system_that_fsspec_lacks_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"blob_url.*fsspec"):
        blob_store("nosuch://bucket/prefix")


def test_fsspec_makes_directories_where_they_are_real(tmp_path: Path):
    blobs = FsspecBlobs(f"local://{tmp_path}/deep")
    url = blobs.put("a/b", ALL_BYTES)
    assert blobs.get(url) == ALL_BYTES
    assert (tmp_path / "deep/a/b").read_bytes() == ALL_BYTES
    assert blobs.remove_all("a", 10) is True
    assert list((tmp_path / "deep").iterdir()) == [], "they go too"
