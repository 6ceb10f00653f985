"""Files that are whole or absent, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upath import UPath


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path | UPath, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader or a crash sees the old content or the new, never a part."""
    if not isinstance(path, Path):  # an object store shows an object when it is whole
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def write_json(path: Path | UPath, value: Any, mode: int = 0o644) -> None:
    """Write JSON atomically, keys sorted, so that equal values give equal bytes."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode(), mode)


def read_json(path: Path | UPath) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_bytes())


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling directory that becomes ``path`` when the block ends well.

    Its files are fsynced first. An existing ``path`` is replaced; after an error it is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield working
        for file in sorted(working.rglob("*")):
            if file.is_file():
                _fsync(file)
        working.chmod(0o755)
        if path.exists():
            old = working.with_name(working.name + ".old")
            path.rename(old)
            working.rename(path)
            shutil.rmtree(old)
        else:
            working.rename(path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def sha256_bytes(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path | UPath) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value (sorted keys, no spaces)."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())
