"""Discrimination and calibration for many weightings of the same rows at once.

A bootstrap draw over patients is a count per patient; a row weighs what its patient counts. So every metric
is computed here for a matrix of counts, shape (draws, patients): the first row may be all ones, which gives
the point estimate. Heavy import (numba): only evaluation's own work imports this module.

Shapes: ``y`` bool (rows,), ``p`` float64 (rows,), ``patient`` int (rows,) index into the columns of
``counts`` int32 (draws, patients). Each function returns float64 (draws,), NaN where a draw has one class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]
CLIP = 1e-6  # probabilities are kept this far from 0 and 1 before their logit is taken


@dataclass(frozen=True)
class Scored:
    """Judged rows of one model on one task.

    Attributes:
        y: outcome, bool (rows,).
        p: predicted probability, float64 (rows,).
        patient: column of ``counts`` that a row belongs to, int64 (rows,).
    """

    y: NDArray[np.bool_]
    p: Floats
    patient: NDArray[np.int64]


def patient_counts(patients: int, draws: int, seed: int) -> Counts:
    """Bootstrap over patients: row 0 all ones, then ``draws`` multinomial counts; int32 (draws + 1, patients)."""
    counts = np.ones((draws + 1, patients), np.int32)
    rng = np.random.default_rng(seed)
    for draw in range(draws):
        counts[draw + 1] = np.bincount(rng.integers(0, patients, patients), minlength=patients)
    return counts


def _sorted(rows: Scored) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Patient, outcome and "last of its tie" of each row, highest risk first."""
    order = np.argsort(-rows.p, kind="stable")
    risk = rows.p[order]
    last = np.append(risk[1:] != risk[:-1], True)
    return rows.patient[order], rows.y[order], last


@njit(cache=True)
def _rank_metrics(patient: Any, y: Any, last: Any, counts: Any) -> Any:
    draws = counts.shape[0]
    auroc, auprc = np.full(draws, np.nan), np.full(draws, np.nan)
    for d in range(draws):
        weight = counts[d]
        positives = negatives = 0  # weight at higher risk than the tie at hand
        tie_positives = tie_negatives = 0
        area = precision = 0.0
        for i in range(y.shape[0]):
            w = weight[patient[i]]
            if y[i]:
                tie_positives += w
            else:
                tie_negatives += w
            if last[i]:
                area += tie_negatives * (positives + 0.5 * tie_positives)
                positives += tie_positives
                negatives += tie_negatives
                if tie_positives:
                    precision += tie_positives * (positives / (positives + negatives))
                tie_positives = tie_negatives = 0
        if positives and negatives:
            auroc[d] = area / (float(positives) * float(negatives))
            auprc[d] = precision / positives
    return auroc, auprc


def auroc_auprc(rows: Scored, counts: Counts) -> tuple[Floats, Floats]:
    """Area under the ROC curve (ties count half) and average precision (as scikit-learn defines it)."""
    return _rank_metrics(*_sorted(rows), counts)


def _patient_sums(rows: Scored, values: Floats, patients: int) -> Floats:
    """Sums per patient; ``values`` (rows, k) → (patients, k)."""
    columns = [np.bincount(rows.patient, weights=column, minlength=patients) for column in values.T]
    return np.stack(columns, axis=1)


def brier(rows: Scored, counts: Counts) -> Floats:
    """Mean squared difference of probability and outcome (Brier 1950)."""
    values = np.stack([(rows.p - rows.y) ** 2, np.ones(len(rows.p))], axis=1)
    error, weight = (counts @ _patient_sums(rows, values, counts.shape[1])).T
    return np.divide(error, weight, out=np.full(len(counts), np.nan), where=weight > 0)


@njit(cache=True, fastmath=True)
def _newton_sums(logit: Any, y: Any, patient: Any, weight: Any, a: float, b: float) -> Any:
    """Gradient and Hessian of the weighted log likelihood of P(y) = expit(a + b · logit)."""
    g0 = g1 = h00 = h01 = h11 = 0.0
    for i in range(logit.shape[0]):
        w = weight[patient[i]]
        if w == 0:  # a third of the patients in every draw
            continue
        x = logit[i]
        mu = 1.0 / (1.0 + np.exp(-(a + b * x)))
        r, v = w * (y[i] - mu), w * mu * (1.0 - mu)
        g0 += r
        g1 += r * x
        h00 += v
        h01 += v * x
        h11 += v * x * x
    return g0, g1, h00, h01, h11


@njit(cache=True)
def _fit_slope(logit: Any, y: Any, patient: Any, weight: Any, a: float, b: float, steps: int) -> Any:
    for _ in range(steps):
        g0, g1, h00, h01, h11 = _newton_sums(logit, y, patient, weight, a, b)
        det = h00 * h11 - h01 * h01
        if not det > 1e-12 * max(h00 * h11, 1e-300):
            return np.nan, np.nan
        da, db = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        a, b = a + da, b + db
        if not (abs(a) < 1e3 and abs(b) < 1e3):  # separated: the likelihood has no maximum
            return np.nan, np.nan
        if abs(da) < 1e-9 and abs(db) < 1e-9:
            break
    return a, b


@njit(cache=True)
def _fit_intercept(logit: Any, y: Any, patient: Any, weight: Any, a: float, steps: int) -> float:
    for _ in range(steps):
        g0, _g1, h00, _h01, _h11 = _newton_sums(logit, y, patient, weight, a, 1.0)
        if not h00 > 1e-300:
            return np.nan
        step = min(max(g0 / h00, -2.0), 2.0)
        a += step
        if not abs(a) < 50:
            return np.nan
        if abs(step) < 1e-9:
            break
    return a


@njit(cache=True)
def _refine(logit: Any, y: Any, patient: Any, counts: Any, line: Any, level: Any, steps: int) -> None:
    """Newton steps on every draw after the first, in place; ``line`` (draws, 2), ``level`` (draws,)."""
    for d in range(1, counts.shape[0]):
        if not np.isnan(line[d, 1]):
            line[d, 0], line[d, 1] = _fit_slope(logit, y, patient, counts[d], line[d, 0], line[d, 1], steps)
        if not np.isnan(level[d]):
            level[d] = _fit_intercept(logit, y, patient, counts[d], level[d], steps)


def _common_step(rows: Scored, logit: Floats, counts: Counts, a: float, b: float) -> Floats:
    """Sums of gradient and Hessian at one (a, b) for every draw: a matrix product; (draws, 5)."""
    mu = 1 / (1 + np.exp(-(a + b * logit)))
    r, v = rows.y - mu, mu * (1 - mu)
    values = np.stack([r, r * logit, v, v * logit, v * logit**2], axis=1)
    return counts @ _patient_sums(rows, values, counts.shape[1])


def _first_steps(rows: Scored, logit: Floats, counts: Counts) -> tuple[Floats, Floats]:
    """The first draw's converged fit, and one Newton step from it for every other."""
    y = rows.y.astype(np.float64)
    line, level = np.full((len(counts), 2), np.nan), np.full(len(counts), np.nan)
    a, b = _fit_slope(logit, y, rows.patient, counts[0], 0.0, 1.0, 50)
    if not np.isnan(b):
        g0, g1, h00, h01, h11 = _common_step(rows, logit, counts, a, b).T
        det = h00 * h11 - h01**2
        det[det <= 0] = np.nan
        line = np.stack([a + (h11 * g0 - h01 * g1) / det, b + (h00 * g1 - h01 * g0) / det], axis=1)
        line[0] = a, b
    c = _fit_intercept(logit, y, rows.patient, counts[0], 0.0, 50)
    if not np.isnan(c):
        g0, _, h00, _, _ = _common_step(rows, logit, counts, c, 1.0).T
        level = c + g0 / np.where(h00 > 0, h00, np.nan)
        level[0] = c
    return line, level


def calibration_slope_intercept(rows: Scored, counts: Counts, steps: int = 1) -> tuple[Floats, Floats]:
    """Logistic recalibration of the outcome on the logit of the predicted risk.

    Slope: b of P(y) = expit(a + b · logit p) (Cox 1958). Intercept: a of P(y) = expit(a + logit p),
    calibration in the large (Van Calster et al. 2016, J Clin Epidemiol 74:167). Draws after the first take
    one Newton step from the first's solution, which is a matrix product, and ``steps`` of their own: a draw
    differs little from the whole, and a test holds the distance to the converged fit.
    """
    if rows.y.all() or not rows.y.any():
        nothing = np.full(len(counts), np.nan)
        return nothing, nothing.copy()
    p = np.clip(rows.p, CLIP, 1 - CLIP)
    logit = np.log(p) - np.log1p(-p)
    line, level = _first_steps(rows, logit, counts)
    one_class = _one_class(rows, counts)
    line[one_class], level[one_class] = np.nan, np.nan
    _refine(logit, rows.y.astype(np.float64), rows.patient, counts, line, level, steps)
    return line[:, 1], level


def _one_class(rows: Scored, counts: Counts) -> NDArray[np.bool_]:
    """Draws without an event, or without a non-event."""
    values = np.stack([rows.y, ~rows.y], axis=1).astype(np.float64)
    found: NDArray[np.bool_] = (counts @ _patient_sums(rows, values, counts.shape[1]) == 0).any(axis=1)
    return found


def all_metrics(rows: Scored, counts: Counts) -> dict[str, Floats]:
    """Every metric of ``ml.evaluation.results.METRICS``, each (draws,)."""
    auroc, auprc = auroc_auprc(rows, counts)
    slope, intercept = calibration_slope_intercept(rows, counts)
    return {
        "auroc": auroc,
        "auprc": auprc,
        "brier": brier(rows, counts),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
    }
