"""The digest says what the view says, and nothing of how it is stored."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.extraction import Snapshot, commit_snapshot, extract
from ml.extraction.digest import bucket_digests
from ml.extraction.routing import buckets
from ml.extraction.schema import BUCKETS
from ml.extraction.view import COLUMNS, ORDER, ROW, latest
from ml.settings import Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml.small_hospital import BASE

NEXT = BASE + timedelta(days=1)
LAST = BASE + timedelta(days=2)


@pytest.fixture
def small(vigil: Settings) -> Settings:
    hospital.build()
    hospital.add_condition(4, 4, date(2024, 1, 5), 102, recorded=NEXT)
    hospital.add_condition(5, 5, date(2024, 1, 6), 101, recorded=NEXT, removed=True)
    hospital.add_condition(901, 6, date(2024, 1, 7), 102, recorded=LAST)
    hospital.add_condition(4, 11, date(2024, 1, 5), 102, recorded=LAST)  # now another person's
    return vigil


def from_scratch(monkeypatch: pytest.MonkeyPatch, place: Path, as_of: date, **values: object) -> Snapshot:
    monkeypatch.setenv("VIGIL_DATA", str(place))
    for name, value in values.items():
        monkeypatch.setenv(f"VIGIL_{name}", str(value))
    get_settings.cache_clear()
    return hospital.night(as_of)


def test_nights_backfill_and_base_loads_give_one_digest_per_day(
    small: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nightly = {day: hospital.night(day) for day in (BASE, NEXT, LAST)}
    assert len({snapshot.digest for snapshot in nightly.values()}) == 3
    for day, snapshot in nightly.items():
        assert from_scratch(monkeypatch, tmp_path / f"scratch-{day}", day).digest == snapshot.digest
    late = from_scratch(monkeypatch, tmp_path / "late", LAST)  # one base load, earlier days from the log
    assert extract(NEXT).covered
    assert commit_snapshot(NEXT).digest == nightly[NEXT].digest
    assert commit_snapshot(BASE).digest == nightly[BASE].digest
    assert late.digest == nightly[LAST].digest


@pytest.mark.parametrize("values", [{"SHARDS": 1}, {"SHARDS": 16}, {"BATCH_ROWS": 3}])
def test_shards_and_batches_do_not_change_the_digest(
    small: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, values: dict[str, int]
) -> None:
    usual = hospital.night(LAST)
    other = from_scratch(monkeypatch, tmp_path / "other", LAST, **values)
    assert (other.digest, other.rows, other.subjects) == (usual.digest, usual.rows, usual.subjects)


FRAME = pl.DataFrame(
    {
        "subject_id": [1, 1, 2],
        "time": [None, 1, 2],
        "code": ["GENDER//F", "ICD10CM//I50.9", "LOINC//4548-4"],
        "numeric_value": [None, None, 6.5],
        "text_value": [None, "", "high"],
        "visit_id": [None, 7, 8],
        "recorded_at": [5, 6, 7],
        "source_key": ["a/1", "b/1", "c/1"],
        "removed": [False, False, False],
    },
    schema=COLUMNS,
)


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("subject_id", 2, 3),
        ("time", 0, 0),
        ("code", 1, "ICD10CM//I50.8"),
        ("numeric_value", 1, 0.0),
        ("numeric_value", 2, 6.25),
        ("text_value", 0, ""),
        ("text_value", 2, "hig"),
        ("visit_id", 0, 0),
        ("recorded_at", 2, 8),
        ("source_key", 0, "a/2"),
    ],
)
def test_any_value_that_changes_changes_the_digest(column: str, row: int, value: object) -> None:
    values = FRAME[column].to_physical().to_list()
    values[row] = value
    physical = pl.Series(column, values, dtype=FRAME[column].to_physical().dtype)
    changed = FRAME.with_columns(physical.cast(COLUMNS[column]))
    assert bucket_digests(changed, range(BUCKETS)) != bucket_digests(FRAME, range(BUCKETS))


def test_text_cannot_slip_from_one_row_into_the_next() -> None:
    one = FRAME.with_columns(subject_id=pl.lit(1, pl.Int64), text_value=pl.Series(["ab", "c", ""]))
    other = FRAME.with_columns(subject_id=pl.lit(1, pl.Int64), text_value=pl.Series(["a", "bc", ""]))
    assert bucket_digests(one, range(BUCKETS)) != bucket_digests(other, range(BUCKETS))


def test_not_a_number_and_minus_zero_have_one_form() -> None:
    quiet, other = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    forms = [FRAME.with_columns(numeric_value=pl.Series(np.array([v, -0.0, 1], np.float32))) for v in (quiet, other)]
    zero = FRAME.with_columns(numeric_value=pl.Series(np.array([quiet, 0.0, 1], np.float32)))
    digests = [bucket_digests(frame, range(BUCKETS)) for frame in (*forms, zero)]
    assert digests[0] == digests[1] == digests[2]


@given(st.permutations(range(6)))
def test_the_latest_version_wins_whatever_the_order_of_rows(order: list[int]) -> None:
    rows = pl.DataFrame(
        {
            "subject_id": [1] * 6,
            "time": [1, 1, 1, 2, 2, 3],
            "code": ["A//1", "A//2", "A//3", "B//1", "B//2", "C//1"],
            "numeric_value": [None] * 6,
            "text_value": [None] * 6,
            "visit_id": [None] * 6,
            "recorded_at": [1, 2, 2, 1, 9, 1],
            "source_key": ["a", "a", "a", "b", "b", "c"],
            "removed": [False, False, False, False, True, False],
        },
        schema=COLUMNS,
    )
    found = latest(rows[order].with_columns(pl.col("source_key").hash().alias(ROW))).sort(ORDER)
    assert found["code"].to_list() == ["A//3", "B//2", "C//1"]


def test_buckets_are_what_they_were_on_the_first_day() -> None:
    """A committed log hangs on these numbers: they may never change."""
    ids = np.array([0, 1, 2, 3, 10_000_032, -1, 2**62], np.int64)
    assert buckets(ids).tolist() == [175, 193, 206, 237, 13, 32, 235]  # splitmix64 in plain integers
    even = np.bincount(buckets(np.arange(256_000, dtype=np.int64)), minlength=BUCKETS)
    assert 850 < even.min() <= even.max() < 1150
