"""Workspaces as the API sees them: the directory of an execution, its files, their bytes.

Works on the node where the workspace is. This module must not know which node that is.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harmonia_actors.components.contract import ActionError
from harmonia_actors.components.workspace import FileEntry, Workspace
from harmonia_actors.core.errors import ResourceNotFound
from harmonia_actors.core.timestamps import timestamp

__all__ = ["FileInfo", "WorkspaceFiles"]

#: Files listed of one execution, at most.
FILES_SHOWN_MAX = 10_000


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file of a workspace; `path` is relative to it, `size` in bytes."""

    path: str
    size: int
    modified_ms: int

    def to_json(self) -> dict[str, object]:
        """As the API shows it."""
        return {
            "path": self.path,
            "size": self.size,
            "modified_at": timestamp(self.modified_ms),
        }


@dataclass(frozen=True, slots=True)
class WorkspaceFiles:
    """All workspaces below one directory. Its methods block."""

    root: Path
    #: Other directories that actions may use, and those they may not, even if in the former.
    allowed: tuple[Path, ...] = ()
    denied: tuple[Path, ...] = ()

    def workspace(self, execution_id: str, files_from: str = "") -> Workspace:
        """The workspace of an execution; its directory is made if it is not there.

        A new one starts with the files that `files_from`, another execution, has now.
        """
        directory = self.root / execution_id
        if not directory.is_dir() and files_from and (self.root / files_from).is_dir():
            self._copy(self.root / files_from, directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Workspace(directory, self.allowed, self.denied)

    def _copy(self, source: Path, target: Path) -> None:
        """Copy a directory so that it is there whole or not at all; whoever is first wins."""
        part = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
        shutil.copytree(source, part, symlinks=True)
        try:
            part.rename(target)
        except OSError:
            shutil.rmtree(part)

    def list_files(self, execution_id: str) -> tuple[list[FileInfo], bool]:
        """All files, and whether there are more than are listed."""
        directory = self.root / execution_id
        if not directory.is_dir():
            return [], False
        listing = Workspace(directory, ()).list_files(FILES_SHOWN_MAX)
        found = [FileInfo(f.path, f.size, f.modified_ms) for f in listing.files]
        return found, listing.truncated

    def describe(self, execution_id: str, path: str) -> FileInfo:
        """One file. Raises ResourceNotFound."""
        stream, entry = self._open(execution_id, path)
        stream.close()
        return FileInfo(entry.path, entry.size, entry.modified_ms)

    def read(self, execution_id: str, path: str, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; empty at the end. Raises ResourceNotFound."""
        stream, _ = self._open(execution_id, path)
        with stream:
            stream.seek(offset)
            return stream.read(size)

    def _open(self, execution_id: str, path: str) -> tuple[BinaryIO, FileEntry]:
        directory = self.root / execution_id
        missing = ResourceNotFound(
            f"execution '{execution_id}' has no file '{path[:200]}'", {"path": path[:200]}
        )
        if not directory.is_dir():
            raise missing
        try:
            return Workspace(directory, ()).open_download(path)
        except ActionError:
            raise missing from None
