"""Are the demo hospital's planted effects found, and in their direction?"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from ml.common.errors import NotFoundError
from ml.interconnections.compare import Recovery, TrueEffect, recovery
from ml.interconnections.matrix import InterconnectionMatrix, Pairs, Provenance
from ml.interconnections.methods import METHODS

NIGHT = date(2024, 12, 31)


def matrix(pairs: list[tuple[int, int, float, float]], directed: bool = True) -> InterconnectionMatrix:
    """Four codes; a pair is (source, target, weight, adjusted p); intervals are 20 % to either side."""
    source, target = (np.array([pair[k] for pair in pairs], np.int32) for k in range(2))
    weight, p = (np.array([pair[k] for pair in pairs], np.float64) for k in (2, 3))
    codes = ("ICD10CM//A00", "ICD10CM//B00", "ICD10CM//C00", "ICD9CM//001")
    return InterconnectionMatrix(
        codes,
        np.full(4, 50),
        Pairs(source, target, weight, weight / 1.2, weight * 1.2, p, p, np.full(len(pairs), 20)),
        directed,
        "ratio",
        Provenance("test", NIGHT, "", {}, 100, 0, 12, 0),
    )


TRUTH = [TrueEffect("A00", "B00", 3.0), TrueEffect("B00", "C00", 0.5), TrueEffect("A00", "Z99", 2.0)]


def test_effects_found_in_their_direction_are_counted() -> None:
    found = recovery(matrix([(0, 1, 2.5, 0.001), (1, 2, 0.6, 0.01), (2, 3, 1.1, 0.6)]), TRUTH)
    assert found == Recovery(2, 2, 2, 0, 0, other_pairs=1, other_significant=0, auroc=1.0, precision_at_effects=1.0)


def test_an_effect_on_the_wrong_side_or_in_the_other_order_is_no_success() -> None:
    found = recovery(matrix([(1, 0, 2.5, 0.001), (1, 2, 1.6, 0.01), (0, 2, 2.0, 0.01)]), TRUTH)
    assert (found.significant, found.wrong_sign, found.reversed, found.other_significant) == (0, 1, 1, 1)
    assert found.precision_at_effects == 0.0
    assert found.auroc < 0.5


def test_an_undirected_matrix_cannot_tell_the_order() -> None:
    found = recovery(matrix([(0, 1, 2.5, 0.001)], directed=False), TRUTH)
    assert found.significant == 1
    assert found.auroc == pytest.approx(1 - 0.5 / 11)  # tied with its own reverse, ahead of the other ten


def test_a_matrix_without_intervals_is_ranked_by_its_weights() -> None:
    plain = matrix([(0, 1, 0.9, np.nan), (2, 3, 0.1, np.nan)], directed=False)
    nothing = np.full(2, np.nan)
    found = recovery(replace(plain, pairs=replace(plain.pairs, ci_low=nothing, ci_high=nothing)), TRUTH)
    assert found.significant == 0
    assert found.auroc == pytest.approx(1 - 0.5 / 11)


def test_a_truth_of_other_diseases_is_refused() -> None:
    with pytest.raises(NotFoundError, match="no known effect"):
        recovery(matrix([(0, 1, 2.0, 0.01)]), [TrueEffect("X00", "Y00", 2.0)])


def test_directed_relative_risk_recovers_the_planted_effects_better_than_undirected_methods() -> None:
    from benchmarks.recovery import demo_cohort, demo_truth
    from ml.demo.generate import Order

    demo = demo_cohort(Order(5_000, "general", 20_240_101))
    found = {name: recovery(method(demo, 11), demo_truth()) for name, method in METHODS.items()}
    directed, fisher = found["relative_risk"], found["fisher"]
    assert directed.significant >= 40
    assert directed.wrong_sign <= 1
    assert directed.reversed <= 2
    assert directed.other_significant <= 0.02 * directed.other_pairs
    assert fisher.other_significant > 0.2 * fisher.other_pairs  # age alone makes diseases go together
    assert directed.precision_at_effects > 1.4 * fisher.precision_at_effects
