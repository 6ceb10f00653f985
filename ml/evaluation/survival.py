"""AUROC at a horizon where follow-up ends early for some: cumulative cases, dynamic controls, weighted by the inverse
probability of not being censored (Uno et al. 2007, J Am Stat Assoc 102:527; Hung & Chiang 2010, Can J Stat 38:8).

A case has its event before the horizon, a control is followed to the horizon without one. Who leaves earlier is
neither, but tells how likely it is to stay: a case weighs 1 / G(time−), G the Kaplan-Meier estimate of staying; the
weight of the controls, 1 / G(horizon), cancels. G is estimated anew in every draw. It assumes that leaving does not
depend on the risk; where it does, the figure is as biased as any that leaves the censored out.

The kernel is compiled when first called and not cached on disk: numba's cache unpickles what it finds there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ml.evaluation.bootstrap import WIDTH, Counts
from ml.evaluation.rows import FollowUp

Floats = NDArray[np.float64]
CASE, CONTROL, NEITHER = 1, 0, -1


def _role(follow_up: FollowUp, horizon: float) -> NDArray[np.int8]:
    """``CASE``, ``CONTROL`` or ``NEITHER`` of each row, int8 (rows,)."""
    case, stayed = follow_up.event & (follow_up.days < horizon), follow_up.days >= horizon
    return np.where(case, CASE, np.where(stayed, CONTROL, NEITHER)).astype(np.int8)


@njit(nogil=True)
def _staying(patient: Any, event: Any, last: Any, weight: Any, staying: Any) -> None:
    """G just before each row's time, in place; rows by time. At one time events come before those who leave."""
    at_risk = np.int64(0)
    for i in range(patient.shape[0]):
        at_risk += weight[patient[i]]
    share = 1.0
    first, gone, events = 0, 0, 0
    for i in range(patient.shape[0]):
        if event[i]:
            events += weight[patient[i]]
        else:
            gone += weight[patient[i]]
        if last[i]:
            staying[first : i + 1] = share
            if gone > 0:
                share *= 1.0 - gone / (at_risk - events)
            at_risk -= gone + events
            first, gone, events = i + 1, 0, 0


@njit(nogil=True)
def _area(by_risk: Any, last: Any, patient: Any, role: Any, staying: Any, weight: Any) -> float:
    """Weighted AUROC of cases against controls; rows as in ``role``, walked by falling risk."""
    area = controls = cases = 0.0
    tied_controls = tied_cases = 0.0
    for k in range(by_risk.shape[0]):
        i = by_risk[k]
        w = float(weight[patient[i]])
        if role[i] == CASE and w > 0:
            tied_cases += w / staying[i]
        elif role[i] == CONTROL:
            tied_controls += w
        if last[k]:
            area += tied_controls * (cases + 0.5 * tied_cases)
            cases += tied_cases
            controls += tied_controls
            tied_controls = tied_cases = 0.0
    return area / (cases * controls) if cases > 0 and controls > 0 else np.nan


@njit(nogil=True)
def _areas(
    patient: Any, event: Any, last_time: Any, role: Any, by_risk: Any, last_risk: Any, blocks: Any, areas: Any
) -> None:
    staying = np.empty(patient.shape[0])
    weight = np.empty(blocks.shape[1], np.int64)
    for d in range(areas.shape[0]):
        weight[:] = blocks[d // WIDTH, :, d % WIDTH]
        _staying(patient, event, last_time, weight, staying)
        areas[d] = _area(by_risk, last_risk, patient, role, staying, weight)


def _last(values: Floats) -> NDArray[np.bool_]:
    return np.append(values[1:] != values[:-1], True)


def time_dependent_auroc(
    follow_up: FollowUp, p: Floats, patient: NDArray[np.integer], counts: Counts, horizon: float
) -> Floats:
    """Cumulative/dynamic AUROC at ``horizon`` days, (draws,); NaN without a case or a control. At least one row."""
    by_time = np.argsort(follow_up.days, kind="stable")
    risk = p[by_time]
    by_risk = np.argsort(-risk, kind="stable")
    areas = np.empty(counts.draws)
    _areas(
        patient[by_time].astype(np.int32),
        follow_up.event[by_time],
        _last(follow_up.days[by_time]),
        _role(follow_up, horizon)[by_time],
        by_risk,
        _last(risk[by_risk]),
        counts.blocks,
        areas,
    )
    return areas
