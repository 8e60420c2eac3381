"""Where large bytes are kept, each under a URL: files by default, any fsspec file system else.

A blob is written whole before anything refers to it, and is there for good or not at all. Methods
block: call them from worker threads. This module must not know what a blob is about.
"""

from __future__ import annotations

import bisect
import heapq
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

    def discard(self, name: str) -> None:
        """The same, by the name under which it was put."""
        ...

    # All blobs whose names have the same first part belong together.

    def first_parts(self, after: str, limit: int) -> list[str]:
        """First parts of the names that there are: in order, those after `after`, up to `limit`."""
        ...

    def changed_s(self, first: str) -> float | None:
        """When the latest of these blobs came, in seconds since 1970; None if that is unknown."""
        ...

    def remove_all(self, first: str, limit: int) -> bool:
        """Remove these blobs, at most `limit` of them. True once none is left.

        Raises ValueError for what cannot be the first part of a name.
        """
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

    def discard(self, name: str) -> None:
        """See `BlobStore.discard`."""
        self.delete(f"{self._root_url}/{name}")

    def first_parts(self, after: str, limit: int) -> list[str]:
        """See `BlobStore.first_parts`. Looks at every name, but remembers no more than asked."""
        with _translated(str(self._root)):
            try:
                entries = os.scandir(self._root)
            except FileNotFoundError:
                return []
            with entries:
                found = (entry.name for entry in entries if _SEGMENT.fullmatch(entry.name))
                return heapq.nsmallest(limit, (name for name in found if name > after))

    def changed_s(self, first: str) -> float | None:
        """See `BlobStore.changed_s`."""
        top = self._root / _first_part(first)
        with _translated(first):
            try:
                times = [top.lstat().st_mtime]
                for directory, below, files in os.walk(top):
                    times += [os.lstat(Path(directory) / one).st_mtime for one in below + files]
            except FileNotFoundError:
                return None
        return max(times)

    def remove_all(self, first: str, limit: int) -> bool:
        """See `BlobStore.remove_all`. Links are removed, not followed."""
        top = self._root / _first_part(first)
        if top.is_symlink() or top.is_file():
            with _translated(first):
                top.unlink(missing_ok=True)
            return True
        left = limit
        with _translated(first):
            for directory, below, files in os.walk(top, topdown=False):
                for path in (Path(directory) / name for name in files):
                    if left == 0:
                        return False
                    left -= 1
                    path.unlink(missing_ok=True)
                for path in (Path(directory) / name for name in below):
                    path.unlink() if path.is_symlink() else path.rmdir()
            with suppress(FileNotFoundError):
                top.rmdir()
        return True

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
        self._listed: list[str] = []

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

    def discard(self, name: str) -> None:
        """See `BlobStore.discard`."""
        self.delete(f"{self._root_url}/{name}")

    def first_parts(self, after: str, limit: int) -> list[str]:
        """See `BlobStore.first_parts`.

        There is no common way to ask for a part of a listing: it is read whole when it is begun
        (`after` is empty), and then given in parts.
        """
        if not after:
            with _translated(self._root_url):
                self._system.invalidate_cache(self._root)
                try:
                    paths = self._system.ls(self._root, detail=False)
                except FileNotFoundError:
                    paths = []
            names = {path.rstrip("/").rpartition("/")[2] for path in paths}
            self._listed = sorted(name for name in names if _SEGMENT.fullmatch(name))
        start = bisect.bisect_right(self._listed, after)
        return self._listed[start : start + limit]

    def changed_s(self, first: str) -> float | None:
        """See `BlobStore.changed_s`."""
        with _translated(first):
            try:
                times = [self._system.modified(path) for path in self._all(first)]
            except (FileNotFoundError, NotImplementedError):
                return None
        return max((time.timestamp() for time in times), default=None)

    def remove_all(self, first: str, limit: int) -> bool:
        """See `BlobStore.remove_all`."""
        with _translated(first):
            found = self._all(first)
            if len(found) > limit:
                self._system.rm(found[:limit])
                return False
            with suppress(FileNotFoundError):
                # The whole place, because some systems have directories that would stay.
                self._system.rm(f"{self._root}/{first}", recursive=True)
        return True

    def _all(self, first: str) -> list[str]:
        path = f"{self._root}/{_first_part(first)}"
        self._system.invalidate_cache(path)
        return list(self._system.find(path))

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


def _first_part(first: str) -> str:
    """The same, if it is one part of a name: nothing that leads elsewhere, and not everything."""
    if len(_checked(first)) != 1:
        raise ValueError(f"blob name {first!r}: only its first part can be given here")
    return first


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
