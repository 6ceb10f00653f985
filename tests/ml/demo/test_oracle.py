"""The oracle reads the record alone, is calibrated, and knows from it what it hides."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from ml.cohorts import load_task, make_labels, open_run, task_names
from ml.cohorts.runs import TrainingRun
from ml.cohorts.views import COLUMNS, views_at
from ml.demo.ceiling import true_risks, truth_of
from ml.demo.events import commit_hospital
from ml.demo.generate import Order, process_of
from ml.demo.oracle import predictions, risks
from ml.demo.outcomes import Outcome, outcome_of
from ml.demo.posterior import infer, trait_points
from ml.demo.process import END, START, load_process
from ml.demo.recorded import recorded
from ml.demo.simulate import NEVER
from ml.settings import other_settings

TASKS = ("death", "heart_failure", "pneumonia", "type_2_diabetes")
DAY = date(2020, 1, 1)
PROCESS = load_process()


def outcomes(*names: str) -> dict[str, Outcome]:
    found = {name: outcome_of(PROCESS, load_task(name)) for name in names}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRun, Path]:
    home = tmp_path_factory.mktemp("oracle")
    own = {"data": home, "event_log": home / "event_log", "shards": 2, "tasks": TASKS, "index_step": 365}
    with other_settings(**own, index_days=5):
        commit_hospital(Order(4_000, "general", 7), END, home / "truth")
        run = open_run(END)
        make_labels(run)
    return run, home


@pytest.fixture(scope="module")
def answers(run: tuple[TrainingRun, Path]) -> pl.DataFrame:
    own = {"data": run[1], "event_log": run[1] / "event_log", "shards": 2}
    with other_settings(**own):
        return predictions(run[0], PROCESS, outcomes(*TASKS), ("train", "tuning", "held_out"))


@pytest.mark.parametrize("task", TASKS)
def test_it_is_calibrated_without_ever_having_seen_an_outcome(answers: pl.DataFrame, task: str) -> None:
    mine = answers.filter(pl.col("task") == task)
    risk, came = mine["predicted_boolean_probability"].to_numpy(), mine["boolean_value"].to_numpy()
    assert ((risk >= 0) & (risk < 1)).all()
    for upper in (risk >= np.quantile(risk, 0.9), risk < np.quantile(risk, 0.9)):
        # Poisson: within four standard deviations of what came.
        assert abs(risk[upper].sum() - came[upper].sum()) < 4 * np.sqrt(came[upper].sum()) + 0.1 * came[upper].sum()


def test_it_stays_below_the_true_state_and_above_age_alone(
    run: tuple[TrainingRun, Path], answers: pl.DataFrame
) -> None:
    truth = truth_of("general", run[1] / "truth")
    for task in ("death", "heart_failure", "type_2_diabetes"):
        mine = answers.filter(pl.col("task") == task)
        days = mine.select((pl.col("prediction_time").dt.date() - START).dt.total_days()).to_series().to_numpy()
        subjects, came = mine["subject_id"].to_numpy(), mine["boolean_value"].to_numpy()
        age = days - truth.born[np.searchsorted(truth.person_id, subjects)]
        found = roc_auc_score(came, mine["predicted_boolean_probability"].to_numpy())
        assert roc_auc_score(came, age) < found < roc_auc_score(came, true_risks(truth, task, subjects, days)) + 0.01


def test_it_answers_for_exactly_the_labelled_rows_of_the_splits(
    run: tuple[TrainingRun, Path], answers: pl.DataFrame
) -> None:
    for task in TASKS:
        labels = pl.read_parquet(run[0].labels(task))
        mine = answers.filter(pl.col("task") == task)
        keys = ["subject_id", "prediction_time"]
        assert mine.select(keys).sort(keys).equals(labels.select(keys).sort(keys))


def test_the_same_record_gives_the_same_risks_whoever_else_is_in_it(run: tuple[TrainingRun, Path]) -> None:
    with other_settings(data=run[1], event_log=run[1] / "event_log", shards=2):
        view = next(iter(views_at(run[0].snapshot, (run[0].test_day,), 0)))
    some = view["subject_id"].unique().sort()[:50]
    alone = risks(PROCESS, outcomes("death"), view.filter(pl.col("subject_id").is_in(some.implode())), run[0].test_day)
    among = risks(PROCESS, outcomes("death"), view, run[0].test_day)
    both = alone.join(among, on="subject_id", suffix="_among")
    assert np.allclose(both["death"], both["death_among"])


def test_what_is_believed_of_traits_and_of_hidden_diseases_is_true_on_average(run: tuple[TrainingRun, Path]) -> None:
    truth = truth_of("general", run[1] / "truth")
    with other_settings(data=run[1], event_log=run[1] / "event_log", shards=2):
        view = next(iter(views_at(run[0].snapshot, (run[0].test_day,), 0)))
    posterior = infer(PROCESS, recorded(PROCESS, view, run[0].test_day))
    record, row = posterior.record, np.searchsorted(truth.person_id, posterior.record.subjects)
    assert np.allclose(posterior.weights.sum(axis=1), 1)
    believed = posterior.weights @ trait_points()
    for trait in range(4):  # of a true posterior's mean the regression of the truth on it has slope one
        assert 0.75 < np.polyfit(believed[:, trait], truth.traits[row, trait], 1)[0] < 1.25
    there, unrecorded = truth.began[row][:, :-1] < record.today, record.first >= NEVER
    for kind in (PROCESS.chronic, ~PROCESS.chronic):
        hidden_ = (there & unrecorded)[:, kind].sum()
        assert 0.85 < (posterior.histories.unseen * unrecorded)[:, kind].sum() / hidden_ < 1.15
    wrong = ~there & ~unrecorded
    assert 0.6 < (1 - posterior.known)[~unrecorded].sum() / wrong.sum() < 1.4
    gone = truth.leave[row] < record.today
    assert 0.7 < (1 - posterior.here).sum() / gone.sum() < 1.3


def person(subject: int, *events: tuple[str, date, float | None]) -> pl.DataFrame:
    """A woman of 55 who came five years ago, has visited twice a year since, and her events."""
    years = [date(2015, 1, 5) + timedelta(days=182 * k) for k in range(10)]
    rows = [("MEDS_BIRTH", date(1964, 6, 1), None), ("SITE//A", None, None), ("GENDER//F", None, None)]
    rows += [("VISIT//outpatient", day, None) for day in years]
    return pl.DataFrame(
        [
            (subject, None if day is None else datetime.combine(day, datetime.min.time()), code, value)
            for code, day, value in [*rows, *events]
        ],
        schema=dict(zip(COLUMNS, (pl.Int64, pl.Datetime("us"), pl.String, pl.Float32), strict=True)),
        orient="row",
    )


def one_risk(task: str, *events: tuple[str, date, float | None]) -> float:
    return float(risks(PROCESS, outcomes(task), person(1, *events), DAY)[task][0])


def test_a_disease_of_which_the_outcome_follows_raises_the_risk() -> None:
    raised = ("ICD10CM//R73.03", date(2018, 1, 5), None), ("ICD10CM//R73.03", date(2018, 7, 6), None)
    assert one_risk("type_2_diabetes", *raised) > 2 * one_risk("type_2_diabetes")


def test_a_code_that_never_came_again_is_believed_less() -> None:
    once = ("ICD10CM//C34.90", date(2015, 1, 5), None)
    twice = ("ICD10CM//C34.90", date(2019, 7, 1), None)
    assert one_risk("death", once) < 0.25 * one_risk("death", once, twice)


def test_sugar_that_no_diagnosis_explains_tells_of_a_diabetes_that_may_be_written_down() -> None:
    sugar = [("LOINC//4548-4", date(2019, month, 5), 8.2) for month in (7, 8, 9)]
    plain = [("LOINC//4548-4", date(2019, month, 5), 5.4) for month in (7, 8, 9)]
    assert one_risk("type_2_diabetes", *sugar) > 5 * one_risk("type_2_diabetes", *plain)


def test_who_has_not_been_seen_for_long_may_have_left() -> None:
    early = person(1).filter(pl.col("time").is_null() | (pl.col("time") < datetime(2017, 1, 1)))
    gone = risks(PROCESS, outcomes("death"), early, DAY)["death"][0]
    assert gone < 0.9 * one_risk("death")


def test_in_the_enriched_hospital_new_diabetes_and_weight_loss_tell_of_the_cancer() -> None:
    process = process_of("pancreas")
    outcome = outcome_of(process, load_task("pancreatic_cancer"))
    assert outcome is not None
    signs = [("ICD10CM//E11.9", date(2019, 8, 1), None), ("ICD10CM//R63.4", date(2019, 10, 1), None)]
    well, ill = (risks(process, {"c": outcome}, person(1, *events), DAY)["c"][0] for events in ([], signs))
    assert ill > 10 * well


def test_records_without_visits_tests_or_anything_known_have_a_risk() -> None:
    bare = person(1).filter(pl.col("code") == "MEDS_BIRTH")
    odd = person(2, ("LOINC//0000-0", DAY, 1.0), ("ICD10CM//U99.9", DAY, None), ("LOINC//4548-4", DAY, None))
    slipped = person(3, ("LOINC//4548-4", DAY, 54.0), ("LOINC//2160-0", DAY, 0.0))
    dead = person(4, ("MEDS_DEATH", DAY, None))
    found = risks(PROCESS, outcomes(*TASKS), pl.concat([bare, odd, slipped, dead]), DAY)
    assert found["subject_id"].to_list() == [1, 2, 3]
    values = found.select(TASKS).to_numpy()
    assert ((values > 0) & (values < 1)).all()
    assert risks(PROCESS, outcomes("death"), bare.clear(), DAY).is_empty()


def test_it_knows_the_tasks_of_diagnoses_and_of_death_and_no_others() -> None:
    known = outcomes(*task_names())
    assert {"death_60_plus", "arrhythmia", "pancreatic_cancer", "sleep_disorder"} <= set(known)
    assert not {"readmission", "pain_treatment", "preterm_birth", "anaphylaxis"} & set(known)
    arrhythmia = known["arrhythmia"]
    assert {PROCESS.diseases[d].category for d in arrhythmia.diseases} == {"I44", "I47", "I48", "I49"}
    assert 0 < arrhythmia.shares[PROCESS.index("I44"), 0] < 1
    assert arrhythmia.shares[PROCESS.index("I44"), 1] == 0
    assert (arrhythmia.first, arrhythmia.delay, arrhythmia.horizon) == (True, 3, 365)
