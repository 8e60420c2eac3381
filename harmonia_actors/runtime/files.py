"""Workspaces as the API sees them: the directory of an execution, its files, their bytes.

Works on the node where the workspace is. This module must not know which node that is.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harmonia_actors.components.contract import ActionError
from harmonia_actors.components.workspace import FileEntry, Workspace, is_part
from harmonia_actors.core.errors import ResourceNotFound
from harmonia_actors.core.timestamps import timestamp
from harmonia_actors.runtime.tree_removal import remove_tree

__all__ = ["FileInfo", "WorkspaceFiles"]

_log = logging.getLogger(__name__)

#: Files listed of one execution, at most.
FILES_SHOWN_MAX = 10_000
#: Files and directories that one call removes, at most.
REMOVED_ENTRIES_MAX = 50_000
#: Where copies are made before they get their names; no execution's id starts with a dot.
_UNFINISHED = ".unfinished"
_UNFINISHED_S_MAX = 86_400
#: How the reasons begin that shutil gives, as text only, for what is not there any more.
_IS_GONE = f"[Errno {errno.ENOENT}]"


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
    """All workspaces below one directory. Its methods block.

    `files_from` names the executions from whose checkpoints one descends, nearest first. Until it
    has a directory of its own, its files are those of the first of them that has one.
    """

    root: Path
    #: Other directories that actions may use, and those they may not, even if in the former.
    allowed: tuple[Path, ...] = ()
    denied: tuple[Path, ...] = ()
    removed_entries_max: int = REMOVED_ENTRIES_MAX

    def workspace(self, execution_id: str, files_from: Sequence[str] = ()) -> Workspace:
        """The workspace of an execution; its directory is made if it is not there.

        A new one starts with the files that it would show now.
        """
        directory = self.root / execution_id
        source = self._directory(execution_id, files_from)
        if source is not None and source != directory:
            self._copy(source, directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Workspace(directory, self.allowed, self.denied)

    def _directory(self, execution_id: str, files_from: Sequence[str]) -> Path | None:
        """Where the files of an execution are now; None if there are none."""
        directories = (self.root / each for each in (execution_id, *files_from))
        return next((each for each in directories if each.is_dir()), None)

    def _copy(self, source: Path, target: Path) -> None:
        """Copy a directory so that it is there whole or not at all; whoever is first wins."""
        part = self.root / _UNFINISHED / f"{target.name}-{secrets.token_hex(4)}"
        part.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            shutil.copytree(source, part, symlinks=True, ignore=_not_copied)
        except shutil.Error as error:
            # The source may be in use: what its execution removed meanwhile is no failure.
            if not all(why.startswith(_IS_GONE) for *_, why in error.args[0]):
                shutil.rmtree(part)
                raise
        try:
            part.rename(target)
        except OSError:
            shutil.rmtree(part)

    def ids(self, after: str, limit: int) -> list[str]:
        """Executions that have a workspace here: in order, those after `after`, up to `limit`."""
        try:
            entries = os.scandir(self.root)
        except FileNotFoundError:
            return []
        with entries:
            names = (one.name for one in entries if not one.name.startswith("."))
            return heapq.nsmallest(limit, (name for name in names if name > after))

    def remove(self, execution_ids: Sequence[str], older_than_s: float) -> list[str]:
        """Remove workspaces that were last touched so long ago; those of which nothing is left.

        Not everything may go in one call. One that cannot be removed does not stop the others.
        """
        left = self.removed_entries_max
        latest_s = time.time() - older_than_s
        gone = []
        for execution_id in execution_ids:
            if not execution_id or execution_id[0] == "." or "/" in execution_id:
                # No workspace can have such a name, and what else it may lead to is not ours.
                gone.append(execution_id)
                continue
            directory = self.root / execution_id
            try:
                if older_than_s and directory.lstat().st_ctime > latest_s:
                    continue
                left -= remove_tree(directory, left)
            except FileNotFoundError:
                pass
            except OSError as error:
                _log.warning("workspace %s cannot be removed: %s", directory, error)
                continue
            if not left:
                break
            gone.append(execution_id)
        return gone

    def remove_unfinished(self, older_than_s: float = _UNFINISHED_S_MAX) -> None:
        """Remove copies that somebody was killed over."""
        parts = WorkspaceFiles(self.root / _UNFINISHED)
        parts.remove(parts.ids("", self.removed_entries_max), older_than_s)

    def list_files(
        self, execution_id: str, files_from: Sequence[str]
    ) -> tuple[list[FileInfo], bool]:
        """All files, and whether there are more than are listed."""
        directory = self._directory(execution_id, files_from)
        if directory is None:
            return [], False
        listing = Workspace(directory, ()).list_files(FILES_SHOWN_MAX)
        found = [FileInfo(f.path, f.size, f.modified_ms) for f in listing.files]
        return found, listing.truncated

    def describe(self, execution_id: str, files_from: Sequence[str], path: str) -> FileInfo:
        """One file. Raises ResourceNotFound."""
        stream, entry = self._open(execution_id, files_from, path)
        stream.close()
        return FileInfo(entry.path, entry.size, entry.modified_ms)

    def read(
        self, execution_id: str, files_from: Sequence[str], path: str, offset: int, size: int
    ) -> bytes:
        """Up to `size` bytes from `offset`; empty at the end. Raises ResourceNotFound."""
        stream, _ = self._open(execution_id, files_from, path)
        with stream:
            stream.seek(offset)
            return stream.read(size)

    def _open(
        self, execution_id: str, files_from: Sequence[str], path: str
    ) -> tuple[BinaryIO, FileEntry]:
        directory = self._directory(execution_id, files_from)
        missing = ResourceNotFound(
            f"execution '{execution_id}' has no file '{path[:200]}'", {"path": path[:200]}
        )
        if directory is None:
            raise missing
        try:
            return Workspace(directory, ()).open_download(path)
        except ActionError:
            raise missing from None


def _not_copied(directory: str, names: list[str]) -> list[str]:
    """What of a directory is no content: files that are not whole yet, and pipes and sockets."""
    place = Path(directory)
    return [name for name in names if is_part(name) or not _is_content(place / name)]


def _is_content(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
