"""From metrics per bootstrap draw to values with intervals, for models, their differences and their means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.curves import calibration_curve, roc_curve
from ml.evaluation.metrics import Counts, Scored, all_metrics
from ml.evaluation.results import METRICS, Estimate, Macro, MetricSet, ModelResult, comparisons
from ml.evaluation.rows import JudgedRows

DIGITS = 6
LEAST_DRAWS = 0.5  # share of draws in which a metric must exist for an interval to be given

Draws = dict[str, NDArray[np.float64]]  # metric → (draws + 1,), the point estimate first


@dataclass(frozen=True)
class Judged:
    """A model's results on one set of rows, and the draws behind them (None where there is nothing to tell)."""

    result: ModelResult
    draws: Draws | None


def estimate(draws: NDArray[np.float64]) -> Estimate | None:
    """Point estimate and percentile interval; None where the metric does not exist."""
    value, drawn = draws[0], draws[1:]
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(drawn) < LEAST_DRAWS * (len(draws) - 1):
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value=round(float(value), DIGITS), low=round(float(low), DIGITS), high=round(float(high), DIGITS))


def metric_set(draws: Draws) -> MetricSet:
    """Every metric with its interval."""
    return MetricSet(**{metric: estimate(draws[metric]) for metric in METRICS})


def _reason(y: NDArray[np.bool_], patients: NDArray[np.int64]) -> str | None:
    """Why nothing can be told from these rows, or None."""
    if len(y) == 0:
        return "no held-out row"
    with_event, without = len(np.unique(patients[y])), len(np.unique(patients[~y]))
    if min(with_event, without) < 2:
        who = "with" if with_event < 2 else "without"
        return f"fewer than two held-out patients {who} the outcome"
    return None


def judge_rows(
    rows: JudgedRows, patient: NDArray[np.int64], counts: Counts, keep: NDArray[np.bool_]
) -> dict[str, Judged]:
    """Every model on the rows in ``keep``; ``patient`` is each row's column of ``counts``."""
    y, patient = rows.y[keep], patient[keep]
    n, events, subjects = len(y), int(y.sum()), len(np.unique(patient))
    reason = _reason(y, patient)
    found = {}
    for model, probabilities in rows.probabilities.items():
        p = probabilities[keep]
        if reason is not None:
            found[model] = Judged(ModelResult(n=n, events=events, subjects=subjects, reason=reason), None)
            continue
        draws = all_metrics(Scored(y, p, patient), counts)
        metrics = {metric: estimate(draws[metric]) for metric in METRICS}
        curves = {"roc": roc_curve(y, p), "calibration": calibration_curve(y, p)}
        lacking = [metric for metric, value in metrics.items() if value is None]
        note = f"{', '.join(lacking)} cannot be told from these rows" if lacking else None
        result = ModelResult(n=n, events=events, subjects=subjects, reason=note, **metrics, **curves)
        found[model] = Judged(result, draws)
    return found


def _difference(left: Draws, right: Draws) -> Draws:
    return {metric: left[metric] - right[metric] for metric in METRICS}


def differences(judged: dict[str, Judged]) -> dict[str, MetricSet]:
    """Paired differences Med-BERT minus each other model, from the same draws."""
    found = {}
    for other, name in comparisons(tuple(sorted(judged))):
        ours, theirs = judged["medbert"].draws, judged[other].draws
        if ours is not None and theirs is not None:
            found[name] = metric_set(_difference(ours, theirs))
    return found


def _mean(draws: list[Draws]) -> Draws:
    return {metric: np.mean([d[metric] for d in draws], axis=0) for metric in METRICS}


def macro(tasks: dict[str, dict[str, Judged]]) -> Macro:
    """Means over the tasks on which every model answered and could be judged."""
    models = sorted({model for judged in tasks.values() for model in judged})
    usable: dict[str, dict[str, Draws]] = {}
    for task, judged in tasks.items():
        draws = {model: found.draws for model, found in judged.items() if found.draws is not None}
        if models and sorted(draws) == models:
            usable[task] = draws
    if not usable:
        return Macro()
    means = {model: _mean([draws[model] for draws in usable.values()]) for model in models}
    paired = {
        name: metric_set(_difference(means["medbert"], means[other])) for other, name in comparisons(tuple(models))
    }
    return Macro(
        tasks=tuple(usable), models={model: metric_set(draws) for model, draws in means.items()}, differences=paired
    )
