"""Subgroups: judged on their own rows with the shared draws, and silent where their counts would tell of a few."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ml.evaluation.metrics import patient_counts
from ml.evaluation.results import Subgroup
from ml.evaluation.rows import JudgedRows
from ml.evaluation.subgroups import age_bands, subgroups


def rows_of(sex: np.ndarray, seed: int = 1) -> JudgedRows:
    rng = np.random.default_rng(seed)
    n = len(sex)
    truth = rng.normal(-1.5, 1, n)
    y = rng.random(n) < 1 / (1 + np.exp(-truth))
    answers = {"medbert": 1 / (1 + np.exp(-truth)), "age_sex": 1 / (1 + np.exp(-truth - rng.normal(0, 1, n)))}
    return JudgedRows("any", np.arange(n), np.ones(n, bool), y, answers, groups={"sex": sex})


def found(rows: JudgedRows) -> dict[str, Subgroup]:
    n = len(rows.y)
    return {group.value: group for group in subgroups(rows, np.arange(n), patient_counts(n, 300, 1))}


def test_each_group_is_judged_on_its_own_rows_with_two_hundred_draws_and_paired_differences() -> None:
    sex = np.array(["F", "M"])[np.arange(3000) % 2]
    rows = rows_of(sex)
    for value, group in found(rows).items():
        inside = sex == value
        assert (group.n, group.events, group.draws) == (1500, rows.y[inside].sum(), 200)
        assert set(group.models) == {"medbert", "age_sex"}
        for model, metrics in group.models.items():
            assert metrics.auroc is not None
            expected = roc_auc_score(rows.y[inside], rows.probabilities[model][inside])
            assert metrics.auroc.value == pytest.approx(expected, abs=1e-6)
            assert metrics.auroc.low < expected < metrics.auroc.high
        paired = group.differences["medbert-minus-age_sex"].auroc
        assert paired is not None
        assert paired.low > 0  # the noise on the other model is large


def test_a_small_group_is_not_judged_and_takes_the_counts_of_its_division_with_it() -> None:
    sex = np.where(np.arange(3000) < 20, "X", np.where(np.arange(3000) % 2, "M", "F"))
    groups = found(rows_of(sex))
    assert groups["X"].models == {}
    assert groups["X"].reason == "fewer than 30 held-out patients with the outcome"
    assert all(group.n is None and group.events is None for group in groups.values())
    assert groups["F"].models["medbert"].auroc is not None
    assert found(rows_of(np.where(np.arange(3000) < 5, "X", "F")))["X"].reason == "fewer than 11 held-out rows"


def test_a_division_into_one_group_says_nothing_new_and_is_left_out() -> None:
    assert found(rows_of(np.full(500, "F"))) == {}


def test_age_bands_begin_at_their_lower_bound() -> None:
    ages = np.array([18.0, 44.9, 45.0, 64.99, 65.0, 79.9, 80.0, 101.0, np.nan])
    expected = ["under 45"] * 2 + ["45-64"] * 2 + ["65-79"] * 2 + ["80 and over"] * 2 + ["unknown"]
    assert age_bands(ages).tolist() == expected
