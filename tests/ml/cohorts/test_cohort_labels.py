"""Labels through ACES, on event logs whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from ml.cohorts import make_labels, open_run, read_labels
from ml.common.errors import VigilError
from tests.ml.synthetic_log import as_events, commit, deployment, event, person

T1 = datetime(2023, 7, 2)  # the prediction time of t1 = 2023-07-01, 365 days before 2024-06-30
SEEN = "2023-01-10T09:00"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with deployment(tmp_path, index_days="2", tasks='["heart_failure", "death"]'):
        yield tmp_path


def labels(*rows: pl.DataFrame, task: str = "heart_failure", shards: int = 1) -> pl.DataFrame:
    commit(as_events(pl.concat(rows)), shards=shards)
    make_labels(open_run())
    return read_labels(open_run(), task)


def at_t1(frame: pl.DataFrame) -> dict[int, bool]:
    return dict(frame.filter(pl.col("index") == 1).select("subject_id", "boolean_value").iter_rows())


def test_an_outcome_in_the_year_after_the_index_day_is_positive_and_a_later_one_is_not(home: Path) -> None:
    ever = [part for who in range(4) for part in (person(who), event(who, "ICD10CM//I10", SEEN))]
    outcomes = [
        event(1, "ICD10CM//I50.9", "2023-07-02"),  # a date alone: the first moment of the horizon
        event(2, "ICD10CM//I50.9", "2024-06-30T23:00"),
        event(3, "ICD10CM//I50.9", "2023-07-01T23:00"),  # the index day itself: no longer eligible
    ]
    frame = labels(*ever, *outcomes)
    assert at_t1(frame) == {1: False, 2: True, 3: True}
    assert frame.filter(pl.col("index") == 1)["prediction_time"].unique().to_list() == [T1]


def test_labels_of_an_older_day_see_its_own_year_only(home: Path) -> None:
    frame = labels(person(0), event(0, "ICD10CM//I10", "2022-01-01"), event(0, "ICD10CM//I50.9", "2023-08-01"))
    assert dict(frame.select("index", "boolean_value").iter_rows()) == {1: True, 2: False}


def test_an_outcome_recorded_late_labels_the_day_that_it_happened_after(home: Path) -> None:
    frame = labels(
        person(0),
        event(0, "ICD10CM//I10", SEEN),
        event(0, "ICD10CM//I50.9", "2023-08-01", recorded="2024-05-01"),  # known when labels are made
        person(1),
        event(1, "ICD10CM//I10", SEEN),
        event(1, "ICD10CM//I50.9", "2023-06-01", recorded="2023-12-01"),  # before the index day, known after it
        person(2),
        event(2, "ICD10CM//I10", SEEN),
        event(2, "ICD10CM//I50.9", "2023-08-01", recorded="2024-07-05"),  # not known yet
    )
    assert at_t1(frame) == {1: True, 2: False, 3: False}


def test_death_is_labelled_and_the_dead_are_not(home: Path) -> None:
    frame = labels(
        person(0), event(0, "ICD10CM//I10", SEEN), event(0, "MEDS_DEATH", "2023-09-01"),
        person(1), event(1, "ICD10CM//I10", SEEN), event(1, "MEDS_DEATH", "2023-02-01"),
        task="death",
    )  # fmt: skip
    assert at_t1(frame) == {1: True}


def test_the_number_of_shards_does_not_change_the_labels(home: Path, tmp_path: Path) -> None:
    rows = [part for who in range(20) for part in (person(who), event(who, "ICD10CM//I10", SEEN))]
    rows += [event(who, "ICD10CM//I50.1", "2023-09-01") for who in range(0, 20, 3)]
    one = labels(*rows, shards=1)
    with deployment(tmp_path / "other", index_days="2", tasks='["heart_failure", "death"]'):
        four = labels(*rows, shards=4)
    assert one.equals(four)
    assert one["boolean_value"].sum() == 7


def test_finished_labels_are_kept_and_labels_of_another_salt_are_made_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml.settings import get_settings

    first = labels(*[part for who in range(30) for part in (person(who), event(who, "ICD10CM//I10", SEEN))])
    path = open_run().labels("heart_failure")
    stamp = path.stat().st_mtime_ns
    make_labels(open_run())
    assert path.stat().st_mtime_ns == stamp
    monkeypatch.setenv("VIGIL_SPLIT_SALT", "another")
    get_settings.cache_clear()
    make_labels(open_run())
    again = read_labels(open_run(), "heart_failure")
    assert again.drop("split").equals(first.drop("split"))
    assert not again["split"].equals(first["split"])


def test_labels_that_were_never_made_are_asked_for(home: Path) -> None:
    commit(as_events(person(0)))
    with pytest.raises(VigilError, match="no labels of 'stroke'"):
        read_labels(open_run(), "stroke")
