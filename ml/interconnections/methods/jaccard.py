"""Jaccard index: the share of the patients with either diagnosis who have both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.interconnections.cohort import Cohort
from ml.interconnections.counting import count_together
from ml.interconnections.matrix import InterconnectionMatrix, Pairs, Provenance

MEANING = "Jaccard index: patients with both diagnoses / patients with either, ever"


def jaccard_index(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """J_ij = N_ij / (N_i + N_j − N_ij), N in patients, ever; method M1.2 of arXiv 2510.04888.

    Args:
        counts: (C, C) symmetric, patients with both; the diagonal holds the patients of each code.

    Returns:
        (C, C) in [0, 1], one on the diagonal; 0 where nobody has either.
    """
    each = np.diag(counts)
    either = each[:, None] + each[None, :] - counts
    return counts / np.maximum(either, 1)


def jaccard(cohort: Cohort, min_cell: int) -> InterconnectionMatrix:
    """Jaccard index of every pair that at least ``min_cell`` patients have; no test, no interval."""
    counts = count_together(cohort)
    upper = np.triu(counts, 1)
    source, target = np.nonzero(upper >= min_cell)
    nothing = np.full(len(source), np.nan)
    pairs = Pairs(
        source.astype(np.int32),
        target.astype(np.int32),
        jaccard_index(counts)[source, target],
        *(nothing,) * 4,
        n_both=upper[source, target],
    )
    provenance = Provenance(
        method="jaccard",
        as_of=cohort.as_of,
        snapshot_digest=cohort.digest,
        parameters={"min_cell": min_cell},
        patients=cohort.patients,
        codes_left_out=cohort.codes_left_out,
        pairs_tested=0,
        pairs_left_out=int(np.count_nonzero(upper)) - len(source),
    )
    return InterconnectionMatrix(cohort.codes, np.diag(counts).copy(), pairs, False, MEANING, provenance)
