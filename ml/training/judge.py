"""AUROC for early stopping, and the calibration of logits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
SLOPE_PRIOR = 4.0  # weight of the belief that the slope is 1, in units of the logit's information


def auroc(labels: Floats, scores: Floats) -> float:
    """Area under the ROC curve by ranks, ties at one half (Mann-Whitney); NaN with one class only."""
    positive = labels > 0.5
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return math.nan
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def macro_auroc(labels: Floats, scores: Floats) -> tuple[float, list[float]]:
    """Mean AUROC over the outcomes that have both classes (NaN if none has), and each outcome's.

    Args:
        labels: ``[n, outcomes]``, NaN where not eligible.
        scores: ``[n, outcomes]``.
    """
    each = []
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        each.append(auroc(labels[known, column], scores[known, column]))
    found = [value for value in each if not math.isnan(value)]
    return (float(np.mean(found)) if found else math.nan), each


def platt(labels: Floats, logits: Floats) -> tuple[float, float]:
    """Slope and intercept that make ``sigmoid(slope * logit + intercept)`` calibrated (Platt 1999).

    Newton's method on the log-likelihood with a normal prior on the slope around 1, so that few events cannot
    turn it far. Without both classes the logits stay as they are.
    """
    x, y = logits.astype(np.float64), labels.astype(np.float64)
    if not 0 < y.sum() < y.size:
        return 1.0, 0.0
    slope, intercept = 1.0, 0.0
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(slope * x + intercept, -30, 30)))
        w = np.maximum(p * (1 - p), 1e-9)
        gradient = np.array([((p - y) * x).sum() + SLOPE_PRIOR * (slope - 1.0), (p - y).sum()])
        hessian = np.array([[(w * x * x).sum() + SLOPE_PRIOR, (w * x).sum()], [(w * x).sum(), w.sum() + 1e-6]])
        change = np.clip(np.linalg.solve(hessian, gradient), -2.0, 2.0)
        slope, intercept = slope - change[0], intercept - change[1]
        if np.abs(change).max() < 1e-8:
            break
    return float(max(slope, 0.05)), float(intercept)
