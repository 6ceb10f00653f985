"""The demo hospital in Postgres: loaded once, advanced day by day, its truth apart, its ceiling calibrated."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import psycopg2
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from ml.cohorts.runs import TrainingRun
from ml.common.db import connect, execute, fetch
from ml.common.errors import ConfigError, NotFoundError, RefusedError
from ml.demo import advance, load_demo, today
from ml.demo.ceiling import read_truth, true_risks
from ml.demo.commands import app
from ml.demo.describe import as_lines, describe, visible_effects
from ml.demo.load import status
from ml.demo.oracle import write_predictions
from ml.demo.process import END, FIRST_TODAY, START, day_of
from ml.extraction.snapshot import Snapshot
from ml.settings import Role, Settings

PATIENTS = 1_200


@pytest.fixture
def hospital(vigil: Settings) -> Settings:
    assert load_demo(PATIENTS, "general", 11)
    return vigil


def rows(query: str, role: Role = Role.LOAD) -> list[tuple[object, ...]]:
    with connect(role, readonly=True) as connection:
        return fetch(connection, query)


def fingerprint(table: str) -> object:
    query = {
        "condition_occurrence": "select count(*), sum(hashtext(c::text)) from ehr.condition_occurrence c",
        "death": "select count(*), sum(hashtext(d::text)) from ehr.death d",
    }[table]
    return rows(query)[0]


def test_a_hospital_lives_from_its_first_load_to_the_end_of_its_calendar(hospital: Settings) -> None:
    assert today() == FIRST_TODAY
    assert rows("select max(recorded_at)::date from ehr.condition_occurrence") == [(FIRST_TODAY,)]
    assert rows("select count(*) from ehr.person") == [(PATIENTS,)]

    # The same order again changes nothing, another is refused.
    assert not load_demo(PATIENTS, "general", 11)
    with pytest.raises(RefusedError, match="holds another hospital"):
        load_demo(PATIENTS, "general", 12)
    with pytest.raises(ConfigError, match="patients"):
        load_demo(0)

    # A night, twice; then a week.
    before = rows("select count(*) from ehr.condition_occurrence")
    assert advance(FIRST_TODAY + timedelta(days=1)) > 0
    assert advance(FIRST_TODAY + timedelta(days=1)) == 0
    assert advance(FIRST_TODAY + timedelta(days=8)) > 0
    assert rows("select count(*) from ehr.condition_occurrence") > before
    assert not load_demo(PATIENTS, "general", 11), "loading again must not turn the calendar back"
    assert today() == FIRST_TODAY + timedelta(days=8)

    for day, words in ((FIRST_TODAY, "before"), (END + timedelta(days=1), "beyond")):
        with pytest.raises(RefusedError, match=words):
            advance(day)
    assert today() == FIRST_TODAY + timedelta(days=8)

    advance(END)
    assert status().held_back == 0
    stepped = {table: fingerprint(table) for table in ("condition_occurrence", "death")}
    assert load_demo(PATIENTS, "general", 11, replace=True)
    assert today() == FIRST_TODAY
    advance(END)
    assert {table: fingerprint(table) for table in stepped} == stepped, "one leap must give what many steps gave"


def test_a_load_that_died_half_way_is_done_again(vigil: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ml.demo.load._finish_ehr", die)
        with pytest.raises(KeyboardInterrupt):
            load_demo(200, "general", 1)
    with pytest.raises(NotFoundError, match="not loaded"):
        today()
    assert load_demo(200, "general", 1)
    assert today() == FIRST_TODAY


def test_another_hospitals_tables_are_never_dropped_unasked(vigil: Settings) -> None:
    with connect(Role.LOAD) as ehr:
        execute(ehr, "create table ehr.person (person_id bigint)")
    with pytest.raises(RefusedError, match="not the demo"):
        load_demo(200, "general", 1)
    with pytest.raises(NotFoundError):
        advance(END)
    assert load_demo(200, "general", 1, replace=True)


def test_the_tables_are_omop_5_4_and_the_truth_is_hidden_from_extraction(hospital: Settings) -> None:
    assert rows("select cdm_version from ehr.cdm_source", Role.EXTRACT) == [("5.4",)]
    unknown = (
        "select count(*) from ehr.condition_occurrence o left join ehr.concept c"
        " on c.concept_id = o.condition_source_concept_id and c.concept_code = o.condition_source_value"
        " where c.concept_id is null"
    )
    assert rows(unknown, Role.EXTRACT) == [(0,)]
    vocabularies = "select distinct vocabulary_id from ehr.concept order by 1"
    assert rows(vocabularies, Role.EXTRACT) == [("ATC",), ("ICD10CM",), ("LOINC",)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        rows("select 1 from truth.onsets", Role.EXTRACT)
    assert rows("select count(*) >= 60 from truth.effects where target <> 'death'", Role.TRUTH) == [(True,)]
    keys = "select count(*) from pg_indexes where schemaname = 'ehr' and indexname like '%recorded'"
    assert rows(keys) == [(9,)]


@pytest.fixture
def run(hospital: Settings, tmp_path: Path) -> TrainingRun:
    days = tuple(FIRST_TODAY - timedelta(days=365 * k) for k in range(1, 6))
    return TrainingRun(Snapshot(FIRST_TODAY, "0" * 64, ()), days, tmp_path / "run")


def make_labels(run: TrainingRun, task: str, category: str) -> pl.DataFrame:
    """True labels of the people who are there and well at each index day."""
    people = pl.DataFrame(
        rows("select person_id, entry, coalesce(leaves, '2099-01-01'::date) from truth.people", Role.TRUTH),
        schema=["subject_id", "entry", "leaves"],
        orient="row",
    )
    with connect(Role.TRUTH, readonly=True) as truth:
        onsets = fetch(truth, "select person_id, onset from truth.onsets where category = %s", (category,))
        deaths = fetch(truth, "select person_id, onset from truth.onsets where category = 'death'")
    frames = []
    for day in run.index_days:
        first = day + timedelta(days=1)
        frame = people
        for name, dates in (("onset", onsets), ("died", deaths)):
            schema = {"subject_id": pl.Int64, name: pl.Date}
            frame = frame.join(pl.DataFrame(dates, schema=schema, orient="row"), on="subject_id", how="left")
        frame = frame.filter(
            (pl.col("entry") < first)
            & (pl.col("leaves") > first)
            & pl.col("died").fill_null(date(2099, 1, 1)).gt(first)
            & pl.col("onset").fill_null(date(2099, 1, 1)).gt(first)
        )
        outcome = pl.col("onset").is_between(first, first + timedelta(days=364)) & (
            pl.col("onset") <= pl.min_horizontal("leaves", pl.col("died").fill_null(date(2099, 1, 1)))
        )
        frames.append(
            frame.select(
                "subject_id",
                pl.lit(datetime.combine(first, datetime.min.time())).cast(pl.Datetime("us")).alias("prediction_time"),
                outcome.fill_null(False).alias("boolean_value"),
                pl.when(pl.col("subject_id") % 3 == 0)
                .then(pl.lit("train"))
                .otherwise(pl.lit("held_out"))
                .alias("split"),
            )
        )
    labels = pl.concat(frames)
    run.labels(task).parent.mkdir(parents=True, exist_ok=True)
    labels.write_parquet(run.labels(task))
    return labels


def test_the_oracle_says_where_none_of_the_tasks_is_its_own(run: TrainingRun) -> None:
    with pytest.raises(NotFoundError, match="no task of this run"):
        write_predictions(run)


def test_the_ceiling_is_calibrated_and_beats_chance(run: TrainingRun) -> None:
    truth = read_truth()
    for task, category in {"death": "death", "heart_failure": "I50", "type_2_diabetes": "E11"}.items():
        labels = make_labels(run, task, category)
        days = labels.select((pl.col("prediction_time").dt.date() - START).dt.total_days()).to_series().to_numpy()
        risk = true_risks(truth, task, labels["subject_id"].to_numpy(), days)
        came = labels["boolean_value"].to_numpy()
        assert ((risk >= 0) & (risk < 1)).all()
        assert roc_auc_score(came, risk) > 0.7
        # Poisson: within four standard deviations of what came.
        assert abs(risk.sum() - came.sum()) < 4 * np.sqrt(came.sum()) + 0.15 * came.sum(), task


def test_the_hospital_can_be_described_and_the_ceiling_knows_history_and_who_is_gone(hospital: Settings) -> None:
    outcomes = {o.task: o for o in describe()}
    assert set(outcomes) == {"death", "heart_failure", "stroke", "type_2_diabetes"}
    for outcome in outcomes.values():
        assert outcome.rows > 800
        assert 0.002 < outcome.incidence < 0.04
        assert 0.6 < outcome.ceiling < 0.97
        assert 0.5 < outcome.expected / outcome.events < 2
    assert outcomes["type_2_diabetes"].ceiling > outcomes["type_2_diabetes"].age_sex
    assert len(list(as_lines(list(outcomes.values())))) == 6
    seen, all_seen = visible_effects(least=30, together=5), visible_effects(least=0, together=0)
    assert 0 < seen.common < all_seen.common == seen.effects

    truth = read_truth()
    day = day_of(date(2022, 1, 1))
    days = np.full(PATIENTS, day)
    risk = true_risks(truth, "type_2_diabetes", truth.person_id, days)
    gone = (truth.onset[:, truth.process.death] < day) | (truth.leave <= day)
    assert gone.any()
    assert (risk[gone] == 0).all()
    r73, e11 = truth.onset[:, truth.process.index("R73")], truth.onset[:, truth.process.index("E11")]
    well = ~gone & (e11 >= day)
    assert risk[well & (r73 < day)].mean() > 2 * risk[well & (r73 >= day)].mean()


def test_the_commands_say_what_they_did(vigil: Settings) -> None:
    cli = CliRunner()
    first = cli.invoke(app, ["load", "--patients", "300"])
    assert first.exit_code == 0
    assert "loaded: 300 patients" in first.output
    assert "already loaded" in cli.invoke(app, ["load", "--patients", "300"]).output
    assert "today is 2025-01-02" in cli.invoke(app, ["advance", "--to", "2025-01-02"]).output
    told = json.loads(cli.invoke(app, ["status", "--json"]).output)
    assert (told["today"], told["end"], told["patients"]) == ("2025-01-02", END.isoformat(), 300)
    assert "held back" in cli.invoke(app, ["status"]).output
    assert len(json.loads(cli.invoke(app, ["truth", "effects", "--json"]).output)) >= 60
    refused = cli.invoke(app, ["advance", "--to", "2031-01-01"])
    assert isinstance(refused.exception, RefusedError)


def test_status_without_a_hospital_says_what_to_do(vigil: Settings) -> None:
    with pytest.raises(NotFoundError, match="vigil demo load"):
        status()
