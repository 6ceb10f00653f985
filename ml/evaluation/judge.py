"""The evaluation of a training run: baselines, every model on the same held-out patients, one JSON."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.cohorts.runs import TrainingRun
from ml.cohorts.tasks import load_task
from ml.common.errors import NotFoundError, RefusedError
from ml.common.progress import Progress
from ml.evaluation.baselines import train_baselines
from ml.evaluation.bootstrap import Counts, patient_counts
from ml.evaluation.cohort import write_cohort
from ml.evaluation.features import Features, make_features
from ml.evaluation.intervals import Judged, differences, judge_rows, macro
from ml.evaluation.leaks import above_oracle, single_codes
from ml.evaluation.results import MEDBERT, Evaluation, LeakWarning, ModelResult, TaskResult
from ml.evaluation.rows import Division, JudgedRows, read_judged, read_labels
from ml.evaluation.subgroups import age_bands, subgroups
from ml.settings import get_settings

log = logging.getLogger(__name__)


def judge(run: TrainingRun) -> Evaluation:
    """Train the baselines, judge every model in ``run.path/predictions``, write ``run.evaluation`` and who was judged.

    The bootstrap draws patients once, over all tasks: every model, task and difference sees the same draws. A task
    whose labels cannot be used, and a model that did not answer as it should, have the reason instead of numbers;
    the rest goes on.

    Raises:
        NotFoundError: the labels or Med-BERT's predictions are not there.
        RefusedError: a file of predictions has not the columns it should.
    """
    if not run.predictions(MEDBERT).exists():
        raise NotFoundError(f"run {run.name} has no predictions of Med-BERT", "fine-tune the run first")
    labels, faults = _usable_labels(run)
    rows, leaks = _with_baselines(run, labels, faults) if labels else ({}, [])
    evaluation = compare(run, rows, leaks, faults)
    evaluation.save(run.evaluation)
    log.info("evaluation of %s: %d tasks, %d warnings", run.name, len(evaluation.tasks), len(evaluation.warnings))
    return evaluation


def _usable_labels(run: TrainingRun) -> tuple[dict[str, pl.DataFrame], dict[str, str]]:
    """Labels by task, and by task why its labels may not be used."""
    labels, faults = {}, {}
    for task in get_settings().tasks:
        try:
            labels[task] = read_labels(run, task)
        except RefusedError as error:
            log.warning("task '%s' is not evaluable: %s", task, error)
            faults[task] = error.cause
    return labels, faults


def _with_baselines(
    run: TrainingRun, labels: dict[str, pl.DataFrame], faults: dict[str, str]
) -> tuple[dict[str, JudgedRows], list[LeakWarning]]:
    """Train the baselines; the rows to judge, and codes that leak. Adds to ``faults`` what the features show."""
    features = make_features(run, list(labels.values()))
    for task in [task for task, frame in labels.items() if _before_birth(features, frame)]:
        faults[task] = "some of its labels precede their patient's birth"
        log.warning("task '%s' is not evaluable: %s", task, faults[task])
        del labels[task]
    train_baselines(run, features, labels)
    if labels:
        write_cohort(run, features, labels)
    leaks = [warning for task, frame in labels.items() for warning in single_codes(task, features, frame)]
    return {task: _judged(run, task, frame, features) for task, frame in labels.items()}, leaks


def _before_birth(features: Features, labels: pl.DataFrame) -> bool:
    return bool((features.age[features.find(labels)] < 0).any())


def _judged(run: TrainingRun, task: str, labels: pl.DataFrame, features: Features) -> JudgedRows:
    """The task's held-out rows and answers, with the groups that the rows fall in."""
    found = read_judged(run, task, labels)
    row = features.find(labels.filter(pl.col("split") == "held_out"))
    groups: dict[Division, NDArray[np.str_]] = {
        "sex": features.sex[row],
        "age": age_bands(features.age[row]),
        "site": features.site[row],
    }
    return replace(found, groups=groups, horizon_days=load_task(task).horizon_days)


def _patients(rows: dict[str, JudgedRows]) -> NDArray[np.int64]:
    """Every judged patient once, sorted: the columns of the bootstrap counts."""
    return np.unique(np.concatenate([task.subject for task in rows.values()] or [np.empty(0, np.int64)]))


def compare(
    run: TrainingRun, rows: dict[str, JudgedRows], leaks: list[LeakWarning], faults: dict[str, str] | None = None
) -> Evaluation:
    """Judge the models of every task with one bootstrap over patients; ``faults`` are tasks that cannot be judged."""
    settings = get_settings()
    patients = _patients(rows)
    counts = patient_counts(len(patients), settings.bootstrap, settings.seed)
    progress = Progress("evaluate", len(rows))
    everything, tasks, warnings = {}, {}, list(leaks)
    for number, (task, judged_rows) in enumerate(rows.items(), 1):
        result, judged = _judge_task(judged_rows, patients, counts)
        everything[task], tasks[task] = judged, result
        warnings += above_oracle(task, judged)
        progress.report(number, task)
    for task, reason in (faults or {}).items():
        tasks[task] = _not_judged(task, reason)
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


def _not_judged(task: str, reason: str) -> TaskResult:
    nothing = {MEDBERT: ModelResult(n=0, events=0, subjects=0, reason=reason)}
    return TaskResult(
        task=task, horizon_days=load_task(task).horizon_days, all_days=nothing, temporal=nothing, reason=reason
    )


def _judge_task(rows: JudgedRows, patients: NDArray[np.int64], counts: Counts) -> tuple[TaskResult, dict[str, Judged]]:
    column, threads = np.searchsorted(patients, rows.subject), get_settings().threads
    everywhere = judge_rows(rows, column, counts, np.ones(len(rows.y), bool), threads)
    newest = judge_rows(rows, column, counts, rows.newest, threads)
    result = TaskResult(
        task=rows.task,
        horizon_days=load_task(rows.task).horizon_days,
        all_days=_results(everywhere),
        temporal=_results(newest),
        differences=differences(everywhere),
        temporal_differences=differences(newest),
        subgroups=subgroups(rows, column, counts, threads),
    )
    return result, everywhere


def _results(judged: dict[str, Judged]) -> dict[str, ModelResult]:
    return {model: found.result for model, found in judged.items()}
