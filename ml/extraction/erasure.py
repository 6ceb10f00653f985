"""Erasure of a patient from the event log.

The one exception to 'a committed partition is never rewritten': each partition that holds the subject gets a new
attempt without it, its manifest is replaced in one step, the old attempt is removed. Snapshots keep their day and get
the digest of what is left. What is to be done is written down first, so that the next try completes one that died.
"""

from __future__ import annotations

import secrets
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from ml.common.errors import NotFoundError
from ml.common.files import read_json, write_json
from ml.common.paths import new_file, open_new, polars_source, remove
from ml.common.progress import Progress
from ml.extraction.commit import snapshot_of
from ml.extraction.corrections import corrections, rewrite_correction
from ml.extraction.lock import locked
from ml.extraction.log import (
    CODES,
    QUARANTINE,
    VERDICT,
    FileRecord,
    Partition,
    committed_partitions,
    days_with_attempts,
    drop_pending,
    log_directory,
    shard_name,
    vital_name,
    write_committed,
)
from ml.extraction.routing import buckets
from ml.extraction.schema import EVENT_SCHEMA
from ml.extraction.snapshots import load_snapshot, save_snapshot
from ml.extraction.suppression import mark, suppress
from ml.extraction.writer import EventFile


@dataclass(frozen=True)
class LogErasure:
    """What an erasure did to the log.

    Attributes:
        erasure_id: of this erasure, the same when it is run again.
        first_recorded: the first day on which the log knew the subject.
        rows: versions of rows removed from partitions.
        partitions: names of the partitions rewritten.
        snapshots: day → digest before and after.
    """

    erasure_id: str
    first_recorded: date
    rows: int
    partitions: tuple[str, ...]
    snapshots: dict[date, tuple[str, str]] = field(default_factory=dict)


def erase_from_log(subject_id: int) -> LogErasure:
    """Remove a subject from every partition, correction and pending partition, and keep it away from now on.

    Raises:
        NotFoundError: the log does not hold the subject, and never erased it.
        RefusedError: another process writes the log.
        ConfigError: there is no key to keep the subject away by.
    """
    with locked("erase"):
        partitions = committed_partitions()
        intent = _intent(subject_id, partitions)
        suppress(subject_id)
        for day in days_with_attempts():
            drop_pending(day)
        for correction in corrections():
            rows = correction.read()
            if (rows["subject_id"] == subject_id).any():
                rewrite_correction(correction, rows.filter(pl.col("subject_id") != subject_id))
        progress = Progress("erase", len(partitions))
        for number, partition in enumerate(partitions, 1):
            if partition.name in intent["partitions"]:
                _erase_from(partition, subject_id)
            progress.report(number, "partitions")
        after = _renew_snapshots(intent["snapshots"])
    return LogErasure(
        intent["erasure_id"],
        date.fromisoformat(intent["first_recorded"]),
        intent["rows"],
        tuple(intent["partitions"]),
        {date.fromisoformat(day): (before, after[day]) for day, before in intent["snapshots"].items()},
    )


def forget_intent(subject_id: int) -> None:
    """Remove the note of an erasure that is finished."""
    remove(_intent_path(subject_id))


def _intent_path(subject_id: int) -> Any:
    return log_directory() / "erasures" / f"{mark(subject_id)}.json"


def _intent(subject_id: int, partitions: Sequence[Partition]) -> dict[str, Any]:
    """What an earlier try set out to do, else what is to be done; written down."""
    path = _intent_path(subject_id)
    if path.is_file():
        found: dict[str, Any] = read_json(path)
        return found
    holding = {partition.name: rows for partition in partitions if (rows := _rows_of(partition, subject_id)).height}
    if not holding:
        raise NotFoundError(
            "the event log holds no row of this subject", "check the id (it is the source's own, not the pseudonym)"
        )
    first = min(rows["recorded_at"].min() for rows in holding.values())  # type: ignore[type-var]
    snapshots = {}
    for entry in (log_directory() / "snapshots").glob("[0-9]*.json"):
        snapshot = load_snapshot(date.fromisoformat(entry.stem))
        if snapshot.as_of >= first.date() and set(snapshot.partitions) & holding.keys():  # type: ignore[union-attr]
            snapshots[entry.stem] = snapshot.digest
    intent = {
        "erasure_id": str(uuid.uuid4()),
        "first_recorded": str(first.date()),  # type: ignore[union-attr]
        "rows": sum(rows.height for rows in holding.values()),
        "partitions": sorted(holding),
        "snapshots": snapshots,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, intent)
    return intent


def _shard_of(partition: Partition, subject_id: int) -> int:
    return int(buckets(np.array([subject_id], np.int64))[0]) % partition.shards


def _rows_of(partition: Partition, subject_id: int) -> pl.DataFrame:
    name = shard_name(_shard_of(partition, subject_id))
    if name not in partition.files:
        return pl.DataFrame(schema={"recorded_at": pl.Datetime("us")})
    scan = pl.scan_parquet(**polars_source(partition.path / name))
    return (
        scan.filter(pl.col("subject_id") == subject_id).select("recorded_at", "source_key", "code", "removed").collect()
    )


def _erase_from(partition: Partition, subject_id: int) -> None:
    gone = _rows_of(partition, subject_id)
    if gone.is_empty():  # done by an earlier try
        return
    gone = _with_kinds(gone, partition)
    shard = _shard_of(partition, subject_id)
    renewed = replace(partition, attempt=secrets.token_hex(4))
    files: dict[str, FileRecord] = {}
    for name, record in partition.files.items():
        if name in (shard_name(shard), vital_name(shard)):
            kept = _copy_without(partition, renewed, name, subject_id)
            files |= {name: kept} if kept else {}
        elif name == CODES:
            files[name] = _fewer_codes(partition, renewed, gone)
        elif name == QUARANTINE:
            files[name] = _fewer_keys(partition, renewed, subject_id)
        else:
            files[name] = _copy(partition, renewed, name, record)
    if (partition.path / VERDICT).is_file():
        _copy(partition, renewed, VERDICT, None)
    write_committed(_fewer_counts(renewed, files, gone))
    remove(partition.path)


def _copy_without(old: Partition, new: Partition, name: str, subject_id: int) -> FileRecord | None:
    """The file without the subject, row group by row group; none where nothing is left."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    target: EventFile | None = None
    with (old.path / name).open("rb") as handle:
        source = pq.ParquetFile(handle)
        for group in range(source.num_row_groups):
            rows = source.read_row_group(group).cast(EVENT_SCHEMA)
            rows = rows.filter(pc.not_equal(rows.column("subject_id"), subject_id))
            if rows.num_rows:
                target = target or EventFile(new.path / name)
                target.write(rows)
    return target.close() if target else None


def _fewer_codes(old: Partition, new: Partition, gone: pl.DataFrame) -> FileRecord:
    kinds = gone.filter(~pl.col("removed")).group_by("kind", "code").len("gone")
    codes = pl.read_parquet(**polars_source(old.path / CODES)).join(kinds, on=["kind", "code"], how="left")
    left = codes.with_columns(rows=pl.col("rows") - pl.col("gone").fill_null(0).cast(pl.Int64)).drop("gone")
    return _write(new, CODES, left.filter(pl.col("rows") > 0))


def _fewer_keys(old: Partition, new: Partition, subject_id: int) -> FileRecord:
    keys = pl.read_parquet(**polars_source(old.path / QUARANTINE))
    return _write(new, QUARANTINE, keys.filter(pl.col("subject_id") != subject_id))


def _fewer_counts(partition: Partition, files: dict[str, FileRecord], gone: pl.DataFrame) -> Partition:
    """The manifest without the subject's rows."""
    live = gone.filter(~pl.col("removed"))
    vocabularies = Counter(live["code"].str.split("//").list.first().to_list())
    return replace(
        partition,
        files=files,
        rows=_less(partition.rows, Counter(gone["kind"].to_list())),
        vocabularies={name: rows for name, rows in _less(partition.vocabularies, vocabularies).items() if rows},
        removed=partition.removed - int(gone["removed"].sum()),
        days=_less(partition.days, Counter(map(str, gone["recorded_at"].dt.date().to_list()))),
        erased=partition.erased + 1,
    )


def _less(counts: dict[str, int], gone: Counter[str]) -> dict[str, int]:
    return {name: max(count - gone[name], 0) for name, count in counts.items()}


def _with_kinds(rows: pl.DataFrame, partition: Partition) -> pl.DataFrame:
    """Rows with the kind of record under which they were counted.

    Mostly the first part of their key; but a source may have one query for several tables, or one that also makes an
    event of another. Then the code tells: it was counted under some kind.
    """
    counted: dict[str, list[str]] = {}
    if CODES in partition.files:
        for kind, code in pl.read_parquet(**polars_source(partition.path / CODES)).select("kind", "code").iter_rows():
            counted.setdefault(code, []).append(kind)
    largest = max(partition.rows, key=lambda kind: partition.rows[kind], default="unknown")

    def kind_of(own: str, code: str) -> str:
        known = counted.get(code) or [kind for kind in (own, largest) if kind in partition.rows]
        return own if own in known else known[0]

    own = rows["source_key"].str.extract(r"^([^/]*)/").fill_null("unknown")
    kinds = [kind_of(*pair) for pair in zip(own, rows["code"], strict=True)]
    return rows.with_columns(kind=pl.Series(kinds, dtype=pl.String))


def _write(partition: Partition, name: str, rows: pl.DataFrame) -> FileRecord:
    with new_file(partition.path / name) as file:
        rows.write_parquet(file)  # type: ignore[arg-type]
    return FileRecord(file.sha256, file.bytes, rows.height)


def _copy(old: Partition, new: Partition, name: str, record: FileRecord | None) -> FileRecord:
    target = open_new(new.path / name)
    with (old.path / name).open("rb") as source:
        for block in _blocks(source):
            target.write(block)
    target.close()
    return record or FileRecord(target.sha256, target.bytes, 0)


def _blocks(file: Any) -> Iterator[bytes]:
    while block := file.read(1 << 20):
        yield block


def _renew_snapshots(before: dict[str, str]) -> dict[str, str]:
    """Snapshots whose digest is still the old one get the digest of what is left; the old one is kept beside it."""
    after = {}
    for day, digest in sorted(before.items()):
        snapshot = load_snapshot(date.fromisoformat(day))
        if digest not in snapshot.former_digests:
            used = [p for p in committed_partitions() if p.name in snapshot.partitions]
            renewed = snapshot_of(used, snapshot.as_of)
            if renewed.digest != digest:
                snapshot = replace(renewed, former_digests=(*snapshot.former_digests, digest))
                save_snapshot(snapshot)
        after[day] = snapshot.digest
    return after
