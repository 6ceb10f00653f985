"""One kind of path for a local directory and an object store.

``universal_pathlib`` gives fsspec's file systems the interface of ``pathlib``; a local path stays a real one. What an
object store cannot do, renaming a folder or locking a file, nothing here needs: an object appears whole when it is
closed, so a folder exists once the one file that names its content does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from upath import UPath

from ml.settings import get_settings

StorePath = UPath


def location(text: str) -> UPath:
    """A directory, or ``s3://bucket/prefix`` at the setting ``s3_endpoint`` (unset: AWS).

    Credentials come from where AWS's tools look for them.
    """
    if "://" not in text:
        return UPath(Path(text).absolute())
    endpoint = get_settings().s3_endpoint
    options: dict[str, Any] = {"client_kwargs": {"endpoint_url": endpoint}} if endpoint else {}
    found: UPath = UPath(text, use_listings_cache=False, **options)
    return found


def is_local(path: UPath) -> bool:
    """Whether the path lies on a file system of this machine."""
    return isinstance(path, Path)


def polars_source(path: UPath) -> dict[str, Any]:
    """Arguments of ``polars.scan_parquet`` and ``read_parquet`` for a path."""
    endpoint = get_settings().s3_endpoint
    if is_local(path) or not endpoint:
        return {"source": str(path)}
    options = {"aws_endpoint_url": endpoint, "aws_allow_http": str(endpoint.startswith("http://")).lower()}
    return {"source": str(path), "storage_options": options}


def remove(path: UPath) -> None:
    """Remove a file or a folder with all it holds; nothing where nothing is."""
    if path.exists():
        path.fs.rm(path.path, recursive=True)


class HashingFile:
    """A file being written, front to back, and the SHA-256 of its bytes."""

    def __init__(self, file: IO[bytes], *, sync: bool) -> None:
        self._file, self._sync = file, sync
        self._hash = hashlib.sha256()
        self.bytes = 0
        self.closed = self._abandoned = False

    def write(self, data: Any) -> int:
        if self._abandoned:  # a writer that is collected may still want to write its end
            return len(data)
        self._hash.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Bring it to disk, or to the store."""
        if self.closed:
            return
        self.closed = True
        self._file.flush()
        if self._sync:
            os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Give the file up: what a store has of it is discarded, what lies on disk nobody names."""
        self.closed = self._abandoned = True
        if self._sync:
            self._file.close()
            return
        self._file.discard()  # type: ignore[attr-defined]
        self._file.closed = True  # type: ignore[misc]

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def new_file(path: UPath) -> Iterator[HashingFile]:
    """A file to write; on disk, or in the store, when the block ends."""
    file = open_new(path)
    try:
        yield file
    except BaseException:
        file.abandon()
        raise
    file.close()


def open_new(path: UPath) -> HashingFile:
    """A file to write and to close."""
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return HashingFile(path.open("wb"), sync=is_local(path))
