"""The leak canary: right censoring stays below the oracle, unsuspected; wrong censoring is caught and blocks the gate.

Wrong censoring is planted where it happens: features read from the view of a later day, by the code that reads them
from the right one.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from ml.cohorts.labels import make_labels
from ml.cohorts.runs import TrainingRun, open_run
from ml.evaluation import evaluate
from ml.evaluation.baselines import train_baselines
from ml.evaluation.features import Features, make_features
from ml.evaluation.intervals import judge_rows
from ml.evaluation.judge import compare
from ml.evaluation.leaks import above_oracle, code_strength, single_codes
from ml.evaluation.metrics import patient_counts
from ml.evaluation.results import Evaluation
from ml.evaluation.rows import JudgedRows, read_judged, read_labels, write_predictions
from ml.registry import gates
from ml.settings import Settings, get_settings
from tests.ml.evaluation.invented_hospital import AS_OF, answer, commit, invented_events, true_risks

TASK = "heart_failure"


def hospital_with_oracle(revealing: float = 0.0) -> TrainingRun:
    """A run whose heart failures come from a known process, with the oracle's answers beside Med-BERT's."""
    events = invented_events(1600, revealing=revealing)
    commit(events)
    run = open_run(AS_OF)
    make_labels(run)
    answer(run, "medbert", noise=4.0)
    write_predictions(run, "oracle", [true_risks(read_labels(run, TASK), events)])
    return run


def features_of(run: TrainingRun, labels: pl.DataFrame, days_too_late: int) -> Features:
    """Features of the label rows, from the views that many days after their index days."""
    late = timedelta(days=days_too_late)
    shifted = replace(run, index_days=tuple(day + late for day in run.index_days))
    found = make_features(shifted, [labels.with_columns(pl.col("prediction_time") + late)])
    return replace(found, rows=found.rows.with_columns(pl.col("prediction_time") - late))


def evaluated(run: TrainingRun, days_too_late: int) -> Evaluation:
    """The evaluation of baselines that saw features of some days too late."""
    labels = read_labels(run, TASK)
    features = features_of(run, labels, days_too_late)
    train_baselines(run, features, {TASK: labels})
    return compare(run, {TASK: read_judged(run, TASK, labels)}, single_codes(TASK, features, labels))


def no_leak_check(found: Evaluation) -> bool:
    (check,) = (check for check in gates.judge(found, get_settings()).checks if check.name == "no_leak")
    assert check.blocking
    return bool(check.passed)


def test_right_censoring_stays_below_the_oracle_and_wrong_censoring_is_caught(place: Settings) -> None:
    run = hospital_with_oracle()
    honest = evaluated(run, days_too_late=0)
    oracle = honest.tasks[TASK].all_days["oracle"].auroc
    assert oracle is not None
    for name, model in honest.tasks[TASK].all_days.items():
        assert model.auroc is not None
        assert name == "oracle" or model.auroc.value < oracle.value
    assert honest.warnings == ()
    assert no_leak_check(honest)

    leaking = evaluated(run, days_too_late=365)
    above = [warning.message for warning in leaking.warnings if warning.kind == "above_oracle"]
    assert any("'logistic_regression'" in message for message in above)
    assert any("'lightgbm'" in message for message in above)
    assert not any("'age_sex'" in message for message in above)
    codes = [warning.message for warning in leaking.warnings if warning.kind == "single_code"]
    assert any("ICD10CM//I50" in message for message in codes)  # the outcome's own code
    assert not any("ICD10CM//M" in message or "ICD10CM//I10" in message for message in codes)
    assert not no_leak_check(leaking)
    assert not gates.judge(leaking, get_settings()).passed


def test_four_months_too_late_are_caught_though_most_events_are_later(place: Settings) -> None:
    run = hospital_with_oracle()
    leaking = evaluated(run, days_too_late=120)
    assert {warning.kind for warning in leaking.warnings} >= {"single_code"}
    assert not no_leak_check(leaking)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_a_code_that_tells_the_outcome_by_itself_is_named_even_where_it_tells_of_some_events_alone(
    place: Settings, share: float
) -> None:
    run = hospital_with_oracle(revealing=share)
    warnings = evaluate(run).warnings
    assert any("ICD10CM//Z99.9" in w.message for w in warnings if w.kind == "single_code")
    assert all("Z99" in w.message for w in warnings if w.kind == "single_code")


def test_the_strength_of_codes_equals_a_count_by_hand(run: TrainingRun) -> None:
    labels = read_labels(run, TASK).filter(pl.col("split") == "train")
    features, y = make_features(run, [labels]), labels["boolean_value"].to_numpy()
    found = code_strength(features, features.find(labels), y)
    column = features.codes.index("ICD10CM//I10")
    shown = features.ever[features.find(labels)][:, [column]].toarray().ravel() > 0
    assert found.auroc[column] == pytest.approx(0.5 + (shown[y].mean() - shown[~y].mean()) / 2)
    assert found.ppv[column] == pytest.approx(y[shown].mean())
    assert found.share[column] == pytest.approx(shown[y].mean())
    n, p = shown.sum(), y[shown].mean()
    roots = np.roots([1 + 1.959964**2 / n, -(2 * p + 1.959964**2 / n), p**2])  # Wilson: (p - x)² = z² x (1 - x) / n
    assert found.ppv_low[column] == pytest.approx(roots.min())


def test_a_model_as_good_as_the_oracle_is_not_suspected_and_one_that_saw_the_labels_is() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(-2, 1, 4000)
    y = rng.random(4000) < 1 / (1 + np.exp(-truth))
    knows = 1 / (1 + np.exp(-(truth + 0.6 * y)))
    near = 1 / (1 + np.exp(-(truth + rng.normal(0, 0.05, 4000))))
    answers = {"oracle": 1 / (1 + np.exp(-truth)), "near": near, "knows": knows}
    rows = JudgedRows("any", np.arange(4000), np.ones(4000, bool), y, answers)
    judged = judge_rows(rows, np.arange(4000), patient_counts(4000, 200, 1), np.ones(4000, bool))
    assert [warning.message.split("'")[1] for warning in above_oracle("any", judged)] == ["knows"]
    assert above_oracle("any", {name: found for name, found in judged.items() if name != "oracle"}) == []
