"""Metrics against scikit-learn and against their own definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from ml.evaluation.curves import calibration_curve, roc_curve
from ml.evaluation.metrics import (
    Scored,
    all_metrics,
    auroc_auprc,
    brier,
    calibration_slope_intercept,
    patient_counts,
)


def scored(rows: int = 4000, patients: int = 1000, seed: int = 0, slope: float = 1.0, shift: float = 0.0) -> Scored:
    """Rows whose true recalibration line is known: logit P(y) = (logit p - shift) / slope."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1.5, 1.2, rows)
    y = rng.random(rows) < 1 / (1 + np.exp(-truth))
    p = 1 / (1 + np.exp(-(truth * slope + shift)))
    return Scored(y, p, np.arange(rows) % patients)


@st.composite
def weighted_rows(draw: st.DrawFn) -> tuple[Scored, np.ndarray]:
    rows = draw(st.integers(2, 40))
    y = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    y[0], y[1] = True, False
    p = np.array(draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), min_size=rows, max_size=rows)))
    patient = np.array(draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows)))
    counts = np.array(draw(st.lists(st.integers(0, 5), min_size=10, max_size=10)), np.int32)
    return Scored(y, p, patient), counts


@given(weighted_rows())
@settings(max_examples=150, deadline=None)
def test_ranking_metrics_equal_scikit_learns_under_ties_and_patient_weights(case: tuple[Scored, np.ndarray]) -> None:
    rows, counts = case
    weight = counts[rows.patient]
    auroc, auprc = auroc_auprc(rows, counts[None])
    if not (weight[rows.y].sum() and weight[~rows.y].sum()):
        assert np.isnan(auroc[0])
        assert np.isnan(auprc[0])
        return
    used = weight > 0
    y, p, w = rows.y[used], rows.p[used], weight[used]
    assert auroc[0] == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=1e-12)
    assert auprc[0] == pytest.approx(average_precision_score(y, p, sample_weight=w), abs=1e-12)
    assert brier(rows, counts[None])[0] == pytest.approx(brier_score_loss(y, p, sample_weight=w), abs=1e-12)


def test_a_draw_weighs_every_row_of_a_patient_together() -> None:
    rows = scored(rows=60, patients=12)
    counts = patient_counts(12, 20, seed=3)
    auroc, _ = auroc_auprc(rows, counts)
    for draw in range(21):
        repeated = np.concatenate([np.flatnonzero(rows.patient == k) for k in np.repeat(np.arange(12), counts[draw])])
        assert auroc[draw] == pytest.approx(roc_auc_score(rows.y[repeated], rows.p[repeated]))


def test_draws_start_with_everybody_once_and_keep_the_number_of_patients() -> None:
    counts = patient_counts(500, 100, seed=1)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 500).all()
    assert (patient_counts(500, 100, seed=1) == counts).all()
    assert (patient_counts(500, 100, seed=2) != counts).any()


def test_slope_and_intercept_equal_an_unpenalised_logistic_regression() -> None:
    rows = scored(slope=1.7, shift=0.6)
    slope, intercept = calibration_slope_intercept(rows, np.ones((1, 1000), np.int32))
    logit = np.log(rows.p / (1 - rows.p))[:, None]
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit, rows.y)
    assert slope[0] == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    assert slope[0] == pytest.approx(1 / 1.7, abs=0.06)
    shifted = 1 / (1 + np.exp(-(logit[:, 0] + intercept[0])))
    assert shifted.mean() == pytest.approx(rows.y.mean(), abs=1e-8)  # what calibration in the large means


def test_short_fits_of_the_draws_agree_with_converged_ones() -> None:
    rows, counts = scored(), patient_counts(1000, 100, seed=5)
    short, converged = (calibration_slope_intercept(rows, counts, steps) for steps in (1, 30))
    assert np.abs(short[0] - converged[0]).max() < 1e-3
    assert np.abs(short[1] - converged[1]).max() < 1e-3
    none = calibration_slope_intercept(rows, counts, 0)
    assert np.abs(none[0] - converged[0]).max() > np.abs(short[0] - converged[0]).max()


def test_perfect_separation_has_no_calibration_slope_and_one_class_has_no_metric() -> None:
    y = np.repeat([False, True], 20)
    counts = np.ones((3, 40), np.int32)
    separated = all_metrics(Scored(y, np.where(y, 0.9, 0.1), np.arange(40)), counts)
    assert separated["auroc"][0] == 1
    assert np.isnan(separated["calibration_slope"]).all()
    single = all_metrics(Scored(np.zeros(40, bool), np.linspace(0, 1, 40), np.arange(40)), counts)
    assert all(np.isnan(single[m]).all() for m in ("auroc", "auprc", "calibration_slope", "calibration_intercept"))


def test_a_constant_risk_has_no_slope_but_an_intercept() -> None:
    rows = scored()
    constant = Scored(rows.y, np.full(4000, 0.5), rows.patient)
    slope, intercept = calibration_slope_intercept(constant, np.ones((1, 1000), np.int32))
    assert np.isnan(slope[0])
    assert intercept[0] == pytest.approx(np.log(rows.y.mean() / (1 - rows.y.mean())))


def test_thinned_roc_curve_keeps_its_ends_and_its_area() -> None:
    rows = scored()
    curve = np.array(roc_curve(rows.y, rows.p))
    assert len(curve) <= 60
    assert tuple(curve[0]) == (0, 0)
    assert tuple(curve[-1]) == (1, 1)
    area = np.trapezoid(curve[:, 1], curve[:, 0])
    assert area == pytest.approx(roc_auc_score(rows.y, rows.p), abs=2e-3)


def test_no_roc_curve_from_fewer_than_eleven_events() -> None:
    p = np.linspace(0, 1, 200)
    assert roc_curve(np.arange(200) >= 190, p) == ()
    assert roc_curve(np.arange(200) >= 189, p) != ()


@given(st.lists(st.sampled_from([0.1, 0.2, 0.2001, 0.5, 0.9]), max_size=300), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_calibration_groups_hold_at_least_eleven_rows_and_every_row_once(risks: list[float], groups: int) -> None:
    p = np.array(risks)
    curve = calibration_curve(p > 0.3, p, groups)
    assert all(n >= 11 for _, _, n in curve)
    assert sum(n for *_, n in curve) == (len(p) if len(p) >= 11 else 0)


def test_calibration_groups_show_a_model_that_is_twice_too_sure() -> None:
    rows = scored(rows=20_000)
    curve = np.array(calibration_curve(rows.y, rows.p))
    assert np.abs(curve[:, 0] - curve[:, 1]).max() < 0.05
    wrong = np.array(calibration_curve(rows.y, rows.p / 2))
    assert np.abs(wrong[:, 0] - wrong[:, 1]).max() > 0.2
