"""From a pending partition that passed quality to a committed one and a snapshot."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import date, timedelta

from ml.common.errors import NotFoundError, RefusedError
from ml.common.files import read_json, sha256_file
from ml.extraction.digest import digest_view
from ml.extraction.lock import Check, locked
from ml.extraction.log import (
    QUARANTINE,
    VERDICT,
    FileRecord,
    Partition,
    committed_partitions,
    days_with_attempts,
    drop_pending,
    pending_partition,
    pending_path,
    snapshot_path,
    write_committed,
)
from ml.extraction.snapshot import Snapshot
from ml.extraction.snapshots import load_snapshot, save_snapshot

log = logging.getLogger(__name__)


def commit_snapshot(as_of: date) -> Snapshot:
    """Commit the pending partition of a day, if the log does not cover the day yet, and make its snapshot.

    Killed anywhere, the next call completes it; a snapshot that exists is returned as it is. A day before the last
    committed one gets the snapshot it would have had then.

    Raises:
        NotFoundError: there is no pending partition, or the log holds nothing by that day.
        RefusedError: quality has not passed this very partition, its files are not what was extracted, or another
            process writes the log.
    """
    with locked("commit") as still_locked:
        if snapshot_path(as_of).is_file():
            return load_snapshot(as_of)
        committed = committed_partitions()
        if not committed or committed[-1].recorded_to < as_of:
            _commit(as_of, committed[-1].recorded_to if committed else None, still_locked)
            committed = committed_partitions()
        snapshot = snapshot_of(committed, as_of)
        still_locked()
        save_snapshot(snapshot)
        _drop_stale_pending(committed[-1].recorded_to)
    log.info("snapshot %s: %s subjects, digest %s", as_of, f"{snapshot.subjects:,}", snapshot.digest[:12])
    return snapshot


def snapshot_of(committed: list[Partition], as_of: date) -> Snapshot:
    """The snapshot of a day, computed from the log.

    Raises:
        NotFoundError: the log holds nothing recorded by that day.
    """
    used = [partition for partition in committed if (partition.recorded_from or date.min) <= as_of]
    view = digest_view(used, as_of, used[0].shards)
    if not view.rows:
        raise NotFoundError(f"the event log holds nothing recorded by {as_of}", "choose a later day")
    return Snapshot(as_of, view.digest, tuple(p.name for p in used), view.rows, view.subjects, used[0].shards)


def _commit(as_of: date, last: date | None, still_locked: Check) -> None:
    partition = pending_partition(as_of)
    if partition is None:
        raise NotFoundError(f"there is no pending partition of {as_of}", "extract and validate that day first")
    if partition.recorded_from != (last + timedelta(days=1) if last else None):
        raise RefusedError(f"the pending partition of {as_of} no longer follows the log", "extract that day again")
    _check_verdict(partition)
    _check_files(partition)
    quarantine = partition.path / QUARANTINE
    if quarantine.exists():
        record = FileRecord(
            sha256_file(quarantine), quarantine.stat().st_size, read_json(partition.path / VERDICT)["quarantined"]
        )
        partition = replace(partition, files={**partition.files, QUARANTINE: record})
    still_locked()
    write_committed(partition)


def _check_verdict(partition: Partition) -> None:
    path = partition.path / VERDICT
    if not path.is_file():
        raise RefusedError(f"quality has not judged the partition of {partition.as_of}", "validate that day first")
    verdict = read_json(path)
    if not verdict["passed"]:
        raise RefusedError(
            f"quality blocked the partition of {partition.as_of}", "see verdict.json, then extract again"
        )
    quarantine = partition.path / QUARANTINE
    found = sha256_file(quarantine) if quarantine.exists() else None
    manifest = sha256_file(pending_path(partition.as_of))
    if verdict["manifest_sha256"] != manifest or verdict["quarantine_sha256"] != found:
        raise RefusedError(f"the verdict on {partition.as_of} is about other rows", "validate that day again")


def _check_files(partition: Partition) -> None:
    for name, record in partition.files.items():
        file = partition.path / name
        if not file.is_file() or sha256_file(file) != record.sha256:
            raise RefusedError(f"{name} of the partition of {partition.as_of} was changed", "extract that day again")


def _drop_stale_pending(recorded_to: date) -> None:
    """What was extracted for covered days and not committed never can be."""
    for day in days_with_attempts():
        if day <= recorded_to:
            drop_pending(day)
