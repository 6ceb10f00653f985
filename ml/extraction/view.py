"""The view of the log as of a day: what was recorded by then, the latest version of each row, tombstones dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta

import polars as pl

from ml.common.errors import NotFoundError, RefusedError
from ml.common.paths import polars_source
from ml.extraction.log import QUARANTINE, Partition, committed_partition
from ml.extraction.schema import EVENT_SCHEMA
from ml.extraction.snapshot import Snapshot

ORDER = ["subject_id", "time", "code", "source_key"]
COLUMNS: dict[str, type[pl.DataType] | pl.DataType] = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
    "visit_id": pl.Int64,
    "recorded_at": pl.Datetime("us"),
    "source_key": pl.String,
    "removed": pl.Boolean,
}
assert list(COLUMNS) == EVENT_SCHEMA.names
# What orders two versions of one row, first of all when they were recorded.
VERSION_ORDER = ["recorded_at", "removed", "time", "code", "numeric_value", "text_value", "visit_id"]
ROW = "source_row"  # a 64-bit hash of the source_key: within one subject as good as the key, and an eighth of its size


def read_view(snapshot: Snapshot, as_of: date, shard: int, columns: Sequence[str] = ()) -> pl.DataFrame:
    """Events of one shard as known at the end of ``as_of`` (UTC).

    Args:
        columns: the columns wanted, if not all: what is not asked for costs no memory.

    Returns:
        Columns of ``EVENT_SCHEMA``, ``removed`` always false, sorted by subject_id, time (null first), code,
        source_key; or the columns asked for, in no order.

    Raises:
        RefusedError: the day is after the snapshot's.
        NotFoundError: a partition of the snapshot, or the shard, does not exist.
    """
    if as_of > snapshot.as_of:
        raise RefusedError(f"{as_of} is after the snapshot's {snapshot.as_of}", "commit a snapshot of that day first")
    if not 0 <= shard < snapshot.shards:
        raise NotFoundError(f"there is no shard {shard}", f"shards are 0 to {snapshot.shards - 1}")
    partitions = partitions_of(snapshot)
    if not columns:
        return view_of(partitions, as_of, shard)
    wanted = list(dict.fromkeys([*columns, "subject_id", "recorded_at", "removed"]))
    rows = read_rows(partitions, as_of, shard, wanted)
    if rows.select("subject_id", ROW, "recorded_at").is_duplicated().any():  # which is the later? only all columns tell
        return view_of(partitions, as_of, shard).select(columns)
    return latest(rows).filter(~pl.col("removed")).select(columns)


def partitions_of(snapshot: Snapshot) -> list[Partition]:
    """The snapshot's partitions, oldest first.

    Raises:
        NotFoundError: one is gone.
    """
    found = []
    for name in snapshot.partitions:
        partition = committed_partition(date.fromisoformat(name))
        if partition is None:
            raise NotFoundError(f"partition {name} of the event log is gone", "restore it from a backup of VIGIL_HOME")
        found.append(partition)
    return found


def view_of(partitions: Iterable[Partition], as_of: date, shard: int) -> pl.DataFrame:
    """The view made of the given partitions."""
    rows = latest(read_rows(partitions, as_of, shard))
    return rows.filter(~pl.col("removed")).select(list(COLUMNS)).sort(ORDER, nulls_last=False)


def read_rows(
    partitions: Iterable[Partition],
    as_of: date,
    shard: int,
    columns: Iterable[str] = tuple(COLUMNS),
    *,
    vital: bool = False,
    quarantined: bool = False,
) -> pl.DataFrame:
    """All versions of a shard's rows recorded by the end of ``as_of``, in no order; and ``ROW`` beside the columns.

    Args:
        vital: births and deaths alone, from the files that hold no others.
        quarantined: also the rows that quality set aside.
    """
    wanted = list(columns)
    end = datetime.combine(as_of + timedelta(days=1), time.min)
    frames = [pl.DataFrame(schema={**{name: COLUMNS[name] for name in wanted}, ROW: pl.UInt64})]
    for partition in partitions:
        file = partition.vital_file(shard) if vital else partition.shard_file(shard)
        if file.name not in partition.files or (partition.recorded_from or date.min) > as_of:
            continue
        scan = pl.scan_parquet(**polars_source(file)).filter(pl.col("recorded_at") < end)
        if not quarantined and QUARANTINE in partition.files:
            keys = ["subject_id", "source_key", "recorded_at"]
            aside = pl.scan_parquet(**polars_source(partition.path / QUARANTINE))
            scan = scan.join(aside, on=keys, how="anti")
        frames.append(scan.select(*wanted, pl.col("source_key").hash().alias(ROW)).collect())
    return pl.concat(frames)


def latest(rows: pl.DataFrame) -> pl.DataFrame:
    """The latest version per subject and source_key: a record that moved is one person's tombstone, another's row.

    Two versions recorded at the same instant are a fault that quality reports; the last in the order of their values
    is taken, so that the choice depends on nothing else.
    """
    key = ["subject_id", ROW]
    repeated = rows.select(key).is_duplicated()
    if not repeated.any():
        return rows
    order = [*key, *(name for name in VERSION_ORDER if name in rows.columns)]
    versions = rows.filter(repeated).sort(order, nulls_last=False)
    return pl.concat([rows.filter(~repeated), versions.unique(key, keep="last", maintain_order=True)])
