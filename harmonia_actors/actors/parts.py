"""What whoever has to do with actions, outputs or files is made of: blobs, registry, workspaces.

From settings to the objects of `runtime`, like its neighbours: `store_parts`, `schema_parts`,
`sizes` and the `…_limits`. They are apart because each process is to load no more than it needs:
what is loaded is paid for in every one of them, in time and in memory.
"""

from __future__ import annotations

from pathlib import Path

from harmonia_actors.components.registry import Registry
from harmonia_actors.runtime.files import WorkspaceFiles
from harmonia_actors.runtime.remote_components import load_registry
from harmonia_actors.settings import Settings
from persistence.blobs import BlobStore, blob_store

__all__ = ["make_blobs", "make_files", "make_registry"]


def make_blobs(settings: Settings) -> BlobStore:
    """Where large outputs go."""
    return blob_store(settings.blob_url or str(settings.data_dir.resolve() / "blobs"))


def make_registry(settings: Settings) -> Registry:
    """All components that are installed or configured."""
    return load_registry(settings)


def make_files(settings: Settings, node_id: str) -> WorkspaceFiles:
    """The workspaces on this node."""
    root = Path(settings.workspace_dir or settings.data_dir.resolve() / "workspaces")
    if not settings.workspace_shared and settings.workspace_per_node:
        root = root / node_id[:12]
    allowed = tuple(Path(directory) for directory in settings.allowed_dirs)
    return WorkspaceFiles(root, allowed, (settings.data_dir.resolve(),))
