"""The same comparison by sex, age band and site.

A group whose rows, events or other rows number fewer than ``CELL`` is not judged, and then no count of its division is
given: it would follow from the others and the whole.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.bootstrap import Counts
from ml.evaluation.intervals import FEW_DRAWS, metric_set, model_draws, not_evaluable, paired
from ml.evaluation.metrics import Scored
from ml.evaluation.results import CELL, Subgroup
from ml.evaluation.rows import Division, JudgedRows

AGE_BANDS = ((0, "under 45"), (45, "45-64"), (65, "65-79"), (80, "80 and over"))
UNKNOWN = "unknown"


def age_bands(age: NDArray[np.float64]) -> NDArray[np.str_]:
    """The band of each age in years, "unknown" where it is NaN."""
    names = np.array([name for _, name in AGE_BANDS])
    band = np.searchsorted([low for low, _ in AGE_BANDS], np.nan_to_num(age, nan=0.0), side="right") - 1
    return np.where(np.isnan(age), UNKNOWN, names[np.clip(band, 0, None)])


def subgroups(rows: JudgedRows, patient: NDArray[np.int64], counts: Counts, threads: int = 1) -> tuple[Subgroup, ...]:
    """Every group of every division that ``rows.groups`` knows; a division with one group is left out."""
    few = counts.first(FEW_DRAWS)
    jobs = [
        (by, str(value), _shown(values, rows.y))
        for by, values in rows.groups.items()
        for value in _in_order(by, values)
        if len(np.unique(values)) > 1
    ]
    with ThreadPoolExecutor(threads) as pool:
        return tuple(pool.map(lambda job: _judge_group(rows, patient, few, *job), jobs))


def _in_order(by: Division, values: NDArray[np.str_]) -> list[str]:
    order = [name for _, name in AGE_BANDS] if by == "age" else []
    return sorted(np.unique(values).tolist(), key=lambda v: (order.index(v) if v in order else len(order), v))


def _shown(values: NDArray[np.str_], y: NDArray[np.bool_]) -> bool:
    """Whether every group of a division has enough rows with and without the event for its counts to be given."""
    return all(min(y[values == value].sum(), (~y[values == value]).sum()) >= CELL for value in np.unique(values))


def _judge_group(
    rows: JudgedRows, patient: NDArray[np.int64], counts: Counts, by: Division, value: str, shown: bool
) -> Subgroup:
    keep = rows.groups[by] == value
    y = rows.y[keep]
    reason = not_evaluable(y, patient[keep])
    if len(y) < CELL:
        reason = f"fewer than {CELL} held-out rows"
    draws = {}
    if reason is None:
        for model, p in rows.probabilities.items():
            draws[model] = model_draws(Scored(y, p[keep], patient[keep]), counts)
    return Subgroup(
        by=by,
        value=value,
        n=len(y) if shown else None,
        events=int(y.sum()) if shown else None,
        draws=counts.draws - 1,
        models={model: metric_set(found) for model, found in draws.items()},
        differences=paired(draws),
        reason=reason,
    )
