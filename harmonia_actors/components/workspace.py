"""The files that an execution's actions may touch, and no others.

A path is first resolved (symlinks, `..`) and compared with the permitted directories. Because a
symlink may be put in the way after that check, files are then opened component by component from
the permitted directory down, each step refusing symlinks, and only regular files are taken.

This module must not know Ray, the store or the core.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harmonia_actors.components.contract import ActionError

__all__ = ["FileEntry", "FileListing", "Workspace", "is_part"]

#: Longest path, in bytes, and longest name in it: what Linux takes.
PATH_BYTES_MAX = 4_095
NAME_BYTES_MAX = 255
#: Entries looked at for one listing; a workspace with more is listed in part.
SCANNED_ENTRIES_MAX = 100_000
#: Directories within directories that a listing follows.
LISTED_DEPTH_MAX = 32

#: Never files of a user, whatever directories are configured.
_SYSTEM_ROOTS = tuple(Path(root) for root in ("/proc", "/sys", "/dev"))
#: A file that is being written; it gets its name when it is whole.
_PART = re.compile(r"\.[0-9a-f]{16}\.part")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: O_NONBLOCK, so that a FIFO put in a file's place cannot hold us up.
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a workspace: its path there, its size in bytes, when it was last changed."""

    path: str
    size: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class FileListing:
    """Files by path. `truncated` is True if there are more than were asked for."""

    files: tuple[FileEntry, ...]
    truncated: bool


class Workspace:
    """One execution's directory, and the configured directories that its actions may use too.

    `directory` must exist. `allowed` directories that do not exist are ignored. What lies in a
    `denied` directory (the service's own data) is refused even if a permitted one holds it, unless
    it is in the workspace.
    """

    def __init__(
        self, directory: Path, allowed: Sequence[Path] = (), denied: Sequence[Path] = ()
    ) -> None:
        self._directory = directory.resolve(strict=True)
        if not self._directory.is_dir():
            raise NotADirectoryError(f"the workspace '{directory}' is not a directory")
        self._allowed = tuple(path.resolve() for path in allowed if path.is_dir())
        self._denied = tuple(path.resolve() for path in denied)

    @property
    def directory(self) -> Path:
        """Absolute path of the working directory, without symlinks."""
        return self._directory

    def resolve(self, path: str, *, write: bool) -> Path:
        """The absolute path that `path` means. Raises ActionError (PATH_NOT_ALLOWED)."""
        _check_text(path)
        try:
            found = Path(os.path.realpath(self._directory / path))
        except (OSError, ValueError) as error:
            raise _not_allowed(path, f"it cannot be resolved: {error}") from None
        if len(os.fsencode(found)) > PATH_BYTES_MAX:
            raise _not_allowed(path, f"it is longer than {PATH_BYTES_MAX} bytes")
        root = self._root_of(found)
        if root is None:
            verb = "written" if write else "read"
            places = ", ".join(str(place) for place in self._allowed)
            raise _not_allowed(
                path,
                f"files may be {verb} in the execution's workspace (write a relative path)"
                + (f" and in {places}" if places else ""),
            )
        if write and found == root:
            raise _not_allowed(path, "it is a directory")
        self._refuse_special(path, found)
        return found

    def open_read(self, path: str) -> BinaryIO:
        """Open a regular file for reading, without following symlinks put there meanwhile."""
        found = self.resolve(path, write=False)
        try:
            with self._parent(found, make=False) as parent:
                descriptor = os.open(found.name, os.O_RDONLY | _FILE, dir_fd=parent)
        except OSError as error:
            raise _read_failure(path, error) from None
        return _regular(path, descriptor, "rb")

    def open_write(self, path: str) -> BinaryIO:
        """Open a regular file for writing, emptied; missing directories are made."""
        found = self.resolve(path, write=True)
        try:
            with self._parent(found, make=True) as parent:
                flags = os.O_WRONLY | os.O_CREAT | _FILE
                descriptor = os.open(found.name, flags, 0o644, dir_fd=parent)
        except OSError as error:
            raise _write_failure(path, error) from None
        opened = _regular(path, descriptor, "wb")
        opened.truncate(0)
        return opened

    def write_file(self, path: str, content: bytes) -> Path:
        """Put a file there whole, or not at all: an attempt may be killed at any moment."""
        found = self.resolve(path, write=True)
        part = f".{secrets.token_hex(8)}.part"
        try:
            with self._parent(found, make=True) as parent:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
                descriptor = os.open(part, flags, 0o644, dir_fd=parent)
                try:
                    with os.fdopen(descriptor, "wb") as opened:
                        opened.write(content)
                    os.rename(part, found.name, src_dir_fd=parent, dst_dir_fd=parent)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(part, dir_fd=parent)
                    raise
        except OSError as error:
            raise _write_failure(path, error) from None
        return found

    def open_download(self, path: str) -> tuple[BinaryIO, FileEntry]:
        """Open a file of the workspace itself, for a client. `path` is relative.

        Raises ActionError: PATH_NOT_ALLOWED, FILE_NOT_FOUND, FILE_NOT_READABLE.
        """
        if path.startswith("/"):
            raise _not_allowed(path, "the path of a workspace file is relative")
        found = self.resolve(path, write=False)
        if not found.is_relative_to(self._directory):
            raise _not_allowed(path, "it is not in the execution's workspace")
        opened = self.open_read(path)
        entry = _entry(found.relative_to(self._directory).as_posix(), os.fstat(opened.fileno()))
        return opened, entry

    def list_files(self, limit: int) -> FileListing:
        """The workspace's regular files, at most `limit`, by path. Symlinks are not listed."""
        scan = _Scan()
        descriptor = os.open(self._directory, _DIRECTORY)
        try:
            scan.directory(descriptor, "", 0)
        finally:
            os.close(descriptor)
        scan.found.sort(key=lambda entry: entry.path)
        return FileListing(tuple(scan.found[:limit]), scan.incomplete or len(scan.found) > limit)

    def _root_of(self, found: Path) -> Path | None:
        if found.is_relative_to(self._directory):
            return self._directory
        if any(found.is_relative_to(place) for place in (*_SYSTEM_ROOTS, *self._denied)):
            return None
        roots = [place for place in self._allowed if found.is_relative_to(place)]
        return max(roots, key=lambda place: len(place.parts), default=None)

    def _refuse_special(self, path: str, found: Path) -> None:
        try:
            mode = found.lstat().st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise _not_allowed(path, f"it cannot be looked at: {error.strerror}") from None
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _not_allowed(path, "it is neither a regular file nor a directory")

    @contextlib.contextmanager
    def _parent(self, found: Path, *, make: bool) -> Iterator[int]:
        """A descriptor of the directory that holds `found`, reached without any symlink."""
        root = self._root_of(found)
        if root is None:
            raise PermissionError(f"'{found}' is in no permitted directory")
        descriptor = os.open(root, _DIRECTORY)
        try:
            for name in found.relative_to(root).parts[:-1]:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=descriptor)
                below = os.open(name, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


class _Scan:
    """A walk through a directory tree by descriptors, so that no symlink can lead it astray."""

    def __init__(self) -> None:
        self.found: list[FileEntry] = []
        self.incomplete = False
        self._left = SCANNED_ENTRIES_MAX

    def directory(self, descriptor: int, prefix: str, depth: int) -> None:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                self._left -= 1
                if self._left < 0:
                    self.incomplete = True
                    return
                # Files that end while we look are no error.
                with contextlib.suppress(OSError):
                    self._entry(entry, descriptor, prefix, depth)

    def _entry(self, entry: os.DirEntry[str], descriptor: int, prefix: str, depth: int) -> None:
        if is_part(entry.name) or not _is_text(entry.name):
            return
        if entry.is_file(follow_symlinks=False):
            self.found.append(_entry(prefix + entry.name, entry.stat(follow_symlinks=False)))
        elif entry.is_dir(follow_symlinks=False):
            if depth == LISTED_DEPTH_MAX:
                self.incomplete = True
                return
            below = os.open(entry.name, _DIRECTORY, dir_fd=descriptor)
            try:
                self.directory(below, f"{prefix}{entry.name}/", depth + 1)
            finally:
                os.close(below)


def is_part(name: str) -> bool:
    """Whether a file with this name is one that `Workspace.write_file` has not finished."""
    return _PART.fullmatch(name) is not None


def _check_text(path: str) -> None:
    if not path:
        raise _not_allowed(path, "it is empty")
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise _not_allowed(path, "it holds control characters")
    if not _is_text(path):
        raise _not_allowed(path, "it is not valid Unicode")
    if len(path.encode()) > PATH_BYTES_MAX:
        raise _not_allowed(path, f"it is longer than {PATH_BYTES_MAX} bytes")
    if any(len(name.encode()) > NAME_BYTES_MAX for name in path.split("/")):
        raise _not_allowed(path, f"a name in it is longer than {NAME_BYTES_MAX} bytes")


def _is_text(name: str) -> bool:
    """False for names that are not UTF-8 on disk: they cannot be told in JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _regular(path: str, descriptor: int, mode: str) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_allowed(path, "it is not a regular file")
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, mode)  # type: ignore[return-value]


def _entry(path: str, status: os.stat_result) -> FileEntry:
    return FileEntry(path, status.st_size, status.st_mtime_ns // 1_000_000)


def _not_allowed(path: str, why: str) -> ActionError:
    shown = path if len(path) <= 200 else path[:200] + "…"
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return ActionError(
        f"path {shown!r} is not allowed: {why}",
        code="PATH_NOT_ALLOWED",
        details={"file": shown},
        retriable=False,
    )


def _read_failure(path: str, error: OSError) -> ActionError:
    if isinstance(error, FileNotFoundError):
        return ActionError(f"file not found: {path}", code="FILE_NOT_FOUND", details={"file": path})
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return _not_allowed(path, "a symlink was put in its way, or a part of it is no directory")
    return ActionError(
        f"file cannot be read: {path}: {error.strerror}",
        code="FILE_NOT_READABLE",
        details={"file": path},
    )


def _write_failure(path: str, error: OSError) -> ActionError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return _not_allowed(path, "a symlink was put in its way, or a part of it is no directory")
    return ActionError(
        f"file cannot be written: {path}: {error.strerror}",
        code="FILE_NOT_WRITABLE",
        details={"file": path},
    )
