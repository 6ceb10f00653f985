"""The whole evaluation on a real event log with real labels."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from ml.cohorts.labels import make_labels
from ml.cohorts.runs import TrainingRun, open_run
from ml.cohorts.splits import split_all
from ml.common.errors import ConfigError, NotFoundError, RefusedError
from ml.common.files import sha256_json, write_json
from ml.evaluation import evaluate
from ml.evaluation.judge import compare
from ml.evaluation.results import Evaluation
from ml.evaluation.rows import JudgedRows
from ml.registry import gates
from ml.settings import Settings, get_settings
from tests.ml.evaluation.invented_hospital import AS_OF, FIRST, answer, commit, invented_events


def held_out(run: TrainingRun, model: str, task: str) -> pl.DataFrame:
    frame = pl.read_parquet(run.predictions(model))
    return frame.filter((pl.col("task") == task) & (pl.col("split") == "held_out"))


def rewrite(run: TrainingRun, model: str, change: pl.Expr | None = None, **columns: pl.Expr) -> None:
    frame = pl.read_parquet(run.predictions(model))
    frame = frame.with_columns(**columns) if columns else frame.filter(change)
    frame.write_parquet(run.predictions(model))


def test_every_model_is_judged_on_the_same_rows_with_paired_intervals(run: TrainingRun) -> None:
    answer(run, "oracle", noise=0.5)
    found = evaluate(run)
    task = found.tasks["heart_failure"]
    assert found.models == ("medbert", "lightgbm", "logistic_regression", "age_sex", "oracle")
    assert task.horizon_days == 365
    rows = held_out(run, "medbert", "heart_failure")
    for model, result in task.all_days.items():
        judged = held_out(run, model, "heart_failure")
        expected = roc_auc_score(judged["boolean_value"], judged["predicted_boolean_probability"])
        assert (result.n, result.events) == (len(rows), rows["boolean_value"].sum())
        assert result.auroc is not None
        assert result.auroc.value == pytest.approx(expected, abs=1e-6)
        assert result.auroc.low < result.auroc.value < result.auroc.high
    medbert, age_sex = task.all_days["medbert"].auroc, task.all_days["age_sex"].auroc
    paired = task.differences["medbert-minus-age_sex"].auroc
    assert medbert is not None
    assert age_sex is not None
    assert paired is not None
    assert paired.value == pytest.approx(medbert.value - age_sex.value, abs=2e-6)
    others = ("lightgbm", "logistic_regression", "age_sex", "oracle")
    assert set(task.differences) == {f"medbert-minus-{m}" for m in others}
    assert set(found.macro.models) == set(found.models)
    assert found.warnings == ()


def test_models_that_rank_alike_do_not_differ_in_any_draw(run: TrainingRun) -> None:
    rewritten = pl.read_parquet(run.predictions("medbert")).with_columns(
        predicted_boolean_probability=pl.col("predicted_boolean_probability") * 0.9 + 0.001
    )
    rewritten.write_parquet(run.predictions("champion"))
    task = evaluate(run).tasks["heart_failure"]
    paired, single = task.differences["medbert-minus-champion"].auroc, task.all_days["medbert"].auroc
    assert paired is not None
    assert single is not None
    assert (paired.low, paired.value, paired.high) == (0, 0, 0)  # the same ranking in every draw
    assert single.high - single.low > 0.01


def test_the_temporal_hold_out_is_the_newest_day_alone(run: TrainingRun) -> None:
    task = evaluate(run).tasks["heart_failure"]
    newest = pl.read_parquet(run.labels("heart_failure")).filter(
        (pl.col("split") == "held_out") & (pl.col("index") == 1)
    )
    assert task.temporal["medbert"].n == len(newest)
    assert task.temporal["medbert"].n < task.all_days["medbert"].n
    assert task.temporal["medbert"].events == newest["boolean_value"].sum()


@pytest.mark.parametrize("model", ["logistic_regression", "lightgbm"])
def test_a_baseline_on_codes_finds_the_planted_risk_and_age_and_sex_alone_cannot(run: TrainingRun, model: str) -> None:
    task = evaluate(run).tasks["heart_failure"]
    codes, age_sex = task.all_days[model].auroc, task.all_days["age_sex"].auroc
    assert codes is not None
    assert age_sex is not None
    assert codes.low > 0.55
    assert age_sex.value < codes.value


def test_baselines_answer_for_tuning_and_held_out_rows_but_never_for_train(run: TrainingRun) -> None:
    evaluate(run)
    for model in ("age_sex", "logistic_regression", "lightgbm"):
        written = pl.read_parquet(run.predictions(model))
        labels = pl.concat([pl.read_parquet(run.labels(t)) for t in ("heart_failure", "death")])
        assert set(written["split"].unique()) == {"tuning", "held_out"}
        assert len(written) == len(labels.filter(pl.col("split") != "train"))


def test_an_outcome_without_events_gets_a_reason_instead_of_metrics(run: TrainingRun) -> None:
    found = evaluate(run)
    for result in found.tasks["death"].all_days.values():
        assert result.auroc is None
        assert result.roc == ()
        assert result.reason == "no held-out patient has the outcome"
    assert found.tasks["death"].differences == {}
    assert found.macro.tasks == ("heart_failure",)
    assert found.not_evaluable == {"death": "no held-out patient has the outcome"}


def test_alerts_and_net_benefit_have_paired_differences(run: TrainingRun) -> None:
    task = evaluate(run).tasks["heart_failure"]
    ours, theirs = task.all_days["medbert"], task.all_days["age_sex"]
    paired = task.differences["medbert-minus-age_sex"]
    assert [alert.rate for alert in ours.alerts] == [0.05, 0.1]  # one in a hundred would be about ten rows
    for mine, other, both in zip(ours.alerts, theirs.alerts, paired.alerts, strict=True):
        assert mine.sensitivity is not None
        assert other.sensitivity is not None
        assert both.sensitivity is not None
        expected = mine.sensitivity.value - other.sensitivity.value
        assert both.sensitivity.value == pytest.approx(expected, abs=2e-6)
        assert mine.ppv is not None
        assert mine.number_needed is not None
        assert mine.number_needed.value == pytest.approx(1 / mine.ppv.value, abs=0.005)
        assert mine.number_needed.low <= mine.number_needed.value <= mine.number_needed.high
    assert [point.threshold for point in ours.net_benefit] == [point.threshold for point in paired.net_benefit]
    assert len(ours.calibration_bands) == len(ours.calibration)
    for (_, share, _), (low, high) in zip(ours.calibration, ours.calibration_bands, strict=True):
        assert low <= share <= high


def test_the_rows_are_divided_by_sex_and_age_band(run: TrainingRun) -> None:
    task = evaluate(run).tasks["heart_failure"]
    divisions = {group.by for group in task.subgroups}
    assert divisions == {"sex", "age"}  # the invented hospital has one site
    sexes = [group for group in task.subgroups if group.by == "sex"]
    assert [group.value for group in sexes] == ["F", "M"]
    assert sum(group.n or 0 for group in sexes) == task.all_days["medbert"].n
    assert {group.draws for group in task.subgroups} == {100}


def test_a_second_evaluation_gives_the_same_bytes(run: TrainingRun) -> None:
    first = evaluate(run).digest
    content = run.evaluation.read_bytes()
    baselines = [run.predictions(model).read_bytes() for model in ("logistic_regression", "lightgbm")]
    assert evaluate(run).digest == first
    assert run.evaluation.read_bytes() == content
    assert [run.predictions(model).read_bytes() for model in ("logistic_regression", "lightgbm")] == baselines


def test_an_evaluation_holds_no_patient(run: TrainingRun, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    evaluate(run)
    text = run.evaluation.read_text() + caplog.text
    subjects = pl.read_parquet(run.labels("heart_failure"))["subject_id"].unique().to_list()
    assert len(subjects) > 100
    assert not [subject for subject in subjects if str(subject) in text]
    assert str(AS_OF) in text


def not_judged(run: TrainingRun, model: str, reason: str) -> Evaluation:
    """Evaluate: the model has the reason on heart failure, and the other models were judged."""
    found = evaluate(run)
    assert re.search(reason, found.tasks["heart_failure"].all_days[model].reason or "")
    assert found.tasks["heart_failure"].all_days[model].auroc is None
    assert found.tasks["heart_failure"].all_days["logistic_regression"].auroc is not None
    return found


def test_a_model_that_misses_a_row_is_not_judged_on_that_task_and_the_rest_goes_on(run: TrainingRun) -> None:
    one = held_out(run, "medbert", "heart_failure").row(0, named=True)
    rewrite(run, "medbert", ~((pl.col("subject_id") == one["subject_id"]) & (pl.col("split") == "held_out")))
    reason = r"does not cover the label rows of task 'heart_failure' \(\d+ missing, 0"
    found = not_judged(run, "medbert", reason)
    verdict = gates.judge(found, get_settings())
    assert not verdict.passed
    assert "for want of evidence" in verdict.reason
    assert any(re.search(reason, check.sentence) for check in verdict.checks)


def test_another_model_that_misses_a_row_leaves_med_bert_judged(run: TrainingRun) -> None:
    answer(run, "champion", noise=1.0)
    rewrite(run, "champion", (pl.col("task") != "heart_failure") | (pl.col("subject_id") % 3 != 0))
    found = not_judged(run, "champion", "does not cover")
    assert found.tasks["heart_failure"].all_days["medbert"].auroc is not None
    assert "medbert-minus-champion" not in found.tasks["heart_failure"].differences
    assert found.macro.tasks == ()


def test_predictions_of_a_train_patient_among_the_judged_are_no_evidence(run: TrainingRun) -> None:
    labels = pl.read_parquet(run.labels("heart_failure"))
    intruder = labels.filter(pl.col("split") == "train").head(1)
    extra = intruder.with_columns(
        predicted_boolean_probability=pl.lit(0.5), task=pl.lit("heart_failure"), split=pl.lit("held_out")
    )
    frame = pl.read_parquet(run.predictions("medbert"))
    pl.concat([frame, extra.select(frame.columns)]).write_parquet(run.predictions("medbert"))
    not_judged(run, "medbert", "0 missing, 1 too many")


def test_labels_that_call_a_train_patient_held_out_are_no_evidence(run: TrainingRun) -> None:
    labels = pl.read_parquet(run.labels("heart_failure"))
    moved = pl.when(pl.col("subject_id") == labels["subject_id"][0]).then(pl.lit("held_out")).otherwise(pl.col("split"))
    assert labels["split"][0] != "held_out"
    labels.with_columns(split=moved).write_parquet(run.labels("heart_failure"))
    found = evaluate(run)
    assert "in a split that is not theirs" in found.not_evaluable["heart_failure"]
    assert found.tasks["death"].all_days["medbert"].n > 0
    assert not gates.judge(found, get_settings()).passed


def test_labels_that_precede_birth_are_no_evidence(place: Settings) -> None:
    unborn = {"subject_id": FIRST + 9999, "recorded_at": datetime(2010, 1, 1), "source_key": "invented/unborn"}
    events = invented_events(800)
    birth = events.head(1).with_columns(
        *(pl.lit(value).cast(events.schema[name]).alias(name) for name, value in unborn.items()),
        time=pl.lit(datetime(2019, 6, 1)).cast(pl.Datetime("us")),
    )
    commit(pl.concat([events, birth]))
    run = open_run(AS_OF)
    make_labels(run)
    labels = pl.read_parquet(run.labels("death"))
    split = split_all([FIRST + 9999], place.split_salt)[FIRST + 9999]
    extra = labels.head(1).with_columns(subject_id=pl.lit(FIRST + 9999), split=pl.lit(split))
    pl.concat([labels, extra]).write_parquet(run.labels("death"))
    answer(run, "medbert", noise=1.0)
    found = evaluate(run)
    assert found.not_evaluable == {"death": "some of its labels precede their patient's birth"}
    assert found.tasks["heart_failure"].all_days["medbert"].auroc is not None


def test_fewer_than_thirty_patients_with_the_outcome_are_no_evidence(run: TrainingRun) -> None:
    y = np.arange(400) < 29
    subject = np.arange(400)
    few = JudgedRows("death", subject, np.ones(400, bool), y, {"medbert": np.linspace(0.9, 0.1, 400)})
    found = compare(run, {"death": few}, [])
    assert found.not_evaluable == {"death": "fewer than 30 held-out patients with the outcome"}
    enough = JudgedRows("death", subject, np.ones(400, bool), np.arange(400) < 30, few.probabilities)
    assert compare(run, {"death": enough}, []).not_evaluable == {}


def write_times(run: TrainingRun, leaving: bool) -> None:
    """Times to event beside the labels; ``leaving``: a quarter of those without the event die or move away early."""
    labels = pl.read_parquet(run.labels("heart_failure"))
    days = pl.Series(np.random.default_rng(1).uniform(1, 364, len(labels)))
    event = pl.col("boolean_value")
    early = event | (pl.col("subject_id") % 4 == 0) if leaving else event
    times = labels.with_columns(event=event, observed_days=pl.when(early).then(days).otherwise(pl.lit(365.0)))
    censored = pl.when(early & ~event).then(pl.lit("death"))
    times = times.with_columns(complete=pl.lit(True), censored=censored)
    path = run.labels("heart_failure").parent / "times" / "heart_failure.parquet"
    times.write_parquet(path)


def test_censored_labels_get_a_time_dependent_auroc_and_complete_ones_do_not(run: TrainingRun) -> None:
    write_times(run, leaving=False)
    assert evaluate(run).tasks["heart_failure"].all_days["medbert"].time_dependent_auroc is None
    write_times(run, leaving=True)
    task = evaluate(run).tasks["heart_failure"]
    found, plain = task.all_days["medbert"].time_dependent_auroc, task.all_days["medbert"].auroc
    assert found is not None
    assert plain is not None
    assert found.value == pytest.approx(plain.value, abs=0.05)
    assert found.value != plain.value
    assert task.differences["medbert-minus-age_sex"].time_dependent_auroc is not None


def test_times_that_do_not_cover_the_labels_are_said_and_left_out(
    run: TrainingRun, caplog: pytest.LogCaptureFixture
) -> None:
    write_times(run, leaving=True)
    path = run.labels("heart_failure").parent / "times" / "heart_failure.parquet"
    pl.read_parquet(path).filter(pl.col("split") != "held_out").write_parquet(path)
    assert evaluate(run).tasks["heart_failure"].all_days["medbert"].time_dependent_auroc is None
    assert "do not cover its labels" in caplog.text


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"boolean_value": ~pl.col("boolean_value")}, "judged by other labels"),
        ({"predicted_boolean_probability": pl.col("predicted_boolean_probability") + 1}, r"outside \[0, 1\]"),
        ({"predicted_boolean_probability": pl.lit(float("nan"))}, r"outside \[0, 1\]"),
    ],
)
def test_predictions_with_other_labels_or_impossible_probabilities_are_no_evidence(
    run: TrainingRun, columns: dict[str, pl.Expr], reason: str
) -> None:
    rewrite(run, "medbert", **columns)
    not_judged(run, "medbert", reason)


def test_a_file_of_predictions_without_a_column_is_refused(run: TrainingRun) -> None:
    pl.read_parquet(run.predictions("medbert")).drop("task").write_parquet(run.predictions("medbert"))
    with pytest.raises(RefusedError, match="predictions of model 'medbert' lack task"):
        evaluate(run)


def test_a_run_without_med_berts_predictions_says_so(run: TrainingRun) -> None:
    run.predictions("medbert").unlink()
    with pytest.raises(NotFoundError, match="no predictions of Med-BERT"):
        evaluate(run)


def test_the_command_line_shows_what_was_found(run: TrainingRun) -> None:
    from typer.testing import CliRunner

    from ml.evaluation.commands import app

    assert isinstance(CliRunner().invoke(app, ["show"]).exception, NotFoundError)
    said = CliRunner().invoke(app, ["run"]).output
    found = Evaluation.load(run.evaluation)
    assert f"medbert              {found.tasks['heart_failure'].all_days['medbert'].auroc}" in said
    assert "no held-out patient has the outcome" in said
    everything = json.loads(CliRunner().invoke(app, ["show", "--json"]).output)
    assert everything["digest"] == found.digest == found.summary()["digest"]


def test_a_changed_evaluation_is_not_read(run: TrainingRun) -> None:
    evaluate(run)
    assert Evaluation.load(run.evaluation).digest
    text = run.evaluation.read_text()
    run.evaluation.write_text(text.replace('"draws": 100', '"draws": 101'))
    with pytest.raises(ConfigError, match="does not match its own digest"):
        Evaluation.load(run.evaluation)
    with pytest.raises(NotFoundError, match="no evaluation"):
        Evaluation.load(run.path / "elsewhere.json")


def test_features_know_only_what_was_recorded_by_the_index_day(place: Settings) -> None:
    from ml.evaluation.features import make_features
    from ml.evaluation.rows import read_labels

    late = invented_events(200)
    risk = pl.col("code").str.starts_with("ICD10CM//I10")
    after = pl.lit(AS_OF).cast(pl.Datetime("us"))
    commit(late.with_columns(recorded_at=pl.when(risk).then(after).otherwise(pl.col("recorded_at"))))
    run = open_run(AS_OF)
    make_labels(run)
    features = make_features(run, [read_labels(run, "heart_failure")])
    assert "ICD10CM//I10" not in features.codes  # it happened years ago, and was recorded on the last day
    assert "ICD10CM//M10*" in features.codes
    assert np.isfinite(features.age).all()
    assert set(features.sex.tolist()) == {"F", "M"}


def test_an_evaluation_from_before_there_was_a_precision_recall_curve_keeps_its_digest(run: TrainingRun) -> None:
    evaluate(run)
    written = json.loads(run.evaluation.read_text())
    for task in written["tasks"].values():
        for models in (task["all_days"], task["temporal"]):
            for result in models.values():
                result.pop("precision_recall", None)
    digest = sha256_json({key: value for key, value in written.items() if key != "digest"})
    write_json(run.evaluation, {**written, "digest": digest})
    assert Evaluation.load(run.evaluation).digest == digest
