"""Views of one shard at several days, the log read once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta

import polars as pl

from ml.extraction import read_view
from ml.extraction.snapshot import Snapshot
from ml.extraction.view import ROW, latest, partitions_of, read_rows

COLUMNS = ("subject_id", "time", "code", "numeric_value")


def views_at(snapshot: Snapshot, days: tuple[date, ...], shard: int) -> Iterator[pl.DataFrame]:
    """`COLUMNS` of `read_view` at each day, in no order of rows.

    Reading, and asking which rows have several versions, is most of what a view costs; it is done once for all days.
    """
    end = max(days)
    rows = read_rows(partitions_of(snapshot), end, shard, [*COLUMNS, "recorded_at", "removed"])
    several = rows.select("subject_id", ROW).is_duplicated()
    once, versions = rows.filter(~several), rows.filter(several)
    ambiguous = versions.select("subject_id", ROW, "recorded_at").is_duplicated().any()
    for day in days:
        if ambiguous:  # which of two versions of one instant is the later? only all columns tell
            yield read_view(snapshot, day, shard, COLUMNS)
            continue
        known = pl.col("recorded_at") < datetime.combine(day + timedelta(days=1), time.min)
        parts = (once.filter(known), latest(versions.filter(known)))
        yield pl.concat([part.filter(~pl.col("removed")).select(COLUMNS) for part in parts])
