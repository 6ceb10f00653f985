"""The event log on disk: where partitions lie, what their manifests say, and the lock that guards them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from ml.common.errors import ConfigError, RefusedError
from ml.common.files import read_json, write_json
from ml.settings import get_settings

SCHEMA_VERSION = 1  # of the events and of the manifest
MANIFEST, VERDICT, QUARANTINE = "manifest.json", "verdict.json", "quarantine.parquet"


@dataclass(frozen=True)
class FileRecord:
    """One file of a partition."""

    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Partition:
    """One extraction, as its manifest describes it. Counts only.

    Attributes:
        as_of: the day it was made for, also its folder's name.
        recorded_from: first recorded day it covers; None: everything ever recorded (the base load).
        recorded_to: last recorded day it covers.
        source: the source's name, its schema and the hospital: a log is of one of them.
        history: ``kept`` or ``assumed`` (``ml.sources.base.SourcePlan``).
        shards: number of files.
        rows: events by kind of record.
        vocabularies: events by code vocabulary, tombstones left out.
        removed: events that are tombstones.
        days: events by recorded day, the last 35 days.
        unplaced: rows of the source, by kind, that have no person, key or recorded_at and so cannot be in the log.
        only_later: kinds whose rows were all recorded after as_of; looked at in the base load alone.
        files: by name.
    """

    as_of: date
    recorded_from: date | None
    recorded_to: date
    source: dict[str, str]
    history: str
    shards: int
    rows: dict[str, int] = field(default_factory=dict)
    vocabularies: dict[str, int] = field(default_factory=dict)
    removed: int = 0
    days: dict[str, int] = field(default_factory=dict)
    unplaced: dict[str, int] = field(default_factory=dict)
    only_later: tuple[str, ...] = ()
    files: dict[str, FileRecord] = field(default_factory=dict)
    path: Path = Path()

    @property
    def name(self) -> str:
        return self.as_of.isoformat()

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    def shard_file(self, shard: int) -> Path:
        """Where the events of a shard lie; a partition without events has no files."""
        return self.path / shard_name(shard)


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"part-{shard:03d}.parquet"


def log_directory() -> Path:
    """The event log's directory."""
    return get_settings().data_dir / "event_log"


def pending_path(as_of: date) -> Path:
    return log_directory() / "pending" / as_of.isoformat()


def committed_path(as_of: date) -> Path:
    return log_directory() / "partitions" / as_of.isoformat()


def snapshot_path(as_of: date) -> Path:
    return log_directory() / "snapshots" / f"{as_of.isoformat()}.json"


def write_manifest(directory: Path, partition: Partition) -> None:
    """Write ``manifest.json``: last of all, because a partition without it does not exist."""
    values = asdict(replace(partition, path=Path()))
    del values["path"]
    write_json(directory / MANIFEST, {"schema_version": SCHEMA_VERSION, **values})


def read_partition(directory: Path) -> Partition | None:
    """The partition in a directory; None where no manifest says there is one.

    Raises:
        ConfigError: it was written by a version of Vigil with another schema.
    """
    if not (directory / MANIFEST).is_file():
        return None
    values: dict[str, Any] = read_json(directory / MANIFEST)
    version = values.pop("schema_version")
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"partition {directory.name} has schema version {version}, this Vigil reads {SCHEMA_VERSION}",
            "use the Vigil that wrote it, or extract into a new VIGIL_HOME",
        )
    first = values.pop("recorded_from")
    return Partition(
        as_of=date.fromisoformat(values.pop("as_of")),
        recorded_from=date.fromisoformat(first) if first else None,
        recorded_to=date.fromisoformat(values.pop("recorded_to")),
        only_later=tuple(values.pop("only_later")),
        files={name: FileRecord(**record) for name, record in values.pop("files").items()},
        path=directory,
        **values,
    )


def committed_partitions() -> list[Partition]:
    """Committed partitions, oldest first."""
    folders = sorted((log_directory() / "partitions").glob("[0-9]*"))
    return [partition for folder in folders if (partition := read_partition(folder)) is not None]


@contextmanager
def locked(step: str) -> Iterator[None]:
    """Hold the event log for one writer; the operating system lets go if the process dies.

    Raises:
        RefusedError: another process holds it.
    """
    path = log_directory() / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"cannot start '{step}': another process is writing the event log",
                "wait until it has ended, then run this step again",
            ) from None
        yield
