"""Which rows are judged, and that every model answered for exactly them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.cohorts.eligibility import prediction_time
from ml.cohorts.runs import TrainingRun
from ml.cohorts.splits import split_all
from ml.common.errors import NotFoundError, RefusedError
from ml.common.files import write_bytes
from ml.evaluation.results import MEDBERT
from ml.settings import get_settings

log = logging.getLogger(__name__)
Division = Literal["sex", "age", "site"]

KEY = ["subject_id", "prediction_time"]
LABEL_COLUMNS = [*KEY, "boolean_value", "split"]
PREDICTION_COLUMNS = [*KEY, "boolean_value", "predicted_boolean_probability", "task", "split"]


@dataclass(frozen=True)
class FollowUp:
    """How each row ended.

    Attributes:
        days: from the prediction time to the event or to the end of follow-up, float64 (rows,).
        event: whether it ended with the event, bool (rows,).
    """

    days: NDArray[np.float64]
    event: NDArray[np.bool_]

    def take(self, keep: NDArray[np.bool_]) -> FollowUp:
        """The rows in ``keep``."""
        return FollowUp(self.days[keep], self.event[keep])

    def censored(self, horizon: float) -> bool:
        """Whether any row leaves before the horizon, in days, without an event."""
        return bool((~self.event & (self.days < horizon)).any())


@dataclass(frozen=True)
class JudgedRows:
    """Held-out rows of one task, sorted by subject and time, and each model's answer.

    Attributes:
        subject: int64 (rows,).
        newest: rows of the temporal hold-out, bool (rows,).
        y: outcome, bool (rows,).
        probabilities: by model, float64 (rows,).
        faults: by model, why its answers cannot be judged.
        groups: by ``sex``, ``age`` (band) and ``site``, the group of each row, str (rows,).
        follow_up: how each row ended, where the run says so.
        horizon_days: end of the label window.
    """

    task: str
    subject: NDArray[np.int64]
    newest: NDArray[np.bool_]
    y: NDArray[np.bool_]
    probabilities: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    groups: dict[Division, NDArray[np.str_]] = field(default_factory=dict)
    follow_up: FollowUp | None = None
    horizon_days: float | None = None


def at(day: date) -> pl.Expr:
    """The prediction time of an index day."""
    return pl.lit(prediction_time(day), dtype=pl.Datetime("us"))


def read_labels(run: TrainingRun, task: str) -> pl.DataFrame:
    """Label rows of a task: ``LABEL_COLUMNS``, sorted by subject and time.

    Raises:
        NotFoundError: the task has no labels in this run.
        RefusedError: a patient is in two splits, or not in the one the split gives.
    """
    path = run.labels(task)
    if not path.exists():
        raise NotFoundError(f"no labels of task '{task}' in run {run.name}", "make the labels of the run first")
    labels = pl.read_parquet(path, columns=LABEL_COLUMNS).with_columns(
        pl.col("prediction_time").cast(pl.Datetime("us"))
    )
    _check_splits(labels, task)
    return labels.sort(KEY)


def _check_splits(labels: pl.DataFrame, task: str) -> None:
    written = labels.select("subject_id", "split").unique()
    splits = split_all(written["subject_id"].to_list(), get_settings().split_salt)
    wrong = sum(splits[subject] != split for subject, split in written.iter_rows())
    if wrong or written["subject_id"].n_unique() != len(written):
        raise RefusedError(
            f"labels of task '{task}' put {max(wrong, 1)} patients in a split that is not theirs",
            "make the labels again, with the split salt this site has always had",
        )


def _answers(path: Path, task: str) -> pl.DataFrame:
    absent = sorted(set(PREDICTION_COLUMNS) - set(pl.read_parquet_schema(path)))
    if absent:
        raise RefusedError(f"predictions of model '{path.stem}' lack {', '.join(absent)}", "write them again")
    frame = pl.scan_parquet(path).filter((pl.col("task") == task) & (pl.col("split") == "held_out"))
    return frame.select(PREDICTION_COLUMNS).with_columns(pl.col("prediction_time").cast(pl.Datetime("us"))).collect()


def _probabilities(model: str, task: str, held_out: pl.DataFrame, answers: pl.DataFrame) -> NDArray[np.float64]:
    """A model's probabilities in the order of ``held_out``; refused unless it answers for those rows alone."""
    remedy = f"predict with model '{model}' again on this run's labels"
    if answers.select(KEY).is_duplicated().any():
        raise RefusedError(f"model '{model}' answers twice for rows of task '{task}'", remedy)
    joined = held_out.join(answers, on=KEY, how="left", validate="1:1", maintain_order="left", suffix="_predicted")
    missing = joined["predicted_boolean_probability"].null_count()
    if missing or len(answers) != len(held_out):
        extra = len(answers) - (len(held_out) - missing)
        raise RefusedError(
            f"model '{model}' does not cover the label rows of task '{task}' ({missing} missing, {extra} too many)",
            remedy,
        )
    if (joined["boolean_value"] != joined["boolean_value_predicted"]).any():
        raise RefusedError(f"model '{model}' was judged by other labels of task '{task}'", remedy)
    p = joined["predicted_boolean_probability"].cast(pl.Float64).to_numpy()
    if not ((p >= 0) & (p <= 1)).all():
        raise RefusedError(f"model '{model}' gives probabilities outside [0, 1] on task '{task}'", remedy)
    return p


def _follow_up(run: TrainingRun, task: str, held_out: pl.DataFrame) -> FollowUp | None:
    """How the rows ended, where the run has times to event beside its labels; a death ends the follow-up."""
    path = run.times(task)
    if not path.exists():
        return None
    times = pl.read_parquet(path, columns=[*KEY, "event", "observed_days"])
    times = times.with_columns(pl.col("prediction_time").cast(pl.Datetime("us")))
    joined = held_out.select(KEY).join(times, on=KEY, how="left", validate="1:1", maintain_order="left")
    if joined["event"].null_count():
        log.warning("times to event of task '%s' do not cover its labels; censoring is left out of account", task)
        return None
    return FollowUp(joined["observed_days"].cast(pl.Float64).to_numpy(), joined["event"].to_numpy())


def read_judged(run: TrainingRun, task: str, labels: pl.DataFrame) -> JudgedRows:
    """Held-out rows of a task and the probabilities of every model in ``predictions/``.

    A model without any row of the task is left out, Med-BERT excepted. One that does not answer for exactly the
    held-out label rows is a fault of that model on this task, and said in the log.

    Raises:
        RefusedError: a file of predictions has not the columns it should.
    """
    held_out = labels.filter(pl.col("split") == "held_out")
    probabilities, faults = {}, {}
    for path in sorted((run.path / "predictions").glob("*.parquet")):
        answers = _answers(path, task)
        if len(answers) or path.stem == MEDBERT:
            try:
                probabilities[path.stem] = _probabilities(path.stem, task, held_out, answers)
            except RefusedError as error:
                log.warning("not evaluable: %s", error)
                faults[path.stem] = error.cause
    newest = held_out.select(pl.col("prediction_time") == at(run.test_day)).to_series().to_numpy()
    subject, y = held_out["subject_id"].to_numpy(), held_out["boolean_value"].to_numpy()
    return JudgedRows(task, subject, newest, y, probabilities, faults, follow_up=_follow_up(run, task, held_out))


def write_predictions(run: TrainingRun, model: str, frames: list[pl.DataFrame]) -> None:
    """Write a model's rows (``PREDICTION_COLUMNS``) of every task, atomically."""
    content = BytesIO()
    pl.concat([frame.select(PREDICTION_COLUMNS) for frame in frames]).write_parquet(content)
    write_bytes(run.predictions(model), content.getvalue())
