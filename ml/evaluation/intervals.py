"""From metrics per bootstrap draw to values with intervals, for models, their differences and their means."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.cohorts.evaluability import MINIMUM_EVENTS
from ml.evaluation.bootstrap import Counts
from ml.evaluation.curves import calibration_curve, precision_recall_curve, roc_curve
from ml.evaluation.metrics import Draws, Scored, all_metrics
from ml.evaluation.results import (
    ALERT_RATES,
    CELL,
    METRICS,
    THRESHOLDS,
    AlertRate,
    Estimate,
    Macro,
    MetricSet,
    ModelResult,
    NetBenefit,
    comparisons,
)
from ml.evaluation.rows import JudgedRows
from ml.evaluation.survival import time_dependent_auroc

DIGITS = 6
LEAST_DRAWS = 0.5  # share of draws in which a metric must exist for an interval to be given
FEW_DRAWS = 200  # behind intervals of subgroups and of the time-dependent AUROC
TIME_DEPENDENT = "time_dependent_auroc"


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


def _inverse(share: Estimate | None) -> Estimate | None:
    """1 / share with its interval; None where a bound would be infinite."""
    if share is None or share.low <= 0:
        return None
    return Estimate(value=round(1 / share.value, 2), low=round(1 / share.high, 2), high=round(1 / share.low, 2))


def _alert_rates(draws: Draws, difference: bool) -> tuple[AlertRate, ...]:
    found = []
    for rate in ALERT_RATES:
        if f"ppv@{rate:g}" in draws:
            sensitivity, ppv = estimate(draws[f"sensitivity@{rate:g}"]), estimate(draws[f"ppv@{rate:g}"])
            needed = None if difference else _inverse(ppv)
            found.append(AlertRate(rate=rate, sensitivity=sensitivity, ppv=ppv, number_needed=needed))
    return tuple(found)


def _net_benefit(draws: Draws, difference: bool) -> tuple[NetBenefit, ...]:
    found = []
    for threshold in THRESHOLDS:
        if f"net_benefit@{threshold:g}" in draws:
            everybody = None if difference else round(float(draws[f"treat_all@{threshold:g}"][0]), DIGITS)
            value = estimate(draws[f"net_benefit@{threshold:g}"])
            found.append(NetBenefit(threshold=threshold, value=value, treat_all=everybody))
    return tuple(found)


def _bands(draws: Draws) -> tuple[tuple[float, float], ...]:
    """95 % interval of the observed share in each calibration group."""
    found: list[tuple[float, float]] = []
    while (shares := draws.get(f"observed@{len(found)}")) is not None:
        low, high = np.nanpercentile(shares[1:], [2.5, 97.5])
        found.append((round(float(low), DIGITS), round(float(high), DIGITS)))
    return tuple(found)


def metric_set(draws: Draws, *, difference: bool = False) -> MetricSet:
    """Every metric in ``draws`` with its interval."""
    single = {metric: estimate(draws[metric]) for metric in (*METRICS, TIME_DEPENDENT) if metric in draws}
    return MetricSet(
        **single,
        alerts=_alert_rates(draws, difference),
        net_benefit=_net_benefit(draws, difference),
    )


def not_evaluable(y: NDArray[np.bool_], patients: NDArray[np.int64]) -> str | None:
    """Why nothing can be told from these rows, or None; never a count below ``MINIMUM_EVENTS``."""
    if len(y) == 0:
        return "no held-out row"
    with_event, without = len(np.unique(patients[y])), len(np.unique(patients[~y]))
    if with_event == 0:
        return "no held-out patient has the outcome"
    if without == 0:
        return "every held-out row has the outcome"
    if min(with_event, without) < MINIMUM_EVENTS:
        who = "with" if with_event < MINIMUM_EVENTS else "without"
        return f"fewer than {MINIMUM_EVENTS} held-out patients {who} the outcome"
    return None


def model_draws(rows: Scored, counts: Counts) -> Draws:
    """Every metric in every draw; what an alert about fewer than ``CELL`` rows would give is left out."""
    draws = all_metrics(rows, counts)
    for rate in ALERT_RATES:
        if rate * len(rows.y) < CELL:
            del draws[f"sensitivity@{rate:g}"], draws[f"ppv@{rate:g}"]
    return draws


def _judge_model(rows: JudgedRows, scored: Scored, counts: Counts, keep: NDArray[np.bool_]) -> Judged:
    draws = model_draws(scored, counts)
    if rows.follow_up is not None and rows.horizon_days is not None:
        ended = rows.follow_up.take(keep)
        if ended.censored(rows.horizon_days):
            few = counts.first(FEW_DRAWS)
            draws[TIME_DEPENDENT] = time_dependent_auroc(ended, scored.p, scored.patient, few, rows.horizon_days)
    metrics = metric_set(draws)
    lacking = [metric for metric in METRICS if metrics.get(metric) is None]
    result = ModelResult(
        n=len(scored.y),
        events=int(scored.y.sum()),
        subjects=len(np.unique(scored.patient)),
        roc=roc_curve(scored.y, scored.p),
        precision_recall=precision_recall_curve(scored.y, scored.p),
        calibration=calibration_curve(scored.y, scored.p),
        calibration_bands=_bands(draws),
        reason=f"{', '.join(lacking)} cannot be told from these rows" if lacking else None,
        **dict(metrics),
    )
    return Judged(result, draws)


def judge_rows(
    rows: JudgedRows, patient: NDArray[np.int64], counts: Counts, keep: NDArray[np.bool_], threads: int = 1
) -> dict[str, Judged]:
    """Every model on the rows in ``keep``; ``patient`` is each row's column of ``counts``.

    A model that did not answer for these rows as it should has the reason alone.
    """
    y, patient = rows.y[keep], patient[keep]
    reason = not_evaluable(y, patient)
    n, events, subjects = len(y), int(y.sum()), len(np.unique(patient))

    def one(model: str) -> Judged:
        why = reason or rows.faults.get(model)
        if why is not None:
            return Judged(ModelResult(n=n, events=events, subjects=subjects, reason=why), None)
        return _judge_model(rows, Scored(y, rows.probabilities[model][keep], patient), counts, keep)

    models = sorted({*rows.probabilities, *rows.faults})
    with ThreadPoolExecutor(threads) as pool:  # the kernels let go of the interpreter
        return dict(zip(models, pool.map(one, models), strict=True))


def difference(left: Draws, right: Draws) -> Draws:
    """Paired difference of what both have."""
    return {metric: left[metric] - right[metric] for metric in left if metric in right}


def differences(judged: dict[str, Judged]) -> dict[str, MetricSet]:
    """Paired differences Med-BERT minus each other model, from the same draws."""
    return paired({model: found.draws for model, found in judged.items() if found.draws is not None})


def paired(draws: dict[str, Draws]) -> dict[str, MetricSet]:
    """``medbert-minus-<model>`` → differences with intervals, for every model that has draws."""
    return {
        name: metric_set(difference(draws["medbert"], draws[other]), difference=True)
        for other, name in comparisons(tuple(sorted(draws)))
    }


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
    return Macro(
        tasks=tuple(usable),
        models={model: metric_set(draws) for model, draws in means.items()},
        differences=paired(means),
    )
