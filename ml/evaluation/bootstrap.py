"""One bootstrap over patients, which every model, task and subgroup shares.

A draw takes as many patients as there are, with replacement: it is a count per patient, and a row weighs what its
patient counts. Draw 0 counts everybody once, so that it gives the point estimate. Because all models see the same
draws, the difference of two models in each draw has an interval of its own.

The counts lie in blocks of ``WIDTH`` draws, patients one after the other in a block: what the kernels read of a
patient is one cache line, and a block stays in the cache while rows ask for its patients in any order.

The kernel is compiled when first called and not cached on disk: numba's cache unpickles what it finds there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WIDTH = 64  # draws in a block: 64 bytes, a cache line
MOST = 255  # a count is a byte; a patient is drawn once on average, and 256 times never


@dataclass(frozen=True)
class Counts:
    """How often each patient is in each draw.

    Attributes:
        blocks: uint8 (ceil(draws / WIDTH), patients, WIDTH); draws beyond ``draws`` are zero.
        draws: number of draws, the point estimate's included.
    """

    blocks: NDArray[np.uint8]
    draws: int

    @classmethod
    def of(cls, matrix: NDArray[np.integer]) -> Counts:
        """Counts from a matrix (draws, patients) of numbers from 0 to ``MOST``.

        Raises:
            ValueError: a number is outside.
        """
        if matrix.size and (matrix.min() < 0 or matrix.max() > MOST):
            raise ValueError(f"counts must lie between 0 and {MOST}")
        draws, patients = matrix.shape
        padded = np.zeros((-(-draws // WIDTH) * WIDTH, patients), np.uint8)
        padded[:draws] = matrix
        blocks = padded.reshape(-1, WIDTH, patients).transpose(0, 2, 1)
        return cls(np.ascontiguousarray(blocks), draws)

    @property
    def patients(self) -> int:
        """Number of patients."""
        return self.blocks.shape[1]

    def matrix(self) -> NDArray[np.uint8]:
        """The counts as a matrix (draws, patients)."""
        return self.blocks.transpose(0, 2, 1).reshape(-1, self.patients)[: self.draws]

    def first(self, draws: int) -> Counts:
        """The first ``draws`` draws after the point estimate's, or all if there are fewer."""
        kept = min(draws + 1, self.draws)
        blocks = self.blocks[: -(-kept // WIDTH)]
        return Counts(blocks, kept)

    def sums(self, values: Floats, patient: NDArray[np.integer]) -> Floats:
        """Weighted column sums of ``values`` (rows, k) in every draw, (draws, k); ``patient`` (rows,) owns the row.

        Sums per patient first, then one pass over the counts for all columns.
        """
        columns = [np.bincount(patient, weights=column, minlength=self.patients) for column in values.T]
        sums = np.zeros((len(self.blocks), values.shape[1], WIDTH))
        _add(np.stack(columns, axis=1), self.blocks, sums)
        found: Floats = sums.transpose(0, 2, 1).reshape(-1, values.shape[1])[: self.draws]
        return found


@njit(nogil=True)
def _add(of_patient: Any, blocks: Any, sums: Any) -> None:
    """``sums`` (blocks, k, WIDTH) += ``of_patient`` (patients, k), weighted; faster than BLAS, which wants floats."""
    weight = np.empty(WIDTH)
    for b in range(blocks.shape[0]):
        block, into = blocks[b], sums[b]
        for patient in range(of_patient.shape[0]):
            for k in range(WIDTH):
                weight[k] = block[patient, k]
            for column in range(of_patient.shape[1]):
                value = of_patient[patient, column]
                for k in range(WIDTH):
                    into[column, k] += value * weight[k]


def patient_counts(patients: int, draws: int, seed: int) -> Counts:
    """Everybody once, then ``draws`` draws of ``patients`` patients with replacement."""
    rng = np.random.default_rng(seed)
    blocks = np.zeros((-(-(draws + 1) // WIDTH), patients, WIDTH), np.uint8)
    blocks[0, :, 0] = 1
    for draw in range(1, draws + 1):
        count = np.bincount(rng.integers(0, patients, patients), minlength=patients)
        blocks[draw // WIDTH, :, draw % WIDTH] = np.minimum(count, MOST)
    return Counts(blocks, draws + 1)
