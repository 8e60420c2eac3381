"""Files of an execution's workspace: list and download.

What a file is, its name says, and names come from clients: a browser is told to save it, never to
show it.
"""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast
from urllib.parse import quote

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from harmonia_actors.core.errors import ResourceNotFound
from harmonia_serve import identifiers, schemas
from harmonia_serve.gateway import FileContent
from harmonia_serve.routes.context import API, ContextOf, document, needs

__all__ = ["router"]

_COMPRESSED: Final = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
}

router = APIRouter(prefix=f"{API}/executions", tags=["Executions"])


@router.get(
    "/{execution_id}/files",
    summary="List files",
    response_model=schemas.FileList,
    dependencies=needs("read"),
)
async def list_files(execution_id: str, context: ContextOf) -> Response:
    """List the files of an execution's workspace."""
    return document(await context.gateway.list_files(identifiers.execution_id(execution_id)))


@router.get(
    "/{execution_id}/files/{path:path}",
    summary="Download file",
    response_class=Response,
    response_model=None,
    responses={200: {"description": "The file", "content": {"*/*": {}}}},
    dependencies=needs("read"),
)
async def download_file(execution_id: str, path: str, context: ContextOf) -> Response:
    """Download a file of an execution's workspace."""
    execution_id = identifiers.execution_id(execution_id)
    file = await context.gateway.open_file(execution_id, _checked(path))
    name = quote(file.name.rpartition("/")[2], safe="")
    return StreamingResponse(
        _exactly(file),
        headers={
            # Not as `media_type`, which would claim UTF-8 for every text.
            "Content-Type": _media_type(file.name),
            "Content-Length": str(file.size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


def _media_type(name: str) -> str:
    """What the name says of the bytes as they are: a compressed table is no table."""
    kind, encoding = mimetypes.guess_type(name)
    if encoding is not None:
        kind = _COMPRESSED.get(encoding)
    return kind or "application/octet-stream"


def _checked(path: str) -> str:
    """A relative path without steps up. The gateway confines it again, with the file system."""
    if not path or "\0" in path or any(step in ("", ".", "..") for step in path.split("/")):
        raise ResourceNotFound(f"File '{path[:200]}' not found", {"path": path[:200]})
    return path


async def _exactly(file: FileContent) -> AsyncIterator[bytes]:
    """As many bytes as were announced, even if the file grows meanwhile."""
    left = file.size
    async with aclosing(cast("Any", file.chunks)) as chunks:
        async for chunk in chunks:
            yield chunk[:left]
            left -= len(chunk[:left])
            if not left:
                return
