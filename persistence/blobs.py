"""Where large bytes are kept, each under a URL: files by default, any fsspec file system else.

A blob is written whole before anything refers to it, and is there for good or not at all. Methods
block: call them from worker threads. This module must not know what a blob is about.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from persistence.errors import Missing, StoreUnavailable

__all__ = ["BlobStore", "FileBlobs", "FsspecBlobs", "blob_store"]

_SEGMENT = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,199}")
_SEGMENTS_MAX = 8
#: Where blobs are written before they get their names; no name can start with a dot.
_UNFINISHED = ".unfinished"
_UNFINISHED_S_MAX = 86_400


class BlobStore(Protocol):
    """Bytes by URL. Raises StoreUnavailable if the storage cannot be used."""

    def put(self, name: str, body: bytes) -> str:
        """Keep `body` under `name` and return its URL; a former body is replaced as a whole.

        `name` is up to 8 parts with `/` between them, each of letters, digits and `._=-`, not
        starting with a dot. Raises ValueError for any other.
        """
        ...

    def get(self, url: str) -> bytes:
        """The whole body. Raises Missing, and ValueError for a URL that is not of this store."""
        ...

    def get_range(self, url: str, start: int, length: int) -> bytes:
        """Up to `length` bytes from byte `start` on; fewer at the end. Raises as `get` does."""
        ...

    def delete(self, url: str) -> None:
        """Remove a blob; no error if it is not there. Raises ValueError as `get` does."""
        ...


def blob_store(url: str) -> BlobStore:
    """The blob store for a directory's path, a `file://` URL or any URL that fsspec knows."""
    scheme = urlsplit(url).scheme
    if scheme in {"", "file"}:
        path = Path(unquote(urlsplit(url).path) if scheme else url)
        if not path.is_absolute():
            raise ValueError(f"blob_url: {url!r} must be absolute: file:///path/to/directory")
        return FileBlobs(path)
    return FsspecBlobs(url)


class FileBlobs:
    """Blobs as files, of mode 0600 in directories of mode 0700, below one directory."""

    def __init__(self, directory: Path | str) -> None:
        """Makes the directory when the first blob is put."""
        self._root = Path(directory).resolve()
        self._root_url = self._root.as_uri().rstrip("/")

    def put(self, name: str, body: bytes) -> str:
        """See `BlobStore.put`. On disk when it returns."""
        path = self._root.joinpath(*_checked(name))
        with _translated(name):
            self._make_directories(path.parent)
            unfinished = self._root / _UNFINISHED / secrets.token_hex(16)
            try:
                _write_new(unfinished, body)
                unfinished.replace(path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
            _sync_directory(path.parent)
        return f"{self._root_url}/{name}"

    def get(self, url: str) -> bytes:
        """See `BlobStore.get`."""
        return self._read(url, 0, -1)

    def get_range(self, url: str, start: int, length: int) -> bytes:
        """See `BlobStore.get_range`."""
        _check_range(start, length)
        return self._read(url, start, length)

    def delete(self, url: str) -> None:
        """See `BlobStore.delete`."""
        path = self._path(url)
        with _translated(url):
            path.unlink(missing_ok=True)

    def _read(self, url: str, start: int, length: int) -> bytes:
        path = self._path(url)
        with _translated(url):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                file.seek(start)
                return file.read(length)

    def _path(self, url: str) -> Path:
        path = self._root.joinpath(*_name_below(self._root_url, url))
        # Nothing here is a link, unless somebody else put one here to lead out.
        if path.parent.resolve() != path.parent:
            raise ValueError(f"{url!r} leads out of the blob store at {self._root_url}")
        return path

    def _make_directories(self, directory: Path) -> None:
        unfinished = self._root / _UNFINISHED
        if not unfinished.is_dir():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(self._root)
            _sync_directory(self._root.parent)
        else:
            _sweep(unfinished)
        at = self._root
        for part in directory.relative_to(self._root).parts:
            above, at = at, at / part
            if not at.is_dir():
                at.mkdir(mode=0o700, exist_ok=True)
                _sync_directory(above)


class FsspecBlobs:
    """Blobs in any file system that fsspec knows; credentials come from its own configuration."""

    def __init__(self, url: str) -> None:
        """`url`: the root, such as `s3://bucket/prefix`."""
        import fsspec

        try:
            self._system, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"blob_url: {url!r} cannot be used: {error}; s3:// needs harmonia[s3], others "
                "their fsspec package"
            ) from error
        self._root = root.rstrip("/")
        self._root_url = url.rstrip("/")

    def put(self, name: str, body: bytes) -> str:
        """See `BlobStore.put`."""
        path = "/".join([self._root, *_checked(name)])
        with _translated(name):
            try:
                self._system.pipe_file(path, body)
            except FileNotFoundError:
                # Only where directories are real; object stores have none to make.
                self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._system.pipe_file(path, body)
        return f"{self._root_url}/{name}"

    def get(self, url: str) -> bytes:
        """See `BlobStore.get`."""
        return self._read(url)

    def get_range(self, url: str, start: int, length: int) -> bytes:
        """See `BlobStore.get_range`."""
        _check_range(start, length)
        with _translated(url):
            size = int(self._system.size(self._path(url)))
        if start >= size:
            return b""
        return self._read(url, start=start, end=min(start + length, size))

    def delete(self, url: str) -> None:
        """See `BlobStore.delete`."""
        path = self._path(url)
        with _translated(url):
            try:
                self._system.rm_file(path)
            except FileNotFoundError:
                return

    def _read(self, url: str, **part: Any) -> bytes:
        path = self._path(url)
        with _translated(url):
            return bytes(self._system.cat_file(path, **part))

    def _path(self, url: str) -> str:
        return "/".join([self._root, *_name_below(self._root_url, url)])


def _checked(name: str) -> list[str]:
    segments = name.split("/")
    if len(segments) > _SEGMENTS_MAX or not all(map(_SEGMENT.fullmatch, segments)):
        raise ValueError(
            f"blob name {name!r}: use up to {_SEGMENTS_MAX} parts with '/' between them, each of "
            "letters, digits and ._=-, not starting with a dot, at most 200 characters"
        )
    return segments


def _name_below(root_url: str, url: str) -> list[str]:
    """The checked name within a URL. Names need no percent-encoding, so none is decoded."""
    if not url.startswith(root_url + "/"):
        raise ValueError(f"{url!r} is not in the blob store at {root_url}")
    return _checked(url[len(root_url) + 1 :])


def _check_range(start: int, length: int) -> None:
    if start < 0 or length < 0:
        raise ValueError(f"range: start {start} and length {length} must not be negative")


@contextmanager
def _translated(subject: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Missing(f"there is no blob {subject!r}") from error
    except (OSError, TimeoutError) as error:
        raise StoreUnavailable(f"blob {subject!r}: {error}") from error


def _write_new(path: Path, body: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    """Make the names in a directory durable, not only the files' contents."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(unfinished: Path) -> None:
    """Remove what writers that were killed have left."""
    oldest = time.time() - _UNFINISHED_S_MAX
    for path in unfinished.iterdir():
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except FileNotFoundError:
            continue  # finished meanwhile, or swept by another
