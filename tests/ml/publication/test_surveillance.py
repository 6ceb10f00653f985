"""Surveillance of outcomes: on a hospital that lives on, a good model is left alone and a bad one is noticed."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ml.cli import app
from ml.cohorts import TrainingRun, load_task, prediction_time, task_times
from ml.common.db import connect, fetch
from ml.demo import advance, load_demo
from ml.demo.process import FIRST_TODAY
from ml.evaluation.results import Estimate
from ml.extraction import Snapshot, load_snapshot
from ml.publication import report_surveillance
from ml.publication.pseudonyms import pseudonym_of
from ml.publication.releases import release
from ml.publication.report import write_report
from ml.publication.surveillance import (
    Answer,
    Due,
    alerts_of,
    first_of_months,
    is_due,
    judge_scores,
    told_counts,
    watch_outcomes,
)
from ml.publication.surveillance_rows import Metrics, OutcomeAlert, Watched, standing
from ml.publication.types import RISK_SCORES, Origin
from ml.registry import register
from ml.settings import Role, Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml.invented_runs import make_run, task_result
from tests.ml.pages import check_whole, words_of

TASK = """
description: any visit within 30 days
predicates:
  index_day: {code: VIGIL//INDEX_DAY}
  outcome: {code: {regex: '^VISIT//'}}
trigger: index_day
windows:
  target: {start: trigger, end: start + 30d, start_inclusive: true, end_inclusive: false, index_timestamp: start,
           label: outcome}
"""
GOOD, BAD, LATER = 1, 2, 3  # versions
SAID, SAID_BADLY, TOO_LATE = FIRST_TODAY, date(2025, 1, 10), date(2025, 2, 20)
LAST = date(2025, 3, 1)


@pytest.fixture
def living(tracked: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The demo hospital on its first day, with a task of its own."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "visit_soon.yaml").write_text(TASK)
    settings = {"TASK_FOLDER": str(tmp_path / "tasks"), "TASKS": '["visit_soon"]', "BOOTSTRAP": "100", "THREADS": "1"}
    for name, value in {**settings, "SHARDS": "2"}.items():
        monkeypatch.setenv(f"VIGIL_{name}", value)
    get_settings.cache_clear()
    load_demo(900, "general", 11)
    hospital.night(FIRST_TODAY)
    return get_settings()


def followed(snapshot: Snapshot, day: date) -> pl.DataFrame:
    """``subject_id``, ``event``, and ``visits`` of the year before, of everybody in scope on a day."""
    times = task_times(TrainingRun(snapshot, (day,), Path("nowhere")), (load_task("visit_soon"),))["visit_soon"]
    view = hospital.view(snapshot, day).filter(pl.col("code").str.starts_with("VISIT//"))
    end = prediction_time(day)
    recent = view.filter((pl.col("time") < end) & (pl.col("time") >= end - timedelta(days=365)))
    counts = recent.group_by("subject_id").agg(visits=pl.len().clip(upper_bound=4))
    return times.join(counts, on="subject_id", how="left").with_columns(pl.col("visits").fill_null(0))


def honest_risks(day: date) -> pl.DataFrame:
    """Risks of a day by what was known before: the share with a visit, by visits of the year before."""
    snapshot = load_snapshot(FIRST_TODAY)
    learnt = pl.concat([followed(snapshot, FIRST_TODAY - timedelta(days=back)) for back in (60, 120, 180)])
    shares = learnt.group_by("visits").agg(risk=pl.col("event").mean())
    return followed(snapshot, day).join(shares, on="visits", how="left").sort("subject_id")


def publish(day: date, version: int, risks: pl.DataFrame) -> str:
    """A release of a day by a version."""
    snapshot = load_snapshot(FIRST_TODAY)
    count = risks.height
    columns: dict[str, Any] = {
        "pseudonym": [pseudonym_of(subject) for subject in risks["subject_id"]],
        "outcome": ["visit_soon"] * count,
        "horizon_days": pa.array([30] * count, pa.int32()),
        "risk": pa.array(risks["risk"].to_list(), pa.float32()),
        "in_scope": [True] * count,
        "scope_reason": pa.array([None] * count, pa.string()),
    }
    facts = {"model_name": get_settings().model_name, "decision": "human"}
    rows = pa.table(columns)
    constants = {"as_of": day, "model_version": version, "snapshot_digest": snapshot.digest, **facts}
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), count))
    made = datetime.combine(day, datetime.min.time(), UTC)
    return release(RISK_SCORES, rows, Origin(day, "night", snapshot.digest, made, facts, version), {}).release_id


def kept() -> list[tuple[Any, ...]]:
    """Everything in the table, the time of judging too."""
    with connect(Role.READ, readonly=True) as connection:
        query = "select * from published.outcome_surveillance order by model_version, month"
        return fetch(connection, query)


def test_a_bad_model_raises_an_alert_a_good_one_does_not_and_what_is_not_over_is_not_counted(
    living: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    register(make_run(task_result("visit_soon", auroc=0.62), seed=301, as_of=date(2024, 12, 1)))
    register(make_run(task_result("visit_soon", auroc=0.75), seed=302, as_of=date(2024, 12, 1)))
    register(make_run(task_result("visit_soon"), seed=303, as_of=date(2025, 2, 15)))
    good = honest_risks(SAID)
    answered = publish(SAID, GOOD, good)
    assert not watch_outcomes().over  # thirty days later nobody knows yet
    assert kept() == []

    advance(LAST)
    snapshot = hospital.night(LAST)
    rng = np.random.default_rng(1)
    bad = followed(snapshot, SAID_BADLY)
    shuffled = rng.permutation(rng.choice(good["risk"].to_numpy(), bad.height))
    publish(SAID_BADLY, BAD, bad.with_columns(risk=pl.Series(np.minimum(shuffled * 2.5, 0.95))))
    publish(date(2025, 1, 12), LATER, bad.with_columns(risk=pl.lit(0.1)))  # a backfill: trained on what came later
    publish(TOO_LATE, GOOD, followed(snapshot, TOO_LATE).with_columns(risk=pl.lit(0.1)))

    with caplog.at_level(logging.WARNING):
        found = watch_outcomes()
    assert (found.judged, found.rows, found.over) == (2, 2, True)
    rows = {row["model_version"]: row for row in shown()["rows"]}
    assert {(version, row["month"]) for version, row in rows.items()} == {(GOOD, "2024-12"), (BAD, "2025-01")}

    truth = followed(snapshot, SAID)
    assert rows[GOOD]["n"] == good.height == truth.height
    assert rows[GOOD]["events"] == truth["event"].sum()
    ratio = truth["event"].sum() / good["risk"].sum()
    assert rows[GOOD]["observed_expected"]["value"] == pytest.approx(ratio, rel=1e-4)
    assert rows[GOOD]["release_id"] == answered
    assert rows[GOOD]["alerts"] == []
    assert rows[BAD]["alerts"] == ["calibration", "discrimination"]
    assert len(found.alerts) == 1
    assert "visit_soon, 2025-01, version 2: observed over expected events is 0." in found.alerts[0]
    assert "it was 0.750 when the version was let through" in caplog.text

    before = kept()
    assert watch_outcomes().judged == 0  # nothing new is known
    assert watch_outcomes(again=True).judged == 2
    assert kept() == before  # not even the time of judging

    page = write_report(LAST)
    html, text = page.read_text(), words_of(page)
    assert html.count("observed over expected events and AUROC of 2 months") == 1
    assert "Alert. visit_soon, 2025-01, version 2" in text
    check_whole(html)
    for told in (html, json.dumps(shown()), caplog.text):
        assert pseudonym_of(good["subject_id"][0]) not in told

    corrected = publish(SAID, GOOD, good.with_columns(pl.col("risk") * 1.01))  # the day is published again
    assert watch_outcomes().judged == 1
    assert {row["release_id"] for row in shown()["rows"] if row["model_version"] == GOOD} == {corrected}


def shown() -> dict[str, Any]:
    """What the command prints as JSON; its exit code is 8 where an alert stands, else 0."""
    result = CliRunner().invoke(app, ["show", "surveillance", "--json"])
    found: dict[str, Any] = json.loads(result.stdout)
    assert isinstance(result.exception, OutcomeAlert) == bool(found["alerts"])
    assert OutcomeAlert.exit_code == 8
    return found


def test_before_anything_was_judged_the_command_says_so_and_exits_well(vigil: Settings) -> None:
    result = CliRunner().invoke(app, ["show", "surveillance"])
    assert result.exit_code == 0
    assert "No published score has been followed up yet" in result.output


def watched(**change: Any) -> Watched:
    base = Watched(
        model_name="m",
        model_version=1,
        month=date(2024, 1, 1),
        outcome="stroke",
        horizon_days=365,
        as_of=date(2024, 1, 3),
        release_id="r",
        snapshot_as_of=date(2025, 1, 10),
        n=900,
        events=60,
    )
    return replace(base, **change)


def test_of_a_month_the_first_day_is_judged_unless_it_lies_before_the_training() -> None:
    days = [Answer(date(2024, 1, day), f"r{day}", version) for day, version in ((9, 1), (3, 1), (12, 2), (20, 2))]
    days.append(Answer(date(2024, 2, 2), "next", 1))
    trained = {1: date(2024, 1, 3), 2: date(2024, 1, 15)}
    assert {answer.release_id for answer in first_of_months(days, trained)} == {"r3", "r20", "next"}
    assert first_of_months(days, {1: date(2024, 3, 1)}) == []  # version 2 is unknown, version 1 came later


@pytest.mark.parametrize(
    ("held", "today", "due"),
    [
        (None, date(2025, 1, 2), True),
        (watched(), date(2025, 1, 11), False),
        (watched(), date(2025, 2, 7), True),  # four weeks later: late records may have come
        (watched(release_id="another"), date(2025, 1, 11), True),
        (watched(snapshot_as_of=date(2025, 3, 30)), date(2025, 4, 1), False),
        (watched(snapshot_as_of=date(2025, 3, 30)), date(2025, 4, 2), True),  # the last look, 90 days after the end
        (watched(snapshot_as_of=date(2025, 4, 2)), date(2027, 1, 1), False),  # settled
    ],
)
def test_a_month_is_judged_again_until_it_is_settled(held: Watched | None, today: date, due: bool) -> None:
    answer = Answer(date(2024, 1, 3), "r", 1)
    assert is_due(Due(answer, "stroke", 365), held, today) is due


def test_what_is_told_of_patients_and_events_is_never_a_few_nor_gives_a_few_away() -> None:
    y = np.arange(500) < 40
    assert told_counts(y, 0, 11) == (500, 40)
    assert told_counts(y, 25, 11) == (500, 40)
    assert told_counts(y, 4, 11) == (None, 40)  # four of the scored had it during the delay
    assert told_counts(np.arange(500) < 7, 0, 11) == (500, None)
    assert told_counts(np.arange(500) < 495, 0, 11) == (500, None)
    assert told_counts(np.arange(500) < 0, 0, 11) == (500, 0)


def test_too_few_events_have_a_reason_instead_of_metrics_and_raise_no_alert() -> None:
    found, reason = judge_scores(np.arange(500) < 29, np.full(500, 0.5))
    assert reason == "fewer than 30 patients with the outcome"
    assert found == Metrics()
    assert alerts_of(found, Estimate(value=0.9, low=0.9, high=0.9), Settings()) == ()


@pytest.mark.parametrize(
    ("ratio", "auroc", "alerts"),
    [
        ((1.6, 1.3, 2.0), (0.8, 0.75, 0.85), ("calibration",)),
        ((0.75, 0.57, 0.93), (0.8, 0.75, 0.85), ()),  # a month of fifty events: one in twenty is like that
        ((1.6, 0.9, 2.4), (0.8, 0.75, 0.85), ()),  # chance may do that
        ((1.1, 1.05, 1.15), (0.8, 0.75, 0.85), ()),  # surely off, but not by much
        ((0.6, 0.5, 0.7), (0.7, 0.65, 0.77), ("calibration", "discrimination")),
        ((1.0, 0.9, 1.1), (0.7, 0.65, 0.79), ()),  # the upper bound is within the margin
    ],
)
def test_alerts_need_a_distance_that_matters_and_that_chance_does_not_explain(
    ratio: tuple[float, float, float], auroc: tuple[float, float, float], alerts: tuple[str, ...]
) -> None:
    found, rank = (Estimate(value=value, low=low, high=high) for value, low, high in (ratio, auroc))
    approved = Estimate(value=0.8, low=0.7, high=0.9)
    assert alerts_of(Metrics(observed_expected=found, auroc=rank), approved, Settings()) == alerts


def test_an_alert_stands_until_a_newer_month_is_judged() -> None:
    old, new = watched(alerts=("calibration",)), watched(month=date(2024, 2, 1))
    assert standing([old]) == [old]
    assert standing([old, new]) == []
    assert standing([old, replace(new, reason="fewer than 30 patients with the outcome")]) == [old]
    other = replace(old, outcome="death")
    assert standing([old, new, other]) == [other]


def test_a_picture_is_drawn_for_what_was_judged_alone() -> None:
    e = Estimate(value=1.1, low=0.9, high=1.3)
    metrics = Metrics(observed_expected=e, auroc=Estimate(value=0.7, low=0.6, high=0.8))
    rows = [watched(month=date(2020 + k // 12, k % 12 + 1, 1), metrics=metrics, approved_auroc=0.75) for k in range(30)]
    found = report_surveillance.pictures([*rows, watched(outcome="death", reason="too few")], 1.25)
    assert set(found) == {"stroke"}
    assert found["stroke"].count("<circle") == 2 * 24
    assert report_surveillance.pictures([], 1.25) == {}
