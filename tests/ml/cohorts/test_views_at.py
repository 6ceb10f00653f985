"""Views of several days from one reading of the log are the views that each day's own reading gives."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ml.cohorts.views import COLUMNS, views_at
from ml.extraction import read_view
from tests.ml.synthetic_log import END, commit, deployment, make_events

DAYS = tuple(END - timedelta(days=days) for days in (0, 100, 365, 1500))


def corrected(events: pl.DataFrame, *, at_once: bool) -> pl.DataFrame:
    """A log with late rows, later versions and tombstones; at once: two versions of one instant."""
    some = pl.col("source_key").hash(7) % 5
    later = pl.col("recorded_at") + (pl.duration(days=0) if at_once else pl.duration(days=some.cast(pl.Int64) * 90))
    versions = events.filter(some == 1).with_columns(code=pl.lit("ICD10CM//R99"), recorded_at=later)
    taken_back = events.filter(some == 2).with_columns(
        removed=pl.lit(True), recorded_at=pl.col("recorded_at") + pl.duration(days=200)
    )
    late = events.with_columns(
        recorded_at=pl.when(some == 3).then(pl.col("recorded_at") + pl.duration(days=40)).otherwise("recorded_at")
    )
    return pl.concat([late, versions, taken_back])


@pytest.mark.parametrize("at_once", [False, True])
def test_views_of_several_days_are_those_of_each_day(tmp_path: Path, at_once: bool) -> None:
    with deployment(tmp_path):
        snapshot = commit(corrected(make_events(60, 30), at_once=at_once))
        for shard in range(snapshot.shards):
            for day, found in zip(DAYS, views_at(snapshot, DAYS, shard), strict=True):
                wanted = read_view(snapshot, day, shard).select(COLUMNS)
                assert found.sort(COLUMNS).equals(wanted.sort(COLUMNS))
                assert wanted.filter(pl.col("code") == "ICD10CM//R99").height
