"""Discrimination, calibration and usefulness of one model on one task, for every bootstrap draw at once.

Every function takes ``Scored`` rows and the shared ``Counts`` and gives float64 (draws,) per metric, the point estimate
first and NaN where a draw has no such number (an event or a non-event is missing). Heavy import (numba): only
evaluation's own work imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.bootstrap import Counts, patient_counts
from ml.evaluation.curves import calibration_edges
from ml.evaluation.ranking import Ranked, order, rank
from ml.evaluation.recalibration import calibration_slope_intercept
from ml.evaluation.results import ALERT_RATES, THRESHOLDS

__all__ = [
    "Draws",
    "Scored",
    "all_metrics",
    "auroc_auprc",
    "brier",
    "patient_counts",
    "ranking_metrics",
]

Floats = NDArray[np.float64]
Draws = dict[str, Floats]  # metric → (draws,), the point estimate first


@dataclass(frozen=True)
class Scored:
    """Judged rows of one model on one task; at least one.

    Attributes:
        y: outcome, bool (rows,).
        p: predicted probability, float64 (rows,).
        patient: column of the counts that a row belongs to, int64 (rows,).
    """

    y: NDArray[np.bool_]
    p: Floats
    patient: NDArray[np.int64]

    def ranked(self, counts: Counts) -> Ranked:
        """The walk down the sorted rows, cut at ``THRESHOLDS`` and then where calibration groups begin."""
        treated = [np.count_nonzero(self.p >= threshold) for threshold in THRESHOLDS]
        groups = len(self.p) - np.array(calibration_edges(self.p))
        return rank(order(self.y, self.p, self.patient, np.append(treated, groups)), counts, ALERT_RATES)


def auroc_auprc(rows: Scored, counts: Counts) -> tuple[Floats, Floats]:
    """Area under the ROC curve (ties count half) and average precision (as scikit-learn defines it)."""
    found = rows.ranked(counts)
    return found.auroc, found.auprc


def brier(rows: Scored, counts: Counts) -> Floats:
    """Mean squared difference of probability and outcome (Brier 1950, Mon Weather Rev 78:1)."""
    error, weight = counts.sums(np.stack([(rows.p - rows.y) ** 2, np.ones(len(rows.p))], axis=1), rows.patient).T
    return _share(error, weight)


def _share(part: NDArray[np.number], whole: NDArray[np.number]) -> Floats:
    part, whole = np.broadcast_arrays(part, whole)
    found: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0, dtype=np.float64)
    return found


def ranking_metrics(found: Ranked) -> Draws:
    """AUROC, average precision, sensitivity and predictive value at each alert rate, net benefit at each threshold.

    ``sensitivity@r`` and ``ppv@r``: the share r of rows with the highest risk is alerted, in each draw anew.
    ``net_benefit@t`` = TP/n − FP/n · t/(1 − t), where risks of t or more are treated; ``treat_all@t`` treats everybody
    (Vickers & Elkin 2006, Med Decis Making 26:565). ``observed@k``: observed share in group k of
    ``curves.calibration_curve``, whose groups stay fixed.
    """
    rows = found.events + found.others
    one_class = (found.events == 0) | (found.others == 0)
    draws = {"auroc": found.auroc, "auprc": found.auprc}
    for rate, caught in zip(ALERT_RATES, found.caught, strict=True):
        draws[f"sensitivity@{rate:g}"] = np.where(one_class, np.nan, _share(caught, found.events))
        draws[f"ppv@{rate:g}"] = np.where(one_class, np.nan, _share(caught, rate * rows))
    for k, threshold in enumerate(THRESHOLDS):
        odds = threshold / (1 - threshold)
        draws[f"net_benefit@{threshold:g}"] = _share(found.events_above[k] - found.others_above[k] * odds, rows)
        draws[f"treat_all@{threshold:g}"] = _share(found.events - found.others * odds, rows)
    edges = slice(len(THRESHOLDS), None)
    events, others = (-np.diff(above[edges], axis=0) for above in (found.events_above, found.others_above))
    return draws | {f"observed@{k}": _share(events[k], events[k] + others[k]) for k in range(len(events))}


def all_metrics(rows: Scored, counts: Counts) -> Draws:
    """Every metric of ``ml.evaluation.results.METRICS``, and ``ranking_metrics``."""
    slope, intercept = calibration_slope_intercept(rows.y, rows.p, rows.patient, counts)
    rest = {"brier": brier(rows, counts), "calibration_slope": slope, "calibration_intercept": intercept}
    return ranking_metrics(rows.ranked(counts)) | rest
