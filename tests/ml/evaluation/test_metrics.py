"""Metrics against scikit-learn, statsmodels and their own definitions."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import precision_recall_curve as reference_curve

from ml.evaluation.bootstrap import Counts
from ml.evaluation.curves import calibration_curve, precision_recall_curve, roc_curve
from ml.evaluation.metrics import (
    Scored,
    all_metrics,
    auroc_auprc,
    brier,
    patient_counts,
    ranking_metrics,
)
from ml.evaluation.ranking import order, rank
from ml.evaluation.recalibration import calibration_slope_intercept, logit
from ml.evaluation.results import ALERT_RATES, THRESHOLDS

ONCE = Counts.of(np.ones((1, 1000), np.int32))


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
    rows, count = case
    counts, weight = Counts.of(count[None]), count[rows.patient]
    auroc, auprc = auroc_auprc(rows, counts)
    if not (weight[rows.y].sum() and weight[~rows.y].sum()):
        assert np.isnan(auroc[0])
        assert np.isnan(auprc[0])
        return
    used = weight > 0
    y, p, w = rows.y[used], rows.p[used], weight[used]
    assert auroc[0] == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=1e-12)
    assert auprc[0] == pytest.approx(average_precision_score(y, p, sample_weight=w), abs=1e-12)
    assert brier(rows, counts)[0] == pytest.approx(brier_score_loss(y, p, sample_weight=w), abs=1e-12)


def caught_one_by_one(rows: Scored, weight: np.ndarray, wanted: float) -> float:
    """Events among the ``wanted`` rows of highest risk: tie after tie, the last in part."""
    caught = 0.0
    for risk in sorted(set(rows.p.tolist()), reverse=True):
        tied = rows.p == risk
        size = weight[tied].sum()
        if size >= wanted:
            return caught + (weight[tied & rows.y].sum() * wanted / size if size else 0.0)
        caught, wanted = caught + weight[tied & rows.y].sum(), wanted - size
    return caught


@given(weighted_rows(), st.sampled_from([0.01, 0.05, 0.3, 0.77, 1.0]), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_alerts_and_threshold_counts_equal_a_count_one_by_one(
    case: tuple[Scored, np.ndarray], rate: float, copies: int
) -> None:
    one, count = case
    rows = Scored(np.tile(one.y, copies * 20), np.tile(one.p, copies * 20), np.tile(one.patient, copies * 20))
    weight, thresholds = count[rows.patient], (0.1, 0.2, 0.5, 0.99)
    cuts = np.array([(rows.p >= threshold).sum() for threshold in thresholds])
    found = rank(order(rows.y, rows.p, rows.patient, cuts), Counts.of(count[None]), (rate,))
    assert found.caught[0, 0] == pytest.approx(caught_one_by_one(rows, weight, rate * weight.sum()), abs=1e-9)
    for k, threshold in enumerate(thresholds):
        assert found.events_above[k, 0] == weight[(rows.p >= threshold) & rows.y].sum()
        assert found.others_above[k, 0] == weight[(rows.p >= threshold) & ~rows.y].sum()


def test_alerts_among_many_distinct_risks_equal_a_count_one_by_one() -> None:
    rows, counts = scored(rows=5000, patients=1000), patient_counts(1000, 100, seed=2)
    found, weights = ranking_metrics(rows.ranked(counts)), counts.matrix().astype(np.int64)
    for draw in (0, 1, 63, 64, 100):
        weight = weights[draw][rows.patient]
        for rate in ALERT_RATES:
            caught = caught_one_by_one(rows, weight, rate * weight.sum())
            assert found[f"sensitivity@{rate:g}"][draw] == pytest.approx(caught / weight[rows.y].sum())
            assert found[f"ppv@{rate:g}"][draw] == pytest.approx(caught / (rate * weight.sum()))


def test_net_benefit_is_true_positives_less_false_ones_at_the_odds_of_the_threshold() -> None:
    rows, counts = scored(), patient_counts(1000, 3, seed=2)
    found = ranking_metrics(rows.ranked(counts))
    for draw, count in enumerate(counts.matrix().astype(np.int64)):
        weight = count[rows.patient]
        for t in THRESHOLDS:
            treated = rows.p >= t
            benefit = (weight[treated & rows.y].sum() - weight[treated & ~rows.y].sum() * t / (1 - t)) / weight.sum()
            assert found[f"net_benefit@{t:g}"][draw] == pytest.approx(benefit, abs=1e-12)
            everybody = (weight[rows.y].sum() - weight[~rows.y].sum() * t / (1 - t)) / weight.sum()
            assert found[f"treat_all@{t:g}"][draw] == pytest.approx(everybody, abs=1e-12)


def test_a_draw_weighs_every_row_of_a_patient_together() -> None:
    rows = scored(rows=60, patients=12)
    counts = patient_counts(12, 20, seed=3)
    auroc, _ = auroc_auprc(rows, counts)
    for draw, count in enumerate(counts.matrix()):
        repeated = np.concatenate([np.flatnonzero(rows.patient == k) for k in np.repeat(np.arange(12), count)])
        assert auroc[draw] == pytest.approx(roc_auc_score(rows.y[repeated], rows.p[repeated]))


def test_draws_start_with_everybody_once_and_keep_the_number_of_patients() -> None:
    counts = patient_counts(500, 100, seed=1).matrix()
    assert counts.shape == (101, 500)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1, dtype=int) == 500).all()
    assert (patient_counts(500, 100, seed=1).matrix() == counts).all()
    assert (patient_counts(500, 100, seed=2).matrix() != counts).any()
    assert (patient_counts(500, 100, seed=1).first(70).matrix() == counts[:71]).all()


@given(st.integers(1, 200), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_sums_equal_a_matrix_product(draws: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, patient, values = rng.integers(0, 256, (draws, 9)), rng.integers(0, 9, 30), rng.normal(size=(30, columns))
    counts = Counts.of(matrix)
    assert (counts.matrix() == matrix).all()
    assert np.allclose(counts.sums(values, patient), matrix[:, patient] @ values, atol=1e-9)


def test_a_count_that_no_byte_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 255"):
        Counts.of(np.array([[256]]))


@pytest.mark.parametrize(("slope", "shift"), [(1.7, 0.6), (0.4, -1.0), (4.0, 2.0)])
def test_slope_and_intercept_equal_an_unpenalised_logistic_regression(slope: float, shift: float) -> None:
    rows = scored(slope=slope, shift=shift)
    found, intercept = calibration_slope_intercept(rows.y, rows.p, rows.patient, ONCE)
    x = logit(rows.p)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x[:, None], rows.y)
    assert found[0] == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    assert found[0] == pytest.approx(1 / slope, abs=0.06)
    model = sm.GLM(rows.y.astype(float), np.ones((len(x), 1)), family=sm.families.Binomial(), offset=x).fit(tol=1e-12)
    assert intercept[0] == pytest.approx(model.params[0], abs=1e-6)


@pytest.mark.parametrize(("rows", "share", "event_rate"), [(4000, 0.01, -1.5), (1200, 0.08, -4.0)])
def test_one_step_per_draw_agrees_with_refits_by_statsmodels(rows: int, share: float, event_rate: float) -> None:
    """Far closer than the interval is wide; ``share`` is the most that a draw may be off, relative to that width."""
    rng = np.random.default_rng(4)
    truth = rng.normal(event_rate, 1.2, rows)
    y, p = rng.random(rows) < 1 / (1 + np.exp(-truth)), 1 / (1 + np.exp(-1.3 * truth))
    patient, counts = np.arange(rows), patient_counts(rows, 60, seed=5)
    slope, intercept = calibration_slope_intercept(y, p, patient, counts)
    x, family = logit(p), sm.families.Binomial()
    line, level = [], []
    for count in counts.matrix().astype(float):
        line.append(sm.GLM(y.astype(float), sm.add_constant(x), family=family, freq_weights=count).fit().params[1])
        level.append(
            sm.GLM(y.astype(float), np.ones(rows), family=family, offset=x, freq_weights=count).fit().params[0]
        )
    for ours, theirs in ((slope, line), (intercept, level)):
        low, high = np.percentile(theirs[1:], [2.5, 97.5])
        assert np.abs(ours - np.array(theirs)).max() < share * (high - low)


def test_perfect_separation_has_no_calibration_slope_and_one_class_has_no_metric() -> None:
    y = np.repeat([False, True], 20)
    counts = Counts.of(np.ones((3, 40), np.int32))
    separated = all_metrics(Scored(y, np.where(y, 0.9, 0.1), np.arange(40)), counts)
    assert separated["auroc"][0] == 1
    assert np.isnan(separated["calibration_slope"]).all()
    single = all_metrics(Scored(np.zeros(40, bool), np.linspace(0, 1, 40), np.arange(40)), counts)
    lacking = ("auroc", "auprc", "calibration_slope", "calibration_intercept", "sensitivity@0.05", "ppv@0.05")
    assert all(np.isnan(single[m]).all() for m in lacking)


def test_a_constant_risk_has_no_slope_but_an_intercept() -> None:
    rows = scored()
    slope, intercept = calibration_slope_intercept(rows.y, np.full(4000, 0.5), rows.patient, ONCE)
    assert np.isnan(slope[0])
    assert intercept[0] == pytest.approx(np.log(rows.y.mean() / (1 - rows.y.mean())))


def test_calibration_bands_hold_the_observed_share_and_are_as_wide_as_chance() -> None:
    rows, counts = scored(rows=20_000, patients=20_000), patient_counts(20_000, 300, seed=1)
    draws, curve = ranking_metrics(rows.ranked(counts)), np.array(calibration_curve(rows.y, rows.p))
    shares = np.stack([draws[f"observed@{k}"] for k in range(10)])
    assert shares[:, 0] == pytest.approx(curve[:, 1], abs=1e-6)
    bands = np.percentile(shares[:, 1:], [2.5, 97.5], axis=1).T
    assert ((bands[:, 0] < curve[:, 1]) & (curve[:, 1] < bands[:, 1])).all()
    wide = 2 * 1.96 * np.sqrt(curve[:, 1] * (1 - curve[:, 1]) / curve[:, 2])
    assert (bands[:, 1] - bands[:, 0]) / wide == pytest.approx(1, abs=0.2)
    few = Scored(rows.y[:5], rows.p[:5], rows.patient[:5])
    assert "observed@0" not in ranking_metrics(few.ranked(counts))


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


def test_the_precision_recall_curve_lies_on_scikit_learns_and_begins_where_eleven_are_alerted() -> None:
    rng = np.random.default_rng(3)
    y = rng.random(5000) < 0.05
    p = np.round(np.clip(rng.normal(0.1 + 0.15 * y, 0.1), 0, 1), 2)  # many ties
    curve = precision_recall_curve(y, p)
    precision, recall, _ = reference_curve(y, p)
    reference = {(round(float(r), 4), round(float(q), 4)) for r, q in zip(recall, precision, strict=True)}
    assert set(curve) <= reference
    assert curve[-1][0] == 1
    assert 20 < len(curve) <= 60
    events_of_first = curve[0][0] * y.sum()
    assert events_of_first / curve[0][1] >= 11 - 0.01


def test_no_precision_recall_curve_from_fewer_than_eleven_events() -> None:
    y = np.arange(200) < 10
    assert precision_recall_curve(y, np.linspace(1, 0, 200)) == ()
