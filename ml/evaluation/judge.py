"""The evaluation of a training run: baselines, every model on the same held-out patients, one JSON."""

from __future__ import annotations

import logging

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.cohorts.runs import TrainingRun
from ml.cohorts.tasks import load_task
from ml.common.errors import NotFoundError
from ml.common.progress import Progress
from ml.evaluation.baselines import train_baselines
from ml.evaluation.features import make_features
from ml.evaluation.intervals import Judged, differences, judge_rows, macro
from ml.evaluation.leaks import above_oracle, single_codes
from ml.evaluation.metrics import Counts, patient_counts
from ml.evaluation.results import MEDBERT, Evaluation, LeakWarning, ModelResult, TaskResult
from ml.evaluation.rows import JudgedRows, read_judged, read_labels
from ml.settings import get_settings

log = logging.getLogger(__name__)


def judge(run: TrainingRun) -> Evaluation:
    """Train the baselines, judge every model in ``run.path/predictions``, write ``run.evaluation``.

    The bootstrap draws patients once, over all tasks: every model, task and difference sees the same draws.

    Raises:
        NotFoundError: the labels or Med-BERT's predictions are not there.
        RefusedError: the models do not answer for the same rows, or a patient is in a split that is not his.
    """
    if not run.predictions(MEDBERT).exists():
        raise NotFoundError(f"run {run.name} has no predictions of Med-BERT", "fine-tune the run first")
    labels = {task: read_labels(run, task) for task in get_settings().tasks}
    leaks = _baselines(run, labels)
    rows = {task: read_judged(run, task, frame) for task, frame in labels.items()}
    evaluation = compare(run, rows, leaks)
    evaluation.save(run.evaluation)
    log.info("evaluation of %s: %d tasks, %d warnings", run.name, len(evaluation.tasks), len(evaluation.warnings))
    return evaluation


def _baselines(run: TrainingRun, labels: dict[str, pl.DataFrame]) -> list[LeakWarning]:
    """Train and write the baselines; signs of leakage among their features."""
    features = make_features(run, list(labels.values()))
    train_baselines(run, features, labels)
    return [warning for task, frame in labels.items() for warning in single_codes(task, features, frame)]


def _patients(rows: dict[str, JudgedRows]) -> NDArray[np.int64]:
    """Every judged patient once, sorted: the columns of the bootstrap counts."""
    return np.unique(np.concatenate([task.subject for task in rows.values()] or [np.empty(0, np.int64)]))


def compare(run: TrainingRun, rows: dict[str, JudgedRows], leaks: list[LeakWarning]) -> Evaluation:
    """Judge the models of every task with one bootstrap over patients."""
    settings = get_settings()
    patients = _patients(rows)
    counts = patient_counts(len(patients), settings.bootstrap, settings.seed)
    progress = Progress("evaluate", len(rows))
    everything, tasks, warnings = {}, {}, list(leaks)
    for number, (task, judged_rows) in enumerate(rows.items(), 1):
        result, judged = _judge_task(judged_rows, patients, counts)
        everything[task], tasks[task] = judged, result
        warnings += above_oracle(task, result.all_days)
        progress.report(number, task)
    return Evaluation(
        run=run.name,
        as_of=run.as_of,
        test_day=run.test_day,
        snapshot_digest=run.snapshot.digest,
        tasks=tasks,
        macro=macro(everything),
        warnings=tuple(warnings),
        draws=settings.bootstrap,
        seed=settings.seed,
    ).sealed()


def _judge_task(rows: JudgedRows, patients: NDArray[np.int64], counts: Counts) -> tuple[TaskResult, dict[str, Judged]]:
    column = np.searchsorted(patients, rows.subject)
    everywhere = judge_rows(rows, column, counts, np.ones(len(rows.y), bool))
    newest = judge_rows(rows, column, counts, rows.newest)
    result = TaskResult(
        task=rows.task,
        horizon_days=load_task(rows.task).horizon_days,
        all_days=_results(everywhere),
        temporal=_results(newest),
        differences=differences(everywhere),
        temporal_differences=differences(newest),
    )
    return result, everywhere


def _results(judged: dict[str, Judged]) -> dict[str, ModelResult]:
    return {model: found.result for model, found in judged.items()}
