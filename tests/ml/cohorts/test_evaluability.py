"""A task whose labels can carry no evaluation is set aside with the reason; the rest goes on."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from ml.cohorts import Evaluability, evaluability, make_labels, open_run, read_evaluability
from ml.common.errors import VigilError
from tests.ml.synthetic_log import as_events, commit, deployment, event, make_events, person


def times(
    *,
    events: int,
    others: int,
    split: str = "held_out",
    complete: bool = True,
    before_birth: int = 0,
    overlap: bool = False,
) -> pl.DataFrame:
    count = events + others
    frame = pl.DataFrame(
        {
            "subject_id": range(count),
            "prediction_time": [datetime(2023, 7, 2)] * count,
            "event": [row < events for row in range(count)],
            "complete": [complete] * count,
            "before_birth": [row < before_birth for row in range(count)],
            "split": [split] * count,
        },
        schema_overrides={"subject_id": pl.Int64, "event": pl.Boolean, "complete": pl.Boolean, "split": pl.String,
                          "before_birth": pl.Boolean},
    )  # fmt: skip
    return pl.concat([frame, frame.head(1).with_columns(split=pl.lit("train"))]) if overlap else frame


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (times(events=30, others=30), None),
        (times(events=0, others=0), "nobody is at risk"),
        (times(events=40, others=40, split="train"), "nobody is at risk among held-out patients"),
        (times(events=40, others=40, complete=False), "no window is over yet"),
        (times(events=0, others=40), "no events among held-out patients"),
        (times(events=40, others=0), "nothing but events among held-out patients"),
        (times(events=29, others=40), "fewer than 30 events among held-out patients"),
        (times(events=40, others=29), "fewer than 30 held-out patients without an event"),
        (times(events=40, others=40, before_birth=2), "labels that precede birth: 2"),
        (times(events=40, others=40, overlap=True), "subjects in more than one split: 1"),
        (times(events=40, others=40, split="test"), "rows in no split: 80"),
    ],
)
def test_the_reason_is_named(frame: pl.DataFrame, reason: str | None) -> None:
    found = evaluability("gout", frame)
    assert found.reason == reason
    assert found.evaluable is (reason is None)
    assert Evaluability.of(asdict(found)) == found


def test_rows_subjects_and_events_are_counted_by_split() -> None:
    once = times(events=3, others=5)
    found = evaluability("gout", pl.concat([once, once, times(events=9, others=9, complete=False)]))
    held_out = found.counts[-1]
    assert (held_out.split, held_out.subjects, held_out.rows, held_out.events, held_out.cases) == (
        "held_out", 8, 16, 6, 3,
    )  # fmt: skip
    assert found.events == 6


def test_a_run_with_a_task_without_cases_makes_the_others_and_says_why(tmp_path: Path) -> None:
    with deployment(tmp_path, index_days="4", tasks='["heart_failure", "anaphylaxis", "preterm_birth"]'):
        commit(make_events(3000, 25))
        run = open_run()
        counts = make_labels(run)
        found = read_evaluability(run)
    assert found["heart_failure"].evaluable
    assert found["anaphylaxis"].reason == "no events among held-out patients"
    assert found["preterm_birth"].reason == "nobody is at risk"
    assert counts["preterm_birth"] == 0
    assert counts["heart_failure"] == sum(count.rows for count in found["heart_failure"].counts)


def test_labels_that_precede_the_birth_known_today_are_named(tmp_path: Path) -> None:
    with deployment(tmp_path, index_days="2", tasks='["heart_failure", "death"]'):
        rows = [person(0), event(0, "ICD10CM//I10", "2023-01-10")]
        late = event(0, "MEDS_BIRTH", "2023-12-01", recorded="2024-01-01")
        born = as_events(pl.concat([*rows, late]))
        again = pl.col("code") == "MEDS_BIRTH"  # the later birth is a version of the first
        key = born.filter(again).sort("recorded_at")["source_key"][0]
        commit(born.with_columns(source_key=pl.when(again).then(pl.lit(key)).otherwise("source_key")))
        make_labels(open_run())
        assert read_evaluability(open_run())["death"].reason == "labels that precede birth: 1"


def test_the_evaluability_of_labels_that_were_never_made_is_refused(tmp_path: Path) -> None:
    with deployment(tmp_path):
        commit(as_events(person(0)))
        with pytest.raises(VigilError, match="there are no labels in run"):
            read_evaluability(open_run())
