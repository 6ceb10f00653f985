"""The event log: where partitions lie, what their manifests say, and who may write.

A day's folder holds one folder per attempt to extract it. ``pending.json`` names the attempt that quality is to judge,
``manifest.json`` the one that was committed; what neither names does not exist. So an attempt may die anywhere, nothing
is ever renamed, and a directory and an object store work alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from upath import UPath

from ml.common.errors import ConfigError
from ml.common.files import read_json, write_json
from ml.common.paths import location, remove
from ml.settings import get_settings

SCHEMA_VERSION = 2  # of the events and of the manifest
PENDING, MANIFEST = "pending.json", "manifest.json"
VERDICT, QUARANTINE, CODES = "verdict.json", "quarantine.parquet", "codes.parquet"


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
        source: the source's name, its schema and the hospital, and the settings that decide about codes.
        history: ``kept`` or ``assumed`` (``ml.sources.base.SourcePlan``).
        shards: number of shards.
        attempt: name of the folder that holds the files.
        rows: events by kind of record.
        vocabularies: events by code vocabulary, tombstones left out.
        removed: events that are tombstones.
        days: events by recorded day, the last 35 days.
        unplaced: rows of the source, by kind, that have no person, key or recorded_at and so cannot be in the log.
        only_later: kinds whose rows were all recorded after as_of; looked at in the base load alone.
        unmapped: events, by kind, whose code the mapping to another vocabulary does not know.
        corrections: reconciliations whose facts it took in: name and rows.
        erased: subjects whose rows were erased from it.
        files: by name.
    """

    as_of: date
    recorded_from: date | None
    recorded_to: date
    source: dict[str, str]
    history: str
    shards: int
    attempt: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    vocabularies: dict[str, int] = field(default_factory=dict)
    removed: int = 0
    days: dict[str, int] = field(default_factory=dict)
    unplaced: dict[str, int] = field(default_factory=dict)
    only_later: tuple[str, ...] = ()
    unmapped: dict[str, int] = field(default_factory=dict)
    corrections: dict[str, int] = field(default_factory=dict)
    erased: int = 0
    files: dict[str, FileRecord] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.as_of.isoformat()

    @property
    def total(self) -> int:
        return sum(self.rows.values())

    @property
    def path(self) -> UPath:
        """The folder of its files."""
        return day_path(self.as_of) / self.attempt

    def shard_file(self, shard: int) -> UPath:
        """The events of a shard; only where ``files`` names it."""
        return self.path / shard_name(shard)

    def vital_file(self, shard: int) -> UPath:
        """The births and deaths among the events of a shard; only where ``files`` names it."""
        return self.path / vital_name(shard)


def shard_name(shard: int) -> str:
    """File name of a shard's events."""
    return f"part-{shard:03d}.parquet"


def vital_name(shard: int) -> str:
    """File name of a shard's births and deaths."""
    return f"vital-{shard:03d}.parquet"


def log_directory() -> UPath:
    """The event log's directory."""
    settings = get_settings()
    return location(settings.event_log or str(settings.data_dir / "event_log"))


def day_path(as_of: date) -> UPath:
    """The folder of a day's attempts and manifests."""
    return log_directory() / "partitions" / as_of.isoformat()


def snapshot_path(as_of: date) -> UPath:
    return log_directory() / "snapshots" / f"{as_of.isoformat()}.json"


def pending_path(as_of: date) -> UPath:
    """The manifest of the day's pending partition."""
    return day_path(as_of) / PENDING


def committed_path(as_of: date) -> UPath:
    """The manifest of the partition committed under a day's name."""
    return day_path(as_of) / MANIFEST


def write_pending(partition: Partition) -> None:
    """Offer a partition for judgement: its files exist from now on."""
    _write(pending_path(partition.as_of), partition)


def write_committed(partition: Partition) -> None:
    """Make a partition part of the log."""
    _write(committed_path(partition.as_of), partition)


def pending_partition(as_of: date) -> Partition | None:
    """The day's partition that waits for its commit; None where there is none.

    Raises:
        ConfigError: it was written by a version of Vigil with another schema.
    """
    return _read(pending_path(as_of))


def committed_partition(as_of: date) -> Partition | None:
    """The partition committed under a day's name; None where there is none.

    Raises:
        ConfigError: it was written by a version of Vigil with another schema.
    """
    return _read(committed_path(as_of))


def committed_partitions() -> list[Partition]:
    """Committed partitions, oldest first."""
    manifests = sorted((log_directory() / "partitions").glob(f"[0-9]*/{MANIFEST}"), key=lambda path: path.parent.name)
    return [partition for path in manifests if (partition := _read(path)) is not None]


def days_with_attempts() -> list[date]:
    """Days that hold an attempt that no manifest names, and maybe a pending partition; oldest first."""
    committed = {partition.as_of: partition.attempt for partition in committed_partitions()}
    folders = (log_directory() / "partitions").glob("[0-9]*/*")
    loose = {
        date.fromisoformat(entry.parent.name)
        for entry in folders
        if entry.name not in (MANIFEST, committed.get(date.fromisoformat(entry.parent.name)))
    }
    return sorted(loose)


def drop_pending(as_of: date) -> None:
    """Withdraw the day's pending partition, and clear away every attempt that the manifest does not name."""
    committed = committed_partition(as_of)
    remove(pending_path(as_of))
    for entry in attempts(as_of):
        if committed is None or entry.name != committed.attempt:
            remove(entry)


def attempts(as_of: date) -> list[UPath]:
    """Folders of a day's attempts, finished or not."""
    folder = day_path(as_of)
    return sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=str) if folder.is_dir() else []


def _write(path: UPath, partition: Partition) -> None:
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema_version": SCHEMA_VERSION, **asdict(partition)})


def _read(path: UPath) -> Partition | None:
    try:
        values: dict[str, Any] = read_json(path)
    except FileNotFoundError:
        return None
    version = values.pop("schema_version")
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"the partition {path.parent.name} has schema version {version}, this Vigil reads {SCHEMA_VERSION}",
            "use the Vigil that wrote it, or extract into a new VIGIL_HOME",
        )
    first = values.pop("recorded_from")
    return Partition(
        as_of=date.fromisoformat(values.pop("as_of")),
        recorded_from=date.fromisoformat(first) if first else None,
        recorded_to=date.fromisoformat(values.pop("recorded_to")),
        only_later=tuple(values.pop("only_later")),
        files={name: FileRecord(**record) for name, record in values.pop("files").items()},
        **values,
    )
