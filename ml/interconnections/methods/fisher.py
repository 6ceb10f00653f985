"""Fisher's exact test of every pair, with the odds ratio as weight and false-discovery control."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import gammaln

from ml.interconnections.cohort import Cohort
from ml.interconnections.counting import count_together
from ml.interconnections.matrix import Z95, InterconnectionMatrix, Pairs, Provenance
from ml.interconnections.multiplicity import benjamini_hochberg

MEANING = "odds ratio of having both diagnoses, ever, over all patients; Fisher's exact test"
TIE = 1e-7  # relative; tables this close in probability count as equally extreme, as in scipy and R


@njit(nogil=True)
def _log_probability(both, first, second, total, factorial):  # type: ignore[no-untyped-def]
    """Hypergeometric log probability of ``both`` among ``first`` and ``second`` of ``total``."""
    return (
        factorial[first] - factorial[both] - factorial[first - both]
        + factorial[total - first] - factorial[second - both] - factorial[total - first - second + both]
        - factorial[total] + factorial[second] + factorial[total - second]
    )  # fmt: skip


@njit(nogil=True)
def _tail(both, first, second, total, step):  # type: ignore[no-untyped-def]
    """Σ over k = both, both + step, … of P(k) / P(both), until a term no longer counts."""
    low, high = max(0, first + second - total), min(first, second)
    term, sum_, k = 1.0, 1.0, both
    while low <= k + step <= high:
        if step > 0:
            ratio = (first - k) * (second - k) / ((k + 1.0) * (total - first - second + k + 1.0))
        else:
            ratio = k * (total - first - second + k + 0.0) / ((first - k + 1.0) * (second - k + 1.0))
        term *= ratio
        k += step
        sum_ += term
        if ratio < 1.0 and term < 1e-17 * sum_:
            break
    return sum_


@njit(nogil=True)
def _opposite(limit, mode, end, first, second, total, factorial):  # type: ignore[no-untyped-def]
    """The first table from ``mode`` towards ``end`` whose log probability is at most ``limit``; -1 where none is."""
    if _log_probability(end, first, second, total, factorial) > limit:
        return -1
    inside, outside = mode, end
    step = 1 if end > mode else -1
    while (outside - inside) * step > 1:
        middle = (inside + outside) // 2
        if _log_probability(middle, first, second, total, factorial) > limit:
            inside = middle
        else:
            outside = middle
    return outside


@njit(nogil=True)
def log_p_two_sided(both, first, second, total, factorial):  # type: ignore[no-untyped-def]
    """Log of the two-sided p-value: all tables with the same margins that are at most as probable as this one."""
    low, high = max(0, first + second - total), min(first, second)
    mode = (first + 1) * (second + 1) // (total + 2)
    mode = min(max(mode, low), high)
    observed = _log_probability(both, first, second, total, factorial)
    limit = observed + TIE
    if _log_probability(mode, first, second, total, factorial) <= limit:
        return 0.0
    upper = both > mode
    sum_ = _tail(both, first, second, total, 1 if upper else -1)
    other = _opposite(limit, mode, low if upper else high, first, second, total, factorial)
    if other >= 0:
        ratio = np.exp(_log_probability(other, first, second, total, factorial) - observed)
        sum_ += ratio * _tail(other, first, second, total, -1 if upper else 1)
    return min(0.0, observed + np.log(sum_))


@njit(nogil=True)
def _all_pairs(both, first, second, total, factorial):  # type: ignore[no-untyped-def]
    result = np.empty(len(both))
    for k in range(len(both)):
        result[k] = log_p_two_sided(both[k], first[k], second[k], total, factorial)
    return result


def fisher_log_p(
    both: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], total: int
) -> NDArray[np.float64]:
    """Natural logarithms of the exact two-sided p-values of 2×2 tables (Fisher; two-sided by probability, as in R).

    Args:
        both: (n,) patients with both diagnoses.
        first, second: (n,) patients with the one, with the other.
        total: all patients.
    """
    factorial = gammaln(np.arange(total + 1) + 1.0)
    return _all_pairs(both.astype(np.int64), first.astype(np.int64), second.astype(np.int64), total, factorial)


def odds_ratio(
    both: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], total: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sample odds ratio ad / bc and its 95 % interval exp(ln OR ± 1.96 √(1/a + 1/b + 1/c + 1/d)) (Woolf 1955).

    A table with an empty cell gets 0.5 added to all four (Haldane 1956, Anscombe 1956), so the ratio stays finite.

    Returns:
        odds ratio, lower bound, upper bound.
    """
    cells = np.stack([both, first - both, second - both, total - first - second + both]).astype(float)
    a, b, c, d = cells + 0.5 * (cells == 0).any(axis=0)
    log_ratio = np.log(a) + np.log(d) - np.log(b) - np.log(c)
    half = Z95 * np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    return np.exp(log_ratio), np.exp(log_ratio - half), np.exp(log_ratio + half)


def fisher(cohort: Cohort, min_cell: int) -> InterconnectionMatrix:
    """Test every pair of codes; keep those that at least ``min_cell`` patients have.

    The false-discovery rate is controlled over all C (C − 1) / 2 pairs, also those not kept: keeping only pairs that
    many have is a choice made after looking.
    """
    counts = count_together(cohort)
    each, total = np.diag(counts).copy(), cohort.patients
    source, target = np.triu_indices(len(cohort.codes), 1)
    both = counts[source, target]
    log_p = fisher_log_p(both, each[source], each[target], total)
    log_q = benjamini_hochberg(log_p)
    kept = np.flatnonzero(both >= min_cell)
    source, target, both = source[kept], target[kept], both[kept]
    weight, low, high = odds_ratio(both, each[source], each[target], total)
    pairs = Pairs(
        source.astype(np.int32),
        target.astype(np.int32),
        weight,
        low,
        high,
        np.exp(log_p[kept]),
        np.exp(log_q[kept]),
        both,
    )
    provenance = Provenance(
        method="fisher",
        as_of=cohort.as_of,
        snapshot_digest=cohort.digest,
        parameters={"min_cell": min_cell, "correction": "Benjamini-Hochberg"},
        patients=total,
        codes_left_out=cohort.codes_left_out,
        pairs_tested=len(log_p),
        pairs_left_out=int(np.count_nonzero(np.triu(counts, 1))) - len(kept),
    )
    return InterconnectionMatrix(cohort.codes, each, pairs, False, MEANING, provenance)
