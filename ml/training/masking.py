"""Masked language modelling: which codes are hidden, and what stands in their place (Devlin 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml.sequences.batches import Batch
from ml.sequences.vocabulary import MASK, SPECIALS

MASKED_AS_MASK, MASKED_AS_RANDOM = 0.8, 0.1  # the rest stays as it is


@dataclass(frozen=True)
class Masked:
    """``tokens [batch, length]`` with some hidden, ``positions`` bool of the same shape, ``targets [positions]``."""

    tokens: npt.NDArray[np.int32]
    positions: npt.NDArray[np.bool_]
    targets: npt.NDArray[np.int64]


def mask_codes(batch: Batch, share: float, vocabulary: int, rng: np.random.Generator, one_code: bool = False) -> Masked:
    """Hide a share of the events' codes, at least one per batch; [CLS] and static tokens are never hidden.

    Args:
        one_code: one code of each patient that has any, whatever the share (Rasmy 2021).
    """
    candidates = (batch.visits > 0) & (batch.tokens >= len(SPECIALS))
    drawn = rng.random(batch.tokens.shape)
    positions = _lowest_of_each(candidates, drawn) if one_code else candidates & (drawn < share)
    if not positions.any() and candidates.any():
        first = np.flatnonzero(candidates)[0]
        positions.flat[first] = True
    tokens = batch.tokens.copy()
    fate = rng.random(tokens.shape)
    tokens[positions & (fate < MASKED_AS_MASK)] = MASK
    swapped = positions & (fate >= MASKED_AS_MASK) & (fate < MASKED_AS_MASK + MASKED_AS_RANDOM)
    if vocabulary > len(SPECIALS):
        tokens[swapped] = rng.integers(len(SPECIALS), vocabulary, int(swapped.sum()))
    return Masked(tokens, positions, batch.tokens[positions].astype(np.int64))


def _lowest_of_each(candidates: npt.NDArray[np.bool_], drawn: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """``[batch, length]``: one candidate of each row that has any, each as likely."""
    chosen = np.zeros(candidates.shape, bool)
    rows = np.flatnonzero(candidates.any(axis=1))
    chosen[rows, np.where(candidates, drawn, 1.0).argmin(axis=1)[rows]] = True
    return chosen
