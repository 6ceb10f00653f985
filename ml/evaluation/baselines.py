"""Three baselines on the same rows as Med-BERT: prevalence by age and sex, and, on counts of codes by look-back window,
L2 logistic regression and gradient boosting.

Trained on train-split patients at the training days, tuned on tuning-split patients at the same days.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import SplineTransformer

from ml.cohorts.runs import TrainingRun
from ml.common.progress import Progress
from ml.evaluation.boosting import LEAST_IN_LEAF, boosted
from ml.evaluation.features import Features
from ml.evaluation.results import AGE_SEX, LIGHTGBM, LOGISTIC_REGRESSION
from ml.evaluation.rows import at, write_predictions

Floats = NDArray[np.float64]
LEAST_ROWS = 10  # training rows that must show a code for it to become a feature
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1)  # inverse strengths C, weakest last: each fit starts from the one before
FREE = 10.0  # age and sex enter this much enlarged, so that the penalty of codes hardly touches them
AGE_SEX_PENALTIES = (1.0,)


@dataclass(frozen=True)
class Design:
    """Design matrices of the baselines; rows as in ``Features``.

    Attributes:
        age_sex: a spline of age for each sex.
        linear: that enlarged by ``FREE``, whether a code was ever recorded, and log counts in the shorter windows.
        counts: age, sex, and the counts in every window as they are.
    """

    age_sex: sp.csr_matrix
    linear: sp.csr_matrix
    counts: sp.csr_matrix


@dataclass(frozen=True)
class TaskRows:
    """Rows of one task in ``Features``: to learn from, to tune on, to answer for."""

    train: NDArray[np.int64]
    train_y: NDArray[np.bool_]
    tuning: NDArray[np.int64]
    tuning_y: NDArray[np.bool_]
    answered: pl.DataFrame
    answered_rows: NDArray[np.int64]


def task_rows(run: TrainingRun, features: Features, labels: pl.DataFrame) -> TaskRows:
    """Split a task's label rows by what the baselines may do with them."""
    past = labels.filter(pl.any_horizontal(*(pl.col("prediction_time") == at(d) for d in run.training_days)))
    train, tuning = (past.filter(pl.col("split") == split) for split in ("train", "tuning"))
    answered = labels.filter(pl.col("split").is_in(["tuning", "held_out"]))
    y_train, y_tuning = train["boolean_value"].to_numpy(), tuning["boolean_value"].to_numpy()
    return TaskRows(features.find(train), y_train, features.find(tuning), y_tuning, answered, features.find(answered))


def make_design(features: Features, train: NDArray[np.int64], least: int = LEAST_ROWS) -> Design:
    """Design matrices; knots, sexes and codes are chosen on the training rows alone, codes where ``least`` rows show
    them."""
    age_sex = _age_sex(features, train)
    kept = []
    for counts in features.counts:
        shown = np.asarray((counts[train] > 0).sum(axis=0)).ravel() >= least
        kept.append(counts[:, shown])
    blocks = [(kept[0] > 0).astype(np.float32), *(counts.log1p() for counts in kept[1:])]
    sexes = sorted(set(features.sex[train].tolist()))
    facts = np.column_stack([np.nan_to_num(features.age, nan=-1.0), *((features.sex == sex) for sex in sexes)])
    return Design(
        age_sex,
        sp.hstack([age_sex * FREE, *blocks], format="csr", dtype=np.float64),
        sp.hstack([sp.csr_matrix(facts), *kept], format="csr", dtype=np.float32),
    )


def _age_sex(features: Features, train: NDArray[np.int64]) -> sp.csr_matrix:
    """Cubic spline of age for each sex seen in training, and one column per such sex."""
    known = features.age[train][np.isfinite(features.age[train])]
    middle = float(np.median(known)) if len(known) else 0.0
    age = np.where(np.isfinite(features.age), features.age, middle)[:, None]
    if len(np.unique(known)) > 4:
        knots = np.unique(np.quantile(known, [0.02, 0.25, 0.5, 0.75, 0.98]))[:, None]
        basis = SplineTransformer(knots=knots, degree=3, extrapolation="linear").fit(age[train]).transform(age)
    else:
        basis = np.ones_like(age)
    sexes = sorted(set(features.sex[train].tolist()))
    columns = [basis * (features.sex == sex)[:, None] for sex in sexes] or [basis]
    return sp.csr_matrix(np.hstack(columns))


def _log_loss(y: NDArray[np.bool_], p: Floats) -> float:
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(y, np.log(p), np.log1p(-p)))) if len(y) else 0.0


def _nothing_to_fit(rows: TaskRows) -> Floats | None:
    """Without both classes in training everybody gets the (smoothed) training share."""
    y = rows.train_y
    if len(y) == 0 or y.all() or not y.any():
        return np.full(len(rows.answered_rows), (y.sum() + 0.5) / (len(y) + 1.0))
    return None


def fit_logistic(design: sp.csr_matrix, rows: TaskRows, penalties: tuple[float, ...]) -> Floats:
    """Probabilities of the answered rows from the fit that does best (log loss) on the tuning rows."""
    if (share := _nothing_to_fit(rows)) is not None:
        return share
    y = rows.train_y
    model = LogisticRegression(solver="lbfgs", warm_start=True, max_iter=300, tol=1e-4)
    x_train, x_tuning, x_answered = design[rows.train], design[rows.tuning], design[rows.answered_rows]
    best, answer = np.inf, np.empty(0)
    for penalty in penalties:
        model.set_params(C=penalty).fit(x_train, y)
        loss = _log_loss(rows.tuning_y, model.predict_proba(x_tuning)[:, 1]) if len(rows.tuning) else 0.0
        if loss < best:
            best, answer = loss, model.predict_proba(x_answered)[:, 1] if len(rows.answered_rows) else answer
    return answer


def fit_boosting(design: sp.csr_matrix, rows: TaskRows, least: int = LEAST_IN_LEAF) -> Floats:
    """Probabilities of the answered rows by ``ml.evaluation.boosting``."""
    if (share := _nothing_to_fit(rows)) is not None:
        return share
    train, tuning, answered = design[rows.train], design[rows.tuning], design[rows.answered_rows]
    return boosted(train, rows.train_y, tuning, rows.tuning_y, answered, least)


def train_baselines(run: TrainingRun, features: Features, labels: dict[str, pl.DataFrame]) -> None:
    """Train the baselines on every task and write their predictions (tuning and held-out rows)."""
    written: dict[str, list[pl.DataFrame]] = {AGE_SEX: [], LOGISTIC_REGRESSION: [], LIGHTGBM: []}
    progress = Progress("evaluate", len(labels))
    for number, (task, frame) in enumerate(labels.items(), 1):
        rows = task_rows(run, features, frame)
        design = make_design(features, rows.train)
        answers = {
            AGE_SEX: fit_logistic(design.age_sex, rows, AGE_SEX_PENALTIES),
            LOGISTIC_REGRESSION: fit_logistic(design.linear, rows, PENALTIES),
            LIGHTGBM: fit_boosting(design.counts, rows),
        }
        for model, p in answers.items():
            answered = rows.answered.with_columns(task=pl.lit(task))
            written[model].append(answered.with_columns(predicted_boolean_probability=pl.Series(p, dtype=pl.Float64)))
        progress.report(number, f"baselines of {task}")
    for model, frames in written.items():
        if frames:
            write_predictions(run, model, frames)
