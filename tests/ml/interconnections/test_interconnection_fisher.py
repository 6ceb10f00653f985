from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats

from ml.interconnections.cohort import Cohort
from ml.interconnections.methods.fisher import fisher, fisher_log_p, odds_ratio
from ml.interconnections.methods.jaccard import jaccard, jaccard_index
from ml.interconnections.multiplicity import benjamini_hochberg


def scipy_p(both: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], total: int) -> list[float]:
    tables = zip(both.tolist(), first.tolist(), second.tolist(), strict=True)
    return [stats.fisher_exact([[k, a - k], [b - k, total - a - b + k]]).pvalue for k, a, b in tables]


def test_the_p_value_is_scipys_for_every_small_table() -> None:
    total = 11
    margins = product(range(total + 1), repeat=2)
    tables = [(k, a, b) for a, b in margins for k in range(max(0, a + b - total), min(a, b) + 1)]
    both, first, second = np.array(tables, dtype=np.int64).T
    assert np.exp(fisher_log_p(both, first, second, total)) == pytest.approx(
        scipy_p(both, first, second, total), rel=1e-11
    )


@pytest.mark.parametrize("total", [5_000, 500_000])
def test_the_p_value_is_scipys_for_large_tables_on_both_sides_of_chance(total: int) -> None:
    draw = np.random.default_rng(total)
    first, second = draw.integers(11, total // 3, (2, 150))
    expected = first * second / total
    both = np.clip(draw.normal(expected, 3 * np.sqrt(expected)).round(), 0, np.minimum(first, second)).astype(np.int64)
    ours = np.exp(fisher_log_p(both, first, second, total))
    assert ours == pytest.approx(scipy_p(both, first, second, total), rel=1e-7)
    assert fisher_log_p(both + 1, first, second, total) != pytest.approx(np.log(ours), rel=1e-7)  # it can differ


def test_a_p_value_too_small_for_a_float_keeps_its_logarithm() -> None:
    counts = np.array([9_000, 9_500]), np.array([10_000, 10_000]), np.array([10_000, 10_000])
    log_p = fisher_log_p(*counts, 100_000)
    assert np.all(np.isfinite(log_p))
    assert log_p[1] < log_p[0] < -700
    assert np.exp(log_p[0]) == 0.0


def test_the_odds_ratio_and_its_interval_are_scipys() -> None:
    ours = odds_ratio(np.array([30]), np.array([100]), np.array([80]), 1_000)
    other = stats.contingency.odds_ratio([[30, 70], [50, 850]], kind="sample")
    assert [float(value[0]) for value in ours] == pytest.approx(
        [other.statistic, *other.confidence_interval(0.95)], rel=1e-12
    )


def test_an_empty_cell_leaves_the_odds_ratio_finite() -> None:
    weight, low, high = odds_ratio(np.array([20]), np.array([20]), np.array([50]), 200)
    assert 1 < low[0] < weight[0] < high[0] < np.inf


def test_adjusted_p_values_are_scipys() -> None:
    p = np.random.default_rng(3).random(500) ** 3
    p[7] = p[8]
    assert np.exp(benjamini_hochberg(np.log(p))) == pytest.approx(stats.false_discovery_control(p), rel=1e-12)
    assert len(benjamini_hochberg(np.array([]))) == 0


def test_among_diseases_that_know_nothing_of_each_other_next_to_none_is_significant(chance: Cohort) -> None:
    matrix = fisher(chance, 11)
    assert matrix.provenance.pairs_tested == 30 * 29 / 2
    assert len(matrix.pairs) > 200
    assert (matrix.pairs.p_value < 0.05).mean() < 0.08
    assert (matrix.pairs.p_adjusted < 0.05).sum() <= 1


def test_diseases_that_go_together_are_found(cohort_of: Callable[..., Cohort]) -> None:
    having = [[code for code, modulus in (("I10", 4), ("E11", 5), ("I50", 7)) if n % modulus == 0] for n in range(700)]
    events = [(n, 1, f"ICD10CM//{code}") for n, codes in enumerate(having) for code in ["Z00", *codes]]
    copied = [(n, 2, "ICD10CM//N18") for n in range(0, 700, 8)]  # half of those with I10, nobody else
    matrix = fisher(cohort_of(events + copied), 11)
    names = [
        (matrix.codes[s][-3:], matrix.codes[t][-3:])
        for s, t in zip(matrix.pairs.source, matrix.pairs.target, strict=True)
    ]
    significant = [name for name, q in zip(names, matrix.pairs.p_adjusted, strict=True) if q < 0.05]
    assert significant == [("I10", "N18")]
    assert matrix.pairs.ci_low[names.index(("I10", "N18"))] > 10


@pytest.mark.parametrize("method", [jaccard, fisher])
def test_a_pair_stands_once_and_only_with_enough_patients(chance: Cohort, method: Callable[..., object]) -> None:
    everything, some = method(chance, 1), method(chance, 25)
    assert np.all(some.pairs.source < some.pairs.target)
    assert some.pairs.n_both.min() >= 25
    assert everything.pairs.n_both.min() < 25
    assert some.provenance.pairs_left_out == len(everything.pairs) - len(some.pairs) > 0


# The authors' own matrices of a closed hospital (arXiv 2510.04888); the number of all patients is not published.


def published(path: Path, codes: list[str] | None = None) -> tuple[list[str], NDArray[np.float64]]:
    frame = pl.read_csv(path)
    codes = codes or sorted({*frame["icd10_a"], *frame["icd10_b"]})
    place = {code: index for index, code in enumerate(codes)}
    values = np.zeros((len(codes),) * 2)
    values[[place[code] for code in frame["icd10_a"]], [place[code] for code in frame["icd10_b"]]] = frame["value"]
    return codes, values


@pytest.fixture(scope="module")
def closed(records: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Patients per pair of categories (symmetric, diagonal: per category), and the published "Fisher" matrix."""
    folder = records / "interconnections"
    codes, upper = published(folder / "arxiv2510_closed_cooccurrence_counts.csv.gz")
    _, raw = published(folder / "arxiv2510_closed_fisher_raw.csv.gz", codes)
    return (upper + np.triu(upper, 1).T).astype(np.int64), raw


def test_the_published_correlation_is_that_of_counts_and_falls_with_a_real_jaccard(
    closed: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    counts, raw = closed
    assert counts.shape == (879, 879)
    assert stats.spearmanr(raw.ravel(), counts.ravel()).statistic == pytest.approx(0.882, abs=0.0015)
    assert stats.spearmanr(raw.ravel(), jaccard_index(counts).ravel()).statistic == pytest.approx(0.874, abs=0.0005)


def test_the_p_values_of_a_real_hospital_are_scipys(closed: tuple[NDArray[np.int64], NDArray[np.float64]]) -> None:
    counts, _ = closed
    total = 2 * int(counts.diagonal().max())
    i, j = np.nonzero(np.triu(counts, 1))
    chosen = np.random.default_rng(5).choice(len(i), 300, replace=False)
    both, first, second = counts[i, j][chosen], counts.diagonal()[i][chosen], counts.diagonal()[j][chosen]
    theirs = np.array(scipy_p(both, first, second, total))
    shown = theirs > 1e-290  # scipy's own accuracy ends where floats do
    assert shown.sum() > 250
    assert np.exp(fisher_log_p(both, first, second, total))[shown] == pytest.approx(theirs[shown], rel=1e-8)
