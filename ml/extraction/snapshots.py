"""Snapshots on disk."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Any

from ml.common.errors import NotFoundError
from ml.common.files import read_json, write_json
from ml.extraction.log import log_directory, snapshot_path
from ml.extraction.snapshot import Snapshot


def load_snapshot(as_of: date) -> Snapshot:
    """The snapshot of a day.

    Raises:
        NotFoundError: none was committed.
    """
    path = snapshot_path(as_of)
    if not path.is_file():
        raise NotFoundError(f"there is no snapshot of {as_of}", "run the night of that day (DAG nightly)")
    values: dict[str, Any] = read_json(path)
    return Snapshot(
        as_of=date.fromisoformat(values["as_of"]),
        digest=values["digest"],
        partitions=tuple(values["partitions"]),
        rows=values["rows"],
        subjects=values["subjects"],
        shards=values["shards"],
        former_digests=tuple(values.get("former_digests", ())),
    )


def newest_snapshot() -> Snapshot:
    """The snapshot of the latest day.

    Raises:
        NotFoundError: there is none yet.
    """
    days = sorted(path.stem for path in (log_directory() / "snapshots").glob("[0-9]*.json"))
    if not days:
        raise NotFoundError("there is no snapshot yet", "run a night first (make nightly, or DAG nightly)")
    return load_snapshot(date.fromisoformat(days[-1]))


def save_snapshot(snapshot: Snapshot) -> None:
    """Write a snapshot's manifest."""
    write_json(snapshot_path(snapshot.as_of), asdict(snapshot))
