"""ROC, precision-recall and calibration curves, thinned until they hold no single patient."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.results import CELL

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def roc_curve(y: Bools, p: Floats, points: int = 60) -> tuple[tuple[float, float], ...]:
    """ROC curve from (0, 0) to (1, 1) at ``points`` even steps along it, (fpr, tpr) rounded to 4 digits.

    Empty with fewer than ``CELL`` events or non-events: each step would be one person.
    """
    events = int(y.sum())
    if min(events, len(y) - events) < CELL:
        return ()
    order = np.argsort(-p, kind="stable")
    risk, hit = p[order], y[order]
    last = np.append(risk[1:] != risk[:-1], True)
    tpr = np.concatenate([[0.0], np.cumsum(hit)[last] / events])
    fpr = np.concatenate([[0.0], np.cumsum(~hit)[last] / (len(y) - events)])
    length = (tpr + fpr) / 2  # grows along the curve, so even steps follow both its steep and its flat part
    keep = np.unique(np.searchsorted(length, np.linspace(0, 1, points)).clip(0, len(length) - 1))
    return tuple((round(float(x), 4), round(float(t), 4)) for x, t in zip(fpr[keep], tpr[keep], strict=True))


def precision_recall_curve(y: Bools, p: Floats, points: int = 60) -> tuple[tuple[float, float], ...]:
    """Precision against recall at ``points`` even steps of recall, (recall, precision) rounded to 4 digits.

    Empty with fewer than ``CELL`` events or non-events; begins where ``CELL`` rows are alerted.
    """
    events = int(y.sum())
    if min(events, len(y) - events) < CELL:
        return ()
    order = np.argsort(-p, kind="stable")
    risk, hit = p[order], y[order]
    last = np.flatnonzero(np.append(risk[1:] != risk[:-1], True))
    last = last[last >= CELL - 1]
    caught = np.cumsum(hit)[last]
    recall, precision = caught / events, caught / (last + 1)
    keep = np.unique(np.searchsorted(recall, np.linspace(recall[0], 1, points)).clip(0, len(recall) - 1))
    return tuple((round(float(r), 4), round(float(q), 4)) for r, q in zip(recall[keep], precision[keep], strict=True))


def calibration_edges(p: Floats, groups: int = 10) -> list[int]:
    """Where groups of equal size begin and end among rows sorted by risk; ties stay together.

    Groups below ``CELL`` rows are joined with their neighbour; one edge, no group, if that leaves too few.
    """
    risk = np.sort(p)
    edges = [0]
    for k in range(1, groups + 1):
        edge = len(p) * k // groups
        while 0 < edge < len(p) and risk[edge] == risk[edge - 1]:
            edge += 1
        if edge - edges[-1] >= CELL:
            edges.append(edge)
    if len(edges) > 1:
        edges[-1] = len(p)
    return edges


def calibration_curve(y: Bools, p: Floats, groups: int = 10) -> tuple[tuple[float, float, int], ...]:
    """(mean predicted, observed share, rows) in the groups of ``calibration_edges``."""
    order = np.argsort(p, kind="stable")
    risk, hit = p[order], y[order]
    return tuple(
        (round(float(risk[a:b].mean()), 6), round(float(hit[a:b].mean()), 6), b - a)
        for a, b in pairwise(calibration_edges(p, groups))
    )
