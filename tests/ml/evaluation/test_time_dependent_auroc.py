"""The AUROC under censoring against its definition, lifelines' Kaplan-Meier and the AUROC without censoring."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from sklearn.metrics import roc_auc_score

from ml.evaluation.bootstrap import Counts, patient_counts
from ml.evaluation.rows import FollowUp
from ml.evaluation.survival import time_dependent_auroc

HORIZON = 365.0


def plain(days: np.ndarray, event: np.ndarray, p: np.ndarray, weight: np.ndarray, horizon: float) -> float:
    """The double sum over cases and controls, G multiplied up from its definition."""

    def staying(before: float) -> float:
        share = 1.0
        for t in np.unique(days[~event & (days < before)]):
            at_risk = weight[days > t].sum() + weight[(days == t) & ~event].sum()
            gone = weight[(days == t) & ~event].sum()
            share *= 1 - gone / at_risk if at_risk else 1.0
        return share

    area = mass = 0.0
    controls = days >= horizon
    for i in np.flatnonzero(event & (days < horizon) & (weight > 0)):
        w = weight[i] / staying(days[i])
        concordant = (p[controls] < p[i]) + 0.5 * (p[controls] == p[i])
        area += w * (weight[controls] * concordant).sum()
        mass += w * weight[controls].sum()
    return area / mass if mass else np.nan


@st.composite
def followed(draw: st.DrawFn) -> tuple[FollowUp, np.ndarray, np.ndarray]:
    rows = draw(st.integers(1, 30))
    days = draw(st.lists(st.sampled_from([1.0, 5.0, 20.0, 100.0, 364.0, 365.0, 400.0]), min_size=rows, max_size=rows))
    event = draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    p = draw(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.9]), min_size=rows, max_size=rows))
    weight = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
    return FollowUp(np.array(days), np.array(event)), np.array(p), np.array(weight)


@given(followed())
@settings(max_examples=200, deadline=None)
def test_it_equals_the_double_sum_of_its_definition(case: tuple[FollowUp, np.ndarray, np.ndarray]) -> None:
    ended, p, weight = case
    found = time_dependent_auroc(ended, p, np.arange(len(p)), Counts.of(weight[None]), HORIZON)[0]
    assert found == pytest.approx(plain(ended.days, ended.event, p, weight, HORIZON), abs=1e-12, nan_ok=True)


def simulated(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Risk, day of the event and day of leaving; leaving does not depend on the risk."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    event, leaving = rng.exponential(900 * np.exp(-x)), rng.exponential(400, rows)
    return 1 / (1 + np.exp(-x)), event, leaving


def test_weights_are_those_of_lifelines_kaplan_meier_of_leaving() -> None:
    p, event, leaving = simulated(400)
    days, seen = np.minimum(event, leaving), event <= leaving
    curve = KaplanMeierFitter().fit(days, ~seen)
    case, control = seen & (days < HORIZON), days >= HORIZON
    weight = np.where(case, 1 / curve.survival_function_at_times(days - 1e-9).to_numpy(), control.astype(float))
    used = case | control
    expected = roc_auc_score(case[used], p[used], sample_weight=weight[used])
    rows, once = np.arange(400), Counts.of(np.ones((1, 400), int))
    assert time_dependent_auroc(FollowUp(days, seen), p, rows, once, HORIZON)[0] == pytest.approx(expected, abs=1e-9)


def test_without_censoring_it_is_the_auroc_of_every_draw() -> None:
    p, event, _ = simulated(300)
    counts = patient_counts(300, 70, seed=1)
    found = time_dependent_auroc(FollowUp(event, np.ones(300, bool)), p, np.arange(300), counts, HORIZON)
    for draw in (0, 1, 63, 64, 70):
        weight = counts.matrix()[draw]
        assert found[draw] == pytest.approx(roc_auc_score(event < HORIZON, p, sample_weight=weight), abs=1e-12)


def test_it_finds_the_auroc_that_full_follow_up_would_give_where_leaving_out_the_censored_does_not() -> None:
    p, event, leaving = simulated(40_000)
    days, seen = np.minimum(event, leaving), event <= leaving
    truth = roc_auc_score(event < HORIZON, p)
    once = Counts.of(np.ones((1, 40_000), int))
    found = time_dependent_auroc(FollowUp(days, seen), p, np.arange(40_000), once, HORIZON)[0]
    naive = roc_auc_score(seen & (days < HORIZON), p)  # who left counts as free of the event
    assert found == pytest.approx(truth, abs=0.006)
    assert abs(naive - truth) > 0.02


def test_follow_up_knows_whether_anybody_left_early() -> None:
    assert not FollowUp(np.array([10.0, 365.0]), np.array([True, False])).censored(HORIZON)
    assert FollowUp(np.array([10.0, 364.0]), np.array([True, False])).censored(HORIZON)
