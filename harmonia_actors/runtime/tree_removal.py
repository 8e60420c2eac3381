"""Removes a directory tree that programs of users have made, so anything may be in it.

Links are removed, never followed, by descriptors from the top down, so that nothing put in the way
can lead out. Directories that forbid it are opened up first. Work is bounded: a tree that is too
large for one call is gone after several. This module must not know what the tree is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from itertools import islice
from pathlib import Path

__all__ = ["remove_tree"]

#: What lies deeper is moved up first, so that neither descriptors nor the stack run out.
_DEPTH_MAX = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(directory: Path, entries_max: int) -> int:
    """Remove a directory, but not more than `entries_max` entries. Returns how many it took.

    If that is `entries_max`, something may be left. Raises OSError.
    """
    removal = _Removal(entries_max)
    with contextlib.suppress(FileNotFoundError):
        if directory.is_symlink() or not directory.is_dir():
            directory.unlink()
            return 1
        top = _open_directory(str(directory), None)
        try:
            while removal.left and removal.empty(top, top, 0):
                pass
        finally:
            os.close(top)
        if removal.left:
            directory.rmdir()
    return entries_max - removal.left


class _Removal:
    """One call: how many entries it may still take."""

    def __init__(self, left: int) -> None:
        self.left = left

    def empty(self, descriptor: int, top: int, depth: int) -> bool:
        """Remove what is in a directory, as far as may be. False if there was nothing."""
        with os.scandir(descriptor) as entries:
            # Taken first and removed then: a directory that changes may be read wrongly.
            some = islice(entries, self.left)
            found = [(one.name, one.is_dir(follow_symlinks=False)) for one in some]
        for name, is_directory in found:
            if not self.left:
                break
            if not is_directory:
                os.unlink(name, dir_fd=descriptor)
                self.left -= 1
            elif depth < _DEPTH_MAX:
                self._remove_directory(name, descriptor, top, depth)
            else:
                os.rename(name, f".{secrets.token_hex(8)}", src_dir_fd=descriptor, dst_dir_fd=top)
                self.left -= 1
        return bool(found)

    def _remove_directory(self, name: str, parent: int, top: int, depth: int) -> None:
        descriptor = _open_directory(name, parent)
        try:
            while self.left and self.empty(descriptor, top, depth + 1):
                pass
        finally:
            os.close(descriptor)
        if self.left:
            os.rmdir(name, dir_fd=parent)
            self.left -= 1


def _open_directory(name: str, parent: int | None) -> int:
    """A descriptor of a directory whose entries may be removed."""
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    if os.fstat(descriptor).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(descriptor, stat.S_IRWXU)
    return descriptor
