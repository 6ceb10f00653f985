"""Labels on event logs whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from ml.cohorts import make_labels, open_run, read_labels, read_times, temporal_hold_out
from ml.common.errors import VigilError
from ml.extraction import read_view
from tests.ml.synthetic_log import END, as_events, commit, deployment, event, make_events, person

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


def times_at_t1(*rows: pl.DataFrame, task: str = "heart_failure") -> dict[int, tuple[bool, float, str | None, bool]]:
    labels(*rows, task=task)
    frame = read_times(open_run(), task).filter(pl.col("index") == 1)
    return {
        row[0]: row[1:] for row in frame.select("subject_id", "event", "observed_days", "censored", "complete").rows()
    }


def test_time_to_event_ends_with_the_outcome_with_death_or_with_the_window(home: Path) -> None:
    ever = [part for who in range(4) for part in (person(who), event(who, "ICD10CM//I10", SEEN))]
    found = times_at_t1(
        *ever,
        event(1, "ICD10CM//I50.9", "2023-07-12T12:00"),
        event(1, "MEDS_DEATH", "2023-08-01"),
        event(2, "MEDS_DEATH", "2023-08-01"),
        event(2, "ICD10CM//I50.9", "2024-07-05"),
        event(3, "MEDS_DEATH", "2023-06-20", recorded="2023-08-01"),  # dead on the index day, which nobody knew
    )
    assert found == {
        1: (False, 365.0, None, True),
        2: (True, 10.5, None, True),
        3: (False, 30.0, "death", True),
        4: (False, 0.0, "death", True),
    }
    assert at_t1(read_labels(open_run(), "heart_failure")) == {1: False, 2: True, 3: False, 4: False}


def test_an_index_day_whose_window_is_not_over_has_times_and_no_labels(tmp_path: Path) -> None:
    with deployment(tmp_path, index_days="3", index_step="200", tasks='["heart_failure"]'):
        ever = [part for who in range(3) for part in (person(who), event(who, "ICD10CM//I10", SEEN))]
        commit(
            as_events(
                pl.concat([*ever, event(1, "ICD10CM//I50.9", "2024-01-01"), event(2, "MEDS_DEATH", "2024-01-01")])
            )
        )
        make_labels(open_run())
        newest = read_times(open_run(), "heart_failure").filter(pl.col("index") == 1)
        assert newest.select("event", "observed_days", "censored", "complete").rows() == [
            (False, 200.0, "end of record", False),
            (True, 18.0, None, False),
            (False, 18.0, "death", False),
        ]
        assert read_labels(open_run(), "heart_failure")["index"].unique().to_list() == [2]


def test_an_outcome_during_the_delay_leaves_no_label(tmp_path: Path) -> None:
    with deployment(tmp_path, index_days="2", tasks='["lung_cancer", "pneumonia"]'):
        ever = [
            part
            for who in range(4)
            for part in (person(who), event(who, "ICD10CM//I10", SEEN), event(who, "ICD10CM//I10", "2015-01-01"))
        ]
        outcomes = [event(1, "ICD10CM//C34.90", "2023-07-04T23:59"), event(2, "ICD10CM//C34.90", "2023-07-05")]
        commit(as_events(pl.concat([*ever, *outcomes, event(3, "ICD10CM//J18.9", "2023-07-02")])))
        make_labels(open_run())
        assert at_t1(read_labels(open_run(), "lung_cancer")) == {1: False, 3: True, 4: False}
        assert at_t1(read_labels(open_run(), "pneumonia")) == {1: False, 2: False, 3: False, 4: True}


def test_an_outcome_that_may_come_again_keeps_its_subjects(tmp_path: Path) -> None:
    with deployment(tmp_path, index_days="2", tasks='["pneumonia"]'):
        before, again = event(0, "ICD10CM//J18.9", SEEN), event(0, "ICD10CM//J18.9", "2023-09-01")
        commit(as_events(pl.concat([person(0), before, again])))
        make_labels(open_run())
        assert at_t1(read_labels(open_run(), "pneumonia")) == {1: True}


def hold_out_rows() -> pl.DataFrame:
    rows = [(1, T1, "held_out", 1), (2, T1, "train", 1), (1, datetime(2022, 7, 2), "held_out", 2)]
    rows += [(2, datetime(2022, 7, 2), "train", 2)]
    return pl.DataFrame(rows, schema=["subject_id", "prediction_time", "split", "index"], orient="row")


def test_the_temporal_hold_out_is_held_out_patients_at_the_newest_day() -> None:
    assert temporal_hold_out(hold_out_rows(), 365).rows() == [(1, T1, "held_out", 1)]


def test_a_horizon_that_reaches_into_the_temporal_hold_out_fails() -> None:
    with pytest.raises(VigilError, match="reach 1 days into the temporal hold-out"):
        temporal_hold_out(hold_out_rows(), 366)
    with pytest.raises(VigilError, match="split is broken"):
        temporal_hold_out(hold_out_rows().with_columns(split=pl.Series(["held_out", "train", "train", "train"])), 365)


def test_cases_and_controls_have_the_same_calendar_time_and_follow_up(tmp_path: Path) -> None:
    """What drawing an index at each case's own event would give is shown beside it."""
    with deployment(tmp_path, index_days="5", tasks='["heart_failure"]'):
        commit(make_events(3000, 25))
        make_labels(open_run())
        frame, times = read_labels(open_run(), "heart_failure"), read_times(open_run(), "heart_failure")
        outcome = read_view(open_run().snapshot, END, 0).filter(pl.col("code") == "ICD10CM//I50.9")
    cases, controls = frame.filter(pl.col("boolean_value")), frame.filter(~pl.col("boolean_value"))
    assert cases.height > 100
    assert set(cases["prediction_time"]) == set(controls["prediction_time"])
    assert frame["prediction_time"].n_unique() == 5
    assert times["complete"].all()
    assert (times.filter(~pl.col("event") & pl.col("censored").is_null())["observed_days"] == 365).all()
    assert abs(auroc_of_calendar_time(cases["prediction_time"], controls["prediction_time"]) - 0.5) < 0.06
    last_seen = pl.Series([datetime(2024, 6, 1)] * 100)
    assert auroc_of_calendar_time(outcome["time"], last_seen) < 0.1


def auroc_of_calendar_time(cases: pl.Series, controls: pl.Series) -> float:
    """How well the date alone tells cases from controls: 0.5 is not at all."""
    ranks = pl.concat([cases, controls]).dt.epoch("s").rank()[: len(cases)]
    return float((ranks.sum() - len(cases) * (len(cases) + 1) / 2) / (len(cases) * len(controls)))
