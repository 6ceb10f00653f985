"""Pieces of a partition as the pandas frames that Great Expectations looks at: only the columns it needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta

import pandas as pd
import polars as pl

from ml.common.paths import polars_source
from ml.extraction.log import CODES, QUARANTINE, Partition
from ml.extraction.schema import BIRTH, DEATH
from ml.extraction.view import COLUMNS, ROW, latest, read_rows
from ml.quality.rules import CODE_SYSTEMS, OLDEST_AGE, STATIC

PIECE_ROWS = 1_000_000  # rows looked at together, unless a single shard is larger
BEYOND = 1e39  # no float32 is larger
VITAL = [
    "subject_id",
    "time",
    "code",
    "recorded_at",
    "source_key",
    "removed",
    "numeric_value",
    "text_value",
    "visit_id",
]


def pieces(partition: Partition) -> Iterator[list[int]]:
    """Shards in groups of bounded size."""
    group: list[int] = []
    rows = 0
    for shard in range(partition.shards):
        found = partition.files.get(partition.shard_file(shard).name)
        if found is None:
            continue
        if group and rows + found.rows > PIECE_ROWS:
            yield group
            group, rows = [], 0
        group.append(shard)
        rows += found.rows
    if group:
        yield group


def read_piece(partition: Partition, committed: Sequence[Partition], shards: Sequence[int]) -> pl.DataFrame:
    """The partition's rows of some shards, tombstones left out, with what the expectations compare them to.

    Added columns: ``row``, ``kind``, ``vocabulary``, ``recorded_end`` (end of the recorded day), ``birth`` (day of
    birth as known by then), ``death_end`` (end of the day of death as known in the log), ``oldest``, ``static``.
    """
    rows = pl.concat([read_rows([partition], partition.recorded_to, shard) for shard in shards])
    vital = _vital([*committed, partition], shards, partition.recorded_to, rows["subject_id"].unique())
    rows = _with_birth(rows.filter(~pl.col("removed")), vital)
    rows = rows.join(_deaths(vital), on="subject_id", how="left", maintain_order="left")
    return (
        rows.with_row_index("row")
        .with_columns(
            kind=pl.col("source_key").str.extract(r"^([^/]*)/").fill_null("unknown"),
            vocabulary=pl.col("code").str.extract(r"^([^/]*)"),
        )
        .with_columns(
            recorded_end=_end_of_day("recorded_at"),
            oldest=pl.col("recorded_at").dt.offset_by(f"-{OLDEST_AGE}y").dt.truncate("1y"),
            static=pl.col("vocabulary").is_in(STATIC),
        )
    )


def _vital(partitions: Sequence[Partition], shards: Sequence[int], as_of: date, subjects: pl.Series) -> pl.DataFrame:
    """Every version in the log of some subjects' births and deaths: one scan, which a night of few subjects keeps
    small whatever the length of the log."""
    end = datetime.combine(as_of + timedelta(days=1), time.min)
    scans = [_vital_scan(p, shards) for p in partitions if (p.recorded_from or date.min) <= as_of]
    empty = pl.LazyFrame(schema={name: COLUMNS[name] for name in VITAL})
    rows = pl.concat([empty, *(scan for scan in scans if scan is not None)])
    # A filter, not a join: it reaches the files, of which then little but the subjects is decoded.
    wanted = rows.filter(pl.col("subject_id").is_in(subjects.implode()), pl.col("recorded_at") < end)
    return wanted.with_columns(pl.col("source_key").hash().alias(ROW)).collect()


def _vital_scan(partition: Partition, shards: Sequence[int]) -> pl.LazyFrame | None:
    """The partition's births and deaths, rows in quarantine left out; None where it has none."""
    files = [path for shard in shards if (path := partition.vital_file(shard)).name in partition.files]
    if not files:
        return None
    sources = [polars_source(path) for path in files]
    scan = pl.scan_parquet(
        **{**sources[0], "source": [source["source"] for source in sources]}, parallel="prefiltered"
    ).select(VITAL)
    if QUARANTINE not in partition.files:
        return scan
    aside = pl.scan_parquet(**polars_source(partition.path / QUARANTINE))
    return scan.join(aside, on=["subject_id", "source_key", "recorded_at"], how="anti")


def _with_birth(rows: pl.DataFrame, vital: pl.DataFrame) -> pl.DataFrame:
    """Add the birth known by the end of the day on which a row was recorded.

    Taken from the two clocks alone, so that a row is judged alike whichever night's partition brings it. Births that
    are themselves implausible are not held against other rows.
    """
    births = vital.filter(pl.col("code") == BIRTH).filter(
        pl.col("removed")
        | (
            (pl.col("time") < _end_of_day("recorded_at"))
            & (pl.col("time") >= pl.col("recorded_at").dt.offset_by(f"-{OLDEST_AGE}y").dt.truncate("1y"))
        )
    )
    known = births.select(
        "subject_id",
        "recorded_at",
        birth=pl.when(~pl.col("removed")).then(pl.col("time").dt.truncate("1d")),
        recorded_day=pl.col("recorded_at").dt.truncate("1d"),
    ).sort("recorded_at")
    rows = rows.with_columns(recorded_day=pl.col("recorded_at").dt.truncate("1d")).sort("recorded_day")
    joined = rows.join_asof(
        known.drop("recorded_at"), on="recorded_day", by="subject_id", strategy="backward", check_sortedness=False
    )
    return joined.drop("recorded_day")


def _deaths(vital: pl.DataFrame) -> pl.DataFrame:
    deaths = latest(vital.filter(pl.col("code") == DEATH)).filter(~pl.col("removed"))
    return deaths.group_by("subject_id").agg(death_end=_end_of_day("time").min())


def _end_of_day(column: str) -> pl.Expr:
    return pl.col(column).dt.truncate("1d").dt.offset_by("1d") - pl.duration(microseconds=1)


def events_frame(piece: pl.DataFrame) -> pd.DataFrame:
    """What the row expectations look at. Numbers that are absent are 0; what is no number is beyond every float32."""
    number = pl.col("numeric_value").cast(pl.Float64).fill_nan(BEYOND).fill_null(0)
    return piece.select(
        "row",
        "subject_id",
        pl.col("source_key").hash().alias("key"),  # equal keys, equal hashes: enough to find rows recorded twice
        "recorded_at",
        "time",
        pl.when("static").then(pl.col("recorded_at")).otherwise(pl.col("time")).alias("time_if_needed"),
        "recorded_end",
        "birth",
        "death_end",
        pl.when(pl.col("code") == BIRTH).then(pl.col("oldest")).alias("oldest_birth"),
        number.alias("number"),
    ).to_pandas()


def codes_frame(codes: pl.DataFrame) -> pd.DataFrame:
    """Distinct codes, and a column per code system that holds its own codes alone."""
    systems = [
        pl.when(pl.col("code").str.starts_with(f"{system}//")).then(pl.col("code")).alias(system)
        for system in CODE_SYSTEMS
    ]
    return codes.select("row", "code", *systems).to_pandas()


def schema_frame(partition: Partition) -> pd.DataFrame:
    """A frame without rows that has the columns, with their types in the names, of the partition's files."""
    found: dict[str, None] = {}
    for name in sorted(partition.files):
        if name in (CODES, QUARANTINE):
            continue
        schema = pl.scan_parquet(**polars_source(partition.path / name)).collect_schema()
        found.update(dict.fromkeys(f"{column}: {kind}" for column, kind in schema.items()))
    return pd.DataFrame(columns=list(found))


def expected_schema() -> list[str]:
    """The columns that ``schema_frame`` must have."""
    return [f"{column}: {kind if isinstance(kind, pl.DataType) else kind()}" for column, kind in COLUMNS.items()]
