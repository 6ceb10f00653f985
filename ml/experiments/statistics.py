"""Intervals over repeats and over patients, and CORE-BEHRT's tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ml.evaluation.bootstrap import Counts, patient_counts
from ml.evaluation.metrics import Scored, auroc_auprc
from ml.evaluation.results import Estimate

Floats = NDArray[np.floating]
DRAWS = 400


@dataclass(frozen=True)
class Resampled:
    """One bootstrap over the patients behind some rows, shared by every model that is judged on them.

    Attributes:
        column: ``[rows]`` each row's patient among ``counts``.
    """

    column: NDArray[np.int64]
    counts: Counts

    @classmethod
    def of(cls, subjects: NDArray[np.int64], seed: int) -> Resampled:
        """``subjects [rows]``: whose rows they are."""
        patients, column = np.unique(subjects, return_inverse=True)
        return cls(column, patient_counts(len(patients), DRAWS, seed))

    def auroc(self, labels: Floats, scores: Floats) -> NDArray[np.float64]:
        """``[draws]`` AUROC, the point estimate first.

        Args:
            labels: ``[rows]``, NaN where not eligible.
            scores: ``[rows]``.
        """
        known = ~np.isnan(labels)
        rows = Scored(labels[known] > 0.5, scores[known].astype(np.float64), self.column[known])
        return np.asarray(auroc_auprc(rows, self.counts)[0])


def over_repeats(values: Floats) -> Estimate:
    """Mean and Student's 95 % interval over repeats; an interval without width from one repeat alone is none (NaN)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(value=mean, low=float("nan"), high=float("nan"))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Estimate(value=mean, low=mean - half, high=mean + half)


def over_draws(draws: Floats) -> Estimate:
    """From bootstrap draws, the point estimate first: the value, and its 2.5 and 97.5 percentiles."""
    low, high = np.nanpercentile(draws[1:], [2.5, 97.5])
    return Estimate(value=float(draws[0]), low=float(low), high=float(high))


def one_sided(better: Floats, worse: Floats) -> float:
    """p of the hypothesis that the first does no better, as CORE-BEHRT has it: t = (m1 - m2) / sqrt(s1²/N + s2²/N) with
    N - 1 degrees of freedom over the N folds (Odgaard 2024, p_value_computation.ipynb)."""
    count = len(better)
    error = np.sqrt((np.var(better, ddof=1) + np.var(worse, ddof=1)) / count)
    if error == 0:
        return 0.5 if np.mean(better) == np.mean(worse) else float(np.mean(better) < np.mean(worse))
    return float(stats.t.sf((np.mean(better) - np.mean(worse)) / error, count - 1))


def adjusted(p: Floats) -> NDArray[np.float64]:
    """p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995)."""
    return np.asarray(stats.false_discovery_control(np.asarray(p, np.float64), method="bh"))


def stars(p: float) -> str:
    """The paper's marks: * below 0.05, ** below 0.01, *** below 0.001."""
    return "*" * sum(p < level for level in (0.05, 0.01, 0.001))
