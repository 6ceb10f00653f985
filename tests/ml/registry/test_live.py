"""Curves in MLflow while a stage trains: all of them, once, and never at the training's cost."""

from __future__ import annotations

import logging
import time

import pytest

import ml.registry.live as live
from ml.cohorts.runs import TrainingRun
from ml.common.files import write_json
from ml.registry import followed
from ml.registry.tracking import EXPERIMENT, connected
from ml.settings import Settings, get_settings
from ml.training.interruption import StoppedError
from ml.training.metrics import Metrics, metrics_path
from ml.training.space import trials_path
from tests.ml.invented_runs import make_run


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY", 0.05)


def write(run: TrainingRun, first: int, last: int, inputs: str = "a" * 64) -> None:
    """What a worker writes that goes on at a step."""
    metrics = Metrics(metrics_path(run.path, "pretrain"), inputs, first - 1)
    for step in range(first, last + 1):
        metrics.add(step, force=True, loss=1 / step, gradient_norm=0.5, tokens_per_second=900.0, learning_rate=1e-3)


def stop(run: TrainingRun, last: int) -> None:
    with followed(run, "pretrain"):
        write(run, 1, last)
        raise StoppedError("stopped", "run again")


def logged(run: TrainingRun) -> list[tuple[str, list[tuple[int, float]], dict[str, str]]]:
    """Status, loss curve and tags of the MLflow runs of a training."""
    with connected() as client:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        found = client.search_runs([experiment.experiment_id], f"tags.`{live.TRAINING}` = '{run.name}'")
        return [
            (
                one.info.status,
                [(metric.step, metric.value) for metric in client.get_metric_history(one.info.run_id, "loss")],
                one.data.tags,
            )
            for one in found
        ]


def test_points_come_while_the_stage_still_runs(tracked: Settings) -> None:
    run = make_run(seed=301)
    with followed(run, "pretrain"):
        write(run, 1, 3)
        deadline = time.monotonic() + 120
        while not (found := logged(run)) or len(found[0][1]) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert found[0][0] == "RUNNING"
        write(run, 4, 5)
    status, curve, tags = logged(run)[0]
    assert status == "FINISHED"
    assert curve == [(step, pytest.approx(1 / step)) for step in range(1, 6)]
    assert tags[live.STAGE] == "pretrain"


def test_a_stage_that_was_killed_and_goes_on_is_one_run_with_every_point_once(tracked: Settings) -> None:
    run = make_run(seed=302)
    with pytest.raises(StoppedError):
        stop(run, 6)
    assert logged(run)[0][0] == "KILLED"
    with followed(run, "pretrain"):
        write(run, 4, 8)  # its last checkpoint was after step 3
    assert [(status, [step for step, _ in curve]) for status, curve, _ in logged(run)] == [
        ("FINISHED", list(range(1, 9)))
    ]


def test_other_inputs_are_another_run(tracked: Settings) -> None:
    run = make_run(seed=303)
    for inputs in ("a" * 64, "b" * 64):
        with followed(run, "pretrain"):
            write(run, 1, 2, inputs)
    assert [len(curve) for _, curve, _ in logged(run)] == [2, 2]


def test_without_mlflow_the_training_goes_on_with_one_warning(
    tracked: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(seed=304)
    monkeypatch.setenv("VIGIL_MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    get_settings.cache_clear()
    with caplog.at_level(logging.WARNING), followed(run, "pretrain"):
        for last in (1, 2, 3):
            write(run, 1, last)
            time.sleep(0.2)
    warnings = [record.message for record in caplog.records if "do not get to MLflow" in record.message]
    assert len(warnings) == 1
    assert "cannot reach MLflow" in warnings[0]


def test_a_line_that_is_being_written_waits_for_its_end(tracked: Settings) -> None:
    run = make_run(seed=305)
    with followed(run, "pretrain"):
        write(run, 1, 2)
        with metrics_path(run.path, "pretrain").open("a") as file:
            file.write('{"step": 3, "ti')
    assert [len(curve) for _, curve, _ in logged(run)] == [2]


def test_trials_are_runs_inside_their_search_each_once(tracked: Settings) -> None:
    run = make_run(seed=306)
    trials = [
        {"number": n, "values": {"model.dropout": n / 10}, "score": 0.7 + n / 100, "seconds": 2.0} for n in (0, 1, 3)
    ]
    for count in (2, 3):  # the second call is of a search that went on
        with followed(run, "search"):
            write_json(trials_path(run.path), {"study": "c" * 64, "trials": trials[:count]})
    with connected() as client:
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        (parent,) = client.search_runs([experiment], f"tags.`{live.TRAINING}` = '{run.name}'")
        inside = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert parent.data.metrics["score"] == 0.73
    found = {one.data.tags[live.TRIAL]: (one.data.params, one.data.metrics["score"]) for one in inside}
    assert len(inside) == 3
    assert found["3"] == ({"model.dropout": "0.3"}, 0.73)
