"""Nested draws of labelled patients, folds, and the tests and intervals on top."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from ml.experiments.draws import Order, thinned
from ml.experiments.ladder import STEPS, LadderPlan, folds_of
from ml.experiments.plans import core_behrt_ladder
from ml.experiments.statistics import adjusted, one_sided, over_draws, over_repeats, stars
from ml.interconnections.multiplicity import benjamini_hochberg
from ml.sequences import Item
from ml.training.data import Labelled

SIZES = (10, 20, 50, 100, 200)


@pytest.fixture
def labelled() -> Labelled:
    """300 patients at three index days each; every fourth has the outcome after one of them."""
    rng = np.random.default_rng(3)
    subjects = np.repeat(np.arange(300), 3)
    labels = np.zeros((900, 1), np.float32)
    labels[np.arange(0, 900, 12) + rng.integers(0, 3, 75), 0] = 1.0
    place = np.arange(900)
    return Labelled(Item([], np.zeros(900, np.int64), place), labels, subjects, np.tile([1, 2, 3], 300))


def test_a_larger_draw_holds_the_smaller_one_and_each_part_of_it(labelled: Labelled) -> None:
    draws = [Order.of(labelled, 1, 0).draw(size, 0.30) for size in SIZES]
    for small, large in itertools.pairwise(draws):
        assert small is not None
        assert large is not None
        assert set(small.rows) <= set(large.rows)
        if len(small.tuning):
            assert set(small.tuning) <= set(large.tuning)
            assert set(small.training) <= set(large.training)


@pytest.mark.parametrize("size", SIZES)
def test_a_draw_has_so_many_patients_once_each_and_its_share_of_cases(labelled: Labelled, size: int) -> None:
    draw = Order.of(labelled, 1, 0).draw(size, 0.25)
    assert draw is not None
    assert len(draw.rows) == size == len(np.unique(labelled.subjects[draw.rows]))
    assert labelled.labels[draw.rows].sum() == round(0.25 * size)
    assert not set(draw.training) & set(draw.tuning)
    assert (len(draw.tuning) > 0) == (size >= 100)


def test_no_patient_is_case_and_control_and_all_are_drawn_at_last(labelled: Labelled) -> None:
    order = Order.of(labelled, 1, 0)
    everyone = order.draw(None, 0.5)
    assert everyone is not None
    assert len(everyone.rows) == 300
    assert not set(labelled.subjects[order.cases]) & set(labelled.subjects[order.controls])
    assert labelled.labels[order.cases].all()


def test_repeats_draw_others_and_too_few_cases_give_no_draw(labelled: Labelled) -> None:
    first, second = (Order.of(labelled, 1, repeat).draw(20, 0.39) for repeat in (0, 1))
    assert first is not None
    assert second is not None
    assert set(first.rows) != set(second.rows)
    assert Order.of(labelled, 1, 0).draw(200, 0.39) is None  # 78 of 75 cases


def test_folds_divide_patients_into_equal_parts() -> None:
    subjects = np.repeat(np.arange(103), np.random.default_rng(1).integers(1, 5, 103))
    fold = folds_of(subjects, 5, 42)
    of_patient = {(s, f) for s, f in zip(subjects.tolist(), fold.tolist(), strict=True)}
    assert len(of_patient) == 103
    assert sorted(np.bincount([f for _, f in of_patient]).tolist()) == [20, 20, 21, 21, 21]
    assert np.array_equal(fold, folds_of(subjects, 5, 42))
    assert not np.array_equal(fold, folds_of(subjects, 5, 43))


def test_thinning_keeps_every_case() -> None:
    labels = np.full((200, 2), np.nan, np.float32)
    labels[:, 0] = 0.0
    labels[::20, 1] = 1.0
    kept = thinned(labels, 3, np.random.default_rng(1))
    assert set(range(0, 200, 20)) <= set(kept.tolist())
    assert len(kept) == 40


def test_the_one_sided_test_is_the_papers_formula() -> None:
    better, worse = np.array([0.80, 0.82, 0.81, 0.83, 0.84]), np.array([0.78, 0.80, 0.79, 0.80, 0.82])
    error = np.sqrt(better.std(ddof=1) ** 2 / 5 + worse.std(ddof=1) ** 2 / 5)
    assert one_sided(better, worse) == pytest.approx(1 - stats.t.cdf((better.mean() - worse.mean()) / error, df=4))
    assert one_sided(worse, better) == pytest.approx(1 - one_sided(better, worse))
    assert one_sided(better, better) == 0.5
    welch = stats.ttest_ind(better, worse, equal_var=False, alternative="greater").pvalue  # same t, more freedom
    assert welch < one_sided(better, worse) < 2 * welch


def test_p_values_are_adjusted_as_the_interconnections_are() -> None:
    p = np.array([0.001, 0.04, 0.03, 0.5, 0.9])
    assert np.allclose(adjusted(p), np.exp(benjamini_hochberg(np.log(p))))
    assert [stars(value) for value in (0.2, 0.04, 0.004, 0.0004)] == ["", "*", "**", "***"]


def test_the_interval_over_repeats_is_students() -> None:
    values = np.array([0.61, 0.64, 0.66, 0.60, 0.63])
    found = over_repeats(values)
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert np.isnan(over_repeats(values[:1]).low)
    draws = over_draws(np.concatenate(([0.5], np.linspace(0, 1, 101))))
    assert (draws.value, draws.low, draws.high) == pytest.approx((0.5, 0.025, 0.975))


def test_the_last_rung_is_the_core_behrt_preset_but_for_size_and_decoder() -> None:
    from ml.models import load_preset

    plan: LadderPlan = core_behrt_ladder("full")
    last, published = plan.presets()[STEPS[-1].name], load_preset("core-behrt")
    assert last.model.model_dump() == {**published.model.model_dump(), "tied": True}
    assert last.form == published.form
    assert last.pretraining.masked == published.pretraining.masked


def test_a_rejected_step_is_not_built_on() -> None:
    presets = core_behrt_ladder("small").presets()
    assert not presets["− SEP"].form.separators
    assert presets["+ visit number"].form.separators
    assert presets["+ long stays"].pretraining.long_stay == 1.0
    assert presets[STEPS[-1].name].pretraining.long_stay == 0.0
